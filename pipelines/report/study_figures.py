"""The figures of a study: what was tried, what came of it, and which keys mattered. The numbers stand beside them as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.report import style
from pipelines.report.study_axes import Axis, axes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipelines.search.records import StudyRecord, TrialRecord

NDArray = np.ndarray[Any, np.dtype[Any]]
FEWEST = 8  # trials below which a surface would be an invention
BANDWIDTH = 0.1  # of the kernel that smooths the surface, in units of an axis
GRID = 60
AXES, SLICES = 7, 12  # of the greatest importance; more could not be read
LABELLED = 12  # points of a Pareto front that can carry their number
GREY = "#8a8a8a"
STATES = {"COMPLETE": "completed", "PRUNED": "pruned, best so far", "FAIL": "failed"}


def study_figures(record: StudyRecord, importances: Mapping[str, float]) -> dict[str, bytes]:
    """Name -> PNG. Same study, same bytes. Absent is what there is nothing to draw for.

    `importances` as pipelines.search.importance makes them; they choose which keys come first. {} is as good as any.
    """
    if not record.trials:
        return {}
    axes = _by_importance(axes_of(record), importances)
    drawn = {"history": history(record)}
    if any(trial.values for trial in record.trials) and axes:
        drawn |= {"parallel": parallel(record, axes), "slice": slices(record, axes)}
        pair = contour_pair(axes)
        drawn |= {"contour": contour(record, *pair)} if pair else {}
    if importances:
        drawn["importances"] = importance_bars(record, importances)
    if len(record.metrics) > 1 and record.front:
        drawn["pareto"] = pareto(record)
    return {name: style.png(drawing) for name, drawing in drawn.items()}


def study_numbers(record: StudyRecord, importances: Mapping[str, float]) -> dict[str, bytes]:
    """File name -> what the figures show, as numbers: history.csv and importances.json."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["number", "state", *record.metrics, *(f"best_{metric}" for metric in record.metrics)])
    best = [best_so_far(record, place) for place in range(len(record.metrics))]
    for i, trial in enumerate(record.trials):
        cells = [*(trial.values or [""] * len(record.metrics)), *("" if np.isnan(b[i]) else b[i] for b in best)]
        table.writerow([trial.number, trial.state, *cells])
    shares = json.dumps(dict(importances), indent=2) + "\n"
    return {"history.csv": buffer.getvalue().encode(), "importances.json": shares.encode()}


# -- values ---------------------------------------------------------------------------------------------------------------


def values_of(record: StudyRecord, place: int) -> NDArray:
    """(trials,) of one metric. A pruned trial has none; its best so far is taken from its history. NaN where there is none."""
    metric, sign = record.metrics[place], _sign(record, place)
    return np.array([_value(trial, metric, place, sign) for trial in record.trials])


def _value(trial: TrialRecord, metric: str, place: int, sign: int) -> float:
    if trial.state == "COMPLETE":
        value = trial.values[place]
        return value if math.isfinite(value) else math.nan
    if trial.state != "PRUNED":
        return math.nan
    if metric == "weights":
        return float(trial.weights)
    seen = [row[f"val_{metric}"] for row in trial.history if math.isfinite(row.get(f"val_{metric}", math.nan))]
    return sign * min(sign * value for value in seen) if seen else math.nan


def best_so_far(record: StudyRecord, place: int) -> NDArray:
    """(trials,) the best value among the completed trials up to each; NaN before the first."""
    sign = _sign(record, place)
    values = np.where(_state(record, "COMPLETE"), values_of(record, place), math.nan)
    return sign * np.fmin.accumulate(sign * values)


def _sign(record: StudyRecord, place: int) -> int:
    return 1 if record.directions[place] == "minimize" else -1


def _state(record: StudyRecord, state: str) -> NDArray:
    return np.array([trial.state == state for trial in record.trials])


def _numbers(record: StudyRecord) -> NDArray:
    return np.array([trial.number for trial in record.trials])


def _size(record: StudyRecord) -> float:
    """Of a marker, so that a thousand can still be told apart."""
    return float(np.clip(900 / len(record.trials), 7, 34))


def _title(record: StudyRecord) -> str:
    counts = ", ".join(f"{n} {state.lower()}" for state, n in record.counts().items())
    return f"Study {record.name}: {counts}"


def _name(record: StudyRecord, place: int) -> str:
    metric = record.metrics[place]
    return (
        f"{metric} ({record.directions[place]}d)" if metric == "weights" else f"validation {metric} ({record.directions[place]}d)"
    )


def _scale(panel: Axes, side: str, values: NDArray) -> None:
    """By decades where values of several sizes would else be one flat line."""
    there = values[np.isfinite(values)]
    if len(there) and there.min() > 0 and there.max() / there.min() > 15:
        getattr(panel, f"set_{side}scale")("log")


