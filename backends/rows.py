"""Rows of a matrix that may be larger than what is to be in memory: a read-only map of a file, gone through in the file's order.

Pages of a map that were read count as memory of the process until they are let go; they stay in the system's cache, and come
back without the disk. Only a map that cannot be written is ever let go, so no number can be lost: arrays in memory, and maps
that somebody may have written to, are left alone.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

NDArray = np.ndarray[Any, np.dtype[Any]]
WINDOW = 2**22  # bytes of a map that are in memory at a time, where it is gone through in order
GATHERED = 2**24  # bytes of rows that are picked out of a map in one go
SMALL = 2**26  # bytes of a map that may stay in memory whole: libraries take six times as much


def release(X: NDArray, start: int = 0, stop: int | None = None) -> None:
    """Let go of the pages of rows `start` to `stop` (all, without it), where X is C-contiguous on a read-only map of a file."""
    found = _map_of(X)
    if found is None:
        return
    pages, base = found
    first = X.ctypes.data - base
    low = first + start * X.strides[0] if start else 0  # the first page holds the file's header too
    high = len(pages) if stop is None or stop >= len(X) else first + stop * X.strides[0]
    low, high = (edge // mmap.PAGESIZE * mmap.PAGESIZE if edge < len(pages) else edge for edge in (low, high))
    if low < high:
        pages.madvise(mmap.MADV_DONTNEED, low, high - low)


def blocks(X: NDArray, size: int) -> Iterator[NDArray]:
    """X, `size` rows at a time; of a map, no more than WINDOW and a block of it is in memory. At least one block, if empty."""
    kept = 0
    for start in range(0, max(1, len(X)), size):
        yield X[start : start + size]
        if (start + size - kept) * X.strides[0] >= WINDOW or start + size >= len(X):
            release(X, kept, start + size)
            kept = start + size


def steps_at_once(X: NDArray, steps: int, rows: int) -> int:
    """For how many of `steps` steps, of `rows` rows each, to `gather` at a time; 0 where X had better be read as it is.

    Letting a page go and taking it back costs as much as picking one or two rows: measured, an epoch of a small network on
    120 MB takes a fifth longer. So it is for maps that are not small, and of no more pages than rows are picked.
    """
    if _map_of(X) is None or X.nbytes <= SMALL:
        return 0
    count = max(1, min(steps, GATHERED // (rows * X.strides[0])))
    return count if X.nbytes <= count * rows * mmap.PAGESIZE else 0


def gather(X: NDArray, at: NDArray, room: NDArray) -> tuple[NDArray, NDArray]:
    """Those rows of X, in X's order, and the place of each of `at` among them, in its shape: X[at] is near[places].

    They stand in `room` (at least as many rows, I), whose memory is used again and again: given back and taken anew, it
    would leave holes between others' that the process keeps.
    """
    flat = at.reshape(-1)
    # Sorting numbers that hold both row and place takes a sixth of the time of `argsort`.
    bits = len(flat).bit_length()
    both = np.sort(flat.astype(np.int64) << bits | np.arange(len(flat)))
    order, wanted = both & (1 << bits) - 1, both >> bits
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    near = room[: len(flat)]
    size = max(1, WINDOW // X.strides[0])
    low = 0
    for start in range(0, len(X), size):
        high = low + int(np.searchsorted(wanted[low:], start + size))
        np.take(X, wanted[low:high], axis=0, out=near[low:high], mode="clip")  # "raise" would copy once more
        release(X, start, start + size)
        low = high
    return near, places.reshape(at.shape)


def _map_of(X: NDArray) -> tuple[mmap.mmap, int] | None:
    """The read-only map of a file that X lies on, from its own first byte, and where that is in memory; None if there is none."""
    array: Any = X
    while isinstance(array, np.ndarray) and not (isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap)):
        array = array.base
    if not isinstance(array, np.memmap) or array.mode != "r" or not X.flags.c_contiguous or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    pages: mmap.mmap = array.base  # type: ignore[assignment]
    return pages, int(np.frombuffer(pages, np.uint8).ctypes.data)
