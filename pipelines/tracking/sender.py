"""Brings a journal to MLflow, from where the last sender left off. It may be killed anywhere.

A point goes with the time at which it happened, and MLflow keeps two equal points of one time once; so what was sent and
not yet noted, or sent without an answer, is simply sent again.
"""

from __future__ import annotations

import atexit
import hashlib
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from itertools import groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.redact import redact
from pipelines.tracking import models
from pipelines.tracking.events import (
    LARGEST,
    LAUNCH,
    ORIGIN,
    OUTS,
    PARENT,
    TAG_CHARACTERS,
    TRIAL,
    Event,
    merged,
    metric_name,
)
from pipelines.tracking.journal import LOG, Journal, Sent, keep_file, settle
from pipelines.tracking.provenance import is_in_git
from pipelines.tracking.store import Busy, Refused, Store, TrackingError, answering, check, connect, get_run, locate, search

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

    from pipelines.spec import Tracking

OF_LOG = "deltarule.log"  # tag
SHARED = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")
CONTEXT = "mlflow.data.context"  # of the tag that says what the rows were for
EVENTS_A_PASS = 1000  # between two passes others can have the store
METRICS_A_CALL, PARAMS_A_CALL, TAGS_A_CALL = 800, 100, 100  # MLflow takes 1000 things at once


