"""Stacks of K networks on an accelerator, beside the idiomatic PyTorch loop, which trains one after the other.

Needs only NumPy, pydantic, torch and pytorch-lightning (Keras and JAX for `--backends keras-jax`); the rows are generated
in the shape of digits. Prints microseconds a trial-step in the steady state, with validation and probe at each epoch. Run
from the root of a checkout: `python benchmarks/gpu.py`. Without an accelerator it says so, and measures the processor.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # backends/, where deltarule is not installed

EPOCHS, BATCH, ROWS, VALID = 2, 32, 1078, 359
STEPS = EPOCHS * -(-ROWS // BATCH)


def make_rows() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """64 inputs, 10 classes."""
    made = np.random.default_rng(0)
    X, y = made.normal(size=(ROWS + VALID, 64)).astype(np.float32), made.integers(0, 10, ROWS + VALID)
    return X[:ROWS], y[:ROWS], X[ROWS:], y[ROWS:]


def ours(backend: str, width: int) -> Iterator[float]:
    """Seconds of EPOCHS epochs of a stack, round after round."""
    from backends import get
    from backends.base import Data
    from backends.spec import Model, Regularization, Train, Trial
    from backends.supervisor import Supervisor

    names = ("relu", "tanh", "sigmoid", "leaky_relu") if width > 1 else ("relu",)
    trials = [
        Trial(seed=1, task="multiclass", inputs=64, outputs=10, model=Model(activation=names[k % len(names)], dropout=0.2),
              regularization=Regularization(l1=1e-6 * (1 + k), l2=1e-4), train=Train(batch_size=BATCH, epochs=10**6))
        for k in range(width)
    ]  # fmt: skip
    supervisor = Supervisor(get(backend), trials, Data(*make_rows()))
    while True:
        start = time.perf_counter()
        supervisor.run(until_epoch=supervisor.epoch + EPOCHS)
        yield time.perf_counter() - start


def torch_loop() -> Iterator[float]:
    """DataLoader, `.to(device)`, Adam, one network, as PyTorch's tutorials write it."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
    ).to(device)
    X, y, X_valid, y_valid = (torch.from_numpy(array) for array in make_rows())
    train = DataLoader(TensorDataset(X, y), batch_size=BATCH, shuffle=True)
    valid = DataLoader(TensorDataset(X_valid, y_valid), batch_size=BATCH)
    optimizer, loss_of = torch.optim.Adam(net.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    matrices = [p for name, p in net.named_parameters() if "weight" in name]
    while True:
        start = time.perf_counter()
        for _ in range(EPOCHS):
            net.train()
            for x, labels in train:
                optimizer.zero_grad()
                loss = loss_of(net(x.to(device)), labels.to(device))
                (loss + sum(1e-6 * w.abs().sum() + 1e-4 * w.square().sum() for w in matrices)).backward()
                optimizer.step()
            net.eval()
            with torch.no_grad():
                sum(loss_of(net(x.to(device)), labels.to(device)).item() for x, labels in valid)
        yield time.perf_counter() - start


def measure(candidate: Callable[[], Iterator[float]], width: int, rounds: int) -> float:
    """Median microseconds a trial-step, the first round (imports, kernels, tracing) left out."""
    seconds = candidate()
    next(seconds)
    return statistics.median(next(seconds) for _ in range(rounds)) / STEPS / width * 1e6


def machine(backend: str) -> str:
    """The accelerator's name, or that there is none."""
    from backends import get

    device = get(backend).devices()[0]
    if not device.startswith("cuda"):
        return f"no accelerator, {device}"
    import torch

    return torch.cuda.get_device_name(0)


def main() -> None:
    """A line a width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="*", default=["lightning"], help="one engine of Keras at a time")
    parser.add_argument("--widths", nargs="*", type=int, default=[1, 16, 64, 256, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    print(f"64-128-64-10, batch {BATCH}, float32, on: {machine(chosen.backends[0])}")
    loop = measure(torch_loop, 1, chosen.rounds)
    print(f"{'candidate':22} {'µs a trial-step':>16} {'times faster':>13}\n{'torch-loop':22} {loop:16.1f}")
    for backend in chosen.backends:
        for width in chosen.widths:
            each = measure(lambda name=backend, k=width: ours(name, k), width, chosen.rounds)  # type: ignore[misc]
            print(f"{f'{backend} K={width}':22} {each:16.1f} {loop / each:13.1f}", flush=True)


if __name__ == "__main__":
    main()
