"""Products: codes by codes with a float32 or a bit-true accumulator, and weights held as codes by a float32 vector."""

from __future__ import annotations

import functools

import numpy as np
import torch

from benchmarks.performance import rivals
from benchmarks.performance.cases import OWN, Call, Case, UnavailableError
from lnsnum import encode, lns8f3, lns8f5, lns16f10, reduction
from lnsnum.torch_bridge import LNSWeight

TORCH, XLNSTORCH, XLNSTORCH_TABLES = "torch float32", "xlnstorch", "xlnstorch, tables"
TORCH_MV = "torch float32 mv"


class Matrices:
    """Two square matrices of normally distributed numbers, and their codes."""

    def __init__(self, n: int) -> None:
        random = np.random.default_rng(0)
        self.x, self.y = (random.standard_normal((n, n), np.float32) for _ in range(2))
        self.a, self.b = encode(self.x, lns8f3), encode(self.y, lns8f3)

    def own(self, accumulator: str, order: str | None = None) -> Call:
        """Our product."""
        options = {"accumulator": accumulator} | ({"order": order} if order else {})
        return functools.partial(reduction.matmul, self.a, self.b, lns8f3, **options)

    def xlnstorch(self, *, tables: bool) -> Call:
        """The same format as our accumulator, 10 fraction bits, for operands, products and sums."""
        return rivals.xlnstorch_binary(torch.matmul, self.x, self.y, lns16f10, tables=tables)


class Layer:
    """The weights of a square linear layer, as floats and as codes, and a vector."""

    def __init__(self, n: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.floats = torch.randn(n, n, generator=generator) / n**0.5
        self.x = torch.randn(n, generator=generator)
        self.weight = LNSWeight.from_float(self.floats, lns8f5, log_offset="fit")

    def own(self) -> Call:
        """The product on codes."""
        try:
            from lnsnum.torch_bridge import weight_only_linear
        except ImportError:
            raise UnavailableError("this lnsnum.torch_bridge has no weight_only_linear") from None
        return functools.partial(weight_only_linear, self.x, self.weight)

    def narrow(self) -> Call:
        """bfloat16, two bytes a weight."""
        return functools.partial(torch.mv, self.floats.bfloat16(), self.x.bfloat16())

    def decoded(self) -> Call:
        """What any operation of torch does with an LNSWeight: decode, then multiply."""
        return lambda: torch.nn.functional.linear(self.x, self.weight)


def cases() -> list[Case]:
    """The products."""
    cubes = {"unit": "multiply-add", "count": lambda n: n**3, "traffic": lambda n: 3 * n * n}
    return [
        Case(
            "matmul lns8f3, float32 accumulator",
            TORCH,
            {
                OWN: lambda m: m.own("float32"),
                TORCH: lambda m: functools.partial(torch.mm, torch.from_numpy(m.x), torch.from_numpy(m.y)),
                "NumPy float32": lambda m: functools.partial(np.matmul, m.x, m.y),
            },
            Matrices,
            operations="1 float32 multiply-add; 2 table look-ups and 1 encode for each n of them",
            sizes=(10, 32, 128, 512, 1024),
            floor=TORCH,
            **cubes,
        ),
        Case(
            "matmul lns8f3, lns16f10 accumulator",
            XLNSTORCH_TABLES,
            {
                OWN: lambda m: m.own("lns16f10"),
                "lnsnum, pairwise": lambda m: m.own("lns16f10", "pairwise"),
                XLNSTORCH: lambda m: m.xlnstorch(tables=False),
                XLNSTORCH_TABLES: lambda m: m.xlnstorch(tables=True),
                TORCH: lambda m: functools.partial(torch.mm, torch.from_numpy(m.x), torch.from_numpy(m.y)),
            },
            Matrices,
            operations="2 integer additions, 1 comparison, 1 table look-up",
            sizes=(10, 32, 128, 512),
            patience=10.0,  # the mark is set beside a call of some seconds
            floor=TORCH,
            **cubes,
        ),
        Case(
            "weight-only product lns8f5",
            TORCH_MV,
            {
                OWN: Layer.own,
                TORCH_MV: lambda layer: functools.partial(torch.mv, layer.floats, layer.x),
                "torch bfloat16 mv": Layer.narrow,
                "lnsnum, decoded first": Layer.decoded,
            },
            Layer,
            lambda n: n * n + 8 * n,
            "1 table look-up, 1 float32 multiplication, 1 addition",
            sizes=(32, 128, 512, 2048, 4096, 8192),
            unit="weight",
            count=lambda n: n * n,
        ),
    ]
