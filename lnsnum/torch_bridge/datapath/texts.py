"""Settings as text: JSON that a weight file holds, and the short form that a command takes.

    activations=lns8f3,errors=lns8f3,accumulate=lns12f6/pairwise/table:20
    lns_madam_8bit
    lns_madam_8bit,accumulate=lns16f10,elementwise
    activations=lns8f3/running,errors=lns8f3/stochastic_value

The JSON says all; the short form gives formats with a scale and a rounding, and an accumulator's order, range and
Gaussian logarithm, or fixed:BITS.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, get_args

from lnsnum import gaussian
from lnsnum.format import LNSFormat, Rounding
from lnsnum.gaussian import GaussianLog
from lnsnum.torch_bridge.datapath.presets import preset
from lnsnum.torch_bridge.datapath.settings import KINDS, Accumulator, FixedPoint, Formats, Numbers, Settings

_LOGS: dict[str, Any] = {
    name: getattr(gaussian, name)
    for name in ("BitShift", "Cotransformation", "Exact", "LinearInterpolation", "LookUpTable", "Mitchell")
}

_SHORT: dict[str, Callable[..., GaussianLog]] = {
    "exact": gaussian.Exact,
    "mitchell": gaussian.Mitchell,
    "bit-shift": gaussian.BitShift,
    "cotransformation": gaussian.Cotransformation,
    "linear": gaussian.LinearInterpolation,
    "table": gaussian.LookUpTable,
}


def to_json(settings: Settings) -> str:
    """Of any settings but those with a Gaussian logarithm of the user's own.

    Raises:
        ValueError: for one that no file can hold.
    """
    return json.dumps(
        {
            "formats": _plain(settings.formats),
            "layers": [[pattern, None if one is None else _plain(one)] for pattern, one in settings.layers],
            "seed": settings.seed,
            "statistics": settings.statistics,
        }
    )


def from_json(text: str) -> Settings:
    """What `to_json` wrote.

    Raises:
        ValueError: for anything else.
    """
    try:
        read = json.loads(text)
        layers = tuple((pattern, None if one is None else _formats(one)) for pattern, one in read["layers"])
        return Settings(_formats(read["formats"]), layers, read["seed"], read["statistics"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{text[:80]!r} is no description of a datapath: {error}") from error


def _plain(formats: Formats) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for kind in KINDS:
        numbers = formats.numbers(kind)
        plain[kind] = None if numbers is None else {**asdict(numbers), "fmt": numbers.fmt.name}
    accumulate = formats.accumulate
    if isinstance(accumulate, Accumulator):
        log: Any = accumulate.gaussian_log
        name = type(log).__name__
        if _LOGS.get(name) is not type(log):
            raise ValueError(
                f"gaussian_log={log!r} is of your own, and no file can hold it: save the model without its datapath, "
                "by use_datapath(model, None)"
            )
        plain["accumulate"] = {
            "fmt": accumulate.fmt.name,
            "order": accumulate.order,
            "gaussian_log": [name, asdict(log)],
            "block": accumulate.block,
            "log_offset": accumulate.log_offset,
        }
    else:
        plain["accumulate"] = {"bits": accumulate.bits} if isinstance(accumulate, FixedPoint) else accumulate
    plain["elementwise"] = formats.elementwise
    return plain


def _formats(plain: dict[str, Any]) -> Formats:
    kinds = {kind: None if plain[kind] is None else Numbers(**plain[kind]) for kind in KINDS}
    accumulate = plain["accumulate"]
    if isinstance(accumulate, dict) and "bits" in accumulate:
        accumulate = FixedPoint(**accumulate)
    elif isinstance(accumulate, dict):
        name, arguments = accumulate["gaussian_log"]
        accumulate = Accumulator(**{**accumulate, "gaussian_log": _LOGS[name](**arguments)})
    return Formats(**kinds, accumulate=accumulate, elementwise=plain["elementwise"])


def read_short(text: str) -> dict[str, Any]:
    """The short form as arguments of `datapath`.

    Raises:
        ValueError: for what cannot be read.

    >>> read_short("activations=lns8f3,accumulate=lns12f6/pairwise")["accumulate"].order
    'pairwise'
    """
    arguments: dict[str, Any] = {}
    named: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if part == "elementwise":
            _put(arguments, part, True, part)
        elif not equals:
            _put(named, "preset", preset(name), part)
        elif name == "accumulate":
            _put(arguments, name, value if value == "float32" else _accumulator(value), part)
        elif name in KINDS:
            _put(arguments, name, None if value == "float32" else _numbers(value), part)
        else:
            raise ValueError(
                f"{part!r} is not known: {', '.join(KINDS)} or accumulate, and '=' a format; elementwise; or a preset"
            )
    return {**named.get("preset", {}), **arguments}


_WORDS = {"gaussian_log": "Gaussian logarithm", "log_offset": "range"}


def _put(arguments: dict[str, Any], name: str, value: Any, part: str) -> None:
    """One argument: of two, none is the one that was meant."""
    if name in arguments:
        raise ValueError(f"{part!r} is a second {_WORDS.get(name, name)}: give one")
    arguments[name] = value


def _numbers(text: str) -> Numbers | LNSFormat:
    name, *rest = text.split("/")
    if not rest:
        return LNSFormat.parse(name)
    arguments: dict[str, Any] = {}
    for part in rest:
        if part in get_args(Rounding):
            _put(arguments, "rounding", part, part)
        elif part in ("max", "running", "channel"):
            _put(arguments, "scale", part, part)
        elif part.removeprefix("-").isdecimal():
            _put(arguments, "scale", int(part), part)
        else:
            raise ValueError(
                f"{part!r} is not known: a scale (max, running, channel, a log_offset), or a rounding "
                f"({', '.join(get_args(Rounding))})"
            )
    return Numbers(LNSFormat.parse(name), **arguments)


def _accumulator(text: str) -> Accumulator | FixedPoint:
    fmt, *rest = text.split("/")
    bits = fmt.removeprefix("fixed:")
    if bits.isdecimal():
        if rest:
            raise ValueError(f"{fmt!r} adds integers, whose order and range make no difference: leave out {rest[0]!r}")
        return FixedPoint(int(bits))
    arguments: dict[str, Any] = {}
    for part in rest:
        name, _, number = part.partition(":")
        if name in ("sequential", "pairwise", "blocked"):
            _put(arguments, "order", name, part)
        elif part in ("fit", "dynamic") or part.removeprefix("-").isdecimal():
            _put(arguments, "log_offset", part if part in ("fit", "dynamic") else int(part), part)
        elif name in _SHORT and (not number or number.isdecimal()):
            try:
                log = _SHORT[name](*([int(number)] if number else []))
            except TypeError:
                raise ValueError(
                    f"{part!r} is no Gaussian logarithm: {'leave out' if number else 'give'} the number"
                ) from None
            _put(arguments, "gaussian_log", log, part)
        else:
            raise ValueError(
                f"{part!r} is not known: an order (sequential, pairwise, blocked), a range (fit, dynamic, a "
                f"log_offset), or a Gaussian logarithm ({', '.join(_SHORT)})"
            )
    return Accumulator(LNSFormat.parse(fmt), **arguments)
