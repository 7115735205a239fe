"""Modules of Verilog, simulated by Icarus and, where it is installed, Verilator."""

import gc
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import lnsnum
from lnsnum import cli, lns6f2
from lnsnum.strategies import ImplementationError, LawViolation, check_arithmetic_laws
from lnsnum.testing.verilog import VerilogModule
from lnsnum.testing.verilog_bench import Pins

needs_icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None or shutil.which("vvp") is None, reason="Icarus Verilog is not installed"
)
needs_verilator = pytest.mark.skipif(shutil.which("verilator") is None, reason="Verilator is not installed")
SIMULATORS = [
    pytest.param("icarus", marks=needs_icarus),
    pytest.param("verilator", marks=[needs_verilator, pytest.mark.thorough]),
]

PRODUCT = """
module product #(parameter BITS = 6, parameter NAN = 32) (input [BITS-1:0] a, b, output [BITS-1:0] out);
    localparam TOP = (1 << (BITS - 1)) - 1, BIAS = 1 << (BITS - 2);
    wire signed [BITS+1:0] m = {3'b0, a[BITS-2:0]} + {3'b0, b[BITS-2:0]} - BIAS;
    wire sign = a[BITS-1] ^ b[BITS-1];
    wire [BITS-2:0] clipped = m < 1 ? 1 : m > TOP ? TOP : m[BITS-2:0];
    assign out = a == NAN || b == NAN ? NAN : a == 0 || b == 0 || m < -3 ? 0 : {sign, clipped};
endmodule
"""

PIPELINE = """
module pipeline (input clk, input rst_n, input enable, input [5:0] x, input [5:0] y, output reg [5:0] z);
    reg [5:0] a, b;
    wire [5:0] out;
    product stage (.a(a), .b(b), .out(out));
    always @(posedge clk)
        if (!rst_n) begin a <= 0; b <= 0; z <= 0; end
        else if (enable) begin a <= x; b <= y; z <= out; end
endmodule
"""
PIPED = {"ports": ("x", "y", "z"), "clock": "clk", "latency": 2}


