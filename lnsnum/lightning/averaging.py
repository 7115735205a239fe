"""Lightning's averages of weights, kept in floats beside the codes.

    average  <-  average + (1 - decay) (weight - average)           in floats, four bytes a weight

An average of codes would be codes, too: rounded in each update, and where a code step is more than what the average
moves, half noise. Where Lightning puts the average into the model, to validate it and at the end, it is rounded once,
to nearest; what was there is put back code for code, and the average stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import callbacks
from torch import nn

from lnsnum.torch_bridge.model import decode_model


class _InFloats:
    """What the callbacks have in common: an average of floats, and how it comes into a model of codes."""

    _average_model: Any

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Decode the average that Lightning has made of the module, to float32 where its weights have fewer bits.

        What a step moves an average by is lost in these.
        """
        before = self._average_model
        super().setup(trainer, pl_module, stage)  # type: ignore[misc]
        average = self._average_model
        if average is None or average is before:
            return
        if all(p.element_size() <= 4 for p in average.parameters() if p.is_floating_point()):
            average.float()
        decode_model(average)
        if getattr(average, "multi_avg_fn", None) is not None:  # torch's takes no weights of another type
            average.multi_avg_fn = partial(_average, average.multi_avg_fn)


class WeightAveraging(_InFloats, callbacks.WeightAveraging):
    """`lightning.pytorch.callbacks.WeightAveraging`, the average in floats."""

    def _swap_models(self, pl_module: nn.Module) -> None:
        """Put the average into the module, or what was there before back."""
        kept: list[torch.Tensor] | None = self.__dict__.pop("_kept", None)
        if kept is None:
            self._kept = [tensor.detach().clone() for tensor in _tensors(pl_module)]
            self._copy_average_to_current(pl_module)
        else:
            with torch.no_grad():
                for tensor, before in zip(_tensors(pl_module), kept, strict=True):
                    tensor.copy_(before)

    def _copy_average_to_current(self, pl_module: nn.Module) -> None:
        _put(self._average_model.module, pl_module)


class EMAWeightAveraging(WeightAveraging, callbacks.EMAWeightAveraging):
    """`lightning.pytorch.callbacks.EMAWeightAveraging`, the average in floats."""


class StochasticWeightAveraging(_InFloats, callbacks.StochasticWeightAveraging):
    """`lightning.pytorch.callbacks.StochasticWeightAveraging`, the average in floats."""

    @staticmethod
    def transfer_weights(src_pl_module: nn.Module, dst_pl_module: nn.Module) -> None:
        """Encode the average, which is the source, into the destination."""
        _put(src_pl_module, dst_pl_module, buffers=False)


def _average(rule: Callable[..., None], averages: list[torch.Tensor], weights: list[torch.Tensor], number: Any) -> None:
    rule(averages, [weight.to(average.dtype) for average, weight in zip(averages, weights, strict=True)], number)


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


@torch.no_grad()
def _put(average: nn.Module, module: nn.Module, buffers: bool = True) -> None:
    """Encode an average into the weights of a module, as `load_state_dict` encodes floats."""
    averages = dict(average.named_parameters(remove_duplicate=False))
    module.load_state_dict({**module.state_dict(), **averages}, strict=False)
    if buffers:  # also those that no state has
        for own, averaged in zip(module.buffers(), average.buffers(), strict=True):
            own.copy_(averaged)
