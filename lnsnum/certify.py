"""Proofs by exhaustion: scan what a claim of correct rounding needs, with the kernels that ship, and count.

    certificate  =  for each operation: inputs scanned, nearest tie, near ties re-checked by mpmath, misroundings

Each result of a kernel is held against the same position computed another way: by NumPy's functions in float64, by
integer recurrences of 160 bits, or by integers alone. Where that position is nearer to a rounding boundary than its own
error could reach, mpmath decides. A finite scan stands for all inputs by the structure of the operation: at base 2,
encode and decode repeat from octave to octave; a sum depends on z, one sign, and an integer; a product is an integer.

`judge` holds an approximate Gaussian logarithm against the exact one over the whole domain.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import mpmath
import numba
import numpy as np
from numpy.typing import NDArray

import lnsnum
from lnsnum import arithmetic, reference
from lnsnum.decoding import decode
from lnsnum.encoding import MOST_THRESHOLDS, encode
from lnsnum.format import LNSFormat
from lnsnum.gaussian import Exact, GaussianLog, check_gaussian, evaluate, last_step
from lnsnum.kernels.codes import FLOAT_TYPES
from lnsnum.kernels.elementary import LOG2_ERROR
from lnsnum.kernels.rounding import steps_in_two

_PRECISION = 160
_CHUNK = 1 << 20
_WIDEST_PAIRS = 10
"""All pairs of codes are scanned for formats up to this many bits."""
_WIDEST_RANGE = 16
"""Formats up to this many bits are scanned over all magnitudes, wider ones over one octave."""

_mp: Any = mpmath.MPContext()
_mp.prec = 400


class Finding(NamedTuple):
    """What the scan of one operation found."""

    operation: str
    inputs: int
    nearest_tie: float
    """Distance of the nearest rounding boundary that was met, in code steps (of decode, in units in the last place);
    inf where the operation is exact."""
    rechecked: int
    """Near ties decided by mpmath."""
    misroundings: int
    first_wrong: str = ""

    @property
    def tie(self) -> str:
        """The nearest tie in words: "exact" where nothing is rounded, "ties" where some are met and go to even."""
        if math.isinf(self.nearest_tie):
            return "exact"
        return "ties" if self.nearest_tie == 0.0 else f"{self.nearest_tie:.1e}"


@dataclass(frozen=True)
class Certificate:
    """The findings for a format, and on what machine."""

    fmt: LNSFormat
    findings: list[Finding]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def misroundings(self) -> int:
        """Of all operations."""
        return sum(finding.misroundings for finding in self.findings)


class _Scan:
    """Counts of one operation, gathered chunk by chunk."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.inputs = self.rechecked = self.wrong = 0
        self.nearest = math.inf
        self.first = ""

    def add(self, count: int, tie: float, wrong: NDArray[np.bool_], describe: Callable[[int], str]) -> None:
        self.inputs += count
        self.nearest = min(self.nearest, tie)
        self.wrong += int(np.count_nonzero(wrong))
        if wrong.any() and not self.first:
            self.first = describe(int(np.argmax(wrong)))

    def finding(self) -> Finding:
        return Finding(self.operation, self.inputs, self.nearest, self.rechecked, self.wrong, self.first)


def _step_power(fmt: LNSFormat, log: int) -> tuple[int, int]:
    """base^(log / 2^F) as (significand of _PRECISION bits, exponent of its top bit)."""
    value = _mp.power(_mp.mpf(fmt.base), _mp.mpf(log) / (1 << fmt.fraction_bits))
    mantissa, exponent = int(value.man), int(value.exp)
    shift = _PRECISION - mantissa.bit_length()
    return (mantissa << shift if shift >= 0 else mantissa >> -shift), exponent + mantissa.bit_length() - 1


class _Powers(NamedTuple):
    """A stretch of base^((log + half) / 2^F): 64 leading bits, the 64 after them, exponent of the first bit."""

    logs: NDArray[np.int64]
    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    exponent: NDArray[np.int64]


