"""Parquet files, column by column. Their types say what a column holds; a number or a date written as text stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.dates import MICROSECONDS_A_DAY
from pipelines.data.table import DataError, NDArray
from pipelines.data.words import LARGEST


class Parquet:
    """The columns of a Parquet file. Raises DataError if it is none."""

    def __init__(self, path: Path, shown: str) -> None:
        import pyarrow

        self.path, self.shown = path, shown
        try:
            with self._open() as file:
                self.types = {field.name: field.type for field in file.schema_arrow}
                self.names = tuple(file.schema_arrow.names)
                self.rows = int(file.metadata.num_rows)
                self.filled, self.narrow = _surely_filled(file), _surely_narrow(file)
        except (pyarrow.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(f"{shown}: must be a Parquet file, found something else: {error}") from None

    def native(self, name: str) -> str:
        """What the type says: numeric, wide, boolean, datetime, text or nothing; DataError for another type."""
        from pyarrow import types

        kind = self.types[name]
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if types.is_null(kind) or (name not in self.filled and self._read(name).null_count == self.rows):
            return "nothing"
        if types.is_integer(kind) and self._wide(name):
            return "wide"
        if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
            return "numeric"
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

        cells, scale = self._read(name), 1
        if types.is_dictionary(cells.type):
            cells = cells.cast(cells.type.value_type)
        if types.is_date(cells.type) or types.is_timestamp(cells.type):
            zone = getattr(cells.type, "tz", None)
            cells = cells.cast(pyarrow.timestamp("us", zone), safe=False).cast(pyarrow.int64())
            scale = MICROSECONDS_A_DAY
        values: NDArray = cells.cast(pyarrow.float64(), safe=False).to_numpy()
        if np.isinf(values).any():
            row = int(np.isinf(values).argmax())
            raise DataError(f"{self.line(row)}: column {name!r} must hold finite numbers, found {values[row]}")
        return values / scale if scale > 1 else values

    def texts(self, name: str) -> tuple[NDArray, Any]:
        """(places int32, texts)."""
        import pyarrow

        cells = self._read(name)
        if pyarrow.types.is_dictionary(cells.type):
            cells = cells.cast(cells.type.value_type)
        if pyarrow.types.is_nested(cells.type) or pyarrow.types.is_binary(cells.type):  # ignored, and looked at as what it says
            cells = pyarrow.chunked_array([pyarrow.array(map(_spelled, cells.to_pylist()), pyarrow.large_string())])
        whole = cells.cast(pyarrow.large_string()).dictionary_encode().combine_chunks()
        if isinstance(whole, pyarrow.ChunkedArray):  # of no rows
            whole = pyarrow.array([], pyarrow.large_string()).dictionary_encode()
        return whole.indices.fill_null(-1).to_numpy().astype(np.int32), whole.dictionary

    def _wide(self, name: str) -> bool:
        """Whole numbers of which float64 would lose digits?"""
        from pyarrow import compute, types

        if name in self.narrow:
            return False
        cells = self._read(name)
        ends = compute.min_max(cells.cast(cells.type.value_type) if types.is_dictionary(cells.type) else cells).as_py()
        return max(abs(ends["min"] or 0), abs(ends["max"] or 0)) > LARGEST

    def line(self, row: int) -> str:
        """Where a row stands."""
        return f"{self.shown}, row {row + 1}"

    def _open(self) -> Any:
        from pyarrow.parquet import ParquetFile

        return ParquetFile(self.path)

    def _read(self, name: str) -> Any:
        """A column, with NaN for null as pandas writes it."""
        from pyarrow import compute, types

        with self._open() as file:
            cells = file.read(columns=[name]).column(0)
        if types.is_float16(cells.type):
            cells = cells.cast("float32")
        if types.is_floating(cells.type) and cells.null_count == 0 and name not in self.filled:
            cells = compute.if_else(compute.is_nan(cells), None, cells)
        return cells


def _spelled(value: Any) -> str | None:
    return None if value is None else str(value)


def _surely_filled(file: Any) -> set[str]:
    """Columns of which the file's own statistics say that a value stands in them. NaN is in no statistics."""
    found = set()
    for group in range(file.metadata.num_row_groups):
        about = file.metadata.row_group(group)
        for place in range(about.num_columns):
            column = about.column(place)
            if column.statistics is not None and column.statistics.has_min_max:
                found.add(column.path_in_schema)
    return found


def _surely_narrow(file: Any) -> set[str]:
    """Columns of whole numbers of which the file's own statistics say that float64 holds each."""
    beyond, found = set(), set()
    for group in range(file.metadata.num_row_groups):
        about = file.metadata.row_group(group)
        for place in range(about.num_columns):
            column = about.column(place)
            found.add(column.path_in_schema)
            known = column.statistics is not None and column.statistics.has_min_max
            ends = (column.statistics.min, column.statistics.max) if known else (None, None)
            if not all(isinstance(end, int) and abs(end) <= LARGEST for end in ends):
                beyond.add(column.path_in_schema)
    return found - beyond
