"""Runs read back from the store, as plain data."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.redact import redact
from pipelines.tracking.events import LARGEST, LAUNCH, PARENT, ROW_COUNT, grouped, name_of, ungrouped
from pipelines.tracking.journal import settle
from pipelines.tracking.store import (
    LookupFailed,
    Store,
    answering,
    check,
    client_of,
    connect,
    get_run,
    locate,
    search,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from pipelines.spec import Tracking

Curves = dict[str, dict[int, float]]  # metric -> step -> value
LEAST = 4  # characters of an id: fewer would name a run by chance
SHOWN = 5  # of several runs that a text may mean
OF_A_TRIAL = ("seed", "data", "model", "regularization", "train")  # what trials share
# What says what a run was and what came of it; models and figures can be large.
WANTED = ("params.yaml", "source", "data", "train", "validate", "test")


@dataclass(frozen=True)
class Recorded:
    """A run on record. Times are seconds since 1970; metrics are the last values, named as in the outs."""

    id: str
    name: str
    status: str  # RUNNING, FINISHED, FAILED, KILLED, SCHEDULED
    started: float | None
    ended: float | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    files: str = ""  # MLflow's URI of its artifacts

    @property
    def parent(self) -> str | None:
        """The id of the study's run, if this is one of its trials."""
        return self.tags.get(PARENT)


@dataclass(frozen=True)
class Fetched:
    """A run: what the store says of it, and the files of WANTED below `folder`."""

    run_id: str
    name: str
    status: str  # FINISHED, FAILED, KILLED, RUNNING
    tags: Mapping[str, str]
    params: Mapping[str, str]
    folder: Path
    points: Curves = field(default_factory=dict)  # of runs without files alone


# -- runs and their numbers --


def recorded(
    tracking: Tracking, project: Path, *, parent: str | None = None, children: bool = False, deleted: bool = False
) -> list[Recorded]:
    """The runs of the experiment, newest first, once those that have just ended are on record.

    Those that are no children; with `children` all; of `parent` its children; with `deleted` what was deleted too.
    """
    settle(project)
    store = locate(tracking, project)
    wanted = f"tags.`{PARENT}` = '{parent}'" if parent else "" if children else f"tags.`{PARENT}` IS NULL"
    with _reading(store):
        if store.missing:
            return []
        client = client_of(store)
        experiment = client.get_experiment_by_name(store.experiment)
        view = 3 if deleted else 1
        found = list(map(_plain, search(client, experiment.experiment_id, wanted, view))) if experiment else []
        found = _with_studies(client, found)
    return sorted(found, key=lambda run: (-(run.started or 0.0), run.id))


def histories(tracking: Tracking, project: Path, ids: Sequence[str], names: Sequence[str]) -> dict[str, Curves]:
    """Run id -> metric -> step -> value, the last of each step. Raises TrackingError."""
    store = locate(tracking, project)
    with _reading(store):
        client = client_of(store)
        return {run_id: _curves(client, run_id, names) for run_id in ids}


def texts(tracking: Tracking, project: Path, runs: Sequence[Recorded], place: str) -> dict[str, str]:
    """Run id -> what its artifact at `place` holds, of the runs that have it. Raises TrackingError."""
    store, found = locate(tracking, project), {}
    with _reading(store), tempfile.TemporaryDirectory() as scratch:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        for run in runs:
            files: Any = get_artifact_repository(run.files, store.uri)
            if place in {held.path for held in files.list_artifacts(place.rpartition("/")[0])}:
                (folder := Path(scratch) / run.id).mkdir()
                found[run.id] = Path(files.download_artifacts(place, str(folder))).read_text(encoding="utf-8")
    return found


def with_intervals(tracking: Tracking, project: Path, runs: Sequence[Recorded]) -> list[Recorded]:
    """With NAME_low and NAME_high among the metrics, which the reports alone hold. Raises TrackingError."""
    found = {run.id: run for run in runs}
    for stage in ("validate", "test"):
        judged = [run for run in runs if f"{stage}_loss" in run.metrics]
        read = texts(tracking, project, judged, f"{stage}/metrics.json")
        for run_id, text in read.items():
            run, report = found[run_id], json.loads(text)
            ends = {name_of(f"{stage}_{key}"): report[key] for key in report if key.endswith(("_low", "_high"))}
            found[run_id] = replace(run, metrics={**ends, **run.metrics})
    return [*found.values()]


@contextmanager
def _reading(store: Store) -> Iterator[None]:
    """A store that fails leaves nothing to be sent again."""
    with answering(store, "the runs cannot be read", "nothing was changed"):
        check(store)
        yield


def _with_studies(client: MlflowClient, runs: Sequence[Recorded]) -> list[Recorded]:
    """Trials with the params that stand on their study."""
    known = {run.id: run for run in runs}
    for parent in {run.parent for run in runs if run.parent} - known.keys():
        if study := get_run(client, str(parent)):
            known[str(parent)] = _plain(study)
    found = []
    for run in runs:
        shared = {}
        if run.parent in known and "data.source" not in run.params:  # trials had the whole spec until 0.1.0
            params = known[run.parent].params
            shared = {key: v for key, v in params.items() if key.partition(".")[0] in OF_A_TRIAL}
        found.append(replace(run, params={**shared, **run.params}))
    return found


