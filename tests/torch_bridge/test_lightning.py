"""Lightning's Trainer on codes: it fits, saves, resumes and loads them without anything of ours."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lnsnum.torch_bridge import LNSWeight, Madam, convert_model

lightning = pytest.importorskip("lightning", reason="lightning is not installed")

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore:::lightning")]

STEPS = 8


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        convert_model(self.net, "lns8f5")

    def training_step(self, batch, _):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return Madam(self.parameters())


def fitted(folder, **settings):
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    data = torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long())
    checkpoint = settings.pop("checkpoint", None)
    trainer = lightning.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    model = Classifier()
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=8), ckpt_path=checkpoint)
    return model


def codes(model):
    assert all(isinstance(p, LNSWeight) for p in model.parameters())
    return [(p.codes.tolist(), p.log_offset) for p in model.parameters()]


def test_a_resumed_fit_is_the_one_that_was_not_interrupted(tmp_path):
    keep = lightning.pytorch.callbacks.ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=4, save_top_k=-1)
    whole = fitted(tmp_path, callbacks=[keep])
    first, last = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.rpartition("=")[2]))
    resumed = fitted(tmp_path / "resumed", checkpoint=first, enable_checkpointing=False)
    assert codes(resumed) == codes(whole)
    assert codes(Classifier.load_from_checkpoint(last)) == codes(whole)
    assert codes(Classifier()) != codes(whole)
