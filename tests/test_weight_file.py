"""Weight files: round trips, what other readers see, atomic writing, and a gallery of files that are refused."""

import contextlib
import errno
import itertools
import json
import math
import os
import stat
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lnsnum import GroupOffsets, LNSFormat, LNSTensor, lns4f1, lns6f2, lns8f3, lns8f5, lns16f10, lns32f23
from lnsnum.files import headers
from lnsnum.files import single as single_file
from lnsnum.files.packing import can_be_packed, pack, unpack
from lnsnum.files.sharded import open_files
from lnsnum.files.single import BLOCK
from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.kernels.codes import each_offset, same_scale
from lnsnum.weight_file import (
    Description,
    OptimizerState,
    WeightFileError,
    iterate_weights,
    load_metadata,
    load_optimizer,
    load_weights,
    replacing,
    save_tensors,
    save_weights,
)

PLAIN_DTYPES = [np.dtype(code) for code in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")]
PLAIN_DTYPES.append(np.dtype(ml_dtypes.bfloat16))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = texts.filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 3), max_size=5).map(tuple)
some_bytes = st.integers(0, 2**32 - 1).map(np.random.default_rng)
formats = st.integers(3, 32).flatmap(
    lambda bits: st.builds(
        lambda fraction_bits, base: LNSFormat(bits, fraction_bits, base=base),
        st.integers(0, bits - 2),
        st.one_of(st.just(2.0), st.floats(1.0, exclude_min=True, allow_infinity=False)),
    )
)
offsets = st.one_of(st.just(0), st.integers(-MAX_LOG_OFFSET, MAX_LOG_OFFSET))


@st.composite
def plain_arrays(draw):
    """Arrays of every dtype, of any bits: NaN payloads, infinities and subnormals too."""
    shape, dtype, rng = draw(shapes), draw(st.sampled_from(PLAIN_DTYPES)), draw(some_bytes)
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    return np.frombuffer(rng.bytes(dtype.itemsize * int(np.prod(shape))), dtype).reshape(shape)


