"""The figures of a study show its trials, few or many, beside their numbers, and leave matplotlib as it was."""

from __future__ import annotations

import struct

import matplotlib
import optuna
import pytest
from matplotlib import pyplot
from optuna.distributions import CategoricalDistribution, FloatDistribution
from synthetic_study import study

from pipelines.report import style
from pipelines.search import figures
from pipelines.search.figures import draw_study, importances

SHARES = {"model.activation": 0.6, "regularization.l2": 0.3, "regularization.l1 or": 0.1}
ALWAYS = {"history.png", "parallel.png", "slice.png", "contour.png", "importances.png"}
RANGES = {
    "model.activation": CategoricalDistribution(("relu", "tanh", "sigmoid")),
    "model.dropout": FloatDistribution(0, 0.6),
    "regularization.l1 or": CategoricalDistribution(("range", 0.0)),
    "regularization.l1": FloatDistribution(1e-6, 1e-2, log=True),
    "regularization.l2": FloatDistribution(1e-6, 1e-2, log=True),
    "train.optimizer.learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
}


def optuna_study(record, shown=lambda trial: True):
    """The study as Optuna holds it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = optuna.create_study(study_name=record.name, directions=list(record.directions))
    for trial in filter(shown, record.trials):
        seen = {} if len(record.metrics) > 1 else {int(row["epoch"]): row["val_loss"] for row in trial.history}
        made = optuna.trial.create_trial(
            state=optuna.trial.TrialState[trial.state],
            params=trial.params,
            distributions={name: RANGES[name] for name in trial.params},
            values=trial.values or None,
            intermediate_values=seen,
        )
        found.add_trial(made)
    return found


@pytest.fixture(scope="module")
def record():
    return study(40, epochs=6)


@pytest.fixture
def panels(record, monkeypatch, tmp_path):
    """The panels of each figure."""
    monkeypatch.setattr(figures, "KEYS", 3)
    seen = []
    monkeypatch.setattr(style, "png", lambda drawing: seen.append(drawing.axes) or b"")
    draw_study(tmp_path, optuna_study(record), record.metrics, SHARES)
    return dict(zip(("history", "slice", "parallel", "contour", "importances"), seen, strict=True))


@pytest.fixture(scope="module")
def drawn(record, tmp_path_factory):
    """The folder of the record with its figures; before, it had one of another time."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "figures").mkdir()
    (folder / "figures/pareto.png").write_text("of another time")
    draw_study(folder, optuna_study(record), record.metrics, SHARES)
    return folder / "figures"


@pytest.mark.parametrize("count", [1, 300])
def test_a_study_of_any_size_has_its_figures_as_png_of_a_readable_size(count, tmp_path):
    written = draw_study(tmp_path, optuna_study(study(count, epochs=3)), ("loss",), SHARES)
    few = {"slice.png", "parallel.png", "contour.png"} if count == 1 else set()  # of one trial there is nothing to compare
    assert {path.name for path in written} == ALWAYS - few
    for path in tmp_path.glob("figures/*.png"):
        png = path.read_bytes()
        assert png.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", png[16:24])
        assert 400 <= width <= 2400 and 250 <= height <= 1600


def test_the_same_study_gives_the_same_bytes_and_leaves_pyplot_as_it_was(record, drawn, tmp_path):
    mine = pyplot.figure()
    before = dict(matplotlib.rcParams), dict(matplotlib.style.library["ggplot"]), pyplot.get_fignums()
    again = draw_study(tmp_path, optuna_study(record), record.metrics, SHARES)
    assert before == (dict(matplotlib.rcParams), dict(matplotlib.style.library["ggplot"]), pyplot.get_fignums())
    pyplot.close(mine)
    assert {path.name: path.read_bytes() for path in again} == {path.name: path.read_bytes() for path in drawn.iterdir()}


def test_several_metrics_have_a_front_and_a_history_each(tmp_path):
    several = study(30, epochs=3, metrics=("accuracy", "weights"))
    written = {path.name: path for path in draw_study(tmp_path, optuna_study(several), several.metrics, SHARES)}
    assert written.keys() == ALWAYS | {"pareto.png", "history_weights.png"}


def test_of_a_study_without_a_completed_trial_there_are_none(record, tmp_path):
    failed = optuna_study(record, lambda trial: trial.state != "COMPLETE")
    assert draw_study(tmp_path, failed, ("loss",), {}) == []


def test_no_figure_stays_that_no_longer_holds(drawn):
    assert {path.name for path in drawn.iterdir()} == ALWAYS


def test_pruned_trials_stand_at_the_best_they_came_to(record, panels):
    [panel] = panels["history"]
    shown = {scatter.get_label(): scatter.get_offsets().tolist() for scatter in panel.collections}
    assert shown["loss"] == [[t.number, t.values[0]] for t in record.trials if t.state == "COMPLETE"]
    pruned = [t for t in record.trials if t.state == "PRUNED"]
    assert shown["pruned, best so far"] == [[t.number, min(row["val_loss"] for row in t.history)] for t in pruned]


def test_a_figure_says_of_which_study_it_is_and_in_our_look(record, panels):
    counts = ", ".join(f"{n} {state.lower()}" for state, n in record.counts().items())
    for axes in panels.values():
        assert axes[0].figure.get_suptitle() == f"Study s: {counts}"
        assert matplotlib.colors.to_hex(axes[0].get_facecolor()) == "#ffffff"


def test_of_more_keys_than_can_be_read_the_most_important_are_shown(panels):
    assert {panel.get_xlabel() for panel in panels["slice"][:-1]} == set(SHARES)
    assert len(panels["parallel"]) == 1 + len(SHARES) + 1  # the metric, the keys, the colour bar


def test_the_contour_is_of_a_penalty_and_a_dropout(panels):
    panel = panels["contour"][0]
    assert {panel.get_xlabel(), panel.get_ylabel()} == {"model.dropout", "regularization.l2"}


def test_importances_are_bars_of_the_numbers_beside_them(panels):
    panel = panels["importances"][0]
    assert [bar.get_width() for bar in panel.patches] == pytest.approx([0.1, 0.3, 0.6])


# Importances -----------------------------------------------------------------------------------------------------------


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
