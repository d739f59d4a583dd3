"""Microseconds an optimizer step (and a trial-step, for stacks) beside the frameworks' own loops: `make bench`.

Digits, 64-128-64-10, batch 32, dropout 0.2, L1 and L2, Adam, float32, validation at each epoch; `--net large` is
512-512-512 with batch 1024 on generated rows, where the matrix products dominate. Every candidate has a process of its own;
rounds alternate between them, so that a busy machine slows all alike. Steady-state epochs only: imports, tracing and the
first epochs are shown apart. The ratio of medians is the number to quote. One thread each, or with `--threads free` as a
user runs it. On a machine with an accelerator everything runs there, and wider stacks can be named:

    python benchmarks/steps.py --only torch-loop "lightning K=16" "lightning K=256" "lightning K=1024"
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
from itertools import pairwise
from typing import Any

import numpy as np

L1, L2, P = 1e-5, 1e-4, 0.2
LARGE = os.environ.get("DELTARULE_BENCH_NET") == "large"  # set by main for its workers
EPOCHS, BATCH = (2, 1024) if LARGE else (4, 32)
HIDDEN = (512, 512, 512) if LARGE else (128, 64)
INPUTS, OUTPUTS = (512, 10) if LARGE else (64, 10)
ROWS, VALID = (16384, 2048) if LARGE else (1078, 359)
Rounds = Iterator[float]  # seconds of EPOCHS epochs in the steady state; the first value is the warm-up


def make_rows() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and validation rows and classes."""
    if LARGE:
        made = np.random.default_rng(0)
        X, y = made.normal(size=(ROWS + VALID, INPUTS)), made.integers(0, OUTPUTS, ROWS + VALID)
    else:
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        X = X / 16
    X = X.astype(np.float32)
    return X[:ROWS], y[:ROWS], X[ROWS : ROWS + VALID], y[ROWS : ROWS + VALID]


def ours(backend: str, width: int) -> Rounds:
    """Our backend with a stack of `width` trials that differ in λ, dropout and activation, validated at each epoch."""
    from backends import get
    from backends.base import Data
    from backends.spec import Model, Regularization, Train, Trial
    from backends.supervisor import Supervisor

    X, y, X_valid, y_valid = make_rows()
    names = ("relu", "tanh", "sigmoid", "leaky_relu") if width > 1 else ("relu",)
    trials = [
        Trial(seed=1, task="multiclass", inputs=INPUTS, outputs=OUTPUTS,
              model=Model(hidden=HIDDEN, activation=names[k % len(names)], dropout=P),
              regularization=Regularization(l1=L1 * (1 + k), l2=L2), train=Train(batch_size=BATCH, epochs=10**6))
        for k in range(width)
    ]  # fmt: skip
    supervisor = Supervisor(get(backend), trials, Data(X, y, X_valid, y_valid))
    while True:
        start = time.perf_counter()
        supervisor.run(until_epoch=supervisor.epoch + EPOCHS)
        yield time.perf_counter() - start


def torch_net() -> Any:
    """The net as PyTorch's tutorials write it."""
    from torch import nn

    layers: list[Any] = []
    for inputs, outputs in pairwise((INPUTS, *HIDDEN)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(P)]
    return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], OUTPUTS))


def torch_loop() -> Rounds:
    """A hand-written PyTorch loop with DataLoader, as its own tutorials write it."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    device = "cuda" if torch.cuda.is_available() else "cpu"
    X, y, X_valid, y_valid = (torch.from_numpy(array) for array in make_rows())
    net = torch_net().to(device)
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
                loss = loss_of(net(rows.to(device)), labels.to(device))
                loss = loss + sum(L1 * w.abs().sum() + L2 * w.square().sum() for w in matrices)
                loss.backward()
                optimizer.step()
            net.eval()
            with torch.no_grad():
                sum(loss_of(net(rows.to(device)), labels.to(device)).item() for rows, labels in valid)
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
            self.net = torch_net()
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

    X, y, X_valid, y_valid = (torch.from_numpy(array) for array in make_rows())
    train = DataLoader(TensorDataset(X, y), batch_size=BATCH, shuffle=True)
    valid = DataLoader(TensorDataset(X_valid, y_valid), batch_size=BATCH)
    model = Net()
    while True:
        clock = Clock()
        trainer = pl.Trainer(max_epochs=EPOCHS + 1, callbacks=[clock], default_root_dir=tempfile.mkdtemp(),
                             logger=pl.loggers.CSVLogger(tempfile.mkdtemp()), enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        trainer.fit(model, train, valid)
        yield clock.at[-1] - clock.at[0]


def keras_fit() -> Rounds:
    """Keras' `model.fit` with validation, as its own tutorials write it; on TensorFlow or JAX, as KERAS_BACKEND says."""
    import keras

    X, y, X_valid, y_valid = make_rows()
    penalty = keras.regularizers.L1L2(L1, L2)
    layers = [keras.Input((INPUTS,))]
    for units in HIDDEN:
        layers += [keras.layers.Dense(units, "relu", kernel_regularizer=penalty), keras.layers.Dropout(P)]
    model = keras.Sequential([*layers, keras.layers.Dense(OUTPUTS, kernel_regularizer=penalty)])
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    while True:
        start = time.perf_counter()
        model.fit(X, y, batch_size=BATCH, epochs=EPOCHS, validation_data=(X_valid, y_valid), verbose=0)
        yield time.perf_counter() - start


