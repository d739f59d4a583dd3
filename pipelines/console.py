"""What people see while a command runs: lines, tables, how far it is. Rich draws where there is a terminal.

With `--json` standard output belongs to the one line at the end, and all that is said on the way goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

SECONDS_BEFORE_A_BAR = 2.0
PLAIN_LINES = 10  # of progress over the whole, where there is no terminal


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
        if not self.stream.isatty():
            self.say("\n".join([*([title] if title else []), *plain_columns(columns, rows)]))
            return
        from rich.console import Console as Rich
        from rich.table import Table

        table = Table(*columns, title=title or None, title_justify="left")
        for row in rows:
            table.add_row(*row)
        Rich(file=self.stream, markup=False).print(table)

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


class Progress:
    """How many of something are done: a bar on a terminal once it takes two seconds, else some ten lines."""

    def __init__(self, console: Console, unit: str) -> None:
        self.stream, self.unit, self.began = console.stream, unit, time.monotonic()
        self.told = 0
        self.bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, done: int, total: int | None, words: str = "", of: str = "") -> None:
        """So many are done of `total`, or of an unknown number, which is told on a terminal alone. `of`: of which part."""
        if self.stream.isatty():
            self._advance(done, total, words)
        elif total is not None:
            self.told = self.told if done >= self.told else 0  # another part begins anew
            if done >= self.told + max(1, total // PLAIN_LINES):
                self.told = done
                print(f"{of}{self.unit} {done}/{total}  {words}", file=self.stream, flush=True)

    def _advance(self, done: int, total: int | None, words: str) -> None:
        if self.bar is None and time.monotonic() - self.began > SECONDS_BEFORE_A_BAR:
            self.bar = _bar(self.stream, self.unit)
            self.bar.add_task("", total=total, words=words)
            self.bar.start()
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=done, total=total, words=words)


def _bar(stream: TextIO, unit: str) -> Any:
    from rich.console import Console as Rich
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    words = TextColumn("{task.fields[words]}", markup=False)
    return Progress(TextColumn(unit), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), words, console=Rich(file=stream))


def number(value: object) -> str:
    """A number as people read it, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plain_columns(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which the columns stand below one another."""
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in [columns, *rows]]
