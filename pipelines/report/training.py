"""Drawings of how a network was trained: losses, the error signal over epochs and depth, weights before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.report import style
from pipelines.report.outs import Table, numbered
from pipelines.report.pages import spelled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IN_UNITS = ("rmse", "mae")
LAYERS = 12  # panels of weights in a figure
SIGMOID = 0.25  # the most that σ' comes to


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
        for i, (name, colour) in enumerate(zip(names, style.series_colours(len(names)), strict=True)):
            _line(panel, history, name, spelled(name.removeprefix("val_")), colour, style.DASHES[i % 4])
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


def gradient_flow(history: Table, title: str) -> Figure:
    """Root mean square of δ per layer over the epochs, on a log scale; beside it how many units pass no error back."""
    layers = numbered(history, "delta_rms_")
    colours = style.series_colours(len(layers))
    drawing, panels = style.figure(title, 3, width=4.6)
    for panel, prefix in zip(panels, ("delta_rms_", "saturated_", "dead_"), strict=True):
        for number, (name, colour) in enumerate(zip(numbered(history, prefix), colours, strict=False), start=1):
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


def gradient_profile(history: Table, title: str, best_epoch: int | None, activation: str) -> Figure:
    """Root mean square of δ over the layers, from the first to the output's, at the end of the first, best and last epoch.

    For sigmoid also the line that falls to a quarter from layer to layer, as σ' ≤ 1/4 lets it at most where weights neither
    strengthen nor weaken the signal (docs/theory.md).
    """
    signal = np.stack([history[name] for name in numbered(history, "delta_rms_")], axis=1)
    depth = np.arange(1, signal.shape[1] + 1)
    drawing, (panel,) = style.figure(title, 1, width=max(5.6, 0.42 * len(depth) + 2), height=4.2)
    for (label, place), colour, marker in zip(_epochs(history, best_epoch), style.COLOURS, "osD", strict=False):
        panel.plot(depth, signal[place], color=colour, marker=marker, markersize=5, linewidth=1.6, label=label)
    if activation == "sigmoid":
        bound = signal[0, -1] * SIGMOID ** (depth[-1] - depth)
        panel.plot(depth, bound, color="#555555", linestyle=":", label="a quarter a layer: σ' ≤ 1/4, weights apart")
    if (np.nan_to_num(signal) > 0).any():
        panel.set_yscale("log")
    panel.set_xticks(depth.tolist(), [*map(str, depth[:-1].tolist()), "output"])
    style.label(panel, "Error signal δ by depth", "layer, from the inputs to the output", "root mean square of δ")
    panel.legend(fontsize=8)
    return drawing


def _epochs(history: Table, best_epoch: int | None) -> list[tuple[str, int]]:
    """(label, place in the history) of the first, the best and the last epoch, each epoch once."""
    epochs = history["epoch"].astype(int).tolist()
    roles: dict[int, list[str]] = {}
    for role, epoch in (("first", epochs[0]), ("best", best_epoch), ("last", epochs[-1])):
        if epoch is not None and epoch in epochs:
            roles.setdefault(epoch, []).append(role)
    return [(f"epoch {epoch} ({', '.join(role)})", epochs.index(epoch)) for epoch, role in roles.items()]


def weights(table: Table, title: str) -> Figure:
    """How the weights of each layer lie, before training and in the model; of many layers, some from the first to the last."""
    layers = np.unique(table["layer"]).astype(int)
    if len(layers) > LAYERS:
        title = f"{title}, {LAYERS} of {len(layers)} layers"
    shown = layers[np.unique(np.linspace(0, len(layers) - 1, min(LAYERS, len(layers))).round().astype(int))]
    columns = min(4, len(shown))
    drawing, panels = style.figure(title, columns, width=3.5, height=2.9, rows=-(-len(shown) // columns))
    for panel, layer in zip(panels, shown.tolist(), strict=False):
        bins = {name: cells[table["layer"] == layer] for name, cells in table.items()}
        edges = np.append(bins["low"], bins["high"][-1:])
        before, after = (counts / max(1.0, counts.sum()) for counts in (bins["initial"], bins["final"]))
        panel.stairs(after, edges, fill=True, color=style.SKY, label="in the model, at its best epoch")
        panel.stairs(before, edges, color=style.BLACK, linewidth=1.2, label="before training")
        panel.locator_params(axis="x", nbins=5)
        style.label(panel, "output layer" if layer == layers[-1] else f"hidden layer {layer}", "weight", "share of the weights")
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return drawing


def _line(panel: Axes, history: Table, name: str, label: str, colour: Any, dash: str) -> None:
    if name in history:
        epoch = history["epoch"]
        marker = "o" if len(epoch) == 1 else None  # a line of one point would not be seen
        panel.plot(epoch, history[name], color=colour, linestyle=dash, linewidth=1.6, label=label, marker=marker)
