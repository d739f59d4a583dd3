"""Studies: what is drawn and how it ends, exactness against solo runs, and interruptions that change nothing."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic_study

from backends.supervisor import Checkpoint
from pipelines import stages
from pipelines.cli.search import show_study
from pipelines.console import Console
from pipelines.data import DataError
from pipelines.search import StudyError, driver, networks, search
from pipelines.search.records import StudyRecord, load_study
from pipelines.search.storage import StorageError, open_storage
from pipelines.spec import Experiment, SpecError, load

SMALL = {
    "data.source": "iris",
    "model.hidden": [5],
    "train.backend": "reference",
    "train.epochs": 6,
    "train.batch_size": 30,
    "train.optimizer.learning_rate": 0.02,
    "tracking.enabled": False,
    "search.trials": 10,
    "search.generation": 4,
    "search.width": 3,
    "search.engine": "here",
}
SPACE = {
    "model.activation": {"choices": ["relu", "tanh", "sigmoid"]},
    "model.dropout": {"low": 0.0, "high": 0.5},
    "regularization.l1": {"low": 1e-6, "high": 1e-2, "log": True, "or": 0.0},
    "regularization.l2": {"low": 1e-6, "high": 1e-2, "log": True, "when": {"regularization.l1": 0.0}},
}


def spec(**changes: Any) -> Experiment:
    """A small experiment; keys with __ for the dots."""
    space = changes.pop("space", SPACE)
    more = {name.replace("__", "."): value for name, value in changes.items()}
    return Experiment().override({**SMALL, "search.space": space, **more})


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.search.study.draw_study", lambda *_: None)  # takes longer than these studies
    return tmp_path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def told(study: StudyRecord) -> list[Any]:
    """All that two studies of one spec must share."""
    return [(t.number, t.state, t.params, t.changes, t.values, t.spread, t.reason, t.epochs, t.steps) for t in study.trials]


def test_a_stack_beyond_the_memory_is_refused_with_the_width_that_fits(project, monkeypatch):
    monkeypatch.setattr("pipelines.spec.to_trial.memory", lambda: 10_000)
    with pytest.raises(SpecError, match=r"search.width must be at most 1, what .* hold, got 2 networks"):
        search(spec())
    assert len(search(spec(search__width=1)).trials) == 10


def test_a_study_finds_its_best_trial_and_writes_what_it_found(project):
    study = search(spec())
    assert study.counts() == {"COMPLETE": 10}
    assert study.trial(study.best).values[0] == min(t.values[0] for t in study.trials)
    table = rows_of(project / "studies/iris/trials.csv")
    assert [float(row["loss"]) for row in table] == [t.values[0] for t in study.trials]
    assert load_study(project / "studies/iris").best == study.best


def test_figures_that_cannot_be_drawn_are_a_warning_and_the_study_is_over(project, monkeypatch):
    warned: list[str] = []
    monkeypatch.setattr("pipelines.search.study.draw_study", lambda *_: {}["font"])
    assert search(spec(search__trials=2), warn=warned.append).counts() == {"COMPLETE": 2}
    assert warned == ["the figures of study 'iris' could not be drawn (KeyError: 'font')"]


@pytest.mark.parametrize("backend", ["reference", "lightning"])
def test_a_trial_equals_the_run_of_its_spec_to_the_bit(project, backend):
    experiment = spec(train__backend=backend)
    study = search(experiment)
    for trial in load_study(project / "studies/iris").trials[:5]:
        places = stages.RunPaths(project / f"solo{trial.number}", base=project, project=project)
        alone = experiment.drawn(trial.changes)
        stages.split(alone, places)
        metrics = stages.train(alone, places)
        assert metrics["best_val_loss"] == trial.values[0] == study.trials[trial.number].values[0]
        rows = rows_of(places.history)
        assert [float(row["val_loss"]) for row in rows] == [record["val_loss"] for record in trial.history]


def test_a_flipped_byte_in_a_studys_files_is_found_and_a_half_last_line_changes_nothing(project):
    """Where power or a full disk cut the file of the trials, the study goes on to the trials of the unbroken one."""
    short, whole = spec(search__trials=4, train__epochs=2), spec(search__trials=5, train__epochs=2)
    search(short)
    folder, aside = project / "studies/iris", shutil.copytree(project / "studies/iris", project / "studies/aside")
    wanted = told(search(whole))

    for name in ("study.json", "optuna.log", "curves/00002.csv"):
        file = folder / name
        sound = file.read_bytes()
        for place in (len(sound) // 2, sound.index(b"1"), len(sound) - 2):
            file.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
            with pytest.raises((StorageError, DataError), match=f"{name}.* (is damaged|must be)"):
                load_study(folder)
            if not name.startswith("curves"):
                with pytest.raises((StorageError, DataError), match=f"{name}.* (is damaged|must be)"):
                    search(whole)
        file.write_bytes(sound)
    (folder / "study.json").unlink()  # as the error advises
    assert told(search(whole)) == wanted and load_study(folder).name == "iris"

    lines = (aside / "optuna.log").read_bytes().splitlines(keepends=True)
    later = (folder / "optuna.log").read_bytes().splitlines(keepends=True)[len(lines) : -2]  # within the fifth trial
    for line, cut in ((later[0], 1), (later[1], len(later[1]) // 2), (later[-1], len(later[-1]) - 1), (b"\0" * 30 + b"\r\0", 32)):
        shutil.rmtree(folder)
        shutil.copytree(aside, folder)
        before = later[: later.index(line)] if line in later else []
        (folder / "optuna.log").write_bytes(b"".join([*lines, *before, line[:cut]]))
        assert told(search(whole)) == wanted, f"cut after {cut} bytes of {line!r}"


PRUNED = {"search__pruner": "halving", "search__rung": 1}


class Stop(BaseException):
    """Stands for Ctrl-C or a kill: what is not written yet is lost."""


def interrupt_at(monkeypatch, place: int) -> None:
    """Raise at the n-th thing that a study writes down."""
    left = place

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Stop
            return function(*arguments, **options)

        return call

    from optuna.storages import JournalStorage

    for method in ("create_new_trial", "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_state_values"):
        monkeypatch.setattr(JournalStorage, method, counted(getattr(JournalStorage, method)))
    monkeypatch.setattr(Checkpoint, "save", counted(Checkpoint.save))
    monkeypatch.setattr(driver, "save_curve", counted(driver.save_curve))


FEW = {
    "space": {"model.activation": {"choices": ["relu", "tanh"]}, "train.optimizer.learning_rate": {"choices": [0.02, 1e30]}},
    "search__pruner": "halving", "search__rung": 1, "search__sampler": "random", "search__trials": 14,
}  # fmt: skip


@pytest.mark.parametrize("kind", [{}, PRUNED, FEW], ids=["plain", "pruned", "equal trials"])
def test_a_study_interrupted_at_any_write_is_the_study_that_was_not(project, monkeypatch, kind):
    whole = told(search(spec(**kind), name="whole"))
    place = 1
    while True:
        with monkeypatch.context() as patched:
            interrupt_at(patched, place)
            try:
                search(spec(**kind), name=f"cut{place}")
            except Stop:
                pass
            else:
                break
        assert told(search(spec(**kind), name=f"cut{place}")) == whole, f"interrupted at write {place}"
        place += 5
    assert place > 40


# -- equal trials --


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The networks that are trained from their start, as they come."""
    found: list[str] = []
    theirs = driver.advance

    def advance(job: Any) -> Any:
        found.extend(str(trial) for trial, state in zip(job.trials, job.states, strict=True) if state.step == 0)
        return theirs(job)

    monkeypatch.setattr(driver, "advance", advance)
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_a_point_is_trained_once_and_equal_trials_take_over_what_it_came_to(project, trained, sampler):
    space = {"model.activation": {"choices": ["relu", "tanh"]}, "model.dropout": {"low": 0.0, "high": 0.5, "step": 0.5}}
    warned: list[str] = []
    few = spec(space=space, search__sampler=sampler, search__trials=24)
    study = search(few, warn=warned.append)
    assert warned == ["search.space has 4 points: 20 of 24 trials or more draw one again, and take over what it came to"]
    assert len(trained) == len({*trained}) == sum(t.same_as is None for t in study.trials) <= 4
    assert study.trial(study.best).same_as is None
    for trial in load_study(project / "studies/iris").trials:
        first = trial if trial.same_as is None else study.trial(trial.same_as)
        assert (trial.changes, trial.values, trial.best_epoch) == (first.changes, first.values, first.best_epoch)
        assert trial.history[-1]["val_loss"] and (trial.same_as is None or (trial.same_as < trial.number and not trial.epochs))
    taken = next(t for t in study.trials if t.same_as is not None)
    assert taken.reason == f"as trial {taken.same_as}: completed 6 epochs"
    assert elsewhere("iris").trials[taken.number].user_attrs["deltarule"]["same_as"] == taken.same_as
    search(few.override("search.trials", 30))
    assert len(trained) <= 4


