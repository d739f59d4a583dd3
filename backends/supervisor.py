"""What happens between chunks, once, for every backend: stopping, best weights, divergence, history, checkpoints.

It is an iterator of chunks, so either side can drive: `for chunk in supervisor.chunks()`, or a framework's own loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backends.base import Backend, Data, Machine
from backends.spec import Trial

NDArray = np.ndarray[Any, np.dtype[Any]]
Reason = Literal["running", "completed", "early_stopping", "diverged", "pruned"]
Record = dict[str, float]
Metrics = Callable[[NDArray], Record]  # outputs on the validation rows, (n, O) before softmax -> {"accuracy": ...}
Watch = Callable[[int, Record], bool]  # (trial's place in the list, the epoch's record) -> True to prune it


@dataclass(frozen=True)
class Result:
    """How one trial went. `weights` (P,) are those of `best_epoch`; a trial that diverged at once has none of either."""

    weights: NDArray | None
    best_epoch: int | None  # counted from 1
    history: list[Record]  # one record an epoch that was completed
    reason: Reason
    message: str  # one sentence: why it ended
    steps: int  # optimizer steps that were carried out

    @property
    def best(self) -> Record:
        """The record of the best epoch; empty if there is none."""
        return self.history[self.best_epoch - 1] if self.best_epoch else {}


def fit(
    backend: Backend,
    trials: Sequence[Trial],
    data: Data,
    *,
    machine: Machine | None = None,
    metrics: Metrics | None = None,
    watch: Watch | None = None,
    checkpoint: Path | None = None,
) -> list[Result]:
    """Train trials of one structure as one stack, and say how each went, in the order given."""
    raise NotImplementedError
