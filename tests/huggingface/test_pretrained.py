"""`from_pretrained` and `save_pretrained` with LNSConfig. The oracle is `convert_model` of the model in floats."""

import copy
import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_pretrained import CLASSES, TINY, codes_of, made, transformers
from torch import nn

transformers()

import accelerate  # noqa: E402
import transformers.utils.hub as hub  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModel, AutoModelForCausalLM, BertForSequenceClassification  # noqa: E402

from lnsnum import LNSFormat  # noqa: E402
from lnsnum.huggingface import LNSConfig, quantize_model  # noqa: E402
from lnsnum.huggingface.parts import flat_state  # noqa: E402
from lnsnum.torch_bridge import LNSWeight, convert_model, decode_model  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

NOTHING_WRONG = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}


def told(info):
    """What a loader tells of keys, comparably."""
    return {key: set(value) if key.endswith("keys") else value for key, value in info.items() if value} or None


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A float folder for each model, made when it is asked for."""
    there = {}

    def folder(name):
        if name not in there:
            there[name] = tmp_path_factory.mktemp("floats")
            made(name).save_pretrained(there[name])
        return there[name]

    return folder


def logits(model, name):
    with torch.no_grad():
        return model.eval()(**TINY[name].batch()).logits


# --------------------------------------------------------------------------------------------------- every architecture


@pytest.mark.parametrize("name", TINY)
def test_a_float_folder_becomes_a_folder_of_codes_that_is_loaded_again(name, folders, tmp_path):
    """In several shards; tied weights stay tied, and what is computed is what the decoded model computes."""
    kind = type(made(name))
    model, info = kind.from_pretrained(folders(name), quantization_config=LNSConfig(), output_loading_info=True)
    assert told(info) is None
    expected = kind.from_pretrained(folders(name))
    convert_model(expected, "lns8f5")
    assert all(isinstance(p, LNSWeight) for p in model.parameters())
    assert codes_of(model) == codes_of(expected)
    assert len(list(model.parameters())) == len(list(expected.parameters()))  # tied ones counted once
    model.save_pretrained(tmp_path, max_shard_size="9KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert told(info) is None
    assert codes_of(again) == codes_of(model)
    assert len(list(again.parameters())) == len(list(model.parameters()))
    assert torch.equal(logits(again, name), logits(decode_model(expected), name))
    assert again.get_memory_footprint() == model.get_memory_footprint()
    codes = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    assert model.get_memory_footprint() == codes + buffers


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ({"per_channel": True}, {}),
        ({"group_size": 20, "modules_to_not_convert": ["lm_head"]}, {"dtype": torch.bfloat16, "device_map": "cpu"}),
        ({"format": "lns12f7", "modules_to_not_convert": ["model.layers.0"]}, {"device_map": "auto"}),
        ({"format": LNSFormat(6, 3)}, {"dtype": torch.float16}),
    ],
    ids=["channels", "groups", "wide", "narrow"],
)
def test_what_is_asked_is_in_the_folder(asked, given, folders, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folders("Llama"), quantization_config=LNSConfig(**asked), **given)
    left_out = tuple(asked.get("modules_to_not_convert", ["-"]))
    expected = made("Llama").to(given.get("dtype"))
    options = {name: asked[name] for name in ("per_channel", "group_size") if name in asked}
    convert_model(
        expected, asked.get("format", "lns8f5"), filter_fn=lambda name, p: not name.startswith(left_out), **options
    )
    assert codes_of(model) == codes_of(expected)
    assert len(codes_of(model)) < len(list(model.parameters())) or left_out == ("-",)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, **{k: v for k, v in given.items() if k != "dtype"})
    assert codes_of(again) == codes_of(expected)
    for name, p in again.named_parameters():
        assert p.dtype == given.get("dtype", torch.float32), name
        assert torch.equal(p.detach().clone(), expected.get_parameter(name).detach().clone()), name


@pytest.mark.parametrize("asked", [{}, {"per_channel": True}, {"group_size": 16}], ids=["one", "rows", "groups"])
def test_the_footprint_is_that_of_codes_and_scales_and_the_text_tells_of_them(asked, folders, tmp_path):
    """By the bytes in the file; a scale of the whole is a number of Python's."""
    model = AutoModelForCausalLM.from_pretrained(folders("Llama"), quantization_config=LNSConfig(**asked))
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    kept = sum(t.nbytes for name, t in stored.items() if t.ndim and not name.endswith(".lnsnum_format"))
    buffers = sum(b.nbytes for b in model.buffers())
    floats = made("Llama").get_memory_footprint()
    for one in (model, AutoModelForCausalLM.from_pretrained(tmp_path), copy.deepcopy(model)):
        assert one.get_memory_footprint() == kept + buffers < 0.5 * floats
        assert one.get_memory_footprint(return_buffers=False) == kept
        ends = {"per_channel": " per channel", "group_size": " in groups of 16"}
        how = f"weight=lns8f5{ends[next(iter(asked))] if asked else ''})"
        assert f"(q_proj): Linear(in_features=32, out_features=32, bias=False, {how}" in str(one)
        one.dequantize()
        assert one.get_memory_footprint() == floats
        assert "lns" not in str(one)


