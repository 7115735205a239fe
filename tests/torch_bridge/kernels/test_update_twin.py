"""The twin of Madam's step in torch operations against the kernel: every code, moment and count, bit by bit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import lnsnum
from lnsnum import LNSFormat, lns4f1, lns8f3, lns8f5, lns12f6
from lnsnum.torch_bridge.kernels import moments, update
from lnsnum.torch_bridge.kernels.update_twin import (
    Step,
    apply_step,
    first_exponent,
    madam_step,
    random_bits,
    random_bits_range,
    step_scalars,
)

F32 = np.float32
GRADIENTS = [0.0, 1.0, 0.5, 0.9999999, 1.0000001, 3.0, 0.1, 1e-3, 1e-10, 1e-20, 1e-38, 2.0**-126, 2.0**-149]
GRADIENTS += [1e10, 2.0**60, 1e38, 3.4028235e38, math.inf]
GRADIENTS = np.array([*GRADIENTS, *(-g for g in GRADIENTS), math.nan], F32)
ROUNDINGS = ["stochastic_log", "stochastic_value", "nearest"]
MOMENTUM_CODES = np.delete(np.arange(256), 128).astype(np.uint8)

compiles = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
"""torch's own compiler uses what torch calls deprecated."""


def tensor(array):
    """A tensor of a copy, int16 for uint16."""
    array = array.copy()
    return torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)


def check(codes, gradient, moment, held, fmt, **arguments):
    """The kernel on copies, the twin on tensors of them."""
    arrays = [codes.copy(), moment.copy(), None if held is None else held.copy()]
    rows = arguments.pop("rows", None)
    counts = update.madam_step(arrays[0], gradient, arrays[1], fmt, momentum_codes=arrays[2], rows=rows, **arguments)
    found = madam_step(
        tensor(codes), tensor(gradient), tensor(moment), fmt,
        momentum_codes=None if held is None else tensor(held),
        rows=None if rows is None else torch.from_numpy(rows), **arguments,
    )  # fmt: skip
    same(found, arrays, counts)


def same(found, arrays, counts):
    np.testing.assert_array_equal(found.codes.numpy().view(arrays[0].dtype), arrays[0])
    assert found.second_moment.numpy().dtype == arrays[1].dtype
    np.testing.assert_array_equal(found.second_moment.numpy(), arrays[1])
    assert (found.momentum_codes is None) == (arrays[2] is None)
    if arrays[2] is not None:
        np.testing.assert_array_equal(found.momentum_codes.numpy(), arrays[2])
    assert tuple(found.counts.tolist()) == tuple(counts)


def codes_of(fmt):
    return np.arange(1 << fmt.bits).astype(fmt.dtype)


def spread(n, *arrays):
    """The arrays repeated to n elements, each at a period of its own: all combinations, where these are coprime."""
    return [np.resize(array, n) for array in arrays]


# ---------------------------------------------------------------------------------------------------------- random bits


def test_random123_known_answer():
    assert random_bits_range(4, seed=0, stream=0, step=0).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@example(7, 2**62 - 8, 2**63 - 1, 2**32 - 1, 2**32 - 1)
@given(
    n=st.integers(0, 40),
    start=st.one_of(st.integers(0, 50), st.integers(0, 2**62 - 64)),
    seed=st.integers(0, 2**63 - 1),
    stream=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**32 - 1),
)
def test_random_bits_are_those_of_the_kernels(n, start, seed, stream, step):
    expected = lnsnum.random_bits(n, seed=seed, stream=stream, step=step, start=start).astype(np.int64).tolist()
    key = {"seed": seed, "stream": stream}
    assert random_bits_range(n, start, step=step, **key).tolist() == expected
    assert random_bits(torch.arange(start, start + n), step=torch.tensor(step), **key).tolist() == expected


# ------------------------------------------------------------------------------------------------ everything, exhausted


@pytest.mark.parametrize("fmt", [LNSFormat(3, 0), lns4f1, lns8f3, lns8f5, lns12f6, LNSFormat(9, 0, base=1.5)], ids=str)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_code_with_every_gradient(fmt, rounding):
    n = codes_of(fmt).size * GRADIENTS.size
    codes, gradient = np.repeat(codes_of(fmt), GRADIENTS.size), np.resize(GRADIENTS, n)
    moment, values, momentum = spread(
        n, np.array([0, 1, 100, 128, 254, 255], np.uint8), np.array([0, 1e-30, 1e-3, 1, 1e30], F32), MOMENTUM_CODES
    )
    for zero, decay in (("keep", 0.0), ("leave", 0.1)):
        arguments = {"rounding": rounding, "zero": zero, "weight_decay": decay, "seed": 5, "stream": 3}
        check(codes, gradient, moment, None, fmt, lr=0.05, step=1, **arguments)
        check(codes, gradient, moment, momentum, fmt, lr=0.5, step=9, exponent=-7, momentum=0.9, **arguments)
        check(codes, gradient, values, momentum, fmt, lr=3.0, step=4, exponent=3, momentum=0.5, **arguments)
        check(codes, gradient, values, None, fmt, lr=1e-3, step=2, beta=0.0, g_bound=0.3, **arguments)


