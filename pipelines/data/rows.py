"""Rows that a trained network is to answer, read under the kinds that its training rows' columns had; and its answers.

A file comes in blocks of rows, of which one at a time is in memory. Rows that are given in Python are a DataFrame, a mapping of
columns, or, where all columns are numbers, a matrix; they are read as those of a Parquet file are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from backends.weights import stream_atomically
from pipelines.data.columns import Column, DataError, NDArray, Source
from pipelines.data.inference import Inference, TextFormat, clean, values_of
from pipelines.data.preprocess import Preprocessing
from pipelines.data.read import check_names
from pipelines.data.tables import ParquetTable, Table, TextTable, TypedTable, read_batches
from pipelines.data.text import TextFile, open_text
from pipelines.spec import DataSpec
from pipelines.spec.blocks import DELIMITED, FILES
from pipelines.spec.describe import nearest

ROWS = 65536  # of a block of Parquet
GIVEN = "the rows"  # as messages call those that are given in Python


@dataclass(frozen=True)
class Rows:
    """A block under the kinds of the training rows; `block` is the spec's, with markers and spellings."""

    table: Table
    block: DataSpec
    preprocessing: Preprocessing
    others: Sequence[str] = ()  # columns of the file that are not needed

    def source(self) -> Source:
        """With the columns that are needed, each read once."""
        kept: dict[str, Column] = {}
        kinds = self.preprocessing.columns
        return Source(
            name=self.table.shown,
            rows=self.table.rows,
            kinds={name: kinds[name] for name in self.table.names if name in kinds},
            targets=(),
            fetch=lambda name: kept[name] if name in kept else kept.setdefault(name, self.column(name)),
            line=self.table.line,
        )

    def column(self, name: str) -> Column:
        """Raises DataError, with its line, for a cell that does not hold what the training rows did."""
        kind, spellings = self.preprocessing.columns[name], self.block.spellings.get(name, {})
        native = self.table.type_of(name) if kind != "categorical" and not spellings else "text"
        if native == kind or (native, kind) in (("boolean", "numeric"), ("nothing", "numeric")):
            return Column(self.table.numbers(name))
        found, _ = clean(*self.table.texts(name), self.block.missing.markers, spellings)
        if kind == "categorical":
            return found.categories()
        # Never by the cells of a block: how a file is cut must not change what 03/04/2024 means.
        stated = "" if self.block.format.dates == "auto" else self.block.format.dates
        decimal = "," if self.block.format.decimal == "comma" else "."
        how = TextFormat(decimal, self.preprocessing.orders.get(name, stated))
        inferred = Inference(name, found, how).input(kind, 0)
        if inferred.row is not None:
            must = inferred.problem.partition("; ")[0]
            raise DataError(f"{self.table.line(inferred.row)}: {must}; it did in the training rows")
        return Column(found.spread(values_of(kind, found.texts, how, stated=True)))


def blocks(path: Path, shown: str, block: DataSpec, preprocessing: Preprocessing, known: Sequence[str]) -> Iterator[Rows]:
    """A file's rows, block by block. Columns beside those of `preprocessing` are passed over; `known` may be there besides.

    Raises DataError for a file that cannot be read, or lacks a column, before the first block.
    """
    kinds = preprocessing.columns
    if not path.is_file():
        raise DataError(f"the rows must come in a file, found {'a folder' if path.is_dir() else 'nothing'} at {shown}")
    if not shown.lower().endswith(FILES):
        raise DataError(f"the rows must come in a file that ends in {', '.join(FILES)}, got {shown!r}")
    if shown.lower().endswith(DELIMITED):
        text = open_text(path, shown, block.format, [*kinds, *known])
        names, others = chosen(shown, text.names, preprocessing)
        first = 0
        for batch in read_batches(text, names):
            yield Rows(_text_block(text, batch, first, block.missing.markers), block, preprocessing, others)
            first += batch.num_rows
    else:
        file = ParquetTable(path, shown)
        names, others = chosen(shown, file.names, preprocessing)
        for table in _typed_blocks(file, names):
            yield Rows(table, block, preprocessing, others)


def _text_block(text: TextFile, batch: Any, first: int, markers: Sequence[str]) -> TextTable:
    return TextTable(
        text.shown,
        batch.schema.names,
        lambda names: [batch.select(list(names))],
        markers,
        text.decimal,
        line=lambda row: text.line(first + row),
    )


