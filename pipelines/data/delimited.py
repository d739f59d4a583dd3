"""Delimited text, streamed once into columns on disk: numbers as float64, other columns as the different texts of each block.

A column is taken for numbers until a block holds something else, such as a whole number of which float64 would lose digits;
then it is text from the first row on, so that `007` in row 900 000 leaves the `7` of row 1 a text too. pyarrow cuts rows into
cells and refuses what is ragged. Only then is the file gone through line by line, to name the line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from pipelines.data.spool import Spool
from pipelines.data.table import NDArray
from pipelines.data.text import TextFile
from pipelines.data.words import LARGEST, wide

BLOCK = 1 << 21  # bytes: 1 million x 50 take 2.8 s and 250 MB at their peak; half of it 3.2 s and 190 MB, twice 2.3 s and 340 MB
ZERO, NINE = ord("0"), ord("9")


class Delimited:
    """The columns of a text file. Those of `worded` are text whatever they look like."""

    def __init__(self, text: TextFile, markers: Sequence[str], worded: Collection[str]) -> None:
        self.text, self.markers = text, markers
        self.names, self.shown = text.names, text.shown
        self.rows = 0
        self.spool = Spool()
        self.numeric = {name for name in text.names if name not in worded}
        self.present = dict.fromkeys(text.names, 0)  # cells of a numeric column that hold a number
        self.tidiness = dict.fromkeys(text.names, 0)  # how much must be done before pyarrow takes its cells for numbers
        self.lines_within = text.odd_quotes
        late = self._stream(text.names)
        if self.lines_within:
            text.check_quotes()
        if late:
            self._stream(late)

    def native(self, name: str) -> str:
        """What the cells say: numeric, text, or nothing."""
        return "text" if name not in self.numeric else "numeric" if self.present[name] else "nothing"

    def numbers(self, name: str) -> NDArray:
        """(rows,) float64 of a numeric column, NaN where no value stands."""
        return self.spool.read(name)

    def texts(self, name: str) -> tuple[NDArray, Any]:
        """(places int32, texts, which may repeat). A numeric column is read anew."""
        if name in self.numeric:
            self.numeric.discard(name)
            self._forget(name)
            self._stream([name])
        import pyarrow

        codes, base, found = self.spool.read(name), 0, []
        starts = np.cumsum([0, *(size // 4 for _, size in self.spool.places[name])])
        for piece, (start, end) in enumerate(pairwise(starts)):
            offsets, data = self.spool.read(f"{name}\0offsets", piece), self.spool.read(f"{name}\0data", piece)
            buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(data)]
            found.append(pyarrow.Array.from_buffers(pyarrow.large_string(), len(offsets) - 1, buffers))
            codes[start:end] += base
            base += len(offsets) - 1
        return codes, pyarrow.concat_arrays(found)

    def line(self, row: int) -> str:
        """Where a row stands."""
        return self.text.line(row)

    # -- streaming ------------------------------------------------------------------------------------------------------------

    def _stream(self, names: Sequence[str]) -> list[str]:
        """Keep these columns; returns those that turned out to be text after numbers of theirs had been kept."""
        late: dict[str, None] = {}
        rows = 0
        for batch in _batches(self.text, names):
            rows += batch.num_rows
            for name, cells in zip(names, batch.columns, strict=True):
                if name not in late and self._keep(name, cells):
                    late[name] = None
        self.rows = rows
        return list(late)

    def _keep(self, name: str, cells: Any) -> bool:
        """Whether the column was numeric so far, and cannot be any more."""
        if name in self.numeric:
            values = self._numbers(name, cells)
            if values is not None:
                self.spool.append(name, values)
                return False
            self.numeric.discard(name)
            if self.spool.pieces(name):
                self._forget(name)
                return True
        self._keep_texts(name, cells)
        return False

    def _keep_texts(self, name: str, cells: Any) -> None:
        import pyarrow

        encoded = cells.dictionary_encode()
        found = encoded.dictionary.cast(pyarrow.large_string())
        if not self.lines_within and _has_line_ends(found):
            self.lines_within = True
        self.spool.append(name, encoded.indices.to_numpy().astype(np.int32))
        offsets, data = _buffers(found, np.int64)
        self.spool.append(f"{name}\0offsets", offsets)
        self.spool.append(f"{name}\0data", data)

    def _forget(self, name: str) -> None:
        for key in (name, f"{name}\0offsets", f"{name}\0data"):
            self.spool.drop(key)

    def _numbers(self, name: str, cells: Any) -> NDArray | None:
        """The block's values, with as little done to the cells as earlier blocks needed; None if they are not all numbers."""
        import pyarrow
        from pyarrow import compute

        for level in range(self.tidiness[name], 3):
            tried = compute.utf8_trim_whitespace(cells) if level == 2 else cells
            if level:
                missing = compute.is_in(tried, pyarrow.array(self.markers, tried.type))
                tried = compute.if_else(missing, pyarrow.scalar(None, tried.type), tried)
            values = self._all_numbers(tried)
            if values is not None:
                self.tidiness[name] = level
                self.present[name] += len(tried) - tried.null_count
                return values
        return None

    def _all_numbers(self, cells: Any) -> NDArray | None:
        import pyarrow
        from pyarrow import compute

        if self.text.decimal == ",":
            if compute.any(compute.match_substring(cells, ".")).as_py():
                return None
            cells = compute.replace_substring(cells, ",", ".")
        if _has_codes(cells):
            return None
        try:
            values: NDArray = cells.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)
        except pyarrow.ArrowInvalid:
            return None
        if np.count_nonzero(np.isfinite(values)) < len(cells) - cells.null_count:
            return None
        return None if (np.abs(values) > LARGEST).any() and wide(cells.drop_null()).any() else values


