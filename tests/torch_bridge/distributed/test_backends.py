"""What is asked of a backend is what any has: collectives of tensors of types that NCCL sends, where the model is.

In a group of torch's fake backend, whose collectives do nothing: the other process is one that says what this one says.
"""

import subprocess
import sys
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils._python_dispatch import TorchDispatchMode

from lnsnum.torch_bridge import (
    Madam,
    compare_replicas,
    convert_model,
    parameter_groups,
    ship_gradients_as_codes,
    surroundings,
)
from lnsnum.torch_bridge.distributed import conversions, dtensors, exchange, parallel_files, replicas

fake_pg = pytest.importorskip("torch.testing._internal.distributed.fake_pg")

SENT = {torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64}
"""By NCCL; not int16, as which codes of more than 8 bits are kept."""


@pytest.fixture
def group(monkeypatch):
    """Of two, of which this process is the first."""
    store = dist.HashStore()
    dist.init_process_group("fake", store=store, rank=0, world_size=2)
    own = exchange.tell

    def told_by_both(subject, told, group):
        number = own(subject, told, group)
        held = exchange._get_process_group_store(group)
        held.set(f"lnsnum/{subject}/{number}/1", held.get(f"lnsnum/{subject}/{number}/0"))
        return number

    for module in (exchange, replicas, dtensors, surroundings, parallel_files):
        monkeypatch.setattr(module, "tell", told_by_both)
    for name in [name for name in dir(dist) if "_object" in name]:
        monkeypatch.setattr(dist, name, None)  # they are sent on a card that has to be chosen before
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.mark.parametrize("wrap", [nn.parallel.DistributedDataParallel, fully_shard])
def test_models_of_floats_need_no_store_that_keeps_anything(wrap):
    """They may be of users of no lnsnum, with a group for show, as torch's own tests have it; those of codes say so."""
    dist.init_process_group("fake", store=fake_pg.FakeStore(), rank=0, world_size=2)
    try:
        floats, codes = nn.Linear(4, 4), nn.Linear(4, 4)
        convert_model(codes, "lns8f5")
        assert wrap(floats)(torch.ones(2, 4)).shape == (2, 4)
        with pytest.raises(exchange.LostError, match="the key-value store of the processes takes nothing of what this"):
            wrap(codes)(torch.ones(2, 4))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("wrap", [nn.parallel.DistributedDataParallel, fully_shard])
def test_models_of_floats_wait_for_nobody_who_has_no_codes(wrap, monkeypatch):
    """The other process may not have imported lnsnum: it is in its forward, which times out while this one waits."""
    monkeypatch.setattr(conversions, "hear", None)
    monkeypatch.setattr(replicas, "hear", None)
    dist.init_process_group("fake", store=dist.HashStore(), rank=0, world_size=2)
    try:
        convert_model(nn.Linear(4, 4), "lns8f5")  # this process's own codes, of another model, are no reason to wait
        for _ in range(2):
            assert wrap(nn.Linear(4, 4))(torch.ones(2, 4)).shape == (2, 4)
        monkeypatch.setattr(conversions, "groups_of", None)  # nor is it their concern what else may fail
        monkeypatch.setattr(replicas, "tell", None)
        assert wrap(nn.Linear(4, 4))(torch.ones(2, 4)).shape == (2, 4)
    finally:
        dist.destroy_process_group()


def test_models_of_floats_hear_of_codes_that_were_announced():
    dist.init_process_group("fake", store=dist.HashStore(), rank=0, world_size=2)
    try:
        dist.distributed_c10d._get_default_store().set("lnsnum/announced/1", "")
        held = exchange._get_process_group_store(dist.group.WORLD)
        held.set("lnsnum/parameters/1/1", '{"the number of LNS weights": "1"}')
        held.set("lnsnum/parameters/2/1", f'{{"the number of LNS weights": "0", "{exchange.FOUND}": ""}}')
        with pytest.raises(RuntimeError, match="number of LNS weights is 1 on process 1 and 0 on process 0: every pro"):
            fully_shard(nn.Linear(4, 4))(torch.ones(2, 4))
        # the next of its models has floats too, which its Madam compared
        assert fully_shard(nn.Linear(4, 4))(torch.ones(2, 4)).shape == (2, 4)
    finally:
        dist.destroy_process_group()


def test_a_forward_waits_for_those_that_gather_with_it_and_not_for_replicas(monkeypatch):
    """These may forward later, or never: one of them may evaluate for all."""
    asked = []
    monkeypatch.setattr(conversions, "compare", lambda subject, told, *groups: asked.append(groups))
    dist.init_process_group("fake", store=dist.HashStore(), rank=0, world_size=2)
    try:
        model = nn.Linear(4, 4)
        convert_model(model, "lns8f5")
        mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard"))
        fully_shard(model, mesh=mesh)(torch.ones(2, 4))
        assert asked == [(mesh.get_group("shard"),)]
    finally:
        dist.destroy_process_group()


def test_a_torch_whose_states_begin_otherwise_is_left_as_it_is():
    class States:
        _modules, _is_root = (), None

    conversions._watch(States)
    assert not hasattr(States, "_lazy_init")
    begun = []
    begin = States._lazy_init = lambda state: begun.append(state)
    for _ in range(2):  # as where lnsnum is imported anew
        conversions._watch(States)
        assert States._lazy_init.__wrapped__ is begin
    state = States()
    state._lazy_init()
    assert begun == [state]


class Collectives(TorchDispatchMode):
    """Sees the tensors of each collective."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace in ("c10d", "_c10d_functional"):
            tensors = [one for one in torch.utils._pytree.tree_leaves(args) if isinstance(one, torch.Tensor)]
            self.seen.setdefault(function._opname, set()).update((one.dtype, one.device.type) for one in tensors)
        return function(*args, **(kwargs or {}))


def a_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    convert_model(model, {"0.*": "lns8f5", "2.*": "lns16f10"}, per_channel=True)
    return model


def steps(outer: nn.Module, model: nn.Module) -> Madam:
    optimizer = Madam(parameter_groups(model), momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        outer(torch.ones(2, 8)).square().sum().backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("way", ["replicas", "shards"])
def test_any_backend_can_send_what_is_sent(way, group, tmp_path):
    model, collectives = a_model(), Collectives()
    with warnings.catch_warnings(), collectives:
        warnings.simplefilter("ignore")
        if way == "shards":
            fully_shard(model)
            steps(model, model).step_report(together=True)
        else:
            outer = nn.parallel.DistributedDataParallel(model)
            ship_gradients_as_codes(outer)  # torch's own exchange makes more of a result than this backend has
            optimizer = steps(outer, model)
            compare_replicas(outer, optimizer, every=1)
            optimizer.step()
    assert collectives.seen
    for name, seen in collectives.seen.items():
        assert {dtype for dtype, _ in seen} <= SENT, name
        assert {device for _, device in seen} == {"cpu"}


def test_first_forwards_are_seen_whichever_is_imported_first():
    """torch's sharding takes seconds to import, so it is not there where lnsnum is imported alone."""
    imported = ["import lnsnum.torch_bridge", "from torch.distributed.fsdp import fully_shard"]
    watched = "from torch.distributed.fsdp._fully_shard._fsdp_state import FSDPState; FSDPState._lazy_init.__wrapped__"
    others = "from torch.distributed._composable.replicate import _ReplicateState"
    program = "\n".join([*imported, watched, others])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
