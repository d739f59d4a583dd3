"""CSV files of numbers, read strictly: a cell that is not a number is an error that says where it stands.

pyarrow reads the file whole and fast; only when it refuses is the file gone through line by line, to find the cell.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from pipelines.data.table import DataError, NDArray, Table


def read_csv(path: Path, source: str, wanted: tuple[str, ...]) -> Table:
    """A comma-separated UTF-8 file with a header. The target may hold words; every other column holds numbers."""
    from pyarrow import ArrowInvalid, float64, string
    from pyarrow.csv import ConvertOptions, ParseOptions
    from pyarrow.csv import read_csv as read

    header = _header(path, source)
    check_columns(source, header, wanted)
    types = {name: string() if name in wanted else float64() for name in header}
    try:
        columns = read(
            path,
            parse_options=ParseOptions(newlines_in_values=True),
            convert_options=ConvertOptions(null_values=[], column_types=types),
        )
    except ArrowInvalid as error:
        diagnose(path, source, wanted, str(error))
    features = tuple(name for name in header if name not in wanted)
    X = np.empty((len(columns), len(features)))
    for place, name in enumerate(features):
        X[:, place] = columns[name].to_numpy()
    if not np.isfinite(X).all():
        diagnose(path, source, wanted, "NaN or inf")
    cells = [columns[name].to_pylist() for name in wanted]
    return Table(source, features, X, wanted, _targets(path, source, wanted, cells))


def check_columns(source: str, header: list[str], wanted: tuple[str, ...]) -> None:
    """Raises DataError unless column names differ and the target is among them."""
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise DataError(f"{source}: column names must differ, found {', '.join(map(repr, twice))} more than once")
    missing = [name for name in wanted if name not in header]
    if missing or len(set(wanted)) < len(wanted):
        raise DataError(
            f"{source}: data.target must name columns of the file, each once, got "
            f"{', '.join(map(repr, missing or wanted))}; the columns are: {', '.join(header)}"
        )


def diagnose(path: Path, source: str, wanted: tuple[str, ...], reason: str) -> NoReturn:
    """Find the first row or cell that is not as it must be, and say so."""
    lines = _lines(path, source)
    _, header = next(lines)
    for number, row in lines:
        if len(row) != len(header):
            raise DataError(f"{source}:{number}: every row must have {len(header)} cells as the header has, found {len(row)}")
        for name, cell in zip(header, row, strict=True):
            problem = _problem(cell, worded=name in wanted)
            if problem:
                raise DataError(f"{source}:{number}: column {name!r} must hold a finite number, found {problem}")
    raise DataError(f"{source}: cannot be read as comma-separated numbers: {reason}")


def _problem(cell: str, worded: bool) -> str | None:
    """What is wrong with a cell; None if it is a finite number, or a word where words may stand."""
    if not cell.strip():
        return "an empty cell"
    try:
        return None if math.isfinite(float(cell.replace("_", "?"))) else repr(cell)  # Python alone reads 1_000
    except ValueError:
        return None if worded else repr(cell)


def _targets(path: Path, source: str, wanted: tuple[str, ...], cells: list[list[str]]) -> NDArray:
    """(n, m) numbers, or (n, 1) words if the one target is not all numbers."""
    y: NDArray = np.array(cells, dtype=str).T
    try:
        numbers = y.astype(np.float64)
    except ValueError:
        if any(_problem(cell, worded=True) for column in cells for cell in column):
            diagnose(path, source, wanted, "a target is missing")
        if len(wanted) > 1:
            raise DataError(f"{source}: several targets must be numbers, found words among {', '.join(wanted)}") from None
        return np.char.strip(y)
    if not np.isfinite(numbers).all():
        diagnose(path, source, wanted, "NaN or inf")
    return numbers


def _header(path: Path, source: str) -> list[str]:
    for _, row in _lines(path, source):
        return row
    raise DataError(f"{source}: the file must have a header and rows, found an empty file")


def _lines(path: Path, source: str) -> Iterator[tuple[int, list[str]]]:
    """(line in the file, cells) of every line that is not blank."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader: Any = csv.reader(file)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source}: the text must be UTF-8, found {error.object[error.start]:#04x} at byte {error.start}"
        ) from None
    except csv.Error as error:
        raise DataError(f"{source}:{reader.line_num}: cannot be read as CSV: {error}") from None
