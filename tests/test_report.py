"""Figures show what the outs of a run hold, for every task, and need nothing that a run may lack."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import make, write_csv

from pipelines.report import figures, style
from pipelines.report.figures import confusion, gradient_flow, learning_curves, read, residuals, roc

ROOT = Path(__file__).parents[1]
TRAINING = {"learning_curves", "gradient_flow"}
CLASSES = {"validate_confusion", "validate_roc", "test_confusion", "test_roc"}
EXPECTED = {
    "multiclass": TRAINING | CLASSES,
    "binary": TRAINING | CLASSES,
    "regression": TRAINING | {"validate_residuals", "test_residuals"},
}


def lines(panel):
    return {line.get_label(): line for line in panel.get_lines()}


def columns(**values):
    return {name: np.asarray(cells, dtype=float) for name, cells in values.items()}


@pytest.fixture
def history(tmp_path):
    return read(make(tmp_path, epochs=6).history)


@pytest.mark.parametrize("task", EXPECTED)
def test_each_task_has_its_figures_as_png_of_a_readable_size(tmp_path, task):
    drawn = figures(make(tmp_path, task))
    assert drawn.keys() == EXPECTED[task]
    for png in drawn.values():
        assert png.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", png[16:24])
        assert 400 <= width <= 2400 and 400 <= height <= 1600


def test_the_same_outs_give_the_same_bytes_in_another_process(tmp_path):
    places = make(tmp_path)
    code = """
import hashlib, sys
from pathlib import Path
from pipelines.report import figures
from pipelines.stages.places import Places
for name, png in figures(Places(Path(sys.argv[1]))).items():
    print(name, hashlib.sha256(png).hexdigest())
