"""What a network says about the rows of one part, and how right it is: the work that validate and test share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends import weights
from backends.spec import Trial
from pipelines import curves, metrics
from pipelines.data import About
from pipelines.metrics import Truth
from pipelines.spec import Experiment
from pipelines.stages.files import read_json, remove, sha256, write_csv, write_json
from pipelines.stages.folds import about_of, over_folds
from pipelines.stages.places import Places, StageError
from pipelines.stages.rows import differences, split_rows

NDArray = np.ndarray[Any, np.dtype[Any]]
CURVES = ("roc.csv", "pr.csv", "calibration.csv", "classes.csv")
OUTS = ("about.json", "metrics.json", "folds.csv", "predictions.csv", "confusion.csv", "residuals.csv", *CURVES)
PREDICTED = "the predicted class"  # whose probability calibration.csv is about, where there are several
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


@dataclass(frozen=True)
class Judged:
    """One part: its rows, what was said about them, and what they are judged by."""

    truth: Truth
    rows: NDArray
    outputs: NDArray
    fold: int | None = None


def measured(each: Sequence[Judged]) -> dict[str, float]:
    """Every metric, with the ends of its 95 % interval as NAME_low and NAME_high.

    Of folds means and sds (NAME_sd) and no intervals, since their networks share training rows.
    """
    found = over_folds([metrics.evaluate(one.truth, one.outputs) for one in each])
    bounds = metrics.intervals(each[0].truth, each[0].outputs) if len(each) == 1 else {}
    ends = {f"{name}_{end}": value for name, pair in bounds.items() for end, value in zip(("low", "high"), pair, strict=True)}
    return {**found, **ends}


def predict(trial: Trial, flat: NDArray, X: NDArray) -> NDArray:
    """Outputs of one network before softmax or sigmoid, (n, O), by the reference."""
    stack = backends.get("reference").stack([trial])
    stack.load({**stack.state(), "weights": flat[None]})
    blocks = [stack.predict(X[start : start + ROWS_AT_ONCE])[0] for start in range(0, len(X), ROWS_AT_ONCE)]
    return np.concatenate(blocks)


def load_networks(experiment: Experiment, places: Places) -> list[Network]:
    """The network that train wrote, or that of each fold. StageError if missing, or of other data or another spec than now."""
    about = split_rows(experiment, places)
    run = read_json(places.need(places.run, "train"))
    found, digest = weights.load_all(places.need(places.model, "train")), sha256(places.model)
    _check_same(experiment, about, run, digest, places)
    return [Network(trial, flat, digest, about_of(about, trial.fold), run) for trial, flat in found]


def load_network(experiment: Experiment, places: Places) -> Network:
    """The one network that train wrote. Raises StageError as `load_networks` does, and where there is one a fold."""
    networks = load_networks(experiment, places)
    if len(networks) > 1:
        raise StageError(f"{places.shown(places.model)} holds a network a fold ({len(networks)}); this takes one", exit_code=2)
    return networks[0]


def _check_same(experiment: Experiment, about: About, run: dict[str, Any], digest: str, places: Places) -> None:
    """The model in place must be that of this spec and these data."""
    other = [part for part, known in run["data_hashes"].items() if about.sha256[part] != known]
    wanted = experiment.model_dump(mode="json", include={"seed", "model", "regularization", "train"})
    other += differences({key: run["spec"].get(key) for key in wanted}, wanted)
    if digest != run["model_hash"]:
        other.append("model.safetensors")
    if other:
        raise StageError(
            f"{places.shown(places.trained)} is of another spec or other data than now: {', '.join(other[:5])}; "
            "run `deltarule train` or `dvc repro` first",
            exit_code=2,
        )


def judge(network: Network, places: Places, part: str) -> Judged:
    """Open the rows of one part, of a fold its own, and predict."""
    opened = network.about.open(places.data, part)
    truth = Truth.of(network.about, opened.y)
    return Judged(truth, opened.rows, network.outputs(opened.X), network.about.number)


def write_report(folder: Path, networks: Sequence[Network], each: Sequence[Judged], found: dict[str, float], **more: Any) -> None:
    """All outs of validate or test; about.json, which says whose report it is, comes last.

    Of folds, `each` are what their networks say of the part: the rows of one after the other, with the number of the fold, and
    folds.csv has the metrics of each. Confusion, curves and classes are of all these rows together.
    """
    remove(folder, OUTS)
    write_json(folder / "metrics.json", found)
    if each[0].truth.task == "regression":
        _write_regression(folder, each)
    else:
        _write_classes(folder, each, networks[0].about.classes)
    if each[0].fold is not None:
        _write_folds(folder, each)
    one = networks[0]
    write_json(folder / "about.json", {"model_hash": one.sha256, "fingerprint": one.run["fingerprint"], **more})


def _write_folds(folder: Path, each: Sequence[Judged]) -> None:
    """A row a fold: how many rows were judged, and their metrics."""
    rows = [{"fold": one.fold, "rows": len(one.rows), **metrics.evaluate(one.truth, one.outputs)} for one in each]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(folder / "folds.csv", columns, ([row.get(name, "") for name in columns] for row in rows))


def _numbered(each: Sequence[Judged]) -> tuple[list[str], list[list[Any]]]:
    """The first columns of a table of rows: the number of the fold, where there are folds, and that of the row."""
    header = ["row"] if each[0].fold is None else ["fold", "row"]
    return header, [[row] if one.fold is None else [one.fold, row] for one in each for row in one.rows.tolist()]


def _write_classes(folder: Path, each: Sequence[Judged], classes: Sequence[str]) -> None:
    first = each[0].truth
    outputs = np.concatenate([one.outputs for one in each])
    truth = replace(first, y=np.concatenate([one.truth.y for one in each]))
    P, predicted = truth.probabilities(outputs), metrics.decide(truth.task, outputs)
    pairs = [(classes[a], classes[p]) for a, p in zip(truth.y.tolist(), predicted.tolist(), strict=True)]
    numbered, heads = _numbered(each)
    header = (*numbered, "label", "predicted", *(f"p_{name}" for name in classes))
    rows = zip(heads, pairs, P.tolist(), strict=True)
    write_csv(folder / "predictions.csv", header, ([*head, *pair, *p] for head, pair, p in rows))
    write_csv(folder / "confusion.csv", ("actual", "predicted"), pairs)
    judged = np.concatenate([one.rows for one in each])
    _write_curves(folder, truth, P, outputs, classes, once=len(np.unique(judged)) == len(judged))


def _write_curves(folder: Path, truth: Truth, P: NDArray, outputs: NDArray, classes: Sequence[str], once: bool) -> None:
    """Of two classes the second's curves; of several, each one's against the rest. Calibration as `curves` has it.

    `once`: no row stands for several networks, which would make intervals too narrow.
    """
    write_csv(folder / "roc.csv", ("class", "fpr", "tpr"), _points(curves.roc_curves(truth, P), classes))
    write_csv(folder / "pr.csv", ("class", "recall", "precision"), _points(curves.pr_curves(truth, P), classes))
    of = classes[1] if truth.task == "binary" else PREDICTED
    bins = ((of, *one) for one in curves.calibration(truth, P, outputs, once))
    write_csv(folder / "calibration.csv", ("probability_of", *curves.Bin._fields), bins)
    each = zip(classes, curves.by_class(truth, P, outputs), strict=True)
    write_csv(folder / "classes.csv", ("class", *curves.OfClass._fields), ((name, *one) for name, one in each))


def _points(found: Iterable[tuple[int, NDArray, NDArray]], classes: Sequence[str]) -> Iterator[tuple[str, float, float]]:
    for number, xs, ys in found:
        yield from ((classes[number], x, y) for x, y in zip(xs.tolist(), ys.tolist(), strict=True))


def _write_regression(folder: Path, each: Sequence[Judged]) -> None:
    names = each[0].truth.names
    y, predicted = (  # in the targets' own units: each fold has a scale of its own
        [row for part in parts for row in part.tolist()]
        for parts in ([one.truth.own for one in each], [one.truth.predicted(one.outputs) for one in each])
    )
    numbered, heads = _numbered(each)
    rows = list(zip(heads, y, predicted, strict=True))
    header = (*numbered, *(f"label_{name}" for name in names), *(f"predicted_{name}" for name in names))
    write_csv(folder / "predictions.csv", header, ([*head, *d, *p] for head, d, p in rows))
    residuals = (
        (*head, name, d[place], p[place], d[place] - p[place]) for place, name in enumerate(names) for head, d, p in rows
    )
    write_csv(folder / "residuals.csv", (*numbered, "target", "actual", "predicted", "residual"), residuals)
