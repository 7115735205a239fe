"""`lnsnum convert`: the codes of whole arrays wherever blocks begin, what is lost told rightly, in little memory."""

import functools
import json
import math
import os
import re
import subprocess
import sys
import zlib
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from command_line import run_command
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from lnsnum import GroupOffsets, LNSFormat, LNSTensor, decode, encode, lns4f1, lns6f2, lns8f3, lns8f5, lns16f10
from lnsnum.conversion import rescale
from lnsnum.encoding import fit_log_offset
from lnsnum.files import single as single_file
from lnsnum.files.layout import Description
from lnsnum.kernels.codes import each_offset, same_scale
from lnsnum.toolbox import conversion, recoding
from lnsnum.toolbox.conversion import convert_file
from lnsnum.toolbox.recoding import Greatest, Shared, by_scale, to_floats
from lnsnum.toolbox.selection import Selection
from lnsnum.toolbox.values import Scale
from lnsnum.weight_file import (
    OptimizerState,
    WeightFileError,
    load_metadata,
    load_optimizer,
    load_weights,
    save_weights,
)

RNG = np.random.default_rng(7)

MODES = ["nearest", "toward_zero", "up", "down", "stochastic_log", "stochastic_value"]

ARRAYS = {
    "w": (RNG.standard_normal((13, 21)) * np.exp2(RNG.integers(-6, 6, (13, 1)))).astype(np.float32),
    "conv": RNG.standard_normal((5, 3, 2, 2)),
    "half": RNG.standard_normal((4, 9)).astype(np.float16),
    "brain": RNG.standard_normal((3, 3)).astype(ml_dtypes.bfloat16),
    "column": RNG.standard_normal((40, 1)).astype(np.float32),
    "five": RNG.standard_normal((2, 1, 3, 2, 2)).astype(np.float32),
    "odd": np.array([[np.inf, -2.0, np.nan], [0.0, -0.0, 1e-30], [0, 0, 0], [-np.inf, np.nan, 0]], np.float32),
    "tiny": np.array([[5e-324, 1e300], [-1e-310, 3.0]]),
    "empty": np.zeros((0, 4), np.float32),
    "none": np.zeros((3, 0), np.float32),
}
"""All of two or more dimensions: they become codes."""

OTHERS = {
    "bias": RNG.standard_normal(13).astype(np.float32),
    "scalar": np.array(2.5),
    "count": np.arange(6).reshape(2, 3),
    "mask": np.ones((2, 2), bool),
    "": np.ones(3, np.float16),
    "a/b\x1b[31m é": np.ones(2, np.float32),
}


NAME, HIDDEN = "a/b\x1b[31m é", "a/b*"
"""A name that shows no character of its own, which .npz does not take, and the pattern of it alone."""


@pytest.fixture(params=[None, 8], ids=["large blocks", "blocks of 8"])
def block(request, monkeypatch):
    """Blocks that no tensor fills, and blocks that many tensors cross."""
    if request.param:
        monkeypatch.setattr(single_file, "BLOCK", 16)
        monkeypatch.setattr(conversion, "_STEP", request.param)
        monkeypatch.setattr(recoding, "_LONG_ROW", 4)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.safetensors"
    save_file(ARRAYS | OTHERS, path, metadata={"format": "pt", "who": "é"})
    return path


def fitted(fit, x, per_channel):
    """What fit gives of an array, or of each index of its first dimension."""
    if not per_channel or x.size == 0:
        return fit(x)
    return np.array([fit(channel) for channel in x], np.int32).reshape(-1, *[1] * (x.ndim - 1))


def same_offset(a, b):
    return np.array_equal(np.asarray(a).reshape(-1), np.asarray(b).reshape(-1))


# --------------------------------------------------------------------------------------------------------- to codes


@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("underflow", ["round", "saturate"])
def test_floats_become_the_codes_of_the_whole_array(tmp_path, source, block, rounding, per_channel, underflow):
    fmt, out = lns8f5 if underflow == "round" else lns6f2, tmp_path / "out.safetensors"
    report = convert_file(
        source, out, fmt=fmt, rounding=rounding, per_channel=per_channel, seed=5, underflow=underflow, packed=True
    )  # fmt: skip
    found = load_weights(out)
    assert sorted(found) == sorted(ARRAYS | OTHERS) == [tensor.name for tensor in report.tensors]
    for name, x in ARRAYS.items():
        offset = fitted(lambda part: fit_log_offset(part, fmt, rounding=rounding), x, per_channel)
        stream = zlib.crc32(name.encode())
        codes = encode(x, fmt, rounding=rounding, underflow=underflow, log_offset=offset, seed=5, stream=stream)
        assert same_offset(found[name].log_offset, offset), name
        assert found[name].fmt == fmt
        assert np.array_equal(found[name].codes, codes), name
    for name, x in OTHERS.items():
        assert found[name].tobytes() == x.tobytes()
        assert (found[name].shape, found[name].dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize("to", [lns8f3, lns16f10, LNSFormat(10, 2, base=1.5)], ids=str)
def test_codes_become_those_of_another_format_by_one_rounding(tmp_path, block, rounding, per_channel, to):
    codes = {fmt: RNG.integers(0, 1 << fmt.bits, (4, 30)).astype(fmt.dtype) for fmt in (lns8f5, lns4f1, lns16f10)}
    offsets = [17, RNG.integers(-40, 40, (4, 1)).astype(np.int32), RNG.integers(-40, 40, (30,)).astype(np.int32)]
    tensors = {fmt.name: LNSTensor(codes[fmt], fmt, log_offset=offset) for fmt, offset in zip(codes, offsets)}  # noqa: B905
    tensors["one"] = LNSTensor(np.array([3, 130], np.uint8), lns8f5)
    tensors["zero"] = LNSTensor(np.zeros((2, 2), np.uint8), lns8f5, log_offset=9)
    save_weights(tmp_path / "in.safetensors", tensors)
    out = tmp_path / "out.safetensors"
    convert_file(tmp_path / "in.safetensors", out, fmt=to, rounding=rounding, per_channel=per_channel, seed=3)
    found = load_weights(tmp_path / "out.safetensors")
    for name, tensor in tensors.items():
        by_channel = per_channel and tensor.codes.ndim > 1
        own = np.broadcast_to(np.asarray(tensor.log_offset, np.int32), tensor.shape)
        bits = None
        if rounding.startswith("stochastic"):
            from lnsnum import random_bits

            bits = random_bits(tensor.shape, seed=3, stream=zlib.crc32(name.encode()))
        parts = [(i,) for i in range(tensor.shape[0])] if by_channel else [...]
        for part in parts:
            expected, offset = rescale(
                tensor.codes[part], tensor.fmt, log_offset=np.array(own[part]), out_format=to, out_log_offset="fit",
                rounding=rounding, random_bits=None if bits is None else bits[part],
            )  # fmt: skip
            assert np.array_equal(found[name].codes[part], expected), name
            given_offset = found[name].log_offset
            assert (int(given_offset[part].item()) if by_channel else given_offset) == offset


def test_the_same_format_again_changes_nothing_but_the_scale(tmp_path, source):
    convert_file(source, tmp_path / "a.safetensors", fmt=lns8f5)
    report = convert_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors", fmt=lns16f10)
    assert report.loss.changed == 0
    again = convert_file(tmp_path / "b.safetensors", tmp_path / "c.safetensors", fmt=lns8f5, per_channel=True)
    assert again.loss.changed == 0
    a, c = (load_weights(tmp_path / f"{name}.safetensors") for name in "ac")
    assert all(np.array_equal(a[name].to_float(), c[name].to_float(), equal_nan=True) for name in ARRAYS)


FLOATS = st.one_of(
    st.floats(width=32),
    st.floats(),
    st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, -5e-324, 1.0, -2.0, 1.7e308]),
)
FORMATS = st.builds(
    lambda bits, part, base: LNSFormat(bits, min(bits - 2, part), base=base),
    st.integers(3, 32), st.integers(0, 22), st.sampled_from([2.0, 1.5, 4.0, 1e300, 1.001]),
)  # fmt: skip


