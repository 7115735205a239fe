"""How a network is trained: the format of its weights, the optimizer, and every choice that the study varies.

A recipe is read and written without torch, as by `lnsnum report`; only what prepares a model loads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import WIDEST_TABLE
from lnsnum.tasks import TaskError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

OptimizerName = Literal["madam", "adam", "sgd", "adamw", "adamw8bit"]
Schedule = Literal["linear", "cosine", "constant", "warm-up"]
Zeros = Literal["redraw", "leave", "keep", "none"]
Parameters = Literal["all", "matrices"]
Granularity = Literal["tensor", "channel", "group"]
StepRounding = Literal["stochastic_log", "stochastic_value", "nearest"]
Rounding = Literal["stochastic_log", "stochastic_value", "nearest", "kahan"]
SecondMoment = Literal["byte", "float32"]
Rule = Literal["hypentropy", "paper"]
Ceiling = Literal["follow", "fixed"]

DEFAULT_LR = 0.05
"""Madam's. It and the four choices above are the bridge's too, which cannot be read without torch."""

DEFAULT_LRS: dict[str, float] = {"madam": DEFAULT_LR, "adam": 1e-3, "sgd": 0.1, "adamw": 1e-3, "adamw8bit": 1e-3}
"""Adam's is the one of its paper."""

FLOAT = "float32"
"""The format of plain floats."""
BFLOAT16, INT8 = "bfloat16", "int8"
"""What others keep weights in: floats of two bytes, and integers of one with a scale for each row of a linear layer."""
_FOREIGN = {BFLOAT16: "adamw", INT8: "adamw8bit"}
"""Their optimizers."""

DEFAULT_MOMENTA: dict[str, float] = {"madam": 0.0, "adam": 0.9, "sgd": 0.9, "adamw": 0.9, "adamw8bit": 0.9}
"""Adam's is its beta_1."""

ADAM_BETA_2 = 0.999
DECAY = 0.01
"""AdamW's weight decay, torch's own."""
GROUP = 32
"""Weights that have a scale in common, where groups have."""
ZERO_STD = 0.1
"""Zeros are drawn anew with this standard deviation, or the parameter's own root mean square if that is less."""


