"""Every way of asking a process to end, as one: Ctrl-C, SIGTERM of schedulers and containers, SIGHUP of a terminal.

In a block `stopping()` each of them raises `Stopped`, wherever the program is; but what must not be cut, such as a
training step or a file, stands in a block `hold()`, at whose end it is raised, or within it where `check()` is called.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)  # fmt: skip


class Stopped(KeyboardInterrupt):
    """The process was asked to end by a signal. Whoever handles Ctrl-C handles all of them."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number


class _Holding:
    """How many blocks hold signals, and the first signal that came meanwhile."""

    depth = 0
    asked: int | None = None


def _handle(number: int, frame: FrameType | None) -> None:
    if not _Holding.depth:
        raise Stopped(number)
    _Holding.asked = _Holding.asked or number


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Let each of `SIGNALS` raise `Stopped` in this block.

    What is ignored stays ignored, as SIGHUP under nohup. Off the main thread, which alone gets signals, nothing
    changes.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        _Holding.asked = None
        heard = (number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None))
        before = {number: signal.signal(number, _handle) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def hold() -> Iterator[None]:
    """Let signals wait until the block ends; blocks can stand in each other.

    Raises:
        Stopped: at the end of the outermost, where one came.
    """
    _Holding.depth += 1
    try:
        yield
    finally:
        _Holding.depth -= 1
    if not _Holding.depth:
        check()


def asked() -> int:
    """The signal that has come and was held; 0 for none."""
    return _Holding.asked or 0


def check() -> None:
    """Raise Stopped where a signal has come and was held."""
    if number := asked():
        stop(number)


def stop(number: int) -> NoReturn:
    """Raise Stopped by a signal, which need not have come to this process."""
    _Holding.asked = None
    raise Stopped(number)
