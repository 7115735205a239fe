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

__all__ = ["array_at", "fetch_add"]


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typing: Any, address: Any) -> Any:
    """An integer as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


@intrinsic  # type: ignore[untyped-decorator]
def _fetch_add(typing: Any, address: Any, amount: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], arguments[1].type.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


def fetch_add(address: int, amount: int) -> int:
    """The int64 at an address, to which `amount` is added at once: each of several threads finds another one."""
    place = array_at(address, 1, np.int64)
    found = int(place[0])
    place[0] += amount
    return found


@overload(fetch_add)
def _compiled_fetch_add(address, amount):  # type: ignore[no-untyped-def]
    return lambda address, amount: _fetch_add(address, amount)


def array_at(address: int, size: int, dtype: Any) -> NDArray[Any]:
    """The array of `size` elements from an address on; in plain Python too."""
    memory = (ctypes.c_char * (size * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(memory, dtype)


@overload(array_at)
def _compiled_array_at(address, size, dtype):  # type: ignore[no-untyped-def]
    return lambda address, size, dtype: numba.carray(_pointer(address), size, dtype)
