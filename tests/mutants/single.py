"""Mutants of a single file: which mutations a seed stands for."""

from __future__ import annotations

import copy
import random

from . import parts, tensors
from .content import BYTES, lie_about_the_length, repaired, truncate
from .corpus import corpus
from .files import File

STRUCTURAL = [
    parts.set_a_value, parts.set_a_value, parts.change_a_name, parts.change_a_name, tensors.change_a_shape,
    tensors.change_a_shape, tensors.empty_a_tensor, tensors.change_a_dtype, tensors.change_offsets,
    tensors.change_the_data, tensors.spoil_codes, tensors.spoil_codes, tensors.change_a_format, tensors.change_a_format,
    tensors.change_a_log_offset, tensors.change_a_log_offset, tensors.change_packing, tensors.change_a_checksum,
    parts.change_the_layout, parts.change_the_metadata, parts.change_the_optimizer, tensors.change_stored_offsets,
    tensors.name_a_tensor, parts.shuffle, tensors.exchange_tensors, parts.splice_parts, parts.edit_the_text,
]  # fmt: skip
"""Some of them twice: these are taken more often."""


def is_repaired(seed: int) -> bool:
    return seed % 2 == 1


def mutate(file: File, rng: random.Random, repair: bool) -> tuple[bytes, list[str]]:
    """The bytes of a file after 1 to 3 mutations, and what these did."""
    steps = rng.choice([1, 1, 1, 1, 2, 2, 3])
    structural = sum(rng.random() < 0.75 for _ in range(steps))
    done: list[str] = []
    for _ in range(structural):
        for _ in range(20):  # some find nothing to change in some files
            if what := rng.choice(STRUCTURAL)(file, rng):
                done.append(what)
                break
    content = file.bytes()
    for _ in range(steps - structural):
        if content:
            content, what = rng.choice(BYTES)(content, rng)
            done.append(what)
    if repair:
        content = repaired(content)
    if rng.random() < 0.06:
        content, what = rng.choice([truncate, lie_about_the_length])(content, rng)
        done.append(what)
    return content, [*done, "checksums repaired"] if repair else done


def mutant_and_story(seed: int) -> tuple[bytes, str]:
    """The mutant of a seed, and what was done to which file of the corpus."""
    rng = random.Random(seed)
    which = rng.randrange(len(corpus()))
    content, done = mutate(copy.deepcopy(corpus()[which]), rng, is_repaired(seed))
    return content, f"corpus file {which}: " + "; ".join(done)


def mutant(seed: int) -> bytes:
    """The mutant of a seed: a function of the seed alone."""
    return mutant_and_story(seed)[0]
