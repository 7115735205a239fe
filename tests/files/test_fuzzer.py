"""lnsnum.h under libFuzzer: a short run from the golden files, with clang's sanitizers."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from weight_file_fixtures import EVERY, path_of

HERE = Path(__file__).parents[1]
HEADER = HERE.parent / "lnsnum" / "c"
RUNS = 20_000


def built(folder, header):
    """The target of tests/c/fuzz_reader.c for a folder with lnsnum.h; skips where clang or its runtime is missing."""
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    program = folder / "fuzz_reader"
    sanitize = "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"
    flags = ["-std=c99", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *sanitize, f"-I{header}"]
    command = ["clang", *flags, str(HERE / "c" / "fuzz_reader.c"), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "libclang_rt" in done.stderr:
        pytest.skip("clang's runtime libraries are not installed")
    assert done.returncode == 0, done.stderr
    return program


def fuzz(program, folder):
    """A run from the golden files; what it finds it writes to the folder."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for layout, name in EVERY:
        shutil.copy(path_of(name, layout), corpus / f"{layout}-{name}")
    # the system counts the memory of the process that started it, too: what it allocates itself is limited
    memory = ["-rss_limit_mb=0", "-malloc_limit_mb=256"]
    options = [f"-runs={RUNS}", "-seed=1", "-max_len=8192", "-timeout=10", *memory]
    command = [program, *options, f"-artifact_prefix={folder}/", corpus]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.thorough
def test_no_input_makes_the_reader_misbehave(tmp_path):
    """Whatever opened no file would reach little of the code."""
    done = fuzz(built(tmp_path, HEADER), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS} runs" in done.stderr
    begin, end = (int(re.findall(rf"{mark}.*?cov: (\d+)", done.stderr)[-1]) for mark in ("INITED", "DONE"))
    assert end > begin > 300


@pytest.mark.thorough
def test_a_bound_that_is_missing_is_found(tmp_path):
    """A header that may be longer than the file."""
    text = (HEADER / "lnsnum.h").read_text()
    bound = " || length > size - 8)"
    assert text.count(bound) == 1
    (tmp_path / "lnsnum.h").write_text(text.replace(bound, ")"))
    done = fuzz(built(tmp_path, tmp_path), tmp_path)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert list(tmp_path.glob("crash-*"))
