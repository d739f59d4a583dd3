"""Who trains, validates and tests: the laws of every way to split, on generated tables and several seeds."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from sources import source

from pipelines.data import PARTS, Column, DataError, prepare, read
from pipelines.data.columns import find_target
from pipelines.data.split import (
    count_duplicates,
    cut,
    deal,
    deal_groups,
    deal_in_order,
    drawn_order,
    equal_rows,
    share_out,
    similar_label,
    split_rows,
)  # fmt: skip
from pipelines.spec import DataSpec, Split

SEEDS = range(6)


def dealt(table, **split):
    """The parts, as `data.split` says."""
    return split_rows(table, find_target(table, "auto"), Split(**split))


def parts(table, **split):
    return dealt(table, **split).folds[0]


def number(rows, total):
    """The part of each row."""
    part = np.full(total, -1)
    for place, name in enumerate(PARTS):
        part[rows[name]] = place
    return part


def by_chance(rows, seed, strata=None, fractions=(0.6, 0.2, 0.2)):
    order = drawn_order(rows, seed)
    strata = np.zeros(rows, int) if strata is None else strata
    part = deal(order, fractions, strata, np.arange(rows))
    return {name: order[part == place] for place, name in enumerate(PARTS)}


def table(seed=0, rows=200, task="classes", **more):
    """Rows of which many are equal, of twenty groups, at thirty moments; group and moment have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 12, (rows, 2)).astype(float)
    y = (x.sum(1) > 11).astype(float) if task == "classes" else x.sum(1) * 1.5
    columns = {
        "a": x[:, 0],
        "b": x[:, 1],
        "y": y,
        "who": rng.integers(0, 20, rows) * 1.0,
        "when": rng.integers(0, 30, rows) * 1.0,
    }
    return source({key: columns[key] for key in ("a", "b", "y", *more.pop("besides", ()))}, **more)


# Every way -------------------------------------------------------------------------------------------------------------

GIVEN = np.random.default_rng(9).integers(-1, 3, 200)
WAYS = {
    "by chance": (table, {}),
    "apart": (table, {"duplicates": "apart"}),
    "not stratified": (table, {"stratify": False}),
    "regression": (lambda seed: table(seed, task="numbers"), {}),
    "by group": (lambda seed: table(seed, besides=("who",)), {"group": "who"}),
    "by time": (lambda seed: table(seed, besides=("when",)), {"time": "when"}),
    "by files": (lambda seed: table(seed, part=GIVEN), {}),
    "in folds": (table, {"folds": 4}),
    "groups in folds": (lambda seed: table(seed, besides=("who",)), {"folds": 4, "group": "who"}),
    "files in folds": (lambda seed: table(seed, part=np.where(GIVEN == 2, 2, -1)), {"folds": 3}),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way", WAYS)
def test_every_row_is_in_exactly_one_part_and_no_part_is_empty(way, seed):
    make, split = WAYS[way]
    found = dealt(make(seed), seed=seed, **split)
    assert len(found.folds) == split.get("folds", 1)
    for rows in found.folds:
        assert sorted(np.concatenate([rows[name] for name in PARTS])) == list(range(200))
        assert all(len(rows[name]) for name in PARTS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("apart", "by group", "groups in folds")])
def test_equal_rows_are_in_one_part(way, seed):
    make, split = WAYS[way]
    rows = make(seed)
    first = equal_rows(rows, rows.kinds)
    given = rows.part
    for fold in dealt(rows, seed=seed, **split).folds:
        part = number(fold, 200)
        free = np.ones(200, dtype=bool) if given is None else given < 0
        for head in np.unique(first[free]):
            assert len(set(part[free & (first == head)])) == 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("folds", [None, 4])
def test_a_group_is_never_on_two_sides(folds, seed):
    rows = table(seed, besides=("who",))
    who = rows.fetch("who").values
    for fold in dealt(rows, seed=seed, group="who", folds=folds).folds:
        sides = [set(who[fold[name]]) for name in PARTS]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


@pytest.mark.parametrize("seed", SEEDS)
def test_no_row_of_the_future_trains_and_rows_of_one_moment_stay_together(seed):
    rows = table(seed, besides=("when",))
    when = rows.fetch("when").values
    found = parts(rows, seed=seed, time="when")
    assert when[found["train"]].max() < when[found["valid"]].min()
    assert when[found["valid"]].max() < when[found["test"]].min()
    assert abs(len(found["train"]) - 120) < 12 and abs(len(found["test"]) - 40) < 12


