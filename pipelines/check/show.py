"""Progress and tables of a comparison: backends side by side. What is not judged is left to the page and the JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console as Rich
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from pipelines.check.parity import OnProgress
from pipelines.check.verdict import DIVERGED, SECTIONS, Report
from pipelines.console import Console, number, printable
from pipelines.report.pages import amount
from pipelines.report.parity_page import Row, chief, table

TITLES = {"float64": "float64, where no difference in meaning hides behind rounding", "float32": "float32: outputs and objective"}
MARKS = {True: "✓ ", False: "✗ ", None: "  "}


@contextmanager
def progress(stream: TextIO) -> Iterator[OnProgress]:
    """What each process does, and for how long: in place on a terminal, elsewhere a line for each step of its work."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Rich(file=stream), transient=True, disable=not stream.isatty()) as bars:

        def on_progress(who: str, what: str) -> None:
            line = printable(f"{who}: {what}")  # a framework's last words may be among them
            if bars.disable:
                print(line, file=stream, flush=True)
            elif who in tasks:
                bars.update(tasks[who], description=line)
            else:
                tasks[who] = bars.add_task(line, total=None)

        yield on_progress


def show(console: Console, report: Report) -> None:
    """One table for each precision, what could not be compared, and the verdict."""
    every = report.as_dict()["backends"]
    compared = {outcome.backend: every[outcome.backend] for outcome in report.compared}
    for precision in report.case["precisions"]:
        _table(console, compared, precision)
    console.say("")
    for outcome in report.outcomes:
        console.say(outcome.sentence)


def _table(console: Console, compared: Mapping[str, Mapping[str, Any]], precision: str) -> None:
    lines: list[list[str]] = []
    hidden = 0
    for section, rows in table(compared, precision):
        judged = [(chief(row), row) for row in rows if chief(row)["allowed"] is not None]
        hidden += len(rows) - len(judged)
        if judged:
            lines.append([f"-- {SECTIONS[section]}", *[""] * (len(compared) + 2)])
        for worst, row in judged:
            known = worst["expected"] is not None and (section in ("fit", "after") or worst["quantity"] == DIVERGED)
            name = f"{worst['quantity']} ({number(worst['expected'])})" if known else worst["quantity"]
            lines.append([name, *map(_cell, row), amount(worst["allowed"]), amount(worst["drift"])])
    if lines:
        console.say(f"\n{TITLES[precision]}")
        console.table("", ("largest difference", *compared, "allowed", "one-ulp drift"), lines)
        if hidden:
            console.say(f"{hidden} more are in the page and the JSON; in {precision} they are not judged")


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    where = f" at {row['where']}" if row["where"] and row["passed"] is False else ""
    return f"{MARKS[row['passed']]}{'none or NaN' if row['difference'] is None else amount(row['difference'])}{where}"
