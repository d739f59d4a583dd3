"""Rows of a file are answered as the stages answered theirs, however the file is cut, and what does not fit is told."""

from __future__ import annotations

import csv
import gzip
import random
from pathlib import Path

import numpy as np
import pandas
import pytest

import deltarule
from pipelines.api.predict import predict
from pipelines.data import DataError, text
from pipelines.data import rows as data_rows
from pipelines.data.parts import read_json, write_json
from pipelines.stages import StageError

HEADER = ["id", "day", "colour", "size", "fits", "kind"]


def rows(count: int = 150) -> list[list[str]]:
    draw = random.Random(0)
    found = []
    for number in range(count):
        size = "" if number % 10 == 3 else f"{draw.gauss(number % 2, 0.8):.3f}"
        colour = "" if number % 12 == 5 else draw.choice(["red", "blue", "bleu"])
        day = f"2024-{1 + number % 12:02d}-{1 + number % 28:02d}"
        found.append([f"{number:05d}", day, colour, size, draw.choice(["yes", "no"]), ["Ω, one", "two"][number % 2]])
    return found


def write(path: Path, lines: list[list[str]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(lines)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> deltarule.Run:
    folder = tmp_path_factory.mktemp("trained")
    data = write(folder / "kinds.csv", [HEADER, *rows()])
    experiment = deltarule.load("params.yaml").override(
        {
            "data.source": str(data), "data.target": "kind", "data.columns": {"id": "ignore"}, "train.backend": "reference",
            "data.spellings": {"colour": {"bleu": "blue"}}, "train.epochs": 3, "model.hidden": [4], "validation.baselines": False,
        }
    )  # fmt: skip
    return deltarule.run(experiment, folder / "run", test=True)


@pytest.fixture
def model(trained) -> deltarule.Model:
    return deltarule.load_model(trained.folder)


def same(ours: list[dict[str, str]], theirs: list[dict[str, str]]) -> bool:
    """To the last bits of float32: a matrix product of fewer rows may add up in another order."""
    numbers = [np.array([[float(row[name]) for name in ("p_two", "p_Ω, one")] for row in rows]) for rows in (ours, theirs)]
    labels = [[row["predicted"] for row in rows] for rows in (ours, theirs)]
    return labels[0] == labels[1] and np.allclose(*numbers, rtol=1e-5, atol=1e-6)


def answer(model: deltarule.Model, data: Path, out: Path | None = None) -> tuple[list[dict[str, str]], list[str]]:
    out = out or data.with_name("answers.csv")
    told = [*predict(model, data, out).told()]
    with out.open(newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)], told


def test_rows_are_answered_as_the_stages_answered_them(trained, model, tmp_path):
    given, told = answer(model, write(tmp_path / "all.csv", [HEADER, *rows()]))
    assert not told and len(given) == 150
    for part in ("validate", "test"):
        with (trained.folder / "outputs" / part / "predictions.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                mine = given[int(row["row"])]
                assert same([mine], [row])


def test_labels_are_spelled_as_in_the_data(model, tmp_path):
    out = tmp_path / "answers.csv"
    given, _ = answer(model, write(tmp_path / "all.csv", [HEADER, *rows()]), out)
    assert {row["predicted"] for row in given} <= {"Ω, one", "two"}
    assert out.read_text(encoding="utf-8").splitlines()[0] == 'predicted,p_two,"p_Ω, one"'


def test_the_answers_do_not_depend_on_how_the_file_is_cut_or_packed(model, tmp_path, monkeypatch):
    lines = [HEADER, *rows()]
    whole, _ = answer(model, write(tmp_path / "all.csv", lines))
    monkeypatch.setattr(text, "BLOCK", 200)
    monkeypatch.setattr(data_rows, "ROWS", 7)
    assert same(answer(model, tmp_path / "all.csv")[0], whole)
    assert same(answer(model, write(tmp_path / "all.tsv", lines, "\t"))[0], whole)
    (tmp_path / "all.csv.gz").write_bytes(gzip.compress((tmp_path / "all.csv").read_bytes()))
    assert same(answer(model, tmp_path / "all.csv.gz")[0], whole)
    table = pandas.read_csv(tmp_path / "all.csv", dtype={"id": str})
    table.to_parquet(tmp_path / "all.parquet")
    assert same(answer(model, tmp_path / "all.parquet")[0], whole)


def test_parquet_out_holds_what_csv_out_does(model, tmp_path):
    data = write(tmp_path / "all.csv", [HEADER, *rows()])
    given, _ = answer(model, data)
    predict(model, data, tmp_path / "answers.parquet")
    table = pandas.read_parquet(tmp_path / "answers.parquet")
    assert list(table.predicted) == [row["predicted"] for row in given]
    assert table.p_two.tolist() == [float(row["p_two"]) for row in given]


def test_rows_given_in_python_are_read_as_those_of_a_file(model, tmp_path):
    data = write(tmp_path / "all.csv", [HEADER, *rows()])
    given, _ = answer(model, data)
    texts = pandas.read_csv(data, dtype=str, keep_default_na=False)
    typed = pandas.read_csv(data, parse_dates=["day"])
    for frame in (texts, typed, {name: texts[name].tolist() for name in HEADER}):
        assert np.allclose(model.answers(frame)["p_two"], [float(row["p_two"]) for row in given], rtol=0, atol=0)


def test_a_marker_that_is_a_number_means_no_value_as_a_number_too(tmp_path):
    lines = [["x", "late"], *([["-999"] if n % 9 == 3 else [f"{n}"]][0] + ["ny"[n % 2]] for n in range(60))]
    experiment = deltarule.load("params.yaml").override(
        {
            "data.source": str(write(tmp_path / "x.csv", lines)), "data.target": "late", "train.backend": "reference",
            "data.missing.markers": ["", "-999"], "train.epochs": 1, "model.hidden": [4], "validation.baselines": False,
        }
    )  # fmt: skip
    model = deltarule.run(experiment, tmp_path / "run").model
    inputs = model.inputs({"x": ["-999", "5"]})
    assert inputs[0, 1] == 1 and all(np.array_equal(model.inputs({"x": given}), inputs) for given in ([-999, 5], [None, 5.0]))


def test_predict_reads_rows_as_answers_does(model, tmp_path):
    """Markers, spellings and texts of the spec too."""
    texts = pandas.read_csv(write(tmp_path / "all.csv", [HEADER, *rows()]), dtype=str, keep_default_na=False)
    assert model.predict(texts).tolist() == model.answers(texts)["predicted"].tolist()
    assert np.array_equal(model.probabilities(texts)[:, list(model.classes).index("two")], model.answers(texts)["p_two"])


def test_days_come_first_where_they_did_in_the_training_rows(tmp_path, monkeypatch):
    """Also in rows, or a block of them, that leave it open."""
    lines = [["day", "late"], *([f"{1 + n % 28}/{1 + n % 3}/2024", "ny"[n % 3 > 1]] for n in range(60))]
    experiment = deltarule.load("params.yaml").override(
        {
            "data.source": str(write(tmp_path / "days.csv", lines)), "data.target": "late", "train.backend": "reference",
            "train.epochs": 1, "model.hidden": [4], "validation.baselines": False,
        }
    )  # fmt: skip
    model = deltarule.run(experiment, tmp_path / "run").model
    few = {"day": ["1/2/2024", "3/1/2024"]}
    assert np.array_equal(model.inputs(few), model.inputs({"day": ["2024-02-01", "2024-01-03"]}))
    monkeypatch.setattr(text, "BLOCK", 30)
    given, _ = answer(model, write(tmp_path / "few.csv", [["day"], *([day] for day in few["day"] * 9)]))
    assert [float(row["p_y"]) for row in given] == pytest.approx([*model.answers(few)["p_y"]] * 9)
    with pytest.raises(DataError, match=r"row 1: column 'day' must hold dates .* found '1/13/2024'"):
        model.predict({"day": ["1/13/2024"]})


def test_the_target_and_ignored_columns_need_not_be_there_and_may_come_in_any_order(model, tmp_path):
    whole, _ = answer(model, write(tmp_path / "all.csv", [HEADER, *rows()]))
    fewer = write(tmp_path / "fewer.csv", [[*line[1:5][::-1]] for line in [HEADER, *rows()]])
    given, told = answer(model, fewer)
    assert given == whole and not told


def test_what_the_training_rows_did_not_have_is_answered_and_told(model, tmp_path):
    lines = rows(20)
    lines[0][2], lines[1][2], lines[2][4] = "green", "purple", ""
    _, told = answer(model, write(tmp_path / "odd.csv", [[*HEADER, "more"], *([*line, "x"] for line in lines)]))
    assert told == [
        "columns that were no inputs, and were passed over: more",
        "column 'colour': 2 rows with a category that the training rows did not have, or too rarely for an input",
        "column 'fits': 1 rows without a value, which no training row lacked",
    ]


def test_kept_columns_stand_before_the_answers_as_they_are_in_the_file(model, tmp_path, monkeypatch):
    """Also an input, the target and what is ignored; block by block."""
    monkeypatch.setattr(text, "BLOCK", 200)
    lines = rows(30)
    lines[0][0], lines[1][0], lines[2][2] = "007", " 7", "a, b"
    data = write(tmp_path / "all.csv", [HEADER, *lines])
    whole, _ = answer(model, data)
    keep = ["id", "colour", "kind", "id"]
    told = [*predict(model, data, tmp_path / "kept.csv", keep=keep).told()]
    with (tmp_path / "kept.csv").open(newline="", encoding="utf-8") as file:
        header, *found = csv.reader(file)
    assert header == ["id", "colour", "kind", *whole[0]]
    assert [row[:3] for row in found] == [[line[0], line[2], line[5]] for line in lines]
    assert [row[3:] for row in found] == [[*row.values()] for row in whole]
    assert not [one for one in told if "passed over" in one]


def test_kept_columns_of_parquet_keep_their_types(model, tmp_path):
    table = pandas.read_csv(write(tmp_path / "all.csv", [HEADER, *rows(20)]), dtype={"id": str})
    table["count"] = pandas.array([None, *range(1, 20)], dtype="Int64")
    table["when"] = pandas.to_datetime(table.day)
    table.to_parquet(tmp_path / "all.parquet")
    for ending in ("csv", "parquet"):
        predict(model, tmp_path / "all.parquet", tmp_path / f"kept.{ending}", keep=["count", "when", "id"])
    assert (tmp_path / "kept.csv").read_text().splitlines()[2].startswith("1,2024-02-02 00:00:00,00001,")
    found = pandas.read_parquet(tmp_path / "kept.parquet")
    assert list(found.columns[:4]) == ["count", "when", "id", "predicted"]
    assert found.when.equals(table.when) and found["count"].dropna().tolist() == [*range(1, 20)]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (["kinds"], r"all.csv: --keep must name a column of the file, found no 'kinds'; did you mean kind\?"),
        (["p_two"], "--keep must not name a column that the answers have too, got 'p_two'; leave it out"),
    ],
)
def test_a_column_that_cannot_be_kept_is_one_error_and_nothing_is_left(model, tmp_path, keep, message):
    data = write(tmp_path / "all.csv", [HEADER, *rows(20)])
    with pytest.raises(DataError, match=message):
        predict(model, data, tmp_path / "kept.csv", keep=keep)
    assert [path.name for path in tmp_path.iterdir()] == ["all.csv"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[0].__setitem__(3, "Size"), "found no 'size'; did you mean Size"),
        (lambda lines: lines[9].__setitem__(3, "big"), r"bad.csv:10: column 'size' must hold finite numbers, found 'big'"),
        (lambda lines: lines[9].__setitem__(1, "May"), r"bad.csv:10: column 'day' must hold dates"),
        (lambda lines: lines[9].append("more"), r"bad.csv:10: every row must have 6 cells"),
        (lambda lines: lines.__delitem__(slice(1, None)), "the file has no rows"),
        (lambda lines: lines[0].__setitem__(5, "size"), "differ"),
    ],
)
def test_what_cannot_be_answered_is_told_with_its_place_and_nothing_is_left(model, tmp_path, change, message, monkeypatch):
    monkeypatch.setattr(text, "BLOCK", 200)
    lines = [list(HEADER), *rows(30)]
    change(lines)
    with pytest.raises(DataError, match=message):
        answer(model, write(tmp_path / "bad.csv", lines))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_a_regression_answers_in_the_targets_own_units(tmp_path):
    lines = [["x", "size, cm"], *([f"{n}", f"{1000 + 2.5 * n}"] for n in range(80))]
    data = write(tmp_path / "sizes.csv", lines)
    experiment = deltarule.load("params.yaml").override(
        {
            "data.source": str(data),
            "data.target": "size, cm",
            "train.backend": "reference",
            "train.epochs": 1,
            "model.hidden": [4],
        }
    )
    run = deltarule.run(experiment, tmp_path / "run")
    given, _ = answer(run.model, data)
    assert [float(row["predicted_size, cm"]) for row in given] == run.model.predict({"x": [*range(80)]}).tolist()
    assert all(900 < float(row["predicted_size, cm"]) < 1200 for row in given)


