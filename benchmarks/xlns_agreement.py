"""Where lnsnum and xlns (Arnold, the scalar class `xlns.xlns`) give the same logarithm, and who is right where not.

    python benchmarks/xlns_agreement.py        (needs the extra `bench`)

10,000 random operations: 2,000 at each of five numbers of fraction bits, most of them sums. Every difference goes to
the oracle `lnsnum.reference`, which decides by integers and mpmath. Prints the tables of docs/comparison.md, and ends
with exit code 1 where lnsnum is not correctly rounded.
"""

import contextlib
import io
import random

import numpy as np

from lnsnum import LNSFormat, arithmetic, encode, exact, reference

with contextlib.redirect_stdout(io.StringIO()):
    import xlns

FRACTION_BITS = (5, 10, 15, 18, 20)
OPERATIONS = ("encode", "add", "subtract", "multiply", "divide", "sqrt", "square", "reciprocal")
WEIGHTS = {"encode": 500, "add": 500, "subtract": 500, "multiply": 125, "divide": 125, "sqrt": 125, "square": 62}
"""Of 2,000 operations at each F; the reciprocals are the rest."""


def theirs(log, negative):
    x = xlns.xlns("")
    x.x, x.s = log, negative
    return x


def result_of(x):
    """(E, sign) of an xlns number, None where it is none."""
    if not isinstance(x, xlns.xlns):
        return None
    if x.x == -float("inf"):
        return None, False
    return int(x.x), bool(x.s)


def run_theirs(operation, a, b, value):
    if operation == "encode":
        return result_of(xlns.xlns(value))
    x = theirs(*a)
    if operation == "sqrt":
        return result_of(x**0.5)
    if operation == "square":
        return result_of(x**2)
    if operation == "reciprocal":
        return result_of(xlns.xlns(1.0) / x)
    y = theirs(*b)
    symbol = {"add": "__add__", "subtract": "__sub__", "multiply": "__mul__", "divide": "__truediv__"}[operation]
    return result_of(getattr(x, symbol)(y))


def code_of(number, fmt):
    log, negative = number
    return fmt.bias + log + (fmt.sign_bit if negative else 0)


def number_of(code, fmt):
    if code == 0:
        return None, False
    return (code & fmt.max_magnitude) - fmt.bias, bool(code & fmt.sign_bit)


def run_ours(operation, a, b, value, fmt):
    if operation == "encode":
        return int(encode(np.array([value]), fmt)[0]), reference.encode(value, fmt)
    codes = [np.array([code_of(x, fmt)], fmt.dtype) for x in (a, b)]
    unary = operation in ("sqrt", "square", "reciprocal")
    given = codes[:1] if unary else codes
    ours = int(getattr(arithmetic, operation)(*given, fmt)[0][0])
    return ours, getattr(reference, operation)(*(int(x[0]) for x in given), fmt)


def draw(rng, operation, fraction_bits):
    """Operands: some octaves apart, and half of them of sums near each other, where db is steep."""
    size = 10 << fraction_bits
    a = rng.randrange(-size, size), rng.random() < 0.5 and operation != "sqrt"
    b_log = rng.randrange(-size, size)
    if rng.random() < 0.5:
        b_log = a[0] + rng.randrange(-(2 << fraction_bits), 2 << fraction_bits)
    value = rng.choice((-1, 1)) * 2.0 ** rng.uniform(-10, 10)
    return a, (b_log, rng.random() < 0.5), value


