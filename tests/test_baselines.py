"""A network beside simple models on the same rows: their numbers, and what is said of a network that is worth nothing."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import balanced_accuracy_score, log_loss

from pipelines import stages
from pipelines.cli.app import main
from pipelines.data import About
from pipelines.report import run_page
from pipelines.spec import Experiment, SpecError
from pipelines.stages import RunPaths, baselines


def experiment(source="iris", /, **changes):
    """A small one, on the reference. changes: model__hidden=(3,) and the like."""
    train = {"backend": "reference", "epochs": 15, "optimizer": {"name": "adam", "learning_rate": 0.02}}
    small = Experiment.model_validate({"model": {"hidden": [8]}, "train": train})
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return small.override({"data.source": source, **named})


def carry_out(spec, root, *names):
    places = RunPaths(root, base=root.parent)
    for name in names or ("split", "train", "validate", "test"):
        getattr(stages, name)(spec, places)
    return places


def told(places, stage="validate"):
    return json.loads((places.report(stage) / "baselines.json").read_text())


def opened(places, part):
    about = About.load(places.about)
    return about.open(places.data, part)


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    return carry_out(experiment(), tmp_path_factory.mktemp("iris") / "root")


@pytest.mark.parametrize("part", ["valid", "test"])
def test_boosting_and_the_majority_class_are_scikit_learns_on_the_same_rows(iris, part):
    learn, judged = opened(iris, "train"), opened(iris, part)
    found = told(iris, "test" if part == "test" else "validate")["baselines"]
    of_three = HistGradientBoostingClassifier(random_state=0, max_iter=66, learning_rate=10 / 66)
    P = of_three.fit(learn.X, learn.y).predict_proba(judged.X)
    boosting = found["HistGradientBoosting"]
    assert boosting["loss"] == pytest.approx(log_loss(judged.y, P), rel=1e-6)
    assert boosting["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(judged.y, P.argmax(1)))
    counts = np.bincount(learn.y)
    assert found["majority class"]["accuracy"] == pytest.approx((judged.y == counts.argmax()).mean())
    assert found["majority class"]["loss"] == pytest.approx(-np.log(counts / counts.sum())[judged.y].mean())


@pytest.mark.parametrize("source", ["iris", "breast_cancer", "linnerud"])
def test_the_linear_model_is_a_run_without_hidden_layers(tmp_path, source):
    spec = experiment(source, regularization__l2=0.01, model__dropout=0.2)
    places = carry_out(spec, tmp_path / "one", "split", "train", "validate")
    linear = {
        "model.hidden": [], "model.dropout": 0.0, "train.epochs": 200, "train.batch_size": len(opened(places, "train").y),
        "train.optimizer.learning_rate": 0.05, "train.early_stopping.patience": 20,
    }  # fmt: skip
    alone = carry_out(spec.override(linear), tmp_path / "two", "split", "train", "validate")
    found = told(places)["baselines"]["linear model"]
    metrics = json.loads((alone.report("validate") / "metrics.json").read_text())
    assert found == {name: metrics[name] for name in found} and len(found) > 3


def test_the_mean_of_several_targets_explains_nothing(tmp_path):
    found = told(carry_out(experiment("linnerud"), tmp_path / "root"), "test")["baselines"]
    assert list(found) == ["mean", "linear model", "HistGradientBoosting"]
    assert found["mean"]["r2"] <= 0 and {"rmse.Weight", "rmse.Waist"} <= found["mean"].keys()


def test_of_folds_the_baselines_are_means_with_their_sds(tmp_path):
    places = carry_out(experiment("wine", data__split__folds=3), tmp_path / "root")
    for stage in ("validate", "test"):
        found = told(places, stage)["baselines"]
        assert len(found) == 3 and all("loss_sd" in one for one in found.values())


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path.name


def rare(folder, rows=600, name="rare.csv"):
    """A class of one row in ten, which its inputs make likelier, but nowhere likely."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=rows)
    yes = draw.random(rows) < 0.02 + 0.2 / (1 + np.exp(-3 * x))
    cells = [[f"{a:.4f}", f"{b:.4f}", "Yes" if y else "No"] for a, b, y in zip(x, draw.normal(size=rows), yes, strict=True)]
    return write(folder / name, [["x", "noise", "bought"], *cells])


def test_weights_of_rows_count_for_the_baselines(tmp_path):
    rows = [[i % 7, "a" if i % 3 else "b", 1 if i % 3 else 50] for i in range(300)]
    spec = experiment(write(tmp_path / "rows.csv", [["x", "kind", "how_much"], *rows]), data__target="kind")
    share = {}
    for weight in (None, "how_much"):
        places = carry_out(spec.override("data.weight", weight), tmp_path / f"{weight}", "split", "train", "validate")
        share[weight] = told(places)["baselines"]["majority class"]["accuracy"]
    assert share[None] > 0.6 and share["how_much"] == pytest.approx(1 - share[None])


