"""The table of specials in docs/number_format.md, row by row: the kernels and the oracle give what it says.

Every row is read from the page itself; one that cannot be read is an error, so no row goes untested.
"""

import itertools
import re
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import lnsnum
from lnsnum import LNSFormat, arithmetic, lns4f1, lns6f2, lns16f10, lns32f23, reference

PAGE = Path(lnsnum.__file__).parent.parent / "docs" / "number_format.md"

FORMATS = [lns4f1, lns6f2, LNSFormat(6, 1, base=4.0), lns16f10, lns32f23]

OFFSETS = [0, 5, -300]
"""At equal offsets the table holds, whatever they are; where it speaks of 1, at offset 0."""

MODES = [
    {"rounding": "nearest", "overflow": "saturate", "underflow": "round"},
    {"rounding": "nearest", "overflow": "nan", "underflow": "saturate"},
    {"rounding": "toward_zero", "overflow": "nan", "underflow": "round"},
    {"rounding": "up", "overflow": "saturate", "underflow": "saturate"},
    {"rounding": "down", "overflow": "nan", "underflow": "round"},
    {"rounding": "stochastic_log", "overflow": "nan", "underflow": "round"},
    {"rounding": "stochastic_value", "overflow": "saturate", "underflow": "round"},
]

ELEMENTARY = {"log10", "expm1", "log1p", "tanh", "sinh", "cosh", "hypot", "logaddexp"}
"""Of which the oracle is in tests/operations/test_elementary_functions.py."""
ROUNDED = {"multiply", "divide", "add", "subtract", "float_power", "hypot", "logaddexp"}
UNARY = {"reciprocal", "square", "sqrt", "exp", "exp2", "log", "log2", "power"} | ELEMENTARY - ROUNDED
ORDERED = {"minimum", "maximum"}
ON_CODES = {"negative", "absolute", "sign", "copysign", "ulp_distance", "isnan", "iszero"}
FAITHFUL = {"exp", "exp2", "log", "log2", "float_power"}
OPERATIONS = ROUNDED | UNARY | ORDERED | ON_CODES | {"fma", "clip", "nextafter"}

SYMBOLS = {"nan", "0", "one", "smallest", "any", "x", "y", "pos", "neg"}


class Row(NamedTuple):
    operation: str
    operands: tuple[str, ...]
    exponent: Fraction | None
    result: str

    def __str__(self):
        exponent = "" if self.exponent is None else f",{self.exponent}"
        return f"{self.operation}({','.join(self.operands)}{exponent})"


def read_symbol(text):
    if text.removeprefix("-") not in SYMBOLS or text == "-0":
        raise ValueError(f"{text!r} is no symbol")
    return text


def read_row(line):
    match = re.fullmatch(r"\| `(\w+)\(([^()`]+)\)` \| `([^`]+)` \|", line)
    if match is None:
        raise ValueError(f"cannot read the row {line!r}")
    operation, operands, result = match[1], match[2].split(", "), match[3]
    if operation not in OPERATIONS:
        raise ValueError(f"{operation} is no operation")
    exponent = Fraction(operands.pop()) if operation == "power" else None
    literal = {"isnan": {"True", "False"}, "iszero": {"True", "False"}, "ulp_distance": {"-1"}}.get(operation)
    if literal is None:
        read_symbol(result)
    elif result not in literal:
        raise ValueError(f"{result!r} is no result of {operation}")
    return Row(operation, tuple(map(read_symbol, operands)), exponent, result)


def read_rows(page):
    """All rows of the table under the heading "Specials"."""
    section = page.split("\n### Specials\n")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    if lines[:2] != ["| operation | result |", "| --- | --- |"]:
        raise ValueError(f"the table begins with {lines[:2]}")
    return [read_row(line) for line in lines[2:]]


ROWS = read_rows(PAGE.read_text(encoding="utf-8"))


def numbers(fmt):
    """All positive codes, or a sample of them with the edges."""
    if fmt.bits <= 6:
        return np.arange(1, fmt.sign_bit, dtype=np.int64)
    m, bias, octave = fmt.max_magnitude, fmt.bias, 1 << fmt.fraction_bits
    drawn = np.random.default_rng(fmt.bits).integers(1, m + 1, 12)
    return np.unique([1, 2, bias - octave, bias - 1, bias, bias + 1, bias + octave, m - 1, m, *drawn])


def choices(symbol, fmt):
    positive = numbers(fmt)
    minus = positive | fmt.sign_bit
    return {
        "nan": [fmt.nan_code],
        "0": [0],
        "one": [fmt.bias],
        "smallest": [1],
        "any": np.concatenate([[0, fmt.nan_code], positive, minus]),
        "x": np.concatenate([positive, minus]),
        "y": np.concatenate([positive, minus]),
        "pos": positive,
        "neg": minus,
    }[symbol]


def minus(codes, fmt):
    return np.where((codes == 0) | (codes == fmt.nan_code), codes, codes ^ fmt.sign_bit)


