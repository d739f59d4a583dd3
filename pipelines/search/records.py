"""What a study found, as plain data derived from Optuna's storage: its table and exports, its winner in params.yaml.

Of a trial, Optuna keeps params, state, values and details; its curve is an out like any run's history, curves/00012.csv.
study.json sums a study up for those who have no Optuna. Studies of versions before 0.2 have trials/00012.json instead of a curve.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import reduce
from itertools import zip_longest
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from backends.weights import write_atomically
from pipelines.project import project_of
from pipelines.search.storage import EMBEDDED, StorageError, open_storage
from pipelines.search.trials import BLOCKS, FREE, OURS, StudyError, drawn, quiet
from pipelines.spec import Experiment, dump, dump_written, flat, load
from pipelines.spec.file import edit, read_text
from pipelines.spec.space import is_searched, setting
from pipelines.stages.files import csv_text, damaged, read_json, sha256, write_json, write_rows

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

State = Literal["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
History = tuple[dict[str, float], ...]  # one record an epoch
STUDIES = Path("studies")  # below the project
STUDY, TABLE, WINNER = FILES = "study.json", "trials.csv", "winner.yaml"
SPEC, CURVES = "params.yaml", "curves"
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
    def of(cls, stored: FrozenTrial, spec: Experiment) -> TrialRecord:
        """A trial as Optuna has it, without its history."""
        try:
            params, changes = drawn(stored, spec)
        except StudyError:  # Optuna's queue has it, or another program was killed while it drew
            params, changes = dict(stored.params), {}
        details = {"seed": changes.get("seed", spec.seed), **stored.user_attrs.get(OURS, {})}
        known = {name: details[name] for name in DETAILS if name in details}
        state: Any = stored.state.name if stored.state.is_finished() else "RUNNING"  # or it waits
        spread = tuple(known.pop("spread", ()))
        return cls(stored.number, state, params, changes, tuple(stored.values or ()), spread, **known)

    def details(self) -> dict[str, Any]:
        """What Optuna has no place for."""
        return {name: getattr(self, name) for name in DETAILS}


DETAILS = [one.name for one in fields(TrialRecord) if one.default is not MISSING and one.name != "history"]


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
    def of(cls, study: Study, spec: Experiment) -> StudyRecord:
        """The study as Optuna has it, without histories."""
        stored = study.get_trials(deepcopy=False)
        complete = any(one.state.name == "COMPLETE" for one in stored)
        front = tuple(sorted(one.number for one in study.best_trials)) if complete else ()
        metrics = spec.search.metrics
        return cls(
            study.study_name,
            study.user_attrs[OURS]["identity"],
            metrics,
            spec.search.directions,
            tuple(TrialRecord.of(one, spec) for one in stored),
            min(front) if len(metrics) == 1 and front else None,
            front,
            spec,
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
            size = sealed.get("bytes")
            held = file.read(size) if isinstance(size, int) else b""
            if hashlib.sha256(held).hexdigest() != sealed.get("sha256"):
                raise damaged(folder / EMBEDDED, again=ANEW)
    return content


def load_study(folder: Path, *, histories: bool = True) -> StudyRecord:
    """The study of a folder, from its storage; with the histories of its trials, or without.

    Raises FileNotFoundError if it is no study's folder, StorageError if its storage cannot be read or has no such study, and
    SpecError for its spec.
    """
    import optuna

    name, spec = read_study(folder)["name"], load(folder / SPEC)
    url = spec.search.storage
    if url is None and not (folder / EMBEDDED).exists():
        raise StorageError(f"the trials of study {name!r} are in {folder / EMBEDDED}, which is missing; restore it")
    try:
        with quiet():
            study = optuna.load_study(study_name=name, storage=open_storage(folder, url))
    except KeyError:
        raise StorageError(f"the storage of study {name!r} holds no study of that name; restore it") from None
    record = StudyRecord.of(study, spec)
    if not histories:
        return record
    return replace(record, trials=tuple(replace(one, history=load_curve(folder, one)) for one in record.trials))


def open_study(name: str, spec: Experiment) -> Study:
    """The Optuna study of a name, as `deltarule search` keeps it. Raises KeyError if there is none."""
    import optuna

    folder = project_of(Path()) / STUDIES / name
    return optuna.load_study(study_name=name, storage=open_storage(folder, spec.search.storage))


# -- curves --


def save_curve(folder: Path, number: int, history: Sequence[Mapping[str, float]]) -> str:
    """A row an epoch, floats to the last bit. Same history, same bytes, whose SHA-256 is returned."""
    path = folder / CURVES / f"{number:05d}.csv"
    rows = [{name: int(value) if name == "epoch" else float(value) for name, value in row.items()} for row in history]
    write_rows(path, rows, without=["epoch"])
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
        rows = read_json(folder / f"trials/{trial.number:05d}.json")["history"]
    except FileNotFoundError:
        return ()
    return tuple({name: float(value) for name, value in row.items()} for row in rows)  # NaN and infinity are texts there


# -- table and exports --


def rows(study: StudyRecord) -> Iterator[dict[str, Any]]:
    """One a trial, by number; all have the same keys, and None where a trial has no such value."""
    own = ["seed"] if study.spec.search.trial_seeds == "own" else []
    for one in study.trials:
        row: dict[str, Any] = {"trial": one.number, "state": one.state.lower()}
        row |= dict(zip_longest(study.metrics, one.values))
        if study.spec.search.seeds > 1:
            row |= dict(zip_longest([f"{metric} sd" for metric in study.metrics], one.spread))
        row |= {path: one.changes.get(path) for path in [*study.spec.search.space, *own]}
        yield row | {name: getattr(one, name) for name in ("best_epoch", "epochs", "steps", "weights", "reason")}


def text(study: StudyRecord) -> str:
    """CSV: floats to the last bit, lists as JSON, empty where there is no value."""
    table = list(rows(study))
    cells = ([json.dumps(v, default=list) if isinstance(v, list | tuple | dict) else v for v in row.values()] for row in table)
    return csv_text([*table[0]] if table else ["trial", "state"], cells)


def ranked(study: StudyRecord) -> list[TrialRecord]:
    """Of several metrics, the front first.

    Complete trials from the best on by the first metric, the pruned, failed, running.
    """
    sign = 1 if study.directions[0] == "minimize" else -1
    order = {"COMPLETE": 0, "PRUNED": 1, "FAIL": 2, "RUNNING": 3}

    def place(trial: TrialRecord) -> tuple[Any, ...]:
        behind = len(study.metrics) > 1 and trial.number not in study.front
        return order[trial.state], behind, sign * trial.values[0] if trial.values else 0.0, trial.number

    return sorted(study.trials, key=place)


def export(study: StudyRecord, form: str, number: int | None = None) -> str:
    """`form`: csv, json, or spec (of the trial of this number, or of the best).

    Raises StudyError if there is no such trial.
    """
    if form == "spec":
        return dump(study.spec.drawn(chosen(study, number).changes))
    if form == "csv":
        return text(study)
    whole: dict[str, Any] = {"study": study.name, "metrics": study.metrics, "directions": study.directions}
    whole |= {"best": study.best, "front": study.front, "trials": list(rows(study))}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


# -- the winner --


@dataclass(frozen=True)
class Adopted:
    """What was written: dotted path -> (was, is), and the trial that it comes from."""

    trial: TrialRecord
    changes: dict[str, tuple[Any, Any]]


def adopt(folder: Path, params: Path, number: int | None = None) -> Adopted:
    """Write the best trial of a study, or the one of this number, into the spec file.

    Raises StudyError if there is no such trial, or none that is best; if it did not complete; and if the file differs from
    the study's spec elsewhere, since it would then not be that trial's experiment.
    """
    study, now = load_study(folder, histories=False), load(params)
    trial = chosen(study, number)
    if trial.state != "COMPLETE":
        raise StudyError(
            f"trial {trial.number} of study {study.name} did not complete ({trial.reason}); choose another: --trial N"
        )
    differing = differences(study, now)
    if differing:
        raise StudyError(
            f"{params} must agree with the spec of study {study.name} but for what was searched, found other values: "
            f"{'; '.join(differing[:5])}; put them back, or search again under another --name"
        )
    wanted = now.drawn(trial.changes)
    before, after = flat(now), flat(wanted)
    gone = [tuple(key.split(".")) for key in before if key.startswith("train.") and key not in after]
    whole: Any = wanted.model_dump(mode="json")
    places: set[tuple[str | int, ...]] = {tuple(setting(path).split(".")) for path in trial.changes}
    values = {place: reduce(getitem, place, whole) for place in places}
    text = edit(read_text(params), values, gone)
    write_atomically(params, text.encode())
    changed = [key for key in after if before.get(key) != after[key] and key.partition(".")[0] in BLOCKS]
    return Adopted(trial, {key: (before.get(key), after[key]) for key in changed})


def chosen(study: StudyRecord, number: int | None) -> TrialRecord:
    """The trial of a number, or the best."""
    if number is None and study.best is None:
        front = ", ".join(map(str, study.front))
        found = f"its best are {front}, each in its own way" if front else "none of its trials completed"
        raise StudyError(f"study {study.name} has no single best trial ({found}); name one: --trial N")
    number = study.best or 0 if number is None else number
    if not 0 <= number < len(study.trials):
        raise StudyError(f"--trial must be a trial of study {study.name}, 0 to {len(study.trials) - 1}, got {number}")
    return study.trial(number)


def differences(study: StudyRecord, now: Experiment) -> list[str]:
    """Where another spec differs from the study's, besides what it searched: what a trial's value also rests on."""
    search, kept, found = study.spec.search, flat(study.spec), flat(now)
    free = (*FREE, "seed") if search.trial_seeds == "own" else FREE
    return [
        f"{key} is {found.get(key, 'absent')}, was {kept.get(key, 'absent')}"
        for key in {**kept, **found}
        if key.partition(".")[0] in BLOCKS and key not in free and not is_searched(key, search.space)
        if kept.get(key) != found.get(key)
    ]
