"""Rows that a trained network is to answer: read as its training rows were, under the kinds that their columns had.

A file comes in blocks of rows, of which one at a time is in memory. For rows that are given in Python see values.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.columns import Column, Source
from pipelines.data.delimited import Delimited, _batches
from pipelines.data.joined import File
from pipelines.data.kinds import check_names, each_value, judge
from pipelines.data.parquet import Parquet
from pipelines.data.preprocess import Preprocessing
from pipelines.data.table import DataError, NDArray
from pipelines.data.text import TextFile, open_text
from pipelines.data.words import Writing, categories, words
from pipelines.spec import DataSpec
from pipelines.spec.blocks import DELIMITED, FILES, Kind
from pipelines.spec.describe import nearest

ROWS = 65536  # of a block of Parquet; of text a block is 4 MB


class TextBlock(Delimited):
    """Some rows of a text file, as arrow cut them."""

    def __init__(self, text: TextFile, markers: Sequence[str], first: int, batch: Any) -> None:
        self.text, self.markers, self.first, self.batch = text, markers, first, batch
        self.names, self.shown, self.rows = tuple(batch.schema.names), text.shown, batch.num_rows
        self.tidiness, self.present = dict.fromkeys(self.names, 0), dict.fromkeys(self.names, 0)
        self.found: dict[str, NDArray | None] = {}

    def native(self, name: str) -> str:
        """Numeric if each cell is a number or holds no value, else text."""
        if name not in self.found:
            self.found[name] = self._numbers(name, self.batch.column(name))
        return "text" if self.found[name] is None else "numeric"

    def numbers(self, name: str) -> NDArray:
        """(rows,) float64, NaN where no value stands."""
        found = self.found[name]
        assert found is not None
        return found

    def texts(self, name: str) -> tuple[NDArray, Any]:
        """(places int32, texts)."""
        encoded = self.batch.column(name).dictionary_encode()
        return encoded.indices.to_numpy().astype(np.int32), encoded.dictionary

    def line(self, row: int) -> str:
        """Where a row stands in the file."""
        return self.text.line(self.first + row)


class TypedBlock(Parquet):
    """Some rows of a Parquet file, or what was given in Python: an arrow table, whose types say what its columns hold."""

    def __init__(self, shown: str, table: Any, first: int = 0) -> None:
        self.shown, self.table, self.first = shown, table, first
        self.types = {field.name: field.type for field in table.schema}
        self.names, self.rows = tuple(self.types), table.num_rows
        self.filled, self.narrow = set(), set()

    def line(self, row: int) -> str:
        """Where a row stands in the file."""
        return super().line(self.first + row)

    def _open(self) -> Any:
        return nullcontext(self)

    def read(self, columns: list[str]) -> Any:
        """As a file would."""
        return self.table.select(columns)


@dataclass(frozen=True)
class Rows:
    """A block under the kinds of the training rows; `block` is the spec's, with markers and spellings."""

    file: File
    block: DataSpec
    kinds: Mapping[str, Kind]
    others: Sequence[str] = ()  # columns of the file that are not needed
    orders: Mapping[str, str] = field(default_factory=dict)  # of days and months, as the training rows had them

    def source(self) -> Source:
        """With the columns that are needed, each read once."""
        kept: dict[str, Column] = {}
        return Source(
            name=self.file.shown,
            rows=self.file.rows,
            kinds={name: self.kinds[name] for name in self.file.names if name in self.kinds},
            targets=(),
            fetch=lambda name: kept[name] if name in kept else kept.setdefault(name, self.column(name)),
            line=self.file.line,
        )

    def column(self, name: str) -> Column:
        """Raises DataError, with its line, for a cell that does not hold what the training rows did."""
        kind, spellings = self.kinds[name], self.block.spellings.get(name, {})
        native = self.file.native(name) if kind != "categorical" and not spellings else "text"
        if native == kind or (native == "boolean" and kind == "numeric"):
            return Column(self.file.numbers(name))
        found, _ = words(*self.file.texts(name), self.block.missing.markers, spellings)
        if kind == "categorical":
            return Column(*categories(found))
        # Never by the cells of a block: how a file is cut must not change what 03/04/2024 means.
        stated = "" if self.block.format.dates == "auto" else self.block.format.dates
        written = Writing.of(self.block.format, self.orders.get(name, stated))
        judged = judge(name, found, kind, True, written, 0)
        if judged.breaks is not None:
            row = int(np.argmax(found.codes == judged.breaks))
            must = judged.problem.partition("; ")[0].replace("{cell}", repr(found.texts[judged.breaks].as_py()))
            raise DataError(f"{self.file.line(row)}: {must}; it did in the training rows")
        return Column(found.take(each_value(kind, found, written, stated=True), np.nan))


def blocks(path: Path, shown: str, block: DataSpec, preprocessing: Preprocessing, known: Sequence[str]) -> Iterator[Rows]:
    """A file's rows, block by block. Columns beside those of `preprocessing` are passed over; `known` may be there besides.

    Raises DataError for a file that cannot be read, or lacks a column, before the first block.
    """
    kinds, orders = preprocessing.columns, preprocessing.orders
    if not path.is_file():
        raise DataError(f"the rows must come in a file, found {'a folder' if path.is_dir() else 'nothing'} at {shown}")
    if not shown.lower().endswith(FILES):
        raise DataError(f"the rows must come in a file that ends in {', '.join(FILES)}, got {shown!r}")
    if shown.lower().endswith(DELIMITED):
        text = open_text(path, shown, block.format, [*kinds, *known])
        names, others = chosen(shown, text.names, kinds)
        first = 0
        for batch in _batches(text, names):
            yield Rows(TextBlock(text, block.missing.markers, first, batch), block, kinds, others, orders)
            first += batch.num_rows
        return
    file = Parquet(path, shown)
    names, others = chosen(shown, file.names, kinds)
    yield from (Rows(one, block, kinds, others, orders) for one in _typed(file, names))


def _typed(file: Parquet, names: Sequence[str]) -> Iterator[TypedBlock]:
    import pyarrow

    first = 0
    with file._open() as opened:
        for batch in opened.iter_batches(ROWS, columns=list(names)):
            yield TypedBlock(file.shown, pyarrow.Table.from_batches([batch]), first)
            first += batch.num_rows


def chosen(shown: str, names: Sequence[str], kinds: Mapping[str, Kind]) -> tuple[list[str], list[str]]:
    """Those that are needed, in the order of the file, and the others. Raises DataError if one is missing."""
    check_names(shown, names)
    missing = [name for name in kinds if name not in names]
    if missing:
        raise DataError(
            f"{shown}: must have the columns of the training rows, found no {', '.join(map(repr, missing[:5]))}; "
            f"{nearest(missing[0], [*names])}"
        )
    return [name for name in names if name in kinds], [name for name in names if name not in kinds]
