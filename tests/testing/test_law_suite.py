"""The law suite finds what is broken and passes what is not.

It is tried on the library, on a model of arithmetic written here, in float64, and on more than a dozen ways of breaking
it, each of which must be found by the law that it breaks.
"""

import contextlib
import io
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import lnsnum
from lnsnum import LNSFormat, arithmetic, lns4f1, lns6f2, lns8f3, lns8f5, lns16f10, lns32f23, reference
from lnsnum.strategies import LawViolation, check_arithmetic_laws, formats
from lnsnum.testing import spans
from lnsnum.testing.calling import ImplementationError
from lnsnum.testing.laws import LAWS, OPERATIONS
from lnsnum.testing.pairs import chosen_pairs

ROOT = Path(lnsnum.__file__).parent.parent


# ----------------------------------------------------------------------------------- arithmetic that keeps the laws


class Library:
    """lnsnum.arithmetic at log_offset 0."""

    def __init__(self, fmt, operations=tuple(OPERATIONS), **policies):
        for name in operations:
            function = getattr(arithmetic, name)
            setattr(self, name, lambda a, b, f=function: f(a, b, fmt, out_log_offset=0, **policies)[0])


class Model:
    """Arithmetic in float64, far more accurate than any tie of the formats that are tried is close."""

    def __init__(self, fmt):
        self.fmt = fmt
        self.h = math.log(fmt.base) / (1 << fmt.fraction_bits)

    def logs(self, *operands):
        return [(x.astype(np.int64) & self.fmt.max_magnitude) - self.fmt.bias for x in operands]

    def round(self, top, s):
        """E of r = top + s."""
        e = np.rint(top + s).astype(np.int64)
        smallest = np.where(
            top + s < -self.fmt.max_log - math.log(2) / self.h - 1e-9, -self.fmt.bias, -self.fmt.max_log
        )
        return np.where(top + s < -self.fmt.max_log, smallest, e)

    def saturate(self, e):
        return np.minimum(e, self.fmt.max_log)

    def pack(self, e, negative, a, b):
        """The code of E, zero where E is -bias."""
        m = self.saturate(e) + self.fmt.bias
        return m + np.where((m > 0) & negative, self.fmt.sign_bit, 0)

    def minus(self, a, b):
        return [x >= self.fmt.sign_bit for x in (a, b)]

    def nan(self, a, b, codes):
        return np.where((a == self.fmt.nan_code) | (b == self.fmt.nan_code), self.fmt.nan_code, codes)

    def sb(self, gap):
        return np.log1p(np.exp(-gap * self.h)) / self.h

    def db(self, gap):
        return np.log1p(-np.exp(-np.maximum(gap, 1) * self.h)) / self.h

    def cancel(self, codes, where):
        return np.where(where, 0, codes)

    def sign_of_sum(self, a, b):
        return np.where(self.logs(a)[0] >= self.logs(b)[0], *self.minus(a, b))

    def sum(self, a, b):
        (e_a, e_b), (minus_a, minus_b) = self.logs(a, b), self.minus(a, b)
        gap = abs(e_a - e_b)
        e = self.round(np.maximum(e_a, e_b), np.where(minus_a == minus_b, self.sb(gap), self.db(gap)))
        codes = self.cancel(self.pack(e, self.sign_of_sum(a, b), a, b), (minus_a != minus_b) & (gap == 0))
        return np.where(a == 0, b, np.where(b == 0, a, codes))

    def negative(self, a):
        return np.where(a & self.fmt.max_magnitude, a ^ self.fmt.sign_bit, a)

    def add(self, a, b):
        return self.nan(a, b, self.sum(a, b)).astype(self.fmt.dtype)

    def subtract(self, a, b):
        return self.add(a, self.negative(b).astype(self.fmt.dtype))

    def multiply(self, a, b):
        (e_a, e_b), (minus_a, minus_b) = self.logs(a, b), self.minus(a, b)
        codes = self.pack(self.round(e_a + e_b, 0.0), minus_a ^ minus_b, a, b)
        return self.nan(a, b, self.times_zero(np.where((a == 0) | (b == 0), 0, codes), a, b)).astype(self.fmt.dtype)

    def times_zero(self, codes, a, b):
        return codes

    def divide(self, a, b):
        (e_a, e_b), (minus_a, minus_b) = self.logs(a, b), self.minus(a, b)
        codes = np.where(a == 0, 0, self.pack(self.round(e_a - e_b, 0.0), minus_a ^ minus_b, a, b))
        return self.nan(a, b, self.by_zero(codes, b)).astype(self.fmt.dtype)

    def by_zero(self, codes, b):
        return np.where(b == 0, self.fmt.nan_code, codes)


