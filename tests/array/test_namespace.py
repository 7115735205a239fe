"""The Python array API: what is kept of it is NumPy's on the decoded numbers; what is not is refused by name.

array-api-tests themselves are run by the command in docs/array_api.md, with tests/array_api/exceptions.txt.
"""

import re
from pathlib import Path

import numpy as np
import pytest

import lnsnum
from lnsnum import LNSFormat, LNSTensor, lns8f3, lns16f10
from lnsnum.array.namespace import OF_NUMPY

ROOT = Path(lnsnum.__file__).parent.parent
X = LNSTensor.from_float([[2.0, -1.0], [0.5, 4.0]], lns8f3)
xp = X.__array_namespace__()


def test_a_namespace_belongs_to_a_format():
    assert xp is LNSTensor.from_float(3.0, lns8f3, log_offset=4).__array_namespace__(api_version="2024.12")
    assert xp is not LNSTensor.from_float(3.0, lns16f10).__array_namespace__()
    assert (xp.default_format, xp.__array_api_version__, xp.lns16f10) == (lns8f3, "2024.12", lns16f10)
    with pytest.raises(ValueError, match=r"^api_version='2019' is not known: one of 2021.12, "):
        X.__array_namespace__(api_version="2019")
    for name in ("float64", "complex64", "fft", "lns99f3"):
        with pytest.raises(AttributeError):
            getattr(xp, name)
    assert {"sum", "asarray", "isdtype"} <= set(dir(xp))


def test_creation_rounds_numbers_and_leaves_integers_to_numpy():
    made = xp.asarray([0.3, 1.0])
    np.testing.assert_array_equal(made.codes, LNSTensor.from_float([0.3, 1.0], lns8f3).codes)
    assert xp.asarray([1, 2]).dtype == np.int64
    assert xp.asarray([1, 2], dtype=lns16f10).tolist() == [1.0, 2.0]
    assert xp.asarray([True, False], dtype=lns8f3).tolist() == [1.0, 0.0]
    assert xp.asarray(X) is X
    assert not np.shares_memory(xp.asarray(X, copy=True).codes, X.codes)
    for shape, call in (
        ((2, 3), lambda: xp.zeros((2, 3))), ((4,), lambda: xp.ones(4)), ((2, 2), lambda: xp.full((2, 2), 0.5)),
        ((2, 2), lambda: xp.zeros_like(X)), ((2, 2), lambda: xp.ones_like(X)), ((2, 2), lambda: xp.empty_like(X)),
        ((3, 3), lambda: xp.eye(3)), ((5,), lambda: xp.linspace(0.0, 1.0, 5)), ((2,), lambda: xp.empty(2)),
    ):  # fmt: skip
        result = call()
        assert (type(result), result.fmt, result.shape) == (LNSTensor, lns8f3, shape)
    assert xp.full(2, 7).dtype == np.int64
    for call, error, told in (
        (lambda: xp.asarray([1.0], device="gpu"), ValueError, "device='gpu': tensors lie in the memory"),
        (lambda: xp.zeros(2, dtype="float32"), TypeError, "dtype='float32' has no LNS numbers: give an LNSFormat"),
        (lambda: xp.asarray([0.3], copy=False), ValueError, "copy=False, and to round numbers to codes takes a copy"),
    ):
        with pytest.raises(error, match=told):
            call()


