"""What LLVM made of the kernels: the instructions of each one's inner loop, for each element.

    python -m benchmarks.performance.vector_code

A loop is the machine code from a label to a jump back to it; of a kernel's innermost loops the one with the most
instructions on the widest registers is its body, the others are its tail. With the time of an element this tells what
bounds a kernel: at about four instructions a cycle the processor is busy, and only fewer of them would be faster.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lnsnum import encode, lns8f5, lns32f23
from lnsnum.decoding import decode_table
from lnsnum.kernels import byte_scales, byte_tables, rounding, row_encoding, vector_encoding
from lnsnum.operations import code_products
from lnsnum.torch_bridge.kernels import hypentropy, moments, paper, random_words, step_numbers, update

KINDS = {
    "division, root": r"v(div|sqrt)",
    "gather": r"v(p)?gather",
    "multiplication": r"vp?mul",
    "load or store": r"v?(p)?mov\w*\s.*\(",
}


ELEMENTS = {
    "product of codes, by columns": 128,
    "decode in registers": 128,
}
"""Of a loop that walks down columns, or by addresses: its steps are not its elements."""


class Loop(NamedTuple):
    """The inner loop of a kernel."""

    register: str
    instructions: int
    kinds: dict[str, int]
    elements: int


def find_loops(assembly: str) -> list[list[str]]:
    """The instructions from each label to the last jump back to it, of loops that have no other loop within."""
    lines = [line.strip() for line in assembly.splitlines() if re.match(r"\.L\w+:|\t[a-z]", line)]
    labels = {line[:-1]: i for i, line in enumerate(lines) if line.endswith(":")}
    spans = {}
    for i, line in enumerate(lines):
        jump = re.match(r"j\w+\s+(\.L\w+)$", line)
        if jump and labels.get(jump[1], i) < i:
            spans[labels[jump[1]]] = i
    inner = [(a, b) for a, b in spans.items() if not any(a < c and d < b for c, d in spans.items())]
    return [[line for line in lines[a : b + 1] if not line.endswith(":")] for a, b in inner]


def body_of(assembly: str) -> Loop | None:
    """The loop with the most instructions on the widest registers that there are."""
    for register, width in (("zmm", 64), ("ymm", 32), ("xmm", 16)):
        loops = [loop for loop in find_loops(assembly) if any(f"%{register}" in line for line in loop)]
        if loops:
            loop = max(loops, key=lambda lines: sum(f"%{register}" in line for line in lines))
            steps = [int(m[1]) for line in loop if (m := re.match(r"(?:add|sub)q\s+\$(-?\d+), %r", line))]
            kinds = {kind: sum(bool(re.match(pattern, line)) for line in loop) for kind, pattern in KINDS.items()}
            return Loop(register, len(loop), kinds, min((abs(s) for s in steps), default=width // 4))
    return None


def compiled(kernel: Any, *arguments: Any) -> str:
    """The machine code of a kernel for arguments of these types."""
    fresh = type(kernel)(kernel.py_func, targetoptions=dict(kernel.targetoptions))  # a cached one keeps no assembly
    fresh(*arguments)
    return next(iter(fresh.inspect_asm().values()))


def kernels() -> dict[str, Callable[[], str]]:
    """Each kernel's name and how to get its machine code."""
    n = 1024
    x = np.random.default_rng(0).normal(size=n).astype(np.float32)
    flags, words = np.zeros(n, np.uint8), np.ones(n, np.uint32)
    by = vector_encoding.lane(rounding.target(lns8f5, 0))
    codes, steps, drive, moment = encode(x, lns8f5), np.zeros(n, np.int32), x.copy(), np.ones(n, np.uint8)
    numbers = step_numbers.StepNumbers(0.05, 1.0, 0, 0.5, 0.0, 10.0, 0.999, 0.0, 0.0)
    scalars, grid = step_numbers.step_scalars(lns8f5, "hypentropy", numbers, coded=True), update.Grid.of(lns8f5)
    one, greatest, patterns = np.float32(1), np.int32(127), x.view(np.int32)
    drawn = np.ones(n, np.int32)
    v, u = np.ones(n, np.float32), np.ones(n, np.float32)
    wide = rounding.target(lns32f23, 0)
    one_of_all = np.zeros(n, np.int16)
    planes = byte_tables.planes_of(decode_table(lns8f5, 0, "float32"))[None]
    product = codes.reshape(1, n), planes, np.zeros(n, np.int64), lns8f5.nan_code
    sums = np.empty((1, n), np.float32)
    lines = byte_scales.Lines(np.zeros(n + 64, np.uint8), np.zeros(n + 64, np.uint8), n, n // 32, 5)
    in_registers: dict[str, Callable[[], str]] = {
        "decode in registers": lambda: compiled(
            byte_tables.decode_bytes, codes.ctypes.data, planes.ctypes.data, 128, v.ctypes.data, n // 64
        ),
        "decode in registers, groups": lambda: compiled(
            byte_scales.decode_lines, codes, lines, np.zeros((3, 64), np.uint8), 128, 5, 0, words
        ),
        "product of codes, by rows": lambda: compiled(
            code_products.rows_by_planes, *product, x[None], sums[:, :1].copy(), 0, 1
        ),
        "product of codes, by columns": lambda: compiled(
            code_products.columns_by_planes, *product, x[None, :1].copy(), sums, 0, n
        ),
    }
    return {
        **(in_registers if byte_tables.has_byte_tables() else {}),
        "encode: look-up of rows": lambda: compiled(
            row_encoding._look_up, x.view(np.uint32), row_encoding.table(32), one_of_all.view(np.uint16)
        ),
        "encode: edges of rows": lambda: compiled(
            row_encoding._settle, one_of_all, one_of_all, *row_encoding._Rules.of(rounding.target(lns8f5, 0)), codes
        ),
        "encode: positions": lambda: compiled(vector_encoding.positions, patterns, by, steps, v),
        "encode: to nearest": lambda: compiled(vector_encoding._nearest, patterns, steps, v, by, codes, flags),
        "encode: at random, value": lambda: compiled(
            vector_encoding._at_random, patterns, steps, v, by, True, v, vector_encoding.terms(8.0), words, codes, flags
        ),
        "encode, doubles: positions": lambda: compiled(
            vector_encoding._positions_double, patterns, wide, np.ones(n, np.int64), np.ones(n)
        ),
        "encode, doubles: to nearest": lambda: compiled(
            vector_encoding._nearest_double,
            patterns,
            np.ones(n, np.int64),
            np.ones(n),
            wide,
            0,
            encode(x, lns32f23),
            flags,
        ),
        "Philox, four words": lambda: compiled(rounding.philox, 0, 1, 2, 3, words, words + 1, words + 2, words + 3),
        "Madam: moment to float": lambda: compiled(moments.load_moment, moment, v),
        "Madam: moments, g_hat": lambda: compiled(update._advance, x, scalars, None, v, u, drive),
        "Madam: random words": lambda: compiled(random_words.fill_words, drawn, 0, greatest, greatest),
        "Madam: 1 / X": lambda: compiled(hypentropy.fill_inverses, codes, grid.inverses, u),
        "Madam: move": lambda: compiled(hypentropy.move, codes, drive, v, u, one, drawn, grid, None),
        "Madam: counts": lambda: compiled(update.count_codes, codes, codes.copy(), greatest),
        "Madam: moment to code": lambda: compiled(moments.store_moment, v, x, drawn, moment),
        "paper's Madam: round": lambda: compiled(paper._round_by_log, codes, drive, one, greatest, drawn, steps),
        "paper's Madam: move": lambda: compiled(paper._move, codes, steps, greatest),
    }


def main() -> None:
    print("| kernel | registers | instructions | for each element | " + " | ".join(KINDS) + " |")
    print("| --- | --- | ---: | ---: |" + " ---: |" * len(KINDS))
    for name, assembly in kernels().items():
        loop = body_of(assembly())
        if loop is None:
            print(f"| {name} | none |" + " |" * (2 + len(KINDS)))
            continue
        kinds = " | ".join(str(count) for count in loop.kinds.values())
        each = loop.instructions / ELEMENTS.get(name, loop.elements)
        print(f"| {name} | {loop.register} | {loop.instructions} | {each:.1f} | {kinds} |")


if __name__ == "__main__":
    main()
