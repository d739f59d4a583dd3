"""Data sets by name: the small ones that come with scikit-learn, and those of OpenML by number, pinned by a hash.

What OpenML gives is fetched once, kept under .deltarule/openml/, and the same bytes ever after: the ARFF file of the data
set, which says which columns are numbers and which are categories.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np

from backends.weights import write_atomically
from pipelines.data.columns import Column, DataError, NDArray, Source
from pipelines.project import project_of
from pipelines.spec.blocks import Kind

if TYPE_CHECKING:
    from pipelines.data.tables import Table

# name -> names of its target columns, which scikit-learn leaves out for all but one
BUNDLED = {
    "digits": ("digit",),
    "breast_cancer": ("diagnosis",),
    "wine": ("cultivar",),
    "iris": ("species",),
    "diabetes": ("progression",),
    "linnerud": ("Weight", "Waist", "Pulse"),
}


def read_bundled(name: str) -> Source:
    """One of them, with all its targets."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    X = bunch.data.astype(np.float64)
    columns = {str(feature): Column(X[:, place]) for place, feature in enumerate(bunch.feature_names)}
    targets = _targets(bunch, BUNDLED[name])
    kinds: dict[str, Kind] = dict.fromkeys(columns, "numeric")
    kinds |= {target: "categorical" if column.categories else "numeric" for target, column in targets.items()}
    whole = {**columns, **targets}
    return Source(name, len(X), kinds, BUNDLED[name], whole.__getitem__, lambda row: f"{name}, row {row + 1}")


def _targets(bunch: Any, names: tuple[str, ...]) -> dict[str, Column]:
    """Names of classes where they have any, else numbers."""
    y: NDArray = bunch.target.reshape(len(bunch.data), -1)
    classes = bunch.get("target_names")
    if y.dtype.kind == "i" and classes is not None and classes.dtype.kind == "U":
        known, place = np.unique(classes.astype(str), return_inverse=True)
        return {names[0]: Column(place[y[:, 0]].astype(np.int32), tuple(map(str, known)))}
    return {name: Column(y[:, place].astype(np.float64)) for place, name in enumerate(names)}


# -- OpenML -----------------------------------------------------------------------------------------------------------------

ABOUT = "https://www.openml.org/api/v1/json/data/{number}"
TIMEOUT = 10.0  # seconds without a byte
MISSING = "?"
ATTRIBUTE = re.compile(r"""@attribute\s+(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(\S+))\s+(.*)""", re.IGNORECASE)
NUMBERS = ("numeric", "real", "integer")


def open_openml(source: str, sha256: str | None, base: Path | None, markers: Sequence[str]) -> tuple[Table, dict[str, Kind]]:
    """The rows, and what the file says of its columns; `source` is openml:ID.

    Raises DataError if it cannot be had, or is not the file that `sha256` stands for.
    """
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
    return read_arff(content, source, markers)


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
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{source}: must be fetched once, but OpenML cannot be reached or does not have it: {reason}; without a network put "
            f"the data set's ARFF file at .deltarule/openml/{number}.arff"
        ) from None


def _get(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"no address of a file: {url}")
    with urlopen(url, timeout=TIMEOUT) as answer:
        content: bytes = answer.read()
    return content


def read_arff(content: bytes, shown: str, markers: Sequence[str]) -> tuple[Table, dict[str, Kind]]:
    """ARFF is comma-separated text below a list of columns, with either quote. Raises DataError for sparse rows."""
    from pipelines.data.tables import TextTable, as_batches

    try:
        file = io.StringIO(content.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown}: the text must be UTF-8, found {error.object[error.start]:#04x}") from None
    columns = dict(_attributes(file, shown))
    known: dict[str, Kind] = {name: "numeric" for name, told in columns.items() if told.lower().startswith(NUMBERS)}
    known |= {name: "categorical" for name, told in columns.items() if told.startswith("{")}
    blocks = list(as_batches(list(columns), _rows(file, shown)))
    return TextTable(shown, list(columns), lambda names: (block.select(names) for block in blocks), markers), known


def _attributes(file: io.StringIO, shown: str) -> Iterator[tuple[str, str]]:
    """(name, what is said of it) of each column; leaves the file at the first row."""
    for line in iter(file.readline, ""):
        if line.strip().lower().startswith("@data"):
            return
        found = ATTRIBUTE.match(line.strip())
        if found:
            name = next(group for group in found.groups()[:3] if group is not None)
            yield re.sub(r"\\(.)", r"\1", name).strip(), found.group(4).strip()
    raise DataError(f"{shown}: must be an ARFF file with a line @data, found none")


def _rows(file: io.StringIO, shown: str) -> Iterator[list[str]]:
    """Cells of each row. A file keeps to one of the quotes."""
    rest = file.read()
    quote = "'" if rest.count("'") >= rest.count('"') else '"'
    lines = (line for line in io.StringIO(rest, newline="") if line.strip() and not line.startswith("%"))
    for row in csv.reader(lines, quotechar=quote, escapechar="\\", skipinitialspace=True):
        if row[0].startswith("{"):
            raise DataError(
                f"{shown}: must have a value for every column in each row, found sparse ARFF; choose another data set"
            )
        yield [cell.strip() for cell in row]