def test_trials_that_were_pruned_or_diverged_are_taken_over_too_and_shown_as_such(project, trained, capsys):
    study = search(spec(**{**FEW, "search__trials": 24}))
    first = [t for t in study.trials if t.same_as is None]
    assert {t.state for t in first} == {"COMPLETE", "PRUNED", "FAIL"} and len(trained) == len(first) == 4
    for trial in study.trials:
        if trial.same_as is not None:
            known = study.trial(trial.same_as)
            assert (trial.state, trial.values, trial.curve) == (known.state, known.values, known.curve)
            assert trial.reason == f"as trial {known.number}: {known.reason}"
    show_study(Console(), study, 24)
    shown = capsys.readouterr().out
    assert all(f"{t.state.lower()}, as trial {t.same_as} " in shown for t in study.trials if t.same_as is not None)


def test_trials_of_own_seeds_and_points_of_a_range_are_not_equal(project, trained):
    space = {"model.activation": {"choices": ["relu", "tanh"]}}
    assert not any(t.same_as for t in search(spec(space=space, search__trial_seeds="own"), name="own", warn=pytest.fail).trials)
    search(spec(), name="range", warn=pytest.fail)
    assert len(trained) == 20


def test_what_another_program_ended_is_trained(project, trained):
    from optuna.trial import create_trial

    few = spec(space={"model.activation": {"choices": ["relu"]}}, search__trials=1)
    search(few)
    stored = elsewhere("iris").trials[0]
    for state in ("COMPLETE", "FAIL"):
        values = {"value": 0.001} if state == "COMPLETE" else {}
        kind = getattr(__import__("optuna").trial.TrialState, state)
        foreign = create_trial(state=kind, params=stored.params, distributions=stored.distributions, **values)
        elsewhere("iris").add_trial(foreign)
    study = search(few.override("search.trials", 4))
    assert study.trial(3).same_as == 0 and study.trial(3).values == study.trial(0).values and len(trained) == 1


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "grid"])
@pytest.mark.parametrize("pruner", ["none", "median", "halving", "hyperband"])
def test_every_sampler_and_pruner_goes_on_as_if_nothing_had_happened(project, monkeypatch, sampler, pruner):
    rung = {} if pruner == "none" else {"search__rung": 1}
    space = {"model.activation": {"choices": ["relu", "tanh"]}, "regularization.l2": {"choices": [0.0, 1e-4, 1e-2, 1e-1, 1.0]}}
    experiment = spec(search__sampler=sampler, search__pruner=pruner, **rung, **({"space": space} if sampler == "grid" else {}))
    whole = search(experiment, name="whole")
    with monkeypatch.context() as patched, pytest.raises(Stop):
        interrupt_at(patched, 28)
        search(experiment, name="cut")
    # Other workers and another width: the reference computes one network at a time, so nothing may change at all.
    cut = search(experiment.override("search.width", 2), name="cut")
    assert told(cut) == told(whole)
    assert cut.best == whole.best
    assert not any(t.state == "RUNNING" for t in cut.trials)


