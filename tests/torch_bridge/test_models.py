"""Models as others write them: transformers' own, and idiomatic ones of torch's modules, tiny, with random weights.

The oracle of what a model computes is the decoded model, bit by bit. Training memorizes one batch; a resumed training
is compared with the one that was not interrupted, code by code.
"""

import copy
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_pretrained as tiny
import torch
from tiny_pretrained import CLASSES, VOCABULARY, gpt2, llama, training_arguments
from torch import nn
from torch.nn import functional as F

from lnsnum.torch_bridge import LNSWeight, Madam, convert_model, decode_model, load_model, save_model

torch.set_num_threads(1)

# torch's own: in inference, the encoder of nn.Transformer packs what is not padding into a nested tensor
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")

STEPS = 20


# --------------------------------------------------------------------------------------------------------------- models


def loss_and_logits(logits: torch.Tensor, labels: torch.Tensor, classes: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """What transformers' models return; `classes` is the dimension of the classes."""
    return F.cross_entropy(logits.movedim(classes, 1), labels), logits


class Translator(nn.Module):
    """torch's encoder-decoder between two embeddings and a head; padding is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Embedding(VOCABULARY, 32, padding_idx=0)
        self.target = nn.Embedding(VOCABULARY, 32, padding_idx=0)
        self.position = nn.Parameter(torch.randn(12, 32) * 0.1)
        self.transformer = nn.Transformer(32, 4, 2, 2, 64, dropout=0.1, batch_first=True)
        self.head = nn.Linear(32, VOCABULARY)

    def forward(self, source: torch.Tensor, target: torch.Tensor, labels: torch.Tensor) -> tuple[Any, Any]:
        hidden = self.transformer(
            self.source(source) + self.position[: source.shape[1]],
            self.target(target) + self.position[: target.shape[1]],
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(target.shape[1]),
            tgt_is_causal=True,
            src_key_padding_mask=source == 0,
            memory_key_padding_mask=source == 0,
        )
        return loss_and_logits(self.head(hidden), labels, -1)


class LSTMLanguageModel(nn.Module):
    """Embedding, two LSTM layers with dropout between them, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 24)
        self.lstm = nn.LSTM(24, 32, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(32, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, _ = self.lstm(self.embedding(tokens[:, :-1]))
        return loss_and_logits(self.head(hidden), tokens[:, 1:], -1)


class DoubleConvolution(nn.Sequential):
    def __init__(self, channels: int, out: int, norm: Callable[[int], nn.Module]) -> None:
        layers = [nn.Conv2d(channels, out, 3, padding=1, bias=False), norm(out), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Conv2d(out, out, 3, padding=1, bias=False), norm(out), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Ronneberger, Fischer, Brox, 2015: down twice, up twice, a skip at each level, a class for each pixel."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.down = nn.ModuleList([DoubleConvolution(3, 8, norm), DoubleConvolution(8, 16, norm)])
        self.bottom = DoubleConvolution(16, 32, norm)
        self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, stride=2), nn.ConvTranspose2d(16, 8, 2, stride=2)])
        self.join = nn.ModuleList([DoubleConvolution(32, 16, norm), DoubleConvolution(16, 8, norm)])
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, skips = pixel_values, []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([up(x), skips.pop()], dim=1))
        return loss_and_logits(self.head(x), labels)


TOKENS, IMAGES = tiny.TOKENS[:4], tiny.PICTURES
PICTURES = {"pixel_values": IMAGES, "labels": torch.arange(len(IMAGES)) % CLASSES}
SEGMENTS = {"pixel_values": IMAGES[:4], "labels": (IMAGES[:4].sum(1) > 0).long() + (IMAGES[:4, 0] > 1)}


@dataclass(frozen=True)
class Case:
    """A model, made anew by `make`, that given the batch returns its loss, its logits, and perhaps more."""

    make: Callable[[], nn.Module]
    batch: dict[str, torch.Tensor]
    ties: int = 0


