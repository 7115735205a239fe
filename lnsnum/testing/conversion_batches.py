"""What conversions are tried on: batches of floats that are encoded, of codes that are decoded, or recoded.

A conversion has an order on its inputs and on its results, opposites, zero and NaN; the laws ask for these alone.
`lnsnum.testing.positions` knows where a float lies among codes, `lnsnum.testing.spans` where a code of another format.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from lnsnum.format import LNSFormat
from lnsnum.testing import code_words
from lnsnum.testing.coded import Coded, find_error_bound
from lnsnum.testing.foreign import Array
from lnsnum.testing.positions import Axis
from lnsnum.testing.spans import Bounds, Ints, Mask, Rules, recoded_spans, settled
from lnsnum.testing.trial import Finding
from lnsnum.testing.unary import Ask, Unary, float_above, float_keys, plain, simple_floats


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


class IntoCodes(Converted, Coded):
    """What becomes codes."""

    def modes(self) -> dict[str, Any]:
        """The modes, for `lnsnum.reference`."""
        _, _, rounding, overflow, underflow = self.rules
        return {"rounding": rounding, "overflow": overflow, "underflow": underflow}

    @property
    def by_chance(self) -> bool:
        """Whether either of two neighbours is right."""
        return self.rules.rounding in ("stochastic_log", "stochastic_value")

    def told(self, result: Any) -> str:
        """A code with its value."""
        return code_words.told(int(result), self.fmt)

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


class Encoded(IntoCodes):
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
        from lnsnum import reference

        return None if self.by_chance else reference.encode(float(self.x[i]), self.fmt, **self.modes())

    def successor(self) -> Array:
        """Further up."""
        return float_above(self.x, self.steps)

    def opposite(self) -> Array:
        """With the other sign."""
        return -self.x


class FromCodes(Converted):
    """What codes become; `source` is their format."""

    source: LNSFormat

    def told_input(self, x: Any) -> str:
        """Digits."""
        return str(int(x))

    def keys(self, where: Ints) -> Ints:
        """Near one."""
        codes = self.x[where]
        signs = 2 * (codes >= self.source.sign_bit).astype(np.int64)
        return 4 * code_words.distance_from_one(codes, self.source) + signs + (self.steps[where] > 1)

    def cases(self, i: int) -> tuple[Ints, Ints]:
        """The code itself and others nearer to one, positive, with smaller steps."""
        fmt, code, step = self.source, int(self.x[i]), int(self.steps[i])
        m, sign = code & fmt.max_magnitude, code & fmt.sign_bit
        away = m - fmt.bias
        logs = {away, *(turn * (abs(away) >> k) for k in range(1, fmt.bits) for turn in (1, -1))}
        codes = {log + fmt.bias + s for log in logs for s in (0, sign)} if m else set()
        x, steps = np.array(sorted((c, s) for c in {code, *codes} for s in {step, 1}), np.int64).T
        return x, steps

    def successor(self) -> Array:
        """Further up."""
        ranks = code_words.rank(self.x, self.source) + self.steps
        return code_words.of_rank(np.minimum(ranks, self.source.max_magnitude), self.source)

    def opposite(self) -> Array:
        """With the other sign."""
        return code_words.negative(self.x, self.source)


class Decoded(FromCodes):
    """Codes, and the floats that they become."""

    def __init__(self, ask: Ask, x: Array, steps: Ints, rules: Rules, axis: Axis, dtype: str) -> None:
        super().__init__(ask, "decode", x)
        self.steps, self.rules, self.axis, self.source, self.dtype = steps, rules, axis, rules.fmt, np.dtype(dtype)
        self.nan, self.isnan_input, self.iszero_input = np.nan, x == self.source.nan_code, x == 0

    def equation(self, x: Any, out: Any) -> str:
        """With the value of the code."""
        return f"{super().equation(x, out)}, of the value {code_words.value_told(x, self.source)}"

    def nearby(self, i: int) -> Decoded:
        """The code itself and simpler ones."""
        return Decoded(self.ask, *self.cases(i), self.rules, self.axis, self.dtype.name)

    @cached_property
    def values(self) -> Array:
        """The right floats, of numbers; 0 for zero and NaN."""
        return self.axis.values(self.x, self.dtype.name)

    def right(self, i: int) -> float:
        """By `lnsnum.reference`."""
        from lnsnum import reference

        pattern = reference.decode(int(self.x[i]), self.source, self.dtype.name)  # type: ignore[arg-type]  # a name of it
        right: float = plain(np.array(pattern, f"u{self.dtype.itemsize}").view(self.dtype)[()])
        return right

    def told(self, result: Any) -> str:
        """In as many digits as the float needs."""
        return str(self.dtype.type(result))

    def negative_of(self, results: Array) -> Array:
        """Codes or floats, with the other sign."""
        return np.where(results == 0, results, -results)  # there is one zero, +0

    def order(self, results: Array) -> tuple[Array, Mask]:
        """In the order of the values."""
        nan = np.isnan(results)
        return np.where(nan, 0, results), nan

    def inexact(self) -> Finding:
        """What is not near enough."""
        number = (self.x & self.source.max_magnitude) > 0
        ok = self.same(self.out, self.values)
        if self.rules.spare:
            usable = np.isfinite(self.out) & (self.out != 0) & number
            log = self.axis.logs(np.where(usable, np.abs(self.out), 1.0).astype(np.float64))
            off = np.abs(log - ((self.x & self.source.max_magnitude) - self.source.bias))
            signs = np.signbit(self.out) == (self.x >= self.source.sign_bit)
            ok |= usable & signs & (off <= float(self.rules.spare) * (1 + 2.0**-40))
        return Finding(number, number & ~ok, lambda i: self.told(self.values[i]))


class Recoded(FromCodes, IntoCodes):
    """Codes, and those of another format, that of `rules`, which they become."""

    def __init__(self, ask: Ask, x: Array, steps: Ints, source: LNSFormat, rules: Rules) -> None:
        super().__init__(ask, "convert", x)
        self.steps, self.source, self.rules, self.fmt = steps, source, rules, rules.fmt
        self.nan, self.isnan_input, self.iszero_input = self.fmt.nan_code, x == source.nan_code, x == 0

    @cached_property
    def bounds(self) -> Bounds:
        """Where the codes lie among those of the other format."""
        m = self.x & self.source.max_magnitude
        asked = recoded_spans(self.source, self.fmt, self.rules.spare, np.where(m > 0, m - self.source.bias, 0))
        return settled(self.rules, m > 0, np.zeros_like(m), asked, self.x >= self.source.sign_bit)

    def equation(self, x: Any, out: Any) -> str:
        """With the value of the code."""
        return f"{super().equation(x, out)}, of the value {code_words.value_told(x, self.source)}"

    def nearby(self, i: int) -> Recoded:
        """The code itself and simpler ones."""
        return Recoded(self.ask, *self.cases(i), self.source, self.rules)

    def right(self, i: int) -> int | None:
        """By `lnsnum.reference`; None where chance decides."""
        from lnsnum import reference

        return None if self.by_chance else reference.convert(int(self.x[i]), self.source, self.fmt, **self.modes())
