"""Drawings of how right a network is: confusion, ROC, precision and recall, calibration; residuals of a regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.base import NDArray
from pipelines.report import style
from pipelines.report.outs import Texts, floats, groups

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TICKS = 40  # names along a side of a confusion matrix
NUMBERED = 20  # classes up to which a confusion matrix can carry its counts
CURVES = 7  # in one panel that can still be told apart
TARGETS = 8  # rows of panels in a figure
DOTS = 4000  # of a cloud: more only hide one another
LONGEST = 18  # letters of a class name


def confusion(table: Texts, title: str) -> Figure:
    """Counts of actual class (rows) by predicted class; shade: share of the actual class."""
    from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

    names = _sorted({*table["actual"], *table["predicted"]})
    counts = confusion_matrix(table["actual"], table["predicted"], labels=names)
    few, step = len(names) <= NUMBERED, -(-len(names) // TICKS)
    size = min(12.0 if few else 9.5, max(4.6, 0.5 * len(names) + 2.2))
    drawing, (panel,) = style.figure(f"{title}\n{np.trace(counts)} of {counts.sum()} right", 1, width=size + 0.8, height=size)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    shown = ConfusionMatrixDisplay(shares).plot(
        ax=panel, include_values=few, cmap="Blues", colorbar=False, im_kw={"vmin": 0, "vmax": 1}, text_kw={"fontsize": 9}
    )
    for text, count in zip(shown.text_.flat if few else (), counts.flat, strict=False):
        text.set_text(str(count or ""))
    drawing.colorbar(shown.im_, ax=panel, label="share of the actual class", shrink=0.8)
    labels = [_short(name) for name in names[::step]]
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, labels)) > 3 else {}
    panel.set_xticks(range(0, len(names), step), labels, fontsize=None if few else 7, **turned)
    panel.set_yticks(range(0, len(names), step), labels, fontsize=None if few else 7)
    panel.grid(False)
    style.label(panel, "", "predicted class", "actual class")
    return drawing


def roc(table: Texts, title: str, classes: Texts) -> Figure:
    """True against false positive rate, one curve a class; of many classes, those that are told apart worst."""
    from sklearn.metrics import RocCurveDisplay

    curves = {name: (floats(rows["fpr"]), floats(rows["tpr"])) for name, rows in groups(table, "class")}
    shown = _worst(curves, classes, "roc_auc")
    drawing, (panel,) = style.figure(title, 1, width=5.6, height=5.0)
    RocCurveDisplay(fpr=[curves[name][0] for name in shown], tpr=[curves[name][1] for name in shown]).plot(
        panel, curve_kwargs=_lines(shown), plot_chance_level=True, chance_level_kw=_chance("0.5")
    )
    style.label(panel, _kept("ROC", curves), "false positive rate", "true positive rate")
    panel.legend(fontsize=8, loc="lower right")
    return drawing


def precision_recall(table: Texts, title: str, classes: Texts) -> Figure:
    """Precision against recall, one curve a class; of many classes, the worst. Steps: between two points nothing is known.

    The area is average precision: Σ (recall gained · precision).
    """
    from sklearn.metrics import PrecisionRecallDisplay

    curves = {name: (floats(rows["recall"]), floats(rows["precision"])) for name, rows in groups(table, "class")}
    shown = _worst(curves, classes, "pr_auc")
    rows = dict(zip(classes["class"], floats(classes["rows"]).tolist(), strict=True))
    share = rows[next(iter(shown))] / sum(rows.values()) if len(curves) == 1 else None
    height = 5.2 + 0.1 * min(len(curves), CURVES)  # with room for the legend
    drawing, (panel,) = style.figure(title, 1, width=5.6, height=height)
    PrecisionRecallDisplay(
        precision=[np.append(curves[name][1][:1], curves[name][1]) for name in shown],
        recall=[np.append(0.0, curves[name][0]) for name in shown],
        prevalence_pos_label=share,
    ).plot(
        panel,
        curve_kwargs=[{**line, "drawstyle": "steps-pre"} for line in _lines(shown)],
        plot_chance_level=share is not None,
        chance_level_kw=_chance(f"{share:.3f}, the share of the class") if share is not None else None,
    )
    style.label(panel, _kept("Precision and recall", curves), "recall: share of the class that is found", "precision")
    panel.set_ylim(-0.02, 1.03)
    if (own := panel.get_legend()) is not None:
        own.remove()
    drawing.legend(loc="outside lower center", ncols=2, fontsize=8)  # such curves may go anywhere
    return drawing


def _worst(curves: Mapping[str, object], classes: Texts, area: str) -> dict[str, float]:
    """Class -> the area below its whole curve, as the stage computed it; of the classes that are shown, the smallest first."""
    areas = dict(zip(classes["class"], floats(classes[area]).tolist(), strict=True))
    return {name: areas[name] for name in sorted(curves, key=areas.__getitem__)[:CURVES]}


def _lines(shown: Mapping[str, float]) -> list[dict[str, Any]]:
    """How each curve is drawn."""
    return [
        {"label": f"{_short(name, 26)}: area {area:.3f}", "color": colour, "linestyle": style.DASHES[place % 4], "alpha": 1}
        for place, ((name, area), colour) in enumerate(zip(shown.items(), style.series_colours(len(shown)), strict=True))
    ]


def _chance(area: str) -> dict[str, Any]:
    return {"label": f"by chance: area {area}", "color": "#888888", "linewidth": 0.8, "linestyle": "-"}


def _kept(what: str, curves: Mapping[str, object]) -> str:
    if len(curves) == 1:
        return f"{what}, {_short(next(iter(curves)), 40)}"
    return f"{what}, {f'the {CURVES} worst of {len(curves)} classes' if len(curves) > CURVES else 'one class against the rest'}"


def calibration(table: Texts, title: str) -> Figure:
    """Predicted probability against the share that came true, with 95 % intervals where there are any.

    A bar across is the range of probabilities of a bin.
    """
    of, predicted, observed = table["probability_of"][0], floats(table["predicted"]), floats(table["observed"])
    low, high, least, greatest = (floats(table[n]) for n in ("observed_low", "observed_high", "least", "greatest"))
    drawing, (panel,) = style.figure(title, 1, width=5.6, height=5.0)
    panel.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, label="as often as predicted")
    across, up = np.abs([predicted - least, greatest - predicted]), np.abs([observed - low, high - observed])
    panel.errorbar(
        predicted, observed, up, across, fmt="o", color=style.BLUE, ecolor=style.SKY, elinewidth=1.2, capsize=2, markersize=5,
        label="observed, 95 % interval" if np.isfinite(low).all() else "observed",
    )  # fmt: skip
    start = max(0.0, float(np.nanmin([*least, *low, *observed])))
    edge = 0.02 * (1 - start)
    panel.set_xlim(start - edge, 1 + edge)
    panel.set_ylim(start - edge, 1 + edge)
    rows = sorted({int(n) for n in floats(table["rows"])})
    each = f"{rows[0]}" if len(rows) == 1 else f"{rows[0]} to {rows[-1]}"
    several = of == "the predicted class"
    share = "share of rows that are right" if several else f"share of rows that are {_short(of)}"
    style.label(panel, f"Calibration, {each} rows a bin", f"predicted probability of {_short(of, 30)}", share)
    panel.legend(fontsize=8, loc="upper left")
    return drawing


def residuals(table: Texts, title: str) -> Figure:
    """Predicted against true, and what is left over, for each target; of many targets, the first."""
    everything = list(groups(table, "target"))
    shown = everything[:TARGETS]
    if len(everything) > TARGETS:
        title = f"{title}, the first {TARGETS} of {len(everything)} targets"
    if len(shown[0][1]["actual"]) > DOTS:
        title = f"{title}\nabout {DOTS:,} of {len(shown[0][1]['actual']):,} rows, evenly taken"
    drawing, panels = style.figure(title, 2, height=4.2, rows=len(shown))
    for (name, rows), (against, left) in zip(shown, zip(panels[::2], panels[1::2], strict=True), strict=True):
        actual, predicted = (_some(floats(rows[column])) for column in ("actual", "predicted"))
        dots: dict[str, Any] = {"s": float(np.clip(3000 / len(actual), 8, 40)), "alpha": 0.6, "linewidths": 0}
        label = f" ({_short(name, 30)})" if name else ""
        against.scatter(actual, predicted, color=style.BLUE, **dots)
        against.axline((actual[0], actual[0]), slope=1, color="black", linewidth=0.8, label="predicted = true")
        against.legend(fontsize=8)
        style.label(against, f"Predicted against true{label}", "true", "predicted")
        left.scatter(predicted, actual - predicted, color=style.VERMILION, **dots)
        left.axhline(0, color="black", linewidth=0.8)
        style.label(left, f"Residuals{label}", "predicted", "true − predicted")
    return drawing


def _some(values: NDArray) -> NDArray:
    """At most about DOTS of them, evenly taken."""
    return values[:: max(1, len(values) // DOTS)]


def _short(name: str, most: int = LONGEST) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _sorted(names: set[str]) -> list[str]:
    """Class names in order; numbers by their value."""
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)
