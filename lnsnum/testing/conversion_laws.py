"""The laws that conversions between floats and codes keep.

    encode:  |E - r| <= max_ulp,  r = 2^F log_base |x|        decode:  the float nearest to base^(E / 2^F), ties to even

`lnsnum.testing.conversion_batches` knows what is right, `lnsnum.testing.conversion_inputs` has the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lnsnum.format import Rounding
from lnsnum.testing.coded import find_range, find_saturation, find_underflow
from lnsnum.testing.conversion_batches import Converted, Encoded
from lnsnum.testing.trial import Finding, Law
from lnsnum.testing.unary import find_determinism

# ---------------------------------------------------------------------------------------------------------- the laws


def _nan(batch: Converted) -> Iterator[Finding]:
    yield batch.should_be(batch.isnan_input, batch.nan)


def _zero(batch: Converted) -> Iterator[Finding]:
    yield batch.should_be(batch.iszero_input, 0)


def _round_trip(batch: Encoded) -> Iterator[Finding]:
    """Of the codes whose float is nearer to them than to any other, in every mode only where it is exact."""
    bounds = batch.bounds
    code = (bounds.low + batch.fmt.bias) | np.where(bounds.negative, batch.fmt.sign_bit, 0)
    own = (bounds.low == bounds.high) & bounds.exact & ~bounds.underflows & (code == batch.codes)
    yield batch.should_be(own | ((batch.codes == 0) & batch.iszero_input), batch.codes)


def _sign_symmetry(batch: Converted) -> Iterator[Finding]:
    x = batch.opposite()
    out = batch.ask(x)
    bad = ~batch.same(batch.out, batch.negative_of(out))
    yield batch.compared(x, out, ~batch.isnan_input & ~batch.iszero_input, bad, "the opposite of")


def _monotonicity(batch: Converted) -> Iterator[Finding]:
    x = batch.successor()
    out = batch.ask(x)
    (here, nan_here), (there, nan_there) = batch.order(batch.out), batch.order(out)
    known = ~batch.isnan_input & ~nan_here & ~nan_there
    yield batch.compared(x, out, known, here > there, "at most")


def _error_bound(batch: Converted) -> Iterator[Finding]:
    yield batch.inexact()


CONVERSION_LAWS: dict[str, Law[Any]] = {
    "range": Law("What is to be a code of the format is one.", "0 <= f(x) < 2^bits", find_range),
    "determinism": Law(
        "A result depends on its own input alone, not on those before or beside it.",
        "out[i] = f(x[i])",
        find_determinism,
        alone=False,
    ),
    "nan": Law("NaN stays NaN, whatever its sign and its other bits.", "f(nan) = nan", _nan),
    "zero": Law("Both zeros become the one zero, which is +0.", "f(+-0) = 0", _zero),
    "round_trip": Law(
        "What a code is decoded to is encoded as that code, where the float lies in its interval.",
        "encode(decode(c)) = c",
        _round_trip,
    ),
    "sign_symmetry": Law("Opposite inputs give the opposite.", "f(-x) = -f(x)", _sign_symmetry),
    "monotonicity": Law(
        "A greater input gives no lesser result.",
        "x <= y: f(x) <= f(y)",
        _monotonicity,
    ),
    "saturation": Law(
        'What is beyond the greatest, infinity too, is the greatest, with its sign; NaN with overflow="nan".',
        "|x| > max: f(x) = +-max",
        find_saturation,
    ),
    "underflow": Law(
        "What is below the smallest is zero or the smallest, by the rounding and the underflow policy.",
        "0 < |x| < min: f(x) = 0 or +-min",
        find_underflow,
    ),
    "error_bound": Law(
        "Other codes lie within max_ulp of the exact logarithm; decode gives the nearest float, ties to even.",
        "|E - r| <= max_ulp, r = 2^F log_base |x|; decode(c) = float(base^(E / 2^F))",
        _error_bound,
    ),
}
"""By name, in the order in which they are reported."""

OF_ENCODE_ALONE = ("range", "round_trip", "saturation", "underflow")
"""Laws that say nothing about decode."""


def conversion_laws_of(operation: str, rounding: Rounding) -> tuple[str, ...]:
    """The laws that hold of an operation under a rounding, which is that of encode."""
    if operation == "decode":
        return tuple(law for law in CONVERSION_LAWS if law not in OF_ENCODE_ALONE)
    if operation == "convert":
        return tuple(law for law in conversion_laws_of("encode", rounding) if law != "round_trip")
    lost = {
        "up": ("sign_symmetry",),
        "down": ("sign_symmetry",),
        "stochastic_log": ("determinism", "sign_symmetry", "monotonicity"),
        "stochastic_value": ("determinism", "sign_symmetry", "monotonicity"),
    }.get(rounding, ())
    return tuple(law for law in CONVERSION_LAWS if law not in lost)