@pytest.mark.parametrize("asked", [{"scale": "mse", "group_size": 20}, {"p_scale": 2.5}, {"scale": "max"}], ids=str)
def test_the_rule_of_a_scale_is_in_the_folder(asked, folders, tmp_path):
    """A weight that is loaded takes floats that are written into it as one that was converted does."""
    model = AutoModelForCausalLM.from_pretrained(folders("Llama"), quantization_config=LNSConfig(**asked))
    expected = made("Llama")
    convert_model(expected, "lns8f5", **asked)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    rules = {name: p.fit for name, p in expected.named_parameters()}
    for one in (model, again, copy.deepcopy(again)):
        assert codes_of(one) == codes_of(expected)
        assert {name: p.fit for name, p in one.named_parameters()} == rules
    floats = made("Llama", seed=3).state_dict()
    for one in (again, expected):
        one.load_state_dict(floats)
    assert codes_of(again) == codes_of(expected)


def test_floats_that_are_loaded_are_encoded_as_conversion_encodes_them(folders, tmp_path):
    """Also by a model that was loaded as codes, whose modules nobody converted."""
    AutoModelForCausalLM.from_pretrained(folders("Llama"), quantization_config=LNSConfig()).save_pretrained(tmp_path)
    model, floats = AutoModelForCausalLM.from_pretrained(tmp_path), made("Llama", seed=3)
    model.load_state_dict(floats.state_dict())
    convert_model(floats, "lns8f5")
    assert codes_of(model) == codes_of(floats)


