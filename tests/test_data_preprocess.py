"""From columns to inputs: what is learned from training rows, what becomes of gaps and categories, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sources import column, source

from pipelines.cli.run import data_lines
from pipelines.data import About, Column, DataError, prepare
from pipelines.data.preprocess import Categorical, CellError, Flag, fit, fit_scale, fit_target_scale, scaled
from pipelines.data.rows import given
from pipelines.spec import DataSpec
from pipelines.stages.split import report_of

SCALINGS = ("none", "standardize", "minmax", "quantile")
ROWS = 60


def spec(**changes):
    return DataSpec.model_validate({"source": "t.csv", "target": "y", **changes})


def encoded(values, kind="numeric", train=None, **changes):
    """Names of the inputs of a column that was fitted on `train`, and the inputs of `values`, (n, inputs)."""
    fitted = fit("c", kind, column(values if train is None else train), spec(**changes))
    return fitted.encoder.inputs, np.stack(list(fitted.encoder.encode(column(values))), axis=1)


def untidy(seed=0, rows=ROWS):
    """Every kind of column, with gaps."""
    rng = np.random.default_rng(seed)
    age = rng.normal(40, 9, rows)
    age[::7] = np.nan
    colour = [None if i % 11 == 0 else ("red", "green", "blue")[i % 3] for i in range(rows)]
    smoker = np.where(np.arange(rows) % 13 == 5, np.nan, rng.integers(0, 2, rows))
    day = Column(19000 + rng.integers(0, 400, rows).astype(float))
    ids = [f"{i:04}" for i in range(rows)]
    columns = {"id": ids, "age": age, "colour": colour, "smoker": smoker, "day": day, "y": rng.normal(size=rows)}
    return source(columns, kinds={"id": "ignore", "smoker": "boolean", "day": "datetime"})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


def made(table, folder, **changes):
    """What is known of it, and its parts."""
    about = prepare(table, spec(**changes), folder)
    return about, {name: about.open(folder, name) for name in about.rows}


# Scaling ---------------------------------------------------------------------------------------------------------------


def numbers(seed=0, n=200):
    rng = np.random.default_rng(seed)
    return np.stack([rng.normal(5, 3, n), rng.exponential(2, n) ** 2, np.full(n, 4.0)])


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_scale_goes_through_json_to_the_last_bit(scaling):
    for x, other in zip(numbers(), numbers(1), strict=True):
        fitted = fit_scale(scaling, x)
        kept = json.loads(json.dumps(fitted))
        np.testing.assert_array_equal(scaled(scaling, kept, other), scaled(scaling, fitted, other))


def test_standardize_and_minmax_are_scikit_learns():
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    for scaling, theirs in (("standardize", StandardScaler()), ("minmax", MinMaxScaler())):
        for x, other in zip(numbers(), numbers(1), strict=True):
            wanted = theirs.fit(x[:, None]).transform(other[:, None])[:, 0]
            np.testing.assert_array_equal(scaled(scaling, fit_scale(scaling, x), other), wanted)


@pytest.mark.parametrize("scaling", ["standardize", "minmax", "quantile"])
def test_a_constant_column_becomes_0(scaling):
    assert (scaled(scaling, fit_scale(scaling, np.full(9, 4.0)), np.full(9, 4.0)) == 0).all()


def test_a_column_that_was_constant_says_nothing_when_it_is_not():
    assert (scaled("quantile", fit_scale("quantile", np.full(9, 4.0)), np.arange(9.0)) == 0).all()


def test_the_quantile_transform_makes_a_column_normal():
    from scipy.stats import kstest

    x = numbers(n=3000)[1]
    normal = scaled("quantile", fit_scale("quantile", x), x)
    assert kstest(normal, "norm").statistic < 0.01
    assert abs(normal).max() < 3.6  # ±z(1/2n), not scikit-learn's ±5.2


def test_values_that_tie_take_the_middle_of_their_places():
    x = np.array([0.0] * 60 + list(range(1, 41)))  # the middle of the lowest 60 % is 30 %
    assert scaled("quantile", fit_scale("quantile", x), x)[0] == pytest.approx(-0.5244, abs=0.03)


def test_the_quantile_transform_uses_all_rows_and_nothing_random():
    many = np.random.default_rng(0).normal(size=30_000)
    one, again = (fit_scale("quantile", many) for _ in range(2))
    assert one == again
    middle = np.array(one["quantiles"])[[250, 500, 750]]
    np.testing.assert_allclose(middle, np.percentile(many, [250 / 9.99, 500 / 9.99, 750 / 9.99]), atol=1e-12)


def test_a_target_is_standardised_and_brought_back():
    y = np.array([[1.0, 10], [2, 30], [6, 20]])
    scale = fit_target_scale(y, True)
    np.testing.assert_allclose(scale.apply(y).mean(0), 0, atol=1e-15)
    np.testing.assert_allclose(scale.apply(y).std(0), 1)
    np.testing.assert_allclose(scale.undo(scale.apply(y)), y, rtol=1e-15)
    np.testing.assert_array_equal(fit_target_scale(y, False).apply(y), y)


# Numbers and dates -----------------------------------------------------------------------------------------------------


def test_gaps_take_the_median_of_the_training_rows_before_scaling_and_are_marked():
    names, X = encoded([None, 1, 4], train=[1, 2, 9, None], scaling="none")
    assert names == ("c", "c missing")
    np.testing.assert_array_equal(X, [[2, 1], [1, 0], [4, 0]])
    _, scaled = encoded([None, 1, 4], train=[1, 2, 9, None])
    assert scaled[0, 0] == pytest.approx((2 - 3.5) / np.std([1, 2, 9, 2])) and (scaled[:, 1] == [1, 0, 0]).all()


def test_gaps_take_a_number_and_no_mark_where_the_spec_says_so():
    names, X = encoded([None, 1.0], train=[1, None], scaling="none", missing={"numeric": -1, "indicator": False})
    assert names == ("c",) and X.ravel().tolist() == [-1, 1]


def test_a_column_without_gaps_in_training_has_no_mark_and_fills_later_gaps():
    names, X = encoded([None, 1.0], train=[1, 5, 7], scaling="none")
    assert names == ("c",) and X.ravel().tolist() == [5, 1]


def test_dates_are_numbers_of_days():
    names, X = encoded([None, 19000.0], kind="datetime", train=[19000.0, 19010, 19020], scaling="minmax")
    assert names == ("c",) and X.ravel().tolist() == [0.5, 0]


# Categories ------------------------------------------------------------------------------------------------------------


def test_a_category_is_an_input():
    names, X = encoded(["red", "blue", "red"], "categorical")
    assert names == ("c=blue", "c=red")
    np.testing.assert_array_equal(X, [[0, 1], [1, 0], [0, 1]])


def test_rare_categories_share_an_input_and_so_do_unseen_ones():
    train = ["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d"]
    for limit in ({"most": 2}, {"least_rows": 4}):
        names, X = encoded(["a", "c", "d", "new", "b"], "categorical", train, categories=limit)
        assert names == ("c=a", "c=b", "c infrequent")
        np.testing.assert_array_equal(X, [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 0]])


def test_an_unseen_category_is_all_zeros_where_no_training_row_is_rare():
    names, X = encoded(["a", "new", None], "categorical", ["a", "b"])
    assert names == ("c=a", "c=b")
    np.testing.assert_array_equal(X, [[1, 0], [0, 0], [0, 0]])


def test_the_most_frequent_categories_have_inputs_wherever_they_stand():
    assert encoded(["a", "b", "b", "c", "d", "d"], "categorical", categories={"most": 2})[0] == ("c=b", "c=d", "c infrequent")


def test_of_equally_frequent_categories_the_first_have_inputs():
    assert encoded(["a", "b", "c"], "categorical", categories={"most": 2})[0] == ("c=a", "c=b", "c infrequent")


def test_a_missing_category_is_one_of_its_own():
    names, X = encoded(["a", None, "b"], "categorical")
    assert names == ("c=a", "c=b", "c missing")
    np.testing.assert_array_equal(X, [[1, 0, 0], [0, 0, 1], [0, 1, 0]])


def test_a_boolean_is_one_input_and_its_gaps_another():
    assert encoded([1.0, 0, 1], "boolean")[0] == ("c",)
    names, X = encoded([1.0, None, 0], "boolean")
    assert names == ("c", "c missing")
    np.testing.assert_array_equal(X, [[1, 0], [0, 1], [0, 0]])


def test_fifty_thousand_categories_are_bounded():
    words = [f"w{i:05}" for i in range(50_000)] + ["w00007"] * 3
    names, X = encoded(words[-10:], "categorical", words)
    assert len(names) == 51 and "c=w00007" in names and names[-1] == "c infrequent"
    assert (X.sum(1) == 1).all()


def test_values_that_no_training_row_has_are_counted():
    fitted = fit("c", "categorical", column(["a", "b", "b"]), spec(categories={"most": 2}))
    assert fitted.count_unseen(column(["a", "b", "b"])) == 0
    # The categories of a source are those of all its rows.
    train = Column(np.array([0, 1, 1], dtype=np.int32), ("a", "b", "new"))
    fitted = fit("c", "categorical", train, spec())
    assert fitted.count_unseen(Column(np.array([2, 2, -1, 0], dtype=np.int32), train.categories)) == 3
    assert fit("c", "boolean", column([0.0, 1]), spec()).count_unseen(column([1.0, None])) == 1


# The whole -------------------------------------------------------------------------------------------------------------


def test_every_kind_of_column_becomes_inputs_in_the_order_of_the_file(folder):
    about, parts = made(untidy(), folder)
    assert about.inputs == (
        "age", "age missing", "colour=blue", "colour=green", "colour=red", "colour missing", "smoker", "smoker missing", "day",
    )  # fmt: skip
    assert about.columns == ("age", "colour", "smoker", "day") and about.left_out == ("id", "y")
    for part in parts.values():
        assert part.X.dtype == np.float32 and part.X.shape == (len(part.rows), 9) and np.isfinite(part.X).all()
    assert sum(about.missing[part]["age"] for part in parts) == len(range(0, ROWS, 7))


def test_what_is_kept_treats_raw_rows_as_the_parts_were_treated(folder):
    about, parts = made(untidy(), folder, scaling="quantile")
    kept = About.load(folder / "about.json").preprocessing
    assert kept == about.preprocessing
    X = kept.apply(untidy())
    for part in parts.values():
        np.testing.assert_array_equal(X[part.rows], part.X)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_only_training_rows_are_learned_from(folder, tmp_path, scaling):
    table, changed = untidy(), untidy()
    about, parts = made(table, folder, scaling=scaling)
    age, colour = changed.fetch("age").values, changed.fetch("colour").values
    for part in ("valid", "test"):
        age[parts[part].rows] += 1000
        colour[parts[part].rows] = 0
    other, again = made(changed, tmp_path / "other", scaling=scaling)
    assert other.preprocessing == about.preprocessing
    np.testing.assert_array_equal(again["train"].X, parts["train"].X)


def test_target_statistics_come_from_training_rows(folder):
    y = np.arange(60) ** 2.0
    about, parts = made(source({"a": np.arange(60.0), "y": y}), folder)
    assert about.target_scale.mean == (pytest.approx(y[parts["train"].rows].mean()),)
    np.testing.assert_allclose(about.target_scale.undo(parts["test"].y)[:, 0], y[parts["test"].rows])


def test_unseen_values_are_counted_by_part_and_column(folder):
    words = ["a"] * 20 + ["new", "b", "new", "b", None]
    part = [0] * 20 + [1] * 2 + [2] * 3
    table = source({"w": words, "x": np.arange(25.0), "y": np.arange(25.0)}, part=part)
    about, parts = made(table, folder)
    assert about.unseen == {"train": {}, "valid": {"w": 2}, "test": {"w": 3}}
    assert about.missing["test"] == {"w": 1}
    assert (parts["test"].X[:, 0] == 0).all()


def test_rare_categories_are_counted_by_column(folder):
    words = [f"c{n // 2:05}" for n in range(400)]
    about, parts = made(
        source({"a": words, "b": np.arange(400.0), "y": np.arange(400) % 2 * 1.0}), folder, categories={"most": 3}
    )
    categories, rows = about.rare["a"]
    trained = [words[row] for row in parts["train"].rows]
    own = {name.removeprefix("a=") for name in about.inputs if name.startswith("a=")}
    assert (len(own), categories) == (3, len({*trained} - own))
    assert rows == sum(word not in own for word in trained)
    assert About.load(folder / "about.json") == about
    line = next(line for line in data_lines(report_of(about, {})) if "rare" in line)
    assert line == f"rare categories, which share an input (data.categories): a {categories} in {rows} training rows"
    assert made(untidy(), folder / "other")[0].rare == {}


def test_columns_that_say_who_is_in_which_part_are_no_inputs(folder):
    who = [f"p{i % 6}" for i in range(60)]
    about, _ = made(source({"a": np.arange(60.0), "who": who, "y": np.arange(60.0)}), folder, split={"group": "who"})
    assert about.inputs == ("a",) and about.left_out == ("who", "y")
    days = source({"a": np.arange(60.0), "day": Column(np.arange(60.0)), "y": np.arange(60.0)}, kinds={"day": "datetime"})
    about, parts = made(days, folder, split={"time": "day"})
    assert about.inputs == ("a",) and about.left_out == ("day", "y") and parts["train"].rows.max() < parts["test"].rows.min()
    with pytest.raises(DataError, match="there must be a column to predict from"):
        made(source({"who": who, "y": np.arange(60.0)}), folder, split={"group": "who"})


# Folds -----------------------------------------------------------------------------------------------------------------


def test_each_fold_is_fitted_on_its_own_training_rows(folder):
    about = prepare(untidy(), spec(split={"folds": 4}), folder)
    assert len(about.folds) == 4 and about.each == about.folds and about.inputs == ()
    age = untidy().fetch("age").values
    for number in range(1, 5):
        fold = about.fold(number)
        train = fold.open(folder, "train")
        known = age[train.rows]
        assert fold.number == number and fold.preprocessing.encoders[0].fill == pytest.approx(np.nanmedian(known))
        X = fold.preprocessing.apply(untidy())
        for part in ("train", "valid", "test"):
            opened = fold.open(folder, part)
            np.testing.assert_array_equal(X[opened.rows], opened.X)
            assert fold.rows[part] == len(opened.rows)
        assert np.load(folder / "valid" / str(number) / "rows.npy").tolist() == fold.open(folder, "valid").rows.tolist()
    assert about.rows == {"train": 48, "valid": 48, "test": 12}


def test_what_is_known_of_folds_comes_back_from_disk(folder):
    about = prepare(untidy(), spec(split={"folds": 3}), folder)
    again = About.load(folder / "about.json")
    assert again == about and again.fold(2) == about.fold(2)
    assert len({fold.sha256["train"] for fold in about.folds}) == 3
    assert about.sha256["train"] not in {fold.sha256["train"] for fold in about.folds}


# Raw rows in Python ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return prepare(untidy(), spec(), tmp_path_factory.mktemp("known"))


def read(known, rows, **changes):
    """Rows in Python as the spec's: its markers and spellings, and the columns that the training rows had."""
    return given(rows, DataSpec.model_validate({"source": "t.csv", "target": "y", **changes}), known.preprocessing)


