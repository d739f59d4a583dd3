"""train: fit the network on the training rows; the validation rows choose the epoch. The test rows are not opened."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends import weights
from backends.base import Machine, NDArray, threads_for
from backends.spec import Trial
from backends.supervisor import Record, Result, Watch
from pipelines.data import About
from pipelines.spec import Experiment, fingerprint, source_hash, trial
from pipelines.stages.files import listed, replaced, write_csv, write_json, write_rows
from pipelines.stages.folds import check_monitor, over_folds, train_all
from pipelines.stages.networks import split_rows
from pipelines.stages.paths import HeldError, RunPaths

OUTS = ("run.json", "model.safetensors", "metrics.json", "history.csv", "weights.csv")
BLOCKS = ("seed", "data", "model", "regularization", "train")  # what a run depends on
Progress = Callable[[Record], None]
Begun = Callable[[str, int], None]  # the run's fingerprint, and how many networks it trains
Trained = tuple[Trial, Result]


def train(
    experiment: Experiment,
    places: RunPaths,
    progress: Progress | None = None,
    *,
    begun: Begun = lambda fingerprint, networks: None,
    halt: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write outputs/train; returns its metrics. `progress` sees the record of each epoch, `begun` that training begins.

    A run that was killed goes on from its checkpoint; what `halt` raises, between two chunks, ends it with one. Raises
    StageError if earlier outs are missing or the run diverged, SpecError and BackendError for what cannot be trained here.
    """
    with places.locked():
        about = split_rows(experiment, places)
        networks = [trial(experiment, one) for one in about.each]
        mark = fingerprint(experiment, _hashes(about), source_hash(experiment.train.backend))
        check_monitor(experiment, about, places.data)
        backends.get(experiment.train.backend)  # what cannot be trained here has not begun
        begun(mark, len(networks))
        results = train_all(
            experiment,
            about,
            places.data,
            networks,
            watch=_watch(progress, networks),
            checkpoint=places.checkpoint(mark),
            halt=halt,
        )
        return _write(experiment, about, places, mark, list(zip(networks, results, strict=True)))


def _hashes(about: About) -> dict[str, str]:
    return {part: about.sha256[part] for part in ("train", "valid")}


def _watch(progress: Progress | None, networks: Sequence[Trial]) -> Watch | None:
    """Shows each epoch, and prunes none."""
    if progress is None:
        return None

    def watch(place: int, record: Record) -> bool:
        progress(_named(networks[place], record))
        return False

    return watch


def _named(network: Trial, record: Record) -> Record:
    """An epoch; of folds with the number of the fold."""
    return record if network.fold is None else {"fold": network.fold, **record}


def _write(experiment: Experiment, about: About, places: RunPaths, mark: str, trained: Sequence[Trained]) -> dict[str, Any]:
    """The outs, then HeldError if there is no model: one fold that diverged leaves none of any."""
    failed = next((one for one in trained if one[1].weights is None or one[1].reason == "diverged"), None)
    metrics = summary([result for _, result in trained])
    with replaced(places.trained, OUTS) as folder:
        if failed is None:
            networks = [(network, result.weights) for network, result in trained if result.weights is not None]
            weights.save_all(folder / "model.safetensors", networks)
            write_csv(folder / "weights.csv", HEADER, histograms(networks))
        rows = [_named(network, record) for network, result in trained for record in result.history]  # one fold after the other
        write_rows(folder / "history.csv", rows, ["epoch"])
        write_json(folder / "metrics.json", metrics)
        write_json(folder / "run.json", record_of(experiment, about, folder, mark, trained))
    checkpoint = places.checkpoint(mark)
    for file in checkpoint.parent.glob(f"*{checkpoint.stem}*"):  # half-written ones too
        file.unlink()
    if failed is not None:
        network, result = failed
        raise HeldError(
            f"the run {'' if network.fold is None else f'of fold {network.fold} '}{result.message}; try a smaller "
            f"train.optimizer.learning_rate (now {experiment.train.optimizer.learning_rate:g}), train.clip_norm: 1.0, or "
            "data.scaling: standardize"
        )
    return metrics


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """How far the run went, and the numbers of its best epoch. Of folds: the most epochs, all steps, means and sds."""
    found = [
        {f"best_{name}": value for name, value in result.best.items() if name.startswith(("train_", "val_")) and value == value}
        for result in results
    ]
    chosen = [{"best_epoch": result.best_epoch} for result in results if result.best_epoch]
    whole = len(chosen) == len(results)
    return {
        "epochs": max(len(result.history) for result in results),
        "steps": sum(result.steps for result in results),
        **(over_folds(chosen) if whole else {}),
        **over_folds(found),
    }


