"""madam_step against an oracle: NumPy float32, one operation after the other as the module's docstring has them, and a
Philox of its own. Every code, every moment code and every count is compared, never a tolerance.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lnsnum import LNSFormat, lns4f1, lns6f2, lns8f3, lns8f4, lns8f5, lns12f6, lns16f7, lns16f10
from lnsnum.torch_bridge.kernels.moments import MOMENT_TABLE, NO_EXPONENT, first_exponent
from lnsnum.torch_bridge.kernels.update import StepCounts, madam_step, up_coefficients

F32 = np.float32
LOW = 0xFFFFFFFF
INF, NAN = math.inf, math.nan

jit = not numba.config.DISABLE_JIT
"""Without it the kernels run a hundred times slower, and the large tests take a sample."""

GRADIENTS = [0.0, 1.0, 0.5, 0.9999999, 1.0000001, 3.0, 0.1, 1e-3, 1e-10, 1e-20, 1e-38, 2.0**-126, 2.0**-149]
GRADIENTS += [1e10, 2.0**60, 1e38, 3.4028235e38, INF]
GRADIENTS = np.array([*GRADIENTS, *(-g for g in GRADIENTS), NAN], F32)


# ----------------------------------------------------------------------------------------------------------- the oracle


def philox(counter, key):
    """Philox 4x32-10 on Python integers, or on uint64 arrays of them."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & LOW, (p0 >> 32) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + 0x9E3779B9) & LOW, (k1 + 0xBB67AE85) & LOW
    return c0, c1, c2, c3


