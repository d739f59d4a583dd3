"""What a worker does: train one stack of a study up to a rung. A pure function of the job; no Optuna, no MLflow.

A job names the folder of the training and the validation rows. There are no test rows in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import backends
from backends.base import Data, Machine
from backends.spec import Trial
from backends.supervisor import Checkpoint, Supervisor
from pipelines.data import About
from pipelines.search.pack import State, join, part
from pipelines.spec import Search, higher_is_better
from pipelines.stages.folds import open_rows
from pipelines.stages.metrics import Truth, epoch_metrics


@dataclass(frozen=True)
class Job:
    """One stack: trials of one structure, their states, and how far they are to go (None: to their end)."""

    backend: str
    machine: Machine
    data: str  # a folder with about.json, train/ and valid/
    metrics: tuple[str, ...]  # to be measured at each epoch, besides what is monitored
    trials: tuple[Trial, ...]
    states: tuple[State, ...]
    until_epoch: int | None


def measured(search: Search) -> tuple[str, ...]:
    """The metrics that need measuring at each epoch: the loss is known, and so is the number of weights."""
    return tuple(name for name in search.metrics if name not in ("loss", "weights"))


def advance(job: Job) -> list[State]:
    """The states of the job's trials at the rung."""
    data, truths = _rows(job.data, tuple(dict.fromkeys(trial.fold for trial in job.trials)))
    monitor = job.trials[0].train.early_stopping.monitor
    supervisor = Supervisor(
        backends.get(job.backend),
        job.trials,
        data,
        machine=job.machine,
        metrics={fold: epoch_metrics(truth, monitor, *job.metrics) for fold, truth in truths.items()},
        higher_is_better={monitor} if higher_is_better(monitor) else (),
        resume=join(job.states, job.trials),
        probing=False,
    )
    supervisor.run(until_epoch=job.until_epoch)
    return part(supervisor.checkpoint())


@lru_cache(maxsize=4)
def _rows(folder: str, folds: tuple[int | None, ...]) -> tuple[Data, dict[int | None, Truth]]:
    """Read once a worker, not once a job."""
    return open_rows(About.load(Path(folder) / "about.json"), Path(folder), folds)


def save_states(path: Path, states: list[State]) -> None:
    """To a temporary name, then renamed."""
    arrays = {f"{place}.{name}": value for place, state in enumerate(states) for name, value in state.arrays.items()}
    numbers = {"states": [{"step": state.step, "progress": state.progress} for state in states]}
    Checkpoint(numbers, arrays).save(path)


def load_states(path: Path) -> list[State] | None:
    """What `save_states` wrote; None if there is no such file, or none that can be read."""
    if not path.exists():
        return None
    try:
        saved = Checkpoint.load(path)
    except ValueError:
        return None
    found: list[State] = []
    for place, kept in enumerate(saved.numbers["states"]):
        head = f"{place}."
        arrays = {name.removeprefix(head): value for name, value in saved.arrays.items() if name.startswith(head)}
        found.append(State(kept["step"], kept["progress"], arrays))
    return found


def address(job: Job) -> str:
    """Text that two jobs share if, and only if, they compute the same."""
    trials = [trial.model_dump(mode="json") for trial in job.trials]
    states = [(state.step, state.progress) for state in job.states]
    return json.dumps([job.backend, job.data, job.metrics, trials, states, job.until_epoch], sort_keys=True)
