"""A delimited text file: its encoding, its delimiter and its header, and its rows as checked UTF-8.

pyarrow cuts the rows. What Python reads here line by line is a sample, and the whole file only to name the line of a fault.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from pipelines.data.columns import DataError
from pipelines.spec.blocks import Format

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
QUOTES = {"double": '"', "single": "'", "none": None}
BLOCK = 1 << 20
SAMPLE = 1 << 20  # bytes; a header of 50 000 columns fits
SAMPLED_ROWS = 200
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Utf8Reader(io.RawIOBase):
    """A text file's bytes as UTF-8. Raises DataError at a byte that its encoding does not have, and at a NUL.

    `one_space`: runs of spaces become one, none before or after a line.
    """

    def __init__(self, path: Path, shown: str, encoding: str, one_space: bool = False) -> None:
        self.file = _opened(path)
        self.shown, self.encoding, self.one_space = shown, encoding, one_space
        self.decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
        self.bytes_read = self.lines = 0  # before the next block
        self.ended, self.cut, self.ready = False, b"", memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """The file too."""
        self.file.close()
        super().close()

    def readinto(self, target: Any) -> int:
        """Bytes that were put into `target`; 0 at the end."""
        while not self.ready and not self.ended:
            self.ready = memoryview(self._next_block())
        size = min(len(target), len(self.ready))
        target[:size] = self.ready[:size]
        self.ready = self.ready[size:]
        return size

    def _next_block(self) -> bytes:
        block = _read(self.file, self.shown, BLOCK)
        self.ended = not block
        pending = len(self.decoder.getstate()[0])
        if self.encoding == "utf-8":
            self._refuse_nul(block)  # before a byte that UTF-8 does not have: more likely this is UTF-16
        try:
            content = self.decoder.decode(block, final=self.ended).encode()
            if self.ended and self.bytes_read:
                content += b"\n"  # a quote that is not closed in the last line has a line end within its cell then
        except UnicodeDecodeError as error:
            self._refuse_byte(error, self.bytes_read - pending)
        self._refuse_nul(content)
        self.bytes_read += len(block)
        self.lines += content.count(b"\n")
        return self._with_one_space(content) if self.one_space else content

    def _with_one_space(self, content: bytes) -> bytes:
        whole = self.cut + content
        end = len(whole) if self.ended else whole.rfind(b"\n") + 1
        self.cut = whole[end:]
        return one_space(whole[:end])

    def _refuse_nul(self, content: bytes) -> None:
        if b"\0" in content:
            raise DataError(
                f"{self.shown}:{self._line(content, content.index(0))}: text must have no NUL bytes, found one; for UTF-16 "
                "without a byte order mark set data.format.encoding: utf-16-le or utf-16-be"
            )

    def _line(self, content: bytes, place: int) -> int:
        return self.lines + content[:place].count(b"\n") + 1

    def _refuse_byte(self, error: UnicodeDecodeError, before: int) -> NoReturn:
        """`before` bytes come before those in which the decoder stopped."""
        name, way_out = self.encoding, "set data.format.encoding to what it is"
        if name == "utf-8":
            name, way_out = "UTF-8", "for another encoding set data.format.encoding: latin-1, or what it is"
        raise DataError(
            f"{self.shown}:{self._line(error.object, error.start)}: the text must be {name}, found "
            f"{error.object[error.start]:#04x} at byte {before + error.start}; {way_out}"
        )


def one_space(lines: bytes) -> bytes:
    """One space between cells, none before or after a line."""
    return re.sub(rb"(?m)^ +| +(?=\r?$)", b"", re.sub(rb" +", b" ", lines))


@dataclass(frozen=True)
class TextFile:
    """How a file is written. Its rows begin at byte `start` of its UTF-8, in line `first`."""

    shown: str  # what messages call it
    path: Path
    encoding: str
    names: tuple[str, ...]
    unnamed: frozenset[str]  # those that have no name in the header; they are called column_N
    guessed: bool  # the first line was taken for a row because it looks like one
    start: int
    first: int
    delimiter: str
    quote: str | None
    decimal: str

    def open(self) -> io.BufferedReader[Any]:
        """UTF-8 from the first row on."""
        file = io.BufferedReader(Utf8Reader(self.path, self.shown, self.encoding, self.delimiter == " "), BLOCK)
        file.read(self.start)
        return file

    def rows(self, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """(line, cells) of every row, slowly. `strict`: raises DataError for what no writer of such files would write."""
        with self.open() as file:
            lines = io.TextIOWrapper(file, encoding="utf-8", newline="")
            reader = csv.reader(lines, strict=strict, **_dialect(self.delimiter, self.quote))
            before = 0
            try:
                for row in reader:
                    if row:
                        yield self.first + before, row
                    before = reader.line_num
            except csv.Error as error:
                raise DataError(f"{self.shown}:{self.first + before}: {_explained(str(error))}") from None

    def line(self, row: int) -> str:
        """Where a row stands, counted from 0."""
        return next((f"{self.shown}:{line}" for number, (line, _) in enumerate(self.rows()) if number == row), self.shown)

    def diagnose(self, reason: str) -> NoReturn:
        """Find the first row that is not as it must be. Raises DataError with its line."""
        for line, row in self.rows():
            if len(row) != len(self.names):
                if any("\n" in cell for cell in row):
                    self.check_quotes()
                raise DataError(
                    f"{self.shown}:{line}: every row must have {len(self.names)} cells as the "
                    f"{'first row' if self.guessed else 'header'} has, found {len(row)}"
                )
        self.check_quotes()
        named = next(name for name, mark in DELIMITERS.items() if mark == self.delimiter)
        raise DataError(f"{self.shown}: cannot be read as text with a {named} between cells: {reason}")

    def check_quotes(self) -> None:
        """Go through the whole file for a quote that is not closed, or closed within a cell. Raises DataError."""
        for _ in self.rows(strict=True):
            pass


def open_text(path: Path, shown: str, how: Format, expected: Collection[str] = ()) -> TextFile:
    """Find out how a file is written. `expected` names columns that a header must have.

    Raises DataError with line and byte for what is no text in its encoding.
    """
    encoding = _encoding(path, shown, how.encoding)
    with io.BufferedReader(Utf8Reader(path, shown, encoding), BLOCK) as file:
        head = file.read(SAMPLE)
    sample, quote = head.decode(errors="ignore"), QUOTES[how.quote]
    stated = DELIMITERS.get(how.delimiter)
    delimiter = stated or _find_delimiter(sample, len(head) < SAMPLE, quote, how, shown)
    if delimiter == " ":
        sample = one_space(head).decode(errors="ignore")
    start, first, cells = _first_row(sample, delimiter, quote)
    if not cells:
        found = "blank lines alone" if head else "an empty file"
        raise DataError(f"{shown}: the file must have a header and rows, found {found}")
    named = how.header is True or (how.header == "auto" and (bool({*expected} & {*cells}) or not _like_a_row(cells)))
    return TextFile(
        shown=shown,
        path=path,
        encoding=encoding,
        names=tuple(cell if cell and named else f"column_{place}" for place, cell in enumerate(cells, 1)),
        unnamed=frozenset(f"column_{place}" for place, cell in enumerate(cells, 1) if named and not cell),
        guessed=not named,
        start=start if named else 0,
        first=first if named else 1,
        delimiter=delimiter,
        quote=quote,
        decimal="," if how.decimal == "comma" else ".",
    )


def _encoding(path: Path, shown: str, stated: str) -> str:
    with _opened(path) as file:
        head = _read(file, shown, 4)
    found = next((name for mark, name in BOMS.items() if head.startswith(mark)), "utf-8")
    if stated == "auto":
        return found
    try:
        "".encode(stated)  # base64 is a codec, but none of text
        name = codecs.lookup(stated).name
    except (LookupError, UnicodeError):
        raise DataError(f"data.format.encoding must be an encoding of text that Python knows, or auto, got {stated!r}") from None
    return "utf-8" if name in ("utf-8", "utf-8-sig", "ascii") else found if found.startswith(name) else name


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else open(path, "rb")


def _read(file: BinaryIO, shown: str, size: int) -> bytes:
    try:
        return file.read(size)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{shown}: must be a whole gzip file, found one that cannot be unpacked: {error}") from None


# -- delimiter and header ---------------------------------------------------------------------------------------------------


def _dialect(delimiter: str, quote: str | None) -> dict[str, Any]:
    return {"delimiter": delimiter, **({"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE})}


def _find_delimiter(sample: str, whole: bool, quote: str | None, how: Format, shown: str) -> str:
    """The delimiter that gives most rows of the sample the same number of cells, two at least."""
    usual = "\t" if shown.lower().removesuffix(".gz").endswith(".tsv") else ","
    marks = sorted((m for m in ",;\t|" if (m, how.decimal) != (",", "comma")), key=lambda mark: mark != usual)
    found = {mark: _regularity(sample, whole, mark, quote) for mark in marks}
    best = max(found, key=lambda mark: found[mark])
    if found[best][0] >= 0.5:
        return best
    return " " if _regularity(one_space(sample.encode()).decode(), whole, " ", quote)[0] >= 0.5 else usual


def _regularity(sample: str, whole: bool, delimiter: str, quote: str | None) -> tuple[float, int]:
    """(share of rows with the usual number of cells, that number); zeros where it is 1."""
    widths: list[int] = []
    try:
        for row in csv.reader(io.StringIO(sample, newline=""), **_dialect(delimiter, quote)):
            widths += [len(row)] if row else []
            if len(widths) == SAMPLED_ROWS:
                break
        else:
            widths = widths if whole else widths[:-1]  # the last row may be cut
    except csv.Error:
        pass  # a quote is never closed: named when the rows are read
    if not widths:
        return 0.0, 0
    width, count = Counter(widths).most_common(1)[0]
    return (count / len(widths), width) if width > 1 else (0.0, 0)


def _first_row(sample: str, delimiter: str, quote: str | None) -> tuple[int, int, list[str]]:
    """(bytes up to the end of the first row that is not blank, the line after it, its cells)."""
    lines = io.StringIO(sample, newline="").readlines()
    reader = csv.reader(lines, **_dialect(delimiter, quote))
    try:
        for row in reader:
            if row:
                taken = "".join(lines[: reader.line_num])
                return len(taken.encode()), reader.line_num + 1, [cell.strip() for cell in row]
    except csv.Error:
        pass
    return 0, 1, []


def _like_a_row(cells: list[str]) -> bool:
    """More than half of the cells are numbers: names seldom are."""
    return 2 * sum(bool(NUMBER.fullmatch(cell)) for cell in cells) > len(cells)


def _explained(error: str) -> str:
    """What Python's csv complains of, as a cause."""
    if "unexpected end of data" in error:
        return "a quote is opened in this row and never closed"
    if "field larger than field limit" in error:
        return f"a quote is opened in this row and not closed within {csv.field_size_limit()} characters"
    if "expected after" in error:
        return "a quote is closed within a cell: a delimiter or a line end must follow it; was an earlier quote never closed?"
    return f"cannot be read: {error}"
