"""Examples a second that the strategies draw, against codes drawn one by one, in the same run.

    python benchmarks/strategies.py

The baseline is `hypothesis.extra.numpy.arrays` with a strategy for each element, which is how one would write it at
first; it has no health check here, which it would fail. Processor time, best of three interleaved repeats.
"""

import time

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lnsnum import lns8f3, lns16f10
from lnsnum.strategies import codes, finite_floats, matrices, near_ties, pairs, scales, tensors

REPEATS = 3
SHAPES = [(8,), (16, 16), (1000,)]


def one_by_one(fmt, shape):
    """An element is a draw."""
    magnitudes = st.one_of(st.integers(1, fmt.max_magnitude), st.sampled_from([0, -1]))
    signs = st.sampled_from([0, fmt.sign_bit])
    element = st.tuples(signs, magnitudes).map(lambda x: fmt.nan_code if x[1] < 0 else x[1] + x[0] if x[1] else 0)
    return arrays(fmt.dtype, shape, elements=element, fill=st.nothing())


def rate(strategy, examples):
    """Examples a second, in processor time."""
    drawn = 0

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def draw(_):
        nonlocal drawn
        drawn += 1

    begin = time.process_time()
    draw()
    return drawn / (time.process_time() - begin)


def main():
    fmt = lns8f3
    print(f"{'':28} {'one by one':>12} {'whole':>8} {'ratio':>7}")
    for shape in SHAPES:
        few = max(8000 // (20 * int(np.prod(shape))), 8)
        for name, whole in (("codes", codes(fmt, shape=shape)), ("tensors", tensors(fmt, shape))):
            best = [0.0, 0.0]
            for _ in range(REPEATS):
                best = [max(best[0], rate(one_by_one(fmt, shape), few)), max(best[1], rate(whole, 300))]
            print(f"{name + ' of ' + str(shape):28} {best[0]:12.0f} {best[1]:8.0f} {best[1] / best[0]:7.1f}")
    others = {
        "codes": codes(lns16f10),
        "pairs": pairs(lns16f10),
        "scales of (3, 4)": scales(lns16f10, (3, 4)),
        "finite_floats": finite_floats(lns16f10),
        "near_ties": near_ties(lns16f10),
        "near_ties of add": near_ties(lns16f10, "add"),
        "near_ties of multiply": near_ties(lns16f10, "multiply"),
        "matrices": matrices(lns16f10),
        "tensors of any format": tensors(),
    }
    for name, strategy in others.items():
        print(f"{name:28} {'':12} {max(rate(strategy, 300) for _ in range(REPEATS)):8.0f}")


if __name__ == "__main__":
    main()
