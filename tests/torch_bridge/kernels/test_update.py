"""madam_step against `madam_oracle`: NumPy float32, one operation after the other. Every code, every moment code and
every count is compared, never a tolerance, by both rules.
"""

import math
import re

import numba
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from madam_oracle import MOMENTS, Result, oracle, words_at

from lnsnum import LNSFormat, lns4f1, lns6f2, lns8f3, lns8f4, lns8f5, lns12f6, lns16f7, lns16f10
from lnsnum.torch_bridge.kernels import hypentropy
from lnsnum.torch_bridge.kernels.moments import MOMENT_TABLE, NO_EXPONENT, first_exponent
from lnsnum.torch_bridge.kernels.step_numbers import StepCounts
from lnsnum.torch_bridge.kernels.update import madam_step

F32 = np.float32
INF, NAN = math.inf, math.nan

jit = not numba.config.DISABLE_JIT
"""Without it the kernels run a hundred times slower, and the large tests take a sample."""

GRADIENTS = [0.0, 1.0, 0.5, 0.9999999, 1.0000001, 3.0, 0.1, 1e-3, 1e-10, 1e-20, 1e-38, 2.0**-126, 2.0**-149]
GRADIENTS += [1e10, 2.0**60, 1e38, 3.4028235e38, INF]
GRADIENTS = np.array([*GRADIENTS, *(-g for g in GRADIENTS), NAN], F32)

RULES = [
    {"rule": "paper", "rounding": "stochastic_log"},
    {"rule": "paper", "rounding": "stochastic_value"},
    {"rule": "paper", "rounding": "nearest"},
    {"rule": "paper", "rounding": "stochastic_log", "zero": "leave"},
    {"rule": "paper", "rounding": "stochastic_value", "zero": "leave"},
    {"rule": "paper", "rounding": "nearest", "zero": "leave"},
    {"rule": "hypentropy", "unit": 0.0},
    {"rule": "hypentropy", "unit": 0.7, "kappa": 0.3},
    {"rule": "hypentropy", "unit": 30.0},
    {"rule": "hypentropy", "unit": 5.0, "zero": "keep"},
]
"""Each rule with each thing that it can do."""

SHORT = [RULES[0], RULES[1], RULES[2], RULES[8], RULES[9]]
PAPER = {"rule": "paper", "rounding": "stochastic_log"}


def name_of(rule):
    """For the names of tests."""
    return "-".join(str(value) for value in rule.values())


def words24(n, *, seed, stream, step, start):
    """The upper 24 bits of the words of n elements in a row."""
    return words_at(np.arange(start, start + n, dtype=np.uint64), seed=seed, stream=stream, step=step) >> 8


def result_of(codes, gradient, moment, fmt, *, momentum_codes=None, **arguments) -> Result:
    """madam_step on copies."""
    codes, moment = codes.copy(), moment.copy()
    momentum_codes = None if momentum_codes is None else momentum_codes.copy()
    with np.errstate(all="ignore"):  # for NUMBA_DISABLE_JIT, where the kernel's operations are NumPy's
        counts = madam_step(codes, gradient, moment, fmt, momentum_codes=momentum_codes, **arguments)
    return Result(codes, moment, momentum_codes, counts)


def step_of(codes, gradient, moment, fmt, **arguments):
    """madam_step on copies, without momentum: (codes, second moment, counts)."""
    result = result_of(codes, gradient, moment, fmt, **arguments)
    return result.codes, result.moment, result.counts


def check_all(codes, gradient, moment, fmt, **arguments) -> Result:
    """One step on copies, all of it against the oracle."""
    gradient = np.asarray(gradient, F32)
    found = result_of(codes, gradient, moment, fmt, **arguments)
    expected = oracle(codes, gradient, moment, fmt, **arguments)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.moment, expected.moment)
    if expected.momentum is not None:
        np.testing.assert_array_equal(found.momentum, expected.momentum)
        assert not (found.momentum == 128).any()
    assert found.counts == expected.counts
    return found


def check(codes, gradient, moment, fmt, **arguments):
    """The same, without momentum: the new codes and moments."""
    found = check_all(codes, gradient, moment, fmt, **arguments)
    return found.codes, found.moment


def all_pairs(first, second):
    """Every element of the one with every element of the other."""
    return np.repeat(first, len(second)), np.tile(second, len(first))


def codes_of(fmt):
    return np.arange(1 << fmt.bits).astype(fmt.dtype)


def magnitudes(codes, fmt):
    return codes.astype(int) & fmt.max_magnitude


def zero_moment(n, kind="uint8"):
    return np.zeros(n, kind)


SURE = {"beta": 0.0, "step": 1, "rule": "paper", "rounding": "nearest"}
"""With beta = 0 the normalized gradient is exactly the sign."""


def test_moment_table():
    np.testing.assert_array_equal(MOMENT_TABLE, MOMENTS)
    assert MOMENT_TABLE.dtype == F32


