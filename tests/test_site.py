"""What makes the site of docs/: its pages, the notebooks, the command line, and what looks at the result."""

import re
import traceback
from pathlib import Path

import pytest
import yaml
from machinery import command_line, links, notebooks

import lnsnum

ROOT = Path(lnsnum.__file__).parent.parent
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.py"))


class Settings(yaml.SafeLoader):
    """mkdocs.yml; tags that name Python are left alone."""


def pages_in(entries):
    """The pages that a navigation names."""
    for entry in entries:
        if isinstance(entry, dict):
            for below in entry.values():
                yield from pages_in([below] if isinstance(below, str) else below)
        else:
            yield entry


def test_every_page_is_in_the_navigation_once():
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), Settings)
    there = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    made = [f"notebooks/{path.stem}.md" for path in NOTEBOOKS] + ["changelog.md", "contributing.md"]
    assert sorted(pages_in(settings["nav"])) == sorted(there + made)


def test_the_page_of_the_command_line_has_every_command_and_option():
    page = command_line.to_markdown()
    sections = dict(re.findall(r"^## `lnsnum (\w+)`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(command_line.commands())
    assert len(sections) >= 12
    for name, command in command_line.commands().items():
        for parameter in command.params:
            if parameter.name == "help":
                continue
            shown = (
                parameter.opts
                if parameter.param_type_name == "option"
                else [(parameter.metavar or parameter.name).upper()]
            )
            for text in shown:
                assert f"`{text}`" in sections[name], f"{name} {text}"
            assert parameter.help
    rows = re.findall(r"^\|.*\|$", page, re.MULTILINE)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


# ----------------------------------------------------------------------------------------------------------- notebooks

NOTEBOOK = """# %% [markdown]
# # A title
#
# Text.

# %%
x = 2
print(x + 1)
x * 3

# %%
y = x  # nothing to see
"""


def test_cells_of_a_notebook():
    assert [tuple(cell) for cell in notebooks.cells(NOTEBOOK)] == [
        (True, "# A title\n\nText.\n", 2),
        (False, "x = 2\nprint(x + 1)\nx * 3\n", 7),
        (False, "y = x  # nothing to see\n", 12),
    ]
    with pytest.raises(ValueError, match="line 1: a notebook begins with a line '# %%'"):
        list(notebooks.cells("x = 1\n# %%\n"))


def test_a_notebook_becomes_a_page_with_what_it_prints(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(NOTEBOOK)
    page = notebooks.to_markdown(path)
    assert page.startswith("# A title\n")
    assert re.findall(r"```text[^\n]*\n(.*?)\n```", page, re.DOTALL) == ["3", "6"]
    assert page.count("```python\n") == 2


def test_an_error_in_a_notebook_names_its_line(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text("# %%\nx = 1\n\n# %%\n\nx / 0\n")
    with pytest.raises(ZeroDivisionError) as error:
        notebooks.to_markdown(path)
    frame = traceback.extract_tb(error.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno) == ("wrong.py", 6)


def test_figures_take_the_colour_of_the_text(tmp_path):
    path = tmp_path / "drawn.py"
    path.write_text(
        "# %% [markdown]\n# # T\n# %%\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.title('t');\n"
    )
    page = notebooks.to_markdown(path)
    assert page.count("<svg") == page.count("</svg>") == 1
    assert "currentColor" in page
    assert "#000000" not in page


@pytest.mark.long  # as the site's build runs them all; here for who has no MkDocs
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    page = notebooks.to_markdown(path)
    assert "<svg" in page
    assert "```text" in page


# ----------------------------------------------------------------------------------------------------- what is checked


def site_of(folder, **pages):
    for name, body in pages.items():
        (folder / f"{name}.html").write_text(f"<html><body>{body}</body></html>")
    return folder


NAMES = "".join(f"<a id='{name}'></a>" for name in links.public_names())


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<a href='b.html#there'>b</a><a href='https://arxiv.org/'>x</a><img src='x.png'>", None),
        ("<a href='c.html'>c</a>", "a.html: c.html leads nowhere"),
        ("<a href='b.html#not-there'>b</a>", "a.html: b.html#not-there has no such place"),
        ("<a href='#not-there'>b</a>", "a.html: #not-there has no such place"),
        ("<img src='y.png'>", "a.html: y.png leads nowhere"),
        (
            "<script src='https://cdn.invalid/x.js'></script>",
            "a.html: https://cdn.invalid/x.js is fetched from elsewhere",
        ),
        ("<link rel='stylesheet' href='//fonts.invalid/x'>", "a.html: //fonts.invalid/x is fetched from elsewhere"),
    ],
)
def test_a_fault_of_a_page_is_told(body, fault, tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    site = site_of(tmp_path, a=body, b=f"<h2 id='there'></h2>{NAMES}")
    assert links.faults(site) == ([fault] if fault else [])


def test_a_sheet_that_fetches_and_a_name_without_a_place_are_told(tmp_path):
    (tmp_path / "x.css").write_text("@font-face { src: url(https://fonts.invalid/a.woff2) }")
    site = site_of(tmp_path, a=NAMES.replace("<a id='lnsnum.encode'></a>", ""))
    assert links.faults(site) == [
        "x.css: https://fonts.invalid/a.woff2 is fetched from elsewhere",
        "lnsnum.encode has no place in the reference",
    ]


def test_docstrings_are_read_as_they_are_meant():
    pytest.importorskip("griffe", reason="the site's tools are not installed: pip install --group site")
    from machinery.docstrings import read

    example = "    >>> 1 + 1\n    2\n    >>> x = [\n    ...     1]\n"
    text = f"Says.\n\n{example}\nMore.\n\n>>> 3\n3"
    assert read(text) == f"Says.\n\n    ```pycon\n{example}    ```\n\nMore.\n\n```pycon\n>>> 3\n3\n```"
    assert read("Raises:\n    As `f`, and\n    more.\n\nThen.") == "**Raises:** As `f`, and more.\n\nThen."
    listed = "Raises:\n    TypeError, ValueError: where\n        it is so.\n"
    assert read(listed) == listed
