"""A few threads for the kernels: chunks of one array, several at a time.

Kernels run without the GIL, so plain threads give the other processors. Which chunk runs where changes no result. The
threads belong to one process: a forked one, such as a DataLoader's worker, makes its own.

There are as many as Numba would use (NUMBA_NUM_THREADS, by default the processors that the process may run on), until
`set_num_threads` says otherwise; `lnsnum.torch_bridge` brings a team of its own.
"""

from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["get_num_threads", "set_num_threads"]

T = TypeVar("T")


class Team(NamedTuple):
    """Threads that can call a function together."""

    size: int
    run: Callable[[Callable[[], None], int], None]
    """run(work, n) calls work on about n of them, the caller's among them, and returns when all calls have ended."""
    region: Callable[[int, int], None] | None = None
    """region(function, data) calls machine code at an address with `data` on all of them, without Python; None where
    they cannot."""


class _Pool:
    """One executor, made when it is first needed in this process."""

    def __init__(self) -> None:
        self.executor: ThreadPoolExecutor | None = None
        self.owner = (0, 0)
        self.lock = Lock()

    def team(self, size: int) -> Team:
        """The caller's thread and those of the executor."""

        def run(work: Callable[[], None], n: int) -> None:
            others: list[Future[None]] = []
            try:
                while len(others) < n - 1:
                    others.append(self.submit(size - 1, work))
            except RuntimeError:  # no thread can be started, or the interpreter is exiting: those that there are do it
                pass
            try:
                work()
            finally:
                for other in others:
                    other.result()

        return Team(size, run)

    def submit(self, threads: int, function: Callable[[], None]) -> Future[None]:
        """Call the function on the executor of this process with so many threads."""
        with self.lock:  # another thread may want another number of them
            # a forked process has the executor of its parent, whose threads were not forked
            owner = (os.getpid(), threads)
            if self.executor is None or self.owner != owner:
                # one of this process: the threads of a parent are not here to be told
                if self.executor is not None and self.owner[0] == owner[0]:
                    self.executor.shutdown(wait=False)
                self.executor, self.owner = ThreadPoolExecutor(threads, thread_name_prefix="lnsnum"), owner
            return self.executor.submit(function)

    def renew_lock(self) -> None:
        """In a forked process, whose parent may have held the lock in another thread."""
        self.lock = Lock()


pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.renew_lock)


_threads = [int(numba.config.NUMBA_NUM_THREADS)]


def get_num_threads() -> int:
    """How many threads the operations on arrays use."""
    return _threads[0]


def set_num_threads(n: int) -> None:
    """Let the operations on arrays use n threads, in the whole process. It changes no result.

    Raises:
        TypeError: where n is no integer.
        ValueError: where it is less than 1.

    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    if not hasattr(n, "__index__"):
        raise TypeError(f"n={n!r} is a {type(n).__name__}: give an integer, 1 or more")
    n = operator.index(n)
    if n < 1:
        raise ValueError(f"n={n} is no number of threads: at least 1")
    _threads[0] = n


def in_chunks(
    function: Callable[[int, int], T],
    size: int,
    least: int,
    *,
    alignment: int = 4096,
    threads: int | Team | None = None,
) -> list[T]:
    """function(begin, end) for chunks that make up range(size), in order; on a team or a number of threads, by default
    `get_num_threads()`. A function that runs in a chunk must not make chunks itself.

    `least` is best some tenths of a millisecond of work: handing a chunk to a thread costs a part of that.
    Chunks are about of one size, of at least `least` elements (the last may be smaller), and begin at multiples of
    `alignment`. There are `PIECES` for each thread, and whoever is free takes the next: other threads of this process,
    such as torch's, which wait for work in a loop, or other programs may hold a processor for a while. What a chunk
    raises is raised, after all have ended.
    """
    team = threads if isinstance(threads, Team) else pool.team(get_num_threads() if threads is None else threads)
    # more chunks than threads, so that a processor that others hold delays a small part only
    count = min(team.size * PIECES if team.size > 1 else 1, size // least)
    if count <= 1:
        return [function(0, size)]
    # at multiples of the alignment no two threads write to one line of the cache
    length = -(-size // (count * alignment)) * alignment
    waiting = deque((begin, min(begin + length, size)) for begin in range(0, size, length))
    results: dict[int, T] = {}
    errors: dict[int, BaseException] = {}

    def work() -> None:
        while True:
            try:
                begin, end = waiting.popleft()
            except IndexError:
                return
            try:
                results[begin] = function(begin, end)
            # kept, not raised: the others' chunks must end before the caller's arrays may go
            except BaseException as error:
                errors[begin] = error

    starts = [begin for begin, _ in waiting]
    team.run(work, min(team.size, len(starts)))
    if errors:
        raise errors[min(errors)]
    return [results[begin] for begin in starts]


PIECES = 4


Part = Callable[[int, int, NDArray[np.int64]], int]
"""A kernel on the elements from the first number to the second: it writes the indices, counted from the first, of those
that it leaves to integers, and returns how many."""


def in_parts(part: Part, size: int, least: int, *, threads: int | Team | None = None) -> NDArray[np.int64]:
    """Run a kernel over all elements, as `in_chunks` does; the indices of those that it leaves open, in order."""

    def run(begin: int, end: int) -> NDArray[np.int64]:
        found, left = [np.empty(0, np.int64)], np.empty(min(end - begin, _LONGEST), np.int64)
        for start in range(begin, end, _LONGEST):
            count = part(start, min(start + _LONGEST, end), left)
            found.append(left[:count] + start)
        return np.concatenate(found)

    return np.concatenate(in_chunks(run, size, least, threads=threads))


_LONGEST = 1 << 18
"""Elements of a part: their indices are 2 MB, of which a few bytes are written. From 4 MB on NumPy asks for huge pages,
and the first touch of one can take milliseconds."""
