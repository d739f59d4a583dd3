"""Tables: the columns of a file as pyarrow has them, and the files of a source as one table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import types
from pyarrow.parquet import ParquetFile

from pipelines.data.cells.numbers import LARGEST, plain_block
from pipelines.data.columns import MICROSECONDS_A_DAY, PARTS, Column, DataError, InferredType, NDArray, Source
from pipelines.data.inference import TextColumn, stated, stated_kinds
from pipelines.data.preprocess import Preprocessing
from pipelines.data.text import open_text
from pipelines.spec import DataSpec
from pipelines.spec.blocks import DELIMITED, Dates, Kind
from pipelines.spec.describe import nearest

NAMED = 5  # names, or places, that a message lists
NO_HEADER = "if the first line is a row, set data.format.header: false; else rename them in the file"
INDEX, UNNAMED = "it is pandas' index", "it has no name in the header"  # why columns are passed over
TEXTS = pa.dictionary(pa.int32(), pa.large_string())


class Table:
    """Columns of one file, or of rows given in Python. `read` gives one as a chunked array.

    `line` says how a message names a row, counted from 0.
    """

    typed = True  # by the file: text that looks like numbers stays text
    passed_over: Mapping[str, str] = {}  # no inputs unless the spec says so -> why
    guessed = False  # the first line was taken for a row
    suspicion = ""  # of the header and quotes

    def __init__(
        self, shown: str, names: Iterable[str], rows: int, read: Callable[[str], Any], line: Callable[[int], str]
    ) -> None:
        self.shown, self.names, self.rows, self.read, self.line = shown, tuple(names), rows, read, line

    def type_of(self, name: str) -> str:
        """numeric, wide (whole numbers of which float64 would lose digits), boolean, datetime, text or nothing.

        Raises DataError for a column that holds no single values.
        """
        cells = _plain(self.read(name))
        kind = cells.type.value_type if types.is_dictionary(cells.type) else cells.type
        if not types.is_nested(kind) and cells.null_count == self.rows:
            return "nothing"
        if types.is_integer(kind) or (types.is_decimal(kind) and kind.scale <= 0):
            largest = max(abs(end) for end in pc.min_max(cells).as_py().values())
            return "wide" if largest > LARGEST else "numeric"
        if types.is_floating(kind) or types.is_decimal(kind):
            return "numeric"
        if types.is_boolean(kind):
            return "boolean"
        if types.is_date(kind) or types.is_timestamp(kind):
            return "datetime"
        if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            return "text"
        raise DataError(
            f"{self.shown}: column {name!r} must hold numbers, text, truth values or dates, found {kind}; write "
            f"its parts as columns, or, unless it is the target, set data.columns: {{{name}: ignore}}"
        )

    def numbers(self, name: str) -> NDArray:
        """(rows,) float64, NaN where no value stands; dates as days since 1970-01-01 UTC. Raises DataError for inf."""
        cells, scale = _decoded(self.read(name)), 1
        if types.is_date(cells.type) or types.is_timestamp(cells.type):
            zone = getattr(cells.type, "tz", None)
            cells = cells.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
            scale = MICROSECONDS_A_DAY
        values: NDArray = cells.cast(pa.float64(), safe=False).to_numpy()
        if np.isinf(values).any():
            row = int(np.isinf(values).argmax())
            raise DataError(f"{self.line(row)}: column {name!r} must hold finite numbers, found {values[row]}")
        return values / scale if scale > 1 else values

    def texts(self, name: str) -> Any:
        """A column as text: a chunked array of TEXTS."""
        cells = _plain(self.read(name))
        if types.is_nested(cells.type) or types.is_binary(cells.type):  # ignored
            spelled = [None if value is None else str(value) for value in cells.to_pylist()]
            cells = pa.chunked_array([pa.array(spelled, pa.large_string())])
        return cells.cast(pa.large_string()).dictionary_encode()


def _decoded(cells: Any) -> Any:
    """A column without a dictionary, but of texts that were read as such."""
    if types.is_dictionary(cells.type) and cells.type != TEXTS:
        cells = cells.cast(cells.type.value_type)
    return cells.cast("float32") if types.is_float16(cells.type) else cells


def _plain(cells: Any) -> Any:
    """The same with null for NaN, as pandas writes it."""
    cells = _decoded(cells)
    return pc.if_else(pc.is_nan(cells), None, cells) if types.is_floating(cells.type) else cells


def arrow_table(shown: str, table: Any, first: int = 0) -> Table:
    """What was given in Python, or some rows of a Parquet file, from row `first` on."""
    return Table(shown, table.column_names, table.num_rows, table.column, lambda row: f"{shown}, row {first + row + 1}")


def parquet_table(path: Path, shown: str) -> Table:
    """A Parquet file, whose columns are read when asked for. Raises DataError if it is none."""

    def read(name: str) -> Any:
        with ParquetFile(path) as file:
            return file.read(columns=[name]).column(name)  # for "a.b" a part of a struct "a" is read too

    try:
        with ParquetFile(path) as file:
            names, rows = file.schema_arrow.names, file.metadata.num_rows
            index = (file.schema_arrow.pandas_metadata or {}).get("index_columns", [])  # a range is a mapping
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{shown}: must be a Parquet file, found something else: {error}") from None
    table = Table(shown, names, rows, read, lambda row: f"{shown}, row {row + 1}")
    table.passed_over = {name: INDEX for name in names if name in index or name.startswith("__index_level_")}
    return table


class TextTable(Table):
    """Cells of text, in memory. A column is float64 if every cell is a number, else TEXTS.

    `batches` gives blocks of rows of some columns, every cell a string. `as_text` are text whatever they look like.
    """

    typed = False

    def __init__(
        self,
        shown: str,
        names: Iterable[str],
        batches: Callable[[Sequence[str]], Iterable[Any]],
        line: Callable[[int], str],
        block: DataSpec,
        as_text: Collection[str] = (),
    ) -> None:
        super().__init__(shown, names, 0, self._held, line)
        self.batches, self.as_text = batches, {*as_text}
        self.how = block.missing.markers, block.format.decimal
        self.columns: dict[str, list[Any]] = {}
        self._load(self.names)

    def _load(self, names: Sequence[str]) -> None:
        """Read these columns; those in which text comes after blocks of numbers once more."""
        self.rows, late = 0, []
        self.columns |= {name: [] for name in names}
        for batch in self.batches(names):
            self.rows += batch.num_rows
            for name, cells in zip(names, batch.columns, strict=True):
                numbers = None if name in self.as_text else plain_block(cells, *self.how)
                if numbers is None and name not in self.as_text:
                    self.as_text.add(name)
                    if self.columns[name]:
                        late.append(name)
                if name not in late:
                    self.columns[name].append(cells.dictionary_encode() if numbers is None else numbers)
        if late:
            self._load(late)

    def _held(self, name: str) -> Any:
        return pa.chunked_array(self.columns[name], TEXTS if name in self.as_text else pa.float64())

    def texts(self, name: str) -> Any:
        """As they were written: a column of numbers is read anew."""
        if name not in self.as_text:
            self.as_text.add(name)
            self._load([name])
        return self._held(name)


class JoinedTable:
    """The files of a source by part; {"": file} where there is one. Raises DataError unless they have the same columns.

    Kinds are inferred over all rows, unless `known` says how the training rows were read.
    """

    def __init__(self, block: DataSpec, files: Mapping[str, Table], known: Preprocessing | None = None) -> None:
        self.block, self.parts, self.files = block, list(files), list(files.values())
        first = self.files[0]
        self.names, self.shown, self.typed = first.names, first.shown, first.typed
        self.guessed = any(file.guessed for file in self.files)
        self.gaps: tuple[float, ...] = ()  # numbers that mean no value in any column
        self.by_text: set[str] = set()  # columns that are read from texts
        self.starts = np.cumsum([0, *(file.rows for file in self.files)])
        self.targets = tuple(name for name in block.targets if name in self.names)
        for file in self.files:
            check_same_columns(first, file)
            if not file.rows:
                raise DataError(f"{file.shown}: the file has no rows below the header")
        if known is None:
            self.stated: Mapping[str, Kind] = stated_kinds(block, self.names)
            said = stated("numbers", block.numbers, self.names)
            decimal = {"decimal": block.format.decimal}
            self.numbers = {name: how if how.decimal else how.model_copy(update=decimal) for name, how in said.items()}
            self.written, self.orders = stated("dates", block.dates, self.names), dict[str, str]()
        else:
            self.stated, self.numbers, self.written = known.columns, {**known.numbers}, {**known.dates}
            # Never by the cells of a block: how a file is cut must not change what 03/04/2024 means.
            order = "" if block.format.dates == "auto" else block.format.dates
            self.orders = {name: known.orders.get(name, order) for name in known.columns}

    def type_of(self, name: str) -> str:
        """What the files themselves say, as `Table.type_of` does; text where they differ."""
        found = {file.type_of(name) for file in self.files} - {"nothing"}
        if found == {"wide", "numeric"}:
            return "wide"
        return "nothing" if not found else found.pop() if len(found) == 1 else "text"

    def _texts(self, name: str) -> Any:
        """The column as text, of all files: one dictionary array."""
        chunks = [chunk for file in self.files for chunk in file.texts(name).chunks]
        return pa.chunked_array(chunks, TEXTS).unify_dictionaries().combine_chunks()

    def text(self, name: str, typed: bool = False) -> TextColumn:
        """The column as text, as the spec says; cells that show their order of dates keep it."""
        texts, how, dates = self._texts(name), self.numbers.get(name), self.written.get(name, Dates())
        orders = [self.orders.get(name, self.block.format.dates)]
        if name not in self.orders and orders != ["auto"]:
            orders.append("auto")
        found = [TextColumn(name, texts, self.block, order, typed, how, dates) for order in orders]
        return found[-1] if not found[0].masks.dates.all() and found[-1].masks.dates.all() else found[0]

    def check_spellings(self, name: str) -> None:
        """Raises DataError for a spelling that no cell has."""
        there = sorted({text.strip() for text in self._texts(name).dictionary.to_pylist()})
        unmet = next((said for said in self.block.spellings[name] if said not in there), None)
        if unmet is not None:
            hint = nearest(unmet, there) if len(there) <= 20 or "did you" in nearest(unmet, there) else "see deltarule data"
            raise DataError(f"data.spellings.{name}: {self.shown} must have a cell that says {unmet!r}, found none; {hint}")

    def infer(self, name: str) -> InferredType:
        """What the column holds; its problem in one sentence, with its place."""
        found = self._infer(name)
        if found.problem:
            return replace(found, problem=f"{self.shown if found.row is None else self.line(found.row)}: {found.problem}")
        self.numbers |= {name: found.numbers} if found.numbers else {}
        self.written |= {name: found.dates} if found.dates else {}
        return found

    def _infer(self, name: str) -> InferredType:
        stated, target = self.stated.get(name), name in self.targets
        if stated == "ignore" and not target:
            return InferredType(stated)
        why = next((file.passed_over[name] for file in self.files if name in file.passed_over), "")
        if why and stated is None and not target:
            return InferredType("ignore", why)
        native = self.type_of(name)
        doubtful = stated is None and native == "numeric" and self._doubtful(name)
        if native not in ("text", "wide", "nothing") and name not in self.block.spellings and not doubtful:
            kind = "categorical" if target and native != "numeric" else native
            if stated in (None, native) or (stated == "numeric" and native == "boolean"):
                return InferredType(kind if stated is None else stated)  # type: ignore[arg-type]
        if stated == "categorical" and not target:
            return InferredType(stated)
        self.by_text.add(name)
        text = self.text(name, self.typed and native != "wide" and not doubtful)
        return text.target(stated, self.block.task) if target else text.input(stated, self.block.categories.most)

    def _doubtful(self, name: str) -> bool:
        """Whether 1.234 stands beside 734, or all may be dates; its texts tell for certain."""
        values = np.abs(self._numbers(name))
        least, most = np.nanmin(values), np.nanmax(values)
        days = 19e6 < least <= most < 21e6 or 19e12 < least <= most < 21e12
        if days or self.typed:
            return bool(days)
        parts = values[values % 1 > 0] * 1000
        likely = parts.size and np.mean(parts % 10 > 0.5) > 0.5 and (values % 1 == 0).any()
        return bool(likely and np.nanmin(values) >= 1 and np.nanmax(values) < 1000)

    def _numbers(self, name: str) -> NDArray:
        return np.concatenate([file.numbers(name) for file in self.files])

    def column(self, name: str, kind: Kind) -> Column:
        """The column's values, read now."""
        if kind in ("categorical", "ignore"):
            self.by_text.add(name)
        text = self.text(name) if name in self.by_text else None
        column = text.column(kind, name in self.stated) if text else Column(self._numbers(name))
        how = self.numbers.get(name) if kind == "numeric" else self.written.get(name) if kind == "datetime" else None
        gaps = (*(self.gaps if kind == "numeric" else ()), *(how.gaps if how else ()))
        return Column(np.where(np.isin(column.values, gaps), np.nan, column.values)) if gaps else column

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
        refused = {name: found for name, found in types.items() if found.problem}
        return Source(
            name=self.shown,
            rows=int(self.starts[-1]),
            kinds=kinds,
            targets=self.targets,
            fetch=lambda name: self.column(name, kinds[name]),
            line=self.line,
            texts=None if self.typed else lambda name: self.column(name, "ignore"),
            part=self.part(),
            notes={name: found.note for name, found in types.items() if found.note},
            orders={name: found.order for name, found in types.items() if found.order},
            numbers={name: self.numbers[name] for name, kind in kinds.items() if kind == "numeric" and name in self.numbers},
            dates={name: self.written[name] for name, kind in kinds.items() if kind == "datetime" and name in self.written},
            problems={name: found.problem for name, found in refused.items()},
            refused=refused,
            stated=self.stated,
            suspicion=next((file.suspicion for file in self.files if file.suspicion), ""),
            guessed=self.guessed and self.block.format.header == "auto",
        )


