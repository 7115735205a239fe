"""Weight files written by hand from docs/weight_file.md, without lnsnum: what both independent readers are tested with.

`GALLERY` has a file for every refusal of the page, and a word of the C reader's sentence; `READ` has what must be read.
"""

import json
import re
import struct

from mutants.files import SIZES, checksum, code_bytes, crc, offset_bytes, word_size

ALL = object()  # of an entry's fields: the ones that belong there


def plain(dtype, shape, data, **fields):
    """A tensor as its parts: dtype and shape of the header, the data, and its entry's fields, without those of None."""
    return dtype, shape, data, {"crc32": checksum(dtype, shape, data), **fields}


def lns(codes, shape, fmt, log_offset=0, *, packed=False, dtype=None, **fields):
    bits = int(re.match(r"lns(\d+)", fmt)[1])
    fields = {"format": fmt, "log_offset": log_offset, **fields}
    data = code_bytes(codes, bits, packed)
    if packed:
        return plain("U8", [len(data)], data, **{"packed_shape": shape, **fields})
    return plain(dtype or f"U{8 * word_size(bits)}", shape, data, **fields)


def dtype_of(array):
    """What the header calls the type of a NumPy array: F32 is float32."""
    return re.sub("uint|int|float", lambda match: match[0][0], array.dtype.name).upper()


def store(name, fields, layout):
    """What a container of the layout has of a tensor beside its data: its name there, and an array of log_offsets."""
    if layout != 3 or "format" not in fields:
        return name, None
    offset = fields.get("log_offset")
    is_array = isinstance(offset, dict) and {"shape", "values"} <= offset.keys()
    return f"{name}.lnsnum_codes", offset if is_array else None


def make(
    parts, *, layout=3, metadata=None, header=None, description=None, data=None, file=None, crc32=ALL, more=None,
    optimizer=None,
):  # fmt: skip
    """The bytes of the file; `header`, `description`, `data` and `file` change these on the way, before checksums.

    `optimizer` has tensors (dtype, shape, data, fields) by name.
    """
    about = {"layout": layout, "tensors": {}}
    if metadata is not None:
        about["metadata"] = metadata
    head, buffer = {"__metadata__": {}}, b""

    def put(name, dtype, shape, tensor_data):
        nonlocal buffer
        if name in head:  # two entries of the description have it
            return
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(buffer), len(buffer) + len(tensor_data)]}
        buffer += tensor_data

    for name, (dtype, shape, tensor_data, fields) in parts.items():
        stored, offset = store(name, fields, layout)
        put(stored, dtype, shape, tensor_data)
        if offset is not None:
            _, sizes, values, told = plain("I32", offset["shape"], offset_bytes(offset["values"]))
            put(f"{name}.lnsnum_offsets", "I32", sizes, values)
            rest = {key: value for key, value in offset.items() if key not in ("shape", "values")}
            told = {key: value for key, value in {**told, **rest}.items() if key != "crc32" or value is not None}
            fields = {**fields, "log_offset": told}
        about["tensors"][name] = {key: value for key, value in fields.items() if value is not None}
    for name, (dtype, shape, tensor_data, fields) in (optimizer or {}).items():
        put(f"{name}.lnsnum_optimizer", dtype, shape, tensor_data)
        about.setdefault("optimizer", {"state": {}, "tensors": {}})["tensors"][name] = fields
    text = json.dumps(about)
    text = description(text) if description else text
    strings = {"lnsnum": text, **(more or {})}
    if crc32 is not None:
        strings["lnsnum_crc32"] = crc(text.encode("utf-8", "surrogatepass")) if crc32 is ALL else crc32
    head["__metadata__"] = strings
    head_text = json.dumps(head, ensure_ascii=True)
    head_bytes = (header(head_text) if header else head_text).encode("utf-8", "surrogateescape")
    buffer = data(buffer) if data else buffer
    whole = struct.pack("<Q", len(head_bytes)) + head_bytes + buffer
    return file(whole) if file else whole


def without_metadata(text):
    return json.dumps({name: entry for name, entry in json.loads(text).items() if name != "__metadata__"})


def swap(old, new):
    """A change to a text: the first `old` becomes `new`; it must be there."""

    def change(text):
        assert old in text, (old, text)
        return text.replace(old, new, 1)

    return change


