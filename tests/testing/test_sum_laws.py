"""The laws of sums find what is broken and pass what is not; what they ask for is held against the slow oracle."""

import math
import re
import time
from fractions import Fraction
from itertools import product
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsnum import LNSFormat, arithmetic, lns4f1, lns8f3, lns16f10, lns32f23, reduction, reference
from lnsnum.strategies import ImplementationError, LawViolation, check_laws, check_sum_laws, formats
from lnsnum.testing.accumulators import FloatAccumulator, LogAccumulator, every_order
from lnsnum.testing.exact_sums import Terms, bounded, exact_sums, powers
from lnsnum.testing.sum_batches import Asking, Sums, _right, operands
from lnsnum.testing.sum_laws import SUM_LAWS
from lnsnum.testing.sum_rounding import Stated, float_places, rounded

MODES = ["nearest", "toward_zero", "up", "down"]


class Library:
    """`lnsnum.reduction` with its options."""

    def __init__(self, fmt, accumulator, order, operations=("sum", "dot", "matmul"), **modes):
        options = {"accumulator": accumulator, **modes}
        options |= {} if order == "any" else {"order": order}
        functions = {
            "sum": lambda a: reduction.sum(a, fmt, axis=1, **options)[0],
            "dot": lambda a, b: reduction.matmul(a[:, None, :], b[:, :, None], fmt, **options)[0][:, 0, 0],
            "matmul": lambda a, b: reduction.matmul(a, b, fmt, **options)[0],
        }
        for name in operations:
            setattr(self, name, functions[name])


# -------------------------------------------------------------------------------------------- what the laws ask for


@pytest.mark.parametrize(
    "fmt", [lns4f1, LNSFormat(5, 1), LNSFormat(5, 0, base=4.0), LNSFormat(5, 1, base=1.5), LNSFormat(5, 3)], ids=str
)
@pytest.mark.parametrize("overflow", ["saturate", "nan"])
def test_the_adder_is_the_reference_s(fmt, overflow):
    """Every pair of codes."""
    adder = LogAccumulator(Stated(fmt, fmt, "sequential", overflow=overflow))
    pairs = np.array(list(product(range(1 << fmt.bits), repeat=2)))
    right = [reference.add(int(a), int(b), fmt, overflow=overflow) for a, b in pairs]
    assert adder.add(*pairs.T).tolist() == right


@pytest.mark.parametrize(
    ("name", "accumulator"),
    [("lns4f1", "lns8f3"), ("lns6f2", "lns6f2"), pytest.param("lns6f2", "lns12f7", marks=pytest.mark.thorough)],
)
@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("underflow", ["round", "saturate"])
@pytest.mark.parametrize("overflow", ["saturate", "nan"])
def test_totals_are_rounded_as_the_reference_converts(name, accumulator, rounding, underflow, overflow):
    """Every code of the accumulator."""
    fmt, wide = LNSFormat.of(name), LNSFormat.of(accumulator)
    modes = {"rounding": rounding, "overflow": overflow, "underflow": underflow}
    adder = LogAccumulator(Stated(fmt, wide, "sequential", **modes))
    codes = np.arange(1 << wide.bits)
    ones = np.ones(codes.shape, np.bool_)
    from lnsnum.testing.accumulators import Total

    allowed = adder.finish(Total(codes, ones, ones))
    for code in codes:
        right = reference.convert(int(code), wide, fmt, **modes)
        if right == fmt.nan_code:
            assert allowed.nan[code]
            assert allowed.low[code] > allowed.high[code]
        else:
            rank = -(right & fmt.max_magnitude) if right & fmt.sign_bit else right
            assert (allowed.low[code], allowed.high[code], allowed.nan[code]) == (rank, rank, False)


