"""Triton's kernels without a card: in Triton's interpreter, and as the PTX that its compiler makes of them for cards.

The interpreter runs the tests of `on_cards` in a process of its own, which asks for it before triton is imported. What
it cannot see is in the PTX: products that are fused with sums, approximations, and reads of one element at a time.
"""

import ast
import doctest
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.utils._pytree import tree_leaves

from lnsnum import lns8f5, lns12f6
from lnsnum.kernels.scales import Walk
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model
from lnsnum.torch_bridge.kernels import backends, codes
from lnsnum.torch_bridge.kernels.random_words import WHOLE, Draw, Part
from lnsnum.torch_bridge.kernels.scale import Scale, check_offset
from lnsnum.torch_bridge.kernels.step_numbers import Choices, StepScalars
from lnsnum.torch_bridge.step_devices import ready_for_card
from lnsnum.torch_bridge.weight_scale import others_have

HERE = Path(__file__).parent
TESTS = HERE.parent.parent


def needs_triton():
    return pytest.importorskip("triton", reason="triton is not installed: pip install --no-deps triton")


def interpret(*arguments):
    """Run tests in Triton's interpreter."""
    reason = "older interpreters cannot count a loop under NumPy 2.4: pip install --no-deps 'triton>=3.9'"
    pytest.importorskip("triton", minversion="3.9", reason=reason)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--show-capture=no"]
    ran = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert re.search(r"\d+ passed", ran.stdout)


@pytest.mark.parametrize("name", ["codes", "update", "products", "bridge_on_cards"])
def test_the_interpreter_gives_the_bits_of_the_cpu(name):
    interpret(*HERE.glob(f"on_cards/test_{name}*.py"))


@pytest.mark.thorough
def test_every_error_is_that_of_the_cpu():
    """The tests of weights and of the optimizer that want an error get its sentence where Triton's kernels run."""
    files = ("madam", "madam_options", "madam_sparse", "attach", "weight", "weight_doors", "weight_scale",
             "weight_channels", "weight_groups", "float_doors", "written_anew")  # fmt: skip
    interpret("-p", "pretended_card", *(TESTS / "torch_bridge" / f"test_{name}.py" for name in files))


# ----------------------------------------------------------------------------------------------------------------- PTX


def test_the_examples_in_the_kernels_are_right():
    needs_triton()
    from lnsnum.torch_bridge.kernels import codes_triton, products_triton, triton_launch, update_triton

    results = [doctest.testmod(module) for module in (codes_triton, products_triton, triton_launch, update_triton)]
    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0


def scalars():
    return StepScalars(*(1.0 for _ in StepScalars._fields))


def step(
    choices=None, *, momentum=False, units=1, walk=None, fmt=lns8f5, dtype=torch.float32, moment=torch.uint8,
    size=1 << 16, **where,
):  # fmt: skip
    from lnsnum.torch_bridge.kernels import update_triton

    codes = torch.zeros(size, dtype=torch.uint8 if fmt.bits <= 8 else torch.int16)
    weight = update_triton.Stepped(
        codes, torch.zeros(size, dtype=dtype), torch.zeros(size, dtype=moment),
        torch.zeros(size, dtype=torch.uint8) if momentum else None, np.ones(units, np.float32), walk or Walk(64),
        scalars(), Draw(0, 0, 1), **where,
    )  # fmt: skip
    update_triton.step_list([weight], fmt, choices or Choices())


def row(rule="hypentropy", moment=torch.uint8):
    """What a graph's step has made on the card."""
    from lnsnum.torch_bridge.kernels import random_words_triton, step_row_triton

    arrays = torch.zeros(64, dtype=torch.uint8), torch.zeros(64), torch.zeros(64, dtype=moment), None
    numbers = [torch.ones((), dtype=torch.float64) for _ in range(2)]
    numbers += [torch.ones((), dtype=dtype) for dtype in (torch.int32, torch.float64, torch.float64, torch.int64)]
    by = step_row_triton.Changing(*numbers), step_row_triton.Options(0.2, 10.0, 0.999, 0.0, 0.0)
    step_row_triton.make_row(arrays, torch.ones(1), Walk(), *by, lns8f5, rule, 0, 0, 0, WHOLE)
    random_words_triton.draw_keys(numbers[5], 0, 0)


