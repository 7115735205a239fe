"""The law suite on arithmetic and quantizers that others have written: a table of docs/comparison.md.

    python -m benchmarks.laws_of_others [--xlnscpp PATH] [--universal PATH]        (needs the extra `bench`)

The paths are copies of github.com/xlnsresearch/xlnscpp and github.com/stillwater-sc/universal, which are compiled here
through a shim of a few lines, with c++. The codes of all of them are those of lnsnum but for a bit, so that the suite
asks them in codes. What a library does not have (NaN, an end of its range) is not asked for. The error is the least
power of two that holds, in code steps; the laws are tried with what is claimed, or with that.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.performance.cases import UnavailableError
from benchmarks.performance.rivals import load, load_xlnstorch, xlns_array
from lnsnum import LNSFormat
from lnsnum.testing.c_functions import c_library
from lnsnum.testing.kinds import KINDS, check_laws
from lnsnum.testing.laws import OPERATIONS
from lnsnum.testing.report import LawReport, LawViolation

NAN, ENDS = "nan", ("saturation", "underflow")


@dataclass(frozen=True)
class Subject:
    """What is tried.

    Args:
        name: of the implementation and its variant.
        make: gives the implementation, or raises UnavailableError.
        fmt: the format; None for quantizers.
        without: laws of what it does not have, or does otherwise by design.
        claimed: the error that it claims, in code steps; None where it names none.
    """

    name: str
    make: Callable[[], Any]
    fmt: str | None = None
    without: tuple[str, ...] = ()
    claimed: float | None = None


# ---------------------------------------------------------------------------------------------------- xlns, xlnstorch


def code_of(log: NDArray[Any], negative: NDArray[Any], zero: NDArray[Any], fmt: LNSFormat) -> NDArray[Any]:
    """Codes; what is beyond the ends of the format, which integers have not, is at them."""
    m = np.clip(np.where(zero, 0, log), -fmt.max_log, fmt.max_log).astype(np.int64) + fmt.bias
    return np.where(zero, 0, m + fmt.sign_bit * negative.astype(np.int64)).astype(fmt.dtype)


def keeping_nan(compute: Callable[..., NDArray[Any]], fmt: LNSFormat) -> Callable[..., NDArray[Any]]:
    """With NaN as lnsnum has it: nobody asks for it, but the suite's inputs have it."""

    def operation(a: NDArray[Any], b: NDArray[Any], *more: Any) -> NDArray[Any]:
        nan = (a == fmt.nan_code) | (b == fmt.nan_code)
        one = np.asarray(fmt.bias, fmt.dtype)
        out = compute(np.where(nan, one, a), np.where(nan, one, b), *more)
        return np.where(nan, fmt.nan_code, out).astype(fmt.dtype)

    return operation