EXAMPLE = lns([1, 62, 32, 0, 5, 33, 63, 2, 17, 40], [2, 5], "lns6f2", -3, packed=True)
WORDS = lns([1, 30, 0], [3], "lns5f1")
PAIR = {"a": plain("U8", [4], b"\0\1\2\3"), "b": plain("U16", [2], b"\4\5\6\7")}
HUGE = '{"dtype": "U8", "shape": [4000000000000], "data_offsets": [0, 4000000000000]}'


def deep(levels, text="0"):
    return "[" * levels + text + "]" * levels


def array(shape, values):
    return {"shape": shape, "values": values}


NO_FORMATS = [
    "", "lns", "lns8", "lns8f", "lns08f5", "lns8f05", "lns8f7", "lns2f0", "lns33f2", "lns8f5 ", " lns8f5", "LNS8f5",
    "lns8f5\0", "lns8f5b", "lns8f5b2", "lns8f5b0x1p+0", "lns8f5b0x0p+1", "lns8f5b0x1.8", "lns8f5b0x1.8p",
    "lns8f5b0x1.8p+", "lns8f5b0x.p+1", "lns8f5b0x1.8.0p+1", "lns8f5b0x1.8P+1", "lns8f5b0X1.8p+1", "lns8f5b0x1.Ap+1",
    "lns8f5b-0x1.8p+1", "lns8f5b0x1.8p+1024", "lns8f5b0x1.8p-1", "lns8f5binf", "lns8f5bnan",
    "lns8f5b0x1.00000000000008p+0", "lns8f5b0x1.8p+99999999999999999999", "lns4294967304f5", "lns8f4294967301",
    "lns\u0668f5", "lns8f5b0x1_8p+1", "lns8f5b0x1.8p+1_0", "lns8f5b0x 1.8p+1", 8, True, ["lns8f5"],
]  # fmt: skip


whole_file = make


def one(*, of=None, **changes):
    """A file of one tensor, packed as the page's example, changed."""
    return make({"w": of or EXAMPLE}, **changes)


OLD = '{"shape": [2], "values": [3, 4]}'
CRC_OF_1 = json.dumps(plain("U8", [1], b"\1")[3])
GROUPS_OF_ROWS = {"group_size": 16, "axis": -2}


