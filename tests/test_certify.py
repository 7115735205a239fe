"""Certificates: no misrounding in what ships, every seeded fault counted and named, judgements by brute force."""

import functools
import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
from command_line import run_command

from lnsnum import LNSFormat, arithmetic, lns4f1, lns6f2, lns8f3
from lnsnum import certify as proofs
from lnsnum.gaussian import Cotransformation, Exact, FromFunctions, LinearInterpolation, Mitchell, last_step
from lnsnum.proofs import conversions

_mp = mpmath.MPContext()
_mp.prec = 200

PRESETS = [lns4f1, lns6f2, lns8f3]
OTHERS = [
    *(LNSFormat(5, 0, base=4.0), LNSFormat(6, 1, base=4.0), LNSFormat(6, 1, base=16.0), LNSFormat(5, 0, base=1.5)),
    *(LNSFormat(6, 1, base=1.7), LNSFormat(3, 0), LNSFormat(5, 1, base=1e300), LNSFormat(12, 10), LNSFormat(20, 4)),
]
"""With ties and half the smallest met exactly (base 4, 16, 3/2), without, and no pairs (12 and 20 bits)."""


def counts(fmt):
    """How many inputs each scan must have."""
    magnitudes = fmt.max_magnitude if fmt.bits <= 16 else 1 << fmt.fraction_bits
    thresholds = fmt.max_magnitude - 1 if fmt.bits <= 16 else 1 << fmt.fraction_bits
    expected = {"sqrt": fmt.max_magnitude, "reciprocal": fmt.max_magnitude, "encode float32": 1 << 23,
                "encode float64": 2 * thresholds, "sb(z)": last_step(fmt) + 1, "db(z)": last_step(fmt)}  # fmt: skip
    expected |= {f"decode {dtype}": magnitudes for dtype in ("float64", "float32", "float16", "bfloat16")}
    if fmt.bits <= 10:
        expected |= {f"{name}, all pairs": 4**fmt.bits for name in ("add", "subtract", "multiply", "divide")}
    return expected


@pytest.mark.parametrize("fmt", [*PRESETS, *OTHERS], ids=str)
def test_nothing_is_misrounded(fmt):
    names = []
    certificate = proofs.certify(fmt, names.append)
    assert certificate.misroundings == 0
    assert [finding.first_wrong for finding in certificate.findings] == [""] * len(names)
    expected = counts(fmt)
    assert len(names) == len(certificate.findings) == len(expected)
    for finding in certificate.findings:
        (inputs,) = (n for name, n in expected.items() if finding.operation.startswith(name))
        if fmt.base < 1e9:  # else not every threshold is a float64
            twice = 2 if "two greater" in finding.operation else 1
            assert finding.inputs == twice * inputs, finding.operation
        exact = finding.operation.startswith(("reciprocal", "multiply", "divide"))
        assert (finding.tie == "exact") == exact
    assert certificate.seconds > 0
    assert {"lnsnum", "processor", "libm", "LLVM", "Numba", "NumPy", "mpmath", "Python"} == set(certificate.environment)


def test_ties_are_met_at_base_4():
    findings = {finding.operation: finding for finding in proofs.certify(LNSFormat(5, 0, base=4.0)).findings}
    assert findings["sb(z), every z"].tie == findings["add, all pairs"].tie == "ties"
    assert findings["db(z), every z"].nearest_tie > 0


# --------------------------------------------------------------------------------------------- seeded faults


def off_at(results, at):
    """The same with the place of `at` one off: the least integer of a code or a bit pattern."""
    wrong = np.array(results)
    flat = wrong.view(f"u{wrong.dtype.itemsize}") if wrong.dtype.kind == "f" else wrong
    flat[at] ^= 1
    return wrong


def scan(fmt, name):
    return dict(proofs.scans(fmt))[name]()


@pytest.mark.parametrize("fmt", [lns6f2, LNSFormat(6, 1, base=4.0)], ids=str)
@pytest.mark.parametrize("x", [1.0, 1.2345, float(np.nextafter(np.float32(2.0), np.float32(0.0)))])
def test_one_wrong_code_of_encode_float32(fmt, x, monkeypatch):
    encode, wanted = conversions.encode, np.float32(x)
    monkeypatch.setattr(
        conversions, "encode", lambda values, *rest: off_at(encode(values, *rest), np.flatnonzero(values == wanted))
    )
    finding = scan(fmt, "encode float32")
    assert (finding.misroundings, finding.inputs) == (1, 1 << 23)
    assert finding.first_wrong == f"x={float(wanted).hex()}"


