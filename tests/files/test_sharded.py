"""Sets of weight files: round trips, exchange at every step, memory, and a gallery of indexes that are refused."""

import errno
import hashlib
import itertools
import json
import os
import stat
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnsnum import GroupOffsets, LNSTensor, lns6f2, lns8f3, lns8f5, lns16f10
from lnsnum.files import sharded as sharded_file
from lnsnum.files import single as single_file
from lnsnum.files.sharded import LARGEST_INDEX, plan
from lnsnum.files.single import WeightFile, blocks_of, describe_tensor
from lnsnum.weight_file import (
    Description,
    OptimizerState,
    WeightFileError,
    iterate_weights,
    load_metadata,
    load_optimizer,
    load_shapes,
    load_weights,
    save_tensors,
    save_weights,
)

READERS = [load_weights, load_shapes, load_metadata, lambda path: list(iterate_weights(path))]


def some_weights(seed=0):
    """Of 10, 20, 30, 40 and 8 bytes: with at most 50 bytes a file, three files."""
    rng = np.random.default_rng(seed)
    return {
        "a": LNSTensor(rng.integers(0, 256, 10, np.uint8), lns8f5, log_offset=-12),
        "b": LNSTensor(rng.integers(0, 2**16, (2, 5), np.uint16), lns16f10, log_offset=np.array([[3], [-4]], np.int32)),
        "c": rng.integers(0, 9, 30, np.uint8),
        "d": rng.random(10, np.float32),
        "e": np.array(seed),
    }


STORED = 108 + 8
"""Their bytes, and those of two log_offsets, which go with `b`: so it has 28."""


def same(a, b):
    if isinstance(a, LNSTensor):
        return isinstance(b, LNSTensor) and a.fmt == b.fmt and same(a.codes, b.codes) and offsets(a) == offsets(b)
    return isinstance(b, np.ndarray) and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def offsets(tensor):
    return np.asarray(tensor.log_offset).tolist()


def same_weights(ours, theirs):
    return ours.keys() == theirs.keys() and all(same(tensor, theirs[name]) for name, tensor in ours.items())


def listing(folder):
    return sorted(os.listdir(folder))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def index_for(path):
    return path.with_name(path.name + ".index.json")


# --------------------------------------------------------------------------------------------------------- round trips


@settings(max_examples=60)
@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.integers(0, 30), max_size=8),
    st.integers(1, 80),
)
@example({"a": 0, "b": 0}, 1)
@example({"b": 5, "a": 80, "c": 5}, 5)
def test_any_sizes_are_spread_and_read(sizes, most):
    weights = {name: np.arange(size, dtype=np.uint8) for name, size in sizes.items()}
    with tempfile.TemporaryDirectory() as folder:
        written = save_weights(Path(folder, "w.safetensors"), weights, metadata={"k": "v"}, max_shard_bytes=most)
        for path in (written, Path(folder, "w.safetensors")):
            assert same_weights(weights, load_weights(path))
            assert load_metadata(path) == {"k": "v"}
            assert load_shapes(path) == {name: (size,) for name, size in sizes.items()}
        shards = plan(sizes, most)
        assert len(os.listdir(folder)) == (len(shards) + 1 if len(shards) > 1 else 1)


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 30)), st.integers(1, 80))
def test_a_plan_takes_all_and_keeps_the_limit(sizes, most):
    shards = plan(sizes, most)
    assert [name for shard in shards for name in shard] == sorted(sizes)
    assert all(len(shard) == 1 or sum(sizes[name] for name in shard) <= most for shard in shards)
    for shard, after in itertools.pairwise(shards):
        assert sum(sizes[name] for name in shard) + sizes[after[0]] > most


