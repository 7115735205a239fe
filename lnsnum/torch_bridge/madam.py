"""Madam: a multiplicative Adam, whose step on an LNS weight is an integer addition to its codes.

    w  <-  w (1 - lr weight_decay) - lr kappa g_hat sqrt(w^2 + (crossover r)^2),        kappa = min(1, cap / r)
    w  <-  w exp(-lr (g_hat sign(w) + weight_decay)),  |w| <= the clip                  rule="paper"

where g_hat = clamp(u_hat / sqrt(v_hat), -g_bound, g_bound), v is the second moment of the gradient, u its momentum, or
the gradient itself, and r the RMS of the weight at its first step. On `LNSWeight` parameters the step is
`lnsnum.torch_bridge.kernels.update` (off the CPU and under torch.compile `update_twin`); plain float parameters in the
same optimizer follow the same formula in float. docs/training.md derives the rule and specifies its bits.

Sources: Bernstein, Zhao, Meister, Liu, Anandkumar, Yue: Learning compositional functions via multiplicative weight
updates, NeurIPS 2020, Algorithm 1; Ghai, Hazan, Singer: Exponentiated gradient meets gradient descent, ALT 2020.
Momentum as in Adam (Kingma, Ba, ICLR 2015), decay as in AdamW (Loshchilov, Hutter, ICLR 2019).
"""

from __future__ import annotations

import inspect
import math
import operator
import sys
import warnings
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.distributed import conversions, dtensors, replicas
from lnsnum.torch_bridge.distributed.dtensors import Member, local_of, weight_of
from lnsnum.torch_bridge.float_step import float_state, step_floats
from lnsnum.torch_bridge.kernels import backends
from lnsnum.torch_bridge.kernels.step_numbers import Rule, StepRounding, Zero
from lnsnum.torch_bridge.launch import Launch
from lnsnum.torch_bridge.madam_checks import (
    Ceiling,
    NonFinite,
    check_gradient,
    check_group,
    check_parameters,
    check_state,
)
from lnsnum.torch_bridge.step import step_codes, step_on_card
from lnsnum.torch_bridge.step_devices import ready_for_card
from lnsnum.torch_bridge.step_reports import ShardReport, StepReport
from lnsnum.torch_bridge.step_state import COUNTS, SecondMoment, ceiling_follows, code_state, set_momentum
from lnsnum.torch_bridge.surroundings import check_module, level_of_the_caller, spread_over_processes
from lnsnum.torch_bridge.units import refresh_units
from lnsnum.torch_bridge.weight import LNSWeight

DEFAULT_LR = 0.05


