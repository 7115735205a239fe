"""What the system refuses, in one sentence: which file, what is wrong, what to do.

    [Errno 28] No space left on device    ->    w.safetensors: no space is left on its disk: make room, or ...

The class and `errno` stay; there is no `strerror`, by which such an error is known from one of the system's own.
"""

from __future__ import annotations

import errno
import os

_SENTENCES = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of this path is a file, where a folder would have to be",
    errno.EISDIR: "it is a folder, not a file",
    errno.EACCES: "permission denied: ask who may read and write it, and its folder",
    errno.EPERM: "permission denied: ask who may read and write it, and its folder",
    errno.ENOSPC: "no space is left on its disk: make room, or give a path on another",
    errno.EFBIG: "it would be larger than a file may be here: see ulimit -f, or give a path on another disk",
    errno.EROFS: "its disk is read-only: give a path on another",
    errno.ENAMETOOLONG: "it has a name that is longer than the disk takes: give a shorter one",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "too many files are open: raise the limit, see ulimit -n",
    errno.EIO: "its disk failed: input/output error",
}
if hasattr(errno, "EDQUOT"):
    _SENTENCES[errno.EDQUOT] = "your share of its disk is used up: make room, or give a path on another"


def is_sentence(error: OSError) -> bool:
    """Whether it tells of itself in one sentence: it is none of the system's own."""
    return error.strerror is None


def in_a_sentence(error: OSError, path: str, *, folder: str | None = None) -> OSError:
    """The same error, told in a sentence about a file.

    Args:
        error: as the system raised it.
        path: the file, as sentences show it.
        folder: where the file was to be written; None where it was read.

    >>> str(in_a_sentence(FileNotFoundError(2, "No such file or directory"), "w.npz"))
    'w.npz: there is no such file'
    """
    code = error.errno or 0
    what = _SENTENCES.get(code) or f"the system refuses it: {error.strerror}"
    if code == errno.ENOENT and folder is not None and not os.path.isdir(folder):
        what = f"there is no folder {folder}: make it first"
    told = type(error)(f"{path}: {what}")
    told.errno = error.errno
    return told
