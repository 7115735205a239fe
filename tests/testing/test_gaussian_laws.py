"""The laws of Gaussian logarithms: the exact ones keep them, and every other entry is found."""

import re

import mpmath
import numpy as np
import pytest

from lnsnum import LNSFormat, lns4f1, lns8f3, lns8f5, lns12f6, lns16f10
from lnsnum.gaussian import Cotransformation, Exact, FromFunctions, LinearInterpolation, Mitchell
from lnsnum.strategies import ImplementationError, LawViolation, check_gaussian_laws
from lnsnum.testing.gaussian_laws import GAUSSIAN_LAWS, distances

FORMATS = [
    lns4f1,
    lns8f3,
    lns16f10,
    LNSFormat(5, 0, base=4.0),
    LNSFormat(12, 3, base=1.5),
    LNSFormat(7, 2, base=16.0),
    LNSFormat(14, 0, base=1.001),
    LNSFormat(20, 9),
]


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_the_exact_ones_keep_the_laws(fmt):
    report = check_gaussian_laws(Exact(), fmt, drawn=1000)
    assert (report.laws, report.operations) == (tuple(GAUSSIAN_LAWS), ("sb", "db"))
    assert report.exhaustive == (fmt.bits <= 16)
    if report.exhaustive:
        assert report.inputs == 2 * fmt.max_log + 1


def in_floats(fmt):
    h = np.log(fmt.base)

    def wide(z, f):
        return f(np.exp(-z.astype(np.float64) * h), z.astype(np.float64) * h).astype(z.dtype)

    return {
        "sb": lambda z: wide(z, lambda u, t: np.log1p(u) / h),
        "db": lambda z: wide(z, lambda u, t: np.log(-np.expm1(-t)) / h),
    }


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_of_floats_keep_the_laws(fmt, dtype):
    assert check_gaussian_laws(in_floats(fmt), fmt, dtype=dtype, drawn=1000)
    wrong = in_floats(fmt)
    wrong["db"] = lambda z: in_floats(fmt)["db"](z) - z.dtype.type(0.6 / (1 << fmt.fraction_bits))
    with pytest.raises(LawViolation, match="error_bound: db"):
        check_gaussian_laws(wrong, fmt, dtype=dtype, drawn=1000)


@pytest.mark.parametrize("fmt", [lns8f5, LNSFormat(6, 1, base=4.0), LNSFormat(9, 4, base=1.5)], ids=str)
@pytest.mark.parametrize("operation", ["sb", "db"])
def test_every_other_value_in_a_table_is_found(fmt, operation):
    z = np.arange(2 * fmt.max_log + 1)
    right = np.concatenate([[0], Exact().db(z[1:], fmt)]) if operation == "db" else Exact().sb(z, fmt)
    for at in z[operation == "db" :: 3]:
        for off in (1, -1):
            table = right.copy()
            table[at] += off
            with pytest.raises(LawViolation) as caught:
                check_gaussian_laws(lambda z, table=table: table[z], fmt, operations=[operation])
            (violation,) = [v for v in caught.value.violations if v.law == "error_bound"]
            assert (violation.inputs, violation.result, violation.right) == ((at,), right[at] + off, right[at])
            assert right[at] == _by_mpmath(int(at), fmt, operation)


def _by_mpmath(z, fmt, operation):
    """The nearest step, ties to even."""
    with mpmath.workprec(200):
        steps = mpmath.mpf(1 << fmt.fraction_bits)
        u = mpmath.power(mpmath.mpf(fmt.base), -z / steps)
        exact = steps * mpmath.log(1 + u if operation == "sb" else 1 - u) / mpmath.log(mpmath.mpf(fmt.base))
        return int(mpmath.nint(mpmath.mpf(mpmath.nstr(exact, 40))))


def test_approximations_pass_at_their_own_bounds():
    for gaussian, wrong in ((Mitchell(), 4), (LinearInterpolation(8, table_octaves=2.0), 1), (Cotransformation(0), 2)):
        with pytest.raises(LawViolation):
            check_gaussian_laws(gaussian, lns12f6, laws=["error_bound"])
        assert check_gaussian_laws(gaussian, lns12f6, laws=["error_bound", "sign"], max_ulp=16 * wrong)


def test_what_a_hardware_engineer_has_wrong():
    found = {}
    for name, sb, db in [
        ("a line", lambda z, f: (1 << f) >> (z >> f), lambda z, f: -((1 << f) >> (z >> f))),
        ("swapped", lambda z, f: 0, lambda z, f: 0),
    ]:
        with pytest.raises(LawViolation) as caught:
            check_gaussian_laws(FromFunctions(sb, db), lns8f3)
        found[name] = {(v.law, v.operation) for v in caught.value.violations}
    assert ("error_bound", "sb") in found["a line"]
    assert {("start", "sb"), ("error_bound", "db")} <= found["swapped"]


def test_doubling_tells_of_tables_that_do_not_belong_together():
    """A db of another format: each is a good table, and without the other nothing but the oracle knows."""
    other = LNSFormat(8, 4)
    pair = {"sb": lambda z: Exact().sb(z, lns8f3), "db": lambda z: Exact().db(z, other)}
    with pytest.raises(LawViolation, match=r"doubling: db\(\d+\) = .*; expected sb\(\d+\) \+ db\(\d+\) = "):
        check_gaussian_laws(pair, lns8f3, laws=["doubling"])
    report = check_gaussian_laws({"db": pair["db"]}, lns8f3, laws=["doubling"])
    assert [(r.inputs, r.verdict) for r in report.results] == [(0, "says nothing")]


def test_every_z_is_tried_up_to_16_bits_and_where_db_is_steep():
    for fmt in (lns8f3, lns16f10):
        assert distances(fmt, "sb", 0, 0, 63).tolist() == list(range(2 * fmt.max_log + 1))
        assert distances(fmt, "db", 0, 0, 63).tolist() == list(range(1, 2 * fmt.max_log + 1))
    wide = distances(LNSFormat(32, 23), "db", 0, 0, 63)
    assert set(range(1, 1 << 14)) <= set(wide.tolist())
    assert np.array_equal(wide.astype(np.float64), wide)
    narrow = distances(LNSFormat(32, 23), "db", 1000, 0, 24)
    assert np.array_equal(narrow.astype(np.float32).astype(np.int64), narrow)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z: z[:2], r"sb\(0\) \(law determinism\) returned shape \(2,\) for inputs of shape"),
        (lambda z: z * 1.0, r"sb\(0\) \(law determinism\) returned an array of float64: return one of int64"),
        (lambda z: z + [0][z.max()], r"sb\(1\) \(law determinism\) raised IndexError: .*: return a value for every z"),
    ],
)
def test_what_cannot_be_judged_ends_in_a_sentence(function, message):
    with pytest.raises(ImplementationError, match=message):
        check_gaussian_laws(function, lns4f1, operations=["sb"], takes="arrays")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int32"}, "dtype='int32' is not known: one of int64, float64, float32"),
        ({"max_ulp": 0.25}, "max_ulp=0.25 is out of range: at least 0.5"),
        ({"laws": ["symmetry"]}, "laws has 'symmetry', which is not known: determinism, sign, start"),
        ({"operations": []}, "operations is empty: name at least one of sb, db"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_gaussian_laws(Exact(), lns4f1, **arguments)
