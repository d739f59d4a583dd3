"""Dropout noise in torch: `draws.noise`, bit for bit, in 32-bit integers that wrap.

torch has no unsigned shifts, so words are int32 and a logical shift is an arithmetic one whose upper bits are masked
away. Working in place on a whole block of steps costs 6 µs a 4096 numbers where one step at a time costs 150.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from backends.base import NDArray
from backends.draws import MULTIPLY_1, MULTIPLY_2


def upload(keys: NDArray, device: torch.device) -> Tensor:
    """Keys as they come in a chunk, uint32, as int32 of the same bits."""
    return torch.from_numpy(np.ascontiguousarray(keys, dtype=np.uint32).view(np.int32)).to(device)


def noise(keys: Tensor, rows: int, units: int, first_row: int = 0) -> Tensor:
    """The hash of each (row, unit): keys (..., 2) int32 -> (..., rows, units) int32, the bits of draws.noise.

    A process that holds a part of the batch gives the place of its first row in the whole batch.
    """
    first, second = keys[..., 0, None, None], keys[..., 1, None, None]
    numbers = torch.arange(first_row * units, (first_row + rows) * units, dtype=torch.int64, device=keys.device)
    at = numbers.to(torch.int32).view(rows, units)
    x = at ^ first
    spare = torch.empty_like(x)
    return _mix(_mix(x, spare).add_(second), spare)


def multipliers(hashes: Tensor, thresholds: Tensor, scales: Tensor) -> Tensor:
    """What outputs are multiplied by: 0 where (hash >> 8) < threshold, else the scale. Overwrites the hashes.

    hashes (..., rows, units); thresholds int32 and scales broadcast against them. A product is one vectorised pass
    forward and one back; `torch.where` is neither vectorised nor free of branches, and took fifty times as long.
    """
    words = hashes.bitwise_right_shift_(8).bitwise_and_(0x00FFFFFF)
    kept = scales.new_empty(np.broadcast_shapes(words.shape, thresholds.shape))
    return torch.ge(words, thresholds, out=kept).mul_(scales)


def _mix(x: Tensor, spare: Tensor) -> Tensor:
    """draws.mix in place: xorshift, multiply, xorshift, multiply, xorshift."""
    for shift, factor in ((16, MULTIPLY_1), (15, MULTIPLY_2)):
        _xorshift(x, shift, spare)
        x.mul_(_signed(factor))
    return _xorshift(x, 16, spare)


def _xorshift(x: Tensor, shift: int, spare: Tensor) -> Tensor:
    """x ^ (x >> shift), the shift logical."""
    torch.bitwise_right_shift(x, shift, out=spare)
    spare.bitwise_and_((1 << (32 - shift)) - 1)
    return x.bitwise_xor_(spare)


def _signed(word: int) -> int:
    """The int32 of the same bits."""
    return word - (1 << 32) if word >> 31 else word
