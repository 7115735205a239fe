"""What the second moments of a layer's inputs make of its weight: scales, codes, and how well the outputs are kept.

    squared error of the outputs  =  tr D H D^T,      D = W - Q

Codes to nearest: of some log_offsets between that of the greatest magnitude and one below the least error of the
weights, each scale takes the one that costs the outputs least. Scales of one row of inputs take turns, each given what
the others do, as H is between all inputs. Codes by error feedback (`kernels.nearest_value`): an error of column k costs
its square over U_kk^2 in the end, so the scale takes the least sum of these.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from lnsnum.format import LNSFormat
from lnsnum.kernels.decibels import decibels
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.fits import fit_rows
from lnsnum.torch_bridge.kernels.least_error import Axis, least_error_offsets
from lnsnum.torch_bridge.kernels.nearest_value import Grid, adaptive_codes, costs_of_errors
from lnsnum.torch_bridge.kernels.scale import Fit, Scale, check_offset, in_channels
from lnsnum.torch_bridge.second_moments import SecondMoments, Use, in_place_of

_MOST_TRIED = 24
"""Log_offsets that are tried for a scale at most."""
_ROUNDS = 2
"""How often each scale has its turn."""


def offsets_for_outputs(
    w: torch.Tensor,
    fmt: LNSFormat,
    each: Scale,
    moments: SecondMoments,
    whole: float,
    *,
    axis: Axis,
    dampening: float | None,
) -> torch.Tensor:
    """The log_offsets of least error of the outputs, in the shape of those of `each`.

    Args:
        w: float64, finite, of two or more dimensions.
        fmt: the format.
        each: a scale with as many log_offsets as are wanted.
        moments: of the inputs of w.
        whole: the RMS that stands for scales of nothing but zeros.
        axis: on which the numbers are rounded.
        dampening: of error feedback; None where each is rounded by itself.

    Raises:
        ValueError: where one would be larger than 2^30 in size.
    """
    if each.rest:
        w, each, moments = _with_whole_groups(w, each, moments)
    apart, of = each.apart(w), each.of_channels.offsets
    assert of is not None
    rows, counted = (in_channels(x, of) for x in (apart, each.apart(_own_costs(w, moments, dampening))))
    highest = fit_rows(rows, fmt, Fit("max"), whole)
    # a row of zeros has one that any will do for
    found = least_error_offsets(rows, fmt, axis=axis, weights=counted)
    least = [top if own is None else own for own, top in zip(found, highest, strict=True)]
    main = moments.main()
    if main is None or dampening is not None:
        return each.merged(torch.tensor(least).reshape(of.shape))
    use, h = main
    last = w.ndim - 1
    split = [tuple(e for d in own for e in ((d, d + 1) if d == last else (d,))) for own in use]
    own_use = Use(*split) if each.group_size else use
    start, top = (torch.tensor(x, device=w.device).reshape(of.shape) for x in (least, highest))
    return each.merged(_take_turns(apart, fmt, start, top, own_use, h, axis))


def _with_whole_groups(
    w: torch.Tensor, each: Scale, moments: SecondMoments
) -> tuple[torch.Tensor, Scale, SecondMoments]:
    """The same with zeros behind the rests of groups, which have no errors, for inputs that were zero."""
    last, missing = w.ndim - 1, each.group_size - each.rest
    wide = SecondMoments()
    wide.counts = moments.counts
    for use, h in moments.products.items():
        wide.products[use] = h
        if last in use.inputs:
            sizes = [w.shape[d] + (missing if d == last else 0) for d in use.inputs]
            there = torch.zeros(sizes, dtype=torch.bool, device=h.device)
            there.narrow(use.inputs.index(last), 0, w.shape[last]).fill_(True)
            at = there.reshape(-1).nonzero()[:, 0]
            own = wide.products[use] = h.new_zeros(len(h), there.numel(), there.numel())
            own[:, at[:, None], at] = h
    return functional.pad(w, (0, missing)), each._replace(rest=0), wide


def _own_costs(w: torch.Tensor, moments: SecondMoments, dampening: float | None) -> torch.Tensor:
    """What the square of each element's error counts, in the shape of w: by itself, or where others make it good."""
    main = moments.main()
    if main is None:
        assert moments.counts is not None
        return moments.counts.reshape(-1, *(1,) * (w.ndim - 1)).expand(w.shape).contiguous()
    use, h = main
    if dampening is None:
        each = h.diagonal(dim1=1, dim2=2)
    else:
        each = torch.stack([costs_of_errors(own, dampening) for own in h])
    rows = use.rows(w, len(h)).shape
    return use.put_back(each[:, None].expand(rows), w.shape).contiguous()


