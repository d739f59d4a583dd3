"""What people do with a study: the commands, a winner adopted, many seeds, the plain Optuna way, a process that is killed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines import stages
from pipelines.api.evaluate import evaluate, summarise
from pipelines.cli import main
from pipelines.cli.search import differing
from pipelines.search import StudyError, search
from pipelines.search.driver import objective
from pipelines.search.records import adopt, load_study, open_study
from pipelines.spec import SpecError, load
from pipelines.stages import metrics
from pipelines.stages.networks import load_networks
from pipelines.stages.reports import judge

SPEC = """\
# What we found out so far
seed: 3

data:
  source: iris                # three flowers

model:
  hidden: [5]                 # small
  activation: relu            # of the hidden units
  dropout: 0.1

regularization:
  l1: 0.0                     # λ1
  l2: 1e-4

train:
  backend: reference
  optimizer:
    name: adam
    learning_rate: 0.02       # found by hand
  epochs: 6
  batch_size: 30

search:
  trials: 6
  generation: 3
  width: 2
  engine: here
  space:
    model.activation: {choices: [relu, tanh]}
    model.dropout.0: {low: 0.0, high: 0.5}
    regularization.l1: {low: 1e-6, high: 1e-2, log: true, or: 0.0}

tracking:
  enabled: false
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "params.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.search.study.draw_study", lambda *_: None)  # takes longer than these studies
    return tmp_path


def test_the_adopted_winner_gives_its_value_again_and_nothing_else_in_the_file_changes(project):
    study = search(load("params.yaml"))
    done = adopt(project / "studies/iris", Path("params.yaml"))
    best = study.trial(study.best)
    assert done.trial.number == best.number
    text = (project / "params.yaml").read_text()
    kept = {line.split("#")[0].strip() for line in SPEC.splitlines()} - {"activation: relu", "dropout: 0.1", "l1: 0.0"}
    assert kept <= {line.split("#")[0].strip() for line in text.splitlines()}
    assert [c for c in ("# small", "# of the hidden units", "# λ1", "# found by hand", "# three flowers") if c not in text] == []
    places = stages.RunPaths(project)
    stages.split(load("params.yaml"), places)
    metrics = stages.train(load("params.yaml"), places)
    assert metrics["best_val_loss"] == best.values[0]
    assert stages.validate(load("params.yaml"), places)["loss"] == pytest.approx(best.values[0], rel=1e-5)


def test_adopt_on_a_full_disk_leaves_the_spec_as_it_was(small_disk, monkeypatch, capfd):
    monkeypatch.chdir(small_disk)
    Path(".dvc").mkdir()
    Path("params.yaml").write_text(SPEC)
    search(load("params.yaml"))
    small_disk.fill()
    with pytest.raises(SystemExit) as ended:
        main(["adopt", "iris"])
    assert ended.value.code == 1 and capfd.readouterr().err.startswith("params.yaml: No space left on device; make room on that")
    assert Path("params.yaml").read_text() == SPEC and not list(small_disk.glob(".params*"))


def test_adopt_takes_the_options_of_another_kind_out(project):
    sgd = SPEC.replace("name: adam\n", "name: sgd\n    momentum: 0.5   # of the ball\n").replace(
        "  space:\n",
        "  sampler: random\n  space:\n    train.optimizer.name: {choices: [adam, sgd]}\n"
        "    train.optimizer.momentum: {low: 0.0, high: 0.9, when: {train.optimizer.name: sgd}}\n",
    )
    (project / "params.yaml").write_text(sgd)
    study = search(load("params.yaml"))
    for name in ("adam", "sgd"):
        one = next(t for t in study.trials if t.changes["train.optimizer.name"] == name)
        (project / "params.yaml").write_text(sgd)
        adopt(project / "studies/iris", Path("params.yaml"), one.number)
        adopted = load("params.yaml")
        assert adopted.train.optimizer.name == name
        assert ("momentum" in (project / "params.yaml").read_text().partition("space:")[0]) == (name == "sgd")


def test_adopt_refuses_what_would_not_be_that_trial(project):
    search(load("params.yaml"))
    folder, params = project / "studies/iris", Path("params.yaml")
    with pytest.raises(StudyError, match="0 to 5, got 17"):
        adopt(folder, params, 17)
    params.write_text(SPEC.replace("seed: 3", "seed: 4"))
    with pytest.raises(StudyError, match="seed is 4, was 3"):
        adopt(folder, params)
    assert params.read_text() == SPEC.replace("seed: 3", "seed: 4")
    assert differing(load_study(folder), params) == "seed is 4, was 3"  # what `deltarule search --set` says


