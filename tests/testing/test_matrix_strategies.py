"""Sums of products cancel, are swamped or overflow: told from the logarithms of the terms, in integers and mpmath."""

from collections import Counter
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from drawing import drawn, minimal
from hypothesis import strategies as st

from lnsnum import LNSFormat, decode, lns8f3, lns8f5, lns16f10, reference
from lnsnum.reduction import matmul
from lnsnum.strategies import matrices


def sums(pair, fmt):
    """The terms of each sum: logarithms in code steps, and signs."""
    a, b = (x.astype(np.int64) for x in pair)
    assert pair[0].dtype == pair[1].dtype == fmt.dtype
    (m, k), (k_too, n) = a.shape, b.shape
    assert k == k_too >= 2
    log = ((a & fmt.max_magnitude) - fmt.bias)[:, :, None] + ((b & fmt.max_magnitude) - fmt.bias)[None]
    minus = (a >= fmt.sign_bit)[:, :, None] ^ (b >= fmt.sign_bit)[None]
    for i in range(m):
        for j in range(n):
            yield list(zip(log[i, :, j].tolist(), minus[i, :, j].tolist(), strict=True))


def are_numbers(pair, fmt):
    return all(((x & fmt.max_magnitude) > 0).all() for x in pair)


@pytest.mark.parametrize("fmt", [LNSFormat(3, 0), lns8f3, lns16f10, LNSFormat(32, 30)], ids=str)
def test_terms_cancel_in_pairs_but_for_the_least_and_for_a_step(fmt):
    off = 0
    for pair in drawn(matrices(fmt, sums="cancel"), 200):
        assert are_numbers(pair, fmt)
        for terms in sums(pair, fmt):
            left = Counter()
            for log, minus in terms:
                left[log] += -1 if minus else 1
            remaining = sorted((log, count) for log, count in left.items() if count)
            if len(terms) % 2:
                least = min(log for log, _ in terms)
                odd = [(log, count) for log, count in remaining if log == least and abs(count) == 1]
                remaining = [entry for entry in remaining if entry not in odd] if len(remaining) % 2 else remaining
            if remaining:  # one term is a step off, here or where it meets the least
                off += 1
                logs = [log for log, _ in remaining]
                assert len(logs) <= 3
                assert max(logs) - min(logs) <= 1 or len(logs) == 3
    assert off


def test_opposite_terms_stand_apart_side_by_side_and_about_the_middle():
    rows = [row.tolist() for a, _ in drawn(matrices(lns16f10, (2, 4, 1), sums="cancel"), 100) for row in a]
    assert {(0, 1, 0, 1), (0, 0, 2, 2), (0, 1, 1, 0)} <= {tuple(map(row.index, row)) for row in rows}


@pytest.mark.parametrize("fmt", [LNSFormat(4, 0), lns8f3, lns8f5, LNSFormat(9, 3, base=3.0), lns16f10], ids=str)
def test_each_lesser_term_is_lost_beside_the_great_one(fmt):
    places = set()
    for pair in drawn(matrices(fmt, sums="swamp"), 150):
        assert are_numbers(pair, fmt)
        for terms in sums(pair, fmt):
            order = sorted(range(len(terms)), key=lambda k: terms[k][0])
            gap = terms[order[-1]][0] - terms[order[-2]][0]
            with mpmath.workprec(100):
                h = mpmath.log(fmt.base) / 2**fmt.fraction_bits
                assert abs(mpmath.log1p(mpmath.exp(-gap * h)) / h) < 0.5
                assert abs(mpmath.log1p(-mpmath.exp(-gap * h)) / h) < 0.5
            lesser = {terms[k][1] for k in order[:-1]}
            assert len(lesser) == 1
            places.add((order[-1] == 0, order[-1] == len(terms) - 1, terms[order[-1]][1] in lesser))
    assert {place[:2] for place in places} >= {(True, False), (False, True), (False, False)}
    assert {same for *_, same in places} == {False, True}


@pytest.mark.parametrize("fmt", [LNSFormat(3, 0), LNSFormat(4, 2), lns8f3, lns8f5, LNSFormat(6, 0, base=10.0)], ids=str)
def test_sums_overflow_whose_terms_do_not(fmt):
    both = set()
    step = Fraction(fmt.step)  # near enough: the sums are well beyond
    for pair in drawn(matrices(fmt, sums="overflow"), 150):
        assert are_numbers(pair, fmt)
        for terms in sums(pair, fmt):
            values = [(-1 if minus else 1) * step**log for log, minus in terms]
            greatest = step**fmt.max_log
            assert max(log for log, _ in terms) <= fmt.max_log
            running = [abs(sum(values[:k])) for k in range(len(values) + 1)]
            assert max(running) > greatest
            both.add(running[-1] > greatest)
    assert both == {False, True}


@pytest.mark.thorough
def test_a_narrow_accumulator_fails_on_each_kind():
    """The sums are hard: an accumulator of the terms' own format is far off, one of 32 bits is not."""
    fmt = lns8f3

    def right(pair):
        """By the reference, each sum rounded once."""
        a, b = pair
        return [[reference.exact_dot(row.tolist(), column.tolist(), fmt) for column in b.T] for row in a]

    for kind in ("cancel", "swamp", "overflow"):
        a, b = minimal(
            matrices(fmt, (1, 4, 1), sums=kind),
            lambda pair: (
                abs(matmul(*pair, fmt, accumulator="lns8f3", order="sequential")[0].astype(int) - right(pair)).max() > 4
            ),
        )
        assert np.isfinite(decode(a, fmt)).all()
        assert (a != fmt.bias).sum() + (b != fmt.bias).sum() <= 8


def test_shapes_and_kinds_are_what_was_asked_for():
    for pair in drawn(matrices("lns8f5", (2, 5, 3)), 50):
        assert [x.shape for x in pair] == [(2, 5), (5, 3)]
        assert not any((x == lns8f5.nan_code).any() for x in pair)
    shapes = {pair[0].shape for pair in drawn(matrices("lns8f5", st.sampled_from([(1, 2, 1), (3, 2, 0)])), 50)}
    assert shapes == {(1, 2), (3, 2)}
    assert any((x == 0).any() for pair in drawn(matrices(lns8f5, sums="any"), 100) for x in pair)
    a, b = minimal(matrices(lns8f5))
    assert (a.tolist(), (b & 127).tolist()) == ([[64, 64]], [[64], [64]])


def test_a_format_without_room_is_refused():
    narrow = LNSFormat(8, 6)
    with pytest.raises(ValueError, match="sums='swamp': no product of lns8f6 is lost beside another, its range is too"):
        matrices(narrow, sums="swamp")
    assert len(drawn(matrices(narrow), 50)) == 50


@pytest.mark.parametrize("shape", [3, (2, 2), (2, 1, 2)])
def test_shapes_of_no_product_are_refused(shape):
    with pytest.raises(ValueError, match=r"give \(M, K, N\), with K at least 2, for matrices \(M, K\) and \(K, N\)"):
        matrices(lns8f3, shape)
    with pytest.raises(ValueError, match="sums='grow' is not known: one of any, cancel, swamp, overflow"):
        matrices(lns8f3, sums="grow")
