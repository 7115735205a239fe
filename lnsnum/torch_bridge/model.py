"""Models: float parameters become LNS weights, and back.

    convert_model     which parameters, of which format, by which rule      `convertible`, `layouts`
                      each of them: its scales, its codes                   `coding`
    decode_model      the floats that the codes stand for

A state of codes that was loaded into a model of floats becomes the codes that it was.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lnsnum.format import LNSFormat, check_choice
from lnsnum.kernels.codes import check_format
from lnsnum.kernels.groups import check_group_size
from lnsnum.torch_bridge.carrying import succeed
from lnsnum.torch_bridge.coding import Scaling, Way, WeightRounding, Zeros, converted
from lnsnum.torch_bridge.convertible import check_convertible, check_memory
from lnsnum.torch_bridge.distributed.dtensors import weight_of
from lnsnum.torch_bridge.distributed.exchange import announce
from lnsnum.torch_bridge.kernels.codes_twin import check_width
from lnsnum.torch_bridge.kernels.scale import (
    ZERO_STD,
)
from lnsnum.torch_bridge.layouts import layout_of
from lnsnum.torch_bridge.placing import replace_parameters
from lnsnum.torch_bridge.reports import ConversionReport, ParameterReport
from lnsnum.torch_bridge.second_moments import SecondMoments, collect
from lnsnum.torch_bridge.surroundings import check_module, spread_over_processes
from lnsnum.torch_bridge.weight import LNSWeight

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
    layouts = {name: layout_of(name, p.shape, per_channel, *asked[name]) for name, (p, _) in chosen.items()}
    for name, (parameter, _) in chosen.items():
        check_convertible(name, parameter)
    check_memory(model, chosen.keys())
    announce()  # before what takes long: others may come to their first forward meanwhile
    padding, norms = _padding_rows(model), _greatest_norms(model)
    generator = torch.Generator().manual_seed(seed)
    reports: dict[str, ParameterReport] = {}
    replacements: dict[int, nn.Parameter] = {}

    def convert(name: str, moments: SecondMoments | None) -> None:
        parameter, format_ = chosen[name]
        way = Way(
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
            weight, report = converted(name, w, format_, layouts[name], way, *rest)
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
