"""The study's record in MLflow, kept while it runs: a thread of the driver sends what is new, and training never waits for it."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

from pipelines.spec import Experiment

PAUSE = 2.0  # seconds between two sendings: each costs some 50 ms beside its trials, and whoever looks sees no difference


class Recorder:
    """`wake` it when trials are over. `finish` sends the rest of a study that is over; leaving without it, of one that is not."""

    def __init__(self, folder: Path, project: Path, experiment: Experiment) -> None:
        self.folder, self.project = folder, project
        self.on = experiment.tracking.enabled
        self.run_id: str | None = None
        self.failure: Exception | None = None  # of the last sending; `deltarule sync` sends what is missing
        self._news, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._send_news, name="deltarule-recorder", daemon=True)

    def __enter__(self) -> Recorder:
        if self.on:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.on and not self._over.is_set():
            self._stop()
            self._send(interrupted=True)

    def wake(self) -> None:
        """There are trials to send."""
        self._news.set()

    def finish(self) -> None:
        """The study is over."""
        if self.on:
            self._stop()
            self._send(final=True)

    def _stop(self) -> None:
        """Wait for the batch that is being sent."""
        self._over.set()
        self._news.set()
        self._thread.join()

    def _send_news(self) -> None:
        while not self._over.is_set():
            self._news.wait()
            self._news.clear()
            if not self._over.is_set() and self.failure is None:
                self._send()
            self._over.wait(PAUSE)

    def _send(self, final: bool = False, interrupted: bool = False) -> None:
        from pipelines.search.record import send_study
        from pipelines.tracking import TrackingError

        stop = (lambda: False) if final or interrupted else (self._over.is_set)
        try:
            self.run_id = send_study(self.folder, project=self.project, final=final, interrupted=interrupted, stop=stop)
            self.failure = None
        except TrackingError as error:
            self.failure = error
        except FileNotFoundError:  # study.json is written when the first trials are over
            return
