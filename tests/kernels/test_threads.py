"""Chunks on threads: what runs where changes no result, in forked processes and under several callers too."""

import itertools
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from lnsnum import encode, lns8f5
from lnsnum.kernels import threads as lnsnum_threads
from lnsnum.kernels.threads import PIECES, get_num_threads, in_chunks, set_num_threads
from lnsnum.torch_bridge.kernels import threads as bridge_threads
from lnsnum.torch_bridge.kernels.threads import torch_team
from lnsnum.torch_bridge.kernels.update import madam_step

ALIGNMENT = 4096
LEAST = 1 << 17
"""Elements of a chunk of madam_step, at least."""


AT_EXIT = """
import atexit
import numpy as np
from lnsnum import encode, lns8f5
from lnsnum.kernels import threads
threads.set_num_threads(2)
x = np.random.default_rng(0).normal(size=2_000_000).astype(np.float32)
{before}
atexit.register(lambda: print(int(encode(x, lns8f5).sum(dtype=np.int64))))
"""


@pytest.mark.parametrize("before", ["", "encode(x, lns8f5)"], ids=["no pool", "a pool that has ended"])
def test_operations_work_while_the_interpreter_exits(before):
    """When no thread can be started any more."""
    done = subprocess.run([sys.executable, "-c", AT_EXIT.format(before=before)], capture_output=True, text=True)
    assert done.returncode == 0
    x = np.random.default_rng(0).normal(size=2_000_000).astype(np.float32)
    assert (done.stdout.strip(), done.stderr) == (str(int(encode(x, lns8f5).sum(dtype=np.int64))), "")


@contextmanager
def threads(n: int):
    before = torch.get_num_threads(), get_num_threads()
    torch.set_num_threads(n)
    set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        set_num_threads(before[1])


def bounds(begin: int, end: int) -> tuple[int, int]:
    return begin, end


# ------------------------------------------------------------------------------------------------------------ in_chunks


@pytest.mark.parametrize("n", [1, 2, 3, 16])
@pytest.mark.parametrize("least", [1, 1000, LEAST])
def test_chunks_make_up_the_range_in_order(n, least):
    sizes = {0, 1, 999, 4095, 4096, 4097, 8192, 100_001}
    sizes |= {k * least + d for k in (1, 2, 3, 16, 17) for d in (-1, 0, 1)}
    with threads(n):
        for size in sizes:
            chunks = in_chunks(bounds, size, least)
            assert chunks[0][0] == 0
            assert chunks[-1][1] == size
            assert all(a[1] == b[0] for a, b in itertools.pairwise(chunks))
            assert len(chunks) <= max(1, min(n * PIECES if n > 1 else 1, size // least))
            assert all((end - begin) % ALIGNMENT == 0 and end - begin >= least for begin, end in chunks[:-1])
            assert all(begin < end for begin, end in chunks) or size == 0
            if size < 2 * least or n == 1:
                assert len(chunks) == 1


def test_there_are_some_chunks_for_each_thread_where_there_is_enough():
    for n, count in ((1, 1), (2, 2 * PIECES), (3, 3 * PIECES)):
        with threads(n):
            assert len(in_chunks(bounds, 24 * LEAST, LEAST)) == count


def test_a_free_thread_takes_what_a_slow_one_leaves():
    """The first chunk waits until all the others have ended."""
    ended, all_others = [], threading.Event()

    def run(begin, end):
        if begin == 0:
            assert all_others.wait(60)
        ended.append(begin)
        if len(ended) == 2 * PIECES - 1:
            all_others.set()

    with threads(2):
        in_chunks(run, 2 * PIECES * ALIGNMENT, ALIGNMENT)
    assert ended[-1] == 0


def test_the_number_of_threads_is_an_integer_from_1_on():
    before = get_num_threads()
    for n, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)):
        with pytest.raises(error):
            set_num_threads(n)
    assert get_num_threads() == before


def test_chunks_run_at_the_same_time_and_one_on_the_caller_s_thread():
    """Each of three chunks waits for the others."""
    barrier, names = threading.Barrier(3, timeout=60), []

    def meet(begin, end):
        barrier.wait()
        names.append(threading.current_thread().name)

    with threads(3):
        in_chunks(meet, 3 * ALIGNMENT, ALIGNMENT)
    assert names.count(threading.current_thread().name) == 1
    assert sum(name.startswith("lnsnum") for name in names) == 2