@settings(deadline=None, max_examples=60)
@given(st.data(), formats(3, 12, bases=st.sampled_from([2.0, 1.5, 10.0])), st.sampled_from(MODES))
def test_floats_become_the_reference_s_codes(data, fmt, rounding):
    numbers = st.one_of(st.floats(width=64), st.integers(-40, 40).map(lambda k: 2.0**k), st.sampled_from([0.0, -1.0]))
    x = np.array(data.draw(st.lists(numbers, min_size=1, max_size=8)))
    overflow, underflow = (
        data.draw(st.sampled_from(["saturate", "nan"])),
        data.draw(st.sampled_from(["round", "saturate"])),
    )
    stated = Stated(fmt, "float64", "any", rounding, overflow, underflow)
    allowed = rounded(stated, *float_places(fmt, x))
    for i, number in enumerate(x.tolist()):
        right = reference.encode(number, fmt, rounding=rounding, overflow=overflow, underflow=underflow)
        rank = -(right & fmt.max_magnitude) if right & fmt.sign_bit else right
        assert bool(allowed.nan[i]) == (right == fmt.nan_code)
        assert right == fmt.nan_code or (allowed.low[i], allowed.high[i]) == (rank, rank)


def batch_of(stated, *rows):
    """Rows that nobody is asked for."""

    nobody = SimpleNamespace(functions={"sum": None, "dot": None})
    return Sums(Asking(nobody, "sum" if len(rows[0]) == 1 else "dot", stated), operands(list(rows)))


@settings(deadline=None, max_examples=40)
@given(
    st.data(),
    st.sampled_from([("lns4f1", "lns8f3"), ("lns8f3", "lns16f10"), ("lns8f5", "lns8f5"), ("lns16f10", "lns32f23")]),
    st.sampled_from(["sequential", "pairwise"]),
    st.sampled_from(["saturate", "nan"]),
    st.sampled_from(MODES),
)
def test_rows_are_added_as_the_reference_adds_one_by_one(data, names, order, overflow, rounding):
    fmt, wide = map(LNSFormat.of, names)
    stated = Stated(fmt, wide, order, rounding, overflow)
    codes = st.integers(0, (1 << fmt.bits) - 1)
    rows = data.draw(st.lists(st.lists(st.tuples(codes, codes), max_size=9), min_size=1, max_size=4))
    rows = [tuple(list(part) for part in zip(*row, strict=True)) if row else ([], []) for row in rows]
    allowed = batch_of(stated, *rows).rounded_total
    for i, row in enumerate(rows):
        right = _right(stated, row)
        rank = -(right & fmt.max_magnitude) if right & fmt.sign_bit else right
        if right == fmt.nan_code:
            assert allowed.nan[i]
        else:
            assert (allowed.low[i], allowed.high[i], bool(allowed.nan[i])) == (rank, rank, False)


@settings(deadline=None, max_examples=40)
@given(st.data(), formats(3, 16, bases=st.sampled_from([2.0, 1.5, math.e])))
def test_exact_sums_are_mpmath_s_to_a_hundred_bits(data, fmt):
    logs = data.draw(st.lists(st.integers(-fmt.max_log, fmt.max_log), min_size=1, max_size=12))
    signs = data.draw(st.lists(st.booleans(), min_size=len(logs), max_size=len(logs)))
    zero = np.zeros((1, len(logs)), np.bool_)
    terms = Terms(np.array([logs]), np.array([signs]), zero, np.zeros(1, np.bool_), np.array([len(logs)]))
    exact = exact_sums(terms, fmt)
    with mpmath.workprec(4000):
        unit = mpmath.mpf(2) ** -fmt.fraction_bits
        numbers = [
            (-1) ** s * mpmath.mpf(fmt.base) ** ((log - max(logs)) * unit) for log, s in zip(logs, signs, strict=True)
        ]
        off = abs(mpmath.fsum(numbers) - mpmath.mpf(exact.high[0]) - mpmath.mpf(exact.low[0]))
        assert off <= mpmath.ldexp(mpmath.fsum(map(abs, numbers)), -98)
        assert exact.size[0] == pytest.approx(float(mpmath.fsum(map(abs, numbers))), rel=1e-14)


def test_powers_are_correctly_rounded():
    for fmt in (lns16f10, LNSFormat(12, 3, base=1.5)):
        logs = np.arange(-500, 500)
        high, low = powers(fmt, logs)
        right = [reference.decode(int(log) + fmt.bias, fmt, "float64") for log in logs]
        assert high.view(np.int64).tolist() == right
        assert np.all(np.abs(low) <= np.spacing(high) / 2)


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_float_accumulators_decode_to_the_nearest_floats(name):
    for fmt in (lns8f3, lns32f23):
        codes = np.unique(np.random.default_rng(0).integers(0, 1 << fmt.bits, 300))
        codes = codes[codes != fmt.nan_code]
        floats = FloatAccumulator(Stated(fmt, name, "sequential")).decode(codes)
        inside = np.abs((codes & fmt.max_magnitude) - fmt.bias) < 100 << fmt.fraction_bits
        patterns = floats.view(np.int32 if name == "float32" else np.int64)
        mask = (1 << (32 if name == "float32" else 64)) - 1
        for code, pattern in zip(codes[inside], patterns[inside], strict=True):
            assert int(pattern) & mask == reference.decode(int(code), fmt, name)


