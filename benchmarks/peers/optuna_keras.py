"""Optuna and Keras on TensorFlow, as Optuna's own examples write it: `compile` and `fit` a trial; each a child run in MLflow.

Prints the best validation cross-entropy and its parameters as JSON.
"""

from __future__ import annotations

import json
import logging
import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import digits
import keras
import mlflow
import optuna

EPOCHS, BATCH = 30, 32
ACTIVATIONS = ["relu", "leaky_relu", "tanh", "sigmoid"]


def build(activation: str, l1: float, l2: float, dropout: float) -> keras.Model:
    """64-128-64-10 with dropout after each hidden layer, penalties on the weight matrices."""
    penalty = keras.regularizers.L1L2(l1, l2)
    layers = [keras.Input((64,))]
    for units in (128, 64):
        layers += [
            keras.layers.Dense(units, kernel_regularizer=penalty),
            keras.layers.LeakyReLU(0.01) if activation == "leaky_relu" else keras.layers.Activation(activation),
            keras.layers.Dropout(dropout),
        ]
    model = keras.Sequential([*layers, keras.layers.Dense(10, kernel_regularizer=penalty)])
    # As a metric too: the loss that `fit` reports holds the penalty, by which trials of different λ cannot be compared.
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalCrossentropy("cross_entropy", from_logits=True), "accuracy"],
    )
    return model


def main() -> None:
    """The study, under one parent run."""
    chosen = digits.options(__doc__)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    X, y, X_valid, y_valid = digits.load(chosen.rows)

    def objective(trial: optuna.Trial) -> float:
        keras.backend.clear_session()
        model = build(
            trial.suggest_categorical("activation", ACTIVATIONS), trial.suggest_float("l1", 1e-6, 1e-3, log=True),
            trial.suggest_float("l2", 1e-6, 1e-2, log=True), trial.suggest_float("dropout", 0.0, 0.5),
        )  # fmt: skip
        with mlflow.start_run(run_name=f"trial {trial.number}", nested=True):
            mlflow.log_params(trial.params)
            logged = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: mlflow.log_metrics(logs, step=epoch))
            fitted = model.fit(
                X, y, batch_size=BATCH, epochs=EPOCHS, validation_data=(X_valid, y_valid), callbacks=[logged], verbose=0
            )
        return min(fitted.history["val_cross_entropy"])

    keras.utils.set_random_seed(chosen.seed)
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("digits")
    with mlflow.start_run(run_name="study"):
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=chosen.seed))
        study.optimize(objective, n_trials=chosen.trials)
        mlflow.log_params(study.best_params)
        mlflow.log_metric("best_val_loss", study.best_value)
    print(json.dumps({"best": study.best_value, "params": study.best_params}))


if __name__ == "__main__":
    main()