MODELS = {
    "GPT-2": Case(gpt2, {"input_ids": TOKENS, "labels": TOKENS}, ties=1),
    "GPT-2 eager": Case(lambda: gpt2(attn_implementation="eager"), {"input_ids": TOKENS, "labels": TOKENS}, ties=1),
    "BERT": Case(
        tiny.bert,
        {"input_ids": TOKENS.where(TOKENS % 5 > 0, 3), "attention_mask": (TOKENS % 7 > 0).long(), "labels": TOKENS},
        ties=2,
    ),
    "ViT": Case(tiny.vit, PICTURES),
    "ResNet": Case(tiny.resnet, PICTURES),
    "nn.Transformer": Case(
        Translator, {"source": TOKENS.tril(8), "target": TOKENS.flip(1)[:, :-1], "labels": TOKENS.flip(1)[:, 1:]}
    ),
    "LSTM": Case(LSTMLanguageModel, {"tokens": TOKENS}),
    "U-Net BatchNorm": Case(lambda: UNet(nn.BatchNorm2d), SEGMENTS),
    "U-Net GroupNorm": Case(lambda: UNet(lambda channels: nn.GroupNorm(4, channels)), SEGMENTS),
}


# ---------------------------------------------------------------------------------------------------------------- tools


def made(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[name].make()


def converted(name: str, seed: int = 0) -> nn.Module:
    model = made(name, seed)
    convert_model(model, "lns8f5")
    return model


def ties(model: nn.Module) -> set[frozenset[str]]:
    """The names that share a parameter, for each parameter that has several."""
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(tied) for tied in names.values() if len(tied) > 1}


def codes(model: nn.Module) -> dict[str, tuple[torch.Tensor, int]]:
    """Every parameter's codes, copied, and its log_offset."""
    return {name: (p.codes.clone(), p.log_offset) for name, p in model.named_parameters()}


def assert_same_codes(model: nn.Module, other: nn.Module) -> None:
    found, expected = codes(model), codes(other)
    assert found.keys() == expected.keys()
    for name, (own, log_offset) in found.items():
        assert torch.equal(own, expected[name][0]), name
        assert log_offset == expected[name][1], name


def assert_moved_by_madam(model: nn.Module, before: dict[str, tuple[torch.Tensor, int]]) -> None:
    """Codes changed, and no scale but by whole octaves, upwards."""
    after = codes(model)
    assert after.keys() == before.keys()
    for name, (_, log_offset) in after.items():
        assert (log_offset - before[name][1]) in (0, 32, 64), name
    assert any(not torch.equal(own, before[name][0]) for name, (own, _) in after.items())


def assert_same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert type(tensor) is type(expected[name]) is torch.Tensor, name
        assert torch.equal(tensor, expected[name]), name
        if tensor.is_floating_point():
            assert torch.equal(tensor.signbit(), expected[name].signbit()), name


