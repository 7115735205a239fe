"""Kernels give the same bits jitted, as plain Python and with bounds checks; their cache works where it must."""

import gc
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.registry import CPUDispatcher

import lnsnum

PACKAGE = Path(lnsnum.__file__).parent

EXERCISE = """
import hashlib, sys
import numpy as np
from lnsnum import LNSFormat, convert, decode, encode, random_bits
from fractions import Fraction
from lnsnum import arithmetic, reduction
from lnsnum.arithmetic import divide, multiply
from lnsnum.torch_bridge.kernels.moments import first_exponent
from lnsnum.torch_bridge.kernels.update import madam_step

digest = hashlib.sha256()
random = np.random.default_rng(0)
special = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -1e-310, 1e308]
x = np.concatenate([random.normal(size=60) * 10.0 ** random.integers(-4, 5, 60), special])
x32 = np.concatenate([x[:60].astype(np.float32), np.float32([0, 1e-45, -1e-40, 3e38])])
bits = random_bits(x.shape, seed=3)
narrow = (LNSFormat(8, 3), LNSFormat(8, 5), LNSFormat(16, 10), LNSFormat(6, 1, base=1.7))
for fmt in (*narrow, LNSFormat(32, 23), LNSFormat(20, 17, base=3.0)):
    for rounding in ("nearest", "toward_zero", "up", "down", "stochastic_log", "stochastic_value"):
        for values in (x, x32, np.float16([1.5, -6e-8, 65504.0, np.inf])):
            own = bits[: values.size] if rounding.startswith("stochastic") else None
            digest.update(encode(values, fmt, rounding=rounding, random_bits=own, log_offset=-2).tobytes())
    for values in (np.resize(x, 1100), np.resize(x32, 1100)):  # enough for the loops in vectors
        for rounding in ("nearest", "down", "stochastic_log", "stochastic_value"):
            with np.errstate(all="ignore"):  # plain Python's operations are NumPy's, which warn
                digest.update(encode(values, fmt, rounding=rounding, seed=7, underflow="saturate").tobytes())
    codes = encode(x, fmt)
    digest.update(decode(codes, fmt).tobytes())
    for operation in (multiply, divide):
        digest.update(operation(codes, codes[::-1], fmt)[0].tobytes())
        digest.update(operation(codes, codes[::-1], fmt, a_log_offset=3)[0].tobytes())
    b, c = codes[::-1], np.roll(codes, 5)
    for rounding in ("nearest", "up", "stochastic_value"):
        modes = {"rounding": rounding, "random_bits": bits if rounding.startswith("stochastic") else None}
        for name in ("add", "subtract", "multiply", "float_power"):
            operation = getattr(arithmetic, name)
            digest.update(operation(codes, b, fmt, **modes)[0].tobytes())
            if name != "float_power":
                digest.update(repr(operation(codes, b, fmt, a_log_offset=7, **modes)[1]).encode())
        for name in ("sqrt", "square", "reciprocal", "exp", "exp2", "log", "log2"):
            digest.update(getattr(arithmetic, name)(codes, fmt, **modes)[0].tobytes())
        digest.update(arithmetic.fma(codes, b, c, fmt, **modes)[0].tobytes())
        digest.update(arithmetic.power(codes, Fraction(2, 3), fmt, **modes)[0].tobytes())
    wide = LNSFormat(16, 10) if fmt.base == 2.0 and fmt.bits <= 16 else fmt
    some = codes[:60].reshape(6, 10)
    for order in ("sequential", "pairwise"):
        digest.update(reduction.matmul(some, some.T, fmt, accumulator=wide, order=order)[0].tobytes())
    digest.update(reduction.mean(codes[:60], fmt, accumulator=wide)[0].tobytes())
    if fmt not in narrow:
        continue
    gradient = np.concatenate([random.normal(size=codes.size - 4), [0, np.nan, np.inf, 1e-42]]).astype(np.float32)
    rules = [{"rule": "paper", "rounding": mode} for mode in ("stochastic_log", "stochastic_value", "nearest")]
    rules += [{"rule": "paper", "zero": "leave"}]
    rules += [{"unit": 3.0}, {"unit": np.float32([0.5, 40.0]), "inner": 5, "zero": "keep"}]
    for rule in rules:
        for moment in (np.zeros(codes.size, np.uint8), np.zeros(codes.size, np.float32)):
            exponent, momentum, stepped = first_exponent(gradient), np.zeros(codes.size, np.uint8), codes.copy()
            for step in (1, 2):
                with np.errstate(all="ignore"):  # plain Python's operations are NumPy's, which warn
                    counts = madam_step(stepped, gradient, moment, fmt, lr=0.1, step=step, exponent=exponent,
                                        start=(1 << 32) - 9, momentum=0.5, momentum_codes=momentum, weight_decay=0.1,
                                        seed=5, stream=2, **rule)
                digest.update(stepped.tobytes() + moment.tobytes() + momentum.tobytes())
                digest.update(repr([int(c) for c in counts]).encode())
print(digest.hexdigest())
"""


