"""A long-range copy: a recurrent network reads a few symbols, then nothing for long, and then has to repeat them.

    inputs    s_1 .. s_K   blank x DELAY   go x K
    targets                                s_1 .. s_K

What it must keep passes through DELAY steps of the recurrence, where gradients vanish or explode.

Source: Hochreiter, Schmidhuber, Long short-term memory, Neural Computation 1997, and Gers, Schmidhuber, Cummins,
Learning to forget, Neural Computation 2000, for the network; Arjovsky, Shah, Bengio, Unitary evolution recurrent neural
networks, ICML 2016, for the task.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from lnsnum.tasks.measure import MEASURES
from lnsnum.tasks.task import Batch, Task, fingerprint

SYMBOLS, LENGTH = 8, 4
BLANK, GO = SYMBOLS, SYMBOLS + 1
DELAY = 20
HIDDEN = 64
FORGET_BIAS = 1.0
"""Added to the bias of the forget gates, so that they begin open."""
BATCH_SIZE = 64
TEST_SEQUENCES = 1000
_TEST_SEED, _VALIDATION_SEED = 2**32, 2**32 + 1


class Recurrent(nn.Module):
    """An LSTM, and logits of the symbols for the last steps."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(SYMBOLS + 2, HIDDEN)
        self.recurrence = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, SYMBOLS)
        bias, matrix = self.recurrence.bias_ih_l0, self.recurrence.weight_hh_l0
        assert isinstance(bias, nn.Parameter)
        assert isinstance(matrix, nn.Parameter)
        with torch.no_grad():
            bias[HIDDEN : 2 * HIDDEN] += FORGET_BIAS
            for gate in matrix.split(HIDDEN):
                nn.init.orthogonal_(gate)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, LENGTH + DELAY + LENGTH) integers to (N, LENGTH, SYMBOLS) logits."""
        states, _ = self.recurrence(self.symbols(inputs))
        return self.head(states[:, -LENGTH:])  # type: ignore[no-any-return]


class Copying(Task):
    """Cross-entropy of the symbols to repeat, over sequences drawn for each step; the score is their accuracy.

    Args:
        steps: training steps when nobody says how many.
        device: where tensors are.
    """

    name = "copying"
    measure = MEASURES[name]

    def __init__(self, *, steps: int = 1200, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.test_data = _draw(TEST_SEQUENCES, torch.Generator().manual_seed(_TEST_SEED), self.device)
        self.source = (
            f"{LENGTH} of {SYMBOLS} symbols, to be repeated after {DELAY} steps; {TEST_SEQUENCES:,} to test on"
        )
        self.fingerprint = fingerprint(*self.test_data)
        self.epoch_steps = 100
        self.steps = steps
        self.options = {}

    def network(self) -> nn.Module:
        """An LSTM of 64."""
        return Recurrent().to(self.device)

    def _split(self, validation: Task) -> None:
        assert isinstance(validation, Copying)  # nothing is taken from the training data, which are drawn anew
        generator = torch.Generator().manual_seed(_VALIDATION_SEED)
        validation.test_data = _draw(TEST_SEQUENCES, generator, self.device)

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """64 new sequences."""
        while True:
            yield _draw(BATCH_SIZE, generator, self.device)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of the symbols."""
        return F.cross_entropy(model(batch.inputs).flatten(0, 1).float(), batch.targets.flatten())

    @torch.no_grad()
    def score(self, model: nn.Module) -> float:
        """Symbols repeated rightly, in %."""
        return 100 * float((self.outputs(model).argmax(2) == self.test_data.targets).float().mean())

    @torch.no_grad()
    def outputs(self, model: nn.Module) -> torch.Tensor:
        """Logits of the test sequences."""
        model.eval()
        return model(self.test_data.inputs)  # type: ignore[no-any-return]


def _draw(count: int, generator: torch.Generator, device: torch.device) -> Batch:
    symbols = torch.randint(SYMBOLS, (count, LENGTH), generator=generator)
    blanks, go = torch.full((count, DELAY), BLANK), torch.full((count, LENGTH), GO)
    return Batch(torch.cat([symbols, blanks, go], 1).to(device), symbols.to(device))
