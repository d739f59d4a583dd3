"""Parquet files of numbers, read strictly, column by column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.delimited import check_columns
from pipelines.data.table import DataError, NDArray, Table


def read_parquet(path: Path, source: str, wanted: tuple[str, ...]) -> Table:
    """A Parquet file. The target may hold words; every other column holds numbers."""
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            header = list(file.schema_arrow.names)
            check_columns(source, header, wanted)
            columns = file.read()
    except ArrowInvalid as error:
        raise DataError(f"{source}: must be a Parquet file: {error}") from None
    features = tuple(name for name in header if name not in wanted)
    X = np.empty((len(columns), len(features)))
    for place, name in enumerate(features):
        X[:, place] = _numbers(source, name, columns[name])
    return Table(source, features, X, wanted, _targets(source, wanted, columns))


def _targets(source: str, wanted: tuple[str, ...], columns: Any) -> NDArray:
    first = columns[wanted[0]]
    if len(wanted) == 1 and str(first.type) in {"string", "large_string"}:
        _refuse_missing(source, wanted[0], first)
        return np.array([first.to_pylist()], dtype=str).T
    return np.stack([_numbers(source, name, columns[name]) for name in wanted], axis=1)


def _numbers(source: str, name: str, column: Any) -> NDArray:
    """A column as float64; DataError for another kind, a missing value, NaN or inf."""
    from pyarrow import types

    kind = column.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        raise DataError(f"{source}: column {name!r} must hold numbers, found {kind}")
    _refuse_missing(source, name, column)
    values: NDArray = column.to_numpy().astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(f"{source}: column {name!r} must hold finite numbers, found {values[bad[0]]} in row {bad[0] + 1}")
    return values


def _refuse_missing(source: str, name: str, column: Any) -> None:
    if column.null_count:
        row = column.is_null().to_numpy().argmax() + 1
        raise DataError(f"{source}: column {name!r} must have a value in every row, found none in row {row}")