def run(script, path=None, *, warned=False, **environment):
    """What a script prints; `warned`: and what it warns of, where a warning is an error otherwise."""
    done = subprocess.run(
        [sys.executable, "-W", "always" if warned else "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=path or PACKAGE.parent,
        env={**os.environ, "PYTHONPATH": str(path or PACKAGE.parent), **environment},
    )
    assert done.returncode == 0, done.stderr
    return (done.stdout.strip(), done.stderr) if warned else done.stdout.strip()


@pytest.mark.long  # all kernels are compiled anew: `.ci/run` asks for it by itself
def test_plain_python_and_bounds_checks_give_the_same_bits(tmp_path):
    jitted = run(EXERCISE)
    assert len(jitted) == 64
    assert run(EXERCISE, NUMBA_DISABLE_JIT="1") == jitted
    assert run(EXERCISE, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path)) == jitted


CACHED = """
from lnsnum import encode, lns8f5
from lnsnum.kernels import scalar_encoding
print(encode([1.0, -0.3], lns8f5).tolist(), sum(scalar_encoding._encode_by_thresholds.stats.cache_hits.values()))
"""


@pytest.fixture
def read_only(tmp_path):
    """A folder with a copy of the package in which no cache can be made."""
    shutil.copytree(PACKAGE, tmp_path / "lnsnum", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [tmp_path / "lnsnum", *(p for p in (tmp_path / "lnsnum").rglob("*") if p.is_dir())]:
        (folder / "__pycache__").touch()  # a file of that name: no folder can be made, not even by root
    return tmp_path


def test_the_kernel_cache_works_where_the_package_folder_cannot_be_written(read_only):
    environment = {"HOME": str(read_only / "home"), "XDG_CACHE_HOME": str(read_only / "home" / "cache")}
    first = run(CACHED, read_only, **environment)
    second = run(CACHED, read_only, **environment)
    assert first == "[64, 136] 0"
    assert second == "[64, 136] 1"
    assert all(p.is_file() for p in read_only.glob("lnsnum/**/__pycache__"))


NOWHERE = (
    r"\S+compiling\.py:\d+: RuntimeWarning: lnsnum cannot keep its compiled kernels, as {}: every process compiles "
    r"them anew, which is slow, unless NUMBA_CACHE_DIR names a folder that can be written\n  _say_once\(.*\)\n"
)
NAMELESS = f"""
import os, pwd
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
os.environ.pop("HOME", None)
os.environ.pop("XDG_CACHE_HOME", None)
{CACHED}"""


@pytest.mark.thorough
@pytest.mark.parametrize("script", [CACHED, NAMELESS], ids=["HOME is no folder", "no HOME, no name"])
def test_kernels_are_compiled_anew_where_no_folder_can_be_written(read_only, script):
    (read_only / "home").touch()
    environment = {"HOME": str(read_only / "home"), "XDG_CACHE_HOME": str(read_only / "home" / "cache")}
    before = sorted(read_only.iterdir())
    printed, said = run(script, read_only, warned=True, **environment)
    assert printed == "[64, 136] 0"
    assert re.fullmatch(NOWHERE.format("neither its own folder nor a cache folder of the user's can be written"), said)
    assert sorted(read_only.iterdir()) == before
    assert run(script, read_only, **environment, NUMBA_CACHE_DIR=str(read_only / "cache")) == "[64, 136] 0"
    assert run(script, read_only, **environment, NUMBA_CACHE_DIR=str(read_only / "cache")) == "[64, 136] 1"


def test_a_disk_without_room_costs_the_cache_alone(tmp_path):
    small = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)){CACHED}"
    printed, said = run(small, warned=True, NUMBA_CACHE_DIR=str(tmp_path))
    assert printed == "[64, 136] 0"
    assert re.fullmatch(NOWHERE.format("the system says 'file too large'"), said)


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "length"), [("nbi", 0), ("nbc", 50)])
def test_a_cache_that_a_crash_cut_short_is_made_anew(tmp_path, kind, length):
    run(CACHED, NUMBA_CACHE_DIR=str(tmp_path))
    for path in tmp_path.rglob(f"*.{kind}"):
        os.truncate(path, length)
    assert run(CACHED, NUMBA_CACHE_DIR=str(tmp_path)) == "[64, 136] 0"
    assert run(CACHED, NUMBA_CACHE_DIR=str(tmp_path)) == "[64, 136] 1"


def test_two_processes_may_compile_at_once(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", CACHED]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    printed = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(text.startswith("[64, 136]") for text in printed)
    assert run(CACHED, NUMBA_CACHE_DIR=str(tmp_path)) == "[64, 136] 1"


def test_no_kernel_is_made_with_another_in_its_closure():
    """The machine code on disk is found by the constants of a closure, and a kernel among them is another each time."""
    # not isinstance, by which some objects of torch warn
    made = [one for one in gc.get_objects() if type(one) is CPUDispatcher]
    cells = {one: one.py_func.__closure__ or () for one in made if one.py_func.__module__.startswith("lnsnum.")}
    assert any(cells.values())
    with_kernels = [
        f"{one.py_func.__module__}.{one.py_func.__qualname__}"
        for one, closed in cells.items()
        if any(isinstance(cell.cell_contents, CPUDispatcher) for cell in closed)
    ]
    assert with_kernels == []
