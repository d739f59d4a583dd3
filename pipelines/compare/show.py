"""A comparison in a terminal, line by line: what differs, what came of it, and what the groups say."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean, stdev

from pipelines.compare.choose import SHORT
from pipelines.compare.comparison import Measured, Result
from pipelines.compare.pairs import Group
from pipelines.compare.significance import Comparison, left_out
from pipelines.console import number, plain_columns
from pipelines.report.pages import brief
from pipelines.tracking.events import key_of

WIDE = 6  # runs that stand side by side as columns; more are rows
ROWS = 20  # of them at most
PAIRS = 60  # that are shown at most; --json has all


def lines(found: Result) -> Iterator[str]:
    """All of it. Of groups their claims come last, where people look first."""
    if found.groups:
        yield from _groups(found)
    elif len(found.runs) <= WIDE:
        yield from _side_by_side(found)
    else:
        yield from _below_one_another(found)


def _groups(found: Result) -> Iterator[str]:
    metrics = list(dict.fromkeys(one.metric for one in found.comparisons))
    yield "groups, mean ± sd"
    rows = [(str(group), str(len(group.runs)), *(_spread(group, metric) for metric in metrics)) for group in found.groups]
    yield from plain_columns(("group", "runs", *metrics), rows)
    few = sum(len(one.values) for one in found.comparisons) <= PAIRS
    for one in found.comparisons:
        yield from _pairs(one) if few else ()
        yield one.sentence
        if one.left and one.pairs:
            yield f"  runs that are in no pair: {left_out(one)}"
    yield from (f"note: {note}" for note in found.notes)


def _pairs(one: Comparison) -> Iterator[str]:
    """The values that a difference comes of."""
    rows = [(label, f"{a:.4g}", f"{b:.4g}", f"{b - a:+.3g}") for label, a, b in one.values]
    yield from plain_columns((f"pairs, {one.metric}", one.one, one.other, "difference"), rows) if rows else ()


def _spread(group: Group, metric: str) -> str:
    values = [run.metrics[metric] for run in group.runs if math.isfinite(run.metrics.get(metric, math.nan))]
    if not values:
        return ""
    return f"{fmean(values):.4g}{f' ± {stdev(values):.2g}' if len(values) > 1 else ''}"


def _side_by_side(found: Result) -> Iterator[str]:
    heads = ["", *found.called]
    yield "runs"
    yield from plain_columns(("id", "name", "status"), [(run.id[:SHORT], run.name, run.status) for run in found.runs])
    yield ""
    yield "params that differ" if found.params else "no param differs"
    if found.params:
        yield from plain_columns(heads, [(key_of(name), *values) for name, values in found.params.items()])
    yield ""
    yield "metrics"
    yield from plain_columns(heads, [(name, *map(text, values)) for name, values in found.metrics.items()])
    yield ""
    if not any(one and one.low is not None for each in found.metrics.values() for one in each):
        yield "no intervals: these runs have none on record (of folds and of a study's trials there are none)"
    yield "Each is one run, one seed: whether a difference is real takes several, and --by (deltarule compare --help)"


def _below_one_another(found: Result) -> Iterator[str]:
    """More runs than a terminal has columns for: a row each, the least loss first."""
    metrics = [name for name in found.metrics if name.endswith(("_loss", "_accuracy", "_r2")) or name in ("best_epoch", "epochs")]
    order = sorted(range(len(found.runs)), key=lambda place: _loss(found, place))
    rows = [
        (
            found.runs[place].id[:SHORT],
            *(brief(values[place]) for values in found.params.values()),
            *(text(found.metrics[name][place]) for name in metrics),
        )
        for place in order[:ROWS]
    ]
    yield f"{len(found.runs)} runs"
    yield from plain_columns(("id", *(name.rpartition(".")[2] for name in found.params), *metrics), rows)
    if len(order) > ROWS:
        yield f"{ROWS} of {len(order)} runs, the least loss first; --html shows all of them"
    yield "whether a difference is real: --by KEY sets groups of runs against one another, paired by seed and split"


def _loss(found: Result, place: int) -> float:
    for name in ("validate_loss", "best_val_loss"):
        one = found.metrics[name][place] if name in found.metrics else None
        if one is not None and math.isfinite(one.value):
            return one.value
    return math.inf


def text(one: Measured | None) -> str:
    """A number, and its interval where there is one."""
    return "" if one is None else number(one.value, one.low, one.high)
