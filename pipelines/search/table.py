"""A study as a table: a row a trial, a column a drawn path. For the CSV, the terminal and JSON alike."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backends.weights import write_atomically
from pipelines.search.records import StudyRecord, TrialRecord

Row = dict[str, Any]


def rows(study: StudyRecord) -> Iterator[Row]:
    """One a trial, by number; all have the same keys, and None where a trial has no such value."""
    own = ["seed"] if study.spec.search.trial_seeds == "own" else []
    paths = [*study.spec.search.space, *own]
    for one in study.trials:
        yield _row(study, one, paths)


def _row(study: StudyRecord, one: TrialRecord, paths: list[str]) -> Row:
    values = dict(zip(study.metrics, one.values, strict=False))
    spread = dict(zip(study.metrics, one.spread, strict=False))
    measured: Row = {metric: values.get(metric) for metric in study.metrics}
    if study.spec.search.seeds > 1:
        measured |= {f"{metric} sd": spread.get(metric) for metric in study.metrics}
    return {
        "trial": one.number, "state": one.state.lower(), **measured, **{path: one.changes.get(path) for path in paths},
        "best_epoch": one.best_epoch, "epochs": one.epochs, "steps": one.steps, "weights": one.weights, "reason": one.reason,
    }  # fmt: skip


def text(study: StudyRecord) -> str:
    """CSV: floats to the last bit, lists as JSON, empty where there is no value."""
    written, table = io.StringIO(newline=""), list(rows(study))
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(table[0] if table else ["trial", "state"])
    writer.writerows([_cell(value) for value in row.values()] for row in table)
    return written.getvalue()


def write_table(path: Path, study: StudyRecord) -> None:
    """trials.csv."""
    write_atomically(path, text(study).encode())


def _cell(value: Any) -> Any:
    return json.dumps(value, default=list) if isinstance(value, list | tuple | dict) else "" if value is None else value


def ranked(study: StudyRecord) -> list[TrialRecord]:
    """Of several metrics, the front first. Complete trials from the best on by the first metric, the pruned, failed, running."""
    sign = 1 if study.directions[0] == "minimize" else -1
    order = {"COMPLETE": 0, "PRUNED": 1, "FAIL": 2, "RUNNING": 3}

    def place(trial: TrialRecord) -> tuple[Any, ...]:
        behind = len(study.metrics) > 1 and trial.number not in study.front
        return order[trial.state], behind, sign * trial.values[0] if trial.values else 0.0, trial.number

    return sorted(study.trials, key=place)
