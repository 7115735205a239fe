"""The weight-only product of one row and of eight: bytes of W a second, and against bfloat16 and torchao's int8."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.gpu import clock
from lnsnum.torch_bridge import convert_model, use_weight_only


def measure(shapes: list[tuple[int, int]], device: torch.device) -> Iterator[dict[str, Any]]:
    """A row for each shape of W, number of rows of x and side."""
    for outer, inner in shapes:
        plain = nn.Linear(inner, outer, bias=False, device=device, dtype=torch.bfloat16)
        sides = _sides(plain)
        for rows in (1, 8):
            x = torch.randn(rows, inner, device=device, dtype=torch.bfloat16)
            bytes_ = {"torch, bfloat16": 2}
            seconds = {}
            for name, module in sides.items():
                try:
                    with torch.inference_mode():
                        seconds[name] = clock.median(lambda m=module, x=x: m(x), device)
                except Exception as error:  # another's, compiled by what may not fit it
                    if name in ("torch, bfloat16", "lns8f5 weight-only"):
                        raise
                    yield {"what": name, "shape": [outer, inner], "rows": rows, "left out": repr(error)[:200]}
            for name, own in seconds.items():
                yield {
                    "what": name,
                    "shape": [outer, inner],
                    "rows": rows,
                    "seconds": own,
                    "GB/s of W": bytes_.get(name, 1) * outer * inner / own / 1e9,
                    "times bfloat16": seconds["torch, bfloat16"] / own,
                    "of a copy": clock.copy(bytes_.get(name, 1) * outer * inner, device) / own,
                }


def _sides(plain: nn.Linear) -> dict[str, nn.Module]:
    coded = copy.deepcopy(plain)
    convert_model(coded, "lns8f5")
    use_weight_only(coded)
    sides: dict[str, nn.Module] = {"torch, bfloat16": plain, "lns8f5 weight-only": coded}
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantized = nn.Sequential(copy.deepcopy(plain))
        quantize_(quantized, Int8WeightOnlyConfig())
    except Exception as error:  # it is not there, or not for this torch
        print(f"  no torchao: {error!r:.200}")
        return sides
    sides["torchao int8 weight-only"] = torch.compile(quantized) if plain.weight.is_cuda else quantized
    return sides