def cases(row, fmt):
    """The operands of a row, one array each, and what comes out. x and y are the same number wherever they stand."""
    names = [operand.removeprefix("-") for operand in row.operands]
    names = [name if name in ("x", "y") else f"{name} {i}" for i, name in enumerate(names)]
    free = list(dict.fromkeys(names))
    grid = np.meshgrid(*(np.asarray(choices(name.split()[0], fmt), np.int64) for name in free), indexing="ij")
    values = dict(zip(free, (axis.reshape(-1) for axis in grid), strict=True))
    operands = [
        minus(values[name], fmt) if operand.startswith("-") else values[name]
        for name, operand in zip(names, row.operands, strict=True)
    ]
    if row.result in ("True", "False") or row.operation == "ulp_distance":
        literal = {"True": True, "False": False}.get(row.result)
        return operands, np.full(operands[0].shape, int(row.result) if literal is None else literal)
    result = row.result.removeprefix("-")
    given = next((name for name in names if name.split()[0] == result), None)
    fixed = given is None or result in ("nan", "0", "one", "smallest")
    expected = np.full(operands[0].shape, choices(result, fmt)[0]) if fixed else values[given]
    return operands, minus(expected, fmt) if row.result.startswith("-") else expected


def offsets_of(row):
    if "one" in (*row.operands, row.result.removeprefix("-")) or row.operation in ON_CODES:
        return [0]
    return OFFSETS


def keywords(row, offset):
    """The offsets of the operands and of the result."""
    if row.operation in UNARY:
        names = ["log_offset", "out_log_offset"]
    elif row.operation == "clip":
        names = ["log_offset", "lower_log_offset", "upper_log_offset", "out_log_offset"]
    elif row.operation == "fma":
        names = ["a_log_offset", "b_log_offset", "c_log_offset", "out_log_offset"]
    elif row.operation == "nextafter":
        names = ["a_log_offset", "b_log_offset"]
    else:
        names = [] if row.operation in ON_CODES else ["a_log_offset", "b_log_offset", "out_log_offset"]
    return dict.fromkeys(names, offset)


def modes_of(row):
    if row.operation in ROUNDED | UNARY | {"fma"}:
        return MODES
    if row.operation in ORDERED | {"clip"}:
        return [{"overflow": "saturate", "underflow": "round"}, {"overflow": "nan", "underflow": "saturate"}]
    return [{}]


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_kernels(row, fmt):
    operands, expected = cases(row, fmt)
    codes = [operand.astype(fmt.dtype) for operand in operands]
    function = getattr(arithmetic, row.operation)
    exponents = [] if row.exponent is None else [row.exponent]
    random = np.random.default_rng(7).integers(0, 1 << 32, expected.shape, np.uint32)
    for offset, modes in itertools.product(offsets_of(row), modes_of(row)):
        bits = {"random_bits": random} if modes.get("rounding", "").startswith("stochastic") else {}
        result = function(*codes, *exponents, fmt, **keywords(row, offset), **modes, **bits)
        if row.operation not in ON_CODES | {"nextafter"}:
            result, log_offset = result
            assert log_offset == offset
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("row", [row for row in ROWS if row.operation not in ELEMENTARY], ids=str)
def test_oracle(row, fmt):
    operands, expected = cases(row, fmt)
    each = list(zip(*(operand.tolist() for operand in operands), expected.tolist(), strict=True))
    exponents = [] if row.exponent is None else [row.exponent]
    for i, offset in enumerate(offsets_of(row)):
        for j, (*codes, result) in enumerate(each):
            how = keywords(row, offset)
            modes = modes_of(row)[(i + j) % len(modes_of(row))]
            if row.operation in FAITHFUL:
                modes = {policy: modes[policy] for policy in ("overflow", "underflow")}
                if row.operation == "float_power":
                    how["log_offset"] = how.pop("a_log_offset")
                lower, upper, _ = reference.bracket(row.operation, fmt, *codes, **how, **modes)
                assert lower == upper == result
            else:
                bits = {"random_bits": 977 * j} if modes.get("rounding", "").startswith("stochastic") else {}
                assert getattr(reference, row.operation)(*codes, *exponents, fmt, **how, **modes, **bits) == result


def test_every_operation_has_a_row():
    assert {row.operation for row in ROWS} == OPERATIONS
    assert len(ROWS) == len(set(ROWS))


@pytest.mark.parametrize(
    "line",
    [
        "| `add(nan, any)` | nan |",
        "| `add(nan, any) | `nan` |",
        "| `add(nan, z)` | `nan` |",
        "| `adds(nan, any)` | `nan` |",
        "| `add(0, 0)` | `-0` |",
        "| `isnan(nan)` | `yes` |",
        "| `power(x, half)` | `x` |",
        "| `add(nan, any)` | `nan` | why |",
    ],
)
def test_a_row_that_cannot_be_read_is_an_error(line):
    with pytest.raises(ValueError, match=r"cannot read|no symbol|no operation|no result|Invalid literal"):
        read_row(line)
