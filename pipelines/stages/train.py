"""train: fit the network on the training rows; the validation rows choose the epoch. The test rows are not opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import backends
from backends import weights
from backends.base import Data, Machine
from backends.spec import Trial
from backends.supervisor import Record, Result, Watch, fit
from pipelines.data import About, Part
from pipelines.metrics import HIGHER_IS_BETTER, Truth, epoch_metrics, higher_is_better
from pipelines.spec import Experiment, SpecError, fingerprint, source_hash, trial
from pipelines.stages.files import remove, sha256, write_csv, write_json
from pipelines.stages.places import HeldError, Places
from pipelines.stages.surroundings import environment, versions

OUTS = ("model.safetensors", "metrics.json", "history.csv", "run.json")
BLOCKS = ("seed", "data", "model", "regularization", "train")  # what a run depends on
Progress = Callable[[Record], None]


def train(experiment: Experiment, places: Places, progress: Progress | None = None) -> dict[str, Any]:
    """Write outputs/train; returns its metrics. `progress` sees the record of each epoch.

    A run that was killed goes on from its checkpoint. Raises StageError if earlier outs are missing or the run diverged,
    SpecError for a monitor that there is not, BackendError for a backend that is not installed.
    """
    with places.locked():
        about = About.load(places.need(places.about, "split"))
        network = trial(experiment, about.task, len(about.inputs), about.outputs)
        mark = fingerprint(experiment, _hashes(about), source_hash(experiment.train.backend))
        result = _fit(experiment, network, about, places, mark, progress)
        return _write(experiment, network, about, places, mark, result)


def _hashes(about: About) -> dict[str, str]:
    return {part: about.sha256[part] for part in ("train", "valid")}


def _fit(experiment: Experiment, network: Trial, about: About, places: Places, mark: str, progress: Progress | None) -> Result:
    """The one trial as a stack of one."""
    learn, choose = (Part.load(places.data / part) for part in ("train", "valid"))
    monitor = experiment.train.early_stopping.monitor
    try:
        measure = epoch_metrics(Truth.of(about, choose.y), monitor)
    except ValueError as error:
        raise SpecError(str(error)) from None
    [result] = fit(
        backends.get(experiment.train.backend),
        [network],
        Data(learn.X, learn.y, choose.X, choose.y),
        machine=Machine(experiment.train.devices, experiment.train.threads),
        metrics=measure,
        higher_is_better=HIGHER_IS_BETTER | ({monitor} if higher_is_better(monitor) else set()),
        watch=_watch(progress),
        checkpoint=places.checkpoint(mark),
    )
    return result


def _watch(progress: Progress | None) -> Watch | None:
    """Shows each epoch, and prunes none."""
    if progress is None:
        return None

    def watch(_: int, record: Record) -> bool:
        progress(record)
        return False

    return watch


def _write(experiment: Experiment, network: Trial, about: About, places: Places, mark: str, result: Result) -> dict[str, Any]:
    """The outs, then HeldError if there is no model."""
    remove(places.trained, OUTS)
    if result.weights is not None and result.reason != "diverged":
        weights.save(places.model, network, result.weights)
    columns = list(dict.fromkeys(name for record in result.history for name in record)) or ["epoch"]
    write_csv(places.history, columns, ([record.get(name, "") for name in columns] for record in result.history))
    metrics = summary(result)
    write_json(places.trained / "metrics.json", metrics)
    write_json(places.run, record_of(experiment, network, about, places, mark, result))
    if not places.model.exists():
        raise HeldError(
            f"the run {result.message}; try a smaller train.optimizer.learning_rate (now "
            f"{experiment.train.optimizer.learning_rate:g}), train.clip_norm: 1.0, or data.scaling: standardize"
        )
    return metrics


def summary(result: Result) -> dict[str, Any]:
    """How far the run went, and the numbers of its best epoch."""
    best = {f"best_{name}": value for name, value in result.best.items() if name.startswith(("train_", "val_"))}
    chosen = {"best_epoch": result.best_epoch} if result.best_epoch else {}
    return {"epochs": len(result.history), "steps": result.steps, **chosen, **{k: v for k, v in best.items() if v == v}}


def record_of(experiment: Experiment, network: Trial, about: About, places: Places, mark: str, result: Result) -> dict[str, Any]:
    """run.json: what was trained, on what data, by what, where, and how it ended. No time, path or name of this run."""
    backend = backends.get(experiment.train.backend)
    return {
        "spec": experiment.model_dump(mode="json", include=set(BLOCKS)),
        "fingerprint": mark,
        "backend": experiment.train.backend,
        "versions": versions(backend),
        "environment": environment(backend, network, Machine(experiment.train.devices, experiment.train.threads)),
        "data_hashes": _hashes(about),
        "model_hash": sha256(places.model) if places.model.exists() else None,
        "ended": result.reason,
        "message": result.message,
        "best_epoch": result.best_epoch,
    }