@st.composite
def lns_parts(draw):
    """Codes, format and log_offset of a tensor, any codes of any format."""
    fmt, shape, rng = draw(formats), draw(shapes), draw(some_bytes)
    codes = rng.integers(0, 1 << fmt.bits, shape, np.uint64).astype(fmt.dtype)
    if draw(st.booleans()):
        return codes, fmt, draw(offsets)
    first = draw(st.integers(0, len(shape)))
    channels = [size if draw(st.booleans()) else 1 for size in shape][first:]
    groups = {}
    if channels and draw(st.booleans()):
        groups = {"group_size": draw(st.integers(16, 256)), "axis": draw(st.integers(-len(channels), -1))}
        channels[groups["axis"]] = -(-shape[groups["axis"]] // groups["group_size"])
    offsets_of = np.asarray(rng.integers(-MAX_LOG_OFFSET, MAX_LOG_OFFSET + 1, channels, np.int32))
    return codes, fmt, GroupOffsets(offsets_of, **groups) if groups else offsets_of


def build(value):
    """The tensor of `lns_parts`, or the array itself."""
    return LNSTensor(value[0], value[1], log_offset=value[2]) if isinstance(value, tuple) else value


def same(a, b):
    if not isinstance(a, LNSTensor):
        return (type(a), a.dtype, a.shape, a.tobytes()) == (type(b), b.dtype, b.shape, b.tobytes())
    return (
        isinstance(b, LNSTensor)
        and a.fmt == b.fmt
        and same(a.codes, b.codes)
        and np.shape(each_offset(a.log_offset)) == np.shape(each_offset(b.log_offset))
        and same_scale(a.log_offset, b.log_offset)
    )


@contextlib.contextmanager
def folder():
    """A folder for each of Hypothesis' examples, which share pytest's."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# --------------------------------------------------------------------------------------------------------- round trips


@settings(max_examples=60)
@given(
    st.dictionaries(names, st.one_of(lns_parts(), plain_arrays()), max_size=4),
    st.dictionaries(texts, texts, max_size=3),
    st.sampled_from([BLOCK, 8]),
    st.booleans(),
)
@example({}, {}, 8, False)
@example(
    {"": np.array(True), "\0\n\"'\\/\N{GRINNING FACE}": np.zeros((0, 3))},
    {"": "", "lnsnum": "{}", "__metadata__": "x"},
    8,
    True,
)
@example({"lnsnum": (np.uint8([1]), lns8f3, 0), "w": (np.zeros((2, 0), np.uint32), lns32f23, -5)}, {}, BLOCK, True)
def test_what_is_written_is_read(values, metadata, block, packed):
    weights = {name: build(value) for name, value in values.items()}
    with folder() as here, pytest.MonkeyPatch.context() as patch:
        patch.setattr(single_file, "BLOCK", block)
        path = here / "w.safetensors"
        save_weights(path, weights, metadata=metadata, packed=packed)
        loaded = load_weights(path)
        assert sorted(loaded) == sorted(weights)
        for name, tensor in weights.items():
            assert same(tensor, loaded[name])
        assert load_metadata(path) == metadata
        assert os.listdir(here) == ["w.safetensors"]


@pytest.mark.parametrize("dtype", PLAIN_DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 0, 3), (1, 2, 1, 2, 3)])
def test_plain_arrays_of_every_type(tmp_path, dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    swapped = array if dtype == ml_dtypes.bfloat16 else array.astype(dtype.newbyteorder())
    save_weights(tmp_path / "w", {"a": array, "swapped": swapped})
    loaded = load_weights(tmp_path / "w")
    assert same(loaded["a"], array)
    assert same(loaded["swapped"], array)


EVERY_SHAPE = [(), (0,), (6,), (2, 0, 3), (9, 5), (2, 1, 3, 1, 4), (2, 33), (1, 17, 3)]


def scales_of(shape, rng):
    """A scale of every granularity that a tensor of this shape can have: one, channels, groups along each dimension."""

    def some(*sizes):
        return np.asarray(rng.integers(-MAX_LOG_OFFSET, MAX_LOG_OFFSET + 1, sizes))

    scales = {"one": -MAX_LOG_OFFSET, "channels": some(*shape[:1], *[1] * (len(shape) - 1))}
    for axis in range(-len(shape), 0) if len(shape) > 1 else ():
        own = [-(-size // 16) if d - len(shape) == axis else size for d, size in enumerate(shape)]
        scales[f"groups along {axis}"] = GroupOffsets(some(*own), 16, axis=axis)
    return scales


def codes_with_edges(fmt, shape, rng):
    """Random codes of a format, its least and greatest among them."""
    edges = [0, 1, fmt.max_magnitude, fmt.nan_code, fmt.nan_code + 1, (1 << fmt.bits) - 1]
    flat = rng.integers(0, 1 << fmt.bits, int(np.prod(shape)), np.uint64)
    flat[: len(edges)] = edges[: flat.size]
    return flat.astype(fmt.dtype).reshape(shape)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bits", range(3, 33))
def test_every_format_goes_there_and_back(tmp_path, monkeypatch, bits, packed):
    """Every number of fraction bits, bases of every kind, scales of every granularity, shapes of every kind."""
    rng = np.random.default_rng(bits)
    bases = [2.0, 1.5, math.e, 10.0, math.exp(0.001), 1.0 + 2.0**-52, 1.7e308]
    weights = {}
    for fraction_bits in range(bits - 1):
        fmt = LNSFormat(bits, fraction_bits, base=bases[fraction_bits % len(bases)])
        for shape in EVERY_SHAPE:
            codes = codes_with_edges(fmt, shape, rng)
            for kind, log_offset in scales_of(shape, rng).items():
                name = f"{fmt}/{shape}\n\0\x1b[31m{kind}é\N{GRINNING FACE}"
                weights[name] = LNSTensor(codes, fmt, log_offset=log_offset)
    monkeypatch.setattr(single_file, "BLOCK", 16)
    save_weights(tmp_path / "w", weights, packed=packed)
    loaded = load_weights(tmp_path / "w")
    assert sorted(loaded) == sorted(weights)
    assert all(same(tensor, loaded[name]) for name, tensor in weights.items())
    whole = sum(tensor.size for tensor in weights.values()) * LNSFormat(bits, 0).dtype.itemsize
    with open_files(tmp_path / "w") as files:
        stored = sum(files.describe(name).nbytes for name in files.names)
    rounded_up = sum(-(-tensor.size * bits // 8) for tensor in weights.values())
    scales = sum(each_offset(w.log_offset).size for w in weights.values() if not isinstance(w.log_offset, int))
    assert stored == (rounded_up if packed else whole) + 4 * scales


def test_a_packed_tensor_of_four_bits_takes_half_a_byte(tmp_path):
    codes = np.random.default_rng(0).integers(0, 16, 1 << 20, np.uint8)
    save_weights(tmp_path / "w", {"w": LNSTensor(codes, lns4f1)}, packed=True)
    assert 0 < os.path.getsize(tmp_path / "w") - (1 << 19) < 500
    save_weights(tmp_path / "w", {"w": LNSTensor(codes, lns4f1)})
    assert 0 < os.path.getsize(tmp_path / "w") - (1 << 20) < 500


@pytest.mark.plain_python
@given(st.integers(3, 31), st.lists(st.integers(0, 2**32 - 1), max_size=70))
@example(6, [1, 62, 32])
@example(31, [2**31 - 1] * 9)
def test_packed_bits_lie_as_the_specification_says(bits, numbers):
    """One string of bits, written here as one long integer."""
    fmt = LNSFormat(bits, 0)
    assume(can_be_packed(fmt))
    codes = np.array([number % (1 << bits) for number in numbers], np.uint64).astype(fmt.dtype)
    string = sum(int(code) << (i * bits) for i, code in enumerate(codes))
    packed = pack(codes, fmt)
    assert packed.tobytes() == string.to_bytes(-(-len(numbers) * bits // 8), "little")
    out = np.empty_like(codes)
    unpack(packed, fmt, out)
    np.testing.assert_array_equal(out, codes)


def test_a_tensor_comes_block_by_block(tmp_path, monkeypatch):
    """Blocks given to the writer may be of any sizes; those that come back are all of one, but for the last."""
    monkeypatch.setattr(single_file, "BLOCK", 16)
    rng = np.random.default_rng(0)
    codes, floats = rng.integers(0, 64, 75, np.uint8), rng.random(75)
    told = {"w": Description.of_codes((5, 15), lns6f2, 3, packed=True), "a": Description((75,), "float64")}
    parts = np.cumsum([0, 1, 0, 20, 7, 8, 39])
    save_tensors(
        tmp_path / "w", told,
        lambda name: ((codes if name == "w" else floats)[i:j] for i, j in itertools.pairwise(parts)),
    )  # fmt: skip
    with open_files(tmp_path / "w") as files:
        for name, array in (("w", codes), ("a", floats)):
            blocks = [block.copy() for block in files.blocks(name)]
            assert [block.size for block in blocks] == [16, 16, 16, 16, 11]
            np.testing.assert_array_equal(np.concatenate(blocks), array)
    assert same(load_weights(tmp_path / "w")["w"], LNSTensor(codes.reshape(5, 15), lns6f2, log_offset=3))


@pytest.mark.parametrize(
    ("blocks", "error", "message"),
    [
        (["text"], TypeError, r"^a block of tensor 'w' is a str: give arrays of uint8 and one dimension$"),
        ([np.zeros(3)], TypeError, r"^a block of tensor 'w' is a 1-d float64: give arrays of uint8 and one dimension$"),
        ([np.zeros((1, 3), np.uint8)], TypeError, r"^a block of tensor 'w' is a 2-d uint8: give arrays of"),
        ([np.uint8([1, 64, 2])], ValueError, r"^code 64 at index \(1,\) is outside lns6f2"),
        ([np.uint8([1, 2])], ValueError, r"^the blocks of tensor 'w' have 2 elements, and its shape \(3,\) 3$"),
        ([np.uint8([1, 2])] * 2, ValueError, r"^the blocks of tensor 'w' have 4 elements, and its shape \(3,\) 3$"),
        ([], ValueError, r"^the blocks of tensor 'w' have 0 elements, and its shape \(3,\) 3$"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_blocks_that_are_not_what_was_said_leave_nothing(old, blocks, error, message, packed):
    told = Description.of_codes((3,), lns6f2, packed=packed)
    with pytest.raises(error, match=message):
        save_tensors(old, {"w": told}, lambda _: blocks)
    assert unchanged(old)


@pytest.mark.skipif(os.name == "nt", reason="open files cannot be replaced there")
@pytest.mark.parametrize("block", [BLOCK, 8])
def test_a_file_that_is_replaced_while_it_is_read(tmp_path, monkeypatch, block):
    monkeypatch.setattr(single_file, "BLOCK", block)
    old, new = ({name: np.full(5, value) for name in "abc"} for value in (1.0, 2.0))
    save_weights(tmp_path / "w", old)
    iteration = iterate_weights(tmp_path / "w")
    first = next(iteration)
    save_weights(tmp_path / "w", new)
    for name, array in (first, *iteration):
        assert same(array, old[name])
    for name, array in iterate_weights(tmp_path / "w"):
        assert same(array, new[name])


@pytest.mark.parametrize("block", [BLOCK, 8])
def test_a_file_that_is_written_to_while_it_is_read_is_refused(tmp_path, monkeypatch, block):
    """Also where it has no checksums, as files of layout 1: what was checked may be there no more."""
    monkeypatch.setattr(single_file, "BLOCK", block)
    save_weights(tmp_path / "w", {"a": np.arange(100.0)})
    with open_files(tmp_path / "w") as files:
        content = (tmp_path / "w").read_bytes()
        os.utime(tmp_path / "w", ns=(0, 1))
        with open(tmp_path / "w", "r+b") as file:
            file.write(content)
        with pytest.raises(WeightFileError, match=r"w: it was changed while it was read$"):
            files.read("a")
    with open_files(tmp_path / "w") as files:
        os.truncate(tmp_path / "w", 900)
        with pytest.raises(WeightFileError, match="'a' is cut off: the file became shorter while it was read"):
            files.read("a")


def test_no_layout_matters(tmp_path):
    array = np.arange(12.0).reshape(3, 4)
    codes = np.arange(12, dtype=np.uint16).reshape(3, 4)
    for view in (np.asfortranarray, np.transpose, lambda a: a[::-1, ::2], lambda a: np.broadcast_to(a[0], (5, 4))):
        frozen = np.asarray(view(array))
        frozen.flags.writeable = False
        scale = np.broadcast_to(np.int32([[7], [-9]]), (2, 1 << 6))[:, ::64]
        groups = LNSTensor(
            np.broadcast_to(codes[0], (2, 20, 4)).T, lns16f10, log_offset=GroupOffsets(scale, 16, axis=-2)
        )
        save_weights(tmp_path / "w", {"a": frozen, "w": LNSTensor(view(codes), lns16f10), "g": groups})
        loaded = load_weights(tmp_path / "w")
        assert same(loaded["g"], groups)
        np.testing.assert_array_equal(loaded["a"], frozen)
        np.testing.assert_array_equal(loaded["w"].codes, view(codes))


def test_what_is_read_can_be_written_to(tmp_path):
    save_weights(tmp_path / "w", {"a": np.zeros(3), "w": LNSTensor.from_codes([1, 2, 3], lns8f3)})
    first, second = load_weights(tmp_path / "w"), load_weights(tmp_path / "w")
    first["a"][0], first["w"].codes[0] = 5.0, 5
    assert second["a"].tolist() == [0.0, 0.0, 0.0]
    assert load_weights(tmp_path / "w")["w"].codes.tolist() == second["w"].codes.tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_a_string_or_a_path(tmp_path, kind, monkeypatch):
    save_weights(kind(tmp_path / "w"), {"a": np.zeros(3)})
    assert list(load_weights(kind(tmp_path / "w"))) == ["a"]
    monkeypatch.chdir(tmp_path)
    save_weights(kind("relative"), {"b": np.zeros(3)})
    assert list(load_weights(kind("relative"))) == ["b"]


# ------------------------------------------------------------------------------------------------ other readers' view


def crc32(data, dtype, *shape):
    """The checksum of a tensor, as docs/weight_file.md has it."""
    line = " ".join([dtype, *map(str, shape)]) + "\n"
    return f"{zlib.crc32(line.encode() + data):08x}"


def test_any_safetensors_reader_sees_unsigned_integers(tmp_path):
    tensors = {
        "six": LNSTensor(np.arange(64, dtype=np.uint8).reshape(8, 8), lns6f2, log_offset=-12),
        "sixteen": LNSTensor.from_codes([[1, 65535]], lns16f10, log_offset=np.array([5])),
        "wide": LNSTensor.from_codes([2**32 - 1], lns32f23),
    }
    save_weights(tmp_path / "w", {**tensors, "bias": np.float32([0.5])}, metadata={"author": "me"})
    plain = safetensors.numpy.load_file(tmp_path / "w")
    stored = {f"{name}.lnsnum_codes": tensor for name, tensor in tensors.items()}
    assert sorted(plain) == ["bias", *sorted([*stored, "sixteen.lnsnum_offsets"])]
    for name, tensor in stored.items():
        assert plain[name].dtype == tensor.fmt.dtype
        np.testing.assert_array_equal(plain[name], tensor.codes)
    assert plain["sixteen.lnsnum_offsets"].tolist() == [5]
    with safetensors.safe_open(tmp_path / "w", framework="numpy") as file:
        metadata = file.metadata()
    assert sorted(metadata) == ["lnsnum", "lnsnum_crc32"]
    assert metadata["lnsnum_crc32"] == f"{zlib.crc32(metadata['lnsnum'].encode()):08x}"
    assert json.loads(metadata["lnsnum"]) == {
        "layout": 3,
        "metadata": {"author": "me"},
        "tensors": {
            "bias": {"crc32": crc32(struct.pack("<f", 0.5), "F32", 1)},
            "six": {"crc32": crc32(bytes(range(64)), "U8", 8, 8), "format": "lns6f2", "log_offset": -12},
            "sixteen": {
                "crc32": crc32(b"\1\0\xff\xff", "U16", 1, 2),
                "format": "lns16f10",
                "log_offset": {"crc32": crc32(b"\5\0\0\0", "I32", 1)},
            },
            "wide": {"crc32": crc32(b"\xff\xff\xff\xff", "U32", 1), "format": "lns32f23", "log_offset": 0},
        },
    }


@settings(max_examples=60)
@given(st.dictionaries(names, plain_arrays(), max_size=6), st.dictionaries(texts, texts, max_size=3))
@example(
    {name: np.zeros(1, name) for name in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")}, {}
)
@example(
    {"": np.zeros(1), "\x7f\x1f\b\u2028\N{GRINNING FACE}": np.zeros((), np.uint8), "_": np.zeros((0, 2))}, {"é\n": ""}
)
def test_the_bytes_are_those_that_safetensors_writes(values, metadata):
    """But for the order of the two strings of the metadata, which it leaves to chance."""
    with folder() as here:
        save_weights(here / "w", values, metadata=metadata)
        with safetensors.safe_open(here / "w", framework="numpy") as file:
            entries = file.metadata()
        length = int.from_bytes((here / "w").read_bytes()[:8], "little")
        ours = (here / "w").read_bytes()
        theirs = safetensors.numpy.save(values, metadata={"lnsnum": entries["lnsnum"]})
        crc = f',"lnsnum_crc32":"{entries["lnsnum_crc32"]}"'.encode()
        header = ours[8 : 8 + length].replace(crc, b"", 1).rstrip(b" ")
        header += b" " * (-len(header) % 8)
        assert len(header).to_bytes(8, "little") + header + ours[8 + length :] == theirs


def test_the_same_weights_give_the_same_bytes(tmp_path):
    weights = {
        "a": LNSTensor.from_codes([1, 2], lns8f5),
        "b": np.ones(3),
        "c": np.zeros(2, bool),
        "d": LNSTensor.from_codes([3], lns16f10),
    }
    metadata = {letter: letter for letter in "axbyczdw"}
    save_weights(tmp_path / "1", weights, metadata=metadata)
    save_weights(tmp_path / "2", dict(reversed(weights.items())), metadata=dict(reversed(metadata.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_byte_for_byte(tmp_path):
    """The packed tensor of docs/weight_file.md, in a file by itself, as it lies on disk."""
    tensor = LNSTensor.from_codes([[1, 62, 32]], lns6f2, log_offset=np.array([[-3]]))
    save_weights(tmp_path / "w", {"fc.weight": tensor}, metadata={"model": "a small network"}, packed=True)
    data, offsets_of = bytes([0x81, 0x0F, 0x02]), b"\xfd\xff\xff\xff"
    entry = (
        '{"layout": 3, "metadata": {"model": "a small network"}, "tensors": {"fc.weight": '
        f'{{"crc32": "{crc32(data, "U8", 3)}", "format": "lns6f2", '
        f'"log_offset": {{"crc32": "{crc32(offsets_of, "I32", 1, 1)}"}}, "packed_shape": [1, 3]}}}}}}'
    )
    quoted = entry.replace('"', '\\"')
    header = (
        f'{{"__metadata__":{{"lnsnum":"{quoted}","lnsnum_crc32":"{zlib.crc32(entry.encode()):08x}"}},'
        '"fc.weight.lnsnum_offsets":{"dtype":"I32","shape":[1,1],"data_offsets":[0,4]},'
        '"fc.weight.lnsnum_codes":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}}'
    )
    header += " " * (-len(header) % 8)
    assert (tmp_path / "w").read_bytes() == len(header).to_bytes(8, "little") + header.encode() + offsets_of + data


# ------------------------------------------------------------------------------------------------- writing, atomically


@pytest.fixture
def old(tmp_path):
    """A file that is about to be replaced."""
    path = tmp_path / "w"
    save_weights(path, {"old": np.arange(3)})
    return path


def unchanged(path):
    return os.listdir(path.parent) == [path.name] and list(load_weights(path)) == ["old"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), RuntimeError("?")]
)
def test_an_exception_while_writing_leaves_the_old_file(old, error):
    def half():
        yield np.arange(2)
        (name,) = set(os.listdir(old.parent)) - {old.name}
        assert (old.parent / name).stat().st_size > 16
        raise error

    with pytest.raises(type(error)):
        save_tensors(old, {"new": Description((4,), "int64")}, lambda _: half())
    assert unchanged(old)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(old, monkeypatch, function):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(OSError, match=r"w: its disk failed: input/output error$"):
            save_weights(old, {"new": np.arange(4)})
    assert unchanged(old)


def test_a_full_disk_is_an_oserror(old):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"w: it would be larger than a file may be here"):
            save_weights(old, {"new": np.zeros(1 << 18)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert unchanged(old)


def test_nothing_is_there_before_all_of_it_is(tmp_path, monkeypatch):
    """What the target holds when the temporary file is whole: nothing, until one rename."""
    seen, replace = [], os.replace

    def watch(source, target):
        seen.append((list(load_weights(source)), os.path.exists(target)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    save_weights(tmp_path / "w", {"new": np.arange(4)})
    assert seen == [(["new"], False)]


def test_replacing_ends_well_or_not_at_all(tmp_path):
    path = tmp_path / "report.json"
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"

    def fail(error):
        with replacing(path) as temporary:
            temporary.write_text("two")
            raise error

    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            fail(error)
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.mark.parametrize(
    ("weights", "metadata", "error", "message"),
    [
        ({"a": [1.0]}, None, TypeError, r"^tensor 'a' is a list: give an LNSTensor or a NumPy array"),
        ({"a": None}, None, TypeError, r"^tensor 'a' is a NoneType: give an LNSTensor or a NumPy array"),
        ({"a": np.float64(1)}, None, TypeError, r"^tensor 'a' is a float64: give an LNSTensor or a NumPy array"),
        ({"a": np.zeros(2, complex)}, None, TypeError, r"^tensor 'a' is of complex128, which weight files"),
        ({"a": np.array(["x"])}, None, TypeError, r"^tensor 'a' is of <U1, which weight files cannot hold$"),
        ({"a": np.ma.masked_array([1.0, 2.0], [0, 1])}, None, TypeError,
         r"^some of the elements of tensor 'a' are masked, and no mask is kept: fill them with x.filled\(value\)$"),
        ({"a": np.array([None])}, None, TypeError, r"^tensor 'a' is of object, which weight files cannot hold$"),
        ({"a": np.zeros(1, "M8[s]")}, None, TypeError, r"^tensor 'a' is of datetime64\[s\], which weight"),
        ({"a": np.zeros(1, [("x", "f4")])}, None, TypeError, r"^tensor 'a' is of .*, which weight files cannot hold$"),
        ({"a": np.zeros(1, ml_dtypes.float8_e5m2)}, None, TypeError, r"^tensor 'a' is of float8_e5m2, which"),
        ({1: np.zeros(1)}, None, ValueError, r"^1 cannot name a tensor: any string but '__metadata__' can, in Uni"),
        ({"__metadata__": np.zeros(1)}, None, ValueError, r"^'__metadata__' cannot name a tensor: any string but"),
        ({"\ud800": np.zeros(1)}, None, ValueError, r"cannot name a tensor"),
        ({"\ud800": LNSTensor.from_codes([1], lns8f3)}, None, ValueError, r"cannot name a tensor"),
        ({}, {"epoch": 1}, TypeError, r"^metadata entry 'epoch' is not a string by a string$"),
        ({}, {1: "epoch"}, TypeError, r"^metadata entry 1 is not a string by a string$"),
        ({}, {"a": b"b"}, TypeError, r"^metadata entry 'a' is not a string by a string$"),
        ({}, {"a": "\ud800"}, ValueError, r"^metadata entry 'a' is no Unicode$"),
        ({"a": LNSTensor.from_codes([1], lns8f3), "a.lnsnum_codes": np.zeros(1)}, None, ValueError,
         r"^tensors 'a' and 'a\.lnsnum_codes' would both be stored as 'a\.lnsnum_codes': give one another name$"),
        ({"a": LNSTensor.from_codes([1], lns8f3, log_offset=np.array([1])), "a.lnsnum_offsets": np.zeros(1)}, None,
         ValueError, r"would both be stored as 'a\.lnsnum_offsets'"),
    ],
)  # fmt: skip
def test_a_bad_value_leaves_nothing(tmp_path, old, weights, metadata, error, message):
    for target in (old, tmp_path / "new"):
        with pytest.raises(error, match=message):
            save_weights(target, {"good": np.zeros(1), **weights}, metadata=metadata)
    assert unchanged(old)


@pytest.mark.parametrize(
    ("state", "tensors", "error", "message"),
    [
        ([], {}, TypeError, r"^the state of the optimizer is a list: give an object of JSON, by name$"),
        ({"lr": math.nan}, {}, ValueError, r"^the state of the optimizer is no JSON: "),
        ({"lr": np.float32(1)}, {}, ValueError, r"^the state of the optimizer is no JSON: "),
        ({1: 2}, {}, ValueError, r"^the state of the optimizer is no JSON: names are strings, and sequences lists$"),
        ({"a": (1, 2)}, {}, ValueError, r"^the state of the optimizer is no JSON: names are strings, and sequences"),
        ({"a": "\ud800"}, {}, ValueError, r"^the state of the optimizer is no JSON: "),
        ({}, {"m": LNSTensor.from_codes([1], lns8f3)}, TypeError, r"^tensor 'm' of the optimizer is an LNSTensor"),
        ({}, {"m": [1]}, TypeError, r"^tensor 'm' is a list: give an LNSTensor or a NumPy array"),
        ({}, {"\ud800": np.zeros(1)}, ValueError, r"cannot name a tensor"),
        ({}, {"good": np.zeros(1)}, ValueError, r"^tensors 'good\.lnsnum_optimizer' and 'good' of the optimizer would"),
    ],
)
def test_a_bad_state_of_an_optimizer_leaves_nothing(old, state, tensors, error, message):
    optimizer = OptimizerState(state, tensors)
    with pytest.raises(error, match=message):
        save_weights(old, {"good.lnsnum_optimizer": np.zeros(1)}, optimizer=optimizer)
    assert unchanged(old)


@pytest.fixture
def umask():
    """A function that sets the umask until the test ends."""
    before = os.umask(0o077)
    yield os.umask
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_of_new_files(tmp_path, umask, mask, mode):
    umask(mask)
    save_weights(tmp_path / "w", {})
    assert stat.S_IMODE((tmp_path / "w").stat().st_mode) == mode


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666, 0o640, 0o200])
def test_a_replaced_file_keeps_its_permissions(old, umask, mode):
    umask(0o022)
    old.chmod(mode)
    save_weights(old, {})
    assert stat.S_IMODE(old.stat().st_mode) == mode


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, relative, dangling):
    links, files = tmp_path / "links", tmp_path / "files"
    links.mkdir()
    files.mkdir()
    if not dangling:
        save_weights(files / "v1", {"old": np.zeros(1)})
    (links / "hop").symlink_to("../files/v1" if relative else files / "v1")
    (links / "latest").symlink_to("hop" if relative else links / "hop")
    save_weights(links / "latest", {"new": np.zeros(1)})
    assert (links / "latest").is_symlink()
    assert (links / "hop").is_symlink()
    assert list(load_weights(files / "v1")) == list(load_weights(links / "latest")) == ["new"]
    assert sorted(os.listdir(links)) == ["hop", "latest"]
    assert os.listdir(files) == ["v1"]


@pytest.mark.parametrize(
    "name",
    ["w", ".hidden", "with space", "w.tmp", "-", "a" * 255, "é" * 127, "\N{GRINNING FACE}" * 63],
    ids=["plain", "hidden", "space", "tmp", "dash", "255 bytes", "254 bytes in 127 letters", "252 bytes in 63 letters"],
)
def test_any_file_name_will_do(tmp_path, name):
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("no file can be called so here")
    save_weights(tmp_path / name, {"a": np.zeros(1)})
    assert list(load_weights(tmp_path / name)) == ["a"]
    assert os.listdir(tmp_path) == [name]


def test_places_where_no_file_can_be(tmp_path, old):
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "no" / "w", old / "w", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(
            OSError,
            match=r"no regular file|there is no folder|a part of this path is a file|longer than the disk takes",
        ):
            save_weights(place, {"a": np.zeros(1)})
    assert sorted(os.listdir(tmp_path)) == ["folder", "w"]
    assert os.listdir(tmp_path / "folder") == []


# --------------------------------------------------------------------------------------------------------- the gallery


def container(header, data=b""):
    """A safetensors file: the length of the header, the header, the data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def weight_file(entry, *tensors):
    """A file whose metadata has `entry` (JSON, or a string as it is) and `tensors` (name, dtype, shape, bytes).

    Where the entry is of layout 2, each tensor has one, and a right checksum where it has none.
    """
    tensors = tensors or (("w", "U8", [3], b"\1\2\3"),)
    header, data = {}, b""
    if isinstance(entry, dict) and entry.get("layout") == 2 and isinstance(entry.get("tensors"), dict):
        entry = entry | {"tensors": {name: {} for name, *_ in tensors} | entry["tensors"]}
        for name, dtype, shape, content in tensors:
            if isinstance(entry["tensors"][name], dict):
                right = {"crc32": crc32(content, dtype, *shape)} | entry["tensors"][name]
                entry["tensors"][name] = {key: value for key, value in right.items() if value is not ...}
    if entry is not None:
        text = entry if isinstance(entry, str) else json.dumps(entry)
        header["__metadata__"] = {"lnsnum": text, "lnsnum_crc32": f"{zlib.crc32(text.encode()):08x}"}
    for name, dtype, shape, content in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return container(header, data)


def entry_for_w(**changes):
    entry = {"format": "lns8f3", "log_offset": 0} | changes
    return {"layout": 2, "tensors": {"w": entry}}


def packed_w(shape):
    return entry_for_w(format="lns6f2", packed_shape=shape)


def offsets_for_w(shape, values):
    return entry_for_w(log_offset={"shape": shape, "values": values})


GOOD = weight_file(entry_for_w())

NOTHING = {"layout": 2, "tensors": {}}

DEEP = "[" * 100_000

DAMAGED_ENTRY = "its metadata entry 'lnsnum' is damaged: 'lnsnum_crc32' is not its checksum"

FOREIGN = (
    "a safetensors file, but no LNS weight file: its metadata has no entry 'lnsnum' (lnsnum convert makes one of it)"
)

NO_CHECKSUM = "the entry for 'w' has no checksum of eight hexadecimal digits"


def deep(levels):
    return "[" * levels + "]" * levels


GALLERY = {
    "foreign": (
        weight_file(None),
        FOREIGN,
    ),
    "foreign metadata": (
        container({"__metadata__": {"format": "pt"}}),
        FOREIGN,
    ),
    "a header behind a space": (
        container(b" " + weight_file(NOTHING)[8:-3], b"\1\2\3"),
        "its header does not begin with a brace",
    ),
    "no metadata": (
        container({"__metadata__": None}),
        FOREIGN,
    ),
    "no JSON": (weight_file("{nope"), "its metadata entry 'lnsnum' is not JSON"),
    "empty": (weight_file(""), "its metadata entry 'lnsnum' is not JSON"),
    "deep and open": (weight_file(DEEP), "its metadata entry 'lnsnum' is not JSON"),
    "deep and closed": (weight_file(deep(100_000)), "its metadata entry 'lnsnum' is not JSON"),
    "deep object": (weight_file('{"a":' * 100_000), "its metadata entry 'lnsnum' is not JSON"),
    "endless integer": (weight_file('{"layout": %s}' % ("9" * 5000)), "its metadata entry 'lnsnum' is not JSON"),
    "list": (weight_file([1]), "its metadata entry 'lnsnum' is no JSON object"),
    "number": (weight_file(1), "its metadata entry 'lnsnum' is no JSON object"),
    "text": (weight_file('"lns8f3"'), "its metadata entry 'lnsnum' is no JSON object"),
    "null": (weight_file("null"), "its metadata entry 'lnsnum' is no JSON object"),
    "no tensors": (weight_file({"layout": 2}), "its metadata entry 'lnsnum' has no list of tensors"),
    "list of tensors": (
        weight_file(NOTHING | {"tensors": ["w"]}),
        "its metadata entry 'lnsnum' has no list of tensors",
    ),
    "layout 4": (weight_file(NOTHING | {"layout": 4}), "layout version 4 is unknown: this reader knows 1 to 3"),
    "layout 0": (weight_file(NOTHING | {"layout": 0}), "layout version 0 is unknown: this reader knows 1 to 3"),
    "layout 2.0": (weight_file(NOTHING | {"layout": 2.0}), "layout version 2.0 is unknown: this reader knows 1 to 3"),
    "layout 4 of another outline": (
        weight_file({"layout": 4, "parts": []}),
        "layout version 4 is unknown: this reader knows 1 to 3",
    ),
    "layout true": (
        weight_file(NOTHING | {"layout": True}),
        "layout version True is unknown: this reader knows 1 to 3",
    ),
    "layout text": (weight_file(NOTHING | {"layout": "2"}), "layout version '2' is unknown: this reader knows 1 to 3"),
    "no layout": (weight_file({"tensors": {}}), "layout version None is unknown: this reader knows 1 to 3"),
    "no checksum of the entry": (container({"__metadata__": {"lnsnum": json.dumps(NOTHING)}}), DAMAGED_ENTRY),
    "an entry that is no JSON any more": (
        container({"__metadata__": {"lnsnum": json.dumps(NOTHING)[1:], "lnsnum_crc32": "00000000"}}),
        DAMAGED_ENTRY,
    ),
    "a wrong checksum of the entry": (
        container({"__metadata__": {"lnsnum": json.dumps(NOTHING), "lnsnum_crc32": "00000000"}}),
        DAMAGED_ENTRY,
    ),
    "tensor without an entry": (
        container(
            {**json.loads(weight_file(NOTHING)[8:-3]), "v": {"dtype": "U8", "shape": [0], "data_offsets": [3, 3]}},
            b"\1\2\3",
        ),
        "tensor 'v' has no entry",
    ),
    "no checksum": (weight_file(entry_for_w(crc32=...)), NO_CHECKSUM),
    "checksum of seven digits": (weight_file(entry_for_w(crc32="1234567")), NO_CHECKSUM),
    "checksum in upper case": (weight_file(entry_for_w(crc32="ABCDEF01")), NO_CHECKSUM),
    "checksum a number": (weight_file(entry_for_w(crc32=12345678)), NO_CHECKSUM),
    "checksum of two lines": (weight_file(entry_for_w(crc32="12345678\n")), NO_CHECKSUM),
    "another checksum": (
        weight_file(entry_for_w(crc32="00000000")),
        f"tensor 'w' is damaged: its checksum is {crc32(bytes([1, 2, 3]), 'U8', 3)}, and the file says 00000000",
    ),
    "a constant that JSON has not": (weight_file('{"layout": NaN}'), "its metadata entry 'lnsnum' is not JSON"),
    "half of a pair": (
        weight_file('{"layout": 2, "tensors": {}, "x": "\\uD800"}'),
        "its metadata entry 'lnsnum' has a string that is no Unicode",
    ),
    "packed without a format": (
        weight_file({"layout": 2, "tensors": {"w": {"packed_shape": [3]}}}),
        "tensor 'w': its entry has a packed_shape, but no format",
    ),
    "packed with nothing to spare": (
        weight_file(entry_for_w(packed_shape=[3])),
        "tensor 'w': it is packed, and codes of lns8f3 have no bit to spare",
    ),
    "packed in another type": (
        weight_file(packed_w([1]), ("w", "I8", [1], b"\1")),
        "tensor 'w': it is packed, but of int8 and shape (1,), not uint8 of one dimension",
    ),
    "packed in two dimensions": (
        weight_file(packed_w([4]), ("w", "U8", [3, 1], b"\1\2\3")),
        "tensor 'w': it is packed, but of uint8 and shape (3, 1), not uint8 of one dimension",
    ),
    "packed in too many bytes": (
        weight_file(packed_w([2])),
        "tensor 'w' has 3 bytes, and its shape (2,) of lns6f2 packed takes 2",
    ),
    "packed in terabytes": (
        weight_file(packed_w([2**20, 2**24])),
        "tensor 'w' has 3 bytes, and its shape (1048576, 16777216) of lns6f2 packed takes 13194139533312",
    ),
    "packed in a huge empty shape": (
        weight_file(packed_w([0, 2**62, 2**62]), ("w", "U8", [0], b"")),
        r"tensor 'w' is none that NumPy can hold: .*",
    ),
    **{
        f"packed in a shape that is {shape}": (
            weight_file(packed_w(shape)),
            "tensor 'w': the packed_shape is no list of integers from 0 on",
        )
        for shape in (None, 4, "4", [-4], [4.0], [True], [[4]], [2**63], {"0": 4})
    },
    "bits after the last code": (
        weight_file(packed_w([3]), ("w", "U8", [3], b"\x81\x0f\x06")),
        "tensor 'w' has bits other than 0 after its last code",
    ),
    "truth values of 2": (
        weight_file(NOTHING, ("w", "BOOL", [3], b"\0\1\2")),
        "tensor 'w' is of bool, and has bytes other than 0 and 1",
    ),
    "no format": (weight_file(entry_for_w(format=...)), "tensor 'w': its entry has a log_offset, but no format"),
    "format 8": (weight_file(entry_for_w(format=8)), "tensor 'w': its entry lacks a format or a log_offset"),
    "no offset": (weight_file(entry_for_w(log_offset=...)), "tensor 'w': its entry lacks a format or a log_offset"),
    "entry a string": (weight_file(NOTHING | {"tensors": {"w": "lns8f3"}}), "the entry for 'w' is no object"),
    "unknown format": (
        weight_file(entry_for_w(format="int8")),
        "tensor 'w': 'int8' is no format name: write lns8f5 for 8 bits, 5 of them fraction bits",
    ),
    "format of two lines": (
        weight_file(entry_for_w(format="lns8f3\n")),
        "tensor 'w': 'lns8f3\\n' is no format name: write lns8f5 for 8 bits, 5 of them fraction bits",
    ),
    "impossible format": (weight_file(entry_for_w(format="lns33f3")), "tensor 'w': bits=33 is out of range: 3 to 32"),
    "a base between two doubles": (
        weight_file(entry_for_w(format="lns8f3b0x3.000000000000008p-1")),
        "tensor 'w': 'lns8f3b0x3.000000000000008p-1' has a base that is no float64: 0x3.000000000000008p-1 lies "
        "between two",
    ),
    "base 1": (
        weight_file(entry_for_w(format="lns8f3b0x1p+0")),
        "tensor 'w': base=1.0 is out of range: finite and greater than 1",
    ),
    "uint8 as lns16": (
        weight_file(entry_for_w(format="lns16f7")),
        "tensor 'w': it is of uint8, but codes of lns16f7 are uint16",
    ),
    "int8": (
        weight_file(entry_for_w(), ("w", "I8", [3], b"\1\2\3")),
        "tensor 'w': it is of int8, but codes of lns8f3 are uint8",
    ),
    "floats": (
        weight_file(entry_for_w(format="lns32f23"), ("w", "F32", [1], b"\1\2\3\4")),
        "tensor 'w': it is of float32, but codes of lns32f23 are uint32",
    ),
    "code outside": (
        weight_file(entry_for_w(format="lns6f2"), ("w", "U8", [3, 1], b"\1\2\x40")),
        "tensor 'w': code 64 at index (2, 0) is outside lns6f2: its codes are 0 to 63",
    ),
    "code outside, 0-d": (
        weight_file(entry_for_w(format="lns17f0"), ("w", "U32", [], b"\0\0\0\x80")),
        "tensor 'w': code 2147483648 is outside lns17f0: its codes are 0 to 131071",
    ),
    "offset too large": (
        weight_file(entry_for_w(log_offset=2**30 + 1)),
        "tensor 'w': log_offset=1073741825 is too large: at most 2^30 in size",
    ),
    "offset too small": (
        weight_file(entry_for_w(log_offset=-(2**80))),
        "tensor 'w': log_offset=-1208925819614629174706176 is too large: at most 2^30 in size",
    ),
    "offset true": (
        weight_file(entry_for_w(log_offset=True)),
        "tensor 'w': log_offset=True is a bool: give an integer number of code steps",
    ),
    "offset 1.0": (
        weight_file(entry_for_w(log_offset=1.0)),
        "tensor 'w': log_offset=1.0 is a float: give an integer number of code steps",
    ),
    "offset nan": (
        weight_file(entry_for_w(log_offset=float("nan"))),
        "its metadata entry 'lnsnum' is not JSON",
    ),
    "offset fit": (
        weight_file(entry_for_w(log_offset="fit")),
        "tensor 'w': log_offset='fit' is a str: give an integer number of code steps",
    ),
    "offset null": (
        weight_file(entry_for_w(log_offset=None)),
        "tensor 'w': log_offset=None is a NoneType: give an integer number of code steps",
    ),
    "offset list": (
        weight_file(entry_for_w(log_offset=[0])),
        "tensor 'w': log_offset=[0] is a list: give an integer number of code steps",
    ),
    "offsets of a wrong shape": (
        weight_file(offsets_for_w([2], [1, 2])),
        "tensor 'w': log_offset of shape (2,) does not broadcast to the codes' shape (3,)",
    ),
    "offsets of more dimensions": (
        weight_file(offsets_for_w([1, 3], [1, 2, 3])),
        "tensor 'w': log_offset of shape (1, 3) does not broadcast to the codes' shape (3,)",
    ),
    "no offsets": (
        weight_file(offsets_for_w([0], [])),
        "tensor 'w': log_offset of shape (0,) does not broadcast to the codes' shape (3,)",
    ),
    "offsets that do not fill the shape": (weight_file(offsets_for_w([3], [1, 2])), r"tensor 'w': .*"),
    "offsets of a huge shape": (weight_file(offsets_for_w([2**62, 2**62], [])), r"tensor 'w': .*"),
    "offsets of a huge empty shape": (weight_file(offsets_for_w([0, 2**62], [])), r"tensor 'w': .*"),
    "offsets of an endless shape": (weight_file(offsets_for_w([10**30], [1])), r"tensor 'w': .*"),
    "offsets of 100 dimensions": (weight_file(offsets_for_w([1] * 100, [1])), r"tensor 'w': .*"),
    "offsets beyond int64": (weight_file(offsets_for_w([3], [0, 0, 2**70])), r"tensor 'w': .*"),
    "offsets beyond 2^30": (
        weight_file(offsets_for_w([3], [0, 0, -(2**30) - 1])),
        "tensor 'w': log_offset=-1073741825 is too large: at most 2^30 in size",
    ),
    "offsets of a negative shape": (
        weight_file(offsets_for_w([-1], [1, 2, 3])),
        "tensor 'w': the shape of its log_offset is no list of integers from 0 on",
    ),
    "offsets of floats": (
        weight_file(offsets_for_w([3], [1, 2, 3.0])),
        "tensor 'w': the values of its log_offset are no list of integers",
    ),
    "offsets of booleans": (
        weight_file(offsets_for_w([3], [1, 2, True])),
        "tensor 'w': the values of its log_offset are no list of integers",
    ),
    "offsets of a boolean shape": (
        weight_file(offsets_for_w([True], [1])),
        "tensor 'w': the shape of its log_offset is no list of integers from 0 on",
    ),
    "offsets in lists": (
        weight_file(offsets_for_w([3], [[1, 2, 3]])),
        "tensor 'w': the values of its log_offset are no list of integers",
    ),
    "offsets without values": (
        weight_file(offsets_for_w([3], None)),
        "tensor 'w': the values of its log_offset are no list of integers",
    ),
    "offsets without shape": (
        weight_file(offsets_for_w("3", [1])),
        "tensor 'w': the shape of its log_offset is no list of integers from 0 on",
    ),
    "entry without tensor": (
        weight_file(NOTHING | {"tensors": {"v\n": {"format": "lns8f3", "log_offset": 0}}}),
        "its entry for 'v\\n' has no tensor",
    ),
}
"""By name: the file, and what the error says after the file's name. From a .* on the sentence is NumPy's."""

ABOUT_METADATA = [
    name
    for name, (_, sentence) in GALLERY.items()
    if sentence.startswith(("a safetensors file", "its metadata entry", "layout version"))
]

DAMAGED = {
    "nothing": b"",
    "one byte": GOOD[:1],
    "half a length": GOOD[:7],
    "a length": GOOD[:8],
    "half a header": GOOD[: len(GOOD) // 2],
    "a header": GOOD[:-3],
    "but one byte": GOOD[:-1],
    "one byte more": GOOD + b"\0",
    "text": b"Not every file is a weight file.\n" * 10,
    "zeros": bytes(1000),
    "length beyond all": b"\xff" * 16,
    "header not JSON": container(b"{nope"),
    "header not UTF-8": container(b'{"\xff":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "header a list": container([]),
    "header deep": container(DEEP.encode()),
    "unknown dtype": weight_file(entry_for_w(), ("w", "X8", [3], b"\1\2\3")),
    "shape too large": weight_file(entry_for_w(), ("w", "U8", [4], b"\1\2\3")),
    "shape overflows": weight_file(entry_for_w(), ("w", "U8", [2**33, 2**33], b"\1\2\3")),
    "negative shape": weight_file(entry_for_w(), ("w", "U8", [-3], b"\1\2\3")),
    "offsets overlap": container(
        {name: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]} for name in "ab"}, b"\1"
    ),
    "metadata no text": container({"__metadata__": {"lnsnum": NOTHING}}),
}  # fmt: skip

UNREADABLE = {
    "float8": ("F8_E4M3", [1], b"\0"),
    "another float8": ("F8_E5M2", [2], b"\0\0"),
    "exponents": ("F8_E8M0", [1], b"\0"),
    "float4": ("F4", [2], b"\0"),
    "too many dimensions": ("U8", [1] * 100, b"\1"),
    "huge and empty": ("U8", [0, 2**62, 2**62], b""),
    "huge and empty floats": ("F32", [0, 2**61], b""),
}
"""Tensors that safetensors files may hold and NumPy cannot."""


def refusal(path, read=load_weights):
    """The text of the error that a file meets."""
    with pytest.raises(WeightFileError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture(params=[BLOCK, 8], ids=["one block", "blocks of eight"])
def file(request, tmp_path, monkeypatch):
    """A function that writes a file and gives its path; its tensors are read in one block, or in several."""
    monkeypatch.setattr(single_file, "BLOCK", request.param)

    def write(content, name="w.safetensors"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def test_the_gallery_hangs_straight(file):
    """Each picture differs from this file, which loads."""
    weights = load_weights(file(GOOD))
    assert list(weights) == ["w"]
    assert same(weights["w"], LNSTensor.from_codes([1, 2, 3], lns8f3))
    assert load_metadata(file(GOOD)) == {}
    per_channel = load_weights(file(weight_file(offsets_for_w([3], [1, -2, 2**30]))))["w"]
    assert per_channel.log_offset.tolist() == [1, -2, 2**30]
    assert load_weights(file(weight_file(offsets_for_w([], [7]))))["w"].log_offset == 7


@pytest.mark.parametrize("name", GALLERY)
def test_what_is_wrong_is_said(file, name):
    content, sentence = GALLERY[name]
    path = file(content)
    if sentence.endswith(".*"):
        assert refusal(path).startswith(f"{path}: {sentence[:-2]}")
    else:
        assert refusal(path) == f"{path}: {sentence}"
    assert refusal(str(path)) == refusal(path)


@pytest.mark.parametrize("name", ABOUT_METADATA)
def test_metadata_of_such_files_is_refused_alike(file, name):
    path = file(GALLERY[name][0])
    assert refusal(path, load_metadata) == refusal(path)


@pytest.mark.parametrize("metadata", [None, 5, "text", ["a"], {"a": 1}, {"a": "b", "c": None}], ids=str)
def test_metadata_that_are_no_strings_by_name(file, metadata):
    path = file(weight_file(NOTHING | {"metadata": metadata}))
    for read in (load_weights, load_metadata):
        assert refusal(path, read) == f"{path}: its metadata are not strings by name"


def test_what_the_specification_does_not_name_is_ignored(file):
    data, line = b"\5", ("U8", 1)
    entry = {"format": "lns8f3", "log_offset": 4, "colour": "blue", "crc32": crc32(data, *line)}
    text = json.dumps(
        {"layout": 2, "colour": "red", "tensors": {"w": entry, "v": {"crc32": crc32(b"", "F32", 0), "x": 0}}}
    )
    metadata = {"lnsnum": text, "lnsnum_crc32": f"{zlib.crc32(text.encode()):08x}", "format": "pt"}
    tensors = {
        "v": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
        "w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
    }
    path = file(container({"__metadata__": metadata, **tensors}, data))
    assert same(load_weights(path)["w"], LNSTensor.from_codes([5], lns8f3, log_offset=4))
    assert load_metadata(path) == {}


def test_tensors_of_many_dimensions(tmp_path):
    """NumPy has up to 64, and its broadcast_shapes only 32."""
    for shape, channels in (((1,) * 40 + (3,), (3,)), ((2,) + (1,) * 63, (2,) + (1,) * 63)):
        tensor = LNSTensor(np.zeros(shape, np.uint8), lns6f2, log_offset=np.arange(np.prod(channels)).reshape(channels))
        save_weights(tmp_path / "w", {"w": tensor}, packed=True)
        assert same(load_weights(tmp_path / "w")["w"], tensor)


def test_files_of_layout_1_are_read(file):
    """They have no checksums, and no entries for plain tensors; damage to codes shows only where they do not fit."""
    entry = {"layout": 1, "metadata": {"a": "b"}, "tensors": {"w": {"format": "lns6f2", "log_offset": 4}}}
    tensors = [("w", "U8", [3], b"\1\2\3"), ("v", "I8", [1], b"\xff")]
    path = file(weight_file(entry, *tensors))
    loaded = load_weights(path)
    assert same(loaded["w"], LNSTensor.from_codes([1, 2, 3], lns6f2, log_offset=4))
    assert same(loaded["v"], np.int8([-1]))
    assert load_metadata(path) == {"a": "b"}
    path = file(weight_file(entry, ("w", "U8", [3], b"\1\2\x40"), tensors[1]))
    assert refusal(path) == f"{path}: tensor 'w': code 64 at index (2,) is outside lns6f2: its codes are 0 to 63"


@pytest.mark.parametrize("packed", [False, True])
def test_every_changed_bit_is_noticed(tmp_path, packed):
    """In the data, the names, types, shapes, formats, scales and metadata of a file."""
    weights = {
        "w": LNSTensor(
            np.arange(10, dtype=np.uint8).reshape(5, 2), lns6f2, log_offset=np.array([[1], [2], [3], [4], [5]])
        ),
        "v": LNSTensor.from_codes([[1, 2], [3, 4]], lns16f10, log_offset=-7),
        "b": np.float32([1, -2]),
    }
    save_weights(tmp_path / "w", weights, metadata={"model": "small"}, packed=packed)
    content = (tmp_path / "w").read_bytes()
    changed = tmp_path / "changed"
    for at in range(len(content)):
        changed.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        refusal(changed)


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(file, name):
    path = file(DAMAGED[name])
    for read in (load_weights, load_metadata):
        assert refusal(path, read).startswith(f"{path} is damaged or no safetensors file: ")


@pytest.mark.parametrize("size", [-10, -1, 1, 2])
def test_how_much_is_missing_is_said(file, size):
    content = weight_file(NOTHING, ("w", "U8", [30], bytes(30)))
    content = content[:size] if size < 0 else content + bytes(size)
    where = "is damaged or no safetensors file"
    for read in (load_weights, load_metadata):
        path = file(content)
        assert refusal(path, read) == f"{path} {where}: its header tells of 30 bytes of data, and there are {30 + size}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PK\3\4 a zip archive", "a zip archive, as PyTorch's .pt and NumPy's .npz are, and no weight file"),
        (b"\x93NUMPY\1\0v\0{'descr'", "an .npy file, and no weight file (lnsnum convert makes one of it)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, not the file that it stands for"),
    ],
)
def test_files_that_are_given_by_mistake(file, content, sentence):
    path = file(content)
    assert refusal(path).startswith(f"{path}: {sentence}")


