"""The specification once more, one number at a time: slow, exact, and sharing nothing with the kernels.

    operands -> an exact number: radical or terms -> on which side of a code, a midpoint, a random point -> code

A number is a product of integers to rational powers (`radicals`) or a sum of powers of one base (`sums`), both exact.
Every decision about it is a sign: by mpmath at growing precision until it is clear, and where it stays unclear by
algebra. `codes` is what a code means, `rounding` how a number becomes one; `conversions`, `arithmetic`, `brackets` and
`order` have the functions.

docs/number_format.md is the text that this package says again; read them side by side. mpmath is an optional
dependency, so `lnsnum` does not import this package by itself.
"""

from lnsnum.reference.arithmetic import (
    add,
    divide,
    exact_dot,
    exact_sum,
    fma,
    multiply,
    power,
    reciprocal,
    sqrt,
    square,
    subtract,
)
from lnsnum.reference.brackets import Bracket, bracket
from lnsnum.reference.conversions import convert, decode, encode, value
from lnsnum.reference.order import (
    absolute,
    clip,
    compare,
    copysign,
    isnan,
    iszero,
    maximum,
    minimum,
    negative,
    nextafter,
    sign,
    ulp_distance,
)

__all__ = [
    "Bracket",
    "absolute",
    "add",
    "bracket",
    "clip",
    "compare",
    "convert",
    "copysign",
    "decode",
    "divide",
    "encode",
    "exact_dot",
    "exact_sum",
    "fma",
    "isnan",
    "iszero",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "nextafter",
    "power",
    "reciprocal",
    "sign",
    "sqrt",
    "square",
    "subtract",
    "ulp_distance",
    "value",
]
