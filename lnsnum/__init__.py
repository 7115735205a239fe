"""lnsnum: the logarithmic number system for Python. See docs/number_format.md for what a code means."""

from typing import TYPE_CHECKING, Any

from lnsnum.conversion import convert
from lnsnum.decoding import decode
from lnsnum.encoding import encode, fit_log_offset
from lnsnum.format import (
    LNSFormat,
    lns4f1,
    lns6f2,
    lns8f3,
    lns8f4,
    lns8f5,
    lns10f5,
    lns12f6,
    lns16f7,
    lns16f10,
    lns32f23,
)
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.kernels.rounding import random_bits
from lnsnum.kernels.threads import get_num_threads, set_num_threads
from lnsnum.operations.weight_only import weight_only_matmul
from lnsnum.tensor import LNSTensor
from lnsnum.weight_file import WeightFileError, load_weights, save_weights

if TYPE_CHECKING:
    from lnsnum.testing.law_tests import laws
else:

    def __getattr__(name: str) -> Any:
        """`laws`, with what it stands on, when somebody writes tests."""
        if name == "laws":
            from lnsnum.testing.law_tests import laws

            return laws
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.2.0"

__all__ = [
    "GroupOffsets",
    "LNSFormat",
    "LNSTensor",
    "WeightFileError",
    "convert",
    "decode",
    "encode",
    "fit_log_offset",
    "get_num_threads",
    "laws",
    "lns4f1",
    "lns6f2",
    "lns8f3",
    "lns8f4",
    "lns8f5",
    "lns10f5",
    "lns12f6",
    "lns16f7",
    "lns16f10",
    "lns32f23",
    "load_weights",
    "random_bits",
    "save_weights",
    "set_num_threads",
    "weight_only_matmul",
]
