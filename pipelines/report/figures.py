"""The figures of a run: learning curves, gradient flow, and how right its predictions are, by task."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.stages.places import Places

NDArray = np.ndarray[Any, np.dtype[Any]]
Table = dict[str, NDArray]
STAGES = ("train", "validate", "test")
ROWS = {"validate": "validation rows", "test": "test rows"}
NUMBERED = 20  # classes up to which a confusion matrix can carry its counts
IN_UNITS = ("rmse", "mae")
SPELLED = {"rmse": "RMSE", "mae": "MAE", "r2": "R²", "roc_auc": "ROC AUC", "pr_auc": "PR AUC", "macro_f1": "macro F1"}
CURVES = 7  # ROC curves in one panel that can still be told apart
TARGETS = 8  # rows of panels in a figure


def figures(places: Places, stages: Sequence[str] = STAGES) -> dict[str, bytes]:
    """Name -> PNG, of what the outs of these stages hold. Same outs, same bytes."""
    title = _title(places)
    drawn: dict[str, Figure] = {}
    for stage in stages:
        if stage == "train" and places.history.is_file():
            drawn.update(_training(places, title))
        elif stage in ROWS:
            drawn.update(_predictions(places.report(stage), stage, f"{title}, {ROWS[stage]}"))
    return {name: style.png(drawing) for name, drawing in drawn.items()}


def _training(places: Places, title: str) -> dict[str, Figure]:
    history = _over_folds(read(places.history))
    if not len(history["epoch"]):  # diverged within the first
        return {}
    best = _json(places.run)["best_epoch"]
    return {"learning_curves": learning_curves(history, title, best), "gradient_flow": gradient_flow(history, title)}


def _over_folds(history: Table) -> Table:
    """Epoch by epoch the mean over the folds that came so far; as it is, where there are none."""
    if "fold" not in history:
        return history
    epochs = np.unique(history["epoch"])
    names = [name for name in history if name != "fold"]
    return {name: np.array([np.mean(history[name][history["epoch"] == epoch]) for epoch in epochs]) for name in names}


def _predictions(folder: Path, stage: str, title: str) -> dict[str, Figure]:
    drawings = (("confusion", confusion), ("roc", roc), ("residuals", residuals))
    tables = {name: folder / f"{name}.csv" for name, _ in drawings}
    return {f"{stage}_{name}": draw(read_text(tables[name]), title) for name, draw in drawings if tables[name].is_file()}


def learning_curves(history: Table, title: str, best_epoch: int | None) -> Figure:
    """E on training and validation rows; λΩ apart, since only the training objective holds it; the validation metrics."""
    penalised = bool(np.nan_to_num(history["train_penalty"]).any())
    groups = _metric_groups(history)
    drawing, panels = style.figure(title, 1 + penalised + len(groups))
    _line(panels[0], history, "train_loss", "training E, as trained", style.BLUE, "-")
    _line(panels[0], history, "val_loss", "validation E", style.VERMILION, "--")
    style.label(panels[0], "Loss without penalty", "epoch", "E, mean over rows")
    if penalised:
        _line(panels[1], history, "train_penalty", "λΩ", style.GREEN, "-")
        style.label(panels[1], "Penalty", "epoch", "λΩ, mean over the epoch")
    for panel, (unit, names) in zip(panels[1 + penalised :], groups.items(), strict=True):
        _metrics(panel, history, names)
        style.label(panel, "Metrics on validation rows", "epoch", unit)
    for panel in panels:
        style.epochs(panel)
        if best_epoch is not None:
            panel.axvline(best_epoch, color="#555555", linewidth=1, linestyle=":", label=f"best epoch: {best_epoch}")
        panel.legend(fontsize=8)
    return drawing


def _metric_groups(history: Table) -> dict[str, list[str]]:
    """Axis -> the validation metrics that share it: those in the target's units cannot stand beside shares.

    Of several targets, only the mean over them ("rmse", not "rmse.NAME"): the others would hide it.
    """
    groups: dict[str, list[str]] = {}
    for column in history:
        metric = column.removeprefix("val_")
        if column.startswith("val_") and metric != "loss" and "." not in metric and np.isfinite(history[column]).any():
            groups.setdefault("in the target's units" if metric in IN_UNITS else "value", []).append(column)
    return groups


def _metrics(panel: Axes, history: Table, names: Sequence[str]) -> None:
    for i, (name, colour) in enumerate(zip(names, style.series_colours(len(names)), strict=True)):
        metric = name.removeprefix("val_")
        _line(panel, history, name, SPELLED.get(metric, metric.replace("_", " ")), colour, style.DASHES[i % 4])


def gradient_flow(history: Table, title: str) -> Figure:
    """Root mean square of δ per layer over the epochs, on a log scale; beside it how many units pass no error back."""
    layers = _numbered(history, "delta_rms_")
    colours = style.series_colours(len(layers))
    drawing, panels = style.figure(title, 3, width=4.6)
    for panel, prefix in zip(panels, ("delta_rms_", "saturated_", "dead_"), strict=True):
        for number, (name, colour) in enumerate(zip(_numbered(history, prefix), colours, strict=False), start=1):
            _line(panel, history, name, "output layer" if number == len(layers) else f"hidden layer {number}", colour, "-")
        style.epochs(panel)
    if any((np.nan_to_num(history[name]) > 0).any() for name in layers):
        panels[0].set_yscale("log")
    for panel in panels[1:]:
        panel.set_ylim(-0.03, 1.03)
    style.label(panels[0], "Error signal δ", "epoch", "root mean square of δ")
    style.label(panels[1], "Saturated: |φ'| < 5 % of its maximum", "epoch", "share of rows × units")
    style.label(panels[2], "Dead: φ' = 0 on all rows", "epoch", "share of units")
    drawing.legend(handles=panels[0].get_lines(), loc="outside right center", fontsize=8)
    return drawing


def confusion(table: dict[str, list[str]], title: str) -> Figure:
    """Counts of actual class (rows) by predicted class; shade: share of the actual class."""
    actual, predicted = table["actual"], table["predicted"]
    names = _sorted({*actual, *predicted})
    place = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, ([place[a] for a in actual], [place[p] for p in predicted]), 1)
    size = min(12.0, max(4.6, 0.5 * len(names) + 2.2))
    drawing, (panel,) = style.figure(f"{title}\n{np.trace(counts)} of {counts.sum()} right", 1, width=size + 0.8, height=size)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    image = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    drawing.colorbar(image, ax=panel, label="share of the actual class", shrink=0.8)
    _matrix_labels(panel, names, counts, shares)
    return drawing


def _matrix_labels(panel: Axes, names: Sequence[str], counts: NDArray, shares: NDArray) -> None:
    panel.grid(False)
    ticks = range(0, len(names), max(1, len(names) // 40))
    shown = [names[i] if len(names[i]) <= 18 else names[i][:17] + "…" for i in ticks]
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, shown)) > 3 else {}
    panel.set_xticks(list(ticks), shown, **turned)
    panel.set_yticks(list(ticks), shown)
    style.label(panel, "", "predicted class", "actual class")
    for row, column in np.argwhere(counts) if len(names) <= NUMBERED else ():
        colour = "white" if shares[row, column] > 0.55 else "black"
        panel.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=9)


def roc(table: dict[str, list[str]], title: str) -> Figure:
    """True against false positive rate, one curve a class; of many classes, those that are told apart worst."""
    curves = {name: (_floats(rows["fpr"]), _floats(rows["tpr"])) for name, rows in _groups(table, "class")}
    areas = {name: float(np.trapezoid(tpr, fpr)) for name, (fpr, tpr) in curves.items()}
    shown = sorted(areas, key=lambda name: areas[name])[:CURVES]
    drawing, (panel,) = style.figure(title, 1, width=5.6, height=5.0)
    for i, (name, colour) in enumerate(zip(shown, style.series_colours(len(shown)), strict=True)):
        panel.plot(*curves[name], color=colour, linestyle=style.DASHES[i % 4], label=f"{name}: area {areas[name]:.3f}")
    panel.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, label="by chance: area 0.5")
    kept = f"the {CURVES} worst of {len(curves)} classes" if len(curves) > CURVES else "one class against the rest"
    style.label(panel, f"ROC, {kept}" if len(curves) > 1 else "ROC", "false positive rate", "true positive rate")
    panel.set_aspect("equal")
    panel.legend(fontsize=8, loc="lower right")
    return drawing


def residuals(table: dict[str, list[str]], title: str) -> Figure:
    """Predicted against true, and what is left over, for each target; of many targets, the first."""
    everything = list(_groups(table, "target"))
    groups = everything[:TARGETS]
    if len(everything) > TARGETS:
        title = f"{title}, the first {TARGETS} of {len(everything)} targets"
    drawing, panels = style.figure(title, 2, height=4.2, rows=len(groups))
    for (name, rows), (against, left) in zip(groups, zip(panels[::2], panels[1::2], strict=True), strict=True):
        actual, predicted = _floats(rows["actual"]), _floats(rows["predicted"])
        label = f" ({name})" if name else ""
        _against(against, actual, predicted)
        style.label(against, f"Predicted against true{label}", "true", "predicted")
        left.scatter(predicted, actual - predicted, s=14, alpha=0.6, color=style.VERMILION, linewidths=0)
        left.axhline(0, color="black", linewidth=0.8)
        style.label(left, f"Residuals{label}", "predicted", "true − predicted")
    return drawing


def _against(panel: Axes, actual: NDArray, predicted: NDArray) -> None:
    panel.scatter(actual, predicted, s=14, alpha=0.6, color=style.BLUE, linewidths=0)
    both = np.concatenate([actual, predicted])
    ends = (np.nanmin(both), np.nanmax(both)) if np.isfinite(both).any() else (0.0, 1.0)
    panel.plot(ends, ends, color="black", linewidth=0.8, label="predicted = true")
    panel.legend(fontsize=8)


def _line(panel: Axes, history: Table, name: str, label: str, colour: Any, dash: str) -> None:
    if name in history:
        epoch = history["epoch"]
        marker = "o" if len(epoch) == 1 else None  # a line of one point would not be seen
        panel.plot(epoch, history[name], color=colour, linestyle=dash, linewidth=1.6, label=label, marker=marker)


# Reading ---------------------------------------------------------------------------------------------------------------


def read_text(path: Path) -> dict[str, list[str]]:
    """Column -> its cells, of a CSV with a header."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        cells = list(rows)
    return {name: [row[i] for row in cells] for i, name in enumerate(header)}


def read(path: Path) -> Table:
    """Column -> its numbers."""
    return {name: _floats(cells) for name, cells in read_text(path).items()}


def _floats(cells: Sequence[str]) -> NDArray:
    return np.array([float(cell) if cell else np.nan for cell in cells])


def _groups(table: dict[str, list[str]], by: str) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """(name, its rows) of each value of a column, in order; all rows under "" if there is no such column."""
    names = table.get(by)
    if names is None:
        yield "", table
        return
    for name in dict.fromkeys(names):
        yield name, {k: [cell for cell, of in zip(cells, names, strict=True) if of == name] for k, cells in table.items()}


def _numbered(history: Table, prefix: str) -> list[str]:
    """The columns of one kind, by layer."""
    return sorted((name for name in history if name.startswith(prefix)), key=lambda name: int(name[len(prefix) :]))


def _sorted(names: set[str]) -> list[str]:
    """Class names in order; numbers by their value."""
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)


def _title(places: Places) -> str:
    run, source = _json(places.run), Path(_json(places.about)["source"]).stem
    return f"{source}, {run['spec']['model']['activation']}, {run['backend']}, run {run['fingerprint'][:4]}"


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
