"""The reader on one page of docs/weight_file.md needs only Python, refuses what it must, and reads to the bit."""

import ast
import math
import random
import struct

import numpy as np
import pytest
from handmade_files import GALLERY, READ, dtype_of, lns, make, one
from readers import page
from weight_file_fixtures import FIXTURES, path_of

from lnsnum import LNSFormat, LNSTensor, decode, reference
from lnsnum.weight_file import save_weights

MOST_LINES = 160


def test_it_is_one_page_that_imports_three_modules_of_python():
    imports = [node for node in ast.walk(ast.parse(page())) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [name.name for node in imports for name in node.names] == ["json", "struct", "zlib"]
    assert sum(1 for line in page().splitlines() if line.strip()) <= MOST_LINES
    assert max(map(len, page().splitlines())) <= 120


@pytest.mark.parametrize("what", GALLERY)
def test_what_the_page_refuses_is_refused(read_page, what):
    with pytest.raises(ValueError, match=r"\w"):
        read_page(GALLERY[what][0])


@pytest.mark.parametrize("what", READ)
def test_what_the_page_does_not_refuse_is_read(read_page, what):
    read_page(READ[what])


def test_the_values_are_the_oracles(read_page):
    rng, parts, cases = random.Random(3), {}, {}
    for bits, base in (
        (3, 2.0),
        (5, 1.5),
        (8, 2.0),
        (8, 134217729.0),
        (10, 3.0),
        (13, math.e),
        (24, 10.0),
        (32, 1 + 2.0**-52),
        (32, 1.7e308),
    ):
        for fraction_bits in {0, bits // 2, bits - 2}:
            fmt = LNSFormat(bits, fraction_bits, base=base)
            middle, sign = 1 << (bits - 2), 1 << (bits - 1)
            codes = [0, sign, 1, sign - 1, middle, middle - 1, middle + 1 | sign, 2 * sign - 1, rng.getrandbits(bits)]
            offset = rng.choice([0, 2, -1100, 2**30, -(2**30)])
            name = f"lns{bits}f{fraction_bits}" + (f"b{base.hex()}" if base != 2.0 else "")
            parts[f"{name} {offset}"] = lns(codes, [3, 3], name, offset, packed=bits not in (8, 16, 32))
            cases[f"{name} {offset}"] = fmt, codes, offset
    found = read_page(make(parts))
    for name, (fmt, codes, offset) in cases.items():
        assert (found[name]["shape"], found[name]["codes"]) == ([3, 3], codes)
        for dtype, kind, word in (("float64", "<d", "<Q"), ("float32", "<f", "<I")):
            got = [struct.unpack(word, struct.pack(kind, value))[0] for value in found[name][dtype]]
            assert got == [reference.decode(code, fmt, dtype, log_offset=offset) for code in codes], (name, dtype)


def test_offsets_are_broadcast(read_page):
    offset = {"shape": [3, 1, 2], "values": [0, 8, 16, 24, 32, 40]}
    found = read_page(one(of=lns([32] * 12, [3, 2, 2], "lns7f3", offset, packed=True)))["w"]
    assert found["float64"] == [1, 2, 1, 2, 4, 8, 4, 8, 16, 32, 16, 32]


def test_what_lnsnum_writes_is_read(read_page, tmp_path):
    rng, weights = np.random.default_rng(5), {"plain": np.arange(6, dtype=np.int16).reshape(2, 3)}
    for fmt in (LNSFormat(6, 2), LNSFormat(8, 5), LNSFormat(13, 8, base=1.5)):
        codes = rng.integers(0, 2**fmt.bits, (2, 3, 4)).astype(fmt.dtype)
        weights[fmt.name] = LNSTensor(codes, fmt, log_offset=np.array([[3], [-4], [5]], np.int32))
    save_weights(tmp_path / "file", weights, packed=True)
    found = read_page((tmp_path / "file").read_bytes())
    assert found["plain"] == {"shape": [2, 3], "dtype": "I16", "data": weights.pop("plain").tobytes()}
    for name, tensor in weights.items():
        assert (found[name]["shape"], found[name]["format"]) == ([2, 3, 4], name)
        assert found[name]["codes"] == tensor.codes.reshape(-1).tolist()
        for dtype in ("float32", "float64"):
            assert np.array(found[name][dtype], dtype).tobytes() == tensor.to_float(dtype).tobytes()


@pytest.mark.parametrize("name", FIXTURES)
def test_every_fixture_has_lnsnums_values(read_page, name):
    found, weights = read_page(path_of(name).read_bytes()), FIXTURES[name]["weights"]
    assert found.keys() == weights.keys()
    for key, tensor in weights.items():
        got, shape = found[key], list(tensor.shape)
        if not isinstance(tensor, LNSTensor):
            assert got == {"shape": shape, "dtype": dtype_of(tensor), "data": tensor.tobytes()}
            continue
        assert (got["shape"], got["format"]) == (shape, tensor.fmt.name)
        assert got["codes"] == tensor.codes.reshape(-1).tolist()
        for dtype in ("float32", "float64"):
            expected = decode(tensor.codes, tensor.fmt, dtype, log_offset=tensor.log_offset)
            assert np.array(got[dtype], dtype).tobytes() == expected.tobytes(), (key, dtype)
