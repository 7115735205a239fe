"""What a release and a contributor need: metadata, workflows (their syntax, and what must be in them), forms."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import lnsnum

ROOT = Path(lnsnum.__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


class Loader(yaml.SafeLoader):
    """YAML as workflows mean it: `on` is a word."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def workflow(path):
    return yaml.load(path.read_text(), Loader)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_what_a_workflow_needs(path):
    content = workflow(path)
    assert content.keys() <= {"name", "on", "permissions", "concurrency", "jobs", "env"}
    assert content["permissions"] == {"contents": "read"}  # a job that needs more asks for it
    assert content["on"].keys() <= {"push", "pull_request", "schedule"}
    for name, job in content["jobs"].items():
        assert job.keys() >= {"runs-on", "timeout-minutes", "steps"}, name
        needed = job.get("needs", [])
        assert set([needed] if isinstance(needed, str) else needed) <= content["jobs"].keys()
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@\S+", step["uses"]), step
            for script in re.findall(r"(?:^|\s)(\.ci/\w+)", step.get("run", "")):
                assert (ROOT / script).exists(), script
            for group in re.findall(r"--group (\w+)", step.get("run", "")):
                assert group in PROJECT["dependency-groups"], group
            for extras in re.findall(r"\.\[([\w,]+)\]", step.get("run", "")):
                assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys(), extras
        for expression in re.findall(r"\$\{\{(.*?)\}\}", str(job)):
            assert re.match(r" (matrix|github|steps)\.[\w.-]+ $", expression), expression
            if expression.startswith(" matrix."):
                rows = job["strategy"]["matrix"]
                key = expression.strip().removeprefix("matrix.")
                assert key in rows or all(key in row for row in rows["include"]), key