SMALL = [
    lns4f1,
    lns6f2,
    lns8f3,
    lns8f5,
    LNSFormat(3, 0),
    LNSFormat(8, 6),
    LNSFormat(5, 0, base=4.0),
    LNSFormat(7, 3, base=10.0),
]
WIDE = [LNSFormat(10, 4), lns16f10, LNSFormat(12, 5, base=1.5), LNSFormat(20, 9)]


@pytest.mark.parametrize("implementation", [Library, Model])
@pytest.mark.parametrize("fmt", SMALL + WIDE, ids=str)
def test_the_library_and_a_model_keep_the_laws(implementation, fmt):
    report = check_arithmetic_laws(implementation(fmt), fmt)
    assert (report.fmt, report.operations, report.missing) == (fmt, tuple(OPERATIONS), ())
    assert (report.laws, report.exhaustive) == (tuple(LAWS), fmt.bits <= 8)
    assert report.inputs == 4**fmt.bits if report.exhaustive else report.inputs > 5000


@pytest.mark.thorough
@pytest.mark.parametrize(
    "fmt",
    [lns32f23, LNSFormat(32, 30, base=1e300), LNSFormat(32, 0, base=1 + 2.0**-50), LNSFormat(24, 0, base=1.1)],
    ids=str,
)
def test_the_library_keeps_the_laws_in_wide_formats(fmt):
    check_arithmetic_laws(Library(fmt), fmt)


@pytest.mark.parametrize("fmt", [lns6f2, LNSFormat(5, 0, base=16.0), LNSFormat(9, 3)], ids=str)
@pytest.mark.parametrize("overflow", ["saturate", "nan"])
@pytest.mark.parametrize("underflow", ["round", "saturate"])
def test_the_library_keeps_the_laws_under_every_policy(fmt, overflow, underflow):
    policies = {"overflow": overflow, "underflow": underflow}
    check_arithmetic_laws(Library(fmt, **policies), fmt, **policies)
    other = {"overflow": "nan" if overflow == "saturate" else "saturate"}
    with pytest.raises(LawViolation) as caught:
        check_arithmetic_laws(Library(fmt, **policies), fmt, **{**policies, **other})
    assert {violation.law for violation in caught.value.violations} == {"saturation"}


@pytest.mark.thorough
@pytest.mark.parametrize("fmt", [lns6f2, LNSFormat(5, 0, base=4.0), LNSFormat(6, 1, base=16.0)], ids=str)
def test_the_suite_agrees_with_the_reference(fmt):
    """The oracle's own results pass, as tables of all pairs, and any other code in place of one is found."""
    every = range(1 << fmt.bits)
    tables = {
        name: np.array([[getattr(reference, name)(a, b, fmt) for b in every] for a in every], fmt.dtype)
        for name in OPERATIONS
    }

    class Table:
        pass

    table = Table()
    for name in OPERATIONS:
        setattr(table, name, lambda a, b, name=name: tables[name][a, b])
    check_arithmetic_laws(table, fmt)
    random = np.random.default_rng(0)
    for name in OPERATIONS:
        for _ in range(60):
            a, b, wrong = random.integers(1 << fmt.bits, size=3)
            right = tables[name][a, b]
            if wrong != right:
                tables[name][a, b] = wrong
                with pytest.raises(LawViolation, match=rf"{name}\({a}, {b}\) = {wrong}"):
                    check_arithmetic_laws(table, fmt, operations=[name])
                tables[name][a, b] = right


