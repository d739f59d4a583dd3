"""Rows that a trained network is to answer, read as its training rows were; and its answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
from pyarrow.parquet import ParquetFile, ParquetWriter

from backends.weights import stream_atomically
from pipelines.data.cells.numbers import plain
from pipelines.data.columns import DataError, NDArray, Source
from pipelines.data.preprocess import Preprocessing
from pipelines.data.tables import JoinedTable, Table, TextTable, arrow_table, check_names, parquet_table
from pipelines.data.text import TextFile, open_text
from pipelines.given import as_arrow, columns_of
from pipelines.spec import DataSpec
from pipelines.spec.blocks import DELIMITED, FILES, GIVEN, Format
from pipelines.spec.describe import nearest

ROWS = 65536  # of a block of Parquet


def blocks(
    path: Path, shown: str, block: DataSpec, preprocessing: Preprocessing, known: Sequence[str], keep: Sequence[str] = ()
) -> Iterator[tuple[Source, list[str], Block]]:
    """Blocks of a file's rows, the columns that are not needed, and those to `keep`.

    A header may have the columns `known` too.
    Raises DataError at once for a file that cannot be read, or lacks a column.
    """
    if not path.is_file():
        raise DataError(f"the rows must come in a file, found {'a folder' if path.is_dir() else 'nothing'} at {shown}")
    if not shown.lower().endswith(FILES):
        raise DataError(f"the rows must come in a file that ends in {', '.join(FILES)}, got {shown!r}")
    delimited, first = shown.lower().endswith(DELIMITED), 0
    text = open_text(path, shown, block.format, [*preprocessing.columns, *known]) if delimited else None
    names, others = chosen(shown, text.names if text else parquet_table(path, shown).names, preprocessing, keep)
    columns = [*dict.fromkeys([*names, *keep])]
    with ExitStack() as stack:
        batches = text.batches(columns) if text else stack.enter_context(ParquetFile(path)).iter_batches(ROWS, columns=columns)
        for batch in batches:
            table = _table(shown, names, batch, first, text, block, preprocessing)
            yield _source(table, block, preprocessing), others, _kept(batch, keep)
            first += batch.num_rows


def _table(
    shown: str, names: Sequence[str], batch: Any, first: int, text: TextFile | None, block: DataSpec, preprocessing: Preprocessing
) -> Table:
    """A block of rows, from row `first` of its file on, as a table."""
    if text is None:
        return arrow_table(shown, pa.Table.from_batches([batch]), first)
    as_text = {*preprocessing.numbers, *preprocessing.dates}
    line = text.line
    return TextTable(shown, names, lambda some: [batch.select(list(some))], lambda row: line(first + row), block, as_text)


def _kept(batch: Any, keep: Sequence[str]) -> Block:
    """Columns of a block as the file has them: 007 stays 007, a whole number with gaps whole."""
    return {name: pandas.arrays.ArrowExtensionArray(batch.column(name)) for name in keep}


def _source(table: Table, block: DataSpec, preprocessing: Preprocessing) -> Source:
    """Rows under the kinds of the training rows.

    Raises DataError, with its line, for a cell that holds something else.
    """
    joined = JoinedTable(block, {"": table}, preprocessing)
    if block.shown_source.lower().endswith(DELIMITED):  # there -999 was a text, and a marker
        markers = plain(pa.array(block.missing.markers, pa.large_string()))
        joined.gaps = tuple(markers[np.isfinite(markers)])
    source = joined.source({name: joined.infer(name) for name in preprocessing.columns})
    for problem in source.problems.values():
        raise DataError(f"{problem.partition('; ')[0]}; it did in the training rows")
    return replace(source, fetch=cache(source.fetch))  # columns are asked for more than once


def chosen(
    shown: str, names: Sequence[str], preprocessing: Preprocessing, keep: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Those that are needed, as the file has them, and the others; raises DataError if one is missing."""
    check_names(shown, names)
    kinds = preprocessing.columns
    missing = [name for name in kinds if name not in names]
    if missing:
        raise DataError(
            f"{shown}: must have the columns of the training rows, found no {', '.join(map(repr, missing[:5]))}; "
            f"{nearest(missing[0], [*names])}"
        )
    for unmet in (name for name in keep if name not in names):
        raise DataError(f"{shown}: --keep must name a column of the file, found no {unmet!r}; {nearest(unmet, [*names])}")
    rest = [name for name in names if name not in kinds and name not in keep]
    return [name for name in names if name in kinds], rest


