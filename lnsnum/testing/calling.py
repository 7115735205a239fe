"""How what is tried is asked: with arrays where it takes them, else one input after the other; and what it may not do.

    inputs, n of each  ->  arrays, tensors of torch, or n calls  ->  one array of n results

An implementation is an object or module with methods, a mapping from names to functions, or one function. What raises,
hangs, or returns something else than was asked for ends in an `ImplementationError`: one sentence with the law and the
first input on which it does.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from lnsnum.testing.c_functions import c_function
from lnsnum.testing.foreign import Array, CallError, Foreign, HangsError

Takes = Literal["auto", "arrays", "elements", "tensors"]
"""What the functions take: arrays of NumPy's, single numbers, tensors of torch's; "auto" finds out."""

Told = Callable[[int], str]
"""An input in words, by its index."""

_PROBE = 4
"""With how many inputs it is found out what a function takes."""


class ImplementationError(Exception):
    """What is tried gave no result that could be judged; the message names the law and the input."""


class RaisedError(Exception):
    """A call raised what is the cause of this."""


def run_within(work: Callable[[], Any], seconds: float) -> Any:
    """What `work` returns, in a thread of its own, which is left behind where it does not end.

    Raises:
        HangsError: where it does not end in time.
        RaisedError: from what it raised; an ImplementationError as it is.
    """
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # one of theirs, SystemExit too: told of in our thread
            errors.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        if isinstance(errors[0], ImplementationError | HangsError):
            raise errors[0]
        raise RaisedError from errors[0]
    if thread.is_alive():
        raise HangsError
    return results[0]


class Callee:
    """The functions of an implementation by name.

    Args:
        implementation: an object, a mapping or a function.
        known: the names that functions may have.
        wanted: those that are to be tried; a single function has the one name that is wanted.
        takes: what the functions take.
        timeout: how many seconds a call may last.
        wants: what a function should return, for what is said of one that raises.
    """

    def __init__(
        self,
        implementation: object,
        known: tuple[str, ...],
        wanted: tuple[str, ...] | None,
        takes: Takes,
        timeout: float,
        wants: str = "return a result for every input",
    ) -> None:
        self.timeout, self.wants, self.law = timeout, wants, ""
        self.functions: dict[str, Any] = {}  # callables of Python's, and `Foreign` ones
        for name in known:
            named = implementation.get(name) if isinstance(implementation, Mapping) else None
            function = c_function(named or getattr(implementation, name, None))
            if callable(function) or isinstance(function, Foreign):
                self.functions[name] = function
        if wanted is not None and len(wanted) == 1:
            alone = callable(implementation) or isinstance(implementation, Foreign)
            is_ufunc = hasattr(implementation, "nin")  # Numba's have a method `add`, which adds a signature
            if alone and (is_ufunc or wanted[0] not in self.functions):
                self.functions = {wanted[0]: c_function(implementation)}
        self._takes: dict[str, Takes] = dict.fromkeys(self.functions, takes)

    def __call__(self, name: str, inputs: tuple[Array, ...], dtype: np.dtype[Any], told: Told) -> Array:
        """The results of n inputs, arrays whose first axis is n long: an array of `dtype`, n long.

        `told` says input i in words, for instance `add(64, 192)`.
        """
        if isinstance(self.functions[name], Foreign):
            self._takes[name] = "arrays"
        elif self._takes[name] == "auto":
            self._takes[name] = self._find_out(name, tuple(x[:_PROBE] for x in inputs), dtype)
        try:
            return self._ask(name, inputs, dtype, self._takes[name], self.timeout, told)
        except (HangsError, RaisedError) as trouble:
            raise self._located(name, inputs, dtype, told, trouble) from trouble.__cause__

    def _find_out(self, name: str, inputs: tuple[Array, ...], dtype: np.dtype[Any]) -> Takes:
        """Arrays unless they raise or give another shape; then single inputs, then tensors, whichever works first."""
        try:
            out = run_within(lambda: self.functions[name](*(x.copy() for x in inputs)), self.timeout)
        except (HangsError, RaisedError):
            out = None
        if out is not None and getattr(out, "shape", None) == (len(inputs[0]),):
            return "tensors" if _is_tensor(out) else "arrays"
        others: tuple[Takes, ...] = ("elements", "tensors") if "torch" in sys.modules else ("elements",)
        for takes in others:
            try:
                self._ask(name, inputs, dtype, takes, self.timeout, lambda _: name)
            except (HangsError, RaisedError, ImplementationError):
                continue
            return takes
        return "arrays"

    def _ask(
        self, name: str, inputs: tuple[Array, ...], dtype: np.dtype[Any], takes: Takes, seconds: float, told: Told
    ) -> Array:
        function, count = self.functions[name], len(inputs[0])
        where = self._place(told, 0)
        if isinstance(function, Foreign):
            answers: Array = run_within(lambda: function.ask(inputs, seconds), seconds + _GRACE)
            return answers
        if takes == "elements":
            out = run_within(lambda: _one_by_one(function, inputs), seconds)
            for i, element in enumerate(out):
                if isinstance(element, bool) or not isinstance(element, _ELEMENTS[dtype.kind]):
                    where, kind = self._place(told, i), type(element).__name__
                    raise ImplementationError(f"{where} returned a {kind}: return {_WANTED[dtype.kind]}")
            return self._rounded_to_none(out, dtype, told)
        if takes == "tensors":
            torch = sys.modules["torch"]
            tensors = [torch.from_numpy(x.astype(np.int64) if x.dtype.kind == "u" else x.copy()) for x in inputs]
            out = run_within(lambda: function(*tensors), seconds)
            if not _is_tensor(out):
                raise ImplementationError(
                    f"{where} returned a {type(out).__name__}: return one tensor, as it was given"
                )
            if not _is_of(out, dtype):
                wanted = f"one of {dtype}" if dtype.kind == "f" else "one of integers"
                raise ImplementationError(f"{where} returned a tensor of {str(out.dtype)[6:]}: return {wanted}")
            out = out.detach().cpu().numpy()
        else:
            out = run_within(lambda: function(*(x.copy() for x in inputs)), seconds)
            if not isinstance(out, np.ndarray):
                raise ImplementationError(f"{where} returned a {type(out).__name__}: return one array of {dtype}")
            if out.dtype != dtype and not (dtype.kind == "i" and out.dtype.kind in "iu"):
                raise ImplementationError(f"{where} returned an array of {out.dtype}: return one of {dtype}")
        if out.shape != (count,):
            raise ImplementationError(
                f"{where} returned shape {out.shape} for inputs of shape {inputs[0].shape}: return shape ({count},)"
            )
        return np.array(out, dtype=np.int64 if dtype.kind == "u" else dtype)

    def _rounded_to_none(self, out: list[Any], dtype: np.dtype[Any], told: Told) -> Array:
        """Numbers as an array of integers or of a type of floats, which must hold them as they are."""
        if dtype.kind != "f":
            return np.array(out, dtype=np.int64)
        wide = np.array(out, dtype=np.float64)
        with np.errstate(over="ignore"):
            array = wide.astype(dtype)
        rounded = np.flatnonzero((array != wide) & ~np.isnan(wide))
        if rounded.size:
            i = int(rounded[0])
            raise ImplementationError(f"{self._place(told, i)} returned {wide[i]}, no {dtype}: round it to one")
        return array

    def _place(self, told: Told, i: int) -> str:
        return f"{told(i)} (law {self.law})"

    def _located(
        self,
        name: str,
        inputs: tuple[Array, ...],
        dtype: np.dtype[Any],
        told: Told,
        trouble: Exception,
    ) -> ImplementationError:
        """The same trouble with the first input that makes it, found by halves."""
        low, high = 0, len(inputs[0])
        hangs = isinstance(trouble, HangsError)
        middle = 1  # the first alone first: where every input hangs, each half would, and cost its time
        while high - low > 1:
            try:
                half = tuple(x[low:middle] for x in inputs)
                self._ask(name, half, dtype, self._takes[name], min(self.timeout, _PATIENCE), told)
                low = middle
            except (HangsError, RaisedError) as again:
                high, hangs = middle, isinstance(again, HangsError)
                trouble = again
            middle = (low + high) // 2
        where = self._place(told, low)
        if hangs:
            return ImplementationError(f"{where} did not return within {self.timeout:g} s: mend it, or give more time")
        cause = trouble.__cause__
        said = " ".join(str(cause).split())
        if isinstance(cause, CallError):
            return ImplementationError(f"{where} {said}")
        return ImplementationError(f"{where} raised {type(cause).__name__}{': ' if said else ''}{said}: {self.wants}")


_GRACE = 1.0
"""Seconds more than a foreign function has, in which it ends what it began."""

_PATIENCE = 2.0
"""How many seconds a part of what hung gets, while the input that hangs is looked for."""

_ELEMENTS: dict[str, tuple[type, ...]] = {"u": (int, np.integer), "i": (int, np.integer), "f": (float, np.floating)}
_WANTED = {"u": "an integer", "i": "an integer", "f": "a float"}


def _is_of(tensor: Any, dtype: np.dtype[Any]) -> bool:
    """Whether a tensor has integers, or the floats that were asked for."""
    if dtype.kind == "f":
        return str(tensor.dtype) == f"torch.{dtype.name}"
    return not (tensor.is_floating_point() or tensor.is_complex() or str(tensor.dtype) == "torch.bool")


def _is_tensor(out: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(out, torch.Tensor)


def _one_by_one(function: Callable[..., Any], inputs: tuple[Array, ...]) -> list[Any]:
    columns = [x.tolist() if x.ndim == 1 else x for x in inputs]
    results = [function(*row) for row in zip(*columns, strict=True)]
    return [x[()] if isinstance(x, np.ndarray) and x.ndim == 0 else x for x in results]