def _powers(fmt: LNSFormat, logs: range, *, half: bool) -> Iterator[_Powers]:
    """By repeated multiplication with one step, in integers; begun afresh for each chunk, at most 2^20 steps long."""
    doubled = LNSFormat(32, fmt.fraction_bits + 1, base=fmt.base) if fmt.fraction_bits < 30 else None
    step, step_exponent = _step_power(fmt, 1)
    for start in range(logs.start, logs.stop, _CHUNK):
        count = min(_CHUNK, logs.stop - start)
        if half and doubled is not None:
            x, exponent = _step_power(doubled, 2 * start + 1)
        elif half:
            value = _mp.power(_mp.mpf(fmt.base), _mp.mpf(2 * start + 1) / (2 << fmt.fraction_bits))
            x = int(value.man) << 40
            x, exponent = x >> (x.bit_length() - _PRECISION), int(value.exp) + int(value.man).bit_length() - 1
        else:
            x, exponent = _step_power(fmt, start)
        high, low = np.empty(count, np.uint64), np.empty(count, np.uint64)
        exponents = np.empty(count, np.int64)
        for i in range(count):
            high[i], low[i], exponents[i] = x >> 96, (x >> 32) & 0xFFFFFFFFFFFFFFFF, exponent
            x *= step
            drop = x.bit_length() - _PRECISION
            exponent += drop - (_PRECISION - 1) + step_exponent
            x >>= drop
        yield _Powers(np.arange(start, start + count), high, low, exponents)


def _magnitude_range(fmt: LNSFormat) -> range:
    """The E that are scanned: all of the format, or one octave (2^F steps, from 1)."""
    if fmt.bits <= _WIDEST_RANGE:
        return range(-fmt.max_log, fmt.max_log + 1)
    return range(1 << fmt.fraction_bits)


def _range_in_words(fmt: LNSFormat, what: str) -> str:
    if fmt.bits <= _WIDEST_RANGE:
        return f"every {what}"
    return f"every {what} of one octave" if fmt.base == 2.0 else f"{what}s from 1 to the base, a sample"


def certify_encode_float32(fmt: LNSFormat) -> Finding:
    """Encode over all 2^23 mantissas of float32, from 1 to 2."""
    scan = _Scan("encode float32, all mantissas")
    steps = steps_in_two(fmt)[0]
    margin = max(1e-6, steps * 2.0**-44)
    for start in range(0, 1 << 23, _CHUNK):
        patterns = np.arange(start, start + _CHUNK, dtype=np.uint32) + np.uint32(0x3F800000)
        x = patterns.view(np.float32)
        codes = encode(x, fmt)
        position = np.log2(x.astype(np.float64)) * steps
        expected = np.clip(np.rint(position).astype(np.int64), None, fmt.max_log)
        distance = np.abs(np.abs(position - np.floor(position)) - 0.5)
        wrong = (codes.astype(np.int64) - fmt.bias) != expected
        for i in np.flatnonzero(distance < margin):
            scan.rechecked += 1
            wrong[i] = int(codes[i]) != reference.encode(float(x[i]), fmt)
        scan.add(x.size, float(distance.min()), wrong, lambda i, x=x: f"x={float(x[i]).hex()}")  # type: ignore[misc]
    return scan.finding()


def _encode_bound(fmt: LNSFormat) -> str:
    """How encode in nearest is decided."""
    if fmt.base == 2.0 and fmt.fraction_bits <= MOST_THRESHOLDS:
        return "by exact thresholds"
    bound = steps_in_two(fmt)[0] * LOG2_ERROR + fmt.max_log * 2.0**-50
    return f"error bound {bound:.1e} ulp, nearer ones by integers"


def certify_encode_float64(fmt: LNSFormat) -> Finding:
    """Encode at the float64 on both sides of every threshold."""
    scan = _Scan(f"encode float64, both neighbours of {_range_in_words(fmt, 'threshold')} ({_encode_bound(fmt)})")
    for part in _powers(fmt, _magnitude_range(fmt), half=True):
        fits = (part.exponent >= -1022) & (part.exponent <= 1023) & (part.logs < fmt.max_log)
        high, low, exponent, logs = (array[fits] for array in (part.high, part.low, part.exponent, part.logs))
        floor = (high >> np.uint64(11)) & np.uint64((1 << 52) - 1)
        below = ((exponent + 1023).astype(np.uint64) << np.uint64(52)) + floor
        codes_below, codes_above = (
            encode(below.view(np.float64), fmt),
            encode((below + np.uint64(1)).view(np.float64), fmt),
        )
        m = logs + fmt.bias
        wrong = (codes_below.astype(np.int64) != m) | (codes_above.astype(np.int64) != m + 1)
        # how far the threshold lies from the float64 below it, as a share of their distance
        share = ((high & np.uint64(0x7FF)).astype(np.float64) + low.astype(np.float64) * 2.0**-64) / 2048.0
        spacing = steps_in_two(fmt)[0] / math.log(2.0) * 2.0**-52
        near = np.minimum(share, 1.0 - share)
        for i in np.flatnonzero(near < 1e-6):
            scan.rechecked += 1
            pair = [int(codes[i]) for codes in (codes_below, codes_above)]
            floats = [float(bits.view(np.float64)) for bits in (below[i], below[i] + np.uint64(1))]
            wrong[i] = pair != [reference.encode(x, fmt) for x in floats]

        def describe(i: int, m: NDArray[Any] = m) -> str:
            return f"threshold above m={m[i]}"

        scan.add(2 * logs.size, float(near.min(initial=1.0)) * spacing, wrong, describe)
    return scan.finding()


