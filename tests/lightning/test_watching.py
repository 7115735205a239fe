"""The log of a training by Lightning: what the module and the optimizer know of each step."""

import pytest
import torch

pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_lightning import STEPS, Batches, Classifier, fitted, trainer_of

from lnsnum.files.run_log import RunLog, read_log
from lnsnum.lightning import MonitorCallback
from lnsnum.torch_bridge import Madam

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore:::lightning")]


def test_a_line_has_the_loss_and_the_rate_of_its_step(tmp_path):
    log = tmp_path / "run.jsonl"
    module = Classifier()
    fitted(tmp_path, MonitorCallback(log, histogram_of=module, histogram_every=3), module=module)
    lines = read_log(log)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in lines] == module.losses
    assert [line["lr"] for line in lines] == pytest.approx([0.05 * (1 - step / (2 * STEPS)) for step in range(STEPS)])
    assert all(0 < line["moved"] <= 1 for line in lines)
    assert ["histograms" in line for line in lines] == [step % 3 == 0 for step in range(1, STEPS + 1)]


def test_batches_that_are_accumulated_are_one_step(tmp_path):
    """Its loss is their mean."""
    module = fitted(tmp_path, MonitorCallback(tmp_path / "run.csv"), accumulate_grad_batches=2, max_epochs=2)
    lines = read_log(tmp_path / "run.csv")
    pairs = list(zip(module.losses[::2], module.losses[1::2], strict=True))
    assert [line["loss"] for line in lines] == pytest.approx([sum(pair) / 2 for pair in pairs])
    assert len(lines) == 4


def test_a_resumed_run_goes_on_with_its_log(tmp_path):
    log = tmp_path / "run.jsonl"
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    fitted(tmp_path, MonitorCallback(log), keep)
    before = read_log(log)
    fitted(tmp_path, MonitorCallback(log), module=Classifier(seed=7), checkpoint=tmp_path / "step=6.ckpt")
    after = read_log(log)
    assert after[:6] == before[:6]
    same = [name for name in before[0] if name != "seconds"]
    assert [[line[name] for name in same] for line in after] == [[line[name] for name in same] for line in before]


class Pair(Classifier):
    """Two optimizers, of which the second steps twice in a batch."""

    automatic_optimization = False

    def configure_optimizers(self):
        first, last = self.net[0].parameters(), self.net[3].parameters()
        return [Madam(first, lr=0.01), Madam(last, lr=0.02, seed=1)]

    def training_step(self, batch, index):
        for optimizer in [self.optimizers()[n] for n in (0, 1, 1)]:
            loss = super().training_step(batch, index)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()


def test_of_several_optimizers_the_steps_of_one_are_written(tmp_path):
    callbacks = [MonitorCallback(tmp_path / f"{number}.csv", optimizer=number) for number in (0, 1)]
    keep = ModelCheckpoint(dirpath=tmp_path, filename="c", every_n_train_steps=6)
    fitted(tmp_path, *callbacks, keep, module=Pair(), max_epochs=1)
    for number, (lr, count) in enumerate([(0.01, 4), (0.02, 8)]):
        lines = read_log(tmp_path / f"{number}.csv")
        assert [(line["step"], line["lr"], line["loss"]) for line in lines] == [
            (step, lr, None) for step in range(1, count + 1)
        ]
    again = [MonitorCallback(tmp_path / f"{number}.csv", optimizer=number) for number in (0, 1)]
    fitted(tmp_path, *again, module=Pair(), checkpoint=tmp_path / "c.ckpt", max_epochs=2)
    assert [len(read_log(tmp_path / f"{number}.csv")) for number in (0, 1)] == [8, 16]
    for wrong in (MonitorCallback(tmp_path / "x.csv"), MonitorCallback(tmp_path / "x.csv", optimizer=2)):
        with pytest.raises(ValueError, match="has 2 optimizers, and a log is of one: give optimizer, from 0 to 1"):
            fitted(tmp_path, wrong, module=Pair())
    assert not (tmp_path / "x.csv").exists()


def test_a_log_that_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch):
    def full(log, line):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunLog, "write", full)
    with pytest.warns(UserWarning, match="the log ends before step 1, and training goes on: .*No space left"):
        module = fitted(tmp_path, MonitorCallback(tmp_path / "run.csv"))
    assert len(module.losses) == STEPS


def test_a_run_that_fails_leaves_its_log_whole(tmp_path):
    class Failing(Classifier):
        def training_step(self, batch, index):
            if len(self.losses) == 3:
                raise RuntimeError("as asked")
            return super().training_step(batch, index)

    trainer = trainer_of(tmp_path, callbacks=[MonitorCallback(tmp_path / "run.csv")], enable_checkpointing=False)
    with pytest.raises(RuntimeError, match="as asked"):
        trainer.fit(Failing(), Batches())
    assert [line["step"] for line in read_log(tmp_path / "run.csv")] == [1, 2, 3]


def test_it_needs_a_place_to_write_to():
    with pytest.raises(ValueError, match="give one of them"):
        MonitorCallback()
    assert torch.get_num_threads() == 1
