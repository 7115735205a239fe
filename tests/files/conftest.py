"""The readers of weight files beside lnsnum's own, made once."""

import shutil

import pytest
from readers import HERE, ReaderInC, page_reader


@pytest.fixture(scope="session")
def reader_in_c(tmp_path_factory):
    if not (HERE.parent / "lnsnum" / "c" / "lnsnum.h").exists() or shutil.which("cc") is None:
        pytest.skip("no reader in C, or no compiler for it")
    reader = ReaderInC(tmp_path_factory.mktemp("c"))
    yield reader
    reader.close()


@pytest.fixture(scope="session")
def read_page(tmp_path_factory):
    return page_reader(tmp_path_factory.mktemp("page") / "file")
