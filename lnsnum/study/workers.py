"""Processes that stay, each with one thread for its arithmetic: what they are handed is done by whoever is free.

Each is joined by a pipe of its own, so that it is known what a process that dies was doing. They end with their parent,
whatever ends that, and leave Ctrl-C to it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, NamedTuple, Self, TypeVar

from lnsnum.tasks import TaskError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Outcome(NamedTuple, Generic[Item, Result]):
    """What became of an item."""

    item: Item
    result: Result | None
    failure: str | None
    """The exception in one line, or how the process ended; None where there is a result."""


class Workers(Generic[Item, Result]):
    """At most so many processes that call one function; all are killed when the `with` block ends.

    Args:
        jobs: how many; they are started when there is work for them.
        function: called with an item in a process; it is imported there, so it stands in a module.
    """

    def __init__(self, jobs: int, function: Callable[[Item], Result]) -> None:
        self.jobs, self.function = jobs, function
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, Item]] = {}

    @property
    def busy(self) -> list[Item]:
        """What is being done."""
        return [item for _, item in self._busy.values()]

    @property
    def has_room(self) -> bool:
        """Whether another item can be handed over."""
        return len(self._busy) < self.jobs

    def hand(self, item: Item) -> None:
        """Let a free process do it."""
        self._idle = [worker for worker in self._idle if worker.process.is_alive()]
        worker = self._idle.pop() if self._idle else _start(self.function)
        self._busy[worker.connection] = worker, item
        with contextlib.suppress(BrokenPipeError):  # it has died: `next` will say so
            worker.connection.send(item)

    def next(self) -> Outcome[Item, Result]:
        """Wait for one that is done.

        Raises:
            TaskError: where a process ended before it had started: the others would too.
        """
        connection: Any = wait(list(self._busy))[0]
        worker, item = self._busy[connection]
        try:
            message = connection.recv()
        except (EOFError, ConnectionError):
            del self._busy[connection]
            worker.process.join()
            if not worker.started:
                raise TaskError(f"a process ended before its first run: {_ending(worker.process)}") from None
            return Outcome(item, None, f"its process ended: {_ending(worker.process)}")
        if message is _STARTED:
            worker.started = True
            return self.next()
        del self._busy[connection]
        self._idle.append(worker)
        return Outcome(item, *message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        workers = [*self._idle, *(worker for worker, _ in self._busy.values())]
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.connection.close()


_STARTED = None
"""The first message of a process; the others are pairs."""


class _Worker:
    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process, self.connection, self.started = process, connection, False


def _start(function: Callable[[Any], Any]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, function), daemon=True)
    with _interrupts_ignored(), _safe_path():
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that are started meanwhile ignore Ctrl-C from their first instruction on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Processes that are started meanwhile import nothing from the current folder: there may be a `pickle.py` in it.

    Python puts that folder first where it is told by -c what to run, as multiprocessing does.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


_SAFE_PATH = "PYTHONSAFEPATH"


def _ending(process: BaseProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        hint = " (is there not enough memory?)" if -code == signal.SIGKILL else ""
        return f"killed by signal {-code}{hint}"
    return f"exit code {code}"


def _work(connection: Connection, function: Callable[[Any], Any]) -> None:
    """What a process does: it takes items and sends pairs of a result and a failure, until its parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    from lnsnum.kernels.threads import set_num_threads

    torch.set_num_threads(1)
    set_num_threads(1)
    connection.send(_STARTED)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            item = connection.recv()
            try:
                message: tuple[Any, str | None] = function(item), None
            except Exception as error:
                kind = "" if isinstance(error, TaskError) else f"{type(error).__name__}: "
                message = None, " ".join(f"{kind}{error}".split())
            connection.send(message)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
