"""What is public: each door says it in `__all__`, and each of its names is there and documented."""

import ast
import importlib.util
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from machinery import links

import lnsnum
from lnsnum import LNSFormat, arithmetic, conversion, decoding, encoding, lns8f3, reduction

PACKAGE = Path(lnsnum.__file__).parent

DOORS = [
    *("format", "exact", "encoding", "decoding", "gaussian", "conversion", "arithmetic", "reduction", "tensor"),
    *(
        "weight_file",
        "certify",
        "strategies",
        "reference",
        "plots",
        "torch_bridge",
        "torch_bridge.strategies",
        "torch_bridge.datapath",
        "huggingface",
        "kernels.threads",
        "operations.weight_only",
    ),
    *(f"toolbox.{path.stem}" for path in sorted((PACKAGE / "toolbox").glob("[a-z]*.py"))),
]
if importlib.util.find_spec("lightning.pytorch") is not None:  # of that alone: tests has a folder of the name, too
    DOORS.append("lightning")
MODULES = ["lnsnum", *(f"lnsnum.{door}" for door in DOORS)]


def in_order(name):
    """Constants, classes, then the rest; numbers within a name count as numbers."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, [(part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", name) if part]


def told_of(name, module):
    """Whether a string stands behind the assignment to a name, in the module or where it is imported from."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    for node, behind in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return told_of(name, importlib.import_module(node.module))
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(getattr(part, "id", None) == name for target in targets for part in ast.walk(target)):
            return isinstance(behind, ast.Expr) and isinstance(getattr(behind.value, "value", None), str)
    return False


@pytest.mark.parametrize("name", MODULES)
def test_a_door_says_what_is_public(name):
    module = importlib.import_module(name)
    names = module.__all__
    assert len(set(names)) == len(names) > 0
    assert names == sorted(names, key=in_order)
    assert [public for public in names if public.startswith("_")] == []
    for public in names:
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert value.__doc__, public
        elif not isinstance(value, LNSFormat):  # its name says it
            assert told_of(public, module), public


@pytest.mark.parametrize(
    "door", ["arithmetic", "reduction", "gaussian", "certify", "conversion", "encoding", "decoding"]
)
def test_what_a_door_leaves_out_has_a_docstring_too(door):
    """Of the functions and classes that it defines."""
    module = importlib.import_module(f"lnsnum.{door}")
    own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
    assert [n for n, v in own.items() if callable(v) and not n.startswith("_") and not v.__doc__] == []


def test_every_public_name_has_a_page_in_the_reference():
    """docs/reference has `::: DOOR` for each door; the site's own check looks for each name in what was built of it."""
    has = set(links.doors())
    names = {door: importlib.import_module(door).__all__ for door in MODULES}
    assert [f"{door}.{name}" for door in MODULES if door not in has for name in names[door]] == []
    assert has - set(MODULES) <= {"lnsnum.lightning"}  # which is looked at where Lightning is there
    told = [name for name in links.public_names() if not name.startswith("lnsnum.lightning.") or "lightning" in DOORS]
    assert sorted(told) == sorted(f"{door}.{name}" for door in MODULES for name in names[door])


def test_every_operation_is_in_the_specification():
    """The functions of lnsnum.arithmetic, by name, in the table of docs/number_format.md."""
    page = (PACKAGE.parent / "docs" / "number_format.md").read_text(encoding="utf-8")
    functions = {name for name in arithmetic.__all__ if name.islower()} - {"order_key"}
    assert {name for name in functions if f"`{name}(" not in page} == set()


def test_every_operation_of_the_specification_is_public():
    page = (PACKAGE.parent / "docs" / "number_format.md").read_text(encoding="utf-8")
    table = page[page.index("## Operations") : page.index("**Offsets.**")]
    named = set(re.findall(r"`([a-z0-9_]+)\(", table)) - {"convert"}
    assert named == {name for name in arithmetic.__all__ if name.islower()} - {"order_key"}


def test_threads_and_weight_only_products_are_names_of_the_package():
    assert lnsnum.set_num_threads is importlib.import_module("lnsnum.kernels.threads").set_num_threads
    assert lnsnum.get_num_threads() >= 1
    assert lnsnum.weight_only_matmul is importlib.import_module("lnsnum.operations.weight_only").weight_only_matmul


WITH_FORMAT = [
    getattr(module, name)
    for module in (arithmetic, reduction, conversion, decoding, encoding)
    for name in module.__all__
    if inspect.isfunction(getattr(module, name)) and "fmt" in inspect.signature(getattr(module, name)).parameters
]


@pytest.mark.parametrize("function", WITH_FORMAT, ids=lambda function: function.__name__)
def test_a_name_in_the_place_of_a_format_is_told_by_name(function):
    needed = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty and p.kind < 2]
    own = {"fmt": "lns8f3", "to": lns8f3, "exponent": 2}
    with pytest.raises(TypeError, match=r"^fmt='lns8f3' is a str, not an LNSFormat: LNSFormat\.parse reads a name$"):
        function(*(own.get(name, np.full(2, 70, np.uint8)) for name in needed))


@pytest.mark.parametrize("n", ["2", None, 1.5])
def test_a_number_of_threads_is_an_integer(n):
    with pytest.raises(TypeError, match=rf"^n={n!r} is a \w+: give an integer, 1 or more$"):
        lnsnum.set_num_threads(n)
