"""What can be tried: functions on arrays, numbers, tensors, in C, programs; and what is said of those that fail."""

import re
import subprocess
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import numba
import numpy as np
import pytest
from c_compiler import c_compiler

import lnsnum
from lnsnum import arithmetic, cli, lns6f2, lns12f6
from lnsnum.strategies import LawViolation, check_arithmetic_laws
from lnsnum.testing.c_functions import HEADER, c_library
from lnsnum.testing.calling import ImplementationError
from lnsnum.testing.foreign import Program
from lnsnum.testing.laws import LAWS, OPERATIONS

SUMS = np.array([arithmetic.add(np.arange(64, dtype=np.uint8), np.uint8(b), lns6f2)[0] for b in range(64)])
"""By b, then by a; the sum is commutative."""


def multiply_one(a, b):
    """A product of lns6f2 in plain integers, zero below the smallest."""
    if a == 32 or b == 32:
        return 32
    m, sign = (a & 31) + (b & 31) - 16, (a ^ b) & 32
    if (a & 31) == 0 or (b & 31) == 0 or m < -3:
        return 0
    return max(min(m, 31), 1) | sign


def check(function, **options):
    return check_arithmetic_laws(function, lns6f2, operations=["add"], **options)


# ------------------------------------------------------------------------------------------------ what can be tried


def test_functions_on_numbers_are_asked_one_by_one():
    table = SUMS.tolist()
    assert check(lambda a, b: table[a][b]).inputs == 4096
    assert check_arithmetic_laws(multiply_one, "lns6f2", operations=["multiply"])
    assert check_arithmetic_laws({"multiply": multiply_one}, "lns6f2").operations == ("multiply",)


def test_functions_of_numba():
    jitted = numba.njit(multiply_one)
    assert check_arithmetic_laws(jitted, lns6f2, operations=["multiply"])
    vectorized = numba.vectorize(["uint8(uint8, uint8)"])(lambda a, b: multiply_one_jitted(a, b))
    assert check_arithmetic_laws(vectorized, lns6f2, operations=["multiply"])


multiply_one_jitted = numba.njit(
    lambda a, b: (
        32
        if a == 32 or b == 32
        else 0
        if (a & 31) == 0 or (b & 31) == 0 or np.int64(a & 31) + np.int64(b & 31) < 13
        else max(min(np.int64(a & 31) + np.int64(b & 31) - 16, 31), 1) | ((a ^ b) & 32)
    )
)


def test_functions_of_torch():
    torch = pytest.importorskip("torch")
    table = torch.from_numpy(SUMS.astype(np.int64))

    def on_tensors(a, b):
        assert a.dtype == torch.int64
        return torch.index_select(table.reshape(-1), 0, 64 * b + a)

    assert check(on_tensors)
    assert check(on_tensors, takes="tensors")
    with pytest.raises(LawViolation, match="nan: add"):
        check(lambda a, b: torch.where(a == 32, 0, on_tensors(a, b)))