@pytest.mark.parametrize("exponent", [-120, -7, 0, 120])
def test_every_moment_code_with_every_gradient(exponent):
    n = 256 * GRADIENTS.size * 5
    moment, gradient = np.repeat(np.arange(256).astype(np.uint8), n // 256), np.resize(GRADIENTS, n)
    codes, momentum = spread(n, codes_of(lns8f5), MOMENTUM_CODES)
    for step in (1, 1000):
        arguments = {"lr": 0.1, "step": step, "exponent": exponent, "beta": 0.9, "zero": "leave"}
        check(codes, gradient, moment, None, lns8f5, **arguments)
        check(codes, gradient, moment, momentum, lns8f5, momentum=0.9, **arguments)
        values = moments.MOMENT_TABLE[moment]
        check(codes, gradient, values, momentum, lns8f5, momentum=0.99, rounding="stochastic_value", **arguments)


@pytest.mark.parametrize("gradient", [0.3, -0.3])
def test_every_code_of_a_wide_format(gradient):
    codes = codes_of(LNSFormat(16, 10))
    zeros = np.zeros(codes.size, np.uint8)
    for rounding in ROUNDINGS:
        arguments = {"lr": 0.07, "step": 1, "seed": 2, "rounding": rounding, "weight_decay": 0.3}
        check(codes, np.full(codes.size, gradient, F32), zeros, None, LNSFormat(16, 10), **arguments)


def test_square_roots_and_quotients_are_those_of_ieee():
    """A million of each: torch's own float32 root is not correctly rounded on every CPU."""
    n = 1 << 20
    random = np.random.default_rng(3)
    v = random.integers(1 << 23, 0x7B << 24, n).astype(np.int32).view(F32)
    gradient = np.sqrt(v) * random.uniform(0.0, 10.0, n).astype(F32)
    with np.errstate(all="ignore"):
        gradient = gradient.astype(F32)
    codes = np.full(n, 1 << 14, np.uint16)
    arguments = {"lr": 50.0, "step": 7, "beta": 0.9, "rounding": "nearest"}
    check(codes, gradient, v, None, LNSFormat(16, 14), **arguments)


FORMATS = st.integers(3, 16).flatmap(
    lambda bits: st.builds(
        LNSFormat, st.just(bits), st.integers(0, bits - 2), base=st.sampled_from([2.0, 1.5, math.e, 1.01, 1e9])
    )
)


@example([0x7F800000, 0x7FC00000, 1, 0, 0x80000001], lns8f3, 0.05, 1, 0, 10.0, 0.999, 0.9, 0.0, "nearest", "leave",
         "uint8", 0, 0, 0)  # fmt: skip
@given(
    bits=st.lists(st.one_of(st.integers(0, 2**32 - 1), st.integers(0x3F000000, 0x40000000)), max_size=40),
    fmt=FORMATS,
    lr=st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.floats(1.0, 1e6)),
    step=st.one_of(st.integers(1, 20), st.integers(1, 2**31)),
    exponent=st.integers(-120, 120),
    g_bound=st.sampled_from([0.1, 1.0, 10.0, 1e6]),
    beta=st.sampled_from([0.0, 0.5, 0.9, 0.999, 0.9999999]),
    momentum=st.sampled_from([None, 0.0, 0.5, 0.9, 0.9999]),
    decay=st.sampled_from([0.0, 0.01, 1.0, 1e9]),
    rounding=st.sampled_from(ROUNDINGS),
    zero=st.sampled_from(["keep", "leave"]),
    kind=st.sampled_from(["uint8", "float32"]),
    seed=st.integers(0, 2**63 - 1),
    stream=st.integers(0, 2**31 - 1),
    start=st.one_of(st.integers(0, 100), st.integers(0, 2**61)),
)
def test_any_step(
    bits, fmt, lr, step, exponent, g_bound, beta, momentum, decay, rounding, zero, kind, seed, stream, start
):
    random = np.random.default_rng(len(bits))
    n = len(bits)
    codes = (random.integers(0, 1 << fmt.bits, n) * (random.random(n) > 0.1)).astype(fmt.dtype)
    moment = random.integers(0, 256, n).astype(np.uint8)
    if kind == "float32":
        moment = np.where(moment < 20, F32(0.0), (random.standard_normal(n) ** 2).astype(F32))
    check(
        codes, np.array(bits, np.uint32).view(F32), moment,
        None if momentum is None else random.choice(MOMENTUM_CODES, n), fmt,
        lr=lr, step=step, exponent=exponent, g_bound=g_bound, beta=beta, momentum=momentum or 0.0, weight_decay=decay,
        rounding=rounding, zero=zero, seed=seed, stream=stream, start=start,
    )  # fmt: skip


