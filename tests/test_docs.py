"""README and docs say what is so: their Python runs, their commands exist, their links lead somewhere."""

import ast
import contextlib
import importlib
import io
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from machinery import command_line

import lnsnum
from lnsnum import cli

ROOT = Path(lnsnum.__file__).parent.parent
DOCS = ROOT / "docs"
GUIDES = [DOCS / "index.md", *sorted(page for page in DOCS.glob("*/*.md"))]
"""Pages of which nothing is left out: tutorials, how-tos, explanations, the reference."""

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md")), *GUIDES[1:]]


def name_of(page):
    """Within the repository."""
    return str(page.relative_to(ROOT))


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def run_python(block, page, namespace):
    """What a block prints, which is what its comments say."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, page.name, "exec"), namespace)
    said = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
    lines = printed.getvalue().splitlines()
    for line in said:
        assert line in lines or line == "weights are now one byte each"
    return printed.getvalue()


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GUIDES], ids=name_of)
def test_python_examples_run_and_print_what_their_comments_say(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks(page, "python"):
        run_python(block, page, namespace)


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_a_guide_runs_from_its_top_to_its_end(page, tmp_path, monkeypatch, capsys):
    """All blocks in their order, in one folder: Python, the commands of lnsnum, and what the block before has printed.

    Of pip's commands the extras are looked up, see below; `console` is for what needs other machines.
    """
    monkeypatch.chdir(tmp_path)
    namespace, printed = {"__name__": "__main__"}, None
    for language, block in re.findall(
        r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        assert language in ("python", "text", "sh", "console"), language
        if language == "python":
            printed = run_python(block, page, namespace)
        elif language == "text":
            assert block == printed
        elif language == "sh":
            for line in block.splitlines():
                command, _, otherwise = line.partition(" || ")
                if not command.startswith("pip install "):
                    assert command.startswith("lnsnum "), command
                    monkeypatch.setattr(sys, "argv", shlex.split(command))
                    with pytest.raises(SystemExit) as ending:
                        sys.exit(cli.main())
                    assert ending.value.code in (0, None) or otherwise == "true", capsys.readouterr().err


@pytest.mark.parametrize("page", [page for page in PAGES if "```py\n" in page.read_text()], ids=name_of)
def test_what_needs_other_machines_is_python_with_names_that_exist(page):
    """`py` is for blocks that want a card or several processes; tests of their own run what they say."""
    for block in blocks(page, "py"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("lnsnum"):
                door = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(door, alias.name)] == []


def commands_in(text):
    """`lnsnum NAME ...` in the code of a page, with the options: blocks, and words between backticks."""
    fences = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    code = [block for language, block in fences.findall(text) if language in ("", "sh", "console", "text")]
    code += [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", fences.sub("", text))]
    joined = "\n".join(code).replace("\\\n", " ")
    for name, rest in re.findall(r"(?:^|[$&m] |bin/)lnsnum ([a-z]+)\b([^\n#|;&>]*)", joined, re.MULTILINE):
        yield name, re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*)", rest)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_every_page_are_those_of_the_parser(page):
    known = command_line.commands()
    for name, options in commands_in(page.read_text(encoding="utf-8")):
        assert name in known, f"lnsnum {name}"
        of_command = {
            option for parameter in known[name].params for option in [*parameter.opts, *parameter.secondary_opts]
        }
        assert set(options) <= of_command | {"--help"}, f"lnsnum {name} {options}"


def test_what_pages_install_exists():
    """Extras and groups of dependencies, by their names in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for names in re.findall(r"(?:lnsnum|\.)\[([a-z_,]+)\]'", text):
            assert set(names.split(",")) <= set(project["project"]["optional-dependencies"]), f"{page.name}: {names}"
            found += 1
        groups = set(re.findall(r"--group ([a-z]+)", text))
        assert groups <= set(project["dependency-groups"]), f"{page.name}: {groups}"
    assert found > 10