LOOPS: dict[str, Callable[[], Rounds]] = {
    "lightning-dataloader": lightning_loader,
    "torch-loop": torch_loop,
    "keras-fit": keras_fit,
    "keras-fit-jax": keras_fit,
}
PEERS = {
    "torch-loop": "lightning-dataloader",
    "lightning": "lightning-dataloader",
    "keras": "keras-fit",
    "keras-jax": "keras-fit-jax",
}
ALL = [*LOOPS, *(f"{backend} K={width}" for backend in ("lightning", "keras", "keras-jax") for width in (1, 16))]
STEPS = EPOCHS * -(-ROWS // BATCH)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "PJRT_NPROC": "1"}


def serve(name: str) -> None:
    """A round for each line on standard input, its seconds on standard output."""
    said = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a framework prints is not a result
    backend, _, width = name.partition(" K=")
    rounds = LOOPS[name]() if name in LOOPS else ours(backend, int(width))
    for _ in sys.stdin:
        print(json.dumps(next(rounds)), file=said)


def main() -> None:
    """Alternate the candidates, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=ALL, help=f"of {', '.join(ALL)}, or another K")
    parser.add_argument("--net", choices=["small", "large"], default="small")
    parser.add_argument("--threads", choices=["one", "free"], default="one")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        return serve(chosen.serve)
    if (chosen.net == "large") != LARGE:  # the sizes are fixed at import
        os.environ["DELTARULE_BENCH_NET"] = chosen.net
        os.execv(sys.executable, [sys.executable, *sys.argv])
    taken = alternate(chosen.only, chosen.rounds, ONE_THREAD if chosen.threads == "one" else {})
    print(f"{'-'.join(map(str, (INPUTS, *HIDDEN, OUTPUTS)))}, batch {BATCH}, {chosen.threads} thread(s), {chosen.rounds} rounds")
    show(taken)


def alternate(names: list[str], rounds: int, threads: dict[str, str]) -> dict[str, list[float]]:
    """Seconds of each round of each candidate; the first round holds imports and tracing."""
    environment = os.environ | threads | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    workers = {
        name: subprocess.Popen([sys.executable, __file__, "--serve", name], text=True,
                               env=environment | {"KERAS_BACKEND": "jax" if "jax" in name else "tensorflow"},
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for name in names
    }  # fmt: skip
    taken: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds + 1):
        for name, worker in workers.items():
            assert worker.stdin and worker.stdout
            print("go", file=worker.stdin, flush=True)
            taken[name].append(json.loads(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    return taken


def show(taken: dict[str, list[float]]) -> None:
    """A line a candidate: median, least, most, the first round, and how many times faster than its framework's own loop."""
    each = {name: [s / STEPS / trials(name) * 1e6 for s in seconds[1:]] for name, seconds in taken.items()}
    median = {name: statistics.median(micros) for name, micros in each.items()}
    print(f"{'candidate':22} {'µs a trial-step':>16} {'min':>8} {'max':>8} {'first s':>8} {'times faster':>13}")
    for name, micros in each.items():
        peer = PEERS.get(name.partition(" ")[0], "")
        faster = f"{median[peer] / median[name]:.2f}" if peer in median else ""
        print(f"{name:22} {median[name]:16.0f} {min(micros):8.0f} {max(micros):8.0f} {taken[name][0]:8.2f} {faster:>13}")


def trials(name: str) -> int:
    """1 but for a stack."""
    return int(name.partition(" K=")[2] or 1)


if __name__ == "__main__":
    main()
