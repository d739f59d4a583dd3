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
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

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


FILES = {"parquet": (5_000_000, 30), "csv": (1_000_000, 50)}  # rows, and inputs


def run(folder: Path, *command: str) -> dict[str, float]:
    """Seconds and most memory of one process of this Python.

    This one stays small: a child's peak is at least its parent's.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command[:3]} ended with exit code {child.returncode}")
    return {"seconds": time.perf_counter() - began, "peak MB": usage.ru_maxrss * 1024 / 1e6}


def project(folder: Path, file: Path, backend: str) -> None:
    """A folder with a spec for a file."""
    folder.mkdir()
    (folder / "params.yaml").write_text(
        f"data: {{source: {file}, target: y}}\nmodel: {{hidden: [64, 64]}}\n"
        f"train: {{backend: {backend}, epochs: 1, batch_size: 256, early_stopping: {{patience: null}}}}\n"
        "tracking: {enabled: false}\n"
    )


def measure(kind: str, file: Path, folder: Path) -> list[dict[str, Any]]:
    """One round on one file."""
    stages = {stage: ("-m", "_deltarule", stage) for stage in ("split", "train")}
    commands = {"pyarrow": ("-c", PYARROW, str(file)), **stages}
    found = [{"file": kind, "process": name, **run(folder, *command)} for name, command in commands.items()]
    file.with_name(file.name + ".copy").unlink()
    return found


def show(measured: list[dict[str, Any]], megabytes: dict[str, float], idle: float) -> None:
    """Medians, a line a process, beside pyarrow's time and the size of the data."""
    import pandas as pd  # after all that is measured

    table = pd.DataFrame(measured).groupby(["file", "process"], sort=False).median()
    size = pd.Series(megabytes)
    table["times pyarrow"] = table["seconds"].div(table["seconds"].xs("pyarrow", level="process"), level="file")
    table["times the data"] = table["peak MB"].div(size, level="file")
    table["beyond libraries"] = (table["peak MB"] - idle).div(size, level="file").where(table.index.isin(["train"], "process"))
    print(table.round(2).to_string(na_rep=""))
    print(f"as float32: {megabytes} MB; a process with the libraries of train, idle: {idle:.0f} MB")


def main() -> None:
    """Make the files, measure in turn, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", default="lightning")
    parser.add_argument("--only", choices=FILES, help="one file")
    parser.add_argument("--into", type=Path, help="folder for the files, kept; else a temporary one")
    chosen = parser.parse_args()
    files: dict[str, Path] = {}
    megabytes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.into or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in [chosen.only] if chosen.only else FILES:
            rows, columns = int(FILES[kind][0] * chosen.rows), FILES[kind][1]
            files[kind], megabytes[kind] = folder / f"rows-{rows}.{kind}", 4 * rows * columns / 1e6
            if not files[kind].exists():
                run(folder, "-c", MAKE, str(files[kind]), str(rows), str(columns))
            project(Path(temporary) / kind, files[kind], chosen.backend)
        idle = run(folder, "-c", IDLE, chosen.backend)["peak MB"]
        measured = [
            row
            for _ in range(chosen.rounds)
            for kind, file in files.items()
            for row in measure(kind, file, Path(temporary) / kind)
        ]
    show(measured, megabytes, idle)


if __name__ == "__main__":
    main()
