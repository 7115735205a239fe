"""Codes as torch tensors: decode, encode, and the memory that torch and the kernels share.

A tensor of codes is uint8 or int16, because torch has few operations on uint16; the bits are those of the format's
unsigned codes. On the CPU the kernels of the core work on the tensor's own memory, on as many threads as
torch has; on a graphics card those of `codes_triton` do the same, and elsewhere, and for torch.compile, `codes_twin` in
torch's operations. They agree to the bit: `backends` has the table of which runs when.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum import decoding, encoding
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow
from lnsnum.kernels.addresses import array_at
from lnsnum.kernels.byte_decoding import FEW, Window, decode_by_way, decode_in_registers, way_of, window_of
from lnsnum.kernels.byte_scales import decode_run
from lnsnum.kernels.codes import FLOAT_TYPES, check_modes
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.kernels.look_ups import PARALLEL, look_up
from lnsnum.kernels.scales import Scales, Walk, in_order
from lnsnum.kernels.threads import in_chunks
from lnsnum.torch_bridge.kernels import backends, codes_twin
from lnsnum.torch_bridge.kernels.codes_twin import CODE_DTYPES, FLOAT_NAMES, PATTERN_DTYPES
from lnsnum.torch_bridge.kernels.scale import Scale
from lnsnum.torch_bridge.kernels.threads import torch_team

# Elements that are worth a thread of their own; of plain look-ups, which are quick, `PARALLEL`.
_PARALLEL = 1 << 18


def code_dtype(fmt: LNSFormat) -> torch.dtype:
    """What a tensor of this format's codes is of: uint8 or int16."""
    return CODE_DTYPES[fmt.dtype.itemsize]


def as_numpy(tensor: torch.Tensor, dtype: Any = None) -> NDArray[Any]:
    """The memory of a CPU tensor as an array, viewed as `dtype` of the same size.

    By DLPack: `Tensor.numpy()` would mark the storage as not resizable. What torch reads with its sign changed, such as
    the imaginary part of a conjugate, is copied, read-only: its memory has other numbers, and DLPack does not say so.
    """
    if tensor.is_neg():
        array = np.from_dlpack(tensor.resolve_neg())
        array.flags.writeable = False
        return array if dtype is None else array.view(dtype)
    array = np.from_dlpack(tensor)
    if not array.flags.writeable:  # torch 2.6 cannot tell NumPy that it may be written to
        array = np.asarray(_Memory(tensor, array))
    return array if dtype is None else array.view(dtype)


class _Memory:
    """A tensor's memory, for NumPy; an array on it keeps this, and so the tensor."""

    def __init__(self, tensor: torch.Tensor, array: NDArray[Any]) -> None:
        self.tensor = tensor
        self.__array_interface__ = {**array.__array_interface__, "data": (tensor.data_ptr(), False)}


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous one-dimensional view."""
    return tensor.view(-1)


def is_on_cpu(tensor: torch.Tensor) -> bool:
    """Whether the kernels of the core can work on a tensor's memory: it has some, here, and nothing is being traced."""
    return (
        type(tensor) is torch.Tensor
        and tensor.is_cpu
        and not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0  # a mode that traces or counts sees torch's operations alone
    )


def memory_order(tensor: torch.Tensor) -> list[int]:
    """The dimensions, those first whose elements are farthest apart in memory."""
    return sorted(range(tensor.ndim), key=tensor.stride, reverse=True)


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements lie side by side, in whatever order of dimensions: channels_last too."""
    # a matrix and its transpose are told by a look at each use of a weight, the rest by sorting
    if tensor.is_contiguous() or (tensor.ndim == 2 and tensor.stride() == (1, tensor.shape[0])):
        return True
    return tensor.permute(memory_order(tensor)).is_contiguous()


def with_strides_of(x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The same codes in the order of another tensor's memory, such as channels_last, where that is dense."""
    if codes.stride() == x.stride():
        return codes
    return torch.empty_like(x.detach(), dtype=codes.dtype, device=codes.device).copy_(codes)