def test_what_is_on_disk(tmp_path):
    """Hugging Face's layout, and shards that are weight files by themselves."""
    weights = some_weights()
    index = save_weights(tmp_path / "model.safetensors", weights, metadata={"by": "me"}, max_shard_bytes=50)
    assert index == tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    assert content["metadata"] == {"total_size": STORED}
    files = sorted(set(content["weight_map"].values()), key=lambda name: name[-26:])
    assert listing(tmp_path) == sorted([index.name, *files])
    places = {name: files.index(file) for name, file in content["weight_map"].items()}
    b = {"b.lnsnum_codes": 0, "b.lnsnum_offsets": 0}
    assert places == {"a.lnsnum_codes": 0, **b, "c": 1, "d": 2, "e": 2}
    for number, file in enumerate(files, 1):
        digest = hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()[:16]
        assert file == f"model-{digest}-{number:05}-of-00003.safetensors"
        part = load_weights(tmp_path / file)
        assert same_weights({name: t for name, t in weights.items() if name in part}, part)
        assert load_metadata(tmp_path / file) == {"by": "me"}
        stored = {name for name, where in content["weight_map"].items() if where == file}
        assert safetensors.numpy.load_file(tmp_path / file).keys() == stored
        assert {name.split(".")[0] for name in stored} == part.keys()


def test_the_index_byte_for_byte(tmp_path):
    """As docs/weight_file.md shows it."""
    index = save_weights(tmp_path / "w", {"b": np.uint8([1, 2]), "a": np.uint8([3])}, max_shard_bytes=2)
    one, two = sorted((name for name in listing(tmp_path) if name != index.name), key=lambda name: name[-14:])
    expected = (
        '{\n  "metadata": {\n    "total_size": 3\n  },\n  "weight_map": {\n'
        f'    "a": "{one}",\n    "b": "{two}"\n  }}\n}}\n'
    )
    assert index.read_text() == expected
    assert one.startswith("w-")
    assert one.endswith("-00001-of-00002")


def test_the_same_weights_give_the_same_files(tmp_path):
    for place, weights in (("1", some_weights()), ("2", dict(reversed(some_weights().items())))):
        (tmp_path / place).mkdir()
        save_weights(tmp_path / place / "w.safetensors", weights, max_shard_bytes=50)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


@pytest.mark.parametrize(
    ("most", "is_set"), [(None, False), (STORED, False), (STORED - 1, True), (1, True), (10**30, False)]
)
def test_a_set_only_where_one_file_would_be_too_large(tmp_path, most, is_set):
    path = tmp_path / "w.safetensors"
    written = save_weights(path, some_weights(), max_shard_bytes=most)
    assert written == (index_for(path) if is_set else path)
    assert (listing(tmp_path) == ["w.safetensors"]) != is_set


def test_one_tensor_is_one_file_however_large(tmp_path):
    assert save_weights(tmp_path / "w", {"a": np.zeros(9)}, max_shard_bytes=1) == tmp_path / "w"
    assert listing(tmp_path) == ["w"]


@pytest.mark.parametrize("most", [0, -1, True, 1.0, "5GB"])
def test_sizes_that_are_none(tmp_path, most):
    with pytest.raises(
        ValueError, match=r"^max_shard_bytes=.* is no size: give a number of bytes, at least 1, or None$"
    ):
        save_weights(tmp_path / "w", some_weights(), max_shard_bytes=most)
    assert listing(tmp_path) == []


def test_names_under_which_no_set_can_be(tmp_path):
    for most in (None, 50):
        with pytest.raises(ValueError, match=r"w\.index\.json is the name of an index: give that of the file, without"):
            save_weights(tmp_path / "w.index.json", some_weights(), max_shard_bytes=most)
    if os.name != "nt":
        with pytest.raises(ValueError, match=r"^'a:b' cannot name a set of files: take no .* and no : in it$"):
            save_weights(tmp_path / "a:b", some_weights(), max_shard_bytes=50)
    assert listing(tmp_path) == []


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert save_weights("w", some_weights(), max_shard_bytes=50) == Path("w.index.json")
    for path in ("w", "w.index.json", Path("w")):
        assert same_weights(some_weights(), load_weights(path))


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_links_are_followed(tmp_path):
    """A set behind a link is where the link points; and a set all of whose files are links elsewhere can be read."""
    for place in ("links", "files"):
        (tmp_path / place).mkdir()
    (tmp_path / "links" / "latest").symlink_to("../files/v1")
    written = save_weights(tmp_path / "links" / "latest", some_weights(), max_shard_bytes=50)
    assert written == tmp_path / "files" / "v1.index.json"
    assert listing(tmp_path / "links") == ["latest"]
    assert "v1.index.json" in listing(tmp_path / "files")
    assert same_weights(some_weights(), load_weights(tmp_path / "links" / "latest"))
    (tmp_path / "cache").mkdir()
    for number, path in enumerate((tmp_path / "files").iterdir()):
        blob = path.rename(tmp_path / f"blob{number}")
        (tmp_path / "cache" / path.name).symlink_to(blob)
    assert same_weights(some_weights(), load_weights(tmp_path / "cache" / "v1"))


