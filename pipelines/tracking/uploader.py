"""Sends events of a run to MLflow: each point once, however often it is called and wherever it was cut short."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.tracking import datasets, models
from pipelines.tracking.direct import LARGEST, entities
from pipelines.tracking.events import Event
from pipelines.tracking.redact import redact, without_secrets
from pipelines.tracking.store import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

    from pipelines.stages.paths import RunPaths

T = TypeVar("T")

# Limits of MLflow's API.
METRICS_A_BATCH, PARAMS_A_BATCH, TAGS_A_BATCH = 1000, 100, 100
PARAM_CHARACTERS, TAG_CHARACTERS = 6000, 5000
PAGE = "report.html"
DRAWN = ("train", "validate", "test")


def given(client: MlflowClient, run_id: str, identity: dict[str, str], keys: Sequence[str]) -> Run:
    """The run of MLFLOW_RUN_ID, unless it holds something else by these tags: MLflow can take neither params nor points back."""
    run = client.get_run(run_id)
    for key in keys:
        if run.data.tags.get(key, identity[key]) != identity[key]:
            raise TrackingError(f"MLFLOW_RUN_ID names run {run_id}, which holds another experiment ({key}); unset it")
    send_tags(client, run, identity)
    return run


def replay(client: MlflowClient, run: Run, record: Sequence[Event], root: Path = Path()) -> None:
    """Send the stages whose mark the run does not carry. A mark goes last: a stage cut short is sent again, and compared.

    Of each stage: its params, points, tags, artifacts (files below `root`) and texts. The last event is the end.
    """
    for stage, group in groupby(record[:-1], lambda event: event.stage):
        *body, mark = group
        tag = {f"deltarule.recorded.{stage}": mark.values["outs"]}
        if not tag.items() <= run.data.tags.items():
            send_stage(client, run, body, root)
            send_tags(client, run, tag)
    status = record[-1].values["status"]
    if run.info.status != status:
        # Not set_terminated, which notes an end time: the run would seem to have lasted as long as this upload.
        client.update_run(run.info.run_id, status)


class Held:
    """What a run held when it was first looked at, and was sent since: nobody else sends to it meanwhile."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self._client, self._run = client, run
        self.params = set(run.data.params)
        self._points: dict[tuple[str, int], Metric] = {}
        self._asked: set[str] = set()

    def points(self, names: Iterable[str]) -> dict[tuple[str, int], Metric]:
        """(name, step) -> the latest point, of these names at least."""
        known = ({metric_name(name) for name in names} & self._run.data.metrics.keys()) - self._asked
        history = [metric for name in known for metric in self._client.get_metric_history(self._run.info.run_id, name)]
        self._points |= {(metric.key, metric.step): metric for metric in sorted(history, key=lambda metric: metric.timestamp)}
        self._asked |= known
        return self._points


def send_stage(client: MlflowClient, run: Run, body: Sequence[Event], root: Path, held: Held | None = None) -> None:
    """Send what the run does not hold. To send it again does no harm: MLflow keeps equal points, of one time, once."""
    held = held or Held(client, run)
    _send_params(client, run, merged(body, "params"), held)
    _send_metrics(client, run, body, held)
    send_tags(client, run, merged(body, "tags"))
    _send_artifacts(client, run, merged(body, "artifacts"), root)
    for place, text in merged(body, "text").items():
        client.log_text(run.info.run_id, text, place)
    datasets.send(client, run, merged(body, "inputs"))
    models.send(client, run, merged(body, "model"), root)


def merged(body: Sequence[Event], kind: str) -> dict[str, Any]:
    """What the events of one kind hold together; the later stands above the earlier."""
    return {key: value for event in body if event.kind == kind for key, value in event.values.items()}


def points(body: Sequence[Event]) -> list[tuple[str, int, float]]:
    """(name, step, value) of each metric."""
    return [(name, e.step, value) for e in body if e.kind == "metrics" for name, value in e.values.items()]


def _send_params(client: MlflowClient, run: Run, values: dict[str, str], held: Held) -> None:
    _, Param, _ = entities(client)
    missing = [Param(key, value[:PARAM_CHARACTERS]) for key, value in values.items() if key not in held.params]
    for part in _parts(missing, PARAMS_A_BATCH):
        client.log_batch(run.info.run_id, params=part)
    held.params |= values.keys()


def send_tags(client: MlflowClient, run: Run, values: dict[str, str]) -> None:
    """Set the tags that the run did not have so when it was looked at."""
    _, _, RunTag = entities(client)
    missing = [RunTag(key, value[:TAG_CHARACTERS]) for key, value in values.items() if run.data.tags.get(key) != value]
    for part in _parts(missing, TAGS_A_BATCH):
        client.log_batch(run.info.run_id, tags=part)


def _send_metrics(client: MlflowClient, run: Run, body: Sequence[Event], held: Held) -> None:
    """Send the points that the run does not hold. A changed value is sent with a later time, so that it is the one shown."""
    Metric, _, _ = entities(client)
    told = held.points({name for name, _, _ in points(body)})
    now, missing = int(time.time() * 1000), []
    for event in (event for event in body if event.kind == "metrics"):
        for name, value in event.values.items():
            before = told.get((metric_name(name), event.step))
            if not _same(before, value):
                when = max(event.time or now, before.timestamp + 1 if before else 0)
                missing.append(Metric(metric_name(name), value, when, event.step))
    for part in _parts(missing, METRICS_A_BATCH):
        client.log_batch(run.info.run_id, metrics=part)


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
    clean = without_secrets(path)
    if clean is None:
        return path
    copy = scratch / path.name
    copy.write_text(clean, encoding="utf-8")
    return copy


def send_figures(client: MlflowClient, run: Run, stage: str, places: RunPaths, drawn: dict[str, bytes]) -> None:
    """Draw what the outs of a stage show, and send it, with the page of the run; `drawn` keeps the figures for the next stage.

    What cannot be drawn costs no record: the reason stands on the run, as the tag deltarule.not_drawn.
    """
    from pipelines.report import figures, run_page

    if stage not in DRAWN:
        return
    try:
        if not drawn:
            drawn |= figures(places.root, DRAWN[: DRAWN.index(stage)])  # sent by another process, and wanted in the page
        now = figures(places.root, (stage,))
        drawn |= now
        page = run_page(places.root, drawn)
    except Exception as error:
        client.set_tag(
            run.info.run_id, "deltarule.not_drawn", redact(f"{stage}: {type(error).__name__}: {error}")[:TAG_CHARACTERS]
        )
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name, png in now.items():
            (Path(scratch) / f"{name}.png").write_bytes(png)
        client.log_artifacts(run.info.run_id, scratch, "figures")
    client.log_text(run.info.run_id, page, PAGE)


def _parts(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
