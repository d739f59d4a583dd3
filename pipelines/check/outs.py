"""The outs of a reproduction beside those on record: equal to the bit, within tolerance, or different, and where it begins.

Tolerances are those of docs/theory.md, "When two backends agree", without its allowance for chaotic settings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from backends import weights
from pipelines.check.measure import distance, largest_distance
from pipelines.check.recorded import RecordedRun, read_history, read_json_if_any
from pipelines.check.verdict import TOLERANCE, Finding
from pipelines.stages import RunPaths, StageError
from pipelines.stages.files import sha256
from pipelines.stages.networks import predict, stored_networks
from pipelines.stages.reports import judge

Word = Literal["bit-equal", "within tolerance", "different"]
OBJECTIVE = ("train_loss", "train_penalty", "train_objective", "val_loss")  # judged in float32 too
FILES = ("train/model.safetensors", "train/history.csv", "train/metrics.json", "validate/metrics.json", "test/metrics.json")


@dataclass(frozen=True)
class Verdict:
    """`same`: files whose bytes are those on record; `other`: those that are not; `begins`: what differs first."""

    word: Word
    same: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    begins: str = ""
    quantities: tuple[Finding, ...] = ()  # `where` is the first epoch that differs
    environment: tuple[tuple[str, str, str], ...] = ()  # (name, then, now) of what differs
    notes: tuple[str, ...] = ()  # what is not known about the run

    @property
    def reproduced(self) -> bool:
        """Equal to the bit, or within tolerance."""
        return self.word != "different"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = {"quantity": "name", "difference": "difference", "allowed": "allowed", "where": "begins", "passed": "passed"}
        quantities = [one.as_dict() for one in self.quantities]
        return {
            "verdict": self.word,
            "begins": self.begins or None,
            "same": list(self.same),
            "other": list(self.other),
            "quantities": [{name: one[key] for key, name in names.items()} for one in quantities],
            "environment": [{"name": name, "then": then, "now": now} for name, then, now in self.environment],
            "notes": list(self.notes),
        }


def compare(run: RecordedRun, places: RunPaths, notes: Sequence[str] = (), failed: str = "") -> Verdict:
    """Compare the outs of a reproduction with the record. `failed`: the stage that did not end, and its last words."""
    precision, now = run.spec["train"]["precision"], read_json_if_any(places.about)["sha256"]
    data = [part for part in ("train", "valid") if part in run.hashes and now[part] != run.hashes[part]]
    same: list[str] = []
    other: list[str] = []
    for name in FILES:
        was, is_ = run.recorded.folder / name, places.root / "outputs" / name
        if was.is_file() and (is_.is_file() or not name.startswith("test/")):
            (same if is_.is_file() and sha256(was) == sha256(is_) else other).append(name)
    quantities = tuple(_quantities(run, places, precision, same_rows=not data))
    begins = _begins(data, quantities, other, failed)
    wrong = data or failed or any(one.passed is False for one in quantities) or not (same or quantities)
    word: Word = "different" if wrong else "within tolerance" if begins else "bit-equal"
    environment = tuple(differences(run.run, read_json_if_any(places.run)))
    return Verdict(word, tuple(same), tuple(other), begins, quantities, environment, tuple(notes))


def _begins(data: Sequence[str], quantities: Sequence[Finding], other: Sequence[str], failed: str) -> str:
    """What differs first, in the order in which it came about."""
    if data:
        return f"the split: its {' and '.join(data)} part{'s' if len(data) > 1 else ''}"
    epochs = [one.where for one in quantities if one.where]
    if epochs:
        first = min(epochs, key=lambda where: [int(word) for word in where.replace(",", "").split() if word.isdigit()])
        names = [one.quantity.removeprefix("history, ") for one in quantities if one.where == first]
        return f"{first} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
    return failed or next(iter(other), "") or next((one.quantity for one in quantities if one.difference), "")


def _quantities(run: RecordedRun, places: RunPaths, precision: str, same_rows: bool) -> Iterator[Finding]:
    """What differs, and always the objective."""
    then = run.history()
    now = read_history(places.history) if places.history.is_file() else then.iloc[:0]
    yield from _of_history(then, now, precision)
    if run.is_trial or not places.model.is_file():
        return
    yield from _of_networks(run, places, precision, same_rows)
    for stage in ("train", "validate", "test"):
        was, now = (read_json_if_any(top / stage / "metrics.json") for top in (run.recorded.folder, places.root / "outputs"))
        if was and now:
            yield from _of_metrics(stage, was, now, precision)


def _of_history(then: pd.DataFrame, now: pd.DataFrame, precision: str) -> Iterator[Finding]:
    """A quantity a column."""
    extra = [where for where in (*then.index, *now.index) if where not in then.index or where not in now.index]
    if extra:
        yield Finding("epochs", extra[0], float(len(extra)), 0.0)
    common = [where for where in then.index if where in now.index]
    for name in then.columns:
        was = then[name]
        gaps = distance(now[name].reindex(common), was[common]) if name in now else np.full(len(common), math.inf)
        begins = next((where for where, gap in zip(common, gaps, strict=True) if gap), "")
        if begins or name in OBJECTIVE:
            largest = was.abs()[np.isfinite(was)].max() if np.isfinite(was).any() else 0.0
            allowed = _allowed(precision, float(largest), name in OBJECTIVE)
            yield Finding(f"history, {name}", begins, float(gaps.max()) if common else math.inf, allowed)


def _allowed(precision: str, largest: float, objective: bool) -> float | None:
    return TOLERANCE[precision] * max(1.0, largest) if objective or precision == "float64" else None


def _of_networks(run: RecordedRun, places: RunPaths, precision: str, same_rows: bool) -> Iterator[Finding]:
    """Weights, and what they say of the validation rows before softmax or sigmoid."""
    then, now = weights.load_all(run.recorded.folder / "train/model.safetensors"), weights.load_all(places.model)
    if [flat.shape for _, flat in then] != [flat.shape for _, flat in now]:
        yield Finding("weights, whose number is another", "", math.inf, 0.0)
        return
    pairs = [(was, is_) for (_, was), (_, is_) in zip(then, now, strict=True)]
    largest = max(float(np.abs(was).max()) for was, _ in pairs)
    gap = max(largest_distance(is_, was) for was, is_ in pairs)
    yield Finding("weights", "", gap, TOLERANCE[precision] * largest if precision == "float64" else None)
    if not (same_rows and gap):
        return
    try:
        networks = stored_networks(places.root)
    except StageError:
        return
    outputs = [judge(network, places, "valid").outputs for network in networks]
    before = [predict(trial, flat, n.about.open(places.data, "valid").X) for (trial, flat), n in zip(then, networks, strict=True)]
    largest = max(float(np.abs(one).max()) for one in before)
    gap = max(largest_distance(a, b) for a, b in zip(before, outputs, strict=True))
    yield Finding("outputs on the validation rows", "", gap, _allowed(precision, largest, objective=True))


def _of_metrics(stage: str, was: Mapping[str, Any], now: Mapping[str, Any], precision: str) -> Iterator[Finding]:
    """Those that differ: in float32 the loss is judged; what moves in jumps, such as the best epoch, is shown alone."""
    for name in dict.fromkeys((*was, *now)):
        if was.get(name) == now.get(name):
            continue
        numbers = [float(one[name]) for one in (was, now) if isinstance(one.get(name), int | float)]
        gap = abs(numbers[0] - numbers[1]) if len(numbers) == 2 else math.inf
        objective = name == "loss" or name.removeprefix("best_") in OBJECTIVE
        yield Finding(f"{stage}, {name}", "", gap, _allowed(precision, max(map(abs, numbers), default=0.0), objective))


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(name, then, now): processor, instructions, threads, devices, versions, and the source that trains, by the fingerprint."""
    if not then or not now:
        return
    for block, prefix in (("environment", ""), ("versions", "version of ")):
        was, is_ = then.get(block, {}), now.get(block, {})
        for name in dict.fromkeys((*was, *is_)):
            if was.get(name) != is_.get(name):
                yield f"{prefix}{name}", _text(was.get(name)), _text(is_.get(name))
    if _trained(then) == _trained(now) and then["fingerprint"] != now["fingerprint"]:
        yield "deltarule's own code (fingerprint)", then["fingerprint"], now["fingerprint"]


def _trained(run: Mapping[str, Any]) -> list[Any]:
    """What goes into the fingerprint, but for the source."""
    spec = [run["spec"].get(key) for key in ("seed", "model", "regularization", "train")]
    return [run.get("data_hashes"), run.get("backend"), spec]


def _text(value: object) -> str:
    return "unknown" if value is None else value if isinstance(value, str) else json.dumps(value)
