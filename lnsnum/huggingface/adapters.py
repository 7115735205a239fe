"""Adapters of peft over a base of codes, merged into it.

    w'  =  w + (alpha / r) B A          summed in floats, and then encoded at a scale that fits the sum

peft merges into the weight where it is, at the scale that it has: what no longer fits would be clipped. Here each
weight is converted anew, and the report says what that costs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lnsnum.torch_bridge.model import convert_model
from lnsnum.torch_bridge.reports import ConversionReport, ParameterReport
from lnsnum.torch_bridge.weight import LNSWeight


def merge_adapters(model: Any) -> tuple[nn.Module, ConversionReport]:
    """Merge the active LoRA adapters of a model into its weights of codes; the base model, and a report.

    A weight keeps its format, and its kind of scale: one for all, for each row, or for each group.

    Args:
        model: a `peft.PeftModel`; it is of no use afterwards.

    Raises:
        TypeError: where it is none.
        ValueError: where an adapter is no LoRA that is added to a weight.
    """
    if not hasattr(model, "peft_config") or not hasattr(model, "unload"):
        raise TypeError(f"the model is a {type(model).__name__}, and no PeftModel: it has no adapters to merge")
    layers = {name: m for name, m in model.named_modules() if hasattr(m, "base_layer") and hasattr(m, "lora_A")}
    others = [name for name, m in model.named_modules() if hasattr(m, "base_layer") and not hasattr(m, "lora_A")]
    for name, layer in layers.items():
        has_more = any(getattr(layer, "lora_variant", {}).values()) or any(getattr(layer, "lora_bias", {}).values())
        if getattr(layer, "merged", False) or has_more:
            others.append(name)
    if others or not layers:
        raise ValueError(f"{others[0]!r} is no LoRA that is added to a weight" if others else "the model has no LoRA")
    reports = []
    for name, layer in layers.items():
        base = layer.base_layer
        weight = base.weight
        with torch.no_grad():
            total = weight.to_float() if isinstance(weight, LNSWeight) else weight.detach().clone()
            for adapter in layer.active_adapters:
                if adapter not in layer.lora_A and adapter not in layer.lora_embedding_A:
                    continue  # it is active in the model, and of other layers
                total += layer.get_delta_weight(adapter).to(total.dtype)
        if isinstance(weight, LNSWeight):
            reports.append(replace(_encoded(base, weight, total), name=f"{name}.weight"))
        else:
            base.weight = nn.Parameter(total, requires_grad=weight.requires_grad)
    return model.unload(), ConversionReport(tuple(reports), ())


def _encoded(base: nn.Module, weight: LNSWeight, total: torch.Tensor) -> ParameterReport:
    """Put the sum into the layer, as codes of the weight's format and kind of scale."""
    offset = weight.log_offset
    kept = None if isinstance(offset, int) or weight.group_size else [d for d, n in enumerate(offset.shape) if n > 1]
    alone = nn.Module()
    alone.weight = nn.Parameter(total, requires_grad=weight.requires_grad)
    (report,) = convert_model(
        alone, weight.fmt, group_size=weight.group_size, channels=None if kept is None else tuple(kept)
    )
    base.weight = alone.weight
    return report
