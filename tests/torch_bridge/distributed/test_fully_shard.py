"""fully_shard on converted models: shards of codes, gathered as bytes; codes as of one process.

Each check runs within the one group of processes that this file starts; the tests look at what came back.
"""

import os
import shutil
import warnings
from dataclasses import asdict

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from processes import everywhere, two_hosts
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from lnsnum.torch_bridge import (
    LNSWeight,
    Madam,
    convert_model,
    decode_model,
    load_model,
    log_offsets,
    parameter_groups,
    save_model,
    save_model_together,
    set_log_offsets,
)
from lnsnum.torch_bridge.datapath import use_datapath
from lnsnum.torch_bridge.datapath.setting import setting_of
from lnsnum.torch_bridge.distributed import parallel_files
from lnsnum.torch_bridge.kernels.scale import RMS, Fit, Scale

torch.set_num_threads(1)

if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("torch was built without gloo", allow_module_level=True)


class Words(nn.Module):
    """Rows that two and three processes do not divide, floats, and a bias of one element: a shard without any."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.layers = nn.Sequential(nn.Linear(8, 13), nn.Tanh(), nn.LayerNorm(13), nn.Linear(13, 11))
        self.scale = nn.Linear(11, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.layers(self.embedding(x))
        return logits * self.scale(logits).sigmoid()


class Few(nn.Module):
    """One or two rows, so that of three processes some have none; the last group of a row a rest; a matrix that is the
    first layer and the last, and what is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 40)
        self.layers = nn.Sequential(nn.Linear(40, 1), nn.Tanh(), nn.Linear(1, 2), nn.Linear(2, 40))
        self.last = nn.Linear(40, 11)
        self.last.weight = self.embedding.weight
        self.layers[2].weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(self.embedding(x)))


RUNS: dict[str, dict] = {
    "default": {},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "per channel": {"per_channel": True},
    "float moments": {"second_moment": "float32"},
    "16 bits": {"fmt": "lns16f10"},
    "ceilings that follow": {"p_scale": 0.5, "lr": 0.1},
    "ceilings of channels": {"p_scale": 0.5, "lr": 0.1, "per_channel": True},
    "paper": {"rule": "paper"},
    "reshard": {"layerwise": True},
    "columns": {"columns": True},
    "columns per channel": {"columns": True, "per_channel": True},
    "groups": {"groups": 16},
    "ceilings of groups": {"groups": 16, "p_scale": 0.5, "lr": 0.1, "momentum": 0.9},
    "few rows": {"few": True, "p_scale": 0.5, "lr": 0.1, "momentum": 0.9},
    "few rows in groups": {"few": True, "groups": 16, "p_scale": 0.5, "lr": 0.1},
    "accumulated": {"accumulated": True, "momentum": 0.9},
}

STEPS = 25


def a_run(
    fmt="lns8f5", per_channel=False, p_scale=3.0, layerwise=False, columns=False, groups=None, few=False,
    accumulated=False, **options
) -> tuple:  # fmt: skip
    torch.manual_seed(1)
    model = Few() if few else Words()
    if few:
        pass
    elif groups:
        model = nn.Sequential(nn.Embedding(11, 48), nn.Linear(48, 32, bias=False), nn.Tanh(), nn.Linear(32, 11))
    elif columns:
        model = nn.Sequential(
            nn.Embedding(11, 12), nn.Tanh(), nn.Linear(12, 6, bias=False), nn.Linear(6, 12, bias=False)
        )

    def chosen(name: str, p: nn.Parameter) -> bool:
        return few or "layers.2" not in name

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert_model(model, fmt, filter_fn=chosen, per_channel=per_channel, p_scale=p_scale, group_size=groups)
    return model, options


def sharded(model: nn.Module, layerwise: bool = False, columns: bool = False, **arguments) -> nn.Module:
    if columns:
        arguments["shard_placement_fn"] = lambda p: Shard(1)
    if layerwise:
        for layer in (model.layers[0], model.layers[3]):
            fully_shard(layer, reshard_after_forward=True, **arguments)
    return fully_shard(model, **arguments)


def loss_of(model: nn.Module, rank: int, number: int) -> torch.Tensor:
    words = torch.randint(11, (6, 2), generator=torch.Generator().manual_seed(1000 * number + rank))
    return nn.functional.cross_entropy(model(words[:, 0]), words[:, 1])


def whole_codes(model: nn.Module) -> list:
    """Codes and scales of all parameters, put together from the shards; of floats their values."""
    found = []
    for p in model.parameters():
        local = getattr(p, "_local_tensor", p)
        if p is local:
            parts, scale = [local], getattr(local, "log_offset", None)
        else:
            parts = [None] * dist.get_world_size()
            own = local.codes if isinstance(local, LNSWeight) else local.detach()
            dist.all_gather_object(parts, own.clone())
            whole = getattr(getattr(local, "_span", None), "whole", None)
            scale = whole if whole is not None else getattr(local, "log_offset", None)
        dim = 0 if p is local else p.placements[0].dim
        parts = [part.codes if isinstance(part, LNSWeight) else part.detach() for part in parts]
        found.append((torch.cat(parts, dim).tolist(), None if scale is None else torch.as_tensor(scale).tolist()))
    return found


