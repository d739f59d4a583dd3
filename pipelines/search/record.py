"""A study on record in MLflow: the study is a run, each of its trials a run inside it.

The driver writes a journal, as a run does, and the same sender sends it. MLflow knows no pruned runs: a pruned trial is KILLED
there, a failed one FAILED, a complete one FINISHED; the tag deltarule.state keeps Optuna's word. A study is RUNNING while its
driver goes on, KILLED when that was interrupted (until it is continued), FINISHED at the end, FAILED if no trial completed.
A trial carries what was drawn, the curves of what is searched, and its best values.
What it shares with the others stands on the study.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.weights import write_atomically
from pipelines.record.events import head
from pipelines.record.recording import Surviving, Uploader
from pipelines.redact import redact, redacted
from pipelines.search.records import FILES, SPEC, STUDIES, STUDY, StudyRecord, TrialRecord, load_curve, load_study, read_study
from pipelines.search.storage import StorageError
from pipelines.spec import Experiment, dump, flat
from pipelines.spec.space import is_searched
from pipelines.stages.files import sha256
from pipelines.tracking import provenance
from pipelines.tracking.events import KIND, ORIGIN, OUTS, TRIAL, Event, ended, killed, params, texts
from pipelines.tracking.events import STUDY as STUDY_TAG
from pipelines.tracking.journal import Journal, journals, mark_killed
from pipelines.tracking.store import remembered

NOTE = Path(".deltarule/record.json")  # in the folder of a study: which of its trials were written into journals
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
BEST = "deltarule.best."  # tags of what was drawn for the winner
BLOCKS = ("search", "tracking", "thresholds")  # of the study, and of no trial
_CLAIM_SECONDS = 10  # for the sender of an earlier session, which may still be at work


class StudyRecorder(Surviving):
    """Writes the journal of a study from the trials that end; with tracking off it does nothing. It may end no study.

    `trial_ended` for each, then `finish`; leaving without it, the study was interrupted.
    """

    of = "study"

    def __init__(self, folder: Path, project: Path, study: StudyRecord) -> None:
        """`study` as it stands when the session begins: its earlier trials are written too, where they were not."""
        self._study = study
        self._journal: StudyJournal | None = None
        self._uploader: Uploader | None = None
        if study.spec.tracking.enabled:
            with self.surviving():
                mark_killed(project)
                self._journal = StudyJournal(folder, project, study)
                self._send()

    def __enter__(self) -> StudyRecorder:
        return self

    def __exit__(self, *error: object) -> None:
        if self._journal:
            with self.surviving():
                self._journal.end(killed("interrupted"))
        if self._uploader:
            complaint, error_of_store = self._uploader.close(), self._uploader.journal.sent().error
            if reason := error_of_store or complaint:
                self.warning = f"the study {self._study.name!r} waits for the store ({reason}); `deltarule sync` sends it"

    def trial_ended(self, trial: TrialRecord) -> None:
        """A trial is over; its history is whole."""
        if self._journal:
            with self.surviving():
                self._journal.add([trial])
                self._send()

    def _send(self) -> None:
        """Once there is a journal."""
        if self._uploader is None and self._journal and self._journal.journal:
            self._uploader = Uploader(self._journal.journal, self._study.spec.tracking)

    def finish(self) -> None:
        """The study is over, and its files are written."""
        if self._journal:
            with self.surviving():
                self._journal.finish()
            self._journal = None


class StudyJournal:
    """The journal of one study: that which waits for it, or a new one, once trial 0 is over: a study is known by it."""

    def __init__(self, folder: Path, project: Path, study: StudyRecord) -> None:
        self.folder, self.project, self.study = folder, project, study
        self.progress = Progress(study)
        self.journal: Journal | None = None
        self._waiting: list[TrialRecord] = []  # for trial 0
        self._time = 0  # ms; a millisecond apart, so that lists by time are in the order of the trials
        over = [trial for trial in study.trials if trial.state in STATUS]
        self._written = {trial.number for trial in over} & _noted(folder).get("trials", set())
        self.add(over)
        if self.journal is not None:
            self._note()

    def add(self, trials: Sequence[TrialRecord]) -> None:
        """Write trials that are over; of earlier ones, histories are read."""
        self._waiting += trials
        first = next((trial for trial in self._waiting if trial.number == 0), None)
        if self.journal is None and first:
            self._open(first)
        while self.journal is not None and self._waiting:
            trial = self._waiting.pop(0)
            new = trial.number not in self._written
            if new and not trial.history:
                trial = replace(trial, history=load_curve(self.folder, trial))
            events = list(self.progress.add(trial))
            if new:
                self._time = max(self._time + 1, int(time.time() * 1000))
                # The trial's end stands last: where it is written, all is.
                events += trial_events(self.study, trial)
                self.journal.append(replace(event, time=self._time) for event in events)
                self._written.add(trial.number)

    def _open(self, first: TrialRecord) -> None:
        """Continue the journal that waits, or begin one."""
        note = _noted(self.folder) if self._written else {}
        self._outs = note.get("outs") or _outs(self.folder, first)
        create, *rest = study_events(self.study, self.folder, self._outs)
        begin = provenance.begin()
        ours = (waiting for waiting in journals(self.project) if self._goes_on(waiting, create, begin))
        self.journal = next(ours, None) or Journal.create(self.project, [create, begin, *rest], self.folder, hold=True)
        self._waiting.sort(key=lambda one: one.number not in self._written)  # their points come once
        self._note()

    def _goes_on(self, waiting: Journal, create: Event, begin: Event) -> bool:
        """Whether a journal is this study's, which then goes on in it.

        A second one would be sent beside the first, or before.
        """
        known = waiting.head()
        if any(known.get(key) != create.values[key] for key in ("identity", "tracking")):
            return False
        if ours := waiting.go_on(begin, _CLAIM_SECONDS):
            self._written |= {int(event.child) for event in waiting.read() if event.child and event.kind == "end"}
        return ours

    def finish(self) -> None:
        """The study is over: it failed if no trial completed."""
        status, how = ("FINISHED", "completed") if self.progress.ended["COMPLETE"] else ("FAILED", "failed")
        self.end(ended(status, how, f"{self.progress.ended.total()} trials"))

    def end(self, last: Sequence[Event]) -> None:
        """Write the files that are there, and how the study ended."""
        if self.journal is not None:
            try:
                self.journal.add(self._files(), self.folder)
                self.journal.append(last)
                self.journal.sync()
            finally:
                self.journal.release()
                self._note()

    def _note(self) -> None:
        tracking = remembered(self.study.spec.tracking)
        content = {"outs": self._outs, "trials": sorted(self._written), "tracking": tracking}
        write_atomically(self.folder / NOTE, json.dumps(content).encode())

    def _files(self) -> list[Event]:
        """Counts, and what the run of a study keeps."""
        tags = {f"deltarule.trials.{state.lower()}": str(self.progress.ended[state]) for state in STATUS}
        figures = sorted(path.name for path in (self.folder / "figures").glob("[!.]*.*"))
        names = [*FILES, *(f"figures/{name}" for name in figures)]
        hashes = {name: sha256(self.folder / name) for name in names if (self.folder / name).is_file()}
        return [
            Event("tags", "files", tags),
            Event("artifacts", "files", {name: name for name in hashes}),
            Event("mark", "files", {"outs": hashlib.sha256(json.dumps([tags, hashes]).encode()).hexdigest()}),
        ]


# -- studies without a journal --


def journal_studies(project: Path) -> None:
    """Write the journals of studies that are not on record: of earlier versions, and what could not be written.

    A study of which trials are missing was interrupted, unless a note says that it came to its end.
    """
    for name in unwritten_studies(project):
        folder = project / name
        status, study = _noted(folder).get("status"), load_study(folder, histories=False)  # before it is written anew
        journal = StudyJournal(folder, project, study)
        if status in ("FINISHED", "FAILED") or sum(one.state in STATUS for one in study.trials) >= study.spec.search.trials:
            journal.finish()
        else:
            journal.end(killed("interrupted"))


def unwritten_studies(project: Path) -> list[str]:
    """The folders of studies with trials that are in no journal; no store is asked."""
    found = []
    for path in sorted(project.glob(f"{STUDIES}/*/{STUDY}")):
        folder, note = path.parent, _noted(path.parent)
        try:
            counts = read_study(folder).get("counts", {})
        except StorageError:  # damaged, as `study show` says
            continue
        over = sum(count for state, count in counts.items() if state in STATUS)
        noted = note.get("trials")
        waits = over > len(noted) if noted is not None else note.get("sent") != _state(folder)
        if waits and _is_tracked(folder):
            found.append(f"{STUDIES}/{folder.name}")
    return found


def _is_tracked(folder: Path) -> bool:
    """Whether its spec has it recorded, and its first trial is over."""
    try:
        study = load_study(folder, histories=False)
    except StorageError:  # its trials are gone, and nothing can be sent
        return False
    return study.spec.tracking.enabled and any(one.state in STATUS for one in study.trials[:1])


def _noted(folder: Path) -> dict[str, Any]:
    try:
        note = dict(json.loads((folder / NOTE).read_text(encoding="utf-8")))
        return {**note, "trials": set(note["trials"])} if "trials" in note else note
    except (OSError, ValueError, TypeError):
        return {}


def _state(folder: Path) -> str:
    """What there is to be sent of a study, as versions before 0.2 noted it."""
    names = sorted(path.name for path in (folder / "trials").glob("*.json") if path.stem.isdigit())
    return hashlib.sha256(f"{sha256(folder / STUDY)} {names}".encode()).hexdigest()


# -- events --


def shared_params(spec: Experiment) -> dict[str, Any]:
    """What all trials have in common, which stands on the study's run. The rest is a trial's own.

    Beside the best value, the spec's own activation would be taken for the winner's.
    """
    return {key: value for key, value in flat(spec).items() if not is_searched(key, spec.search.space)}


def own_params(spec: Experiment, trial: TrialRecord) -> dict[str, str]:
    """What was drawn ("regularization.l1 or", which is no path, too), and what came of it in the spec."""
    resolved, shared = flat(spec.drawn({**trial.changes, "seed": trial.seed})), shared_params(spec).items()
    own = {path: value for path, value in resolved.items() if (path, value) not in shared}
    own = {path: value for path, value in own.items() if path.partition(".")[0] not in BLOCKS}
    return params({**trial.params, **own, "seed": trial.seed})


def study_events(study: StudyRecord, folder: Path, outs: str) -> list[Event]:
    """How the journal of a study begins: what it is, and its spec. `outs`: see `_outs`."""
    spec = study.spec
    whole = json.dumps([study.name, study.identity, study.metrics, study.directions], sort_keys=True)
    identity = {
        KIND: "study",
        ORIGIN: "search",
        "deltarule.identity": hashlib.sha256(whole.encode()).hexdigest()[:32],
        OUTS: outs,
    }
    values = head(study.name, identity, provenance.take(folder, "deltarule search"), spec.tracking)
    return [
        Event("create", "create", {**values, "files": []}),
        Event("params", "spec", params(shared_params(spec))),
        Event("tags", "spec", texts({**spec.tracking.tags, STUDY_TAG: study.name, "deltarule.backend": spec.train.backend})),
        Event("text", "spec", {SPEC: redact(dump(spec))}),
        Event("mark", "spec", {"outs": identity["deltarule.identity"]}),
    ]


def _outs(folder: Path, first: TrialRecord) -> str:
    """A hash of what the first trial came to.

    Other outs of one identity, from another machine, are another run: points stay.
    """
    path = folder / "trials/00000.json"  # of versions before 0.2
    content = path.read_bytes() if path.is_file() else repr((sorted(first.params.items()), first.values)).encode()
    return hashlib.sha256(content).hexdigest()


def trial_events(study: StudyRecord, trial: TrialRecord) -> list[Event]:
    """The run of a trial: what was drawn, its curves, its best epoch, and how it ended."""
    tags = {
        KIND: "trial",
        STUDY_TAG: study.name,
        ORIGIN: "search",
        TRIAL: trial.number,
        "deltarule.state": trial.state,
        "deltarule.reason": trial.reason,
        "deltarule.epochs": trial.epochs,
        "deltarule.steps": trial.steps,
        "deltarule.generation": trial.generation,
        "deltarule.backend": study.spec.train.backend,
        **({"deltarule.seeds": str(study.spec.search.seeds)} if trial.spread else {}),
        **({"deltarule.same_as": trial.same_as} if trial.same_as is not None else {}),
    }
    curves = [f"val_{metric}" for metric in study.metrics if metric != "weights"]
    history = [
        Event("metrics", "trial", {name: float(row[name]) for name in curves if name in row}, int(row["epoch"]))
        for row in trial.history
    ]
    names = ["value"] if len(study.metrics) == 1 else [f"value_{metric}" for metric in study.metrics]
    names += [f"{name}_spread" for name in names]
    values = dict(zip(names, (*trial.values, *trial.spread), strict=False))
    last = {"weights": trial.weights, "epochs": trial.epochs, "steps": trial.steps, **values, **best(study, trial)}
    events = [
        Event("create", "create", {"name": f"{study.name} {trial.number}"}),
        Event("params", "trial", own_params(study.spec, trial)),
        Event("tags", "trial", texts(redacted(tags))),
        *history,
        Event("metrics", "trial", last),
        Event("end", "end", {"status": STATUS[trial.state]}),
    ]
    return [replace(event, child=str(trial.number)) for event in events]


def best(study: StudyRecord, trial: TrialRecord) -> dict[str, float]:
    """best_*: the numbers of the best epoch.

    Of several seeds there is no one best epoch, only the means of their values.
    """
    if trial.spread:
        means = dict(zip(study.metrics, trial.values, strict=False))
        return {f"best_val_{name}": value for name, value in means.items() if name != "weights"}
    chosen = next((row for row in trial.history if row["epoch"] == trial.best_epoch), None)
    if chosen is None:
        return {}
    found = {f"best_{name}": float(value) for name, value in chosen.items() if name.startswith(("train_", "val_"))}
    return {"best_epoch": float(chosen["epoch"]), **found}


class Progress:
    """What was best after how many trials. Of trials up to the first that is missing alone it is settled."""

    def __init__(self, study: StudyRecord) -> None:
        self.study = study
        self.ended: Counter[str] = Counter()  # by state
        self._counts: Counter[str] = Counter()  # of those that are settled
        self._step = 0
        self._best: list[float] = []
        self._early: dict[int, TrialRecord] = {}  # those after the first that is missing
        self._drawn: dict[str, str] = {}

    def add(self, trial: TrialRecord) -> Iterator[Event]:
        """Points at step n, after n trials: the best value of each metric; each change of the counts and of the winner."""
        if trial.number >= self._step and trial.number not in self._early:
            self.ended[trial.state] += 1
            self._early[trial.number] = trial
        while settled := self._early.pop(self._step, None):
            self._step += 1
            values = self._after(settled)
            yield Event("metrics", "progress", values, self._step)
            if "best_trial" in values:
                drawn = {f"{BEST}{path}": value for path, value in settled.params.items()}
                # MLflow takes no tag back.
                self._drawn = {**dict.fromkeys(self._drawn, ""), **params(drawn)}
                yield Event("tags", "progress", self._drawn)

    def _after(self, trial: TrialRecord) -> dict[str, float]:
        single = len(self.study.metrics) == 1
        self._counts[trial.state] += 1
        values = {f"trials_{trial.state.lower()}": float(self._counts[trial.state])}
        if trial.state == "COMPLETE":
            pairs = zip(trial.values, self._best or trial.values, self.study.directions, strict=True)
            better = [min(one, two) if direction == "minimize" else max(one, two) for one, two, direction in pairs]
            if better != self._best and single:
                values |= {"best_trial": float(trial.number), **best(self.study, trial)}
            self._best = better
        names = ["best_value"] if single else [f"best_value_{metric}" for metric in self.study.metrics]
        return values | dict(zip(names, self._best, strict=False))
