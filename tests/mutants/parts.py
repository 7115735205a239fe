"""Mutations of the header, the description and the metadata: of anything in them, whatever it is.

Each changes a File in place and says in a few words what it did, or None where it finds nothing to change.
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from .corpus import corpus
from .files import File, Raw, dumps
from .values import brief, edit_text, odd_value


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a tree of objects and lists."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in members for place in [(value, key), *places(inner)]]


def tree_of(file: File, rng: random.Random) -> tuple[str, Any]:
    return rng.choice([("description", file.description), ("description", file.description), ("header", file.header)])


def set_a_value(file, rng):
    where, tree = tree_of(file, rng)
    if at := places(tree):
        inside, key = rng.choice(at)
        old = inside[key]
        like_it = isinstance(old, int) and abs(old) < 2**1000 and rng.random() < 0.3  # as a float it has room
        inside[key] = rng.choice([str(old), [old], {"a": old}, float(old), -old]) if like_it else odd_value(rng)
        return f"{where}: {key!r} was {brief(old)}, now {brief(inside[key])}"
    return None


def change_a_name(file, rng):
    where, tree = tree_of(file, rng)
    objects = [value for value in [tree, *(inside[key] for inside, key in places(tree))] if isinstance(value, dict)]
    target = rng.choice([value for value in objects if value] or [{}])
    if not target:
        return None
    key, how = rng.choice(list(target)), rng.randrange(4)
    if how == 0:
        del target[key]
        return f"{where}: {key!r} is gone"
    if how == 1:
        others = ["\ud800", "", "a", "__metadata__", "é", (key * 1000)[:20_000]]
        new = rng.choice([key + " ", key.upper(), key + "\0", *others])
        changed = {new if name == key else name: value for name, value in target.items()}
        target.clear()
        target.update(changed)
        return f"{where}: {key!r} is called {brief(new)}"
    if how == 2:
        target[rng.choice(["colour", "", "\0", "lnsnum", "packed", "metadata "])] = odd_value(rng)
        return f"{where}: a field more beside {key!r}"
    # A name twice: the object becomes text.
    value = target[key] if rng.random() < 0.5 else odd_value(rng)
    spelled = rng.choice([json.dumps(key), '"' + "".join(f"\\u{ord(c):04x}" for c in key if ord(c) < 65536) + '"'])
    twice = Raw(dumps(target)[:-1] + f", {spelled}: {dumps(value)}}}")
    for inside, at in places(tree):
        if inside[at] is target:
            inside[at] = twice
            return f"{where}: {key!r} twice"
    if where == "header":
        file.header = Raw(twice)
    else:
        file.description = twice
    return f"{where}: {key!r} twice"


def change_the_layout(file, rng):
    if isinstance(file.description, dict):
        odd = [0, 1, 2, 3, 4, -1, -2, 2**64 + 2, True, 2.0, "2", None, [2]]
        odd += [Raw("2e0"), Raw("02"), Raw("2" * 100_000), Raw("-0")]
        file.description["layout"] = rng.choice(odd)
        return f"layout is {brief(file.description['layout'])}"
    return None


def change_the_metadata(file, rng):
    if rng.random() < 0.5 and isinstance(file.description, dict):
        odd = [odd_value(rng), {"a": odd_value(rng)}, {"a": "b", "\ud800": Raw(r'"\udc00"')}]
        file.description["metadata"] = rng.choice([*odd, {"": ""}, {"a": None}, []])
        return f"metadata are {brief(file.description['metadata'])}"
    how = rng.randrange(4)
    if how == 0:
        file.metadata = rng.choice([None, Raw("null"), [], "lnsnum", 5, {}, {"format": "pt"}, odd_value(rng)])
    elif isinstance(file.metadata, dict):
        key = rng.choice(["lnsnum", "lnsnum_crc32", "format", "", "LNSNUM", "__metadata__"])
        file.metadata[key] = rng.choice(["text", "", odd_value(rng), {"a": "b"}, Raw(r'"\ud800"'), "\0"])
        if how == 1:
            del file.metadata[key]
    return f"__metadata__ is {brief(file.metadata)}"


def change_the_optimizer(file, rng):
    if not isinstance(file.description, dict):
        return None
    section = {"state": {}, "tensors": {}}
    inside = file.description.get("optimizer")
    if isinstance(inside, dict) and rng.random() < 0.7:
        key = rng.choice(["state", "tensors", "state", "colour"])
        inside[key] = odd_value(rng)
        if rng.random() < 0.3:
            del inside[key]
    else:
        odd = [odd_value(rng), None, {}, {"state": {}}, section, {**section, "state": []}, {**section, "tensors": []}]
        file.description["optimizer"] = rng.choice([*odd, {"state": {}, "tensors": {"x": {"crc32": "00000000"}}}])
    return f"the optimizer is {brief(file.description['optimizer'])}"


def shuffle(file, rng):
    """Another order of the same: sound."""
    for inside in [file.header, file.description, file.metadata]:
        if isinstance(inside, dict):
            members = list(inside.items())
            rng.shuffle(members)
            inside.clear()
            inside.update(members)
    return "another order"


def splice_parts(file, rng):
    other = copy.deepcopy(rng.choice(corpus()))
    part = rng.choice(["header", "description", "data", "metadata"])
    setattr(file, part, getattr(other, part))
    return f"{part} of another file"


def edit_the_text(file, rng):
    """Something in the text of the description; its checksum is that of the text then, unless something else is."""
    seed = rng.getrandbits(64)
    file.text_edits.append(lambda text: edit_text(text, random.Random(seed))[0])
    return f"description text: {edit_text(dumps(file.description), random.Random(seed))[1]}"
