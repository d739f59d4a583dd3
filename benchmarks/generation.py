"""What drawing many trials at a time costs a search: best losses found by TPE one by one, and a generation at a time.

One study has one best, luck decides much of it, and a peer's study takes minutes; so this is a simulation. A random search over
the task of benchmarks/search.py, each trial from a seed of its own, is the landscape: for each activation a Gaussian process
of the log validation loss over λ1, λ2 and p. What seeds do to it is drawn from its residuals. On it studies take a second: one
by one with Optuna's own TPE, and with ours (`pipelines.search.mirror`) a generation at a time. Two numbers a study: the best
loss that it saw, and what its winner is worth, the landscape there without the luck.

    python benchmarks/generation.py                                    10 minutes on two cores
    python benchmarks/generation.py --trials 256 --generations 32 --studies 60
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from best import INITIALIZER
from search import PARAMS, PATHS

ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid")
LINE = "{:24} {:>18} {:>18}   {}"


class Study(NamedTuple):
    """What one simulated study came to."""

    best: float
    worth: float
    activation: str


class Landscape:
    """Mean log loss by activation and the three numbers, and the residuals of the trials that it was made from."""

    def __init__(self, trials: Path) -> None:
        """From the trials.csv of a study."""
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        with trials.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["state"] == "complete"]
        self.of: dict[str, tuple[Any, Any]] = {}
        for name in ACTIVATIONS:
            mine = [row for row in rows if row[PATHS["activation"]] == name]
            X, y = np.array([scaled(row) for row in mine]), np.log([float(row["loss"]) for row in mine])
            kernel = ConstantKernel() * RBF([0.5] * 3, (0.15, 10)) + WhiteKernel(0.3, (1e-3, 2))
            model = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=2, random_state=0).fit(X, y)
            self.of[name] = model, y - model.predict(X)
            print(f"  {name}: {len(mine)} trials, sd of the log loss by seed {self.of[name][1].std():.3f}", file=sys.stderr)

    def mean(self, params: Mapping[str, Any]) -> float:
        """Loss without luck."""
        return math.exp(self.of[params[PATHS["activation"]]][0].predict([scaled(params)])[0])

    def seen(self, params: Mapping[str, Any], luck: np.random.Generator) -> float:
        """Loss of one seed."""
        return self.mean(params) * math.exp(luck.choice(self.of[params[PATHS["activation"]]][1]))


def scaled(params: Mapping[str, Any]) -> list[float]:
    """λ1, λ2 and p, from 0 to 1 over the space."""
    l1, l2, p = (float(params[PATHS[name]]) for name in ("l1", "l2", "dropout"))
    return [(math.log10(l1) + 6) / 3, (math.log10(l2) + 6) / 4, 2 * p]


def simulated(seed: int, generation: int, trials: int, landscape: Landscape, spec: Any) -> Study:
    """One study; `generation` 0 is Optuna's own, trial after trial."""
    warnings.simplefilter("ignore")
    luck = np.random.default_rng(seed)

    def loss(params: Mapping[str, Any]) -> float:
        return landscape.seen(params, luck)

    seen = ours(spec, seed, generation, trials, loss) if generation else optunas(seed, trials, loss)
    best, params = min(seen, key=lambda pair: pair[0])
    return Study(best, landscape.mean(params), params[PATHS["activation"]])


def optunas(seed: int, trials: int, loss: Callable[..., float]) -> list[tuple[float, Mapping[str, Any]]]:
    """As the peers in benchmarks/peers do it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    for _ in range(trials):
        trial = study.ask()
        trial.suggest_categorical(PATHS["activation"], ACTIVATIONS)
        trial.suggest_float(PATHS["l1"], 1e-6, 1e-3, log=True)
        trial.suggest_float(PATHS["l2"], 1e-6, 1e-2, log=True)
        trial.suggest_float(PATHS["dropout"], 0, 0.5)
        study.tell(trial, loss(trial.params))
    return [(trial.value, trial.params) for trial in study.trials]


def ours(spec: Any, seed: int, generation: int, trials: int, loss: Callable[..., float]) -> list[tuple[float, Mapping[str, Any]]]:
    """As `deltarule search` does it, without the training."""
    from pipelines.search.driver import generations
    from pipelines.search.mirror import Mirror

    spec = spec.override("search.seed", seed)
    finished: list[Any] = []
    for numbers in generations(trials, generation):
        mirror = Mirror(spec, finished)
        asked = [mirror.ask(numbers.start // generation) for _ in numbers]
        finished += [mirror.tell(one.number, "COMPLETE", [loss(one.params)]) for one in asked]
    return [(trial.value, trial.params) for trial in finished]


def search(folder: Path, trials: int) -> Path:
    """The random search, in a folder with its params.yaml; its trials.csv."""
    changes = (
        "search.sampler=random", "search.generation=256", "search.trial_seeds=own", "tracking.enabled=false",
        INITIALIZER["keras"],
    )  # fmt: skip
    sets = [word for change in changes for word in ("--set", change)]
    command = [sys.executable, "-m", "pipelines.cli", "search", "--name", "landscape", "--trials", str(trials), *sets]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder / "studies/landscape/trials.csv"


def told(values: list[float]) -> str:
    """Mean and its standard error."""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values) / math.sqrt(len(values)):.4f}"


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=64, help="of a study")
    parser.add_argument("--generations", nargs="*", type=int, default=[8, 16, 32])
    parser.add_argument("--studies", type=int, default=400, help="of each kind")
    parser.add_argument("--landscape", type=int, default=2048, help="trials that it is made from")
    parser.add_argument("--csv", type=Path, help="trials.csv of a random search that is there already")
    chosen = parser.parse_args()
    from pipelines.spec import load

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_text(PARAMS.format(backend="keras"))
        spec = load(Path(folder) / "params.yaml")
        landscape = Landscape(chosen.csv or search(Path(folder), chosen.landscape))
    print(f"{chosen.studies} studies of {chosen.trials} trials each; mean ± standard error")
    print(LINE.format("drawn", "best seen", "winner's worth", "winners"))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for generation in (0, *chosen.generations):
            one = partial(simulated, generation=generation, trials=chosen.trials, landscape=landscape, spec=spec)
            studies = list(pool.map(one, range(chosen.studies), chunksize=10))
            best, worth, names = (list(each) for each in zip(*studies, strict=True))
            counts = ", ".join(f"{names.count(name)} {name}" for name in ACTIVATIONS if name in names)
            label = f"{generation} at a time" if generation else "one by one, Optuna's own"
            print(LINE.format(label, told(best), told(worth), counts), flush=True)


if __name__ == "__main__":
    main()
