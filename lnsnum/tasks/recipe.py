"""How a network is trained: the format of its weights, the optimizer, and every choice that the study varies.

A recipe is read and written without torch, as by `lnsnum report`; only what prepares a model loads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import WIDEST_TABLE
from lnsnum.tasks import TaskError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

OptimizerName = Literal["madam", "adam", "sgd"]
Schedule = Literal["linear", "cosine", "constant"]
Zeros = Literal["redraw", "leave", "keep"]
Parameters = Literal["all", "matrices"]
StepRounding = Literal["stochastic_log", "stochastic_value", "nearest"]
SecondMoment = Literal["byte", "float32"]
Rule = Literal["hypentropy", "paper"]
Ceiling = Literal["follow", "fixed"]

DEFAULT_LR = 0.05
"""Madam's. It and the four choices above are the bridge's too, which cannot be read without torch."""

DEFAULT_LRS: dict[str, float] = {"madam": DEFAULT_LR, "adam": 1e-3, "sgd": 0.1}
"""Adam's is the one of its paper."""

FLOAT = "float32"
"""The format of plain floats."""

DEFAULT_MOMENTA: dict[str, float] = {"madam": 0.0, "adam": 0.9, "sgd": 0.9}
"""Adam's is its beta_1."""

ADAM_BETA_2 = 0.999
ZERO_STD = 0.1
"""Zeros are drawn anew with this standard deviation, or the parameter's own root mean square if that is less."""


