"""What float64 computes of tensors: NumPy's of the decoded numbers, rounded once; running products, exactly."""

import re
from fractions import Fraction

import numpy as np
import pytest

from lnsnum import LNSFormat, LNSTensor, encode, lns8f3, lns16f10, reduction

RNG = np.random.default_rng(5)
CODES = (RNG.integers(40, 90, (4, 6)) | 128 * RNG.integers(0, 2, (4, 6))).astype(np.uint8)

FUNCTIONS = {
    "var": (lambda x: np.var(x, axis=1, ddof=1), 2),
    "std": (lambda x: np.std(x, axis=0), 1),
    "cumsum": (lambda x: np.cumsum(x, axis=1), 1),
    "einsum": (lambda x: np.einsum("ij,kj->ik", x, x), 2),
    "norm": (lambda x: np.linalg.norm(x, axis=1), 1),
    "fro": (lambda x: np.linalg.norm(x, "fro"), 1),
    "median": (lambda x: np.median(x, axis=0), 1),
    "quantile": (lambda x: np.quantile(x, [0.3, 0.8], axis=1), 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_are_those_of_float64_rounded_once(name):
    function, power = FUNCTIONS[name]
    x = LNSTensor(CODES, lns8f3)
    expected = function(x.to_float())
    result = function(x)
    assert result.log_offset == 0
    np.testing.assert_array_equal(result.codes, encode(expected, lns8f3))
    # a scale that all share, beyond all doubles too, changes no bit of what fits
    fitted = LNSTensor.from_float(expected, lns8f3, log_offset="fit")
    for octaves in (5, -400, 100_000):
        moved = function(LNSTensor(CODES, lns8f3, log_offset=8 * octaves))
        assert moved.log_offset == fitted.log_offset + 8 * octaves * power
        np.testing.assert_array_equal(moved.codes, fitted.codes)
    # of channels the numbers themselves count
    rows = LNSTensor(CODES, lns8f3, log_offset=np.array([[0], [3], [-9], [40]], np.int32))
    np.testing.assert_array_equal(
        function(rows).codes, LNSTensor.from_float(function(rows.to_float()), lns8f3, log_offset="fit").codes
    )


@pytest.mark.parametrize("ddof", [np.nan, np.inf, "1", None])
def test_what_is_no_ddof_is_refused(ddof):
    with pytest.raises(TypeError, match=rf"^numpy\.std takes no ddof={ddof!r}: give the number"):
        np.std(LNSTensor(CODES, lns8f3), ddof=ddof)


def test_a_number_of_numbers_has_no_scale():
    x = LNSTensor.from_float([[1024.0, 0.0, 2048.0]], lns8f3, log_offset=80)
    assert np.linalg.norm(x[0], 0).tolist() == 2.0


def test_numbers_too_far_apart_are_refused_or_moved_to_the_middle():
    far = LNSFormat(16, 4)  # 2^-1024 to 2^1024: squares leave the doubles
    with pytest.raises(
        ValueError, match=r"^the numbers are so far apart that their products leave the range of float64"
    ):
        np.var(LNSTensor.from_codes([far.bias - 16 * 600, far.bias + 16 * 600], far))
    near = LNSTensor.from_codes([far.bias + 16 * 900, far.bias + 16 * 901], far)
    assert np.std(near).codes == far.bias + 16 * 899
    odd = LNSFormat(16, 2, base=3.0)
    result = np.std(LNSTensor.from_codes([odd.bias + 4 * 1500, odd.bias + 4 * 1502], odd))
    assert result.codes == round(odd.bias + 4 * 1500 + 4 * np.log(4.0) / np.log(3.0))  # (9 - 1) / 2 times 3^1500


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_running_products_are_exact_and_rounded_once(axis):
    codes = np.where(RNG.random((4, 6)) < 0.1, RNG.choice([0, 128], (4, 6)), CODES).astype(np.uint8)
    for log_offset in (0, 5, np.arange(4, dtype=np.int32)[:, None]):
        ours, offset = reduction.cumprod(codes, lns8f3, axis=axis, log_offset=log_offset, out_format=lns16f10)
        flat = codes if axis is not None else codes.reshape(-1)
        scale = np.broadcast_to(log_offset, codes.shape)
        scale = scale if axis is not None else scale.reshape(-1)
        along = 0 if axis is None else axis
        for n in range(1, flat.shape[along] + 1):
            part = np.take(flat, range(n), along)
            own = np.ascontiguousarray(np.take(scale, range(n), along), np.int32)
            each, _ = reduction.prod(
                part, lns8f3, axis=along, log_offset=own, out_format=lns16f10, out_log_offset=offset
            )
            np.testing.assert_array_equal(np.take(ours, n - 1, along), each)
    x = LNSTensor(CODES, lns8f3)
    np.testing.assert_array_equal(np.cumprod(x, axis=1).codes, reduction.cumprod(CODES, lns8f3, axis=1)[0])
    assert x.cumprod(1, out_format="lns16f10").fmt == lns16f10


def test_a_running_product_comes_back_from_beyond_the_range():
    x = LNSTensor.from_float([128.0, -128.0, 1 / 128, 0.0, 3.0], lns8f3)
    assert np.cumprod(x).tolist()[2:] == [-128.0, 0.0, 0.0]


def test_differences_are_subtractions():
    x = LNSTensor(CODES, lns8f3, log_offset=3)
    np.testing.assert_array_equal(np.diff(x, axis=0).codes, (x[1:] - x[:-1]).codes)
    twice = np.diff(x, 2)
    once = x[:, 1:] - x[:, :-1]
    np.testing.assert_array_equal(twice.codes, (once[:, 1:] - once[:, :-1]).codes)
    np.testing.assert_array_equal(np.ptp(x, 1).codes, (x.max(1) - x.min(1)).codes)


@pytest.mark.parametrize("log_offset", [0, 9, np.array([[0], [3], [-9], [40]], np.int32)])
def test_padding_rounds_nothing(log_offset):
    x = LNSTensor(CODES, lns8f3, log_offset=log_offset)
    for mode in ("edge", "reflect", "symmetric", "wrap", "constant"):
        padded = np.pad(x, ((1, 2), (0, 3)), mode)
        np.testing.assert_array_equal(padded.to_float(), np.pad(x.to_float(), ((1, 2), (0, 3)), mode))
    ones = np.pad(x, 1, constant_values=((1, 2), (-1, 0)))
    np.testing.assert_array_equal(ones.to_float(), np.pad(x.to_float(), 1, constant_values=((1, 2), (-1, 0))))
    with pytest.raises(ValueError, match=r"^0\.3 is no number of lns8f3"):
        np.pad(x, 1, constant_values=0.3)
    for wrong in ("a", None, (1, 2, 3), [], 2j):
        with pytest.raises(
            TypeError, match=r"^numpy\.pad takes no constant_values=.*: give a number, two, or two for each"
        ):
            np.pad(x, 1, constant_values=wrong)
    with pytest.raises(TypeError, match=r"^numpy\.pad takes no LNSTensor as constant_values"):
        np.pad(x, 1, constant_values=x[0, 0])
    for mode, argument, known in (
        ("constant", "end_values", ", but constant_values="), ("edge", "constant_values", ""),
        ("empty", "constant_values", ""), ("reflect", "other", ", but reflect_type="),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=rf"^numpy\.pad with mode='{mode}' takes no {argument}={known}$"):
            np.pad(x, 1, mode, **{argument: 1})


@pytest.mark.parametrize("q", ["a", None, 1j, Fraction(1, 2), [0.5, None]])
def test_quantiles_that_are_no_numbers_are_refused(q):
    for function, last in ((np.quantile, 1), (np.percentile, 100)):
        told = rf"^numpy\.{function.__name__} takes no q={re.escape(repr(q))}: give a number from 0 to {last}, or se"
        with pytest.raises(TypeError, match=told):
            function(LNSTensor(CODES, lns8f3), q)


def test_a_named_mode_that_makes_numbers_is_refused():
    x = LNSTensor(CODES, lns8f3)
    for call, told in (
        (
            lambda: np.pad(x, 1, "reflect", reflect_type="odd"),
            r"numpy\.pad does not take LNSTensors: reflect_type='odd' ma",
        ),
        (
            lambda: np.linalg.norm(x, 2),
            r"numpy\.linalg\.norm does not take LNSTensors: ord=2 of 2 axes takes powers or a ",
        ),
        (lambda: np.var(x, mean=1.0), r"numpy\.var of LNSTensors takes no mean=: it is computed here"),
        (
            lambda: np.quantile(x, 0.5, weights=[1.0], method="inverted_cdf"),
            "takes no weights=: repeat numbers, or give",
        ),
        (lambda: np.einsum("ij->i", x, dtype="f8"), "einsum of LNSTensors takes out= and optimize=, not dtype="),
        (lambda: np.einsum("ij,ij->i", x, np.ones((4, 6))), "einsum of LNSTensor and ndarray: make it one"),
        (lambda: np.var(x, out=np.ones(())), "var of LNSTensors writes into an LNSTensor, not into a ndarray"),
    ):
        with pytest.raises(TypeError, match=told):
            call()
    with pytest.raises(ValueError, match=r"^the var of 4 elements with ddof=4 is not defined$"):
        np.var(x, 0, ddof=4)


def test_the_variance_of_an_accumulator_is_composed():
    """docs/numpy.md writes it out; it is near the exact one, by fractions."""
    wide = {"accumulator": "lns16f10", "out_format": "lns16f10"}
    v = LNSTensor.from_float([1.0, 2.0, 4.0, 8.0], lns8f3)
    composed = v.subtract(v.mean(**wide), out_format="lns16f10").square().mean(**wide)
    exact = sum((Fraction(n) - Fraction(15, 4)) ** 2 for n in (1, 2, 4, 8)) / 4
    assert abs(float(composed) / float(exact) - 1.0) < 2e-3