def files_of(layout):
    """What readers must refuse, with a word of the C reader's sentence, and what they must read, in one layout."""

    def make(parts, *, layout=layout, **changes):
        return whole_file(parts, layout=layout, **changes)

    def one(*, of=None, **changes):
        return make({"w": of or EXAMPLE}, **changes)

    def offset(value, codes=(1, 2, 3, 4, 5, 6), shape=(2, 3)):
        return one(of=lns(list(codes), list(shape), "lns8f5", value))

    def grouped(value, size, axis=-1):
        return offset(value | {"group_size": size, "axis": axis}, [i % 256 for i in range(80)], (2, 40))

    gallery = {
        # the container
        "nothing": (b"", "fewer than"),
        "seven bytes": (b"\0" * 7, "fewer than"),
        "no header": (struct.pack("<Q", 0), "does not begin"),
        "a header longer than the file": (one(file=lambda b: struct.pack("<Q", len(b)) + b[8:]), "length"),
        "a header of 2^64 - 1 bytes": (one(file=lambda b: b"\xff" * 8 + b[8:]), "length"),
        "a header with a space first": (one(header=lambda t: " " + t), "begin"),
        "a header that is a list": (one(header=lambda t: f"[{t}]"), "begin"),
        "a header with a byte order mark": (one(header=lambda t: "\ufeff" + t), "begin"),
        "a header cut off": (one(header=lambda t: t[:-1]), "JSON"),
        "text after the header": (one(header=lambda t: t + " 1"), "JSON"),
        "a NUL after the header": (one(header=lambda t: t + "\0"), "JSON"),
        "a comma too many": (one(header=lambda t: t[:-1] + ",}"), "JSON"),
        "a comma too many in a list": (one(header=swap('"data_offsets": [0, ', '"data_offsets": [,0, ')), "JSON"),
        "a leading zero": (one(header=swap('"shape": [8]', '"shape": [08]')), "JSON"),
        "a plus": (one(header=swap('"shape": [8]', '"shape": [+8]')), "JSON"),
        "NaN": (one(header=swap('"shape": [8]', '"shape": [8], "x": NaN')), "JSON"),
        "a single quote": (one(header=swap('"w', "'w")), "JSON"),
        "a control character in a string": (one(header=swap('"w', '"w\n')), "JSON"),
        "an unknown escape": (one(header=swap('"w', '"\\x77')), "JSON"),
        "an escape cut off": (one(header=swap('"w', '"\\u007')), "JSON"),
        "half of a surrogate pair": (one(header=swap('"w', '"\\ud800')), "JSON"),
        "the second half first": (one(header=swap('"w', '"\\udc00\\ud800')), "JSON"),
        "a byte that is no UTF-8": (one(header=swap('"w', '"\udcff')), "UTF-8"),
        "an overlong character": (one(header=swap('"w', '"\udcc0\udc80')), "UTF-8"),
        "an overlong character of three bytes": (one(header=swap('"w', '"\udce0\udc80\udc80')), "UTF-8"),
        "a surrogate in UTF-8": (one(header=swap('"w', '"\udced\udca0\udc80')), "UTF-8"),
        "a character above 10FFFF": (one(header=swap('"w', '"\udcf4\udc90\udc80\udc80')), "UTF-8"),
        "a character cut off": (one(header=swap('"w', '"\udce2\udc82')), "UTF-8"),
        "a header nested without end": (one(header=lambda t: t[:-1] + ', "x": ' + "[" * 100_000), "deep"),
        "a name twice": (make(PAIR, header=swap('"b"', '"a"')), "twice"),
        "a name twice, once escaped": (make(PAIR, header=swap('"b"', '"\\u0061"')), "twice"),
        "a field twice": (one(header=swap('"dtype"', '"dtype": "U8", "dtype"')), "twice"),
        "two sets of metadata": (one(header=lambda t: t[:-1] + ', "__metadata__": {}}'), "twice"),
        "an entry that is no object": (one(header=lambda t: t[:-1] + ', "x": 1}'), "no object"),
        "no dtype": (one(header=swap('"dtype": "U8", ', "")), "missing"),
        "no shape": (one(header=swap('"shape": [8], ', "")), "missing"),
        "no data_offsets": (one(header=swap('"data_offsets": [0, 8]', '"x": 0')), "missing"),
        "another dtype": (one(header=swap('"U8"', '"F8_E4M3"')), "dtype"),
        "a dtype in lower case": (one(header=swap('"U8"', '"u8"')), "dtype"),
        "a dtype that is a number": (one(header=swap('"U8"', "8")), "dtype"),
        "a shape that is a number": (one(header=swap('"shape": [8]', '"shape": 8')), "shape"),
        "a shape of texts": (one(header=swap('"shape": [8]', '"shape": ["8"]')), "shape"),
        "a shape of booleans": (one(header=swap('"shape": [8]', '"shape": [8, true]')), "shape"),
        "a shape with a point": (one(header=swap('"shape": [8]', '"shape": [8.0]')), "shape"),
        "a shape with an exponent": (one(header=swap('"shape": [8]', '"shape": [8e0]')), "shape"),
        "a negative shape": (one(header=swap('"shape": [8]', '"shape": [-8]')), "shape"),
        "a size of 2^64": (one(header=swap('"shape": [8]', '"shape": [18446744073709551616, 0]')), "shape"),
        "a shape that takes more": (one(header=swap('"shape": [8]', '"shape": [9]')), "shape"),
        "a shape that leaves 64 bits": (
            one(header=swap('"shape": [8]', '"shape": [4294967296, 4294967296, 8]')),
            "64 bits",
        ),
        "bytes that leave 64 bits": (make({"w": plain("U64", [1 << 61], b"")}), "64 bits"),
        "one place of data": (one(header=swap('"data_offsets": [0, 8]', '"data_offsets": [0]')), "data_offsets"),
        "three places of data": (
            one(header=swap('"data_offsets": [0, 8]', '"data_offsets": [0, 8, 8]')),
            "data_offsets",
        ),
        "data that end before they begin": (
            one(header=swap('"data_offsets": [0, 8]', '"data_offsets": [8, 0]')),
            "data_offsets",
        ),
        "data beyond the file": (one(header=swap('"data_offsets": [0, 8]', '"data_offsets": [1, 9]')), "data_offsets"),
        "terabytes that are not there": (one(header=lambda t: t[:-1] + f', "x": {HUGE}}}'), "data_offsets"),
        "a gap at the beginning": (
            make(
                PAIR,
                header=lambda t: t.replace("[0, 4]", "[1, 5]").replace("[4, 8]", "[5, 9]"),
                data=lambda b: b"\0" + b,
            ),
            "gap",
        ),
        "a gap between": (make(PAIR, header=swap("[4, 8]", "[5, 9]"), data=lambda b: b + b"\0"), "gap"),
        "an overlap": (make(PAIR, header=swap("[4, 8]", "[3, 7]"), data=lambda b: b[:7]), "overlap"),
        "the same place twice": (
            make({"a": PAIR["a"], "b": PAIR["a"]}, header=swap("[4, 8]", "[0, 4]"), data=lambda b: b[:4]),
            "overlap",
        ),
        "bytes after the data": (one(data=lambda b: b + b"\0"), "end"),
        "data cut off": (one(data=lambda b: b[:-1]), "data_offsets"),
        "a BOOL of 2": (one(of=plain("BOOL", [3], b"\0\1\2")), "BOOL"),
        # the description
        "a safetensors file without metadata": (one(header=without_metadata), "lnsnum"),
        "metadata without lnsnum": (one(header=swap('"lnsnum"', '"other"')), "lnsnum"),
        "metadata that are no object": (make({}, header=lambda t: '{"__metadata__": ["lnsnum"]}'), "lnsnum"),
        "metadata that are no strings": (one(more={"x": 1}), "strings"),
        "a description that is a list": (one(description=lambda t: f"[{t}]"), "no JSON object"),
        "a description that is no JSON": (one(description=lambda t: t[:-1]), "JSON"),
        "a description with half of a surrogate pair": (
            one(description=lambda t: t[:-1] + ', "x": "\\ud83d"}'),
            "JSON",
        ),
        "a description nested without end": (
            one(description=lambda t: t[:-1] + ', "x": ' + deep(100_000) + "}"),
            "deep",
        ),
        "a name twice in the description": (
            one(description=swap('"layout"', f'"layout": {layout}, "layout"')),
            "twice",
        ),
        "a name twice in an entry": (one(description=swap('"format"', '"format": "lns6f2", "format"')), "twice"),
        "a name twice in a field that is ignored": (
            one(description=lambda t: t[:-1] + ', "x": [{"y": 1, "\\u0079": 2}]}'),
            "twice",
        ),
        "an empty name twice": (one(description=lambda t: t[:-1] + ', "x": {"": 1, "": 2}}'), "twice"),
        "no layout": (one(description=swap(f'"layout": {layout}, ', "")), "layout"),
        "layout 4": (one(layout=4), "layout"),
        "layout 0": (one(layout=0), "layout"),
        "layout -3": (one(layout=-3), "layout"),
        "layout 3.0": (one(layout=3.0), "layout"),
        "layout true": (one(layout=True), "layout"),
        'layout "3"': (one(layout="3"), "layout"),
        "layout 2^64 + 3": (one(layout=2**64 + 3), "layout"),
        "no lnsnum_crc32": (one(crc32=None), "lnsnum_crc32"),
        "another lnsnum_crc32": (one(crc32="00000000"), "lnsnum_crc32"),
        "lnsnum_crc32 in upper case": (one(crc32="ABCDEFAB"), "lnsnum_crc32"),
        "lnsnum_crc32 too short": (one(crc32="0"), "lnsnum_crc32"),
        "no tensors": (make({}, description=swap('"tensors"', '"x"')), "tensors"),
        "tensors that are no object": (make({}, description=swap('"tensors": {}', '"tensors": []')), "tensors"),
        "an entry without a tensor": (make(PAIR, header=swap('"b"', '"c"')), "not in the file"),
        "a tensor without an entry": (
            make(PAIR, description=lambda t: t.replace(', "b": ' + json.dumps(PAIR["b"][3]), "")),
            "no entry",
        ),
        "metadata as a list": (one(metadata=["x"]), "metadata"),
        "metadata of numbers": (one(metadata={"x": 1}), "metadata"),
        "metadata null": (one(description=lambda t: t[:-1] + ', "metadata": null}'), "metadata"),
        # a tensor
        "an entry of the description that is no object": (
            make(
                {},
                description=swap("{}", '{"w": 1}'),
                header=lambda t: t[:-1] + (', "w": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}'),
            ),
            "no object",
        ),
        "no crc32": (one(of=plain("U8", [1], b"\0", crc32=None)), "crc32"),
        "a crc32 that is a number": (one(of=plain("U8", [1], b"\0", crc32=12345678)), "crc32"),
        "a crc32 of nine digits": (one(of=plain("U8", [1], b"\0", crc32="012345678")), "crc32"),
        "a crc32 in upper case": (one(of=plain("U8", [1], b"\0", crc32="ABCDEFAB")), "crc32"),
        "another crc32": (one(of=plain("U8", [1], b"\0", crc32="01234567")), "checksum"),
        "a bit of the data changed": (one(data=lambda b: bytes([b[0] ^ 1]) + b[1:]), "checksum"),
        "a shape changed": (one(of=plain("F32", [2, 3], b"\0" * 24), header=swap("[2, 3]", "[3, 2]")), "checksum"),
        "a dtype changed": (one(of=plain("F32", [2, 3], b"\0" * 24), header=swap("F32", "I32")), "checksum"),
        **{
            f"the format {name!r}": (one(of=plain("U8", [1], b"\0", format=name, log_offset=0)), "format")
            for name in NO_FORMATS
        },
        "a format of null": (one(of=WORDS, description=swap('"lns5f1"', "null")), "format"),
        "the dtype of another format": (
            one(
                of=lns([1], [1], "lns9f2", dtype="U8", crc32=plain("U8", [2], b"\1\0")[3]["crc32"]),
                header=swap('"shape": [1]', '"shape": [2]'),
            ),
            "dtype",
        ),
        "codes in signed integers": (one(of=lns([1], [1], "lns8f2", dtype="I8")), "dtype"),
        "codes in words too wide": (one(of=plain("U16", [1], b"\1\0", format="lns8f2", log_offset=0)), "dtype"),
        "no log_offset": (one(of=lns([1], [1], "lns8f5", None)), "log_offset"),
        "an empty tensor without log_offset": (one(of=lns([], [0], "lns8f5", None)), "log_offset"),
        "a log_offset without a format": (one(of=plain("U8", [1], b"\0", log_offset=0)), "no format"),
        "a log_offset of null": (
            one(of=WORDS, description=swap('"log_offset": 0', '"log_offset": null')),
            "log_offset",
        ),
        "a log_offset above 2^30": (offset(2**30 + 1), "log_offset"),
        "a log_offset below -2^30": (offset(-(2**30) - 1), "log_offset"),
        "a log_offset of 2^64": (offset(2**64), "log_offset"),
        "a log_offset with a point": (offset(1.0), "log_offset"),
        "a log_offset true": (offset(True), "log_offset"),
        "a log_offset as text": (offset("1"), "log_offset"),
        "a log_offset as a list": (offset([1]), "log_offset"),
        "a log_offset of more dimensions": (offset(array([1, 1, 1], [1])), "broadcast"),
        "a log_offset of other sizes": (offset(array([2], [1, 2])), "broadcast"),
        "a log_offset that the tensor would broadcast to": (
            offset(array([2, 3], [1] * 6), [1, 2, 3], [1, 3]),
            "broadcast",
        ),
        "packed_shape without a format": (one(of=plain("U8", [1], b"\0", packed_shape=[1])), "packed_shape"),
        "packed_shape null without a format": (
            one(of=plain("U8", [1], b"\0", x=1), description=swap('"x": 1', '"packed_shape": null')),
            "packed",
        ),
        "packed codes of 8 bits": (one(of=lns([1, 2], [2], "lns8f5", packed=True)), "packed"),
        "packed codes of 16 bits": (one(of=lns([1, 2], [2], "lns16f5", packed=True)), "packed"),
        "packed codes of 32 bits": (one(of=lns([1, 2], [2], "lns32f5", packed=True)), "packed"),
        "a packed_shape of null": (
            one(of=WORDS, description=swap('"log_offset"', '"packed_shape": null, "log_offset"')),
            "packed",
        ),
        "a packed_shape with a point": (one(of=lns([1, 2], [2.0], "lns6f2", packed=True)), "packed_shape"),
        "a negative packed_shape": (one(of=lns([1, 2], [-2], "lns6f2", packed=True)), "packed_shape"),
        "a packed_shape of 2^63": (one(of=lns([], [0, 2**63], "lns6f2", packed=True)), "packed_shape"),
        "a packed_shape beyond 64 bits": (one(of=lns([1, 2], [2**62, 2**62], "lns6f2", packed=True)), "packed_shape"),
        "a packed_shape whose bits leave 64 bits": (
            one(of=lns([1, 2], [2**62], "lns6f2", packed=True)),
            "packed_shape",
        ),
        "a packed_shape that takes more": (one(of=lns([1, 2], [3], "lns6f2", packed=True)), "packed_shape"),
        "a packed_shape that takes less": (one(of=lns([1, 2], [1], "lns6f2", packed=True)), "packed_shape"),
        "packed data of two dimensions": (
            one(of=plain("U8", [1, 2], b"\0\0", format="lns6f2", log_offset=0, packed_shape=[2])),
            "dimension",
        ),
        "packed data of other words": (
            one(of=plain("U16", [1], b"\0\0", format="lns6f2", log_offset=0, packed_shape=[2])),
            "dtype",
        ),
        "a spare bit": (
            one(of=plain("U8", [2], b"\0\x10", format="lns6f2", log_offset=0, packed_shape=[2])),
            "after its last code",
        ),
        "a code of one bit too many": (one(of=lns([1, 32], [2], "lns5f1")), "fit"),
        "a code of lns24 with a byte too many": (one(of=lns([1 << 24], [1], "lns24f1")), "fit"),
        "a code of lns31 with a bit too many": (one(of=lns([1 << 31], [1], "lns31f1")), "fit"),
    }
    if layout == 2:
        gallery |= {
            "a log_offset without values": (offset({"shape": []}), "log_offset"),
            "a log_offset without a shape": (offset({"values": [1]}), "log_offset"),
            "values that are no list": (offset(array([], 1)), "log_offset"),
            "a shape of log_offset that is no list": (offset(array(1, [1])), "log_offset"),
            "a negative shape of log_offset": (offset(array([-1], [1])), "log_offset"),
            "values with a point": (offset(array([2, 1], [1, 1.0])), "log_offset"),
            "values too large": (offset(array([2, 1], [1, 2**30 + 1])), "log_offset"),
            "values too few": (offset(array([2, 1], [1])), "values"),
            "values too many": (offset(array([2, 1], [1, 2, 3])), "values"),
            "values for a shape beyond 64 bits": (offset(array([2**40, 2**40], [1])), "log_offset"),
        }
    else:
        gallery |= {
            "offsets as layout 2 has them": (
                one(of=lns([1, 2], [2], "lns8f5", 0), description=swap('"log_offset": 0', f'"log_offset": {OLD}')),
                "not in the file",
            ),
            "a log_offset that is an empty object": (offset({}), "not in the file"),
            "codes under the tensor's own name": (one(header=swap("w.lnsnum_codes", "w")), "not in the file"),
            "a plain tensor under the name of codes": (
                make(PAIR, header=swap('"b"', '"b.lnsnum_codes"')),
                "not in the file",
            ),
            "codes without their entry": (
                make({"a": PAIR["a"]}, header=swap('"a"', '"w.lnsnum_codes"'), description=swap('"a"', '"w"')),
                "not in the file",
            ),
            "offsets that no entry tells of": (
                one(
                    of=lns([1, 2], [2], "lns8f5", array([2], [3, 4])),
                    description=lambda t: re.sub(r'"log_offset": \{.*?\}', '"log_offset": 0', t),
                ),
                "no entry",
            ),
            "one tensor that is codes and plain": (
                make(
                    {"w": lns([1], [1], "lns8f5")},
                    description=lambda t: t.replace('"tensors": {', '"tensors": {"w.lnsnum_codes": ' + CRC_OF_1 + ", "),
                ),
                "two entries",
            ),
            "offsets that are a tensor too": (
                make(
                    {"w": lns([1], [1], "lns8f5", array([1], [5])), "w.lnsnum_offsets": plain("I32", [1], b"\5\0\0\0")},
                ),
                "two entries",
            ),
            "a moment that is a tensor too": (
                make({"m.lnsnum_optimizer": PAIR["a"]}, optimizer={"m": PAIR["a"]}),
                "two entries",
            ),
            "offsets of unsigned integers": (
                one(of=lns([1, 2], [2], "lns8f5", array([2], [3, 4])), header=swap("I32", "U32")),
                "I32",
            ),
            "offsets without a checksum": (offset(array([3], [1, 2, 3]) | {"crc32": None}), "crc32"),
            "offsets with a checksum in upper case": (offset(array([3], [1, 2, 3]) | {"crc32": "ABCDEFAB"}), "crc32"),
            "offsets with another checksum": (offset(array([3], [1, 2, 3]) | {"crc32": "01234567"}), "checksum"),
            "an offset changed": (
                one(of=lns([1], [1], "lns8f5", array([1], [1])), data=lambda b: b[:1] + b"\2" + b[2:]),
                "checksum",
            ),
            "offsets above 2^30": (offset(array([2, 1], [1, 2**30 + 1])), "log_offset"),
            "offsets below -2^30": (offset(array([2, 1], [1, -(2**30) - 1])), "log_offset"),
            **{
                f"groups of {size!r}": (grouped(array([2, 3], [1] * 6), size), "group")
                for size in (15, 257, 0, -16, 16.0, "16", None, True, 2**64 + 16)
            },
            **{
                f"groups along {axis!r}": (grouped(array([2, 3], [1] * 6), 16, axis), "")
                for axis in (0, 1, -3, -64, -65, -1.0, "-1", None, -(2**64) - 1)
            },
            "groups without an axis": (offset(array([2, 3], [1] * 6) | {"group_size": 16}), "axis"),
            "an axis without groups": (offset(array([2, 3], [1] * 6) | {"axis": -1}), "axis"),
            "groups too few": (grouped(array([2, 2], [1] * 4), 16), "broadcast"),
            "groups too many": (grouped(array([2, 4], [1] * 8), 16), "broadcast"),
            "groups along an axis that has too few": (grouped(array([2, 3], [1] * 6), 16, -2), "broadcast"),
            "groups of other rows": (grouped(array([3, 3], [1] * 9), 16), "broadcast"),
            "an optimizer that is null": (one(description=lambda t: t[:-1] + ', "optimizer": null}'), "optimizer"),
            "an optimizer without a state": (
                one(description=lambda t: t[:-1] + ', "optimizer": {"tensors": {}}}'),
                "optimizer",
            ),
            "an optimizer without tensors": (
                one(description=lambda t: t[:-1] + ', "optimizer": {"state": {}}}'),
                "optimizer",
            ),
            "an optimizer whose state is a list": (
                one(description=lambda t: t[:-1] + ', "optimizer": {"state": [], "tensors": {}}}'),
                "optimizer",
            ),
            "a moment that is not there": (
                one(description=lambda t: t[:-1] + ', "optimizer": {"state": {}, "tensors": {"m": {}}}}'),
                "not in the file",
            ),
            "a moment without a checksum": (make({}, optimizer={"m": ("U8", [1], b"\0", {})}), "crc32"),
            "a moment whose entry is none": (make({}, optimizer={"m": ("U8", [1], b"\0", 5)}), "crc32"),
            "a moment without an entry": (
                make({}, optimizer={"m": PAIR["a"]}, description=lambda t: re.sub(r'"optimizer".*\}', '"x": 0}', t)),
                "no entry",
            ),
        }

    # What a reader must read: whatever the page does not say to be refused.
    read = {
        "the example": one(),
        "no tensor": make({}),
        "spaces after the header": one(header=lambda t: t + " " * 9),
        "a member of an entry that is not known": one(header=swap('"dtype"', '"new": [{}], "dtype"')),
        "other strings": one(more={"format": "pt"}),
        "fields that are not known": one(
            description=lambda t: t[:-1] + ', "x": [1e5, -0.5E-7, null, {"a": [true, false]}]}'
        ),
        "fields of an entry that are not known": one(of=lns([1], [1], "lns8f5", x={"y": [1]})),
        "metadata": one(metadata={"a\0b": "c\0d", "\U0001f600": "\u20ac\x7f"}),
        "escapes": make(PAIR, header=lambda t: t.replace('"b"', '"\\u0062"').replace('"dtype"', '"\\u0064\\u0074ype"')),
        "text that is not escaped": make(
            {"\u20ac\U0001f600": WORDS}, header=lambda t: t.replace("\\u20ac\\ud83d\\ude00", "\u20ac\U0001f600")
        ),
        "escapes in upper case": make(
            {"\u20ac\U0001f600": WORDS}, header=swap("\\u20ac\\ud83d\\ude00", "\\u20AC\\uD83D\\uDE00")
        ),
        "an empty name": make({"": WORDS}),
        "names that hold NUL": make({"a\0b": WORDS, "a\0c": WORDS, "a": WORDS}),
        "an empty tensor between": make({"a": WORDS, "e": plain("F64", [0, 9], b""), "b": WORDS}),
        "an empty tensor of codes": one(of=lns([], [3, 0], "lns8f5", array([3, 1], [1, 2, 3]))),
        "an empty offset": one(of=lns([], [3, 0], "lns8f5", array([3, 0], []))),
        "an empty packed tensor": one(of=lns([], [0, 2**63 - 1], "lns6f2", packed=True)),
        "sizes that zero swallows": one(of=plain("U8", [0, 2**40, 2**40], b"")),
        "a scalar": one(of=lns([5], [], "lns8f5", -(2**30))),
        "a scalar with an array": one(of=lns([5], [], "lns8f5", array([], [2**30]))),
        "offsets of fewer dimensions": offset(array([3], [1, -2, 3])),
        "offsets of every element": offset(array([2, 3], [1, -2, 3, -4, 5, -6])),
        "offsets of the first dimension": offset(array([2, 1], [1, -2])),
        "offsets of one": offset(array([1, 1], [7])),
        "offsets of the middle": offset(array([2, 1], [3, -5]), range(12), (3, 2, 2)),
        "offsets of the ends": offset(array([3, 1, 2], [1, 2, 3, 4, 5, 6]), range(12), (3, 2, 2)),
        **{
            dtype: one(of=plain(dtype, [3], b"\0\1" * 12 if size == 8 else b"\0\1\1" * size))
            for dtype, size in SIZES.items()
        },
        **{
            f"the format {name!r}": one(of=lns([0, 1, 127, 128, 129, 255], [6], name))
            for name in (
                "lns8f5b0x1p1",
                "lns8f5b0x1p+1",
                "lns8f5b0x3p-1",
                "lns8f5b0x.8p+2",
                "lns8f5b0x1.p+01",
                "lns8f5b0x0001.80000000000000000000p+0",
                "lns8f5b0x1.0000000000001p+0",
                "lns8f5b0x1.fffffffffffffp+1023",
                "lns8f0b0x180000000000000000000000p-92",
                "lns8f6b0xc.8p-3",
            )
        },
    }
    if layout == 3:
        read |= {
            "groups": grouped(array([2, 3], [1, -2, 3, -4, 5, -6]), 16),
            "groups in other fields": grouped(array([2, 3], [1, -2, 3, -4, 5, -6]) | {"colour": [1]}, 16),
            "groups of all rows": grouped(array([3], [1, -2, 3]), 16),
            "groups of one": grouped(array([2, 1], [1, -2]), 256),
            "groups of a dimension before": offset(
                array([2, 3], [1, -2, 3, -4, 5, -6]) | GROUPS_OF_ROWS, range(60), (20, 3)
            ),
            "groups of the middle": offset(array([2, 2, 1], [1, -2, 3, -4]) | GROUPS_OF_ROWS, [3] * 80, (2, 20, 2)),
            "a rule of the scale": one(of=lns([5], [1], "lns8f5", fit={"rule": "mse", "p_scale": 3.0})),
            "a rule that nobody knows": one(of=lns([5], [1], "lns8f5", fit=[{"rule": 2}])),
            "a rule of plain numbers": one(of=plain("U8", [4], b"\0\1\2\3", fit="mse")),
            "groups of nothing": offset(array([2, 0], []) | {"group_size": 16, "axis": -1}, [], (2, 0)),
            "names of stored tensors as those of plain ones": make(
                {"a.lnsnum_codes": PAIR["a"], "a.lnsnum_offsets": PAIR["b"], ".lnsnum_optimizer": PAIR["a"]}
            ),
            "an optimizer": make({"w": EXAMPLE}, optimizer={"w": PAIR["a"], "": PAIR["b"]}),
            "an optimizer of nothing": one(
                description=lambda t: t[:-1] + ', "optimizer": {"state": {"a": [{}]}, "tensors": {}, "x": 0}}'
            ),
        }
    return gallery, read


GALLERY, READ = files_of(3)
GALLERY_OF_2, READ_OF_2 = files_of(2)
