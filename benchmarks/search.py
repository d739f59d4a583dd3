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
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
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
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
RECORD_SECONDS = 300  # after the answer, until all trials must be on record


class Candidate(NamedTuple):
    """A backend of ours, and the peer that it is compared with; or a peer's script of peers/."""

    backend: str = ""
    peer: str = ""
    script: str = ""


CANDIDATES = {
    "ours lightning": Candidate("lightning", "optuna + lightning"),
    "ours keras": Candidate("keras", "optuna + keras"),
    "ours keras-jax": Candidate("keras-jax", "optuna + keras"),
    "optuna + lightning": Candidate(script="optuna_lightning.py"),
    "optuna + keras": Candidate(script="optuna_keras.py"),
}


def measure(candidate: Candidate, trials: int, rows: Path) -> dict[str, float]:
    """A run from nothing, in an empty folder; all its trials must have completed and be on record.

    Seconds until the winner is known, until all trials are on record and of processor, the best validation cross-entropy, and
    most MiB of the whole process tree, shared pages counted in each.
    """
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
        count_runs(folder / (".mlflow/mlflow.db" if candidate.backend else "mlflow.db"), trials)
        best = said["best"]["values"][0] if candidate.backend else said["best"]
        return {"wall s": seconds, "record s": record, "cpu s": processor() - cpu, "best loss": best, "MiB": peak}


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

    from pipelines.data import prepare, read
    from pipelines.spec import Experiment

    block = Experiment.model_validate({"data": {"source": "digits"}}).data
    about = prepare(read(block, place), block, place / "rows", ("train", "valid"))
    train, valid = (about.open(place / "rows", name) for name in ("train", "valid"))
    np.savez(place / "rows.npz", X=train.X, y=train.y, X_valid=valid.X, y_valid=valid.y)
    return place / "rows.npz"


def compare(names: list[str], sizes: list[int], chosen: argparse.Namespace, rows: Path) -> None:
    """Time every candidate at every size, in turn; print the table."""
    timed = {name: sizes if chosen.full or CANDIDATES[name].backend else [chosen.peer_trials] for name in names}
    taken = [(name, n) for name in names for n in sorted({1, *timed[name]})]
    measured = []
    for _ in range(chosen.rounds):
        for name, n in sorted(taken, key=lambda one: one[1]):
            measured.append({"candidate": name, "trials": n, **measure(CANDIDATES[name], n, rows)})
            print(f"  {name}, {n} trial(s): {measured[-1]['wall s']:.1f} s", file=sys.stderr, flush=True)  # a round takes minutes
    print(f"{os.cpu_count()} cores; {chosen.rounds} round(s); start is what 1 trial takes; ~: extrapolated")
    print(table(pd.DataFrame(measured), sizes, chosen.peer_trials).round(3).to_string(na_rep="", index=False))


def table(measured: pd.DataFrame, sizes: list[int], few: int) -> pd.DataFrame:
    """A row a candidate and size: medians, or the line through those of 1 trial and of `few` (~); and how many times faster."""
    medians = measured.groupby(["candidate", "trials"], sort=False).median()
    lines = []
    for size in sizes:
        for name in measured["candidate"].unique():
            one, line = medians.loc[(name, 1)], {"candidate": name, "trials": str(size)}
            if (name, size) in medians.index:
                found = medians.loc[(name, size)]
            else:
                some = medians.loc[(name, few)]
                found = one + (some - one) / (few - 1) * (size - 1)
                found[["best loss", "MiB"]] = some[["best loss", "MiB"]]
                line["trials"] = f"~{size}"
            lines.append({**line, **found, "s/trial": found["wall s"] / size, "start s": one["wall s"], "size": size})
    made = pd.DataFrame(lines)
    seconds = made.set_index(["candidate", "size"])["wall s"]
    peers = [(CANDIDATES[name].peer, size) for name, size in zip(made["candidate"], made["size"], strict=True)]
    made["x peer"] = [seconds.get(peer, float("nan")) for peer in peers] / made["wall s"]
    return made.drop(columns="size")


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
