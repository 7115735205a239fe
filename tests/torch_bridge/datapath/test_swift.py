"""The short ways of a datapath give what the core's doors give."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lnsnum import LNSFormat, decode, encode
from lnsnum.encoding import fit_log_offset
from lnsnum.gaussian import Exact, LookUpTable
from lnsnum.operations.accumulate import Matrix, accumulate, product, terms_of
from lnsnum.torch_bridge.datapath import Accumulator, bit_true, swift
from lnsnum.torch_bridge.datapath.matrices import Matrices

FORMATS = [LNSFormat(8, 3), LNSFormat(8, 0), LNSFormat(12, 6), LNSFormat(16, 10), LNSFormat(16, 14)]
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
def test_every_code_at_many_scales(fmt):
    """Where a decoder serves, and at the scales beside, where numbers leave the normal ones or are all 0."""
    codes = np.arange(1 << fmt.bits, dtype=fmt.dtype)
    ends = [(q << fmt.fraction_bits) + sign * fmt.max_log for q, sign in ((127, -1), (-126, 1))]
    near = [end + more for end in ends for more in (-1, 0, 1)]
    served = set()
    for offset in (0, -3, 77, *near, -400 << fmt.fraction_bits):
        served.add(swift.decoder(fmt, offset) is not None)
        found, expected = swift.decode(codes, fmt, offset), decode(codes, fmt, "float32", log_offset=offset)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.view(np.uint32) & 0xFFBFFFFF, expected.view(np.uint32) & 0xFFBFFFFF)
    assert served == ({True, False} if fmt.max_log < 100 << fmt.fraction_bits else {False})


@pytest.mark.parametrize("fmt", FORMATS[:-1], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("size", [7, 99, 100, 2500])
def test_floats_as_codes(fmt, size):
    random = np.random.default_rng(size)
    x = (random.standard_normal(size) * 2.0 ** random.integers(-40, 40, size)).astype(np.float32)
    x[:5] = 0.0, -0.0, np.nan, np.inf, 1e-44
    # next to what is half-way between two codes
    ties = 2.0 ** (((np.arange(size - 5) + 0.5) / (1 << fmt.fraction_bits)) % 30)
    for numbers in (x, np.concatenate([x[:5], ties.astype(np.float32)])):
        for offset in (0, -9, 40 << fmt.fraction_bits):
            np.testing.assert_array_equal(swift.encode(numbers, fmt, offset), encode(numbers, fmt, log_offset=offset))


def test_what_has_no_vectors():
    for fmt in (LNSFormat(16, 14), LNSFormat(18, 9), LNSFormat(8, 3, base=3.0)):
        assert swift.encode(np.zeros(3, np.float32), fmt, 0) is None


@given(finite, st.sampled_from([*FORMATS, LNSFormat(8, 3, base=3.0)]))
def test_the_scale_of_a_greatest_number(x, fmt):
    assert swift.fit(abs(x), fmt, "nearest") == fit_log_offset(np.array([x]), fmt)


def test_the_scale_next_to_half_a_step():
    fmt = LNSFormat(16, 10)
    for k in range(-300, 300):
        for x in (np.float32(2.0 ** ((k + 0.5) / 1024)), np.float32(2.0 ** (k / 1024))):
            for near in (x, np.nextafter(x, np.float32(0)), np.nextafter(x, np.float32(9))):
                assert swift.fit(float(near), fmt, "nearest") == fit_log_offset(np.array([near]), fmt)


@given(st.lists(finite, min_size=1, max_size=9))
def test_the_greatest_magnitude(x):
    array = np.array(x, np.float32)
    assert swift.greatest_of(array) == float(np.abs(array).max())
    for other in (np.nan, np.inf, -np.inf):
        assert swift.greatest_of(np.append(array, np.float32(other))) is None


def test_whose_memory_is_read():
    x = torch.zeros(3, 4)
    assert swift.array_of(x).shape == (3, 4)
    for other in (x.T, x.double(), torch.empty(swift.MOST + 1), torch.empty(2, device="meta")):
        assert swift.array_of(other) is None


@given(st.data())
def test_products_from_codes(data):
    """Of matrices as they are and transposed, with a row added last, against the way by terms."""
    a_fmt, b_fmt, fmt = LNSFormat(8, 5), LNSFormat(8, 3), LNSFormat(12, 6)
    m, k, n = (data.draw(st.integers(1, size)) for size in (20, 5, 20))
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    a, b, row = (random.integers(0, 256, shape).astype(np.uint8) for shape in ((m, k), (k, n), (n,)))
    for codes in (a, b, row):
        codes[codes == 128] = 0
    a = np.asfortranarray(a) if data.draw(st.booleans()) else a
    order, log = data.draw(st.sampled_from([("sequential", Exact()), ("pairwise", LookUpTable(20))]))
    shift = data.draw(st.integers(-3000, 3000))
    (x, _), (y, _) = terms_of(a, a_fmt, 0, fmt), terms_of(b, b_fmt, 0, fmt)
    expected = accumulate(x._replace(log=x.log + shift), y, fmt, order, log, "saturate")
    found = product(Matrix(a, a_fmt, shift), Matrix(b, b_fmt, 0), fmt, order, log)
    np.testing.assert_array_equal(found, expected)
    adder = Accumulator(fmt, order=order, gaussian_log=log)
    both = Matrices(a, a_fmt, 3), Matrices(b, b_fmt, -7)
    last = Matrices(row, b_fmt, data.draw(st.integers(-90, 90)))
    sums = bit_true.matmul(*both, adder)
    added = bit_true.matmul(*both, adder, last)
    np.testing.assert_array_equal(added.codes, bit_true.add(sums, last, adder).codes)


def test_a_matrix_with_a_nan():
    fmt = LNSFormat(8, 3)
    a, b = np.array([[64, 128], [64, 64]], np.uint8), np.full((2, 2), 64, np.uint8)
    found = bit_true.matmul(Matrices(a, fmt, 0), Matrices(b, fmt, 0), Accumulator("lns12f6"))
    assert (found.codes == found.fmt.nan_code).tolist() == [[True, True], [False, False]]
    row = bit_true.matmul(Matrices(b, fmt, 0), Matrices(b, fmt, 0), Accumulator("lns12f6"), Matrices(a[0], fmt, 0))
    assert (row.codes == row.fmt.nan_code).tolist() == [[False, True]] * 2
