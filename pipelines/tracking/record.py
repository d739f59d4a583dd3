"""Puts runs on record that are over, or that waited: from the outs of the stages, or from the journals that are left."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.project import project_of
from pipelines.tracking import circumstances
from pipelines.tracking.events import Event, events
from pipelines.tracking.journal import OUTS, Journal, bury, journals
from pipelines.tracking.redact import HIDDEN, redact, redacted
from pipelines.tracking.sender import ORIGIN, Sender
from pipelines.tracking.store import Store, TrackingError, answering, locate

if TYPE_CHECKING:
    from pipelines.spec import Experiment, Tracking
    from pipelines.stages.paths import RunPaths

_CLAIM_SECONDS = 5
_ATTEMPTS = 2  # at one store: a run can be refused for a reason of its own, and a store that hangs costs 8 s each time
log = logging.getLogger(__name__)


def sync(
    places: RunPaths,
    experiment: Experiment,
    *,
    new_run: bool = False,
    tags: Mapping[str, str] | None = None,
    name: str | None = None,
    project: Path | None = None,
) -> str | None:
    """Put the run that the outs of `places` tell of on record; its MLflow run id, or None if tracking is off.

    What the outs tell is written into a journal first: into the one that waits for this run, if there is one, else into a
    new one. An experiment has one run, found again by its fingerprint and the hash of what train wrote; what is there is not
    sent again. `new_run` is for launches beside the pipeline: each makes a run of its own. Raises TrackingError if nothing
    was trained, or the store fails; the journal then waits.
    """
    if not experiment.tracking.enabled:
        log.info("tracking is off (tracking.enabled: false): nothing was put on record")
        return None
    root = places.root.resolve()
    if places.run.exists():
        mark = "" if new_run else json.loads(places.run.read_text(encoding="utf-8"))["fingerprint"]
        circumstances.keep(root, _source(new_run), mark)
    record = _events(places, experiment)
    project = project or places.project or project_of(root)
    store = locate(experiment.tracking, project)  # before anything is written: it may be refused
    create = creation(record[0], root, project, experiment, new_run=new_run, tags=tags, name=name)
    with _claimed(project, create, record, root) as journal:
        return deliver(journal, store, replace(places, root=journal.files))


def creation(
    first: Event,
    root: Path,
    project: Path,
    experiment: Experiment,
    *,
    new_run: bool,
    tags: Mapping[str, str] | None = None,
    name: str | None = None,
) -> Event:
    """The first event of a journal: what the run is found by, its first tags, and which store it is for."""
    values = {
        "name": redact(name or first.values["name"]),
        "identity": _identity(first, root, project, new_run),
        "tags": {**_begun(root, new_run), **redacted(dict(tags or {}))},
        "tracking": {"uri": redact(experiment.tracking.uri or "") or None, "experiment": experiment.tracking.experiment},
        "files": list(experiment.tracking.files),
        "given": os.environ.get("MLFLOW_RUN_ID"),
    }
    return replace(first, values=values)


def _source(new_run: bool) -> str:
    return "deltarule run" if new_run else "dvc.yaml"


def _begun(root: Path, new_run: bool) -> dict[str, str]:
    """How the run was begun; taken now, where that was not kept."""
    return circumstances.kept(root)[0] or circumstances.take(root, _source(new_run))


@contextmanager
def _claimed(project: Path, create: Event, record: Sequence[Event], root: Path) -> Iterator[Journal]:
    """The journal that waits for this run, completed, or a new one; nobody else sends it meanwhile."""
    with ExitStack() as claims:
        while True:
            for waiting in journals(project):
                if _is_of(waiting, create) and claims.enter_context(waiting.claim()):
                    waiting.mend()
                    waiting.add(record[1:], root)
                    yield waiting
                    return
            journal = Journal.create(project, [create, *record[1:]], root)
            if claims.enter_context(journal.claim(_CLAIM_SECONDS)):
                yield journal
                return
            # Another process has taken it for its own, and sent it: then what is on record is found there.


def _is_of(journal: Journal, create: Event) -> bool:
    """Whether it is of this run: of the same experiment, network and launch."""
    head = journal.head() or {}
    wanted = {**create.values["identity"]}
    outs = wanted.pop(OUTS)
    known = {key: value for key, value in head.get("identity", {}).items() if key != OUTS}
    same = known == wanted and all(head.get(key) == create.values[key] for key in ("tracking", "given"))
    return same and (state := journal.state()).outs == outs and not state.running


def deliver(journal: Journal, store: Store, places: RunPaths) -> str | None:
    """Send a journal that this process has claimed, and remove it if its run is over. Raises TrackingError; it then waits."""
    sender = Sender(journal, store, places)
    with answering(store, sender.doing), store.turn():
        sender.send()
    journal.clear()
    return sender.run_id


def _events(places: RunPaths, experiment: Experiment) -> list[Event]:
    try:
        return events(places, experiment)
    except FileNotFoundError as error:
        missing = Path(error.filename).relative_to(places.root).as_posix()
        raise TrackingError(
            f"there is no run to put on record in {places.root.resolve()}: {missing} is missing; run `dvc repro` first"
        ) from None


def _identity(create: Event, root: Path, project: Path, new_run: bool) -> dict[str, str]:
    """The tags by which a run is found again; without outs, as long as it trains."""
    found = {"deltarule.fingerprint": create.values["fingerprint"]}
    if "outs" in create.values:
        found[OUTS] = create.values["outs"]
    if not new_run:
        return {**found, ORIGIN: "pipeline"}
    where = root.relative_to(project).as_posix() if root.is_relative_to(project) else root.name
    return {**found, ORIGIN: "launch", "deltarule.launch": where}


# -- what waits -----------------------------------------------------------------------------------------------------------


def send_waiting(project: Path, tracking: Tracking, places_of: Callable[[Path], RunPaths]) -> Iterator[tuple[str, str | None]]:
    """Send the journals that wait: (folder of the launch, or name of the pipeline's run; id in MLflow) of each.

    Runs of this host whose process is gone end as KILLED first. `places_of` gives the outs below a folder. Raises
    TrackingError at the end if a store failed; it is not asked a third time.
    """
    bury(project)
    failures: dict[str, list[TrackingError]] = {}
    for journal in journals(project):
        head = journal.head() or {}
        with journal.claim() as ours:
            if not ours or journal.state().running:
                continue
            failed = failures.setdefault(str(head["tracking"]), [])
            if len(failed) < _ATTEMPTS:
                try:
                    run_id = deliver(journal, store_of(journal, project, tracking), places_of(journal.files))
                except TrackingError as error:
                    failed.append(error)
                else:
                    yield head["identity"].get("deltarule.launch", head["name"]), run_id
    errors = [error for failed in failures.values() for error in failed]
    if errors:
        rest = len(journals(project)) - 1
        told = f"; {rest} more may wait, see `deltarule sync --status`" if rest > 0 else ""
        given_up = "; a run whose store will not come back is given up by `deltarule sync --drop RUN`"
        raise TrackingError(f"{errors[0]}{told}{given_up}", errors[0].reason)


def store_of(journal: Journal, project: Path, tracking: Tracking) -> Store:
    """The store that a run was begun for; `tracking`, if it is of the same, has the password that a journal does not keep."""
    kept = (journal.head() or {})["tracking"]
    uri = kept["uri"]
    if uri and HIDDEN in uri and not os.environ.get("MLFLOW_TRACKING_URI"):
        if redact(tracking.uri or "") != uri:
            raise TrackingError(
                f"the run {(journal.head() or {})['name']!r} waits for the store {uri}, whose password is not kept; set "
                "MLFLOW_TRACKING_URI, or tracking.uri of the spec, to the whole address"
            )
        uri = tracking.uri
    return locate(tracking.model_copy(update={"uri": uri, "experiment": kept["experiment"]}), project)
