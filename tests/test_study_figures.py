"""The figures of a study show its trials, few or many, with what conditions left out, and say what they leave out."""

from __future__ import annotations

import csv
import json
import math
import struct
from dataclasses import replace

import numpy as np
import pytest
from synthetic_study import make, spec, study

from pipelines.report import study_figures as figures
from pipelines.report.study_axes import axes_of
from pipelines.report.study_figures import (
    best_so_far,
    contour,
    contour_pair,
    history,
    importance_bars,
    parallel,
    pareto,
    slices,
    study_figures,
    study_numbers,
    values_of,
)
from pipelines.search.importance import importances
from pipelines.search.pictures import draw_study
from pipelines.search.records import load_importances

SHARES = {"model.activation": 0.6, "regularization.l2": 0.3, "regularization.l1 or": 0.1}
ALWAYS = {"history", "parallel", "slice", "contour", "importances"}


@pytest.fixture(scope="module")
def record():
    return study(40, epochs=6)


def axis(record, path):
    return next(axis for axis in axes_of(record) if axis.path == path)


def offsets(panel):
    """Label -> points, of the scatters of a panel."""
    return {scatter.get_label(): np.asarray(scatter.get_offsets()) for scatter in panel.collections}


@pytest.mark.parametrize("count", [1, 5, 300])
def test_a_study_of_any_size_has_its_figures_as_png_of_a_readable_size(count):
    drawn = study_figures(study(count, epochs=3), SHARES)
    assert drawn.keys() == ALWAYS
    for png in drawn.values():
        assert png.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", png[16:24])
        assert 400 <= width <= 2400 and 250 <= height <= 1600


def test_the_same_study_gives_the_same_bytes(record):
    assert study_figures(record, SHARES) == study_figures(record, SHARES)


def test_several_metrics_have_a_front_and_a_panel_each():
    several = study(30, epochs=3, metrics=("accuracy", "weights"))
    assert study_figures(several, SHARES).keys() == ALWAYS | {"pareto"}
    assert len(history(several).axes) == 2
    [panel] = pareto(several).axes
    front = next(line for line in panel.get_lines() if "front" in line.get_label())
    expected = sorted(several.trial(n).values for n in several.front)
    assert list(zip(front.get_xdata(), front.get_ydata(), strict=True)) == expected
    assert {text.get_text() for text in panel.texts} == {str(n) for n in several.front}


def test_a_study_without_a_completed_trial_shows_what_there_is(record):
    failed = tuple(replace(trial, state="FAIL", values=()) for trial in record.trials)
    assert study_figures(replace(record, trials=failed, best=None, front=()), {}).keys() == {"history"}
    assert study_figures(replace(record, trials=(), best=None), {}) == {}


def test_history_marks_each_trial_by_what_became_of_it_and_the_best_so_far(record):
    [panel] = history(record).axes
    shown, values = offsets(panel), {t.number: t.values[0] for t in record.trials if t.values}
    assert dict(shown["completed"]) == values
    assert [x for x, _ in shown["pruned, best so far"]] == [t.number for t in record.trials if t.state == "PRUNED"]
    assert [x for x, _ in shown["failed"]] == [7, 23, 39]
    line = next(line for line in panel.get_lines() if line.get_label() == "best so far")
    assert line.get_ydata()[-1] == min(values.values()) and np.all(np.diff(line.get_ydata()) <= 0)
    assert tuple(shown[f"best: trial {record.best}"][0]) == (record.best, values[record.best])


def test_a_pruned_trial_stands_at_the_best_it_had_and_never_counts_as_the_best(record):
    pruned = next(i for i, t in enumerate(record.trials) if t.state == "PRUNED")
    lucky = tuple({**row, "val_loss": 1e-9} for row in record.trials[pruned].history)
    trials = list(record.trials)
    trials[pruned] = replace(trials[pruned], history=lucky)
    changed = replace(record, trials=tuple(trials))
    assert values_of(changed, 0)[pruned] == 1e-9
    assert np.nanmin(best_so_far(changed, 0)) == min(t.values[0] for t in record.trials if t.values)