def words_at(index: np.ndarray, *, seed: int, stream: int, step: int, factor: int = 1) -> np.ndarray:
    """The upper 24 bits of the random word of each element, by its index in the parameter, times a factor."""
    index = index.astype(np.uint64)
    block = index >> np.uint64(2)
    zero = np.zeros(index.size, np.uint64)
    counter = (block & np.uint64(LOW), block >> np.uint64(32), zero + np.uint64(step), zero + np.uint64(stream))
    words = np.stack(philox(counter, (seed & LOW, seed >> 32)))
    word = np.take_along_axis(words, (index & np.uint64(3)).astype(np.int64)[None], 0)[0].astype(object)
    return ((word * factor % 2**32) // 2**8).astype(int)


SECOND_MOMENT, MOMENTUM = 0x9E3779B1, 0x85EBCA77
"""The factors of the words that round the moments."""


def words24(n: int, *, seed: int, stream: int, step: int, start: int) -> np.ndarray:
    """The same of n elements in a row."""
    return words_at(np.arange(start, start + n, dtype=np.uint64), seed=seed, stream=stream, step=step)


MOMENTS = np.array([0.0] + [2.0 ** ((c - 128) / 4) for c in range(1, 256)]).astype(F32)
"""Code c is 2^((c - 128) / 4)."""

SIZES = np.array([0.0] + [2.0 ** ((c - 64) / 4) for c in range(1, 128)]).astype(F32)
MOMENTA = np.concatenate([SIZES, -SIZES])
"""Momentum code c < 128 is 2^((c - 64) / 4), c + 128 its negative; 128 does not occur."""


def threshold24(part: np.ndarray) -> np.ndarray:
    """How many of the 2^24 random numbers are below a float32 fraction."""
    return np.floor(part.astype(np.float64) * 2.0**24).astype(int)


def value_share(part: np.ndarray, shrinks: np.ndarray, fmt) -> np.ndarray:
    """The fraction of a step as a probability that is unbiased in the value, in float32 by Horner's scheme."""
    f = np.where(shrinks, F32(1.0) - part, part)
    p = np.zeros_like(f)
    for coefficient in up_coefficients(fmt)[::-1]:
        p = (p + coefficient) * f
    return np.where(part > 0, np.where(shrinks, F32(1.0) - p, p), F32(0.0))


def code_of(x: np.ndarray, table: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Nonnegative float32 values as indices into an increasing table, stochastically rounded on the value axis."""
    c = np.searchsorted(table, x, side="right") - 1
    low, high = table[c], table[np.minimum(c + 1, table.size - 1)]
    with np.errstate(all="ignore"):
        part = np.where(c == table.size - 1, F32(0.0), (x - low) * (F32(1.0) / (high - low)))
    return c + (words < threshold24(part))


class Result(NamedTuple):
    """What a step leaves."""

    codes: np.ndarray
    moment: np.ndarray
    momentum: np.ndarray | None
    counts: StepCounts


def oracle(
    codes,
    gradient,
    moment,
    fmt,
    *,
    lr,
    step,
    momentum_codes=None,
    exponent=0,
    g_bound=10.0,
    beta=0.999,
    momentum=0.0,
    weight_decay=0.0,
    beta_product=None,
    momentum_product=None,
    rounding="stochastic_log",
    zero="keep",
    seed=0,
    stream=0,
    start=0,
    rows=None,
) -> Result:
    """What madam_step's docstring promises."""
    finite, coded = np.isfinite(gradient), moment.dtype == np.uint8
    if rows is None:
        index = np.arange(start, start + codes.size, dtype=np.uint64)
    else:
        width = codes.size // max(rows.size, 1)
        index = (rows[:, None] * width + np.arange(width)).reshape(-1)
    beta_product = beta**step if beta_product is None else beta_product
    momentum_product = momentum**step if momentum_product is None else momentum_product
    rate = lr * 2**fmt.fraction_bits / math.log(fmt.base)

    with np.errstate(all="ignore"):
        g = np.where(finite, gradient, F32(0.0))
        g = np.clip(g * F32(2.0**-exponent) if coded else g, F32(-(2.0**60)), F32(2.0**60))
        v = F32(beta) * (MOMENTS[moment] if coded else moment) + F32(1.0 - beta) * (g * g)
        v_hat = np.maximum(v * F32(1.0 / (1.0 - beta_product)), F32(2.0**-126))
        drive = g
        if momentum_codes is not None:
            old = MOMENTA[momentum_codes] * F32(1.0 if coded else 2.0**exponent)
            u = F32(momentum) * old + F32(1.0 - momentum) * g
            drive = u * F32(1.0 / (1.0 - momentum_product))
        g_hat = np.clip(drive / np.sqrt(v_hat), F32(-g_bound), F32(g_bound))
        drive = np.where(finite & (v >= F32(2.0**-126)), g_hat, F32(0.0)) * F32(min(rate, 2.0**100))

    along = np.where(codes < fmt.sign_bit, drive, -drive)
    shrink = np.where(finite, along + F32(min(rate * weight_decay, 2.0**30)), F32(0.0))
    size = np.minimum(np.abs(shrink), F32(2.0**30))
    assert size.dtype == F32
    if rounding == "nearest":
        steps = np.rint(size).astype(int)
    else:
        whole = np.floor(size)
        part = size - whole
        if rounding == "stochastic_value":
            part = value_share(part, shrink > 0, fmt)
        steps = whole.astype(int) + (words_at(index, seed=seed, stream=stream, step=step) < threshold24(part))
    m = codes.astype(int) & fmt.max_magnitude
    moved_to = np.clip(m - np.where(shrink > 0, steps, -steps), 1, fmt.max_magnitude)
    new_m = np.where(m == 0, 0, moved_to)
    new_codes = codes.astype(int) - m + new_m
    if zero == "leave":
        leaves = (codes == 0) & (drive != 0)
        new_m = np.where(leaves, 1, new_m)
        new_codes = np.where(leaves, np.where(drive > 0, fmt.sign_bit + 1, 1), new_codes)

    if coded:
        v = code_of(v, MOMENTS, words_at(index, seed=seed, stream=stream, step=step, factor=SECOND_MOMENT)).astype(
            np.uint8
        )
    if momentum_codes is not None:
        with np.errstate(all="ignore"):
            scaled = u * F32(1.0 if coded else 2.0**-exponent)
        c = code_of(np.abs(scaled), SIZES, words_at(index, seed=seed, stream=stream, step=step, factor=MOMENTUM))
        u = np.where(finite, np.where((scaled < 0) & (c > 0), c + 128, c), momentum_codes).astype(np.uint8)
    counts = StepCounts(
        moved=int((new_m != m).sum()),
        at_ceiling=int((new_m == fmt.max_magnitude).sum()),
        at_floor=int((new_m == 1).sum()),
        not_finite=int((~finite).sum()),
    )
    return Result(
        new_codes.astype(codes.dtype), np.where(finite, v, moment), None if momentum_codes is None else u, counts
    )


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


SURE = {"beta": 0.0, "step": 1, "rounding": "nearest"}
"""With beta = 0 the normalized gradient is exactly the sign."""


def test_our_philox_gives_random123_known_answers():
    assert philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox((LOW,) * 4, (LOW,) * 2) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    counter, key = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)
    assert philox(counter, key) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)
    assert words24(6, seed=0, stream=0, step=0, start=0).tolist()[:2] == [0x6627E8, 0xE169C5]


