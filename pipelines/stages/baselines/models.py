"""The simple models, each as a function from preprocessed rows to what comes before softmax or sigmoid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import backends
from backends.base import Data
from backends.losses import targets
from backends.spec import Adam, EarlyStopping, Model, NDArray, Regularization, Train, Trial
from backends.supervisor import fit
from pipelines.data import Part
from pipelines.stages.networks import predict

Outputs = Callable[[NDArray], NDArray]  # rows X (n, I) -> (n, O)

# What bounds the time, beside the rows: optimizer steps of the linear model, and how many
# without a better one end it; trees of boosting.
STEPS, PATIENCE, TREES = 200, 20, 200
CONSTANT = "majority class"
TINY = 1e-15  # the least probability


def models(trial: Trial, learn: Part, choose: Part) -> Iterator[tuple[str, Outputs]]:
    """Each baseline that these rows can have; the constant comes first."""
    from threadpoolctl import threadpool_limits

    constant, boosting = _of_scikit_learn(trial)
    w = np.ones(len(learn.y)) if learn.weights is None else learn.weights
    numbers = trial.task == "regression"
    y = targets(trial.task, learn.y, trial.outputs) if numbers else learn.y
    yield "mean" if numbers else CONSTANT, partial(_outputs, trial, constant.fit(learn.X, y, w))
    if (linear := _linear(trial, learn, choose)) is not None:
        yield "linear model", linear
    if trial.class_weights is not None:
        w = w * np.array(trial.class_weights)[y]
    if numbers or len(np.unique(y)) > 1:
        with threadpool_limits(1, "openmp"):  # so few rows gain nothing from several
            boosting.fit(learn.X, y, w)
        yield "HistGradientBoosting", partial(_outputs, trial, boosting)


def _of_scikit_learn(trial: Trial) -> tuple[Any, Any]:
    """The constant, and boosting."""
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.multioutput import MultiOutputRegressor

    rounds = max(20, min(100, TREES // trial.outputs))
    # 100 rounds of 0.1 are the defaults.
    how = {"max_iter": rounds, "learning_rate": min(0.3, 10 / rounds), "random_state": 0}
    if trial.task == "regression":
        return DummyRegressor(), MultiOutputRegressor(HistGradientBoostingRegressor(**how))
    return DummyClassifier(), HistGradientBoostingClassifier(**how)


def _outputs(trial: Trial, model: Any, X: NDArray) -> NDArray:
    """Of a model of scikit-learn."""
    if trial.task == "regression":
        return np.reshape(model.predict(X), (len(X), trial.outputs))
    P = np.zeros((len(X), trial.classes))
    P[:, model.classes_] = model.predict_proba(X)
    logs = np.log(np.clip(P, TINY, 1))
    return logs[:, 1:] - logs[:, :1] if trial.task == "binary" else logs


def _linear(trial: Trial, learn: Part, choose: Part) -> Outputs | None:
    """The network with `hidden: []`, by the reference; None where it diverged."""
    network = _without_hidden_layers(trial, len(learn.y))
    rows = Data(learn.X, learn.y, choose.X, choose.y, (trial.fold,), learn.weights)
    [done] = fit(backends.get("reference"), [network], rows)
    return None if done.weights is None else partial(predict, network, done.weights)


def _without_hidden_layers(trial: Trial, rows: int) -> Trial:
    """In steps on all rows at once: those that suit a deep network may leave it half trained."""
    train = Train(
        optimizer=Adam(name="adam", learning_rate=0.05),
        epochs=STEPS,
        batch_size=rows,
        class_weights=trial.train.class_weights,
        early_stopping=EarlyStopping(patience=PATIENCE),
    )
    penalty = Regularization(l1=trial.l1[-1], l2=trial.l2[-1])
    alone = {"model": Model(hidden=()), "regularization": penalty, "train": train}
    return Trial.model_validate({**trial.model_dump(), **alone})
