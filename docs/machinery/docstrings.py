"""How docstrings are read, where Markdown or the parser of sections would take them for something else.

An example goes from `>>>` to an empty line; Markdown would take it for a quotation. Under `Raises:` stands a list of
errors, or a sentence that says where they are told of. Special methods are told of in their class, and have no
place of their own.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^([ \t]*)>>> .*(?:\n(?![ \t]*\n|[ \t]*\Z).*)*", re.MULTILINE)
SENTENCE = re.compile(r"^Raises:\n    (?![\w.]+(?:, [\w.]+)*: )(.*(?:\n    .*)*)", re.MULTILINE)


def read(docstring: str) -> str:
    """The docstring with a fence around each example, and sentences about errors as text."""
    docstring = SENTENCE.sub(lambda match: f"**Raises:** {' '.join(match[1].split())}", docstring)
    return EXAMPLE.sub(lambda match: f"{match[1]}```pycon\n{match[0]}\n{match[1]}```", docstring)


class Docstrings(griffe.Extension):
    """Calls `read` for each object, and leaves special methods out."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object, before it is parsed."""
        if obj.is_class:
            for name in [name for name in obj.members if name.startswith("__") and name != "__init__"]:
                del obj.members[name]
        if obj.docstring is not None:
            obj.docstring.value = read(obj.docstring.value)
