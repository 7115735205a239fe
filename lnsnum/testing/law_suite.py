"""The laws of `lnsnum.testing.laws`, tried on an implementation of arithmetic on codes: a kernel, a table, a model of
an adder.

Formats of few bits are tried with every pair of codes. Of wider ones Hypothesis draws magnitudes, gaps between them and
distances from the edges, and every combination of these, with all signs and specials, is one batch of pairs. A law that
is broken is told with the simplest operands that break it. docs/testing.md tells how to use it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lnsnum.format import LNSFormat, Overflow, Underflow, check_choice
from lnsnum.testing.laws import LAWS, OPERATIONS, Batch, Call, Finding, Ints, Rules

WIDEST_EXHAUSTIVE = 8
"""Formats up to this many bits are tried with every pair of codes."""

WIDEST_WITH_EVERY_GAP = 16
"""Of formats up to this many bits, sums are tried with every gap between the logarithms of the operands."""

EXAMPLES = 200
"""Batches of pairs, some hundred each, that a wider format is tried with."""


# ------------------------------------------------------------------------------------------------- what is reported


@dataclasses.dataclass(frozen=True)
class Violation:
    """The simplest operands that were found to break a law, and one line that tells all about it."""

    law: str
    operation: str
    a: int
    b: int
    result: int
    line: str

    def __str__(self) -> str:
        return self.line


class LawViolation(AssertionError):  # noqa: N818 (it is a failed assertion, not an error of ours)
    """Arithmetic that breaks laws: `violations` has one for each law and operation, the message a line for each."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__("\n".join(violation.line for violation in violations))
        self.violations = violations


@dataclasses.dataclass(frozen=True)
class LawReport:
    """What was tried where no law was broken, and what was not.

    Args:
        fmt: the format.
        operations: what was tried.
        missing: the operations that the implementation lacks: nothing is said about them.
        laws: the laws that were tried.
        pairs: how many pairs of operands each operation was tried with.
        exhaustive: whether these are all pairs that there are.
    """

    fmt: LNSFormat
    operations: tuple[str, ...]
    missing: tuple[str, ...]
    laws: tuple[str, ...]
    pairs: int
    exhaustive: bool

    def __str__(self) -> str:
        which = "all" if self.exhaustive else "drawn"
        lacks = f"; not there, so not tried: {', '.join(self.missing)}" if self.missing else ""
        return (
            f"{self.fmt.name}: {', '.join(self.operations)} kept {len(self.laws)} laws "
            f"on {self.pairs} pairs ({which}){lacks}"
        )


# ---------------------------------------------------------------------------------------------------- the simplest


def _complexity(batch: Batch) -> Ints:
    """How far the operands are from 1, then how many are negative: simple pairs have small keys."""
    fmt = batch.fmt
    logs = [np.where(x & fmt.max_magnitude, (x & fmt.max_magnitude) - fmt.bias, 0) for x in (batch.a, batch.b)]
    signs = [(x >= fmt.sign_bit).astype(np.int64) for x in (batch.a, batch.b)]
    return 4 * (np.abs(logs[0]) + np.abs(logs[1])) + signs[0] + signs[1] + 2 * (batch.steps > 1)


_Case = tuple[int, int, int]


def _simplest(batch: Batch, law: str) -> tuple[int, _Case, Finding, int] | None:
    """The simplest pair of the batch that breaks the law: its key, itself, and where it was found."""
    best = None
    for finding in LAWS[law](batch):
        where = np.flatnonzero(finding.bad)
        if where.size:
            keys = _complexity(batch)[where]
            i, key = int(where[keys.argmin()]), int(keys.min())
            if best is None or key < best[0]:
                best = key, (int(batch.a[i]), int(batch.b[i]), int(batch.steps[i])), finding, i
    return best


