"""Pages of a checkpoint that have been read are given back, one tensor after the other.

transformers maps its files and keeps them mapped until the last tensor is loaded, so that resident memory grows by all
of the floats, though nobody needs them. The pages are those of a file and not changed: the system reads them again,
should anybody ask.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import torch

_MAPS = Path("/proc/self/maps")


def give_back(tensor: torch.Tensor, files: Iterable[str]) -> bool:
    """Let the pages of a tensor go, if it lies in one of these files, mapped; whether they were.

    Only whole pages, and only where the system says that it is the file's memory: what is anywhere else would be lost.
    """
    advice = getattr(mmap, "MADV_DONTNEED", None)
    if advice is None or not _MAPS.exists() or tensor.device.type != "cpu" or not tensor.is_contiguous():
        return False
    begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    begin, end = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    if begin >= end:
        return False
    real = {os.path.realpath(file) for file in files}
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        place, *_, path = line.split(maxsplit=5) if line.count("/") else (line.split()[0], "")
        low, high = (int(address, 16) for address in place.split("-"))
        if low <= begin and end <= high:
            if path not in real:
                return False
            libc = ctypes.CDLL(None, use_errno=True)
            return bool(libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice) == 0)
    return False
