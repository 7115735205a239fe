"""ONNX: bytes, a cast and a look-up in the file, and the logits of the model, to float rounding, in ONNX Runtime."""

import os

import numpy as np
import pytest
import torch
from test_graphs import cnn, converted, mlp, transformer
from torch import nn

from lnsnum.torch_bridge import for_export

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'lnsnum[onnx]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'lnsnum[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'lnsnum[onnx]'")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the exporter's own
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("make", [mlp, cnn, transformer])
def test_onnx_runtime_gives_the_logits_to_rounding(make, per_channel, tmp_path):
    model, x = converted(make, per_channel=per_channel)
    exported = for_export(model)
    path = tmp_path / "model.onnx"
    # the exporter's optimizer would look the floats up, and write these
    torch.onnx.export(exported, (x,), path, dynamo=True, optimize=False, external_data=False, verbose=False)
    graph = onnx.load(path).graph
    words = {tuple(t.dims): t for t in graph.initializer if t.data_type == onnx.TensorProto.UINT8}
    kept = [module.parametrizations for module in exported.modules() if hasattr(module, "parametrizations")]
    codes = {id(part.original): part.original for parts in kept for part in parts.values()}
    assert sum(np.prod(dims) for dims in words) <= sum(t.numel() for t in codes.values())
    names = [node.op_type for node in graph.node]
    assert names.count("Gather") >= len(codes) > 0
    assert names.count("Cast") >= len(codes)
    for number in codes.values():
        stored = onnx.numpy_helper.to_array(words[tuple(number.shape)])
        assert stored.dtype == np.uint8
    with torch.no_grad():
        expected = model(x).numpy()
    for options in ({}, {"disabled_optimizers": ["ConstantFolding"]}):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"], **options)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert np.abs(found - expected).max() <= 1e-6 * max(np.abs(expected).max(), 1.0) * 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the exporter's own
def test_a_file_has_a_byte_a_weight(tmp_path):
    """And two kilobytes for each layer, and what the exporter notes down of where a node comes from."""
    model, x = converted(lambda: (nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512)), torch.ones(512)))
    path = tmp_path / "model.onnx"
    torch.onnx.export(for_export(model), (x,), path, dynamo=True, optimize=False, external_data=False, verbose=False)
    assert os.path.getsize(path) <= sum(p.numel() for p in model.parameters()) + 60_000


def test_a_model_with_lns_weights_is_refused_by_name(tmp_path):
    model, x = converted(mlp)
    with pytest.raises(RuntimeError, match=r"export lnsnum\.torch_bridge\.for_export\(model\)"):
        torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    assert list(tmp_path.iterdir()) == []
