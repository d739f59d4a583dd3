"""Columns of one file, or of rows given in Python, as pyarrow has them: numbers, or each different text once and its places.

`TextTable` holds a delimited file in memory, typed block by block; `ParquetTable` reads a column when it is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipelines.data import formats
from pipelines.data.columns import DataError, NDArray
from pipelines.data.text import TextFile

ROWS = 65536  # of a block that Python has cut
BLOCK = 1 << 20  # bytes of text that are cut into cells at a time


class Table(Protocol):
    """What a reader of one file offers."""

    shown: str
    names: tuple[str, ...]
    rows: int

    def type_of(self, name: str) -> str:
        """numeric, wide (whole numbers of which float64 would lose digits), boolean, datetime, text or nothing."""

    def numbers(self, name: str) -> NDArray:
        """(rows,) float64 of a column that is no text; NaN where no value stands."""

    def texts(self, name: str) -> tuple[NDArray, Any]:
        """(places int32 or -1, texts, which may repeat)."""

    def line(self, row: int) -> str:
        """How a message names a row, counted from 0."""


class TextTable:
    """Cells of text. A column is numbers if every cell is one, else text from the first row on: `007` leaves `7` a text too.

    `batches` gives blocks of rows of the columns that it is asked for, every cell a string. `as_text` are text whatever they look
    like. `unnamed` columns have no name in the header; `guessed`: the first line was taken for a row.
    """

    def __init__(
        self,
        shown: str,
        names: Sequence[str],
        batches: Callable[[Sequence[str]], Iterable[Any]],
        markers: Sequence[str],
        decimal: str = ".",
        as_text: Collection[str] = (),
        line: Callable[[int], str] | None = None,
    ) -> None:
        self.shown, self.names, self.batches, self.markers, self.decimal = shown, tuple(names), batches, markers, decimal
        self.line = line or (lambda row: f"{shown}:{row + 1}")
        self.unnamed, self.guessed, self.rows = frozenset[str](), False, 0
        self.is_numeric = {name: name not in as_text for name in self.names}
        self.blocks: dict[str, list[Any]] = {}
        late = self._read(self.names)
        if late:  # text after blocks of numbers: what the numbers looked like is read again
            self._read(late)

    @staticmethod
    def of_file(text: TextFile, markers: Sequence[str], as_text: Collection[str]) -> TextTable:
        """All rows of a delimited file. Raises DataError for ragged rows."""
        table = TextTable(text.shown, text.names, partial(read_batches, text), markers, text.decimal, as_text, text.line)
        table.unnamed, table.guessed = text.unnamed, text.guessed
        return table

    def type_of(self, name: str) -> str:
        """numeric, text or nothing."""
        if not self.is_numeric[name]:
            return "text"
        return "numeric" if any(np.isfinite(block).any() for block in self.blocks[name]) else "nothing"

    def numbers(self, name: str) -> NDArray:
        """(rows,) float64."""
        return np.concatenate(self.blocks[name] or [np.empty(0)])

    def texts(self, name: str) -> tuple[NDArray, Any]:
        """(places int32, texts). A numeric column is read anew."""
        import pyarrow

        if self.is_numeric[name]:
            self.is_numeric[name] = False
            self._read([name])
        none = pyarrow.array([], pyarrow.large_string()).dictionary_encode()
        return _places_and_texts(pyarrow.chunked_array(self.blocks[name] or [none]))

    def _read(self, names: Sequence[str]) -> list[str]:
        """Keep these columns; returns those that turned out to be text after numbers of theirs had been kept."""
        self.blocks |= {name: [] for name in names}
        self.rows, late = 0, []
        for batch in self.batches(names):
            self.rows += batch.num_rows
            for name, cells in zip(names, batch.columns, strict=True):
                if name not in late and not self._keep(name, cells):
                    late.append(name)
        return late

    def _keep(self, name: str, cells: Any) -> bool:
        """False where the column held numbers so far, and cannot any more."""
        if self.is_numeric[name]:
            numbers = parsed_numbers(cells, self.markers, self.decimal)
            if numbers is not None:
                self.blocks[name].append(numbers.to_numpy(zero_copy_only=False).copy())
                return True
            self.is_numeric[name] = False
            if self.blocks[name]:
                return False
        self.blocks[name].append(cells.dictionary_encode())
        return True


def parsed_numbers(cells: Any, markers: Sequence[str], decimal: str) -> Any:
    """A block of cells as float64, null where a marker stands; None unless all others are finite numbers that lose no digits."""
    import pyarrow
    from pyarrow import compute

    stripped = compute.utf8_trim_whitespace(cells)
    missing = compute.is_in(stripped, pyarrow.array(markers, stripped.type))
    present = formats.with_point(compute.if_else(missing, pyarrow.scalar(None, stripped.type), stripped), decimal)
    with_zero = compute.filter(present, compute.starts_with(present, "0"))
    if compute.any(compute.match_substring_regex(with_zero, formats.CODE)).as_py():
        return None
    try:
        values = present.cast(pyarrow.float64())
    except pyarrow.ArrowInvalid:
        return None
    if compute.any(compute.invert(compute.is_finite(values))).as_py():
        return None
    large = compute.any(compute.greater(compute.abs(values), formats.LARGEST)).as_py()
    return None if large and formats.wide(present.drop_null()).any() else values


def read_batches(text: TextFile, names: Sequence[str]) -> Iterator[Any]:
    """Blocks of rows, every cell a string. Raises DataError for ragged rows, and for a quote that is not closed."""
    import pyarrow

    if text.delimiter == " ":  # runs of spaces, which pyarrow does not know
        text.check_characters()
        for batch in as_batches(text.names, _whole_rows(text)):
            yield batch.select(list(names))
        return
    several_lines = _ends_within_quotes(text)
    try:
        with text.open() as file:
            for batch in _cut(text, file, names):
                contents = [_bytes_of(cells) for cells in batch.columns]
                if any(b"\0" in content for content in contents):
                    text.check_characters()
                several_lines = several_lines or any(b"\n" in content for content in contents)
                yield batch
    except (pyarrow.ArrowInvalid, UnicodeDecodeError) as error:
        text.diagnose(str(error))
    if several_lines:
        text.check_quotes()


def _cut(text: TextFile, file: Any, names: Sequence[str]) -> Iterator[Any]:
    """What pyarrow makes of a file."""
    import pyarrow
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

    if next(text.rows(), None) is None:
        return
    size = max(BLOCK, 8 * len(",".join(text.names)))  # a row must fit
    encoding = "utf8" if text.encoding.startswith("utf-8") else text.encoding
    read = ReadOptions(
        column_names=list(text.names), skip_rows=text.first - 1, block_size=size, use_threads=False, encoding=encoding
    )
    parse = ParseOptions(delimiter=text.delimiter, quote_char=text.quote or False, newlines_in_values=True)
    types = dict.fromkeys(text.names, pyarrow.large_string())
    convert = ConvertOptions(null_values=[], column_types=types, include_columns=list(names))
    with open_csv(file, read_options=read, parse_options=parse, convert_options=convert) as reader:
        yield from reader
    pyarrow.default_memory_pool().release_unused()  # what the strings took


def _ends_within_quotes(text: TextFile) -> bool:
    """Is a quote opened in the last line and never closed? pyarrow does not mind."""
    with text.open() as file:
        last = deque(file, 1)
    return bool(text.quote and last) and last[0].count((text.quote or "").encode()) % 2 == 1


def _whole_rows(text: TextFile) -> Iterator[list[str]]:
    for _, row in text.rows(strict=True):
        if len(row) != len(text.names):
            text.diagnose("")
        yield row


def as_batches(names: Sequence[str], rows: Iterator[list[str]]) -> Iterator[Any]:
    """Rows of Python's as arrow has them, some at a time."""
    import pyarrow

    while some := list(islice(rows, ROWS)):
        columns = [pyarrow.array(cells, pyarrow.large_string()) for cells in zip(*some, strict=True)]
        yield pyarrow.record_batch(columns, list(names))


