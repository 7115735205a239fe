"""A network as a C99 program of integers: its layers as calls of lnsnum_integer.h, its weights as constant codes.

    int model_class(const float *input);              the class
    void model_outputs_of(const float *input, int32_t *outputs);

Two arrays of bytes take turns in what goes from layer to layer, as large as the largest that they must hold; nothing
else is written to. Floats come in, of which the bits are looked at, and none goes out.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsnum.toolbox.export_targets.c_adder import LNSNUM_SUMS_H, adder_source, why_no_adder
from lnsnum.toolbox.export_targets.c_network import LNSNUM_NET_H, array_of_codes, header_of, in_c, main_of, title
from lnsnum.toolbox.export_targets.fixed_text import c_integers, lines
from lnsnum.toolbox.export_targets.hardware_tables import sum_tables
from lnsnum.torch_bridge.datapath import Accumulator, FixedPoint
from lnsnum.torch_bridge.datapath.fixed_point import power_table
from lnsnum.torch_bridge.integer_layers import IntegerNetwork, IntegerProduct
from lnsnum.torch_bridge.sequential import NetworkError, Pool, Product, Window

LNSNUM_INTEGER_H = LNSNUM_NET_H.with_name("lnsnum_integer.h")
"""The layers in integers that come with this package."""


def write_integers(folder: Path, made: IntegerNetwork, *, prefix: str, source: str) -> dict[str, Any]:
    """Write PREFIX_network.h, PREFIX_network.c, PREFIX_main.c and copies of the three headers that they include.

    Args:
        folder: where the files go.
        made: the layers.
        prefix: an identifier in small letters, which begins all that the header declares.
        source: the name of what it was made from, for a comment.

    Returns:
        What the manifest says of it.

    Raises:
        NetworkError: where lnsnum_sums.h cannot add in an accumulator's format.
    """
    for one in made.products:
        if isinstance(one.accumulator, Accumulator) and (reason := why_no_adder(one.accumulator.fmt)):
            raise NetworkError(f"layer {one.product.name} has an accumulator of {one.accumulator.name}: {reason}")
    for header in (LNSNUM_NET_H, LNSNUM_SUMS_H, LNSNUM_INTEGER_H):
        shutil.copyfile(header, folder / header.name)
    network, last = made.network, made.products[-1]
    told = f"{_told(last)}\n   Of the input only the bits are looked at: the network computes in integers."
    (folder / f"{prefix}_network.h").write_text(
        header_of(network, prefix, source, outputs="int32_t", told=told), encoding="ascii", newline="\n"
    )
    with open(folder / f"{prefix}_network.c", "xb") as file:
        file.writelines(_source(made, prefix))
    (folder / f"{prefix}_main.c").write_text(main_of(prefix), encoding="ascii", newline="\n")
    weights = sum(one.product.codes.size for one in made.products)
    return {
        "shape": list(network.shape),
        "outputs": network.sizes[-1],
        "layers": len(network.layers),
        "weights": weights,
        "constant_bytes": weights + _constant_bytes(made),
        "written_bytes": sum(_rooms(made)),
        "integers": {
            "activations": {one.product.name: [one.numbers.fmt.name, one.numbers.scale] for one in made.products},
            "accumulator": last.accumulator.name,
            "outputs": {"log_offset" if isinstance(last.accumulator, Accumulator) else "unit": last.scale},
        },
    }


def _told(last: IntegerProduct) -> str:
    """What an output is."""
    accumulator = last.accumulator
    if isinstance(accumulator, FixedPoint):
        return f"An output is an integer of the unit {last.scale!r}; INT32_MIN is NaN."
    fmt = accumulator.fmt
    return (
        f"An output y is +-2^((|y| - {fmt.bias - int(last.scale)}) / {1 << fmt.fraction_bits}), with the sign of y; "
        "0 is 0, INT32_MIN is NaN."
    )


def _constant_bytes(made: IntegerNetwork) -> int:
    """Of all constants but the codes, without structs."""
    size = made.thresholds.nbytes
    for one in made.products:
        size += one.shifts.nbytes + sum(part.nbytes for part in (one.bias, one.thresholds) if part is not None)
    for one in {_adds(one): one for one in made.products}.values():
        if isinstance(one.accumulator, Accumulator):
            tables = sum_tables(one.accumulator.fmt)
            size += 2 * (tables.sb.size + tables.db.size + tables.half.size)
        else:
            size += 4 << _finest(one)
    return size


def _finest(one: IntegerProduct) -> int:
    return one.product.fmt.fraction_bits + one.finer[0]


def _adds(one: IntegerProduct) -> str:
    """The name in C of what adds."""
    if isinstance(one.accumulator, Accumulator):
        return f"adder_{one.accumulator.name}"
    return f"powers_{one.accumulator.bits}_{_finest(one)}"


def _rooms(made: IntegerNetwork) -> tuple[int, int]:
    """How many codes the two arrays must hold: the input, and what layers write in turn."""
    rooms, turn = [math.prod(made.network.shape), 0], 0
    layers = made.network.layers
    last = max(place for place, layer in enumerate(layers) if isinstance(layer, Product))
    for layer, size in zip(layers[:last], made.network.sizes, strict=False):
        if isinstance(layer, (Product, Pool)):
            turn = 1 - turn
            rooms[turn] = max(rooms[turn], size)
    return rooms[0], rooms[1]


def _source(made: IntegerNetwork, prefix: str) -> Iterator[bytes]:
    """The arrays, then the functions."""
    network = made.network
    yield _ascii(f'#include "{prefix}_network.h"\n\n#include "lnsnum_integer.h"\n')
    for name, one in {_adds(one): one for one in made.products}.items():
        if isinstance(one.accumulator, Accumulator):
            yield _ascii(f"\n/* sb and db of {one.accumulator.name}. */\n{adder_source(one.accumulator.fmt, name)}")
        else:
            table = power_table(_finest(one), one.accumulator.bits).astype(np.int32)
            yield _ascii(f"\n/* 2^(r / {table.size}) 2^{one.accumulator.bits} */\n")
            yield from _integers(f"table_of_{name}", table)
            yield _ascii(f"static const lnsnum_powers {name} = {{{_finest(one)}, table_of_{name}}};\n")
    yield _ascii("\n/* The least bits of a float of each code of the input. */\n")
    yield from _integers("thresholds", made.thresholds)
    first = made.products[0].numbers.fmt
    calls = [f"lnsnum_codes_of_floats(thresholds, {first.sign_bit}, {prefix}_inputs, input, even);"]
    products = iter(made.products)
    coming = list(made.products)
    place = "even"
    for number, (layer, size) in enumerate(zip(network.layers, network.sizes, strict=True)):
        other = "odd" if place == "even" else "even"
        if isinstance(layer, Product):
            one = next(products)
            coming.pop(0)
            yield from _layer(number, one, coming[0] if coming else None)
            adder = isinstance(one.accumulator, Accumulator)
            adds = f"&{_adds(one)}, NULL" if adder else f"NULL, &{_adds(one)}"
            to = f"{other}, NULL" if coming else "NULL, outputs"
            calls.append(f"lnsnum_run_layer(&layer_{number}, {adds}, {place}, {to});")
            place = other
            continue
        fmt = coming[0].numbers.fmt
        if isinstance(layer, Pool):
            assert layer.kind == "max", "a mean has become a layer with weights"
            yield _ascii(f"\nstatic const lnsnum_window window_{number} = {in_c(layer.window)};\n")
            arguments = f"{fmt.sign_bit}, {layer.channels}, &window_{number}, {place}, {other}"
            calls.append(f"lnsnum_max_pool_codes({arguments});")
            place = other
        elif number in made.clips:
            low, high = made.clips[number]
            calls.append(f"lnsnum_clip_codes({fmt.sign_bit}, {low}, {high}, {size}, {place});")
        else:
            calls.append(f"lnsnum_relu_codes(format_{number}, {size}, {place});")
            yield _ascii(f"\nstatic const lnsnum_code_format format_{number} = {{{fmt.bits}, {fmt.fraction_bits}}};\n")
    yield _ascii(f"\nvoid {prefix}_outputs_of(const float *input, int32_t *outputs) {{\n")
    for name, room in zip(("even", "odd"), _rooms(made), strict=True):
        if room:
            yield _ascii(f"    static uint8_t {name}[{room}];\n")
    yield _ascii("".join(f"    {call}\n" for call in calls) + "}\n")
    yield _ascii(
        f"\nint {prefix}_class(const float *input) {{\n    int32_t outputs[{prefix}_outputs];\n"
        f"    {prefix}_outputs_of(input, outputs);\n    return lnsnum_greatest({prefix}_outputs, outputs);\n}}\n"
    )


def _layer(number: int, one: IntegerProduct, after: IntegerProduct | None) -> Iterator[bytes]:
    """The arrays of a layer with weights, and its struct."""
    product = one.product
    yield _ascii(f"\n/* {title(product)} */\n")
    yield from array_of_codes(f"codes_{number}", product.codes)
    arrays = {"shifts": one.shifts, "bias": one.bias, "thresholds": one.thresholds}
    for name, values in arrays.items():
        if values is not None:
            yield from _integers(f"{name}_{number}", values)
    names = {name: "NULL" if values is None else f"{name}_{number}" for name, values in arrays.items()}
    # a linear layer is a window as wide as its inputs
    row = Window((1, product.inputs), (1, product.inputs))
    channels, window = (1, row) if product.window is None else (product.inputs, product.window)
    fields = [f"codes_{number}", names["shifts"], names["bias"], product.fmt.sign_bit, one.numbers.fmt.sign_bit]
    fields += [*one.finer, len(product.codes), channels, product.groups, in_c(window), names["thresholds"]]
    fields.append(0 if after is None else after.numbers.fmt.sign_bit)
    yield _ascii(f"static const lnsnum_layer layer_{number} = {{{', '.join(map(str, fields))}}};\n")


def _integers(name: str, values: NDArray[np.int32]) -> Iterator[bytes]:
    yield _ascii(f"static const int32_t {name}[] = {{\n")
    yield from lines(c_integers(values), 8)
    yield b"};\n"


def _ascii(text: str) -> bytes:
    return text.encode("ascii")