# ------------------------------------------------------------------------------------------------ everything, exhausted

MOMENTUM_CODES = np.delete(np.arange(256), 128).astype(np.uint8)


@pytest.mark.parametrize("fmt", [LNSFormat(3, 0), lns4f1, lns6f2, lns8f3, lns8f4, lns8f5], ids=str)
@pytest.mark.parametrize("rule", RULES, ids=name_of)
@pytest.mark.parametrize(
    "momentum", [None, pytest.param(0.0, marks=pytest.mark.thorough), pytest.param(0.9, marks=pytest.mark.thorough)]
)
def test_every_code_with_every_gradient(fmt, rule, momentum):
    codes, gradient = all_pairs(codes_of(fmt), GRADIENTS)
    momentum_codes = None if momentum is None else np.resize(MOMENTUM_CODES, codes.size)
    arguments = {"momentum": momentum or 0.0, "momentum_codes": momentum_codes, **rule}
    for kind, exponent, lr, step, decay in (
        ("uint8", 0, 0.05, 1, 0.0),
        ("uint8", -7, 0.5, 9, 0.3),
        ("float32", 0, 3.0, 4, 0.01),
        ("float32", -7, 0.02, 4, 2.0),
    ):
        moment = np.resize(np.array([0, 1, 100, 128, 254, 255], kind), codes.size)
        check_all(
            codes, gradient, moment, fmt, lr=lr, step=step, exponent=exponent, weight_decay=decay, seed=5, **arguments
        )


@pytest.mark.parametrize("exponent", [-120, -7, 5, 120])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("rule", [RULES[0], RULES[8]], ids=name_of)
def test_every_momentum_code_with_every_gradient(exponent, kind, rule):
    momentum_codes, gradient = all_pairs(MOMENTUM_CODES, GRADIENTS)
    codes = np.resize(codes_of(lns8f5), momentum_codes.size)
    moment = np.resize(np.arange(0, 256, 3).astype(kind), momentum_codes.size)
    arguments = {"lr": 0.1, "step": 3, "exponent": exponent, "beta": 0.9, "momentum": 0.8, **rule}
    check_all(codes, gradient, moment, lns8f5, momentum_codes=momentum_codes, **arguments)


@pytest.mark.parametrize("gradient", [0.0, 0.7, -3.0])
@pytest.mark.parametrize("rule", SHORT, ids=name_of)
def test_every_momentum_code_with_every_moment_code(gradient, rule):
    momentum_codes, moment = all_pairs(MOMENTUM_CODES, np.arange(256).astype(np.uint8)[:: 1 if jit else 37])
    codes = np.resize(codes_of(lns8f4), momentum_codes.size)
    arguments = {"lr": 0.06, "step": 20, "momentum": 0.9, "weight_decay": 0.1, **rule}
    check_all(codes, np.full(codes.size, gradient), moment, lns8f4, momentum_codes=momentum_codes, **arguments)


@pytest.mark.parametrize("fmt", [lns12f6, lns16f7, lns16f10, LNSFormat(16, 0, base=1.001)], ids=str)
@pytest.mark.parametrize("gradient", [0.3, -0.3])
@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_every_code_of_wide_formats(fmt, gradient, rule):
    if fmt == lns16f7 and rule["rule"] == "hypentropy":
        fmt = LNSFormat(16, 9)  # of the span that the rule takes
    codes = codes_of(fmt)[:: 1 if jit else 97]
    arguments = {"lr": 0.07, "step": 1, "seed": 2, "stream": 3, **rule}
    momentum_codes = np.resize(MOMENTUM_CODES, codes.size)
    arguments |= {"momentum": 0.9, "momentum_codes": momentum_codes, "weight_decay": 0.2}
    check_all(codes, np.full(codes.size, gradient), zero_moment(codes.size), fmt, **arguments)


@pytest.mark.parametrize("exponent", [-120, -7, 0, 5, 120])
@pytest.mark.parametrize("step", [1, 1000])
def test_every_moment_code_with_every_gradient(exponent, step):
    moment, gradient = all_pairs(np.arange(256).astype(np.uint8), GRADIENTS)
    codes = np.resize(codes_of(lns8f5), moment.size)
    check(codes, gradient, moment, lns8f5, lr=0.1, step=step, exponent=exponent, beta=0.9)


FORMATS = st.integers(3, 16).flatmap(
    lambda bits: st.builds(
        LNSFormat, st.just(bits), st.integers(0, bits - 2), base=st.sampled_from([2.0, 1.5, math.e, 1.01])
    )
)
FLOATS = st.one_of(st.sampled_from(GRADIENTS.tolist()), st.floats(width=32), st.floats(-1, 1, width=32))


