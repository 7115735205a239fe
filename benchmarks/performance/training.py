"""Training: an optimizer's step alone, and whole training steps of three models.

The optimizers step one tensor of weights with one gradient, over and over; their learning rates are small enough that
no weight leaves the range of normal numbers meanwhile. Whole steps: native 8-bit weights with Madam against float32
with fused Adam.
"""

from __future__ import annotations

import copy
import functools

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.performance import rivals
from benchmarks.performance.cases import OWN, Call, Case
from benchmarks.training_step import BATCH, LENGTH, VOCABULARY, Transformer
from lnsnum import lns8f5
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model

FUSED_ADAM, INTEGER_MADAM, FLOAT_MADAM = "torch fused Adam", "IntegerMadam in torch", "Madam in torch"
FLOAT_STEP, FLOAT_PASSES = "float32, fused Adam", "float32, no optimizer"
LR = 1e-3


class Weights:
    """One tensor of weights and its gradient; each side has weights of its own."""

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.floats = torch.randn(size, generator=generator)
        self.gradient = torch.randn(size, generator=generator)

    def parameter(self) -> nn.Parameter:
        """Floats with a gradient."""
        parameter = nn.Parameter(self.floats.clone())
        parameter.grad = self.gradient
        return parameter

    def own(self, momentum: float = 0.0) -> Call:
        """Our Madam on codes."""
        weight = LNSWeight.from_float(self.floats, lns8f5, log_offset="fit", underflow="saturate").requires_grad_()
        weight.grad = self.gradient
        return Madam([weight], lr=LR, momentum=momentum).step

    def adam(self) -> Call:
        """torch's own."""
        return torch.optim.Adam([self.parameter()], lr=LR, fused=True).step

    def plain(self, kind: type[rivals.FloatMadam]) -> Call:
        """From the paper's formulas."""
        lr = 1 / 64 if kind is rivals.IntegerMadam else 1e-5
        return functools.partial(kind(self.floats.clone(), lr=lr).step, self.gradient)


def optimizers() -> Case:
    """One step of each optimizer."""
    return Case(
        "Madam step lns8f5",
        FUSED_ADAM,
        {
            OWN: Weights.own,
            FUSED_ADAM: Weights.adam,
            "torchao AdamW8bit": lambda w: rivals.adamw8bit(w.parameter()),
            FLOAT_MADAM: lambda w: w.plain(rivals.FloatMadam),
            INTEGER_MADAM: lambda w: w.plain(rivals.IntegerMadam),
        },
        Weights,
        lambda size: 8 * size,  # the gradient read; weight and second moment read and written
        "1 table look-up, 1 hashed random word, 2 divisions, 2 square roots, 2 polynomials, 1 integer addition",
        sizes=(1_024, 10_240, 102_400, 1_024_000, 4_000_000, 10_240_000),  # multiples of AdamW8bit's block of 256
        unit="weight",
    )


class Tensors:
    """The weights of a transformer of 12 layers, 64 wide: 148 tensors; each side has weights of its own."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        width, layers = 64, [nn.Embedding(256, 64), nn.Embedding(64, 64), nn.LayerNorm(64)]
        for _ in range(12):
            layers += [nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)]
            layers += [nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)]
        self.model = nn.ModuleList(layers)

    def _with_gradients(self, model: nn.Module) -> list[nn.Parameter]:
        parameters = list(model.parameters())
        for p in parameters:
            p.grad = torch.randn(p.shape)
        return parameters

    def own(self) -> Call:
        """Our Madam on codes."""
        model = copy.deepcopy(self.model)
        convert_model(model, "lns8f5")
        return Madam(self._with_gradients(model), lr=LR).step

    def adam(self) -> Call:
        """torch's own, fused."""
        return torch.optim.Adam(self._with_gradients(copy.deepcopy(self.model)), lr=LR, fused=True).step


def momentum() -> Case:
    """The same with a momentum, as Adam has one."""
    return Case(
        "Madam step lns8f5, momentum",
        FUSED_ADAM,
        {OWN: lambda w: w.own(0.9), FUSED_ADAM: Weights.adam},
        Weights,
        lambda size: 10 * size,
        "as without, and a third byte read and written",
        sizes=(1_024_000, 4_000_000),
        unit="weight",
    )


def small_tensors() -> Case:
    """One step of many small tensors."""
    count = sum(p.numel() for p in Tensors().model.parameters())
    return Case(
        "Madam step lns8f5, 148 small tensors",
        FUSED_ADAM,
        {OWN: Tensors.own, FUSED_ADAM: Tensors.adam},
        lambda size: Tensors(),
        lambda size: 8 * size,
        "as of one tensor, and for each tensor what Python looks at: 8 addresses, 9 entries of the state, the gradient",
        sizes=(count,),
        unit="weight",
    )


def mlp() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Two layers 1024 wide, a batch of 256."""
    model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024))
    return model, torch.randn(256, 1024), torch.randint(0, 1024, (256,))


def cnn() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Three convolutions and a linear layer, a batch of 64 images of 32 x 32 x 3."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 10))
    return model, torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))


def transformer() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Four layers 256 wide, a batch of 32 sequences of 128 tokens."""
    tokens = torch.randint(0, VOCABULARY, (BATCH, LENGTH + 1))
    return Transformer(), tokens[:, :-1], tokens[:, 1:].flatten()


MODELS = {"MLP": mlp, "transformer": transformer, "CNN": cnn}


class Steps:
    """Training steps of one model."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.model, self.inputs, self.labels = MODELS[name]()

    def _step(self, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> Call:
        def step() -> None:
            model.zero_grad(set_to_none=True)
            F.cross_entropy(model(self.inputs).flatten(0, -2), self.labels).backward()
            if optimizer is not None:
                optimizer.step()

        return step

    def own(self, *, attached: bool = False) -> Call:
        """Codes, by Madam."""
        model = copy.deepcopy(self.model)
        convert_model(model, "lns8f5")
        optimizer = Madam(model.parameters(), lr=LR)
        if attached:
            optimizer.attach(model)
        return self._step(model, optimizer)

    def floats(self, *, optimized: bool) -> Call:
        """float32, by fused Adam or with forward and backward alone."""
        model = copy.deepcopy(self.model)
        return self._step(model, torch.optim.Adam(model.parameters(), lr=1e-4, fused=True) if optimized else None)


def steps(name: str) -> Case:
    """A training step of one model."""
    count = sum(p.numel() for p in Steps(name).model.parameters())
    return Case(
        f"training step, {name}",
        FLOAT_STEP,
        {
            OWN: Steps.own,
            "lnsnum, in backward": lambda s: s.own(attached=True),
            FLOAT_STEP: lambda s: s.floats(optimized=True),
            FLOAT_PASSES: lambda s: s.floats(optimized=False),
        },
        lambda size: Steps(name),
        lambda size: 14 * size,  # codes read for either pass, the gradient written, and the optimizer's step
        "1 forward, 1 backward, 1 step of the optimizer; the size is the number of parameters",
        sizes=(count,),
        unit="step",
        count=lambda size: 1,
        floor=FLOAT_PASSES,
    )


def cases() -> list[Case]:
    """The optimizers' cases and one for each model."""
    return [optimizers(), momentum(), small_tensors(), *map(steps, MODELS)]
