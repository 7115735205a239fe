"""Uses of weights: what a layer that is small costs more with codes than with floats, and a model made of such layers.

Times of the layer are of a linear one, 64 x 64, for a batch of four rows: so short that what is measured is how an
operation finds its way to the codes. The model is GPT-2 of Hugging Face's, 12 layers 64 wide: 148 tensors.
"""

from __future__ import annotations

import copy
from operator import methodcaller
from typing import Any

import torch
from torch import nn

from benchmarks.performance.cases import OWN, Call, Case, UnavailableError
from lnsnum.torch_bridge import Madam, convert_model

FLOAT, FLOAT_ADAM = "torch float32", "float32, fused Adam"
HOLDER = "floats in a bare subclass"
LAYER, MODEL = "linear layer 64 x 64", "GPT-2 64 wide"
FORWARD, BOTH, STEP = ", forward", ", forward and backward", ", training step"


class Holder(torch.Tensor):
    """Floats as an LNSWeight is codes, in the guise of a tensor, and nothing else: what torch takes to ask a class in
    Python what to do."""

    floats: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def of(floats: torch.Tensor) -> Holder:
        """One that holds these."""
        memory = {"strides": floats.stride(), "storage_size": floats.nbytes, "dtype": floats.dtype}
        holder: Holder = torch.Tensor._make_wrapper_subclass(Holder, floats.shape, **memory)
        holder.floats = floats
        return holder

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if func in (torch.ops.aten.t.default, torch.ops.aten.detach.default):
            view = cls.of(func(args[0].floats))
            torch._functionalize_unsafe_set(view, args[0])
            return view
        return func(*(argument.floats if type(argument) is cls else argument for argument in args))


class Layer:
    """A linear layer and its input."""

    def __init__(self, n: int) -> None:
        torch.manual_seed(0)
        self.layer, self.x = nn.Linear(n, n), torch.randn(4, n)

    def _layer(self, weights: str) -> nn.Linear:
        layer = copy.deepcopy(self.layer)
        if weights == OWN:
            convert_model(layer, "lns8f5")
        elif weights == HOLDER:
            layer.weight, layer.bias = (nn.Parameter(Holder.of(p.detach())) for p in (layer.weight, layer.bias))
        return layer

    def forward(self, weights: str) -> Call:
        """For inference."""
        layer = self._layer(weights)

        def call() -> None:
            with torch.no_grad():
                layer(self.x)

        return call

    def both(self, weights: str) -> Call:
        """With the gradients of weight and bias."""
        layer = self._layer(weights)

        def call() -> None:
            layer.zero_grad(set_to_none=True)
            layer(self.x).sum().backward()

        return call


class Model:
    """GPT-2, and a token to read, or 64 to learn from."""

    def __init__(self, width: int) -> None:
        self.width = width

    def _model(self, *, codes: bool) -> nn.Module:
        try:
            from transformers import GPT2Config, GPT2LMHeadModel
        except ImportError:
            raise UnavailableError("transformers is not installed") from None
        torch.manual_seed(0)
        sizes = {"n_layer": 12, "n_embd": self.width, "n_head": 4, "vocab_size": 256, "n_positions": 128}
        dropout = dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], 0.0)
        model: nn.Module = GPT2LMHeadModel(GPT2Config(**sizes, **dropout, bos_token_id=0, eos_token_id=0))
        if codes:
            convert_model(model, "lns8f5")
        return model

    def forward(self, *, codes: bool) -> Call:
        """One token."""
        model, tokens = self._model(codes=codes).eval(), torch.zeros(1, 1, dtype=torch.long)

        def call() -> None:
            with torch.no_grad():
                model(tokens, use_cache=False)

        return call

    def step(self, *, codes: bool) -> Call:
        """64 tokens, forward, backward and the optimizer's step."""
        model, tokens = self._model(codes=codes), torch.arange(64)[None]
        parameters = list(model.parameters())
        optimizer = Madam(parameters, lr=1e-3) if codes else torch.optim.Adam(parameters, lr=1e-5, fused=True)

        def call() -> None:
            model.zero_grad(set_to_none=True)
            model(tokens, labels=tokens, use_cache=False).loss.backward()
            optimizer.step()

        return call


def cases() -> list[Case]:
    """Two of the layer and two of the model."""
    one = {"count": lambda size: 1, "sizes": (64,), "unit": "call"}
    return [
        Case(
            LAYER + FORWARD,
            FLOAT,
            {weights: methodcaller("forward", weights) for weights in (OWN, FLOAT, HOLDER)},
            Layer,
            lambda n: n * n + 8 * 4 * n,
            "1 transposition, 1 product with a bias; 2 weights decoded",
            floor=HOLDER,
            **one,
        ),
        Case(
            LAYER + BOTH,
            FLOAT,
            {weights: methodcaller("both", weights) for weights in (OWN, FLOAT, HOLDER)},
            Layer,
            lambda n: 5 * n * n + 8 * 4 * n,
            "the same, and the gradients of weight and bias",
            floor=HOLDER,
            **one,
        ),
        Case(
            MODEL + FORWARD,
            FLOAT,
            {OWN: lambda model: model.forward(codes=True), FLOAT: lambda model: model.forward(codes=False)},
            Model,
            lambda n: 12 * 12 * n * n,
            "49 products, 25 norms, 2 look-ups; 148 weights decoded",
            floor=FLOAT,
            **one,
        ),
        Case(
            MODEL + STEP,
            FLOAT_ADAM,
            {OWN: lambda model: model.step(codes=True), FLOAT_ADAM: lambda model: model.step(codes=False)},
            Model,
            lambda n: 14 * 12 * 12 * n * n,
            "1 forward, 1 backward, 1 step of the optimizer on 148 tensors",
            floor=FLOAT_ADAM,
            **one,
        ),
    ]
