"""`lnsnum diff`: steps, flips and specials against Python's integers, values against NumPy, the command."""

import functools
import json
import math
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from command_line import run_command
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from lnsnum import GroupOffsets, LNSFormat, LNSTensor, arithmetic, lns4f1, lns6f2, lns8f3, lns8f5, lns16f10, lns32f23
from lnsnum.cli.tables import LONGEST, excerpts
from lnsnum.files import single as single_file
from lnsnum.format import MAX_LOG_OFFSET
from lnsnum.toolbox.difference import diff_weights
from lnsnum.toolbox.moves import STEP_BINS, MoveCount
from lnsnum.weight_file import WeightFileError, save_weights

FORMATS = [LNSFormat(3, 0), lns4f1, lns6f2, lns8f5, LNSFormat(9, 2), lns16f10, LNSFormat(17, 4), lns32f23]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(single_file, "BLOCK", 8)


run = functools.partial(run_command, command=["diff"])


def expected_moves(fmt, a, b, a_offsets, b_offsets):
    """One element after another, in Python's integers."""
    keys = ("codes", "changed", "moved", "total_steps", "drift", "greatest_steps")
    keys += ("flipped", "to_zero", "from_zero", "to_nan", "from_nan")
    out = {"elements": len(a), **dict.fromkeys(keys, 0)}
    bins = {False: [0] * STEP_BINS, True: [0] * STEP_BINS}
    half = 2 ** (fmt.bits - 1)
    for p, q, o, r in zip(a, b, a_offsets, b_offsets, strict=True):
        out["codes"] += p != q
        kinds = ["zero" if c == 0 else "nan" if c == half else c // half for c in (p, q)]
        if "zero" in kinds or "nan" in kinds:
            if kinds[0] != kinds[1]:
                out["changed"] += 1
                for direction, kind in zip(("from", "to"), kinds, strict=True):
                    if isinstance(kind, str):
                        out[f"{direction}_{kind}"] += 1
        elif kinds[0] != kinds[1]:
            out["changed"] += 1
            out["flipped"] += 1
        elif steps := (q % half + r) - (p % half + o):
            out["changed"] += 1
            out["moved"] += 1
            out["total_steps"] += abs(steps)
            out["drift"] += steps
            out["greatest_steps"] = max(out["greatest_steps"], abs(steps))
            bins[steps > 0][next(i for i in range(STEP_BINS) if abs(steps) <= 2**i)] += 1
    return out | {"shrunk": tuple(bins[False]), "grown": tuple(bins[True])}


def expected_between(a, b):
    """Of two LNSTensors of one format and shape."""
    flat = [t.codes.reshape(-1).tolist() for t in (a, b)]
    offsets = [np.broadcast_to(t.log_offset, t.shape).reshape(-1).tolist() for t in (a, b)]
    return expected_moves(a.fmt, *flat, *offsets)


# ------------------------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize("shift", [0, 1, -3, 2 * MAX_LOG_OFFSET, -2 * MAX_LOG_OFFSET])
@pytest.mark.parametrize("fmt", [LNSFormat(3, 0), lns4f1, lns6f2, lns8f5], ids=str)
def test_every_pair_of_codes_moves_as_the_definition_says(fmt, shift):
    codes = np.arange(1 << fmt.bits, dtype=fmt.dtype)
    a, b = (x.reshape(-1) for x in np.meshgrid(codes, codes))
    expected = expected_moves(fmt, a.tolist(), b.tolist(), [0] * a.size, [shift] * a.size)
    for counter, shifts in ((MoveCount(fmt, shift), None), (MoveCount(fmt, None), np.full(a.size, shift))):
        counter.add(a, b, shifts)
        assert vars(counter.result()) == expected
        assert vars(counter.result()) == expected
        assert counter.result().mean_steps == (expected["total_steps"] / max(expected["moved"], 1))


def test_steps_are_ulps_where_the_sign_stays():
    a, b = (x.reshape(-1) for x in np.meshgrid(*2 * [np.arange(1, 128, dtype=np.uint8)]))
    counter = MoveCount(lns8f5, 0)
    counter.add(a, b)
    distances = np.abs(np.asarray(arithmetic.ulp_distance(a, b, lns8f5)).astype(np.int64))
    assert counter.result().total_steps == distances.sum()
    assert counter.result().greatest_steps == distances.max()


@st.composite
def pairs(draw):
    """Two tensors of one format and shape, the second made from the first by some changes, and other scales or not."""
    fmt = draw(st.sampled_from(FORMATS))
    shape = draw(st.sampled_from([(30,), (2, 3, 5), (), (0, 3), (1,)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    edges = np.array([0, 1, fmt.max_magnitude, fmt.sign_bit, fmt.sign_bit + 1, 2 * fmt.sign_bit - 1], np.uint64)
    a, b = (rng.integers(0, 1 << fmt.bits, shape, np.uint64) for _ in range(2))
    a = np.where(rng.random(shape) < 0.4, rng.choice(edges, shape), a)
    kept = draw(st.sampled_from([0.0, 0.5, 1.0]))
    b = np.where(rng.random(shape) < kept, a, np.where(rng.random(shape) < 0.4, rng.choice(edges, shape), b))
    big = draw(st.sampled_from([3, MAX_LOG_OFFSET]))

    def offset():
        sizes = [n if draw(st.booleans()) else 1 for n in shape][draw(st.integers(0, len(shape))) :]
        return rng.integers(-big, big + 1, sizes).astype(np.int32) if sizes else int(rng.integers(-big, big + 1))

    first = offset()
    second = first if draw(st.booleans()) else offset()
    return [LNSTensor(x.astype(fmt.dtype), fmt, log_offset=o) for x, o in ((a, first), (b, second))]


@settings(max_examples=80)
@given(pairs(), st.booleans())
@example([LNSTensor.from_codes([1, 5], lns8f5, log_offset=o) for o in (3, np.array([3, 3], np.int32))], True)
@example([LNSTensor.from_codes([2, 5], lns8f5, log_offset=3), LNSTensor.from_codes([1, 4], lns8f5, log_offset=4)], True)
def test_random_pairs_differ_as_pythons_integers_say(tmp_path_factory, tensors, packed):
    folder = tmp_path_factory.mktemp("pair")
    a, b = tensors
    save_weights(folder / "a", {"w": a}, packed=packed)
    save_weights(folder / "b", {"w": b})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single_file, "BLOCK", 8)
        found = diff_weights(folder / "a", folder / "b")
    (tensor,) = found.tensors
    assert vars(tensor.moves) == expected_between(a, b)
    if a.size:
        same_scale = np.array_equal(*np.broadcast_arrays(np.asarray(a.log_offset), np.asarray(b.log_offset)))
        assert tensor.same_scale == same_scale
        assert found.same == tensor.same == (same_scale and np.array_equal(a.codes, b.codes))
    assert diff_weights(folder / "a", folder / "a").same


def test_scales_can_differ_where_no_number_does(tmp_path):
    save_weights(tmp_path / "a", {"w": LNSTensor.from_codes([10, 138, 0, 128], lns8f5, log_offset=3)})
    save_weights(tmp_path / "b", {"w": LNSTensor.from_codes([9, 137, 0, 128], lns8f5, log_offset=4)})
    found = diff_weights(tmp_path / "a", tmp_path / "b")
    (tensor,) = found.tensors
    assert (tensor.moves.codes, tensor.moves.changed, tensor.same_scale, found.same) == (2, 0, False, False)


def test_storage_is_no_difference(tmp_path):
    rng = np.random.default_rng(0)
    tensor = LNSTensor(rng.integers(0, 64, (4, 6), np.uint8), lns6f2, log_offset=5)
    each = LNSTensor(tensor.codes, lns6f2, log_offset=np.full((4, 1), 5, np.int32))
    save_weights(tmp_path / "a", {"w": tensor, "x": np.ones(9)})
    save_weights(tmp_path / "b", {"w": tensor, "x": np.ones(9)}, packed=True, max_shard_bytes=10)
    save_weights(tmp_path / "c", {"x": np.ones(9), "w": each})
    assert diff_weights(tmp_path / "a", tmp_path / "b").same
    assert diff_weights(tmp_path / "a", tmp_path / "c").same


# ------------------------------------------------------------------------------------------------------ plain, values


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ml_dtypes.bfloat16, "i8", "u8", "i4", "u2", "i1", "?"], ids=str)
def test_plain_tensors_are_compared_by_their_bits(tmp_path, dtype):
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(0)
    a = (
        rng.integers(0, 2, 40).astype(dtype)
        if dtype.kind == "b"
        else np.frombuffer(rng.bytes(40 * dtype.itemsize), dtype)
    )
    b = a.copy()
    b[::3] = b[::-3]
    if dtype.kind in "iu":
        a, b = a.copy(), b.copy()
        a[-1], b[-1] = np.iinfo(dtype).min, np.iinfo(dtype).max
    elif dtype.kind != "b":
        a, b = a.copy(), b.copy()
        a[:5], b[:5] = np.array([0.0, np.nan, 1, np.inf, np.inf]).astype(dtype), np.array([-0.0, 1, np.nan, np.inf, 1])
        a[-1], b[-1] = 0.5, 0.75
    for name, x in (("a", a), ("b", b)):
        save_weights(tmp_path / name, {"w": x})
    found = diff_weights(tmp_path / "a", tmp_path / "b")
    plain = found.tensors[0].plain
    differing = [i for i in range(40) if a[i].tobytes() != b[i].tobytes()]
    assert (plain.elements, plain.differing, found.same) == (40, len(differing), False)
    if dtype.kind in "iub":
        assert plain.greatest_absolute == max(abs(int(a[i]) - int(b[i])) for i in differing)
        assert isinstance(plain.greatest_absolute, int)
        assert (plain.to_nan, plain.from_nan) == (0, 0)
    else:
        with np.errstate(all="ignore"):
            x, y = a.astype(np.float64), b.astype(np.float64)
            distances = [d for d in np.abs(x - y)[differing] if not math.isnan(d)]
        assert plain.greatest_absolute == max(distances) == math.inf
        assert plain.to_nan == (np.isnan(y) & ~np.isnan(x)).sum() >= 1
        assert plain.from_nan == (np.isnan(x) & ~np.isnan(y)).sum() >= 1
    assert diff_weights(tmp_path / "a", tmp_path / "a").same


@pytest.mark.parametrize("kind", ["another format", "float32", "safetensors", "npz", "int16"])
def test_what_is_stored_otherwise_is_compared_as_numbers(tmp_path, kind):
    rng = np.random.default_rng(0)
    a = LNSTensor(
        rng.integers(1, 31, (6, 7)).astype(np.uint8) + np.uint8(32) * rng.integers(0, 2, (6, 7), np.uint8), lns6f2
    )
    values = np.exp2(((a.codes % 32).astype(np.float64) - 16) / 4) * np.where(a.codes >= 32, -1, 1)
    b = values * rng.normal(1, 0.1, values.shape)
    b[0, 0], b[1, 1] = 0.0, np.nan
    save_weights(tmp_path / "a", {"w": a})
    path = tmp_path / "b"
    if kind == "another format":
        tensor = LNSTensor.from_float(b, lns16f10)
        save_weights(path, {"w": tensor})
        sign, m = tensor.codes // 2**15, (tensor.codes % 2**15).astype(np.int64)
        b = np.where(m == 0, np.where(sign == 1, np.nan, 0.0), np.exp2((m - 2.0**14 + tensor.log_offset) / 1024))
        b = np.where(sign == 1, -b, b)
    elif kind == "float32":
        b = b.astype(np.float32)
        save_weights(path, {"w": b})
    elif kind == "safetensors":
        safetensors.numpy.save_file({"w": b}, path)
    elif kind == "npz":
        path = tmp_path / "b.npz"
        np.savez(path, w=b)
    else:
        b = np.nan_to_num(b * 10).astype(np.int16)
        save_weights(path, {"w": b})
    (tensor,) = diff_weights(tmp_path / "a", path).tensors
    loss, b = tensor.loss, b.astype(np.float64)
    finite = ~np.isnan(b)
    noise = ((values - b)[finite] ** 2).sum()
    assert (tensor.moves, tensor.plain, tensor.same, tensor.same_kind) == (None, None, False, False)
    assert loss.sqnr_db == pytest.approx(10 * math.log10((values[finite] ** 2).sum() / noise), rel=1e-9)
    relative = (np.abs(values - b) / np.abs(values))[finite & (b != 0)]
    assert loss.greatest_relative == pytest.approx(relative.max(), rel=1e-9)
    assert (loss.to_nan, loss.zeroed) == ((~finite).sum(), (b == 0).sum())
    assert loss.elements == 42


# ---------------------------------------------------------------------------------------------------------- the command


def two_files(folder):
    a = LNSTensor(np.uint8([[1, 2, 3, 4], [5, 0, 8, 13]]), lns4f1, log_offset=2)
    b = LNSTensor(np.uint8([[2, 2, 7, 12], [0, 1, 9, 8]]), lns4f1, log_offset=2)
    ones = np.ones((2, 3), np.float32)
    save_weights(
        folder / "a",
        {"codes": a, "same": a, "floats": ones, "shape": ones, "\x1b[31m": ones, "kind": ones},
        metadata={"k": "v", "gone": "\x1b[31m", "kept": "x"},
    )
    save_weights(
        folder / "b",
        {"codes": b, "same": a, "floats": ones * 2, "shape": ones.T, "\x9bnew": ones, "kind": ones.astype(np.float64)},
        metadata={"k": "w", "kept": "x"},
    )


def test_golden_json(tmp_path, capsys, monkeypatch):
    two_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, monkeypatch, "a", "b", "--json")
    assert (code, err) == (1, "")
    content = json.loads(out)
    codes, floats, kind, same, shape = content.pop("tensors")
    assert content == {
        "a": "a",
        "b": "b",
        "same": False,
        "only_in_a": ["\x1b[31m"],
        "only_in_b": ["\x9bnew"],
        "metadata": {"gone": {"a": "\x1b[31m", "b": None}, "k": {"a": "v", "b": "w"}},
    }
    assert codes == {
        "name": "codes",
        "same": False,
        "same_scale": True,
        "a": {"format": "lns4f1", "shape": [2, 4]},
        "b": {"format": "lns4f1", "shape": [2, 4]},
        "codes": {
            "elements": 8,
            "codes": 7,
            "changed": 7,
            "moved": 2,
            "total_steps": 5,
            "drift": 5,
            "greatest_steps": 4,
            "flipped": 1,
            "to_zero": 1,
            "from_zero": 1,
            "to_nan": 1,
            "from_nan": 1,
            "mean_steps": 2.5,
            "histogram": [
                {"steps": "1", "toward_zero": 0, "away_from_zero": 1},
                {"steps": "2", "toward_zero": 0, "away_from_zero": 0},
                {"steps": "3 .. 4", "toward_zero": 0, "away_from_zero": 1},
            ],
        },
    }
    assert floats["plain"] == {"elements": 6, "differing": 6, "greatest_absolute": 1.0, "to_nan": 0, "from_nan": 0}
    assert (kind["a"]["format"], kind["b"]["format"], kind["values"]["changed"], kind["same"]) == (
        "float32", "float64", 0, False
    )  # fmt: skip
    assert (same["same"], same["codes"]["codes"], same["codes"]["histogram"]) == (True, 0, [])
    assert shape == {
        "name": "shape",
        "same": False,
        "same_scale": True,
        "a": {"format": "float32", "shape": [2, 3]},
        "b": {"format": "float32", "shape": [3, 2]},
    }


