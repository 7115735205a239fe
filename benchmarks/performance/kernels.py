"""Elementwise kernels: encode, decode, multiply, add; of one array or two, into a new one.

The numbers are normally distributed. Logarithms and powers of NumPy get |x|, so that no NaN slows them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.performance import rivals
from benchmarks.performance.cases import OWN, Call, Case, UnavailableError
from lnsnum import LNSFormat, arithmetic, decode, encode, lns8f3, lns16f10, lns32f23, random_bits
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.scale import Scale

TORCH_FLOAT8, ML_FLOAT8 = "torch float8_e4m3fn", "ml_dtypes float8_e4m3fn"
TORCH_COPY, NEAREST = "torch float32 copy", "lnsnum, nearest"
NUMPY, BRIDGE = "NumPy float32", "lnsnum.torch_bridge"

BRIDGE_BITS = 16
"""The bridge's weights are not wider."""

Sides = dict[str, Callable[["Numbers"], Call]]


class Numbers:
    """Normally distributed float32 numbers and their codes, made when they are first wanted."""

    def __init__(self, size: int) -> None:
        self.size = size
        # of its own: a cache of the method would keep the numbers of every case until the program ends
        self._made: dict[tuple[LNSFormat, str], NDArray[Any]] = {}

    def _draw(self, seed: int) -> NDArray[np.float32]:
        return np.random.default_rng(seed).standard_normal(self.size, np.float32)

    @functools.cached_property
    def x(self) -> NDArray[np.float32]:
        """The first operand."""
        return self._draw(0)

    @functools.cached_property
    def y(self) -> NDArray[np.float32]:
        """The second."""
        return self._draw(1)

    @functools.cached_property
    def magnitudes(self) -> NDArray[np.float32]:
        """|x|"""
        return np.abs(self.x)

    def codes(self, fmt: LNSFormat) -> NDArray[Any]:
        """Of x."""
        return self._codes(fmt, "x")

    def pair(self, fmt: LNSFormat) -> tuple[NDArray[Any], NDArray[Any]]:
        """Codes of x and y."""
        return self._codes(fmt, "x"), self._codes(fmt, "y")

    def _codes(self, fmt: LNSFormat, which: str) -> NDArray[Any]:
        if (fmt, which) not in self._made:
            self._made[fmt, which] = encode(getattr(self, which), fmt)
        return self._made[fmt, which]

    def torch(self, array: NDArray[Any]) -> torch.Tensor:
        """The same memory as a tensor."""
        return bridge.from_numpy(array) if array.dtype.kind == "u" else torch.from_numpy(array)


def _ml_float8() -> Any:
    return rivals.load("ml_dtypes").float8_e4m3fn


def _stochastic(x: NDArray[Any], rounding: str) -> Call:
    if "seed" not in inspect.signature(encode).parameters:
        raise UnavailableError("this lnsnum.encode takes no seed")
    return functools.partial(encode, x, lns8f3, rounding=rounding, seed=7)


def _stochastic_given(x: NDArray[Any]) -> Call:
    return functools.partial(encode, x, lns8f3, rounding="stochastic_value", random_bits=random_bits(x.size, seed=7))


def encoding(fmt: LNSFormat) -> Sides:
    """The sides that encode."""
    by_bridge: Sides = {BRIDGE: lambda n: functools.partial(bridge.encode, n.torch(n.x), fmt, Scale(0, 0))}
    return {
        OWN: lambda n: functools.partial(encode, n.x, fmt),
        **(by_bridge if fmt.bits <= BRIDGE_BITS else {}),
        "xlnstorch": lambda n: rivals.xlnstorch_encode(n.x, fmt),
        "xlns": lambda n: rivals.xlns_encode(n.x, fmt),
    }


def decoding(fmt: LNSFormat) -> Sides:
    """The sides that decode."""

    def by_bridge(n: Numbers) -> Call:
        return functools.partial(bridge.decode, n.torch(n.codes(fmt)), fmt, Scale(0, 0), torch.float32)

    def by_xlnstorch(n: Numbers) -> Call:
        tensor = rivals.xlnstorch_tensor(n.x, fmt)
        return lambda: tensor.value

    return {
        OWN: lambda n: functools.partial(decode, n.codes(fmt), fmt, "float32"),
        **({BRIDGE: by_bridge} if fmt.bits <= BRIDGE_BITS else {}),
        "xlnstorch": by_xlnstorch,
        "xlns": lambda n: rivals.xlns_decode(n.codes(fmt), fmt),
    }