def decode(codes: torch.Tensor, fmt: LNSFormat, scale: Scale, dtype: torch.dtype) -> torch.Tensor:
    """The floats that codes stand for, each rounded once to `dtype`, with the strides of the codes where they are
    dense.
    """
    scale, here = scale.on(codes.device), is_on_cpu(codes)
    if (
        here
        and scale.offsets is not None
        and codes.ndim == 2
        and not codes.is_contiguous()
        and codes.mT.is_contiguous()
    ):
        return decode(codes.mT, fmt, scale.mT, dtype).mT
    if scale.group_size and not (scale.rest and here):
        return scale.together(decode(scale.apart(codes), fmt, scale.of_channels, dtype))
    if not here:
        floats = None
        if backends.is_on_card(codes):
            from lnsnum.torch_bridge.kernels import codes_triton  # here, as triton is there for cards alone

            floats = codes_triton.decode(codes if is_dense(codes) else codes.contiguous(), fmt, scale, dtype)
        return codes_twin.decode(codes, fmt, scale, dtype) if floats is None else floats
    # one channel is one scale: a table of all codes serves it
    if scale.offsets is not None and scale.offsets.numel() == 1:
        scale = Scale(int(scale.offsets), int(scale.offsets))
    # in the order of memory, whatever the order of dimensions: channels_last is dense too, and needs no copy
    if not is_dense(codes):
        return decode(codes.contiguous(), fmt, scale, dtype)
    if scale.offsets is None:
        return decode_by(table_of(fmt, scale.low, dtype), codes)
    if dtype == torch.float32 and FEW <= codes.numel() < 2 * PARALLEL and not scale.rest and codes.is_contiguous():
        decoded = _decode_few(codes, fmt, scale, scale.offsets)
        if decoded is not None:
            return decoded
    floats = torch.empty_like(codes, dtype=dtype)  # which has the strides of what is dense
    # bit patterns are gathered, not floats: NumPy has no bfloat16, and a NaN keeps its bits
    name = FLOAT_NAMES[dtype]
    order = memory_order(codes)
    bits = floats.permute(order).view(PATTERN_DTYPES[dtype.itemsize])
    patterns = as_numpy(_flat(bits), FLOAT_TYPES[name].pattern)
    words = as_numpy(_flat(codes.permute(order)), fmt.dtype)
    if scale.rest:
        # of groups that leave a rest no channels can be made: the core walks from one to the next
        ordered = Scales.of(in_order(offsets_of(scale), codes.ndim, tuple(order)), tuple(codes.permute(order).shape))
        decoding.decode_flat(words, fmt, ordered, name, patterns, threads=torch_team())
        return floats
    _decode_channels(words, fmt, scale, scale.offsets.expand(codes.shape).permute(order), name, patterns)
    return floats


class Table(NamedTuple):
    """What decoding at one scale takes: of 8-bit formats found once for all uses of a weight, and kept with it."""

    log_offset: int
    dtype: torch.dtype
    patterns: NDArray[Any]
    look_up: Callable[..., None]
    window: Window | None
    """What `decode_run` takes beside codes and floats; None where registers cannot be used, or a number would be -0."""


def table_of(fmt: LNSFormat, log_offset: int, dtype: torch.dtype) -> Table:
    """That of the floats of a format's codes."""
    patterns = decoding.decode_table(fmt, log_offset, FLOAT_NAMES[dtype])
    window = window_of(fmt, log_offset) if dtype == torch.float32 else None
    return Table(log_offset, dtype, patterns, _look_up_bytes if fmt.dtype.itemsize == 1 else _look_up_words, window)


def decode_by(table: Table, codes: torch.Tensor) -> torch.Tensor:
    """The floats of codes that are dense, on the CPU, with their strides."""
    floats = torch.empty_like(codes, dtype=table.dtype)
    # kernels take addresses: arrays there take longer to make than a small weight to decode
    size, look_up = codes.numel(), table.look_up
    memory: tuple[Any, ...] = codes.data_ptr(), table.patterns, floats.data_ptr()
    if table.window is not None and size >= FEW:
        look_up, memory = _decode_run, (memory[0], table.window, memory[2])
    if size < 2 * PARALLEL:
        look_up(*memory, 0, size)
    else:
        in_chunks(lambda begin, end: look_up(*memory, begin, end), size, PARALLEL, threads=torch_team())
    return floats


@kernel
def _decode_run(codes, window, out, begin, end):  # type: ignore[no-untyped-def]
    decode_run(array_at(codes, end, np.uint8)[begin:], *window, array_at(out, end, np.uint32)[begin:])


