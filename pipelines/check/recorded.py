"""A run on record: its commit, uncommitted changes, spec and data, or why it cannot be run again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.spec.file import edit, parse
from pipelines.stages.files import read_json
from pipelines.tracking.events import KIND, STUDY, TRIAL, key_of
from pipelines.tracking.query import OF_A_TRIAL, Fetched

COMMIT, DIRTY = "mlflow.source.git.commit", "mlflow.source.git.dirty"
PARTS = ("train", "valid", "test")


class ReproduceError(RuntimeError):
    """The run, its commit or its data are not there, or cannot be run again."""


@dataclass(frozen=True)
class RecordedRun:
    """A run that can be run again."""

    recorded: Fetched

    def __str__(self) -> str:
        return f"run {self.recorded.run_id} ({self.recorded.name})"

    @property
    def commit(self) -> str:
        """Of the source."""
        return self.recorded.tags[COMMIT]

    @property
    def dirty(self) -> bool:
        """Whether the source differed from its commit."""
        return self.recorded.tags.get(DIRTY) == "true" or bool(self.patch)

    @property
    def patch(self) -> bytes:
        """What was uncommitted, as `git diff --binary` wrote it."""
        path = self.recorded.folder / "source/uncommitted.diff"
        return path.read_bytes() if path.is_file() else b""

    @cached_property
    def spec(self) -> dict[str, Any]:
        """As it was resolved then. Not checked by today's rules: the code that will read it may be older."""
        path = self.recorded.folder / "params.yaml"
        return dict(parse(path.read_text(encoding="utf-8")).value) if path.is_file() else nested(self.recorded.params)

    @property
    def is_trial(self) -> bool:
        """A trial of a study has no files: only its params and points are on record."""
        return self.recorded.tags.get(KIND) == "trial"

    @property
    def run(self) -> dict[str, Any]:
        """run.json; empty for a trial."""
        return read_json_if_any(self.recorded.folder / "train/run.json")

    @property
    def hashes(self) -> dict[str, str]:
        """Part -> SHA-256 of what split made of the data."""
        about = read_json_if_any(self.recorded.folder / "data/about.json").get("sha256", {})
        tags = {part: self.recorded.tags.get(f"deltarule.data.{part}") for part in PARTS}
        return {part: value for part, value in {**tags, **about}.items() if value}

    def history(self) -> pd.DataFrame:
        """As `read_history`; of a trial, the columns that are on record."""
        path = self.recorded.folder / "train/history.csv"
        if path.is_file():
            return read_history(path)
        names = [name for name in self.recorded.points if name.startswith(("train_", "val_", "learning_rate"))]
        points = pd.DataFrame({name: pd.Series(self.recorded.points[name]) for name in names}, dtype=float)
        return points.sort_index().rename(index=lambda step: f"epoch {step}")


def runnable(recorded: Fetched, test: bool = False) -> RecordedRun:
    """Raises ReproduceError for a run that cannot be run again."""
    run, tags = RecordedRun(recorded), recorded.tags
    if tags.get(KIND) == "study":
        again = f"deltarule search --anew --name {tags.get(STUDY, recorded.name)}"
        raise ReproduceError(f"{run} is a study; name one of its trials, or run the study again, by its params.yaml: {again}")
    if run.is_trial:
        _check_trial(run)
    else:
        _check_run(run)
    if COMMIT not in tags:
        raise ReproduceError(f"{run} has no commit to check out: it was made outside git, or before the first commit")
    if test and not (recorded.folder / "test").is_dir():
        raise ReproduceError(f"--test is for a run that opened the test rows, and {run} did not")
    return run


def _check_run(run: RecordedRun) -> None:
    status, folder = run.recorded.status, run.recorded.folder
    if status in ("RUNNING", "KILLED"):
        state = "is still running" if status == "RUNNING" else "was killed before it ended"
        raise ReproduceError(f"{run} {state}, so there is no result to compare with")
    if not (folder / "train/model.safetensors").is_file():
        why = run.recorded.tags.get("deltarule.message", f"its status is {status}")
        raise ReproduceError(f"{run} must have a model to compare with, and has none: {why}")
    if not (folder / "params.yaml").is_file():
        raise ReproduceError(f"{run} must have its spec on record (params.yaml), and has none; `deltarule sync` may complete it")


def _check_trial(run: RecordedRun) -> None:
    tags = run.recorded.tags
    study, number = tags.get(STUDY, "NAME"), tags.get(TRIAL, "N")
    advice = f"run its spec by itself: deltarule study export {study} --as spec --trial {number} --out trial.yaml"
    if run.recorded.status != "FINISHED":
        raise ReproduceError(f"{run} must have been completed, but it was {tags.get('deltarule.state', 'not')}; {advice}")
    if "deltarule.seeds" in tags:
        raise ReproduceError(f"{run} is the mean of {tags['deltarule.seeds']} seeds, and no single seed is on record; {advice}")
    if not all(any(key == block or key.startswith(f"{block}.") for key in run.recorded.params) for block in OF_A_TRIAL):
        raise ReproduceError(f"{run} must have its spec on record, and has not all of it; {advice}")


def nested(params: Mapping[str, str]) -> dict[str, Any]:
    """Flat params as they are on record -> the spec. What was drawn under names that are no paths is left out."""
    paths = {tuple(key_of(name).split(".")): text for name, text in params.items() if not name.endswith(" or")}
    return dict(parse(edit("{}", {path: _value(text) for path, text in paths.items() if path[0] in OF_A_TRIAL})).value)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_json_if_any(path: Path) -> dict[str, Any]:
    """A file of JSON, {} where there is none."""
    return read_json(path) if path.is_file() else {}


def read_history(path: Path) -> pd.DataFrame:
    """history.csv: "epoch 12", or "fold 2, epoch 12" -> its numbers."""
    frame = pd.read_csv(path)
    where = "epoch " + frame.pop("epoch").astype(str)
    return frame.set_index("fold " + frame.pop("fold").astype(str) + ", " + where if "fold" in frame else where)