@pytest.fixture
def source(tmp_path):
    """Writes sources, each a file; gives their paths."""

    def written(*texts):
        paths = [tmp_path / f"{n}.v" for n in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return paths

    return written


def multiply(module, fmt=lns6f2, **options):
    return check_arithmetic_laws(module, fmt, operations=["multiply"], **options)


# ------------------------------------------------------------------------------------------------ what can be tried


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_a_combinational_module(source, simulator):
    report = multiply(VerilogModule(source(PRODUCT), "product", "lns6f2", simulator=simulator))
    assert (report.inputs, report.exhaustive, len(report.laws)) == (4096, True, 12)
    wrong = source(PRODUCT.replace("m > TOP ? TOP : ", ""))
    with pytest.raises(LawViolation, match=r"saturation: multiply\(17, 31\) = 0, .* expected 31"):
        multiply(VerilogModule(wrong[0], "product", lns6f2, simulator=simulator))


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_a_clocked_module(source, simulator):
    more = {"reset": "!rst_n", "tied": {"enable": 1}}
    module = VerilogModule(source(PRODUCT, PIPELINE), "pipeline", lns6f2, Pins(**PIPED, **more), simulator=simulator)
    assert multiply(module).inputs == 4096
    twice = np.arange(64, dtype=np.uint8)
    assert module.ask((twice, twice), 10.0).tolist() == module.ask((twice[::-1], twice[::-1]), 10.0).tolist()[::-1]


@needs_icarus
def test_a_clocked_module_without_reset(source):
    pins = Pins(**PIPED, tied={"enable": 1, "rst_n": 1})
    assert multiply(VerilogModule(source(PRODUCT, PIPELINE), "pipeline", lns6f2, pins)).inputs == 4096


@needs_icarus
def test_parameters_and_a_wider_format(source):
    pins = Pins(parameters={"BITS": 12, "NAN": 2048})
    text = PRODUCT.replace("m < -3", "m < -63")
    module = VerilogModule(source(text), "product", "lns12f6", pins)
    assert multiply(module, "lns12f6", drawn_pairs=1000).inputs > 4096


@needs_icarus
def test_a_module_with_memories_and_a_time_unit(source, tmp_path, monkeypatch):
    """Memories lie in the current folder, whose name is a parameter's text; the result takes 5 units."""
    monkeypatch.chdir(tmp_path)
    name = 'a "name".mem'
    Path(name).write_text("".join(f"{n:x}\n" for n in range(64)))
    text = """`timescale 1ns / 1ps
        module table_ #(parameter FILE = "") (input [5:0] a, output [5:0] out);
            reg [5:0] words [0:63];
            initial $readmemh(FILE, words);
            assign #5 out = words[a];
        endmodule"""
    pins = Pins(("a", "out"), parameters={"FILE": name}, settle=6)
    module = VerilogModule(source(text), "table_", lns6f2, pins)
    assert module.ask((np.array([3, 63, 0, 17], np.uint8),), 10.0).tolist() == [3, 63, 0, 17]


@needs_icarus
def test_arguments_go_to_the_compiler(source):
    text = PRODUCT.replace("NAN = 32", "NAN = `NAN_CODE")
    assert multiply(VerilogModule(source(text), "product", lns6f2, arguments=["-DNAN_CODE=32"]))


@needs_icarus
def test_the_adder_that_uses_exported_tables_keeps_the_laws(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["lnsnum", "export", "--tables", "lns6f2", "--to", "readmemh", "--out", "tables"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ending:
        cli.main()
    assert not ending.value.code
    tables = json.loads(Path("tables/manifest.json").read_text())["formats"][0]["tables"]
    files = {name.upper(): f"tables/{tables[name]['file']}" for name in ("sb", "db", "half")}
    sizes = {"WORD_BITS": tables["sb"]["word_bits"], "STEPS": tables["sb"]["words"], "HALVES": tables["half"]["words"]}
    pins = Pins(("a", "b", "sum"), parameters={"BITS": 6, **sizes, **files})
    adder = Path(lnsnum.__file__).parents[1] / "tests" / "verilog" / "lns_add.v"
    assert check_arithmetic_laws(VerilogModule(adder, "lns_add", lns6f2, pins), lns6f2, operations=["add"])


@needs_icarus
def test_nothing_is_left_behind(source):
    module = VerilogModule(source(PRODUCT), "product", lns6f2)
    folder = module.vectors.parent
    assert folder.exists()
    del module
    gc.collect()
    assert not folder.exists()


# -------------------------------------------------------------------------------------- one sentence for what fails

OUT = "module product (input [5:0] a, b, output [5:0] out);"


@needs_icarus
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{OUT} assign out = a == 16 && b == 48 ? 6'b0x1x01 : 0; endmodule",
            r"multiply\(16, 48\) \(law range\) was answered '0x1x01', bits that are unknown: set all bits of",
        ),
        (
            f"{OUT} assign out[3:0] = 0; endmodule",
            r"was answered 'zz0000', bits that are driven by nobody: set all",
        ),
        (
            OUT.replace("[5:0] out", "[6:0] out") + " assign out = 0; endmodule",
            r"multiply\(0, 0\) \(law range\) cannot be asked: port out has 7 bits, and codes have 6",
        ),
        (OUT.replace("[5:0] a", "[7:0] a") + " assign out = 0; endmodule", "cannot be asked: port a has 8 bits"),
        (
            f"{OUT} assign out = 0; always @(a, b) if (a == 16 && b == 48) $finish; endmodule",
            r"multiply\(16, 48\) .*and what follows: the simulation ended after 0 of 1 results: let it go on",
        ),
        (
            f"{OUT} assign out = 0; always @(a, b) if (a == 16 && b == 48) $stop; endmodule",
            r"multiply\(16, 48\) .*and what follows: the simulation ended after 0 of 1 results: let it go on",
        ),
        pytest.param(
            f"{OUT} assign out = 0; always @(a, b) while (a == 16 && b == 48); endmodule",
            r"multiply\(16, 48\) \(law range\) did not return within 1 s",
            marks=pytest.mark.thorough,  # ten times: halves of the inputs are tried until one call is left
        ),
    ],
)
def test_a_module_that_fails_ends_in_one_sentence(source, text, message):
    with pytest.raises(ImplementationError, match=message) as error:
        multiply(VerilogModule(source(text), "product", lns6f2), timeout=1.0)
    assert "\n" not in str(error.value)