def record_of(experiment: Experiment, about: About, folder: Path, mark: str, trained: Sequence[Trained]) -> dict[str, Any]:
    """run.json, for the outs in `folder`: what was trained, on what, by what, where, and how it ended. No time, path or name."""
    backend = backends.get(experiment.train.backend)
    networks, results = zip(*trained, strict=True)
    return {
        "spec": experiment.model_dump(mode="json", include=set(BLOCKS)),
        "fingerprint": mark,
        "backend": experiment.train.backend,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, **backend.versions()},
        "environment": {
            "cpu": processor(),
            "isa": instructions(),
            "threads": threads_for(networks[:1], Machine(experiment.train.devices, experiment.train.threads)),
            "devices": backend.devices(),
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "data_hashes": _hashes(about),
        "model_hash": listed(folder, OUTS).get("model.safetensors"),
        "outs": listed(folder, OUTS[2:]),
        **_ended(networks, results),
    }


def _ended(networks: Sequence[Trial], results: Sequence[Result]) -> dict[str, Any]:
    """How the run ended; of folds, each of them besides."""
    each = [{"ended": r.reason, "message": r.message, "best_epoch": r.best_epoch} for r in results]
    if len(each) == 1:
        return each[0]
    worst = "diverged" if any(r.reason == "diverged" for r in results) else results[0].reason
    message = "; ".join(dict.fromkeys(r.message for r in results))
    folds = [{"fold": network.fold, **one} for network, one in zip(networks, each, strict=True)]
    return {"ended": worst, "message": message, "best_epoch": None, "folds": folds}


# -- how the weights of each layer lie --

HEADER = ("layer", "low", "high", "middle", "initial", "final")
MOST, FEWEST = 41, 11  # bins, as many as 2√n of n weights in between


def histograms(networks: Sequence[tuple[Trial, NDArray]]) -> Iterator[tuple[int, float, float, float, int, int]]:
    """A row a layer (from 1) and bin: its ends and middle, and how many weights lie in it, initial and final; without biases.

    Both share their bins, which are even; one has 0 as its middle, where L1 sends weights. Of folds, all weights together.
    """
    trial = networks[0][0]
    initial = np.concatenate([weights.initial([one]) for one, _ in networks])
    final = np.stack([flat for _, flat in networks])
    for layer in range(len(trial.layers)):
        first, last = (_of(trial, flat, layer) for flat in (initial, final))
        reach = max(float(np.abs(first).max()), float(np.abs(last).max())) or 1.0
        bins = int(np.clip(2 * math.isqrt(len(last) // len(final)) + 1, FEWEST, MOST))
        edges = np.linspace(-reach, reach, bins + 1)
        counts = [np.histogram(values, edges)[0].tolist() for values in (first, last)]
        middles = (edges[:-1] + edges[1:]) / 2
        for row in zip(edges[:-1].tolist(), edges[1:].tolist(), middles.tolist(), *counts, strict=True):
            yield (layer + 1, *row)


def _of(trial: Trial, flat: NDArray, layer: int) -> NDArray:
    """The weights of a layer, of flat (K, P)."""
    parts = [flat[:, s.start : s.stop] for s in weights.layout(trial) if s.layer == layer and s.penalised]
    return np.concatenate([part.ravel() for part in parts])


# -- where a run was computed: what its last bits depend on beside the spec, the data and the source --


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    found = re.search("^model name.*?:(.*)", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def instructions() -> str:
    """The newest vector instructions that NumPy finds here."""
    simd: Any = np.show_config(mode="dicts")
    found = simd["SIMD Extensions"]
    return str([*found.get("baseline", ()), *found.get("found", ())][-1])