def text_columns(text: str, written: Mapping[str, Any], expected: Sequence[str]) -> dict[str, list[str]]:
    """Column -> cells of a text; `written` is data.format. Raises DataError."""
    how = Format.model_validate({**written, "encoding": "utf-8"})
    with NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        table = open_text(Path(file.name), GIVEN, how, expected)
        check_names(GIVEN, table.names)
        batches = [*table.batches(table.names)]
    return {name: [cell for batch in batches for cell in batch[name].to_pylist()] for name in table.names}


# -- given in Python --


def given(rows: Any, block: DataSpec, preprocessing: Preprocessing) -> Source:
    """A missing value is None, NaN or one of the spec's markers. Columns that are not needed are passed over.

    Raises DataError for a matrix that does not fit, a column that is missing, and columns of unequal length.
    """
    columns = _columns(rows, preprocessing)
    names, _ = chosen(GIVEN, list(columns), preprocessing)
    sizes = {len(columns[name]) for name in names}
    if len(sizes) > 1:
        raise DataError(f"{GIVEN}: all columns must be of one length, got {', '.join(map(str, sorted(sizes)))}")
    table = pa.table({name: as_arrow(columns[name]) for name in names})
    return _source(arrow_table(GIVEN, table), block, preprocessing)


def _columns(rows: Any, preprocessing: Preprocessing) -> dict[str, Sequence[Any] | NDArray]:
    if hasattr(rows, "columns") or isinstance(rows, Mapping):
        return columns_of(rows, "x")
    shape = f"shape {rows.shape}" if hasattr(rows, "shape") else type(rows).__name__
    kinds = preprocessing.columns
    for name, kind in kinds.items():
        if kind not in ("numeric", "boolean"):
            raise DataError(f"{GIVEN} must be a DataFrame or a mapping of columns, since {name!r} holds no numbers, got {shape}")
    X = np.asarray(rows)
    if X.ndim != 2 or X.shape[1] != len(kinds):
        first = ", ".join(list(kinds)[:3])
        raise DataError(f"{GIVEN} must be raw rows of {len(kinds)} columns ({first}, ...), got shape {X.shape}")
    return dict(zip(kinds, X.T, strict=True))


# -- answers --

Block = Mapping[str, Any]  # column -> (n,), of NumPy or pandas


@contextmanager
def writer(path: Path | None) -> Iterator[Callable[[Block], None]]:
    """Takes one block after another, all with the same columns: CSV or Parquet by the ending; CSV on standard output.

    Numbers are written to the last bit. Nothing is left of a file that could not be finished.
    """
    ending = ".csv" if path is None else path.suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise DataError(f"--out must end in .csv or .parquet, got {str(path)!r}")
    header, sinks = iter([True]), list[Any]()  # the first block's columns open a file of Parquet

    def write(block: Block) -> None:
        if ending == ".csv":
            text = pandas.DataFrame(block).to_csv(index=False, header=next(header, False), lineterminator="\n")
            file.write(text.encode())
            return
        table = pa.table({name: pa.array(values) for name, values in block.items()})
        if not sinks:
            sinks.append(stack.enter_context(ParquetWriter(file, table.schema)))
        sinks[0].write_table(table)

    with ExitStack() as stack:
        file = sys.stdout.buffer if path is None else stack.enter_context(stream_atomically(path))
        yield write
        file.flush()
