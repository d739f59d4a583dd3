"""The processes of a comparison: the reference first, then every backend, each alone with its framework."""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends import BackendError, check_name, children, registered
from backends.base import threads_for
from backends.spec import Storage
from pipelines.parity.case import REFERENCE, Case, precisions_of
from pipelines.parity.record import RECORDING, Shelf, read
from pipelines.parity.verdict import Outcome, Report, judge
from pipelines.project import project_of
from pipelines.spec import Experiment, source_hash
from pipelines.spec import fingerprint as fingerprint_of

Progress = Callable[[str, float, str], None]  # who, which share of its work is done, what comes now
AT_ONCE = 2  # processes; a framework takes a core and up to 1 GB
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def parity(
    experiment: Experiment,
    names: Sequence[str] | None = None,
    *,
    steps: int = 200,
    precisions: Sequence[Storage] | None = None,
    progress: Progress = lambda who, share, what: None,
) -> Report:
    """Compare backends with the reference on the training and validation rows of an experiment.

    `names` None is every registered backend; those that are not installed are told, and count for nothing. Raises
    SpecError and DataError for what cannot be trained on, BackendError for a name that is not registered or not installed,
    and where there is nothing to compare.
    """
    wanted = list(dict.fromkeys(names)) if names else [name for name in registered() if name != REFERENCE]
    _check_names(wanted)
    with tempfile.TemporaryDirectory(prefix="deltarule-parity-") as scratch:
        chosen = tuple(dict.fromkeys(precisions)) if precisions else precisions_of(experiment)
        case = Case.make(Path(scratch), experiment, project_of(Path()), steps, chosen)
        outcomes = _outcomes(case, wanted, progress)
    _check_started(outcomes, named=bool(names))
    fingerprint = fingerprint_of(experiment, case.hashes, source_hash(experiment.train.backend))
    return Report({"fingerprint": fingerprint, **case.describe()}, outcomes)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        try:
            check_name(name)
        except BackendError as error:
            raise BackendError(str(error).replace("train.backend", "--backends", 1)) from None


def _outcomes(case: Case, names: Sequence[str], progress: Progress) -> tuple[Outcome, ...]:
    endings = _carry_out(case, [RECORDING], progress)
    kept = read(case, RECORDING)
    if kept is None:
        raise BackendError(f"the reference cannot train this spec: {endings[RECORDING]}")
    endings |= _carry_out(case, names, progress)
    entries = {precision: Shelf(case, precision).entries() for precision in case.precisions}
    return tuple(judge(name, read(case, name) or _failed(endings[name]), entries, kept["gaps"]) for name in names)


def _failed(ending: str) -> Mapping[str, Any]:
    return {"status": "failed", "message": ending}


def _check_started(outcomes: Sequence[Outcome], *, named: bool) -> None:
    """Who was asked for by name must be there, and somebody must be."""
    missing = [outcome for outcome in outcomes if outcome.status in ("absent", "refused")]
    if missing and (named or len(missing) == len(outcomes)):
        raise BackendError("\n".join(outcome.message for outcome in missing))


# -- processes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worker:
    """A process, and where its standard error goes."""

    process: subprocess.Popen[str]
    errors: Path

    @staticmethod
    def start(case: Case, name: str) -> Worker:
        """In the case's folder, with as many threads as its work wants."""
        threads = str(threads_for([case.trial], case.machine(name)))
        environment = dict.fromkeys(THREADS, threads) | children.environment() | {"PYTHONWARNINGS": "ignore"}
        command = children.command("-m", "pipelines.parity", str(case.folder), name)
        errors = case.folder / f"{name}.stderr"
        with errors.open("w") as file:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=file, text=True, encoding="utf-8")
        return Worker(process, errors)

    def follow(self, hear: Callable[[float, str], None]) -> str:
        """Hear its progress to the end; why it failed, or nothing."""
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                hear(*json.loads(line))
        if self.process.wait() == 0:
            return ""
        told = self.errors.read_text(errors="replace").strip().splitlines()
        return f"its process ended with exit code {self.process.returncode}: {told[-1] if told else 'without a word'}"

    def stop(self) -> None:
        """At once; it has nothing to save."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _carry_out(case: Case, names: Sequence[str], progress: Progress) -> dict[str, str]:
    """Run the processes, a few at once; why each failed, or nothing. All progress is told in this thread."""
    waiting, running, endings = list(names), dict[str, Worker](), dict[str, str]()
    heard: queue.Queue[tuple[str, float, str] | tuple[str, str]] = queue.Queue()
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                name = waiting.pop(0)
                running[name] = Worker.start(case, name)
                _listen(name, running[name], heard)
            event = heard.get()
            if len(event) == 2:
                endings[event[0]] = event[1]
                del running[event[0]]
                progress(event[0], 1.0, event[1] or "done")
            else:
                progress(*event)
    finally:
        for worker in running.values():
            worker.stop()
    return endings


def _listen(name: str, worker: Worker, heard: queue.Queue[Any]) -> None:
    """In a thread: put what a worker tells into the queue, and its ending last."""

    def listen() -> None:
        ending = "could not be followed"
        try:
            ending = worker.follow(lambda share, what: heard.put((name, share, what)))
        finally:
            heard.put((name, ending))

    threading.Thread(target=listen, daemon=True).start()
