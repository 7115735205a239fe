"""Exports: what is written is read back by what it is written for, gcc, Icarus Verilog and NumPy, word for word."""

import functools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import ml_dtypes
import mpmath
import numpy as np
import pytest
from c_compiler import needs_gcc
from command_line import run_command
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnsnum import (
    GroupOffsets,
    LNSFormat,
    LNSTensor,
    arithmetic,
    decode,
    encode,
    lns6f2,
    lns8f3,
    lns8f5,
    lns12f6,
    lns32f23,
)
from lnsnum.files.packing import can_be_packed, pack
from lnsnum.kernels.codes import check_offsets
from lnsnum.toolbox.export import check_prefix, export, prefix_of
from lnsnum.toolbox.export_targets.fixed_text import c_floats, c_integers, hexadecimal
from lnsnum.toolbox.export_targets.hardware_tables import encode_table, sum_tables, why_no_sums
from lnsnum.toolbox.export_targets.plain_names import RESERVED, in_comment, plain_names
from lnsnum.weight_file import Description, WeightFileError, save_tensors, save_weights

VERILOG = Path(__file__).parents[1] / "verilog"
MADAM = LNSFormat.madam(12, 0.001)

needs_verilog = pytest.mark.skipif(
    shutil.which("iverilog") is None or shutil.which("vvp") is None, reason="Icarus Verilog is not installed"
)


def random_tensor(shape, fmt, log_offset=0, seed=0):
    """All codes are as likely, NaN and zero too."""
    codes = np.random.default_rng(seed).integers(0, 1 << fmt.bits, shape, dtype=fmt.dtype)
    return LNSTensor(codes, fmt, log_offset=check_offsets(log_offset, codes.shape))


GALLERY = {
    "conv.weight": random_tensor((4, 3, 3, 3), lns8f5, -88),
    "CONV.weight": random_tensor((3, 50), lns6f2, np.array([[1], [20], [-3]])),
    "../../etc/passwd": random_tensor((0, 3), lns8f3),
    "": random_tensor((), lns12f6, 5),
    "wide*/ /* ??/": random_tensor(70, lns32f23, 1 << 28),
    "ladder": random_tensor((20, 2), MADAM, np.array([7, -9])),
    "groups": random_tensor((3, 40), lns6f2, GroupOffsets(np.arange(9).reshape(3, 3), 16)),
    "groups of columns": random_tensor((33, 2), lns8f5, GroupOffsets([[3, -4], [5, 6]], 32, axis=-2)),
    "int": random_tensor(9, lns6f2),
    "t": random_tensor(33, LNSFormat(20, 11)),
    "\x1b[2J\n": np.array([0.1, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3e38, -1.17549435e-38], np.float32),
    "f64": np.array([[0.1, -5e-324], [np.inf, -np.inf], [np.nan, -1.7976931348623157e308]]),
    "bf": np.array([1.5, -np.inf, np.nan], ml_dtypes.bfloat16),
    "f16": np.array([1.5, 6e-8, np.inf], np.float16),
    "bool": np.array([True, False, True]),
    "scalar": np.array(-3),
    "i8": np.arange(-128, 128).astype(np.int8),
    "i16": np.array([-(2**15), 2**15 - 1, -1], np.int16),
    "i32": np.array([-(2**31), 2**31 - 1, 0], np.int32),
    "i64": np.array([-(2**63), 2**63 - 1, -1]),
    "u8": np.arange(256, dtype=np.uint8),
    "u16": np.array([0, 65535], np.uint16),
    "u32": np.array([0, 2**32 - 1], np.uint32),
    "u64": np.array([0, 2**64 - 1], np.uint64),
    "empty": np.zeros((2, 0), np.float64),
    '"\\\x00é?': np.zeros((1, 1, 2), np.uint8),
    "e" * 5000: np.ones(1, np.float32),
}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    path = tmp_path_factory.mktemp("gallery") / "Gallery-1.safetensors"
    save_weights(path, GALLERY)
    return path


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def entries_of(folder):
    return {entry["name"]: entry for entry in manifest_of(folder)["tensors"]}


def words_of(path):
    """The words of a memory, by the rules of $readmemh as far as they are used."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("//")]
    assert len({len(line) for line in lines}) <= 1
    return [int(line, 16) for line in lines]


def signed(words, bits):
    return [word - (word >> (bits - 1) << bits) for word in words]


def shell(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


# ---------------------------------------------------------------------------------------------------------------- C

MAIN = r"""
#define LNSNUM_IMPLEMENTATION
#include "gallery_1_tensors.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print(const void *bytes, size_t size) {
    size_t i;
    for (i = 0; i < size; i++) printf("%02x", ((const unsigned char *)bytes)[i]);
    printf(" ");
}

