"""The process that sends a journal while it grows, as the process that writes the journal sees it.

MLflow follows the run within seconds, and the run does not wait: a store that is absent, hangs or is locked holds up the sender
alone. It says until when it will be heard of next (`Journal.beat`); a run, at its end, waits no longer than that, and what is
not sent then is sent after the command has answered.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time

from backends import children
from pipelines.redact import redact
from pipelines.spec import Tracking
from pipelines.tracking.journal import Journal

MODULE = "pipelines.record"
START_SECONDS = 120.0  # until it is first heard of: it imports MLflow
# Training goes first. With 10 the sender starves on a busy machine, and a run waits for it at its end; a search does not.
RUN_NICE, STUDY_NICE = 4, 19
_LOOK_SECONDS = 0.02
_left: list[subprocess.Popen[bytes]] = []  # senders that go on after their run


class Uploader:
    """Starts the sender: it imports MLflow, which takes seconds, while the run reads its data."""

    def __init__(self, tracking: Tracking, nice: int = RUN_NICE) -> None:
        self.journal: Journal | None = None
        self._tracking = tracking
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            children.command("-m", MODULE, str(os.getpid()), str(nice)),
            env=children.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            process_group=0,  # Ctrl-C is for the run: it says then how it ended
        )

    def begin(self, journal: Journal) -> None:
        """This is what it is to send. The address of the store goes with it: a journal keeps no password."""
        self.journal = journal
        journal.beat(START_SECONDS)
        self._tell({"journal": str(journal.folder), "tracking": self._tracking.model_dump(mode="json")})

    def _tell(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.close()
        except BrokenPipeError:  # it has ended: `complaint` says why
            pass

    def close(self, patience: float, leave: bool = True) -> str:
        """Wait until all is sent, or it is past its time, or `patience` in s is over. With `leave` it goes on after that.

        Returns the last line that it said, if it ended by a mistake of its own.
        """
        if self.journal is None:
            self._tell({})  # it ends
        ends = time.monotonic() + patience
        while self.journal and not self.journal.done() and self._process.poll() is None:
            if time.monotonic() > min(ends, self.journal.next_beat() or 0):
                break
            time.sleep(_LOOK_SECONDS)
        if not leave:
            self._process.kill()  # at any point: what it sent and did not note is sent again, and kept once
            self._process.wait()
            if self.journal and self.journal.folder.is_dir():
                self.journal.beat(0)
        over = self._process.poll() is not None
        with self._said as said:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
        _left[:] = [process for process in (*_left, self._process) if process.poll() is None]
        return redact(lines[-1]) if over and lines else ""
