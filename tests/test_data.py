"""From a source to three parts: what is read, what is refused and with which words, who sees which rows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines.data import About, DataError, Part, Table, prepare, read
from pipelines.data.preprocess import Preprocessing, fit_preprocessing, fit_target_scale
from pipelines.data.split import PARTS, share_out, split
from pipelines.data.tasks import detect, find_target
from pipelines.spec import DataSpec


def spec(**changes):
    return DataSpec.model_validate({"source": "t.csv", "target": "y", **changes})


def table(y, X=None, names=("y",)):
    y = np.asarray(y)
    y = y.reshape(len(y), -1)
    X = np.arange(2.0 * len(y)).reshape(-1, 2) ** 1.5 if X is None else np.asarray(X, dtype=float)
    features = tuple(f"x{i}" for i in range(X.shape[1]))
    return Table("t.csv", features, X, names, y if y.dtype.kind == "U" else y.astype(float))


@pytest.fixture
def written(tmp_path):
    """Write t.csv and read it."""

    def write(content, target="y"):
        (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        return read("t.csv", target, tmp_path)

    return write


# Sources ---------------------------------------------------------------------------------------------------------------

BUNDLED = {
    "digits": ("multiclass", 64, 10),
    "breast_cancer": ("binary", 30, 1),
    "wine": ("multiclass", 13, 3),
    "iris": ("multiclass", 4, 3),
    "diabetes": ("regression", 10, 1),
    "linnerud": ("regression", 3, 3),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_set_is_known_for_its_task(name):
    found = read(name)
    target = find_target(found, "auto")
    assert (target.task, len(found.features), target.outputs) == BUNDLED[name]


def test_names_of_classes_and_features_are_kept_and_classes_are_sorted():
    found = read("breast_cancer")
    assert found.features[0] == "mean radius"
    assert find_target(found, "auto").classes == ("benign", "malignant")
    assert find_target(read("digits"), "auto").classes == tuple("0123456789")
    assert read("linnerud").names == ("Weight", "Waist", "Pulse")


def test_a_csv_file_gives_its_numbers(written):
    found = written('a,y,b\n1,0.5,-2e3\n"4",6,.25\n')
    assert found.features == ("a", "b")
    np.testing.assert_array_equal(found.X, [[1, -2000], [4, 0.25]])
    np.testing.assert_array_equal(found.targets, [[0.5], [6]])


def test_a_csv_file_may_have_a_byte_order_mark_crlf_blank_lines_and_words_as_target(written):
    found = written(b"\xef\xbb\xbfa,y\r\n1,no\r\n\r\n2, yes\r\n")
    assert found.features == ("a",)
    assert found.targets.ravel().tolist() == ["no", "yes"]


def test_several_targets_come_in_the_order_asked_for(written):
    found = written("a,u,v\n1,2,3\n4,5,7\n", target=("v", "u"))
    np.testing.assert_array_equal(found.targets, [[3, 2], [7, 5]])


BAD_CSV = {
    "a word": ("a,y\n1,2\nx,3\n", "t.csv:3: column 'a' must hold a finite number, found 'x'"),
    "an empty cell": ("a,y\n1,2\n,3\n", "t.csv:3: column 'a' must hold a finite number, found an empty cell"),
    "nan": ("a,y\n1,2\nnan,3\n", "t.csv:3: column 'a' must hold a finite number, found 'nan'"),
    "inf": ("a,y\n1,2\n-inf,3\n", "t.csv:3: column 'a' must hold a finite number, found '-inf'"),
    "overflow": ("a,y\n1e999,2\n2,3\n", "t.csv:2: column 'a' must hold a finite number, found '1e999'"),
    "underscores": ("a,y\n1_0,2\n2,3\n", "t.csv:2: column 'a' must hold a finite number, found '1_0'"),
    "NA": ("a,y\n1,2\nNA,3\n", "t.csv:3: column 'a' must hold a finite number, found 'NA'"),
    "an empty target": ("a,y\n1,2\n2,\n", "t.csv:3: column 'y' must hold a finite number, found an empty cell"),
    "an empty label": ("a,y\n1,p\n2, \n", "t.csv:3: column 'y' must hold a finite number, found an empty cell"),
    "a nan target": ("a,y\n1,2\n2,nan\n", "t.csv:3: column 'y' must hold a finite number, found 'nan'"),
    "a row too short": ("a,b,y\n1,2,3\n1,2\n", "t.csv:3: every row must have 3 cells as the header has, found 2"),
    "a row too long": ("a,y\n1,2\n\n1,2,3\n", "t.csv:4: every row must have 2 cells as the header has, found 3"),
    "names twice": ("a,a,y\n1,2,3\n", "t.csv: column names must differ, found 'a' more than once"),
    "no target": ("a,b\n1,2\n", "t.csv: data.target must name columns of the file, each once, got 'y'; the columns are: a, b"),
    "empty": ("", "t.csv: the file must have a header and rows, found an empty file"),
    "blank": ("\n\n", "t.csv: the file must have a header and rows, found an empty file"),
    "header only": ("a,y\n", "t.csv: there must be rows, found none below the header"),
    "target only": ("y\n1\n", "t.csv: there must be a column beside the target, found none"),
    "latin-1": ("a,y\n1,\xe9\n".encode("latin-1"), "t.csv: the text must be UTF-8, found 0xe9 at byte 6"),
    "NUL": (b"a,y\n1\x00,2\n", "t.csv:2: column 'a' must hold a finite number, found '1\\x00'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_csv_file_that_is_not_all_numbers_is_refused_with_its_place(written, case):
    content, message = BAD_CSV[case]
    with pytest.raises(DataError) as caught:
        written(content)
    assert str(caught.value) == message


def test_several_targets_must_be_numbers(written):
    with pytest.raises(DataError, match="several targets must be numbers"):
        written("a,u,v\n1,2,x\n", target=("u", "v"))


def write_parquet(path, **columns):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)


def test_a_parquet_file_gives_its_numbers_and_words(tmp_path):
    write_parquet(tmp_path / "t.parquet", a=[1, 2], b=[0.5, -1.0], y=["no", "yes"])
    found = read("t.parquet", "y", tmp_path)
    np.testing.assert_array_equal(found.X, [[1, 0.5], [2, -1]])
    assert found.targets.ravel().tolist() == ["no", "yes"]


BAD_PARQUET = {
    "a missing value": ({"a": [1.0, None], "y": [1, 2]}, "column 'a' must have a value in every row, found none in row 2"),
    "a missing label": ({"a": [1.0, 2], "y": ["p", None]}, "column 'y' must have a value in every row, found none in row 2"),
    "words": ({"a": ["p", "q"], "y": [1, 2]}, "column 'a' must hold numbers, found string"),
    "nan": ({"a": [1.0, float("nan")], "y": [1, 2]}, "column 'a' must hold finite numbers, found nan in row 2"),
    "no target": ({"a": [1.0], "b": [2]}, "got 'y'; the columns are: a, b"),
}


@pytest.mark.parametrize("case", BAD_PARQUET)
def test_a_parquet_file_that_is_not_all_numbers_is_refused_with_its_place(tmp_path, case):
    columns, message = BAD_PARQUET[case]
    write_parquet(tmp_path / "t.parquet", **columns)
    with pytest.raises(DataError, match=message):
        read("t.parquet", "y", tmp_path)


def test_what_is_no_parquet_file_is_refused(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"a,y\n1,2\n")
    with pytest.raises(DataError, match="must be a Parquet file"):
        read("t.parquet", "y", tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"found none at 'missing\.csv'"):
        read("missing.csv", "y", tmp_path)
    with pytest.raises(DataError, match="did you mean digits"):
        read("digit", None, tmp_path)


# Tasks -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([0, 1] * 5, "binary"),
        ([1, 2, 3] * 5, "multiclass"),
        (list(range(20)) * 2, "multiclass"),
        (list(range(21)) * 2, "regression"),
        ([1, 2, 3], "regression"),
        ([0.5, 1, 2] * 5, "regression"),
        (["p", "q"] * 5, "binary"),
        (["p", "q", "r"], "multiclass"),
    ],
)
def test_the_task_is_found_from_the_targets_values(values, task):
    assert detect(table(values)) == task


def test_the_second_class_in_order_is_the_positive_one():
    target = find_target(table([7, 3, 7, 10, 3, 10] * 2), "multiclass")
    assert target.classes == ("3", "7", "10")  # as numbers, not as text
    assert target.y.tolist() == [1, 0, 1, 2, 0, 2] * 2
    assert find_target(table(["q", "p", "q"]), "binary").y.tolist() == [1, 0, 1]


BAD_TARGETS = {
    "constant": ([3] * 9, "auto", "target 'y' must take more than one value, found 3"),
    "one class": (["p"] * 9, "auto", "target 'y' must take more than one value, found p"),
    "words for regression": (["1", "p", "q"], "regression", "must hold numbers for regression, found 'p' in row 2"),
    "two values for regression": ([0, 1] * 9, "regression", "must take more than two values for regression, found only 0, 1"),
    "numbers for classes": (np.linspace(0, 1, 60), "multiclass", r"looks like a regression target \(60 different numbers"),
    "three for binary": ([0, 1, 2] * 9, "binary", "must have two classes for a binary task, found 3: 0, 1, 2"),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_a_target_that_does_not_suit_its_task_is_refused(case):
    values, task, message = BAD_TARGETS[case]
    with pytest.raises(DataError, match=message):
        find_target(table(values), task)


def test_classes_with_several_targets_are_refused():
    with pytest.raises(DataError, match="a binary task must have one target, got u, v"):
        find_target(table([[0, 1], [1, 0], [1, 1]], names=("u", "v")), "binary")


# Split -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [3, 4, 20, 1797])
@pytest.mark.parametrize("strata", [False, True])
def test_every_row_is_in_exactly_one_part(rows, strata):
    groups = np.zeros(rows, dtype=int) if strata else None
    parts = split(rows, (0.6, 0.2, 0.2), 0, groups)
    assert sorted(np.concatenate([parts[name] for name in PARTS])) == list(range(rows))


def test_a_split_is_a_function_of_its_seed_alone():
    one, again, other = (split(100, (0.6, 0.2, 0.2), seed) for seed in (5, 5, 6))
    assert all((one[name] == again[name]).all() for name in PARTS)
    assert set(one["test"]) != set(other["test"])


def test_the_split_is_part_of_the_format():
    parts = split(10, (0.6, 0.2, 0.2), 0)
    assert [parts[name].tolist() for name in PARTS] == [[3, 4, 9, 0, 6, 1], [8, 7], [2, 5]]


def test_a_stratified_split_keeps_the_shares_of_the_classes_and_of_the_parts():
    y = np.repeat(np.arange(10), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    parts = split(len(y), (0.7, 0.15, 0.15), 3, y)
    for name, fraction in zip(PARTS, (0.7, 0.15, 0.15), strict=True):
        assert abs(len(parts[name]) - fraction * len(y)) <= 1
        assert (abs(np.bincount(y[parts[name]]) - fraction * np.bincount(y)) < 1.5).all()


def test_rows_of_a_class_do_not_stand_together():
    y = np.repeat(np.arange(3), 40)
    first = y[split(120, (0.6, 0.2, 0.2), 0, y)["train"]][:24]
    assert len(set(first.tolist())) == 3


def test_a_class_with_three_rows_is_in_every_part():
    assert share_out(np.array([3, 200]), (0.8, 0.1, 0.1))[0].tolist() == [1, 1, 1]


def test_each_row_is_as_likely_to_be_a_test_row():
    counts = np.zeros(20)
    for seed in range(2000):
        counts[split(20, (0.6, 0.2, 0.2), seed)["test"]] += 1
    expected = 2000 * 4 / 20
    chi2 = ((counts - expected) ** 2 / (expected * 0.8)).sum() * 19 / 20
    assert chi2 < 43.8  # 99.9 % quantile at 19 degrees of freedom


def test_fewer_rows_than_parts_are_refused():
    with pytest.raises(DataError, match="each of the 3 parts needs a row, got 2 in all"):
        prepare(table(["p", "q"]), spec(split={"stratify": False}))


def test_a_class_that_is_too_small_to_be_shared_out_is_named():
    words = np.array(["p"] * 20 + ["q"] * 2)
    with pytest.raises(DataError, match="at least 3 rows for a stratified split, one a part, but class 'q' has 2"):
        prepare(table(words), spec())


def test_a_class_without_training_rows_is_named():
    words = np.array(["p"] * 30 + ["q"])
    messages = set()
    for seed in range(20):
        try:
            prepare(table(words), spec(split={"stratify": False, "seed": seed}))
        except DataError as error:
            messages.add(str(error))
    assert len(messages) == 1
    assert "every class must have training rows, but class 'q' has none" in messages.pop()


def test_a_stratified_regression_is_refused():
    with pytest.raises(DataError, match="must be auto or false for a regression target"):
        prepare(table(np.arange(30) * 1.5), spec(split={"stratify": True}))


# Preprocessing ---------------------------------------------------------------------------------------------------------

SCALINGS = ("none", "standardize", "minmax", "quantile")
FEATURES = tuple("abc")


def rows(seed=0, n=200):
    rng = np.random.default_rng(seed)
    return np.stack([rng.normal(5, 3, n), rng.exponential(2, n) ** 2, np.full(n, 4.0)], axis=1)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_only_training_rows_are_learned_from(scaling):
    X = np.random.default_rng(1).normal(size=(60, 2))
    y = np.arange(60) * 1.5
    one = prepare(table(y, X), spec(scaling=scaling))
    changed = X.copy()
    for part in ("valid", "test"):
        changed[one.parts[part].rows] += 1000
    two = prepare(table(y, changed), spec(scaling=scaling))
    assert one.preprocessing == two.preprocessing
    np.testing.assert_array_equal(one.parts["train"].X, two.parts["train"].X)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_preprocessing_goes_through_json_to_the_last_bit(scaling):
    fitted = fit_preprocessing(scaling, rows(), FEATURES)
    kept = Preprocessing.from_json(json.loads(json.dumps(fitted.as_json())))
    np.testing.assert_array_equal(kept.apply(rows(1)), fitted.apply(rows(1)))


def test_standardize_and_minmax_are_scikit_learns():
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    for scaling, theirs in (("standardize", StandardScaler()), ("minmax", MinMaxScaler())):
        ours = fit_preprocessing(scaling, rows(), FEATURES).apply(rows(1))
        np.testing.assert_array_equal(ours, theirs.fit(rows()).transform(rows(1)))


@pytest.mark.parametrize("scaling", ["standardize", "minmax", "quantile"])
def test_a_constant_column_becomes_0(scaling):
    assert (fit_preprocessing(scaling, rows(), FEATURES).apply(rows())[:, 2] == 0).all()


def test_a_column_that_was_constant_says_nothing_when_it_is_not():
    assert (fit_preprocessing("quantile", rows(), FEATURES).apply(rows() + 1)[:, 2] == 0).all()


def test_the_quantile_transform_makes_a_column_normal():
    from scipy.stats import kstest

    X = fit_preprocessing("quantile", rows(n=3000), FEATURES).apply(rows(n=3000))
    assert kstest(X[:, 1], "norm").statistic < 0.01
    assert abs(X).max() < 3.6  # ±z(1/2n), not scikit-learn's ±5.2


def test_values_that_tie_take_the_middle_of_their_places():
    column = np.array([0.0] * 60 + list(range(1, 41)))[:, None]  # the middle of the lowest 60 % is 30 %
    X = fit_preprocessing("quantile", column, ("a",)).apply(column)
    assert X[0, 0] == pytest.approx(-0.5244, abs=0.03)


def test_the_quantile_transform_uses_all_rows_and_nothing_random():
    many = np.random.default_rng(0).normal(size=(30_000, 1))
    one, again = (fit_preprocessing("quantile", many, ("a",)) for _ in range(2))
    assert one == again
    middle = np.array(one.numbers["quantiles"])[[250, 500, 750], 0]
    np.testing.assert_allclose(middle, np.percentile(many, [250 / 9.99, 500 / 9.99, 750 / 9.99]), atol=1e-12)


def test_a_target_is_standardised_and_brought_back():
    y = np.array([[1.0, 10], [2, 30], [6, 20]])
    scale = fit_target_scale(y, True)
    np.testing.assert_allclose(scale.apply(y).mean(0), 0, atol=1e-15)
    np.testing.assert_allclose(scale.apply(y).std(0), 1)
    np.testing.assert_allclose(scale.undo(scale.apply(y)), y, rtol=1e-15)
    np.testing.assert_array_equal(fit_target_scale(y, False).apply(y), y)


def test_target_statistics_come_from_training_rows():
    y = np.arange(60) ** 2.0
    done = prepare(table(y), spec())
    train = done.parts["train"]
    assert done.target_scale.mean == (pytest.approx(y[train.rows].mean()),)
    np.testing.assert_allclose(done.target_scale.undo(done.parts["test"].y)[:, 0], y[done.parts["test"].rows])


@pytest.mark.parametrize("scaling", SCALINGS)
def test_values_that_overflow_are_refused_with_their_column(scaling):
    X = np.random.default_rng(0).normal(size=(40, 2))
    X[:, 1] *= 1e300
    if scaling == "quantile":  # places in order, however far apart
        assert np.isfinite(prepare(table(np.arange(40) * 1.5, X), spec(scaling=scaling)).parts["train"].X).all()
        return
    if scaling == "minmax":
        X[:, 1] = np.where(X[:, 1] > 0, 1.7e308, -1.7e308)
    with pytest.raises(DataError, match="column 'x1'"):
        prepare(table(np.arange(40) * 1.5, X), spec(scaling=scaling))


# Parts on disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUNDLED)
def test_parts_and_what_is_known_of_them_come_back_from_disk(tmp_path, name):
    done = prepare(read(name), DataSpec(source=name))
    about = done.save(tmp_path)
    assert About.load(tmp_path / "about.json") == about
    for part in PARTS:
        again = Part.load(tmp_path / part)
        assert all((getattr(again, a) == getattr(done.parts[part], a)).all() for a in ("X", "y", "rows"))
        assert about.rows[part] == len(again.rows)
        assert about.task == "regression" or sum(about.class_counts[part].values()) == len(again.rows)


def test_the_same_spec_gives_the_same_bytes(tmp_path):
    for place in "ab":
        prepare(read("iris"), DataSpec(source="iris", scaling="quantile")).save(tmp_path / place)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 10
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
