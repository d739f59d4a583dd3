"""What tracking costs: `python benchmarks/tracking.py`, or a part of it: cost, replay, faults.

cost: the digits run of params.yaml with its log and live uploader, beside the same without tracking; seconds of the training
and of the whole command. replay: 100 000 points of one journal into a fresh database, and through a server. faults: the
whole command where the store is absent, hangs, answers 503 or is locked, beside one that works. Sides alternate, so that a
busy machine slows all alike; medians, and the difference of medians, are what to quote.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from backends import children
from pipelines.spec import Tracking
from pipelines.stages.paths import RunPaths
from pipelines.tracking.events import Event
from pipelines.tracking.journal import Journal
from pipelines.tracking.record import deliver
from pipelines.tracking.store import locate, warm

ROOT = Path(__file__).resolve().parents[1]
POINTS, NAMES = 100_000, 20
Side = Callable[[int], tuple[float, float]]  # round -> seconds of the training, and of the command


def command(project: Path, *changes: str, uri: str | None = None) -> tuple[float, float]:
    """Seconds of the training, and of the whole `deltarule run`."""
    options = [part for change in changes for part in ("--set", change)]
    environment = children.environment() | ({"MLFLOW_TRACKING_URI": uri} if uri else {})
    began = time.perf_counter()
    done = subprocess.run(
        [*children.command("-m", "pipelines.cli"), "run", "--json", *options],
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


# -- a store that fails ---------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`mlflow server` on a database of its own: its address and process."""
    port = free_port()
    options = ["--backend-store-uri", f"sqlite:///{folder}/served.db", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        children.command("-m", "mlflow", "server", *options, "--artifacts-destination", str(folder / "served")),
        env=children.environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0,
    )  # fmt: skip
    try:
        while not answers(f"http://127.0.0.1:{port}/health"):
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    """Whether a server is up."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class Unavailable(http.server.BaseHTTPRequestHandler):
    """Answers 503 to all."""

    def do_GET(self) -> None:
        """As to all."""
        self.send_error(503)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:  # type: ignore[override]
        """Nothing is said."""


def faults(rounds: int, backend: str) -> None:
    """The command while the store is as it should not be, all the time."""
    change = f"train.backend={backend}"
    with project() as folder, ExitStack() as stack, tempfile.TemporaryDirectory() as other:
        healthy, _ = stack.enter_context(server(Path(other)))
        command(folder, change, uri=healthy)
        (Path(other) / "hangs").mkdir()
        hanging, process = stack.enter_context(server(Path(other) / "hangs"))
        os.killpg(process.pid, signal.SIGSTOP)
        stub = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unavailable))
        threading.Thread(target=stub.serve_forever, daemon=True).start()

        def locked(_: int) -> tuple[float, float]:
            with sqlite3.connect(folder / ".mlflow/mlflow.db", isolation_level=None) as lock:
                lock.execute("BEGIN EXCLUSIVE")
                return command(folder, change)

        def fresh(seconds: tuple[float, float]) -> tuple[float, float]:
            shutil.rmtree(folder / ".deltarule/log")  # what waits would be sent by the next that can
            return seconds

        sides: dict[str, Side] = {
            "a server": lambda _: fresh(command(folder, change, uri=healthy)),
            "a database": lambda _: fresh(command(folder, change)),
            "absent": lambda _: fresh(command(folder, change, uri=f"http://127.0.0.1:{free_port()}")),
            "hangs": lambda _: fresh(command(folder, change, uri=hanging)),
            "answers 503": lambda _: fresh(command(folder, change, uri=f"http://127.0.0.1:{stub.server_port}")),
            "locked database": lambda _: fresh(locked(_)),
        }
        print(f"digits, {backend}")
        compare(sides, rounds)


# -- replay ---------------------------------------------------------------------------------------------------------------


def journal_of(folder: Path) -> Journal:
    """100 000 points of 20 metrics, and no artifacts."""
    identity = {"deltarule.fingerprint": "0" * 32, "deltarule.origin": "launch", "deltarule.launch": "runs/replay"}
    head = {"name": "replay", "identity": identity, "tags": {}, "given": None}
    first = Event("create", "create", {**head, "tracking": {"uri": None, "experiment": "replay"}})
    epochs = [
        Event("metrics", "train", {f"metric_{n}": 1 / (step + n) for n in range(NAMES)}, step)
        for step in range(1, POINTS // NAMES + 1)
    ]
    return Journal.create(folder, [first, *epochs, Event("end", "end", {"status": "FINISHED"})], folder)


def replay() -> None:
    """One journal, sent by this process as `deltarule sync` does."""
    warm(None)
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (uri, _):
        for name, tracking in {
            "a fresh database": Tracking(experiment="replay"), "a server": Tracking(uri=uri, experiment="replay"),
        }.items():  # fmt: skip
            journal = journal_of(Path(folder))
            began = time.perf_counter()
            with journal.claim():
                deliver(journal, locate(tracking, Path(folder)), RunPaths(journal.files))
            print(f"{POINTS} points into {name}: {time.perf_counter() - began:.1f} s", flush=True)


def main() -> None:
    """What is asked for, one part after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["cost", "replay", "faults"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backend", default="lightning")
    given = parser.parse_args()
    for part in given.parts:
        {"cost": cost, "faults": faults}[part](given.rounds, given.backend) if part != "replay" else replay()


if __name__ == "__main__":
    sys.exit(main())
