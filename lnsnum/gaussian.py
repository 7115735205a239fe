"""The Gaussian logarithms: what a sum adds to the greater logarithm.

    sb(z)  =  2^F log_base(1 + base^(-z / 2^F)),     db(z)  =  2^F log_base(1 - base^(-z / 2^F)),     z >= 0 code steps

Named after Gauss, who tabulated them; sb lies between 0 and K = 2^F log_base 2, db is negative and without bound as z
goes to 0. The exact one is evaluated with a bound of its error (`lnsnum.kernels.elementary`), with integers behind it,
and kept as a table of integers where that is short. Others are approximations as hardware has them, judged by
`lnsnum.certify`; whoever adds passes one as an argument.

Sources: Mitchell, IRE Trans. EC-11 (1962); Coleman et al., IEEE Trans. Computers 57 (2008) for cotransformation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numba
import numpy as np
from numba.extending import is_jitted
from numpy.typing import NDArray

from lnsnum.format import LNSFormat, Rounding
from lnsnum.kernels.codes import WIDEST_TABLE
from lnsnum.kernels.compiling import kernel
from lnsnum.kernels.decide import Sum, Term, decide
from lnsnum.kernels.elementary import exp2_and_complement, log2_parts
from lnsnum.kernels.rounding import DOUBT, settle, steps_in_two, target, unbounded

__all__ = [
    "BitShift",
    "Cotransformation",
    "Exact",
    "FromFunctions",
    "GaussianLog",
    "LinearInterpolation",
    "LookUpTable",
    "Mitchell",
]

Steps = NDArray[np.int64]

_TINY = 2.0**-41


class GaussianLog(Protocol):
    """A way to evaluate sb and db: what `add`, `subtract` and the reductions take as `gaussian`.

    Both methods take a one-dimensional int64 array of distances z in code steps and return as many int64, the values in
    code steps. Objects are compared and hashed to keep their tables, so they must not change.
    """

    def __hash__(self) -> int: ...

    def sb(self, z: Steps, fmt: LNSFormat) -> Steps:
        """Code steps that the sum of two numbers z >= 0 apart adds to the greater: not negative."""

    def db(self, z: Steps, fmt: LNSFormat) -> Steps:
        """Code steps that the difference of two numbers z >= 1 apart adds to the greater: not positive."""


@kernel
def gaussian_position(z, subtracted, steps, steps_error):  # type: ignore[no-untyped-def]
    """`(value, error)` of sb(z) or db(z) in units of which `steps` make an octave; z in the same units, z > 0 for db.

    The value is exact where the error is 0. Beyond the last z whose value counts it is +-2^-41 with that error: not 0,
    and too small to reach any boundary but the one it stands at.
    """
    # 1 + 1 = 2: K steps
    if z == 0:
        return steps, steps_error
    # 1 - 1/2 = 1/2: -K steps
    if subtracted and z == steps:
        return -steps, steps_error
    t, d = exp2_and_complement(z / steps)
    # log2(1 + t) is t / ln 2 but for t^2, 2^-31 of it; to add t to 1 would lose its last bits
    if t < 2.0**-30:
        r = steps * t * 1.4426950408889634
        # hi is an integer and this is not 0: which way a directed mode goes depends on the sign alone
        if r < 2.0**-40:
            return (-_TINY, _TINY) if subtracted else (_TINY, _TINY)
        return (-r if subtracted else r), r * 2.0**-28
    # d = 1 - 2^-u comes accurate from `exp2_and_complement`: computed here it would cancel near z = 0
    exponent, log = log2_parts(d if subtracted else 1.0 + t)
    r = steps * (exponent + log)
    return r, steps * 2.0**-49 + abs(r) * 2.0**-50


@kernel
def _round_all(z, subtracted, parity, to, out, hard):  # type: ignore[no-untyped-def]
    """out = hi + sb(z) or db(z) rounded, for hi = parity; returns how many are left to integers."""
    unresolved = 0
    for i in range(z.size):
        r, error = gaussian_position(z[i], subtracted, to.steps_in_two, to.steps_error)
        m = settle(np.int64(parity), r, error, np.uint32(0), False, to)
        if m == DOUBT:
            hard[unresolved] = i
            unresolved += 1
        out[i] = m + to.lowest - 1
    return unresolved


def exact_steps(
    z: Steps, fmt: LNSFormat, subtracted: bool, *, rounding: Rounding = "nearest", parity: int = 0
) -> Steps:
    """hi + sb(z) or db(z) for hi = parity, correctly rounded (toward_zero is the floor), minus hi."""
    # room on both sides of hi = 0: E of a step, not a code, is wanted
    to = unbounded(target(fmt, 0, rounding=rounding))
    out, hard = np.empty(z.shape, np.int64), np.empty(z.shape, np.int64)
    unresolved = _round_all(z, subtracted, parity, to, out, hard)
    for i in hard[:unresolved]:
        steps = 1 << fmt.fraction_bits
        # base^parity (1 +- base^-z), exactly
        lesser = Term(-1 if subtracted else 1, 0, Fraction(parity - int(z[i]), steps))
        value = Sum((Term(1, 0, Fraction(parity, steps)), lesser))
        position, _ = gaussian_position(z[i], subtracted, to.steps_in_two, to.steps_error)
        out[i] = decide(value, fmt, to, False, 0, position) + to.lowest - 1
    return out - parity


@dataclass(frozen=True)
class Exact:
    """sb and db, correctly rounded to nearest, ties to even.

    >>> Exact().sb(np.array([0, 8, 100]), LNSFormat(8, 3)).tolist()
    [8, 5, 0]
    """

    def sb(self, z: Steps, fmt: LNSFormat) -> Steps:
        """To the nearest code step."""
        return exact_steps(np.asarray(z, np.int64), fmt, False)

    def db(self, z: Steps, fmt: LNSFormat) -> Steps:
        """To the nearest code step, for z >= 1."""
        return exact_steps(np.asarray(z, np.int64), fmt, True)


def _to_steps(value: NDArray[np.float64], fmt: LNSFormat) -> Steps:
    """Octaves to the nearest code step."""
    return np.rint(value * steps_in_two(fmt)[0]).astype(np.int64)


def _octaves(z: Steps, fmt: LNSFormat) -> NDArray[np.float64]:
    return np.asarray(z, np.float64) / steps_in_two(fmt)[0]


@dataclass(frozen=True)
class Mitchell:
    """Mitchell's straight line, log2(1 + x) = x for 0 <= x <= 1: a shift and no table.

    2^-u is evaluated by the same line, as in hardware: (1 - frac(u) / 2) 2^-floor(u).
    """

    def sb(self, z: Steps, fmt: LNSFormat) -> Steps:
        """The line for log2(1 + x), at most 0.11 octaves off."""
        return _to_steps(_antilog(_octaves(z, fmt)), fmt)

    def db(self, z: Steps, fmt: LNSFormat) -> Steps:
        """The same lines for log2 of 1 - 2^-u = (1 + x) 2^-n."""
        rest = 1.0 - _antilog(_octaves(z, fmt))
        # at z near 0 the line for 2^-u reaches 1: the logarithm is cut at two bits below the format's grid
        significand, exponent = np.frexp(np.maximum(rest, 2.0 ** -(fmt.fraction_bits + 2)))
        return np.minimum(_to_steps(2.0 * significand - 1.0 + exponent - 1, fmt), 0)


def _antilog(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mitchell's 2^-u for u >= 0."""
    whole = np.minimum(np.floor(u), 1000.0)
    return np.asarray((1.0 - (u - np.floor(u)) / 2.0) * 2.0**-whole)


