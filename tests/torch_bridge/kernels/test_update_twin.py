"""The twin of Madam's step in torch operations against the kernel: every code, moment and count, bit by bit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import lnsnum
from lnsnum import LNSFormat, lns4f1, lns6f2, lns8f3, lns8f4, lns8f5, lns12f6
from lnsnum.kernels.scales import Scales, Walk
from lnsnum.torch_bridge.kernels import (
    ceiling,
    ceiling_twin,
    hypentropy,
    moments,
    random_words,
    random_words_twin,
    step_numbers,
    update,
)
from lnsnum.torch_bridge.kernels.random_words import Draw
from lnsnum.torch_bridge.kernels.step_numbers import Choices, StepNumbers
from lnsnum.torch_bridge.kernels.update_twin import (
    Step,
    apply_step,
    first_exponent,
    madam_step,
    raise_exponent,
    step_scalars,
)

F32 = np.float32
GRADIENTS = [0.0, 1.0, 0.5, 0.9999999, 1.0000001, 3.0, 0.1, 1e-3, 1e-10, 1e-20, 1e-38, 2.0**-126, 2.0**-149]
GRADIENTS += [1e10, 2.0**60, 1e38, 3.4028235e38, math.inf]
GRADIENTS = np.array([*GRADIENTS, *(-g for g in GRADIENTS), math.nan], F32)
ROUNDINGS = ["stochastic_log", "stochastic_value", "nearest"]
POLICIES = [{}, {"zero": "keep"}]
POLICIES += [{"rule": "paper", "rounding": r, "zero": z} for r in ROUNDINGS for z in ("keep", "leave")]
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
    if isinstance(arguments.get("unit"), np.ndarray):
        arguments["unit"] = torch.from_numpy(arguments["unit"])
    found = madam_step(
        tensor(codes), tensor(gradient), tensor(moment), fmt,
        momentum_codes=None if held is None else tensor(held),
        rows=None if rows is None else torch.from_numpy(rows), **arguments,
    )  # fmt: skip
    finite = np.abs(gradient[np.isfinite(gradient)])
    assert found.greatest.dtype == torch.int32
    assert float(found.greatest.view(torch.float32)) == (finite.max() if finite.size else 0.0)
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


# --------------------------------------------------------------------------------------------------------- random words


@example(7, 2**62 - 8, 2**63 - 1, 2**32 - 1, 2**32 - 1)
@example(40, 2**32 - 20, 5, 6, 7)
@given(
    n=st.integers(0, 40),
    start=st.one_of(st.integers(0, 50), st.integers(2**32 - 50, 2**32), st.integers(0, 2**62 - 64)),
    seed=st.integers(0, 2**63 - 1),
    stream=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**32 - 1),
)
def test_keys_and_words_are_those_of_the_kernels(n, start, seed, stream, step):
    keys = random_words_twin.draw_keys(Draw(seed, stream, step))
    words = lnsnum.random_bits(4, seed=seed, stream=stream, step=step, start=random_words.KEY_INDEX)
    assert list(keys) == words.astype(np.int64).tolist()
    own = random_words.draw_keys(seed, stream, step)
    expected = np.empty(n, np.int32)
    random_words.fill_words(expected, start, own[0], own[1])
    index = random_words_twin.indices(torch.Size([n]), start=start, device=torch.device("cpu"))
    for first, second in (keys[:2], map(torch.tensor, keys[:2])):
        found = random_words_twin.words_of(index, first, second)
        assert found.tolist() == expected.view(np.uint32).astype(np.int64).tolist()


# ------------------------------------------------------------------------------------------------ everything, exhausted


FORMATS = [LNSFormat(3, 0), lns4f1, lns6f2, lns8f3, lns8f4, lns8f5, lns12f6, LNSFormat(9, 3, base=1.5)]


@pytest.mark.thorough
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_every_code_with_every_gradient(fmt, policy):
    n = codes_of(fmt).size * GRADIENTS.size
    codes, gradient = np.repeat(codes_of(fmt), GRADIENTS.size), np.resize(GRADIENTS, n)
    moment, values, momentum = spread(
        n, np.array([0, 1, 100, 128, 254, 255], np.uint8), np.array([0, 1e-30, 1e-3, 1, 1e30], F32), MOMENTUM_CODES
    )
    units = np.array([0.0, 1e-6, 0.3, 1.0, 7.0, 2.0**20], F32)
    for decay, unit, inner in ((0.0, 5.0, 1), (0.1, units, 1), (1.0, units, 5)):
        arguments = {"weight_decay": decay, "unit": unit, "inner": inner, "seed": 5, "stream": 3, **policy}
        check(codes, gradient, moment, None, fmt, lr=0.05, step=1, **arguments)
        check(codes, gradient, moment, momentum, fmt, lr=0.5, step=9, exponent=-7, momentum=0.9, **arguments)
        check(codes, gradient, values, momentum, fmt, lr=3.0, step=4, exponent=3, momentum=0.5, **arguments)
        check(codes, gradient, values, None, fmt, lr=1e-3, step=2, kappa=0.1, beta=0.0, g_bound=0.3, **arguments)


@pytest.mark.parametrize("fmt", FORMATS[1:], ids=str)
@pytest.mark.parametrize("keep", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_every_code_with_steps_of_every_size(fmt, keep):
    """From one that is a small part of a code to one across the whole range, in 1,000 sizes and both directions."""
    sizes = np.geomspace(1e-5, 1e5, 500).astype(F32)
    drives = np.concatenate([sizes, -sizes])
    codes = np.repeat(codes_of(fmt), drives.size)
    gradient = np.tile(np.sign(drives) * np.minimum(np.abs(drives), 9.0), codes_of(fmt).size).astype(F32)
    values = np.tile(np.square(gradient[: drives.size] / drives), codes_of(fmt).size).astype(F32)
    for unit in (0.0, 1.0, 11.3):
        arguments = {"lr": 0.1, "step": 100, "beta": 0.9999999, "g_bound": 1e6, "beta_product": 0.0, "unit": unit}
        check(codes, gradient, values, None, fmt, zero="keep" if keep else None, **arguments)


@pytest.mark.parametrize("exponent", [-120, -7, 0, 120])
def test_every_moment_code_with_every_gradient(exponent):
    n = 256 * GRADIENTS.size * 5
    moment, gradient = np.repeat(np.arange(256).astype(np.uint8), n // 256), np.resize(GRADIENTS, n)
    codes, momentum = spread(n, codes_of(lns8f5), MOMENTUM_CODES)
    for step in (1, 1000):
        arguments = {"lr": 0.1, "step": step, "exponent": exponent, "beta": 0.9}
        check(codes, gradient, moment, None, lns8f5, **arguments)
        check(codes, gradient, moment, momentum, lns8f5, momentum=0.9, **arguments)
        values, paper = moments.MOMENT_TABLE[moment], {"rule": "paper", "rounding": "stochastic_value", **arguments}
        check(codes, gradient, values, momentum, lns8f5, momentum=0.99, **paper)


@pytest.mark.parametrize("gradient", [0.3, -0.3])
def test_every_code_of_a_wide_format(gradient):
    codes = codes_of(LNSFormat(16, 10))
    zeros = np.zeros(codes.size, np.uint8)
    for policy in POLICIES:
        for unit in (1.0, 1000.0, 2.0**28):
            arguments = {"lr": 0.07, "step": 1, "seed": 2, "unit": unit, "weight_decay": 0.3, **policy}
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
    arguments = {"lr": 50.0, "step": 7, "beta": 0.9}
    check(codes, gradient, v, None, LNSFormat(16, 14), rule="paper", rounding="nearest", **arguments)
    unit = random.uniform(0.0, 3e4, n).astype(F32)  # at the code where X is 16384
    check(codes, gradient, v, None, LNSFormat(16, 10), unit=unit, **{**arguments, "lr": 0.2})


ANY_FORMAT = st.integers(3, 16).flatmap(
    lambda bits: st.builds(
        LNSFormat, st.just(bits), st.integers(0, bits - 2), base=st.sampled_from([2.0, 1.5, math.e, 1.01, 1e9])
    )
)


@example([0x7F800000, 0x7FC00000, 1, 0, 0x80000001], lns8f3, 0.05, 1, 0, 10.0, 0.999, 0.9, 0.0, POLICIES[-1],
         "uint8", [1.0], 1, 1.0, 0, 0, 0)  # fmt: skip
@example([0x7F800000, 0x7FC00000, 1, 0, 0x80000001], lns8f3, 0.05, 1, 0, 10.0, 0.999, 0.9, 0.0, POLICIES[0],
         "uint8", [0.0, 1.0], 2, 0.5, 0, 0, 0)  # fmt: skip
@given(
    bits=st.lists(st.one_of(st.integers(0, 2**32 - 1), st.integers(0x3F000000, 0x40000000)), max_size=40),
    fmt=ANY_FORMAT,
    lr=st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.floats(1.0, 1e6)),
    step=st.one_of(st.integers(1, 20), st.integers(1, 2**31)),
    exponent=st.integers(-120, 120),
    g_bound=st.sampled_from([0.1, 1.0, 10.0, 1e6]),
    beta=st.sampled_from([0.0, 0.5, 0.9, 0.999, 0.9999999]),
    momentum=st.sampled_from([None, 0.0, 0.5, 0.9, 0.9999]),
    decay=st.sampled_from([0.0, 0.01, 1.0, 1e9]),
    policy=st.sampled_from(POLICIES),
    kind=st.sampled_from(["uint8", "float32"]),
    unit=st.lists(st.one_of(st.just(0.0), st.floats(0.0, 2.0**100, width=32)), min_size=1, max_size=5),
    inner=st.integers(1, 7),
    kappa=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**63 - 1),
    stream=st.integers(0, 2**31 - 1),
    start=st.one_of(st.integers(0, 100), st.integers(0, 2**61)),
)
def test_any_step(
    bits, fmt, lr, step, exponent, g_bound, beta, momentum, decay, policy, kind, unit, inner, kappa, seed, stream, start
):
    if fmt.codes_per_octave < 1 or fmt.octaves >= hypentropy.OCTAVES:
        policy = {"rule": "paper", **({} if policy.get("rule") == "paper" else {"zero": "keep"}), **policy}
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
        unit=np.array(unit, F32), inner=inner, kappa=kappa, seed=seed, stream=stream, start=start, **policy,
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
    for unit, inner in ((2.0, 1), (np.linspace(0, 9, 13).astype(F32), width), (np.array([1, 2, 3], F32), 1)):
        check(codes, gradient, moment, momentum, lns8f5, unit=unit, inner=inner, **arguments)
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


@pytest.mark.parametrize("shape", [(), (1, 1, 1), (4, 1, 1), (1, 5, 1), (1, 1, 3), (4, 5, 1), (4, 5, 3)])
@pytest.mark.parametrize("rows", [None, np.array([2, 0, 1])])
def test_units_broadcast_to_the_codes_and_rows_take_their_own(shape, rows):
    random = np.random.default_rng(1)
    units = random.uniform(0, 9, shape).astype(F32)
    each = np.broadcast_to(units, (4, 5, 3))
    each = each if rows is None else each[rows]
    codes = random.integers(0, 256, each.shape).astype(np.uint8)
    gradient, moment = random.standard_normal(each.shape).astype(F32), np.zeros(each.shape, F32)
    numbers = StepNumbers(0.3, 1.0, 0, 0.999, 0.0, 10.0, 0.999, 0.0, 0.1)
    scalars = step_numbers.step_scalars(lns8f5, "hypentropy", numbers, coded=False)
    expected = [codes.copy(), moment.copy()]
    whole = np.arange(60) if rows is None else (rows[:, None] * 15 + np.arange(15)).reshape(-1)
    unit = np.ones(60, F32)
    unit[whole] = each.reshape(-1)  # the kernel takes that of an element by its index in the whole
    counts, greatest = update.apply_step(
        expected[0], gradient, expected[1], None, lns8f5, scalars, Choices(), unit, Walk(), Draw(1, 2, 3), rows=rows
    )
    found = apply_step(
        tensor(codes), tensor(gradient), tensor(moment), None, lns8f5, scalars, Choices(), tensor(units),
        Draw(1, 2, 3), rows=None if rows is None else torch.from_numpy(rows),
    )  # fmt: skip
    same(found, [*expected, None], counts)
    assert int(found.greatest) == greatest


# -------------------------------------------------------------------------------------------------------------- scalars


@given(
    lr=st.floats(0.0, 1e6),
    kappa=st.floats(0.0, 1.0),
    exponent=st.integers(-120, 120),
    coded=st.booleans(),
    decay=st.floats(0.0, 1e9),
    product=st.floats(0.0, 0.9999999),
)
def test_scalars_of_tensors_are_those_of_numbers(lr, kappa, exponent, coded, decay, product):
    for rule in ("hypentropy", "paper"):
        numbers = StepNumbers(lr, kappa, exponent, product, product, 10.0, 0.999, 0.9, decay)
        expected = step_numbers.step_scalars(lns8f3, rule, numbers, coded=coded)
        doubles = (torch.tensor(x, dtype=torch.float64) for x in (lr, kappa, product, product))
        tensors = numbers._replace(
            **dict(zip(("lr", "kappa", "beta_product", "momentum_product"), doubles, strict=True))
        )
        for exponent_given in (exponent, torch.tensor(exponent)):
            found = step_scalars(lns8f3, rule, tensors._replace(exponent=exponent_given), coded=coded)
            assert all(scalar.dtype == torch.float32 for scalar in found)
            assert [float(scalar) for scalar in found] == [float(scalar) for scalar in expected]


@pytest.mark.parametrize("rule", ["hypentropy", "paper"])
@pytest.mark.parametrize("lr", [-0.1, math.nan, math.inf, -math.inf])
def test_an_lr_that_is_no_number_from_0_on_moves_and_decays_nothing(rule, lr):
    numbers = StepNumbers(torch.tensor(lr), 1.0, 0, 0.9, 0.0, 10.0, 0.9, 0.0, 0.1)
    scalars = step_scalars(lns8f3, rule, numbers, coded=True)
    assert (float(scalars.rate), float(scalars.decay)) == (0.0, 0.0)


def test_what_is_missing_or_of_another_kind_is_told():
    codes, gradient, moment = torch.zeros(3, dtype=torch.uint8), torch.ones(3), torch.zeros(3)
    arrays = codes, gradient, moment
    with pytest.raises(ValueError, match="beta_product is missing"):
        madam_step(*arrays, lns8f3, lr=0.1, step=torch.tensor(1))
    with pytest.raises(ValueError, match="rounding='near'"):
        madam_step(*arrays, lns8f3, lr=0.1, step=1, rule="paper", rounding="near")
    with pytest.raises(ValueError, match="zero='leave' is not for rule='hypentropy'"):
        madam_step(*arrays, lns8f3, lr=0.1, step=1, zero="leave")
    with pytest.raises(ValueError, match=r"momentum=0.9 needs momentum_codes"):
        madam_step(*arrays, lns8f3, lr=0.1, step=1, momentum=0.9)
    with pytest.raises(TypeError, match=r"codes is of torch.uint8: give torch.int16"):
        madam_step(*arrays, lns12f6, lr=0.1, step=1)
    with pytest.raises(ValueError, match=r"gradient of shape \(2,\) is not of the codes' shape \(3,\)"):
        madam_step(codes, gradient[:2], moment, lns8f3, lr=0.1, step=1)
    paper = {"rule": "paper", "beta": 0.0}
    assert madam_step(*arrays, lns8f3, lr=0.1, step=torch.tensor(1), **paper).codes.tolist() == [0, 0, 0]


@example([])
@example([math.inf, -0.0])
@given(st.lists(st.one_of(st.sampled_from(GRADIENTS.tolist()), st.floats(width=32)), max_size=10))
def test_first_exponent(gradient):
    array = np.array(gradient, F32)
    found = first_exponent(torch.from_numpy(array))
    assert (found.dtype, found.shape) == (torch.int32, ())
    assert int(found) == moments.first_exponent(array)


@pytest.mark.parametrize("exponent", [moments.NO_EXPONENT, -120, -7, 0, 113, 119, 120])
def test_the_exponent_is_raised_as_by_the_kernels(exponent):
    """By every number of octaves, of every code."""
    codes, held = np.arange(256).astype(np.uint8), MOMENTUM_CODES
    for octave in range(-149, 128):
        greatest = int(np.ldexp(F32(1.0), octave).view(np.int32))
        octaves = 0 if exponent == moments.NO_EXPONENT else moments.octaves_to_raise(greatest, exponent)
        expected = codes.copy(), held.copy()
        moments.lower_moment(expected[0], octaves)
        moments.lower_momentum(expected[1], octaves)
        found = [tensor(codes), tensor(held)]
        raised = torch.tensor(exponent, dtype=torch.int32)
        raise_exponent(found, raised, torch.tensor(greatest, dtype=torch.int32))
        assert int(raised) == exponent + octaves
        for own, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(own.numpy(), other)
    floats = torch.ones(3)
    raise_exponent([floats], torch.tensor(0, dtype=torch.int32), torch.tensor(0x7F000000, dtype=torch.int32))
    assert floats.tolist() == [1.0, 1.0, 1.0]


# ------------------------------------------------------------------------------------------------------------- ceilings


@pytest.mark.parametrize("fmt", [*FORMATS, LNSFormat(16, 10), LNSFormat(16, 0, base=1e9)], ids=str)
@pytest.mark.parametrize("keep", [False, True])
def test_a_scale_grows_as_by_the_kernel(fmt, keep):
    codes = np.tile(codes_of(fmt), 16 if fmt.bits < 12 else 1).reshape(4, 2, -1)
    for shape in ((), (4, 1, 1), (1, 2, 1), (4, 2, 1)):
        grows = np.resize([True, False, True], shape)
        expected, each = codes.copy(), np.broadcast_to(grows, codes.shape).reshape(-1)
        ceiling.grow(expected.reshape(-1), fmt, each, Scales(np.arange(each.size), Walk()), Draw(7, 8, 9), keep=keep)
        found = ceiling_twin.grow(tensor(codes), fmt, torch.from_numpy(grows), Draw(7, 8, torch.tensor(9)), keep=keep)
        np.testing.assert_array_equal(found.numpy().view(fmt.dtype), expected)


@given(
    fmt=ANY_FORMAT,
    n=st.integers(1, 300),
    share=st.floats(0.0, 0.1),
    low=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32),
)
def test_which_scales_grow_is_as_by_the_kernel(fmt, n, share, low, seed):
    random = np.random.default_rng(seed)
    magnitudes = random.integers(0, int(low * fmt.max_magnitude) + 1, (3, 4, n))
    magnitudes = np.where(random.random(magnitudes.shape) < share, fmt.max_magnitude, magnitudes)
    codes = (magnitudes + fmt.sign_bit * (random.random(magnitudes.shape) < 0.5)).astype(fmt.dtype)
    blocks = {(): (1, 1), (3, 1, 1): (3, 4 * n), (1, 4, 1): (4, n), (3, 4, 1): (12, n)}
    for shape, (count, inner) in blocks.items():
        expected = ceiling.decide_by(ceiling.tallies(codes, fmt, Scales(np.arange(count), Walk(inner))))
        grows, blocked = ceiling_twin.decide(tensor(codes), fmt, torch.Size(shape))
        assert grows.shape == shape
        assert grows.reshape(-1).tolist() == expected.grows.tolist()
        assert blocked.reshape(-1).tolist() == expected.blocked.tolist()


# ------------------------------------------------------------------------------------------------------------- compiled


@pytest.mark.thorough
@compiles
@pytest.mark.parametrize("policy", [POLICIES[0], POLICIES[1], POLICIES[5]], ids=str)
def test_compiled_gives_the_same_bits(fresh, policy):
    """With momentum; lr and step as tensors, and nothing is compiled again when they change."""
    n = 1 << 14
    random = np.random.default_rng(5)
    codes, momentum = random.integers(0, 1 << 12, n).astype(np.uint16), random.choice(MOMENTUM_CODES, n)
    gradient = random.integers(0, 1 << 32, n, dtype=np.uint32).view(F32)
    gradient[: n // 2] = random.standard_normal(n // 2)
    moment = random.integers(0, 256, n).astype(np.uint8)
    policy = {**policy, "seed": 2**63 - 1, "stream": 9, "start": 5, "unit": 5.5}
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
@pytest.mark.thorough
@pytest.mark.parametrize("rule", ["hypentropy", "paper"])
def test_compiled_with_scalars_made_outside(fresh, rule):
    """Every code of lns8f5 with gradients of all sizes; units for each row."""
    random = np.random.default_rng(5)
    codes = np.tile(codes_of(lns8f5), (256, 4))
    gradient = (random.standard_normal(codes.shape) * 10.0 ** random.uniform(-4, 1, codes.shape)).astype(F32)
    moment = random.uniform(1e-3, 2, codes.shape).astype(F32)
    numbers = StepNumbers(0.1, 1.0, -7, 0.9, 0.0, 10.0, 0.9, 0.0, 0.01)
    scalars = step_numbers.step_scalars(lns8f5, rule, numbers, coded=False)
    units, choices = np.geomspace(0.1, 100, 256).astype(F32), Choices.of(rule, None, None)
    arrays = [codes.copy(), moment.copy(), None]
    blocks = units, Walk(codes.shape[1])
    counts, _ = update.apply_step(
        arrays[0], gradient, arrays[1], None, lns8f5, scalars, choices, *blocks, Draw(1, 2, 1)
    )
    given = step_numbers.StepScalars(*(torch.tensor(scalar) for scalar in scalars))

    def run(codes, gradient, moment, units, step, scalars):
        return apply_step(codes, gradient, moment, None, lns8f5, scalars, choices, units, Draw(1, 2, step))

    tensors = [*map(tensor, (codes, gradient, moment, units[:, None])), torch.tensor(1), given]
    same(torch.compile(run, fullgraph=True)(*tensors), arrays, counts)
    same(run(*tensors), arrays, counts)
    same(run(*tensors[:-1], scalars), arrays, counts)


def test_traced_without_dynamo():
    """As an optimizer's step is traced under fake tensors; rows too."""
    from torch.fx.experimental.proxy_tensor import make_fx

    random = np.random.default_rng(5)
    codes = random.integers(0, 256, (4, 6)).astype(np.uint8)
    gradient, momentum = random.standard_normal((4, 6)).astype(F32), random.choice(MOMENTUM_CODES, (4, 6))
    moment = random.integers(100, 150, (4, 6)).astype(np.uint8)
    arguments = {"lr": 0.3, "step": 3, "momentum": 0.9, "stream": 4}

    def run(codes, gradient, moment, momentum, rows):
        return tuple(madam_step(codes, gradient, moment, lns8f5, momentum_codes=momentum, rows=rows, **arguments))

    for rows in (None, np.array([3, 0, 9, 4])):
        parts = [codes, gradient, moment, momentum]
        arrays = [parts[0].copy(), parts[2].copy(), parts[3].copy()]
        counts = update.madam_step(
            arrays[0], parts[1], arrays[1], lns8f5, momentum_codes=arrays[2], rows=rows, **arguments
        )
        given = [*map(tensor, parts), None if rows is None else torch.from_numpy(rows)]
        graph = make_fx(run, tracing_mode="fake")(*given)
        same(Step(*graph(*given)), arrays, counts)