def binary(name: str, fmt: LNSFormat) -> Sides:
    """The sides that multiply or add."""
    own, numpy, theirs = getattr(arithmetic, name), getattr(np, name), {"multiply": torch.mul, "add": torch.add}[name]

    def by_float8(n: Numbers) -> Call:
        return functools.partial(numpy, n.x.astype(_ml_float8()), n.y.astype(_ml_float8()))

    def by_xlns(n: Numbers) -> Call:
        a, b = (rivals.xlns_array(codes, fmt) for codes in n.pair(fmt))

        def call() -> object:
            with np.errstate(all="ignore"):  # it takes the logarithm of x - x
                return a * b if name == "multiply" else a + b

        return call

    sides: Sides = {
        OWN: lambda n: functools.partial(own, *n.pair(fmt), fmt),
        NUMPY: lambda n: functools.partial(numpy, n.x, n.y),
        "torch float32": lambda n: functools.partial(theirs, n.torch(n.x), n.torch(n.y)),
        "xlns": by_xlns,
        "xlnstorch": lambda n: rivals.xlnstorch_binary(theirs, n.x, n.y, fmt, tables=False),
    }
    if fmt.bits == 8:
        sides[ML_FLOAT8] = by_float8
    if name == "add" and fmt.fraction_bits <= 16:  # its table has an entry for each code step
        sides["xlnstorch, tables"] = lambda n: rivals.xlnstorch_binary(theirs, n.x, n.y, fmt, tables=True)
    return sides


def _case(name: str, baseline: str, sides: Sides, bytes_each: int, operations: str) -> Case:
    return Case(name, baseline, sides, Numbers, lambda size: bytes_each * size, operations)


def conversions(fmt: LNSFormat) -> list[Case]:
    """Encode and decode of a wide format, beside NumPy's functions."""
    each = 4 + fmt.bits // 8
    by_log = {"NumPy log2 float32": lambda n: functools.partial(np.log2, n.magnitudes)}
    by_power = {"NumPy exp2 float32": lambda n: functools.partial(np.exp2, n.x)}
    step = "table look-up" if fmt.bits <= 16 else "product of three table look-ups, rounding"
    search = "search among thresholds" if fmt.fraction_bits <= 10 else "logarithm with a bound, rounding"
    return [
        _case(f"encode {fmt.name}", "NumPy log2 float32", encoding(fmt) | by_log, each, f"1 {search}"),
        _case(f"decode {fmt.name}", "NumPy exp2 float32", decoding(fmt) | by_power, each, f"1 {step}"),
    ]


def cases() -> list[Case]:
    """All elementwise kernels."""
    fmt = lns8f3
    float8: Sides = {
        TORCH_FLOAT8: lambda n: functools.partial(n.torch(n.x).to, torch.float8_e4m3fn),
        ML_FLOAT8: lambda n: functools.partial(n.x.astype, _ml_float8()),
    }
    from_float8: Sides = {
        TORCH_COPY: lambda n: n.torch(n.x).clone,
        "NumPy float32 copy": lambda n: n.x.copy,
        TORCH_FLOAT8: lambda n: functools.partial(n.torch(n.x).to(torch.float8_e4m3fn).to, torch.float32),
        ML_FLOAT8: lambda n: functools.partial(n.x.astype(_ml_float8()).astype, np.float32),
    }
    stochastic: Sides = {
        OWN: lambda n: _stochastic(n.x, "stochastic_value"),
        "lnsnum, stochastic_log": lambda n: _stochastic(n.x, "stochastic_log"),
        "lnsnum, bits given": lambda n: _stochastic_given(n.x),
        NEAREST: lambda n: functools.partial(encode, n.x, fmt),
    }
    draws = "1 search among thresholds, 1 random word (a quarter of a Philox block), 1 comparison"
    return [
        _case("encode lns8f3", TORCH_FLOAT8, encoding(fmt) | float8, 5, "1 search among thresholds"),
        _case("encode lns8f3, stochastic", NEAREST, stochastic, 5, draws),
        _case("decode lns8f3", TORCH_COPY, decoding(fmt) | from_float8, 5, "1 table look-up"),
        *conversions(lns16f10),
        *conversions(lns32f23),
        _case("multiply lns8f3", NUMPY, binary("multiply", fmt), 3, "1 integer addition, 1 clip"),
        _case("add lns8f3", NUMPY, binary("add", fmt), 3, "1 comparison, 1 table look-up, 1 addition"),
        _case("add lns16f10", NUMPY, binary("add", lns16f10), 6, "1 comparison, 1 table look-up, 1 addition"),
        _case("add lns32f23", NUMPY, binary("add", lns32f23), 12, "1 comparison, 1 Gaussian logarithm, 1 addition"),
    ]
