"""The language of --where: what it is true of, and where it says that it cannot go on."""

from __future__ import annotations

import pytest

from pipelines.compare.choose import Keys, QueryError, matching, parse
from pipelines.tracking.query import Recorded


def run(number, **values):
    params = {"seed": str(number), "model.activation": values.get("activation", "relu"), "train.optimizer.learning_rate": "1e-3"}
    params |= {"search.space.model.activation.when": "null", "regularization.l2": "0.0001", "search.seed": "0"}
    metrics = {"best_val_loss": 0.05 * number} if "loss" not in values else {}
    tags = {"deltarule.backend": "lightning", "deltarule.ended": "early_stopping", "who": "me (not you)"}
    return Recorded(f"{number:032x}", f"run {number}", "FINISHED", 1e9 + number, None, params, metrics, tags)


RUNS = [run(1), run(2, activation="sigmoid"), run(3), run(9, loss=None), run(10, activation="sigmoid")]


def numbers(text):
    return [int(one.params["seed"]) for one in matching(RUNS, parse(text, Keys(RUNS)))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("seed = 1", [1]),
        ("params.seed == 1.0", [1]),
        ("activation = relu and best_val_loss < 0.12", [1]),
        ("params.model.activation = relu and metrics.best_val_loss<0.12", [1]),
        ("seed > 9", [10]),  # by text, 9 would be the greater
        ("learning_rate = 0.001", [1, 2, 3, 9, 10]),
        ("best_val_loss < 100", [1, 2, 3, 10]),  # one has none
        ("best_val_loss != 0.05", [2, 3, 9, 10]),
        ("name ~ 'RUN 1'", [1, 10]),
        ("status = FINISHED AND deltarule.ended = early_stopping", [1, 2, 3, 9, 10]),
        ("who = 'me (not you)'", [1, 2, 3, 9, 10]),
        ("who = me", []),
        ("`model.activation`='sigmoid'", [2, 10]),
        ("tags.deltarule.ended=early_stopping and id~0000a", [10]),
        ("status = finished and started > 2001-09-01 and started < '2038-01-01 10:00'", [1, 2, 3, 9, 10]),  # begun in 2001
        ("started >= 2038-01-01", []),
        ("ended < 2038-01-01", []),
    ],
)
def test_an_expression_is_true_of(text, found):
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("text", "what", "place"),
    [
        ("", "expected KEY = VALUE", 1),
        ("started > yesterday", "must be compared with a date, 2026-11-24", 1),
        ("activation relu", "expected KEY = VALUE", 1),
        ("activation = relu best_val_loss < 1", "expected `and` or the end", 19),
        ("activation = ", "expected KEY = VALUE", 1),
        ("best_val_loss < small", "< must be followed by a number, got small", 1),
        ("(seed = 1", "expected KEY = VALUE", 1),
        ("seed in (1, 2)", "expected KEY = VALUE", 1),
        ("seed = 1 or seed = 2", "comparisons are joined by `and` alone", 10),
        ("seed = 1 and not seed = 2", "expected KEY = VALUE", 14),
        ("seed = 1)", "expected `and`", 9),
        ("seed = 'a", "expected KEY = VALUE", 1),
        ("status < finished", "< must be followed by a number, got FINISHED", 1),
        ("seed = 1 and model.activaton = relu", r"unknown key model\.activaton.*did you mean model\.activation", 14),
    ],
)
def test_what_cannot_be_meant_is_said_with_its_place(text, what, place):
    with pytest.raises(QueryError, match=what) as caught:
        numbers(text)
    first, shown, mark = str(caught.value).splitlines()
    assert first.startswith("--where: ") and f"at character {place}:" in first
    assert shown == f"  {text}" and mark.index("^") == place + 1


def test_a_part_of_a_path_that_means_several_is_refused_with_all_of_them():
    runs = [Recorded("a" * 32, "", "FINISHED", None, None, {"a.size": "1", "b.size": "2", "search.size": "3"}, {}, {})]
    with pytest.raises(QueryError, match=r"size must mean one value, and may mean a\.size, b\.size"):
        Keys(runs).find("size")


def test_a_whole_name_stands_above_the_end_of_a_path_and_that_above_a_tag_of_ours():
    params, tags = {"train.epochs": "30", "train.backend": "keras"}, {"deltarule.backend": "k", "deltarule.x": "y"}
    keys = Keys([Recorded("a" * 32, "", "FINISHED", None, None, params, {"epochs": 7.0}, tags)])
    found = [(key.kind, key.name) for key in map(keys.find, ("epochs", "backend", "x"))]
    assert found == [("metrics", "epochs"), ("params", "train.backend"), ("tags", "deltarule.x")]