class Madam(Optimizer):
    """The Madam optimizer for LNS weights and for floats.

    Args:
        params: parameters or parameter groups: `LNSWeight` or plain floats. The LNS weights of a group are of one
            format; `parameter_groups` makes a group for each.
        lr: learning rate: the relative change of a large weight in a step whose normalized gradient is 1. See
            docs/training.md for where the default comes from.
        rule: "hypentropy" or "paper", the formulas above.
        crossover: the magnitude, in units of r, below which steps are additive and above which they are multiplicative.
        cap: the r above which steps are slowed, so that r g_hat lr stays what it is there.
        ceiling: the scale of an LNS weight grows where too many of its codes are at the greatest magnitude ("follow"),
            or stays ("fixed"). Under rule="paper" it stays.
        g_bound: clamp of the normalized gradient.
        beta: decay of the second moment.
        momentum: decay of the momentum; 0 for none. It takes a third byte for each LNS weight.
        weight_decay: the factor 1 - lr * weight_decay on every weight with a gradient, in each step; under rule="paper"
            exp(-lr * weight_decay), for LNS weights a constant pull of the codes.
        second_moment: of LNS weights: "byte" or "float32".
        zero: what becomes of a weight that is zero: it "learn"s, the default; "keep": zeros stay zero, and no other
            weight becomes zero; or "raise" a ValueError when a group that has one is added. Under rule="paper" "keep"
            is the default, and "leave" lets it leave zero as the smallest magnitude, against what would move it.
        rounding: rule="paper" alone: how the real number of code steps is rounded: "stochastic_log", the default (the
            logarithm of the weight is right on average), "stochastic_value" (the weight is) or "nearest". Nearest loses
            small steps; it is for reproducing the paper's ladders.
        p_scale: rule="paper" alone: the clip of float parameters, in units of their RMS at the first step. (LNS weights
            were given it at conversion.)
        non_finite: a gradient element that is NaN or infinite changes nothing ("skip", the report counts them), or the
            step raises FloatingPointError before anything has changed ("raise").
        seed: of the random words. They depend on the seed, the parameter's place in the optimizer, the step and the
            element's index, and on nothing else: several optimizers want several seeds.

    All but params may be set for each group. Sparse gradients of embeddings step the rows that they
    have; the moments of the others do not decay, and the corrections for bias count every step (as in SparseAdam).

    `step` can be compiled without a graph break. What changes from step to step must be tensors then, or each value is
    compiled anew: `lr=torch.tensor(...)`, and no schedule that cycles the momentum, a number. Call
    `make_state(for_graph=True)` before. A graph cannot refuse, and not warn: an lr that is no number from 0 on moves
    nothing, and a ceiling that cannot be raised stays.

    Raises:
        TypeError: for parameters that are no real floating-point tensors.
        ValueError: for arguments out of range, a group of several formats, an LNS weight that is a view of a part.

    >>> from lnsnum.torch_bridge import convert_model
    >>> model = torch.nn.Linear(3, 1)
    >>> report = convert_model(model, "lns8f5")
    >>> optimizer = Madam(model.parameters())
    >>> model(torch.ones(1, 3)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.step_report().weights
    4
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | torch.Tensor = DEFAULT_LR,
        *,
        rule: Rule = "hypentropy",
        crossover: float = 1.0,
        cap: float = 0.2,
        ceiling: Ceiling = "follow",
        g_bound: float = 10.0,
        beta: float = 0.999,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        second_moment: SecondMoment = "byte",
        zero: Zero | None = None,
        rounding: StepRounding | None = None,
        p_scale: float = 3.0,
        non_finite: NonFinite = "skip",
        seed: int = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "rule": rule,
            "crossover": crossover,
            "cap": cap,
            "ceiling": ceiling,
            "g_bound": g_bound,
            "beta": beta,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "second_moment": second_moment,
            "zero": zero,
            "rounding": rounding,
            "p_scale": p_scale,
            "non_finite": non_finite,
            "seed": seed,
        }
        self._forget_attachment()
        super().__init__(params, defaults)
        if self._is_cut:
            conversions.check_conversion(p for group in self.param_groups for p in group["params"])

    def _forget_attachment(self) -> None:
        self._hooks: dict[torch.Tensor, RemovableHandle] = {}
        self._arrived: Callable[[torch.Tensor], None] | None = None
        self._attached: frozenset[torch.Tensor] = frozenset()  # the parameters of that model
        self._stepped = True  # since the last gradient that arrived where attached
        self._warned: set[int] = set()  # groups whose lr has been warned of
        self._blocked: set[int] = set()  # places of parameters of whose ceiling has been warned
        self._checked: dict[int, tuple[tuple[Any, ...], float]] = {}  # options of groups, and an lr, that are good
        self._launches: dict[Any, Launch] = {}  # of groups, and where attached of parameters
        self._shard_launches: dict[int, Any] = {}  # of groups, of what is cut
        self._agrees = False  # with those of the other processes
        self._is_cut = False  # whether parameters are DTensors

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_hooks" not in self.__dict__:
            self._forget_attachment()
            self._is_cut = any(local_of(p) is not None for group in self.param_groups for p in group["params"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, checked; see `torch.optim.Optimizer.add_param_group`."""
        check_group({**self.defaults, **param_group})
        self._agrees = False
        _unguarded(Optimizer.add_param_group)(self, param_group)
        try:
            check_parameters(self.param_groups[-1])
            self._warn_of_lr(len(self.param_groups) - 1)
        except Exception:
            del self.param_groups[-1]
            raise
        self._is_cut = self._is_cut or any(local_of(p) is not None for p in self.param_groups[-1]["params"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let the gradients go, or fill them with zeros; see `torch.optim.Optimizer.zero_grad`."""
        _unguarded(Optimizer.zero_grad)(self, set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step for every parameter that has a gradient; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        launches: dict[int, Launch] = {}
        if not torch.compiler.is_compiling():
            launches = self._check_step()
        elif any(group["non_finite"] == "raise" for group in self.param_groups):
            raise ValueError("non_finite='raise' looks at the gradients, which a compiled step cannot: take 'skip'")
        if self._is_cut:
            self._step_cut()
        stream = 0
        for g, group in enumerate(self.param_groups):
            launch = launches.get(g)
            if launch is not None:
                self._step_launched(launch, group, stream)
            on_cards: dict[torch.device, list[tuple[LNSWeight, int]]] = {}
            for place, p in enumerate(group["params"]):
                if (launch is not None and place in launch.places) or (self._is_cut and local_of(p) is not None):
                    pass
                elif p.grad is not None and self._arrived is not None and p in self._attached and self._is_attached():
                    self._arrived(p)  # it was unfrozen since: from now on it has a hook too
                elif p.grad is not None and self._is_for_card(p):
                    on_cards.setdefault(p.device, []).append((p, stream))
                elif p.grad is not None:
                    self._step_parameter(p, group, stream)
                elif p in self.state and not self._is_attached():
                    _forget_counts(self.state[p])
                stream += 1
            for members in on_cards.values():
                self._step_on_card(members, group)
        if not torch.compiler.is_compiling():
            torch.clear_autocast_cache()  # it may hold weights that were cast before this step
            self._stepped = True
        return loss

    @staticmethod
    def _is_for_card(p: torch.Tensor) -> bool:
        """Whether a weight can be in the one launch of all that are on its card."""
        return isinstance(p, LNSWeight) and backends.is_on_card(p.codes)

    def _step_on_card(self, members: list[tuple[LNSWeight, int]], group: dict[str, Any]) -> None:
        taken = []
        for p, stream in members:
            assert p.grad is not None
            if not self.state[p]:
                self.state[p].update(_first_state(p, group, stream))
            taken.append((p, p.grad, self.state[p]))
        for (p, stream), is_blocked in zip(members, step_on_card(taken, group), strict=True):
            if is_blocked:
                self._warn_of_ceiling(p, group, stream)

    def _step_parameter(self, p: torch.Tensor, group: dict[str, Any], stream: int) -> None:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            if torch.compiler.is_compiling() and isinstance(p, LNSWeight):
                raise ValueError(
                    "the state of an LNS weight is made of its codes, which a graph cannot look at: call "
                    "optimizer.make_state(for_graph=True) before the step is compiled"
                )
            state.update(_first_state(p, group, stream))
        if isinstance(p, LNSWeight):
            if step_codes(p, p.grad, state, group):
                self._warn_of_ceiling(p, group, stream)
        else:
            step_floats(p, p.grad, state, group)

    def _cut(self) -> list[Member]:
        """The parameters that are DTensors."""
        members, stream = [], 0
        for group in self.param_groups:
            members += [
                Member(p, group, stream + place, self.state[p])
                for place, p in enumerate(group["params"])
                if local_of(p) is not None and p.requires_grad
            ]
            stream += len(group["params"])
        return members

    def _step_cut(self) -> None:
        if torch.compiler.is_compiling():
            raise ValueError("a step of what fully_shard has cut reduces over processes: do not compile it")
        members = self._cut()
        blocked = dtensors.step_dtensors(members, self._told_options(), self._shard_launches)
        for member, is_blocked in zip(members, blocked, strict=True):
            if member.p.grad is None:
                _forget_counts(member.state)
            weight = weight_of(member.p)
            if is_blocked and weight is not None and member.stream not in self._blocked:
                self._blocked.add(member.stream)
                _warn_of_ceiling(_name_of(member.p, member.group, member.stream), weight.fmt)

    def _step_launched(self, launch: Launch, group: dict[str, Any], stream: int) -> None:
        for place in launch.step(group):
            self._warn_of_ceiling(group["params"][place], group, stream + place)

    def _warn_of_ceiling(self, p: LNSWeight, group: dict[str, Any], stream: int) -> None:
        """Once for each parameter."""
        if stream not in self._blocked:
            self._blocked.add(stream)
            _warn_of_ceiling(_name_of(p, group, stream), p.fmt)

    def _check_step(self) -> dict[int, Launch]:
        """Tell what a schedule, or the gradients, may have broken, before anything moves; each group's launch."""
        launches: dict[int, Launch] = {}
        for g, group in enumerate(self.param_groups):
            self._check_options(g, group)
        if not self._agrees:
            self._check_processes()
        for g, group in enumerate(self.param_groups):
            if self._may_launch(group) and (launch := self._ready_launch(g, group)) is not None:
                launches[g] = launch
        for g, group in enumerate(self.param_groups):
            launched = launches[g].places if g in launches else ()
            for place, p in enumerate(group["params"]):
                if p.grad is not None and place not in launched and not (self._is_cut and local_of(p) is not None):
                    check_gradient(p, group, self.state.get(p, {}))
        first = 0
        for g, group in enumerate(self.param_groups):
            members = [(place, first + place) for place in range(len(group["params"]))]
            if g not in launches and self._may_launch(group):
                launches[g] = self._new_launch(g, group, members)
            first += len(members)
        return launches

    def _check_processes(self) -> None:
        """Compare this optimizer with those of the processes that have replicas of the model, once they have."""
        # not a list: this is asked before each step, and a model on one process has nobody to ask for
        parameters = (p for group in self.param_groups for p in group["params"])
        process_groups = dtensors.groups_of(parameters) if self._is_cut else replicas.groups_of(parameters)
        if not process_groups:
            return
        told = self._told_options()
        for g, group in enumerate(self.param_groups):
            for place, p in enumerate(group["params"]):
                state = self.state.get(p, {})
                told[f"shape of parameter {place} of group {g}"] = str(tuple(p.shape))
                weight = weight_of(p)
                told[f"format of parameter {place} of group {g}"] = str(p.dtype if weight is None else weight.fmt.name)
                if local_of(p) is not None:
                    continue  # of its state each process has another part
                told[f"state of parameter {place} of group {g}, hashed,"] = replicas.digest(
                    part for name in sorted(state) for part in (name, state[name])
                )
        replicas.check_optimizers(told, *process_groups)
        if self._is_cut:
            dtensors.check_replicas(p for group in self.param_groups for p in group["params"])
        self._agrees = True

    def _told_options(self) -> dict[str, str]:
        """All options in words, for other processes."""
        told = {}
        for g, group in enumerate(self.param_groups):
            for name in sorted(_HYPERPARAMETERS):
                value = group[name]  # a tensor shows four digits
                told[f"{name} of group {g}"] = repr(value.item() if isinstance(value, torch.Tensor) else value)
        return told

    def _may_launch(self, group: dict[str, Any]) -> bool:
        return Launch.serves(group) and not self._is_attached()

    def _ready_launch(self, key: Any, group: dict[str, Any]) -> Launch | None:
        """The launch of before, where it holds still."""
        launch = self._launches.get(key)
        return launch if launch is not None and launch.ready(group, self.state) else None

    def _new_launch(self, key: Any, group: dict[str, Any], members: list[tuple[int, int]]) -> Launch:
        launch = self._launches[key] = Launch(group, self.state, members)
        is_ready = launch.ready(group, self.state)
        assert is_ready
        return launch

    def _check_options(self, g: int, group: dict[str, Any]) -> None:
        """Check what is not as it was when it was checked last; a schedule that lowers lr costs nothing then."""
        # replayed, it would take the same step again and again, by the random words of one
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "a CUDA graph cannot record a step that reads its numbers on the host: call "
                "make_state(for_graph=True), compile step, and record that"
            )
        others, lr = tuple(group[name] for name in _OTHER_OPTIONS), group["lr"]
        checked = self._checked.get(g)
        if checked is None or checked[0] != others or not (type(lr) is float and 0.0 <= lr <= checked[1]):
            check_group(group)
            self._warn_of_lr(g)
            self._checked[g] = others, lr if type(lr) is float else -1.0

    def _warn_of_lr(self, i: int) -> None:
        """Once for each group, where one step crosses the whole range."""
        group = self.param_groups[i]
        fmt = next((weight.fmt for p in group["params"] if (weight := weight_of(p)) is not None), None)
        if fmt is None or i in self._warned:
            return
        steps = float(group["lr"]) * (1 << fmt.fraction_bits) / math.log(fmt.base)
        if steps >= fmt.max_magnitude - 1:
            self._warned.add(i)
            warnings.warn(
                f"lr={float(group['lr'])} is {steps:.0f} code steps of {fmt.name}, which has {fmt.max_magnitude}: one "
                "step crosses the whole range",
                stacklevel=level_of_the_caller(),
            )

    def make_state(self, *, for_graph: bool = False) -> None:
        """Make the state of all parameters now, not at their first step; `attach` does it too.

        Args:
            for_graph: the step is to be compiled. Where ceilings follow, the log_offset of each LNS weight becomes a
                tensor, which a graph can raise, with room for 16 growths, and the numbers of the state lie on the
                graphics card of their weight: with an lr that is a tensor there too, no compiled step asks the host. To
                be called before the first compiled step, and after the state was loaded.
        """
        if self._is_cut:
            if for_graph:
                raise ValueError("a step of what fully_shard has cut cannot be compiled: leave for_graph out")
            dtensors.make_states(self._cut())
        stream = 0
        for group in self.param_groups:
            for p in group["params"]:
                if p.requires_grad and not self.state[p]:
                    self.state[p].update(_first_state(p, group, stream))
                if for_graph and isinstance(p, LNSWeight) and p.requires_grad:
                    set_momentum(p, torch.uint8, self.state[p], group)
                    if ceiling_follows(group):
                        p.scale_for_graph_()
                    p.keep_shape_in_graphs_()
                    refresh_units(p, self.state[p])
                if for_graph and p.requires_grad:
                    ready_for_card(p, self.state[p], group)
                stream += 1

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        """Step each parameter as soon as its gradient is there, within `backward`, and free the gradient.

        So no more than one gradient is alive at a time. `step` has nothing to do then; call it as before, for the
        schedules and the report. Gradients cannot be accumulated, clipped together or unscaled by a GradScaler, a
        gradient that is refused (non_finite="raise") is refused after others have stepped, and tied weights within
        reentrant checkpoints would step for each part of their gradient: use non-reentrant ones.

        Args:
            model: the module whose parameters these are.

        Returns:
            The hooks; `remove()` of each ends it.

        Raises:
            TypeError: where model is no module, or one that is spread over processes.
            ValueError: where it has a trainable parameter that is not in this optimizer, or it is attached already.
        """
        check_module(model)
        spread = spread_over_processes(model)
        if spread is not None:
            raise TypeError(
                f"the model is a {spread}: a step within backward would run before the processes have "
                "exchanged their gradients, and their weights would differ, and the buffers of that exchange keep all "
                "gradients alive in any case: call step() after backward instead"
            )
        if self._is_attached():
            raise ValueError("this optimizer is attached already: remove() the hooks that attach returned first")
        places: dict[torch.Tensor, tuple[int, int, int]] = {}
        for g, group in enumerate(self.param_groups):
            for place, p in enumerate(group["params"]):
                places[p] = g, place, len(places)
        for name, own in model.named_parameters():
            if own.requires_grad and own not in places:
                raise ValueError(f"parameter {name!r} of the model is not in this optimizer")

        @torch.no_grad()
        def arrived(p: torch.Tensor) -> None:
            if p not in places:
                raise ValueError(
                    "a parameter took the place of one that this optimizer has, and its hook too: remove() the hooks "
                    "that attach returned, and make the optimizer anew"
                )
            g, place, stream = places[p]
            group = self.param_groups[g]  # loading a state makes new ones
            self._check_options(g, group)
            launch = self._ready_launch((g, place), group) if Launch.serves(group) else None
            if launch is None or not launch.places:
                check_gradient(p, group, self.state.get(p, {}))
            if self._stepped:
                for state in self.state.values():
                    _forget_counts(state)
                self._stepped = False
            if launch is None and Launch.serves(group):
                launch = self._new_launch((g, place), group, [(place, stream)])
            if launch is not None and launch.places:
                self._step_launched(launch, group, stream - place)
            else:
                self._step_parameter(p, group, stream)
            torch.clear_autocast_cache()
            p.grad = None
            if p not in self._hooks:
                self._hooks[p] = p.register_post_accumulate_grad_hook(arrived)

        self.make_state()  # not in the midst of gradients: so the heap stays in one piece
        self._arrived, self._attached = arrived, frozenset(model.parameters())
        trained = (p for p in model.parameters() if p.requires_grad)
        self._hooks = {p: p.register_post_accumulate_grad_hook(arrived) for p in trained}
        return list(self._hooks.values())

    def _is_attached(self) -> bool:
        return any(hook.id in (hook.hooks_dict_ref() or ()) for hook in self._hooks.values())

    def step_report(self, *, together: bool = False) -> StepReport:
        """What the last step did to the LNS weights that had a gradient.

        Of a model that fully_shard has cut it counts what this process has of it, and is a `ShardReport`, which says
        so; scales are of the whole, and the same on all.

        Args:
            together: count the shards of all processes, each of which has to call it then.

        Raises:
            LostError: where another process has ended, or does not call it.
            RuntimeError: on every process, where one calls it after another step.
        """
        counts, cut = [0] * COUNTS, []
        for p in (p for group in self.param_groups for p in group["params"]):
            state = self.state.get(p, {})
            if local_of(p) is not None:
                cut.append((p, state))
            if "counts" in state and (local_of(p) is None or not together):
                counts = list(map(operator.add, counts, state["counts"].tolist()))
        if together:
            counts = list(map(operator.add, counts, dtensors.counted_together(cut)))
        weights, *moves, grown, not_finite = counts
        moved, at_ceiling, at_floor, zeros, sign_changes = (count / max(weights, 1) for count in moves)
        report = StepReport(weights, moved, at_ceiling, at_floor, zeros, sign_changes, grown, not_finite)
        if not cut or together:
            return report
        return ShardReport(**asdict(report), **dtensors.place_of_process(cut[0][0]))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave, to the bit; the steps that follow are those that would have followed there.

        Raises:
            ValueError: where the state is of other parameters than these; nothing is loaded then.
        """
        if not isinstance(state_dict, dict) or not {"state", "param_groups"} <= state_dict.keys():
            raise ValueError("this is no optimizer's state: it has no 'state' and 'param_groups'")
        for group in state_dict["param_groups"]:
            lacking = sorted(_HYPERPARAMETERS - group.keys())
            if lacking:
                raise ValueError(f"the state is of another optimizer: its groups have no {lacking[0]!r}")
        saved = [i for group in state_dict["param_groups"] for i in group["params"]]
        own = [p for group in self.param_groups for p in group["params"]]
        if len(saved) != len(own):
            raise ValueError(f"the state is of {len(saved)} parameters, this optimizer has {len(own)}")
        states = {p: state_dict["state"][i] for i, p in zip(saved, own, strict=True) if i in state_dict["state"]}
        for place, (p, state) in enumerate(states.items()):
            check_state(place, p, state)
        super().load_state_dict({**state_dict, "state": {}})
        self._agrees = False
        for p, state in states.items():  # the base class would cast them to the parameter's dtype
            # numbers that a graph had on a card go back: make_state(for_graph=True) brings them there
            is_codes = isinstance(p, LNSWeight)
            self.state[p] = {
                key: value.clone().to(p.device if value.shape == p.shape else "cpu" if is_codes else value.device)
                if isinstance(value, torch.Tensor)
                else deepcopy(value)
                for key, value in state.items()
            }


_HYPERPARAMETERS = frozenset(inspect.signature(Madam).parameters) - {"params"}
_OTHER_OPTIONS = sorted(_HYPERPARAMETERS - {"lr"})


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters of a model as groups for `Madam`: one for each format, one for floats.

    >>> from lnsnum.torch_bridge import convert_model
    >>> model = torch.nn.Linear(3, 1)
    >>> report = convert_model(model, {"weight": "lns8f5", "bias": "lns16f10"})
    >>> [len(group["params"]) for group in parameter_groups(model)]
    [1, 1]
    """
    check_module(model)
    groups: dict[str, list[torch.Tensor]] = {}
    for p in model.parameters():
        if p.requires_grad:
            weight = weight_of(p)
            groups.setdefault("float" if weight is None else weight.fmt.name, []).append(p)
    return [{"params": group} for group in groups.values()]


def _forget_counts(state: dict[str, Any]) -> None:
    if "counts" in state:
        state["counts"].zero_()


def _first_state(p: torch.Tensor, group: dict[str, Any], stream: int) -> dict[str, Any]:
    if isinstance(p, LNSWeight):
        return code_state(p, group["second_moment"], stream)
    return float_state(p)


def _name_of(p: torch.Tensor, group: dict[str, Any], stream: int) -> str:
    names = group.get("param_names")
    at = next(i for i, own in enumerate(group["params"]) if own is p)
    return repr(names[at]) if names else f"{stream} of shape {tuple(p.shape)}"


def _warn_of_ceiling(name: str, fmt: LNSFormat) -> None:
    finer = fmt.fraction_bits > 0
    wider = LNSFormat(fmt.bits if finer else fmt.bits + 1, max(fmt.fraction_bits - 1, 0), base=fmt.base)
    warnings.warn(
        f"too many codes of parameter {name} are at the ceiling of {fmt.name}, which cannot be raised "
        f"without losing the small ones: {wider.name} has more range",
        stacklevel=level_of_the_caller(),
    )


def _unguarded(method: Callable[..., None]) -> Callable[..., None]:
    """A method of Optimizer without what keeps torch.compile out of it: while nobody compiles, that would only load
    torch._dynamo, at the start of every training run."""
    return method if "torch._dynamo" in sys.modules else inspect.unwrap(method)
