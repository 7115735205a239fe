"""Core ML, OpenVINO and ExecuTorch: files of a byte a weight, whose numbers are exactly those of the codes.

The recipes of docs/deploy.md. None of the three is needed by anything else: without it its test skips.
"""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from lnsnum.torch_bridge import convert_model, decode_model, for_export

WIDTH = 512


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)).eval()
    convert_model(model, "lns8f5")
    return model


X = torch.linspace(-2.0, 2.0, WIDTH).reshape(1, WIDTH)


def bytes_a_weight(model, *paths):
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return sum(file.stat().st_size for file in files) / sum(p.numel() for p in model.parameters())


def decoded(model):
    with torch.no_grad():
        expected = model(X).numpy()
    return decode_model(model), expected


def imported(name):
    """A package; skips the test where it is missing or cannot be loaded. It may warn of torch's version and its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, exc_type=ImportError)


@pytest.mark.filterwarnings("ignore")
def test_core_ml_palettes_are_exact(model, tmp_path):
    """A palette of 256 numbers has all that a tensor of 8-bit codes has."""
    ct, cto = imported("coremltools"), imported("coremltools.optimize.coreml")
    plain, _ = decoded(model)
    traced = torch.jit.trace(plain, X)
    shape = [ct.TensorType(shape=X.shape)]
    target, precision = ct.target.iOS16, ct.precision.FLOAT32
    written = ct.convert(traced, inputs=shape, minimum_deployment_target=target, compute_precision=precision)
    unique = cto.OpPalettizerConfig(mode="unique")
    palettes = cto.palettize_weights(written, cto.OptimizationConfig(global_config=unique))
    palettes.save(str(tmp_path / "model.mlpackage"))
    assert bytes_a_weight(model, tmp_path / "model.mlpackage") < 1.03
    operations = cto.decompress_weights(palettes)._mil_program.functions["main"].operations
    arrays = [one.val.val for one in operations if one.op_type == "const"]
    for parameter in plain.parameters():
        expected = parameter.detach().numpy()
        assert any(np.array_equal(expected, array) for array in arrays if np.shape(array) == expected.shape)


@pytest.mark.filterwarnings("ignore")
def test_openvino_gathers_from_a_table(model, tmp_path):
    """Constants of float32 become a table and codes; the plugin for processors decodes them once, when it compiles."""
    ov, op = imported("openvino"), imported("openvino.opset15")
    plain, expected = decoded(model)
    network = ov.convert_model(torch.export.export(plain, (X,)))
    tables = 0
    for constant in network.get_ordered_ops():
        if constant.get_type_name() != "Constant" or constant.get_element_type() != ov.Type.f32:
            continue
        table, codes = np.unique(constant.data, return_inverse=True)
        if len(table) > 256 or constant.data.size < 4096:
            continue
        index = op.convert(op.constant(codes.reshape(constant.data.shape).astype(np.uint8)), "i32")
        gathered = op.gather(op.constant(table), index, op.constant(np.int64(0)))
        for target in constant.output(0).get_target_inputs():
            target.replace_source_output(gathered.output(0))
        tables += 1
    assert tables == 2
    ov.save_model(network, tmp_path / "model.xml", compress_to_fp16=False)
    assert bytes_a_weight(model, tmp_path / "model.xml", tmp_path / "model.bin") < 1.06
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    found = ov.Core().compile_model(tmp_path / "model.xml", "CPU", options)([X.numpy()])[0]
    assert np.abs(found - expected).max() <= 4e-6 * np.abs(expected).max()
    # and the weight itself
    first = ov.Core().compile_model(_first_weight(ov, op, network), "CPU", options)([])[0]
    assert np.array_equal(first, plain[0].weight.detach().numpy())


def _first_weight(ov, op, network):
    gather = next(one for one in network.get_ordered_ops() if one.get_type_name() == "Gather")
    return ov.Model([op.result(gather.output(0))], [], "weight")


@pytest.mark.filterwarnings("ignore")
def test_executorch_keeps_codes(model, tmp_path):
    """The exported program as it is, by the portable kernels: codes in the file, decoded at each use."""
    exir, runtime = imported("executorch.exir"), imported("executorch.runtime")
    program = exir.to_edge(torch.export.export(for_export(model), (X,))).to_executorch()
    (tmp_path / "model.pte").write_bytes(program.buffer)
    assert bytes_a_weight(model, tmp_path / "model.pte") < 1.03
    method = runtime.Runtime.get().load_program(tmp_path / "model.pte").load_method("forward")
    with torch.no_grad():
        expected = model(X)
    assert (method.execute([X])[0] - expected).abs().max() <= 4e-6 * expected.abs().max()
    alone = exir.to_edge(torch.export.export(for_export(_Weight(model[0])), (X,))).to_executorch()
    (tmp_path / "weight.pte").write_bytes(alone.buffer)
    method = runtime.Runtime.get().load_program(tmp_path / "weight.pte").load_method("forward")
    assert torch.equal(method.execute([X])[0], model[0].weight.to_float())


class _Weight(nn.Module):
    """A layer's weight as the output."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer.weight + 0.0 * x.sum()
