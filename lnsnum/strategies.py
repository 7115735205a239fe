"""Hypothesis strategies: formats, codes, tensors, scales, floats, and the operands that are hard to round or to add up.

Each shrinks to what is simplest: base 2, few bits, few elements other than 1, log_offset 0. What they draw is in
`lnsnum.testing`: codes and tensors in `code_strategies`, floats in `float_strategies`, hard cases in `tie_strategies`
and `matrix_strategies`. `lnsnum.torch_bridge.strategies` has weights, models and gradients.

`check_laws` (`lnsnum.testing.kinds`) tries laws on something of your own, by kind; each kind has a function too, such
as `check_arithmetic_laws` and `check_sum_laws`; `check_optimizer_laws` is in `lnsnum.torch_bridge.strategies`. They and
the strategies need the extra `hypothesis`; docs/testing.md has examples.
"""

from lnsnum.testing.calling import ImplementationError
from lnsnum.testing.checking import check_arithmetic_laws
from lnsnum.testing.code_strategies import bases, codes, formats, pairs, scales, tensors
from lnsnum.testing.conversion_checking import check_conversion_laws
from lnsnum.testing.float_strategies import finite_floats
from lnsnum.testing.gaussian_checking import check_gaussian_laws
from lnsnum.testing.kinds import KINDS, check_laws
from lnsnum.testing.matrix_strategies import matrices
from lnsnum.testing.quantizer_checking import check_quantizer_laws
from lnsnum.testing.report import LawReport, LawViolation, Violation
from lnsnum.testing.stochastic_checking import check_stochastic_laws
from lnsnum.testing.sum_checking import check_sum_laws
from lnsnum.testing.tie_strategies import near_ties

__all__ = [
    "KINDS",
    "ImplementationError",
    "LawReport",
    "LawViolation",
    "Violation",
    "bases",
    "check_arithmetic_laws",
    "check_conversion_laws",
    "check_gaussian_laws",
    "check_laws",
    "check_quantizer_laws",
    "check_stochastic_laws",
    "check_sum_laws",
    "codes",
    "finite_floats",
    "formats",
    "matrices",
    "near_ties",
    "pairs",
    "scales",
    "tensors",
]