def outcome(fit):
    """What a function gives, or that it finds no scale."""
    try:
        return fit()
    except ValueError:
        return "no scale"


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=5), FORMATS, st.sampled_from(MODES))
@example([(0.0, -0.0), (math.nan, -math.inf), (5e-324, -1.7e308)], LNSFormat(32, 22), "up")
def test_many_scales_fitted_at_once_are_those_fitted_one_by_one(pairs, fmt, rounding):
    x = np.array(pairs)
    greatest = Greatest(Description(x.shape, "float64"), Shared.of(x.shape, per_channel=True))
    greatest.add(x.reshape(-1)[:3], 0)
    if x.size > 3:
        greatest.add(x.reshape(-1)[3:], 3)
    expected = outcome(lambda: [fit_log_offset(row, fmt, rounding=rounding) for row in x])
    assert outcome(lambda: greatest.fit(fmt, rounding).tolist()) == expected


@settings(max_examples=40)
@given(st.data(), FORMATS, st.sampled_from([lns8f5, lns16f10, LNSFormat(9, 2, base=1.5)]), st.sampled_from(MODES))
def test_many_scales_of_codes_fitted_at_once_are_those_fitted_one_by_one(data, fmt, source_format, rounding):
    rows = data.draw(st.integers(1, 4))
    codes = data.draw(st.lists(st.integers(0, (1 << source_format.bits) - 1), min_size=3 * rows, max_size=3 * rows))
    offsets = data.draw(st.lists(st.integers(-3000, 3000), min_size=rows, max_size=rows))
    array = np.array(codes, source_format.dtype).reshape(rows, 3)
    each = np.array(offsets, np.int32).reshape(rows, 1)
    greatest = Greatest(
        Description.of_codes(array.shape, source_format, each), Shared.of(array.shape, per_channel=True)
    )
    greatest.add(array.reshape(-1), 0)
    bits = np.zeros(1, np.uint32) if rounding.startswith("stochastic") else None
    options = {"out_format": fmt, "out_log_offset": "fit", "rounding": rounding, "random_bits": bits}
    expected = outcome(
        lambda: [rescale(array[i], source_format, log_offset=offsets[i], **options)[1] for i in range(rows)]
    )
    assert outcome(lambda: greatest.fit(fmt, rounding).tolist()) == expected


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9), st.integers(1, 5), st.data())
def test_every_element_gets_the_scale_of_its_channel(offsets, row, data):
    size = row * len(offsets)
    begin = data.draw(st.integers(0, size - 1))
    count = data.draw(st.integers(1, size - begin))
    found = np.full(count, 99)
    scale = Scale(np.array(offsets, np.int32)[:, None], (len(offsets), row))
    for where, offset in by_scale(scale, begin, count):
        assert (found[where] == 99).all()
        found[where] = offset
    assert found.tolist() == np.repeat(offsets, row)[begin : begin + count].tolist()


@pytest.mark.parametrize("shape", [(3, 33), (2, 3, 40), (4, 16), (2, 0), (0, 40), (40,)])
def test_groups_are_those_of_the_whole_array(tmp_path, block, shape):
    """Of floats and of codes, whatever blocks there are; what has one dimension has one scale."""
    x = np.random.default_rng(3).standard_normal(shape)
    save_file({"w": x}, tmp_path / "in.safetensors")
    files = [tmp_path / f"{name}.safetensors" for name in ("in", "groups", "again", "floats")]
    select = Selection(everything=True)
    convert_file(files[0], files[1], fmt=lns16f10, group_size=16, select=select)
    convert_file(files[1], files[2], fmt=lns8f5, group_size=32, packed=True)
    convert_file(files[1], files[3], to="float64")
    found, again = (load_weights(path)["w"] for path in files[1:3])
    size = {"group_size": 16} if x.ndim > 1 and x.size else {}
    expected = (
        LNSTensor.from_float(x, lns16f10, log_offset="fit") if not size else LNSTensor.from_float(x, lns16f10, **size)
    )
    assert repr(found) == repr(expected) or not x.size
    np.testing.assert_array_equal(load_weights(files[3])["w"], found.to_float())
    if size:
        scale = fit_log_offset(found.to_float(), lns8f5, group_size=32)
        assert same_scale(again.log_offset, scale)
        for part, own in zip(again.reshape(-1, shape[-1]), found.reshape(-1, shape[-1]), strict=True):
            for i, offset in enumerate(each_offset(part.log_offset).reshape(-1).tolist()):
                piece = own[32 * i : 32 * (i + 1)].astype(lns8f5, out_log_offset=offset)
                assert part.codes[32 * i : 32 * (i + 1)].tolist() == piece.codes.tolist()


