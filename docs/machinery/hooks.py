"""What MkDocs calls: pages that are made when the site is built, and links that lead out of docs/.

CHANGELOG.md, CONTRIBUTING.md     become pages
notebooks/*.py                    are run, and become pages; the scripts stay beside them
<!-- commands -->                 becomes the command line
](../tests/x)                     becomes a link to a copy of that file
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent.parent))

from machinery import command_line, notebooks

ROOT = Path(__file__).parent.parent.parent
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(\]\()([^)#\s]+)")
COMMANDS = "<!-- commands -->"


def _page_of(text: str) -> str:
    """A page of the repository's root, as one of docs/: its links seen from there."""
    return LINK.sub(
        lambda m: m[1] + PAGES.get(m[2], "index.md" if m[2] == "README.md" else m[2].removeprefix("docs/")), text
    )


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that are made, and copies of the files that pages link to."""
    for source, name in PAGES.items():
        content = _page_of((ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, name, content=content))
    for script in sorted((ROOT / "docs" / "notebooks").glob("*.py")):
        files.append(File.generated(config, f"notebooks/{script.stem}.md", content=notebooks.to_markdown(script)))
    for page in [file for file in files if file.is_documentation_page() and file.abs_src_path]:
        for path in _outside(page.src_uri, page.content_string):
            if files.get_file_from_path(f"files/{path}") is None:
                files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
    return files


def _outside(page: str, text: str) -> list[str]:
    """The files of the repository, out of docs/, that a page links to."""
    targets = (posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), m[2])) for m in LINK.finditer(text))
    return [path for path in targets if not path.startswith(("docs/", "..", "http")) and (ROOT / path).is_file()]


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Put in the command line, and lead links that leave docs/ to the copies."""
    here = posixpath.dirname(page.file.src_uri)

    def inside(match: re.Match[str]) -> str:
        found = _outside(page.file.src_uri, match[0])
        return match[1] + (posixpath.relpath(f"files/{found[0]}", here or ".") if found else match[2])

    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, command_line.to_markdown())
    return LINK.sub(inside, markdown)
