"""What a datapath computes with: a format for each kind of tensor, and what sums are kept in.

    weights, activations, errors      operands of products, quantized where they enter one      (Q_W, Q_A, Q_E)
    gradients                         products that belong to a weight, quantized as they leave  (Q_G)
    accumulate                        "float32", or an `Accumulator` of an LNS format
    elementwise                       whether all else is computed in that format too

The names Q are those of LNS-Madam (Zhao et al., LNS-Madam: Low-Precision Training in Logarithmic Number System using
Multiplicative Weight Update, 2021). Its Q_U, the rounding of updated weights, is `lnsnum.torch_bridge.Madam`'s own.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numba.core.errors import NumbaError

from lnsnum.format import LNSFormat, Rounding, check_choice, check_log_offset
from lnsnum.gaussian import Exact, GaussianLog, check_gaussian, evaluate
from lnsnum.torch_bridge.kernels.codes_twin import check_width

ScaleRule = Literal["max", "running", "channel"] | int
"""How the log_offset of a tensor is chosen, see `Numbers`."""

Order = Literal["sequential", "pairwise", "blocked"]
"""In which order an `Accumulator` adds."""

FINEST = 18
"""So many fraction bits at most: a float32, in which numbers travel between operations, still tells the codes apart."""


@dataclass(frozen=True)
class Numbers:
    """How the tensors of one kind become codes.

    Args:
        fmt: the format, or its name; 3 to 16 bits.
        scale: how the log_offset is chosen: "max", the least at which nothing of the tensor saturates; "running", the
            same of a maximum that falls by `decay` with each tensor of the same place, so that something may saturate,
            and that stands still while a model is in evaluation mode;
            "channel", one for each index of the result: of each row of a left factor, each column of a right one, each
            output channel of a convolution's weight, each image of its input; or an integer, fixed.
        rounding: a mode of `lnsnum.encode`. The stochastic ones draw from (seed, place, step, index).
        outside: what the straight-through gradient is where a number lay above the greatest of its format: "pass", as
            if it had been within, or "zero".
        decay: of "running", from 0 to 1.

    >>> Numbers("lns8f3", scale=0)
    Numbers(fmt=LNSFormat(8, 3), scale=0, rounding='nearest', outside='pass', decay=0.99)
    """

    fmt: LNSFormat
    scale: ScaleRule = "max"
    rounding: Rounding = "nearest"
    outside: Literal["pass", "zero"] = "pass"
    decay: float = 0.99

    def __post_init__(self) -> None:
        object.__setattr__(self, "fmt", LNSFormat.of(self.fmt))
        check_width(self.fmt)
        if isinstance(self.scale, str):
            check_choice("scale", self.scale, Literal["max", "running", "channel"])
        elif isinstance(self.scale, bool) or not isinstance(self.scale, int):
            raise TypeError(f"scale={self.scale!r} is not known: 'max', 'running', 'channel', or a log_offset")
        else:
            check_log_offset(self.scale, "scale")
        check_choice("rounding", self.rounding, Rounding)
        check_choice("outside", self.outside, Literal["pass", "zero"])
        if not 0.0 <= self.decay <= 1.0:
            raise ValueError(f"decay={self.decay} is out of range: 0 to 1")

    @property
    def is_random(self) -> bool:
        """Whether rounding draws."""
        return self.rounding.startswith("stochastic")

    @classmethod
    def of(cls, given: Numbers | LNSFormat | str | None, what: str) -> Numbers | None:
        """What was given as a kind's numbers: themselves, or a format for all defaults."""
        if given is None or isinstance(given, cls):
            return given
        if isinstance(given, (LNSFormat, str)):
            return cls(given)  # type: ignore[arg-type]
        raise TypeError(f"{what}={given!r} is a {type(given).__name__}: give a format, its name, Numbers(...), or None")