@pytest.mark.parametrize("fmt", [lns6f2, LNSFormat(6, 1, base=4.0), LNSFormat(6, 1, base=1.7)], ids=str)
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("i", [0, 7, 29])
def test_one_wrong_code_of_encode_float64(fmt, upper, i, monkeypatch):
    """The float on either side of one threshold."""
    encode, calls = conversions.encode, []

    def wrong(values, *rest):
        calls.append(values)
        codes = encode(values, *rest)
        return off_at(codes, i) if len(calls) == 1 + upper else codes

    monkeypatch.setattr(conversions, "encode", wrong)
    finding = scan(fmt, "encode float64")
    assert finding.misroundings == 1
    assert finding.first_wrong == f"threshold above m={i + 1}"


def test_thresholds_of_the_wrong_formats_are_found(monkeypatch):
    """A neighbour of the base, or one fraction bit more: thousands of wrong codes."""
    encode = conversions.encode
    near = LNSFormat(8, 3, base=math.nextafter(2.0, 3.0))
    monkeypatch.setattr(conversions, "encode", lambda values, fmt: encode(values, near))
    assert scan(lns8f3, "encode float64").misroundings > 50


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("code", [1, 17, 31])
def test_one_wrong_float_of_decode(dtype, code, monkeypatch):
    decode = conversions.decode
    monkeypatch.setattr(
        conversions, "decode", lambda codes, *rest: off_at(decode(codes, *rest), np.flatnonzero(codes == code))
    )
    for fmt in (lns6f2, LNSFormat(6, 0, base=1.7), LNSFormat(6, 0, base=64.0)):  # the last among subnormals, and beyond
        finding = scan(fmt, f"decode {dtype}")
        assert (finding.misroundings, finding.first_wrong) == (1, f"code={code}")


@pytest.mark.parametrize("name", ["sb", "db"])
@pytest.mark.parametrize("z", [1, 4, 5, 17])
def test_one_wrong_step(name, z, monkeypatch):
    right = getattr(Exact, name)
    monkeypatch.setattr(Exact, name, lambda self, zs, fmt: right(self, zs, fmt) + (zs == z))
    for fmt in (lns6f2, LNSFormat(6, 3, base=4.0)):
        finding = scan(fmt, name)
        assert (finding.misroundings, finding.first_wrong) == (1, f"z={z}")


PAIRS = [
    (20, 20),
    (3, 3 | 32),
    (1, 1),
    (31, 31),
    (0, 5),
    (5, 0),
    (32, 7),
    (7, 32),
    (0, 0),
    (32, 32),
    (63, 63),
    (16, 18),
]


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide"])
def test_one_wrong_code_of_a_pair(name, monkeypatch):
    right = getattr(arithmetic, name)
    for a, b in PAIRS:
        for fmt in (lns6f2, LNSFormat(6, 1, base=4.0)):

            def wrong(x, y, fmt, at=(a, b)):
                codes, offset = right(x, y, fmt)
                return off_at(codes, np.flatnonzero((x == at[0]) & (y == at[1]))), offset

            monkeypatch.setattr(arithmetic, name, wrong)
            finding = scan(fmt, name)
            assert (finding.misroundings, finding.first_wrong) == (1, f"{name}({a}, {b})")


@pytest.mark.parametrize("name", ["sqrt", "reciprocal"])
@pytest.mark.parametrize("code", [1, 2, 16, 31])
def test_one_wrong_root(name, code, monkeypatch):
    right = getattr(arithmetic, name)
    monkeypatch.setattr(arithmetic, name, lambda m, fmt: (off_at(right(m, fmt)[0], np.flatnonzero(m == code)), 0))
    finding = scan(lns6f2, name)
    assert (finding.misroundings, finding.first_wrong) == (1, f"code={code}")


def test_many_faults_are_counted_and_the_first_is_named(monkeypatch):
    monkeypatch.setattr(Exact, "sb", lambda self, z, fmt: np.zeros_like(z))
    true = [_mp.log(1 + _mp.mpf(2) ** (-_mp.mpf(z) / 4), 2) * 4 for z in range(last_step(lns6f2) + 1)]
    certificate = proofs.certify(lns6f2)
    assert certificate.misroundings == sum(x > 0.5 for x in true)
    text = proofs.markdown(certificate)
    assert f"| {certificate.misroundings} (z=0) |" in text
    assert f"{certificate.misroundings} misroundings." in text


