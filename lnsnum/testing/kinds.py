"""`check_laws`: one door to the laws of every kind, by a table.

kind  ->  its laws, and the function that tries them
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from lnsnum.format import LNSFormat
from lnsnum.testing.checking import check_arithmetic_laws
from lnsnum.testing.conversion_checking import check_conversion_laws
from lnsnum.testing.conversion_laws import CONVERSION_LAWS
from lnsnum.testing.gaussian_checking import check_gaussian_laws
from lnsnum.testing.gaussian_laws import GAUSSIAN_LAWS
from lnsnum.testing.laws import LAWS
from lnsnum.testing.quantizer_checking import check_quantizer_laws
from lnsnum.testing.quantizer_laws import QUANTIZER_LAWS
from lnsnum.testing.report import LawReport
from lnsnum.testing.stochastic_checking import check_stochastic_laws
from lnsnum.testing.stochastic_laws import STOCHASTIC_LAWS
from lnsnum.testing.sum_checking import check_sum_laws
from lnsnum.testing.sum_laws import SUM_LAWS
from lnsnum.testing.trial import Law


class Kind(NamedTuple):
    """What can be tried: all its laws by name, and the function that tries them on (implementation, fmt)."""

    laws: Mapping[str, Law[Any]]
    check: Callable[..., LawReport]

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that the function takes."""
        parameters = inspect.signature(self.check).parameters.values()
        return tuple(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)

    @property
    def needs_format(self) -> bool:
        """Whether the function must be given a format."""
        return inspect.signature(self.check).parameters["fmt"].default is inspect.Parameter.empty


KINDS = {
    "arithmetic": Kind(LAWS, check_arithmetic_laws),
    "conversions": Kind(CONVERSION_LAWS, check_conversion_laws),
    "gaussian": Kind(GAUSSIAN_LAWS, check_gaussian_laws),
    "quantizers": Kind(QUANTIZER_LAWS, check_quantizer_laws),
    "stochastic": Kind(STOCHASTIC_LAWS, check_stochastic_laws),
    "sums": Kind(SUM_LAWS, check_sum_laws),
}
"""By name."""

OPTIMIZERS = "optimizers"
"""What stands on torch, and is not imported here."""


def find_kind(kind: str, fmt: object, options: Iterable[str]) -> Kind:
    """The kind of this name; ValueError and TypeError as in `check_laws`, for the names of options."""
    if kind == OPTIMIZERS:
        raise ValueError(
            f"kind={kind!r} has a door of its own, as it needs torch: "
            "lnsnum.torch_bridge.strategies.check_optimizer_laws"
        )
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is not known: one of {', '.join(KINDS)}")
    chosen = KINDS[kind]
    for name in options:
        if name not in chosen.options:
            raise TypeError(f"kind={kind!r} takes no option {name!r}: {', '.join(chosen.options)}")
    if fmt is None and chosen.needs_format:
        raise TypeError(f"kind={kind!r} needs a format: give fmt, such as 'lns8f3'")
    return chosen


def check_laws(
    implementation: object, fmt: LNSFormat | str | None = None, *, kind: str = "arithmetic", **options: Any
) -> LawReport:
    """Try the laws of a kind on an implementation of your own.

    Args:
        implementation: an object, module or mapping with the functions of that kind, or one function.
        fmt: the format, or its name; kinds that need none take None.
        kind: what is tried, one of `KINDS`.
        options: those of the function that tries it, such as `check_arithmetic_laws`.

    Returns:
        LawReport: over how many inputs each law held.

    Raises:
        LawViolation, ImplementationError: as the function of that kind does.
        TypeError: for an option that the kind does not take, or a format that it needs.
        ValueError: for a kind that is not known.

    >>> import numpy as np
    >>> def negative(a, b):  # no product
    ...     return np.where(a & 7, a ^ 8, a).astype(np.uint8)
    >>> try:
    ...     check_laws(negative, "lns4f1", kind="arithmetic", operations=["multiply"], laws=["zero"])
    ... except AssertionError as error:
    ...     print(error)
    zero: multiply(4, 0) = 12, that is 1 * 0 = -1; expected 0 (0)
    """
    return find_kind(kind, fmt, options).check(implementation, fmt, **options)
