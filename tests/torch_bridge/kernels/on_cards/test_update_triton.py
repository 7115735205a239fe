"""Madam's step in Triton against the CPU's kernel: every code, moment, momentum and count, bit by bit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsnum import LNSFormat, lns4f1, lns8f5, lns12f6
from lnsnum.kernels.scales import Walk
from lnsnum.torch_bridge.kernels import (
    random_words,
    random_words_triton,
    step_numbers,
    step_row_triton,
    update,
    update_triton,
)
from lnsnum.torch_bridge.kernels.random_words import WHOLE, Draw, Part
from lnsnum.torch_bridge.kernels.step_numbers import Choices, StepNumbers
from lnsnum.torch_bridge.kernels.triton_launch import block_of
from lnsnum.torch_bridge.kernels.update_triton import Stepped

F32 = np.float32
GRADIENTS = [0.0, 1.0, 0.5, 0.9999999, 1.0000001, 3.0, 0.1, 1e-3, 1e-10, 1e-20, 1e-38, 2.0**-126, 2.0**-149]
GRADIENTS += [1e10, 2.0**60, 1e38, 3.4028235e38, math.inf]
GRADIENTS = np.array([*GRADIENTS, *(-g for g in GRADIENTS), math.nan], F32)
MOMENTUM_CODES = np.delete(np.arange(256), 128).astype(np.uint8)
ROUNDINGS = ["stochastic_log", "stochastic_value", "nearest"]
POLICIES = [{}, {"zero": "keep"}]
POLICIES += [{"rule": "paper", "rounding": r, "zero": z} for r in ROUNDINGS for z in ("keep", "leave")]
UNITS = np.array([0.0, 1e-6, 0.3, 1.0, 7.0, 2.0**20, 1e30], F32)

SETTINGS = {
    "bytes": {"lr": 0.05, "step": 1, "moment": "byte", "units": UNITS, "inner": 5, "weight_decay": 0.1},
    "bytes, momentum": {
        "lr": 0.5, "step": 9, "moment": "byte", "momentum": 0.9, "exponent": -7, "units": UNITS, "inner": 1,
        "weight_decay": 1.0,
    },
    "float32, momentum": {
        "lr": 3.0, "step": 4, "moment": "float32", "momentum": 0.5, "exponent": 3, "units": UNITS[4:5],
    },
    "float32": {"lr": 1e-3, "step": 2, "moment": "float32", "kappa": 0.1, "beta": 0.0, "g_bound": 0.3, "units": UNITS},
}  # fmt: skip


def weight_of(fmt, n, seed=0, *, moment="byte", momentum=0.0, codes=None, gradient=None):
    """NumPy arrays: codes, gradient, second moment, momentum."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << fmt.bits, n).astype(fmt.dtype) if codes is None else codes
    gradient = np.resize(GRADIENTS, n) if gradient is None else gradient
    bytes_ = np.resize(np.array([0, 1, 100, 128, 254, 255], np.uint8), n)
    values = np.resize(np.array([0, 1e-30, 1e-3, 1, 1e30], F32), n)
    return codes, gradient, bytes_ if moment == "byte" else values, np.resize(MOMENTUM_CODES, n) if momentum else None


def scalars_of(fmt, choices, *, lr, step, moment, momentum=0.0, exponent=0, kappa=1.0, beta=0.999, g_bound=10.0,
               weight_decay=0.0, **rest):  # fmt: skip
    numbers = StepNumbers(lr, kappa, exponent, beta**step, momentum**step, g_bound, beta, momentum, weight_decay)
    return step_numbers.step_scalars(fmt, choices.rule, numbers, coded=moment == "byte")


def tensor(array, device):
    """A tensor of a copy, int16 for uint16."""
    if array is None:
        return None
    array = array.copy()
    return torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array).to(device)


