"""Codes as torch tensors: decode, encode, and the memory that torch and the kernels share.

A tensor of codes is uint8, int16 or int32, because torch has few operations on uint16 and uint32; the bits are those of
the format's unsigned codes. On the CPU the kernels of the core work on the tensor's own memory; elsewhere decoding is a
table look-up in torch and encoding goes by way of the CPU. All agree to the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lnsnum import codes as core
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow

_CODE_DTYPES = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
_PATTERN_DTYPES = {2: torch.int16, 4: torch.int32, 8: torch.int64}

FLOAT_NAMES = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


def check_width(fmt: LNSFormat) -> None:
    """Raise NotImplementedError where weights cannot be of this format."""
    if fmt.bits > core.WIDEST_TABLE:
        raise NotImplementedError(
            f"{fmt.name} is wider than {core.WIDEST_TABLE} bits: take one of at most {core.WIDEST_TABLE} for weights"
        )


def code_dtype(fmt: LNSFormat) -> torch.dtype:
    """What a tensor of this format's codes is of: uint8, int16 or int32."""
    return _CODE_DTYPES[fmt.dtype.itemsize]


def as_numpy(tensor: torch.Tensor, dtype: Any = None) -> NDArray[Any]:
    """The memory of a CPU tensor as an array, viewed as `dtype` of the same size.

    By DLPack: `Tensor.numpy()` would mark the storage as not resizable.
    """
    array = np.from_dlpack(tensor)
    return array if dtype is None else array.view(dtype)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous one-dimensional view."""
    return tensor.view(-1)


def decode(codes: torch.Tensor, fmt: LNSFormat, log_offset: int, dtype: torch.dtype) -> torch.Tensor:
    """The floats that codes stand for, each rounded once to `dtype`, with the strides of the codes where they are
    dense.
    """
    order = sorted(range(codes.ndim), key=codes.stride, reverse=True)
    dense = codes.permute(order)
    if not dense.is_contiguous():
        return decode(codes.contiguous(), fmt, log_offset, dtype)
    table = core.decode_table(fmt, log_offset, FLOAT_NAMES[dtype])
    if codes.device.type == "cpu":
        floats = torch.empty(dense.shape, dtype=dtype, device="cpu")
        patterns = _flat(floats.view(_PATTERN_DTYPES[dtype.itemsize]))
        core.gather(as_numpy(_flat(dense), fmt.dtype), table, as_numpy(patterns, table.dtype))
    else:
        signed = table.view(f"i{dtype.itemsize}")
        values = torch.from_numpy(signed).to(codes.device).view(dtype)
        index = dense.to(torch.int64) & ((1 << fmt.bits) - 1)
        floats = values[index]
    inverse = sorted(range(codes.ndim), key=order.__getitem__)
    return floats.permute(inverse)


def encode(
    x: torch.Tensor,
    fmt: LNSFormat,
    *,
    log_offset: int,
    rounding: Rounding = "nearest",
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    random_bits: torch.Tensor | None = None,
) -> torch.Tensor:
    """The codes of floats, as `lnsnum.encode` makes them; random bits as int32, needed by the stochastic modes."""
    on_cpu = x.detach().to("cpu").contiguous()
    name = FLOAT_NAMES[x.dtype]
    floats = as_numpy(on_cpu.view(torch.int16), np.uint16) if name == "bfloat16" else as_numpy(on_cpu)
    codes = core.encode(
        floats,
        fmt,
        rounding=rounding,
        overflow=overflow,
        underflow=underflow,
        log_offset=log_offset,
        random_bits=None if random_bits is None else as_numpy(random_bits.cpu(), np.uint32),
        dtype=name,
    )
    return from_numpy(codes, fmt).to(x.device)


def from_numpy(codes: NDArray[Any], fmt: LNSFormat) -> torch.Tensor:
    """A tensor on the memory of an array of codes."""
    return torch.from_numpy(codes.view(f"i{codes.itemsize}") if codes.itemsize > 1 else codes).to(code_dtype(fmt))


def draw_random_bits(shape: torch.Size) -> torch.Tensor:
    """32 random bits for each element, int32, from torch's default generator."""
    return torch.randint(-(1 << 31), 1 << 31, shape, dtype=torch.int32, device="cpu")