def any_state(n, fmt, kind):
    """Codes, a second moment and momentum codes that depend on their number alone."""
    random = np.random.default_rng(n)
    codes = random.integers(0, 1 << fmt.bits, n).astype(fmt.dtype)
    moment = random.integers(0, 256, n).astype(np.uint8)
    if kind == "float32":
        moment = np.where(moment < 20, F32(0.0), (random.standard_normal(n) ** 2).astype(F32))
    return codes, moment, random.choice(MOMENTUM_CODES, n)


@example([0.0, INF, NAN, 2.0**-149, 1e38], lns8f3, "uint8", RULES[0], {"lr": 0.05, "step": 1})
@example([0.0, INF, NAN, 2.0**-149, 1e38], lns8f3, "uint8", RULES[8], {"lr": 0.05, "step": 1})
@example([1e-20, -1e-20], lns8f3, "float32", RULES[2], {"lr": 0.05, "step": 1})
@example([1.0, 0.0, -1.0], lns8f5, "float32", {"rule": "hypentropy", "unit": 3e38}, {"lr": 1e30, "step": 1})
@example([1.0] * 9, lns8f5, "float32", RULES[7], {"lr": 1e300, "step": 1, "g_bound": 1e38, "weight_decay": 1e300})
@example(
    [1e38, -1e38],
    lns16f10,
    "uint8",
    RULES[0],
    {"lr": 1e6, "step": 1, "exponent": -120, "seed": 2**63 - 1, "stream": 2**31 - 1, "start": 2**61},
)
@example([1.0], LNSFormat(4, 0, base=math.e), "uint8", RULES[8], {"lr": 0.0, "step": 1})
@example([1e-38, 1.0, 0.0], LNSFormat(3, 0, base=1e300), "uint8", RULES[1], {"lr": 1e3, "step": 1})
@given(
    gradient=st.lists(FLOATS, max_size=70),
    fmt=FORMATS,
    kind=st.sampled_from(["uint8", "float32"]),
    rule=st.sampled_from(RULES),
    arguments=st.fixed_dictionaries(
        {
            "lr": st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.floats(1.0, 1e6)),
            "step": st.one_of(st.integers(1, 20), st.integers(1, 2**32 - 1)),
        },
        optional={
            "exponent": st.integers(-120, 110),
            "g_bound": st.sampled_from([0.1, 1.0, 10.0, 1e6]),
            "beta": st.sampled_from([0.0, 0.5, 0.9, 0.999, 0.9999999]),
            "momentum": st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.9999999]),
            "weight_decay": st.one_of(st.sampled_from([0.0, 1e-3, 1.0, 1e30]), st.floats(0, 10)),
            "beta_product": st.floats(0, 0.9999),
            "momentum_product": st.floats(0, 0.9999),
            "seed": st.integers(0, 2**63 - 1),
            "stream": st.integers(0, 2**31 - 1),
            "start": st.one_of(st.integers(0, 100), st.integers(0, 2**61)),
        },
    ),
)
def test_any_step(gradient, fmt, kind, rule, arguments):
    codes, moment, momentum_codes = any_state(len(gradient), fmt, kind)
    if "momentum" in arguments:
        arguments = {**arguments, "momentum_codes": momentum_codes}
    if rule["rule"] == "hypentropy" and (fmt.octaves >= hypentropy.OCTAVES or fmt.codes_per_octave < 1):
        with pytest.raises(ValueError, match="take rule='paper'"):
            result_of(codes, np.array(gradient, F32), moment, fmt, **rule, **arguments)
        return
    check_all(codes, gradient, moment, fmt, **rule, **arguments)


@given(
    st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=5),
    st.integers(1, 9),
    st.one_of(st.integers(0, 200), st.integers(2**40, 2**40 + 200)),
    st.integers(0, 2100 if jit else 90),
)
def test_each_element_has_the_unit_of_its_channel(units, inner, start, n):
    """Channels lie in any place of the shape: `inner` elements in a row have one unit, a shard starts anywhere."""
    gradient = np.linspace(-1, 1, n).astype(F32)
    arguments = {"lr": 0.3, "step": 2, "unit": np.array(units, F32), "inner": inner, "start": start}
    check_all(np.resize(codes_of(lns8f4), n), gradient, zero_moment(n), lns8f4, **arguments)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("rule", [*SHORT, RULES[4]], ids=name_of)
@pytest.mark.parametrize("with_momentum", [False, True])
def test_many_steps_in_a_row(kind, rule, with_momentum):
    """State goes round: two hundred steps, every code after each of them; the decays change on the way."""
    random = np.random.default_rng(0)
    state = Result(codes_of(lns8f5), zero_moment(256, kind), np.zeros(256, np.uint8) if with_momentum else None, None)
    beta_product = momentum_product = 1.0
    for step in range(1, 201 if jit else 20):
        gradient = random.standard_normal(256).astype(F32) * F32(0.01)
        decays = {"beta": 0.99 if step % 3 else 0.999, "momentum": (0.9 if step % 2 else 0.8) * with_momentum}
        beta_product, momentum_product = beta_product * decays["beta"], momentum_product * decays["momentum"]
        arguments = {"lr": 0.05, "step": step, "exponent": -14, "seed": 9, **rule, **decays}
        arguments |= {"beta_product": beta_product, "momentum_product": momentum_product, "weight_decay": 0.01}
        state = check_all(state.codes, gradient, state.moment, lns8f5, momentum_codes=state.momentum, **arguments)