@pytest.mark.parametrize("seed", SEEDS)
def test_folds_share_the_rows_that_do_not_test_and_test_rows_are_those_without_folds(seed):
    found = dealt(table(seed), seed=seed, folds=5).folds
    once = np.concatenate([rows["valid"] for rows in found])
    plain = parts(table(seed), seed=seed)
    assert sorted(once) == sorted([*plain["train"], *plain["valid"]])
    for rows in found:
        assert rows["test"].tolist() == plain["test"].tolist()
        assert set(rows["train"]) == set(once) - set(rows["valid"])
        assert abs(len(rows["valid"]) - 32) <= 8


def test_folds_keep_the_shares_of_the_classes():
    y = np.repeat([0.0, 1.0], [150, 50])
    rows = source({"a": np.arange(200.0), "y": y})
    for fold in dealt(rows, folds=4).folds:
        assert np.bincount(y[fold["valid"]].astype(int)).tolist() == [30, 10]


# By chance -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [3, 4, 20, 1797])
@pytest.mark.parametrize("strata", [False, True])
def test_parts_are_disjoint_and_whole_for_any_number_of_rows(rows, strata):
    found = by_chance(rows, 0, np.zeros(rows, dtype=int) if strata else None)
    assert sorted(np.concatenate([found[name] for name in PARTS])) == list(range(rows))


def test_a_split_is_a_function_of_its_seed_alone():
    one, again, other = (by_chance(100, seed) for seed in (5, 5, 6))
    assert all((one[name] == again[name]).all() for name in PARTS)
    assert set(one["test"]) != set(other["test"])


def test_the_split_is_part_of_the_format():
    found = by_chance(10, 0)
    assert [found[name].tolist() for name in PARTS] == [[3, 4, 9, 0, 6, 1], [8, 7], [2, 5]]


def test_a_stratified_split_keeps_the_shares_of_the_classes_and_of_the_parts():
    y = np.repeat(np.arange(10), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    found = by_chance(len(y), 3, y, (0.7, 0.15, 0.15))
    for name, fraction in zip(PARTS, (0.7, 0.15, 0.15), strict=True):
        assert abs(len(found[name]) - fraction * len(y)) <= 1
        assert (abs(np.bincount(y[found[name]]) - fraction * np.bincount(y)) < 1.5).all()


def test_rows_of_a_class_do_not_stand_together():
    y = np.repeat(np.arange(3), 40)
    first = y[by_chance(120, 0, y)["train"]][:24]
    assert len(set(first.tolist())) == 3


def test_a_class_with_three_rows_is_in_every_part():
    assert share_out(np.array([3, 200]), (0.8, 0.1, 0.1))[0].tolist() == [1, 1, 1]


def test_each_row_is_as_likely_to_be_a_test_row():
    counts = np.zeros(20)
    for seed in range(2000):
        counts[by_chance(20, seed)["test"]] += 1
    expected = 2000 * 4 / 20
    chi2 = ((counts - expected) ** 2 / (expected * 0.8)).sum() * 19 / 20
    assert chi2 < 43.8  # 99.9 % quantile at 19 degrees of freedom


def test_a_pair_of_equal_rows_is_as_likely_to_test_as_any_row():
    first = np.array([0, 0, *range(2, 20)])
    found = [
        deal(drawn_order(20, seed), (0.6, 0.2, 0.2), np.zeros(20, int), first)[drawn_order(20, seed) == 0][0]
        for seed in range(2000)
    ]
    assert abs(np.bincount(found) / 2000 - [0.6, 0.2, 0.2]).max() < 0.05


# Equal rows ------------------------------------------------------------------------------------------------------------


def test_equal_rows_are_found_in_every_kind_of_column():
    days = Column(np.array([1.5, 1.5, 1.5, 1.5, np.nan, np.nan]))
    rows = source({"a": [0.0, -0.0, 0, 1, None, None], "w": ["p", "p", "q", "p", None, None], "d": days, "y": [1.0] * 6})
    assert equal_rows(rows, rows.kinds).tolist() == [0, 0, 2, 3, 4, 4]
    assert equal_rows(rows, ["a"]).tolist() == [0, 0, 0, 3, 4, 4]
    gaps = np.array([np.nan, -np.nan, np.nan])
    assert len(set(gaps.view(np.uint64).tolist())) > 1, "missing values of several spellings"
    assert equal_rows(source({"a": Column(gaps), "y": [0.0] * 3}), "ay").tolist() == [0, 0, 0]


def test_rows_that_differ_in_one_column_or_hold_the_same_values_elsewhere_are_not_equal():
    assert equal_rows(source({"a": [1.0, 2], "b": [2.0, 1], "y": [0.0, 0]}), "aby").tolist() == [0, 1]
    assert equal_rows(source({"a": [1.0, 2, 3], "b": [5.0, 4, 3], "y": [0.0, 0, 0]}), "aby").tolist() == [0, 1, 2]


def test_of_many_rows_those_that_numpy_finds_equal_are_equal():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 9, (5000, 4)).astype(float)
    rows = source({name: X[:, i] for i, name in enumerate("abcy")})
    _, place, inverse = np.unique(X, axis=0, return_index=True, return_inverse=True)
    assert (equal_rows(rows, "abcy") == place[inverse.ravel()]).all()


