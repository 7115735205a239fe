"""Models: float parameters become LNS weights, and back.

The scale of each parameter, or of each of its channels or groups, is chosen once, from its values w0: the least
log_offset at which the greatest magnitude is at or above p_scale * RMS(w0), or that of another rule. Or, where these
were codes once, the one next to it at which nothing is lost: a state of codes that was loaded into a model of floats
becomes the codes that it was.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from lnsnum.format import LNSFormat, check_choice
from lnsnum.kernels.codes import check_format
from lnsnum.kernels.groups import check_group_size
from lnsnum.torch_bridge.calibrated import adapted, offsets_for_outputs, output_sqnr
from lnsnum.torch_bridge.carrying import succeed
from lnsnum.torch_bridge.distributed.dtensors import weight_of
from lnsnum.torch_bridge.distributed.exchange import announce
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.codes_twin import FLOAT_NAMES, check_width
from lnsnum.torch_bridge.kernels.fits import fit_rows
from lnsnum.torch_bridge.kernels.fitting import Windows, exact_windows
from lnsnum.torch_bridge.kernels.least_error import Axis
from lnsnum.torch_bridge.kernels.nearest_value import nearest_codes
from lnsnum.torch_bridge.kernels.scale import (
    ZERO_STD,
    Fit,
    LogOffset,
    check_offset,
    each_of,
    fit_to_rms,
    std_of_zeros,
)
from lnsnum.torch_bridge.placing import replace_parameters
from lnsnum.torch_bridge.reports import ConversionReport, ParameterReport
from lnsnum.torch_bridge.second_moments import SecondMoments, collect
from lnsnum.torch_bridge.surroundings import check_module, is_spread, spread_over_processes
from lnsnum.torch_bridge.weight import LNSWeight

Zeros = Literal["redraw", "keep"]
Scaling = Literal["rms", "max", "mse", "output"]
"""By which rule a scale is fitted to a parameter."""
WeightRounding = Literal["nearest", "nearest_value", "adaptive"]
"""How the weights of a parameter become codes."""
Formats = LNSFormat | str | Mapping[str, LNSFormat | str]


def convert_model(
    model: nn.Module,
    fmt: Formats,
    *,
    filter_fn: Callable[[str, nn.Parameter], bool] | None = None,
    per_channel: bool = False,
    channels: int | tuple[int, ...] | Mapping[str, int | tuple[int, ...]] | None = None,
    group_size: int | Mapping[str, int] | None = None,
    scale: Scaling | Mapping[str, Scaling] = "rms",
    p_scale: float | Mapping[str, float] = 3.0,
    rounding: WeightRounding | Mapping[str, WeightRounding] = "nearest",
    calibrate: Iterable[Any] | None = None,
    dampening: float = 0.01,
    zeros: Zeros = "keep",
    zero_std: float = ZERO_STD,
    seed: int = 0,
) -> ConversionReport:
    """Replace float parameters by `LNSWeight` parameters, in place.

    The defaults are for training: rounding is to nearest, and nonzero values below the range become the smallest
    magnitude, not zero. For a trained network that is to lose little, give `scale="output"`, `rounding="adaptive"` and
    some inputs to `calibrate` with.

    Make the optimizer after the conversion. Tied parameters stay tied. Hooks and attributes of parameters go over to
    the weights in their place, gradients do not; the report says what cannot. Rows of an embedding with max_norm are
    brought within it, as a lookup would. Nothing is replaced unless everything can be.

    Args:
        model: any module; its parameters on any device but "meta".
        fmt: the format of every parameter, or a mapping from name patterns (`fnmatch`: "*.weight") to formats, where
            the first pattern that matches decides and parameters that none matches stay float.
        filter_fn: given name and parameter, says whether to convert it. All of them where not given.
        per_channel: choose a log_offset for each index of the first dimension, of parameters with two or more; four
            bytes each.
        channels: choose one for each index of these dimensions instead: (0, 1) for each (expert, channel) of stacks.
            Or a mapping from name patterns, as of formats, for parameters that have these dimensions.
        group_size: choose one for each group of so many elements along the last dimension, 16 to 256; four bytes a
            group, the last of which has what is left. Of parameters with two or more dimensions whose last one has
            more elements than a group; others are converted as the options before say. Or a mapping from name patterns.
        scale: the rule of the scale, unless all values are exact in the format and another keeps them so: "rms", see
            p_scale; "max", the least at which nothing saturates; "mse", that of least squared error of the weights,
            over all log_offsets; "output", that of least squared error of what the layer makes of its inputs in the
            calibration, or "mse" of what is in no product. Or a mapping from name patterns, as of formats; "rms" where
            none matches.
        p_scale: headroom of the rule "rms": the greatest magnitude is at or just above p_scale times the root mean
            square. Or a mapping from name patterns; 3 where none matches.
        rounding: "nearest", on the log axis; "nearest_value", on the value axis, where what is below half of the
            smallest magnitude becomes zero; "adaptive", that with each error fed to the weights of its row that are not
            rounded yet, so that the outputs in the calibration change least (GPTQ), or "nearest_value" of what is in no
            product. Or a mapping from name patterns; "nearest" where none matches.
        calibrate: inputs, a tensor, a tuple of arguments or a mapping of keyword arguments for each call of the model,
            which is run in evaluation mode. The second moments of what each layer is given are added up in
            float64, (fan_in, fan_in) for each; where those of all take more than 1 GiB, the model is run again for
            more of them. Layers are linear ones, convolutions, embeddings and stacks of experts, as torch's
            operations use their weights, whole; what is in none has its own error as that of its output. Then the
            report has the SQNR of the outputs.
        dampening: of "adaptive", what is added to the diagonal of the second moments, in units of its mean.
        zeros: "keep" keeps them: they learn like other weights, and nothing but zeros get the scale of numbers
            re-drawn. Madam's rule="paper" cannot move them: for it "redraw" takes normally distributed numbers
            instead, of standard deviation `zero_std` or less: the parameter's own RMS, if that is not 0, and
            1 / sqrt(fan_in) for matrices of nothing but zeros. The padding row of an embedding is always kept.
        zero_std: see `zeros`.
        seed: of the numbers re-drawn.

    Returns:
        A report; print it.

    Raises:
        TypeError: where a parameter chosen is no real floating-point tensor, model is no module, or one that is spread
            over processes already, or a batch of the calibration is not what it is called with.
        ValueError: where there is nothing to convert, a pattern matches nothing, a value is NaN or infinite, or a
            parameter is an LNSWeight already, a view of other memory or of a lazy module that has not been called; the
            message names the parameter. Where a rule needs a calibration, and there is none, or it is empty.
    """
    check_choice("zeros", zeros, Zeros)
    rules = scale if isinstance(scale, Mapping) else {"*": scale}
    roundings = rounding if isinstance(rounding, Mapping) else {"*": rounding}
    _check_rules(rules, roundings, p_scale, calibrate, dampening, zeros)
    scales = p_scale if isinstance(p_scale, Mapping) else {"*": p_scale}
    for what, given in (*(("p_scale", scale) for scale in scales.values()), ("zero_std", zero_std)):
        if not 0.0 < given < math.inf:
            raise ValueError(f"{what}={given} is out of range: finite and greater than 0")
    chosen, left = _choose(model, fmt, filter_fn)
    options: dict[str, Mapping[str, Any]] = {"p_scale": scales, "scale": rules, "rounding": roundings}
    for what, option in (("channels", channels), ("group_size", group_size)):
        options[what] = option if isinstance(option, Mapping) else {} if option is None else {"*": option}
    for size in options["group_size"].values():
        check_group_size(size)
    names = _names_of(model)
    everything = [name for tied in names.values() for name in tied]
    for what, patterns in options.items():
        for pattern in patterns:
            if not fnmatch.filter(everything, pattern):
                raise ValueError(f"{what}: no parameter's name matches {pattern!r}")
    asked = {
        name: [_first_match(names[id(p)], options[what], None) for what in ("channels", "group_size")]
        for name, (p, _) in chosen.items()
    }
    layouts = {name: _layout(name, p.shape, per_channel, *asked[name]) for name, (p, _) in chosen.items()}
    for name, (parameter, _) in chosen.items():
        _check_convertible(name, parameter)
    _check_memory(model, chosen.keys())
    announce()  # before what takes long: others may come to their first forward meanwhile
    padding, norms = _padding_rows(model), _greatest_norms(model)
    generator = torch.Generator().manual_seed(seed)
    reports: dict[str, ParameterReport] = {}
    replacements: dict[int, nn.Parameter] = {}

    def convert(name: str, moments: SecondMoments | None) -> None:
        parameter, format_ = chosen[name]
        way = _Way(
            _first_match(names[id(parameter)], rules, "rms"),
            _first_match(names[id(parameter)], scales, 3.0),
            _first_match(names[id(parameter)], roundings, "nearest"),
            moments,
            dampening,
        )
        w = parameter.detach()
        if id(parameter) in norms:
            w = _within_norm(w, *norms[id(parameter)])
        rest = zeros, zero_std, padding.get(id(parameter)), generator
        try:
            weight, report = _convert(name, w, format_, layouts[name], way, *rest)
        except OverflowError as error:
            raise ValueError(f"parameter {name!r}: {error}; take rounding='nearest'") from error
        replacements[id(parameter)] = nn.Parameter(weight, requires_grad=parameter.requires_grad)
        lost = succeed(parameter, replacements[id(parameter)])
        reports[name] = replace(report, not_carried=lost)

    if calibrate is not None:
        # some at a time, whose moments there is room for; they are let go with the weights made
        for part in collect(model, {name: parameter for name, (parameter, _) in chosen.items()}, calibrate):
            for name, moments in part.items():
                convert(name, moments)
        if not reports:
            raise ValueError(
                "calibrate: the model used none of the parameters, whole, in a product or a lookup that torch shows: "
                "leave calibrate out, and convert by the weights alone"
            )
    for name in chosen:
        if name not in reports:
            convert(name, None)
    replace_parameters(model, replacements)
    return ConversionReport(tuple(reports[name] for name in chosen), tuple(left))


def _check_rules(
    rules: Mapping[str, Any], roundings: Mapping[str, Any], p_scale: Any, calibrate: Any, dampening: float, zeros: Zeros
) -> None:
    """Raise ValueError where a rule or a rounding is not known, or cannot be had with what else is given."""
    for what, given, choices in (("scale", rules, Scaling), ("rounding", roundings, WeightRounding)):
        for value in given.values():
            check_choice(what, value, choices)
            if value in ("output", "adaptive") and calibrate is None:
                raise ValueError(f"{what}={value!r} needs calibrate: some inputs of the model, in batches")
    # what no pattern matches has the rule "rms"
    if p_scale != 3.0 and "*" in rules and "rms" not in rules.values():
        raise ValueError(f"p_scale={p_scale!r} is the headroom of scale='rms': leave it out")
    if not 0.0 < dampening < math.inf:
        raise ValueError(f"dampening={dampening} is out of range: finite and greater than 0")
    if calibrate is not None and zeros == "redraw":
        raise ValueError("zeros='redraw' puts other numbers in the place of those that calibrate measures: keep them")


def _choose(
    model: nn.Module, fmt: Formats, filter_fn: Callable[[str, nn.Parameter], bool] | None
) -> tuple[dict[str, tuple[nn.Parameter, LNSFormat]], list[str]]:
    check_module(model)
    if filter_fn is not None and not callable(filter_fn):
        raise TypeError(
            "filter_fn is a function of name and parameter; to choose by names give fmt as a mapping of them"
        )
    spread = spread_over_processes(model)
    if spread is not None:
        raise TypeError(
            f"the model is a {spread}, which goes on with the float parameters that it was made with: convert first, "
            "then spread it over processes"
        )
    named = dict(model.named_parameters())
    if not named:
        raise ValueError(f"the model ({type(model).__name__}) has no parameters: there is nothing to convert")
    patterns = {p: LNSFormat.of(f) for p, f in fmt.items()} if isinstance(fmt, Mapping) else {"*": LNSFormat.of(fmt)}
    for wanted in patterns.values():
        check_format(wanted)
        check_width(wanted)
    names = _names_of(model)
    everything = [name for tied in names.values() for name in tied]
    for pattern in patterns:
        if not fnmatch.filter(everything, pattern):
            raise ValueError(f"no parameter's name matches {pattern!r}; the first name is {everything[0]!r}")
    chosen, left = {}, []
    for name, parameter in named.items():
        tied = names[id(parameter)]
        format_ = _first_match(tied, patterns, None)
        if format_ is not None and nn.parameter.is_lazy(parameter):  # filter_fn could not look at it
            raise ValueError(f"parameter {name!r} has no values yet: call its lazy module once, then convert the model")
        if format_ is None or not (filter_fn is None or filter_fn(name, parameter)):
            left.append(name)
        else:
            chosen[name] = parameter, format_
    if not chosen:
        why = "fmt is an empty mapping" if not patterns else "filter_fn chose no parameter"
        raise ValueError(f"{why}: there is nothing to convert")
    return chosen, left


def _names_of(model: nn.Module) -> dict[int, list[str]]:
    """All names of each parameter, by its id: a tied one has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def _first_match(names: list[str], patterns: Mapping[str, Any], default: Any) -> Any:
    """The value of the first pattern that one of a parameter's names matches."""
    return next((value for pattern, value in patterns.items() if fnmatch.filter(names, pattern)), default)