@pytest.mark.parametrize("n", [0, 1, 3, 1023, 1024, 1025, 2051])
@pytest.mark.parametrize("rule", SHORT, ids=name_of)
def test_any_size_and_the_chunks(n, rule):
    gradient = np.linspace(-1, 1, n).astype(F32)
    for start in (0, 1, 2**32 - 1030, 2**34 - 5):
        check(np.resize(codes_of(lns8f5), n), gradient, zero_moment(n), lns8f5, lr=0.1, step=3, start=start, **rule)


@pytest.mark.skipif(not jit, reason="600,000 elements")
@pytest.mark.parametrize("rule", [RULES[0], RULES[8]], ids=name_of)
def test_any_number_of_threads(rule):
    """Enough elements for several chunks of threads, in a size that none of them divides."""
    n, threads = 600_011, torch.get_num_threads()
    random = np.random.default_rng(4)
    gradient = random.standard_normal(n).astype(F32)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            units = np.array([0.5, 7.0, 20.0], F32) if "unit" in rule else 1.0
            arguments = {"lr": 0.1, "step": 3, "start": 5, **rule, "unit": units, "inner": 1000}
            check(np.resize(codes_of(lns8f5), n), gradient, zero_moment(n), lns8f5, **arguments)
    finally:
        torch.set_num_threads(threads)


def test_shapes_are_those_of_the_arrays():
    codes = codes_of(lns8f5).reshape(8, 4, 8)
    moment = zero_moment((8, 4, 8))
    momentum = np.zeros((8, 4, 8), np.uint8)
    flat = {"lr": 0.1, "step": 1, "momentum": 0.5}
    expected = oracle(
        codes.reshape(-1), np.ones(256, F32), moment.reshape(-1), lns8f5, momentum_codes=momentum.reshape(-1), **flat
    )
    counts = madam_step(codes, np.ones((8, 4, 8), F32), moment, lns8f5, momentum_codes=momentum, **flat)
    assert counts == expected.counts
    np.testing.assert_array_equal(codes.reshape(-1), expected.codes)
    np.testing.assert_array_equal(moment.reshape(-1), expected.moment)
    np.testing.assert_array_equal(momentum.reshape(-1), expected.momentum)


# ----------------------------------------------------------------------------------------------------- laws of the step


@pytest.mark.parametrize("fmt", [lns4f1, lns8f3, lns8f5, lns16f10], ids=str)
@pytest.mark.parametrize("lr", [0.0, 0.05, 1e3, 1e9])
def test_signs_zero_and_nan_stay_and_magnitudes_are_clipped(fmt, lr):
    codes = codes_of(fmt)[:: 1 if jit else 31]
    for gradient in (3.0, -3.0):
        arguments = {"lr": lr, "step": 1, **PAPER}
        after, _ = check(codes, np.full(codes.size, gradient), zero_moment(codes.size), fmt, **arguments)
        np.testing.assert_array_equal(after & fmt.sign_bit, codes & fmt.sign_bit)
        m, new_m = magnitudes(codes, fmt), magnitudes(after, fmt)
        np.testing.assert_array_equal(new_m == 0, m == 0)
        assert new_m.max() <= fmt.max_magnitude
        grows = (codes >= fmt.sign_bit) == (gradient > 0)
        assert (new_m >= m)[grows & (m > 0)].all()
        assert (new_m <= m)[~grows & (m > 0)].all()
        if lr == 1e9:
            np.testing.assert_array_equal(new_m[m > 0], np.where(grows, fmt.max_magnitude, 1)[m > 0])
        if lr == 0.0:
            np.testing.assert_array_equal(after, codes)


def test_clip_at_one_and_at_the_greatest():
    """Two and a bit steps from the edges of lns8f3: m goes to 1 and to 127, not below and not above."""
    m = np.array([1, 2, 3, 4, 124, 125, 126, 127])
    codes = np.concatenate([m, m + 128]).astype(np.uint8)
    arguments = {"lr": 2.25 * math.log(2) / 8, **SURE}
    shrunk, _ = check(codes, np.repeat([F32(1), F32(-1)], 8), zero_moment(16), lns8f3, **arguments)
    assert magnitudes(shrunk, lns8f3).tolist() == [1, 1, 1, 2, 122, 123, 124, 125] * 2
    grown, _ = check(codes, np.repeat([F32(-1), F32(1)], 8), zero_moment(16), lns8f3, **arguments)
    assert magnitudes(grown, lns8f3).tolist() == [3, 4, 5, 6, 126, 127, 127, 127] * 2


