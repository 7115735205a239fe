"""torch.compile with fullgraph=True: the forward pass, and Madam's step, of models whose weights are LNS codes.

Decoding and the step are the same to the bit as in eager; gradients differ in their last bits where the compiler sums
in another order, which is torch's, so the eager step is given the compiled gradients where codes are compared.
"""

import copy

import pytest
import torch
import torch._dynamo
from torch import nn
from torch.nn import functional as F

from lnsnum import lns8f4
from lnsnum.torch_bridge import LNSWeight, Madam, convert_model, decode_model, load_model, save_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),  # torch's own compiler's
    pytest.mark.usefixtures("fresh"),
]


def network(per_channel=False) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 16), nn.Flatten(), nn.Linear(64, 24), nn.GELU(), nn.Linear(24, 5, False))
    convert_model(model, "lns8f5", per_channel=per_channel)
    return model


TOKENS = torch.arange(32).reshape(8, 4) * 7 % 11
LABELS = torch.arange(8) % 5


def loss_of(model):
    return lambda: F.cross_entropy(model(TOKENS), LABELS)


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("per_channel", [False, True])
def test_forward_is_one_graph_and_sees_new_codes(per_channel):
    """Logits and gradients of the compiled decoded model, bit for bit; a changed code is seen without a new graph."""
    model = network(per_channel)
    compiled = torch.compile(model, fullgraph=True)
    for _ in range(2):
        plain = decode_model(copy.deepcopy(model))
        expected = torch.compile(plain, fullgraph=True)(TOKENS)
        F.cross_entropy(expected, LABELS).backward()
        for p in model.parameters():
            p.grad = None
        found = compiled(TOKENS)
        F.cross_entropy(found, LABELS).backward()
        assert torch.equal(found, expected)
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert type(p.grad) is torch.Tensor
            assert torch.equal(p.grad, q.grad)
        with torch.no_grad():
            for p in model.parameters():
                p.codes.copy_(p.codes ^ 0x80)


ALL = {"momentum": 0.9, "weight_decay": 0.1, "rounding": "stochastic_value", "second_moment": "float32"}


@pytest.mark.parametrize(
    ("backend", "options"), [("inductor", {}), ("aot_eager", ALL)], ids=["inductor", "aot_eager with all options"]
)
def test_a_training_step_is_two_graphs_and_gives_the_bits_of_eager(backend, options):
    """Forward and loss in one, the optimizer's step in the other; another lr in its tensor compiles nothing."""
    model, other = network(), network()
    lr = torch.tensor(0.1, dtype=torch.float64)
    optimizer, eager = Madam(model.parameters(), lr=lr, **options), Madam(other.parameters(), lr=lr.clone(), **options)
    loss, step = (
        torch.compile(f, fullgraph=True, backend=backend) for f in (loss_of(model), lambda: Madam.step(optimizer))
    )
    for i in range(5):
        if i == 3:
            before = graphs()
        optimizer.zero_grad()
        loss().backward()
        versions = [p._version for p in model.parameters()]
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            q.grad = p.grad.clone()
        step()
        eager.step()
        assert [p._version for p in model.parameters()] == [v + 1 for v in versions]
        assert optimizer.step_report() == eager.step_report()
        assert optimizer.step_report().moved > 0
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(p.codes, q.codes)
            state, expected = optimizer.state[p], eager.state[q]
            assert state.keys() == expected.keys()
            for name, value in expected.items():
                assert torch.equal(torch.as_tensor(state[name]), torch.as_tensor(value)), name
        for o in (optimizer, eager):
            o.param_groups[0]["lr"].mul_(0.7)
    assert graphs() == before


