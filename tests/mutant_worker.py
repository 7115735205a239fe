"""What becomes of mutants: a process that reads seeds, one a line, and answers each with a line of JSON.

    {"seed": "7", "verdict": "loads" | "refused" | "failure", "says": the refusal, or what is wrong}

Little memory, little time for each, and an eye on all that Python opens, imports and starts. A mutant that kills the
process is the first without an answer. `python tests/mutant_worker.py FOLDER SECONDS` is started by
tests/files/test_mutants.py. Instead of a seed it takes the name of one of MISDEEDS, to see that these are found.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import mutants

HEADROOM = 32 << 20
"""Bytes that the process may take beyond what it has when it is warm: no mutant has a hundredth of them, and what its
header promises may not be allocated."""
LONGEST_REFUSAL = 600

MISDEEDS = {
    "crash": os.abort,
    "hang": lambda: any(iter(int, 1)),
    "hoard": lambda: bytearray(2 * HEADROOM),
    "raise": lambda: int("x"),
    "import": lambda: __import__("colorsys"),
    "look elsewhere": lambda: open("/proc/self/stat").close(),
    "write elsewhere": lambda: open(Path(place).parent / "elsewhere", "w").close(),
    "start a program": lambda: os.system("true"),
}
"""What no file may bring a reader to do."""

ON_FILES = {"open", "os.chmod", "os.rename", "os.remove"}
HARMLESS = {"builtins.id"}
"""All that may happen while weights are read and saved, of what Python tells audit hooks: the former in the folder."""

watched: list[str] | None = None
"""What the process did that it should not; None while nobody looks."""
place = ""


def look(event: str, args: tuple[Any, ...]) -> None:
    if watched is None or event in HARMLESS:
        return
    paths = [os.fsdecode(arg) for arg in args if isinstance(arg, (str, bytes, os.PathLike))]
    if event == "open":
        paths = paths[:1]  # what follows is the mode; a descriptor is no path
    if event not in ON_FILES or not all(path.startswith(place) for path in paths):
        watched.append(f"{event} {args!r:.200}")


def picture(weights: dict[str, Any]) -> dict[str, Any]:
    """The weights, as something that can be compared."""
    return {
        name: (value.dtype.name, value.shape, value.tobytes())
        if not hasattr(value, "codes")
        else (value.fmt, value.codes.dtype.name, value.shape, value.codes.tobytes(), offset(value.log_offset))
        for name, value in weights.items()
    }


def offset(value: Any) -> Any:
    if hasattr(value, "group_size"):
        return value.group_size, value.axis, offset(value.offsets)
    return value if isinstance(value, int) else (value.shape, value.tolist())


def attempt(read: Any, path: Path) -> tuple[Any, str]:
    """What a function reads, or how it refuses: one line, of no great length, that names a file that there is."""
    from lnsnum.weight_file import WeightFileError

    try:
        return read(path), ""
    except WeightFileError as error:
        text = str(error)
    assert text.isprintable(), f"refusal of more than one line: {text!r}"
    assert len(text) <= LONGEST_REFUSAL + len(str(path)), f"refusal of {len(text)} characters: {text[:100]!r}"
    assert text.startswith(str(path.parent)), f"refusal that names no file: {text!r}"
    assert path.name.endswith(".json") or text.startswith(str(path)), f"refusal that does not name the file: {text!r}"
    assert "memory" not in text, f"memory asked for on the word of a header: {text!r}"
    return None, text


def check(path: Path, out: Path) -> str:
    """The refusal of a file; "" if it loads, and can be saved again. AssertionError where neither is so."""
    from lnsnum.files.sharded import open_files
    from lnsnum.weight_file import load_metadata, load_shapes, load_weights, save_weights

    weights, refusal = attempt(load_weights, path)
    metadata, no_metadata = attempt(load_metadata, path)
    shapes, no_shapes = attempt(load_shapes, path)
    if refusal:
        return refusal
    if no_metadata.endswith(": the metadata of its shards differ"):  # what is wrong there is no tensor
        no_metadata, metadata = "", {}
    assert not no_metadata, f"loads, but not its metadata: {no_metadata!r}"
    assert not no_shapes, f"loads, but not its shapes: {no_shapes!r}"
    assert shapes == {name: value.shape for name, value in weights.items()}, f"other shapes: {shapes}"
    expected = picture(weights)
    with open_files(path) as files:
        for name, value in weights.items():
            data = b"".join(block.tobytes() for block in files.blocks(name))
            assert data == getattr(value, "codes", value).tobytes(), f"block by block {name!r} is something else"
    most = 100 if path.name.endswith(".json") else None
    for packed in (False, True):
        written = save_weights(out / "w", weights, metadata=metadata, packed=packed, max_shard_bytes=most)
        assert picture(load_weights(written)) == expected, f"saved with packed={packed} it loads to something else"
        assert load_metadata(written) == metadata, "saved it has other metadata"
    return ""


def verdict(seed: str, folder: Path, seconds: float = 0.0) -> tuple[str, str]:
    """What becomes of a mutant, and what is said of it. The folder is its own, and is emptied.

    After so many seconds the process is killed; after 0 it is not.
    """
    global watched
    source, out = folder / "in", folder / "out"
    for path in (*source.iterdir(), *out.iterdir()):
        path.unlink()
    path = mutants.write("0" if seed in MISDEEDS else seed, source)
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    _read_by(8 if seed[-1] in "02468" else 1 << 20)
    loaded = set(sys.modules)
    watched = []
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        MISDEEDS.get(seed, bool)()
        refusal = check(path, out)
        wrong = ""
    except Exception as error:
        refusal, wrong = "", f"{type(error).__name__}: {error}"
    signal.setitimer(signal.ITIMER_REAL, 0)
    did, watched = watched, None
    if did:
        wrong = wrong or f"did more than read and write files in its folder: {did[:3]}"
    if set(sys.modules) - loaded:
        wrong = wrong or f"imported {sorted(set(sys.modules) - loaded)}"
    if {file.name: file.read_bytes() for file in source.iterdir()} != before:
        wrong = wrong or "the files that were read are not what they were"
    return ("failure", wrong[:2000]) if wrong else ("refused", refusal) if refusal else ("loads", "")


def _read_by(elements: int) -> None:
    """Let blocks have so many elements: none of our tensors has as many as they have otherwise."""
    from lnsnum.files import single as single_file

    assert single_file.BLOCK % 8 == 0
    single_file.BLOCK = elements


def warm(folder: Path) -> None:
    """Do once all that sound files need, and some refusals, so that later nothing is imported any more."""
    global place
    place = str(folder)
    (folder / "in").mkdir(exist_ok=True)
    (folder / "out").mkdir(exist_ok=True)
    os.fsync = lambda descriptor: None  # what a crash of the machine would leave is not the question here
    index, shards = mutants.sound_set()
    path = folder / "out" / mutants.INDEX
    path.write_text(json.dumps(index))
    for name, file in shards.items():
        path.with_name(name).write_bytes(file.bytes())
    for elements in (8, 1 << 20):
        _read_by(elements)
        assert check(path, folder / "in") == ""
        for content in [b"", mutants.container(b"{}", b""), *(file.bytes() for file in mutants.corpus())]:
            file = folder / "out" / "w.safetensors"
            file.write_bytes(content)
            refusal = check(file, folder / "in")
            assert bool(refusal) == (len(content) < 20), refusal


def template(refusal: str) -> str:
    """What kind of refusal it is: without names and numbers, and without what safetensors says of a header."""
    text = re.sub(r"^\S*/", "", refusal)
    text = re.sub(r"(no safetensors file: ).*", r"\1...", text)
    text = re.sub(r"'(?:[^'\\]|\\.)*('|\.\.\.$)|\"(?:[^\"\\]|\\.)*(\"|\.\.\.$)", "'...'", text)
    text = re.sub(r"\b[0-9a-f]{8}\b|\b[BIFU]+[0-9]+_?\w*", "#", text)
    text = re.sub(r"[\[({].*[\])}]", "(...)", text)
    return re.sub(r"-?\b(?:0x)?[0-9][0-9a-f.+e-]*|\b(?:nan|inf|lns\w+|u?int\d+|b?float\d+|bool)\b", "#", text)


def main() -> None:
    import resource  # there is none on Windows

    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    warm(folder)
    sys.addaudithook(look)
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize() + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        outcome, says = verdict(line.strip(), folder, seconds)
        print(json.dumps({"seed": line.strip(), "verdict": outcome, "says": says}), flush=True)


if __name__ == "__main__":
    main()
