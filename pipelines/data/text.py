"""A delimited text file: its encoding, its delimiter and its header, found out from a sample.

pyarrow cuts the rows. Python goes through the whole file only to name the line of a fault.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from pipelines.data.columns import DataError
from pipelines.spec.blocks import Format

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
QUOTES = {"double": '"', "single": "'", "none": None}
SAMPLE = 1 << 20  # bytes; a header of 50 000 columns fits
SAMPLED_ROWS = 200
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
QUOTE_FAULTS = {
    "unexpected end of data": "a quote is opened in this row and never closed",
    "field larger than field limit": f"a quote is opened in this row and not closed within {csv.field_size_limit()} characters",
    "expected after": "a quote is closed within a cell: a delimiter or a line end must follow it; was an earlier quote never "
    "closed?",
}


@dataclass(frozen=True)
class TextFile:
    """How a file is written."""

    shown: str  # what messages call it
    path: Path
    encoding: str
    names: tuple[str, ...]
    unnamed: frozenset[str]  # those that have no name in the header; they are called column_N
    guessed: bool  # the first line was taken for a row because it looks like one
    first: int  # line of the first row, from 1
    delimiter: str
    quote: str | None
    decimal: str

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes, unpacked. Raises DataError for a gzip file that is not whole."""
        try:
            with opened(self.path) as file:
                yield file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{self.shown}: must be a whole gzip file, found one that cannot be unpacked: {error}") from None

    def rows(self, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """(line, cells) of every row, slowly. `strict`: raises DataError for what no writer of such files would write."""
        with self.open() as file:
            lines = io.TextIOWrapper(file, encoding=self.encoding, newline="")
            for _ in range(self.first - 1):
                lines.readline()
            spaced = self.delimiter == " "
            reader = csv.reader(map(one_space, lines) if spaced else lines, strict=strict, **_dialect(self.delimiter, self.quote))
            before = 0
            try:
                for row in reader:
                    if row:
                        yield self.first + before, row
                    before = reader.line_num
            except csv.Error as error:
                fault = next((fault for sign, fault in QUOTE_FAULTS.items() if sign in str(error)), f"cannot be read: {error}")
                raise DataError(f"{self.shown}:{self.first + before}: {fault}") from None

    def line(self, row: int) -> str:
        """Where a row stands, counted from 0."""
        return next((f"{self.shown}:{line}" for number, (line, _) in enumerate(self.rows()) if number == row), self.shown)

    def diagnose(self, reason: str) -> NoReturn:
        """Find what is not as it must be: a character, the cells of a row, or a quote. Raises DataError with its line."""
        self.check_characters()
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

    def check_characters(self) -> None:
        """Raises DataError for the first byte that the encoding does not have, and for NUL."""
        with self.open() as file:
            check_characters(file.read(), self.shown, self.encoding, whole=True)


def check_characters(content: bytes, shown: str, encoding: str, whole: bool) -> str:
    """The text of some bytes. Raises DataError for the first byte that the encoding does not have, and for NUL."""
    utf8 = encoding.startswith("utf-8")
    if not (utf8 and b"\0" in content):  # then it is UTF-16 more likely than bad UTF-8
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(content, final=whole)
        except UnicodeDecodeError as error:
            name = "UTF-8" if utf8 else encoding
            way_out = "for another encoding set data.format.encoding: latin-1, or" if utf8 else "set data.format.encoding to"
            raise DataError(
                f"{shown}:{error.object[: error.start].count(10) + 1}: the text must be {name}, found "
                f"{error.object[error.start]:#04x} at byte {error.start}; {way_out} what it is"
            ) from None
        if "\0" not in text:
            return text
        content = text.encode(errors="replace")
    raise DataError(
        f"{shown}:{content[: content.index(0)].count(10) + 1}: text must have no NUL bytes, found one; for UTF-16 without a byte "
        "order mark set data.format.encoding: utf-16-le or utf-16-be"
    )


def open_text(path: Path, shown: str, how: Format, expected: Collection[str] = ()) -> TextFile:
    """Find out how a file is written. `expected` names columns that a header must have.

    Raises DataError with line and byte for what is no text in its encoding.
    """
    unknown = TextFile(shown, path, "utf-8", (), frozenset(), False, 1, ",", None, "." if how.decimal == "point" else ",")
    with unknown.open() as file:
        head = file.read(SAMPLE)
    encoding = _encoding(head, how.encoding)
    sample, quote = check_characters(head, shown, encoding, whole=len(head) < SAMPLE), QUOTES[how.quote]
    delimiter = DELIMITERS.get(how.delimiter) or _find_delimiter(sample, len(head) < SAMPLE, quote, how, shown)
    first, cells = _first_row(_spaced(sample) if delimiter == " " else sample, delimiter, quote)
    if not cells:
        found = "blank lines alone" if head else "an empty file"
        raise DataError(f"{shown}: the file must have a header and rows, found {found}")
    named = how.header is True or (how.header == "auto" and (bool({*expected} & {*cells}) or not _like_a_row(cells)))
    return replace(
        unknown,
        encoding=encoding,
        names=tuple(cell if cell and named else f"column_{place}" for place, cell in enumerate(cells, 1)),
        unnamed=frozenset(f"column_{place}" for place, cell in enumerate(cells, 1) if named and not cell),
        guessed=not named,
        first=first if named else 1,
        delimiter=delimiter,
        quote=quote,
    )


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where it ends in .gz."""
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else open(path, "rb")


def _encoding(head: bytes, stated: str) -> str:
    found = next((name for mark, name in BOMS.items() if head.startswith(mark)), "utf-8")
    if stated == "auto":
        return found
    try:
        "".encode(stated)  # base64 is a codec, but none of text
        name = codecs.lookup(stated).name
    except (LookupError, UnicodeError):
        raise DataError(f"data.format.encoding must be an encoding of text that Python knows, or auto, got {stated!r}") from None
    name = "utf-8" if name in ("utf-8-sig", "ascii") else name
    return found if found.startswith(name) else name


# -- delimiter and header ---------------------------------------------------------------------------------------------------


def _dialect(delimiter: str, quote: str | None) -> dict[str, Any]:
    return {"delimiter": delimiter, **({"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE})}


def one_space(line: str) -> str:
    """One space between cells, none before or after them."""
    return re.sub(r"^ +| +(?=\r?\n?$)", "", re.sub(" +", " ", line))


def _spaced(sample: str) -> str:
    return "".join(map(one_space, io.StringIO(sample, newline="")))


def _find_delimiter(sample: str, whole: bool, quote: str | None, how: Format, shown: str) -> str:
    """The delimiter that gives most rows of the sample the same number of cells, two at least."""
    usual = "\t" if shown.lower().removesuffix(".gz").endswith(".tsv") else ","
    marks = sorted((m for m in ",;\t|" if (m, how.decimal) != (",", "comma")), key=lambda mark: mark != usual)
    found = {mark: _regularity(sample, whole, mark, quote) for mark in marks}
    best = max(found, key=lambda mark: found[mark])
    if found[best][0] >= 0.5:
        return best
    return " " if _regularity(_spaced(sample), whole, " ", quote)[0] >= 0.5 else usual


def _regularity(sample: str, whole: bool, delimiter: str, quote: str | None) -> tuple[float, int]:
    """(share of rows with the usual number of cells, that number); zeros where it is 1."""
    rows = csv.reader(io.StringIO(sample, newline=""), **_dialect(delimiter, quote))
    widths: list[int] = []
    with suppress(csv.Error):  # a quote is never closed: named when the rows are read
        widths += islice((len(row) for row in rows if row), SAMPLED_ROWS)
    if not whole and len(widths) < SAMPLED_ROWS:
        widths = widths[:-1]  # the last row may be cut
    if not widths:
        return 0.0, 0
    width, count = Counter(widths).most_common(1)[0]
    return (count / len(widths), width) if width > 1 else (0.0, 0)


def _first_row(sample: str, delimiter: str, quote: str | None) -> tuple[int, list[str]]:
    """(the line after the first row that is not blank, its cells)."""
    reader = csv.reader(io.StringIO(sample, newline=""), **_dialect(delimiter, quote))
    try:
        row = next((row for row in reader if row), [])
    except csv.Error:
        row = []
    return reader.line_num + 1, [cell.strip() for cell in row]


def _like_a_row(cells: list[str]) -> bool:
    """More than half of the cells are numbers: names seldom are."""
    return 2 * sum(bool(NUMBER.fullmatch(cell)) for cell in cells) > len(cells)