def check(members, fmt, choices, device):
    """All members in one call of Triton's, each by itself on the CPU.

    A member is (arrays, scalars, draw, options), and options are units, inner (or a whole walk), start, rows, part, and
    the gradient's dtype.
    """
    stepped, expected = [], []
    for arrays, scalars, draw, options in members:
        options = dict(options)
        units, inner = options.pop("units", UNITS[3:4]), options.pop("inner", 1)
        walk = inner if isinstance(inner, Walk) else Walk(inner)
        dtype, rows = options.pop("dtype", torch.float32), options.pop("rows", None)
        gradient = torch.from_numpy(arrays[1]).to(dtype)
        own = [None if array is None else array.copy() for array in arrays]
        own[1] = gradient.to(torch.float32).numpy()
        by = scalars, choices, units, walk, draw
        expected.append((own, update.apply_step(*own, fmt, *by, rows=rows, **options)))
        codes, _, moment, momentum = (tensor(array, device) for array in arrays)
        there = None if rows is None else torch.from_numpy(rows).to(device)
        stepped.append(
            Stepped(
                codes,
                gradient.to(device),
                moment,
                momentum,
                units,
                walk,
                scalars,
                draw,
                rows=there,
                **options,
            )
        )
    counts = update_triton.step_list(stepped, fmt, choices).cpu()
    for weight, own_counts, (own, (counted, greatest)) in zip(stepped, counts, expected, strict=True):
        found = weight.codes, None, weight.second_moment, weight.momentum
        for array, t in zip(own, found, strict=True):
            if t is not None:
                np.testing.assert_array_equal(t.cpu().numpy().view(array.dtype), array)
        assert own_counts.tolist() == [*counted, greatest]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_code_with_every_gradient(policy, settings, device):
    choices = Choices.of(policy.get("rule", "hypentropy"), policy.get("rounding"), policy.get("zero"))
    fmt = lns8f5
    codes = np.repeat(np.arange(256).astype(np.uint8), GRADIENTS.size)
    kind = {name: settings[name] for name in ("moment", "momentum") if name in settings}
    arrays = weight_of(fmt, codes.size, codes=codes, **kind)
    options = {name: settings[name] for name in ("units", "inner") if name in settings}
    check([(arrays, scalars_of(fmt, choices, **settings), Draw(5, 3, settings["step"]), options)], fmt, choices, device)


@pytest.mark.parametrize(
    "fmt", [LNSFormat(3, 0), lns4f1, lns12f6, LNSFormat(9, 3, base=1.5), LNSFormat(10, 1), LNSFormat(16, 10)], ids=str
)
@pytest.mark.parametrize("policy", [POLICIES[0], POLICIES[1], POLICIES[4]], ids=str)
def test_other_formats(fmt, policy, device):
    choices = Choices.of(policy.get("rule", "hypentropy"), policy.get("rounding"), policy.get("zero"))
    settings = SETTINGS["bytes, momentum"]
    if fmt.octaves >= 64 and choices.rule == "hypentropy":
        pytest.skip("spans more than the rule takes")
    # 3 gradients for each code of 12 bits and more, all of them for few codes
    codes = np.repeat(np.arange(1 << fmt.bits).astype(fmt.dtype), GRADIENTS.size if fmt.bits < 6 else 3)
    arrays = weight_of(fmt, codes.size, codes=codes, momentum=0.9)
    options = {"units": UNITS, "inner": 7}
    check([(arrays, scalars_of(fmt, choices, **settings), Draw(1, 2, 9), options)], fmt, choices, device)


def test_steps_of_every_size(device):
    """From a small part of a code to one across the whole range, in both directions."""
    choices, fmt = Choices(), lns8f5
    sizes = np.geomspace(1e-5, 1e5, 120).astype(F32)
    drives = np.concatenate([sizes, -sizes])
    gradient = np.tile(np.sign(drives) * np.minimum(np.abs(drives), 9.0), 256).astype(F32)
    values = np.tile(np.square(gradient[: drives.size] / drives), 256).astype(F32)
    arrays = np.repeat(np.arange(256).astype(np.uint8), drives.size), gradient, values, None
    numbers = {"lr": 0.1, "step": 100, "beta": 0.9999999, "g_bound": 1e6, "moment": "float32"}
    scalars = scalars_of(fmt, choices, **numbers)._replace(correction=F32(1.0))
    for unit in (0.0, 11.3):
        check([(arrays, scalars, Draw(0, 0, 100), {"units": np.array([unit], F32)})], fmt, choices, device)