# -- figures --------------------------------------------------------------------------------------------------------------


def history(record: StudyRecord) -> Figure:
    """Values by the number of the trial, and the best so far; a panel a metric."""
    drawing, panels = style.figure(
        _title(record), len(record.metrics), width=8.0 if len(record.metrics) == 1 else 6.0, height=4.2
    )
    for place, panel in enumerate(panels):
        numbers, values = _numbers(record), values_of(record, place)
        _scale(panel, "y", values)
        _points(panel, record, numbers, values)
        panel.step(numbers, best_so_far(record, place), where="post", color=style.BLACK, linewidth=1.6, label="best so far")
        if record.best is not None:
            at = int(np.flatnonzero(numbers == record.best)[0])
            panel.scatter(
                numbers[at], values[at], 150, marker="*", color=style.GREEN, zorder=5, label=f"best: trial {record.best}"
            )
        style.label(panel, "", "trial", _name(record, place))
        style.epochs(panel)
        columns = 5 if len(panels) == 1 else 3
        panel.legend(fontsize=8, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return drawing


def _points(panel: Axes, record: StudyRecord, x: NDArray, values: NDArray) -> None:
    """Completed as dots, pruned as rings, failed as crosses at the lower edge, for they have no value."""
    size = _size(record)
    done, pruned, failed = (_state(record, state) for state in STATES)
    panel.scatter(x[done], values[done], size, color=style.BLUE, alpha=0.75, linewidths=0, label=STATES["COMPLETE"], zorder=3)
    if pruned.any():
        panel.scatter(
            x[pruned], values[pruned], size, facecolors="none", edgecolors=style.ORANGE, label=STATES["PRUNED"], zorder=2
        )
    if failed.any():
        edge = np.full(failed.sum(), 0.02)
        panel.scatter(
            x[failed], edge, size, marker="x", color=style.VERMILION, label=STATES["FAIL"], transform=panel.get_xaxis_transform()
        )


def parallel(record: StudyRecord, axes: Sequence[Axis]) -> Figure:
    """Each completed trial a line through its values; the darker, the better. A key that was not drawn stands at the foot."""
    shown = axes[:AXES]
    left = f"; the {AXES} of {len(axes)} keys that matter most" if len(axes) > AXES else ""
    count = len(shown) + len(record.metrics)
    drawing, (panel,) = style.figure(_title(record) + left, 1, width=max(7.0, 1.7 * count + 1.5), height=4.8)
    values = values_of(record, 0)
    done = _state(record, "COMPLETE") & np.isfinite(values)
    sides = [_side(axis) for axis in shown] + [_metric_side(record, place, done) for place in range(len(record.metrics))]
    table = np.stack([heights for heights, _, _ in sides], axis=1)
    _threads(drawing, panel, record, table, values, done)
    for i, (_, ticks, label) in enumerate(sides):
        panel.axvline(i, color="#444444", linewidth=1)
        panel.text(i, 1.08, label, ha="center", va="bottom", fontsize=9)
        for height, text in ticks:
            panel.text(
                i + 0.03,
                height,
                text,
                fontsize=7.5,
                va="center",
                zorder=6,
                bbox={"facecolor": "white", "alpha": 0.85, "pad": 0.6, "lw": 0},
            )
    panel.set(xlim=(-0.15, count - 0.6), ylim=(-0.13, 1.06), xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    panel.grid(False)
    return drawing


Side = tuple[NDArray, list[tuple[float, str]], str]


def _side(axis: Axis) -> Side:
    """Heights of the trials on one upright axis, its ticks, its label. Several trials of one name are fanned out a little."""
    heights, span = axis.unit(), axis.high - axis.low
    if not axis.numeric:
        heights = heights + _fan(len(heights)) * 0.5 / span
    ticks = [((place - axis.low) / span, text) for place, text in axis.ticks]
    absent = np.isnan(heights)
    if absent.any():
        ticks.append((-0.1, "not drawn"))
    return np.where(absent, -0.1, heights), ticks, axis.label


def _metric_side(record: StudyRecord, place: int, done: NDArray) -> Side:
    values = values_of(record, place)
    low, high = (values[done].min(), values[done].max()) if done.any() else (0.0, 1.0)
    log = low > 0 and high / low > 15
    low, high, values = (np.log10(low), np.log10(high), np.log10(values)) if log else (low, high, values)
    span = (high - low) or 1.0
    ticks = [(i / 4, f"{10 ** (low + span * i / 4) if log else low + span * i / 4:.3g}") for i in range(5)]
    return (values - low) / span, ticks, record.metrics[place]


def _fan(count: int) -> NDArray:
    """Numbers in (-0.5, 0.5), spread evenly however many: multiples of the golden ratio."""
    return (np.arange(count) * 0.6180339887) % 1 - 0.5


def _threads(drawing: Figure, panel: Axes, record: StudyRecord, table: NDArray, values: NDArray, done: NDArray) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    sign = _sign(record, 0)
    order = np.flatnonzero(done)[np.argsort(-sign * values[done], kind="stable")]  # the best last, so on top
    low, high = np.quantile(sign * values[done], [0, 0.75])  # the worst quarter shares the palest colour
    norm, colours = Normalize(low, high if high > low else low + 1, clip=True), colormaps["cividis"]
    x = np.arange(table.shape[1])
    lines = [np.column_stack([x, table[i]]) for i in order]
    width = float(np.clip(90 / max(1, len(order)), 0.5, 1.6))
    widths = np.where(np.arange(len(order)) >= 0.9 * len(order), 2 * width, width)
    shade = [colours(norm(sign * values[i])) for i in order]
    panel.add_collection(LineCollection(lines, colors=shade, linewidths=widths, alpha=0.7))
    bar = drawing.colorbar(ScalarMappable(norm, colours), ax=panel, label=_name(record, 0), shrink=0.8, extend="max", pad=0.01)
    bar.ax.yaxis.set_major_formatter(lambda height, _: f"{sign * height:.3g}")


def slices(record: StudyRecord, axes: Sequence[Axis]) -> Figure:
    """The first metric against each key; the darker, the later the trial."""
    shown = axes[:SLICES]
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    left = f"; the {SLICES} of {len(axes)} keys that matter most" if len(axes) > SLICES else ""
    rings = "; rings: pruned, best so far" if _state(record, "PRUNED").any() else ""
    drawing, panels = style.figure(_title(record) + left + rings, columns, width=max(3.4, 6.4 / columns), height=3.2, rows=lines)
    values = values_of(record, 0)
    for axis, panel in zip(shown, panels, strict=False):
        _slice(panel, record, axis, values)
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    _trial_bar(drawing, panels, int(_numbers(record).max()))
    return drawing


def _trial_bar(drawing: Figure, panels: Sequence[Axes], last: int) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    scale, whole = ScalarMappable(Normalize(0, max(1, last)), "cividis_r"), MaxNLocator(integer=True)
    drawing.colorbar(scale, ax=panels, label="trial", aspect=30, pad=0.01, ticks=whole)


def _slice(panel: Axes, record: StudyRecord, axis: Axis, values: NDArray) -> None:
    done, pruned = _state(record, "COMPLETE"), _state(record, "PRUNED")
    x = axis.places if axis.numeric else axis.places + 0.6 * _fan(len(axis.places))
    size, numbers = _size(record), _numbers(record)
    _scale(panel, "y", values[done])
    panel.scatter(x[pruned], values[pruned], 0.6 * size, facecolors="none", edgecolors=GREY, linewidths=0.7)
    panel.scatter(
        x[done], values[done], size, c=numbers[done], cmap="cividis_r", vmin=0, vmax=max(1, numbers.max()), linewidths=0
    )
    panel.set_xlim(axis.low, axis.high)
    axis.on(panel.xaxis)
    absent = int(np.isnan(axis.places).sum())
    style.label(panel, f"not drawn in {absent} trials" if absent else "", axis.label, record.metrics[0])
    if not axis.numeric and max(len(text) for _, text in axis.ticks) * len(axis.ticks) > 26:
        panel.tick_params(axis="x", labelrotation=30)


def importance_bars(record: StudyRecord, importances: Mapping[str, float]) -> Figure:
    """The share of the variance of the first metric that each key accounts for alone, the greatest at the top."""
    names = sorted(importances, key=lambda name: (importances[name], name))
    drawing, (panel,) = style.figure(_title(record), 1, width=7.0, height=max(2.4, 0.34 * len(names) + 1.4))
    shares = [importances[name] for name in names]
    labels = [f"{name[:-3]}: off or on" if name.endswith(" or") else name for name in names]
    panel.barh(labels, shares, color=style.BLUE, height=0.65)
    for i, share in enumerate(shares):
        panel.text(share + 0.008, i, f"{share:.2f}" if share >= 0.005 else "< 0.01", va="center", fontsize=8)
    panel.set_xlim(0, min(1.08, max(shares) * 1.15 + 0.02))
    style.label(panel, f"Importance for {_name(record, 0)}", "share of the variance (fANOVA)", "")
    panel.grid(False, axis="y")
    return drawing


def contour_pair(axes: Sequence[Axis]) -> tuple[Axis, Axis] | None:
    """A penalty and a dropout if both were searched, else the two numbers that matter most; None if there are not two."""
    numbers = [axis for axis in axes if axis.numeric]
    penalty = next((axis for axis in numbers if axis.path.startswith("regularization.")), None)
    dropout = next((axis for axis in numbers if "dropout" in axis.path), None)
    if penalty and dropout:
        return penalty, dropout
    return (numbers[0], numbers[1]) if len(numbers) > 1 else None


def contour(record: StudyRecord, across: Axis, up: Axis) -> Figure:
    """The first metric over two keys: completed trials as dots, and between them a smoothed surface where there are enough."""
    values = values_of(record, 0)
    used = _state(record, "COMPLETE") & np.isfinite(values) & across.inside & up.inside
    drawing, (panel,) = style.figure(_title(record), 1, width=6.8, height=5.0)
    enough = used.sum() >= FEWEST
    if enough:
        low, high = np.quantile(values[used], [0, 0.9] if _sign(record, 0) > 0 else [0.1, 1])
        levels = np.linspace(low, high if high > low else low + 1, 13)
        colours: dict[str, Any] = {"cmap": "cividis", "vmin": levels[0], "vmax": levels[-1]}
        surface = panel.contourf(*_surface(across, up, values, used), levels=levels, extend="both", alpha=0.85, **colours)
        drawing.colorbar(surface, ax=panel, label=_name(record, 0), format="%.3g")
        panel.scatter(across.places[used], up.places[used], 22, c=values[used], edgecolors="white", linewidths=0.7, **colours)
        told = "Smoothed between the trials; blank where none is near"
    else:
        panel.scatter(across.places[used], up.places[used], 26, color=style.BLUE)
        told = f"No surface: {FEWEST} completed trials with both drawn are needed, there are {used.sum()}"
    if record.best is not None and used[at := int(np.flatnonzero(_numbers(record) == record.best)[0])]:
        panel.scatter(
            across.places[at], up.places[at], 190, marker="*", color=style.VERMILION, edgecolors="white", label="best trial"
        )
        panel.legend(fontsize=8)
    style.label(panel, told, across.label, up.label)
    for axis, side, limit in ((across, panel.xaxis, panel.set_xlim), (up, panel.yaxis, panel.set_ylim)):
        axis.on(side)
        limit(axis.begins, axis.high)
    return drawing


def _surface(across: Axis, up: Axis, values: NDArray, used: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """A kernel's mean of the values on a grid (Nadaraya 1964, Watson 1964); masked where hardly a trial is near."""
    x, y = (np.linspace(axis.begins, axis.high, GRID) for axis in (across, up))
    dx = (x[None, :, None] - across.places[used]) / (across.high - across.begins)
    dy = (y[:, None, None] - up.places[used]) / (up.high - up.begins)
    weights = np.exp(-0.5 * (dx**2 + dy**2) / BANDWIDTH**2)  # (GRID, GRID, trials)
    total = weights.sum(axis=2)
    mean = (weights * values[used]).sum(axis=2) / np.maximum(total, 1e-12)
    return x, y, np.ma.masked_where(total < 0.3, mean)


def pareto(record: StudyRecord) -> Figure:
    """Every further metric against the first; those that no trial beats in all metrics are joined."""
    drawing, panels = style.figure(_title(record), len(record.metrics) - 1, width=6.4, height=4.8)
    done, numbers = _state(record, "COMPLETE"), _numbers(record)
    front = np.isin(numbers, record.front)
    x = values_of(record, 0)
    for place, panel in enumerate(panels, start=1):
        y = values_of(record, place)
        order = np.flatnonzero(front)[np.argsort(x[front], kind="stable")]
        _scale(panel, "x", x[done])
        _scale(panel, "y", y[done])
        panel.scatter(x[done & ~front], y[done & ~front], _size(record), color=GREY, alpha=0.6, linewidths=0, label="completed")
        joined = "-" if len(record.metrics) == 2 else ""  # a front in more dimensions is no line here
        panel.plot(
            x[order], y[order], marker="o", linestyle=joined, color=style.VERMILION, label="front: none beats these in all"
        )
        for i in order if len(order) <= LABELLED else ():
            panel.annotate(str(numbers[i]), (x[i], y[i]), xytext=(5, 4), textcoords="offset points", fontsize=8)
        style.label(panel, "", _name(record, 0), _name(record, place))
        panel.legend(fontsize=8)
    return drawing


def _by_importance(axes: Sequence[Axis], importances: Mapping[str, float]) -> list[Axis]:
    """The greatest first; a key counts with its "off or on"."""
    return sorted(axes, key=lambda axis: -(importances.get(axis.path, 0.0) + importances.get(f"{axis.path} or", 0.0)))
