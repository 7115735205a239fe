"""What a pickle of torch.save says of tensors: where their elements lie. Nothing that it names is built or called.

    _rebuild_tensor_v2(storage, offset, size, stride, ...)    ->    StoredTensor(storage, dtype, offset, size, stride)

A name that is not known here stands in the result as a `Call`. Tensors that a weight file cannot hold (sparse,
quantized, of a class of somebody's own) are `Unusable`, and say what they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

from lnsnum.files.atomic import StrPath
from lnsnum.files.headers import why_unholdable
from lnsnum.files.layout import refuse
from lnsnum.files.pickles import Call, Global, PickleReader, of_type
from lnsnum.format import LNSFormat

MOST_STEPS = 1 << 22
"""Opcodes of a pickle: a tensor takes some forty, so of 100,000 tensors. So many empty lists take 300 MB."""

MOST_NAMES = 1 << 20
"""Tensors and other values of a file: lists that hold one another stand for numbers without end."""

LONGEST_NAMES = 100_000_000
"""Characters of all names together: as many as the header of a weight file may have bytes."""

DEEPEST = 100
"""Dicts and lists within one another."""

_MOST_DIMENSIONS = 64
"""The limit of NumPy."""

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
}

SIZES = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool"), 1),
    "complex128": 16,
}
"""Bytes of an element by the name of torch's type."""

_TABLES = {"collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict"}