def test_duplicates_are_counted_also_where_they_may_be_torn_apart():
    rows = source({"a": [1.0, 1, 1, 2, *range(3, 40)], "y": [0.5, 0.5, 0.5, *range(38)]})
    assert dealt(rows).duplicates == {"rows": 2, "across": 0}
    torn = [dealt(rows, duplicates="apart", seed=seed).duplicates for seed in range(8)]
    assert {found["rows"] for found in torn} == {2} and {found["across"] for found in torn} == {0, 3}


def test_rows_that_equal_one_of_another_part_are_counted():
    assert count_duplicates(np.array([0, 0, 2, 2, 4]), np.array([0, 1, 1, 1, 2])) == {"rows": 2, "across": 2}


def test_an_ignored_column_makes_no_two_rows_different():
    rows = source(
        {"id": ["1", "2", *map(str, range(3, 31))], "a": [7.0, 7, *range(28)], "y": [0.5, 0.5, *range(28)]},
        kinds={"id": "ignore"},
    )
    assert dealt(rows).duplicates["rows"] == 1


# By group, by time, as given -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_come_as_near_to_the_shares_as_they_can(seed):
    groups = np.repeat(np.arange(12), [60, 30, 30, 20, 10, 10, 10, 10, 5, 5, 5, 5])
    counts = np.bincount(deal_groups(groups, (0.6, 0.2, 0.2), seed))
    assert abs(counts - [120, 40, 40]).max() <= 10


def test_the_largest_group_is_not_always_in_one_part():
    groups = np.repeat(np.arange(12), [40, 30, 30, 20, 20, 10, 10, 10, 10, 10, 5, 5])
    assert {int(deal_groups(groups, (0.6, 0.2, 0.2), seed)[0]) for seed in range(40)} == {0, 1, 2}


def test_three_groups_are_one_a_part_however_large():
    groups = np.repeat(np.arange(3), [100, 1, 1])
    assert sorted(np.bincount(deal_groups(groups, (0.6, 0.2, 0.2), 0))) == [1, 1, 100]


def test_a_cut_takes_the_nearest_whole_units_and_leaves_no_part_without_one():
    assert cut(np.ones(10), [6, 2, 2]).tolist() == [0] * 6 + [1] * 2 + [2] * 2
    assert cut(np.array([5, 5, 1, 1]), [6, 3, 3]).tolist() == [0, 1, 2, 2]
    assert cut(np.array([100, 1, 1]), [60, 21, 21]).tolist() == [0, 1, 2]
    assert cut(np.array([1, 1, 100]), [60, 21, 21]).tolist() == [0, 1, 2]


def test_moments_are_cut_where_the_shares_are_nearest():
    assert deal_in_order(np.array([3.0, 1, 1, 2, 9, 9, 4, 5, 6, 7]), (0.6, 0.2, 0.2)).tolist() == [0, 0, 0, 0, 2, 2, 0, 0, 1, 1]


def test_a_column_says_which_part_in_several_spellings():
    says = ["train", "Training", "valid", "VAL", "validation", "dev", " test", "train"]
    rows = source({"a": np.arange(8.0), "part": says, "y": np.arange(8.0)})
    found = parts(rows, part="part")
    assert [sorted(found[name].tolist()) for name in PARTS] == [[0, 1, 7], [2, 3, 4, 5], [6]]