def test_a_weight_file_is_written_anew_with_its_optimizer(tmp_path):
    weights = {"w": LNSTensor.from_codes([1, 2, 3], lns6f2), "v": np.zeros(2)}
    optimizer = OptimizerState({"step": 1}, {"w": np.ones(3)})
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    save_weights(old, weights, metadata={"k": "v"}, optimizer=optimizer)
    report = convert_file(old, new, packed=True)
    assert report.skipped == ()
    save_weights(old, weights, metadata={"k": "v"}, optimizer=optimizer, packed=True)
    assert new.read_bytes() == old.read_bytes()
    for options in ({"select": Selection(drop=("v",))}, {"fmt": lns8f5}, {"to": "float32"}):
        assert convert_file(old, new, **options).skipped == ("the optimizer's state",)
        assert load_optimizer(new) is None
    with pytest.raises(ValueError, match=r"one of them \(only weight files are written anew without\)$"):
        convert_file(convert_file(old, tmp_path / "x.npz", to="float32").path, new)


def test_options_of_groups(tmp_path, capsys, monkeypatch):
    save_file({"w": np.ones((2, 40))}, tmp_path / "in.safetensors")
    paths = [tmp_path / "in.safetensors", tmp_path / "out.safetensors"]
    assert run(capsys, monkeypatch, *paths, "--format", "lns8f5", "--group-size", "16")[0] == 0
    assert load_weights(paths[1])["w"].log_offset.group_size == 16
    for options, sentence in (
        (["--format", "lns8f5", "--group-size", "8"], "error: --group-size 8 is out of range: a group has 16 to 256"),
        (["--format", "lns8f5", "--group-size", "16", "--per-channel"], "--per-channel and --group-size were given"),
        (["--to", "float32", "--group-size", "16"], "--group-size goes with --format, not with --to"),
        (["--only", "w"], "--only chooses what is converted: give --format"),
    ):
        code, _, complaint = run(capsys, monkeypatch, *paths, *options)
        assert code == 2
        assert sentence in complaint
    assert run(capsys, monkeypatch, paths[1], paths[1])[0] == 0


@pytest.mark.parametrize(
    ("shape", "own", "axis"),
    [((2, 33), (2, 3), -1), ((3, 20), (2,), -1), ((2, 20, 3), (2, 2, 1), -2), ((20, 2, 2), (2, 1, 2), -3),
     ((2, 20, 2), (1, 2, 2), -2), ((40,), (3,), -1), ((2, 1, 17), (2, 1, 2), -1)],
)  # fmt: skip
def test_every_element_gets_the_scale_of_its_group(shape, own, axis):
    """Wherever the groups lie, and wherever a block begins and ends."""
    groups = GroupOffsets(np.arange(math.prod(own)).reshape(own), 16, axis=axis)
    each = groups.of_elements(shape).reshape(-1)
    scale = Scale(groups, shape)
    for begin in range(0, each.size, 3):
        for count in (*range(4), 15, 16, 17, each.size - begin):
            count = min(count, each.size - begin)
            assert np.asarray(scale.of(begin, count)).tolist() == each[begin : begin + count].tolist()
            runs = list(scale.runs(begin, count))
            assert [offset for a, b, offset in runs for _ in range(a, b)] == each[begin : begin + count].tolist()
            assert all(a < b for a, b, _ in runs)


def test_a_scale_beyond_the_greatest_is_refused_by_the_tensors_name(tmp_path):
    save_file({"w": np.full((1, 2), 1e30)}, tmp_path / "in.safetensors")
    with pytest.raises(ValueError, match=r"^tensor 'w': "):
        convert_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", fmt=LNSFormat(32, 30))
    assert os.listdir(tmp_path) == ["in.safetensors"]


# -------------------------------------------------------------------------------------------------------- to floats


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_codes_become_floats_by_one_rounding(tmp_path, source, block, dtype, ending):
    convert_file(source, tmp_path / "codes.safetensors", fmt=lns16f10, per_channel=True)
    codes = load_weights(tmp_path / "codes.safetensors")
    out, select = tmp_path / f"out.{ending}", Selection(drop=(HIDDEN,) if ending == "npz" else ())
    if ending == "npz":  # which has no bfloat16
        with pytest.raises(ValueError, match=r"is of bfloat16, which \.npz cannot hold"):
            convert_file(tmp_path / "codes.safetensors", out, to="bfloat16", select=select)
        if dtype == "bfloat16":
            return
    convert_file(tmp_path / "codes.safetensors", out, to=dtype, select=select)
    found = dict(np.load(out)) if ending == "npz" else load_weights(out)
    assert sorted({NAME, *found}) == sorted(ARRAYS | OTHERS)
    for name in ARRAYS:
        expected = decode(codes[name].codes, lns16f10, dtype, log_offset=codes[name].log_offset)
        assert found[name].dtype.name == dtype
        assert found[name].shape == expected.shape
        assert found[name].tobytes() == expected.tobytes(), name
    for name, x in OTHERS.items():
        if ending == "npz" and name == NAME:
            continue
        assert (found[name].dtype, found[name].tobytes()) == (x.dtype, x.tobytes())


def test_an_npz_file_has_the_same_bytes_each_time_and_numpy_takes_it(tmp_path):
    save_weights(tmp_path / "a.safetensors", {"x": np.arange(6.0).reshape(2, 3), "": np.array(3)})
    written = []
    for _ in range(2):
        convert_file(tmp_path / "a.safetensors", tmp_path / "a.npz", to="float32", select=Selection(everything=True))
        written.append((tmp_path / "a.npz").read_bytes())
    assert written[0] == written[1]
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["x"], np.arange(6.0).reshape(2, 3))
        assert arrays[""] == 3


