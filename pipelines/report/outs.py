"""The outs of a run as figures and pages want them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from backends.base import NDArray
from pipelines.data.parts import check, damaged, read_json

Table = dict[str, NDArray]
Texts = dict[str, list[str]]
REPORTS = ("validate", "test")


@dataclass(frozen=True)
class Outs:
    """What the stages wrote below the folder of a run."""

    folder: Path
    named: str = ""  # the run's name and id, where they are known

    def path(self, name: str) -> Path:
        """Such as train/history.csv."""
        return self.folder / "outputs" / name

    def json(self, name: str) -> dict[str, Any]:
        """Such as validate/metrics.json."""
        return read_json(self.path(name))

    def rows(self, name: str) -> list[dict[str, str]]:
        """A dictionary a row, of a CSV with a header; [] if there is no such file."""
        if not self.path(name).is_file():
            return []
        try:
            with check(self.path(name)).open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except (ValueError, csv.Error):
            raise damaged(self.path(name)) from None

    def texts(self, name: str) -> Texts:
        """Column -> its cells; {} if there are no rows."""
        rows = self.rows(name)
        return {column: [row[column] for row in rows] for column in rows[0]} if rows else {}

    def table(self, name: str) -> Table:
        """Column -> its numbers; of an epoch of folds their means."""
        rows = over_epochs(self.rows(name))
        return {column: floats([row.get(column, "") for row in rows]) for column in rows[0]} if rows else {}

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

    def beside(self, stage: str) -> dict[str, Any]:
        """The network of a report beside simple models; {} in reports of earlier versions."""
        name = f"{stage}/baselines.json"
        return self.json(name) if self.path(name).is_file() else {}

    def title(self, folds: str = "{} folds") -> str:
        """What a figure or a page is of, at a glance; `folds` says what of several folds it shows."""
        run, source = self.run, Path(self.about["source"]).stem
        of = f", {folds.format(len(run['folds']))}" if "folds" in run else ""
        which = f"\nrun {self.named}" if self.named else f", run {run['fingerprint'][:4]}"
        return f"{source}, {run['spec']['model']['activation']}, {run['backend']}{which}{of}"


def floats(cells: Sequence[str]) -> NDArray:
    """Cells as numbers; an empty one is a gap."""
    return np.array([np.nan if cell == "" else float(cell) for cell in cells])


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


def over_epochs(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row an epoch: of folds the mean over those that came so far, without gaps."""
    if not rows or "fold" not in rows[0]:
        return list(rows)
    epochs: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        epochs.setdefault(int(row["epoch"]), []).append(row)
    return [{"epoch": epoch, **_means(there)} for epoch, there in sorted(epochs.items())]


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    values = {name: [float(row[name]) for row in rows if row[name] != ""] for name in rows[0] if name not in ("fold", "epoch")}
    return {name: fmean(each) for name, each in values.items() if each}
