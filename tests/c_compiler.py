"""The C compiler of this machine, for tests that build programs and libraries."""

import shutil

import pytest

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def c_compiler():
    """Its path; skips the test where there is none."""
    return shutil.which("gcc") or shutil.which("cc") or pytest.skip("there is no C compiler")
