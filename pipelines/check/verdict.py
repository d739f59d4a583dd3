"""Which difference between two backends is allowed: docs/theory.md, "When two backends agree", in numbers.

What it leaves open (outputs, gradients, δ, sums) is held to the same form: a share of the largest number, or 10 drifts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipelines.report.pages import amount
from pipelines.report.parity_page import excess

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
DIVERGED = "step of divergence"  # infinite: none
JUDGED_IN_FLOAT32 = ("initial weights", DIVERGED, *OUTPUTS, *OBJECTIVE)
SMOOTH_METRICS = tuple(f"validation {name}" for name in ("log_loss", "brier", "rmse", "mae", "r2"))
SMOOTH = (*OUTPUTS, *OBJECTIVE, "root mean square of δ", *SMOOTH_METRICS)
IN_JSON = ("precision", "section", "quantity", "where", "difference", "allowed", "drift", "expected", "found", "passed")
Status = Literal["agrees", "differs", "absent", "refused", "failed"]


@dataclass(frozen=True)
class Finding:
    """One quantity at one step or epoch: how far it is from what it must be."""

    quantity: str
    where: str
    difference: float  # the largest; infinite where one of the two is missing, or NaN
    allowed: float | None = None  # None: shown, not judged
    precision: str = ""
    section: str = ""
    largest: float = 0.0  # of the reference's numbers
    drift: float | None = None  # of the reference itself, after a change of one ulp; infinite where it is missing then
    expected: float | None = None  # the reference's, of a single number
    found: float | None = None

    @property
    def passed(self) -> bool | None:
        """None for what is not judged."""
        return None if self.allowed is None else self.difference <= self.allowed

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

    @property
    def sentence(self) -> str:
        """How it fared. Of failures, the earliest section names the cause, later ones follow from it."""
        judged = sum(finding.passed is not None for finding in self.findings)
        if self.status == "agrees":
            return f"{self.backend} agrees with the reference in all {judged} quantities{self._divergence}"
        if self.status == "failed":
            return f"{self.backend} FAILED: {self.message}"
        if self.status != "differs":
            return f"{self.backend} was not compared: {self.message}"
        first = self.failures[0]
        where = f" at {first.where}" if first.where else ""
        section = SECTIONS[first.section].partition(",")[0].lower()
        gap = f"by {amount(first.difference)} where {amount(first.allowed)} is allowed ({first.precision})"
        failed = f"{len(self.failures)} of {judged} quantities"
        told = f"{failed}, first {section}, {first.quantity}{where}, {gap}{self._divergence}"
        return f"{self.backend} DIFFERS from the reference in {told}"

    @property
    def _divergence(self) -> str:
        """Where the two diverged, if one did, in each precision."""
        said = ""
        for one in self.findings:
            if one.quantity == DIVERGED:
                found, expected = (f"diverged at step {n:.0f}" if n else "did not diverge" for n in (one.found, one.expected))
                both = f"both {found}" if found == expected else f"it {found}, the reference {expected}"
                said += f"; {both} ({one.precision})"
        return said

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
        return bool(self.compared) and all(one.status not in ("differs", "failed") for one in self.outcomes)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"passed": self.passed, **self.case, "backends": {o.backend: o.as_dict() for o in self.outcomes}}


def judge(findings: Sequence[Finding]) -> list[Finding]:
    """Findings of one precision with what is allowed; of each quantity the one at the step or epoch that exceeds most."""
    places = {(one.section, one.quantity, one.where): one for one in findings}
    worst: dict[tuple[str, str], Finding] = {}
    for one in findings:
        judged = replace(one, allowed=None if _is_chance(one, places) else _allowed(one))
        before = worst.setdefault((one.section, one.quantity), judged)
        if excess(judged.difference, judged.allowed) > excess(before.difference, before.allowed):
            worst[one.section, one.quantity] = judged
    return list(worst.values())


def _allowed(one: Finding) -> float | None:
    if one.section == "start":
        return 0.0
    if one.precision == "float32" and one.quantity not in JUDGED_IN_FLOAT32:
        return None
    share, drifts = TOLERANCE[one.precision], DRIFTS * (one.drift or 0.0)
    if (one.section, one.quantity, one.precision) == ("step", "weights", "float64"):
        return share * one.largest
    if (one.section, one.quantity) == ("free", "weights"):
        return max(share, drifts)
    if one.precision == "float64" and one.section in ("batch", "step"):
        return max(share * one.largest, drifts, SMALLEST)
    return max(share * max(1.0, one.largest), drifts)


def _is_chance(one: Finding, places: Mapping[tuple[str, str, str], Finding]) -> bool:
    """Whether the reference's own numbers are not sure: of what moves in jumps, and in float32 of which epoch is the best."""
    best = places.get((one.section, "best epoch", ""))
    if one.precision == "float32" and best is not None and (best.difference or best.drift):
        return True  # two epochs may be equally good, as far as float32 can tell
    if one.section not in ("history", "fit", "after") or one.quantity.partition(".")[0] in SMOOTH:
        return False
    name = "validation E" if one.section == "history" else "outputs on the validation rows"
    sure = places.get((one.section, name, one.where))
    return sure is None or (sure.drift or 0.0) > CHAOTIC * max(1.0, sure.largest)
