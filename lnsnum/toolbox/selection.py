"""Which tensors of a file are kept, under which names, and which of them are converted.

Codes are made of floating ones of two or more dimensions, unless patterns of names say otherwise: biases, the scales of
norms and batch norm's statistics have one; they are few, and codes hurt them most. Floats are made of LNS tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from lnsnum.files.layout import Description
from lnsnum.kernels.codes import FLOAT_TYPES

__all__ = ["Selection"]


@dataclass(frozen=True)
class Selection:
    """A choice of tensors. Patterns are those of the shell: `*`, `?`, `[...]`; `[*]` is a star.

    All are of the names in the source, as they are before `strip_prefix`.

    Args:
        everything: every floating tensor, whatever its dimensions.
        only: those whose names match one of these patterns, whatever their dimensions.
        skip: not those whose names match one of these.
        drop: what is left out altogether: names that match one of these.
        strip_prefix: names that begin with this lose it.

    Raises:
        TypeError: where patterns are a string: its characters would be the patterns.
    """

    everything: bool = False
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    strip_prefix: str = ""

    def __post_init__(self) -> None:
        given: dict[str, object] = {"only": self.only, "skip": self.skip, "drop": self.drop}
        for option, patterns in given.items():
            if isinstance(patterns, str):
                raise TypeError(f"{option}={patterns!r} is one pattern: give a tuple of them, such as {(patterns,)!r}")

    @property
    def given(self) -> dict[str, Any]:
        """What of it is no default, for the metadata."""
        return {"all" if key == "everything" else key: value for key, value in vars(self).items() if value}

    def drops(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that are left out."""
        return tuple(name for name in names if _matches(name, self.drop))

    def names(self, tensors: Iterable[str], others: Iterable[str] = ()) -> dict[str, str]:
        """The tensors that are kept: by the name in the source the new one.

        Args:
            tensors: the names in the source.
            others: names of what else is in the source, which `drop` may mean too.

        Raises:
            ValueError: where a pattern of `drop` matches nothing, no name begins with the prefix, or two become one.
        """
        tensors = list(tensors)
        _check_matches("drop", self.drop, [*tensors, *others], "tensor")
        kept = [name for name in tensors if not _matches(name, self.drop)]
        if not any(name.startswith(self.strip_prefix) for name in kept) and self.strip_prefix:
            raise ValueError(f"strip_prefix {self.strip_prefix!r} begins no tensor's name: {_some(kept)}")
        new: dict[str, str] = {}
        for name in kept:
            short = name.removeprefix(self.strip_prefix)
            if short in new:
                pair = f"{new[short]!r} and {name!r}"
                raise ValueError(f"strip_prefix {self.strip_prefix!r}: {pair} would both have the name {short!r}")
            new[short] = name
        return {name: short for short, name in new.items()}

    def of(self, descriptions: Mapping[str, Description], to: str | None = None) -> list[str]:
        """The names of what is converted: LNS tensors are, but for patterns; none is that is neither LNS nor floating.

        Args:
            descriptions: the tensors that are kept, by their names in the source.
            to: the type that they are to be of, which none is chosen that is of already; None where they become codes.

        Raises:
            ValueError: where a pattern matches nothing that it could choose, or nothing is chosen.
        """
        able = [name for name, told in descriptions.items() if told.fmt is not None or told.dtype in FLOAT_TYPES]
        _check_matches("only", self.only, able, "floating tensor")
        _check_matches("skip", self.skip, list(descriptions), "tensor")
        other = [name for name in able if descriptions[name].fmt is not None or descriptions[name].dtype != to]
        chosen = [name for name in other if self._takes(name, descriptions[name], to)]
        if not chosen:
            raise ValueError(f"there is nothing to convert: {self._why(able, other, to)}")
        return chosen

    def _takes(self, name: str, told: Description, to: str | None) -> bool:
        if _matches(name, self.skip):
            return False
        if self.only:
            return _matches(name, self.only)
        return self.everything or told.fmt is not None or (to is None and len(told.shape) >= 2)

    def _why(self, able: list[str], other: list[str], to: str | None) -> str:
        if able and not other:
            return f"every floating tensor is {to} already, so choose another type"
        if self.everything or self.only:
            return "no floating tensor is chosen" + (f" that is not {to} already" if to else "")
        if to is None:
            return "no floating tensor of two or more dimensions (`all` takes the others too) is chosen"
        return f"no LNS tensor is chosen (`all` makes {to} of plain floating ones too)"


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether it matches one of them."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_matches(option: str, patterns: tuple[str, ...], names: list[str], what: str) -> None:
    """Raise ValueError where a pattern matches none of the names."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"{option} {pattern!r} matches no {what}: {_some(names)}")


def _some(names: list[str]) -> str:
    """A few of the names, for an error."""
    if not names:
        return "there is none"
    return f"there {'are' if len(names) > 1 else 'is'} {', '.join(map(repr, names[:3]))}{', ...' * (len(names) > 3)}"
