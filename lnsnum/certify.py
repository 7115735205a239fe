"""Proofs by exhaustion: scan what a claim of correct rounding needs, with the kernels that ship, and count.

    certificate  =  for each operation: inputs scanned, nearest tie, near ties re-checked by mpmath, misroundings

Each result of a kernel is held against the same position computed another way: by NumPy's functions in float64, by
integer recurrences of 160 bits, or by integers alone. Where that position is nearer to a rounding boundary than its own
error could reach, mpmath decides. A finite scan stands for all inputs by the structure of the operation: at base 2,
encode and decode repeat from octave to octave; a sum depends on z, one sign, and an integer; a product is an integer.

`judge` holds an approximate Gaussian logarithm against the exact one over the whole domain.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import llvmlite.binding as llvm
import mpmath
import numba
import numpy as np

import lnsnum
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import FLOAT_TYPES
from lnsnum.proofs.conversions import certify_decode, certify_encode_float32, certify_encode_float64
from lnsnum.proofs.judgement import EDGES, JUDGEMENT_HEAD, Judgement, judge, judgement_markdown
from lnsnum.proofs.operations import WIDEST_PAIRS, certify_gaussian, certify_pairs, certify_unary
from lnsnum.proofs.scanning import Finding

__all__ = [
    "EDGES",
    "JUDGEMENT_HEAD",
    "Certificate",
    "Finding",
    "Judgement",
    "certify",
    "environment",
    "judge",
    "judgement_markdown",
    "markdown",
    "scans",
]


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
    if fmt.bits <= WIDEST_PAIRS:
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
