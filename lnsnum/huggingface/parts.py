"""What a checkpoint holds of an LNS weight: plain tensors, which any container can store.

    fc.weight   ->   fc.weight.lnsnum_codes      uint8 or uint16, of the weight's shape
                     fc.weight.lnsnum_offsets    int32: the log_offset, or those of its channels or groups
                     fc.weight.lnsnum_format     uint8: the name of the format, in ASCII; behind it "/32" where
                                                 the last of groups of 32 has a rest, which shapes do not tell; behind
                                                 that " mse 3.0", the rule of the scale where it is not the default

A loader that knows nothing of LNS misses `fc.weight` and meets three tensors that it did not expect: it cannot take
codes for numbers. The format is with every weight, because what resumes a training sees tensors alone, and codes of one
format would be other numbers in another.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lnsnum.files.layout import CODES, OFFSETS
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import check_format
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.codes_twin import check_width
from lnsnum.torch_bridge.kernels.scale import RMS, Fit
from lnsnum.torch_bridge.surroundings import is_spread
from lnsnum.torch_bridge.weight import LNSWeight

FORMAT = ".lnsnum_format"

PARTS = (CODES, OFFSETS, FORMAT)
"""What is added to the name of a weight, for each of its parts; the first two as in weight files of layout 3."""


def take_apart(name: str, weight: LNSWeight) -> dict[str, torch.Tensor]:
    """The tensors that are stored of a weight, the codes where they lie.

    Raises:
        ValueError: of groups that do not lie along the last dimension, and where there are no values.
    """
    if weight.is_meta:
        raise ValueError(f"{name!r} is on the meta device: it has no codes to save")
    groups = weight.scale.groups
    if groups[0] and groups[1] != -1:
        raise ValueError(f"{name!r} has groups along dimension {groups[1]}, and the last is the one that is stored")
    codes = weight.codes.detach()
    offset = weight.log_offset
    text = weight.fmt.name + (f"/{groups[0]}" if weight.scale.rest else "")
    text += "" if weight.fit == RMS else f" {weight.fit.rule} {weight.fit.p_scale}"
    return {
        name + CODES: codes if codes.dtype == torch.uint8 else codes.view(torch.uint16),
        name + OFFSETS: offset if isinstance(offset, torch.Tensor) else torch.tensor(offset, dtype=torch.int32),
        name + FORMAT: torch.tensor(list(text.encode("ascii")), dtype=torch.uint8),
    }


def put_together(name: str, parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> LNSWeight:
    """The weight of its three tensors, given by the ends of their names.

    Raises:
        ValueError: where a part is missing, or they are not those of one weight; the message names it.
    """
    lacking = [part for part in PARTS if part not in parts]
    if lacking:
        raise ValueError(
            f"the checkpoint lacks {', '.join(name + part for part in lacking)}: it is damaged, or a shard"
        )
    try:
        text, *rule = bytes(parts[FORMAT].tolist()).decode("ascii").split(" ")
        name_of_format, _, size = text.partition("/")
        fmt, fit = LNSFormat.parse(name_of_format), _rule(rule)
        check_format(fmt)
        check_width(fmt)
        codes, offsets = parts[CODES], parts[OFFSETS]
        if str(codes.dtype) != f"torch.{fmt.dtype}":
            raise ValueError(f"codes of {fmt.name} are of {fmt.dtype}, not {codes.dtype}")
        if offsets.dtype != torch.int32:
            raise ValueError(f"log_offsets are of int32, not {offsets.dtype}")
        codes = codes.view(bridge.code_dtype(fmt))
        weight = LNSWeight(codes, fmt, _offset(offsets), dtype, group_size=_group_size(codes, offsets, size))
        weight.fit = fit
        return weight
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{name!r} of the checkpoint: {error}") from None


def flat_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A model's state as plain tensors; those of tied weights are the same ones under several names.

    Raises:
        TypeError: where other processes hold parts of a weight.
    """
    flat: dict[str, torch.Tensor] = {}
    apart: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if is_spread(tensor):
            raise TypeError(f"{name!r} is a {type(tensor).__name__}, of which other processes hold parts")
        if isinstance(tensor, LNSWeight):
            parts = apart.setdefault(id(tensor), take_apart("", tensor))
            flat |= {name + part: stored for part, stored in parts.items()}
        else:
            flat[name] = tensor.detach() if isinstance(tensor, torch.Tensor) else tensor
    return flat


def _offset(offsets: torch.Tensor) -> int | torch.Tensor:
    return offsets if offsets.ndim else int(offsets)


def _rule(words: list[str]) -> Fit:
    """The rule of a scale: as told, or the default."""
    if not words:
        return RMS
    rule, *p_scale = words
    try:
        return Fit.checked((rule, *map(float, p_scale)))
    except ValueError:
        raise ValueError(f"{' '.join(words)!r:.60} is no rule of a scale: rms, max or mse, and a headroom") from None


def _group_size(codes: torch.Tensor, offsets: torch.Tensor, told: str) -> int | None:
    """Elements of a group: as told, or of as many dimensions as the codes, offsets of channels have all of a dimension,
    or 1."""
    if told:
        if not told.isdecimal():
            raise ValueError(f"{told!r:.20} is no size of groups")
        return int(told)
    if offsets.ndim != codes.ndim or not codes.ndim or offsets.shape[-1] in (0, 1, codes.shape[-1]):
        return None
    return codes.shape[-1] // offsets.shape[-1]
