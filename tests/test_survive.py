"""A run that is cut short goes on to the same bits, as the same run on record; `make soak` tries it for as long as one likes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BIN, ROOT, call, environment
from stored import client_of, rows

import deltarule
from pipelines import stages
from pipelines.api.launch import Launch, choose, launch, unfinished
from pipelines.cli import main

pytestmark = pytest.mark.slow
SEED = 20


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "backend, kinds, options",
    [
        ("reference", ["run", "folds", "study"], ["--epochs", "150", "--kills", "6"]),
        ("lightning", ["run"], ["--epochs", "40", "--kills", "2", "--no-record"]),
        ("keras", ["run"], ["--epochs", "40", "--kills", "2", "--no-record"]),
        ("keras-jax", ["run"], ["--epochs", "40", "--kills", "2", "--no-record"]),
    ],
    ids=["reference", "lightning", "keras", "keras-jax"],
)
def test_killed_at_random_moments_runs_folds_and_studies_come_to_the_bytes_and_points_of_unbroken_ones(backend, kinds, options):
    command = [sys.executable, ROOT / "tests/soak.py", "--backends", backend, "--kinds", *kinds, "--seed", str(SEED)]
    done = subprocess.run([*command, "--every", "0.2", *options], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills survived"] >= int(options[3]) and told["seed"] == SEED


# Which one goes on -----------------------------------------------------------------------------------------------------

SPEC = (
    "model: {hidden: [4]}\ntrain: {backend: reference, epochs: 3}\ntracking: {enabled: false}\nvalidation: {baselines: false}\n"
)


class Cut(BaseException):
    """Stands for a kill."""


def cut_short(name):
    """The folder of a run that ended after two epochs."""

    def progress(record):
        if record["epoch"] == 2:
            raise Cut

    with pytest.raises(Cut):
        deltarule.run(deltarule.load(), name=name, progress=progress)
    return unfinished(Path().resolve())[-1]


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "params.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_that_is_killed_as_soon_as_it_says_how_it_was_begun_can_be_resumed(project):
    begin = """
