"""A delimited text file, made ready to be streamed: its bytes are UTF-8 and checked, its delimiter and its header are known.

A file that is compressed, in another encoding, or has runs of spaces between its cells is copied into the system's temporary
folder as plain UTF-8 first. What Python reads line by line here is a sample, and the whole file only once something is wrong.
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

from pipelines.data.spool import Folder
from pipelines.data.table import DataError
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


@dataclass(frozen=True)
class TextFile:
    """Plain UTF-8 text at `path`, whose rows begin at byte `start` in line `first`."""

    shown: str  # what messages call it
    path: Path
    names: tuple[str, ...]
    unnamed: frozenset[str]  # those that have no name in the header; they are called column_N
    guessed: bool  # the first line was taken for a row because it looks like one
    start: int
    first: int
    delimiter: str
    quote: str | None
    decimal: str
    odd_quotes: bool  # there is an odd number of quotes: one of them may never be closed
    folder: Folder | None  # of the copy; it goes when this goes

    def rows(self, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """(line, cells) of every row, slowly. `strict`: raises csv.Error for what no writer of such files would write."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            lines = io.TextIOWrapper(file, encoding="utf-8", newline="")
            reader = csv.reader(lines, strict=strict, **_dialect(self.delimiter, self.quote))
            before = 0
            try:
                for row in reader:
                    if row:
                        yield self.first + before, row
                    before = reader.line_num
            except csv.Error as error:
                raise DataError(f"{self.shown}:{self.first + before}: {_told(str(error))}") from None

    def line(self, row: int) -> str:
        """Where a row stands, counted from 0."""
        return next((f"{self.shown}:{line}" for number, (line, _) in enumerate(self.rows()) if number == row), self.shown)

    def diagnose(self, reason: str) -> NoReturn:
        """Find the first row that is not as it must be, and say so."""
        for line, row in self.rows():
            if len(row) != len(self.names):
                if any("\n" in cell for cell in row):
                    self.check_quotes()
                raise DataError(
                    f"{self.shown}:{line}: every row must have {len(self.names)} cells as the "
                    f"{'first row' if self.guessed else 'header'} has, found {len(row)}"
                )
        self.check_quotes()
        raise DataError(f"{self.shown}: cannot be read as text with a {self.named_delimiter} between cells: {reason}")

    def check_quotes(self) -> None:
        """Go through the whole file for a quote that is not closed, or closed within a cell. Raises DataError."""
        for _ in self.rows(strict=True):
            pass

    @property
    def named_delimiter(self) -> str:
        """comma, semicolon, ..."""
        return next(name for name, mark in DELIMITERS.items() if mark == self.delimiter)


def open_text(path: Path, shown: str, how: Format, expected: Collection[str] = ()) -> TextFile:
    """Check the file's bytes and find out how it is written. `expected` names columns that a header must have.

    Raises DataError with line and byte for what is no text in its encoding.
    """
    plain, folder, quotes = _as_utf8(path, shown, how)
    head, bom, sample = _sample(plain)
    quote = QUOTES[how.quote]
    whole = len(head) < SAMPLE
    delimiter = DELIMITERS[how.delimiter] if how.delimiter != "auto" else _find_delimiter(sample, whole, quote, how, shown)
    if delimiter == " " and how.delimiter == "auto":
        return open_text(path, shown, how.model_copy(update={"delimiter": "space"}), expected)
    start, first, cells = _first_row(sample, delimiter, quote)
    if not cells:
        raise DataError(
            f"{shown}: the file must have a header and rows, found {'blank lines alone' if head else 'an empty file'}"
        )
    named = how.header is True or (how.header == "auto" and (bool({*expected} & {*cells}) or not _like_a_row(cells)))
    names = tuple(cell or f"column_{place}" for place, cell in enumerate(cells, 1))
    if not named:
        start, first, names = 0, 1, tuple(f"column_{place}" for place in range(1, len(cells) + 1))
    return TextFile(
        shown=shown,
        path=plain,
        names=names,
        unnamed=frozenset(name for name, cell in zip(names, cells, strict=True) if named and not cell),
        guessed=not named,
        start=bom + start,
        first=first,
        delimiter=delimiter,
        quote=quote,
        decimal="," if how.decimal == "comma" else ".",
        odd_quotes=quotes % 2 == 1,
        folder=folder,
    )


def _sample(path: Path) -> tuple[bytes, int, str]:
    """(the first bytes, how many of them are a byte order mark, the text of the others)."""
    with open(path, "rb") as file:
        head = file.read(SAMPLE)
    bom = 3 if head.startswith(codecs.BOM_UTF8) else 0
    return head, bom, head[bom:].decode("utf-8", errors="ignore")


# -- bytes ------------------------------------------------------------------------------------------------------------------