@pytest.mark.parametrize("cut", range(0, len(GOOD), 7))
def test_every_cut(file, cut):
    refusal(file(GOOD[:cut]))


@pytest.mark.parametrize("name", UNREADABLE)
def test_tensors_that_numpy_cannot_hold(file, name):
    for content in (
        weight_file(entry_for_w(), ("w", "U8", [3], b"\1\2\3"), ("v", *UNREADABLE[name])),
        weight_file(entry_for_w(), ("w", *UNREADABLE[name])),
    ):
        path = file(content)
        assert refusal(path).startswith(str(path))


def test_json_of_very_many_parts_is_refused_before_it_is_parsed(file, monkeypatch):
    """Empty lists take thirty times the bytes that they have in a file."""
    entry = {"layout": 2, "metadata": {}, "tensors": {"w": {}}, "more": [[]] * 100}
    path = file(weight_file(entry))
    assert list(load_weights(path)) == ["w"]
    monkeypatch.setattr(headers, "MOST_PARTS", 50)
    with pytest.raises(WeightFileError, match="its header has more than 50 lists and objects"):
        load_weights(path)
    path = file(container({f"{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(20)}))
    with pytest.raises(WeightFileError, match="its header has more than 50 lists and objects"):
        load_weights(path)


@pytest.mark.parametrize("place", ["fit", "state"])
def test_a_number_that_no_json_can_write_again_is_refused(file, place):
    """1e999 would be read as infinity, and a scale's rule or an optimizer's state could not be saved once more."""
    entry = entry_for_w() | {"layout": 3, "optimizer": {"state": {"lr": 1.5}, "tensors": {}}}
    entry["tensors"]["w"] |= {"fit": {"rule": "rms", "p_scale": 2.5}, "crc32": crc32(b"\1\2\3", "U8", 3)}
    text = json.dumps(entry)
    for number, is_read in (("1e308", True), ("1e309", False), ("-1e999", False)):
        damaged = text.replace("2.5" if place == "fit" else "1.5", number)
        metadata = {"lnsnum": damaged, "lnsnum_crc32": f"{zlib.crc32(damaged.encode()):08x}"}
        stored = {"w.lnsnum_codes": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}
        path = file(container({"__metadata__": metadata, **stored}, b"\1\2\3"))
        if is_read:
            assert load_optimizer(path).state == {"lr": 1e308 if place == "state" else 1.5}
        else:
            assert refusal(path).endswith("'lnsnum' is not JSON: it has a number beyond doubles")


@pytest.mark.parametrize("place", ["layout", "log_offset"])
def test_nesting_up_to_any_limit(file, place):
    """What JSON still reads is too deep for repr at some point: around the interpreter's limit, each depth is tried."""
    limit = sys.getrecursionlimit()
    for levels in (1, 10, limit // 2, *range(limit - 150, limit + 10)):
        value = deep(levels)
        entry = {
            "layout": f'{{"layout": {value}, "tensors": {{}}}}',
            "log_offset": f'{{"layout": 1, "tensors": {{"w": {{"format": "lns8f3", "log_offset": {value}}}}}}}',
        }
        refusal(file(weight_file(entry[place])))


@pytest.mark.parametrize("name", ["with space", "two\nlines", "ünïcode"])
def test_the_error_is_one_line_whatever_the_name(file, name):
    for content in (b"", weight_file(None), weight_file(entry_for_w(format="int8"))):
        assert name.split("\n")[0] in refusal(file(content, name))


def test_a_folder_is_no_file(tmp_path):
    for read in (load_weights, load_metadata):
        assert refusal(tmp_path, read) == f"{tmp_path} is a folder, not a weight file"


def test_a_missing_file_is_an_oserror(tmp_path):
    for read in (load_weights, load_metadata):
        for place in (tmp_path / "none", tmp_path / "no" / "none"):
            with pytest.raises(FileNotFoundError) as caught:
                read(place)
            assert str(place) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_the_error_is_a_value_error():
    assert issubclass(WeightFileError, ValueError)


def read_or_refused(path):
    """The weights, or none where the error is as it should be; any other error passes through."""
    with contextlib.suppress(WeightFileError):
        return load_weights(path)
    assert refusal(path).startswith(str(path))
    return {}


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.integers(0, 3), st.floats(), texts, st.just("lns8f3")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["layout", "tensors", "w", "format", "log_offset", "shape", "values"]), inner),
    ),
    max_leaves=6,
)