def test_moment_table():
    np.testing.assert_array_equal(MOMENT_TABLE, MOMENTS)
    assert MOMENT_TABLE.dtype == F32


# ------------------------------------------------------------------------------------------------ everything, exhausted

ROUNDINGS = ["stochastic_log", "stochastic_value", "nearest"]
MOMENTUM_CODES = np.delete(np.arange(256), 128).astype(np.uint8)


@pytest.mark.parametrize("fmt", [LNSFormat(3, 0), lns4f1, lns6f2, lns8f3, lns8f4, lns8f5], ids=str)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("zero", ["keep", "leave"])
@pytest.mark.parametrize("momentum", [None, 0.0, 0.9])
def test_every_code_with_every_gradient(fmt, rounding, zero, momentum):
    codes, gradient = all_pairs(codes_of(fmt), GRADIENTS)
    momentum_codes = None if momentum is None else np.resize(MOMENTUM_CODES, codes.size)
    arguments = {"rounding": rounding, "zero": zero, "momentum": momentum or 0.0, "momentum_codes": momentum_codes}
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
def test_every_momentum_code_with_every_gradient(exponent, kind):
    momentum_codes, gradient = all_pairs(MOMENTUM_CODES, GRADIENTS)
    codes = np.resize(codes_of(lns8f5), momentum_codes.size)
    moment = np.resize(np.arange(0, 256, 3).astype(kind), momentum_codes.size)
    arguments = {"lr": 0.1, "step": 3, "exponent": exponent, "beta": 0.9, "momentum": 0.8}
    check_all(codes, gradient, moment, lns8f5, momentum_codes=momentum_codes, **arguments)


@pytest.mark.parametrize("gradient", [0.0, 0.7, -3.0])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_momentum_code_with_every_moment_code(gradient, rounding):
    momentum_codes, moment = all_pairs(MOMENTUM_CODES, np.arange(256).astype(np.uint8)[:: 1 if jit else 37])
    codes = np.resize(codes_of(lns8f4), momentum_codes.size)
    arguments = {"lr": 0.06, "step": 20, "momentum": 0.9, "weight_decay": 0.1, "rounding": rounding}
    check_all(codes, np.full(codes.size, gradient), moment, lns8f4, momentum_codes=momentum_codes, **arguments)


@pytest.mark.parametrize("fmt", [lns12f6, lns16f7, lns16f10, LNSFormat(16, 0, base=1.001)], ids=str)
@pytest.mark.parametrize("gradient", [0.3, -0.3])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_code_of_wide_formats(fmt, gradient, rounding):
    codes = codes_of(fmt)[:: 1 if jit else 97]
    arguments = {"lr": 0.07, "step": 1, "seed": 2, "stream": 3, "rounding": rounding, "zero": "leave"}
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


