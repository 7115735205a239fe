"""Text to train on: Python's own standard library, or a file; as characters or as words."""

from __future__ import annotations

import hashlib
import re
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from lnsnum.tasks import TaskError
from lnsnum.tasks.troubles import check_regular, in_words

Unit = Literal["characters", "words"]

TEST_SHARE = 0.1
"""The last tenth of a text is what it is tested on."""
VOCABULARY = 1000
"""Words that are told apart at most; all others are one."""
LEAST_COUNT = 5
"""How often a character must occur in the training part to be told apart."""
UNKNOWN = 0

_WORD = re.compile(r"\w+|[^\w\s]|\n")


class Text(NamedTuple):
    """A text and where it is from."""

    content: str
    source: str
    sha256: str
    """Of its bytes, hexadecimal."""


class Tokens(NamedTuple):
    """A text as integers: 0 for what is not in the vocabulary, which comes from the training part alone."""

    train: torch.Tensor
    test: torch.Tensor
    vocabulary: tuple[str, ...]
    """What each integer from 1 on stands for."""


def load_text(path: Path | None = None) -> Text:
    """The text of a file in UTF-8, or, without a path, the modules at the top of Python's standard library, by name.

    Raises:
        TaskError: where there is no such file, or it is empty or no text.
    """
    if path is None:
        folder = Path(sysconfig.get_path("stdlib"))
        modules = sorted(folder.glob("*.py"))
        raw = b"".join(module.read_bytes() for module in modules)
        version = sysconfig.get_python_version()
        source = f"{len(modules)} modules of Python {version}'s standard library"
    else:
        check_regular(path, "a plain text file")
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise TaskError(in_words(error)) from error
        source = path.name
    try:
        content = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path or source} is no text in UTF-8: byte {error.start} is {error.reason}") from error
    if not content.strip():
        raise TaskError(f"{source} is empty: there is nothing to learn from")
    return Text(content, source, hashlib.sha256(raw).hexdigest())


def tokenize(text: Text, unit: Unit) -> Tokens:
    """The text as integers, its last tenth for testing."""
    pieces = list(text.content) if unit == "characters" else _WORD.findall(text.content)
    border = len(pieces) - int(TEST_SHARE * len(pieces))
    train, test = pieces[:border], pieces[border:]
    counts = Counter(train)
    if unit == "characters":
        vocabulary = sorted(character for character, count in counts.items() if count >= LEAST_COUNT)
    else:
        vocabulary = sorted(counts, key=lambda word: (-counts[word], word))[: VOCABULARY - 1]
    number = {piece: i for i, piece in enumerate(vocabulary, 1)}

    def numbers(part: list[str]) -> torch.Tensor:
        return torch.tensor([number.get(piece, UNKNOWN) for piece in part], dtype=torch.int64)

    return Tokens(numbers(train), numbers(test), tuple(vocabulary))
