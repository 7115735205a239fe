"""The laws that sums, dot products and matrix products keep, over rows of terms.

    out  =  round(t_0 + t_1 + ... + t_(n-1)),      t_k = a_k b_k,      in a stated accumulator and order

Where accumulator and order are stated there is one right code; where any order will do, the error bound says what is
right (Higham, Accuracy and Stability of Numerical Algorithms, chapter 4), and the cases in which nothing is rounded.
`lnsnum.testing.accumulators` and `exact_sums` know the totals, `sum_batches` the rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lnsnum.format import LNSFormat
from lnsnum.testing import code_words
from lnsnum.testing.accumulators import LogAccumulator, Total, every_order
from lnsnum.testing.exact_sums import Floats, error_factor, exact_sums
from lnsnum.testing.spans import Ints, Mask, log_step
from lnsnum.testing.sum_batches import Sums, Turn
from lnsnum.testing.sum_rounding import Allowed, Stated
from lnsnum.testing.trial import Finding, Law

_FEW = 4
"""Of so many terms every order is tried where any will do."""


def _allowed(batch: Sums, where: Mask, allowed: Allowed) -> Finding:
    where = where & allowed.known
    bad = where & ~allowed.holds(batch.ranks, batch.is_nan(batch.out))
    return Finding(where, bad, lambda i: batch.allowed_told(allowed, i))


def _should_be(batch: Sums, where: Mask, expected: Ints | int) -> Finding:
    codes = np.broadcast_to(np.asarray(expected), batch.out.shape)
    return Finding(where, where & (batch.out != codes), lambda i: batch.told(int(codes[i])))


def _as_before(batch: Sums, turn: Turn, where: Mask, words: str, opposite: bool = False) -> Finding:
    """What comes out of the rows, turned, is what came out of them."""
    out = batch.again(turn)
    expected = code_words.negative(out, batch.fmt) if opposite else out
    return Finding(where, where & (batch.out != expected), lambda i: f"{words}, which gives {batch.told(int(out[i]))}")


def _bounded_again(batch: Sums, turn: Turn, where: Mask, words: str) -> Finding:
    """What comes out of the rows, turned, is within the bound, as what came out of them is."""
    out, bound = batch.again(turn), batch.within_bound
    where = where & bound.known & bound.holds(batch.ranks, batch.is_nan(batch.out))
    bad = where & ~bound.holds(code_words.rank(out, batch.fmt), batch.is_nan(out))

    def expected(i: int) -> str:
        return f"{batch.allowed_told(bound, i)} {words} too, where it is {batch.told(int(out[i]))}"

    return Finding(where, bad, expected)


def _is_lns(batch: Sums) -> bool:
    return isinstance(batch.stated.accumulator, LNSFormat)


def _best_known(batch: Sums) -> Allowed:
    """The one right code where there is one; else what the bound leaves."""
    if batch.stated.to_the_bit:
        return batch.rounded_total
    bound, total = batch.within_bound, batch.rounded_total
    if not _is_lns(batch):
        return bound
    one_order = batch.nonzero <= 1  # no addition rounds: what is stated of additions does not matter
    return Allowed(*(np.where(one_order, x, y) for x, y in zip(total, bound, strict=True)))


# ---------------------------------------------------------------------------------------------------------- the laws


def _range(batch: Sums) -> Iterator[Finding]:
    """What comes out is a code of the format."""
    bad = (batch.out < 0) | (batch.out >= 1 << batch.fmt.bits)
    yield Finding(np.ones_like(bad), bad, lambda i: f"a code, 0 to {(1 << batch.fmt.bits) - 1}")


def _determinism(batch: Sums) -> Iterator[Finding]:
    """The same rows give the same again; in a stated order also among others."""
    every = np.ones(batch.size, np.bool_)
    yield _as_before(batch, "same", every, "the same as in a second call")
    if batch.stated.order != "any":
        yield _as_before(batch, "beside", every, "the same as among other rows")


def _layout(batch: Sums) -> Iterator[Finding]:
    """Operands that do not lie one after the other in memory."""
    every, words = np.ones(batch.size, np.bool_), "from operands that are transposed and strided"
    if batch.stated.order != "any":
        yield _as_before(batch, "strided", every, f"the same as {words}")
    else:
        yield _bounded_again(batch, "strided", every, words)


def _empty(batch: Sums) -> Iterator[Finding]:
    """A sum of nothing is zero."""
    yield _should_be(batch, batch.rows.length == 0, 0)


def _single(batch: Sums) -> Iterator[Finding]:
    """A sum of one term is that term."""
    yield _allowed(batch, (batch.rows.length == 1) & ~batch.terms.nan, _best_known(batch))


def _zero(batch: Sums) -> Iterator[Finding]:
    """Zeros add nothing."""
    where = (batch.rows.length > 1) & (batch.nonzero <= 1) & ~batch.terms.nan
    yield _allowed(batch, where, _best_known(batch))


def _identity(batch: Sums) -> Iterator[Finding]:
    """Ones among zeros pick their element."""
    if batch.rows.b is None:
        return
    lns, fmt = _is_lns(batch), batch.fmt
    at = np.argmax(~batch.terms.zero, axis=1)[:, None] if batch.rows.a.shape[1] else None
    if at is None:
        return
    a, b = (np.take_along_axis(x, at, axis=1)[:, 0] for x in batch.rows.pair)
    for x, one in ((a, b), (b, a)):
        where = (batch.nonzero == 1) & ~batch.terms.nan & (one == fmt.bias)
        if not lns:  # a float may not know all numbers of the format apart
            bound = batch.within_bound
            where = where & bound.known & (bound.low == bound.high)
        yield _should_be(batch, where, x)


def _inverse(batch: Sums) -> Iterator[Finding]:
    """A number and its opposite cancel."""
    if not batch.rows.a.shape[1]:
        return
    terms = batch.terms
    least = np.min(np.where(terms.zero, 1 << 60, terms.log), axis=1)
    greatest = np.max(np.where(terms.zero, -(1 << 60), terms.log), axis=1)
    where = (batch.nonzero == 2) & (terms.negative.sum(axis=1) == 1) & (least == greatest) & ~terms.nan
    if isinstance(batch.asking.accumulator, LogAccumulator):
        # a term that leaves the range is its end, or NaN
        where &= (batch.stated.overflow == "saturate") | (greatest <= batch.asking.accumulator.room()[0])
        yield _should_be(batch, where, 0)
    elif batch.rows.b is None:
        yield _should_be(batch, where & batch.total.known, 0)
    else:  # two products of one logarithm may be rounded differently, and one of them not at all
        yield _allowed(batch, where, batch.rounded_total if batch.stated.to_the_bit else batch.within_bound)


def _exact(batch: Sums) -> Iterator[Finding]:
    """Where no addition rounds, the total is rounded once."""
    where = batch.total.exact & batch.total.known & ~batch.terms.nan
    if _is_lns(batch) and batch.stated.order == "any":
        where = where & (batch.nonzero <= 2)
    yield _allowed(batch, where, batch.rounded_total)


def _nan(batch: Sums) -> Iterator[Finding]:
    """NaN anywhere gives NaN, beside zeros and times zero too."""
    yield _should_be(batch, batch.terms.nan, batch.fmt.nan_code)


def _commutativity(batch: Sums) -> Iterator[Finding]:
    """Two terms swapped; the factors of all products swapped."""
    two = batch.rows.length == 2
    if batch.rows.b is None:
        yield _as_before(batch, "reversed", two, "the same as of the swapped terms")
        return
    where = np.full(batch.size, batch.stated.to_the_bit)
    if _is_lns(batch):
        where = where | (batch.rows.length <= 2)
    yield _as_before(batch, "swapped", where, "the same as of the swapped operands")
    if not batch.stated.to_the_bit:
        yield _bounded_again(batch, "swapped", ~where, "of the swapped operands")


def _sign_symmetry(batch: Sums) -> Iterator[Finding]:
    """Opposite terms give the opposite."""
    every = ~batch.terms.nan
    yield _as_before(batch, "opposite", every, "the opposite of that of the opposite terms", opposite=True)


def _permutation(batch: Sums) -> Iterator[Finding]:
    """In another order the result is within the bound too."""
    several = batch.rows.length > 2
    turns: dict[Turn, str] = {"reversed": "of the terms in reverse order", "shuffled": "of the shuffled terms"}
    for turn, words in turns.items():
        yield _bounded_again(batch, turn, several, words)


def _overflow(batch: Sums) -> Iterator[Finding]:
    """Terms of one sign that together are beyond the greatest."""
    terms, fmt, bound = batch.terms, batch.fmt, batch.within_bound
    numbers = ~terms.nan & (batch.nonzero > 0)
    one_sign = (terms.negative | terms.zero).all(axis=1) | ~terms.negative.any(axis=1)
    minus = terms.negative.any(axis=1)
    least = _least_log(batch)
    where = numbers & one_sign & (least >= fmt.max_log + 1)
    if not _is_lns(batch):
        where = where & bound.known
    sign = np.where(minus, fmt.sign_bit, 0)
    yield _should_be(batch, where, fmt.nan_code if batch.stated.overflow == "nan" else fmt.max_magnitude + sign)


def _least_log(batch: Sums) -> Floats:
    """E of what is certainly in the total of terms of one sign."""
    exact = exact_sums(batch.terms, batch.fmt)
    with np.errstate(all="ignore"):
        sure = np.maximum(exact.size * (1.0 - error_factor(batch.stated, batch.rows.length)), 0.0)
        return exact.top + np.log(np.where(exact.size > 0, sure, 0.0)) / log_step(batch.fmt)


def _swamping(batch: Sums) -> Iterator[Finding]:
    """One great term, and others each of which is lost beside it."""
    accumulator = batch.asking.accumulator
    if not batch.rows.a.shape[1]:
        return
    if isinstance(accumulator, LogAccumulator):
        codes = accumulator.place(batch.terms)
        size = codes & accumulator.fmt.max_magnitude
        greatest = np.take_along_axis(codes, np.argmax(size, axis=1)[:, None], axis=1)
        great = np.broadcast_to(greatest, codes.shape)
        lost = (codes == great) | (accumulator.add(great, codes) == great)
        lost &= size > 0
    else:
        terms = batch.terms
        codes = np.where(terms.zero, -(1 << 60), terms.log)
        great = np.max(codes, axis=1)[:, None]
        # less than half a unit in the last place of the great one
        far = (great - codes) * log_step(batch.fmt) > (accumulator.info.nmant + 2) * np.log(2.0)
        lost = ((codes == great) | far) & ~terms.zero
    inside = np.arange(batch.rows.a.shape[1]) < batch.rows.length[:, None]
    alone = ((codes == great) & inside).sum(axis=1) == 1
    where = (batch.rows.length > 2) & alone & (lost | ~inside).all(axis=1) & ~batch.terms.nan
    yield _allowed(batch, where, _best_known(batch))


def _accumulation(batch: Sums) -> Iterator[Finding]:
    """The very code; of a few terms in any order, one of those that some order gives."""
    if batch.stated.order != "any":
        yield _allowed(batch, ~batch.terms.nan, batch.rounded_total)
        return
    accumulator = batch.asking.accumulator
    if not isinstance(accumulator, LogAccumulator):
        return
    for n in range(2, _FEW + 1):
        where = np.flatnonzero((batch.rows.length == n) & ~batch.terms.nan)
        if where.size:
            yield _some_order(batch, accumulator, where, n)


def _some_order(batch: Sums, accumulator: LogAccumulator, where: Ints, n: int) -> Finding:
    codes = accumulator.place(batch.terms)[where, :n]
    ranks, is_nan = batch.ranks[where], batch.is_nan(batch.out)[where]
    known, right = np.ones(where.size, np.bool_), np.zeros(where.size, np.bool_)
    every: list[Allowed] = []
    for total in every_order(list(codes.T), accumulator.add):
        every.append(accumulator.finish(Total(total, known, known)))
        right |= every[-1].holds(ranks, is_nan)
    spoken, bad = np.zeros(batch.size, np.bool_), np.zeros(batch.size, np.bool_)
    spoken[where], bad[where] = True, ~right
    index = np.cumsum(spoken) - 1

    def expected(i: int) -> str:
        return " or ".join(dict.fromkeys(batch.allowed_told(one, int(index[i])) for one in every))

    return Finding(spoken, bad, expected)


def _error_bound(batch: Sums) -> Iterator[Finding]:
    """The distance to the exact sum."""
    yield _allowed(batch, ~batch.terms.nan, batch.within_bound)


SUM_LAWS: dict[str, Law[Sums]] = {
    "range": Law("What comes out is a code of the format.", "0 <= out < 2^bits", _range),
    "determinism": Law(
        "The same terms give the same again; in a stated order whatever stands in the rows beside them.",
        "out[i] = f(a[i], b[i])",
        _determinism,
        alone=False,
    ),
    "layout": Law(
        "Transposed and strided operands give what their copies give; in any order, within the bound.",
        "f(a^T^T) = f(a)",
        _layout,
        alone=False,
    ),
    "empty": Law("The sum of no terms is zero.", "n = 0: out = 0", _empty),
    "single": Law("The sum of one term is that term, rounded once.", "n = 1: out = round(a b)", _single),
    "zero": Law("Zeros add nothing.", "0 + ... + x + ... + 0 = x, 0 x = 0", _zero),
    "identity": Law(
        "A one among zeros picks its element, so that a permutation matrix moves rows and columns.",
        "sum_k a_k [k = j] = a_j, a P = a permuted",
        _identity,
    ),
    "inverse": Law("A number and its opposite cancel, zeros between them or not.", "x + -x = 0", _inverse),
    "exact": Law(
        "Where no addition rounds, as of doubling powers of two, the total is exact and rounded once.",
        "1 + 1 + 2 + 4 + ... + 2^k = 2^(k+1)",
        _exact,
    ),
    "nan": Law("NaN anywhere gives NaN, beside zeros and times zero too.", "x + nan = nan, 0 nan = nan", _nan),
    "commutativity": Law(
        "Two terms may be swapped, and the factors of every product.",
        "x + y = y + x, sum a_k b_k = sum b_k a_k, (A B)^T = B^T A^T",
        _commutativity,
    ),
    "sign_symmetry": Law("Opposite terms give the opposite.", "sum -t_k = -sum t_k", _sign_symmetry),
    "permutation": Law(
        "The terms in another order give a result within the same bound.",
        "|total' - sum t_k| <= B sum |t_k|",
        _permutation,
    ),
    "overflow": Law(
        'Terms of one sign that together are beyond the greatest give it, with their sign; NaN with overflow="nan".',
        "|sum t_k| > max: out = +-max",
        _overflow,
    ),
    "swamping": Law(
        "A term that is lost beside a great one is lost as often as it comes, if it comes one by one and after it.",
        "fl(x + e) = x: fl(((x + e) + e) + ...) = x",
        _swamping,
    ),
    "accumulation": Law(
        "The result is that of the accumulator in the stated order, to the bit; in any order, that of one of them, for "
        "up to four terms.",
        "out = round(fl(fl(t_0 + t_1) + t_2) ...)",
        _accumulation,
    ),
    "error_bound": Law(
        "The total is no further from the exact sum than its additions can bring it, and is rounded once.",
        "|total - sum t_k| <= B sum |t_k|, B = (1 + u)^(n - 1) - 1, pairwise (1 + u)^ceil(log2 n) - 1",
        _error_bound,
    ),
}
"""By name, in the order in which they are reported."""


def sum_laws_of(stated: Stated) -> tuple[str, ...]:
    """The laws that hold under a rounding, and for additions that may be off."""
    lost: set[str] = set()
    if stated.rounding in ("up", "down"):
        lost |= {"sign_symmetry"}
    if stated.by_chance:
        lost |= {"determinism", "layout", "commutativity", "sign_symmetry"}
    if 2 * stated.max_ulp > 1:
        lost |= {"exact", "swamping", "accumulation"}
    return tuple(law for law in SUM_LAWS if law not in lost)
