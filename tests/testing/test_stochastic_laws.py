"""The laws of stochastic rounding: counted over the words, or judged with a stated risk."""

import math
import re

import numpy as np
import pytest

from lnsnum import LNSFormat, encode, lns4f1, lns8f3, lns12f6, lns16f10, reference
from lnsnum.strategies import ImplementationError, LawViolation, check_stochastic_laws
from lnsnum.testing.positions import Axis
from lnsnum.testing.random_counts import FALSE_ALARM, alarm, by_words, divergence
from lnsnum.testing.stochastic_laws import STOCHASTIC_LAWS

FORMATS = [lns4f1, lns8f3, lns16f10, LNSFormat(5, 0, base=4.0), LNSFormat(9, 3, base=1.5), LNSFormat(20, 9)]
MODES = ["stochastic_value", "stochastic_log"]


def rounded(fmt, rounding="stochastic_value", shift=0, **policies):
    return lambda x, words: encode(x, fmt, rounding=rounding, random_bits=words << np.uint32(shift), **policies)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("rounding", MODES)
def test_the_library_keeps_the_laws(fmt, rounding):
    report = check_stochastic_laws(rounded(fmt, rounding), fmt, rounding=rounding)
    assert report.laws == tuple(STOCHASTIC_LAWS)
    assert report.notes[0].startswith("counted over 2^32 words by bisection")
    report = check_stochastic_laws(rounded(fmt, rounding, 24), fmt, rounding=rounding, random_bits=8, dtype="float64")
    assert re.match(r"counted over all 256 words for [\d,]+ values$", report.notes[0]) or report.inputs > 4096


@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("overflow", ["saturate", "nan"])
@pytest.mark.parametrize("underflow", ["round", "saturate"])
def test_the_library_keeps_them_under_every_policy(rounding, overflow, underflow):
    policies = {"overflow": overflow, "underflow": underflow}
    fmt = LNSFormat(6, 2)
    assert check_stochastic_laws(rounded(fmt, rounding, **policies), fmt, rounding=rounding, **policies)
    for what, other in (("overflow", {"saturate": "nan"}), ("underflow", {"saturate": "round"})):
        if policies[what] in other:
            changed = {**policies, what: other[policies[what]]}
            with pytest.raises(LawViolation) as caught:
                check_stochastic_laws(rounded(fmt, rounding, **policies), fmt, rounding=rounding, **changed)
            assert {v.law for v in caught.value.violations} <= {"saturation", "underflow", "unbiased", "neighbour"}


@pytest.mark.parametrize("rounding", MODES)
def test_shares_are_those_of_the_reference(rounding):
    """Of 256 words, as many go up as the specification says, to within one."""
    fmt, axis = lns8f3, Axis(lns8f3)
    for x in (1.01, 1.05, 0.3, 200.0, 0.0045):
        log = int(axis.floors(np.array([x]))[0][0])
        share = axis.share(x, log, rounding == "stochastic_value")
        words = [reference.encode(x, fmt, rounding=rounding, random_bits=word << 24) for word in range(256)]
        assert abs(words.count(log + fmt.bias + 1) / 256 - share) <= 1 / 256
    below = axis.share(0.001, None, True)
    words = [reference.encode(0.001, fmt, rounding="stochastic_value", random_bits=word << 24) for word in range(256)]
    assert abs(words.count(1) / 256 - below) <= 1 / 256


def test_words_need_not_be_in_order():
    def hashed(x, words):
        return rounded(lns8f3)(x, words * np.uint32(2654435761))

    report = check_stochastic_laws(hashed, lns8f3)
    assert report.notes[0].startswith("results do not change once as the word grows; ")
    assert "a false alarm has a probability below 1e-09" in report.notes[0]

    def hashed_16(x, words):
        return rounded(lns8f3, shift=16)(x, words * np.uint32(40503) & np.uint32(0xFFFF))

    report = check_stochastic_laws(hashed_16, lns8f3, random_bits=16)
    assert report.notes[0].startswith("counted over all 65,536 words for 16 values; ")
    with pytest.raises(LawViolation, match="unbiased"):
        check_stochastic_laws(lambda x, w: rounded(lns8f3, "stochastic_log")(x, w * np.uint32(2654435761)), lns8f3)


def drawing(fmt, change=lambda words: words, rounding="stochastic_value"):
    """What draws its own words, and how to seed it."""
    state = {"random": np.random.default_rng(0)}

    def own(x):
        words = state["random"].integers(0, 1 << 32, x.size, dtype=np.uint32)
        return encode(x, fmt, rounding=rounding, random_bits=change(words)[: x.size])

    def reseed(seed):
        state["random"] = np.random.default_rng(seed)

    return own, reseed


