"""Which tensors become codes: floating ones of two or more dimensions, unless patterns of names say otherwise.

Biases, the scales of norms and batch norm's statistics have one dimension: they are few, and codes hurt them most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lnsnum.codes import FLOAT_TYPES
from lnsnum.file_layout import Description


@dataclass(frozen=True)
class Selection:
    """A choice of tensors. Patterns are those of the shell: `*`, `?`, `[...]`; `[*]` is a star.

    Args:
        everything: every floating tensor, whatever its dimensions.
        only: those whose names match one of these patterns, whatever their dimensions.
        skip: not those whose names match one of these.
    """

    everything: bool = False
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def of(self, descriptions: Mapping[str, Description]) -> list[str]:
        """The names that are chosen: LNS tensors are, but for patterns, and never one that is neither LNS nor floating.

        Raises:
            ValueError: where a pattern matches nothing that it could choose, or nothing is chosen.
        """
        able = [name for name, told in descriptions.items() if told.fmt is not None or told.dtype in FLOAT_TYPES]
        for option, patterns, names in (("only", self.only, able), ("skip", self.skip, list(descriptions))):
            for pattern in patterns:
                if not _matching(names, (pattern,)):
                    what = "floating tensor" if option == "only" else "tensor"
                    raise ValueError(f"{option} {pattern!r} matches no {what}: {_some(names)}")
        chosen = _matching(able, self.only) if self.only else [n for n in able if self._by_default(descriptions[n])]
        chosen = [name for name in chosen if not _matching([name], self.skip)]
        if not chosen:
            hint = "" if self.everything or self.only else " of two or more dimensions (`all` takes the others too)"
            raise ValueError(f"there is nothing to convert: no floating tensor{hint} is chosen")
        return chosen

    def _by_default(self, told: Description) -> bool:
        return self.everything or told.fmt is not None or len(told.shape) >= 2


def _matching(names: list[str], patterns: tuple[str, ...]) -> list[str]:
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _some(names: list[str]) -> str:
    """A few of the names, for an error."""
    if not names:
        return "there is none"
    return f"there {'are' if len(names) > 1 else 'is'} {', '.join(map(repr, names[:3]))}{', ...' * (len(names) > 3)}"