def main():
    rng = random.Random(0)
    counts = {operation: [0, 0, 0, 0] for operation in OPERATIONS}
    examples = {}
    for fraction_bits in FRACTION_BITS:
        with contextlib.redirect_stdout(io.StringIO()):
            xlns.xlnssetF(fraction_bits)
        fmt = LNSFormat(32, fraction_bits)
        plan = [name for name, count in WEIGHTS.items() for _ in range(count)]
        plan += ["reciprocal"] * (2000 - len(plan))
        for operation in plan:
            a, b, value = draw(rng, operation, fraction_bits)
            ours, right = run_ours(operation, a, b, value, fmt)
            other = run_theirs(operation, a, b, value)
            row = counts[operation]
            row[0] += 1
            if number_of(ours, fmt) == other:
                row[1] += 1
                if ours != right:
                    raise SystemExit(f"both are wrong: {operation} {a} {b} {value}")
                continue
            row[2] += ours == right
            row[3] += other == number_of(right, fmt)
            operands = value if operation == "encode" else (a,) if operation in ("sqrt", "square") else (a, b)
            examples.setdefault(operation, (fraction_bits, operands, number_of(ours, fmt), other))
    print("| operation | cases | the same | differ | of these lnsnum is correctly rounded | xlns is |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for operation, (cases, same, ours_right, theirs_right) in counts.items():
        print(f"| {operation} | {cases:,} | {same:,} | {cases - same:,} | {ours_right:,} | {theirs_right:,} |")
    total = [sum(row[i] for row in counts.values()) for i in range(4)]
    print(f"| all | {total[0]:,} | {total[1]:,} | {total[0] - total[1]:,} | {total[2]:,} | {total[3]:,} |")
    print("\nFirst difference of each operation; a number is (E, negative), E in code steps:\n")
    print("| operation | F | operands | lnsnum, the oracle | xlns |\n| --- | ---: | --- | --- | --- |")
    for operation, (fraction_bits, operands, ours, other) in examples.items():
        print(f"| {operation} | {fraction_bits} | {operands} | {ours} | {other} |")
    hard_encodes(rng)
    print("\nSpecial cases, at F = 8:\n")
    special_cases()
    if total[2] != total[0] - total[1]:
        raise SystemExit(1)


def hard_encodes(rng):
    """Encode of the two float64 around each of some thresholds, where a rounded logarithm cannot be trusted."""
    print("\nEncode of the two float64 on either side of 200 random thresholds:\n")
    print("| F | cases | lnsnum is correctly rounded | xlns is |\n| ---: | ---: | ---: | ---: |")
    for fraction_bits in (*FRACTION_BITS, 23):
        with contextlib.redirect_stdout(io.StringIO()):
            xlns.xlnssetF(fraction_bits)
        fmt = LNSFormat(32, fraction_bits)
        counts = [0, 0, 0]
        for _ in range(200):
            log = rng.randrange(-20 << fraction_bits, 20 << fraction_bits)
            above = exact.float64_threshold(2.0, 2 * log + 1, fraction_bits + 1)
            for pattern in (above - 1, above):
                value = float(np.uint64(pattern).view(np.float64))
                ours, right = run_ours("encode", None, None, value, fmt)
                counts[0] += 1
                counts[1] += ours == right
                counts[2] += run_theirs("encode", None, None, value) == number_of(right, fmt)
        print(f"| {fraction_bits} | {counts[0]} | {counts[1]} | {counts[2]} |")
        if counts[1] != counts[0]:
            raise SystemExit(1)


def special_cases():
    with contextlib.redirect_stdout(io.StringIO()):
        xlns.xlnssetF(8)
    fmt = LNSFormat(32, 8)

    def mine(operation, *values):
        codes = [encode(np.array([value]), fmt) for value in values]
        return reference.value(int(getattr(arithmetic, operation)(*codes, fmt)[0][0]), fmt)

    def other(make):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                value = make()
            return f"{float(value):.6g}" if isinstance(value, xlns.xlns | float) else str(value)
        except (ArithmeticError, ValueError, TypeError) as error:
            return f"{type(error).__name__}: {error}"

    x = xlns.xlns
    rows = [
        ("3 - 3", mine("subtract", 3.0, 3.0), other(lambda: x(3.0) - x(3.0))),
        ("0 + 3", mine("add", 0.0, 3.0), other(lambda: x(0.0) + x(3.0))),
        ("0 / 0", mine("divide", 0.0, 0.0), other(lambda: x(0.0) / x(0.0))),
        ("1 / 0", mine("divide", 1.0, 0.0), other(lambda: x(1.0) / x(0.0))),
        ("sqrt(-4)", mine("sqrt", -4.0), other(lambda: x(-4.0) ** 0.5)),
        ("NaN", reference.value(int(encode(np.array([np.nan]), fmt)[0]), fmt), other(lambda: x(float("nan")))),
        ("2^100 as E", int(encode(np.array([2.0**100]), fmt)[0]) - fmt.bias, str(x(2.0**100).x)),
    ]
    print("| expression | lnsnum | xlns |\n| --- | --- | --- |")
    for name, ours, theirs_text in rows:
        print(f"| {name} | {ours} | {theirs_text} |")


if __name__ == "__main__":
    main()
