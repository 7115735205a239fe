"""Runs of an optimizer that is tried: weights of its own, gradients that are given, and what becomes of the weights.

    weights, gradients of T steps  ->  optimizer = make(weights),  T times step()  ->  weights, element by element

A `Story` is what a run is about; a `Run` may order, group or save things in another way. What comes out is compared.
"""

from __future__ import annotations

import copy
import inspect
import io
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch

from lnsnum.testing.calling import ImplementationError, RaisedError, run_within
from lnsnum.testing.foreign import HangsError

Make = Callable[..., torch.optim.Optimizer]
"""Makes an optimizer of parameters or of groups of them; with a parameter `seed`, of that too."""

Weights = Callable[[torch.Tensor], torch.Tensor]
"""Makes a parameter of a float tensor."""

Gradients = tuple[torch.Tensor | None, ...]
"""Of each parameter; None where it has none."""

Groups = Literal["one", "each"]

Saved = Literal["state_dict", "deepcopy", "file"]


class CannotSaveError(Exception):
    """A state cannot be copied, or written to a file; its cause says why."""


class Story(NamedTuple):
    """Float weights, and their gradients in each step."""

    values: tuple[torch.Tensor, ...]
    steps: tuple[Gradients, ...]

    def __str__(self) -> str:
        first = ", ".join(_told(gradient) for gradient in self.steps[0])
        count = f"{len(self.steps)} steps" if len(self.steps) != 1 else "1 step"
        return f"weights {', '.join(map(_told, self.values))}, {count} from gradients {first}"


_SHOWN = 4


def _told(x: torch.Tensor | None) -> str:
    """A small tensor as a list, a great one by its first numbers and its shape."""
    if x is None:
        return "None"
    numbers = [f"{value:.6g}" for value in x.reshape(-1)[:_SHOWN].tolist()]
    if x.numel() <= _SHOWN and x.ndim == 1:
        return f"[{', '.join(numbers)}]"
    if x.ndim == 0:
        return numbers[0]
    more = ", ..." if x.numel() > _SHOWN else ""
    return f"[{', '.join(numbers)}{more}] of shape {tuple(x.shape)}"


def plain(p: torch.Tensor) -> torch.Tensor:
    """The values of a parameter of any class, as float64."""
    dense = torch.zeros(p.shape, dtype=p.dtype, device="cpu")
    dense.copy_(p.detach())
    return dense.to(torch.float64)


class Maker:
    """What is tried, and how it is asked: each run in a thread that may be left behind.

    `law` is the law that is being tried, for what is said of a run that fails.
    """

    def __init__(self, make: Make, weights: Weights | None, seed: int, timeout: float) -> None:
        self.make, self.own_weights, self.seed, self.timeout = make, weights, seed, timeout
        self.law = ""
        try:
            parameters = inspect.signature(make).parameters
        except (TypeError, ValueError):
            parameters = {}  # type: ignore[assignment]
        self.takes_seed = "seed" in parameters

    def weights(self, value: torch.Tensor) -> torch.Tensor:
        """A parameter of these values; in plain floats where nothing was said."""
        if self.own_weights is None:
            return torch.nn.Parameter(value.clone())
        made = self.own_weights(value.clone())
        if not isinstance(made, torch.Tensor) or not made.requires_grad or not made.is_leaf:
            raise ImplementationError(
                f"weights returned a {type(made).__name__} that is no parameter: return a leaf tensor that requires a "
                "gradient, such as torch.nn.Parameter(...)"
            )
        return made

    def optimizer(self, params: Any, seed: int) -> torch.optim.Optimizer:
        """An optimizer of parameters or groups."""
        made = self.make(params, seed=seed) if self.takes_seed else self.make(params)
        if not isinstance(made, torch.optim.Optimizer):
            raise ImplementationError(f"the factory returned a {type(made).__name__}: return a torch.optim.Optimizer")
        return made

    def run(self, story: Story, work: Callable[[], Any]) -> Any:
        """What `work` returns.

        Raises:
            ImplementationError: where it raises or does not end, with the law and the story.
        """
        where = f"step of {story} (law {self.law})"
        try:
            return run_within(work, self.timeout)
        except HangsError:
            raise ImplementationError(
                f"{where} did not return within {self.timeout:g} s: mend it, or give more time"
            ) from None
        except RaisedError as raised:
            cause = raised.__cause__
            said = " ".join(str(cause).split())
            raise ImplementationError(
                f"{where} raised {type(cause).__name__}{': ' if said else ''}{said}: let a step take any weights and "
                "gradients of floats"
            ) from cause