def test_data_types():
    assert xp.finfo(lns8f3) == xp.finfo(X) == lns8f3.finfo()
    assert [xp.isdtype(lns8f3, kind) for kind in ("real floating", "numeric", "integral", "bool", lns8f3)] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert xp.isdtype(np.int8, ("real floating", "integral"))
    assert xp.iinfo(np.array([1], np.int8)).max == xp.iinfo(np.int8).max == 127
    assert xp.can_cast(lns8f3, lns16f10)
    assert not xp.can_cast(X, LNSFormat(8, 5))
    assert not xp.can_cast(np.int8, lns8f3)
    assert xp.result_type(X, 2.0) == lns8f3
    for mixed in ((X, lns16f10), (X, np.int64)):
        with pytest.raises(TypeError, match=r"^LNS numbers of several formats, or beside arrays of NumPy's"):
            xp.result_type(*mixed)
    assert xp.astype(X, lns16f10).fmt == lns16f10
    assert xp.astype(X, np.int32).tolist() == [[2, -1], [0, 4]]
    assert xp.astype(X, np.bool_).all()
    assert xp.astype(np.array([1, 2]), lns8f3).tolist() == [1.0, 2.0]
    info = xp.__array_namespace_info__()
    assert info.dtypes(kind="real floating") == {"lns8f3": lns8f3}
    assert info.default_dtypes()["real floating"] == lns8f3
    assert (info.devices(), info.default_device()) == (["cpu"], "cpu")
    assert info.capabilities()["boolean indexing"]


def test_functions_are_numpys_on_tensors():
    for name in ("sum", "mean", "expm1", "tanh", "max", "argmin", "permute_dims", "matrix_transpose", "abs", "sign"):
        if hasattr(np, name):
            ours, theirs = getattr(xp, name)(*((X, (1, 0)) if name == "permute_dims" else (X,))), getattr(np, name)
            expected = theirs(X.to_float(), (1, 0)) if name == "permute_dims" else theirs(X.to_float())
            np.testing.assert_allclose(np.asarray(ours), expected, rtol=0.05)
    assert xp.var(X, axis=0, correction=1).shape == (2,)
    assert xp.std(X).shape == ()
    assert xp.sort(X, axis=0, descending=True).tolist() == [[2.0, 4.0], [0.5, -1.0]]
    twice = LNSTensor.from_float([1.0, 2.0, 1.0], lns8f3)
    assert xp.argsort(twice, descending=True).tolist() == [1, 0, 2]
    assert xp.argsort(twice).tolist() == [0, 2, 1]
    values, first, inverse, counts = xp.unique_all(twice)
    assert (values.tolist(), first.tolist(), inverse.tolist(), counts.tolist()) == (
        [1.0, 2.0],
        [0, 1],
        [0, 1, 0],
        [2, 1],
    )
    assert xp.unique_counts(twice).counts.tolist() == [2, 1]
    assert xp.unique_inverse(twice).inverse_indices.tolist() == [0, 1, 0]
    assert xp.unique_values(twice).tolist() == [1.0, 2.0]
    with pytest.raises(TypeError, match=r"^numpy.sin does not take LNSTensors"):
        xp.sin(X)


def test_attributes_of_the_standard():
    assert X.mT.tolist() == [[2.0, 0.5], [-1.0, 4.0]]
    assert X.device == "cpu"
    assert X.to_device("cpu") is X
    with pytest.raises(ValueError, match=r"^device='cuda'"):
        X.to_device("cuda")
    with pytest.raises(ValueError, match=r"^mT of shape \(2,\): give at least two axes$"):
        _ = X[0].mT


def test_the_exceptions_have_reasons():
    """Each block of exceptions stands below a comment, and no test stands there twice."""
    blocks = (ROOT / "tests" / "array_api" / "exceptions.txt").read_text().strip().split("\n\n")
    names = [line for block in blocks for line in block.splitlines() if not line.startswith("#")]
    assert len(names) == len(set(names)) > 0
    assert all(re.fullmatch(r"array_api_tests/test_\w+\.py::[\w\[\]().,<>=|+\-*/&^~@% ]+", name) for name in names)
    assert all(block.startswith("# ") for block in blocks)


def test_names_of_numpy_are_of_its_array_api():
    assert len(OF_NUMPY) == len(set(OF_NUMPY))
    assert {name for name in OF_NUMPY if not hasattr(np, name)} <= {"cumulative_prod", "cumulative_sum", "unstack"}