@dataclass(frozen=True)
class LinearInterpolation:
    """Straight lines between the exact values at the ends of `segments` equal parts of the range where sb counts.

    db is steep near 0: its lines begin at one octave, below that it is exact (a table in hardware), unless
    `table_octaves` says otherwise.

    Args:
        segments: how many lines, 1 to 2^20.
        table_octaves: up to which z db is taken from a table, 0 to 64.
    """

    segments: int
    table_octaves: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.segments, bool) or not isinstance(self.segments, int) or not 1 <= self.segments <= 1 << 20:
            raise ValueError(f"segments={self.segments!r} is no number of lines: an integer from 1 to 2^20")
        if not 0.0 <= self.table_octaves <= 64.0:
            raise ValueError(f"table_octaves={self.table_octaves!r} is out of range: 0 to 64")

    def sb(self, z: Steps, fmt: LNSFormat) -> Steps:
        """On the lines, 0 beyond the last."""
        return self._lines(z, fmt, False, 0)

    def db(self, z: Steps, fmt: LNSFormat) -> Steps:
        """From the table before the first line, then on the lines, 0 beyond the last."""
        # z = 0 is x - x, which is not asked of db
        first = max(int(self.table_octaves * steps_in_two(fmt)[0]), 1)
        return np.where(z < first, exact_steps(np.asarray(z, np.int64), fmt, True), self._lines(z, fmt, True, first))

    def _lines(self, z: Steps, fmt: LNSFormat, subtracted: bool, first: int) -> Steps:
        last = max(last_step(fmt), first + self.segments)
        # whole z, nearly equally far apart, so that the exact steps serve as values
        nodes = first + (np.arange(self.segments + 1) * (last - first)) // self.segments
        values = exact_steps(nodes.astype(np.int64), fmt, subtracted)
        return np.rint(np.interp(z, nodes, values)).astype(np.int64)


