"""One process of a comparison: python -m pipelines.check.measure FOLDER NAME, where NAME is a backend's, or "recording".

The recording is the reference: its arrays are written once, to one .npz a precision. A backend writes only how far it is from
them, as maxima over arrays that may be large. Each leaves NAME.json in the folder. Standard output carries progress, one line of
JSON at a time; whatever a framework prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backends import BackendError, get
from backends.spec import Storage
from pipelines.check.case import REFERENCE, Case
from pipelines.check.observe import Observation, OnProgress, observe, snapshots
from pipelines.stages.metrics import NDArray

RECORDING = "recording"  # the name of the reference's process: "reference" may itself be compared


class Expected(NamedTuple):
    """One array of the reference, and how far it drifts when the weights it comes from are moved by one ulp."""

    section: str
    name: str
    where: str
    largest: float  # max |.|
    value: float | None  # of a single number
    drift: float | None  # None: not observed

    @property
    def key(self) -> str:
        """Names it among the others."""
        return "|".join(self[:3])


def distance(found: NDArray, expected: NDArray) -> NDArray:
    """|found - expected|, float64; infinite where one is NaN or infinite and the other is not the same."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    with np.errstate(invalid="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        gap = np.where(same, 0.0, np.abs(a - b))
    return np.where(np.isfinite(gap), gap, np.inf)


def largest_distance(found: NDArray, expected: NDArray) -> float:
    """Infinite for another shape."""
    if np.shape(found) != np.shape(expected):
        return float("inf")
    return float(distance(found, expected).max(initial=0.0))


def record(case: Case, on_progress: OnProgress) -> dict[str, Any]:
    """Run the reference; precision -> the fields of Expected, of each array."""
    reference = get(REFERENCE)
    found: dict[str, Any] = {"status": "measured", "quantities": {}}
    for number, precision in enumerate(case.precisions):
        heard = _one_of(on_progress, case, number)
        (case.folder / precision).mkdir()
        for place, snapshot in enumerate(snapshots(case, precision, _part(heard, 0, 0.15))):
            snapshot.save(case.folder / precision / f"step-{place:06d}.npz")
        steps = _steps(case, precision)
        arrays = {one.key: np.asarray(one.array) for one in observe(reference, case, precision, steps, _part(heard, 0.15, 0.575))}
        np.savez(_expected(case, precision), **arrays)  # type: ignore[arg-type]
        nudged = observe(reference, case, precision, steps, _part(heard, 0.575, 1, "one ulp away, "), nudge=True)
        drifts = _compared(nudged, arrays)
        found["quantities"][precision] = [
            [*key.split("|"), _largest(array), _single(array), drifts.get(key, [None])[0]] for key, array in arrays.items()
        ]
    return found


def measure(case: Case, name: str, on_progress: OnProgress) -> dict[str, Any]:
    """Run one backend; precision -> key -> its distance from the reference, and the number if it is a single one."""
    on_progress(0.0, "starting")
    try:
        backend = get(name)
        versions = backend.versions()
    except BackendError as error:
        return {"status": "absent", "message": str(error)}
    found: dict[str, Any] = {"status": "measured", "versions": versions, "quantities": {}}
    for number, precision in enumerate(case.precisions):
        observed = observe(backend, case, precision, _steps(case, precision), _one_of(on_progress, case, number))
        try:
            with np.load(_expected(case, precision), allow_pickle=False) as expected:
                found["quantities"][precision] = _compared(observed, expected)
        except BackendError as error:
            return {"status": "refused", "message": str(error), "versions": versions}
    return found


def _compared(observed: Iterable[Observation], expected: Mapping[str, NDArray]) -> dict[str, list[float | None]]:
    """What the reference does not have is left out."""
    common = (one for one in observed if one.key in expected)
    return {one.key: [largest_distance(one.array, expected[one.key]), _single(one.array)] for one in common}


def _steps(case: Case, precision: Storage) -> list[Path]:
    return sorted((case.folder / precision).glob("step-*.npz"))


def _expected(case: Case, precision: Storage) -> Path:
    return case.folder / precision / "expected.npz"


def _part(on_progress: OnProgress, low: float, high: float, prefix: str = "") -> OnProgress:
    """Progress of a part of the work, which is done from `low` to `high` of the whole."""
    return lambda share, what: on_progress(low + (high - low) * share, prefix + what)


def _one_of(on_progress: OnProgress, case: Case, number: int) -> OnProgress:
    """Progress of one of the precisions."""
    count = len(case.precisions)
    return _part(on_progress, number / count, (number + 1) / count, f"{case.precisions[number]}: ")


def _largest(array: NDArray) -> float:
    sizes = np.abs(np.asarray(array, np.float64))
    return float(np.where(np.isfinite(sizes), sizes, 0.0).max(initial=0.0))


def _single(array: NDArray) -> float | None:
    return float(np.ravel(array)[0]) if np.size(array) == 1 and np.isfinite(array).all() else None


def main(folder: str, name: str) -> None:
    """Measure, and leave NAME.json in the folder."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def on_progress(share: float, what: str) -> None:
        print(json.dumps([share, what]), file=lines, flush=True)

    case = Case.load(Path(folder))
    found = record(case, on_progress) if name == RECORDING else measure(case, name, on_progress)
    (case.folder / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
