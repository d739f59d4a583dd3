"""Large files through split and one epoch of train: peak memory, and time against pyarrow's own.

Two files are made in a temporary folder, of normal numbers and a target: Parquet, 5 million rows of 30 inputs, and CSV, a million
rows of 50. Every measurement is a process of its own, in turn, `--rounds` times; medians are shown. The sizes are those of the
inputs as float32. pyarrow reads and writes the same rows in the same format. Of train two peaks are shown: of the whole process,
and beyond a process that has imported the backend's libraries and does nothing.

    python benchmarks/data.py                  about fifteen minutes on two cores, 8 GB of disk
    python benchmarks/data.py --rows 0.02      a fiftieth of the rows
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

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
IDLE = """
import sys, backends, pipelines.stages
backends.get(sys.argv[1])
"""


@dataclass(frozen=True)
class Run:
    """A process: how long, and how much memory at most."""

    seconds: float
    peak: float  # bytes


def run(folder: Path, *command: str) -> Run:
    """Carry out one process of this interpreter. This process stays small: a child's peak is at least its parent's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command[:3]} ended with exit code {child.returncode}")
    return Run(time.perf_counter() - began, usage.ru_maxrss * 1024)


def project(folder: Path, file: Path, backend: str) -> None:
    """A folder with a spec for a file."""
    folder.mkdir()
    (folder / "params.yaml").write_text(
        f"data: {{source: {file}, target: y}}\nmodel: {{hidden: [64, 64]}}\n"
        f"train: {{backend: {backend}, epochs: 1, batch_size: 256, early_stopping: {{patience: null}}}}\n"
        "tracking: {enabled: false}\n"
    )


@dataclass
class Case:
    """A file, and what was measured on it."""

    kind: str
    file: Path
    rows: int
    columns: int
    measured: dict[str, list[Run]] = field(default_factory=lambda: {"pyarrow": [], "split": [], "train": []})

    @property
    def size(self) -> int:
        """Bytes of the inputs as float32."""
        return 4 * self.rows * self.columns


def measure(case: Case, folder: Path) -> None:
    """One round."""
    case.measured["pyarrow"].append(run(folder, "-c", PYARROW, str(case.file)))
    case.file.with_name(case.file.name + ".copy").unlink()
    for stage in ("split", "train"):
        case.measured[stage].append(run(folder, "-m", "_deltarule", stage))


def show(case: Case, idle: float) -> None:
    """A line a stage."""
    print(f"\n{case.kind}: {case.rows} rows x {case.columns} inputs, {case.size / 1e6:.0f} MB as float32")
    seconds = {name: statistics.median(run.seconds for run in runs) for name, runs in case.measured.items()}
    peak = {name: statistics.median(run.peak for run in runs) for name, runs in case.measured.items()}
    for name in case.measured:
        times = f"{peak[name] / 1e6:.0f} MB, {peak[name] / case.size:.2f} times the data"
        print(f"  {name:8} {seconds[name]:6.1f} s, {seconds[name] / seconds['pyarrow']:.2f} times pyarrow; peak {times}")
    beyond = peak["train"] - idle
    print(f"  train beyond its libraries, {idle / 1e6:.0f} MB: {beyond / 1e6:.0f} MB, {beyond / case.size:.2f} times the data")


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
            if chosen.only in (None, kind):
                count = int(rows * chosen.rows)
                cases.append(Case(kind, folder / f"rows-{count}.{kind}", count, columns))
        for case in cases:
            if not case.file.exists():
                run(folder, "-c", MAKE, str(case.file), str(case.rows), str(case.columns))
            project(Path(temporary) / case.kind, case.file, chosen.backend)
        for _ in range(chosen.rounds):
            for case in cases:
                measure(case, Path(temporary) / case.kind)
        idle = run(folder, "-c", IDLE, chosen.backend).peak
        for case in cases:
            show(case, idle)


if __name__ == "__main__":
    main()
