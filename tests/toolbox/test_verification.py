"""`lnsnum verify`: sound files are good, every kind of damage is one sentence, and the rest is checked all the same."""

import functools
import json
import os
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import safetensors.numpy
from command_line import run_command

from lnsnum import LNSTensor, lns6f2, lns8f5, lns16f10
from lnsnum.files import single as single_file
from lnsnum.toolbox.verification import verify_weights
from lnsnum.weight_file import save_weights


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(single_file, "BLOCK", 8)


run = functools.partial(run_command, command=["verify"])


def some_weights():
    rng = np.random.default_rng(0)
    return {
        "a": LNSTensor(rng.integers(0, 256, (5, 6), np.uint8), lns8f5, log_offset=-12),
        "b": LNSTensor(rng.integers(0, 2**16, (2, 5), np.uint16), lns16f10, log_offset=np.array([[3], [-4]], np.int32)),
        "c": LNSTensor(rng.integers(0, 64, 21, np.uint8), lns6f2),
        "d": rng.random(10, np.float32),
        "e": np.array([True, False]),
    }


BYTES = 30 + 20 + 8 + 16 + 40 + 2
"""Of these and two log_offsets, packed: the 21 codes of 6 bits take 126 bits, and two are spare."""


def taken_apart(path):
    """The header, the description and the data of a file, by docs/weight_file.md alone."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["lnsnum"]), bytearray(content[8 + length :])


def put_together(path, header, description, data, *, repaired):
    """Write the parts; `repaired`: with checksums that fit."""
    if repaired:
        for name, entry in description["tensors"].items():
            name += ".lnsnum_codes" * ("format" in entry)
            begin, end = header[name]["data_offsets"]
            line = " ".join([header[name]["dtype"], *map(str, header[name]["shape"])]) + "\n"
            entry["crc32"] = f"{zlib.crc32(line.encode() + bytes(data[begin:end])):08x}"
    text = json.dumps(description, sort_keys=True)
    header["__metadata__"] = {"lnsnum": text, "lnsnum_crc32": f"{zlib.crc32(text.encode()):08x}"}
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(data))


def place(path, name):
    """Where in the file a tensor's data begin and end."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    begin, end = header[name if name in header else f"{name}.lnsnum_codes"]["data_offsets"]
    return 8 + length + begin, 8 + length + end


def flip(path, at, bit=0):
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


# -------------------------------------------------------------------------------------------------------------- good


@pytest.mark.parametrize("packed", [False, True])
def test_a_sound_file_is_good(tmp_path, packed):
    path = save_weights(tmp_path / "w", some_weights(), packed=packed, metadata={"k": "v"})
    told = []
    result = verify_weights(path, progress=lambda done, total: told.append((done, total)))
    size = BYTES if packed else BYTES + 5
    assert vars(result) == {
        "path": str(path), "files": 1, "layouts": (3,), "tensors": 5, "bytes": size, "without_checksum": 0,
        "problems": (),
    }  # fmt: skip
    assert result.good
    assert told[-1] == (size, path.stat().st_size)


def test_a_sound_set_is_good(tmp_path, capsys, monkeypatch):
    index = save_weights(tmp_path / "w", some_weights(), max_shard_bytes=50)
    for path in (index, tmp_path / "w"):
        result = verify_weights(path)
        assert (result.good, result.files, result.tensors, result.bytes) == (True, 3, 5, BYTES + 5)
    code, out, err = run(capsys, monkeypatch, tmp_path / "w")
    assert (code, out, err) == (0, f"{index}: good: 5 tensors, 121 bytes, 3 files, layout 3\n", "")


def test_layout_1_has_no_checksums(tmp_path, capsys, monkeypatch):
    path = save_weights(tmp_path / "w", {"w": LNSTensor.from_codes([1, 2], lns8f5), "x": np.zeros(3)})
    header, _, data = taken_apart(path)
    header["w"] = header.pop("w.lnsnum_codes")
    entries = {"w": {"format": "lns8f5", "log_offset": 0}}
    header["__metadata__"] = {"lnsnum": json.dumps({"layout": 1, "metadata": {}, "tensors": entries})}
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(data))
    code, out, err = run(capsys, monkeypatch, path)
    assert (code, err) == (0, "")
    assert out == f"{path}: good: 2 tensors, 26 bytes, layout 1, which has no checksums\n"
    assert verify_weights(path).without_checksum == 2


def test_nothing_is_a_good_file(tmp_path):
    save_weights(tmp_path / "w", {})
    assert verify_weights(tmp_path / "w").good
    save_weights(
        tmp_path / "w", {"": np.zeros((0, 3)), "x": LNSTensor(np.zeros((2, 0), np.uint8), lns6f2)}, packed=True
    )
    result = verify_weights(tmp_path / "w")
    assert (result.good, result.tensors, result.bytes) == (True, 2, 0)


