"""The test bench of a Verilog module: reads vectors of operands, writes what comes out, bit by bit.

    combinational    operands  ->  wait  ->  result
    clocked          operands, edge, operands, edge, ...        the result of operands is there after `latency` edges

Operands are x before the first vector and after the last one, and so are results that are taken too early or too late.
Verilog of 2001 and `$bits`, which both Icarus and Verilator know; vectors are read one by one, as a memory has a
length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

NAME, INSTANCE = "lnsnum_bench", "lnsnum_tried"
"""The bench's module, and in it the one that is tried."""


@dataclass(frozen=True)
class Pins:
    """How a module is connected.

    Args:
        ports: the names of the operands and, last, that of the result.
        clock: of a clocked module: new operands are there before each rising edge.
        latency: after how many rising edges their result is there; at least 1 with a clock, 0 without.
        reset: is 1 for some cycles at first, or 0 if its name is written with a "!", as in "!rst_n".
        tied: integers for other ports.
        parameters: integers and strings for the module's parameters.
        settle: how long a result takes, and half a cycle of the clock, in the time unit of the module's last file.

    Raises:
        ValueError: where one of these cannot be meant.
    """

    ports: tuple[str, ...] = ("a", "b", "out")
    clock: str | None = None
    latency: int = 0
    reset: str | None = None
    tied: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, int | str] = field(default_factory=dict)
    settle: int = 1

    def __post_init__(self) -> None:
        controls = [*([self.clock] if self.clock else []), *([self.reset.removeprefix("!")] if self.reset else [])]
        check_names("ports", [*self.ports, *controls, *self.tied])
        check_names("parameters", self.parameters)
        if len(self.ports) < 2:
            raise ValueError(f"ports={self.ports!r} are too few: those of the operands and, last, that of the result")
        if self.latency < 0 or (self.clock is None) != (self.latency == 0):
            raise ValueError(f"latency={self.latency} with clock={self.clock!r}: 1 or more with a clock, 0 without")
        if self.reset is not None and self.clock is None:
            raise ValueError(f"reset={self.reset!r} without a clock: name the clock too")
        if self.settle < 1:
            raise ValueError(f"settle={self.settle} is out of range: 1 time unit or more")

    @property
    def operands(self) -> int:
        """How many operands there are."""
        return len(self.ports) - 1

    def bench(self, top: str, bits: int, vectors: str, results: str) -> str:
        """The text of the bench for a module whose ports have so many bits; the last two are paths."""
        operands = [f"operand{i}" for i in range(self.operands)]
        wires = dict(zip(self.ports, [*operands, "result"], strict=True))
        wires |= {name: str(int(value)) for name, value in self.tied.items()}
        if self.clock is not None:
            wires[self.clock] = "clock"
        if self.reset is not None:
            wires[self.reset.removeprefix("!")] = "!reset" if self.reset.startswith("!") else "reset"
        parameters = {name: _literal(value) for name, value in self.parameters.items()}
        instance = f"{top} {f'#({_connected(parameters)}) ' if parameters else ''}{INSTANCE} ({_connected(wires)});"
        widths = "".join(
            f"""
        if ($bits({INSTANCE}.{name}) != {bits}) $fdisplay(results, "{name} %0d", $bits({INSTANCE}.{name}));"""
            for name in self.ports
        )
        words = ", ".join(operands)
        trial = _COMBINATIONAL if self.clock is None else (_RESET if self.reset else "") + _CLOCKED
        return f"""\
module {NAME};
    parameter SETTLE = {self.settle}, LATENCY = {self.latency};
    reg [{bits - 1}:0] {words};
    wire [{bits - 1}:0] result;
    reg clock, reset;
    integer vectors, results, given, taken, edges, more;

    {instance}

    task read;
        begin
            more = $fscanf(vectors, "{" ".join(["%h"] * self.operands)}\\n", {words}) == {self.operands};
            if (more) given = given + 1;
            else begin {" ".join(f"{name} = {bits}'bx;" for name in operands)} end
        end
    endtask

    task write;
        begin
            $fdisplay(results, "%b", result);
            taken = taken + 1;
        end
    endtask

    initial begin
        vectors = $fopen({_literal(vectors)}, "r");
        results = $fopen({_literal(results)}, "w");
        given = 0; taken = 0; clock = 0; reset = 1;{widths}
{trial}        $fclose(results);
        $finish(0);
    end
endmodule
"""


_COMBINATIONAL = """\
        read;
        while (more) begin
            #SETTLE write;
            read;
        end
"""

_CLOCKED = """\
        edges = 0;
        read;
        while (taken < given) begin
            #SETTLE clock = 1;
            #SETTLE edges = edges + 1;
            if (edges >= LATENCY) write;
            clock = 0;
            if (more) read;
        end
"""

_RESET = """\
        repeat (LATENCY + 2) begin #SETTLE clock = 1; #SETTLE clock = 0; end
        reset = 0;
"""


def check_names(what: str, names: Iterable[str]) -> None:
    """ValueError where a name is none of Verilog's, or stands twice."""
    seen: set[str] = set()
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*", name):
            raise ValueError(f"{what} has {name!r}, which is no name of Verilog's: letters, digits, _ and $")
        if name in seen:
            raise ValueError(f"{what} has {name!r} twice: name each once")
        seen.add(name)


def _literal(value: int | str) -> str:
    if isinstance(value, int):
        return str(int(value))
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _connected(wires: Mapping[str, str]) -> str:
    return ", ".join(f".{name}({wire})" for name, wire in wires.items())