def test_tables(tmp_path, capsys, monkeypatch):
    two_files(tmp_path)
    code, out, err = run(capsys, monkeypatch, tmp_path / "a", tmp_path / "b")
    assert (code, err) == (1, "")
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line[:1] == "│"]
    assert rows == [
        ["codes", "87.5 %", "7", "2", "2.5", "4", "1", "1", "1", "1", "1"],
        ["1", "0", "1"],
        ["2", "0", "0"],
        ["3 .. 4", "0", "1"],
        ["kind", "float32", "float64", "0", "exact", "0", "0", "0", "0", "0"],
        ["floats", "float32", "6", "6", "1", "0", "0"],
    ]
    sentences = [
        line for line in out.splitlines() if line[:1] not in "│┏┃┡└" and (": " in line or " different" in line)
    ]
    assert sentences == [
        r"only in A: '\x1b[31m'",
        r"only in B: '\x9bnew'",
        "kind: float32 in A, float64 in B",
        "shape: shape (2, 3) in A, (3, 2) in B",
        r"metadata gone: '\x1b[31m' in A, missing in B",
        "metadata k: 'v' in A, 'w' in B",
        "5 tensors in both: 4 different",
    ]
    assert all(character.isprintable() or character == "\n" for character in out)


def test_scales_that_differ_are_told(tmp_path, capsys, monkeypatch):
    for name, offset in (("a", 3), ("b", np.array([[1], [2]], np.int32))):
        save_weights(tmp_path / name, {"w": LNSTensor(np.ones((2, 2), np.uint8), lns8f5, log_offset=offset)})
    code, out, _ = run(capsys, monkeypatch, tmp_path / "a", tmp_path / "b")
    assert (code, out.splitlines()[0]) == (1, "w: log_offset 3 in A, 1 .. 2 (2) in B")