def _simpler(case: _Case, fmt: LNSFormat) -> list[_Case]:
    """Cases to try next: each operand nearer to 1, both together, positive, with a smaller step."""
    a, b, step = case
    sign_a, sign_b = a & fmt.sign_bit, b & fmt.sign_bit
    e_a, e_b = (a & fmt.max_magnitude) - fmt.bias, (b & fmt.max_magnitude) - fmt.bias
    moves: set[int] = set()
    for e in (e_a, e_b, e_a - e_b, e_a + e_b):
        moves |= {sign * (abs(e) >> k) for k in range(abs(e).bit_length()) for sign in (1, -1)}
    logs = {(e_a - t, e_b) for t in moves} | {(e_a, e_b - t) for t in moves}
    logs |= {(e_a - t, e_b - t) for t in moves} | {(e_a - t, e_b + t) for t in moves} | {(e_a, e_b)}
    return [
        (x + fmt.bias + s if a & fmt.max_magnitude else a, y + fmt.bias + t if b & fmt.max_magnitude else b, n)
        for x, y in logs
        if max(abs(x), abs(y)) <= fmt.max_log or (x, y) == (e_a, e_b)
        for s, t in {(sign_a, sign_b), (0, 0), (0, sign_b), (sign_a, 0)}
        for n in {step, step >> 1 or 1, 1}
        if abs(x) <= fmt.max_log or not a & fmt.max_magnitude
        if abs(y) <= fmt.max_log or not b & fmt.max_magnitude
    ]


# --------------------------------------------------------------------------------------------------- what is tried


def _all_pairs(fmt: LNSFormat) -> tuple[Ints, Ints]:
    codes = np.arange(1 << fmt.bits, dtype=np.int64)
    a, b = np.meshgrid(codes, codes, indexing="ij")
    return a.reshape(-1), b.reshape(-1)


def _spread(fmt: LNSFormat, operation: str, logs: list[int], gaps: list[int]) -> tuple[Ints, Ints]:
    """Pairs of every sign: of the given logs; a gap apart (sums) or a gap from an edge of the range; and specials."""
    e, g = np.array(logs, np.int64), np.array(gaps, np.int64)
    first, second = (x.reshape(-1) for x in np.meshgrid(e, e))
    base, gap = (x.reshape(-1) for x in np.meshgrid(e, np.concatenate([g, -g])))
    if operation in ("add", "subtract"):
        pairs = [(first, second), (base, base + gap), (fmt.max_log - abs(gap), 0 * gap + fmt.max_log)]
        pairs += [(abs(gap) - fmt.max_log, 0 * gap - fmt.max_log)]
    else:
        turn = -1 if operation == "multiply" else 1
        pairs = [(first, second), *((base, turn * (base - edge) + gap) for edge in (fmt.max_log, -fmt.max_log))]
        steps_to_half = round(min(fmt.codes_per_octave, 2.0**40))
        pairs += [(base, turn * (base + fmt.max_log + steps_to_half) + gap)]
    e_a = np.concatenate([x for x, _ in pairs])
    e_b = np.concatenate([y for _, y in pairs])
    m_a, m_b = (np.clip(x, -fmt.max_log, fmt.max_log) + fmt.bias for x in (e_a, e_b))
    sign = fmt.sign_bit
    a = np.concatenate([m_a, m_a, m_a + sign, m_a + sign])
    b = np.concatenate([m_b, m_b + sign, m_b, m_b + sign])
    x = np.concatenate([e + fmt.bias, e + fmt.bias + sign])
    one, top = fmt.bias, fmt.max_magnitude
    special = np.array([0, fmt.nan_code, one, one + sign, 1, 1 + sign, top, top + sign], np.int64)
    grid_a, grid_b = (y.reshape(-1) for y in np.meshgrid(np.concatenate([x, special]), special))
    return np.concatenate([a, grid_a, grid_b, x, x]), np.concatenate([b, grid_b, grid_a, x, x ^ sign])


def _every_gap(fmt: LNSFormat) -> Ints:
    """Pairs of equal and of opposite signs, one for each gap: the sum depends on little else."""
    gap = np.arange(2 * fmt.max_log + 1)
    m_a = fmt.bias + (gap + 1) // 2
    same = np.stack([m_a, m_a - gap, np.ones_like(gap)], axis=1)
    return np.concatenate([same, same + np.array([0, fmt.sign_bit, 0])])


def _batches(fmt: LNSFormat) -> st.SearchStrategy[tuple[list[int], list[int], int]]:
    """Logs, gaps and a step: gaps and steps of every size, for it is their logarithm that matters."""
    logs = st.integers(-fmt.max_log, fmt.max_log)
    sizes = st.integers(0, fmt.bits - 1).flatmap(lambda k: st.integers((1 << k) - 1, (1 << (k + 1)) - 2))
    return st.tuples(
        st.lists(logs, min_size=1, max_size=4),
        st.lists(sizes, min_size=1, max_size=4),
        sizes.map(lambda step: max(step, 1)),
    )


