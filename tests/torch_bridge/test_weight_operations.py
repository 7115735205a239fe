"""Every operation of torch that writes to a tensor or returns a view of one, found by its schema and tried on a weight.

The oracle is the same operation on the decoded tensors. What it writes, each element of the weight must be next to: the
code below or above. What it cannot write it must refuse, by NotImplementedError; never silently do nothing.
"""

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import lnsnum
from lnsnum import lns8f5
from lnsnum.torch_bridge import LNSWeight

torch.set_num_threads(1)

OFFSETS = {"whole": -20, "channels": torch.tensor([[-20], [-60], [0], [5], [-35], [-11]])}
FLOAT = torch.float64


def a_weight(shape=(6, 6), log_offset=-20, seed=0) -> LNSWeight:
    """Codes of all magnitudes and both signs."""
    codes = torch.randint(1, 128, shape, generator=torch.Generator().manual_seed(seed))
    codes += torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed + 1)) * 128
    if isinstance(log_offset, torch.Tensor) and torch.Size(shape) != (6, 6):
        log_offset = (
            torch.arange(max(shape[0], 1))[:, None].expand(-1, 1).reshape(-1, *[1] * (len(shape) - 1)) if shape else 0
        )
    return LNSWeight(codes.to(torch.uint8), lns8f5, log_offset, FLOAT)


def schemas(chosen) -> list[Any]:
    """The overloads of aten whose schema is chosen."""
    found = []
    for schema in torch._C._jit_get_all_schemas():
        if not schema.name.startswith("aten::") or not chosen(schema):
            continue
        packet = getattr(torch.ops.aten, schema.name.removeprefix("aten::"), None)
        overload = getattr(packet, schema.overload_name or "default", None)
        if isinstance(overload, torch._ops.OpOverload):
            found.append(overload)
    return sorted(found, key=str)


def kind(argument) -> str:
    return str(argument.type)


def is_tensor(argument) -> bool:
    return kind(argument) in ("Tensor", "Optional[Tensor]", "List[Tensor]")


def writes(argument) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


UNSAFE = ("batch_norm", "mkldnn", "cudnn", "miopen", "mps", "fbgemm", "quantize", "sparse", "rnn", "segment")
"""Operations that crash with arguments of the wrong shape, or that this machine may not have."""

UNTOLD = ("empty", "_weight_norm_interface", "_reshape_alias", "_unpack_dual", "slice_inverse", "set_data")
"""Those that leave or read memory as it is, so that there is no telling what is right; and set_data, which no subclass
learns of (assigning to `data` is tested by itself)."""

WRITERS = schemas(
    lambda s: (
        any(writes(a) and is_tensor(a) for a in s.arguments) and not any(part in s.name for part in UNSAFE + UNTOLD)
    )
)
VIEWERS = schemas(
    lambda s: (
        s.arguments
        and kind(s.arguments[0]) == "Tensor"
        and any(r.alias_info is not None and not r.alias_info.is_write for r in s.returns)
        and not any(part in s.name for part in UNSAFE + UNTOLD)
    )
)

SQUARE = a_weight().to_float()
TENSORS = [
    SQUARE * 0.5 + 0.1,
    torch.arange(36).reshape(6, 6) % 6,
    torch.arange(6),
    torch.linspace(0.1, 0.9, 6, dtype=FLOAT),
    SQUARE > 0,
    torch.tensor(0.75, dtype=FLOAT),
    torch.tensor(2),
]
"""What an operand may be: floats, indices, a vector of either, a mask, a number."""

VALUES = {
    "int": [1, 0, 2],
    "SymInt": [1, 0, 2],
    "float": [0.25],
    "number": [0.75, 2],
    "Scalar": [0.75, 2],
    "bool": [False],
    "str": ["mean", "floor"],
    "List[int]": [[6, 6], [1], [0, 1], [3, 2, 6]],
    "List[SymInt]": [[6, 6], [1], [0, 1], [3, 2, 6]],
    "List[float]": [[0.5, 0.5]],
    "List[number]": [[0.5, 2.0]],
    "List[bool]": [[True, True]],
    "Optional[int]": [None, 1],
    "Optional[Generator]": [None],
}


def choices(argument) -> list[Any]:
    """Values that an argument may take; none where there is no knowing."""
    optional = kind(argument).startswith("Optional")
    if argument.has_default_value() and argument.default_value is not None:
        return [argument.default_value]
    if kind(argument) == "Tensor":
        return TENSORS
    if kind(argument) == "List[Tensor]":
        return [[SQUARE + 0.1, SQUARE * 0.3 + 1.0], [SQUARE + 0.1]]
    return [None, *choices_of(kind(argument)[9:-1])[:1]] if optional else choices_of(kind(argument))