int main(void) {
    int i;
    for (i = 0; i < gallery_1_count; i++) {
        const lnsnum_tensor *tensor = gallery_1_tensors[i];
        size_t n = (size_t)tensor->count;
        lnsnum_error error;
        print("-", 1);
        print(tensor->name, tensor->name_length);
        if (lnsnum_check(tensor, &error)) { fprintf(stderr, "%s\n", error.message); return 1; }
        printf("%s ", lnsnum_dtype_name(tensor->dtype));
        if (tensor->is_lns) {
            uint32_t *codes = malloc(4 * n + 1);
            float *floats = malloc(4 * n + 1);
            double *doubles = malloc(8 * n + 1);
            if (lnsnum_codes(tensor, codes, &error) || lnsnum_to_float(tensor, floats, &error) ||
                lnsnum_to_double(tensor, doubles, &error)) return 1;
            print(codes, 4 * n);
            print(floats, 4 * n);
            print(doubles, 8 * n);
            free(codes); free(floats); free(doubles);
        } else print(tensor->data, (size_t)tensor->data_size);
        printf("\n");
    }
    return 0;
}
"""


@needs_gcc
@pytest.mark.parametrize("packed", [False, True])
def test_a_c_program_has_the_same_tensors_bit_for_bit(gallery, tmp_path, packed):
    export(gallery, tmp_path / "c", "c", packed=packed)
    (tmp_path / "c" / "main.c").write_text(MAIN)
    strict = "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"
    shell("gcc", *strict, "main.c", "gallery_1_tensors.c", "-o", "main", cwd=tmp_path / "c")
    printed = [line.split(" ") for line in shell(str(tmp_path / "c" / "main")).splitlines()]
    assert [bytes.fromhex(row[1]).decode() for row in printed] == sorted(GALLERY)
    for (_, name, dtype, *data, _), tensor in zip(printed, (GALLERY[name] for name in sorted(GALLERY)), strict=True):
        read = [bytes.fromhex(part) for part in data]
        if isinstance(tensor, LNSTensor):
            floats, doubles = (decode(tensor.codes, tensor.fmt, kind, log_offset=tensor.log_offset)
                               for kind in ("float32", "float64"))  # fmt: skip
            assert read == [tensor.codes.astype(np.uint32).tobytes(), floats.tobytes(), doubles.tobytes()], name
            assert dtype == ("U8" if packed and tensor.fmt.bits not in (8, 16, 32) else f"U{8 * tensor.codes.itemsize}")
        else:
            kind = tensor.dtype.newbyteorder("=")
            assert read == [np.asarray(tensor, kind).tobytes()], name


@needs_gcc
def test_the_source_is_c_plus_plus_to_its_users_and_may_have_no_tensor(tmp_path):
    save_weights(tmp_path / "class.safetensors", {})
    export(tmp_path / "class.safetensors", tmp_path / "out", "c")
    (tmp_path / "out" / "use.cpp").write_text('#include "class_2_tensors.h"\nint main() { return class_2_count; }\n')
    shell(
        "gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-c", "class_2_tensors.c", cwd=tmp_path / "out"
    )
    if shutil.which("g++"):
        shell("g++", "-Wall", "-Wextra", "-Werror", "-pedantic", "-c", "use.cpp", cwd=tmp_path / "out")


def c_value(text):
    """A number as C reads it: the oracle of the texts below."""
    if text in ("INFINITY", "-INFINITY", "NAN"):
        return float(text.replace("INFINITY", "inf"))
    return float.fromhex(text.removesuffix("f")) if "p" in text else eval(text.removesuffix("u"))


def numbers_of(text):
    return [c_value(row.tobytes().decode().strip().removesuffix(",")) for row in text]


def test_every_float_is_its_text():
    patterns = np.random.default_rng(0).integers(0, 1 << 64, 3000, dtype=np.uint64)
    edges = [0, 1, (1 << 23) - 1, 1 << 23, 0x7F7FFFFF, 0x7F800000, 0x7F800001]
    singles = np.concatenate([patterns.astype(np.uint32), np.array(edges, np.uint32)]).view(np.float32)
    for values in (singles, -singles, patterns.view(np.float64)):
        assert np.array_equal(np.array(numbers_of(c_floats(values)), values.dtype), values, equal_nan=True)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_every_integer_is_its_text(dtype):
    values = np.random.default_rng(0).integers(0, 1 << 64, 3000, dtype=np.uint64).astype(dtype)
    info = np.iinfo(dtype)
    values[:5] = [info.min, info.max, 0, 1, info.max - 1]
    assert numbers_of(c_integers(values)) == values.tolist()


@pytest.mark.parametrize("bits", [3, 8, 9, 16, 17, 20, 24, 31, 32])
def test_hexadecimal_words_have_the_digits_that_the_bits_need(bits):
    words = np.random.default_rng(0).integers(0, 1 << bits, 500, dtype=np.uint32)
    rows = [row.tobytes().decode() for row in hexadecimal(words, bits, before="<", after=">")]
    assert rows == [f"<{word:0{math.ceil(bits / 4)}x}>" for word in words.tolist()]


@needs_gcc
def test_the_program_of_the_page_computes_a_layer(tmp_path, monkeypatch):
    """From docs/toolbox.md: the files, the header's copy, the source and gcc's line."""
    monkeypatch.chdir(tmp_path)
    page = (VERILOG.parents[1] / "docs" / "toolbox.md").read_text(encoding="utf-8")
    files, section = page.split("## Looking into files")[1], page.split("## Reading weight files in C")[1]
    names = {}
    for text in (files, section):
        exec(re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1], names)
    source = re.search(r"^```c\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[1]
    assert source.count("\n") <= 25
    Path("layer.c").write_text(source)
    line = re.search(r"^gcc [^#\n]*", section, re.MULTILINE)[0].split()
    assert not [word for word in line if word.startswith("-l")]
    shell(*line, "-Wall", "-Wextra", "-Werror", "-pedantic")
    x = np.random.default_rng(1).normal(size=100).astype(np.float32)
    printed = shell("./layer", input=" ".join(map(str, x)))
    weight = names["weight"]
    expected = decode(weight.codes, lns8f5, "float64", log_offset=weight.log_offset) @ x.astype(np.float64)
    np.testing.assert_allclose([float(y) for y in printed.split()], expected, atol=1e-5)
    save_weights("net.safetensors", {"fc.weight": np.zeros((64, 100))})
    done = subprocess.run("./layer", capture_output=True, text=True, input="")
    assert (done.returncode, done.stdout) == (1, "fc.weight is no LNS matrix of 64 x 100\n")


# ----------------------------------------------------------------------------------------------------------- memories


def test_a_memory_to_the_byte(tmp_path):
    codes = np.array([[1, 62, 32], [0, 7, 63]], np.uint8)
    save_weights(
        tmp_path / "a.safetensors", {"fc*/": LNSTensor(codes, lns6f2, log_offset=np.array([[-3], [1]], np.int32))}
    )
    export(tmp_path / "a.safetensors", tmp_path / "out", "readmemh")
    assert (tmp_path / "out" / "fc.mem").read_bytes() == (
        b'// tensor "fc\\u002a\\u002f"\n'
        b"// shape 2 x 3, row-major; words 6; bits of a word 6\n"
        b"// format lns6f2; log_offset in fc.log_offset.mem\n"
        b"01\n3e\n20\n00\n07\n3f\n"
    )
    assert signed(words_of(tmp_path / "out" / "fc.log_offset.mem"), 32) == [-3, 1]
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("fc.*"))
    assert entries_of(tmp_path / "out")["fc*/"] == {
        "name": "fc*/", "files": ["fc.mem", "fc.log_offset.mem"], "identifier": "fc", "shape": [2, 3], "dtype": "uint8",
        "words": 6, "word_bits": 6, "bytes": written, "format": "lns6f2", "base": "0x1.0000000000000p+1",
        "log_offset": {"shape": [2, 1], "values": [-3, 1]}, "packed": False,
    }  # fmt: skip


def simulate(folder, top, parameters, *sources):
    """The numbers that a testbench prints; string parameters are quoted, as iverilog wants them."""
    quoted = [f'-P{top}.{k}="{v}"' if isinstance(v, str) else f"-P{top}.{k}={v}" for k, v in parameters.items()]
    files = [str(VERILOG / source) for source in sources]
    shell("iverilog", "-g2005", "-Wall", "-o", "simulation", "-s", top, *quoted, *files, cwd=folder)
    return [int(word, 16) for word in shell("vvp", "simulation", cwd=folder).split()]


@needs_verilog
def test_verilog_reads_codes_and_tables(gallery, tmp_path):
    done = export(gallery, tmp_path / "v", "readmemh")
    expected = {}
    for tensor in done.tensors:
        kept = GALLERY[tensor.item.name]
        expected[tensor.files[0]] = (kept.fmt.bits, kept.codes.reshape(-1).tolist())
    for tables in done.formats:
        for kind, table in tables.tables.items():
            if kind in ("sb", "db", "half"):
                words = getattr(sum_tables(tables.fmt), kind)
            elif kind == "encode":
                words = encode_table(tables.fmt).thresholds
            else:
                codes = np.arange(1 << tables.fmt.bits, dtype=tables.fmt.dtype)
                words = decode(codes, tables.fmt, "float32").view(np.uint32)
            expected[table.file] = (table.word_bits, [int(word) % (1 << table.word_bits) for word in words])
    assert len(expected) == 10 + 5 * 5
    for file, (bits, words) in expected.items():
        if words:
            parameters = {"FILE": file, "WORD_BITS": bits, "WORDS": len(words)}
            assert simulate(tmp_path / "v", "dump_memory", parameters, "dump_memory.v") == words, file
        else:
            assert words_of(tmp_path / "v" / file) == []
    (wide, twenty) = (tables for tables in done.formats if tables.fmt.bits > 16)
    assert (wide.tables, twenty.tables) == ({}, {})
    assert "more than 16 bits" in wide.left_out
    assert done.left_out.keys() == {name for name, kept in GALLERY.items() if isinstance(kept, np.ndarray)}


ADDED = [
    (lns6f2, 0), (lns8f3, 0), (LNSFormat(3, 0), 0), (LNSFormat(4, 2), 0), (LNSFormat(6, 4), 0), (LNSFormat(7, 0), 0),
    (LNSFormat(6, 1, base=16.0), 0), (LNSFormat(6, 1, base=16.0), 1), (LNSFormat(6, 0, base=4.0), 0),
    (LNSFormat(6, 0, base=4.0), -3), (LNSFormat(6, 1, base=1.7), 1), (LNSFormat(6, 0, base=1.02), 0),
    (LNSFormat(5, 0, base=1e300), 0),
]  # fmt: skip


@needs_verilog
@pytest.mark.parametrize("underflow", ["round", "saturate"])
@pytest.mark.parametrize(("fmt", "log_offset"), ADDED, ids=lambda x: str(x))
def test_an_adder_of_the_tables_is_lnsnums_sum_on_all_pairs(fmt, log_offset, underflow, tmp_path):
    done = export(None, tmp_path / "t", "readmemh", tables=[fmt])
    (tables,) = done.formats
    sb, half = tables.tables["sb"], tables.tables["half"]
    parameters = {
        "STEM": sb.file.removesuffix(".sb.mem"), "BITS": fmt.bits, "WORD_BITS": sb.word_bits, "STEPS": sb.words,
        "HALVES": half.words, "HAS_SB_TIES": int("sb_tie" in tables.tables),
        "HAS_DB_TIES": int("db_tie" in tables.tables), "ODD_OFFSET": log_offset % 2,
        "SATURATE_UNDERFLOW": int(underflow == "saturate"),
    }  # fmt: skip
    assert parameters["HAS_SB_TIES"] == (fmt.base in (4.0, 16.0))
    sums = simulate(tmp_path / "t", "add_all_pairs", parameters, "add_all_pairs.v", "lns_add.v")
    a, b = (part.astype(fmt.dtype) for part in np.divmod(np.arange(4**fmt.bits), 1 << fmt.bits))
    offsets = dict.fromkeys(["a_log_offset", "b_log_offset", "out_log_offset"], log_offset)
    expected, _ = arithmetic.add(a, b, fmt, underflow=underflow, **offsets)
    assert np.array_equal(sums, expected)


def added(a, b, fmt, a_offset, b_offset, log_offset, saturate):
    """The sum of two codes of different scales by the tables, as the page says."""
    sums, half, bias = sum_tables(fmt), 1 << (fmt.bits - 1), 1 << (fmt.bits - 2)
    (lo_m, lo_log, _), (hi_m, hi_log, sign) = sorted(
        ((code % half, code % half - bias + offset if code % half else -math.inf, code // half)
         for code, offset in ((a, a_offset), (b, b_offset))),
        key=lambda number: number[1],
    )  # fmt: skip
    if half in (a, b):
        return half
    if hi_m == 0:
        return 0
    m_hi, subtracted = hi_log + bias - log_offset, a // half != b // half
    m = m_hi
    if lo_m:
        z = hi_log - lo_log
        steps, ties = (sums.db, sums.db_tie) if subtracted else (sums.sb, sums.sb_tie)
        assert z < steps.size or sums.complete
        if subtracted and (z == 0 or (z < sums.half.size and m_hi + sums.half[z] < 1 and not saturate)):
            return 0
        m = m_hi + int(steps[z]) if z < steps.size else m_hi
        m += z < ties.size and bool(ties[z]) and (m + log_offset) % 2 == 1
    return half * sign + min(max(m, 1), half - 1)


@pytest.mark.parametrize("underflow", ["round", "saturate"])
@pytest.mark.parametrize(
    "fmt", [lns6f2, LNSFormat(7, 2), LNSFormat(6, 1, base=16.0), LNSFormat(6, 1, base=1.7)], ids=str
)
def test_the_tables_add_numbers_of_different_scales_too(fmt, underflow):
    a, b = (part.astype(fmt.dtype) for part in np.divmod(np.arange(4**fmt.bits), 1 << fmt.bits))
    for offsets in ((3, 1, 1), (-4, 9, -4), (0, 5, -7), (200, 0, 0)):
        given_offsets = dict(zip(("a_log_offset", "b_log_offset", "out_log_offset"), offsets, strict=True))
        expected, _ = arithmetic.add(a, b, fmt, underflow=underflow, **given_offsets)
        pairs = zip(a.tolist(), b.tolist(), strict=True)
        assert [added(x, y, fmt, *offsets, underflow == "saturate") for x, y in pairs] == expected.tolist()


@pytest.mark.parametrize("fmt", [lns6f2, lns8f5, LNSFormat(8, 6), LNSFormat(7, 5), LNSFormat(10, 3), MADAM], ids=str)
def test_tables_end_where_steps_do_or_at_twice_the_magnitudes(fmt, tmp_path):
    sums = sum_tables(fmt)
    export(None, tmp_path / "t", "readmemh", tables=[fmt])
    (entry,) = manifest_of(tmp_path / "t")["formats"]
    assert entry["steps_are_zero_beyond"] == sums.complete
    assert entry["tables"]["sb"]["words"] == entry["tables"]["db"]["words"] == sums.sb.size <= 2**fmt.bits - 2
    assert sums.complete or sums.sb.size == 2**fmt.bits - 2
    with mpmath.workprec(200):
        x = mpmath.mpf(fmt.base) ** (mpmath.mpf(-sums.sb.size) / (1 << fmt.fraction_bits))
        steps = [mpmath.log(1 + sign * x, fmt.base) * (1 << fmt.fraction_bits) for sign in (1, -1)]
    assert all(mpmath.nint(step) == 0 for step in steps) or not sums.complete


@pytest.mark.parametrize("fmt", [lns6f2, lns8f5, LNSFormat(8, 0), LNSFormat(9, 3, base=1.7), MADAM], ids=str)
def test_the_tables_of_sums_are_those_of_mpmath(fmt):
    with mpmath.workprec(200):
        base, steps, sums = mpmath.mpf(fmt.base), 1 << fmt.fraction_bits, sum_tables(fmt)

        def log(x):
            return steps * mpmath.log(x) / mpmath.log(base)

        powers = [base ** (mpmath.mpf(-z) / steps) for z in range(sums.sb.size)]
        assert sums.sb.tolist() == [int(mpmath.nint(log(1 + x))) for x in powers]
        assert sums.db.tolist() == [0, *(int(mpmath.nint(log(1 - x))) for x in powers[1:])]
        assert sums.half.size == max(1, min(sums.sb.size, int(mpmath.ceil(log(2)))))
        assert sums.half.tolist() == [0, *(int(mpmath.floor(log(2 - 2 * x))) for x in powers[1 : sums.half.size])]
    extremes = [*sums.sb.tolist(), *sums.db.tolist(), *sums.half.tolist()]
    limit = 1 << (sums.word_bits - 1)
    assert all(-limit <= word < limit for word in extremes)
    assert not all(-limit // 2 <= word < limit // 2 for word in extremes)


@pytest.mark.parametrize("fmt", [lns6f2, lns8f5, LNSFormat(4, 2), LNSFormat(16, 0), LNSFormat(12, 10)], ids=str)
def test_the_thresholds_of_an_octave_are_the_least_mantissas(fmt):
    table, root = encode_table(fmt), 2 << fmt.fraction_bits
    for k, mantissa in enumerate(table.thresholds.tolist(), 1):
        boundary = 1 << (2 * k - 1 + 23 * root)  # 2^((2k - 1) / root) 2^23, to the power of root
        assert (mantissa + (1 << 23)) ** root >= boundary > (mantissa - 1 + (1 << 23)) ** root
    assert table.thresholds.size == 1 << fmt.fraction_bits


@pytest.mark.parametrize("fmt", [lns6f2, lns8f3, LNSFormat(6, 4), LNSFormat(6, 0), LNSFormat(14, 3)], ids=str)
def test_floats_become_codes_by_the_thresholds_as_hardware_would(fmt):
    """Exponent, count, clip: every mantissa of normal floats near the edges of the range, and random floats."""
    table = encode_table(fmt)
    rng = np.random.default_rng(0)
    exponents = np.clip([127, 127 - (fmt.bias >> fmt.fraction_bits) - 1, 127 + (fmt.bias >> fmt.fraction_bits)], 1, 254)
    patterns = [(int(e) << 23) + np.arange(0, 1 << 23, 7) for e in exponents]
    patterns = np.concatenate([*patterns, rng.integers(1 << 23, 255 << 23, 100000)]).astype(np.uint32)
    fraction = np.searchsorted(table.thresholds, patterns & 0x7FFFFF, side="right")
    log = ((patterns >> 23).astype(np.int64) - 127 << fmt.fraction_bits) + fraction
    m = np.where(patterns < table.smallest_half, 0, np.clip(log + fmt.bias, 1, fmt.max_magnitude))
    assert np.array_equal(encode(patterns.view(np.float32), fmt), m)


@pytest.mark.parametrize("fmt", [LNSFormat(6, 1, base=1.7), LNSFormat(5, 0, base=1e300), MADAM], ids=str)
def test_other_bases_have_a_threshold_for_every_magnitude(fmt):
    table = encode_table(fmt)
    patterns = table.thresholds.astype(np.int64)
    around = np.concatenate([patterns, patterns - 1, np.arange(1, 255 << 23, 99991)])
    m = np.searchsorted(patterns, around, side="right")
    assert np.array_equal(encode(around.astype(np.uint32).view(np.float32), fmt), m)


def test_the_smallest_half_is_that_of_mpmath():
    for fmt in (lns6f2, lns8f5, LNSFormat(8, 0), LNSFormat(9, 3, base=1.7)):
        pattern = encode_table(fmt).smallest_half
        with mpmath.workprec(200):
            half = mpmath.mpf(fmt.base) ** (mpmath.mpf(-fmt.max_log) / (1 << fmt.fraction_bits)) / 2
            above, below = (float(np.uint32(p).view(np.float32)) for p in (pattern, pattern - 1))
            assert below < half <= above


def test_a_base_near_one_has_no_tables_of_sums(tmp_path):
    fmt = LNSFormat(8, 0, base=1.0 + 2.0**-40)
    (tables,) = export(None, tmp_path / "t", "readmemh", tables=[fmt]).formats
    assert tables.tables.keys() == {"float32", "encode"}
    assert tables.left_out == why_no_sums(fmt) != ""
    assert manifest_of(tmp_path / "t")["formats"][0]["base"] == "0x1.0000000001000p+0"


# -------------------------------------------------------------------------------------------------------------- NumPy


@pytest.mark.parametrize("values", ["codes", "float32", "float64"])
def test_arrays_are_what_numpy_loads(gallery, tmp_path, values):
    export(gallery, tmp_path / "n", "npy", values=values)
    entries = entries_of(tmp_path / "n")
    assert entries.keys() == GALLERY.keys()
    for name, tensor in GALLERY.items():
        array = np.load(tmp_path / "n" / entries[name]["files"][0])
        if isinstance(tensor, LNSTensor):
            expected = tensor.codes
            if values != "codes":
                expected = decode(tensor.codes, tensor.fmt, values, log_offset=tensor.log_offset)
        elif tensor.dtype == ml_dtypes.bfloat16:
            expected = tensor.view(np.uint16) if values == "codes" else tensor.astype(np.float32)
            assert entries[name].get("bits_of") == ("bfloat16" if values == "codes" else None)
        else:
            expected = tensor
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape), name
        assert array.tobytes() == expected.tobytes(), name
        assert entries[name]["dtype"] == array.dtype.name


@pytest.mark.parametrize("scales", [3, 300])
def test_scales_of_columns_go_across_blocks(tmp_path, monkeypatch, scales):
    monkeypatch.setattr("lnsnum.files.single.BLOCK", 1000)
    offsets = (np.arange(700) * 7919 % scales).astype(np.int32)
    tensor = random_tensor((11, 700), lns12f6, offsets)
    save_weights(tmp_path / "a.safetensors", {"w": tensor})
    export(tmp_path / "a.safetensors", tmp_path / "n", "npy", values="float32")
    expected = decode(tensor.codes, lns12f6, "float32", log_offset=offsets)
    assert np.load(tmp_path / "n" / "w.npy").tobytes() == expected.tobytes()


# -------------------------------------------------------------------------------------------------------------- names

names = st.text(max_size=12) | st.text("aB_.-/1é", max_size=6) | st.sampled_from(sorted(RESERVED))


@given(st.sets(names, max_size=30))
@example({"a_b", "a.b", "a_b_2", "a-b", "A_B", "a_b_2_2"})
@example({"x" * 300, "x" * 301, "x" * 100, "con", "CON", "_", "", "1", "t1", "uint8_t", "t"})
def test_identifiers_are_plain_and_no_two_alike(given_names):
    plain = plain_names(given_names)
    assert plain.keys() == given_names
    assert len({identifier.lower() for identifier in plain.values()}) == len(given_names)
    for identifier in plain.values():
        assert re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,110}", identifier)
        assert identifier.lower() not in RESERVED
        assert not identifier.endswith("_t")
    assert plain_names(sorted(given_names, reverse=True)) == plain


@given(names)
def test_comments_hold_a_name_and_end_where_they_should(name):
    comment = in_comment(name)
    assert re.fullmatch(r'"[ -~]*"', comment)
    assert not re.search(r"\*|/|\?|\\$", comment)
    assert json.loads(re.sub(r"\\U([0-9a-f]{8})", lambda m: json.dumps(chr(int(m[1], 16)))[1:-1], comment)) == name


@settings(max_examples=25, deadline=None)
@given(st.sets(names.filter(lambda name: name != "__metadata__"), min_size=1, max_size=5))
@example({"../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "a\\b"})
def test_no_name_leaves_the_folder(tmp_path_factory, given_names):
    place = tmp_path_factory.mktemp("names")
    weights = {name: np.array([i]) for i, name in enumerate(sorted(given_names))}
    save_weights(place / "w.safetensors", weights)
    export(place / "w.safetensors", place / "out", "npy")
    assert sorted(path.name for path in place.iterdir()) == ["out", "w.safetensors"]
    entries = entries_of(place / "out")
    assert {path.name for path in (place / "out").iterdir()} == {"manifest.json", *(
        file for entry in entries.values() for file in entry["files"])}  # fmt: skip
    for name, array in weights.items():
        assert np.array_equal(np.load(place / "out" / entries[name]["files"][0]), array)


@pytest.mark.parametrize(
    ("path", "prefix"),
    [("a/B c.safetensors", "b_c"), ("int.safetensors", "int_2"), ("lnsnum.safetensors", "tensors_lnsnum"),
     ("lnsnum-decode.safetensors", "tensors_lnsnum_decode"), ("m.safetensors.index.json", "m"), ("x", "x"),
     (".safetensors", "safetensors"), ("2.safetensors", "t2")],
)  # fmt: skip
def test_the_prefix_comes_from_the_files_name(path, prefix):
    assert prefix_of(path) == prefix


# --------------------------------------------------------------------------------------------------- folders, streams


def large_file(path, count, fmt=lns8f5, log_offset=0):
    block = np.random.default_rng(0).integers(0, 1 << fmt.bits, 1 << 20, dtype=fmt.dtype)
    told = Description.of_codes((count,), fmt, log_offset)
    save_tensors(path, {"w": told}, lambda _: (block[: count - i] for i in range(0, count, block.size)))


@pytest.mark.parametrize("options", [{"target": "c"}, {"target": "readmemh"}, {"target": "npy", "values": "float64"}])
def test_a_large_tensor_is_never_in_memory(tmp_path, options):
    count = (12 << 20) + 5
    large_file(tmp_path / "a.safetensors", count)
    told = []
    tracemalloc.start()
    export(tmp_path / "a.safetensors", tmp_path / "out", **options, progress=lambda *numbers: told.append(numbers))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25 << 20
    assert told[-1] == (count, count)
    assert len(told) == 13


@pytest.mark.parametrize("fmt", [lns6f2, LNSFormat(20, 11)], ids=str)
def test_no_word_is_lost_between_blocks(tmp_path, fmt):
    """More than one block, and parts of them, the last of them uneven."""
    tensor = random_tensor((1 << 20) + 13, fmt)
    save_weights(tmp_path / "a.safetensors", {"w": tensor})
    export(tmp_path / "a.safetensors", tmp_path / "v", "readmemh")
    assert np.array_equal(words_of(tmp_path / "v" / "w.mem"), tensor.codes)
    for packed, expected in (
        (False, tensor.codes),
        (True, pack(tensor.codes, fmt) if can_be_packed(fmt) else tensor.codes),
    ):
        export(tmp_path / "a.safetensors", tmp_path / f"c{packed}", "c", packed=packed)
        source = (tmp_path / f"c{packed}" / "a_tensors.c").read_text()
        words = re.search(r"data_0\[\] = \{(.*?)\}", source, re.DOTALL)[1].replace("u", "").split(",")
        assert np.array_equal([int(word, 16) for word in words[:-1]], expected)


def damaged(path):
    save_weights(path, {"a": random_tensor(5000, lns8f5), "b": random_tensor(5000, lns8f5)})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("target", ["c", "readmemh", "npy"])
def test_a_damaged_file_leaves_nothing_or_what_was_there(tmp_path, target):
    damaged(tmp_path / "bad.safetensors")
    with pytest.raises(WeightFileError, match="damaged"):
        export(tmp_path / "bad.safetensors", tmp_path / "out", target)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.safetensors"]
    export(None, tmp_path / "out", "readmemh", tables=[lns6f2])
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(WeightFileError, match="damaged"):
        export(tmp_path / "bad.safetensors", tmp_path / "out", target, replace=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.safetensors", "out"]


def test_an_earlier_export_is_replaced_whole_and_only_if_asked_to(gallery, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export(gallery, out, "npy")  # an empty folder is taken
    with pytest.raises(OSError, match="has an earlier export: with --force it is replaced"):
        export(gallery, out, "c")
    export(gallery, out, "c", replace=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "gallery_1_tensors.c",
        "gallery_1_tensors.h",
        "lnsnum.h",
        "manifest.json",
    ]
    (out / "main.c").touch()
    with pytest.raises(OSError, match=r"has main\.c, which no export wrote"):
        export(gallery, out, "c", replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "manifest",
    ["", "[", "[]", '"lnsnum_export"', '{"lnsnum_export": 1}', '{"files": []}', '{"lnsnum_export": 1, "files": [[]]}',
     '{"lnsnum_export": 1, "files": 3}'],
)  # fmt: skip
def test_a_folder_of_others_is_never_replaced(manifest, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(manifest)
    with pytest.raises(OSError, match="no earlier export: it is not replaced"):
        export(None, tmp_path / "out", "readmemh", tables=[lns6f2], replace=True)
    assert (tmp_path / "out" / "manifest.json").read_text() == manifest


def test_what_stops_an_export_leaves_the_old_one(gallery, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export(gallery, out, "npy")

    def interrupted(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(gallery, out, "readmemh", replace=True, progress=interrupted)
    rename, calls = os.rename, []

    def fails_the_second_time(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError("no")
        rename(*paths)

    monkeypatch.setattr(os, "rename", fails_the_second_time)
    with pytest.raises(OSError, match="no"):
        export(gallery, out, "readmemh", replace=True)
    assert len(calls) == 3
    assert manifest_of(out)["target"] == "npy"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_exports_are_the_same_bytes(gallery, tmp_path):
    for target in ("c", "readmemh", "npy"):
        first, second = (export(gallery, tmp_path / f"{target}{i}", target) for i in (1, 2))
        assert first.sizes == second.sizes
        for name in [*first.sizes, "manifest.json"]:
            assert (tmp_path / f"{target}1" / name).read_bytes() == (tmp_path / f"{target}2" / name).read_bytes()


def test_a_set_of_shards_is_exported_as_one_file(tmp_path):
    whole = {f"layer{i}": random_tensor(400, lns8f5, seed=i) for i in range(5)}
    save_weights(tmp_path / "m.safetensors", whole, max_shard_bytes=900)
    done = export(tmp_path / "m.safetensors.index.json", tmp_path / "out", "npy")
    assert [tensor.item.name for tensor in done.tensors] == sorted(whole)
    for name, tensor in whole.items():
        assert np.array_equal(np.load(tmp_path / "out" / f"{name}.npy"), tensor.codes)


# ------------------------------------------------------------------------------------------------------------ command


run = functools.partial(run_command, command=["export"], folded=False)


def test_the_command_prints_a_table(gallery, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, monkeypatch, gallery, "--to", "readmemh", "--only", "[ci]*")
    assert (code, err) == (0, "")
    assert re.search(r"conv\.weight +│ conv_weight\.mem +│ +108 │ +8 │", out)
    assert re.search(r"lns6f2 +│ sb +│ lns6f2\.sb\.mem +│ +18 │ +5 │", out)
    assert "left out, because memories are written of LNS tensors: i8, i16, i32, i64" in out
    assert out.splitlines()[-1].startswith("Gallery-1: 12 files of ")
    assert (tmp_path / "Gallery-1" / "int_2.mem").is_file()


def test_a_table_of_c_names_variables_and_its_files_once(gallery, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, monkeypatch, gallery, "--to", "c", "--only", "conv*", "--only", "i*")
    assert (code, err) == (0, "")
    assert re.search(r"tensor +┃ variable +┃ +words ┃ bits ┃ bytes of source ┃", out)
    written = entries_of(tmp_path / "Gallery-1")
    assert written.keys() == {"conv.weight", "int", "i8", "i16", "i32", "i64"}
    for name, entry in written.items():
        assert re.search(rf"│ {re.escape(name)} +│ {entry['identifier']} +│ .* {entry['bytes']:,} │\n", out)
    files = [path for path in (tmp_path / "Gallery-1").iterdir() if path.name != "manifest.json"]
    size = sum(path.stat().st_size for path in files)
    listed = "gallery_1_tensors.c, gallery_1_tensors.h, lnsnum.h"
    assert out.splitlines()[-1] == f"Gallery-1: {listed} of {size:,} bytes, and manifest.json"
    assert out.count("gallery_1_tensors.c") == 1


@needs_gcc
def test_names_in_c_can_begin_with_another_prefix(gallery, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert run(capsys, monkeypatch, gallery, "--to", "c", "--prefix", "my_net2", "--out", out)[0] == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "lnsnum.h", "manifest.json", "my_net2_tensors.c", "my_net2_tensors.h"
    ]  # fmt: skip
    assert all(entry["identifier"].startswith("my_net2_") for entry in entries_of(out).values())
    text = "".join((out / f"my_net2_tensors.{end}").read_text() for end in "ch")
    assert "gallery_1" not in text.lower()
    shell("gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-c", "my_net2_tensors.c", cwd=out)


@given(st.text(max_size=12) | st.sampled_from(sorted(RESERVED)))
@example("x" * 150)
@example("a.b/c")
@example("lnsnum_x")
def test_a_prefix_that_is_refused_comes_with_one_that_is_not(prefix):
    try:
        check_prefix(prefix)
    except ValueError as error:
        check_prefix(re.fullmatch(r"prefix=.* cannot begin names in C .*: '([a-z0-9_]+)' can", str(error))[1])
    else:
        assert re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", prefix)
        assert prefix not in RESERVED
        assert not prefix.startswith("lnsnum")


def test_a_terminal_survives_every_name(gallery, tmp_path, capsys, monkeypatch):
    code, out, err = run(capsys, monkeypatch, gallery, "--to", "npy", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "\x00" not in out
    assert r"'\x1b[2J\n'" in out


def test_json_is_the_manifest_and_totals(gallery, tmp_path, capsys, monkeypatch):
    code, out, err = run(capsys, monkeypatch, gallery, "--to", "c", "--pack", "--out", tmp_path / "out", "--json")
    assert (code, err) == (0, "")
    printed = json.loads(out)
    assert printed["manifest"] == manifest_of(tmp_path / "out")
    files = [path for path in (tmp_path / "out").iterdir() if path.name != "manifest.json"]
    assert printed["totals"] == {
        "tensors": len(GALLERY), "files": 3, "bytes": sum(path.stat().st_size for path in files),
        "words": sum(entry["words"] for entry in printed["manifest"]["tensors"]),
    }  # fmt: skip
    assert entries_of(tmp_path / "out")["int"] | {"bytes": 0} == {
        "name": "int", "files": ["gallery_1_tensors.h", "gallery_1_tensors.c"], "identifier": "gallery_1_int_2",
        "shape": [9], "dtype": "uint8", "words": 7, "word_bits": 8, "bytes": 0, "format": "lns6f2",
        "base": "0x1.0000000000000p+1", "log_offset": 0, "packed": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["FILE"], "--to is missing: one of c, readmemh, npy"),
        (["FILE", "--to", "vhdl"], "--to vhdl is not known: one of c, readmemh, npy"),
        (["FILE", "--to", "npy", "--pack"], "--pack is for --to c, not for --to npy"),
        (["FILE", "--to", "c", "--values", "codes"], "--values is for --to npy, not for --to c"),
        (
            ["FILE", "--to", "npy", "--values", "float16"],
            "--values float16 is not known: one of codes, float32, float64",
        ),
        (["--tables", "lns8f5", "--to", "c"], "--tables is for --to readmemh, not for --to c"),
        (["--tables", "lns8", "--to", "readmemh"], "--tables 'lns8' is no format name"),
        (["--to", "readmemh"], "there is nothing to export: give a weight file, or --tables FORMAT"),
        (
            ["--tables", "lns20f10", "--to", "readmemh"],
            "there is nothing to export: lns20f10 has more than 16 bits: its tables would be too long for a memory",
        ),
        (["FILE", "--to", "npy", "--prefix", "a"], "--prefix is for --to c and c-network, not for --to npy"),
        (["FILE", "--to", "c", "--prefix", "My-Net"], "--prefix='My-Net' cannot begin names in C"),
        (["FILE", "--to", "c", "--prefix", "My-Net"], "'my_net' can"),
        (["FILE", "--to", "c", "--prefix", ""], "--prefix='' cannot begin names in C"),
        (["FILE", "--to", "c", "--prefix", "../a"], "--prefix='../a' cannot begin names in C"),
        (["FILE", "--to", "c", "--only", "conv*", "--only", "nothing"], "no tensor's name matches 'nothing'"),
        (["--tables", "lns8f5", "--to", "readmemh", "--only", "a"], "--only is about the tensors of a weight file"),
        (["FILE", "--to", "c", "--only", "nothing"], "no tensor's name matches 'nothing'"),
        (["FILE", "--to", "readmemh", "--only", "i8"], "none of its tensors is of an LNS format"),
        (["FILE", "--to", "c", "--out", "FILE"], "is no folder"),
        (["FILE", "--to", "c", "--out", "nowhere/out"], "nowhere/out: there is no folder"),
        (["FILE", "--to", "c", "--out", "."], ". is where you are, and cannot be exchanged"),
        (["FILE", "--to", "c", "--out", ".."], ".. is where you are, and cannot be exchanged"),
        (["FILE", "--to", "c", "--out", "full"], "full is not empty"),
        (["FILE", "--to", "c", "--out", "full", "--force"], "full is not empty, and no earlier export"),
        (["none.safetensors", "--to", "c"], "none.safetensors"),
        (["text", "--to", "c"], "text is no folder: say by --out where the export is to go"),
        (["text", "--to", "c", "--out", "out"], "text is damaged or no safetensors file"),
    ],
)
def test_refusals(arguments, said, gallery, tmp_path, capsys, monkeypatch):
    (tmp_path / "here" / "full").mkdir(parents=True)
    (tmp_path / "here" / "full" / "mine").touch()
    (tmp_path / "here" / "text").write_text("x" * 100)
    monkeypatch.chdir(tmp_path / "here")
    code, out, err = run(capsys, monkeypatch, *(gallery if a == "FILE" else a for a in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert sorted(os.listdir()) == ["full", "text"]
    assert os.listdir("full") == ["mine"]


def test_the_library_refuses_what_makes_no_sense(gallery, tmp_path):
    with pytest.raises(ValueError, match="give a file, or formats"):
        export(None, tmp_path / "out", "npy")
    with pytest.raises(ValueError, match="tables are written as memories"):
        export(gallery, tmp_path / "out", "npy", tables=[lns6f2])
    with pytest.raises(ValueError, match=r"nothing to export: lns20f10 has .*; lns32f23 has more than 16 bits"):
        export(None, tmp_path / "out", "readmemh", tables=[LNSFormat(20, 10), lns32f23])
    with pytest.raises(ValueError, match="a prefix is for names in C: target='npy' has none"):
        export(gallery, tmp_path / "out", "npy", prefix="a")
    with pytest.raises(ValueError, match=r"prefix='int' cannot begin names in C .*: 'int_2' can"):
        export(gallery, tmp_path / "out", "c", prefix="int")
    with pytest.raises(TypeError, match="only='conv' is one pattern"):
        export(gallery, tmp_path / "out", "c", only="conv")
    assert not list(tmp_path.iterdir())


def test_the_command_by_itself_needs_no_torch(gallery, tmp_path):
    code = "import sys; from lnsnum import cli\ntry: cli.main()\nfinally: assert 'torch' not in sys.modules"
    arguments = ["export", str(gallery), "--to", "npy", "--values", "float32", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(VERILOG.parent.parent)}
    shell(sys.executable, "-c", code, *arguments, env=environment)
    assert len(list((tmp_path / "out").iterdir())) == 1 + len(GALLERY)
    done = subprocess.run(
        [sys.executable, "-m", "lnsnum.cli", "export", "nothing.safetensors", "--to", "c"],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
