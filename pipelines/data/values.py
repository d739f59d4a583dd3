"""Raw rows that are given in Python: a DataFrame, a mapping of columns, or, where all columns are numbers, a matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from pipelines.data.columns import Column, Source
from pipelines.data.table import DataError, NDArray
from pipelines.data.words import FALSE, TRUE
from pipelines.spec.blocks import Kind

DAY = np.timedelta64(1, "D")


def source_of(rows: Any, kinds: Mapping[str, Kind]) -> Source:
    """Rows with the columns of `kinds`; a missing value is None or NaN. Columns of other names are kept as they are, ignored.

    Raises DataError for a matrix that does not fit, columns of unequal length, and values that are not of their kind.
    """
    given = _columns(rows, kinds)
    sizes = {len(values) for values in given.values()}
    if len(sizes) != 1:
        raise DataError(f"X: all columns must be of one length, got {', '.join(map(str, sorted(sizes))) or 'none'}")
    read = {name: _read(name, values, kinds[name]) for name, values in given.items() if name in kinds}
    all_kinds: dict[str, Kind] = {name: kinds.get(name, "ignore") for name in given}
    return Source("X", sizes.pop(), all_kinds, (), read.__getitem__, lambda row: f"X: row {row}")


def _columns(rows: Any, kinds: Mapping[str, Kind]) -> dict[str, Sequence[Any] | NDArray]:
    names = rows.columns if hasattr(rows, "columns") else rows if isinstance(rows, Mapping) else None
    if names is not None:
        return {str(name): rows[name] for name in names}
    words = [name for name, kind in kinds.items() if kind not in ("numeric", "boolean")]
    if words:
        raise DataError(f"X must be a DataFrame or a mapping of columns, since {words[0]!r} holds no numbers, got {_told(rows)}")
    X = np.asarray(rows)
    if X.ndim != 2 or X.shape[1] != len(kinds):
        first = ", ".join(list(kinds)[:3])
        raise DataError(f"X must be raw rows of {len(kinds)} columns ({first}, ...), got shape {X.shape}")
    return dict(zip(kinds, X.T, strict=True))


def _told(rows: Any) -> str:
    return f"shape {rows.shape}" if hasattr(rows, "shape") else type(rows).__name__


def _read(name: str, values: Any, kind: Kind) -> Column:
    array = np.asarray(values)
    if kind == "categorical":
        return _categories(array)
    if kind == "datetime" and array.dtype.kind == "M":
        return Column(np.where(np.isnat(array), np.nan, (array - np.datetime64(0, "D")) / DAY))
    if kind != "datetime" and array.dtype.kind in "biuf":
        numbers = array.astype(np.float64)
    else:
        numbers = np.array([_number(name, row, value, READ[kind]) for row, value in enumerate(array.tolist())], dtype=np.float64)
    bad = np.isinf(numbers) if kind != "boolean" else ~(np.isnan(numbers) | (numbers == 0) | (numbers == 1))
    if bad.any():
        row = int(np.argmax(bad))
        must = "be finite" if kind != "boolean" else "be true or false"
        raise DataError(f"X must {must}, got {array[row]} in row {row}, column {name!r}")
    return Column(numbers)


def _categories(array: NDArray) -> Column:
    words = [None if _missing(value) else _word(value) for value in array.tolist()]
    categories = tuple(sorted({word for word in words if word is not None}))
    places = {word: place for place, word in enumerate(categories)}
    return Column(np.array([-1 if word is None else places[word] for word in words], dtype=np.int32), categories)


def _missing(value: Any) -> bool:
    return value is None or (not isinstance(value, str) and str(value) in ("nan", "NaT", "<NA>"))


def _word(value: Any) -> str:
    """As it stands in a file: 3, not 3.0."""
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value).strip()


def _number(name: str, row: int, value: Any, read: Callable[[Any], float]) -> float:
    if _missing(value):
        return np.nan
    try:
        return read(value)
    except (TypeError, ValueError):
        raise DataError(f"X: row {row}: column {name!r} cannot hold {value!r}") from None


def _days(value: Any) -> float:
    """Since 1970-01-01 UTC; what names no zone is UTC."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    moment = value if isinstance(value, date) else datetime.fromisoformat(value)
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return float((np.datetime64(moment, "us") - np.datetime64(0, "us")) / DAY)


def _truth(value: Any) -> float:
    text = str(value).strip().lower()
    return float(text in TRUE) if text in TRUE or text in FALSE else float(value)


READ: dict[str, Callable[[Any], float]] = {"numeric": float, "datetime": _days, "boolean": _truth}