# ----------------------------------------------------------------------------------------------------------- exchanging


OLD, NEW = some_weights(1), {**some_weights(1), "d": np.zeros(3)}
"""They share a shard."""


def watch(monkeypatch, look):
    """Call `look` before and after each rename and each deletion."""

    def watched(function):
        def call(*args, **kwargs):
            look()
            result = function(*args, **kwargs)
            look()
            return result

        return call

    monkeypatch.setattr(os, "replace", watched(os.replace))
    monkeypatch.setattr(Path, "unlink", watched(Path.unlink))


@pytest.mark.parametrize("before", [None, 50])
@pytest.mark.parametrize("after", [None, 50])
def test_the_old_or_the_new_is_there_at_every_step(tmp_path, monkeypatch, before, after):
    path = tmp_path / "w.safetensors"
    save_weights(path, OLD, max_shard_bytes=before)
    seen = []
    with monkeypatch.context() as patch:
        watch(patch, lambda: seen.append(load_weights(path)))
        save_weights(path, NEW, max_shard_bytes=after)
    states = ["old" if same_weights(OLD, weights) else same_weights(NEW, weights) and "new" for weights in seen]
    assert states == sorted(states, key=["old", "new"].index)
    assert set(states) == {"old", "new"}
    (tmp_path / "alone").mkdir()
    save_weights(tmp_path / "alone" / path.name, NEW, max_shard_bytes=after)
    (tmp_path / "alone").rename(tmp_path.with_name(f"{tmp_path.name} alone"))
    assert contents(tmp_path) == contents(tmp_path.with_name(f"{tmp_path.name} alone"))


def failing_at(call, function, error):
    """The function, which raises the error when it is called for the n-th time."""
    calls = itertools.count(1)

    def fail(*args, **kwargs):
        if next(calls) == call:
            raise error
        return function(*args, **kwargs)

    return fail


@pytest.mark.parametrize("before", [None, 50, 20])
@pytest.mark.parametrize("function", ["replace", "fsync", "chmod"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_save_that_fails_leaves_no_trace(tmp_path, monkeypatch, before, function, error):
    """It fails at the first, the second, ... call of a function of the system, until there is none left to fail."""
    path = tmp_path / "w.safetensors"
    save_weights(path, OLD, max_shard_bytes=before)
    old = contents(tmp_path)
    for call in itertools.count(1):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, failing_at(call, getattr(os, function), error))
            try:
                save_weights(path, NEW, max_shard_bytes=50)
                break
            except type(error):
                pass
        if contents(tmp_path) != old:  # the index was renamed, and the folder could not be flushed: the new set stays
            assert function == "fsync"
            break
    assert call > 4
    assert same_weights(NEW, load_weights(index_for(path)))


def test_a_tensor_that_cannot_be_made_leaves_no_trace(tmp_path):
    path = tmp_path / "w"
    save_weights(path, OLD, max_shard_bytes=50)
    old = contents(tmp_path)

    def blocks(name):
        return ["nothing of the kind"] if name == "e" else blocks_of(NEW[name])

    with pytest.raises(TypeError, match="a block of tensor 'e' is a str"):
        save_tensors(
            path, {name: describe_tensor(name, tensor) for name, tensor in NEW.items()}, blocks, max_shard_bytes=50
        )
    assert contents(tmp_path) == old


def test_a_damaged_shard_is_mended_by_saving_again(tmp_path):
    save_weights(tmp_path / "w", OLD, max_shard_bytes=50)
    good = contents(tmp_path)
    next(tmp_path.glob("w-*")).write_bytes(b"")
    save_weights(tmp_path / "w", OLD, max_shard_bytes=50)
    assert contents(tmp_path) == good


def test_only_shards_that_we_named_are_deleted(tmp_path):
    """An index is untrusted: what it names may be anybody's."""
    path = tmp_path / "w.safetensors"
    save_weights(path, OLD, max_shard_bytes=50)
    index = index_for(path)
    content = json.loads(index.read_text())
    strangers = ["thesis.pdf", "w-00001-of-00002.safetensors", f"v-{'0' * 16}-00001-of-00002.safetensors", "w-x"]
    strangers.append(f"w-{'0' * 16}-00001-of-00002")
    for name in strangers:
        (tmp_path / name).write_bytes(b"")
        content["weight_map"][name] = name
    index.write_text(json.dumps(content))
    before = listing(tmp_path)
    save_weights(path, {"one": np.zeros(1)})  # not our set: it stays
    assert listing(tmp_path) == sorted([path.name, *before])
    save_weights(path, some_weights(2), max_shard_bytes=50)
    assert set(strangers) < set(listing(tmp_path))
    assert len(listing(tmp_path)) == len(strangers) + 4
    assert same_weights(some_weights(2), load_weights(path))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"weight_map": {"a": "../w"}}'])
