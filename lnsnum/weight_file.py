"""LNS weight files: tensors to and from safetensors files, one of them or a set with an index.

`lnsnum.files.layout` tells what is in a file, `lnsnum.files.sharded` what is in an index; docs/weight_file.md specifies
both. Writing is atomic, reading goes one tensor at a time and executes nothing that the files say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from lnsnum.files.atomic import StrPath, naming, replacing, shown, target_of
from lnsnum.files.layout import (
    LAYOUT_VERSION,
    METADATA_KEY,
    OPTIMIZER,
    Blocks,
    Content,
    Description,
    OptimizerPart,
    WeightFileError,
)
from lnsnum.files.sharded import INDEX_SUFFIX, delete_set, index_of, open_files, plan, write_set
from lnsnum.files.single import blocks_of, check_name, check_state, check_texts, describe_tensor, write
from lnsnum.tensor import LNSTensor

__all__ = [
    "LAYOUT_VERSION",
    "METADATA_KEY",
    "Description",
    "OptimizerPart",
    "OptimizerState",
    "WeightFileError",
    "Weights",
    "iterate_weights",
    "load_metadata",
    "load_optimizer",
    "load_shapes",
    "load_weights",
    "replacing",
    "save_tensors",
    "save_weights",
]

Weights = dict[str, LNSTensor | NDArray[Any]]
"""The tensors of a file, by name."""


class OptimizerState(NamedTuple):
    """What an optimizer needs to go on from a file: it travels in a section of its own."""

    state: Mapping[str, Any]
    """What is no tensor: an object of JSON."""
    tensors: Mapping[str, NDArray[Any]]
    """Plain ones, by names of their own."""


def save_weights(
    path: StrPath,
    weights: Mapping[str, LNSTensor | NDArray[Any]],
    *,
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int | None = None,
    packed: bool = False,
    optimizer: OptimizerState | None = None,
) -> Path:
    """Write tensors to a weight file, atomically: at any moment the old file or the new one is there, whole.

    Args:
        path: the file; an existing one is replaced, and so is a set that an earlier call with this path wrote.
        weights: tensors by name: LNSTensor as codes, NumPy arrays as they are (bfloat16 by ml_dtypes).
        metadata: free text for people and programs, strings by name, such as a model card.
        max_shard_bytes: where the tensors have more bytes in all, they go to several files, each with at most so many
            (or with one larger tensor), and the index `path` + ".index.json" says which is where. One file where it is
            not given.
        packed: leave out the unused bits of codes: a 4-bit tensor takes half a byte an element, not one.
        optimizer: an optimizer's state, for `load_optimizer`; other readers need not know of it.

    Returns:
        What was written: the file, or the index, which is beside it. Loading takes either, and `path` as well.

    Raises:
        TypeError, ValueError: for names, values or entries that cannot be stored; nothing is written then.
        OSError: where a file cannot be written; the old ones are left as they were.
        ImportError: without safetensors and ml_dtypes (the extra `files`).
    """
    for name in weights:
        check_name(name)
    return save_tensors(
        path,
        {name: describe_tensor(name, tensor, packed=packed) for name, tensor in weights.items()},
        lambda name: blocks_of(weights[name]),
        metadata=metadata,
        max_shard_bytes=max_shard_bytes,
        optimizer=None if optimizer is None else _part(optimizer),
    )


def _part(optimizer: OptimizerState) -> OptimizerPart:
    tensors = optimizer.tensors
    descriptions = {name: describe_tensor(name, tensor) for name, tensor in tensors.items()}
    for name, told in descriptions.items():
        if told.fmt is not None:
            raise TypeError(f"tensor {name!r} of the optimizer is an LNSTensor: its section holds NumPy arrays")
    return OptimizerPart(optimizer.state, descriptions, lambda name: blocks_of(tensors[name]))


def save_tensors(
    path: StrPath,
    descriptions: Mapping[str, Description],
    blocks: Blocks,
    *,
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int | None = None,
    optimizer: OptimizerPart | None = None,
) -> Path:
    """Write tensors that are made while they are written, as `save_weights` does: one block of one tensor at a time.

    Args:
        path: as of `save_weights`.
        descriptions: what each tensor is, by name.
        blocks: given a name, the tensor's elements: arrays of its type and one dimension, one after another.
        metadata: as of `save_weights`.
        max_shard_bytes: as of `save_weights`.
        optimizer: an optimizer's state, its tensors made while they are written too.

    Returns:
        As `save_weights`.

    Raises:
        As `save_weights`.
    """
    if max_shard_bytes is not None and (type(max_shard_bytes) is not int or max_shard_bytes < 1):
        raise ValueError(f"max_shard_bytes={max_shard_bytes!r} is no size: give a number of bytes, at least 1, or None")
    texts = check_texts(metadata)
    for name in descriptions:
        check_name(name)
    target = target_of(path)
    if target.name.endswith(INDEX_SUFFIX):
        raise ValueError(f"{shown(path)} is the name of an index: give that of the file, without {INDEX_SUFFIX!r}")
    moments: Mapping[str, Description] = {}
    state, their_blocks = None, blocks
    if optimizer is not None:
        state, moments, their_blocks = check_state(optimizer.state), optimizer.tensors, optimizer.blocks
        for name in moments:
            check_name(name)
    whole = Content(descriptions, texts, state, moments)
    shards = [whole] if max_shard_bytes is None else _shards(whole, max_shard_bytes)
    whole.parts  # noqa: B018 -- two tensors of one name are refused before anything is written
    if len(shards) > 1:
        with naming(path, writing=True):
            index = write_set(target, shards, blocks, their_blocks)
        return index if os.path.islink(path) else index_of(Path(path))
    with replacing(path, index_of(target)) as temporary:
        write(temporary, whole, blocks, their_blocks)
    delete_set(target)
    return Path(path)


def _shards(whole: Content, max_shard_bytes: int) -> list[Content]:
    """What goes into each file of a set: the offsets of a tensor with its codes, the metadata and the state in all."""
    # an LNS tensor and one of the optimizer can have one name, so the latter are planned by what they are stored as
    sizes = {name: told.nbytes for name, told in whole.tensors.items()}
    named = {name + OPTIMIZER: name for name in whole.moments}
    sizes |= {stored: whole.moments[name].nbytes for stored, name in named.items()}
    return [
        replace(
            whole,
            tensors={name: whole.tensors[name] for name in names if name in whole.tensors},
            moments={named[name]: whole.moments[named[name]] for name in names if name in named},
        )
        for names in plan(sizes, max_shard_bytes)
    ]


def load_weights(path: StrPath) -> Weights:
    """The tensors of a weight file by name: LNSTensor where the file holds codes, NumPy arrays otherwise.

    Args:
        path: the file, the index of a set, or the path that the set was saved under.

    Raises:
        WeightFileError: where a file or index is damaged, foreign, of a later layout, or holds codes outside their
            format.
        OSError: where it cannot be read.
        ImportError: without safetensors and ml_dtypes (the extra `files`).
    """
    with open_files(path) as files:
        return {name: files.read(name) for name in files.names}


def iterate_weights(path: StrPath) -> Iterator[tuple[str, LNSTensor | NDArray[Any]]]:
    """Name and tensor of one after another: no two need be in memory. Arguments and errors as of `load_weights`.

    An error comes when its tensor's turn comes; one of a header or an index at the first. A loop's variable keeps a
    tensor until the next is there: `del` it at the end of the body where there is memory for one only.
    """
    with open_files(path) as files:
        for name in files.names:
            yield name, files.read(name)


def load_shapes(path: StrPath) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a weight file by name, from headers alone. Errors as for `load_weights`."""
    with open_files(path) as files:
        return {name: files.shape(name) for name in files.names}


def load_metadata(path: StrPath) -> dict[str, str]:
    """The metadata entries that `save_weights` was given. Errors as for `load_weights`."""
    with open_files(path) as files:
        return files.texts


def load_optimizer(path: StrPath) -> OptimizerState | None:
    """The state of the optimizer that `save_weights` was given; None where there is none. Errors as `load_weights`.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     state = OptimizerState({"step": 7}, {"w.moment": np.zeros(3)})
    ...     path = save_weights(f"{folder}/w.safetensors", {"w": np.ones(3)}, optimizer=state)
    ...     load_weights(path), load_optimizer(path)
    ({'w': array([1., 1., 1.])}, OptimizerState(state={'step': 7}, tensors={'w.moment': array([0., 0., 0.])}))
    """
    with open_files(path) as files:
        if files.state is None:
            return None
        return OptimizerState(files.state, {name: files.read_moment(name) for name in files.moments})
