"""The laws of quantizers: those of ml_dtypes and torch, those of codes, and what is wrong with others."""

import re

import ml_dtypes
import numpy as np
import pytest

from lnsnum import LNSFormat, decode, encode, lns4f1, lns8f3, lns10f5
from lnsnum.strategies import ImplementationError, LawViolation, check_quantizer_laws
from lnsnum.testing.quantizer_grid import Grid
from lnsnum.testing.quantizer_laws import QUANTIZER_LAWS

FLOATS = [
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3",
    "float8_e3m4",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e4m3b11fnuz",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "float4_e2m1fn",
]


def cast(dtype):
    def quantize(x):
        with np.errstate(all="ignore"):
            return x.astype(dtype).astype(x.dtype)

    return quantize


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_casts_of_ml_dtypes_keep_the_laws(name, dtype):
    kept = np.dtype(getattr(ml_dtypes, name))
    report = check_quantizer_laws(cast(kept), dtype=dtype, drawn=1000)
    assert report.laws == tuple(QUANTIZER_LAWS)
    numbers, ties, specials = report.notes
    every = np.arange(1 << 8, dtype=np.uint8).view(kept).astype(np.float64)
    finite = np.unique(every[np.isfinite(every)])
    assert numbers.startswith(f"{finite.size} numbers, {np.dtype(dtype).type(finite[0])} to")
    assert ties == "ties go to even"
    assert re.search(r"NaN becomes (nan|-?0\.0)", specials)
    assert report.exhaustive == (dtype == "float16")


def test_a_cast_that_rounds_twice_is_found():
    """ml_dtypes goes from float64 by way of float32: just above a tie it gives what is even."""
    with pytest.raises(LawViolation, match=r"rounding: quantize\(1.0625000\d+\) = 1.0; expected 1.125") as caught:
        check_quantizer_laws(cast(ml_dtypes.float8_e4m3fn), dtype="float64", drawn=1000)
    assert {violation.law for violation in caught.value.violations} == {"rounding"}


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "bfloat16"])
def test_the_casts_of_torch_keep_the_laws(name):
    torch = pytest.importorskip("torch")
    report = check_quantizer_laws(lambda x: x.to(getattr(torch, name)).to(torch.float32), takes="tensors", drawn=1000)
    assert "ties go to even" in report.notes


def test_a_wide_type_of_floats():
    report = check_quantizer_laws(cast(ml_dtypes.bfloat16), drawn=1000, scales=(2.0**-100, 2.0**100))
    assert report.notes[0].startswith("65,279 numbers, -3.38953")
    (scale,) = [result for result in report.results if result.law == "scale"]
    assert scale.inputs > 100_000
    every_float32 = check_quantizer_laws(cast(np.float32), dtype="float64", drawn=1000)
    assert "and more" in every_float32.notes[0]  # the grid is open: no ties


@pytest.mark.parametrize("fmt", [lns4f1, lns8f3, LNSFormat(6, 1, base=4.0), lns10f5], ids=str)
@pytest.mark.parametrize("rounding", ["nearest", "toward_zero", "up", "down"])
def test_codes_keep_the_laws_in_every_mode(fmt, rounding):
    def quantize(x, mode=rounding):
        return decode(encode(x, fmt, rounding=mode), fmt, x.dtype.name)

    report = check_quantizer_laws(quantize, fmt, rounding=rounding, drawn=1000)
    assert report.fmt == fmt
    assert set(report.laws) == set(QUANTIZER_LAWS) - set(_lost(rounding))
    other = "toward_zero" if rounding == "nearest" else "nearest"
    with pytest.raises(LawViolation, match="rounding: quantize") as caught:
        check_quantizer_laws(lambda x: quantize(x, other), fmt, rounding=rounding, laws=["rounding"], drawn=1000)
    (violation,) = caught.value.violations
    x = np.float32(violation.inputs[0])
    assert violation.right == quantize(x) != violation.result == quantize(x, other)
    if rounding == "nearest":
        assert check_quantizer_laws(quantize, axis="log", drawn=1000)
        with pytest.raises(LawViolation, match="rounding: quantize"):
            check_quantizer_laws(quantize, axis="value", laws=["rounding"], drawn=1000)


def _lost(rounding):
    """A float that stands for a code lies beside it: rounded in a direction it need not stay, nor is it symmetric."""
    return {
        "nearest": (),
        "toward_zero": ("idempotence", "neighbour"),
        "up": ("idempotence", "sign_symmetry", "neighbour"),
        "down": ("idempotence", "sign_symmetry", "neighbour"),
    }[rounding]


def int8(x):
    return np.clip(np.rint(x), -127, 127)


@pytest.mark.parametrize(("rounding", "function"), [("toward_zero", np.trunc), ("up", np.ceil), ("down", np.floor)])
def test_every_direction_keeps_the_laws_that_are_tried(rounding, function):
    def quantize(x):
        return np.clip(function(x), -8, 8)

    report = check_quantizer_laws(quantize, rounding=rounding, drawn=1000)
    assert ("sign_symmetry" in report.laws) == (rounding == "toward_zero")
    if rounding != "toward_zero":
        with pytest.raises(ValueError, match="laws has 'sign_symmetry', which does not hold under rounding="):
            check_quantizer_laws(quantize, rounding=rounding, laws=["sign_symmetry"])
    with pytest.raises(LawViolation, match="rounding: quantize"):
        check_quantizer_laws(lambda x: np.clip(np.rint(x), -8, 8), rounding=rounding, drawn=1000)


