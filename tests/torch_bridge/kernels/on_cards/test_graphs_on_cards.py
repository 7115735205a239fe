"""What only a card shows: CUDA graphs, how often Python waits, and other cards than the current one."""

import copy
import os
import warnings

import pytest
import torch
from torch import nn

from lnsnum.torch_bridge import Madam, convert_model, use_weight_only

pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter has no streams"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
]


def twice(width=40, **how):
    """A model on the card, and the same on the CPU."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, width), nn.Linear(width, 24, bias=False))
    convert_model(model, "lns8f5", **how)
    return copy.deepcopy(model).to("cuda"), model


def same_codes(there, here):
    return all(torch.equal(p.codes.cpu(), q.codes) for p, q in zip(there.parameters(), here.parameters(), strict=True))


def give(model, gradients):
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        if p.grad is None:
            p.grad = gradient.to(p.device, copy=True)
        else:
            p.grad.copy_(gradient)


def recorded(run):
    """A CUDA graph of a call, which has run once before."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    return graph, out


def test_a_recorded_step_goes_on_stepping():
    """Replayed: another number of the step, other random words, other corrections for bias, each time."""
    there, here = twice(width=40_000, per_channel=True)  # of more tasks than one program of the row's writes
    gradients = [[torch.randn(p.shape) for p in here.parameters()] for _ in range(4)]
    lr = torch.tensor(0.05, dtype=torch.float64, device="cuda")
    first, second = (
        Madam(there.parameters(), lr=lr, momentum=0.9),
        Madam(here.parameters(), lr=0.05, momentum=0.9),
    )
    first.make_state(for_graph=True)
    torch.compiler.reset()
    step = torch.compile(first.step, fullgraph=True, dynamic=False, backend="aot_eager")
    give(there, gradients[0])
    graph, _ = recorded(step)
    for each in gradients[1:]:
        give(there, each)
        graph.replay()
    for each in gradients:
        give(here, each)
        second.step()
    assert same_codes(there, here)
    assert first.step_report() == second.step_report()


def test_recorded_products_and_decoding_see_new_codes():
    there, here = twice()
    use_weight_only(there)
    use_weight_only(here)
    x = torch.randn(2, 64)
    own = x.cuda()
    with torch.inference_mode():
        graph, out = recorded(lambda: (there(own), there[1].weight.to_float()))
        for model in (there, here):
            for p in model.parameters():
                p.codes.copy_(p.codes ^ 128)
        graph.replay()
        assert torch.equal(out[0].cpu(), here(x))
        assert torch.equal(out[1].cpu(), here[1].weight.to_float())


def waits(run):
    """How often Python waits for the card in a call."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in told)


@pytest.mark.parametrize("how", [{}, {"per_channel": True}, {"group_size": 16}], ids=str)
def test_python_waits_once_a_step_and_never_to_decode(how):
    there, _ = twice(**how)
    x = torch.randn(4, 64, device="cuda")
    optimizer = Madam(there.parameters())
    for _ in range(2):  # states and tables are made
        there(x).square().sum().backward()
        optimizer.step()
    assert waits(lambda: there(x).square().sum().backward()) == 0
    assert waits(optimizer.step) == 1
    use_weight_only(there)
    with torch.inference_mode():
        there(x)
        assert waits(lambda: there(x)) == 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one card")
def test_weights_on_another_card_than_the_current_one():
    there, here = twice(per_channel=True)
    there.to("cuda:1")
    gradients = [torch.randn(p.shape) for p in here.parameters()]
    for model in (there, here):
        give(model, gradients)
        Madam(model.parameters()).step()
    assert torch.cuda.current_device() == 0
    assert same_codes(there, here)