@st.composite
def entries(draw):
    """The right entry, with something else in one of its places."""
    place = draw(st.sampled_from(["", "layout", "tensors", "w", "format", "log_offset", "shape", "values"]))
    value = draw(json_values)
    if place == "":
        return value
    if place in ("layout", "tensors"):
        return entry_for_w() | {place: value}
    if place == "w":
        return NOTHING | {"tensors": {"w": value}}
    if place in ("shape", "values"):
        return entry_for_w(log_offset={"shape": [3], "values": [1, 2, 3]} | {place: value})
    return entry_for_w(**{place: value})


@settings(max_examples=100)
@given(entries(), st.sampled_from([BLOCK, 8]))
def test_any_entry_is_read_or_refused(entry, block):
    with folder() as here, pytest.MonkeyPatch.context() as patch:
        patch.setattr(single_file, "BLOCK", block)
        path = here / "w"
        path.write_bytes(weight_file(entry))
        assert list(read_or_refused(path)) in (["w"], [])


@settings(max_examples=150)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=3), st.sampled_from([BLOCK, 8]))
def test_any_damage_is_read_or_refused(at, damage, block):
    with folder() as here, pytest.MonkeyPatch.context() as patch:
        patch.setattr(single_file, "BLOCK", block)
        path = here / "w"
        path.write_bytes((GOOD[:at] + damage + GOOD[at + len(damage) :])[: len(GOOD)])
        read_or_refused(path)
