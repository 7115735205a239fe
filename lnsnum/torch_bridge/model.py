"""Models: float parameters become LNS weights, and back.

The scale of each parameter is chosen once, from its values w0: log_offset is the least at which the greatest magnitude
is at or above p_scale * RMS(w0). What is the clip |w| <= p_scale * RMS(w0) in the Madam paper is then the saturation of
the format itself.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from lnsnum import exact
from lnsnum.codes import check_format
from lnsnum.format import LNSFormat, check_choice, check_log_offset
from lnsnum.torch_bridge import codes as bridge
from lnsnum.torch_bridge.weight import LNSWeight

Zeros = Literal["redraw", "keep"]
Formats = LNSFormat | str | Mapping[str, LNSFormat | str]


@dataclass(frozen=True)
class ParameterReport:
    """What conversion did to one parameter."""

    name: str
    format: LNSFormat
    shape: tuple[int, ...]
    log_offset: int
    relative_error: float
    """||decoded - w|| / ||w||, w after zeros were re-drawn."""
    at_ceiling: float
    """Share of elements at the greatest magnitude."""
    at_floor: float
    """Share of elements at the smallest nonzero magnitude."""
    zeros_redrawn: int
    zeros_kept: int


@dataclass(frozen=True)
class ConversionReport:
    """What `convert_model` did: one entry for each parameter converted, and the names of those left as they were."""

    parameters: tuple[ParameterReport, ...]
    left_float: tuple[str, ...]

    def __getitem__(self, name: str) -> ParameterReport:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)

    def __iter__(self) -> Iterator[ParameterReport]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __str__(self) -> str:
        width = max((len(p.name) for p in self.parameters), default=4)
        lines = [f"{'name':{width}}  format   log_offset  rel. error  ceiling   floor   zeros re-drawn"]
        lines += [
            f"{p.name:{width}}  {p.format.name:7}  {p.log_offset:10}  {p.relative_error:10.4f}  {p.at_ceiling:6.2%}"
            f"  {p.at_floor:6.2%}  {p.zeros_redrawn:15}"
            for p in self.parameters
        ]
        lines += [f"{name:{width}}  float" for name in self.left_float]
        return "\n".join(lines)


def convert_model(
    model: nn.Module,
    fmt: Formats,
    *,
    filter_fn: Callable[[str, nn.Parameter], bool] | None = None,
    p_scale: float = 3.0,
    zeros: Zeros = "redraw",
    zero_std: float = 0.1,
    seed: int = 0,
) -> ConversionReport:
    """Replace float parameters by `LNSWeight` parameters, in place.

    Rounding is to nearest, and nonzero values below the range become the smallest magnitude, not zero. Make the
    optimizer after the conversion. Tied parameters stay tied. Nothing is replaced unless everything can be.

    Args:
        model: any module; its parameters on any device but "meta".
        fmt: the format of every parameter, or a mapping from name patterns (`fnmatch`: "*.weight") to formats, where
            the first pattern that matches decides and parameters that none matches stay float.
        filter_fn: given name and parameter, says whether to convert it. All of them where not given.
        p_scale: headroom: the greatest magnitude is at or just above p_scale times the root mean square.
        zeros: Madam cannot move zeros: "redraw" takes normally distributed numbers of standard deviation `zero_std`
            instead (or the parameter's own RMS, if that is less and not 0), "keep" keeps them, for pruned networks. The
            padding row of an embedding is always kept.
        zero_std: see `zeros`.
        seed: of the numbers re-drawn.

    Returns:
        A report; print it.

    Raises:
        TypeError: where a parameter chosen is no real floating-point tensor, or model is no module.
        ValueError: where there is nothing to convert, a pattern matches nothing, a value is NaN or infinite, or a
            parameter is an LNSWeight already; the message names the parameter.
    """
    check_choice("zeros", zeros, Zeros)
    for what, given in (("p_scale", p_scale), ("zero_std", zero_std)):
        if not 0.0 < given < math.inf:
            raise ValueError(f"{what}={given} is out of range: finite and greater than 0")
    chosen, left = _choose(model, fmt, filter_fn)
    for name, (parameter, _) in chosen.items():
        _check_convertible(name, parameter)
    padding = _padding_rows(model)
    generator = torch.Generator().manual_seed(seed)
    reports = []
    replacements: dict[int, nn.Parameter] = {}
    for name, (parameter, format_) in chosen.items():
        weight, report = _convert(
            name, parameter, format_, p_scale, zeros, zero_std, padding.get(id(parameter)), generator
        )
        reports.append(report)
        replacements[id(parameter)] = nn.Parameter(weight, requires_grad=parameter.requires_grad)
    replace_parameters(model, replacements)
    return ConversionReport(tuple(reports), tuple(left))


def _choose(
    model: nn.Module, fmt: Formats, filter_fn: Callable[[str, nn.Parameter], bool] | None
) -> tuple[dict[str, tuple[nn.Parameter, LNSFormat]], list[str]]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, not a torch.nn.Module")
    if filter_fn is not None and not callable(filter_fn):
        raise TypeError(
            "filter_fn is a function of name and parameter; to choose by names give fmt as a mapping of them"
        )
    named = dict(model.named_parameters())
    if not named:
        raise ValueError(f"the model ({type(model).__name__}) has no parameters: there is nothing to convert")
    patterns = {p: LNSFormat.of(f) for p, f in fmt.items()} if isinstance(fmt, Mapping) else {"*": LNSFormat.of(fmt)}
    for chosen_format in patterns.values():
        bridge.check_width(chosen_format)
    for wanted in patterns.values():
        check_format(wanted)
    names: dict[int, list[str]] = {}  # a tied parameter has several
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    everything = [name for tied in names.values() for name in tied]
    for pattern in patterns:
        if not fnmatch.filter(everything, pattern):
            raise ValueError(f"no parameter's name matches {pattern!r}; the first name is {everything[0]!r}")
    chosen, left = {}, []
    for name, parameter in named.items():
        tied = names[id(parameter)]
        format_ = next((f for p, f in patterns.items() if fnmatch.filter(tied, p)), None)
        if format_ is None or not (filter_fn is None or filter_fn(name, parameter)):
            left.append(name)
        else:
            chosen[name] = parameter, format_
    if not chosen:
        why = "fmt is an empty mapping" if not patterns else "filter_fn chose no parameter"
        raise ValueError(f"{why}: there is nothing to convert")
    return chosen, left


def _check_convertible(name: str, parameter: nn.Parameter) -> None:
    if isinstance(parameter, LNSWeight):
        raise ValueError(f"parameter {name!r} is an LNSWeight already: decode_model first to choose another format")
    if parameter.dtype not in bridge.FLOAT_NAMES:
        raise TypeError(
            f"parameter {name!r} is of {parameter.dtype}: LNS holds real floating-point numbers; "
            "leave it out with filter_fn"
        )
    if parameter.device.type == "meta":
        raise ValueError(f"parameter {name!r} is on the meta device: it has no values to convert")
    if not bool(torch.isfinite(parameter).all()):
        bad = int((~torch.isfinite(parameter)).sum())
        raise ValueError(f"parameter {name!r} has {bad} values that are NaN or infinite")


def _padding_rows(model: nn.Module) -> dict[int, int]:
    """The padding row of each embedding's weight, by the id of the weight."""
    return {
        id(module.weight): module.padding_idx
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.padding_idx is not None
    }


def _convert(
    name: str,
    parameter: nn.Parameter,
    fmt: LNSFormat,
    p_scale: float,
    zeros: Zeros,
    zero_std: float,
    padding_row: int | None,
    generator: torch.Generator,
) -> tuple[LNSWeight, ParameterReport]:
    w = parameter.detach().to(torch.float64).clone()
    rms = root_mean_square(w)
    redraw = w == 0 if zeros == "redraw" else torch.zeros_like(w, dtype=torch.bool)
    if padding_row is not None:
        redraw[padding_row] = False
    count = int(redraw.sum())
    if count:
        std = min(zero_std, rms) if rms > 0 else zero_std
        drawn = torch.randn(count, dtype=torch.float64, generator=generator, device="cpu") * std
        w[redraw] = drawn.to(w.device)
        if rms == 0:
            rms = root_mean_square(w)
    try:
        log_offset = fit_to_rms(rms, fmt, p_scale)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"parameter {name!r}: no scale fits {p_scale} times its RMS of {rms}: {error}") from error
    weight = LNSWeight.from_float(w, fmt, log_offset=log_offset, underflow="saturate").with_dtype(parameter.dtype)
    m = weight.codes.to(torch.int64) & fmt.max_magnitude
    relative_error = root_mean_square(weight.to_float(torch.float64) - w) / (root_mean_square(w) or 1.0)
    size = max(w.numel(), 1)
    report = ParameterReport(
        name=name,
        format=fmt,
        shape=tuple(w.shape),
        log_offset=log_offset,
        relative_error=relative_error,
        at_ceiling=int((m == fmt.max_magnitude).sum()) / size,
        at_floor=int((m == 1).sum()) / size,
        zeros_redrawn=count,
        zeros_kept=int((m == 0).sum()),
    )
    return weight, report


