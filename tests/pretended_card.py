"""The CPU in the guise of a card, for Triton's interpreter; as a plugin of pytest for tests that know nothing of cards.

With `-p pretended_card` those tests run that want an error, and all that Triton's kernels can do goes to them.
"""

import inspect

import pytest


def is_plain(tensor):
    """What `backends.is_on_card` asks of a tensor, but for the card."""
    import torch

    return type(tensor) is torch.Tensor and not torch.compiler.is_compiling()


def pretend(monkeypatch):
    """Let tensors on the CPU go to Triton's kernels."""
    from lnsnum.torch_bridge.kernels import backends
    from lnsnum.torch_bridge.kernels import codes as bridge_codes

    monkeypatch.setattr(bridge_codes, "is_on_cpu", lambda tensor: False)
    monkeypatch.setattr(backends, "is_on_card", is_plain)
    monkeypatch.setattr(backends, "graph_has_card", lambda device: True)
    monkeypatch.setattr(backends, "missing_on", lambda device: None)


@pytest.fixture(autouse=True)
def pretended(monkeypatch):
    """Of all tests that run with this plugin."""
    pretend(monkeypatch)


def pytest_collection_modifyitems(config, items):
    """Keep the tests that want an error."""
    wanted = [i for i in items if hasattr(i, "function") and "pytest.raises" in inspect.getsource(i.function)]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))
