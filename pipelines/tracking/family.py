"""A parent run and its children, as a study and its trials are: each on record once, however often this is called.

The parent's own tags say which children are on record ("0-31,40"), so nothing is kept beside the store. In a database the
children of a batch and that tag are written in one transaction (see bulk.py); to a server child by child, after a tag
that says which were begun, so that whoever comes after a kill looks for those alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking import bulk, circumstances, uploader
from pipelines.tracking.bulk import Child
from pipelines.tracking.events import Event
from pipelines.tracking.redact import redact
from pipelines.tracking.store import answering, connect, locate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from pipelines.spec import Tracking

RECORDED, BEGUN = "deltarule.recorded.children", "deltarule.begun.children"
SHARED = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")  # a child has its parent's
A_BATCH = 32  # children: between two batches others can have the store, and the sender can be stopped
METRICS_A_CALL = 850  # with 100 params, below the 1000 things that MLflow takes in one call


@dataclass(frozen=True)
class Family:
    """What is to be on record: events of the parent, and of each child when it is asked for.

    The parent's first event is its creation: values name, source (the command), identity (tags by which it is found again).
    A child's: values name. A child has a creation, params, tags, metrics and an end, no artifacts.
    """

    parent: Sequence[Event]
    numbers: Sequence[int]
    child: Callable[[int], Sequence[Event]]
    root: Path  # what the parent's artifacts are relative to


def send_family(tracking: Tracking, project: Path, family: Family, stop: Callable[[], bool] = lambda: False) -> str | None:
    """Send what is not on record yet: children, then the parent's own. The parent's run id; None if tracking is off.

    When `stop` says so, it ends between two batches, and the next call goes on. Raises TrackingError if the store fails.
    """
    if not tracking.enabled:
        return None
    store = locate(tracking, project)
    with answering(store, f"{family.parent[0].values['name']!r} is not wholly on record"):
        with store.lock():
            client, experiment_id = connect(store)
            parent_id = str(_parent(client, experiment_id, family).info.run_id)
        while not stop():
            with store.lock():
                if not _send_batch(client, experiment_id, parent_id, family):
                    uploader.replay(client, client.get_run(parent_id), family.parent[1:], family.root)
                    break
    return parent_id


def _parent(client: MlflowClient, experiment_id: str, family: Family) -> Run:
    """The run of this identity, or a new one."""
    create = family.parent[0].values
    identity = create["identity"]
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        return uploader.given(client, run_id, identity, list(identity))
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
    found = client.search_runs([experiment_id], wanted, max_results=1, order_by=["attributes.start_time ASC"])
    if found:
        return found[0]
    tags = {**identity, **circumstances.take(family.root, create["source"])}
    return client.create_run(experiment_id, tags=tags, run_name=redact(create["name"]))


def _send_batch(client: MlflowClient, experiment_id: str, parent_id: str, family: Family) -> bool:
    """Send some of the children that are missing; False if none is."""
    tags = client.get_run(parent_id).data.tags
    recorded = _read(tags.get(RECORDED, ""))
    begun = [n for n in family.numbers if n in _read(tags.get(BEGUN, "")) - recorded]
    missing = [n for n in family.numbers if n not in recorded]
    batch = begun or missing[:A_BATCH]
    if not batch:
        return False
    shared = {key: tags[key] for key in SHARED if key in tags} | {bulk.PARENT: parent_id}
    children = {n: Child.of(family.child(n), shared, n) for n in batch}
    after = {RECORDED: _written(recorded | set(batch)), BEGUN: ""}
    store = None if begun else bulk.database(client)
    if store is not None:
        bulk.insert(store, experiment_id, parent_id, list(children.values()), after)
    else:
        _one_by_one(client, experiment_id, parent_id, children, bool(begun))
        _set_tags(client, parent_id, after)
    return True


def _one_by_one(client: MlflowClient, experiment_id: str, parent_id: str, children: dict[int, Child], begun: bool) -> None:
    if not begun:
        _set_tags(client, parent_id, {BEGUN: _written(children)})
    for child in children.values():
        run = _begun(client, experiment_id, parent_id, child) if begun else None
        if run is None:
            _create(client, experiment_id, child)
        elif run.info.status == "RUNNING":
            _complete(client, run, child)


def _begun(client: MlflowClient, experiment_id: str, parent_id: str, child: Child) -> Run | None:
    """The run of a child that was begun, if it came to that."""
    wanted = f"tags.`{bulk.PARENT}` = '{parent_id}' and tags.`{bulk.NUMBER}` = '{child.number}'"
    found = client.search_runs([experiment_id], wanted, max_results=1, order_by=["attributes.start_time ASC"])
    return found[0] if found else None


def _create(client: MlflowClient, experiment_id: str, child: Child) -> None:
    """A child that is not there: nothing has to be compared. Its status goes last, and says that it is complete."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    run_id = client.create_run(experiment_id, start_time=now, tags=dict(child.tags), run_name=child.name).info.run_id
    metrics = [Metric(name, value, now, step) for (name, step), value in child.points.items()]
    params = [Param(key, value) for key, value in child.params.items()]
    for some, others in zip_longest(_parts(metrics, METRICS_A_CALL), _parts(params, uploader.PARAMS_A_BATCH), fillvalue=()):
        client.log_batch(run_id, metrics=some, params=others)
    client.update_run(run_id, child.status)


def _complete(client: MlflowClient, run: Run, child: Child) -> None:
    """A child whose sender was killed: only what it does not hold is sent."""
    body = [Event("params", "child", dict(child.params))]
    body += [Event("metrics", "child", {name: value}, step) for (name, step), value in child.points.items()]
    uploader.replay(client, run, [*body, Event("mark", "child", {"outs": "all"}), Event("end", "end", {"status": child.status})])


def _set_tags(client: MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def _parts(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _written(numbers: Iterable[int]) -> str:
    """{0, 1, 2, 5} -> "0-2,5"."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _read(text: str) -> set[int]:
    spans = (span.partition("-") for span in text.split(",") if span)
    return {number for first, _, last in spans for number in range(int(first), int(last or first) + 1)}
