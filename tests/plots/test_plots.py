"""Pictures, by what is drawn: marks, lines, steps, images and meshes hold the numbers that they are of."""

import subprocess
import sys
from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest
from matplotlib.figure import Figure
from posit_oracle import nearest_of, value_of

from lnsnum import LNSFormat, LNSTensor, arithmetic, encode, lns4f1, lns6f2, lns8f3, lns16f10
from lnsnum.files.run_log import read_log
from lnsnum.gaussian import Mitchell
from lnsnum.plots import (
    codes_over_training,
    error_map,
    gaussian_logarithm,
    number_line,
    relative_error,
    tensor_histogram,
)
from lnsnum.plots.numbers import FLOATS, numbers_of


@pytest.fixture
def ax():
    return Figure().subplots()


def all_floats(name):
    """The positive finite numbers of a float type, from NumPy's or ml_dtypes' own."""
    kind = np.dtype(getattr(np, name, None) or getattr(ml_dtypes, name))
    bits = np.arange(1 << (8 * kind.itemsize), dtype=f"u{kind.itemsize}")
    with np.errstate(invalid="ignore"):  # some NaN signal
        values = bits.view(kind).astype(np.float64)
    return np.sort(values[np.isfinite(values) & (values > 0)]), kind


@pytest.mark.parametrize("name", [name for name in FLOATS if name != "float32" and hasattr(ml_dtypes, name)])
def test_the_numbers_of_floats_and_how_they_round(name):
    values, kind = all_floats(name)
    numbers = numbers_of(name)
    np.testing.assert_array_equal(numbers.positive(), values)
    assert (numbers.smallest, numbers.greatest, numbers.bits) == (values[0], values[-1], 8 * kind.itemsize)
    assert numbers.smallest_normal == float(ml_dtypes.finfo(kind).smallest_normal)
    assert float(ml_dtypes.finfo(kind).eps) == 2.0**-numbers.mantissa_bits
    some = values[:: max(values.size // 500, 1)]
    x = np.concatenate([some, (some[:-1] + some[1:]) / 2, np.geomspace(values[0] / 4, values[-1], 500)])
    x = x[x <= values[-1]]
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(numbers.round(x), x.astype(kind).astype(np.float64))
    assert numbers.round([values[-1] * 2.0]).tolist() == [np.inf]


@pytest.mark.parametrize("bits", [8, 16])
def test_the_numbers_of_posits(bits):
    numbers = numbers_of(f"posit{bits}")
    values = [float(value_of(pattern, bits)) for pattern in range(1, 2 ** (bits - 1))]
    assert numbers.positive().tolist() == values
    assert (numbers.smallest, numbers.greatest, numbers.bits) == (values[0], values[-1], bits)


def test_how_posits_round():
    """Each number, what lies half-way, what changes the pattern and its neighbours, and beyond both ends."""
    changes = np.array([float(value_of(pattern, 9)) for pattern in range(1, 256)])
    x = np.concatenate([changes, np.nextafter(changes, 0), np.nextafter(changes, np.inf), [1e-30, 0.7, 1e30]])
    expected = [float(value_of(nearest_of(Fraction(value), 8), 8)) for value in x.tolist()]
    assert numbers_of("posit8").round(x).tolist() == expected
    assert numbers_of("posit8").round([0.0]).tolist() == [0.0]


def test_a_number_line_has_a_mark_for_each_number(ax):
    assert number_line(ax, lns4f1, "float8_e4m3fn", low=-1.0, high=1.5) is ax
    ours, theirs = (line.get_xdata() for line in ax.lines)
    np.testing.assert_allclose(
        ours, [-1, -(0.5**0.5), -0.5, -(0.5**1.5), 0, 0.5**1.5, 0.5, 0.5**0.5, 1, 2**0.5], rtol=1e-15
    )
    values, _ = all_floats("float8_e4m3fn")
    expected = np.concatenate([-values[::-1], [0.0], values])
    np.testing.assert_array_equal(theirs, expected[(expected >= -1.0) & (expected <= 1.5)])
    assert [set(line.get_ydata()) for line in ax.lines] == [{0}, {-1}]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["lns4f1", "float8_e4m3fn"]


def test_the_relative_error_is_that_of_encoding(ax):
    assert relative_error(ax, lns8f3, "float8_e5m2", "float32", low=1e-4, high=1e6, points=300) is ax
    x = np.geomspace(1e-4, 1e6, 300)
    for line, numbers in zip(ax.lines, ("lns", "float8_e5m2", "float32"), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), x)
        error = line.get_ydata()
        if numbers == "lns":
            within = (x > 0.0043) & (x < 234.0)
            assert 0.04 < error[within].max() < 0.0443
            np.testing.assert_array_equal(error[x < 0.002], 1.0)
            np.testing.assert_allclose(error[x > 235], 1.0 - lns8f3.max_value / x[x > 235])
        else:
            kind = getattr(ml_dtypes, numbers, np.float32)
            with np.errstate(over="ignore"):
                rounded = x.astype(kind).astype(np.float64)
            expected = np.where(np.isinf(rounded), np.nan, np.abs(rounded - x) / x)
            np.testing.assert_array_equal(error, expected)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_the_range_of_the_error_is_that_of_the_formats(ax):
    relative_error(ax, "lns6f2", "lns16f10", LNSFormat(32, 2))
    x = ax.lines[0].get_xdata()
    np.testing.assert_allclose([x[0], x[-1]], [1e-200, 1e200])


@pytest.mark.parametrize("offset", [0, 5, np.array([[0], [40]], np.int32)])
def test_a_histogram_counts_each_magnitude(ax, offset):
    rng = np.random.default_rng(1)
    x = LNSTensor(rng.integers(0, 256, (2, 500)).astype(np.uint8), lns8f3, log_offset=offset)
    assert tensor_histogram(ax, x) is ax
    floats = x.to_float()
    for part, sign in zip(ax.patches, (1, -1), strict=True):
        values, edges, _ = part.get_data()
        own = sign * floats[sign * floats > 0]
        np.testing.assert_array_equal(sign * values, np.histogram(np.log2(own), edges)[0])
        assert sign * values.sum() == own.size
        np.testing.assert_allclose(np.diff(edges), 1 / 8)
    zeros, nans = np.count_nonzero(floats == 0), np.count_nonzero(np.isnan(floats))
    assert ax.get_title() == f"lns8f3: 1,000 numbers, {zeros} zeros, {nans} NaN"


@pytest.mark.parametrize(
    ("fmt", "offset"),
    [("lns32f23", 0), ("lns16f10", 5), ("lns8f3", np.array([[0], [1 << 29]], np.int32)), ("lns8f3", 0)],
)
def test_a_histogram_of_any_width_and_scale_fits_memory(ax, fmt, offset):
    rng = np.random.default_rng(2)
    fmt = LNSFormat.parse(fmt)
    x = LNSTensor.from_codes(rng.integers(1, 1 << fmt.bits, (2, 50)).astype(fmt.dtype), fmt, log_offset=offset)
    tensor_histogram(ax, x)
    m, negative = x.codes.astype(np.int64) & fmt.max_magnitude, x.codes > fmt.sign_bit
    logs = (m - fmt.bias + np.asarray(offset, np.int64)) / fmt.codes_per_octave
    for part, sign in zip(ax.patches, (1, -1), strict=True):
        values, edges, _ = part.get_data()
        assert values.size <= 1 << 16
        own = logs[(m > 0) & (negative == (sign < 0))]
        np.testing.assert_array_equal(sign * values, np.histogram(own, edges)[0])
        assert sign * values.sum() == own.size


def test_a_histogram_of_one_number_and_of_none(ax):
    assert tensor_histogram(ax, LNSTensor.from_float(2.0, "lns8f3")).get_title() == "lns8f3: 1 number, 0 zeros, 0 NaN"
    nothing = LNSTensor.from_float(np.zeros((0, 3)), "lns8f3")
    assert tensor_histogram(ax, nothing).get_title() == "lns8f3: 0 numbers, 0 zeros, 0 NaN"


@pytest.mark.parametrize("name", [None, 8, np.float32, b"lns8f3"])
def test_what_names_no_format_is_refused(ax, name):
    for draw in (number_line, relative_error):
        with pytest.raises(TypeError, match=r" is a \w+: give an LNSFormat, or a name such as 'float8_e4m3fn'$"):
            draw(ax, name)


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (lambda ax: number_line(ax, "lns8f3", low=2.0, high=1.0), "low=2.0 and high=1.0 are no part of the line"),
        (lambda ax: number_line(ax, "lns8f3", low=np.nan), "low=nan and high=2.0 are no part of the line"),
        (lambda ax: number_line(ax, "lns8f3", low="a"), "low='a' and high=2.0 are no part of the line"),
        (lambda ax: relative_error(ax, "lns8f3", low="a", high=1.0), "low='a' and high=1.0 are no part of the axis: 0"),
        (lambda ax: relative_error(ax, "lns8f3", points=1), "points=1 does not draw a line: an integer from 2 to"),
        (lambda ax: relative_error(ax, "lns8f3", points=2.5), "points=2.5 does not draw a line"),
        (lambda ax: relative_error(ax, "lns8f3", points=10**9), "points=1000000000 does not draw a line"),
        (lambda ax: error_map(ax, "lns6f2", function=lambda a, b: a + np.int64(60)), r"code 64 .* lns6f2"),
        (lambda ax: error_map(ax, "lns6f2", function=5), "function=5 is no function"),
        (lambda ax: gaussian_logarithm(ax, "lns8f3", 5), "gaussian=5 has no methods sb and db"),
        (lambda ax: gaussian_logarithm(ax, "lns8f3", Mitchell), "gaussian=Mitchell is a class: give an object of it"),
        (lambda ax: gaussian_logarithm(ax, "lns8f3", last=-1), "last=-1 is no distance of logarithms of lns8f3: "),
        (lambda ax: gaussian_logarithm(ax, "lns8f3", last=127), "last=127 is no distance .* from 0 to 126$"),
        (lambda ax: gaussian_logarithm(ax, "lns8f3", last="a"), "last='a' is no distance"),
        (lambda ax: codes_over_training(ax, "run.jsonl"), "lines='run.jsonl' are no lines of a log: give those of"),
        (lambda ax: codes_over_training(ax, [1, 2]), r"lines=\[1, 2\] are no lines of a log"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(ax, draw, told):
    with pytest.raises((TypeError, ValueError), match=told):
        draw(ax)


def exact_position(operation, a, b, fmt):
    """E of the exact result of two numbers base^(E / 2^F), by mpmath; None where it is zero or negative."""
    mp = mpmath.MPContext()
    mp.prec = 200
    x, y = (mp.power(fmt.base, mp.mpf(n) / 2**fmt.fraction_bits) for n in (a, b))
    result = {"add": x + y, "subtract": x - y, "multiply": x * y, "divide": x / y}[operation]
    return mp.log(abs(result)) / mp.log(fmt.base) * 2**fmt.fraction_bits if result else None


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "divide"])
def test_an_error_map_has_the_error_of_every_pair(ax, operation):
    error_map(ax, lns6f2, operation)
    error = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert error.shape == (31, 31)
    for i, a in enumerate(range(-15, 16)):
        for j, b in enumerate(range(-15, 16)):
            codes = [np.array([16 + n], np.uint8) for n in (a, b)]
            result = int(getattr(arithmetic, operation)(*codes, lns6f2)[0][0])
            position = exact_position(operation, a, b, lns6f2)
            if position is None or result == 0:
                assert np.isnan(error[i, j])
            else:
                assert abs(error[i, j] - ((result & 31) - 16 - position)) < 1e-9
    np.testing.assert_allclose(ax.images[0].get_extent(), np.array([-15.5, 15.5, -15.5, 15.5]) / 4)


