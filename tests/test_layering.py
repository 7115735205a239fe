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

HOUSE = """
kernels                compiling threads addresses decibels
array                  cards
-                      exact format
kernels                byte_tables elementary rounding decide thresholds groups granularity codes float8 filling
kernels                tiles word_tables scales strides look_ups float_tables byte_scales
kernels                row_encoding byte_decoding
kernels                vector_encoding scalar_encoding
-                      encoding decoding gaussian
operations             operation linear real_steps byte_sums narrow_sums wide_sums sums functions order
operations             transcendental elementary tabulated
operations             choosing accumulate float_sums prepared reducing code_products decoded_products weight_only
-                      conversion arithmetic reduction
array                  rationals scalars reading moved_scales storage fitted_scales elementwise ufuncs moves protocol
array                  statistics namespace
-                      tensor
files                  system_errors atomic run_log pickles packing layout headers single sharded
-                      weight_file
reference              radicals sums codes rounding conversions arithmetic brackets order .
proofs                 scanning conversions operations judgement
testing                foreign c_functions verilog_bench verilog calling report trial arguments code_words unary
testing                spans coded laws pairs law_suite checking
testing                positions conversion_batches conversion_laws conversion_inputs conversion_checking
testing                gaussian_laws
testing                gaussian_checking quantizer_grid quantizer_laws quantizer_checking random_counts
testing                stochastic_laws stochastic_checking
testing                sum_rounding exact_sums accumulators sum_batches sum_cases sum_laws sum_checking
testing                kinds law_tests
-                      . certify
testing                junit
testing                ranks code_strategies float_strategies tie_strategies matrix_strategies
-                      strategies
plots                  posits numbers formats operations training .
torch_bridge.kernels   threads scale codes_twin backends triton_launch codes_triton products_triton codes
torch_bridge.kernels   least_error nearest_value fits fitting
torch_bridge.kernels   random_words moments grid hypentropy paper step_numbers update ceiling update_list
torch_bridge.kernels   random_words_triton moments_triton hypentropy_triton paper_triton update_triton
torch_bridge.kernels   step_row_triton update_operator
torch_bridge.kernels   random_words_twin moments_twin hypentropy_twin paper_twin ceiling_twin update_twin
torch_bridge.distributed exchange first_broadcast sent_states gathering
torch_bridge           tables surroundings carrying float_doors writing products weight_ops weight_scale weight
torch_bridge           weight_only units storing step_state step_devices step launch float_step
torch_bridge.distributed replicas gradient_codes shard_step dtensors conversions scales
torch_bridge.datapath  settings presets swift quantized matrices fixed_point dynamic_range bit_true report graph kept
torch_bridge.datapath  float_operations functions modules workshop windows products convolutions embeddings
torch_bridge.datapath  unit operands activations pointwise totals softmax normalization losses pooling layout
torch_bridge.datapath  elementwise context texts setting .
torch_bridge.distributed parallel_files
torch_bridge           showing placing reports second_moments calibrated convertible layouts coding model
torch_bridge           step_reports madam_checks madam
torch_bridge           event_log monitor resuming
torch_bridge           checkpoint graphs
torch_bridge           sequential integer_twin integer_layers
torch_bridge           . optimizer_runs optimizer_laws optimizer_checking strategies
huggingface            config parts pages resuming quantizer watching adapters . folders
lightning              watching averaging .
tasks                  . signals troubles rescue measure few_bytes recipe task processes training resume footprint
tasks                  plots images digits image_file file_tree plain_pickle
tasks                  cifar_batches idx_files image_folder image_sets image_networks classification fine_tuning
tasks                  generation reconstruction text language_networks language regression copying registry
study                  . problems plan second_plan editions journal workers execution runner trial estimate
study                  statistics text_table results cells learning_rates claims variants bookkeeping standings
study                  second_tables tables panels plots second_plots
toolbox                . loss values comparison counting moves reading recoding selection verification
toolbox.file_kinds     . zip_members numpy_files safetensors_files torch_pickle torch_files npz_writer
toolbox                sources conversion inspection difference plots log_plots
toolbox.export_targets . new_folder plain_names fixed_text exported hardware_tables numpy_arrays memory_image c_source
toolbox.export_targets c_adder c_network c_integers
toolbox                export network description
cli                    app tables trained inspect verify diff export model_folder convert resuming training_run train
cli                    evaluate study report watch describe certify check . __main__
-                      __main__
"""
"""The house, from the ground up: a wing (- is `lnsnum` itself) and its rooms, each of which imports only rooms that
stand before it, to the left or above; a dot is the wing's own `__init__`. A new room is entered before all that import
it."""


