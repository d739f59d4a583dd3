"""How outs are written: whole or not at all, and the same bytes for the same numbers.

Floats are written to the last bit.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from backends.weights import write_atomically
from pipelines.data.parts import check, damaged, read_json, sha256, write_json

__all__ = ["check", "damaged", "listed", "read_json", "replaced", "sha256", "write_csv", "write_json", "write_rows"]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """See `csv_text`."""
    write_atomically(path, csv_text(header, rows).encode())


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV; Python's own floats and integers are written by repr, None as nothing."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def write_rows(path: Path, rows: Sequence[Mapping[str, object]], without: Sequence[str] = ()) -> None:
    """CSV of rows by name of column, in the order in which they first come. `without`: the header where there are no rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row) or without)
    write_csv(path, columns, ([row.get(name, "") for name in columns] for row in rows))


def listed(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Name -> SHA-256 of those outs that are there: what `check` compares with."""
    return {name: sha256(folder / name) for name in names if (folder / name).is_file()}


@contextmanager
def replaced(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """A folder for outs, which take the place of those in `folder` once they are whole: the first of `names` last, for all."""
    fresh = folder.with_name(f".{folder.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        yield fresh
        folder.mkdir(parents=True, exist_ok=True)
        for old in map(folder.joinpath, names):
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        for new in sorted(fresh.iterdir(), key=lambda path: path.name == names[0]):
            new.replace(folder / new.name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
