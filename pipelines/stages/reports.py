"""What a network says about the rows of one part, and how right it is: the work that validate and test share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data import Part
from pipelines.spec.blocks import HALF, Validation
from pipelines.stages import curves, metrics
from pipelines.stages.files import listed, replaced, write_csv, write_json, write_rows
from pipelines.stages.folds import over_folds
from pipelines.stages.metrics import Truth, choose_threshold
from pipelines.stages.networks import THRESHOLD, Network
from pipelines.stages.paths import RunPaths

NDArray = np.ndarray[Any, np.dtype[Any]]
CURVES = ("roc.csv", "pr.csv", "calibration.csv", "classes.csv")
BESIDE = ("baselines.json", THRESHOLD)
OUTS = ("about.json", "metrics.json", *BESIDE, "folds.csv", "predictions.csv", "confusion.csv", "residuals.csv", *CURVES)
PREDICTED = "the predicted class"  # whose probability calibration.csv is about, where there are several


@dataclass(frozen=True)
class Judged:
    """One part: its rows, what was said about them, and what they are judged by."""

    truth: Truth
    rows: NDArray
    outputs: NDArray
    X: NDArray
    fold: int | None = None


def measured(each: Sequence[Judged]) -> dict[str, float]:
    """Every metric, with the ends of its 95 % interval as NAME_low and NAME_high.

    Of folds means and sds (NAME_sd) and no intervals, since their networks share training rows.
    """
    found = over_folds([metrics.evaluate(one.truth, one.outputs) for one in each])
    bounds = metrics.intervals(each[0].truth, each[0].outputs) if len(each) == 1 else {}
    ends = {f"{name}_{end}": value for name, pair in bounds.items() for end, value in zip(("low", "high"), pair, strict=True)}
    return {**found, **ends}


def judge(network: Network, places: RunPaths, part: str) -> Judged:
    """Open the rows of one part, of a fold its own, and predict."""
    return judged(network, network.about.open(places.data, part))


def judged(network: Network, opened: Part) -> Judged:
    """Predict rows that are open."""
    truth = Truth.of(network.about, opened.y, network.threshold)
    return Judged(truth, opened.rows, network.outputs(opened.X), opened.X, network.about.number)


def decided(validation: Validation, each: Sequence[Judged]) -> list[Judged]:
    """With the threshold that is asked for, chosen on these rows, which validate; of folds one for all."""
    truth = replace(each[0].truth, y=np.concatenate([one.truth.y for one in each]))
    threshold = choose_threshold(validation, truth, np.concatenate([one.outputs for one in each]))
    return [replace(one, truth=replace(one.truth, threshold=threshold)) for one in each]


def write_report(
    folder: Path,
    networks: Sequence[Network],
    each: Sequence[Judged],
    found: dict[str, float],
    beside: dict[str, Any],
    **more: Any,
) -> None:
    """All outs of validate or test; about.json, which says whose report it is, comes last.

    Of folds the rows of one come after the other, and folds.csv has the metrics of each.
    """
    whose = {"model_hash": networks[0].sha256, "fingerprint": networks[0].run["fingerprint"], **more}
    with replaced(folder, OUTS) as fresh:
        write_json(fresh / "metrics.json", found)
        write_json(fresh / "baselines.json", beside)
        _write_tables(fresh, networks, each)
        write_json(fresh / "about.json", {**whose, "outs": listed(fresh, OUTS)})


def _write_tables(fresh: Path, networks: Sequence[Network], each: Sequence[Judged]) -> None:
    """What is said of each row, of each fold, and by which threshold."""
    if each[0].truth.task == "regression":
        _write_regression(fresh, each)
    else:
        _write_classes(fresh, each, networks[0].about.classes)
    if each[0].fold is not None:
        rows = [{"fold": one.fold, "rows": len(one.rows), **metrics.evaluate(one.truth, one.outputs)} for one in each]
        write_rows(fresh / "folds.csv", rows)
    if (threshold := each[0].truth.threshold) != HALF:
        write_json(fresh / THRESHOLD, {"model_hash": networks[0].sha256, "threshold": threshold})


def _numbered(each: Sequence[Judged]) -> tuple[list[str], list[list[Any]]]:
    """The first columns of a table of rows: the number of the fold, where there are folds, and that of the row."""
    header = ["row"] if each[0].fold is None else ["fold", "row"]
    return header, [[row] if one.fold is None else [one.fold, row] for one in each for row in one.rows.tolist()]


def _write_classes(folder: Path, each: Sequence[Judged], classes: Sequence[str]) -> None:
    first = each[0].truth
    outputs = np.concatenate([one.outputs for one in each])
    truth = replace(first, y=np.concatenate([one.truth.y for one in each]))
    P, predicted = metrics.probabilities(truth.task, outputs), truth.decide(outputs)
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
