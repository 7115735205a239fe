"""Posits by the words of their standard (2022), a bit at a time in Fractions: nothing of lnsnum's."""

from fractions import Fraction


def value_of(pattern, bits):
    """The number of a positive pattern."""
    text = f"{pattern:0{bits - 1}b}"
    run = len(text) - len(text.lstrip(text[0]))
    k = run - 1 if text[0] == "1" else -run
    rest = text[run + 1 :]
    exponent = int((rest[:2] + "00")[:2], 2)
    fraction = sum(Fraction(int(bit), 2**i) for i, bit in enumerate(rest[2:], 1))
    return Fraction(2) ** (4 * k + exponent) * (1 + fraction)


def nearest_of(x, bits):
    """The pattern that a positive number becomes."""
    greatest = 2 ** (bits - 1) - 1
    below = max((p for p in range(1, greatest + 1) if value_of(p, bits) <= x), default=0)
    if below in (0, greatest):
        return below or 1
    # what lies between two posits is judged by the posit of one bit more between them
    between = value_of(2 * below + 1, bits + 1)
    return below + (x > between or (x == between and below % 2))
