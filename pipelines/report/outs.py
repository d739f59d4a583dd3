"""The outs of a run as figures and pages want them: JSON files, columns, groups of rows, reports that are on this model."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

NDArray = np.ndarray[Any, np.dtype[Any]]
Table = dict[str, NDArray]
Texts = dict[str, list[str]]
REPORTS = ("validate", "test")


@dataclass(frozen=True)
class Outs:
    """What the stages wrote below the folder of a run."""

    folder: Path

    def path(self, name: str) -> Path:
        """Such as train/history.csv."""
        return self.folder / "outputs" / name

    def json(self, name: str) -> dict[str, Any]:
        """Such as validate/metrics.json."""
        content: dict[str, Any] = json.loads(self.path(name).read_text(encoding="utf-8"))
        return content

    def texts(self, name: str) -> Texts:
        """Column -> its cells, of a CSV with a header; {} if there is no such file."""
        if not self.path(name).is_file():
            return {}
        with self.path(name).open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            cells = list(rows)
        return {column: [row[i] for row in cells] for i, column in enumerate(header)}

    def table(self, name: str) -> Table:
        """Column -> its numbers."""
        return {column: floats(cells) for column, cells in self.texts(name).items()}

    @cached_property
    def run(self) -> dict[str, Any]:
        """What was trained, and how it ended."""
        return self.json("train/run.json")

    @cached_property
    def about(self) -> dict[str, Any]:
        """What is known about the data."""
        return self.json("data/about.json")

    @cached_property
    def reports(self) -> list[str]:
        """Those of validate and test that report on the model in place: one may be left over from another."""
        model = self.run["model_hash"]
        there = [stage for stage in REPORTS if self.path(f"{stage}/about.json").is_file()]
        return [stage for stage in there if model and self.json(f"{stage}/about.json")["model_hash"] == model]

    def title(self, folds: str = "{} folds") -> str:
        """What a figure or a page is of, at a glance; `folds` says what of several folds it shows."""
        run, source = self.run, Path(self.about["source"]).stem
        of = f", {folds.format(len(run['folds']))}" if "folds" in run else ""
        return f"{source}, {run['spec']['model']['activation']}, {run['backend']}, run {run['fingerprint'][:4]}{of}"


def floats(cells: Sequence[str]) -> NDArray:
    """Cells as numbers; an empty one is a gap."""
    return np.array([float(cell) if cell else np.nan for cell in cells])


def groups(table: Texts, by: str) -> Iterator[tuple[str, Texts]]:
    """(name, its rows) of each value of a column, in order; all rows under "" if there is no such column."""
    if by not in table:
        yield "", table
        return
    for name in dict.fromkeys(table[by]):
        own = [place for place, value in enumerate(table[by]) if value == name]
        yield name, {column: [cells[place] for place in own] for column, cells in table.items()}


def numbered(history: Table, prefix: str) -> list[str]:
    """The columns of one kind, by layer."""
    return sorted((name for name in history if name.startswith(prefix)), key=lambda name: int(name[len(prefix) :]))


def over_folds(history: Table) -> Table:
    """Epoch by epoch the mean over the folds that came so far; as it is, where there are none."""
    if "fold" not in history:
        return history
    epochs = np.unique(history["epoch"])
    names = [name for name in history if name != "fold"]
    return {name: np.array([np.mean(history[name][history["epoch"] == epoch]) for epoch in epochs]) for name in names}