def one(**more):
    return {"age": [40], "colour": ["red"], "smoker": [True], "day": ["2021-01-02"], **more}


def test_a_mapping_of_columns_and_a_data_frame_are_read_alike(known):
    pandas = pytest.importorskip("pandas")
    columns = {
        "age": [40, None], "colour": ["red", None], "smoker": [True, None], "day": ["2021-01-02", None], "note": ["x", "y"],
    }  # fmt: skip
    typed = pandas.DataFrame({**columns, "day": pandas.to_datetime(columns["day"])})
    nullable = pandas.DataFrame(columns).convert_dtypes()
    texts = {"age": ["40", "-"], "colour": [" red", "-"], "smoker": ["yes", "-"], "day": ["2021-01-02", "-"]}
    for rows in (columns, typed, nullable, texts):
        found = read(known, rows, missing={"markers": ["-"]})
        assert "note" not in found.kinds and found.rows == 2
        assert [found.fetch(name).values[0] for name in ("age", "smoker", "day")] == [40, 1, 18629]
        assert all(found.fetch(name).gaps.tolist() == [False, True] for name in found.kinds)
        assert found.fetch("colour").categories == ("red",)


def test_whole_numbers_are_categories_as_a_file_spells_them(known):
    assert read(known, one(colour=[3.0])).fetch("colour").categories == ("3",)