@pytest.mark.parametrize("lr", [1e19, 1e38, 1e300])
def test_no_rate_is_too_large(lr):
    codes = np.array([64, 192, 64, 192], np.uint8)
    after, _, _ = step_of(codes, np.array([-1, -1, 0, 0], F32), zero_moment(4), lns8f3, lr=lr, **SURE)
    assert after.tolist() == [127, 129, 64, 192]


def test_counts():
    codes = np.array([0, 128, 1, 2, 127, 126, 64, 64], np.uint8)
    gradient = np.array([1, 1, 1, 1, -1, -1, NAN, 0], F32)
    _, _, counts = step_of(codes, gradient, zero_moment(8), lns8f3, lr=math.log(2) / 8, **SURE)
    assert counts == StepCounts(moved=2, at_ceiling=2, at_floor=2, zeros=1, sign_changes=0, not_finite=1)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("bad", [INF, -INF, NAN])
@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_gradients_not_finite_change_neither_code_nor_moment(kind, bad, rule):
    moment = np.arange(256).astype(kind)
    arguments = {"lr": 1.0, "step": 1, "weight_decay": 0.5, **rule}
    codes, after, counts = step_of(codes_of(lns8f5), np.full(256, bad, F32), moment, lns8f5, **arguments)
    np.testing.assert_array_equal(codes, codes_of(lns8f5))
    np.testing.assert_array_equal(after, moment)
    assert (counts.moved, counts.not_finite) == (0, 256)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("exponent", [-120, 0, 120])
@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_zero_over_zero_moves_nothing(kind, exponent, rule):
    arguments = {"lr": 1.0, "step": 1, "exponent": exponent, **rule}
    codes, moment, counts = step_of(codes_of(lns8f5), np.zeros(256, F32), zero_moment(256, kind), lns8f5, **arguments)
    np.testing.assert_array_equal(codes, codes_of(lns8f5))
    assert not moment.any()
    assert counts.moved == 0


def test_a_zero_gradient_moves_nothing_and_the_moment_decays():
    moment = np.full(4096, 128, np.uint8)
    codes = np.resize(codes_of(lns8f5), 4096)
    for rule in (RULES[0], RULES[8]):
        after, decayed = check(codes, np.zeros(4096), moment, lns8f5, lr=1.0, step=5, beta=0.9, **rule)
        np.testing.assert_array_equal(after, codes)
        assert set(decayed.tolist()) == {127, 128}


@given(
    st.integers(0, 3000),
    st.integers(0, 3000),
    st.sampled_from(["uint8", "float32"]),
    st.integers(0, 2**61),
    st.sampled_from(SHORT),
)
def test_a_shard_draws_what_the_whole_would(cut, length, kind, start, rule):
    n = 3000 if jit else 300
    cut %= n
    codes = np.resize(codes_of(lns8f5), n)
    gradient = np.linspace(-1, 1, n).astype(F32)
    arguments = {"lr": 0.05, "step": 3, "seed": 4, "stream": 1, **rule}
    whole = step_of(codes, gradient, zero_moment(n, kind), lns8f5, start=start, **arguments)
    part = slice(cut, min(cut + length, n))
    shard = step_of(
        codes[part], gradient[part], zero_moment(codes[part].size, kind), lns8f5, start=start + cut, **arguments
    )
    np.testing.assert_array_equal(shard[0], whole[0][part])
    np.testing.assert_array_equal(shard[1], whole[1][part])


@given(
    st.lists(st.integers(0, 40), unique=True, max_size=12),
    st.integers(1, 40),
    st.sampled_from(["uint8", "float32"]),
    st.sampled_from([*RULES, {"unit": np.array([1, 9, 30], F32), "inner": 7}]),
)
def test_rows_step_as_they_would_within_the_whole(rows, width, kind, rule):
    codes, moment, momentum_codes = (array.reshape(41, width) for array in any_state(41 * width, lns8f5, kind))
    gradient = np.linspace(-1, 1, codes.size).astype(F32).reshape(codes.shape)
    arguments = {"lr": 0.05, "step": 3, "seed": 4, "stream": 1, "momentum": 0.9, **rule}
    whole = result_of(codes, gradient, moment, lns8f5, momentum_codes=momentum_codes, **arguments)
    some = np.array(rows, np.int64)
    taken = check_rows(codes[some], gradient[some], moment[some], momentum_codes[some], some, **arguments)
    np.testing.assert_array_equal(taken.codes, whole.codes[some])
    np.testing.assert_array_equal(taken.moment, whole.moment[some])
    np.testing.assert_array_equal(taken.momentum, whole.momentum[some])


