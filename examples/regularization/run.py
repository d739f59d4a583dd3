"""Regularisation: what λ1 and λ2 do to the weights, and to what is learnt.

.venv/bin/python examples/regularization/run.py [--backend keras] [--quick] [--out FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import deltarule
from pipelines.report import style

HERE = Path(__file__).parent
RANGES = {"l1": (-5.0, -1.5), "l2": (-5.0, -1.0)}  # powers of ten, in steps of a half; further right nothing is left to see
NAMES = {"l1": "λ1", "l2": "λ2"}
ZERO = 1e-3  # a weight below it counts as zero; the others are a hundred times as large


def experiments(backend: str, quick: bool) -> list[deltarule.Experiment]:
    """λ1 alone, λ2 alone, and neither, under a few seeds: all train in stacks."""
    base = deltarule.load(HERE / "params.yaml").override("train.backend", backend)
    step, seeds = (1.5, 1) if quick else (0.5, 3)
    if quick:
        base = base.override("train.epochs", 20)
    values = {name: 10.0 ** np.arange(low, high + 0.01, step) for name, (low, high) in RANGES.items()}
    varied = [{}] + [{f"regularization.{name}": float(value)} for name in RANGES for value in values[name]]
    return [base.override({**change, "seed": seed}) for change in varied for seed in range(seeds)]


def matrices(network: deltarule.Trained) -> np.ndarray:
    """All that the penalties act on, in one vector: weights, not biases, after the last epoch."""
    return np.concatenate([values.ravel() for name, values in network.last.items() if name.endswith("weight")])


def summary(network: deltarule.Trained) -> dict[str, object]:
    """One row a network."""
    spec, weights = network.experiment, matrices(network)
    return {
        "l1": spec.regularization.l1, "l2": spec.regularization.l2, "seed": spec.seed, "zero": np.mean(np.abs(weights) < ZERO),
        "sum_of_absolutes": np.abs(weights).sum(), "norm": np.linalg.norm(weights),
        "train_loss": network.history["train_loss"][-1], "val_loss": network.history["val_loss"][-1],
        "val_accuracy": network.history["val_accuracy"][-1],
    }  # fmt: skip


def paths(networks: list[deltarule.Trained]) -> pd.DataFrame:
    """Twelve weights of the network of seed 0, from the largest to the smallest that it has without penalty, at each λ."""
    free = np.abs(matrices(networks[0]))
    chosen = np.argsort(-free)[np.linspace(0, int(0.9 * len(free)), 12).astype(int)]
    rows = []
    for network in networks:
        spec = network.experiment
        if spec.seed == 0:
            weights = matrices(network)[chosen]
            rows += [
                {"l1": spec.regularization.l1, "l2": spec.regularization.l2, "weight": int(number), "value": value}
                for number, value in zip(chosen, weights, strict=True)
            ]
    return pd.DataFrame(rows)


def path_of(table: pd.DataFrame, penalty: str) -> pd.DataFrame:
    """The rows in which the other penalty is 0; no penalty at all stands left of the smallest λ, to have a place on the axis."""
    other = "l2" if penalty == "l1" else "l1"
    alone = table[table[other] == 0]
    smallest = alone[alone[penalty] > 0][penalty].min()
    return alone.assign(x=alone[penalty].where(alone[penalty] > 0, smallest / 10**0.5)).sort_values("x")


def draw(table: pd.DataFrame, weights: pd.DataFrame) -> bytes:
    """A row for each penalty: weights, zeros and norm, losses."""
    drawing, panels = style.figure(
        "What the penalties do to a network on digits, 64-32-10, relu", 3, width=3.5, height=2.8, rows=2
    )
    for penalty, (single, shrunk, losses) in zip(RANGES, (panels[:3], panels[3:]), strict=True):
        axis = f"{NAMES[penalty]} (left end: 0)"
        draw_paths(single, path_of(weights, penalty))
        style.label(single, f"{NAMES[penalty]}: twelve of the weights", axis, "weight")
        means = path_of(table, penalty).groupby("x").mean()
        shrunk.plot(means.index, means.zero, color=style.VERMILION, marker="o", markersize=4, label="weights at zero")
        shrunk.plot(means.index, means.norm / means.norm.iloc[0], color=style.BLUE, linestyle="--", label="‖W‖ (1 at λ = 0)")
        style.label(shrunk, f"{NAMES[penalty]}: zeros, and the norm", axis, "share")
        shrunk.set_ylim(-0.03, 1.06)
        draw_losses(losses, means)
        style.label(losses, f"{NAMES[penalty]}: loss without penalty", axis, "E, mean over rows")
        for panel in (single, shrunk, losses):
            panel.set_xscale("log")
            panel.set_xlim(10**-5.6, 10**-0.9)
            panel.set_xticks([1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
            panel.minorticks_off()
        single.set_ylim(weights.value.min() - 0.1, weights.value.max() + 0.1)
        losses.set_ylim(table.train_loss.min() / 1.3, table.val_loss.max() * 1.3)
        shrunk.legend(fontsize=7, loc="center left")
        losses.legend(fontsize=7)
    return style.png(drawing)


def draw_paths(panel, path: pd.DataFrame) -> None:
    """A line a weight, the darker the larger it is without penalty; a ring where it comes to be zero for good."""
    free = path[path.x == path.x.min()].set_index("weight").value.abs().sort_values(ascending=False)
    for number, weight in enumerate(free.index):
        one = path[path.weight == weight]
        panel.plot(one.x, one.value, color=style.series_colours(len(free))[number], linewidth=1.3)
        zeros = one.x[one.value.abs()[::-1].cummax()[::-1] < ZERO]  # at this λ and every larger one
        if len(zeros) > 1:
            panel.plot(zeros.iloc[0], 0.0, color=style.VERMILION, marker="o", markersize=5, markerfacecolor="none")
    panel.axhline(0, color="black", linewidth=0.8)


def draw_losses(panel, means: pd.DataFrame) -> None:
    panel.plot(means.index, means.train_loss, color=style.BLUE, linestyle="--", label="training rows")
    panel.plot(means.index, means.val_loss, color=style.VERMILION, marker="o", markersize=4, label="validation rows")
    best = means.val_loss.idxmin()
    panel.plot([best], [means.val_loss[best]], color="black", marker="*", markersize=11, linestyle="", label="best")
    panel.set_yscale("log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="lightning", help="what trains")
    parser.add_argument("--quick", action="store_true", help="few and short: to see that it works")
    parser.add_argument("--out", type=Path, default=HERE / "output", help="folder of the numbers and the figure")
    asked = parser.parse_args()
    networks = deltarule.train_many(
        experiments(asked.backend, asked.quick), progress=lambda done, of: print(f"{done} of {of} networks")
    )
    table, weights = pd.DataFrame([summary(network) for network in networks]), paths(networks)
    asked.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(asked.out / "networks.csv", index=False)
    weights.to_csv(asked.out / "weights.csv", index=False)
    (asked.out / "figure.png").write_bytes(draw(table, weights))
    print(f"wrote networks.csv, weights.csv and figure.png into {asked.out}")


if __name__ == "__main__":
    main()