def xlns(name: str) -> dict[str, Any]:
    """The arrays of xlns: 2 E + sign in 64 bits, and the least integer for zero."""
    fmt = LNSFormat.parse(name)
    symbols = {"add": "__add__", "subtract": "__sub__", "multiply": "__mul__", "divide": "__truediv__"}

    def operation(symbol: str) -> Callable[..., NDArray[Any]]:
        def compute(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
            # of a quotient by zero nothing is asked but NaN, which it has not
            by_zero = (b == 0) & (symbol == "__truediv__")
            x, y = xlns_array(a, fmt), xlns_array(np.where(by_zero, fmt.bias, b).astype(fmt.dtype), fmt)
            words = getattr(x, symbol)(y).nd
            out = code_of(words >> 1, words & 1, words < -(1 << 40), fmt)
            return np.where(by_zero, fmt.nan_code, out).astype(fmt.dtype)

        return keeping_nan(compute, fmt)

    return {operation_name: operation(symbol) for operation_name, symbol in symbols.items()}


def xlnstorch(name: str) -> dict[str, Any]:
    """The operators of xlnstorch, on the integers of xlns as float64; in Python, where its C++ part is not built."""
    import torch

    fmt = LNSFormat.parse(name)
    try:
        module = load_xlnstorch()
    except UnavailableError:
        module = load("xlnstorch")
    operations = {"add": torch.add, "subtract": torch.sub, "multiply": torch.mul, "divide": torch.div}

    def tensor(codes: NDArray[Any]) -> Any:
        m = codes.astype(np.int64) & fmt.max_magnitude
        words = np.where(m == 0, float(module.LNS_ZERO), 2 * (m - fmt.bias) + (codes > fmt.max_magnitude))
        return module.lnstensor(torch.from_numpy(words.astype(np.float64)), from_lns=True, f=fmt.fraction_bits)

    def operation(function: Callable[..., Any]) -> Callable[..., NDArray[Any]]:
        def compute(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
            by_zero = (b == 0) & (function is torch.div)
            y = np.where(by_zero, fmt.bias, b).astype(fmt.dtype)
            words = function(tensor(a), tensor(y))._lns.numpy().astype(np.int64)
            out = code_of(words >> 1, words & 1, words < -(1 << 40), fmt)
            return np.where(by_zero, fmt.nan_code, out).astype(fmt.dtype)

        return keeping_nan(compute, fmt)

    return {operation_name: operation(function) for operation_name, function in operations.items()}


# ------------------------------------------------------------------------------------------------ libraries of C++

LOOP = """
#define OPERATION(name, expression) \\
    extern "C" void name(const uint32_t *a, const uint32_t *b, uint32_t *out, size_t n) { \\
        for (size_t i = 0; i < n; i++) { N x = number(a[i]), y = number(b[i]); out[i] = code(expression); } \\
    }
"""

XLNSCPP = """
#include <cstddef>
#include <cstdint>
#include <sys/types.h>
#include "xlns{bits}.cpp"
typedef xlns{bits} N;
static N number(uint32_t c) {{ return c; }}
/* it has no NaN: this word is its zero with a sign */
static uint32_t code(N x) {{ return x == xlns{bits}_signmask ? 0 : x; }}
{loop}
OPERATION(add, xlns{bits}_add(x, y))
OPERATION(subtract, xlns{bits}_sub(x, y))
OPERATION(multiply, xlns{bits}_mul(x, y))
OPERATION(divide, y & xlns{bits}_logmask ? xlns{bits}_div(x, y) : xlns{bits}_signmask)
"""

UNIVERSAL = """
#include <cstddef>
#include <cstdint>
#include <universal/number/lns/lns.hpp>
using namespace sw::universal;
typedef lns<{bits}, {fraction}, {word}> N;
{traits}
/* its exponent is a two's complement: the upper bit is the other one */
static N number(uint32_t c) {{ N x; x.setbits(c ^ (1u << ({bits} - 2))); return x; }}
static uint32_t code(const N &x) {{
    uint32_t c = 0;
    for (unsigned i = 0; i < {bits}; i++) c |= uint32_t(x.at(i)) << i;
    return c ^ (1u << ({bits} - 2));
}}
{loop}
OPERATION(add, x + y)
OPERATION(subtract, x - y)
OPERATION(multiply, x * y)
OPERATION(divide, x / y)
"""


def compiled(text: str, include: Path, *macros: str) -> dict[str, Any]:
    """The functions of a shim, compiled beside the library's own files."""
    folder = Path(tempfile.mkdtemp(prefix="laws_of_others-"))
    (folder / "shim.cpp").write_text(text)
    words = ["c++", "-std=c++20", "-O1", "-w", "-shared", "-fPIC", *(f"-D{macro}" for macro in macros)]
    done = subprocess.run(
        [*words, "-I", str(include), "-o", str(folder / "shim.so"), str(folder / "shim.cpp")],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UnavailableError(f"it does not compile: {done.stderr.strip().splitlines()[0]}")
    return dict(c_library(folder / "shim.so", tuple(OPERATIONS)))


def xlnscpp(path: Path) -> Iterator[Subject]:
    """Both formats. It has no NaN, and flushes what is below its smallest; only `alt` looks at overflow."""
    for bits, name in ((16, "lns16f7"), (32, "lns32f23")):
        variants: list[tuple[str, ...]] = [("ideal", "alt"), ()]
        if bits == 16:
            variants += [("ideal",), ("alt", "table")]
        for macros in variants:
            text = XLNSCPP.format(bits=bits, loop=LOOP)
            make = partial(compiled, text, path, *(f"xlns{bits}_{macro}" for macro in macros))
            yield Subject(f"xlnscpp, {', '.join(macros) or 'default'}", make, name, (NAN, "underflow"))


def universal(path: Path) -> Iterator[Subject]:
    """Two formats, and ways to add: through double, its default, and others. It flushes what is below its smallest."""
    claims = {"DoubleTripAddSub": 2.0, "DirectEvaluationAddSub": None, "ArnoldCotransformationAddSub": 1.0}
    for bits, fraction, word in ((8, 3, "std::uint8_t"), (16, 10, "std::uint16_t")):
        for policy, claimed in claims.items():
            traits = f"template<> struct sw::universal::lns_addsub_traits<N> {{ using type = {policy}<N>; }};"
            traits = "" if policy == "DoubleTripAddSub" else traits
            text = UNIVERSAL.format(bits=bits, fraction=fraction, word=word, traits=traits, loop=LOOP)
            make = partial(compiled, text, path / "include" / "sw")
            yield Subject(f"Universal, {policy}", make, f"lns{bits}f{fraction}", ("underflow",), claimed)


# ------------------------------------------------------------------------------------------------------- quantizers


def casts() -> Iterator[Subject]:
    """float32 to eight bits and back."""
    import ml_dtypes
    import torch

    def of_ml_dtypes(name: str) -> Callable[[], Any]:
        kind = np.dtype(getattr(ml_dtypes, name))
        return lambda: lambda x: x.astype(kind).astype(np.float32)

    def of_torch(name: str) -> Callable[[], Any]:
        kind = getattr(torch, name)
        return lambda: lambda x: torch.from_numpy(x).to(kind).float().numpy()

    names = [name for name in vars(ml_dtypes) if name.startswith(("float8_", "float6_", "float4_"))]
    powers_alone = ("zero", "sign_symmetry")  # float8_e8m0fnu is an exponent: it has no zero and no sign
    for name in sorted(names):
        yield Subject(f"ml_dtypes {name}", of_ml_dtypes(name), None, powers_alone if "e8m0" in name else ())
    for name in sorted(name for name in vars(torch) if name.startswith("float8_")):
        yield Subject(f"torch {name}", of_torch(name), None, powers_alone if "e8m0" in name else ())


# -------------------------------------------------------------------------------------------------------- the table


def tried(subject: Subject, implementation: Any, **options: Any) -> LawReport:
    """The report, whether laws are broken or not."""
    kind = "quantizers" if subject.fmt is None else "arithmetic"
    laws = options.pop("laws", [law for law in KINDS[kind].laws if law not in subject.without])
    try:
        with np.errstate(all="ignore"):
            return check_laws(implementation, subject.fmt, kind=kind, laws=laws, **options)
    except LawViolation as violation:
        return violation.report


def least_error(subject: Subject, implementation: Any) -> float | None:
    """The least power of two up to 64 that the results keep to, in code steps."""
    for ulp in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0):
        if not tried(subject, implementation, laws=["error_bound"], max_ulp=ulp).violations:
            return ulp
    return None


def rows(subject: Subject) -> Iterator[tuple[str, ...]]:
    """What breaks, a row for each law with its first operation, after one for all that hold."""
    who = subject.name, subject.fmt or "float32"
    try:
        implementation = subject.make()
    except UnavailableError as missing:
        yield *who, "", "", "", "", str(missing), ""
        return
    options: dict[str, Any] = {}
    error = ""
    if subject.fmt is not None:
        found = least_error(subject, implementation)
        error = "above 64" if found is None else f"{found:g}"
        error += "" if subject.claimed is None else f" (claims {subject.claimed:g})"
        options["max_ulp"] = subject.claimed or found or 0.5
    report = tried(subject, implementation, **options)
    broken = {violation.law: violation for violation in reversed(report.violations)}
    held = [law for law in report.laws if law not in broken]
    if held:
        words = f"{len(held)} hold" if broken else f"all {len(held)} hold"
        yield *who, error, words, "", f"{report.inputs:,}", "; ".join(report.notes), ""
    for law in (law for law in report.laws if law in broken):
        results = [result for result in report.results if result.law == law and result.violation is not None]
        line = broken[law].line.partition(": ")[2]
        example, _, expected = line.partition("; expected ")
        operations = ", ".join(result.operation for result in results)
        yield *who, error, law, operations, f"{results[0].inputs:,}", example, expected


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--xlnscpp", type=Path, help="a copy of xlnsresearch/xlnscpp")
    parser.add_argument("--universal", type=Path, help="a copy of stillwater-sc/universal")
    given = parser.parse_args()
    subjects = [
        Subject(name, partial(make, fmt), fmt, (NAN, *ENDS), 0.5)
        for name, make in (("xlns", xlns), ("xlnstorch", xlnstorch))
        for fmt in ("lns8f3", "lns16f10")
    ]
    if given.xlnscpp:
        subjects += xlnscpp(given.xlnscpp)
    if given.universal:
        subjects += universal(given.universal)
    subjects += casts()
    print("| implementation | format | error in ulp | law | broken by | inputs | smallest example | expected |")
    print("| --- | --- | ---: | --- | --- | ---: | --- | --- |")
    for subject in subjects:
        for row in rows(subject):
            print(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |", flush=True)


if __name__ == "__main__":
    main()
