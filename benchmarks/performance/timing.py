"""Medians of interleaved repeats, every side treated alike.

Each side is called twice before anything is timed: it loads, compiles and allocates; the second call tells how often
it is called within one timing, so that one takes a millisecond at least. Then the sides take turns. Before each timing
come a pause, in which threads of the side before that still spin fall asleep, and untimed calls for some milliseconds
where calls are short: threads that wake may share a processor, until the system spreads them. Every side
allocates its result in every call, except those that update weights, and the floor, which copies into given memory.

Where other processes take the processors meanwhile, sides of several threads suffer most, which wait for each other. So
a point that was disturbed is measured anew, and the quietest attempt is kept, with the share that others took of it.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import threadpoolctl
import torch

from benchmarks.performance.cases import COPY, DISTURBED, Call, Case, Point, UnavailableError
from lnsnum.kernels import threads

LEAST = 1e-3
"""Seconds of one timing, at least."""

PAUSE = 5e-3

SPREAD = 1e-2
"""Seconds of untimed calls before each timing; calls that take longer spread their threads by themselves."""

ATTEMPTS = 3


def processors() -> int:
    """On which this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(n: int) -> None:
    """Let lnsnum, torch and NumPy's BLAS use n threads."""
    threads.set_num_threads(n)
    torch.set_num_threads(n)
    threadpoolctl.threadpool_limits(n, user_api="blas")


def copier(traffic: int) -> Call:
    """A copy that reads and writes so many bytes in all, in given memory, on torch's threads."""
    source = torch.ones(max(traffic // 2, 1), dtype=torch.uint8)
    target = torch.ones_like(source)
    return lambda: target.copy_(source)


class Others:
    """The share of the processors' time that other processes take, from when it is made; 0 where no /proc tells."""

    def __init__(self) -> None:
        self.begin = self._read()

    def _read(self) -> tuple[float, float]:
        """Seconds that others were busy, and seconds in all."""
        stat = Path("/proc/stat")
        if not stat.exists():
            return 0.0, 0.0
        fields = [int(field) / os.sysconf("SC_CLK_TCK") for field in stat.read_text().split()[1:9]]
        idle = fields[3] + fields[4]
        return sum(fields) - idle - sum(os.times()[:4]), sum(fields)

    def share(self) -> float:
        """Since then."""
        busy, total = (end - begin for begin, end in zip(self.begin, self._read(), strict=True))
        return max(busy / total, 0.0) if total > 0 else 0.0


def quietest(measure: Callable[[], dict[str, float]], patience: float) -> tuple[dict[str, float], float]:
    """What an attempt found that others did not disturb, or else the least disturbed one, and their share; no more
    attempts after `patience` seconds.
    """
    attempts = []
    begin = time.perf_counter()
    for _ in range(ATTEMPTS):
        others = Others()
        attempts.append((measure(), others.share()))
        if attempts[-1][1] < DISTURBED or time.perf_counter() - begin > patience:
            break
    return min(attempts, key=lambda attempt: attempt[1])


def seconds(call: Call, loops: int = 1) -> float:
    """Of one call, in a loop."""
    begin = time.perf_counter()
    for _ in range(loops):
        call()
    return (time.perf_counter() - begin) / loops


def medians(calls: dict[str, Call], repeats: int, budget: float) -> dict[str, float]:
    """Median seconds of a call of each side; fewer repeats, but three at least, where they take more than `budget`."""
    estimates = {}
    for name, call in calls.items():
        call()
        estimates[name] = seconds(call)
    times: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    for repeat in range(repeats):
        if repeat >= 3 and time.perf_counter() - begin > budget:
            break
        for name, call in calls.items():
            time.sleep(PAUSE)
            if estimates[name] < SPREAD:
                spread = time.perf_counter() + SPREAD
                while time.perf_counter() < spread:
                    call()
            times[name].append(seconds(call, int(LEAST / max(estimates[name], 1e-9)) + 1))
    return {name: statistics.median(series) for name, series in times.items()}


def sweep(
    case: Case,
    counts_of_threads: list[int],
    *,
    largest: int,
    repeats: int,
    budget: float,
    limit: float,
    missing: dict[str, str],
    tell: Callable[[str], None],
) -> list[Point]:
    """The points of a case. A side stops at the size where a call would take more than `limit` seconds, by what it took
    at the size before, on the better number of threads; reasons why sides cannot be measured go to `missing`.
    """
    points: list[Point] = []
    before: dict[str, float] = {}  # seconds for each unit
    for size in (s for s in case.sizes if case.count(s) <= largest):
        data = case.data(size)
        calls: dict[str, Call] = {}
        for name, make in case.sides.items():
            if f"{name} of {case.name}" in missing or before.get(name, 0.0) * case.count(size) > limit * case.patience:
                continue
            try:
                calls[name] = make(data)
            except UnavailableError as error:
                missing[f"{name} of {case.name}"] = str(error)
        if case.floor == COPY:
            calls[COPY] = copier(case.traffic(size))
        estimates: dict[str, float] = {}
        for n in counts_of_threads:
            tell(f"{case.name}, size {size:,}, {n} thread{'s' if n > 1 else ''}")
            use_threads(n)
            found, others = quietest(functools.partial(medians, calls, repeats, budget), patience=2 * budget)
            of_size = size, n, case.unit, case.count(size), case.traffic(size)
            points.append(Point(case.name, *of_size, case.operations, case.baseline, case.floor, found, others))
            estimates = {name: min(value, estimates.get(name, value)) for name, value in found.items()}
        before |= {name: value / case.count(size) for name, value in estimates.items()}
    return points
