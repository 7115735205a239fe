"""encode of the floats that are hardest to round, for formats of every width and base, against the oracle.

Hypothesis draws the format, the scale and floats at and next to the rounding boundaries (`near_ties` of
lnsnum.strategies); each is encoded in every rounding mode and compared with lnsnum.reference.
"""

from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnsnum import LNSFormat, encode, lns8f5, reference
from lnsnum.format import MAX_LOG_OFFSET, Rounding
from lnsnum.strategies import bases, formats, near_ties

pytestmark = pytest.mark.plain_python

MODES = get_args(Rounding)
DTYPES = ["float64", "float32", "float16", "bfloat16"]


def array_of(floats, dtype):
    """What encode takes for Python floats that `dtype` holds exactly."""
    if dtype == "bfloat16":
        return (np.array(floats, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    array = np.array(floats, dtype)
    assert array.astype(np.float64).tolist() == floats
    return array


def check(floats, fmt, dtype, log_offset, rounding, underflow, random_bits):
    random = {"random_bits": np.full(len(floats), random_bits, np.uint32)} if "stochastic" in rounding else {}
    modes = {"rounding": rounding, "underflow": underflow, "log_offset": log_offset}
    found = encode(array_of(floats, dtype), fmt, dtype="bfloat16" if dtype == "bfloat16" else None, **modes, **random)
    bits = random_bits if random else 0
    expected = [reference.encode(x, fmt, random_bits=bits, **modes) for x in floats]
    assert found.tolist() == expected, (fmt, modes, bits, dtype)


@st.composite
def cases(draw, max_bits):
    """A format, a dtype, a scale that keeps some of the range within the floats, and hard floats."""
    fmt = draw(formats(max_bits=max_bits, bases=st.one_of(st.just(2.0), bases())))
    dtype = draw(st.sampled_from(DTYPES))
    log_offset = draw(st.one_of(st.just(0), st.integers(-2 * fmt.max_log, 2 * fmt.max_log)))
    log_offset = max(min(log_offset, MAX_LOG_OFFSET), -MAX_LOG_OFFSET)
    floats = draw(st.lists(near_ties(fmt, log_offset=log_offset, dtype=dtype), min_size=1, max_size=12))
    return floats, fmt, dtype, log_offset


random_words = st.one_of(st.sampled_from([0, 1, 1 << 31, (1 << 32) - 1]), st.integers(0, (1 << 32) - 1))


@pytest.mark.parametrize("rounding", MODES)
@given(case=cases(max_bits=10), underflow=st.sampled_from(["round", "saturate"]), random_bits=random_words)
@example(case=([2.0, -2.0], LNSFormat(5, 0, base=4.0), "float64", 0), underflow="round", random_bits=0)
@settings(max_examples=60, deadline=None)
def test_narrow_formats(rounding, case, underflow, random_bits):
    check(*case, rounding, underflow, random_bits)


@pytest.mark.parametrize("rounding", MODES)
@given(case=cases(max_bits=32), underflow=st.sampled_from(["round", "saturate"]), random_bits=random_words)
@settings(max_examples=40, deadline=None)
def test_formats_of_any_width(rounding, case, underflow, random_bits):
    check(*case, rounding, underflow, random_bits)


@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_well_known_format(rounding, dtype, data):
    floats = data.draw(st.lists(near_ties(lns8f5, dtype=dtype), min_size=1, max_size=40))
    check(floats, lns8f5, dtype, 0, rounding, "round", data.draw(random_words))