def logits(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In evaluation: with gradients, without, and in inference mode, where torch may choose other kernels."""
    model.eval()
    with torch.no_grad():
        without = model(**batch)[1]
    with torch.inference_mode():
        inference = model(**batch)[1]
    return {"logits": model(**batch)[1].detach(), "no_grad": without, "inference_mode": inference}


def gradients(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All that a training step computes: loss, logits, every gradient, and the buffers afterwards. Dropout is on."""
    model.train()
    model.zero_grad()
    torch.manual_seed(1)
    loss, outputs = model(**batch)[:2]
    loss.backward()
    named = {name: p.grad for name, p in model.named_parameters()}
    buffers = {f"buffer {name}": buffer.clone() for name, buffer in model.named_buffers()}
    return {"loss": loss.detach(), "logits": outputs.detach(), **named, **buffers}


def train(model: nn.Module, batch: dict[str, torch.Tensor]) -> list[float]:
    """The losses of the steps of Madam on one batch."""
    model.train()
    optimizer = Madam(model.parameters(), lr=0.05)
    torch.manual_seed(2)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(**batch)[0]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@dataclass(frozen=True)
class Trained:
    name: str
    batch: dict[str, torch.Tensor]
    before: nn.Module
    after: nn.Module
    losses: list[float]


@pytest.fixture(scope="module", params=MODELS)
def trained(request) -> Trained:
    """A converted model, a copy of it that was trained, and the losses; tests leave them as they are."""
    before = converted(request.param)
    after = copy.deepcopy(before)
    batch = MODELS[request.param].batch
    return Trained(request.param, batch, before, after, train(after, batch))


# ------------------------------------------------------------------------------------------------------- any model, all


def test_every_parameter_is_codes_and_tied_ones_stay_tied(trained):
    as_made = ties(made(trained.name))
    assert len(as_made) == MODELS[trained.name].ties
    for model in (trained.before, trained.after):
        assert all(isinstance(p, LNSWeight) for p in model.parameters())
        assert ties(model) == as_made
        assert ties(decode_model(copy.deepcopy(model))) == as_made


def test_training_memorizes_a_batch(trained):
    losses = trained.losses
    assert all(map(math.isfinite, losses))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert_moved_by_madam(trained.after, codes(trained.before))


def test_logits_and_gradients_are_those_of_the_decoded_model(trained):
    for model in (copy.deepcopy(trained.before), copy.deepcopy(trained.after)):
        decoded = decode_model(copy.deepcopy(model))
        assert not any(isinstance(p, LNSWeight) for p in decoded.parameters())
        assert_same_bits(logits(model, trained.batch), logits(decoded, trained.batch))
        assert_same_bits(gradients(model, trained.batch), gradients(decoded, trained.batch))


def test_a_weight_file_loads_into_a_float_model(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, trained.after)
    fresh = made(trained.name, seed=7)
    assert load_model(path, fresh) is fresh
    assert_same_codes(fresh, trained.after)
    assert ties(fresh) == ties(trained.after)
    expected = copy.deepcopy(trained.after)
    assert_same_bits(logits(fresh, trained.batch), logits(expected, trained.batch))
    assert_same_bits(gradients(fresh, trained.batch), gradients(expected, trained.batch))


def test_a_state_dict_loads_into_a_converted_model(trained):
    file = io.BytesIO()
    torch.save(trained.after.state_dict(), file)
    file.seek(0)
    fresh = converted(trained.name, seed=7)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert_same_codes(fresh, trained.after)
    assert ties(fresh) == ties(trained.after)
    expected = copy.deepcopy(trained.after)
    assert_same_bits(logits(fresh, trained.batch), logits(expected, trained.batch))
    assert_same_bits(gradients(fresh, trained.batch), gradients(expected, trained.batch))


# ------------------------------------------------------------------------------------- what transformers does to models


@pytest.mark.parametrize("how", [{"do_sample": False}, {"do_sample": True}, {"do_sample": False, "num_beams": 3}])
def test_generated_tokens_are_those_of_the_decoded_model(how):
    model = converted("GPT-2").eval()
    prompts = {"input_ids": TOKENS[:, :4], "attention_mask": torch.ones(4, 4, dtype=torch.long)}
    generated = []
    for each in (model, decode_model(copy.deepcopy(model))):
        torch.manual_seed(3)
        generated.append(each.generate(**prompts, max_new_tokens=8, **how))
    assert torch.equal(*generated)
    assert generated[0].shape[1] > 4


# transformers' own: 5.23 deprecates the name, and before that there is no other
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", ["GPT-2", "BERT", "ViT"])
def test_gradients_by_checkpointing_are_those_of_the_decoded_model(name):
    model, batch = converted(name), MODELS[name].batch
    decoded = decode_model(copy.deepcopy(model))
    for each in (model, decoded):
        each.gradient_checkpointing_enable()
    assert_same_bits(gradients(model, batch), gradients(decoded, batch))


def test_from_pretrained_then_convert_gives_the_codes_of_the_model_that_was_saved(tmp_path):
    model = made("GPT-2")
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    for each in (model, loaded):
        convert_model(each, "lns8f5")
    assert_same_codes(loaded, model)
    assert len(ties(loaded)) == 1


def test_the_decoded_model_is_saved_for_others(tmp_path):
    model = converted("BERT").eval()
    decode_model(copy.deepcopy(model)).save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert_same_bits(logits(loaded, MODELS["BERT"].batch), logits(model, MODELS["BERT"].batch))


# safetensors asks for torch's old storage class, which torch deprecates, when it finds no float memory
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
def test_save_pretrained_of_codes_is_refused(tmp_path):
    """It would write float memory, of which there is none."""
    with pytest.raises((RuntimeError, TypeError)):
        converted("GPT-2").save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_from_pretrained_misses_the_codes_of_a_weight_file(tmp_path):
    """It knows nothing of them, and reports missing and unexpected keys in the place of taking 90, 183 and 81 for
    weights; what is plain it reads."""
    torch.manual_seed(1)
    model = llama()
    convert_model(model, "lns8f5", group_size=20, filter_fn=lambda name, p: p.ndim > 1)
    model.config.save_pretrained(tmp_path)
    save_model(tmp_path / "model.safetensors", model)
    torch.manual_seed(2)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    coded = {name for name, p in model.named_parameters() if isinstance(p, LNSWeight)}
    assert set(info["missing_keys"]) == coded
    assert set(info["unexpected_keys"]) == {
        name + end for name in coded for end in (".lnsnum_codes", ".lnsnum_offsets")
    }
    for name, p in loaded.named_parameters():
        if name in coded:
            assert 0.0 < p.abs().max() < 1.0  # as transformers draws them
        else:
            assert torch.equal(p, model.get_parameter(name))


# -------------------------------------------------------------------------------------------------- Trainer, accelerate


TRAINER_STEPS = 24


def schedule(step: int) -> float:
    return 1 - step / (TRAINER_STEPS + 6)


def trainer_of(model: nn.Module, folder: Path, rows: torch.Tensor = TOKENS, **settings: Any) -> Any:
    """transformers' Trainer with Madam and a schedule; two rows are a batch, and Trainer shuffles them."""
    transformers = tiny.transformers()
    pytest.importorskip("accelerate")

    optimizer = Madam(model.parameters(), lr=0.05)
    arguments = training_arguments(folder, TRAINER_STEPS, logging_steps=1, **settings)
    return transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)),
    )


