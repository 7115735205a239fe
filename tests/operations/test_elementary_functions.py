"""expm1, log1p, tanh, sinh, cosh, hypot and logaddexp against mpmath: every code, every mode, and far from 1."""

import itertools
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from lnsnum import LNSFormat, arithmetic, lns6f2, lns8f3, lns16f10, lns32f23
from lnsnum.kernels.decide import Root, Sum, Term
from lnsnum.operations import elementary, transcendental

_mp = mpmath.MPContext()

UNARY = {
    "expm1": _mp.expm1, "log1p": _mp.log1p, "tanh": _mp.tanh, "sinh": _mp.sinh, "cosh": _mp.cosh,
}  # fmt: skip

MODES = ["nearest", "toward_zero", "up", "down", "stochastic_log", "stochastic_value"]

ODD_BASE = LNSFormat(6, 2, base=3.0)


def value_of(code, fmt, log_offset):
    """The number of a code, to the precision of the context; None for NaN."""
    m, negative = code & fmt.max_magnitude, code >> (fmt.bits - 1)
    if m == 0:
        return None if negative else _mp.mpf(0)
    size = _mp.power(_mp.mpf(fmt.base), _mp.ldexp(m - fmt.bias + log_offset, -fmt.fraction_bits))
    return -size if negative else size


