"""Where rows come from: one of the sets bundled with scikit-learn, a CSV file or a Parquet file."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from pipelines.data.bundled import BUNDLED, read_bundled
from pipelines.data.delimited import read_csv
from pipelines.data.parquet import read_parquet
from pipelines.data.table import DataError, Table
from pipelines.spec import DataSpec

READERS = {".csv": read_csv, ".parquet": read_parquet}


def read(block: DataSpec, base: Path | None = None) -> Table:
    """The table that `data.source` and `data.target` name; a relative path is taken from `base`.

    Raises DataError with file, row and column for what cannot be read as numbers.
    """
    source, target = block.shown_source, block.target
    if source in BUNDLED:
        return read_bundled(source)
    path = (base or Path()) / source
    check_file(source, path)
    if not target:
        raise DataError(f"data.target must name the column(s) of {source} to predict, got none")
    wanted = (target,) if isinstance(target, str) else tuple(target)
    return READERS[path.suffix.lower()](path, source, wanted)


def check_file(source: str, path: Path) -> None:
    """Raises DataError unless `path` is a file of a kind that can be read."""
    if path.suffix.lower() not in READERS:
        near = get_close_matches(source, BUNDLED, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        known = f"{', '.join(BUNDLED)}, or a file that ends in {' or '.join(READERS)}"
        raise DataError(f"data.source must be one of {known}, got {source!r}; {hint}".rstrip("; "))
    if not path.is_file():
        raise DataError(f"data.source must be a file, found none at {source!r}; a relative path starts at the project's root")