def certify_decode(fmt: LNSFormat, dtype: str) -> Finding:
    """Decode of every scanned magnitude, against the recurrence rounded by integers."""
    scan = _Scan(f"decode {dtype}, {_range_in_words(fmt, 'magnitude')}")
    to = FLOAT_TYPES[dtype]
    for part in _powers(fmt, _magnitude_range(fmt), half=False):
        codes = (part.logs + fmt.bias).astype(fmt.dtype)
        found = decode(codes, fmt, dtype)
        patterns = found if dtype == "bfloat16" else found.view(to.pattern)
        normal = (part.exponent >= 1 - to.max_exponent) & (part.exponent < to.max_exponent)
        drop = np.uint64(64 - to.precision)
        kept = part.high >> drop
        rest = (part.high << np.uint64(to.precision)).astype(np.float64) * 2.0**-64 + part.low.astype(
            np.float64
        ) * 2.0 ** (to.precision - 128)
        rounded = kept + (rest > 0.5)
        biased = (part.exponent + to.max_exponent - 1).astype(np.uint64)
        expected = (biased << np.uint64(to.mantissa_bits)) + rounded
        wrong = normal & (patterns.astype(np.uint64) != expected)
        distance = np.where(normal, np.abs(rest - 0.5), 0.5)
        unsure = ~normal | (distance < 1e-9) | (rest < 1e-15) | (rest > 1 - 1e-15)
        for i in np.flatnonzero(unsure):
            scan.rechecked += 1
            wrong[i] = int(patterns[i]) != reference.decode(int(codes[i]), fmt, dtype)  # type: ignore[arg-type]
        scan.add(codes.size, float(distance.min()), wrong, lambda i, m=codes: f"code={m[i]}")  # type: ignore[misc]
    return scan.finding()


def _exact_position(z: int, fmt: LNSFormat, subtracted: bool) -> Any:
    """sb(z) or db(z) in code steps, by mpmath."""
    log_step = _mp.log(_mp.mpf(fmt.base)) / (1 << fmt.fraction_bits)
    ratio = _mp.exp(-z * log_step)
    return _mp.log(1 - ratio if subtracted else 1 + ratio) / log_step


def _position(z: NDArray[np.int64], fmt: LNSFormat, subtracted: bool) -> NDArray[np.float64]:
    """The same in float64, by NumPy."""
    steps = steps_in_two(fmt)[0]
    u = -math.log(2.0) * (z / steps)
    with np.errstate(divide="ignore"):
        logs = np.log(-np.expm1(u)) if subtracted else np.log1p(np.exp(u))
    return np.asarray(logs * (steps / math.log(2.0)))


def _chunks(stop: int, start: int = 0) -> Iterator[NDArray[np.int64]]:
    for first in range(start, stop, _CHUNK):
        yield np.arange(first, min(first + _CHUNK, stop), dtype=np.int64)


