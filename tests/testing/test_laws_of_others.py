"""The table of docs/comparison.md: its rows, and the words between our codes and others' integers."""

import numpy as np
import pytest

from lnsnum import arithmetic, lns6f2

pytest.importorskip("torch", reason="the rivals are loaded with torch's libraries")
from benchmarks.laws_of_others import Subject, casts, code_of, keeping_nan, rows
from benchmarks.performance.cases import UnavailableError


def add(a, b):
    return arithmetic.add(a, b, lns6f2)[0]


def test_a_row_for_each_broken_law_and_one_for_those_that_hold():
    def wrong(a, b):
        return np.where((a == 17) & (b == 18), 23, add(a, b)).astype(np.uint8)

    first, *broken = rows(Subject("wrong", lambda: {"add": wrong}, "lns6f2"))
    assert first == ("wrong", "lns6f2", "2", f"{12 - len(broken)} hold", "", "4,096", "", "")
    assert [row[3] for row in broken] == ["commutativity", "sign_symmetry", "monotonicity"]
    (row,) = (row for row in broken if row[3] == "commutativity")
    assert row[4:6] == ("add", "3,969")
    assert row[6].startswith("add(17, 18) = 23, that is 1.18921 + 1.41421 = ")
    assert "the same as add(18, 17) = 22" in row[7]


def test_the_least_error_that_holds_is_found():
    def near(a, b):  # one step more than is right, where it is a number below the greatest
        out = add(a, b)
        m = out & 31
        return np.where((m > 0) & (m < 31) & (m > 8) & (a & 31 > 0) & (b & 31 > 0), out + 1, out).astype(np.uint8)

    (first, *_) = rows(Subject("near", lambda: {"add": near}, "lns6f2", claimed=None))
    assert first[2] == "2"
    (first, *_) = rows(Subject("right", lambda: {"add": add}, "lns6f2", claimed=0.5))
    assert first[2:4] == ("0.5 (claims 0.5)", "all 12 hold")


def test_what_is_not_there_is_said():
    def missing():
        raise UnavailableError("`import nothing` fails")

    assert list(rows(Subject("nothing", missing, "lns6f2"))) == [
        ("nothing", "lns6f2", "", "", "", "", "`import nothing` fails", "")
    ]


def test_integers_without_ends_become_codes():
    fmt = lns6f2
    log, negative = np.array([-100, -15, 0, 15, 100, 0]), np.array([0, 1, 0, 1, 1, 1])
    zero = np.array([0, 0, 0, 0, 0, 1], bool)
    assert code_of(log, negative, zero, fmt).tolist() == [1, 33, 16, 63, 63, 0]
    codes = np.array([32, 5], np.uint8)
    assert keeping_nan(lambda a, b: a, fmt)(codes, codes).tolist() == [32, 5]


def test_the_casts_are_named_after_their_types():
    subjects = {subject.name: subject for subject in casts()}
    assert {"ml_dtypes float8_e4m3fn", "torch float8_e5m2"} <= set(subjects)
    quantize = subjects["ml_dtypes float8_e4m3fn"].make()
    assert quantize(np.array([1.0625, 448, 0.1], np.float32)).tolist() == [1.0, 448.0, 0.1015625]
