"""lnsnum.h: the C reader agrees with lnsnum and its oracle to the bit, and refuses what docs/weight_file.md says."""

import itertools
import math
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from handmade_files import GALLERY, GALLERY_OF_2, READ, READ_OF_2, WORDS, dtype_of, lns, make, one, plain
from hypothesis import example, given, settings
from hypothesis import strategies as st
from weight_file_fixtures import EVERY, content_of, path_of

from lnsnum import LNSFormat, LNSTensor, decode, reference
from lnsnum.weight_file import save_weights

HERE = Path(__file__).parents[1]
HEADER = HERE.parent / "lnsnum" / "c" / "lnsnum.h"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", f"-I{HEADER.parent}"]
SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
MAX_OFFSET = 2**30

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc to compile lnsnum.h with")


def compile_c(folder, name, source, *flags):
    program = folder / name
    subprocess.run(["gcc", *flags, str(source), "-o", str(program)], check=True, timeout=120)
    return program


@pytest.fixture(scope="session")
def dump(tmp_path_factory):
    return compile_c(tmp_path_factory.mktemp("c"), "dump", HERE / "c" / "dump.c", "-O2", *STRICT)


@pytest.fixture(scope="session")
def watched_dump(tmp_path_factory):
    """The same under the sanitizers of addresses and undefined behaviour."""
    return compile_c(tmp_path_factory.mktemp("c"), "watched_dump", HERE / "c" / "dump.c", *SANITIZE, *STRICT)


def run(program, path, *arguments):
    return subprocess.run([str(program), str(path), *arguments], capture_output=True, text=True, timeout=60)


