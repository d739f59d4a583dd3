"""Progress and tables for people: backends side by side. What is not judged is left to the page and the JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.console import Console, number, plain_columns
from pipelines.parity.verdict import SECTIONS, Finding, Outcome, Report

TITLES = {"float64": "float64, where no difference in meaning hides behind rounding", "float32": "float32: outputs and objective"}
WHO = {"recording": "reference"}


class Bars:
    """How far each process is: bars where people look, elsewhere a line for each precision."""

    def __init__(self, console: Console) -> None:
        self.stream = console.stream
        self.rich: Any = None
        self.tasks: dict[str, Any] = {}
        self.last: dict[str, str] = {}

    def __enter__(self) -> Bars:
        if self.stream.isatty():
            self.rich = _rich_bars(self.stream)
            self.rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.rich is not None:
            self.rich.stop()

    def __call__(self, who: str, share: float, what: str) -> None:
        """`who` has done this share of its work; `what` comes now."""
        who = WHO.get(who, who)
        if self.rich is not None:
            if who not in self.tasks:
                self.tasks[who] = self.rich.add_task(who, total=1.0, what="")
            self.rich.update(self.tasks[who], completed=share, what=what)
            return
        what = what.partition(":")[0]
        if self.last.get(who) != what:
            print(f"{who}: {what}", file=self.stream, flush=True)
        self.last[who] = what


def show(console: Console, report: Report) -> None:
    """One table for each precision, what could not be compared, and the verdict."""
    for precision in report.case["precisions"]:
        _table(console, report, precision)
    console.say("")
    for line in verdict(report):
        console.say(line)


def verdict(report: Report) -> Iterator[str]:
    """One line for each backend."""
    for outcome in report.outcomes:
        judged = sum(finding.passed is not None for finding in outcome.findings)
        if outcome.status == "agrees":
            yield f"{outcome.backend} agrees with the reference in all {judged} quantities"
        elif outcome.status == "differs":
            failed = f"{len(outcome.failures)} of {judged} quantities"
            yield f"{outcome.backend} DIFFERS from the reference in {failed}, {_first(outcome)}"
        elif outcome.status == "failed":
            yield f"{outcome.backend} FAILED: {outcome.message}"
        else:
            yield f"{outcome.backend} was not compared: {outcome.message}"


def cell(finding: Finding | None) -> str:
    """A difference with its verdict, as text."""
    if finding is None:
        return ""
    if finding.passed is False:
        return f"✗ {amount(finding.difference)}{f' at {finding.where}' if finding.where else ''}"
    return f"{'✓' if finding.passed else ' '} {amount(finding.difference)}"


def amount(value: float | None) -> str:
    """0, 2.2e-16, or a dash for what there is none of."""
    return "-" if value is None else "0" if value == 0 else f"{value:.1e}"


def quantity(finding: Finding) -> str:
    """Its name, and the reference's value of a single number."""
    shown = finding.expected is not None and finding.section in ("fit", "after")
    return f"{finding.quantity} ({number(finding.expected)})" if shown else finding.quantity


def rows_of(report: Report, precision: str) -> Iterator[tuple[str, list[Finding | None]]]:
    """(section, one finding a compared backend) of every quantity, in order."""
    each = [{(f.section, f.quantity): f for f in o.findings if f.precision == precision} for o in report.compared]
    for key in dict.fromkeys(key for found in each for key in found):
        yield key[0], [found.get(key) for found in each]


def nearest(findings: Sequence[Finding | None]) -> Finding:
    """Of one quantity, the finding that is nearest to what is allowed, or furthest beyond."""
    return max((f for f in findings if f is not None), key=lambda f: (f.allowed is not None, f.excess))


def _first(outcome: Outcome) -> str:
    """The failure that a reader should look at first: the earliest section names the cause, later ones follow from it."""
    f = outcome.failures[0]
    where = f" at {f.where}" if f.where else ""
    section = SECTIONS[f.section].partition(",")[0].lower()
    return f"first {section}, {f.quantity}{where}, by {amount(f.difference)} where {amount(f.allowed)} is allowed ({f.precision})"


def _table(console: Console, report: Report, precision: str) -> None:
    rows = list(rows_of(report, precision))
    judged = [(section, found) for section, found in rows if nearest(found).allowed is not None]
    if not judged:
        return
    columns = ["largest difference", *(o.backend for o in report.compared), "allowed", "one-ulp drift"]
    draw = _rich_table if console.stream.isatty() else _plain_table
    draw(console, TITLES[precision], columns, judged)
    if len(judged) < len(rows):
        console.say(f"{len(rows) - len(judged)} more are in the page and the JSON; in {precision} they are not judged")


def _line(found: Sequence[Finding | None]) -> list[str]:
    chief = nearest(found)
    return [quantity(chief), *map(cell, found), amount(chief.allowed), amount(chief.drift)]


def _plain_table(console: Console, title: str, columns: list[str], rows: list[tuple[str, list[Finding | None]]]) -> None:
    lines = plain_columns(columns, [_line(found) for _, found in rows])
    console.say(f"\n{title}\n{lines[0]}")
    before = ""
    for (section, _), line in zip(rows, lines[1:], strict=True):
        if section != before:
            console.say(f"-- {SECTIONS[section]}")
        console.say(line)
        before = section


def _rich_table(console: Console, title: str, columns: list[str], rows: list[tuple[str, list[Finding | None]]]) -> None:
    from rich import box
    from rich.console import Console as Rich
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place <= len(columns) - 3 else "right")
    before = ""
    for section, found in rows:
        if section != before:
            table.add_row(Text(SECTIONS[section], style="bold cyan"))
        name, *_, allowed, drift = _line(found)
        cells = [Text(cell(f), style=_style(f)) for f in found]
        table.add_row(Text(f"  {name}"), *cells, Text(allowed), Text(drift, style="dim"))
        before = section
    Rich(file=console.stream).print(table)


def _style(finding: Finding | None) -> str:
    if finding is None or finding.passed is None:
        return "dim"
    return "green" if finding.passed else "bold red"


def _rich_bars(stream: Any) -> Any:
    from rich.console import Console as Rich
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"),
    )
    return Progress(*columns, console=Rich(file=stream), transient=True)