def test_files_say_which_part_and_what_they_leave_open_trains_or_validates():
    part = np.repeat([-1, 2], [60, 20])
    found = parts(source({"a": np.arange(80.0), "y": np.arange(80.0)}, part=part), train=0.5, valid=0.25, test=0.25)
    assert sorted(found["test"]) == list(range(60, 80))
    assert (len(found["train"]), len(found["valid"])) == (40, 20)


def test_training_rows_that_equal_test_rows_are_shared_out_as_any_others():
    there = np.r_[np.arange(100), np.arange(100)]
    found = dealt(
        source({"a": there.astype(float), "y": there % 2}, part=np.repeat([-1, 2], 100)), train=0.4, valid=0.1, test=0.5
    )
    [rows] = found.folds
    assert [len(rows[part]) for part in PARTS] == [80, 20, 100]


def test_a_row_that_stands_in_two_files_is_told_of_and_stays_where_it_is():
    part = np.repeat([0, 1, 2], 4)
    rows = source({"a": [1.0, 2, 3, 4, 5, 6, 7, 8, 1, 9, 10, 11], "y": [0.0, 2, 3, 4, 5, 6, 7, 8, 0, 9, 10, 11]}, part=part)
    found = dealt(rows)
    assert found.duplicates == {"rows": 1, "across": 2}
    assert sorted(found.folds[0]["train"]) == [0, 1, 2, 3]


# Refusals --------------------------------------------------------------------------------------------------------------

