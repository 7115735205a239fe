"""What took hours to make is written somewhere, if not where it should be: beside it, or in the temporary folder."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Kept(NamedTuple):
    """Where something was written."""

    path: Path
    trouble: OSError | None
    """Why it is not where it should be; None where it is."""


def keep(path: Path, write: Callable[[Path], object]) -> Kept:
    """Call `write` with a path, and where it cannot write there, with another one.

    Raises:
        OSError: of the path itself, where it can be written nowhere.
    """
    try:
        write(path)
        return Kept(path, None)
    except OSError as error:
        trouble = error
    with contextlib.suppress(OSError):  # the path may have become a folder, or a file that cannot be replaced
        beside = path.with_stem(f"{path.stem}-rescued")
        write(beside)
        return Kept(beside, trouble)
    with contextlib.suppress(OSError):
        folder = Path(tempfile.mkdtemp(prefix="lnsnum-"))
        try:
            write(folder / path.name)
            return Kept(folder / path.name, trouble)
        except OSError:
            folder.rmdir()
            raise
    raise trouble
