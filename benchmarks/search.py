"""Whole studies beside what people write with Optuna: `make bench`. Wall clock of the process, imports and MLflow included.

Digits (60/20/20, the same rows for all), 64-128-64-10, batch 32, Adam 1e-3, 30 epochs for every trial, over activation, λ1, λ2
and dropout by TPE, no pruner, one MLflow run a trial under a parent, sqlite. Each run is a process of its own in an empty
folder; candidates alternate. The peers, in benchmarks/peers/, take minutes a round: unless `--full`, each is timed at 1 trial
and at `--peer-trials`, and its time for N trials is the line through both; that their samplers slow down with N is left out,
which favours them. They compute with one thread (`--threads free`: as they would), which is their quicker way. scikit-learn's
search has no dropout, no L1, no leaky_relu and no MLflow: compare seconds a model.

    python benchmarks/search.py --trials 64 256          the table
    python benchmarks/search.py --trials 64 256 --full   the same, nothing extrapolated
    python benchmarks/search.py --trials 64 --full --winners   and what each winner is worth under 15 other seeds
    python benchmarks/search.py --growth                 how our cost grows with trials, K and workers; memory
    python benchmarks/search.py --logging --rounds 5     what the record in MLflow adds, with it and without in turn
    python benchmarks/search.py --accelerator            K up to 1024 on an accelerator
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parent / "peers"
EPOCHS, STEPS = 30, 30 * 34  # 1078 training rows in batches of 32
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
LINE = "{:20} {:>6} {:>8} {:>8} {:>8} {:>7} {:>4} {:>9} {:>15} {:>6}"
UNTRACKED = "tracking.enabled=false"
PATHS = {"activation": "model.activation", "l1": "regularization.l1", "l2": "regularization.l2", "dropout": "model.dropout"}
SEEDS = 15  # under which a winner is trained again; none of them is one of a search
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True)
class Candidate:
    """A backend of ours or a script of peers/, and whom it is held against (with the least ratio at so many trials)."""

    backend: str = ""
    script: str = ""
    peer: str = ""
    aims: Mapping[int, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


CANDIDATES = {
    "ours lightning": Candidate("lightning", peer="optuna + lightning", aims={64: 10, 256: 18}),
    "ours keras": Candidate("keras", peer="optuna + keras", aims={64: 20, 256: 40}),
    "ours keras-jax": Candidate("keras-jax", peer="optuna + keras"),
    "optuna + lightning": Candidate(script="optuna_lightning.py"),
    "optuna + keras": Candidate(script="optuna_keras.py"),
    "sklearn": Candidate(script="sklearn_random.py"),
}


@dataclass(frozen=True)
class Run:
    """One process, or the median of several, or (`estimated`) the line through two."""

    seconds: float
    best: float  # validation cross-entropy
    trials: int  # that `best` is the best of
    cpu: float = 0.0  # seconds of processor, of the whole process tree
    peak: float = 0.0  # MiB of the whole process tree, shared pages counted in each
    estimated: bool = False
    winner: tuple[str, ...] = ()  # as --set takes it


def carry_out(candidate: Candidate, trials: int, rows: Path, threads: str, changes: Sequence[str] = (), seed: int = 0) -> Run:
    """A run from nothing, in an empty folder; what it left behind is counted before the folder goes."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        command = [sys.executable, str(PEERS / candidate.script), "--rows", str(rows), "--seed", str(seed)]
        if candidate.backend:
            (folder / "params.yaml").write_text(PARAMS.format(backend=candidate.backend))
            sets = [word for change in (*changes, f"search.seed={seed}") for word in ("--set", change)]
            command = [sys.executable, "-m", "pipelines.cli", "search", "--json", "--name", "bench", *sets]
        seconds, cpu, peak, said = watched([*command, "--trials", str(trials)], folder, environment(candidate, threads))
        if UNTRACKED not in changes:
            (count_ours if candidate.backend else count_theirs)(folder, trials, candidate)
    best = said["best"]["values"][0] if candidate.backend else said["best"]
    found = said["best"]["changes"] if candidate.backend else {PATHS[k]: v for k, v in said.get("params", {}).items()}
    return Run(seconds, best, trials, cpu, peak, winner=tuple(f"{path}={value}" for path, value in found.items()))