def check_rows(codes, gradient, moment, momentum_codes, rows, **arguments):
    found = result_of(codes, gradient, moment, lns8f5, momentum_codes=momentum_codes, rows=rows, **arguments)
    flat = [array.reshape(-1) for array in (codes, gradient, moment)]
    expected = oracle(*flat, lns8f5, momentum_codes=momentum_codes.reshape(-1), rows=rows, **arguments)
    for own, other in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(own.reshape(-1), other)
    assert found.counts == expected.counts
    return found


def test_rows_of_several_chunks():
    """Rows wider than the 1,024 elements that the kernel takes at a time, of a parameter of 2^40 elements."""
    rows = np.array([2**28, 3, 0, 2**28 - 1], np.int64)
    codes, moment, momentum_codes = (array.reshape(4, -1) for array in any_state(4 * 2051, lns8f5, "uint8"))
    gradient = np.linspace(-1, 1, codes.size).astype(F32).reshape(codes.shape)
    for rule in SHORT:
        check_rows(codes, gradient, moment, momentum_codes, rows, lr=0.05, step=3, momentum=0.5, **rule)


@pytest.mark.parametrize("rule", [RULES[0], RULES[8]], ids=name_of)
def test_seed_stream_and_step_each_change_the_draw(rule):
    def moved(**other):
        arguments = {"lr": 0.01, "step": 1, "beta": 0.0, **rule, **other}
        codes, _, _ = step_of(np.full(2000, 64, np.uint8), np.ones(2000, F32), zero_moment(2000), lns8f3, **arguments)
        return tuple((codes != 64).tolist())

    draws = [moved(), moved(seed=1), moved(seed=2**32), moved(stream=1), moved(step=2), moved(start=4)]
    assert len(set(draws)) == len(draws)
    assert moved() == moved()


# -------------------------------------------------------------------------------------------------------- the roundings


@pytest.mark.parametrize(("size", "expected"), [(0.5, 0), (1.5, 2), (2.5, 2), (3.5, 4), (0.49, 0), (0.51, 1), (2.6, 3)])
def test_nearest_takes_ties_to_even(size, expected):
    """The size of a step, 0.5, 1.5, ..., is exact: g_hat = 1 and rate = float32(lr 8 / ln 2)."""
    assert F32(size * math.log(2) / 8 * 8 / math.log(2)) == F32(size)
    arguments = {"lr": size * math.log(2) / 8, **SURE}
    after, _ = check(np.full(2, 64, np.uint8), np.array([1.0, -1.0]), zero_moment(2), lns8f3, **arguments)
    assert after.tolist() == [64 - expected, 64 + expected]


@pytest.mark.parametrize("size", [2.0**-24, 2.0**-23, 0.001, 0.25, 0.5, 0.75, 1.0, 1 - 2.0**-24, 3.7, 17.25])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_stochastic_log_goes_up_where_the_random_bits_are_below_the_fraction(size, kind):
    """Many elements with one gradient: exactly those whose 24 bits are below 2^24 frac(size) go a step further."""
    n = 100_000 if jit else 2000
    rate = F32(size * math.log(2) / 8 * 8 / math.log(2))
    below = math.floor((float(rate) % 1.0) * 2.0**24)
    bits = words24(n, seed=11, stream=3, step=1, start=77)
    arguments = {"lr": size * math.log(2) / 8, "step": 1, "beta": 0.0, "seed": 11, "stream": 3, "start": 77, **PAPER}
    after, _, counts = step_of(np.full(n, 64, np.uint8), np.ones(n, F32), zero_moment(n, kind), lns8f3, **arguments)
    further = 64 - after.astype(int) - int(rate)
    assert set(further.tolist()) <= {0, 1}
    assert further.sum() == (bits < below).sum()
    assert counts.moved == (n if rate >= 1 else (bits < below).sum())


def test_random_bits_equal_to_the_threshold_do_not_go_up():
    """A fraction of exactly w / 2^24 for an element that draws w, and one of (w + 1) / 2^24."""
    for i, word in enumerate(words24(40, seed=1, stream=0, step=1, start=0).tolist()):
        for threshold, expected in ((word, 64), (word + 1, 63)):
            lr = threshold * 2.0**-24 * math.log(2) / 8
            assert F32(lr * 8 / math.log(2)) == threshold * 2.0**-24
            arguments = {"lr": lr, "step": 1, "beta": 0.0, "seed": 1, "start": i, **PAPER}
            after, _ = check(np.full(1, 64, np.uint8), [1.0], zero_moment(1), lns8f3, **arguments)
            assert after.tolist() == [expected]