def test_what_is_to_be_maximised_has_its_greatest_as_best():
    record = study(20, epochs=3, metrics=("accuracy",), experiment=spec(search={"metric": "accuracy", "direction": "maximize"}))
    assert best_so_far(record, 0)[-1] == max(t.values[0] for t in record.trials if t.values)


def test_a_key_drawn_by_its_logarithm_stands_on_a_log_scale_and_off_stands_below_it(record):
    found = axis(record, "regularization.l1")
    for place, inside, trial in zip(found.places, found.inside, record.trials, strict=True):
        if "regularization.l1" in trial.params:
            assert inside and place == pytest.approx(math.log10(trial.params["regularization.l1"]))
        else:
            assert not inside and found.low < place < -6
    assert found.ticks[0][1] == "0" and "1e-6" in [text for _, text in found.ticks]
    assert len({round(place, 9) for place in found.places[~found.inside]}) == 1


def test_a_key_that_a_condition_left_out_is_not_taken_for_a_value(record):
    trials = tuple(
        replace(t, params={k: v for k, v in t.params.items() if k != "model.dropout"}) if t.number % 3 == 0 else t
        for t in record.trials
    )
    some = replace(record, trials=trials)
    found = axis(some, "model.dropout")
    assert [n for n, place in enumerate(found.places) if math.isnan(place)] == [t.number for t in trials if t.number % 3 == 0]
    [panel] = [p for p in slices(some, [found]).axes if p.get_xlabel() == "dropout p"]
    assert panel.get_title() == f"not drawn in {sum(t.number % 3 == 0 for t in trials)} trials"
    assert any("not drawn" in text.get_text() for text in parallel(some, [found]).axes[0].texts)


def test_choices_stand_in_the_order_of_the_spec_under_their_names(record):
    found = axis(record, "model.activation")
    assert [text for _, text in found.ticks] == ["relu", "tanh", "sigmoid"]
    assert [found.ticks[int(place)][1] for place in found.places] == [t.params["model.activation"] for t in record.trials]


def test_parallel_coordinates_have_a_line_for_each_completed_trial_through_its_values(record):
    axes = [axis(record, "model.dropout")]
    panel = parallel(record, axes).axes[0]
    lines = panel.collections[0].get_segments()
    done = [t for t in record.trials if t.state == "COMPLETE"]
    low, high = min(t.values[0] for t in done), max(t.values[0] for t in done)
    drawn = sorted((y0, y1) for (_, y0), (_, y1) in lines)
    span = axes[0].high - axes[0].low
    expected = [((t.params["model.dropout"] - axes[0].low) / span, (t.values[0] - low) / (high - low)) for t in done]
    assert np.allclose(drawn, sorted(expected))


def test_of_more_keys_than_can_be_read_the_most_important_are_shown_and_it_is_said(record):
    many = [axis(record, "model.dropout")] * 20
    assert "the 7 of 20 keys that matter most" in parallel(record, many).get_suptitle()
    assert "the 12 of 20 keys that matter most" in slices(record, many).get_suptitle()


def test_keys_come_by_importance_and_off_or_on_counts_for_its_key(record):
    shares = {"regularization.l1": 0.2, "regularization.l1 or": 0.5, "model.dropout": 0.3}
    assert [a.path for a in figures._by_importance(axes_of(record), shares)][:2] == ["regularization.l1", "model.dropout"]


def test_the_contour_is_of_a_penalty_and_a_dropout_else_of_the_two_numbers_that_matter_most(record):
    axes = axes_of(record)
    assert [a.path for a in contour_pair(axes)] == ["regularization.l1", "model.dropout"]
    others = [a for a in reversed(axes) if a.path != "model.dropout"]
    assert [a.path for a in contour_pair(others)] == ["train.optimizer.learning_rate", "regularization.l2"]
    assert contour_pair([a for a in axes if not a.numeric]) is None


def test_a_contour_has_a_surface_near_the_trials_alone_and_keeps_off_trials_out(record):
    across, up = axis(record, "regularization.l1"), axis(record, "model.dropout")
    panel = contour(record, across, up).axes[0]
    assert panel.get_title() == "Smoothed between the trials; blank where none is near"
    points = max((c.get_offsets() for c in panel.collections), key=len)
    used = [t for t in record.trials if t.state == "COMPLETE" and "regularization.l1" in t.params]
    assert len(points) == len(used)
    two = np.isin(np.arange(len(record.trials)), [used[0].number, used[1].number])
    *_, surface = figures._surface(across, up, values_of(record, 0), two)
    assert 0.5 < surface.mask.mean() < 1  # two trials cover a small part of the plane
    assert {round(float(surface.min()), 3), round(float(surface.max()), 3)} == {round(t.values[0], 3) for t in used[:2]}


