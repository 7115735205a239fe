"""Notebooks in the percent format, run and made into Markdown.

    # %%               begins a cell of Python; what it prints and draws, and its last expression, stand behind it
    # %% [markdown]    begins a cell of text, each line behind `# `

Jupyter (with jupytext), VS Code, PyCharm and Spyder open such a file as a notebook, Python runs it as a script, and it
has no outputs that grow old. Figures become SVG within the page, drawn in the colour of its text, for light and dark.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FIGURE = {"savefig.transparent": True, "axes.facecolor": "none", "legend.framealpha": 0.0}
"""No background: the page has one."""

INK = re.compile(r"#000000|\bblack\b")


class Cell(NamedTuple):
    """A cell of a notebook."""

    is_text: bool
    source: str
    line: int
    """Of the file, at which the source begins."""


def cells(text: str) -> Iterator[Cell]:
    """The cells of a notebook in the percent format."""
    head: str | None = None
    begin, lines = 1, []
    for number, line in enumerate([*text.splitlines(), "# %%"], 1):
        if not line.startswith("# %%"):
            lines.append(line)
            continue
        if head is not None and any(lines):
            is_text = "[markdown]" in head
            source = (
                "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines) if is_text else "\n".join(lines)
            )
            yield Cell(is_text, source.strip("\n") + "\n", begin + next(i for i, line in enumerate(lines) if line))
        elif any(lines):
            raise ValueError(f"line {begin}: a notebook begins with a line '# %%' or '# %% [markdown]'")
        head, begin, lines = line, number + 1, []


def _run(cell: Cell, namespace: dict[str, Any], name: str) -> tuple[str, Any]:
    """What a cell prints, and the value of the expression that it ends with, if it does."""
    tree = ast.parse("\n" * (cell.line - 1) + cell.source, name)  # so that tracebacks name the line of the file
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, name, "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
    return printed.getvalue(), value


def _figures() -> Iterator[str]:
    """All figures that are open, as SVG; closes them."""
    import matplotlib.pyplot as plt

    for number in plt.get_fignums():
        file = io.StringIO()
        plt.figure(number).savefig(file, format="svg", metadata={"Date": None})
        svg = file.getvalue()
        yield INK.sub("currentColor", svg[svg.index("<svg") :])
    plt.close("all")


def pages(path: Path) -> Iterator[str]:
    """Run a notebook and yield it as Markdown, part by part: a cell's error is raised where it stands."""
    import matplotlib

    matplotlib.use("Agg")
    name, namespace = path.name, {"__name__": "__main__"}
    with matplotlib.rc_context({**FIGURE, "svg.hashsalt": path.stem}):
        for cell in cells(path.read_text(encoding="utf-8")):
            if cell.is_text:
                yield cell.source
                continue
            yield f"```python\n{cell.source}```\n"
            printed, value = _run(cell, namespace, name)
            if printed:
                yield f'```text title="Output"\n{printed.rstrip()}\n```\n'
            if value is not None:
                html = getattr(value, "_repr_html_", None)
                yield f"<div>{html()}</div>\n" if html else f'```text title="Output"\n{value!r}\n```\n'
            for svg in _figures():
                yield f'<div class="figure">\n{svg}</div>\n'


def to_markdown(path: Path) -> str:
    """The page of a notebook, with a line that says how to run it."""
    first, *rest = pages(path)
    title, _, text = first.partition("\n")
    note = f"*A notebook: [{path.name}]({path.name}) opens in Jupyter with jupytext, and runs as a script.*\n"
    return "\n".join([title + "\n", note, text, *rest])
