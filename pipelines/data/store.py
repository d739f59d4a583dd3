"""From columns to rows on disk, in little memory: inputs come one at a time, a network wants rows.

Columns are kept one after the other in a temporary file without a name; then blocks of rows are picked out of all of them and
written as .npy files, hashed on the way.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backends.weights import stream_atomically
from pipelines.data.columns import NDArray

BLOCK_BYTES = 2**24  # of the rows that are in memory at a time


class Columns:
    """Inputs of the same `rows` rows, one after the other, float32."""

    def __init__(self, folder: Path, rows: int) -> None:
        """In `folder`, which must be on a disk that holds them."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file: Any = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (closed by `close`)
        self.rows, self.count = rows, 0

    def close(self) -> None:
        """The file goes."""
        self._file.close()

    def add(self, values: NDArray) -> None:
        """The next input, (rows,)."""
        left = np.ascontiguousarray(values, dtype=np.float32).data.cast("B")
        while left:  # an unbuffered file may take a part of it
            left = left[self._file.write(left) :]
        self.count += 1

    def blocks(self, start: int, stop: int) -> Iterator[NDArray]:
        """The rows from `start` to `stop`, some at a time: (b, I) float32."""
        size = max(1, BLOCK_BYTES // (4 * self.count))
        for first in range(start, stop, size):
            yield self._block(first, min(size, stop - first))

    def _block(self, first: int, size: int) -> NDArray:
        block = np.empty((self.count, size), dtype=np.float32)
        for place, values in enumerate(block):
            self._file.seek(4 * (place * self.rows + first))
            self._file.readinto(values.data.cast("B"))
        return np.ascontiguousarray(block.T)


def write_npy(path: Path, shape: tuple[int, ...], dtype: Any, blocks: Iterator[NDArray], digest: Any) -> None:
    """The file that `np.save` would write for all the blocks together; `digest` takes in its bytes."""
    with stream_atomically(path) as file:
        hashed = _Hashed(file, digest)
        descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
        np.lib.format.write_array_header_1_0(hashed, {"descr": descr, "fortran_order": False, "shape": shape})
        for block in blocks:
            hashed.write(np.ascontiguousarray(block, dtype=dtype).data.cast("B"))


class _Hashed:
    def __init__(self, file: Any, digest: Any) -> None:
        self.file, self.digest = file, digest

    def write(self, content: Any) -> None:
        self.digest.update(content)
        self.file.write(content)


def write_part(folder: Path, inputs: Columns, start: int, y: NDArray, rows: NDArray) -> str:
    """The files of one part, whose inputs stand from row `start` on; returns the SHA-256 of them all."""
    digest = hashlib.sha256()
    X = inputs.blocks(start, start + len(rows))
    write_npy(folder / "X.npy", (len(rows), inputs.count), np.float32, X, digest)
    write_npy(folder / "y.npy", y.shape, y.dtype, iter([y]), digest)
    write_npy(folder / "rows.npy", rows.shape, rows.dtype, iter([rows]), digest)
    return digest.hexdigest()
