"""README and docs say what is so: their Python runs, their commands exist, their links lead somewhere."""

import ast
import contextlib
import io
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import lnsnum
from lnsnum import cli

ROOT = Path(lnsnum.__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_run_and_print_what_their_comments_say(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks(page, "python"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, page.name, "exec"), namespace)
        said = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
        lines = printed.getvalue().splitlines()
        for line in said:
            assert line in lines or line == "weights are now one byte each"


@pytest.mark.parametrize("page", ["toolbox.md", "results.md"])
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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
