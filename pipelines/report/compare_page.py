"""The page of a comparison, from plain values as `deltarule compare --json` prints them. Same numbers, same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pipelines.report import style
from pipelines.report.pages import image, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 7  # lines that can still be told apart
TELLING = 3  # params that differ, up to which their values say which run it is
CLASSES = {"real": "differs", "real but negligible": "agrees", "negligible": "agrees", "cannot tell": "absent"}
SPELLED = {"train_loss": "E on training rows", "val_loss": "E on validation rows"}
Found = Mapping[str, Any]


def compare_page(found: Found) -> str:
    """`found` as the command's JSON holds it. A whole HTML document."""
    labels, runs = list(found["groups"]), found["runs"]
    title = " against ".join(labels) if 0 < len(labels) <= 4 else f"{len(labels)} groups" if labels else f"{len(runs)} runs"
    measured = any(one and one["low"] is not None for values in found["metrics"].values() for one in values)
    return render(
        "compare.html",
        **found,
        title=f"Comparison: {title}",
        classes=CLASSES,
        intervals=_intervals(found["comparisons"]),
        drawn_curves=_curves(found),
        bounds="In brackets: 95 % intervals." if measured else "No intervals are on record for these runs.",
    )


def _intervals(comparisons: Sequence[Found]) -> str:
    """Each difference with its interval, the margin shaded: a panel a metric. An image; "" if there is no interval."""
    told = [one for one in comparisons if one["low"] is not None]
    if not told:
        return ""
    metrics = list(dict.fromkeys(one["metric"] for one in told))
    most = max(sum(one["metric"] == metric for one in told) for metric in metrics)
    drawing, panels = style.figure("Differences, of paired runs", len(metrics), width=6.0, height=1.6 + 0.35 * most)
    for panel, metric in zip(panels, metrics, strict=True):
        _forest(panel, [one for one in told if one["metric"] == metric])
        style.label(panel, metric, "difference, mean and 95 % interval", "")
    return image(style.png(drawing))


def _forest(panel: Axes, rows: Sequence[Found]) -> None:
    if rows[0]["margin"] is not None:
        panel.axvspan(-rows[0]["margin"], rows[0]["margin"], color=style.GREEN, alpha=0.15, label="margin")
        panel.legend(fontsize=8)
    panel.axvline(0, color="#555555", linewidth=1)
    for place, one in enumerate(rows):
        colour = style.VERMILION if one["verdict"] == "real" else style.BLUE
        spread = [[one["mean"] - one["low"]], [one["high"] - one["mean"]]]
        panel.errorbar([one["mean"]], [-place], xerr=spread, fmt="o", color=colour, capsize=4, markersize=5)
    panel.set_yticks([-place for place in range(len(rows))], [f"{one['other']} - {one['one']}" for one in rows])
    panel.set_ylim(-len(rows) + 0.4, 0.6)


def _curves(found: Found) -> str:
    """The course of each run over the others: a panel a metric, a colour a group or a run. An image, or ""."""
    courses = {name: [_course(one) for one in each] for name, each in found["curves"].items()}
    courses = {name: each for name, each in courses.items() if any(each)}
    if not courses:
        return ""
    drawing, panels = style.figure("Over the epochs", len(courses))
    for panel, (name, each) in zip(panels, courses.items(), strict=True):
        _of_groups(panel, each, found) if found["groups"] else _of_runs(panel, each, _labels(found))
        style.label(panel, SPELLED.get(name, f"{name.removeprefix('val_')} on validation rows"), "epoch", name)
        style.epochs(panel)
    if panels[0].get_legend_handles_labels()[0]:
        panels[0].legend(fontsize=8)
    return image(style.png(drawing))


def _course(curve: Found) -> dict[int, float]:
    """Of the numbers; NaN and infinity stand as texts in JSON."""
    return {int(step): curve[step] for step in sorted(curve, key=int) if not isinstance(curve[step], str)}


def _labels(found: Found) -> list[str | None]:
    """A run is called by what sets it apart, if that is little; where there are many, by nothing."""
    if len(found["runs"]) > NAMED:
        return [None] * len(found["runs"])
    values = list(zip(*found["params"].values(), strict=True)) if 0 < len(found["params"]) <= TELLING else None
    return [f"{run['id'][:8]}: {', '.join(values[i]) if values else run['name']}" for i, run in enumerate(found["runs"])]


def _of_runs(panel: Axes, courses: Sequence[Mapping[int, float]], labels: Sequence[str | None]) -> None:
    colours = style.series_colours(len(courses))
    for place, (course, label) in enumerate(zip(courses, labels, strict=True)):
        dash = style.DASHES[place % len(style.DASHES)] if label else "-"
        panel.plot(list(course), list(course.values()), dash, color=colours[place], linewidth=1.4, label=label)


def _of_groups(panel: Axes, courses: Sequence[Mapping[int, float]], found: Found) -> None:
    by_id = {run["id"]: course for run, course in zip(found["runs"], courses, strict=True)}
    colours = style.series_colours(len(found["groups"]))
    for place, (label, ids) in enumerate(found["groups"].items()):
        each = [by_id[run_id] for run_id in ids]
        for course in each:
            panel.plot(list(course), list(course.values()), color=colours[place], linewidth=0.6, alpha=0.35)
        steps = sorted({step for course in each for step in course})
        means = [fmean(course[step] for course in each if step in course) for step in steps]
        panel.plot(steps, means, style.DASHES[place % 4], color=colours[place], linewidth=2, label=label)
