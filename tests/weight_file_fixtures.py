"""The weight files of tests/data, which every reader has to read: what is in them, made anew by this module.

`python tests/weight_file_fixtures.py` writes them. They are not to change: a test compares them byte for byte with what
is written today, so that whoever changes the layout sees it. Those of layout 2, which is written no more, are in
tests/data/layout2.
"""

import math
from pathlib import Path

import ml_dtypes
import numpy as np

from lnsnum import GroupOffsets, LNSFormat, LNSTensor, lns4f1, lns6f2, lns8f3, lns8f5, lns16f10, lns32f23
from lnsnum.weight_file import OptimizerState, save_weights

FOLDER = Path(__file__).parent / "data"


def codes(fmt, *shape):
    """Codes from the whole range of a format, by a rule that needs no generator: its least and greatest first."""
    n = math.prod(shape)
    edges = [0, 1, fmt.max_magnitude, fmt.nan_code, fmt.nan_code + 1, (1 << fmt.bits) - 1]
    spread = [*edges, *(i * 2654435761 % (1 << fmt.bits) for i in range(n))]
    return np.array(spread[:n], fmt.dtype).reshape(shape)


def lns(fmt, *shape, log_offset=0):
    return LNSTensor(codes(fmt, *shape), fmt, log_offset=log_offset)


def plain():
    """A tensor of every type, with the numbers that are easily lost."""
    floats = [0.0, -0.0, 1.5, -math.inf, math.nan]
    tensors = {dtype: np.array(floats, dtype) for dtype in ("float64", "float32", "float16")}
    tensors["bfloat16"] = np.array(floats, ml_dtypes.bfloat16)
    for dtype in ("uint64", "int64", "uint32", "int32", "uint16", "int16", "uint8", "int8"):
        tensors[dtype] = np.array([np.iinfo(dtype).min, 0, 1, np.iinfo(dtype).max], dtype)
    return tensors | {
        "bool": np.array([[True, False]]),
        "scalar": np.array(2.5, np.float32),
        "none": np.zeros((2, 0, 3)),
    }


BASES = {
    "1.5": LNSFormat(12, 0, base=1.5),
    "3": LNSFormat(8, 2, base=3.0),
    "10": LNSFormat(10, 4, base=10.0),
    "e^0.001": LNSFormat(16, 0, base=math.exp(0.001)),
    "2^27 + 1": LNSFormat(6, 0, base=2.0**27 + 1),
    "least": LNSFormat(32, 30, base=1.0 + 2.0**-52),
    "great": LNSFormat(9, 7, base=1e308),
}
"""Formats of bases other than 2. Powers of 1.5 and of 2^27 + 1 are floats, or lie half-way between two."""


def bases():
    """Every code from the middle of the range, E = -8 to 8, and some of the ends."""
    return {
        name: LNSTensor(np.concatenate([codes(fmt, 6), np.arange(fmt.bias - 8, fmt.bias + 8, dtype=fmt.dtype)]), fmt)
        for name, fmt in BASES.items()
    }


def shapes(fmt):
    """No element, one without dimensions, five dimensions; one scale, one for each channel, far out on either side."""
    return {
        "none": lns(fmt, 3, 0, 2, log_offset=np.array([[[1]], [[2]], [[3]]])),
        "scalar": lns(fmt, log_offset=-7),
        "five dimensions": lns(fmt, 2, 1, 3, 1, 2, log_offset=np.arange(3).reshape(3, 1, 1)),
        "rows": lns(fmt, 3, 5, log_offset=np.array([[-40], [0], [9]])),
        "columns": lns(fmt, 3, 5, log_offset=np.arange(5)),
        "above": lns(fmt, 4, log_offset=2**30),
        "below": lns(fmt, 4, log_offset=-(2**30)),
    }


