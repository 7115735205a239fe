"""What a notebook shows of an object: a table of two columns, in HTML that brings no style and no script of its own."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def card(title: str, rows: Iterable[tuple[str, str]], text: str = "") -> str:
    """A table of what is to be known of an object, and below it a text as it stands.

    >>> card("lns8f3", [("bits", "8")])
    '<table><caption>lns8f3</caption><tr><th scope="row">bits</th><td>8</td></tr></table>'
    """
    lines = (f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    table = f"<table><caption>{escape(title)}</caption>{''.join(lines)}</table>"
    return f"{table}<pre>{escape(text)}</pre>" if text else table
