"""`accelerate launch` of a script that lets accelerate wrap the model: codes as of DistributedDataParallel by hand.

By its launcher for cards, which is torch's: with --cpu it starts one process, and several by mpirun alone.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

pytest.importorskip("accelerate")

if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("torch was built without gloo", allow_module_level=True)

from test_replicas import RUNS, trained_alone

pytestmark = pytest.mark.distributed

SCRIPT = """
import json, sys, warnings
import torch
from accelerate import Accelerator
from test_replicas import RUNS, STEPS, a_run, loss_of, state_of

warnings.simplefilter("ignore")
model, made = a_run(**RUNS["momentum"])
accelerator = Accelerator(cpu=True)
outer, optimizer = accelerator.prepare(model, made())
assert isinstance(outer, torch.nn.parallel.DistributedDataParallel)
for number in range(STEPS):
    optimizer.zero_grad()
    accelerator.backward(loss_of(outer, accelerator.process_index, number))
    optimizer.step()
with open(f"{accelerator.process_index}.json", "w") as file:
    json.dump(state_of(model), file)
accelerator.end_training()
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_model_that_accelerate_wraps_has_the_codes_of_one_process(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_ip", "127.0.0.1", "--main_process_port", str(free_port())]
    here = Path(__file__).parent
    paths = [str(here), str(here.parents[1]), *sys.path]
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *options, "train.py"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second == json.loads(json.dumps(trained_alone(RUNS["momentum"])))
