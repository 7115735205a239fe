"""Codes nearest on the value axis, and codes whose errors the next ones take over.

    nearest     m  =  the one of 0, 1, ..., m_max whose magnitude is nearest to |w|; of two, the smaller
    adaptive    column by column of W (N, K), with U upper triangular, U^T U = H^-1, H = 2 X^T X + dampening:

        q_k  =  nearest(w_k),    e  =  (w_k - q_k) / U_kk,    w_j  <-  w_j - e U_kj  for all j > k

What rounding one weight does to x W^T, for the inputs x of which H is made, the weights that are not rounded yet make
good as far as they can. Columns come in the order of falling H_kk, so that those that count most have most others to
make them good. Source: Frantar, Ashkboos, Hoefler, Alistarh, GPTQ, ICLR 2023 (arXiv 2210.17323), section 3; the order
is that of their code, not of the paper.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.kernels import codes as bridge

_COLUMNS = 128
"""Columns after which the others learn of the errors, in one matrix product: the paper's B."""


class Grid(NamedTuple):
    """The magnitudes of a format as parts of the greatest, and what lies between them; float64."""

    fmt: LNSFormat
    magnitudes: torch.Tensor
    """Of m = 0, 1, ..., m_max."""
    middles: torch.Tensor
    """Arithmetic means of neighbours."""

    @classmethod
    def of(cls, fmt: LNSFormat, device: torch.device) -> Grid:
        """That of a format, on a device."""
        down = torch.arange(1 - fmt.max_magnitude, 1, dtype=torch.float64)
        positive = torch.exp(down * (math.log(fmt.base) / (1 << fmt.fraction_bits)))
        magnitudes = torch.cat([torch.zeros(1, dtype=torch.float64), positive]).to(device)
        return cls(fmt, magnitudes, (magnitudes[1:] + magnitudes[:-1]) / 2)

    def greatest(self, log_offsets: torch.Tensor) -> torch.Tensor:
        """The greatest magnitude at each of some log_offsets, float64.

        Raises:
            OverflowError: where it lies beyond float64.
        """
        different, which = torch.unique(log_offsets, return_inverse=True)
        values = [self.fmt.value_at(self.fmt.max_log + offset) for offset in different.tolist()]
        if not all(0.0 < value < math.inf for value in values):
            raise OverflowError("the greatest magnitude lies beyond float64, where values cannot be compared")
        return torch.tensor(values, dtype=torch.float64, device=which.device)[which]

    def nearest(self, w: torch.Tensor, greatest: torch.Tensor) -> torch.Tensor:
        """m of float64 numbers, int64; `greatest` broadcasts to them."""
        return torch.bucketize((w.abs() / greatest).contiguous(), self.middles)

    def values(self, m: torch.Tensor, w: torch.Tensor, greatest: torch.Tensor) -> torch.Tensor:
        """The numbers with magnitudes m and the signs of w."""
        return torch.copysign(self.magnitudes[m] * greatest, w)

    def codes(self, m: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """The codes with magnitudes m and the signs of w; zero has none."""
        return (m + self.fmt.sign_bit * ((w < 0) & (m > 0))).to(bridge.code_dtype(self.fmt))


def nearest_codes(w: torch.Tensor, fmt: LNSFormat, log_offsets: torch.Tensor) -> torch.Tensor:
    """The codes nearest in value to float64 numbers, at log_offsets that broadcast to them.

    >>> from lnsnum import lns4f1
    >>> nearest_codes(torch.tensor([2.1, 0.01, -1.2], dtype=torch.float64), lns4f1, torch.tensor(0)).tolist()
    [6, 0, 12]
    """
    grid = Grid.of(fmt, w.device)
    return grid.codes(grid.nearest(w, grid.greatest(log_offsets.to(w.device))), w)


def adaptive_codes(
    w: torch.Tensor, hessian: torch.Tensor, fmt: LNSFormat, log_offsets: torch.Tensor, *, dampening: float = 0.01
) -> torch.Tensor:
    """The codes of W (N, K), rounded column by column, each column's errors fed to those after it.

    Args:
        w: float64 (N, K).
        hessian: float64 (K, K), X^T X of inputs or a multiple of it; inputs that were always zero decide nothing.
        fmt: the format.
        log_offsets: integers that broadcast to (N, K).
        dampening: what is added to the diagonal, in units of its mean.
    """
    grid = Grid.of(fmt, w.device)
    order = hessian.diagonal().argsort(descending=True, stable=True)
    upper = inverse_root(hessian[order[:, None], order], dampening)
    greatest = grid.greatest(log_offsets.to(w.device)).expand(w.shape)[:, order]
    w = w[:, order]
    codes = torch.empty(w.shape, dtype=bridge.code_dtype(fmt), device=w.device)
    for begin in range(0, w.shape[1], _COLUMNS):
        end = min(begin + _COLUMNS, w.shape[1])
        # columns side by side in memory: each is read and written as a whole
        block, tops = w[:, begin:end].T.contiguous(), greatest[:, begin:end].T.contiguous()
        errors = torch.empty_like(block)
        for k in range(end - begin):
            row = upper[begin + k, begin + k : end]
            m = grid.nearest(block[k], tops[k])
            codes[:, begin + k] = grid.codes(m, block[k])
            errors[k] = (block[k] - grid.values(m, block[k], tops[k])) / row[0]
            block[k:].addr_(row, errors[k], alpha=-1)
        w[:, end:] -= errors.T @ upper[begin:end, end:]
    return codes[:, order.argsort()]


def costs_of_errors(hessian: torch.Tensor, dampening: float) -> torch.Tensor:
    """What the square of an error of each column costs in the end, after the others have made it good: U_kk^-2."""
    order = hessian.diagonal().argsort(descending=True, stable=True)
    return inverse_root(hessian[order[:, None], order], dampening).diagonal()[order.argsort()] ** -2


def inverse_root(hessian: torch.Tensor, dampening: float) -> torch.Tensor:
    """U, upper triangular, with U^T U = (H + dampening)^-1."""
    h = hessian.clone()
    diagonal = h.diagonal()
    dead = diagonal == 0
    # an input that was always zero is one of its own, so that its weights are rounded to nearest
    diagonal[dead] = diagonal[~dead].mean() if not bool(dead.all()) else 1.0
    mean = float(diagonal.mean())
    step = dampening * mean
    diagonal += step
    lower, failed = torch.linalg.cholesky_ex(h)
    while int(failed):  # few inputs, or little dampening: more is added until the matrix is positive
        step = max(10 * step, 1e-12 * mean)
        diagonal += step
        lower, failed = torch.linalg.cholesky_ex(h)
    root: torch.Tensor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
    return root