def test_of_folds_the_mean_is_answered(tmp_path):
    data = write(tmp_path / "kinds.csv", [HEADER, *rows()])
    experiment = deltarule.load("params.yaml").override(
        {
            "data.source": str(data), "data.target": "kind", "data.columns": {"id": "ignore"}, "train.backend": "reference",
            "data.split.folds": 2, "train.epochs": 2, "model.hidden": [4], "validation.baselines": False,
        }
    )  # fmt: skip
    deltarule.run(experiment, tmp_path / "run")
    model = deltarule.load_model(tmp_path / "run")
    given, _ = answer(model, data)
    each = [fold.answers(pandas.read_csv(data, dtype=str, keep_default_na=False))["p_two"] for fold in model.folds]
    assert len(each) == 2 and np.allclose([float(row["p_two"]) for row in given], np.mean(each, axis=0), rtol=1e-6, atol=1e-9)
    assert [row["predicted"] for row in given] == model.answers(pandas.read_csv(data, dtype=str))["predicted"].tolist()


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(StageError, match="must be the folder of a run"):
        deltarule.load_model(tmp_path / "nowhere")
    with pytest.raises(StageError, match=r"outputs/data/about\.json is missing"):
        deltarule.load_model(tmp_path)


def test_the_rows_are_not_overwritten_with_the_answers(model, tmp_path):
    file = write(tmp_path / "all.csv", [HEADER, *rows()])
    before = file.read_bytes()
    with pytest.raises(DataError, match="--out must be another file than the rows'"):
        predict(model, file, file)
    assert file.read_bytes() == before