TIES = {
    "to even": lambda x: np.rint(x),
    "away from zero": lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x),
    "toward zero": lambda x: np.copysign(np.ceil(np.abs(x) - 0.5), x),
    "up": lambda x: np.floor(x + 0.5),
    "down": lambda x: np.ceil(x - 0.5),
}


@pytest.mark.parametrize("rule", TIES)
def test_which_way_ties_go_is_found_out(rule):
    def quantize(x):
        return np.clip(TIES[rule](x.astype(np.float64)), -7, 7).astype(x.dtype)

    laws = [law for law in QUANTIZER_LAWS if law != "sign_symmetry" or rule not in ("up", "down")]
    assert f"ties go {rule}" in check_quantizer_laws(quantize, laws=laws, drawn=100).notes
    wrong = -7 - quantize(np.float32(-3.5))

    def with_one_other(x):
        return np.where(x == -3.5, wrong, quantize(x)).astype(x.dtype)

    with pytest.raises(LawViolation, match=rf"ties: quantize\(-3.5\) = -?\d.0; expected .*, {rule} as most ties go"):
        check_quantizer_laws(with_one_other, laws=["ties"], drawn=100)


@pytest.mark.parametrize(
    ("function", "law", "message"),
    [
        (lambda x: np.where(x == 0, 1, int8(x)), "zero", "quantize(0.0) = 1.0; expected 0"),
        (lambda x: int8(x) + np.float32(0.75), "idempotence", "= 1.75 to be it"),
        (lambda x: np.abs(int8(x)), "sign_symmetry", "expected the opposite of quantize(-1.0) = 1.0"),
        (lambda x: -int8(x), "monotonicity", "expected at most quantize("),
        (lambda x: int8(x + 2), "neighbour", "expected "),
        (lambda x: np.where(np.abs(x) > 1e30, 0, int8(x)), "saturation", "= 0.0; expected 127.0 or inf or nan"),
        (
            lambda x: np.where(np.abs(x) > 1e30, np.copysign(np.inf, x), int8(x)),
            "saturation",
            "= inf; expected 127.0, as 254.0",
        ),
    ],
)
def test_what_is_wrong_is_found_by_its_law(function, law, message):
    with pytest.raises(LawViolation, match=re.escape(message)) as caught:
        check_quantizer_laws(lambda x: function(x).astype(x.dtype), laws=[law], drawn=1000)
    assert {violation.law for violation in caught.value.violations} == {law}


def test_one_scale_for_all_elements_is_no_elementwise_function():
    def by_the_greatest(x):
        finite = np.abs(x[np.isfinite(x)])
        scale = max(finite.max(initial=0), 1e-30) / 127
        return (int8(x / x.dtype.type(scale)) * x.dtype.type(scale)).astype(x.dtype)

    with pytest.raises(LawViolation) as caught, np.errstate(all="ignore"):
        check_quantizer_laws(by_the_greatest, drawn=100)
    assert "determinism" in {violation.law for violation in caught.value.violations}


def test_the_grid_is_closed_by_midpoints():
    """Five numbers, of which three come out of none of the first inputs."""
    numbers = np.array([-1.0, 0.3, 0.34, 0.35, 2.0])
    grid = Grid(lambda x: numbers[np.abs(x[:, None] - numbers).argmin(axis=1)].astype(np.float32), np.float32([-9, 9]))
    assert grid.closed
    assert np.array_equal(grid.values, numbers.astype(np.float32).astype(np.float64))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.astype(np.float64), r"quantize\(0.0\) \(law determinism\) returned an array of float64: return"),
        (lambda x: x[0] / 0 if x[0] else None, r"quantize\(0.0\) \(law determinism\) returned a NoneType"),
        (
            lambda x: 1 // 0,
            r"quantize\(0.0\) \(law determinism\) raised ZeroDivisionError: .*: return a float for every",
        ),
    ],
)
def test_what_cannot_be_judged_ends_in_a_sentence(function, message):
    with pytest.raises(ImplementationError, match=message):
        check_quantizer_laws(function, takes="arrays")


def test_a_quantizer_that_gives_no_number_cannot_be_judged():
    with pytest.raises(ImplementationError, match="quantize gave no finite number for any of"):
        check_quantizer_laws(lambda x: np.full_like(x, np.nan))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scales": (2, 1)}, ValueError, "scales=(2, 1) is no range"),
        (
            {"rounding": "stochastic"},
            ValueError,
            "rounding='stochastic' is not known: one of nearest, toward_zero, up,",
        ),
        ({"axis": "code"}, ValueError, "axis='code' is not known: one of value, log"),
        ({"laws": ["grid"]}, ValueError, "laws has 'grid', which is not known: determinism, nan, zero"),
        ({"dtype": "bfloat16"}, ValueError, "dtype='bfloat16' is not known"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        check_quantizer_laws(int8, **arguments)
