"""What array-api-tests is run on: the namespace of a format under the names that it asks for (docs/array_api.md).

    float32     lns32f23, so that there is a real type of 32 bits; no float64
    x.dtype     the format, which tensors call fmt

Its strategies draw floats and want each to be stored unchanged: powers of two, zero and NaN are.
"""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import array_api

from lnsnum import LNSFormat, LNSTensor, lns32f23
from lnsnum.array.namespace import Namespace


class Tensor(LNSTensor):
    """With the attributes that the standard names otherwise."""

    __slots__ = ()

    @property
    def dtype(self):
        return self.fmt


xp: Any = Namespace(Tensor, lns32f23)
xp.float32 = lns32f23
# names that the suite looks at; it is told to draw none of them
xp.float64, xp.complex64, xp.complex128 = np.dtype("float64"), np.dtype("complex64"), np.dtype("complex128")
xp.__version__ = "lnsnum"

_drawn = array_api._from_dtype


def _from_dtype(namespace, api_version, dtype, **limits):
    if not isinstance(dtype, LNSFormat):
        return _drawn(namespace, api_version, dtype, **limits)
    low, high = limits.get("min_value"), limits.get("max_value")
    numbers = [0.0, *(sign * 2.0**n for n in range(-20, 61) for sign in (1, -1))]
    ends = [end for end, strict in ((low, "exclude_min"), (high, "exclude_max")) if limits.get(strict)]
    numbers = [x for x in numbers if (low is None or low <= x) and (high is None or x <= high) and x not in ends]
    if not numbers:
        return st.nothing()
    with_nan = limits.get("allow_nan", limits.get("min_value") is None and limits.get("max_value") is None)
    return st.one_of(st.sampled_from(numbers), st.just(float("nan"))) if with_nan else st.sampled_from(numbers)


array_api._from_dtype = _from_dtype


def __getattr__(name):
    return getattr(xp, name)
