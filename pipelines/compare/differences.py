"""In what some runs differ, and what came of each: the params that are not the same in all, metrics, curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipelines.compare.listing import chief_metric
from pipelines.compare.pairs import ROWS, SOURCE
from pipelines.tracking.query import Recorded

NO_SETTING = ("search.", "tracking.")  # params that are of a study and of the store, and of no run
COMMIT, DIRTY = "mlflow.source.git.commit", "mlflow.source.git.dirty"
REPORTS = ("validate_", "test_")
BOUNDS = ("_low", "_high", "_sd")
SHORT = 8  # of hashes
Texts = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Measured:
    """A metric of a run, with its 95 % interval where the stage gives one."""

    value: float
    low: float | None = None
    high: float | None = None


Metrics = dict[str, tuple[Measured | None, ...]]


def differing(runs: Sequence[Recorded]) -> Texts:
    """Param -> its text in each run, "" where there is none; of those that are not the same in all.

    And what no param says: another commit, and other rows under the same name.
    """
    names = dict.fromkeys(name for run in runs for name in run.params if not name.startswith(NO_SETTING))
    rows = {name: tuple(run.params.get(name, "") for run in runs) for name in names}
    rows |= {label: tuple(ask(run) for run in runs) for label, ask in BESIDES.items()}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def _commit(run: Recorded) -> str:
    changed = " and changes" if run.tags.get(DIRTY) == "true" else ""
    return f"{run.tags[COMMIT][:SHORT]}{changed}" if COMMIT in run.tags else ""


BESIDES: dict[str, Callable[[Recorded], str]] = {
    "data": lambda run: run.tags.get(SOURCE, ""),
    "training rows": lambda run: run.tags.get(ROWS[0], "")[:SHORT],
    "validation rows": lambda run: run.tags.get(ROWS[1], "")[:SHORT],
    "commit": _commit,
}


def measured(runs: Sequence[Recorded]) -> Metrics:
    """Metric -> what each run has of it: of the reports, or where a run has none (a trial) of its best epoch; and the epochs."""
    return {
        name: tuple(
            Measured(run.metrics[name], run.metrics.get(f"{name}_low"), run.metrics.get(f"{name}_high"))
            if name in run.metrics
            else None
            for run in runs
        )
        for name in dict.fromkeys(_names(runs))
    }


def _names(runs: Sequence[Recorded]) -> Iterator[str]:
    every = list(dict.fromkeys(name for run in runs for name in run.metrics if not name.endswith(BOUNDS)))
    yield from (name for report in REPORTS for name in every if name.startswith(report))
    if not all(any(name.startswith("validate_") for name in run.metrics) for run in runs):
        yield from (name for name in every if name.startswith("best_val_"))
    yield from (name for name in ("best_train_loss", "best_epoch", "epochs") if name in every)


def curve_names(runs: Sequence[Recorded]) -> tuple[str, ...]:
    """What is drawn over the epochs: E on the training and the validation rows, and the metric that most runs watch."""
    chief = chief_metric(runs)
    wanted = ("train_loss", "val_loss", *(() if chief is None else (f"val_{chief}",)))
    return tuple(name for name in wanted if any(name in run.metrics for run in runs))
