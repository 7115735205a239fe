"""The staircase: each module imports only modules above it, and the core imports nothing that it can do without."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lnsnum

PACKAGE = Path(lnsnum.__file__).parent

ORDER = [
    "lnsnum.kernel",
    "lnsnum.threads",
    "lnsnum.exact",
    "lnsnum.format",
    "lnsnum.elementary",
    "lnsnum.rounding",
    "lnsnum.decide",
    "lnsnum.thresholds",
    "lnsnum.codes",
    "lnsnum.packing",
    "lnsnum.vector_encoding",
    "lnsnum.encoding",
    "lnsnum.decoding",
    "lnsnum.weight_only",
    "lnsnum.operation",
    "lnsnum.linear",
    "lnsnum.conversion",
    "lnsnum.gaussian",
    "lnsnum.narrow_sums",
    "lnsnum.wide_sums",
    "lnsnum.sums",
    "lnsnum.functions",
    "lnsnum.arithmetic",
    "lnsnum.accumulate",
    "lnsnum.reduction",
    "lnsnum.scalars",
    "lnsnum.storage",
    "lnsnum.elementwise",
    "lnsnum.numpy_ufuncs",
    "lnsnum.numpy_moves",
    "lnsnum.numpy_protocol",
    "lnsnum.tensor",
    "lnsnum.atomic_file",
    "lnsnum.file_layout",
    "lnsnum.single_file",
    "lnsnum.sharded_file",
    "lnsnum.weight_file",
    "lnsnum",
    "lnsnum.reference.radicals",
    "lnsnum.reference.sums",
    "lnsnum.reference.codes",
    "lnsnum.reference.rounding",
    "lnsnum.reference.conversions",
    "lnsnum.reference.arithmetic",
    "lnsnum.reference.brackets",
    "lnsnum.reference.order",
    "lnsnum.reference",
    "lnsnum.laws",
    "lnsnum.law_suite",
    "lnsnum.strategies",
    "lnsnum.certify",
    "lnsnum.torch_bridge.threads",
    "lnsnum.torch_bridge.scale",
    "lnsnum.torch_bridge.codes_twin",
    "lnsnum.torch_bridge.codes",
    "lnsnum.torch_bridge.weight_ops",
    "lnsnum.torch_bridge.weight",
    "lnsnum.torch_bridge.weight_only",
    "lnsnum.torch_bridge.moments",
    "lnsnum.torch_bridge.update",
    "lnsnum.torch_bridge.update_twin",
    "lnsnum.torch_bridge.step",
    "lnsnum.torch_bridge.float_step",
    "lnsnum.torch_bridge.placing",
    "lnsnum.torch_bridge.model",
    "lnsnum.torch_bridge.madam",
    "lnsnum.torch_bridge.checkpoint",
    "lnsnum.torch_bridge",
    "lnsnum.tasks",
    "lnsnum.tasks.task",
    "lnsnum.tasks.recipe",
    "lnsnum.tasks.training",
    "lnsnum.tasks.footprint",
    "lnsnum.tasks.plots",
    "lnsnum.tasks.images",
    "lnsnum.tasks.digits",
    "lnsnum.tasks.image_file",
    "lnsnum.tasks.file_tree",
    "lnsnum.tasks.plain_pickle",
    "lnsnum.tasks.cifar_batches",
    "lnsnum.tasks.idx_files",
    "lnsnum.tasks.image_folder",
    "lnsnum.tasks.image_sets",
    "lnsnum.tasks.image_networks",
    "lnsnum.tasks.classification",
    "lnsnum.tasks.generation",
    "lnsnum.tasks.text",
    "lnsnum.tasks.language",
    "lnsnum.tasks.regression",
    "lnsnum.tasks.copying",
    "lnsnum.tasks.registry",
    "lnsnum.study",
    "lnsnum.study.problems",
    "lnsnum.study.plan",
    "lnsnum.study.journal",
    "lnsnum.study.workers",
    "lnsnum.study.execution",
    "lnsnum.study.runner",
    "lnsnum.study.estimate",
    "lnsnum.study.statistics",
    "lnsnum.study.text_table",
    "lnsnum.study.results",
    "lnsnum.study.cells",
    "lnsnum.study.learning_rates",
    "lnsnum.study.claims",
    "lnsnum.study.variants",
    "lnsnum.study.bookkeeping",
    "lnsnum.study.tables",
    "lnsnum.study.plots",
    "lnsnum.toolbox",
    "lnsnum.toolbox.file_kinds",
    "lnsnum.toolbox.export_targets",
    "lnsnum.toolbox.file_kinds.numpy_files",
    "lnsnum.toolbox.file_kinds.safetensors_files",
    "lnsnum.toolbox.file_kinds.torch_files",
    "lnsnum.toolbox.sources",
    "lnsnum.toolbox.loss",
    "lnsnum.toolbox.values",
    "lnsnum.toolbox.comparison",
    "lnsnum.toolbox.counting",
    "lnsnum.toolbox.moves",
    "lnsnum.toolbox.reading",
    "lnsnum.toolbox.recoding",
    "lnsnum.toolbox.file_kinds.npz_writer",
    "lnsnum.toolbox.selection",
    "lnsnum.toolbox.conversion",
    "lnsnum.toolbox.export_targets.new_folder",
    "lnsnum.toolbox.export_targets.plain_names",
    "lnsnum.toolbox.export_targets.fixed_text",
    "lnsnum.toolbox.export_targets.exported",
    "lnsnum.toolbox.export_targets.hardware_tables",
    "lnsnum.toolbox.export_targets.numpy_arrays",
    "lnsnum.toolbox.export_targets.memory_image",
    "lnsnum.toolbox.export_targets.c_source",
    "lnsnum.toolbox.export",
    "lnsnum.toolbox.inspection",
    "lnsnum.toolbox.verification",
    "lnsnum.toolbox.difference",
    "lnsnum.toolbox.plots",
    "lnsnum.cli.app",
    "lnsnum.cli.tables",
    "lnsnum.cli.inspect",
    "lnsnum.cli.verify",
    "lnsnum.cli.diff",
    "lnsnum.cli.export",
    "lnsnum.cli.convert",
    "lnsnum.cli.train",
    "lnsnum.cli.study",
    "lnsnum.cli.report",
    "lnsnum.cli.certify",
    "lnsnum.cli",
    "lnsnum.cli.__main__",
]
"""All modules, from the top step of the staircase down: a new module is entered here, above all that import it."""

CORE = ORDER[: ORDER.index("lnsnum.torch_bridge.threads")]

LIBRARIES = {
    "lnsnum.single_file": {"numpy", "safetensors", "ml_dtypes"},
    **{module: {"mpmath"} for module in ORDER if module.startswith("lnsnum.reference")},
    "lnsnum.laws": {"numpy", "mpmath"},
    "lnsnum.law_suite": {"numpy", "hypothesis"},
    "lnsnum.strategies": {"numpy", "hypothesis"},
    "lnsnum.certify": {"numpy", "numba", "llvmlite", "mpmath"},
}
"""What a module of the core imports from others; NumPy and Numba where nothing else is said."""

OPTIONAL = {"torch", "mpmath", "hypothesis", "safetensors", "ml_dtypes"}
OPTIONAL |= {"scipy", "sklearn", "matplotlib", "typer", "rich"}


def path_of(module: str) -> Path:
    place = PACKAGE.parent.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def modules_on_disk() -> set[str]:
    parts = (path.relative_to(PACKAGE.parent).with_suffix("").parts for path in PACKAGE.rglob("*.py"))
    return {".".join(part[:-1] if part[-1] == "__init__" else part) for part in parts}


def absolute(node: ast.ImportFrom, module: str) -> str:
    """The module that `from ... import` names, its dots resolved."""
    if node.level == 0:
        return node.module or ""
    package = module.split(".") if path_of(module).name == "__init__.py" else module.split(".")[:-1]
    parts = package[: len(package) - node.level + 1]
    return ".".join(parts + ([node.module] if node.module else []))


def imports(module: str) -> Iterator[str]:
    """Every module that `module` imports, at any depth: in functions and under TYPE_CHECKING too."""
    known = modules_on_disk()
    for node in ast.walk(ast.parse(path_of(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, module)
            yield from (
                f"{source}.{alias.name}" if f"{source}.{alias.name}" in known else source for alias in node.names
            )


def root(name: str) -> str:
    return name.split(".")[0]


def of_our_own(module: str) -> set[str]:
    return {name for name in imports(module) if root(name) == "lnsnum"}


def of_others(module: str) -> set[str]:
    return {root(name) for name in imports(module)} - sys.stdlib_module_names - {"lnsnum"}


def test_every_module_has_its_step():
    assert len(ORDER) == len(set(ORDER))
    missing, gone = modules_on_disk() - set(ORDER), set(ORDER) - modules_on_disk()
    assert not missing, f"enter {sorted(missing)} into ORDER, above the modules that import them"
    assert not gone, f"take {sorted(gone)} out of ORDER"


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_those_above_it(module):
    above = set(ORDER[: ORDER.index(module)])
    assert of_our_own(module) - above == set()


def test_the_reference_is_independent():
    """It imports itself and the format only, and only the proofs import it: kernels and oracle share nothing."""
    oracle = {module for module in ORDER if module.startswith("lnsnum.reference")}
    assert set().union(*map(of_our_own, oracle)) - oracle == {"lnsnum.format"}
    assert [module for module in ORDER if module not in oracle and of_our_own(module) & oracle] == ["lnsnum.certify"]
    by_mpmath = ["lnsnum.reference.radicals", "lnsnum.reference.conversions", "lnsnum.laws", "lnsnum.certify"]
    assert [module for module in ORDER if "mpmath" in of_others(module)] == by_mpmath


@pytest.mark.parametrize("module", CORE)
def test_the_core_needs_numpy_and_numba_alone(module):
    assert of_others(module) <= LIBRARIES.get(module, {"numpy", "numba"})


def test_nothing_above_the_bridge_imports_torch():
    first = next(i for i, module in enumerate(ORDER) if "torch" in of_others(module))
    assert first >= len(CORE)


@pytest.mark.parametrize("module", ORDER)
def test_imports_can_be_read_off(module):
    """No import by a computed name, and none of all names: the tests above see every import."""
    for node in ast.walk(ast.parse(path_of(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert [alias.name for alias in node.names] != ["*"]
        if isinstance(node, ast.Name):
            assert node.id not in ("__import__", "import_module")
        if isinstance(node, ast.Attribute):
            assert node.attr != "import_module"


@pytest.mark.parametrize("module", ["lnsnum", "lnsnum.weight_file"])
def test_importing_the_core_loads_nothing_optional(module):
    """In a fresh interpreter, beyond what Numba loads (scipy, where it is installed, to look at its version)."""
    code = f"import sys, numba; numbas = set(sys.modules); import {module}; print(*set(sys.modules) - numbas)"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    loaded = result.stdout.split()
    assert {"lnsnum", module} <= set(loaded)
    assert {root(name) for name in loaded} & OPTIONAL == set()


def test_imports_are_found_wherever_they_stand(tmp_path, monkeypatch):
    """The parser of this file, tried: a test that sees no imports would never fail."""
    package = tmp_path / "lnsnum"
    (package / "sub").mkdir(parents=True)
    for name in ("__init__", "top", "sub/__init__", "sub/inner"):
        (package / f"{name}.py").touch()
    (package / "sub" / "here.py").write_text(
        "import lnsnum.top, os.path\n"
        "from . import inner\n"
        "from ..top import something\n"
        "from lnsnum import __version__\n"
        "def f():\n    from lnsnum import sub\n    import torch.nn as nn\n"
        "if False:\n    from mpmath import mp\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", package)
    assert of_our_own("lnsnum.sub.here") == {"lnsnum.top", "lnsnum.sub.inner", "lnsnum", "lnsnum.sub"}
    assert of_others("lnsnum.sub.here") == {"torch", "mpmath"}
    assert modules_on_disk() == {"lnsnum", "lnsnum.top", "lnsnum.sub", "lnsnum.sub.inner", "lnsnum.sub.here"}
