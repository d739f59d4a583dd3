"""From which probability on a row is of the second class: chosen on the validation rows, and kept by whatever decides then."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from conftest import call
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score
from test_baselines import carry_out, experiment, opened, rare, told

import deltarule
from pipelines import stages
from pipelines.api.evaluate import evaluate
from pipelines.data import DataError
from pipelines.export import export
from pipelines.report import run_page
from pipelines.spec import Experiment, SpecError
from pipelines.spec.blocks import Validation
from pipelines.stages import RunPaths
from pipelines.stages.metrics import Truth, choose_threshold, probabilities

AIMS = ["f1", "balanced_accuracy", {"recall": 0.8}, {"precision": 0.15}]


def chosen(places):
    return json.loads((places.report("validate") / "threshold.json").read_text())["threshold"]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def said(places, stage):
    """(P(Yes), is said to be Yes, is Yes) of each row."""
    rows = table(places.report(stage) / "predictions.csv")
    p = np.array([float(row["p_Yes"]) for row in rows])
    return p, *(np.array([row[name] == "Yes" for row in rows]) for name in ("predicted", "label"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rare(folder)
    return folder


def spec_of(data, threshold, **changes):
    more = {"data__target": "bought", "validation__threshold": threshold}
    return experiment(str(data / "rare.csv"), **more, **changes)


@pytest.mark.parametrize("aim", AIMS, ids=str)
def test_a_threshold_is_the_best_of_all_by_its_aim(aim):
    draw = np.random.default_rng(1)
    y = (draw.random(300) < 0.2).astype(int)
    outputs = np.round(draw.normal(size=(300, 1)) + y[:, None], 1)  # with ties
    truth, P = Truth("binary", y, 1), probabilities("binary", outputs)[:, 1]
    found = choose_threshold(Validation(threshold=aim), truth, outputs)

    def worth(t):
        of = t <= P
        recall, precision = recall_score(y, of), precision_score(y, of, zero_division=0)
        if isinstance(aim, dict):
            key, least = next(iter(aim.items()))
            one, other = (recall, precision) if key == "recall" else (precision, recall)
            return other if one >= least - 1e-12 else -1
        return f1_score(y, of) if aim == "f1" else balanced_accuracy_score(y, of)

    assert worth(found) == pytest.approx(max(worth(t) for t in P)) and worth(found) > 0
    assert found not in P and (found <= P).any()


@pytest.mark.parametrize("aim", [*AIMS, 0.2], ids=str)
def test_validate_chooses_and_test_decides_by_it(data, tmp_path, aim):
    places = carry_out(spec_of(data, aim), tmp_path / "root")
    t = chosen(places)
    if isinstance(aim, float):
        assert t == aim
    for stage in ("validate", "test"):
        p, is_said, is_so = said(places, stage)
        assert (is_said == (p >= t)).all() and is_said.any()
        metrics = json.loads((places.report(stage) / "metrics.json").read_text())
        assert metrics["recall"] == pytest.approx(recall_score(is_so, is_said))
        assert metrics["f1"] == pytest.approx(f1_score(is_so, is_said))
        assert metrics["f1_low"] <= metrics["f1"] <= metrics["f1_high"]
        classes = {row["class"]: row for row in table(places.report(stage) / "classes.csv")}
        assert int(classes["Yes"]["predicted"]) == is_said.sum()
    page = run_page(places.root, {"test_calibration": b""})
    assert f"Calibration error on the test rows: {metrics['calibration_error']:.4g}." in page
    assert "A row is said to be Yes from a probability of 0." in page and "never predicts" not in page


def test_the_advice_for_a_class_that_is_never_predicted_mends_it(data, tmp_path):
    places = carry_out(spec_of(data, 0.5), tmp_path / "one", "split", "train", "validate")
    assert told(places)["warnings"][0].endswith("or validation.threshold: f1.")
    assert not (places.report("validate") / "threshold.json").exists() and told(places)["notes"] == []
    mended = carry_out(spec_of(data, "f1"), tmp_path / "two", "split", "train", "validate")
    assert told(mended)["warnings"] == []


@pytest.mark.parametrize(
    ("weights", "threshold", "lost", "way"),
    [
        ("balanced", 0.95, "Yes", "validation.threshold: 0.5, at which it does"),
        ("balanced", 0.02, "No", "validation.threshold: 0.5, at which it does"),
        ("none", 0.9, "Yes", "validation.threshold: f1"),
    ],
)
def test_where_the_threshold_is_the_reason_the_advice_is_another(data, tmp_path, weights, threshold, lost, way):
    """And not class weights, or more epochs: what is advised mends it, and nothing else is said of the network."""
    spec = spec_of(data, threshold, train__class_weights=weights)
    places = carry_out(spec, tmp_path / "root", "split", "train", "validate")
    [sentence] = told(places)["warnings"]
    assert f"never predicts {lost} (" in sentence and sentence.endswith(f"; try {way}.")
    mended = spec.override("validation.threshold", 0.5 if "0.5" in way else "f1")
    carry_out(mended, places.root, "validate")
    assert told(places)["warnings"] == []


def test_each_baseline_decides_by_a_threshold_of_its_own_and_the_majority_class_is_that(data, tmp_path):
    for threshold in ("f1", 0.02):
        found = told(carry_out(spec_of(data, threshold), tmp_path / f"{threshold}"), "test")["baselines"]
        assert found["linear model"]["f1"] > 0 and found["HistGradientBoosting"]["recall"] > 0
        _, _, is_so = said(RunPaths(tmp_path / f"{threshold}", base=tmp_path), "test")
        assert found["majority class"]["accuracy"] == pytest.approx((~is_so).mean()) and found["majority class"]["f1"] == 0


def test_whatever_answers_decides_as_the_test_stage_did(data, tmp_path):
    places = carry_out(spec_of(data, "f1"), tmp_path / "root")
    (places.root / "params.yaml").write_text("data: {source: x.csv, target: bought}\n")
    with (data / "rare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = {name: [row[name] for row in rows] for name in ("x", "noise")}
    model = deltarule.load_model(places.root)
    answers = model.answers(table)
    expected = np.where(answers["p_Yes"] >= chosen(places), "Yes", "No")
    assert (answers["predicted"] == expected).all() and {*expected} == {"Yes", "No"} and (answers["p_Yes"] < 0.5).all()
    assert (model.predict(table) == expected).all()
    numbers = opened(places, "test").rows
    assert (expected[numbers] == np.where(said(places, "test")[1], "Yes", "No")).all()
    export(places.root, tmp_path / "exported")
    import mlflow
    import pandas

    served = mlflow.pyfunc.load_model(str(tmp_path / "exported")).predict(pandas.DataFrame(table))
    assert (served["predicted"].to_numpy() == expected).all()
    assert (deltarule.load_model(tmp_path / "exported").predict(table) == expected).all()
    import onnx

    export(places.root, tmp_path / "onnx", "onnx")
    kept = {one.key: one.value for one in onnx.load(tmp_path / "onnx/network.onnx").metadata_props}
    assert float(kept["threshold"]) == chosen(places)
    done = call("deltarule", "predict", places.root, data / "rare.csv", cwd=tmp_path)
    assert [line.partition(",")[0] for line in done.stdout.splitlines()[1:]] == list(expected)


def test_folds_share_one_threshold_and_their_mean_decides_by_it(data, tmp_path):
    spec = spec_of(data, "f1", data__split__folds=3)
    places = carry_out(spec, tmp_path / "root")
    t = chosen(places)
    p, is_said, is_so = said(places, "validate")
    assert (is_said == (p >= t)).all()
    assert f1_score(is_so, is_said) == pytest.approx(max(f1_score(is_so, p >= one) for one in p))
    model = deltarule.load_model(places.root)
    rows = {"x": ["-2", "0", "2", "3"], "noise": ["0", "0", "0", "0"]}
    P = np.mean([one.probabilities(rows) for one in model.folds], axis=0)[:, 1]
    assert (model.predict(rows) == np.where(t <= P, "Yes", "No")).all() and (t <= P).any()


def test_a_network_that_is_trained_anew_has_no_threshold_until_it_is_validated(data, tmp_path):
    places = carry_out(spec_of(data, "f1"), tmp_path / "root", "split", "train", "validate")
    assert deltarule.load_model(places.root).network.threshold != 0.5
    stages.train(spec_of(data, "f1", train__epochs=2), places)
    assert deltarule.load_model(places.root).network.threshold == 0.5


def test_a_task_that_has_not_two_classes_and_a_precision_that_cannot_be_had_are_refused(data, tmp_path):
    for source in ("iris", "diabetes"):
        with pytest.raises(SpecError, match=r"threshold must be 0.5 for a \w+ task, since it parts two classes, got f1"):
            carry_out(experiment(source, validation__threshold="f1"), tmp_path / source, "split", "train")
    first_wrong = Truth("binary", np.array([1, 1, 0]), 1), np.array([[1.0], [2.0], [3.0]])
    with pytest.raises(SpecError, match=r"got {'precision': 0.9}; they have 0\.6667$"):
        choose_threshold(Validation(threshold={"precision": 0.9}), *first_wrong)
    truth = Truth("binary", np.ones(5, dtype=int), 1)
    with pytest.raises(SpecError, match="must be a number where all validation rows are of one class, got f1"):
        choose_threshold(Validation(threshold="f1"), truth, np.zeros((5, 1)))


@pytest.mark.parametrize(
    "value", [0, 1, "accuracy", {}, {"recall": 0.5, "precision": 0.5}, {"recall": 2.0}, {"f1": 0.5}], ids=str
)
def test_a_threshold_that_is_none_is_refused_by_the_spec(value):
    with pytest.raises(SpecError, match=r"^validation\.threshold"):
        Experiment().override("validation.threshold", value)


@pytest.mark.parametrize(("source", "positive"), [("breast_cancer", "malignant"), ("breast_cancer", "benign"), (None, "No")])
def test_the_spec_says_which_class_is_positive(data, tmp_path, source, positive):
    """f1, precision, recall, threshold, and the order of columns; the answers are the same network's."""
    changes = {"data__positive": positive, "validation__threshold": {"recall": 0.9}}
    spec = experiment(source, **changes) if source else spec_of(data, {"recall": 0.9}, data__positive=positive)
    places = carry_out(spec, tmp_path / "root")
    rows = table(places.report("test") / "predictions.csv")
    assert [name for name in rows[0] if name.startswith("p_")][1] == f"p_{positive}"
    is_said, is_so = (np.array([row[name] == positive for row in rows]) for name in ("predicted", "label"))
    assert (is_said == (np.array([float(row[f"p_{positive}"]) for row in rows]) >= chosen(places))).all()
    metrics = json.loads((places.report("test") / "metrics.json").read_text())
    assert metrics["recall"] == pytest.approx(recall_score(is_so, is_said)) and metrics["recall"] > 0.7
    assert metrics["precision"] == pytest.approx(precision_score(is_so, is_said))
    assert f"is said to be {positive} from" in told(places, "test")["notes"][0]
    model = deltarule.load_model(places.root)
    assert model.classes[1] == positive