def _typed_blocks(file: ParquetTable, names: Sequence[str]) -> Iterator[TypedTable]:
    import pyarrow

    first = 0
    with file.open() as opened:
        for batch in opened.iter_batches(ROWS, columns=list(names)):
            yield TypedTable(file.shown, pyarrow.Table.from_batches([batch]), first)
            first += batch.num_rows


def chosen(shown: str, names: Sequence[str], preprocessing: Preprocessing) -> tuple[list[str], list[str]]:
    """Those that are needed, in the order of the file, and the others. Raises DataError if one is missing."""
    check_names(shown, names)
    kinds = preprocessing.columns
    missing = [name for name in kinds if name not in names]
    if missing:
        raise DataError(
            f"{shown}: must have the columns of the training rows, found no {', '.join(map(repr, missing[:5]))}; "
            f"{nearest(missing[0], [*names])}"
        )
    return [name for name in names if name in kinds], [name for name in names if name not in kinds]


# -- given in Python --------------------------------------------------------------------------------------------------------


def given(rows: Any, block: DataSpec, preprocessing: Preprocessing) -> Rows:
    """A missing value is None, NaN or one of the spec's markers. Columns that are not needed are passed over.

    Raises DataError for a matrix that does not fit, a column that is missing, and columns of unequal length.
    """
    import pyarrow

    columns = _columns(rows, preprocessing)
    names, others = chosen(GIVEN, list(columns), preprocessing)
    sizes = {len(columns[name]) for name in names}
    if len(sizes) > 1:
        raise DataError(f"{GIVEN}: all columns must be of one length, got {', '.join(map(str, sorted(sizes)))}")
    table = pyarrow.table({name: _as_arrow(columns[name]) for name in names})
    return Rows(TypedTable(GIVEN, table), block, preprocessing, others)


def _columns(rows: Any, preprocessing: Preprocessing) -> dict[str, Sequence[Any] | NDArray]:
    names = rows.columns if hasattr(rows, "columns") else rows if isinstance(rows, Mapping) else None
    if names is not None:
        return {str(name): rows[name] for name in names}
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


def _as_arrow(values: Any) -> Any:
    """As arrow takes it; of values that are no one type, as text."""
    import pyarrow

    array = np.asarray(values, dtype=object if isinstance(values, list | tuple) else None)
    try:
        return pyarrow.array(array, from_pandas=True)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        return pyarrow.array([None if _is_missing(value) else str(value) for value in array.tolist()])


def _is_missing(value: Any) -> bool:
    return value is None or (not isinstance(value, str) and str(value) in ("nan", "NaT", "<NA>"))


# -- answers ----------------------------------------------------------------------------------------------------------------

Block = Mapping[str, NDArray]  # column -> (n,)


@contextmanager
def writer(path: Path | None) -> Iterator[Callable[[Block], None]]:
    """Takes one block after another, all with the same columns: CSV or Parquet by the ending; CSV on standard output.

    Numbers are written to the last bit. Nothing is left of a file that could not be finished.
    """
    if path is None:
        yield _CsvWriter(sys.stdout.buffer).write
        sys.stdout.buffer.flush()
        return
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise DataError(f"--out must end in .csv or .parquet, got {str(path)!r}")
    with stream_atomically(path) as file, ExitStack() as stack:
        yield _CsvWriter(file).write if path.suffix.lower() == ".csv" else _ParquetWriter(file, stack).write


@dataclass
class _CsvWriter:
    file: IO[bytes]
    header: bool = True  # is still to be written

    def write(self, block: Block) -> None:
        import pandas

        text = pandas.DataFrame(block).to_csv(index=False, header=self.header, lineterminator="\n")
        self.file.write(text.encode())
        self.header = False


@dataclass
class _ParquetWriter:
    file: IO[bytes]
    stack: ExitStack  # closes what is opened here
    sink: Any = None

    def write(self, block: Block) -> None:
        import pyarrow
        from pyarrow.parquet import ParquetWriter

        table = pyarrow.table({name: pyarrow.array(values) for name, values in block.items()})
        self.sink = self.sink or self.stack.enter_context(ParquetWriter(self.file, table.schema))
        self.sink.write_table(table)
