"""What a trial is worth and whether it is over; and the plain Optuna way, for those who want to drive the search themselves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import Machine
from pipelines.project import project_of
from pipelines.search import records
from pipelines.search.networks import DatasetCache, Job, State, advance, networks_of, split_state, stacks
from pipelines.search.sampling import draw, rung_epochs
from pipelines.search.storage import open_storage
from pipelines.spec import Experiment

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class ObjectiveValue:
    """The value of each metric at the best epoch so far: mean and sd over the seeds. Empty if there is none."""

    values: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    undefined: str = ""  # the first metric that the outputs do not define

    @classmethod
    def of(cls, experiment: Experiment, states: Sequence[State], weights: int) -> ObjectiveValue:
        """What the networks of one trial have come to; `weights`: the numbers that one of them learns."""
        best = [s.progress["history"][s.progress["best_epoch"] - 1] for s in states if s.progress["best_epoch"]]
        if len(best) < len(states):
            return cls(undefined=experiment.train.early_stopping.monitor)
        values, spread = [], []
        for metric in experiment.search.metrics:
            each = [float(weights) if metric == "weights" else record.get(f"val_{metric}", math.nan) for record in best]
            if not all(map(math.isfinite, each)):
                return cls(undefined=metric)
            values.append(statistics.fmean(each))
            spread.append(statistics.stdev(each) if len(each) > 1 else 0.0)
        return cls(tuple(values), tuple(spread) if len(best) > 1 else ())


def judge(
    states: Sequence[State], found: ObjectiveValue, epoch: int | None, pruned: Callable[[], bool]
) -> tuple[records.State, str]:
    """How the trial ended, with a sentence; RUNNING if it goes on. One network that diverged fails its trial."""
    diverged = next((state.progress for state in states if state.progress["reason"] == "diverged"), None)
    if diverged:
        return "FAIL", diverged["message"]
    if any(state.running for state in states):
        return ("PRUNED", f"pruned after epoch {epoch}") if found.values and pruned() else ("RUNNING", "")
    if not found.values:
        return "FAIL", f"the metric {found.undefined} has no finite value on the validation rows"
    return "COMPLETE", "; ".join(dict.fromkeys(state.progress["message"] for state in states))


# -- the plain Optuna way --


def open_study(name: str, experiment: Experiment, *, project: Path | None = None) -> optuna.Study:
    """The Optuna study of a name, as `deltarule search` keeps it. Raises KeyError if there is none."""
    import optuna

    folder = (project or project_of(Path())) / records.STUDIES / name
    return optuna.load_study(study_name=name, storage=open_storage(folder, experiment.search.storage))


def objective(experiment: Experiment, *, project: Path | None = None) -> Callable[[Any], float | tuple[float, ...]]:
    """A function for optuna's `study.optimize`: draws from search.space, trains here, and returns the validation value.

    It reports at each rung and raises optuna.TrialPruned where the study's pruner says so; a network that diverges gives NaN,
    which Optuna takes for a failure. The rows are prepared once, below .deltarule/objective. Test rows are not written.
    """
    root = project or project_of(Path())
    datasets = DatasetCache(root / ".deltarule" / "objective", root)
    return lambda one: _value(one, experiment, datasets)


def _value(one: Any, base: Experiment, datasets: DatasetCache) -> float | tuple[float, ...]:
    import optuna

    networks = networks_of(one.number, draw(one, base), base, datasets)
    weights, single = max(network.weights for network in networks), len(base.search.metrics) == 1
    states, epoch, state = [State() for _ in networks], 0, "RUNNING"
    while state == "RUNNING":
        epoch += rung_epochs(base)
        live = [network for network, at in zip(networks, states, strict=True) if at.running]
        for stack in stacks(live, len(live)):
            job = Job.of(base, Machine("auto", base.train.threads), stack, [states[n.replica] for n in stack], epoch)
            for network, at in zip(stack, split_state(advance(job)), strict=True):
                states[network.replica] = at
        found = ObjectiveValue.of(base, states, weights)
        if single and found.values:
            one.report(found.values[0], epoch)
        state, reason = judge(states, found, epoch, one.should_prune if single else lambda: False)
    if state == "PRUNED":
        raise optuna.TrialPruned(reason)
    if state == "FAIL":
        one.set_user_attr("reason", reason)
        return float("nan")
    return found.values[0] if single else found.values
