"""Data sets of OpenML by number, pinned by a hash: fetched once, kept under .deltarule/openml/, and the same bytes ever after.

The file is the ARFF that OpenML names as the data set's own and scikit-learn reads too; it says which columns are numbers and
which are categories.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TextIO
from urllib.request import urlopen

from backends.weights import write_atomically
from pipelines.data.spool import Folder
from pipelines.data.table import DataError
from pipelines.data.text import TextFile
from pipelines.project import project_of
from pipelines.spec.blocks import Kind

ABOUT = "https://www.openml.org/api/v1/json/data/{number}"
TIMEOUT = 10.0  # seconds without a byte
MISSING = "?"
ATTRIBUTE = re.compile(r"""@attribute\s+(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(\S+))\s+(.*)""", re.IGNORECASE)
NUMBERS = ("numeric", "real", "integer")


@dataclass(frozen=True)
class Arff:
    """Rows as a text file, and what the file itself says of its columns."""

    text: TextFile
    kinds: dict[str, Kind]


def open_openml(source: str, sha256: str | None, base: Path | None) -> Arff:
    """`source` is openml:ID. Raises DataError if it cannot be had, or is not the file that `sha256` stands for."""
    kept = kept_at(source, base)
    held = kept.is_file()
    content = kept.read_bytes() if held else _fetch(source)
    found = sha256_of(content)
    if sha256 is not None and found != sha256:
        where = f" at .deltarule/openml/{kept.name}; delete that file to fetch it anew, or" if held else ";"
        raise DataError(
            f"data.sha256 must be that of the file of {source}, got {sha256}, found {found}{where} if this is the "
            f"file that you mean set data.sha256: {found}"
        )
    if not held:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, content)
    return read_arff(kept, source)


def kept_at(source: str, base: Path | None) -> Path:
    """Where the file of openml:ID is kept."""
    return project_of(base or Path()) / ".deltarule" / "openml" / f"{source.partition(':')[2]}.arff"


def sha256_of(content: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _fetch(source: str) -> bytes:
    """The bytes of the data set's file."""
    number = source.partition(":")[2]
    try:
        about = json.loads(_get(ABOUT.format(number=number)))["data_set_description"]
        if str(about.get("format", "")).lower() != "arff":
            raise DataError(f"{source}: must be a data set in ARFF, found {about.get('format')}; choose another one")
        return _get(about["url"])
    except (OSError, HTTPException, ValueError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        told = getattr(error, "reason", None) or error
        raise DataError(
            f"{source}: must be fetched once, but OpenML cannot be reached or does not have it: {told}; without a network put "
            f"the data set's ARFF file at .deltarule/openml/{number}.arff"
        ) from None


def _get(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"no address of a file: {url}")
    with urlopen(url, timeout=TIMEOUT) as answer:
        content: bytes = answer.read()
    return content


def read_arff(path: Path, shown: str) -> Arff:
    """The rows are copied into a temporary file as plain comma-separated text; `?` stands where a value is missing."""
    folder = Folder()
    kinds: dict[str, Kind | None] = {}
    try:
        with (
            open(path, encoding="utf-8-sig", newline="") as file,
            open(folder.path / "text", "w", encoding="utf-8") as copy,
        ):
            for name, told in _attributes(file, shown):
                kinds[name] = "numeric" if told.lower().startswith(NUMBERS) else "categorical" if told.startswith("{") else None
            writer = csv.writer(copy, lineterminator="\n")
            writer.writerows(_rows(file, shown))
    except UnicodeDecodeError as error:
        raise DataError(f"{shown}: the text must be UTF-8, found {error.object[error.start]:#04x}") from None
    text = TextFile(
        shown=shown,
        path=folder.path / "text",
        names=tuple(kinds),
        unnamed=frozenset(),
        guessed=False,
        start=0,
        first=1,
        delimiter=",",
        quote='"',
        decimal=".",
        odd_quotes=False,
        folder=folder,
    )
    return Arff(text, {name: kind for name, kind in kinds.items() if kind})


def _attributes(file: TextIO, shown: str) -> Iterator[tuple[str, str]]:
    """(name, what is said of it) of each column; leaves the file at the first row."""
    for line in iter(file.readline, ""):
        if line.strip().lower().startswith("@data"):
            return
        found = ATTRIBUTE.match(line.strip())
        if found:
            name = next(group for group in found.groups()[:3] if group is not None)
            yield re.sub(r"\\(.)", r"\1", name).strip(), found.group(4).strip()
    raise DataError(f"{shown}: must be an ARFF file with a line @data, found none")


def _rows(file: TextIO, shown: str) -> Iterator[list[str]]:
    """Cells of each row. ARFF quotes with either quote; a file keeps to one."""
    first = file.tell()
    sample = file.read(1 << 20)
    file.seek(first)
    quote = "'" if sample.count("'") >= sample.count('"') else '"'
    lines = (line for line in iter(file.readline, "") if line.strip() and not line.startswith("%"))
    for row in csv.reader(lines, quotechar=quote, escapechar="\\", skipinitialspace=True):
        if row[0].startswith("{"):
            raise DataError(
                f"{shown}: must have a value for every column in each row, found sparse ARFF; choose another data set"
            )
        yield [cell.strip() for cell in row]