def _checked_call(implementation: object, fmt: LNSFormat) -> Call:
    """The implementation's methods on arrays of fmt.dtype, their results checked and widened."""

    def call(operation: str, a: Ints, b: Ints) -> Ints:
        out = getattr(implementation, operation)(a.astype(fmt.dtype), b.astype(fmt.dtype))
        if not isinstance(out, np.ndarray):
            raise TypeError(f"{operation} returned a {type(out).__name__}: return one array of codes, {fmt.dtype}")
        if out.dtype != fmt.dtype:
            raise TypeError(f"{operation} returned an array of {out.dtype}: the codes of {fmt.name} are {fmt.dtype}")
        if out.shape != a.shape:
            raise ValueError(f"{operation} returned shape {out.shape} for operands of shape {a.shape}: return the same")
        return out.astype(np.int64)

    return call


def _choose(what: str, given_names: tuple[str, ...] | list[str] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(given_names, str):
        raise TypeError(f"{what}={given_names!r} is a string: give a list of names")
    chosen = known if given_names is None else tuple(given_names)
    for name in chosen:
        if name not in known:
            raise ValueError(f"{what} has {name!r}, which is not known: {', '.join(known)}")
    if not chosen:
        raise ValueError(f"{what} is empty: name at least one of {', '.join(known)}")
    return chosen


def check_arithmetic_laws(
    implementation: object,
    fmt: LNSFormat | str,
    *,
    max_ulp: float | Fraction = 0.5,
    operations: tuple[str, ...] | list[str] | None = None,
    laws: tuple[str, ...] | list[str] | None = None,
    overflow: Overflow = "saturate",
    underflow: Underflow = "round",
    max_examples: int = EXAMPLES,
) -> LawReport:
    """Try the laws of the number system on arithmetic of your own, for instance a model of a hardware adder.

    All laws are tried on all operations, and each law that an operation breaks is reported once, with the simplest
    operands that were found. Formats up to 8 bits are tried with every pair of codes; wider ones with pairs that
    Hypothesis draws, among them the hard ones: near cancellation, near the edges, specials.

    Args:
        implementation: an object (or module) with some of the methods `add`, `subtract`, `multiply`, `divide`. Each
            takes two arrays of codes, of fmt.dtype and of one shape, all at log_offset 0, and returns such an array.
        fmt: the format, or its name.
        max_ulp: how far from the exact result one may be, in code steps. 0.5 asks for the code that is right under
            nearest, ties to even; more allows every code in that distance, and near half the smallest both zero and
            the smallest.
        operations: which to try; all that the implementation has unless said otherwise.
        laws: which to try, names from `LAWS`; an approximation may lack `monotonicity` by design.
        overflow, underflow: what is asked beyond the range, as for `lnsnum.encode`.
        max_examples: how many batches Hypothesis draws, each of some hundred pairs.

    Returns:
        LawReport: what was tried, and which operations the implementation lacks.

    Raises:
        LawViolation: an AssertionError; a line for each law and operation, and `violations` with the operands.
        TypeError: where the implementation has none of the operations, or one returns no array of fmt.dtype.
        ValueError: where one returns another shape, or an argument is not known.

    >>> import numpy as np
    >>> class Multiplier:
    ...     def multiply(self, a, b):  # forgets the sign of b
    ...         m_a, m_b = (a & 7).astype(int), (b & 7).astype(int)
    ...         return np.where(m_a * m_b == 0, 0, np.clip(m_a + m_b - 4, 1, 7) | a & 8).astype(np.uint8)
    >>> try:
    ...     check_arithmetic_laws(Multiplier(), "lns4f1", laws=["identity"])
    ... except LawViolation as error:
    ...     print(error)
    identity: multiply(4, 12) = 4, that is 1 * (-1) = 1; expected 12 (-1)
    """
    fmt = LNSFormat.of(fmt)
    check_choice("overflow", overflow, Overflow)
    check_choice("underflow", underflow, Underflow)
    if not 0.5 <= max_ulp <= fmt.max_magnitude:
        raise ValueError(f"max_ulp={max_ulp!r} is out of range: at least 0.5, which no rounding can better")
    have = tuple(name for name in OPERATIONS if callable(getattr(implementation, name, None)))
    wanted = _choose("operations", operations, tuple(OPERATIONS))
    tried_laws = _choose("laws", laws, tuple(LAWS))
    lacking = [name for name in wanted if name not in have]
    if not have or (operations is not None and lacking):
        raise TypeError(
            f"{type(implementation).__name__} has no method {', '.join(lacking)}: "
            "give it one that takes two arrays of codes"
        )
    tried = tuple(name for name in wanted if name in have)
    call = _checked_call(implementation, fmt)
    rules = Rules(fmt, Fraction(max_ulp), overflow, underflow)
    exhaustive = fmt.bits <= WIDEST_EXHAUSTIVE
    examine = _examine_all if exhaustive else _search(max_examples)
    violations, pairs = examine(call, tried, tried_laws, rules)
    if violations:
        raise LawViolation(tuple(violations[key] for key in sorted(violations)))
    return LawReport(fmt, tried, tuple(n for n in OPERATIONS if n not in have), tried_laws, pairs, exhaustive)


_Found = dict[tuple[int, int], Violation]
_Examine = Callable[[Call, tuple[str, ...], tuple[str, ...], Rules], tuple[_Found, int]]


def _violation(batch: Batch, law: str, finding: Finding, i: int) -> Violation:
    a, b, out = int(batch.a[i]), int(batch.b[i]), int(batch.out[i])
    line = f"{law}: {batch.equation(a, b, out)}; expected {finding.expected(i)}"
    return Violation(law, batch.operation, a, b, out, line)


def _place(law: str, operation: str) -> tuple[int, int]:
    return list(LAWS).index(law), list(OPERATIONS).index(operation)


def _examine_all(call: Call, operations: tuple[str, ...], laws: tuple[str, ...], rules: Rules) -> tuple[_Found, int]:
    """Every pair: one call of each operation fills a table, and the laws look into it."""
    a, b = _all_pairs(rules.fmt)
    side = 1 << rules.fmt.bits
    found: _Found = {}
    for operation in operations:
        table = call(operation, a, b).reshape(side, side)
        batch = Batch(lambda _, x, y, t=table: t[x, y], operation, a, b, np.ones_like(a), rules)  # type: ignore[misc]
        for law in laws:
            worst = _simplest(batch, law)
            if worst is not None:
                found[_place(law, operation)] = _violation(batch, law, *worst[2:])
    return found, a.size


def _search(max_examples: int) -> _Examine:
    def examine(call: Call, operations: tuple[str, ...], laws: tuple[str, ...], rules: Rules) -> tuple[_Found, int]:
        """Pairs that Hypothesis draws; of those that break a law, the simplest is made simpler still."""
        fmt = rules.fmt
        simplest: dict[tuple[str, str], tuple[int, _Case]] = {}
        pairs = 0

        def as_batch(operation: str, cases: Ints | list[_Case]) -> Batch:
            a, b, steps = np.array(cases, np.int64).T
            return Batch(call, operation, a, b, steps, rules)

        def try_batch(operation: str, cases: Ints) -> None:
            nonlocal pairs
            pairs += len(cases)
            batch = as_batch(operation, cases)
            for law in laws:
                worst = _simplest(batch, law)
                known = simplest.get((law, operation))
                if worst is not None and (known is None or worst[0] < known[0]):
                    simplest[law, operation] = worst[:2]

        @settings(
            max_examples=max_examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(_batches(fmt))
        def draw(batch: tuple[list[int], list[int], int]) -> None:
            logs, gaps, step = batch
            for operation in operations:
                a, b = _spread(fmt, operation, logs, gaps)
                try_batch(operation, np.stack([a, b, np.where(np.arange(a.size) % 2, step, 1)], axis=1))

        for operation in operations:
            if operation in ("add", "subtract") and fmt.bits <= WIDEST_WITH_EVERY_GAP:
                try_batch(operation, _every_gap(fmt))
        draw()
        found: _Found = {}
        for (law, operation), (key, case) in simplest.items():
            while True:
                worst = _simplest(as_batch(operation, _simpler(case, fmt)), law)
                if worst is None or worst[0] >= key:
                    break
                key, case = worst[:2]
            batch = as_batch(operation, [case])
            worst = _simplest(batch, law)
            if worst is None:
                raise AssertionError(f"{operation} gave different results for the same operands: {case[:2]}")
            found[_place(law, operation)] = _violation(batch, law, *worst[2:])
        return found, pairs // len(operations)

    return examine