def test_an_error_map_of_an_adder_of_ones_own(ax):
    error_map(ax, "lns6f2", function=np.maximum)
    error = np.ma.filled(ax.images[0].get_array(), np.nan)
    np.testing.assert_allclose(np.diag(error), -4.0)  # a + a is an octave above a
    with pytest.raises(ValueError, match=r"^the function gave uint8 of shape \(31,\), and codes of shape \(31, 31\)"):
        error_map(ax, "lns6f2", function=lambda a, b: a[0])


@pytest.mark.parametrize("gaussian", [None, Mitchell()])
def test_gaussian_logarithms_and_their_errors(gaussian):
    values, errors = (gaussian_logarithm(Figure().subplots(), lns8f3, gaussian, error=error) for error in (False, True))
    z = values.lines[0].get_xdata()
    assert z[0] == 0
    assert values.lines[1].get_xdata()[0] == 1
    sb = 8 * np.log2(1 + 2.0 ** (-z / 8))
    if gaussian is None:
        np.testing.assert_array_equal(values.lines[0].get_ydata(), np.rint(sb))
        assert max(np.abs(line.get_ydata()).max() for line in errors.lines) <= 0.5
    np.testing.assert_allclose(errors.lines[0].get_ydata(), values.lines[0].get_ydata() - sb, atol=1e-12)
    t = errors.lines[1].get_xdata()
    db = 8 * np.log2(1 - 2.0 ** (-t / 8))
    np.testing.assert_allclose(errors.lines[1].get_ydata(), values.lines[1].get_ydata() - db, atol=1e-12)