def test_a_network_that_never_predicts_a_class_is_said_so_in_red_and_class_weights_mend_it(tmp_path):
    spec = experiment(rare(tmp_path), data__target="bought", data__columns={"x": "numeric", "noise": "numeric"})
    places = carry_out(spec, tmp_path / "root", "split", "train", "validate")
    [sentence] = told(places)["warnings"]
    way = "try train.class_weights: balanced, or validation.threshold: f1."
    assert re.fullmatch(rf"On the validation rows the network never predicts Yes \(\d+ rows\); {way}", sentence)
    page = run_page(places.root, {})
    assert 'class="verdict failed"' in page and sentence in page and "agrees" not in page.partition("<body>")[2]
    assert page.index(sentence) < page.index("A network (hidden layers 8")
    mended = carry_out(spec.override("train.class_weights", "balanced"), tmp_path / "two", "split", "train", "validate")
    assert told(mended)["warnings"] == [] and told(mended)["by"] == "balanced_accuracy"
    assert 'class="verdict agrees"' in run_page(mended.root, {})


def test_a_network_no_better_than_the_constant_is_said_so_and_training_mends_it(tmp_path):
    spec = experiment(train__epochs=1, train__optimizer__learning_rate=1e-6)
    places = carry_out(spec, tmp_path / "root", "split", "train", "validate")
    assert "is no better than the majority class of the training rows (loss " in told(places)["warnings"][0]
    better = carry_out(experiment(train__epochs=40), tmp_path / "two", "split", "train", "validate")
    assert told(better)["warnings"] == []


def test_without_baselines_none_is_fitted_and_a_class_that_is_never_predicted_is_still_said(tmp_path):
    spec = experiment(rare(tmp_path), data__target="bought", validation__baselines=False)
    found = told(carry_out(spec, tmp_path / "root", "split", "train", "validate"))
    assert found["baselines"] == {} and "never predicts Yes" in found["warnings"][0]


def test_of_many_rows_so_many_are_learnt_from_evenly_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "ROWS", 50)
    places = carry_out(experiment("breast_cancer"), tmp_path / "root", "split", "train", "validate")
    learn = opened(places, "train")
    some = np.arange(50) * len(learn.y) // 50
    model = HistGradientBoostingClassifier(random_state=0).fit(learn.X[some], learn.y[some])
    judged, found = opened(places, "valid"), told(places)
    assert found["rows"] == 50
    assert found["baselines"]["HistGradientBoosting"]["accuracy"] == pytest.approx(model.score(judged.X, judged.y))
    assert "learnt from 50 training rows" in run_page(places.root, {})


def test_rows_of_one_class_have_no_boosting(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "ROWS", 1)
    found = told(carry_out(experiment(), tmp_path / "root", "split", "train", "validate"))
    assert list(found["baselines"]) == ["majority class", "linear model"]


def test_the_report_and_the_command_show_the_network_beside_them(tmp_path, monkeypatch, capsys):
    (tmp_path / "params.yaml").write_text(
        "data: {source: iris}\nmodel: {hidden: [4]}\ntracking: {enabled: false}\n"
        "train: {backend: reference, epochs: 1, optimizer: {name: adam, learning_rate: 1.0e-6}}\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        main(["run", "--test", "--name", "one", "--json"])
    said = capsys.readouterr()
    head, *lines = said.err.partition("on the test rows")[2].splitlines()[:5]
    assert head.split() == ["loss", "accuracy", "balanced_accuracy"]
    assert [line.rsplit(maxsplit=3)[0] for line in lines] == [
        "the network", "majority class", "linear model", "HistGradientBoosting"
    ]  # fmt: skip
    assert "warning: On the test rows the network is no better than the majority class" in said.err
    done = json.loads(said.out)
    page = run_page(tmp_path / done["folder"], {})
    assert "Beside simple models (learnt from 90 training rows), on the test rows" in page


@pytest.mark.parametrize("metric", ["f1", "precision", "recall"])
def test_the_positive_class_may_choose_the_epoch(tmp_path, metric):
    spec = experiment("breast_cancer", train__early_stopping__monitor=metric, train__epochs=3)
    places = carry_out(spec, tmp_path / "root", "split", "train", "validate")
    found = json.loads((places.report("validate") / "metrics.json").read_text())
    with places.history.open(newline="") as file:
        assert found[metric] == pytest.approx(max(float(row[f"val_{metric}"]) for row in csv.DictReader(file)))
    with pytest.raises(SpecError, match=f"must be a metric of multiclass, got '{metric}'"):
        carry_out(experiment("iris", train__early_stopping__monitor=metric), tmp_path / "two", "split", "train")