def test_labels_that_are_numbers_and_truth_values_need_no_quotes(tmp_path):
    for name, cells in (("numbers", "01"), ("truth", ("false", "true"))):
        lines = [f"{row * 7 % 13},{cells[row % 2]}" for row in range(60)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y", *lines]))
        (tmp_path / "params.yaml").write_text(f"data: {{source: {tmp_path}/{name}.csv, target: y, positive: {cells[0]}}}")
        places = carry_out(deltarule.load(tmp_path / "params.yaml"), tmp_path / name, "split")
        assert opened(places, "train").y.sum() > 0 and json.loads(places.about.read_text())["classes"] == [*cells[::-1]]


@pytest.mark.parametrize(("source", "positive"), [("iris", "setosa"), ("breast_cancer", "good"), ("diabetes", "1")])
def test_a_positive_class_that_is_none_of_two_is_refused(tmp_path, source, positive):
    with pytest.raises(DataError, match=f"data.positive must be one of two classes, got '{positive}' for "):
        carry_out(experiment(source, data__positive=positive), tmp_path / "root", "split")


def test_each_seed_of_evaluate_decides_by_its_own_validation_rows(data, tmp_path):
    places = carry_out(spec_of(data, "f1"), tmp_path / "root")
    own = {stage: json.loads((places.report(stage) / "metrics.json").read_text()) for stage in ("validate", "test")}
    found = evaluate(spec_of(data, "f1"), places, seeds=2, test=True).each
    for stage, metrics in own.items():
        for name in ("f1", "recall", "accuracy"):
            assert found[stage][name][0] == pytest.approx(metrics[name]), (stage, name)
    half = evaluate(spec_of(data, "f1").override("validation.threshold", 0.5), places, seeds=2).each
    assert half["validate"]["f1"] != found["validate"]["f1"] and half["validate"]["loss"] == found["validate"]["loss"]


def test_the_model_on_record_decides_by_it_too(data, stored_project, monkeypatch):
    monkeypatch.chdir(stored_project)
    run = deltarule.run(spec_of(data, "f1", tracking__files=["mlflow"]), "runs/one", track=True)
    (stored_project / "params.yaml").write_text("tracking: {experiment: deltarule}\n")
    call("deltarule", "sync", cwd=stored_project)
    [kept] = [path for path in (stored_project / ".mlflow").rglob("threshold.json") if path.parent.name == "run"]
    rows = {"x": ["-2", "0", "2", "3"], "noise": ["0"] * 4}
    found = deltarule.load_model(kept.parent).predict(rows)
    assert (found == run.model.predict(rows)).all() and {*found} == {"Yes", "No"}