BAD_ROWS = {
    "a matrix where there are words": ([[1, 2, 3, 4]], "must be a DataFrame or a mapping of columns, since 'colour' holds no"),
    "columns of unequal length": (one(colour=["p", "q"]), "must be of one length, got 1, 2"),
    "a word for a number": (one(age=["old"]), "row 1: column 'age' must hold finite numbers, found 'old'"),
    "an infinite number": (one(age=[np.inf]), "row 1: column 'age' must hold finite numbers, found inf"),
    "a truth value of 2": (one(smoker=[2]), "row 1: column 'smoker' must hold true and false, yes and no, or 1 and 0, found '2'"),
    "a date that is none": (one(day=["yesterday"]), "row 1: column 'day' must hold dates .*, found 'yesterday'"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_raw_rows_that_are_not_of_their_kind_are_refused(known, case):
    rows, message = BAD_ROWS[case]
    with pytest.raises(DataError, match=message):
        known.preprocessing.apply(read(known, rows))


def test_raw_rows_may_hold_other_columns(known):
    assert known.preprocessing.apply(read(known, one(id=["7"], y=[1.0], color=["red"]))).shape == (1, 9)


def test_a_raw_column_that_is_missing_is_named(known):
    short = {name if name != "colour" else "color": values for name, values in one().items()}
    with pytest.raises(DataError, match=r"must have the columns of the training rows, found no 'colour'; did you mean color\?"):
        read(known, short)


# Refusals --------------------------------------------------------------------------------------------------------------


def wide(**columns):
    return source({"x": np.arange(40.0), **columns, "y": np.arange(40) * 1.5})


HUGE = np.where(np.arange(40) == 17, 1e39, 1.0)
REFUSED = {
    "a gap in numbers": (
        {"z": [*range(9), None, *range(30)]}, {"missing": {"numeric": "refuse"}},
        r"t\.csv:11: column 'z' must have a value in every row, found none here; set data.missing.numeric: median",
    ),
    "a gap in words": (
        {"z": ["p"] * 9 + [None] + ["q"] * 30}, {"missing": {"categorical": "refuse"}},
        r"t\.csv:11: column 'z' must have a value in every row, found none here; set data.missing.categorical: category",
    ),
    "a column without a value": ({"z": np.full(40, np.nan)}, {}, "column 'z' must have a value in some training row, found none"),
    "more than float32 holds": ({"z": HUGE}, {"scaling": "none"}, r"t\.csv:19: column 'z' must lie within .* found 1e\+39"),
    "too large to be standardised": ({"z": np.arange(40.0) * 1e300}, {}, r"t\.csv:\d+: column 'z' must be small enough to be"),
    "too far apart for minmax": (
        {"z": np.where(np.arange(40) % 2, 1.7e308, -1.7e308)}, {"scaling": "minmax"}, r"t\.csv:\d+: column 'z' must be small",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_become_inputs_is_refused_with_file_line_and_column(folder, case):
    columns, changes, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        made(wide(**columns), folder, **changes)
    assert not (folder / "about.json").exists()


def test_a_target_that_float32_cannot_hold_is_refused_with_its_line(folder):
    table = source({"x": np.arange(40.0), "y": np.where(np.arange(40) == 7, 1e39, np.arange(40))})
    with pytest.raises(DataError, match=r"t\.csv:9: target 'y' must lie within"):
        made(table, folder, scale_target=False)


def test_a_large_number_is_no_error_where_only_the_order_counts(folder):
    assert np.isfinite(made(wide(z=np.arange(40.0) * 1e300), folder, scaling="quantile")[1]["train"].X).all()


def test_a_refused_cell_is_told_with_its_place():
    with pytest.raises(CellError) as caught:
        list(Flag("c", "boolean", None).encode(column([1.0, None])))
    assert caught.value.place == 1
    with pytest.raises(CellError):
        list(Categorical("c", "categorical", ("a",), False, None).encode(column(["a", None])))


def test_two_inputs_of_one_name_are_refused(folder):
    table = untidy()
    columns = {name: table.fetch(name) for name in ("age", "y")}
    twins = source({**columns, "age missing": Column(np.arange(ROWS, dtype=float))})
    with pytest.raises(DataError) as refused:
        made(twins, folder)
    assert str(refused.value) == (
        "t.csv: inputs must have different names, got 'age missing' of column 'age' and of column 'age missing'; "
        "rename one of the columns"
    )


def test_a_number_beyond_float32_is_refused_also_among_training_rows(folder):
    rows = np.arange(ROWS, dtype=float)
    huge = np.where(rows == 7, 1e39, rows)
    with pytest.raises(DataError, match=r"t\.csv:9: column 'a' must lie within ±3\.4e\+38, found 1e\+39"):
        made(source({"a": huge, "y": rows}), folder)
    with pytest.raises(DataError, match=r"t\.csv:9: target 'y' must lie within ±3\.4e\+38, found 1e\+39"):
        made(source({"a": rows, "y": huge}), folder)
