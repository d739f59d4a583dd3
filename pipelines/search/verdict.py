"""What a trial is worth, and whether it is over."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.search.pack import State
from pipelines.search.records import State as Word
from pipelines.spec import Experiment


@dataclass(frozen=True)
class Ended:
    """How a trial ended: values in the order of the metrics, and their sd over the seeds."""

    state: Word
    reason: str
    values: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()


@dataclass(frozen=True)
class Worth:
    """The value of each metric at the best epoch so far: mean and sd over the seeds. Empty if there is none."""

    values: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    undefined: str = ""  # the first metric that the outputs do not define


def worth(experiment: Experiment, states: Sequence[State], weights: int) -> Worth:
    """What the networks of one trial have come to."""
    best = [state.progress["history"][state.progress["best_epoch"] - 1] for state in states if state.progress["best_epoch"]]
    if len(best) < len(states):
        return Worth(undefined=experiment.train.early_stopping.monitor)
    values, spread = [], []
    for metric in experiment.search.metrics:
        each = [float(weights) if metric == "weights" else record.get(f"val_{metric}", math.nan) for record in best]
        if not all(map(math.isfinite, each)):
            return Worth(undefined=metric)
        values.append(statistics.fmean(each))
        spread.append(statistics.stdev(each) if len(each) > 1 else 0.0)
    return Worth(tuple(values), tuple(spread) if len(best) > 1 else ())


def judge(states: Sequence[State], found: Worth, epoch: int | None, pruned: Callable[[], bool]) -> Ended | None:
    """How the trial ended, or None if it goes on. One network that diverged fails its trial."""
    diverged = next((state.progress for state in states if state.progress["reason"] == "diverged"), None)
    if diverged:
        return Ended("FAIL", diverged["message"])
    over = not any(state.running for state in states)
    if over and not found.values:
        return Ended("FAIL", f"the metric {found.undefined} has no finite value on the validation rows")
    if over:
        return Ended(
            "COMPLETE", "; ".join(dict.fromkeys(state.progress["message"] for state in states)), found.values, found.spread
        )
    if found.values and pruned():
        return Ended("PRUNED", f"pruned after epoch {epoch}", found.values, found.spread)
    return None