def test_a_list_of_all_kinds(device):
    """Sizes that fill no block and none at all, shards, rows, gradients of 16 bits, indices beyond 32 bits."""
    choices, fmt = Choices(), lns8f5
    settings = SETTINGS["bytes, momentum"]
    scalars = scalars_of(fmt, choices, **settings)
    kinds = [
        (1, {}), (0, {}), (17, {"units": UNITS, "inner": 3}), (64, {}), (4096, {"dtype": torch.bfloat16}),
        (333, {"dtype": torch.float16, "units": UNITS}), (160, {"start": 2**32 - 80}), (90, {"start": 7}),
        (60, {"part": Part(11, 6, 20), "units": UNITS, "inner": 4}), (48, {"part": Part(2**33, 8, 2**31), "start": 3}),
        (96, {"part": Part(37, 1, 1), "units": UNITS}),
        (120, {"units": np.resize(UNITS, 12), "inner": Walk(1, 4, 10, 1)}),
        (2 * 10 * 3 * 2, {"units": np.resize(UNITS, 18), "inner": Walk(2, 4, 10, 3)}),
        (40, {"rows": np.array([3, 0]), "units": np.resize(UNITS, 28), "inner": Walk(1, 3, 20, 1)}),
        (30, {"rows": np.array([5, 0, 2**40]), "units": UNITS, "inner": 10}), (32, {"rows": np.array([9, 3])}),
    ]  # fmt: skip
    members = []
    for k, (n, options) in enumerate(kinds):
        gradient = np.random.default_rng(k).standard_normal(n).astype(F32)
        members.append((weight_of(fmt, n, k, momentum=0.9, gradient=gradient), scalars, Draw(3, k, 9), options))
    check(members, fmt, choices, device)


