"""Every command in a block of a page, and of CONTRIBUTING's table, is run: here or by what is named. If not, why.

Of tutorials, how-tos, explanations and the reference test_docs.py runs all there is, and of every page the Python.
"""

import fnmatch
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lnsnum
from lnsnum import LNSTensor, cli
from lnsnum.weight_file import save_weights

ROOT = Path(lnsnum.__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES.remove(ROOT / "docs" / "index.md")

HOURS = "minutes to hours, and figures are of a machine with no other work"
TOOL = "CI runs it: .ci/run"

ELSEWHERE = {
    # page: {pattern of a command: who runs it, or why nobody does}
    "README.md": {
        "python3 -m venv .venv *lnsnum train": "an environment; the command itself: tests/cli/test_command_line.py",
        "python3 -m venv --upgrade-deps *": TOOL,
    },
    "CONTRIBUTING.md": {
        "pytest -m long*": "minutes, but for the compiled kernels and the site: .ci/run",
        "pytest -m fuzz": "100,000 mutants; the first thousand: tests/files/test_mutants.py",
        "pytest -m distributed": "minutes of several processes; two of them: tests/torch_bridge/distributed",
        "*on_cards": "a card",
        "pytest *": TOOL,
        "NUMBA_DISABLE_JIT=1 pytest *": TOOL,
        "NUMBA_BOUNDSCHECK=1 *": "minutes; of the kernels that compile: tests/kernels/test_compiling.py",
        "ruff check . && ruff format --check . && mypy": TOOL,
        ".ci/site": TOOL,
        ".ci/wheel 3.12 3.13": "two Pythons more, as .github/workflows/release.yml has; without them: .ci/run",
        ".ci/workflows": "npm",
        ".ci/publishable *": "tests/test_publishing.py",
        ".ci/run": "CI itself: .github/workflows/tests.yml",
        ".ci/lowest": TOOL,
        "python tests/mutants *": "a seed that a failure names: tests/files/test_mutants.py",
        "lnsnum study *": "hours; three steps each: tests/study/test_study.py",
        "lnsnum report *": "tests/test_docs.py",
        "lnsnum train --compare *": "a minute; the same with fewer steps: tests/cli/test_command_line.py",
        "lnsnum export": "the name of a command",
        "lnsnum train": "the name of a command",
        "python -m lnsnum": "the name of a command",
        "pip install *": "a network",
        "apt-get install *": "a network",
        "pre-commit install": "a network",
        "find . -name *": "removes files of the checkout",
        "python benchmarks/*": HOURS,
        "python -m benchmarks.*": HOURS,
        "TRITON_INTERPRET=1 python -m benchmarks.gpu --dry-run": "minutes of Triton's interpreter",
    },
    "array_api.md": {
        "export *": "for the next",
        "pytest array_api_tests *": "a checkout of the suite, and minutes",
    },
    "deploy.md": {
        "pip install *": "a network",
        "lnsnum export * --datapath *": "tests/toolbox/test_integer_network.py",
    },
    "distributed.md": {
        "* --nnodes *": "two machines",
        "torchrun *": "processes that wait for one another: tests/torch_bridge/distributed",
    },
    "gpu.md": {"*": "a card: tests/torch_bridge/kernels/on_cards"},
    "huggingface.md": {"lnsnum convert MODEL_FOLDER *": "tests/huggingface/test_folders.py"},
    "performance.md": {"pip install *": "a network", "python -m benchmarks.performance *": HOURS},
    "first_study.md": {"lnsnum report *": "tests/test_docs.py"},
    "results.md": {
        "pip install *": "a network",
        "lnsnum study *": "hours, and data that are not shipped; three steps each: tests/study/test_study.py",
        "lnsnum report second_study.jsonl *": "a file of hours: tests/study/test_report.py",
        "lnsnum report *": "tests/test_docs.py",
    },
    "tasks.md": {
        "* --device cuda *": "a card, and data that are not shipped",
        "lnsnum train --resume *": "a run that was stopped: docs/how_to/resume.md",
        "lnsnum watch run.jsonl": "until somebody ends it: tests/cli/test_watch.py",
        "* --tensorboard *": "another extra: tests/torch_bridge/test_event_log.py",
    },
    "testing.md": {
        "cc *": "tests/testing/test_calling.py",
        "lnsnum check --library *": "tests/testing/test_calling.py",
        "lnsnum check --command *": "tests/testing/test_calling.py",
        "lnsnum export --tables *": "tests/testing/test_verilog.py",
        "lnsnum check --verilog *": "tests/testing/test_verilog.py",
    },
    "toolbox.md": {
        "lnsnum inspect *": "tests/test_docs.py",
        "lnsnum verify *": "tests/test_docs.py",
        "lnsnum diff *": "tests/test_docs.py",
        "lnsnum describe *": "tests/test_docs.py",
        "lnsnum export digits.safetensors *": "docs/deploy.md",
        "gcc * layer.c *": "tests/toolbox/test_export.py",
        "./layer < x.txt": "tests/toolbox/test_export.py",
    },
}

SHORTER = {
    # for tests, which look at the command and not at what is learned: options behind those of the page
    "lnsnum train": "--epochs 1",
    "lnsnum train --out digits.safetensors": "--epochs 1",
    "lnsnum train --task words --data book.txt": "--steps 2",
    "lnsnum train --task words --steps 20000 --save-every 500": "--steps 3 --save-every 2 --data book.txt",
    "lnsnum train --task words --log run.jsonl": "--steps 3 --data book.txt",
}

OTHER_BLOCKS = {
    # (page, language): who compiles or reads what no shell and no Python runs by itself
    ("deploy.md", "text"): HOURS,
    ("distributed.md", "py"): "tests/torch_bridge/distributed",
    ("gpu.md", "py"): "tests/torch_bridge/kernels/on_cards",
    ("huggingface.md", ""): "tests/huggingface/test_adapters.py",
    ("huggingface.md", "text"): HOURS,
    ("performance.md", "text"): HOURS,
    ("results.md", "text"): "tests/test_docs.py",
    ("testing.md", "c"): "tests/testing/test_calling.py",
    ("testing.md", "console"): "tests/testing/test_law_suite.py",
    ("testing.md", "py"): "tests/testing/test_calling.py",
    ("testing.md", "text"): "tests/testing/test_planted_faults.py",
    ("testing.md", "verilog"): "tests/testing/test_verilog.py",
    ("toolbox.md", "c"): "tests/toolbox/test_export.py",
    ("toolbox.md", "text"): HOURS,
    ("training.md", ""): "tests/lightning",
    ("training.md", "text"): HOURS,
    ("weight_file.md", ""): "tests/files/test_golden_files.py",
    ("weight_file.md", "json"): "tests/files/test_golden_files.py",
}


def blocks(page):
    return re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


PROGRAM = re.compile(r"(lnsnum|python3?|pytest|pip|ruff|npm|apt-get|find|pre-commit|\.ci/\w+|\w+=\S+) ?")


def commands_of_block(language, block):
    lines = block.replace("\\\n", " ").splitlines()
    if language == "sh":
        shown = lines
    elif any(line.startswith("$ ") for line in lines):
        shown = [line[2:] for line in lines if line.startswith("$ ")]
    else:
        shown = [line for line in lines if language == "" and line.startswith(("lnsnum ", "pip ", "python "))]
    return [command for line in shown if (command := re.split(r"\s+#\s", line)[0].strip())]


def commands_of(page):
    found = [command for block in blocks(page) for command in commands_of_block(*block)]
    if page.name == "CONTRIBUTING.md":
        code = [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", page.read_text())]
        found += [words for words in code if PROGRAM.match(words) and (" " in words or words.startswith(".ci/"))]
    return found


def who_runs(page, command):
    for pattern, said in ELSEWHERE.get(page.name, {}).items():
        if command == pattern or fnmatch.fnmatchcase(command, pattern):
            return pattern, said
    return None, None


def run(command, monkeypatch, capsys):
    """`lnsnum` in this process, all else in a shell."""
    if not command.startswith("lnsnum "):
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True, capture_output=True)
        return
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as ending:
        sys.exit(cli.main())
    assert ending.value.code in (0, None), f"{command}: {capsys.readouterr().err}"


def book(folder):
    """Words enough for a vocabulary."""
    words = [f"word{i}" for i in range(60)]
    (folder / "book.txt").write_text(" ".join(np.random.default_rng(0).choice(words, 4000)))


def image(folder):
    """One, of eight by eight, where the program looks for it."""
    (folder / "digits" / "images.txt").write_text(" ".join(["0.5"] * 64) + "\n")


def floats(folder):
    """What toolbox.md converts, by the names that it has there."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    weights = {name: torch.randn(8, 3, 3, 3) for name in ("conv1.weight", "conv2.weight")}
    weights |= {"head.weight": torch.randn(10, 8), "head.bias": torch.randn(10)}
    save_file(weights, folder / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, folder / "bfloat16.safetensors")
    torch.save(weights, folder / "checkpoint.pt")
    torch.save({"model": weights, "optimizer": {"momentum": torch.randn(4, 4)}}, folder / "training.pt")
    save_weights(folder / "old.safetensors", {"w": LNSTensor.from_float(np.ones((4, 4)), "lns8f5")})


def codes(folder):
    """What it exports."""
    numbers = np.random.default_rng(0).normal(size=(8, 3, 3, 3))
    tensors = {name: LNSTensor.from_float(numbers, "lns8f5", log_offset="fit") for name in ("conv1", "conv2")}
    save_weights(folder / "model.safetensors", tensors)


PREPARED = {
    "deploy.md": {"cd digits *": image},
    "tasks.md": {"lnsnum train": book},
    "toolbox.md": {"lnsnum convert model.safetensors *": floats, "lnsnum export model.safetensors --to c": codes},
}
"""What must be there before a command."""


@pytest.mark.parametrize("name", ["deploy.md", "tasks.md", "toolbox.md"])
def test_commands_of_a_page_run_in_their_order(name, tmp_path, monkeypatch, capsys, one_thread):
    page, ran = ROOT / "docs" / name, 0
    monkeypatch.chdir(tmp_path)
    for command in commands_of(page):
        if who_runs(page, command)[0]:
            continue
        if "gcc " in command and not shutil.which("gcc"):
            pytest.skip("there is no gcc")
        for pattern, prepare in PREPARED[name].items():
            if fnmatch.fnmatchcase(command, pattern):
                prepare(tmp_path)
        run(f"{command} {SHORTER.get(command, '')}", monkeypatch, capsys)
        ran += 1
    assert ran > 2


def test_every_other_command_says_who_runs_it_or_why_nobody_does():
    here = {"deploy.md", "tasks.md", "toolbox.md"}
    used = set()
    for page in PAGES:
        for command in commands_of(page):
            pattern, said = who_runs(page, command)
            assert said or page.name in here, f"{page.name}: {command}"
            used.add((page.name, pattern))
    assert {(name, pattern) for name, told in ELSEWHERE.items() for pattern in told} <= used
    assert set(SHORTER) <= {command for name in here for command in commands_of(ROOT / "docs" / name)}


def test_every_block_is_python_or_commands_or_says_who_takes_it():
    used = set()
    for page in PAGES:
        for language, block in blocks(page):
            if language != "python" and not commands_of_block(language, block):
                assert (page.name, language) in OTHER_BLOCKS, f"{page.name} {language}: {block[:80]}"
                used.add((page.name, language))
    assert used == set(OTHER_BLOCKS)


def test_who_is_said_to_run_something_exists():
    said = [text for told in ELSEWHERE.values() for text in told.values()] + list(OTHER_BLOCKS.values())
    for path in re.findall(r"(?:tests|docs|\.ci|\.github)/[\w./]+", " ".join(said)):
        assert (ROOT / path).exists(), path
    assert len(said) > 50


def test_scripts_of_pages_have_the_options_that_are_told():
    """Of commands that nobody runs, what can be seen without running them."""
    seen = 0
    for page in PAGES:
        for command in commands_of(page):
            match = re.match(r"python (?:-m ([\w.]+)|(\S+\.py))(.*)", command)
            if match and match[1]:
                spec = importlib.util.find_spec(match[1])
                assert spec, command
                folder = Path(spec.origin).parent
                source = "".join(path.read_text() for path in folder.rglob("*.py"))
            elif match:
                source = (ROOT / match[2]).read_text()
            else:
                continue
            for option in re.findall(r"(?<!\S)--[a-z-]+", match[3]):
                assert f'"{option}"' in source, f"{page.name}: {command}"
                seen += 1
    assert seen > 5
