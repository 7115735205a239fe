"""Rivals that take more than a call: xlns, xlnstorch, and multiplicative optimizers written from the paper's formulas.

xlns keeps a number as a 64-bit integer 2 E + sign; its arrays are made from our codes, since its own conversion is a
Python loop. xlnstorch keeps the same integers as float64. Its C++ part is not linked with torch's libraries and fails
to import unless they are loaded with their symbols visible to all, which `load_xlnstorch` does; without it, xlnstorch
is Python throughout, and slower. It is built against the torch that is installed, in minutes, with a C++ compiler:

    pip install setuptools wheel ninja && pip install --no-build-isolation --no-deps xlnstorch

The Madam paper: Bernstein, Zhao, Meister, Liu, Anandkumar, Yue: Learning compositional functions via multiplicative
weight updates, NeurIPS 2020, Algorithm 1, and the section on B-bit Madam for the ladder of integer levels.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import io
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.performance.cases import Call, UnavailableError
from lnsnum import LNSFormat


def load(name: str) -> Any:
    """A module, or the reason why it cannot be measured."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(f"`import {name}` fails: {error}") from None


def packed(codes: NDArray[Any], fmt: LNSFormat) -> NDArray[np.int64]:
    """2 E + sign, and the least integer for zero: the numbers of codes as xlns keeps them."""
    m = codes.astype(np.int64) & fmt.max_magnitude
    return np.where(m == 0, np.iinfo(np.int64).min, 2 * (m - fmt.bias) + (codes > fmt.max_magnitude))


def _xlns(fmt: LNSFormat) -> Any:
    """The module, set to the format's fraction bits: a setting for the whole process."""
    module = load("xlns")
    with contextlib.redirect_stdout(io.StringIO()):
        module.xlnssetF(fmt.fraction_bits)
    return module


def xlns_array(codes: NDArray[Any], fmt: LNSFormat) -> Any:
    """Codes as an array of xlns."""
    array = _xlns(fmt).xlnsnp("")
    array.nd = packed(codes, fmt)
    return array


def xlns_encode(x: NDArray[Any], fmt: LNSFormat) -> Call:
    """Its array of floats."""
    return functools.partial(_xlns(fmt).xlnsnp, x)


def xlns_decode(codes: NDArray[Any], fmt: LNSFormat) -> Call:
    """Its array as floats."""
    return functools.partial(_xlns(fmt).float64, xlns_array(codes, fmt))


@functools.cache
def load_xlnstorch() -> Any:
    """xlnstorch with its C++ part.

    Raises:
        UnavailableError: where it is not installed, or its C++ part does not import even so.
    """
    for library in ("libc10", "libtorch_cpu", "libtorch_python"):
        path = Path(torch.__file__).parent / "lib" / f"{library}.so"
        if path.exists():
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    module = load("xlnstorch")
    if not module.CSRC_AVAILABLE:
        raise UnavailableError("its C++ part does not import")
    return module


def xlnstorch_tensor(x: NDArray[Any], fmt: LNSFormat) -> Any:
    """Floats as a tensor of xlnstorch, through float64, which is what it keeps."""
    return load_xlnstorch().lnstensor(torch.from_numpy(x).double(), f=fmt.fraction_bits)


def xlnstorch_encode(x: NDArray[Any], fmt: LNSFormat) -> Call:
    """Its conversion of float64."""
    module, doubles = load_xlnstorch(), torch.from_numpy(x).double()
    return lambda: module.lnstensor(doubles, f=fmt.fraction_bits)


def xlnstorch_binary(
    operation: Callable[[Any, Any], Any], x: NDArray[Any], y: NDArray[Any], fmt: LNSFormat, *, tables: bool
) -> Call:
    """An operation with its Gaussian logarithm computed each time (its default), or taken from tables: its best."""
    module = load_xlnstorch()
    a, b = xlnstorch_tensor(x, fmt), xlnstorch_tensor(y, fmt)
    if tables:
        _make_tables(module, fmt)
    name = "tab" if tables else "ideal"

    def call() -> Any:
        module.set_default_sbdb_implementation(name)  # of the whole process
        return operation(a, b)

    return call


