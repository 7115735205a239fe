"""Models as others write them, unchanged, trained in a datapath: the loss falls, and a file has all that they are."""

import os

import pytest
import torch
from torch import nn
from torch.nn import functional

from lnsnum.torch_bridge import Madam, convert_model, load_model, save_model
from lnsnum.torch_bridge.datapath import Accumulator, datapath_of, use_datapath

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported: every model here is made from its config

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = torch.arange(4)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norms, self.head = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)]), nn.Linear(8, 4)

    def forward(self, x):
        h = self.norms[0](self.first(x)).relu()
        return self.head((h + self.norms[1](self.second(h))).relu().mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.layers = nn.Embedding(10, 16), nn.LSTM(16, 16, 2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, tokens):
        return self.head(self.layers(self.table(tokens))[0][:, -1])


def gpt2():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 50, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **drops, bos_token_id=0, eos_token_id=0))


def vit():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=4)
    )


def classified(model, x):
    return functional.cross_entropy(model(x), LABELS)


MODELS = {
    "gpt2": (gpt2, lambda model, x: model(x, labels=x).loss, lambda: torch.randint(50, (4, 12)), "float32"),
    "vit": (vit, lambda model, x: model(x, labels=LABELS).loss, lambda: torch.randn(4, 3, 16, 16), "float32"),
    "lstm": (Recurrent, classified, lambda: torch.randint(10, (4, 6)), Accumulator("lns12f6")),
    "resnet": (Residual, classified, lambda: torch.randn(4, 1, 8, 8), Accumulator("lns16f10")),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_train_unchanged(name, tmp_path):
    make, loss_of, data, accumulate = MODELS[name]
    torch.manual_seed(0)
    x, model = data(), make()
    convert_model(model, "lns8f5")
    # with an accumulator all else is in LNS too: recurrence, normalization, branches and the loss
    all_in_lns = accumulate != "float32"
    use_datapath(model, "lns_madam_8bit", accumulate=accumulate, elementwise=all_in_lns)
    optimizer, losses = Madam(model.parameters(), lr=0.03), []
    for _ in range(20):
        optimizer.zero_grad()
        with datapath_of(model) as path:
            loss = loss_of(model, x)
            loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert path.report().without_role == {}
    assert (path.report().in_float == {}) == all_in_lns
    model.eval()
    with torch.no_grad():
        expected = loss_of(model, x)
        save_model(tmp_path / "model.safetensors", model)
        loaded = load_model(tmp_path / "model.safetensors", make()).eval()
        assert torch.equal(loss_of(loaded, x), expected)
