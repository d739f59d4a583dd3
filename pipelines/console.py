"""What people see while a command runs: progress over epochs, plain lines where there is no terminal, a closing table.

With `--json` standard output belongs to the one line at the end, and all that is said on the way goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from pipelines.search.tally import Look

SECONDS_BEFORE_A_BAR = 2.0
PLAIN_LINES = 10  # of progress over a whole run, where there is no terminal


class Console:
    """Where to say things. `as_json` keeps standard output for `Console.result`."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self._stdout = sys.stdout

    @property
    def stream(self) -> TextIO:
        """Where words for people go."""
        return sys.stderr if self.as_json else sys.stdout

    def say(self, text: str) -> None:
        """One line for people."""
        print(text, file=self.stream, flush=True)

    def warn(self, text: str) -> None:
        """One line on standard error; the command goes on."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table where people look, aligned columns where a program or a log does."""
        if self.stream.isatty():
            _rich_table(self.stream, title, columns, rows)
        else:
            self.say("\n".join([*([title] if title else []), *plain_columns(columns, rows)]))

    def result(self, numbers: Mapping[str, Any]) -> None:
        """The one line of `--json`."""
        if self.as_json:
            print(json.dumps(numbers, allow_nan=False), file=self._stdout, flush=True)

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Under `--json`, whatever a framework prints to standard output, from C too, goes to standard error."""
        if not self.as_json:
            yield
            return
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(kept, 1)
            os.close(kept)


class Counting:
    """How many of something are done, on a terminal, where it takes longer than two seconds: call it with the number so far."""

    def __init__(self, console: Console, what: str) -> None:
        self.stream, self.what, self.began, self.shown = console.stream, what, time.monotonic(), False

    def __enter__(self) -> Counting:
        return self

    def __call__(self, done: int) -> None:
        """Over the line before."""
        if self.stream.isatty() and time.monotonic() - self.began > SECONDS_BEFORE_A_BAR:
            print(f"\r{done} {self.what}", end="", file=self.stream, flush=True)
            self.shown = True

    def __exit__(self, *_: object) -> None:
        if self.shown:
            print(file=self.stream)


class Epochs:
    """Progress over epochs: call it with each epoch's record; a bar appears if the work takes longer than two seconds."""

    def __init__(self, console: Console, total: int) -> None:
        self.stream, self.total, self.began = console.stream, total, time.monotonic()
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Epochs:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, record: Mapping[str, float]) -> None:
        """An epoch is over; `record` as the supervisor made it."""
        if self.stream.isatty():
            self._advance(record)
        elif int(record["epoch"]) % max(1, self.total // PLAIN_LINES) == 0:
            fold = f"fold {record['fold']:.0f}, " if "fold" in record else ""
            print(f"{fold}epoch {record['epoch']:.0f}/{self.total}  {_losses(record)}", file=self.stream, flush=True)

    def _advance(self, record: Mapping[str, float]) -> None:
        if self.bar is None and time.monotonic() - self.began > SECONDS_BEFORE_A_BAR:
            self.bar, self.task = _rich_bar(self.stream, self.total)
        if self.bar is not None:
            self.bar.update(self.task, completed=int(record["epoch"]), losses=_losses(record))


class Trials:
    """Progress of a study: call it with each look; a bar appears if the work takes longer than two seconds."""

    def __init__(self, console: Console) -> None:
        self.stream, self.began = console.stream, time.monotonic()
        self.first: int | None = None  # trials that were over before
        self.bar: Any = None
        self.task: Any = None
        self.said = 0

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, look: Look) -> None:
        """Where the study stands now."""
        over = sum(look.states.values())
        self.first = over if self.first is None else self.first
        words = self.words(look, over - self.first)
        if self.stream.isatty():
            self._advance(look.total, over, words)
        elif over >= self.said + max(1, look.total // PLAIN_LINES):
            self.said = over
            print(f"trial {over}/{look.total}  {words}", file=self.stream, flush=True)

    def words(self, look: Look, done: int) -> str:
        """best 0.0512 (trial 31), 32 running, 9 pruned, 1 failed, 24 trials a minute."""
        minutes = (time.monotonic() - self.began) / 60
        told = [
            f"best {number(look.best[0])} (trial {look.best[1]})" if look.best else "",
            f"{look.running} running" if look.running else "",
            f"{look.states.get('PRUNED', 0)} pruned" if look.states.get("PRUNED") else "",
            f"{look.states.get('FAIL', 0)} failed" if look.states.get("FAIL") else "",
            f"{look.saved:.0%} of the epochs saved by pruning" if look.saved else "",
            f"{done / minutes:.0f} trials a minute" if done else "",
        ]
        return ", ".join(word for word in told if word)

    def _advance(self, total: int, over: int, words: str) -> None:
        if self.bar is None and time.monotonic() - self.began > SECONDS_BEFORE_A_BAR:
            self.bar, self.task = _rich_bar(self.stream, total, "trial")
        if self.bar is not None:
            self.bar.update(self.task, completed=over, losses=words)


def number(value: object) -> str:
    """A number as people read it, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plain_columns(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which the columns stand below one another."""
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in [columns, *rows]]


def _losses(record: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {record[name]:.4g}" for name in ("train_objective", "val_loss") if name in record)


def _rich_table(stream: TextIO, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console as Rich
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Rich(file=stream).print(table)


def _rich_bar(stream: TextIO, total: int, unit: str = "epoch") -> tuple[Any, Any]:
    from rich.console import Console as Rich
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(unit), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[losses]}"))
    bar = Progress(*columns, console=Rich(file=stream))
    bar.start()
    return bar, bar.add_task("", total=total, losses="")