def choices_of(name: str) -> list[Any]:
    return TENSORS[:3] if name == "Tensor" else VALUES.get(name, [])


class NoArgumentsError(Exception):
    """No arguments are known with which the operation runs on plain tensors."""


def call(function, given: dict[int, Any]) -> Any:
    """By position or by name, as the schema has it."""
    arguments = function._schema.arguments
    positional = [given[i] for i, a in enumerate(arguments) if not a.kwarg_only]
    named = {a.name: given[i] for i, a in enumerate(arguments) if a.kwarg_only}
    torch.manual_seed(0)
    return function(*positional, **named)


def copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return [copied(v) for v in value] if isinstance(value, list) else value


def candidates(function, targets) -> Iterator[dict[int, Any]]:
    arguments = function._schema.arguments
    options = [targets(i, a) or choices(a) for i, a in enumerate(arguments)]
    for combination in itertools.islice(itertools.product(*options), 60):
        yield dict(enumerate(combination))


def is_float(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(is_float, value))
    return isinstance(value, torch.Tensor) and value.dtype == FLOAT and value.layout == torch.strided


INTEGERS = ("indices", "max_values", "min_indices", "max_indices", "pivots", "info", "infos", "out1_indices")
"""Names of outputs that are no floats."""


@cache
def plain_run(function) -> tuple[dict[int, Any], list[int]]:
    """Arguments with which an operation runs on plain tensors, and which of them it writes to and are floats.

    Not those with which it returns memory that it has not written, as some do where they have nothing to compute.
    """
    arguments = function._schema.arguments
    written = [i for i, a in enumerate(arguments) if writes(a) and is_tensor(a)]

    def targets(i, argument):
        if i not in written:
            return None
        if kind(argument) == "List[Tensor]":
            return [[SQUARE, SQUARE * 0.7], [SQUARE]]
        if argument.kwarg_only:
            return [torch.empty(0, dtype=torch.int64 if argument.name in INTEGERS else FLOAT)]
        return [SQUARE, torch.linspace(0.1, 0.9, 6, dtype=FLOAT)]

    for given in candidates(function, targets):
        try:
            tried = copied_all(given)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call(function, tried)
            for i in written:  # what is called out has its shape by now
                if arguments[i].kwarg_only:
                    given[i] = ones_like(tried[i])
            told, again = copied_all(given), copied_all(given)
            call(function, told)
            with new_memory_of_nan():
                call(function, again)
        except Exception:  # wrong arguments: the next ones
            continue
        floats = [i for i in written if is_float(given[i])]
        if floats and all(same(told[i], again[i]) for i in floats):
            return given, floats
    raise NoArgumentsError


