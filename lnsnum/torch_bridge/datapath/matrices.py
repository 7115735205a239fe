"""Stacks of matrices of codes, as the kernels of the core take them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import Codes
from lnsnum.torch_bridge.datapath.quantized import Quantized
from lnsnum.torch_bridge.datapath.settings import BitTrue, check_operand
from lnsnum.torch_bridge.kernels import codes as bridge


class Matrices(NamedTuple):
    """A stack of matrices of codes, as the core takes it."""

    codes: Codes
    fmt: LNSFormat
    log_offset: int | NDArray[np.int32]

    @classmethod
    def of(cls, x: Quantized, accumulator: BitTrue, kind: str) -> Matrices:
        """Those of a quantized tensor, on the CPU."""
        check_operand(x.fmt, kind, accumulator)
        x = x.apart()
        if x.codes.device.type != "cpu":
            raise NotImplementedError(
                f"accumulate={accumulator.name} adds on the CPU, and {kind} are on {x.codes.device}: move the "
                "model there, or take accumulate='float32'"
            )
        codes = bridge.as_numpy(x.codes.detach(), x.fmt.dtype)
        offsets: Any = x.scale.low
        if x.scale.offsets is not None:
            offsets = np.broadcast_to(bridge.as_numpy(x.scale.offsets.detach()), codes.shape)
        return cls(codes, x.fmt, offsets)

    @property
    def transposed(self) -> Matrices:
        """The last two dimensions exchanged."""
        offsets = self.log_offset if isinstance(self.log_offset, int) else self.log_offset.swapaxes(-2, -1)
        return self._replace(codes=self.codes.swapaxes(-2, -1), log_offset=offsets)

    def at(self, index: tuple[int, ...]) -> Matrices:
        """One matrix of a stack, in which a dimension of one serves every index."""
        own = self.codes.ndim - 2
        at = tuple(0 if n == 1 else i for n, i in zip(self.codes.shape, index[len(index) - own :], strict=False))
        offsets = self.log_offset if isinstance(self.log_offset, int) else self.log_offset[at]
        return self._replace(codes=self.codes[at], log_offset=offsets)


def in_steps(x: Matrices, to: LNSFormat, log: int) -> int:
    """A logarithm of the numbers' format in code steps of a finer one."""
    return log << (to.fraction_bits - x.fmt.fraction_bits)