def elsewhere(name: str) -> Any:
    """The study as another program opens it."""
    optuna = pytest.importorskip("optuna")
    return optuna.load_study(study_name=name, storage=open_storage(Path("studies") / name, None))


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_a_trial_that_was_half_drawn_when_its_process_was_killed_has_its_draws_played_again(project, sampler):
    from optuna.trial import TrialState, create_trial

    first, whole = spec(search__sampler=sampler, search__trials=5), spec(search__sampler=sampler, search__trials=8)
    wanted = told(search(whole, name="whole"))
    drawn = elsewhere("whole").trials[5]
    for count in range(len(drawn.params) + 1):
        search(first, name=f"cut{count}")
        half = {name: drawn.params[name] for name in [*drawn.params][:count]}
        kinds = {name: drawn.distributions[name] for name in half}
        elsewhere(f"cut{count}").add_trial(create_trial(state=TrialState.RUNNING, params=half, distributions=kinds))
        assert told(search(whole, name=f"cut{count}")) == wanted, f"after {count} draws"


def test_a_trial_that_another_program_put_into_optunas_queue_is_taken_and_one_of_no_such_values_fails(project, monkeypatch):
    search(spec(search__trials=4))
    for values in ({"model.dropout": 0.125}, {"model.activation": "moon"}):
        elsewhere("iris").enqueue_trial(values)
    with monkeypatch.context() as patched, pytest.raises(Stop):
        interrupt_at(patched, 7)
        search(spec())
    whole = search(spec())
    taken, refused = whole.trials[4:6]
    assert (taken.state, taken.changes["model.dropout"]) == ("COMPLETE", 0.125) and set(taken.changes) >= {"model.activation"}
    assert (refused.state, refused.changes) == ("FAIL", {}) and "not of search.space" in refused.reason
    assert len(whole.trials) == 10 and whole.counts() == {"COMPLETE": 9, "FAIL": 1}


