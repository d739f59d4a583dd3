"""What people see while a command runs: lines, tables, how far it is. Rich draws where there is a terminal.

With `--json` standard output belongs to the one line at the end, and all that is said on the way goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

PLAIN_LINES = 10  # of progress over the whole, where there is no terminal


def printable(text: str) -> str:
    """With control characters shown, not sent.

    In the name of a column they could move the cursor, or hide what comes before.
    """
    return "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)


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
        print(printable(text), file=self.stream, flush=True)

    def warn(self, text: str) -> None:
        """One line on standard error; the command goes on."""
        print(f"warning: {printable(text)}", file=sys.stderr, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table where people look, aligned columns where a program or a log does."""
        if not self.stream.isatty():
            self.say("\n".join([*([title] if title else []), *plain_columns(columns, rows)]))
            return
        from rich.console import Console as Rich
        from rich.table import Table

        table = Table(*columns, title=title or None, title_justify="left")
        for row in rows:
            table.add_row(*map(printable, row))
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

    @contextmanager
    def progress(self, unit: str) -> Iterator[Callable[..., None]]:
        """Yields show(done, total, words="", of=""): a bar on a terminal, elsewhere some ten lines.

        `total` is None where it is not known, which is shown on a terminal alone; `of` says of which part.
        """
        from rich.console import Console as Rich
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        stream, said = self.stream, 0
        columns = (TextColumn(unit), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
        words_column = TextColumn("{task.description}", markup=False)
        with Progress(*columns, words_column, console=Rich(file=stream), disable=not stream.isatty()) as bar:
            task = bar.add_task("", total=None)

            def show(done: int, total: int | None, words: str = "", of: str = "") -> None:
                nonlocal said
                bar.update(task, completed=done, total=total, description=printable(words))
                said = said if done >= said else 0  # another part begins anew
                if bar.disable and total is not None and done >= said + max(1, total // PLAIN_LINES):
                    said = done
                    print(printable(f"{of}{unit} {done}/{total}  {words}"), file=stream, flush=True)

            yield show


def number(value: object, low: object = None, high: object = None) -> str:
    """A number as people read it, with its interval where there is one; anything else as it is."""
    interval = f" [{number(low)}, {number(high)}]" if low is not None and high is not None else ""
    return f"{value:.4g}{interval}" if isinstance(value, float) else f"{value}{interval}"


def plain_columns(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which the columns stand below one another."""
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in [columns, *rows]]
