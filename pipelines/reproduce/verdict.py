"""What came of a reproduction, beside what is on record: equal to the bit, within tolerance, or different, and where it begins.

Tolerances are those of THEORY.md, "When two backends agree", without its allowance for chaotic settings, which takes runs of
the reference: `deltarule parity` measures that. float64: 1e-12 of the largest number, weights of max|W|. float32: the
objective and the outputs on the validation rows, 1e-5 of the largest number if that is above 1; all else is shown, not judged.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backends import weights
from pipelines.parity.verdict import TOLERANCE
from pipelines.reproduce.asked import Asked, read_json
from pipelines.stages import RunPaths, StageError
from pipelines.stages.files import sha256
from pipelines.stages.networks import stored_networks
from pipelines.stages.reports import judge as judge_rows

NDArray = np.ndarray[Any, np.dtype[Any]]
Word = Literal["bit-equal", "within tolerance", "different"]
OBJECTIVE = ("train_loss", "train_penalty", "train_objective", "val_loss")  # judged in float32 too
FILES = ("train/model.safetensors", "train/history.csv", "train/metrics.json", "validate/metrics.json", "test/metrics.json")
DATA = ("train", "valid")


@dataclass(frozen=True)
class Quantity:
    """One thing that was compared. `difference` is the largest; `allowed` None: shown, not judged."""

    name: str
    difference: float
    allowed: float | None
    begins: str = ""  # the first epoch that differs

    @property
    def passed(self) -> bool | None:
        """None for what is not judged."""
        return None if self.allowed is None else self.difference <= self.allowed

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity: a difference that is none is null."""
        difference = self.difference if math.isfinite(self.difference) else None
        return {
            "name": self.name,
            "difference": difference,
            "allowed": self.allowed,
            "begins": self.begins,
            "passed": self.passed,
        }


@dataclass(frozen=True)
class Verdict:
    """`same`: files whose bytes are those on record; `other`: those that are not; `begins`: what differs first."""

    word: Word
    same: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    begins: str = ""
    quantities: tuple[Quantity, ...] = ()
    environment: tuple[tuple[str, str, str], ...] = ()  # (name, then, now) of what differs
    notes: tuple[str, ...] = field(default=())  # what is not known about the run

    @property
    def reproduced(self) -> bool:
        """Equal to the bit, or within tolerance."""
        return self.word != "different"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "verdict": self.word,
            "begins": self.begins or None,
            "same": list(self.same),
            "other": list(self.other),
            "quantities": [one.as_dict() for one in self.quantities],
            "environment": [{"name": name, "then": then, "now": now} for name, then, now in self.environment],
            "notes": list(self.notes),
        }


def judge(run: Asked, places: RunPaths, notes: Sequence[str] = (), failed: str = "") -> Verdict:
    """Compare the outs of a reproduction with the record. `failed`: the stage that did not come to its end, and what it said."""
    precision = run.spec["train"]["precision"]
    data = [part for part in DATA if part in run.hashes and read_json(places.about)["sha256"][part] != run.hashes[part]]
    same, other = _bytes(run, places)
    quantities = tuple(_quantities(run, places, precision, same_rows=not data))
    begins = _begins(data, quantities, other, failed)
    wrong = data or failed or any(one.passed is False for one in quantities) or not (same or quantities)
    word: Word = "different" if wrong else "within tolerance" if begins else "bit-equal"
    environment = tuple(differences(run.run, read_json(places.run)))
    return Verdict(word, same, other, begins, quantities, environment, tuple(notes))


def _bytes(run: Asked, places: RunPaths) -> tuple[tuple[str, ...], tuple[str, ...]]:
    same: list[str] = []
    other: list[str] = []
    for name in FILES:
        then, now = run.recorded.folder / name, places.root / "outputs" / name
        if then.is_file() and (now.is_file() or name.partition("/")[0] != "test"):
            (same if now.is_file() and sha256(then) == sha256(now) else other).append(name)
    return tuple(same), tuple(other)


def _begins(data: Sequence[str], quantities: Sequence[Quantity], other: Sequence[str], failed: str) -> str:
    """What differs first, in the order in which it came about."""
    if data:
        return f"the split: its {' and '.join(data)} part{'s' if len(data) > 1 else ''}"
    epochs = [one.begins for one in quantities if one.begins]
    if epochs:
        first = min(epochs, key=_place)
        beyond = [one.name.removeprefix("history, ") for one in quantities if one.begins == first]
        return f"{first} ({', '.join(beyond[:4])}{', ...' if len(beyond) > 4 else ''})"
    return failed or next(iter(other), "") or next((one.name for one in quantities if one.difference), "")


def _place(where: str) -> tuple[int, ...]:
    """Of "epoch 12" or "fold 2, epoch 12"."""
    return tuple(int(word) for word in where.replace(",", "").split() if word.isdigit())


# -- quantities -----------------------------------------------------------------------------------------------------------


def _quantities(run: Asked, places: RunPaths, precision: str, same_rows: bool) -> Iterator[Quantity]:
    """What differs, and always the objective."""
    then = _recorded_history(run)
    yield from _of_history(then, _history(places.history), precision)
    if run.is_trial or not places.model.is_file():
        return
    yield from _of_networks(run, places, precision, same_rows)
    for stage in ("train", "validate", "test"):
        was, now = (
            read_json(folder / "metrics.json") for folder in (run.recorded.folder / stage, places.root / "outputs" / stage)
        )
        if was and now:
            yield from _of_metrics(stage, was, now, precision)