@pytest.mark.parametrize("most", [None, 50])
def test_an_index_that_is_none_is_in_nobody_s_way(tmp_path, content, most):
    index_for(tmp_path / "w").write_bytes(content)
    save_weights(tmp_path / "w", NEW, max_shard_bytes=most)
    assert same_weights(NEW, load_weights(tmp_path / "w"))


def test_neighbours_share_no_shard(tmp_path):
    for name in ("w", "w.safetensors"):
        save_weights(tmp_path / name, OLD, max_shard_bytes=50)
    save_weights(tmp_path / "w", NEW)
    assert same_weights(OLD, load_weights(tmp_path / "w.safetensors"))
    assert same_weights(NEW, load_weights(tmp_path / "w"))


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("before", [None, 50])
@pytest.mark.parametrize("after", [None, 50])
def test_what_was_private_stays_private(tmp_path, before, after):
    save_weights(tmp_path / "w", OLD, max_shard_bytes=before)
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    save_weights(tmp_path / "w", NEW, max_shard_bytes=after)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


# --------------------------------------------------------------------------------------------------------------- memory


class Census:
    """How many arrays that went through `count` are alive."""

    def __init__(self):
        self.alive = self.most = 0

    def count(self, array):
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(array, self._died)
        return array

    def _died(self):
        self.alive -= 1


@pytest.mark.parametrize("most", [None, 50])
def test_iterating_has_one_tensor_in_memory(tmp_path, monkeypatch, most):
    written = save_weights(tmp_path / "w", some_weights(), max_shard_bytes=most)
    census, original = Census(), WeightFile._empty
    monkeypatch.setattr(WeightFile, "_empty", lambda self, stored: census.count(original(self, stored)))
    names = []
    for name, tensor in iterate_weights(written):
        names.append(name)
        del tensor
        assert census.alive == 0
    assert sorted(names) == sorted(some_weights())
    assert census.most == 1


def test_writing_has_two_blocks_in_memory(tmp_path):
    census = Census()

    def blocks(name):
        yield census.count(np.zeros(6, np.uint8))
        yield census.count(np.zeros(4, np.uint8))

    save_tensors(tmp_path / "w", dict.fromkeys("abcdefgh", Description((10,), "uint8")), blocks, max_shard_bytes=20)
    assert census.most == 2  # one that is made while the writer still holds the one before
    assert len(listing(tmp_path)) == 5


def test_an_iteration_given_up_closes_the_files(tmp_path):
    iteration = iterate_weights(save_weights(tmp_path / "w", some_weights(), max_shard_bytes=50))
    next(iteration)
    iteration.close()
    with pytest.raises(StopIteration):
        next(iteration)


@pytest.mark.skipif(os.name == "nt", reason="open files cannot be deleted there")
@pytest.mark.parametrize("before", [None, 50])
@pytest.mark.parametrize("after", [None, 50])
@pytest.mark.parametrize("opened", [0, 1, 2])
def test_a_set_that_is_replaced_while_it_is_opened(tmp_path, monkeypatch, before, after, opened):
    """The reader has the old one or the new one, whole, at whichever file the writer comes in between."""
    path = tmp_path / "w"
    save_weights(path, OLD, max_shard_bytes=before)
    original, paths = sharded_file.open_file, []

    def open_file(name):
        paths.append(name)
        if len(paths) == opened + 1:
            save_weights(path, NEW, max_shard_bytes=after)
        return original(name)

    monkeypatch.setattr(sharded_file, "open_file", open_file)
    loaded = load_weights(path)
    assert same_weights(OLD, loaded) or same_weights(NEW, loaded)
    assert same_weights(NEW, load_weights(path)) == (len(paths) > opened)


