"""Weight files with something wrong in them: `mutant(seed)` is always the same bytes, and says what was done to them.

    corpus (sound files, built here from docs/weight_file.md, without lnsnum)
        -> 1 to 3 mutations of the parsed header and description, of their texts, or of the bytes
        -> for every other seed the checksums set right again, so that the damage reaches what comes after them

`set_mutant(seed)` does the same to an index and its shards. `python tests/mutants SEED [FILE]` says what the mutant
is and what becomes of it, and writes it to FILE; `set:SEED` is that of a set, of which FILE gets the index.
tests/files/test_mutants.py has the workers.
"""

from __future__ import annotations

from pathlib import Path

from .corpus import corpus
from .files import container, parted
from .sets import INDEX, set_mutant, sound_set
from .single import is_repaired, mutant, mutant_and_story

__all__ = [
    "INDEX", "container", "corpus", "is_repaired", "mutant", "mutant_and_story", "parted", "set_mutant", "sound_set",
    "story", "write",
]  # fmt: skip

SINGLE = "w.safetensors"


def story(seed: str | int) -> str:
    """What was done to make the mutant of a seed, or of `set:SEED`."""
    return _made(seed)[1]


def write(seed: str | int, folder: Path) -> Path:
    """Write the mutant of a seed, or of `set:SEED`, into an empty folder: the path to load."""
    files, _ = _made(seed)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / (INDEX if INDEX in files else SINGLE)


def _made(seed: str | int) -> tuple[dict[str, bytes], str]:
    kind, _, number = str(seed).rpartition(":")
    if kind == "set":
        return set_mutant(int(number))
    content, what = mutant_and_story(int(number))
    return {SINGLE: content}, what