def test_of_too_few_trials_no_surface_is_invented_and_the_reason_stands_there():
    few = study(5, epochs=3)
    panel = contour(few, axis(few, "regularization.l2"), axis(few, "model.dropout")).axes[0]
    assert panel.get_title() == "No surface: 8 completed trials with both drawn are needed, there are 5"
    assert len(panel.figure.axes) == 1  # no colour bar


def test_importances_are_bars_with_their_numbers(record):
    [panel] = importance_bars(record, SHARES).axes
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert names == ["regularization.l1: off or on", "regularization.l2", "model.activation"]
    assert [bar.get_width() for bar in panel.patches] == [0.1, 0.3, 0.6]
    assert [text.get_text() for text in panel.texts] == ["0.10", "0.30", "0.60"]


def test_the_numbers_stand_beside_the_figures(record):
    written = study_numbers(record, SHARES)
    rows = list(csv.DictReader(written["history.csv"].decode().splitlines()))
    assert [row["state"] for row in rows] == [t.state for t in record.trials]
    assert [float(row["loss"]) for row in rows if row["loss"]] == [t.values[0] for t in record.trials if t.values]
    assert float(rows[-1]["best_loss"]) == min(t.values[0] for t in record.trials if t.values)
    assert json.loads(written["importances.json"]) == SHARES


def test_a_folder_gets_its_figures_and_loses_those_that_no_longer_hold(tmp_path):
    folder = make(tmp_path, 12, epochs=3)
    (folder / "figures").mkdir()
    (folder / "figures/pareto.png").write_text("of another time")
    written = {path.name for path in draw_study(folder)}
    assert written == {f"{name}.png" for name in ALWAYS} | {"history.csv", "importances.json"}
    assert {path.name for path in (folder / "figures").iterdir()} == written
    assert json.loads((folder / "figures/importances.json").read_text()) == load_importances(folder)


# Importances -----------------------------------------------------------------------------------------------------------


def optuna_study(record, shown=lambda trial: True):
    """The study as Optuna holds it."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    ranges = {
        "model.activation": CategoricalDistribution(("relu", "tanh", "sigmoid")),
        "model.dropout": FloatDistribution(0, 0.6),
        "regularization.l1 or": CategoricalDistribution(("range", 0.0)),
        "regularization.l1": FloatDistribution(1e-6, 1e-2, log=True),
        "regularization.l2": FloatDistribution(1e-6, 1e-2, log=True),
        "train.optimizer.learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = optuna.create_study()
    for trial in filter(shown, record.trials):
        if trial.state == "COMPLETE":
            known = {name: ranges[name] for name in trial.params}
            found.add_trial(optuna.trial.create_trial(params=trial.params, distributions=known, value=trial.values[0]))
    return found


def test_importances_find_what_the_values_were_made_of():
    """Of the variance sigmoid makes 0.44, η 0.38, p 0.10, λ₂ 0.08, and λ₁ nothing; on a raw scale η would have 0.03."""
    found = importances(optuna_study(study(300, epochs=8, states=False)))
    assert list(found)[:2] == ["model.activation", "train.optimizer.learning_rate"]
    assert found["train.optimizer.learning_rate"] > 0.25
    assert found["regularization.l1"] + found["regularization.l1 or"] < 0.05
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)


def test_a_key_that_some_trials_lack_has_its_importance_too():
    made = study(60, epochs=4, states=False)
    assert any("regularization.l1" not in t.params for t in made.trials)
    assert "regularization.l1" in importances(optuna_study(made))


def test_importances_are_the_same_each_time_and_do_not_depend_on_the_order_of_keys():
    one = optuna_study(study(30, epochs=4))
    assert importances(one) == importances(one)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_of_too_few_trials_there_are_no_importances(count):
    assert importances(optuna_study(study(30, epochs=3, states=False), lambda trial: trial.number < count)) == {}