@pytest.mark.parametrize("part", [WHOLE, Part(5, 4, 9)], ids=str)
def test_a_shard_steps_as_the_whole(part, device):
    """Two processes' halves are the whole's: what each element draws is its own."""
    choices, fmt, n = Choices(), lns8f5, 72
    scalars = scalars_of(fmt, choices, **SETTINGS["bytes"])
    gradient = np.random.default_rng(0).standard_normal(n).astype(F32)
    arrays = weight_of(fmt, n, gradient=gradient)
    unit = np.ones(1, F32)
    tensors = [tensor(array, device) for array in arrays]
    whole = Stepped(*(None if t is None else t.clone() for t in tensors), unit, Walk(), scalars, Draw(0, 0, 1))
    halves = [
        Stepped(
            *(None if t is None else t[own].clone() for t in tensors), unit, Walk(), scalars, Draw(0, 0, 1), own.start
        )
        for own in (slice(0, 36), slice(36, n))
    ]  # fmt: skip
    if part is not WHOLE:
        index = np.array([part.first + i // part.length * part.stride + i % part.length for i in range(24)])
        halves = [
            Stepped(
                *(None if t is None else t[torch.from_numpy(index)].clone() for t in tensors),
                unit,
                Walk(),
                scalars,
                Draw(0, 0, 1),
                part=part,
            )
        ]
    counts = update_triton.step_list([whole, *halves], fmt, choices)
    if part is WHOLE:
        assert torch.equal(torch.cat([half.codes for half in halves]), whole.codes)
        assert counts[1:, :6].sum(0).tolist() == counts[0, :6].tolist()
    else:
        assert torch.equal(halves[0].codes, whole.codes[torch.from_numpy(index)])


@settings(max_examples=10)
@given(sizes=st.lists(st.integers(0, 130), min_size=1, max_size=4), skip=st.integers(0, 17), rule=st.booleans())
def test_sizes_and_addresses(sizes, skip, rule):
    """Views that begin anywhere in memory, so that vectors of 16 do not fit."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    choices, fmt = Choices() if rule else Choices("paper", "stochastic_value", "leave"), lns8f5
    scalars = scalars_of(fmt, choices, **SETTINGS["bytes"])
    members = []
    for k, n in enumerate(sizes):
        gradient = np.random.default_rng(n).standard_normal(n + skip).astype(F32)
        arrays = [a if a is None else a[skip:] for a in weight_of(fmt, n + skip, k, gradient=gradient)]
        members.append((arrays, scalars, Draw(0, k, 1), {}))
    check(members, fmt, choices, device)


# ------------------------------------------------------------------------------------------- rows that graphs have made


WORD = (1 << 32) - 1


@pytest.mark.parametrize(("seed", "stream", "step"), [(0, 0, 1), (5, 3, 1 << 31), ((1 << 63) - 1, WORD, WORD)])
def test_keys_of_a_step_on_the_card(seed, stream, step, device):
    found = random_words_triton.draw_keys(torch.tensor(step, device=device), seed, stream)
    assert found.tolist() == [int(key) & WORD for key in random_words.draw_keys(seed, stream, step)]


NUMBERS = [
    {"lr": 0.05, "r": 0.03, "exponent": 0}, {"lr": 1e-7, "r": 7.0, "exponent": -60},
    {"lr": 3.0, "r": 0.0, "exponent": 49}, {"lr": 1e300, "r": 1e-300, "exponent": 5},
    {"lr": math.nan, "r": 0.2, "exponent": -3},
    {"lr": -1.0, "r": 0.2, "exponent": 3}, {"lr": math.inf, "r": 1.0, "exponent": 1},
]  # fmt: skip


@pytest.mark.parametrize("rule", ["hypentropy", "paper"])
@pytest.mark.parametrize("moment", ["byte", "float32"])
def test_a_row_made_on_the_card_is_that_of_the_host(rule, moment, device):
    """Numbers, keys, scalars and tasks; an lr that is no rate is 0 there."""
    options = step_row_triton.Options(0.2, 1e30, 0.999, 0.9, 0.1)
    codes, gradient, second, momentum = (tensor(a, device) for a in weight_of(lns8f5, 100, moment=moment, momentum=0.9))
    arrays, part, walk = (codes, gradient, second, momentum), Part(7, 4, 9), Walk(2, 3, 10, 1)
    for step, own in enumerate(NUMBERS, 1):
        products = 0.999**step, 0.9**step
        doubles = (own["lr"], own["r"]), products
        lr, r, beta, decay = (torch.tensor(x, dtype=torch.float64, device=device) for pair in doubles for x in pair)
        exponent = torch.tensor(own["exponent"], dtype=torch.int32, device=device)
        changing = step_row_triton.Changing(lr, r, exponent, beta, decay, torch.tensor(step, device=device))
        units = torch.ones(5, device=device)
        row = step_row_triton.make_row(arrays, units, walk, changing, options, lns8f5, rule, 11, 4, 2, part)
        rate = own["lr"] if 0.0 <= own["lr"] < math.inf else 0.0
        numbers = StepNumbers(rate, step_numbers.kappa_of(0.2, own["r"]), own["exponent"], *products, *options[1:])
        scalars = step_numbers.step_scalars(lns8f5, rule, numbers, coded=moment == "byte")
        stepped = Stepped(*arrays, np.ones(5, F32), walk, scalars, Draw(11, 4, step), 2, None, part)
        expected = update_triton._row(stepped, units.data_ptr(), row.counts.data_ptr())
        assert row.table.tolist() == expected
        size = update_triton.TASK * block_of(100, update_triton.BLOCK)
        assert row.tasks.tolist() == update_triton._tasks(((0, 100),), size // update_triton.TASK).tolist()