def test_every_order_of_a_few_terms():
    for n, count in ((1, 1), (2, 1), (3, 3), (4, 15)):
        trees = every_order([str(i) for i in range(n)], lambda x, y: f"({x}{y})")
        assert len(set(trees)) == len(trees) == count


@pytest.mark.parametrize("order", ["sequential", "pairwise", "any"])
def test_the_bound_leaves_what_the_order_gives(order):
    """The right code is within the bound: of a bound that is too narrow the laws would say what is not so."""
    random = np.random.default_rng(1)
    for fmt, wide in ((lns8f3, lns8f3), (lns8f3, lns16f10), (LNSFormat(6, 1, base=1.5), LNSFormat(8, 2, base=1.5))):
        stated = Stated(fmt, wide, order)
        for n in (2, 3, 17):
            rows = [(random.integers(0, 1 << fmt.bits, n).tolist(),) for _ in range(200)]
            batch = batch_of(stated, *rows)
            bound, total = batch.within_bound, batch.rounded_total
            known = bound.known & ~total.nan
            assert np.all((bound.low <= total.low) & (total.high <= bound.high) | ~known)
            assert known.sum() > 10


# ------------------------------------------------------------------------------------------------ who keeps the laws


CASES = [
    ("lns8f3", "lns16f10", "sequential", ("sum", "dot", "matmul"), {}),
    ("lns8f3", "lns16f10", "pairwise", ("sum", "matmul"), {}),
    ("lns8f3", "lns8f3", "sequential", ("sum",), {"overflow": "nan"}),
    ("lns8f3", "lns16f10", "any", ("sum", "matmul"), {}),
    ("lns8f5", "lns12f6", "pairwise", ("dot",), {"rounding": "toward_zero"}),
    ("lns6f2", "lns6f2", "sequential", ("sum",), {"underflow": "saturate"}),
    ("lns4f1", "lns8f3", "pairwise", ("matmul",), {"rounding": "up", "overflow": "nan"}),
    ("lns16f10", "lns16f10", "sequential", ("sum",), {}),
    ("lns16f7", "lns32f23", "pairwise", ("matmul",), {"rounding": "down"}),
    ("lns8f3", "float64", "any", ("sum", "dot", "matmul"), {}),
    ("lns8f3", "float32", "any", ("matmul",), {"overflow": "nan"}),
    ("lns16f10", "float32", "any", ("sum", "dot"), {}),
    ("lns32f23", "float64", "any", ("dot",), {"rounding": "toward_zero"}),
    ("lns5f0b0x1.0000000000000p+2", "lns8f1b0x1.0000000000000p+2", "sequential", ("sum",), {}),
    ("lns6f1b0x1.8000000000000p+0", "lns8f2b0x1.8000000000000p+0", "pairwise", ("sum",), {}),
]


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "accumulator", "order", "operations", "modes"), CASES)
def test_the_library_keeps_the_laws(name, accumulator, order, operations, modes):
    fmt = LNSFormat.of(name)
    library = Library(fmt, accumulator, order, operations, **modes)
    report = check_sum_laws(library, fmt, accumulator=accumulator, order=order, **modes)
    assert report.operations == operations
    assert set(report.laws) >= set(SUM_LAWS) - {"sign_symmetry", "identity"}
    silent = {law for law in report.laws if not any(r.inputs for r in report.results if r.law == law)}
    # eight bits have no term that is lost beside another in float64, or in a finer format of as little range; and of
    # steps of a factor of 4 the bound leaves nothing
    coarse = {"overflow"} if fmt.base == 4.0 else set()
    assert silent <= ({"accumulation", "swamping", "identity"} if "float" in accumulator else {"swamping"} | coarse)