def _plain(run: Run) -> Recorded:
    info, data = run.info, run.data
    metrics = {ungrouped(name): _number(value) for name, value in data.metrics.items()}
    for tag, text in data.tags.items():
        if tag.startswith(ROW_COUNT) and text.isdigit():
            metrics[f"rows_{tag.removeprefix(ROW_COUNT)}"] = float(text)
    start, end = (None if time is None else time / 1000 for time in (info.start_time, info.end_time))
    name = info.run_name or ""
    return Recorded(info.run_id, name, info.status, start, end, data.params, metrics, data.tags, info.artifact_uri)


def _number(value: float) -> float:
    """As it was logged: infinity is the largest number in MLflow."""
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else float(value)


def _curves(client: MlflowClient, run_id: str, names: Iterable[str]) -> Curves:
    """Of metrics by their keys. Of a point that was sent twice, the later."""
    curves = {}
    for key in names:
        history = client.get_metric_history(run_id, grouped(key)) or client.get_metric_history(run_id, key)
        history = sorted(history, key=lambda point: (point.step, point.timestamp))
        if history:
            curves[key] = {point.step: _number(point.value) for point in history}
    return curves


# -- which run a person means --


def find_run(client: MlflowClient, experiment_id: str, text: str, project: Path | None = None) -> Run:
    """The one run that `text` means, see `meant`; an id may be of any experiment."""
    text = text.strip()
    run = get_run(client, text) if re.fullmatch(r"[0-9a-f]{32}", text) else None
    if run and run.info.lifecycle_stage == "active":
        return run
    for wanted in (f"tags.`{PARENT}` IS NULL", f"tags.`{PARENT}` IS NOT NULL"):
        found = _meant(list(map(_plain, search(client, experiment_id, wanted))), text, project)
        if found is not None:
            return client.get_run(found.id)
    raise _unknown(text)


@contextmanager
def found_run(tracking: Tracking, project: Path, text: str, doing: str, then: str) -> Iterator[tuple[MlflowClient, Run]]:
    """A client, with the store to itself, and the one run that `text` means. `doing` and `then`: see `answering`."""
    settle(project)
    store = locate(tracking, project)
    if store.missing:
        raise LookupFailed(
            f"no run is on record under {redact(text)!r}: there is no store at {store} yet; "
            "`dvc repro` or `deltarule run` makes it"
        )
    with answering(store, doing, then), store.lock():
        client, experiment_id = connect(store)
        yield client, find_run(client, experiment_id, text, project)


def meant(runs: Sequence[Recorded], text: str, project: Path | None = None) -> Recorded:
    """The one of these runs that `text` means: an id, the folder of a launch, a name, or the start of an id, in that order.

    Raises LookupFailed with what else it may be.
    """
    found = _meant(runs, text.strip(), project)
    if found is None:
        raise _unknown(text)
    return found


def _meant(runs: Sequence[Recorded], text: str, project: Path | None) -> Recorded | None:
    folders = _folders(text, project)
    for found in (
        [run for run in runs if run.id == text],
        [run for run in runs if run.tags.get(LAUNCH) in folders],
        [run for run in runs if text and run.name == text],
        [run for run in runs if begins(run.id, text)],
    ):
        if len(found) > 1:
            when = [datetime.fromtimestamp(run.started or 0).strftime("%Y-%m-%d %H:%M:%S") for run in found]
            known = [f"{run.id} ({run.name}, {begun})" for run, begun in zip(found, when, strict=True)]
            shown = ", ".join(known[:SHOWN])
            more = " and more" if len(found) > SHOWN else ""
            raise LookupFailed(f"{redact(text)} must name one run, and names {len(found)}: {shown}{more}; give an id")
        if found:
            return found[0]
    return None


def begins(run_id: str, text: str) -> bool:
    """Whether a text is the start of an id, and long enough."""
    return bool(re.fullmatch(rf"[0-9a-f]{{{LEAST},32}}", text)) and run_id.startswith(text)


def _unknown(text: str) -> LookupFailed:
    return LookupFailed(
        f"no run is on record under {redact(text)!r}: it must be the id of a run, at least {LEAST} of its first characters, its "
        "name, or the folder of a launch (runs/...); `deltarule runs` lists them, `deltarule sync` puts on record what waits"
    )


def _folders(text: str, project: Path | None) -> set[str]:
    """What the tag of a launch in this folder may be."""
    plain = text.rstrip("/").removeprefix("./")
    below = os.path.relpath(Path(plain).expanduser().resolve(), (project or Path()).resolve())
    return {plain, below, f"runs/{plain}"} - {"."} if plain else set()


# -- files --


def fetch(tracking: Tracking, project: Path, text: str, folder: Path) -> Fetched:
    """The one run that `text` means (see `meant`), its files written below `folder`."""
    doing = f"the run {redact(text)!r} cannot be read"
    with found_run(tracking, project, text, doing, "nothing was changed") as (client, known):
        [run] = _with_studies(client, [_plain(known)])
        held = {file.path for file in client.list_artifacts(run.id)}
        folder.mkdir(parents=True, exist_ok=True)
        for name in WANTED:
            if name in held:
                client.download_artifacts(run.id, name, str(folder))
        points = {} if "train" in held else _curves(client, run.id, run.metrics)
    return Fetched(run.id, run.name, run.status, run.tags, run.params, folder, points)
