"""Runs as a table: columns by any key of a run, in any order. For the terminal, CSV and JSON alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass, replace
from datetime import datetime
from statistics import mode
from typing import Any

from pipelines.compare.choose import SHORT, TIMES, Key, Keys, QueryError, Value, number, order
from pipelines.console import plain_columns
from pipelines.stages.files import csv_text
from pipelines.tracking.query import Recorded

# What most people ask for; those that no run has are left out. METRIC is what the runs monitor, or the first they have.
USUAL = (
    "id", "name", "status", "backend", "activation", "seed", "best_val_loss", "best_val_METRIC", "epochs", "started", "duration",
    "study",
)  # fmt: skip
# In which order they go where a terminal is narrow, after those that are the same in every row.
LESS = ("duration", "epochs", "started", "status", "study", "best_val_METRIC", "seed", "backend", "activation")
MONITOR = "train.early_stopping.monitor"


@dataclass(frozen=True)
class Listing:
    """Some of the runs that were found, in the order asked for, and how many there were."""

    keys: tuple[Key, ...]
    runs: tuple[Recorded, ...]
    total: int
    hidden: tuple[str, ...] = ()  # columns that were left out, with what is the same in all rows

    @property
    def columns(self) -> list[str]:
        """The heads, as they were asked for."""
        return [key.text for key in self.keys]

    def shown(self) -> list[list[str]]:
        """As people read it: short ids and numbers, local times."""
        return [[shown(key, key.of(run)) for key in self.keys] for run in self.runs]

    def fitting(self, width: int) -> Listing:
        """Without the columns that are missed least, until a line has at most `width` characters."""
        found, metric = self, chief_metric(self.runs) or "METRIC"
        less = [name.replace("METRIC", metric) for name in LESS]
        cells = zip(self.columns, zip(*self.shown(), strict=True), strict=False)
        values = {name: {*each} for name, each in cells if name in less}
        for name in sorted(values, key=lambda name: (len(values[name]) > 1, less.index(name))):
            if max(map(len, plain_columns(found.columns, found.shown()))) <= width:
                break
            same = f" ({min(values[name])} in all)" if len(values[name]) == 1 else ""
            keys = tuple(key for key in found.keys if key.text != name)
            found = replace(found, keys=keys, hidden=(*found.hidden, f"{name}{same}"))
        return found

    def csv(self) -> str:
        """Whole values: floats to the last bit, ISO times, empty where there is none."""
        return csv_text(self.columns, ([plain(key, key.of(run)) for key in self.keys] for run in self.runs))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: each run whole, and the values of the columns beside it."""
        return {"columns": self.columns, "total": self.total, "runs": [as_dict(run, self.keys) for run in self.runs]}


def listing(
    runs: Sequence[Recorded],
    columns: Sequence[str] | None = None,
    sort: str | None = None,
    reverse: bool = False,
    limit: int | None = None,
) -> Listing:
    """A table of runs: the usual columns unless some are named, newest first unless sorted (runs without the key last).

    Raises QueryError for a key that no run has.
    """
    keys = Keys(runs)
    heads = tuple(keys.find(text) for text in columns) if columns is not None else usual(runs, keys)
    ordered, without = list(runs), list[Recorded]()
    if sort is not None:
        key = keys.find(sort)
        ordered = sorted((run for run in runs if key.of(run) is not None), key=lambda run: order(key.of(run)))
        without = [run for run in runs if key.of(run) is None]
    ordered = ordered[::-1] if reverse else ordered
    return Listing(heads, (*ordered, *without)[:limit], len(runs))


def usual(runs: Sequence[Recorded], keys: Keys) -> tuple[Key, ...]:
    """The usual columns that some run has a value for."""
    found = []
    for text in USUAL:
        with suppress(QueryError):
            key = keys.find(text.replace("METRIC", chief_metric(runs) or "METRIC"))
            if any(key.of(run) is not None for run in runs):
                found.append(key)
    return tuple(found)


def chief_metric(runs: Sequence[Recorded]) -> str | None:
    """The metric besides the loss that most runs monitor, or else the first that they have of every epoch."""
    watched = [run.params.get(MONITOR, "loss") for run in runs]
    others = [name for name in watched if name != "loss"]
    if others:
        return mode(others)
    names = (name.removeprefix("best_val_") for run in runs for name in run.metrics if name.startswith("best_val_"))
    return next((name for name in names if name != "loss"), None)


def shown(key: Key, value: Value) -> str:
    """A value as people read it."""
    if value is None or isinstance(value, str):
        return (value or "")[: SHORT if key.is_own("id") else None]
    if key.is_own(*TIMES):
        return datetime.fromtimestamp(value).strftime("%Y-%m-%d %H:%M")
    if key.is_own("duration"):
        return f"{value:.1f} s" if value < 60 else f"{value / 60:.1f} min"
    return f"{value:.4g}"


def plain(key: Key, value: Value) -> Value:
    """A value as programs read it: times with their zone, whole numbers without a point, nothing as nothing."""
    if not isinstance(value, float):
        return value
    if key.is_own(*TIMES):
        return datetime.fromtimestamp(value).astimezone().isoformat()
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def finite(value: Any) -> Any:
    """For strict JSON, which has no NaN and no infinity: these become the texts "nan", "inf" and "-inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    return [finite(one) for one in value] if isinstance(value, list | tuple) else value


def as_dict(run: Recorded, keys: Sequence[Key] = ()) -> dict[str, Any]:
    """A run for JSON."""
    whole: dict[str, Any] = {"id": run.id, "name": run.name, "status": run.status}
    whole |= {name: plain(Key("run", name), getattr(run, name)) for name in TIMES}
    if keys:
        whole["values"] = values = {}
        for key in keys:
            value = key.of(run)
            as_number = number(value) if key.kind == "params" else None  # params are text in the store
            values[key.text] = plain(key, value if as_number is None else as_number)
    return dict(finite({**whole, "params": dict(run.params), "metrics": dict(run.metrics), "tags": dict(run.tags)}))
