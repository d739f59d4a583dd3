"""Which run a person means: by its id, the first characters of it, its name, or the folder of a launch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.tracking.redact import redact
from pipelines.tracking.store import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LEAST = 4  # characters of an id: fewer would name a run by chance
SHOWN = 5  # of several runs that a text may mean
LAUNCH = "deltarule.launch"
_UNQUOTABLE = re.compile(r"['\"\\%]")  # MLflow's filters know no escapes
_ID = re.compile(r"[0-9a-f]{4,32}")


class LookupFailed(TrackingError):
    """A text that names no run, or several."""

    exit_code = 2


def find(client: MlflowClient, experiment_id: str, text: str, project: Path | None = None) -> Run:
    """The one run that `text` means: an id, the folder of a launch, a name, or the first characters of an id, in that order.

    A folder is taken from here or from `project`; a trailing slash is no matter. An id may be of any experiment of the store,
    the rest is looked for in this one; deleted runs are passed over. Raises LookupFailed (exit code 2) with what else it may be.
    """
    text = text.strip()
    run = _of_id(client, text)
    if run is not None:
        return run
    for found in (
        _of_launch(client, experiment_id, text, project),
        _of_name(client, experiment_id, text),
        _of_prefix(client, experiment_id, text),
    ):
        if len(found) > 1:
            raise LookupFailed(f"{redact(text)} must name one run, and names {_told(found)}; give an id")
        if found:
            return found[0]
    raise LookupFailed(
        f"no run is on record under {redact(text)!r}: it must be the id of a run, at least {LEAST} of its first characters, its "
        "name, or the folder of a launch (runs/...); `deltarule ui` shows all runs, `deltarule sync` puts on record what waits"
    )


def _of_id(client: MlflowClient, text: str) -> Run | None:
    from mlflow.exceptions import MlflowException

    if len(text) != 32 or not _ID.fullmatch(text):
        return None
    try:
        run = client.get_run(text)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def _of_launch(client: MlflowClient, experiment_id: str, text: str, project: Path | None) -> list[Run]:
    """Launches are known by their folder below the project; of runs sent twice, all."""
    for folder in dict.fromkeys(_folders(text, project)):
        if found := _search(client, experiment_id, f"tags.`{LAUNCH}` = '{folder}'"):
            return found
    return []


def _folders(text: str, project: Path | None) -> list[str]:
    """What the tag of a launch in this folder may be."""
    plain = text.rstrip("/").removeprefix("./")
    if not plain or _UNQUOTABLE.search(plain):
        return []
    here = Path(plain).expanduser().resolve()
    below = [here.relative_to(root).as_posix() for root in ([project.resolve()] if project else []) if here.is_relative_to(root)]
    return [*below, plain, *([f"runs/{plain}"] if "/" not in plain else [])]


def _of_name(client: MlflowClient, experiment_id: str, text: str) -> list[Run]:
    if not text:
        return []
    pattern = _UNQUOTABLE.sub("_", text)
    like = "=" if pattern == text else "LIKE"
    found = _search(client, experiment_id, f"attributes.run_name {like} '{pattern}'", SHOWN + 1 if like == "=" else 1000)
    return [run for run in found if run.info.run_name == text]


def _of_prefix(client: MlflowClient, experiment_id: str, text: str) -> list[Run]:
    return _search(client, experiment_id, f"attributes.run_id LIKE '{text}%'") if _ID.fullmatch(text) else []


def _search(client: MlflowClient, experiment_id: str, wanted: str, most: int = SHOWN + 1) -> list[Run]:
    return list(client.search_runs([experiment_id], wanted, max_results=most, order_by=["attributes.start_time DESC"]))


def _told(found: Sequence[Run]) -> str:
    each = [f"{run.info.run_id} ({run.info.run_name}, {_when(run)})" for run in found[:SHOWN]]
    return f"{', '.join(each)}{' and more' if len(found) > SHOWN else ''}"


def _when(run: Run) -> str:
    return datetime.fromtimestamp(run.info.start_time / 1000).strftime("%Y-%m-%d %H:%M:%S")
