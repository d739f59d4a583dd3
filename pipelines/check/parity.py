"""Proof for a user's own spec and data that the installed backends train the same experiment as the reference.

The reference runs first, then every backend, each in a process of its own with its framework. What "the same" means is the
last section of docs/theory.md; verdict.py holds its numbers. The test rows are not opened.
"""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, Popen

from backends import BackendError, check_name, children, registered
from backends.base import threads_for
from backends.spec import Storage, storage
from pipelines.check.case import REFERENCE, Case
from pipelines.check.measure import RECORDING
from pipelines.check.verdict import SECTIONS, Outcome, Report
from pipelines.project import project_of
from pipelines.report.parity_page import parity_page
from pipelines.spec import Experiment, source_hash
from pipelines.spec import fingerprint as fingerprint_of
from pipelines.tracking.sender import attach

OnProgress = Callable[[str, str], None]  # who, and what it does now; from several threads
AT_ONCE = 2  # processes; a framework takes a core and up to 1 GB
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def parity(
    experiment: Experiment,
    names: Sequence[str] | None = None,
    *,
    steps: int = 200,
    precisions: Sequence[Storage] | None = None,
    on_progress: OnProgress = lambda who, what: None,
) -> Report:
    """Compare backends with the reference on the training and validation rows of an experiment.

    `names` None is every registered backend; those that are not installed are named, and count for nothing. `precisions` None is
    float64, where a difference in meaning cannot hide behind rounding, and what the spec stores its weights in. Raises
    SpecError and DataError for what cannot be trained on, BackendError for a name that is not registered or not installed,
    and where there is nothing to compare.
    """
    wanted = list(dict.fromkeys(names or (name for name in registered() if name != REFERENCE)))
    for name in wanted:
        try:
            check_name(name)
        except BackendError as error:
            raise BackendError(str(error).replace("train.backend", "--backends", 1)) from None
    chosen = tuple(dict.fromkeys(precisions or ("float64", storage(experiment.train.precision))))
    with tempfile.TemporaryDirectory(prefix="deltarule-parity-") as scratch:
        case = Case.make(Path(scratch), experiment, project_of(Path()), steps, chosen)
        (case.folder / "case.pickle").write_bytes(pickle.dumps(case))
        [recording] = _measure_each(case, [RECORDING], on_progress)
        if recording.status == "failed":
            raise BackendError(f"the reference cannot train this spec: {recording.message}")
        outcomes = _measure_each(case, wanted, on_progress)
    missing = [outcome for outcome in outcomes if outcome.status in ("absent", "refused")]
    if missing and (names or len(missing) == len(outcomes)):
        raise BackendError("\n".join(outcome.message for outcome in missing))
    about = case.describe()
    fingerprint = fingerprint_of(experiment, about["data_hashes"], source_hash(experiment.train.backend))
    return Report({"fingerprint": fingerprint, **about}, tuple(outcomes))


def page(report: Report) -> str:
    """The report as one HTML file."""
    return parity_page(report.as_dict(), SECTIONS, {outcome.backend: outcome.sentence for outcome in report.outcomes})


def attach_to_run(experiment: Experiment, report: Report) -> str | None:
    """Put page and JSON among the artifacts of the experiment's run; its id, or None if there is no such run.

    Raises TrackingError if the store fails.
    """
    text = json.dumps(report.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    files = {"parity/parity.html": page(report), "parity/parity.json": text}
    tags = {"deltarule.parity": ", ".join(f"{outcome.backend} {outcome.status}" for outcome in report.outcomes)}
    return attach(experiment.tracking, project_of(Path()), report.case["fingerprint"], files, tags)


def _measure_each(case: Case, names: Sequence[str], on_progress: OnProgress) -> list[Outcome]:
    """What the process of each left. Ctrl-C or SIGTERM ends them all at once: they have nothing to save."""
    started: list[Popen[str]] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            return list(pool.map(lambda name: _measure(case, name, on_progress, started), names))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in started:
                process.kill()
            raise


def _measure(case: Case, name: str, on_progress: OnProgress, started: list[Popen[str]]) -> Outcome:
    """Run one process, with as many threads as its work wants."""
    shown = REFERENCE if name == RECORDING else name
    threads = str(threads_for([case.trial], case.machine(name)))
    environment = dict.fromkeys(THREADS, threads) | children.environment() | {"PYTHONWARNINGS": "ignore"}
    command = children.command("-m", "pipelines.check.measure", str(case.folder), name)
    errors, result = case.folder / f"{name}.stderr", case.folder / f"{name}.pickle"
    with errors.open("w") as file, Popen(command, env=environment, stdout=PIPE, stderr=file, encoding="utf-8") as process:
        started.append(process)
        for line in process.stdout or ():
            on_progress(shown, line.rstrip())
    if result.is_file():
        outcome: Outcome = pickle.loads(result.read_bytes())
    else:
        last = errors.read_text(errors="replace").strip().rpartition("\n")[2] or "nothing was printed"
        outcome = Outcome(name, "failed", f"its process ended with exit code {process.returncode}: {last}")
    on_progress(shown, outcome.message or "done")
    return outcome
