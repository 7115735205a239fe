"""Madam's step of shards against that of the whole, without processes: however a weight is cut, the codes are the same.

The steps of all shards run side by side, each up to its next reduction, which is made here.
"""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lnsnum import LNSFormat
from lnsnum.torch_bridge import LNSWeight, Madam
from lnsnum.torch_bridge.distributed.gathering import fill_shard, new_shard
from lnsnum.torch_bridge.distributed.shard_step import Shard, steps, unit_states
from lnsnum.torch_bridge.kernels.random_words import Draw, Part, draw_keys, fill_words, fill_words_of
from lnsnum.torch_bridge.kernels.random_words_twin import indices
from lnsnum.torch_bridge.step_state import blank_state

torch.set_num_threads(1)


def together(generators: list) -> list:
    """Run generators that ask for reductions, and answer them as processes would."""
    answers = [None] * len(generators)
    while True:
        asked, done = [], []
        for generator, answer in zip(generators, answers, strict=True):
            try:
                asked.append(generator.send(answer))
            except StopIteration as stop:
                done.append(stop.value)
        if done:
            assert not asked
            return done
        hows, arrays = zip(*asked, strict=True)
        assert len(set(hows)) == 1
        reduced = np.sum(arrays, axis=0) if hows[0] == "sum" else np.max(arrays, axis=0)
        answers = [reduced.copy() for _ in generators]


def cut(weight: LNSWeight, sizes: list[int], dim: int) -> list[LNSWeight]:
    """Shards as fully_shard makes them: those of rows in memory that is as long for each."""
    shards = []
    for part in weight.split(sizes, dim):
        length = max(sizes) if dim == 0 else part.shape[dim]
        shape = [length if d == dim else n for d, n in enumerate(part.shape)]
        shard = new_shard(weight, shape).narrow(dim, 0, part.shape[dim])
        shards.append(fill_shard(shard, part) if part.numel() else shard)
    return shards


class Whole:
    """A weight with an optimizer, and the same weight in shards."""

    def __init__(self, weight: LNSWeight, sizes: list[int], dim: int, **options) -> None:
        self.parameter = torch.nn.Parameter(weight)
        self.optimizer = Madam([self.parameter], **options)
        self.group = {**self.optimizer.param_groups[0]}
        self.sizes, self.dim = sizes, dim
        self.weights = cut(weight.copied_with(weight.codes.clone()), sizes, dim)
        self.begins = np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist()
        self.states = [{} for _ in sizes]
        self.launches = [{} for _ in sizes[1:]]

    def shards(self, gradients: list) -> list[Shard]:
        parts = zip(self.weights, gradients, self.states, self.begins, strict=True)
        return [
            Shard(weight, gradient, state, self.group, self.parameter.shape, self.dim, begin)
            for weight, gradient, state, begin in parts
        ]

    def step(self, gradient: torch.Tensor) -> list:
        self.parameter.grad = gradient
        self.optimizer.step()
        gradients = [part.contiguous() for part in gradient.split(self.sizes, self.dim)]
        if not self.states[0]:
            made = together([unit_states([shard]) for shard in self.shards(gradients)])
            kind = torch.uint8 if self.group["second_moment"] == "byte" else torch.float32
            for weight, state, (units,) in zip(self.weights, self.states, made, strict=True):
                state.update({**blank_state(torch.zeros(weight.shape, dtype=kind), 0), **units})
        # the last by itself, the others by launches
        kept = [*self.launches, None]
        return together([steps([s], launches=own) for s, own in zip(self.shards(gradients), kept, strict=True)])

    def check(self) -> None:
        own = self.optimizer.state[self.parameter]
        for weight, state, begin, size in zip(self.weights, self.states, self.begins, self.sizes, strict=True):
            expected = self.parameter.codes.narrow(self.dim, begin, size)
            assert torch.equal(weight.codes, expected)
            values = self.parameter.detach().narrow(self.dim, begin, size).to_float()
            assert torch.equal(weight.to_float(), values)
            for name in ("second_moment", "momentum"):
                if name in own:
                    assert torch.equal(state[name], own[name].narrow(self.dim, begin, size))
            for name in ("r", "units", "at", "exponent", "step", "beta_product"):
                assert torch.equal(state[name], own[name]), name
        assert sum(int(state["counts"][1]) for state in self.states) == int(own["counts"][1])
        assert all(int(state["counts"][6]) == int(own["counts"][6]) for state in self.states)


def a_weight(shape: tuple[int, ...], fmt: LNSFormat, channels: int | None, seed: int = 0) -> LNSWeight:
    """With one scale, or one for each index of a dimension."""
    generator = torch.Generator().manual_seed(seed)
    offsets: int | torch.Tensor = -30
    if channels is not None:
        counts = [n if dim == channels else 1 for dim, n in enumerate(shape)]
        offsets = torch.randint(-60, 0, counts, generator=generator)
    x = torch.randn(shape, generator=generator)
    return LNSWeight.from_float(x, fmt, log_offset=offsets, underflow="saturate")


CUTS = {
    "rows": ([3, 3, 1], 0),
    "rows, one without any": ([4, 3, 0], 0),
    "columns": ([2, 1, 3], 1),
    "the last of three": ([1, 4], 2),
}

