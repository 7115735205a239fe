"""Pages are given back where they are a file's, and nowhere else."""

import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lnsnum.huggingface.pages import give_back

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/maps is Linux's")


def test_pages_of_a_file_are_given_back_and_read_again(tmp_path):
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    values = torch.arange(40_000.0)
    save_file({"x": values, "small": torch.ones(3)}, path)
    with safe_open(path, framework="pt") as file:
        mapped, small = file.get_tensor("x"), file.get_tensor("small")
        assert give_back(mapped, [str(other), str(path)])
        assert torch.equal(mapped, values)
        assert not give_back(mapped, [str(other)])
        assert not give_back(mapped[::2], [str(path)])
        assert not give_back(small, [str(path)])
    own = values.clone()
    assert not give_back(own, [str(path)])
    assert torch.equal(own, values)
