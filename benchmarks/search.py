"""Whole studies beside what people write with Optuna: `make bench`. Wall clock of the process, imports and MLflow included.

Digits (60/20/20, the same rows for all), 64-128-64-10, batch 32, Adam 1e-3, 30 epochs for every trial, over activation, λ1, λ2
and dropout by TPE, no pruner, one MLflow run a trial under a parent, sqlite. Each run is a process of its own in an empty
folder; candidates alternate. "wall s" is the time until the command answers with the winner, "record s" until all trials are on
record in MLflow, counted from the same start. The peers, in benchmarks/peers/, take minutes a round: unless `--full`, each is
timed at 1 trial and at `--peer-trials`, and its time for N trials is the line through both (~); that their samplers slow down
with N is left out, which favours them. They compute with one thread, which is their quicker way.

    python benchmarks/search.py --trials 64 256          the table
    python benchmarks/search.py --trials 64 256 --full   the same, nothing extrapolated
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from pipelines.tracking import waiting

PEERS = Path(__file__).resolve().parent / "peers"
PARAMS = """
data: {{source: digits}}
model: {{hidden: [128, 64]}}
train:
  backend: {backend}
  optimizer: {{name: adam, learning_rate: 1e-3}}
  epochs: 30
  batch_size: 32
  early_stopping: {{patience: null}}
search:
  space:
    model.activation: {{choices: [relu, leaky_relu, tanh, sigmoid]}}
    model.dropout: {{low: 0.0, high: 0.5}}
    regularization.l1: {{low: 1e-6, high: 1e-3, log: true}}
    regularization.l2: {{low: 1e-6, high: 1e-2, log: true}}
"""
LINE = "{:20} {:>6} {:>8} {:>9} {:>8} {:>8} {:>7} {:>4} {:>15} {:>6}"
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
RECORD_SECONDS = 300  # after the answer, until all trials must be on record


@dataclass(frozen=True)
class Candidate:
    """A backend of ours or a script of peers/, and what it is compared with (with the least ratio at so many trials)."""

    backend: str = ""
    script: str = ""
    peer: str = ""
    aims: Mapping[int, int] = field(default_factory=dict)

    @property
    def database(self) -> str:
        """Where it records its trials."""
        return ".mlflow/mlflow.db" if self.backend else "mlflow.db"


CANDIDATES = {
    "ours lightning": Candidate("lightning", peer="optuna + lightning", aims={64: 10, 256: 18}),
    "ours keras": Candidate("keras", peer="optuna + keras", aims={64: 20, 256: 40}),
    "ours keras-jax": Candidate("keras-jax", peer="optuna + keras"),
    "optuna + lightning": Candidate(script="optuna_lightning.py"),
    "optuna + keras": Candidate(script="optuna_keras.py"),
}


@dataclass(frozen=True)
class Run:
    """One process, or the median of several, or (`estimated`) the line through two."""

    seconds: float  # until the winner is known
    record: float  # until all trials are on record
    best: float  # validation cross-entropy
    trials: int  # that `best` is the best of
    cpu: float = 0.0  # seconds of processor, of the whole process tree
    peak: float = 0.0  # MiB of the whole process tree, shared pages counted in each
    estimated: bool = False


def measure(candidate: Candidate, trials: int, rows: Path) -> Run:
    """A run from nothing, in an empty folder; all its trials must have completed and be on record."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        command = [sys.executable, str(PEERS / candidate.script), "--rows", str(rows)]
        if candidate.backend:
            (folder / "params.yaml").write_text(PARAMS.format(backend=candidate.backend))
            command = [sys.executable, "-m", "_deltarule", "search", "--json", "--name", "bench"]
        start, cpu = time.perf_counter(), processor()
        said, peak = watched([*command, "--trials", str(trials)], folder, environment(candidate))
        seconds = time.perf_counter() - start
        if candidate.backend and said["states"].get("COMPLETE") != trials:
            raise SystemExit(f"{trials} trials were to complete, found {said['states']}")
        while waiting(folder) and time.perf_counter() - start < seconds + RECORD_SECONDS:
            time.sleep(0.2)
        record = time.perf_counter() - start
        count_runs(folder / candidate.database, trials)
        best = said["best"]["values"][0] if candidate.backend else said["best"]
        return Run(seconds, record, best, trials, processor() - cpu, peak)


def environment(candidate: Candidate) -> dict[str, str]:
    """One thread for the peers; ours chooses for itself. No telemetry on either side."""
    inherited = {name: value for name, value in os.environ.items() if name not in THREADS}
    limits = dict.fromkeys(THREADS, "1") if candidate.script else {}
    return {**inherited, **limits, "MLFLOW_DISABLE_TELEMETRY": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}


def watched(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[dict[str, Any], float]:
    """The JSON that a command ends with, and its most resident memory in MiB, looked at five times a second."""
    peak = 0.0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err)
        tree = psutil.Process(process.pid)
        while True:
            try:
                process.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, resident(tree))
        for file in (out, err):
            file.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}:\n{err.read()[-3000:]}")
        return json.loads(out.read().strip().splitlines()[-1]), peak


