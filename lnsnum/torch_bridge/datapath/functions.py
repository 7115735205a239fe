"""Functions that torch would run as one operation, taken apart before autograd sees them.

    scaled_dot_product_attention     two products and a softmax, of which autograd knows each
    lstm, gru, rnn_tanh, rnn_relu    torch's own steps instead of oneDNN's, which are one operation

A mode for torch's functions does it: below autograd it would be too late, as its node would be that of the whole. It
also hands on what the function recorded, as by then autograd has made the nodes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from lnsnum.torch_bridge.datapath.graph import Graph

_RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)

_CALLING = (
    functional.multi_head_attention_forward, torch.Tensor.backward, torch.autograd.backward, torch.autograd.grad,
)  # fmt: skip


def _differentiates_by_itself() -> bool:
    """Whether a transformation of torch.func's, or dual numbers, differentiate: not through autograd's nodes alone."""
    if forward_ad._current_level >= 0:
        return True
    if torch._C._functorch.maybe_current_level() is None:
        return False
    kinds = torch._C._functorch.TransformType.Grad, torch._C._functorch.TransformType.Jvp
    return any(one.key() in kinds for one in torch._C._functorch.get_interpreter_stack() or ())


class Functions(TorchFunctionMode):
    """What torch asks at each function that is called in Python."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # here, as torch tells nobody below
        if torch._C._is_any_autocast_enabled():
            raise NotImplementedError(
                f"{getattr(func, '__name__', func)} runs under autocast within datapath(...), which chooses the "
                "numbers of each product itself: leave torch.autocast out"
            )
        if _differentiates_by_itself():
            raise NotImplementedError(
                f"{getattr(func, '__name__', func)} runs under torch.func or forward-mode differentiation "
                "within datapath(...), where an error cannot be told from an activation: take backward() or "
                "torch.autograd.grad"
            )
        out = self._call(func, args, kwargs or {})
        self.graph.settle()
        return out

    def _call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is functional.scaled_dot_product_attention:
            # not by the operation that this comes to, which adds a mask of bools as 0 and 1
            with sdpa_kernel(SDPBackend.MATH):
                return func(*args, **kwargs)
        if func in _CALLING:
            # they call the first from where this mode is not asked, the last ones where checkpointing computes again
            with sdpa_kernel(SDPBackend.MATH):
                return func(*args, **kwargs)
        if func in _RECURRENT and torch._C._get_mkldnn_enabled():
            # torch.backends.mkldnn.flags would set more, and warn of that
            torch._C._set_mkldnn_enabled(False)
            try:
                return func(*args, **kwargs)
            finally:
                torch._C._set_mkldnn_enabled(True)
        return func(*args, **kwargs)
