"""The outs of a run that never was, for tests of tracking and figures: small, and quick to make."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np

from pipelines.spec import Experiment
from pipelines.stages.paths import RunPaths

METRICS = {"multiclass": "accuracy", "binary": "accuracy", "regression": "rmse"}
SOURCES = {"multiclass": "digits", "binary": "breast_cancer", "regression": "diabetes"}


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
) -> RunPaths:
    """Write the outs of these stages below `root`."""
    experiment = spec or Experiment.model_validate({"data": {"source": SOURCES[task]}, "tracking": {"experiment": "tests"}})
    if "data" in stages:
        hashes = {"train": "aa11", "valid": "bb22", "test": "cc33"}
        about = {"source": experiment.data.source, "task": task, "rows": {"train": 60, "valid": 20, "test": 20}, "sha256": hashes}
        write_json(root / "outputs/data/about.json", about)
    content = f"model of {fingerprint} after {epochs}".encode()
    model = None if ended == "diverged" else hashlib.sha256(content).hexdigest()
    if "train" in stages:
        write_train(root, task, experiment, epochs, fingerprint, ended, diverged_at, model, content)
    for stage, seed in (("validate", 1), ("test", 2)):
        if stage in stages:
            write_report(root, task, stage, seed, model)
    return RunPaths(root)


def write_train(root, task, experiment, epochs, fingerprint, ended, diverged_at, model, content):
    best = (diverged_at or epochs) - 1 or None
    run = {
        "spec": experiment.model_dump(mode="json", include={"seed", "data", "model", "regularization", "train"}),
        "fingerprint": fingerprint,
        "backend": experiment.train.backend,
        "versions": {"torch": "2.13.0", "python": "3.11.7"},
        "environment": {"cpu": "a processor", "threads": 1},
        "data_hashes": {"train": "aa11", "valid": "bb22"},
        "model_hash": model,
        "ended": ended,
        "message": "all epochs were carried out" if ended == "completed" else "the loss became NaN in epoch 3",
        "best_epoch": best,
    }
    write_json(root / "outputs/train/run.json", run)
    history = [record(task, e, diverged_at) for e in range(1, epochs + 1)]
    write_csv(root / "outputs/train/history.csv", history)
    chosen = {f"best_{k}": v for k, v in (history[best - 1] if best else {}).items() if k.startswith(("train_", "val_"))}
    write_json(root / "outputs/train/metrics.json", {"epochs": epochs, "steps": 2 * epochs, "best_epoch": best, **chosen})
    if model:
        (root / "outputs/train/model.safetensors").write_bytes(content)
        edges = np.linspace(-0.4, 0.4, 12)
        bins = [
            {"layer": layer, "low": low, "high": high, "middle": (low + high) / 2, "initial": 10, "final": 10 * layer}
            for layer in (1, 2, 3)
            for low, high in itertools.pairwise(edges)
        ]
        write_csv(root / "outputs/train/weights.csv", bins)


def record(task, epoch, diverged_at=None):
    lost = diverged_at is not None and epoch >= diverged_at
    loss = float("nan") if lost else 2 * np.exp(-epoch / 5)
    values = {"epoch": epoch, "train_loss": loss, "train_penalty": 0.1 / epoch, "train_objective": loss + 0.1 / epoch}
    values |= {"learning_rate": 1e-3, "val_loss": float("inf") if lost else loss * 1.1 + 0.02 * epoch}
    values |= {f"val_{METRICS[task]}": 1 - loss / 3}
    values |= {f"delta_rms_{layer}": 10.0 ** (layer - 4) / np.sqrt(epoch) for layer in (1, 2, 3)}
    return values | {f"{kind}_{layer}": 0.02 * layer * epoch / 6 for kind in ("saturated", "dead") for layer in (1, 2)}


def write_report(root, task, stage, seed, model):
    rng, name = np.random.default_rng(seed), METRICS[task]
    metrics = {"loss": 0.3, name: 0.9}
    if stage == "test":
        metrics |= {f"{name}_low": 0.85, f"{name}_high": 0.94}
    folder = root / "outputs" / stage
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "about.json", {"model_hash": model, **({"held": False} if stage == "validate" else {})})
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
    write_csv(
        folder / "pr.csv", [{"class": c, "recall": x, "precision": 1 - x / (4 + i)} for i, c in enumerate(shown) for x in steps]
    )
    of = "the predicted class" if task == "multiclass" else "malignant"
    bins = [(p - 0.05, p + 0.05, p, p - 0.02, p - 0.1, p + 0.04) for p in np.linspace(0.1, 0.9, 5)]
    names = ("least", "greatest", "predicted", "observed", "observed_low", "observed_high")
    write_csv(folder / "calibration.csv", [{"probability_of": of, "rows": 40, **dict(zip(names, b, strict=True))} for b in bins])
    each = {"rows": 20, "predicted": 21, "precision": 0.9, "recall": 0.95, "f1": 0.92, "roc_auc": 0.99, "pr_auc": 0.98}
    write_csv(folder / "classes.csv", [{"class": c, **each} for c in classes])


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
