"""Rows that are given in Python: as Arrow takes them, and as a file that data.source can name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from backends.weights import write_atomically
from pipelines.spec.blocks import KEPT
from pipelines.spec.describe import SpecError


def as_arrow(values: Any) -> Any:
    """As Arrow takes it; of values that are no one type, as text."""
    import pyarrow

    array = np.asarray(values, dtype=object if isinstance(values, list | tuple) else None)
    if array.ndim != 1:
        raise SpecError(f"columns must have different names, and one value a row, got shape {array.shape}")
    try:
        return pyarrow.array(array, from_pandas=True)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        missing = ("None", "nan", "NaT", "<NA>")
        cells = [None if not isinstance(value, str) and str(value) in missing else str(value) for value in array.tolist()]
        return pyarrow.array(cells)


def columns_of(values: Any, name: str) -> dict[str, Any]:
    """Column -> its values (n,), of a DataFrame, a mapping of columns, a vector (n,) or a matrix (n, m).

    A vector is called `name`, unless it has a name; columns of a matrix `name`0, `name`1, ...
    """
    if isinstance(values, Mapping) or hasattr(values, "columns"):
        return {str(one): values[one] for one in getattr(values, "columns", values)}
    array = np.asarray(values, dtype=object if isinstance(values, list | tuple) else None)
    if array.ndim < 2:
        return {str(getattr(values, "name", None) or name): values}
    return {f"{name}{place}": column for place, column in enumerate(array.T)}


def free(name: str, taken: Collection[str]) -> str:
    """The name, with as many _ behind it as tell it from those that are taken."""
    return name if name not in taken else free(f"{name}_", taken)


def keep(columns: Mapping[str, Any], project: Path) -> str:
    """Write the rows to a Parquet file of the project, which is called after its hash; where it stands. Raises SpecError."""
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    try:
        table = pyarrow.table({name: as_arrow(values) for name, values in columns.items()})
        parquet.write_table(table, sink)
    except pyarrow.ArrowException as error:
        raise SpecError(f"columns must be of one length, and hold numbers, text or dates: {error}") from None
    content = sink.getvalue().to_pybytes()
    place = Path(KEPT) / f"rows-{sha256(content).hexdigest()[:12]}.parquet"
    (project / KEPT).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(project / place, content)
    return place.as_posix()
