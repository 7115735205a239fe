"""Files that are not to change: written to the byte, and read alike by every reader there is."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from weight_file_fixtures import EVERY, FIXTURES, OF_LAYOUT_2, content_of, path_of

from lnsnum import GroupOffsets, LNSTensor
from lnsnum.files.sharded import open_files
from lnsnum.kernels.codes import each_offset
from lnsnum.toolbox.conversion import convert_file
from lnsnum.weight_file import load_metadata, load_optimizer, load_weights, save_weights

SPECIFICATION = Path(__file__).parents[2] / "docs" / "weight_file.md"


def parts(tensor):
    """All that makes a tensor, as bytes and names."""
    if not isinstance(tensor, LNSTensor):
        return tensor.dtype.name, tensor.shape, tensor.tobytes()
    offset, groups = tensor.log_offset, ()
    if isinstance(offset, GroupOffsets):
        groups = offset.group_size, offset.axis
    return tensor.fmt.name, tensor.shape, tensor.codes.tobytes(), each_offset(offset).tolist(), *groups


@pytest.mark.parametrize("name", FIXTURES)
def test_what_is_written_is_the_fixture(tmp_path, name):
    save_weights(tmp_path / "w", **FIXTURES[name])
    assert (tmp_path / "w").read_bytes() == path_of(name).read_bytes()


@pytest.mark.parametrize(("layout", "name"), EVERY)
def test_what_is_read_is_what_was_written(layout, name):
    path, told = path_of(name, layout), content_of(layout, name)
    loaded, weights = load_weights(path), told["weights"]
    assert {key: parts(tensor) for key, tensor in loaded.items()} == {key: parts(w) for key, w in weights.items()}
    assert load_metadata(path) == told.get("metadata", {})
    found, given = load_optimizer(path), told.get("optimizer")
    assert (found is None) == (given is None)
    if found is not None:
        assert found.state == given.state
        assert {key: parts(w) for key, w in found.tensors.items()} == {
            key: parts(w) for key, w in given.tensors.items()
        }


def packed_codes(stored, tensor):
    """The codes of packed bytes, as one long integer has them."""
    string, bits = int.from_bytes(stored.tobytes(), "little"), tensor.fmt.bits
    return [string >> (i * bits) & ((1 << bits) - 1) for i in range(tensor.size)]


@pytest.mark.parametrize(("layout", "name"), EVERY)
def test_safetensors_own_reader_sees_the_codes(layout, name):
    """With layout 3 under names that no model has: nobody takes codes for numbers."""
    arrays, told = safetensors.numpy.load_file(path_of(name, layout)), content_of(layout, name)
    with open_files(path_of(name, layout)) as files:
        for key, tensor in told["weights"].items():
            if not isinstance(tensor, LNSTensor):
                assert parts(arrays.pop(key)) == parts(tensor)
                continue
            stored = arrays.pop(f"{key}.lnsnum_codes" if layout == 3 else key)
            if files.describe(key).packed:
                assert stored.dtype == np.uint8
                assert packed_codes(stored, tensor) == tensor.codes.reshape(-1).tolist()
            else:
                assert parts(stored) == parts(tensor.codes)
            if layout == 3 and not isinstance(tensor.log_offset, int):
                offsets = arrays.pop(f"{key}.lnsnum_offsets")
                assert offsets.dtype == np.int32
                assert offsets.tolist() == each_offset(tensor.log_offset).tolist()
    moments = told["optimizer"].tensors if "optimizer" in told else {}
    assert {key: parts(w) for key, w in arrays.items()} == {
        f"{key}.lnsnum_optimizer": parts(w) for key, w in moments.items()
    }


@pytest.mark.parametrize("name", OF_LAYOUT_2)
def test_layout_2_becomes_layout_3_without_a_change(tmp_path, name):
    """By `lnsnum convert OLD NEW`: what is written is what would have been written of the same tensors."""
    told = OF_LAYOUT_2[name]
    convert_file(path_of(name, 2), tmp_path / "new.safetensors")
    save_weights(tmp_path / "expected", **told)
    assert (tmp_path / "new.safetensors").read_bytes() == (tmp_path / "expected").read_bytes()


def test_the_example_of_the_specification_is_one_of_them():
    with safetensors.safe_open(path_of("example"), framework="numpy") as file:
        description = json.loads(file.metadata()["lnsnum"])
    text = SPECIFICATION.read_text(encoding="utf-8")
    (example,) = re.findall(r"## The description\n.*?```json\n(.*?)```", text, flags=re.DOTALL)
    assert json.loads(example) == description