def open_table(block: DataSpec, path: Path, shown: str) -> Table:
    """A delimited text file, or a Parquet file."""
    if not shown.lower().endswith(DELIMITED):
        table = parquet_table(path, shown)
        check_names(shown, table.names)
        return table
    text = open_text(path, shown, block.format, [*block.targets, *block.columns, *block.numbers])
    check_names(shown, text.names, NO_HEADER)
    kinds = stated_kinds(block, text.names).items()
    as_text = {name for name, kind in kinds if kind != "numeric"} | {*block.spellings}
    as_text |= {*stated("numbers", block.numbers, text.names)}
    table = TextTable(shown, text.names, text.batches, text.line, block, as_text)
    table.passed_over = dict.fromkeys(text.unnamed, UNNAMED)
    table.guessed, table.suspicion = text.guessed, text.suspicion
    return table


def check_names(shown: str, names: Sequence[str], way_out: str = "rename them in the file") -> None:
    """Raises DataError unless column names differ."""
    places: dict[str, list[str]] = {}
    for place, name in enumerate(names, 1):
        places.setdefault(name, []).append(str(place))
    twice = [f"{name!r} in columns {_listed(at)}" for name, at in places.items() if len(at) > 1]
    if twice:
        more = f", and {len(twice) - NAMED} more such names" if len(twice) > NAMED else ""
        raise DataError(f"{shown}: column names must differ, found {', '.join(twice[:NAMED])}{more}; {way_out}")


def _listed(places: Sequence[str]) -> str:
    if len(places) > NAMED:
        return f"{', '.join(places[:NAMED])}, ..."
    return f"{', '.join(places[:-1])} and {places[-1]}"


def check_same_columns(first: Table, other: Table) -> None:
    """Raises DataError with the difference unless both have the same columns."""
    lacks = [name for name in first.names if name not in other.names]
    more = [name for name in other.names if name not in first.names]
    if lacks or more:
        told = [f"{what} {', '.join(map(repr, names))}" for what, names in (("lacks", lacks), ("has besides", more)) if names]
        raise DataError(f"{other.shown}: must have the columns of {first.shown}, but {' and '.join(told)}")