def rounded(x, dtype):
    """A number as a float of another type, by exact fractions: the nearest, a tie to even, beyond the last infinity."""
    digits, least = {"float32": (24, -149), "bfloat16": (8, -133), "float16": (11, -24), "float64": (53, -1074)}[dtype]
    if x == 0 or not math.isfinite(x):
        return x
    step = Fraction(2) ** max(math.frexp(x)[1] - digits, least)
    nearest = round(Fraction(x) / step) * step  # Python rounds a tie to even
    greatest = {"float16": 65504, "float64": int(sys.float_info.max)}.get(dtype, (2**digits - 1) << (128 - digits))
    return math.copysign(float(nearest) if abs(nearest) <= greatest else math.inf, x)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("before", ["float32", "bfloat16", "float16", "float64"])
@given(st.lists(st.floats() | st.builds(math.ldexp, st.integers(1 << 52, 1 << 53), st.integers(-1130, 75)), max_size=9))
@example([1 + 2**-8 + 2**-40, 1 + 2**-8 - 2**-40, 1 + 3 * 2**-8 - 2**-50, 1 + 2**-11 + 2**-30, 2**-134 + 2**-180])
@example([3.3961775292304957e38, 3.3961775292304e38, 65520.0, 65519.99, 3.4028235677973366e38, -1e300, 5e-324, 2**-150])
@example([0.0, -0.0, math.inf, -math.inf, math.nan])
def test_floats_become_those_of_another_type_by_one_rounding(before, dtype, values):
    with np.errstate(all="ignore"):
        x = np.array(values).astype(before)
    found, expected = to_floats(x, dtype), [rounded(float(value), dtype) for value in x]
    assert found.dtype.name == dtype
    assert np.array_equal(found.astype(float), expected, equal_nan=True)
    assert np.array_equal(np.signbit(found.astype(float))[~np.isnan(x)], np.signbit(x)[~np.isnan(x)])


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_plain_floats_are_cast_only_where_all_are_asked_for(tmp_path, source, block, ending):
    convert_file(source, tmp_path / "codes.safetensors", fmt=lns8f5, select=Selection(only=("w",)))
    out = tmp_path / f"out.{ending}"
    select = Selection(everything=True, drop=(HIDDEN,) if ending == "npz" else ())
    report = convert_file(tmp_path / "codes.safetensors", out, to="float32", select=select)
    found = dict(np.load(out)) if ending == "npz" else load_weights(out)
    for tensor in report.tensors:
        name, x = tensor.name, (ARRAYS | OTHERS)[tensor.name]
        kept = name in ("count", "mask") or x.dtype == np.float32
        assert (tensor.loss is None) == (kept and name != "w"), name
        assert found[name].dtype == (x.dtype if kept else np.float32), name
        if name != "w":
            with np.errstate(all="ignore"):
                assert found[name].tobytes() == x.astype(found[name].dtype).tobytes(), name
    losses = {tensor.name: tensor for tensor in report.tensors}
    x = ARRAYS["conv"]
    noise = ((x - x.astype(np.float32)) ** 2).sum()
    assert losses["conv"].loss.sqnr_db == pytest.approx(10 * np.log10((x**2).sum() / noise), rel=1e-9)
    assert (losses["tiny"].zeroed, losses["tiny"].saturated) == (2, 1)  # 5e-324, -1e-310, 1e300
    assert losses["brain"].loss.changed == losses["half"].loss.changed == 0


def test_patterns_say_which_tensors_become_floats(tmp_path, source):
    def cast(**options):
        report = convert_file(source, tmp_path / "out.safetensors", to="float64", select=Selection(**options))
        return {tensor.name for tensor in report.tensors if tensor.loss is not None}

    others = set(ARRAYS) | {"bias", "", "a/b\x1b[31m é"}
    assert cast(everything=True) == others - {"conv", "tiny"}  # and without "scalar": they are float64
    assert cast(only=("w", "conv", "bias")) == {"w", "bias"}
    assert cast(everything=True, skip=("*o*", "b*")) == {"w", "half", "empty", "", "a/b\x1b[31m é", "five"}


@pytest.mark.parametrize(
    ("to", "options", "what"),
    [
        ("float32", {}, r"no LNS tensor is chosen \(`all` makes float32 of plain floating ones too\)$"),
        ("float64", {"everything": True}, "every floating tensor is float64 already, so choose another type$"),
        ("float64", {}, "every floating tensor is float64 already"),
        ("float32", {"only": ("x",), "skip": ("x",)}, "no floating tensor is chosen that is not float32 already$"),
    ],
)
def test_floats_that_would_stay_what_they_are_are_refused(tmp_path, to, options, what):
    save_file({"x": np.ones((3, 3)), "i": np.ones(3, int)}, tmp_path / "in.safetensors")
    with pytest.raises(ValueError, match=f"^there is nothing to convert: {what}"):
        convert_file(tmp_path / "in.safetensors", tmp_path / "o.safetensors", to=to, select=Selection(**options))
    assert os.listdir(tmp_path) == ["in.safetensors"]


# ----------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("fmt", [lns4f1, lns8f5, lns16f10], ids=str)
def test_losses_are_those_that_numpy_finds(tmp_path, source, block, fmt):
    report = convert_file(source, tmp_path / "out.safetensors", fmt=fmt)
    found, total = load_weights(tmp_path / "out.safetensors"), np.zeros(2, np.longdouble)
    for tensor in report.tensors:
        if tensor.name in OTHERS:
            assert tensor.loss is None
            assert tensor.before == tensor.after == OTHERS[tensor.name].dtype.name
            assert tensor.log_offset is tensor.range is None
            continue
        x, y = ARRAYS[tensor.name].astype(float), found[tensor.name].to_float().astype(float)
        finite = np.isfinite(x)
        with np.errstate(all="ignore"):
            wide = x[finite].astype(np.longdouble), y[finite].astype(np.longdouble)
            signal, noise = (wide[0] ** 2).sum(), ((wide[0] - wide[1]) ** 2).sum()
            total += signal, noise
            nonzero = finite & (x != 0) & (y != 0)
            relative = np.max(np.abs(x - y)[nonzero] / np.abs(x[nonzero]), initial=0.0)
            decibels = 10 * np.log10(signal / noise) if noise else np.inf
        assert tensor.loss.sqnr_db == pytest.approx(float(decibels), rel=1e-9)
        assert tensor.loss.greatest_relative == pytest.approx(relative, rel=1e-12)
        assert tensor.loss.elements == x.size
        assert tensor.zeroed == ((x != 0) & (y == 0)).sum()
        assert tensor.saturated == np.isinf(x).sum()
        assert tensor.nans == np.isnan(x).sum()
        assert (tensor.before, tensor.after) == (ARRAYS[tensor.name].dtype.name, fmt.name)
        assert (tensor.bytes_before, tensor.bytes_after) == (ARRAYS[tensor.name].nbytes, x.size * fmt.dtype.itemsize)
        smallest, greatest = decode([1, fmt.max_magnitude], fmt, log_offset=tensor.log_offset[0])
        assert tensor.range == (smallest, greatest)
    assert report.loss.sqnr_db == pytest.approx(float(10 * np.log10(total[0] / total[1])), rel=1e-9)