# --------------------------------------------------------------------------------------- arithmetic that breaks them


class LeavesALittle(Model):
    """x - x is the smallest: the table of the difference has no entry for it."""

    def cancel(self, codes, where):
        return np.where(where, 1, codes)


class Wraps(Model):
    """A carry out of the magnitude is lost."""

    def saturate(self, e):
        return ((e + self.fmt.bias) & self.fmt.max_magnitude) - self.fmt.bias


class CarriesIntoTheSign(Model):
    """A carry out of the magnitude flips the sign."""

    def saturate(self, e):
        return e


class ForgetsNaN(Model):
    """NaN is taken for a number."""

    def nan(self, a, b, codes):
        return np.where(a == self.fmt.nan_code, codes & self.fmt.max_magnitude, codes)


class DividesByZero(Model):
    """x / 0 is the greatest, as in formats with an infinity."""

    def by_zero(self, codes, b):
        return np.where(b == 0, self.fmt.max_magnitude, codes)


class ZeroIsSmall(Model):
    """Zero is taken for a number just below the smallest."""

    def sum(self, a, b):
        return super().sum(np.where(a == 0, 1, a), np.where(b == 0, 1, b))


class KeepsTimesZero(Model):
    """0 x is the smallest."""

    def times_zero(self, codes, a, b):
        return np.where((a == 0) ^ (b == 0), 1, codes)


class Truncates(Model):
    """Rounds towards zero."""

    def round(self, top, s):
        return super().round(np.floor(top + s + 1e-9), 0.0)


class RoundsUp(Model):
    """Rounds towards +infinity: up for positive sums, down for negative ones."""

    def pack(self, e, negative, a, b):
        return super().pack(np.where(negative & (e > -self.fmt.max_log), e - (b & 1 & a), e), negative, a, b)


class TakesTheFirstSign(Model):
    """The sum has the sign of a, whichever is greater."""

    def sign_of_sum(self, a, b):
        return self.minus(a, b)[0]


class Mitchell(Model):
    """log2(1 + x) = x, Mitchell's straight line, without a correction."""

    def sb(self, gap):
        return np.exp(-gap * self.h) * math.log(2) / self.h


class CoarseTable(Model):
    """A table whose entries each serve 8 gaps, the last ones read first: within 5 ulp, but it dips."""

    def sb(self, gap):
        return super().sb((gap & ~7) + 7 - (gap & 7))


class Flushes(Model):
    """What is below the smallest is zero."""

    def round(self, top, s):
        return np.where(top + s < -self.fmt.max_log, -self.fmt.bias, super().round(top, s))


class PrefersTheFirst(Model):
    """Rounds up where a is the greater and down where b is."""

    def sum(self, a, b):
        above = self.logs(a)[0] > self.logs(b)[0]
        same = ~((a ^ b) & self.fmt.sign_bit).astype(bool) & (a != 0) & (b != 0)
        codes = super().sum(a, b)
        m = codes & self.fmt.max_magnitude
        return np.where(above & same & (m < self.fmt.max_magnitude), codes + 1, codes)


class DividesByOne(Model):
    """The bias is off by one in the quotient."""

    def divide(self, a, b):
        return super().divide(a, np.where(b & self.fmt.max_magnitude == 1, b, b - (b > 0) * (b != self.fmt.nan_code)))


class ForgetsToNegate(Model):
    """a - b is a + b where b is negative."""

    def subtract(self, a, b):
        return self.add(a, np.where(self.minus(a, b)[1], b, self.negative(b)).astype(self.fmt.dtype))


