"""Times of the elementwise operations and of the bit-true matrix product, as ratios to NumPy in the same run.

    python benchmarks/arithmetic.py

Medians of interleaved repeats over 2^20 normally distributed numbers, one array in, one out; both sides allocate their
result. The matrix product is 512 x 512 x 512, lns8f3 with an lns16f10 accumulator, on all processors.
"""

import os
import statistics
import time

import numpy as np

from lnsnum import arithmetic, decode, encode, lns8f3, lns16f10, lns32f23, reduction
from lnsnum.certify import environment

SIZE, REPEATS = 1 << 20, 15


def medians(calls):
    """Median seconds of each call, repeats interleaved, each warmed up once."""
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(series) for name, series in times.items()}


def elementwise():
    random = np.random.default_rng(0)
    x, y = (random.normal(size=SIZE).astype(np.float32) for _ in range(2))
    calls = {
        "NumPy multiply": lambda: np.multiply(x, y),
        "NumPy add": lambda: np.add(x, y),
        "NumPy sqrt": lambda: np.sqrt(x),
        "NumPy log2": lambda: np.log2(x),
        "NumPy exp2": lambda: np.exp2(x),
    }
    rows = []
    with np.errstate(invalid="ignore", divide="ignore"):
        for fmt in (lns8f3, lns16f10, lns32f23):
            a, b = encode(x, fmt), encode(y, fmt)
            for name, baseline, call in (
                ("multiply", "NumPy multiply", lambda a=a, b=b, fmt=fmt: arithmetic.multiply(a, b, fmt)),
                ("add", "NumPy add", lambda a=a, b=b, fmt=fmt: arithmetic.add(a, b, fmt)),
                ("sqrt", "NumPy sqrt", lambda a=a, fmt=fmt: arithmetic.sqrt(a, fmt)),
                ("encode", "NumPy log2", lambda fmt=fmt: encode(x, fmt)),
                ("decode", "NumPy exp2", lambda a=a, fmt=fmt: decode(a, fmt, "float32")),
            ):
                calls[f"{fmt.name} {name}"] = call
                rows.append((fmt.name, name, baseline))
        times = medians(calls)
    print("| format | operation | ns an element | of | ns | ratio |\n| --- | --- | ---: | --- | ---: | ---: |")
    for fmt, name, baseline in rows:
        own, other = times[f"{fmt} {name}"] / SIZE * 1e9, times[baseline] / SIZE * 1e9
        print(f"| {fmt} | {name} | {own:.2f} | {baseline} float32 | {other:.2f} | {own / other:.1f} |")


def products():
    random = np.random.default_rng(0)
    x, y = (random.normal(size=(512, 512)).astype(np.float32) for _ in range(2))
    a, b = encode(x, lns8f3), encode(y, lns8f3)
    calls = {"float32 (BLAS)": lambda: x @ y}
    for kept, order in (("lns16f10", "sequential"), ("lns16f10", "pairwise"), ("float32", None)):
        options = {"accumulator": kept} | ({} if order is None else {"order": order})
        calls[f"lns8f3, {kept}{'' if order is None else f', {order}'}"] = lambda options=options: reduction.matmul(
            a, b, lns8f3, **options
        )
    times = medians(calls)
    print(f"\nMatrix product 512^3, {len(os.sched_getaffinity(0))} processors:\n")
    print("| accumulator | ns a multiply-add | ratio to BLAS |\n| --- | ---: | ---: |")
    for name, seconds in times.items():
        print(f"| {name} | {seconds / 512**3 * 1e9:.3f} | {seconds / times['float32 (BLAS)']:.1f} |")


if __name__ == "__main__":
    machine = environment()
    print(f"On {machine['processor']}, NumPy {machine['NumPy']}, Numba {machine['Numba']}:\n")
    elementwise()
    products()