def _check_convertible(name: str, parameter: nn.Parameter) -> None:
    if isinstance(parameter, LNSWeight):
        raise ValueError(f"parameter {name!r} is an LNSWeight already: decode_model first to choose another format")
    if is_spread(parameter):
        raise TypeError(
            f"parameter {name!r} is a {type(parameter).__name__}, of which other processes hold parts: convert first, "
            "or leave it out with filter_fn"
        )
    if parameter.dtype not in FLOAT_NAMES:
        raise TypeError(
            f"parameter {name!r} is of {parameter.dtype}: LNS holds real floating-point numbers; "
            "leave it out with filter_fn"
        )
    if parameter.device.type == "meta":
        raise ValueError(f"parameter {name!r} is on the meta device: it has no values to convert")
    # in parts: torch makes three tensors on the way, one of them of floats
    bad = sum(int((~torch.isfinite(part)).sum()) for part in parameter.detach().reshape(-1).split(_PART))
    if bad:
        raise ValueError(f"parameter {name!r} has {bad} values that are NaN or infinite")


def _check_memory(model: nn.Module, chosen: Iterable[str]) -> None:
    """Refuse parameters that share memory with something else, which would not see their codes."""
    tenants: dict[int, dict[str, torch.Tensor]] = {}
    named = dict(model.named_parameters())
    for name, tensor in (*named.items(), *model.named_buffers()):
        if (
            tensor.numel()
            and tensor.layout == torch.strided
            and not tensor.is_meta
            and not isinstance(tensor, LNSWeight)
        ):
            tenants.setdefault(tensor.untyped_storage().data_ptr(), {})[name] = tensor
    for name in chosen:
        parameter = named[name]
        if not parameter.numel():
            continue
        others = {n: t for n, t in tenants[parameter.untyped_storage().data_ptr()].items() if n != name}
        storage = parameter.untyped_storage().nbytes()
        begin, end = _bytes_of(parameter)
        sharing = [n for n, t in others.items() if _bytes_of(t)[0] < end and begin < _bytes_of(t)[1]]
        if _overlaps_itself(parameter):
            what = f"{'is expanded' if 0 in parameter.stride() else 'overlaps itself'}, several elements in one place"
        elif sharing:
            what = f"shares memory with {sharing[0]!r}"
        elif not others and storage > parameter.nbytes:
            what = f"is a view: {parameter.nbytes} of the {storage} bytes of another tensor"
        else:
            continue
        raise ValueError(
            f"parameter {name!r} {what}; what else looks at that memory would not see its codes: "
            "give it memory of its own, nn.Parameter(p.detach().clone())"
        )