def environment(candidate: Candidate, threads: str) -> dict[str, str]:
    """One thread or free for the peers; ours chooses for itself. No telemetry on either side."""
    inherited = {name: value for name, value in os.environ.items() if name not in THREADS}
    limits = dict.fromkeys(THREADS, "1") if threads == "one" and candidate.script else {}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return {**inherited, **limits, **quiet, **candidate.environment}


def watched(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, float, float, dict[str, Any]]:
    """Seconds, those of the processor, most resident memory in MiB (looked at five times a second), the JSON it ended with."""
    import psutil

    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start, worked, peak = time.perf_counter(), processor(), 0.0
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err)
        tree = psutil.Process(process.pid)
        while True:
            try:
                process.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, resident(tree))
        seconds, cpu = time.perf_counter() - start, processor() - worked
        for file in (out, err):
            file.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}:\n{err.read()[-3000:]}")
        return seconds, cpu, peak, json.loads(out.read().strip().splitlines()[-1])


def processor() -> float:
    """Seconds of processor of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident(tree: Any) -> float:
    """MiB of a process and all below it; those that ended meanwhile count 0."""
    import psutil

    total = 0
    for process in [tree, *tree.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total / 2**20


def count_ours(folder: Path, trials: int, _: Candidate) -> None:
    """Every trial completed, with as many optimizer steps as the peers', and is on record."""
    records = [json.loads(path.read_text()) for path in (folder / "studies/bench/trials").glob("*.json")]
    carried = {(one["state"], one["steps"], one["epochs"]) for one in records}
    if len(records) != trials or carried != {("COMPLETE", STEPS, EPOCHS)}:
        raise SystemExit(f"{trials} trials of {STEPS} steps were to complete, found {len(records)}: {carried}")
    count_runs(folder / ".mlflow/mlflow.db", trials)


def count_theirs(folder: Path, trials: int, candidate: Candidate) -> None:
    """Every trial is on record, where the peer keeps one."""
    if candidate.script != "sklearn_random.py":
        count_runs(folder / "mlflow.db", trials)


def count_runs(database: Path, trials: int) -> None:
    """One child run a trial, finished."""
    with sqlite3.connect(database) as store:
        query = "select count(*) from runs join tags using (run_uuid) where key = 'mlflow.parentRunId' and status = 'FINISHED'"
        (found,) = store.execute(query).fetchone()
    if found != trials:
        raise SystemExit(f"MLflow was to hold {trials} finished child runs, found {found}")


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


# -- the table ------------------------------------------------------------------------------------------------------------


def compare(names: list[str], sizes: list[int], chosen: argparse.Namespace, rows: Path) -> None:
    """Time every candidate at every size, in turn; print the table."""
    wanted = [(name, n) for n in measured_sizes(sizes, chosen, peer=True) for name in names if CANDIDATES[name].script]
    wanted += [(name, n) for n in measured_sizes(sizes, chosen, peer=False) for name in names if CANDIDATES[name].backend]
    taken: dict[tuple[str, int], list[Run]] = {key: [] for key in wanted}
    for _ in range(chosen.rounds):
        for name, n in sorted(taken, key=lambda key: key[1]):
            taken[name, n].append(told(name, n, carry_out(CANDIDATES[name], n, rows, chosen.threads)))
    runs = {key: median(of) for key, of in taken.items()}
    print(f"{os.cpu_count()} cores; peers: {chosen.threads} thread(s); {chosen.rounds} round(s)")
    print(LINE.format("candidate", "trials", "wall s", "cpu s", "s/trial", "x peer", "aim", "x sklearn", "best loss", "MiB"))
    for size in sizes:
        at = {name: runs.get((name, size)) or line(name, size, chosen.peer_trials, runs) for name in names}
        for name in names:
            show(name, size, at)
    for name in names:
        print(f"start of {name} (1 trial): {runs[name, 1].seconds:.1f} s")
    if chosen.winners:
        print(f"validation loss of each winner under {SEEDS} other seeds: mean, its 95 % interval, sd")
        for (name, size), run in sorted(runs.items()):
            if run.winner and size in sizes:
                loss = worth(run.winner)
                interval = f"{loss['low']:.4f} to {loss['high']:.4f}"
                print(f"{name:20} {size:>6}  {loss['mean']:.4f}  {interval}  {loss['sd']:.4f}", flush=True)


