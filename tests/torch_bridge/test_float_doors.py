"""Every method of a tensor that a weight answers as its floats would, refuses in words of its own, or leaves to them.

The oracle is the same call on the decoded tensor.
"""

import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from lnsnum import lns8f5, lns16f10
from lnsnum.torch_bridge import LNSWeight, convert_model

torch.set_num_threads(1)


def a_weight(shape=(6, 5), log_offset=-40, fmt=lns8f5, dtype=torch.float32) -> LNSWeight:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return LNSWeight.from_float(x, fmt, log_offset=log_offset)


def test_an_address_tells_which_weights_are_tied_and_is_of_no_memory():
    """accelerate keeps what it has moved by it: two weights at one address would become one."""
    weights = [a_weight(), a_weight(), a_weight().detach()]
    weights.append(weights[0].view(5, 6))
    addresses = [w.data_ptr() for w in weights]
    assert [addresses.index(a) for a in addresses] == [0, 1, 2, 0]
    assert min(addresses) >= 1 << 63
    assert weights[0].to("meta").data_ptr() == 0


def test_a_parameter_is_made_of_a_weight_by_its_class():
    weight = a_weight()
    made = type(weight)(weight, requires_grad=False)
    assert isinstance(made, LNSWeight)
    assert isinstance(made, torch.nn.Parameter)
    assert (made.requires_grad, made.codes.data_ptr()) == (False, weight.codes.data_ptr())
    for arguments, options in (
        ((torch.ones(3),), {"requires_grad": True}),
        ((weight.codes,), {}),
        ((weight, lns8f5), {"requires_grad": True}),
    ):
        with pytest.raises(TypeError, match="is made of codes and their format, or of floats by"):
            LNSWeight(*arguments, **options)


# --------------------------------------------------------------------------------------------------------- all methods

OF_ITS_OWN = {
    "numpy", "tolist", "data_ptr", "const_data_ptr", "storage", "untyped_storage", "_typed_storage", "element_size",
    "__array__", "__dlpack__", "__reduce_ex__", "__repr__", "__format__", "__hash__", "__dir__", "__sizeof__",
    "bernoulli", "__init_subclass__", "__subclasshook__", "__class__",
}  # fmt: skip
"""Methods whose answer is a weight's own, or random; those that matter have a test of their own."""


def methods() -> list[str]:
    found = [name for name in dir(torch.Tensor) if callable(getattr(torch.Tensor, name, None))]
    return [name for name in found if name not in OF_ITS_OWN]


def outcome(tensor: torch.Tensor, name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return getattr(tensor, name)()
        except Exception as error:
            return error


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        a = a.to_float() if isinstance(a, LNSWeight) else a
        return a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a.to_dense(), b.to_dense(), equal_nan=True)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and (a == b or (a != a and b != b) or callable(a))


@pytest.mark.parametrize("shape", [(), (5,), (4, 4)], ids=str)
def test_every_method_without_arguments_does_what_the_floats_do_or_refuses_in_words_of_ours(shape):
    """Where the floats raise, any error will do; where they answer, the same answer, or an error with our name."""
    wrong, tried = {}, 0
    for name in methods():
        expected = outcome(a_weight(shape, dtype=torch.float64).to_float(), name)
        found = outcome(a_weight(shape, dtype=torch.float64), name)
        tried += 1
        if isinstance(expected, Exception):
            continue
        if isinstance(found, Exception):
            if "LNSWeight" not in str(found):
                wrong[name] = f"{type(found).__name__}: {found}"[:150]
        elif not name.endswith("_") and not same(found, expected):
            wrong[name] = f"{found!r} is not {expected!r}"[:150]
    assert wrong == {}
    assert tried > 300


# ---------------------------------------------------------------------------------------------------- arrays and lists