def test_what_floats_have_no_room_for_is_told(tmp_path):
    codes = np.array([[1, 64, 127, 0, 128, 129, 255]], np.uint8)
    tensors = {"high": LNSTensor(codes, lns8f3, log_offset=20000), "low": LNSTensor(codes, lns8f3, log_offset=-20000)}
    tensors["near"] = LNSTensor(codes, lns8f3, log_offset=1000)
    save_weights(tmp_path / "in.safetensors", tensors)
    report = convert_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", to="float32")
    told = {t.name: (t.saturated, t.zeroed, t.nans) for t in report.tensors}
    assert told["low"] == (0, 5, 1)
    # of "near", 2^125 2^(m - 64) / 8: finite in float64, 2^132.9 is beyond float32
    assert told["near"] == (2, 0, 1)
    assert np.isinf(load_weights(tmp_path / "out.safetensors")["high"]).sum() == 5
    wide = convert_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors", fmt=lns16f10)
    assert {t.name: (t.saturated, t.zeroed) for t in wide.tensors} == dict.fromkeys(tensors, (0, 0))


# -------------------------------------------------------------------------------------------------------- selection


def converted(tmp_path, source, **options):
    report = convert_file(source, tmp_path / "out.safetensors", fmt=lns8f5, select=Selection(**options))
    return {tensor.name for tensor in report.tensors if tensor.loss is not None}


def test_patterns_say_which_tensors_become_codes(tmp_path, source):
    floating = set(ARRAYS) | {"bias", "scalar", "", "a/b\x1b[31m é"}
    assert converted(tmp_path, source) == set(ARRAYS)
    assert converted(tmp_path, source, everything=True) == floating
    assert converted(tmp_path, source, only=("*o*", "b*")) == {"conv", "column", "odd", "none", "brain", "bias"}
    assert converted(tmp_path, source, only=("a/b*",)) == {"a/b\x1b[31m é"}
    assert converted(tmp_path, source, skip=("w", "c*")) == set(ARRAYS) - {"w", "conv", "column"}
    assert converted(tmp_path, source, only=("*",), skip=("?*",)) == {""}


def test_a_single_string_is_no_sequence_of_patterns():
    for option in ("only", "skip", "drop"):
        with pytest.raises(
            TypeError, match=rf"^{option}='fc\*' is one pattern: give a tuple of them, such as \('fc\*',\)"
        ):
            Selection(**{option: "fc*"})


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"only": ("x*",)}, "only 'x\\*' matches no floating tensor: there are '', 'a/b"),
        ({"only": ("count",)}, "only 'count' matches no floating tensor"),
        ({"only": ("w", "y")}, "only 'y' matches no"),
        ({"skip": ("W",)}, "skip 'W' matches no tensor"),
        ({"skip": ("*",)}, "nothing to convert"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(tmp_path, source, options, what):
    with pytest.raises(ValueError, match=what):
        converted(tmp_path, source, **options)
    assert os.listdir(tmp_path) == ["in.safetensors"]


def test_tensors_are_left_out_and_prefixes_are_taken_away(tmp_path, source):
    select = Selection(drop=("t*", "", "mask"), strip_prefix="co")
    report = convert_file(source, tmp_path / "out.safetensors", fmt=lns8f5, select=select, rounding="stochastic_log")
    convert_file(source, tmp_path / "all.safetensors", fmt=lns8f5, rounding="stochastic_log")
    found, whole = (load_weights(tmp_path / f"{name}.safetensors") for name in ("out", "all"))
    renamed = {name: name.removeprefix("co") for name in whole if name not in ("tiny", "", "mask")}
    assert renamed.keys() >= {"conv", "column", "count"}
    assert sorted(found) == sorted(renamed.values()) == [tensor.name for tensor in report.tensors]
    assert report.dropped == ("", "mask", "tiny")
    for name, new in renamed.items():  # a name that is another changes no random bits
        a, b = (tensor.codes if isinstance(tensor, LNSTensor) else tensor for tensor in (found[new], whole[name]))
        assert a.tobytes() == b.tobytes(), name


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"drop": ("x*",)}, r"drop 'x\*' matches no tensor: there are 'b', 'model\.b', 'model\.w'$"),
        ({"drop": ("*",)}, "nothing to convert"),
        ({"strip_prefix": "module."}, r"strip_prefix 'module\.' begins no tensor's name: there are 'b', 'model\.b',"),
        ({"strip_prefix": "model.", "drop": ("model*",)}, "begins no tensor's name: there is 'b'"),
        ({"strip_prefix": "model."}, r"'model\.': 'b' and 'model\.b' would both have the name 'b'"),
        ({"strip_prefix": "model.", "drop": ("b",), "skip": ("w",)}, "skip 'w' matches no tensor"),
    ],
)
def test_names_that_nothing_has_or_two_would_have_are_refused(tmp_path, options, what):
    save_file({"b": np.ones(2), "model.b": np.ones(2), "model.w": np.ones((2, 2))}, tmp_path / "in.safetensors")
    with pytest.raises(ValueError, match=what):
        converted(tmp_path, tmp_path / "in.safetensors", **options)
    assert os.listdir(tmp_path) == ["in.safetensors"]


def test_where_nothing_would_be_converted_one_is_told_how(tmp_path):
    save_file({"b": np.ones(3)}, tmp_path / "in.safetensors")
    with pytest.raises(ValueError, match=r"two or more dimensions \(`all` takes the others too\)"):
        converted(tmp_path, tmp_path / "in.safetensors")
    save_weights(tmp_path / "in.safetensors", {})
    with pytest.raises(ValueError, match="nothing to convert"):
        converted(tmp_path, tmp_path / "in.safetensors")


