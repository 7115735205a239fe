"""A module of Lightning's whose weights are codes, its data, and a Trainer that shows nothing."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lnsnum.torch_bridge import LNSWeight, Madam, convert_model

pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

import lightning

STEPS, BATCHES = 8, 4


class Classifier(lightning.LightningModule):
    """A converted network, which keeps the loss of each batch."""

    def __init__(self, seed: int = 0, lr: float = 0.05) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
        convert_model(self.net, "lns8f5")
        self.losses: list[float] = []

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = Madam(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (2 * STEPS))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Batches:
    """A loader that knows where it is, so that a run which is resumed within an epoch goes on with its next batch."""

    def __init__(self) -> None:
        x = torch.randn(8 * BATCHES, 8, generator=torch.Generator().manual_seed(1))
        self.batches = list(zip(x.split(8), (x.sum(1) > 0).long().split(8), strict=True))
        self.begin = self.at = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        first, self.begin = self.begin, 0
        for at in range(first, len(self.batches)):
            self.at = at + 1
            yield self.batches[at]

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.begin = state["at"] % len(self.batches)


def trainer_of(folder: Any, **settings: Any) -> Any:
    limits = {} if "max_epochs" in settings else {"max_steps": STEPS}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(accelerator="cpu", default_root_dir=folder, **limits, **quiet, **settings)


def fitted(folder: Any, *callbacks: Any, checkpoint: Any = None, module: Any = None, **settings: Any) -> Any:
    """The module after `fit`, which may resume from a checkpoint."""
    module = module or Classifier()
    settings = {"enable_checkpointing": False, **settings} if not callbacks else settings
    trainer = trainer_of(folder, callbacks=list(callbacks), **settings)
    trainer.fit(module, Batches(), ckpt_path=checkpoint)
    return module


def codes(module: nn.Module) -> dict[str, Any]:
    assert all(isinstance(p, LNSWeight) for p in module.parameters())
    return {name: (p.codes.tolist(), p.log_offset) for name, p in module.named_parameters()}