@pytest.mark.parametrize("fmt", [lns8f5, lns16f10], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_arrays_of_numpy_are_the_values_and_cannot_be_written_to(fmt, dtype):
    weight = a_weight(fmt=fmt, dtype=dtype)
    expected = weight.to_float().numpy()
    for array in (weight.numpy(), weight.numpy(force=True), np.asarray(weight), weight.t().numpy().T):
        np.testing.assert_array_equal(array, expected, strict=True)
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1.0
    for array in (np.array(weight), np.asarray(weight, np.float64, copy=True), np.asarray(weight, np.longdouble)):
        np.testing.assert_array_equal(array, expected)
        array[0, 0] = 1.0
    assert np.asarray(weight, np.float64).dtype == np.float64
    np.testing.assert_array_equal(weight.numpy(), expected)
    with pytest.raises(ValueError, match=r"codes become an array only by being decoded, which copies: take np.asarray"):
        np.asarray(weight, copy=False)


def test_numpy_of_a_parameter():
    weight = nn.Parameter(a_weight())
    for ask in (weight.numpy, lambda: np.asarray(weight)):
        with pytest.raises(TypeError, match=r"this LNSWeight requires a gradient, .*: take to_float\(\).numpy\(\)"):
            ask()
    with torch.no_grad():
        np.testing.assert_array_equal(weight.numpy(), weight.to_float().numpy())
    np.testing.assert_array_equal(weight.numpy(force=True), weight.to_float().numpy())
    with pytest.raises(TypeError, match=r"this LNSWeight is on meta, and NumPy's arrays are on the CPU"):
        weight.detach().to("meta").numpy()
    with pytest.raises(TypeError, match=r"NumPy has no bfloat16: take to_float\(torch.float32\).numpy\(\)"):
        weight.detach().bfloat16().numpy()


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)], ids=str)
def test_lists_and_text(shape):
    for weight in (a_weight(shape), nn.Parameter(a_weight(shape))):
        assert weight.tolist() == weight.to_float().tolist()
    assert f"{a_weight(())}" == str(a_weight(()))
    assert f"{a_weight(()):.3f} {a_weight(()):>9.1e}" == f"{a_weight(()).item():.3f} {a_weight(()).item():>9.1e}"
    assert f"{a_weight((3,))}" == str(a_weight((3,)))


def test_a_weight_of_many_numbers_is_not_written_as_one():
    with pytest.raises(TypeError, match=r"^only an LNSWeight of shape \(\) is written as '\.3f', not \(2,\): index it"):
        f"{a_weight((2,)):.3f}"
    with pytest.raises(TypeError, match=r"^from_lns takes an LNSTensor, not a Tensor: from_float takes floats$"):
        LNSWeight.from_lns(torch.ones(2))


def test_what_plots_and_logs_weights():
    """matplotlib's hist takes an array, and tensorboard's add_histogram calls `detach().cpu().numpy()`."""
    weight = nn.Parameter(a_weight())
    figure = pytest.importorskip("matplotlib.figure").Figure()
    counts, edges, _ = figure.subplots().hist(weight.detach().flatten(), bins=8)
    expected = np.histogram(weight.to_float().numpy(), bins=8)
    np.testing.assert_array_equal(counts, expected[0])
    np.testing.assert_array_equal(edges, expected[1])
    np.testing.assert_array_equal(weight.detach().cpu().numpy(), weight.to_float().numpy())


# --------------------------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize("fmt", [lns8f5, lns16f10], ids=str)
def test_bytes_are_those_of_the_codes(fmt):
    """What libraries add up, such as `get_memory_footprint` of Hugging Face: numel times element_size."""
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
    convert_model(model, fmt)
    size = fmt.bits // 8
    for p in model.parameters():
        assert p.element_size() == p.itemsize == size
        assert p.numel() * p.element_size() == p.nbytes == p.codes.nbytes
        assert p.untyped_storage().nbytes() == p.codes.untyped_storage().nbytes()
        assert p.detach().t().untyped_storage().nbytes() == p.codes.untyped_storage().nbytes()
        assert p.clone().untyped_storage().nbytes() == p.codes.nbytes
    assert sum(p.nelement() * p.element_size() for p in model.parameters()) == 82 * size
    channels = a_weight(log_offset=torch.zeros(6, 1, dtype=torch.int32))
    assert channels.nbytes == 30 + 6 * 4


# -------------------------------------------------------------------------------------------------------------- twins


@pytest.mark.parametrize("log_offset", [-40, torch.arange(6)[:, None]], ids=["whole", "channels"])
@pytest.mark.parametrize(
    "twin",
    [
        torch.empty_like,
        lambda w: torch.empty_like(w, memory_format=torch.contiguous_format),
        lambda w: torch.empty_like(w, device="cpu", requires_grad=True).detach(),
        lambda w: w.new_empty(w.shape, device="cpu"),
        lambda w: w.new_empty(*w.shape, device="cpu"),
        lambda w: w.new_empty(w.shape, device="cpu", dtype=w.dtype),
        lambda w: w.new_empty_strided(w.shape, w.stride(), device="cpu"),
    ],
)
def test_memory_for_a_copy_is_a_weight_of_zeros_and_takes_the_codes(twin, log_offset):
    for weight in (a_weight(log_offset=log_offset), nn.Parameter(a_weight(log_offset=log_offset)), a_weight().t()):
        made = twin(weight)
        assert type(made) is LNSWeight
        assert (made.shape, made.dtype, made.fmt) == (weight.shape, weight.dtype, weight.fmt)
        assert (made.to_float() == 0).all()
        assert torch.equal(torch.as_tensor(made.log_offset), torch.as_tensor(weight.log_offset))
        with torch.no_grad():
            made.copy_(weight)
        assert torch.equal(made.codes, weight.codes)
        made.rescale_(made.log_offset + 1)
        assert torch.equal(torch.as_tensor(weight.log_offset), torch.as_tensor(made.log_offset) - 1)


