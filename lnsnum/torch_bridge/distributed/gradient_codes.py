"""Gradients on the wire as codes of 8 bits: a quarter of the bytes of float32, half of those of bfloat16.

    1.  a bucket is cut into a part for each process, and sent there as codes            all_to_all
    2.  each process decodes what came for its part, adds in the order of the ranks, divides by their number
    3.  and sends the mean as codes to all, itself too, which decode the same            all_gather

Codes are not added: sums of codes would round anew at each process. Each number is rounded twice instead, up or down at
random so that it is right on average (stochastic_value): so the result is the mean of the gradients on average, and the
same bits everywhere. Each block of numbers has a scale, the least power of two above them all: nothing saturates.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lnsnum.format import LNSFormat
from lnsnum.torch_bridge.distributed.exchange import compare, reaching
from lnsnum.torch_bridge.kernels import codes as bridge
from lnsnum.torch_bridge.kernels.scale import Scale

BLOCK = 1024
"""Numbers that share a scale, which takes two bytes."""

_EXPONENT_BYTES = 2


def ship_gradients_as_codes(model: DistributedDataParallel, fmt: LNSFormat | str = "lns8f3", *, seed: int = 0) -> None:
    """Let DistributedDataParallel exchange gradients as codes of 8 bits, in the place of floats.

    The averaged gradient is unbiased, and the same on all processes. Let b be the factor of one code step, 1.09 for
    lns8f3. Each of the two roundings moves a number x by less than (b - 1) |x|, 9.1 %, with a standard deviation of at
    most half of that, 4.5 %. Below the smallest code s, 2^-15.75 of the block's scale, x becomes s or 0, with one of at
    most sqrt(|x| s). What is not finite arrives as NaN.

    It works within the hook, so the exchange of one bucket does not overlap with the gradients of the next.

    Args:
        model: before its first backward pass; on each process.
        fmt: a format of 8 bits and base 2. More fraction bits are a smaller error, and less range.
        seed: of the rounding, the same on each process; each draws otherwise. Another one for each run that goes on.

    Raises:
        TypeError: where model is no DistributedDataParallel.
        ValueError: for another format, or a seed that is no integer from 0 on.
        RuntimeError: where the processes were given other formats or seeds, on each; of torch, where the model has a
            hook already.
    """
    if not isinstance(model, DistributedDataParallel):
        raise TypeError(f"model is a {type(model).__name__}, not a DistributedDataParallel, which exchanges gradients")
    fmt = LNSFormat.of(fmt)
    if fmt.bits != 8 or fmt.base != 2:
        raise ValueError(f"gradients are shipped as codes of 8 bits and base 2, not {fmt.name}: take lns8f3")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed={seed!r} is no integer from 0 on")
    told = {"fmt": fmt.name, "seed": str(seed)}
    group = model.process_group
    found = compare("codes of gradients", told, group)
    if found is not None:
        raise RuntimeError(f"{found}: what one process packs the others unpack, so ship all gradients alike")
    # torch compares annotations with classes, and those of this module are texts
    model.register_comm_hook(_Exchange(fmt, seed, model.process_group), lambda state, bucket: _exchange(state, bucket))


class _Exchange:
    """What the hook knows: the format, the processes, and how often each bucket was exchanged."""

    def __init__(self, fmt: LNSFormat, seed: int, group: Any) -> None:
        self.fmt, self.group, self.seed = fmt, group, seed
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.times: dict[int, int] = {}

    def draw(self, bucket: int, phase: int) -> int:
        """A seed that no other rounding of this run has."""
        told = repr((self.seed, self.rank, bucket, self.times[bucket], phase)).encode()
        return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest()) >> 2


def _exchange(state: _Exchange, bucket: Any) -> torch.futures.Future[torch.Tensor]:
    gradients = bucket.buffer()
    place = bucket.index()
    state.times[place] = state.times.get(place, 0) + 1
    mean = _mean_of(state, gradients, place)
    devices = [gradients.device] if gradients.device.type == "cuda" else []
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future(devices=devices)
    future.set_result(mean)
    return future


def _mean_of(state: _Exchange, gradients: torch.Tensor, place: int) -> torch.Tensor:
    size, count = state.size, gradients.numel()
    blocks = -(-count // (BLOCK * size))
    own = gradients.new_zeros(size * blocks * BLOCK, dtype=torch.float32)
    own[:count] = gradients
    sent = pack(own.view(size * blocks, BLOCK), state.fmt, seed=state.draw(place, 0))
    received = torch.empty_like(sent)
    with reaching("the processes that exchange gradients"):
        dist.all_to_all_single(received, sent, group=state.group)
        parts = unpack(received, state.fmt).view(size, blocks, BLOCK)
        total = parts[0]
        for part in parts[1:]:
            total += part
        mean = pack(total / size, state.fmt, seed=state.draw(place, 1))
        means = mean.new_empty(size * blocks, mean.shape[1])
        dist.all_gather_into_tensor(means, mean, group=state.group)
    gradients.copy_(unpack(means, state.fmt).view(-1)[:count])
    return gradients


def pack(
    x: torch.Tensor, fmt: LNSFormat, *, seed: int | None = None, random_bits: torch.Tensor | None = None
) -> torch.Tensor:
    """Blocks of float32, one a row, as bytes: their codes, and behind them the exponent of the scale.

    >>> pack(torch.tensor([[1.0, -2.0, 0.0]]), LNSFormat(8, 3), seed=0)
    tensor([[111, 247,   0,   2,   0]], dtype=torch.uint8)
    """
    finite = torch.isfinite(x)
    exponents = torch.frexp(torch.where(finite, x, 0.0).abs().amax(1, keepdim=True)).exponent
    if random_bits is None and not bridge.is_on_cpu(x):  # without a kernel that draws by itself
        generator = torch.Generator(x.device).manual_seed(seed or 0)
        low, high = -(1 << 31), 1 << 31
        random_bits = torch.randint(low, high, x.shape, dtype=torch.int32, device=x.device, generator=generator)
    codes = bridge.encode(
        torch.where(finite, x, torch.nan), fmt, _scale_of(exponents, fmt), rounding="stochastic_value",
        random_bits=random_bits, seed=seed if random_bits is None else None,
    )  # fmt: skip
    return torch.cat([codes, exponents.to(torch.int16).view(torch.uint8)], 1)


def unpack(rows: torch.Tensor, fmt: LNSFormat) -> torch.Tensor:
    """The float32 that `pack` made bytes of, rounded to codes."""
    codes, exponents = rows.split([rows.shape[1] - _EXPONENT_BYTES, _EXPONENT_BYTES], 1)
    # clone: of one row the bytes are in one piece as they are, and not where a type of two bytes may begin
    scale = _scale_of(exponents.clone(memory_format=torch.contiguous_format).view(torch.int16).to(torch.int32), fmt)
    return bridge.decode(codes.contiguous(), fmt, scale, torch.float32)


def _scale_of(exponents: torch.Tensor, fmt: LNSFormat) -> Scale:
    """That at which the greatest magnitude is 2^exponent: no number of the block is above it, rounded up either."""
    offsets = exponents.to(torch.int32) * (1 << fmt.fraction_bits) - (fmt.max_magnitude - fmt.bias)
    low, high = (int(extreme) for extreme in offsets.aminmax())
    return Scale(low, high, offsets)
