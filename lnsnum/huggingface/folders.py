"""A model's folder on disk becomes one of codes: what `lnsnum convert MODEL_FOLDER OUT_FOLDER` does.

config.json        says which model it is, and what is asked              written anew
*.safetensors      floats, one tensor after the other                     codes
tokenizer, card    small files of text                                    copied
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import logging

from lnsnum.files.atomic import StrPath, shown
from lnsnum.huggingface.config import LNSConfig
from lnsnum.torch_bridge.reports import ConversionReport
from lnsnum.torch_bridge.tables import Table, Tabular

COPIED = frozenset({".json", ".jinja", ".md", ".model", ".tiktoken", ".txt"})
"""Endings of files that go over as they are: of tokenizers, processors, licences, cards."""


class ModelFolderError(ValueError):
    """A folder that holds no model of transformers, or one whose weights are not all there; the message says which."""


@dataclass(frozen=True)
class FolderReport(Tabular):
    """What became of a folder."""

    architecture: str
    conversion: ConversionReport
    bytes_before: int
    """Of the parameters, as floats of the type that the folder has them in."""
    bytes_after: int
    """Of the codes and their scales, and of what stayed float."""
    copied: tuple[str, ...]
    left_out: tuple[str, ...]
    """Names in the folder that are no weights and were not copied."""
    unused: tuple[str, ...]
    """Tensors of the folder that the model has no place for."""

    def to_table(self) -> Table:
        """That of the conversion, and what became of the rest."""
        told = {"copied": self.copied, "not copied": self.left_out, "no place in the model": self.unused}
        notes = [f"{self.architecture}: {self.bytes_before:,} bytes, {self.bytes_after:,} as codes"]
        notes += [f"{what}: {', '.join(names)}" for what, names in told.items() if names]
        table = self.conversion.to_table()
        return replace(table, notes=[*table.notes, *notes])


def convert_folder(
    source: StrPath, into: StrPath, config: LNSConfig, *, max_shard_bytes: int | None = None
) -> FolderReport:
    """Write a folder of codes that `from_pretrained` loads, from one of floats.

    Args:
        source: a folder as `save_pretrained` writes it.
        into: an empty folder.
        config: what is asked.
        max_shard_bytes: where the tensors have more bytes in all, they go to several files.

    Raises:
        ModelFolderError: where the source is no such folder, holds codes already, or lacks a weight.
        ValueError: where a parameter cannot be converted.
    """
    source, into = Path(source), Path(into)
    architecture = _architecture(source)
    with _quiet():
        try:
            model, told = getattr(transformers, architecture).from_pretrained(
                source, quantization_config=config, local_files_only=True, output_loading_info=True
            )
        except RuntimeError:  # of transformers, which keeps to itself what was wrong with a tensor
            _check_values(source)
            raise
        if told["missing_keys"]:
            lacking = sorted(told["missing_keys"])
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise ModelFolderError(f"{shown(source)} lacks weights of {architecture}: {lacking[0]!r}{more}")
        more_shards = {} if max_shard_bytes is None else {"max_shard_size": max_shard_bytes}
        model.save_pretrained(into, **more_shards)
    written = {path.name for path in into.iterdir()}
    others = [path for path in sorted(source.iterdir()) if not _is_of_weights(path) and path.name not in written]
    copied = [path for path in others if path.is_file() and path.suffix in COPIED]
    for path in copied:
        shutil.copyfile(path, into / path.name)
    return FolderReport(
        architecture,
        model.hf_quantizer.report(model),
        sum(p.numel() * p.dtype.itemsize for p in model.parameters()),
        sum(p.nbytes for p in model.parameters()),
        tuple(path.name for path in copied),
        tuple(path.name for path in others if path not in copied),
        tuple(sorted(told["unexpected_keys"])),
    )


def _architecture(source: Path) -> str:
    """The class of transformers that the folder's config.json names."""
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(f"{shown(source)} is no folder of a model: it has no config.json") from None
    except (ValueError, RecursionError):
        raise ModelFolderError(f"{shown(source / 'config.json')} is not JSON") from None
    names = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ModelFolderError(f"{shown(source / 'config.json')} names no architecture: it is none of transformers")
    if config.get("quantization_config"):
        raise ModelFolderError(f"{shown(source)} is quantized already: dequantize it first, and save it as floats")
    kind = getattr(transformers, names[0], None)
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
        raise ModelFolderError(
            f"{shown(source)} is of {names[0]}, which transformers {transformers.__version__} has not: models with "
            "code of their own are converted by quantize_model"
        )
    return names[0]


def _check_values(source: Path) -> None:
    """Name a tensor that has values which no format holds."""
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is no mapping)
                tensor = file.get_tensor(name)
                bad = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
                if bad:
                    raise ModelFolderError(f"{shown(path)}: {name!r} has {bad} values that are NaN or infinite")


def _is_of_weights(path: Path) -> bool:
    return path.suffix in {".safetensors", ".bin"} or path.name.endswith((".safetensors.index.json", ".bin.index.json"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Let transformers say nothing: what it would tell of keys is in the report, or raised."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
