"""Class weights: the numbers that a spec's words become, and what they do to the loss. Backends agree: the conformance suite."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from backends import draws, get, losses, weights
from backends.activations import numerics
from backends.conformance import BATCH, make_data, make_trial
from backends.conformance.cases import some_row_weights, some_weights
from backends.losses import row_losses, targets
from backends.supervisor import Supervisor, fit
from pipelines import stages
from pipelines.data import About, DataError
from pipelines.spec import Experiment, SpecError, trial
from pipelines.stages import RunPaths
from pipelines.stages.files import read_json

THREE = {"rare": 10, "common": 70, "some": 20}


def about(task="multiclass", counts=THREE):
    outputs = {"regression": 1, "binary": 1, "multiclass": len(counts)}[task]
    counts = {"train": counts}
    return SimpleNamespace(task=task, inputs=("a", "b"), number=None, outputs=outputs, class_counts=counts, rows={})


def resolved(asked, described):
    return trial(Experiment().override("train.class_weights", asked), described).class_weights


# -- the numbers ----------------------------------------------------------------------------------------------------------


def test_balanced_weights_make_each_class_weigh_the_same_and_have_mean_one_over_the_rows():
    w = losses.class_weights([10, 70, 20], None)
    assert [count * weight for count, weight in zip((10, 70, 20), w, strict=True)] == pytest.approx([100 / 3] * 3)
    assert w[0] == 100 / (3 * 10)


def test_given_weights_are_scaled_to_mean_one_over_the_rows_and_keep_their_ratios():
    w = losses.class_weights([10, 70, 20], [5.0, 1.0, 1.0])
    assert np.dot(w, (10, 70, 20)) == pytest.approx(100)
    assert w[0] / w[1] == pytest.approx(5) and w[1] == w[2]


def test_a_spec_that_asks_for_none_has_none():
    assert resolved("none", about()) is None


def test_balanced_and_given_weights_go_by_the_training_rows_in_the_order_of_the_classes():
    assert resolved("balanced", about()) == losses.class_weights(list(THREE.values()), None)
    assert resolved({"some": 1.0, "common": 1.0, "rare": 5.0}, about()) == losses.class_weights([10, 70, 20], [5.0, 1.0, 1.0])
    assert resolved("balanced", about("binary", {"no": 30, "yes": 10})) == (40 / 60, 40 / 20)


@pytest.mark.parametrize(
    ("asked", "described", "words"),
    [
        ({"rar": 5.0, "common": 1.0, "some": 1.0}, about(), "must name classes of the target, got 'rar'; did you mean rare?"),
        ({"rare": 5.0}, about(), "must give every class a weight, got rare; missing: common, some"),
        ("balanced", about("regression", {}), "must be none for a regression task, which has no classes, got balanced"),
        ({"rare": 5.0}, about("regression", {}), "must be none for a regression task, which has no classes, got weights of rare"),
    ],
)  # fmt: skip
def test_weights_that_the_data_do_not_take_are_refused(asked, described, words):
    with pytest.raises(SpecError, match=f"train.class_weights {words}".replace("?", r"\?")):
        resolved(asked, described)


def test_a_trial_has_as_many_weights_as_classes_and_numbers_where_its_spec_has_words():
    with pytest.raises(ValidationError, match="class_weights must be 3, one a class, got 2"):
        make_trial("multiclass", class_weights=(1.0, 2.0))
    with pytest.raises(ValidationError, match="class_weights must be 0, one a class, got 1"):
        make_trial("regression", class_weights=(1.0,))
    asking = make_trial("binary").train.model_copy(update={"class_weights": "balanced"})
    with pytest.raises(ValidationError, match=r"must be given as numbers where train.class_weights is 'balanced'"):
        make_trial("binary").model_validate(make_trial("binary").model_dump() | {"train": asking.model_dump()})


# -- the loss -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_e_is_the_sum_of_weight_times_loss_over_b_and_its_gradient_that_of_weighed_local_gradients(task):
    """On paper, from outputs and δ of each row: no weight is in δ, and nothing is divided by the sum of the weights."""
    w = {"binary": (0.5, 3.0), "multiclass": (0.5, 3.0, 1.0)}[task]
    one, data = make_trial(task, activation="tanh", class_weights=w), make_data(task)
    X, y = data.X[:BATCH], data.y[:BATCH]
    seen, plain = (
        get("reference").stack([t], data).loss_and_gradients(weights.initial([t]), X, y, None)
        for t in (one, one.model_copy(update={"class_weights": None}))
    )
    of_row = np.array(w)[y]
    z = seen.logits[0]
    losses = np.log1p(np.exp(-z[:, 0] * (2 * y - 1))) if task == "binary" else np.log(np.exp(z).sum(1)) - z[range(BATCH), y]
    assert seen.loss[0] == pytest.approx((of_row * losses).sum() / BATCH)
    for found, without in zip(seen.delta, plain.delta, strict=True):
        np.testing.assert_array_equal(found, without)
    bias = weights.layout(one)[-1]
    expected = -(of_row[:, None] * seen.delta[-1][0]).mean(0)
    np.testing.assert_allclose(seen.gradient[0, bias.start : bias.stop], expected)


def test_the_weighed_delta_rule_is_the_slope_of_the_weighed_objective():
    one, data = make_trial("multiclass", activation="tanh", dropout=0.3, class_weights=(0.4, 1.0, 2.5)), make_data("multiclass")
    stack, flat = get("reference").stack([one], data), weights.initial([one])
    keys = draws.noise_keys([one.seed], [5], 3)[:, 0]
    exact = stack.loss_and_gradients(flat, data.X[:BATCH], data.y[:BATCH], keys).gradient[0]
    for place in range(0, flat.shape[1], 7):
        nudge = np.zeros_like(flat)
        nudge[0, place] = 1e-6
        up, down = (stack.loss_and_gradients(flat + s * nudge, data.X[:BATCH], data.y[:BATCH], keys).loss[0] for s in (1, -1))
        assert (up - down) / 2e-6 == pytest.approx(exact[place], abs=2e-8)


def test_weights_are_in_the_training_loss_and_not_in_the_validation_loss():
    data = make_data("binary")
    w = (0.25, 4.0)
    still = {"name": "sgd", "learning_rate": 1e-30}
    one = make_trial("binary", epochs=1, class_weights=w, batch_size=len(data.X), optimizer=still)
    (result,) = fit(get("reference"), [one], data)
    z, y = get("reference").stack([one], data).predict(data.X)[0], data.y
    losses = np.log1p(np.exp(-z[:, 0] * (2 * y - 1)))
    assert result.history[0]["train_loss"] == pytest.approx((np.array(w)[y] * losses).mean())
    z, y = get("reference").stack([one], data).predict()[0], data.y_valid
    assert result.history[0]["val_loss"] == pytest.approx(np.log1p(np.exp(-z[:, 0] * (2 * y - 1))).mean())


def test_weights_of_one_are_no_weights_to_the_bit():
    data, plain = make_data("multiclass"), make_trial("multiclass", epochs=3, dropout=0.2)
    (one,), (other,) = (fit(get("reference"), [t], data) for t in (plain, plain.model_copy(update={"class_weights": (1.0,) * 3})))
    np.testing.assert_array_equal(one.weights, other.weights)
    assert one.history == other.history


# -- from a spec to a model -----------------------------------------------------------------------------------------------


def test_balanced_weights_find_more_of_a_rare_class(tmp_path):
    rng = np.random.default_rng(0)
    rare = rng.random(400) < 0.1
    rows = [
        f"{a},{b},{'yes' if r else 'no'}" for (a, b), r in zip(rng.normal(size=(400, 2)) + 1.3 * rare[:, None], rare, strict=True)
    ]
    (tmp_path / "few.csv").write_text("a,b,ill\n" + "\n".join(rows) + "\n")
    found = {}
    for words in ("none", "balanced"):
        places = RunPaths(tmp_path / words, base=tmp_path)
        spec = Experiment().override(
            {
                "data.source": "few.csv", "data.target": "ill", "model.hidden": [4], "train.backend": "reference",
                "train.epochs": 8, "train.optimizer.learning_rate": 0.05, "train.class_weights": words,
            }
        )  # fmt: skip
        for stage in (stages.split, stages.train, stages.validate):
            stage(spec, places)
        found[words] = read_json(places.report("validate") / "metrics.json")["balanced_accuracy"]
        saved, _ = weights.load(places.model)
        counts = About.load(places.about).class_counts["train"]
        assert saved.class_weights == (None if words == "none" else losses.class_weights(list(counts.values()), None))
    assert found["balanced"] > found["none"] + 0.2


# -- weights of rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_a_step_goes_down_the_slope_of_the_mean_of_weighted_losses_and_a_rows_scale_is_no_matter(task):
    """On paper: (1/B) Σ w_i w_c ℓ_i, with Σ w_i = n."""
    w = np.array(some_row_weights())
    classes = some_weights(task)
    whole = {"batch_size": len(w), "optimizer": {"name": "sgd", "learning_rate": 1.0}, "activation": "tanh", "epochs": 1}
    one, plain = make_trial(task, class_weights=classes, **whole), make_data(task)
    assert w.min() == 0 and w.mean() != 1
    of_row = w * len(w) / w.sum() * (np.ones(len(w)) if classes is None else np.array(classes)[plain.y])
    flat = weights.initial([one])

    def mean(flat):
        stack = get("reference").stack([one], plain)
        stack.load({"weights": flat})
        each = row_losses(numerics, task, stack.predict(plain.X)[0], targets(task, plain.y, one.outputs))
        return (of_row * each).mean()

    moved = []
    for scale in (1.0, 1e300):
        supervisor = Supervisor(get("reference"), [one], replace(plain, weights=scale * w))
        supervisor.run()
        moved.append(supervisor.stack.weights())
        assert supervisor.progress[0].history[0]["train_loss"] == pytest.approx(mean(flat))
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-12)
    for place in range(0, flat.shape[1], 11):
        nudge = np.zeros_like(flat)
        nudge[0, place] = 1e-6
        slope = (mean(flat + nudge) - mean(flat - nudge)) / 2e-6
        assert (flat - moved[0])[0, place] == pytest.approx(slope, abs=2e-8)


@pytest.mark.parametrize("w", [np.ones(3), np.full(70, np.nan), np.full(70, -1.0), np.zeros(70)], ids=["3", "NaN", "-1", "0"])
def test_weights_of_rows_that_mean_nothing_are_refused(w):
    with pytest.raises(ValueError, match="weights must be one a training row, each finite and at least 0, and not all 0"):
        replace(make_data("binary"), weights=w)


def test_equal_weights_of_rows_are_none():
    one, plain = make_trial("multiclass", epochs=2), make_data("multiclass")
    for name in ("reference", "lightning"):
        (with_weights,), (without,) = (fit(get(name), [one], data) for data in (replace(plain, weights=np.full(70, 3.0)), plain))
        np.testing.assert_allclose(with_weights.weights, without.weights, rtol=1e-12)


def rows_of(folder, cell=None, **data):
    """Forty rows, of which every fourth weighs 5, or has this cell; and the spec that trains on them."""
    w = [5 if n % 4 == 0 else 1 for n in range(40)]
    lines = [f"{n * 7 % 40 + 0.5},{'yes' if n % 3 else 'no'},{cell if cell is not None and n == 3 else w[n]}" for n in range(40)]
    (folder / "rows.csv").write_text("x,y,w\n" + "\n".join(lines) + "\n")
    part = {"source": str(folder / "rows.csv"), "target": "y", "weight": "w", **data}
    train = {"backend": "reference", "epochs": 2}
    return Experiment.model_validate({"data": part, "model": {"hidden": [4]}, "train": train, "tracking": {"enabled": False}})


@pytest.mark.parametrize("split", [{}, {"folds": 3}], ids=["", "folds"])
def test_a_column_of_weights_counts_in_training_alone_and_is_no_input(tmp_path, monkeypatch, split):
    monkeypatch.chdir(tmp_path)
    weighted, places = rows_of(tmp_path, split=split), RunPaths(tmp_path)
    report = stages.split(weighted, places)
    about = About.load(places.about)
    assert about.each[0].inputs == ("x",) and report["left_out"] == {"w": "it says how much a row counts (data.weight)"}
    for one in about.each:
        learn = one.open(places.data, "train")
        np.testing.assert_array_equal(learn.weights, np.where(learn.rows % 4 == 0, 5, 1))
        assert one.open(places.data, "valid").weights is None
    stages.train(weighted, places)
    stages.validate(weighted, places)
    with_weights = read_json(places.trained / "metrics.json")
    plain = RunPaths(tmp_path / "plain")
    for stage in (stages.split, stages.train):
        stage(weighted.override("data.weight", None).override("data.columns", {"w": "ignore"}), plain)
    assert read_json(plain.trained / "metrics.json")["best_train_loss"] != with_weights["best_train_loss"]
    file = next((places.data / "train").rglob("weights.npy"))
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(DataError, match=r"weights\.npy is damaged"):
        stages.train(weighted, places)


@pytest.mark.parametrize(
    "cell, columns, told",
    [
        ("", {}, "rows.csv:5: .*found no value"),
        ("-2", {}, "rows.csv:5: .*found -2"),
        (1, {"w": "categorical"}, "found it to be cat"),
    ],
)
def test_a_cell_that_is_no_weight_is_refused_with_its_line(tmp_path, cell, columns, told):
    made = rows_of(tmp_path, cell, columns=columns)
    with pytest.raises(DataError, match="column 'w' must hold a number of at least 0 in every training row") as error:
        stages.split(made, RunPaths(tmp_path))
    assert re.search(told, str(error.value))


def test_the_column_of_weights_must_be_there_and_be_another_than_the_target(tmp_path):
    with pytest.raises(SpecError, match="weight must be null for bundled sets, or name another column than the target, got 'y'"):
        rows_of(tmp_path).override("data.weight", "y")
    with pytest.raises(DataError, match=r"data\.weight must name a column of the file, got 'v'"):
        stages.split(rows_of(tmp_path).override("data.weight", "v"), RunPaths(tmp_path))