@contextmanager
def new_memory_of_nan() -> Iterator[None]:
    """Memory that an operation takes and leaves as it is, and returns, shows as NaN: what it holds is no result."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(False)


def same(a: Any, b: Any) -> bool:
    return all(x.allclose(y, equal_nan=True) for x, y in zip(listed(a), listed(b), strict=True))


def ones_like(tensors: Any) -> Any:
    return [ones_like(t) for t in tensors] if isinstance(tensors, list) else torch.ones_like(tensors)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def copied_all(given: dict[int, Any]) -> dict[int, Any]:
    return {i: copied(value) for i, value in given.items()}


def as_weight(floats: torch.Tensor, log_offset) -> LNSWeight:
    if isinstance(log_offset, torch.Tensor) and floats.shape != (6, 6):
        log_offset = -20
    return LNSWeight.from_float(floats, lns8f5, log_offset=log_offset)


def alias_of(argument) -> frozenset[str]:
    return frozenset(argument.alias_info.before_set)


def alias(function, i: int) -> frozenset[str]:
    return alias_of(function._schema.arguments[i])


def listed_tuple(returned: Any) -> list[Any]:
    return list(returned) if isinstance(returned, tuple) else [returned]


def is_next_to(weight: LNSWeight, floats: torch.Tensor) -> bool:
    offsets = weight.log_offset
    offsets = offsets.numpy() if isinstance(offsets, torch.Tensor) else offsets
    codes, x = weight.codes.contiguous().numpy(), floats.detach().contiguous().numpy()
    speck = 1e-12 * np.abs(x).max(initial=0.0)
    is_dust = np.abs(x) < speck  # of LAPACK's: its sign, and whether it is zero, depend on the memory that it got
    specks = (-speck, speck) if x[is_dust].any() else ()  # zeros among nothing but zeros are to stay what they are
    near = [
        lnsnum.encode(numbers, lns8f5, rounding=side, log_offset=offsets)
        for side in ("down", "up", "nearest")
        for numbers in (x, *(np.where(is_dust, other, x) for other in (-x, *specks)))
    ]
    return weight.shape == floats.shape and bool(np.any([codes == c for c in near], axis=0).all())


def fault(function, given: dict[int, Any], written: list[int], log_offset: Any) -> str | None:
    """What is wrong with what an operation does to weights; nothing, if it is right. Raises where it refuses."""

    def weights():
        return {i: [as_weight(t, log_offset) for t in listed(given[i])] for i in written}

    def put(values):
        unlisted = {i: values[i] if isinstance(given[i], list) else values[i][0] for i in written}
        return {**copied_all(given), **unlisted}

    targets, before = weights(), weights()
    floats = put({i: [w.to_float().clone() for w in ws] for i, ws in before.items()})
    call(function, floats)
    mixed = put(targets)
    try:
        returned = call(function, mixed)
    except NotImplementedError:
        pairs = zip(itertools.chain(*targets.values()), itertools.chain(*before.values()), strict=True)
        assert all(torch.equal(a.codes, b.codes) and a.shape == b.shape for a, b in pairs), function
        raise
    for i in written:
        for weight, expected in zip(listed(mixed[i]), listed(floats[i]), strict=True):
            if not is_next_to(weight, expected):
                return "other values"
    for i, argument in enumerate(function._schema.arguments):
        plain = writes(argument) and i not in written and isinstance(mixed[i], torch.Tensor)
        if plain and not torch.equal(mixed[i], floats[i]):
            return f"other values in {argument.name}"
    for value, told in zip(listed_tuple(returned), function._schema.returns, strict=False):
        same = [i for i in written if told.alias_info is not None and alias(function, i) == alias_of(told)]
        if same and isinstance(value, torch.Tensor) and value is not mixed[same[0]]:
            return "returns another tensor than it was given"
    return None


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:.*and was clipped")
@pytest.mark.parametrize("scale", OFFSETS)
def test_every_operation_that_writes_writes_what_it_writes_to_floats_or_refuses(scale):
    wrong, tried, refused = {}, set(), set()
    for function in WRITERS:
        try:
            given, written = plain_run(function)
        except NoArgumentsError:
            continue
        try:
            found = fault(function, given, written, OFFSETS[scale])
        except NotImplementedError:
            refused.add(str(function))
        except Exception as error:
            wrong[str(function)] = f"{type(error).__name__}: {error}"[:150]
        else:
            tried.add(str(function))
            if found:
                wrong[str(function)] = found
    assert wrong == {}
    assert len(tried) > 900
    assert {"aten.resize_.default", "aten.t_.default", "aten.squeeze_.dim"} <= refused
    assert len(refused) < 40


@pytest.mark.parametrize("scale", OFFSETS)
def test_every_operation_that_returns_a_view_returns_that_of_the_decoded_or_refuses(scale):
    wrong, tried, refused = {}, [], []
    for function in VIEWERS:
        for given in candidates(function, lambda i, a: [SQUARE] if i == 0 else None):
            weight = as_weight(SQUARE, OFFSETS[scale])
            codes = weight.codes.clone()
            try:
                expected = call(function, {**given, 0: weight.to_float()})
            except Exception:  # wrong arguments: the next ones
                continue
            try:
                found = call(function, {**given, 0: weight})
            except NotImplementedError:
                refused.append(str(function))
                break
            except Exception as error:
                wrong[str(function)] = f"{type(error).__name__}: {error}"[:150]
                break
            tried.append(str(function))
            found, expected = (list(o) if isinstance(o, (tuple, list)) else [o] for o in (found, expected))
            if not all(
                isinstance(a, torch.Tensor) and torch.equal(a + 0.0, b + 0.0)
                for a, b in zip(found, expected, strict=True)
            ):
                wrong[str(function)] = "other values"
            if not torch.equal(weight.codes, codes):
                wrong[str(function)] = "a write"
    assert wrong == {}
    assert len({*tried}) > 60
    assert {*refused} <= {
        "aten._conj.default",
        "aten._neg_view.default",
        "aten.as_strided.default",
        "aten.as_strided_.default",
        "aten.view.dtype",
        "aten.view_as_complex.default",
        "aten.view_as_real.default",
    }
