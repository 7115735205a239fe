"""LNSFormat: names, limits and errors. Values are compared with the oracle, lnsnum.reference."""

import copy
import dataclasses
import math
import pickle
import re
import struct
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import lnsnum.format as presets
from lnsnum import reference
from lnsnum.format import MAX_LOG_OFFSET, LNSFormat, Overflow, Rounding, Underflow, check_choice, check_log_offset

WIDTHS = [(bits, fraction_bits) for bits in range(3, 33) for fraction_bits in range(bits - 1)]

BASES = st.floats(min_value=1.0, exclude_min=True, allow_infinity=False)

PRESETS = {
    "lns4f1": (4, 1),
    "lns6f2": (6, 2),
    "lns8f3": (8, 3),
    "lns8f4": (8, 4),
    "lns8f5": (8, 5),
    "lns10f5": (10, 5),
    "lns12f6": (12, 6),
    "lns16f7": (16, 7),
    "lns16f10": (16, 10),
    "lns32f23": (32, 23),
}


def float64(pattern: int) -> float:
    return struct.unpack("<d", struct.pack("<Q", pattern))[0]


# ---------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(("bits", "fraction_bits"), WIDTHS)
def test_every_base_two_name_is_read_back(bits, fraction_bits):
    fmt = LNSFormat(bits, fraction_bits)
    assert fmt.name == str(fmt) == f"lns{bits}f{fraction_bits}"
    assert LNSFormat.parse(fmt.name) == fmt
    assert eval(repr(fmt)) == fmt


@given(st.sampled_from(WIDTHS), BASES)
@example((12, 0), 1.5)
@example((3, 0), math.nextafter(1.0, 2.0))
@example((32, 30), 1.7976931348623157e308)
@example((8, 3), 2.0)
@example((8, 3), 4.0)
def test_every_name_is_read_back(width, base):
    fmt = LNSFormat(*width, base=base)
    assert LNSFormat.parse(fmt.name) == fmt
    assert LNSFormat.parse(fmt.name).base == base
    assert eval(repr(fmt)) == fmt
    assert ("b" in fmt.name) == (base != 2.0)


def test_the_name_of_another_base_is_the_one_in_the_specification():
    fmt = LNSFormat(12, 0, base=1.5)
    assert fmt.name == "lns12f0b0x1.8000000000000p+0"
    assert LNSFormat.parse("lns12f0b0x1.8p0") == fmt
    assert LNSFormat.parse("lns8f5b0x1p+1").name == "lns8f5"


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    fmt = getattr(presets, name)
    assert (fmt.bits, fmt.fraction_bits, fmt.base) == (*PRESETS[name], 2.0)
    assert fmt.name == name
    assert LNSFormat.parse(name) == fmt == LNSFormat.of(name)
    assert LNSFormat.of(fmt) is fmt


@pytest.mark.parametrize(
    "name",
    [
        "", "lns", "lns8", "lns8f", "lnsf5", "8f5", "LNS8F5", "lns8f5 ", " lns8f5", "lns8f5\n", "lns8.0f5", "lns-8f5",
        "lns+8f5", "lns8f-1", "lns8e5", "lns8f5b", "lns8f5b2", "lns8f5b1.5", "lns8f5bnan", "lns8f5binf", "lns8f5b0x",
        "lns8f5b0x1", "lns8f5b0x1.8P0", "lns8f5b-0x1.8p0", "float32", "lns\u0668f\u0665",
    ],
)  # fmt: skip
def test_garbage_is_no_name(name):
    with pytest.raises(ValueError, match=r"is no format name: write lns8f5 for 8 bits, 5 of them fraction bits"):
        LNSFormat.parse(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lns2f0", r"bits=2 is out of range: 3 to 32"),
        ("lns33f0", r"bits=33 is out of range: 3 to 32"),
        ("lns8f7", r"fraction_bits=7 does not fit bits=8: 0 to 6"),
        ("lns100f5", r"'lns100f5' is no format: bits 3 to 32, fraction bits 0 to bits - 2"),
        ("lns8f100", r"'lns8f100' is no format: bits 3 to 32, fraction bits 0 to bits - 2"),
        ("lns" + "9" * 5000 + "f5", r"is no format: bits 3 to 32"),
        ("lns8f5b0x1.8p+1024", r"has a base that is no float64: 0x1.8p\+1024"),
        ("lns8f5b0x1p+" + "9" * 30, r"has a base that is no float64"),
        ("lns8f5b0x1.80000000000008p+0", r"has a base that is no float64: 0x1.80000000000008p\+0 lies between two"),
        ("lns8f5b0x1..8p+0", r"has a base that is no float64: 0x1..8p\+0"),
        ("lns8f5b0x.p+0", r"has a base that is no float64: 0x.p\+0"),
        ("lns8f5b0x1p+0", r"base=1.0 is out of range: finite and greater than 1"),
        ("lns8f5b0x0p+0", r"base=0.0 is out of range: finite and greater than 1"),
    ],
)
def test_a_name_of_an_impossible_format(name, message):
    with pytest.raises(ValueError, match=message):
        LNSFormat.parse(name)