@dataclass(frozen=True)
class Recipe:
    """Format, optimizer and their choices; the defaults are the library's."""

    format: str = "lns8f5"
    """The name of an LNS format, or "float32"."""
    optimizer: OptimizerName = "madam"
    lr: float | None = None
    """Learning rate; None for the optimizer's default."""
    schedule: Schedule = "linear"
    """What becomes of the learning rate: it falls linearly to zero, along half a cosine, or not at all."""
    momentum: float | None = None
    """Madam's or SGD's, or Adam's beta_1; None for the optimizer's default."""
    second_moment: SecondMoment = "byte"
    rule: Rule = "hypentropy"
    """Madam's."""
    crossover: float = 1.0
    cap: float = 0.2
    ceiling: Ceiling = "follow"
    rounding: StepRounding | None = None
    """Of the paper's rule; None for its default."""
    p_scale: float = 3.0
    zeros: Zeros = "keep"
    """What becomes of the zeros at the start: Madam keeps them, and they learn; or they are drawn anew, for the paper's
    rule, which cannot move them; or, where they are LNS, that lets them leave zero by their first gradients."""
    parameters: Parameters = "all"
    """Which parameters are LNS: all, or those of two dimensions and more (the others stay float)."""

    def __post_init__(self) -> None:
        """Raise TaskError for what no recipe can be."""
        if self.format != FLOAT:
            try:
                fmt = LNSFormat.parse(self.format)
            except ValueError as error:
                raise TaskError(f"format: {error}") from error
            if fmt.bits > WIDEST_TABLE:
                raise TaskError(f"format {self.format}: at most {WIDEST_TABLE} bits can be trained")
        if self.lr is not None and not 0.0 <= self.lr < math.inf:
            raise TaskError(f"lr {self.lr} is no learning rate: give a finite number, 0 or more")
        if self.momentum is not None and not 0.0 <= self.momentum < 1.0:
            raise TaskError(f"momentum {self.momentum} is out of range: 0 or more, less than 1")
        for name in ("p_scale", "cap"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise TaskError(f"{name} {getattr(self, name)} is out of range: finite and greater than 0")
        if not 0.0 <= self.crossover < math.inf:
            raise TaskError(f"crossover {self.crossover} is out of range: finite, 0 or more")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise TaskError(f"{name}={getattr(self, name)!r} is none of {', '.join(map(repr, choices))}")
        if self.rule != "paper" and self.rounding is not None:
            raise TaskError(f"rounding={self.rounding!r} is for rule='paper': the {self.rule} rule has its own")
        if self.rule != "paper" and self.zeros == "leave":
            raise TaskError(f"zeros='leave' is for rule='paper': under the {self.rule} rule zeros learn")

    @property
    def rate(self) -> float:
        """The learning rate, the default filled in."""
        return DEFAULT_LRS[self.optimizer] if self.lr is None else self.lr

    @property
    def inertia(self) -> float:
        """The momentum, the default filled in."""
        return DEFAULT_MOMENTA[self.optimizer] if self.momentum is None else self.momentum

    def filled(self) -> Recipe:
        """The same with the defaults of learning rate and momentum filled in."""
        return replace(self, lr=self.rate, momentum=self.inertia)

    @property
    def label(self) -> str:
        """Format and optimizer: "lns8f5 madam"."""
        return f"{self.format} {self.optimizer}" + (" (paper)" if self.rule == "paper" else "")

    @property
    def moves_codes(self) -> bool:
        """Whether Madam moves LNS codes."""
        return self.format != FLOAT and self.optimizer == "madam"

    def changes(self) -> dict[str, Any]:
        """What differs from the defaults, those of this optimizer, by name."""
        mine, standard = asdict(self.filled()), asdict(Recipe(optimizer=self.optimizer).filled())
        standard["optimizer"] = Recipe().optimizer
        return {name: value for name, value in mine.items() if value != standard[name]}

    def as_dict(self) -> dict[str, Any]:
        """Every choice, for JSON; `Recipe(**recipe.as_dict()) == recipe`."""
        return asdict(self)

    def prepare(self, model: nn.Module, seed: int) -> Optimizer:
        """Convert the model, where the format is LNS, and make its optimizer.

        Raises:
            TaskError: where the model's weights cannot be had in that format.
        """
        self.convert(model, seed)
        if self.optimizer == "madam" and self.zeros == "redraw":
            _redraw_zeros(model, seed)
        return self.optimizer_for(model, seed)

    def convert(self, model: nn.Module, seed: int) -> None:
        """Give the model weights of the format, in place; plain floats stay as they are.

        Raises:
            TaskError: where they cannot be had in that format.
        """
        if self.format == FLOAT:
            return
        from lnsnum.torch_bridge import convert_model

        matrices = self.parameters == "matrices"
        try:
            convert_model(
                model,
                self.format,
                p_scale=self.p_scale,
                zeros="redraw" if self.zeros == "redraw" else "keep",
                zero_std=ZERO_STD,
                filter_fn=(lambda _, p: p.ndim > 1) if matrices else None,
                seed=seed,
            )
        except ValueError as error:
            raise TaskError(f"format {self.format}: {error}") from error

    def optimizer_for(self, model: nn.Module, seed: int) -> Optimizer:
        """The optimizer of a converted model."""
        from torch.optim import SGD, Adam

        from lnsnum.torch_bridge import Madam

        parameters = list(model.parameters())
        if self.optimizer == "adam":
            return Adam(parameters, lr=self.rate, betas=(self.inertia, ADAM_BETA_2))
        if self.optimizer == "sgd":
            return SGD(parameters, lr=self.rate, momentum=self.inertia)
        return Madam(
            parameters,
            lr=self.rate,
            momentum=self.inertia,
            second_moment=self.second_moment,
            rule=self.rule,
            crossover=self.crossover,
            cap=self.cap,
            ceiling=self.ceiling,
            rounding=self.rounding,
            p_scale=self.p_scale,
            zero="leave" if self.zeros == "leave" else None,
            seed=seed,
        )

    def scheduler(self, optimizer: Optimizer, steps: int, done: int = 0) -> LambdaLR:
        """The schedule over so many steps, step t from 0, or from the first that is not done."""
        from torch.optim.lr_scheduler import LambdaLR

        factor = _factor(self.schedule, steps)
        return LambdaLR(optimizer, lambda t: factor(done + t))


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "optimizer": get_args(OptimizerName),
    "schedule": get_args(Schedule),
    "second_moment": get_args(SecondMoment),
    "rule": get_args(Rule),
    "ceiling": get_args(Ceiling),
    "rounding": (None, *get_args(StepRounding)),
    "zeros": get_args(Zeros),
    "parameters": get_args(Parameters),
}


def _redraw_zeros(model: nn.Module, seed: int) -> None:
    """Draw the zeros of float parameters anew, as conversion does those of LNS weights."""
    import torch

    from lnsnum.torch_bridge import LNSWeight

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if isinstance(p, LNSWeight) or not bool((zero := p == 0).any()):
                continue
            rms = float(p.square().mean().sqrt())
            drawn = torch.randn(int(zero.sum()), generator=generator) * (min(ZERO_STD, rms) or ZERO_STD)
            p[zero] = drawn.to(p)


def _factor(schedule: Schedule, steps: int) -> Callable[[int], float]:
    if schedule == "linear":
        return lambda t: 1 - t / steps
    if schedule == "cosine":
        return lambda t: (1 + math.cos(math.pi * t / steps)) / 2
    return lambda _: 1.0