@example([0.0, INF, NAN, 2.0**-149, 1e38], lns8f3, "uint8", {"lr": 0.05, "step": 1})
@example([1e-20, -1e-20], lns8f3, "float32", {"lr": 0.05, "step": 1, "rounding": "nearest"})
@example(
    [1e38, -1e38],
    lns16f10,
    "uint8",
    {"lr": 1e6, "step": 1, "exponent": -120, "seed": 2**63 - 1, "stream": 2**31 - 1, "start": 2**61},
)
@example(
    [1e-38, 1.0, 0.0], LNSFormat(3, 0, base=1e300), "uint8", {"lr": 1e3, "step": 1, "rounding": "stochastic_value"}
)
@given(
    gradient=st.lists(FLOATS, max_size=70),
    fmt=FORMATS,
    kind=st.sampled_from(["uint8", "float32"]),
    arguments=st.fixed_dictionaries(
        {
            "lr": st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.floats(1.0, 1e6)),
            "step": st.one_of(st.integers(1, 20), st.integers(1, 2**32 - 1)),
        },
        optional={
            "exponent": st.integers(-120, 120),
            "g_bound": st.sampled_from([0.1, 1.0, 10.0, 1e6]),
            "beta": st.sampled_from([0.0, 0.5, 0.9, 0.999, 0.9999999]),
            "momentum": st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.9999999]),
            "weight_decay": st.one_of(st.sampled_from([0.0, 1e-3, 1.0, 1e30]), st.floats(0, 10)),
            "beta_product": st.floats(0, 0.9999),
            "momentum_product": st.floats(0, 0.9999),
            "rounding": st.sampled_from(ROUNDINGS),
            "zero": st.sampled_from(["keep", "leave", "raise"]),
            "seed": st.integers(0, 2**63 - 1),
            "stream": st.integers(0, 2**31 - 1),
            "start": st.one_of(st.integers(0, 100), st.integers(0, 2**61)),
        },
    ),
)
def test_any_step(gradient, fmt, kind, arguments):
    codes, moment, momentum_codes = any_state(len(gradient), fmt, kind)
    if "momentum" in arguments:
        arguments = {**arguments, "momentum_codes": momentum_codes}
    check_all(codes, gradient, moment, fmt, **arguments)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("with_momentum", [False, True])
def test_many_steps_in_a_row(kind, rounding, with_momentum):
    """State goes round: two hundred steps, every code after each of them; the decays change on the way."""
    random = np.random.default_rng(0)
    state = Result(codes_of(lns8f5), zero_moment(256, kind), np.zeros(256, np.uint8) if with_momentum else None, None)
    beta_product = momentum_product = 1.0
    for step in range(1, 201 if jit else 20):
        gradient = random.standard_normal(256).astype(F32) * F32(0.01)
        decays = {"beta": 0.99 if step % 3 else 0.999, "momentum": (0.9 if step % 2 else 0.8) * with_momentum}
        beta_product, momentum_product = beta_product * decays["beta"], momentum_product * decays["momentum"]
        arguments = {"lr": 0.05, "step": step, "exponent": -14, "seed": 9, "rounding": rounding, **decays}
        arguments |= {"beta_product": beta_product, "momentum_product": momentum_product, "weight_decay": 0.01}
        state = check_all(
            state.codes, gradient, state.moment, lns8f5, momentum_codes=state.momentum, zero="leave", **arguments
        )


@pytest.mark.parametrize("n", [0, 1, 3, 1023, 1024, 1025, 2051])
def test_any_size_and_the_chunks(n):
    gradient = np.linspace(-1, 1, n).astype(F32)
    for start in (0, 1, 2, 3, 2**34 - 5):
        check(np.resize(codes_of(lns8f5), n), gradient, zero_moment(n), lns8f5, lr=0.1, step=3, start=start)


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
        after, _ = check(codes, np.full(codes.size, gradient), zero_moment(codes.size), fmt, lr=lr, step=1)
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
    assert counts == StepCounts(moved=2, at_ceiling=2, at_floor=2, not_finite=1)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("bad", [INF, -INF, NAN])
def test_gradients_not_finite_change_neither_code_nor_moment(kind, bad):
    moment = np.arange(256).astype(kind)
    codes, after, counts = step_of(codes_of(lns8f5), np.full(256, bad, F32), moment, lns8f5, lr=1.0, step=1)
    np.testing.assert_array_equal(codes, codes_of(lns8f5))
    np.testing.assert_array_equal(after, moment)
    assert (counts.moved, counts.not_finite) == (0, 256)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("exponent", [-120, 0, 120])
