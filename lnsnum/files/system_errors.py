"""What the system refuses, in one sentence: which file, what is wrong, what to do.

    [Errno 28] No space left on device    ->    w.safetensors: no space is left on its disk: make room, or ...

The class and `errno` stay; there is no `strerror`, by which such an error is known from one of the system's own.
"""

from __future__ import annotations

import errno
import os
import stat

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


def what_is_wrong(error: OSError) -> str:
    """What an error tells in our words, to go on from a file's name; one that is a sentence stays as it is."""
    if is_sentence(error):
        return str(error)
    return _SENTENCES.get(error.errno or 0) or f"the system refuses it: {error.strerror}"


FOLDER = "is a folder"


def what_else(path: str | os.PathLike[str]) -> str | None:
    """What a path leads to where it is no regular file: a folder, or a pipe or device, whose reading may never end.

    None of a regular file, and of what is not there or cannot be looked at: whoever opens that will say so.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: of a NUL
        return None
    if stat.S_ISREG(mode):
        return None
    return FOLDER if stat.S_ISDIR(mode) else "is no regular file"


def in_a_sentence(error: OSError, path: str, *, folder: str | None = None) -> OSError:
    """The same error, told in a sentence about a file.

    Args:
        error: as the system raised it.
        path: the file, as sentences show it.
        folder: where the file was to be written; None where it was read.

    >>> str(in_a_sentence(FileNotFoundError(2, "No such file or directory"), "w.npz"))
    'w.npz: there is no such file'
    """
    what = what_is_wrong(error)
    if error.errno == errno.ENOENT and folder is not None and not os.path.isdir(folder):
        what = f"there is no folder {folder}: make it first"
    told = type(error)(f"{path}: {what}")
    told.errno = error.errno
    return told
