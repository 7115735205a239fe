"""The laws that conversions between floats and codes keep.

    encode:  |E - r| <= max_ulp,  r = 2^F log_base |x|        decode:  the float nearest to base^(E / 2^F), ties to even

`lnsnum.testing.positions` knows where a float lies among the codes; `lnsnum.testing.conversion_inputs` has the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from lnsnum.format import Rounding
from lnsnum.testing import code_words
from lnsnum.testing.calling import Array
from lnsnum.testing.coded import Coded, find_error_bound, find_range, find_saturation, find_underflow
from lnsnum.testing.positions import Axis
from lnsnum.testing.spans import Bounds, Ints, Mask, Rules
from lnsnum.testing.trial import Finding, Law
from lnsnum.testing.unary import (
    Ask,
    Unary,
    find_determinism,
    float_above,
    float_keys,
    plain,
    simple_floats,
)


class Converted(Unary):
    """What encoding and decoding have in common: an order on inputs and results, signs, zero and NaN."""

    steps: Ints
    nan: Any
    isnan_input: Mask
    iszero_input: Mask

    def successor(self) -> Array:
        """The inputs `steps` places further up, at most the greatest."""
        raise NotImplementedError

    def opposite(self) -> Array:
        """The inputs with the other sign."""
        raise NotImplementedError

    def negative_of(self, results: Array) -> Array:
        """The opposite results."""
        raise NotImplementedError

    def order(self, results: Array) -> tuple[Array, Mask]:
        """Numbers in the order of the results, and which are none of them: NaN."""
        raise NotImplementedError

    def inexact(self) -> Finding:
        """Where the right result is a matter of rounding: what is too far from it."""
        raise NotImplementedError


class Encoded(Converted, Coded):
    """Floats, and the codes that they become. `codes` is the code that a float is the value of; -1 where of none."""

    def __init__(self, ask: Ask, x: Array, codes: Ints, steps: Ints, rules: Rules, axis: Axis) -> None:
        super().__init__(ask, "encode", x)
        self.codes, self.steps, self.rules, self.axis, self.fmt = codes, steps, rules, axis, rules.fmt
        self.nan, self.isnan_input, self.iszero_input = self.fmt.nan_code, np.isnan(x), x == 0

    @cached_property
    def numbers(self) -> Array:
        """The floats as float64, NaN quiet."""
        return np.where(self.isnan_input, np.nan, self.x).astype(np.float64)

    @cached_property
    def bounds(self) -> Bounds:
        """Where the floats lie among the codes."""
        return self.axis.bounds(self.rules, self.numbers)

    def told(self, result: Any) -> str:
        """A code with its value."""
        return code_words.told(int(result), self.fmt)

    def keys(self, where: Ints) -> Ints:
        """Few bits, near one."""
        return 2 * float_keys(self.x[where]) + (self.steps[where] > 1)

    def nearby(self, i: int) -> Encoded:
        """The float itself and simpler ones, with smaller steps."""
        x, step = simple_floats(self.x[i]), int(self.steps[i])
        steps = np.array(sorted({step, step >> 1 or 1, 1}), np.int64)
        x, steps = np.tile(x, steps.size), np.repeat(steps, x.size)
        return Encoded(self.ask, x, np.full(x.shape, -1), steps, self.rules, self.axis)

    def right(self, i: int) -> int | None:
        """By `lnsnum.reference`; None where chance decides."""
        if self.rules.rounding in ("stochastic_log", "stochastic_value"):
            return None
        from lnsnum import reference

        _, _, rounding, overflow, underflow = self.rules
        modes = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
        return reference.encode(float(self.x[i]), self.fmt, **modes)  # type: ignore[arg-type]  # they are of that type

    def successor(self) -> Array:
        """Further up."""
        return float_above(self.x, self.steps)

    def opposite(self) -> Array:
        """With the other sign."""
        return -self.x

    def negative_of(self, results: Array) -> Array:
        """Codes or floats, with the other sign."""
        return self.negative(results)

    def order(self, results: Array) -> tuple[Array, Mask]:
        """In the order of the values."""
        return self.rank(results), self.isnan(results)

    def inexact(self) -> Finding:
        """What is not near enough."""
        (finding,) = find_error_bound(self)
        return finding


class Decoded(Converted):
    """Codes, and the floats that they become."""

    def __init__(self, ask: Ask, x: Array, steps: Ints, rules: Rules, axis: Axis, dtype: str) -> None:
        super().__init__(ask, "decode", x)
        self.steps, self.rules, self.axis, self.fmt, self.dtype = steps, rules, axis, rules.fmt, np.dtype(dtype)
        self.nan, self.isnan_input, self.iszero_input = np.nan, x == self.fmt.nan_code, x == 0

    def told_input(self, x: Any) -> str:
        """Digits."""
        return str(int(x))

    def equation(self, x: Any, out: Any) -> str:
        """With the value of the code."""
        return f"{super().equation(x, out)}, of the value {code_words.value_told(x, self.fmt)}"

    def keys(self, where: Ints) -> Ints:
        """Near one."""
        codes = self.x[where]
        signs = 2 * (codes >= self.fmt.sign_bit).astype(np.int64)
        return 4 * code_words.distance_from_one(codes, self.fmt) + signs + (self.steps[where] > 1)

    def nearby(self, i: int) -> Decoded:
        """The code itself and others nearer to one, positive, with smaller steps."""
        code, step = int(self.x[i]), int(self.steps[i])
        m, sign = code & self.fmt.max_magnitude, code & self.fmt.sign_bit
        away = m - self.fmt.bias
        logs = {away, *(turn * (abs(away) >> k) for k in range(1, self.fmt.bits) for turn in (1, -1))}
        codes = {log + self.fmt.bias + s for log in logs for s in (0, sign)} if m else set()
        x, steps = np.array(sorted((c, s) for c in {code, *codes} for s in {step, 1}), np.int64).T
        return Decoded(self.ask, x, steps, self.rules, self.axis, self.dtype.name)

    @cached_property
    def values(self) -> Array:
        """The right floats, of numbers; 0 for zero and NaN."""
        return self.axis.values(self.x, self.dtype.name)

    def right(self, i: int) -> float:
        """By `lnsnum.reference`."""
        from lnsnum import reference

        pattern = reference.decode(int(self.x[i]), self.fmt, self.dtype.name)  # type: ignore[arg-type]  # a name of it
        right: float = plain(np.array(pattern, f"u{self.dtype.itemsize}").view(self.dtype)[()])
        return right

    def told(self, result: Any) -> str:
        """In as many digits as the float needs."""
        return str(self.dtype.type(result))

    def successor(self) -> Array:
        """Further up."""
        ranks = code_words.rank(self.x, self.fmt) + self.steps
        return code_words.of_rank(np.minimum(ranks, self.fmt.max_magnitude), self.fmt)

    def opposite(self) -> Array:
        """With the other sign."""
        return code_words.negative(self.x, self.fmt)

    def negative_of(self, results: Array) -> Array:
        """Codes or floats, with the other sign."""
        return np.where(results == 0, results, -results)  # there is one zero, +0

    def order(self, results: Array) -> tuple[Array, Mask]:
        """In the order of the values."""
        nan = np.isnan(results)
        return np.where(nan, 0, results), nan

    def inexact(self) -> Finding:
        """What is not near enough."""
        number = (self.x & self.fmt.max_magnitude) > 0
        ok = self.same(self.out, self.values)
        if self.rules.spare:
            usable = np.isfinite(self.out) & (self.out != 0) & number
            log = self.axis.logs(np.where(usable, np.abs(self.out), 1.0).astype(np.float64))
            off = np.abs(log - ((self.x & self.fmt.max_magnitude) - self.fmt.bias))
            signs = np.signbit(self.out) == (self.x >= self.fmt.sign_bit)
            ok |= usable & signs & (off <= float(self.rules.spare) * (1 + 2.0**-40))
        return Finding(number, number & ~ok, lambda i: self.told(self.values[i]))


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
    "range": Law("What comes out of encode is a code of the format.", "0 <= encode(x) < 2^bits", find_range),
    "determinism": Law(
        "A result depends on its own input alone, not on those before or beside it.",
        "out[i] = f(x[i])",
        find_determinism,
        alone=False,
    ),
    "nan": Law("NaN stays NaN, whatever its sign and its other bits.", "encode(nan) = nan, decode(nan) = nan", _nan),
    "zero": Law("Both zeros become the one zero, which is +0.", "encode(+-0) = 0, decode(0) = +0", _zero),
    "round_trip": Law(
        "What a code is decoded to is encoded as that code, where the float lies in its interval.",
        "encode(decode(c)) = c",
        _round_trip,
    ),
    "sign_symmetry": Law(
        "Opposite inputs give the opposite.", "encode(-x) = -encode(x), decode(-c) = -decode(c)", _sign_symmetry
    ),
    "monotonicity": Law(
        "A greater input gives no lesser result.",
        "x <= y: encode(x) <= encode(y), decode(x) <= decode(y)",
        _monotonicity,
    ),
    "saturation": Law(
        'What is beyond the greatest, infinity too, is the greatest, with its sign; NaN with overflow="nan".',
        "|x| > max: encode(x) = +-max",
        find_saturation,
    ),
    "underflow": Law(
        "What is below the smallest is zero or the smallest, by the rounding and the underflow policy.",
        "0 < |x| < min: encode(x) = 0 or +-min",
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
    lost = {
        "up": ("sign_symmetry",),
        "down": ("sign_symmetry",),
        "stochastic_log": ("determinism", "sign_symmetry", "monotonicity"),
        "stochastic_value": ("determinism", "sign_symmetry", "monotonicity"),
    }.get(rounding, ())
    return tuple(law for law in CONVERSION_LAWS if law not in lost)