@needs_icarus
@pytest.mark.parametrize("latency", [3, 4])
def test_a_latency_that_is_too_long_is_told(source, latency):
    pins = Pins(**{**PIPED, "latency": latency}, tied={"enable": 1, "rst_n": 1})
    module = VerilogModule(source(PRODUCT, PIPELINE), "pipeline", lns6f2, pins)
    message = rf"was answered 'xxxxxx', .*set all bits of the result, or state another latency than {latency}$"
    with pytest.raises(ImplementationError, match=message):
        multiply(module)


@needs_icarus
def test_a_latency_that_is_too_short_is_told(source):
    pins = Pins(**{**PIPED, "latency": 1}, tied={"enable": 1, "rst_n": 1})
    with pytest.raises(ImplementationError, match=r"was answered 'xxxxxx', .*another latency than 1$"):
        multiply(VerilogModule(source(PRODUCT, PIPELINE), "pipeline", lns6f2, pins))


@needs_icarus
def test_as_many_operands_as_ports(source):
    module = VerilogModule(source(PRODUCT), "product", lns6f2, Pins(("a", "out"), tied={"b": 16}))
    with pytest.raises(ImplementationError, match="cannot be asked: product has 1 ports for operands, and there are 2"):
        multiply(module)


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize(
    ("text", "top", "ports", "message"),
    [
        (PRODUCT.replace("localparam", "localparan"), "product", "ab", r"cannot compile the module: .*0\.v:3.*error"),
        (PRODUCT, "sum", "ab", r"cannot compile the module: .*(?i:the bench).*sum"),
        (PRODUCT, "product", "ax", r"cannot compile the module: .*the bench.*x\b"),
    ],
)
def test_what_cannot_be_compiled_is_told_with_the_line(source, simulator, text, top, ports, message):
    with pytest.raises(ValueError, match=message) as error:
        VerilogModule(source(text), top, lns6f2, Pins((*ports, "out")), simulator=simulator)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        ({"ports": ("a",)}, "ports=('a',) are too few: those of the operands and, last, that of the result"),
        ({"ports": ("a", "b", "a b")}, "ports has 'a b', which is no name of Verilog's"),
        ({"ports": ("a", "b", "a")}, "ports has 'a' twice: name each once"),
        ({"tied": {"b": 1}}, "ports has 'b' twice: name each once"),
        ({"parameters": {"1": 1}}, "parameters has '1', which is no name"),
        ({"clock": "clk"}, "latency=0 with clock='clk': 1 or more with a clock, 0 without"),
        ({"latency": 1}, "latency=1 with clock=None: 1 or more with a clock, 0 without"),
        ({"reset": "rst"}, "reset='rst' without a clock: name the clock too"),
        ({"settle": 0}, "settle=0 is out of range: 1 time unit or more"),
    ],
)
def test_pins_that_cannot_be_meant(pins, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Pins(**pins)


@pytest.mark.parametrize(
    ("sources", "options", "error", "message"),
    [
        ([], {}, ValueError, "sources is empty: give the files of the module"),
        ("no.v", {}, FileNotFoundError, "no.v is no file: give the module's source"),
        ([__file__], {"simulator": "modelsim"}, ValueError, "simulator='modelsim' is not known: one of icarus, veril"),
    ],
)
def test_bad_arguments(sources, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        VerilogModule(sources, "product", lns6f2, **options)


@pytest.mark.parametrize(("simulator", "program"), [("icarus", "iverilog"), ("verilator", "verilator")])
def test_a_simulator_that_is_not_there(source, simulator, program, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"{program} is not installed: apt-get install {program}"):
        VerilogModule(source(PRODUCT), "product", lns6f2, simulator=simulator)


# ------------------------------------------------------------------------------------------------------ the command


def run(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["lnsnum", *map(str, arguments)])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    printed = capsys.readouterr()
    return ending.value.code or 0, printed.out, printed.err


@needs_icarus
def test_the_command_connects_all_pins(source, monkeypatch, capsys):
    sources = [f"--verilog={path}" for path in source(PRODUCT, PIPELINE.replace("product ", "product #(.NAN(N)) "))]
    text = Path(sources[1].partition("=")[2]).read_text()
    Path(sources[1].partition("=")[2]).write_text(text.replace("module pipeline", "module pipeline #(parameter N = 0)"))
    pins = "--top pipeline --ports x,y,z --clock clk --latency 2 --reset !rst_n --tie enable=1 --parameter N=0x20"
    asked = ["--format", "lns6f2", "--operation", "multiply", *pins.split(), "--settle", 3, "--compiler-option=-g2009"]
    code, out, _ = run(monkeypatch, capsys, ["check", *sources, *asked])
    assert (code, out.splitlines()[-1].startswith("lns6f2: multiply kept 12 laws on 4096 inputs (all)")) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--verilog no.v --top product --operation multiply", "no.v is no file"),
        ("--verilog no.v --operation multiply", "--verilog needs --top: the name of the module"),
        ("--verilog no.v --top product", "--verilog needs --operation once: what it does"),
        ("--verilog no.v --library x.so", "give one of --command, --library and --verilog"),
        ("--verilog no.v --top product --operation add --tie en", "--tie en has no =: write it as NAME=VALUE"),
        ("--verilog no.v --top product --operation add --tie en=x", "--tie en=x: 'x' is no integer"),
        ("--verilog no.v --top product --operation add --latency 2", "latency=2 with clock=None"),
        ("--command true --operation add --top adder", "--top is of --verilog: give a file of Verilog"),
        ("--library x.so --tie en=1", "--tie is of --verilog: give a file of Verilog"),
        ("--library x.so --ports a,b,out", "--ports is of --verilog: give a file of Verilog"),
        ("--library x.so --latency 0", "--latency is of --verilog: give a file of Verilog"),
        ("--library x.so --settle 1", "--settle is of --verilog: give a file of Verilog"),
        ("--library x.so --simulator icarus", "--simulator is of --verilog: give a file of Verilog"),
        ("--library x.so --compiler-option=-g", "--compiler-option is of --verilog: give a file of Verilog"),
    ],
)
def test_what_cannot_be_tried_ends_with_code_2(arguments, message, monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, ["check", "--format", "lns6f2", *arguments.split()])
    assert code == 2
    assert message in err


