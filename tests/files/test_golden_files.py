"""Files that are not to change: written to the byte, and read alike by every reader there is."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from weight_file_fixtures import FIXTURES, path_of

from lnsnum import LNSTensor
from lnsnum.files.sharded import open_files
from lnsnum.weight_file import load_metadata, load_weights, save_weights

SPECIFICATION = Path(__file__).parents[2] / "docs" / "weight_file.md"


def parts(tensor):
    """All that makes a tensor, as bytes and names."""
    if not isinstance(tensor, LNSTensor):
        return tensor.dtype.name, tensor.shape, tensor.tobytes()
    return tensor.fmt.name, tensor.shape, tensor.codes.tobytes(), np.asarray(tensor.log_offset).tolist()


@pytest.mark.parametrize("name", FIXTURES)
def test_what_is_written_is_the_fixture(tmp_path, name):
    save_weights(tmp_path / "w", **FIXTURES[name])
    assert (tmp_path / "w").read_bytes() == path_of(name).read_bytes()


@pytest.mark.parametrize("name", FIXTURES)
def test_what_is_read_is_what_was_written(name):
    loaded, weights = load_weights(path_of(name)), FIXTURES[name]["weights"]
    assert {key: parts(tensor) for key, tensor in loaded.items()} == {key: parts(w) for key, w in weights.items()}
    assert load_metadata(path_of(name)) == FIXTURES[name].get("metadata", {})


def packed_codes(stored, tensor):
    """The codes of packed bytes, as one long integer has them."""
    string, bits = int.from_bytes(stored.tobytes(), "little"), tensor.fmt.bits
    return [string >> (i * bits) & ((1 << bits) - 1) for i in range(tensor.size)]


@pytest.mark.parametrize("name", FIXTURES)
def test_safetensors_own_reader_sees_the_codes(name):
    arrays, weights = safetensors.numpy.load_file(path_of(name)), FIXTURES[name]["weights"]
    assert arrays.keys() == weights.keys()
    with open_files(path_of(name)) as files:
        for key, tensor in weights.items():
            if not isinstance(tensor, LNSTensor):
                assert parts(arrays[key]) == parts(tensor)
            elif files.describe(key).packed:
                assert arrays[key].dtype == np.uint8
                assert packed_codes(arrays[key], tensor) == tensor.codes.reshape(-1).tolist()
            else:
                assert parts(arrays[key]) == parts(tensor.codes)


def test_the_example_of_the_specification_is_one_of_them():
    with safetensors.safe_open(path_of("example"), framework="numpy") as file:
        description = json.loads(file.metadata()["lnsnum"])
    text = SPECIFICATION.read_text(encoding="utf-8")
    (example,) = re.findall(r"## The description\n.*?```json\n(.*?)```", text, flags=re.DOTALL)
    assert json.loads(example) == description
