"""lnsnum's reader, lnsnum.h and the page's read and refuse the same files: all names and all fields of small ones."""

import itertools
import json

import numpy as np
import pytest
from handmade_files import array, lns, make, plain
from readers import lines_of

from lnsnum import LNSTensor, lns8f5
from lnsnum.weight_file import (
    OptimizerState,
    WeightFileError,
    load_metadata,
    load_optimizer,
    load_weights,
    save_weights,
)


@pytest.fixture
def verdict(reader_in_c, read_page, tmp_path):
    """How a file of a layout is refused, "" where it is read: all readers must agree, and on what is in it too."""
    path = tmp_path / "w"

    def ask(content, layout):
        path.write_bytes(content)
        in_c, refused_in_c = reader_in_c.read(content)
        try:
            weights, refused = load_weights(path), ""
            load_optimizer(path)
        except WeightFileError as error:
            weights, refused = {}, str(error)
        assert bool(refused) == bool(refused_in_c), f"{content!r}\nPython: {refused}\nC: {refused_in_c}"
        if not refused:
            assert in_c == lines_of(weights, load_metadata(path), content)
        if layout == 3:
            try:
                by_page, refused_by_page = read_page(content), ""
            except ValueError as error:
                by_page, refused_by_page = {}, str(error) or "no sentence"
            assert bool(refused) == bool(refused_by_page), f"{content!r}\nPython: {refused}\npage: {refused_by_page}"
            codes = {name: value.codes.reshape(-1).tolist() for name, value in weights.items() if hasattr(value, "fmt")}
            assert {name: told["codes"] for name, told in by_page.items() if "codes" in told} == codes
        return refused

    return ask


# ---------------------------------------------------------------------------------------------------------------- names

NAMES = [
    "__metadata__", "", "w", "__metadata__ ", "lnsnum", "\ud800", "\0", "w.lnsnum_codes", "w.lnsnum_offsets",
    "w.lnsnum_optimizer", "__metadata__.lnsnum_codes", ".lnsnum_codes",
]  # fmt: skip
KINDS = {
    "plain": (plain("U8", [1], b"\1"), np.uint8([1])),
    "codes": (lns([1], [1], "lns8f5"), LNSTensor.from_codes([1], lns8f5)),
    "offsets": (
        lns([1, 2], [2], "lns8f5", array([2], [5, 6])),
        LNSTensor.from_codes([1, 2], lns8f5, log_offset=np.array([5, 6])),
    ),
    "moment": (plain("U8", [1], b"\1"), np.uint8([1])),
}
"""What a tensor is, for a file by hand and for the writer."""


def parted(tensors, which):
    """(name, kind) of each -> the weights, and the tensors of an optimizer: the halves of KINDS that a caller needs."""
    weights = {name: KINDS[kind][which] for name, kind in tensors if kind != "moment"}
    return weights, {name: KINDS[kind][which] for name, kind in tensors if kind == "moment"}


def is_written(tensors, path):
    weights, moments = parted(tensors, 1)
    try:
        save_weights(path, weights, optimizer=OptimizerState({}, moments))
    except ValueError:
        return False
    return True


def by_hand(tensors, layout):
    weights, moments = parted(tensors, 0)
    return make(weights, layout=layout, optimizer=moments)


@pytest.mark.parametrize("layout", [1, 2, 3])
def test_a_name_that_the_writer_refuses_every_reader_refuses(verdict, tmp_path, layout):
    refused = set()
    for name, kind in itertools.product(NAMES, KINDS if layout == 3 else ["plain", "codes", "offsets"]):
        says = verdict(by_hand([(name, kind)], layout), layout)
        assert bool(says) == (not is_written([(name, kind)], tmp_path / "written")), (name, kind, says)
        if says:
            refused.add(name)
            assert name != "__metadata__" or "'__metadata__'" in says
    assert refused == {"__metadata__", "\ud800"}