def widths():
    """Every width, with numbers of codes that leave bits over when packed."""
    return {f"{bits}": lns(LNSFormat(bits, bits // 2), 7, 3) for bits in range(3, 33)}


def groups():
    """Groups of the least size and the greatest, with rests, of rows that share them, along other axes, of none."""
    spread = np.arange(-9, 9)
    return {
        "rows": lns(lns8f3, 2, 40, log_offset=GroupOffsets(spread[:6].reshape(2, 3), 16)),
        "shared": lns(lns6f2, 3, 257, log_offset=GroupOffsets([2**30, -(2**30)], 256)),
        "columns": lns(lns4f1, 33, 2, log_offset=GroupOffsets(spread[:4].reshape(2, 2), 32, axis=-2)),
        "middle": lns(lns16f10, 2, 20, 3, log_offset=GroupOffsets(spread[:4].reshape(2, 2, 1), 19, axis=-2)),
        "experts": lns(lns8f5, 2, 3, 33, log_offset=GroupOffsets(spread.reshape(2, 3, 3), 16)),
        "each expert's channels": lns(lns8f5, 2, 3, 4, log_offset=spread[:6].reshape(2, 3, 1)),
        "none": lns(lns8f3, 2, 0, log_offset=GroupOffsets(np.zeros((2, 0), np.int32), 16)),
    }


def moments():
    """The state of an optimizer: numbers, and tensors by names that weights have too."""
    tensors = {"w": np.arange(6, dtype=np.uint8), "w.r": np.array(0.25, np.float32), "plain": np.zeros((2, 0))}
    return OptimizerState({"step": 7, "groups": [{"lr": 0.01, "names": ["w"]}]}, tensors)


EXAMPLE = {
    "conv.weight": lns(lns8f5, 16, 3, 3, 3, log_offset=-88),
    "fc.weight": lns(lns6f2, 2, 5, log_offset=np.array([[-3], [1]])),
    "fc.bias": np.float32([0.5, -0.25]),
}
FIXTURES = {
    "example": {
        "weights": {**EXAMPLE, "head.weight": lns(lns8f5, 2, 40, log_offset=GroupOffsets([[0, 1, 2], [3, 4, 5]], 16))},
        "metadata": {"model": "a small network"},
        "packed": True,
    },
    "groups": {"weights": groups()},
    "groups_packed": {"weights": groups(), "packed": True},
    "optimizer": {"weights": {"w": lns(lns8f5, 2, 3), "plain": np.arange(3.0)}, "optimizer": moments()},
    "empty": {"weights": {}},
    "plain": {"weights": plain()},
    "bases": {"weights": bases()},
    "bases_packed": {"weights": bases(), "packed": True},
    "shapes": {"weights": shapes(lns8f3)},
    "shapes_packed": {"weights": shapes(lns4f1), "packed": True},
    "wide": {"weights": {**shapes(lns16f10), **{f"32 {name}": w for name, w in shapes(lns32f23).items()}}},
    "widths": {"weights": widths()},
    "widths_packed": {"weights": widths(), "packed": True},
    "names": {
        "weights": {
            name: lns(lns8f3, 1)
            for name in ("", " ", "a/b", "..", "\0", "\x1b[31m", "\n", '"', "\\", "\x7f", "é", "e\u0301", "\U0001f600")
        },
        "metadata": {"": "", 'quo"te\\': "\0\n\x1f", "\U0001f600": "é\ud7ff\uffff"},
    },
}  # fmt: skip
"""By name: the arguments of save_weights."""

OF_LAYOUT_2 = {name: told for name, told in FIXTURES.items() if name not in ("groups", "groups_packed", "optimizer")}
OF_LAYOUT_2 |= {"example": {**FIXTURES["example"], "weights": EXAMPLE}}
"""What those of layout 2 hold."""
EVERY = [*((3, name) for name in FIXTURES), *((2, name) for name in OF_LAYOUT_2)]


def content_of(layout, name):
    return (FIXTURES if layout == 3 else OF_LAYOUT_2)[name]


def path_of(name, layout=3):
    return (FOLDER if layout == 3 else FOLDER / "layout2") / f"{name}.safetensors"


if __name__ == "__main__":
    for name, arguments in FIXTURES.items():
        save_weights(path_of(name), **arguments)