@dataclass(frozen=True)
class Storage:
    """Bytes of a file that tensors share.

    Args:
        key: its name.
        dtype: the type of its elements; None where it has bytes.
        size: how many elements it has; bytes, where they have no type.
        begin: where in what is called so in the file it begins, in elements.
    """

    key: str
    dtype: str | None
    size: int
    begin: int = 0


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that the file has: element (i, j, ...) is at offset + i stride[0] + j stride[1] + ... of its storage."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    negative: bool = False
    """Whether the numbers are those of the storage with other signs."""

    @property
    def span(self) -> int:
        """Elements of the storage from the first to the last that the tensor has."""
        if not math.prod(self.shape):
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie in row-major order."""
        expected = 1
        for n, step in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if n != 1 and step != expected:
                return self.span == 0
            expected *= n
        return True


@dataclass(frozen=True)
class StoredWeight:
    """An LNSWeight that the file has."""

    codes: StoredTensor
    fmt: LNSFormat
    log_offset: int | StoredTensor
    groups: tuple[int, int] = (0, -1)
    """Size and dimension of the groups that log_offset has one for each of; 0 where there are none."""


@dataclass(frozen=True)
class Unusable:
    """A tensor that a weight file cannot hold; `what` says which it is."""

    what: str


Leaf = StoredTensor | StoredWeight | Unusable


class _Odd:
    """A key that is neither text nor a number."""

    def __str__(self) -> str:
        return "?"


class TorchPickleReader(PickleReader):
    """Reads what torch.save pickles."""

    def __init__(self) -> None:
        super().__init__(MOST_STEPS)
        self.storages: dict[str, Storage] = {}
        """All that were named, by their keys."""

    def key(self, key: Any) -> Any:
        """Any key, but that what is neither text nor a number has no name."""
        return key if type(key) in (str, bytes, int, float, bool, type(None)) else _Odd()

    def named(self, name: str) -> str:
        """Any name may occur: nothing comes of it."""
        return name.replace("torch.storage.", "torch.", 1) if name.startswith("torch.storage.") else name

    def move(self, name: str, argument: Any) -> None:
        """Opcodes of objects too, and those by which storages are named."""
        stack = self.stack
        match name:
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "PERSID":
                stack.append(Call("persistent_id", (argument,)))
            case "NEWOBJ":
                arguments, kind = stack.pop(), stack.pop()
                stack.append(self.called(of_type(Global, kind).name, of_type(tuple, arguments)))
            case "NEWOBJ_EX":
                options, arguments, kind = stack.pop(), stack.pop(), stack.pop()
                stack.append(Call(of_type(Global, kind).name, (*of_type(tuple, arguments), options)))
            case "OBJ":
                kind, *rest = self.since_mark()
                stack.append(Call(of_type(Global, kind).name, tuple(rest)))
            case "INST":
                stack.append(Call(argument.replace(" ", ".", 1), tuple(self.since_mark())))
            case "POP":
                stack.pop()
            case "POP_MARK":
                self.since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "EMPTY_SET":
                stack.append(Call("builtins.set", ()))
            case "FROZENSET":
                stack.append(Call("builtins.frozenset", tuple(self.since_mark())))
            case "ADDITEMS":
                self.since_mark()
            case "READONLY_BUFFER":
                pass
            case _:
                super().move(name, argument)

    def extend(self, sequence: Any, items: list[Any]) -> None:
        """Into lists alone: an object of a class that is derived from list is not looked into."""
        if not isinstance(sequence, Call):
            super().extend(sequence, items)

    def set(self, table: Any, items: list[Any]) -> None:
        """Into dicts alone, likewise."""
        if not isinstance(table, Call):
            super().set(table, items)

    def build(self, made: Any, state: Any) -> None:
        """Of objects alone: an OrderedDict has attributes too, and a tensor, which are nobody's elements."""
        if isinstance(made, Call):
            made.state = state

    def called(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Dicts and tensors, of what makes them; else a `Call`."""
        if name in _TABLES:
            table: dict[Any, Any] = {}
            for pair in arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list) else ():
                self.set(table, of_type(list, list(pair)))
            return table
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return _tensor(arguments[:4], None, arguments[6] if len(arguments) > 6 else None)
        if name == "torch._utils._rebuild_tensor_v3":
            return _tensor(arguments[:4], arguments[6], arguments[7] if len(arguments) > 7 else None)
        if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
            return arguments[0]
        if name in ("torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type"):
            function, kind, inner, state = arguments
            return self._of_class(of_type(Global, function).name, of_type(Global, kind).name, inner, state)
        if name.startswith("lnsnum.torch_bridge.") and (weight := _weight([*arguments])) is not None:
            return replace(weight, groups=_groups([*arguments]))
        if name.startswith("torch._utils._rebuild_"):
            return Unusable(_kind(name.removeprefix("torch._utils._rebuild_"), arguments))
        return super().called(name, arguments)

    def _of_class(self, function: str, kind: str, arguments: Any, state: Any) -> Any:
        """A tensor of a class that is derived from torch.Tensor."""
        if kind.startswith("lnsnum.torch_bridge."):
            weight = _weight([of_type(dict, state).get(part) for part in ("codes", "fmt", "_span", "_offsets")])
            return weight or Unusable("an LNSWeight of a form that is not known")
        if function == "torch._utils._rebuild_wrapper_subclass":
            return Unusable(f"of the class {kind}")
        return self.called(function, of_type(tuple, arguments))

    def _storage(self, persistent: Any) -> Any:
        """What a persistent id names."""
        if of_type(tuple, persistent)[:1] == ("module",):  # before PyTorch 1.6: a class, with its source
            return of_type(Global, persistent[1])
        what, kind, key, _, size, *views = persistent
        if what != "storage" or type(size) is not int or size < 0:
            raise ValueError("a storage that is none")
        name = of_type(Global, kind).name.removeprefix("torch.").removeprefix("cuda.")
        dtype = None if name == "UntypedStorage" else _STORAGES.get(name, name)
        storage = Storage(str(of_type((str, int), key)), dtype, size)
        self.storages[storage.key] = storage
        if views and views[0] is not None:  # of a part of another, before PyTorch 1.6
            _, begin, size = views[0]
            storage = Storage(storage.key, dtype, _count(size), _count(begin))
        return storage


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("a number of elements that is none")
    return value


def _tensor(place: tuple[Any, ...], dtype: Any, metadata: Any) -> StoredTensor | Unusable:
    storage, offset, shape, stride = place
    storage = of_type(Storage, storage)
    name = of_type(Global, dtype).name.removeprefix("torch.") if dtype is not None else storage.dtype
    sizes, steps = (tuple(map(_count, _numbers(of))) for of in (shape, stride))
    if len(sizes) > _MOST_DIMENSIONS:
        return Unusable(f"of {len(sizes):,} dimensions, which NumPy cannot hold")
    if len(sizes) != len(steps):
        raise ValueError("a tensor with more sizes than strides, or fewer")
    if name is None:
        raise ValueError("a tensor of no type")
    if why_unholdable(sizes, "uint64") is not None:
        return Unusable(f"of shape {sizes}, which NumPy cannot hold")
    has = metadata if isinstance(metadata, dict) else {}
    if has.get("conj"):
        return Unusable("conjugated")
    if has.get("neg") and name == "bool":
        raise ValueError("truth values with other signs")
    return StoredTensor(storage, name, _count(offset), sizes, steps, bool(has.get("neg")))


def _numbers(value: Any) -> tuple[Any, ...]:
    """The sizes of a torch.Size, or of a tuple or list."""
    if isinstance(value, Call) and value.name == "torch.Size":
        (value,) = value.arguments
    return tuple(of_type((tuple, list), value))


def _kind(name: str, arguments: tuple[Any, ...]) -> str:
    """What a tensor is that is neither strided nor on memory."""
    if name == "sparse_tensor" and isinstance(arguments[0], Call):
        return str(arguments[0].arguments[0]).removeprefix("torch.")
    if name == "meta_tensor_no_storage":
        return f"of {of_type(Global, arguments[0]).name.removeprefix('torch.')} on meta: it has no elements"
    return {"qtensor": "quantized", "nested_tensor": "nested"}.get(name, f"of a kind that is not known, {name}")


def _weight(parts: list[Any]) -> StoredWeight | None:
    """The LNSWeight of codes, their format, and a scale: [least, greatest, ...] or a tensor. None where it is none."""
    tensors = [part for part in parts if isinstance(part, StoredTensor)]
    formats = [fmt for part in parts if (fmt := _format(part)) is not None]
    spans = [part for part in parts if isinstance(part, list) and part and all(type(n) is int for n in part)]
    if not 1 <= len(tensors) <= 2 or len(formats) != 1 or len(spans) != 1:
        return None
    return StoredWeight(tensors[0], formats[0], tensors[1] if len(tensors) > 1 else spans[0][0])


def _groups(parts: list[Any]) -> tuple[int, int]:
    """Of a weight's groups, their size and dimension; the size is 0 where there are none."""
    pairs = [part for part in parts if isinstance(part, tuple) and [type(n) for n in part] == [int, int]]
    return pairs[0] if pairs else (0, -1)


def _format(part: Any) -> LNSFormat | None:
    if isinstance(part, Call) and part.name == "lnsnum.format.LNSFormat":
        return LNSFormat(**part.state) if isinstance(part.state, dict) else LNSFormat(*part.arguments)
    return None


def leaves(path: StrPath, content: Any) -> Iterator[tuple[str, Any]]:
    """What is in nested dicts and lists, by the keys and indices that lead there, joined by dots.

    Raises:
        WeightFileError: where it is nested too deeply, or is too much.
    """
    count = length = 0
    branches: list[tuple[str, int, Iterator[tuple[Any, Any]]]] = [("", 0, iter([("", content)]))]
    while branches:
        name, depth, pairs = branches[-1]
        for key, value in pairs:
            count += 1
            place = f"{name}.{_text(key)}" if depth > 1 else _text(key)
            length += len(place)
            if count > MOST_NAMES or length > LONGEST_NAMES:
                refuse(path, f"it holds more than {MOST_NAMES:,} values, or {LONGEST_NAMES:,} characters of names")
            inner = _pairs(value)
            if inner is None:
                yield place, value
            elif depth > DEEPEST:
                refuse(path, f"it is nested more than {DEEPEST} deep")
            else:
                branches.append((place, depth + 1, inner))
                break
        else:
            branches.pop()


def _pairs(value: Any) -> Iterator[tuple[Any, Any]] | None:
    if isinstance(value, dict):
        return iter(value.items())
    return iter(enumerate(value)) if isinstance(value, (list, tuple)) else None


def _text(key: Any) -> str:
    """A key as a part of a name, no longer than names may be."""
    if type(key) is int and abs(key) >= 1 << 63:
        return "?"
    return str(key)


def read_pickle(path: StrPath, reader: PickleReader, data: bytes | IO[bytes]) -> Any:
    """The value that a pickle stands for. Raises WeightFileError where it is damaged, OSError."""
    try:
        return reader.read(data)
    except OSError:
        raise
    except Exception as error:  # whatever a damaged pickle makes the reader trip over
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        refuse(path, f"it is damaged, no pickle of torch.save: {text}")
