"""The command `data`: what is in a file, before anything is trained on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import BadParameter, Option

from pipelines.cli.options import PARAMS, Changes, Json, Params, experiment_of, page, write_page
from pipelines.cli.run import told_of
from pipelines.console import Console

if TYPE_CHECKING:
    from pipelines.data.look import ColumnLook, Look
    from pipelines.spec import DataSpec

UNKNOWN = "?"  # in place of a target that is not known
CLASSES = 10  # told of one by one on a terminal


def data(
    params: Params = PARAMS,
    changes: Changes = None,
    file: Annotated[str | None, Option("--file", metavar="FILE", help="Look at this file; the spec is not read.")] = None,
    target: Annotated[
        list[str] | None, Option("--target", metavar="COL", help="What --file is to predict; may be given several times.")
    ] = None,
    html: Annotated[Path | None, page("with histograms")] = None,
    as_json: Json = False,
) -> None:
    """Look at the data.

    Rows, columns and their kinds, gaps, classes, duplicates, suspected leaks. Works before the spec is right. Exit code 2 if
    there are errors in the data.
    """
    from pipelines.data.columns import DataError
    from pipelines.data.look import look, shown
    from pipelines.report.pages import data_page
    from pipelines.spec.file import as_option

    console, block = Console(as_json), block_of(params, changes, file, target)
    try:
        with console.reserved():
            found = look(block, Path())
    except DataError as error:
        raise DataError(as_option(str(error)) if file is not None else str(error)) from None
    show(console, found)
    if block.sha256 is None and found.source.startswith("openml:"):  # the hash to pin what was just fetched
        from pipelines.data.parts import sha256
        from pipelines.data.read import kept_at

        console.say(f"data.sha256 of this file: {sha256(kept_at(found.source, Path()))}")
    if html is not None:
        write_page(console, html, data_page(asdict(found), shown))
    console.result(asdict(found))
    if found.problems:
        count = len(found.problems)
        errors = "1 error" if count == 1 else f"{count} errors"
        raise DataError(f"{found.source}: {errors} in the data, see above; fix {'it' if count == 1 else 'them'}, then split")


def block_of(params: Path, changes: list[str] | None, file: str | None, target: list[str] | None) -> DataSpec:
    """The data block of the spec, or the default one for a file; overrides are laid over either. Raises SpecError."""
    if file is None:
        if target:
            raise BadParameter("--target goes with --file; for the spec there is --set data.target=COL")
        return experiment_of(params, changes).data
    from pipelines.spec import Experiment
    from pipelines.spec.file import values_of

    # What is not known yet is stood in for, and taken out again.
    stand_in = {"target": UNKNOWN, "sha256": "0" * 64 if file.startswith("openml:") else None}
    laid = {"data.source": file, "data.target": target or UNKNOWN, "data.sha256": stand_in["sha256"]}
    block = Experiment().override({**laid, **values_of(changes or [])}).data
    return block.model_copy(update={key: None for key, value in stand_in.items() if getattr(block, key) == value})


def show(console: Console, found: Look) -> None:
    """A table of the columns, and below it what should be looked at."""
    rows = [_row(column, found) for column in found.columns]
    headline = f"{found.source}: {found.rows:,} rows, {len(found.columns)} columns"
    console.table(headline, ("column", "kind", "missing", "values", "least, median, greatest; or most frequent"), rows)
    if found.classes:
        console.say(f"classes of {found.targets[0]} ({found.task}): {_classes(found)}")
    elif found.task:
        console.say(f"{', '.join(found.targets)}: {found.task}")
    console.say(f"duplicates, rows that repeat an earlier one: {found.duplicates:,}")
    if found.guessed:
        console.say("header: none; the first line was taken for a row. If it names the columns set data.format.header: true")
    if found.rows_left_out:
        console.say(f"rows left out: {told_of(found.rows_left_out)}")
    for line in (*found.readings, *map(str, found.suspicions), *(f"error: {problem}" for problem in found.problems)):
        console.say(line)


def _row(column: ColumnLook, found: Look) -> tuple[str, ...]:
    from pipelines.data.look import shown

    kind = "ignored" if column.kind == "ignore" else column.kind
    marks = [kind, *(["(stated)"] if column.stated else []), *(["target"] if column.name in found.targets else [])]
    missing = f"{column.missing:,} ({column.missing / found.rows:.1%})" if column.missing else "0"
    if column.note or column.problem:
        told = column.note or f"{', '.join(map(repr, column.odd))}: error, see below"
    elif column.least is not None and column.median is not None and column.greatest is not None:
        told = ", ".join(shown(column.kind, value) for value in (column.least, column.median, column.greatest))
    else:
        told = ", ".join(f"{_short(name)} ({rows:,})" for name, rows in column.frequent[:3])
        told += ", ..." if column.distinct > 3 else ""
    return column.name, " ".join(marks), missing, f"{column.distinct:,}", told


def _short(name: str, most: int = 30) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _classes(found: Look) -> str:
    told = [f"{name} {rows:,} ({rows / found.rows:.1%})" for name, rows in list(found.classes.items())[:CLASSES]]
    return ", ".join(told) + (f", ... ({len(found.classes)} in all)" if len(found.classes) > CLASSES else "")
