"""What a parameter has besides its numbers, carried to the one that takes its place.

    hooks          the very dicts that hold them, so that a handle which was given out still removes its own
    attributes     all that somebody has set, such as a mark that weight decay leaves the parameter out

What nobody can carry, because torch keeps it where Python cannot see it or knows it by the object: hooks on the node
that accumulates the gradient, and whoever holds the old parameter itself (an optimizer, a list). The gradient is not
carried: it is that of other numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

FIELDS = frozenset(["codes", "fmt", "_span", "_offsets", "_groups", "_taken_at", "_is_parameter", "_heir_of"])
"""Attributes of an LNSWeight that are its own."""


class Belongings(NamedTuple):
    """What is carried."""

    attributes: dict[str, Any]
    backward_hooks: Any
    post_accumulate_grad_hooks: Any


def belongings(parameter: torch.Tensor) -> Belongings:
    """Attributes and hooks of a parameter."""
    own = FIELDS if "_span" in vars(parameter) else frozenset()
    attributes = {name: value for name, value in vars(parameter).items() if name not in own}
    return Belongings(attributes, parameter._backward_hooks, parameter._post_accumulate_grad_hooks)


def hand_over(carried: Belongings, successor: torch.Tensor) -> list[str]:
    """Give them to another tensor; returns the names of attributes that it cannot take."""
    refused = []
    for name, value in carried.attributes.items():
        is_ours = name in vars(successor) or (hasattr(type(successor), name) and not hasattr(torch.Tensor, name))
        try:
            if is_ours:
                raise AttributeError
            setattr(successor, name, value)
        except (AttributeError, TypeError):
            refused.append(name)
    if carried.backward_hooks:
        successor._backward_hooks = carried.backward_hooks
    if carried.post_accumulate_grad_hooks:
        successor._post_accumulate_grad_hooks = carried.post_accumulate_grad_hooks
    return refused


def succeed(parameter: nn.Parameter, successor: nn.Parameter) -> tuple[str, ...]:
    """Let a new parameter have what an old one of the same shape had; returns in words what it cannot have."""
    refused = [f"attribute {name!r}" for name in hand_over(belongings(parameter), successor)]
    if any(name is not None for name in getattr(parameter, "names", ())):
        refused.append("names of dimensions")
    if type(parameter) not in (nn.Parameter, type(successor)) and "_is_parameter" not in vars(parameter):
        refused.append(f"class {type(parameter).__name__}")
    return tuple(refused)
