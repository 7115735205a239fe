"""`lnsnum inspect`: every figure against NumPy on whole arrays, losses against originals of all kinds, the command."""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.image
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from command_line import run_command
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnsnum import LNSFormat, LNSTensor, cli, lns4f1, lns6f2, lns8f5, lns16f10, lns32f23
from lnsnum.files import single as single_file
from lnsnum.toolbox.inspection import inspect_weights
from lnsnum.toolbox.loss import Loss, loss_between
from lnsnum.toolbox.plots import MOST_PANELS, common_histogram, plot_codes
from lnsnum.toolbox.reading import natural
from lnsnum.weight_file import WeightFileError, save_weights

FORMATS = [LNSFormat(3, 0), lns4f1, lns6f2, lns8f5, LNSFormat(9, 2), LNSFormat(12, 0, base=1.5), lns16f10]
FORMATS += [LNSFormat(17, 9), LNSFormat(20, 18), LNSFormat(25, 14, base=1.5), lns32f23]

OFFSETS = [(), (1,), (5,), (3, 1), (3, 5), (2, 1, 1), (2, 3, 1), (2, 1, 5), (1, 3, 1), (2, 3, 5)]
"""Shapes of log_offset for tensors of the shape (2, 3, 5)."""


run = run_command


def whole(tensor):
    """Sign, m and E of all codes of a tensor, as arrays of integers."""
    codes = np.asarray(tensor.codes).astype(np.int64)
    half = 1 << (tensor.fmt.bits - 1)
    m = codes % half
    return codes // half, m, m - half // 2 + np.broadcast_to(np.asarray(tensor.log_offset, np.int64), m.shape)


def floats(tensor):
    """The values of a tensor, within 1e-12."""
    if not isinstance(tensor, LNSTensor):
        return tensor.astype(np.float64)
    sign, m, log = whole(tensor)
    x = (1.0 - 2.0 * sign) * np.exp2(log * (math.log2(tensor.fmt.base) / 2**tensor.fmt.fraction_bits))
    return np.where(m == 0, np.where(sign == 1, np.nan, 0.0), x)