OPTIONS = {
    "default": {},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "float moments": {"second_moment": "float32", "momentum": 0.5},
    "zeros kept": {"zero": "keep"},
    "paper": {"rule": "paper"},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("channels", [None, 0, 1, 2])
@pytest.mark.parametrize("name", CUTS)
def test_shards_step_as_the_whole(name, channels, options):
    """Over 45 steps: gradients that vanish at first, then outgrow the exponent, and ceilings that are too low."""
    sizes, dim = CUTS[name]
    fmt = LNSFormat(8, 5) if options != "float moments" else LNSFormat(16, 10)
    whole = Whole(a_weight((7, 6, 5), fmt, channels), sizes, dim, lr=0.1, seed=3, **OPTIONS[options])
    generator = torch.Generator().manual_seed(1)
    for number in range(45):
        gradient = torch.randn(7, 6, 5, generator=generator) - 0.5
        gradient *= [0.0, 1.0, 1.0, 1e5][min(number, 3)] if number < 30 else 1e-3
        if number % 7 == 3:
            gradient[0, 0, 0] = torch.nan
        whole.step(gradient)
        whole.check()
    if options not in ("paper", "float moments"):
        own = whole.optimizer.state[whole.parameter]
        assert bool((own["at"] != torch.as_tensor(a_weight((7, 6, 5), fmt, channels).log_offset)).any())


def test_a_ceiling_that_cannot_be_raised_is_told_by_all_shards():
    """One code there in each shard, of 32: neither alone would be enough."""
    weight = LNSWeight(torch.ones(32, 2, dtype=torch.uint8), LNSFormat(8, 5), 0)
    weight.codes[[0, 20], 0] = 127
    whole = Whole(weight, [16, 16], 0, lr=0.0)
    with pytest.warns(UserWarning, match="too many codes of parameter 0 of shape"):
        told = [whole.step(torch.ones(32, 2)) for _ in range(20)]
    whole.check()
    assert told[:19] == [[[False], [False]]] * 19
    assert told[19] == [[True], [True]]


def test_scales_that_a_user_has_changed_are_seen():
    weight = a_weight((6, 4), LNSFormat(8, 5), None)
    whole = Whole(weight, [2, 4], 0)
    whole.step(torch.ones(6, 4))
    with torch.no_grad():
        whole.parameter.set_scale(whole.parameter.scale._replace(low=-12, high=-12))
    for shard in whole.weights:
        shard._span.set(-12, -12)
    whole.step(torch.ones(6, 4))
    whole.check()


@given(
    first=st.integers(0, 2**33), length=st.integers(1, 9), gap=st.integers(0, 9), start=st.integers(0, 40),
    size=st.integers(0, 60),
)  # fmt: skip
def test_words_of_a_shard_are_those_of_its_elements_in_the_whole(first, length, gap, start, size):
    part = Part(first, length, length + gap)
    keys = draw_keys(1, 2, 3)
    out = np.empty(size, np.int32)
    fill_words_of(out, start, part, keys[0], keys[1])
    expected, one = [], np.empty(1, np.int32)
    for i in range(start, start + size):
        fill_words(one, first + i // length * (length + gap) + i % length, keys[0], keys[1])
        expected.append(int(one[0]))
    assert out.tolist() == expected
    index = indices(torch.Size([start + size]), part=part, device=torch.device("cpu"))[start:]
    assert index.tolist() == [first + i // length * (length + gap) + i % length for i in range(start, start + size)]


def test_copies_of_a_shard_are_shards():
    """None may choose a scale of its own, whatever is written to it."""
    weight = a_weight((6, 4), LNSFormat(8, 5), 0)
    shard = cut(weight, [3, 3], 0)[1]
    for one in (shard, shard.clone(), copy.deepcopy(shard), shard.detach(), shard.to(torch.bfloat16)):
        assert one._span.is_shard
        assert torch.equal(one._span.whole, weight.log_offset)
        before, one._span.warned = one.log_offset.clone(), False
        with pytest.warns(UserWarning, match="was clipped"):
            one.copy_(torch.full((3, 4), 1e6, dtype=one.dtype))
        assert torch.equal(one.log_offset, before)


def test_the_part_of_a_shard_is_by_rows_or_columns():
    weight = a_weight((4, 6), LNSFormat(8, 5), None)
    rows, columns = cut(weight, [1, 3], 0)[1], cut(weight, [2, 4], 1)[1]
    assert Shard(rows, None, {}, {}, weight.shape, 0, 1).part == Part(6, 1, 1)
    assert Shard(columns, None, {}, {}, weight.shape, 1, 2).part == Part(2, 4, 6)


def test_draws_are_by_the_keys_of_a_growth():
    """(The words themselves are those of `random_words`.)"""
    weight = a_weight((6, 4), LNSFormat(8, 5), None)
    shard = cut(weight, [2, 4], 0)[1]
    grown = np.array([True])
    weight.grow_(grown, Draw(1, 2, 3))
    shard.grow_(grown, Draw(1, 2, 3), part=Part(8, 1, 1))
    assert torch.equal(shard.codes, weight.codes[2:])
    assert shard.log_offset == weight.log_offset