# ----------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("name", list(some_weights()))
def test_every_byte_of_data_matters_and_the_others_are_checked(tmp_path, name):
    path = save_weights(tmp_path / "w", some_weights(), packed=True)
    for at in range(*place(path, name)):
        flip(path, at)
        result = verify_weights(path)
        assert (len(result.problems), result.tensors, result.bytes) == (1, 5, BYTES) or name == "e"
        assert re.match(rf".*: tensor '{name}' is (damaged: its checksum is|of bool)", result.problems[0])
        flip(path, at)
    assert verify_weights(path).good


def test_all_bad_tensors_are_listed(tmp_path, capsys, monkeypatch):
    path = save_weights(tmp_path / "w", some_weights())
    for name in ("a", "c", "d"):
        flip(path, place(path, name)[1] - 1)
    code, out, err = run(capsys, monkeypatch, path)
    first, *problems = out.splitlines()
    assert (code, err) == (1, "")
    assert first == f"{path}: 3 problems: 5 tensors, 121 bytes, layout 3"
    assert sorted(problem[: -len("0a1b2c3d, and the file says 0a1b2c3d")] for problem in problems) == [
        f"  {path}: tensor '{name}' is damaged: its checksum is " for name in "acd"
    ]


def test_codes_outside_and_spare_bits_are_found_behind_good_checksums(tmp_path):
    path = save_weights(tmp_path / "w", {"c": some_weights()["c"]})
    header, description, data = taken_apart(path)
    data[17] = 64
    put_together(path, header, description, data, repaired=True)
    assert verify_weights(path).problems == (
        f"{path}: tensor 'c': code 64 at index (17,) is outside lns6f2: its codes are 0 to 63",
    )
    path = save_weights(tmp_path / "w", {"c": some_weights()["c"]}, packed=True)
    header, description, data = taken_apart(path)
    for bit in (6, 7):
        spoilt = bytearray(data)
        spoilt[-1] |= 1 << bit
        put_together(path, header, description, spoilt, repaired=True)
        assert verify_weights(path).problems == (f"{path}: tensor 'c' has bits other than 0 after its last code",)
    put_together(path, header, description, data, repaired=True)
    assert verify_weights(path).good


def test_bad_entries_are_one_sentence_each(tmp_path):
    path = save_weights(tmp_path / "w", some_weights())
    header, description, data = taken_apart(path)
    description["tensors"]["a"]["format"] = "lns99f1"
    description["tensors"]["b"]["log_offset"]["group_size"] = 16
    description["tensors"]["d"]["crc32"] = "XYZ"
    put_together(path, header, description, data, repaired=False)
    result = verify_weights(path)
    assert [problem.removeprefix(f"{path}: ") for problem in result.problems] == [
        "the entry for 'd' has no checksum of eight hexadecimal digits",
        "tensor 'b': its log_offset has not both group_size and axis, as integers",
        "tensor 'a': bits=99 is out of range: 3 to 32",
    ]
    assert (result.tensors, result.bytes) == (5, 21 + 2)


def test_every_byte_of_the_header_matters(tmp_path):
    """But for white space, and what safetensors' readers take for the same."""
    path = save_weights(tmp_path / "w", {"w": LNSTensor.from_codes([1, 2, 3], lns6f2)}, packed=True)
    end = place(path, "w")[0]
    unseen = 0
    for at in range(end):
        flip(path, at)
        result = verify_weights(path)
        assert len(result.problems) <= 1
        unseen += result.good
        flip(path, at)
    assert unseen == 0


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, -1])
def test_a_truncated_file_is_one_problem(tmp_path, capsys, monkeypatch, keep):
    path = save_weights(tmp_path / "w", some_weights())
    path.write_bytes(path.read_bytes()[:keep])
    code, out, err = run(capsys, monkeypatch, path)
    first, second = out.splitlines()
    assert (code, err, first) == (1, "", f"{path}: 1 problem: nothing could be checked")
    assert second.startswith(f"  {path} is damaged or no safetensors file: ")


def test_other_files_are_one_problem(tmp_path):
    safetensors.numpy.save_file({"w": np.zeros(3)}, tmp_path / "plain")
    (tmp_path / "text").write_text("text")
    (tmp_path / "w.index.json").write_text("{]")
    for name, what in (
        ("plain", ": a safetensors file, but no LNS weight file: "),
        ("text", " is damaged or no safetensors file: "),
        ("w.index.json", ": the index is not JSON"),
        ("w", ".index.json: the index is not JSON"),
    ):
        result = verify_weights(tmp_path / name)
        (problem,) = result.problems
        assert problem.startswith(f"{tmp_path / name}{what}")
        assert (result.files, result.tensors, result.layouts) == (0, 0, ())


