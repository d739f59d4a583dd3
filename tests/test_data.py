"""What is predicted, and what stands on disk: tasks from targets, parts that come back, the same bytes each time."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from sources import source

from pipelines.data import PARTS, About, Column, DataError, prepare, read
from pipelines.data.columns import find_target
from pipelines.data.parts import write_part
from pipelines.spec import DataSpec
from pipelines.spec.blocks import BUNDLED


def table(y, target="y", **more):
    """Rows with one input, and the target(s)."""
    targets = y if isinstance(y, dict) else {"y": y}
    rows = len(next(iter(targets.values())))
    return source({"x": np.arange(rows) ** 1.5, **targets}, target, **more)


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
    assert find_target(table(values), "auto").task == task


def test_the_second_class_in_order_is_the_positive_one():
    target = find_target(table([7, 3, 7, 10, 3, 10] * 2), "multiclass")
    assert target.classes == ("3", "7", "10")  # as numbers, not as text
    assert target.y.tolist() == [1, 0, 1, 2, 0, 2] * 2
    assert find_target(table(["q", "p", "q"]), "binary").y.tolist() == [1, 0, 1]


def test_a_boolean_target_has_two_classes():
    target = find_target(table([1.0, 0, 1, 1], kinds={"y": "boolean"}), "auto")
    assert (target.task, target.classes, target.y.tolist()) == ("binary", ("false", "true"), [1, 0, 1, 1])


def test_a_category_that_no_row_has_is_no_class():
    column = Column(np.array([0, 2, 0, 2], dtype=np.int32), ("p", "q", "r"))
    target = find_target(source({"x": [1.0] * 4, "y": column}), "auto")
    assert target.classes == ("p", "r") and target.y.tolist() == [0, 1, 0, 1]


BAD_TARGETS = {
    "constant": ([3] * 9, "auto", "target 'y' must take more than one value, found 3"),
    "one class": (["p"] * 9, "auto", "target 'y' must take more than one value, found p"),
    "words for regression": (["1", "p", "q"], "regression", r"t\.csv:3: target 'y' must hold numbers for regression, found 'p'"),
    "two values for regression": ([0.5, 1.5] * 9, "auto", "must take more than two values for regression, found only 0.5, 1.5"),
    "numbers for classes": (np.linspace(0, 1, 60), "multiclass", r"looks like a regression target \(60 different numbers"),
    "three for binary": ([0, 1, 2] * 9, "binary", "must have two classes for a binary task, found 3: 0, 1, 2"),
    "a gap": ([0.5, 2, None, 4], "auto", r"t\.csv:4: target 'y' must have a value in every row, found none here"),
    "a label that is missing": (["p", "q", None], "auto", r"t\.csv:4: target 'y' must have a value in every row"),
    "names for classes": ([f"n{i}" for i in range(40)], "auto", "found 40 classes in 40 rows: n0, n1, .* is it an id or a name"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_a_target_that_does_not_suit_its_task_is_refused(case):
    values, task, message = BAD_TARGETS[case]
    with pytest.raises(DataError, match=message):
        find_target(table(values), task)


def test_two_values_are_amounts_where_the_spec_says_regression():
    assert find_target(table([0, 1] * 9), "regression").y.shape == (18, 1)


def test_dates_are_no_target():
    with pytest.raises(DataError, match="target 'y' must be numeric, categorical or boolean, found datetime"):
        find_target(table([1.0, 2, 3], kinds={"y": "datetime"}), "auto")


def test_several_targets_are_numbers_and_no_classes():
    two = {"u": [0.0, 1, 1], "v": [1.0, 0, 1]}
    with pytest.raises(DataError, match="a binary task must have one target, got u, v"):
        find_target(table(two, ("u", "v")), "binary")
    with pytest.raises(DataError, match="several targets must be numbers, found 'v' to be categorical"):
        find_target(table({"u": [0.5, 1], "v": ["p", "q"]}, ("u", "v")), "auto")


def test_several_targets_come_in_the_order_asked_for():
    three = {"u": [0.0, 1, 2], "v": [5.0, 6, 7]}
    assert find_target(table(three, ("v", "u")), "auto").y.tolist() == [[5, 0], [6, 1], [7, 2]]


# Parts on disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUNDLED)
def test_parts_and_what_is_known_of_them_come_back_from_disk(tmp_path, name):
    about = prepare(read(DataSpec(source=name)), DataSpec(source=name), tmp_path)
    assert About.load(tmp_path / "about.json") == about
    assert DataSpec.model_validate(about.data) == DataSpec(source=name)
    for part in PARTS:
        opened = about.open(tmp_path, part)
        assert opened.X.dtype == np.float32 and opened.X.shape == (about.rows[part], len(about.inputs))
        assert len(opened.y) == len(opened.rows) == about.rows[part]
        assert about.task == "regression" or sum(about.class_counts[part].values()) == len(opened.rows)


def test_the_same_spec_gives_the_same_bytes(tmp_path):
    block = DataSpec(source="iris", scaling="quantile")
    for place in "ab":
        prepare(read(block), block, tmp_path / place)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 10
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_hashes_cover_inputs_targets_and_the_numbers_of_the_rows(tmp_path):
    block = DataSpec(source="iris")
    about = prepare(read(block), block, tmp_path)
    content = b"".join((tmp_path / "valid" / f"{name}.npy").read_bytes() for name in ("X", "y", "rows"))
    assert about.sha256["valid"] == hashlib.sha256(content).hexdigest()


def test_a_part_that_is_not_asked_for_is_not_written(tmp_path):
    block = DataSpec(source="iris")
    about = prepare(read(block), block, tmp_path, ("train", "valid"))
    assert not (tmp_path / "test").exists() and set(about.sha256) == {"train", "valid"}
    assert about.rows["test"] == 30


def test_a_part_is_three_files_that_numpy_would_write(tmp_path):
    X, rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32), np.arange(50)
    digest = write_part(tmp_path, lambda some: X[some], 3, 7, rows, rows * 2, rows)
    whole = io.BytesIO()
    for name, array in (("X", X), ("y", rows * 2), ("rows", rows)):
        file = io.BytesIO()
        np.save(file, array)
        assert (tmp_path / f"{name}.npy").read_bytes() == file.getvalue()
        whole.write(file.getvalue())
    assert digest == hashlib.sha256(whole.getvalue()).hexdigest()


def test_opened_rows_cannot_be_written(tmp_path):
    block = DataSpec(source="iris")
    about = prepare(read(block), block, tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        about.open(tmp_path, "train").X[:] = 0
