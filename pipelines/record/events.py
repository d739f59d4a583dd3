"""A run as events for its journal, read from the outs of the stages, which alone say what happened."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.project import project_of
from pipelines.redact import redact, redacted
from pipelines.report.outs import Outs, over_epochs
from pipelines.report.run_report import summary
from pipelines.spec import Experiment, Tracking, dump, flat, whole_spec
from pipelines.spec.blocks import HALF
from pipelines.stages.files import check, read_json, sha256
from pipelines.stages.paths import RunPaths
from pipelines.tracking import provenance
from pipelines.tracking.events import LAUNCH, ORIGIN, OUTS, ROW_COUNT, TYPES, Event, params, texts
from pipelines.tracking.store import remembered

CONTEXTS = {"train": "training", "valid": "validation", "test": "testing"}
DIGEST_CHARACTERS, SCHEMA_CHARACTERS, NAME_CHARACTERS = 36, 1_000_000, 400


def events(places: RunPaths, experiment: Experiment | None = None) -> list[Event]:
    """The run that the outs of `places` tell of, without reports on another model, from its second event on.

    An `experiment` adds the rest of the spec. Raises FileNotFoundError if nothing was trained there.
    """
    run, about = read_json(places.run), read_json(places.about)
    reports = Outs(places.root).reports
    spec = redacted(whole_spec(run["spec"], experiment))
    files = spec.get("tracking", {}).get("files", Tracking().files)
    body = [
        *_source(places),
        *_data(places, about, run["spec"]["data"]),
        *_train(places, run, spec),
        *(event for stage in reports for event in _report(places, about, run, stage)),
    ]
    # With the last stage alone, before its mark: what the description says changes with each.
    body.insert(-1, Event("tags", body[-1].stage, _note(places, run, files)))
    return [*body, ending(run)]


def ending(run: Mapping[str, Any]) -> Event:
    """How a run ended, by its run.json."""
    return Event("end", "end", {"status": "FAILED" if run["ended"] == "diverged" else "FINISHED"})


def opening(places: RunPaths, experiment: Experiment) -> list[Event]:
    """What is known of a run when its training begins, from its second event on."""
    spec = redacted(experiment.model_dump(mode="json"))
    return [*_source(places), *_data(places, read_json(places.about), spec["data"]), *_spec(spec)]


def creation(places: RunPaths, experiment: Experiment, fingerprint: str, new_run: bool, name: str | None, run: Any) -> Event:
    """The first event of a journal: what the run is found by, its first tags, and which store it is for.

    `run` is what its run.json holds; None before.
    """
    root = places.root.resolve()
    begun = provenance.kept(root)[0] or provenance.take(root, source_name(new_run))
    identity = {"deltarule.fingerprint": fingerprint, ORIGIN: "launch" if new_run else "pipeline"}
    if run:
        identity[OUTS] = outs_hash(places.trained)
    if new_run:
        project = places.project or project_of(root)
        identity[LAUNCH] = root.relative_to(project).as_posix() if root.is_relative_to(project) else root.name
    source = Path(read_json(places.about)["source"]).stem
    spec = run["spec"] if run else experiment.model_dump(mode="json")
    name = name or f"{source} {spec['model']['activation']} {spec['train']['backend']} {fingerprint[:4]}"
    values = head(name, identity, begun, experiment.tracking)
    # Validate says what the model decides by, if anything.
    after = "train" if experiment.validation.threshold == HALF else "validate"
    return Event("create", "create", {**values, "model_after": after})


def head(name: str, identity: Mapping[str, str], tags: Mapping[str, str], tracking: Tracking) -> dict[str, Any]:
    """The values of a journal's creation. `identity`: tags by which the run is found again."""
    return {
        "name": redact(name),
        "identity": dict(identity),
        "tags": dict(tags),
        "tracking": remembered(tracking),
        "files": list(tracking.files),
        "given": os.environ.get("MLFLOW_RUN_ID"),
    }


def source_name(new_run: bool) -> str:
    """What MLflow shows as the source of a run."""
    return "deltarule run" if new_run else "dvc.yaml"


def epoch(rows: Sequence[Mapping[str, Any]]) -> Event:
    """The numbers of one epoch: of one network, or the means over the folds' networks."""
    [row] = over_epochs([dict(row) for row in rows])
    return Event("metrics", "train", _numbers(row), int(row["epoch"]))


