"""MLflow's pages on the project's store, on this machine only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.redact import redact
from pipelines.tracking.store import Store, TrackingError, answering, connect, locate

if TYPE_CHECKING:
    from pipelines.spec import Experiment

HOST = "127.0.0.1"
# Its table shows params and metrics that are chosen: in a shared view, a tag of the experiment.
VIEW, VIEW_TAG = "deltarule", "mlflow.sharedViewState.deltarule"
# MLflow's first page is one for language models.
RUNS_PAGE = f"#/experiments/{{}}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
COLUMNS = (
    "attributes.`Dataset`",
    "metrics.`best_val_loss`",
    "metrics.`validate/accuracy`",
    "metrics.`validate/rmse`",
    "params.`model.activation`",
    "params.`regularization.l1`",
    "params.`regularization.l2`",
    "params.`model.dropout`",
    "params.`train.backend`",
)
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
        view = json.dumps({"selectedColumns": COLUMNS})  # columns that no run has are not shown
        if client.get_experiment(experiment_id).tags.get(VIEW_TAG) != view:
            client.set_experiment_tag(experiment_id, VIEW_TAG, view)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, else the server would go on alone
    try:
        with suppress(KeyboardInterrupt), served(store, port) as ended:
            say(f"MLflow shows the runs on http://{HOST}:{port}/{RUNS_PAGE.format(experiment_id)} (Ctrl-C ends it)")
            raise ended()
    finally:
        signal.signal(signal.SIGTERM, before)


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
def served(store: Store, port: int) -> Iterator[Callable[[], TrackingError]]:
    """`mlflow server`, from when it answers; what it gives waits until it ends by itself.

    It has a session of its own, so that it and its children end together, and only when we say so.
    """
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"],
            env=_environment(store),
            cwd=store.project,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

        def ended() -> TrackingError:
            told = f"mlflow server ended by itself with exit code {server.wait()}; it said:"
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines()[-5:]
            return TrackingError("\n".join([told, *map(redact, lines)]))

        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(port):
                if server.poll() is not None:
                    raise ended()
                if time.monotonic() > deadline:
                    raise TrackingError(f"mlflow server did not answer on port {port} within {_START_SECONDS} s")
                time.sleep(0.2)
            yield ended
        finally:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(server.pid, sign)
                    server.wait(_STOP_SECONDS)


def _environment(store: Store) -> dict[str, str]:
    """The store's URI goes by the environment: everyone on the machine can read a command line."""
    inherited = {k: v for k, v in os.environ.items() if k not in {"MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"}}
    settings = {
        "MLFLOW_BACKEND_STORE_URI": store.uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves seven processes of 240 MB
        "PYTHONSAFEPATH": "1",  # what lies in the project's folder is not to be imported
    }
    local = {"MLFLOW_ARTIFACTS_DESTINATION": str(store.database.parent / "mlartifacts")} if store.database else {}
    return {**inherited, **settings, **local}


def _answers(port: int) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with suppress(OSError), direct.open(f"http://{HOST}:{port}/health", timeout=2) as answer:
        return bool(answer.status == 200)
    return False
