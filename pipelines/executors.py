"""Where the jobs of a search run: in this process, in processes of this machine, or on a Ray cluster that exists already.

A job is a call of an importable function with arguments that can be pickled. Where it runs must not matter to its result, so
one whose process or node died is carried out again. Every process computes in one thread.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import logging
import multiprocessing
import os
import pickle
import reprlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, redirect_stdout, suppress
from itertools import islice
from multiprocessing import forkserver
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import backends
import pipelines
from backends import children

NAMES = "auto, here, processes, ray:auto or ray:HOST:PORT (of a cluster that this machine is a node of)"
# Multiply-adds below which a second process costs more than it brings: importing a framework takes a core 3 to 7 s, in
# which small stacks of networks do about 10^10 a second.
WORTH_PROCESSES = 5 * 10**10
ATTEMPTS = 3  # times that processes may die over the same jobs
JOBS_A_PROCESS = 100  # TensorFlow keeps some 6 MB of every new structure
SAID_AT_MOST = 2000  # last bytes of what dead processes said that an error quotes
ANSWER_SECONDS = 20  # of a Ray cluster
# Whoever computes reads one of these once, when it is imported: OpenMP, the BLAS of NumPy, TensorFlow, XLA.
LIMITS = "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS TF_NUM_INTRAOP_THREADS TF_NUM_INTEROP_THREADS PJRT_NPROC"
THREAD_LIMITS = dict.fromkeys(LIMITS.split(), "1")


class ExecutorError(RuntimeError):
    """A job could not be carried out for a reason that is not its own."""

    exit_code = 1


class UnusableEngine(ExecutorError):
    """An executor that could not be opened."""

    exit_code = 2


class Executor(AbstractContextManager["Executor"]):
    """Carries out jobs, `workers` at a time.

    As a context manager it ends what still runs when it is left by an exception.
    """

    name: str
    workers: int

    def run(self, fn: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """(place in `jobs`, result) of each `fn(*job)`, as they come.

        Raises what a job raises; ExecutorError for a lost job.
        """
        raise NotImplementedError

    def close(self, now: bool = False) -> None:
        """Release the workers; `now` ends the jobs that are running."""

    def __exit__(self, kind: object, *error: object) -> None:
        self.close(now=kind is not None)  # Ctrl-C does not wait for jobs


def open_executor(
    name: str,
    backend: str,
    workers: int | Literal["auto"] = "auto",
    *,
    module: str = "",
    work: int | None = None,
    jobs: int | None = None,
) -> Executor:
    """Open the executor that search.engine names; its workers import the framework of `backend` at once.

    `workers`: jobs at a time; "auto" is one a core. `module`: that of the functions of jobs, imported with the framework.
    `work` (multiply-adds of all jobs, estimated) and `jobs` (at a time, at most) decide for "auto". Raises
    ExecutorError (exit code 2) for a name that is none, and for a cluster that does not answer.
    """
    import joblib  # counts by affinity, and the quota of a container

    check_name(name)
    count = joblib.cpu_count() if workers == "auto" else workers
    if name == "auto":
        too_small = work is not None and work < WORTH_PROCESSES
        name = "here" if too_small or jobs == 1 or count == 1 else "processes"
    if name == "here":
        return Here()
    return Cluster(name, backend, workers) if name.startswith("ray:") else Processes(backend, count, module)


def check_name(name: str) -> None:
    """Raises ExecutorError for a name that search.engine may not have; does not look whether a cluster is there."""
    if name in ("auto", "here", "processes", "ray:auto"):
        return
    # Not ray://, Ray's client for machines outside the cluster: jobs sent through it were never answered (Ray 2.60).
    host, _, port = name.removeprefix("ray:").rpartition(":")
    if not name.startswith("ray:") or not host or "/" in host or not port.isdigit():
        raise UnusableEngine(f"search.engine must be one of {NAMES}, got {name!r}")


# -- a job --


def carry_out(fn: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    """In a worker: the result of a job, or its error, in a form that can be pickled."""
    try:
        result = fn(*job)
        pickle.dumps(result)
        return result
    except BaseException as error:
        return _portable(error)


def _portable(error: BaseException) -> Exception:
    """The error with its traceback as a note; a RuntimeError in its place where it cannot travel, or is a SystemExit."""
    trace = "".join(traceback.format_exception(error)).rstrip()
    with suppress(Exception):
        error.add_note(f"In a worker process:\n{trace}")
        if isinstance(error, Exception) and pickle.loads(pickle.dumps(error)) is not None:
            return error
    return RuntimeError(f"{type(error).__name__} in a worker process:\n{trace}")


def _result(outcome: Any) -> Any:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _shown(fn: Callable[..., Any], job: tuple[Any, ...]) -> str:
    """A job in a few words, for messages."""
    return f"{getattr(fn, '__qualname__', fn)}({', '.join(map(reprlib.repr, job))})"


# -- this process --


class Here(Executor):
    """One job after another, each when its result is asked for: the caller can save one before the next begins."""

    name, workers = "here", 1

    def run(self, fn: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """What jobs print goes to standard error."""
        for place, job in enumerate(jobs):
            with redirect_stdout(sys.stderr):
                result = fn(*job)
            yield place, result


# -- processes --


class Processes(Executor):
    """A ProcessPoolExecutor.

    A process that is killed breaks the pool: the jobs that it had not finished go to a new one.
    """

    name = "processes"

    def __init__(self, backend: str, workers: int, module: str) -> None:
        self.workers, self._backend = workers, backend
        self._context = Context(backend, module)
        self._said = tempfile.NamedTemporaryFile(prefix="deltarule-", suffix=".log")  # noqa: SIM115 - closed by close()
        self._pool: ProcessPoolExecutor | None = None
        self._taken = 0  # jobs that the pool was given

    def run(self, fn: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """What jobs print is shown only if their process dies."""
        left, lost = dict(enumerate(jobs)), 0
        if self._taken > JOBS_A_PROCESS * self.workers:
            self._end_pool()
        while left:
            futures: dict[Future[Any], int] = {}
            try:
                with suppress(BrokenProcessPool):  # a process died while it had nothing to do
                    for place, job in left.items():
                        futures[self._submit(fn, job)] = place
                for future in as_completed(futures):
                    with suppress(BrokenProcessPool):
                        outcome, lost = future.result(), 0
                        del left[futures[future]]
                        yield futures[future], _result(outcome)
            finally:
                for future in futures:
                    future.cancel()
            if left:
                lost += 1
                self._end_pool()
                if lost == ATTEMPTS:
                    raise ExecutorError(self._lost([_shown(fn, job) for job in left.values()][: self.workers]))

    def _submit(self, fn: Callable[..., Any], job: tuple[Any, ...]) -> Future[Any]:
        if self._pool is None:
            context: Any = self._context
            self._pool = ProcessPoolExecutor(self.workers, context, _begin, (self._backend, self._said.name))
        self._taken += 1
        with _starting(THREAD_LIMITS):  # maybe
            return self._pool.submit(carry_out, fn, job)

    def _lost(self, jobs: Sequence[str]) -> str:
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - SAID_AT_MOST))
        said = self._said.read().decode(errors="replace").strip()
        return (
            f"{' or '.join(jobs)} must not end the process it runs in, but {ATTEMPTS} times a worker process ended abruptly over "
            f"it (killed for its memory?), {f'saying:{chr(10)}{said}' if said else 'saying nothing'}"
        )

    def _end_pool(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool, self._taken = None, 0

    def close(self, now: bool = False) -> None:
        """Release the processes; `now` kills them."""
        for process in self._context.processes if now else ():
            if process.pid is not None:  # one whose start was interrupted has none, and ends with its driver
                process.kill()
        self._end_pool()
        self._said.close()


class Context:
    """How processes are started, as a multiprocessing context; remembers them (Python 3.14 has ProcessPoolExecutor.kill_workers).

    They are copies of a fork server, which has imported the framework of a backend and the module of the jobs. There is one a
    process: where it has imported another framework, or the system has none, each worker is spawned and imports for itself.
    """

    preloaded = ""  # backend of the fork server

    def __init__(self, backend: str, module: str) -> None:
        forks = "forkserver" in multiprocessing.get_all_start_methods() and Context.preloaded in ("", backend)
        self._context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        self.processes: list[Any] = []
        if forks:
            Context.preloaded = backend
            self._context.set_forkserver_preload(["pipelines.preload", *filter(None, [module])])
            # Not a folder `pipelines` that lies in the current one.
            packages = {**children.environment(), "PYTHONSAFEPATH": "1", "DELTARULE_PRELOAD": backend}
            with _starting({**packages, **THREAD_LIMITS}):
                forkserver.ensure_running()

    def Process(self, *arguments: Any, **options: Any) -> Any:
        """A process, not started yet."""
        self.processes.append(self._context.Process(*arguments, **options))
        return self.processes[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


@contextmanager
def _starting(variables: Mapping[str, str]) -> Iterator[None]:
    """Processes are started in here, with these variables of the environment and without the main script.

    Multiprocessing imports it in every process: one without `if __name__ == "__main__"` would run again there.
    """
    main, before = sys.modules["__main__"], {name: os.environ.get(name) for name in variables}
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ.update(variables)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _begin(backend: str, said: str) -> None:
    """In a worker process, before its first job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to answer
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    file = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    faulthandler.enable()
    os.environ.update(THREAD_LIMITS)
    with suppress(backends.BackendError):  # the first job will say so
        backends.get(backend)


