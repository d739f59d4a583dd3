"""Puts runs on record that are over, or that waited: from the outs of the stages, or from the journals that are left."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipelines.project import project_of
from pipelines.record.creation import creation, source_name
from pipelines.record.events import events, outs_hash
from pipelines.record.sending import RunSender
from pipelines.report.outs import REPORTS
from pipelines.spec import Experiment, Tracking
from pipelines.stages.files import read_json, write_json
from pipelines.stages.paths import RunPaths
from pipelines.tracking import provenance
from pipelines.tracking.backlog import journals, mark_killed, title
from pipelines.tracking.events import OUTS, Event
from pipelines.tracking.journal import Journal
from pipelines.tracking.store import Refused, Store, TrackingError, answering, locate, store_of

CLAIM_SECONDS = 30  # for the sender of a run that is over, which may still be at work
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
        mark = "" if new_run else read_json(places.run)["fingerprint"]
        provenance.keep(root, source_name(new_run), mark)
    record = _events(places, experiment)
    project = project or places.project or project_of(root)
    store = locate(experiment.tracking, project)  # before anything is written: it may be refused
    create = creation(record[0], root, project, experiment, new_run=new_run, tags=tags, name=name)
    with _claimed(project, create, record, root) as journal:
        return deliver(journal, store)


def write_receipt(places: RunPaths, path: Path) -> None:
    """What `sync` has put on record: a hash of the outs of each stage. The stage `record` has it for its out."""
    folders = {"train": places.trained, **{stage: places.report(stage) for stage in REPORTS}}
    hashes = {stage: outs_hash(folder) for stage, folder in folders.items() if folder.is_dir()}
    write_json(path, hashes)


@contextmanager
def _claimed(project: Path, create: Event, record: Sequence[Event], root: Path) -> Iterator[Journal]:
    """The journal that waits for this run, completed, or a new one; nobody else sends it meanwhile."""
    with ExitStack() as claims:
        while True:
            for waiting in journals(project):
                if not _is_of(waiting, create):
                    continue
                if claims.enter_context(waiting.claim(CLAIM_SECONDS)):
                    waiting.mend()
                    waiting.add(record[1:], root)
                    yield waiting
                    return
                if waiting.path.is_file():
                    raise TrackingError(
                        f"another process is sending the run {title(waiting.head())!r}; try again when it is done"
                    )
            journal = Journal.create(project, [create, *record[1:]], root)
            if claims.enter_context(journal.claim(CLAIM_SECONDS)):
                yield journal
                return
            # Another process has taken it for its own, and sent it: then what is on record is found there.


def _is_of(journal: Journal, create: Event) -> bool:
    """Whether it is of this run: of the same experiment, network and launch."""
    head = journal.head()
    wanted = {**create.values["identity"]}
    outs = wanted.pop(OUTS)
    known = {key: value for key, value in head.get("identity", {}).items() if key != OUTS}
    same = known == wanted and all(head.get(key) == create.values[key] for key in ("tracking", "given"))
    return same and (state := journal.state()).outs == outs and not state.running


def deliver(journal: Journal, store: Store) -> str | None:
    """Send a journal that this process has claimed, and remove it if its run is over. Raises TrackingError; it then waits."""
    sender = RunSender(journal, store)
    with answering(store, sender.sender.doing), store.turn():
        run_id = sender.send()
    journal.clear()
    return run_id


def _events(places: RunPaths, experiment: Experiment) -> list[Event]:
    try:
        return events(places, experiment)
    except FileNotFoundError as error:
        missing = Path(error.filename).relative_to(places.root).as_posix()
        raise TrackingError(
            f"there is no run to put on record in {places.root.resolve()}: {missing} is missing; run `dvc repro` first"
        ) from None


def send_waiting(project: Path, tracking: Tracking) -> Iterator[tuple[str, str | None]]:
    """Send the journals that wait: (folder of the launch or study, or name of the pipeline's run; id in MLflow) of each.

    Runs of this host whose process is gone end as KILLED first. Raises TrackingError at the end if a store failed; it is not
    asked a third time.
    """
    mark_killed(project)
    failures: list[TrackingError] = []
    attempts = 0
    for journal in journals(project):
        if journal.state().running:
            continue
        known = title(journal.head())
        with journal.claim(CLAIM_SECONDS) as ours:
            if ours and attempts < _ATTEMPTS:
                try:
                    run_id = deliver(journal, store_of(journal.head(), tracking, project))
                except TrackingError as error:
                    failures.append(error)
                    attempts += not isinstance(error, Refused)
                else:
                    yield known, run_id
    if failures:
        rest = len(journals(project)) - 1
        told = f"; {rest} more may wait, see `deltarule sync --status`" if rest > 0 else ""
        given_up = "; a run whose store will not come back is given up by `deltarule sync --drop RUN`"
        raise TrackingError(f"{failures[0]}{told}{given_up}", failures[0].reason)
