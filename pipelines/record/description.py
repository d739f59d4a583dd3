"""A run in five lines of Markdown, which MLflow shows as its description: what, how it ended, how good, by whom, what is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SHOWN = 2  # metrics of a report
COMMAND_CHARACTERS = 300
STAGES = {"validate": "validation", "test": "test"}


def write(
    about: Mapping[str, Any],
    run: Mapping[str, Any],
    trained: Mapping[str, Any],
    reports: Mapping[str, Mapping[str, float]],
    tags: Mapping[str, str],
    has_model: bool,
) -> str:
    """`about`, `run` and `trained` are what the stages wrote, `reports` stage -> metrics, `tags` those of its beginning."""
    return "\n".join(
        f"- **{name}** {text}"
        for name, text in (
            ("Run:", _what(about, run)),
            ("Ended:", _end(run, trained)),
            ("Result:", "; ".join(_results(reports)) or "not validated yet"),
            ("Begun:", _beginning(tags)),
            ("Kept:", _kept(run, has_model)),
        )
    )


def _what(about: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    spec, rows = run["spec"], about["rows"]
    counts = ", ".join(
        f"{rows[part]} {name}" for part, name in (("train", "train"), ("valid", "validate"), ("test", "test")) if part in rows
    )
    folds = spec["data"].get("split", {}).get("folds")
    network = "-".join(map(str, spec["model"]["hidden"])) or "no hidden layer"
    return (
        f"{_source(about['source'])}, {about['task']}, rows: {counts}{f' in {folds} folds' if folds else ''}; {network} "
        f"{spec['model']['activation']}, backend {run['backend']}, seed {spec['seed']}"
    )


def _source(source: str) -> str:
    return Path(source).name if Path(source).is_absolute() else source


def _end(run: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    best = trained.get("best_epoch")
    epoch = (
        f"best epoch {best:g} of {trained['epochs']:g}"
        if best
        else f"after {trained.get('epochs', 0):g} epochs, none of them sound"
    )
    return f"{epoch}; {run['message']}"


def _results(reports: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """The first metrics of each report, with the ends of their intervals where it has them."""
    for stage, found in reports.items():
        names = [name for name in found if not name.endswith(("_low", "_high", "_sd"))][:SHOWN]
        yield f"{STAGES[stage]} {', '.join(_value(name, found) for name in names)}"


def _value(name: str, found: Mapping[str, float]) -> str:
    low, high, spread = (found.get(f"{name}_{end}") for end in ("low", "high", "sd"))
    if low is not None and high is not None:
        return f"{name} {found[name]:.4g} [{low:.4g}, {high:.4g}]"
    return f"{name} {found[name]:.4g}{f' ± {spread:.2g}' if spread is not None else ''}"


def _beginning(tags: Mapping[str, str]) -> str:
    commit = tags.get("mlflow.source.git.commit")
    if not tags:
        return "not known"
    command = tags.get("deltarule.command", "")
    shown = command if len(command) <= COMMAND_CHARACTERS else f"{command[:COMMAND_CHARACTERS]} ..."
    changed = ", with changes that are in source/uncommitted.diff" if tags.get("deltarule.diff") else ""
    return f"by {tags.get('mlflow.user', 'unknown')}, `{shown}`, " + (
        f"commit {commit[:12]}{changed}" if commit else "in no repository of git"
    )


def _kept(run: Mapping[str, Any], has_model: bool) -> str:
    weights = "train/model.safetensors" if run["model_hash"] else "none, for it diverged"
    model = ", an MLflow model of raw rows `runs:/<id of this run>/model`" if has_model and run["model_hash"] else ""
    return f"report.html, the spec params.yaml; weights: {weights}{model}"
