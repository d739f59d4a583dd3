"""A run on record, run again: its commit, its uncommitted changes, its spec and its data in a folder of their own.

    reproduction = reproduce("3f2a", experiment, into=Path("again"))
    reproduction.verdict.word    # "bit-equal", "within tolerance" or "different"

Where the repository holds deltarule itself, the code of that commit runs; else the installed one does, and is told of where
it is another than then.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.reproduce.asked import Asked, read_json, runnable
from pipelines.reproduce.carry_out import Failed, run_stage
from pipelines.reproduce.checkout import Checkout, check_out, left_out
from pipelines.reproduce.data import Placed, place, place_as_they_lie
from pipelines.reproduce.errors import ReproduceError

if TYPE_CHECKING:
    from pipelines.reproduce.verdict import Verdict
    from pipelines.spec import Experiment

__all__ = ["ReproduceError", "Reproduction", "reproduce"]

SPEC = Path(".deltarule/reproduced.yaml")  # in the checkout
STAGES = ("train", "validate")
Say = Callable[[str], None]


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
    """Run the run that `text` means again, and compare. `experiment` says where the record is; nothing is added to it.

    In `into`, which must be empty or new, or in a temporary folder, which `keep` leaves there. `trust`: run
    code that was uncommitted too, which comes from the record. `say` is told what happens.
    Raises ReproduceError for what cannot be run again, TrackingError for a run that cannot be found or read.
    """
    from pipelines.tracking.fetch import fetch

    with tempfile.TemporaryDirectory(prefix="deltarule-record-") as scratch, _folder(into, keep) as folder:
        run = runnable(fetch(experiment.tracking, project, text, Path(scratch)), test)
        more = " and what was uncommitted" if run.patch else ""
        say(f"run {run.recorded.run_id} ({run.recorded.name}): commit {run.commit}{more}")
        checkout = check_out(project, run.commit, run.patch, folder, trust=trust)
        say(f"checked out into {checkout.project}; runs {_whose(checkout)}")
        verdict = _carry_out(run, project, checkout, (*STAGES, "test") if test else STAGES, say)
        kept = folder if into is not None or keep else None
        return Reproduction(run.recorded.run_id, run.recorded.name, run.commit, run.dirty, kept, verdict)


@contextmanager
def _folder(into: Path | None, keep: bool) -> Iterator[Path]:
    """Where the checkout goes. A temporary folder is removed, unless it is to be kept and something came of it."""
    if into is not None:
        if into.exists() and (not into.is_dir() or any(into.iterdir())):
            raise ReproduceError(f"--into must name a folder that is empty or not there yet, got {into}; nothing is overwritten")
        into.parent.mkdir(parents=True, exist_ok=True)
        yield into.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="deltarule-reproduce-"))
    try:
        yield folder
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _whose(checkout: Checkout) -> str:
    if checkout.code is not None:
        return "the code of that commit"
    from importlib.metadata import version

    return f"the installed deltarule {version('deltarule')}"


def _carry_out(run: Asked, project: Path, checkout: Checkout, stages: tuple[str, ...], say: Say) -> Verdict:
    from pipelines.reproduce.verdict import judge
    from pipelines.stages import RunPaths

    spec = checkout.project / SPEC
    spec.parent.mkdir(parents=True, exist_ok=True)
    spec.write_text(run.spec_text(), encoding="utf-8")
    places, failed = RunPaths(checkout.project, base=checkout.project, project=checkout.project), ""
    _split(run, project, checkout, places, say)
    try:
        for stage in stages:
            run_stage(stage, checkout, SPEC, say)
    except Failed as error:
        failed = str(error)
    if "test" in stages and not failed:
        _count_opening(project, places)
    return judge(run, places, _notes(run), failed)


def _split(run: Asked, project: Path, checkout: Checkout, places: Any, say: Say) -> None:
    """Raises ReproduceError where files that may have been changed since do not give the rows of the run."""
    source = run.spec["data"]["source"]
    placed: list[Placed] | None = place(source, project, checkout)
    while placed is not None:
        try:
            run_stage("split", checkout, SPEC, say)
        except Failed as error:
            raise ReproduceError(f"the data of the run cannot be split again: {error}") from None
        if not _other_parts(run, places) or all(one.origin == "git" for one in placed):
            return
        last, placed = placed, place_as_they_lie(placed, project, checkout)
    part, wanted, found = _other_parts(run, places)[0]
    names = ", ".join(f"{one.name}{f' (MD5 {one.md5} by DVC)' if one.md5 else ''}" for one in last if one.origin != "git")
    raise ReproduceError(
        f"{names} must be as the run read it, but the rows are others: SHA-256 of the {part} part must be {wanted}, got {found}; "
        "put the file of that time back (where deltarule was updated since, its split may have changed instead)"
    )


def _other_parts(run: Asked, places: Any) -> list[tuple[str, str, str]]:
    """(part, wanted, found) of the parts that are not those of the run."""
    found = read_json(places.about).get("sha256", {})
    return [(part, wanted, found.get(part, "none")) for part, wanted in run.hashes.items() if found.get(part) != wanted]


def _count_opening(project: Path, places: Any) -> None:
    """The same experiment counts once, however often it opens the test rows; one that turned out another is counted."""
    from pipelines.stages import RunPaths
    from pipelines.stages.test import enter

    about, run = read_json(places.about), read_json(places.run)
    enter(RunPaths(project, project=project).ledger, about["sha256"]["test"], run["fingerprint"])


def _notes(run: Asked) -> list[str]:
    """What is not known of how the run was made."""
    notes = left_out(run.patch)
    if run.recorded.tags.get("mlflow.source.git.dirty") == "true" and not run.patch:
        notes.append("the run's source differed from its commit, and what differed is not on record")
    return notes