def worth(winner: Sequence[str]) -> dict[str, float]:
    """What a winner is worth apart from the luck of its seed: the same network, data and epochs, all seeds in one stack."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "params.yaml").write_text(PARAMS.format(backend="lightning"))
        sets = [word for change in (*winner, "seed=1000") for word in ("--set", change)]
        for command in (["split"], ["evaluate", "--json", "--seeds", str(SEEDS), *sets]):
            whole = [sys.executable, "-m", "pipelines.cli", *command]
            done = subprocess.run(whole, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["validate"]["loss"]


def measured_sizes(sizes: list[int], chosen: argparse.Namespace, peer: bool) -> list[int]:
    """At how many trials a candidate is timed."""
    return sorted({1, *(sizes if chosen.full or not peer else [chosen.peer_trials])})


def line(name: str, size: int, few: int, runs: Mapping[tuple[str, int], Run]) -> Run:
    """start + N · seconds a trial, from 1 trial and from few."""
    one, some = runs[name, 1], runs[name, few]
    seconds, cpu = (
        getattr(one, of) + (getattr(some, of) - getattr(one, of)) / (few - 1) * (size - 1) for of in ("seconds", "cpu")
    )
    return Run(seconds, some.best, few, cpu, some.peak, estimated=True)


def median(runs: list[Run]) -> Run:
    """By seconds; the best loss is the same in all rounds of ours, the best of the rounds of a peer."""
    seconds, cpu, peak = (statistics.median(getattr(run, key) for run in runs) for key in ("seconds", "cpu", "peak"))
    return replace(min(runs, key=lambda run: run.best), seconds=seconds, cpu=cpu, peak=peak)


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
    than_sklearn = f"{at['sklearn'].seconds / run.seconds:.1f}" if "sklearn" in at and name != "sklearn" else ""
    wall, best = f"{'~' if run.estimated else ''}{run.seconds:.1f}", f"{run.best:.4f} of {run.trials}"
    cpu, each, peak = f"{run.cpu:.1f}", f"{run.seconds / size:.3f}", f"{run.peak:.0f}"
    print(LINE.format(name, size, wall, cpu, each, faster, aim, than_sklearn, best, peak))


# -- growth, accelerator --------------------------------------------------------------------------------------------------


def growth(backend: str, sizes: list[int], chosen: argparse.Namespace, rows: Path) -> None:
    """Our cost and memory by the number of trials, by K in one process, and by workers."""
    few = sizes[0]
    whole = f"search.generation={few}"
    cases: list[tuple[str, int, list[str]]] = [(f"{n} trials", n, []) for n in sizes]
    cases += [(f"K={k}, one process", few, [f"search.width={k}", "search.engine=here", whole]) for k in (1, 4, 16, 64)]
    cases += [(f"{w} worker(s)", sizes[-1], ["search.engine=processes", f"search.workers={w}"]) for w in (1, 2)]
    print(f"{backend}\n{'case':24} {'trials':>6} {'wall s':>8} {'cpu s':>8} {'s/trial':>8} {'MiB':>6}")
    for label, n, changes in cases:
        run = median([carry_out(Candidate(backend), n, rows, chosen.threads, changes) for _ in range(chosen.rounds)])
        print(f"{label:24} {n:6} {run.seconds:8.1f} {run.cpu:8.1f} {run.seconds / n:8.3f} {run.peak:6.0f}", flush=True)


def logging(backend: str, n: int, chosen: argparse.Namespace, rows: Path) -> None:
    """A study with its record and without, in turn: the medians, and the median of the differences within a round."""
    taken: dict[str, list[Run]] = {"with MLflow": [], "without": []}
    for _ in range(chosen.rounds):
        for label, changes in zip(taken, ([], [UNTRACKED]), strict=True):
            taken[label].append(told(label, n, carry_out(Candidate(backend), n, rows, chosen.threads, changes)))
    print(f"{backend}, {n} trials, {chosen.rounds} rounds\n{'':12} {'wall s':>8} {'cpu s':>8}")
    for label, runs in taken.items():
        print(f"{label:12} {median(runs).seconds:8.2f} {median(runs).cpu:8.2f}")
    more = [tracked.seconds - bare.seconds for tracked, bare in zip(*taken.values(), strict=True)]
    share = statistics.median(more) / median(taken["without"]).seconds
    print(f"more, each round: {' '.join(f'{each:.2f}' for each in more)} s; median {100 * share:.1f} %")


def accelerator(sizes: list[int], chosen: argparse.Namespace, rows: Path) -> None:
    """Wide stacks in one process that holds the accelerator, beside the Lightning script there and on the processor."""
    look = [sys.executable, "-c", "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else '')"]
    device = subprocess.run(look, capture_output=True, text=True, check=True).stdout.strip()
    if not device:
        return print("torch sees no accelerator here; nothing was measured")
    n = sizes[-1]
    few = chosen.peer_trials
    print(f"{device}\n{'case':36} {'trials':>6} {'wall s':>9} {'s/trial':>8} {'x quicker peer':>15} {'best loss':>18}")
    peers = {}
    for label, hidden in (("on the accelerator", {}), ("on the processor", {"CUDA_VISIBLE_DEVICES": ""})):
        peer = Candidate(script="optuna_lightning.py", environment=hidden)
        timed = {(label, size): carry_out(peer, size, rows, chosen.threads) for size in (1, n if chosen.full else few)}
        peers[label] = timed.get((label, n)) or line(label, n, few, timed)
        show_case(f"optuna + lightning, {label}", n, peers[label], None)
    quicker = min(run.seconds for run in peers.values())
    for k in (width for width in (16, 64, 256, 1024) if width <= n):
        changes = ["search.engine=here", f"search.width={k}", f"search.generation={n}"]
        show_case(f"ours lightning K={k}", n, carry_out(Candidate("lightning"), n, rows, chosen.threads, changes), quicker)


def show_case(label: str, size: int, run: Run, peer: float | None) -> None:
    """One line."""
    wall, ratio = f"{'~' if run.estimated else ''}{run.seconds:.1f}", f"{peer / run.seconds:.1f}" if peer else ""
    best = f"{run.best:.4f} of {run.trials}"
    print(f"{label:36} {size:6} {wall:>9} {run.seconds / size:8.3f} {ratio:>15} {best:>18}", flush=True)


def main() -> None:
    """One of the four tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", nargs="*", type=int, help="64 256; with --growth 64 256 1024, with --accelerator 1024")
    parser.add_argument("--peer-trials", type=int, default=8, help="at least 2")
    parser.add_argument("--full", action="store_true", help="time the peers at every size")
    parser.add_argument("--winners", action="store_true", help="train each winner again under other seeds")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(CANDIDATES), choices=list(CANDIDATES), metavar="NAME")
    parser.add_argument("--threads", choices=["one", "free"], default="one", help="of the peers")
    parser.add_argument("--backend", default="lightning", help="for --growth and --logging")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--logging", action="store_true")
    parser.add_argument("--accelerator", action="store_true")
    chosen = parser.parse_args()
    if chosen.peer_trials < 2:
        parser.error("--peer-trials must be at least 2: a line needs two points")
    with tempfile.TemporaryDirectory() as place:
        rows = make_rows(Path(place))
        if chosen.growth:
            growth(chosen.backend, sorted(chosen.trials or [64, 256, 1024]), chosen, rows)
        elif chosen.logging:
            logging(chosen.backend, (chosen.trials or [128])[0], chosen, rows)
        elif chosen.accelerator:
            accelerator(sorted(chosen.trials or [1024]), chosen, rows)
        else:
            compare(chosen.only, sorted(chosen.trials or [64, 256]), chosen, rows)


if __name__ == "__main__":
    main()
