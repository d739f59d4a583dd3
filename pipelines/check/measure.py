"""One process of a comparison: python -m pipelines.check.measure FOLDER NAME, where NAME is a backend's, or "recording".

The recording is the reference: what it did is left in PRECISION.pickle, which a backend's process reads. Each leaves its
Outcome in NAME.pickle. Standard output carries progress.
"""

from __future__ import annotations

import math
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backends import BackendError, get
from backends.base import Backend
from backends.spec import Storage
from pipelines.check.case import REFERENCE, Case
from pipelines.check.observe import Key, StepSnapshot, observe, snapshots
from pipelines.check.verdict import DIVERGED, Finding, Outcome, judge
from pipelines.stages.metrics import NDArray

RECORDING = "recording"  # the name of the reference's process: "reference" may itself be compared
Say = Callable[[str], None]


class Recording(NamedTuple):
    """What the reference did, and how far each array drifts when the weights that it comes from are moved by one ulp."""

    steps: list[StepSnapshot]
    arrays: dict[Key, NDArray]
    drifts: dict[Key, float]


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
        return math.inf
    return float(distance(found, expected).max(initial=0.0))


def record(case: Case, say: Say) -> Outcome:
    """Run the reference. It agrees with itself."""
    reference = get(REFERENCE)
    for precision in case.precisions:
        say(precision)
        steps = list(snapshots(reference, case, precision))
        arrays = dict(observe(reference, case, precision, steps))
        say(f"{precision}, one ulp away")
        nudged = observe(reference, case, precision, steps, nudge=True)
        drifts = {key: largest_distance(array, arrays[key]) for key, array in nudged if key in arrays}
        (case.folder / f"{precision}.pickle").write_bytes(pickle.dumps(Recording(steps, arrays, drifts)))
    return Outcome(REFERENCE, "agrees")


def measure(case: Case, name: str, say: Say) -> Outcome:
    """Run one backend, and judge it."""
    say("starting")
    try:
        backend = get(name)
        versions = backend.versions()
    except BackendError as error:
        return Outcome(name, "absent", str(error))
    findings: list[Finding] = []
    for precision in case.precisions:
        say(precision)
        try:
            findings += judge(_compared(backend, case, precision))
        except BackendError as error:
            return Outcome(name, "refused", str(error), versions)
    differs = any(one.passed is False for one in findings)
    return Outcome(name, "differs" if differs else "agrees", "", versions, tuple(findings))


def _compared(backend: Backend, case: Case, precision: Storage) -> list[Finding]:
    """A finding for each array of the reference; what a backend has besides is left out."""
    recording: Recording = pickle.loads((case.folder / f"{precision}.pickle").read_bytes())
    found = {
        key: (largest_distance(array, recording.arrays[key]), _single(array))
        for key, array in observe(backend, case, precision, recording.steps)
        if key in recording.arrays
    }
    findings = []
    for key, array in recording.arrays.items():
        difference, value = found.get(key, (math.inf, None))  # an epoch or a result that the backend does not have
        if key.name == DIVERGED and math.isinf(array) and not difference:
            continue  # neither did
        drift = None if key.section == "start" else recording.drifts.get(key, math.inf)
        sizes = np.abs(np.asarray(array, np.float64))
        largest = float(np.where(np.isfinite(sizes), sizes, 0.0).max(initial=0.0))
        shown = key.name, key.where, difference, None, precision, key.section
        findings.append(Finding(*shown, largest, drift, expected=_single(array), found=value))
    return findings


def _single(array: NDArray) -> float | None:
    return float(np.ravel(array)[0]) if np.size(array) == 1 and np.isfinite(array).all() else None


def main(folder: str, name: str) -> None:
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(what: str) -> None:
        print(what, file=lines, flush=True)

    case: Case = pickle.loads((Path(folder) / "case.pickle").read_bytes())
    outcome = record(case, say) if name == RECORDING else measure(case, name, say)
    (case.folder / f"{name}.pickle").write_bytes(pickle.dumps(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])