@kernel
def _look_up_bytes(codes, table, out, begin, end):  # type: ignore[no-untyped-def]
    look_up(array_at(codes, end, np.uint8)[begin:], table, array_at(out, end, table.dtype)[begin:])


@kernel
def _look_up_words(codes, table, out, begin, end):  # type: ignore[no-untyped-def]
    look_up(array_at(codes, end, np.uint16)[begin:], table, array_at(out, end, table.dtype)[begin:])


def _decode_few(codes: torch.Tensor, fmt: LNSFormat, scale: Scale, offsets: torch.Tensor) -> torch.Tensor | None:
    """The floats of contiguous codes; None where the offsets are not side by side, are beyond the scale's bounds, or
    registers cannot be used."""
    if not offsets.is_contiguous():
        return None
    assert offsets.ndim == codes.ndim
    shape, own = codes.shape, offsets.shape
    varying = [d for d, length in enumerate(own) if length > 1]
    first, last = varying[0], varying[-1] + 1
    # in between some are expanded
    if own[first:last] != shape[first:last]:
        return None
    run = math.prod(shape[last:])
    way = way_of(fmt, scale.low, scale.high, run)
    if way is None:
        return None
    floats = torch.empty_like(codes, dtype=torch.float32)
    memory = codes.data_ptr(), codes.numel(), offsets.data_ptr(), offsets.numel()
    return floats if _decode_by_way(*memory, run, way, floats.data_ptr()) else None


@kernel
def _decode_by_way(codes, size, offsets, number, run, way, out):  # type: ignore[no-untyped-def]
    values = array_at(offsets, number, np.int32)
    return decode_by_way(array_at(codes, size, np.uint8), values, run, way, array_at(out, size, np.uint32))


