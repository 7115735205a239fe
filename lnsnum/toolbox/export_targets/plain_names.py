"""Names of tensors, any Unicode strings, as names of files and identifiers of C and Verilog, no two alike.

    "fc.weight" -> fc_weight     "fc/weight" -> fc_weight_2     "2" -> t2     "int" -> int_2     "" -> tensor

Each run of characters other than ASCII letters and digits becomes one `_`, none at an end; what begins with a digit
gets a `t` before it; 100 characters are kept. What is taken already (large and small letters are the same, as to some
file systems) or reserved gets the first number from 2 on that makes it free, after a `_`. The names go in the order of
their code points, so equal names give equal results.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lnsnum.toolbox.file_kinds.npz_writer import DEVICES

LONGEST = 100
"""Characters of a plain name before its number."""

_C = """auto break case char const continue default do double else enum extern float for goto if inline int long
register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while alignas
alignof bool constexpr false nullptr static_assert thread_local true typeof typeof_unqual asm fortran main errno
signbit and and_eq bitand bitor catch class compl const_cast delete dynamic_cast explicit export friend mutable
namespace new not not_eq operator or or_eq private protected public reinterpret_cast static_cast template this throw
try typeid typename using virtual wchar_t xor xor_eq math_errhandling"""

_VERILOG = """always and assign automatic begin buf bufif0 bufif1 case casex casez cell cmos config deassign default
defparam design disable edge else end endcase endconfig endfunction endgenerate endmodule endprimitive endspecify
endtable endtask event for force forever fork function generate genvar highz0 highz1 if ifnone incdir include initial
inout input instance integer join large liblist library localparam macromodule medium module nand negedge nmos nor
noshowcancelled not notif0 notif1 or output parameter pmos posedge primitive pull0 pull1 pulldown pullup
pulsestyle_ondetect pulsestyle_onevent rcmos real realtime reg release repeat rnmos rpmos rtran rtranif0 rtranif1
scalared showcancelled signed small specify specparam strong0 strong1 supply0 supply1 table task time tran tranif0
tranif1 tri tri0 tri1 triand trior trireg unsigned use uwire vectored wait wand weak0 weak1 while wire wor xnor xor
accept_on alias always_comb always_ff always_latch assert assume before bind bins binsof bit break byte chandle checker
class clocking const constraint context continue cover covergroup coverpoint cross dist do endchecker endclass
endclocking endgroup endinterface endpackage endprogram endproperty endsequence enum eventually expect export extends
extern final first_match foreach forkjoin global iff ignore_bins illegal_bins implements implies import inside int
interconnect interface intersect join_any join_none let local logic longint matches modport nettype new nexttime null
package packed priority program property protected pure rand randc randcase randsequence ref reject_on restrict return
s_always s_eventually s_nexttime s_until s_until_with sequence shortint shortreal soft solve static string strong struct
super sync_accept_on sync_reject_on tagged this throughout timeprecision timeunit type typedef union unique unique0
until until_with untyped var virtual void wait_order weak wildcard with within"""

RESERVED = frozenset(f"{_C} {_VERILOG}".split()) | DEVICES
"""Words of C, C++, Verilog and SystemVerilog, and what Windows takes for devices."""


def plain(name: str) -> str:
    """The name as an identifier, which may not be free.

    >>> plain("../../etc/passwd"), plain("7"), plain("???")
    ('etc_passwd', 't7', 'tensor')
    """
    text = re.sub("[^A-Za-z0-9]+", "_", name).strip("_")[:LONGEST].strip("_") or "tensor"
    return f"t{text}" if text[0].isdigit() else text


def plain_names(names: Iterable[str], *, prefix: str = "", taken: Iterable[str] = ()) -> dict[str, str]:
    """An identifier for each name, free of clashes: with each other, with words reserved, and with those `taken`.

    Args:
        names: different strings.
        prefix: what will stand before all of them in C; it decides on what is reserved only.
        taken: identifiers, in small letters, that are not to be given.

    >>> plain_names(["a.b", "a/B", "int"])
    {'a.b': 'a_b', 'a/B': 'a_B_2', 'int': 'int_2'}
    """
    used = set(taken)
    last: dict[str, int] = {}
    out: dict[str, str] = {}
    for name in sorted(names):
        stem = plain(name)
        given, number = stem, last.get(stem.lower(), 1)
        while given.lower() in used or _is_reserved(given.lower(), prefix):
            number += 1
            given = f"{stem}_{number}"
        last[stem.lower()] = number
        used.add(given.lower())
        out[name] = given
    return out


def _is_reserved(word: str, prefix: str) -> bool:
    """Whether C or Verilog, or a header of C, may mean something else by it: names of types there end in _t."""
    return word in RESERVED or prefix + word in RESERVED or f"_{word}".endswith("_t")


def in_comment(name: str) -> str:
    r"""The name as it can stand in a comment of C or Verilog: quoted, what might end or continue one escaped.

    >>> print(in_comment('a.b*/' + chr(10)))
    "a.b\u002a\u002f\u000a"
    """
    shown = (c if c in _HARMLESS else f"\\u{ord(c):04x}" if ord(c) < 1 << 16 else f"\\U{ord(c):08x}" for c in name)
    return '"' + "".join(shown) + '"'


_HARMLESS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 !#$%&'()+,-.:;<=>@[]^_`{|}~")
