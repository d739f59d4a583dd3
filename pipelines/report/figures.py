"""The figures of a run: learning curves, gradient flow, weights, and how right its predictions are, by task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.report import outs, predictions, style, training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.report.outs import Texts
    from pipelines.stages.places import Places

STAGES = ("train", "validate", "test")
ROWS = {"validate": "validation rows", "test": "test rows"}
# File of a report, by which it is drawn, and how.
OF_REPORTS: dict[str, Callable[[Texts, str, Texts | None], Figure]] = {
    "confusion": lambda table, title, classes: predictions.confusion(table, title),
    "roc": predictions.roc,
    "pr": predictions.precision_recall,
    "calibration": lambda table, title, classes: predictions.calibration(table, title),
    "residuals": lambda table, title, classes: predictions.residuals(table, title),
}


def figures(places: Places, stages: Sequence[str] = STAGES) -> dict[str, bytes]:
    """Name -> PNG, of what the outs of these stages hold. Same outs, same bytes.

    A report on another model than the one in place is not drawn.
    """
    there = ["train", *outs.reports(places)]
    wanted = [stage for stage in stages if stage in there]
    return {name: style.png(drawing) for stage in wanted for name, drawing in _of(places, stage)}


def _of(places: Places, stage: str) -> Iterator[tuple[str, Figure]]:
    if stage == "train":
        yield from _training(places)
    else:
        title = outs.title(places, "{} folds together")
        yield from _predictions(places.report(stage), stage, f"{title}, {ROWS[stage]}")


def _training(places: Places) -> Iterator[tuple[str, Figure]]:
    title = outs.title(places, "mean of {} folds")
    history = outs.over_folds(outs.read(places.history)) if places.history.is_file() else {}
    run = outs.read_json(places.run)
    if len(history.get("epoch", ())):  # else it diverged within the first
        yield "learning_curves", training.learning_curves(history, title, run["best_epoch"])
        yield "gradient_flow", training.gradient_flow(history, title)
        yield "gradient_profile", training.gradient_profile(history, title, run["best_epoch"], run["spec"]["model"]["activation"])
    if places.weights.is_file():
        yield "weights", training.weights(outs.read(places.weights), outs.title(places, "{} folds together"))


def _predictions(folder: Path, stage: str, title: str) -> Iterator[tuple[str, Figure]]:
    classes = folder / "classes.csv"
    known: Any = outs.read_text(classes) if classes.is_file() else None
    for name, draw in OF_REPORTS.items():
        if (folder / f"{name}.csv").is_file():
            yield f"{stage}_{name}", draw(outs.read_text(folder / f"{name}.csv"), title, known)