def certify_gaussian(fmt: LNSFormat, *, subtracted: bool) -> Finding:
    """sb or db over every z from which anything comes, in nearest.

    By `add` and `subtract`, with hi at the two greatest magnitudes, one even and one odd, where the range of a format
    wider than those whose pairs are scanned holds all results; else by the function behind the tables, at hi = 0.
    """
    operation = arithmetic.subtract if subtracted else arithmetic.add
    steps = steps_in_two(fmt)[0]
    top = math.ceil(steps) + 2  # room for the sum
    deepest = steps * (max(math.log2(steps), 0.0) + 2.0)  # beyond -db(1)
    direct = fmt.bits > _WIDEST_PAIRS and max(last_step(fmt), deepest) + top < 2 * fmt.max_log
    name = "db(z), every z" if subtracted else "sb(z), every z"
    scan = _Scan(f"{name}, by {operation.__name__} of two greater operands" if direct else name)
    for z in _chunks(last_step(fmt) + 1, 1 if subtracted else 0):
        position = _position(z, fmt, subtracted)
        expected = np.rint(position).astype(np.int64)
        distance = np.abs(np.abs(position - np.floor(position)) - 0.5)
        for i in np.flatnonzero(distance < 1e-6 + steps * 2.0**-44 + np.abs(position) * 2.0**-46):
            scan.rechecked += 1
            true = _exact_position(int(z[i]), fmt, subtracted)
            floor = int(_mp.floor(true))
            distance[i] = float(abs(true - floor - 0.5))
            is_tie = abs(true - floor - 0.5) < _mp.mpf(2) ** -300
            if is_tie and direct:
                raise ValueError(f"{fmt.name} has ties at z={z[i]}: its sums cannot be scanned by z alone")
            expected[i] = floor + (floor & 1) if is_tie else int(_mp.floor(true + 0.5))
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
    scan = _Scan(f"{name}, every magnitude")
    for m in _chunks(fmt.max_magnitude + 1, 1):
        log = m - fmt.bias
        found, _ = getattr(arithmetic, name)(m.astype(fmt.dtype), fmt)
        half_even = (log >> 1) + (log & (log >> 1) & 1)
        expected = half_even if name == "sqrt" else np.minimum(-log, fmt.max_log)
        wrong = found.astype(np.int64) - fmt.bias != expected
        scan.add(m.size, 0.0 if name == "sqrt" else math.inf, wrong, lambda i, m=m: f"code={m[i]}")  # type: ignore[misc]
    return scan.finding()


def certify_pairs(fmt: LNSFormat, name: str) -> Finding:
    """One binary operation over all pairs of codes."""
    scan = _Scan(f"{name}, all pairs")
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
        table = [_position(np.arange(2 * fmt.max_log + 2), fmt, which) for which in (False, True)]
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