class SaturatesToNaN(Model):
    """What is beyond the greatest is NaN."""

    def pack(self, e, negative, a, b):
        return np.where(e > self.fmt.max_log, self.fmt.nan_code, super().pack(e, negative, a, b))


class OneWrongEntry(Model):
    """One gap of the table of differences is off by one."""

    def db(self, gap):
        return super().db(gap) + (gap == 5)


BROKEN = [
    (LeavesALittle, {"inverse"}, {"add", "subtract"}, {}),
    (Wraps, {"saturation"}, {"add", "multiply", "divide"}, {}),
    (CarriesIntoTheSign, {"saturation"}, {"add", "multiply", "divide"}, {}),
    (ForgetsNaN, {"nan"}, {"add", "multiply", "divide"}, {}),
    (DividesByZero, {"nan"}, {"divide"}, {}),
    (ZeroIsSmall, {"identity", "zero"}, {"add", "subtract"}, {}),
    (KeepsTimesZero, {"zero"}, {"multiply"}, {}),
    (Truncates, {"error_bound"}, {"add", "subtract"}, {}),
    (RoundsUp, {"sign_symmetry"}, {"multiply", "add"}, {"max_ulp": 2}),
    (TakesTheFirstSign, {"error_bound", "commutativity"}, {"add", "subtract"}, {}),
    (Mitchell, {"error_bound"}, {"add", "subtract"}, {}),
    (CoarseTable, {"monotonicity"}, {"add"}, {"max_ulp": 8}),
    (Flushes, {"underflow"}, {"multiply", "divide"}, {}),
    (PrefersTheFirst, {"commutativity"}, {"add"}, {"max_ulp": 2}),
    (DividesByOne, {"identity", "inverse", "error_bound"}, {"divide"}, {}),
    (ForgetsToNegate, {"inverse", "commutativity"}, {"subtract"}, {}),
    (SaturatesToNaN, {"saturation"}, {"add", "multiply"}, {}),
    (OneWrongEntry, {"error_bound"}, {"add", "subtract"}, {}),
]


@pytest.mark.parametrize("fmt", [lns8f5, LNSFormat(12, 7)], ids=str)
@pytest.mark.parametrize(
    ("broken", "laws", "operations", "arguments"), BROKEN, ids=lambda x: getattr(x, "__name__", "")
)
def test_broken_arithmetic_is_found_by_the_law_it_breaks(broken, laws, operations, arguments, fmt):
    with pytest.raises(LawViolation) as caught:
        check_arithmetic_laws(broken(fmt), fmt, **arguments)
    found = {(violation.law, violation.operation) for violation in caught.value.violations}
    assert {law for law, _ in found} >= laws
    for law in laws:
        assert {operation for broken_law, operation in found if broken_law == law} & operations
    assert {operation for _, operation in found} <= operations | {"subtract", "multiply", "divide", "add"}
    for violation in caught.value.violations:
        own = getattr(broken(fmt), violation.operation)
        assert own(*(np.array([x], fmt.dtype) for x in violation.inputs))[0] == violation.result
        assert str(violation) == violation.line
        a, b = violation.inputs
        assert f"{violation.law}: {violation.operation}({a}, {b}) = {violation.result}" in str(violation)
    assert str(caught.value).splitlines() == [violation.line for violation in caught.value.violations]


@pytest.mark.parametrize("fmt", [lns8f5, LNSFormat(12, 7)], ids=str)
def test_only_the_laws_that_are_broken_are_reported(fmt):
    for broken, expected in [
        (LeavesALittle, {"inverse", "commutativity", "sign_symmetry", "monotonicity"}),
        (KeepsTimesZero, {"zero", "identity", "sign_symmetry", "monotonicity"}),
        (DividesByZero, {"nan", "sign_symmetry"}),
        (SaturatesToNaN, {"saturation"}),
        (Flushes, {"underflow"}),
    ]:
        with pytest.raises(LawViolation) as caught:
            check_arithmetic_laws(broken(fmt), fmt)
        assert {violation.law for violation in caught.value.violations} <= expected, broken