print("pyplot", "matplotlib.pyplot" in sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = [
        subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert said[0].splitlines()[-1] == "pyplot False"  # whose global state a notebook would share
    assert len(said[0].splitlines()) == 1 + len(figures(places))


def test_only_the_stages_asked_for_are_drawn(tmp_path):
    assert figures(make(tmp_path), stages=("train",)).keys() == TRAINING
    assert figures(make(tmp_path), stages=("test",)).keys() == {"test_confusion", "test_roc"}


def test_what_was_not_carried_out_is_not_drawn(tmp_path):
    assert figures(make(tmp_path, stages=("data", "train"))).keys() == TRAINING


def test_a_run_that_diverged_at_some_epoch_is_drawn_up_to_there(tmp_path):
    assert figures(make(tmp_path, ended="diverged", diverged_at=3), stages=("train",)).keys() == TRAINING


def test_a_run_of_no_whole_epoch_has_no_curves(tmp_path):
    places = make(tmp_path, ended="diverged", diverged_at=1)
    places.history.write_text("epoch\n")
    assert figures(places, stages=("train",)) == {}


def test_learning_curves_keep_the_penalty_apart_from_the_losses_and_mark_the_best_epoch(history):
    loss, penalty, metrics = learning_curves(history, "a run", best_epoch=5).axes
    shown = lines(loss)
    assert np.array_equal(shown["training E, as trained"].get_ydata(), history["train_loss"])
    assert np.array_equal(shown["validation E"].get_ydata(), history["val_loss"])
    assert np.array_equal(lines(penalty)["λΩ"].get_ydata(), history["train_penalty"])
    assert np.array_equal(lines(metrics)["accuracy"].get_ydata(), history["val_accuracy"])
    assert {tuple(lines(panel)["best epoch: 5"].get_xdata()) for panel in (loss, penalty, metrics)} == {(5, 5)}


def test_without_penalty_there_is_no_panel_for_it(history):
    history["train_penalty"][:] = 0
    assert len(learning_curves(history, "a run", 5).axes) == 2


def test_metrics_in_the_targets_units_stand_apart_from_the_others_and_hide_no_target(tmp_path):
    table = columns(epoch=[1, 2], train_loss=[2, 1], train_penalty=[0, 0], val_loss=[2, 1], val_rmse=[90, 80], val_mae=[70, 60])
    table |= columns(val_r2=[0.1, 0.2], **{"val_rmse.Weight": [1, 2]})
    _, units, others = learning_curves(table, "a run", None).axes
    assert lines(units).keys() == {"RMSE", "MAE"} and units.get_ylabel() == "in the target's units"
    assert lines(others).keys() == {"R²"}


def test_a_run_of_one_epoch_shows_its_points():
    table = columns(epoch=[1], train_loss=[2], train_penalty=[0], val_loss=[2])
    assert {line.get_marker() for line in learning_curves(table, "a run", None).axes[0].get_lines()} == {"o"}


def test_gradient_flow_shows_every_layer_on_a_log_scale_beside_saturated_and_dead_units(history):
    flow, saturated, dead = gradient_flow(history, "a run").axes
    assert flow.get_yscale() == "log"
    assert list(lines(flow)) == ["hidden layer 1", "hidden layer 2", "output layer"]
    assert np.array_equal(lines(flow)["output layer"].get_ydata(), history["delta_rms_3"])
    assert np.array_equal(lines(saturated)["hidden layer 2"].get_ydata(), history["saturated_2"])
    assert np.array_equal(lines(dead)["hidden layer 2"].get_ydata(), history["dead_2"])
    assert [line.get_color() for line in flow.get_lines()][:2] == [line.get_color() for line in dead.get_lines()]


def test_layers_are_in_the_order_of_their_numbers_and_all_of_different_colours():
    table = columns(epoch=[1, 2], **{f"delta_rms_{i}": [i, i] for i in range(12, 0, -1)})
    shown = gradient_flow(table, "a run").axes[0].get_lines()
    assert [line.get_ydata()[0] for line in shown] == list(range(1, 13))
    assert len({str(line.get_color()) for line in shown}) == 12


def test_a_signal_that_is_nowhere_positive_is_drawn_too():
    table = columns(epoch=[1, 2], delta_rms_1=[0, np.nan])
    assert gradient_flow(table, "a run").axes[0].get_yscale() == "linear"


def test_a_confusion_matrix_counts_actual_classes_in_rows_and_says_how_many_are_right():
    table = {"actual": ["2", "2", "10", "2"], "predicted": ["2", "10", "10", "2"]}
    drawing = confusion(table, "a run")
    panel = drawing.axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["2", "10"]  # by value, not by spelling
    counts = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in panel.texts}
    assert counts == {(0, 0): "2", (0, 1): "1", (1, 1): "1"}
    assert "3 of 4 right" in drawing.get_suptitle()


def test_a_confusion_matrix_of_many_long_class_names_stays_readable():
    names = [f"a class with a long name, number {i}" for i in range(60)]
    panel = confusion({"actual": names, "predicted": names}, "a run").axes[0]
    shown = [label.get_text() for label in panel.get_xticklabels()]
    assert len(shown) <= 60 and max(map(len, shown)) <= 18
    assert not panel.texts


def test_roc_shows_the_area_of_each_class_and_of_many_classes_the_worst():
    steps = np.linspace(0, 1, 400)
    curves = [(f"c{power}", x, x ** (power / 10)) for power in range(1, 10) for x in steps]
    table = {"class": [c for c, _, _ in curves], "fpr": [str(x) for _, x, _ in curves], "tpr": [str(y) for _, _, y in curves]}
    panel = roc(table, "a run").axes[0]
    worst = [label for label in lines(panel) if label.startswith("c")]
    assert worst[0] == "c9: area 0.526" and len(worst) == 7 and not any(label.startswith("c1:") for label in worst)
    assert "7 worst of 9" in panel.get_title()


def test_residuals_are_true_minus_predicted_for_each_target():
    table = {"target": ["a", "b"], "actual": ["3", "10"], "predicted": ["1", "20"], "residual": ["2", "-10"]}
    against_a, left_a, _, left_b = residuals(table, "a run").axes
    assert against_a.collections[0].get_offsets().tolist() == [[3, 1]]
    assert left_a.collections[0].get_offsets().tolist() == [[1, 2]]
    assert left_b.collections[0].get_offsets().tolist() == [[20, -10]]
    assert "(b)" in left_b.get_title()


def test_of_many_targets_the_first_are_shown_and_it_is_said():
    table = {"target": [f"t{i}" for i in range(30)], "actual": ["1"] * 30, "predicted": ["2"] * 30}
    drawing = residuals(table, "a run")
    assert len(drawing.axes) == 16 and "first 8 of 30 targets" in drawing.get_suptitle()


def test_every_panel_says_what_it_shows(tmp_path, history):
    drawings = [learning_curves(history, "digits, relu", 5), gradient_flow(history, "digits, relu")]
    drawings.append(residuals({"target": ["a"], "actual": ["1"], "predicted": ["2"]}, "digits, relu"))
    for drawing in drawings:
        assert drawing.get_suptitle() == "digits, relu"
        assert all(panel.get_xlabel() and panel.get_ylabel() and panel.get_title() for panel in drawing.axes)


def test_empty_cells_are_gaps(tmp_path):
    write_csv(tmp_path / "history.csv", [{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": ""}])
    assert np.isnan(read(tmp_path / "history.csv")["val_loss"][1])


def test_neighbouring_colours_differ_in_lightness_so_that_they_differ_in_grey_too():
    def lightness(colour):
        return sum(w * int(colour[i : i + 2], 16) for w, i in zip((0.299, 0.587, 0.114), (1, 3, 5), strict=True))

    assert abs(lightness(style.BLUE) - lightness(style.VERMILION)) > 20
    assert len(set(style.COLOURS)) == len(style.COLOURS)
