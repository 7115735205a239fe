"""Whom a warning is for: the line that called us, not one of ours or of torch's."""

from __future__ import annotations

import sys


def level_of_the_caller() -> int:
    """How many calls up is the first line that is neither ours nor torch's, as `warnings.warn` counts them."""
    level, frame = 0, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("lnsnum", "torch"):
        level, frame = level + 1, frame.f_back
    return level + 1