def test_pruning_prunes_and_says_what_it_saved(project):
    seen = []
    study = search(spec(**PRUNED, search__trials=16), on_progress=seen.append)
    pruned = [t for t in study.trials if t.state == "PRUNED"]
    assert len(pruned) >= 8
    firsts = [t for t in study.trials if t.generation == 0 and t.state == "COMPLETE"]
    assert len(firsts) == 1, "of four, the best third goes on, whichever was first"
    assert all(t.epochs < 6 and t.reason.startswith("pruned after epoch") for t in pruned)
    assert seen[-1].states == study.counts()
    assert seen[-1].saved == pytest.approx(sum(6 - t.epochs for t in pruned) / (16 * 6))
    assert seen[-1].best == (study.trial(study.best).values[0], study.best)


def test_more_trials_top_a_study_up(project):
    short, long = spec(), spec(search__trials=14)
    search(short, name="grown")
    whole = search(long, name="whole")
    assert told(search(long, name="grown")) == told(whole)
    assert told(search(short, name="grown")) == told(whole), "fewer trials than there are take none away"


def test_another_spec_is_refused_with_what_changed(project):
    search(spec())
    with pytest.raises(StudyError) as refused:
        search(spec(model__hidden=[6], space={**SPACE, "model.dropout": {"low": 0.0, "high": 0.4}}))
    assert 'model.hidden: was "[5]", is "[6]"' in str(refused.value)
    assert "search.space.model.dropout.high: was 0.5, is 0.4" in str(refused.value)
    assert "--name" in str(refused.value)
    search(spec(search__width=7, train__threads=1))  # what changes no trial is not another spec


def test_a_study_goes_on_after_its_winner_was_adopted(project):
    search(spec(space={"model.activation": {"choices": ["relu", "tanh"]}}))
    grown = search(spec(space={"model.activation": {"choices": ["relu", "tanh"]}}, model__activation="tanh", search__trials=12))
    assert len(grown.trials) == 12


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", ".hidden", "-x", "naïve"])
def test_a_study_has_a_plain_name(project, name):
    with pytest.raises(StudyError, match="--name must be letters"):
        search(spec(), name=name or " ")