@pytest.mark.skipif(os.name == "nt", reason="open files cannot be deleted there")
@pytest.mark.parametrize("block", [single_file.BLOCK, 8])
def test_a_set_that_is_replaced_while_it_is_read(tmp_path, monkeypatch, block):
    monkeypatch.setattr(single_file, "BLOCK", block)
    save_weights(tmp_path / "w", OLD, max_shard_bytes=50)
    iteration = iterate_weights(tmp_path / "w")
    first = next(iteration)
    save_weights(tmp_path / "w", some_weights(5), max_shard_bytes=50)
    assert same_weights(OLD, dict([first, *iteration]))


# --------------------------------------------------------------------------------------------------------- the gallery


def mapped(**weight_map):
    return {"weight_map": {"a": "one", "b": "two", **weight_map}}


def no_plain(file, name="b"):
    return f"the file {file!r} of {name!r} is no plain name of a file in the index's folder"


NO_MAP = "the index has no weight_map from names of tensors to names of files"

GALLERY = {
    "nothing": (b"", "the index is not JSON"),
    "text": (b"one two", "the index is not JSON"),
    "half": (b'{"weight_map": {"a": "one"', "the index is not JSON"),
    "more": (b'{"weight_map": {"a": "one"}} x', "the index is not JSON"),
    "no UTF-8": (b'{"weight_map": {"\xff": "one"}}', "the index is not JSON: it is no UTF-8"),
    "UTF-16": ('{"weight_map": {"a": "one"}}'.encode("utf-16"), "the index is not JSON: it is no UTF-8"),
    "deep": (b"[" * 100_000, "the index is not JSON"),
    "list": ([1], "the index is no JSON object"),
    "null": (None, "the index is no JSON object"),
    "no map": ({"metadata": {"total_size": 3}}, NO_MAP),
    "map a list": ({"weight_map": ["one"]}, NO_MAP),
    "map of numbers": (mapped(b=2), NO_MAP),
    "map of nothing": (mapped(b=None), NO_MAP),
    "map of lists": (mapped(b=["two"]), NO_MAP),
    "empty map": ({"weight_map": {}}, "the index names no tensor"),
    "tensor twice": (
        b'{"weight_map": {"a": "one", "b": "two", "a": "two"}}',
        "the index is not JSON: a name occurs twice in one object",
    ),
    "map twice": (
        b'{"weight_map": {"a": "one"}, "weight_map": {"a": "one", "b": "two"}}',
        "the index is not JSON: a name occurs twice in one object",
    ),
    "folder above": (mapped(b="../two"), no_plain("../two")),
    "folder above, up": (mapped(b=".."), no_plain("..")),
    "the folder": (mapped(b="."), no_plain(".")),
    "no name": (mapped(b=""), no_plain("")),
    "folder below": (mapped(b="sub/two"), no_plain("sub/two")),
    "a slash behind": (mapped(b="two/"), no_plain("two/")),
    "a slash before": (mapped(b="/two"), no_plain("/two")),
    "a dot and a slash": (mapped(b="./two"), no_plain("./two")),
    "absolute": (mapped(b="/etc/passwd"), no_plain("/etc/passwd")),
    "backslash": (mapped(b="..\\two"), no_plain("..\\two")),
    "drive": (mapped(b="C:two"), no_plain("C:two")),
    "absolute on Windows": (mapped(b="C:\\two"), no_plain("C:\\two")),
    "share": (mapped(b="\\\\host\\share\\two"), no_plain("\\\\host\\share\\two")),
    "stream": (mapped(b="two:stream"), no_plain("two:stream")),
    "NUL": (mapped(b="two\0"), no_plain("two\0")),
    "surrogate": (mapped(b="\ud800"), "the index has a string that is no Unicode"),
    "shard missing": (mapped(b="three"), "its shard 'three' is not there"),
    "shard of a long name": (mapped(b="x" * 300), f"its shard '{'x' * 300}' is not there"),
    "shard a folder": (mapped(b="sub"), "its shard 'sub' is not there"),
    "shard of two lines": (mapped(b="x\ny"), "its shard 'x\\ny' is not there"),
    "tensor missing": (mapped(c="two"), "its shard 'two' lacks the tensor 'c'"),
    "tensors missing": (mapped(c="two", d="two"), "its shard 'two' lacks the tensor 'c' and 1 more"),
    "tensors exchanged": (mapped(a="two", b="one"), "its shard 'one' lacks the tensor 'b'"),
    "tensor of two lines": (mapped(**{"c\n": "two"}), "its shard 'two' lacks the tensor 'c\\n'"),
    "tensor not named": (
        {"weight_map": {"a": "one", "b": "three tensors"}},
        "its shard 'three tensors' holds 'c' and 1 more, which the index does not put there",
    ),
    "tensor in two shards": (
        {"weight_map": {"a": "one", "b": "three tensors", "c": "three tensors", "d": "two"}},
        "its shard 'three tensors' holds 'd', which the index does not put there",
    ),
}
"""By name: the index, and what the error says after its name."""

