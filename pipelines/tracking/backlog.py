"""The journals of a project: what goes on, and what waits for the store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.tracking.events import KIND, LAUNCH, killed
from pipelines.tracking.journal import LOG, Journal, State
from pipelines.tracking.provenance import KEPT
from pipelines.tracking.store import LookupFailed

_ABANDONED_SECONDS = 3600  # a folder without a first line
_KILLED_SECONDS = 3  # for the sender of a run that was killed, which notices within a second
SETTLE_SECONDS, _LOOK_SECONDS = 60.0, 0.05


@dataclass(frozen=True)
class Waiting:
    """A run that is not, or not wholly, on record."""

    log: str  # the folder below .deltarule/log
    run: str  # folder of the launch or of the study, or the name of the pipeline's run
    state: str  # running here, running on HOST, finished, failed, killed
    events: int
    sent: int
    since: int  # ms: when the oldest event that waits was written
    error: str  # of the last attempt to send it

    @property
    def waiting(self) -> int:
        """Events that are not sent."""
        return self.events - self.sent

    @property
    def is_study(self) -> bool:
        """Whether it is a study with its trials."""
        return self.run.startswith("studies/")

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "waiting": self.waiting}


def title(head: Mapping[str, Any]) -> str:
    """What a person calls a run: its folder, or the name of the pipeline's run."""
    identity = head["identity"]
    return str(f"studies/{head['name']}" if is_study(head) else identity.get(LAUNCH, head["name"]))


def is_study(head: Mapping[str, Any]) -> bool:
    """Whether a journal is of a study."""
    return bool(head["identity"].get(KIND) == "study")


def journals(project: Path) -> list[Journal]:
    """Those of a project, the oldest first."""
    found = []
    for folder in sorted((project / LOG).glob("*")):
        journal = Journal(folder)
        if journal.head():
            found.append(journal)
        elif folder.is_dir() and time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
            journal.remove()
    return found


def mark_killed(project: Path) -> None:
    """End as KILLED the runs of this host whose process is gone."""
    for journal in journals(project):
        if journal.state().dead:
            with journal.claim(_KILLED_SECONDS) as ours:
                if ours and (state := journal.state()).dead:
                    journal.mend()
                    journal.append(killed("the process was killed", state.last))


def settle(project: Path) -> None:
    """Return when no run that is over is being sent any more; not later than after a minute."""
    ends = time.monotonic() + SETTLE_SECONDS
    for journal in journals(project):
        while journal.over() and not journal.done() and journal.is_sent() and time.monotonic() < ends:
            time.sleep(_LOOK_SECONDS)


def waiting(project: Path) -> list[Waiting]:
    """The runs of a project that go on, or wait; the oldest first."""
    return [_of(journal) for journal in journals(project) if not journal.done() and journal.path.is_file()]


def drop(project: Path, text: str) -> Waiting:
    """Give up the one run of this name, folder or log that waits.

    Raises LookupFailed if there is none, or if it is going on.
    """
    found = [journal for journal in journals(project) if text in (_of(journal).run, journal.id, journal.head()["name"])]
    if len(found) != 1:
        rows = ", ".join(f"{one.run} ({one.log})" for one in waiting(project)) or "none"
        raise LookupFailed(f"--drop must name one run that waits, got {text!r}, which names {len(found)} of: {rows}")
    [journal] = found
    known = _of(journal)
    with journal.claim() as ours:
        if not ours or journal.state().running:
            raise LookupFailed(f"{known.run} is going on, and cannot be given up now")
        journal.remove()
        (project / known.run / KEPT / "tags.json").unlink(missing_ok=True)  # nor is it found to be lost
    return known


def _of(journal: Journal) -> Waiting:
    state, sent = journal.state(), journal.sent()
    oldest = next((event.time for event, _ in journal.after(sent.offset)), 0)
    return Waiting(journal.id, title(journal.head()), _words(state), state.events, sent.events, oldest, sent.error)


def _words(state: State) -> str:
    if state.running:
        return "running here" if state.here else f"running on {state.host}"
    return "killed" if state.dead else (state.status or "unknown").lower()
