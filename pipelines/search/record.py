"""A study on record in MLflow: the study is a run, each of its trials a run inside it. From the study's files alone.

MLflow knows no pruned runs: a trial that was pruned is KILLED there, one that failed FAILED, one that completed FINISHED;
the tag deltarule.state keeps Optuna's word. A study is RUNNING while its driver goes on, KILLED when that was interrupted
(it can be continued, and is RUNNING again then), FINISHED at the end, FAILED if no trial completed.

Sent by the driver from a thread beside the training, and by `deltarule sync` where that failed or was killed. What is
there is not sent again: the store says what that is. Only how the last sending ended is noted, in .deltarule/.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from backends.weights import write_atomically
from pipelines.search.records import SPEC, STUDY, TrialRecord, load_trial, trial_files, trial_path
from pipelines.spec import Experiment, Search, dump, flat, load
from pipelines.spec.space import setting
from pipelines.tracking.events import Event
from pipelines.tracking.redact import redact, redacted

STUDIES = Path("studies")
NOTE = Path(".deltarule/record.json")  # in the folder of a study: how the last sending went
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
FILES = (STUDY, SPEC, "trials.csv", "winner.yaml")
BLOCKS = ("search", "tracking")  # of the study, and of no trial
Status = Literal["RUNNING", "KILLED", "FINISHED", "FAILED"]


@dataclass(frozen=True)
class Head:
    """A study without its trials."""

    name: str
    identity: dict[str, Any]
    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    spec: Experiment
    text: str  # the spec as YAML, without secrets

    @classmethod
    def of(cls, folder: Path) -> Head:
        """Raises FileNotFoundError if the folder is no study's."""
        kept = json.loads((folder / STUDY).read_text(encoding="utf-8"))
        stat = (folder / SPEC).stat()
        spec, text = _spec(folder / SPEC, stat.st_mtime_ns, stat.st_size)
        return cls(kept["name"], kept["identity"], tuple(kept["metrics"]), tuple(kept["directions"]), spec, text)


@lru_cache(maxsize=4)
def _spec(path: Path, changed: int, size: int) -> tuple[Experiment, str]:
    """To read, check and write a spec takes 90 ms, which a study that sends ten times would feel."""
    spec = load(path)
    return spec, redact(dump(spec))


def send_study(
    folder: Path, *, project: Path, final: bool = False, interrupted: bool = False, stop: Callable[[], bool] = lambda: False
) -> str | None:
    """Put on record what the files of a study tell and the store does not hold yet; the id of its MLflow run.

    None if tracking is off, or study.json or the first trial is not there yet: a study is known by them. May be killed
    anywhere, and called again. Between two batches of trials it asks `stop`. `final`: the study is over; `interrupted`: it
    is not, and nobody goes on with it now. Raises TrackingError if the store fails; the files stay, and the next
    `deltarule sync` sends them.
    """
    from pipelines.tracking.family import Family, send_family

    if not (folder / STUDY).is_file():
        return None
    head, trials = Head.of(folder), _ended(folder)
    if not head.spec.tracking.enabled or not trials or trials[0].number != 0:
        return None
    status = _status(trials, final, interrupted)
    digest = _state(folder)
    _note(folder, status, "")
    parent = study_events(head, trials, folder, status)
    numbers = [trial.number for trial in trials]
    family = Family(parent, numbers, lambda number: trial_events(head, load_trial(trial_path(folder, number))), folder)
    run_id = send_family(head.spec.tracking, project, family, stop)
    if not stop():
        _note(folder, status, digest)
    return run_id


def send_waiting_studies(project: Path) -> Iterator[tuple[str, str | None]]:
    """Put the studies on record that are not, or not wholly: (folder, run id) of each. Raises TrackingError.

    A study whose driver was killed before it could say how it ended is taken for interrupted.
    """
    for study in sorted(project.glob(f"{STUDIES}/*/{STUDY}")):
        folder, note = study.parent, _noted(study.parent)
        if note.get("sent") == _state(folder):
            continue
        over = note.get("status") in ("FINISHED", "FAILED")
        run_id = send_study(folder, project=project, final=over, interrupted=not over)
        if run_id is not None:
            yield folder.relative_to(project).as_posix(), run_id


