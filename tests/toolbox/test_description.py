"""`lnsnum describe`: figures against all numbers of the formats, the command, its picture."""

import json
import math

import matplotlib.image
import ml_dtypes
import numpy as np
import pytest
from command_line import run_command
from posit_oracle import value_of

from lnsnum import LNSFormat, lns8f3, lns8f5
from lnsnum.toolbox.description import describe, plot_formats
from lnsnum.toolbox.export_targets.memory_image import write_tables


def positive_numbers(name):
    if name.startswith("lns"):
        values = LNSFormat.parse(name).values()
    elif name.startswith("posit"):
        bits = int(name.removeprefix("posit"))
        values = np.array([float(value_of(pattern, bits)) for pattern in range(1, 2 ** (bits - 1))])
    else:
        kind = np.dtype(getattr(ml_dtypes, name, None) or name)
        with np.errstate(invalid="ignore"):  # some NaN signal
            values = np.arange(1 << (8 * kind.itemsize), dtype=f"u{kind.itemsize}").view(kind).astype(np.float64)
    return np.sort(values[np.isfinite(values) & (values > 0)])


@pytest.mark.parametrize(
    "name",
    [
        "lns8f3",
        "lns8f5",
        "lns6f0",
        "lns8f2b0x1.8000000000000p+0",
        "float8_e4m3fn",
        "float8_e5m2",
        "bfloat16",
        "float16",
        "posit8",
        "posit16",
    ],
)
def test_figures_are_those_of_all_numbers(name):
    found, values = describe(name), positive_numbers(name)
    assert (found.smallest, found.greatest, found.numbers) == (values[0], values[-1], values.size)
    normal = values[(values >= found.smallest_normal) & (values <= found.greatest_normal)]
    assert (found.greatest_normal < found.greatest) == name.startswith("posit")
    steps = normal[1:] / normal[:-1] - 1.0
    np.testing.assert_allclose(found.step, [steps.min(), steps.max()], rtol=1e-9)
    np.testing.assert_allclose(found.octaves, math.log2(values[-1]) - math.log2(values[0]))
    np.testing.assert_allclose(found.octaves_normal, math.log2(normal[-1] / normal[0]))
    # what lies half-way rounds worst; the way of LNS is the logarithmic one, and there upwards costs more
    low, high = normal[:-1], normal[1:]
    worst = np.sqrt(high / low) - 1.0 if name.startswith("lns") else (high - low) / (high + low)
    np.testing.assert_allclose(found.greatest_error, worst.max(), rtol=1e-9)
    middle = int(np.flatnonzero(values == 1.0)[0])
    np.testing.assert_array_equal(found.near_one, values[middle - 2 : middle + 3])


def test_the_mean_error_is_that_of_numbers_drawn():
    x = np.exp2(np.random.default_rng(0).uniform(-1.0, 1.0, 200_000))
    for name in ("lns8f5", "float8_e4m3fn", "lns8f3"):
        if name.startswith("lns"):
            K = LNSFormat.parse(name).codes_per_octave
            rounded = np.exp2(np.rint(np.log2(x) * K) / K)
        else:
            rounded = x.astype(getattr(ml_dtypes, name)).astype(np.float64)
        assert abs(describe(name).mean_error / np.mean(np.abs(rounded - x) / x) - 1.0) < 0.01


def test_wide_formats_and_float32():
    wide, single = describe("lns32f23"), describe("float32")
    assert (wide.memories, wide.numbers) == (None, 2**31 - 1)
    assert single.numbers == int(np.float32(np.finfo(np.float32).max).view(np.uint32))
    assert (single.step[1], single.smallest) == (2.0**-23, 2.0**-149)
    assert wide.greatest_error < single.greatest_error


def test_memories_are_those_that_export_writes(tmp_path):
    for fmt in (lns8f3, LNSFormat(7, 1, base=3.0)):
        memories, written = describe(fmt).memories, write_tables(tmp_path, fmt).tables
        for kind, entries, bits in (
            ("sb", memories.sb, memories.sum_bits), ("db", memories.db, memories.sum_bits),
            ("half", memories.half, memories.sum_bits), ("float32", memories.decode, memories.decode_bits),
            ("encode", memories.encode, memories.encode_bits),
        ):  # fmt: skip
            assert (written[kind].words, written[kind].word_bits) == (entries, bits), kind
        kinds = ("sb", "db", "half", "float32", "encode")
        assert memories.bits == sum(written[kind].words * written[kind].word_bits for kind in kinds)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    path = tmp_path / "formats.png"
    code, out, error = run_command(
        capsys, monkeypatch, "describe", "lns8f5", "--against", "float8_e4m3fn", "lns8f3", "--plot", str(path)
    )
    assert (code, error) == (0, "")
    assert [
        word in out for word in ("lns8f5", "lns8f3", "float8_e4m3fn", "1.09 %", "5.88 %", "226", "plot written")
    ] == [True] * 7
    assert matplotlib.image.imread(path).shape[2] == 4
    code, out, error = run_command(capsys, monkeypatch, "describe", "lns8f5", "--against", "posit8")
    assert (code, "greatest of full precision" in out, "2 or more regime" in out) == (0, True, True)
    code, out, error = run_command(capsys, monkeypatch, "describe", "lns8f5", "--against", "bfloat16", "--json")
    found = json.loads(out)["formats"]
    assert list(found) == ["lns8f5", "bfloat16"]
    assert found["lns8f5"]["greatest"] == lns8f5.max_value
    assert found["lns8f5"]["memories"]["sb"] == 226
    assert found["bfloat16"]["memories"] is None
    for arguments, told in (
        (["fp8"], "error: 'fp8' is no format: write lns8f5 for an LNS format, or one of float32, float16, bfloat16,"),
        (["lns8f9"], "error: fraction_bits=9 does not fit bits=8: 0 to 6"),
        (["lns8f3", "--plot", "x.abc"], "error: --plot x.abc: the ending is none of"),
    ):
        monkeypatch.chdir(tmp_path)
        code, _, error = run_command(capsys, monkeypatch, "describe", *arguments)
        assert code == 2
        assert error.startswith(told)


def test_a_picture_of_wide_formats_has_no_number_line(tmp_path):
    plot_formats(tmp_path / "wide.svg", ["lns32f23"])
    text = (tmp_path / "wide.svg").read_text()
    assert "relative error of rounding" in text or text.count("<path") > 3