def code_of(v, fmt, log_offset=0, rounding="nearest", overflow="saturate", underflow="round", share=0, side=0):
    """The code of a number, by docs/number_format.md.

    Where its position is within 2^-(precision / 2) of a code or of a tie, it is on that `side` of it; 0: exactly there.
    """
    if v is None or _mp.isnan(v) or (not _mp.isfinite(v) and v < 0):
        return fmt.nan_code
    if v == 0:
        return 0
    negative = v < 0
    size, lowest = abs(v), log_offset - fmt.max_log
    log_base = _mp.log(_mp.mpf(fmt.base))
    away = rounding == ("down" if negative else "up")
    position = _mp.ldexp(_mp.log(size) / log_base, fmt.fraction_bits)
    doubled = _mp.nint(2 * position)
    if abs(2 * position - doubled) < _mp.ldexp(1, -_mp.prec // 2):
        position = doubled / 2 + _mp.ldexp(side, -60)
    if position < lowest:
        share_of_smallest = _mp.exp(_mp.ldexp(position - lowest, -fmt.fraction_bits) * log_base)
        m = {
            "nearest": share_of_smallest >= 0.5, "stochastic_log": share_of_smallest >= 0.5,
            "stochastic_value": share < share_of_smallest,
        }.get(rounding, away)  # fmt: skip
        m = 1 if underflow == "saturate" else int(m)
    else:
        log = int(_mp.floor(position))
        part = position - log
        if rounding == "nearest":
            up = part > 0.5 or (part == 0.5 and log % 2 == 1)
        elif rounding == "stochastic_log":
            up = share < part
        elif rounding == "stochastic_value":
            low, high = (_mp.exp(_mp.ldexp(n, -fmt.fraction_bits) * log_base) for n in (0, 1))
            up = share < (_mp.exp(_mp.ldexp(part, -fmt.fraction_bits) * log_base) - low) / (high - low)
        else:
            up = away and part > 0
        m = log + up - lowest + 1
    if m > fmt.max_magnitude:
        if overflow == "nan":
            return fmt.nan_code
        m = fmt.max_magnitude
    return m | (fmt.sign_bit if negative and m else 0)


def applied(name, *values):
    if any(v is None for v in values):
        return None
    if name == "hypot":
        return _mp.sqrt(values[0] ** 2 + values[1] ** 2)
    if name == "logaddexp":
        a, b = max(values), min(values)
        return a + _mp.log1p(_mp.exp(b - a))
    if name == "log1p" and values[0] <= -1:
        return None
    return UNARY[name](values[0])


def side_of(name, *values):
    """On which side of a number that is too near for any precision the size of a result lies."""
    if any(v is None for v in values):
        return 0
    if name == "logaddexp":
        return 1 if max(values) > 0 else -1  # e^b makes more of it
    x = values[0]
    if name in ("expm1", "log1p"):  # series begin x +- x^2 / 2; and expm1 of a great -x is beside -1
        return (1 if x > 0 else -1) * (1 if name == "expm1" else -1)
    return {"tanh": -1, "sinh": 1, "cosh": 1 if x else 0}.get(name, 0)


def random_of(rounding, shape, seed=0):
    if not rounding.startswith("stochastic"):
        return {}
    return {"random_bits": np.random.default_rng(seed).integers(0, 1 << 32, shape, np.uint32)}


def agree(name, codes, fmt, *, offsets=(0, 0), out=None, out_log_offset=0, prec=200, **modes):
    """All of a call's codes are the oracle's."""
    _mp.prec = prec
    out = out or fmt
    bits = random_of(modes.get("rounding", "nearest"), codes[0].shape)
    names = ["log_offset"] if len(codes) == 1 else ["a_log_offset", "b_log_offset"]
    how = {**dict(zip(names, offsets, strict=False)), **modes, **bits}
    ours, _ = getattr(arithmetic, name)(*codes, fmt, out_format=out, out_log_offset=out_log_offset, **how)
    shares = bits.get("random_bits", np.zeros(codes[0].shape, np.uint32))
    kept = {}
    for i, each in enumerate(zip(*(c.tolist() for c in codes), strict=True)):
        if each not in kept:
            values = [value_of(c, fmt, o) for c, o in zip(each, offsets, strict=False)]
            kept[each] = applied(name, *values), side_of(name, *values)
        share, (v, side) = _mp.ldexp(int(shares[i]), -32), kept[each]
        expected = code_of(v, out, out_log_offset, share=share, side=side, **modes)
        assert int(ours[i]) == expected, (name, each, fmt.name, offsets, modes, int(ours[i]), expected)


@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("name", UNARY)
def test_every_code_of_narrow_formats(name, rounding):
    policies = {"overflow": "nan", "underflow": "saturate"} if rounding in ("up", "stochastic_log") else {}
    # 1 - tanh(x) is e^-2x: so many bits show that it is not 1
    for fmt, prec in ((lns8f3, 1600), (ODD_BASE, 800)):
        codes = np.arange(1 << fmt.bits, dtype=fmt.dtype)
        agree(name, [codes], fmt, rounding=rounding, prec=prec, **policies)
        agree(
            name,
            [codes],
            fmt,
            offsets=(-20,),
            out=LNSFormat(7, 1, base=fmt.base),
            rounding=rounding,
            prec=prec,
            **policies,
        )


@pytest.mark.parametrize("name", ["hypot", "logaddexp"])
@pytest.mark.parametrize("fmt", [lns6f2, LNSFormat(5, 0)], ids=str)
def test_every_pair_of_narrow_formats(name, fmt):
    pairs = [x.reshape(-1) for x in np.meshgrid(*[np.arange(1 << fmt.bits, dtype=fmt.dtype)] * 2)]
    for rounding, offsets, out in (
        ("nearest", (0, 0), fmt), ("up", (0, 0), fmt), ("stochastic_value", (3, -2), fmt), ("nearest", (3, -2), lns8f3),
        ("toward_zero", (0, 0), LNSFormat(4, 0)),
    ):  # fmt: skip
        agree(name, pairs, fmt, offsets=offsets, out=out, rounding=rounding, prec=120)


WIDE = [lns32f23, LNSFormat(32, 30), LNSFormat(16, 3), LNSFormat(32, 20, base=1.5)]


def spread(fmt, seed, count):
    """Codes near 1, and far from it, of both signs."""
    rng = np.random.default_rng(seed)
    far = rng.integers(1, fmt.sign_bit, count)
    near = fmt.bias + (rng.normal(0, 1, count) * 4 * (1 << fmt.fraction_bits)).astype(np.int64)
    edges = [0, 1, fmt.bias - 1, fmt.bias, fmt.bias + 1, fmt.max_magnitude, fmt.nan_code, fmt.sign_bit + 1]
    edges += [fmt.sign_bit | m for m in (fmt.bias - 1, fmt.bias, fmt.bias + 1, fmt.max_magnitude)]
    m = np.clip(np.concatenate([far, near]), 1, fmt.max_magnitude)
    return np.concatenate([m | (fmt.sign_bit * rng.integers(0, 2, m.size)), edges]).astype(fmt.dtype)


@pytest.mark.parametrize("fmt", WIDE, ids=str)
@pytest.mark.parametrize("name", [*UNARY, "hypot", "logaddexp"])
def test_wide_formats(name, fmt):
    codes = [spread(fmt, seed, 12) for seed in range(1 if name in UNARY else 2)]
    if len(codes) == 2:
        codes[1][: codes[1].size // 2] = codes[0][: codes[1].size // 2]
        codes[1] = codes[1] ^ np.where(np.arange(codes[1].size) % 3 == 0, fmt.sign_bit, 0).astype(fmt.dtype)
    # of a number as small as 2^-512 half of the digits are lost on 1 + x^2
    prec = 2500 if fmt.bits == 16 else 700
    for rounding in ("nearest", "down"):
        agree(name, codes, fmt, rounding=rounding, prec=prec)


def test_a_narrower_result_of_a_fine_grid():
    """Positions between the codes of the result, ties of small numbers among them."""
    for name, rounding in itertools.product(UNARY, ("nearest", "up", "stochastic_log")):
        codes = np.array([1, 2, 3, 4, 5, 6, 7, 8, 0x8003, 0x8004, 0x8005], np.uint16) + np.uint16(512)
        agree(name, [codes], LNSFormat(16, 9), out=LNSFormat(16, 7), out_log_offset=-4000, rounding=rounding)


def test_intervals_decide_what_doubles_leave_open(monkeypatch):
    """With a bound that leaves nearly all open, nothing changes: integers and decimals answer the same."""
    fmt = LNSFormat(8, 2)
    codes = np.arange(256, dtype=np.uint8)
    pairs = codes[3::7][:35], codes[5::7][:35]

    def calls():
        for rounding in ("nearest", "down", "stochastic_value"):
            for name in UNARY:
                yield getattr(arithmetic, name)(codes, fmt, rounding=rounding, **random_of(rounding, codes.shape))[0]
            for name in ("hypot", "logaddexp"):
                yield getattr(arithmetic, name)(*pairs, fmt, rounding=rounding, **random_of(rounding, pairs[0].shape))[
                    0
                ]

    before = [result.copy() for result in calls()]
    monkeypatch.setattr(elementary, "_settled", loosened(elementary._settled))
    for ours, expected in zip(calls(), before, strict=True):
        np.testing.assert_array_equal(ours, expected)


def loosened(settled):
    def ours(at, case, result):
        return settled(at._replace(error=np.where(at.error > 0, 1e3, 0.0)), case, result)

    return ours


def test_what_is_beyond_the_reach_of_intervals_is_decided_by_its_side():
    """tanh(2^-1000) < 2^-1000 < sinh, and 1 < cosh: no precision of a reasonable length shows it."""
    x, one = Fraction(-1000), Fraction(0)
    for name, at, side in (
        ("tanh", x, -1), ("sinh", x, 1), ("expm1", x, 1), ("log1p", x, -1), ("cosh", one, 1),
    ):  # fmt: skip
        value = transcendental.Elementary(name, 2.0, x, False)
        assert value.sign(0, 2.0, [Term(-1, 0, at)]) == side
        assert value.sign(3, 2.0, [Term(-1, 3, at)]) == side
        assert value.sign(0, 2.0, [Term(-1, 0, at + Fraction(1, 1 << 40))]) == -1
        assert value.sign(0, 2.0, [Term(-1, 0, at - Fraction(1, 1 << 40))]) == 1
    assert transcendental.Elementary("expm1", 2.0, x, True).sign(0, 2.0, [Term(-1, 0, x)]) == -1
    assert transcendental.Elementary("log1p", 2.0, x, True).sign(0, 2.0, [Term(-1, 0, x)]) == 1
    assert transcendental.Elementary("tanh", 2.0, Fraction(20), False).sign(0, 2.0, [Term(-1, 0, one)]) == -1
    assert transcendental.Elementary("expm1", 2.0, Fraction(20), True).sign(0, 2.0, [Term(-1, 0, one)]) == -1
    log = transcendental.LogOfSum(2.0, (1, Fraction(600)), (1, Fraction(600)))
    assert log.sign(0, 2.0, [Term(-1, 0, Fraction(600))]) == 1
    log = transcendental.LogOfSum(2.0, (-1, Fraction(20)), (-1, Fraction(600)))
    assert log.sign(0, 2.0, [Term(-1, 0, Fraction(20))]) == -1
    assert log.negative()


def test_roots_are_compared_by_their_squares():
    root = Root(Sum((Term(9, 0, Fraction(0)), Term(16, 0, Fraction(0)))))  # 5
    assert [root.sign(0, 2.0, [Term(-n, 0, Fraction(0))]) for n in (4, 5, 6)] == [1, 0, -1]
    assert root.sign(0, 2.0, [Term(-2, 0, Fraction(0)), Term(-3, 0, Fraction(0))]) == 0
    assert root.sign(1, 2.0, [Term(-5, 1, Fraction(0)), Term(1, -40, Fraction(0))]) == 1
    assert root.sign(0, 2.0, [Term(1, 0, Fraction(0))]) == 1


@pytest.mark.parametrize("name", [*UNARY, "log10", "hypot", "logaddexp"])
def test_fit_is_the_least_scale_that_holds_the_greatest(name):
    rng = np.random.default_rng(3)
    count = 2 if name in ("hypot", "logaddexp") else 1
    codes = [(rng.integers(56, 72, 6) | 128 * rng.integers(0, 2, 6)).astype(np.uint8) for _ in range(count)]
    codes = [c & 127 for c in codes] if name == "log10" else codes
    function = getattr(arithmetic, name)
    result, fit = function(*codes, lns8f3, out_log_offset="fit")
    nan = function(*codes, lns8f3, out_log_offset=fit, overflow="nan")[0]
    np.testing.assert_array_equal(nan, result)
    below = function(*codes, lns8f3, out_log_offset=fit - 1, overflow="nan")[0]
    assert np.count_nonzero(below == 128) > np.count_nonzero(result == 128)


def test_log10_is_one_of_the_two_codes_around():
    _mp.prec = 200
    for fmt in (lns8f3, lns16f10, LNSFormat(8, 2, base=10.0)):
        codes = np.arange(1, fmt.sign_bit, max(fmt.sign_bit >> 8, 1), dtype=fmt.dtype)
        for rounding in ("nearest", "up"):
            ours, _ = arithmetic.log10(codes, fmt, rounding=rounding)
            for code, own in zip(codes.tolist(), ours.tolist(), strict=True):
                v = _mp.log10(value_of(code, fmt, 0))
                around = {code_of(v, fmt, rounding=r) for r in ("up", "down")} if code != fmt.bias else {0}
                assert own in around
                if rounding == "nearest" and own not in (0, fmt.max_magnitude):
                    assert own == code_of(v, fmt) or len(around) == 1


@pytest.mark.parametrize("name", ["hypot", "logaddexp"])
def test_of_many_elements_each_is_as_of_few(name):
    """Many elements of narrow formats go by a table of all pairs."""
    a, b = np.random.default_rng(5).integers(0, 256, (2, 40_000), np.uint8)
    function, how = getattr(arithmetic, name), {"a_log_offset": -3, "b_log_offset": 2, "out_log_offset": 1}
    for rounding in ("nearest", "down"):
        many, _ = function(a, b % 64, lns8f3, b_format=lns6f2, out_format=lns8f3, rounding=rounding, **how)
        for begin in range(0, a.size, 10_000):
            few = slice(begin, begin + 10_000)
            expected, _ = function(
                a[few], b[few] % 64, lns8f3, b_format=lns6f2, out_format=lns8f3, rounding=rounding, **how
            )
            np.testing.assert_array_equal(many[few], expected)
