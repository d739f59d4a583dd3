"""What tests of the record share: what a store holds of a project, and processes that end in the middle of a call."""

from __future__ import annotations

import socket
import sqlite3
import time

from pipelines.spec import Experiment
from pipelines.tracking import locate

DEADLINE = 180  # s, for what takes one or two on an idle machine


def client_of(project):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=locate(Experiment().tracking, project).uri)


def rows(project, table):
    with sqlite3.connect(project / ".mlflow/mlflow.db") as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]


def points(project):
    """(run, name, step) of every point that the database holds."""
    return [(row["run_uuid"], row["key"], row["step"]) for row in rows(project, "metrics")]


def artifacts(project, run_id):
    """The folder of a run's files: below its experiment's 0/ for the first one of a store."""
    found = [*(project / ".mlflow/mlartifacts").glob(f"**/{run_id}/artifacts")]
    return found[0] if found else project / ".mlflow/mlartifacts" / run_id / "artifacts"


def files(project, run_id):
    base = artifacts(project, run_id)
    return {p.relative_to(base).as_posix(): p for p in base.rglob("*") if p.is_file()}


def until(true, what="it"):
    ends = time.monotonic() + DEADLINE
    while not (found := true()):
        assert time.monotonic() < ends, f"waited {DEADLINE} s for {what}"
        time.sleep(0.05)
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cut_short_after(left, name):
    """The client's call; it is carried out, and then the process "dies", once `left` calls have been made."""
    from mlflow import MlflowClient

    real = getattr(MlflowClient, name)

    def call(*arguments, **named):
        done = real(*arguments, **named)
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return done

    return call
