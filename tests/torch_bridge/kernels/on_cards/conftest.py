"""Triton's kernels, on a graphics card or in Triton's interpreter on the CPU.

The interpreter must be asked for before triton is imported, so these tests are a run of their own:
`TRITON_INTERPRET=1 pytest tests/torch_bridge/kernels/on_cards`; `tests/torch_bridge/kernels/test_triton.py` starts it.
"""

import os

import pytest
from pretended_card import pretend

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _can_run():
    import torch

    return INTERPRETED or torch.cuda.is_available()


collect_ignore_glob = [] if _can_run() else ["test_*.py"]


def pytest_collection_modifyitems(items):
    # the interpreter computes both sides of a choice in NumPy, which warns of the one that is thrown away
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))


@pytest.fixture
def device():
    return "cpu" if INTERPRETED else "cuda"


@pytest.fixture
def card(device, monkeypatch):
    """A device on which all that Triton's kernels can do goes to them; in the interpreter, the CPU in that guise."""
    if INTERPRETED:
        pretend(monkeypatch)
    return device
