"""A network as a C99 program: its layers as calls of lnsnum_net.h, its weights as constant arrays of codes.

    int model_class(const float *input);              the class
    void model_outputs(const float *input, float *outputs);

Two arrays take turns in what goes from layer to layer, as large as the largest that they must hold; nothing else is
written to. A third file is a `main`, which reads inputs as text and prints classes.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.decoding import decode_table
from lnsnum.format import LNSFormat
from lnsnum.toolbox.export_targets.fixed_text import Text, c_floats, hexadecimal, lines, parts
from lnsnum.toolbox.export_targets.plain_names import in_comment, plain
from lnsnum.torch_bridge.sequential import Activation, Affine, Layer, Network, NetworkError, Pool, Product, Window

LNSNUM_NET_H = Path(__file__).resolve().parents[2] / "c" / "lnsnum_net.h"
"""The layers in C that come with this package."""

FLOAT_MIN_LOG2 = -126
"""Of the least float32 that has all its bits."""


def write_network(folder: Path, network: Network, *, prefix: str, source: str) -> dict[str, Any]:
    """Write PREFIX_network.h, PREFIX_network.c, PREFIX_main.c and a copy of lnsnum_net.h.

    Args:
        folder: where the files go.
        network: the layers.
        prefix: an identifier in small letters, which begins all that the header declares.
        source: the name of what it was made from, for a comment.

    Returns:
        What the manifest says of it: how many bytes of constants and of arrays that are written to.

    Raises:
        NetworkError: where the factor of a weight's scale is subnormal in float32, or nothing.
    """
    for product in network.products:
        lowest = int(product.log_offsets.min())
        # the codes of a format of few fraction bits lie so far above its 1 that their numbers need not be small too
        if lowest * math.log2(product.fmt.base) < FLOAT_MIN_LOG2 * (1 << product.fmt.fraction_bits):
            raise NetworkError(
                f"layer {product.name}: its weight has a log_offset of {lowest}, in {product.fmt.name} a factor "
                "that is too small for float32: convert it with a greater one, or write integers with a datapath"
            )
    shutil.copyfile(LNSNUM_NET_H, folder / LNSNUM_NET_H.name)
    (folder / f"{prefix}_network.h").write_text(header_of(network, prefix, source), encoding="ascii", newline="\n")
    with open(folder / f"{prefix}_network.c", "xb") as file:
        file.writelines(_source(network, prefix))
    (folder / f"{prefix}_main.c").write_text(main_of(prefix), encoding="ascii", newline="\n")
    formats = {product.fmt for product in network.products}
    weights = sum(product.codes.size for product in network.products)
    factors = sum(layer.scale.size for layer in network.layers if isinstance(layer, (Product, Affine)))
    return {
        "shape": list(network.shape),
        "outputs": network.sizes[-1],
        "layers": len(network.layers),
        "weights": weights,
        "constant_bytes": weights + 8 * factors + sum(4 << fmt.bits for fmt in formats),
        "written_bytes": 4 * sum(_rooms(network)),
    }


def header_of(network: Network, prefix: str, source: str, *, outputs: str = "float", told: str = "") -> str:
    """PREFIX_network.h: what a program declares, whose outputs are of a type that `told` tells of."""
    return _HEADER.format(
        guard=f"{prefix.upper()}_NETWORK_H",
        of=in_comment(source),
        p=prefix,
        inputs=int(np.prod(network.shape)),
        outputs=network.sizes[-1],
        shape=" x ".join(map(str, network.shape)),
        type=outputs,
        includes="" if outputs == "float" else "#include <stdint.h>\n\n",
        told=f"\n   {told}" if told else "",
    )


def main_of(prefix: str) -> str:
    """PREFIX_main.c."""
    return _MAIN.format(p=prefix)


_HEADER = """/* The network of {of}, as lnsnum export writes it. */

#ifndef {guard}
#define {guard}

{includes}#ifdef __cplusplus
extern "C" {{
#endif

enum {{ {p}_inputs = {inputs}, {p}_outputs = {outputs} }};

/* The outputs for one input of {shape} floats, row-major. Not for two threads at once: it has arrays of its
   own.{told} */
void {p}_outputs_of(const float *input, {type} *outputs);

/* The index of the greatest output, the first of equals; of the first NaN where there is one. */
int {p}_class(const float *input);

#ifdef __cplusplus
}}
#endif

#endif
"""

_MAIN = """/* Reads inputs, numbers in text one after another, and prints the class of each. */

#include <stdio.h>

#include "{p}_network.h"

