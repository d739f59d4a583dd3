"""Figures show what the outs of a run hold, for every task, and need nothing that a run may lack."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import make, write_csv

from pipelines.report import figures, run_page, run_report, style
from pipelines.report.outs import Outs
from pipelines.report.predictions import calibration, confusion, precision_recall, residuals, roc
from pipelines.report.training import gradient_flow, gradient_profile, learning_curves, weights

ROOT = Path(__file__).parents[1]
TRAINING = {"learning_curves", "gradient_flow", "gradient_profile"}
TRAINED = TRAINING | {"weights"}
CLASSES = {f"{stage}_{name}" for stage in ("validate", "test") for name in ("confusion", "roc", "pr", "calibration")}
EXPECTED = {
    "multiclass": TRAINED | CLASSES,
    "binary": TRAINED | CLASSES,
    "regression": TRAINED | {"validate_residuals", "test_residuals"},
}


def lines(panel):
    return {line.get_label(): line for line in panel.get_lines()}


def columns(**values):
    return {name: np.asarray(cells, dtype=float) for name, cells in values.items()}


@pytest.fixture
def history(tmp_path):
    return Outs(make(tmp_path, epochs=6).root).table("train/history.csv")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """task -> its places and its figures, which take a second or two."""
    places = {task: make(tmp_path_factory.mktemp(task), task) for task in EXPECTED}
    return {task: (where, figures(where.root)) for task, where in places.items()}


def test_figures_and_page_have_the_name_and_the_id_of_the_run_where_they_are_known(tmp_path):
    root, named = make(tmp_path, stages=("data", "train")).root, "cost $5 <b> and $6 (f993c720)"
    title = next(drawing for _, drawing in run_report._of(Outs(root, named), "train")).get_suptitle()
    assert title.splitlines() == ["digits, relu, lightning", f"run {named}"]
    drawn = figures(root, ("train",), named)
    assert drawn.keys() == TRAINED and not set(drawn.values()) & set(figures(root, ("train",)).values())
    assert "run cost $5 &lt;b&gt; and $6 (f993c720)" in run_page(root, {}, named=named)


@pytest.mark.parametrize("task", EXPECTED)
def test_each_task_has_its_figures_as_png_of_a_readable_size(runs, task):
    _, drawn = runs[task]
    assert drawn.keys() == EXPECTED[task]
    for png in drawn.values():
        assert png.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", png[16:24])
        assert 400 <= width <= 2400 and 300 <= height <= 1600


def test_the_same_outs_give_the_same_bytes_in_another_process_figures_and_page(runs):
    places, drawn = runs["binary"]
    code = """
import hashlib, sys
from pathlib import Path
from pipelines.report import figures, run_page
folder = Path(sys.argv[1])
drawn = figures(folder)
for name, png in drawn.items():
    print(name, hashlib.sha256(png).hexdigest())
print("page", hashlib.sha256(run_page(folder, drawn).encode()).hexdigest())
from matplotlib import pyplot
print("pyplot", pyplot.get_fignums())
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, places.root], env=environment, check=True, capture_output=True, text=True)
    *files, page, pyplot = done.stdout.splitlines()
    assert files == [f"{name} {hashlib.sha256(png).hexdigest()}" for name, png in drawn.items()]
    assert page == f"page {hashlib.sha256(run_page(places.root, drawn).encode()).hexdigest()}"
    assert pyplot == "pyplot []"  # whose global state a notebook would share


def test_only_the_stages_asked_for_are_drawn(tmp_path):
    assert figures(make(tmp_path).root, stages=("test",)).keys() == {name for name in CLASSES if name.startswith("test")}


def test_what_was_not_carried_out_is_not_drawn(tmp_path):
    assert figures(make(tmp_path, stages=("data", "train")).root).keys() == TRAINED


def test_a_report_that_is_left_over_from_another_model_is_not_drawn(tmp_path):
    make(tmp_path, fingerprint="aaaa" + "0" * 28)
    assert figures(make(tmp_path, stages=("data", "train")).root).keys() == TRAINED


def test_a_run_that_diverged_at_some_epoch_is_drawn_up_to_there(tmp_path):
    assert figures(make(tmp_path, ended="diverged", diverged_at=3).root, stages=("train",)).keys() == TRAINING


def test_a_run_of_no_whole_epoch_has_no_curves(tmp_path):
    places = make(tmp_path, ended="diverged", diverged_at=1)
    places.history.write_text("epoch\n")
    assert figures(places.root, stages=("train",)) == {}


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


