"""Rows that are given in Python: a run on them is the run on the same rows in a file, and they stay where they can be found."""

from __future__ import annotations

import numpy as np
import pandas
import pytest

import deltarule
from pipelines.data import read

SMALL = {"model.hidden": [6], "train.backend": "reference", "train.epochs": 2, "train.batch_size": 64}
OUTS = ("train/history.csv", "train/model.safetensors", "validate/metrics.json", "validate/predictions.csv")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spec(**changes):
    return deltarule.Experiment().override({**SMALL, **changes})


def frame(rows=120):
    rng = np.random.default_rng(1)
    age = rng.integers(18, 80, rows)
    return pandas.DataFrame(
        {
            "age": pandas.array([None if place % 9 == 0 else value for place, value in enumerate(age.tolist())], "Int64"),
            "height": rng.normal(170, 10, rows),
            "ward": pandas.Categorical([("north", "east", "west")[place % 3] for place in range(rows)]),
            "smoker": pandas.array([(True, False, None)[place % 3] for place in range(rows)], "boolean"),
            "admitted": pandas.date_range("2024-01-01", periods=rows, freq="D"),
            "risk": np.where(age + rng.normal(0, 9, rows) > 50, "high", "low"),
        }
    )


def same_outs(one, other):
    return all((one.folder / "outputs" / name).read_bytes() == (other.folder / "outputs" / name).read_bytes() for name in OUTS)


def kinds(experiment, project):
    return dict(read(experiment.data, project).kinds)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_run_on_a_frame_is_the_run_on_the_same_rows_in_a_file(project, ending):
    table = frame()
    table.to_csv("t.csv", index=False) if ending == "csv" else table.to_parquet("t.parquet", index=False)
    given = deltarule.run(spec().with_data(table, target="risk"), "given")
    filed = deltarule.run(spec(**{"data.source": f"t.{ending}", "data.target": "risk"}), "filed")
    assert same_outs(given, filed)
    assert list(given.model.predict(table.drop(columns="risk"))[given.predictions["row"]]) == given.predictions["predicted"]


def test_types_hold(project):
    table = frame().assign(
        code=pandas.Categorical([1, 2, 3, 4] * 30),
        score=pandas.array([None, 0.5, 1.5, 2.25] * 30, "Float64"),
        small=np.arange(120, dtype=np.float16),
        zone=pandas.date_range("2024-01-01", periods=120, tz="Europe/Berlin"),
        digits=[f"{place:03}" for place in range(4)] * 30,
    )
    experiment = spec().with_data(table, target="risk")
    assert kinds(experiment, project) == {
        "age": "numeric", "height": "numeric", "ward": "categorical", "smoker": "boolean", "admitted": "datetime",
        "risk": "categorical", "code": "categorical", "score": "numeric", "small": "numeric", "zone": "datetime",
        "digits": "categorical",
    }  # fmt: skip
    source = read(experiment.data, project)
    assert source.fetch("age").gaps.sum() == 14 and source.fetch("smoker").gaps.sum() == 40
    assert source.fetch("code").categories == ("1", "2", "3", "4")
    stated = spec(**{"data.columns": {"co*": "numeric"}}).with_data(table, target="risk")
    assert kinds(stated, project)["code"] == "numeric" and stated.data.columns["ward"] == "categorical"


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ((np.eye(4), np.arange(4)), ["x0", "x1", "x2", "x3", "y"]),
        (([[1, "a"], [2, "b"]], ["p", "q"]), ["x0", "x1", "y"]),
        ((np.eye(3), pandas.Series([1, 2, 3], name="dose")), ["x0", "x1", "x2", "dose"]),
        ((np.eye(2), np.eye(2)), ["x0", "x1", "y0", "y1"]),
        ((pandas.DataFrame(np.eye(2)), [1, 2]), ["0", "1", "y"]),
        (({"y": [1, 2], "z": (3, 4)}, [1, 2]), ["y", "z", "y_"]),
    ],
)
def test_columns_have_the_names_that_they_come_with_or_those_of_the_field(project, rows, names):
    experiment = spec().with_data(*rows)
    assert list(pandas.read_parquet(experiment.data.source)) == names
    assert list(experiment.data.targets) == names[len(names) - len(experiment.data.targets) :]


def test_the_target_of_the_spec_holds_unless_another_is_named(project):
    first = spec().with_data(frame(), target="risk")
    assert first.with_data(frame(60)).data.target == "risk"
    assert first.with_data(frame(60), target="smoker").data.target == "smoker"
    assert first.with_data(np.eye(3), [1, 2, 3], target="dose").data.target == "dose"
    assert first.with_data(frame(60), target=np.array(["smoker"])).data.target == "smoker"
    assert first.with_data(pandas.DataFrame(np.eye(3)), target="2").data.target == "2"


