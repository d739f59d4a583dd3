"""What a study found, as plain data: one JSON file a trial, and study.json. Record, table and figures see nothing else.

Strict JSON has no NaN and no infinity. Where a measured number may be one (`values`, `spread`, `history`) they are written
as the texts "nan", "inf" and "-inf", and read back as numbers. Params and changes stand as they are, tuples as lists.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backends.weights import write_atomically
from pipelines.spec import Experiment, dump_written, load

State = Literal["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
STUDY, SPEC, TRIALS = "study.json", "params.yaml", "trials"


@dataclass(frozen=True)
class TrialRecord:
    """One trial, and what came of it."""

    number: int
    state: State
    params: dict[str, Any]  # drawn: dotted path -> value, "PATH or" choices among them
    changes: dict[str, Any]  # dotted path -> value to lay over the spec, as --set would
    values: tuple[float, ...]  # of the metrics, in their order; () if there is none
    spread: tuple[float, ...]  # sd of each value over the seeds (ddof 1); () with one seed
    reason: str  # a sentence: "completed 30 epochs", "pruned after epoch 9"
    epochs: int  # carried out, summed over the seeds
    steps: int
    best_epoch: int | None  # of the first seed
    seed: int  # of the first network
    generation: int
    variant: str  # folder name of its data
    weights: int  # numbers in the network
    history: tuple[dict[str, float], ...] = ()  # per epoch, mean over the seeds; () when read back from a storage only


@dataclass(frozen=True)
class StudyRecord:
    """A study so far: what it looks for, and its trials by number."""

    name: str
    identity: dict[str, Any]
    metrics: tuple[str, ...]
    directions: tuple[str, ...]  # "minimize" or "maximize", one a metric
    trials: tuple[TrialRecord, ...]
    best: int | None  # number of the best trial; None with several metrics, or none complete
    front: tuple[int, ...]  # numbers of the trials that none beats in every metric
    spec: Experiment

    def trial(self, number: int) -> TrialRecord:
        """The trial of this number. Raises KeyError."""
        found = next((trial for trial in self.trials if trial.number == number), None)
        if found is None:
            raise KeyError(f"study {self.name} has no trial {number}")
        return found

    def counts(self) -> dict[str, int]:
        """State -> how many trials, in the order of the alphabet."""
        return dict(sorted(Counter(trial.state for trial in self.trials).items()))


def trial_path(folder: Path, number: int) -> Path:
    """Where a study keeps one trial: trials/00012.json."""
    return folder / TRIALS / f"{number:05d}.json"


def save_trial(path: Path, record: TrialRecord) -> None:
    """Whole or not at all: a trial that can be read is complete. Same record, same bytes."""
    head = {key: getattr(record, key) for key in TrialRecord.__dataclass_fields__ if key != "history"}
    head |= {"values": _texts(record.values), "spread": _texts(record.spread)}
    lines = [f"{json.dumps(key)}: {_json(value)}" for key, value in head.items()]
    epochs = ",\n".join(_json(dict(zip(row, _texts(row.values()), strict=True))) for row in record.history)
    write_atomically(path, ("{\n" + ",\n".join([*lines, f'"history": [\n{epochs}\n]']) + "\n}\n").encode())


def load_trial(path: Path) -> TrialRecord:
    """What `save_trial` wrote. Raises FileNotFoundError; ValueError, with the file's name, if it holds something else."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        history = tuple(dict(zip(row, _numbers(row.values()), strict=True)) for row in kept.pop("history"))
        values, spread = (_numbers(kept.pop(key)) for key in ("values", "spread"))
        return TrialRecord(**kept, values=values, spread=spread, history=history)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} must hold a trial as `deltarule search` writes it, got something else ({error}); remove it, "
            "and continue the study: the trial is carried out again"
        ) from None


def save_study(
    folder: Path, record: StudyRecord, importances: Mapping[str, float] | None = None, *, trials: bool = False
) -> None:
    """Write study.json, params.yaml if it is not there, and with `trials` each trial too. Same record, same bytes."""
    content = {
        "name": record.name,
        "metrics": record.metrics,
        "directions": record.directions,
        "best": record.best,
        "front": record.front,
        "identity": record.identity,
        "counts": record.counts(),
        "importances": dict(importances or {}),
    }
    if not (folder / SPEC).exists():
        write_atomically(folder / SPEC, dump_written(record.spec).encode())
    for trial in record.trials if trials else ():
        save_trial(trial_path(folder, trial.number), trial)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / STUDY, f"{text}\n".encode())


def load_study(folder: Path) -> StudyRecord:
    """The study of a folder: study.json, params.yaml and trials/*.json, by number.

    Raises FileNotFoundError if it is no study's, ValueError if a file holds something else, SpecError for its spec.
    """
    kept = json.loads((folder / STUDY).read_text(encoding="utf-8"))
    return StudyRecord(
        name=kept["name"],
        identity=kept["identity"],
        metrics=tuple(kept["metrics"]),
        directions=tuple(kept["directions"]),
        trials=tuple(load_trial(path) for path in trial_files(folder)),
        best=kept["best"],
        front=tuple(kept["front"]),
        spec=load(folder / SPEC),
    )


def load_importances(folder: Path) -> dict[str, float]:
    """Path -> share of the spread of the values that it accounts for, as study.json keeps it; {} where too few completed."""
    return dict(json.loads((folder / STUDY).read_text(encoding="utf-8"))["importances"])


def trial_files(folder: Path) -> list[Path]:
    """The trials of a study's folder, by number; a temporary file that a killed writer left is none."""
    return sorted((path for path in (folder / TRIALS).glob("*.json") if path.stem.isdigit()), key=lambda path: int(path.stem))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _texts(values: Iterable[float]) -> list[float | str]:
    """Python's own numbers (whole ones stay whole), and texts for those that JSON lacks."""
    plain = [value if isinstance(value, int) else float(value) for value in values]
    return [value if math.isfinite(value) else repr(value) for value in plain]


def _numbers(values: Iterable[float | str]) -> tuple[float, ...]:
    return tuple(SPECIAL[value] if isinstance(value, str) else value for value in values)
