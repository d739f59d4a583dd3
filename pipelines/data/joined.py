"""One table of one or several files: kinds are judged over all rows, categories are joined, columns come one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from pipelines.data.columns import Column, Source
from pipelines.data.kinds import Judged, judge, judge_target, stated_kinds, values_of
from pipelines.data.table import DataError, NDArray
from pipelines.data.words import Words, Writing, categories, words
from pipelines.spec.blocks import DataSpec, Kind
from pipelines.spec.describe import nearest

PARTS = ("train", "valid", "test")


class File(Protocol):
    """What a reader of one file offers."""

    shown: str
    names: tuple[str, ...]
    rows: int

    def native(self, name: str) -> str:
        """numeric, wide (whole numbers of which float64 would lose digits), boolean, datetime, text or nothing."""

    def numbers(self, name: str) -> NDArray:
        """(rows,) float64 of a column that is no text; NaN where no value stands."""

    def texts(self, name: str) -> tuple[NDArray, Any]:
        """(places int32 or -1, texts, which may repeat)."""

    def line(self, row: int) -> str:
        """How a message names a row, counted from 0."""


class Joined:
    """The files of a source by part; {"": file} where there is one. Raises DataError unless they have the same columns."""

    def __init__(
        self, block: DataSpec, files: Mapping[str, File], known: Mapping[str, Kind], unnamed: Sequence[str] = ()
    ) -> None:
        self.block, self.parts, self.files = block, list(files), list(files.values())
        self.names, self.shown = self.files[0].names, self.files[0].shown
        self.rows = sum(file.rows for file in self.files)
        self.starts = np.cumsum([0, *(file.rows for file in self.files)])
        check_same_columns(self.files)
        for file in self.files:
            if not file.rows:
                raise DataError(f"{file.shown}: there must be rows, found none below the header")
        self.stated = {**known, **stated_kinds(block.columns, self.names)}
        self.unnamed = frozenset(unnamed)
        self.typed = not hasattr(self.files[0], "text")  # by the file: text that looks like numbers stays text
        self.written = Writing.of(block.format)
        self._natives: dict[str, str] = {}

    @property
    def targets(self) -> tuple[str, ...]:
        """Those of the spec, whether there are such columns or not."""
        target = self.block.target
        return () if target is None else (target,) if isinstance(target, str) else target

    def native(self, name: str) -> str:
        """What the files themselves say, as `File.native` does; text where they differ."""
        if name not in self._natives:
            found = {file.native(name) for file in self.files} - {"nothing"}
            found = {"wide"} if found == {"wide", "numeric"} else found
            self._natives[name] = "nothing" if not found else found.pop() if len(found) == 1 else "text"
        return self._natives[name]

    def words(self, name: str) -> Words:
        """The column as text, of all files. Raises DataError for a spelling that no cell has."""
        import pyarrow

        each = [file.texts(name) for file in self.files]
        bases = np.cumsum([0, *(len(texts) for _, texts in each)])
        codes = np.concatenate([np.where(codes < 0, -1, codes + base) for (codes, _), base in zip(each, bases, strict=False)])
        spellings = self.block.spellings.get(name, {})
        whole = pyarrow.concat_arrays([texts.cast(pyarrow.large_string()) for _, texts in each])
        found, met = words(codes, whole, self.block.missing.markers, spellings)
        unmet = [said for said in spellings if said not in met]
        if unmet:
            there = sorted({text.strip() for text in whole.to_pylist()})
            hint = nearest(unmet[0], there) if len(there) <= 20 or "did you" in nearest(unmet[0], there) else "see deltarule data"
            raise DataError(f"data.spellings.{name}: {self.shown} must have a cell that says {unmet[0]!r}, found none; {hint}")
        return found

    def judged(self, name: str) -> Judged:
        """What the column holds."""
        stated, target = self.stated.get(name), name in self.targets
        if stated is None and name in self.unnamed and not target:
            return Judged("ignore", "it has no name in the header")
        native = self.native(name) if stated != "ignore" else ""
        if native == "nothing" and not target and stated is None:
            return Judged("ignore", "no cell holds a value")
        if native not in ("text", "wide", "nothing", "") and name not in self.block.spellings:
            kind = "categorical" if target and native != "numeric" else native
            if stated in (None, native) or (stated == "numeric" and native == "boolean"):
                return Judged(kind if stated is None else stated)  # type: ignore[arg-type]
        if stated in ("ignore", "categorical") and not target:
            return Judged(stated)
        found = self.words(name)
        look = not self.typed or native == "wide"
        if target:
            return judge_target(name, found, stated, look, self.written, self.block.task)
        return judge(name, found, stated, look, self.written, self.block.categories.most)

    def told(self, name: str, judged: Judged) -> str:
        """The problem in one sentence, with its place."""
        if judged.breaks is None:
            return f"{self.shown}: {judged.problem}"
        found = self.words(name)
        row = int(np.argmax(found.codes == judged.breaks))
        cell = repr(found.texts[judged.breaks].as_py())
        return f"{self.line(row)}: {judged.problem.replace('{cell}', cell)}"

    def column(self, name: str, kind: Kind) -> Column:
        """The column's values, read now."""
        native = self.native(name) if kind != "ignore" else "text"
        if kind in ("categorical", "ignore"):
            return Column(*categories(self.words(name)))
        if native in ("text", "wide", "nothing") or name in self.block.spellings:
            return Column(values_of(kind, self.words(name), self.written, stated=name in self.stated))
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

    def source(self, judged: Mapping[str, Judged], kinds: Mapping[str, Kind], targets: tuple[str, ...]) -> Source:
        """What `prepare` takes."""
        return Source(
            name=self.shown,
            rows=self.rows,
            kinds=kinds,
            targets=targets,
            fetch=lambda name: self.column(name, kinds[name]),
            line=self.line,
            part=self.part(),
            notes={name: found.note for name, found in judged.items() if found.note},
            orders={name: found.order for name, found in judged.items() if found.order},
        )


def check_same_columns(files: Sequence[File]) -> None:
    """Raises DataError with the difference unless all files have the columns of the first."""
    first = files[0]
    for other in files[1:]:
        lacks = [name for name in first.names if name not in other.names]
        more = [name for name in other.names if name not in first.names]
        if lacks or more:
            told = [f"{what} {', '.join(map(repr, names))}" for what, names in (("lacks", lacks), ("has besides", more)) if names]
            raise DataError(f"{other.shown}: must have the columns of {first.shown}, but {' and '.join(told)}")
