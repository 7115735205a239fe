"""ScaledCodes: an array of codes with its format and its scale, and all that moves numbers.

    x[i]  =  (-1)^s[i] * base^((m[i] - bias + log_offset) / 2^F)

Indexing, reshaping and joining do to the scales what they do to the codes: no number is rounded by being moved. Where
a number goes into an array that is there already (`x[i] = y`), that array's format and scale say what becomes of it:
one rounding, to nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from lnsnum.array.moved_scales import moved_scale
from lnsnum.array.rationals import encode_rationals, fit_rationals, fit_rationals_each, numbers_in
from lnsnum.array.reading import Array, ReadCodes
from lnsnum.array.scalars import exact_codes, not_exact
from lnsnum.conversion import rescale
from lnsnum.encoding import encode, fit_log_offset
from lnsnum.format import LNSFormat, Overflow, Rounding, Underflow
from lnsnum.kernels.codes import Codes, LogOffset, check_codes, check_offsets, check_unmasked, each_offset, of_elements
from lnsnum.kernels.granularity import Channels, check_granularity
from lnsnum.kernels.groups import GroupOffsets


class ScaledCodes(ReadCodes):
    """What an LNSTensor holds; see there."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, codes: ArrayLike, fmt: LNSFormat | str, *, log_offset: LogOffset = 0) -> None:
        self._fmt = LNSFormat.of(fmt)
        check_unmasked(codes, "codes")
        array = None if isinstance(codes, ScaledCodes) else np.asarray(codes)
        if array is None or array.dtype.newbyteorder("=") != self._fmt.dtype:
            given = type(codes).__name__ if array is None else f"{array.dtype}"
            raise TypeError(
                f"{type(self).__name__} takes codes of {self._fmt.name} as an array of {self._fmt.dtype}, not {given}: "
                "from_float rounds numbers to the format, from_codes takes integers of any type as codes"
            )
        self._codes = check_codes(array, self._fmt)
        self._log_offset = _frozen(check_offsets(log_offset, self._codes.shape))

    @classmethod
    def from_codes(cls, codes: ArrayLike, fmt: LNSFormat | str, *, log_offset: LogOffset = 0) -> Self:
        """The tensor of these code words: integers of any type, each of them looked at.

        Raises:
            TypeError: where codes are no integers.
            ValueError: where one lies outside the format; the message says which.

        >>> from lnsnum import LNSTensor
        >>> LNSTensor.from_codes([64, 192, 0], "lns8f3").tolist()
        [1.0, -1.0, 0.0]
        """
        fmt = LNSFormat.of(fmt)
        if isinstance(codes, ScaledCodes):
            raise TypeError(f"codes is a {type(codes).__name__} already: astype(fmt) rounds it to another format")
        return cls(check_codes(codes, fmt), fmt, log_offset=log_offset)

    @classmethod
    def _of(cls, codes: Codes, fmt: LNSFormat, log_offset: LogOffset = 0) -> Self:
        """Without a look at the arguments: for results of our own."""
        new = object.__new__(cls)
        new._codes, new._fmt, new._log_offset = codes, fmt, _frozen(log_offset)
        return new

    @classmethod
    def from_float(
        cls,
        x: ArrayLike,
        fmt: LNSFormat | str,
        *,
        rounding: Rounding = "nearest",
        overflow: Overflow = "saturate",
        underflow: Underflow = "round",
        log_offset: LogOffset | Literal["fit"] | None = None,
        channels: Channels = None,
        group_size: int | None = None,
        random_bits: ArrayLike | None = None,
        dtype: str | None = None,
    ) -> Self:
        """The tensor nearest to floats (or rounded as asked): `lnsnum.encode` with its arguments and errors.

        Integers of any size, `Fraction` and `Decimal` are rounded once, as they are, and truth values are 0 and 1.
        `log_offset="fit"` takes the least offset at which no finite element saturates; with `channels` one for each of
        them, with `group_size` one for each group: `lnsnum.fit_log_offset`. Where these two are given, log_offset is
        left out, or "fit"; else it is 0.

        >>> from lnsnum import LNSTensor
        >>> LNSTensor.from_float([300.0, 1e6], "lns8f3", log_offset="fit").log_offset
        96
        >>> LNSTensor.from_float(np.ones((64, 100)), "lns8f3", group_size=32).log_offset.offsets.shape
        (64, 4)
        """
        fmt = LNSFormat.of(fmt)
        if isinstance(x, ScaledCodes):
            raise TypeError("x holds codes, not floats: x.astype(fmt) rounds them once to another format")
        if isinstance(x, (list, tuple)) and holds_tensor(x):
            raise TypeError("x is a list of tensors, which hold codes, not floats: numpy.stack(x) makes one of them")
        check_unmasked(x)
        exact = numbers_in(x) if dtype is None else None
        fitted = channels is not None or group_size is not None
        if fitted and log_offset is not None and not isinstance(log_offset, str):
            raise ValueError(
                "channels and group_size say of which elements a scale is fitted, and log_offset gives one: leave out "
                "log_offset, or give an array, or GroupOffsets, alone"
            )
        if isinstance(log_offset, str) and log_offset != "fit":
            raise ValueError(f'log_offset={log_offset!r} is not known: an integer or "fit"')
        if fitted or isinstance(log_offset, str):
            if exact is None:
                log_offset = fit_log_offset(
                    x, fmt, rounding=rounding, dtype=dtype, channels=channels, group_size=group_size
                )
            elif each := check_granularity(channels, group_size, exact.shape):
                log_offset = fit_rationals_each(exact, fmt, rounding, each)
            else:
                log_offset = fit_rationals(exact, fmt, rounding)
        elif log_offset is None:
            log_offset = 0
        options: Any = {"rounding": rounding, "overflow": overflow, "underflow": underflow, "random_bits": random_bits}
        if exact is None:
            codes = encode(x, fmt, log_offset=log_offset, dtype=dtype, **options)
        else:
            codes = encode_rationals(exact, fmt, log_offset=log_offset, **options)
        return cls(codes, fmt, log_offset=log_offset)

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._of, (self._codes, self._fmt, self._log_offset)

    def copy(self) -> Self:
        """The same numbers in codes of its own."""
        return self._of(self._codes.copy(), self._fmt, self._log_offset)

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Self:
        return self.copy()

    def moved(self, move: Callable[[Array], Any]) -> Self:
        """The same move of the codes and of the scales: a view of the codes where the move makes one.

        >>> from lnsnum import LNSTensor
        >>> LNSTensor.from_codes([[64, 72]], "lns8f3").moved(lambda codes: codes[:, ::-1])
        LNSTensor.from_float([[2., 1.]], 'lns8f3')
        """
        return self._of(np.asarray(move(self._codes)), self._fmt, self._moved_scale(move))

    def _moved_scale(self, move: Callable[[Array], Any]) -> LogOffset:
        return moved_scale(self._log_offset, self.shape, move)

    def __getitem__(self, index: Any) -> Self:
        return self.moved(lambda array: array[index])

    def __setitem__(self, index: Any, value: object) -> None:
        part = self._codes[index]
        offset = self._moved_scale(lambda array: array[index])
        self._codes[index] = into(value, self._fmt, offset, np.shape(part))

    def fill(self, value: object) -> None:
        """Every element becomes `value`, as by `x[...] = value`."""
        self[...] = value

    @property
    def T(self) -> Self:  # noqa: N802
        """As of a NumPy array: a view."""
        return self.transpose()

    @property
    def mT(self) -> Self:  # noqa: N802
        """The last two axes exchanged, as of a NumPy array: a view."""
        if self.ndim < 2:
            raise ValueError(f"mT of shape {self.shape}: give at least two axes")
        return self.swapaxes(-1, -2)

    @property
    def device(self) -> str:
        """The memory of the processor, "cpu", as of a NumPy array."""
        return "cpu"

    def to_device(self, device: str, /, *, stream: None = None) -> Self:
        """The tensor itself, which is on the "cpu".

        Raises:
            ValueError: for another device, or a stream.
        """
        if device != "cpu" or stream is not None:
            raise ValueError(f"device={device!r}, stream={stream!r}: a tensor lies on the 'cpu', which has no streams")
        return self

    def transpose(self, *axes: Any) -> Self:
        """As `numpy.ndarray.transpose`: a view."""
        return self.moved(lambda array: array.transpose(*axes))

    def swapaxes(self, axis1: int, axis2: int) -> Self:
        """As `numpy.ndarray.swapaxes`: a view."""
        return self.moved(lambda array: array.swapaxes(axis1, axis2))

    def reshape(self, *shape: int | tuple[int, ...]) -> Self:
        """As `numpy.ndarray.reshape`: a view where it can be one."""
        target: Any = shape[0] if len(shape) == 1 else shape
        return self.moved(lambda array: array.reshape(target))

    def ravel(self) -> Self:
        """As `numpy.ndarray.ravel`: one axis, a view where it can be one."""
        return self.reshape(-1)

    def flatten(self) -> Self:
        """As `numpy.ndarray.flatten`: one axis, a copy."""
        return self.moved(lambda array: array.flatten())

    def squeeze(self, axis: int | tuple[int, ...] | None = None) -> Self:
        """As `numpy.ndarray.squeeze`: a view."""
        return self.moved(lambda array: array.squeeze(axis))

    def expand_dims(self, axis: int | tuple[int, ...]) -> Self:
        """As `numpy.expand_dims`: a view."""
        return self.moved(lambda array: np.expand_dims(array, axis))

    def take(self, indices: ArrayLike, axis: int | None = None) -> Self:
        """As `numpy.ndarray.take`."""
        return self.moved(lambda array: np.take(array, np.asarray(indices), axis))

    def repeat(self, repeats: Any, axis: int | None = None) -> Self:
        """As `numpy.ndarray.repeat`."""
        return self.moved(lambda array: array.repeat(repeats, axis))