def test_the_profile_shows_the_signal_of_the_first_the_best_and_the_last_epoch_layer_by_layer(history):
    panel = gradient_profile(history, "a run", 4, "relu").axes[0]
    shown = lines(panel)
    assert list(shown) == ["epoch 1 (first)", "epoch 4 (best)", "epoch 6 (last)"] and panel.get_yscale() == "log"
    assert shown["epoch 4 (best)"].get_xdata().tolist() == [1, 2, 3]
    assert shown["epoch 4 (best)"].get_ydata().tolist() == [history[f"delta_rms_{layer}"][3] for layer in (1, 2, 3)]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "2", "output"]


def test_an_epoch_that_is_first_best_and_last_stands_once():
    table = columns(epoch=[1], delta_rms_1=[0.1], delta_rms_2=[0.2])
    assert list(lines(gradient_profile(table, "a run", 1, "relu").axes[0])) == ["epoch 1 (first, best, last)"]


def test_the_profile_of_a_sigmoid_net_has_the_line_that_falls_to_a_quarter_a_layer():
    table = columns(epoch=[1], **{f"delta_rms_{layer}": [1.0] for layer in range(1, 13)})
    [bound] = [line for label, line in lines(gradient_profile(table, "a run", 1, "sigmoid").axes[0]).items() if "1/4" in label]
    assert bound.get_ydata().tolist() == [0.25 ** (12 - layer) for layer in range(1, 13)]
    assert not [label for label in lines(gradient_profile(table, "a run", 1, "tanh").axes[0]) if "1/4" in label]


def bins(layers):
    rows = [(layer, low, low + 1, low + 0.5, 3, layer) for layer in range(1, layers + 1) for low in (-1, 0)]
    return dict(zip(("layer", "low", "high", "middle", "initial", "final"), np.array(rows, float).T, strict=True))


def test_weights_are_shown_as_shares_before_and_after_in_a_panel_a_layer():
    drawing = weights(bins(3), "a run")
    assert [panel.get_title() for panel in drawing.axes] == ["hidden layer 1", "hidden layer 2", "output layer"]
    after, before = drawing.axes[1].patches
    assert after.get_data().values.tolist() == before.get_data().values.tolist() == [0.5, 0.5]
    assert after.get_data().edges.tolist() == [-1, 0, 1]


def test_of_a_very_deep_net_some_layers_are_shown_from_the_first_to_the_last_and_it_is_said():
    drawing = weights(bins(30), "a run")
    titles = [panel.get_title() for panel in drawing.axes]
    assert len(titles) == 12 and titles[0] == "hidden layer 1" and titles[-1] == "output layer"
    assert "12 of 30 layers" in drawing.get_suptitle()


def test_a_confusion_matrix_counts_actual_classes_in_rows_and_says_how_many_are_right():
    table = {"actual": ["2", "2", "10", "2"], "predicted": ["2", "10", "10", "2"]}
    drawing = confusion(table, "a run")
    panel = drawing.axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["2", "10"]  # by value, not by spelling
    counts = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in panel.texts if text.get_text()}
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
    areas = {"class": [f"c{power}" for power in range(1, 10)], "roc_auc": [str(10 / (10 + power)) for power in range(1, 10)]}
    panel = roc(table, "a run", areas).axes[0]
    worst = [label for label in lines(panel) if label.startswith("c")]
    assert worst[0] == "c9: area 0.526" and len(worst) == 7 and not any(label.startswith("c1:") for label in worst)
    assert "7 worst of 9" in panel.get_title()


def test_the_area_below_a_curve_is_that_of_all_rows_as_the_stage_has_it():
    table = {"class": ["b", "b"], "fpr": ["0", "1"], "tpr": ["0", "1"], "recall": ["0.5", "1"], "precision": ["1", "0.5"]}
    known = {"class": ["a", "b"], "rows": ["30", "10"], "roc_auc": ["0.9", "0.875"], "pr_auc": ["0.9", "0.625"]}
    assert "b: area 0.875" in lines(roc(table, "a run", known).axes[0])
    assert "b: area 0.625" in lines(precision_recall(table, "a run", known).axes[0])


def test_precision_and_recall_of_two_classes_stand_beside_what_chance_would_give():
    table = {"class": ["b"], "recall": ["1"], "precision": ["0.25"]}
    known = {"class": ["a", "b"], "rows": ["30", "10"], "roc_auc": ["", "0.5"], "pr_auc": ["", "0.25"]}
    [chance] = [line for label, line in lines(precision_recall(table, "a run", known).axes[0]).items() if "chance" in label]
    assert set(chance.get_ydata()) == {0.25}


def calibrated(observed, low, high):
    names = ("least", "greatest", "predicted", "observed", "observed_low", "observed_high", "rows")
    return {
        "probability_of": ["yes"],
        **dict(zip(names, [["0.6"], ["0.8"], ["0.7"], [observed], [low], [high], ["12"]], strict=True)),
    }


