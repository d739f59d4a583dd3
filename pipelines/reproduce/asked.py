"""What a run on record was: its commit, its uncommitted changes, its spec and its data, or why it cannot be run again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.reproduce.errors import ReproduceError
from pipelines.spec.yaml_file import parse, write
from pipelines.tracking.fetch import Recorded

COMMIT, DIRTY, KIND = "mlflow.source.git.commit", "mlflow.source.git.dirty", "deltarule.kind"
PARTS = ("train", "valid", "test")
OF_A_TRIAL = ("seed", "data", "model", "regularization", "train")


@dataclass(frozen=True)
class Asked:
    """A run that can be run again."""

    recorded: Recorded

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

    def spec_text(self) -> str:
        """A params.yaml that keeps what comes of it off the record."""
        return write({**self.spec, "tracking": {"enabled": False}})

    @property
    def is_trial(self) -> bool:
        """A trial of a study has no files: its params and points alone are on record."""
        return self.recorded.tags.get(KIND) == "trial"

    @property
    def stages(self) -> tuple[str, ...]:
        """Those whose outs are on record."""
        return tuple(stage for stage in ("train", "validate", "test") if (self.recorded.folder / stage).is_dir())

    @property
    def run(self) -> dict[str, Any]:
        """run.json; empty for a trial."""
        return read_json(self.recorded.folder / "train/run.json")

    @property
    def hashes(self) -> dict[str, str]:
        """Part -> SHA-256 of what split made of the data."""
        about = read_json(self.recorded.folder / "data/about.json").get("sha256", {})
        tags = {part: self.recorded.tags.get(f"deltarule.data.{part}") for part in PARTS}
        return {part: value for part, value in {**tags, **about}.items() if value}


def runnable(recorded: Recorded, test: bool = False) -> Asked:
    """Raises ReproduceError for a run that cannot be run again."""
    found, told = Asked(recorded), f"run {recorded.run_id} ({recorded.name})"
    if recorded.tags.get(KIND) == "study":
        raise ReproduceError(f"{told} is a study; name one of its trials, or run the study again: deltarule search --anew")
    if found.is_trial:
        _check_trial(found, told)
    else:
        _check_run(found, told)
    if COMMIT not in recorded.tags:
        raise ReproduceError(
            f"{told} must have a commit to check out; it was made outside a git repository, or before one was there"
        )
    if test and "test" not in found.stages:
        raise ReproduceError(f"--test is for a run that opened the test rows, which {told} did not")
    return found


def _check_run(found: Asked, told: str) -> None:
    status = found.recorded.status
    if status in ("RUNNING", "KILLED"):
        state = "is still running" if status == "RUNNING" else "was killed before it ended"
        raise ReproduceError(f"{told} must have ended by itself to be compared with, but it {state}")
    if not (found.recorded.folder / "train/model.safetensors").is_file():
        why = found.recorded.tags.get("deltarule.message", f"its status is {status}")
        raise ReproduceError(f"{told} must have a model to be compared with, and has none: {why}")
    if not (found.recorded.folder / "params.yaml").is_file():
        raise ReproduceError(f"{told} must have its spec on record (params.yaml), and has none; `deltarule sync` may complete it")


def _check_trial(found: Asked, told: str) -> None:
    tags = found.recorded.tags
    study, number = tags.get("deltarule.study", "NAME"), tags.get("deltarule.trial", "N")
    way = f"run its spec by itself: deltarule study export {study} --as spec --trial {number} --out trial.yaml"
    if found.recorded.status != "FINISHED":
        raise ReproduceError(f"{told} must have been completed, but it was {tags.get('deltarule.state', 'not')}; {way}")
    if "deltarule.seeds" in tags:
        raise ReproduceError(f"{told} is the mean of {tags['deltarule.seeds']} seeds, of which no single one is on record; {way}")
    if not all(any(key == block or key.startswith(f"{block}.") for key in found.recorded.params) for block in OF_A_TRIAL):
        raise ReproduceError(f"{told} must have its spec on record, and has not all of it; {way}")


def nested(params: dict[str, str]) -> dict[str, Any]:
    """Flat params as they are on record -> the spec. What was drawn under names that are no paths is left out."""
    spec: dict[str, Any] = {}
    for path, text in params.items():
        *above, last = path.split(".")
        if " " in path or path.partition(".")[0] not in OF_A_TRIAL:
            continue
        place = spec
        for key in above:
            place = place.setdefault(key, {})
        place[last] = _value(text)
    return spec


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_json(path: Path) -> dict[str, Any]:
    """A file of JSON, {} where there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
