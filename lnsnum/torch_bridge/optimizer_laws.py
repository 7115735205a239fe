"""The laws that optimizers keep, over the elements of the weights that they leave.

    w_(t+1)  =  w_t + step(w_t, g_t, state_t)

What a parameter becomes follows from its own weights, gradients and state, from nothing that stands beside it, and from
no moment at which it was saved. What chance rounds is right on average. `optimizer_runs` makes the runs that are
compared, docs/testing.md has the table.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from lnsnum.testing.spans import Ints
from lnsnum.testing.trial import Batch, Finding, Law
from lnsnum.torch_bridge.optimizer_runs import CannotSaveError, Gradients, Maker, Run, Saved, Story

FALSE_ALARM = 1e-9
"""How likely the law `unbiased` breaks for a rule that keeps it, at most, over all that is tried."""

_ELEMENTS, _SEEDS = 1 << 14, 16
"""How many weights of one value take one step, in how many runs."""


class Tolerances(NamedTuple):
    """How far laws about real numbers let results be off, in units of the move."""

    scale: float
    bias: float


class Weights(Batch):
    """The elements of the weights after a story."""

    operation = "step"

    def __init__(self, maker: Maker, story: Story, place: int, tolerances: Tolerances) -> None:
        self.maker, self.story, self.place, self.tolerances = maker, story, place, tolerances
        self.ends = np.cumsum([value.numel() for value in story.values])

    @property
    def size(self) -> int:
        """How many elements."""
        return int(self.ends[-1])

    def run(self, work: Callable[[], Run]) -> torch.Tensor:
        """What the weights of a run are at its end."""
        weights: torch.Tensor = self.maker.run(self.story, lambda: work().weights())
        return weights

    @cached_property
    def out(self) -> torch.Tensor:
        """After all steps."""
        return self.run(lambda: Run(self.maker, self.story.values).steps(self.story.steps))

    @cached_property
    def start(self) -> torch.Tensor:
        """Before the first."""
        return self.run(lambda: Run(self.maker, self.story.values))

    def of(self, parameter: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """The elements of a parameter."""
        at = np.searchsorted(self.ends, np.arange(self.size), side="right")
        return np.asarray(at == parameter)

    def keys(self, where: Ints) -> Ints:
        """Stories are told from the simplest on."""
        return (self.place << 32) + where

    def inputs(self, i: int) -> tuple[Any, ...]:
        """The weights, and the gradients of each step, in lists."""
        steps = [[None if g is None else g.tolist() for g in step] for step in self.story.steps]
        return [value.tolist() for value in self.story.values], steps

    def result(self, i: int) -> float:
        """The element after all steps."""
        return float(self.out[i])

    def right(self, i: int) -> None:
        """What is right is what the law compares with."""
        return

    def told(self, result: float) -> str:
        """Enough digits for two float32 numbers to differ."""
        return f"{result:.9g}"

    def element(self, i: int) -> str:
        """Which weight it is."""
        parameter = int(np.searchsorted(self.ends, i, side="right"))
        first = int(self.ends[parameter - 1]) if parameter else 0
        return f"element {i - first} of weight {parameter}"

    def said(self, i: int) -> str:
        """The story, and the element at its end."""
        return f"{self.story}: {self.element(i)} is {self.told(self.result(i))}"


def _differs(a: torch.Tensor, b: torch.Tensor) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(~((a == b) | (a.isnan() & b.isnan())).numpy())


def _same(batch: Weights, other: torch.Tensor, words: str, where: Any = None) -> Finding:
    """The elements are those of another run."""
    every = np.ones(batch.size, np.bool_) if where is None else where
    return Finding(every, every & _differs(batch.out, other), lambda i: f"{float(other[i]):.9g}, {words}")


def _compared(batch: Weights, got: torch.Tensor, right: torch.Tensor, words: str, where: Any = None) -> Finding:
    """Elements of one run that are to be those of another, where neither is the story as it was."""
    every = np.ones(batch.size, np.bool_) if where is None else where

    def expected(i: int) -> str:
        return f"{float(right[i]):.9g} {words}, where it is {float(got[i]):.9g}"

    return Finding(every, every & _differs(got, right), expected)


# ---------------------------------------------------------------------------------------------------------- the laws


def _determinism(batch: Weights) -> Iterator[Finding]:
    """The same run again."""
    again = batch.run(lambda: Run(batch.maker, batch.story.values).steps(batch.story.steps))
    yield _same(batch, again, "as in a second run")


def _parameter_order(batch: Weights) -> Iterator[Finding]:
    """The parameters in reverse order."""
    if len(batch.story.values) > 1:
        other = batch.run(
            lambda: Run(batch.maker, batch.story.values, order=lambda p: p[::-1]).steps(batch.story.steps)
        )
        yield _same(batch, other, "as with the parameters in reverse order")


def _grouping(batch: Weights) -> Iterator[Finding]:
    """Each parameter in a group of its own."""
    other = batch.run(lambda: Run(batch.maker, batch.story.values, groups="each").steps(batch.story.steps))
    yield _same(batch, other, "as with a group for each parameter")


def _independence(batch: Weights) -> Iterator[Finding]:
    """Other values and gradients beside a parameter."""
    values, steps = batch.story
    for kept in range(len(values)):
        if len(values) < 2:
            return

        def beside_others(kept: int = kept) -> Run:
            def others(x: tuple[Any, ...]) -> tuple[Any, ...]:
                return tuple(part if i == kept else 3.0 * part + 0.25 for i, part in enumerate(x))

            return Run(batch.maker, others(values)).steps(tuple(others(step) for step in steps))

        other = batch.run(beside_others)
        yield _same(batch, other, "as beside other weights and gradients", batch.of(kept))


def _layout(batch: Weights) -> Iterator[Finding]:
    """Gradients that do not lie one after the other in memory."""

    def apart(gradients: Gradients) -> Gradients:
        laid = []
        for g in gradients:
            wide = torch.zeros(tuple(2 * side for side in reversed(g.shape)), dtype=g.dtype)  # type: ignore[union-attr]
            view = wide.permute(tuple(reversed(range(wide.ndim))))[(slice(None, None, 2),) * wide.ndim]
            laid.append(view.copy_(g))  # type: ignore[arg-type]
        return tuple(laid)

    other = batch.run(lambda: Run(batch.maker, batch.story.values).steps(tuple(map(apart, batch.story.steps))))
    yield _same(batch, other, "as with gradients that are contiguous")


def _resume(batch: Weights) -> Iterator[Finding]:
    """Saved and loaded half-way, and after one step."""
    told: dict[Saved, str] = {"state_dict": "its state_dict", "deepcopy": "copy.deepcopy", "file": "torch.save"}
    for how, words in told.items():
        for at in (1, len(batch.story.steps) // 2):
            yield _resumed(batch, how, at, words)


def _resumed(batch: Weights, how: Saved, at: int, words: str) -> Finding:
    values, steps = batch.story
    said = "one step" if at == 1 else f"{at} steps"

    def trial() -> torch.Tensor | str:
        run = Run(batch.maker, values).steps(steps[:at])
        try:
            run = run.resumed(how)
        except CannotSaveError as error:
            cause = error.__cause__
            return f"{type(cause).__name__}: {' '.join(str(cause).split())[:120]}"
        return run.steps(steps[at:], at).weights()

    other = batch.maker.run(batch.story, trial)
    if isinstance(other, str):
        every = np.ones(batch.size, np.bool_)
        return Finding(every, every, lambda i: f"a state that {words} takes after {said}, which raises {other}")
    return _compared(batch, other, batch.out, f"resumed by {words} after {said}")


def _missing_gradients(batch: Weights) -> Iterator[Finding]:
    """A step in which a parameter has no gradient is none for it."""
    values, steps = batch.story
    last = len(values) - 1
    none: Gradients = tuple(None if i == last else g for i, g in enumerate(steps[1]))
    where = batch.of(last)
    skipped = batch.run(lambda: Run(batch.maker, values).steps((steps[0],)))
    there = batch.run(lambda: Run(batch.maker, values).steps((steps[0], none)))
    yield _compared(batch, there, skipped, "after a step without a gradient", where)

    def with_gap() -> Run:
        run = Run(batch.maker, values)
        run.step(steps[0], 0)
        run.step(none, 1)
        run.step(steps[2], 2)
        return run

    def without() -> Run:
        run = Run(batch.maker, values)
        run.step(steps[0], 0)
        run.step(steps[2], 2)
        return run

    yield _compared(batch, batch.run(with_gap), batch.run(without), "in the step after one without a gradient", where)


def _zero_gradients(batch: Weights) -> Iterator[Finding]:
    """Gradients of zero from the first step on move nothing."""
    values, steps = batch.story
    zeros = tuple(tuple(torch.zeros_like(g) for g in step if g is not None) for step in steps)
    other = batch.run(lambda: Run(batch.maker, values, decays=False).steps(zeros))
    yield _compared(batch, other, batch.start, "after steps of zero gradients")


def _zero_rate(batch: Weights) -> Iterator[Finding]:
    """A rate of zero moves nothing."""

    def still() -> Run:
        run = Run(batch.maker, batch.story.values)
        run.set_rate(0.0)
        return run.steps(batch.story.steps)

    yield _compared(batch, batch.run(still), batch.start, "after steps at a rate of 0")


_MANY = 1024
"""How many weights of one value go down a slope together: what chance rounds moves some of them."""


def _descent(batch: Weights) -> Iterator[Finding]:
    """One step on a quadratic whose minimum is far away."""
    for side in (1.0, -1.0):
        yield _falls(batch, side, "go down", lambda run, slopes: None)


def _falls(batch: Weights, side: float, words: str, first: Callable[[Run, Gradients], None]) -> Finding:
    """Many weights of one value for each parameter go down a slope in one step, after what is done first."""
    there = [(int(end) - value.numel(), value) for end, value in zip(batch.ends, batch.story.values, strict=True)]
    there = [(at, value) for at, value in there if value.numel()]
    values = tuple(value.new_full((_MANY // 16, 16), float(value.reshape(-1)[0])) for _, value in there)
    slopes = tuple(side * 100.0 * value.abs().clamp(min=1.0) for value in values)

    def trial() -> tuple[torch.Tensor, torch.Tensor]:
        run = Run(batch.maker, values, decays=False)
        first(run, slopes)
        before = run.weights()
        run.step(slopes, 9)
        return before, run.weights()

    before, after = batch.maker.run(batch.story, trial)
    move = (after - before).reshape(len(values), -1)
    # the slopes are those of f = sum (w - target)^2 / 2 at the start
    slope = torch.stack([part.reshape(-1).to(torch.float64) for part in slopes])
    change = (slope * move + move.square() / 2).sum(dim=1)
    where, bad = np.zeros((2, batch.size), np.bool_)
    places = [at for at, _ in there]
    where[places], bad[places] = True, ~(change < 0).numpy()
    told = {at: (float(part[0]), float(c)) for at, part, c in zip(places, slope, change, strict=True)}

    def expected(i: int) -> str:
        steep, change = told[i]
        return (
            f"that {_MANY} such weights {words} a slope of {steep:.6g} in one step, where sum (w - target)^2 / 2 "
            f"changes by {change:.6g}"
        )

    return Finding(where, bad, expected)


_REFUSALS = (FloatingPointError, ValueError, RuntimeError)
"""What a step may raise that refuses a gradient."""


def _non_finite(batch: Weights) -> Iterator[Finding]:
    """A NaN, and an infinity, in one element of one gradient, in the second step; and in all elements."""
    if batch.story.values[0].numel():
        for number in (math.nan, math.inf, -math.inf):
            yield from _spoiled(batch, number)

    def refused_or_not(run: Run, slopes: Gradients) -> None:
        with contextlib.suppress(*_REFUSALS):
            run.step(tuple(torch.full_like(slope, math.nan) for slope in slopes if slope is not None), 1)

    yield _falls(batch, 1.0, "still go down, after a gradient of nan,", refused_or_not)


def _spoiled(batch: Weights, number: float) -> Iterator[Finding]:
    values, steps = batch.story
    hit = values[0].numel() // 2

    def spoiled(value: float) -> Gradients:
        first = steps[1][0]
        assert first is not None
        first = first.clone()
        first.reshape(-1)[hit] = value
        return (first, *steps[1][1:])

    def trial() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]:
        run = Run(batch.maker, values).steps(steps[:1])
        before, refused = run.weights(), False
        try:
            run.step(spoiled(number), 1)
        except _REFUSALS:
            refused = True
        middle = run.weights()
        return before, middle, run.steps(steps[2:], 2).weights(), refused

    before, middle, end, refused = batch.maker.run(batch.story, trial)
    if refused:  # then nothing has moved, and the next steps are as if nothing had been
        yield _compared(batch, middle, before, f"after a step that refused a gradient of {number}")
        straight = batch.run(lambda: Run(batch.maker, values).steps(steps[:1]).steps(steps[2:], 2))
        yield _compared(batch, end, straight, f"some steps after one that refused a gradient of {number}")
        return
    here = np.zeros(batch.size, np.bool_)
    here[hit] = True
    yield _compared(batch, middle, before, f"after a gradient of {number} there", here)
    finite = torch.where(end.isfinite(), end, torch.zeros_like(end))
    yield _compared(batch, end, finite, f"or another number some steps after a gradient of {number} there", here)
    zeroed = batch.run(lambda: Run(batch.maker, values).steps(steps[:1]).steps((spoiled(0.0),), 1).steps(steps[2:], 2))
    yield _compared(batch, end, zeroed, f"beside a gradient of {number}", ~here)


def _scale_equivariance(batch: Weights) -> Iterator[Finding]:
    """All gradients times a power of two."""
    for power in (-8, 8):
        yield _scaled(batch, power)


def _scaled(batch: Weights, power: int) -> Finding:
    values, steps = batch.story
    scaled = tuple(tuple(torch.ldexp(g, torch.tensor(power)) for g in step if g is not None) for step in steps)
    other = batch.run(lambda: Run(batch.maker, values).steps(scaled))
    off = (other - batch.out).abs()
    # two roundings to float32 of what is the same in exact arithmetic, unless the same bits are asked for
    rounded = 2.0**-21 * batch.out.abs() if batch.tolerances.scale else 0.0
    allowed = batch.tolerances.scale * (batch.out - batch.start).abs() + rounded
    every = np.ones(batch.size, np.bool_)
    # _differs: of two that are both NaN, or the same infinity, no difference can be taken
    bad = ~(off <= allowed).numpy() & _differs(other, batch.out)
    return Finding(every, bad, lambda i: f"{float(other[i]):.9g}, as with all gradients times 2^{power}")


def _unbiased(batch: Weights) -> Iterator[Finding]:
    """The mean move of many weights of one value, in runs of several seeds, against that of plain floats."""
    if batch.place >= len(_VALUES):
        return
    value, slope = _VALUES[batch.place]
    weights, gradient = (batch.story.values[0].new_full((_ELEMENTS,), x) for x in (value, slope))

    def moved(maker: Maker, start: torch.Tensor, seed: int) -> torch.Tensor:
        run = Run(maker, (start,), seed=seed, decays=False)
        run.step((gradient,), 0)
        return run.weights()

    def trial() -> tuple[torch.Tensor, float, float]:
        own = Run(batch.maker, (weights,)).weights()
        floats = Maker(batch.maker.make, None, batch.maker.seed, batch.maker.timeout)
        right = moved(floats, own.to(torch.float64), batch.maker.seed)
        seeds = range(batch.maker.seed, batch.maker.seed + _SEEDS)
        return torch.cat([moved(batch.maker, weights, seed) for seed in seeds]), float(right.mean()), float(own[0])

    out, right, start = batch.maker.run(batch.story, trial)
    mean, count = float(out.mean()), out.numel()
    spread, width = float(out.var(correction=0)), float(out.max() - out.min())
    # Maurer and Pontil 2009: the mean of bounded numbers, by the variance that was seen
    log = math.log(4.0 * len(_VALUES) / FALSE_ALARM)
    noise = math.sqrt(2.0 * spread * log / count) + 7.0 * width * log / (3.0 * (count - 1))
    allowed = noise + batch.tolerances.bias * abs(right - start) + 2.0**-22 * abs(start)
    where = np.zeros(batch.size, np.bool_)
    where[0] = True

    def expected(i: int) -> str:
        return (
            f"a mean of {right:.9g} of {count} weights of {start:.9g} after a step of gradient {slope:g}, as in "
            f"floats, to within {allowed:.3g}; it is {mean:.9g}"
        )

    yield Finding(where, where & (not abs(mean - right) <= allowed), expected)


_VALUES = ((1.0, 1.0), (0.5, -1.0), (-0.3, 2.0), (0.02, 1.0), (-0.7, 0.125))
"""Weights and gradients whose mean move is asked for, one with each of the first stories."""


OPTIMIZER_LAWS: dict[str, Law[Weights]] = {
    "determinism": Law("The same weights and gradients give the same weights again.", "w_T = w'_T", _determinism),
    "parameter_order": Law(
        "The order in which the parameters are given does not matter.", "make([p, q]) = make([q, p])", _parameter_order
    ),
    "grouping": Law(
        "One group of all parameters or a group for each is the same.",
        "make([p, q]) = make([{p}, {q}])",
        _grouping,
    ),
    "independence": Law(
        "What a parameter becomes does not depend on the weights and gradients beside it.",
        "p_T = f(p_0, g_0, ..., g_(T-1))",
        _independence,
    ),
    "layout": Law("The strides of a gradient do not matter.", "f(g^T^T) = f(g)", _layout),
    "resume": Law(
        "Weights and state that were saved and loaded go on as if nothing had been, to the bit.",
        "load(save(w_t, state_t)): w_T = w'_T",
        _resume,
    ),
    "missing_gradients": Law(
        "A step in which a parameter has no gradient changes neither it nor what follows.",
        "g = None: w_(t+1) = w_t, state_(t+1) = state_t",
        _missing_gradients,
    ),
    "zero_gradients": Law(
        "Without decay, gradients of zero from the first step on move nothing.", "g = 0: w_T = w_0", _zero_gradients
    ),
    "zero_rate": Law("A learning rate of zero moves nothing.", "lr = 0: w_T = w_0", _zero_rate),
    "descent": Law(
        "Without decay, a step on a quadratic whose minimum is far away goes down.",
        "f(w) = sum (w - target)^2 / 2: f(w_1) < f(w_0)",
        _descent,
    ),
    "non_finite": Law(
        "A gradient that is NaN or infinite changes nothing of its element, and nothing of others; or the step refuses "
        "it and changes nothing at all.",
        "g[i] = nan: w_(t+1)[i] = w_t[i], moving ever after",
        _non_finite,
    ),
    "scale_equivariance": Law(
        "All gradients times one factor give the same weights, to within the tolerance.",
        "|w_T(c g) - w_T(g)| <= tolerance |w_T(g) - w_0|",
        _scale_equivariance,
    ),
    "unbiased": Law(
        "The mean step of weights that chance rounds is that of plain floats, by a test that errs once in 10^9.",
        "|mean w_1 - float w_1| <= noise + tolerance |w_1 - w_0|",
        _unbiased,
    ),
}
"""By name, in the order in which they are reported."""

OPTIONAL = ("non_finite", "scale_equivariance", "unbiased")
"""Laws that sound optimizers may lack: they are tried where they are named."""

PLACED = ("parameter_order", "grouping")
"""Laws that rules lack whose chance is drawn in the order of the parameters."""
