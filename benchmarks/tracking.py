"""What tracking costs: `python benchmarks/tracking.py`, or a part of it: cost, faults.

cost: the digits run of params.yaml with its record, beside the same without tracking; seconds of the training and of the whole
command. faults: the same where the store is absent or locked, beside one that works. Sides
alternate, so that a busy machine slows all alike; medians, and the difference of medians, are what to quote.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backends import children

ROOT = Path(__file__).resolve().parents[1]
Side = Callable[[int], tuple[float, float]]  # round -> seconds of the training, and of the command


def command(project: Path, *changes: str, uri: str | None = None) -> tuple[float, float]:
    """Seconds of the training, and of the whole `deltarule run`."""
    options = [part for change in changes for part in ("--set", change)]
    environment = children.environment() | ({"MLFLOW_TRACKING_URI": uri} if uri else {})
    began = time.perf_counter()
    done = subprocess.run(
        [*children.command("-m", "_deltarule"), "run", "--json", *options],
        cwd=project, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    whole = time.perf_counter() - began
    return json.loads(done.stdout)["seconds"]["train"], whole


def compare(sides: dict[str, Side], rounds: int) -> None:
    """Rounds in turn, each begun with another side; the first, which fills caches, is not counted."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        order = list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]
        for name in order:
            seconds = sides[name](number)
            if number:
                found[name].append(seconds)
    first = next(iter(sides))
    base = [statistics.median(column) for column in zip(*found[first], strict=True)]
    print(f"{'':24}{'training':>10}{'ratio':>8}{'command':>10}{'more':>8}   medians of {rounds}, s")
    for name, rows in found.items():
        train, whole = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:24}{train:10.3f}{train / base[0]:8.3f}{whole:10.3f}{whole - base[1]:8.3f}", flush=True)


@contextmanager
def project() -> Iterator[Path]:
    """A folder with this project's spec, and a store that is there already."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ".dvc").mkdir()
        shutil.copy(ROOT / "params.yaml", folder)
        command(Path(folder), "train.backend=reference", "train.epochs=1")
        yield Path(folder)


def cost(rounds: int, backend: str) -> None:
    """Log and uploader beside no tracking; and, for the machine's own luck, no tracking a second time."""
    with project() as folder:
        change = f"train.backend={backend}"
        sides: dict[str, Side] = {
            "without tracking": lambda number: command(folder, change, "tracking.enabled=false"),
            "with tracking": lambda number: command(folder, change),
            "without, once more": lambda number: command(folder, change, "tracking.enabled=false"),
        }
        print(f"digits, {backend}")
        compare(sides, rounds)


# -- a store that fails --


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def faults(rounds: int, backend: str) -> None:
    """The command while the store is as it should not be, all the time."""
    change = f"train.backend={backend}"
    with project() as folder:

        def locked(_: int) -> tuple[float, float]:
            with sqlite3.connect(folder / ".mlflow/mlflow.db", isolation_level=None) as lock:
                lock.execute("BEGIN EXCLUSIVE")
                return command(folder, change)

        def fresh(seconds: tuple[float, float]) -> tuple[float, float]:
            shutil.rmtree(folder / ".deltarule/log")  # what waits would be sent by the next that can
            return seconds

        sides: dict[str, Side] = {
            "a database": lambda _: fresh(command(folder, change)),
            "absent": lambda _: fresh(command(folder, change, uri=f"http://127.0.0.1:{free_port()}")),
            "locked database": lambda _: fresh(locked(_)),
        }
        print(f"digits, {backend}")
        compare(sides, rounds)


def main() -> None:
    """What is asked for, one part after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["cost", "faults"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backend", default="lightning")
    given = parser.parse_args()
    for part in given.parts:
        {"cost": cost, "faults": faults}[part](given.rounds, given.backend)


if __name__ == "__main__":
    main()