@pytest.mark.parametrize("gradient", [1.0, -1.0])
@pytest.mark.parametrize("weight", [2000, 2000 + 2048])
def test_the_mean_drift_of_the_log_is_that_of_the_formula(gradient, weight):
    """A hundred steps of 0.37 of a code: the mean log magnitude moves by 37 codes, within its standard deviation."""
    n, steps, size = (20_000, 100, 0.37) if jit else (1000, 10, 0.37)
    codes, moment = np.full(n, weight - 1000, np.uint16), zero_moment(n, "float32")
    for step in range(1, steps + 1):
        arguments = {"lr": size * math.log(2) / 64, "step": step, "beta": 0.0, "seed": 8, **PAPER}
        codes, moment, _ = step_of(codes, np.full(n, gradient, F32), moment, lns12f6, **arguments)
    moved = codes.astype(int) - (weight - 1000)
    deviation = math.sqrt(steps * size * (1 - size) / n)
    sign = -1 if (weight < 2048) == (gradient > 0) else 1
    assert abs(moved.mean() - sign * steps * size) < 4 * deviation


@pytest.mark.parametrize("unit", [0.5, 20.0])
@pytest.mark.parametrize("weight", [0, 40, 40 + 128])
def test_the_mean_drift_of_the_weight_is_that_of_the_formula(unit, weight):
    """A hundred small steps against one gradient, most through zero: the mean follows w <- w - lr sqrt(w^2 + unit^2),
    step for step, within five standard deviations of the mean.

    Where the steps differ in size from weight to weight the mean is that of all of them, which are counted."""
    n, steps, lr = (20_000, 100, 0.02) if jit else (500, 8, 0.02)
    x = np.concatenate([[0.0], 2.0 ** (np.arange(127) / 8)])
    values = np.concatenate([x, -x])
    codes, moment = np.full(n, weight, np.uint8), zero_moment(n, "float32")
    for step in range(1, steps + 1):
        old = values[codes]
        arguments = {"lr": lr, "step": step, "beta": 0.0, "seed": 8, "unit": unit}
        codes, moment, _ = step_of(codes, np.ones(n, F32), moment, lns8f3, **arguments)
        drift = values[codes] - old + lr * np.hypot(old, unit)
        assert abs(drift.mean()) < 5 * drift.std() / math.sqrt(n) + 1e-6


@pytest.mark.parametrize("code", [0, 1, 2, 100, 127, 128, 129, 254])
@pytest.mark.parametrize("gradient", [0.0, 0.3, 1.0, 3.0])
def test_the_second_moment_is_rounded_on_the_value_axis_without_bias(code, gradient):
    """Neighbours alone, and a mean over the elements that is v but for the draw. (How often, word by word, is counted
    in test_moments.py.)"""
    n = 50_000 if jit else 500
    v = F32(F32(0.9) * MOMENTS[code]) + F32(F32(1.0 - 0.9) * F32(F32(gradient) * F32(gradient)))
    codes, before = np.full(n, 64, np.uint8), np.full(n, code, np.uint8)
    arguments = {"lr": 0.0, "step": 3, "beta": 0.9, "stream": 2}
    _, moment = check(codes, np.full(n, gradient, F32), before, lns8f3, **arguments)
    low = int(np.searchsorted(MOMENTS, v, side="right")) - 1
    assert ((moment == low) | (moment == low + 1)).all()
    span = float(MOMENTS[low + 1]) - float(MOMENTS[low])
    share = (float(v) - float(MOMENTS[low])) / span
    deviation = span * math.sqrt(share * (1 - share) / n)
    assert abs(MOMENTS[moment].astype(np.float64).mean() - float(v)) <= 5 * deviation + span * 2.0**-23


def test_the_second_moment_saturates_at_both_ends():
    gradient, moment = np.array([1e38, -1e38, 1e-38, 0], F32), np.array([0, 255, 0, 0], np.uint8)
    _, moment, _ = step_of(np.full(4, 64, np.uint8), gradient, moment, lns8f3, lr=0.1, step=1, beta=0.5)
    assert moment.tolist() == [255, 255, 0, 0]


def test_a_large_gradient_is_clamped_at_g_bound():
    """v from a small history, then a jump: g_hat would be 31.6, and moves as one of 10 does."""
    moment = np.full(1, 0.001 * 1e-6, F32)
    arguments = {**SURE, "step": 10**6, "beta": 0.999}
    after, _ = check(np.full(1, 64, np.uint8), [1.0], moment, lns8f3, lr=math.log(2) / 8, g_bound=10.0, **arguments)
    assert after.tolist() == [54]
    after, _ = check(np.full(1, 64, np.uint8), [1.0], moment, lns8f3, lr=math.log(2) / 8, g_bound=1e3, **arguments)
    assert after.tolist() == [32]


# --------------------------------------------------------------------------------------------------- the first exponent


@pytest.mark.parametrize(
    ("gradient", "expected"),
    [
        ([], NO_EXPONENT),
        ([0.0, -0.0], NO_EXPONENT),
        ([NAN, INF, -INF], NO_EXPONENT),
        ([1.0], -7),
        ([-1.0, 0.5], -7),
        ([1.9999999], -7),
        ([2.0], -6),
        ([0.0, -3.0, INF, NAN], -6),
        ([256.0], 1),
        ([1e-38], -120),
        ([2.0**-149], -120),
        ([2.0**-113], -120),
        ([2.0**-112], -119),
        ([3.4028235e38], 120),
    ],
)
def test_first_exponent(gradient, expected):
    assert first_exponent(np.array(gradient, F32)) == expected