# ------------------------------------------------------------------------------------------------------------- files


def test_metadata_are_carried_over_and_say_where_the_file_comes_from(tmp_path, source):
    out = tmp_path / "out.safetensors"
    convert_file(source, out, fmt=lns8f5, rounding="stochastic_value", seed=9, metadata={"who": "me", "new": "1"})
    told = load_metadata(out)
    assert told.pop("lnsnum.convert") == (
        '{"source": "in.safetensors", "format": "lns8f5", "per_channel": false, "rounding": "stochastic_value", '
        '"seed": 9, "underflow": "round", "packed": false}'
    )
    assert told == {"format": "pt", "who": "me", "new": "1"}
    convert_file(out, tmp_path / "back.safetensors", to="float32")
    assert json.loads(load_metadata(tmp_path / "back.safetensors")["lnsnum.convert"]) == {
        "source": "out.safetensors",
        "to": "float32",
    }


def test_the_metadata_say_all_that_decides_what_a_file_is(tmp_path, source):
    """What is told is enough to make the same file again."""
    options = {"fmt": lns6f2, "per_channel": True, "underflow": "saturate", "packed": True, "rounding": "up"}
    select = Selection(only=("w", "c*"), skip=("column",), drop=("e*", "?cal*"), strip_prefix="co")
    out = tmp_path / "out.safetensors"
    convert_file(source, out, **options, select=select)
    told = json.loads(load_metadata(out)["lnsnum.convert"])
    assert list(told.items()) == [
        ("source", "in.safetensors"), ("format", "lns6f2"), ("per_channel", True), ("rounding", "up"),
        ("underflow", "saturate"), ("packed", True), ("only", ["w", "c*"]), ("skip", ["column"]),
        ("drop", ["e*", "?cal*"]), ("strip_prefix", "co"),
    ]  # fmt: skip
    convert_file(out, tmp_path / "back.safetensors", to="float16", select=Selection(everything=True, skip=("nv",)))
    told = json.loads(load_metadata(tmp_path / "back.safetensors")["lnsnum.convert"])
    assert list(told.items()) == [("source", "out.safetensors"), ("to", "float16"), ("all", True), ("skip", ["nv"])]


@pytest.mark.parametrize("shard_bytes", [None, 100])
def test_a_file_can_take_its_own_place(tmp_path, source, shard_bytes):
    convert_file(source, tmp_path / "other.safetensors", fmt=lns8f5)
    convert_file(source, source, fmt=lns8f5, max_shard_bytes=shard_bytes)
    index = tmp_path / "in.safetensors.index.json" if shard_bytes else source
    again = convert_file(index, source, fmt=lns16f10, max_shard_bytes=shard_bytes)
    assert again.loss.changed == 0
    if shard_bytes:
        assert len(list(tmp_path.glob("in-*"))) > 2
        assert not source.exists()  # a set has taken its place
    for name, tensor in load_weights(tmp_path / "other.safetensors").items():
        mine = load_weights(source)[name]
        assert isinstance(mine, LNSTensor) == isinstance(tensor, LNSTensor) == (name in ARRAYS)
        floats = [t.to_float() if name in ARRAYS else t for t in (mine, tensor)]
        assert floats[0].tobytes() == floats[1].tobytes()


def test_a_source_that_turns_out_damaged_leaves_what_was_there(tmp_path):
    save_weights(tmp_path / "in.safetensors", {"a": np.ones((3, 3)), "b": np.ones(4)})
    whole = (tmp_path / "in.safetensors").read_bytes()
    (tmp_path / "in.safetensors").write_bytes(whole[:-1] + b"!")
    (tmp_path / "out.safetensors").write_text("old")
    for out in ("in.safetensors", "out.safetensors"):
        with pytest.raises(WeightFileError, match="damaged"):
            convert_file(tmp_path / "in.safetensors", tmp_path / out, fmt=lns8f5)
    assert sorted(os.listdir(tmp_path)) == ["in.safetensors", "out.safetensors"]
    assert (tmp_path / "in.safetensors").read_bytes() == whole[:-1] + b"!"
    assert (tmp_path / "out.safetensors").read_text() == "old"


def test_progress_counts_the_bytes_that_are_read(tmp_path, source, block):
    seen = []
    convert_file(source, tmp_path / "out.safetensors", fmt=lns8f5, progress=lambda *counts: seen.append(counts))
    total = 2 * sum(x.nbytes for x in ARRAYS.values()) + sum(x.nbytes for x in OTHERS.values())
    assert {of for _, of in seen} == {total}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == total


