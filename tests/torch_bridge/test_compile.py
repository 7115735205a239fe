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

from lnsnum import LNSFormat, lns8f4
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


@pytest.mark.parametrize("per_channel", [False, pytest.param(True, marks=pytest.mark.thorough)])
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


ALL = {"momentum": 0.9, "weight_decay": 0.1, "zero": "keep", "second_moment": "float32"}
PAPER = {"rule": "paper", "momentum": 0.9, "weight_decay": 0.1, "rounding": "stochastic_value", "zero": "leave"}


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        pytest.param("inductor", {}, marks=pytest.mark.thorough),
        ("aot_eager", ALL),
        pytest.param("aot_eager", PAPER, marks=pytest.mark.thorough),
    ],
    ids=["inductor", "aot_eager with all options", "aot_eager with the paper's rule"],
)
def test_a_training_step_is_two_graphs_and_gives_the_bits_of_eager(backend, options):
    """Forward and loss in one, the optimizer's step in the other; another lr in its tensor compiles nothing."""
    model, other = network(), network()
    lr = torch.tensor(0.1, dtype=torch.float64)
    optimizer, eager = Madam(model.parameters(), lr=lr, **options), Madam(other.parameters(), lr=lr.clone(), **options)
    optimizer.make_state(for_graph=True)
    loss, step = (
        torch.compile(f, fullgraph=True, backend=backend) for f in (loss_of(model), lambda: Madam.step(optimizer))
    )
    for i in range(4):
        if i == 1:
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
                found = torch.as_tensor(state[name])  # units and offsets have one element, or none of a dimension
                assert torch.equal(found.reshape(torch.as_tensor(value).shape), torch.as_tensor(value)), name
        for o in (optimizer, eager):
            o.param_groups[0]["lr"].mul_(0.7)
    assert graphs() == before


def wide(per_channel, fmt):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 6))
    convert_model(model, fmt, per_channel=per_channel)
    return model


@pytest.mark.parametrize(
    ("backend", "per_channel", "fmt", "zero"),
    [
        pytest.param("inductor", False, "lns8f4", "learn", marks=pytest.mark.thorough),
        ("aot_eager", True, LNSFormat(8, 3, base=1.9), "keep"),
    ],
)
def test_ceilings_grow_in_a_graph_as_in_eager(backend, per_channel, fmt, zero):
    """Sixty steps of weights that must become many times larger: codes, offsets, units and what is reported; then what
    a graph decodes, without another one."""
    model, other = wide(per_channel, fmt), wide(per_channel, fmt)
    optimizer, eager = (Madam(m.parameters(), lr=0.15, zero=zero) for m in (model, other))
    optimizer.make_state(for_graph=True)
    x = torch.randn(5, 12)
    step, forward = (torch.compile(f, fullgraph=True, backend=backend) for f in (optimizer.step, model))
    forward(x)
    grown = []
    for i in range(60):
        torch.manual_seed(i)
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.grad = torch.randn(p.shape) - 0.5
            q.grad = p.grad.clone()
        with torch.compiler.set_stance("default" if i == 0 else "fail_on_recompile"):
            step()
        eager.step()
        grown.append(optimizer.step_report().grown)
        assert optimizer.step_report() == eager.step_report()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(p.codes, q.codes)
            assert torch.equal(torch.as_tensor(p.log_offset), torch.as_tensor(q.log_offset))
            state, expected = optimizer.state[p], eager.state[q]
            assert state["units"].reshape(-1).tolist() == expected["units"].reshape(-1).tolist()
            assert state["at"].reshape(-1).tolist() == expected["at"].reshape(-1).tolist()
    assert [i + 1 for i in range(60) if grown[i]] == [20, 40, 60]
    with torch.compiler.set_stance("fail_on_recompile"):
        found = forward(x)
    expected = torch.compile(decode_model(copy.deepcopy(other)), fullgraph=True, backend=backend)(x)
    assert torch.equal(found, expected)


@pytest.mark.thorough
def test_steps_of_models_of_other_sizes_are_compiled_in_turn(tmp_path):
    """torch takes for sizes that change what the second model has otherwise: of codes, and of scales of channels."""
    for inputs, outputs in ((4, 3), (9, 5)):
        torch.manual_seed(inputs)
        model = nn.Linear(inputs, outputs, bias=False)
        convert_model(model, "lns8f5", per_channel=True)
        other = copy.deepcopy(model)
        optimizer, eager = Madam(model.parameters()), Madam(other.parameters())
        optimizer.make_state(for_graph=True)
        step = torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")
        for _ in range(2):
            for p, q in zip(model.parameters(), other.parameters(), strict=True):
                p.grad = torch.randn(p.shape)
                q.grad = p.grad.clone()
            step()
            eager.step()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(p.codes, q.codes)
    # what torch keeps with the scales for that does not go into files
    torch.save(model.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)["weight"]
    assert torch.equal(loaded.log_offset, model.weight.log_offset)
    assert not vars(loaded.scale.offsets)