def root_mean_square(x: torch.Tensor) -> float:
    """sqrt(mean(x^2)) of a float64 tensor, scaled so that no square leaves the range; 0 of an empty one."""
    scale = float(x.abs().max()) if x.numel() else 0.0
    return scale * float((x / scale).square().mean().sqrt()) if scale else 0.0


def fit_to_rms(rms: float, fmt: LNSFormat, p_scale: float = 3.0) -> int:
    """The least log_offset at which the greatest magnitude is at or above p_scale * rms; 0 where that is 0.

    >>> from lnsnum import lns8f5
    >>> fit_to_rms(1.0, lns8f5)
    -12
    """
    top = p_scale * rms
    if top == 0.0:
        return 0
    return check_log_offset(exact.ceil_log(*exact.split_float(top), fmt.base, fmt.fraction_bits) - fmt.max_log)


def decode_model(model: nn.Module) -> nn.Module:
    """Replace every `LNSWeight` parameter by a plain float parameter of the same values, in place; returns the model.

    Raises:
        TypeError: where model is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, not a torch.nn.Module")
    replacements = {
        id(p): nn.Parameter(p.to_float(), requires_grad=p.requires_grad)
        for p in model.parameters()
        if isinstance(p, LNSWeight)
    }
    replace_parameters(model, replacements)
    return model


def replace_parameters(model: nn.Module, replacements: Mapping[int, nn.Parameter]) -> None:
    """Put a new parameter wherever one with the given id() stands; tied parameters stay tied.

    By `setattr`, not into `_parameters`: recurrent modules keep a list of their weights, which only that updates.
    """
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and id(parameter) in replacements:
                setattr(module, name, replacements[id(parameter)])
