"""The reference's own numbers, written once, and how far those of another are from them.

Only differences leave the process of a backend; they are maxima over arrays that may be large.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends import BackendError, get
from backends.spec import Storage
from pipelines.parity.case import REFERENCE, Case
from pipelines.parity.observe import Seen, Tell, keep, observe, part, walk

NDArray = np.ndarray[Any, np.dtype[Any]]
Gaps = dict[str, float]  # key of what was seen -> largest difference from the reference's
RECORDING = "recording"  # what the process of the reference is called: "reference" may itself be compared


@dataclass(frozen=True)
class Entry:
    """One array of the reference."""

    section: str
    name: str
    where: str
    largest: float  # max |.|
    value: float | None  # of a single number


class Shelf:
    """The reference's arrays of one precision, in files."""

    def __init__(self, case: Case, precision: Storage) -> None:
        self.folder = case.folder / precision
        self.index = self.folder / "index.json"

    @property
    def moments(self) -> list[Path]:
        """Files of the steps that are looked at, in order."""
        return sorted(self.folder.glob("moment-*.npz"))

    def fill(self, seen: Iterable[Seen]) -> None:
        """Write what was seen on the reference."""
        index = []
        for number, one in enumerate(seen):
            np.save(self._file(number), np.asarray(one.array, np.float64), allow_pickle=False)
            index.append([*one[:3], _largest(one.array), _single(one.array)])
        self.index.write_text(json.dumps(index), encoding="utf-8")

    def entries(self) -> list[Entry]:
        """What was seen, in order."""
        return [Entry(*entry) for entry in json.loads(self.index.read_text(encoding="utf-8"))]

    def against(self, seen: Iterable[Seen]) -> tuple[Gaps, Gaps]:
        """Largest differences, and single numbers, of what was seen on another. What it lacks has none."""
        files = {"|".join((e.section, e.name, e.where)): self._file(number) for number, e in enumerate(self.entries())}
        gaps: Gaps = {}
        values: Gaps = {}
        for one in seen:
            if one.key in files:
                gaps[one.key] = gap(one.array, np.load(files[one.key], allow_pickle=False))
                single = _single(one.array)
                values |= {} if single is None else {one.key: single}
        return gaps, values

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npy"


def gap(found: NDArray, expected: NDArray) -> float:
    """max |found - expected|; infinite for another shape, or where one is NaN or infinite and the other is not the same."""
    mine = np.asarray(found, np.float64)
    if mine.shape != expected.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):
        same = (mine == expected) | (np.isnan(mine) & np.isnan(expected))
        distance = np.where(same, 0.0, np.abs(mine - expected))
    return float(np.where(np.isfinite(distance), distance, np.inf).max(initial=0.0))


def record(case: Case, tell: Tell) -> None:
    """Carry out the reference, and write what was seen on it and how far it drifts after a change of one ulp."""
    reference, drifts = get(REFERENCE), {}
    for number, precision in enumerate(case.precisions):
        heard = _one_of(tell, case, number)
        shelf = Shelf(case, precision)
        shelf.folder.mkdir()
        for place, moment in enumerate(walk(case, precision, part(heard, 0, 0.15))):
            keep(shelf.folder / f"moment-{place:06d}.npz", moment)
        shelf.fill(observe(reference, case, precision, shelf.moments, part(heard, 0.15, 0.575)))
        nudged = observe(reference, case, precision, shelf.moments, part(heard, 0.575, 1, "one ulp away, "), nudge=True)
        drifts[precision] = shelf.against(nudged)[0]
    write(case, RECORDING, {"status": "measured", "gaps": drifts})


def measure(case: Case, name: str, tell: Tell) -> None:
    """Carry out one backend, and write how far it is from the reference; or why it could not be."""
    tell(0.0, "starting")
    try:
        backend = get(name)
        versions = backend.versions()
    except BackendError as error:
        return write(case, name, {"status": "absent", "message": str(error)})
    found: dict[str, Any] = {"status": "measured", "versions": versions, "gaps": {}, "values": {}}
    for number, precision in enumerate(case.precisions):
        shelf = Shelf(case, precision)
        heard = _one_of(tell, case, number)
        try:
            found["gaps"][precision], found["values"][precision] = shelf.against(
                observe(backend, case, precision, shelf.moments, heard)
            )
        except BackendError as error:
            return write(case, name, {"status": "refused", "message": str(error), "versions": versions})
    write(case, name, found)


def write(case: Case, name: str, content: dict[str, Any]) -> None:
    """The result of one process."""
    (case.folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def read(case: Case, name: str) -> dict[str, Any] | None:
    """What a process wrote; None if it ended without."""
    path = case.folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _one_of(tell: Tell, case: Case, number: int) -> Tell:
    """Tells of one of the precisions."""
    count = len(case.precisions)
    return part(tell, number / count, (number + 1) / count, f"{case.precisions[number]}: ")


def _largest(array: NDArray) -> float:
    finite = np.abs(np.asarray(array, np.float64))
    return float(np.where(np.isfinite(finite), finite, 0.0).max(initial=0.0))


def _single(array: NDArray) -> float | None:
    return float(array.reshape(-1)[0]) if array.size == 1 and np.isfinite(array).all() else None
