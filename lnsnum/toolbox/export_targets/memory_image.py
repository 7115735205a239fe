"""Memories for hardware: codes and tables in the text form that Verilog's $readmemh reads.

// comments            then one word a line, in as many hexadecimal digits as its width needs; the first is word 0
1f
3a
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.decoding import decode_table
from lnsnum.files.layout import Blocks
from lnsnum.format import LNSFormat
from lnsnum.kernels.codes import WIDEST_TABLE
from lnsnum.kernels.groups import GroupOffsets
from lnsnum.toolbox.export_targets.exported import FormatTables, Item, Table, Written
from lnsnum.toolbox.export_targets.fixed_text import hexadecimal, parts
from lnsnum.toolbox.export_targets.hardware_tables import encode_table, sum_tables, why_no_sums
from lnsnum.toolbox.export_targets.plain_names import in_comment, plain


def write_memories(folder: Path, items: Sequence[Item], blocks: Blocks) -> list[Written]:
    """Write a .mem file for each LNS tensor, and one more of its scales where it has an array of them."""
    return [_write_tensor(folder, item, blocks, item.told.fmt) for item in items if item.told.fmt is not None]


def _write_tensor(folder: Path, item: Item, blocks: Blocks, fmt: LNSFormat) -> Written:
    told, files = item.told, [f"{item.identifier}.mem"]
    shape = " x ".join(map(str, told.shape)) or "a scalar"
    scale = str(told.log_offset) if isinstance(told.log_offset, int) else f"in {item.identifier}.log_offset.mem"
    comments = [
        f"tensor {in_comment(item.name)}",
        f"shape {shape}, row-major; words {told.size}; bits of a word {fmt.bits}",
        f"format {fmt.name}; log_offset {scale}",
    ]
    words = (part for block in blocks(item.name) for part in parts(block))
    nbytes = _write_words(folder / files[0], comments, words, fmt.bits)
    if told.offsets is not None:
        files.append(f"{item.identifier}.log_offset.mem")
        offsets = np.ascontiguousarray(told.offsets).reshape(-1)
        shape = " x ".join(map(str, told.offsets.shape))
        of = "which broadcasts to that of the tensor"
        if isinstance(told.log_offset, GroupOffsets):
            size, axis = told.log_offset.group_size, told.log_offset.place(len(told.shape))
            of = f"one for each group of {size} elements along axis {axis} of the tensor"
        comments = [
            f"log_offset of tensor {in_comment(item.name)}, in code steps",
            f"shape {shape}, {of}; words {offsets.size}, two's complement; bits of a word 32",
        ]
        nbytes += _write_words(folder / files[1], comments, parts(offsets.view(np.uint32)), 32)
    return Written(item, tuple(files), fmt.dtype.name, told.size, fmt.bits, nbytes)


def _write_words(path: Path, comments: Iterable[str], words: Iterable[NDArray[Any]], bits: int) -> int:
    """Write unsigned integers below 2^bits. Returns the bytes of the file."""
    with open(path, "xb") as file:
        for comment in comments:
            file.write(f"// {comment}\n".encode("ascii"))
        for part in words:
            file.write(hexadecimal(part, bits, after="\n").data)
        return file.tell()


def why_no_tables(fmt: LNSFormat) -> str | None:
    """Why a format has no table at all, in one sentence; None where it has some."""
    return why_no_sums(fmt) if fmt.bits > WIDEST_TABLE else None


def write_tables(folder: Path, fmt: LNSFormat) -> FormatTables:
    """Write the tables of a format, as far as it has some, into files named after it."""
    if reason := why_no_tables(fmt):
        return FormatTables(fmt, {}, reason)
    encoding = encode_table(fmt)
    written: dict[str, Table] = {}
    for kind, words, bits, signed, meaning in _tables(fmt):
        path = folder / f"{plain(fmt.name)}.{kind}.mem"
        signs = ", two's complement" if signed else ""
        comments = [
            f"{kind} of {fmt.name}: {meaning}",
            f"words {words.size}{signs}; bits of a word {bits}",
        ]
        unsigned = (words.astype(np.int64) & ((1 << bits) - 1)).astype(np.uint32)
        nbytes = _write_words(path, comments, parts(unsigned), bits)
        written[kind] = Table(path.name, words.size, bits, signed, meaning, nbytes)
    left_out, complete = why_no_sums(fmt) or "", "sb" in written and sum_tables(fmt).complete
    return FormatTables(fmt, written, left_out, encoding.smallest_half, complete)


def _tables(fmt: LNSFormat) -> Iterator[tuple[str, NDArray[Any], int, bool, str]]:
    """Kind, words, bits of a word, whether they are signed, and what they mean, of each table of a format."""
    if why_no_sums(fmt) is None:
        sums = sum_tables(fmt)
        bits = sums.word_bits
        at_ties = "; at a tie the lower of the two" if sums.sb_tie.size or sums.db_tie.size else ""
        yield "sb", sums.sb, bits, True, f"word z is what a sum adds to the greater logarithm, in code steps{at_ties}"
        yield "db", sums.db, bits, True, f"word z is what a difference adds to it{at_ties}; word 0 is not used"
        yield (
            "half",
            sums.half,
            bits,
            True,
            (
                "word z is the logarithm of twice 1 - base^(-z / 2^F), rounded down; "
                "from its end on it counts as 0; word 0 is not used"
            ),
        )
        for kind, ties in (("sb_tie", sums.sb_tie), ("db_tie", sums.db_tie)):
            if ties.size:
                yield kind, ties, 1, False, "word z is 1 where the sum hi + step is to be rounded up if it is odd"
    yield "float32", decode_table(fmt, 0, "float32"), 32, False, "word c is the float32 of code c at log_offset 0"
    encoding = encode_table(fmt)
    if fmt.base == 2.0:
        meaning = "the fraction of the logarithm of a float32 is how many of these are at most its mantissa"
    else:
        meaning = "the magnitude m of a float32 is how many of these are at most the bit pattern of its absolute value"
    yield "encode", encoding.thresholds, encoding.word_bits, False, meaning