@dataclass(frozen=True)
class LookUpTable:
    """`entries` values each of sb and db, equally far apart up to `octaves`, beyond which the greater operand stays.

    Entry i serves z from i w on, up to (i + 1) w, w = octaves / entries; it is the exact value at the z in the
    middle of those, to the nearest code step. 20 entries for 10 octaves are what Sanyal, Beerel and Chugg train with
    (Neural Network Training with Approximate Logarithmic Computations, 2019).

    Args:
        entries: 1 to 2^20.
        octaves: where the table ends, more than 0, up to 64.

    >>> LookUpTable(20).sb(np.array([0, 8, 200]), LNSFormat(8, 3)).tolist()
    [7, 4, 0]
    """

    entries: int
    octaves: float = 10.0

    def __post_init__(self) -> None:
        if isinstance(self.entries, bool) or not isinstance(self.entries, int) or not 1 <= self.entries <= 1 << 20:
            raise ValueError(f"entries={self.entries!r} is no size of a table: an integer from 1 to 2^20")
        if not 0.0 < self.octaves <= 64.0:
            raise ValueError(f"octaves={self.octaves!r} is out of range: more than 0, up to 64")

    def sb(self, z: Steps, fmt: LNSFormat) -> Steps:
        """From the table."""
        return self._entry(z, fmt, False)

    def db(self, z: Steps, fmt: LNSFormat) -> Steps:
        """From the table: the first entry serves z = 1 too, where db is far below it."""
        return self._entry(z, fmt, True)

    def _entry(self, z: Steps, fmt: LNSFormat, subtracted: bool) -> Steps:
        per_entry = self.octaves * steps_in_two(fmt)[0] / self.entries
        first = np.arange(self.entries) * per_entry
        middle = np.floor(first + per_entry / 2)
        # an entry as narrow as a step has one z, above its middle or below
        middle = np.where(middle < first, middle + 1, middle).astype(np.int64)
        values = exact_steps(np.maximum(middle, int(subtracted)), fmt, subtracted)
        index = (np.asarray(z, np.int64) / per_entry).astype(np.int64)
        return np.where(index < self.entries, values[np.minimum(index, self.entries - 1)], 0)


@dataclass(frozen=True)
class BitShift:
    """A shifted bit and no table: sb = 2^-floor(u) and db = -1.5 * 2^-floor(u) octaves, u the distance in octaves.

    Source: Sanyal, Beerel and Chugg (2019), as of `LookUpTable`.

    >>> BitShift().sb(np.array([0, 8, 16]), LNSFormat(8, 3)).tolist()
    [8, 4, 2]
    """

    def sb(self, z: Steps, fmt: LNSFormat) -> Steps:
        """One, shifted."""
        return _to_steps(_shifted(_octaves(z, fmt)), fmt)

    def db(self, z: Steps, fmt: LNSFormat) -> Steps:
        """One and a half, shifted."""
        return _to_steps(-1.5 * _shifted(_octaves(z, fmt)), fmt)