def test_zero_over_zero_moves_nothing(kind, exponent):
    arguments = {"lr": 1.0, "step": 1, "exponent": exponent}
    codes, moment, counts = step_of(codes_of(lns8f5), np.zeros(256, F32), zero_moment(256, kind), lns8f5, **arguments)
    np.testing.assert_array_equal(codes, codes_of(lns8f5))
    assert not moment.any()
    assert counts.moved == 0


def test_a_zero_gradient_moves_nothing_and_the_moment_decays():
    moment = np.full(4096, 128, np.uint8)
    codes = np.resize(codes_of(lns8f5), 4096)
    after, decayed = check(codes, np.zeros(4096), moment, lns8f5, lr=1.0, step=5, beta=0.9)
    np.testing.assert_array_equal(after, codes)
    assert set(decayed.tolist()) == {127, 128}


@given(st.integers(0, 3000), st.integers(0, 3000), st.sampled_from(["uint8", "float32"]), st.integers(0, 2**61))
def test_a_shard_draws_what_the_whole_would(cut, length, kind, start):
    n = 3000 if jit else 300
    cut %= n
    codes = np.resize(codes_of(lns8f5), n)
    gradient = np.linspace(-1, 1, n).astype(F32)
    arguments = {"lr": 0.05, "step": 3, "seed": 4, "stream": 1}
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
    st.sampled_from(ROUNDINGS),
)
def test_rows_step_as_they_would_within_the_whole(rows, width, kind, rounding):
    codes, moment, momentum_codes = (array.reshape(41, width) for array in any_state(41 * width, lns8f5, kind))
    gradient = np.linspace(-1, 1, codes.size).astype(F32).reshape(codes.shape)
    arguments = {"lr": 0.05, "step": 3, "seed": 4, "stream": 1, "momentum": 0.9, "rounding": rounding}
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
    check_rows(codes, gradient, moment, momentum_codes, rows, lr=0.05, step=3, momentum=0.5)


def test_seed_stream_and_step_each_change_the_draw():
    def moved(**other):
        arguments = {"lr": 0.01, "step": 1, "beta": 0.0, **other}
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
    arguments = {"lr": size * math.log(2) / 8, "step": 1, "beta": 0.0, "seed": 11, "stream": 3, "start": 77}
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
            arguments = {"lr": lr, "step": 1, "beta": 0.0, "seed": 1, "start": i}
            after, _ = check(np.full(1, 64, np.uint8), [1.0], zero_moment(1), lns8f3, **arguments)
            assert after.tolist() == [expected]


def test_the_24_bits_are_uniform():
    """What makes the count above a probability: the means of the bits, and of each of the 24 of them."""
    n = 1 << 16
    bits = words24(n, seed=3, stream=8, step=2, start=0)
    assert abs(bits.mean() / 2**24 - 0.5) < 4 * math.sqrt(1 / 12 / n)
    for k in range(24):
        assert abs((bits >> k & 1).mean() - 0.5) < 4 * 0.5 / math.sqrt(n)


@pytest.mark.parametrize("factors", [(1, SECOND_MOMENT), (1, MOMENTUM), (SECOND_MOMENT, MOMENTUM)], ids=str)
def test_the_bits_that_one_word_gives_are_as_good_as_independent(factors):
    """Each factor is odd, so a bijection; of pairs, chi-squared over 32 x 32 cells, and where one is small."""
    assert all(factor % 2 == 1 for factor in factors)
    ratio = factors[1] * pow(factors[0], -1, 2**32) % 2**32
    multiples = np.arange(1, 2**14, dtype=np.uint64) * np.uint64(ratio) % np.uint64(2**32)
    assert np.minimum(multiples, np.uint64(2**32) - multiples).min() >= 2**14
    n = 1 << 18
    index = np.arange(n, dtype=np.uint64)
    first, second = (words_at(index, seed=5, stream=1, step=9, factor=factor) for factor in factors)
    for shift, cells in ((19, 32), (14, 1024)):  # of the second, only the lowest part in the second round
        low = first >> shift < 32
        counts = np.bincount((first[low] >> shift) * 32 + (second[low] >> 19), minlength=1024)
        expected = n / 1024 / (cells / 32)
        chi = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi - 1023) < 5 * math.sqrt(2 * 1023)


