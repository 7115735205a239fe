"""Starting: what `import lnsnum` and the first training step of `lnsnum train` cost, each time in a fresh process.

`import lnsnum` stands beside the import of what it is built on; `lnsnum train`, stopped after its first step, beside a
program that only imports torch, with kernels that an earlier start compiled, and with a cache that is empty.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.performance.cases import OWN, Call, Point
from benchmarks.performance.timing import Others, medians, processors, quietest, seconds
from benchmarks.startup import FIRST_STEP, user
from benchmarks.startup import seconds as run

IMPORT, FIRST, LATER = "import lnsnum", "lnsnum train, first start", "lnsnum train, later starts"
NUMPY_NUMBA, IMPORT_TORCH, PYTHON = "import numpy, numba", "import torch", "Python alone"


def _point(case: str, baseline: str, found: dict[str, float], others: float) -> Point:
    return Point(case, 1, processors(), "start", 1, 0, "imports", baseline, PYTHON, found, others)


def points(repeats: int, tell: Callable[[str], None]) -> list[Point]:
    """The three points; the first start compiles for seconds, and is taken once."""
    with tempfile.TemporaryDirectory() as folder:
        environment = user(str(Path(folder) / "cache"))
        train = FIRST_STEP.format(out=str(Path(folder) / "weights.safetensors"))

        def call(code: str) -> Call:
            return functools.partial(run, code, environment)

        tell(f"{FIRST}, kernels compiled")
        while_compiling = Others()
        compiling = seconds(call(train))
        compiling_others = while_compiling.share()
        tell(f"{IMPORT}, {LATER}")
        calls = {
            IMPORT: call("import lnsnum"),
            NUMPY_NUMBA: call("import numpy, numba"),
            LATER: call(train),
            IMPORT_TORCH: call("import torch"),
            PYTHON: call("pass"),
        }
        found, others = quietest(functools.partial(medians, calls, repeats, budget=60.0), patience=60.0)
    numbers = {PYTHON: found[PYTHON], IMPORT_TORCH: found[IMPORT_TORCH]}
    return [
        _point(
            IMPORT, NUMPY_NUMBA, {OWN: found[IMPORT], NUMPY_NUMBA: found[NUMPY_NUMBA], PYTHON: found[PYTHON]}, others
        ),
        _point(FIRST, IMPORT_TORCH, {OWN: compiling, **numbers}, compiling_others),
        _point(LATER, IMPORT_TORCH, {OWN: found[LATER], **numbers}, others),
    ]
