"""Dropout: error on training, validation and test rows over p, the probability that a hidden unit is dropped.

.venv/bin/python examples/dropout/run.py [--backend keras] [--track] [--quick] [--out FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import deltarule
from pipelines.report import style

HERE = Path(__file__).parent
PARTS = {  # of deltarule.evaluate -> how a figure shows them
    "train": ("training rows", style.BLUE, "--", "s"),
    "validate": ("validation rows", style.VERMILION, "-", "o"),
    "test": ("test rows", style.BLACK, ":", "^"),
}


def errors(experiment: deltarule.Experiment, seeds: int, track: bool) -> list[dict[str, object]]:
    """One row a part: E without penalty and with dropout off, mean over the seeds and its 95 % interval.

    Test rows open after a run was validated, and each p is entered among those that opened them: `evaluate` sees to it.
    """
    run = deltarule.run(experiment, name=f"dropout-{experiment.model.dropout}", track=track)
    report = deltarule.evaluate(experiment, run.folder, seeds=seeds, train=True, test=True)
    return [
        {"p": experiment.model.dropout, "part": part, "loss": loss.mean, "low": loss.low, "high": loss.high, "seeds": loss.count}
        for part in PARTS
        for loss in [report.parts[part]["loss"]]
    ]


def chosen(table: pd.DataFrame) -> float:
    """The p to take: the best on the validation rows. The test rows have no say."""
    valid = table[table.part == "validate"].set_index("p").loss
    return float(valid.idxmin())


def draw(table: pd.DataFrame) -> bytes:
    """E over p on the three parts of the data; the p that the validation rows choose is marked."""
    drawing, (panel,) = style.figure(f"Dropout on diabetes, one hidden layer of 64 units, {table.seeds.max()} seeds", 1, 7.0, 4.4)
    for part, (label, colour, dash, marker) in PARTS.items():
        one = table[table.part == part]
        panel.plot(one.p, one.loss, color=colour, linestyle=dash, marker=marker, markersize=5, label=label)
        panel.fill_between(one.p, one.low, one.high, color=colour, alpha=0.15, linewidth=0)
    best = chosen(table)
    panel.axvline(best, color=style.GREEN, linewidth=1.2, label=f"p = {best:g}, best on validation rows")
    style.label(
        panel,
        "Shaded: 95 % intervals of the mean over seeds",
        "p, probability that a hidden unit is dropped",
        "E, dropout off (1: always the mean)",
    )
    panel.set_ylim(bottom=0)
    panel.legend(fontsize=9, loc="lower right")
    return style.png(drawing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="lightning", help="what trains")
    parser.add_argument("--track", action="store_true", help="put the run of each p into MLflow")
    parser.add_argument("--quick", action="store_true", help="few and short: to see that it works")
    parser.add_argument("--out", type=Path, default=HERE / "output", help="folder of the numbers and the figure")
    asked = parser.parse_args()
    base = deltarule.load(HERE / "params.yaml").override("train.backend", asked.backend)
    steps, seeds = ((0, 4, 9), 2) if asked.quick else (range(10), 12)
    rows = []
    for tenth in steps:
        rows += errors(base.override("model.dropout", tenth / 10), seeds, asked.track)
        print(f"p = {tenth / 10}: " + ", ".join(f"{row['part']} {row['loss']:.3f}" for row in rows[-3:]))
    table = pd.DataFrame(rows)
    asked.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(asked.out / "errors.csv", index=False)
    (asked.out / "figure.png").write_bytes(draw(table))
    print(f"best on the validation rows: p = {chosen(table):g}; wrote errors.csv and figure.png into {asked.out}")


if __name__ == "__main__":
    main()