def test_other_memory_is_plain():
    weight = a_weight()
    for made in (
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape, dtype=torch.float64),
        weight.new_empty_strided(weight.shape, weight.stride()),
        weight.new_empty((5, 6)),
        weight.new_empty((5, 6), device="cpu"),
        weight.new_empty(()),
        weight.new_empty_strided((2, 3), (3, 1)),
        torch.empty_like(weight, dtype=torch.uint8),
        weight.new_empty((6, 5), dtype=torch.int64, device="cpu"),
    ):
        assert type(made) is torch.Tensor
    assert torch.empty_like(weight, dtype=torch.float64).dtype == torch.float64
    meta = torch.empty_like(weight, device="meta")
    assert isinstance(meta, LNSWeight)
    assert meta.is_meta


def test_twins_follow_the_order_of_the_memory():
    weight = LNSWeight.from_float(torch.randn(4, 3, 2, 2), lns8f5, log_offset=-40)
    weight = weight.to(memory_format=torch.channels_last)
    for made in (torch.empty_like(weight), torch.zeros_like(weight), torch.ones_like(weight, dtype=torch.int32)):
        assert made.stride() == weight.stride() == (12, 1, 6, 3)


# --------------------------------------------------------------------------------------------------------------- files


def loaded(value, **arguments):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, **arguments)


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize(
    "map_location",
    [None, "cpu", torch.device("cpu"), {"cpu": "cpu"}, lambda storage, place: storage],
    ids=["none", "name", "device", "mapping", "function"],
)
@pytest.mark.parametrize("log_offset", [-40, torch.arange(6)[:, None]], ids=["whole", "channels"])
def test_a_state_is_loaded_wherever_it_is_to_go(map_location, weights_only, log_offset):
    """Lightning resumes by a function of storages."""
    state = {"w": a_weight(log_offset=log_offset), "p": nn.Parameter(a_weight(), requires_grad=False)}
    found = loaded(state, map_location=map_location, weights_only=weights_only)
    for name, weight in state.items():
        assert torch.equal(found[name].codes, weight.codes)
        assert torch.equal(torch.as_tensor(found[name].log_offset), torch.as_tensor(weight.log_offset))
        assert found[name].requires_grad == weight.requires_grad
        assert isinstance(found[name], nn.Parameter) == isinstance(weight, nn.Parameter)
    on_meta = loaded(state, map_location="meta", weights_only=weights_only)
    assert all(weight.is_meta and weight.codes.is_meta for weight in on_meta.values())


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("log_offset", [-40, torch.arange(6)[:, None]], ids=["whole", "channels"])
def test_a_scale_that_a_graph_can_raise_is_saved_with_its_room(weights_only, log_offset):
    weight = nn.Parameter(a_weight(log_offset=log_offset))
    weight.scale_for_graph_()
    found = loaded(weight, weights_only=weights_only)
    assert type(found.log_offset) is type(weight.log_offset)  # one is still read as one integer
    for each in (weight, found):
        nn.init.constant_(each, 2.0**100)  # beyond the bounds, which have room again
    assert found.scale[:2] == weight.scale[:2]
    assert torch.equal(torch.as_tensor(found.log_offset), torch.as_tensor(weight.log_offset))


def test_attributes_of_parameters_are_saved():
    weight = nn.Parameter(a_weight())
    weight._no_weight_decay = True
    assert loaded(weight)._no_weight_decay is True


def test_hooks_stay_behind_as_torch_warns():
    weight = nn.Parameter(a_weight())
    weight.register_hook(lambda gradient: gradient)
    with pytest.warns(UserWarning, match="backward hook"):
        loaded(weight)


def test_a_pickle_cannot_bring_codes_outside_the_format():
    """The kernels take codes as places in tables."""
    weight = LNSWeight.from_float(torch.ones(3), "lns6f3")
    weight.codes.fill_(200)
    with pytest.raises(ValueError, match="code 200 is outside lns6f3"):
        loaded(weight)
    channels = a_weight(log_offset=torch.arange(6)[:, None])
    channels._span.numbers[1] = 3
    with pytest.raises(ValueError, match="log_offsets 0 to 5 are outside of the range told of them, 0 to 3"):
        loaded(channels)
