"""Where rows come from: a bundled set, a text file with delimiters, a Parquet file, OpenML, or a file a part.

Source = read(block, base)
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np

from backends.weights import write_atomically
from pipelines.data.columns import PARTS, Column, DataError, NDArray, Source
from pipelines.project import project_of
from pipelines.spec import DataSpec
from pipelines.spec.blocks import DELIMITED, FILES, Kind
from pipelines.spec.describe import nearest

if TYPE_CHECKING:
    from pipelines.data.inference import InferredType, StringColumn
    from pipelines.data.tables import Table

NAMED = 5  # names, or places, that a message lists
# name -> names of its target columns, which scikit-learn leaves out for all but one
BUNDLED = {
    "digits": ("digit",),
    "breast_cancer": ("diagnosis",),
    "wine": ("cultivar",),
    "iris": ("species",),
    "diabetes": ("progression",),
    "linnerud": ("Weight", "Waist", "Pulse"),
}
ABOUT = "https://www.openml.org/api/v1/json/data/{number}"
TIMEOUT = 10.0  # seconds without a byte
MISSING = "?"
ATTRIBUTE = re.compile(r"""@attribute\s+(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(\S+))\s+(.*)""", re.IGNORECASE)
NUMBERS = ("numeric", "real", "integer")


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
    types = {name: table.infer(name) for name in table.names}
    refused = {name: found for name, found in types.items() if found.problem}
    problems |= {name: table.explain(found) for name, found in refused.items()}
    return Survey(table.source(types), frozenset(table.stated), problems, refused)


class JoinedTable:
    """The files of a source by part; {"": file} where there is one. Raises DataError unless they have the same columns.

    Kinds are inferred over all rows, categories are joined, and columns come one at a time.
    """

    def __init__(self, block: DataSpec, files: Mapping[str, Table], known: Mapping[str, Kind]) -> None:
        """`known`: column -> what the source itself says of it."""
        from pipelines.data.inference import TextFormat, stated_kinds
        from pipelines.data.tables import TextTable

        self.block, self.parts, self.files = block, list(files), list(files.values())
        self.names, self.shown = self.files[0].names, self.files[0].shown
        texts = [file for file in self.files if isinstance(file, TextTable)]
        self.unnamed = frozenset[str]().union(*(text.unnamed for text in texts))
        self.guessed = any(text.guessed for text in texts)
        self.typed = self.files[0] not in texts  # by the file: text that looks like numbers stays text
        self.starts = np.cumsum([0, *(file.rows for file in self.files)])
        check_same_columns(self.files)
        for file in self.files:
            if not file.rows:
                raise DataError(f"{file.shown}: the file has no rows below the header")
        self.stated = {**known, **stated_kinds(block.columns, self.names)}
        self.how = TextFormat("," if block.format.decimal == "comma" else ".", block.format.dates)

    def type_of(self, name: str) -> str:
        """What the files themselves say, as `Table.type_of` does; text where they differ."""
        found = {file.type_of(name) for file in self.files} - {"nothing"}
        if found == {"wide", "numeric"}:
            return "wide"
        return "nothing" if not found else found.pop() if len(found) == 1 else "text"

    def strings(self, name: str) -> StringColumn:
        """The column as text, of all files. Raises DataError for a spelling that no cell has."""
        import pyarrow

        from pipelines.data.inference import clean

        each = [file.texts(name) for file in self.files]
        bases = np.cumsum([0, *(len(texts) for _, texts in each)])
        codes = np.concatenate([np.where(codes < 0, -1, codes + base) for (codes, _), base in zip(each, bases, strict=False)])
        spellings = self.block.spellings.get(name, {})
        whole = pyarrow.concat_arrays([texts for _, texts in each])
        found, met = clean(codes, whole, self.block.missing.markers, spellings)
        unmet = [said for said in spellings if said not in met]
        if unmet:
            there = sorted({text.strip() for text in whole.to_pylist()})
            hint = nearest(unmet[0], there) if len(there) <= 20 or "did you" in nearest(unmet[0], there) else "see deltarule data"
            raise DataError(f"data.spellings.{name}: {self.shown} must have a cell that says {unmet[0]!r}, found none; {hint}")
        return found

    def infer(self, name: str) -> InferredType:
        """What the column holds."""
        from pipelines.data.inference import Inference, InferredType

        stated, target = self.stated.get(name), name in targets_of(self.block)
        if stated is None and name in self.unnamed and not target:
            return InferredType("ignore", "it has no name in the header")
        native = self.type_of(name) if stated != "ignore" else ""
        if native == "nothing" and not target and stated is None:
            return InferredType("ignore", "no cell holds a value")
        if native not in ("text", "wide", "nothing", "") and name not in self.block.spellings:
            kind = "categorical" if target and native != "numeric" else native
            if stated in (None, native) or (stated == "numeric" and native == "boolean"):
                return InferredType(kind if stated is None else stated)  # type: ignore[arg-type]
        if stated in ("ignore", "categorical") and not target:
            return InferredType(stated)
        typed = self.typed and native != "wide"
        found = Inference(name, self.strings(name), self.how, typed)
        return found.target(stated, self.block.task) if target else found.input(stated, self.block.categories.most)

    def explain(self, found: InferredType) -> str:
        """The problem in one sentence, with its place."""
        return f"{self.shown if found.row is None else self.line(found.row)}: {found.problem}"

    def column(self, name: str, kind: Kind) -> Column:
        """The column's values, read now."""
        from pipelines.data.inference import values_of

        if kind in ("categorical", "ignore"):
            return self.strings(name).categories()
        if self.type_of(name) in ("text", "wide", "nothing") or name in self.block.spellings:
            found = self.strings(name)
            return Column(found.spread(values_of(kind, found.texts, self.how, stated=name in self.stated)))
        return Column(np.concatenate([file.numbers(name) for file in self.files]))

    def line(self, row: int) -> str:
        """Where a row stands."""
        place = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.files[place].line(row - int(self.starts[place]))

    def part(self) -> NDArray | None:
        """(rows,) int8 of the files that come split; -1 is to be shared out between train and valid."""
        if self.parts == [""]:
            return None
        numbers = [-1 if part == "train" and "valid" not in self.parts else PARTS.index(part) for part in self.parts]
        return np.repeat(np.array(numbers, np.int8), [file.rows for file in self.files])

    def source(self, types: Mapping[str, InferredType]) -> Source:
        """What `prepare` takes; a column that is refused is text in it."""
        kinds: dict[str, Kind] = {name: "categorical" if found.problem else found.kind for name, found in types.items()}
        return Source(
            name=self.shown,
            rows=int(self.starts[-1]),
            kinds=kinds,
            targets=tuple(name for name in targets_of(self.block) if name in self.names),
            fetch=lambda name: self.column(name, kinds[name]),
            line=self.line,
            part=self.part(),
            notes={name: found.note for name, found in types.items() if found.note},
            orders={name: found.order for name, found in types.items() if found.order},
        )


