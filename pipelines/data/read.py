"""Where rows come from: a bundled set, a text file with delimiters, a Parquet file, OpenML, or a file a part."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np

from backends.weights import write_atomically
from pipelines.data.columns import Column, DataError, NDArray, Source
from pipelines.project import project_of
from pipelines.spec import DataSpec
from pipelines.spec.blocks import BUNDLED, FILES, Kind
from pipelines.spec.describe import nearest

if TYPE_CHECKING:
    from pipelines.data.inference import InferredType
    from pipelines.data.tables import JoinedTable, Table

LISTED = 50  # columns in a message
ABOUT = "https://www.openml.org/api/v1/json/data/{number}"
TIMEOUT = 10.0  # seconds without a byte
MISSING = "?"
ATTRIBUTE = re.compile(r"""@attribute\s+('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\S+)\s+(.*)""", re.IGNORECASE)
NUMBERS = ("numeric", "real", "integer")
ROWS = 65536  # of ARFF that are held by Python at a time


def read(block: DataSpec, base: Path | None = None) -> Source:
    """The rows that `data.source` names; a relative path is taken from `base`.

    Raises DataError with file, row and column for what cannot be read, or holds what its kind does not allow.
    """
    found = survey(block, base)
    for problem in found.problems.values():
        raise DataError(problem)
    return found.source


@dataclass(frozen=True)
class Survey:
    """A source that may not be what the spec asks for: a column that `read` would refuse is text."""

    source: Source
    stated: frozenset[str] = frozenset()  # columns whose kind data.columns gives
    problems: Mapping[str, str] = field(default_factory=dict)  # column -> what `read` would say; "": of the names in the spec
    refused: Mapping[str, InferredType] = field(default_factory=dict)  # those columns, with the kind that their cells break
    suspicion: str = ""  # of the header and quotes
    guessed: bool = False  # the first line was taken for a row


def survey(block: DataSpec, base: Path | None = None) -> Survey:
    """Look at every column. Raises DataError where there is no table."""
    if block.source in BUNDLED:
        return Survey(read_bundled(str(block.source)))
    table = open_source(block, base)
    problems = {}
    try:
        check_named(block, table)
    except DataError as error:
        problems[""] = str(error)
    for name in {*block.spellings} & {*table.names}:
        table.check_spellings(name)
    types = {name: table.infer(name) for name in table.names}
    refused = {name: found for name, found in types.items() if found.problem}
    problems |= {name: table.explain(found) for name, found in refused.items()}
    source = table.source(types)
    if not {*source.targets} & {*refused}:
        source = source.without(_left_out(source, block))
    guessed = table.guessed and block.format.header == "auto"
    return Survey(source, frozenset(table.stated), problems, refused, table.suspicion, guessed)


def _left_out(source: Source, block: DataSpec) -> dict[str, NDArray]:
    """Why rows are left out -> which, (rows,): those without any value, and, where the spec says so, those without a target."""
    gaps = np.zeros(source.rows, dtype=bool)
    for name in source.targets:
        gaps |= source.fetch(name).gaps
    blank = gaps.copy()
    for name in source.kinds:
        if blank.any():
            blank &= source.fetch(name).gaps
    reasons = {"blank": blank}
    if block.missing.target == "drop":
        reasons["without a target"] = gaps & ~blank
    return reasons


def open_source(block: DataSpec, base: Path | None = None) -> JoinedTable:
    """The files of the source as one table."""
    from pipelines.data.tables import JoinedTable, open_table

    if not block.paths:
        markers = (*block.missing.markers, MISSING)
        block = block.model_copy(update={"missing": block.missing.model_copy(update={"markers": markers})})
        table, kinds = open_openml(str(block.source), block.sha256, base, markers)
        return JoinedTable(block, {"": table}, kinds, {})
    paths = {part: (shown, (base or Path()) / shown) for part, shown in block.paths.items()}
    for shown, path in paths.values():
        if path.is_dir():
            way_out = f"name a file in it that ends in {', '.join(FILES)}"
            raise DataError(f"data.source must be a file, got the folder {shown!r}; {way_out}")
        if not path.is_file():
            way_out = "a relative path starts at the project's root"
            raise DataError(f"data.source must be a file, found none at {shown!r}; {way_out}")
    return JoinedTable(block, {part: open_table(block, path, shown) for part, (shown, path) in paths.items()}, {}, {})


def check_named(block: DataSpec, table: JoinedTable) -> None:
    """Raises DataError unless the columns that the spec names are there."""
    missing = [name for name in block.targets if name not in table.names]
    if missing:
        more = f", ... ({len(table.names)} in all)" if len(table.names) > LISTED else ""
        header = "; if it names the columns set data.format.header: true"
        guessed = f" (the first line looks like a row{header})" if table.guessed else ""
        raise DataError(
            f"{table.shown}: data.target must name columns of the file, got {', '.join(map(repr, missing))}; "
            f"the columns are: {', '.join(table.names[:LISTED])}{more}{guessed}"
        )
    named = [("data.spellings", name) for name in block.spellings]
    named += [(f"data.split.{key}", name) for key in ("group", "time", "part") if (name := getattr(block.split, key))]
    named += [("data.weight", block.weight)] if block.weight else []
    for key, name in named:
        if name not in table.names:
            hint = nearest(name, [*table.names])
            raise DataError(f"{table.shown}: {key} must name a column of the file, got {name!r}; {hint}")


# -- data sets by name --


def read_bundled(name: str) -> Source:
    """One of them, with all its targets: names of classes where they have any, else numbers."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    X, y = bunch.data.astype(np.float64), bunch.target.reshape(len(bunch.data), -1)
    columns = {str(feature): Column(X[:, place]) for place, feature in enumerate(bunch.feature_names)}
    classes = bunch.get("target_names")
    if y.dtype.kind == "i" and classes is not None and classes.dtype.kind == "U":
        known, place = np.unique(classes.astype(str), return_inverse=True)
        targets = [Column(place[y[:, 0]].astype(np.int32), tuple(map(str, known)))]
    else:
        targets = [Column(values) for values in y.T.astype(np.float64)]
    columns |= dict(zip(BUNDLED[name], targets, strict=True))
    kinds: dict[str, Kind] = {key: "categorical" if column.categories else "numeric" for key, column in columns.items()}
    return Source(name, len(X), kinds, BUNDLED[name], columns.__getitem__, lambda row: f"{name}, row {row + 1}")


def open_openml(source: str, sha256: str | None, base: Path | None, markers: Sequence[str]) -> tuple[Table, dict[str, Kind]]:
    """The rows, and what the file says of its columns; `source` is openml:ID.

    Raises DataError if it cannot be had, or is not the file that `sha256` stands for.
    """
    kept = kept_at(source, base)
    held = kept.is_file()
    content = kept.read_bytes() if held else _fetch(source)
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        where = f" at .deltarule/openml/{kept.name}; delete that file to fetch it anew, or" if held else ";"
        raise DataError(
            f"data.sha256 must be that of the file of {source}, got {sha256}, found {found}{where} if this is the "
            f"file that you mean set data.sha256: {found}"
        )
    if not held:
        kept.parents[1].mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(kept, content)
    return read_arff(content, source, markers)


def kept_at(source: str, base: Path | None) -> Path:
    """Where the file of openml:ID is kept."""
    return project_of(base or Path()) / ".deltarule" / "openml" / f"{source.partition(':')[2]}.arff"


def _fetch(source: str) -> bytes:
    """The bytes of the data set's file."""
    number = source.partition(":")[2]
    try:
        about = json.loads(_get(ABOUT.format(number=number)))["data_set_description"]
        if str(about.get("format", "")).lower() == "arff":
            return _get(about["url"])
    except (OSError, HTTPException, ValueError, KeyError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{source}: must be fetched once, but OpenML cannot be reached or does not have it: {reason}; without a network put "
            f"the data set's ARFF file at .deltarule/openml/{number}.arff"
        ) from None
    raise DataError(f"{source}: must be a data set in ARFF, found {about.get('format')}; choose another one")


def _get(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"no address of a file: {url}")
    with urlopen(url, timeout=TIMEOUT) as answer:
        content: bytes = answer.read()
    return content


def read_arff(content: bytes, shown: str, markers: Sequence[str]) -> tuple[Table, dict[str, Kind]]:
    """ARFF is comma-separated text below a list of columns, and keeps to one of the quotes.

    Raises DataError for sparse rows.
    """
    import pyarrow

    from pipelines.data.tables import TextTable

    try:
        file = io.StringIO(content.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown}: the text must be UTF-8, found {error.object[error.start]:#04x}") from None
    columns: dict[str, str] = {}  # name -> what is said of it
    for line in takewhile(lambda line: not line.strip().lower().startswith("@data"), file):
        if found := ATTRIBUTE.match(line.strip()):
            name = found[1][1:-1] if found[1][0] in "'\"" else found[1]
            columns[re.sub(r"\\(.)", r"\1", name).strip()] = found[2].strip()
    rest = file.read()
    if not rest:
        raise DataError(f"{shown}: must be an ARFF file with rows below a line @data, found none")
    quote = "'" if rest.count("'") >= rest.count('"') else '"'
    lines = (line for line in io.StringIO(rest, newline="") if line.strip() and not line.startswith("%"))
    rows = csv.reader(lines, quotechar=quote, escapechar="\\", skipinitialspace=True)
    batches = []
    while some := list(islice(rows, ROWS)):
        if any(row[0].startswith("{") for row in some):
            must = "must have a value for every column in each row, found sparse ARFF"
            raise DataError(f"{shown}: {must}; choose another data set")
        cells = [pyarrow.array([cell.strip() for cell in column], pyarrow.large_string()) for column in zip(*some, strict=True)]
        batches.append(pyarrow.record_batch(cells, list(columns)))
    kinds: dict[str, Kind] = {name: "numeric" for name, told in columns.items() if told.lower().startswith(NUMBERS)}
    kinds |= {name: "categorical" for name, told in columns.items() if told.startswith("{")}

    def select(names: Sequence[str]) -> list[Any]:
        return [batch.select(list(names)) for batch in batches]

    return TextTable(shown, columns, select, markers, lambda row: f"{shown}:{row + 1}"), kinds
