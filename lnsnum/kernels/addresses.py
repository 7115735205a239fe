"""Arrays at addresses: what NumPy takes microseconds to wrap, a kernel reaches by an integer.

    array_at(address, size, dtype)        inside of a kernel: one-dimensional, contiguous, and nobody's

For small tensors of torch, whose memory an array is made for at each use. The caller knows that the memory is there,
aligned, and stays until the kernel returns.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

__all__ = ["array_at"]


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing: Any, address: Any) -> Any:
    """An integer as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


def array_at(address: int, size: int, dtype: Any) -> NDArray[Any]:
    """The array of `size` elements from an address on; in plain Python too."""
    memory = (ctypes.c_char * (size * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(memory, dtype)


@overload(array_at)
def _compiled(address, size, dtype):  # type: ignore[no-untyped-def]
    return lambda address, size, dtype: numba.carray(_pointer(address), size, dtype)
