"""Puts runs on record that are over, or that waited; figures, page and model are made of the outs on the way."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.export import carry
from pipelines.project import project_of
from pipelines.record.events import carried, creation, events, outs_hash, source_name
from pipelines.redact import redact
from pipelines.report import figures, run_page
from pipelines.report.outs import REPORTS, Outs
from pipelines.spec import Experiment, Tracking
from pipelines.stages.files import read_json, write_json
from pipelines.stages.paths import RunPaths
from pipelines.tracking import provenance
from pipelines.tracking.events import OUTS, TAG_CHARACTERS, Event
from pipelines.tracking.journal import Journal, journals, mark_killed
from pipelines.tracking.sender import Sender
from pipelines.tracking.store import Refused, Store, TrackingError, answering, locate, store_of

CLAIM_SECONDS = 30  # for the sender of a run that is over, which may still be at work
TURN_SECONDS = 180  # for who sends this very run, and may itself wait for its turn at the store
_ATTEMPTS = 2  # at one store: a store that hangs costs 8 s each time
PAGE = "report.html"
NAME_SHOWN, ID_SHOWN = 50, 8  # characters: a figure is not broad


def sync(
    places: RunPaths, experiment: Experiment, *, new_run: bool = False, name: str | None = None, journal: str | None = None
) -> str | None:
    """Put the run that the outs of `places` tell of on record; its MLflow run id, or None if tracking is off.

    What the outs tell is written into a journal first, the one that waits for this run or a new one. An experiment has one run,
    found again by its fingerprint and the hash of what train wrote; a launch (`new_run`) one of its own. Raises TrackingError
    if nothing was trained, or the store fails; the journal then waits.
    """
    if not experiment.tracking.enabled:
        logging.getLogger(__name__).info("tracking is off (tracking.enabled: false): nothing was put on record")
        return None
    root = places.root.resolve()
    try:
        run = read_json(places.run)
        provenance.keep(root, source_name(new_run), "" if new_run else run["fingerprint"])
        record = events(places, experiment)
    except FileNotFoundError as error:
        missing = Path(error.filename).relative_to(places.root).as_posix()
        raise TrackingError(f"there is no run to put on record in {root}: {missing} is missing; run `dvc repro` first") from None
    project = places.project or project_of(root)
    store = locate(experiment.tracking, project)  # before anything is written: it may be refused
    create = creation(places, experiment, run["fingerprint"], new_run, name, run)
    return _put(project, store, [create, *record], root, journal)


def write_receipt(places: RunPaths, path: Path, on_record: bool) -> None:
    """What `sync` has put on record: a hash of the outs of each stage; none with tracking off.

    The out of the stage `record`.
    """
    folders = {"train": places.trained, **{stage: places.report(stage) for stage in REPORTS}} if on_record else {}
    write_json(path, {stage: outs_hash(folder) for stage, folder in folders.items() if folder.is_dir()})


def _put(project: Path, store: Store, record: Sequence[Event], root: Path, log: str | None) -> str | None:
    """Complete and send the journal that waits for this run, or a new one, called `log`."""
    waiting = [journal for journal in journals(project) if _is_of(journal, record[0])]
    journal = waiting[0] if waiting else Journal.create(project, record, root, name=log)
    with journal.claim(TURN_SECONDS) as ours:
        if ours:
            journal.mend()
            journal.add(record[1:], root)
            return deliver(journal, store)
    if waiting and journal.path.is_file():
        raise TrackingError(f"another process is sending the run {journal.title!r}; try again when it is done")
    return _put(project, store, record, root, log)  # another process has taken it for its own, or removed it


def _is_of(journal: Journal, create: Event) -> bool:
    """Whether it is of this run: of the same experiment, network and launch."""
    head, state = journal.head(), journal.state()
    same = all(head.get(key) == create.values[key] for key in ("tracking", "given"))
    return same and not state.running and {**head["identity"], OUTS: state.outs} == create.values["identity"]


# -- journals --


class RunSender(Sender):
    """A journal's sender, which adds figures, page and model."""

    def made(self, stage: str) -> Iterator[list[Event]]:
        """Figures and page, with the last stage that is there; the model, once it is known how it decides."""
        places = RunPaths(self.journal.files)
        if not places.run.is_file():
            return
        yield from self._pictures(stage)
        if stage == self.head.get("model_after", "train"):
            carry(places, self.head.get("files", ()))
            yield list(carried(places))

    def _pictures(self, stage: str) -> Iterator[list[Event]]:
        """What the outs show, and the page."""
        root = self.journal.files
        named = f"{self.head['name'][:NAME_SHOWN]} ({(self.sent.run_id or '')[:ID_SHOWN]})"
        try:
            if stage != ["train", *Outs(root).reports][-1]:
                return
            drawn = figures(root, named=named)
            page = run_page(root, drawn, named=named)
        except Exception as error:
            why = redact(f"{stage}: {type(error).__name__}: {error}")[:TAG_CHARACTERS]
            yield [Event("tags", stage, {"deltarule.not_drawn": why})]
        else:
            shown = {f"figures/{name}.png": png for name, png in drawn.items()}
            yield [Event("text", stage, {PAGE: page, **shown})]


def deliver(journal: Journal, store: Store) -> str | None:
    """Send a journal that this process has claimed, and remove it if its run is over. Raises TrackingError."""
    sender = RunSender(journal, store)
    with answering(store, sender.doing), store.lock(turn=True):
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
                    yield journal.title, run_id
        if not ours and journal.path.is_file():
            yield journal.title, None
    if failures:
        rest = len(journals(project)) - 1
        told = f"; {rest} more may wait, see `deltarule sync --status`" if rest > 0 else ""
        given_up = "; a run whose store will not come back is given up by `deltarule sync --drop RUN`"
        raise TrackingError(f"{failures[0]}{told}{given_up}", failures[0].reason)
