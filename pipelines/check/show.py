"""Progress and tables of a comparison: backends side by side. What is not judged is left to the page and the JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console as Rich
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pipelines.check.measure import RECORDING
from pipelines.check.verdict import SECTIONS, Finding, Outcome, Report
from pipelines.console import Console, number

if TYPE_CHECKING:
    from typing import TextIO

TITLES = {"float64": "float64, where no difference in meaning hides behind rounding", "float32": "float32: outputs and objective"}
WIDTH = 160  # of a table in a file or a pipe
MARKS = {True: "✓ ", False: "✗ ", None: "  "}
STYLES = {True: "green", False: "bold red", None: "dim"}


class Bars:
    """How far each process is: bars on a terminal, elsewhere a line for each precision."""

    def __init__(self, stream: TextIO) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self.stream = stream
        self.bars = Progress(*columns, TextColumn("{task.fields[what]}"), console=Rich(file=stream), transient=True)
        self.tasks: dict[str, TaskID] = {}
        self.last: dict[str, str] = {}

    def __enter__(self) -> Bars:
        if self.stream.isatty():
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.stream.isatty():
            self.bars.stop()

    def __call__(self, who: str, share: float, what: str) -> None:
        """`who` has done this share of its work; `what` comes now."""
        who = "reference" if who == RECORDING else who
        if self.stream.isatty():
            if who not in self.tasks:
                self.tasks[who] = self.bars.add_task(who, total=1.0, what="")
            self.bars.update(self.tasks[who], completed=share, what=what)
            return
        what = what.partition(":")[0]
        if self.last.get(who) != what:
            self.stream.write(f"{who}: {what}\n")
            self.stream.flush()
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


def _first(outcome: Outcome) -> str:
    """The failure to read first: the earliest section names the cause, later ones follow from it."""
    f = outcome.failures[0]
    where = f" at {f.where}" if f.where else ""
    section = SECTIONS[f.section].partition(",")[0].lower()
    return f"first {section}, {f.quantity}{where}, by {amount(f.difference)} where {amount(f.allowed)} is allowed ({f.precision})"


def _table(console: Console, report: Report, precision: str) -> None:
    rows = list(_rows(report, precision))
    judged = [(section, found) for section, found in rows if _nearest(found).allowed is not None]
    if not judged:
        return
    backends = [outcome.backend for outcome in report.compared]
    table = Table("largest difference", *backends, "allowed", "one-ulp drift", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    before = ""
    for section, found in judged:
        if section != before:
            table.add_row(Text(f"-- {SECTIONS[section]}", style="bold"))
        chief = _nearest(found)
        table.add_row(Text(_quantity(chief)), *map(_cell, found), amount(chief.allowed), Text(amount(chief.drift), style="dim"))
        before = section
    console.say(f"\n{TITLES[precision]}")
    Rich(file=console.stream, width=None if console.stream.isatty() else WIDTH).print(table)
    if len(judged) < len(rows):
        console.say(f"{len(rows) - len(judged)} more are in the page and the JSON; in {precision} they are not judged")


def _rows(report: Report, precision: str) -> Iterator[tuple[str, list[Finding | None]]]:
    """(section, one finding a compared backend) of every quantity, in order."""
    each = [{(f.section, f.quantity): f for f in o.findings if f.precision == precision} for o in report.compared]
    for key in dict.fromkeys(key for found in each for key in found):
        yield key[0], [found.get(key) for found in each]


def _nearest(findings: Sequence[Finding | None]) -> Finding:
    """Of one quantity, the finding that is nearest to what is allowed, or furthest beyond."""
    return max((f for f in findings if f is not None), key=lambda f: (f.allowed is not None, f.excess))


def _cell(finding: Finding | None) -> Text:
    """A difference with its verdict."""
    if finding is None:
        return Text("")
    where = f" at {finding.where}" if finding.where and finding.passed is False else ""
    return Text(f"{MARKS[finding.passed]}{amount(finding.difference)}{where}", style=STYLES[finding.passed])


def _quantity(finding: Finding) -> str:
    """Its name, and the reference's value of a single number."""
    shown = finding.expected is not None and finding.section in ("fit", "after")
    return f"{finding.quantity} ({number(finding.expected)})" if shown else finding.quantity


def amount(value: float | None) -> str:
    """0, 2.2e-16, or a dash for what there is none of."""
    return "-" if value is None else "0" if value == 0 else f"{value:.1e}"