@pytest.mark.parametrize("page", ["toolbox.md", "results.md", "first_study.md"])
def test_commands_print_what_their_page_says(page, tmp_path, monkeypatch, capsys):
    """Python makes the files of toolbox.md; then each `$ lnsnum ...` is run and its output compared, whole."""
    monkeypatch.chdir(tmp_path if page == "toolbox.md" else ROOT)
    monkeypatch.setenv("COLUMNS", "110")
    text, namespace, commands = (ROOT / "docs" / page).read_text(encoding="utf-8"), {}, 0
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(block, page, "exec"), namespace)
        elif block.startswith("$ lnsnum "):
            command, _, said = block.partition("\n")
            capsys.readouterr()
            monkeypatch.setattr(sys, "argv", shlex.split(command[2:]))
            with contextlib.suppress(SystemExit):
                cli.main()
            lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
            assert lines == [line.rstrip() for line in said.splitlines()], command
            commands += 1
    assert commands >= 5


@pytest.mark.parametrize(("name", "page"), [("rule_settings", "training.md"), ("conversion_loss", "results.md")])
def test_the_table_of_a_benchmark_is_that_of_the_runs_that_are_kept(name, page, capsys, monkeypatch):
    pytest.importorskip("torch")
    script, runs = ROOT / "benchmarks" / f"{name}.py", ROOT / "docs" / "results" / f"{name}.jsonl"
    monkeypatch.setattr(sys, "argv", [script.name, "--report", str(runs)])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out in blocks(ROOT / "docs" / page, "text")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_lead_somewhere(page):
    """Pages that are made when the site is built have their source."""
    made = {f"notebooks/{path.stem}.md": path for path in (DOCS / "notebooks").glob("*.py")}
    made |= {f"{name.lower()}.md": ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG")}
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("https://"):
            there = (page.parent / target).resolve()
            assert there.exists() or str(there.relative_to(DOCS)) in made, target


def test_the_readme_has_the_two_commands_and_ci_runs_the_second():
    readme = (ROOT / "README.md").read_text()
    for name in ("train", "test"):
        command = re.search(rf"<!-- command: {name} -->\n```sh\n(.*?)\n```", readme)
        assert command
        assert "-c constraints.txt" in command[1]
    assert "<!-- command: test -->" in (ROOT / ".ci" / "run").read_text()


def test_contributing_lists_every_door_and_every_wing():
    table = re.findall(
        r"^\| (`.*) \|$", (ROOT / "CONTRIBUTING.md").read_text().split("## Where things live")[1], re.MULTILINE
    )
    listed = set(re.findall(r"`([a-z_.]+)`", " ".join(table)))
    package = ROOT / "lnsnum"
    doors = {path.stem for path in package.glob("*.py")} - {"__init__"}
    wings = {str(p.parent.relative_to(package)).replace("/", ".") for p in package.rglob("__init__.py")} - {"."}
    assert listed == doors | wings


@pytest.mark.parametrize("path", sorted((ROOT / "lnsnum").rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_a_wing_says_what_is_in_it_and_names_rooms_that_exist(path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert text
    wing = path.parent
    commands = {p.stem for p in (ROOT / "lnsnum" / "cli").glob("*.py")} | {"evaluate"}
    words = set(re.findall(r"`([a-z_]+)`", text)) - {"torch", "lnsnum"}  # an extra, and the whole
    assert words <= {p.stem for p in wing.iterdir()} | commands


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_figure_is_still_to_come(page):
    """A line that is one word in capitals stands for what a command prints."""
    assert not re.findall(r"^[A-Z]{3,}$", page.read_text(), re.MULTILINE)


def test_commands_of_the_docs_name_files_that_exist():
    for page in PAGES:
        for script in re.findall(r"python (benchmarks/\S+\.py)", page.read_text()):
            assert (ROOT / script).exists(), script


def test_the_estimate_of_the_docs_is_what_its_script_prints():
    """It takes no time: it is arithmetic."""
    printed = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "distributed_estimate.py"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert printed in (ROOT / "docs" / "distributed.md").read_text()


def test_the_version_has_one_source():
    assignments = [
        node
        for path in (ROOT / "lnsnum").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__version__" for t in node.targets)
    ]
    assert len(assignments) == 1
