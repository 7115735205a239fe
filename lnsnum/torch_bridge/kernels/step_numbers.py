"""What a step of Madam's is told, and what it tells: choices, numbers, the float32 scalars made of them, counts.

    numbers  ->  scalars          in float64, each rounded once to float32, so that kernel and twin have the same

`lnsnum.torch_bridge.kernels.update` has the step itself.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from lnsnum.format import LNSFormat, check_choice
from lnsnum.kernels.compiling import kernel

Rule = Literal["hypentropy", "paper"]
"""How a weight moves: through zero, by about lr |w| where it is large and lr r where it is small; or by a factor."""

StepRounding = Literal["stochastic_log", "stochastic_value", "nearest"]
"""How the paper's real number of code steps is rounded: so that the logarithm of the weight is right on average, so
that the weight is, or to nearest, ties to an even number of steps."""

Zero = Literal["learn", "keep", "leave", "raise"]
"""What becomes of a weight that is zero. It learns (hypentropy); it stays; it leaves zero at the first nonzero g_hat,
as the smallest magnitude against the gradient (paper); or the optimizer refuses it. (The step itself takes "raise" as
the rule's default.)"""

ZEROS: dict[Rule, tuple[Zero, ...]] = {"hypentropy": ("learn", "keep", "raise"), "paper": ("keep", "leave", "raise")}
"""What each rule can do with zeros, its default first."""

GREATEST_BOUND = 2.0**27  # times the greatest rate a finite float32: one that is not is no finite gradient's


class Choices(NamedTuple):
    """What a step does, beside the numbers: the rule, how the paper's rounds, and what becomes of zeros."""

    rule: Rule = "hypentropy"
    rounding: StepRounding = "stochastic_log"
    zero: Zero = "learn"

    @classmethod
    def of(cls, rule: Rule, rounding: StepRounding | None, zero: Zero | None) -> Choices:
        """The choices, with the rule's defaults for None.

        Raises:
            ValueError: for an unknown one, and for one that the other rule takes.
        """
        check_choice("rule", rule, Rule)
        if rounding is not None:
            check_choice("rounding", rounding, StepRounding)
            if rule != "paper":
                raise ValueError(f"rounding={rounding!r} is for rule='paper': the {rule} rule has its own")
        if zero is not None:
            check_choice("zero", zero, Zero)
            if zero not in ZEROS[rule]:
                allowed = ", ".join(map(repr, ZEROS[rule]))
                raise ValueError(f"zero={zero!r} is not for rule={rule!r}, which takes {allowed}")
        return cls(rule, rounding or get_args(StepRounding)[0], zero or ZEROS[rule][0])


class StepNumbers(NamedTuple):
    """The numbers of a step, as given: floats; of the twin, 0-dim tensors too."""

    lr: Any
    kappa: Any
    """What lr is multiplied by for this parameter: min(1, cap / r) of the hypentropy rule."""
    exponent: Any
    """The scale of one-byte moments."""
    beta_product: Any
    """The product of beta over the steps so far, this one included."""
    momentum_product: Any
    g_bound: float
    beta: float
    momentum: float
    weight_decay: float


class StepScalars(NamedTuple):
    """The float32 scalars of a step; of the twin under torch.compile, tensors of them."""

    gradient_scale: Any
    """2^-exponent where the second moment is coded, else 1."""
    beta: Any
    rest: Any
    """1 - beta."""
    correction: Any
    """1 / (1 - the product of beta over the steps)."""
    momentum: Any
    momentum_rest: Any
    momentum_correction: Any
    momentum_load: Any
    """The scale of momentum codes against that of gradients: 1 where the second moment is coded, else 2^exponent."""
    momentum_store: Any
    """Its inverse."""
    g_bound: Any
    rate: Any
    """lr kappa of the hypentropy rule, lr 2^F / ln(base) of the paper's; at most 2^100."""
    decay: Any
    """lr weight_decay, or the paper's pull, rate weight_decay; at most 2^30."""


SCALARS = len(StepScalars._fields)


@kernel
def fill_scalars(n, codes, log_base, coded, out):  # type: ignore[no-untyped-def]
    """Write the scalars of a step by `StepNumbers` of floats: float64 arithmetic, each rounded once to float32.

    `codes` and `log_base` are those of `paper_rate`.
    """
    # in this order, so that the twin's tensors of float64 round to the same float32
    by_paper = codes > 0.0
    rate = n.lr * codes / log_base if by_paper else n.lr * n.kappa
    decay = (rate if by_paper else n.lr) * n.weight_decay
    out[0] = math.ldexp(1.0, -n.exponent) if coded else 1.0
    out[1] = n.beta
    # before beta is rounded: 1 - float32(0.999) may be off by up to 2^-15 in relation
    out[2] = 1.0 - n.beta
    out[3] = 1.0 / (1.0 - n.beta_product)
    out[4] = n.momentum
    out[5] = 1.0 - n.momentum
    out[6] = 1.0 / (1.0 - n.momentum_product)
    out[7] = 1.0 if coded else math.ldexp(1.0, n.exponent)
    out[8] = 1.0 if coded else math.ldexp(1.0, -n.exponent)
    # times the next it is at most 2^127: an infinite drive would pass for that of a gradient that is not finite
    out[9] = min(n.g_bound, GREATEST_BOUND)
    out[10] = min(rate, 2.0**100)
    # no step of the paper's rule is longer
    out[11] = min(decay, 2.0**30)


@kernel
def kappa_of(cap, r):  # type: ignore[no-untyped-def]
    """min(1, cap / r): what lr is multiplied by for a tensor whose RMS is r."""
    return min(1.0, cap / r) if r > 0.0 else 1.0


def step_scalars(fmt: LNSFormat, rule: Rule, numbers: StepNumbers, *, coded: bool) -> StepScalars:
    """The scalars of a step."""
    out = np.empty(SCALARS, np.float32)
    floats = StepNumbers(*(int(n) if name == "exponent" else float(n) for name, n in numbers._asdict().items()))
    fill_scalars(floats, *paper_rate(fmt, rule), coded, out)
    # elements of an array, which stay float32: a float64 beside them would make the kernel's arithmetic float64
    return StepScalars(*out)


def paper_rate(fmt: LNSFormat, rule: Rule) -> tuple[float, float]:
    """2^F and ln(base), of whose quotient the paper's rate is lr times; zeros for the other rule."""
    return (float(1 << fmt.fraction_bits), math.log(fmt.base)) if rule == "paper" else (0.0, 0.0)


class StepCounts(NamedTuple):
    """What one step did to one array of codes."""

    moved: int
    at_ceiling: int
    at_floor: int
    zeros: int
    sign_changes: int
    not_finite: int

    def __add__(self, other: tuple[int, ...]) -> StepCounts:  # type: ignore[override]
        return StepCounts(*(a + b for a, b in zip(self, other, strict=True)))
