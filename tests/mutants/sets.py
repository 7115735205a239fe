"""Mutants of a set: something is wrong in its index or in one of its shards."""

from __future__ import annotations

import random
from typing import Any

from .content import flip_bits, overwrite_bytes, truncate
from .corpus import MODEL, build, plain
from .files import File, dumps
from .parts import change_a_name, set_a_value
from .single import is_repaired, mutate
from .values import edit_text, odd_value

INDEX = "w.safetensors.index.json"
SHARDS = {f"w-{16 * letter}-{number:05}-of-00003.safetensors": number for number, letter in enumerate("0af", 1)}
"""As the writer calls them, so that saving over the set deletes them; and which tensors they have."""
FILES = [
    "../w", "..", ".", "", "/etc/passwd", "sub/x", "x\\y", "C:x", "x:y", "two\0", "\ud800", "two\nlines", "x" * 300,
    "w.safetensors", INDEX, "w.safetensors-", "sub", "/dev/zero", "/dev/stdin", "//x", "~", "$HOME", "file:///x",
    "e\u0301",
]  # fmt: skip
"""Names for a shard, which lead elsewhere or nowhere."""


def sound_set() -> tuple[dict[str, Any], dict[str, File]]:
    """Index and shards."""
    tensors = [[MODEL[0]], [MODEL[1], plain("a", "F64", 2, 2)], [MODEL[2]]]
    shards = {name: build(*tensors[number - 1], metadata={"k": "v"}) for name, number in SHARDS.items()}
    weight_map = {stored: name for name in shards for stored in shards[name].header}
    return {"metadata": {"total_size": 176}, "weight_map": weight_map}, shards


def set_mutant(seed: int) -> tuple[dict[str, bytes], str]:
    """The files of a set with something wrong in one of them, by name, and what was done."""
    rng = random.Random(f"set {seed}")
    index, shards = sound_set()
    files = {name: file.bytes() for name, file in shards.items()}
    name = rng.choice(list(shards))
    weight_map, tensor = index["weight_map"], rng.choice(list(index["weight_map"]))
    text, how = "", rng.randrange(9)
    if how < 2:
        files[name], done = mutate(shards[name], rng, is_repaired(seed))
        what = f"{name}: " + "; ".join(done)
    elif how == 2:
        weight_map[tensor] = rng.choice([*FILES, *SHARDS])
        what = f"the index puts {tensor!r} into {weight_map[tensor]!r}"
    elif how == 3:
        file = File(header={}, description=index)
        what = rng.choice([set_a_value, change_a_name])(file, rng) or "nothing"
        index = file.description
    elif how == 4:
        text, what = edit_text(dumps(index), rng)
    elif how == 5:
        other = rng.choice(list(shards))
        files[name] = files[other]
        what = f"{name} is {other}"
    elif how == 6:
        del files[name]
        what = f"{name} is missing"
    elif how == 7:
        shards[name].description["metadata"] = rng.choice([{}, {"k": "w"}, {"k": 1}, None, {"k": "v", "l": ""}])
        if rng.random() < 0.3:  # another layout, or a section of an optimizer that the others have not
            number = SHARDS[name]
            shards[name].description["optimizer"] = {"state": {"step": number}, "tensors": {}}
        files[name] = shards[name].bytes()
        what = f"{name} has metadata {shards[name].description['metadata']}"
    else:
        rng.choice([index, weight_map])[rng.choice(["colour", "", *FILES])] = odd_value(rng)
        what = "a field more in the index"
    encoded = (text or dumps(index)).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        encoded, more = rng.choice([flip_bits, overwrite_bytes, truncate])(encoded, rng)
        what += f"; index: {more}"
    return {**files, INDEX: encoded}, what
