"""From a chunk to its batches: rows picked out of data that sit on the device, and the noise that multiplies them.

A block of steps is made ready at a time: one index operation and one run of the hash instead of one a step, in memory
that does not grow with the chunk. Of several processes, each has a share of every batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor

from backends.base import Chunk, NDArray, Stack
from backends.errors import BackendError
from backends.lightning.network import Masks
from backends.lightning.noise import multipliers, noise, upload
from backends.losses import weighed

BLOCK_NUMBERS = 2**20  # numbers made ready at a time: 4 MB in float32


class Share(NamedTuple):
    """Rank r of `world` processes that train together; alone, it has all."""

    rank: int
    world: int

    def places(self, size: int) -> range:
        """Neighbouring rows of a batch of `size`; none if there are fewer rows than ranks and others have them."""
        return range(self.rank * size // self.world, (self.rank + 1) * size // self.world)

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in place, the same bits on each of them."""
        if self.world > 1:
            dist.all_reduce(values)
        return values


ALONE = Share(0, 1)


def own_share(world: int) -> Share:
    """This process', where torch's launcher started it as one of `world` ranks; ALONE where it did not."""
    started = TorchElasticEnvironment()
    if world == 1 or not started.detect():
        return ALONE
    if started.world_size() != world:
        raise BackendError(f"train.devices must be {started.world_size()}, the ranks that torch's launcher started, got {world}")
    return Share(started.global_rank(), world)


class Batch(NamedTuple):
    """One optimizer step, as far as this process has part in it. Kx is 1 where all trials see the same rows, else K."""

    x: Tensor  # (Kx, b, I)
    d: Tensor  # (Kx, b, O)
    masks: Masks  # a place: (K, b, units), or None
    eta: Tensor  # (K, 1)
    size: int  # B, rows of the whole batch; b of them are here
    weights: Tensor | None = None  # w_i·w_c of the rows, (K or 1, b), where any have weights


class Batches:
    """Deals a stack's batches. X (F·n, I) and d as `Stack.targets`, on the device; None for a stack that only predicts."""

    def __init__(self, stack: Stack, X: Tensor | None, d: Tensor | None, device: torch.device) -> None:
        self.X, self.d, self.device = X, d, device
        self.dtype = torch.from_numpy(stack.slopes).dtype
        # A place: (K, 1, 1), or (1, 1, 1) where p is the same for all, who then share what is multiplied if they share a seed.
        self.thresholds, self.scales = (
            [torch.from_numpy(row[: 1 if (row == row[0]).all() else None, None, None]).to(device, kind) for row in rows]
            for rows, kind in ((stack.thresholds, torch.int32), (stack.scales, self.dtype))
        )
        self.noisy = [bool(place.any()) for place in stack.thresholds]
        layers = stack.trials[0].layers
        self.units = [layers[0].inputs, *(layer.outputs for layer in layers[:-1])]
        self.trials, self.task, self.outputs = len(stack.trials), stack.trials[0].task, layers[-1].outputs
        self.class_weights = None if stack.class_weights is None else torch.from_numpy(stack.class_weights).to(device)
        # Which stream's rows and noise a trial takes; None where there is nothing to pick.
        own = len(stack.seeds) == self.trials
        self.pick = None if own or len(stack.seeds) == 1 else torch.from_numpy(stack.seed_index).to(device)

    def of(self, chunk: Chunk, share: Share = ALONE) -> Iterator[Batch]:
        """The batches of a chunk, in order: this process' share of each."""
        steps, size = chunk.rows.shape[1:]
        places = share.places(size)
        eta = torch.from_numpy(chunk.rates.T.copy()).to(self.device, self.dtype).unsqueeze(-1)
        block = max(1, BLOCK_NUMBERS // max(1, self._numbers_a_step(len(places))))
        for start in range(0, steps, block):
            part = slice(start, start + block)
            rows = chunk.rows[:, part, places.start : places.stop]
            x, d = self._take(self.X, rows), self._take(self.d, rows)
            masks = self._masks_of_steps(chunk.noise[:, part], places)
            d, weights = zip(*map(self.weighed, d), strict=True)
            yield from map(Batch, x, d, masks, eta[part].unbind(), repeat(size), weights)

    def weighed(self, d: Tensor) -> tuple[Tensor, Tensor | None]:
        """The targets (Kx, b, O) or (b, O) of rows of `Stack.targets`, and their weights (K or 1, b), or None."""
        return weighed(torch, self.task, d, self.outputs, self.class_weights)

    def masks(self, keys: NDArray, rows: int) -> Masks:
        """The multipliers of one step: keys (U, places, 2) -> a place: (K, rows, units), or None."""
        return self._masks_of_steps(keys[:, None], range(rows))[0]

    def _take(self, values: Tensor | None, rows: NDArray) -> tuple[Tensor, ...]:
        """What is of each step's rows: rows (U, S, B) -> S of (Kx, B, numbers)."""
        assert values is not None, "a stack without data cannot train"
        at = torch.from_numpy(np.ascontiguousarray(rows.swapaxes(0, 1))).to(self.device)
        at = at if self.pick is None else at.index_select(1, self.pick)
        return values.index_select(0, at.flatten()).view(*at.shape, values.shape[1]).unbind()

    def _masks_of_steps(self, keys: NDArray, rows: range) -> list[Masks]:
        """keys (U, S, places, 2) -> S of the multipliers of one step, for these rows of its batch."""
        words = upload(keys.swapaxes(0, 1), self.device)
        places = [self._masks_of_place(words, place, rows) for place in range(len(self.units))]
        return list(zip(*places, strict=True))

    def _masks_of_place(self, words: Tensor, place: int, rows: range) -> tuple[Tensor | None, ...]:
        if not self.noisy[place]:
            return (None,) * len(words)
        hashes = noise(words[:, :, place], len(rows), self.units[place], rows.start)  # (S, U, rows, units)
        hashes = hashes if self.pick is None else hashes.index_select(1, self.pick)
        return multipliers(hashes, self.thresholds[place], self.scales[place]).unbind()

    def _numbers_a_step(self, size: int) -> int:
        return size * self.trials * sum(u for place, u in enumerate(self.units) if self.noisy[place] or not place)