@pytest.mark.parametrize("gradient", [1.0, -1.0])
@pytest.mark.parametrize("weight", [2000, 2000 + 2048])
def test_the_mean_drift_of_the_log_is_that_of_the_formula(gradient, weight):
    """A hundred steps of 0.37 of a code: the mean log magnitude moves by 37 codes, within its standard deviation."""
    n, steps, size = (20_000, 100, 0.37) if jit else (1000, 10, 0.37)
    codes, moment = np.full(n, weight - 1000, np.uint16), zero_moment(n, "float32")
    for step in range(1, steps + 1):
        arguments = {"lr": size * math.log(2) / 64, "step": step, "beta": 0.0, "seed": 8}
        codes, moment, _ = step_of(codes, np.full(n, gradient, F32), moment, lns12f6, **arguments)
    moved = codes.astype(int) - (weight - 1000)
    deviation = math.sqrt(steps * size * (1 - size) / n)
    sign = -1 if (weight < 2048) == (gradient > 0) else 1
    assert abs(moved.mean() - sign * steps * size) < 4 * deviation


@pytest.mark.parametrize("code", [0, 1, 2, 100, 127, 128, 129, 254])
@pytest.mark.parametrize("gradient", [0.0, 0.3, 1.0, 3.0])
def test_the_second_moment_is_rounded_on_the_value_axis_without_bias(code, gradient):
    """Exactly as many go up as have bits below 2^24 (v - lo) (1 / (hi - lo)): the mean is v but for the draw."""
    n = 50_000 if jit else 500
    old = float(MOMENTS[code])
    v = F32(F32(0.9) * F32(old) + F32(1.0 - 0.9) * F32(gradient * gradient))
    _, moment, _ = step_of(
        np.full(n, 64, np.uint8),
        np.full(n, gradient, F32),
        np.full(n, code, np.uint8),
        lns8f3,
        lr=0.0,
        step=3,
        beta=0.9,
        stream=2,
    )
    low = int(np.searchsorted(MOMENTS, v, side="right")) - 1
    span = MOMENTS[low + 1] - MOMENTS[low]
    share = (v - MOMENTS[low]) * (F32(1) / span)
    index = np.arange(n, dtype=np.uint64)
    bits = words_at(index, seed=0, stream=2, step=3, factor=SECOND_MOMENT)
    assert (moment == low + 1).sum() == (bits < math.floor(float(share) * 2.0**24)).sum()
    assert ((moment == low) | (moment == low + 1)).all()
    mean = MOMENTS[moment].astype(np.float64).mean()
    deviation = float(span) * math.sqrt(float(share) * (1 - float(share)) / n)
    assert abs(mean - float(v)) <= 4 * deviation + float(v) * 1e-6


def test_the_second_moment_saturates_at_both_ends():
    _, moment, _ = step_of(
        np.full(4, 64, np.uint8),
        np.array([1e38, -1e38, 1e-38, 0], F32),
        np.array([0, 255, 0, 0], np.uint8),
        lns8f3,
        lr=0.1,
        step=1,
        beta=0.5,
    )
    assert moment.tolist() == [255, 255, 0, 0]


def test_a_large_gradient_is_clamped_at_g_bound():
    """v from a small history, then a jump: g_hat would be 31.6, and moves as one of 10 does."""
    moment = np.full(1, 0.001 * 1e-6, F32)
    arguments = {"step": 10**6, "rounding": "nearest", "beta": 0.999}
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
        arguments = {"lr": 0.3, "step": 1, "exponent": int(first_exponent(g))}
        results.append(step_of(np.resize(codes_of(lns8f5), 512), g, zero_moment(512), lns8f5, **arguments))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"rounding": "stochastic"}, ValueError),
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
