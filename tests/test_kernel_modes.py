"""Kernels give the same bits jitted, as plain Python and with bounds checks; their cache works where it must."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import lnsnum

PACKAGE = Path(lnsnum.__file__).parent

EXERCISE = """
import hashlib, sys
import numpy as np
from lnsnum import LNSFormat, convert, decode, encode, random_bits
from lnsnum.arithmetic import divide, multiply
from lnsnum.torch_bridge.update import first_exponent, madam_step

digest = hashlib.sha256()
random = np.random.default_rng(0)
special = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -1e-310, 1e308]
x = np.concatenate([random.normal(size=60) * 10.0 ** random.integers(-4, 5, 60), special])
x32 = np.concatenate([x[:60].astype(np.float32), np.float32([0, 1e-45, -1e-40, 3e38])])
bits = random_bits(x.shape, seed=3)
for fmt in (LNSFormat(8, 3), LNSFormat(8, 5), LNSFormat(16, 10), LNSFormat(6, 1, base=1.7)):
    for rounding in ("nearest", "toward_zero", "up", "down", "stochastic_log", "stochastic_value"):
        for values in (x, x32, np.float16([1.5, -6e-8, 65504.0, np.inf])):
            own = bits[: values.size] if rounding.startswith("stochastic") else None
            digest.update(encode(values, fmt, rounding=rounding, random_bits=own, log_offset=-2).tobytes())
    codes = encode(x, fmt)
    digest.update(decode(codes, fmt).tobytes())
    for operation in (multiply, divide):
        digest.update(operation(codes, codes[::-1], fmt)[0].tobytes())
        digest.update(operation(codes, codes[::-1], fmt, a_log_offset=3)[0].tobytes())
    gradient = np.concatenate([random.normal(size=codes.size - 4), [0, np.nan, np.inf, 1e-42]]).astype(np.float32)
    for moment in (np.zeros(codes.size, np.uint8), np.zeros(codes.size, np.float32)):
        exponent = first_exponent(gradient)
        for step in (1, 2, 3):
            rounding = "nearest" if step == 3 else "stochastic_log"
            counts = madam_step(codes, gradient, moment, fmt, lr=0.1, step=step, moment_exponent=exponent, start=7,
                                rounding=rounding, seed=5, stream=2)
            digest.update(codes.tobytes() + moment.tobytes() + repr([int(c) for c in counts]).encode())
print(digest.hexdigest())
"""


def run(script, path=None, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=path or PACKAGE.parent,
        env={**os.environ, "PYTHONPATH": str(path or PACKAGE.parent), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_plain_python_and_bounds_checks_give_the_same_bits(tmp_path):
    jitted = run(EXERCISE)
    assert len(jitted) == 64
    assert run(EXERCISE, NUMBA_DISABLE_JIT="1") == jitted
    assert run(EXERCISE, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path)) == jitted


CACHED = """
from lnsnum import encode, lns8f5
from lnsnum import codes
print(encode([1.0, -0.3], lns8f5).tolist(), sum(codes._encode.stats.cache_hits.values()))
"""


def test_the_kernel_cache_works_where_the_package_folder_cannot_be_written(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "lnsnum", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [tmp_path / "lnsnum", *(p for p in (tmp_path / "lnsnum").iterdir() if p.is_dir())]:
        (folder / "__pycache__").touch()  # a file of that name: no folder can be made, not even by root
    environment = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home" / "cache")}
    first = run(CACHED, tmp_path, **environment)
    second = run(CACHED, tmp_path, **environment)
    assert first == "[64, 136] 0"
    assert second == "[64, 136] 1"
    assert all(p.is_file() for p in tmp_path.glob("lnsnum/**/__pycache__"))


def test_two_processes_may_compile_at_once(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", CACHED]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    printed = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(text.startswith("[64, 136]") for text in printed)
    assert run(CACHED, NUMBA_CACHE_DIR=str(tmp_path)) == "[64, 136] 1"