def trained(rank: int, size: int, name: str) -> tuple:
    options = dict(RUNS[name])
    model, rest = a_run(**options)
    sharded(model, **{key: options[key] for key in ("layerwise", "columns") if key in options})
    kinds = [type(p._local_tensor).__name__ for p in model.parameters()]
    optimizer = Madam(parameter_groups(model), **rest)
    for number in range(STEPS):
        optimizer.zero_grad()
        if "accumulated" in options:
            model.set_requires_gradient_sync(False)
            loss_of(model, rank, number + STEPS).backward()
            model.set_requires_gradient_sync(True)
        loss_of(model, rank, number).backward()
        optimizer.step()
    return whole_codes(model), kinds


def averaged(own: list[torch.Tensor], columns: bool) -> torch.Tensor:
    """Gradients as reduce_scatter of gloo averages them: those of shard k around the ring, from process k - 1 down."""
    size = len(own)
    parts = [gradient.chunk(size, 1 if columns else 0) for gradient in own]
    shards = []
    for k in range(len(parts[0])):
        total = parts[(k - 1) % size][k]
        for other in range(2, size + 1):
            total = total + parts[(k - other) % size][k]
        shards.append(total / size)
    return torch.cat(shards, 1 if columns else 0)


def trained_alone(size: int, name: str) -> list:
    options = dict(RUNS[name])
    model, rest = a_run(**options)
    optimizer = Madam(parameter_groups(model), **rest)
    step_alone(model, optimizer, size, range(STEPS), options.get("columns", False), STEPS * ("accumulated" in options))
    return whole_codes(model)


