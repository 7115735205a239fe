"""LNS weight files: safetensors files whose integer tensors say what they stand for.

Codes are stored as the unsigned integers they are (U8, U16, U32) and every other tensor as it is, so any safetensors
reader opens the file. One entry of the metadata, `lnsnum`, is JSON:

    {"layout": 1, "metadata": {...}, "tensors": {"conv.weight": {"format": "lns8f5", "log_offset": -12}, ...}}

where a log_offset for each channel is {"shape": [...], "values": [...]}. The same tensors give the same bytes.
docs/weight_file.md is the specification. The safetensors library reads and writes the file; loading executes nothing
that the file says.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lnsnum.codes import LogOffset
from lnsnum.format import LNSFormat
from lnsnum.tensor import LNSTensor

LAYOUT_VERSION = 1
METADATA_KEY = "lnsnum"

Weights = dict[str, LNSTensor | NDArray[Any]]

_STORABLE = frozenset(
    [
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint64",
        "uint32",
        "uint16",
        "uint8",
        "bool",
    ]
)


class WeightFileError(ValueError):
    """A file that is no LNS weight file, a damaged one, or one for another model; the message says what and where."""


def _safetensors() -> Any:
    try:
        import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(f"weight files need {error.name}: pip install 'lnsnum[files]'") from error
    return safetensors


def save_weights(
    path: str | os.PathLike[str],
    weights: Mapping[str, LNSTensor | NDArray[Any]],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors to a weight file, atomically: at any moment the old file or the new one is there, whole.

    Args:
        path: the file; an existing one is replaced.
        weights: tensors by name: LNSTensor as codes, NumPy arrays as they are (bfloat16 by ml_dtypes).
        metadata: free text for people and programs, strings by name, such as a model card.

    Raises:
        TypeError, ValueError: for names, values or entries that cannot be stored; nothing is written then.
        OSError: where the file cannot be written; the old one is left as it was.
        ImportError: without safetensors and ml_dtypes (the extra `files`).
    """
    safetensors = _safetensors()
    arrays: dict[str, NDArray[Any]] = {}
    entries: dict[str, dict[str, Any]] = {}
    for name, tensor in weights.items():
        if not isinstance(name, str) or name == "__metadata__" or not _is_unicode(name):
            raise ValueError(f"{name!r} cannot name a tensor: any string but '__metadata__' can, in Unicode")
        if isinstance(tensor, LNSTensor):
            entries[name] = {"format": tensor.fmt.name, "log_offset": _offset_to_json(tensor.log_offset)}
            array = tensor.codes
        elif isinstance(tensor, np.ndarray):
            array = tensor
        else:
            raise TypeError(
                f"tensor {name!r} is a {type(tensor).__name__}: "
                "give an LNSTensor or a NumPy array (of an LNSWeight its to_lns())"
            )
        if array.dtype.name not in _STORABLE:
            raise TypeError(f"tensor {name!r} is of {array.dtype}, which weight files cannot hold")
        arrays[name] = np.asarray(array, order="C")
    texts = dict(metadata or {})
    for key, value in texts.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata entry {key!r} is not a string by a string")
    header = json.dumps({"layout": LAYOUT_VERSION, "metadata": texts, "tensors": entries}, sort_keys=True)
    with replacing(path) as temporary:
        try:
            safetensors.numpy.save_file(arrays, temporary, metadata={METADATA_KEY: header})
        except safetensors.SafetensorError as error:
            raise OSError(f"{_shown(path)} cannot be written: {error}") from error


