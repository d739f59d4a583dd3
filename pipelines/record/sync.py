"""Puts runs on record that are over, or that waited; figures, page and model are made of the outs on the way."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.export import carry
from pipelines.project import project_of
from pipelines.record.events import carried, creation, events, outs_hash, source_name
from pipelines.redact import redact
from pipelines.report import figures, run_page
from pipelines.report.outs import REPORTS
from pipelines.spec import Experiment, Tracking
from pipelines.stages.files import read_json, write_json
from pipelines.stages.paths import RunPaths
from pipelines.tracking import provenance
from pipelines.tracking.backlog import journals, mark_killed, title
from pipelines.tracking.events import OUTS, TAG_CHARACTERS, Event
from pipelines.tracking.journal import LOG, Journal
from pipelines.tracking.sender import Sender
from pipelines.tracking.store import Refused, Store, TrackingError, answering, locate, store_of

CLAIM_SECONDS = 30  # for the sender of a run that is over, which may still be at work
TURN_SECONDS = 180  # for who sends this very run, and may itself wait for its turn at the store
_ATTEMPTS = 2  # at one store: a store that hangs costs 8 s each time
DRAWN = ("train", "validate", "test")
PAGE = "report.html"
NAME_SHOWN, ID_SHOWN = 50, 8  # characters: a figure is not broad
log = logging.getLogger(__name__)


def sync(
    places: RunPaths, experiment: Experiment, *, new_run: bool = False, name: str | None = None, journal: str | None = None
) -> str | None:
    """Put the run that the outs of `places` tell of on record; its MLflow run id, or None if tracking is off.

    What the outs tell is written into a journal first, the one that waits for this run or a new one. An experiment has one run,
    found again by its fingerprint and the hash of what train wrote; a launch (`new_run`) one of its own. Raises TrackingError
    if nothing was trained, or the store fails; the journal then waits.
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
    create = creation(record[0], places, experiment, new_run, name)
    return _put(project, store, [create, *record[1:]], root, journal)


def write_receipt(places: RunPaths, path: Path, on_record: bool) -> None:
    """What `sync` has put on record: a hash of the outs of each stage; none with tracking off.

    The out of the stage `record`.
    """
    folders = {"train": places.trained, **{stage: places.report(stage) for stage in REPORTS}} if on_record else {}
    write_json(path, {stage: outs_hash(folder) for stage, folder in folders.items() if folder.is_dir()})


def _put(project: Path, store: Store, record: Sequence[Event], root: Path, log: str | None) -> str | None:
    """Complete and send the journal that waits for this run, or a new one, called `log`."""
    for waiting in journals(project):
        if _is_of(waiting, record[0]):
            with waiting.claim(TURN_SECONDS) as ours:
                if ours:
                    waiting.mend()
                    waiting.add(record[1:], root)
                    return deliver(waiting, store)
            if waiting.path.is_file():
                raise TrackingError(f"another process is sending the run {title(waiting.head())!r}; try again when it is done")
    journal = Journal.create(project, record, root, name=log)
    with journal.claim(TURN_SECONDS) as ours:
        if ours:
            return deliver(journal, store)
    return _put(project, store, record, root, log)  # another process has taken it for its own


def _is_of(journal: Journal, create: Event) -> bool:
    """Whether it is of this run: of the same experiment, network and launch."""
    head = journal.head()
    wanted = {**create.values["identity"]}
    outs = wanted.pop(OUTS)
    known = {key: value for key, value in head.get("identity", {}).items() if key != OUTS}
    same = known == wanted and all(head.get(key) == create.values[key] for key in ("tracking", "given"))
    return same and (state := journal.state()).outs == outs and not state.running


# -- journals --


class RunSender:
    """A journal's sender, which adds what is made of the outs of each stage."""

    def __init__(self, journal: Journal, store: Store) -> None:
        if provenance.is_in_git(journal.path):
            raise Refused(
                f"git tracks the journal {journal.id}: somebody else's? look at {journal.folder}, and take it out of git "
                f"(git rm -r --cached {LOG}), or give it up: deltarule sync --drop {journal.id}"
            )
        self.sender = Sender(journal, store)
        self.places = RunPaths(journal.files)
        self._drawn: dict[str, bytes] = {}

    def send(self) -> str | None:
        """Send all that is there; the id of the run in MLflow. Raises TrackingError if the store fails."""
        for stage in self.sender.send():
            if stage in DRAWN and self.places.run.is_file():
                with tempfile.TemporaryDirectory() as scratch:
                    self.sender.put(list(self._pictures(stage, Path(scratch))), Path(scratch))
            if stage == self.sender.head.get("model_after", "train") and self.places.run.is_file():
                carry(self.places, self.sender.head.get("files", ()))
                self.sender.put(list(carried(self.places)), self.places.root)
        return self.sender.run_id

    def _pictures(self, stage: str, folder: Path) -> Iterator[Event]:
        """What the outs of a stage show, and the page."""
        root, run_id = self.places.root, self.sender.run_id or ""
        named = f"{self.sender.head['name'][:NAME_SHOWN]} ({run_id[:ID_SHOWN]})"
        try:
            if not self._drawn:  # those of earlier stages are wanted in the page
                self._drawn |= figures(root, DRAWN[: DRAWN.index(stage)], named)
            now = figures(root, (stage,), named)
            self._drawn |= now
            page = run_page(root, self._drawn, named=named)
        except Exception as error:
            why = redact(f"{stage}: {type(error).__name__}: {error}")[:TAG_CHARACTERS]
            yield Event("tags", stage, {"deltarule.not_drawn": why})
            return
        for name, png in now.items():
            (folder / f"{name}.png").write_bytes(png)
        yield Event("artifacts", stage, {f"figures/{name}.png": f"{name}.png" for name in now})
        yield Event("text", stage, {PAGE: page})


def deliver(journal: Journal, store: Store) -> str | None:
    """Send a journal that this process has claimed, and remove it if its run is over. Raises TrackingError."""
    sender = RunSender(journal, store)
    with answering(store, sender.sender.doing), store.turn():
        run_id = sender.send()
    journal.clear()
    return run_id


def send_waiting(
    project: Path, tracking: Tracking, seconds: float = CLAIM_SECONDS, here: bool = False
) -> Iterator[tuple[str, str | None]]:
    """Send the journals that wait: (folder of the launch or study, or name of the pipeline's run; id in MLflow) of each.

    Runs of this host whose process is gone end as KILLED first; who is sending one is waited for so many `seconds`; one that is
    still being sent then has no id. Raises TrackingError at the end if a store failed; it is not asked a third time.
    """
    mark_killed(project)
    failures: list[TrackingError] = []
    attempts = 0
    for journal in journals(project):
        if journal.state().running:
            continue
        with journal.claim(seconds) as ours:
            if ours and attempts < _ATTEMPTS:
                try:
                    run_id = deliver(journal, store_of(journal.head(), tracking, project, here))
                except TrackingError as error:
                    failures.append(error)
                    attempts += not isinstance(error, Refused)
                else:
                    yield title(journal.head()), run_id
        if not ours and journal.path.is_file():
            yield title(journal.head()), None
    if failures:
        rest = len(journals(project)) - 1
        told = f"; {rest} more may wait, see `deltarule sync --status`" if rest > 0 else ""
        given_up = "; a run whose store will not come back is given up by `deltarule sync --drop RUN`"
        raise TrackingError(f"{failures[0]}{told}{given_up}", failures[0].reason)