int main(void) {{
    static float input[{p}_inputs];
    int count = 0, got;
    while ((got = scanf("%f", &input[count])) == 1) {{
        if (++count == {p}_inputs) {{
            printf("%d\\n", {p}_class(input));
            count = 0;
        }}
    }}
    if (got == EOF && count == 0) return 0;
    fprintf(stderr, "an input is %d numbers: it ends, or has something else, after %d\\n", (int){p}_inputs, count);
    return 1;
}}
"""


def _source(network: Network, prefix: str) -> Iterator[bytes]:
    """The arrays, then the functions."""
    yield _ascii(f'#include "{prefix}_network.h"\n\n#include "lnsnum_net.h"\n')
    formats = sorted({product.fmt for product in network.products}, key=lambda fmt: fmt.name)
    for fmt in formats:
        yield _ascii(f"\n/* The numbers of {fmt.name}, by code. */\n")
        table = decode_table(fmt, 0, "float32").view(np.float32).copy()
        table[fmt.nan_code] = 0.0  # which no weight here is
        yield from _array("float", _values(fmt), c_floats(table), 8)
    calls: list[str] = []
    place = "input"
    last = len(network.layers) - 1
    for number, (layer, size) in enumerate(zip(network.layers, network.sizes, strict=True)):
        if isinstance(layer, (Product, Affine)):
            yield _ascii(f"\n/* {title(layer)} */\n")
            if isinstance(layer, Product):
                yield from array_of_codes(f"codes_{number}", layer.codes)
            yield from _array("float", f"scale_{number}", c_floats(layer.scale), 8)
            yield from _array("float", f"shift_{number}", c_floats(layer.shift), 8)
        if isinstance(layer, (Product, Pool)) and layer.window is not None:
            yield _ascii(f"static const lnsnum_window window_{number} = {in_c(layer.window)};\n")
        if isinstance(layer, (Product, Pool)):
            # the outputs are written where the caller wants them, by the last layer that writes anew
            is_last = all(isinstance(later, (Activation, Affine)) for later in network.layers[number + 1 :])
            to = "outputs" if is_last else "odd" if place == "even" else "even"
        elif place == "input":
            # what is in place must not write to the input
            calls.append(f"for (i = 0; i < {size}; i++) even[i] = input[i];")
            place = to = "even"
        else:
            to = place
        calls.append(_call(number, layer, size, place, to))
        place = to
    assert place == "outputs", last
    even, odd = _rooms(network)
    yield _ascii(f"\nvoid {prefix}_outputs_of(const float *input, float *outputs) {{\n")
    for name, room in (("even", even), ("odd", odd)):
        if room:
            yield _ascii(f"    static float {name}[{room}];\n")
    if any(call.startswith("for") for call in calls):
        yield b"    int i;\n"
    yield _ascii("".join(f"    {call}\n" for call in calls) + "}\n")
    yield _ascii(
        f"\nint {prefix}_class(const float *input) {{\n    float outputs[{prefix}_outputs];\n"
        f"    {prefix}_outputs_of(input, outputs);\n    return lnsnum_argmax({prefix}_outputs, outputs);\n}}\n"
    )


def _rooms(network: Network) -> tuple[int, int]:
    """How many floats the two arrays must hold that layers write to in turn."""
    rooms = [0, 0]
    turn = -1
    for number, (layer, size) in enumerate(zip(network.layers, network.sizes, strict=True)):
        if isinstance(layer, (Product, Pool)):
            if all(isinstance(later, (Activation, Affine)) for later in network.layers[number + 1 :]):
                break
            turn = 0 if turn != 0 else 1
        elif turn < 0:
            turn = 0
        rooms[turn] = max(rooms[turn], size)
    return rooms[0], rooms[1]


def _call(number: int, layer: Layer, size: int, place: str, to: str) -> str:
    """A layer as a statement."""
    if isinstance(layer, Product):
        arrays = f"codes_{number}, {_values(layer.fmt)}, scale_{number}, shift_{number}"
        outputs = layer.codes.shape[0]
        if layer.window is None:
            return f"lnsnum_linear({arrays}, {outputs}, {layer.inputs}, {place}, {to});"
        return f"lnsnum_conv2d({arrays}, {outputs}, {layer.inputs}, {layer.groups}, &window_{number}, {place}, {to});"
    if isinstance(layer, Pool):
        if layer.kind == "max":
            return f"lnsnum_max_pool2d({layer.channels}, &window_{number}, {place}, {to});"
        return f"lnsnum_avg_pool2d({layer.channels}, &window_{number}, {int(layer.count_padding)}, {place}, {to});"
    if isinstance(layer, Affine):
        return f"lnsnum_affine({layer.scale.size}, {layer.size}, scale_{number}, shift_{number}, {to});"
    if layer.clip is not None:
        low, high = (_float(bound) for bound in layer.clip)
        return f"lnsnum_clip({size}, {low}, {high}, {to});"
    if layer.slope == 0.0:
        return f"lnsnum_relu({size}, {to});"
    return f"lnsnum_leaky_relu({size}, {_float(layer.slope)}, {to});"


def _float(number: float) -> str:
    """A float of C, exactly that of float32."""
    return f"{float(np.float32(number)).hex()}f"


def title(layer: Product | Affine) -> str:
    """What a comment says of a layer."""
    if isinstance(layer, Affine):
        return f"{layer.scale.size} channels of {layer.size}"
    shape = " x ".join(map(str, layer.codes.shape))
    return f"layer {in_comment(layer.name)}: {shape} codes of {layer.fmt.name}"


def in_c(window: Window) -> str:
    """A window as C's struct."""
    fields = window.image, window.size, window.stride, window.padding, window.dilation, window.places
    return "{" + ", ".join(str(number) for field in fields for number in field) + "}"


def _values(fmt: LNSFormat) -> str:
    return plain(f"values_{fmt.name}")


def array_of_codes(name: str, codes: NDArray[np.uint8]) -> Iterator[bytes]:
    """The weights of a layer as an array in C."""
    texts = (hexadecimal(part, 8, before="0x", after=",") for part in parts(codes.reshape(-1)))
    return _array("uint8_t", name, texts, 16)


def _array(c_type: str, name: str, texts: Text | Iterable[Text], per_line: int) -> Iterator[bytes]:
    yield _ascii(f"static const {c_type} {name}[] = {{\n")
    for text in [texts] if isinstance(texts, np.ndarray) else texts:
        yield from lines(text, per_line)
    yield b"};\n"


def _ascii(text: str) -> bytes:
    return text.encode("ascii")