def holds_tensor(x: Any) -> bool:
    """Whether it is a tensor, or a list with one in it, which NumPy would decode."""
    return isinstance(x, ScaledCodes) or (isinstance(x, (list, tuple)) and any(map(holds_tensor, x)))


S = TypeVar("S", bound=ScaledCodes)


def _frozen(offset: LogOffset) -> LogOffset:
    if isinstance(offset, np.ndarray):
        offset.flags.writeable = False
    return offset


def in_groups(log_offset: LogOffset, shape: tuple[int, ...]) -> Iterator[tuple[int, Any]]:
    """Each offset, with the index of the elements that have it."""
    if isinstance(log_offset, int):
        yield log_offset, ...
    else:
        for offset in np.unique(each_offset(log_offset)):
            yield int(offset), of_elements(log_offset, shape) == offset


def codes_of_number(value: object, fmt: LNSFormat, log_offset: LogOffset, shape: tuple[int, ...]) -> Codes | None:
    """`exact_codes` of a place of that shape, with groups for each element of it."""
    if not isinstance(log_offset, GroupOffsets):
        return exact_codes(value, fmt, log_offset)
    codes = exact_codes(value, fmt, log_offset.offsets)
    return None if codes is None else log_offset.spread(codes, shape)


def into(value: object, fmt: LNSFormat, log_offset: LogOffset, shape: tuple[int, ...]) -> Codes:
    """The codes of `value` in a place of that format, scale and shape: tensors rounded, other numbers only exactly."""
    if not isinstance(value, ScaledCodes):
        codes = codes_of_number(value, fmt, log_offset, shape)
        if codes is None:
            place = f"log_offset {log_offset}" if isinstance(log_offset, int) else "the log_offsets there"
            raise not_exact(value, fmt, f" at {place}")
        return codes
    if isinstance(log_offset, int):
        if value._fmt == fmt and isinstance(value._log_offset, int) and value._log_offset == log_offset:
            return value._codes
        return rescale(
            value._codes, value._fmt, log_offset=value._log_offset, out_format=fmt, out_log_offset=log_offset
        )[0]
    extra = value.ndim - len(shape)  # as NumPy: leading axes of length 1 do not count
    if extra > 0 and value.shape[:extra] == (1,) * extra:
        value = value.moved(lambda array: array.reshape(array.shape[extra:]))
    whole = value.moved(lambda array: np.broadcast_to(array, shape))
    codes = np.empty(shape, fmt.dtype)
    for offset, chosen in in_groups(log_offset, shape):
        codes[chosen] = into(whole[chosen], fmt, offset, ())
    return codes
