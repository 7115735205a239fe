"""Collectives on a weight are refused: on its decoded floats they would end with other codes on each process.

All of torch's, by their schemas; the public functions in a group of one process; sharding, which would make floats of
codes; checkpoints; and DistributedDataParallel, in one process and in two.
"""

import copy
import json
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing
from processes import leave
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from lnsnum import lns8f5
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model, decode_model, parameter_groups

torch.set_num_threads(1)

if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("torch was built without gloo", allow_module_level=True)

functional = pytest.importorskip("torch.distributed._functional_collectives")

NAMESPACES = ("c10d", "_c10d_functional", "_c10d_functional_autograd", "c10d_functional", "symm_mem", "_dtensor")


@pytest.fixture
def group(tmp_path):
    """A gloo group of this process alone."""
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(seconds=60))
    yield dist.group.WORLD
    dist.destroy_process_group()


def a_weight() -> LNSWeight:
    return LNSWeight.from_float(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), lns8f5, log_offset=-40)


def collectives() -> list:
    """Every overload in the namespaces of communication that takes a tensor or a list of them."""
    found = []
    for schema in torch._C._jit_get_all_schemas():
        namespace, name = schema.name.split("::")
        if namespace in NAMESPACES and any(str(a.type) in ("Tensor", "List[Tensor]") for a in schema.arguments):
            packet = getattr(getattr(torch.ops, namespace), name)
            found.append(getattr(packet, schema.overload_name or "default"))
    return sorted(found, key=str)


def test_every_collective_of_torch_is_refused():
    """Whichever of the tensor arguments is the weight; the others are plain."""
    functions = collectives()
    assert len(functions) > 25
    for function in functions:
        arguments = function._schema.arguments
        for position, argument in enumerate(arguments):
            if str(argument.type) not in ("Tensor", "List[Tensor]"):
                continue
            weight = a_weight()
            before = weight.codes.clone()
            given = [torch.ones(6, 4) if str(a.type) == "Tensor" else None for a in arguments]
            given[position] = weight if str(argument.type) == "Tensor" else [weight]
            with pytest.raises(NotImplementedError, match=r"its codes are what processes must exchange"):
                LNSWeight.__torch_dispatch__(function, (LNSWeight,), tuple(given), {})
            assert torch.equal(weight.codes, before)