def logged(trainer: Any, what: str) -> list[float]:
    return [entry[what] for entry in trainer.state.log_history if what in entry]


@pytest.mark.parametrize("name", ["GPT-2", "BERT"])
def test_trainer_trains_codes_on_its_schedule(name, tmp_path):
    model = converted(name)
    before = codes(model)
    trainer = trainer_of(model, tmp_path, save_strategy="no")
    trainer.train()
    losses = logged(trainer, "loss")
    assert len(losses) == TRAINER_STEPS
    assert all(map(math.isfinite, losses))
    assert sum(losses[-2:]) < 0.95 * sum(losses[:2])
    assert logged(trainer, "learning_rate") == [0.05 * schedule(step) for step in range(TRAINER_STEPS)]
    assert all(isinstance(p, LNSWeight) for p in model.parameters())
    assert len(ties(model)) == MODELS[name].ties
    assert_moved_by_madam(model, before)


def test_trainer_takes_the_steps_of_a_plain_loop(tmp_path):
    """One row again and again, no dropout, gradients clipped as Trainer clips them: the same codes."""
    torch.manual_seed(0)
    model = gpt2(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    convert_model(model, "lns8f5")
    loop = copy.deepcopy(model)
    batch = TOKENS[:1]
    trainer_of(model, tmp_path, batch, save_strategy="no", max_grad_norm=0.5).train()
    optimizer = Madam(loop.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    for _ in range(TRAINER_STEPS):
        optimizer.zero_grad()
        loop(input_ids=batch, labels=batch, num_items_in_batch=batch.numel()).loss.backward()
        nn.utils.clip_grad_norm_(loop.parameters(), 0.5)
        optimizer.step()
        scheduler.step()
    assert_same_codes(model, loop)


def test_accelerate_saves_and_loads_codes(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = converted("LSTM")
    model, optimizer = accelerator.prepare(model, Madam(model.parameters()))

    def step() -> None:
        optimizer.zero_grad()
        torch.manual_seed(4)
        accelerator.backward(model(**MODELS["LSTM"].batch)[0])
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    step()
    accelerator.save_state(str(tmp_path), safe_serialization=False)
    step()
    expected = copy.deepcopy(model)
    step()
    accelerator.load_state(str(tmp_path))
    step()
    assert_same_codes(model, expected)
    accelerator.save_model(model, str(tmp_path / "model"), safe_serialization=False)
    for save in (accelerator.save_state, lambda folder: accelerator.save_model(model, folder)):
        with pytest.raises(TypeError, match="an LNSWeight has no float memory"):
            save(str(tmp_path / "safetensors"))
    other = converted("LSTM", seed=7)
    accelerate.load_checkpoint_in_model(other, str(tmp_path / "model"))
    assert_same_codes(other, model)