def _shifted(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """2^-floor(u) for u >= 0."""
    return np.asarray(2.0 ** -np.minimum(np.floor(u), 1000.0))


@dataclass(frozen=True)
class Cotransformation:
    """db near 0 from two short tables (Coleman): no table as long as the range, no steep function to interpolate.

    With z = h + l, l the low half of the bits of one octave (l = 0 is read from the table of h),

        1 - base^-z  =  (1 - base^-h) * (1 + base^-h (1 - base^-l) / (1 - base^-h))
        db(z)  =  db(h) + sb(h + db(h) - db(l))

    in code steps, three look-ups that are each rounded to `guard_bits` more fraction bits. sb, and db from one octave
    on, are the exact ones.
    """

    guard_bits: int = 3

    def __post_init__(self) -> None:
        if isinstance(self.guard_bits, bool) or not isinstance(self.guard_bits, int) or not 0 <= self.guard_bits <= 20:
            raise ValueError(f"guard_bits={self.guard_bits!r} is out of range: an integer from 0 to 20")

    def sb(self, z: Steps, fmt: LNSFormat) -> Steps:
        """To the nearest code step."""
        return exact_steps(np.asarray(z, np.int64), fmt, False)

    def db(self, z: Steps, fmt: LNSFormat) -> Steps:
        """By cotransformation below one octave."""
        z = np.asarray(z, np.int64)
        out = exact_steps(z, fmt, True)
        steps = max(int(steps_in_two(fmt)[0]), 1)
        low_bits = steps.bit_length() // 2
        low, near = z & ((1 << low_bits) - 1), z < steps
        high = z - low
        # where one of the halves is 0 a single table has the value, exactly rounded
        cut = near & (low > 0) & (high > 0)
        octave, guard = steps_in_two(fmt)[0], 1 << self.guard_bits
        h, l = high[cut] / octave, low[cut] / octave  # noqa: E741

        def rounded(octaves: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.rint(octaves * octave * guard) / (octave * guard)

        db_high, db_low = (rounded(np.log2(-np.expm1(-x * math.log(2.0)))) for x in (h, l))
        # rounded look-ups can bring it just below 0, where sb is not defined
        inner = np.maximum(h + db_high - db_low, 0.0)
        out[cut] = np.minimum(_to_steps(db_high + rounded(np.log2(1.0 + 2.0**-inner)), fmt), 0)
        return out


@dataclass(frozen=True)
class FromFunctions:
    """Your own: two functions of (z, fraction_bits), jitted by Numba or plain Python, each giving one number.

    Args:
        sb, db: functions of two integers that return code steps; a float is rounded to the nearest integer.

    >>> class_of_one = FromFunctions(lambda z, f: (1 << f) >> (z >> f), lambda z, f: -((1 << f) >> (z >> f)))
    >>> class_of_one.sb(np.array([0, 8, 16]), LNSFormat(8, 3)).tolist()
    [8, 4, 2]
    """

    sb_function: Callable[[int, int], float]
    db_function: Callable[[int, int], float]

    def __post_init__(self) -> None:
        for name, given in (("sb_function", self.sb_function), ("db_function", self.db_function)):
            if not callable(given):
                raise TypeError(f"{name}={given!r} is a {type(given).__name__}: give a function of z and fraction_bits")

    def sb(self, z: Steps, fmt: LNSFormat) -> Steps:
        """The function at each z."""
        return _apply(self.sb_function, z, fmt)

    def db(self, z: Steps, fmt: LNSFormat) -> Steps:
        """The function at each z."""
        return _apply(self.db_function, z, fmt)


def _apply(function: Callable[[int, int], float], z: Steps, fmt: LNSFormat) -> Steps:
    if is_jitted(function):
        values = np.empty(z.shape, np.float64)
        _apply_jitted(function, z, fmt.fraction_bits, values)
    else:
        values = np.array([function(int(x), fmt.fraction_bits) for x in z], np.float64)
    # written so that NaN is wrong too
    wrong = ~(np.abs(values) <= 2.0**40)
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(f"a Gaussian logarithm gave {values[at]} at z={z[at]}: code steps, at most 2^40 in size")
    return np.rint(values).astype(np.int64)


@numba.njit(nogil=True)  # not kept on disk: the function is the user's
def _apply_jitted(function, z, fraction_bits, values):  # type: ignore[no-untyped-def]
    for i in range(z.size):
        values[i] = function(z[i], fraction_bits)


def check_gaussian(gaussian: object) -> None:
    """Raise TypeError where `gaussian` has no sb and db."""
    if isinstance(gaussian, type):
        raise TypeError(f"gaussian={gaussian.__name__} is a class: give an object of it, as {gaussian.__name__}()")
    if not (callable(getattr(gaussian, "sb", None)) and callable(getattr(gaussian, "db", None))):
        raise TypeError(
            f"gaussian={gaussian!r} has no methods sb and db: see lnsnum.gaussian.GaussianLog, or wrap two functions "
            "in FromFunctions"
        )
    try:
        hash(gaussian)
    except TypeError:
        raise TypeError(
            f"gaussian={gaussian!r} cannot be hashed, and its tables are kept by that: make it a frozen dataclass"
        ) from None


def evaluate(gaussian: GaussianLog, z: Steps, fmt: LNSFormat, subtracted: bool) -> Steps:
    """sb(z) or db(z) of a GaussianLog, looked at.

    Raises:
        TypeError: where it gives anything but an array of integers.
        ValueError: for another shape, sb below 0, db above 0, or steps beyond 2^40.
    """
    name = "db" if subtracted else "sb"
    if gaussian != Exact() and steps_in_two(fmt)[0] > 1 << 32:
        raise ValueError(
            f"{gaussian!r} cannot serve {fmt.name}: its base is so near to 1 that an octave has over 2^32 steps"
        )
    values = np.asarray(gaussian.db(z, fmt) if subtracted else gaussian.sb(z, fmt))
    if values.shape != z.shape:
        raise ValueError(f"{name} of {gaussian!r} gave shape {values.shape} for {z.shape}: one value for each z")
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name} of {gaussian!r} gave {values.dtype}: give integers, whole code steps")
    values = values.astype(np.int64)
    wrong = (values > 0 if subtracted else values < 0) | (values > 1 << 40) | (values < -(1 << 40))
    if wrong.any():
        at = int(wrong.argmax())
        limits = "0 or less" if subtracted else "0 or more"
        raise ValueError(f"{name} of {gaussian!r} gave {values[at]} at z={z[at]}: {limits}, at most 2^40 in size")
    return values


def last_step(fmt: LNSFormat) -> int:
    """A z from which on sb and db are less than half a code step."""
    steps, _ = steps_in_two(fmt)
    # sb(z) is about K 2^(-z / K) / ln 2, below 1/2 from z = K (log2 K + 1.53) on; db is of the same size there
    return math.ceil(steps * (max(math.log2(steps), 0.0) + 2.0)) + 1


TIE = -(1 << 31)
"""In a table: the value lies half-way, and which way it goes depends on hi."""


class Tables(NamedTuple):
    """sb and db in code steps from z = 0 on, `TIE` where hi has a say; db[0] is not used."""

    sb: NDArray[np.int32]
    db: NDArray[np.int32]
    complete: bool
    """Whether both are 0 from the end of the tables on."""


def has_tables(fmt: LNSFormat) -> bool:
    """Whether sb and db are worth a table: up to 16 bits, of a base at which their steps stay within 2^30."""
    steps, _ = steps_in_two(fmt)
    return fmt.bits <= WIDEST_TABLE and steps * (max(math.log2(steps), 0.0) + 2.0) < 1 << 30


@lru_cache(maxsize=32)
def tables(gaussian: GaussianLog, fmt: LNSFormat) -> Tables:
    """The tables of a format that `has_tables`: for every z that two codes have; the exact ones up to where sb ends."""
    is_exact = gaussian == Exact()
    size = min(last_step(fmt) + 1, 2 * fmt.max_magnitude) if is_exact else 2 * fmt.max_magnitude
    z = np.arange(size, dtype=np.int64)
    out: list[NDArray[Any]] = []
    for subtracted in (False, True):
        part = z[1:] if subtracted else z
        if is_exact:
            # the rounding of hi + sb depends on hi at ties only, by its parity: where both agree there is none
            even, odd = (exact_steps(part, fmt, subtracted, parity=parity) for parity in (0, 1))
            values = np.where(even == odd, even, TIE)
        else:
            values = evaluate(gaussian, part, fmt, subtracted)
        if np.abs(values[values != TIE]).max(initial=0) >= -TIE:  # an approximation can give anything
            raise ValueError(f"{gaussian!r} gave more than 2^31 code steps for {fmt.name}: too many for a table")
        out.append(values.astype(np.int32))
    sb, db = out[0], np.concatenate([np.zeros(1, np.int32), out[1]])
    for table in (sb, db):
        table.flags.writeable = False  # it is shared
    return Tables(sb, db, is_exact and size > last_step(fmt))
