"""Jobs in processes of this machine, each with a thread here that feeds it, and starts another when it dies.

Not ProcessPoolExecutor: one killed worker breaks its whole pool, with the jobs that ran well beside it.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from backends import children
from pipelines.engine import worker
from pipelines.engine.base import ATTEMPTS, Engine, EngineError, check_importable, told

SAID_AT_MOST = 2000  # last bytes of a dead process's standard error that an error quotes


@dataclass(frozen=True)
class Job:
    """What was submitted."""

    future: Future[Any]
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def settle(self, succeeded: bool, outcome: Any) -> None:
        """Hand the outcome to who waits for it."""
        self.future.set_result(outcome) if succeeded else self.future.set_exception(outcome)


class Process:
    """One worker process and its two pipes. What jobs print goes to a file that is read only if the process dies."""

    def __init__(self, environment: Mapping[str, str], warm: bytes | None) -> None:
        self.said = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - closed by end()
        try:
            self.process = self._started(environment)
        except OSError:
            self.said.close()
            raise
        assert self.process.stdin and self.process.stdout
        self.jobs, self.outcomes = self.process.stdin, self.process.stdout
        self.warming = warm is not None
        self.done = 0
        for message in filter(None, [pickle.dumps(sys.path), warm]):
            self._send(message)

    def _started(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            children.command(worker.__file__),
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            process_group=0 if os.name == "posix" else None,  # a terminal sends Ctrl-C to the driver's group alone
        )

    def carry_out(self, job: bytes) -> tuple[bool, Any]:
        """(True, result) or (False, error) of a job. Raises EOFError if the process died over it."""
        self._send(job)
        if self.warming:
            worker.receive(self.outcomes)  # of the warm-up; what went wrong there, the job will meet again
            self.warming = False
        outcome = worker.receive(self.outcomes)
        self.done += 1
        self.said.truncate(0)
        return pickle.loads(outcome)

    def _send(self, message: bytes) -> None:
        with suppress(OSError):  # it is gone: who receives next finds out
            worker.send(self.jobs, message)

    def end(self) -> str:
        """End the process, at once. How it ended, and the last that it said."""
        self.process.kill()  # does nothing to one that ended
        code = self.process.wait()
        self.said.seek(max(0, self.said.seek(0, os.SEEK_END) - SAID_AT_MOST))
        said = self.said.read().decode(errors="replace").strip()
        for file in (self.outcomes, self.said):
            file.close()
        with suppress(OSError):  # bytes that nobody has read
            self.jobs.close()
        ending = f"killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"ended with exit code {code}"
        return f"{ending}, {f'saying:{chr(10)}{said}' if said else 'saying nothing'}"


class Processes(Engine):
    """A pool of processes. A job whose process dies is given to a fresh one; no other job notices."""

    name = "processes"

    def __init__(
        self,
        workers: int,
        threads: int,
        environment: Mapping[str, str],
        jobs_per_worker: int | None = None,
        warm: Callable[[], object] | None = None,
    ) -> None:
        self.workers, self.threads = workers, threads
        self._environment, self._jobs_per_worker = dict(environment), jobs_per_worker
        self._warm = pickle.dumps((warm, (), {})) if warm else None
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running: set[Process] = set()
        self._open, self._ending = True, False
        # Daemons: a driver that forgets shutdown() still ends, and its processes with it.
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a job for the next free process."""
        check_importable(fn)
        job = Job(Future(), fn, args, kwargs)
        with self._lock:
            if not self._open:
                raise RuntimeError("this engine was shut down")
            self._waiting.put(job)
        return job.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, now: bool = False) -> None:
        """As in concurrent.futures; `now` also ends the jobs that are running, whose futures then raise EngineError."""
        with self._lock:
            self._open, self._ending = False, self._ending or now
            if cancel_futures or now:
                self._cancel_waiting()
            for _ in self._threads:
                self._waiting.put(None)
            for process in self._running if now else ():
                process.process.kill()
        for thread in self._threads if wait else ():
            thread.join()

    def _cancel_waiting(self) -> None:
        with suppress(queue.Empty):
            while True:
                if job := self._waiting.get_nowait():
                    job.future.cancel()

    # -- a thread and its process ------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Feed one process after another. The kernel ends a worker with the thread that started it, so this one stays."""
        process = None
        with suppress(OSError):  # the first job will tell
            process = self._start()
        while (job := self._waiting.get()) is not None:
            if job.future.set_running_or_notify_cancel():
                process = self._carry_out(job, process)
        self._end(process)

    def _carry_out(self, job: Job, process: Process | None) -> Process | None:
        try:
            message = pickle.dumps((job.fn, job.args, job.kwargs), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            job.settle(False, error)
            return process
        ending = ""
        for _ in range(ATTEMPTS):
            try:
                process = self._fresh(process)
            except OSError as error:
                job.settle(False, EngineError(f"no worker process could be started: {error}"))
                return None
            if process is None:
                break
            try:
                job.settle(*process.carry_out(message))
                return process
            except EOFError:
                ending, process = self._end(process), None
            except Exception as error:  # the result cannot be read here
                job.settle(False, error)
                return process
        job.settle(False, self._given_up(job, ending))
        return process

    def _given_up(self, job: Job, ending: str) -> EngineError:
        if self._ending:
            return EngineError(f"{told(job.fn, job.args)} was ended before it was done")
        what = told(job.fn, job.args)
        return EngineError(f"{what} must not end the process it runs in, but {ATTEMPTS} ended over it; the last was {ending}")

    def _fresh(self, process: Process | None) -> Process | None:
        """A process that can take a job: this one, unless it died since, or has had its number. None: the engine is ending."""
        worn_out = process and self._jobs_per_worker and process.done >= self._jobs_per_worker
        if process and not worn_out and process.process.poll() is None:
            return process
        self._end(process)
        return self._start()

    def _start(self) -> Process | None:
        with self._lock:
            if self._ending:
                return None
            process = Process(self._environment, self._warm)
            self._running.add(process)
            return process

    def _end(self, process: Process | None) -> str:
        if process is None:
            return ""
        with self._lock:
            self._running.discard(process)
        return process.end()
