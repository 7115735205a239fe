"""LNSTensor in the hands of torch: decoded where a tensor is made of it, refused by name elsewhere."""

import numpy as np
import pytest
import torch

from lnsnum import LNSTensor, lns8f3


@pytest.fixture
def x():
    return LNSTensor.from_float([[1.0, -2.0, 0.0], [3.0, float("nan"), 0.01]], lns8f3)


@pytest.mark.parametrize("make", [torch.as_tensor, torch.tensor, torch.asarray, torch.from_dlpack])
def test_a_tensor_made_of_it_holds_its_values(x, make):
    for part in (x, x.T, x[0], x[:, :0], LNSTensor(x.codes, lns8f3, log_offset=np.array([[8], [-8]], np.int32))):
        made = make(part)
        assert made.dtype == torch.float64
        np.testing.assert_array_equal(made.numpy(), part.to_float())
        made[...] = 7.0  # its own memory
    assert float(x[0, 0]) == 1.0


def test_a_tensor_that_shares_its_memory_is_refused(x):
    with pytest.raises(ValueError, match=r"^an LNSTensor holds codes: making a tensor of floats always copies$"):
        x.__dlpack__(copy=False)


@pytest.mark.parametrize(
    "call",
    [
        lambda t, x: torch.add(t, x), lambda t, x: torch.exp(x), lambda t, x: t.copy_(x),
        lambda t, x: torch.stack([x, x]), lambda t, x: torch.where(t > 0, t, x),
    ],
)  # fmt: skip
def test_functions_of_torch_are_refused_by_name(x, call):
    with pytest.raises(
        TypeError,
        match=r"^torch's \w+ does not take an LNSTensor: torch.as_tensor\(x\) makes floats of it, "
        r"lnsnum.torch_bridge.LNSWeight.from_lns\(x\) a weight of its codes$",
    ):
        call(torch.ones(2, 3), x)


@pytest.mark.parametrize("call", [lambda t, x: t + x, lambda t, x: x + t, lambda t, x: t < x, lambda t, x: x == t])
def test_operators_with_tensors_of_torch_name_both(x, call):
    with pytest.raises(
        TypeError, match=r"^(add|comparison) of LNSTensor and Tensor: make it one with LNSTensor.from_float"
    ):
        call(torch.ones(2, 3), x)


def test_numbers_in_a_list_are_told_apart_from_arrays(x):
    with pytest.raises(TypeError, match=r"^LNSTensor of shape \(\) is one number, unsized: float\(x\) gives its v"):
        torch.tensor([x[0, 0], x[0, 1]])