def test_a_weight_that_is_tied_to_one_that_is_left_out_is_left_out(folders):
    model = AutoModelForCausalLM.from_pretrained(
        folders("Qwen"), quantization_config=LNSConfig(modules_to_not_convert=["lm_head"])
    )
    assert not isinstance(model.model.embed_tokens.weight, LNSWeight)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert isinstance(model.model.norm.weight, LNSWeight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_a_model_keeps_in_float32_appears_so_again(dtype, folders, tmp_path):
    kind = type(made("T5"))
    floats = kind.from_pretrained(folders("T5"), dtype=dtype)
    kept = {name: p.dtype for name, p in floats.named_parameters()}
    assert (torch.float32 in kept.values()) == (dtype == torch.float16)
    model = kind.from_pretrained(folders("T5"), dtype=dtype, quantization_config=LNSConfig())
    model.save_pretrained(tmp_path)
    again = kind.from_pretrained(tmp_path, dtype=dtype)
    assert {name: p.dtype for name, p in again.named_parameters()} == kept
    assert codes_of(again) == codes_of(model)


# ------------------------------------------------------------------------------------------------------- heads, loaders


def test_a_new_head_is_converted_and_one_of_another_size_is_made_anew(folders, tmp_path):
    kind = BertForSequenceClassification
    model = kind.from_pretrained(folders("BERT"), quantization_config=LNSConfig(), num_labels=3)
    assert all(isinstance(p, LNSWeight) for p in model.parameters())
    model.save_pretrained(tmp_path)
    for folder, config in ((tmp_path, None), (tmp_path / "floats", LNSConfig())):
        with pytest.raises(RuntimeError, match="mismatch"):
            kind.from_pretrained(folder, num_labels=CLASSES, quantization_config=config)
        wider, info = kind.from_pretrained(
            folder,
            num_labels=CLASSES,
            quantization_config=config,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        assert {key[0] for key in info["mismatched_keys"]} == {"classifier.weight", "classifier.bias"}
        assert wider.classifier.weight.shape == (CLASSES, 32)
        shared = {name: code for name, code in codes_of(model).items() if not name.startswith("classifier")}
        assert shared.items() <= codes_of(wider).items()
        copy.deepcopy(model).dequantize().save_pretrained(tmp_path / "floats")


def test_the_base_of_a_model_is_loaded_from_its_folder(folders, tmp_path):
    quantized = AutoModelForCausalLM.from_pretrained(folders("Llama"), quantization_config=LNSConfig())
    quantized.save_pretrained(tmp_path)
    base = AutoModel.from_pretrained(tmp_path)
    assert codes_of(base) == codes_of(quantized.model)


def test_a_loader_that_knows_nothing_of_codes_misses_every_weight(folders, tmp_path):
    AutoModelForCausalLM.from_pretrained(folders("Llama"), quantization_config=LNSConfig()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    names = {name for name, _ in made("Llama").named_parameters()}
    assert set(info["missing_keys"]) == names
    ends = (".lnsnum_codes", ".lnsnum_offsets", ".lnsnum_format")
    assert set(info["unexpected_keys"]) == {name + end for name in names for end in ends}


def test_push_to_hub_uploads_the_folder_in_shards_and_ties_stay(folders, tmp_path, monkeypatch):
    """The hub is a folder."""
    (tmp_path / "README.md").write_text("---\n---\n")

    class Hub:
        def create_repo(self, repo_id, **kwargs):
            return SimpleNamespace(repo_id=repo_id)

        def create_commit(self, repo_id, operations, **kwargs):
            for operation in operations:
                data = Path(operation.path_or_fileobj).read_bytes()
                (tmp_path / operation.path_in_repo).write_bytes(data)

    card = SimpleNamespace(save=lambda path: None)
    monkeypatch.setattr(hub, "hf_api", Hub)
    monkeypatch.setattr(hub, "create_and_tag_model_card", lambda *args, **kwargs: card)
    model = AutoModelForCausalLM.from_pretrained(folders("GPT-2"), quantization_config=LNSConfig())
    model.push_to_hub("somebody/codes", max_shard_size="9KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again = AutoModelForCausalLM.from_pretrained(tmp_path, device_map="auto", dtype=torch.bfloat16)
    assert codes_of(again) == codes_of(model)
    assert again.lm_head.weight is again.transformer.wte.weight
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}


# -------------------------------------------------------------------------------------------- models that are there


def test_a_model_from_its_config_is_quantized_saved_and_decoded(tmp_path):
    model, expected = made("Mixtral"), made("Mixtral")
    report = quantize_model(model, LNSConfig(modules_to_not_convert=["mlp.gate"]))
    assert {name for name in report.left_float if "gate" not in name} == set()
    assert len(report.left_float) == 2
    convert_model(expected, "lns8f5", filter_fn=lambda name, p: not name.endswith("mlp.gate.weight"))
    assert codes_of(model) == codes_of(expected)
    model.save_pretrained(tmp_path / "codes")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "codes")
    assert codes_of(again) == codes_of(expected)
    before = logits(again, "Mixtral")
    again.dequantize().save_pretrained(tmp_path / "floats")
    floats = AutoModelForCausalLM.from_pretrained(tmp_path / "floats")
    assert not codes_of(floats)
    assert torch.equal(logits(floats, "Mixtral"), before)
    assert "quantization_config" not in json.loads((tmp_path / "floats" / "config.json").read_text())


def test_codes_are_decoded_to_the_dtype_that_is_asked_for():
    """Those that appear as bfloat16 give floats of more bits, and tied weights stay tied."""
    model = made("Qwen").to(torch.bfloat16)
    quantize_model(model)
    expected = {name: p.to_float(torch.float32) for name, p in model.named_parameters()}
    model.dequantize(torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for name, p in model.named_parameters():
        assert torch.equal(p, expected[name]), name
    assert not torch.equal(model.lm_head.weight, model.lm_head.weight.bfloat16())


def test_models_are_copied_and_pickled_with_what_guards_them():
    model = made("Llama")
    quantize_model(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert codes_of(other) == codes_of(model)
        with pytest.raises(RuntimeError, match="lacks 21 of the model's 21 parameters"):
            other.load_state_dict({}, strict=False)


@pytest.mark.parametrize("name", ["Llama", "Qwen"])
def test_accelerate_dispatches_and_offloads_codes(name):
    """Every weight stays its own, also where some are tied, and the logits are the same."""
    model = made(name)
    quantize_model(model)
    before, expected = codes_of(model), logits(model, name)
    dispatched = accelerate.dispatch_model(copy.deepcopy(model), {"": "cpu"}, force_hooks=True)
    assert codes_of(dispatched) == before
    assert torch.equal(logits(dispatched, name), expected)
    offloaded = accelerate.cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
    assert all(p.is_meta for p in offloaded.parameters())
    assert torch.equal(logits(offloaded, name), expected)


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A quantized model and its state, as its file has it."""
    folder = tmp_path_factory.mktemp("codes")
    model = made("Llama")
    quantize_model(model, LNSConfig("lns6f3"))
    model.save_pretrained(folder)
    return model, folder, load_file(folder / "model.safetensors")


NORM = "model.norm.weight"


def test_the_state_of_a_file_is_loaded_whole_or_not_at_all(saved):
    model, _, state = saved
    other = made("Llama", seed=1)
    quantize_model(other, LNSConfig("lns6f3"))
    other.load_state_dict(state, strict=False)
    assert codes_of(other) == codes_of(model)
    kept = codes_of(other)
    parts = {name: tensor for name, tensor in state.items() if name.startswith(NORM)}
    assert len(parts) == 3
    for bad, message in (
        (
            {k: v for k, v in state.items() if k not in parts},
            "lacks 1 of the model's 21 parameters .'model.norm.weight'",
        ),
        (parts, "lacks 20 of the model's 21 parameters"),
        ({f"module.{k}": v for k, v in state.items()}, "lacks 21 of the model's 21"),
        ({k: v for k, v in state.items() if not k.endswith("norm.weight.lnsnum_format")}, "lacks .*lnsnum_format"),
        (
            {**state, f"{NORM}.lnsnum_format": torch.tensor(list(b"lns6f2"), dtype=torch.uint8)},
            "has 'model.norm.weight' as lns6f2, and the model as lns6f3",
        ),
        ({**state, f"{NORM}.lnsnum_format": torch.tensor(list(b"lns6x2"), dtype=torch.uint8)}, "'lns6x2'"),
        ({**state, f"{NORM}.lnsnum_format": torch.tensor(list(b"lns12f4"), dtype=torch.uint8)}, "are of uint16"),
        *(
            ({**state, f"{NORM}.lnsnum_format": torch.tensor(list(text), dtype=torch.uint8)}, "is no rule of a scale")
            for text in (b"lns6f3 ", b"lns6f3 mse", b"lns6f3 mse x", b"lns6f3 mse nan", b"lns6f3 other 3.0")
        ),
        ({**state, f"{NORM}.lnsnum_codes": torch.full((32,), 64, dtype=torch.uint8)}, "code 64 is outside lns6f3"),
        ({**state, f"{NORM}.lnsnum_offsets": torch.tensor(0.5)}, "of int32, not torch.float32"),
        ({**state, f"{NORM}.lnsnum_offsets": torch.zeros(5, dtype=torch.int32)}, NORM),
    ):
        with pytest.raises((RuntimeError, ValueError), match=message):
            other.load_state_dict(bad, strict=False)
        assert codes_of(other) == kept


KINDS = {
    "one": {},
    "format": {"format": "lns8f4"},
    "rows": {"per_channel": True},
    "groups of 16": {"group_size": 16},
    "float": {"modules_to_not_convert": ["model.embed_tokens", "lm_head"]},
}


def test_codes_are_loaded_as_the_codes_that_they_are_or_not_at_all():
    """Whatever differs between the checkpoint and the model: nothing is encoded a second time, and nothing changed."""
    states = {}
    for kind, asked in KINDS.items():
        model = made("Llama", seed=1)
        quantize_model(model, LNSConfig(**asked))
        states[kind] = codes_of(model), flat_state(model)
    for kind, asked in KINDS.items():
        for other, (codes, state) in states.items():
            model = made("Llama")
            quantize_model(model, LNSConfig(**asked))
            before = codes_of(model)
            if kind == other:
                model.load_state_dict(dict(state), strict=False)
                assert codes_of(model) == codes
                continue
            with pytest.raises(ValueError, match=r"has 'model\.embed_tokens\.weight' as .*, and the model"):
                model.load_state_dict(dict(state), strict=False)
            assert codes_of(model) == before, (kind, other)


def test_a_state_without_a_buffer_is_refused():
    """Running statistics are as much of a model as its weights; what a state never holds is not asked for."""
    model = made("Llama")
    model.lm_head.register_buffer("statistics", torch.ones(3))
    model.lm_head.register_buffer("scratch", torch.ones(3), persistent=False)
    quantize_model(model)
    state = flat_state(model)
    model.load_state_dict(dict(state), strict=False)
    del state["lm_head.statistics"]
    with pytest.raises(RuntimeError, match=r"lacks 1 of the model's 22 parameters and buffers \('lm_head\.statistics'"):
        model.load_state_dict(state, strict=False)


def test_codes_without_their_config_are_not_made_anew(saved, tmp_path):
    """Every weight would be: a warning of transformers, and a model of random numbers."""
    model, _, _ = saved
    model.save_pretrained(tmp_path, max_shard_size="9KB")
    config = json.loads((tmp_path / "config.json").read_text())
    del config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"has codes already, .*, of which its config.json does not tell"):
        AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=LNSConfig("lns6f3"))


def test_a_file_with_damaged_parts_is_refused_by_from_pretrained(saved, tmp_path):
    _, folder, state = saved
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    bad = {name: tensor for name, tensor in state.items() if name != f"{NORM}.lnsnum_offsets"}
    save_file(bad, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match="conversion"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_adapters_alone_are_loaded_beside_the_base():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = made("Llama")
            quantize_model(self.base)
            self.base.lm_head.adapter = nn.Linear(2, 2)

    wrapper = Wrapper()
    before = codes_of(wrapper)
    new = {f"base.lm_head.adapter.{name}": torch.ones(shape) for name, shape in (("weight", (2, 2)), ("bias", 2))}
    wrapper.load_state_dict(new, strict=False)
    assert codes_of(wrapper) == before
    assert wrapper.base.lm_head.adapter.weight.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "lns8f9"}, "fraction_bits"),
        ({"format": "lns32f23"}, "16"),
        ({"group_size": 7}, "16"),
        ({"per_channel": 1}, "no bool"),
        ({"scale": "output"}, "no rule of a scale: rms, max or mse"),
        ({"p_scale": -1.0}, "headroom greater than 0"),
        ({"p_scale": "3"}, "no number"),
        ({"scale": "mse", "p_scale": 2.0}, "leave it out"),
        ({"modules_to_not_convert": "lm_head"}, "give a list"),
        ({"fmt": "lns8f5"}, "does not know fmt"),
        ({"quant_method": "other"}, "'other'"),
    ],
)
def test_a_config_says_what_is_wrong(arguments, message):
    with pytest.raises((TypeError, ValueError, NotImplementedError), match=message):
        LNSConfig(**arguments)


def test_what_cannot_be_quantized_is_refused(folders):
    with pytest.raises(TypeError, match=r"none of transformers: take lnsnum\.torch_bridge\.convert_model"):
        quantize_model(nn.Linear(2, 2))
    model = made("Llama")
    quantize_model(model)
    with pytest.raises(ValueError, match="quantized already"):
        quantize_model(model)
    with pytest.raises(ValueError, match="leaves nothing"):
        quantize_model(made("Llama"), LNSConfig(modules_to_not_convert=["model", "lm_head"]))
    with pytest.raises(ValueError, match="'lm_heads' is no module of LlamaForCausalLM"):
        AutoModelForCausalLM.from_pretrained(
            folders("Llama"), quantization_config=LNSConfig(modules_to_not_convert=["lm_heads"])
        )
    with pytest.raises(ValueError, match="on the disk"):
        AutoModelForCausalLM.from_pretrained(
            folders("Llama"), quantization_config=LNSConfig(), device_map={"model": "cpu", "lm_head": "disk"}
        )