def _bytes_of(cells: Any) -> bytes:
    data = cells.buffers()[2]
    return data.to_pybytes() if data is not None else b""


def _places_and_texts(encoded: Any) -> tuple[NDArray, Any]:
    """Of a chunked dictionary array."""
    whole = encoded.unify_dictionaries().combine_chunks()
    return whole.indices.fill_null(-1).to_numpy().astype(np.int32), whole.dictionary


class ParquetTable:
    """A Parquet file. Its types say what a column holds. Raises DataError if it is none."""

    def __init__(self, path: Path, shown: str) -> None:
        import pyarrow

        self.path, self.shown = path, shown
        try:
            with self.open() as file:
                self.types = {field.name: field.type for field in file.schema_arrow}
                self.names = tuple(file.schema_arrow.names)
                self.rows = int(file.metadata.num_rows)
        except (pyarrow.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(f"{shown}: must be a Parquet file, found something else: {error}") from None

    def open(self) -> Any:
        """The file."""
        from pyarrow.parquet import ParquetFile

        return ParquetFile(self.path)

    def read(self, name: str) -> Any:
        """A column as the file has it."""
        with self.open() as file:
            return file.read(columns=[name]).column(0)

    def line(self, row: int) -> str:
        """Where a row stands."""
        return f"{self.shown}, row {row + 1}"

    def type_of(self, name: str) -> str:
        """What the type says; DataError for one that holds no single values."""
        from pyarrow import types

        kind = self.types[name]
        kind = kind.value_type if types.is_dictionary(kind) else kind
        cells = None if types.is_nested(kind) else self._cells(name)
        if cells is not None and cells.null_count == self.rows:
            return "nothing"
        if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
            return "wide" if _is_wide(kind, cells) else "numeric"
        if types.is_boolean(kind):
            return "boolean"
        if types.is_date(kind) or types.is_timestamp(kind):
            return "datetime"
        if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            return "text"
        raise DataError(
            f"{self.shown}: column {name!r} must hold numbers, text, truth values or dates, found {kind}; set "
            f"data.columns: {{{name}: ignore}}"
        )

    def numbers(self, name: str) -> NDArray:
        """(rows,) float64, NaN where no value stands; dates as days since 1970-01-01 UTC. Raises DataError for inf."""
        import pyarrow
        from pyarrow import types

        cells, scale = self._cells(name), 1
        if types.is_date(cells.type) or types.is_timestamp(cells.type):
            zone = getattr(cells.type, "tz", None)
            cells = cells.cast(pyarrow.timestamp("us", zone), safe=False).cast(pyarrow.int64())
            scale = formats.MICROSECONDS_A_DAY
        values: NDArray = cells.cast(pyarrow.float64(), safe=False).to_numpy()
        if np.isinf(values).any():
            row = int(np.isinf(values).argmax())
            raise DataError(f"{self.line(row)}: column {name!r} must hold finite numbers, found {values[row]}")
        return values / scale if scale > 1 else values

    def texts(self, name: str) -> tuple[NDArray, Any]:
        """(places int32, texts)."""
        import pyarrow

        cells = self._cells(name)
        if pyarrow.types.is_nested(cells.type) or pyarrow.types.is_binary(cells.type):  # ignored, and shown as Python shows it
            spelled = [None if value is None else str(value) for value in cells.to_pylist()]
            cells = pyarrow.chunked_array([pyarrow.array(spelled, pyarrow.large_string())])
        return _places_and_texts(cells.cast(pyarrow.large_string()).dictionary_encode())

    def _cells(self, name: str) -> Any:
        """A column without dictionaries, and with null for NaN, as pandas writes it."""
        from pyarrow import compute, types

        cells = self.read(name)
        if types.is_dictionary(cells.type):
            cells = cells.cast(cells.type.value_type)
        if types.is_float16(cells.type):
            cells = cells.cast("float32")
        return compute.if_else(compute.is_nan(cells), None, cells) if types.is_floating(cells.type) else cells


def _is_wide(kind: Any, cells: Any) -> bool:
    """Whole numbers of which float64 would lose digits?"""
    from pyarrow import compute, types

    if not (types.is_integer(kind) or (types.is_decimal(kind) and kind.scale <= 0)):
        return False
    ends = compute.min_max(cells).as_py()
    return max(abs(ends["min"] or 0), abs(ends["max"] or 0)) > formats.LARGEST


class TypedTable(ParquetTable):
    """An arrow table: some rows of a Parquet file, or what was given in Python."""

    def __init__(self, shown: str, table: Any, first: int = 0) -> None:
        self.shown, self.table, self.first = shown, table, first
        self.types = {field.name: field.type for field in table.schema}
        self.names, self.rows = tuple(self.types), table.num_rows

    def line(self, row: int) -> str:
        """Where a row stands in the file."""
        return super().line(self.first + row)

    def read(self, name: str) -> Any:
        """A column as it was given."""
        return self.table.column(name)
