"""The figures of a run: learning curves, gradient flow, weights, and how right its predictions are, by task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.report import predictions, style, training
from pipelines.report.outs import Outs, Texts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGES = ("train", "validate", "test")
ROWS = {"validate": "validation rows", "test": "test rows"}
# File of a report, and how it is drawn: from its columns, a title, and the table of the classes.
OF_REPORTS: dict[str, Callable[[Texts, str, Texts], Figure]] = {
    "confusion": lambda table, title, classes: predictions.confusion(table, title),
    "roc": predictions.roc,
    "pr": predictions.precision_recall,
    "calibration": lambda table, title, classes: predictions.calibration(table, title),
    "residuals": lambda table, title, classes: predictions.residuals(table, title),
}


def figures(folder: Path, stages: Sequence[str] = STAGES) -> dict[str, bytes]:
    """Name -> PNG, of what the outs of these stages in a run's folder hold. Same outs, same bytes.

    A report on another model than the one in place is not drawn.
    """
    outs = Outs(folder)
    wanted = [stage for stage in stages if stage in ("train", *outs.reports)]
    return {name: style.png(drawing) for stage in wanted for name, drawing in _of(outs, stage)}


def _of(outs: Outs, stage: str) -> Iterator[tuple[str, Figure]]:
    if stage == "train":
        yield from _training(outs)
        return
    title, classes = f"{outs.title('{} folds together')}, {ROWS[stage]}", outs.texts(f"{stage}/classes.csv")
    for name, draw in OF_REPORTS.items():
        if table := outs.texts(f"{stage}/{name}.csv"):
            yield f"{stage}_{name}", draw(table, title, classes)


def _training(outs: Outs) -> Iterator[tuple[str, Figure]]:
    title, best = outs.title("mean of {} folds"), outs.run["best_epoch"]
    if history := outs.table("train/history.csv"):  # else it diverged within the first epoch
        yield "learning_curves", training.learning_curves(history, title, best)
        yield "gradient_flow", training.gradient_flow(history, title)
        yield "gradient_profile", training.gradient_profile(history, title, best, outs.run["spec"]["model"]["activation"])
    if weights := outs.table("train/weights.csv"):
        yield "weights", training.weights(weights, outs.title("{} folds together"))