def _source(places: RunPaths) -> Iterator[Event]:
    """How the run was begun, where that was kept."""
    tags, diff = provenance.kept(places.root)
    if tags:
        yield Event("tags", "source", tags)
        if diff:
            yield Event("artifacts", "source", {provenance.DIFF: _below(places, diff)})
        # Of one value: what DVC restores from its cache later was begun then.
        yield Event("mark", "source", {"outs": "begun"})


def _data(places: RunPaths, about: dict[str, Any], data: Mapping[str, Any]) -> Iterator[Event]:
    """The parts themselves can be large, and are no artifacts."""
    hashes = {f"deltarule.data.{part}": digest for part, digest in about["sha256"].items()}
    rows = {f"{ROW_COUNT}{part}": str(count) for part, count in about["rows"].items()}
    named = {"deltarule.data": about["source"], "deltarule.task": about["task"]}
    yield Event("tags", "data", redacted({**named, **hashes, **rows}))
    yield Event("inputs", "data", _inputs(about, data, "train", "valid"))
    yield Event("artifacts", "data", {"data/about.json": _below(places, places.about)})
    yield Event("mark", "data", {"outs": sha256(places.about)})


def _train(places: RunPaths, run: dict[str, Any], spec: dict[str, Any]) -> Iterator[Event]:
    yield from _spec(spec)
    named = {f"deltarule.{key}": run[key] for key in ("backend", "ended", "message")}
    versions = {f"deltarule.version.{name}": version for name, version in run["versions"].items()}
    environment = _flatten(run["environment"], "deltarule.environment")
    yield Event("tags", "train", texts(redacted({**named, **versions, **environment})))
    lock = places.root / "dvc.lock"
    if lock.is_file():  # what DVC knew about data and outs
        yield Event("tags", "train", {"deltarule.dvc_lock": sha256(lock)})
        yield Event("artifacts", "train", {lock.name: lock.name})
    for row in over_epochs(Outs(places.root).rows("train/history.csv")):
        yield Event("metrics", "train", _numbers(row), int(row["epoch"]))
    yield Event("metrics", "train", _numbers(read_json(places.trained / "metrics.json")))
    yield from _whole(places, "train", places.trained)


def _spec(spec: Mapping[str, Any]) -> Iterator[Event]:
    experiment = Experiment.model_validate(spec)
    yield Event("params", "train", params({key: v for key, v in flat(experiment).items() if key.partition(".")[0] in spec}))
    yield Event("text", "train", {"params.yaml": redact(dump(experiment))})
    yield Event("tags", "train", experiment.tracking.tags)


def _note(places: RunPaths, run: Mapping[str, Any], files: Sequence[str]) -> dict[str, str]:
    """What MLflow shows as the description of a run."""
    tags, _ = provenance.kept(places.root)
    command, commit = tags.get("deltarule.command", ""), tags.get("mlflow.source.git.commit", "")
    source = f"commit {commit[:12]}" if commit else "in no repository of git"
    changed = ", with changes that are in source/uncommitted.diff" if tags.get("deltarule.diff") else ""
    weights = "train/model.safetensors" if run["model_hash"] else "no weights, for it diverged"
    kept = ["report.html", "params.yaml", weights]
    if "mlflow" in files and run["model_hash"]:
        kept.append("an MLflow model of raw rows, `runs:/<id of this run>/model`")
    lines = summary(Outs(places.root))
    if tags:
        lines.append(f"Begun by {tags.get('mlflow.user', 'unknown')}, `{command}`, {source}{changed}.")
    lines.append(f"Kept: {', '.join(kept)}.")
    return {"mlflow.note.content": redact("\n".join(f"- {line}" for line in lines))}


def carried(places: RunPaths) -> Iterator[Event]:
    """The model for MLflow and files for other programs, where `export.carry` made them."""
    digest = read_json(places.run)["model_hash"]
    folder = places.carried(digest) if digest else None
    if folder is None or not (folder / "files.json").is_file():
        return
    kept = read_json(folder / "files.json")
    yield Event("tags", "model", redacted({"deltarule.files": kept["told"]}))
    if (folder / "model").is_dir():
        yield Event("model", "model", {"model": _below(places, folder / "model")})
    files = [path for kind in ("onnx", "native") for path in sorted((folder / kind).glob("*"))]
    yield Event("artifacts", "model", {path.relative_to(folder).as_posix(): _below(places, path) for path in files})
    yield Event("mark", "model", {"outs": kept["mark"]})


