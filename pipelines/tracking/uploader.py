"""Replays the events of a run into MLflow: each point once, however often it is called and wherever it was cut short."""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.project import project_of
from pipelines.tracking.direct import LARGEST, entities
from pipelines.tracking.events import Event, events
from pipelines.tracking.redact import redact, redacted
from pipelines.tracking.store import TrackingError, answering, connect, locate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

    from pipelines.spec import Experiment
    from pipelines.stages.places import Places

T = TypeVar("T")
log = logging.getLogger(__name__)

# Limits of MLflow's API.
METRICS_A_BATCH, PARAMS_A_BATCH, TAGS_A_BATCH = 1000, 100, 100
PARAM_CHARACTERS, TAG_CHARACTERS = 6000, 5000
CLEANED = (".json", ".yaml", ".csv")  # what may hold a secret of the spec


def sync(
    places: Places,
    experiment: Experiment,
    *,
    new_run: bool = False,
    tags: Mapping[str, str] | None = None,
    name: str | None = None,
    project: Path | None = None,
) -> str | None:
    """Put the run that the outs of `places` tell of on record; its MLflow run id, or None if tracking is off.

    An experiment has one run, found again by its fingerprint and the hash of what train wrote; what is there is not sent
    again. `new_run` is for launches beside the pipeline: each makes a run of its own, unless the last sync of the same
    folder was cut short, which is then completed. Raises TrackingError if nothing was trained, or the store fails.
    """
    if not experiment.tracking.enabled:
        log.info("tracking is off (tracking.enabled: false): nothing was put on record")
        return None
    record = _events(places, experiment)
    root = places.root.resolve()
    store = locate(experiment.tracking, project or places.project or project_of(root))
    identity = _identity(record[0], root, store.project, new_run)
    with answering(store, f"the run {record[0].values['name']!r} is not wholly on record"), store.lock():
        client, experiment_id = connect(store)
        run = _find(client, experiment_id, identity, new_run)
        if run is None:
            source = "deltarule run" if new_run else "dvc.yaml"
            first = {**identity, **circumstances(root, source), **redacted(dict(tags or {}))}
            run = client.create_run(experiment_id, tags=first, run_name=redact(name or record[0].values["name"]))
        replay(client, run, record[1:], places.root, lambda stage: _send_figures(client, run, stage, places))
    return str(run.info.run_id)


def _events(places: Places, experiment: Experiment) -> list[Event]:
    try:
        return events(places, experiment)
    except FileNotFoundError as error:
        missing = Path(error.filename).relative_to(places.root).as_posix()
        raise TrackingError(
            f"there is no run to put on record in {places.root.resolve()}: {missing} is missing; run `dvc repro` first"
        ) from None


def _identity(create: Event, root: Path, project: Path, new_run: bool) -> dict[str, str]:
    """The tags by which a run is found again."""
    found = {"deltarule.fingerprint": create.values["fingerprint"], "deltarule.outs": create.values["outs"]}
    if not new_run:
        return {**found, "deltarule.origin": "pipeline"}
    where = root.relative_to(project).as_posix() if root.is_relative_to(project) else root.name
    return {**found, "deltarule.origin": "launch", "deltarule.launch": where}


def _find(client: MlflowClient, experiment_id: str, identity: dict[str, str], new_run: bool) -> Run | None:
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        return given(client, run_id, identity, ("deltarule.fingerprint", "deltarule.outs"))
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items() if key != "deltarule.launch")
    found = list(client.search_runs([experiment_id], wanted, order_by=["attributes.start_time ASC"]))
    if new_run:
        launch = identity["deltarule.launch"]
        found = [r for r in found if r.info.status == "RUNNING" and r.data.tags.get("deltarule.launch") == launch]
    return found[0] if found else None


def given(client: MlflowClient, run_id: str, identity: dict[str, str], keys: Sequence[str]) -> Run:
    """The run of MLFLOW_RUN_ID, unless it holds something else by these tags: MLflow can take neither params nor points back."""
    run = client.get_run(run_id)
    for key in keys:
        if run.data.tags.get(key, identity[key]) != identity[key]:
            raise TrackingError(f"MLFLOW_RUN_ID names run {run_id}, which holds another experiment ({key}); unset it")
    _send_tags(client, run, identity)
    return run


