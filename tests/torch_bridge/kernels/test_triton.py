"""Triton's kernels without a card: in Triton's interpreter, and as the PTX that its compiler makes of them for cards.

The interpreter runs the tests of `on_cards` in a process of its own, which asks for it before triton is imported. What
it cannot see is in the PTX: products that are fused with sums, approximations, and reads of one element at a time.
"""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lnsnum import lns8f5, lns12f6
from lnsnum.torch_bridge.kernels import backends
from lnsnum.torch_bridge.kernels.random_words import Draw
from lnsnum.torch_bridge.kernels.scale import Scale
from lnsnum.torch_bridge.kernels.update import Choices, StepScalars

HERE = Path(__file__).parent


def needs_triton():
    return pytest.importorskip("triton", reason="triton is not installed: pip install --no-deps triton")


@pytest.mark.parametrize("name", ["codes", "update", "products", "bridge_on_cards"])
def test_the_interpreter_gives_the_bits_of_the_cpu(name):
    reason = "older interpreters cannot count a loop under NumPy 2.4: pip install --no-deps 'triton>=3.9'"
    pytest.importorskip("triton", minversion="3.9", reason=reason)
    (path,) = HERE.glob(f"on_cards/test_{name}*.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--show-capture=no"]
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    ran = subprocess.run([*command, str(path)], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert re.search(r"\d+ passed", ran.stdout)


# ----------------------------------------------------------------------------------------------------------------- PTX


def test_the_examples_in_the_kernels_are_right():
    needs_triton()
    from lnsnum.torch_bridge.kernels import codes_triton, products_triton, triton_launch, update_triton

    results = [doctest.testmod(module) for module in (codes_triton, products_triton, triton_launch, update_triton)]
    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0


def scalars():
    return StepScalars(*(1.0 for _ in StepScalars._fields))


def step(choices=None, *, momentum=False, units=1, fmt=lns8f5, dtype=torch.float32, size=1 << 16):
    from lnsnum.torch_bridge.kernels import update_triton

    codes = torch.zeros(size, dtype=torch.uint8 if fmt.bits <= 8 else torch.int16)
    weight = update_triton.Stepped(
        codes, torch.zeros(size, dtype=dtype), torch.zeros(size, dtype=torch.uint8),
        torch.zeros(size, dtype=torch.uint8) if momentum else None, torch.ones(units), 64, scalars(), Draw(0, 0, 1),
    )  # fmt: skip
    update_triton.step_list([weight], fmt, choices or Choices())


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
    "encode": lambda: encode(),
    "encode, bfloat16, channels": lambda: encode("toward_zero", torch.bfloat16, CHANNELS),
    "encode, stochastic_log": lambda: encode("stochastic_log"),
    "encode, stochastic_value": lambda: encode("stochastic_value"),
    "step": lambda: step(),
    "step, all": lambda: step(Choices(zero="keep"), momentum=True, units=1024, fmt=lns12f6, dtype=torch.bfloat16),
    "step, paper": lambda: step(Choices("paper", "stochastic_value", "leave"), momentum=True),
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
    from lnsnum.torch_bridge.kernels import codes_triton, products_triton, update_triton

    found = []
    for module in (codes_triton, update_triton, products_triton):
        for kernel in KERNELS[module.__name__.rpartition(".")[2]]:
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
        assert re.findall(r"\b(?:add|sub|mul)\.f32", ptx) == []
    first = found[0]
    read, written = (re.findall(rf"{how}\.global\S*\.v[24]\.", first) for how in ("ld", "st"))
    if name != "product by columns":  # which reads a row of some columns at a time
        assert read
    if not name.startswith("product"):
        assert written
    if name.startswith("step"):
        assert first.count("div.rn.f32") > 0
        assert first.count("sqrt.rn.f32") > 0


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
