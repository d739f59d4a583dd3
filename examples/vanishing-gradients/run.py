"""Vanishing gradients: how much of the error reaches the first layer of a deep network, by activation.

.venv/bin/python examples/vanishing-gradients/run.py [--backends lightning keras] [--quick] [--out FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import deltarule
from pipelines.report import style

HERE = Path(__file__).parent
DEPTHS = (2, 4, 6, 8, 10, 12)
STEEPEST = {"sigmoid": 0.25, "tanh": 1.0, "relu": 1.0, "leaky_relu": 1.0}  # the largest φ' there is
LOOKS = {
    "sigmoid": (style.VERMILION, "-"), "tanh": (style.BLUE, "-"), "relu": (style.GREEN, "-"), "leaky_relu": (style.BLACK, ":"),
}  # fmt: skip
KEY = ["depth", "activation", "seed"]  # of a network


def experiments(backend: str, quick: bool) -> list[deltarule.Experiment]:
    """Depth x activation x seed. All networks of one depth train as one stack."""
    base = deltarule.load(HERE / "params.yaml").override("train.backend", backend)
    depths, seeds = ((2, 6), 1) if quick else (DEPTHS, 3)
    if quick:
        base = base.override("train.epochs", 2)
    return [
        base.override({"model.hidden": [32] * depth, "model.activation": activation, "seed": seed})
        for depth in depths
        for activation in STEEPEST
        for seed in range(seeds)
    ]


def layers(network: deltarule.Trained) -> list[dict[str, object]]:
    """One row a layer: root mean square of δ before and after training, and what bounds it from the layer that follows.

    ‖δ_l‖ ≤ max φ' · ‖W_{l+1}‖ · ‖δ_{l+1}‖, by the hidden neuron's δ of the delta rule; ‖W‖ is the largest singular value.
    """
    model = network.experiment.model
    depth, count = len(model.hidden), len(model.hidden) + 1
    units = [*model.hidden, 10]
    delta = [network.start[f"delta_rms_{layer}"] for layer in range(1, count + 1)]
    rows = []
    for layer in range(count):
        bound = np.nan  # of the output layer, where the error begins
        if layer < depth:
            gain = STEEPEST[model.activation] * np.linalg.norm(network.initial[f"layers.{layer + 1}.weight"], ord=2)
            bound = gain * delta[layer + 1] * np.sqrt(units[layer + 1] / units[layer])  # from norms to means over units
        after = network.history[f"delta_rms_{layer + 1}"][-1]
        rows.append({"layer": layer + 1, "delta": delta[layer], "bound": bound, "delta_after": after})
    return [{**named(network), **row} for row in rows]


def named(network: deltarule.Trained) -> dict[str, object]:
    """Which network this is."""
    spec = network.experiment
    depth = len(spec.model.hidden)
    return {"backend": spec.train.backend, "depth": depth, "activation": spec.model.activation, "seed": spec.seed}


def accuracy(network: deltarule.Trained) -> dict[str, object]:
    """One row a network: how it does on the validation rows, after the last epoch."""
    return {**named(network), "accuracy": network.history["val_accuracy"][-1], "loss": network.history["val_loss"][-1]}


def apart(table: pd.DataFrame, column: str, keys: list[str]) -> float:
    """The largest relative difference between two backends; 0 if there is one."""
    wide = table.pivot(index=keys, columns="backend", values=column)
    return float(((wide.max(axis=1) - wide.min(axis=1)) / wide.max(axis=1)).max())


def draw(by_layer: pd.DataFrame, by_network: pd.DataFrame) -> bytes:
    """Lines are the first backend, rings the second: one picture."""
    deepest = by_layer[by_layer.depth == by_layer.depth.max()]
    first = by_layer[by_layer.layer == 1]
    differ = apart(by_layer, "delta", [*KEY, "layer"]), apart(by_network, "loss", KEY)
    backends = list(by_layer.backend.unique())
    told = f"{backends[0]}: lines" + (
        f"; {backends[1]}: rings; largest relative difference {differ[0]:.0e} of δ, {differ[1]:.0e} of validation E after training"
        if len(backends) > 1
        else ""
    )
    drawing, (inside, factor, reach, learnt) = style.figure(
        f"The error signal δ in deep networks on digits, 32 units a layer\n{told}", 2, width=5.6, rows=2
    )
    curves(inside, deepest, "layer", "delta")
    bounds(inside, deepest)
    curves(factor, passed_on(deepest), "layer", "passed")
    factor.axhline(0.25, color="black", linewidth=1.2, linestyle="--")
    factor.text(1, 0.27, "σ' ≤ 1/4", fontsize=10)
    factor.set_ylim(0, 1.3)
    curves(reach, first, "depth", "delta")
    curves(learnt, by_network, "depth", "accuracy")
    learnt.axhline(0.1, color="#777777", linewidth=1, linestyle="--")
    learnt.text(reach.get_xlim()[1] * 0.55, 0.12, "guessing: 1 of 10", fontsize=9, color="#555555")
    learnt.set_ylim(0, 1.03)
    for panel in (inside, reach):
        panel.set_yscale("log")
    last = deepest.depth.max()
    style.label(inside, f"Inside {last} hidden layers, before training", "layer (the error starts at the right)", "rms of δ")
    style.label(factor, "What one layer passes on to the one before it", "layer", "rms of δ / rms of δ one layer later")
    style.label(reach, "What reaches the first layer, before training", "hidden layers", "rms of δ of layer 1")
    style.label(learnt, "What is learnt from it", "hidden layers", "accuracy on validation rows")
    for panel in (inside, factor, reach, learnt):
        style.epochs(panel)
    reach.legend(fontsize=9)
    inside.legend(fontsize=9)
    return style.png(drawing)


def curves(panel, table: pd.DataFrame, x: str, y: str) -> None:
    """A line for each activation, the mean over seeds (of δ, on a log scale, the geometric one); rings for the other backend."""
    for number, backend in enumerate(table.backend.unique()):
        for activation, (colour, dash) in LOOKS.items():
            of_one = table[(table.backend == backend) & (table.activation == activation)].groupby(x)[y]
            means = of_one.mean() if y == "accuracy" else np.exp(of_one.agg(lambda values: np.log(values).mean()))
            if number == 0:
                panel.plot(means.index, means, color=colour, linestyle=dash, linewidth=1.8, label=activation)
            else:
                panel.plot(means.index, means, color=colour, linestyle="", marker="o", markersize=7, markerfacecolor="none")


def bounds(panel, deepest: pd.DataFrame) -> None:
    """What sigmoid's δ cannot exceed, layer by layer back from the output, whatever the rows."""
    of_sigmoid = deepest[(deepest.activation == "sigmoid") & (deepest.backend == deepest.backend.iloc[0])]
    ceilings = []
    for _, one in of_sigmoid.groupby("seed"):
        steps = (one.bound[:-1].to_numpy() / one.delta[1:].to_numpy())[::-1]
        ceilings.append(one.delta.iloc[-1] * np.cumprod([1.0, *steps])[::-1])
    x = of_sigmoid.layer.unique()
    panel.plot(x, np.mean(ceilings, axis=0), color=style.VERMILION, linestyle="--", linewidth=1.2, label="sigmoid's bound, ¼·‖W‖ a layer")


