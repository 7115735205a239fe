"""How others train in few bytes: what native LNS weights are compared with.

    int8       weights of linear layers: integers, a scale for each row, stochastic rounding; AdamW, moments of 8 bits
    bfloat16   every weight, AdamW's step in float32 rounded stochastically, or in bfloat16 with Kahan's sum:

               c  <-  c + step;   w'  =  bfloat16(w + c);   c  <-  c + (w - w')            with c in bfloat16 too

All is the packages' own, with their defaults but for the learning rate and the first moment's decay: torchao's
`Int8QuantizedTrainingLinearWeight` with `AdamW8bit`, its `_AdamW` with `bf16_stochastic_round`, and optimi's `AdamW`
with `kahan_sum`. Products are computed as for every other recipe: weights of two bytes are widened where they are used.
The steps are not compiled: the networks are small, and there may be no compiler.

Sources: https://github.com/pytorch/ao; https://optimi.benjaminwarner.dev; Zamirai et al., Revisiting bfloat16 training,
2020, for both ways in bfloat16.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

BETA_2 = 0.999
"""torchao's default."""


def int8_adamw8bit(model: nn.Module, lr: float, beta_1: float) -> Optimizer:
    """Quantize the linear layers that torchao chooses, in place: all but the last one of an attention.

    Raises:
        ImportError: without torchao (the extra `bench`).
    """
    with _others("torchao"):
        from torchao.optim import AdamW8bit
        from torchao.prototype.quantized_training import int8_weight_only_quantized_training
        from torchao.quantization import quantize_

        quantize_(model, int8_weight_only_quantized_training())
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(_in_one_piece)
    return _uncompiled(AdamW8bit)(list(model.parameters()), lr=lr, betas=(beta_1, BETA_2))


def bfloat16_stochastic(model: nn.Module, lr: float, beta_1: float) -> Optimizer:
    """Keep every weight in bfloat16, rounded stochastically by torchao's AdamW.

    Raises:
        ImportError: without torchao (the extra `bench`).
    """
    with _others("torchao"):
        from torchao.optim.adam import _AdamW
    _keep_in_bfloat16(model)
    betas = beta_1, BETA_2
    return _uncompiled(_AdamW)(list(model.parameters()), lr=lr, betas=betas, bf16_stochastic_round=True)


def bfloat16_kahan(model: nn.Module, lr: float, beta_1: float) -> Optimizer:
    """Keep every weight in bfloat16, and what is lost of each sum in another, by optimi's AdamW.

    The decay of its second moment is its own default of 0.99: in bfloat16, a number that is to fall by a thousandth
    stays where it is.

    Raises:
        ImportError: without optimi (the extra `bench`).
    """
    with _others("torch-optimi"):
        from optimi import AdamW
    _keep_in_bfloat16(model)
    optimizer: Optimizer = AdamW(list(model.parameters()), lr=lr, betas=(beta_1, 0.99), kahan_sum=True)
    return optimizer


def _in_one_piece(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Inputs as torchao's backward pass takes them: it views them, beside gradients of the weight's dtype.

    Outputs of recurrent layers are views of other shapes, and what comes of a convolution under autocast is bfloat16.
    """
    assert isinstance(layer, nn.Linear)
    return tuple(x.to(layer.weight.dtype).contiguous() for x in inputs)


@contextlib.contextmanager
def _others(package: str) -> Iterator[None]:
    """Import from a package of others, without its warnings of what it cannot load itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImportError as error:
            raise ImportError(f"this way of training is {package}'s: pip install 'lnsnum[bench]'") from error
        finally:
            logging.disable(before)


def _uncompiled(kind: type[Any]) -> Callable[..., Optimizer]:
    """An optimizer of torchao's whose step is run as it stands."""

    class Uncompiled(kind):  # type: ignore[misc]
        def step(self, closure: Callable[[], Any] | None = None) -> Any:
            with torch.compiler.set_stance("force_eager"):
                return super().step(closure)

    return Uncompiled


class _Widened(nn.Module):
    """What stands between a weight of two bytes and the layer that uses it."""

    def forward(self, stored: torch.Tensor) -> torch.Tensor:
        """To float32, whose gradient comes back in bfloat16."""
        return stored.float()


def _keep_in_bfloat16(model: nn.Module) -> None:
    """Keep every parameter in bfloat16, rounded to nearest now; buffers stay as they are."""
    for module in list(model.modules()):
        for name, p in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(p.detach().bfloat16()))
            parametrize.register_parametrization(module, name, _Widened(), unsafe=True)