def _end_with_the_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(0)  # the main thread may be deep in a framework


# -- a Ray cluster --


class Cluster(Executor):
    """A client of a Ray cluster, never its starter. A node that dies loses no job: Ray repeats what ran there.

    Every node needs the same Python, Ray and frameworks; the code of `backends` and `pipelines` travels with the jobs
    (runtime_env py_modules).
    """

    def __init__(self, name: str, backend: str, workers: int | Literal["auto"]) -> None:
        self.name, self._ray = name, _connect(name)
        self.workers = max(1, int(self._ray.cluster_resources().get("CPU", 1))) if workers == "auto" else workers
        options = {"num_cpus": 1, "max_retries": ATTEMPTS - 1, "max_calls": JOBS_A_PROCESS}
        self._remote = self._ray.remote(**options)(carry_out)
        for _ in range(self.workers):
            self._remote.remote(backends.get, (backend,))  # the framework, before the first job

    def run(self, fn: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """No more jobs are sent than can run, since what is sent lies in the cluster's memory."""
        waiting, running = iter(enumerate(jobs)), dict[Any, int]()

        def send(count: int) -> None:
            running.update({self._remote.remote(fn, job): place for place, job in islice(waiting, count)})

        send(self.workers)
        while running:
            [done], _ = self._ray.wait([*running], num_returns=1)
            place = running.pop(done)
            try:
                outcome = self._ray.get(done)
            except self._ray.exceptions.RayError as error:
                reason = " ".join(str(error).split())[:500] or type(error).__name__
                raise ExecutorError(
                    f"{_shown(fn, jobs[place])} was lost on {self.name}, after {ATTEMPTS} attempts at most: {reason}"
                ) from None
            send(1)
            yield place, _result(outcome)

    def close(self, now: bool = False) -> None:
        """Close the connection; Ray ends what a driver has left behind."""
        self._ray.shutdown()


def _connect(name: str) -> Any:
    """The module ray, connected."""
    if importlib.util.find_spec("ray") is None:
        raise UnusableEngine(
            f"search.engine: {name} needs Ray, which is not installed; install it with: pip install 'deltarule[ray]', or set "
            "search.engine: processes"
        )
    address = name.removeprefix("ray:")
    if reason := _unanswered(address):
        raise UnusableEngine(
            f"no Ray cluster answers at {name!r} ({reason}); start one with `ray start --head` and name its address in "
            "search.engine, or set search.engine: processes"
        )
    before = signal.getsignal(signal.SIGTERM)
    import ray

    if ray.is_initialized():
        raise UnusableEngine("this process is connected to a Ray cluster already; call ray.shutdown() first")
    code = [str(Path(package.__path__[0])) for package in (backends, pipelines)]
    settings = {"env_vars": THREAD_LIMITS, "py_modules": code, "excludes": ["**/__pycache__"]}
    ray.init(address=address, runtime_env=settings, log_to_driver=False, logging_level=logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # from init on Ray answers it its own way
    return ray


def _unanswered(address: str) -> str:
    """Why Ray does not answer there; empty if it does.

    Asked in a process of its own: where nothing answers, ray.init tries for two minutes, and then ends its process.
    """
    if address != "auto":  # which Ray itself is to find
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS / 4).close()
        except (OSError, OverflowError) as error:
            return str(error)
    code = "import logging, sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)"
    quiet = {"PYTHONWARNINGS": "ignore", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    command = children.command("-c", code, address)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, env={**os.environ, **quiet})
    except subprocess.TimeoutExpired:
        return f"no answer within {ANSWER_SECONDS} s"
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1] if done.returncode else ""
