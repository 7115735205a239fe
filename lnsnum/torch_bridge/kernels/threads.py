"""The threads of torch, for kernels on a tensor's memory.

After each of its operations torch's threads wait for the next one in a loop, for milliseconds, and hold their
processors meanwhile. A pool of threads beside them gets half of a processor at best; so where these threads are those
of GNU's OpenMP, as in torch's Linux builds, the kernels run on them: torch's copy of the library is asked for a
parallel region (`GOMP_parallel`, what GCC makes of `#pragma omp parallel`), in which each thread calls Python and takes
chunks. Elsewhere, and in a forked process, which has no such threads, it is the pool of `lnsnum.kernels.threads`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lnsnum.kernels.threads import Team, pool

_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
# A list, since the callback of the fork can append to it without a `global`.
_forked: list[bool] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forked.append(True))


def torch_team() -> Team:
    """As many threads as torch uses, its own where that is possible."""
    size = torch.get_num_threads()
    # one thread needs no region; a forked process has the library's memory, and none of its threads
    parallel = None if size == 1 or _forked else _gnu_openmp()
    if parallel is None:
        return pool.team(size)

    def run(work: Callable[[], None], _: int) -> None:
        errors: list[BaseException] = []

        def call(data: Any) -> None:
            try:
                work()
            except BaseException as error:  # what leaves a callback is lost
                errors.append(error)

        parallel(_CALLBACK(call), None, size, 0)  # with fewer, the library ends the others, and torch starts them again
        if errors:
            raise errors[0]

    def region(function: int, data: int) -> None:
        parallel(_CALLBACK(function), data, size, 0)

    return Team(size, run, region)


@lru_cache(maxsize=1)
def _gnu_openmp() -> Any:
    """GOMP_parallel of the library that torch brings and has loaded; None where there is none."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | ctypes.RTLD_LOCAL)
        except (OSError, AttributeError):  # not the one that runs, or a system that cannot tell
            continue
        parallel = library.GOMP_parallel
        parallel.argtypes = [_CALLBACK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel
    return None