def waiting_studies(project: Path) -> Iterator[tuple[str, str]]:
    """(folder, how its last sending left it) of the studies that are not wholly on record; no store is asked."""
    for study in sorted(project.glob(f"{STUDIES}/*/{STUDY}")):
        if (note := _noted(study.parent)).get("sent") != _state(study.parent):
            yield study.parent.relative_to(project).as_posix(), note.get("status", "")


def _status(trials: Sequence[TrialRecord], final: bool, interrupted: bool) -> Status:
    if final:
        return "FINISHED" if any(trial.state == "COMPLETE" for trial in trials) else "FAILED"
    return "KILLED" if interrupted else "RUNNING"


def _note(folder: Path, status: Status, sent: str) -> None:
    write_atomically(folder / NOTE, json.dumps({"status": status, "sent": sent}).encode())


def _state(folder: Path) -> str:
    """What there is to be sent, in brief."""
    names = [path.name for path in trial_files(folder)]
    return hashlib.sha256(f"{_sha256(folder / STUDY)} {names}".encode()).hexdigest()


def _noted(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _ended(folder: Path) -> list[TrialRecord]:
    """The trials of a folder without their histories. Those that were read before are not read again."""
    files = trial_files(folder)
    light = [_light(path, stat.st_mtime_ns, stat.st_size) for path, stat in zip(files, map(Path.stat, files), strict=True)]
    return [trial for trial in light if trial.state in STATUS]


@lru_cache(maxsize=16384)
def _light(path: Path, changed: int, size: int) -> TrialRecord:
    """With the history of its best epoch alone."""
    trial = load_trial(path)
    return replace(trial, history=tuple(row for row in trial.history if row["epoch"] == trial.best_epoch))


# -- a trial --------------------------------------------------------------------------------------------------------------


def trial_events(head: Head, trial: TrialRecord) -> list[Event]:
    """The run of a trial: its resolved spec, its history, its best epoch, and what became of it."""
    several = {"deltarule.seeds": str(head.spec.search.seeds)} if trial.spread else {}
    tags = {
        "deltarule.kind": "trial",
        "deltarule.study": head.name,
        "deltarule.origin": "search",
        "deltarule.trial": trial.number,
        "deltarule.state": trial.state,
        "deltarule.reason": trial.reason,
        "deltarule.epochs": trial.epochs,
        "deltarule.steps": trial.steps,
        "deltarule.generation": trial.generation,
        "deltarule.backend": head.spec.train.backend,
        **several,
    }
    at_the_end = {"weights": trial.weights, "epochs": trial.epochs, "steps": trial.steps, **_values(head, trial)}
    history = [Event("metrics", "trial", _measured(row), int(row["epoch"])) for row in trial.history]
    return [
        Event("create", "create", {"name": f"{head.name} {trial.number}"}),
        Event("params", "trial", _texts(_params(head.spec, trial))),
        Event("tags", "trial", _texts(tags)),
        *history,
        Event("metrics", "trial", {**at_the_end, **_best(head, trial)}),
        Event("end", "end", {"status": STATUS[trial.state]}),
    ]


def _params(spec: Experiment, trial: TrialRecord) -> dict[str, Any]:
    """The trial's spec flat and dotted, and what was drawn under names that are no paths of it ("regularization.l1 or")."""
    bare = spec.model_copy(update={"search": Search(), "thresholds": {}})  # which no trial changes, and take long to check
    resolved = flat(bare.override({**trial.changes, "seed": trial.seed}))
    own = {path: value for path, value in resolved.items() if path.partition(".")[0] not in (*BLOCKS, "thresholds")}
    return dict(redacted({**trial.params, **own}))


def _measured(row: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name != "epoch"}


def _values(head: Head, trial: TrialRecord) -> dict[str, float]:
    """value and value_spread; of several metrics, value_NAME of each."""
    names = ["value"] if len(head.metrics) == 1 else [f"value_{metric}" for metric in head.metrics]
    spreads = dict(zip((f"{name}_spread" for name in names), trial.spread, strict=False))
    return {**dict(zip(names, trial.values, strict=False)), **spreads}


def _best(head: Head, trial: TrialRecord) -> dict[str, float]:
    """best_*: the numbers of the best epoch. Of several seeds there is no one best epoch, only the means of their values."""
    if trial.spread:
        means = dict(zip(head.metrics, trial.values, strict=False))
        return {f"best_val_{name}": value for name, value in means.items() if name != "weights"}
    chosen = next((row for row in trial.history if row["epoch"] == trial.best_epoch), None)
    if chosen is None:
        return {}
    best = {f"best_{name}": value for name, value in _measured(chosen).items() if name.startswith(("train_", "val_"))}
    return {"best_epoch": float(chosen["epoch"]), **best}


# -- the study ------------------------------------------------------------------------------------------------------------


def study_events(head: Head, trials: Sequence[TrialRecord], folder: Path, status: Status) -> list[Event]:
    """The run of the study: its spec, what was best after how many trials, counts, and the files that are there."""
    files = {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}
    hashed = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    first = hashlib.sha256(trial_path(folder, 0).read_bytes()).hexdigest()
    whole = json.dumps([head.name, head.identity, head.metrics, head.directions], sort_keys=True)
    identity = {
        "deltarule.kind": "study",
        "deltarule.origin": "search",
        "deltarule.identity": hashlib.sha256(whole.encode()).hexdigest()[:32],
        "deltarule.outs": first,  # other outs of one identity, from another machine, are another run: points stay for good
    }
    told = _told(trials)
    counts: Counter[str] = Counter(trial.state for trial in trials)
    tags = {f"deltarule.trials.{state.lower()}": str(counts[state]) for state in STATUS}
    return [
        Event("create", "create", {"name": head.name, "source": "deltarule search", "identity": identity}),
        Event("params", "spec", _texts(redacted(_shared(head.spec)))),
        Event("tags", "spec", _texts({"deltarule.study": head.name, "deltarule.backend": head.spec.train.backend})),
        Event("text", "spec", {SPEC: head.text}),
        Event("mark", "spec", {"outs": identity["deltarule.identity"]}),
        *progress(head, told),
        Event("tags", "progress", tags),
        Event("mark", "progress", {"outs": f"{len(told)} trials, {len(trials)} ended"}),
        Event("artifacts", "files", {place: place for place in files}),
        Event("mark", "files", {"outs": hashed}),
        Event("end", "end", {"status": status}),
    ]


def _shared(spec: Experiment) -> dict[str, Any]:
    """The spec but for what was searched: beside the best value, the spec's own activation would be taken for the winner's."""
    searched = {setting(path) for path in spec.search.space}
    return {path: value for path, value in flat(spec).items() if path not in searched}


def _told(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials up to the first that is missing: only of these it is settled what was best after how many."""
    return [trial for place, trial in enumerate(trials) if trial.number == place]


def progress(head: Head, told: Sequence[TrialRecord]) -> Iterator[Event]:
    """Points at step n, after n trials: the best value of each metric so far; each change of the counts and of the winner."""
    names = ["best_value"] if len(head.metrics) == 1 else [f"best_value_{metric}" for metric in head.metrics]
    best: list[float] = []
    counts: Counter[str] = Counter()
    for step, trial in enumerate(told, start=1):
        counts[trial.state] += 1
        values = {f"trials_{trial.state.lower()}": float(counts[trial.state])}
        if trial.state == "COMPLETE":
            before, best = best, _better(head, trial.values, best or trial.values)
            values |= _winner(head, trial) if best != before and len(head.metrics) == 1 else {}
        yield Event("metrics", "progress", values | dict(zip(names, best, strict=False)), step)


def _better(head: Head, values: Sequence[float], best: Sequence[float]) -> list[float]:
    """By metric, the better of the two."""
    pairs = zip(values, best, head.directions, strict=True)
    return [min(one, two) if direction == "minimize" else max(one, two) for one, two, direction in pairs]


def _winner(head: Head, trial: TrialRecord) -> dict[str, float]:
    return {"best_trial": float(trial.number), **_best(head, trial)}


def _files(folder: Path) -> list[Path]:
    """What the run of a study keeps, as far as it is there; the spec is sent apart."""
    named = [folder / name for name in FILES if name != SPEC]
    return [path for path in (*named, *sorted((folder / "figures").glob("*.*"))) if path.is_file() and path.name[0] != "."]


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
