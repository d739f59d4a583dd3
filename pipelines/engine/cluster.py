"""Jobs on a Ray cluster that exists already: a client of it, never its starter. A node that dies loses no job.

Every node needs the same Python, Ray and frameworks; the code of `backends` and `pipelines` travels with the jobs (runtime_env
py_modules), so the nodes need not have it.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import backends
import pipelines
from pipelines.engine import worker
from pipelines.engine.base import ATTEMPTS, Engine, EngineError, check_importable, told

ANSWER_SECONDS = 20
# In a process of its own: where nothing answers, ray.init tries for two minutes, and then ends the process that called it.
PROBE = "import logging, sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)"


class Cluster(Engine):
    """As many jobs at a time as `workers`; "auto" is one for every `threads` processors that the cluster has at opening.

    Ray repeats a job whose process or node died. One that has ended is not repeated: its result is fetched at once, and a
    node that dies later takes nothing along.
    """

    def __init__(
        self,
        name: str,
        workers: int | Literal["auto"],
        threads: int,
        environment: Mapping[str, str],
        jobs_per_worker: int | None = None,
        warm: Callable[[], object] | None = None,
    ) -> None:
        self.name, self.threads = name, threads
        self._ray = _connect(name, environment)
        processors = int(self._ray.cluster_resources().get("CPU", 1))
        self.workers = max(1, processors // threads) if workers == "auto" else workers
        options = {"num_cpus": threads, "max_retries": ATTEMPTS - 1, "max_calls": jobs_per_worker or 0}
        self._remote = self._ray.remote(**options)(worker.carried_out)
        self._waiting: deque[tuple[Future[Any], str, bytes]] = deque()
        self._running: dict[Future[Any], Any] = {}
        self._lock = threading.RLock()  # Ray may call back in the thread that submits
        self._idle = threading.Condition(self._lock)
        self._open = True
        for _ in range(self.workers if warm else 0):
            self._remote.remote(pickle.dumps((warm, (), {})))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a job for the cluster."""
        check_importable(fn)
        job = pickle.dumps((fn, args, kwargs), pickle.HIGHEST_PROTOCOL)
        future: Future[Any] = Future()
        with self._lock:
            if not self._open:
                raise RuntimeError("this engine was shut down")
            self._waiting.append((future, told(fn, args), job))
            self._send_some()
        return future

    def _send_some(self) -> None:
        """No more than can run: what is sent lies in the cluster's memory. Call it with the lock held."""
        while self._waiting and len(self._running) < self.workers:
            future, what, job = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                self._running[future] = sent = self._remote.remote(job)
                sent.future().add_done_callback(lambda done, future=future, what=what: self._came(future, what, done))

    def _came(self, future: Future[Any], what: str, done: Future[bytes]) -> None:
        with self._lock:
            ours = self._running.pop(future, None) is not None
            if self._open or self._waiting:
                self._send_some()
            self._idle.notify_all()
        if not ours:  # shut down meanwhile
            return
        try:
            succeeded, outcome = pickle.loads(done.result())
        except Exception as error:
            reason = " ".join(str(error).split())[:500] or type(error).__name__
            succeeded, outcome = (
                False,
                EngineError(f"{what} was lost on {self.name}, after {ATTEMPTS} attempts at most: {reason}"),
            )
        future.set_result(outcome) if succeeded else future.set_exception(outcome)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, now: bool = False) -> None:
        """As in concurrent.futures; `now` also ends the jobs that are running, whose futures then raise EngineError.

        The connection is closed once nothing runs; Ray ends what a driver has left behind.
        """
        with self._lock:
            self._open = False
            while self._waiting and (cancel_futures or now):
                self._waiting.popleft()[0].cancel()
            ended = dict(self._running) if now else {}
            for future in ended:
                del self._running[future]
            while wait and (self._running or self._waiting):
                self._idle.wait()
        for future, sent in ended.items():
            self._ray.cancel(sent, force=True)
            future.set_exception(EngineError("a job was ended before it was done"))
        if not self._running and not self._waiting and self._ray.is_initialized():
            self._ray.shutdown()


# -- connecting ----------------------------------------------------------------------------------------------------------


def _connect(name: str, environment: Mapping[str, str]) -> Any:
    """The module ray, connected."""
    if importlib.util.find_spec("ray") is None:
        raise EngineError(
            f"engine {name!r} needs Ray, which is not installed; install it with: pip install 'deltarule[ray]', or set "
            "search.engine: processes",
            exit_code=2,
        )
    address = name.removeprefix("ray:")
    _check_answers(name, address)
    with _own_signals():
        import ray

        if ray.is_initialized():
            raise EngineError("this process is connected to a Ray cluster already; call ray.shutdown() first", exit_code=2)
        code = [str(Path(package.__path__[0])) for package in (backends, pipelines)]
        settings = {"env_vars": dict(environment), "py_modules": code, "excludes": ["**/__pycache__"]}
        ray.init(address=address, runtime_env=settings, log_to_driver=False, logging_level=logging.ERROR)
    return ray


def _check_answers(name: str, address: str) -> None:
    reason = _refused(address) or _unanswered(address)
    if reason:
        raise EngineError(
            f"no Ray cluster answers at {name!r} ({reason}); start one with `ray start --head` and name its address in "
            "search.engine, or set search.engine: processes",
            exit_code=2,
        )


def _refused(address: str) -> str:
    """Why nobody listens there; empty if somebody does, or Ray itself is to find the address."""
    if address == "auto":
        return ""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS / 4).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return ""


def _unanswered(address: str) -> str:
    """Why Ray does not answer there; empty if it does."""
    command = [sys.executable, "-P", "-c", PROBE, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, env={**os.environ, **_QUIET})
    except subprocess.TimeoutExpired:
        return f"no answer within {ANSWER_SECONDS} s"
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1] if done.returncode else ""


_QUIET = {"PYTHONWARNINGS": "ignore", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray answers SIGTERM its own way from init on; the driver's way is put back."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