@pytest.mark.parametrize(
    ("out", "options", "what"),
    [
        ("o.safetensors", {}, "one of them"),
        ("o.safetensors", {"fmt": lns8f5, "to": "float32"}, "one of them"),
        ("o.safetensors", {"to": "float8"}, "to='float8' is not known"),
        ("o.safetensors", {"fmt": lns8f5, "rounding": "odd"}, "rounding='odd'"),
        ("o.safetensors", {"fmt": lns8f5, "underflow": "odd"}, "underflow='odd'"),
        ("o.safetensors", {"fmt": lns8f5, "seed": -1}, "seed=-1"),
        ("o.safetensors", {"fmt": lns8f5, "max_shard_bytes": 0}, "max_shard_bytes=0"),
        ("o.npz", {"fmt": lns8f5}, r"the ending \.safetensors, not '\.npz'"),
        ("o.pt", {"to": "float32"}, r"the ending \.safetensors or \.npz, not '\.pt'"),
        ("o", {"to": "float32"}, "not ''"),
        ("o.npz", {"to": "float32", "metadata": {"a": "b"}}, "no metadata"),
        ("o.npz", {"to": "float32", "max_shard_bytes": 9}, "no shards"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, source, out, options, what):
    with pytest.raises(ValueError, match=what):
        convert_file(source, tmp_path / out, **options)
    assert os.listdir(tmp_path) == ["in.safetensors"]


# ------------------------------------------------------------------------------------------------------- the command


run = functools.partial(run_command, command=["convert"])


def test_the_command_prints_what_became_of_each_tensor(capsys, monkeypatch, tmp_path, source):
    out = tmp_path / "out.safetensors"
    options = ["--format", "lns6f2", "--per-channel", "--pack", "--skip", "conv", "--meta", "k=a=b"]
    code, printed, complaints = run(capsys, monkeypatch, source, out, *options)
    assert (code, complaints) == (0, "")
    rows = {line.split("(")[0].strip(): line.split() for line in printed.splitlines() if "(" in line}
    assert rows["w"][1:9] == ["(13x21)", "float32", "→", "lns6f2", "1.1", "kB", "→", "257"]  # 13 scales of 4 bytes
    assert rows["conv"][1:] == ["(5x3x2x2)", "float64", "480", "B", "→", "480", "B"]
    assert rows["odd"][-1] == "2"
    assert "16 in all" in printed
    assert "\x1b" not in printed
    assert load_metadata(out)["k"] == "a=b"
    assert "--pack" not in printed
    narrow = run(capsys, monkeypatch, source, out, "--format", "lns8f5", columns=80)[1]
    assert max(len(line) for line in narrow.splitlines() if str(out) not in line) <= 80  # a path is never broken
    assert "--pack" not in narrow


@pytest.mark.parametrize("fmt", ["lns6f2", "lns12f7", "lns8f5"])
def test_the_command_says_what_packing_would_save(fmt, capsys, monkeypatch, tmp_path, source):
    """As many bytes as a file has that is packed; where it would save none, and of floats, nothing."""
    sizes = {}
    for options in ((), ("--pack",)):
        out = tmp_path / f"out{len(options)}.safetensors"
        told = json.loads(run(capsys, monkeypatch, source, out, "--format", fmt, *options, "--json")[1])["total"]
        sizes[options] = told["bytes_after"], told["bytes_packed"]
    (loose, would_be), (packed, still) = sizes.values()
    assert would_be == packed == still
    printed = run(capsys, monkeypatch, source, tmp_path / "out.safetensors", "--format", fmt)[1]
    said = [line for line in printed.splitlines() if "--pack" in line]
    assert (packed < loose) == bool(said) == (fmt != "lns8f5")
    back = run(capsys, monkeypatch, tmp_path / "out.safetensors", tmp_path / "b.npz", "--to", "float32")[1]
    assert "--pack" not in back


def test_names_are_never_broken_and_have_a_line_of_their_own_where_there_is_no_room(capsys, monkeypatch, tmp_path):
    names = [f"model.layers.{n}.self_attn.a_projection_with_a_long_name.weight" for n in (2, 10)]
    save_file({name: np.ones((3, 4), np.float32) for name in names}, tmp_path / "in.safetensors")
    for command, arguments in (
        ("convert", (tmp_path / "out.safetensors", "--format", "lns8f5")),
        ("inspect", ()),
        ("inspect", ("--source", tmp_path / "out.safetensors")),
        ("diff", (tmp_path / "out.safetensors",)),
    ):
        code, narrow, _ = run_command(
            capsys, monkeypatch, tmp_path / "in.safetensors", *arguments, command=[command], columns=70
        )
        assert code == (command == "diff")
        lines = [line for line in narrow.splitlines() if "layers" in line and not line.endswith("in B")]
        assert [line.split(" ")[0] for line in lines] == names * (len(lines) // 2)
        figures = [line for line in narrow.splitlines() if line.startswith("  ")]
        assert len(figures) >= len(lines)


def test_the_command_prints_json_for_programs(capsys, monkeypatch, tmp_path, source):
    out = tmp_path / "out.safetensors"
    _, printed, _ = run(capsys, monkeypatch, source, out, "--format", "lns8f5", "--all", "--shard", "300b", "--json")
    told = json.loads(printed)
    assert told["path"] == f"{out}.index.json"
    tensors = {tensor["name"]: tensor for tensor in told["tensors"]}
    assert sorted(tensors) == sorted(ARRAYS | OTHERS)
    assert tensors["odd"]["saturated"] == 2
    assert tensors["odd"]["nans"] == 2
    assert tensors["bias"]["after"] == "lns8f5"
    assert tensors["count"] | {"sqnr_db": 0} == tensors["count"] | {"sqnr_db": 0, "after": "int64"}
    assert "sqnr_db" not in tensors["count"]
    assert tensors["empty"]["sqnr_db"] is None
    assert told["total"]["bytes_after"] == sum(tensor["bytes_after"] for tensor in told["tensors"])
    _, back, _ = run(capsys, monkeypatch, out, tmp_path / "out.npz", "--to", "float32", "--json", "--drop", HIDDEN)
    assert json.loads(back)["path"] == str(tmp_path / "out.npz")


def test_a_checkpoint_of_torch_is_converted_and_what_is_left_out_is_said(capsys, monkeypatch, tmp_path):
    import torch

    weight = torch.randn(4, 6, dtype=torch.bfloat16)
    torch.save({"model": {"w": weight.T}, "epoch": 3}, tmp_path / "a.pt")
    out = tmp_path / "out.safetensors"
    code, _, complaints = run(capsys, monkeypatch, tmp_path / "a.pt", out, "--format", "lns8f5")
    assert (code, complaints) == (0, "not tensors, left out: epoch")
    found = load_weights(out)["model.w"]
    x = weight.T.float().numpy()
    assert np.array_equal(found.codes, encode(x, lns8f5, log_offset=fit_log_offset(x, lns8f5)))


def test_a_checkpoint_gives_the_model_without_the_optimizer(capsys, monkeypatch, tmp_path):
    import torch

    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    content = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "odd": torch.ones(1, dtype=torch.cfloat),
    }
    torch.save(content, tmp_path / "a.pt")
    out, options = tmp_path / "o.safetensors", ["--format", "lns8f5", "--drop", "odd"]
    code, _, complaints = run(capsys, monkeypatch, tmp_path / "a.pt", out, *options)
    names = "optimizer.param_groups.0.lr, optimizer.param_groups.0.betas.0, optimizer.param_groups.0.betas.1, "
    assert code == 0
    assert complaints.startswith(f"not tensors, left out: {names}")
    assert re.search(r"(, [a-z0-9_.]*){2} and [0-9]+ more$", complaints)
    options += ["--drop", "optimizer.*", "--strip-prefix", "model.module.", "--json"]
    code, printed, complaints = run(capsys, monkeypatch, tmp_path / "a.pt", out, *options)
    told = json.loads(printed)
    assert (code, complaints, told["skipped"]) == (0, "", ["epoch"])
    assert sorted(load_weights(out)) == ["bias", "weight"] == [tensor["name"] for tensor in told["tensors"]]
    assert "odd" in told["dropped"]
    assert "optimizer.param_groups.0.lr" in told["dropped"]
    assert "optimizer.state.0.exp_avg" in told["dropped"]


def test_a_bfloat16_file_becomes_npz(capsys, monkeypatch, tmp_path):
    x = ARRAYS["brain"]
    save_file({"x": x, "b": x[0]}, tmp_path / "in.safetensors")
    arguments = [tmp_path / "in.safetensors", tmp_path / "out.npz", "--to", "float32"]
    code, _, complaints = run(capsys, monkeypatch, *arguments)
    assert (code, "--all makes float32 of plain" in complaints) == (2, True)
    code, printed, _ = run(capsys, monkeypatch, *arguments, "--all")
    assert (code, "bfloat16 → float32" in printed, "exact" in printed) == (0, True, True)
    with np.load(tmp_path / "out.npz") as arrays:
        assert np.array_equal(arrays["x"], x.astype(np.float32))
        assert np.array_equal(arrays["b"], x[0].astype(np.float32))


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "0"), (5, "0, 1, 2, 3, 4"), (6, "0, 1, 2, 3, 4 and 1 more"), (5005, "0, 1, 2, 3, 4 and 5,000 more")],
)
def test_many_names_are_told_in_few(count, text):
    from lnsnum.cli.convert import _few

    assert _few(tuple(map(str, range(count)))) == text


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("in out.safetensors --format lns8f5 --drop nothing", "drop 'nothing' matches no tensor"),
        ("in out.safetensors --format lns8f5 --strip-prefix no.", "--strip-prefix 'no.' begins no tensor's name"),
        ("in out.safetensors --to float32", "nothing to convert: no LNS tensor is chosen (--all makes float32"),
        ("in out.safetensors", "give --format, such as lns8f5, or --to, such as float32: one of them"),
        ("in out.safetensors --format lns8f5 --to float32", "one of them"),
        ("in out.safetensors --format lns9", "'lns9' is no format name"),
        ("in out.safetensors --format lns8f5 --rounding odd", "--rounding 'odd' is not known"),
        ("in out.safetensors --format lns8f5 --all --only w", "--all and --only were given"),
        ("in out.safetensors --format lns8f5 --only nothing", "only 'nothing' matches no floating tensor"),
        ("in out.safetensors --format lns8f5 --shard 5XB", "--shard 5XB: give a number of bytes"),
        ("in out.safetensors --format lns8f5 --shard 0", "--shard 0: give"),
        ("in out.safetensors --format lns8f5 --meta key", "--meta key: give KEY=VALUE"),
        ("in out.safetensors --to float32 --pack", "--pack goes with --format"),
        ("in out.safetensors --to float32 --seed 1", "--seed goes with --format"),
        ("in out.safetensors --to float8", "--to 'float8' is not known"),
        ("in nowhere/out.safetensors --format lns8f5", "there is no folder"),
        ("in out.pt --to float32", "not '.pt'"),
        ("nothing out.safetensors --format lns8f5", "nothing: there is no such file"),
        ("junk out.safetensors --format lns8f5", "its kind is not known"),
    ],
)
def test_bad_input_ends_in_one_sentence(capsys, monkeypatch, tmp_path, source, arguments, what):
    (tmp_path / "junk").write_text("hello")
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    words = ["in.safetensors" if word == "in" else word for word in arguments.split()]
    code, printed, complaints = run(capsys, monkeypatch, *words)
    assert (code, printed) == (2, "")
    assert complaints.startswith("error: ")
    assert what in complaints
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("5GB", 5 * 10**9), ("3 kb", 3000), ("2MiB", 2 << 20), ("7b", 7), ("1t", 10**12)]
)
def test_sizes_are_written_as_people_do(text, size):
    from lnsnum.cli.convert import _bytes

    assert _bytes(text) == size