def test_many_seeds_of_a_spec_have_a_mean_and_an_interval(project):
    experiment, places = load("params.yaml"), stages.RunPaths(project)
    stages.split(experiment, places)
    report = evaluate(experiment, places, seeds=4)
    losses = []
    for seed in range(3, 7):
        alone = stages.RunPaths(project / str(seed), base=project, project=project)
        one = experiment.override("seed", seed)
        stages.split(one, alone)
        stages.train(one, alone)
        losses.append(stages.validate(one, alone)["loss"])
    found = report.parts["validate"]["loss"]
    assert report.each["validate"]["loss"] == losses
    assert (found.mean, found.sd, found.count) == (pytest.approx(np.mean(losses)), pytest.approx(np.std(losses, ddof=1)), 4)
    written = json.loads((project / "outputs/evaluate/metrics.json").read_text())
    assert written["validate"]["loss"]["mean"] == found.mean


def test_training_rows_are_measured_where_they_are_asked_for(project):
    experiment, places = load("params.yaml"), stages.RunPaths(project)
    stages.split(experiment, places)
    stages.train(experiment, places)
    assert list(evaluate(experiment, places, seeds=2).parts) == ["validate"]
    report = evaluate(experiment, places, seeds=2, train=True)
    assert list(report.parts) == ["train", "validate"] and report.parts["train"]["loss"].count == 2
    one = judge(load_networks(experiment, places)[0], places, "train")
    assert report.each["train"]["loss"][0] == metrics.evaluate(one.truth, one.outputs)["loss"]


