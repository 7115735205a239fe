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


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    """The target of tests/c/fuzz_reader.c; skips where clang or its runtime is missing."""
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    program = tmp_path_factory.mktemp("fuzzer") / "fuzz_reader"
    sanitize = "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"
    flags = ["-std=c99", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *sanitize, f"-I{HEADER}"]
    command = ["clang", *flags, str(HERE / "c" / "fuzz_reader.c"), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "libclang_rt" in built.stderr:
        pytest.skip("clang's runtime libraries are not installed")
    assert built.returncode == 0, built.stderr
    return program


def test_no_input_makes_the_reader_misbehave(fuzzer, tmp_path):
    """What it finds it writes to the folder, and says how. Whatever opened no file would reach little of the code."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for layout, name in EVERY:
        shutil.copy(path_of(name, layout), corpus / f"{layout}-{name}")
    options = [f"-runs={RUNS}", "-seed=1", "-max_len=8192", "-timeout=10", "-rss_limit_mb=1024"]
    command = [fuzzer, *options, f"-artifact_prefix={tmp_path}/", corpus]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS} runs" in done.stderr
    begin, end = (int(re.findall(rf"{mark}.*?cov: (\d+)", done.stderr)[-1]) for mark in ("INITED", "DONE"))
    assert end > begin > 300
