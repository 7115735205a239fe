"""Batches whose inputs are single numbers: what a conversion, a Gaussian logarithm, a quantizer is asked with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from lnsnum.testing.calling import Callee
from lnsnum.testing.foreign import Array
from lnsnum.testing.trial import Batch, Finding, Ints, Mask, in_other_company

Ask = Callable[[Array], Array]
"""The operation, on n inputs."""


class Unary(Batch):
    """n numbers and what an operation makes of them."""

    def __init__(self, ask: Ask, operation: str, x: Array) -> None:
        self.ask, self.operation, self.x = ask, operation, x

    @property
    def size(self) -> int:
        """How many numbers."""
        return int(self.x.size)

    @cached_property
    def out(self) -> Array:
        """What the operation makes of them."""
        return self.ask(self.x)

    def inputs(self, i: int) -> tuple[Any, ...]:
        """The number."""
        return (plain(self.x[i]),)

    def result(self, i: int) -> Any:
        """What came out."""
        return plain(self.out[i])

    def told_input(self, x: Any) -> str:
        """An input in words; a NaN that is not the plain one with its bits."""
        if x == x:
            return str(x)
        bits, plain_bits = (np.array(nan, x.dtype).view(f"u{x.dtype.itemsize}")[()] for nan in (x, np.nan))
        return "nan" if bits == plain_bits else f"nan ({bits:#x})"

    def told(self, result: Any) -> str:
        """A result in words: a number in as many digits as tell it from all others."""
        return str(result)

    def equation(self, x: Any, out: Any) -> str:
        """`encode(1.5) = 69 (1.54221)`."""
        return f"{self.operation}({self.told_input(x)}) = {self.told(out)}"

    def said(self, i: int) -> str:
        """Input i and its result."""
        return self.equation(self.x[i], self.out[i])

    def same(self, a: Array, b: Array) -> Mask:
        """Which results are the same; NaN is NaN, and zeros have signs."""
        same: Mask = a == b
        if a.dtype.kind == "f":
            same = (same & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
        return same

    def should_be(self, where: Mask, expected: Any) -> Finding:
        """These results should have come out there."""
        results = np.broadcast_to(np.asarray(expected, self.out.dtype), self.out.shape)
        return Finding(where, where & ~self.same(self.out, results), lambda i: self.told(results[i]))

    def compared(self, x: Array, out: Array, where: Mask, bad: Mask, relation: str) -> Finding:
        """What came out should stand in a relation to the results of other inputs."""
        return Finding(where, where & bad, lambda i: f"{relation} {self.equation(x[i], out[i])}")


def plain(x: Any) -> Any:
    """A number of Python's; every NaN is the same object, so that reports with one are equal."""
    return math.nan if x != x else x.item()


def find_determinism(batch: Unary) -> Iterator[Finding]:
    """A result depends on its own input alone, not on what stands beside it or came before."""
    out = np.empty_like(batch.out)
    for part in in_other_company(batch.size):
        out[part] = batch.ask(batch.x[part])
    yield Finding(
        np.ones(out.shape, np.bool_),
        ~batch.same(out, batch.out),
        lambda i: f"the same in another order, where it is {batch.told(out[i])}",
    )


def asking(callee: Callee, operation: str, inputs: np.dtype[Any], outputs: np.dtype[Any]) -> Ask:
    """The operation of an implementation, from numbers of one type to numbers of another."""

    def ask(x: Array) -> Array:
        return callee(operation, (x.astype(inputs, copy=False),), outputs, lambda i: f"{operation}({x[i]})")

    return ask


def simple_floats(x: Any) -> Array:
    """x itself, then floats near it that are simpler: fewer bits, nearer to one, positive."""
    dtype = np.dtype(type(x))
    if not np.isfinite(x) or x == 0:
        return np.array([x, -x], dtype)
    significand, exponent = np.frexp(np.float64(x))
    exponents = sorted({int(exponent) // (1 << k) for k in range(12)} | {int(exponent) - 1, int(exponent), 1})
    bits = np.finfo(dtype).nmant + 1
    found = [x]
    for kept in range(1, bits + 1):
        for rounded in (np.floor, np.ceil):
            short = np.ldexp(rounded(np.ldexp(significand, kept)), -kept)
            found += [np.ldexp(short, e) for e in exponents]
    with np.errstate(over="ignore"):
        floats = np.array(found, np.float64).astype(dtype)
    return np.concatenate([floats, -floats])


def float_keys(x: Array) -> Ints:
    """How far floats are from simple ones: first how far from one, then how many bits, then the sign."""
    number = np.isfinite(x) & (x != 0)
    significand, exponent = np.frexp(np.where(number, x, 1).astype(np.float64))
    whole = np.abs(np.ldexp(significand, 53)).astype(np.int64)
    bits = 53 - np.log2((whole & -whole).astype(np.float64)).astype(np.int64)
    octaves = np.abs(exponent.astype(np.int64) - 1)
    return octaves * 128 + bits * 2 + np.signbit(x)


def float_rank(x: Array) -> Ints:
    """Integers in the order of floats, consecutive from the least to the greatest; 0 for both zeros."""
    bits = 8 * x.dtype.itemsize
    pattern = x.view(f"i{x.dtype.itemsize}").astype(np.int64)
    magnitude = pattern & ((1 << (bits - 1)) - 1)
    return np.where(pattern < 0, -magnitude, magnitude)


def quiet(x: Array) -> Array:
    """The same floats, NaNs quiet: a signalling one would raise a warning wherever it is converted."""
    info = np.finfo(x.dtype)
    pattern = x.view(f"u{x.dtype.itemsize}")
    return np.where(np.isnan(x), pattern | pattern.dtype.type(1 << (info.nmant - 1)), pattern).view(x.dtype)


def infinity_rank(dtype: np.dtype[Any]) -> int:
    """The rank of infinity, the greatest."""
    return int(float_rank(np.array([np.inf], dtype))[0])


def float_above(x: Array, steps: Ints) -> Array:
    """The floats so many places further up, at most infinity; NaN counts as zero."""
    rank = np.where(np.isnan(x), 0, float_rank(x))
    return float_of_rank(np.minimum(rank, infinity_rank(x.dtype) - steps) + steps, x.dtype)


def float_of_rank(rank: Ints, dtype: np.dtype[Any]) -> Array:
    """The floats of these ranks, infinities beyond the greatest."""
    floats = np.minimum(np.abs(rank), infinity_rank(dtype)).astype(f"i{dtype.itemsize}").view(dtype)
    return np.where(rank < 0, -floats, floats)