def test_all_pythons_and_the_ends_of_torch_are_tested():
    (path,) = (path for path in WORKFLOWS if path.stem == "tests")
    rows = workflow(path)["jobs"]["tests"]["strategy"]["matrix"]["include"]
    said = {line.rsplit(" ", 1)[1] for line in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert {row["python"] for row in rows} == said
    assert min(said, key=lambda version: int(version[2:])) == PROJECT["project"]["requires-python"].removeprefix(">=")
    (lowest,) = re.findall(r"torch>=([\d.]+)", str(PROJECT["project"]["optional-dependencies"]["torch"]))
    pinned = re.search(r"torch==(\d+\.\d+)", (ROOT / "constraints.txt").read_text())[1]
    torches = {row["torch"] for row in rows}
    assert {f"=={lowest}.*", f"=={pinned}.*", ""} < torches  # lowest, pinned, newest, and one between


def test_workflows_install_the_programs_that_ci_installs():
    needed = " ".join(re.findall(r"needed\+=\((.*)\)", (ROOT / ".ci" / "run").read_text())).split()
    (path,) = (path for path in WORKFLOWS if path.stem == "tests")
    commands = " ".join(step.get("run", "") for step in workflow(path)["jobs"]["tests"]["steps"]).split()
    assert set(needed) <= set(commands)
    assert len(needed) > 8


def test_only_publishing_may_ask_for_more_and_it_has_no_password():
    for path in WORKFLOWS:
        for name, job in workflow(path)["jobs"].items():
            assert ("permissions" in job) == (name == "publish"), name
            assert "secrets." not in str(job)
            if name == "publish":
                assert job["permissions"]["id-token"] == "write"
                assert "environment" in job
                assert "github.event_name == 'push'" in job["if"] or "github.ref_type == 'tag'" in job["if"]


def test_extras_are_features_and_all_has_them():
    extras = PROJECT["project"]["optional-dependencies"]

    def brought(extra):
        found = {extra}
        for wanted in extras[extra]:
            for names in re.findall(r"^lnsnum\[([\w,]+)\]", wanted):
                found |= set().union(*map(brought, names.split(",")))
        return found

    left_out = {"gpu", "bench", "lightning", "tensorboard"}  # pyproject.toml says why
    assert brought("all") == set(extras) - left_out
    tools = {
        re.match(r"[\w-]+", one)[0]
        for group in PROJECT["dependency-groups"].values()
        for one in group
        if isinstance(one, str)
    }
    assert not tools & {re.match(r"[\w-]+", one)[0] for extra in extras.values() for one in extra}


def test_every_dependency_says_what_it_is_for():
    text = (ROOT / "pyproject.toml").read_text()
    lists = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lists += text[text.index("[dependency-groups]") : text.index("[tool.hatch.version]")]
    wanted = re.findall(r"^    (\"(?!lnsnum\[)[\w-]+[^\n]*)$", lists, re.MULTILINE)
    assert len(wanted) > 20
    assert [line for line in wanted if "  # " not in line and "pytest>=" not in line] == []


def test_who_cites_cites_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() >= {"cff-version", "message", "title", "authors", "version", "license"}
    assert citation["version"] == lnsnum.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert all("name" in author or {"family-names", "given-names"} <= author.keys() for author in citation["authors"])
    assert citation["authors"][0]["name"] in (ROOT / "LICENSE").read_text()


ADDRESS = "https://forge.invalid/lnsnum"


def tree_with_an_address(folder):
    """What is compared before a release, as docs/releasing.md says: nothing unreleased, and all addresses filled in."""
    for name in (
        "pyproject.toml",
        "CITATION.cff",
        "CHANGELOG.md",
        "mkdocs.yml",
        "lnsnum/__init__.py",
        ".ci/publishable",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    text = (folder / "CHANGELOG.md").read_text()
    text = re.sub(r"(?<=^## \[Unreleased\]\n)(?:.*\n)*?(?=## \[)", "\n", text, flags=re.MULTILINE)
    (folder / "CHANGELOG.md").write_text(text)
    urls = "".join(f'{name} = "{ADDRESS}"\n' for name in ("Homepage", "Documentation", "Source", "Changelog", "Issues"))
    text = (folder / "pyproject.toml").read_text()
    text = re.sub(r"\n\[project\.urls\]\n(?:.+\n)*", "\n", text).replace(
        "[project.scripts]", f"[project.urls]\n{urls}\n[project.scripts]"
    )
    text = re.sub(r"replacement = '(\\1)?' \}", f"replacement = '{ADDRESS}' }}", text)
    (folder / "pyproject.toml").write_text(text)
    for name, keys in (("CITATION.cff", ["repository-code"]), ("mkdocs.yml", ["repo_url", "site_url"])):
        kept = [line for line in (folder / name).read_text().splitlines() if line.split(":")[0] not in keys]
        (folder / name).write_text("\n".join([f"{key}: {ADDRESS}" for key in keys] + kept) + "\n")
    return folder


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("pyproject.toml", "", "", None),
        ("pyproject.toml", f'Source = "{ADDRESS}"\n', "", "[project.urls] has no Source that begins with https://"),
        ("pyproject.toml", f"replacement = '{ADDRESS}'", "replacement = ''", "the long description leaves links out"),
        ("mkdocs.yml", f"site_url: {ADDRESS}\n", "", "no site_url"),
        ("CITATION.cff", f"repository-code: {ADDRESS}\n", "", "no repository-code"),
        ("CITATION.cff", "date-released: 2", "date-released: 1", "no 'date-released: 2"),
        ("CITATION.cff", f"version: {lnsnum.__version__}\n", "version: 0.0.1\n", "version is 0.0.1, and the tag v"),
        ("CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n- More.\n", "YYYY-MM-DD' below an empty"),
        ("lnsnum/__init__.py", "__version__ = ", "__version__ = '1'  # ", "__version__ is None, and the tag v"),
    ],
)  # fmt: skip
def test_nothing_is_published_that_does_not_agree(name, old, new, told, tmp_path):
    folder = tree_with_an_address(tmp_path)
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    ended = subprocess.run(
        [sys.executable, folder / ".ci" / "publishable", f"v{lnsnum.__version__}"], capture_output=True, text=True
    )
    assert ended.returncode == (told is not None), ended.stdout + ended.stderr
    assert (
        (f"{name}: " in ended.stdout and told in ended.stdout) if told else ended.stdout.endswith("may be published\n")
    )


def test_the_workflow_of_releases_asks_before_it_publishes():
    jobs = workflow(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    (asking,) = (step for step in jobs["build"]["steps"] if ".ci/publishable" in step.get("run", ""))
    assert asking["if"] == "github.ref_type == 'tag'"
    assert jobs["publish"]["needs"] == "build"


def test_forms_ask_for_something():
    for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")):
        form = yaml.safe_load(path.read_text())
        assert form.keys() >= {"name", "description", "body"}
        ids = [field["id"] for field in form["body"]]
        assert len(ids) == len(set(ids)) > 0
        assert all(field["attributes"]["label"] for field in form["body"])
        assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_the_long_description_has_no_link_that_an_index_cannot_follow():
    """As the plugin substitutes; `.ci/wheel` builds it, and has it checked."""
    text = (ROOT / "README.md").read_text()
    for rule in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text, changed = re.subn(rule["pattern"], rule["replacement"], text)
        assert changed
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []
    assert "docs/index.md" in text  # the words of links stay


def test_the_steps_of_a_release_name_what_there_is():
    page = (ROOT / "docs" / "releasing.md").read_text()
    for script in re.findall(r"`(\.ci/\w+)", page):
        assert (ROOT / script).exists()
    for name in re.findall(r"workflow `(\w+)", page):
        assert ROOT / ".github" / "workflows" / f"{name}.yml" in WORKFLOWS or name.endswith("yml")