@needs_icarus
def test_the_adder_of_the_docs_breaks_as_the_page_says(monkeypatch, capsys, tmp_path):
    """The file of the page, its commands, the two mends, and what is said each time."""
    page = (Path(lnsnum.__file__).parents[1] / "docs" / "testing.md").read_text()
    monkeypatch.chdir(tmp_path)
    section = page.split("## A broken adder in Verilog")[1].split("\n## ")[0]
    (text,) = re.findall(r"^<!-- file: adder.v -->\n```verilog\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    Path("adder.v").write_text(text)
    first, second = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    exporting, checking, said = re.fullmatch(r"\$ lnsnum (.*)\n\$ lnsnum (.*)\n(.*)\n", first).groups()
    assert run(monkeypatch, capsys, exporting.split())[0] == 0
    code, _, err = run(monkeypatch, capsys, checking.split())
    assert (code, err) == (2, said + "\n")
    step, whole = "step = z > 41 ? 0 : minus", "a[6:0] >= b[6:0]"
    assert (f"`{step}" in section, f"`{whole}`" in section) == (True, True)
    Path("adder.v").write_text(text := text.replace("step = minus", step))
    checking, said = re.fullmatch(r"\$ lnsnum (.*)\n((?:.|\n)*)", second).groups()
    code, out, _ = run(monkeypatch, capsys, checking.split())
    assert (code, out) == (1, said)
    Path("adder.v").write_text(text.replace("a >= b", whole))
    code, out, _ = run(monkeypatch, capsys, checking.split())
    assert (code, "add kept 12 laws on 65536 inputs (all)" in out) == (0, True)
