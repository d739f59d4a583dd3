"""Large files through split and one epoch of train: peak memory, time against pyarrow's own, training against small data.

Two files are made in a temporary folder, of normal numbers and a target: Parquet, 5 million rows of 30 inputs, and CSV, a million
rows of 50. Every measurement is a process of its own, in turn, `--rounds` times; medians are told. The sizes are those of the
inputs as float32. pyarrow reads and writes the same rows in the same format. Of train two peaks are told: of the whole process,
and what it takes beyond a process that has imported the backend's libraries and does nothing, which no data make larger.

    python benchmarks/data.py                  about fifteen minutes on two cores, 8 GB of disk
    python benchmarks/data.py --rows 0.02      a fiftieth of the rows
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMALL = 20_000  # rows
EPOCHS = 3  # of the large file; the first is left out of the time a row, which then holds no start
NETWORK = {"hidden": "[64, 64]", "batch_size": 256}

MAKE = """
import sys, numpy as np, pyarrow as pa
from pyarrow import csv, parquet
path, rows, columns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng, schema = np.random.default_rng(0), pa.schema([(name, pa.float64()) for name in [*(f"x{i}" for i in range(columns)), "y"]])
kind = parquet.ParquetWriter if path.endswith("parquet") else csv.CSVWriter
with kind(path, schema) as writer:
    for start in range(0, rows, 200_000):
        X = rng.normal(size=(min(200_000, rows - start), columns))
        if path.endswith("csv"):
            X = X.round(6)
        y = np.tanh(X[:, 0]) + X[:, 1] * X[:, 2] + rng.normal(size=len(X)) * 0.1
        writer.write_table(pa.table([*X.T.copy(), y.round(6)], schema=schema))
"""
PYARROW = """
import sys
from pyarrow import csv, parquet
path = sys.argv[1]
if path.endswith("parquet"):
    parquet.write_table(parquet.read_table(path), path + ".copy")
else:
    csv.write_csv(csv.read_csv(path), path + ".copy")
"""
EPOCH_TIMES = """
import sys, time, json
from pathlib import Path
from pipelines import stages
from pipelines.data import About
from pipelines.spec import load
places, ends = stages.RunPaths(Path()), []
stages.train(load("params.yaml", sys.argv[1:]), places, progress=lambda record: ends.append(time.perf_counter()))
rows = About.load(places.about).rows["train"]
print(json.dumps([1e6 * (b - a) / rows for a, b in zip(ends, ends[1:])]))
"""


IDLE = """
import sys, backends, pipelines.stages
backends.get(sys.argv[1])
"""


@dataclass(frozen=True)
class Run:
    """A process: how long, how much memory at most, what it printed."""

    seconds: float
    peak: float  # bytes
    out: str


def run(folder: Path, *command: str) -> Run:
    """Carry out one process of this interpreter. This process stays small: a child's peak is at least its parent's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as out:
        began = time.perf_counter()
        child = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=out, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        out.seek(0)
        if child.returncode:
            raise SystemExit(f"{command[:3]} ended with code {child.returncode}")
        return Run(seconds, usage.ru_maxrss * 1024, out.read())


def deltarule(folder: Path, *arguments: str) -> Run:
    """One command, in a project."""
    return run(folder, "-c", "from pipelines.cli import main; main()", *arguments)


def project(folder: Path, file: Path, backend: str) -> Path:
    """A folder with a spec for a file."""
    folder.mkdir()
    (folder / "params.yaml").write_text(
        f"data: {{source: {file}, target: y}}\nmodel: {{hidden: {NETWORK['hidden']}}}\n"
        f"train: {{backend: {backend}, epochs: 1, batch_size: {NETWORK['batch_size']}, early_stopping: {{patience: null}}}}\n"
    )
    return folder


@dataclass
class Case:
    """A file, and what was measured on it."""

    name: str
    file: Path
    rows: int
    columns: int
    measured: dict[str, list[float]]

    @property
    def size(self) -> int:
        """Bytes of the inputs as float32."""
        return 4 * self.rows * self.columns

    def note(self, **values: float) -> None:
        """One round's measurements."""
        for name, value in values.items():
            self.measured.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        """Over the rounds."""
        return statistics.median(self.measured[name])


def measure(case: Case, folder: Path, small: Path, backend: str) -> None:
    """One round."""
    arrow = run(folder, "-c", PYARROW, str(case.file))
    case.file.with_name(case.file.name + ".copy").unlink()
    split = deltarule(folder, "split")
    train = deltarule(folder, "train")
    case.note(arrow=arrow.seconds, split=split.seconds, split_peak=split.peak, train=train.seconds, train_peak=train.peak)
    case.note(idle=run(folder, "-c", IDLE, backend).peak)
    large = json.loads(run(folder, "-c", EPOCH_TIMES, f"train.epochs={EPOCHS}").out.splitlines()[-1])
    epochs = max(6, min(100, EPOCHS * case.rows // SMALL // 4))
    few = run(small, "-c", EPOCH_TIMES, f"train.epochs={epochs}")
    little = json.loads(few.out.splitlines()[-1])
    case.note(large=statistics.median(large), small=statistics.median(little), small_peak=few.peak)


def show(case: Case) -> None:
    """A few lines."""
    data = case.size
    print(f"\n{case.name}: {case.rows} rows x {case.columns} inputs, {data / 1e6:.0f} MB as float32")
    for stage in ("split", "train"):
        peak = case.median(f"{stage}_peak")
        print(f"  {stage}: {case.median(stage):.1f} s, peak {peak / 1e6:.0f} MB, {peak / data:.2f} times the data (limit 2.5)")
    idle = case.median("idle")
    beyond = case.median("train_peak") - idle
    print(f"  train beyond its libraries, {idle / 1e6:.0f} MB idle: {beyond / 1e6:.0f} MB, {beyond / data:.2f} times the data")
    arrow = case.median("arrow")
    times = case.median("split") / arrow
    print(f"  pyarrow reads and writes the same in {arrow:.1f} s; split takes {times:.2f} times that (limit 2)")
    print(f"  libraries: train takes {case.median('small_peak') / 1e6:.0f} MB on {SMALL} rows")
    large, small = case.median("large"), case.median("small")
    print(f"  training: {large:.3f} µs a row; on {SMALL} rows {small:.3f}: {large / small:.2f} times")


def main() -> None:
    """Make the files, measure in turn, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", default="lightning")
    parser.add_argument("--only", choices=("parquet", "csv"), help="one file")
    parser.add_argument("--into", type=Path, help="folder for the files, kept; else a temporary one")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.into or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        cases = []
        for kind, rows, columns in (("parquet", 5_000_000, 30), ("csv", 1_000_000, 50)):
            if chosen.only not in (None, kind):
                continue
            count = int(rows * chosen.rows)
            case = Case(kind, folder / f"rows-{count}.{kind}", count, columns, {})
            little = folder / f"small.{kind}"
            for file, n in ((case.file, count), (little, SMALL)):
                if not file.exists():
                    run(folder, "-c", MAKE, str(file), str(n), str(columns))
            cases.append((case, project(Path(temporary) / kind, case.file, chosen.backend),
                          project(Path(temporary) / f"small-{kind}", little, chosen.backend)))  # fmt: skip
            deltarule(cases[-1][2], "split")
        for _ in range(chosen.rounds):
            for case, large, small in cases:
                measure(case, large, small, chosen.backend)
        for case, _, _ in cases:
            show(case)


if __name__ == "__main__":
    main()
