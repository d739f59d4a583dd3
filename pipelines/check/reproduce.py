"""A run on record, run again: its commit, its uncommitted changes, its spec and its data in a folder of their own.

Where the commit holds deltarule itself, its code runs; else the installed one, whose changes the verdict names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends import children
from pipelines.check.checkout import Checkout, check_out, left_out, restore, take_from_project
from pipelines.check.outs import Verdict, compare
from pipelines.check.recorded import DIRTY, RecordedRun, ReproduceError, read_json_if_any, runnable
from pipelines.spec.file import write
from pipelines.stages import RunPaths
from pipelines.stages.test import enter
from pipelines.tracking.provenance import user
from pipelines.tracking.query import fetch

if TYPE_CHECKING:
    from pipelines.spec import Experiment

__all__ = ["ReproduceError", "Reproduction", "reproduce"]

SPEC = Path(".deltarule/reproduced.yaml")  # in the checkout
STAGES = ("train", "validate")
PROGRESS = ("epoch ", "fold ")  # lines of a stage that are passed on
HELD = 1  # exit code of a stage that wrote its outs, and holds the pipeline
Say = Callable[[str], None]


class StageFailed(Exception):
    """A stage that did not end well, and its last words."""


@dataclass(frozen=True)
class Reproduction:
    """What was run again, where, and how it compares."""

    run_id: str
    name: str
    commit: str
    dirty: bool
    folder: Path | None  # where it was kept
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        folder = None if self.folder is None else str(self.folder)
        head = {"run_id": self.run_id, "name": self.name, "commit": self.commit, "dirty": self.dirty, "folder": folder}
        return {**head, **self.verdict.as_dict()}


def reproduce(
    text: str,
    experiment: Experiment,
    project: Path,
    *,
    into: Path | None = None,
    keep: bool = False,
    test: bool = False,
    trust: bool = False,
    say: Say = lambda line: None,
) -> Reproduction:
    """Run the run that `text` names again, and compare. `experiment` says where the record is; nothing is added to it.

    In `into`, which must be empty or new, or in a temporary folder, which `keep` leaves there. `test` opens the test rows, too;
    `trust` runs uncommitted code, which comes from the record. `say` gets a line for each step of the work.
    Raises ReproduceError for what cannot be run again, TrackingError for a run that cannot be found or read.
    """
    if into is not None and into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise ReproduceError(f"--into must name a folder that is empty or not there yet, got {into}; nothing is overwritten")
    with tempfile.TemporaryDirectory(prefix="deltarule-record-") as scratch, ExitStack() as removal:
        if into is None:
            folder = Path(tempfile.mkdtemp(prefix="deltarule-reproduce-"))
            removal.callback(shutil.rmtree, folder, ignore_errors=True)
        else:
            into.parent.mkdir(parents=True, exist_ok=True)
            folder = into.resolve()
        run = runnable(fetch(experiment.tracking, project, text, Path(scratch)), test)
        say(f"{run}: commit {run.commit}{' and what was uncommitted' if run.patch else ''}")
        maker = run.recorded.tags.get("mlflow.user", "nobody known")
        if maker != user():
            say(f"made by {maker}, not by you: spec, names of data and what was uncommitted come from that record")
        checkout = check_out(project, run.commit, run.patch, folder, trust=trust)
        code = "the code of that commit" if checkout.code else f"the installed deltarule {version('deltarule')}"
        say(f"checked out into {checkout.project}; runs {code}")
        verdict = _run(run, project, checkout, (*STAGES, "test") if test else STAGES, say)
        if keep:
            removal.pop_all()
        kept = folder if into is not None or keep else None
        return Reproduction(run.recorded.run_id, run.recorded.name, run.commit, run.dirty, kept, verdict)


def _run(run: RecordedRun, project: Path, checkout: Checkout, stages: tuple[str, ...], say: Say) -> Verdict:
    spec = checkout.project / SPEC
    spec.parent.mkdir(parents=True, exist_ok=True)
    spec.write_text(write({**run.spec, "tracking": {"enabled": False}}), encoding="utf-8")  # nothing goes on record
    places, failed = RunPaths(checkout.project, base=checkout.project, project=checkout.project), ""
    _split(run, project, checkout, places, say)
    try:
        for stage in stages:
            run_stage(stage, checkout, say)
    except StageFailed as error:
        failed = str(error)
    if "test" in stages and not failed:
        # The same experiment counts once, however often it opens the test rows; one that came out different is counted.
        ledger = RunPaths(project, project=project).ledger
        enter(ledger, read_json_if_any(places.about)["sha256"]["test"], read_json_if_any(places.run)["fingerprint"])
    notes = left_out(run.patch)
    if run.recorded.tags.get(DIRTY) == "true" and not run.patch:
        notes.append("the run's source differed from its commit, and what differed is not on record")
    return compare(run, places, notes, failed)


def _split(run: RecordedRun, project: Path, checkout: Checkout, places: RunPaths, say: Say) -> None:
    """Raises ReproduceError where files that may have been changed since do not give the rows of the run."""
    restored = restore(run.spec["data"]["source"], project, checkout)
    other = _other_parts(run, checkout, places, say)
    if other and take_from_project(restored, project, checkout):
        other = _other_parts(run, checkout, places, say)
    uncertain = [one for one in restored if one.origin != "git"]
    if other and uncertain:
        part, found = next(iter(other.items()))
        raise ReproduceError(
            f"{', '.join(map(str, uncertain))} must be as the run read it, but the rows are others: SHA-256 of the {part} part "
            f"must be {run.hashes[part]}, got {found}; put the file of that time back (where deltarule was updated since, its "
            "split may have changed instead)"
        )


def _other_parts(run: RecordedRun, checkout: Checkout, places: RunPaths, say: Say) -> dict[str, str]:
    """Split; part -> SHA-256, of those whose rows are not the run's."""
    try:
        run_stage("split", checkout, say)
    except StageFailed as error:
        raise ReproduceError(f"the data of the run cannot be split again: {error}") from None
    found = read_json_if_any(places.about).get("sha256", {})
    return {part: found.get(part, "none") for part, wanted in run.hashes.items() if found.get(part) != wanted}


def run_stage(stage: str, checkout: Checkout, say: Say) -> None:
    """Run a stage of the checkout in a process of its own. A threshold that is missed again is no failure."""
    say(stage)
    last = "nothing"
    # --json: its words come on standard error, and the result, which is read from the outs, on the other stream.
    command = children.command("-m", "_deltarule", stage, "--params", str(SPEC), "--json")
    environment = checkout.environment()
    if checkout.code is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(checkout.code), environment["PYTHONPATH"]])
    with subprocess.Popen(
        command, cwd=checkout.project, env=environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, errors="replace",
    ) as process:  # fmt: skip
        try:
            for line in process.stderr or ():
                last = line.strip() or last
                if line.startswith(PROGRESS):
                    say(line.rstrip())
        except BaseException:  # Ctrl-C and SIGTERM end it too
            process.terminate()
            raise
    held = stage == "validate" and process.returncode == HELD and (checkout.project / "outputs/validate/about.json").is_file()
    if process.returncode and not held:
        raise StageFailed(f"{stage} ended with exit code {process.returncode}: {last}")