def open_source(block: DataSpec, base: Path | None = None) -> JoinedTable:
    """The files of the source as one table."""
    if not block.paths:
        markers = (*block.missing.markers, MISSING)
        block = block.model_copy(update={"missing": block.missing.model_copy(update={"markers": markers})})
        table, kinds = open_openml(str(block.source), block.sha256, base, markers)
        return JoinedTable(block, {"": table}, kinds)
    paths = {part: (shown, (base or Path()) / shown) for part, shown in block.paths.items()}
    for shown, path in paths.values():
        check_file(shown, path)
    return JoinedTable(block, {part: open_file(block, path, shown) for part, (shown, path) in paths.items()}, {})


def open_file(block: DataSpec, path: Path, shown: str) -> Table:
    """A file of one part."""
    from pipelines.data.inference import stated_kinds
    from pipelines.data.tables import ParquetTable, TextTable
    from pipelines.data.text import open_text

    if not shown.lower().endswith(DELIMITED):
        table = ParquetTable(path, shown)
        check_names(shown, table.names)
        return table
    text = open_text(path, shown, block.format, [*targets_of(block), *block.columns])
    check_names(shown, text.names)
    as_text = {name for name, kind in stated_kinds(block.columns, text.names).items() if kind != "numeric"}
    return TextTable.of_file(text, block.missing.markers, as_text | {*block.spellings})


def targets_of(block: DataSpec) -> tuple[str, ...]:
    """The names of data.target."""
    return () if block.target is None else (block.target,) if isinstance(block.target, str) else block.target


# -- checks -----------------------------------------------------------------------------------------------------------------


def check_file(shown: str, path: Path) -> None:
    """Raises DataError unless `path` is a file."""
    if path.is_dir():
        raise DataError(
            f"data.source must be a file, got the folder {shown!r}; name a file in it that ends in {', '.join(FILES)}"
        )
    if not path.is_file():
        raise DataError(f"data.source must be a file, found none at {shown!r}; a relative path starts at the project's root")


def check_names(shown: str, names: Sequence[str]) -> None:
    """Raises DataError unless column names differ."""
    places = {name: [place for place, other in enumerate(names, 1) if other == name] for name in names}
    twice = [f"{name!r} in columns {_listed(at)}" for name, at in places.items() if len(at) > 1]
    if twice:
        more = f", and {len(twice) - NAMED} more such names" if len(twice) > NAMED else ""
        raise DataError(f"{shown}: column names must differ, found {', '.join(twice[:NAMED])}{more}; rename them in the file")


def _listed(places: Sequence[int]) -> str:
    shown = [*map(str, places[:NAMED])]
    return f"{', '.join(shown)}, ..." if len(places) > NAMED else f"{', '.join(shown[:-1])} and {shown[-1]}"


def check_same_columns(files: Sequence[Table]) -> None:
    """Raises DataError with the difference unless all files have the columns of the first."""
    first = files[0]
    for other in files[1:]:
        lacks = [name for name in first.names if name not in other.names]
        more = [name for name in other.names if name not in first.names]
        if lacks or more:
            told = [f"{what} {', '.join(map(repr, names))}" for what, names in (("lacks", lacks), ("has besides", more)) if names]
            raise DataError(f"{other.shown}: must have the columns of {first.shown}, but {' and '.join(told)}")


def check_named(block: DataSpec, table: JoinedTable) -> None:
    """Raises DataError unless the columns that the spec names are there."""
    missing = [name for name in targets_of(block) if name not in table.names]
    if missing:
        header = "; if it names the columns set data.format.header: true"
        guessed = f" (the first line looks like a row, most of its cells are numbers{header})" if table.guessed else ""
        raise DataError(
            f"{table.shown}: data.target must name columns of the file, got {', '.join(map(repr, missing))}; "
            f"the columns are: {shortened(table.names)}{guessed}"
        )
    split = {f"data.split.{key}": [name] for key in ("group", "time", "part") if (name := getattr(block.split, key))}
    for key, names in {"data.spellings": [*block.spellings], **split}.items():
        for name in names:
            if name not in table.names:
                raise DataError(
                    f"{table.shown}: {key} must name a column of the file, got {name!r}; {nearest(name, [*table.names])}"
                )


def shortened(names: Sequence[str], most: int = 50) -> str:
    """Names in a row, the first of very many."""
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


# -- data sets by name -------------------------------------------------------------------------------------------------------


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