def test_a_trial_that_diverges_fails_with_a_reason_and_the_study_goes_on(project):
    space = {"train.optimizer.learning_rate": {"choices": [0.02, 1e38]}}
    study = search(spec(space=space, train__optimizer={"name": "sgd", "learning_rate": 0.1}, search__sampler="random"))
    failed = [t for t in study.trials if t.state == "FAIL"]
    assert failed and len(failed) < 10
    assert all(t.changes["train.optimizer.learning_rate"] == 1e38 and "diverged at step" in t.reason for t in failed)
    assert study.trial(study.best).changes["train.optimizer.learning_rate"] == 0.02


def test_if_all_fail_there_is_no_best(project):
    space = {"train.optimizer.learning_rate": {"low": 1e37, "high": 1e38}}
    with pytest.raises(StudyError, match="no trial of study 'iris' completed") as error:
        search(spec(space=space, train__optimizer={"name": "sgd", "learning_rate": 1e38}))
    assert error.value.exit_code == 1
    kept = load_study(project / "studies/iris")
    assert (kept.best, kept.front, kept.counts()) == (None, (), {"FAIL": 10})
    assert not (project / "studies/iris/winner.yaml").exists()


def test_several_seeds_a_trial_have_a_mean_and_a_spread(project):
    study = search(spec(search__seeds=3, search__trials=4))
    one = study.trials[2]
    alone = []
    for seed in range(3):
        places = stages.RunPaths(project / f"seed{seed}", base=project, project=project)
        experiment = spec().alone().override({**one.changes, "seed": seed})
        stages.split(experiment, places)
        alone.append(stages.train(experiment, places)["best_val_loss"])
    assert one.values == pytest.approx((sum(alone) / 3,), rel=1e-15)
    assert one.spread[0] == pytest.approx((sum((v - sum(alone) / 3) ** 2 for v in alone) / 2) ** 0.5, rel=1e-9)
    assert one.epochs == 18


def test_trials_may_each_have_a_seed_of_their_own_which_is_adopted_with_them(project):
    experiment = spec(search__trial_seeds="own")
    study = search(experiment)
    seeds = [trial.seed for trial in study.trials]
    assert len(set(seeds)) == 10 and [trial.changes["seed"] for trial in study.trials] == seeds
    assert [int(row["seed"]) for row in rows_of(project / "studies/iris/trials.csv")] == seeds
    best = study.trial(study.best)
    alone = experiment.drawn(best.changes)
    places = stages.RunPaths(project / "solo", base=project, project=project)
    stages.split(alone, places)
    assert stages.train(alone, places)["best_val_loss"] == best.values[0]
    adopted = experiment.override(best.changes)
    grown = search(adopted.override("search.trials", 12))  # the study goes on after that
    assert told(grown)[:10] == told(study) and len(grown.trials) == 12
    other = search(spec(search__trial_seeds="own", search__seed=1), name="other")
    assert not set(seeds) & {trial.seed for trial in other.trials}


def test_several_metrics_have_a_front_and_no_best(project):
    space = {"model.hidden": {"choices": [[2], [5], [9, 4]]}, "model.activation": {"choices": ["relu", "tanh"]}}
    study = search(spec(space=space, search__metric=["loss", "weights"]))
    assert study.best is None
    sizes = {t.weights for t in study.trials}
    assert len(sizes) == 3 and all(t.values[1] == t.weights for t in study.trials)
    for number in study.front:
        one = study.trial(number).values
        assert not any(all(o <= v for o, v in zip(t.values, one, strict=True)) and t.values != one for t in study.trials)