def _take_turns(
    w: torch.Tensor, fmt: LNSFormat, start: torch.Tensor, top: torch.Tensor, use: Use, h: torch.Tensor, axis: Axis
) -> torch.Tensor:
    """Log_offsets in the shape of `start`, of w that has a dimension for the elements of a group."""
    kept = [d for d in use.inputs if start.shape[d] > 1]
    order = [*use.outputs, *kept, *(d for d in use.inputs if d not in kept)]
    number = math.prod(w.shape[d] for d in kept)
    # inputs that share a scale side by side: rows (outputs, blocks, inputs of one), H accordingly
    places = torch.arange(h.shape[1], device=h.device).reshape([w.shape[d] for d in use.inputs])
    places = places.permute([use.inputs.index(d) for d in order[len(use.outputs) :]]).reshape(-1)
    h = h[:, places[:, None], places]
    rows = w.permute(order).reshape(-1, number, len(places) // number)
    low, offsets, high = (x.permute(order).reshape(-1, number) for x in (start - _octave(fmt), start, top + 1))
    # which scale each row of outputs has
    which = torch.arange(len(offsets), device=w.device).reshape([start.shape[d] for d in use.outputs])
    which = which.expand([w.shape[d] for d in use.outputs]).reshape(-1)
    offsets = offsets.clone()

    def errors(block: int, own: torch.Tensor) -> torch.Tensor:
        return rows[:, block] - _rounded(rows[:, block], fmt, own[which][:, None], axis)

    d = torch.stack([errors(block, offsets[:, block]) for block in range(number)], 1)
    for block in list(range(number)) * (_ROUNDS if number > 1 else 1):
        part = slice(block * d.shape[2], (block + 1) * d.shape[2])
        inner = h[:, part, part]
        others = _by_groups(d.flatten(1), h[:, :, part]) - _by_groups(d[:, block], inner)
        best, least = offsets[:, block], torch.full((len(offsets),), math.inf, dtype=torch.float64, device=w.device)
        span = (high[:, block] - low[:, block]).clamp(min=0)
        steps = max(min(int(span.max()), _MOST_TRIED - 1), 1)
        for tried in [best, *(low[:, block] + span * step // steps for step in range(steps + 1))]:
            own = errors(block, tried)
            costs = ((_by_groups(own, inner) + 2 * others) * own).sum(1)
            total = torch.zeros_like(least).index_add_(0, which, costs)
            better = total < least
            best, least = torch.where(better, tried, best), torch.where(better, total, least)
        offsets[:, block] = best
        d[:, block] = errors(block, best)
    return in_place_of(offsets.reshape([start.shape[i] for i in order]), order)


def _by_groups(rows: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Rows (N, K) times the matrix of their group of a convolution."""
    return (rows.reshape(len(matrices), -1, rows.shape[1]) @ matrices).reshape(len(rows), -1)


def _octave(fmt: LNSFormat) -> int:
    return math.ceil(fmt.codes_per_octave)


def _rounded(w: torch.Tensor, fmt: LNSFormat, offsets: torch.Tensor, axis: Axis) -> torch.Tensor:
    if axis == "value":
        grid = Grid.of(fmt, w.device)
        greatest = grid.greatest(offsets)
        return grid.values(grid.nearest(w, greatest), w, greatest)
    scale = check_offset(offsets, w.shape)
    return bridge.decode(bridge.encode(w, fmt, scale, underflow="saturate"), fmt, scale, torch.float64)


def adapted(
    w: torch.Tensor, fmt: LNSFormat, scale: Scale, moments: SecondMoments, dampening: float
) -> torch.Tensor | None:
    """The codes of w by error feedback; None where the moments are of lookups alone, which feed nothing back."""
    main = moments.main()
    if main is None:
        return None
    use, h = main
    if scale.offsets is None:
        offsets = torch.full((1,) * w.ndim, scale.low, device=w.device).expand(w.shape)
    else:
        offsets = scale.spread(scale.offsets).expand(w.shape)
    parts = zip(use.rows(w, len(h)), h, use.rows(offsets, len(h)), strict=True)
    codes = torch.stack([adaptive_codes(rows, own, fmt, at, dampening=dampening) for rows, own, at in parts])
    return use.put_back(codes, w.shape)


def output_sqnr(w: torch.Tensor, decoded: torch.Tensor, moments: SecondMoments) -> float:
    """Decibels of the outputs over their errors: 10 log10(tr W H W^T / tr D H D^T); inf where there is no error."""
    return decibels(moments.square(w), moments.square(w - decoded))