@dataclass(frozen=True)
class Accumulator:
    """Sums kept in an LNS format, every addition rounded to it: bit-true.

    A term is the exact product of two codes, placed in the format: saturated, or underflowed by nearest, where it
    leaves the range. See `lnsnum.reduction` for the error bound, which holds for "sequential" and "pairwise".

    Args:
        fmt: the format, or its name, of the operands' base with no fewer bits and fraction bits; at most 18 of these.
        order: "sequential", ((t_0 + t_1) + t_2) + ...; "pairwise", neighbours first, level by level; "blocked", `block`
            terms one after another, then the blocks' sums one after another.
        gaussian_log: the Gaussian logarithm of its additions, one of `lnsnum.gaussian` or your own; exact by default.
        block: terms of a block, of that order.
        log_offset: where its range lies. "fit": the greatest product that the operands' formats and scales allow, times
            the number of terms, is just within. "dynamic": the greatest sum of magnitudes that there is in a product of
            matrices (`dynamic_range`) is, so that the range lies octaves lower, a narrow accumulator loses fewer small
            sums, and what rounding carries above saturates. An integer: fixed, in its own code steps, as in hardware
            whose numbers have no scale; 0 puts 1 in the middle.

    >>> from lnsnum.gaussian import Mitchell
    >>> Accumulator("lns12f6", order="pairwise", gaussian_log=Mitchell())
    Accumulator(fmt=LNSFormat(12, 6), order='pairwise', gaussian_log=Mitchell(), block=16, log_offset='fit')
    """

    fmt: LNSFormat
    order: Order = "sequential"
    gaussian_log: GaussianLog = field(default_factory=Exact)
    block: int = 16
    log_offset: int | Literal["fit", "dynamic"] = "fit"

    @property
    def name(self) -> str:
        """That of its format."""
        return self.fmt.name

    @property
    def is_dynamic(self) -> bool:
        """Whether its range goes by the numbers of each product."""
        return self.log_offset == "dynamic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "fmt", LNSFormat.of(self.fmt))
        check_choice("order", self.order, Order)
        check_gaussian(self.gaussian_log)
        try:
            for subtracted in (False, True):
                evaluate(self.gaussian_log, np.arange(1, 3, dtype=np.int64), self.fmt, subtracted)
        except NumbaError as error:
            raise TypeError(
                f"gaussian_log={self.gaussian_log!r} does not compile: {str(error).strip().splitlines()[0]}"
            ) from None
        if self.fmt.fraction_bits > FINEST:
            raise ValueError(
                f"an accumulator of {self.fmt.name} is finer than the float32 that its sums leave in: at most {FINEST} "
                "fraction bits"
            )
        if isinstance(self.block, bool) or not isinstance(self.block, int) or self.block < 1:
            raise ValueError(f"block={self.block!r} is no number of terms: an integer, 1 or more")
        if isinstance(self.log_offset, str):
            check_choice("log_offset", self.log_offset, Literal["fit", "dynamic"])
        else:
            check_log_offset(self.log_offset)


@dataclass(frozen=True)
class FixedPoint:
    """Sums kept in integers so wide that nothing but the rounding of each term counts: see `fixed_point`.

    The reference that an `Accumulator` is compared with. A product of codes becomes a multiple of 2^-bits of the
    greatest product P that formats and scales allow, from a table of powers of 2 rounded to `bits`; a sum of n terms,
    at most 2^(62 - bits) of them, is within n 2^-bits P of the exact one.

    Args:
        bits: 8 to 50.

    >>> FixedPoint(40).name
    'a fixed-point accumulator of 40 bits'
    """

    bits: int = 40

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 8 <= self.bits <= 50:
            raise ValueError(f"bits={self.bits!r} is out of range: an integer from 8 to 50")

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"a fixed-point accumulator of {self.bits} bits"


BitTrue = Accumulator | FixedPoint
"""What adds codes, not floats."""


