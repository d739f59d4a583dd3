"""The outs of a run as a reader of figures and pages wants them: columns, groups of rows, reports that are on this model."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pipelines.stages.places import Places

NDArray = np.ndarray[Any, np.dtype[Any]]
Table = dict[str, NDArray]
Texts = dict[str, list[str]]
REPORTS = ("validate", "test")


def read_text(path: Path) -> Texts:
    """Column -> its cells, of a CSV with a header."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        cells = list(rows)
    return {name: [row[i] for row in cells] for i, name in enumerate(header)}


def read(path: Path) -> Table:
    """Column -> its numbers."""
    return {name: floats(cells) for name, cells in read_text(path).items()}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a stage."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def floats(cells: Sequence[str]) -> NDArray:
    """Cells as numbers; an empty one is a gap."""
    return np.array([float(cell) if cell else np.nan for cell in cells])


def groups(table: Texts, by: str) -> Iterator[tuple[str, Texts]]:
    """(name, its rows) of each value of a column, in order; all rows under "" if there is no such column."""
    names = table.get(by)
    if names is None:
        yield "", table
        return
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    for name, own in places.items():
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


def reports(places: Places) -> list[str]:
    """Those of validate and test that report on the model in place: one may be left over from another."""
    model = read_json(places.run)["model_hash"] if places.run.is_file() else None
    files = {stage: places.report(stage) / "about.json" for stage in REPORTS}
    return [s for s, file in files.items() if model and file.is_file() and read_json(file)["model_hash"] == model]


def title(places: Places, folds: str = "{} folds") -> str:
    """What a figure or a page is of, at a glance; `folds` says what of several folds it shows."""
    run, source = read_json(places.run), Path(read_json(places.about)["source"]).stem
    of = f", {folds.format(len(run['folds']))}" if "folds" in run else ""
    return f"{source}, {run['spec']['model']['activation']}, {run['backend']}, run {run['fingerprint'][:4]}{of}"
