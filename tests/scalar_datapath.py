"""A datapath one number at a time: the oracle of its tests, from `lnsnum.reference` and the definitions alone.

Numbers are (code, format, log_offset); tensors are NumPy arrays of Python integers, with one format and log_offset.
"""

import itertools
import math
from typing import NamedTuple

import mpmath
import numpy as np

from lnsnum import reference
from lnsnum.gaussian import Exact

MP = mpmath.MPContext()  # of its own: others count on theirs
MP.prec = 200


class Coded(NamedTuple):
    """Codes of one scale."""

    codes: np.ndarray
    fmt: object
    log_offset: int

    def at(self, index):
        return int(self.codes[index])


def fitted(values, fmt):
    """The least log_offset at which the greatest magnitude does not saturate, by mpmath."""
    greatest = max((abs(float(v)) for v in values), default=0.0)
    if greatest == 0.0:
        return 0
    return int(MP.nint(MP.log(greatest, fmt.base) * 2**fmt.fraction_bits)) - fmt.max_log


def encoded(x, fmt, log_offset=None):
    """Floats as codes, each to nearest."""
    x = np.asarray(x, dtype=np.float64)
    offset = fitted(x.reshape(-1), fmt) if log_offset is None else log_offset
    codes = [reference.encode(float(v), fmt, log_offset=offset) for v in x.reshape(-1)]
    return Coded(np.array(codes, dtype=object).reshape(x.shape), fmt, offset)


def decoded(x):
    """The float32 nearest to each."""
    bits = [reference.decode(int(code), x.fmt, "float32", log_offset=x.log_offset) for code in x.codes.reshape(-1)]
    return np.array(bits, dtype=np.uint32).view(np.float32).reshape(x.codes.shape)


def place_of(a, b, lists, accumulator):
    """The accumulator's log_offset: the greatest product of the formats and scales, times the number of terms, fits; or
    the greatest sum of magnitudes does."""
    if not isinstance(accumulator.log_offset, str):
        return accumulator.log_offset
    count = max([1, *map(len, lists)])
    if accumulator.log_offset == "dynamic":
        greatest, tops = greatest_sum(a, b, lists, count)
        if greatest:
            steps = [2 ** (accumulator.fmt.fraction_bits - x.fmt.fraction_bits) for x in (a, b)]
            one = sum((top - x.fmt.bias + x.log_offset) * s for x, top, s in zip((a, b), tops, steps, strict=True))
            return one + fitted([greatest], accumulator.fmt)
    to = accumulator.fmt
    tops = [(x.fmt.max_log + x.log_offset) * 2 ** (to.fraction_bits - x.fmt.fraction_bits) for x in (a, b)]
    room = math.ceil(MP.log(count, to.base) * 2**to.fraction_bits - MP.mpf(2) ** -100)
    return sum(tops) + room - to.max_log


