"""Real processes on this machine for tests: gloo on the loopback interface, and a deadline, so that nothing hangs."""

import os
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

TIMEOUT = 60
"""Seconds after which a process that waits for another gives up."""


def _run(rank: int, size: int, function: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
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
    dist.destroy_process_group()


def until_all_end(
    size: int, function: Callable[..., Any], folder: Path, *arguments: Any, seconds: float = 300
) -> tuple[list[int | None], dict[int, str]]:
    """Run a function of the rank (and arguments) on each of `size` processes, which are one group: their exit codes,
    None of one that hangs, and the errors of those that had one."""
    import torch.multiprocessing

    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=_run, args=(rank, size, function, folder, arguments)) for rank in range(size)]
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


def everywhere(size: int, function: Callable[..., Any], folder: Path, *arguments: Any, seconds: float = 300) -> list:
    """What a function of the rank (and arguments) returns on each of `size` processes, which are one group."""
    codes, errors = until_all_end(size, function, folder, *arguments, seconds=seconds)
    assert not errors, "\n".join(errors.values())
    assert codes == [0] * size
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(size)]