def decode(dtype=torch.float32, offsets=None, fmt=lns8f5):
    from lnsnum.torch_bridge.kernels import codes_triton

    codes = torch.zeros((64, 1024), dtype=torch.uint8 if fmt.bits <= 8 else torch.int16)
    codes_triton.decode(codes, fmt, Scale(0, 0, offsets), dtype)


def encode(rounding="nearest", dtype=torch.float32, offsets=None):
    from lnsnum.torch_bridge.kernels import codes_triton

    random = torch.zeros((64, 1024), dtype=torch.int32) if rounding.startswith("stochastic") else None
    x = torch.zeros((64, 1024), dtype=dtype)
    codes_triton.encode(x, lns8f5, Scale(0, 0, offsets), rounding=rounding, random_bits=random)


def product(transposed=False, dtype=torch.float32, vectors=1, offsets=None):
    from lnsnum.torch_bridge.kernels import products_triton

    x, codes = torch.zeros((vectors, 1024), dtype=dtype), torch.zeros((1024, 1024), dtype=torch.uint8)
    scale = Scale(0, 0, offsets)
    products_triton.multiply(x, codes, lns8f5, scale, dtype, transposed=transposed)


CHANNELS = torch.zeros((64, 1), dtype=torch.int32)

LAUNCHES = {
    "decode": lambda: decode(),
    "decode, bfloat16, channels": lambda: decode(torch.bfloat16, CHANNELS),
    "decode, 12 bits": lambda: decode(torch.float32, fmt=lns12f6),
    "decode, float16": lambda: decode(torch.float16),
    "encode": lambda: encode(),
    "encode, float16, up": lambda: encode("up", torch.float16),
    "encode, bfloat16, channels": lambda: encode("toward_zero", torch.bfloat16, CHANNELS),
    "encode, stochastic_log": lambda: encode("stochastic_log"),
    "encode, stochastic_value": lambda: encode("stochastic_value"),
    "step": lambda: step(),
    "step, all": lambda: step(Choices(zero="keep"), momentum=True, units=1024, fmt=lns12f6, dtype=torch.bfloat16),
    "step, paper": lambda: step(Choices("paper", "stochastic_value", "leave"), momentum=True),
    "step, rows": lambda: step(moment=torch.float32, rows=torch.zeros(1024, dtype=torch.int64), units=4),
    "step, part": lambda: step(
        dtype=torch.float16, units=64, walk=Walk(1, 16, 1000, 1), part=Part(0, 64, 128), momentum=True
    ),
    "row": lambda: row(),
    "row, paper": lambda: row("paper", torch.float32),
    "product by rows": lambda: product(),
    "product by rows, channels": lambda: product(
        dtype=torch.bfloat16, vectors=4, offsets=torch.zeros((1024, 1), dtype=torch.int32)
    ),
    "product by columns": lambda: product(True, vectors=2),
}

CARDS = {"decode": [80, 90, 100], "encode": [80, 90, 100], "step": [80, 90, 100], "product by rows": [80, 90, 100]}
"""For which cards what is compiled, by their compute capability; all other kinds for 90 alone."""

KERNELS = {
    "codes_triton": ["decode_kernel", "encode_kernel"],
    "update_triton": ["step_kernel"],
    "step_row_triton": ["row_kernel"],
    "random_words_triton": ["keys_kernel"],
    "products_triton": ["rows_kernel", "columns_kernel", "add_kernel"],
}