def _batches(text: TextFile, names: Sequence[str]) -> Iterator[Any]:
    """Blocks of rows, every cell a string; the next is cut while this one is looked at. Raises DataError for ragged rows."""
    import pyarrow
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

    convert = ConvertOptions(
        null_values=[], column_types=dict.fromkeys(text.names, pyarrow.string()), include_columns=list(names)
    )
    parse = ParseOptions(delimiter=text.delimiter, quote_char=text.quote or False, newlines_in_values=True)
    size = max(BLOCK, 8 * text.start)  # a row must fit
    with pyarrow.OSFile(str(text.path), "rb") as file:
        file.seek(text.start)
        if file.tell() == file.size():
            return
        options = ReadOptions(column_names=list(text.names), block_size=size)
        try:
            with (
                open_csv(file, read_options=options, parse_options=parse, convert_options=convert) as reader,
                ThreadPoolExecutor(1) as ahead,  # closed before the reader is
            ):
                following = ahead.submit(next, reader, None)
                while (batch := following.result()) is not None:
                    following = ahead.submit(next, reader, None)
                    yield batch
        except pyarrow.ArrowInvalid as error:
            text.diagnose(str(error))


def _buffers(cells: Any, offset_type: type) -> tuple[NDArray, NDArray]:
    """(offsets (n + 1,), bytes) of an array of strings."""
    _, offsets, data = cells.buffers()
    found: NDArray = np.frombuffer(offsets, offset_type)[cells.offset : cells.offset + len(cells) + 1]
    return found, np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)


def _has_codes(cells: Any) -> bool:
    """Does any cell begin with a zero that a digit follows? 00123 is no number."""
    offsets, data = _buffers(cells, np.int32)
    starts = offsets[:-1][np.diff(offsets) > 1]
    starts = starts[data[starts] == ZERO]
    following = data[starts + 1]
    return bool(((following >= ZERO) & (following <= NINE)).any())


def _has_line_ends(texts: Any) -> bool:
    _, data = _buffers(texts, np.int64)
    return b"\n" in data.tobytes()
