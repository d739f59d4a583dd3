"""What a study found, as plain data for whoever shows, exports, records or adopts it: derived from Optuna's storage.

Of a trial, Optuna keeps params, state, values and details; its curve is an out like any run's history, curves/00012.csv.
study.json sums a study up for those who have no Optuna. Studies of versions before 0.2 have trials/00012.json instead of a curve.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from backends.weights import write_atomically
from pipelines.search.storage import EMBEDDED, StorageError, open_storage
from pipelines.search.trials import OURS, StudyError, drawn, quiet
from pipelines.spec import Experiment, dump_written, load
from pipelines.stages.files import damaged, read_json, sha256, write_csv, write_json

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

State = Literal["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
History = tuple[dict[str, float], ...]  # one record an epoch
ENDED: dict[str, State] = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAIL": "FAIL"}  # a trial that waits counts as running
STUDIES = Path("studies")  # below the project
DETAILS = (
    "spread",
    "reason",
    "epochs",
    "steps",
    "best_epoch",
    "seed",
    "generation",
    "variant",
    "weights",
    "curve",
    "same_as",
)
STUDY, SPEC, CURVES = "study.json", "params.yaml", "curves"
SEAL = Path(".deltarule/trials.json")
ANEW = "search anew under another --name"


@dataclass(frozen=True)
class TrialRecord:
    """One trial, and what came of it."""

    number: int
    state: State
    params: dict[str, Any]  # drawn: dotted path -> value, "PATH or" choices among them
    changes: dict[str, Any]  # dotted path -> value to lay over the spec, as --set would
    values: tuple[float, ...]  # of the metrics, in their order; () if there is none
    spread: tuple[float, ...] = ()  # sd of each value over the seeds (ddof 1); () with one seed
    reason: str = ""  # a sentence: "completed 30 epochs", "pruned after epoch 9"
    epochs: int = 0  # carried out, summed over the seeds
    steps: int = 0
    best_epoch: int | None = None  # of the first seed
    seed: int = 0  # of the first network
    generation: int = 0
    variant: str = ""  # folder name of its data
    weights: int = 0  # numbers in the network
    history: History = ()  # per epoch, mean over the seeds; () where only the study was read
    curve: str = ""  # SHA-256 of the file of its history
    same_as: int | None = None  # the equal trial that it was taken over from

    @classmethod
    def of(cls, stored: FrozenTrial, experiment: Experiment) -> TrialRecord:
        """A trial as Optuna has it, without its history."""
        details = {"seed": experiment.seed, **stored.user_attrs.get(OURS, {})}
        try:
            params, changes = drawn(stored, experiment)
        except StudyError:  # Optuna's queue has it, or another program was killed while it drew
            params, changes = dict(stored.params), {}
        known = {name: details[name] for name in DETAILS if name in details}
        trial = cls(stored.number, ENDED.get(stored.state.name, "RUNNING"), params, changes, tuple(stored.values or ()), **known)
        return replace(trial, spread=tuple(trial.spread))

    def details(self) -> dict[str, Any]:
        """What Optuna has no place for."""
        return {name: getattr(self, name) for name in DETAILS}


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

    @classmethod
    def of(cls, study: Study, experiment: Experiment) -> StudyRecord:
        """The study as Optuna has it, without histories."""
        stored = study.get_trials(deepcopy=False)
        complete = any(one.state.name == "COMPLETE" for one in stored)
        front = tuple(sorted(one.number for one in study.best_trials)) if complete else ()
        metrics = experiment.search.metrics
        return cls(
            study.study_name,
            study.user_attrs[OURS]["identity"],
            metrics,
            experiment.search.directions,
            tuple(TrialRecord.of(one, experiment) for one in stored),
            min(front) if len(metrics) == 1 and front else None,
            front,
            experiment,
        )

    def trial(self, number: int) -> TrialRecord:
        """The trial of this number. Raises IndexError."""
        return self.trials[number]

    def counts(self) -> dict[str, int]:
        """State -> how many trials, in the order of the alphabet."""
        return dict(sorted(Counter(trial.state for trial in self.trials).items()))


# -- a study's folder --


def save_study(folder: Path, record: StudyRecord, importances: Mapping[str, float] | None = None) -> None:
    """Write study.json, with its hash, and params.yaml if it is not there. Same record, same bytes.

    The file of the trials has its hash, as far as it came, in a file of its own: Optuna only adds to it.
    """
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
    write_json(folder / STUDY, content)
    if (folder / EMBEDDED).exists():
        written = (folder / EMBEDDED).read_bytes()
        write_json(folder / SEAL, {"bytes": len(written), "sha256": hashlib.sha256(written).hexdigest()})


def read_study(folder: Path) -> dict[str, Any]:
    """study.json. Raises DataError where it, or the file of the trials, no longer holds what was written."""
    content = read_json(folder / STUDY)
    if (folder / SEAL).exists() and (folder / EMBEDDED).exists():
        sealed = read_json(folder / SEAL)
        with (folder / EMBEDDED).open("rb") as file:
            if hashlib.sha256(file.read(sealed["bytes"])).hexdigest() != sealed["sha256"]:
                raise damaged(folder / EMBEDDED, again=ANEW)
    return content


def load_study(folder: Path, *, histories: bool = True) -> StudyRecord:
    """The study of a folder, from its storage; with the histories of its trials, or without.

    Raises FileNotFoundError if it is no study's folder, StorageError if its storage cannot be read or has no such study, and
    SpecError for its spec.
    """
    import optuna

    name, experiment = read_study(folder)["name"], load(folder / SPEC)
    url = experiment.search.storage
    if url is None and not (folder / EMBEDDED).exists():
        raise StorageError(f"the trials of study {name!r} are in {folder / EMBEDDED}, which is missing; restore it")
    try:
        with quiet():
            study = optuna.load_study(study_name=name, storage=open_storage(folder, url))
    except KeyError:
        raise StorageError(f"the storage of study {name!r} holds no study of that name; restore it") from None
    record = StudyRecord.of(study, experiment)
    if not histories:
        return record
    return replace(record, trials=tuple(replace(one, history=load_curve(folder, one)) for one in record.trials))


# -- curves --


def save_curve(folder: Path, number: int, history: Sequence[Mapping[str, float]]) -> str:
    """A row an epoch, floats to the last bit. Same history, same bytes, whose SHA-256 is returned."""
    names = list(history[0]) if history else ["epoch"]
    rows = ([int(row[name]) if name == "epoch" else float(row[name]) for name in names] for row in history)
    path = folder / CURVES / f"{number:05d}.csv"
    write_csv(path, names, rows)
    return sha256(path)


def load_curve(folder: Path, trial: TrialRecord) -> History:
    """What `save_curve` wrote, or what versions before 0.2 kept; () where there is neither. Raises DataError."""
    path = folder / CURVES / f"{trial.number:05d}.csv"
    if path.exists():
        if trial.curve and sha256(path) != trial.curve:
            raise damaged(path, again=ANEW)
        with path.open(newline="", encoding="utf-8") as file:
            return tuple({name: float(value) for name, value in row.items()} for row in csv.DictReader(file))
    try:
        rows = read_json(trial_path(folder, trial.number))["history"]
    except FileNotFoundError:
        return ()
    return tuple({name: float(value) for name, value in row.items()} for row in rows)  # NaN and infinity are texts there


def trial_path(folder: Path, number: int) -> Path:
    """Where versions before 0.2 kept a trial."""
    return folder / "trials" / f"{number:05d}.json"