CALLS = {
    "broadcast": lambda w, plain, group: dist.broadcast(w, 0),
    "all_reduce": lambda w, plain, group: dist.all_reduce(w),
    "reduce": lambda w, plain, group: dist.reduce(w, 0),
    "all_gather": lambda w, plain, group: dist.all_gather([plain], w),
    "all_gather_into_tensor": lambda w, plain, group: dist.all_gather_into_tensor(plain, w),
    "all_gather_into_tensor out": lambda w, plain, group: dist.all_gather_into_tensor(w, plain),
    "gather": lambda w, plain, group: dist.gather(w, [plain], 0),
    "scatter out": lambda w, plain, group: dist.scatter(w, [plain], 0),
    "reduce_scatter out": lambda w, plain, group: dist.reduce_scatter(w, [plain]),
    "reduce_scatter_tensor": lambda w, plain, group: dist.reduce_scatter_tensor(plain, w),
    "reduce_scatter_tensor out": lambda w, plain, group: dist.reduce_scatter_tensor(w, plain),
    "all_to_all": lambda w, plain, group: dist.all_to_all([plain], [w]),
    "all_to_all out": lambda w, plain, group: dist.all_to_all([w], [plain]),
    "all_to_all_single": lambda w, plain, group: dist.all_to_all_single(plain, w),
    "all_to_all_single out": lambda w, plain, group: dist.all_to_all_single(w, plain),
    "isend": lambda w, plain, group: dist.isend(w, 0),
    "irecv": lambda w, plain, group: dist.irecv(w, 0),
    "recv": lambda w, plain, group: dist.recv(w, 0),
    "batch_isend_irecv": lambda w, plain, group: dist.batch_isend_irecv([dist.P2POp(dist.isend, w, 0)]),
    "functional all_reduce": lambda w, plain, group: functional.all_reduce(w, "sum", group),
    "functional broadcast": lambda w, plain, group: functional.broadcast(w, 0, group),
    "functional all_gather": lambda w, plain, group: functional.all_gather_tensor(w, 0, group),
    "functional reduce_scatter": lambda w, plain, group: functional.reduce_scatter_tensor(w, "sum", 0, group),
    "functional all_to_all": lambda w, plain, group: functional.all_to_all_single(w, None, None, group),
    "functional all_reduce_coalesced": lambda w, plain, group: functional.all_reduce_coalesced([w], "sum", group),
    "functional autograd": lambda w, plain, group: functional.all_gather_tensor_autograd(w, 0, group),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", CALLS)
def test_public_functions_refuse(name, group):
    weight, plain = a_weight(), torch.full((6, 4), 7.0)
    before = weight.codes.clone()
    with pytest.raises(NotImplementedError, match=r"its codes are what processes must exchange: send weight.codes"):
        CALLS[name](weight, plain, group)
    assert torch.equal(weight.codes, before)
    assert (plain == 7).all()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("call", [dist.scatter, dist.reduce_scatter], ids=["scatter", "reduce_scatter"])
def test_weights_in_lists_of_lists_do_not_crash(call, group):
    """torch dispatches on lists of tensors, but not on lists of those: what it does with them must not be garbage."""
    weight, plain = a_weight(), torch.full((6, 4), 7.0)
    arguments = (plain, [weight], 0) if call is dist.scatter else (plain, [weight])
    before = weight.codes.clone()
    if call is dist.scatter and weight.data_ptr() == 0 and not refuses_memory(weight):
        pytest.fail("gloo would read memory at address 0, and end the process")
    try:
        call(*arguments)
    except (NotImplementedError, RuntimeError, TypeError):
        pass
    else:
        assert torch.equal(plain, weight.to_float())
    assert torch.equal(weight.codes, before)


def refuses_memory(weight: LNSWeight) -> bool:
    """Whether what asks torch for the float memory gets an error rather than a null pointer."""
    try:
        torch.utils.dlpack.to_dlpack(weight)
    except (RuntimeError, TypeError, BufferError, NotImplementedError):
        return True
    return False


def test_what_the_message_says_works(group):
    weight = a_weight()
    before = weight.codes.clone()
    dist.broadcast(weight.codes, 0)
    assert torch.equal(weight.codes, before)


def a_model(seed: int = 0, per_channel: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    convert_model(model, lns8f5, per_channel=per_channel)
    return model


X = torch.linspace(-1, 1, 8).reshape(2, 4)


def codes_of(model: nn.Module) -> list[tuple]:
    return [(p.codes.tolist(), torch.as_tensor(p.log_offset).tolist()) for p in model.parameters()]


# ------------------------------------------------------------------------------------------------------------- sharding

CPU = torch.device("cpu")

SHARDING = {
    "FSDP": lambda m, mesh: FullyShardedDataParallel(m, device_id=CPU),
    "FSDP with use_orig_params": lambda m, mesh: FullyShardedDataParallel(m, device_id=CPU, use_orig_params=True),
    "parallelize_module": lambda m, mesh: parallelize_module(m, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()}),
    "distribute_module": lambda m, mesh: distribute_module(m, mesh),
    "distribute_tensor": lambda m, mesh: distribute_tensor(m[0].weight, mesh, [Shard(0)]),
    "distribute_tensor unsent": lambda m, mesh: distribute_tensor(m[0].weight, mesh, [Shard(0)], src_data_rank=None),
    "distribute_tensor whole": lambda m, mesh: distribute_tensor(m[0].weight.detach(), mesh, [Replicate()]),
    "from_local": lambda m, mesh: DTensor.from_local(m[0].weight, mesh, [Shard(0)]),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", SHARDING)
def test_sharding_is_refused_by_name(name, per_channel, group):
    model = a_model(per_channel=per_channel)
    before, expected = codes_of(model), model(X)
    with pytest.raises(NotImplementedError) as caught:
        SHARDING[name](model, init_device_mesh("cpu", (1,)))
    wanted = "FullyShardedDataParallel would make" if "FSDP" in name else "a DTensor, which distribute_tensor"
    told = str(caught.value)
    assert told.startswith(wanted)
    assert "fully_shard" in told
    assert "or decode_model it first" in told
    assert all(isinstance(p, LNSWeight) for p in model.parameters())
    assert codes_of(model) == before
    assert torch.equal(model(X), expected)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_what_is_spread_over_processes_already_is_not_converted(group):
    mesh = init_device_mesh("cpu", (1,))
    for spread, told in (
        (nn.parallel.DistributedDataParallel(nn.Linear(4, 3)), "DistributedDataParallel"),
        (FullyShardedDataParallel(nn.Linear(4, 3), device_id=CPU), "FullyShardedDataParallel"),
        (fully_shard(nn.Linear(4, 3), mesh=mesh), "FSDPModule"),
    ):
        for model in (spread, nn.Sequential(spread)):
            with pytest.raises(TypeError, match=f"the model is a {told}, which goes on with the float parameters"):
                convert_model(model, lns8f5)
    parallel = parallelize_module(nn.Sequential(nn.Linear(4, 3)), mesh, {"0": ColwiseParallel()})
    with pytest.raises(TypeError, match=r"parameter '0.weight' is a DTensor, of which other processes hold parts"):
        convert_model(parallel, lns8f5)


# ---------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("way", ["save", "async_save"])
def test_distributed_checkpoints_hold_the_codes(way, per_channel, group, tmp_path):
    model = a_model(per_channel=per_channel)
    state = model.state_dict()
    if way == "save":
        dcp.save(state, checkpoint_id=tmp_path / "saved")
    else:
        dcp.async_save(state, checkpoint_id=tmp_path / "saved").result()
    other = a_model(1, per_channel)
    loaded = other.state_dict()
    dcp.load(loaded, checkpoint_id=tmp_path / "saved")
    other.load_state_dict(loaded)
    assert codes_of(other) == codes_of(model)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_state_dicts_of_distributed_checkpoints_resume_training(group):
    def trained(model, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            model(X).square().sum().backward()
            optimizer.step()
        return codes_of(model)

    model = a_model()
    optimizer = Madam(model.parameters())
    trained(model, optimizer)
    weights, state = copy.deepcopy(get_state_dict(model, optimizer))
    other = a_model(1)
    resumed = Madam(other.parameters())
    set_state_dict(other, resumed, model_state_dict=weights, optim_state_dict=state)
    assert trained(other, resumed) == trained(model, optimizer)


# ---------------------------------------------------------------------------------------------- DistributedDataParallel


def test_distributed_data_parallel_without_its_first_broadcast(group):
    """Gradients are those of the decoded model, and no code changes."""
    model = a_model()
    plain = decode_model(copy.deepcopy(model))
    before = [p.codes.clone() for p in model.parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = nn.parallel.DistributedDataParallel(model, init_sync=False)
    for module in (wrapped, plain):
        module(torch.linspace(-1, 1, 8).reshape(2, 4)).square().sum().backward()
    for p, q, codes in zip(model.parameters(), plain.parameters(), before, strict=True):
        assert type(p.grad) is torch.Tensor
        assert torch.equal(p.grad, q.grad)
        assert torch.equal(p.codes, codes)


def wrapped(model: nn.Module, **arguments) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.parallel.DistributedDataParallel(model, **arguments)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_model_that_is_converted_within_is_refused(earlier, group):
    """The wrapper would go on with the float parameters, and exchange nothing."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    outer = wrapped(model)
    if earlier:
        outer(X).sum().backward()
    convert_model(model, lns8f5)
    with pytest.raises(RuntimeError, match=r"'0.weight' came into the model after DistributedDataParallel was made"):
        outer(X)
    assert wrapped(model, init_sync=False)(X).shape == (2, 3)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("order", ["compile the wrapper", "wrap the compiled"])
def test_processes_are_compared_when_a_model_is_compiled_too(order, group, fresh):
    model = nn.Sequential(nn.Linear(4, 3))
    late = wrapped(model)
    convert_model(model, lns8f5)

    def compiled(outer: nn.Module) -> nn.Module:
        if order == "compile the wrapper":
            return torch.compile(outer, backend="aot_eager")
        outer.module = torch.compile(model, backend="aot_eager")
        return outer

    with pytest.raises(Exception, match="came into the model after DistributedDataParallel was made"):
        compiled(late)(X)
    torch.compiler.reset()
    assert torch.equal(compiled(wrapped(model, init_sync=False))(X), model(X))


def different(model: nn.Module, what: str) -> None:
    """Change one process's model, as other seeds, files or steps would."""
    with torch.no_grad():
        if what == "a code":
            model[2].weight.codes[1, 2] ^= 1
        elif what == "a scale":
            model[2].weight._span.set(model[2].weight.log_offset - 1, model[2].weight.log_offset - 1)
        elif what == "a channel's scale":
            model[2].weight.scale.offsets[1] += 1
        elif what == "a format":
            convert_model(decode_model(model[2]), "lns8f4")


CASES = ["nothing", "a code", "a scale", "a channel's scale", "a format"]


def train_in_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    files = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=files, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    found = {what: trained_in_two(rank, what) for what in CASES}
    leave()
    (folder / f"{rank}.json").write_text(json.dumps(found))


def trained_in_two(rank: int, what: str) -> str | list:
    model = a_model(per_channel=what == "a channel's scale")
    if rank == 1:
        different(model, what)
    optimizer = Madam(parameter_groups(model))
    try:
        outer = wrapped(model, init_sync=False)
        for step in range(3):
            optimizer.zero_grad()
            outer(X + rank + step).square().sum().backward()
            optimizer.step()
    except RuntimeError as error:
        return str(error)
    return codes_of(model)


def test_two_processes_train_one_model_or_none(tmp_path):
    """Where one's codes, scale or format differ, both refuse at the first forward, in the same words."""
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=train_in_two, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first.pop("nothing") != json.loads(json.dumps(codes_of(a_model())))
    told = "'2.weight' has other codes, or another scale, on process 1 than on process 0: DistributedDataParallel"
    of_formats = first.pop("a format")
    assert {what: message[: len(told)] for what, message in first.items()} == dict.fromkeys(CASES[1:-1], told)
    assert of_formats.startswith(
        "'2.weight' is lns8f4 as torch.float32 of shape (3, 6) on process 1 and lns8f5 as torch.float32 of shape"
    )