@dataclass(frozen=True)
class Recipe:
    """Format, optimizer and their choices; the defaults are the library's."""

    format: str = "lns8f5"
    """The name of an LNS format, "float32", or what others keep weights in: "bfloat16" or "int8"."""
    optimizer: OptimizerName = "madam"
    lr: float | None = None
    """Learning rate; None for the optimizer's default."""
    schedule: Schedule = "linear"
    """What becomes of the learning rate: it falls linearly to zero, along half a cosine, or not at all; or it rises
    linearly over the first tenth of the steps and falls linearly over the others."""
    momentum: float | None = None
    """Madam's or SGD's, or Adam's beta_1; None for the optimizer's default."""
    second_moment: SecondMoment = "byte"
    rule: Rule = "hypentropy"
    """Madam's."""
    crossover: float = 1.0
    cap: float = 0.2
    ceiling: Ceiling = "follow"
    rounding: Rounding | None = None
    """Of the paper's rule, None for its default; or of bfloat16 weights, "stochastic_value" or "kahan"."""
    p_scale: float = 3.0
    zeros: Zeros = "keep"
    """What becomes of the zeros at the start: Madam keeps them, and they learn; or they are drawn anew, for the paper's
    rule, which cannot move them; or, where they are LNS, that lets them leave zero by their first gradients. "none":
    they are drawn anew, and Madam makes none, for to see what zero as a rung is worth."""
    parameters: Parameters = "all"
    """Which parameters are LNS: all, or those of two dimensions and more (the others stay float)."""
    beta: float = 0.999
    """Decay of Madam's second moment."""
    granularity: Granularity = "tensor"
    """What has one scale: a tensor, each index of its first dimension, or each group of 32 along its last one."""

    def __post_init__(self) -> None:
        """Raise TaskError for what no recipe can be."""
        if self.is_lns:
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
        if not 0.0 <= self.beta < 1.0:
            raise TaskError(f"beta {self.beta} is out of range: 0 or more, less than 1")
        if not 0.0 <= self.crossover < math.inf:
            raise TaskError(f"crossover {self.crossover} is out of range: finite, 0 or more")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise TaskError(f"{name}={getattr(self, name)!r} is none of {', '.join(map(repr, choices))}")
        if self.format in _FOREIGN or self.optimizer == "adamw8bit":
            self._check_foreign()
        elif self.rounding == "kahan":
            raise TaskError(f"rounding='kahan' is for weights in {BFLOAT16}, not in {self.format}")
        elif self.rule != "paper" and self.rounding is not None:
            raise TaskError(f"rounding={self.rounding!r} is for rule='paper': the {self.rule} rule has its own")
        if self.rule != "paper" and self.zeros == "leave":
            raise TaskError(f"zeros='leave' is for rule='paper': under the {self.rule} rule zeros learn")

    def _check_foreign(self) -> None:
        if _FOREIGN.get(self.format) != self.optimizer:
            pairs = " or ".join(f"{fmt} with {name}" for fmt, name in _FOREIGN.items())
            raise TaskError(
                f"format {self.format} does not go with {self.optimizer}: give an LNS format or {FLOAT} with madam, "
                f"adam, adamw or sgd; rivals of the study are {pairs}"
            )
        roundings = ("stochastic_value", "kahan") if self.format == BFLOAT16 else (None,)
        if self.rounding not in roundings:
            raise TaskError(
                f"rounding={self.rounding!r} of {self.format}: it takes {' or '.join(map(repr, roundings))}"
            )

    @property
    def is_lns(self) -> bool:
        """Whether the weights are codes."""
        return self.format not in (FLOAT, *_FOREIGN)

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
        return self.is_lns and self.optimizer == "madam"

    def changes(self) -> dict[str, Any]:
        """What differs from the defaults, those of this optimizer, by name."""
        mine, standard = asdict(self.filled()), asdict(Recipe())
        standard["lr"], standard["momentum"] = DEFAULT_LRS[self.optimizer], DEFAULT_MOMENTA[self.optimizer]
        return {name: value for name, value in mine.items() if value != standard[name]}

    def as_dict(self) -> dict[str, Any]:
        """Every choice, for JSON; `Recipe(**recipe.as_dict()) == recipe`."""
        return asdict(self)

    def prepare(self, model: nn.Module, seed: int) -> Optimizer:
        """Convert the model, where the format is LNS, and make its optimizer.

        Raises:
            TaskError: where the model's weights cannot be had in that format.
        """
        if self.format in _FOREIGN:
            from lnsnum.tasks import few_bytes

            if self.format == INT8:
                return few_bytes.int8_adamw8bit(model, self.rate, self.inertia)
            by_kahan = self.rounding == "kahan"
            way = few_bytes.bfloat16_kahan if by_kahan else few_bytes.bfloat16_stochastic
            return way(model, self.rate, self.inertia)
        self.convert(model, seed)
        if self.optimizer == "madam" and self.zeros in ("redraw", "none"):
            _redraw_zeros(model, seed)
        return self.optimizer_for(model, seed)

    def convert(self, model: nn.Module, seed: int) -> None:
        """Give the model weights of the format, in place; plain floats stay as they are.

        Raises:
            TaskError: where they cannot be had in that format.
        """
        if not self.is_lns:
            return
        from lnsnum.torch_bridge import convert_model

        matrices = self.parameters == "matrices"
        try:
            convert_model(
                model,
                self.format,
                p_scale=self.p_scale,
                per_channel=self.granularity == "channel",
                group_size=GROUP if self.granularity == "group" else None,
                zeros="redraw" if self.zeros in ("redraw", "none") else "keep",
                zero_std=ZERO_STD,
                filter_fn=(lambda _, p: p.ndim > 1) if matrices else None,
                seed=seed,
            )
        except ValueError as error:
            raise TaskError(f"format {self.format}: {error}") from error

    def optimizer_for(self, model: nn.Module, seed: int) -> Optimizer:
        """The optimizer of a converted model."""
        from torch.optim import SGD, Adam, AdamW

        from lnsnum.torch_bridge import Madam

        parameters = list(model.parameters())
        if self.optimizer == "adamw":
            return AdamW(parameters, lr=self.rate, betas=(self.inertia, ADAM_BETA_2), weight_decay=DECAY)
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
            rounding=cast("StepRounding | None", self.rounding),
            p_scale=self.p_scale,
            beta=self.beta,
            zero=_ZERO.get(self.zeros),
            seed=seed,
        )

    def scheduler(self, optimizer: Optimizer, steps: int, done: int = 0) -> LambdaLR:
        """The schedule over so many steps, step t from 0, or from the first that is not done."""
        from torch.optim.lr_scheduler import LambdaLR

        factor = _factor(self.schedule, steps)
        return LambdaLR(optimizer, lambda t: factor(done + t))


_ZERO: dict[str, Literal["leave", "keep"]] = {"leave": "leave", "none": "keep"}
"""What Madam is told of zeros, where it is not the rule's default."""

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "optimizer": get_args(OptimizerName),
    "schedule": get_args(Schedule),
    "second_moment": get_args(SecondMoment),
    "rule": get_args(Rule),
    "ceiling": get_args(Ceiling),
    "rounding": (None, *get_args(Rounding)),
    "zeros": get_args(Zeros),
    "parameters": get_args(Parameters),
    "granularity": get_args(Granularity),
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
    if schedule == "warm-up":
        rising = max(steps // 10, 1)
        return lambda t: (t + 1) / rising if t < rising else (steps - t) / max(steps - rising, 1)
    return lambda _: 1.0
