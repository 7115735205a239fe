"""`lnsnum train` in several processes: one run, of which the first prints and writes, on the batches of one process.

Launched by torchrun, and once by hand, where the processes are asked for different things.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from processes import Host, two_hosts

from lnsnum.tasks import RUN_ENTRY, TaskError
from lnsnum.tasks.copying import Copying
from lnsnum.tasks.processes import Processes, share_of
from lnsnum.tasks.recipe import Recipe
from lnsnum.tasks.task import Batch
from lnsnum.tasks.training import start
from lnsnum.weight_file import load_metadata, load_weights

if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("torch was built without gloo", allow_module_level=True)

PATIENCE = 300
"""Seconds after which a run hangs."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def begin(folder: Path, command: list, within: tuple = (), **variables: object) -> subprocess.Popen:
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    environment |= {name: str(value) for name, value in variables.items()}
    return subprocess.Popen(
        [*within, sys.executable, *map(str, command)], cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def torchrun(folder: Path, size: int, *arguments: object) -> subprocess.Popen:
    where = ["--nproc-per-node", size, "--master-addr", "127.0.0.1", "--master-port", free_port()]
    return begin(folder, ["-m", "torch.distributed.run", *where, "-m", "lnsnum", *arguments])


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    try:
        out, error = process.communicate(timeout=PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, error


def codes_in(file: Path) -> dict[str, list]:
    return {name: [tensor.codes.tolist(), str(tensor.log_offset)] for name, tensor in load_weights(file).items()}


def shares_added(size: int, steps: int, seed: int) -> dict[str, list]:
    """The copying task in this process: each step adds the gradients of all shares, as two processes do."""
    task, recipe = Copying(), Recipe()
    model, optimizer = start(task, recipe, seed)
    schedule = recipe.scheduler(optimizer, steps)
    batches = task.batches(torch.Generator().manual_seed(seed))
    for _ in range(steps):
        whole = next(batches)
        optimizer.zero_grad()
        for inputs, targets in zip(*(part.chunk(size) for part in whole), strict=True):
            (task.loss(model, Batch(inputs, targets)) / size).backward()
        optimizer.step()
        schedule.step()
    return {name: [p.codes.tolist(), str(p.log_offset)] for name, p in model.named_parameters()}


def test_two_processes_train_on_the_batches_of_one(tmp_path):
    code, out, error = ended(
        torchrun(tmp_path, 2, "train", "--task", "copying", "--steps", 4, "--seed", 7, "--out", "w.safetensors")
    )
    assert code == 0, error
    assert out.count("symbols, to be repeated") == out.count("saved to w.safetensors") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    assert codes_in(tmp_path / "w.safetensors") == shares_added(2, 4, 7)
    assert json.loads(load_metadata(tmp_path / "w.safetensors")[RUN_ENTRY])["processes"] == 2


@given(count=st.integers(1, 40), size=st.integers(1, 50))
def test_shares_are_the_batch_once(count, size):
    batch = Batch(torch.arange(count), torch.arange(count) * 2)
    shares = [share_of(batch, rank, size) for rank in range(size)]
    seen = [x for share, weight in shares if weight for x in share.inputs.tolist()]
    assert seen == list(range(count))
    lengths = [len(share.inputs) for share, weight in shares if weight]
    assert max(lengths) - min(lengths) <= 1
    assert all(len(share.inputs) == 1 for share, weight in shares if not weight)
    for share, weight in shares:
        assert torch.equal(share.targets, share.inputs * 2)
        # the mean over the batch is the mean over the processes of weighted means
        assert weight == (len(share.inputs) * size / count if weight else 0)


def test_a_datapath_is_of_one_process():
    task = Copying()
    task.datapath = "lns8f5"
    with pytest.raises(TaskError, match="datapath lns8f5: it is of one process: leave it out, or launch one"):
        Processes(0, 2).loss_of(task, task.network())


def test_each_process_has_a_card_of_its_own():
    assert Processes().device("cuda:3") == "cuda:3"
    assert Processes(3, 4, 1).device("cuda") == "cuda:1"
    assert Processes(3, 4, 1).device("cpu") == "cpu"
    with pytest.raises(TaskError, match="device cuda:0: 4 processes cannot share it: give cuda, and each has its own"):
        Processes(3, 4, 1).device("cuda:0")


@pytest.mark.distributed
def test_processes_that_are_asked_for_different_runs_say_so(tmp_path):
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": 2}
    command = ["-m", "lnsnum", "train", "--task", "copying", "--steps", 2, "--out", "w.safetensors", "--seed"]
    both = [begin(tmp_path, [*command, rank], RANK=rank, LOCAL_RANK=rank, **where) for rank in range(2)]
    (code, _, first), (other, out, second) = (ended(each) for each in both)
    told = "the run's seed is 1 on process 1 and 0 on process 0: the processes of one run are given the same command"
    assert (code, other) == (2, 2)
    assert f"error: {told}" in first
    assert f"process 1: error: {told}" in second
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.distributed
def test_who_does_not_find_the_others_says_so(tmp_path):
    code, _, error = ended(begin(tmp_path, ["-m", "lnsnum", "train", "--task", "copying"], WORLD_SIZE=2, RANK=0))
    assert code == 2
    assert error.startswith("error: the processes that were launched do not find each other: ")
    assert "MASTER_ADDR" in error


RUN = ["train", "--task", "copying", "--steps", 12, "--seed", 5, "--out", "w.safetensors"]


def workers_of(agent: subprocess.Popen) -> list[int]:
    """Those that torchrun started, in the order of their ranks."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(agent.pid)], capture_output=True, text=True, check=False)
    return sorted(int(pid) for pid in found.stdout.split())


def until(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} does not happen"
        time.sleep(0.02)


@pytest.mark.distributed
def test_a_run_of_three_processes_goes_on_after_one_was_killed(tmp_path):
    """Of 64 examples in three shares: the end is that of a run in which nothing happened, code for code."""
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    run = [*RUN[:4], 60, *RUN[5:]]
    code, _, error = ended(torchrun(tmp_path / "whole", 3, *run))
    assert code == 0, error
    agent = torchrun(tmp_path / "cut", 3, *run, "--save-every", 5)
    kept = tmp_path / "cut" / "w-resume.safetensors"
    until(kept.exists, "the first save")
    os.kill(workers_of(agent)[-1], signal.SIGKILL)
    code, _, error = ended(agent)
    assert code != 0
    assert "error: one of the other processes of the run has ended, or has not come this far within the" in error
    assert not (tmp_path / "cut" / "w.safetensors").exists()
    code, _, error = ended(torchrun(tmp_path / "cut", 3, "train", "--resume", "w-resume.safetensors"))
    assert code == 0, error
    assert codes_in(tmp_path / "cut" / "w.safetensors") == codes_in(tmp_path / "whole" / "w.safetensors")


@pytest.mark.distributed
def test_a_run_that_is_stopped_goes_on_as_if_nothing_had_been(tmp_path):
    """All processes stop after the same step, although one alone was asked to."""
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    steps = 40
    run = [*RUN[:4], steps, *RUN[5:]]
    code, _, error = ended(torchrun(tmp_path / "whole", 2, *run))
    assert code == 0, error
    agent = torchrun(tmp_path / "cut", 2, *run, "--save-every", 2)
    kept = tmp_path / "cut" / "w-resume.safetensors"
    until(kept.exists, "the first save")
    os.kill(workers_of(agent)[1], signal.SIGTERM)
    code, out, error = ended(agent)
    assert code != 0
    assert "lnsnum train --resume w-resume.safetensors goes on with step" in out, error
    code, out, error = ended(torchrun(tmp_path / "cut", 2, "train", "--resume", "w-resume.safetensors"))
    assert code == 0, error
    assert codes_in(tmp_path / "cut" / "w.safetensors") == codes_in(tmp_path / "whole" / "w.safetensors")


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    with two_hosts() as both:
        yield both


@pytest.mark.distributed
def test_two_machines_train_on_the_batches_of_one(hosts, tmp_path):
    """A process in each network namespace: all that they share is a cable, and the folder."""
    both = []
    for number, (name, device) in enumerate(hosts):
        where = ["--nnodes", 2, "--node-rank", number, "--nproc-per-node", 1]
        where += ["--master-addr", "10.213.77.1", "--master-port", 29500, "-m", "lnsnum"]
        command = ["-m", "torch.distributed.run", *where, "train", "--task", "copying", "--steps", 4, "--seed", 7]
        within = ("ip", "netns", "exec", name)
        both.append(begin(tmp_path, [*command, "--out", "w.safetensors"], within, GLOO_SOCKET_IFNAME=device))
    (code, out, first), (other, silent, second) = (ended(each) for each in both)
    assert (code, other) == (0, 0), first + second
    assert out.count("saved to w.safetensors") == 1
    assert silent == ""
    assert codes_in(tmp_path / "w.safetensors") == shares_added(2, 4, 7)


ENDING = """
import torch
import torch.distributed as dist
from lnsnum.tasks.processes import joined

with joined("cpu") as processes:
    kept = dist.group.WORLD  # as what wraps a network does
    for _ in range(300):
        dist.all_gather([torch.empty(2), torch.empty(2)], torch.ones(2))
        processes.wait()
"""


@pytest.mark.distributed
def test_processes_end_in_peace_right_after_a_collective(tmp_path):
    """A thread of gloo's may still hold what was sent: without a pause in the end one process of ten is aborted."""
    ends = []
    for _ in range(12):
        where = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        both = [begin(tmp_path, ["-c", ENDING], RANK=rank, LOCAL_RANK=rank, **where) for rank in range(2)]
        ends += [ended(one) for one in both]
    assert [(code, error) for code, _, error in ends] == [(0, "")] * 24