def test_codes_over_training_of_a_monitors_log(ax, tmp_path):
    torch = pytest.importorskip("torch")
    from lnsnum.torch_bridge import Monitor, convert_model

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
    convert_model(model, "lns8f5")
    weights, counts = [p for p in model.parameters() if hasattr(p, "to_lns")], []
    with Monitor(tmp_path / "run.jsonl", None, histogram_of=model, histogram_every=2) as monitor:
        for step in range(1, 7):
            for weight in weights:
                torch.nn.init.normal_(weight)
            monitor.step(0.0)
            if step % 2 == 0:
                m = np.concatenate([weight.to_lns().codes.ravel() & 127 for weight in weights])
                counts.append(np.bincount(m, minlength=128) / m.size)
    lines = read_log(tmp_path / "run.jsonl")
    assert codes_over_training(ax, lines) is ax
    np.testing.assert_allclose(ax.collections[0].get_array(), np.stack(counts, 1))
    names = list(lines[1]["histograms"])
    one = codes_over_training(Figure().subplots(), lines, names[0])
    own = [line["histograms"][names[0]] for line in lines if "histograms" in line]
    np.testing.assert_allclose(one.collections[0].get_array(), np.array(own).T / np.sum(own[0]))


def test_what_cannot_be_drawn_is_named(ax):
    log = [{"step": 1, "histograms": {"a": [1], "b": [1, 2]}}]
    for call, error, told in (
        (lambda: number_line(ax), ValueError, "no format was given"),
        (lambda: relative_error(ax), ValueError, "no format was given"),
        (lambda: number_line(ax, "float32"), ValueError, r"float32 has 2\^32 values, and formats of up to 16 bits"),
        (lambda: number_line(ax, "lns32f23"), ValueError, r"lns32f23 has 2\^32 values"),
        (
            lambda: number_line(ax, "fp8"),
            ValueError,
            "'fp8' is no format: write lns8f5 for an LNS format, or one of float32",
        ),
        (lambda: relative_error(ax, "lns8f3", low=2.0, high=1.0), ValueError, r"low=2.0 and high=1.0 are no part"),
        (lambda: tensor_histogram(ax, np.ones(3)), TypeError, "a ndarray holds no codes: give an LNSTensor"),
        (lambda: error_map(ax, lns16f10), ValueError, r"lns16f10 has 2\^32 pairs: formats of up to 10 bits"),
        (lambda: error_map(ax, lns8f3, "power"), ValueError, "operation='power' is not known: one of add, subtract"),
        (lambda: gaussian_logarithm(ax, "lns32f23"), ValueError, "lns32f23 has more z than a picture shows"),
        (lambda: codes_over_training(ax, [{"step": 1}]), ValueError, "the log has no histograms: give Monitor a model"),
        (lambda: codes_over_training(ax, log, "c"), ValueError, "the log has no weight 'c': it has a, b"),
        (lambda: codes_over_training(ax, log), ValueError, "the weights have several formats: name one of a, b"),
    ):
        with pytest.raises(error, match=told):
            call()


def test_nothing_here_imports_matplotlib():
    code = "import sys, lnsnum.plots; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_lns_numbers_round_as_encode_does():
    x = np.geomspace(1e-4, 1e4, 200)
    np.testing.assert_array_equal(numbers_of(lns8f3).round(x), LNSTensor(encode(x, lns8f3), lns8f3).to_float())