@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_first_exponent_puts_the_greatest_into_the_eighth_octave(gradient):
    exponent = first_exponent(np.array(gradient, F32))
    sizes = [abs(g) for g in np.array(gradient, F32).tolist() if math.isfinite(g) and g != 0]
    if not sizes:
        assert exponent == NO_EXPONENT
    elif max(sizes) >= 2.0**-113:
        assert 2.0**7 <= max(sizes) / 2.0**exponent < 2.0**8
    else:
        assert exponent == -120


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_with_the_first_exponent_the_scale_of_the_gradient_does_not_matter(scale):
    """At a power of two nothing at all; the first step's sizes are then 1 up to the moment's rounding after it."""
    factor = F32(2.0 ** round(math.log2(scale)))
    gradient = np.linspace(-1, 1, 512).astype(F32)
    results = []
    for g in (gradient, gradient * factor):
        arguments = {"lr": 0.3, "step": 1, "unit": 3.0, "exponent": int(first_exponent(g))}
        results.append(step_of(np.resize(codes_of(lns8f5), 512), g, zero_moment(512), lns8f5, **arguments))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"rule": "paper", "rounding": "stochastic"}, ValueError),
        ({"lr": float("nan")}, ValueError),
        ({"lr": -1.0}, ValueError),
        ({"step": 0}, ValueError),
        ({"beta": 1.0}, ValueError),
        ({"g_bound": float("nan")}, ValueError),
        ({"codes": np.zeros(3, np.int64)}, TypeError),
        ({"gradient": np.zeros(3, np.float64)}, TypeError),
        ({"second_moment": np.zeros(3, np.int8)}, TypeError),
        ({"gradient": np.zeros(2, np.float32)}, ValueError),
        ({"codes": np.zeros(6, np.uint8)[::2]}, ValueError),
        ({"zero": "stay"}, ValueError),
        ({"momentum": 1.0}, ValueError),
        ({"momentum": -0.1}, ValueError),
        ({"weight_decay": -1.0}, ValueError),
        ({"weight_decay": math.inf}, ValueError),
        ({"momentum_codes": np.zeros(3, np.int8)}, TypeError),
        ({"momentum_codes": np.zeros(2, np.uint8)}, ValueError),
        ({"momentum_codes": np.zeros(6, np.uint8)[::2]}, ValueError),
        ({"momentum": 0.9}, ValueError),
        ({"rows": np.arange(2)}, ValueError),
        ({"rule": "adam"}, ValueError),
        ({"rounding": "nearest"}, ValueError),
        ({"zero": "leave"}, ValueError),
        ({"rule": "paper", "zero": "learn"}, ValueError),
        ({"kappa": -0.1}, ValueError),
        ({"kappa": NAN}, ValueError),
        ({"unit": -1.0}, ValueError),
        ({"unit": NAN}, ValueError),
        ({"unit": INF}, ValueError),
        ({"unit": np.zeros((2, 2), F32)}, ValueError),
        ({"unit": np.zeros(0, F32)}, ValueError),
        ({"inner": 0}, ValueError),
    ],
)
def test_arguments_out_of_range_are_refused(change, error):
    arguments = {
        "codes": np.full(3, 64, np.uint8),
        "gradient": np.ones(3, np.float32),
        "second_moment": np.zeros(3, np.uint8),
        "lr": 0.1,
        "step": 1,
        **change,
    }
    arrays = [arguments.pop(name) for name in ("codes", "gradient", "second_moment")]
    before = [array.copy() for array in arrays]
    with pytest.raises(error):
        madam_step(*arrays, LNSFormat(8, 5), **arguments)
    assert all((array == old).all() for array, old in zip(arrays, before, strict=True))


@pytest.mark.parametrize(
    "fmt", [LNSFormat(8, 0, base=2.1), LNSFormat(3, 0, base=4.0), LNSFormat(8, 0), lns16f7], ids=str
)
def test_formats_that_are_none_for_a_rule_are_refused_by_name(fmt):
    """Before anything moves; by the paper's rule they step."""
    codes, gradient, moment = np.ones(3, fmt.dtype), np.ones(3, F32), zero_moment(3)
    with pytest.raises(
        ValueError, match=f"^{re.escape(fmt.name)} has code steps of .*: rule='hypentropy' takes steps of"
    ):
        madam_step(codes, gradient, moment, fmt, lr=0.5, step=1)
    assert codes.tolist() == [1, 1, 1]
    assert not moment.any()
    check(codes, gradient, moment, fmt, lr=0.5, step=1, **PAPER)
