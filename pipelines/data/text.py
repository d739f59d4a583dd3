"""A delimited text file: encoding, delimiter and header, found out from a sample; and its rows, which pyarrow cuts.

Python reads all of it only to name the line of a fault.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, NoReturn, cast

import pyarrow as pa
from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

from pipelines.data.columns import DataError
from pipelines.spec.blocks import Format

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
QUOTES = {"double": '"', "rows": '"', "single": "'", "none": None}
SAMPLE = 1 << 20  # bytes; a header of 50 000 columns fits
BLOCK = 1 << 20  # bytes that are cut into cells at a time
SAMPLED_ROWS = 200
WHOLE = re.compile(r'"((?:[^"\r\n]|"")*)"[;, \t]*(\r?\n?)')
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
    "field larger than field limit": f"a cell here has more than {csv.field_size_limit()} characters; was a quote never closed?",
    "expected after": "a quote is closed within a cell: a delimiter or a line end must follow it; was an earlier quote never "
    "closed?",
}


@contextmanager
def opened(path: Path, shown: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if it is .gz. Raises DataError for a gzip file that is not whole."""
    packed = path.suffix.lower() == ".gz"
    try:
        with cast(IO[bytes], gzip.open(path, "rb")) if packed else open(path, "rb") as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{shown}: must be a whole gzip file, found one that cannot be unpacked: {error}") from None


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
    quoted_rows: bool = False  # each row stands in quotes as a whole
    suspicion: str = ""  # of what was found out; a question to a person

    def batches(self, names: Sequence[str]) -> Iterator[Any]:
        """Blocks of rows of some columns, every cell a string.

        Raises DataError for ragged rows, and quotes that stay open.
        """
        doubtful = False
        try:
            if next(self.rows(), None) is None:
                return
            for batch in self._cut(names):
                contents = [bytes(data) for cells in batch.columns if (data := cells.buffers()[2])]
                if any(b"\0" in content for content in contents):
                    self.check_characters()
                doubtful = doubtful or any(b"\n" in content for content in contents)
                yield batch
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            self.diagnose(str(error))
        with opened(self.path, self.shown) as file:
            last = deque(file, 1)[0]
        # pyarrow takes a cell whose quote is never closed without a word.
        if doubtful or (self.quote and last.count(self.quote.encode()) % 2):
            self.check_quotes()

    @property
    def plain(self) -> Callable[[str], str] | None:
        """What makes of a line one that pyarrow reads; None for most files."""
        return unquoted if self.quoted_rows else one_space if self.delimiter == " " else None

    def _cut(self, names: Sequence[str]) -> Iterator[Any]:
        """What pyarrow makes of the file."""
        read = ReadOptions(
            column_names=list(self.names),
            skip_rows=self.first - 1,
            block_size=max(BLOCK, 8 * len(",".join(self.names))),  # a row must fit
            use_threads=False,
            encoding="utf8" if self.encoding.startswith("utf-8") else self.encoding,
        )
        parse = ParseOptions(delimiter=self.delimiter, quote_char=self.quote or False, newlines_in_values=True)
        types = dict.fromkeys(self.names, pa.large_string())
        convert = ConvertOptions(null_values=[], column_types=types, include_columns=list(names))
        with opened(self.path, self.shown) as file:
            if self.plain:
                text = decoded(file.read(), self.shown, self.encoding, whole=True)
                file = io.BytesIO(_each_line(text, self.plain).encode(self.encoding))
            with open_csv(file, read_options=read, parse_options=parse, convert_options=convert) as reader:
                yield from reader
        pa.default_memory_pool().release_unused()  # what the strings took

    def rows(self, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """(line, cells) of every row, slowly. `strict`: raises DataError for odd quotes."""
        with opened(self.path, self.shown) as file:
            lines = map(self.plain or str, io.TextIOWrapper(file, encoding=self.encoding, newline=""))
            rest = islice(lines, self.first - 1, None)
            reader = csv.reader(rest, strict=strict, **_dialect(self.delimiter, self.quote))
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
        """Raises DataError with the line of a wrong character, row or quote."""
        self.check_characters()
        for line, row in self.rows():
            if len(row) != len(self.names):
                if any("\n" in cell for cell in row):
                    self.check_quotes()
                like = "first row" if self.guessed else "header"
                quoted = self.quote == '"' and any(cell.lstrip()[:1] == "'" for cell in row)
                way_out = "; if cells stand in single quotes set data.format.quote: single" if quoted else ""
                must = f"every row must have {len(self.names)} cells as the {like} has"
                raise DataError(f"{self.shown}:{line}: {must}, found {len(row)}{way_out}")
        self.check_quotes()
        named = next(name for name, mark in DELIMITERS.items() if mark == self.delimiter)
        raise DataError(f"{self.shown}: cannot be read as text with a {named} between cells: {reason}")

    def check_quotes(self) -> None:
        """Raises DataError with the line of a quote that is not closed, or not where one may be."""
        deque(self.rows(strict=True), 0)

    def check_characters(self) -> None:
        """Raises DataError for the first byte that the encoding does not have, and for NUL."""
        with opened(self.path, self.shown) as file:
            decoded(file.read(), self.shown, self.encoding, whole=True)


def decoded(content: bytes, shown: str, encoding: str, whole: bool) -> str:
    """The text of some bytes. Raises DataError for what the encoding does not have, and NUL."""
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
    with opened(path, shown) as file:
        head = file.read(SAMPLE)
    encoding, whole, quote = _encoding(head, how.encoding), len(head) < SAMPLE, QUOTES[how.quote]
    sample = decoded(head, shown, encoding, whole)
    _refuse_quoted_rows(shown, sample, how.quote)
    if how.quote == "rows":
        sample = _each_line(sample, unquoted)
    delimiter = DELIMITERS.get(how.delimiter) or _find_delimiter(sample, whole, quote, how, shown)
    sampled = _sampled(sample, delimiter, quote)
    if not sampled:
        found = "blank lines alone" if head else "an empty file"
        raise DataError(f"{shown}: the file must have a header and rows, found {found}")
    first, rows = sampled[0][0], [row for _, row in sampled]
    cells = [cell.strip() for cell in rows[0]]
    like_a_row = 2 * sum(bool(NUMBER.fullmatch(cell)) for cell in cells) > len(cells)  # names seldom are numbers
    recurring = _recurring(cells, rows)
    expects = bool({*expected} & {*cells})
    named = how.header is True or (how.header == "auto" and (expects or not (like_a_row or recurring)))
    suspicion = _suspect_quotes(rows, how.quote)
    if how.header == "auto" and named and recurring:
        told = f"{recurring} of its {len(cells)} cells stand in their columns once more"
        names = f"its columns are column_1 to column_{len(cells)}"
        suspicion = f"is the first line a row? {told}; if so, set data.format.header: false; {names}"
    return TextFile(
        shown,
        path,
        encoding,
        names=tuple(cell if cell and named else f"column_{place}" for place, cell in enumerate(cells, 1)),
        unnamed=frozenset(f"column_{place}" for place, cell in enumerate(cells, 1) if named and not cell),
        guessed=not named,
        first=first if named else 1,
        delimiter=delimiter,
        quote=quote,
        quoted_rows=how.quote == "rows",
        suspicion=suspicion,
    )


def _refuse_quoted_rows(shown: str, sample: str, quote: str) -> None:
    """Raises DataError where each row stands in quotes as a whole, and nothing says so."""
    lines = [line for line in islice(io.StringIO(sample), SAMPLED_ROWS) if line.strip()][1:-1]
    quoted = sum(bool(WHOLE.fullmatch(line)) and any(mark in line for mark in ",;\t|") for line in lines)
    if quote == "double" and len(lines) > 2 and 2 * quoted > len(lines):
        must = f"each cell may stand in quotes, found {quoted} of {len(lines)} rows that do so as a whole"
        raise DataError(f"{shown}: {must}; set data.format.quote: rows")


def _recurring(cells: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Cells of the first row that stand in their column once more; 0 if they are less than half."""
    later = [row for row in rows[1:] if len(row) == len(cells)]
    columns = [{cell.strip() for cell in column} for column in zip(*later, strict=True)]
    again = sum(bool(cell) and cell in column for cell, column in zip(cells, columns, strict=False))
    return again if 2 * again >= len(cells) and again > 1 else 0


def _suspect_quotes(rows: Sequence[Sequence[str]], quote: str) -> str:
    cells = [cell.strip() for row in rows for cell in row]
    single = sum(len(cell) > 1 and cell[0] == cell[-1] == "'" for cell in cells)
    if quote != "double" or 10 * single < len(cells) or single < 2:
        return ""
    return f"are cells in single quotes? {single} of {len(cells)} are; if so, set data.format.quote: single"


def _encoding(head: bytes, stated: str) -> str:
    found = next((name for mark, name in BOMS.items() if head.startswith(mark)), "utf-8")
    if stated == "auto":
        return found
    name = codecs.lookup(stated).name
    name = "utf-8" if name in ("utf-8-sig", "ascii") else name
    return found if found.startswith(name) else name


# -- delimiter and header --


def _dialect(delimiter: str, quote: str | None) -> dict[str, Any]:
    return {"delimiter": delimiter, **({"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE})}


def one_space(line: str) -> str:
    """One space between cells, none before or after them."""
    return re.sub(r"^ +| +(?=\r?\n?$)", "", re.sub(" +", " ", line))


def unquoted(line: str) -> str:
    """A row without the quotes that it stands in as a whole; others as they are."""
    whole = WHOLE.fullmatch(line)
    return whole[1].replace('""', '"') + whole[2] if whole else line


def _each_line(sample: str, plain: Callable[[str], str]) -> str:
    return "".join(map(plain, io.StringIO(sample, newline="")))


def _find_delimiter(sample: str, whole: bool, quote: str | None, how: Format, shown: str) -> str:
    """The delimiter that gives most rows the same number of cells, two at least."""
    usual = "\t" if shown.lower().removesuffix(".gz").endswith(".tsv") else ","
    marks = sorted((m for m in ",;\t|" if (m, how.decimal) != (",", "comma")), key=lambda mark: mark != usual)
    best = max(marks, key=lambda mark: _regularity(sample, whole, mark, quote))
    return next((mark for mark in (best, " ") if _regularity(sample, whole, mark, quote)[0] >= 0.5), usual)


def _regularity(sample: str, whole: bool, delimiter: str, quote: str | None) -> tuple[float, int]:
    """(share of rows with the usual number of cells, that number); zeros where it is 1."""
    widths = [len(row) for _, row in _sampled(sample, delimiter, quote)]
    if not whole and len(widths) < SAMPLED_ROWS:
        widths = widths[:-1]  # the last row may be cut
    [(width, count)] = Counter(widths).most_common(1) or [(0, 0)]
    return (count / len(widths), width) if width > 1 else (0.0, 0)


def _sampled(sample: str, delimiter: str, quote: str | None) -> list[tuple[int, list[str]]]:
    """The first rows that are not blank, each after the line behind it."""
    plain = one_space if delimiter == " " else str
    reader = csv.reader(map(plain, io.StringIO(sample, newline="")), **_dialect(delimiter, quote))
    rows: list[tuple[int, list[str]]] = []
    with suppress(csv.Error):  # a quote is never closed: named when the rows are read
        rows += islice(((reader.line_num + 1, row) for row in reader if row), SAMPLED_ROWS)
    return rows