def test_the_interval_is_students():
    found = summarise([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.sd) == (2.5, pytest.approx(1.2909944487358056))
    assert (found.low, found.high) == (pytest.approx(0.4457397432391206), pytest.approx(4.554260256760879))  # t(3) = 3.182446


def test_an_interval_ends_where_the_metric_does():
    found = summarise([0.9, 1.0], 0.0, 1.0)
    assert (found.low, found.high) == (pytest.approx(0.95 - 12.706204736 * 0.05), 1.0)
    assert summarise([0.001, 0.1], 0.0).low == 0.0
    assert isinstance(summarise([0.001, 0.1], 0).low, float)  # JSON keeps 0.0


def test_many_seeds_need_rows_that_were_split_from_the_same_data(project):
    experiment, places = load("params.yaml"), stages.RunPaths(project)
    with pytest.raises(stages.StageError, match=r"outputs/data/about\.json is missing; run `deltarule split`") as refused:
        evaluate(experiment, places, seeds=2)
    assert refused.value.exit_code == 2
    stages.split(experiment, places)
    with pytest.raises(stages.StageError, match=r"another data block than the spec's: data\.source \(iris, now wine\); run"):
        evaluate(experiment.override("data.source", "wine"), places, seeds=2)
    report = evaluate(experiment, places, seeds=2)
    assert all(one.low >= 0 and one.high <= 1 for name, one in report.parts["validate"].items() if name == "accuracy")


def test_many_seeds_open_the_test_rows_by_the_test_stages_rules_alone(project):
    experiment, places = load("params.yaml"), stages.RunPaths(project)
    stages.split(experiment, places)
    with pytest.raises(stages.StageError):
        evaluate(experiment, places, seeds=2, test=True)
    stages.train(experiment, places)
    with pytest.raises(stages.StageError, match="validate"):
        evaluate(experiment, places, seeds=2, test=True)
    assert not places.ledger.exists()
    stages.validate(experiment, places)
    report = evaluate(experiment, places, seeds=2, test=True)
    assert set(report.parts) == {"validate", "test"}
    assert len(places.ledger.read_text().splitlines()) == 1


def test_the_plain_optuna_way_gives_what_a_study_gives(project):
    import optuna

    experiment = load("params.yaml")
    ours = search(experiment)
    mine = optuna.create_study(pruner=optuna.pruners.NopPruner())
    for trial in open_study("iris", experiment).get_trials():
        mine.enqueue_trial(trial.params)
    mine.optimize(objective(experiment), n_trials=6)
    assert [t.value for t in mine.trials] == [t.values[0] for t in ours.trials]
    assert open_study("iris", experiment).best_value == ours.trial(ours.best).values[0]


def test_the_plain_objective_reports_and_is_pruned(project):
    import optuna

    class Never(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return len(trial.intermediate_values) == 2

    study = optuna.create_study(pruner=Never())
    study.optimize(objective(load("params.yaml", ["search.rung=2"])), n_trials=1)
    assert study.trials[0].state.name == "PRUNED"
    assert list(study.trials[0].intermediate_values) == [2, 4]


def test_the_commands_of_a_study(project, deltarule):
    said = deltarule("search", "--trials", "4", "--json", cwd=project)
    found = json.loads(said.stdout)
    assert (found["trials"], found["states"]) == (4, {"COMPLETE": 4})
    damaged = project / "studies/broken"
    damaged.mkdir()
    (damaged / "study.json").write_text("{")
    listed = deltarule("study", "list", cwd=project)
    assert "iris" in listed.stdout and "study.json is damaged" in listed.stderr  # and hides no other
    shutil.rmtree(damaged)
    assert f"{found['best']['trial']} " in deltarule("study", "show", "iris", cwd=project).stdout
    assert {"history.png", "slice.png"} <= {path.name for path in (project / "studies/iris/figures").iterdir()}
    table = deltarule("study", "export", "iris", cwd=project).stdout.splitlines()
    assert len(table) == 5 and table[0].startswith("trial,state,loss,model.activation")
    whole = json.loads(deltarule("study", "export", "iris", "--as", "json", cwd=project).stdout)
    assert [t["trial"] for t in whole["trials"]] == [0, 1, 2, 3]
    (project / "winner.yaml").write_text(deltarule("study", "export", "iris", "--as", "spec", cwd=project).stdout)
    launched = json.loads(deltarule("run", "--params", "winner.yaml", "--json", cwd=project).stdout)
    assert launched["metrics"]["validate"]["loss"] == pytest.approx(found["best"]["values"][0], rel=1e-5)
    adopted = json.loads(deltarule("adopt", "iris", "--json", cwd=project).stdout)
    assert adopted["trial"] == found["best"]["trial"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["adopt", "irsi"], "there is no study 'irsi' below studies/; there are none; run `deltarule search` first"),
        (["search", "--set", "search.space={}"], "search.space must name at least one key"),
        (["search", "--set", "train.devices=2"], "train.devices must be auto or 1 in a search, got 2"),
        (
            ["search", "--set", "search.metric=r2", "--set", "search.direction=maximize"],
            "search.metric must be a metric of",
        ),
        (["search", "--set", "search.engine=moon"], "search.engine must be"),
    ],
)
def test_what_cannot_be_searched_is_said_in_one_line(project, deltarule, arguments, said):
    done = deltarule(*arguments, cwd=project, check=False)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_study_whose_process_is_killed_goes_on_with_other_workers(project, ending):
    """A real second process with two worker processes, ended in the middle; then one process with one."""
    changes = ["train.backend=lightning", "train.epochs=40", "search.trials=24", "search.generation=8", "search.width=2"]
    whole = search(load("params.yaml", changes), name="whole")
    options = [part for change in [*changes, "search.engine=processes", "search.workers=2"] for part in ("--set", change)]
    command = [sys.executable, "-m", "pipelines.cli", "search", "--name", "cut", *options]
    with (project / "said").open("w") as said:
        running = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=said)
    told = project / "studies/cut/curves"
    deadline = time.monotonic() + 120
    while len(list(told.glob("*.csv"))) < 9 and time.monotonic() < deadline:  # in the second generation
        assert running.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    running.send_signal(ending)
    wanted = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[ending]
    assert running.wait(60) == wanted, (project / "said").read_text()
    assert len(list(told.glob("*.csv"))) < 24
    cut = search(load("params.yaml", [*changes, "search.width=5"]), name="cut")
    assert [(t.state, t.params, t.values) for t in cut.trials] == [(t.state, t.params, t.values) for t in whole.trials]
    assert cut.best == whole.best
    assert load_study(project / "studies/cut").counts() == {"COMPLETE": 24}


def test_a_study_goes_on_where_the_test_rows_cannot_be_had(project):
    """The source is split again only to see that it is the same; only training and validation rows are written."""
    search(load("params.yaml", ["search.trials=3"]))
    parts = {path.name for path in (project / "studies/iris/data").glob("*/*")}
    assert parts == {"about.json", "train", "valid"}


def test_a_wrong_spec_is_refused_with_its_line_before_anything_runs(project):
    (project / "params.yaml").write_text(SPEC.replace("low: 0.0, high: 0.5", "low: 0.0, high: 1.5"))
    with pytest.raises(SpecError, match=r"params\.yaml:31: search\.space\.model\.dropout\.0"):
        load("params.yaml")
