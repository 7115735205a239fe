"""`lnsnum.laws`: each law is a test of its own, whose failure is the smallest example."""

import re
import subprocess
import sys

import numpy as np
import pytest

import lnsnum
from lnsnum import arithmetic, lns6f2
from lnsnum.testing.laws import LAWS

pytest_plugins = "pytester"

TABLES = {
    "add": (arithmetic.add, lns6f2, "nearest"),
    "up": (arithmetic.add, lns6f2, "up"),
    "multiply": (arithmetic.multiply, lns6f2, "nearest"),
}
"""What the tests inside of tests look up; there Numba would be imported anew for each."""

HEAD = """
import numpy as np
import pytest
import lnsnum

TABLES, CALLS = np.load("tables.npz"), []

def table(name):
    return lambda a, b: TABLES[name][a, b]

def right(a, b):
    CALLS.append(a.size)
    return TABLES["add"][a, b]

def wrong(a, b):
    return np.where((a == 17) & (b == 18), 0, right(a, b)).astype(np.uint8)
"""


@pytest.fixture
def write(pytester, monkeypatch):
    """Writes a file of tests and the tables; gives its path."""
    monkeypatch.setenv("COLUMNS", "300")

    def written(text):
        tables = {}
        for name, (operation, fmt, rounding) in TABLES.items():
            codes = np.arange(1 << fmt.bits, dtype=np.uint8)
            tables[name] = operation(codes[:, None], codes, fmt, rounding=rounding)[0]
        np.savez(pytester.path / "tables.npz", **tables)
        return pytester.makepyfile(HEAD + text)

    return written


@pytest.fixture
def run(pytester, write):
    """Runs a file of tests; gives (the outcomes by name, all that was printed)."""

    def ran(text, *arguments):
        result = pytester.runpytest_inprocess(write(text), "-rA", "-W", "error", "-p", "no:cacheprovider", *arguments)
        said = "\n".join(result.outlines)
        found = re.findall(r"^(PASSED|FAILED|ERROR) \S+?\.py::(.*?)(?: - .*)?$", said, re.MULTILINE)
        return {name: outcome for outcome, name in found}, said

    return ran


def test_each_law_is_a_test(run):
    outcomes, _ = run(
        """
@lnsnum.laws("lns6f2", operations=["add"])
def test_adder():
    return right

def test_the_suite_ran_once():
    assert sum(CALLS) == 4 + 4096 + 4096  # to find out what it takes, for all, and for determinism
"""
    )
    expected = dict.fromkeys([*(f"test_adder[add-{law}]" for law in LAWS), "test_the_suite_ran_once"], "PASSED")
    assert outcomes == expected


def test_a_law_that_breaks_fails_with_its_smallest_example(run):
    outcomes, said = run(
        """
@lnsnum.laws("lns6f2", operations=["add"])
def test_adder():
    return wrong
"""
    )
    broken = {"commutativity", "sign_symmetry", "monotonicity", "error_bound"}
    assert outcomes == {f"test_adder[add-{law}]": "FAILED" if law in broken else "PASSED" for law in LAWS}
    assert "\nerror_bound: add(17, 18) = 0, that is 1.18921 + 1.41421 = 0; expected 22 (2.82843)" in said
    assert "test_adder[add-error_bound] - Failed: error_bound: add(17, 18) = 0, that is" in said
    assert "law_tests.py" not in said


def test_some_laws_of_some_operations(run):
    text = """
@lnsnum.laws("lns6f2", operations=["add", "multiply"], laws=["inverse", "zero"])
def test_both():
    return {"add": right, "multiply": table("multiply")}
"""
    outcomes, said = run(text)
    assert outcomes == {f"test_both[{case}]": "PASSED" for case in ("add-inverse", "add-zero", "multiply-zero")}
    assert "inverse speaks of no input of multiply" in said
    assert list(run(text, "-k", "multiply and zero")[0]) == ["test_both[multiply-zero]"]


def test_without_operations_a_law_speaks_of_all_that_are_there(run):
    outcomes, said = run(
        """
def size(a, b):
    return right(a, b) & 31

@lnsnum.laws("lns6f2", laws=["range", "nan", "sign_symmetry"])
def test_both():
    return {"add": size, "subtract": size}
"""
    )
    assert outcomes == {"test_both[range]": "PASSED", "test_both[nan]": "FAILED", "test_both[sign_symmetry]": "FAILED"}
    assert "nan: add(0, 32) = 0" in said
    assert "nan: subtract(0, 32) = 0" in said


def test_a_law_that_does_not_hold_by_the_options_is_skipped(run):
    outcomes, said = run(
        """
@lnsnum.laws("lns6f2", operations=["add"], rounding="up")
def test_adder():
    return table("up")
"""
    )
    assert outcomes == {f"test_adder[add-{law}]": "PASSED" for law in LAWS if law != "sign_symmetry"}
    assert "sign_symmetry does not hold by these options" in said


