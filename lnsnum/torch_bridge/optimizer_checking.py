"""`check_optimizer_laws`: the door to the laws of optimizers."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lnsnum.testing.arguments import Names, check_timeout, choose_laws
from lnsnum.testing.report import LawReport
from lnsnum.testing.trial import Tried, try_laws
from lnsnum.torch_bridge.optimizer_laws import OPTIMIZER_LAWS, OPTIONAL, PLACED, Tolerances, Weights
from lnsnum.torch_bridge.optimizer_runs import Make, Maker, stories
from lnsnum.torch_bridge.optimizer_runs import Weights as MakeWeights


def check_optimizer_laws(
    make: Make,
    *,
    weights: MakeWeights | None = None,
    laws: Names = None,
    stochastic: bool = False,
    scale_tolerance: float = 1e-4,
    bias_tolerance: float = 1e-4,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    timeout: float = 60.0,
) -> LawReport:
    """Try the laws of optimizers on one of your own, on floats or on weights of a class of your own.

    Each law makes runs of a few steps on a few small weights, from one number to some thousand, and compares what the
    weights become, to the bit unless it says a tolerance. A law that is broken is told with the simplest of them. The
    verdict is the same in every run: torch's generator is seeded before each step, and left as it was.

    Args:
        make: takes parameters, or groups of them, and returns a `torch.optim.Optimizer`; where it has a parameter
            `seed`, that is given too.
        weights: makes a parameter of a float tensor, for instance an `LNSWeight`; `torch.nn.Parameter` where it is left
            out.
        laws: which to try, names from `OPTIMIZER_LAWS`. Where they are left out, all that an optimizer is expected to
            keep: not `non_finite`, `scale_equivariance` and `unbiased`.
        stochastic: chance is drawn in the order of the parameters: `parameter_order` and `grouping` are tried only
            where they are named.
        scale_tolerance: of `scale_equivariance`, in units of the whole move; 0 asks for the same bits.
        bias_tolerance: of `unbiased`, in units of the move, besides what chance explains.
        dtype: the float type that weights are made of, and of gradients.
        seed: of what is drawn, the optimizer's chance included.
        timeout: seconds that one run may last.

    Returns:
        LawReport: over how many elements of weights each law held.

    Raises:
        LawViolation: an AssertionError; a line for each law that is broken.
        ImplementationError: where the factory, the weights or a step raise, hang, or return what they should not.
        TypeError, ValueError: for arguments that are not known.

    >>> def ascent(params):
    ...     return torch.optim.SGD(params, lr=0.1, maximize=True)
    >>> try:
    ...     check_optimizer_laws(ascent, laws=["descent"])
    ... except AssertionError as error:
    ...     print(str(error).partition(",")[0])
    descent: weights [1]
    """
    if not callable(make):
        raise TypeError(f"make is a {type(make).__name__}: give a function from parameters to an optimizer")
    for what, given in (("scale_tolerance", scale_tolerance), ("bias_tolerance", bias_tolerance)):
        if not 0 <= given < 1:
            raise ValueError(f"{what}={given!r} is out of range: at least 0, less than 1")
    check_timeout(timeout)
    if not dtype.is_floating_point:
        raise TypeError(f"dtype={dtype} is no float type")
    left_out = OPTIONAL + (PLACED if stochastic else ())
    usual = [law for law in OPTIMIZER_LAWS if law not in left_out]
    chosen = usual if laws is None else choose_laws(laws, OPTIMIZER_LAWS, list(OPTIMIZER_LAWS), "any")
    maker = Maker(make, weights, seed, timeout)

    def batches() -> Iterator[Weights]:
        for place, story in enumerate(stories(seed, dtype)):
            yield Weights(maker, story, place, Tolerances(scale_tolerance, bias_tolerance))

    tried = {"step": Tried({law: OPTIMIZER_LAWS[law] for law in chosen}, batches(), False)}
    with torch.random.fork_rng(devices=[]):
        return try_laws("optimizers", None, maker, tried, order=OPTIMIZER_LAWS)
