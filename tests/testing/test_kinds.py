"""The door to the laws of every kind."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import lnsnum
from lnsnum import lns4f1
from lnsnum.strategies import KINDS, LawViolation, check_laws


def same(a, b):
    return a


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_its_laws_and_its_options(kind):
    laws, check = KINDS[kind]
    for law in laws.values():
        assert law.sentence.endswith(".")
        assert law.sentence[0].isupper()
        assert law.formula
    assert {"laws", "takes", "timeout"} <= set(KINDS[kind].options)
    assert list(inspect.signature(check).parameters)[:2] == ["implementation", "fmt"]


def test_the_door_is_the_function_of_the_kind():
    implementations = {
        "arithmetic": (same, {"operations": ["multiply"]}),
        "conversions": ({"encode": lambda x: np.zeros(x.shape, np.uint8)}, {"drawn": 0}),
        "gaussian": ({"sb": np.zeros_like}, {}),
        "quantizers": (np.ceil, {"drawn": 0}),
        "stochastic": (lambda x: np.zeros(x.shape, np.uint8), {"random_bits": None}),
    }
    for kind, (implementation, options) in implementations.items():
        with pytest.raises(LawViolation) as direct:
            KINDS[kind].check(implementation, lns4f1, **options)
        with pytest.raises(LawViolation) as by_kind:
            check_laws(implementation, lns4f1, kind=kind, **options)
        assert by_kind.value.report == direct.value.report
        assert by_kind.value.report.kind == kind


def test_a_kind_may_need_no_format():
    assert check_laws(lambda x: np.clip(np.rint(x), -7, 7), kind="quantizers", drawn=0).subject == "quantizers"
    assert not KINDS["quantizers"].needs_format
    assert KINDS["conversions"].needs_format


@pytest.mark.parametrize("kind", KINDS)
def test_the_docs_list_every_law_with_its_sentence_and_formula(kind):
    page = (Path(lnsnum.__file__).parents[1] / "docs" / "testing.md").read_text()
    (table,) = re.findall(rf"<!-- laws: {kind} -->\n((?:\|.*\n)+)", page)
    listed = re.findall(r"^\| `([a-z_]+)` \| (.*) \| (.*) \|$", table, re.MULTILINE)
    laws = KINDS[kind].laws
    assert listed == [(name, law.sentence, law.formula.replace("|", "\\|")) for name, law in laws.items()]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "fused"}, ValueError, "kind='fused' is not known: one of arithmetic"),
        ({"operation": "add"}, TypeError, "kind='arithmetic' takes no option 'operation': max_ulp, operations, laws"),
        ({"fmt": None}, TypeError, "kind='arithmetic' needs a format: give fmt, such as 'lns8f3'"),
    ],
)
def test_bad_arguments_of_the_door_are_refused(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        check_laws(same, **{"fmt": lns4f1, **arguments})


def test_counts_are_integers():
    for drawn_pairs, error in ((-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="drawn_pairs="):
            check_laws(lambda a, b: np.zeros_like(a), lns4f1, drawn_pairs=drawn_pairs)
