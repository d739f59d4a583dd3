"""What a network says about the rows of one part, and how right it is: the work that validate and test share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends import weights
from backends.spec import Trial
from backends.tasks import predictions
from pipelines import metrics
from pipelines.data import About, Part
from pipelines.metrics import Truth
from pipelines.spec import Experiment
from pipelines.stages.files import read_json, remove, sha256, write_csv, write_json
from pipelines.stages.places import Places, StageError

NDArray = np.ndarray[Any, np.dtype[Any]]
OUTS = ("about.json", "metrics.json", "predictions.csv", "confusion.csv", "roc.csv", "residuals.csv")
ROWS_AT_ONCE = 65536  # bounds the memory of a forward pass


@dataclass(frozen=True)
class Network:
    """A trained network, with the data and the run that it comes from."""

    trial: Trial
    flat: NDArray
    sha256: str  # of its file
    about: About
    run: dict[str, Any]

    def outputs(self, X: NDArray) -> NDArray:
        """Before softmax or sigmoid, (n, O), by the reference: whatever trained it, no framework is needed to predict."""
        return predict(self.trial, self.flat, X)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns that `answers` gives."""
        about = self.about
        if about.classes:
            return ("predicted", *(f"p_{name}" for name in about.classes))
        return tuple(f"predicted_{name}" for name in about.targets)

    def answers(self, X: NDArray) -> dict[str, NDArray]:
        """Column -> (n,): what was predicted, as the data spell it; of classes their probabilities too, as p_CLASS."""
        about, outputs = self.about, self.outputs(X)
        if about.classes:
            p = predictions(about.task, outputs)
            P = np.stack([1 - p, p], axis=1) if p.ndim == 1 else p
            columns = [np.array(about.classes)[metrics.decide(about.task, outputs)], *P.T]
        else:
            columns = list(about.target_scale.undo(outputs).T)
        return dict(zip(self.names, columns, strict=True))


@dataclass(frozen=True)
class Judged:
    """One part: its rows, what was said about them, and what they are judged by."""

    truth: Truth
    rows: NDArray
    outputs: NDArray


def predict(trial: Trial, flat: NDArray, X: NDArray) -> NDArray:
    """Outputs of one network before softmax or sigmoid, (n, O), by the reference."""
    stack = backends.get("reference").stack([trial])
    stack.load({**stack.state(), "weights": flat[None]})
    blocks = [stack.predict(X[start : start + ROWS_AT_ONCE])[0] for start in range(0, len(X), ROWS_AT_ONCE)]
    return np.concatenate(blocks)


def load_network(experiment: Experiment, places: Places) -> Network:
    """The network that train wrote. Raises StageError if it is missing, or of other data or another spec than now."""
    about = About.load(places.need(places.about, "split"))
    run = read_json(places.need(places.run, "train"))
    trial, flat = weights.load(places.need(places.model, "train"))
    network = Network(trial, flat, sha256(places.model), about, run)
    _check_same(experiment, network, places)
    return network


def _check_same(experiment: Experiment, network: Network, places: Places) -> None:
    """The model in place must be that of this spec and these data."""
    about, run = network.about, network.run
    other = [part for part, digest in run["data_hashes"].items() if about.sha256[part] != digest]
    wanted = experiment.model_dump(mode="json", include={"seed", "model", "regularization", "train"})
    other += [f"{key} ({was}, now {now})" for key, was, now in _differences(run["spec"], wanted)]
    if network.sha256 != run["model_hash"]:
        other.append("model.safetensors")
    if other:
        raise StageError(
            f"{places.shown(places.trained)} is of another spec or other data than now: {', '.join(other[:5])}; "
            "run `deltarule train` or `dvc repro` first",
            exit_code=2,
        )


def _differences(was: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted path, was, now) of the values of `now` that differ. Devices and threads do not make another experiment."""
    if isinstance(now, dict) and isinstance(was, dict):
        for key in now:
            yield from _differences(was.get(key), now[key], f"{path}.{key}".lstrip("."))
    elif was != now and path not in ("train.devices", "train.threads"):
        yield path, was, now


def judge(network: Network, places: Places, part: str) -> Judged:
    """Open the rows of one part, and predict."""
    opened = Part.load(places.data / part)
    return Judged(Truth.of(network.about, opened.y), opened.rows, network.outputs(opened.X))


def write_report(folder: Path, network: Network, judged: Judged, found: dict[str, float], **more: Any) -> None:
    """All outs of validate or test; about.json, which says whose report it is, comes last."""
    remove(folder, OUTS)
    write_json(folder / "metrics.json", found)
    if judged.truth.task == "regression":
        _write_regression(folder, judged)
    else:
        _write_classes(folder, judged, network.about.classes)
    write_json(folder / "about.json", {"model_hash": network.sha256, "fingerprint": network.run["fingerprint"], **more})


def _write_classes(folder: Path, judged: Judged, classes: Sequence[str]) -> None:
    truth = judged.truth
    P, predicted = truth.probabilities(judged.outputs), metrics.decide(truth.task, judged.outputs)
    pairs = [(classes[a], classes[p]) for a, p in zip(truth.y.tolist(), predicted.tolist(), strict=True)]
    rows = zip(judged.rows.tolist(), pairs, P.tolist(), strict=True)
    header = ("row", "label", "predicted", *(f"p_{name}" for name in classes))
    write_csv(folder / "predictions.csv", header, ([row, *pair, *p] for row, pair, p in rows))
    write_csv(folder / "confusion.csv", ("actual", "predicted"), pairs)
    write_csv(folder / "roc.csv", ("class", "fpr", "tpr"), _roc(truth, P, classes))


def _roc(truth: Truth, P: NDArray, classes: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    """Of two classes the second's curve; of several, each one's against the rest."""
    for number, fpr, tpr in metrics.roc_curves(truth, P):
        yield from ((classes[number], x, y) for x, y in zip(fpr.tolist(), tpr.tolist(), strict=True))


def _write_regression(folder: Path, judged: Judged) -> None:
    truth = judged.truth
    y, predicted = truth.own.tolist(), truth.predicted(judged.outputs).tolist()
    rows = list(zip(judged.rows.tolist(), y, predicted, strict=True))
    header = ("row", *(f"label_{name}" for name in truth.names), *(f"predicted_{name}" for name in truth.names))
    write_csv(folder / "predictions.csv", header, ([row, *d, *p] for row, d, p in rows))
    residuals = (
        (row, name, d[place], p[place], d[place] - p[place]) for place, name in enumerate(truth.names) for row, d, p in rows
    )
    write_csv(folder / "residuals.csv", ("row", "target", "actual", "predicted", "residual"), residuals)
