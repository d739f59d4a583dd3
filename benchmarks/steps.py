"""Microseconds an optimizer step (and a trial-step, for stacks) beside the frameworks' own loops: `make bench`.

Digits, 64-128-64-10, batch 32, dropout 0.2, L1 and L2, Adam, float32, validation at each epoch. Every candidate lives in a
process of its own with one thread; rounds alternate between them, so that a busy machine slows all alike. Steady-state
epochs only: imports, tracing and the first epochs are shown apart. The ratio of medians is the number to quote.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

EPOCHS, BATCH, L1, L2, P = 4, 32, 1e-5, 1e-4, 0.2
Rounds = Iterator[float]  # seconds of EPOCHS epochs in the steady state; the first value is the warm-up


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    return X[:1078], y[:1078], X[1078:1437], y[1078:1437]


def ours(backend: str, width: int) -> Rounds:
    """Our backend with a stack of `width` trials that differ in λ, dropout and activation, validated at each epoch."""
    from backends import get
    from backends.base import Data
    from backends.spec import Model, Regularization, Train, Trial
    from backends.supervisor import Supervisor

    X, y, X_valid, y_valid = digits()
    names = ("relu", "tanh", "sigmoid", "leaky_relu") if width > 1 else ("relu",)
    trials = [
        Trial(seed=1, task="multiclass", inputs=64, outputs=10,
              model=Model(hidden=(128, 64), activation=names[k % len(names)], dropout=P),
              regularization=Regularization(l1=L1 * (1 + k), l2=L2), train=Train(batch_size=BATCH, epochs=10**6))
        for k in range(width)
    ]  # fmt: skip
    supervisor = Supervisor(get(backend), trials, Data(X, y, X_valid, y_valid))
    while True:
        start = time.perf_counter()
        supervisor.run(until_epoch=supervisor.epoch + EPOCHS)
        yield time.perf_counter() - start


def torch_loop() -> Rounds:
    """A hand-written PyTorch loop with DataLoader, as its own tutorials write it."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    X, y, X_valid, y_valid = (torch.from_numpy(array) for array in digits())
    net = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Dropout(P), nn.Linear(128, 64), nn.ReLU(), nn.Dropout(P), nn.Linear(64, 10)
    )
    train = DataLoader(TensorDataset(X, y), batch_size=BATCH, shuffle=True)
    valid = DataLoader(TensorDataset(X_valid, y_valid), batch_size=BATCH)
    optimizer, loss_of = torch.optim.Adam(net.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    matrices = [p for name, p in net.named_parameters() if "weight" in name]
    while True:
        start = time.perf_counter()
        for _ in range(EPOCHS):
            net.train()
            for rows, labels in train:
                optimizer.zero_grad()
                loss = loss_of(net(rows), labels)
                loss = loss + sum(L1 * w.abs().sum() + L2 * w.square().sum() for w in matrices)
                loss.backward()
                optimizer.step()
            net.eval()
            with torch.no_grad():
                sum(loss_of(net(rows), labels).item() for rows, labels in valid)
        yield time.perf_counter() - start


def lightning_loader() -> Rounds:
    """Lightning with DataLoader and `self.log`, as its own tutorials write it."""
    import logging
    import tempfile
    import warnings

    import pytorch_lightning as pl
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(64, 128), nn.ReLU(), nn.Dropout(P), nn.Linear(128, 64), nn.ReLU(), nn.Dropout(P), nn.Linear(64, 10)
            )
            self.loss_of = nn.CrossEntropyLoss()

        def training_step(self, batch: Any, _: int) -> Any:
            loss = self.loss_of(self.net(batch[0]), batch[1])
            for name, p in self.net.named_parameters():
                if "weight" in name:
                    loss = loss + L1 * p.abs().sum() + L2 * p.square().sum()
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", self.loss_of(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.at: list[float] = []

        def on_train_epoch_end(self, *_: Any) -> None:
            self.at.append(time.perf_counter())

    X, y, X_valid, y_valid = (torch.from_numpy(array) for array in digits())
    train = DataLoader(TensorDataset(X, y), batch_size=BATCH, shuffle=True)
    valid = DataLoader(TensorDataset(X_valid, y_valid), batch_size=BATCH)
    model = Net()
    while True:
        clock = Clock()
        trainer = pl.Trainer(max_epochs=EPOCHS + 1, accelerator="cpu", callbacks=[clock], default_root_dir=tempfile.mkdtemp(),
                             logger=pl.loggers.CSVLogger(tempfile.mkdtemp()), enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        trainer.fit(model, train, valid)
        yield clock.at[-1] - clock.at[0]


def keras_fit() -> Rounds:
    """Keras on TensorFlow: `model.fit` with validation, as its own tutorials write it."""
    import keras

    X, y, X_valid, y_valid = digits()
    penalty = keras.regularizers.L1L2(L1, L2)
    model = keras.Sequential([
        keras.Input((64,)), keras.layers.Dense(128, "relu", kernel_regularizer=penalty), keras.layers.Dropout(P),
        keras.layers.Dense(64, "relu", kernel_regularizer=penalty), keras.layers.Dropout(P),
        keras.layers.Dense(10, kernel_regularizer=penalty),
    ])  # fmt: skip
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    while True:
        start = time.perf_counter()
        model.fit(X, y, batch_size=BATCH, epochs=EPOCHS, validation_data=(X_valid, y_valid), verbose=0)
        yield time.perf_counter() - start


CANDIDATES: dict[str, tuple[int, Callable[[], Rounds]]] = {
    "lightning-dataloader": (1, lightning_loader),
    "torch-loop": (1, torch_loop),
    "lightning K=1": (1, lambda: ours("lightning", 1)),
    "lightning K=16": (16, lambda: ours("lightning", 16)),
    "keras-fit": (1, keras_fit),
    "keras K=1": (1, lambda: ours("keras", 1)),
    "keras K=16": (16, lambda: ours("keras", 16)),
}
STEPS = EPOCHS * -(-1078 // BATCH)


def serve(name: str) -> None:
    """A round for each line on standard input, its seconds on standard output."""
    said = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a framework prints is not a result
    rounds = CANDIDATES[name][1]()
    for _ in sys.stdin:
        print(json.dumps(next(rounds)), file=said)


def main() -> None:
    """Alternate the candidates, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=list(CANDIDATES))
    parser.add_argument("--serve")
    chosen = parser.parse_args()
    if chosen.serve:
        return serve(chosen.serve)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1",
                                "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}  # fmt: skip
    workers = {
        name: subprocess.Popen([sys.executable, __file__, "--serve", name], env=environment, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for name in chosen.only
    }  # fmt: skip
    taken: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(chosen.rounds + 1):  # the first round holds imports and tracing
        for name, worker in workers.items():
            assert worker.stdin and worker.stdout
            print("go", file=worker.stdin, flush=True)
            taken[name].append(json.loads(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    median = {name: statistics.median(seconds[1:]) / STEPS / CANDIDATES[name][0] * 1e6 for name, seconds in taken.items()}
    base = {"lightning": "lightning-dataloader", "keras": "keras-fit", "torch": "lightning-dataloader"}
    print(f"{'candidate':22} {'µs a trial-step':>16} {'min':>8} {'max':>8} {'first round s':>14} {'times faster':>13}")
    for name, seconds in taken.items():
        each = [s / STEPS / CANDIDATES[name][0] * 1e6 for s in seconds[1:]]
        peer = base[name.split()[0].split("-")[0]]
        ratio = f"{median[peer] / median[name]:.2f}" if peer in median else ""
        print(f"{name:22} {median[name]:16.0f} {min(each):8.0f} {max(each):8.0f} {seconds[0]:14.2f} {ratio:>13}")


if __name__ == "__main__":
    main()