@pytest.mark.parametrize("rounding", ["stochastic_log", "stochastic_value"])
@pytest.mark.parametrize("accumulator", ["lns16f10", "float64"])
def test_what_chance_rounds_is_one_of_two_neighbours(rounding, accumulator):
    random = np.random.default_rng(0)

    def rounded_by_chance(a):
        bits = random.integers(0, 1 << 32, len(a), dtype=np.uint32)
        options = {"accumulator": accumulator, "rounding": rounding, "random_bits": bits}
        return reduction.sum(a, lns8f3, axis=1, **options)[0]

    order = "any" if accumulator == "float64" else "sequential"
    options = {"accumulator": accumulator, "order": order, "operations": ["sum"]}
    report = check_sum_laws(rounded_by_chance, lns8f3, rounding=rounding, **options)
    assert "determinism" not in report.laws
    assert "error_bound" in report.laws
    with pytest.raises(LawViolation) as caught:
        check_sum_laws(rounded_by_chance, lns8f3, **options)
    assert "determinism" in {violation.law for violation in caught.value.violations}


def test_a_stated_order_is_held_to_and_any_is_not():
    for order, other in (("sequential", "pairwise"), ("pairwise", "sequential")):
        library = Library(lns8f3, "lns8f3", order, ("sum",))
        assert check_sum_laws(library, lns8f3, accumulator="lns8f3", order="any")
        with pytest.raises(LawViolation) as caught:
            check_sum_laws(library, lns8f3, accumulator="lns8f3", order=other)
        laws = {violation.law for violation in caught.value.violations}
        assert "accumulation" in laws
        assert not laws & {"range", "determinism", "single", "zero", "nan", "commutativity"}


def test_an_adder_that_may_be_off_is_held_to_its_bound():
    def rounded_up(a):
        total = np.zeros(len(a), lns16f10.dtype)
        wide = reduction.sum(a[:, :, None], lns8f3, axis=2, accumulator="lns16f10", out_format=lns16f10)[0]
        for k in range(a.shape[1]):
            total = arithmetic.add(total, wide[:, k], lns16f10, rounding="up")[0]
        return reduction.sum(total[:, None], lns16f10, axis=1, accumulator="lns16f10", out_format=lns8f3)[0]

    options = {"accumulator": "lns16f10", "order": "sequential", "operations": ["sum"]}
    laws = ["zero", "nan", "inverse", "error_bound", "permutation"]
    assert check_sum_laws(rounded_up, lns8f3, max_ulp=1, laws=laws, **options)
    with pytest.raises(LawViolation) as caught:
        check_sum_laws(rounded_up, lns8f3, **options)
    assert "accumulation" in {violation.law for violation in caught.value.violations}
    with pytest.raises(
        ValueError, match="laws has 'accumulation', which does not hold under rounding='nearest', max_ulp=1"
    ):
        check_sum_laws(rounded_up, lns8f3, max_ulp=1, laws=["accumulation"], **options)


def test_two_runs_say_the_same_and_the_example_is_two_codes():
    def but_the_last(a):
        return Library(lns8f3, "lns16f10", "sequential").sum(a[:, :-1])

    reports = []
    for _ in range(2):
        with pytest.raises(LawViolation) as caught:
            check_laws(
                but_the_last, lns8f3, kind="sums", accumulator="lns16f10", order="sequential", operations=["sum"]
            )
        reports.append(caught.value.report)
    assert reports[0] == reports[1]
    assert (reports[0].kind, reports[0].missing) == ("sums", ("dot", "matmul"))
    broken = {violation.law: violation for violation in reports[0].violations}
    assert broken["single"].line == "single: sum([64]) = 0, that is 0; expected 64 (1)"
    assert (broken["error_bound"].inputs, broken["error_bound"].right) == (([64],), 64)
    assert "empty" not in broken