@pytest.mark.parametrize("fmt", [lns4f1, lns8f3, lns12f6], ids=str)
@pytest.mark.parametrize("rounding", MODES)
def test_what_draws_its_own_words_passes_and_says_the_same_with_a_seed(fmt, rounding):
    own, reseed = drawing(fmt, rounding=rounding)
    reports = [check_stochastic_laws(own, fmt, rounding=rounding, random_bits=None, reseed=reseed) for _ in range(2)]
    assert reports[0] == reports[1]
    assert "draws of each value" in reports[0].notes[0]


@pytest.mark.parametrize(
    ("change", "law", "message"),
    [
        (lambda words: words - (words >> 5), "unbiased", "on the average of all values"),
        (lambda words: np.repeat(words, 2), "independence", "all pairs of elements 1 apart"),
        (
            lambda words: np.concatenate([words[: words.size // 2]] * 2 + [words]),
            "independence",
            "apart, where they do in",
        ),
        (lambda words: np.zeros_like(words), "unbiased", "draws exclude"),
        (
            lambda words: np.random.default_rng(3).permutation(words.size).astype(np.uint32) << 16,
            "independence",
            "two calls",
        ),
    ],
)
def test_what_is_wrong_with_own_words_is_found(change, law, message):
    own, reseed = drawing(lns8f3, change)
    with pytest.raises(LawViolation, match=rf"{law}: encode.*{re.escape(message)}"):
        check_stochastic_laws(own, lns8f3, random_bits=None, reseed=reseed)


def test_fewer_bits_than_given_need_a_bound():
    def coarse(x, words):
        return rounded(lns8f3)(x, words & np.uint32(0xFFFF0000))

    with pytest.raises(LawViolation, match=r"unbiased: encode.* of all cases; expected 0\.\d+ to within 2\.33e-10"):
        check_stochastic_laws(coarse, lns8f3)
    assert check_stochastic_laws(coarse, lns8f3, max_bias=2.0**-16)


def test_a_false_alarm_is_as_rare_as_stated():
    """Chernoff's bound against the exact tails of binomials, and with every p at once."""
    for n, tests in ((50, 1), (1000, 20), (4096, 3000)):
        k = np.arange(n + 1)
        for p in (0.001, 0.1, 0.5, 0.87):
            logs = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k])
            mass = np.exp(logs + k * math.log(p) + (n - k) * math.log1p(-p))
            alarms = alarm(k / n, np.full(k.shape, p), n, tests)
            assert mass[alarms].sum() * tests <= FALSE_ALARM
            assert alarms[0] or n * p < 60
    assert divergence(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 1.0])).tolist() == [0, 0, 0]
    assert divergence(np.array([0.1, 0.9]), np.array([0.0, 1.0])).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize("bits", [1, 3, 8, 16, 32])
def test_bisection_and_counting_agree_with_the_threshold(bits):
    thresholds = np.array([0, 1, 2, 5, (1 << bits) - 1, 1 << bits]).clip(0, 1 << bits)
    x = np.arange(thresholds.size)

    def ask(values, words):
        return np.where(words.astype(np.int64) < thresholds[values], 7, 6)

    zeros = np.zeros(x.size, np.int64)
    counts = by_words(ask, x, zeros + 6, zeros + 7, bits, np.random.default_rng(0))
    assert np.array_equal(counts.share, thresholds / (1 << bits))
    assert not counts.draws.any()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, words: x, r"encode\(\S+, 0\) \(law range\) returned an array of float32: return one of uint8"),
        (lambda x: x, r"encode\(\S+, 0\) \(law range\) raised TypeError: .*: return a code for every float"),
    ],
)
def test_what_cannot_be_judged_ends_in_a_sentence(function, message):
    with pytest.raises(ImplementationError, match=message):
        check_stochastic_laws(function, lns8f3, takes="arrays")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounding": "nearest"}, "rounding='nearest' is not known: one of stochastic_value, stochastic_log"),
        ({"random_bits": 33}, "random_bits=33 is out of range: 1 to 32, or None"),
        ({"random_bits": 0}, "random_bits=0 is out of range"),
        ({"max_bias": -1}, "max_bias=-1 is out of range"),
        ({"laws": ["mean"]}, "laws has 'mean', which is not known: range, nan, zero"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_stochastic_laws(rounded(lns8f3), lns8f3, **arguments)