# ------------------------------------------------------------------------------------------------- judgements


def judged(gaussian, fmt, subtracted):
    """A Judgement, z by z."""
    errors, steps, exact = [], [], []
    scale = _mp.log(2) / _mp.log(_mp.mpf(fmt.base)) * (1 << fmt.fraction_bits)
    for z in range(int(subtracted), 2 * fmt.max_log + 1):
        ratio = _mp.power(2, -z / scale)
        true = scale * _mp.log(1 - ratio if subtracted else 1 + ratio, 2)
        step = int((gaussian.db if subtracted else gaussian.sb)(np.array([z]), fmt)[0])
        errors.append(abs(step - true))
        steps.append(step)
        exact.append(true)
    is_nearest = [error <= 0.5 for error in errors]
    on_grid = [abs(x - _mp.nint(x)) < _mp.mpf(2) ** -150 for x in exact]
    histogram = [0] * len(proofs.EDGES)
    for error in errors:
        histogram[next(i for i, end in enumerate(proofs.EDGES) if error <= end)] += 1
    worst = max(range(len(errors)), key=lambda i: errors[i])
    rising = all(b >= a if subtracted else b <= a for a, b in itertools.pairwise(steps))
    faithful = all(e < 1 and (not grid or e < 0.5) for e, grid in zip(errors, on_grid, strict=True))
    return len(errors), tuple(histogram), worst + subtracted, float(errors[worst]), rising, faithful, all(is_nearest)


JUDGED = {
    "exact": Exact(),
    "mitchell": Mitchell(),
    "three lines": LinearInterpolation(3),
    "twelve lines": LinearInterpolation(12, table_octaves=0.3),
    "cotransformation": Cotransformation(),
    "one guard bit": Cotransformation(1),
    "not monotone": FromFunctions(lambda z, f: 8 - z % 5, lambda z, f: -(z % 7)),
    "constant": FromFunctions(lambda z, f: 9, lambda z, f: -60),
}


@pytest.mark.parametrize("kind", JUDGED)
@pytest.mark.parametrize("fmt", [lns8f3, LNSFormat(8, 4, base=1.7)], ids=str)
def test_judgements_by_brute_force(kind, fmt):
    both = proofs.judge(JUDGED[kind], fmt)
    assert [j.function for j in both] == ["sb", "db"]
    for j, subtracted in zip(both, (False, True), strict=True):
        inputs, histogram, z, error, monotone, faithful, correct = judged(JUDGED[kind], fmt, subtracted)
        assert (j.inputs, j.histogram, j.worst_z) == (inputs, histogram, z)
        assert j.worst_error == pytest.approx(error, abs=1e-9)
        assert (j.monotone, j.faithful, j.correctly_rounded) == (monotone, faithful, correct)
        best = "correctly rounded" if correct else "faithful" if faithful else "neither"
        assert j.rounding == best
        row = proofs.judgement_markdown(kind, both).splitlines()[subtracted]
        assert row.endswith(f"at z={z} | {'yes' if monotone else 'no'} | {best} |")
        assert row.count("|") == proofs.JUDGEMENT_HEAD.splitlines()[0].count("|")


@dataclass(frozen=True)
class OffOnTheGrid:
    """Exact, but for one step where the exact value is a code: 1 + 1 = 2 and 1 - 1/2 = 1/2."""

    by: int

    def sb(self, z, fmt):
        return Exact().sb(z, fmt) + np.where(z == 0, self.by, 0)

    def db(self, z, fmt):
        return Exact().db(z, fmt) + np.where(z == 1 << fmt.fraction_bits, self.by, 0)


@pytest.mark.parametrize("fraction_bits", [0, 3, 6, 10])
@pytest.mark.parametrize("by", [-1, 1])
def test_a_step_off_on_the_grid_is_not_faithful(fraction_bits, by):
    for j in proofs.judge(OffOnTheGrid(by), LNSFormat(16, fraction_bits)):
        assert (j.faithful, j.worst_error) == (False, pytest.approx(1.0, abs=1e-9))
        assert sum(j.histogram) == j.inputs
        assert sum(j.histogram[1:]) == 1


# --------------------------------------------------------------------------------------------- the command line


run = functools.partial(run_command, command=["certify"])


