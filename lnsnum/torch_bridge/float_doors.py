"""Where others reach for the float memory of a tensor: a weight that has none decodes, or says what to do instead.

a copy will do         decoded: NumPy's arrays (which cannot be written to: nothing would come back), lists, text
memory is meant        refused: storages, addresses, DLPack
how many bytes         those of the codes
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_NO_MEMORY = 1 << 63
"""Half of all addresses, of which no process has any: codes are never read as floats by them."""


class FloatDoors(torch.Tensor):
    """The methods of torch.Tensor that look at memory, for `LNSWeight`, which inherits them."""

    codes: torch.Tensor

    def to_float(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """See `LNSWeight.to_float`."""
        raise NotImplementedError

    def numpy(self, *, force: bool = False) -> NDArray[Any]:
        """The values, decoded, in an array that cannot be written to.

        Raises:
            TypeError: where gradients are asked for, the weight is not on the CPU, or NumPy has no such type; `force`
                detaches and copies first.
        """
        if not force and self.requires_grad and torch.is_grad_enabled():
            raise TypeError("this LNSWeight requires a gradient, which NumPy does not keep: take to_float().numpy()")
        if self.device.type != "cpu" and not (force and not self.is_meta):
            raise TypeError(f"this LNSWeight is on {self.device}, and NumPy's arrays are on the CPU: take cpu()")
        if self.dtype == torch.bfloat16:
            raise TypeError("NumPy has no bfloat16: take to_float(torch.float32).numpy()")
        values: NDArray[Any] = self.to_float().detach().cpu().numpy()
        values.flags.writeable = False
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("codes become an array only by being decoded, which copies: take np.asarray")
        values = self.numpy()
        return np.array(values, dtype) if copy or (dtype is not None and dtype != values.dtype) else values

    def tolist(self) -> Any:
        """The values as Python's numbers, in lists."""
        return self.to_float().tolist()

    def __format__(self, format_spec: str) -> str:
        if not format_spec:
            return str(self)
        if self.ndim:
            shape = tuple(self.shape)
            raise TypeError(f"only an LNSWeight of shape () is written as {format_spec!r}, not {shape}: index it")
        return format(self.item(), format_spec)

    def element_size(self) -> int:
        """Bytes of an element in memory: those of its code."""
        return self.codes.element_size()

    @property
    def itemsize(self) -> int:  # type: ignore[override]
        """Bytes of an element in memory: those of its code."""
        return self.codes.itemsize

    def data_ptr(self) -> int:
        """An address that no memory has, the same for all that share the codes: by it others know tied weights.

        0 to torch, as of every tensor without memory of its own: it copies and pickles these by their parts.
        """
        asking = sys._getframe(1).f_globals.get("__name__", "")
        if asking.split(".")[0] == "torch":
            return 0
        address = self.codes.data_ptr()
        return address and address | _NO_MEMORY

    def storage(self) -> Any:
        """Not supported: a library that takes a tensor's memory by its address would write a file of nothing."""
        raise TypeError(
            "an LNSWeight has no float memory: save models by lnsnum.torch_bridge.save_model or torch.save, and decode "
            "them first (decode_model) for what writes floats"
        )

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("an LNSWeight has no float memory to share by DLPack: take to_float() or its codes")

    def apply_(self, *args: Any) -> Any:
        """Not supported: there is no float memory to apply a function to."""
        raise TypeError("an LNSWeight has no float memory: use to_float().apply_(f), then copy_")
