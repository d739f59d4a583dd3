"""Answers written block by block: CSV or Parquet, under a temporary name until all is there; CSV on standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from backends.weights import stream_atomically
from pipelines.data.columns import DataError, NDArray

Block = Mapping[str, NDArray]  # column -> (n,)
ENDINGS = (".csv", ".parquet")


@contextmanager
def writer(path: Path | None) -> Iterator[Callable[[Block], None]]:
    """Takes one block after another, all with the same columns. Nothing is left of a file that could not be finished."""
    if path is None:
        yield _Csv(sys.stdout.buffer).write
        sys.stdout.buffer.flush()
        return
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"--out must end in {' or '.join(ENDINGS)}, got {str(path)!r}")
    with stream_atomically(path) as file:
        sink = _Csv(file) if path.suffix.lower() == ".csv" else _Parquet(file)
        yield sink.write
        sink.close()


class _Csv:
    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.begun = file, False

    def write(self, block: Block) -> None:
        """Numbers to the last bit; texts in quotes only where they need them. Ten times as fast as csv.writer."""
        import pyarrow
        from pyarrow import compute

        if not self.begun:
            self.file.write(f"{','.join(map(quoted, block))}\n".encode())
            self.begun = True
        lines = compute.binary_join_element_wise(*map(_cells, block.values()), pyarrow.scalar(",", pyarrow.large_string()))
        self.file.write(("\n".join(lines.to_pylist()) + "\n").encode())

    def close(self) -> None:
        """Nothing is held back."""


class _Parquet:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sink: Any = None

    def write(self, block: Block) -> None:
        """A group of rows."""
        from pyarrow.parquet import ParquetWriter

        table = _table(block)
        if self.sink is None:
            self.sink = ParquetWriter(self.file, table.schema)
        self.sink.write_table(table)

    def close(self) -> None:
        """Write the footer."""
        if self.sink is not None:
            self.sink.close()


def _table(block: Block) -> Any:
    import pyarrow

    return pyarrow.table({name: pyarrow.array(values) for name, values in block.items()})


def _cells(values: NDArray) -> Any:
    """Each value as it stands in the file."""
    import pyarrow

    array = pyarrow.array(values)
    if values.dtype.kind not in "UO":
        return array.cast(pyarrow.large_string())
    found = array.dictionary_encode()
    return pyarrow.array([*map(quoted, found.dictionary.to_pylist())], pyarrow.large_string()).take(found.indices)


def quoted(text: str) -> str:
    """A cell, in quotes if it must be."""
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') or text != text.strip() else text