def step_alone(
    model: nn.Module, optimizer: Madam, size: int, numbers: range, columns: bool = False, second: int = 0
) -> None:
    """Steps in one process, by the average of the micro-batches of all; of two each, `second` numbers apart."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    for number in numbers:
        own = [list(torch.autograd.grad(loss_of(model, rank, number), parameters)) for rank in range(size)]
        for rank, gradients in enumerate(own if second else ()):
            before = torch.autograd.grad(loss_of(model, rank, number + second), parameters)
            gradients[:] = map(torch.add, before, gradients)
        for k, p in enumerate(parameters):
            p.grad = averaged([gradients[k] for gradients in own], columns)
        optimizer.step()


# -------------------------------------------------------------------------------------------------------- bytes, memory


class Counted:
    """What all_gather ships, by wrapping the function that fully_shard calls."""

    def __init__(self) -> None:
        self.bytes = 0
        self.name = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"
        self.own = getattr(dist, self.name)

    def __enter__(self) -> "Counted":
        def counting(*args, **kwargs):
            given = kwargs.get("input_tensor", args[1] if len(args) > 1 else None)
            self.bytes += given.numel() * given.itemsize
            return self.own(*args, **kwargs)

        setattr(dist, self.name, counting)
        return self

    def __exit__(self, *_) -> None:
        setattr(dist, self.name, self.own)


def bytes_shipped(rank: int) -> dict:
    found = {}
    for name, convert in (("codes", True), ("floats", False)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(32, 48, bias=False), nn.Tanh(), nn.Linear(48, 16, bias=False))
        if convert:
            convert_model(model, "lns8f5")
        fully_shard(model)
        with Counted() as counted:
            model(torch.ones(2, 32)).sum().backward()
        found[name] = counted.bytes
    return found


def mixed_precision(rank: int) -> tuple:
    """Codes decode to bfloat16 themselves: activations are those of the model that appears so."""
    model, _ = a_run()
    expected = None
    whole, _ = a_run()
    with torch.no_grad():
        expected = whole.to(torch.bfloat16)(torch.arange(4))
    fully_shard(model, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    with torch.no_grad():
        found = model(torch.arange(4))
    return found.dtype == torch.bfloat16, torch.equal(found, expected)


def clipped(rank: int) -> tuple:
    model, _ = a_run()
    fully_shard(model)
    optimizer = Madam(parameter_groups(model))
    loss_of(model, rank, 0).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    after = nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    optimizer.step()
    return float(norm.full_tensor()), float(after.full_tensor()), whole_codes(model)


CHECKPOINTS: dict[str, dict] = {"one scale": {}, "channels": {"per_channel": True}, "groups": {"groups": 16}}


def begun(options: dict) -> tuple:
    """A model whose ceilings grow within the first 21 steps."""
    model, _ = a_run(p_scale=0.5, **options)
    fully_shard(model)
    return model, Madam(parameter_groups(model), momentum=0.9, lr=0.1)


def continued(model: nn.Module, optimizer: Madam, rank: int, numbers: range) -> list:
    for number in numbers:
        optimizer.zero_grad()
        loss_of(model, rank, number).backward()
        optimizer.step()
    return whole_codes(model)


def saved(rank: int, folder, options: dict) -> tuple:
    """What was saved after 21 steps, and three steps more, which a model that is loaded repeats."""
    model, optimizer = begun(options)
    codes = continued(model, optimizer, rank, range(21))
    weights, state = get_state_dict(model, optimizer)
    whole = {"log_offsets": log_offsets(model), "model": weights, "optimizer": state}
    if options:
        dcp.async_save(whole, checkpoint_id=folder).result()
    else:
        dcp.save(whole, checkpoint_id=folder)
    after = continued(model, optimizer, rank, range(21, 24))
    told = told_by(lambda: loaded(folder, options, scales=False))
    other, resumed = loaded(folder, options)
    return codes, whole_codes(other), after, continued(other, resumed, rank, range(21, 24)), told


def loaded(folder, options: dict, scales: bool = True) -> tuple:
    model, optimizer = begun(options)
    offsets = log_offsets(model)
    before = {name: one.clone() for name, one in offsets.items()}
    dcp.load({"log_offsets": offsets}, checkpoint_id=folder)
    assert any(not torch.equal(one, before[name]) for name, one in offsets.items())
    if scales:
        set_log_offsets(model, offsets)
    weights, state = get_state_dict(model, optimizer)
    given = {"model": weights, "optimizer": state}
    dcp.load(given, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
    return model, optimizer


def loaded_by_others(rank: int, folder) -> dict:
    """Codes as they were saved, and after three steps more, whose gradients these processes average."""
    found = {}
    for name, options in CHECKPOINTS.items():
        model, optimizer = loaded(folder / name, options)
        found[name] = whole_codes(model), continued(model, optimizer, rank, range(21, 24))
    return found


def continued_alone(options: dict, before: int, after: int) -> tuple:
    """The same in one process, on the average of so many before and after the checkpoint."""
    model, _ = a_run(p_scale=0.5, **options)
    optimizer = Madam(parameter_groups(model), momentum=0.9, lr=0.1)
    step_alone(model, optimizer, before, range(21))
    codes = whole_codes(model)
    step_alone(model, optimizer, after, range(21, 24))
    return codes, whole_codes(model)


def told_by(function) -> str:
    try:
        function()
    except (RuntimeError, ValueError, TypeError, NotImplementedError, FloatingPointError, CheckpointException) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def refusals(rank: int) -> dict:
    model, _ = a_run()
    fully_shard(model)
    weight = model.embedding.weight
    found = {"full_tensor": told_by(weight.full_tensor), "zero": told_by(lambda: Madam([weight], zero="raise"))}
    found["save"] = told_by(lambda: save_model("nowhere", model))
    found["load"] = told_by(lambda: load_model("nowhere", model))
    found["decode"] = told_by(lambda: decode_model(model))
    local = weight._local_tensor
    other = LNSWeight(local.codes.clone(), local.fmt, local.log_offset + 1)
    found["other scale"] = told_by(lambda: local.copy_(other)).replace(str(local.log_offset), "n")
    before = local.codes.clone()
    weight.data.copy_(weight.detach())
    found["itself"] = str(torch.equal(before, local.codes))
    optimizer = Madam(parameter_groups(model), seed=rank)
    loss_of(model, rank, 0).backward()
    found["seed"] = told_by(optimizer.step)
    found["attach"] = told_by(lambda: Madam(parameter_groups(model)).attach(model))
    found["for_graph"] = told_by(lambda: Madam(parameter_groups(model)).make_state(for_graph=True))
    if rank == 1:
        weight.grad._local_tensor[0, 0] = torch.nan
    found["not finite"] = told_by(Madam(parameter_groups(model), non_finite="raise").step)
    return found


GROWING = {"p_scale": 0.5, "lr": 0.1}


def reported(rank: int) -> tuple:
    """Of the 20th step, in which scales grow: what this process did, and all."""
    model, rest = a_run(**GROWING)
    fully_shard(model)
    optimizer = Madam(parameter_groups(model), **rest)
    continued(model, optimizer, rank, range(20))
    own = optimizer.step_report()
    whole = optimizer.step_report(together=True)
    for state in optimizer.state.values():
        state["step"] += rank
    return asdict(own), asdict(whole), str(own), told_by(lambda: optimizer.step_report(together=True))


def one_layer(seed: int = 0, fmt: str | None = "lns8f5", **options) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(32, 6), nn.Tanh())
    if fmt is not None:
        convert_model(model, fmt, **options)
    return model


def other_numbers(rank: int) -> str:
    """A learning rate that one process changes after the first step."""
    model, _ = a_run()
    fully_shard(model)
    optimizer = Madam(parameter_groups(model))
    for number in range(2):
        loss_of(model, rank, number).backward()
        told = told_by(optimizer.step)
        if rank == 1:
            optimizer.param_groups[0]["lr"] = 0.1
    return told


def sent(rank: int, sharded: bool, on: str = "cpu") -> str:
    """A state that the first process sends, in codes and in floats; to a model that has no memory yet, too."""
    model, _ = a_run()
    state = model.state_dict() if rank == 0 else {}
    model = model.to(on)
    if sharded:
        fully_shard(model)
    elif on != "meta":
        model = nn.parallel.DistributedDataParallel(model)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    return told_by(lambda: set_model_state_dict(model, state, options=options))


def differing(rank: int) -> dict:
    """Models that are not the same on both, and what cannot be sharded."""

    def gathered(model: nn.Module) -> None:
        fully_shard(model)(torch.ones(2, 32))

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    plans = {"columns": ColwiseParallel(), "rows": RowwiseParallel()}
    plans["rows of an embedding"] = RowwiseParallel(input_layouts=Replicate())
    found = {"scale": told_by(lambda: gathered(one_layer(rank)))}
    found["scales"] = told_by(lambda: gathered(one_layer(rank, per_channel=True)))
    found["format"] = told_by(lambda: gathered(one_layer(0, "lns16f10" if rank else "lns8f5")))
    last = {"shard_placement_fn": lambda p: Shard(p.ndim - 1)}
    uneven = nn.Sequential(nn.Linear(31, 6))
    convert_model(uneven, "lns8f5")
    found["uneven"] = told_by(lambda: fully_shard(uneven, **last))
    torch.manual_seed(0)
    for name, layer in (("rows", nn.Embedding(6, 4, sparse=True)), ("bags", nn.EmbeddingBag(6, 4, sparse=True))):
        convert_model(layer, "lns8f5")
        words = torch.arange(4).reshape(2, 2)
        found[f"sparse {name}"] = told_by(lambda layer=layer, words=words: fully_shard(layer)(words).sum().backward())
    found["through groups"] = told_by(lambda: fully_shard(one_layer(group_size=16), **last))
    found["groups"] = told_by(lambda: gathered(one_layer(group_size=None if rank else 16)))
    found["not converted"] = told_by(
        lambda: Madam(parameter_groups(fully_shard(one_layer(0, None if rank else "lns8f5"))))
    )
    # without an optimizer, or with one of torch's, nothing but the forward tells of it
    for name, converts in (("not converted, in inference", rank == 0), ("floats", False)):
        found[name] = told_by(lambda converts=converts: gathered(one_layer(0, "lns8f5" if converts else None)))
    for name, plan in plans.items():
        for group_size in (None, 16):
            model = nn.Sequential(nn.Embedding(6, 32) if "embedding" in name else nn.Linear(32, 6))
            convert_model(model, "lns8f5", group_size=group_size)
            told = told_by(lambda model=model, plan=plan: parallelize_module(model, mesh, {"0": plan}))
            found[name, group_size] = told
    if not torch.accelerator.is_available():
        offloading = CPUOffloadPolicy()
        found["pinned"] = told_by(lambda: fully_shard(one_layer(), offload_policy=offloading))
    return found


def other_replicas(rank: int) -> dict:
    """Shards that both processes have whole: torch would train each for itself."""
    mesh, found = init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard")), {}
    for name in ("nothing", "codes", "scale", "floats"):
        model = a_run()[0]
        weight = model.layers[0].weight
        with torch.no_grad():
            if rank and name == "codes":
                weight.codes[3, 2] ^= 1
            elif rank and name == "scale":
                weight.set_scale(Scale(-110, -110))
            elif rank and name == "floats":
                model.layers[2].weight[1] = 2.0
        fully_shard(model, mesh=mesh)
        loss_of(model, rank, 0).backward()
        found[name] = told_by(Madam(parameter_groups(model)).step)
    return found


def set_alike(rank: int) -> str:
    """Scales that differ when the model is sharded, and not any more when it is gathered, are those of a checkpoint."""
    model = one_layer(rank)
    fully_shard(model)
    set_log_offsets(model, dict.fromkeys(log_offsets(model), torch.tensor(-110)))
    return told_by(lambda: model(torch.ones(2, 32)))


def stepped(rank: int, compiled: str = "", backend: str = "aot_eager", **arguments) -> list:
    """Codes after five steps on a model that is compiled before or after it is sharded, or not at all."""
    torch._dynamo.reset()
    model = a_run(momentum=0.9)[0]
    if compiled == "before":
        model.compile(backend=backend)
    fully_shard(model, **arguments)
    called = torch.compile(model, backend=backend) if compiled == "after" else model
    optimizer = Madam(parameter_groups(model), momentum=0.9)
    for number in range(5):
        optimizer.zero_grad()
        loss_of(called, rank, number).backward()
        optimizer.step()
    return whole_codes(model)


def offloaded(rank: int) -> bool:
    return stepped(rank) == stepped(rank, offload_policy=CPUOffloadPolicy(pin_memory=False))


# ------------------------------------------------------------------------------------------ weight files, one a process


def weights_of(model: nn.Module) -> list[LNSWeight]:
    return [p for p in model.parameters() if isinstance(p, LNSWeight)]


FILES: dict[str, dict] = {**CHECKPOINTS, "columns": {"columns": True}}


def saved_together(rank: int, folder) -> dict:
    """Twice, in other numbers; then one process cannot write."""
    found: dict = {}
    for name, options in FILES.items():
        model, _ = a_run(**options)
        for p in weights_of(model):
            p.fit = Fit("mse") if name == "groups" else Fit("rms", 2.5)
        sharded(model, columns="columns" in options)
        found[name] = whole_codes(model), str(save_model_together(folder / name, model, metadata={"by": "two"}))
    model, _ = a_run()
    save_model_together(folder / "replicas", model)
    before = sorted(path.name for path in folder.iterdir())
    with torch.no_grad():
        model.scale.weight.neg_()

    def fails(*_, **__):
        raise OSError("the disk is full")

    whole = parallel_files.save_tensors
    parallel_files.save_tensors = fails if rank == 1 else whole
    found["refused"] = told_by(lambda: save_model_together(folder / "replicas", model)).replace(str(folder), "")
    parallel_files.save_tensors = whole
    dist.barrier()
    found["unchanged"] = before == sorted(path.name for path in folder.iterdir())
    dist.barrier()
    save_model_together(folder / "replicas", model)
    found["replaced"] = len(before) == len(list(folder.iterdir()))
    found["name"] = told_by(lambda: save_model_together(folder / "a:b", model))
    save_model_together(folder / "datapath", use_datapath(one_layer(), "lns_madam_8bit"))
    found["wrapped"] = told_by(
        lambda: save_model_together(folder / "odd", nn.parallel.DistributedDataParallel(one_layer()))
    )
    odd = one_layer()
    odd.register_buffer("odd", torch.zeros(1).to(torch.float8_e4m3fn))
    found["type"] = told_by(lambda: save_model_together(folder / "odd", odd)).replace(str(folder), "")
    if rank == 1:
        del odd.odd
    for p in weights_of(ruled := one_layer()):
        p.fit = Fit("max") if rank else RMS
    found["other rules"] = told_by(lambda: save_model_together(folder / "odd", ruled))
    found["other tensors"] = told_by(lambda: save_model_together(folder / "odd", odd))
    found["written of these"] = [path.name for path in folder.glob("*odd*")]
    return found


def all_checks(rank: int, size: int, folder) -> dict:
    warnings.simplefilter("ignore")
    runs = [name for name in RUNS if size == 2 or "columns" not in RUNS[name] or size == 3]
    found: dict = {("trained", name): trained(rank, size, name) for name in runs}
    found |= {("saved", name): saved(rank, folder / name, options) for name, options in CHECKPOINTS.items()}
    for check in (bytes_shipped, mixed_precision, clipped, refusals, differing, set_alike, offloaded, other_numbers):
        found[check.__name__] = check(rank)
    found["sent"] = [sent(rank, sharded) for sharded in (True, False)] + [sent(rank, False, "meta")]
    found["sent to shards without memory"] = sent(rank, True, "meta")
    found["reported"] = reported(rank)
    if size == 2:
        found["other_replicas"] = other_replicas(rank)
    (folder / "files").mkdir(exist_ok=True)
    dist.barrier()
    found["files"] = saved_together(rank, folder / "files")
    found["folder"] = folder / "files"
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    return everywhere(2, all_checks, tmp_path_factory.mktemp("two"), 2, tmp_path_factory.mktemp("saved"))


def check_runs(found: list[dict], size: int, name: str) -> None:
    codes, kinds = zip(*(each["trained", name] for each in found), strict=True)
    assert all(one == codes[0] for one in codes)
    assert codes[0] == trained_alone(size, name)
    assert kinds[0].count("LNSWeight") == len(kinds[0]) - kinds[0].count("Tensor") > 2


@pytest.mark.parametrize("name", RUNS)
def test_codes_are_those_of_one_process(name, found):
    check_runs(found, 2, name)


def test_a_quarter_of_the_bytes_is_gathered(found):
    for each in found:
        assert each["bytes_shipped"]["floats"] == 4 * each["bytes_shipped"]["codes"]
        assert each["bytes_shipped"]["codes"] >= (32 * 48 + 48 * 16) // 2


def test_shards_appear_in_the_type_of_mixed_precision(found):
    assert [each["mixed_precision"] for each in found] == [(True, True)] * 2


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_resumes_code_for_code(name, found):
    first, second = (each["saved", name] for each in found)
    codes, again, after, resumed, told = first
    assert again == codes
    assert resumed == after != codes
    assert first[:4] == second[:4]
    for each in (told, second[4]):
        assert "cannot become those of a shard" in each
        assert "call set_log_offsets(model, ...)" in each


def test_gradients_are_clipped_together(found):
    first, second = (each["clipped"] for each in found)
    assert first == second
    assert first[0] > 1e-2
    assert first[1] == pytest.approx(1e-3, rel=1e-4)


def test_what_shards_cannot_do_is_told_on_both(found):
    first, second = (each["refusals"] for each in found)
    assert first == second
    wanted = {
        "full_tensor": "NotImplementedError: _c10d_functional",
        "zero": "ValueError: parameter 0 of the group is a part of one, and zero='raise' looks at all",
        "save": "TypeError: 'embedding.weight' is a DTensor, of which other processes hold parts: load before",
        "load": "TypeError: 'embedding.weight' is a DTensor, of which other processes hold parts: load before",
        "decode": "TypeError: parameter 'embedding.weight' is a shard, of which other processes hold the rest",
        "other scale": "ValueError: codes at log_offset ",
        "itself": "True",
        "seed": "RuntimeError: Madam's seed of group 0 is 1 on process 1 and 0 on process 0",
        "attach": "TypeError: the model is a FSDP",
        "for_graph": "ValueError: a step of what fully_shard has cut cannot be compiled",
        "not finite": "FloatingPointError: 1 elements of a gradient of shape (11, 8) are NaN or infinite",
    }
    for name, told in wanted.items():
        assert first[name].startswith(told), (name, first[name])


def test_models_that_differ_and_what_has_no_shards_are_told_on_both(found):
    first, second = (each["differing"] for each in found)
    assert first == second
    alike = "codes are gathered as they are, so every process has to convert the model alike"
    for name, told in {"scale": " at log_offset -117 ", "scales": " at log_offsets hashed "}.items():
        assert first[name].startswith("RuntimeError: weight 0 of those that were sharded is lns")
        assert told in first[name]
        assert alike in first[name]
    plain = "lns8f5 of shape (6, 32)"
    for name, (other, own) in {
        "format": ("lns16f10 of shape (6, 32)", plain),
        "groups": (plain, f"{plain} in groups of 16"),
    }.items():
        told = f"LNS weight 0 is {other} on process 1 and {own} on process 0: every process has to convert the model"
        assert first[name] == f"RuntimeError: {told} alike, before fully_shard"
    assert first["through groups"].startswith(
        "NotImplementedError: a weight of shape (6, 32) with a log_offset for each group of 16 elements along dimension"
    )
    told = (
        "the number of LNS weights is 0 on process 1 and 2 on process 0: every process has to convert the model alike"
    )
    for name in ("not converted", "not converted, in inference"):
        assert first[name] == f"RuntimeError: {told}, before fully_shard"
    assert first["floats"] == "nothing"
    assert first["uneven"].startswith("NotImplementedError: FSDP does not support uneven sharding on dim 1")
    for name in ("sparse rows", "sparse bags"):
        assert first[name].startswith(
            "NotImplementedError: fully_shard adds gradients of whole weights, and sparse=True"
        )
    parallel = {name: told for name, told in first.items() if isinstance(name, tuple)}
    assert len(parallel) == 6
    for told in parallel.values():
        assert told.startswith("NotImplementedError: a DTensor, which distribute_tensor and parallelize_module")
    if "pinned" in first:
        assert "CPUOffloadPolicy(pin_memory=False)" in first["pinned"]


def test_replicas_of_shards_that_differ_are_told_on_both(found):
    first, second = (each["other_replicas"] for each in found)
    assert first == second
    assert first.pop("nothing") == "nothing"
    for told in first.values():
        assert told.startswith("RuntimeError: parameter ")
        assert "has other codes, or another scale, on process 1 than on process 0, which have one shard of it" in told


def test_a_learning_rate_that_comes_to_differ_is_told_on_both(found):
    first, second = (each["other_numbers"] for each in found)
    assert first == second
    told = "Madam's lr of group 0 is 0.1 on process 1 and 0.05 on process 0: this step has moved"
    assert first.startswith(f"RuntimeError: {told}")


def test_a_state_that_the_first_process_sends_is_refused_on_both(found):
    told = "NotImplementedError: set_model_state_dict(broadcast_from_rank0=True) would send floats of LNS weights: give"
    to_meta = "NotImplementedError: floats cannot take the place of shards of LNS weights, here of one of shape (11, 8)"
    for each in found:
        assert all(one.startswith(told) for one in each["sent"])
        assert each["sent to shards without memory"].startswith(to_meta)


def test_a_step_is_reported_of_shards_by_name_or_of_all(found):
    (own, together, shown, told), (other, *_) = (each["reported"] for each in found)
    assert found[1]["reported"][1] == together
    assert told == found[1]["reported"][3]
    assert told.startswith("RuntimeError: the last step is 21 on process 1 and 20 on process 0: call step_report(toge")
    model, rest = a_run(**GROWING)
    optimizer = Madam(parameter_groups(model), **rest)
    step_alone(model, optimizer, 2, range(20))
    assert together == asdict(optimizer.step_report())
    assert together["grown"] > 0
    assert own["weights"] + other["weights"] == together["weights"]
    assert (own["process"], other["process"], own["processes"]) == (0, 1, 2)
    assert shown.splitlines()[-1].startswith("of the shards of process 0, one of 2: step_report(together=True) on")


def test_scales_may_be_set_alike_after_sharding(found):
    assert [each["set_alike"] for each in found] == ["nothing"] * 2


def test_shards_offloaded_to_the_cpu_step_alike(found):
    assert [each["offloaded"] for each in found] == [True] * 2


def check_files(found: list[dict], size: int) -> None:
    first = found[0]["files"]
    assert all(each["files"] == first for each in found)
    folder = found[0]["folder"]
    for name, options in FILES.items():
        codes, index = first[name]
        assert index == str(folder / f"{name}.index.json")
        assert len(list(folder.glob(f"{name}-*"))) == size
        model, _ = a_run(**options)
        for p in model.parameters():
            p.data.zero_()
        assert whole_codes(load_model(folder / name, model)) == codes
        assert {p.fit for p in weights_of(model)} == {Fit("mse") if name == "groups" else Fit("rms", 2.5)}
    assert first["refused"].startswith(
        "RuntimeError: the model is not saved to /replicas, where all is as before: process"
    )
    assert first["refused"].endswith("process 1 said OSError: the disk is full")
    assert first["unchanged"]
    assert first["replaced"]
    model = load_model(folder / "datapath", one_layer(1))
    assert setting_of(model) == setting_of(use_datapath(one_layer(), "lns_madam_8bit"))
    assert first["wrapped"].startswith("TypeError: model is a DistributedDataParallel, which has other names: give")
    assert "said TypeError: tensor 'odd' is of float8_e4m3fn, which weight files cannot hold" in first["type"]
    assert first["other tensors"].startswith("RuntimeError: 'odd' is missing on process 1 and torch.float8_e4m3fn of")
    assert "lns8f5 of" in first["other rules"]
    assert "lns8f5 by the rule 'max' of" in first["other rules"]
    assert first["written of these"] == []
    assert first["name"].startswith("ValueError: 'a:b' cannot name a set of files")
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_each_process_writes_a_file_of_one_set(found):
    check_files(found, 2)


@pytest.fixture(scope="module")
def found_by_three(tmp_path_factory) -> list[dict]:
    return everywhere(3, all_checks, tmp_path_factory.mktemp("three"), 3, tmp_path_factory.mktemp("saved"))


@pytest.mark.distributed
@pytest.mark.parametrize("name", RUNS)
def test_codes_of_three_processes_are_those_of_one(name, found_by_three):
    check_runs(found_by_three, 3, name)


@pytest.mark.distributed
def test_each_of_three_processes_writes_a_file_of_one_set(found_by_three):
    check_files(found_by_three, 3)


def gradients_of(rank: int, compiled: bool) -> list:
    torch._dynamo.reset()
    model = a_run()[0]
    if compiled:
        model.compile()
    fully_shard(model)
    loss_of(model, rank, 0).backward()
    return [p.grad._local_tensor for p in model.parameters()]


def compiled_by_inductor(rank: int) -> tuple:
    """torch.compile's own backend makes C++ that adds in another order; its step is torch's, and ours."""
    warnings.simplefilter("ignore")
    found, expected = (gradients_of(rank, compiled) for compiled in (True, False))
    close = [torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, expected, strict=True)]
    return all(close), stepped(rank, "before", backend="inductor")


@pytest.mark.distributed
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
def test_what_inductor_compiles_trains_alike(tmp_path):
    (close, first), (also_close, second) = everywhere(2, compiled_by_inductor, tmp_path, seconds=900)
    assert close
    assert also_close
    assert first == second


def compiled_both_ways(rank: int) -> list:
    warnings.simplefilter("ignore")
    return [stepped(rank, compiled) for compiled in ("", "before", "after")]


@pytest.mark.distributed
def test_a_compiled_model_has_the_same_codes(tmp_path):
    first, second = everywhere(2, compiled_both_ways, tmp_path)
    assert first == second
    assert first[0] == first[1] == first[2]


def saved_all(rank: int, folder) -> dict:
    return {name: saved(rank, folder / name, options)[0] for name, options in CHECKPOINTS.items()}


def check_resumed(found: list[dict], before: int) -> None:
    for name, options in CHECKPOINTS.items():
        expected = continued_alone(options, before, len(found))
        assert all(each[name] == expected for each in found)


@pytest.mark.distributed
def test_one_three_and_four_go_on_from_a_checkpoint_of_two(tmp_path):
    folders = {size: tmp_path / f"of {size}" for size in range(1, 5)}
    for folder in (*folders.values(), tmp_path / "saved"):
        folder.mkdir()
    everywhere(2, saved_all, folders[2], tmp_path / "saved")
    for size in (1, 3, 4):
        check_resumed(everywhere(size, loaded_by_others, folders[size], tmp_path / "saved"), 2)


# --------------------------------------------------------------------------------------------------------- two machines


def trained_and_saved(rank: int, folder) -> dict:
    return {("trained", "momentum"): trained(rank, 2, "momentum"), "saved": saved(rank, folder, {"groups": 16})[:4]}


@pytest.mark.distributed
def test_two_machines_have_the_codes_of_one_process_and_resume(tmp_path):
    with two_hosts() as hosts:
        (tmp_path / "group").mkdir()
        first, second = everywhere(2, trained_and_saved, tmp_path / "group", tmp_path / "saved", hosts=hosts)
    check_runs([first, second], 2, "momentum")
    codes, again, after, resumed = first["saved"]
    assert first["saved"] == second["saved"]
    assert codes == again
    assert resumed == after != codes


# ------------------------------------------------------------------------------------------------------- four processes


def trained_in_four(rank: int, folder) -> dict:
    names = ("default", "momentum", "ceilings of channels", "ceilings of groups")
    found = {("trained", name): trained(rank, 4, name) for name in names}
    saved_all(rank, folder)
    return found


@pytest.mark.distributed
def test_four_processes_have_the_codes_of_one_and_save_for_two(tmp_path):
    folders = [tmp_path / name for name in ("saved", "four", "two")]
    for folder in folders:
        folder.mkdir()
    found = everywhere(4, trained_in_four, folders[1], folders[0])
    for _, name in found[0]:
        check_runs(found, 4, name)
    check_resumed(everywhere(2, loaded_by_others, folders[2], folders[0]), 4)


REPLICAS = [[0, 1], [2, 3]]


def replicas_of_shards(rank: int) -> tuple | None:
    """Two replicas of two shards; of five processes the last has none."""
    mesh = DeviceMesh("cpu", REPLICAS, mesh_dim_names=("replicate", "shard"))
    if rank >= 4:
        return None
    model, rest = a_run(momentum=0.9, groups=16, p_scale=0.5, lr=0.1)
    fully_shard(model, mesh=mesh)
    optimizer = Madam(parameter_groups(model), **rest)
    for number in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, rank, number).backward()
        optimizer.step()
    shards = [p._local_tensor for p in model.parameters()]
    codes = [(p.codes.tolist(), torch.as_tensor(p.log_offset).tolist()) for p in shards]
    if rank == 3:
        optimizer.param_groups[0]["lr"] = 0.2
    other_lr = told_by(optimizer.step)
    model, _ = a_run()
    if rank == 2:
        with torch.no_grad():
            model.layers[0].weight.codes[0, 0] ^= 1
    fully_shard(model, mesh=mesh)
    other_codes = told_by(lambda: Madam(parameter_groups(model)).step())
    return codes, other_lr, other_codes


@pytest.mark.distributed
@pytest.mark.parametrize("size", [4, 5])
def test_replicas_of_shards_have_the_codes_of_one_process(size, tmp_path):
    found = everywhere(size, replicas_of_shards, tmp_path)[:4]
    model, rest = a_run(momentum=0.9, groups=16, p_scale=0.5, lr=0.1)
    optimizer = Madam(parameter_groups(model), **rest)
    parameters = list(model.parameters())
    for number in range(STEPS):
        own = [torch.autograd.grad(loss_of(model, rank, number), parameters) for rank in range(4)]
        for p, *gradients in zip(parameters, *own, strict=True):
            rows = [(gradients[a] + gradients[b]) / 2 for a, b in REPLICAS]
            p.grad = (rows[0] + rows[1]) / 2
        optimizer.step()
    for rank, (codes, _, _) in enumerate(found):
        for p, (own, offsets) in zip(parameters, codes, strict=True):
            rows = slice(None, -(-len(p) // 2)) if rank % 2 == 0 else slice(-(-len(p) // 2), None)
            assert own == p.codes[rows].tolist()
            whole = torch.as_tensor(p.log_offset)
            assert offsets == (whole[rows] if whole.ndim and len(whole) == len(p) else whole).tolist()
    _, other_lr, other_codes = zip(*found, strict=True)
    assert all(
        told.startswith("RuntimeError: Madam's lr of group 0 is 0.2 on process 3 and 0.1 on") for told in other_lr
    )
    told = "has other codes, or another scale, on process 2 than on process 0, which have one shard of it"
    assert all(told in one for one in other_codes)