def _history(path: Path) -> dict[str, dict[str, float]]:
    """Where -> column -> value; an empty cell is none."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {_where(row): {name: float(v) for name, v in row.items() if name not in ("fold", "epoch") and v} for row in rows}


def _where(row: Mapping[str, str]) -> str:
    return (f"fold {row['fold']}, " if "fold" in row else "") + f"epoch {row['epoch']}"


def _recorded_history(run: Asked) -> dict[str, dict[str, float]]:
    if not run.is_trial:
        return _history(run.recorded.folder / "train/history.csv")
    found: dict[str, dict[str, float]] = {}
    for name, points in run.recorded.points.items():
        if name.startswith(("train_", "val_", "learning_rate")):
            for step, value in sorted(points.items()):
                found.setdefault(f"epoch {step}", {})[name] = value
    return found


def _of_history(then: dict[str, dict[str, float]], now: dict[str, dict[str, float]], precision: str) -> Iterator[Quantity]:
    """A quantity a column."""
    if len(then) != len(now):
        first = next(iter([where for where in (*then, *now) if where not in then or where not in now]))
        yield Quantity("epochs", float(abs(len(then) - len(now))), 0.0, first)
    common = [where for where in then if where in now]
    for name in dict.fromkeys(name for row in then.values() for name in row):
        gaps = {where: _gap(then[where].get(name), now[where].get(name)) for where in common}
        begins = next((where for where, gap in gaps.items() if gap), "")
        if begins or name in OBJECTIVE:
            largest = max((abs(row[name]) for row in then.values() if name in row and math.isfinite(row[name])), default=0.0)
            allowed = _allowed(precision, largest, name in OBJECTIVE)
            yield Quantity(f"history, {name}", max(gaps.values(), default=math.inf), allowed, begins)


def _gap(then: float | None, now: float | None) -> float:
    if then is None or now is None:
        return 0.0 if then is now else math.inf
    if then == now or (math.isnan(then) and math.isnan(now)):
        return 0.0
    gap = abs(then - now)
    return math.inf if math.isnan(gap) else gap


def _allowed(precision: str, largest: float, objective: bool) -> float | None:
    return TOLERANCE[precision] * max(1.0, largest) if objective or precision == "float64" else None


def _of_networks(run: Asked, places: RunPaths, precision: str, same_rows: bool) -> Iterator[Quantity]:
    """Weights, and what they say of the validation rows before softmax or sigmoid."""
    then, now = weights.load_all(run.recorded.folder / "train/model.safetensors"), weights.load_all(places.model)
    if [flat.shape for _, flat in then] != [flat.shape for _, flat in now]:
        yield Quantity("weights, whose number is another", math.inf, 0.0)
        return
    pairs = list(zip((flat for _, flat in then), (flat for _, flat in now), strict=True))
    largest = max(float(np.abs(was).max()) for was, _ in pairs)
    gap = max(_distance(was, is_) for was, is_ in pairs)
    yield Quantity("weights", gap, TOLERANCE[precision] * largest if precision == "float64" else None)
    if same_rows and gap:
        yield from _of_outputs(then, places, precision)


def _of_outputs(then: Sequence[tuple[Any, NDArray]], places: RunPaths, precision: str) -> Iterator[Quantity]:
    from pipelines.stages.networks import predict

    try:
        networks = stored_networks(places.root)
    except StageError:
        return
    now = [judge_rows(network, places, "valid").outputs for network in networks]
    was = [predict(trial, flat, n.about.open(places.data, "valid").X) for (trial, flat), n in zip(then, networks, strict=True)]
    largest = max(float(np.abs(outputs).max()) for outputs in was)
    gap = max(_distance(a, b) for a, b in zip(was, now, strict=True))
    yield Quantity("outputs on the validation rows", gap, _allowed(precision, largest, objective=True))


def _distance(a: NDArray, b: NDArray) -> float:
    gap = float(np.abs(a.astype(np.float64) - b).max())
    return math.inf if math.isnan(gap) else gap


def _of_metrics(stage: str, was: Mapping[str, Any], now: Mapping[str, Any], precision: str) -> Iterator[Quantity]:
    """Those that differ: in float32 the loss is judged; what moves in jumps, such as the best epoch, is shown alone."""
    for name in dict.fromkeys((*was, *now)):
        a, b = was.get(name), now.get(name)
        if a == b:
            continue
        numbers = [float(value) for value in (a, b) if isinstance(value, int | float)]
        gap = _gap(*numbers) if len(numbers) == 2 else math.inf
        objective = name == "loss" or name.removeprefix("best_") in OBJECTIVE
        yield Quantity(f"{stage}, {name}", gap, _allowed(precision, max(map(abs, numbers), default=0.0), objective))


# -- environment ----------------------------------------------------------------------------------------------------------


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(name, then, now): processor, instructions, threads, devices, versions, and the source that trains, by the fingerprint."""
    if not then or not now:
        return
    for block in ("environment", "versions"):
        was, is_ = then.get(block, {}), now.get(block, {})
        for name in dict.fromkeys((*was, *is_)):
            if was.get(name) != is_.get(name):
                yield name if block == "environment" else f"version of {name}", _text(was.get(name)), _text(is_.get(name))
    same = all(then.get(key) == now.get(key) for key in ("data_hashes", "backend")) and _training(then) == _training(now)
    if same and then["fingerprint"] != now["fingerprint"]:
        yield "deltarule's own code (fingerprint)", then["fingerprint"], now["fingerprint"]


def _training(run: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the spec that goes into the fingerprint."""
    return {key: run["spec"].get(key) for key in ("seed", "model", "regularization", "train")}


def _text(value: object) -> str:
    return "unknown" if value is None else value if isinstance(value, str) else json.dumps(value)
