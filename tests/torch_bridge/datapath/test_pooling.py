"""Pooling and group norm in LNS: every bit is that of the definition's sums, number by number."""

import itertools
import math

import numpy as np
import pytest
import torch
from elementwise_fixtures import ADD, W, every_accumulator, floats, rounded, same, within
from scalar_datapath import decoded, encoded, place_of, total
from scalar_unit import Coded, ScalarUnit
from torch import nn
from torch.nn import functional

from lnsnum.torch_bridge.datapath import Accumulator

pytestmark = pytest.mark.usefixtures("one_thread")


def sums(u, x, lists, shape):
    """Of lists of codes of x, all of one length, by the accumulator."""
    one = Coded(np.array([u.fmt.max_magnitude], dtype=object), u.fmt, -u.fmt.max_log)
    flat = Coded(np.array([code for row in lists for code in row], dtype=object), u.fmt, x.log_offset)
    length = len(lists[0])
    pairs = [[(0, row * length + k) for k in range(length)] for row in range(len(lists))]
    offset = place_of(one, flat, pairs, u.accumulator)
    # a term is its code, moved to the sums' scale
    codes = [total([u_place(u, x, c, offset) for c in one], u.accumulator) for one in lists]
    return Coded(np.array([None, *codes], dtype=object)[1:].reshape(shape), u.fmt, offset)


def u_place(u, x, code, offset):
    m = code & u.fmt.max_magnitude
    return u._place(m - u.fmt.bias + x.log_offset, code > u.fmt.max_magnitude, offset) if m else code


def fixed(length, kernel, stride, pad, ceil):
    """Of each window its places, None where it is padding, and how many of it are within the padded image."""
    count = (length + 2 * pad - kernel) / stride
    count = (math.ceil(count) if ceil else math.floor(count)) + 1
    if ceil and (count - 1) * stride >= length + pad:
        count -= 1
    places = [
        [q if 0 <= q < length else None for q in range(p * stride - pad, p * stride - pad + kernel)]
        for p in range(count)
    ]
    return places, [min(p * stride - pad + kernel, length + pad) - (p * stride - pad) for p in range(count)]