@pytest.mark.parametrize("width", [1, 3, 8, 10])
def test_rows_draw_what_the_whole_would(width):
    rows = np.array([7, 0, 2**40, 3, 12])
    random = np.random.default_rng(0)
    n = rows.size * width
    codes = random.integers(0, 256, n).astype(np.uint8)
    gradient, momentum = random.standard_normal(n).astype(F32), random.choice(MOMENTUM_CODES, n)
    moment = random.integers(0, 256, n).astype(np.uint8)
    arguments = {"lr": 0.3, "step": 3, "momentum": 0.9, "stream": 4, "rows": rows}
    check(codes, gradient, moment, momentum, lns8f5, **arguments)
    check(codes[:0], gradient[:0], moment[:0], None, lns8f5, lr=0.3, step=3, rows=rows[:0])


def test_tensors_of_any_shape_and_stride():
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, (6, 10)).astype(np.uint8)
    gradient, moment = random.standard_normal((6, 10)).astype(F32), random.integers(0, 256, (6, 10)).astype(np.uint8)
    expected = [codes.copy(), moment.copy(), None]
    counts = update.madam_step(expected[0], gradient, expected[1], lns8f5, lr=0.3, step=1, start=6)
    arrays = (torch.from_numpy(np.asfortranarray(array)) for array in (codes, gradient, moment))
    same(madam_step(*arrays, lns8f5, lr=0.3, step=1, start=6), expected, counts)
    point = madam_step(*(torch.from_numpy(a)[0, 0] for a in (codes, gradient, moment)), lns8f5, lr=0.3, step=1)
    assert point.codes.shape == ()


# -------------------------------------------------------------------------------------------------------------- scalars


@given(
    lr=st.floats(0.0, 1e6),
    exponent=st.integers(-120, 120),
    coded=st.booleans(),
    decay=st.floats(0.0, 1e9),
    product=st.floats(0.0, 0.9999999),
)
def test_scalars_of_tensors_are_those_of_numbers(lr, exponent, coded, decay, product):
    rest = {"coded": coded, "g_bound": 10.0, "beta": 0.999, "momentum": 0.9, "weight_decay": decay}
    expected = update.step_scalars(
        lns8f3, lr=lr, exponent=exponent, beta_product=product, momentum_product=product, **rest
    )
    tensors = (torch.tensor(x, dtype=torch.float64) for x in (lr, product, product))
    given_lr, beta_product, momentum_product = tensors
    for exponent_given in (exponent, torch.tensor(exponent)):
        found = step_scalars(lns8f3, lr=given_lr, exponent=exponent_given, beta_product=beta_product,
                             momentum_product=momentum_product, **rest)  # fmt: skip
        assert all(scalar.dtype == torch.float32 for scalar in found)
        assert [float(scalar) for scalar in found] == [float(scalar) for scalar in expected]


def test_a_step_that_is_a_tensor_needs_the_product():
    arrays = torch.zeros(3, dtype=torch.uint8), torch.ones(3), torch.zeros(3)
    with pytest.raises(ValueError, match="beta_product is missing"):
        madam_step(*arrays, lns8f3, lr=0.1, step=torch.tensor(1))
    with pytest.raises(ValueError, match="rounding='near'"):
        madam_step(*arrays, lns8f3, lr=0.1, step=1, rounding="near")
    assert madam_step(*arrays, lns8f3, lr=0.1, step=torch.tensor(1), beta=0.0).codes.tolist() == [0, 0, 0]


@example([])
@example([math.inf, -0.0])
@given(st.lists(st.one_of(st.sampled_from(GRADIENTS.tolist()), st.floats(width=32)), max_size=10))
def test_first_exponent(gradient):
    array = np.array(gradient, F32)
    found = first_exponent(torch.from_numpy(array))
    assert (found.dtype, found.shape) == (torch.int32, ())
    assert int(found) == moments.first_exponent(array)


# ------------------------------------------------------------------------------------------------------------- compiled


