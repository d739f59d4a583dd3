"""A run as plain events: what was created, with which params, metrics, tags and artifacts, and how it ended.

They are read from the outs of the stages, which alone say what happened; nothing here knows MLflow. An event is
JSON-able, so that a list of them can stand in an append-only log (one line an event) and be replayed later, or again.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.spec import Experiment, dump, flat
from pipelines.tracking.redact import redacted

if TYPE_CHECKING:
    from pipelines.stages.places import Places

Kind = Literal["create", "params", "metrics", "tags", "artifacts", "text", "mark", "end"]
STAGES = ("data", "train", "validate", "test")


@dataclass(frozen=True)
class Event:
    """One thing that happened in a stage. What `values` holds depends on the kind:

    create: fingerprint, outs (hash of what train wrote), name; params, tags: name -> text; metrics: name -> number, at
    `step`; artifacts: path in the run -> file below the root; text: path in the run -> what the file there holds; mark:
    outs, the hash of all that the stage wrote, which says that every event of the stage came before; end: status.
    """

    kind: Kind
    stage: str
    values: dict[str, Any] = field(default_factory=dict)
    step: int = 0


def events(places: Places) -> list[Event]:
    """The run that the outs below a root tell of. Stages that were not carried out are absent.

    Raises FileNotFoundError if nothing was trained there.
    """
    root = Path(places.root)
    run = _json(root / "outputs/train/run.json")
    return [
        _create(root, run),
        *(event for stage in STAGES if _done(root, stage) for event in _stage(root, stage, run)),
        Event("end", "end", {"status": "FAILED" if run["ended"] == "diverged" else "FINISHED"}),
    ]


def _create(root: Path, run: dict[str, Any]) -> Event:
    about = _json(root / "outputs/data/about.json")
    spec, fingerprint = run["spec"], run["fingerprint"]
    name = f"{Path(about['source']).stem} {spec['model']['activation']} {run['backend']} {fingerprint[:4]}"
    return Event("create", "create", redacted({"fingerprint": fingerprint, "outs": outs_hash(root, "train"), "name": name}))


def _stage(root: Path, stage: str, run: dict[str, Any]) -> Iterator[Event]:
    if stage == "data":
        yield Event("tags", stage, _data_tags(_json(root / "outputs/data/about.json"), run))
    elif stage == "train":
        spec = Experiment.model_validate(redacted(run["spec"]))
        yield Event("params", stage, _texts(flat(spec)))
        yield Event("tags", stage, _run_tags(run))
        yield Event("text", stage, {"params.yaml": dump(spec)})
        yield from _history(root / "outputs/train/history.csv", run.get("best_epoch"))
    else:
        yield Event("metrics", stage, _numbers(flatten(_json(root / f"outputs/{stage}/metrics.json"), stage, "_")))
    yield Event("artifacts", stage, {f"{stage}/{p.name}": p.relative_to(root).as_posix() for p in _outs(root, stage)})
    yield Event("mark", stage, {"outs": outs_hash(root, stage)})


def _history(path: Path, best_epoch: int | None) -> Iterator[Event]:
    """One event an epoch, then `best_*`: the training and validation columns of the best epoch."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            epoch, values = int(row.pop("epoch")), _numbers(row)
            yield Event("metrics", "train", values, epoch)
            if epoch == best_epoch:
                chosen = {f"best_{k}": v for k, v in values.items() if k.startswith(("train_", "val_"))}
                best = Event("metrics", "train", {"best_epoch": float(epoch), **chosen})
    if best_epoch is not None:
        yield best


def _data_tags(about: dict[str, Any], run: dict[str, Any]) -> dict[str, str]:
    hashes = {f"deltarule.data.{part}": str(value) for part, value in run.get("data_hashes", {}).items()}
    return redacted({"deltarule.data": str(about["source"]), "deltarule.task": str(about["task"]), **hashes})  # type: ignore[no-any-return]


def _run_tags(run: dict[str, Any]) -> dict[str, str]:
    named = {f"deltarule.{k}": run.get(k) for k in ("backend", "ended", "message")}
    versions = {f"deltarule.version.{k}": v for k, v in run.get("versions", {}).items()}
    environment = {f"deltarule.environment.{k}": v for k, v in flatten(run.get("environment", {})).items()}
    return _texts(redacted({k: v for k, v in {**named, **versions, **environment}.items() if v is not None}))


def flatten(nested: dict[str, Any], prefix: str = "", joint: str = ".") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{joint}{key}" if prefix else str(key)
        found.update(flatten(value, name, joint) if isinstance(value, dict) else {name: value})
    return found


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """What is a number, or the text of one, as a float; the rest is no metric."""
    found = {}
    for key, value in values.items():
        try:
            found[key] = float(value)
        except (TypeError, ValueError):
            continue
    return found


def outs_hash(root: Path, stage: str) -> str:
    """SHA-256 over names and bytes of all that a stage wrote."""
    digest = hashlib.sha256()
    for path in _outs(root, stage):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _outs(root: Path, stage: str) -> list[Path]:
    """Files that describe a run. The rows of the data stage are not among them: they can be large, and are hashed."""
    pattern = "about.json" if stage == "data" else "*"
    return sorted(p for p in (root / "outputs" / stage).glob(pattern) if p.is_file() and not p.name.startswith("."))


def _done(root: Path, stage: str) -> bool:
    return (root / "outputs" / stage / ("about.json" if stage == "data" else "metrics.json")).is_file()


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
