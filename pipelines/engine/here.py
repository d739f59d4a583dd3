"""The engine without processes: a job runs when it is submitted, in the thread that submits it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import redirect_stdout
from typing import Any

from pipelines.engine.base import Engine


class Here(Engine):
    """Jobs in this process, one after another. Exceptions travel unchanged; Ctrl-C interrupts `submit` itself."""

    name, workers = "here", 1

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._open = True

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` now, and return a future that is done."""
        if not self._open:
            raise RuntimeError("this engine was shut down")
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            with redirect_stdout(sys.stderr):
                result = fn(*args, **kwargs)
            future.set_result(result)
        except Exception as error:
            future.set_exception(error)
        return future

    def completed(self, fn: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Future[Any]]]:
        """Runs each job when it is asked for, so that the caller can write down one before the next begins."""
        for place, job in enumerate(jobs):
            yield place, self.submit(fn, *job)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, now: bool = False) -> None:
        """Take no more jobs."""
        self._open = False
