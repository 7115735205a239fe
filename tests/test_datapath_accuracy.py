"""The table of docs/datapath.md is that of its journal."""

import sys
from pathlib import Path

import pytest

import lnsnum

sys.path.insert(0, str(Path(lnsnum.__file__).parents[1]))

pytest.importorskip("sklearn")

from benchmarks.datapath_accuracy import CELLS, read, seeds_of, table

ROOT = Path(lnsnum.__file__).parents[1]


def test_the_page_has_the_table_of_the_journal():
    done = read(ROOT / "docs" / "results" / "datapath.jsonl")
    assert done.keys() <= {(*cell, seed) for cell in CELLS for seed in seeds_of(cell)}
    page = (ROOT / "docs" / "datapath.md").read_text()
    assert page.split("<!-- table -->")[1].split("<!-- end of table -->")[0].strip().splitlines() == list(table(done))
