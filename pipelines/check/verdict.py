"""Which difference between two backends is allowed: docs/theory.md, "When two backends agree", in numbers.

float64: each optimizer step from the reference's own state within 1e-12 of max|W|; a free run within max(1e-12, 10 times how
far the reference itself drifts after a change of one ulp). What theory.md leaves open (outputs, gradients, δ, sums) is held to
the same form, 1e-12 of the largest number or 10 drifts. float32: outputs before softmax or sigmoid and the objective, within
1e-5 (of the largest number, if that is above 1) or 10 drifts; all else is shown, not judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from backends.spec import Storage
from pipelines.check.measure import Expected

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}  # of float32: what the conformance suite asks of every backend
DRIFTS = 10.0
# An output near 1 is known to 1e-16, and so is δ = d - y: where all are smaller than 1e-2, that is no longer 1e-12 of them.
SMALLEST = 1e-14
# What only moves in jumps (a row counted as right, an epoch that is the best) says nothing once the reference's own numbers
# move by more than this share: whether it jumps is chance then.
CHAOTIC = 1e-9

SECTIONS = {
    "start": "Start",
    "batch": "One batch, with its dropout noise",
    "step": "Each optimizer step, from the reference's own state",
    "free": "Running freely",
    "history": "History of the first epochs",
    "fit": "The whole fit",
    "after": "At the end",
}
OBJECTIVE = ("E", "λΩ", "E + λΩ", "validation E", "validation loss")
OUTPUTS = ("outputs", "outputs on the validation rows")
JUDGED_IN_FLOAT32 = ("initial weights", *OUTPUTS, *OBJECTIVE)
SMOOTH_METRICS = tuple(f"validation {name}" for name in ("log_loss", "brier", "rmse", "mae", "r2"))
SMOOTH = (*OUTPUTS, *OBJECTIVE, "root mean square of δ", *SMOOTH_METRICS)
IN_JSON = ("precision", "section", "quantity", "where", "difference", "allowed", "drift", "expected", "found", "passed")
Status = Literal["agrees", "differs", "absent", "refused", "failed"]


@dataclass(frozen=True)
class Finding:
    """One quantity: how far it is from what it must be, at the step or epoch that comes nearest to what is allowed."""

    quantity: str
    where: str
    difference: float  # the largest
    allowed: float | None  # None: shown, not judged
    precision: str = ""
    section: str = ""
    drift: float | None = None  # of the reference itself, after a change of one ulp
    expected: float | None = None  # the reference's, of a single number
    found: float | None = None

    @property
    def passed(self) -> bool | None:
        """None for what is not judged."""
        return None if self.allowed is None else self.difference <= self.allowed

    @property
    def excess(self) -> float:
        """Difference as a multiple of what is allowed."""
        if self.difference == 0 or self.allowed is None:
            return self.difference
        return self.difference / self.allowed if self.allowed else math.inf

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has neither infinity nor NaN: null."""
        values = {name: getattr(self, name) for name in IN_JSON}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


@dataclass(frozen=True)
class Outcome:
    """The verdict on one backend."""

    backend: str
    status: Status
    message: str = ""  # why it was not compared
    versions: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def failures(self) -> list[Finding]:
        """What lies beyond what is allowed."""
        return [finding for finding in self.findings if finding.passed is False]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        findings = [finding.as_dict() for finding in self.findings]
        return {"status": self.status, "message": self.message, "versions": self.versions, "quantities": findings}


@dataclass(frozen=True)
class Report:
    """What was compared, and the verdict on each backend."""

    case: dict[str, Any]
    outcomes: tuple[Outcome, ...]

    @property
    def compared(self) -> list[Outcome]:
        """Backends that could be compared."""
        return [outcome for outcome in self.outcomes if outcome.status in ("agrees", "differs")]

    @property
    def passed(self) -> bool:
        """Whether every backend that could start here agrees with the reference; it must be one at least."""
        return bool(self.compared) and all(o.status not in ("differs", "failed") for o in self.outcomes)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"passed": self.passed, **self.case, "backends": {o.backend: o.as_dict() for o in self.outcomes}}


def judge(backend: str, found: Mapping[str, Any], expected: Mapping[Storage, Sequence[Expected]]) -> Outcome:
    """The outcome of a backend. `found` is what measure.py wrote of it, `expected` what it wrote of the reference."""
    if found["status"] != "measured":
        return Outcome(backend, found["status"], found["message"], found.get("versions", {}))
    findings = [
        finding
        for precision, entries in expected.items()
        for finding in _worst(_findings(precision, entries, found["quantities"][precision]))
    ]
    status: Status = "differs" if any(finding.passed is False for finding in findings) else "agrees"
    return Outcome(backend, status, versions=found["versions"], findings=tuple(findings))


def _findings(precision: str, entries: Sequence[Expected], found: Mapping[str, Sequence[float | None]]) -> Iterator[Finding]:
    by_key = {entry.key: entry for entry in entries}
    for entry in entries:
        allowed = _allowed(precision, entry)
        if _is_chance(entry, by_key) or (precision == "float32" and _has_another_best_epoch(entry, by_key, found)):
            allowed = None
        difference, value = found.get(entry.key, (math.inf, None))  # an epoch or a result that the backend does not have
        drift = None if entry.section == "start" else _drift(entry)
        yield Finding(
            entry.name, entry.where, math.inf if difference is None else difference, allowed, precision, entry.section,
            drift=drift, expected=entry.value, found=value,
        )  # fmt: skip


def _allowed(precision: str, entry: Expected) -> float | None:
    if entry.section == "start":
        return 0.0
    if precision == "float32" and entry.name not in JUDGED_IN_FLOAT32:
        return None
    share, largest, drifts = TOLERANCE[precision], entry.largest, DRIFTS * _drift(entry)
    if (entry.section, entry.name, precision) == ("step", "weights", "float64"):
        return share * largest
    if (entry.section, entry.name) == ("free", "weights"):
        return max(share, drifts)
    if precision == "float64" and entry.section in ("batch", "step"):
        return max(share * largest, drifts, SMALLEST)
    return max(share * max(1.0, largest), drifts)


def _is_chance(entry: Expected, by_key: Mapping[str, Expected]) -> bool:
    """Whether the quantity moves in jumps, here where the reference's own numbers are no longer sure."""
    if entry.section not in ("history", "fit", "after") or entry.name.partition(".")[0] in SMOOTH:
        return False
    name = "validation E" if entry.section == "history" else "outputs on the validation rows"
    sure = by_key.get(f"{entry.section}|{name}|{entry.where}")
    return sure is None or _drift(sure) > CHAOTIC * max(1.0, sure.largest)


def _has_another_best_epoch(entry: Expected, by_key: Mapping[str, Expected], found: Mapping[str, Sequence[float | None]]) -> bool:
    """Two epochs may be equally good, as far as float32 can tell."""
    key = f"{entry.section}|best epoch|"
    return bool(found.get(key, [0.0])[0] or (key in by_key and _drift(by_key[key])))


def _drift(entry: Expected) -> float:
    """Infinite for what the moved reference does not have."""
    return math.inf if entry.drift is None else entry.drift


def _worst(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Of each quantity the step or epoch that exceeds most; a quantity that is judged anywhere is judged."""
    ordered = sorted(findings, key=lambda f: list(SECTIONS).index(f.section))
    first = {(f.section, f.quantity): number for number, f in reversed(list(enumerate(ordered)))}
    ordered.sort(key=lambda f: first[f.section, f.quantity])
    for _, group in groupby(ordered, key=lambda f: (f.section, f.quantity)):
        yield max(group, key=lambda f: (f.allowed is not None, f.excess))