IN_A_SHARD = {
    "no weight file": ("foreign", "a safetensors file, but no LNS weight file: its metadata has no entry 'lnsnum'"),
    "damaged": ("damaged", " is damaged or no safetensors file: "),
    "the index itself": ("w.index.json", " is damaged or no safetensors file: "),
}


@pytest.fixture
def place(tmp_path):
    """A folder of shards, and a secret beside it."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "two", folder / "sub" / "two", tmp_path / "two"):
        save_weights(path, {"b": np.uint8([1, 2])}, metadata={"k": "v"})
    save_weights(folder / "one", {"a": np.zeros(3)}, metadata={"k": "v"})
    save_weights(folder / "three tensors", {name: np.zeros(1) for name in "bcd"}, metadata={"k": "v"})
    safetensors.numpy.save_file({"b": np.zeros(1)}, folder / "foreign")
    (folder / "damaged").write_bytes((folder / "two").read_bytes()[:-1])
    return folder


def write_index(place, content):
    index = place / "w.index.json"
    index.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return index


def refusal(path, read):
    with pytest.raises(WeightFileError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_gallery_hangs_straight(place):
    """Each picture differs from this index, which loads; what the specification does not name is ignored."""
    index = write_index(place, {**mapped(), "metadata": {"total_size": "?"}, "colour": "red"})
    for path in (index, place / "w", str(index)):
        assert load_shapes(path) == {"a": (3,), "b": (2,)}
        assert load_metadata(path) == {"k": "v"}


@pytest.mark.parametrize("name", GALLERY)
def test_what_is_wrong_is_said(place, name):
    content, sentence = GALLERY[name]
    index = write_index(place, content)
    for path in (index, place / "w"):
        for read in READERS:
            assert refusal(path, read) == f"{index}: {sentence}"


@pytest.mark.parametrize("name", IN_A_SHARD)
def test_a_shard_that_is_refused_is_named(place, name):
    shard, sentence = IN_A_SHARD[name]
    index = write_index(place, mapped(b=shard))
    for read in READERS:
        text = refusal(index, read)
        assert text.startswith(str(place / shard))
        assert sentence in text


def test_data_that_are_refused_are_those_of_their_shard(place):
    header = json.dumps({"layout": 1, "tensors": {"b": {"format": "lns6f2", "log_offset": 0}}})
    safetensors.numpy.save_file({"b": np.array([64], np.uint8)}, place / "bad", metadata={"lnsnum": header})
    index = write_index(place, {"weight_map": {"a": "one", "b": "bad"}})
    expected = f"{place / 'bad'}: tensor 'b': code 64 at index (0,) is outside {lns6f2.name}: its codes are 0 to 63"
    assert refusal(index, load_weights) == expected


def test_metadata_that_differ(place):
    save_weights(place / "other", {"b": np.zeros(1)}, metadata={"k": "w"})
    index = write_index(place, mapped(b="other"))
    assert refusal(index, load_metadata) == f"{index}: the metadata of its shards differ"


def test_an_index_that_is_too_large(place):
    text = json.dumps(mapped()).encode()
    assert load_shapes(write_index(place, text.ljust(LARGEST_INDEX))).keys() == {"a", "b"}
    index = write_index(place, text.ljust(LARGEST_INDEX + 1))
    assert refusal(index, load_weights) == f"{index}: an index of more than {LARGEST_INDEX} bytes"


def test_indexes_that_are_no_files(place):
    (place / "v.index.json").mkdir()
    for path in (place / "v.index.json", place / "v"):
        assert refusal(path, load_weights) == f"{place / 'v.index.json'} is a folder, not a weight file"
    with pytest.raises(FileNotFoundError):
        load_weights(place / "nothing.index.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_pipes_are_not_waited_for(place):
    os.mkfifo(place / "pipe")
    os.mkfifo(place / "v.index.json")
    index = write_index(place, mapped(b="pipe"))
    assert refusal(index, load_weights) == f"{index}: its shard 'pipe' is not there"
    assert refusal(place / "v", load_weights) == f"{place / 'v.index.json'} is no regular file"


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.sampled_from(["one", ".."])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["weight_map", "metadata", "a", "b", "c"]), inner, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=150)
@given(json_values, st.sampled_from(["all", "weight_map", "a", "b"]))
def test_any_index_is_read_or_refused(value, where):
    content = {
        "all": value,
        "weight_map": {"weight_map": value},
        "a": {"weight_map": {"a": value}},
        "b": mapped(b=value),
    }[where]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_weights(folder / "one", {"a": np.zeros(3)})
        save_weights(folder / "two", {"b": np.zeros(3)})
        index = write_index(folder, content)
        try:
            assert set(load_weights(index)) <= {"a", "b"}
        except WeightFileError as error:
            assert str(error).startswith(str(index))  # noqa: PT017


# ------------------------------------------------------------------------------------------ layout 3, and two layouts


def test_groups_and_an_optimizer_go_into_a_set(tmp_path):
    scale = GroupOffsets(np.arange(6).reshape(2, 3), 16)
    weights = {**some_weights(), "g": LNSTensor(np.zeros((2, 40), np.uint8), lns8f5, log_offset=scale)}
    moments = {name: np.arange(9, dtype=np.uint8) for name in ("b", "g", "g.r", "z")}
    optimizer = OptimizerState({"step": 3}, moments)
    index = save_weights(tmp_path / "w", weights, max_shard_bytes=60, optimizer=optimizer)
    places = json.loads(index.read_text())["weight_map"]
    assert places["g.lnsnum_codes"] == places["g.lnsnum_offsets"]
    assert len({places[f"{name}.lnsnum_optimizer"] for name in moments}) > 1
    loaded = load_weights(index)
    assert loaded["g"].log_offset == scale
    assert same_weights({name: weights[name] for name in "abcde"}, {name: loaded[name] for name in "abcde"})
    found = load_optimizer(index)
    assert found.state == {"step": 3}
    assert same_weights(moments, found.tensors)
    sizes = [sum(len(a.tobytes()) for a in safetensors.numpy.load_file(path).values())
             for path in tmp_path.glob("w-*")]  # fmt: skip
    assert sum(sizes) == STORED + 80 + 24 + 36


def test_one_name_in_shards_of_two_layouts_is_refused(place):
    """One has it as codes, under a name of its own, another as a plain tensor or by an old layout: which is it?"""
    save_weights(place / "codes", {"b": LNSTensor.from_codes([1, 2], lns8f3)}, metadata={"k": "v"})
    index = write_index(place, {"weight_map": {"a": "one", "b": "two", "b.lnsnum_codes": "codes"}})
    assert refusal(index, load_weights) == f"{index}: two of its shards have a tensor 'b'"


def test_states_that_differ_are_refused(place):
    for number, name in enumerate("ab"):
        optimizer = OptimizerState({"step": number}, {})
        save_weights(place / name, {name: np.zeros(1)}, optimizer=optimizer)
    index = write_index(place, mapped(a="a", b="b"))
    assert load_weights(index).keys() == {"a", "b"}
    assert refusal(index, load_optimizer) == f"{index}: the optimizer's state of its shards differ"
