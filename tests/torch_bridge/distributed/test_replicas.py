"""DistributedDataParallel: what two processes have after it was made, and after 20 steps; and what it refuses.

Each check runs within the one pair of processes that this file starts; the tests look at what came back.
"""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
from processes import everywhere
from torch import nn

from lnsnum import LNSFormat
from lnsnum.torch_bridge import (
    LNSWeight,
    Madam,
    compare_replicas,
    convert_model,
    parameter_groups,
    ship_gradients_as_codes,
)
from lnsnum.torch_bridge.distributed.exchange import difference
from lnsnum.torch_bridge.distributed.gradient_codes import pack, unpack

torch.set_num_threads(1)

if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("torch was built without gloo", allow_module_level=True)


def wrapped(model: nn.Module, **arguments) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.parallel.DistributedDataParallel(model, **arguments)


def state_of(model: nn.Module) -> list:
    """Codes and scales, or floats, of all parameters."""
    return [
        (p.codes.tolist(), torch.as_tensor(p.log_offset).tolist()) if isinstance(p, LNSWeight) else p.tolist()
        for p in model.parameters()
    ]


# -------------------------------------------------------------------------------------------------- the first broadcast


def a_model(seed: int, **arguments) -> nn.Module:
    """Formats of both widths, a convolution whose codes are in another order, floats, and what is not trained."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 5), nn.Linear(5, 3))
    model[0].to(memory_format=torch.channels_last)
    with torch.no_grad():
        model[3].weight.mul_(1 + 7 * seed)  # another scale for each seed
    model[4].weight.requires_grad_(False)
    formats = {"0.*": "lns8f5", "3.weight": "lns16f10", "3.bias": "lns8f3", "4.*": "lns8f5"}
    convert_model(model, formats, **arguments)
    return model


BROADCASTS = {"one scale": {}, "a scale for each channel": {"per_channel": True}}


def broadcast(rank: int, arguments: dict) -> tuple:
    model = a_model(rank, **arguments)
    wrapped(model)
    return state_of(model), [type(p) is not LNSWeight or p._span.low <= p._span.high for p in model.parameters()]


# ------------------------------------------------------------------------------------------------------------- refusals


def small(fmt: str | dict | None = "lns8f5", width: int = 3, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, width, bias=bias))
    if fmt is not None:
        convert_model(model, fmt)
    return model


DIFFERENT = {
    "a format": (lambda: small({"0.*": "lns8f5", "2.*": "lns8f4"}), "'2.weight' is lns8f4 as torch.float32 of shape"),
    "a shape": (
        lambda: small(width=2),
        "'2.weight' is lns8f5 as torch.float32 of shape (2, 6) on process 1 and lns8f5",
    ),
    "one less": (lambda: small(bias=False), "'2.bias' is missing on process 1 and lns8f5"),
    "floats": (lambda: small({"0.*": "lns8f5"}), "'2.weight' is torch.float32 of shape (3, 6) on process 1 and"),
    "frozen": (lambda: with_frozen_layer(), "'0.weight' is lns8f5 as torch.float32 of shape (6, 4), frozen on process"),
}


def with_frozen_layer() -> nn.Module:
    model = small()
    model[0].requires_grad_(False)
    return model


def told_by(function, *arguments) -> str:
    try:
        function(*arguments)
    except RuntimeError as error:
        return str(error)
    return "nothing"


def refused(rank: int, other) -> str:
    return told_by(wrapped, small() if rank == 0 else other())


def not_converted(rank: int) -> str:
    return told_by(wrapped, small("lns8f5" if rank == 0 else None))


X = torch.linspace(-1, 1, 8).reshape(2, 4)


def step(outer: nn.Module, optimizer: Madam, rank: int, number: int = 0) -> None:
    optimizer.zero_grad()
    outer(X + rank + number).square().sum().backward()
    optimizer.step()


def other_seed(rank: int) -> str:
    model = small()
    outer = wrapped(model)
    return told_by(step, outer, Madam(model.parameters(), seed=5 + rank), rank)


def other_order(rank: int) -> str:
    model = small()
    outer = wrapped(model)
    parameters = list(model.parameters())
    return told_by(step, outer, Madam(parameters if rank else parameters[::-1]), rank)


def other_state(rank: int) -> str:
    model = small()
    outer, optimizer = wrapped(model), Madam(model.parameters())
    step(outer, optimizer, rank)
    state = copy.deepcopy(optimizer.state_dict())
    if rank == 1:
        state["state"][2]["second_moment"][0, 0] ^= 1
    optimizer.load_state_dict(state)
    return told_by(step, outer, optimizer, rank)


def after_the_group(rank: int) -> str:
    """A step of an optimizer that is new, where the processes have parted."""
    group = dist.new_group([0, 1])
    model = small()
    outer = wrapped(model, process_group=group)
    optimizer = Madam(model.parameters())
    outer(X).sum().backward()
    dist.destroy_process_group(group)
    return told_by(optimizer.step)


def other_codes_of_gradients(rank: int) -> str:
    return told_by(ship_gradients_as_codes, wrapped(small()), "lns8f4" if rank else "lns8f3")


def changed_between(rank: int) -> tuple:
    """A code of one process is changed behind the third of five steps, and they are compared after every second."""
    model = small()
    outer, optimizer = wrapped(model), Madam(model.parameters())
    hook = compare_replicas(outer, optimizer, every=2)
    told = []
    for number in range(5):
        told.append(told_by(step, outer, optimizer, rank, number))
        if number == 2 and rank == 1:
            model[2].weight.codes[0, 0] ^= 1
    hook.remove()
    return told, told_by(step, outer, optimizer, rank)


# ------------------------------------------------------------------------------------------------------------- training


class Words(nn.Module):
    """An embedding, with gradients of the rows that were looked up or of all, which may be the last layer too; and a
    layer that is used at times."""

    def __init__(self, sparse: bool = False, tied: bool = False, at_times: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8, sparse=sparse)
        width = 8 if tied else 16
        self.layers = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.LayerNorm(width), nn.Linear(width, 11))
        self.at_times = nn.Linear(11, 11) if at_times else None
        if tied:
            self.layers[3].weight = self.embedding.weight

    def forward(self, x: torch.Tensor, more: bool = False) -> torch.Tensor:
        out = self.layers(self.embedding(x))
        return self.at_times(out) if more and self.at_times else out


RUNS: dict[str, dict] = {
    "default": {},
    "momentum": {"momentum": 0.9},
    "per channel": {"per_channel": True},
    "float moments": {"second_moment": "float32", "weight_decay": 0.01},
    "paper": {"rule": "paper"},
    "sparse": {"sparse": True},
    "ceilings that follow": {"p_scale": 0.5},
    "tied": {"tied": True, "momentum": 0.9},
    "unused": {"at_times": "alike", "find_unused_parameters": True},
    "unused on one": {"at_times": "on one", "find_unused_parameters": True, "tied": True},
    "static graph": {"static_graph": True, "tied": True},
    "accumulated": {"accumulated": True, "frozen": True, "momentum": 0.9},
}


OF_WRAPPER = "find_unused_parameters", "static_graph"


def a_run(
    per_channel: bool = False,
    sparse: bool = False,
    tied: bool = False,
    at_times: str = "",
    p_scale: float = 3.0,
    accumulated: bool = False,
    frozen: bool = False,
    **options,
) -> tuple:
    torch.manual_seed(1)
    model = Words(sparse, tied, at_times != "")
    model.layers[0].weight.requires_grad_(not frozen)
    convert_model(model, "lns8f5", filter_fn=lambda name, p: "2" not in name, per_channel=per_channel, p_scale=p_scale)
    options = {name: option for name, option in options.items() if name not in OF_WRAPPER}
    return model, lambda: Madam(parameter_groups(model), **options)


def loss_of(model: nn.Module, rank: int, number: int, at_times: str = "") -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * number + rank)
    words = torch.randint(11, (6, 2), generator=generator)
    more = number % 3 > 0 and not (at_times == "on one" and number % 3 == 2 and rank == 0)
    return nn.functional.cross_entropy(model(words[:, 0], more), words[:, 1])


STEPS = 20


def trained(rank: int, options: dict, compiled: bool = False) -> list:
    model, made = a_run(**options)
    outer, optimizer = wrapped(model, **{name: options[name] for name in OF_WRAPPER if name in options}), made()
    called = torch.compile(outer, backend="aot_eager") if compiled else outer
    for number in range(STEPS):
        optimizer.zero_grad()
        if "accumulated" in options:
            with outer.no_sync():
                loss_of(called, rank, number + STEPS).backward()
        loss_of(called, rank, number, options.get("at_times", "")).backward()
        optimizer.step()
    return state_of(model)


def trained_alone(options: dict) -> list:
    """Both micro-batches in this process: halves of a float are exact, and so is the order of two."""
    model, made = a_run(**options)
    optimizer, trainable = made(), [p for p in model.parameters() if p.requires_grad]
    for number in range(STEPS):
        optimizer.zero_grad()
        if "accumulated" in options:  # each rank adds its own first
            for rank in range(2):
                loss = loss_of(model, rank, number + STEPS), loss_of(model, rank, number)
                own = map(torch.add, *(torch.autograd.grad(each, trainable) for each in loss))
                for p, gradient in zip(trainable, own, strict=True):
                    p.grad = gradient / 2 if p.grad is None else p.grad + gradient / 2
        else:
            for rank in range(2):
                (loss_of(model, rank, number, options.get("at_times", "")) / 2).backward()
        optimizer.step()
    return state_of(model)


# --------------------------------------------------------------------------------------------------- gradients as codes

FACTOR = 2 ** (1 / 8)
"""Of one code step of lns8f3."""

TIMES = 100


def gradients_as_codes(rank: int) -> tuple:
    """Gradients of one step, and their mean over many exchanges of the same; then the codes after some steps."""
    model, made = a_run()
    outer, optimizer = wrapped(model), made()
    ship_gradients_as_codes(outer, seed=3)
    first, total = None, None
    for number in range(TIMES):
        optimizer.zero_grad()
        loss_of(outer, rank, 0).backward()
        own = torch.cat([p.grad.reshape(-1) for p in model.parameters()]).double()
        first, total = (own, own.clone()) if number == 0 else (first, total + own)
    for number in range(3):
        optimizer.zero_grad()
        loss_of(outer, rank, number).backward()
        optimizer.step()
    return first.tolist(), (total / TIMES).tolist(), state_of(model)


# -------------------------------------------------------------------------------------------------------- two processes


def all_checks(rank: int) -> dict:
    found: dict = {("broadcast", name): broadcast(rank, arguments) for name, arguments in BROADCASTS.items()}
    found |= {("different", name): refused(rank, other) for name, (other, _) in DIFFERENT.items()}
    found |= {("trained", name): trained(rank, options) for name, options in RUNS.items()}
    checks = (
        other_seed,
        other_order,
        other_state,
        other_codes_of_gradients,
        changed_between,
        gradients_as_codes,
        after_the_group,
    )
    for check in (*checks, not_converted):
        found[check.__name__] = check(rank)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    return everywhere(2, all_checks, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", BROADCASTS)
def test_all_begin_with_the_codes_and_scales_of_the_first(name, found):
    """Bit for bit: decoded and encoded again, 16-bit codes and other scales would not be."""
    first, second = (each["broadcast", name] for each in found)
    expected = state_of(a_model(0, **BROADCASTS[name]))
    assert first[0] == second[0] == expected
    assert first[0] != state_of(a_model(1, **BROADCASTS[name]))
    assert all(first[1] + second[1])


@pytest.mark.parametrize("name", DIFFERENT)
def test_models_that_differ_are_told_on_both(name, found):
    first, second = (each["different", name] for each in found)
    assert first == second
    assert first.startswith(DIFFERENT[name][1])
    assert first.endswith("DistributedDataParallel takes one model, converted alike on every process")


def test_a_process_that_did_not_convert_is_told_too(found):
    """There by torch: it has no reason to wait for codes."""
    first, second = (each["not_converted"] for each in found)
    assert first.startswith("'0.weight' is torch.float32 of shape (6, 4) on process 1 and lns8f5 as torch.float32 of")
    assert "DDP expects same model across all ranks" in second


def test_optimizers_that_differ_are_told_on_both(found):
    first, second = found
    assert first["other_seed"] == second["other_seed"]
    assert first["other_seed"].startswith(
        "Madam's seed of group 0 is 6 on process 1 and 5 on process 0: the processes of"
    )
    assert first["other_order"] == second["other_order"]
    assert (
        "Madam's shape of parameter 0 of group 0 is (6, 4) on process 1 and (3,) on process 0" in first["other_order"]
    )
    assert first["other_state"] == second["other_state"]
    assert first["other_state"].startswith("Madam's state of parameter 2 of group 0, hashed, is ")


def test_whoever_is_left_alone_trains_on(found):
    assert [each["after_the_group"] for each in found] == ["nothing"] * 2


def test_gradients_are_shipped_in_one_format(found):
    """Bytes of one format are numbers in another too."""
    first, second = (each["other_codes_of_gradients"] for each in found)
    assert first == second
    assert first.startswith("fmt is lns8f4 on process 1 and lns8f3 on process 0: what one process packs the others")


def test_replicas_are_compared_every_second_step(found):
    first, second = (each["changed_between"] for each in found)
    assert first == second
    told, afterwards = first
    assert told[:3] + told[4:] == ["nothing"] * 4
    assert told[3].startswith("after 4 steps the hash of '2.weight' is ")
    assert afterwards == "nothing"


@pytest.mark.parametrize("name", RUNS)
def test_codes_are_those_of_one_process(name, found):
    first, second = (each["trained", name] for each in found)
    assert first == second
    assert first == trained_alone(RUNS[name])
    assert first != state_of(a_run(**RUNS[name])[0])


def test_gradients_as_codes_are_right_on_average_and_within_their_error(found):
    first, second = (each["gradients_as_codes"] for each in found)
    assert first == second
    one, mean = (torch.tensor(values, dtype=torch.float64) for values in first[:2])
    model, _ = a_run()
    own = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss_of(model, rank, 0), list(model.parameters()))])
        for rank in range(2)
    ]
    magnitude, expected = (own[0].abs() + own[1].abs()).double() / 2, (own[0].double() + own[1].double()) / 2
    # of a scale that is a power of two, at most twice the greatest of the gradients
    smallest = 2.0 ** (1 - 126 / 8) * float(torch.stack(own).abs().max())
    step = FACTOR - 1
    after_first = step * magnitude + smallest
    bound = after_first + step * (expected.abs() + after_first) + smallest
    assert bool(((one - expected).abs() <= bound).all())
    assert not torch.equal(one, expected)
    # half of a step is the greatest standard deviation; six of them, of a mean
    assert bool(((mean - expected).abs() <= 6 * bound / 2 / TIMES**0.5).all())
    assert float((one - expected).abs().sum()) > 4 * float((mean - expected).abs().sum())


# ------------------------------------------------------------------------------------------------------ three processes


def trained_compiled(rank: int) -> list:
    torch._dynamo.reset()
    return trained(rank, RUNS["momentum"], compiled=True)


@pytest.mark.distributed
def test_a_compiled_model_has_the_same_codes(tmp_path):
    first, second = everywhere(2, trained_compiled, tmp_path)
    assert first == second == trained_alone(RUNS["momentum"])


def one_weight() -> tuple[nn.Module, Madam]:
    torch.manual_seed(2)
    model = nn.Linear(16, 11, bias=False)
    convert_model(model, "lns8f5")
    return model, Madam(model.parameters(), momentum=0.9)


def loss_of_one(model: nn.Module, rank: int, number: int) -> torch.Tensor:
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(1000 * number + rank))
    return nn.functional.cross_entropy(model(x), x[:, :11].argmax(1))


def trained_in_three(rank: int) -> tuple:
    model, optimizer = one_weight()
    outer = wrapped(model)
    for number in range(STEPS):
        optimizer.zero_grad()
        loss_of_one(outer, rank, number).backward()
        optimizer.step()
    return state_of(model), broadcast(rank, {}), other_seed(rank)


def added_by_gloo(own: list[torch.Tensor]) -> torch.Tensor:
    """Three gradients as torch and gloo add them: each times 1 / 3, in three chunks of one size, of which the k-th goes
    around the ring, of three in either direction, and comes to process k last."""
    parts = [(gradient * (1 / 3)).reshape(-1).split(-(-own[0].numel() // 3)) for gradient in own]
    chunks = [parts[(k + 1) % 3][k] + parts[(k + 2) % 3][k] + parts[k][k] for k in range(3)]
    return torch.cat(chunks).reshape(own[0].shape)


@pytest.mark.distributed
def test_three_processes_have_the_codes_of_one_that_adds_in_their_order(tmp_path):
    first, second, third = everywhere(3, trained_in_three, tmp_path)
    model, optimizer = one_weight()
    for number in range(STEPS):
        own = [torch.autograd.grad(loss_of_one(model, rank, number), model.weight)[0] for rank in range(3)]
        model.weight.grad = added_by_gloo(own)
        optimizer.step()
    assert first[0] == second[0] == third[0] == state_of(model)
    assert first[1] == second[1] == third[1]
    assert first[2] == second[2] == third[2]
    assert first[2].startswith("Madam's seed of group 0 is 6 on process 1 and 5 on process 0")


# ---------------------------------------------------------------------------------------------------------- one process


def test_what_is_compared_needs_replicas():
    model = small()
    optimizer = Madam(model.parameters())
    with pytest.raises(TypeError, match="model is a Sequential, not a DistributedDataParallel"):
        compare_replicas(model, optimizer)


def test_differences_are_told_from_the_first_process():
    assert difference([{"a": "1"}, {"a": "1"}]) is None
    assert difference([{"a": "1"}, {"a": "1"}, {}]) == "a is missing on process 2 and 1 on process 0"


def test_codes_of_gradients_are_unbiased_over_all_random_words():
    """Words evenly spread over all: as often up as the place between two codes says, to one in so many."""
    fmt, count = LNSFormat(8, 3), 1 << 12
    words = (torch.arange(count, dtype=torch.int64) * ((1 << 32) // count) + 12345 - (1 << 31)).to(torch.int32)
    top = 2.0**-3
    x = torch.cat([torch.logspace(-20, -3, 400, base=2.0), torch.tensor([0.0, top, 2.0**-30, 1e-42])])
    x = torch.cat([x, -x])
    rows = torch.cat([x, torch.tensor([top])]).expand(count, -1).contiguous()
    random_bits = words[:, None].expand(rows.shape)
    decoded = unpack(pack(rows, fmt, random_bits=random_bits), fmt).double()
    smallest = 2 * top * 2.0 ** (-126 / 8)  # the scale is the power of two above the greatest
    gap = (x.double().abs() * (FACTOR - 1)).clamp(min=smallest)
    assert bool(((decoded.mean(0)[:-1] - x.double()).abs() <= gap / count + 1e-7 * x.double().abs()).all())
    assert bool(((decoded[:, :-1] - x.double()).abs() <= gap * (1 + 1e-6)).all())
    assert bool((decoded[:, -1] == top).all())


def test_gradients_that_are_not_finite_arrive_as_nan():
    x = torch.tensor([[torch.inf, 1.0, -torch.inf, torch.nan, 0.0], [0.0] * 5, [3e38, 1e-45, 0.0, 1.0, -1.0]])
    found = unpack(pack(x, LNSFormat(8, 3), seed=1), LNSFormat(8, 3))
    assert found.isnan().tolist() == [[True, False, True, True, False], [False] * 5, [False] * 5]
    assert found[1].tolist() == [0.0] * 5
    assert found[0, 1] == pytest.approx(1, rel=0.1)


def test_what_cannot_ship_codes_is_told():
    with pytest.raises(TypeError, match="model is a Sequential, not a DistributedDataParallel"):
        ship_gradients_as_codes(small())
