"""A torch that was built without torch.distributed: the bridge is imported and trains, and says what it cannot do.

No such build is at hand, so a process takes out of torch what would not be there, and imports torch's own files anew:
they ask for it as they would in that build. (What is compiled still asks for the class of DTensors: an empty one.)
"""

import subprocess
import sys

import pytest
import torch
from torch import nn

from lnsnum.torch_bridge import save_model_together

PROGRAM = """
import importlib, sys, types
import torch, torch.nn.parallel.distributed
for name in [name for name in sys.modules if name.split(".")[:2] == ["torch", "distributed"]]:
    del sys.modules[name]
for name in ("_c10d_init", "_rpc_init", "_dist_autograd_init"):
    if hasattr(torch._C, name):
        delattr(torch._C, name)
for name in ("_distributed_c10d", "_distributed_rpc", "_distributed_autograd"):
    sys.modules[f"torch._C.{name}"] = None
torch.distributed = importlib.import_module("torch.distributed")
import torch.distributed.rpc
importlib.reload(torch.nn.parallel.distributed)
sys.modules["torch.distributed.tensor"] = types.ModuleType("torch.distributed.tensor")
sys.modules["torch.distributed.tensor"].DTensor = type("DTensor", (torch.Tensor,), {})
assert not torch.distributed.is_available()

from torch import nn
from lnsnum.torch_bridge import Madam, convert_model, parameter_groups, save_model_together
model = nn.Linear(4, 3)
convert_model(model, "lns8f5")
optimizer = Madam(parameter_groups(model))
model(torch.ones(2, 4)).sum().backward()
optimizer.step()
print(optimizer.step_report().weights)
try:
    save_model_together("nowhere", model)
except RuntimeError as error:
    print(error)

import os
os.environ |= {"WORLD_SIZE": "2", "RANK": "0"}
from lnsnum.tasks import TaskError
from lnsnum.tasks.processes import joined
try:
    with joined("cpu"):
        pass
except TaskError as error:
    print(error)
"""


def test_the_bridge_needs_no_distributed_torch():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "15",
        "there is no group of processes: call torch.distributed.init_process_group, or take save_model",
        "2 processes were launched, and this torch was built without gloo, which they need",
    ]


def test_files_are_written_together_by_a_group_alone():
    with pytest.raises(
        RuntimeError, match=r"there is no group of processes: call torch.distributed.init_process_group"
    ):
        save_model_together("nowhere", nn.Linear(2, 2).to(torch.float64))
