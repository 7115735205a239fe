"""A language model: a small network, by default a transformer, that predicts the next character, or the next word.

Source: Vaswani et al., Attention is all you need, NeurIPS 2017, the decoder; normalization before each layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional as F

from lnsnum.tasks import TaskError
from lnsnum.tasks.language_networks import HEADS, LAYERS, WIDTH, GatedRecurrence, MixtureOfExperts
from lnsnum.tasks.measure import LOSS
from lnsnum.tasks.task import HELD_OUT, Batch, Task
from lnsnum.tasks.text import Text, Unit, tokenize

BATCH_SIZE = 16
LENGTH = 64
"""Tokens of a window; each is predicted from those before it in the window."""
TEST_WINDOWS = 256

LanguageNetwork = Literal["transformer", "gru", "experts"]


class Transformer(nn.Module):
    """Logits for the next token at each place.

    Args:
        vocabulary: tokens that there are.
        length: places at most.
    """

    def __init__(self, vocabulary: int, length: int = LENGTH) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, WIDTH)
        self.places = nn.Embedding(length, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, vocabulary)
        for draw in (self.tokens, self.places):
            nn.init.normal_(draw.weight, std=WIDTH**-0.5)
        # every layer starts as a copy of the first one: draw each anew
        for module in self.layers.modules():
            if isinstance(module, nn.MultiheadAttention):
                module._reset_parameters()
            elif isinstance(module, nn.Linear):
                module.reset_parameters()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, length) integers to (N, length, vocabulary) logits."""
        length = tokens.shape[1]
        x = self.tokens(tokens) + self.places.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        return self.head(self.layers(x, mask, is_causal=True))  # type: ignore[no-any-return]


class LanguageModel(Task):
    """Cross-entropy of the next token over random windows of 64; the score is that over the test part, in nats.

    Args:
        text: what to learn.
        unit: predict characters or words.
        network: "transformer", "gru" (a gated recurrent unit), or "experts" (a transformer of experts).
        steps: training steps when nobody says how many.
        device: where tensors are.
    """

    measure = LOSS

    def __init__(
        self,
        text: Text,
        unit: Unit,
        *,
        network: LanguageNetwork = "transformer",
        steps: int = 400,
        device: torch.device | str = "cpu",
    ) -> None:
        if network not in get_args(LanguageNetwork):
            raise TaskError(f"there is no network {network!r} of {unit}: {', '.join(get_args(LanguageNetwork))}")
        self.name, self.device, self.network_name = unit, torch.device(device), network
        tokens = tokenize(text, unit)
        for part, length in (("training", len(tokens.train)), ("test", len(tokens.test))):
            if length <= LENGTH:
                raise TaskError(f"{text.source}: {length} {unit} in its {part} part, more than {LENGTH} are needed")
        self.train_tokens, self.test_tokens = tokens.train.to(self.device), tokens.test.to(self.device)
        self.vocabulary = tokens.vocabulary
        self.source = (
            f"{text.source}: {len(tokens.train):,} {unit} to train on, {len(tokens.test):,} to test on, "
            f"{len(self.vocabulary)} different ones"
        )
        self.fingerprint = text.sha256
        self.epoch_steps = -(-len(tokens.train) // (BATCH_SIZE * LENGTH))
        self.steps = steps
        self.options = {"network": network}

    def network(self) -> nn.Module:
        """The network that was chosen; the transformers have two layers of 64 channels and four heads."""
        size = len(self.vocabulary) + 1
        if self.network_name == "gru":
            return GatedRecurrence(size).to(self.device)
        if self.network_name == "experts":
            return MixtureOfExperts(size, LENGTH).to(self.device)
        return Transformer(size).to(self.device)

    def _split(self, validation: Task) -> None:
        assert isinstance(validation, LanguageModel)
        tokens = self.train_tokens
        border = len(tokens) - len(tokens) // HELD_OUT
        if min(border, len(tokens) - border) <= LENGTH:
            raise TaskError(f"{self.source}: too short for a validation part: a sixth is to have more than {LENGTH}")
        for task in (self, validation):
            task.train_tokens = tokens[:border]
            task.epoch_steps = -(-border // (BATCH_SIZE * LENGTH))
        validation.test_tokens = tokens[border:]

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """16 windows that begin anywhere."""
        while True:
            yield self._windows(torch.randint(len(self.train_tokens) - LENGTH, (BATCH_SIZE,), generator=generator))

    def _windows(self, begins: torch.Tensor, *, test: bool = False) -> Batch:
        tokens = self.test_tokens if test else self.train_tokens
        windows = tokens[(begins[:, None] + torch.arange(LENGTH + 1)).to(self.device)]
        return Batch(windows[:, :-1], windows[:, 1:])

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of all places; of experts in training also how unevenly they are chosen."""
        imbalance: torch.Tensor | float = 0.0
        if isinstance(model, MixtureOfExperts) and model.training:
            logits, imbalance = model.with_imbalance(batch.inputs)
        else:
            logits = model(batch.inputs)
        return F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten()) + imbalance

    @torch.no_grad()
    def score(self, model: nn.Module) -> float:
        """Mean cross-entropy of up to 256 windows, evenly spread over the test part."""
        model.eval()
        begins = self._test_begins()
        losses = [self.loss(model, self._windows(part, test=True)).item() * len(part) for part in begins.split(64)]
        return sum(losses) / len(begins)

    def _test_begins(self) -> torch.Tensor:
        last = len(self.test_tokens) - LENGTH - 1
        return torch.linspace(0, last, min(TEST_WINDOWS, last // LENGTH + 1), dtype=torch.float64).long()

    @torch.no_grad()
    def outputs(self, model: nn.Module) -> torch.Tensor:
        """Logits of some test windows."""
        model.eval()
        return model(self._windows(self._test_begins()[:32], test=True).inputs)  # type: ignore[no-any-return]