def _as_utf8(path: Path, shown: str, how: Format) -> tuple[Path, Folder | None, int]:
    """(a file of plain UTF-8, the folder it lies in if it is a copy, how many quotes it has)."""
    encoding = _encoding(path, shown, how.encoding)
    mark = (QUOTES[how.quote] or "").encode()
    packed, spaced = path.suffix.lower() == ".gz", how.delimiter == "space"
    if encoding == "utf-8" and not packed and not spaced:
        return path, None, sum(block.count(mark) for block in _checked(path, shown, encoding) if mark)
    folder = Folder()
    copy, quotes, left = folder.path / "text", 0, b""
    with open(copy, "wb") as file:
        for block in _checked(path, shown, encoding):
            if spaced:
                block, left = _cut(left + block)
                block = _one_space(block)
            quotes += block.count(mark) if mark else 0
            file.write(block)
        file.write(_one_space(left))
    return copy, folder, quotes


def _cut(block: bytes) -> tuple[bytes, bytes]:
    """Up to the last whole line, and the rest."""
    end = block.rfind(b"\n") + 1
    return block[:end], block[end:]


def _one_space(lines: bytes) -> bytes:
    """One space between cells, none before or after a line."""
    return re.sub(rb"(?m)^ +| +(?=\r?$)", b"", re.sub(rb" +", b" ", lines))


def _encoding(path: Path, shown: str, stated: str) -> str:
    with _opened(path) as file:
        head = _read(file, shown, 4)
    found = next((name for mark, name in BOMS.items() if head.startswith(mark)), "utf-8")
    if stated == "auto":
        return found
    try:
        name = codecs.lookup(stated).name
    except LookupError:
        raise DataError(f"data.format.encoding must be an encoding of text that Python knows, or auto, got {stated!r}") from None
    return "utf-8" if name in ("utf-8", "utf-8-sig", "ascii") else found if found.startswith(name) else name


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else open(path, "rb")


def _read(file: BinaryIO, shown: str, size: int) -> bytes:
    try:
        return file.read(size)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{shown}: must be a whole gzip file, found one that cannot be unpacked: {error}") from None


def _checked(path: Path, shown: str, encoding: str) -> Iterator[bytes]:
    """The file's text as blocks of UTF-8. Raises DataError at a NUL, and at a byte that the encoding does not have."""
    decoder = codecs.getincrementaldecoder(encoding)()
    read = lines = 0
    with _opened(path) as file:
        while True:
            block = _read(file, shown, BLOCK)
            pending, content = len(decoder.getstate()[0]), block
            if encoding == "utf-8":
                _refuse_nul(shown, content, lines)
            if encoding != "utf-8" or pending or not block.isascii():
                try:
                    text = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    _refuse_byte(shown, encoding, error, read - pending, lines)
                content = block if encoding == "utf-8" else text.encode()
                _refuse_nul(shown, content, lines)
            if not block:
                return
            yield content
            read += len(block)
            lines += content.count(b"\n")


def _refuse_nul(shown: str, content: bytes, lines: int) -> None:
    if b"\0" in content:
        line = lines + content[: content.index(b"\0")].count(b"\n") + 1
        raise DataError(
            f"{shown}:{line}: text must have no NUL bytes, found one; for UTF-16 without a byte order mark set "
            "data.format.encoding: utf-16-le or utf-16-be"
        )


def _refuse_byte(shown: str, encoding: str, error: UnicodeDecodeError, before: int, lines: int) -> NoReturn:
    """`before` bytes and `lines` line ends come before the block in which the decoder stopped."""
    block, place = error.object, error.start
    line = lines + block[:place].count(b"\n") + 1
    name = "UTF-8" if encoding == "utf-8" else encoding
    way_out = "for another encoding set data.format.encoding: latin-1, or what it is"
    raise DataError(
        f"{shown}:{line}: the text must be {name}, found {block[place]:#04x} at byte {before + place}; "
        f"{way_out if encoding == 'utf-8' else 'set data.format.encoding to what it is'}"
    )


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
    return " " if _regularity(_one_space(sample.encode()).decode(), whole, " ", quote)[0] >= 0.5 else usual


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
        pass  # a quote is never closed: told of when the rows are read
    if not widths:
        return 0.0, 0
    width, count = Counter(widths).most_common(1)[0]
    return (count / len(widths), width) if width > 1 else (0.0, 0)


def _first_row(sample: str, delimiter: str, quote: str | None) -> tuple[int, int, list[str]]:
    """(bytes up to the end of the first row that is not blank, the line after it, its cells)."""
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.StringIO(sample, newline=""):
            taken.append(line)
            yield line

    try:
        for row in csv.reader(lines(), **_dialect(delimiter, quote)):
            if row:
                return len("".join(taken).encode()), len(taken) + 1, [cell.strip() for cell in row]
    except csv.Error:
        pass
    return 0, 1, []


def _like_a_row(cells: list[str]) -> bool:
    """More than half of the cells are numbers: names seldom are."""
    return 2 * sum(bool(NUMBER.fullmatch(cell)) for cell in cells) > len(cells)


def _told(error: str) -> str:
    """What Python's csv complains of, in our words."""
    if "unexpected end of data" in error:
        return "a quote is opened in this row and never closed"
    if "field larger than field limit" in error:
        return f"a quote is opened in this row and not closed within {csv.field_size_limit()} characters"
    if "expected after" in error:
        return "a quote is closed within a cell: a delimiter or a line end must follow it; was an earlier quote never closed?"
    return f"cannot be read: {error}"