def adaptive(length, count):
    rows = [list(range(p * length // count, -(-(p + 1) * length // count))) for p in range(count)]
    longest = max(map(len, rows))
    return [row + [None] * (longest - len(row)) for row in rows], [len(row) for row in rows]


def average(u, x, sides, counts):
    """Images (n, h, w)."""
    n, shape = len(x.codes), tuple(len(side) for side in sides)
    lists = [
        [0 if i is None or j is None else int(x.codes[image, i, j]) for i in rows for j in columns]
        for image in range(n) for rows in sides[0] for columns in sides[1]
    ]  # fmt: skip
    return u.divide(sums(u, x, lists, (n, *shape)), counts)


def back(u, e, sides, lengths, weight=lambda image, p, q: True):
    """To each place the errors of the windows that it lies in, in order; as many terms for each."""
    n = len(e.codes)
    reached = [
        [[p for p, side in enumerate(sides[d]) if q in side] for q in range(lengths[d])] for d in (0, 1)
    ]  # fmt: skip
    most = [max(map(len, one)) for one in reached]
    padded = [[row + [None] * (most[d] - len(row)) for row in reached[d]] for d in (0, 1)]
    lists = []
    for image, i, j in itertools.product(range(n), *map(range, lengths)):
        pairs = itertools.product(padded[0][i], padded[1][j])
        lists.append([
            int(e.codes[(image, *p)]) if None not in p and weight(image, p, (i, j)) else 0 for p in pairs
        ])  # fmt: skip
    return sums(u, e, lists, (n, *lengths))


def averages_are_those_of_scalars(add, pool, shape, sides, counts):
    """Both passes, with the windows of each side, and what each sum is divided by."""
    u, x = ScalarUnit(add), floats(*shape).requires_grad_()
    counts = u.encode(counts)
    with within(add) as path:
        out = pool(x)
        y = floats(*out.shape, seed=1)
        out.backward(y)
    same(out, average(u, u.encode(x.detach()), sides, counts))
    same(x.grad, back(u, u.divide(u.encode(y), counts), sides, shape[1:]))
    assert path.report().in_float == {}


AVERAGES = {
    "3 by 2, overlapping": ({"kernel_size": (3, 2), "stride": (2, 1), "padding": 1}, True),
    "padding does not count": ({"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}, False),
    "an unfinished window": ({"kernel_size": 2, "ceil_mode": True}, True),
    "another divisor": ({"kernel_size": 2, "divisor_override": 3}, True),
}


@every_accumulator
@pytest.mark.parametrize("name", AVERAGES)
def test_averages(name, add):
    options, padded = AVERAGES[name]
    kernel, stride, pad = (
        one if isinstance(one, tuple) else (one, one)
        for one in (options["kernel_size"], options.get("stride", options["kernel_size"]), options.get("padding", 0))
    )
    lengths = 3, 4
    found = [fixed(*one, options.get("ceil_mode", False)) for one in zip(lengths, kernel, stride, pad, strict=True)]
    sides = [one[0] for one in found]
    each = [one[1] if padded else [sum(q is not None for q in row) for row in one[0]] for one in found]
    counts = np.outer(*map(np.array, each)).astype(float)
    if "divisor_override" in options:
        counts = np.full_like(counts, options["divisor_override"])
    averages_are_those_of_scalars(add, lambda x: functional.avg_pool2d(x, **options), (2, *lengths), sides, counts)


@every_accumulator
def test_averages_that_adapt(add):
    lengths, out_lengths = (5, 4), (3, 2)
    found = [adaptive(*one) for one in zip(lengths, out_lengths, strict=True)]
    sides = [one[0] for one in found]
    counts = np.outer(*(np.array(one[1]) for one in found)).astype(float)
    averages_are_those_of_scalars(
        add, lambda x: functional.adaptive_avg_pool2d(x, out_lengths), (1, *lengths), sides, counts
    )


@every_accumulator
def test_the_greatest(add):
    """Overlapping windows, of which several may choose one place."""
    u, x, lengths = ScalarUnit(add), floats(2, 4, 3).requires_grad_(), (4, 3)
    sides = [[[q if 0 <= q < n else None for q in range(p * s - 1, p * s + 2)] for p in range(c)]
             for n, s, c in ((4, 1, 4), (3, 2, 2))]  # fmt: skip
    with within(add) as path:
        out, at = functional.max_pool2d(x, 3, (1, 2), 1, return_indices=True)
        y = floats(*out.shape, seed=1)
        out.backward(y)
    chosen = back(u, u.encode(y), sides, lengths, lambda n, p, q: int(at[(n, *p)]) == q[0] * 3 + q[1])
    same(x.grad, chosen)
    assert torch.equal(out, functional.max_pool2d(x, 3, (1, 2), 1))
    assert path.report().in_float == {}


def test_other_dimensions_are_the_same():
    """One and three dimensions, and windows that adapt: as two of which the others have length one."""
    add = Accumulator("lns12f6", order="pairwise")
    x = floats(2, 3, 4, 5)
    pairs = [
        (lambda x: functional.avg_pool1d(x[0], 3, 2, 1), lambda x: functional.avg_pool2d(x[0], (1, 3), (1, 2), (0, 1))),
        (lambda x: functional.avg_pool3d(x, (1, 2, 3)), lambda x: functional.avg_pool2d(x, (2, 3))),
        (lambda x: functional.max_pool1d(x[0], 3, 2), lambda x: functional.max_pool2d(x[0], (1, 3), (1, 2))),
        (lambda x: functional.max_pool3d(x, (1, 2, 3), 1), lambda x: functional.max_pool2d(x, (2, 3), 1)),
        (
            lambda x: functional.adaptive_avg_pool1d(x[0], 2),
            lambda x: functional.adaptive_avg_pool2d(x[0], (4, 2)),
        ),
        (lambda x: functional.adaptive_avg_pool3d(x, (3, 3, 2)), lambda x: functional.adaptive_avg_pool2d(x, (3, 2))),
        (
            lambda x: functional.adaptive_max_pool3d(x, (3, 3, 2)),
            lambda x: functional.adaptive_max_pool2d(x, (3, 2)),
        ),
        (lambda x: functional.adaptive_max_pool1d(x[0], 2), lambda x: functional.adaptive_max_pool2d(x[0], (4, 2))),
    ]
    for pair in pairs:
        found = []
        for pool in pair:
            y = x.clone().requires_grad_()
            with within(add) as path:
                out = pool(y)
                out.backward(floats(*out.shape, seed=1))
            assert path.report().in_float == {}
            found.append((out.detach(), y.grad))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])


def test_no_images():
    x = torch.ones((0, 2, 4, 4), requires_grad=True)
    with within():
        for pool in (functional.avg_pool2d, functional.max_pool2d, functional.adaptive_avg_pool2d):
            out = pool(x, 2)
            out.sum().backward()
            assert out.shape == (0, 2, 2, 2)
    assert x.grad.shape == x.shape


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 5}, {"kernel_size": 2, "padding": 2}, {"kernel_size": 2, "stride": 0},
     {"kernel_size": 2, "divisor_override": 0}],
    ids=str,
)  # fmt: skip
def test_windows_that_torch_refuses(options):
    x = torch.ones(1, 4, 4)
    with pytest.raises(RuntimeError):
        functional.avg_pool2d(x, **options)
    with within(), pytest.raises(RuntimeError, match=r"avg_pool2d .*(take 2 lengths|another number)"):
        functional.avg_pool2d(x, **options)