def test_an_approximation_passes_at_its_own_bound():
    worst = math.ceil(32 * 0.0861)  # Mitchell's line is at most 0.0861 octaves off
    with pytest.raises(LawViolation, match=r"error_bound: add\(\d+, \d+\).*; it is off by [\d.]+ ulp"):
        check_arithmetic_laws(Mitchell(lns8f5), lns8f5)
    assert check_arithmetic_laws(Mitchell(lns8f5), lns8f5, max_ulp=worst + 0.5)
    assert check_arithmetic_laws(Truncates(LNSFormat(12, 7)), LNSFormat(12, 7), operations=["add"], max_ulp=1)


def test_ties_go_to_the_even_code():
    fmt = LNSFormat(5, 0, base=4.0)

    class TiesUp(Model):
        def round(self, top, s):
            return np.where(np.abs(s - 0.5) < 1e-9, top + 1, super().round(top, s))

    with pytest.raises(LawViolation, match=r"error_bound: add\(8, 8\) = 9, that is 1 \+ 1 = 4; expected 8 \(1\)"):
        check_arithmetic_laws(TiesUp(fmt), fmt)
    assert check_arithmetic_laws(TiesUp(fmt), fmt, max_ulp=Fraction(1, 2) + Fraction(1, 1000))


def test_counterexamples_of_wide_formats_are_made_simple():
    class ForgetsTheSign(Model):
        def multiply(self, a, b):
            return super().multiply(a, b & self.fmt.max_magnitude)

    with pytest.raises(LawViolation) as caught:
        check_arithmetic_laws(ForgetsTheSign(lns16f10), lns16f10, laws=["error_bound"])
    one, minus_one = lns16f10.bias, lns16f10.bias + lns16f10.sign_bit
    assert [(*v.inputs, v.result) for v in caught.value.violations] == [(one, minus_one, one)]


def test_codes_outside_the_format_break_a_law():
    class Overflows(Model):
        def saturate(self, e):
            return e

    fmt = lns6f2
    with pytest.raises(
        LawViolation, match=r"range: multiply\(\d+, \d+\) = (6[4-9]|[7-9]\d|1\d\d), .* = no code; expected a code"
    ):
        check_arithmetic_laws(Overflows(fmt), fmt, laws=["range"], operations=["multiply"])


# ----------------------------------------------------------------------------------------------- what the suite says


def test_missing_operations_are_reported():
    report = check_arithmetic_laws(Library(lns6f2, ("multiply", "divide")), "lns6f2")
    assert report.operations == ("multiply", "divide")
    assert report.missing == ("add", "subtract")
    assert str(report) == (
        "lns6f2: multiply, divide kept 12 laws on 4096 inputs (all); not there, so not tried: add, subtract"
    )


def test_a_module_is_an_implementation_too():
    class Namespace:
        multiply = staticmethod(Library(lns6f2).multiply)

    assert check_arithmetic_laws(Namespace, lns6f2).operations == ("multiply",)