def circumstances(root: Path, source: str) -> dict[str, str]:
    """Who put it on record, from where: what MlflowClient, unlike mlflow.start_run, does not set."""
    tags = {
        "mlflow.source.name": source,
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        **_git(root),
    }
    tags.update({f"deltarule.{v.lower()}": os.environ[v] for v in ("DVC_EXP_NAME", "DVC_STAGE") if os.environ.get(v)})
    return {key: redact(value)[:TAG_CHARACTERS] for key, value in tags.items()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return "unknown"


def _git(root: Path) -> dict[str, str]:
    """Commit and whether tracked files differ from it, but for what a pipeline itself rewrites."""
    commit = _git_output(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git_output(root, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)*dvc.lock")
    dirty = {} if changed is None else {"mlflow.source.git.dirty": str(bool(changed)).lower()}
    return {"mlflow.source.git.commit": commit, **dirty}


def _git_output(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def replay(
    client: MlflowClient,
    run: Run,
    record: Sequence[Event],
    root: Path = Path(),
    draw: Callable[[str], object] = lambda stage: None,
) -> None:
    """Send the stages whose mark the run does not carry. A mark goes last: a stage cut short is sent again, and compared.

    Of each stage: its params, points, tags, artifacts (files below `root`) and texts; then `draw(stage)`, which may send more.
    The last event is the end.
    """
    for stage, group in groupby(record[:-1], lambda event: event.stage):
        *body, mark = group
        tag = {f"deltarule.recorded.{stage}": mark.values["outs"]}
        if not tag.items() <= run.data.tags.items():
            _send_stage(client, run, body, root)
            draw(stage)
            _send_tags(client, run, tag)
    status = record[-1].values["status"]
    if run.info.status != status:
        # Not set_terminated, which notes an end time: the run would seem to have lasted as long as this upload.
        client.update_run(run.info.run_id, status)


def _send_stage(client: MlflowClient, run: Run, body: Sequence[Event], root: Path) -> None:
    _send_params(client, run, merged(body, "params"))
    _send_metrics(client, run, points(body))
    _send_tags(client, run, merged(body, "tags"))
    _send_artifacts(client, run, merged(body, "artifacts"), root)
    for place, text in merged(body, "text").items():
        client.log_text(run.info.run_id, text, place)


def merged(body: Sequence[Event], kind: str) -> dict[str, Any]:
    """What the events of one kind hold together; the later stands above the earlier."""
    return {key: value for event in body if event.kind == kind for key, value in event.values.items()}


def points(body: Sequence[Event]) -> list[tuple[str, int, float]]:
    """(name, step, value) of each metric."""
    return [(name, e.step, value) for e in body if e.kind == "metrics" for name, value in e.values.items()]


def _send_params(client: MlflowClient, run: Run, values: dict[str, str]) -> None:
    _, Param, _ = entities(client)
    missing = [Param(key, value[:PARAM_CHARACTERS]) for key, value in values.items() if key not in run.data.params]
    for part in _parts(missing, PARAMS_A_BATCH):
        client.log_batch(run.info.run_id, params=part)


def _send_tags(client: MlflowClient, run: Run, values: dict[str, str]) -> None:
    _, _, RunTag = entities(client)
    missing = [RunTag(key, value[:TAG_CHARACTERS]) for key, value in values.items() if run.data.tags.get(key) != value]
    for part in _parts(missing, TAGS_A_BATCH):
        client.log_batch(run.info.run_id, tags=part)


def _send_metrics(client: MlflowClient, run: Run, points: Sequence[tuple[str, int, float]]) -> None:
    """Send the points that the run does not hold. A changed value is sent with a later time, so that it is the one shown."""
    Metric, _, _ = entities(client)
    held = _held(client, run, {name for name, _, _ in points})
    now = max([int(time.time() * 1000), *(metric.timestamp + 1 for metric in held.values())])
    missing = [
        Metric(metric_name(name), value, now, step)
        for name, step, value in points
        if not _same(held.get((metric_name(name), step)), value)
    ]
    for part in _parts(missing, METRICS_A_BATCH):
        client.log_batch(run.info.run_id, metrics=part)


def _held(client: MlflowClient, run: Run, names: set[str]) -> dict[tuple[str, int], Metric]:
    """(name, step) -> the latest point that the run holds."""
    known = {metric_name(name) for name in names} & run.data.metrics.keys()
    history = [metric for name in known for metric in client.get_metric_history(run.info.run_id, name)]
    return {(metric.key, metric.step): metric for metric in sorted(history, key=lambda metric: metric.timestamp)}


def _same(held: Metric | None, value: float) -> bool:
    if held is None:
        return False
    kept = max(-LARGEST, min(LARGEST, value))  # NaN stays NaN
    return held.value == kept or held.value == value or (math.isnan(held.value) and math.isnan(value))


@cache
def metric_name(name: str) -> str:
    """MLflow refuses names with other characters than these."""
    return "".join(c if c.isalnum() or c in "_-. " else "_" for c in name)[:250]


def _send_artifacts(client: MlflowClient, run: Run, files: dict[str, str], root: Path) -> None:
    for place, source in files.items():
        folder = str(Path(place).parent)
        with tempfile.TemporaryDirectory() as scratch:
            client.log_artifact(run.info.run_id, str(_clean(root / source, Path(scratch))), "" if folder == "." else folder)


def _clean(path: Path, scratch: Path) -> Path:
    """The file itself, or a copy without secrets."""
    if path.suffix not in CLEANED:
        return path
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        content = json.loads(text)
        clean = text if redacted(content) == content else json.dumps(redacted(content), indent=2)
    else:
        clean = redact(text)
    if clean == text:
        return path
    copy = scratch / path.name
    copy.write_text(clean, encoding="utf-8")
    return copy


def _send_figures(client: MlflowClient, run: Run, stage: str, places: Places) -> None:
    from pipelines.report import figures

    for name, png in figures(places, stages=(stage,)).items():
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / f"{name}.png"
            path.write_bytes(png)
            client.log_artifact(run.info.run_id, str(path), "figures")


def _parts(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
