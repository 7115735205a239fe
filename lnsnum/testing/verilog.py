"""A module of Verilog, simulated: a file of vectors goes in, a file of results comes out.

    codes  ->  vectors.txt  ->  bench and module, compiled once, by Icarus or Verilator  ->  results.txt  ->  codes

Bits that are x or z, ports of another width than the codes, and a simulation that ends early are told of, not guessed
at. Memories that a module reads are looked for in the current folder, as in every simulation. Verilator knows no x and
no z: what was never set has random bits there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lnsnum.format import LNSFormat, check_choice
from lnsnum.testing.foreign import Array, CallError, Foreign, run
from lnsnum.testing.verilog_bench import INSTANCE, NAME, Pins, check_names

Simulator = Literal["icarus", "verilator"]

_PROGRAMS = {"icarus": ("iverilog", "vvp"), "verilator": ("verilator",)}
_PACKAGES = {"icarus": "iverilog", "verilator": "verilator"}

_Paths = str | os.PathLike[str]


class VerilogModule(Foreign):
    """A module that computes one operation on codes, combinational or clocked.

    Args:
        sources: its file, or all its files.
        top: its name.
        fmt: the format, or its name: operands and result are as wide as its codes.
        pins: how it is connected; unless said otherwise two operands a and b give out, without a clock.
        simulator: "icarus" or "verilator".
        arguments: more for the compiler, such as "-Iinclude".

    Raises:
        FileNotFoundError: where a file or the simulator is not there.
        ValueError: where there is no file, or they cannot be compiled; with the compiler's line.
    """

    def __init__(
        self,
        sources: _Paths | Sequence[_Paths],
        top: str,
        fmt: LNSFormat | str,
        pins: Pins | None = None,
        *,
        simulator: Simulator = "icarus",
        arguments: Sequence[str] = (),
    ) -> None:
        files = [Path(each) for each in ([sources] if isinstance(sources, (str, os.PathLike)) else sources)]
        check_choice("simulator", simulator, Simulator)
        check_names("top", [top])
        if not files:
            raise ValueError("sources is empty: give the files of the module")
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"{file} is no file: give the module's source")
        for program in _PROGRAMS[simulator]:
            if shutil.which(program) is None:
                raise FileNotFoundError(f"{program} is not installed: apt-get install {_PACKAGES[simulator]}")
        self.top, self.pins, self.bits = top, pins or Pins(), LNSFormat.of(fmt).bits
        folder = Path(tempfile.mkdtemp(prefix="lnsnum-verilog-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.vectors, self.results, bench = (folder / name for name in ("vectors.txt", "results.txt", "bench.v"))
        bench.write_text(self.pins.bench(top, self.bits, str(self.vectors), str(self.results)), encoding="utf-8")
        # the bench is the last file: no directive of its own reaches the others, and theirs give it their time unit
        words = [*arguments, *map(str, files), str(bench)]
        compiling, self.words = _COMMANDS[simulator](folder, words)
        _compile(compiling, {str(bench): "the bench", INSTANCE: top})

    def ask(self, inputs: tuple[Array, ...], seconds: float) -> NDArray[np.int64]:
        """Simulate it once for all vectors."""
        if inputs[0].dtype.kind != "u":
            raise CallError(f"cannot be asked: its ports take codes, and these are of {inputs[0].dtype}")
        if len(inputs) != self.pins.operands:
            raise CallError(
                f"cannot be asked: {self.top} has {self.pins.operands} ports for operands, and there are {len(inputs)}"
            )
        rows = zip(*(x.tolist() for x in inputs), strict=True)
        self.vectors.write_text("".join(" ".join(f"{code:x}" for code in row) + "\n" for row in rows))
        self.results.unlink(missing_ok=True)
        run(self.words, seconds)
        said = self.results.read_text() if self.results.exists() else ""
        if width := re.match(r"(\w\S*) (\d+)$", said, re.MULTILINE):
            raise CallError(f"cannot be asked: port {width[1]} has {width[2]} bits, and codes have {self.bits}")
        lines = said.split()
        if bad := re.search(r"[01]*[xz][01xz]*", said):
            why = "unknown" if "x" in bad[0] else "driven by nobody"
            late = "" if self.pins.clock is None else f", or state another latency than {self.pins.latency}"
            raise CallError(f"was answered {bad[0]!r}, bits that are {why}: set all bits of the result{late}")
        if len(lines) != len(inputs[0]):
            raise CallError(
                f"and what follows: the simulation ended after {len(lines)} of {len(inputs[0])} results: let it go on"
            )
        return np.fromiter((int(line, 2) for line in lines), np.int64, len(lines))


# ------------------------------------------------------------------------------------------------------ the simulators


def _icarus(folder: Path, words: list[str]) -> tuple[list[str], list[str]]:
    target = str(folder / "simulation")
    # of 2012, which reads what the older ones do but for new keywords: another generation among the words wins
    return ["iverilog", "-g2012", "-s", NAME, "-o", target, *words], ["vvp", "-n", target]  # -n: $stop ends it


def _verilator(folder: Path, words: list[str]) -> tuple[list[str], list[str]]:
    options = ["--binary", "-Wno-fatal", "--x-initial", "unique", "--x-assign", "unique", "--top-module", NAME]
    compiling = ["verilator", *options, "--Mdir", str(folder), "-o", "simulation", *words]
    return compiling, [str(folder / "simulation"), "+verilator+rand+reset+2", "+verilator+seed+1"]


_COMMANDS = {"icarus": _icarus, "verilator": _verilator}
"""How a simulator compiles words into a folder, and how it runs what is there."""


def _compile(words: list[str], renamed: dict[str, str]) -> None:
    done = subprocess.run(words, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace")
        for name, meaning in renamed.items():
            said = said.replace(name, meaning)
        lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
        errors = [line for line in lines if re.search(r"error|fatal", line, re.IGNORECASE)]
        raise ValueError(f"{words[0]} cannot compile the module: {(errors or lines or ['it does not say why'])[0]}")