@every_accumulator
def test_group_norm(add):
    u, x, y = ScalarUnit(add), floats(2, 4, 2).requires_grad_(), floats(2, 4, 2, seed=1)
    layer = nn.GroupNorm(2, 4)
    layer.weight.data, layer.bias.data = floats(4, seed=2) + 0.1, floats(4, seed=3)
    with within(add) as path:
        out = layer(x)
        out.backward(y)
    a, e = (u.encode(one.detach()) for one in (x, y))
    w, b = (u.placed(encoded(p.detach().reshape(1, 4, 1), W)) for p in (layer.weight, layer.bias))

    def as_rows(word):
        return word._replace(codes=word.codes.reshape(4, 4))

    def as_images(word):
        return word._replace(codes=word.codes.reshape(2, 4, 2))

    rows = as_rows(a)
    mean = u.mean(rows, 1, keepdims=True)
    d = u.subtract(rows, mean)
    var = u.mean(u.multiply(d, d), 1, keepdims=True)
    r = u.power(u.add(var, u.encode(1e-5)), -1 / 2)
    h = u.multiply(d, r)
    same(out, u.add(u.multiply(as_images(h), w), b))
    # read again in the backward pass, as the nearest numbers
    h = u.multiply(u.subtract(rows, u.encode(decoded(mean))), u.encode(decoded(r)))
    g = as_rows(u.multiply(e, w))
    centered = u.subtract(g, u.mean(g, 1, keepdims=True))
    along = u.multiply(h, u.mean(u.multiply(g, h), 1, keepdims=True))
    same(x.grad, as_images(u.multiply(u.encode(decoded(r)), u.subtract(centered, along))))
    same(layer.weight.grad, rounded(u.total(u.multiply(e, as_images(h)), (0, 2))))
    same(layer.bias.grad, rounded(u.total(e, (0, 2))))
    assert path.report().in_float == {}


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(2, affine=False), nn.GroupNorm(2, 2), nn.LayerNorm(6)], ids=str)
def test_constants_beside_large_variances(layer):
    """Of a variance of zero epsilon is left, which is nothing beside one of 2^20: not NaN all the same."""
    x = torch.zeros(3, 2, 6)
    x[1 if isinstance(layer, nn.LayerNorm) else slice(None), 1] = 1000.0 * torch.randn(
        6, generator=torch.manual_seed(0)
    )
    with within(ADD):
        out = layer(x)
    torch.testing.assert_close(out.detach(), layer(x).detach(), rtol=0.1, atol=0.05)