def random_tensor(fmt, seed, shape=(2, 3, 5), offsets=()):
    rng = np.random.default_rng(seed)
    edges = [0, 1, fmt.max_magnitude, fmt.sign_bit, fmt.sign_bit + 1, 2 * fmt.sign_bit - 1]
    codes = rng.integers(0, 1 << fmt.bits, shape, np.uint64)
    codes = np.where(rng.random(shape) < 0.5, rng.choice(edges, shape).astype(np.uint64), codes).astype(fmt.dtype)
    return LNSTensor(codes, fmt, log_offset=rng.integers(-9, 9, offsets, np.int32))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that small tensors have several blocks."""
    monkeypatch.setattr(single_file, "BLOCK", 8)


# ------------------------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_codes_are_counted(tmp_path, fmt, packed):
    for seed, offsets in enumerate(OFFSETS):
        tensor = random_tensor(fmt, seed, offsets=offsets)
        save_weights(tmp_path / "w", {"w": tensor}, packed=packed)
        (report,) = inspect_weights(tmp_path / "w").tensors
        sign, m, log = whole(tensor)
        number = m > 0
        assert (report.name, report.shape, report.elements) == ("w", (2, 3, 5), 30)
        is_packed = packed and fmt.bits not in (8, 16, 32)
        stored = -(-30 * fmt.bits // 8) if is_packed else 30 * fmt.dtype.itemsize
        assert report.bytes == stored + (0 if isinstance(tensor.log_offset, int) else 4 * tensor.log_offset.size)
        assert report.bits == report.bytes * 8 / 30
        assert report.zeros == ((m == 0) & (sign == 0)).sum()
        assert report.nans == ((m == 0) & (sign == 1)).sum()
        assert report.negative == (number & (sign == 1)).sum()
        assert report.infinities == 0
        codes, summary = report.codes, report.codes.summary
        assert (codes.fmt, codes.packed, codes.scales) == (fmt, is_packed, np.size(tensor.log_offset))
        assert codes.offsets == (np.min(tensor.log_offset), np.max(tensor.log_offset))
        assert summary.at_smallest == (m == 1).sum()
        assert summary.at_greatest == (m == m.dtype.type(2 ** (fmt.bits - 1) - 1)).sum()
        assert summary.magnitudes == (m[number].min(), m[number].max())
        assert codes.logs == (log[number].min(), log[number].max())
        assert summary.distinct == (len(set(tensor.codes.reshape(-1).tolist())) if fmt.bits <= 16 else None)
        assert codes.share_of_codes == (summary.distinct / 2**fmt.bits if fmt.bits <= 16 else None)
        values = np.abs(floats(tensor)[number])
        np.testing.assert_allclose(report.used, [values.min(), values.max()], rtol=1e-12)
        steps = math.log2(fmt.base) / 2**fmt.fraction_bits
        ends = 1 - 2 ** (fmt.bits - 2) + codes.offsets[0], 2 ** (fmt.bits - 2) - 1 + codes.offsets[1]
        np.testing.assert_allclose(codes.range, np.exp2(np.array(ends) * steps), rtol=1e-10)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_histograms_have_at_most_256_bins(tmp_path, fmt):
    for seed, offsets in enumerate([(), (3, 1)]):
        tensor = random_tensor(fmt, seed, offsets=offsets)
        save_weights(tmp_path / "w", {"w": tensor})
        (report,) = inspect_weights(tmp_path / "w").tensors
        _, m, log = whole(tensor)
        for bins, values in ((report.codes.summary.histogram, m), (report.codes.log_histogram, log)):
            expected = [0] * len(bins.counts)
            for value in values[m > 0].tolist():
                expected[(value - bins.first) // bins.width] += 1
            assert list(bins.counts) == expected
            assert bins.first <= values[m > 0].min()
            assert len(bins.counts) <= 256
            assert bins.width == 1 or len(bins.counts) > 128


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ml_dtypes.bfloat16, "i8", "i4", "u8", "u1", "i1", "?"], ids=str)
def test_plain_numbers_are_counted(tmp_path, dtype):
    dtype = np.dtype(dtype)
    numbers = [0, 1, 3, 100, 0, 7, 2, 0, 1, 5, 90, 3]
    if dtype.kind not in "ub":
        numbers += [-1, -120, -2]
    array = np.array(numbers).astype(dtype)
    if dtype.kind in "fV":
        array = np.concatenate([array, np.array([np.nan, -np.inf, np.inf, -0.0, -np.nan, 0.125]).astype(dtype)])
    save_weights(tmp_path / "w", {"w": array})
    (report,) = inspect_weights(tmp_path / "w").tensors
    x = array.astype(np.float64)
    size = np.abs(x[np.isfinite(x) & (x != 0)])
    assert (report.codes, report.used, report.dtype) == (None, (size.min(), size.max()), dtype.name)
    assert (report.zeros, report.negative) == ((x == 0).sum(), (x < 0).sum())
    assert (report.nans, report.infinities) == (np.isnan(x).sum(), np.isinf(x).sum())


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ml_dtypes.bfloat16], ids=str)
def test_signaling_nans_are_nans(tmp_path, dtype):
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    pattern = np.array([np.inf]).astype(dtype).view(bits) + bits.type(1)
    save_weights(tmp_path / "w", {"w": np.concatenate([pattern.view(dtype), np.ones(2, dtype)])})
    save_weights(tmp_path / "l", {"w": LNSTensor.from_codes([64, 64, 64], lns8f5)})
    (report,) = inspect_weights(tmp_path / "w", source=tmp_path / "l").tensors
    assert (report.nans, report.loss.to_nan, report.loss.finite, report.loss.changed) == (1, 1, 2, 1)


@pytest.mark.parametrize("empty", [np.zeros((0, 3), np.float32), LNSTensor(np.zeros((0, 3), np.uint8), lns8f5)])
def test_tensors_of_nothing(tmp_path, empty):
    save_weights(tmp_path / "w", {"w": empty})
    report = inspect_weights(tmp_path / "w", source=tmp_path / "w")
    (tensor,) = report.tensors
    assert (tensor.elements, tensor.bits, tensor.used, tensor.loss) == (0, None, None, Loss())
    assert (report.elements, report.bits, report.loss) == (0, None, Loss() if tensor.codes is not None else None)


def test_zeros_and_nans_alone_have_no_magnitude(tmp_path):
    for fmt, offset in ((lns8f5, 3), (lns32f23, 3), (lns8f5, np.array([1, 2], np.int32))):
        save_weights(tmp_path / "w", {"w": LNSTensor.from_codes([0, fmt.nan_code], fmt, log_offset=offset)})
        (tensor,) = inspect_weights(tmp_path / "w").tensors
        assert (tensor.used, tensor.codes.logs, tensor.codes.summary.magnitudes) == (None, None, None)
        assert (tensor.zeros, tensor.nans, tensor.negative) == (1, 1, 0)


# -------------------------------------------------------------------------------------------------------------- losses


def expected_loss(x, y):
    """By NumPy, on the whole arrays."""
    with np.errstate(all="ignore"):
        d = np.abs(x - y)
        finite = np.isfinite(d)
        nonzero = finite & (x != 0)
        return {
            "elements": x.size,
            "finite": finite.sum(),
            "changed": ((x != y) & ~(np.isnan(x) & np.isnan(y))).sum(),
            "signal": (x[finite] ** 2).sum(),
            "noise": (d[finite] ** 2).sum(),
            "greatest_relative": (d[nonzero & (y != 0)] / np.abs(x[nonzero & (y != 0)])).max(initial=0),
            "greatest_absolute": d[finite].max(initial=0),
            "zeroed": ((y == 0) & (x != 0) & ~np.isnan(x)).sum(),
            "unzeroed": ((x == 0) & (y != 0) & ~np.isnan(y)).sum(),
            "to_nan": (np.isnan(y) & ~np.isnan(x)).sum(),
            "from_nan": (np.isnan(x) & ~np.isnan(y)).sum(),
        }


def in_plain_units(loss):
    content = dict(vars(loss))
    unit = content.pop("exponent")
    return content | {name: math.ldexp(content[name], 2 * unit) for name in ("signal", "noise")}


doubles = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf]), st.floats(-1e100, 1e100))


@given(st.lists(st.tuples(doubles, doubles), max_size=20))
@example([(x, y) for x in (0.0, -0.0, 1.0, math.nan, math.inf, -math.inf) for y in (0.0, 2.0, math.nan, math.inf)])
def test_a_loss_is_what_numpy_says(pairs):
    x, y = (np.array([pair[i] for pair in pairs], np.float64) for i in (0, 1))
    loss = loss_between(x, y)
    assert in_plain_units(loss) == pytest.approx(expected_loss(x, y), rel=1e-12)
    both = loss_between(x[:3], y[:3]) + loss_between(x[3:], y[3:])
    assert in_plain_units(both) == pytest.approx(in_plain_units(loss), rel=1e-12)


def test_the_ratio_has_its_edges():
    assert loss_between(np.array([3.0]), np.array([2.7])).sqnr_db == pytest.approx(20.0)
    assert Loss().sqnr_db == loss_between(np.ones(3), np.ones(3)).sqnr_db == math.inf
    assert loss_between(np.zeros(3), np.ones(3)).sqnr_db == -math.inf
    for size in (1e-310, 1e-200, 1e-100, 1e100, 1e200, 1e307):  # the squares of most are no doubles
        x, y = np.array([3.0, 1.0, 0.0]) * size, np.array([2.7, 1.0, 0.0]) * size
        rel = 1e-3 if size < 1e-300 else 1e-9
        assert loss_between(x, y).sqnr_db == pytest.approx(10 * math.log10(10 / 0.09), rel=rel)
        assert (loss_between(x, y) + loss_between(y, y)).sqnr_db == pytest.approx(
            10 * math.log10(18.29 / 0.09), rel=rel
        )
    huge = loss_between(np.array([1e300]), np.array([0.9e300])) + loss_between(np.array([1.0]), np.array([2.0]))
    assert huge.sqnr_db == pytest.approx(20.0)


@pytest.mark.parametrize("kind", ["safetensors", "npz", "codes"])
def test_the_original_can_be_of_any_kind(tmp_path, kind):
    rng = np.random.default_rng(0)
    for seed, offsets in enumerate(OFFSETS):
        for fmt in (lns6f2, lns8f5, lns16f10, lns32f23):
            tensor = random_tensor(fmt, seed, offsets=offsets)
            with np.errstate(all="ignore"):
                original = (floats(tensor) * rng.normal(1, 0.1, tensor.shape)).astype(np.float32)
            source = tmp_path / f"source.{kind}"
            if kind == "safetensors":
                safetensors.numpy.save_file({"w": original}, source)
            elif kind == "npz":
                np.savez(source, w=original)
            else:
                original = random_tensor(LNSFormat(10, 4), seed + 1, offsets=OFFSETS[-1 - seed])
                save_weights(source, {"w": original})
            save_weights(tmp_path / "w", {"w": tensor}, packed=True)
            (report,) = inspect_weights(tmp_path / "w", source=source).tensors
            expected = expected_loss(floats(original).reshape(-1), floats(tensor).reshape(-1))
            assert in_plain_units(report.loss) == pytest.approx(expected, rel=1e-9)


def test_channels_with_many_elements_and_many_scales(tmp_path, monkeypatch):
    """Every way of decoding a block: runs of one scale, few scales, more scales than a table each is for."""
    monkeypatch.setattr(single_file, "BLOCK", 1 << 13)
    rng = np.random.default_rng(1)
    for shape, offsets in (((3, 5000), (3, 1)), ((300, 90), (300, 1)), ((90, 300), (300,)), ((20, 30), (20, 30))):
        fmt = lns8f5
        scale = rng.permutation(np.arange(math.prod(offsets), dtype=np.int32)).reshape(offsets) - 40
        tensor = LNSTensor(rng.integers(0, 256, shape, np.uint8), fmt, log_offset=scale)
        save_weights(tmp_path / "w", {"w": tensor})
        values = floats(tensor)
        np.savez(tmp_path / "s.npz", w=values)
        (report,) = inspect_weights(tmp_path / "w", source=tmp_path / "s.npz").tensors
        assert report.loss.greatest_relative < 1e-13
        assert report.loss.signal == pytest.approx(np.nansum(values**2))
        assert (report.loss.finite, report.loss.to_nan, report.loss.zeroed) == (np.isfinite(values).sum(), 0, 0)


def test_what_the_original_lacks_is_noted(tmp_path):
    x = np.ones((2, 3), np.float32)
    save_weights(tmp_path / "w", {"a": x, "b": x, "c": x})
    np.savez(tmp_path / "s.npz", a=x, b=x.T)
    a, b, c = inspect_weights(tmp_path / "w", source=tmp_path / "s.npz").tensors
    assert (a.loss.noise, a.note) == (0.0, "")
    assert (b.loss, b.note) == (None, "of shape (3, 2) in the original")
    assert (c.loss, c.note) == (None, "not in the original")
    with pytest.raises(WeightFileError, match=r"s\.npz: it has none of the 1 tensors of the inspected file, by name"):
        inspect_weights(tmp_path / "w", source=tmp_path / "s.npz", only=["c"])


def test_progress_ends_with_all_bytes(tmp_path):
    save_weights(tmp_path / "w", {"a": np.zeros(30), "b": np.zeros(3, np.uint8)})
    told = []
    inspect_weights(tmp_path / "w", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (243, 243)


# ---------------------------------------------------------------------------------------------------------- the command


GOLDEN = {
    "file": "w",
    "kind": "lnsnum",
    "metadata": {"card": "long " * 40 + "\x1b[31m"},
    "tensors": [
        {
            "name": "a\x1b[31m",
            "format": "lns4f1",
            "dtype": "uint8",
            "shape": [2, 4],
            "elements": 8,
            "bytes": 12,  # of which two log_offsets have 8
            "bits": 12.0,
            "used": [0.5, 8.0],
            "zeros": 2,
            "nans": 1,
            "infinities": 0,
            "negative": 2,
            "codes": {
                "packed": True,
                "log_offset": {"least": 1, "greatest": 3, "count": 2},
                "range": [0.5, 8.0],
                "range_log2": [-1.0, 3.0],
                "used_log2": [-1.0, 3.0],
                "magnitudes": [1, 7],
                "distinct": 7,
                "share": 0.4375,
                "at_greatest": 1,
                "at_smallest": 1,
                "histogram": {"first": 1, "width": 1, "counts": [1, 1, 0, 1, 0, 1, 1]},
            },
            "loss": {
                "elements": 8,
                "finite": 7,
                "changed": 1,
                "greatest_relative": 0.0,
                "greatest_absolute": 0.5,
                "to_zero": 1,
                "from_zero": 0,
                "to_nan": 0,
                "from_nan": 0,
            },
        },
        {
            "name": "b",
            "format": None,
            "dtype": "float32",
            "shape": [3],
            "elements": 3,
            "bytes": 12,
            "bits": 32.0,
            "used": [2.0, 2.0],
            "zeros": 1,
            "nans": 0,
            "infinities": 1,
            "negative": 2,
            "note": "not in the original",
        },
    ],
    "totals": {"tensors": 2, "elements": 11, "bytes": 24, "bits": 192 / 11},
}
GOLDEN["totals"]["loss"] = GOLDEN["tensors"][0]["loss"]


def golden_files(folder):
    """Bias 4, two codes an octave: at offset 1, m = 1 is 2^-1 and m = 2, 4 are 2^-0.5, 2^0.5; at 3, m = 7 is 2^3."""
    codes = [[1, 2, 8 + 4, 0], [7, 8 + 6, 8, 0]]
    tensor = LNSTensor(np.uint8(codes), lns4f1, log_offset=np.array([[1], [3]], np.int32))
    save_weights(
        folder / "w",
        {"a\x1b[31m": tensor, "b": np.float32([0, -2, -np.inf])},
        metadata=GOLDEN["metadata"],
        packed=True,
    )
    original = np.array([[0.5, 2**-0.5, -(2**0.5), 0.5], [8.0, -(2**2.5), np.nan, 0.0]])
    safetensors.numpy.save_file({"a\x1b[31m": original}, folder / "s")


def test_golden_json(tmp_path, capsys, monkeypatch):
    golden_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, monkeypatch, "inspect", "w", "--source", "s", "--json", "--histogram")
    assert (code, err, "\x1b" in out) == (0, "", False)
    content = json.loads(out)
    for mine in (content["tensors"][0]["loss"], content["totals"]["loss"]):
        assert mine.pop("sqnr_db") == pytest.approx(10 * math.log10((0.25 + 0.5 + 2 + 0.25 + 64 + 32) / 0.25))
    assert content == GOLDEN
    del content["tensors"][0]["codes"]["histogram"]
    _, out, _ = run(capsys, monkeypatch, "inspect", "w", "--json")
    bare = json.loads(out)
    assert bare["tensors"][0].keys() == content["tensors"][0].keys() - {"loss"}
    assert bare["tensors"][0]["codes"] == content["tensors"][0]["codes"]


def cells(out, first):
    """The cells of the rows of all tables whose first cell is this."""
    rows = ([cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line[:1] == "│")
    return [row[1:] for row in rows if row[0] == first]


def test_tables(tmp_path, capsys, monkeypatch):
    golden_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, monkeypatch, "inspect", "w", "--source", "s", "--histogram")
    assert (code, err, "\x1b" in out) == (0, "", False)
    assert cells(out, r"'a\x1b[31m'") == [
        ["lns4f1, packed", "2 x 4", "8", "12", "12", "1 .. 3 (2)"],
        ["0.5 .. 8", "0.5 .. 8", "1 .. 7"],
        ["43.8 %", "12.5 %", "12.5 %", "25 %", "12.5 %", "25 %"],
        ["25.98", "0", "12.5 %", "12.5 %", "0"],
    ]
    assert cells(out, "b")[0] == ["float32", "3", "3", "12", "32", ""]
    assert cells(out, "b")[3] == ["not in the original", "", "", "", ""]
    ((card,),) = cells(out, "card")
    assert card == ("long " * 40)[: 200 - len("entry") - 7 - 3] + "..."
    assert "w: 2 tensors, 1 of them LNS: 11 elements in 24 bytes, 17.45 bits each\n" in out
    assert "the highest bar is 1 code, 1 m wide\n  |██ █ ██|\n" in out


def test_magnitudes_beyond_doubles_are_shown_by_their_logarithms(tmp_path, capsys, monkeypatch):
    save_weights(tmp_path / "w", {"w": LNSTensor.from_codes([1, 127], lns8f5, log_offset=1 << 20)})
    code, out, _ = run(capsys, monkeypatch, "inspect", tmp_path / "w")
    assert (code, cells(out, "w")[1]) == (0, ["2^3.277e+04 .. 2^3.277e+04"] * 2 + ["1 .. 127"])
    _, out, _ = run(capsys, monkeypatch, "inspect", tmp_path / "w", "--json")
    (tensor,) = json.loads(out)["tensors"]
    assert tensor["used"] == [None, None]
    assert tensor["codes"]["used_log2"] == [(2**20 - 63) / 32, (2**20 + 63) / 32]


def test_a_file_without_tensors_and_one_of_many_bins(tmp_path, capsys, monkeypatch):
    save_weights(tmp_path / "w", {})
    code, out, _ = run(capsys, monkeypatch, "inspect", tmp_path / "w", "--histogram")
    assert (code, "0 tensors, 0 of them LNS: 0 elements in 0 bytes\n" in out) == (0, True)
    save_weights(
        tmp_path / "w",
        {"": LNSTensor.from_codes([1, 2**30, 2**31 - 1], lns32f23), "none": LNSTensor.from_codes([0], lns8f5)},
    )
    code, out, _ = run(capsys, monkeypatch, "inspect", tmp_path / "w", "--histogram")
    assert f"|█{' ' * 30}█{' ' * 31}█|" in out
    assert "'' (lns32f23)" in out
    assert f"|{' ' * 64}|" in out


def test_only_takes_patterns_each_of_which_matches_something(tmp_path, capsys, monkeypatch):
    save_weights(tmp_path / "w", {name: np.zeros(1) for name in ("fc.weight", "fc.bias", "Fc", "x")})
    for patterns, names in (
        (["fc.*"], ["fc.bias", "fc.weight"]),
        (["*.bias", "[F]c", "f*.bias"], ["Fc", "fc.bias"]),
        ([], ["Fc", "fc.bias", "fc.weight", "x"]),
    ):
        assert [tensor.name for tensor in inspect_weights(tmp_path / "w", only=patterns).tensors] == names
        options = [part for pattern in patterns for part in ("--only", pattern)]
        code, out, _ = run(capsys, monkeypatch, "inspect", tmp_path / "w", *options, "--json")
        assert (code, [tensor["name"] for tensor in json.loads(out)["tensors"]]) == (0, names)
    for patterns in (["y*"], ["fc.*", "y*"], ["y*", "x"]):
        options = [part for pattern in patterns for part in ("--only", pattern)]
        code, out, err = run(capsys, monkeypatch, "inspect", tmp_path / "w", *options)
        assert (code, out, err) == (2, "", f"error: {tmp_path / 'w'}: no tensor's name matches 'y*'")
    with pytest.raises(TypeError, match="only='fc' is one pattern: give a sequence"):
        inspect_weights(tmp_path / "w", only="fc")


def test_the_total_is_of_lns_tensors_alone(tmp_path, capsys, monkeypatch):
    """A counter of steps, whose square is above any noise, is told by itself."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 300))
    counter = np.array([10**12])
    tensors = {"a": LNSTensor.from_float(x, lns8f5), "b": LNSTensor.from_float(y, lns6f2)}
    save_weights(tmp_path / "w", {**tensors, "counter": counter, "plain": x})
    np.savez(tmp_path / "s.npz", a=x, b=y, counter=counter, plain=x + 1)
    report = inspect_weights(tmp_path / "w", source=tmp_path / "s.npz")
    before, after = np.concatenate([x, y]), np.concatenate([floats(tensor) for tensor in tensors.values()])
    assert in_plain_units(report.loss) == pytest.approx(expected_loss(before, after), rel=1e-9)
    _, out, _ = run(capsys, monkeypatch, "inspect", tmp_path / "w", "--source", tmp_path / "s.npz")
    assert [cells(out, name)[-1][0] for name in ("counter", "plain", "all LNS tensors")] == [
        "exact", f"{10 * math.log10(((x + 1) ** 2).sum() / 300):.2f}", f"{report.loss.sqnr_db:.2f}"
    ]  # fmt: skip
    _, out, _ = run(capsys, monkeypatch, "inspect", tmp_path / "w", "--source", tmp_path / "s.npz", "--json")
    assert json.loads(out)["totals"]["loss"]["sqnr_db"] == report.loss.sqnr_db
    report = inspect_weights(tmp_path / "w", source=tmp_path / "s.npz", only=["counter", "plain"])
    assert ([tensor.loss is None for tensor in report.tensors], report.loss) == ([False, False], None)


