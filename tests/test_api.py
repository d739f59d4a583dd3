"""The notebook's way in: the same experiment, its metrics, history, predictions and model, without a terminal."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest

import deltarule

SMALL = {
    "model.hidden": [8],
    "train.backend": "reference",
    "train.epochs": 3,
    "train.batch_size": 64,
    "validation.baselines": False,
}


def experiment(source, **changes):
    data = source if isinstance(source, dict) else {"data.source": source}
    return deltarule.Experiment().override({**SMALL, **data, **changes})


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    return deltarule.run(experiment("iris"), tmp_path_factory.mktemp("iris"))


def raw(source):
    from sklearn import datasets

    return getattr(datasets, f"load_{source}")(return_X_y=True)


def test_an_experiment_is_loaded_changed_and_run(tmp_path):
    (tmp_path / "params.yaml").write_text("data: {source: iris}\ntrain: {backend: reference, epochs: 2}\n")
    loaded = deltarule.load(tmp_path / "params.yaml", ["model.hidden=[4]"])
    changed = loaded.override("model.activation", "tanh")
    run = deltarule.run(changed, tmp_path / "run")
    assert loaded.model.activation == "relu", "an experiment is changed by making another"
    assert run.experiment == changed
    assert len(run.history["val_loss"]) == 2 and run.history["epoch"] == [1, 2]
    assert run.metrics["loss"] == pytest.approx(min(run.history["val_loss"]), rel=1e-6)


def test_predictions_are_those_of_the_model_on_raw_rows(iris):
    X, y = raw("iris")
    rows = iris.predictions["row"]
    assert list(iris.model.predict(X[rows])) == iris.predictions["predicted"]
    np.testing.assert_allclose(iris.model.probabilities(X[rows]).sum(axis=1), 1)
    right = np.mean([label == said for label, said in zip(iris.predictions["label"], iris.predictions["predicted"], strict=True)])
    assert right == pytest.approx(iris.metrics["accuracy"])
    assert len(iris.model.features) == X.shape[1] and len(iris.model.classes) == len(set(y))


def test_the_model_goes_on_as_a_plain_torch_module(iris):
    torch = pytest.importorskip("torch")
    X, _ = raw("iris")
    with torch.no_grad():
        outputs = iris.model.to_torch()(torch.tensor(iris.model.inputs(X), dtype=torch.float32))
    np.testing.assert_allclose(outputs.softmax(1).numpy(), iris.model.probabilities(X), atol=1e-6)


def test_two_classes_are_decided_as_the_report_decides(tmp_path):
    run = deltarule.run(experiment("breast_cancer"), tmp_path)
    X, _ = raw("breast_cancer")
    rows = run.predictions["row"]
    assert list(run.model.predict(X[rows])) == run.predictions["predicted"]
    assert run.model.probabilities(X).shape == (len(X), 2)


def test_targets_are_predicted_in_their_own_units(tmp_path):
    run = deltarule.run(experiment("diabetes"), tmp_path)
    X, y = raw("diabetes")
    rows = run.predictions["row"]
    predicted = run.model.predict(X[rows])
    assert predicted.shape == (len(rows),)
    assert np.sqrt(np.mean((predicted - y[rows]) ** 2)) == pytest.approx(run.metrics["rmse"])
    with pytest.raises(ValueError, match="no class probabilities"):
        run.model.probabilities(X)


def test_several_targets_are_columns(tmp_path):
    run = deltarule.run(experiment("linnerud"), tmp_path)
    assert run.model.predict(raw("linnerud")[0]).shape == (20, 3)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (np.zeros((2, 3)), r"rows of 4 columns .* got shape \(2, 3\)"),
        ([[1, 2, np.inf, 4]], "row 1: column .* must hold finite numbers, found inf"),
    ],
)
def test_rows_that_do_not_fit_are_refused(iris, rows, told):
    with pytest.raises(ValueError, match=told):
        iris.model.predict(rows)


def test_raw_rows_of_every_kind_are_treated_as_the_training_rows_were(tmp_path, monkeypatch):
    columns = {
        "id": [f"{i:04}" for i in range(90)],
        "age": [None if i % 9 == 0 else i % 50 for i in range(90)],
        "colour": [("red", "green", "blue")[i % 3] for i in range(90)],
        "smoker": [("yes", "no")[i % 2] for i in range(90)],
        "bought": ["often" if i % 50 > 20 else "never" for i in range(90)],
    }
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in zip(*columns.values(), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join([",".join(columns), *lines]))
    monkeypatch.chdir(tmp_path)
    run = deltarule.run(experiment({"data.source": "t.csv", "data.target": "bought"}), tmp_path / "run")
    assert run.model.features == ("age", "colour", "smoker")
    said = [run.model.predict(columns)[row] for row in run.predictions["row"]]
    assert said == run.predictions["predicted"]
    chances = run.model.probabilities(columns)[run.predictions["row"]]
    np.testing.assert_allclose(chances[:, 1], run.predictions["p_often"], rtol=1e-6)


def test_a_run_is_read_again_from_its_folder(iris):
    again = deltarule.Run(iris.folder)
    assert again.metrics == iris.metrics and again.history == iris.history and again.experiment == iris.experiment


def test_test_rows_stay_closed_unless_asked_for(iris, tmp_path):
    with pytest.raises(deltarule.StageError, match=r"outputs/test/metrics\.json is missing"):
        _ = iris.test_metrics
    opened = deltarule.run(experiment("iris"), tmp_path, test=True)
    assert opened.test_metrics["accuracy_low"] <= opened.test_metrics["accuracy"] <= opened.test_metrics["accuracy_high"]


def test_a_folder_that_holds_something_is_not_written_to(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="must be empty"):
        deltarule.run(experiment("iris"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_progress_sees_every_epoch(tmp_path):
    seen = []
    deltarule.run(experiment("iris"), tmp_path, progress=seen.append)
    assert [record["epoch"] for record in seen] == [1, 2, 3]


def test_a_run_that_diverged_is_an_error_and_keeps_its_history(tmp_path):
    wild = experiment("diabetes", **{"train.optimizer": {"name": "sgd", "learning_rate": 1e30}, "data.scaling": "none"})
    with pytest.raises(deltarule.StageError, match="diverged"):
        deltarule.run(wild, tmp_path)
    with (tmp_path / "outputs/train/history.csv").open() as file:
        assert next(csv.reader(file))[0] == "epoch"


def test_mistakes_raise_and_never_exit(tmp_path):
    with pytest.raises(deltarule.SpecError, match=r"model\.dropout must be a number in \[0, 1\) or a list of such"):
        experiment("iris", **{"model.dropout": 1.5})
    with pytest.raises(deltarule.SpecError, match="no such file"):
        deltarule.load(tmp_path / "params.yaml")
    with pytest.raises(deltarule.SpecError, match="did you mean keras"):
        experiment("iris", **{"train.backend": "kears"})


def test_figures_and_curves_are_those_of_the_report(iris, tmp_path, monkeypatch):
    page = tmp_path / "report.html"
    iris.write_report(page)
    assert {"learning_curves", "validate_confusion"} <= iris.figures.keys()
    assert all(png.startswith(b"\x89PNG") for png in iris.figures.values())
    drawing = iris.plot()
    assert drawing.axes[0].get_title() == "Loss without penalty" and drawing._repr_png_().startswith(b"\x89PNG")


def test_a_run_is_shown_in_a_cell_with_everything_escaped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["a,<b>kind</b>", *(f"{row % 7},{('<script>', 'no')[row % 2]}" for row in range(60))]
    (tmp_path / "<i>.csv").write_text("\n".join(lines))
    changes = {"data.source": "<i>.csv", "data.target": "<b>kind</b>", "data.split.duplicates": "apart"}
    run = deltarule.run(deltarule.Experiment().override({**SMALL, **changes}), "<run>")
    shown = run._repr_html_()
    assert "tell &lt;script&gt; from no" in shown and "&lt;run&gt;" in shown and "&lt;i&gt;, relu, reference" in shown
    assert not {"<i>", "<script>", "<run>"} & {*re.findall("<[^ >]*>", shown)} and len(shown) < 2000
    assert deltarule.Run(tmp_path)._repr_html_() is None


def test_a_run_without_an_epoch_has_no_curves(tmp_path):
    wild = experiment("diabetes", **{"train.optimizer": {"name": "sgd", "learning_rate": 1e30}, "data.scaling": "none"})
    with pytest.raises(deltarule.StageError, match="diverged"):
        deltarule.run(wild, tmp_path)
    run = deltarule.Run(tmp_path)
    assert "diverged" in run._repr_html_()
    with pytest.raises(deltarule.StageError, match="has no epoch to draw"):
        run.plot()


def test_seeds_are_some_and_not_too_many(iris):
    for seeds in (1, 10_001):
        with pytest.raises(deltarule.SpecError, match=f"seeds must be from 2 to 10000, got {seeds}"):
            deltarule.evaluate(iris.experiment, iris.folder, seeds=seeds)


def test_progress_of_a_study_and_of_many_seeds(iris, tmp_path, monkeypatch):
    seen = []
    deltarule.evaluate(iris.experiment, iris.folder, seeds=2, progress=seen.append)
    assert sorted((record["seed"], record["epoch"]) for record in seen) == [(s, e) for s in (0, 1) for e in (1, 2, 3)]
    assert "val_loss" in seen[0]
    monkeypatch.chdir(tmp_path)
    space = {"search.space": {"model.dropout": {"choices": [0.0, 0.3]}}, "tracking.enabled": False}
    stands = []
    deltarule.search(experiment("iris", **space), trials=2, progress=lambda at: stands.append((at.total, at.states.total())))
    assert stands[-1] == (2, 2)


ADVICE = {
    "no test rows opened": lambda run, folder: run.test_metrics,
    "nothing there": lambda run, folder: deltarule.Run(folder).metrics,
    "no model": lambda run, folder: deltarule.Run(folder).plot(),
    "no model to load": lambda run, folder: deltarule.load_model(folder),
    "no rows for seeds": lambda run, folder: deltarule.evaluate(run.experiment, folder, seeds=2),
    "other rows": lambda run, folder: deltarule.evaluate(run.experiment.override("data.scaling", "none"), run.folder, seeds=2),
    "one run on record": lambda run, folder: deltarule.compare(experiment=run.experiment),
}


@pytest.mark.parametrize("case", ADVICE)
def test_what_is_raised_names_what_can_be_called(iris, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((deltarule.StageError, ValueError), match=r"deltarule\.\w+\(") as error:
        ADVICE[case](iris, tmp_path)
    assert "`" not in str(error.value) and "dvc" not in str(error.value)


def test_the_advice_of_what_is_raised_helps(iris, tmp_path):
    opened = deltarule.run(iris.experiment, tmp_path / "opened", test=True)
    assert "accuracy" in opened.test_metrics
    other = iris.experiment.override("data.scaling", "none")
    folder = tmp_path / "new"
    deltarule.run(other, folder)
    assert deltarule.Run(folder).metrics and deltarule.load_model(folder).features
    assert deltarule.evaluate(other, folder, seeds=2).seeds == (0, 1)


def test_a_study_without_a_winner_and_a_threshold_that_was_missed_say_where_to_look(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wild = {"search.space": {"train.optimizer.learning_rate": {"choices": [1e30, 1e31]}}, "tracking.enabled": False}
    lost = experiment("diabetes", **wild, **{"train.optimizer": {"name": "sgd"}, "data.scaling": "none"})
    with pytest.raises(deltarule.StudyError, match=r"see deltarule\.open_study\('s', experiment\)\.trials"):
        deltarule.search(lost, name="s", trials=2)
    assert [trial.state.name for trial in deltarule.open_study("s", lost).trials] == ["FAIL", "FAIL"]
    held = experiment("iris", thresholds={"accuracy": {"min": 1.0}, "loss": {"max": 1e-9}})
    with pytest.raises(deltarule.StageError, match="loss"):
        deltarule.run(held, "held")
    with pytest.raises(deltarule.StageError, match=r"see Run\(folder\)\.metrics"):
        deltarule.evaluate(held, "held", seeds=2, test=True)
    assert deltarule.Run("held").metrics["loss"] > 1e-9