@pytest.mark.parametrize("name", [None, 8, b"lns8f5", ("lns8f5",)])
def test_a_name_is_a_string(name):
    with pytest.raises(TypeError, match=r"a format name is a string such as 'lns8f5', not "):
        LNSFormat.parse(name)
    with pytest.raises(TypeError, match=r"a format name is a string"):
        LNSFormat.of(name)


# --------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("bits", "fraction_bits", "message"),
    [
        (2, 0, r"^bits=2 is out of range: 3 to 32$"),
        (33, 5, r"^bits=33 is out of range: 3 to 32$"),
        (-8, 5, r"^bits=-8 is out of range: 3 to 32$"),
        (10**30, 5, r"^bits=1000000000000000000000000000000 is out of range: 3 to 32$"),
        (8, 9, r"^fraction_bits=9 does not fit bits=8: 0 to 6$"),
        (8, 7, r"^fraction_bits=7 does not fit bits=8: 0 to 6$"),
        (3, 2, r"^fraction_bits=2 does not fit bits=3: 0 to 1$"),
        (8, -1, r"^fraction_bits=-1 does not fit bits=8: 0 to 6$"),
    ],
)
def test_widths_out_of_range(bits, fraction_bits, message):
    with pytest.raises(ValueError, match=message):
        LNSFormat(bits, fraction_bits)


@pytest.mark.parametrize(
    ("bits", "fraction_bits", "message"),
    [
        (8.0, 5, r"^bits=8.0 is a float: give an integer$"),
        ("8", 5, r"^bits='8' is a str: give an integer$"),
        (True, 5, r"^bits=True is a bool: give an integer$"),
        (None, 5, r"^bits=None is a NoneType: give an integer$"),
        (8, 5.0, r"^fraction_bits=5.0 is a float: give an integer$"),
        (8, False, r"^fraction_bits=False is a bool: give an integer$"),
        (8, np.float32(5), r"is a float32: give an integer$"),
        (8, np.bool_(1), r"is a bool: give an integer$"),
        (Fraction(8), 5, r"is a Fraction: give an integer$"),
    ],
)
def test_widths_are_integers(bits, fraction_bits, message):
    with pytest.raises(TypeError, match=message):
        LNSFormat(bits, fraction_bits)


@pytest.mark.parametrize("base", [1.0, 1, 0.5, 0.0, -2.0, math.inf, -math.inf, math.nan, 5e-324])
def test_bases_out_of_range(base):
    with pytest.raises(ValueError, match=r"^base=.* is out of range: finite and greater than 1$"):
        LNSFormat(8, 5, base=base)


@pytest.mark.parametrize(
    "base",
    [
        pytest.param(2**53 + 1, id="2^53+1"),
        pytest.param(np.longdouble(1) + np.finfo(np.longdouble).eps, id="longdouble"),
        pytest.param(2**1024 - 1, id="2^1024-1"),
        pytest.param(2**1024 - 2**970, id="2^1024-2^970"),
        pytest.param(10**400, id="10^400"),
    ],
)
def test_a_base_that_is_no_float64(base):
    if base == 1:
        pytest.skip("longdouble is float64 here")
    with pytest.raises(ValueError, match=r"^base=.* is (no float64: give the float nearest to it|out of range.*)$"):
        LNSFormat(8, 5, base=base)


@pytest.mark.parametrize("base", ["2", None, True, 2j, Fraction(3, 2), [2.0], np.bool_(1)])
def test_a_base_is_a_number(base):
    with pytest.raises(TypeError, match=r"^base=.* is a .*: give a number$"):
        LNSFormat(8, 5, base=base)


def test_the_base_is_keyword_only():
    with pytest.raises(TypeError):
        LNSFormat(8, 5, 3.0)


@pytest.mark.parametrize(
    ("what", "choices"), [("rounding", Rounding), ("overflow", Overflow), ("underflow", Underflow)]
)
def test_choices(what, choices):
    for allowed in choices.__args__:
        check_choice(what, allowed, choices)
    for given_ in ("", "Nearest", None, 0, "nearest "):
        allowed = ", ".join(choices.__args__)
        with pytest.raises(ValueError, match=rf"^{what}={given_!r} is not known: one of {allowed}$"):
            check_choice(what, given_, choices)