def test_operations_and_laws_can_be_chosen():
    report = check_arithmetic_laws(Wraps(lns6f2), lns6f2, operations=["add"], laws=["identity", "inverse"])
    assert (report.operations, report.missing, report.laws) == (("add",), (), ("identity", "inverse"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"operations": ["fma"]},
            ValueError,
            "operations has 'fma', which is not known: add, subtract, multiply, divide",
        ),
        ({"operations": "add"}, TypeError, "operations='add' is a string: give a list of names"),
        ({"operations": []}, ValueError, "operations is empty"),
        (
            {"laws": ["associativity"]},
            ValueError,
            "laws has 'associativity', which is not known: range, determinism, nan",
        ),
        (
            {"laws": ["nan", "sign_symmetry"], "rounding": "up"},
            ValueError,
            "laws has 'sign_symmetry', which does not hold under rounding='up': range, determinism, nan",
        ),
        ({"rounding": "up", "max_ulp": 0.5}, ValueError, "max_ulp=0.5 is out of range: at least 1"),
        ({"rounding": "even"}, ValueError, "rounding='even' is not known"),
        ({"max_ulp": 0.4}, ValueError, "max_ulp=0.4 is out of range: at least 0.5"),
        ({"max_ulp": math.nan}, ValueError, "max_ulp=nan is out of range"),
        ({"overflow": "wrap"}, ValueError, "overflow='wrap' is not known"),
        ({"underflow": "flush"}, ValueError, "underflow='flush' is not known"),
    ],
)
def test_bad_arguments_of_the_suite_are_refused(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        check_arithmetic_laws(Library(lns6f2), lns6f2, **arguments)


def test_implementations_without_operations_are_refused():
    with pytest.raises(TypeError, match="object has no method add, subtract, multiply, divide: give it one"):
        check_arithmetic_laws(object(), lns6f2)
    with pytest.raises(TypeError, match="Library has no method add"):
        check_arithmetic_laws(Library(lns6f2, ("multiply",)), lns6f2, operations=["add"])


@pytest.mark.parametrize("fmt", [lns6f2, lns16f10], ids=str)
@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda a, b: (a, 0), r"add\(\d+, \d+\) \(law range\) returned a tuple: return one array of uint"),
        (lambda a, b: a.astype(np.int64), r"add\(\d+, \d+\) \(law range\) returned an array of int64: return one of"),
        (lambda a, b: a[:1], r"add\(\d+, \d+\) \(law range\) returned shape \(1,\) for inputs of shape"),
    ],
)
def test_results_of_a_wrong_type_or_shape_are_refused(fmt, result, message):
    class Wrong:
        add = staticmethod(result)

    with pytest.raises(ImplementationError, match=message):
        check_arithmetic_laws(Wrong, fmt)


def test_the_operands_are_the_implementation_s_own():
    class Scribbles(Model):
        def multiply(self, a, b):
            out = super().multiply(a, b)
            a[:] = b[:] = 0
            return out

    assert check_arithmetic_laws(Scribbles(lns6f2), lns6f2)
    assert check_arithmetic_laws(Scribbles(lns16f10), lns16f10)


@settings(max_examples=5, deadline=None)
@given(formats(3, 6, bases=[2.0, 1.5, 10.0]))
def test_the_suite_can_be_run_inside_a_property(fmt):
    check_arithmetic_laws(Library(fmt), fmt)


def test_the_output_in_the_docs_is_real():
    page = (ROOT / "docs" / "testing.md").read_text()
    blocks = re.findall(r"^```(python|text)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    namespace, printed, compared = {}, "", 0
    for language, text in blocks:
        if language == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(text, "testing.md", "exec"), namespace)
            printed = output.getvalue()
        else:
            assert text == printed
            compared += 1
    assert compared == 7


@pytest.mark.parametrize("fmt", [lns4f1, LNSFormat(4, 0, base=4.0), LNSFormat(4, 1, base=16.0)], ids=str)
@pytest.mark.parametrize("rounding", ["nearest", "toward_zero", "up", "down"])
@pytest.mark.parametrize("policies", [{}, {"overflow": "nan", "underflow": "saturate"}], ids=["", "policies"])
def test_the_suite_agrees_with_the_reference_in_every_mode(fmt, rounding, policies):
    """The oracle's own results pass, and any other code in place of one is found."""
    every = range(1 << fmt.bits)
    modes = {"rounding": rounding, **policies}
    for name in OPERATIONS:
        oracle = getattr(reference, name)
        table = np.array([[oracle(a, b, fmt, **modes) for b in every] for a in every], fmt.dtype)
        check_arithmetic_laws(lambda a, b, t=table: t[a, b], fmt, operations=[name], **modes)
        for a, b, turn in np.random.default_rng(1).integers(0, len(every), (8, 3)):
            wrong = table.copy()
            wrong[a, b] = table[a, b] ^ (turn or 1)
            with pytest.raises(LawViolation, match=rf"{name}\({a}, {b}\) = {wrong[a, b]},"):
                check_arithmetic_laws(lambda x, y, t=wrong: t[x, y], fmt, operations=[name], **modes)


