"""Others' ways of training in few bytes: what is held, what is computed, that they learn, and the same twice."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lnsnum.tasks.footprint import gradients_held, held
from lnsnum.tasks.language import LENGTH, LanguageModel
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.text import Text
from lnsnum.tasks.training import start, train

pytestmark = pytest.mark.usefixtures("one_thread")

INT8 = Recipe("int8", "adamw8bit", lr=0.01)
STOCHASTIC = Recipe("bfloat16", "adamw", lr=0.01, rounding="stochastic_value")
KAHAN = replace(STOCHASTIC, rounding="kahan")
PACKAGES = {INT8: "torchao.optim", STOCHASTIC: "torchao.optim", KAHAN: "optimi"}


class Network(nn.Module):
    """Layers of several kinds: what is converted is used by each in its own way."""

    def __init__(self):
        super().__init__()
        self.tokens, self.recurrence = nn.Embedding(7, 64), nn.GRU(64, 64, batch_first=True)
        self.attention, self.norm = nn.MultiheadAttention(64, 2, batch_first=True), nn.LayerNorm(64)
        self.wide, self.head = nn.Linear(64, 128), nn.Linear(128, 7)

    def forward(self, tokens):
        x, _ = self.recurrence(self.tokens(tokens))
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.head(self.wide(x).relu())


def made(recipe, seed=0):
    if recipe in PACKAGES:
        pytest.importorskip(PACKAGES[recipe])
    torch.manual_seed(seed)
    model = Network()
    return model, recipe.prepare(model, seed)


def stepped(recipe, steps, seed=0):
    """The losses of a network that is to repeat its tokens, and the network."""
    model, optimizer = made(recipe, seed)
    schedule = recipe.scheduler(optimizer, steps)
    tokens, losses = torch.randint(7, (16, 12), generator=torch.Generator().manual_seed(0)), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses, model, optimizer


@pytest.mark.parametrize("recipe", PACKAGES, ids=str)
def test_they_learn_and_twice_the_same(recipe):
    first, model, _ = stepped(recipe, 12)
    again, same, _ = stepped(recipe, 12)
    assert first[-1] < 0.6 * first[0]
    assert first == again
    assert all(torch.equal(a * 1.0, b * 1.0) for a, b in zip(model.parameters(), same.parameters(), strict=True))


def test_bytes_of_bfloat16():
    for recipe, moments in ((STOCHASTIC, 2), (KAHAN, 3)):
        _, model, optimizer = stepped(recipe, 1)
        count = sum(p.numel() for p in model.parameters())
        weights, state = held(model, optimizer)
        assert (weights, gradients_held(model)) == (2 * count, 2 * count)
        assert moments * 2 * count <= state < moments * 2 * count + 100  # and the counts of steps
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_bytes_of_int8():
    """By hand: torchao's linear layers but for that in the attention, a byte a weight and a float a row; moments of
    tensors of 4,096 and more by blocks of 256, a byte each, a float a block, and a table of 256 floats."""
    _, model, optimizer = stepped(INT8, 1)
    linear = {model.wide.weight: 64 * 128 + 4 * 128, model.head.weight: 128 * 7 + 4 * 7}
    weights, state = held(model, optimizer)
    assert weights == sum(linear[p] if p in linear else 4 * p.numel() for p in model.parameters())
    sizes = [p.numel() for p in model.parameters()]
    of_moments = sum(n + 4 * (n // 256) + 1024 if n >= 4096 and n % 256 == 0 else 4 * n for n in sizes)
    assert state == 2 * of_moments + 4 * len(sizes)
    assert gradients_held(model) == 4 * sum(sizes)


def test_bfloat16_weights_are_computed_with_in_float32():
    model, _ = made(STOCHASTIC)
    torch.manual_seed(0)
    plain = Network()
    with torch.no_grad():
        for p in plain.parameters():
            p.copy_(p.bfloat16())
    tokens = torch.arange(6)[None]
    assert torch.equal(model(tokens), plain(tokens))


def test_integers_after_a_convolution_under_autocast():
    """As of CIFAR-10: what the linear layer is given is bfloat16, and its gradient float32."""
    pytest.importorskip("torchao.optim")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    optimizer = INT8.prepare(model, 0)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(torch.eye(4)[None, None]).float(), torch.tensor([2]))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_small_steps_are_not_lost():
    """A weight of 1 that is to fall by 0.001 at each of 500 steps: to nearest, bfloat16 would keep the 1."""
    for recipe in (STOCHASTIC, KAHAN):
        pytest.importorskip(PACKAGES[recipe])
        torch.manual_seed(0)
        model = nn.Linear(32, 8, bias=False)
        nn.init.ones_(model.weight)
        optimizer = replace(recipe, lr=0.001).prepare(model, 0)
        for _ in range(500):
            optimizer.zero_grad()
            model.weight.sum().backward()
            optimizer.step()
        assert model.weight.detach().float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_a_package_that_is_not_there_is_named(monkeypatch):
    import sys

    for module, recipe, name in (("torchao.optim", INT8, "torchao"), ("optimi", KAHAN, "torch-optimi")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=f"^this way of training is {name}'s: pip install 'lnsnum\\[bench\\]'$"):
            recipe.prepare(Network(), 0)


def test_a_language_model_of_experts_trains_so():
    """Stacks of experts and places are no layers: what is converted is found all the same."""
    pytest.importorskip("torchao.optim")
    text = Text("".join(f"{n} times {n % 7} is {n * (n % 7)}.\n" for n in range(300)), "by hand", "0" * 64)
    task = LanguageModel(text, "characters", network="experts")
    for recipe in (INT8, STOCHASTIC):
        model, optimizer = start(task, recipe, 0)
        *_, history = train(task, model, optimizer, recipe, steps=4, seed=0)
        assert history.loss[-1] < history.loss[0]
        assert task.outputs(model).shape[1] == LENGTH
