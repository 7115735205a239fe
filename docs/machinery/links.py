"""Looks at a site that was built: where links lead, what is fetched from elsewhere, whether every public name is there.

    python -m machinery.links build/site        in docs/

Ends with 1 and a line for each fault.
"""

from __future__ import annotations

import ast
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

DOCS = Path(__file__).parent.parent
FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "link": "href",
}
"""What a browser fetches by itself."""

DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
IN_STYLE = re.compile(r"(?:url\(\s*[\"']?|@import\s+[\"'])((?:https?:)?//[^\"')\s]+)")


class Page(HTMLParser):
    """The anchors, the links and what is fetched, of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Take what the tag says."""
        told = {name: value or "" for name, value in attributes}
        self.anchors |= {told[name] for name in ("id", "name") if name in told}
        if tag == "a" and "href" in told:
            self.links.append(told["href"])
        if told.get(FETCHED.get(tag, "")) and told.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(told[FETCHED[tag]])
            self.links.append(told[FETCHED[tag]])


def is_elsewhere(target: str) -> bool:
    """Whether a target is no file of the site."""
    parts = urlsplit(target)
    return bool(parts.scheme or parts.netloc)


def faults(site: Path) -> list[str]:
    """What is wrong with a site, a line each."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        found += [f"{name}: {target} is fetched from elsewhere" for target in page.fetched if is_elsewhere(target)]
        for target in page.links:
            if is_elsewhere(target) or name.name == "404.html":  # whose links are of the root that it is served at
                continue
            file, anchor = unquote(urlsplit(target).path), unquote(urlsplit(target).fragment)
            there = (path.parent / file).resolve() if file else path
            there = there / "index.html" if there.is_dir() else there
            if not there.exists():
                found.append(f"{name}: {target} leads nowhere")
            elif anchor and there in pages and anchor not in pages[there].anchors and not anchor.startswith("__"):
                found.append(f"{name}: {target} has no such place")
    for sheet in sorted(site.rglob("*.css")):
        found += [
            f"{sheet.relative_to(site)}: {url} is fetched from elsewhere" for url in IN_STYLE.findall(sheet.read_text())
        ]
    anchors = set().union(*(page.anchors for page in pages.values()))
    found += [f"{name} has no place in the reference" for name in public_names() if name not in anchors]
    return found


def doors() -> list[str]:
    """The modules that the reference has."""
    return [door for page in sorted((DOCS / "reference").glob("*.md")) for door in DIRECTIVE.findall(page.read_text())]


def public_names() -> list[str]:
    """What `__all__` of each of them names, with the module."""
    names = []
    for door in doors():
        path = DOCS.parent.joinpath(*door.split("."))
        tree = ast.parse(
            (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
        )
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                names += [f"{door}.{name}" for name in ast.literal_eval(node.value)]
    return names


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]))
    print(*wrong or [f"{len(public_names())} public names; all links lead somewhere, nothing is fetched"], sep="\n")
    sys.exit(bool(wrong))
