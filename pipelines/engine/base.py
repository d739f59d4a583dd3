"""What every engine is: an executor with a name, that ends its jobs when the driver leaves by an exception."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, as_completed
from pathlib import Path
from types import TracebackType
from typing import Any

ATTEMPTS = 3  # processes that may die over one job before the job is taken to be the reason
# Whoever computes reads one of these once, when it is imported: OpenMP, the BLAS of NumPy, TensorFlow, XLA.
THREAD_LIMITS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
    "PJRT_NPROC",
)  # fmt: skip


class EngineError(RuntimeError):
    """A job could not be carried out for a reason that is not its own, or an engine could not be opened (exit code 2)."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Engine(Executor):
    """An executor with a name, so many `workers` (jobs at a time), and so many `threads` a worker."""

    name: str
    workers: int
    threads: int

    def completed(self, fn: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Future[Any]]]:
        """(place in the list, future that is done) of each `fn(*job)`, as they come."""
        places = {self.submit(fn, *job): place for place, job in enumerate(jobs)}
        for future in as_completed(places):
            yield places[future], future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, now: bool = False) -> None:
        """As in concurrent.futures; `now` also ends the jobs that are running, whose futures then raise EngineError."""
        raise NotImplementedError

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown(now=kind is not None)  # Ctrl-C does not wait for jobs


def thread_limits(threads: int) -> dict[str, str]:
    """Environment of a process that computes in so many threads."""
    return dict.fromkeys(THREAD_LIMITS, str(threads))


def cores() -> int:
    """Cores that this process may use: its affinity, and the quota of the container that it is in."""
    given = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return given if quota == "max" else max(1, min(given, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return given


def told(fn: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """A job in a few words, for messages."""
    return f"{getattr(fn, '__qualname__', fn)}({', '.join(map(reprlib.repr, args))})"


def check_importable(fn: Callable[..., Any]) -> None:
    """Another process gets a function by name."""
    if getattr(fn, "__module__", None) == "__main__":
        raise EngineError(f"a job must be a function of a module, got {told(fn, ())} of __main__; move it into a module")
