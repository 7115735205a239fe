"""A training step and the peak of its memory, of a model as GPT-2 (124M); tokens a second of generation at batch 1."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.generation import Llama
from benchmarks.generation import Size as LlamaSize
from benchmarks.gpu import clock
from lnsnum.torch_bridge import Madam, convert_model, use_weight_only

GPT2 = {"layers": 12, "width": 768, "heads": 12, "vocabulary": 50_257, "batch": 8, "length": 1024}


class Block(nn.Module):
    """Attention and two layers, each after a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (batch, length, width)."""
        batch, length, width = x.shape
        parts = self.mixed(self.first(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*parts.unbind(), is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.second(x)), approximate="tanh"))


class Gpt(nn.Module):
    """GPT-2, its head tied to the embedding; returns the loss of the next tokens."""

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, length: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks, self.norm = nn.Sequential(*(Block(width, heads) for _ in range(layers))), nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for p in self.parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens (batch, length + 1)."""
        given = tokens[:, :-1]
        x = self.tokens(given) + self.places(torch.arange(given.shape[1], device=given.device))
        logits = self.head(self.norm(self.blocks(x)))
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


def train(size: dict[str, int], device: torch.device, *, compiled: bool) -> Iterator[dict[str, Any]]:
    """A row for each side: seconds of a step, bytes a parameter of weights, state and gradients, and of the peak."""
    shape = {name: number for name, number in size.items() if name != "batch"}
    tokens = torch.randint(0, size["vocabulary"], (size["batch"], size["length"] + 1), device=device)
    first = None
    for name, (make, is_own) in _sides().items():
        what = name + (", compiled" if compiled else "")
        try:
            row = _measured(make, shape, tokens, device, compiled=compiled)
        except Exception as error:  # another's, which is not there, or not for this torch
            if is_own:
                raise
            yield {"what": what, "left out": repr(error)[:200]}
            continue
        first = first or row["seconds"]
        yield {"what": what, "of the first": row["seconds"] / first, **row}


def _measured(
    make: Callable[[nn.Module], Any], shape: dict[str, int], tokens: torch.Tensor, device: torch.device, *,
    compiled: bool,
) -> dict[str, float]:  # fmt: skip
    torch.manual_seed(0)
    model = Gpt(**shape).to(device)
    count = sum(p.numel() for p in model.parameters())
    optimizer = make(model)
    run = torch.compile(model) if compiled else model

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = run(tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    peak = clock.peak(lambda: [step() for _ in range(2)], device)
    seconds = clock.median(step, device, 2.0)
    kept = sum(p.nbytes for p in model.parameters())
    kept += sum(t.nbytes for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor))
    gradients = [p.numel() * p.dtype.itemsize for p in model.parameters()]
    # attached, there is one at a time
    alive = max(gradients) if getattr(optimizer, "_attached", None) else sum(gradients)
    return {
        "seconds": seconds,
        "bytes a parameter, weights and state": kept / count,
        "with gradients": (kept + alive) / count,
        "peak bytes a parameter": peak / count,
    }


def _sides() -> dict[str, tuple[Callable[[nn.Module], Any], bool]]:
    """What makes an optimizer, and the model what it trains; and whether that must work. The marks come first."""

    def madam(attached: bool) -> Callable[[nn.Module], Any]:
        def make(model: nn.Module) -> Any:
            convert_model(model, "lns8f5")
            optimizer = Madam(model.parameters())
            if attached:
                optimizer.attach(model)
            return optimizer

        return make

    def of_torch(model: nn.Module) -> Any:
        return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def of_torchao(model: nn.Module) -> Any:
        from torchao.optim import AdamW8bit

        return AdamW8bit(model.parameters(), lr=1e-4)

    def of_bitsandbytes(model: nn.Module) -> Any:
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(model.parameters(), lr=1e-4)

    return {
        "float32 weights, fused AdamW": (of_torch, True),
        "lns8f5, Madam": (madam(False), True),
        "lns8f5, Madam in backward": (madam(True), True),
        "bfloat16 weights, fused AdamW": (lambda model: of_torch(model.to(torch.bfloat16)), True),
        "float32 weights, bitsandbytes AdamW8bit": (of_bitsandbytes, False),
        "float32 weights, torchao AdamW8bit": (of_torchao, False),
    }


def generate(size: LlamaSize, tokens: int, device: torch.device) -> Iterator[dict[str, Any]]:
    """Tokens a second, greedily, of bfloat16 and of codes."""
    torch.manual_seed(0)
    plain = Llama(size).to(device, torch.bfloat16).eval()
    coded = copy.deepcopy(plain)
    convert_model(coded, "lns8f5")
    use_weight_only(coded)
    first = None
    for name, model in {"bfloat16": plain, "lns8f5 weight-only": coded}.items():

        @torch.inference_mode()
        def run(model: nn.Module = model) -> None:
            token = torch.zeros((1, 1), dtype=torch.int64, device=device)
            for at in range(tokens):
                token = model(token, at)[:, -1:].argmax(-1)

        seconds = clock.median(run, device, 1.0)
        first = first or seconds
        yield {"what": name, "tokens/s": tokens / seconds, "times bfloat16": first / seconds}
    if device.type == "cuda":
        yield from _recorded(plain, coded, tokens - 1, device)


def _recorded(plain: nn.Module, coded: nn.Module, at: int, device: torch.device) -> Iterator[dict[str, Any]]:
    """The last token, as a CUDA graph: without Python's time."""
    first = None
    for name, model in {"bfloat16, CUDA graph": plain, "lns8f5 weight-only, CUDA graph": coded}.items():
        token = torch.zeros((1, 1), dtype=torch.int64, device=device)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            model(token, at)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                model(token, at)
        seconds = clock.median(graph.replay, device)
        first = first or seconds
        yield {"what": name, "tokens/s": 1 / seconds, "times bfloat16": first / seconds}