def read(program, path, *arguments):
    """The tensors by name, as (the line that describes it, the words of codes, floats and doubles)."""
    done = run(program, path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    tensors, lines = {}, iter(done.stdout.splitlines())
    for line in lines:
        kind, *words = line.split(" ", 2)
        if kind != "tensor":
            continue
        name = "" if words[0] == "-" else bytes.fromhex(words[0]).decode()
        body = [next(lines).split(" ")[1:]]
        if "lns" in words[1]:
            body += [next(lines).split(" ")[1:] for _ in range(2)]
            body = [[int(word, 16) for word in row] for row in body]
        tensors[name] = (words[1], *body)
    return tensors


def name_of(fmt):
    return f"lns{fmt.bits}f{fmt.fraction_bits}" + (f"b{fmt.base.hex()}" if fmt.base != 2.0 else "")


def check_values(program, tmp_path, cases, *arguments, oracle=False):
    """For each (format, codes, offset) the program's floats and doubles are those of lnsnum.decode, or the oracle's.

    For a few codes of a wide format the oracle takes less time than lnsnum, which prepares itself for many.
    """
    path = tmp_path / "file"
    parts = {
        str(i): lns(codes, [len(codes)], name_of(fmt), offset, packed=i % 2 == 1 and fmt.bits not in (8, 16, 32))
        for i, (fmt, codes, offset) in enumerate(cases)
    }
    path.write_bytes(make(parts))
    found = read(program, path, *arguments)
    for i, (fmt, codes, offset) in enumerate(cases):
        _, got_codes, floats, doubles = found[str(i)]
        assert got_codes == codes
        for dtype, word, got in (("float32", "u4", floats), ("float64", "u8", doubles)):
            if oracle or (fmt.bits > 10 and len(codes) < 100):
                expected = [reference.decode(code, fmt, dtype, log_offset=offset) for code in codes]
            else:
                array = np.array(codes, np.uint32).astype(f"u{4 if fmt.bits > 16 else 2 if fmt.bits > 8 else 1}")
                expected = decode(array, fmt, dtype, log_offset=offset).view(word).tolist()
            assert got == expected, (fmt, offset, dtype)


BASES = [2.0, 4.0, 2.0**1023, 1 + 2.0**-52, 1.5, 3.0, 10.0, math.e, 1.7e308, 134217729.0, 1.25, 2 - 2.0**-52, 65537.0]
OFFSETS = [0, 1, -5, 100, -1100, 2000, MAX_OFFSET, -MAX_OFFSET]


def test_every_code_of_narrow_formats_has_lnsnums_value(dump, tmp_path):
    cases = []
    for (bits, base), offset in zip(itertools.product(range(3, 11), BASES), itertools.cycle(OFFSETS), strict=False):
        for fraction_bits in sorted({0, 1, bits // 2, bits - 2} & set(range(bits - 1))):
            cases.append((LNSFormat(bits, fraction_bits, base=base), list(range(2**bits)), offset))
    check_values(dump, tmp_path, cases)


def some_codes(rng, fmt, n):
    """Codes of all kinds: of random numbers, near 1, the ends, zero and NaN, of both signs."""
    sign, middle = 1 << (fmt.bits - 1), 1 << (fmt.bits - 2)
    near = [middle + k for k in range(-3, 4) if 0 <= middle + k < sign]
    whole = [middle + (k << fmt.fraction_bits) for k in (-3, -2, -1, 1, 2, 3, 4)]
    codes = [0, 1, 2, sign - 1, *near, *(m for m in whole if 0 < m < sign)]
    return [*codes, *(code | sign for code in codes), *(rng.getrandbits(fmt.bits) for _ in range(n))]


def test_wide_formats_have_the_oracles_values(dump, tmp_path):
    rng, cases = random.Random(7), []
    for bits in range(11, 33):
        for base in BASES:
            fmt = LNSFormat(bits, rng.choice([0, 1, rng.randint(0, bits - 2), bits - 2]), base=base)
            offset = rng.choice([*OFFSETS, rng.randint(-MAX_OFFSET, MAX_OFFSET)])
            cases.append((fmt, some_codes(rng, fmt, 6), offset))
    check_values(dump, tmp_path, cases)


def test_many_codes_of_wide_formats_have_lnsnums_values(dump, tmp_path):
    rng, cases = random.Random(6), []
    for size, base in zip(((16, 10), (20, 18), (24, 0), (32, 23)), (math.e, 2.0, 1.5, 2.0), strict=True):
        fmt = LNSFormat(*size, base=base)
        cases.append((fmt, some_codes(rng, fmt, 2000), 100))
    check_values(dump, tmp_path, cases)


def test_exact_results_ties_and_subnormals_are_the_oracles(dump, tmp_path):
    """134217729^2 = 2^54 + 2^28 + 1 is near a tie, 2^24 + 1 and 2^24 + 3 are ties of floats, (2^18 - 1)^3 of doubles.

    Where F > 0 they are powers of irrational roots. 2^-1075 and 2^-150 are ties with zero.
    """
    rng, cases = random.Random(8), []
    for base in (
        134217729.0,
        2.0**24 + 1,
        2.0**24 + 3,
        2.0**18 - 1,
        2.0**53 - 1,
        1.5,
        1.25,
        3.0,
        2.0,
        4.0,
        1 + 2.0**-24,
        1 + 2.0**-26,
        1 + 2.0**-52,
        1.7e308,
    ):
        for bits, fraction_bits in ((8, 0), (8, 1), (12, 0), (20, 2), (32, 30), (32, 0)):
            fmt = LNSFormat(bits, fraction_bits, base=base)
            cases.append((fmt, some_codes(rng, fmt, 2)[4:24], 0))
    for base, per_factor in ((2.0, 1), (2.0, 2), (1.5, 1)):
        fmt = LNSFormat(8, per_factor - 1, base=base)
        for log in (-1074, -1075, -1076, -149, -150, -151, -126, -1022, 127, 128, 1023, 1024):
            offset = round(log / math.log2(base) * 2**fmt.fraction_bits)
            cases.append((fmt, [63, 64, 65, 191, 192, 193], offset))
    check_values(dump, tmp_path, cases, oracle=True)


formats = st.integers(3, 32).flatmap(
    lambda bits: st.builds(
        lambda fraction_bits, base: LNSFormat(bits, fraction_bits, base=base),
        st.integers(0, bits - 2),
        st.one_of(st.sampled_from(BASES), st.floats(1.0, exclude_min=True, allow_infinity=False)),
    )
)
offsets = st.one_of(st.integers(-2000, 2000), st.integers(-MAX_OFFSET, MAX_OFFSET))


@given(st.lists(st.tuples(formats, offsets, st.integers(0, 2**32 - 1)), min_size=1, max_size=20))
@example([(LNSFormat(32, 30, base=1 + 2.0**-52), MAX_OFFSET, 7), (LNSFormat(32, 0, base=1.7e308), -MAX_OFFSET, 7)])
@settings(max_examples=30)
def test_any_format_has_lnsnums_values_under_the_sanitizers(tmp_path_factory, watched_dump, cases):
    cases = [(fmt, some_codes(random.Random(seed), fmt, 3), offset) for fmt, offset, seed in cases]
    check_values(watched_dump, tmp_path_factory.getbasetemp(), cases)


def test_single_codes_have_the_values_of_arrays(dump, tmp_path):
    rng, cases = random.Random(9), []
    for bits, base in itertools.product((3, 8, 32), BASES[::2]):
        fmt = LNSFormat(bits, rng.randint(0, bits - 2), base=base)
        cases.append((fmt, some_codes(rng, fmt, 3), rng.choice(OFFSETS)))
    check_values(dump, tmp_path, cases, "single")


def test_long_arrays_go_by_a_table_and_are_the_same(dump, tmp_path):
    rng = random.Random(10)
    formats = [LNSFormat(*size) for size in ((3, 1), (5, 2), (8, 5), (11, 4))]
    cases = [(fmt, [rng.getrandbits(fmt.bits) for _ in range(2 * 2**fmt.bits + 7)], -3) for fmt in formats]
    check_values(dump, tmp_path, cases)


@pytest.mark.parametrize("shape", [[], [1], [3], [1, 1, 3], [4, 1], [1, 3], [2, 1, 1], [2, 1, 3], [2, 4, 3], [4, 3]])
@pytest.mark.parametrize("packed", [False, True])
def test_offsets_broadcast_as_numpys(dump, tmp_path, shape, packed):
    rng = np.random.default_rng(11)
    codes, fmt = rng.integers(0, 64, (2, 4, 3), np.uint8), LNSFormat(6, 2)
    values = rng.integers(-40, 40, shape)
    path = tmp_path / "file"
    offset = {"shape": shape, "values": values.reshape(-1).tolist()}
    path.write_bytes(one(of=lns(codes.reshape(-1).tolist(), [2, 4, 3], "lns6f2", offset, packed=packed)))
    line, _, floats, _ = read(dump, path)["w"]
    expected = decode(codes, fmt, "float32", log_offset=np.broadcast_to(values, codes.shape).astype(np.int32))
    assert floats == expected.view("u4").reshape(-1).tolist()
    assert line == "U8 (2 4 3) lns6f2" + " packed" * packed


@pytest.mark.parametrize(("layout", "what"), [*((3, what) for what in GALLERY), *((2, what) for what in GALLERY_OF_2)])
def test_what_the_page_refuses_is_refused(watched_dump, tmp_path, layout, what):
    data, word = (GALLERY if layout == 3 else GALLERY_OF_2)[what]
    path = tmp_path / "file"
    path.write_bytes(data)
    done = run(watched_dump, path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert word in done.stderr


@pytest.mark.parametrize(("layout", "what"), [*((3, what) for what in READ), *((2, what) for what in READ_OF_2)])
def test_what_the_page_does_not_refuse_is_read(watched_dump, tmp_path, layout, what):
    path = tmp_path / "file"
    path.write_bytes((READ if layout == 3 else READ_OF_2)[what])
    done = run(watched_dump, path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"layout {layout}\n")


def test_names_and_metadata_are_utf8_that_may_hold_nul(dump, tmp_path):
    path = tmp_path / "file"
    name, text = "a\0\u20ac\U0001f600", 'x\0"\\\n\x7f'
    path.write_bytes(make({name: WORDS, "": plain("BOOL", [2], b"\0\1")}, metadata={name: text}))
    assert read(dump, path)[name][0] == "U8 (3) lns5f1"
    assert read(dump, path)[""] == ("BOOL (2)", ["0001"])
    assert f"metadata {name.encode().hex()} {text.encode().hex()}\n" in run(dump, path).stdout


def test_what_lnsnum_writes_is_read(dump, tmp_path):
    rng, path = np.random.default_rng(13), tmp_path / "file"
    weights, numbers = {}, rng.standard_normal((4, 3, 5)).astype(np.float32)
    for fmt in (LNSFormat(6, 2), LNSFormat(8, 5), LNSFormat(13, 8, base=1.5), LNSFormat(32, 23)):
        codes = rng.integers(0, 2**fmt.bits, (4, 3, 5)).astype(fmt.dtype)
        weights[fmt.name] = LNSTensor(codes, fmt, log_offset=rng.integers(-50, 50, (3, 1)).astype(np.int32))
    save_weights(path, {**weights, "plain": numbers}, metadata={"a": "b"}, packed=True)
    found = read(dump, path)
    assert found["plain"] == ("F32 (4 3 5)", [numbers.tobytes().hex()])
    for name, tensor in weights.items():
        line, codes, floats, doubles = found[name]
        assert line.split(") ")[1].split(" ") == [name, "packed"][: 1 + (tensor.fmt.bits not in (8, 32))]
        assert codes == tensor.codes.reshape(-1).tolist()
        assert floats == tensor.to_float("float32").view("u4").reshape(-1).tolist()
        assert doubles == tensor.to_float("float64").view("u8").reshape(-1).tolist()


@pytest.mark.parametrize(("layout", "name"), EVERY)
def test_every_fixture_has_lnsnums_values(dump, layout, name):
    told = content_of(layout, name)
    weights, packed = told["weights"], told.get("packed", False)
    found = read(dump, path_of(name, layout))
    assert found.keys() == weights.keys()
    for key, tensor in weights.items():
        line, *rows = found[key]
        shape = f"({' '.join(map(str, tensor.shape))})"
        if not isinstance(tensor, LNSTensor):
            assert (line, rows) == (f"{dtype_of(tensor)} {shape}", [[tensor.tobytes().hex() or "-"]])
            continue
        fmt, (codes, floats, doubles) = tensor.fmt, rows
        is_packed = packed and fmt.bits not in (8, 16, 32)
        dtype = "U8" if is_packed else dtype_of(tensor.codes)
        assert line == f"{dtype} {shape} {name_of(fmt)}" + " packed" * is_packed
        assert codes == tensor.codes.reshape(-1).tolist()
        for float_type, word, got in (("float32", "u4", floats), ("float64", "u8", doubles)):
            expected = decode(tensor.codes, fmt, float_type, log_offset=tensor.log_offset)
            assert got == expected.view(word).reshape(-1).tolist(), (key, float_type)


@pytest.mark.parametrize(("layout", "name"), EVERY)
def test_every_fixture_has_its_metadata(dump, layout, name):
    lines = [
        line.split(" ")[1:] for line in run(dump, path_of(name, layout)).stdout.splitlines() if line[:9] == "metadata "
    ]
    found = dict([bytes.fromhex(word.strip("-")).decode() for word in line] for line in lines)
    assert found == content_of(layout, name).get("metadata", {})


def test_layout_1_is_read(dump, tmp_path):
    path = tmp_path / "file"
    old = {key: value for key, value in WORDS[3].items() if key != "crc32"}
    text = '{"layout": 1, "tensors": {"w": ' + str(old).replace("'", '"') + "}}"
    parts = {"w": WORDS, "p": plain("F32", [1], b"\0\0\0\1")}
    path.write_bytes(make(parts, layout=2, description=lambda _: text, crc32=None))
    assert run(dump, path).stdout.startswith("layout 1\n")
    assert read(dump, path)["w"][1] == [1, 30, 0]
    assert read(dump, path)["p"] == ("F32 (1)", ["00000001"])


def test_no_damage_of_one_byte_or_cut_is_read_as_other_values(watched_dump, tmp_path):
    """Nor does any make the reader touch what is not its own."""
    rng, whole, path = random.Random(12), make({"w": WORDS, "x": plain("F32", [1], b"abcd")}), tmp_path / "file"
    path.write_bytes(whole)
    right = run(watched_dump, path).stdout
    for _ in range(60):
        damaged = bytearray(whole)
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        done = run(watched_dump, path)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1) or done.stdout == right, bytes(damaged)


def test_every_allocation_may_fail(watched_dump, tmp_path):
    path = tmp_path / "file"
    codes = [5] * 100  # more than there are codes, so that values go by a table
    path.write_bytes(one(of=lns(codes, [100], "lns6f2", packed=True), metadata={"a": "b"}))
    failures = 0
    while (done := run(watched_dump, path, "fail", str(failures))).returncode:
        assert (done.returncode, done.stderr) == (1, "there is not enough memory\n")
        failures += 1
    assert failures > 10
    assert done.stderr == ""


def test_a_header_above_the_limit_is_refused_before_it_is_read(dump, tmp_path):
    path = tmp_path / "file"
    path.write_bytes((100_000_001).to_bytes(8, "little") + b"{}")
    os.truncate(path, 100_000_009)  # there is nothing in it, so it takes no room
    done = run(dump, path)
    assert done.returncode == 1
    assert "header's length" in done.stderr


def test_a_file_that_cannot_be_read_is_told_of(watched_dump, tmp_path):
    for path in (tmp_path / "none", tmp_path):
        done = run(watched_dump, path)
        assert (done.returncode, done.stderr) == (1, "the file cannot be read\n")


def test_a_header_of_very_many_names_takes_no_quadratic_time(dump, tmp_path):
    path = tmp_path / "file"
    names = [f"n{i % 7}{i}" for i in range(20_000)]
    path.write_bytes(
        make({}, description=lambda t: t[:-1] + ', "x": {' + ", ".join(f'"{name}": 0' for name in names) + "}}")
    )
    assert run(dump, path).returncode == 0
    path.write_bytes(make({name: plain("U8", [0], b"") for name in names}))
    assert run(dump, path, "quiet").returncode == 0


STATIC = """
#define LNSNUM_IMPLEMENTATION
#include "lnsnum.h"

static const uint8_t fc_data[] = {0x81, 0x0f, 0x02};
static const uint64_t fc_shape[] = {1, 3};
static const uint64_t fc_offset_shape[] = {3};
static const int32_t fc_offsets[] = {-3, 1, 0};
static const lnsnum_tensor fc = {
    .name = "fc", .name_length = 2, .ndim = 2, .shape = fc_shape, .count = 3,
    .dtype = LNSNUM_U8, .is_lns = 1, .format = {.bits = 6, .fraction_bits = 2, .base = 2.0}, .packed = 1,
    .offset_ndim = 1, .offset_shape = fc_offset_shape, .offsets = fc_offsets,
    .native_order = 1, .data = fc_data, .data_size = sizeof fc_data};

static const uint16_t bias_data[] = {256, 257, 512, 0};
static const uint64_t bias_shape[] = {4};
static const int32_t bias_offsets[] = {-1};
static const lnsnum_tensor bias = {
    .name = "bias", .name_length = 4, .ndim = 1, .shape = bias_shape, .count = 4,
    .dtype = LNSNUM_U16, .is_lns = 1, .format = {.bits = 10, .fraction_bits = 0, .base = 0x1.8p+0},
    .offsets = bias_offsets, .native_order = 1, .data = bias_data, .data_size = sizeof bias_data};

int main(void) {
    float values[4];
    lnsnum_error error;
    int i;
    if (lnsnum_to_float(&fc, values, &error)) return puts(error.message), 1;
    for (i = 0; i < 3; i++) printf("%a ", (double)values[i]);
    if (lnsnum_to_float(&bias, values, &error)) return puts(error.message), 1;
    for (i = 0; i < 4; i++) printf("%a ", (double)values[i]);
    printf("%a %a\\n", (double)lnsnum_decode_float(fc.format, 64, 0), lnsnum_decode_double(fc.format, 17, 3));
    return 0;
}
"""


def test_arrays_that_a_program_has_as_static_data_are_decoded(tmp_path):
    source = tmp_path / "static.c"
    source.write_text(STATIC)
    done = subprocess.run(
        [compile_c(tmp_path, "static", source, *SANITIZE, *STRICT)], capture_output=True, text=True, timeout=60
    )
    words = done.stdout.split()
    expected = [
        decode(np.uint8(code), LNSFormat(6, 2), "float32", log_offset=k).item()
        for code, k in ((1, -3), (62, 1), (32, 0))
    ]
    assert [float.fromhex(word) for word in words[:2]] == expected[:2]
    assert [words[2], words[5], words[7]] == ["nan"] * 3
    assert [float.fromhex(word) for word in [words[3], words[4], words[6], words[8]]] == [
        np.float32(1 / 1.5),
        1.0,
        0.0,
        2.0,
    ]


def test_the_header_can_be_included_many_times_and_by_cpp(tmp_path):
    source = tmp_path / "twice.c"
    include = '#include "lnsnum.h"\n'
    source.write_text(f"{include}#define LNSNUM_IMPLEMENTATION\n{include}{include}int main(void) {{ return 0; }}\n")
    compile_c(tmp_path, "twice", source, *STRICT)
    if shutil.which("g++"):
        flags = ["-x", "c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{HEADER.parent}"]
        subprocess.run(["g++", *flags, str(source), "-o", os.devnull], check=True, timeout=120)