def test_exit_codes_are_those_of_diff(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two_files(tmp_path)
    assert run(capsys, monkeypatch, "a", "a") == (0, "no difference: 6 tensors\n", "")
    code, out, _ = run(capsys, monkeypatch, "a", "a", "--json")
    assert (code, json.loads(out)["same"]) == (0, True)
    assert run(capsys, monkeypatch, "a", "b", "--only", "same") == (0, "no difference: 1 tensor\n", "")
    assert run(capsys, monkeypatch, "a", "b", "--only", "flo*")[0] == 1
    assert run(capsys, monkeypatch, "a", "b", "--only", "same", "--only", "s?me") == (
        0,
        "no difference: 1 tensor\n",
        "",
    )
    code, out, _ = run(capsys, monkeypatch, "a", "b", "--only", "floats", "--only", "\x9b*", "--json")
    content = json.loads(out)
    assert (code, [tensor["name"] for tensor in content["tensors"]]) == (1, ["floats"])
    assert (content["only_in_b"], content["metadata"]) == (["\x9bnew"], {})
    for arguments, sentence in (
        (("a", "none"), "error: none: there is no such file"),
        (("none", "a"), "error: none: there is no such file"),
        ((".", "a"), "error: . is a folder, not a weight file"),
        (("a", "b", "--only", "x"), "error: a: no tensor's name matches 'x'"),
        (("a", "b", "--only", "same", "--only", "x"), "error: a: no tensor's name matches 'x'"),
    ):
        assert run(capsys, monkeypatch, *arguments) == (2, "", sentence)


def test_metadata_can_be_ignored(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        save_weights(name, {"w": np.ones(3)}, metadata={"lnsnum.convert": f"made of {name}"})
    code, out, _ = run(capsys, monkeypatch, "a", "b")
    assert (code, out.splitlines()[0]) == (1, "metadata lnsnum.convert: 'made of a' in A, 'made of b' in B")
    assert run(capsys, monkeypatch, "a", "b", "--ignore-metadata") == (0, "no difference: 1 tensor\n", "")
    assert not diff_weights("a", "b").same
    assert diff_weights("a", "b", ignore_metadata=True).same
    save_weights("c", {"w": np.zeros(3)})
    assert run(capsys, monkeypatch, "a", "c", "--ignore-metadata")[0] == 1


def test_excerpts_of_long_texts_show_where_they_differ(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    same = "0123456789" * 30
    for one, other, expected in (
        (f"{same}x{same}", f"{same}y{same}", "'...{0}x{1}...' in A, '...{0}y{1}...' in B"),
        (same, f"{same}!", "'...{0}' in A, '...{0}!' in B"),
        (f"short x{same}", f"short y{same}", "'short x{2}...' in A, 'short y{2}...' in B"),
        ("a" * 60, "a" * 59 + "b", "'{3}a' in A, '{3}b' in B"),
        ("\n", "\\n", r"'\n' in A, '\\n' in B"),
    ):
        save_weights("a", {}, metadata={"k": one})
        save_weights("b", {}, metadata={"k": other})
        _, out, _ = run(capsys, monkeypatch, "a", "b")
        parts = same[-20:], same[:36], same[:50], "a" * 59
        assert out.splitlines()[0] == "metadata k: " + expected.format(*parts)


@given(st.text(max_size=5).map(lambda text: text * 30), st.text(max_size=90), st.text(max_size=90))
@example("\u2e80" * 30, "0", "1")  # sixty columns of thirty characters
def test_excerpts_differ_where_the_texts_do(front, one, other):
    if one == other:
        return
    a, b = excerpts(front + one, front + other)
    assert a != b
    assert max(cell_len(a), cell_len(b)) <= LONGEST + len("'...'")  # marks that combine take no column
    assert (a + b).isprintable()


def test_damage_on_either_side_is_trouble(tmp_path):
    two_files(tmp_path)
    content = bytearray((tmp_path / "b").read_bytes())
    content[-1] ^= 1
    (tmp_path / "bad").write_bytes(content)
    for pair in (("a", "bad"), ("bad", "a"), ("bad", "b")):
        with pytest.raises(WeightFileError, match="bad: tensor 'same' is damaged: its checksum is"):
            diff_weights(*(tmp_path / name for name in pair))


def test_files_without_tensors_and_tensors_of_nothing(tmp_path):
    save_weights(tmp_path / "none", {})
    save_weights(tmp_path / "w", {"w": LNSTensor(np.zeros((0, 2), np.uint8), lns8f5), "x": np.zeros(0)})
    save_weights(tmp_path / "v", {"w": np.zeros((0, 2)), "x": np.zeros(0)})
    assert diff_weights(tmp_path / "none", tmp_path / "none").same
    with pytest.raises(WeightFileError, match=r"no tensor's name matches '\*'"):
        diff_weights(tmp_path / "none", tmp_path / "none", only=["*"])
    assert diff_weights(tmp_path / "w", tmp_path / "w").same
    assert [tensor.same for tensor in diff_weights(tmp_path / "w", tmp_path / "v").tensors] == [False, True]
    found = diff_weights(tmp_path / "none", tmp_path / "w")
    assert (found.only_before, found.only_after, found.same) == ((), ("w", "x"), False)


def test_torch_stays_out(tmp_path):
    two_files(tmp_path)
    code = (
        "import sys; from lnsnum import cli; sys.argv = ['lnsnum', 'diff', 'a', 'b', '--json']\n"
        "try: cli.main()\n"
        "finally: assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["same"], done.stderr) == (1, False, "")


def test_groups_are_compared_by_what_each_element_has(tmp_path, capsys, monkeypatch):
    """The same scale in groups of two sizes, or as groups and as channels, is no difference."""
    codes = np.arange(80, dtype=np.uint8).reshape(2, 40)
    scales = {
        "small": GroupOffsets([[1, 1, 2], [3, 3, 4]], 16),
        "great": GroupOffsets([[1, 2], [3, 4]], 32),
        "other": GroupOffsets([[1, 2], [3, 5]], 32),
        "even": GroupOffsets([[7, 7], [8, 8]], 32),
        "channels": np.array([[7], [8]]),
    }
    for name, scale in scales.items():
        save_weights(tmp_path / name, {"w": LNSTensor(codes, lns8f3, log_offset=scale)})
    for a, b, same in (("small", "great", True), ("great", "other", False), ("even", "channels", True)):
        (tensor,) = diff_weights(tmp_path / a, tmp_path / b).tensors
        assert tensor.same_scale == same
        assert tensor.moves.changed == (0 if same else 8)
    _, out, _ = run_command(capsys, monkeypatch, tmp_path / "great", tmp_path / "other", command=["diff"])
    assert "log_offset 1 .. 4 (4 groups of 32) in A, 1 .. 5 (4 groups of 32) in B" in out
    _, out, _ = run_command(capsys, monkeypatch, tmp_path / "small", command=["inspect"])
    assert "1 .. 4 (6 groups of 16)" in out