def test_structures_and_scalings_are_searched_too(project):
    space = {
        "model.hidden": {"choices": [[], [3], [4, 3]]},
        "data.scaling": {"choices": ["standardize", "minmax"]},
        "train.batch_size": {"low": 16, "high": 32, "step": 8},
        "train.optimizer.name": {"choices": ["adam", "sgd"]},
        "train.optimizer.momentum": {"low": 0.0, "high": 0.9, "when": {"train.optimizer.name": "sgd"}},
    }
    sgd = {"name": "sgd", "momentum": 0.5, "learning_rate": 0.02}  # which adam has not: goes where adam is drawn
    study = search(spec(space=space, search__trials=12, train__optimizer=sgd))
    assert study.counts() == {"COMPLETE": 12}, [t.reason for t in study.trials]
    assert {t.variant for t in study.trials} == {p.name for p in (project / "studies/iris/data").iterdir()}
    assert all(("train.optimizer.momentum" in t.changes) == (t.changes["train.optimizer.name"] == "sgd") for t in study.trials)
    worst = max(study.trials, key=lambda t: t.values[0])
    places = stages.RunPaths(project / "solo", base=project, project=project)
    stages.split(spec(space=space, train__optimizer=sgd).drawn(worst.changes), places)
    assert stages.train(spec(space=space, train__optimizer=sgd).drawn(worst.changes), places)["best_val_loss"] == worst.values[0]


def test_a_search_never_has_the_test_rows(project):
    study = search(spec())
    assert study.best is not None
    assert not list((project / "studies").rglob("test*"))
    names = set(networks.Job.__dataclass_fields__)
    assert names == {"backend", "machine", "data", "metrics", "trials", "states", "until_epoch"}


def test_a_metric_that_these_rows_do_not_have_is_refused_before_anything_runs(project):
    from pipelines.spec import SpecError

    with pytest.raises(SpecError, match=r"search\.metric must be a metric of .*got 'r2'"):
        search(spec(search__metric="r2", search__direction="maximize"))
    assert not (project / "studies/iris/optuna.log").exists()


def test_the_exported_spec_of_a_trial_is_its_experiment_also_where_a_kind_was_drawn(project):
    from pipelines.search.records import export

    space = {"train.optimizer.name": {"choices": ["adam", "sgd"]}, "model.activation": {"choices": ["relu", "tanh"]}}
    experiment = Experiment().override({**SMALL, "search.space": space, "train.optimizer": {}})
    search(experiment)
    kept = load_study(project / "studies/iris")
    for name in ("adam", "sgd"):  # which have learning rates of their own, where none is written
        one = next(t for t in kept.trials if t.changes["train.optimizer.name"] == name)
        (project / "exported.yaml").write_text(export(kept, "spec", one.number))
        alone, places = load(project / "exported.yaml"), stages.RunPaths(project / name, base=project, project=project)
        stages.split(alone, places)
        assert stages.train(alone, places)["best_val_loss"] == one.values[0]


def test_a_study_read_back_is_the_study_that_was_written_nan_and_infinity_too(tmp_path):
    made = synthetic_study.study(20)
    synthetic_study.save(tmp_path, made, {"model.dropout": 1.0})
    again = load_study(tmp_path)
    assert repr(again) == repr(made)  # NaN is not itself
    failed = again.trials[7].history[-1]
    assert math.isnan(failed["train_loss"]) and failed["val_loss"] == math.inf
    assert json.loads((tmp_path / "study.json").read_text())["importances"] == {"model.dropout": 1.0}
    assert not any(trial.history for trial in load_study(tmp_path, histories=False).trials)


def test_the_trial_files_of_earlier_versions_are_read_where_there_is_no_curve(tmp_path):
    made = synthetic_study.study(8)
    synthetic_study.save(tmp_path, made)
    shutil.rmtree(tmp_path / "curves")
    rows = [
        {name: value if math.isfinite(value) else repr(value) for name, value in row.items()} for row in made.trials[7].history
    ]
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials/00007.json").write_text(json.dumps({"number": 7, "history": rows}))
    again = load_study(tmp_path)
    assert repr(again.trials[7]) == repr(made.trials[7]) and again.trials[6].history == ()


def test_a_study_whose_trials_are_gone_says_so_in_one_line(tmp_path):
    synthetic_study.save(tmp_path, synthetic_study.study(2))
    (tmp_path / "optuna.log").unlink()
    with pytest.raises(StorageError, match=r"the trials of study 's' are in .*optuna\.log, which is missing; restore it"):
        load_study(tmp_path)
