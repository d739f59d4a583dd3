"""The page of a comparison: one file, no script, nothing to fetch. Same numbers, same bytes.

Takes the comparison as plain numbers, as `deltarule compare --json` prints it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pipelines.report import style
from pipelines.report.page import brief, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BESIDE = 8  # runs that stand side by side; more are rows
NAMED = 7  # lines that can still be told apart
TELLING = 3  # params that differ, up to which their values say which run it is
CLASSES = {"real": "differs", "real but negligible": "agrees", "negligible": "agrees", "cannot tell": "absent"}
SPELLED = {"train_loss": "E on training rows", "val_loss": "E on validation rows"}
STYLE = """
img { max-width: 100%; height: auto; border-radius: 4px; } .verdict p { max-width: 100ch; } .beside th { white-space: normal; }
.notes li { margin: .25rem 0; max-width: 100ch; }
"""


def compare_page(found: Mapping[str, Any]) -> str:
    """`found` as the command's JSON holds it. A whole HTML document."""
    labels = list(found["groups"])
    title = (
        " against ".join(labels) if 0 < len(labels) <= 4 else f"{len(labels)} groups" if labels else f"{len(found['runs'])} runs"
    )
    tables = _beside(found) if len(found["runs"]) <= BESIDE else _below(found)
    body = f"{_verdicts(found)}{_notes(found)}{_intervals(found)}{_curves(found)}{tables}"
    return page(f"Comparison: {title}", body, STYLE)


def _verdicts(found: Mapping[str, Any]) -> str:
    boxes = "".join(
        f'<div class="verdict {CLASSES[one["verdict"]]}"><b>{escape(_pair(one))}</b> {escape(one["metric"])}: {one["verdict"]}'
        f'<p>{escape(one["sentence"])}</p><p class="faint">{escape(_left(one))}</p></div>'
        for one in found["comparisons"]
    )
    return f'<div class="verdicts">{boxes}</div>\n' if boxes else ""


def _pair(one: Mapping[str, Any]) -> str:
    return f"{one['other']} - {one['one']}"


def _left(one: Mapping[str, Any]) -> str:
    told = ", ".join(f"{count} {reason}" for reason, count in one["left"].items())
    return f"Runs that are in no pair: {told}." if told else "Every run is in a pair."


def _notes(found: Mapping[str, Any]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in found["notes"])
    return f'<ul class="notes">{items}</ul>\n' if items else ""


# -- figures --------------------------------------------------------------------------------------------------------------


def _image(png: bytes, told: str) -> str:
    return f'<div><img alt="{escape(told)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></div>\n'


def _intervals(found: Mapping[str, Any]) -> str:
    """Each difference with its interval, the margin shaded: a panel a metric."""
    told = [one for one in found["comparisons"] if one["low"] is not None]
    if not told:
        return ""
    metrics = list(dict.fromkeys(one["metric"] for one in told))
    most = max(sum(one["metric"] == metric for one in told) for metric in metrics)
    drawing, panels = style.figure("Differences, of paired runs", len(metrics), width=6.0, height=1.6 + 0.35 * most)
    for panel, metric in zip(panels, metrics, strict=True):
        _forest(panel, [one for one in told if one["metric"] == metric])
        style.label(panel, metric, "difference, mean and 95 % interval", "")
    return f"<h2>Differences</h2>\n{_image(style.png(drawing), 'Differences with their 95 % intervals')}"


def _forest(panel: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows[0]["margin"] is not None:
        panel.axvspan(-rows[0]["margin"], rows[0]["margin"], color=style.GREEN, alpha=0.15, label="margin")
        panel.legend(fontsize=8)
    panel.axvline(0, color="#555555", linewidth=1)
    for place, one in enumerate(rows):
        colour = style.VERMILION if one["verdict"] == "real" else style.BLUE
        spread = [[one["mean"] - one["low"]], [one["high"] - one["mean"]]]
        panel.errorbar([one["mean"]], [-place], xerr=spread, fmt="o", color=colour, capsize=4, markersize=5)
    panel.set_yticks([-place for place in range(len(rows))], [_pair(one) for one in rows])
    panel.set_ylim(-len(rows) + 0.4, 0.6)


def _curves(found: Mapping[str, Any]) -> str:
    """The courses of all runs over one another: a panel a metric, a colour a group or a run."""
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
    told = "Thin lines are runs, a thick one is the mean of a group over the runs that still go on." if found["groups"] else ""
    return f'<h2>Curves</h2>\n{_image(style.png(drawing), "Curves over the epochs")}<p class="faint">{told}</p>\n'


def _course(curve: Mapping[str, Any]) -> dict[int, float]:
    """Of the numbers; NaN and infinity stand as texts in JSON."""
    return {
        int(step): value for step, value in sorted(curve.items(), key=lambda pair: int(pair[0])) if not isinstance(value, str)
    }


def _labels(found: Mapping[str, Any]) -> list[str | None]:
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


def _of_groups(panel: Axes, courses: Sequence[Mapping[int, float]], found: Mapping[str, Any]) -> None:
    by_id = {run["id"]: course for run, course in zip(found["runs"], courses, strict=True)}
    colours = style.series_colours(len(found["groups"]))
    for place, (label, ids) in enumerate(found["groups"].items()):
        each = [by_id[run_id] for run_id in ids]
        for course in each:
            panel.plot(list(course), list(course.values()), color=colours[place], linewidth=0.6, alpha=0.35)
        mean = _mean(each)
        panel.plot(list(mean), list(mean.values()), style.DASHES[place % 4], color=colours[place], linewidth=2, label=label)


def _mean(courses: Sequence[Mapping[int, float]]) -> dict[int, float]:
    steps = sorted({step for course in courses for step in course})
    return {step: fmean(course[step] for course in courses if step in course) for step in steps}


# -- tables ---------------------------------------------------------------------------------------------------------------


def _beside(found: Mapping[str, Any]) -> str:
    """A column a run."""
    heads = ["", *(f"{run['name']} ({run['id'][:8]})" for run in found["runs"])]
    params = [[name, *values] for name, values in found["params"].items()]
    metrics = [[name, *map(_number, values)] for name, values in found["metrics"].items()]
    return (
        f"<h2>Params that differ</h2>\n{_table(heads, params, 'beside') if params else '<p>None.</p>'}"
        f"<h2>Metrics</h2>\n{_bounds(found)}{_table(heads, metrics, 'beside')}"
    )


def _below(found: Mapping[str, Any]) -> str:
    """A row a run."""
    rows = [
        [run["id"][:8], run["name"], run["status"], *(brief(values[place]) for values in found["params"].values()),
         *(_number(values[place]) for values in found["metrics"].values())]
        for place, run in enumerate(found["runs"])
    ]  # fmt: skip
    return f"<h2>Runs</h2>\n{_bounds(found)}{_table(['id', 'name', 'status', *found['params'], *found['metrics']], rows)}"


def _bounds(found: Mapping[str, Any]) -> str:
    has = any(one and one["low"] is not None for values in found["metrics"].values() for one in values)
    return f'<p class="faint">{"In brackets: 95 % intervals" if has else "No intervals are on record for these runs"}.</p>\n'


def _number(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    bounds = f" [{_short(one['low'])}, {_short(one['high'])}]" if one["low"] is not None and one["high"] is not None else ""
    return _short(one["value"]) + bounds


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(heads: Iterable[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table class="{kind}">\n<tr>{head}</tr>\n{body}</table></div>\n'
