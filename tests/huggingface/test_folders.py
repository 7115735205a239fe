"""`lnsnum convert MODEL_FOLDER OUT_FOLDER`."""

import json

import pytest
import torch
from command_line import run_command
from safetensors.torch import load_file, save_file
from tiny_pretrained import codes_of, made, transformers

transformers()

from transformers import AutoModelForCausalLM  # noqa: E402

from lnsnum.huggingface import LNSConfig  # noqa: E402
from lnsnum.huggingface.folders import convert_folder  # noqa: E402
from lnsnum.torch_bridge import convert_model  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("floats")
    made("Qwen").save_pretrained(folder, max_shard_size="20KB")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.onnx").write_bytes(b"")
    return folder


def test_a_folder_becomes_one_that_is_loaded_without_arguments(floats, tmp_path, capsys, monkeypatch):
    out = tmp_path / "codes"
    arguments = (floats, out, "--format", "lns8f4", "--per-channel", "--shard", "9KB", "--json")
    code, printed, told = run_command(capsys, monkeypatch, *arguments, command=["convert"])
    assert (code, told) == (0, "")
    expected = made("Qwen")
    reports = convert_model(expected, "lns8f4", per_channel=True)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert codes_of(model) == codes_of(expected)
    assert len(list(out.glob("*.safetensors"))) > 1
    content = json.loads(printed)
    assert {t["name"]: t["at_floor"] for t in content["tensors"]} == {p.name: p.at_floor for p in reports}
    assert content["total"] == {
        "bytes_before": sum(4 * p.numel() for p in expected.parameters()),
        "bytes_after": sum(p.nbytes for p in expected.parameters()),
    }
    assert (content["copied"], content["left_out"], content["left_float"]) == (["tokenizer.json"], ["model.onnx"], [])
    assert (out / "tokenizer.json").read_text() == "{}"


def test_the_table_has_a_row_for_each_parameter(floats, tmp_path, capsys, monkeypatch):
    code, printed, told = run_command(
        capsys, monkeypatch, floats, tmp_path / "out", "--format", "lns8f5", command=["convert"]
    )
    assert (code, told) == (0, "not copied: model.onnx")
    assert "model.layers.1.mlp.up_proj.weight (48x32) lns8f5" in " ".join(printed.split())
    size = sum(p.numel() for p in made("Qwen").parameters())
    assert f"24 in all, {4 * size / 1000:.1f} kB → {size / 1000:.1f} kB" in printed


def test_the_report_tells_of_the_folder(floats, tmp_path):
    report = convert_folder(floats, tmp_path / "out", LNSConfig("lns8f5"))
    lines = str(report).splitlines()
    assert lines[0].split() == [
        "name",
        "format",
        "log_offset",
        "rel.",
        "error",
        "ceiling",
        "floor",
        "zeros",
        "re-drawn",
    ]
    assert lines[-2:] == ["copied: tokenizer.json", "not copied: model.onnx"]
    size = sum(p.numel() for p in made("Qwen").parameters())
    assert lines[-3] == f"Qwen3ForCausalLM: {4 * size:,} bytes, {size:,} as codes"


def test_what_is_no_folder_of_a_model_is_refused_and_nothing_is_written(floats, tmp_path, capsys, monkeypatch):
    def refused(source, *options, out=tmp_path / "out"):
        code, _, told = run_command(capsys, monkeypatch, source, out, *options, command=["convert"])
        assert code == 2
        assert not (tmp_path / "out").exists()
        return told

    fmt = ("--format", "lns8f5")
    assert "--seed is for files" in refused(floats, *fmt, "--seed", "3")
    assert "give --format" in refused(floats)
    assert "fraction_bits" in refused(floats, "--format", "lns8f9")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    assert "is not empty" in refused(floats, *fmt, out=tmp_path / "full")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "it has no config.json" in refused(folder, *fmt)
    config = json.loads((floats / "config.json").read_text())
    made("Qwen").save_pretrained(folder)
    for entries, message in (
        ({"architectures": None}, "names no architecture"),
        ({"architectures": ["Nothing"]}, "is of Nothing, which transformers"),
        ({"quantization_config": {"quant_method": "lns"}}, "is quantized already"),
    ):
        (folder / "config.json").write_text(json.dumps(config | entries))
        assert message in refused(folder, *fmt)
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(folder / "model.safetensors")
    gone = {name: tensor for name, tensor in state.items() if name != "model.norm.weight"}
    save_file(gone, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lacks weights of Qwen3ForCausalLM: 'model.norm.weight'" in refused(folder, *fmt)
    state["model.norm.weight"] = torch.full((32,), torch.nan)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert "NaN or infinite" in refused(folder, *fmt)
