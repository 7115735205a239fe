"""Collectives on a weight are refused: on its decoded floats they would end with other codes on each process.

All of torch's, by their schemas; the public functions in a group of one process; and DistributedDataParallel.
"""

import copy
import warnings
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn

from lnsnum import lns8f5
from lnsnum.torch_bridge import LNSWeight, convert_model, decode_model

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


def a_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    convert_model(model, lns8f5)
    return model


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
