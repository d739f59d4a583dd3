"""Columns on disk: a file that no name leads to, so that it goes with the process, however that ends.

Read back one column at a time, which mapping the file into memory would not give: mapped pages count as memory while they stay.
"""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp
from threading import Lock
from typing import Any

import numpy as np

from pipelines.data.table import NDArray


class Folder:
    """A folder among the system's temporary ones, which goes when this goes."""

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="deltarule-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class Spool:
    """Append arrays under a name, and read back all of a name on end."""

    def __init__(self) -> None:
        self.file = TemporaryFile(prefix="deltarule-")  # noqa: SIM115 (closed with this)
        weakref.finalize(self, self.file.close)
        self.places: dict[str, list[tuple[int, int]]] = {}  # name -> (byte, bytes) of each array
        self.types: dict[str, np.dtype[Any]] = {}
        self.lock = Lock()

    def __del__(self) -> None:
        self.file.close()

    def append(self, name: str, values: NDArray) -> None:
        """`values` (n,) follow those that the name has."""
        content = _bytes(np.ascontiguousarray(values))
        with self.lock:
            start = self.file.seek(0, 2)
            self.file.write(content)
        self.places.setdefault(name, []).append((start, len(content)))
        self.types[name] = values.dtype

    def pieces(self, name: str) -> int:
        """How many arrays the name has."""
        return len(self.places.get(name, ()))

    def drop(self, name: str) -> None:
        """Forget what the name has; its bytes stay until the end."""
        self.places.pop(name, None)

    def read(self, name: str, piece: int | None = None) -> NDArray:
        """All values of the name, or one of its arrays."""
        places = self.places[name] if piece is None else [self.places[name][piece]]
        values = np.empty(sum(size for _, size in places) // self.types[name].itemsize, self.types[name])
        content, done = _bytes(values), 0
        with self.lock:
            for start, size in places:
                self.file.seek(start)
                end = done + size
                while done < end:  # a read of gigabytes may give less than was asked for
                    done += self.file.readinto(content[done:end])
        return values


def _bytes(values: NDArray) -> memoryview:
    """The array's memory, to write from or to read into."""
    return memoryview(values.view(np.uint8).data)
