"""Every function of NumPy's that takes tensors, called at random, against NumPy's own answer for the decoded values.

A table says for each function how a call is drawn: shapes (without axes, empty, broadcast), axes (negative, several,
none, out of range), keepdims, out=, where=. NumPy's answer is the oracle: the same shape, the same truth values and
integers, the same numbers where numbers are moved, else numbers within a rounding; and an error where NumPy has one.
"""

import warnings
import zlib

import numpy as np
import pytest

from lnsnum import LNSTensor, lns16f10
from lnsnum.array.protocol import FUNCTIONS, TENSORS, signature_of
from lnsnum.array.ufuncs import COMPARED, KEPT, REDUCED, ROUNDED, SUPPORTED, TESTED

CALLS = 40

FMT = lns16f10
SHAPES = [(), (0,), (1,), (3,), (2, 3), (3, 1), (1, 3), (0, 3), (3, 3), (2, 0, 3), (2, 3, 2), (2, 1, 2, 3)]


class Draw:
    """Random arguments of one call."""

    def __init__(self, rng):
        self.rng = rng

    def one(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def shape(self, least=0, most=4):
        return self.one(*[s for s in SHAPES if least <= len(s) <= most])

    def tensor(self, shape=None, *, nan=True):
        """Numbers within 2^4 of 1 in size, zeros among them, and NaN in a third of the tensors; any scale."""
        shape = self.shape() if shape is None else shape
        codes = FMT.bias + self.rng.integers(-4000, 4000, shape)
        codes = np.where(self.rng.random(shape) < 0.3, FMT.bias + 1024 * self.rng.integers(-2, 3, shape), codes)
        codes = codes + FMT.sign_bit * self.rng.integers(0, 2, shape)
        codes = np.where(self.rng.random(shape) < 0.2, 0, codes)
        if nan and self.rng.random() < 0.33:
            codes = np.where(self.rng.random(shape) < 0.2, FMT.nan_code, codes)
        offset = self.one(0, 0, 300, -300, "channels")
        if offset == "channels":
            sizes = [n if self.rng.random() < 0.5 else 1 for n in shape]
            offset = self.rng.integers(-300, 300, sizes, np.int32) if shape else 0
        return self.laid_out(LNSTensor.from_codes(codes, FMT, log_offset=offset))

    def laid_out(self, x):
        """The same tensor, its codes in another order in memory."""
        axes = self.rng.permutation(x.ndim)
        turned = self.one(x, x.transpose(axes).copy().transpose(np.argsort(axes)), x)
        if x.ndim and self.rng.random() < 0.3:
            turned = turned[::-1].copy()[::-1]
        return turned

    def narrower(self, shape):
        """A shape that broadcasts to `shape`, or with it."""
        kept = shape[self.rng.integers(len(shape) + 1) :]
        return tuple(n if self.rng.random() < 0.7 else 1 for n in kept)

    def pair(self, *, nan=True):
        a = self.tensor(nan=nan)
        others = [self.tensor(shape, nan=nan) for shape in (self.narrower(a.shape), a.shape, None)]
        b = self.one(*others, 2, 0.5, -1)
        return (a, b) if self.rng.random() < 0.7 else (b, a)

    def axis(self, a, *, none=True, several=False):
        beyond = max(a.ndim, 1)  # of an array without axes NumPy sums the axes 0 and -1, which it has not
        choices = [*range(-a.ndim, a.ndim), beyond, -beyond - 1]
        if several:
            count = self.rng.integers(a.ndim + 1)
            choices.append(tuple(int(i) for i in self.rng.permutation(a.ndim)[:count] - self.one(0, a.ndim)))
            choices.append(tuple(range(a.ndim)))
        if none:
            choices.append(None)
        return self.one(*choices)

    def out(self, shape):
        return LNSTensor(np.full(shape, FMT.bias, np.uint16), FMT, log_offset=self.one(0, 400))


def unary(draw):
    return (draw.tensor(),), {}


def of_a_matrix(draw):
    return (draw.tensor(draw.shape(1, 4)),), {}


def binary(draw):
    return draw.pair(), {}


def binary_of_numbers(draw):
    return draw.pair(nan=False), {}


def reduced(draw):
    a = draw.tensor()
    named = {"axis": draw.axis(a, several=True)} if draw.rng.random() < 0.8 else {}
    if draw.rng.random() < 0.5:
        named["keepdims"] = draw.one(True, False)
    return (a,), named


def one_axis(*, keepdims=False, none=True, **also):
    def call(draw):
        a = draw.tensor()
        named = {"axis": draw.axis(a, none=none), **also} if draw.rng.random() < 0.8 else {**also}
        if keepdims and draw.rng.random() < 0.5:
            named["keepdims"] = True
        return (a,), named

    return call


def joined(least=0):
    def call(draw):
        shape = draw.shape(least)
        parts = [draw.tensor(shape if draw.rng.random() < 0.9 else None) for _ in range(draw.one(1, 2, 3))]
        return (parts,), {}

    return call


def along(draw):
    (parts,), _ = joined()(draw)
    a = parts[0]
    if draw.rng.random() < 0.5 and a.ndim:  # of other lengths along the axis
        axis = draw.axis(a, none=False)
        shape = list(a.shape)
        if -a.ndim <= axis < a.ndim:
            shape[axis] = draw.one(0, 1, 2)
            parts.append(draw.tensor(tuple(shape)))
        return (parts, axis), {}
    return (parts,), {"axis": draw.axis(a)} if draw.rng.random() < 0.7 else {}


def stacked(draw):
    (parts,), _ = joined()(draw)
    return (parts,), {"axis": draw.axis(parts[0], none=False)} if draw.rng.random() < 0.7 else {}


def split(draw):
    a = draw.tensor(draw.shape(1))
    return (a, draw.one(1, 2, 3, [1], [1, 2], [0, 5], [])), {"axis": draw.axis(a, none=False)}


def split_there(least):
    def call(draw):
        return (draw.tensor(draw.shape(least)), draw.one(1, 2, 3, [1], [0, 2])), {}

    return call


def vectors_and_matrices(draw):
    n = draw.one(0, 1, 3)
    left = draw.one((n,), (2, n), (3, n), (2, 1, n), (0, n), ())
    right = draw.one((n,), (n, 2), (n, 1), (2, n, 3), (n, 0), ())
    nan = n == 3 and () not in (left, right)  # BLAS takes 0 times NaN for 0 where one number stands beside an array
    return (draw.tensor(left, nan=nan), draw.tensor(right, nan=nan)), {}


def last_axes(draw):
    n = draw.one(0, 1, 3)
    shapes = ((n,), (2, n), (0, n), (2, 3, n), (1, n), (), (3,))
    a, b = (draw.tensor(draw.one(*shapes), nan=False) for _ in range(2))
    return (draw.one(a, 2), b) if draw.rng.random() < 0.2 else (a, draw.one(b, b, 0.5)), {}


def of_tensordot(draw):
    a, b = draw.tensor(draw.one((2, 3), (3, 2), (2, 3, 2), (3,), (0, 3))), draw.tensor(
        draw.one((3, 2), (2, 3), (2, 3, 2), (3,), (3, 0), ())
    )  # fmt: skip
    axes = draw.one(0, 1, 2, (-1, 0), (0, -1), ([1], [0]), ([0, 1], [1, 0]), ([-1, -2], [0, 1]), ([], []))
    return (a, b), {"axes": axes}


def in_range(draw):
    a = draw.tensor()
    low, high = draw.one(None, -1, draw.tensor(draw.narrower(a.shape))), draw.one(None, 2, draw.tensor())
    return draw.one(((a, low, high), {}), ((a,), {"min": low, "max": high}), ((a,), {"a_min": low, "a_max": high}))


def taken(draw):
    a = draw.tensor()
    indices = draw.one(0, -1, [0], [0, 0, -1], [[0], [1]], [], 7)
    return (a, np.array(indices, int)), {"axis": draw.axis(a)}


def taken_along(draw):
    a = draw.tensor(draw.shape(1))
    axis = draw.axis(a)
    length = a.size if axis is None else a.shape[axis] if -a.ndim <= axis < a.ndim else 1
    return (a, draw.rng.integers(0, max(length, 1), a.size if axis is None else a.shape)), {"axis": axis}


def deleted(draw):
    a = draw.tensor()
    return (a, draw.one(0, -1, [0], [0, 0], slice(0, 2), [], 5)), {"axis": draw.axis(a)}


def repeated(draw):
    a = draw.tensor()
    return (a, draw.one(0, 1, 2, [2], [1, 2, 0], np.array([1, 2]))), {"axis": draw.axis(a)}


def with_one_more(*choices):
    def call(draw):
        return (draw.tensor(), draw.one(*choices)), {}

    return call


def with_axes(count, *, keyword=None):
    def call(draw):
        a = draw.tensor()
        axes = [draw.axis(a, none=False) for _ in range(count)]
        return ((a,), {keyword: axes[0]}) if keyword else ((a, *axes), {})

    return call


def shaped(draw):
    a = draw.tensor()
    return (a, draw.one(-1, (a.size,), a.shape, a.shape[::-1], (-1, 1), (1, -1), (3, -1), (7,), ())), {}


def turned(draw):
    a = draw.tensor()
    axes = [int(i) for i in draw.rng.permutation(a.ndim)]
    return (a,), draw.one({}, {"axes": axes}, {"axes": [i - a.ndim for i in axes]}, {"axes": axes[:-1]})


def moved_axis(draw):
    a = draw.tensor()
    some = [int(i) for i in draw.rng.permutation(a.ndim)[:2]]
    others = [int(i) for i in draw.rng.permutation(a.ndim)[: len(some)] - a.ndim]
    return draw.one(((a, some, others), {}), ((a, draw.axis(a, none=False), draw.axis(a, none=False)), {}))


def rolled(draw):
    a = draw.tensor()
    return draw.one(
        ((a, draw.one(0, 1, -2, 7)), {"axis": draw.axis(a)}), ((a, (1, 2)), {"axis": draw.axis(a, several=True)})
    )


def searched(draw):
    a = np.sort(draw.tensor(draw.one((0,), (1,), (3,), (5,)), nan=False))
    return draw.one(
        ((a, draw.tensor()), {"side": draw.one("left", "right")}), ((a, draw.one(0.3, -1, 2.5)), {}),
        ((a[::-1], draw.tensor()), {"sorter": np.arange(a.size)[::-1]}),
    )  # fmt: skip


def chosen(draw):
    a = draw.tensor()
    condition = draw.rng.random(draw.narrower(a.shape)) < 0.5
    return draw.one(
        ((condition, a, draw.one(0, 1, draw.tensor(draw.narrower(a.shape)))), {}), ((a,), {}),
        ((a, draw.tensor(a.shape), draw.tensor(a.shape)), {}),
    )  # fmt: skip


def equal(draw):
    a = draw.tensor()
    return (a, draw.one(a, a.copy(), draw.tensor(), a.ravel())), draw.one({}, {"equal_nan": True})


def close(draw):
    a = draw.tensor()
    return (a, draw.one(a * draw.tensor(draw.narrower(a.shape)), a, 1.0)), draw.one(
        {}, {"rtol": 0.5}, {"atol": 1.0, "equal_nan": True}
    )


def like(draw):
    a = draw.tensor()
    other = [{"shape": draw.shape()}, {"shape": 4}] if isinstance(a.log_offset, int) else []
    return (a,), draw.one({}, {"shape": a.shape}, *other)


def filled(draw):
    a = draw.tensor()
    a = LNSTensor(a.codes, FMT)
    return (a, draw.one(0, 1, -2.0, LNSTensor.from_float(draw.one(3.0, [1.0, 2.0, 4.0]), FMT))), {}


def several(draw):
    return tuple(draw.tensor() for _ in range(draw.one(1, 2, 3))), {}


def broadcast(draw):
    a = draw.tensor()
    return (a, *(draw.tensor(draw.narrower(a.shape)) for _ in range(draw.one(0, 1, 2)))), {}


def widened(draw):
    a = draw.tensor()
    return (a, draw.one((2, *a.shape), a.shape, (3, 3), (2, 3), 3)), {}


def unique(draw):
    flags = ("return_index", "return_inverse", "return_counts")
    return (draw.tensor(draw.shape(0, 1)),), {flag: True for flag in flags if draw.rng.random() < 0.4}


def appended(draw):
    a = draw.tensor()
    return (a, draw.one(draw.tensor(a.shape), draw.tensor(), 1)), {"axis": draw.axis(a)}


def spread(draw):
    (a,), named = reduced(draw)
    return (a,), {**named, **draw.one({}, {"ddof": 1}, {"correction": 1})}


def quantile(scale):
    def call(draw):
        (a,), named = reduced(draw)
        q = draw.one(0, 0.5, 0.3, 1.0, [0.25, 0.75], [[0.1], [0.9]])
        return (a, np.asarray(q) * scale), {**named, **draw.one({}, {}, {"method": "lower"}, {"method": "midpoint"})}

    return call


def cumulative(draw):
    a = draw.tensor()
    return (a,), {"axis": draw.axis(a, none=a.ndim < 2), **draw.one({}, {"include_initial": True})}


def differences(draw):
    a = draw.tensor()
    beside = draw.one({}, {}, {"prepend": 1}, {"append": draw.tensor(a.shape), "prepend": 0})
    return (a,), {**draw.one({}, {"n": draw.one(0, 1, 2, -1)}), "axis": draw.axis(a, none=False), **beside}


def einsum(draw):
    m, n, k = draw.one(0, 1, 2), 3, draw.one(1, 2)
    subscripts, shapes = draw.one(
        ("ij->i", [(m, n)]), ("ij,jk", [(m, n), (n, k)]), ("ij,ij->", [(m, n), (m, n)]), ("ii", [(n, n)]),
        ("i,j,k->ijk", [(m,), (n,), (k,)]), ("...i,i", [(k, m, n), (n,)]), ("ij->ji", [(m, n)]),
        ("ij,jk", [(m, n), (2, 2)]),
        ("bij,bjk->bik", [(k, m, n), (k, n, 2)]), ("i,", [(n,), ()]), ("ij->k", [(m, n)]),
    )  # fmt: skip
    operands = [draw.tensor(shape, nan=False) for shape in shapes]
    if len(shapes) == 2 and draw.rng.random() < 0.2:
        return (operands[0], list(range(len(shapes[0]))), operands[1], [8 + i for i in range(len(shapes[1]))]), {}
    return (subscripts, *operands), draw.one({}, {"optimize": True})


def normed(draw):
    a = draw.tensor()
    axis = draw.one(None, -1, 0, (0, 1), (-1, 0), 5)
    axes = a.ndim if axis is None else np.size(axis)
    orders = {1: (None, 0, 1, 2, np.inf, -np.inf), 2: (None, "fro", 1, -1, np.inf, -np.inf)}
    return (a, draw.one(*orders.get(axes, (None,)))), {"axis": axis, **draw.one({}, {"keepdims": True})}


def padded(draw):
    a = draw.tensor(draw.shape(0, 3))
    width = draw.one(1, 0, (2, 0), [(0, 1)] * max(a.ndim, 1), [(1, 0)] * (a.ndim + 1), -1)
    return (a, width), draw.one(
        {}, {"mode": "constant", "constant_values": draw.one(1, 0, (2, -1), 0.5)}, {"mode": "edge"}, {"mode": "wrap"},
        {"mode": "reflect"}, {"mode": "symmetric"},
    )  # fmt: skip


def to_a_power(draw):
    return (draw.tensor(nan=False), draw.one(0, 1, 2, 3, -1, 0.5, np.int8(2))), {}


DRAWN = {
    **dict.fromkeys((*TESTED, *KEPT, *(f for f in ROUNDED if f.nin == 1)), unary),
    **dict.fromkeys((*COMPARED, *(f for f in ROUNDED if f.nin == 2), np.nextafter), binary),
    **dict.fromkeys((np.copysign, np.float_power), binary_of_numbers),  # unlike NumPy, any function of NaN is NaN
    np.power: to_a_power,
    **dict.fromkeys((np.matmul, np.dot), vectors_and_matrices),
    np.inner: last_axes,
    **dict.fromkeys((np.vdot, np.outer), binary),
    np.tensordot: of_tensordot,
    **dict.fromkeys((np.sum, np.prod, np.max, np.min, np.amax, np.amin, np.any, np.all), reduced),
    **dict.fromkeys((np.count_nonzero, np.mean), reduced),
    **dict.fromkeys((np.argmax, np.argmin), one_axis(keepdims=True)),
    **dict.fromkeys((np.sort, np.argsort), one_axis(kind="stable")),
    np.concatenate: along, np.stack: stacked,
    **dict.fromkeys((np.vstack, np.hstack, np.dstack, np.column_stack), joined()),
    np.append: appended,
    **dict.fromkeys((np.split, np.array_split), split),
    **dict.fromkeys((np.hsplit, np.vsplit), split_there(1)), np.dsplit: split_there(3),
    np.clip: in_range, np.take: taken, np.take_along_axis: taken_along, np.delete: deleted, np.repeat: repeated,
    np.tile: with_one_more(0, 1, 2, (2,), (2, 1), (1, 2, 3), ()),
    **dict.fromkeys((np.tril, np.triu), with_one_more(0, 1, -1, -5)),
    np.diag: with_one_more(0, 1, -2),
    **dict.fromkeys((np.diagonal, np.trace), lambda draw: (
        (draw.tensor(),),
        draw.one({}, {"offset": draw.one(1, -1, 5)}, {"axis1": -1, "axis2": 0}, {"axis1": 1, "axis2": 2}),
    )),
    np.rot90: lambda draw: ((draw.tensor(),), draw.one({}, {"k": draw.one(0, 2, -1, 7)}, {"axes": (-1, 0)})),
    np.flip: lambda draw: ((a := draw.tensor(),), {"axis": draw.axis(a, several=True)}),
    **dict.fromkeys((np.fliplr, np.flipud, np.nonzero, np.flatnonzero, np.argwhere, np.copy, np.ravel), unary),
    **dict.fromkeys((np.shape, np.ndim, np.matrix_transpose), unary),
    np.size: one_axis(),
    np.reshape: shaped,
    **dict.fromkeys((np.transpose, np.permute_dims), turned),
    np.swapaxes: with_axes(2), np.moveaxis: moved_axis, np.rollaxis: with_axes(2),
    np.squeeze: lambda draw: ((a := draw.tensor(),), {"axis": draw.axis(a, several=True)}),
    np.expand_dims: lambda draw: ((a := draw.tensor(), draw.one(0, -1, 1, -2, (0, 1), (-1, 0), (), a.ndim + 1)), {}),
    **dict.fromkeys((np.var, np.std), spread), np.quantile: quantile(1), np.percentile: quantile(100),
    **dict.fromkeys((np.median, np.ptp), reduced), **dict.fromkeys((np.cumsum, np.cumprod), one_axis()),
    np.diff: differences, np.einsum: einsum, np.linalg.norm: normed, np.pad: padded,
    np.roll: rolled, np.searchsorted: searched, np.where: chosen, np.array_equal: equal,
    **dict.fromkeys((np.isclose, np.allclose), close),
    **dict.fromkeys((np.zeros_like, np.ones_like), like),
    np.full_like: filled, np.broadcast_to: widened, np.broadcast_arrays: broadcast, np.unique: unique,
    **dict.fromkeys((np.atleast_1d, np.atleast_2d, np.atleast_3d), several),
}  # fmt: skip
if hasattr(np, "unstack"):
    DRAWN[np.unstack] = one_axis(none=False)
    DRAWN |= dict.fromkeys((np.cumulative_sum, np.cumulative_prod), cumulative)

ELSEWHERE = {np.empty_like, np.copyto, np.shares_memory, np.may_share_memory, getattr(np, "astype", None), None}
"""Without an answer of NumPy's to compare: tests of their own in test_numpy_functions."""

NEIGHBOURS = {np.nextafter}
"""Functions whose numbers are the format's own matter."""

INEXACT = {
    *ROUNDED,
    np.power,
    np.matmul,
    np.dot,
    np.vdot,
    np.inner,
    np.outer,
    np.tensordot,
    np.sum,
    np.mean,
    np.prod,
    np.trace,
}
INEXACT |= {np.var, np.std, np.quantile, np.percentile, np.median, np.ptp, np.cumsum, np.cumprod, np.diff, np.einsum,
            np.linalg.norm}  # fmt: skip
INEXACT |= {getattr(np, name) for name in ("cumulative_sum", "cumulative_prod") if hasattr(np, name)}
INEXACT |= {np.clip}  # at the scale of the result

TAKE_OUT = {*SUPPORTED, np.sum, np.mean, np.prod, np.max, np.min, np.matmul, np.dot, np.outer, np.trace, np.clip,
            np.var, np.std, np.ptp, np.cumsum, np.cumprod, np.concatenate, np.stack, np.any, np.all, np.argmax,
            np.argmin}  # fmt: skip
TAKE_WHERE = {*SUPPORTED} - {np.matmul}


def decoded(x):
    if isinstance(x, LNSTensor):
        return x.to_float()
    if isinstance(x, dict):
        return {key: decoded(value) for key, value in x.items()}
    return type(x)(decoded(value) for value in x) if isinstance(x, (list, tuple)) else x


def answer(function, arguments, named):
    """The result, or the error of a call."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return function(*arguments, **named), None
    except (TypeError, ValueError, IndexError) as error:
        return None, error


def agree(ours, theirs, function):
    """Assert that an answer is NumPy's."""
    if isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            agree(a, b, function)
        return
    assert np.shape(ours) == np.shape(theirs)
    if not isinstance(ours, LNSTensor):
        assert np.asarray(ours).dtype.kind in "biu"
        assert np.asarray(ours).dtype.kind == np.asarray(theirs).dtype.kind
        np.testing.assert_array_equal(ours, theirs)
        return
    assert np.asarray(theirs).dtype.kind == "f"
    if function in NEIGHBOURS:
        return
    floats = ours.to_float()
    if function not in INEXACT:
        np.testing.assert_array_equal(floats, theirs)
        return
    offset = np.broadcast_to(ours.log_offset, ours.shape)
    greatest, least = (2.0 ** ((sign * FMT.max_log + offset) / 1024) for sign in (1, -1))
    expected = np.clip(theirs, -greatest, greatest)
    beyond = np.isinf(theirs)  # there is no infinity: a quotient by zero is NaN, what overflows saturates
    wrong = np.abs(floats - expected) > 1e-3 * np.abs(expected) + least + 1e-9
    wrong |= np.isnan(floats) != np.isnan(theirs)
    assert not np.any(wrong & ~(beyond & (np.isnan(floats) | ~wrong))), (floats, theirs)


def outs(draw, function, arguments, named, theirs):
    """out= and where= for a call that NumPy has answered, or None."""
    if function not in TAKE_OUT or theirs is None or draw.rng.random() < 0.5:
        return None
    shape = np.shape(theirs) if draw.rng.random() < 0.9 or function is np.matmul else draw.shape()
    kind = np.asarray(theirs).dtype
    out = draw.out(shape) if kind.kind == "f" else np.zeros(shape, kind)
    where = {}
    if function in TAKE_WHERE and draw.rng.random() < 0.5:
        where = {"where": draw.rng.random(draw.narrower(shape)) < 0.5}
    return {"out": out, **where}


METHODS = {
    **dict.fromkeys(("sum", "prod", "mean", "max", "min", "var", "std"), DRAWN[np.mean]),
    **dict.fromkeys(("cumsum", "cumprod"), DRAWN[np.cumsum]),
    **dict.fromkeys(("argmax", "argmin"), DRAWN[np.argmax]),
    "argsort": one_axis(),
    **dict.fromkeys(("ravel", "flatten", "tolist", "copy", "__len__", "__pos__", "__neg__", "__abs__"), unary),
    "reshape": shaped, "squeeze": DRAWN[np.squeeze], "swapaxes": with_axes(2), "take": taken, "repeat": repeated,
    "transpose": lambda draw: ((a := draw.tensor(), *(int(i) for i in draw.rng.permutation(a.ndim))), {}),
    "clip": lambda draw: ((draw.tensor(nan=False), *draw.one((-1, 2), (None, 1), (0.5, None))), {}),
    "dot": lambda draw: next(c for c in (vectors_and_matrices(draw) for _ in range(99)) if c[0][0].ndim),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_methods_answer_as_those_of_arrays(name):
    draw = Draw(np.random.default_rng(zlib.crc32(name.encode())))
    for _ in range(CALLS):
        (a, *arguments), named = METHODS[name](draw)
        if name == "argsort":
            a = LNSTensor(np.resize(draw.rng.permutation(60000).astype(np.uint16) % 32768, a.shape), FMT)  # no ties
        theirs, error = answer(getattr(np.asarray(a), name), decoded(arguments), named)
        ours, our_error = answer(getattr(a, name), arguments, named)
        if "is not defined" in str(our_error) and error is None and np.isnan(theirs).all():
            continue
        shown = f"{a!r}.{name}(*{arguments}, **{named})"
        assert (error is None) == (our_error is None), f"{shown}: {error!r} of NumPy, {our_error!r} of ours"
        if name == "tolist":
            np.testing.assert_array_equal(ours, theirs)
        elif error is None:
            rounded = ("sum", "prod", "mean", "clip", "dot", "var", "std", "cumsum", "cumprod")
            agree(ours, theirs, np.clip if name in rounded else None)


@pytest.mark.parametrize("ufunc", REDUCED, ids=lambda f: f.__name__)
def test_reductions_by_ufuncs_answer_as_numpy(ufunc):
    draw = Draw(np.random.default_rng(0))
    for _ in range(CALLS):
        (a,), named = reduced(draw)
        theirs, error = answer(ufunc.reduce, (decoded(a),), named)
        ours, our_error = answer(ufunc.reduce, (a,), named)
        if a.ndim == 0 and "axis" not in named:
            continue  # NumPy's default is axis 0, which an array without axes has not
        assert (error is None) == (our_error is None), (a, named, error, our_error)
        if error is None:
            agree(ours, theirs, np.sum)


def test_the_table_has_every_function():
    assert {*FUNCTIONS, *SUPPORTED} == {*DRAWN} | (ELSEWHERE - {None})


@pytest.mark.parametrize("function", DRAWN, ids=lambda f: f.__name__)
def test_functions_answer_as_numpy(function):
    draw = Draw(np.random.default_rng(zlib.crc32(function.__name__.encode())))
    answered = 0
    for _ in range(CALLS):
        arguments, named = DRAWN[function](draw)
        theirs, error = answer(function, decoded(arguments), decoded(named))
        shown = f"numpy.{function.__name__}(*{arguments}, **{named})"
        ours, our_error = answer(function, arguments, named)
        if our_error is not None and "is not defined" in str(our_error) and error is None:
            assert np.isnan(theirs).all(), shown  # NumPy warns and gives NaN
            continue
        assert (error is None) == (our_error is None), f"{shown}: {error!r} of NumPy, {our_error!r} of ours"
        if error is not None:
            continue
        answered += 1
        try:
            agree(ours, theirs, function)
        except AssertionError as difference:
            raise AssertionError(f"{shown}: {difference}\n{ours!r}\n{theirs!r}") from None
        places = outs(draw, function, arguments, named, theirs)
        if places is not None:
            written_there(function, arguments, named, places, shown)
    assert answered > CALLS // 6


def written_there(function, arguments, named, places, shown):
    """The same call into a place, whose other elements stay as they are."""
    before = decoded(places["out"])
    their_places = {**places, "out": np.array(before)}
    theirs, error = answer(function, decoded(arguments), {**decoded(named), **their_places})
    ours, our_error = answer(function, arguments, {**named, **places})
    assert (error is None) == (our_error is None), f"{shown} with {places}: {error!r} of NumPy, {our_error!r} of ours"
    if error is None:
        assert ours is places["out"], shown
        agree(ours, theirs, function if function in INEXACT or function in NEIGHBOURS else np.clip)


# ------------------------------------------------------------------------------- tensors where plain numbers are meant


def places(function):
    """The parameters of a function that are no operands, its signature, and the names of the operands."""
    signature = signature_of(function, FUNCTIONS[function])
    operands = TENSORS.get(function) or tuple(signature.parameters)[:1]
    return [p for p in signature.parameters.values() if p.name not in (*operands, "out")], signature, operands


PLACES = [(f, p.name) for f in FUNCTIONS for p in places(f)[0] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


@pytest.mark.parametrize(("function", "name"), PLACES, ids=lambda v: getattr(v, "__name__", v))
def test_a_tensor_is_no_plain_number(function, name):
    x = LNSTensor.from_float([[1.0, 2.0], [0.5, 4.0]], FMT)
    _, signature, operands = places(function)
    for value in (x, x[0, 0], [x], (1, (x[0, 0],))):
        call = signature.bind_partial()
        for p in signature.parameters.values():
            if p.kind == p.VAR_POSITIONAL:
                call.arguments[p.name] = (x, x)
            elif p.kind != p.VAR_KEYWORD and (p.default is p.empty or p.name == name):
                call.arguments[p.name] = value if p.name == name else x if p.name in operands else 0
        place = "linalg." if function is np.linalg.norm else ""
        told = rf"^numpy\.{place}{function.__name__} takes no LNSTensor as {name}: give plain numbers, by tolist\(\)$"
        with pytest.raises(TypeError, match=told):
            function(*call.args, **call.kwargs)


def test_a_tensor_is_no_option_of_a_ufunc():
    x = LNSTensor.from_float([1.0, 2.0], FMT)
    for named in ({"where": x}, {"where": [x[0], True]}, {"dtype": x}, {"casting": x}):
        with pytest.raises(
            TypeError, match=rf"^numpy\.add takes no LNSTensor as {next(iter(named))}: give plain numbers"
        ):
            np.add(x, x, out=x.copy(), **named)
    with pytest.raises(TypeError, match=r"^numpy\.sum takes no LNSTensor as axis: give plain numbers, by tolist\(\)$"):
        np.add.reduce(x, axis=x[0])
    with pytest.raises(TypeError, match=r"^numpy\.isclose takes no LNSTensor as rtol: "):
        np.isclose(1.0, 1.0, rtol=x[0])
