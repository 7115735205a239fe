"""A writer that is killed leaves the old weights or the new, whole: kill -9 at any moment, again and again.

A server that has all imported forks a writer for each kill. The writer saves two contents by turns and counts in a
file, before and after each save; so it is known what must be there, or what may.
"""

import collections
import contextlib
import mmap
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lnsnum import LNSTensor, lns6f2, lns8f5
from lnsnum.weight_file import load_metadata, load_weights, save_weights

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")

KILLS = {"file": 100, "file and set": 50, "sets": 50}
"""Kills by what is saved by turns."""

ELEMENTS = 100_000
LEFTOVER = re.compile(r"\.lnsnum-[0-9]+-[0-9a-f]{8}\.tmp")
SOUND = re.compile(r"w(-[0-9a-f]{16}-[0-9]{5}-of-[0-9]{5})?\.safetensors(\.index\.json)?")


def content(number):
    """The weights, the metadata and how they are saved: one of two."""
    rng = np.random.default_rng(number % 2)
    weights = {
        "codes": LNSTensor(rng.integers(0, 256, ELEMENTS, np.uint8), lns8f5, log_offset=number % 2),
        "narrow codes": LNSTensor(rng.integers(0, 64, ELEMENTS, np.uint8), lns6f2),
        "floats": rng.random(ELEMENTS // 4, np.float32),
    }
    return weights, {"number": str(number % 2)}


def save(path, number, kind):
    weights, metadata = content(number)
    in_shards = kind == "sets" or (kind == "file and set" and number % 2)
    save_weights(
        path, weights, metadata=metadata, packed=bool(number % 2), max_shard_bytes=ELEMENTS if in_shards else None
    )


def found(path):
    """Which of the two contents is there. AssertionError where it is neither, or not whole."""
    number = int(load_metadata(path)["number"])
    weights, loaded = content(number)[0], load_weights(path)
    assert sorted(loaded) == sorted(weights)
    for name, expected in weights.items():
        if isinstance(expected, LNSTensor):
            assert (loaded[name].fmt, loaded[name].log_offset) == (expected.fmt, expected.log_offset)
            np.testing.assert_array_equal(loaded[name].codes, expected.codes)
        else:
            np.testing.assert_array_equal(loaded[name], expected)
    return number


def serve(path, count_path, kind):
    """For each line, the number of a content: fork a writer that starts with it, print its pid, wait for its end."""
    save(path, 0, kind)  # both once: what the writers need is compiled and imported before they are forked
    save(path, 1, kind)
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                write_for_ever(path, count_path, kind, int(line))
            finally:
                os._exit(1)
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


def write_for_ever(path, count_path, kind, first):
    with open(count_path, "r+b") as file, mmap.mmap(file.fileno(), 8) as count:  # it outlives the process
        for turn in range(1 << 30):
            count[:] = struct.pack("<Q", 2 * turn + 1)
            save(path, first + turn, kind)
            count[:] = struct.pack("<Q", 2 * turn + 2)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KILLS)
def test_what_a_killed_writer_leaves_is_whole(tmp_path, kind):
    folder, count_path = tmp_path / "folder", tmp_path / "count"
    folder.mkdir()
    path = folder / "w.safetensors"
    numbers, seen = random.Random(kind), collections.Counter()
    server = subprocess.Popen(
        [sys.executable, __file__, path, count_path, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout.readline() == "ready\n"
        save(path, 0, kind)  # here too all has to be imported first
        save(path, 1, kind)
        started = time.perf_counter()
        save(path, 0, kind)
        save(path, 1, kind)
        a_save = (time.perf_counter() - started) / 2
        old_leftovers = []
        for first in range(KILLS[kind]):
            count_path.write_bytes(bytes(8))
            server.stdin.write(f"{first}\n")
            server.stdin.flush()
            pid = int(server.stdout.readline())
            while count_path.read_bytes() == bytes(8):
                time.sleep(0)  # until it saves
            time.sleep(numbers.uniform(0, 2 * a_save))
            os.kill(pid, signal.SIGKILL)
            assert int(server.stdout.readline()) == signal.SIGKILL, "the writer ended by itself"
            (count,) = struct.unpack("<Q", count_path.read_bytes())
            names = os.listdir(folder)
            leftovers = [name for name in names if LEFTOVER.fullmatch(name)]
            assert all(SOUND.fullmatch(name) for name in set(names) - set(leftovers))
            now = found(path)
            if count % 2 == 0:  # between two saves: the last is there
                assert now == (first + count // 2 - 1) % 2
            seen["during a save"] += count % 2
            seen["during a save, new"] += count % 2 and now == (first + count // 2) % 2
            seen["during a save, old"] += count % 2 and now != (first + count // 2) % 2
            seen["leftovers"] += len(set(leftovers) - set(old_leftovers))
            for name in old_leftovers:  # the writer had to do with them
                (folder / name).unlink()
            old_leftovers = [name for name in leftovers if name not in old_leftovers]
    finally:
        with contextlib.suppress(BrokenPipeError):
            server.stdin.close()
        server.stdout.close()
        server.wait(60)
    print(kind, dict(seen), f"{a_save * 1e3:.1f} ms a save")
    assert seen["during a save, old"] > KILLS[kind] // 10
    assert seen["leftovers"] > KILLS[kind] // 10


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
