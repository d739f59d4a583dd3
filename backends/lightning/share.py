"""Which rows of a batch a process computes, and how the sums of all processes become one."""

from __future__ import annotations

from typing import NamedTuple

import torch.distributed as dist
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor

from backends.errors import BackendError


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
