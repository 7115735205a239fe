"""The readers of weight files beside lnsnum's own, lnsnum.h and the one of docs/weight_file.md, for tests to ask."""

import json
import struct
import subprocess
from pathlib import Path

import mutants
import numpy as np
import pytest

from lnsnum import LNSTensor
from lnsnum.kernels.codes import each_offset

HERE = Path(__file__).parent
SPECIFICATION = Path(__file__).parents[1] / "docs" / "weight_file.md"


def page():
    _, found, text = SPECIFICATION.read_text(encoding="utf-8").partition("## A reader on one page\n")
    assert found
    return text.split("```python\n")[1].split("```")[0]


def page_reader(path):
    """The page's `read` for the bytes of a file, which go to a path."""
    namespace = {}
    exec(compile(page(), "the reader on one page", "exec"), namespace)

    def read(data):
        path.write_bytes(data)
        return namespace["read"](path)

    return read


class ReaderInC:
    """lnsnum.h under the sanitizers for addresses and undefined behaviour; it has to live through all mutants."""

    def __init__(self, folder):
        header = HERE.parent / "lnsnum" / "c"
        options = ["-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{header}"]
        built = subprocess.run(
            ["cc", *options, HERE / "c" / "stream.c", "-o", folder / "stream", "-lm"], capture_output=True, text=True
        )
        if "unrecognized" in built.stderr or "cannot find" in built.stderr:
            pytest.skip("the compiler has no sanitizers")
        assert built.returncode == 0, built.stderr
        self.errors = open(folder / "errors of C", "w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [folder / "stream"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors
        )

    def read(self, content):
        """Lines of what is in a file, and "" or the refusal."""
        self.process.stdin.write(struct.pack("<Q", len(content)) + content)
        self.process.stdin.flush()
        lines = []
        for line in iter(self.process.stdout.readline, b""):
            words = line.decode().split()
            if words[0] == "loads":
                return sorted(lines), ""
            if words[0] == "refused":
                assert words[1] == "1"  # not for want of memory, or of the file
                return [], bytes.fromhex(words[2]).decode()
            lines.append(line.decode().rstrip("\n"))
        raise AssertionError(f"it ended with {self.process.wait()}: {self.error()}")

    def error(self):
        self.errors.seek(0)
        return self.errors.read()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        status = self.process.wait(60)
        error = self.error()
        self.errors.close()
        assert status == 0, error  # leaks are told at the end


def lines_of(weights, metadata, content):
    """What tests/c/stream.c prints of a file."""
    header, _ = mutants.parted(content)
    told = json.loads(header)
    about = json.loads(told.pop("__metadata__")["lnsnum"])
    codes = ".lnsnum_codes" if about["layout"] > 2 else ""
    stored = {name: name + codes * isinstance(value, LNSTensor) for name, value in weights.items()}
    dtypes = {name: told[own]["dtype"] for name, own in stored.items()}
    lines = [f"metadata {key.encode().hex()} {value.encode().hex()}" for key, value in metadata.items()]
    for name, value in weights.items():
        line = f"tensor {name.encode().hex()} {dtypes[name]} {''.join(f'{size},' for size in value.shape)} "
        if isinstance(value, np.ndarray):
            lines.append(line + value.tobytes().hex())
            continue
        # C has groups as they stand there, lnsnum a single one as a channel
        offset = about["tensors"].get(name, {}).get("log_offset")
        groups = (
            [offset.get(key) for key in ("group_size", "axis")] if about["layout"] > 2 and type(offset) is dict else []
        )
        offsets = each_offset(value.log_offset)
        fmt, codes = value.fmt, "".join(f"{code:x}," for code in value.codes.reshape(-1).tolist())
        line += f"{fmt.bits} {fmt.fraction_bits} {struct.unpack('<Q', struct.pack('<d', fmt.base))[0]:x} {codes} "
        line += "".join(f"{size}," for size in offsets.shape) + " "
        line += "".join(f"{offset}," for offset in offsets.reshape(-1).tolist())
        lines.append(line + (" groups of {} along {}".format(*groups) if groups and groups[0] is not None else ""))
    return sorted(lines)
