"""Which rows of a batch a process computes, and how the sums of all processes become one."""

from __future__ import annotations

from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor


class RankLost(RuntimeError):
    """The processes could not add up: one of them is gone, or does not answer."""


class Share(NamedTuple):
    """Rank r of `world` processes that train together; alone, it has all."""

    rank: int
    world: int

    def places(self, size: int) -> range:
        """Neighbouring rows of a batch of `size`; none if there are fewer rows than ranks and others have them."""
        return range(self.rank * size // self.world, (self.rank + 1) * size // self.world)

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all ranks, in place, the same bits on each of them. Raises RankLost."""
        if self.world > 1:
            try:
                dist.all_reduce(values)
            except RuntimeError as error:
                raise RankLost(str(error)) from error
        return values


ALONE = Share(0, 1)
