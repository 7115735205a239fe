"""The laws of conversions: what is right passes in every format and mode, and any other code is found."""

import re
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from lnsnum import LNSFormat, convert, decode, encode, lns4f1, lns6f2, lns8f3, lns10f5, lns16f7, lns16f10, reference
from lnsnum.strategies import (
    ImplementationError,
    LawViolation,
    check_conversion_laws,
    check_quantizer_laws,
    check_stochastic_laws,
)
from lnsnum.testing.conversion_laws import CONVERSION_LAWS
from lnsnum.testing.positions import Axis
from lnsnum.testing.spans import Rules

FORMATS = [
    lns4f1,
    lns8f3,
    lns10f5,
    lns16f7,
    LNSFormat(3, 0),
    LNSFormat(5, 0, base=4.0),
    LNSFormat(7, 3, base=10.0),
    LNSFormat(12, 5, base=1.5),
    LNSFormat(8, 0, base=1e30),
    LNSFormat(9, 2, base=1 + 2.0**-30),
]
WIDE = [LNSFormat(20, 9), LNSFormat(32, 23), LNSFormat(24, 0, base=1.1)]
MODES = ["nearest", "toward_zero", "up", "down"]


def library(fmt, dtype="float32", **modes):
    return {"encode": lambda x: encode(x, fmt, **modes), "decode": lambda codes: decode(codes, fmt, dtype)}


