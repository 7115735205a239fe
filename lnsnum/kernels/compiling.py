"""How every kernel of the library is compiled: cached, without the GIL, with C's division, serially, without fastmath.

No fastmath and no contraction into fused multiply-adds: a kernel's floating-point operations are the IEEE ones, in the
order written, so that other implementations can agree with it to the bit.

The cache is Numba's, whose failures are not passed on: where machine code cannot be kept or read, a kernel is compiled
anew, and one warning says how to mend it.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.ccallback import CFunc
from numba.core.sigutils import normalize_signature
from numba.misc.appdirs import AppDirs


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` with Numba at its first call, and keep the machine code on disk for the next process."""
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    if not numba.config.DISABLE_JIT:
        try:
            compiled._cache = _Cache(function)  # what enable_caching() does, with another class
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            _say_once("neither its own folder nor a cache folder of the user's can be written")
    result: Callable[..., Any] = compiled
    return result


@lru_cache(maxsize=64)
def callback(function: Callable[[Any], None]) -> int:
    """The address of the machine code of `function` of an integer, for threads that run it without Python; compiled and
    kept as every kernel.
    """
    compiled: Any = CFunc(function, normalize_signature("void(int64)"), {}, {"error_model": "numpy"})
    with contextlib.suppress(RuntimeError):  # no folder to keep it in, which the kernels that it calls have told of
        compiled._cache = _Cache(function)
    compiled.compile()
    _callbacks.append(compiled)
    return int(compiled.address)


_callbacks: list[Any] = []
"""They hold the machine code whose addresses were given away."""


@lru_cache(maxsize=8)
def _say_once(problem: str) -> None:
    warnings.warn(
        f"lnsnum cannot keep its compiled kernels, as {problem}: every process compiles them anew, which is "
        "slow, unless NUMBA_CACHE_DIR names a folder that can be written",
        RuntimeWarning,
        stacklevel=2,
    )


class _Places(CompileResultCacheImpl):  # type: ignore[misc]
    """Where machine code is kept: in NUMBA_CACHE_DIR, beside the source, or in the user's cache folder."""

    _locator_classes = [  # noqa: RUF012 -- the name and the type are Numba's
        place
        for place in CompileResultCacheImpl._locator_classes
        # A user without HOME and without a name has no cache folder: Numba would make one called "~" where we are.
        if os.path.isabs(AppDirs("numba", False).user_cache_dir) or "UserWide" not in place.__name__
    ]


class _Cache(FunctionCache):  # type: ignore[misc]
    """The machine code of one kernel on disk."""

    _impl_class = _Places

    def load_overload(self, *arguments: Any) -> Any:
        """What was kept, or None: for a file that a crash cut short too, or that may not be read."""
        try:
            return super().load_overload(*arguments)
        except Exception:  # whatever pickle makes of half a file
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, *arguments: Any) -> None:
        """Keep it, where that is possible."""
        try:
            super().save_overload(*arguments)
        except OSError as error:
            _say_once(f"the system says {(error.strerror or str(error)).lower()!r}")