def test_rows_are_kept_once_by_their_hash_and_the_run_is_repeated_from_its_folder(project):
    experiment = spec().with_data(frame(), target="risk")
    again = spec().with_data(frame(), target="risk")
    assert again == experiment and experiment.data.source.startswith(".deltarule/rows/rows-")
    assert len(list((project / ".deltarule/rows").iterdir())) == 1
    assert spec().with_data(frame(60), target="risk").data.source != experiment.data.source
    run = deltarule.run(experiment, "first")
    assert same_outs(run, deltarule.run(deltarule.Run("first").experiment, "second"))
    [trained] = deltarule.train_many([experiment])
    assert trained.history == run.history


def test_messages_speak_of_the_rows_and_not_of_the_file_in_which_they_are_kept(project):
    rows = frame().assign(dose=np.where(np.arange(len(frame())), 1.0, np.inf))
    with pytest.raises(deltarule.DataError, match=r"^the rows, row 1: column 'dose' must hold finite numbers, found inf$"):
        deltarule.run(spec().with_data(rows, target="risk"), "run")


def test_folds_and_studies_work_on_rows_that_are_given(project):
    folds = deltarule.run(spec(**{"data.split.folds": 3}).with_data(frame(), target="risk"), "folds")
    assert len(folds.model.folds) == 3
    space = {"model.dropout": {"choices": [0.0, 0.3]}}
    study = deltarule.search(
        spec(**{"search.space": space, "tracking.enabled": False}).with_data(frame(), target="risk"), name="s", trials=2
    )
    assert [one.state for one in study.trials] == ["COMPLETE", "COMPLETE"]


def test_openmls_hash_goes_with_its_source(project):
    before = spec(**{"data.source": "openml:61", "data.sha256": "0" * 64, "data.target": "class"})
    assert before.with_data(frame(), target="risk").data.sha256 is None


@pytest.mark.parametrize(
    ("rows", "target", "told"),
    [
        (({"a": [1, 2], "b": [1]},), "b", "must be of one length"),
        ((np.zeros((2, 2, 2)),), "y", r"one value a row, got shape \(2, 2\)"),
        ((pandas.DataFrame([[1, 2]], columns=["a", "a"]),), "a", "must have different names"),
        (({"a": [1, 2]}, [3, 4]), "a", "target must name each column of y once, and none of X, got a for y"),
        (({"a": [1, 2]}, np.eye(2)), "b", "must name each column of y once, and none of X, got b for y0, y1"),
        (({"a": np.array([1j, 2j]), "b": [1, 2]},), "b", "hold numbers, text or dates"),
        ((frame(4),), None, "target must name what to predict"),
        ((np.eye(3),), 2, "^target must be the name of a column, or a list of names, got 2$"),
        ((pandas.DataFrame(np.eye(3)),), 2, "got 2; here columns are named by text: target='2'$"),
        (({"a": [1, 2]}, np.eye(2)), ["b", 1.5], r"a list of names, got \['b', 1.5\]"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused(project, rows, target, told):
    with pytest.raises(deltarule.SpecError, match=told):
        spec().with_data(*rows, target=target)


# -- NumPy's values in a spec --


@pytest.mark.parametrize(
    ("path", "value", "plain"),
    [
        ("model.dropout", np.float64(0.2), 0.2),
        ("model.dropout", np.array(0.2), 0.2),
        ("model.dropout", [np.float64(0.2)], [0.2]),
        ("model.hidden", np.array([6]), [6]),
        ("train.epochs", np.int64(2), 2),
        ("train.batch_size", np.uint8(64), 64),
        ("train.optimizer", {np.str_("name"): np.str_("sgd"), "nesterov": np.bool_(False)}, {"name": "sgd", "nesterov": False}),
        ("model.activation", np.str_("tanh"), "tanh"),
        ("seed", np.array(3), 3),
    ],
)
def test_numpys_values_are_pythons(path, value, plain):
    from pipelines.spec import dump, fingerprint

    given, wanted = spec().override(path, value), spec().override(path, plain)
    assert given == wanted and dump(given) == dump(wanted)
    hashes = {"train": "0", "valid": "1"}
    assert fingerprint(given, hashes, "s") == fingerprint(wanted, hashes, "s")


def test_numpys_values_are_checked_as_pythons_are():
    with pytest.raises(deltarule.SpecError, match=r"model\.dropout must be .*, got 1\.5"):
        spec().override("model.dropout", np.float32(1.5))
    with pytest.raises(deltarule.SpecError, match=r"train\.epochs"):
        spec().override("train.epochs", np.float64(2.0))