class Run:
    """An optimizer on weights of its own.

    Args:
        maker: what makes both.
        values: of the weights.
        order: in which the parameters are given.
        groups: all in one group, or each in its own.
        seed: of what the optimizer draws.
        decays: whether weight decay stays as it was made, or is set to 0.
    """

    def __init__(
        self,
        maker: Maker,
        values: tuple[torch.Tensor, ...],
        *,
        order: Callable[[list[int]], list[int]] = list,
        groups: Groups = "one",
        seed: int | None = None,
        decays: bool = True,
    ) -> None:
        self.maker, self.seed = maker, maker.seed if seed is None else seed
        self.params = [maker.weights(value) for value in values]
        self._given = {"order": order, "groups": groups}
        self.optimizer = self._made(self.params)
        for group in self.optimizer.param_groups:
            if not decays and "weight_decay" in group:
                group["weight_decay"] = 0.0

    def _made(self, params: list[torch.Tensor]) -> torch.optim.Optimizer:
        given: Any = [params[i] for i in self._given["order"](list(range(len(params))))]  # type: ignore[operator]
        if self._given["groups"] == "each":
            given = [{"params": [p]} for p in given]
        torch.manual_seed(self.seed)
        return self.maker.optimizer(given, self.seed)

    def set_rate(self, rate: float) -> None:
        """The lr of all groups."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def step(self, gradients: Gradients, label: int) -> None:
        """One step. What draws from torch's generator draws the same in each run for the same label."""
        for p, gradient in zip(self.params, gradients, strict=True):
            p.grad = None if gradient is None else gradient.to(p.dtype)
        torch.manual_seed(self.seed * 1_000_003 + label)
        self.optimizer.step()

    def steps(self, steps: tuple[Gradients, ...], first: int = 0) -> Run:
        """Several steps, labelled from `first` on."""
        for label, gradients in enumerate(steps, first):
            self.step(gradients, label)
        return self

    def resumed(self, how: Saved) -> Run:
        """The same, saved and loaded: weights that are copies, and a new optimizer that takes the state.

        The old one goes on for a step meanwhile, where its state was copied: what was saved must not follow it.

        Raises:
            CannotSaveError: where the state cannot be copied or written.
        """
        new = copy.copy(self)
        state: Any = self.optimizer.state_dict()
        try:
            if how == "file":
                file = io.BytesIO()
                torch.save((self.params, state), file)
                file.seek(0)
                new.params, state = torch.load(file, weights_only=False)  # bytes of our own
            else:
                new.params = copy.deepcopy(self.params)
                state = copy.deepcopy(state) if how == "deepcopy" else state
        except Exception as error:
            raise CannotSaveError from error
        if how != "state_dict":
            self.step(tuple(torch.ones(p.shape) for p in self.params), 77)
        new.optimizer = new._made(new.params)
        new.optimizer.load_state_dict(state)
        return new

    def weights(self) -> torch.Tensor:
        """All elements of all weights, one after the other."""
        return torch.cat([plain(p).reshape(-1) for p in self.params])


# ------------------------------------------------------------------------------------------------------ what is tried


def _random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Normal numbers times powers of two, some of them zero."""
    x = torch.randn(shape, generator=generator)
    powers = torch.randint(-6, 3, shape, generator=generator)
    zero = torch.rand(shape, generator=generator) < 0.1
    return torch.where(zero, 0.0, torch.ldexp(x, powers))


def stories(seed: int, dtype: torch.dtype) -> list[Story]:
    """What is tried, the simplest first: one weight, two, several shapes, and enough elements for a kernel's blocks."""
    generator = torch.Generator().manual_seed(seed)
    one, minus, half = torch.ones(1), -torch.ones(1), torch.full((1,), 0.5)
    told = [
        Story((one,), ((one,),) * 4),
        Story((half,), ((one,), (minus,), (half,), (4 * one,))),
        Story((one, -half), ((one, minus),) * 4),
        Story((half, one), ((one, half), (minus, one), (half, 4 * one), (one, one))),
    ]
    shapes = [((3,), (2, 2)), ((2, 3), (5,), (1,)), ((), (4,), (0,)), ((64, 80), (300,)), ((33, 9), (1, 7), (257,))]
    for sides in shapes:
        values = tuple(torch.randn(shape, generator=generator) for shape in sides)
        told.append(Story(values, tuple(tuple(_random(generator, *s) for s in sides) for _ in range(4))))
    return [
        Story(
            tuple(value.to(dtype) for value in story.values),
            tuple(tuple(None if g is None else g.to(dtype) for g in step) for step in story.steps),
        )
        for story in told
    ]