def test_a_set_with_everything_wrong(tmp_path, capsys, monkeypatch):
    index = save_weights(tmp_path / "w", some_weights(), metadata={"k": "v"}, max_shard_bytes=40)
    content = json.loads(index.read_text())
    places = content["weight_map"]
    shards = sorted(set(places.values()), key=lambda shard: shard[-14:])
    held = [[name for name in places if places[name] == shard] for shard in shards]
    codes = ".lnsnum_codes"
    assert held == [[f"a{codes}"], [f"b{codes}", "b.lnsnum_offsets"], [f"c{codes}"], ["d"], ["e"]]
    (tmp_path / places[f"b{codes}"]).unlink()
    flip(tmp_path / places[f"a{codes}"], -1)
    save_weights(tmp_path / places["d"], {"d": some_weights()["d"], "strange": np.zeros(1)}, metadata={"k": "w"})
    places["lost"] = places["d"]
    index.write_text(json.dumps(content))
    code, out, err = run(capsys, monkeypatch, index)
    first, *problems = out.splitlines()
    assert (code, err) == (1, "")
    assert first.startswith(f"{index}: {len(problems)} problems: ")
    expected = [
        rf"its shard '{places[f'b{codes}']}' is not there",
        rf"its shard '{places['d']}' lacks the tensor 'lost'",
        rf"its shard '{places['d']}' holds 'strange', which the index does not put there",
        "the metadata of its shards differ",
        "tensor 'a' is damaged: its checksum is .*",
    ]
    for pattern in expected:
        assert sum(re.fullmatch(f".*: {pattern}", problem) is not None for problem in problems) == 1, pattern


# ------------------------------------------------------------------------------------------------------- the command


def test_several_files_and_the_exit_code(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights("good", {"w": np.zeros(2)})
    bad = save_weights("bad", {"w": np.zeros(2)})
    flip(bad, -1)
    assert run(capsys, monkeypatch, "good", "good")[0] == 0
    assert run(capsys, monkeypatch, "bad", "good")[0] == 1
    code, out, err = run(capsys, monkeypatch, "none", "bad", ".", "good")
    assert (code, err) == (
        2,
        "error: none: there is no such file error: . is a folder, not a weight file",
    )
    assert [line.split(":")[:2] for line in out.splitlines()[::2]] == [["bad", " 1 problem"], ["good", " good"]]
    code, out, err = run(capsys, monkeypatch, "none", "bad", "good", "--json")
    none, damaged, good = json.loads(out)["files"]
    assert code == 2
    assert none == {"file": "none", "readable": False, "error": "none: there is no such file"}
    assert damaged["problems"][0].startswith("bad: tensor 'w' is damaged")
    assert good == {
        "file": "good", "readable": True, "good": True, "problems": [], "files": 1, "layouts": [3], "tensors": 1,
        "bytes": 16, "without_checksum": 0,
    }  # fmt: skip


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads all")
def test_what_may_not_be_read_is_trouble(tmp_path, capsys, monkeypatch):
    path = save_weights(tmp_path / "w", {})
    path.chmod(0)
    assert run(capsys, monkeypatch, path)[0] == 2


def test_pipes_are_trouble(tmp_path, capsys, monkeypatch):
    os.mkfifo(tmp_path / "p")
    assert run(capsys, monkeypatch, tmp_path / "p") == (2, "", f"error: {tmp_path / 'p'} is no regular file")


@pytest.mark.parametrize("name", ["\x1b[31mred", "\x9b31m", "a\nb", "\u202e", "../../etc", ""])
def test_names_do_not_reach_the_terminal_raw(tmp_path, capsys, monkeypatch, name):
    """From any part that tells of damage: ours, and the safetensors library."""
    path = save_weights(tmp_path / "w", {name: np.zeros(2)})
    flip(path, -1)
    code, out, _ = run(capsys, monkeypatch, path)
    header, description, data = taken_apart(path)
    header[name]["data_offsets"] = [8, 4]
    put_together(path, header, description, data, repaired=False)
    other_code, other, _ = run(capsys, monkeypatch, path)
    assert code == other_code == 1
    assert len(out.splitlines()) == len(other.splitlines()) == 2
    assert all(character.isprintable() or character == "\n" for character in out + other)


def test_torch_stays_out(tmp_path):
    save_weights(tmp_path / "w", some_weights(), packed=True)
    code = (
        "import sys; from lnsnum import cli; sys.argv = ['lnsnum', 'verify', 'w', 'none']\n"
        "try: cli.main()\n"
        "finally: assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "w: good: 5 tensors, 116 bytes, layout 3\n")
    assert done.stderr == "error: none: there is no such file\n"