class Sender:
    """Sends one journal, which its process has claimed; see record.RunSender."""

    def __init__(self, journal: Journal, store: Store) -> None:
        if is_in_git(journal.path):
            raise Refused(
                f"git tracks the journal {journal.id}: somebody else's? look at {journal.folder}, and take it out of git "
                f"(git rm -r --cached {LOG}), or give it up: deltarule sync --drop {journal.id}"
            )
        self.journal, self.store = journal, store
        self.head: dict[str, Any] = journal.head()
        digest = hashlib.sha256(f"{store.uri} {store.experiment}".encode()).hexdigest()[:16]
        sent = journal.sent()
        self.sent = sent if sent.store == digest else Sent(digest)
        self._client: MlflowClient | None = None
        self._state: RemoteState | None = None
        # By number; None of one that is on record whole, and of all as long as the store was not asked.
        self._children: dict[str, Run | None] | None = None
        self._experiment_id = self._status = ""

    def send(self) -> str | None:
        """Send all that is there; the id of the run in MLflow.

        Raises TrackingError if the store fails, and notes it beside the journal.
        """
        while passing := self._next():
            offset = self.sent.offset
            events = [event for event, _ in passing]
            with self._noting_failures():
                files = [pair for kind in ("artifacts", "model") for pair in merged(events, kind).items()]
                self.journal.check([*merged(events, "text"), *(name for pair in files for name in pair)])
            with self._asking() as client:
                state = self._find(client)
                if state is None:
                    break  # an equal run is on record, and this one may turn out to be the same
                if self.sent.offset != offset:
                    continue  # the run is no longer there: all of it is sent again
                mark = _mark(events)
                known = state.has(mark)
                if not known:
                    state.send([event for event in events if not event.child], self.journal.files)
                    self._send_children(client, state.run, [event for event in events if event.child])
            for made in self.made(events[-1].stage) if mark and not known else ():
                if not state.has(_mark(made)):
                    # Without the lock: it may take seconds.
                    with self._noting_failures(), answering(self.store, self.doing):
                        state.send(made, self.journal.files)
                        state.set_tags(_mark(made))
            with self._asking() as client:
                state.set_tags(mark)
                self._set_status(client, state.run, events)
                self._note(offset=passing[-1][1], events=self.sent.events + len(events), error="")
        return self.sent.run_id

    def made(self, stage: str) -> Iterator[list[Event]]:
        """What is made of the outs of a stage; sent before the run is marked, perhaps with a mark of its own."""
        yield from ()

    def _next(self) -> list[tuple[Event, int]]:
        """Events up to the next mark, and not too many; a child whole."""
        passing: list[tuple[Event, int]] = []
        for event, end in self.journal.after(self.sent.offset):
            passing.append((event, end))
            within = event.child and event.kind != "end"
            if event.kind == "mark" or (len(passing) >= EVENTS_A_PASS and not within):
                break
        while passing and passing[-1][0].child and passing[-1][0].kind != "end":  # it is being written
            passing.pop()
        return passing

    @property
    def doing(self) -> str:
        """What failed, if it fails."""
        return f"the run {self.head['name']!r} is not wholly on record"

    @contextmanager
    def _asking(self) -> Iterator[MlflowClient]:
        """A client, with the store to itself."""
        with self._noting_failures(), answering(self.store, self.doing), self.store.lock():
            if self._client is None:
                self._client, self._experiment_id = connect(self.store)
            check(self.store)
            yield self._client

    @contextmanager
    def _noting_failures(self) -> Iterator[None]:
        try:
            yield
        except Busy:  # the store answers, and others have it
            raise
        except TrackingError as error:
            self._client = self._state = self._children = None  # some may have been made whose answer was lost
            self._note(error=error.reason)
            raise

    def _note(self, **changes: Any) -> None:
        self.sent = replace(self.sent, **changes)
        self.journal.note(self.sent)

    def _set_status(self, client: MlflowClient, run: Run, events: Sequence[Event]) -> None:
        ends = [one for one in events if one.kind in ("begin", "end") and not one.child]
        if not ends:
            return
        last = ends[-1]
        before = self._status or run.info.status
        status = "RUNNING" if last.kind == "begin" else last.values["status"]
        again = last.kind == "begin" and before in ("FINISHED", "FAILED") and not self.journal.is_study
        if status == before or again:
            return  # what is trained again, and comes to the same, is over as it was
        if last.kind == "end" and self.journal.state().host is not None:
            client.set_terminated(run.info.run_id, status, last.time)
        else:
            # Outs know no times.
            client.update_run(run.info.run_id, status)
        self._status = status

    def _send_children(self, client: MlflowClient, parent: Run, events: Sequence[Event]) -> None:
        """Each child once: its status goes last, and says that it is complete."""
        if events and self._children is None:
            wanted = f"tags.`{PARENT}` = '{parent.info.run_id}'"
            begun = search(client, self._experiment_id, wanted)
            self._children = {run.data.tags.get(TRIAL, ""): run if run.info.status == "RUNNING" else None for run in begun}
        for number, group in groupby(events, key=lambda event: event.child):
            assert self._children is not None
            create, *body = group
            run, end = self._children.get(number), body[-1]
            if end.kind != "end" or (run is None and number in self._children):
                continue  # its writer was killed, and it is told of again; or it is on record whole
            if run is None:
                shared = {key: parent.data.tags[key] for key in SHARED if key in parent.data.tags}
                tags = {**merged(body, "tags"), **shared, PARENT: parent.info.run_id, TRIAL: number}
                tags = {key: redact(value)[:TAG_CHARACTERS] for key, value in tags.items()}
                run = client.create_run(self._experiment_id, create.time, tags, redact(create.values["name"]))
            RemoteState(client, run).send(body, self.journal.files)
            client.update_run(run.info.run_id, end.values["status"])
            self._children[number] = None

    # -- which run --

    def _find(self, client: MlflowClient) -> RemoteState | None:
        """The run that this is, or a new one; None as long as that cannot be told."""
        if self._state is None:
            run = get_run(client, self.sent.run_id) if self.sent.run_id else None
            if run is None and self.sent.run_id:
                self._note(run_id=None, offset=0, events=0)
            run = run or self._search_all(client)
            if run is not None:
                self._note(run_id=run.info.run_id)
                self._state = RemoteState(client, run)
        return self._state

    def _search_all(self, client: MlflowClient) -> Run | None:
        identity, state = dict(self.head["identity"]), self.journal.state()
        if state.outs:
            identity[OUTS] = state.outs
        run = self._given(client, identity) or self._search(client, {OF_LOG: self.journal.id})
        if run is not None or identity.get(ORIGIN) == "launch":
            return run or self._create(client, identity)
        if OUTS in identity:
            run = self._search(client, identity)
        if run is None and state.host is not None:  # one that was killed, and goes on
            run = self._search(client, {**identity, "deltarule.ended": "killed"}, "KILLED")
        training = OUTS not in identity and state.status is None
        if run is None and training and self._search(client, identity, "FINISHED") is not None:
            return None  # it trains what is on record already: known once the outs are hashed
        return run or self._create(client, identity)

    def _given(self, client: MlflowClient, identity: dict[str, str]) -> Run | None:
        """The run of MLFLOW_RUN_ID, unless it holds something else: MLflow takes nothing back."""
        run_id = os.environ.get("MLFLOW_RUN_ID")
        if not run_id or run_id != self.head.get("given"):
            return None
        run = client.get_run(run_id)
        for key in identity.keys() - {ORIGIN, LAUNCH}:
            if run.data.tags.get(key, identity[key]) != identity[key]:
                raise TrackingError(f"MLFLOW_RUN_ID names run {run_id}, which holds another experiment ({key}); unset it")
        RemoteState(client, run).set_tags(identity)
        return run

    def _search(self, client: MlflowClient, tags: dict[str, str], status: str | None = None) -> Run | None:
        """The first run that has these tags, and this status if one is given."""
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = client.search_runs([self._experiment_id], wanted, order_by=["attributes.start_time ASC"])
        return next((run for run in found if status in (None, run.info.status)), None)

    def _create(self, client: MlflowClient, identity: dict[str, str]) -> Run:
        first = next(self.journal.read())
        tags = {**identity, **self.head.get("tags", {}), OF_LOG: self.journal.id}
        self._children = {}
        return client.create_run(self._experiment_id, first.time, tags, self.head["name"])


def _mark(events: Sequence[Event]) -> dict[str, str]:
    """The tag that says that a stage is wholly on record, where the events come to that."""
    marks = [last for last in events[-1:] if last.kind == "mark"]
    return {f"deltarule.recorded.{mark.stage}": mark.values["outs"] for mark in marks}