C = """
#include <math.h>
{header}
static uint32_t one(uint32_t a, uint32_t b) {{
    int m_a = a & 31, m_b = b & 31, top = m_a > m_b ? m_a : m_b, gap = abs(m_a - m_b);
    if (a == 32 || b == 32) return 32;
    if (a == 0 || b == 0) return a | b;
    if ((a ^ b) == 32) return {cancelled};
    double r = top + 4 * log2(1 + ((a ^ b) & 32 ? -1 : 1) * exp2(-gap / 4.0));
    int m = r < 1 ? r >= -3 : (int)rint(r);
    return m == 0 ? 0 : (m > 31 ? 31 : m) | ((m_a > m_b ? a : b) & 32);
}}
void add(const uint32_t *a, const uint32_t *b, uint32_t *out, size_t n) {{
    for (size_t i = 0; i < n; i++) out[i] = one(a[i], b[i]);
}}
int main(void) {{
    unsigned a, b;
    while (scanf("%u %u", &a, &b) == 2) {{ {before} printf("%u\\n", one(a, b)); }}
    return 0;
}}
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    compiler = c_compiler()
    folder = tmp_path_factory.mktemp("c")

    def compiled(name, cancelled="0", before=""):
        source, target = folder / f"{name}.c", folder / name
        text = C.format(header=HEADER, cancelled=cancelled, before=before)
        source.write_text("#include <stdio.h>\n#include <stdlib.h>\n" + text)
        shared = ["-shared", "-fPIC"] if name.endswith(".so") else []
        subprocess.run([compiler, "-O1", *shared, "-o", target, source, "-lm"], check=True)
        return target

    return compiled


def test_functions_of_c(build):
    right, wrong = build("right.so"), build("wrong.so", cancelled="64")
    report = check_arithmetic_laws(c_library(right, tuple(OPERATIONS)), lns6f2)
    assert (report.operations, report.exhaustive) == (("add",), True)
    with pytest.raises(LawViolation, match=r"range: add\(16, 48\) = 64, .* = no code; expected a code, 0 to 63"):
        check_arithmetic_laws(c_library(wrong, tuple(OPERATIONS)), lns6f2)


def test_the_header_has_four_lines():
    assert len(HEADER.splitlines()) == 4


def test_programs(build):
    assert check(Program(str(build("right")))).inputs == 4096
    with pytest.raises(LawViolation, match=r"inverse: add\(16, 48\) = 1"):
        check(Program([str(build("wrong", cancelled="1"))]))


# -------------------------------------------------------------------------------------- one sentence for what fails


def raises(a, b):
    if np.any((a == 16) & (b == 48)):
        raise ZeroDivisionError("log of\nzero")
    return SUMS[b, a]


BAD = {
    r"add\(16, 48\) \(law range\) raised ZeroDivisionError: log of zero: return a code for every pair of codes": raises,
    r"add\(0, 0\) \(law range\) returned a NoneType: return one array of uint8": lambda a, b: None,
    r"add\(0, 0\) \(law range\) returned an array of float64: return one of uint8": lambda a, b: a * 1.0,
    r"add\(0, 0\) \(law range\) returned shape \(1, 4096\) for inputs of shape \(4096,\)": lambda a, b: a[None],
    r"add\(0, 0\) \(law range\) raised TypeError: .*return a code": lambda a: a,
    r"add\(0, 5\) \(law range\) returned a float: return an integer": lambda a, b: 0 if int(b) < 5 else 0.5,
}


@pytest.mark.parametrize("message", BAD)
def test_a_function_that_fails_ends_in_one_sentence(message):
    with pytest.raises(ImplementationError, match=message) as error:
        check(BAD[message])
    assert "\n" not in str(error.value)


def test_a_function_that_hangs_is_named_with_the_input():
    ended = threading.Event()

    def hangs(a, b):
        if np.any((a == 16) & (b == 48)):
            ended.wait(60)
        return SUMS[b, a]

    with pytest.raises(ImplementationError, match=r"add\(16, 48\) \(law range\) did not return within 0.2 s"):
        check(hangs, timeout=0.2)
    ended.set()


def test_where_every_input_hangs_few_calls_are_waited_for():
    ended, calls = threading.Event(), []

    def hangs(a, b):
        calls.append(len(a))
        ended.wait(60)

    with pytest.raises(ImplementationError, match=r"add\(0, 0\) \(law range\) did not return within 0.1 s"):
        check(hangs, timeout=0.1, takes="arrays")
    ended.set()
    assert calls == [max(calls), 1]


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("if (a == 16 && b == 48) return 3;", r"add\(16, 48\) \(law range\) ended with exit code 3: end with 0"),
        ("if (a == 16 && b == 48) abort();", r"add\(16, 48\) \(law range\) ended with signal 6: end with 0"),
        ("if (a == 16 && b == 48) for (;;);", r"add\(16, 48\) \(law range\) did not return within 0.5 s"),
        ('if (a == 16 && b == 48) printf("x");', r"add\(16, 48\) \(law range\) was answered 'x0': write one code"),
        ("if (a == 16 && b == 48) continue;", r"add\(16, 48\) .* 1 lines got 0 answers: write one for each line"),
    ],
)
def test_a_program_that_fails_ends_in_one_sentence(build, before, message):
    program = Program(str(build("bad" + re.sub(r"\W", "", before), before=before)))
    with pytest.raises(ImplementationError, match=message):
        check(program, timeout=0.5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Program(""), ValueError, "command is empty: give a program"),
        (lambda: Program("'"), ValueError, "cannot be read: No closing quotation"),
        (lambda: Program("./nowhere"), FileNotFoundError, "./nowhere is no program that can be run"),
        (lambda: c_library("/nowhere.so", ("add",)), OSError, "/nowhere.so is no shared library that can be loaded"),
        (lambda: check(raises, timeout=0), ValueError, "timeout=0 is out of range: more than 0 seconds"),
        (lambda: check(raises, takes="lists"), ValueError, "takes='lists' is not known: one of auto, arrays"),
        (lambda: check(raises, drawn_pairs=-1), ValueError, "drawn_pairs=-1 is out of range: 0 or more"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()


def test_an_operation_that_is_not_there():
    with pytest.raises(TypeError, match=r"^there is no function add: give it one"):
        check({"multiply": multiply_one})


def test_a_library_without_the_functions(build):
    with pytest.raises(TypeError, match="has none of the functions multiply: export one"):
        c_library(build("right.so"), ("multiply",))


# ------------------------------------------------------------------------------------------------------ the command


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["lnsnum", "check", *map(str, arguments)])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    printed = capsys.readouterr()
    return ending.value.code or 0, printed.out, printed.err


def test_the_command_says_what_held_and_what_broke(build, monkeypatch, capsys, tmp_path):
    add = ["--format", "lns6f2", "--operation", "add"]
    code, out, _ = run(monkeypatch, capsys, "--command", build("right"), *add)
    assert (code, out.splitlines()[-1]) == (
        0,
        "lns6f2: add kept 12 laws on 4096 inputs (all); not there, so not tried: subtract, multiply, divide",
    )
    junit = tmp_path / "laws.xml"
    code, out, _ = run(monkeypatch, capsys, "--library", build("wrong.so", cancelled="64"), *add, "--junit", junit)
    assert code == 1
    assert re.search(r"^range +add +4,096 +broken$", out, re.MULTILINE)
    suite = ElementTree.parse(junit).getroot()
    cases = {case.get("name"): [failure.get("message") for failure in case] for case in suite}
    assert list(cases) == list(LAWS)
    assert suite.get("failures") == str(sum(map(bool, cases.values())))
    assert cases["range"][0].startswith("range: add(16, 48) = 64")
    assert cases["nan"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "lns6f2"], "give one of --command, --library and --verilog"),
        (["--format", "lns6f2", "--command", "true"], "--command needs --operation once"),
        (["--format", "lns6", "--command", "true", "--operation", "add"], "'lns6' is no format name"),
        (
            ["--format", "lns6f2", "--command", "true", "--operation", "add"],
            "add(0, 0) (law range) and what follows: 1",
        ),
        (["--format", "lns6f2", "--command", "no/such", "--operation", "add"], "no/such is no program"),
        (["--format", "lns6f2", "--command", "true", "--operation", "fma"], "operations has 'fma', which is not known"),
        (["--format", "lns6f2", "--command", "true", "--operation", "add", "--rounding", "odd"], "rounding='odd'"),
        (["--command", "true", "--kind", "quantizers", "--operation", "add"], "--operation add is none of quantizers"),
        (
            ["--format", "lns6f2", "--command", "true", "--operation", "add", "--timeout", "inf"],
            "timeout=inf is out of",
        ),
        (["--format", "lns6f2", "--library", "no.so"], "is no shared library that can be loaded"),
    ],
)
def test_what_cannot_be_tried_ends_with_code_2(arguments, message, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert message in err


OTHER_KINDS = """
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
static int64_t sb_of(int64_t z) { return (int64_t)rint(4 * log2(1 + exp2(-z / 4.0))); }
static float quantize_one(float x) { return isnan(x) ? x : fmaxf(-7, fminf(7, rintf(x))); }
void sb(const int64_t *z, int64_t *out, size_t n) { for (size_t i = 0; i < n; i++) out[i] = sb_of(z[i]); }
void db(const int64_t *z, int64_t *out, size_t n) { for (size_t i = 0; i < n; i++) out[i] = -sb_of(z[i]); }
void quantize(const float *x, float *out, size_t n) { for (size_t i = 0; i < n; i++) out[i] = quantize_one(x[i]); }
int main(int arguments, char **names) {
    long long z;
    float x;
    if (arguments == 1) while (scanf("%lld", &z) == 1) printf("%lld\\n", -(long long)sb_of(z));
    else while (scanf("%f", &x) == 1) printf("%.9g\\n", quantize_one(x));
    return 0;
}
"""


def test_the_command_tries_other_kinds(monkeypatch, capsys, tmp_path):
    """Gaussian logarithms of signed integers, quantizers of floats; of a library and of a program."""
    compiler = c_compiler()
    (tmp_path / "kinds.c").write_text(OTHER_KINDS)
    library, program = tmp_path / "kinds.so", tmp_path / "kinds"
    for target, flags in ((library, ["-shared", "-fPIC"]), (program, [])):
        subprocess.run([compiler, "-O1", *flags, "-o", target, tmp_path / "kinds.c", "-lm"], check=True)
    gaussian, quantizers = ["--kind", "gaussian", "--format", "lns6f2"], ["--kind", "quantizers"]
    code, out, _ = run(monkeypatch, capsys, *gaussian, "--library", library, "--operation", "sb")
    assert (code, "sb kept" in out) == (0, True)
    code, out, _ = run(monkeypatch, capsys, *gaussian, "--library", library)
    assert (code, bool(re.search(r"^error_bound: db\(\d+\) = -\d+; ", out, re.MULTILINE))) == (1, True)
    code, out, _ = run(monkeypatch, capsys, *gaussian, "--command", program, "--operation", "sb")
    assert (code, bool(re.search(r"^sign: sb\(0\) = -4; ", out, re.MULTILINE))) == (1, True)
    for given in (["--library", library], ["--command", f"{program} quantize"]):
        code, out, _ = run(monkeypatch, capsys, *quantizers, *given, "--junit", tmp_path / "laws.xml")
        assert (code, "15 numbers, -7.0 to 7.0" in out) == (0, True)
    assert ElementTree.parse(tmp_path / "laws.xml").getroot().get("failures") == "0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "sums", "--command", "true"], "--kind sums is not known here: one of arithmetic, gaussian"),
        (["--kind", "gaussian", "--command", "true", "--operation", "sb"], "kind='gaussian' needs a format: give fmt"),
        (["--kind", "quantizers", "--command", "true", "--law", "inverse"], "laws has 'inverse', which is not known"),
        (
            ["--kind", "quantizers", "--command", "true", "--max-ulp", "2"],
            "kind='quantizers' takes no option 'max_ulp'",
        ),
        (["--kind", "quantizers", "--command", "echo x"], "(law determinism) was answered 'x': write one float for"),
        (
            ["--kind", "gaussian", "--format", "lns6f2", "--operation", "sb", "--command", "echo 0.5"],
            "was answered '0.5': write one integer in decimal digits for each line",
        ),
    ],
)
def test_what_cannot_be_tried_of_other_kinds(arguments, message, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert message in err


def test_each_law_is_tried_under_the_mode_that_it_holds_in():
    fmt = lns12f6
    for rounding in ("up", "down", "toward_zero"):
        modes = {"rounding": rounding}
        tried = check_arithmetic_laws(
            lambda a, b, m=modes: arithmetic.add(a, b, fmt, **m)[0], fmt, operations=["add"], **modes
        )
        assert ("sign_symmetry" in tried.laws) == (rounding == "toward_zero")
        with pytest.raises(LawViolation, match="error_bound"):
            check_arithmetic_laws(lambda a, b: arithmetic.add(a, b, fmt)[0], fmt, operations=["add"], **modes)


def test_the_adder_of_the_docs_breaks_as_the_page_says(build, monkeypatch, capsys, tmp_path):
    """The files of the page, its two commands, and what the second prints."""
    page = (Path(lnsnum.__file__).parents[1] / "docs" / "testing.md").read_text()
    monkeypatch.chdir(tmp_path)
    for name, text in re.findall(r"^<!-- file: (\S+) -->\n```c\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        Path(name).write_text(text)
    assert Path("lnsnum_arithmetic.h").read_text() == HEADER
    compiling, checking, said = re.search(
        r"^\$ (cc .*)\n\$ lnsnum check (.*)\n((?:.|\n)*?)^```", page, re.MULTILINE
    ).groups()
    subprocess.run(compiling.split(), check=True)
    code, out, _ = run(monkeypatch, capsys, *checking.split())
    assert (code, out) == (1, said)
    mended = Path("adder.c").read_text().replace("(m & 127) |", "(m > 127 ? 127 : m) |")
    Path("adder.c").write_text(mended)
    subprocess.run([*compiling.replace("adder.so", "mended.so").split()], check=True)
    code, out, _ = run(monkeypatch, capsys, *checking.replace("adder.so", "mended.so").split())
    assert (code, "kept 12 laws on 65536 inputs (all)" in out) == (0, True)
    pytest.importorskip("cffi")
    (from_python,) = re.findall(r"^<!-- with adder.so -->\n```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    with pytest.raises(LawViolation, match="saturation"):
        exec(from_python, {})
    exec(from_python.replace("adder.so", "mended.so"), {})
