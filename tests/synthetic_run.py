"""The outs of a run that never was, for tests of tracking and figures: small, and quick to make."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.spec import Experiment

METRICS = {"multiclass": "accuracy", "binary": "accuracy", "regression": "rmse"}
SOURCES = {"multiclass": "digits", "binary": "breast_cancer", "regression": "diabetes"}


@dataclass(frozen=True)
class Root:
    """As much of Places as tracking and figures need."""

    root: Path


def make(
    root: Path,
    task: str = "multiclass",
    *,
    stages=("data", "train", "validate", "test"),
    epochs=6,
    fingerprint="3f2a" + "0" * 28,
    ended="completed",
    spec=None,
    diverged_at=None,
) -> Root:
    """Write the outs of these stages below `root`."""
    experiment = spec or Experiment.model_validate({"data": {"source": SOURCES[task]}, "tracking": {"experiment": "tests"}})
    if "data" in stages:
        write_json(root / "outputs/data/about.json", {"source": experiment.data.source, "task": task, "rows": {"train": 60}})
    if "train" in stages:
        write_train(root, task, experiment, epochs, fingerprint, ended, diverged_at)
    for stage, seed in (("validate", 1), ("test", 2)):
        if stage in stages:
            write_report(root, task, stage, seed)
    return Root(root)


def write_train(root, task, experiment, epochs, fingerprint, ended, diverged_at):
    best = (diverged_at or epochs) - 1 or None
    run = {
        "spec": experiment.model_dump(mode="json"),
        "fingerprint": fingerprint,
        "backend": experiment.train.backend,
        "versions": {"torch": "2.13.0", "python": "3.11.7"},
        "environment": {"cpu": "a processor", "threads": 1},
        "data_hashes": {"train": "aa11", "valid": "bb22"},
        "ended": ended,
        "message": "all epochs were carried out" if ended == "completed" else "the loss became NaN in epoch 3",
        "best_epoch": best,
    }
    write_json(root / "outputs/train/run.json", run)
    write_csv(root / "outputs/train/history.csv", [record(task, e, diverged_at) for e in range(1, epochs + 1)])
    write_json(root / "outputs/train/metrics.json", {"loss": 0.2, "best_epoch": best})
    (root / "outputs/train/model.safetensors").write_bytes(b"weights")


def record(task, epoch, diverged_at=None):
    lost = diverged_at is not None and epoch >= diverged_at
    loss = float("nan") if lost else 2 * np.exp(-epoch / 5)
    values = {"epoch": epoch, "train_loss": loss, "train_penalty": 0.1 / epoch, "train_objective": loss + 0.1 / epoch}
    values |= {"learning_rate": 1e-3, "val_loss": float("inf") if lost else loss * 1.1 + 0.02 * epoch}
    values |= {f"val_{METRICS[task]}": 1 - loss / 3}
    values |= {f"delta_rms_{layer}": 10.0 ** (layer - 4) / np.sqrt(epoch) for layer in (1, 2, 3)}
    return values | {f"{kind}_{layer}": 0.02 * layer * epoch / 6 for kind in ("saturated", "dead") for layer in (1, 2)}


def write_report(root, task, stage, seed):
    rng, name = np.random.default_rng(seed), METRICS[task]
    metrics = {"loss": 0.3, name: 0.9}
    if stage == "test":
        metrics |= {f"{name}_low": 0.85, f"{name}_high": 0.94}
    folder = root / "outputs" / stage
    write_json(folder / "metrics.json", metrics)
    if task == "regression":
        actual = rng.normal(150, 60, 90)
        guess = actual * 0.7 + 45 + rng.normal(0, 30, 90)
        rows = [
            {"target": "progression", "actual": a, "predicted": p, "residual": a - p} for a, p in zip(actual, guess, strict=True)
        ]
        write_csv(folder / "residuals.csv", rows)
        return
    classes = [str(c) for c in range(10)] if task == "multiclass" else ["benign", "malignant"]
    pairs = [(a, a if rng.random() < 0.93 else rng.choice(classes)) for a in rng.choice(classes, 200)]
    write_csv(folder / "confusion.csv", [{"actual": a, "predicted": p} for a, p in pairs])
    shown = classes if task == "multiclass" else ["malignant"]
    steps = np.linspace(0, 1, 30)
    curves = [{"class": c, "fpr": x, "tpr": x ** (0.05 + 0.02 * i)} for i, c in enumerate(shown) for x in steps]
    write_csv(folder / "roc.csv", curves)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