class RemoteState:
    """What a run held when it was first looked at, and was sent since; of no use once that failed."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self.run = run
        self._client, self._id = client, run.info.run_id
        self._params, self._tags = set(run.data.params), dict(run.data.tags)
        self._points: dict[str, dict[int, Metric]] = {}

    def has(self, mark: Mapping[str, str]) -> bool:
        """Whether a stage is wholly on record; never without a mark."""
        return bool(mark) and mark.items() <= self._tags.items()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set the tags that it has not, or not so."""
        self._log([], {}, tags)

    def send(self, events: Sequence[Event], root: Path) -> None:
        """Send what it does not hold. Artifacts and models are files below `root`."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self._log(self._missing_points(events), merged(events, "params"), merged(events, "tags"))
        files, texts = merged(events, "artifacts"), merged(events, "text")
        with tempfile.TemporaryDirectory(dir=root.parent) as scratch:  # in one call
            for place, below in files.items():
                keep_file(root / below, Path(scratch, place), tables=True)
            for place, content in texts.items():
                Path(scratch, place).parent.mkdir(parents=True, exist_ok=True)
                Path(scratch, place).write_bytes(content if isinstance(content, bytes) else content.encode())
            if files or texts:
                self._client.log_artifacts(self._id, scratch)
        if rows := merged(events, "inputs"):
            # A store keeps each once, however often they are sent.
            inputs = [DatasetInput(Dataset(**each), [InputTag(CONTEXT, context)]) for context, each in rows.items()]
            self._client.log_inputs(self._id, datasets=inputs)
        for name, below in merged(events, "model").items():
            models.send(self._client, self.run, name, root / below)

    def _log(self, points: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        tags = {key: value[:TAG_CHARACTERS] for key, value in tags.items()}
        missing = [Param(key, value) for key, value in params.items() if key not in self._params]
        changed = [RunTag(key, value) for key, value in tags.items() if self._tags.get(key) != value]
        calls = zip_longest(
            _parts(points, METRICS_A_CALL), _parts(missing, PARAMS_A_CALL), _parts(changed, TAGS_A_CALL), fillvalue=()
        )
        for some_points, some_params, some_tags in calls:
            self._client.log_batch(self._id, metrics=some_points, params=some_params, tags=some_tags)
        self._params |= params.keys()
        self._tags |= tags

    def _missing_points(self, events: Sequence[Event]) -> list[Metric]:
        """The points that it does not hold; a changed value with a later time."""
        from mlflow.entities import Metric

        now, missing = int(time.time() * 1000), dict[tuple[str, int], Metric]()
        for event in events:
            for key, value in event.values.items() if event.kind == "metrics" else ():
                name = metric_name(key, self.run.data.metrics)
                held = self._held(name)
                before = held.get(event.step)
                if before is None or not _same(before.value, value):
                    when = max(event.time or now, before.timestamp + 1 if before else 0)
                    held[event.step] = missing[name, event.step] = Metric(name, value, when, event.step)
        return [*missing.values()]

    def _held(self, name: str) -> dict[int, Metric]:
        """Step -> the latest point of a metric."""
        if name not in self._points:
            history = self._client.get_metric_history(self._id, name) if name in self.run.data.metrics else ()
            by_time = sorted(history, key=lambda point: point.timestamp)
            self._points[name] = {point.step: point for point in by_time}
        return self._points[name]


def _same(held: float, value: float) -> bool:
    kept = max(-LARGEST, min(LARGEST, value))  # NaN stays NaN
    return held in (kept, value) or (math.isnan(held) and math.isnan(value))


def _parts(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


# -- what is added later --


@cache
def measure(run_id: str, uri: str) -> None:
    """Metrics of this machine, where MLflow's variable asks for them."""
    from mlflow import environment_variables as variables

    asked: Any = variables.MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
    if asked.get():
        with suppress(ImportError):  # of psutil
            from mlflow.system_metrics import system_metrics_monitor as system

            kind: Any = system.SystemMetricsMonitor
            monitor = kind(run_id, resume_logging=True, tracking_uri=uri)
            atexit.register(monitor.finish)
            monitor.start()


def attach(tracking: Tracking, project: Path, fingerprint: str, files: Mapping[str, str], tags: Mapping[str, str]) -> str | None:
    """Put texts (path in the run -> content) and tags on the newest run of this fingerprint; its id, or None if there is none.

    Makes no store, no experiment and no run. Raises TrackingError if the store fails.
    """
    settle(project)
    store = locate(tracking, project)
    if not tracking.enabled or store.missing:
        return None
    with answering(store, "the report was not attached"), store.lock():
        client, experiment_id = connect(store)
        wanted = f"tags.`deltarule.fingerprint` = '{fingerprint}'"
        found = client.search_runs([experiment_id], wanted, max_results=1, order_by=["attributes.start_time DESC"])
        for run in found:
            for place, text in files.items():
                client.log_text(run.info.run_id, redact(text), place)
            for name, value in tags.items():
                client.set_tag(run.info.run_id, name, redact(value))
    return str(found[0].info.run_id) if found else None