def test_many_tensors_are_summed_up_by_format_first(tmp_path, capsys, monkeypatch):
    tensors = {f"layer.{n}": random_tensor(lns6f2, n) for n in range(9)} | {"b": random_tensor(lns8f5, 1)}
    save_weights(tmp_path / "few", tensors)
    assert "summary" not in run(capsys, monkeypatch, "inspect", tmp_path / "few")[1]
    save_weights(tmp_path / "w", tensors | {"plain": np.arange(300.0), "empty": np.zeros((0, 3), np.int32)})
    with np.errstate(all="ignore"):
        np.savez(tmp_path / "s.npz", **{name: floats(tensor) * 1.01 for name, tensor in tensors.items()})
    _, out, _ = run(capsys, monkeypatch, "inspect", tmp_path / "w", "--source", tmp_path / "s.npz")
    lines = out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'w'}: 12 tensors, 10 of them LNS: 600 elements in 2,700 bytes")
    assert lines[1].strip() == "summary"
    report = inspect_weights(tmp_path / "w", source=tmp_path / "s.npz")
    narrow = [tensor for tensor in report.tensors if tensor.codes is not None and tensor.codes.fmt == lns6f2]
    assert [len(cells(out, kind)) for kind in ("lns8f5", "int64")] == [1, 0]
    rows = {kind: cells(out, kind)[0] for kind in ("lns6f2", "float64", "int32")}
    zeros, nans = sum(tensor.zeros for tensor in narrow), sum(tensor.nans for tensor in narrow)
    greatest = sum(tensor.codes.summary.at_greatest for tensor in narrow)
    assert rows["lns6f2"][:5] == ["9", "270", "270", "8", f"{100 * greatest / 270:.3g} %"]
    assert rows["lns6f2"][6:8] == [f"{100 * zeros / 270:.3g} %", f"{100 * nans / 270:.3g} %"]
    assert rows["lns6f2"][8] == f"{sum((tensor.loss for tensor in narrow), Loss()).sqnr_db:.2f}"
    assert rows["float64"] == ["1", "300", "2,400", "64", "", "", "0.333 %", "0", ""]
    assert rows["int32"][:4] == ["1", "0", "0", ""]