def environment() -> dict[str, str]:
    """What the scan ran on."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "lnsnum": lnsnum.__version__,
        "processor": f"{processor} ({llvm.get_host_cpu_name()})",
        "libm": " ".join(platform.libc_ver()) or platform.system(),
        "LLVM": ".".join(map(str, llvm.llvm_version_info)),
        "Numba": numba.__version__,
        "NumPy": np.__version__,
        "mpmath": mpmath.__version__,
        "Python": platform.python_version(),
    }


def scans(fmt: LNSFormat) -> list[tuple[str, Callable[[], Finding]]]:
    """The scans that a certificate of the format is made of: names and functions, the quick ones first."""
    steps: list[tuple[str, Callable[[], Finding]]] = [
        ("sqrt", lambda: certify_unary(fmt, "sqrt")),
        ("reciprocal", lambda: certify_unary(fmt, "reciprocal")),
        ("encode float32", lambda: certify_encode_float32(fmt)),
        ("encode float64", lambda: certify_encode_float64(fmt)),
    ]
    for dtype in FLOAT_TYPES:
        steps.append((f"decode {dtype}", lambda dtype=dtype: certify_decode(fmt, dtype)))  # type: ignore[misc]
    for subtracted in (False, True):
        steps.append(("db" if subtracted else "sb", lambda which=subtracted: certify_gaussian(fmt, subtracted=which)))  # type: ignore[misc]
    if fmt.bits <= _WIDEST_PAIRS:
        for name in ("add", "subtract", "multiply", "divide"):
            steps.append((name, lambda name=name: certify_pairs(fmt, name)))  # type: ignore[misc]
    return steps


def certify(fmt: LNSFormat, progress: Callable[[str], None] = lambda name: None) -> Certificate:
    """Scan a format: minutes for 32 bits, seconds for 8.

    Args:
        fmt: any format.
        progress: called with the name of each scan before it begins.

    >>> from lnsnum import lns4f1
    >>> certify(lns4f1).misroundings
    0
    """
    start = time.perf_counter()
    findings = []
    for name, scan in scans(fmt):
        progress(name)
        findings.append(scan())
    return Certificate(fmt, findings, time.perf_counter() - start, environment())


EDGES = (0.5, 1.0, 2.0, 4.0, math.inf)
"""Upper ends of the bins of a histogram of errors, in code steps."""


class Judgement(NamedTuple):
    """How near an approximate sb or db comes to the exact one, over every z that two codes of one scale have.

    Of formats wider than 16 bits, up to the last z from which anything comes of the exact one.
    """

    function: str
    inputs: int
    histogram: tuple[int, ...]
    """How many z have an error up to each of `EDGES`, in code steps."""
    worst_z: int
    worst_error: float
    monotone: bool
    """sb never rises, and db never falls, as z grows."""
    faithful: bool
    """Always one of the two codes around the exact value."""
    correctly_rounded: bool

    @property
    def rounding(self) -> str:
        """The best that can be said of it."""
        return "correctly rounded" if self.correctly_rounded else "faithful" if self.faithful else "neither"


def judge(gaussian: GaussianLog, fmt: LNSFormat) -> list[Judgement]:
    """Hold a Gaussian logarithm against the exact one, z by z.

    >>> from lnsnum import lns8f3
    >>> from lnsnum.gaussian import Mitchell
    >>> [(j.function, j.faithful, round(j.worst_error, 2)) for j in judge(Mitchell(), lns8f3)]
    [('sb', False, 1.02), ('db', False, 3.27)]
    """
    check_gaussian(gaussian)
    judgements = []
    for subtracted in (False, True):
        counts = np.zeros(len(EDGES), np.int64)
        worst_z, worst, inputs = 0, -1.0, 0
        monotone = faithful = correct = True
        before: int | None = None
        last = 2 * fmt.max_log if fmt.bits <= _WIDEST_RANGE else last_step(fmt)
        for z in _chunks(last + 1, 1 if subtracted else 0):
            found = evaluate(gaussian, z, fmt, subtracted)
            nearest = evaluate(Exact(), z, fmt, subtracted)
            position = _position(z, fmt, subtracted)
            error = np.abs(found - position)
            error = np.where(found == nearest, np.minimum(error, 0.5), error)
            correct = correct and bool(np.array_equal(found, nearest))
            faithful = faithful and bool(np.all((error < 1.0) | (found == nearest)))
            counts += np.histogram(error, np.array([-1.0, *EDGES]) + 1e-12)[0]
            at = int(np.argmax(error))
            if error[at] > worst:
                worst_z, worst = int(z[at]), float(error[at])
            joined = found if before is None else np.concatenate([[before], found])
            difference = np.diff(joined)
            monotone = monotone and bool(np.all(difference >= 0) if subtracted else np.all(difference <= 0))
            before, inputs = int(found[-1]), inputs + z.size
        name = "db" if subtracted else "sb"
        judgements.append(
            Judgement(name, inputs, tuple(int(c) for c in counts), worst_z, worst, monotone, faithful, correct)
        )
    return judgements


def markdown(certificate: Certificate) -> str:
    """The certificate as a section of a Markdown page."""
    lines = [
        f"## {certificate.fmt.name}",
        "",
        "| operation | inputs scanned | nearest tie | near ties re-checked | misroundings |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for finding in certificate.findings:
        wrong = f"{finding.misroundings}" + (f" ({finding.first_wrong})" if finding.first_wrong else "")
        lines.append(f"| {finding.operation} | {finding.inputs:,} | {finding.tie} | {finding.rechecked:,} | {wrong} |")
    machine = ", ".join(f"{name} {value}" for name, value in certificate.environment.items())
    lines += ["", f"{certificate.misroundings} misroundings. {certificate.seconds:.0f} s; {machine}."]
    return "\n".join(lines)


def judgement_markdown(name: str, judgements: list[Judgement]) -> str:
    """Rows of the table whose head is `JUDGEMENT_HEAD`."""
    rows = []
    for j in judgements:
        histogram = " / ".join(f"{count:,}" for count in j.histogram)
        monotone = "yes" if j.monotone else "no"
        worst = f"{j.worst_error:.3f} at z={j.worst_z}"
        rows.append(f"| {name} | {j.function} | {histogram} | {worst} | {monotone} | {j.rounding} |")
    return "\n".join(rows)


_ENDS = " / ".join(f"{end:g}" for end in EDGES[:-1])
JUDGEMENT_HEAD = f"""| Gaussian logarithm | | z with an error up to {_ENDS} / more ulp | worst | monotone | rounding |
| --- | --- | --- | --- | --- | --- |"""