def greatest_sum(a, b, lists, count):
    """Of magnitudes that are integers in units of 2^-s of the greatest number, rounded up; and the greatest numbers."""
    used = [{pair[k] for pairs in lists for pair in pairs} - {None} for k in (0, 1)]
    tops = [max((x.at(i) & x.fmt.max_magnitude for i in some), default=0) for x, some in zip((a, b), used, strict=True)]
    s = min(20, (53 - math.ceil(math.log2(count))) // 2)

    def integer(x, i, top):
        m = 0 if i is None else x.at(i) & x.fmt.max_magnitude
        power = MP.power(x.fmt.base, MP.mpf(m - top) / 2**x.fmt.fraction_bits) * 2**s
        return int(MP.ceil(power - MP.mpf(2) ** -100)) if m else 0

    totals = [sum(integer(a, i, tops[0]) * integer(b, j, tops[1]) for i, j in pairs) for pairs in lists]
    return max(totals, default=0) / 4**s, tops


def add(x, y, accumulator):
    """Of two codes of the accumulator; its scale has no say."""
    to, log = accumulator.fmt, accumulator.gaussian_log
    if log == Exact():
        return reference.add(x, y, to)
    (m, s), (n, t) = ((code & to.max_magnitude, code > to.max_magnitude) for code in (x, y))
    if m == 0 or n == 0:
        return y if m == 0 else x
    if m < n:
        m, s, n, t = n, t, m, s
    if m == n and s != t:
        return 0
    z = np.array([m - n], dtype=np.int64)
    m += int((log.sb(z, to) if s == t else log.db(z, to))[0])
    if m < 1:  # half of the smallest is the smallest, to nearest
        m = 1 if m >= 1 - 2**to.fraction_bits else 0
    m = min(m, to.max_magnitude)
    return m + (to.sign_bit if s and m else 0)


def total(terms, accumulator):
    """The sum of codes of the accumulator in its order."""
    terms = list(terms)
    if not terms:
        return 0
    if accumulator.order == "blocked":
        blocks = [terms[i : i + accumulator.block] for i in range(0, len(terms), accumulator.block)]
        terms = [sequential(block, accumulator) for block in blocks]
    if accumulator.order == "pairwise":
        while len(terms) > 1:
            pairs = [terms[i : i + 2] for i in range(0, len(terms), 2)]
            terms = [sequential(pair, accumulator) for pair in pairs]
        return terms[0]
    return sequential(terms, accumulator)


def sequential(terms, accumulator):
    out = terms[0]
    for term in terms[1:]:
        out = add(out, term, accumulator)
    return out


def term(a, i, b, j, accumulator, log_offset):
    """The exact product of two numbers, placed in the accumulator."""
    offsets = {"a_log_offset": a.log_offset, "b_log_offset": b.log_offset, "out_log_offset": log_offset}
    return reference.multiply(a.at(i), b.at(j), a.fmt, b_format=b.fmt, out_format=accumulator.fmt, **offsets)


def sums(a, b, shape, pairs, accumulator, bias=None):
    """An array of sums of products: pairs(index) gives the indices of the two factors of each term, in order.

    `bias`, a `Coded`, and the index of what is added last.
    """
    lists = {index: list(pairs(index)) for index in np.ndindex(shape)}
    offset = place_of(a, b, list(lists.values()), accumulator)
    out = np.zeros(shape, dtype=object)
    for index, terms in lists.items():
        # None stands for padding: a zero is a term too
        codes = [0 if i is None or j is None else term(a, i, b, j, accumulator, offset) for i, j in terms]
        out[index] = total(codes, accumulator)
        if bias is not None and accumulator.log_offset != "dynamic":
            own, of = bias
            scales = {"log_offset": own.log_offset, "out_log_offset": offset}
            placed = reference.convert(own.at(of(index)), own.fmt, accumulator.fmt, **scales)
            out[index] = add(int(out[index]), placed, accumulator)
    found = Coded(out, accumulator.fmt, offset)
    if bias is not None and accumulator.log_offset == "dynamic":
        # the range moves to where the results are, as that of any sum of two
        own, of = bias
        codes = np.array([own.codes[of(index)] for index in np.ndindex(shape)], dtype=object).reshape(shape)
        import scalar_unit  # which stands on this

        unit = scalar_unit.ScalarUnit(accumulator)
        found = unit.add(found, unit.placed(own._replace(codes=codes)))
    return found


def matmul(a, b, accumulator, bias=None):
    """Of matrices (M, K) and (K, N); `bias` (N,)."""
    (m, k), n = a.codes.shape, b.codes.shape[1]
    own = None if bias is None else (bias, lambda index: index[1])
    return sums(a, b, (m, n), lambda ij: [((ij[0], q), (q, ij[1])) for q in range(k)], accumulator, own)


def transposed(x):
    return x._replace(codes=x.codes.T)


def column_sums(x, accumulator):
    """Over the rows of a matrix, as the product of ones with it, whose greatest number is 1."""
    rows = len(x.codes)
    ones = Coded(np.full((1, rows), x.fmt.max_magnitude, dtype=object), x.fmt, -x.fmt.max_log)
    return matmul(ones, x, accumulator)


def window(p, k, move):
    """Where a window's element lies in an image, dimension by dimension."""
    return tuple(
        q * s + e * d - pad
        for q, e, s, d, pad in zip(p, k, move["stride"], move["dilation"], move["padding"], strict=True)
    )


def inside(place, lengths):
    return all(0 <= q < length for q, length in zip(place, lengths, strict=True))


def convolution(x, w, spatial, accumulator, move, bias=None):
    """y[n, o, p] = sum over c, k of w[o, c, k] x[n, c, p s + k d - pad], in that order of c and k."""
    (n, _, *lengths), (o, c, *kernel) = x.codes.shape, w.codes.shape
    per_group = o // move["groups"]

    def pairs(index):
        image, out, *p = index
        first = out // per_group * c
        for channel, *k in itertools.product(range(c), *map(range, kernel)):
            place = window(p, k, move)
            yield (out, channel, *k), (image, first + channel, *place) if inside(place, lengths) else None

    own = None if bias is None else (bias, lambda index: index[1])
    return sums(w, x, (n, o, *spatial), pairs, accumulator, own)


def spread(y, w, spatial, accumulator, move, bias=None):
    """x[n, c, q] = sum over o, k of w[o, c, k] y[n, o, p] where p s + k d - pad = q; o, then q's windows in order.

    Windows lie back to front in the kernel: the first one has the last element. Those that reach nothing are zeros.
    """
    (n, o, *counts), (_, c, *kernel) = y.codes.shape, w.codes.shape
    per_group = o // move["groups"]

    def pairs(index):
        image, channel, *q = index
        group, own = divmod(channel, c)
        for out, *back in itertools.product(range(per_group), *map(range, kernel)):
            k = [length - 1 - e for length, e in zip(kernel, back, strict=True)]
            p = []
            for at, e, s, d, pad in zip(q, k, move["stride"], move["dilation"], move["padding"], strict=True):
                whole, rest = divmod(at + pad - e * d, s)
                p.append(-1 if rest else whole)
            at_y = (image, group * per_group + out, *p) if inside(p, counts) else None
            yield (group * per_group + out, own, *k), at_y

    own = None if bias is None else (bias, lambda index: index[1])
    return sums(w, y, (n, c * move["groups"], *spatial), pairs, accumulator, own)


def correlation(y, x, shape, accumulator, move):
    """w[o, c, k] = sum over n, p of y[n, o, p] x[n, c, p s + k d - pad], in that order."""
    (n, o, *counts), (_, _, *lengths) = y.codes.shape, x.codes.shape
    per_group, c = o // move["groups"], shape[1]

    def pairs(index):
        out, channel, *k = index
        for image, *p in itertools.product(range(n), *map(range, counts)):
            place = window(p, k, move)
            at = (image, out // per_group * c + channel, *place)
            yield (image, out, *p), at if inside(place, lengths) else None

    return sums(y, x, shape, pairs, accumulator)
