"""peft's LoRA over a base of codes: trained, saved, resumed, loaded, merged."""

import pytest
import torch
from tiny_pretrained import TINY, codes_of, made, training_arguments, transformers

transformers()
peft = pytest.importorskip("peft", reason="peft is not installed")

from transformers import Trainer  # noqa: E402

from lnsnum.huggingface import LNSConfig, merge_adapters, quantize_model  # noqa: E402
from lnsnum.torch_bridge import LNSWeight  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft's own
]

LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def base(**asked):
    model = made("Llama")
    quantize_model(model, LNSConfig(**asked))
    return model


def trainer_of(model, folder):
    arguments = training_arguments(folder, 4, save_steps=2, learning_rate=0.05)
    return Trainer(model=model, args=arguments, train_dataset=TINY["Llama"].rows())


def logits(model):
    with torch.no_grad():
        return model.eval()(**TINY["Llama"].batch()).logits


def test_adapters_are_trained_saved_resumed_and_loaded_beside_the_codes(tmp_path):
    expected = codes_of(base())
    model = peft.get_peft_model(base(), peft.LoraConfig(**LORA))
    trainer_of(model, tmp_path).train()
    assert sorted(codes_of(model).values(), key=str) == sorted(expected.values(), key=str)  # the base is as it was
    loaded = peft.PeftModel.from_pretrained(base(), tmp_path / "checkpoint-4")
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(loaded), logits(base()))
    resumed = peft.get_peft_model(base(), peft.LoraConfig(**LORA))
    trainer_of(resumed, tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert torch.equal(logits(resumed), logits(model))


@pytest.mark.parametrize("asked", [{}, {"per_channel": True}, {"group_size": 16}], ids=["one", "rows", "groups"])
def test_merging_fits_the_scale_to_the_sum(asked, tmp_path):
    """An adapter a hundred times as large as the weight leaves its range; the merged weight has the sum's."""
    model = peft.get_peft_model(base(**asked), peft.LoraConfig(**LORA))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    layers = {f"{name}.weight": m for name, m in model.named_modules() if hasattr(m, "lora_A")}
    sums = {n: m.base_layer.weight.to_float() + m.get_delta_weight("default").detach() for n, m in layers.items()}
    kinds = {n: (m.base_layer.weight.group_size, m.base_layer.weight.scale.groups) for n, m in layers.items()}
    offsets = {n: m.base_layer.weight.log_offset for n, m in layers.items()}
    merged, report = merge_adapters(model)
    assert [p.name for p in report] == list(sums)
    for p in report:
        weight = merged.get_parameter(p.name.removeprefix("base_model.model."))
        assert isinstance(weight, LNSWeight)
        assert (weight.group_size, weight.scale.groups) == kinds[p.name]
        error = (weight.to_float() - sums[p.name]).norm() / sums[p.name].norm()
        assert p.relative_error == pytest.approx(float(error), rel=1e-3)
        clipped = LNSWeight.from_float(
            sums[p.name], weight.fmt, log_offset=offsets[p.name], group_size=weight.group_size
        )
        assert p.relative_error < 0.15 < (clipped.to_float() - sums[p.name]).norm() / sums[p.name].norm()
    merged.save_pretrained(tmp_path)
    assert codes_of(type(merged).from_pretrained(tmp_path)) == codes_of(merged)


def test_what_cannot_be_merged_is_refused():
    with pytest.raises(TypeError, match="is a LlamaForCausalLM, and no PeftModel"):
        merge_adapters(base())
    dora = peft.get_peft_model(base(), peft.LoraConfig(**LORA, use_dora=True))
    with pytest.raises(ValueError, match="is no LoRA that is added to a weight"):
        merge_adapters(dora)


def test_an_adapter_is_merged_into_its_own_layers_beside_another():
    model = peft.get_peft_model(base(), peft.LoraConfig(**LORA | {"target_modules": ["q_proj"]}))
    model.add_adapter("other", peft.LoraConfig(**LORA | {"target_modules": ["v_proj"]}))
    model.base_model.set_adapter(["default", "other"])
    layers = [f"{name}.weight" for name, m in model.named_modules() if hasattr(m, "lora_A")]
    assert [p.name for p in merge_adapters(model)[1]] == layers


def test_an_adapter_with_a_bias_of_its_own_is_refused():
    """It would be left out of the sum."""
    model = base()
    owner = next(m for m in model.modules() if hasattr(m, "q_proj"))
    owner.q_proj.bias = torch.nn.Parameter(torch.zeros(owner.q_proj.out_features))
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=4, target_modules="model.layers.0.self_attn.q_proj", lora_bias=True)
    )
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.q_proj' is no LoRA that is added to a weight"):
        merge_adapters(model)
