"""Any bytes are a weight file or are refused in a sentence: mutants of sound files, many of them.

tests/mutants makes them, tests/mutant_worker.py looks what becomes of each, in a process of its own with little
memory. `pytest -m fuzz tests/files/test_mutants.py` takes a hundred thousand; `python tests/mutants SEED` shows one.
"""

import collections
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mutants
import pytest
from mutant_worker import MISDEEDS, template
from readers import lines_of

from lnsnum.weight_file import load_metadata, load_weights

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="limits of memory as on Linux")

HERE = Path(__file__).parents[1]
FEW, MANY, SETS = 2_000, 100_000, 300
SECONDS = 20


def outcomes(seeds, folder, seconds=SECONDS):
    """(seed, verdict, what is said) of each; of one that ends the worker, how. The next has a new worker."""
    seeds = [str(seed) for seed in seeds]
    found = []
    while len(found) < len(seeds):
        answers, how = _answers(seeds[len(found) :], folder, seconds)
        found += answers
        if len(found) < len(seeds):
            assert answers or not how.startswith("ended with 1"), f"the worker does not start: {how}"
            found.append((seeds[len(found)], "failure", how))
    return found


def _answers(seeds, folder, seconds):
    """What one worker tells until it ends, and how it ended."""
    command = [sys.executable, HERE / "mutant_worker.py", folder, str(seconds)]
    with (
        open(folder / "errors", "w+") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as worker,
    ):
        feeder = threading.Thread(target=_feed, args=(worker, seeds))
        feeder.start()
        told = [json.loads(line) for line in worker.stdout]
        feeder.join()
        status = worker.wait()
        errors.seek(0)
        how = f"no end after {seconds} s" if status == -signal.SIGALRM else f"ended with {status}: {errors.read()}"
    assert [answer["seed"] for answer in told] == seeds[: len(told)]
    return [(answer["seed"], answer["verdict"], answer["says"]) for answer in told], how


def _feed(worker, seeds):
    with contextlib.suppress(BrokenPipeError), worker.stdin:  # it may die
        worker.stdin.write("\n".join(seeds) + "\n")


def in_parallel(seeds, folder, workers):
    """`outcomes` by several workers."""
    folders = [folder / str(number) for number in range(workers)]
    for inner in folders:
        inner.mkdir()
    with ThreadPoolExecutor(workers) as pool:
        parts = pool.map(outcomes, [seeds[number::workers] for number in range(workers)], folders)
        return [outcome for part in parts for outcome in part]


def failures(found):
    """A few lines on each failure: how to see it, how the mutant came about, what is wrong."""
    lines = []
    for seed, verdict, says in found:
        if verdict == "failure":
            lines.append(f"python tests/mutants {seed}\n    {mutants.story(seed)}\n    {says}")
    return lines


def check_none(lines):
    if lines:
        pytest.fail(f"{len(lines)} failures, the first of them:\n" + "\n".join(lines[:20]), pytrace=False)