@compiles
def test_compiled_gives_the_same_bits(fresh):
    """With momentum; lr and step as tensors, and nothing is compiled again when they change."""
    n = 1 << 14
    random = np.random.default_rng(5)
    codes, momentum = random.integers(0, 1 << 12, n).astype(np.uint16), random.choice(MOMENTUM_CODES, n)
    gradient = random.integers(0, 1 << 32, n, dtype=np.uint32).view(F32)
    gradient[: n // 2] = random.standard_normal(n // 2)
    moment = random.integers(0, 256, n).astype(np.uint8)
    policy = {"rounding": "stochastic_value", "zero": "leave", "seed": 2**63 - 1, "stream": 9, "start": 5}
    decay = {"beta": 0.999, "momentum": 0.9, "weight_decay": 0.05, "exponent": -3}

    def run(codes, gradient, moment, momentum, lr, step, *products):
        products = dict(zip(("beta_product", "momentum_product"), products, strict=True))
        return madam_step(
            codes, gradient, moment, lns12f6, lr=lr, step=step, momentum_codes=momentum, **products, **policy, **decay
        )

    compiled = torch.compile(run, fullgraph=True)
    for lr, step in ((0.05, 1), (0.7, 2), (0.01, 2**31)):
        arrays = [codes.copy(), moment.copy(), momentum.copy()]
        own = {"lr": lr, "step": step, "momentum_codes": arrays[2]}
        counts = update.madam_step(arrays[0], gradient, arrays[1], lns12f6, **own, **policy, **decay)
        lr_and_products = [torch.tensor(x, dtype=torch.float64) for x in (lr, 0.999**step, 0.9**step)]
        with torch.compiler.set_stance("default" if step == 1 else "fail_on_recompile"):
            found = compiled(
                *map(tensor, (codes, gradient, moment, momentum)),
                lr_and_products[0],
                torch.tensor(step),
                *lr_and_products[1:],
            )
        same(found, arrays, counts)


@compiles
def test_compiled_with_scalars_made_outside(fresh):
    random = np.random.default_rng(5)
    n = 1 << 16
    codes, gradient = random.integers(0, 256, n).astype(np.uint8), random.standard_normal(n).astype(F32)
    moment = random.integers(0x00800000, 0x50000000, n).astype(np.int32).view(F32)
    scalars = update.step_scalars(
        lns8f5, lr=0.1, coded=False, exponent=-7, g_bound=10.0, beta=0.9, momentum=0.0, weight_decay=0.0,
        beta_product=0.9, momentum_product=0.0,
    )  # fmt: skip
    policy = {"rounding": "nearest", "zero": "keep", "seed": 1, "stream": 2}
    arrays = [codes.copy(), moment.copy(), None]
    counts = update.apply_step(arrays[0], gradient, arrays[1], None, lns8f5, scalars, step=1, **policy)
    given = update.StepScalars(*(torch.tensor(scalar) for scalar in scalars))

    def run(codes, gradient, moment, step, scalars):
        return apply_step(codes, gradient, moment, None, lns8f5, scalars, step=step, **policy)

    tensors = [*map(tensor, (codes, gradient, moment)), torch.tensor(1), given]
    same(torch.compile(run, fullgraph=True)(*tensors), arrays, counts)
    same(run(*tensors), arrays, counts)
    same(run(*tensors[:-1], scalars), arrays, counts)


def test_traced_without_dynamo_all_streams_are_drawn_at_once():
    """As an optimizer's step is traced under fake tensors; rows of a width that is no multiple of four, too."""
    from torch.fx.experimental.proxy_tensor import make_fx

    random = np.random.default_rng(5)
    codes = random.integers(0, 256, (4, 6)).astype(np.uint8)
    gradient, momentum = random.standard_normal((4, 6)).astype(F32), random.choice(MOMENTUM_CODES, (4, 6))
    moment = random.integers(100, 150, (4, 6)).astype(np.uint8)
    arguments = {"lr": 0.3, "step": 3, "momentum": 0.9, "stream": 4}

    def run(codes, gradient, moment, momentum, rows):
        return tuple(madam_step(codes, gradient, moment, lns8f5, momentum_codes=momentum, rows=rows, **arguments))

    for width, rows in ((6, None), (6, np.array([3, 0, 9, 4])), (4, np.array([3, 0, 9, 4]))):
        parts = [np.ascontiguousarray(array[:, :width]) for array in (codes, gradient, moment, momentum)]
        arrays = [parts[0].copy(), parts[2].copy(), parts[3].copy()]
        counts = update.madam_step(
            arrays[0], parts[1], arrays[1], lns8f5, momentum_codes=arrays[2], rows=rows, **arguments
        )

        given = [*map(tensor, parts), None if rows is None else torch.from_numpy(rows)]
        graph = make_fx(run, tracing_mode="fake")(*given)
        same(Step(*graph(*given)), arrays, counts)
