"""Decibels: tenths of a logarithm to base 10, and what becomes of ratios that are none."""

import math

import pytest

from lnsnum.kernels.decibels import decibels


@pytest.mark.parametrize(
    ("signal", "noise", "expected"),
    [(1.0, 1.0, 0.0), (100.0, 1.0, 20.0), (1.0, 1000.0, -30.0), (1e300, 1e-300, 6000.0), (5e-324, 5e-324, 0.0),
     (1.0, 0.0, math.inf), (0.0, 0.0, math.inf), (1.0, -1e-20, math.inf), (math.inf, 0.0, math.inf),
     (0.0, 1.0, -math.inf), (-1e-20, 1.0, -math.inf)],
)  # fmt: skip
def test_ratios(signal, noise, expected):
    assert decibels(signal, noise) == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize(
    ("signal", "noise"), [(1.0, math.inf), (math.inf, 1.0), (math.nan, 1.0), (1.0, math.nan), (math.inf, math.inf)]
)
def test_what_is_beyond_doubles_has_no_ratio(signal, noise):
    assert math.isnan(decibels(signal, noise))