def test_laws_of_sums_take_vectors_matrices_and_tensors():
    torch = pytest.importorskip("torch")
    options = {"accumulator": "lns16f10", "order": "sequential"}
    vectors = {"dot": lambda a, b: reduction.dot(a, b, lns8f3, accumulator="lns16f10")[0]}
    rows = Library(lns8f3, "lns16f10", "sequential")
    few = {"laws": ["single", "zero", "swamping", "nan"]}
    assert check_sum_laws(vectors, lns8f3, **options, **few).missing == ("sum", "matmul")

    def tensor(name):
        return lambda *x: torch.from_numpy(
            getattr(rows, name)(*(y.numpy().astype(np.uint8) for y in x)).astype(np.int64)
        )

    tensors = {name: tensor(name) for name in ("sum", "dot", "matmul")}
    every = check_sum_laws(tensors, lns8f3, **options, **few, takes="tensors")
    assert every.inputs == check_sum_laws(rows, lns8f3, **options, **few).inputs


def raises(a, b):
    raise ArithmeticError("no dot today")


@pytest.mark.parametrize(
    ("operation", "function", "message"),
    [
        ("dot", raises, "dot([64, 64, 64], [64, 64, 64]) (law range) raised ArithmeticError: no dot today: return"),
        ("sum", lambda a: a.tolist(), "sum([64, 64, 64]) (law range) returned a list: return one array of uint8"),
        ("sum", lambda a: a.sum(axis=1).astype(float), "(law range) returned an array of float64: return one of uint8"),
        ("sum", lambda a: a, "(law range) returned shape (4, 3) for inputs of shape (4, 3): return shape (4,)"),
        (
            "matmul",
            lambda a, b: a,
            "matmul of shapes (1, 0) and (0, 1) (law range) returned shape (1, 0): return one array",
        ),
        ("matmul", lambda a, b: None, "(law range) returned NoneType: return one array of shape (1, 1)"),
    ],
)
def test_what_cannot_be_judged_is_one_sentence(operation, function, message):
    with pytest.raises(ImplementationError) as caught:
        check_sum_laws(function, lns8f3, operations=[operation])
    told = str(caught.value)
    assert message in told
    assert "\n" not in told


def test_a_sum_that_hangs_is_told_with_its_row():
    def hangs(a):
        while a.shape[1] == 3 and 127 in a:
            time.sleep(0.01)
        return np.zeros(len(a), np.uint8)

    with pytest.raises(
        ImplementationError, match=re.escape("sum([127, 0, 0]) (law range) did not return within 0.2 s")
    ):
        check_sum_laws(hangs, lns8f3, operations=["sum"], timeout=0.2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"accumulator": "float16"},
            ValueError,
            "accumulator='float16' is not known: 'float64', 'float32', or a format",
        ),
        ({"accumulator": "lns6f2"}, ValueError, "the accumulator lns6f2 is narrower than its terms, of lns8f3"),
        ({"accumulator": LNSFormat(16, 10, base=3.0)}, ValueError, "have different bases"),
        ({"order": "tree"}, ValueError, "order='tree' is not known: one of sequential, pairwise, any"),
        ({"max_ulp": 0.25}, ValueError, "max_ulp=0.25 is out of range: at least 0.5"),
        ({"operations": ["mean"]}, ValueError, "operations has 'mean', which is not known: sum, dot, matmul"),
        ({"laws": ["identity"], "operations": ["sum"]}, ValueError, "laws has 'identity', which says nothing of sum"),
        ({"operations": None}, TypeError, "function has no method sum, dot, matmul"),
    ],
)
def test_bad_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        check_sum_laws(lambda a: a, lns8f3, **{"operations": ["sum"], **options})


def test_the_bound_is_the_reductions():
    """That of the public function, for both kinds of accumulators."""
    from lnsnum.testing.exact_sums import error_factor

    for accumulator, order in (("lns16f10", "sequential"), ("lns16f10", "pairwise"), ("float32", "sequential")):
        wide = accumulator if accumulator == "float32" else LNSFormat.of(accumulator)
        lengths = np.array([0, 1, 2, 3, 9, 257])
        factor = error_factor(Stated(lns8f3, wide, order, max_ulp=Fraction(1, 2)), lengths)
        right = [reduction.error_bound(int(n), accumulator, order) for n in lengths]
        assert factor.tolist() == pytest.approx(right, rel=1e-12)


def test_the_bound_of_nothing_is_nothing():
    stated = Stated(lns8f3, lns16f10, "any")
    batch = batch_of(stated, ([],), ([0, 0],))
    bound = bounded(stated, batch.terms, batch.asking.accumulator.room())
    assert (bound.low.tolist(), bound.high.tolist()) == ([0, 0], [0, 0])