def test_two_names_that_the_writer_refuses_every_reader_refuses(verdict, tmp_path):
    """Of layout 3, where one name may be what another tensor is stored under."""
    names = ["w", "w.lnsnum_codes", "w.lnsnum_offsets", "w.lnsnum_optimizer", "__metadata__"]
    counts = {True: 0, False: 0}
    for one, other in itertools.combinations(itertools.product(names, KINDS), 2):
        if one[0] == other[0] and "moment" not in (one[1], other[1]):
            continue  # no mapping holds both
        says = verdict(by_hand([one, other], 3), 3)
        assert bool(says) == (not is_written([one, other], tmp_path / "written")), (one, other, says)
        counts[bool(says)] += 1
    assert min(counts.values()) > 20, counts


# --------------------------------------------------------------------------------------------------------------- fields

ABSENT = object()
BYTES = plain("U8", [2], b"\1\2")


def of_fields(layout, fields):
    """A file of one tensor w of two bytes, whose entry has just these fields."""
    there = {name: value for name, value in fields.items() if value is not ABSENT}
    stored = "w.lnsnum_codes" if layout == 3 and "format" in there else "w"
    return make(
        {"w": BYTES},
        layout=layout,
        header=lambda text: text.replace('"w"', json.dumps(stored), 1),
        description=lambda text: json.dumps(json.loads(text) | {"tensors": {"w": there}}),
    )


@pytest.mark.parametrize("layout", [1, 2, 3])
def test_all_fields_of_an_entry_are_read_and_refused_alike(verdict, layout):
    """Each missing, as it should be, null or a stray; of plain numbers, codes and packed ones."""
    counts = {True: 0, False: 0}
    sound = BYTES[3]["crc32"]
    for fmt, offset, packed, crc32, more in itertools.product(
        (ABSENT, "lns6f2", "lns8f5", None),
        (ABSENT, 0, None, {}, {"crc32": sound}),
        (ABSENT, [2], [], None),
        (ABSENT, sound, None),
        ({}, {"fit": None, "group_size": 16, "axis": -1, "values": [], "shape": [], "dtype": "U8"}),
    ):
        fields = {"format": fmt, "log_offset": offset, "packed_shape": packed, "crc32": crc32}
        says = verdict(of_fields(layout, fields | more), layout)
        assert says == "" or "'w'" in says
        counts[bool(says)] += 1
    assert min(counts.values()) > 5, counts


@pytest.mark.parametrize("layout", [2, 3])
def test_all_fields_of_a_log_offset_are_read_and_refused_alike(verdict, layout):
    """An object of one layout's fields and the other's; of 32 codes of a row, which are two groups."""
    data, values = bytes(range(32)), (3).to_bytes(4, "little") * 2
    _, _, _, told = plain("U8", [32], data)
    sound = plain("I32", [2], values)[3]["crc32"]
    counts = {True: 0, False: 0}
    for crc32, size, axis, shape, numbers in itertools.product(
        (ABSENT, sound, None), (ABSENT, 16, None), (ABSENT, -1, None), (ABSENT, [], [1], None), (ABSENT, [3], None)
    ):
        fields = {"crc32": crc32, "group_size": size, "axis": axis, "shape": shape, "values": numbers}
        offset = {name: value for name, value in fields.items() if value is not ABSENT}
        entry = {**told, "format": "lns8f5", "log_offset": offset}
        parts = {"w.lnsnum_codes": plain("U8", [32], data), "w.lnsnum_offsets": plain("I32", [2], values)}
        content = make(
            parts if layout == 3 else {"w": parts["w.lnsnum_codes"]},
            layout=layout,
            description=lambda text, entry=entry: json.dumps(json.loads(text) | {"tensors": {"w": entry}}),
        )
        counts[bool(verdict(content, layout))] += 1
    assert min(counts.values()) > 5, counts


def test_all_fields_of_an_optimizers_tensor_are_read_and_refused_alike(verdict):
    """Only its checksum is looked at."""
    dtype, shape, data, told = plain("U8", [1], b"\1")
    for crc32, more in itertools.product(
        (ABSENT, told["crc32"], None), ({}, {"format": "lns8f5"}, {"log_offset": None, "packed_shape": [3]})
    ):
        entry = more if crc32 is ABSENT else {"crc32": crc32, **more}
        says = verdict(make({}, optimizer={"w": (dtype, shape, data, entry)}), 3)
        assert bool(says) == (crc32 != told["crc32"]), (entry, says)
