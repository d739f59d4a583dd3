"""Where the jobs of a search run: in this process, in processes of this machine, or on a Ray cluster that exists already.

All engines are `concurrent.futures` executors. A job is an importable function and arguments that can be pickled; where it
runs must not matter to what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from pipelines.engine.base import Engine, EngineError, cores, thread_limits
from pipelines.engine.here import Here

__all__ = ["Engine", "EngineError", "check_name", "cores", "open_engine", "thread_limits"]

NAMES = "auto, here, processes, ray:auto or ray:HOST:PORT (of a cluster that this machine is a node of)"
# Multiply-adds below which a second process costs more than it brings: importing a framework takes a core 3 to 7 s, in
# which small stacks of networks do about 10^10 a second.
WORTH_PROCESSES = 5 * 10**10


def open_engine(
    name: str,
    workers: int | Literal["auto"] = "auto",
    threads: int = 1,
    *,
    work: int | None = None,
    jobs: int | None = None,
    jobs_per_worker: int | None = None,
    warm: Callable[[], object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Engine:
    """Open an engine by name; its workers start at once.

    `workers`: jobs at a time; "auto" is one for every `threads` cores. `threads`: what each worker process is limited to,
    before it imports anything. `work` (estimated multiply-adds of all jobs) and `jobs` (how many there are, at most, at a
    time) decide for "auto". `jobs_per_worker`: a process is replaced after so many, for frameworks whose memory grows.
    `warm`: called once in every new process before its first job, to import what jobs need. `environment`: variables of
    the worker processes, say KERAS_BACKEND.

    Raises EngineError (exit code 2) for a name that is none, and for a cluster that does not answer.
    """
    check_name(name)
    if name == "auto":
        name = _chosen(workers, threads, work, jobs)
    if name == "here":
        return Here(threads)
    limits = {**thread_limits(threads), **(environment or {})}
    if name.startswith("ray:"):
        from pipelines.engine.cluster import Cluster

        return Cluster(name, workers, threads, limits, jobs_per_worker, warm)
    from pipelines.engine.processes import Processes

    return Processes(_count(workers, threads), threads, limits, jobs_per_worker, warm)


def check_name(name: str) -> None:
    """Raises EngineError unless `name` is that of an engine; does not look whether a cluster is there."""
    if name in ("auto", "here", "processes", "ray:auto"):
        return
    # Not ray://, Ray's client for machines outside the cluster: jobs sent through it were never answered (Ray 2.60).
    host, _, port = name.removeprefix("ray:").rpartition(":")
    if not name.startswith("ray:") or not host or "/" in host or not port.isdigit():
        raise EngineError(f"search.engine must be one of {NAMES}, got {name!r}", exit_code=2)


def _count(workers: int | Literal["auto"], threads: int) -> int:
    return max(1, cores() // threads) if workers == "auto" else workers


def _chosen(workers: int | Literal["auto"], threads: int, work: int | None, jobs: int | None) -> str:
    too_small = work is not None and work < WORTH_PROCESSES
    return "here" if too_small or jobs == 1 or _count(workers, threads) == 1 else "processes"