def test_classes_and_objects(run):
    outcomes, _ = run(
        """
@lnsnum.laws("lns6f2", laws=["nan", "zero"])
class TestAdder:
    def add(self, a, b):
        return right(a, b)

    def test_of_its_own(self):
        assert right(np.uint8([32]), np.uint8([0])) == 32

class Adder:
    def add(self, a, b):
        return right(a, b)

class TestMethods:
    @lnsnum.laws("lns6f2", laws=["nan"])
    def test_of_a_class(self):
        return {"add": right}

test_object = lnsnum.laws("lns6f2", laws=["nan"])(Adder())
test_mapping = lnsnum.laws("lns6f2", laws=["nan"])({"add": right})
test_lambda = lnsnum.laws("lns6f2", laws=["nan"], operations=["add"])(lambda: right)
"""
    )
    expected = ["TestAdder::test_laws[nan]", "TestAdder::test_laws[zero]", "TestAdder::test_of_its_own"]
    expected += ["TestMethods::test_of_a_class[nan]", "test_object[nan]", "test_mapping[nan]", "test_lambda[add-nan]"]
    assert outcomes == dict.fromkeys(expected, "PASSED")


def test_fixtures_and_parameters_make_other_implementations(run):
    outcomes, _ = run(
        """
MADE = []

@pytest.fixture(params=["add", "up"])
def name(request):
    return request.param

@pytest.mark.parametrize("kept", [0, 32])
@lnsnum.laws("lns6f2", operations=["add"], laws=["nan", "zero"])
def test_adder(name, kept, request, tmp_path):
    MADE.append((name, kept, request.node.name.split("[")[0], tmp_path.exists()))
    return lambda a, b: np.where((a == 32) | (b == 32), kept, TABLES[name][a, b]).astype(np.uint8)

def test_each_was_made_once():
    assert sorted(MADE) == [(n, k, "test_adder", True) for n in ("add", "up") for k in (0, 32)]
"""
    )
    failed = [name for name, outcome in outcomes.items() if outcome == "FAILED"]
    assert len(outcomes) == 9
    assert all("-0]" in name or "-0-" in name for name in failed)
    assert len(failed) == 2


def test_what_cannot_be_judged_fails_with_the_law_and_the_input(run):
    outcomes, said = run(
        """
@lnsnum.laws("lns6f2", operations=["add"], laws=["nan", "zero"])
def test_adder():
    CALLS.append(0)
    return lambda a, b: None

def test_was_tried_once():
    assert len(CALLS) == 1
"""
    )
    assert outcomes == {
        "test_adder[add-nan]": "FAILED",
        "test_adder[add-zero]": "FAILED",
        "test_was_tried_once": "PASSED",
    }
    assert "ImplementationError: add(0, 0) (law nan) returned a NoneType: return one array of uint8" in said


WHAT_CANNOT_BE_MEANT = {
    "kind='adders' is not known: one of": "@lnsnum.laws('lns6f2', kind='adders')\ndef test_x(): pass",
    "kind='arithmetic' takes no option 'mode'": "@lnsnum.laws('lns6f2', mode='up')\ndef test_x(): pass",
    "kind='arithmetic' needs a format: give fmt": "@lnsnum.laws()\ndef test_x(): pass",
    "operations='add' is a string: give a list": "@lnsnum.laws('lns6f2', operations='add')\ndef test_x(): pass",
    "function adder is not found by pytest: call it test_": "@lnsnum.laws('lns6f2')\ndef adder(): pass",
    "class Adder is not found by pytest: call it Test...": "@lnsnum.laws('lns6f2')\nclass Adder: pass",
    "class TestX has an __init__, which pytest": "@lnsnum.laws('lns6f2')\nclass TestX:\n def __init__(self): pass",
    "test_x has a parameter 'law', which the tests of laws": "@lnsnum.laws('lns6f2')\ndef test_x(law): pass",
    "laws has 'no', which is not known": "@lnsnum.laws('lns6f2', laws=['no'])\ndef test_x(): return {'add': right}",
    "laws is empty: name at least one of range": "@lnsnum.laws('lns6f2', laws=[])\ndef test_x(): return {'add': right}",
    "operations is empty: name at least one": "@lnsnum.laws('lns6f2', operations=[])\ndef test_x(): pass",
    "operations=3 is a int: give a list of names": "@lnsnum.laws('lns6f2', operations=3)\ndef test_x(): pass",
    "laws=3 is a int: give a list of names": "@lnsnum.laws('lns6f2', laws=3)\ndef test_x(): pass",
    "there is no function add, subtract, multiply": "@lnsnum.laws('lns6f2')\ndef test_x(): return {}",
    "'lns6' is no format name": "@lnsnum.laws('lns6')\ndef test_x(): return {'add': right}",
}


@pytest.mark.parametrize("message", WHAT_CANNOT_BE_MEANT)
def test_what_cannot_be_meant_is_told(run, message):
    outcomes, said = run(WHAT_CANNOT_BE_MEANT[message])
    assert not {"PASSED", "SKIPPED"} & set(outcomes.values())
    assert message in said


def test_processes_share_the_tests(pytester, write):
    path = write('test_adder = lnsnum.laws("lns6f2", operations=["add"])(lambda: wrong)')
    pytester.runpytest_subprocess(path, "-n", "2", "-p", "no:cacheprovider").assert_outcomes(failed=4, passed=8)


def test_pytest_is_asked_for_by_name(tmp_path):
    """Where it is not there, nothing but the decorator misses it."""
    (tmp_path / "pytest.py").write_text("raise ImportError('no')")
    code = "import lnsnum; lnsnum.laws('lns6f2')"
    path = {"PYTHONPATH": f"{tmp_path}:{lnsnum.__path__[0]}/.."}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=path)
    assert result.stderr.splitlines()[-1] == (
        "ImportError: lnsnum.laws makes tests for pytest, which is not there: pip install pytest"
    )


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="module 'lnsnum' has no attribute 'lows'"):
        _ = lnsnum.lows
