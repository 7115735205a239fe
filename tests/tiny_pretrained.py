"""transformers' own models, tiny, made from their configs with random weights: nothing is downloaded."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from lnsnum.torch_bridge import LNSWeight

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

VOCABULARY, CLASSES = 61, 5
TOKENS = torch.randint(2, VOCABULARY, (6, 12), generator=torch.Generator().manual_seed(5))
PICTURES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(6))
ENDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER = {**SIZES, **ENDS, "vocab_size": VOCABULARY, "num_key_value_heads": 2}


def transformers() -> Any:
    """The library; tests that need it skip without."""
    return pytest.importorskip("transformers", minversion="5.24")


def training_arguments(folder: Any, steps: int, **settings: Any) -> Any:
    """Those of transformers' Trainer, for so many steps on the CPU; two rows are a batch, and nothing is shown."""
    return pytest.importorskip("transformers").TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **settings,
    )


def gpt2(**settings: Any) -> nn.Module:
    sizes = {"vocab_size": VOCABULARY, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return transformers().GPT2LMHeadModel(transformers().GPT2Config(**sizes, **ENDS, **settings))


def llama() -> nn.Module:
    return transformers().LlamaForCausalLM(transformers().LlamaConfig(**DECODER))


def qwen() -> nn.Module:
    return transformers().Qwen3ForCausalLM(transformers().Qwen3Config(**DECODER, head_dim=8, tie_word_embeddings=True))


def mixtral() -> nn.Module:
    config = transformers().MixtralConfig(**DECODER, num_local_experts=4, num_experts_per_tok=2)
    return transformers().MixtralForCausalLM(config)


def bert() -> nn.Module:
    config = transformers().BertConfig(**SIZES, vocab_size=VOCABULARY, max_position_embeddings=16)
    return transformers().BertForMaskedLM(config)


def vit() -> nn.Module:
    config = transformers().ViTConfig(**SIZES, image_size=16, patch_size=4, num_labels=CLASSES)
    return transformers().ViTForImageClassification(config)


def resnet() -> nn.Module:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "bottleneck"}
    return transformers().ResNetForImageClassification(transformers().ResNetConfig(num_labels=CLASSES, **sizes))


def t5() -> nn.Module:
    sizes = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return transformers().T5ForConditionalGeneration(
        transformers().T5Config(**sizes, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    )


@dataclass(frozen=True)
class Tiny:
    """A model that `make` makes, rows to train it on, and whether it generates tokens."""

    make: Callable[[], nn.Module]
    generates: bool = True
    sees: bool = False

    def rows(self) -> list[dict[str, torch.Tensor]]:
        if self.sees:
            return [{"pixel_values": x, "labels": torch.tensor(i % CLASSES)} for i, x in enumerate(PICTURES)]
        return [{"input_ids": row, "labels": row} for row in TOKENS]

    def batch(self) -> dict[str, torch.Tensor]:
        return {name: torch.stack([row[name] for row in self.rows()[:2]]) for name in self.rows()[0]}


TINY = {
    "GPT-2": Tiny(gpt2),
    "Llama": Tiny(llama),
    "Qwen": Tiny(qwen),
    "BERT": Tiny(bert, generates=False),
    "ViT": Tiny(vit, generates=False, sees=True),
    "T5": Tiny(t5),
    "Mixtral": Tiny(mixtral),
}


def made(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return TINY[name].make().eval()


def codes_of(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """Each weight's format, codes and scale, in a form that compares."""
    return {
        name: (p.fmt.name, p.codes.tolist(), torch.as_tensor(p.log_offset).tolist(), p.group_size)
        for name, p in model.named_parameters(remove_duplicate=False)
        if isinstance(p, LNSWeight)
    }
