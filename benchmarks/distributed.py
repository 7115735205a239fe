"""Two processes on this machine: bytes that one receives in a training step, and the step's time, of each way to share.

The transformer of training_step.py, on 8 sequences of 64 tokens a process, by gloo on the loopback interface. Bytes
are those that the kernel counts on the process's own connections. The models take steps in turn, within the same two
processes; a figure is the median of a step's time over that of the same wrapper with float32 and fused Adam, and the
same of the processor's time, which other programs on the machine disturb less. (torch's hook for bfloat16 is not for
gloo, so it stands not beside ours.)

With `--rate` the processes are in two network namespaces, joined by a cable of that rate: for root, on Linux.

    python benchmarks/distributed.py
    python benchmarks/distributed.py --width 128 512 --only "fully_shard, float32, Adam" "fully_shard, lns8f5, Madam"
    python benchmarks/distributed.py --rate 1gbit
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import platform
import socket
import stat
import statistics
import struct
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from training_step import LENGTH, VOCABULARY, WIDTH, Transformer

from lnsnum.torch_bridge import Madam, convert_model, parameter_groups, ship_gradients_as_codes

PROCESSES, BATCH, TOKENS = 2, 8, 64
_BYTES_RECEIVED = 128
"""Where Linux has them in `struct tcp_info`."""


def received() -> int:
    """Bytes that have arrived on all connections of this process."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as connection:
                if connection.type == socket.SOCK_STREAM and connection.family in (socket.AF_INET, socket.AF_INET6):
                    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    total += struct.unpack_from("Q", info, _BYTES_RECEIVED)[0]
        except OSError:  # one that has been closed meanwhile
            continue
    return total


def replicated(width: int, convert: bool, codes: bool = False) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """In DistributedDataParallel."""
    model = made(width, convert)
    wrapped = DistributedDataParallel(model)
    if codes:
        ship_gradients_as_codes(wrapped)
    return wrapped, optimizer_of(model, convert)


def sharded(width: int, convert: bool, half: bool = False) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """In fully_shard, layer by layer; `half` gathers and reduces floats as bfloat16."""
    model = made(width, convert)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16) if half else MixedPrecisionPolicy()
    for layer in model.layers.layers:
        fully_shard(layer, mp_policy=policy)
    return fully_shard(model, mp_policy=policy), optimizer_of(model, convert)


def made(width: int, convert: bool) -> Any:
    torch.manual_seed(0)
    model = Transformer(width)
    if convert:
        convert_model(model, "lns8f5")
    return model


def optimizer_of(model: torch.nn.Module, convert: bool) -> torch.optim.Optimizer:
    if convert:
        return Madam(parameter_groups(model))
    return torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


RUNS: dict[str, tuple[Callable[[int], tuple[torch.nn.Module, torch.optim.Optimizer]], str]] = {
    "DDP, float32, Adam": (lambda width: replicated(width, False), "DDP, float32, Adam"),
    "DDP, lns8f5, Madam": (lambda width: replicated(width, True), "DDP, float32, Adam"),
    "DDP, lns8f5, Madam, gradients as codes": (lambda width: replicated(width, True, codes=True), "DDP, float32, Adam"),
    "fully_shard, float32, Adam": (lambda width: sharded(width, False), "fully_shard, float32, Adam"),
    "fully_shard, lns8f5, Madam": (lambda width: sharded(width, True), "fully_shard, float32, Adam"),
    "fully_shard, float32 as bfloat16, Adam": (
        lambda width: sharded(width, False, half=True),
        "fully_shard, float32, Adam",
    ),
    "fully_shard, lns8f5 as bfloat16, Madam": (
        lambda width: sharded(width, True, half=True),
        "fully_shard, float32, Adam",
    ),
}
"""How each is made, and what it is compared with."""


@contextlib.contextmanager
def cable(rate: str | None) -> Iterator[list[str]]:
    """Two network namespaces, joined by a cable of a rate as `tc` takes it; none without."""
    if rate is None:
        yield []
        return

    def run(*command: str) -> None:
        subprocess.run(command, check=True)

    names = [f"lns{os.getpid()}{letter}" for letter in "ab"]  # of the namespaces, and of the devices in them
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for number, name in enumerate(names, 1):
            run("ip", "link", "set", name, "netns", name)
            run("ip", "-n", name, "address", "add", f"10.213.78.{number}/24", "dev", name)
            run("ip", "-n", name, "link", "set", name, "up")
            limits = ["rate", rate, "burst", "256kb", "latency", "50ms"]
            run("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", name, "root", "tbf", *limits)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def enter(namespace: str) -> None:
    """Let this process be in a network namespace."""
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"namespace {namespace} cannot be entered")


def measure(rank: int, folder: str, rounds: int, widths: list[int], only: list[str], namespaces: list[str]) -> None:
    """What one process does; the first prints."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if namespaces:
        enter(namespaces[rank])
        os.environ["GLOO_SOCKET_IFNAME"] = namespaces[rank]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    if rank == 0:
        print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    for width in widths:
        compare(rank, rounds, width, only)
    dist.barrier()
    dist.destroy_process_group()
    time.sleep(0.2)  # threads of gloo's let go of the last tensors a moment later, see lnsnum.tasks.processes


def compare(rank: int, rounds: int, width: int, only: list[str]) -> None:
    """The table of one width."""
    tokens = torch.randint(VOCABULARY, (BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(rank))
    models = {name: make(width) for name, (make, _) in RUNS.items() if name in only}
    count = sum(p.numel() for p in next(iter(models.values()))[0].parameters())
    times: dict[str, list[float]] = {name: [] for name in models}
    cpu: dict[str, list[float]] = {name: [] for name in models}
    traffic: dict[str, float] = {}
    for number in range(rounds + 2):
        for name, (model, optimizer) in models.items():
            dist.barrier()
            before, begin, busy = received(), time.perf_counter(), time.process_time()
            optimizer.zero_grad(set_to_none=True)
            logits = model(tokens[:, :TOKENS])
            F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1 : TOKENS + 1].flatten()).backward()
            optimizer.step()
            dist.barrier()
            if number >= 2:  # after what is made and compared once
                times[name].append(time.perf_counter() - begin)
                cpu[name].append(time.process_time() - busy)
            traffic[name] = (received() - before) / count
    if rank == 0:
        print(f"\nwidth {width}, {count:,} parameters")
        print("| two processes | bytes received a parameter and step | time | processor's time |")
        print("| --- | ---: | ---: | ---: |")
        for name in models:
            base = RUNS[name][1]
            ratios = [statistics.median(a / b for a, b in zip(t[name], t[base], strict=True)) for t in (times, cpu)]
            print(f"| {name} | {traffic[name]:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=40, help="steps of each model")
    parser.add_argument("--width", type=int, nargs="+", default=[WIDTH], help="of the transformer, one after another")
    parser.add_argument("--rate", help="of a cable between the processes, such as 1gbit")
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS), help="with what they are over")
    given = parser.parse_args()
    lacking = {RUNS[name][1] for name in given.only} - set(given.only)
    if lacking:
        parser.error(f"--only lacks {min(lacking)!r}, over which the figures are")
    with tempfile.TemporaryDirectory() as folder, cable(given.rate) as namespaces:
        torch.multiprocessing.spawn(measure, (folder, given.rounds, given.width, given.only, namespaces), PROCESSES)


if __name__ == "__main__":
    main()
