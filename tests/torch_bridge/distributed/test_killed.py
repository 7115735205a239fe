"""A process that is killed: the others end with an error, soon, and the last checkpoint goes on as if nothing had been.

Killed in the midst of the gradients, of Madam's step, and of what saves: checkpoints of torch.distributed, and weight
files.
"""

import os
import signal
import time
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from processes import TIMEOUT, everywhere, until_all_end
from torch import nn
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

from lnsnum.torch_bridge import (
    Madam,
    convert_model,
    load_model,
    log_offsets,
    parameter_groups,
    save_model_together,
    set_log_offsets,
)
from lnsnum.torch_bridge.distributed import parallel_files

torch.set_num_threads(1)

pytestmark = pytest.mark.distributed

if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("torch was built without gloo", allow_module_level=True)

KEPT, KILLED, END = 5, 8, 11
"""Steps after which a checkpoint is saved, one process is killed, and all is done."""

WAYS = ["gradients", "step", "checkpoint", "weight files"]


def made() -> tuple[nn.Module, Madam]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 13), nn.Tanh(), nn.Linear(13, 11))
    convert_model(model, "lns8f5", p_scale=0.5)
    fully_shard(model)
    return model, Madam(parameter_groups(model), momentum=0.9, lr=0.1)


def step(model: nn.Module, optimizer: Madam, rank: int, number: int) -> None:
    words = torch.randint(11, (6, 2), generator=torch.Generator().manual_seed(1000 * number + rank))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(words[:, 0]), words[:, 1]).backward()
    optimizer.step()


def save(model: nn.Module, optimizer: Madam, folder: Path) -> None:
    weights, state = get_state_dict(model, optimizer)
    dcp.save({"log_offsets": log_offsets(model), "model": weights, "optimizer": state}, checkpoint_id=folder)


def load(model: nn.Module, optimizer: Madam, folder: Path) -> None:
    offsets = log_offsets(model)
    dcp.load({"log_offsets": offsets}, checkpoint_id=folder)
    set_log_offsets(model, offsets)
    weights, state = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)


def own_codes(model: nn.Module) -> list:
    return [(p._local_tensor.codes.tolist(), p._local_tensor._span.low) for p in model.parameters()]


def end_here(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def killed(rank: int, way: str, folder: Path) -> None:
    """Train, and end one process in the midst of the eighth step, or of what is saved after it."""
    warnings.simplefilter("ignore")
    model, optimizer = made()
    for number in range(KEPT):
        step(model, optimizer, rank, number)
    save(model, optimizer, folder / "kept")
    save_model_together(folder / "model", model)
    for number in range(KEPT, KILLED):
        if number == KILLED - 1 and rank == 1:
            if way == "gradients":
                model[1].register_full_backward_hook(end_here)
            elif way == "step":
                dist.all_reduce = end_here
        step(model, optimizer, rank, number)
    if rank == 1:
        filesystem._write_item = parallel_files.save_tensors = end_here
    if way == "checkpoint":
        save(model, optimizer, folder / "next")
    else:
        save_model_together(folder / "model", model)


def resumed(rank: int, folders: list[Path]) -> list:
    """What uninterrupted training comes to, and each checkpoint that was kept."""
    warnings.simplefilter("ignore")
    model, optimizer = made()
    for number in range(KEPT):
        step(model, optimizer, rank, number)
    save_model_together(folders[0].parent / "whole", model)
    for number in range(KEPT, END):
        step(model, optimizer, rank, number)
    found = [own_codes(model)]
    for folder in folders:
        model, optimizer = made()
        load(model, optimizer, folder / "kept")
        for number in range(KEPT, END):
            step(model, optimizer, rank, number)
        found.append(own_codes(model))
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {way: tmp_path_factory.mktemp("killed") for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
def test_the_others_end_when_one_is_killed(way, folders):
    begin = time.monotonic()
    codes, errors = until_all_end(2, killed, folders[way], way, folders[way])
    assert codes[1] == -signal.SIGKILL
    assert codes[0] > 0
    assert time.monotonic() - begin < 3 * TIMEOUT
    if way == "step":
        assert (
            "LostError: one of the processes that share a weight, in Madam's step, has ended, or has not" in errors[0]
        )
    elif way == "weight files":
        assert "LostError: process 1 has told nothing of its weight files for" in errors[0]
    else:
        assert "Error" in errors[0]
    assert (folders[way] / "kept" / ".metadata").exists()
    assert not (folders[way] / "next" / ".metadata").exists()


def test_what_was_kept_goes_on_as_if_nothing_had_been(folders, tmp_path):
    for found in everywhere(2, resumed, tmp_path, list(folders.values())):
        assert all(codes == found[0] for codes in found[1:])
    models = []
    for place in (folders["weight files"] / "model", folders["weight files"].parent / "whole"):
        model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 13), nn.Tanh(), nn.Linear(13, 11))
        load_model(place, model)
        models.append([p.codes.tolist() for p in model.parameters()])
    assert models[0] == models[1]
