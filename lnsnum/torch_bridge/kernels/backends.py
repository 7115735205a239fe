"""Which of three does the bridge's work: Numba's kernels, Triton's, or torch's operations. They agree to the bit.

    work                          CPU      NVIDIA card, with triton            other devices, float64, other bases
    decode, encode                Numba    Triton                              torch's operations (`*_twin`)
    Madam's step                  Numba    Triton, all weights in a launch     torch's operations
    products of few rows          Numba    Triton                              none: weights are decoded
    decode, encode in a graph     torch's operations everywhere, which the graph's compiler makes kernels of
    the step in a graph           torch's operations; on a card with triton an operator that launches Triton's kernel

"Other bases" are those but 2, and numbers beyond a type's normal ones: for them Triton's decode and encode have no
table of one octave. Nothing of triton is imported before a tensor on a card asks for it.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.util import find_spec

import torch

LEAST_CAPABILITY = 8, 0
"""The oldest cards for which the kernels are compiled in tests (A100)."""
SWITCH = "LNSNUM_TRITON"
"""The variable of the environment whose 0, before the first tensor on a card, leaves the work to torch's operations."""


def is_on_card(tensor: torch.Tensor) -> bool:
    """Whether Triton's kernels can work on a tensor: it is plain, on a card that has them, and nothing is traced."""
    return (
        type(tensor) is torch.Tensor
        and tensor.is_cuda
        and not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0  # a mode that traces or counts sees torch's operations alone
        and missing_on(tensor.device) is None
    )


def graph_has_card(device: str) -> bool:
    """Whether a graph's tensors on a device are where Triton's kernels run; a constant of the graph."""
    return device.startswith("cuda") and missing_on(torch.device(device)) is None


# What torch.compiler.assume_constant_result does, whose import of the compiler would take a second here.
graph_has_card._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=64)
def missing_on(device: torch.device) -> str | None:
    """What Triton's kernels lack on a device, in a sentence; None where they run.

    >>> missing_on(torch.device("cpu"))
    "Triton's kernels run on NVIDIA cards, not on cpu: there torch's operations or Numba's kernels do the same"
    """
    if device.type != "cuda" or torch.version.hip is not None:
        where = "ROCm" if device.type == "cuda" else device.type
        return (
            f"Triton's kernels run on NVIDIA cards, not on {where}: there torch's operations or Numba's kernels do the "
            "same"
        )
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0 in the environment keeps Triton's kernels off: torch's operations do the same"
    if find_spec("triton") is None:
        return "triton is not installed: pip install 'lnsnum[gpu]'; without it torch's operations do the same"
    if not torch.cuda.is_available():
        return "torch finds no graphics card: install its build for NVIDIA cards, and look at nvidia-smi"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return (
            f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]}, and "
            "Triton's kernels want 8.0 or newer: torch's operations do the same there"
        )
    return None


def check_card(device: torch.device) -> None:
    """Raise RuntimeError, with what is missing, where Triton's kernels do not run."""
    missing = missing_on(device)
    if missing is not None:
        raise RuntimeError(missing)