def _bytes_of(tensor: torch.Tensor) -> tuple[Any, Any]:
    """The first byte of the storage that a tensor looks at, and the one behind the last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    begin = tensor.storage_offset() * tensor.itemsize
    return begin, begin + (last + 1) * tensor.itemsize


def _overlaps_itself(tensor: torch.Tensor) -> bool:
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return True
        reach += (size - 1) * stride
    return False


def _padding_rows(model: nn.Module) -> dict[int, int]:
    """The padding row of each embedding's weight, by the id of the weight."""
    return {
        id(module.weight): module.padding_idx
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.padding_idx is not None
    }


def _greatest_norms(model: nn.Module) -> dict[int, tuple[float, float]]:
    """What no row of an embedding's weight may exceed, and in which norm, by the id of the weight."""
    return {
        id(module.weight): (module.max_norm, module.norm_type)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None
    }


def _within_norm(w: torch.Tensor, max_norm: float, norm_type: float) -> torch.Tensor:
    """The rows as a lookup would make them, so that the scale fits what is looked up."""
    norms = torch.linalg.vector_norm(w, norm_type, dim=1, keepdim=True, dtype=torch.float64)
    return (w * torch.where(norms > max_norm, max_norm / norms, 1.0)).to(w.dtype)


class _Layout(NamedTuple):
    """Which elements of a parameter share a scale: those of a row, once its dimensions are put in an order."""

    order: tuple[int, ...]
    rows: int
    own: tuple[int, ...] | None
    """The shape of the log_offsets; None of one for all."""
    group_size: int | None = None
    rest: int = 0
    """Elements of the last group of each line, where these are fewer than the others have."""

    def matrices(self, w: torch.Tensor) -> list[torch.Tensor]:
        """A row for each scale: in one matrix, or in those of the whole groups and of the rests."""
        if not self.rest:
            return [w.permute(self.order).reshape(self.rows, w.numel() // self.rows if w.numel() else 0)]
        whole = w.shape[-1] - self.rest
        return [w[..., :whole].reshape(-1, self.group_size or 1), w[..., whole:].reshape(-1, self.rest)]

    def put_back(self, matrices: list[torch.Tensor], shape: torch.Size) -> torch.Tensor:
        """The inverse of `matrices`."""
        if self.rest:
            return torch.cat([each.reshape(*shape[:-1], -1) for each in matrices], -1)
        ordered = matrices[0].reshape([shape[d] for d in self.order])
        return ordered.permute([self.order.index(d) for d in range(len(shape))])

    def in_order(self, of_rows: list[int]) -> LogOffset:
        """The log_offsets of the rows of all matrices, as a weight has them."""
        if self.own is None:
            return of_rows[0]
        offsets = torch.tensor(of_rows, dtype=torch.int32)
        lines = math.prod(self.own[:-1])
        if self.rest:
            offsets = torch.cat([offsets[:-lines].reshape(lines, -1), offsets[-lines:, None]], 1)
        return offsets.reshape(self.own)

    def of_rows(self, offsets: torch.Tensor) -> list[int]:
        """The inverse of `in_order`."""
        if self.rest:
            offsets = torch.cat([offsets[..., :-1].reshape(-1), offsets[..., -1].reshape(-1)])
        return offsets.reshape(-1).tolist()


def _layout(
    name: str, shape: torch.Size, per_channel: bool, channels: int | tuple[int, ...] | None, group_size: int | None
) -> _Layout:
    """What the options of conversion ask of a parameter; ValueError where it has not the dimensions asked for."""
    order = tuple(range(len(shape)))
    whole = _Layout(order, 1, None)
    if len(shape) < 2 or 0 in shape:
        return whole
    if group_size is not None and shape[-1] > group_size:
        own = (*shape[:-1], -(-shape[-1] // group_size))
        return _Layout(order, math.prod(own), own, group_size, shape[-1] % group_size)
    if channels is None:
        channels = 0 if per_channel else None
    try:
        each = each_of(channels, None, shape)
    except (TypeError, ValueError) as error:
        raise type(error)(f"parameter {name!r}: {error}") from None
    if each is None or each.offsets is None:
        return whole
    if 1 < each.offsets.numel() == shape.numel():
        raise ValueError(
            f"parameter {name!r}: channels={channels!r} would give each element of shape {tuple(shape)} a scale: name "
            "the parameters that have more dimensions in a mapping, as {'*.experts.*': (0, 1)}"
        )
    kept = [d for d in order if each.offsets.shape[d] > 1 or shape[d] == 1]
    rest = [d for d in order if d not in kept]
    return _Layout((*kept, *rest), each.offsets.numel(), tuple(each.offsets.shape))


class _Way(NamedTuple):
    """How the numbers of one parameter become codes."""

    rule: Scaling
    p_scale: float
    rounding: WeightRounding
    moments: SecondMoments | None
    """Of its inputs; None where nothing is known of them."""
    dampening: float

    @property
    def axis(self) -> Axis:
        return "log" if self.rounding == "nearest" else "value"

    @property
    def fit(self) -> Fit:
        """The rule, as far as it goes by the numbers alone."""
        return Fit("mse" if self.rule == "output" else self.rule, self.p_scale)


def _convert(
    name: str,
    parameter: torch.Tensor,
    fmt: LNSFormat,
    layout: _Layout,
    way: _Way,
    zeros: Zeros,
    zero_std: float,
    padding_row: int | None,
    generator: torch.Generator,
) -> tuple[LNSWeight, ParameterReport]:
    """One parameter, block by block: beside the codes it takes memory for some float64 numbers, not for all."""
    each = layout.own is not None
    w = _Redrawn(parameter, layout, zeros, zero_std, padding_row, generator)
    each_windows = [exact_windows(matrix, fmt) for matrix in layout.matrices(parameter.detach())]
    windows = Windows(*(torch.cat(of_all) for of_all in zip(*each_windows, strict=True)))
    fitting = torch.tensor(_fitting(name, w, fmt, layout, way), device=parameter.device)
    offsets = windows.nearest(fitting, fmt).tolist()
    log_offset = layout.in_order(offsets)
    codes = [torch.empty(rows.shape, dtype=bridge.code_dtype(fmt), device=parameter.device) for rows in w.matrices]
    adaptive = None
    if way.rounding == "adaptive" and way.moments is not None:
        scale = check_offset(log_offset, parameter.shape, layout.group_size or 0).on(parameter.device)
        adaptive = adapted(_wide(parameter), fmt, scale, way.moments, way.dampening)
    if adaptive is not None:
        codes = [rows.contiguous() for rows in _in_rows(adaptive, layout)]
    error_squares, done = 0.0, 0
    for matrix, begin, block in w.blocks():
        own_offsets = offsets[done : done + len(block)]
        scale = check_offset(torch.tensor(own_offsets)[:, None] if each else offsets[0], block.shape)
        scale, part = scale.on(block.device), codes[matrix][begin : begin + len(block)]
        done += len(block)
        if way.rounding == "nearest":
            part.copy_(bridge.encode(block, fmt, scale, underflow="saturate"))
        elif adaptive is None:
            own = torch.tensor(scale.low) if scale.offsets is None else scale.offsets
            part.copy_(nearest_codes(block, fmt, own))
        decoded = bridge.decode(part, fmt, scale, torch.float64)
        error_squares += float(((decoded - block) / w.unit).square().sum())
    whole = bridge.with_strides_of(parameter, layout.put_back(codes, parameter.shape))
    weight = LNSWeight(whole, fmt, log_offset, parameter.dtype, group_size=layout.group_size)
    weight.fit = way.fit
    sqnr = None
    if way.moments is not None:
        sqnr = output_sqnr(_wide(parameter), weight.to_float(torch.float64), way.moments)
    telemetry = weight.telemetry()
    report = ParameterReport(
        name=name,
        format=fmt,
        shape=tuple(parameter.shape),
        log_offset=log_offset,
        group_size=layout.group_size,
        relative_error=math.sqrt(error_squares / w.squares) if w.squares else 0.0,
        at_ceiling=telemetry.at_ceiling,
        at_floor=telemetry.at_floor,
        zeros_redrawn=w.count,
        zeros_kept=int(telemetry.histogram[0]),
        output_sqnr=sqnr,
    )
    return weight, report


def _fitting(name: str, w: _Redrawn, fmt: LNSFormat, layout: _Layout, way: _Way) -> list[int]:
    """The log_offset of each scale by its rule."""
    rms = w.rms() or w.std_of_zeros
    try:
        if way.rule == "output" and way.moments is not None:
            own = (1,) * w.given.ndim if layout.own is None else layout.own
            each = check_offset(torch.zeros(own, dtype=torch.int32), w.given.shape, layout.group_size or 0)
            numbers = _wide(w.given)
            fed_back = way.dampening if way.rounding == "adaptive" else None
            found = offsets_for_outputs(numbers, fmt, each, way.moments, rms, axis=way.axis, dampening=fed_back)
            return layout.of_rows(found)
        if way.rule == "rms":
            return [fit_to_rms(r, fmt, way.p_scale) for r in (w.row_rms() if layout.own is not None else [rms])]
        blocks = [block for *_, block in w.blocks()]
        if layout.own is None:
            # of no elements there is no block
            none = torch.empty(0, dtype=torch.float64, device=w.given.device)
            blocks = [torch.cat([none, *(block.reshape(-1) for block in blocks)])[None]]
        return [offset for block in blocks for offset in fit_rows(block, fmt, way.fit, rms, axis=way.axis)]
    except (ValueError, OverflowError) as error:
        what = f"{way.p_scale} times its RMS of {rms}" if way.rule == "rms" else f"its numbers, of an RMS of {rms}"
        raise ValueError(f"parameter {name!r}: no scale fits {what}: {error}") from error


def _wide(w: torch.Tensor) -> torch.Tensor:
    return w.detach().to(torch.float64).contiguous()


_BLOCK = 1 << 16
_PART = 1 << 20


def _in_rows(w: torch.Tensor, layout: _Layout) -> list[torch.Tensor]:
    """Matrices whose rows are read some at a time: of one scale each, or of none."""
    if layout.own is not None:
        return layout.matrices(w)
    return [w.reshape(w.shape[0], -1) if w.ndim > 1 and w.numel() else w.reshape(-1, 1)]


class _Redrawn:
    """The numbers of a parameter as float64, in blocks of rows, its zeros re-drawn where that is wanted."""

    def __init__(
        self,
        w: torch.Tensor,
        layout: _Layout,
        zeros: Zeros,
        zero_std: float,
        padding_row: int | None,
        generator: torch.Generator,
    ) -> None:
        self.given = w
        self.matrices = _in_rows(w, layout)
        asked = zeros == "redraw"
        self.redraw = [rows == 0 if asked else torch.zeros_like(rows, dtype=torch.bool) for rows in self.matrices]
        if padding_row is not None:
            padding = torch.zeros(w.shape, dtype=torch.bool, device=w.device)
            padding[padding_row] = True
            for redraw, padded in zip(self.redraw, _in_rows(padding, layout), strict=True):
                redraw &= ~padded
        self.drawn = torch.empty(0, dtype=torch.float64)
        self.count = 0
        self.std_of_zeros = std_of_zeros(w.shape, zero_std) if w.numel() else 0.0
        self._measure()
        count = sum(int(redraw.sum()) for redraw in self.redraw)
        if count:
            rms = self.rms()
            std = min(zero_std, rms) if rms > 0 else self.std_of_zeros
            drawn = torch.randn(count, dtype=torch.float64, generator=generator, device="cpu") * std
            self.drawn, self.count = drawn.to(w.device), count
            if rms == 0:
                self._measure()
            self.squares = sum(float((block / self.unit).square().sum()) for *_, block in self.blocks())

    def _measure(self) -> None:
        """The greatest magnitude, and the sum of squares in units of it, which leaves no range."""
        greatest = max((float(block.abs().max()) for *_, block in self.blocks()), default=0.0)
        self.unit = greatest or 1.0
        self.squares = sum(float((block / self.unit).square().sum()) for *_, block in self.blocks())
        self.mean_square = self.squares / max(self.given.numel(), 1)

    def rms(self) -> float:
        """The root mean square; that of the numbers before zeros were re-drawn, if it was not 0."""
        return self.unit * math.sqrt(self.mean_square)

    def row_rms(self) -> list[float]:
        """The root mean square of each row; of a row of zeros that of all, or of what could stand there."""
        each: list[float] = []
        for *_, block in self.blocks():
            unit = block.abs().amax(1, keepdim=True)
            unit = torch.where(unit > 0, unit, 1.0)
            each += ((block / unit).square().mean(1).sqrt() * unit[:, 0]).tolist()
        return [rms or self.rms() or self.std_of_zeros for rms in each]

    def blocks(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Some rows, and before them which matrix they are of, and the index of the first."""
        used = 0
        for matrix, (rows, redraws) in enumerate(zip(self.matrices, self.redraw, strict=True)):
            length = max(_BLOCK // max(rows.shape[1], 1), 1)
            for begin in range(0, len(rows), length):
                part = slice(begin, begin + length)
                block = rows[part].to(torch.float64, copy=True)
                if self.count:
                    redraw = redraws[part]
                    count = int(redraw.sum())
                    block[redraw] = self.drawn[used : used + count]
                    used += count
                yield matrix, begin, block


def decode_model(model: nn.Module) -> nn.Module:
    """Replace every `LNSWeight` parameter by a plain float parameter of the same values, in place; returns the model.

    Raises:
        TypeError: where model is no module, or sharded.
    """
    check_module(model)
    for name, p in model.named_parameters():
        if not isinstance(p, LNSWeight) and weight_of(p) is not None:
            raise TypeError(
                f"parameter {name!r} is a shard, of which other processes hold the rest: decode before fully_shard"
            )
    replacements = {}
    for p in model.parameters():
        if isinstance(p, LNSWeight):
            replacements[id(p)] = nn.Parameter(p.to_float(), requires_grad=p.requires_grad)
            succeed(p, replacements[id(p)])
    replace_parameters(model, replacements)
    return model