def _report(places: RunPaths, about: dict[str, Any], run: dict[str, Any], stage: str) -> Iterator[Event]:
    folder = places.report(stage)
    if stage == "test":  # not before: these rows are no input of a run that has not opened them
        yield Event("inputs", stage, _inputs(about, run["spec"]["data"], "test"))
    if read_json(folder / "about.json").get("held"):
        yield Event("tags", stage, {"deltarule.held": "a threshold was missed on the validation rows"})
    found = _numbers(_flatten(read_json(folder / "metrics.json"), stage, "_"))
    # These stand in that file alone: MLflow would draw a chart of each.
    ends = {f"{name}_{end}" for name in found for end in ("low", "high")}
    found = {name: value for name, value in found.items() if name not in ends}
    yield Event("metrics", stage, found)
    yield from _whole(places, stage, folder)


def _whole(places: RunPaths, stage: str, folder: Path) -> Iterator[Event]:
    """The files of a stage, and the mark that its events are complete."""
    yield Event("artifacts", stage, {f"{stage}/{path.name}": _below(places, check(path)) for path in _outs(folder)})
    yield Event("mark", stage, {"outs": outs_hash(folder)})


def _flatten(nested: Mapping[str, Any], prefix: str = "", joint: str = ".") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{joint}{key}" if prefix else str(key)
        found.update(_flatten(value, name, joint) if isinstance(value, dict) else {name: value})
    return found


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """What is a number, or the text of one, as a float; an empty cell is none."""
    return {k: float(v) for k, v in values.items() if v is not None and v != "" and k != "epoch"}


def outs_hash(folder: Path) -> str:
    """SHA-256 over names and bytes of all that a stage wrote."""
    listing = "".join(f"{path.name} {sha256(path)}\n" for path in _outs(folder))
    return hashlib.sha256(listing.encode()).hexdigest()


def _outs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _below(places: RunPaths, path: Path) -> str:
    return path.relative_to(places.root).as_posix()


# -- the rows as MLflow knows data sets --


def _inputs(about: Mapping[str, Any], data: Mapping[str, Any], *parts: str) -> dict[str, dict[str, str]]:
    """Context -> the rows of a part, as MLflow's Dataset takes them, without a row.

    `data` is that block of the spec. Only what is relative or public is said of the place.
    """
    found = {}
    for part in (part for part in parts if part in about["sha256"]):
        kind, place = _kind_and_place(data["source"], part)
        stem = Path(place).stem if kind == "local" else place
        found[CONTEXTS[part]] = {
            "name": f"{stem} {CONTEXTS[part]}"[-NAME_CHARACTERS:],
            "digest": about["sha256"][part][:DIGEST_CHARACTERS],
            "source_type": kind,
            "source": json.dumps({"uri": place}),
            "schema": _schema(about),
            "profile": json.dumps({"num_rows": about["rows"].get(part), "num_columns": len(about.get("kinds", {}))}),
        }
    return found


def _kind_and_place(source: str | Mapping[str, Any], part: str) -> tuple[str, str]:
    """Its kind and place; of an absolute path the name."""
    text = redact(source if isinstance(source, str) else source.get(part) or source["train"])
    scheme, colon, _ = text.partition(":")
    if colon and len(scheme) > 1:
        return ("openml" if scheme == "openml" else "http"), text
    if not Path(text).suffix:
        return "bundled", text
    return "local", Path(text).name if Path(text).is_absolute() else Path(text).as_posix()


def _schema(about: Mapping[str, Any]) -> str:
    """Columns as MLflow's pages show them; of very many, none."""
    targets = set(about.get("targets", ()))
    columns = [
        {"type": TYPES[kind], "name": f"{name} (target)" if name in targets else name, "required": False}
        for name, kind in about.get("kinds", {}).items()
        if kind in TYPES
    ]
    text = json.dumps({"mlflow_colspec": columns})
    return text if len(text) < SCHEMA_CHARACTERS else json.dumps({"mlflow_colspec": []})