@dataclass(frozen=True)
class Formats:
    """The datapath of one layer; see `lnsnum.torch_bridge.datapath.datapath` for the arguments."""

    weights: Numbers | None = None
    activations: Numbers | None = None
    errors: Numbers | None = None
    gradients: Numbers | None = None
    accumulate: BitTrue | Literal["float32"] = "float32"
    elementwise: bool = False

    def __post_init__(self) -> None:
        for kind in KINDS:
            object.__setattr__(self, kind, Numbers.of(getattr(self, kind), kind))
        if not isinstance(self.elementwise, bool):
            raise TypeError(f"elementwise={self.elementwise!r} is a {type(self.elementwise).__name__}: True or False")
        if self.elementwise and not isinstance(self.accumulate, Accumulator):
            given = "'float32'" if isinstance(self.accumulate, str) else self.accumulate.name
            raise ValueError(
                f"elementwise=True computes in the format of an accumulator, and accumulate={given} has none: give "
                "accumulate=Accumulator(...)"
            )
        if not isinstance(self.accumulate, (Accumulator, FixedPoint)):
            if self.accumulate != "float32":
                raise ValueError(
                    f"accumulate={self.accumulate!r} is not known: 'float32', an Accumulator(...), or FixedPoint(...)"
                )
            return
        to = self.accumulate
        for kind in OPERANDS:
            numbers = getattr(self, kind)
            if numbers is None:
                # LNSWeights have one of their own, and inference has no errors
                if kind == "activations":
                    raise ValueError(
                        f"accumulate={to.name} adds products of codes, and {kind} are floats: give {kind} a format"
                    )
            else:
                check_operand(numbers.fmt, kind, to)

    def numbers(self, kind: str) -> Numbers | None:
        """Those of a kind."""
        numbers: Numbers | None = getattr(self, kind)
        return numbers


KINDS = "weights", "activations", "errors", "gradients"
"""Of tensors."""

OPERANDS = "weights", "activations", "errors"
"""Those that enter products."""


def check_operand(fmt: LNSFormat, kind: str, to: BitTrue) -> None:
    """Raise TypeError or ValueError where an accumulator cannot take products of a format."""
    if isinstance(to, FixedPoint):
        if fmt.base != 2.0:
            raise TypeError(f"{kind} of {fmt.name} are no powers of 2, which {to.name} adds: take formats of base 2")
        return
    accumulator = to.fmt
    if fmt.base != accumulator.base:
        raise TypeError(
            f"{kind} of {fmt.name} and an accumulator of {accumulator.name} have different bases: a bit-true sum has "
            "one base"
        )
    if fmt.bits > accumulator.bits or fmt.fraction_bits > accumulator.fraction_bits:
        raise ValueError(
            f"the accumulator {accumulator.name} is narrower than {kind} of {fmt.name}: take one with at least "
            f"{fmt.bits} bits and {fmt.fraction_bits} fraction bits"
        )


@dataclass(frozen=True)
class Settings:
    """A whole model's datapath: what all layers do, and by patterns of their names what some do instead."""

    formats: Formats
    layers: tuple[tuple[str, Formats | None], ...] = ()
    seed: int = 0
    statistics: int | None = 8

    @property
    def any_elementwise(self) -> bool:
        """Whether some layer computes elementwise operations in LNS."""
        every = [self.formats, *(formats for _, formats in self.layers)]
        return any(formats is not None and formats.elementwise for formats in every)

    def of_layer(self, name: str) -> Formats | None:
        """What a layer does; None where it stays in float. The last pattern that fits its name decides."""
        found: Formats | None = self.formats
        for pattern, formats in self.layers:
            if fnmatch.fnmatchcase(name, pattern):
                found = formats
        return found


def read_layers(formats: Formats, layers: Mapping[str, Any] | None) -> tuple[tuple[str, Formats | None], ...]:
    """By pattern, the changes to what all layers do, as `Formats`; None for float."""
    known = {one.name for one in fields(Formats)}
    read: list[tuple[str, Formats | None]] = []
    for pattern, changes in (layers or {}).items():
        if not isinstance(pattern, str):
            raise TypeError(f"layers has the key {pattern!r}: give patterns of modules' names, such as 'encoder.*'")
        if changes is None or isinstance(changes, Formats):
            read.append((pattern, changes))
            continue
        if not isinstance(changes, Mapping):
            raise TypeError(f"layers[{pattern!r}]={changes!r} is not known: give a dict of what changes, or None")
        strange = set(changes) - known
        if strange:
            raise TypeError(f"layers[{pattern!r}] has {sorted(strange)[0]!r}, which is not known: {', '.join(known)}")
        read.append((pattern, replace(formats, **changes)))
    return tuple(read)
