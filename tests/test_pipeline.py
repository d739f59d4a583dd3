"""The pipeline as DVC runs it, in a copy of this project: what re-runs, what is restored, and that all is on record."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import call, copy_of_the_project, environment

pytestmark = pytest.mark.slow
STAGES = ["split", "train", "validate", "test", "record"]


def dvc(*arguments: str, cwd: Path, **more) -> str:
    done = call("dvc", *arguments, cwd=cwd, **more)
    return done.stdout + done.stderr


def set_value(project: Path, **changes: str) -> None:
    """Change `key: old` to `key: new` in params.yaml, wherever that key stands first."""
    text = (project / "params.yaml").read_text()
    for key, value in changes.items():
        text, found = re.subn(rf"^(\s*{key}:) +[^#\n]*", rf"\1 {value} ", text, count=1, flags=re.MULTILINE)
        assert found, key
    (project / "params.yaml").write_text(text)


def commit(project: Path) -> None:
    call("git", "add", "--all", cwd=project)
    call("git", "commit", "--quiet", "--message", "change", cwd=project)


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def restored(output: str) -> list[str]:
    return re.findall(r"Stage '(\w+)' is cached", output)


def runs(project: Path, experiment: str = "deltarule") -> list:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/.mlflow/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id]) if found else []


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Path:
    """The pipeline, run once on the reference backend, and committed."""
    project = copy_of_the_project(tmp_path_factory.mktemp("once") / "project")
    set_value(project, source="iris", hidden="[8]", backend="reference", epochs="3", baselines="false")
    output = dvc("repro", cwd=project)
    assert ran(output) == STAGES
    commit(project)
    return project


@pytest.fixture
def pipeline(once, tmp_path) -> Path:
    """A copy of it, cache and record included."""
    return shutil.copytree(once, tmp_path / "project", symlinks=True)


def test_nothing_runs_again(pipeline):
    assert ran(dvc("repro", cwd=pipeline)) == []
    assert "up to date" in dvc("status", "dvc.yaml", cwd=pipeline)


def test_the_ways_of_dvc_run_nothing_again_and_what_they_restore_is_on_record_once(pipeline, tmp_path):
    """Push, pull, checkout, experiments, `repro` with files that are missing: in the project, and in two clones of it."""
    dvc("remote", "add", "--default", "store", tmp_path / "remote", cwd=pipeline)
    commit(pipeline)
    dvc("exp", "run", "--name", "other", "-S", "model.activation=tanh", "-S", "train.epochs=1", cwd=pipeline)
    dvc("push", "--run-cache", cwd=pipeline)
    call("git", "checkout", "--quiet", ".", cwd=pipeline)
    dvc("checkout", cwd=pipeline)
    dvc("push", cwd=pipeline)
    dvc("status", "-q", "dvc.yaml", cwd=pipeline)  # exit code 0: nothing has changed
    clones = [tmp_path / name for name in ("one", "two")]
    for clone in clones:
        call("git", "clone", "--quiet", pipeline, clone, cwd=tmp_path)
    assert [ran(dvc("repro", option, cwd=clones[0])) for option in ("--allow-missing", "--pull")] == [[], []]
    assert (clones[0] / "outputs/train/model.safetensors").is_file()
    dvc("pull", cwd=clones[1])
    dvc("checkout", cwd=clones[1])
    assert ran(dvc("repro", cwd=clones[1])) == [] and not any((clone / ".mlflow").exists() for clone in clones)
    for place, there in ((clones[1], 1), (pipeline, 2)):
        for _ in range(2):
            call("deltarule", "sync", cwd=place)
        assert len(runs(place)) == there and not call("git", "status", "--porcelain", cwd=place).stdout
    dvc("exp", "pull", "origin", "other", cwd=clones[1])
    for place in (pipeline, clones[1]):
        dvc("exp", "apply", "other", cwd=place)
        dvc("status", "-q", "dvc.yaml", cwd=place)
        call("deltarule", "sync", cwd=place)
        assert ran(dvc("repro", cwd=place)) == []
        found = runs(place)
        assert {run.data.params["model.activation"] for run in found} == {"relu", "tanh"} and len(found) == 2
        assert all(run.info.status == "FINISHED" and "test/accuracy" in run.data.metrics for run in found)


def test_of_two_repros_at_once_one_runs_the_stages_and_the_run_is_on_record_once(pipeline):
    set_value(pipeline, seed="1")
    command = ["dvc", "repro"]
    both = [
        subprocess.Popen(command, cwd=pipeline, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=600)[0] for process in both]
    assert 0 in [process.returncode for process in both] and "Traceback" not in "".join(said), said
    assert sorted(stage for told in said for stage in ran(told)) == sorted(STAGES[1:]), said
    assert ran(dvc("repro", cwd=pipeline)) == []
    assert [run.data.params["seed"] for run in runs(pipeline)].count("1") == 1
    assert {run.info.status for run in runs(pipeline)} == {"FINISHED"}


def test_no_file_that_git_tracks_is_changed_and_no_out_is_committed(once):
    tracked = call("git", "ls-files", cwd=once).stdout.split()
    assert "dvc.lock" in tracked and [name for name in tracked if name.startswith("outputs/")] == ["outputs/record.json"]
    assert not call("git", "status", "--porcelain", cwd=once).stdout


@pytest.mark.parametrize(("change", "stages"), [({"trials": "7"}, []), ({"experiment": "elsewhere"}, ["record"])])
def test_changing_search_runs_nothing_and_tracking_the_record_alone(pipeline, change, stages):
    set_value(pipeline, **change)
    assert ran(dvc("repro", cwd=pipeline)) == stages


def test_changing_a_threshold_validates_again_and_trains_nothing(pipeline):
    set_value(pipeline, thresholds="{accuracy: {min: 0.01}}", enabled="false")
    assert "train" not in ran(dvc("repro", cwd=pipeline))


def test_a_missed_threshold_keeps_the_test_rows_closed(pipeline):
    set_value(pipeline, thresholds="{accuracy: {min: 1.0}}", epochs="1", enabled="false")
    done = call("dvc", "repro", cwd=pipeline, check=False)
    assert done.returncode != 0 and "accuracy must be at least 1" in done.stderr
    assert ran(done.stdout + done.stderr) == ["train", "validate"]


def test_a_changed_network_trains_again_and_is_compared(pipeline):
    set_value(pipeline, activation="tanh")
    assert ran(dvc("repro", cwd=pipeline)) == STAGES[1:]
    assert re.search(r"outputs/validate/metrics\.json\s+loss\s+[\d.]+\s+[\d.]+", dvc("metrics", "diff", cwd=pipeline))
    assert "tanh" in dvc("params", "diff", cwd=pipeline)
    assert "dvc_plots/index.html" in dvc("plots", "diff", cwd=pipeline)
    assert len(runs(pipeline)) == 2


def test_going_back_restores_from_the_cache_and_is_on_record(pipeline):
    set_value(pipeline, seed="1", enabled="false")
    dvc("repro", cwd=pipeline)
    set_value(pipeline, seed="0", enabled="true", experiment="afterwards")  # where nothing is on record yet
    output = dvc("repro", cwd=pipeline)
    assert ran(output) == ["record"] and restored(output) == ["train", "validate", "test"]
    [run] = runs(pipeline, "afterwards")
    assert run.data.params["seed"] == "0" and "test/accuracy" in run.data.metrics and run.info.status == "FINISHED"


def test_plots_and_metrics_are_shown(pipeline):
    assert "outputs/test/metrics.json" in dvc("metrics", "show", cwd=pipeline)
    shown = call("dvc", "plots", "show", cwd=pipeline)
    assert "failed" not in shown.stdout + shown.stderr
    page = (pipeline / "dvc_plots/index.html").read_text()
    assert all(name in page for name in ("train_objective", "predicted", "tpr"))


def test_an_experiment_on_another_backend(pipeline):
    output = dvc("exp", "run", "-S", "train.backend=lightning", "-n", "on-lightning", cwd=pipeline)
    assert ran(output) == STAGES[1:]
    assert "on-lightning" in dvc("exp", "show", "--csv", cwd=pipeline)
    assert {run.data.params["train.backend"] for run in runs(pipeline)} == {"reference", "lightning"}


def test_an_experiment_in_a_temporary_copy_is_on_record_in_the_project(pipeline):
    before = (pipeline / "params.yaml").read_text()
    dvc("exp", "run", "--temp", "-S", "model.activation=tanh", cwd=pipeline)
    assert (pipeline / "params.yaml").read_text() == before
    assert {run.data.params["model.activation"] for run in runs(pipeline)} == {"relu", "tanh"}


def test_a_temporary_copy_runs_its_own_code(pipeline):
    split = pipeline / "pipelines/stages/split.py"
    split.write_text(split.read_text() + "\nimport sys; print('code of', __file__, file=sys.stderr)\n")
    set_value(pipeline, enabled="false")
    output = dvc("exp", "run", "--temp", cwd=pipeline)
    assert re.search(r"code of \S*/\.dvc/tmp/exps/\S*/pipelines/stages/split\.py", output)


def test_queued_experiments_are_on_record(pipeline):
    dvc("exp", "run", "--queue", "-S", "seed=1", cwd=pipeline)
    dvc("exp", "run", "--run-all", cwd=pipeline)
    assert {run.data.params["seed"] for run in runs(pipeline)} == {"0", "1"}


@pytest.mark.parametrize("backend", ["reference", "lightning", "keras", "keras-jax"])
def test_repeated_without_any_cache_the_bytes_are_the_same(project, backend):
    set_value(project, hidden="[16]", backend=backend, epochs="2", enabled="false")
    locks = []
    for _ in range(2):
        assert ran(dvc("repro", "--force", "--no-run-cache", cwd=project)) == STAGES
        locks.append((project / "dvc.lock").read_text())
    assert locks[0] == locks[1] and locks[0].count("md5: ") > 20


@pytest.mark.parametrize("source", ["breast_cancer", "diabetes", "linnerud"])
def test_other_tasks_go_the_same_way(pipeline, source):
    set_value(pipeline, source=source, enabled="false")
    assert ran(dvc("repro", cwd=pipeline)) == STAGES
    dvc("plots", "show", cwd=pipeline)


def test_a_changed_file_of_ones_own_is_seen(pipeline):
    rows = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(60)]
    (pipeline / "data/mine.csv").write_text("\n".join(["x,y,kind", *rows]) + "\n")
    set_value(pipeline, source="data/mine.csv", target="kind", enabled="false")
    assert ran(dvc("repro", cwd=pipeline)) == STAGES
    (pipeline / "data/mine.csv").write_text("\n".join(["x,y,kind", *rows[::-1]]) + "\n")
    assert ran(dvc("repro", cwd=pipeline)) == STAGES


def test_dvc_works_where_the_virtual_environment_is_not_activated(pipeline):
    (pipeline / ".venv").symlink_to(Path(sys.prefix))
    shell = ["/bin/sh", "-c", ".venv/bin/dvc repro --force --single-item split"]
    done = subprocess.run(
        shell, cwd=pipeline, env={"PATH": "/usr/bin:/bin", "HOME": str(pipeline)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