import os, deltarule
from pipelines.api import launch
kept = launch.write_json
launch.write_json = lambda *what: (kept(*what), os.kill(os.getpid(), 9))
deltarule.run(deltarule.load(), name="early")
"""
    assert subprocess.run([sys.executable, "-c", begin], env=environment()).returncode == -signal.SIGKILL
    call("deltarule", "run", "--resume", "early", cwd=project)
    assert [path.parent.name for path in project.glob("runs/*early/outputs/validate/metrics.json")] == ["validate"]


def said(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out, err = capsys.readouterr()
    return ended.value.code, out + err


def test_the_next_run_and_sync_name_what_can_be_resumed_and_what_they_advise_works(project, capsys):
    folder = cut_short("one")
    line = f"runs/{folder.name} was cut short; remove it, or go on with: deltarule run --resume {folder.name}\n"
    code, told = said(capsys, "run", "--name", "two")
    assert code == 0 and told.startswith(line)
    assert said(capsys, "sync")[1].startswith(line)
    code, told = said(capsys, *line.split("deltarule ")[-1].split())
    assert code == 0 and told.startswith(f"runs/{folder.name}: digits")
    assert unfinished(project) == [] and "cut short" not in said(capsys, "sync")[1]
    one, two = sorted(project.glob("runs/*/outputs"))
    assert (one / "train/run.json").read_bytes() == (two / "train/run.json").read_bytes()


def test_without_a_name_it_must_be_clear_which_run_is_meant(project, capsys):
    assert said(capsys, "run", "--resume") == (2, "--resume must name a run that was cut short, got no name; there are: none\n")
    first = cut_short("same")
    assert choose(project, None) == first
    os.rename(first, first.with_name(first.name.replace("same", "a")))
    second = cut_short("b")
    code, told = said(capsys, "run", "--resume")
    assert code == 2 and "got no name; there are: " in told and second.name in told
    assert choose(project, "b") == choose(project, f"runs/{second.name}/") == choose(project, second.name) == second
    assert said(capsys, "run", "b")[0] == said(capsys, "run", "--resume", "b", "--set", "seed=3")[0] == 2


def test_what_would_only_come_again_is_over_and_a_run_that_goes_on_is_not_offered(project, capsys):
    assert said(capsys, "run", "--name", "held", "--set", "thresholds.accuracy.min=1")[0] == 1
    assert said(capsys, "run", "--name", "wrong", "--set", "data.source=nowhere.csv")[0] == 2
    assert unfinished(project) == []
    spec = project / "long.yaml"
    spec.write_text(SPEC.replace("epochs: 3", "epochs: 100000, early_stopping: {patience: null}"))
    words = [BIN / "deltarule", "run", "--params", spec, "--name", "long"]
    process = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    while not [*project.glob("runs/*-long/outputs/data/about.json")]:
        assert process.poll() is None
    [place] = project.glob("runs/*-long")
    assert (place / ".deltarule/launch.json").is_file() and unfinished(project) == []
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143 and unfinished(project) == [place]


def test_in_python_a_run_of_another_spec_is_refused_and_one_that_is_over_too(project):
    folder = cut_short("one")
    with pytest.raises(deltarule.StageError, match=r"is of another spec: seed \(0, now 3\); begin it in another folder"):
        deltarule.run(deltarule.load(overrides=["seed=3"]), folder, resume=True)
    done = deltarule.run(deltarule.load(), folder, resume=True)
    assert len(done.history["epoch"]) == 3 and done.metrics
    with pytest.raises(deltarule.StageError, match="holds no run that can be resumed: it is over"):
        deltarule.run(deltarule.load(), folder, resume=True)
    with pytest.raises(deltarule.StageError, match="no run that can be resumed"):
        Launch.of(deltarule.load(), project)


# On record ---------------------------------------------------------------------------------------------------------------


def test_a_launch_whose_record_is_lost_is_recorded_from_its_outs(project):
    """Its log is deleted under way, its store is wiped, and its files were in a place that is gone: what is advised helps."""

    def sync(*options):
        return call("deltarule", "sync", *options, cwd=project).stdout  # in a process of its own: MLflow keeps databases open

    def on_record(experiment=None):
        found = [run for run in rows(project, "runs") if experiment in (None, run["experiment_id"])]
        return [(run["name"], run["status"]) for run in found if run["lifecycle_stage"] == "active"]

    (project / "params.yaml").write_text("data: {source: iris}\n" + SPEC.replace("false", "true"))
    run = deltarule.run(deltarule.load(), track=True, name="one", progress=lambda _: shutil.rmtree(".deltarule/log", True))
    assert "could not be written" in run.warnings[0] and "`deltarule sync` puts it on record from its outs" in run.warnings[0]
    for _ in range(2):
        assert f"runs/{run.folder.name}: on record in MLflow as run" in sync() and on_record() == [("one", "FINISHED")]
        assert "there is nothing to put on record" in sync()
        shutil.rmtree(project / ".mlflow")
    sync()
    with sqlite3.connect(project / ".mlflow/mlflow.db") as database:
        database.execute("UPDATE experiments SET artifact_location = 'file:///gone/.mlflow/artifacts'")
    failed = call("deltarule", "register", "one", "--name", "shop", cwd=project, check=False)
    assert failed.returncode == 1 and "are in /gone/.mlflow/artifacts" in failed.stderr
    call("sh", "-c", re.search(r"\((MLFLOW_TRACKING_URI=.*) NAME\)", failed.stderr)[1] + " before", cwd=project)
    assert f"runs/{run.folder.name}: on record in MLflow as run" in sync("--here") and on_record(1) == [("one", "FINISHED")]
    client = client_of(project)
    client.delete_run(client.search_runs(["1"])[0].info.run_id)
    assert "there is nothing to put on record" in sync() and on_record(1) == []


NOTE, BEGUN = Path(".deltarule/begun/tags.json"), Path(".deltarule/launch.json")


def test_what_a_clone_says_of_its_journal_leads_nowhere_and_a_damaged_launch_hinders_no_other(project, tmp_path_factory):
    mine = tmp_path_factory.mktemp("mine")
    (mine / "precious").write_text("mine")
    (project / "params.yaml").write_text("data: {source: iris}\n" + SPEC.replace("false", "true"))
    sound = deltarule.run(deltarule.load(), track=True).folder
    one, *damaged = [Path(shutil.copytree(sound, sound.with_name(f"20260101-000000-{name}"))) for name in "abc"]
    for place in (".mlflow", ".deltarule"):
        shutil.rmtree(project / place)
    note = json.loads((one / NOTE).read_text())
    note["launch"]["journal"] = str(mine)
    theirs = json.loads((sound / NOTE).read_text())
    theirs["tags"]["mlflow.user"] = "somebody"
    (sound / NOTE).write_text(json.dumps(theirs))
    (one / NOTE).write_text(json.dumps(note))
    for folder, (place, content) in zip(damaged, ((NOTE, '{"launch": []}'), ("params.yaml", "nope: 1")), strict=True):
        (folder / place).write_text(content)
    said = call("deltarule", "sync", cwd=project, check=False)
    assert said.returncode == 1 and f"runs/{sound.name}: on record in MLflow as run" in said.stdout + said.stderr
    assert all(f"runs/{folder.name} cannot be put on record: " in said.stderr for folder in (one, *damaged))
    assert f"runs/{sound.name} was made by somebody, not by you" in said.stdout + said.stderr
    assert len(rows(project, "runs")) == 1 and (mine / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"track": True, "log": "/tmp/elsewhere"}, "a journal must be called as we call one"),
        ({"track": True, "log": "../../../elsewhere"}, "a journal must be called as we call one"),
        ({"name": 1}, "launch.json is damaged"),
        ({"log": None}, "launch.json is damaged"),
    ],
)
def test_a_launch_that_a_clone_changed_is_resumed_nowhere_else(project, capsys, change, told):
    (project / "params.yaml").write_text("data: {source: iris}\n" + SPEC.replace("false", "true"))
    folder = cut_short("one")
    begun = json.loads((folder / BEGUN).read_text())
    begun.pop("digest", None)
    (folder / BEGUN).write_text(json.dumps(begun | change))
    assert told in said(capsys, "run", "--resume", "one")[1] and not (project.parent / "elsewhere").exists()


def test_a_launch_that_began_to_train_is_kept_whatever_became_of_its_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(SPEC)

    def interrupted(_):
        [rows] = Path("runs").glob("*/outputs/data")
        shutil.rmtree(rows)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(deltarule.load(), track=False, progress=interrupted)
    assert [*Path("runs").glob("*/.deltarule/launch.json")]


def test_a_launch_that_ends_between_its_split_and_its_training_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(SPEC)
    split = stages.split

    def interrupted(*args):
        split(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "split", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launch(deltarule.load(), track=False)
    assert [*Path("runs").glob("*/.deltarule/launch.json")]
