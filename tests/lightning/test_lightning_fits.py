"""Lightning's Trainer on codes: it fits, saves, resumes and loads them without anything of ours."""

import pytest
import torch

pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_lightning import STEPS, Classifier, codes, fitted

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore:::lightning")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody interrupted, and the checkpoint of each second step."""
    folder = tmp_path_factory.mktemp("whole")
    keep = ModelCheckpoint(dirpath=folder, filename="{step}", every_n_train_steps=2, save_top_k=-1, save_last=True)
    return fitted(folder, keep), folder


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("step", [2, 4, 6], ids=["within an epoch", "between epochs", "within the second"])
def test_a_resumed_fit_is_the_one_that_was_not_interrupted(step, weights_only, whole, tmp_path):
    model, folder = whole
    resumed = fitted(tmp_path, checkpoint=folder / f"step={step}.ckpt", module=Classifier(seed=7))
    assert codes(resumed) == codes(model)
    assert resumed.losses == model.losses[step:]
    assert len(model.losses) == STEPS


def test_the_last_checkpoint_is_found_by_its_name(whole, tmp_path):
    """By a Trainer that is to go on for longer."""
    model, folder = whole
    keep = ModelCheckpoint(dirpath=folder, save_last=True)
    longer = fitted(tmp_path, keep, checkpoint="last", module=Classifier(seed=7), max_epochs=3)
    assert len(longer.losses) == 4
    assert codes(longer) != codes(model)


def test_weights_are_loaded_without_the_run(whole, tmp_path):
    """By the class, by `load_state_dict`, and from a checkpoint of weights alone, from which no run goes on."""
    model, folder = whole
    last = folder / f"step={STEPS}.ckpt"
    assert codes(Classifier.load_from_checkpoint(last)) == codes(model)
    other = Classifier(seed=7)
    other.load_state_dict(torch.load(last, weights_only=True)["state_dict"])
    assert codes(other) == codes(model)
    keep = ModelCheckpoint(dirpath=tmp_path, filename="w", save_weights_only=True, every_n_train_steps=STEPS)
    fitted(tmp_path, keep)
    assert codes(Classifier.load_from_checkpoint(tmp_path / "w.ckpt")) == codes(model)
    begun = fitted(tmp_path, module=Classifier.load_from_checkpoint(tmp_path / "w.ckpt"))
    again = fitted(tmp_path, module=other)
    assert codes(begun) == codes(again)
    with pytest.raises(KeyError, match="optimizer state"):
        fitted(tmp_path, checkpoint=tmp_path / "w.ckpt")