# ------------------------------------------------------------------------------------------------------------ memory


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="there is no /proc")
@pytest.mark.parametrize(
    "megabytes", [pytest.param(300, marks=pytest.mark.thorough), pytest.param(2000, marks=pytest.mark.long)]
)
def test_memory_does_not_grow_with_the_file(tmp_path, megabytes):
    """A file of zeros with holes, larger than what the process may take."""
    path, rows = tmp_path / "in.safetensors", megabytes * 10**6 // 4096
    header = json.dumps({"w": {"dtype": "F32", "shape": [rows, 1024], "data_offsets": [0, rows * 4096]}}).encode()
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + rows * 4096)
    code = (
        "import re, sys\nfrom lnsnum.toolbox.conversion import convert_file\nfrom lnsnum import lns8f5\n"
        "convert_file(sys.argv[1], sys.argv[2], fmt=lns8f5)\nassert 'torch' not in sys.modules\n"
        "convert_file(sys.argv[2], sys.argv[1], to='float32')\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"
    )  # ru_maxrss counts what the parent had when it forked
    done = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "out.safetensors"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 300 * 10**6


def test_no_shard_of_the_source_is_overwritten(tmp_path):
    weights = {name: np.ones((4, 4), np.float32) for name in "ab"}
    index = save_weights(tmp_path / "m.safetensors", weights, max_shard_bytes=64)
    shard = next(tmp_path.glob("m-*-00001-of-00002.safetensors"))
    with pytest.raises(ValueError, match=r"is a shard of .*m\.safetensors\.index\.json, which would lose it"):
        convert_file(index, shard, fmt=lns8f5)
    assert sorted(load_weights(index)) == ["a", "b"]
    assert convert_file(index, tmp_path / "m.safetensors", fmt=lns8f5).path == tmp_path / "m.safetensors"


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    save_file({"w": np.ones((1000, 1000), np.float32)}, tmp_path / "in.safetensors")
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)); "
    limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from lnsnum.cli import main; main()"
    arguments = ["convert", "in.safetensors", "out.safetensors", "--format", "lns8f5"]
    done = subprocess.run(
        [sys.executable, "-c", limited, *arguments], capture_output=True, text=True, cwd=tmp_path, env=os.environ
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: out.safetensors: it would be larger than a file may be here: see ulimit -f, or give a path on another "
        "disk\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in.safetensors"]
