"""A range that goes by the numbers of a product, against integers and mpmath; that nothing leaves it, and that few do
where the other rule loses many.
"""

import contextlib
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scalar_datapath import MP, fitted
from torch import nn
from torch.nn import functional

from lnsnum import LNSFormat, decode
from lnsnum.gaussian import BitShift, LookUpTable
from lnsnum.torch_bridge.datapath import Accumulator, datapath, dynamic_range
from lnsnum.torch_bridge.datapath.bit_true import matmul
from lnsnum.torch_bridge.datapath.matrices import Matrices

A, B, TO = LNSFormat(8, 3), LNSFormat(9, 4), LNSFormat(12, 6)
ROOT = 2.0**0.5


def expected(a, b, to):
    """By the definition, one number at a time."""
    inner = a.codes.shape[-1]
    s = min(20, (53 - math.ceil(math.log2(inner))) // 2)

    def logs(x):
        m = x.codes.astype(int) & x.fmt.max_magnitude
        return np.where(m > 0, m + x.log_offset, -(10**9))

    def integers(x):
        log = logs(x)
        powers = {
            int(d): MP.power(x.fmt.base, -MP.mpf(int(d)) / 2**x.fmt.fraction_bits) for d in log.max() - log.ravel()
        }
        # MP's powers are exact to far more bits than a power that is an integer differs from its neighbours by
        found = [int(MP.ceil(powers[int(d)] * 2**s - MP.mpf(2) ** -100)) for d in log.max() - log.ravel()]
        return np.where(log > -(10**8), np.array(found, dtype=object).reshape(log.shape), 0)

    greatest = int(np.max(np.matmul(integers(a), integers(b))))
    if not greatest:
        return None
    one = sum((int(logs(x).max()) - x.fmt.bias) * 2 ** (to.fraction_bits - x.fmt.fraction_bits) for x in (a, b))
    return one + fitted([greatest / 4**s], to)


@st.composite
def factors(draw):
    """Stacks of matrices, which broadcast, of one scale or of one for each row or element; zeros and NaN among them."""
    rows, inner, columns = (draw(st.integers(1, 5)) for _ in range(3))
    stack = draw(st.sampled_from([(), (1,), (2,)]))

    def matrices(fmt, shape):
        codes = draw(
            st.lists(st.integers(0, (1 << fmt.bits) - 1), min_size=math.prod(shape), max_size=math.prod(shape))
        )
        size = draw(st.sampled_from([0, math.prod(shape)]))
        own = draw(st.integers(-200, 200))
        if size:
            own = np.array(draw(st.lists(st.integers(-300, 300), min_size=size, max_size=size)), np.int32)
            own = own.reshape(shape)
        return Matrices(np.array(codes, fmt.dtype).reshape(shape), fmt, own)

    return matrices(A, (*stack, rows, inner)), matrices(B, (*draw(st.sampled_from([(), stack])), inner, columns))


@given(factors())
def test_the_range_is_that_of_the_definition(given_):
    a, b = given_
    assert dynamic_range.place(a, b, TO) == expected(a, b, TO)


def numbers(x):
    """Magnitudes, by mpmath."""
    m = x.codes.astype(int) & x.fmt.max_magnitude
    logs = (m - x.fmt.bias + x.log_offset).ravel().tolist()
    powers = [MP.power(2, MP.mpf(e) / 2**x.fmt.fraction_bits) for e in logs]
    return np.where(m > 0, np.array(powers, dtype=object).reshape(m.shape), MP.mpf(0))


@given(factors())
def test_it_is_above_the_greatest_sum_by_its_bound_at_most(given_):
    a, b = given_
    inner, left, right = a.codes.shape[-1], *map(numbers, given_)
    least = np.max(np.matmul(left, right))
    if least:
        most = least + 3 * inner * MP.mpf(2) ** -20 * np.max(left) * np.max(right)
        found = dynamic_range.place(a, b, TO) + TO.max_log
        # to nearest, as numbers there are
        assert round(MP.log(least, 2) * 64) <= found <= round(MP.log(most, 2) * 64)


@pytest.mark.parametrize("base", [ROOT, math.exp(2**-13)], ids=["root", "near 1"])
def test_another_base(base):
    """Near 1, as Madam's ladders are, a code is a step so small that few of 2^20 units are reached."""
    fmt, to = LNSFormat(8, 3, base=base), LNSFormat(12, 6, base=base)
    random = np.random.default_rng(0)
    a, b = (Matrices(random.integers(0, 256, shape).astype(np.uint8), fmt, 5) for shape in ((3, 4), (4, 2)))
    assert dynamic_range.place(a, b, to) == expected(a, b, to)


@contextlib.contextmanager
def at_most(size):
    """So many bytes at once, beside what there was."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


WIDE = LNSFormat(24, 10)


@pytest.mark.parametrize("fmt", [A, WIDE], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("shape", [(4, 1500, 1500), (40_000, 40, 8), (2, 8, 150_000), (3, 2, 3)])
@pytest.mark.parametrize("scales", ["one", "many"])
def test_what_it_takes_is_of_no_product(fmt, shape, scales):
    """Whatever is long in it, some megabytes beside a copy of the codes; and of no format: 24 bits have 16 million."""
    random = np.random.default_rng(2)

    def matrix(rows, columns):
        codes = random.integers(max(fmt.max_magnitude - 600, 0), fmt.max_magnitude + 1, (rows, columns))
        own = -fmt.max_log if scales == "one" else np.arange(rows, dtype=np.int32)[:, None] % 7 - fmt.max_log
        return Matrices(codes.astype(fmt.dtype), fmt, own if scales == "one" else np.broadcast_to(own, codes.shape))

    a, b = matrix(shape[0], shape[1]), matrix(shape[1], shape[2])
    with at_most(max(a.codes.nbytes, b.codes.nbytes) + (16 << 20)):
        place = dynamic_range.place(a, b, WIDE)
    left, right = (np.exp2((x.codes.astype(int) - fmt.bias + x.log_offset) / 2**fmt.fraction_bits) for x in (a, b))
    assert abs(math.log2((left @ right).max()) * 1024 - WIDE.max_log - place) < 2.0


def test_blocks_make_no_difference(monkeypatch):
    random = np.random.default_rng(1)
    a, b = (
        Matrices(random.integers(0, 1 << fmt.bits, shape).astype(fmt.dtype), fmt, random.integers(-40, 40, shape))
        for fmt, shape in ((A, (7, 50)), (B, (50, 33)))
    )
    whole = dynamic_range.place(a, b, TO)
    monkeypatch.setattr(dynamic_range, "_ROOM", 64)
    assert dynamic_range.place(a, b, TO) == whole == expected(a, b, TO)


@pytest.mark.parametrize("seed", range(20))
def test_the_greatest_sum_is_just_within(seed):
    """Of positive numbers the sum of magnitudes is the sum: it rounds to the greatest code, or a step from it."""
    random = np.random.default_rng(seed)
    shapes = (4, 40), (40, 3)
    a, b = (
        Matrices(random.integers(40, fmt.max_magnitude + 1, shape).astype(fmt.dtype), fmt, 0)
        for fmt, shape in zip((A, B), shapes, strict=True)
    )
    greatest = MP.log(max(map(max, (decode(a.codes, A).astype(object) @ decode(b.codes, B)))), 2) * 64
    assert -1.0 < greatest - dynamic_range.place(a, b, TO) - TO.max_log <= 0.5
    sums = matmul(a, b, Accumulator(TO, log_offset="dynamic"))
    found = decode(sums.codes, TO, log_offset=sums.log_offset)
    assert np.allclose(found, decode(a.codes, A) @ decode(b.codes, B), rtol=40 * 0.5 * math.log(2) / 64)


def test_sums_far_below_the_greatest_number_are_kept():
    """One number of each factor is 256 times the others, and they do not meet: the other rule leaves no room."""
    x, w = torch.full((1, 64), 2.0**-8), nn.Parameter(torch.full((1, 64), 2.0**-8))
    x[0, 0], w.data[0, 1] = 1.0, 1.0
    kinds = dict.fromkeys(("weights", "activations", "errors", "gradients"), "lns12f7")
    found, underflow = {}, {}
    for rule in ("fit", "dynamic"):
        with datapath(**kinds, accumulate=Accumulator("lns12f7", order="pairwise", log_offset=rule)) as path:
            found[rule] = functional.linear(x, w).item()
        (own,) = path.report().sums
        underflow[rule] = own.underflow / own.terms
    assert found["fit"] == pytest.approx(2.0**-7, rel=1e-3), "62 products are lost"
    assert found["dynamic"] == pytest.approx(2.0**-7 + 62 * 2.0**-16, rel=1e-2)
    assert underflow == {"fit": 62 / 64, "dynamic": 0.0}


@pytest.mark.parametrize("order", ["sequential", "pairwise"])
def test_what_a_coarse_logarithm_carries_above_it_saturates(order):
    """Nearer to the exact sum than it would be with room above: shifts give a + a / 2 as 2 a."""
    random = np.random.default_rng(3)
    a, b = (Matrices(random.integers(80, 128, shape).astype(np.uint8), A, 0) for shape in ((6, 100), (100, 5)))
    place = dynamic_range.place(a, b, TO)
    exact_sums = decode(a.codes, A) @ decode(b.codes, A)
    rules = [
        Accumulator(TO, order=order, gaussian_log=BitShift(), log_offset=rule) for rule in ("dynamic", place + 256)
    ]
    found = [matmul(a, b, rule) for rule in rules]
    within, above = (decode(sums.codes, TO, log_offset=sums.log_offset) for sums in found)
    assert found[0].log_offset == place
    assert above.max() > within.max() == TO.value_at(place + TO.max_log)
    assert (abs(within - exact_sums) <= np.maximum(abs(above - exact_sums), exact_sums * 2.0**-6)).all()


def test_without_numbers_it_is_the_other_rule():
    zeros = Matrices(np.zeros((2, 3), np.uint8), A, 0)
    other = Matrices(np.full((3, 2), 64, np.uint16), B, 0)
    assert dynamic_range.place(zeros, other, TO) is None
    for x, y in ((zeros, other), (Matrices(np.full((2, 3), A.nan_code, np.uint8), A, 0), other)):
        sums = [matmul(x, y, Accumulator(TO, log_offset=rule)) for rule in ("fit", "dynamic")]
        assert sums[0].log_offset == sums[1].log_offset
        assert np.array_equal(sums[0].codes, sums[1].codes)


def test_a_bias_above_the_range_moves_it():
    """A sum of 2^-20 and a bias of 1: within the range of the sums the bias would saturate."""
    layer = nn.Linear(1, 1)
    layer.weight.data.fill_(2.0**-20)
    layer.bias.data.fill_(1.0)
    convolution = nn.Conv1d(1, 1, 1)
    convolution.load_state_dict({"weight": layer.weight.data[..., None], "bias": layer.bias.data})
    kinds = dict.fromkeys(("weights", "activations", "errors"), "lns8f3")
    for log in ({}, {"gaussian_log": LookUpTable(20)}):
        with datapath(**kinds, accumulate=Accumulator("lns12f6", log_offset="dynamic", **log)):
            assert layer(torch.ones(1, 1)).item() == 1.0
            assert convolution(torch.ones(1, 1, 1)).item() == 1.0
            assert torch.addmm(layer.bias, torch.ones(1, 1), layer.weight, alpha=2.0).item() == 1.0
