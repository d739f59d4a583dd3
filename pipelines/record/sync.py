"""Puts a run on record that is over, from the outs of its stages."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipelines.project import project_of
from pipelines.record.events import creation, events, outs_hash, source_name
from pipelines.record.sending import CLAIM_SECONDS, deliver
from pipelines.report.outs import REPORTS
from pipelines.spec import Experiment
from pipelines.stages.files import read_json, write_json
from pipelines.stages.paths import RunPaths
from pipelines.tracking import provenance
from pipelines.tracking.backlog import journals, title
from pipelines.tracking.events import OUTS, Event
from pipelines.tracking.journal import Journal
from pipelines.tracking.store import TrackingError, locate

log = logging.getLogger(__name__)


def sync(
    places: RunPaths,
    experiment: Experiment,
    *,
    new_run: bool = False,
    tags: Mapping[str, str] | None = None,
    name: str | None = None,
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
    try:
        record = events(places, experiment)
    except FileNotFoundError as error:
        missing = Path(error.filename).relative_to(places.root).as_posix()
        raise TrackingError(f"there is no run to put on record in {root}: {missing} is missing; run `dvc repro` first") from None
    project = places.project or project_of(root)
    store = locate(experiment.tracking, project)  # before anything is written: it may be refused
    create = creation(record[0], places, experiment, new_run, name, tags or {})
    with _claimed(project, create, record, root) as journal:
        return deliver(journal, store)


def write_receipt(places: RunPaths, path: Path, on_record: bool) -> None:
    """What `sync` has put on record: a hash of the outs of each stage; none with tracking off. The out of the stage `record`."""
    folders = {"train": places.trained, **{stage: places.report(stage) for stage in REPORTS}} if on_record else {}
    write_json(path, {stage: outs_hash(folder) for stage, folder in folders.items() if folder.is_dir()})


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