def _decode_channels(
    words: NDArray[Any], fmt: LNSFormat, scale: Scale, offsets: torch.Tensor, name: str, patterns: NDArray[Any]
) -> None:
    """Decode contiguous codes; the offsets are expanded to their shape, in their order of dimensions."""
    if words.size == 0:
        return
    shape = offsets.shape
    # expanded dimensions have stride 0, those of one element vary over nothing
    varying = [d for d, stride in enumerate(offsets.stride()) if stride != 0 and shape[d] > 1]
    # (outer, channels, inner): from the first dimension over which offsets vary to the last
    if varying:
        first, last = varying[0], varying[-1] + 1
        offsets = offsets[(0,) * first + (slice(None),) * (last - first) + (0,) * (len(shape) - last)]
    else:
        first, last, offsets = 0, 0, offsets.reshape(-1)[:1]
    blocks = (math.prod(shape[:first]), math.prod(shape[first:last]), math.prod(shape[last:]))
    values = as_numpy(offsets.reshape(-1).contiguous()).astype(np.int64)
    scales = Scales(values, Walk(blocks[2]))
    if name == "float32" and decode_in_registers(words, fmt, scales, patterns, threads=torch_team()):
        return
    # whoever wrote the offsets in place left the bounds as they were
    low, high = scales.ends
    first, last = codes_twin.table_range(fmt, min(scale.low, low), max(scale.high, high), name)
    if words.size > 2 * (last - first):
        # the core spreads the scales of a block of elements in the nearest cache
        decoding.decode_flat(words, fmt, scales, name, patterns, threads=torch_team())
        return
    (table,) = codes_twin.signed_patterns(fmt, first, last, name)
    # E - first = m + place, with E = m + log_offset - bias: one sum for each element finds its entry
    places = values - (fmt.bias + first)
    codes, out = words.reshape(blocks), patterns.view(table.dtype).reshape(blocks)

    def run(begin: int, end: int) -> None:
        part = slice(begin, end)
        _gather_channels(codes[:, part], places[part], table, fmt.max_magnitude, last - first + 1, out[:, part])

    # channels that make _PARALLEL elements; a chunk may begin at any channel
    least = max(_PARALLEL * blocks[1] // words.size, 1)
    in_chunks(run, blocks[1], least, alignment=1, threads=torch_team())


@kernel
def _gather_channels(codes, places, table, max_magnitude, count, out):  # type: ignore[no-untyped-def]
    """out[o, c, i] = table[m + places[c]] for codes[o, c, i] = (sign, m), `count` further where it is negative; behind
    these are 0 and NaN.
    """
    for c in range(codes.shape[1]):
        for o in range(codes.shape[0]):
            for i in range(codes.shape[2]):
                out[o, c, i] = table[_place(np.int64(codes[o, c, i]), places[c], max_magnitude, count)]


@kernel
def _place(code, place, max_magnitude, count):  # type: ignore[no-untyped-def]
    m = code & max_magnitude
    negative = np.int64(code > max_magnitude)
    # all E beyond the table's ends decode as the ends do, see `codes_twin.table_range`
    return min(max(m + place, np.int64(0)), count - 1) + count * negative if m > 0 else 2 * count + negative


def encode(
    x: torch.Tensor,
    fmt: LNSFormat,
    scale: Scale,
    *,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    random_bits: torch.Tensor | None = None,
    seed: int | None = None,
) -> torch.Tensor:
    """The codes of floats, as `lnsnum.encode` makes them.

    The stochastic modes need random bits as int32, or on the CPU a seed, from which they are drawn on the way.
    """
    modes: dict[str, Any] = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
    check_modes(**modes)  # here, for all that may run: a kernel takes any other word for one of them
    x, scale = x.resolve_neg(), scale.on(x.device)
    if scale.group_size and not (scale.rest and is_on_cpu(x)):
        apart = None if random_bits is None else scale.apart(random_bits.expand(x.shape))
        return scale.together(encode(scale.apart(x), fmt, scale.of_channels, random_bits=apart, seed=seed, **modes))
    if not is_on_cpu(x):
        there = None
        if backends.is_on_card(x.detach()) and (random_bits is None) != rounding.startswith("stochastic"):
            from lnsnum.torch_bridge.kernels import codes_triton  # as in decode

            there = codes_triton.encode(x, fmt, scale, random_bits=random_bits, **modes)
        return codes_twin.encode(x, fmt, scale, random_bits=random_bits, **modes) if there is None else there
    # DLPack refuses a tensor that requires its gradient
    contiguous = x.detach().contiguous()
    name = FLOAT_NAMES[x.dtype]
    floats = as_numpy(contiguous.view(torch.int16), np.uint16) if name == "bfloat16" else as_numpy(contiguous)
    # torch has few operations on uint32: the bits come as int32, and are read as unsigned here
    words = None if random_bits is None else as_numpy(random_bits.contiguous(), np.uint32)
    if scale.offsets is not None:
        drawn: dict[str, Any] = {"random_bits": words, "seed": seed}
        codes = encoding.encode(floats, fmt, log_offset=offsets_of(scale), dtype=name, **drawn, **modes)
        return from_numpy(codes).clone()
    patterns, bits, key = encoding.read(floats, name, words, None if seed is None else (seed, 0, 0), **modes)
    out = torch.empty(x.shape, dtype=code_dtype(fmt), device="cpu")
    encoding.encode_patterns(
        patterns, as_numpy(_flat(out), fmt.dtype), fmt, scale.low, *bits, key=key, threads=torch_team(), **modes
    )
    return out


def offsets_of(scale: Scale) -> int | NDArray[np.int32] | GroupOffsets:
    """A scale as the core takes it, copied."""
    if scale.offsets is None:
        return scale.low
    offsets = as_numpy(scale.offsets.detach().cpu().clone(memory_format=torch.contiguous_format))
    return GroupOffsets(offsets, scale.group_size, axis=scale.axis) if scale.group_size else offsets


def from_numpy(codes: NDArray[Any]) -> torch.Tensor:
    """A tensor on the memory of an array of codes; `clone` gives it memory of torch's own, which it can resize."""
    return torch.from_numpy(codes.view(f"i{codes.itemsize}") if codes.itemsize > 1 else codes)


def encode_at_random(x: torch.Tensor, fmt: LNSFormat, scale: Scale, *, underflow: Underflow = "round") -> torch.Tensor:
    """`encode` with stochastic_value rounding by torch's default generator: that of the device, or a seed from it."""
    modes: dict[str, Any] = {"rounding": "stochastic_value", "underflow": underflow}
    if is_on_cpu(x):
        # one draw from the generator, and the words are made on the way, without an array of them
        return encode(x, fmt, scale, seed=int(torch.randint(1 << 62, ())), **modes)
    bits = torch.randint(-(1 << 31), 1 << 31, x.shape, dtype=torch.int32, device=x.device)
    return encode(x, fmt, scale, random_bits=bits, **modes)
