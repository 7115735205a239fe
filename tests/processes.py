"""Real processes on this machine for tests: gloo on the loopback interface, and a deadline, so that nothing hangs.

Or in network namespaces joined by a cable, as several machines: all that they share then is that, and a folder.
"""

import contextlib
import ctypes
import os
import pickle
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

TIMEOUT = 60
"""Seconds after which a process that waits for another gives up."""


Host = tuple[str, str]
"""A network namespace, and the device in it by which the others are reached."""


def _ip(*arguments: str) -> None:
    """The system's command; skips where it is not there, or may not do this."""
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"network namespaces cannot be made: {error}")
    if done.returncode:
        pytest.skip(f"network namespaces cannot be made: ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextlib.contextmanager
def two_hosts() -> Iterator[list[Host]]:
    """Two network namespaces, as two machines, 10.213.77.1 and 10.213.77.2."""
    names = [f"lnsnum{os.getpid()}{letter}" for letter in "ab"]
    devices = [f"lns{os.getpid() % 10**8}{letter}" for letter in "ab"]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", devices[0], "type", "veth", "peer", "name", devices[1])
        for number, (name, device) in enumerate(zip(names, devices, strict=True), 1):
            _ip("link", "set", device, "netns", name)
            _ip("-n", name, "address", "add", f"10.213.77.{number}/24", "dev", device)
            _ip("-n", name, "link", "set", device, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield list(zip(names, devices, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _enter(namespace: str) -> None:
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"the network namespace {namespace} cannot be entered")


def _run(
    rank: int, size: int, function: Callable[..., Any], folder: Path, arguments: tuple[Any, ...], hosts: list[Host]
) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if hosts:
        namespace, os.environ["GLOO_SOCKET_IFNAME"] = hosts[rank % len(hosts)]
        _enter(namespace)
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=TIMEOUT))
    try:
        found = function(rank, *arguments)
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc())
        raise
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(found))
    dist.barrier()
    leave()


def leave() -> None:
    """End this process's group. Gloo's threads outlive it, and let go of the last tensors a moment later: were Python
    ending by then, the process would be aborted."""
    import torch.distributed as dist

    dist.destroy_process_group()
    time.sleep(0.2)


def until_all_end(
    size: int,
    function: Callable[..., Any],
    folder: Path,
    *arguments: Any,
    seconds: float = 300,
    hosts: list[Host] | None = None,
) -> tuple[list[int | None], dict[int, str]]:
    """Run a function of the rank (and arguments) on each of `size` processes, which are one group, in turn on each of
    `hosts`: their exit codes, None of one that hangs, and the errors of those that had one."""
    import torch.multiprocessing

    context = torch.multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_run, args=(rank, size, function, folder, arguments, hosts or []))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(seconds)
        codes = [process.exitcode for process in processes]
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
    return codes, {int(path.stem): path.read_text() for path in sorted(folder.glob("*.error"))}


def everywhere(size: int, function: Callable[..., Any], folder: Path, *arguments: Any, **options: Any) -> list:
    """What a function of the rank (and arguments) returns on each of `size` processes, as `until_all_end` runs them."""
    codes, errors = until_all_end(size, function, folder, *arguments, **options)
    assert not errors, "\n".join(errors.values())
    assert codes == [0] * size
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(size)]