@pytest.mark.parametrize("fmt", FORMATS + WIDE, ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_library_keeps_the_laws(fmt, dtype):
    report = check_conversion_laws(library(fmt, dtype), fmt, dtype=dtype, drawn=2000)
    assert (report.kind, report.laws, report.operations) == (
        "conversions",
        tuple(CONVERSION_LAWS),
        ("encode", "decode"),
    )
    assert report.exhaustive == (dtype == "float16" and fmt.bits <= 16)
    by_law = {(result.law, result.operation): result.inputs for result in report.results}
    assert by_law["range", "encode"] > 60_000
    assert by_law["error_bound", "decode"] == (1 << fmt.bits) - 2 or fmt.bits > 16


def test_sixteen_bits_are_tried_at_every_boundary():
    report = check_conversion_laws(library(lns16f10), lns16f10, drawn=0)
    assert report.inputs > 4 * (1 << 16)


@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("overflow", ["saturate", "nan"])
@pytest.mark.parametrize("underflow", ["round", "saturate"])
def test_the_library_keeps_them_in_every_mode(rounding, overflow, underflow):
    modes = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
    for fmt in (lns6f2, LNSFormat(6, 1, base=16.0)):
        check_conversion_laws(library(fmt, **modes), fmt, **modes, drawn=1000)
        other = {**modes, "overflow": "nan" if overflow == "saturate" else "saturate"}
        with pytest.raises(LawViolation) as caught:
            check_conversion_laws(library(fmt, **modes), fmt, **other, drawn=1000)
        assert "saturation" in {violation.law for violation in caught.value.violations}


@pytest.mark.parametrize("rounding", ["stochastic_log", "stochastic_value"])
def test_under_a_stochastic_mode_both_neighbours_are_right(rounding):
    for word in (0, 1 << 31, (1 << 32) - 1):
        modes = {"rounding": rounding, "random_bits": np.uint32(word)}
        report = check_conversion_laws(library(lns6f2, **modes), lns6f2, rounding=rounding, drawn=100)
        assert "monotonicity" in report.laws  # of decode
        assert {r.operation for r in report.results if r.law == "monotonicity"} == {"decode"}


@pytest.mark.parametrize("fmt", [lns4f1, LNSFormat(4, 0, base=4.0), LNSFormat(4, 1, base=16.0)], ids=str)
@pytest.mark.parametrize("rounding", MODES)
def test_the_suite_agrees_with_the_reference(fmt, rounding):
    """The oracle's codes pass, on all floats of 16 bits, and any other code in place of one is found."""
    floats = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    some = np.random.default_rng(0).permutation(1 << 16)[:300]
    right = encode(floats, fmt, rounding=rounding)
    for i in some:
        assert right[i] == reference.encode(float(floats[i]), fmt, rounding=rounding)
    for i in some[:20]:
        wrong = right.copy()
        wrong[i] ^= 1 + i % 7

        def look_up(x, wrong=wrong):
            return wrong[x.view(np.uint16)]

        with pytest.raises(LawViolation) as caught:
            check_conversion_laws(
                look_up, fmt, operations=["encode"], dtype="float16", rounding=rounding, laws=list(_of(rounding))
            )
        assert any(np.float16(v.inputs[0]) == floats[i] or np.isnan(floats[i]) for v in caught.value.violations)
        for violation in caught.value.violations:
            assert violation.right == reference.encode(violation.inputs[0], fmt, rounding=rounding)


def _of(rounding):
    return [law for law in CONVERSION_LAWS if law not in ("sign_symmetry", "monotonicity")]


@pytest.mark.parametrize("fmt", [lns8f3, LNSFormat(6, 1, base=10.0)], ids=str)
def test_any_other_float_in_the_place_of_one_is_found(fmt):
    codes = np.arange(1 << fmt.bits, dtype=fmt.dtype)
    right = decode(codes, fmt, "float32")
    for code in codes[::7]:
        if right[code] == 0 or np.isnan(right[code]):
            continue
        for wrong in (np.nextafter(right[code], np.float32(0)), -right[code]):
            table = right.copy()
            table[code] = wrong
            with pytest.raises(LawViolation, match=rf"error_bound: decode\({code}\) = ") as caught:
                check_conversion_laws({"decode": lambda c, table=table: table[c]}, fmt)
            (violation,) = [v for v in caught.value.violations if v.law == "error_bound"]
            assert (violation.inputs, violation.right) == ((int(code),), float(right[code]))


PAIRS = [
    (lns8f3, lns16f10),
    (lns16f10, lns8f3),
    (lns10f5, LNSFormat(9, 2, base=4.0)),
    (LNSFormat(9, 2, base=4.0), LNSFormat(5, 0, base=16.0)),
    (LNSFormat(8, 3, base=10.0), lns10f5),
    (lns8f3, LNSFormat(9, 2, base=1 + 2.0**-30)),
    (LNSFormat(20, 9), LNSFormat(12, 5, base=1.5)),
]


@pytest.mark.parametrize(("fmt", "to"), PAIRS, ids=str)
@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("policies", [{}, {"overflow": "nan", "underflow": "saturate"}], ids=["", "policies"])
def test_the_library_keeps_the_laws_from_one_format_to_another(fmt, to, rounding, policies):
    modes = {"rounding": rounding, **policies}
    report = check_conversion_laws(
        {"convert": lambda codes: convert(codes, fmt, to, **modes)}, fmt, to=to, **modes, drawn=1000
    )
    assert (report.operations, report.missing) == (("convert",), ("encode", "decode"))
    assert report.exhaustive == (fmt.bits <= 16)


@pytest.mark.parametrize(
    ("fmt", "to"),
    [(lns6f2, lns4f1), (lns6f2, LNSFormat(5, 0, base=4.0)), (LNSFormat(6, 1, base=10.0), lns8f3)],
    ids=str,
)
@pytest.mark.parametrize("rounding", MODES)
def test_every_other_code_in_another_format_is_found(fmt, to, rounding):
    right = [reference.convert(code, fmt, to, rounding=rounding) for code in range(1 << fmt.bits)]
    for code in range(0, 1 << fmt.bits, 5):
        table = np.array(right, to.dtype)
        assert check_conversion_laws(lambda c, t=table: t[c], fmt, to=to, operations=["convert"], rounding=rounding)
        table[code] ^= 1 + code % 3
        with pytest.raises(LawViolation) as caught:
            check_conversion_laws(lambda c, t=table: t[c], fmt, to=to, operations=["convert"], rounding=rounding)
        own = [v for v in caught.value.violations if v.inputs == (code,)]
        assert own
        assert all((v.result, v.right) == (table[code], right[code]) for v in own)


def test_an_approximation_passes_at_its_own_bound():
    def mitchell(x):
        significand, exponent = np.frexp(np.where(np.isfinite(x) & (x != 0), np.abs(x), 1).astype(np.float64))
        log = np.rint(32 * (exponent - 1 + 2 * significand - 1)).astype(np.int64)
        right = encode(x, lns10f5)
        inner = np.abs(log) <= lns10f5.max_log
        inner &= (right & 511 > 3) & (right & 511 < 508)
        return np.where(inner, log + 256 + 512 * np.signbit(x), right).astype(np.uint16)

    def check(max_ulp):
        return check_conversion_laws(mitchell, lns10f5, operations=["encode"], laws=["error_bound"], max_ulp=max_ulp)

    with pytest.raises(LawViolation, match=r"it is off by [23]\.\d+ ulp"):
        check(None)
    assert check(32 * 0.0861 + 0.5)
    assert check(Fraction(7, 2))


def test_a_format_without_a_code_for_every_float_need_not_round_trip():
    """float16 has fewer numbers than lns16f10 has codes: the law speaks of those that it tells apart."""
    report = check_conversion_laws(library(lns16f10, "float16"), lns16f10, dtype="float16", laws=["round_trip"])
    (result,) = report.results
    assert 10_000 < result.inputs < 1 << 16


def test_functions_on_numbers_and_on_tensors():
    torch = pytest.importorskip("torch")
    assert check_conversion_laws(
        lambda x: 8 if x != x else 0, lns4f1, operations=["encode"], laws=["nan", "zero"], drawn=0
    )

    def on_tensors(x):
        assert isinstance(x, torch.Tensor)
        return torch.from_numpy(encode(x.numpy(), lns6f2).astype(np.int64))

    assert check_conversion_laws(on_tensors, lns6f2, operations=["encode"])
    with pytest.raises(ImplementationError, match=r"decode\(0\) \(law determinism\) returned a tensor of bfloat16"):
        check_conversion_laws({"decode": lambda c: torch.zeros(c.shape, dtype=torch.bfloat16)}, lns6f2, takes="tensors")


@pytest.mark.parametrize(
    ("function", "operation", "takes", "message"),
    [
        (
            lambda x: x,
            "encode",
            "auto",
            r"encode\(.*\) \(law range\) returned an array of float32: return one of uint8",
        ),
        (lambda x: x[:1], "decode", "auto", r"decode\(0\) \(law determinism\) returned an array of uint8"),
        (lambda x: 1.1, "decode", "elements", r"decode\(0\) \(law determinism\) returned 1.1, no float32: round it to"),
        (lambda x: "a", "encode", "elements", r"encode\(.*\) \(law range\) returned a str: return an integer"),
        (lambda x: 1 // 0, "encode", "auto", r"raised ZeroDivisionError.*: return a code for every float, a float for"),
    ],
)
def test_what_cannot_be_judged_ends_in_a_sentence(function, operation, takes, message):
    with pytest.raises(ImplementationError, match=message):
        check_conversion_laws(function, lns4f1, operations=[operation], takes=takes)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dtype": "bfloat16"}, ValueError, "dtype='bfloat16' is not known: one of float64, float32, float16"),
        ({"max_ulp": 0.1}, ValueError, "max_ulp=0.1 is out of range: at least 0.5"),
        ({"drawn": -1}, ValueError, "drawn=-1 is out of range: 0 or more"),
        ({"rounding": "even"}, ValueError, "rounding='even' is not known"),
        ({"operations": ["round"]}, ValueError, "operations has 'round', which is not known: encode, decode"),
        (
            {"operations": ["decode"], "laws": ["saturation"]},
            ValueError,
            "laws has 'saturation', which does not hold under rounding='nearest' of decode: determinism, nan",
        ),
        ({"timeout": 0}, ValueError, "timeout=0 is out of range"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        check_conversion_laws(library(lns4f1), lns4f1, **arguments)


def test_a_processor_that_flushes_subnormals_cannot_judge_them():
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush subnormals")
    try:
        for check, kwargs in (
            (check_conversion_laws, {}),
            (check_stochastic_laws, {}),
            (check_quantizer_laws, {"rounding": "nearest"}),
        ):
            with pytest.raises(RuntimeError, match="is set to flush subnormal floats to zero: set it back"):
                check(library(lns4f1), lns4f1, **kwargs)
    finally:
        torch.set_flush_denormal(False)


def test_convert_needs_a_format_to_convert_to():
    assert check_conversion_laws({"convert": abs, **library(lns4f1)}, lns4f1, drawn=0).missing == ()
    with pytest.raises(TypeError, match="operations has 'convert', but there is no format to convert to: give `to`"):
        check_conversion_laws(abs, lns4f1, operations=["convert"])


def test_without_a_function_there_is_nothing_to_try():
    with pytest.raises(TypeError, match="there is no function encode, decode: give it one that takes an array"):
        check_conversion_laws({"round": abs}, lns4f1)


# ----------------------------------------------------------------------------------------------------- positions


@pytest.mark.parametrize(
    "fmt", [lns8f3, LNSFormat(6, 0, base=4.0), LNSFormat(10, 2, base=1.7), LNSFormat(32, 20)], ids=str
)
def test_points_and_floats_agree_with_the_reference(fmt):
    axis = Axis(fmt)
    random = np.random.default_rng(0)
    codes = np.unique(random.integers(0, 1 << fmt.bits, 200))
    for dtype in ("float64", "float32", "float16"):
        floats = axis.values(codes, dtype)
        for code, x in zip(codes.tolist(), floats, strict=True):
            pattern = np.array([reference.decode(code, fmt, dtype)], f"u{x.itemsize}").view(dtype)[0]
            assert x == pattern or (np.isnan(pattern) and x == 0)


@pytest.mark.parametrize("fmt", [lns8f3, LNSFormat(5, 0, base=4.0), LNSFormat(7, 2, base=1.7)], ids=str)
@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_next_to_every_boundary_the_bounds_are_those_of_the_reference(fmt, rounding, dtype):
    axis = Axis(fmt)
    logs = np.arange(-fmt.max_log - 1, fmt.max_log + 1)
    at = np.concatenate([axis.thresholds(logs, c)[0] for c in (Fraction(0), Fraction(1, 2))])
    x = at.astype(dtype).astype(np.float64)
    x = np.concatenate([at, np.nextafter(at, 0), x, -x])
    bounds = axis.bounds(Rules(fmt, Fraction(0), rounding, "saturate", "round"), x)
    for i in range(0, x.size, 5):
        code = reference.encode(float(x[i]), fmt, rounding=rounding)
        m = code & fmt.max_magnitude
        if m:
            assert bounds.low[i] <= m - fmt.bias <= bounds.high[i]
            assert bounds.low[i] == bounds.high[i] or bounds.underflows[i]
        else:
            assert bounds.zero[i]
