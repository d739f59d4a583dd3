"""The files of a study that never was, for tests of its record and figures: small, and quick to make."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.search.records import StudyRecord, TrialRecord, save_curve, save_study
from pipelines.search.storage import open_storage
from pipelines.search.trials import OURS, draw
from pipelines.spec import Experiment

ACTIVATIONS = ("relu", "tanh", "sigmoid")
SPACE = {
    "model.activation": {"choices": list(ACTIVATIONS)},
    "model.dropout": {"low": 0.0, "high": 0.6},
    "regularization.l1": {"low": 1e-6, "high": 1e-2, "log": True, "or": 0.0},
    "regularization.l2": {"low": 1e-6, "high": 1e-2, "log": True},
    "train.optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
}
TRACKING = {"experiment": "tests"}


def spec(**blocks) -> Experiment:
    search = {"metric": "loss", "space": SPACE, **blocks.pop("search", {})}
    return Experiment.model_validate({"tracking": TRACKING, "search": search, **blocks})


def study(count=64, *, epochs=30, name="s", metrics=("loss",), seeds=1, seed=0, experiment=None, states=True) -> StudyRecord:
    """A study of `count` trials: most complete, some pruned, some failed; λ1 is drawn in some trials only."""
    directions = tuple("maximize" if metric == "accuracy" else "minimize" for metric in metrics)
    rng = np.random.default_rng(seed)
    trials = tuple(trial(n, rng, epochs, metrics, seeds, states) for n in range(count))
    made = experiment or spec(search={"metric": list(metrics), "direction": list(directions)})
    record = StudyRecord(name, {"space": "ab12", "spec": "cd34"}, metrics, directions, trials, None, (), made)
    done = [t for t in trials if t.state == "COMPLETE"]
    sign = [1 if direction == "minimize" else -1 for direction in directions]
    best = min(done, key=lambda t: sign[0] * t.values[0]).number if done and len(metrics) == 1 else None
    return replace(record, best=best, front=tuple(t.number for t in done if not any(beats(o, t, sign) for o in done)))


def beats(one, other, sign) -> bool:
    pairs = [(s * a, s * b) for a, b, s in zip(one.values, other.values, sign, strict=True)]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def trial(number, rng, epochs=30, metrics=("loss",), seeds=1, states=True) -> TrialRecord:
    params = {"model.activation": str(rng.choice(ACTIVATIONS)), "model.dropout": float(rng.uniform(0, 0.6))}
    params["regularization.l1 or"] = "range" if rng.random() < 0.6 else 0.0
    if params["regularization.l1 or"] == "range":
        params["regularization.l1"] = float(10 ** rng.uniform(-6, -2))
    params["regularization.l2"] = float(10 ** rng.uniform(-6, -2))
    params["train.optimizer.learning_rate"] = float(10 ** rng.uniform(-4, -1))
    changes = {path: params.get(path, 0.0) for path in SPACE}
    state = "COMPLETE" if not states or number % 16 != 7 else "FAIL"
    state = "PRUNED" if states and state == "COMPLETE" and number > 8 and rng.random() < 0.3 else state
    done = {"COMPLETE": epochs, "PRUNED": max(1, epochs // 3), "FAIL": min(2, epochs)}[state]
    history = tuple(record(params, epoch, rng, lost=state == "FAIL" and epoch == done) for epoch in range(1, done + 1))
    best = min(history[: done - (state == "FAIL")], key=lambda row: row["val_loss"], default=None)
    weights = int(rng.integers(2000, 40000))
    found = {"weights": float(weights), **({m: best[f"val_{m}"] for m in ("loss", "accuracy")} if best else {})}
    values = tuple(found[metric] for metric in metrics) if state == "COMPLETE" else ()
    reasons = {
        "COMPLETE": f"completed {done} epochs",
        "PRUNED": f"pruned after epoch {done}",
        "FAIL": "diverged at step 17: E is NaN",
    }
    return TrialRecord(
        number, state, params, changes, values, tuple(0.1 * v for v in values) if seeds > 1 else (), reasons[state],
        done * seeds, 34 * done * seeds, int(best["epoch"]) if best else None, 0, number // 16, "base", weights, history,
    )  # fmt: skip


def record(params, epoch, rng, lost) -> dict[str, float]:
    """Worse far from λ2 = 1e-4, p = 0.2 and η = 1e-2; a sigmoid is slower."""
    far = 0.05 * (math.log10(params["regularization.l2"]) + 4) ** 2 + 1.5 * (params["model.dropout"] - 0.2) ** 2
    far += 0.12 * (math.log10(params["train.optimizer.learning_rate"]) + 2) ** 2 + 0.3 * (params["model.activation"] == "sigmoid")
    loss = 0.1 + far + 2 * math.exp(-epoch / 4) + float(rng.normal(0, 0.01))
    train = math.nan if lost else 0.8 * loss
    return {
        "epoch": float(epoch), "train_loss": train, "train_penalty": 0.01, "train_objective": train + 0.01, "learning_rate": 1e-3,
        "val_loss": math.inf if lost else loss, "val_accuracy": 1 / (1 + loss), "val_macro_f1": 0.98 / (1 + loss),
    }  # fmt: skip


def make(project: Path, count=64, **options) -> Path:
    """The folder of a study below a project, with all its files but figures."""
    made = study(count, **options)
    folder = project / "studies" / made.name
    save(folder, made, {"model.dropout": 0.6, "regularization.l2": 0.4})
    (folder / "trials.csv").write_text("number,state\n" + "".join(f"{t.number},{t.state}\n" for t in made.trials))
    if made.best is not None:
        lines = [f"{path}: {value}\n" for path, value in made.trial(made.best).changes.items()]
        (folder / "winner.yaml").write_text("".join(lines))
    return folder


def save(folder: Path, made: StudyRecord, importances=None) -> None:
    """The study in its storage, anew, with its curves and study.json."""
    import optuna

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "optuna.log").unlink(missing_ok=True)
    stored = optuna.create_study(storage=open_storage(folder, None), study_name=made.name, directions=made.directions)
    stored.set_user_attr(OURS, {"identity": made.identity})
    for one in made.trials:
        fixed = optuna.trial.FixedTrial(one.params, number=one.number)
        draw(fixed, made.spec)
        details = {"generation": one.generation, "changes": one.changes, **one.details()}
        stored.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[one.state], values=one.values or None, params=one.params,
                distributions=fixed.distributions, user_attrs={OURS: details},
            )
        )  # fmt: skip
        save_curve(folder, one.number, one.history)
    save_study(folder, made, importances)
