"""Optuna and Lightning, as Optuna's own examples write it: a Trainer a trial, one after another; each a child run in MLflow.

Prints the best validation cross-entropy and its parameters as JSON.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from itertools import pairwise

import digits
import mlflow
import optuna
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

EPOCHS, BATCH = 30, 32
STORE = "sqlite:///mlflow.db"
ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class Net(pl.LightningModule):
    """64-128-64-10 with dropout after each hidden layer, penalties on the weight matrices."""

    def __init__(self, activation: str, l1: float, l2: float, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((64, 128, 64)):
            layers += [nn.Linear(inputs, outputs), ACTIVATIONS[activation](), nn.Dropout(dropout)]
        self.net = nn.Sequential(*layers, nn.Linear(64, 10))
        self.loss_of = nn.CrossEntropyLoss()
        self.l1, self.l2 = l1, l2
        self.best = math.inf

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        loss = self.loss_of(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        matrices = [layer.weight for layer in self.net if isinstance(layer, nn.Linear)]
        return loss + sum(self.l1 * w.abs().sum() + self.l2 * w.square().sum() for w in matrices)

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        logits = self.net(batch[0])
        self.log("val_loss", self.loss_of(logits, batch[1]))
        self.log("val_accuracy", (logits.argmax(1) == batch[1]).float().mean())

    def on_validation_epoch_end(self) -> None:
        self.best = min(self.best, self.trainer.callback_metrics["val_loss"].item())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main() -> None:
    """The study, under one parent run."""
    chosen = digits.options(__doc__)
    for name in ("pytorch_lightning", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    X, y, X_valid, y_valid = map(torch.from_numpy, digits.load(chosen.rows))
    train, valid = TensorDataset(X, y.long()), TensorDataset(X_valid, y_valid.long())

    def objective(trial: optuna.Trial) -> float:
        model = Net(
            trial.suggest_categorical("activation", list(ACTIVATIONS)), trial.suggest_float("l1", 1e-6, 1e-3, log=True),
            trial.suggest_float("l2", 1e-6, 1e-2, log=True), trial.suggest_float("dropout", 0.0, 0.5),
        )  # fmt: skip
        logger = MLFlowLogger("digits", run_name=f"trial {trial.number}", tracking_uri=STORE, tags={"mlflow.parentRunId": parent})
        logger.log_hyperparams(trial.params)
        trainer = pl.Trainer(max_epochs=EPOCHS, logger=logger, num_sanity_val_steps=0, enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        trainer.fit(model, DataLoader(train, BATCH, shuffle=True), DataLoader(valid, BATCH))
        return model.best

    pl.seed_everything(chosen.seed)
    mlflow.set_tracking_uri(STORE)
    mlflow.set_experiment("digits")
    with mlflow.start_run(run_name="study") as run:
        parent = run.info.run_id
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=chosen.seed))
        study.optimize(objective, n_trials=chosen.trials)
        mlflow.log_params(study.best_params)
        mlflow.log_metric("best_val_loss", study.best_value)
    print(json.dumps({"best": study.best_value, "params": study.best_params}))


if __name__ == "__main__":
    main()
