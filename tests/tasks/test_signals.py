"""Signals that end a process: one exception for all, held where nothing may be cut; and where work is written then."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from lnsnum.tasks.rescue import keep
from lnsnum.tasks.signals import SIGNALS, Stopped, check, hold, stopping

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def ask(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_is_a_keyboard_interrupt_with_its_number(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as stopped, stopping():
        ask(number)
    assert isinstance(stopped.value, Stopped)
    assert stopped.value.number == number
    assert signal.getsignal(number) == before


def test_held_signals_come_at_the_end_of_the_outermost_block():
    done = []

    def work():
        with stopping(), hold():
            with hold():
                ask(signal.SIGTERM)
                ask(signal.SIGINT)
                done.append("inner")
            done.append("outer")

    with pytest.raises(Stopped) as stopped:
        work()
    assert done == ["inner", "outer"]
    assert stopped.value.number == signal.SIGTERM  # the first


def test_held_signals_come_where_they_are_asked_for():
    done = []

    def work():
        with stopping(), hold():
            check()
            ask(signal.SIGINT)
            done.append("before")
            try:
                check()
            finally:
                ask(signal.SIGINT)  # a second Ctrl-C while the work is written
                done.append("kept")

    with pytest.raises(Stopped):
        work()
    assert done == ["before", "kept"]
    with stopping(), hold():  # and is forgotten
        check()


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping():
            ask(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_change_nothing():
    def inner():
        with stopping():
            handlers.append(signal.getsignal(signal.SIGTERM))

    handlers = [signal.getsignal(signal.SIGTERM)]
    thread = threading.Thread(target=inner)
    thread.start()
    thread.join()
    assert handlers[0] == handlers[1]


# Where work is written.


def test_work_is_written_where_it_should_be(tmp_path):
    assert keep(tmp_path / "w", lambda path: path.write_text("x")) == (tmp_path / "w", None)


def test_beside_it_where_something_is_in_its_place(tmp_path):
    (tmp_path / "w.txt").mkdir()
    path, trouble = keep(tmp_path / "w.txt", lambda path: path.write_text("x"))
    assert (path, path.read_text()) == (tmp_path / "w-rescued.txt", "x")
    assert (trouble.errno, trouble.filename) == (errno.EISDIR, str(tmp_path / "w.txt"))


def test_in_the_temporary_folder_where_its_own_has_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path, trouble = keep(tmp_path / "gone" / "w.txt", lambda path: path.write_text("x"))
    assert (path.name, path.parent.parent, path.read_text()) == ("w.txt", tmp_path, "x")
    assert trouble.errno == errno.ENOENT


def test_the_first_error_is_told_where_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tried = []

    def full(path):
        tried.append(path)
        raise OSError(errno.ENOSPC, "full", str(path))

    with pytest.raises(OSError, match="full") as told:
        keep(tmp_path / "w.txt", full)
    assert told.value.filename == str(tmp_path / "w.txt")
    assert [path.name for path in tried] == ["w.txt", "w-rescued.txt", "w.txt"]
    assert list(tmp_path.iterdir()) == []  # no empty folder is left


def test_they_are_importable_without_torch():
    code = "import sys; sys.modules['torch'] = None; import lnsnum.tasks.signals, lnsnum.tasks.rescue"
    subprocess.run([sys.executable, "-c", code], check=True)