def test_a_step_cannot_be_compiled_where_a_ceiling_could_not_grow():
    """Without state, and with a log_offset that is an integer, each by its name; a fixed one needs no tensor."""
    model = nn.Linear(3, 2)
    convert_model(model, "lns8f5")
    model(torch.ones(3)).sum().backward()

    def compiled(**options):
        optimizer = Madam(model.parameters(), lr=torch.tensor(0.1), **options)
        return optimizer, torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")

    _, step = compiled()
    with pytest.raises(Exception, match=r"make_state\(for_graph=True\) before the step is compiled"):
        step()
    optimizer, step = compiled()
    optimizer.make_state()
    with pytest.raises(Exception, match="a compiled step can raise a ceiling only where the log_offset is a tensor"):
        step()
    for options in ({"ceiling": "fixed"}, {"rule": "paper"}):
        before = model.weight.codes.clone()
        optimizer, step = compiled(**options)
        optimizer.make_state()
        step()
        assert not torch.equal(model.weight.codes, before)


@pytest.mark.thorough
def test_a_weight_that_was_rescaled_between_compiled_steps_goes_on_as_in_eager():
    models = wide(False, "lns8f5"), wide(False, "lns8f5")
    optimizers = [Madam(m.parameters(), lr=0.05) for m in models]
    optimizers[0].make_state(for_graph=True)
    step = torch.compile(optimizers[0].step, fullgraph=True, backend="aot_eager")
    for i in range(6):
        torch.manual_seed(i)
        for p, q in zip(*(m.parameters() for m in models), strict=True):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
            if i == 3:
                for w in (p, q):
                    w.rescale_(w.log_offset + 37)
        step()
        optimizers[1].step()
    for p, q in zip(*(m.parameters() for m in models), strict=True):
        assert p.log_offset == q.log_offset
        assert torch.equal(p.codes, q.codes)


def test_a_weight_for_graphs_is_read_copied_and_saved_as_one_with_one_integer(tmp_path):
    model, other = wide(False, "lns8f5"), wide(False, "lns8f5")
    Madam(model.parameters()).make_state(for_graph=True)
    weight, plain = model[0].weight, other[0].weight
    assert weight.log_offset == plain.log_offset
    assert repr(weight) == repr(plain)
    assert torch.equal(weight.to_float(), plain.to_float())
    assert weight.to_lns().log_offset == plain.to_lns().log_offset
    save_model(tmp_path / "a.safetensors", model)
    save_model(tmp_path / "b.safetensors", other)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    with torch.no_grad():
        plain.rescale_(plain.log_offset + 9)
        weight.copy_(plain)
        assert weight.log_offset == plain.log_offset
        assert weight.scale.high > weight.log_offset
        weight.rescale_(weight.log_offset + 3)
        plain.copy_(weight)
    assert plain.log_offset == weight.log_offset
    other.load_state_dict(model.state_dict())
    assert torch.equal(other[0].weight.to_float(), model[0].weight.to_float())
    assert load_model(tmp_path / "b.safetensors", model)[0].weight is weight


def test_a_view_from_before_the_scale_was_a_tensor_is_refused():
    """It would not learn of ceilings that grow."""
    weight = wide(False, "lns8f5")[0].weight
    view = weight.detach()
    weight.scale_for_graph_()
    assert torch.equal(weight.detach().to_float(), weight.to_float())
    with pytest.raises(RuntimeError, match="taken before the weight's log_offset became a tensor"):
        view.to_float()


@pytest.mark.thorough
def test_a_ceiling_stays_at_the_bound_of_what_a_graph_decodes():
    """Beyond it a graph would decode wrongly; the room is made anew by make_state."""
    weight = wide(False, "lns8f4")[0].weight
    weight.scale_for_graph_(doublings=1)
    optimizer = Madam([weight], lr=0.15)
    optimizer.make_state()
    before = weight.log_offset
    step = torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")
    for i in range(60):
        torch.manual_seed(i)
        weight.grad = torch.randn(weight.shape) - 0.5
        step()
    assert weight.log_offset == before + 16 == weight.scale.high
    optimizer.make_state(for_graph=True)
    for _ in range(20):
        step()
    assert weight.log_offset > before + 16


@pytest.mark.thorough
def test_resume_is_bit_identical_compiled_and_through_a_file(tmp_path):
    """Six compiled steps are three, saved as a weight file and an optimizer's state, and three in a new compilation."""

    def steps(model, optimizer, n):
        optimizer.make_state(for_graph=True)
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


@pytest.mark.thorough
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
    optimizer = Madam(model.parameters(), lr=lr, weight_decay=0.1)
    optimizer.make_state(for_graph=True)
    step = torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")
    for bad in (-1.0, float("nan"), float("inf")):
        lr.fill_(bad)
        step()
        assert all(torch.equal(p.codes, codes) for p, codes in zip(model.parameters(), before, strict=True))
    lr.fill_(1.0)
    step()
    assert not torch.equal(model.weight.codes, before[0])
