"""Progress and tables of a comparison: backends side by side. What is not judged is left to the page and the JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console as Rich
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from pipelines.check.parity import OnProgress
from pipelines.check.verdict import SECTIONS, Finding, Outcome, Report
from pipelines.console import Console, number

TITLES = {"float64": "float64, where no difference in meaning hides behind rounding", "float32": "float32: outputs and objective"}
MARKS = {True: "✓ ", False: "✗ ", None: "  "}


@contextmanager
def progress(stream: TextIO) -> Iterator[OnProgress]:
    """What each process does, and for how long: in place on a terminal, elsewhere a line for each step of its work."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Rich(file=stream), transient=True, disable=not stream.isatty()) as bars:

        def on_progress(who: str, what: str) -> None:
            if bars.disable:
                print(f"{who}: {what}", file=stream, flush=True)
            elif who in tasks:
                bars.update(tasks[who], description=f"{who}: {what}")
            else:
                tasks[who] = bars.add_task(f"{who}: {what}", total=None)

        yield on_progress


def show(console: Console, report: Report) -> None:
    """One table for each precision, what could not be compared, and the verdict."""
    for precision in report.case["precisions"]:
        _table(console, report, precision)
    console.say("")
    for outcome in report.outcomes:
        console.say(verdict(outcome))


def verdict(outcome: Outcome) -> str:
    """A sentence on one backend. Of failures, the earliest section names the cause, later ones follow from it."""
    judged = sum(finding.passed is not None for finding in outcome.findings)
    if outcome.status == "agrees":
        return f"{outcome.backend} agrees with the reference in all {judged} quantities"
    if outcome.status == "failed":
        return f"{outcome.backend} FAILED: {outcome.message}"
    if outcome.status != "differs":
        return f"{outcome.backend} was not compared: {outcome.message}"
    first = outcome.failures[0]
    where = f" at {first.where}" if first.where else ""
    section = SECTIONS[first.section].partition(",")[0].lower()
    gap = f"by {amount(first.difference)} where {amount(first.allowed)} is allowed ({first.precision})"
    failed = f"{len(outcome.failures)} of {judged} quantities"
    return f"{outcome.backend} DIFFERS from the reference in {failed}, first {section}, {first.quantity}{where}, {gap}"


def _table(console: Console, report: Report, precision: str) -> None:
    rows = list(_rows(report, precision))
    judged = [found for found in rows if _chief(found).allowed is not None]
    if not judged:
        return
    lines, before = [], ""
    for found in judged:
        chief = _chief(found)
        if chief.section != before:
            lines.append([f"-- {SECTIONS[chief.section]}", *[""] * (len(found) + 2)])
        before = chief.section
        lines.append([_quantity(chief), *map(_cell, found), amount(chief.allowed), amount(chief.drift)])
    console.say(f"\n{TITLES[precision]}")
    backends = (outcome.backend for outcome in report.compared)
    console.table("", ("largest difference", *backends, "allowed", "one-ulp drift"), lines)
    if len(judged) < len(rows):
        console.say(f"{len(rows) - len(judged)} more are in the page and the JSON; in {precision} they are not judged")


def _rows(report: Report, precision: str) -> Iterator[list[Finding | None]]:
    """Of every quantity, in order, what each compared backend has of it."""
    each = [{(f.section, f.quantity): f for f in o.findings if f.precision == precision} for o in report.compared]
    for key in dict.fromkeys(key for found in each for key in found):
        yield [found.get(key) for found in each]


def _chief(findings: Sequence[Finding | None]) -> Finding:
    """Of one quantity, the finding that is nearest to what is allowed, or furthest beyond."""
    return max((one for one in findings if one is not None), key=lambda one: one.rank)


def _cell(finding: Finding | None) -> str:
    """A difference with its verdict."""
    if finding is None:
        return ""
    where = f" at {finding.where}" if finding.where and finding.passed is False else ""
    return f"{MARKS[finding.passed]}{amount(finding.difference)}{where}"


def _quantity(finding: Finding) -> str:
    """Its name, and the reference's value of a single number."""
    shown = finding.expected is not None and finding.section in ("fit", "after")
    return f"{finding.quantity} ({number(finding.expected)})" if shown else finding.quantity


def amount(value: float | None) -> str:
    """0, 2.2e-16, or a dash for what there is none of."""
    return "-" if value is None else "0" if value == 0 else f"{value:.1e}"
