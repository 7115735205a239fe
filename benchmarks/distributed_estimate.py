"""On paper: what fully_shard moves and holds at 7 and 70 billion parameters, on 8 to 512 graphics cards.

    wire, a step     (n - 1) / n * P * (2 * gathered + reduced)          received by each card
    memory           P / n * (weights + state + gradients)  +  P / L * (2 * gathered + 2)

P parameters in L layers on n cards. No times: they depend on the network, and nothing here was run at that size.

    python benchmarks/distributed_estimate.py
"""

from __future__ import annotations

from typing import NamedTuple

ASSUMPTIONS = """
- All parameters are in layers of one size, and are sharded over all cards; no tensor or pipeline parallelism.
- Weights are gathered twice a step, for forward and for backward (`reshard_after_forward`), by a ring, in which a card
  receives (n - 1) / n of the whole. Gradients are reduced and scattered once, as bfloat16.
- One exchange for each step: nothing is accumulated over several micro-batches.
- A card holds its shards of weights, optimizer state and float32 gradients; the gathered weights of two layers, one in
  use and one on its way; and one layer's gradients as bfloat16, before they are reduced.
- An LNS layer holds its codes gathered, and decodes one matrix at a time, which is left out, as are activations,
  buffers of the exchange and fragmentation.
- bfloat16 with Adam keeps float32 weights and both moments; 8-bit Adam has a byte for each moment and a float32 scale
  for each 256 of them; float8 gathers a byte and keeps float32 weights and moments; Madam has a byte of codes and one
  of second moment, and with momentum another. Scales of tensors are left out, and what Madam's step reduces: eight
  bytes for each tensor.
"""


class Recipe(NamedTuple):
    """Bytes a parameter."""

    name: str
    gathered: float
    weights: float
    state: float
    reduced: float = 2.0
    gradients: float = 4.0


RECIPES = [
    Recipe("bfloat16, float32 Adam", 2, 4, 8),
    Recipe("bfloat16, 8-bit Adam", 2, 4, 2 + 2 * 4 / 256),
    Recipe("float8, float32 Adam", 1, 4, 8),
    Recipe("lns8f5, Madam with momentum", 1, 1, 2),
    Recipe("lns8f5, Madam", 1, 1, 1),
]

MODELS = {7: 32, 70: 80}
"""Billions of parameters, and layers."""

CARDS = (8, 64, 512)


def wire(recipe: Recipe, billions: float, cards: int) -> float:
    """Gigabytes (10^9) that a card receives in a step."""
    return (cards - 1) / cards * billions * (2 * recipe.gathered + recipe.reduced)


def memory(recipe: Recipe, billions: float, layers: int, cards: int) -> float:
    """Gigabytes (10^9) that a card holds."""
    held = recipe.weights + recipe.state + recipe.gradients
    return billions / cards * held + billions / layers * (2 * recipe.gathered + 2)


def table() -> list[str]:
    """Lines of Markdown."""
    head = [f"{billions}B, {cards}" for billions in MODELS for cards in CARDS]
    lines = ["| GB a card: on the wire a step / held | " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(head)]
    for recipe in RECIPES:
        cells = [
            f"{wire(recipe, billions, cards):.0f} / {memory(recipe, billions, layers, cards):.1f}"
            for billions, layers in MODELS.items()
            for cards in CARDS
        ]
        lines.append(f"| {recipe.name} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
    print(ASSUMPTIONS)
