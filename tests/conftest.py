"""Settings of the test suite: no Hypothesis deadlines (first calls compile), the same examples in every CI run."""

import os
import signal

import pytest
from hypothesis import settings

for variable in ("COLUMNS", "LINES"):
    os.environ.pop(variable, None)  # rich would keep the width that pytest-xdist gives its workers

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells have it behind `&`: nothing here could be interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="module")
def one_thread():
    """Torch computes on one thread: small networks are quicker so, and other tests run beside."""
    import torch

    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(kept)


@pytest.fixture
def fresh():
    """A compiler that remembers nothing; on disk neither, where graphs are known by the version of our code."""
    import torch
    import torch._functorch.config

    torch.compiler.reset()
    with torch._functorch.config.patch(enable_autograd_cache=False):
        yield
    torch.compiler.reset()
