"""Text generation, a token at a time: tokens a second of a Llama-like model by codes, in floats, and by torchao's int8.

    python benchmarks/generation.py        (needs the extra `bench`)

110 million parameters with random weights: 12 layers 768 wide, SwiGLU of 2048, 32,000 tokens, the head tied to the
embedding. Batch 1, greedy, keys and values kept. All sides take turns in one process, and the least time of a turn
counts, since other programs only ever add to it. `--quick` is a small model: does all of it run?
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lnsnum.torch_bridge import convert_model, use_weight_only


@dataclass(frozen=True)
class Size:
    """Of a model."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 2048
    vocabulary: int = 32_000
    length: int = 128


SMALL = Size(layers=2, width=64, heads=2, hidden=128, vocabulary=256, length=64)


class Attention(nn.Module):
    """Causal attention with rotated positions, of one token to all before it."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.query, self.key, self.value, self.out = (nn.Linear(size.width, size.width, bias=False) for _ in range(4))
        shape = 1, size.heads, size.length, size.width // size.heads
        self.register_buffer("keys", torch.zeros(shape), persistent=False)
        self.register_buffer("values", torch.zeros(shape), persistent=False)

    def forward(self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], at: int) -> torch.Tensor:
        """x (1, 1, width), the token at place `at`."""
        query, key, value = (
            layer(x).view(1, 1, self.heads, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        self.keys[:, :, at], self.values[:, :, at] = rotate(key, turn)[:, :, 0], value[:, :, 0]
        past = self.keys[:, :, : at + 1], self.values[:, :, : at + 1]
        mixed = F.scaled_dot_product_attention(rotate(query, turn), *past)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


def rotate(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Each pair of halves by its angle."""
    cosine, sine = turn
    low, high = x.chunk(2, -1)
    return torch.cat([low * cosine - high * sine, low * sine + high * cosine], -1)


class Layer(nn.Module):
    """Attention, then a gated layer."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.before_attention, self.before_gate = nn.RMSNorm(size.width), nn.RMSNorm(size.width)
        self.attention = Attention(size)
        self.gate, self.up = (nn.Linear(size.width, size.hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(size.hidden, size.width, bias=False)

    def forward(self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], at: int) -> torch.Tensor:
        """As `Attention`."""
        x = x + self.attention(self.before_attention(x), turn, at)
        y = self.before_gate(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """A decoder that reads one token and gives the logits of the next."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.embedding, self.norm = nn.Embedding(size.vocabulary, size.width), nn.RMSNorm(size.width)
        self.layers = nn.ModuleList(Layer(size) for _ in range(size.layers))
        self.head = nn.Linear(size.width, size.vocabulary, bias=False)
        self.head.weight = self.embedding.weight
        half = size.width // size.heads // 2
        angles = torch.arange(size.length)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, token: torch.Tensor, at: int) -> torch.Tensor:
        """token (1, 1); the logits are (1, 1, vocabulary)."""
        x, turn = self.embedding(token), (self.cosine[at], self.sine[at])
        for layer in self.layers:
            x = layer(x, turn, at)
        return self.head(self.norm(x))


def generate(model: Llama, tokens: int) -> list[int]:
    """So many tokens behind token 1, the likeliest each time."""
    found, token = [], torch.tensor([[1]])
    with torch.inference_mode():
        for at in range(tokens):
            token = model(token, at).argmax(-1)
            found.append(int(token))
    return found


def torchao_int8(model: Llama) -> Llama:
    """torchao's weight-only quantization; the head is quantized too, beside the embedding, which is looked up."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    quantize_(model, Int8WeightOnlyConfig())
    return model


def by_codes(model: Llama) -> Llama:
    """Codes, whose products are made of them."""
    convert_model(model, "lns8f5")
    use_weight_only(model)
    return model


def decoded(model: Llama) -> Llama:
    """Codes, decoded for each product: the bits of the decoded model."""
    convert_model(model, "lns8f5")
    return model


SIDES: dict[str, Callable[[Llama], Llama]] = {
    "float32": lambda model: model,
    "bfloat16": lambda model: model.bfloat16(),
    "torchao int8 weight-only": torchao_int8,
    "torchao int8, bfloat16": lambda model: torchao_int8(model.bfloat16()),
    "lns8f5, decoded": decoded,
    "lns8f5": by_codes,
    "lns8f5, bfloat16": lambda model: by_codes(model).bfloat16(),
}


def mebibytes(model: nn.Module) -> float:
    """Of all parameters."""
    parts = []
    for parameter in model.parameters():
        inner = parameter.__tensor_flatten__()[0] if hasattr(parameter, "__tensor_flatten__") else []
        tensors = [getattr(parameter, name) for name in inner] or [parameter]
        parts += [t.nbytes for t in tensors if isinstance(t, torch.Tensor)]
    return sum(parts) / 2**20


def measure(size: Size, tokens: int, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds a token, and MiB, of each side."""
    torch.manual_seed(0)
    plain = Llama(size).eval().requires_grad_(False)
    models = {}
    for name, make in SIDES.items():
        try:
            models[name] = make(copy.deepcopy(plain))
        except ImportError as error:
            print(f"{name} is not measured: {error}")
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, model in models.items():
            begin = time.perf_counter()
            generate(model, tokens)
            if turn:  # the first one compiles and allocates
                seconds[name].append((time.perf_counter() - begin) / tokens)
    return {name: min(times) for name, times in seconds.items()}, {name: mebibytes(m) for name, m in models.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16, help="in each turn")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="a small model, few turns")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # of torchao, about what it cannot load
    torch.set_num_threads(arguments.threads)
    size, rounds = (SMALL, 2) if arguments.quick else (Size(), arguments.rounds)
    seconds, memory = measure(size, arguments.tokens, rounds)
    count = sum(parameter.numel() for parameter in Llama(size).parameters())
    print(f"{count:,} parameters, batch 1, {arguments.tokens} tokens a turn, the least of {rounds} turns")
    print(f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}\n")
    print(f"{'':26}{'tokens/s':>10}{'of float32':>12}{'MiB':>8}")
    for name, value in seconds.items():
        print(f"{name:26}{1 / value:10.1f}{seconds['float32'] / value:12.2f}{memory[name]:8.0f}")


if __name__ == "__main__":
    main()