def processor() -> float:
    """Seconds of processor of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident(tree: psutil.Process) -> float:
    """MiB of a process and all below it; those that ended meanwhile count 0."""
    total = 0
    for process in [tree, *tree.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total / 2**20


def count_runs(database: Path, trials: int) -> None:
    """One finished child run a trial must be on record."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    finished = client.search_runs(experiments, "attributes.status = 'FINISHED'", max_results=50_000)
    found = sum("mlflow.parentRunId" in run.data.tags for run in finished)
    if found != trials:
        raise SystemExit(f"MLflow must hold {trials} finished child runs, found {found}")


def make_rows(place: Path) -> Path:
    """The rows that a study of ours trains on, for the peers."""
    import numpy as np

    from pipelines.data import Part, prepare, read
    from pipelines.spec import Experiment

    block = Experiment.model_validate({"data": {"source": "digits"}}).data
    prepare(read(block, place), block, place / "rows", ("train", "valid"))
    train, valid = (Part.load(place / "rows" / name) for name in ("train", "valid"))
    np.savez(place / "rows.npz", X=train.X, y=train.y, X_valid=valid.X, y_valid=valid.y)
    return place / "rows.npz"


def compare(names: list[str], sizes: list[int], chosen: argparse.Namespace, rows: Path) -> None:
    """Time every candidate at every size, in turn; print the table."""
    taken: dict[tuple[str, int], list[Run]] = {}
    for name in names:
        timed = sizes if chosen.full or CANDIDATES[name].backend else [chosen.peer_trials]
        taken |= {(name, n): [] for n in (1, *timed)}
    for _ in range(chosen.rounds):
        for name, n in sorted(taken, key=lambda key: key[1]):
            taken[name, n].append(told(name, n, measure(CANDIDATES[name], n, rows)))
    runs = {key: median(of) for key, of in taken.items()}
    print(f"{os.cpu_count()} cores; {chosen.rounds} round(s)")
    heads = ("candidate", "trials", "wall s", "record s", "cpu s", "s/trial", "x peer", "aim", "best loss", "MiB")
    print(LINE.format(*heads))
    for size in sizes:
        at = {name: runs.get((name, size)) or line(name, size, chosen.peer_trials, runs) for name in names}
        for name in names:
            show(name, size, at)
    for name in names:
        print(f"start of {name} (1 trial): {runs[name, 1].seconds:.1f} s")


def line(name: str, size: int, few: int, runs: Mapping[tuple[str, int], Run]) -> Run:
    """start + N · seconds a trial, from 1 trial and from few."""
    one, some = runs[name, 1], runs[name, few]
    slope = {of: (getattr(some, of) - getattr(one, of)) / (few - 1) for of in ("seconds", "record", "cpu")}
    estimated = {of: getattr(one, of) + each * (size - 1) for of, each in slope.items()}
    return replace(some, **estimated, estimated=True)


def median(runs: list[Run]) -> Run:
    """By seconds; the best loss is the same in all rounds of ours, the best of the rounds of a peer."""
    medians = {key: statistics.median(getattr(run, key) for run in runs) for key in ("seconds", "record", "cpu", "peak")}
    return replace(min(runs, key=lambda run: run.best), **medians)


def told(name: str, size: int, run: Run) -> Run:
    """Say on standard error what has been timed: a round takes minutes."""
    print(f"  {name}, {size} trial(s): {run.seconds:.1f} s", file=sys.stderr, flush=True)
    return run


def show(name: str, size: int, at: Mapping[str, Run]) -> None:
    """One line of the table; ~ marks what was extrapolated."""
    run, candidate = at[name], CANDIDATES[name]
    peer = at.get(candidate.peer)
    faster = f"{peer.seconds / run.seconds:.1f}" if peer else ""
    aim = str(candidate.aims.get(size, ""))
    about = "~" if run.estimated else ""
    wall, record = f"{about}{run.seconds:.1f}", f"{about}{run.record:.1f}"
    each, best = f"{run.seconds / size:.3f}", f"{run.best:.4f} of {run.trials}"
    print(LINE.format(name, size, wall, record, f"{run.cpu:.1f}", each, faster, aim, best, f"{run.peak:.0f}"))


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", nargs="*", type=int, help="64 256 unless given")
    parser.add_argument("--peer-trials", type=int, default=8, help="at least 2")
    parser.add_argument("--full", action="store_true", help="time the peers at every size")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(CANDIDATES), choices=list(CANDIDATES), metavar="NAME")
    chosen = parser.parse_args()
    if chosen.peer_trials < 2:
        parser.error("--peer-trials must be at least 2: a line needs two points")
    with tempfile.TemporaryDirectory() as place:
        compare(chosen.only, sorted(chosen.trials or [64, 256]), chosen, make_rows(Path(place)))


if __name__ == "__main__":
    main()
