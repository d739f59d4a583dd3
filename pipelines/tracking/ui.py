"""MLflow's pages on the project's store, on this machine only."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pipelines.redact import redact
from pipelines.tracking.store import Store, TrackingError, answering, connect, locate

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pipelines.spec import Experiment

HOST = "127.0.0.1"
RUNS_PAGE = "#/experiments/{}/runs?workflowType=machine_learning"  # MLflow's first page is one for language models
# Its table shows no params and metrics unless they are chosen: its pages read a shared view from a tag of the experiment.
VIEW, VIEW_TAG = "deltarule", "mlflow.sharedViewState.deltarule"
COLUMNS = (
    "metrics.`best_val_loss`", "metrics.`validate_accuracy`", "metrics.`validate_rmse`", "params.`model.activation`",
    "params.`regularization.l1`", "params.`regularization.l2`", "params.`model.dropout`", "params.`train.backend`",
)  # fmt: skip
_START_SECONDS, _STOP_SECONDS = 120, 10


def ui(experiment: Experiment, project: Path, port: int = 5000, say: Callable[[str], None] = print) -> None:
    """Serve the store's pages until Ctrl-C; a store that is a server already is only named.

    Raises TrackingError if the port is taken or MLflow does not start.
    """
    store = locate(experiment.tracking, Path(project).resolve())
    if store.uri.startswith(("http://", "https://")):
        say(f"the runs are on {store}")
        return
    _check_port(port)
    with answering(store, "the store cannot be opened"), store.lock():
        client, experiment_id = connect(store)
        share_view(client, experiment_id)
    with suppress(KeyboardInterrupt), _ended_by_sigterm_too(), _server(store, port) as server:
        _await(server, port)
        say(f"MLflow shows the runs on http://{HOST}:{port}/{runs_page(experiment_id)} (Ctrl-C ends it)")
        raise server.ended(server.process.wait())


def runs_page(experiment_id: str) -> str:
    """The table of runs, with our columns."""
    return f"{RUNS_PAGE.format(experiment_id)}&viewStateShareKey={VIEW}"


def share_view(client: MlflowClient, experiment_id: str) -> None:
    """Keep our columns where MLflow's pages find them. Columns that no run has are not shown."""
    state = json.dumps({"selectedColumns": COLUMNS})
    if client.get_experiment(experiment_id).tags.get(VIEW_TAG) != state:
        client.set_experiment_tag(experiment_id, VIEW_TAG, state)


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise TrackingError(
                f"port {port} of {HOST} is not free ({error.strerror}): end what listens there (perhaps another "
                f"`deltarule ui`), or choose another port: deltarule ui --port {port + 1}"
            ) from None


@contextmanager
def _server(store: Store, port: int) -> Iterator[_Server]:
    """`mlflow server` in a session of its own, so that it and its children end together, and only when we say so."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"],
            env=_environment(store),
            cwd=store.project,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield _Server(process, output)
        finally:
            _end(process)


class _Server(NamedTuple):
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def ended(self, code: int) -> TrackingError:
        """What to raise when it ended by itself: with the last that it said."""
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").strip().splitlines()[-5:]
        return TrackingError("\n".join([f"mlflow server ended by itself with exit code {code}; it said:", *map(redact, lines)]))


def _environment(store: Store) -> dict[str, str]:
    """The store's URI goes by the environment: everyone on the machine can read a command line, passwords included."""
    inherited = {k: v for k, v in os.environ.items() if k not in {"MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"}}
    settings = {
        "MLFLOW_BACKEND_STORE_URI": store.uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves seven processes of 240 MB
        "PYTHONSAFEPATH": "1",  # what lies in the project's folder is not to be imported
    }
    return {**inherited, **settings, **({"MLFLOW_DEFAULT_ARTIFACT_ROOT": store.artifacts} if store.artifacts else {})}


def _await(server: _Server, port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if (code := server.process.poll()) is not None:
            raise server.ended(code)
        if _answers(port):
            return
        time.sleep(0.2)
    raise TrackingError(f"mlflow server did not answer on port {port} within {_START_SECONDS} s")


def _answers(port: int) -> bool:
    """Not by urllib, which would ask a proxy."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(server: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
            server.wait(_STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


@contextmanager
def _ended_by_sigterm_too() -> Iterator[None]:
    """SIGTERM ends us as Ctrl-C does; without this the server would go on alone."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