def rooms(house: str) -> list[str]:
    """The modules of the picture, in its order. The `__init__`s that hold a text alone come first."""
    order = []
    for wing, *names in (line.split() for line in house.split("\n") if line):
        package = "lnsnum" if wing == "-" else f"lnsnum.{wing}"
        order += [package if name == "." else f"{package}.{name}" for name in names]
    return order


TEXTS = ["kernels", "operations", "array", "files", "proofs", "testing"]
TEXTS += ["torch_bridge.kernels", "torch_bridge.distributed"]
ORDER = [f"lnsnum.{wing}" for wing in TEXTS] + rooms(HOUSE)

CORE = ORDER[: ORDER.index("lnsnum.torch_bridge.kernels.threads")]

STRATEGIES = ["ranks", "code_strategies", "float_strategies", "tie_strategies", "matrix_strategies"]

LIBRARIES = {
    "lnsnum.files.single": {"numpy", "safetensors", "ml_dtypes"},
    "lnsnum.kernels.byte_tables": {"numpy", "numba", "llvmlite"},  # which Numba brings
    "lnsnum.kernels.byte_scales": {"numpy", "numba", "llvmlite"},
    "lnsnum.kernels.filling": {"numpy", "numba", "llvmlite"},
    "lnsnum.kernels.tiles": {"numpy", "numba", "llvmlite"},
    "lnsnum.kernels.word_tables": {"numpy", "numba", "llvmlite"},
    "lnsnum.operations.code_products": {"numpy", "numba", "llvmlite"},
    **{module: {"mpmath"} for module in ORDER if module.startswith("lnsnum.reference")},
    "lnsnum.testing.spans": {"numpy", "mpmath"},
    "lnsnum.testing.positions": {"numpy", "mpmath"},
    "lnsnum.testing.law_tests": {"pytest"},
    **{f"lnsnum.testing.{name}": {"numpy", "hypothesis"} for name in STRATEGIES},
    "lnsnum.proofs.scanning": {"numpy", "mpmath"},
    "lnsnum.certify": {"numpy", "numba", "llvmlite", "mpmath"},
}
"""What a module of the core imports from others; NumPy and Numba where nothing else is said."""

OPTIONAL = {"torch", "mpmath", "hypothesis", "pytest", "safetensors", "ml_dtypes"}
OPTIONAL |= {"scipy", "sklearn", "matplotlib", "typer", "rich", "transformers", "lightning", "tensorboard"}


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
    assert not missing, f"enter {sorted(missing)} into HOUSE, before the modules that import them"
    assert not gone, f"take {sorted(gone)} out of HOUSE"


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_those_above_it(module):
    above = set(ORDER[: ORDER.index(module)])
    assert of_our_own(module) - above == set()


def test_the_reference_is_independent():
    """It imports itself and the format only, and only what judges imports it: kernels and oracle share nothing."""
    oracle = {module for module in ORDER if module.startswith("lnsnum.reference")}
    assert set().union(*map(of_our_own, oracle)) - oracle == {"lnsnum.format"}
    judges = ["law_suite", "conversion_batches", "quantizer_laws", "sum_rounding", "sum_batches"]
    by_laws = [f"lnsnum.testing.{name}" for name in judges]
    by_the_oracle = [module for module in ORDER if module not in oracle and of_our_own(module) & oracle]
    assert by_the_oracle == ["lnsnum.proofs.conversions", "lnsnum.proofs.operations", *by_laws]
    by_mpmath = ["reference.radicals", "reference.conversions", "proofs.scanning"]
    by_mpmath += ["testing.spans", "testing.positions", "certify"]
    assert [module for module in ORDER if "mpmath" in of_others(module)] == [f"lnsnum.{name}" for name in by_mpmath]


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


def test_triton_is_imported_by_its_kernels_alone():
    assert {module for module in ORDER if "triton" in of_others(module)} == {
        f"lnsnum.torch_bridge.kernels.{name}"
        for name in ("triton_launch", "codes_triton", "products_triton", "random_words_triton", "moments_triton",
                     "hypentropy_triton", "paper_triton", "update_triton", "step_row_triton")
    }  # fmt: skip


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