@pytest.mark.parametrize("failing", [(0,), (1,), (2,), (1, 2), (0, 2)])
@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_what_a_chunk_raises_is_raised_after_all_have_ended(failing, error):
    ended = []

    def run(begin, end):
        chunk = begin // ALIGNMENT
        time.sleep(0.0 if chunk in failing else 0.05)
        ended.append(chunk)
        if chunk in failing:
            raise error(chunk)

    with threads(3):
        with pytest.raises(error) as caught:
            in_chunks(run, 3 * ALIGNMENT, ALIGNMENT)
        assert sorted(ended) == [0, 1, 2]
        assert caught.value.args[0] == failing[0]
        assert in_chunks(bounds, 3 * ALIGNMENT, ALIGNMENT)[-1] == (2 * ALIGNMENT, 3 * ALIGNMENT)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_torch_s_team_calls_on_as_many_threads_as_asked(n):
    """Each waits for the others; what one raises comes out when all have ended."""
    with threads(n):
        team = torch_team()
    barrier, called = threading.Barrier(n, timeout=60), []

    def work():
        called.append(barrier.wait())
        if len(called) == n:
            raise KeyError("the last")

    assert team.size == n
    with pytest.raises(KeyError, match="the last"):
        team.run(work, n)
    assert sorted(called) == list(range(n))
    done = []
    team.run(lambda: done.append(1), n)
    assert len(done) == n


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU's OpenMP")
def test_few_chunks_end_none_of_torch_s_threads():
    """Those that its next operation would have to start again."""
    script = """
import os, torch
from lnsnum.torch_bridge import LNSWeight
torch.set_num_threads(6)
x, w = torch.ones(1 << 22), torch.ones(700_000)
counts = set()
for _ in range(3):
    (x + 1).sum()
    LNSWeight.from_float(w, "lns8f5")
    counts.add(len(os.listdir("/proc/self/task")))
print(len(counts))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU's OpenMP")
def test_the_team_is_the_pool_where_torch_s_threads_cannot_be_had(monkeypatch):
    monkeypatch.setattr(bridge_threads, "_gnu_openmp", lambda: None)
    with threads(2):
        in_chunks(lambda begin, end: begin, 3 * ALIGNMENT, ALIGNMENT, threads=torch_team())
        monkeypatch.undo()
        monkeypatch.setattr(bridge_threads, "_forked", [True])
        assert len(in_chunks(bounds, 3 * ALIGNMENT, ALIGNMENT, threads=torch_team())) == 3


# ----------------------------------------------------------------------------------------------------------- madam_step


def stepped(size: int, **arguments) -> tuple[bytes, bytes, bytes, tuple]:
    """All that one step leaves."""
    index = np.arange(size)
    codes, moment, momentum = (index * k % 251 for k in (1, 3, 5))
    codes, moment, momentum = codes.astype(np.uint8), moment.astype(np.uint8), (momentum % 128).astype(np.uint8)
    gradient = np.sin(index).astype(np.float32)
    arguments = {"lr": 0.05, "step": 2, "momentum": 0.9, "unit": 5.0, **arguments}
    counts = madam_step(codes, gradient, moment, lns8f5, momentum_codes=momentum, **arguments)
    return codes.tobytes(), moment.tobytes(), momentum.tobytes(), counts


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_the_number_of_threads_and_the_chunk_borders_change_nothing(k, off):
    size = LEAST * k + off
    results = []
    for n in (1, 2, 3):
        with threads(n):
            results.append(stepped(size))
    assert results[0] == results[1] == results[2]


def at_once(*functions) -> list:
    """What the functions return, each on a thread of its own, all at the same time; what one raises is raised."""
    results, errors = [None] * len(functions), []
    barrier = threading.Barrier(len(functions), timeout=60)

    def call(i):
        try:
            barrier.wait()
            results[i] = functions[i]()
        except BaseException as error:
            errors.append(error)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(len(functions))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    if errors:
        raise errors[0]
    return results


def test_two_threads_may_step_at_once():
    with threads(2):
        alone = [stepped(400_003, seed=i) for i in (0, 1)]
        for _ in range(5):
            assert at_once(lambda: stepped(400_003, seed=0), lambda: stepped(400_003, seed=1)) == alone


def test_a_caller_with_another_number_of_threads_does_not_end_the_pool_of_the_first(monkeypatch):
    """torch's number of threads is one for each thread. Here the other's call falls just before the first's submit."""
    others, found = [], []

    def other():
        torch.set_num_threads(3)
        found.append(in_chunks(bounds, 3 * ALIGNMENT, ALIGNMENT, threads=torch.get_num_threads()))

    class Interrupted(ThreadPoolExecutor):
        def submit(self, *args):
            if not others:
                others.append(threading.Thread(target=other))
                others[0].start()
                others[0].join(timeout=1.0)  # it may wait until the first is done
            return super().submit(*args)

    monkeypatch.setattr(lnsnum_threads, "ThreadPoolExecutor", Interrupted)
    monkeypatch.setattr(lnsnum_threads, "pool", lnsnum_threads._Pool())
    with threads(2):
        assert len(in_chunks(bounds, 3 * ALIGNMENT, ALIGNMENT)) == 3
    others[0].join(timeout=60)
    assert len(found[0]) == 3


# ------------------------------------------------------------------------------------------------------ other processes

FORKED = """
import os, sys, warnings
sys.path.insert(0, {tests!r})
from test_threads import stepped, torch
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
torch.set_num_threads(2)
expected = stepped(400_001)
child = os.fork()
if child == 0:
    status = 1
    try:
        status = 0 if stepped(400_001) == expected and stepped(400_001) == expected else 3
    finally:
        os._exit(status)
assert stepped(400_001) == expected
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""

LOADED = """
import sys, warnings
sys.path.insert(0, {tests!r})
from test_threads import stepped, torch
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

class Steps(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        torch.set_num_threads(2)
        return repr(stepped(400_001, seed=i))

if __name__ == "__main__":
    torch.set_num_threads(2)
    expected = [repr(stepped(400_001, seed=i)) for i in range(4)]
    loader = torch.utils.data.DataLoader(Steps(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert list(loader) == expected
"""


@pytest.mark.thorough
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")
@pytest.mark.parametrize("script", [FORKED, LOADED], ids=["fork", "DataLoader"])
def test_a_forked_process_steps_on_threads_of_its_own(script):
    script = script.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