@pytest.mark.parametrize("rounding", ["stochastic_log", "stochastic_value"])
def test_under_a_stochastic_mode_both_neighbours_are_right(rounding):
    for fmt in (lns6f2, LNSFormat(11, 4)):
        for word in (0, 1 << 31, (1 << 32) - 1):
            bits = np.uint32(word)
            modes = {"rounding": rounding, "random_bits": bits, "out_log_offset": 0}
            check_arithmetic_laws(
                lambda a, b, m=modes: arithmetic.add(a, b, fmt, **m)[0],  # noqa: B023
                fmt,
                operations=["add"],
                rounding=rounding,
                drawn_pairs=0,
            )
        with pytest.raises(LawViolation, match="error_bound"):
            check_arithmetic_laws(
                lambda a, b: np.where(a > 0, a - (a > 1), b).astype(fmt.dtype),  # noqa: B023
                fmt,
                operations=["add"],
                rounding=rounding,
                drawn_pairs=0,
            )


SPARES = [Fraction(0), Fraction(1, 2), Fraction(7, 3)]


@pytest.mark.parametrize("base", [2.0, 1.5, 4.0, 1e300, 1 + 2.0**-40])
@pytest.mark.parametrize("spare", SPARES, ids=str)
def test_what_float64_decides_is_what_mpmath_decides(base, spare):
    """At gaps of every size, those at which s is a whole number and those at which it is tiny among them."""
    random = np.random.default_rng(0)
    for bits, fraction_bits in ((8, 3), (16, 10), (32, 23), (32, 0)):
        fmt = LNSFormat(bits, fraction_bits, base=base)
        size = random.integers(1, bits + 1, 60)
        gaps = np.unique(np.concatenate([random.integers(1, 1 << size), 1 << np.arange(bits - 1)]))
        for direction in (1, -1):
            rows = spans.spans(fmt, spare, gaps, np.full_like(gaps, direction))
            for gap, *row in zip(gaps, *rows[1:], strict=True):
                assert tuple(row) == spans.exact_span(fmt, spare, int(gap), direction)[1:]


def test_every_gap_and_every_edge_is_tried_up_to_16_bits():
    fmt = LNSFormat(11, 5)
    a, b, _ = (np.concatenate(side) for side in zip(*chosen_pairs(fmt, "add", 0, 0), strict=True))
    m_a, m_b = a & fmt.max_magnitude, b & fmt.max_magnitude
    same = (a ^ b) < fmt.sign_bit
    numbers = (m_a > 0) & (m_b > 0)
    for which in (same, ~same):
        assert set(abs(m_a - m_b)[numbers & which]) == set(range(2 * fmt.max_log + 1))
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    ends = [1, 2, 3, 12, fmt.max_magnitude - 12, fmt.max_magnitude - 1, fmt.max_magnitude]
    assert {(x + s, y + t) for x in ends for y in ends for s in (0, fmt.sign_bit) for t in (0, fmt.sign_bit)} <= pairs
    for special in (0, fmt.nan_code, fmt.bias):
        assert {(code, special) for code in range(1 << fmt.bits)} <= pairs
        assert {(special, code) for code in range(1 << fmt.bits)} <= pairs
    assert {(code, code) for code in range(1 << fmt.bits)} <= pairs