@pytest.mark.thorough
def test_what_no_mutant_may_do_is_found_and_laid_to_its_seed(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    seeds = [seed for misdeed in MISDEEDS for seed in (misdeed, "0")]
    found = outcomes(seeds, folder, seconds=2)
    assert [seed for seed, _, _ in found] == seeds
    assert {seed for seed, verdict, _ in found if verdict == "failure"} == set(MISDEEDS)
    told = {seed: says for seed, _, says in found}
    assert told["crash"].startswith(f"ended with {-signal.SIGABRT}")
    assert told["hang"] == "no end after 2 s"
    assert told["hoard"].startswith("MemoryError")
    assert told["raise"].startswith("ValueError: invalid literal")
    for misdeed in ("import", "look elsewhere", "write elsewhere", "start a program"):
        assert told[misdeed].startswith("did more than read and write files in its folder: ")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return outcomes(range(FEW), tmp_path_factory.mktemp("mutants"))


def test_mutants_load_or_are_refused_in_a_sentence(few):
    assert len(few) == FEW
    check_none(failures(few))


def test_mutants_are_what_readers_have_to_tell_apart(few):
    """Many load, many are refused, for many reasons, and setting the checksums right lets more through."""
    loads = collections.Counter(mutants.is_repaired(int(seed)) for seed, verdict, _ in few if verdict == "loads")
    reasons = {template(says) for _, verdict, says in few if verdict == "refused"}
    assert loads[True] > loads[False] > FEW // 50
    assert FEW // 10 < loads.total() < FEW // 2
    assert len(reasons) >= 40


def test_a_mutant_is_a_function_of_its_seed():
    assert [mutants.mutant(seed) for seed in range(50)] == [mutants.mutant(seed) for seed in range(50)]
    assert len({mutants.mutant(seed) for seed in range(500)}) > 400


def test_mutants_of_sets_load_or_are_refused_in_a_sentence(tmp_path):
    found = outcomes([f"set:{seed}" for seed in range(SETS)], tmp_path)
    check_none(failures(found))
    assert SETS // 20 < sum(verdict == "loads" for _, verdict, _ in found) < SETS // 2
    assert len({template(says) for _, _, says in found}) >= 15


# ------------------------------------------------------------------------------------------------- the reader in C


def may_differ(in_python, in_c, content):
    """Whether one may refuse what the other reads: empty arrays of sizes too large for NumPy or safetensors, and JSON
    that is nested deep or has numbers that are long or large, for which RFC 8259 lets a reader set limits."""
    return (
        "none that NumPy can hold" in in_python
        or "overflow computing buffer size" in in_python
        or "nested" in in_python + in_c
        or "number out of range" in in_python
        or "number beyond doubles" in in_python
        # in layout 1, whose checksum means nothing, Python tells of the checksum of what it cannot parse
        or ("is not its checksum" in in_python and re.search(rb"[0-9][eE][+]?[0-9]{3}", content) is not None)
        or re.search(rb"[0-9]{1000}", content) is not None
    )


def check_readers_agree(reader, seeds, path):
    differences = []
    for seed in seeds:
        content, story = mutants.mutant_and_story(seed)
        path.write_bytes(content)
        lines, in_c = reader.read(content)
        try:
            expected, in_python = lines_of(load_weights(path), load_metadata(path), content), ""
        except Exception as error:  # others than a WeightFileError are not for this test to tell
            expected, in_python = [], repr(error)
        if bool(in_c) != bool(in_python):
            if not may_differ(in_python, in_c, content):
                differences.append(f"{seed}: {story}\n    Python: {in_python or 'loads'}\n    C: {in_c or 'loads'}")
        elif lines != expected:
            other = next(pair for pair in zip([*lines, ""], [*expected, ""], strict=False) if pair[0] != pair[1])
            differences.append(f"{seed}: {story}\n    C: {other[0]}\n    Python: {other[1]}")
        if in_c and not (in_c.isascii() and in_c.isprintable()):
            differences.append(f"{seed}: {story}\n    not one line of ASCII: {in_c!r}")
    check_none(differences)


def test_the_reader_in_c_agrees(reader_in_c, tmp_path):
    check_readers_agree(reader_in_c, range(FEW), tmp_path / "w.safetensors")


@pytest.mark.fuzz
def test_the_reader_in_c_agrees_on_many(reader_in_c, tmp_path):
    check_readers_agree(reader_in_c, range(FEW, MANY), tmp_path / "w.safetensors")


# ------------------------------------------------------------------------------------------------------------ many more


@pytest.mark.fuzz
def test_many_mutants_load_or_are_refused_in_a_sentence(tmp_path):
    first = int(os.environ.get("LNSNUM_FUZZ_SEED", FEW))
    seeds = [*range(first, first + MANY), *(f"set:{seed}" for seed in range(first, first + MANY // 20))]
    check_none(failures(in_parallel(seeds, tmp_path, os.cpu_count() or 1)))
