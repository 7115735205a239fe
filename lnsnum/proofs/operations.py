"""Scans of sums, roots and reciprocals, and of all pairs of codes of short formats."""

from __future__ import annotations

import math

import numpy as np

from lnsnum import arithmetic, reference
from lnsnum.format import LNSFormat
from lnsnum.gaussian import Exact, last_step
from lnsnum.kernels.rounding import steps_in_two
from lnsnum.proofs.scanning import Finding, Scan, chunks, exact_position, float_position, mp

WIDEST_PAIRS = 10
"""All pairs of codes are scanned for formats up to this many bits."""


def certify_gaussian(fmt: LNSFormat, *, subtracted: bool) -> Finding:
    """sb or db over every z from which anything comes, in nearest.

    By `add` and `subtract`, with hi at the two greatest magnitudes, one even and one odd, where the range of a format
    wider than those whose pairs are scanned holds all results; else by the function behind the tables, at hi = 0.
    """
    operation = arithmetic.subtract if subtracted else arithmetic.add
    steps = steps_in_two(fmt)[0]
    top = math.ceil(steps) + 2  # room for the sum
    deepest = steps * (max(math.log2(steps), 0.0) + 2.0)  # beyond -db(1)
    direct = fmt.bits > WIDEST_PAIRS and max(last_step(fmt), deepest) + top < 2 * fmt.max_log
    name = "db(z), every z" if subtracted else "sb(z), every z"
    scan = Scan(f"{name}, by {operation.__name__} of two greater operands" if direct else name)
    for z in chunks(last_step(fmt) + 1, 1 if subtracted else 0):
        position = float_position(z, fmt, subtracted)
        expected = np.rint(position).astype(np.int64)
        distance = np.abs(np.abs(position - np.floor(position)) - 0.5)
        for i in np.flatnonzero(distance < 1e-6 + steps * 2.0**-44 + np.abs(position) * 2.0**-46):
            scan.rechecked += 1
            true = exact_position(int(z[i]), fmt, subtracted)
            floor = int(mp.floor(true))
            distance[i] = float(abs(true - floor - 0.5))
            is_tie = abs(true - floor - 0.5) < mp.mpf(2) ** -300
            if is_tie and direct:
                raise ValueError(f"{fmt.name} has ties at z={z[i]}: its sums cannot be scanned by z alone")
            expected[i] = floor + (floor & 1) if is_tie else int(mp.floor(true + 0.5))
        for hi in (fmt.max_log, fmt.max_log - 1) if direct else (0,):
            if not direct:
                found = Exact().db(z, fmt) if subtracted else Exact().sb(z, fmt)
            else:
                a = np.full(z.shape, hi + fmt.bias, fmt.dtype)
                codes, _ = operation(a, (hi + fmt.bias - z).astype(fmt.dtype), fmt, out_log_offset=top)
                found = codes.astype(np.int64) - fmt.bias + top - hi
            scan.add(z.size, float(distance.min()), found != expected, lambda i, z=z: f"z={z[i]}")  # type: ignore[misc]
    return scan.finding()


def certify_unary(fmt: LNSFormat, name: str) -> Finding:
    """sqrt or reciprocal of every positive magnitude: integers on both sides."""
    scan = Scan(f"{name}, every magnitude")
    for m in chunks(fmt.max_magnitude + 1, 1):
        log = m - fmt.bias
        found, _ = getattr(arithmetic, name)(m.astype(fmt.dtype), fmt)
        half_even = (log >> 1) + (log & (log >> 1) & 1)
        expected = half_even if name == "sqrt" else np.minimum(-log, fmt.max_log)
        wrong = found.astype(np.int64) - fmt.bias != expected
        scan.add(m.size, 0.0 if name == "sqrt" else math.inf, wrong, lambda i, m=m: f"code={m[i]}")  # type: ignore[misc]
    return scan.finding()


def certify_pairs(fmt: LNSFormat, name: str) -> Finding:
    """One binary operation over all pairs of codes."""
    scan = Scan(f"{name}, all pairs")
    codes = np.arange(1 << fmt.bits, dtype=fmt.dtype)
    a, b = np.repeat(codes, codes.size), np.tile(codes, codes.size)
    found, _ = getattr(arithmetic, name)(a, b, fmt)
    log_a, log_b = ((x.astype(np.int64) & fmt.max_magnitude) - fmt.bias for x in (a, b))
    sign_a, sign_b = a >= fmt.sign_bit, b >= fmt.sign_bit
    if name == "subtract":
        sign_b = ~sign_b
    if name in ("multiply", "divide"):
        position = (log_a + log_b if name == "multiply" else log_a - log_b).astype(np.float64)
        negative = sign_a != sign_b
        error = 0.0
    else:
        z = np.abs(log_a - log_b)
        subtracted = sign_a != sign_b
        table = [float_position(np.arange(2 * fmt.max_log + 2), fmt, which) for which in (False, True)]
        position = np.maximum(log_a, log_b) + np.where(subtracted, table[1][z], table[0][z])
        negative = np.where(log_a >= log_b, sign_a, sign_b)
        error = 1e-9
    lowest = -fmt.max_log
    steps = steps_in_two(fmt)[0]
    from_half = position - (lowest - steps)
    with np.errstate(invalid="ignore"):
        distance = np.abs(np.abs(position - np.floor(position)) - 0.5)
        rounded = np.rint(position)
        m = np.where(position < lowest, from_half >= 0, np.minimum(rounded, fmt.max_log) + fmt.bias)
    m = np.where(position < lowest, m, np.maximum(m, 1)).astype(np.int64)
    expected = np.where(m == 0, 0, m + np.where(negative, fmt.sign_bit, 0))
    wrong = found.astype(np.int64) != expected
    special = ((a & fmt.max_magnitude) == 0) | ((b & fmt.max_magnitude) == 0)
    half_error = error + steps_in_two(fmt)[1]
    near = (
        (distance < error)
        | ((half_error > 0) & (np.abs(from_half) <= half_error))
        | (np.abs(position - lowest) < error)
    )
    decided = getattr(reference, name)
    for i in np.flatnonzero(special | near | ~np.isfinite(position)):
        scan.rechecked += not special[i]
        wrong[i] = int(found[i]) != decided(int(a[i]), int(b[i]), fmt)
    tie = math.inf if error == 0.0 else float(distance[~special & np.isfinite(position)].min(initial=math.inf))
    scan.add(a.size, tie, wrong, lambda i: f"{name}({a[i]}, {b[i]})")
    return scan.finding()