def test_calibration_shows_the_share_that_came_true_and_its_interval():
    panel = calibration(calibrated("0.5", "0.25", "0.75"), "a run").axes[0]
    [points] = panel.containers
    assert points.lines[0].get_xydata().tolist() == [[0.7, 0.5]]
    across, up = (bar.get_segments()[0].tolist() for bar in points.lines[2])
    assert np.allclose(across, [[0.6, 0.5], [0.8, 0.5]]) and np.allclose(up, [[0.7, 0.25], [0.7, 0.75]])
    assert "yes" in panel.get_ylabel() and "12 rows a bin" in panel.get_title()


@pytest.mark.parametrize("interval", [("0.01", "0.4"), ("", "")])
def test_no_point_of_a_calibration_lies_outside_of_its_panel(interval):
    panel = calibration(calibrated("0.1", *interval), "a run").axes[0]
    assert panel.get_ylim()[0] < 0.1 and panel.get_xlim()[0] < 0.6 and panel.get_ylim()[1] > 1


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


def test_of_many_rows_some_are_drawn_and_it_is_said():
    table = {"target": ["a"] * 9000, "actual": ["1"] * 9000, "predicted": ["2"] * 9000}
    drawing = residuals(table, "a run")
    assert len(drawing.axes[0].collections[0].get_offsets()) <= 4500 and "of 9,000 rows" in drawing.get_suptitle()


def test_no_title_lies_on_the_factor_of_an_axis():
    numbers = [f"{n}e6" for n in range(300, 330)]
    for name in ("b", "a target with a name of many letters"):
        drawing = residuals({"target": [name] * 30, "actual": numbers, "predicted": numbers, "residual": ["0"] * 30}, "a run")
        style.png(drawing)
        panel = drawing.axes[0]
        factor = panel.yaxis.get_offset_text()
        assert factor.get_text() == "1e8" and not factor.get_window_extent().overlaps(panel.title.get_window_extent())


def test_a_character_without_a_glyph_is_drawn_without_a_word(recwarn):
    style.png(confusion({"actual": ["a", "\x1b[31mred"], "predicted": ["a", "a"]}, "a run"))
    assert not list(recwarn)


def test_what_is_drawn_stays_within_the_figure_and_apart(history):
    names = [f"a class with a long name, number {i}" for i in range(60)]
    drawings = [learning_curves(history, "digits, relu", 5), gradient_flow(history, "digits, relu"), weights(bins(30), "a run")]
    for drawing in [*drawings, confusion({"actual": names, "predicted": names}, "a run")]:
        style.png(drawing)
        boxes = [panel.get_tightbbox() for panel in drawing.axes if panel.axison]
        assert all(drawing.bbox.x0 <= box.x0 and box.x1 <= drawing.bbox.x1 for box in boxes)
        assert all(drawing.bbox.y0 <= box.y0 and box.y1 <= drawing.bbox.y1 for box in boxes)
        assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


def test_one_row_of_many_that_is_taken_for_another_class_is_shaded_and_the_ground_is_white():
    from PIL import Image

    right = [str(n % 10) for n in range(360)]
    drawing = confusion({"actual": right, "predicted": ["5", *right[1:]]}, "a run")
    shown = np.asarray(Image.open(io.BytesIO(style.png(drawing))).convert("RGB")).astype(int)
    corners = drawing.axes[0].transData.transform([(5, 0), (6, 0)]) - [0, 12]  # in the cell, below its number
    one, none = (shown[len(shown) - int(y), int(x)] for x, y in corners)
    assert one[0] <= none[0] - 3 and shown[3, 3].tolist() == [255, 255, 255]


def test_every_panel_says_what_it_shows(tmp_path, history):
    drawings = [learning_curves(history, "digits, relu", 5), gradient_flow(history, "digits, relu")]
    drawings += [gradient_profile(history, "digits, relu", 5, "relu"), weights(bins(2), "digits, relu")]
    drawings.append(residuals({"target": ["a"], "actual": ["1"], "predicted": ["2"]}, "digits, relu"))
    for drawing in drawings:
        assert drawing.get_suptitle() == "digits, relu"
        assert all(panel.get_xlabel() and panel.get_ylabel() and panel.get_title() for panel in drawing.axes)


def test_empty_cells_are_gaps(tmp_path):
    write_csv(tmp_path / "outputs/train/history.csv", [{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": ""}])
    assert np.isnan(Outs(tmp_path).table("train/history.csv")["val_loss"][1])


def test_neighbouring_colours_differ_in_lightness_so_that_they_differ_in_grey_too():
    def lightness(colour):
        return sum(w * int(colour[i : i + 2], 16) for w, i in zip((0.299, 0.587, 0.114), (1, 3, 5), strict=True))

    assert abs(lightness(style.BLUE) - lightness(style.VERMILION)) > 20
    assert len(set(style.COLOURS)) == len(style.COLOURS)
