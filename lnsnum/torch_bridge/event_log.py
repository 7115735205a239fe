"""A log of a training for TensorBoard: the lines of `lnsnum.files.run_log` as events in a folder.

    loss, lr, codes/moved, codes/at_ceiling, ...     a number for each step
    codes/NAME                                       how often each log magnitude occurs in a weight, now and then

Needs the package tensorboard, whose writer torch wraps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lnsnum.files.atomic import StrPath, shown
from lnsnum.files.run_log import COUNTS


def summary_writer() -> Any:
    """The class of torch's that writes events.

    Raises:
        ImportError: without the package tensorboard.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "events for TensorBoard are written by its package tensorboard, which is not installed: "
            "pip install 'lnsnum[tensorboard]'"
        ) from error
    return SummaryWriter


class EventLog:
    """Events that are being written.

    Args:
        folder: where they go; beside those of other runs that are there.
        after: a run is resumed: TensorBoard forgets what the folder has of later steps.

    Raises:
        ImportError: see `summary_writer`.
        OSError: where the folder cannot be written.
    """

    def __init__(self, folder: StrPath, *, after: int = 0) -> None:
        make = summary_writer()
        try:
            self._events = make(str(folder), purge_step=after + 1 if after else None)
        except (FileExistsError, NotADirectoryError):
            raise NotADirectoryError(f"{shown(folder)} is a file: TensorBoard's events go to a folder") from None

    def write(self, line: Mapping[str, Any]) -> None:
        """Add what a line of a log has of numbers, and its histograms. A number that is not known is no event."""
        step = line["step"]
        for name, entry in line.items():
            value = entry.tolist() if hasattr(entry, "tolist") else entry  # scalars of torch and NumPy
            if name not in ("step", "seconds") and isinstance(value, (int, float)) and not isinstance(value, bool):
                self._events.add_scalar(f"codes/{name}" if name in COUNTS else name, value, step)
        for name, counts in line.get("histograms", {}).items():
            self._add_histogram(f"codes/{name}", counts, step)
        self._events.flush()

    def _add_histogram(self, tag: str, counts: list[int], step: int) -> None:
        """A bin for each log magnitude m: its upper end is m + 1/2."""
        total, sums = sum(counts), [sum(m**power * count for m, count in enumerate(counts)) for power in (1, 2)]
        present = [m for m, count in enumerate(counts) if count] or [0]
        ends = [m + 0.5 for m in range(len(counts))]
        self._events.add_histogram_raw(tag, present[0], present[-1], total, *sums, ends, counts, step)

    def close(self) -> None:
        """Close the file."""
        self._events.close()
