"""Proof for a user's own spec and data that the installed backends train the same experiment as the reference.

The reference runs first, then every backend, each in a process of its own with its framework. It is told nothing but what
crosses the border of a backend: the trial, the training and validation rows, states of the reference. What "the same" means is
the last section of docs/theory.md; verdict.py holds its numbers. The test rows are not opened.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from backends import BackendError, check_name, children, registered
from backends.base import threads_for
from backends.spec import Storage
from pipelines.check.case import REFERENCE, Case, precisions_of
from pipelines.check.measure import RECORDING, Expected
from pipelines.check.verdict import SECTIONS, Outcome, Report, judge
from pipelines.project import project_of
from pipelines.report.parity_page import parity_page
from pipelines.spec import Experiment, source_hash
from pipelines.spec import fingerprint as fingerprint_of
from pipelines.tracking.attach import attach

OnProgress = Callable[[str, float, str], None]  # who, which share of its work is done, what comes now; from several threads
AT_ONCE = 2  # processes; a framework takes a core and up to 1 GB
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def parity(
    experiment: Experiment,
    names: Sequence[str] | None = None,
    *,
    steps: int = 200,
    precisions: Sequence[Storage] | None = None,
    on_progress: OnProgress = lambda who, share, what: None,
) -> Report:
    """Compare backends with the reference on the training and validation rows of an experiment.

    `names` None is every registered backend; those that are not installed are named, and count for nothing. Raises
    SpecError and DataError for what cannot be trained on, BackendError for a name that is not registered or not installed,
    and where there is nothing to compare.
    """
    wanted = list(dict.fromkeys(names)) if names else [name for name in registered() if name != REFERENCE]
    _check_names(wanted)
    with tempfile.TemporaryDirectory(prefix="deltarule-parity-") as scratch:
        chosen = tuple(dict.fromkeys(precisions)) if precisions else precisions_of(experiment)
        case = Case.make(Path(scratch), experiment, project_of(Path()), steps, chosen)
        reference = _measure_each(case, [RECORDING], on_progress)[RECORDING]
        if reference["status"] != "measured":
            raise BackendError(f"the reference cannot train this spec: {reference['message']}")
        found = _measure_each(case, wanted, on_progress)
    expected = {precision: [Expected(*one) for one in entries] for precision, entries in reference["quantities"].items()}
    outcomes = tuple(judge(name, found[name], expected) for name in wanted)
    _check_started(outcomes, named=bool(names))
    fingerprint = fingerprint_of(experiment, case.hashes, source_hash(experiment.train.backend))
    return Report({"fingerprint": fingerprint, **case.describe()}, outcomes)


def page(report: Report) -> str:
    """The report as one HTML file."""
    return parity_page(report.as_dict(), SECTIONS)


def attach_to_run(experiment: Experiment, report: Report) -> str | None:
    """Put page and JSON among the artifacts of the experiment's run; its id, or None if there is no such run.

    Raises TrackingError if the store fails.
    """
    text = json.dumps(report.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    files = {"parity/parity.html": page(report), "parity/parity.json": text}
    tags = {"deltarule.parity": ", ".join(f"{outcome.backend} {outcome.status}" for outcome in report.outcomes)}
    return attach(experiment.tracking, project_of(Path()), report.case["fingerprint"], files, tags)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        try:
            check_name(name)
        except BackendError as error:
            raise BackendError(str(error).replace("train.backend", "--backends", 1)) from None


def _check_started(outcomes: Sequence[Outcome], *, named: bool) -> None:
    """What was asked for by name must be there, and something must be."""
    missing = [outcome for outcome in outcomes if outcome.status in ("absent", "refused")]
    if missing and (named or len(missing) == len(outcomes)):
        raise BackendError("\n".join(outcome.message for outcome in missing))


def _measure_each(case: Case, names: Sequence[str], on_progress: OnProgress) -> dict[str, dict[str, Any]]:
    """Name -> what its process found. Ctrl-C or SIGTERM ends them all at once: they have nothing to save."""
    started: list[Popen[str]] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            return dict(zip(names, pool.map(lambda name: _measure(case, name, on_progress, started), names), strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in started:
                process.kill()
            raise


def _measure(case: Case, name: str, on_progress: OnProgress, started: list[Popen[str]]) -> dict[str, Any]:
    """Run one process, with as many threads as its work wants."""
    threads = str(threads_for([case.trial], case.machine(name)))
    environment = dict.fromkeys(THREADS, threads) | children.environment() | {"PYTHONWARNINGS": "ignore"}
    command = children.command("-m", "pipelines.check.measure", str(case.folder), name)
    errors, result = case.folder / f"{name}.stderr", case.folder / f"{name}.json"
    with errors.open("w") as file, Popen(command, env=environment, stdout=PIPE, stderr=file, encoding="utf-8") as process:
        started.append(process)
        for line in process.stdout or ():
            on_progress(name, *json.loads(line))
    if result.is_file():
        on_progress(name, 1.0, "done")
        return dict(json.loads(result.read_text(encoding="utf-8")))
    last = errors.read_text(errors="replace").strip().rpartition("\n")[2]
    message = f"its process ended with exit code {process.returncode}: {last or 'nothing was printed'}"
    on_progress(name, 1.0, message)
    return {"status": "failed", "message": message}
