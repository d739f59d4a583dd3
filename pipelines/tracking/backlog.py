"""What waits for the store, read from the journals alone: neither MLflow nor the store is asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.tracking.journal import Journal, State, journals
from pipelines.tracking.lookup import LookupFailed


@dataclass(frozen=True)
class Waiting:
    """A run that is not, or not wholly, on record."""

    log: str  # the folder below .deltarule/log
    run: str  # folder of the launch, or the name of the pipeline's run
    state: str  # running here, running on HOST, finished, failed, killed
    events: int
    sent: int
    since: int  # ms: when the oldest event that waits was written
    error: str  # of the last attempt to send it

    @property
    def waiting(self) -> int:
        """Events that are not sent."""
        return self.events - self.sent

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "waiting": self.waiting}


def waiting(project: Path) -> list[Waiting]:
    """The runs of a project that go on, or wait; the oldest first."""
    return [_of(journal) for journal in journals(project)]


def drop(project: Path, text: str) -> Waiting:
    """Give up the one run of this name, folder or log that waits. Raises LookupFailed if there is none, or if it is going on."""
    found = [journal for journal in journals(project) if text in (_of(journal).run, journal.id, (journal.head() or {})["name"])]
    if len(found) != 1:
        rows = ", ".join(f"{one.run} ({one.log})" for one in waiting(project)) or "none"
        raise LookupFailed(f"--drop must name one run that waits, got {text!r}, which names {len(found)} of: {rows}")
    [journal] = found
    known = _of(journal)
    with journal.claim() as ours:
        if not ours or journal.state().running:
            raise LookupFailed(f"{known.run} is going on, and cannot be given up now")
        journal.remove()
    return known


def _of(journal: Journal) -> Waiting:
    head, state, sent = journal.head() or {}, journal.state(), journal.sent()
    oldest = next((event.time for event, _ in journal.after(sent.offset)), 0)
    run = head["identity"].get("deltarule.launch", head["name"])
    return Waiting(journal.id, run, _words(state), state.events, sent.events, oldest, sent.error)


def _words(state: State) -> str:
    if state.running and state.process is not None:
        return "running here" if state.process.here else f"running on {state.process.host}"
    return "killed" if state.dead else (state.status or "unknown").lower()
