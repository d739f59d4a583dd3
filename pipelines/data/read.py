"""Where rows come from: a bundled set, a text file with delimiters, a Parquet file, OpenML, or a file a part."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
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
from pipelines.spec.blocks import BUNDLED, FILES, GIVEN, KEPT, Kind
from pipelines.spec.describe import nearest
from pipelines.spec.file import flow

if TYPE_CHECKING:
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

    Raises DataError with file, row and column for what cannot be read.
    """
    source = survey(block, base)
    for problem in source.problems.values():
        raise DataError(problem)
    return source


def survey(block: DataSpec, base: Path | None = None) -> Source:
    """The same, with what `read` would refuse as `problems`. Raises DataError where there is no table."""
    if block.source in BUNDLED:
        return read_bundled(str(block.source))
    table = open_source(block, base)
    unmet = unmet_names(block, table)
    for name in {*block.spellings} & {*table.names}:
        table.check_spellings(name)
    source = table.source({name: table.infer(name) for name in table.names})
    if not {*source.targets} & {*source.refused}:
        source = source.without(_left_out(source, block))
    return replace(source, problems={"": unmet, **source.problems}) if unmet else source


def _left_out(source: Source, block: DataSpec) -> dict[str, NDArray]:
    """Why rows are left out -> which, (rows,): without any value, or, if the spec says so, without a target."""
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
        missing = block.missing.model_copy(update={"markers": (*block.missing.markers, MISSING)})
        block = block.model_copy(update={"missing": missing})
        table, kinds = open_openml(block, base)
        joined = JoinedTable(block, {"": table})
        joined.stated = {**kinds, **joined.stated}
        return joined
    paths = {part: (shown, (base or Path()) / shown) for part, shown in block.paths.items()}
    for shown, path in paths.values():
        if path.is_dir():
            way_out = f"name a file in it that ends in {', '.join(FILES)}"
            raise DataError(f"data.source must be a file, got the folder {shown!r}; {way_out}")
        if not path.is_file():
            way_out = "a relative path starts at the project's root"
            raise DataError(f"data.source must be a file, found none at {shown!r}; {way_out}")
    tables = {part: open_table(block, path, GIVEN if KEPT in shown else shown) for part, (shown, path) in paths.items()}
    return JoinedTable(block, tables)


def unmet_names(block: DataSpec, table: JoinedTable) -> str:
    """What is wrong with the columns that the spec names; "" where they are there."""
    missing = [name for name in block.targets if name not in table.names]
    if missing:
        more = f", ... ({len(table.names)} in all)" if len(table.names) > LISTED else ""
        header = "; if it names the columns set data.format.header: true"
        guessed = f" (the first line looks like a row{header})" if table.guessed else ""
        if block.format.header is False:
            first = {table.files[0].texts(name)[0].as_py(): name for name in table.names}
            there = [first[name] for name in block.targets if name in first]
            guessed = f"; set data.target: {flow(there if len(there) > 1 else there[0])}" if there else ""
        return (
            f"{table.shown}: data.target must name columns of the file, got {', '.join(map(repr, missing))}; "
            f"the columns are: {', '.join(table.names[:LISTED])}{more}{guessed}"
        )
    by = [(f"data.split.{key}", getattr(block.split, key)) for key in ("group", "time", "part")]
    named = [*(("data.spellings", name) for name in block.spellings), *by, ("data.weight", block.weight)]
    for key, name in named:
        if name and name not in table.names:
            hint = nearest(name, [*table.names])
            return f"{table.shown}: {key} must name a column of the file, got {name!r}; {hint}"
    return ""


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


def open_openml(block: DataSpec, base: Path | None) -> tuple[Table, dict[str, Kind]]:
    """The rows, and what the file says of its columns.

    Raises DataError if it cannot be had, or is not the file that data.sha256 stands for.
    """
    source, sha256 = block.shown_source, block.sha256
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
    return read_arff(content, block)


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


def read_arff(content: bytes, block: DataSpec) -> tuple[Table, dict[str, Kind]]:
    """ARFF is comma-separated text below a list of columns, and keeps to one of the quotes.

    Raises DataError for sparse rows.
    """
    import pyarrow as pa

    from pipelines.data.tables import TextTable

    shown = block.shown_source
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
        cells = [pa.array([cell.strip() for cell in column], pa.large_string()) for column in zip(*some, strict=True)]
        batches.append(pa.record_batch(cells, list(columns)))
    kinds: dict[str, Kind] = {name: "numeric" for name, told in columns.items() if told.lower().startswith(NUMBERS)}
    kinds |= {name: "categorical" for name, told in columns.items() if told.startswith("{")}

    def select(names: Sequence[str]) -> list[Any]:
        return [batch.select(list(names)) for batch in batches]

    return TextTable(shown, columns, select, lambda row: f"{shown}:{row + 1}", block), kinds
