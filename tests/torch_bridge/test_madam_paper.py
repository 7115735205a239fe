"""The ladder of the Madam paper: its integer algorithm, in float64 from its formula, and ours step by step, every code.

    w  =  +-max exp(-base_lr k),     k  <-  clip(k + round(lr / base_lr clamp(g / sqrt(v_hat)) sign(w)), 0, levels - 1)

`LNSFormat.madam(bits, base_lr)` counts from below: k = m_max - m, and levels = m_max = 2^(bits - 1) - 1.

Source: Bernstein, Zhao, Meister, Liu, Anandkumar, Yue: Learning compositional functions via multiplicative weight
updates, NeurIPS 2020, Algorithm 1 and section 4.

float32, in which the step is computed, and float64 round a real number of steps differently only where it is near a
tie. Gradients that come within MARGIN of one are drawn again, and that none is left is checked: no element is excused.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lnsnum import LNSFormat
from lnsnum.torch_bridge import Madam, convert_model

torch.set_num_threads(1)

STEPS = 200
MARGIN = 1e-2
"""In steps of k. A real number of them is at most 10 g_bound = 100, and float32 differs by less than 2^-14 of it: by
three roundings of v in each of 200 steps, halved by the square root, and a handful of others. That of v is checked."""

BETA, G_BOUND, P_SCALE = 0.999, 10.0, 3.0


class Ladder:
    """The paper's integer Madam, in float64."""

    def __init__(self, k: np.ndarray, sign: np.ndarray, levels: int, base_lr: float) -> None:
        self.k, self.sign, self.levels, self.base_lr = k.astype(np.int64), sign, levels, base_lr
        self.v, self.t = np.zeros(k.shape), 0

    def move(self, g: np.ndarray, lr: float) -> tuple[np.ndarray, np.ndarray]:
        """(the second moment, the real number of steps of k) of a gradient."""
        v = BETA * self.v + (1.0 - BETA) * g**2
        v_hat = v / (1.0 - BETA ** (self.t + 1))
        return v, lr / self.base_lr * np.clip(g / np.sqrt(v_hat), -G_BOUND, G_BOUND) * self.sign

    def step(self, g: np.ndarray, lr: float) -> None:
        self.v, move = self.move(g, lr)
        assert (distance_to_tie(move) >= MARGIN).all()
        self.k = np.clip(self.k + np.rint(move).astype(np.int64), 0, self.levels - 1)
        self.t += 1


def distance_to_tie(move: np.ndarray) -> np.ndarray:
    return np.abs(np.abs(move) - np.floor(np.abs(move)) - 0.5)


def gradient_for(ladder: Ladder, lr: float, random: np.random.Generator) -> np.ndarray:
    """float32 gradients of several sizes, none of whose steps is near a tie."""
    size = 10.0 ** (np.arange(ladder.k.size) % 5 - 3)

    def draw():
        return (random.standard_normal(ladder.k.size) * size).astype(np.float32).reshape(ladder.k.shape)

    g = draw()
    for _ in range(100):
        near = distance_to_tie(ladder.move(g.astype(np.float64), lr)[1]) < MARGIN
        if not near.any():
            break
        g = np.where(near, draw(), g)
    return g


def ladder_of(p, base_lr: float) -> Ladder:
    codes = p.codes.numpy().astype(np.int64)
    m = codes & p.fmt.max_magnitude
    assert (m > 0).all()
    return Ladder(p.fmt.max_magnitude - m, np.where(codes > p.fmt.max_magnitude, -1, 1), p.fmt.max_magnitude, base_lr)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("base_lr", [0.01, 0.004, 0.001])
@pytest.mark.parametrize("ratio", [1, 10])
def test_every_code_after_each_of_two_hundred_steps_is_the_paper_s(bits, base_lr, ratio):
    fmt, lr = LNSFormat.madam(bits, base_lr), ratio * base_lr
    torch.manual_seed(bits)
    model = nn.Linear(20, 15, bias=False)
    rms = float(model.weight.detach().double().square().mean().sqrt())
    convert_model(model, fmt, p_scale=P_SCALE)
    p = model.weight
    ladder, random = ladder_of(p, base_lr), np.random.default_rng(bits)
    start = ladder.k.copy()
    optimizer = Madam([p], lr=lr, rule="paper", rounding="nearest", second_moment="float32", beta=BETA, g_bound=G_BOUND)
    ended = set()
    for _ in range(STEPS):
        g = gradient_for(ladder, lr, random)
        p.grad = torch.from_numpy(g)
        optimizer.step()
        ladder.step(g.astype(np.float64), lr)
        np.testing.assert_allclose(optimizer.state[p]["second_moment"].numpy(), ladder.v, rtol=2.0**-14)
        m = fmt.max_magnitude - ladder.k
        expected = m + np.where(ladder.sign < 0, fmt.sign_bit, 0)
        np.testing.assert_array_equal(p.codes.numpy().astype(np.int64), expected)
        ended |= set(ladder.k[(ladder.k == 0) | (ladder.k == ladder.levels - 1)].tolist())

    assert (ladder.k != start).mean() > 0.9
    if bits == 8 and ratio == 10:
        assert ended == {0, ladder.levels - 1}
    greatest = float(p.to_float(torch.float64).abs().max()) * math.exp(base_lr * int(ladder.k.min()))
    assert 1.0 <= greatest / (P_SCALE * rms) <= math.exp(base_lr) * (1.0 + 1e-9)
    expected = ladder.sign * greatest * np.exp(-base_lr * ladder.k)
    np.testing.assert_allclose(p.detach().to_float().numpy(), expected, rtol=2.0**-24 + 1e-11, atol=0.0)


@pytest.mark.parametrize("bits", [8, 12])
def test_the_format_is_the_ladder(bits):
    """Every magnitude: m_max levels, each exp(-base_lr) below the one before; the factor is right to 2^-52 a level."""
    fmt = LNSFormat.madam(bits, 0.01)
    assert (fmt.fraction_bits, fmt.max_magnitude) == (0, 2 ** (bits - 1) - 1)
    model = nn.Linear(fmt.max_magnitude, 1, bias=False)
    convert_model(model, fmt)
    codes = torch.arange(fmt.max_magnitude, 0, -1).to(model.weight.codes.dtype)
    model.weight.codes.copy_(codes[None])
    values = model.weight.to_float(torch.float64).numpy()[0]
    k = np.arange(fmt.max_magnitude)
    np.testing.assert_allclose(values, values[0] * np.exp(-0.01 * k), rtol=fmt.max_magnitude * 2.0**-52)
