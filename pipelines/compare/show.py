"""A comparison in a terminal: what differs, what came of it, the course of the loss, and what the groups say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from pipelines.compare.comparison import Result
from pipelines.compare.differences import Measured
from pipelines.compare.listing import SHORT
from pipelines.compare.pairs import Group
from pipelines.compare.verdict import left_out
from pipelines.console import plain_columns
from pipelines.report.pages import brief

if TYPE_CHECKING:
    from pipelines.console import Console

WIDE = 6  # runs that stand side by side as columns; more are rows
ROWS = 20  # of them at most
BARS = "▁▂▃▄▅▆▇█"
POINTS = 30  # of a sparkline
CURVE = "val_loss"


def show(console: Console, found: Result) -> None:
    """All of it: of groups what they say comes last, where people look first."""
    if not found.groups:
        _side_by_side(console, found) if len(found.runs) <= WIDE else _below_one_another(console, found)
        return
    rows = [(str(group), str(len(group.runs)), *_spreads(group, found)) for group in found.groups]
    metrics = list(dict.fromkeys(one.metric for one in found.comparisons))
    _table(console, "groups, mean ± sd", ("group", "runs", *metrics), rows)
    for one in found.comparisons:
        console.say(one.sentence)
        if one.left and one.pairs:
            console.say(f"  runs that are in no pair: {left_out(one)}")
    for note in found.notes:
        console.say(f"note: {note}")


def _spreads(group: Group, found: Result) -> list[str]:
    names = dict.fromkeys(one.metric for one in found.comparisons)
    each = [[run.metrics[name] for run in group.runs if math.isfinite(run.metrics.get(name, math.nan))] for name in names]
    return [f"{fmean(v):.4g}{f' ± {stdev(v):.2g}' if len(v) > 1 else ''}" if v else "" for v in each]


def _side_by_side(console: Console, found: Result) -> None:
    heads = [run.id[:SHORT] for run in found.runs]
    _table(console, "runs", ("id", "name", "status"), [(run.id[:SHORT], run.name, run.status) for run in found.runs])
    console.say("")
    if found.params:
        _table(console, "params that differ", ("", *heads), [(name, *values) for name, values in found.params.items()])
    else:
        console.say("no param differs")
    console.say("")
    _table(console, "metrics", ("", *heads), [(name, *map(text, values)) for name, values in found.metrics.items()])
    console.say("")
    _courses(console, found)
    if not any(one and one.low is not None for each in found.metrics.values() for one in each):
        console.say("no intervals: these runs have none on record (of folds and of a study's trials there are none)")
    console.say("Each is one run, one seed: whether a difference is real takes several, and --by (deltarule compare --help)")


def _courses(console: Console, found: Result) -> None:
    """One line a run, all on one scale."""
    curves = found.curves.get(CURVE, ())
    lines = [(run.id[:SHORT], *line) for run, line in zip(found.runs, sparklines(curves), strict=False) if line[0]]
    if lines:
        _table(console, f"{CURVE} over the epochs, on one scale", ("", "", "first", "least", "last"), lines)


def _table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Without a frame, which cuts what is too long for a narrow terminal: ids and numbers must be whole."""
    console.say("\n".join([title, *plain_columns(columns, rows)]))


def sparklines(curves: Sequence[Mapping[int, float]]) -> list[tuple[str, ...]]:
    """For each curve its bars, its first, least and last value; empty texts where it has no finite value."""
    finite = [[value for _, value in sorted(curve.items()) if math.isfinite(value)] for curve in curves]
    every = [value for curve in finite for value in curve]
    low, high = min(every, default=0.0), max(every, default=0.0)
    longest = max(map(len, finite), default=0)
    return [
        (
            "".join(_bar(value, low, high) for value in _thinned(curve, longest)),
            *(f"{v:.4g}" for v in (curve[0], min(curve), curve[-1])),
        )
        if curve
        else ("", "", "", "")
        for curve in finite
    ]


def _thinned(curve: Sequence[float], longest: int) -> Sequence[float]:
    """Every n-th value, the same n for all, so that the lines have one axis."""
    return curve[:: max(1, math.ceil(longest / POINTS))]


def _bar(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.0
    return BARS[min(len(BARS) - 1, int(share * len(BARS)))]


def _below_one_another(console: Console, found: Result) -> None:
    """More runs than a terminal has columns for: a row each, the least loss first."""
    metrics = [name for name in found.metrics if name.endswith(("_loss", "_accuracy", "_r2")) or name in ("best_epoch", "epochs")]
    place = {run.id: number for number, run in enumerate(found.runs)}
    ordered = sorted(found.runs, key=lambda run: _least(found, place[run.id]))
    rows = [
        (run.id[:SHORT], *(brief(values[place[run.id]]) for values in found.params.values()),
         *(text(found.metrics[name][place[run.id]]) for name in metrics))
        for run in ordered[:ROWS]
    ]  # fmt: skip
    _table(console, f"{len(found.runs)} runs", ("id", *(name.rpartition(".")[2] for name in found.params), *metrics), rows)
    if len(ordered) > ROWS:
        console.say(f"{ROWS} of {len(ordered)} runs, the least loss first; --html shows all of them")
    console.say("whether a difference is real: --by KEY sets groups of runs against one another, paired by seed and split")


def _least(found: Result, place: int) -> float:
    for name in ("validate_loss", "best_val_loss"):
        one = found.metrics.get(name, ())[place : place + 1]
        if one and one[0] and math.isfinite(one[0].value):
            return one[0].value
    return math.inf


def text(one: Measured | None) -> str:
    """A number, and its interval where there is one."""
    if one is None:
        return ""
    return f"{one.value:.4g}" + (f" [{one.low:.4g}, {one.high:.4g}]" if one.low is not None and one.high is not None else "")
