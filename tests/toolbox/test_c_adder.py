"""lnsnum_sums.h: additions and matrix products in integers are those of lnsnum, code for code, under the sanitizers."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_compiler import needs_gcc
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsnum import LNSFormat, arithmetic, reduction
from lnsnum.toolbox.export_targets.c_adder import LNSNUM_SUMS_H, adder_source, why_no_adder

ADDERS = [LNSFormat(*size) for size in ((4, 0), (5, 3), (8, 3), (8, 5), (9, 7), (12, 7), (12, 6), (16, 10), (16, 12))]
OPERANDS = [LNSFormat(*size) for size in ((3, 0), (5, 2), (6, 4), (8, 0), (8, 3), (8, 5), (8, 6))]
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", f"-I{LNSNUM_SUMS_H.parent}"]
SANITIZE = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sums")
    names = [f"adder_{number}" for number in range(len(ADDERS))]
    text = "".join(adder_source(fmt, name) for fmt, name in zip(ADDERS, names, strict=True))
    table = f"static const lnsnum_adder *const adders[] = {{{', '.join('&' + name for name in names)}}};\n"
    (folder / "adders.h").write_text(f'#include "lnsnum_sums.h"\n{text}{table}')
    source = Path(__file__).parents[1] / "c" / "sums.c"
    command = ["gcc", *STRICT, *SANITIZE, f"-I{folder}", str(source), "-o", str(folder / "sums")]
    subprocess.run(command, check=True, timeout=120)
    return folder / "sums"


def ask(program, *words):
    request = np.concatenate([np.ravel(word).astype(np.int64) for word in words])
    done = subprocess.run([program], input=request.tobytes(), capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    return np.frombuffer(done.stdout, np.int32)


@needs_gcc
@pytest.mark.parametrize("number", [i for i, fmt in enumerate(ADDERS) if fmt.bits <= 9])
def test_every_pair_is_added_as_by_lnsnum(program, number):
    fmt = ADDERS[number]
    codes = np.arange(1 << fmt.bits).astype(fmt.dtype)
    expected, _ = arithmetic.add(codes[:, None], codes[None, :], fmt)
    assert np.array_equal(ask(program, number, 1).reshape(expected.shape), expected)


@st.composite
def products(draw):
    number = draw(st.integers(0, len(ADDERS) - 1))
    adder = ADDERS[number]
    fitting = [f for f in OPERANDS if f.bits <= adder.bits and f.fraction_bits <= adder.fraction_bits]
    w_format, x_format = draw(st.sampled_from(fitting)), draw(st.sampled_from(fitting))
    out_format = draw(st.sampled_from(fitting))
    outputs, inputs = draw(st.integers(1, 9)), draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # near the middle sums are neither saturated nor nothing; zero and NaN are among all codes
    spread = draw(st.sampled_from([0.1, 1.0]))
    operands = []
    for fmt, shape in ((w_format, (outputs, inputs)), (x_format, (inputs,))):
        m = np.clip(np.rint(fmt.bias + spread * rng.normal(size=shape) * fmt.bias), 1, fmt.max_magnitude).astype(int)
        codes = m | rng.integers(0, 2, shape) * fmt.sign_bit
        codes[rng.random(shape) < 0.05] = 0
        if draw(st.integers(0, 9)) == 0:
            codes[rng.random(shape) < 0.02] = fmt.nan_code
        operands.append(codes.astype(fmt.dtype))
    offsets = rng.integers(-40, 40, (outputs, 1)) if draw(st.booleans()) else int(rng.integers(-300, 300))
    return number, w_format, x_format, out_format, *operands, offsets, *rng.integers(-300, 300, 2).tolist()


@needs_gcc
@settings(max_examples=150)
@given(products())
def test_products_are_those_of_reduction(program, case):
    number, w_format, x_format, out_format, w, x, w_offset, x_offset, out_offset = case
    adder = ADDERS[number]
    expected, _ = reduction.matmul(
        w, x, w_format, b_format=x_format, a_log_offset=w_offset, b_log_offset=x_offset, accumulator=adder,
        order="sequential", out_format=out_format, out_log_offset=out_offset,
    )  # fmt: skip
    each = np.broadcast_to(w_offset, (len(w), 1))
    greatest = int(each.max())
    steps = [adder.fraction_bits - fmt.fraction_bits for fmt in (w_format, x_format)]
    one = (greatest << steps[0]) + (x_offset << steps[1])
    formats = [(fmt.bits, fmt.fraction_bits) for fmt in (w_format, x_format, out_format)]
    sizes = *w.shape, int(np.ndim(w_offset) > 0)
    found = ask(program, number, 0, formats, sizes, one, out_offset, each - greatest, w, x)
    assert np.array_equal(found, expected)


def test_accumulators_that_cannot_be_written_are_refused():
    for fmt, why in (
        (LNSFormat(8, 3, base=1.5), "is not of base 2"),
        (LNSFormat(20, 10), "has more than 16 bits"),
        (LNSFormat(16, 13), "lns16f13 has steps beyond 65,535: take one of at most 12 fraction bits"),
    ):
        assert why in why_no_adder(fmt)
        with pytest.raises(ValueError, match=why):
            adder_source(fmt, "x")
    assert why_no_adder(LNSFormat(16, 12)) is None