def passed_on(table: pd.DataFrame) -> pd.DataFrame:
    """δ of each hidden layer over δ of the next hidden one, which has as many units."""
    later = table.groupby(["backend", *KEY]).delta.shift(-1)
    return table.assign(passed=table.delta / later)[table.layer < table.depth]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["lightning", "keras"], help="one, or two to be compared")
    parser.add_argument("--quick", action="store_true", help="few and short: to see that it works")
    parser.add_argument("--out", type=Path, default=HERE / "output", help="folder of the numbers and the figure")
    asked = parser.parse_args()
    networks = []
    for backend in asked.backends:
        networks += deltarule.train_many(
            experiments(backend, asked.quick), progress=lambda done, of, name=backend: print(f"{name}: {done} of {of} networks")
        )
    by_layer = pd.DataFrame([row for network in networks for row in layers(network)])
    by_network = pd.DataFrame([accuracy(network) for network in networks])
    asked.out.mkdir(parents=True, exist_ok=True)
    by_layer.to_csv(asked.out / "layers.csv", index=False)
    by_network.to_csv(asked.out / "networks.csv", index=False)
    (asked.out / "figure.png").write_bytes(draw(by_layer, by_network))
    print(f"wrote layers.csv, networks.csv and figure.png into {asked.out}")


if __name__ == "__main__":
    main()