def test_files_that_do_not_belong_together_are_refused(trained, tmp_path):
    import shutil

    folder = shutil.copytree(trained.folder, tmp_path / "run")
    about = folder / "outputs/data/about.json"
    write_json(about, {**read_json(about), "sha256": {"train": "0", "valid": "0", "test": "0"}})
    with pytest.raises(StageError, match="of other data"):
        deltarule.load_model(folder)


def test_a_network_for_another_program_is_refused_with_a_way_out(tmp_path):
    (tmp_path / "network.onnx").touch()
    with pytest.raises(StageError, match=r"without the preprocessing; give the folder of its run, or an export with --format"):
        deltarule.load_model(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # about type hints in MLflow's own modules
def test_an_exported_model_takes_raw_rows_and_says_what_is_wrong_with_them(trained, model, tmp_path, monkeypatch):
    import mlflow

    from pipelines.export import export

    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    export(trained.folder, tmp_path / "exported")
    served = mlflow.pyfunc.load_model(str(tmp_path / "exported"))
    texts = pandas.read_csv(write(tmp_path / "all.csv", [HEADER, *rows()]), dtype={"id": str})
    answers = served.predict(texts)
    assert answers.equals(pandas.DataFrame(model.answers(texts)))
    texts.loc[3, "day"] = "May"
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"row 4: column 'day' must hold dates .* found 'May'"):
        served.predict(texts)
    with pytest.raises(StageError, match="must not be there yet"):
        export(trained.folder, tmp_path / "exported")
