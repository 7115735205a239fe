"""The paper's rule on codes in Triton: `paper.move`, operation by operation, without fused products and sums."""

from __future__ import annotations

import triton
import triton.language as tl

from lnsnum.torch_bridge.kernels import moments, paper
from lnsnum.torch_bridge.kernels.random_words_triton import upper24

_NEAREST, _VALUE = tl.constexpr(paper.NEAREST), tl.constexpr(paper.VALUE)
_GREATEST_STEP = tl.constexpr(2.0**30)
_UNIT = tl.constexpr(float(moments.RANDOM_UNIT))


@triton.jit
def move(code, drive, pull, word, up, terms, MODE: tl.constexpr, LEAVE: tl.constexpr, TOP: tl.constexpr):
    """The moved codes, int32.

    Args: `code` is int32, `drive` rate g_hat or NaN, `pull` the weight decay; `up` points to the `terms` coefficients
    of P, from that of f on; `MODE` is the rounding; with `LEAVE` zeros with a drive become the smallest magnitude
    against it; `TOP` is m_max.
    """
    # NaN fails the comparison, too: what has no finite gradient is not decayed either
    shrink = tl.where(tl.abs(drive) < float("inf"), tl.where(code > TOP, -drive, drive) + pull, 0.0)
    size = tl.abs(shrink)
    # before the conversion, which has no result beyond int32
    size = tl.where(size < _GREATEST_STEP, size, _GREATEST_STEP)
    whole = size.to(tl.int32)
    part = size - whole.to(tl.float32)
    if MODE == _NEAREST:
        more = (part > 0.5) | ((part == 0.5) & ((whole & 1) == 1))
    else:
        if MODE == _VALUE:
            part = _share(part, shrink > 0.0, up, terms)
        more = upper24(word) < (part * _UNIT).to(tl.int32)
    whole = whole + more.to(tl.int32)
    steps = tl.where(shrink > 0.0, whole, -whole)
    steps = tl.where(steps < TOP, steps, TOP)
    steps = tl.where(steps > -TOP, steps, -TOP)
    m = code & TOP
    new = m - steps
    new = tl.where(new > 1, new, 1)
    new = tl.where(new < TOP, new, TOP)
    out = code + tl.where(m > 0, new - m, 0)
    if LEAVE:
        # no NaN is greater than 0
        out = tl.where((code == 0) & (tl.abs(drive) > 0.0), tl.where(drive > 0.0, TOP + 2, 1), out)
    return out


@triton.jit
def _share(part, shrinks, up, terms):
    """With which probability a fraction of a step becomes a whole one, unbiased in the value."""
    f = tl.where(shrinks, 1.0 - part, part)
    p = tl.zeros_like(part)
    for k in range(terms):
        # Horner in the kernel's order, from the highest term; no constant one, so the factor comes last
        p = (p + tl.load(up + (terms - 1 - k))) * f
    return tl.where(part > 0.0, tl.where(shrinks, 1.0 - p, p), 0.0)
