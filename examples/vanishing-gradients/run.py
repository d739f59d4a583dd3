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
NETWORK = ["depth", "activation", "seed"]  # what makes one, on any backend


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


def row_of(network: deltarule.Trained) -> dict[str, object]:
    """Which network this is, and how it does on the validation rows after the last epoch."""
    spec, history = network.experiment, network.history
    return {
        "backend": spec.train.backend, "depth": len(spec.model.hidden), "activation": spec.model.activation, "seed": spec.seed,
        "accuracy": history["val_accuracy"][-1], "loss": history["val_loss"][-1],
    }  # fmt: skip


def rows_of_layers(network: deltarule.Trained) -> list[dict[str, object]]:
    """One row a layer: root mean square of δ before and after training, and what it cannot exceed before training."""
    count = len(network.experiment.model.hidden) + 1
    delta, bound = [network.start[f"delta_rms_{layer}"] for layer in range(1, count + 1)], bounds(network)
    after = [network.history[f"delta_rms_{layer}"][-1] for layer in range(1, count + 1)]
    which = {name: value for name, value in row_of(network).items() if name not in ("accuracy", "loss")}
    return [{**which, "layer": i + 1, "delta": delta[i], "bound": bound[i], "delta_after": after[i]} for i in range(count)]


def bounds(network: deltarule.Trained) -> list[float]:
    """Back from δ of the output layer: ‖δ_l‖ ≤ max φ' · ‖W‖ · ‖δ_(l+1)‖, where W leads from layer l to the next.

    It follows from the hidden neuron's δ in the delta rule. ‖W‖ is the largest singular value; the root goes from norms to means.
    """
    model = network.experiment.model
    found = [network.start[f"delta_rms_{len(model.hidden) + 1}"]]
    for layer in range(len(model.hidden), 0, -1):
        W = network.initial[f"layers.{layer}.weight"]  # (units, units of the next layer); layers.0 is the first
        units, following = W.shape
        found.insert(0, STEEPEST[model.activation] * np.linalg.norm(W, ord=2) * np.sqrt(following / units) * found[0])
    return found


def apart(table: pd.DataFrame, column: str, keys: list[str]) -> float:
    """The largest relative difference between backends."""
    wide = table.pivot(index=keys, columns="backend", values=column)
    return float(((wide.max(axis=1) - wide.min(axis=1)) / wide.max(axis=1)).max())


def caption(layers: pd.DataFrame, networks: pd.DataFrame) -> str:
    """Which backend is drawn how, and how far they are apart."""
    first, *others = networks.backend.unique()
    if not others:
        return f"trained with {first}"
    delta, loss = apart(layers, "delta", [*NETWORK, "layer"]), apart(networks, "loss", NETWORK)
    return f"lines: {first}, rings: {others[0]}; largest relative difference: {delta:.0e} of δ, {loss:.0e} of E after training"


def draw(layers: pd.DataFrame, networks: pd.DataFrame) -> bytes:
    """Inside the deepest networks, then over depth: δ of the first layer, and what is learnt."""
    deepest = layers[layers.depth == layers.depth.max()]
    later = deepest.groupby(["backend", *NETWORK]).delta.shift(-1)
    passed = deepest.assign(passed=deepest.delta / later)[deepest.layer < deepest.depth]  # between layers of equal size
    drawing, (inside, factor, reach, learnt) = style.figure(
        f"The error signal δ in deep networks on digits, 32 units a layer\n{caption(layers, networks)}", 2, 4.2, 2.9, rows=2
    )
    curves(inside, deepest, "layer", "delta")
    bound = deepest[deepest.activation == "sigmoid"].groupby("layer").bound.mean()
    inside.plot(bound.index, bound, color=style.VERMILION, linestyle="--", linewidth=1.2, label="sigmoid's bound: ¼‖W‖ a layer")
    curves(factor, passed, "layer", "passed")
    factor.axhline(0.25, color="black", linewidth=1, linestyle="--")
    factor.text(1, 0.28, "1/4, the largest σ'", fontsize=9)
    factor.set_ylim(0, 1.35)
    curves(reach, layers[layers.layer == 1], "depth", "delta")
    curves(learnt, networks, "depth", "accuracy")
    learnt.axhline(0.1, color="black", linewidth=1, linestyle="--")
    learnt.text(layers.depth.max(), 0.13, "guessing: 1 of 10", fontsize=9, ha="right")
    learnt.set_ylim(0, 1.03)
    inside.set_yscale("log")
    reach.set_yscale("log")
    style.label(
        inside,
        f"Inside {layers.depth.max()} hidden layers, before training",
        "layer (← the error comes from the right)",
        "rms of δ",
    )
    style.label(factor, "What a layer passes on to the one before it", "layer", "rms of δ / next layer's")
    style.label(reach, "What reaches the first layer, before training", "hidden layers", "rms of δ in layer 1")
    style.label(learnt, "What is learnt from it", "hidden layers", "accuracy, validation rows")
    for panel in (inside, factor, reach, learnt):
        style.epochs(panel)  # whole numbers on the axis
    for panel in (inside, reach):
        panel.minorticks_off()
    inside.legend(fontsize=7)
    return style.png(drawing)


def curves(panel, table: pd.DataFrame, x: str, y: str) -> None:
    """The mean over seeds, of δ the geometric one: a line for each activation, and rings for the second backend."""
    for number, backend in enumerate(table.backend.unique()):
        for activation, (colour, dash) in LOOKS.items():
            one = table[(table.backend == backend) & (table.activation == activation)]
            means = one.groupby(x)[y].mean() if y == "accuracy" else np.exp(np.log(one[y]).groupby(one[x]).mean())
            ring = {"linestyle": "", "marker": "o", "markersize": 6, "markerfacecolor": "none"}
            look = ring if number else {"linestyle": dash, "linewidth": 1.8, "label": activation}
            panel.plot(means.index, means, color=colour, **look)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["lightning", "keras"], help="one, or two to be compared")
    parser.add_argument("--quick", action="store_true", help="few and short: to see that it works")
    parser.add_argument("--out", type=Path, default=HERE / "output", help="folder of the numbers and the figure")
    asked = parser.parse_args()
    trained = []
    for backend in asked.backends:
        print(f"{backend}:")
        trained += deltarule.train_many(experiments(backend, asked.quick), progress=lambda done, of: print(f"  {done} of {of}"))
    networks = pd.DataFrame([row_of(network) for network in trained])
    layers = pd.DataFrame([row for network in trained for row in rows_of_layers(network)])
    asked.out.mkdir(parents=True, exist_ok=True)
    networks.to_csv(asked.out / "networks.csv", index=False)
    layers.to_csv(asked.out / "layers.csv", index=False)
    (asked.out / "figure.png").write_bytes(draw(layers, networks))
    print(f"wrote networks.csv, layers.csv and figure.png into {asked.out}")


if __name__ == "__main__":
    main()
