"""A store with 200 runs to look at in a browser: two real ones with all that a run carries, a study, many that never were."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import synthetic_run
import synthetic_study

from backends import children
from pipelines.api.pipeline import send_waiting
from pipelines.record import events
from pipelines.search.record import StudyJournal
from pipelines.search.records import load_study
from pipelines.spec import Experiment
from pipelines.tracking import locate
from pipelines.tracking.sender import RemoteState
from pipelines.tracking.store import connect

TRIALS, LAUNCHES, RUNS = 24, ("lightning", "keras"), 200
STUDY = "digits-tpe"
QUICK = ("train.epochs=6", "model.hidden=[32, 16]", "data.source=digits")
PAGE = "<!doctype html><title>A run</title><h1>A run of deltarule</h1><p>Stands in for report.html.</p>"


def fill(project: Path) -> None:
    """Runs that never were; then, so that they stand above, two launches in processes of their own, and meanwhile a study."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(Path(__file__).parents[1] / name, project / name)
    store = locate(Experiment().tracking, project)
    with store.lock():
        client, experiment_id = connect(store)
    for number in range(RUNS - TRIALS - 1 - len(LAUNCHES)):
        _run(project / "made" / str(number), number, client, experiment_id)
    launches = [subprocess.Popen(_launch(backend), cwd=project, env=children.environment(), **_quiet()) for backend in LAUNCHES]
    study = synthetic_study.make(project, TRIALS, name=STUDY, experiment=_study())
    StudyJournal(study, project, load_study(study)).finish()
    list(send_waiting(project, Experiment().tracking))
    for process in launches:
        said, _ = process.communicate()
        assert process.returncode == 0, said
    list(send_waiting(project, Experiment().tracking))  # what the store was too busy to take
    for run in client.search_runs([experiment_id], "tags.`deltarule.launch` LIKE 'runs/%'"):
        if not any(file.path == "report.html" for file in client.list_artifacts(run.info.run_id)):
            client.log_text(run.info.run_id, PAGE, "report.html")


@contextmanager
def served(project: Path) -> Iterator[str]:
    """`deltarule ui` on the store of a project, as people start it; the link that it prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = children.command("-u", "-m", "pipelines.cli", "ui", "--port", str(port))
    process = subprocess.Popen(command, cwd=project, env=children.environment(), **_quiet())
    try:
        said = process.stdout.readline()
        assert f"127.0.0.1:{port}/" in said, said
        yield next(word for word in said.split() if word.startswith("http"))
    finally:
        process.terminate()
        process.communicate()


def _launch(backend: str) -> list[str]:
    changes = [part for change in (*QUICK, f"train.backend={backend}") for part in ("--set", change)]
    return children.command("-m", "pipelines.cli", "run", "--json", "--name", f"digits {backend}", *changes)


def _quiet() -> dict:
    return {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}


def _study() -> Experiment:
    return Experiment.model_validate({"search": {"space": synthetic_study.SPACE}})


def _run(root: Path, number: int, client, experiment_id: str) -> None:
    """A run of either backend, as its outs would tell of it."""
    rng = np.random.default_rng(number)
    penalty = float(f"{10 ** rng.uniform(-6, -2):.2g}")
    spec = Experiment.model_validate(
        {
            "seed": number % 5,
            "model": {"activation": ("relu", "tanh", "sigmoid")[number % 3], "dropout": round(float(rng.uniform(0, 0.6)), 2)},
            "regularization": {"l1": 0.0 if number % 2 else penalty, "l2": penalty},
            "train": {"backend": LAUNCHES[number // 3 % 2]},
        }
    )
    places = synthetic_run.make(root, spec=spec, stages=("data", "train", "validate"), fingerprint=f"{number:04x}" + "0" * 28)
    _spread(places, float(rng.uniform(0.9, 1.1)))
    *body, end = events(places, spec)
    tags = {"deltarule.origin": "launch"}
    run = client.create_run(
        experiment_id, tags=tags, run_name=f"digits {spec.model.activation} {spec.train.backend} {number:04x}"
    )
    RemoteState(client, run).send([event for event in body if event.kind in ("params", "metrics", "tags")], root)
    client.update_run(run.info.run_id, end.values["status"])


def _spread(places, factor: float) -> None:
    """Give a run numbers of its own."""
    for path in (places.trained / "metrics.json", places.report("validate") / "metrics.json"):
        numbers = json.loads(path.read_text())
        path.write_text(
            json.dumps({k: v * factor if k != "best_epoch" and isinstance(v, float) else v for k, v in numbers.items()})
        )
