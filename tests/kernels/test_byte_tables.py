"""Look-ups in registers: every code of every narrow format, at every place of a vector, against the table itself."""

import os
import subprocess
import sys

import numpy as np
import pytest

from lnsnum import LNSFormat
from lnsnum.decoding import decode, decode_table
from lnsnum.kernels import byte_decoding, byte_tables

FORMATS = [LNSFormat(bits, f) for bits in range(3, 9) for f in range(bits - 1)] + [LNSFormat(8, 0, base=1.03)]


def needs_byte_tables():
    if not byte_tables.has_byte_tables():
        pytest.skip("this processor has no byte tables")


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
def test_every_code_at_every_place(fmt):
    needs_byte_tables()
    every = np.arange(1 << fmt.bits, dtype=np.uint8)
    codes = np.concatenate([np.roll(np.resize(every, 256), i) for i in range(64)])
    for offset in (0, -37, 4000, -4000):  # and beyond what float32 holds, on either side
        table = decode_table(fmt, offset, "float32")
        planes, out = byte_tables.planes_of(table), np.full(codes.size + 16, 7, np.uint32)
        places = codes.ctypes.data, planes.ctypes.data, fmt.nan_code, out.ctypes.data
        byte_tables.decode_bytes(*places, codes.size // 64)
        want = table[codes]
        want[(want == 0) & (codes > fmt.sign_bit) & (fmt.bits == 8)] = 1 << 31  # as is said: they become -0
        np.testing.assert_array_equal(out[: codes.size], want)
        np.testing.assert_array_equal(out[codes.size :], 7)
        assert table[fmt.nan_code] == byte_tables.NAN


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
def test_decode_has_the_bits_of_the_table(fmt):
    """Of as many codes as go by registers, with a rest, from any place on; what float32 cannot hold is +0."""
    codes = np.resize(np.arange(1 << fmt.bits, dtype=np.uint8), byte_decoding.FEW + 170)[3:]
    for offset in (0, -37, 4000, -4000):
        floats = decode(codes, fmt, "float32", log_offset=offset)
        np.testing.assert_array_equal(floats.view(np.uint32), decode_table(fmt, offset, "float32")[codes])


def test_planes_hold_the_bytes_of_a_table():
    table = np.arange(256, dtype=np.uint32) * 0x01020304
    planes = byte_tables.planes_of(np.stack([table, table + 1]))
    assert planes.shape == (2, 4, 128)
    for p in range(4):
        np.testing.assert_array_equal(planes[0, p], (table[:128] >> 8 * p) & 255)
        np.testing.assert_array_equal(planes[1, p], ((table + 1)[:128] >> 8 * p) & 255)
    assert byte_tables.planes_of(table[:16]).shape == (4, 128)


def test_the_order_of_pieces():
    places = [byte_tables.piece_of(k) for k in range(64)]
    assert sorted(places) == list(range(64))
    for i in range(4):
        piece = [k for k in range(64) if places[k] // 16 == i]
        assert piece == [16 * j + 4 * i + k for j in range(4) for k in range(4)]


@pytest.mark.parametrize("variable", [{"NUMBA_CPU_NAME": "generic"}, {"NUMBA_DISABLE_JIT": "1"}])
def test_other_processors_take_the_plain_loops(variable):
    code = """if True:
        import numpy as np, lnsnum
        from lnsnum.kernels.byte_tables import has_byte_tables
        assert not has_byte_tables()
        codes = lnsnum.encode(np.ones((2, 200)), lnsnum.lns8f5)
        for matrix, transposed in ((codes, False), (codes.T, True)):
            found = lnsnum.weight_only_matmul(np.ones(200, np.float32), matrix, lnsnum.lns8f5, transposed=transposed)
            assert found.tolist() == [200.0, 200.0]
    """
    environment = {**os.environ, "NUMBA_CPU_FEATURES": "", **variable}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