def test_log_offsets():
    for good in (0, -7, MAX_LOG_OFFSET, -MAX_LOG_OFFSET, np.int8(-3), np.uint64(5)):
        assert check_log_offset(good) == int(good)
        assert type(check_log_offset(good)) is int
    for bad in (MAX_LOG_OFFSET + 1, -MAX_LOG_OFFSET - 1, np.int32(-(2**31)), 10**40):
        with pytest.raises(ValueError, match=r"^log_offset=.* is too large: at most 2\^30 in size$"):
            check_log_offset(bad)
    for bad in (0.0, "0", None, True, np.float64(1)):
        with pytest.raises(TypeError, match=r"^log_offset=.* is a .*: give an integer number of code steps$"):
            check_log_offset(bad)


# --------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(("bits", "fraction_bits"), WIDTHS)
def test_codes_of_a_format(bits, fraction_bits):
    fmt = LNSFormat(bits, fraction_bits)
    assert fmt.dtype.itemsize * 8 == next(width for width in (8, 16, 32) if width >= bits)
    assert fmt.dtype.kind == "u"
    assert fmt.sign_bit == fmt.nan_code == 2 ** (bits - 1)
    assert fmt.max_magnitude == 2 ** (bits - 1) - 1
    assert fmt.bias == 2 ** (bits - 2)
    assert fmt.max_log == fmt.max_magnitude - fmt.bias == fmt.bias - 1


@given(st.sampled_from(WIDTHS), st.one_of(st.just(2.0), st.floats(1.0, 1e3, exclude_min=True), BASES))
@example((16, 7), 2.0)
@example((8, 5), 2.0)
@example((32, 0), 2.0)
@example((13, 1), 2.0)
@example((12, 0), 2.0)
@example((3, 0), 1.7976931348623157e308)
@example((4, 0), math.nextafter(2.0**512, 0))
def test_extreme_values_are_correctly_rounded(width, base):
    fmt = LNSFormat(*width, base=base)
    for value, code, offset in (
        (fmt.max_value, fmt.max_magnitude, 0),
        (fmt.min_value, 1, 0),
        (fmt.step, fmt.bias, 1),
    ):
        assert type(value) is float
        assert value == float64(reference.decode(code, fmt, log_offset=offset))


def test_ranges():
    fmt = LNSFormat(8, 3)
    assert (fmt.max_value, fmt.min_value) == (2.0**7.875, 2.0**-7.875)
    assert (fmt.codes_per_octave, fmt.octaves) == (8.0, 15.75)
    quarter = LNSFormat(8, 3, base=4.0)
    assert (quarter.codes_per_octave, quarter.octaves) == (4.0, 31.5)


@given(st.sampled_from(WIDTHS), BASES)
@example((12, 0), 1.0000001)
@example((12, 0), math.nextafter(1.0, 2.0))
def test_codes_per_octave(width, base):
    fmt = LNSFormat(*width, base=base)
    with mpmath.workprec(200):
        octave = mpmath.log(2) / mpmath.log(base)
    assert math.isclose(fmt.codes_per_octave, float(octave) * 2**fmt.fraction_bits, rel_tol=1e-14)
    assert math.isclose(fmt.octaves, 2 * fmt.max_log / fmt.codes_per_octave, rel_tol=1e-14)


def test_the_ladder_of_madam():
    fmt = LNSFormat.madam(12, 0.001)
    assert (fmt.bits, fmt.fraction_bits, fmt.base) == (12, 0, math.exp(0.001))
    assert LNSFormat.parse(fmt.name) == fmt
    assert LNSFormat.madam(8, math.log(2)).base == 2.0
    for wrong in (0.0, -0.1, math.nan, math.inf, 700.0, 1000):
        with pytest.raises(ValueError, match=r"base_lr=.* is out of range: greater than 0, less than 700"):
            LNSFormat.madam(12, wrong)
    with pytest.raises(ValueError, match=r"base=1.0 is out of range"):
        LNSFormat.madam(12, 1e-20)


# ------------------------------------------------------------------------------------------------------- identity


def test_a_format_is_a_value():
    a, b = LNSFormat(8, 5), LNSFormat(np.int64(8), np.uint8(5), base=np.float32(2))
    assert a == b
    assert hash(a) == hash(b)
    assert {type(b.bits), type(b.fraction_bits)} == {int}
    assert type(b.base) is float
    assert len({a, b, LNSFormat(8, 4), LNSFormat(8, 5, base=2), LNSFormat(8, 5, base=4)}) == 3
    assert a != "lns8f5"
    assert pickle.loads(pickle.dumps(a)) == a
    assert copy.deepcopy(a) == a