def xlnstorch_passes(layers: Sequence[Any], inputs: Any, labels: Any, *, tables: bool) -> Call:
    """Forward and backward of linear layers with relu between them and cross-entropy at the end, 10 fraction bits."""
    module, fmt = load_xlnstorch(), LNSFormat(16, 10)
    own = []
    for layer in layers:
        linear = module.nn.LNSLinear(layer.in_features, layer.out_features, weight_f=10, bias_f=10)
        own += [linear, torch.nn.functional.relu]
    x = xlnstorch_tensor(inputs.numpy(), fmt)
    if tables:
        _make_tables(module, fmt)
    name = "tab" if tables else "ideal"

    def call() -> None:
        module.set_default_sbdb_implementation(name)  # of the whole process
        y = x
        for function in own[:-1]:
            y = function(y)
        torch.nn.functional.nll_loss(torch.nn.functional.log_softmax(y, dim=1), labels).backward()

    return call


def _make_tables(module: Any, fmt: LNSFormat) -> None:
    """It keeps one table, and writes it to a file where it stands."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        try:
            module.operators.implementations.tab.get_table("table", f=fmt.fraction_bits)
        finally:
            os.chdir(before)


class FloatMadam:
    """The paper's Algorithm 1 on a float tensor, with Adam's correction for the bias of the second moment.

        v  <-  beta v + (1 - beta) g^2,    g_hat = clamp(g / sqrt(v / (1 - beta^t)), -g_bound, g_bound)
        w  <-  clamp(w exp(-lr sign(w) g_hat), -max, max),    max = p_scale RMS(w0)

    Gradients that have been zero from the first step on are not provided for.
    """

    def __init__(
        self, w: torch.Tensor, *, lr: float, beta: float = 0.999, p_scale: float = 3.0, g_bound: float = 10.0
    ) -> None:
        self.w, self.lr, self.beta, self.g_bound = w, lr, beta, g_bound
        self.v = torch.zeros_like(w)
        self.max = p_scale * float(w.square().mean().sqrt())
        self.steps = 0

    def normalized(self, gradient: torch.Tensor) -> torch.Tensor:
        """g_hat, a tensor of its own, after one step of v."""
        self.steps += 1
        self.v.mul_(self.beta).addcmul_(gradient, gradient, value=1 - self.beta)
        bound = self.g_bound / math.sqrt(1 - self.beta**self.steps)
        return self.v.rsqrt().mul_(gradient).clamp_(-bound, bound).mul_(math.sqrt(1 - self.beta**self.steps))

    def step(self, gradient: torch.Tensor) -> None:
        """One step, in place."""
        factor = self.normalized(gradient).mul_(self.w.sign()).mul_(-self.lr).exp_()
        self.w.mul_(factor).clamp_(-self.max, self.max)


class IntegerMadam(FloatMadam):
    """The same on a ladder of 2^bits levels.

    w = sign max exp(-base_lr k),    k  <-  clamp(k + round((lr / base_lr) sign(w) g_hat), 0, 2^bits - 1)
    """

    def __init__(self, w: torch.Tensor, *, lr: float, base_lr: float = 1 / 64, bits: int = 8, **options: float) -> None:
        super().__init__(w, lr=lr, **options)
        self.base_lr, self.last = base_lr, (1 << bits) - 1
        self.sign = w.sign().to(torch.int8)
        self.k = (w.abs() / self.max).log_().div_(-base_lr).round_().clamp_(0, self.last).to(torch.int16)
        self._write()

    def _write(self) -> None:
        torch.mul(self.k, -self.base_lr, out=self.w)
        self.w.exp_().mul_(self.sign).mul_(self.max)

    def step(self, gradient: torch.Tensor) -> None:
        """One step of the integers; the floats follow."""
        steps = self.normalized(gradient).mul_(self.sign).mul_(self.lr / self.base_lr).round_()
        self.k = steps.add_(self.k).clamp_(0, self.last).to(torch.int16)
        self._write()


def adamw8bit(parameter: torch.nn.Parameter) -> Call:
    """torchao's AdamW with 8-bit state. It compiles its step by itself, so a C++ compiler must be there; where the
    number of threads changes, what is compiled follows.
    """
    optim = load("torchao.optim")
    torch._dynamo.reset()  # it is compiled for each size, of which torch accepts a few only

    import torch._inductor.config as inductor

    inductor.cpp.dynamic_threads = True
    return optim.AdamW8bit([parameter], lr=1e-3).step
