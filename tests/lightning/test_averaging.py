"""Averages of weights: kept in floats, validated as codes, saved and resumed. The oracle is the average by hand."""

import pytest
import torch
from torch import nn

pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from tiny_lightning import Batches, Classifier, codes, fitted, trainer_of

from lnsnum.lightning import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from lnsnum.torch_bridge import LNSWeight

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore:::lightning")]

DECAY = 0.9


class ByHand(Callback):
    """The weights after each step, and after each epoch's first."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_train_batch_end(self, trainer, module, *rest):
        self.steps.append(values(module))

    def on_train_epoch_start(self, trainer, module):
        self.epochs.append(values(module))


def values(module):
    return [p.detach().to_float(torch.float64) for p in module.parameters()]


def assert_close(average, expected, rtol=1e-5):
    found = list(average.parameters())
    assert all(type(p) is nn.Parameter and p.dtype == torch.float32 for p in found)
    for p, e in zip(found, expected, strict=True):
        torch.testing.assert_close(p.detach().double(), e, rtol=rtol, atol=1e-7)


def assert_encoded(module, average):
    """The weights are the codes nearest to the average, at the scale that loading would choose."""
    loaded = Classifier(seed=3)
    loaded.load_state_dict(average.state_dict())
    assert codes(module) == codes(loaded)


class Narrow(Classifier):
    """In bfloat16, which loses what a step moves an average by."""

    def __init__(self):
        super().__init__()
        self.bfloat16()

    def training_step(self, batch, number):
        return super().training_step((batch[0].bfloat16(), batch[1]), number).float()


@pytest.mark.parametrize("make", [Classifier, Narrow])
@pytest.mark.parametrize("kind", ["EMA", "mean"])
def test_an_average_of_every_step_is_that_of_floats(kind, make, tmp_path):
    hand = ByHand()
    average = EMAWeightAveraging(decay=DECAY) if kind == "EMA" else WeightAveraging()
    module = fitted(tmp_path, hand, average, module=make())
    expected = hand.steps[0]
    for count, step in enumerate(hand.steps[1:], 1):
        share = 1 - DECAY if kind == "EMA" else 1 / (count + 1)
        expected = [e + share * (w - e) for e, w in zip(expected, step, strict=True)]
    # the first average is what torch copies, in the type of the weights
    assert_close(average._average_model.module, expected, rtol=1e-5 if make is Classifier else 2.0**-8)
    if make is Classifier:
        assert_encoded(module, average._average_model.module)


def test_validation_sees_the_average_as_codes_and_changes_nothing(tmp_path):
    """The run is the one without; what was validated is what the end of the run would have been."""
    seen = []

    class Look(Callback):
        def on_validation_batch_start(self, trainer, module, *rest):
            seen.append(codes(module))

    class Validated(Classifier):
        def validation_step(self, batch, index):
            self.net(batch[0])

    average, hand = EMAWeightAveraging(decay=DECAY), ByHand()
    module = Validated()
    trainer = trainer_of(
        tmp_path, callbacks=[average, hand, Look()], num_sanity_val_steps=0, enable_checkpointing=False
    )
    trainer.fit(module, Batches(), Batches())
    without, plain = ByHand(), EMAWeightAveraging(decay=DECAY)
    fitted(tmp_path, plain, without)
    for found, expected in zip(hand.steps, without.steps, strict=True):
        assert all(map(torch.equal, found, expected))
    for found, expected in zip(average._average_model.parameters(), plain._average_model.parameters(), strict=True):
        assert torch.equal(found, expected)
    assert len(seen) == 8
    assert seen[-1] == codes(module)
    assert seen[0] != seen[-1]


def test_a_resumed_average_is_the_one_that_was_not_interrupted(tmp_path):
    """A checkpoint has the average as its state, and the codes beside."""
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    average = EMAWeightAveraging(decay=DECAY)
    whole = fitted(tmp_path, average, keep)
    state = torch.load(tmp_path / "step=6.ckpt", weights_only=True)
    assert not any(isinstance(tensor, LNSWeight) for tensor in state["state_dict"].values())
    assert any(isinstance(tensor, LNSWeight) for tensor in state["current_model_state"].values())
    other = EMAWeightAveraging(decay=DECAY)
    resumed = fitted(tmp_path, other, module=Classifier(seed=7), checkpoint=tmp_path / "step=6.ckpt")
    assert codes(resumed) == codes(whole)
    for found, expected in zip(other._average_model.parameters(), average._average_model.parameters(), strict=True):
        assert torch.equal(found, expected)
    loaded = Classifier.load_from_checkpoint(tmp_path / "step=8.ckpt")
    assert codes(loaded) == codes(whole)


def test_swa_averages_epochs_in_floats_and_resumes(tmp_path):
    def swa():
        return StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1, annealing_epochs=1)

    hand, average = ByHand(), swa()
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", every_n_epochs=1, save_top_k=-1)
    module = fitted(tmp_path, hand, average, keep, max_epochs=4)
    expected = [torch.stack(weights).mean(0) for weights in zip(*hand.epochs[:4], strict=True)]
    assert_close(average._average_model, expected)
    resumed = fitted(tmp_path, swa(), module=Classifier(seed=7), checkpoint=tmp_path / "epoch=1.ckpt", max_epochs=4)
    assert codes(resumed) == codes(module)