@pytest.mark.parametrize("field", ["bits", "fraction_bits", "base"])
def test_a_format_does_not_change(field):
    fmt = LNSFormat(8, 5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(fmt, field, 4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(fmt, field)
    with pytest.raises(AttributeError):
        fmt.bias = 3
    assert fmt == LNSFormat(8, 5)


# ------------------------------------------------------------------------------------------- what a format is asked for

LISTED = [LNSFormat(3, 0), LNSFormat(8, 3), LNSFormat(8, 0), LNSFormat(9, 2, base=1.5), LNSFormat(16, 4)]


@pytest.mark.parametrize("log_offset", [0, -7, 900])
@pytest.mark.parametrize("fmt", LISTED, ids=str)
def test_values_are_the_numbers_of_the_codes(fmt, log_offset):
    values = fmt.values(log_offset=log_offset)
    assert values.dtype == np.float64
    assert values.shape == (1 << fmt.bits,)
    # all of a narrow format, of a wide one its ends, where doubles end, and some between
    codes = range(values.size) if fmt.bits <= 9 else [*range(40), *range(0, values.size, 997), *range(32700, 32800)]
    for code in codes:
        expected = float64(reference.decode(code, fmt, log_offset=log_offset))
        assert values[code] == expected or (math.isnan(expected) and math.isnan(values[code])), code
    assert not np.signbit(values[values == 0.0]).any()


def test_formats_that_are_too_wide_are_not_listed():
    with pytest.raises(ValueError, match=r"^lns17f3 has 2\^17 values, and formats of up to 16 bits are listed: "):
        LNSFormat(17, 3).values()
    with pytest.raises(TypeError, match=r"^log_offset=0.5 is a float"):
        LNSFormat(8, 3).values(log_offset=0.5)


@pytest.mark.parametrize("log_offset", [0, 11])
@pytest.mark.parametrize("fmt", [*LISTED, LNSFormat(8, 2, base=1e300), LNSFormat(8, 2, base=1.0 + 2.0**-52)], ids=str)
def test_finfo_says_what_the_values_are(fmt, log_offset):
    info, values = fmt.finfo(log_offset=log_offset), np.sort(fmt.values(log_offset=log_offset))
    positive = values[values > 0.0]
    assert info.max == (positive[-1] if positive.size else 0.0)
    assert info.min == -info.max
    if positive.size == fmt.max_magnitude:
        assert info.tiny == info.smallest_normal == info.smallest_subnormal == positive[0]
    mp = mpmath.MPContext()
    mp.prec = 200
    step = mp.power(mp.mpf(fmt.base), mp.ldexp(1, -fmt.fraction_bits))
    for ours, theirs in (
        (info.step, step), (info.eps, step - 1), (info.epsneg, 1 - 1 / step),
        (info.max_relative_error, mp.sqrt(step) - 1),
    ):  # fmt: skip
        assert abs(mp.mpf(ours) - theirs) <= 1e-14 * theirs
    assert info.precision == max(0, math.floor(-mp.log10(step - 1)))
    assert (info.dtype, info.bits, info.fraction_bits, info.base) == (fmt, fmt.bits, fmt.fraction_bits, fmt.base)
    assert (info.octaves, info.codes_per_octave, info.log_offset) == (fmt.octaves, fmt.codes_per_octave, log_offset)


def test_finfo_has_the_names_of_numpys():
    names = {field.name for field in dataclasses.fields(presets.FormatInfo)}
    assert {"bits", "eps", "epsneg", "max", "min", "tiny", "smallest_normal", "smallest_subnormal", "dtype"} <= names
    assert all(hasattr(np.finfo(np.float32), name) for name in names & {"bits", "eps", "epsneg", "max", "min", "tiny"})


def test_a_format_has_a_card():
    card = presets.lns8f3._repr_html_()
    cells = dict(re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', card))
    assert "<caption>lns8f3</caption>" in card
    assert cells["bits"] == "1 sign, 4 whole, 3 fraction bits of the logarithm"
    assert cells["smallest, greatest"] == "0.0042598, 234.753"
    assert cells["greatest error of rounding"] == "4.43 %"
    assert cells["around one"] == "0.8409, 0.917, 1, 1.0905, 1.1892"
    assert "1 sign, 7 whole, 0 fraction bits" in LNSFormat(8, 0, base=math.exp(0.001))._repr_html_()