def _is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`: it becomes `path`, durably, if the block ends well, and vanishes if not."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(f"{_shown(path)} is no regular file: it cannot be replaced by a weight file")
    temporary = target.with_name(f".lnsnum-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        mode = (target if target.exists() else temporary).stat().st_mode & 0o777
        yield temporary
        temporary.chmod(mode)
        _flush_to_disk(temporary)
        os.replace(temporary, target)
        _flush_to_disk(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_weights(path: str | os.PathLike[str]) -> Weights:
    """The tensors of a weight file by name: LNSTensor where the file holds codes, NumPy arrays otherwise.

    Raises:
        WeightFileError: where the file is damaged, foreign, of a later layout, or holds codes outside their format.
        OSError: where it cannot be read.
        ImportError: without safetensors and ml_dtypes (the extra `files`).
    """
    weights: Weights = {}
    with _open(path) as file:
        entries = _header(path, file)["tensors"]
        names = list(file.keys())
        for name in sorted(entries.keys() - set(names)):
            _refuse(path, f"its entry for {name!r} has no tensor")
        for name in names:
            array = _get(path, file, name)
            weights[name] = _to_tensor(path, name, array, entries[name]) if name in entries else array
    return weights


def load_shapes(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a weight file by name, from its header alone. Errors as for `load_weights`."""
    with _open(path) as file:
        _header(path, file)
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata entries that `save_weights` was given. Errors as for `load_weights`."""
    with _open(path) as file:
        texts = _header(path, file).get("metadata", {})
    if not isinstance(texts, dict) or not all(isinstance(value, str) for value in texts.values()):
        _refuse(path, "its metadata are not strings by name")
    return dict(texts)


@contextlib.contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[Any]:
    safetensors = _safetensors()
    if os.path.isdir(path):
        raise WeightFileError(f"{_shown(path)} is a folder, not a weight file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise WeightFileError(f"{_shown(path)} is no regular file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise WeightFileError(f"{_shown(path)} is damaged or no safetensors file: {error}") from error


def _get(path: str | os.PathLike[str], file: Any, name: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = file.get_tensor(name)
    except MemoryError:
        raise WeightFileError(f"{_shown(path)}: tensor {name!r} does not fit into memory") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise WeightFileError(f"{_shown(path)}: tensor {name!r} is none that NumPy can hold: {error}") from error
    return array


def _shown(path: str | os.PathLike[str]) -> str:
    """The path as an error shows it, in one line."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


def _refuse(path: str | os.PathLike[str], what: str) -> NoReturn:
    short = what if len(what) <= 400 else what[:397] + "..."
    raise WeightFileError(f"{_shown(path)}: {short}")


def _header(path: str | os.PathLike[str], file: Any) -> dict[str, Any]:
    """Our entry of the file's metadata, its outline checked."""
    metadata: Mapping[str, str] = file.metadata() or {}
    if METADATA_KEY not in metadata:
        _refuse(path, f"a safetensors file, but no LNS weight file: its metadata has no entry {METADATA_KEY!r}")
    try:
        header = json.loads(metadata[METADATA_KEY], object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        twice = f": {error}" if isinstance(error, _DuplicateError) else ""
        _refuse(path, f"its metadata entry {METADATA_KEY!r} is not JSON{twice}")
    if not isinstance(header, dict):
        _refuse(path, f"its metadata entry {METADATA_KEY!r} is no JSON object")
    version = header.get("layout")
    if type(version) is not int or version != LAYOUT_VERSION:
        _refuse(path, f"layout version {version!r} is unknown: this reader knows version {LAYOUT_VERSION}")
    if not isinstance(header.get("tensors"), dict):
        _refuse(path, f"its metadata entry {METADATA_KEY!r} has no list of tensors")
    return header


class _DuplicateError(ValueError):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; two fields of one name would be read differently by different readers."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _DuplicateError("a name occurs twice in one object")
    return fields


def _to_tensor(path: str | os.PathLike[str], name: str, codes: NDArray[Any], entry: Any) -> LNSTensor:
    if not isinstance(entry, dict) or not isinstance(entry.get("format"), str) or "log_offset" not in entry:
        _refuse(path, f"the entry for {name!r} lacks a format or a log_offset")
    try:
        fmt = LNSFormat.parse(entry["format"])
        if codes.dtype != fmt.dtype:
            _refuse(path, f"tensor {name!r} is of {codes.dtype}, but codes of {fmt.name} are {fmt.dtype}")
        return LNSTensor(codes, fmt, log_offset=_offset_from_json(entry["log_offset"]))
    except WeightFileError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        _refuse(path, f"tensor {name!r}: {error}")


def _offset_to_json(log_offset: LogOffset) -> Any:
    if isinstance(log_offset, int):
        return log_offset
    return {"shape": list(log_offset.shape), "values": log_offset.reshape(-1).tolist()}


def _offset_from_json(entry: Any) -> LogOffset:
    if not isinstance(entry, dict):
        return entry  # type: ignore[no-any-return]  # LNSTensor says what is wrong with it
    shape, values = entry.get("shape"), entry.get("values")
    if not isinstance(shape, list) or not isinstance(values, list):
        raise ValueError("its log_offset has no shape and values")
    if not all(type(number) is int for number in shape + values) or any(size < 0 for size in shape):
        raise ValueError("its log_offset has a shape or values that are no integers")
    offsets: Any = np.array(values, np.int64).reshape(shape)
    return offsets  # type: ignore[no-any-return]
