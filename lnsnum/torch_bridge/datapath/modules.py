"""In which layer an operation stands: the module that runs, by the name that it has in the outermost one.

Hooks of torch's for all modules keep a stack of those that run in the context's thread. They also see modules that
another thread runs, where the context does not reach, and refuse those that it knows. Those of optimizers tell of their
steps, whose arithmetic is their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook


class Layers:
    """The modules that run in a context.

    Args:
        has_context: whether a context, of whichever object, is active in the calling thread.
        on_root: called whenever an outermost module begins.
    """

    def __init__(self, has_context: Callable[[], bool], on_root: Callable[[], None]) -> None:
        self.has_context, self.on_root = has_context, on_root
        self.stack: list[str] = []
        self.training = True
        """Whether the outermost module that ran last is in training mode."""
        self.updating = False
        """Whether an optimizer's step runs."""
        self.known: WeakSet[nn.Module] = WeakSet()
        self.names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
        self._handles: list[Any] = []
        self._thread = 0

    @property
    def current(self) -> str:
        """The name of the module that runs; empty outside of any."""
        return self.stack[-1] if self.stack else ""

    def start(self) -> None:
        """Watch the modules that run from now on."""
        self._thread = threading.get_ident()
        self.stack.clear()
        self._handles = [
            register_module_forward_pre_hook(self._enter),
            # always: a module that raises has ended too
            register_module_forward_hook(self._leave, always_call=True),
            register_optimizer_step_pre_hook(lambda *_: self._update(True)),
            register_optimizer_step_post_hook(lambda *_: self._update(False)),
        ]

    def stop(self) -> None:
        """Watch no more."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.stack.clear()
        self.updating = False

    def _update(self, begins: bool) -> None:
        if threading.get_ident() == self._thread:
            self.updating = begins

    def begin(self, module: nn.Module) -> None:
        """An outermost module is called."""
        self.updating = False  # a step that raised has ended too
        if module not in self.known:
            for name, part in module.named_modules():
                self.known.add(part)
                self.names[part] = name or type(module).__name__
        self.training = module.training
        self.on_root()

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        if threading.get_ident() != self._thread:
            if module in self.known and not self.has_context():
                raise RuntimeError(
                    f"{type(module).__name__} is called in a thread that is in no datapath, while the thread that "
                    "made one runs the same model: enter a datapath in each thread"
                )
            return
        if not self.stack:
            self.begin(module)
        name = self.names.get(module)
        if name is None:
            name = f"{self.stack[-1]}.{type(module).__name__}" if self.stack else type(module).__name__
        self.stack.append(name)

    def _leave(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if threading.get_ident() == self._thread and self.stack:
            self.stack.pop()
