"""What is said of runs and of groups of runs: no more than the pairs show, and what keeps them from showing more."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape

import numpy as np
import pytest

import deltarule
from pipelines import cli
from pipelines.compare import choose, comparison
from pipelines.compare.choose import QueryError
from pipelines.compare.comparison import compare
from pipelines.compare.listing import listing
from pipelines.compare.pairs import Grouping
from pipelines.compare.show import lines
from pipelines.console import plain_columns
from pipelines.report.compare_page import compare_page
from pipelines.report.pages import brief
from pipelines.spec import Experiment
from pipelines.tracking import LookupFailed
from pipelines.tracking.query import Recorded

BASE = {
    "model.activation": "relu",
    "train.backend": "lightning",
    "train.early_stopping.monitor": "accuracy",
    "data.split.seed": "0",
}
ROWS = {"rows_train": 300.0, "rows_valid": 100.0, "rows_test": 100.0}


def run(number, loss, *, split="0", status="FINISHED", tags=None, **params):
    """The newest has the greatest number."""
    params = {**BASE, **{name.replace("__", "."): str(value) for name, value in params.items()}, "data.split.seed": split}
    own = {"deltarule.data": "iris", "deltarule.data.train": f"t{split}", "deltarule.data.valid": f"v{split}"}
    own |= {"deltarule.data.test": f"x{split}", "deltarule.launch": f"runs/{number}", **(tags or {})}
    metrics = {**ROWS, "validate_loss": loss, "validate_accuracy": 1 - loss, "best_val_loss": loss, "best_val_accuracy": 1 - loss}
    metrics |= {"train_loss": 0.3, "val_loss": 0.3, "val_accuracy": 0.3}
    metrics |= {"test_accuracy": 1 - loss, "test_accuracy_low": 0.9 - loss, "test_accuracy_high": 1.0}
    return Recorded(f"{number:08x}" + "0" * 24, f"run {number}", status, 1e9 + number, None, params, metrics, own)


def groups(differences, *, one="relu", other="sigmoid", base=0.2, first=0, **more):
    """Two runs a seed, of which the second is worse by the difference."""
    spread = np.random.default_rng(7).normal(base, 0.05, len(differences))  # the luck of the seed, which pairs take out
    return [
        run(first + 2 * seed + side, spread[seed] + side * d, seed=seed, model__activation=activation, **more)
        for seed, d in enumerate(differences)
        for side, activation in enumerate((one, other))
    ]


@pytest.fixture
def on_record(monkeypatch):
    """`on_record(runs)`: these are in the store; a curve for each."""

    def put(runs, curves=None):
        runs = sorted(runs, key=lambda run: -run.started)
        shown = lambda parent, children: [  # noqa: E731
            run for run in runs if (run.parent == parent if parent else children or run.parent is None)
        ]
        monkeypatch.setattr(choose, "recorded", lambda *_, parent=None, children=False: shown(parent, children))
        known = curves or {}
        course = {name: {1: 0.5, 2: 0.3} for name in ("train_loss", "val_loss", "val_accuracy")}
        monkeypatch.setattr(comparison, "histories", lambda _t, _p, ids, names: {i: known.get(i, course) for i in ids})
        monkeypatch.setattr(comparison, "texts", lambda *_: {})
        monkeypatch.setattr(comparison, "with_intervals", lambda _t, _p, found: found)

    return put


def compared(names=(), *, where=None, study=None, project=None, **grouping):
    asked = Grouping(**grouping) if grouping else None
    return compare(Experiment(), names, where=where, study=study, grouping=asked, project=project)


NOISE = [0.004, -0.003, 0.001, -0.005, 0.002, 0.003, -0.001, -0.002, 0.0, 0.002]
APART = [0.05 + d for d in NOISE]

# Verdicts --------------------------------------------------------------------------------------------------------------


def only(found):
    [one] = found.comparisons
    return one


def test_a_difference_that_all_pairs_show_is_real_and_says_which_is_better(on_record):
    on_record(groups(APART))
    one = only(compared(by="model.activation"))
    assert (one.verdict, one.better, one.pairs, one.metric) == ("real", "relu", 10, "validate_accuracy")
    assert one.high < 0 and one.mean == pytest.approx(-0.05, abs=1e-3)
    told = r"sigmoid - relu, validate_accuracy: -0\.05\d*, 95 % interval .* 10 pairs by seed\. The difference is real"
    assert re.search(told, one.sentence)
    assert "relu is better" in one.sentence and "corrected" not in one.sentence


def test_a_small_difference_is_negligible_only_within_a_margin_that_was_named(on_record):
    on_record(groups(NOISE))
    silent = only(compared(by="activation", metrics=("loss",)))
    assert (silent.verdict, silent.p_negligible) == ("cannot tell", None)
    assert re.search("does not show that the groups are the same.*--margin", silent.sentence)
    asked = only(compared(by="activation", metrics=("loss",), margin="0.01"))
    assert asked.verdict == "negligible" and "lies within ±0.01" in asked.sentence
    assert only(compared(by="activation", metrics=("loss",), margin="0.0005")).verdict == "cannot tell"


def test_a_difference_can_be_real_and_negligible_at_once(on_record):
    on_record(groups(APART))
    one = only(compared(by="activation", margin="0.1"))
    assert one.verdict == "real but negligible" and one.better == "relu"
    assert "not shown to lie within ±0.01" in only(compared(by="activation", margin="0.01")).sentence


@pytest.mark.parametrize("pairs", [1, 2])
def test_fewer_than_three_pairs_cannot_tell_however_large_the_difference(on_record, pairs):
    on_record(groups(APART[:pairs]))
    one = only(compared(by="activation", margin="1"))
    assert (one.verdict, one.p, one.low) == ("cannot tell", None, None)
    assert "at least 3 are needed" in one.sentence


def test_what_cannot_be_told_says_how_many_more_runs_would(on_record):
    on_record(groups([d + 0.001 for d in NOISE]))
    found = re.search(r"about (\d+) more seeds would show it to be real", only(compared(by="activation")).sentence)
    assert 40 < int(found[1]) < 120


def test_groups_that_are_equal_in_every_pair_are_said_to_be(on_record):
    on_record(groups([0.0] * 10))
    said = only(compared(by="activation")).sentence
    assert "+0 in every one of 10 pairs by seed. No difference was seen. This does not show" in said
    assert only(compared(by="activation", margin="0.01")).verdict == "negligible"


def test_the_values_of_the_pairs_stand_above_what_is_said_of_them(on_record):
    runs = groups(APART[:3])
    on_record(runs)
    found = compared(by="activation", metrics=("loss",))
    told = list(lines(found))
    place = told.index(only(found).sentence)
    heads, *rows = told[place - 4 : place]
    assert re.fullmatch(r"pairs, validate_loss +relu +sigmoid +difference", heads)
    for seed, row in enumerate(rows):
        one, other = runs[2 * seed], runs[2 * seed + 1]
        start = f"seed {seed}, split 0: {one.id[:8]}, {other.id[:8]}"
        values = one.metrics["validate_loss"], other.metrics["validate_loss"]
        assert row.startswith(start) and row.split()[-3:] == [
            *(f"{value:.4g}" for value in values),
            f"{values[1] - values[0]:+.3g}",
        ]
    on_record(groups([0.05] * 61))
    assert not any(line.startswith("pairs") for line in lines(compared(by="activation")))


# Pairs -----------------------------------------------------------------------------------------------------------------


def test_what_the_seed_brings_falls_out_of_the_difference(on_record):
    """The groups overlap widely: each value for itself would show nothing."""
    on_record(groups(APART, base=0.5))
    one = only(compared(by="activation"))
    assert one.verdict == "real" and one.sd < 0.01


def test_runs_without_a_partner_are_counted_and_it_is_said_in_what_they_differ(on_record):
    lone = [run(90, 0.1, seed=3, model__activation="sigmoid", model__dropout="0.5"), run(91, 0.1, seed=77)]
    broken = [run(92, 0.1, seed=4, status="FAILED"), run(93, float("nan"), seed=5)]
    on_record([*groups(APART), *lone, *broken])
    one = only(compared(by="activation", metrics=("loss",)))
    assert one.pairs == 10
    assert one.left == {"of relu not finished": 1, "of relu without validate_loss": 1, "without a partner": 2}
    assert set(one.differ) == {"model.dropout", "seed"}


def test_of_runs_that_are_the_same_in_all_the_newest_counts(on_record):
    on_record([*groups(APART), run(99, 0.9, seed=0)])
    one = only(compared(by="activation", metrics=("loss",)))
    assert one.left == {"repeated, the newest counts": 1} and one.pairs == 10 and min(one.differences) < -0.5


def test_pairs_of_several_settings_are_not_said_to_be_of_the_seed_alone(on_record):
    """As of a grid of activation and dropout, all of one seed."""
    on_record([one for n, d in enumerate(NOISE) for one in groups([d], first=10 * n, model__dropout=n / 20)])
    found = compared(by="activation")
    assert "10 pairs by seed and setting (10 settings of the other params)" in only(found).sentence
    assert "more pairs would show" in only(found).sentence
    assert any("settings such as these" in note for note in found.notes)
    assert not any("luck of the seed" in note for note in found.notes)


def test_another_split_is_no_partner(on_record):
    on_record([run(1, 0.1, seed=0), run(2, 0.2, seed=0, split="1", model__activation="tanh")])
    one = only(compared(by="activation"))
    assert one.pairs == 0 and "no pairs, 2 without a partner" in one.sentence and "data.train" in one.sentence


def test_what_may_differ_besides_is_named(on_record):
    runs = [run(2 * s + i, 0.1 + 0.05 * i + d, seed=s, train__backend=b, train__threads=i, model__dropout=0.1 * i)
            for s, d in enumerate(NOISE[:5]) for i, b in enumerate(("keras", "lightning"))]  # fmt: skip
    on_record(runs)
    assert only(compared(by="train.backend")).differ == ("model.dropout",)
    assert only(compared(by="train.backend", ignore=("dropout",))).pairs == 5  # threads make no other network


def test_options_that_only_one_kind_of_optimizer_has_keep_no_pair_apart(on_record):
    adam = {"train.optimizer.name": "adam", "train.optimizer.beta1": "0.9"}
    kinds = (adam, {"train.optimizer.name": "sgd", "train.optimizer.momentum": "0"})
    on_record([run(2 * s + i, 0.1 * i + d, seed=s, **kind) for s, d in enumerate(NOISE) for i, kind in enumerate(kinds)])
    assert only(compared(by="train.optimizer.name")).pairs == 10


def test_where_data_are_compared_runs_are_paired_by_how_they_were_split(on_record):
    """The rows are others then, by what is compared."""
    on_record([
        run(2 * s + i, 0.1 + 0.05 * i + d, seed=s, data__scaling=scaling, tags={"deltarule.data.train": f"t{i}"})
        for s, d in enumerate(NOISE) for i, scaling in enumerate(("none", "minmax"))
    ])  # fmt: skip
    assert only(compared(by="data.scaling")).pairs == 10


def test_groups_by_expressions_are_told_apart_by_what_differs_in_them(on_record):
    on_record(groups(APART))
    one = only(compared(one="activation = relu and seed < 5", other="activation = sigmoid and seed < 5"))
    assert (one.pairs, one.one, one.other, one.better) == (5, "a", "b", "a")


# Splits and folds ------------------------------------------------------------------------------------------------------


def splits(count, seeds=1, shift=0.0):
    return [one for s in range(count) for one in groups([shift + NOISE[s]] * seeds, first=100 * s, split=str(s))]


def test_each_split_counts_once_with_the_mean_of_its_seeds_and_made_wider_for_shared_rows(on_record):
    on_record(splits(5, seeds=4))
    one = only(compared(by="activation", metrics=("loss",)))
    assert (one.pairs, one.units, one.unit, one.splits, one.seeds) == (20, 5, "split", 5, 4)
    assert one.differences == pytest.approx(tuple(NOISE[:5])) and one.overlap == pytest.approx(1 / 3)
    assert "20 pairs by seed of 5 splits, the mean of each split" in one.sentence and "made wider" in one.sentence


def test_a_difference_between_splits_must_be_larger_than_one_between_seeds(on_record):
    shift = 0.004
    on_record(groups([shift + d for d in NOISE]))
    assert only(compared(by="activation")).verdict == "real"
    on_record(splits(10, shift=shift))
    one = only(compared(by="activation"))
    assert one.verdict == "cannot tell" and "no number of splits of these rows would show more" in one.sentence
    assert "10 pairs, one a split. " in one.sentence


def test_two_splits_cannot_tell_however_many_seeds_they_have(on_record):
    on_record(splits(2, seeds=8, shift=0.05))
    assert "only 2 paired splits, at least 3 are needed" in only(compared(by="activation")).sentence


def test_one_split_is_said_to_tell_of_the_seed_alone(on_record):
    on_record(groups(APART))
    assert any("one split of the rows" in note and "not about other rows" in note for note in compared(by="activation").notes)
    on_record(splits(5))
    assert not any("one split" in note for note in compared(by="activation").notes)


def test_runs_of_folds_are_compared_fold_by_fold(on_record, monkeypatch):
    runs = groups([0.05] * 2, data__split__folds=5)
    on_record(runs)
    losses = {
        run.id: [0.2 + 0.01 * fold + 0.001 * fold * n + 0.05 * (run.params["model.activation"] == "sigmoid") for fold in range(5)]
        for n, run in enumerate(runs)
    }
    tables = {i: "fold,rows,loss\n" + "".join(f"{n + 1},20,{v}\n" for n, v in enumerate(each)) for i, each in losses.items()}
    monkeypatch.setattr(comparison, "texts", lambda *_: tables)
    one = only(compared(by="activation", metrics=("loss",)))
    assert (one.pairs, one.units, one.unit, one.overlap, one.verdict) == (2, 5, "fold", 0.25, "real")
    assert one.differences == pytest.approx([0.05 + 0.001 * fold for fold in range(5)])
    assert not any("one split" in note for note in compared(by="activation", metrics=("loss",)).notes)


def test_means_over_folds_are_not_compared_over_splits(on_record):
    on_record([one for s in range(4) for one in groups([0.05], first=10 * s, split=str(s), data__split__folds=5)])
    told = r"--metric must be validate_\.\.\. to compare runs of folds over several splits, got best_val_loss"
    with pytest.raises(QueryError, match=told):
        compared(by="activation", metrics=("best_val_loss",))


# Several comparisons ---------------------------------------------------------------------------------------------------


def three_groups():
    return [*groups(NOISE), *(run(50 + s, 0.25 + d, seed=s, model__activation="tanh") for s, d in enumerate(NOISE))]


def test_all_pairs_of_several_groups_are_compared_and_corrected_and_it_is_said(on_record):
    on_record(three_groups())
    found = compared(by="activation", metrics=("loss", "accuracy"), margin="loss=0.01,accuracy=0.01")
    assert [(one.one, one.other) for one in found.comparisons[:3]] == [("relu", "sigmoid"), ("relu", "tanh"), ("sigmoid", "tanh")]
    assert all(one.comparisons == 6 and one.p_corrected >= one.p for one in found.comparisons)
    assert max(one.p_corrected / one.p for one in found.comparisons) > 3
    assert "corrected for 6 comparisons" in found.comparisons[0].sentence
    assert any("corrected for that (Holm 1979)" in note for note in found.notes)


def test_a_difference_that_only_its_own_p_would_call_real_is_not_called_so(on_record):
    on_record(groups([d + 0.0021 for d in NOISE]))
    assert only(compared(by="activation", metrics=("loss",))).verdict == "real"
    more = compared(by="activation", metrics=("loss", "accuracy"))
    assert [one.verdict for one in more.comparisons] == ["cannot tell"] * 2
    assert "real if it were the only one of 2 comparisons" in more.comparisons[0].sentence


def test_the_test_rows_are_warned_of_with_how_many_have_opened_them(on_record, tmp_path):
    (tmp_path / ".deltarule").mkdir()
    lines = [json.dumps({"test": "x0", "fingerprint": str(n)}) for n in range(7)]
    (tmp_path / ".deltarule/test-openings.jsonl").write_text("\n".join(lines))
    on_record(groups(APART))
    [note] = [one for one in compared(by="activation", metrics=("test_accuracy",), project=tmp_path).notes if "test rows" in one]
    assert "looks better than it is" in note and "7 experiments have opened them" in note


def test_runs_of_several_commits_are_told_of(on_record):
    tags = [{"mlflow.source.git.commit": str(n % 2)} for n in range(6)]
    on_record([run(n, 0.1 * n, seed=n // 2, model__activation="ab"[n % 2], tags=tags[n]) for n in range(6)])
    assert any("several commits" in note for note in compared(by="activation").notes)


# Side by side ----------------------------------------------------------------------------------------------------------


def test_only_what_differs_is_shown_with_metrics_and_their_intervals(on_record):
    one = run(1, 0.2, seed=0, search__seed=1)
    on_record([one, run(2, 0.3, seed=0, model__activation="tanh", model__slope=1, search__seed=2)])
    found = compared([one.id[:8], "runs/2"])
    assert found.params == {"model.activation": ("relu", "tanh"), "model.slope": ("", "1")}
    assert found.metrics["test_accuracy"][0].low == pytest.approx(0.7) and "best_val_loss" not in found.metrics
    assert found.curves["val_loss"] == ({1: 0.5, 2: 0.3},) * 2 and not found.comparisons


def test_other_rows_under_the_same_name_are_a_difference(on_record):
    on_record([run(1, 0.2, seed=0), run(2, 0.2, seed=0, tags={"deltarule.data.train": "other"})])
    assert compared().params == {"training rows": ("other", "t0")}


# The page --------------------------------------------------------------------------------------------------------------


def test_the_page_is_whole_in_itself_says_the_sentences_and_is_the_same_each_time(on_record):
    on_record(groups(APART, model__initializer="<b>"))
    found = compared(by="activation", margin="0.01").as_dict()
    page = compare_page(json.loads(json.dumps(found, allow_nan=False)))
    assert page == compare_page(found)
    assert found["comparisons"][0]["sentence"] in unescape(page) and "relu against sigmoid" in page
    assert page.count("data:image/png;base64,") == 2 and not re.search(r"(src|href)=.(?!data:)", page) and "<script" not in page


def test_the_page_of_two_runs_escapes_their_names_and_stands_without_curves(on_record):
    one, other = run(1, 0.2, seed=0, model__hidden="<i>1</i>"), run(2, 0.3, seed=0)
    on_record([one, other], curves={one.id: {"val_loss": {1: float("nan")}}, other.id: {}})
    page = compare_page(compared().as_dict())
    assert "&lt;i&gt;1&lt;/i&gt;" in page and "<i>" not in page and "image/png" not in page


def test_many_runs_stand_below_one_another_with_drawn_values_that_can_be_read(on_record):
    on_record([run(number, 0.2, seed=number, model__dropout=f"0.1234567890123{number}") for number in range(12)])
    found = compared()
    for text in (compare_page(found.as_dict()), "\n".join(lines(found))):
        assert "0.12346" in text and "0.123456" not in text
    assert "<h2>Runs</h2>" in compare_page(found.as_dict())
    assert "0.12345678901231" in found.as_dict()["params"]["model.dropout"]


def test_what_is_no_long_fraction_is_shown_whole():
    for text in ("relu", "0.001", "12345678901", "[128, 64]", "2024-12-31", ""):
        assert brief(text) == text
    assert brief("4.4368321855482495e-06") == "4.4368e-06"


# What is asked ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"by": "activaton"}, r"unknown key activaton.*did you mean model\.activation"),
        ({"by": "validate_loss"}, r"--by validate_loss must split the 20 runs into 2 to 12 groups, got 20"),
        ({"by": "data.split.seed"}, r"must split the 20 runs into 2 to 12 groups, got 1 \(0\)"),
        ({"by": "activation", "metrics": ("accurcy",)}, r"--metric must be one that the runs have, got accurcy.*did you mean"),
        ({"by": "activation", "margin": "small"}, "--margin must be a number above 0, got small"),
        ({"by": "activation", "margin": "-1"}, "--margin must be a number above 0, got -1"),
        (
            {"by": "activation", "metrics": ("loss", "accuracy"), "margin": "0.1"},
            r"name one for each metric.*validate_loss=X,validate_acc",
        ),
        ({"by": "activation", "margin": "loss=0.1"}, r"must be of what is compared \(validate_accuracy\), got validate_loss"),
        ({"one": "activation = relu", "other": "activation = elu"}, r"--b: activation = elu must be true of some run"),
        ({"one": "activation = relu", "other": "seed = 0"}, r"--a and --b must have no run in common, and have 1"),
        ({"one": "activation =", "other": "seed = 0"}, r"--a: expected KEY = VALUE"),
    ],
)
def test_what_cannot_be_compared_is_said_with_a_way_out(on_record, asked, told):
    on_record(groups(APART))
    with pytest.raises(QueryError, match=told):
        compared(**asked)


def test_several_data_sets_have_no_common_measure(on_record):
    on_record([*groups(APART), *groups(APART, first=100, split="9", tags={"deltarule.data": "wine"})])
    with pytest.raises(QueryError, match=r"one data set, got iris, wine.*--where"):
        compared(by="activation")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["nothing", "runs/1"], r"no run is on record under 'nothing'.*deltarule runs"),
        (["twin", "runs/1"], r"twin must name one run, and names 2: .*give an id"),
        (["runs/1"], "at least two runs are needed to compare, got 1"),
        (["runs/1", "run 1"], "at least two runs are needed to compare, got 1"),  # the same
    ],
)
def test_a_name_must_mean_one_run(on_record, names, told):
    twins = [Recorded(str(n) * 32, "twin", "FINISHED", 1.0, None, {}, {}, {}) for n in (1, 2)]
    on_record([run(1, 0.1), run(2, 0.2), *twins])
    with pytest.raises((QueryError, LookupFailed), match=told):
        compared(names)


def a_study(name, started, trials):
    tags = {"deltarule.kind": "study", "deltarule.study": name}
    parent = Recorded(f"{started:032x}", name, "FINISHED", started, None, {}, {}, tags)
    own = {"mlflow.parentRunId": parent.id, "deltarule.study": name}
    values = [{"best_val_loss": n / 10} for n in range(trials)]
    ids = [f"{started + 1 + n:032x}" for n in range(trials)]
    numbered = zip(ids, values, range(trials), strict=True)
    return [parent, *(Recorded(i, f"{name} {n}", "FINISHED", started + n, None, {}, v, own) for i, v, n in numbered)]


def test_the_trials_of_a_study_are_found_by_its_name_the_newest_of_that_name(on_record):
    on_record([*a_study("digits", 0x5000, 3), *a_study("digits", 0x9000, 4), run(1, 0.1), run(2, 0.2)])
    assert [one.name for one in compared(study="digits").runs] == [f"digits {n}" for n in (3, 2, 1, 0)]
    assert len(compared(study=f"{0x5000:032x}").runs) == 3
    assert len(compared().runs) == 2  # neither studies nor trials
    with pytest.raises(QueryError, match="no study 'digts' is on record; did you mean digits"):
        compared(study="digts")


# The table -------------------------------------------------------------------------------------------------------------


def test_runs_are_sorted_by_number_where_they_are_numbers_and_those_without_come_last():
    runs = [run(1, 0.3, seed=10), run(2, 0.1, seed=9), Recorded("a" * 32, "bare", "RUNNING", 5.0, None, {}, {}, {})]
    assert [one.name for one in listing(runs, sort="seed").runs] == ["run 2", "run 1", "bare"]
    assert [one.name for one in listing(runs, sort="seed", reverse=True).runs] == ["run 1", "run 2", "bare"]
    assert [one.name for one in listing(runs, reverse=True, limit=2).runs] == ["bare", "run 2"]


def test_the_usual_columns_are_those_that_some_run_has():
    found = listing([run(1, 0.3, seed=1)])
    assert " ".join(found.columns) == "id name status backend activation seed best_val_loss best_val_accuracy started"
    assert found.shown()[0][:7] == ["00000001", "run 1", "FINISHED", "lightning", "relu", "1", "0.3"]


def test_a_narrow_terminal_gets_fewer_columns_and_none_that_is_cut():
    found = listing([run(1, 0.3, seed=1)])
    widths = {width: found.fitting(width) for width in (200, 100, 80, 10)}
    assert widths[200].columns == found.columns and widths[200].hidden == ()
    assert all(max(map(len, plain_columns(each.columns, each.shown()))) <= width for width, each in widths.items() if width > 10)
    narrow, middle, wide = (set(widths[width].columns) for width in (10, 80, 100))
    assert {"id", "name", "best_val_loss"} <= narrow < middle < wide
    assert all(row[0] == "00000001" for row in widths[10].shown())


def test_a_narrow_terminal_keeps_the_columns_that_differ_and_says_what_it_hides():
    runs = [run(n, 0.1 * n, seed=3, train__backend=backend) for n, backend in enumerate(("keras", "lightning"))]
    found = listing(runs).fitting(60)
    assert "backend" in found.columns and not {"seed", "activation", "status"} & set(found.columns)
    assert found.hidden[1:] == ("status (FINISHED in all)", "seed (3 in all)", "activation (relu in all)")
    assert listing(runs[:1] * 2).fitting(10).hidden[-1].startswith("activation")


def test_what_a_terminal_hides_is_said_below_the_table(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    _, out, _ = command("runs")
    told = out.splitlines()[-1]
    assert told.startswith("hidden: started (2001-09-09 01:46 in all), status (FINISHED in all)") and told.endswith(
        "; a wider terminal shows them, or --columns"
    )
    assert "activation" in out.splitlines()[0] and max(map(len, out.splitlines()[:-1])) <= 80
    assert "hidden" not in command("runs", "--columns", "id,status")[1]


@pytest.mark.parametrize("name", ["val/loss", "metrics.val/loss", "val_loss", "metrics.val_loss"])
def test_a_metric_may_be_called_as_mlflow_shows_it(on_record, name):
    on_record(groups(APART))
    assert choose.Keys([run(1, 0.2)]).find(name) == choose.Key("metrics", "val_loss", name)
    assert len(deltarule.runs(f"{name} < 0.4")) == 20
    assert only(compared(by="activation", metrics=("validate/loss",))).metric == "validate_loss"


@pytest.fixture
def command(on_record, tmp_path, monkeypatch, capsys):
    """`command(...)` with the runs of two groups on record: exit code, standard output, standard error."""
    (tmp_path / "params.yaml").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    on_record(groups(APART))

    def call(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main(list(words))
        return ended.value.code, *capsys.readouterr()

    return call


def test_the_table_of_runs_says_what_it_leaves_out(command, on_record):
    code, out, _ = command("runs", "--where", "activation = relu", "--sort", "best_val_loss", "--limit", "3")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 5 and lines[-1].startswith("3 of 10 runs; --all")
    losses = [line.split()[7] for line in lines[1:4]]
    assert losses == sorted(losses)
    on_record([*groups(APART), *groups(APART, first=50, model__dropout=0.5)])
    assert command("runs")[1].splitlines()[-1].startswith("20 of 40 runs")
    assert len(command("runs", "--all")[1].splitlines()) == 41


def test_csv_and_json_leave_nothing_out_and_round_nothing(command):
    code, out, _ = command("runs", "--columns", "id, seed,best_val_loss", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and len(rows) == 20 and list(rows[0]) == ["id", "seed", "best_val_loss"]
    _, out, err = command("runs", "--json")
    found = json.loads(out)
    assert err == "" and found["total"] == 20
    by_id = {one["id"]: one for one in found["runs"]}
    assert all(by_id[row["id"]]["metrics"]["best_val_loss"] == float(row["best_val_loss"]) for row in rows)
    assert by_id[rows[0]["id"]]["values"]["seed"] == int(rows[0]["seed"])


def test_nothing_on_record_is_a_sentence_and_no_error(command, on_record):
    on_record([])
    assert command("runs") == (0, "no runs are on record; `deltarule run` and `dvc repro` make some\n", "")
    assert json.loads(command("runs", "--json", "--columns", "seed")[1])["runs"] == []
    code, _, err = command("compare")
    assert code == 2 and "at least two runs" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["runs", "--columns", "id,activaton"], "did you mean model.activation"),
        (["runs", "--where", "seed <"], "--where: expected KEY = VALUE"),
        (["runs", "--csv", "--json"], "--csv and --json do not go together"),
        (["runs", "--all", "--limit", "3"], "--all and --limit do not go together"),
        (["compare", "--a", "seed = 1"], "--a and --b go together"),
        (["compare", "--by", "seed", "--a", "seed=1", "--b", "seed=2"], "--by and --a, --b do not go together"),
        (["compare", "--margin", "1"], "--margin must go with groups"),
        (["compare", "runs/1", "--where", "seed = 1"], "give either runs by name, or --study and --where"),
        (["compare", "--html", "."], "'--html': file '.' is a directory"),
    ],
)
def test_bad_input_is_one_error_with_exit_code_2(command, words, told):
    code, out, err = command(*words)
    assert code == 2 and told in err and "Traceback" not in err and out == ""


def test_a_comparison_goes_to_the_terminal_to_json_and_to_a_page(command, tmp_path):
    code, out, _ = command("compare", "--by", "activation", "--html", "pages/a.html")
    assert code == 0 and "The difference is real" in out and "note: All pairs are of one split" in out
    assert (tmp_path / "pages/a.html").read_text().startswith("<!doctype html>")
    _, out, err = command("compare", "--by", "activation", "--json")
    found = json.loads(out)
    assert found["comparisons"][0]["verdict"] == "real" and "The difference is real" in err
    code, out, _ = command("compare", "runs/1", "run 2")
    assert code == 0 and "params that differ" in out and "Each is one run, one seed" in out
    heads = [line for line in out.splitlines() if line.endswith("run 2")]
    assert len(heads) == 2 and all(re.fullmatch(r" +runs/1 +run 2", line) for line in heads)
    assert "20 runs" in command("compare")[1]


def test_notebooks_get_the_same_as_plain_data(command):
    assert [one.params["seed"] for one in deltarule.runs("activation = relu and seed < 3")] == ["2", "1", "0"]
    found = deltarule.compare(by="activation", margin=0.01, metrics=["loss"])
    assert (found.comparisons[0].verdict, found.comparisons[0].margin) == ("real", 0.01)
    with pytest.raises(ValueError, match="at least two runs"):
        deltarule.compare(where="seed = 99")