def test_the_command_prints_a_table():
    done = subprocess.run(
        [sys.executable, "-m", "lnsnum.cli", "certify", "lns4f1"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["lns4f1"]
    (row,) = (line for line in lines if line.startswith("│ add, all pairs"))
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["add, all pairs", "256", "3.0e-02", "18", "0"]
    for word in ("misroundings", "mpmath", "Numba", "processor", "8,388,608"):
        assert word in done.stdout


def test_the_command_prints_markdown(capsys, monkeypatch):
    code, out, _ = run(capsys, monkeypatch, "lns4f1", "lns6f2", "--markdown")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("#")] == ["## lns4f1", "## lns6f2"]
    assert "\n| multiply, all pairs | 4,096 | exact | 0 | 0 |\n" in out
    assert out.count("\n0 misroundings. ") == 2
    tables = [line for line in out.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {6}


def test_the_command_judges(capsys, monkeypatch):
    names = ["exact", "mitchell", "cotransformation", "cotransformation:1", "linear:4"]
    asked = [part for name in names for part in ("--gaussian", name)]
    code, out, _ = run(capsys, monkeypatch, "lns8f3", *asked, "--markdown")
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[:2] for row in rows] == [[f"| {name}", which] for name in names for which in ("sb", "db")]
    assert rows[0].endswith("| correctly rounded |")
    code, out, _ = run(capsys, monkeypatch, "lns8f3", "--gaussian", "mitchell", "--json")
    assert code == 0
    assert [j["function"] for j in json.loads(out)["judgements"]["lns8f3"]["mitchell"]] == ["sb", "db"]
    code, out, _ = run(capsys, monkeypatch, "lns8f3", "--gaussian", "mitchell")
    assert code == 0
    assert "lns8f3, mitchell: error in ulp over every z" in out
    assert f"{judged(Mitchell(), lns8f3, True)[3]:.3f}" in out


def test_the_command_ends_with_one_where_something_is_misrounded(capsys, monkeypatch):
    right = Exact.sb
    monkeypatch.setattr(Exact, "sb", lambda self, z, fmt: right(self, z, fmt) + (z == 2))
    code, out, _ = run(capsys, monkeypatch, "lns4f1", "--json")
    assert code == 1
    content = json.loads(out)
    wrong = {o["operation"]: o["first_wrong"] for o in content["certificates"]["lns4f1"]["operations"]}
    assert content["misroundings"] == sum(o["misroundings"] for o in content["certificates"]["lns4f1"]["operations"])
    assert [first for first in wrong.values() if first] == ["z=2"]
    code, out, _ = run(capsys, monkeypatch, "lns4f1")
    assert code == 1
    assert "1 z=2" in out
    code, out, _ = run(capsys, monkeypatch, "lns4f1", "--markdown")
    assert code == 1
    assert "| 1 (z=2) |" in out


BAD = {
    "no format name": (["int8"], "'int8' is no format name: write lns8f5 for 8 bits"),
    "a format that does not fit": (["lns8f9"], "fraction_bits=9 does not fit bits=8: 0 to 6"),
    "the second of two": (["lns4f1", "lns99f1"], "bits=99 is out of range: 3 to 32"),
    "unknown gaussian": (["lns4f1", "--gaussian", "taylor"], "--gaussian taylor is not known: exact, mitchell"),
    "no segments": (["lns4f1", "--gaussian", "linear"], "--gaussian linear is not known"),
    "segments of mitchell": (["lns4f1", "--gaussian", "mitchell:3"], "--gaussian mitchell:3 is not known"),
    "no lines": (["lns4f1", "--gaussian", "linear:0"], "segments=0 is no number of lines"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_names(kind, capsys, monkeypatch):
    arguments, sentence = BAD[kind]
    code, out, error = run(capsys, monkeypatch, *arguments)
    assert (code, out) == (2, "")
    assert sentence in error
    assert error.startswith("error: ")


@pytest.mark.parametrize("name", ["cotransformation:-1", "cotransformation:5000", "linear:x", "cotransformation:x"])
def test_bad_numbers(name, capsys, monkeypatch):
    code, _, error = run(capsys, monkeypatch, "lns4f1", "--gaussian", name)
    assert code == 2
    assert error.startswith(f"error: --gaussian {name}: ")


def test_no_format(capsys, monkeypatch):
    code, _, error = run(capsys, monkeypatch)
    assert code == 2
    assert "formats" in error.lower()
