"""Raw rows that are given in Python: a DataFrame, a mapping of columns, or, where all columns are numbers, a matrix.

They are read as those of a Parquet file are: types say what a column holds, and text is taken as the training rows' text was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.data.blocks import Rows, TypedBlock, chosen
from pipelines.data.preprocess import Preprocessing
from pipelines.data.table import DataError, NDArray
from pipelines.spec import DataSpec
from pipelines.spec.blocks import Kind

NAME = "the rows"  # as messages call them


def given(rows: Any, block: DataSpec, preprocessing: Preprocessing) -> Rows:
    """A missing value is None, NaN or one of the spec's markers. Columns that are not needed are passed over.

    Raises DataError for a matrix that does not fit, a column that is missing, and columns of unequal length.
    """
    import pyarrow

    kinds = preprocessing.columns
    columns = _columns(rows, kinds)
    names, others = chosen(NAME, list(columns), kinds)
    sizes = {len(columns[name]) for name in names}
    if len(sizes) > 1:
        raise DataError(f"{NAME}: all columns must be of one length, got {', '.join(map(str, sorted(sizes)))}")
    table = pyarrow.table({name: _arrow(columns[name]) for name in names})
    return Rows(TypedBlock(NAME, table), block, kinds, others, preprocessing.orders)


def _columns(rows: Any, kinds: Mapping[str, Kind]) -> dict[str, Sequence[Any] | NDArray]:
    names = rows.columns if hasattr(rows, "columns") else rows if isinstance(rows, Mapping) else None
    if names is not None:
        return {str(name): rows[name] for name in names}
    words = [name for name, kind in kinds.items() if kind not in ("numeric", "boolean")]
    if words:
        raise DataError(
            f"{NAME} must be a DataFrame or a mapping of columns, since {words[0]!r} holds no numbers, got {_told(rows)}"
        )
    X = np.asarray(rows)
    if X.ndim != 2 or X.shape[1] != len(kinds):
        first = ", ".join(list(kinds)[:3])
        raise DataError(f"{NAME} must be raw rows of {len(kinds)} columns ({first}, ...), got shape {X.shape}")
    return dict(zip(kinds, X.T, strict=True))


def _told(rows: Any) -> str:
    return f"shape {rows.shape}" if hasattr(rows, "shape") else type(rows).__name__


def _arrow(values: Any) -> Any:
    """As arrow takes it; of values that are no one type, as text."""
    import pyarrow

    array = np.asarray(values, dtype=object if isinstance(values, list | tuple) else None)
    try:
        return pyarrow.array(array, from_pandas=True)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        return pyarrow.array([None if _missing(value) else str(value) for value in array.tolist()])


def _missing(value: Any) -> bool:
    return value is None or (not isinstance(value, str) and str(value) in ("nan", "NaT", "<NA>"))