def test_metadata_have_the_room_that_the_console_has(tmp_path, capsys, monkeypatch):
    text = "0123456789" * 30
    save_weights(tmp_path / "w", {}, metadata={"a longer key": text, "wide": "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 200})
    monkeypatch.setenv("COLUMNS", "130")
    monkeypatch.setattr(sys, "argv", ["lnsnum", "inspect", str(tmp_path / "w")])
    with pytest.raises(SystemExit):
        cli.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line[:1] == "│"]
    room = 130 - len("a longer key") - 7
    assert rows[0] == f"│ a longer key │ {text[: room - 3]}... │"
    assert rows[1] == f"│ wide         │ {chr(0x4E00) * ((room - 3) // 2)}... │"
    assert len(rows) == 2


@pytest.mark.parametrize("count", [2, MOST_PANELS + 5])
def test_a_plot_is_a_picture(tmp_path, capsys, monkeypatch, count):
    rng = np.random.default_rng(0)
    names = ["$a_{", "\x1b[31m", "\N{SNOWMAN}\U00102345"] + [f"t{i}" * 30 for i in range(count)]
    formats = [lns8f5, lns32f23, lns6f2]
    weights = {
        name: LNSTensor(rng.integers(0, 64, 50).astype(fmt.dtype), fmt, log_offset=-5)
        for name, fmt in zip(names[:count], formats * count, strict=False)
    }
    weights["zeros"] = LNSTensor(np.zeros((2, 3), np.uint8), lns8f5, log_offset=np.array([[1], [2]], np.int32))
    save_weights(tmp_path / "w", weights)
    code, out, err = run(capsys, monkeypatch, "inspect", tmp_path / "w", "--plot", tmp_path / "p.png")
    assert (code, err) == (0, "")
    assert out.endswith("p.png: the histograms\n")
    height, width, _ = matplotlib.image.imread(tmp_path / "p.png").shape
    rows = -(-(min(count + 1, MOST_PANELS) + 1) // 4)
    assert (width > 700, height > 200 * rows) == (True, True)
    assert sorted(os.listdir(tmp_path)) == ["p.png", "w"]


def test_the_plot_over_all_keeps_every_number(tmp_path):
    tensors = {str(i): random_tensor(fmt, i, (20, 20)) for i, fmt in enumerate(FORMATS)}
    save_weights(tmp_path / "w", tensors)
    reports = inspect_weights(tmp_path / "w").tensors
    edges, counts = common_histogram([report.codes for report in reports])
    assert counts.sum() == pytest.approx(sum((whole(tensor)[1] > 0).sum() for tensor in tensors.values()))
    assert (np.diff(edges) > 0).all()
    ours = {"0": reports[0].codes}
    edges, counts = common_histogram([ours["0"]])
    assert counts.tolist() == list(ours["0"].log_histogram.counts)
    np.testing.assert_allclose(edges, np.arange(4) - 1.5 + np.asarray(tensors["0"].log_offset))


@pytest.mark.parametrize("offset", [0, -8, np.array([[-8], [5]], np.int32)], ids=str)
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_a_histogram_ends_half_a_step_beyond_the_format(tmp_path, fmt, offset):
    """lns4f1 at -8: m = 1 is 2^-5.5, and so the edge is -5.75."""
    save_weights(tmp_path / "w", {"w": LNSTensor.from_codes([[1], [fmt.max_magnitude]], fmt, log_offset=offset)})
    (report,) = inspect_weights(tmp_path / "w").tensors
    edges, counts = common_histogram([report.codes])
    half_step = math.log2(fmt.base) / 2**fmt.fraction_bits / 2
    least, greatest = int(np.min(offset)), int(np.max(offset))
    steps = 2 * (1 - 2 ** (fmt.bits - 2) + least) - 1, 2 * (2 ** (fmt.bits - 2) - 1 + greatest) + 1
    np.testing.assert_allclose(edges[[0, -1]], np.multiply(steps, half_step), rtol=1e-12)
    assert (counts[0], counts[-1], counts.sum()) == (1, 1, 2)
    assert (np.diff(edges) > 0).all()
    if (fmt, least, greatest) == (lns4f1, -8, -8):
        assert edges.tolist() == [-5.75, -5.25, -4.75, -4.25, -3.75, -3.25, -2.75, -2.25]


def test_panels_are_of_numbers_per_octave_and_name_their_lines(tmp_path, monkeypatch):
    """Of one tensor in whole bins of a quarter octave, and of two in others: the areas are the numbers."""
    figures = []
    monkeypatch.setattr("lnsnum.toolbox.plots.Figure.savefig", lambda figure, *_, **__: figures.append(figure))
    tensors = {name: random_tensor(fmt, 1, (20, 20)) for name, fmt in (("a", lns6f2), ("b", lns16f10))}
    save_weights(tmp_path / "w", tensors)
    report = inspect_weights(tmp_path / "w")
    plot_codes(tmp_path / "p.png", report)
    ((first, second, both, *_),) = [figure.axes for figure in figures]
    numbers = [(whole(tensor)[1] > 0).sum() for tensor in tensors.values()]
    for axis, expected in ((first, numbers[0]), (second, numbers[1]), (both, sum(numbers))):
        heights, edges, _ = axis.patches[0].get_data()
        assert (heights * np.diff(edges)).sum() == pytest.approx(expected)
        assert axis.get_ylabel() == "numbers per octave"
    ends = [-15.5 / 4 + tensors["a"].log_offset / 4, 15.5 / 4 + tensors["a"].log_offset / 4]
    assert [line.get_xdata()[0] for line in first.lines] == pytest.approx(ends)
    assert (len(second.lines), len(both.lines)) == (2, 0)
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == [
        "ends of the format at the tensor's scale"
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none"], "error: none: there is no such file"),
        (["."], "error: . is a folder, not a weight file"),
        (["text"], "error: text: its kind is not known; "),
        (["w", "--source", "none"], "error: none: there is no such file"),
        (["w", "--source", "other"], "error: other: it has none of the 1 tensors of the inspected file, by name"),
        (["w", "--plot", "p.xyz"], "error: --plot p.xyz: the ending is none of "),
        (["w", "--plot", "no/p.png"], "error: --plot no/p.png: there is no folder "),
        (["w", "--plot", "p.png"], "error: --plot p.png: no tensor that was inspected has codes to draw"),
    ],
)
def test_what_is_refused(tmp_path, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    save_weights("w", {"w": np.zeros(2)})
    save_weights("other", {"x": np.zeros(2)})
    Path("text").write_text("no file of tensors")
    code, out, err = run(capsys, monkeypatch, "inspect", *arguments)
    assert (code, out, err.startswith(sentence), err.count("error:")) == (2, "", True, 1), err
    assert sorted(os.listdir(".")) == ["other", "text", "w"]


def test_a_damaged_tensor_is_no_report(tmp_path, capsys, monkeypatch):
    path = save_weights(tmp_path / "w", {"w": LNSTensor(np.arange(30, dtype=np.uint8), lns8f5)})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, out, err = run(capsys, monkeypatch, "inspect", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path}: tensor 'w' is damaged: its checksum is ")


def test_torch_stays_out(tmp_path):
    """And nothing but the report is on stdout, in a process of its own."""
    golden_files(tmp_path)
    code = (
        "import sys; from lnsnum import cli; sys.argv = ['lnsnum', 'inspect', 'w', '--source', 's', '--json']\n"
        "try: cli.main()\n"
        "except SystemExit as stopped: assert not stopped.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert (json.loads(done.stdout)["file"], done.stderr) == ("w", "")


@settings(max_examples=25)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__"))
@example("\x1b]0;title\x07")
@example("\u202e\x9b31m")
def test_any_name_is_printed_in_one_safe_line(name):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = save_weights(Path(folder, "w"), {name: LNSTensor.from_codes([1], lns8f5)}, metadata={name: name})
        patch.setattr(sys, "argv", ["lnsnum", "inspect", str(path), "--histogram"])
        patch.setenv("COLUMNS", "200")
        with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
            patch.setattr(sys, "stdout", out)
            with pytest.raises(SystemExit) as stopped:
                cli.main()
            out.seek(0)
            text = out.read()
    assert not stopped.value.code
    assert all(character.isprintable() or character == "\n" for character in text)


def test_numbers_within_names_count_as_numbers(tmp_path):
    """Layer 10 stands behind layer 2, whatever zeros a number begins with, and any names can be told apart."""
    names = ["h.10.w", "h.9.w", "h.1.w", "a", "h", "h.01.w", "h.1.b", "", "10", "9", "9" * 5000]
    expected = ["", "9", "10", "9" * 5000, "a", "h", "h.1.b", "h.01.w", "h.1.w", "h.9.w", "h.10.w"]
    assert sorted(names, key=natural) == expected
    path = save_weights(tmp_path / "w.safetensors", {f"layer{n}": np.zeros(1, np.float32) for n in range(12)})
    assert [tensor.name for tensor in inspect_weights(path).tensors] == [f"layer{n}" for n in range(12)]