class Recorded:
    """A kernel that is compiled where it would be launched."""

    def __init__(self, kernel, capability, found):
        self.kernel, self.capability, self.found = kernel, capability, found

    def __getitem__(self, grid):
        return lambda *args, **kwargs: self.found.append(ptx_of(self.kernel, self.capability, args, kwargs))


def ptx_of(kernel, capability, args, kwargs):
    """What a launch with these arguments runs, compiled as Triton would at that launch."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointers = {
        torch.uint8: "*u8", torch.int16: "*i16", torch.int32: "*i32", torch.int64: "*i64", torch.float16: "*fp16",
        torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.float64: "*fp64",
    }  # fmt: skip
    given = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
    options = {name: given.pop(name) for name in list(given) if name not in kernel.arg_names}
    signature, constants, attributes = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        if parameter.is_constexpr or (type(value) is int and value == 1 and not parameter.do_not_specialize):
            signature[parameter.name], constants[(place,)] = "constexpr", value
            continue
        is_tensor = isinstance(value, torch.Tensor)
        signature[parameter.name] = pointers[value.dtype] if is_tensor else "i32"
        if (value.data_ptr() if is_tensor else value) % 16 == 0 and not parameter.do_not_specialize:
            attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    ("name", "capability"), [(name, card) for name in LAUNCHES for card in CARDS.get(name, [90])]
)  # fmt: skip
def test_the_code_for_cards(name, capability, monkeypatch, tmp_path):
    """No product fused with a sum, nothing approximate, nothing flushed to zero; and memory in vectors."""
    needs_triton()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    found = []
    for where, kernels in KERNELS.items():
        module = import_module(f"lnsnum.torch_bridge.kernels.{where}")
        for kernel in kernels:
            monkeypatch.setattr(module, kernel, Recorded(getattr(module, kernel), capability, found))
    LAUNCHES[name]()
    assert found
    for ptx in found:
        fused = set(re.findall(r"\bfma\S*", ptx))
        # float64 is for probabilities, whose error is bounded and whose doubts are told
        assert fused <= ({"fma.rn.f64"} if "stochastic" in name else set())
        # its library's logarithm begins with an approximate quotient, and makes it a right one
        near = {"rcp.approx.ftz.f64"} if name == "encode, stochastic_log" else set()
        assert set(re.findall(r"\S*\.(?:approx|full|ftz)\S*", ptx)) <= near
        # without .rn the assembler may fuse them
        assert re.findall(r"\b(?:add|sub|mul)\.f(?:32|64)|\bmad\S*\.f\d", ptx) == []
    if name.startswith("row"):
        return
    first = found[0]
    read, written = (re.findall(rf"{how}\.global\S*\.v[24]\.", first) for how in ("ld", "st"))
    if name != "product by columns":  # which reads a row of some columns at a time
        assert read
    if not name.startswith("product"):
        assert written
    if name.startswith("step"):
        assert first.count("div.rn.f32") > 0
        assert first.count("sqrt.rn.f32") > 0


KERNELS_FOLDER = Path(backends.__file__).parent


def test_every_kernel_is_launched_on_the_card_of_its_tensors():
    """By `triton_launch.launch` alone, which sees to it; and each is among those whose code is looked at here."""
    kernels = {}
    for path in KERNELS_FOLDER.glob("*_triton.py"):
        tree = ast.parse(path.read_text("utf-8"))
        own = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel")]
        kernels |= {path.stem: sorted(own)} if own else {}
        # kernel[grid](...)
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not [ast.unparse(call) for call in calls if isinstance(call, ast.Subscript)], path
    assert kernels == {name: sorted(own) for name, own in KERNELS.items()}


def test_a_launch_is_on_the_card_of_its_tensors(monkeypatch):
    """Whatever the current one is, on whose stream Triton launches."""
    needs_triton()
    from lnsnum.torch_bridge.kernels.triton_launch import launch

    cards, launched = [0], []

    @contextmanager
    def current(device):
        cards.append(device.index)
        yield
        cards.pop()

    class Kernel:
        def __getitem__(self, grid):
            return lambda *arguments, **constants: launched.append((cards[-1], grid, arguments, constants))

    monkeypatch.setattr(torch.cuda, "device", current)
    launch(Kernel(), (7,), torch.device("cuda", 3), "x", BLOCK=8)
    assert launched == [(3, (7,), ("x",), {"BLOCK": 8, "enable_fp_fusion": False})]
    assert cards == [0]


# ------------------------------------------------------------------------------------------------ graphs, and the host


def card_graph_has_meta(monkeypatch):
    """The meta device in the place of a card: there, too, nothing can be looked at while a graph is traced."""

    def has(device):
        return device.startswith("meta")

    has._dynamo_marked_constant = True
    monkeypatch.setattr(backends, "graph_has_card", has)


def traced(function):
    """The graphs of a function that is compiled without a break, and of its backward pass."""
    graphs = []

    def kept(graph, _):
        graphs.append(graph.graph)
        return make_boxed_func(graph.forward)

    torch.compiler.reset()
    backend = aot_autograd(fw_compiler=kept, bw_compiler=kept)
    found = torch.compile(function, fullgraph=True, dynamic=False, backend=backend)()
    if isinstance(found, torch.Tensor):
        found.backward()
    torch.compiler.reset()
    return graphs


def devices_of(graph):
    values = [value for node in graph.nodes for value in tree_leaves(node.meta.get("val"))]
    return {value.device.type for value in values if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("how", [{}, {"group_size": 16}], ids=str)
def test_graphs_on_a_card_stay_there(monkeypatch, how):
    """Forward, backward and step without a break, and without a tensor, a table or a number on the host: nothing that
    a CUDA graph cannot record, or for which Python waits."""
    card_graph_has_meta(monkeypatch)
    model = nn.Sequential(nn.Embedding(11, 40), nn.Linear(40, 5))
    convert_model(model, "lns8f5", **how)
    made = Madam(model.parameters(), momentum=0.9)
    made.make_state(for_graph=True)
    states = [made.state[p] for p in model.parameters()]
    model.to("meta")
    optimizer = Madam(model.parameters(), momentum=0.9)
    for p, state in zip(model.parameters(), states, strict=True):
        there = {name: x.to("meta") if isinstance(x, torch.Tensor) else x for name, x in state.items()}
        optimizer.state[p].update(there)
    tokens = torch.zeros(4, dtype=torch.int64, device="meta")
    graphs = traced(lambda: model(tokens).square().mean())
    assert len(graphs) == 2
    for p in model.parameters():
        p.grad = torch.zeros(p.shape, device="meta")
    optimizer.param_groups[0]["lr"] = torch.tensor(0.05, device="meta")
    graphs += traced(optimizer.step)
    assert [devices_of(graph) for graph in graphs] == [{"meta"}] * 3
    launches = [node for node in graphs[2].nodes if "madam_step_on_card" in str(node.target)]
    assert len(launches) == 3


def test_a_graph_s_numbers_go_where_its_weights_are(monkeypatch):
    """And back to the host where a state is loaded, for steps that are not compiled."""
    card_graph_has_meta(monkeypatch)
    model = nn.Linear(3, 2)
    convert_model(model, "lns8f5")
    optimizer = Madam(model.parameters())
    optimizer.make_state()
    there = nn.Linear(3, 2, device="meta")
    state = dict(optimizer.state[model.weight])
    ready_for_card(there.weight, state, optimizer.param_groups[0])
    assert {value.device.type for value in state.values() if isinstance(value, torch.Tensor)} == {"meta"}
    ready_for_card(model.weight, optimizer.state[model.weight], optimizer.param_groups[0])
    assert optimizer.state[model.weight]["step"].is_cpu


def test_a_step_on_the_host_is_not_recorded(monkeypatch):
    """Replayed, it would draw the random words of one step again and again."""
    model = nn.Linear(3, 2)
    convert_model(model, "lns8f5")
    before = model.weight.codes.clone()
    optimizer = Madam(model.parameters())
    model(torch.ones(3)).sum().backward()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"a CUDA graph cannot record a step .* make_state\(for_graph=True\)"):
        optimizer.step()
    assert torch.equal(model.weight.codes, before)
    assert optimizer.state == {}


def test_offsets_on_cards_are_not_looked_at_for_other_processes(monkeypatch):
    """Torch calls all memory of cards shared."""
    monkeypatch.setattr(torch.Tensor, "is_shared", lambda tensor: True)
    assert others_have(torch.zeros(3))
    assert not others_have(torch.zeros(3, device="meta"))


@pytest.mark.parametrize("size", [None, 16])
def test_offsets_come_to_the_device_of_the_numbers(size):
    """Given from the host, as to `LNSWeight.from_float` of a tensor on a card."""
    x, offsets = torch.zeros(2, 40, device="meta"), torch.zeros(2, 3 if size else 1, dtype=torch.int32)
    weight = LNSWeight.from_float(x, "lns8f5", log_offset=offsets, group_size=size)
    assert weight.codes.is_meta
    scale = check_offset(offsets, x.shape, size or 0)
    assert codes.encode(x, lns8f5, scale).is_meta
    assert codes.decode(codes.encode(x, lns8f5, scale), lns8f5, scale, torch.float32).is_meta


# ----------------------------------------------------------------------------------------------- where there is none


def test_nothing_on_the_cpu_imports_triton():
    """Training and products: it may be there, and is left alone. (Torch's compiler imports it where it is there.)"""
    code = (
        "import sys, torch\n"
        "from lnsnum.torch_bridge import Madam, convert_model, use_weight_only\n"
        "model = torch.nn.Linear(8, 8)\n"
        "convert_model(model, 'lns8f5')\n"
        "model(torch.ones(2, 8)).sum().backward()\n"
        "Madam(model.parameters()).step()\n"
        "use_weight_only(model)\n"
        "with torch.inference_mode():\n"
        "    model(torch.ones(1, 8))\n"
        "loaded = [name for name in sys.modules if name.startswith('lnsnum.') and 'triton' in name]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize(
    ("device", "hip", "triton", "capability", "says"),
    [
        ("cpu", None, True, (9, 0), "run on NVIDIA cards, not on cpu"),
        ("mps", None, True, (9, 0), "run on NVIDIA cards, not on mps"),
        ("cuda", "6.0", True, (9, 0), "run on NVIDIA cards, not on ROCm"),
        ("cuda", None, False, (9, 0), "triton is not installed: pip install 'lnsnum[gpu]'"),
        ("cuda", None, True, None, "torch finds no graphics card"),
        ("cuda", None, True, (7, 5), "Old has compute capability 7.5, and Triton's kernels want 8.0 or newer"),
        ("cuda", None, True, (8, 0), None),
    ],
)
def test_what_is_missing_is_said(monkeypatch, device, hip, triton, capability, says):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(backends, "find_spec", lambda name: object() if triton else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old")
    where = torch.device(device)
    found = backends.missing_on.__wrapped__(where)
    if says is None:
        assert found is None
        return
    assert says in found
    monkeypatch.setattr(backends, "missing_on", backends.missing_on.__wrapped__)
    with pytest.raises(RuntimeError, match=re.escape(says)):
        backends.check_card(where)


def test_a_switch_leaves_the_work_to_torch(monkeypatch):
    monkeypatch.setenv(backends.SWITCH, "0")
    found = backends.missing_on.__wrapped__(torch.device("cuda"))
    assert found == "LNSNUM_TRITON=0 in the environment keeps Triton's kernels off: torch's operations do the same"