def test_resume_is_bit_identical_compiled_and_through_a_file(tmp_path):
    """Ten compiled steps are five, saved as a weight file and an optimizer's state, and five in a new compilation."""

    def steps(model, optimizer, n):
        loss, step = (torch.compile(f, fullgraph=True, backend="aot_eager") for f in (loss_of(model), optimizer.step))
        for _ in range(n):
            optimizer.zero_grad()
            loss().backward()
            step()

    model = network()
    steps(model, Madam(model.parameters()), 6)
    first = network()
    optimizer = Madam(first.parameters())
    steps(first, optimizer, 3)
    save_model(tmp_path / "w.safetensors", first)
    torch.save(optimizer.state_dict(), tmp_path / "o.pt")
    torch.compiler.reset()
    second = load_model(tmp_path / "w.safetensors", network())
    resumed = Madam(second.parameters())
    resumed.load_state_dict(torch.load(tmp_path / "o.pt", weights_only=True))
    steps(second, resumed, 3)
    for p, q in zip(model.parameters(), second.parameters(), strict=True):
        assert torch.equal(p.codes, q.codes)


def test_eager_and_compiled_training_differ_by_the_gradients_last_bits_alone():
    """The compiler sums in another order; the bound of the difference of a gradient is float32's for such sums."""
    model, other = network(), network()
    torch.compile(loss_of(model), fullgraph=True)().backward()
    loss_of(other)().backward()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        bound = 64 * torch.finfo(torch.float32).eps * float(q.grad.abs().max())
        assert float((p.grad - q.grad).abs().max()) <= bound


def test_autograd_in_a_graph_saves_codes_not_floats():
    model = nn.Linear(64, 32, bias=False)
    convert_model(model, "lns8f5")
    x = torch.randn(4, 64, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        torch.compile(model, fullgraph=True)(x).sum().backward()
    floats = [t for t in saved if t.dtype == torch.float32 and t.numel() == 64 * 32 and not isinstance(t, LNSWeight)]
    assert saved
    assert floats == []


def test_a_rescaled_weight_is_compiled_anew_and_right():
    model = nn.Linear(8, 3)
    convert_model(model, "lns8f5")
    compiled, x = torch.compile(model, fullgraph=True), torch.randn(2, 8)
    compiled(x)
    model.weight.rescale_(model.weight.log_offset + 5)
    expected = torch.compile(decode_model(copy.deepcopy(model)), fullgraph=True)(x)
    assert torch.equal(compiled(x), expected)


def test_the_key_of_the_cache_on_disk_names_what_decodes():
    """Graphs compiled by another version, or for another scale or format, are not taken for these."""
    a = LNSWeight(torch.zeros(3, 4, dtype=torch.uint8), network()[0].weight.fmt, 3)
    same = LNSWeight(torch.ones(3, 4, dtype=torch.uint8), a.fmt, 3)
    others = [
        LNSWeight(torch.zeros(3, 4, dtype=torch.uint8), a.fmt, 4),
        LNSWeight(torch.zeros(3, 4, dtype=torch.uint8), lns8f4, 3),
        LNSWeight(torch.zeros(4, 3, dtype=torch.uint8).t(), a.fmt, 3),
        LNSWeight(torch.zeros(3, 4, dtype=torch.uint8), a.fmt, 3, torch.bfloat16),
        LNSWeight(torch.zeros(3, 4, dtype=torch.uint8), a.fmt, torch.tensor([[3], [3], [3]])),
    ]
    assert a._stable_hash_for_caching() == same._stable_hash_for_caching()
    assert len({w._stable_hash_for_caching() for w in (a, *others)}) == 6


def test_what_a_compiled_step_cannot_do_is_refused_or_moves_nothing():
    """non_finite='raise' is told when the step is traced; an lr that is no rate, which no one sees then, is 0."""
    model = nn.Linear(3, 2)
    convert_model(model, "lns8f5")
    before = [p.codes.clone() for p in model.parameters()]
    model(torch.ones(3)).sum().backward()
    raising = Madam(model.parameters(), non_finite="raise")
    with pytest.raises(Exception, match="non_finite='raise' looks at the gradients"):
        torch.compile(raising.step, fullgraph=True, backend="aot_eager")()
    lr = torch.tensor(0.1)
    optimizer = Madam(model.parameters(), lr=lr)
    optimizer.make_state()
    step = torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")
    for bad in (-1.0, float("nan"), float("inf")):
        lr.fill_(bad)
        step()
        assert all(torch.equal(p.codes, codes) for p, codes in zip(model.parameters(), before, strict=True))
    lr.fill_(1.0)
    step()
    assert not torch.equal(model.weight.codes, before[0])