MANY = {"a": np.arange(30.0), "y": np.arange(30) * 1.5}
PARTED = {"a": np.arange(9.0), "y": ["train", "valid", "test"] * 3}
REFUSED = {
    "fewer rows than parts": ({"a": [1.0, 2], "y": ["p", "q"]}, {"stratify": False}, {}, "the 3 parts needs a row, got 2"),
    "a class that is too small": (
        {"a": np.arange(22.0), "y": ["p"] * 20 + ["q"] * 2}, {}, {},
        "at least 3 different rows for a stratified split, one a part, but class 'q' has 2",
    ),
    "a class with one row": ({"a": np.arange(21.0), "y": ["p"] * 20 + ["q"]}, {}, {}, "but class 'q' has 1"),
    "a class whose rows are equal": ({"a": [*range(20), 7, 7, 7], "y": ["p"] * 20 + ["q"] * 3}, {}, {}, "but class 'q' has 1"),
    "a class with fewer rows than folds": (
        {"a": np.arange(25.0), "y": ["p"] * 20 + ["q"] * 5}, {"folds": 5}, {},
        "at least 6 different rows for a stratified split, one a fold and one to test, but class 'q' has 5",
    ),
    "more folds than rows": ({"a": np.arange(6.0), "y": np.arange(6.0)}, {"folds": 8}, {}, "each of the 8 parts needs a row"),
    "stratified regression": (MANY, {"stratify": True}, {}, "must be auto or false for a regression target, got true"),
    "no such group": (MANY, {"group": "b"}, {}, "group must name a column, found none of the name 'b'; known are: a, y"),
    "nearly such a time": ({**MANY, "when": np.arange(30.0)}, {"time": "wehn"}, {}, "did you mean when"),
    "the target as part": (PARTED, {"part": "y"}, {}, "another column than the target"),
    "a group without a name": (
        {**MANY, "g": ["p"] * 20 + [None] + ["q"] * 9}, {"group": "g"}, {}, "t.csv:22: column 'g' must have a value",
    ),
    "a time that is missing": (
        {**MANY, "t": [1.0] * 20 + [None] * 10}, {"time": "t"}, {}, "t.csv:22: column 't' must have a value",
    ),
    "a time of words": (
        {**MANY, "t": ["p", "q"] * 15}, {"time": "t"}, {}, "'t' to be categorical; give the dates as 2024-05-31, or split",
    ),
    "a time of words beside one of dates": (
        {**MANY, "t": ["p", "q"] * 15, "day": Column(np.arange(30.0))}, {"time": "t"}, {"kinds": {"day": "datetime"}},
        "'t' to be categorical; columns of dates are: day",
    ),
    "a time that is ignored": (
        {**MANY, "t": ["p", "q"] * 15}, {"time": "t"}, {"kinds": {"t": "ignore"}}, "found 't' to be ignored",
    ),
    "a class that may be another's spelling": (
        {"a": np.arange(40.0), "y": ["yes"] * 19 + ["no"] * 18 + ["Yes"] + ["yeS."] * 2}, {}, {},
        "class 'Yes' has 1 (another spelling of 'yes'?), class 'yeS.' has 2 (another spelling of 'yes'?); add rows",
    ),
    "one moment": ({**MANY, "t": [1.0] * 30}, {"time": "t"}, {}, "each of the 3 parts needs a row, got 30 in all: train"),
    "two groups": ({**MANY, "g": ["p", "q"] * 15}, {"group": "g"}, {}, "each of the 3 parts needs a row"),
    "another word than a part": (
        {**MANY, "p": ["train"] * 29 + ["tset"]}, {"part": "p"}, {}, "t.csv:31: column 'p' must say train, valid or test",
    ),
    "no part": ({**MANY, "p": ["train"] * 29 + [None]}, {"part": "p"}, {}, r"t.csv:31: .* found no value"),
    "numbers for parts": ({**MANY, "p": [1.0] * 30}, {"part": "p"}, {}, "found numeric"),
    "a part that no row has": ({**MANY, "p": ["train", "test"] * 15}, {"part": "p"}, {}, "train 15, valid 0, test 15"),
    "a class that only tests": (
        {"a": np.arange(30.0), "y": ["p"] * 29 + ["q"]}, {}, {"part": [0] * 20 + [1] * 5 + [2] * 5},
        "every class must have training rows, but class 'q' has none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_split_is_refused_with_its_place(case):
    columns, split, more, message = REFUSED[case]
    with pytest.raises(DataError) as caught:
        dealt(source(columns, **more), **split)
    assert re.search(message, str(caught.value)) or message in str(caught.value)


@pytest.mark.parametrize(
    ("label", "other"),
    [("YES", "yes"), ("y e-s", "yes"), ("colur", "colour"), ("femal", "female"), ("Setosa.", "setosa"),
     ("tabby", "tabbi"), ("grey", "gray")],
)  # fmt: skip
def test_labels_that_look_like_spellings_of_one_another(label, other):
    assert similar_label(label, {label: 1, other: 9}) == other and similar_label(other, {label: 1, other: 9}) == ""


@pytest.mark.parametrize(
    ("label", "other"),
    [("no", "on the"), ("cat", "car"), ("10", "11"), ("1.0", "10"), ("B1", "B2"), ("male", "female"), ("", "-")],
)
def test_labels_that_do_not(label, other):
    assert similar_label(label, {label: 1, other: 9}) == ""


def test_a_class_without_training_rows_is_named():
    rows = source({"a": np.arange(31.0), "y": ["p"] * 30 + ["q"]})
    messages = set()
    for seed in range(20):
        try:
            dealt(rows, stratify=False, seed=seed)
        except DataError as error:
            messages.add(str(error))
    assert len(messages) == 1
    assert "every class must have training rows, but class 'q' has none" in messages.pop()


def test_labels_that_differ_between_files_by_a_dot_a_blank_or_case_are_named_where_they_stand_with_their_like(tmp_path):
    rows = "".join(f"{x},{label}\n" for x in range(9) for label in (">50K", "low"))
    (tmp_path / "adult.data.csv").write_text(f"x,y\n{rows}")
    (tmp_path / "adult.test.csv").write_text("x,y\n1,>50K.\n2,Low .\n3,>50K\n")
    block = {"source": {"train": "adult.data.csv", "test": "adult.test.csv"}, "target": "y"}
    spellings = '{">50K.": ">50K", "Low .": "low"}'
    told = "adult.test.csv:2: every class must have training rows, but class '>50K.', class 'Low .' has none; if it is another "
    told += "spelling set data.spellings: {y: " + spellings + "}"
    with pytest.raises(DataError, match=f"^{re.escape(told)}$"):
        prepare(read(DataSpec.model_validate(block), tmp_path), DataSpec.model_validate(block), tmp_path / "out")
    joined = DataSpec.model_validate({**block, "spellings": {"y": json.loads(spellings)}})
    assert prepare(read(joined, tmp_path), joined, tmp_path / "out").classes == (">50K", "low")
