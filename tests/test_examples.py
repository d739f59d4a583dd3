"""The examples run, and what their READMEs claim is in their numbers."""

from __future__ import annotations

import importlib.util
import re
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from pipelines.spec import load

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/run.py"))
by_example = pytest.mark.parametrize("name", NAMES)
KEY = ["backend", "depth", "activation", "seed"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(name, *options)` in a project that is empty; the tables that it wrote, by name."""
    for file in ("params.yaml", "dvc.yaml"):
        (tmp_path / file).write_text("{}\n")
    monkeypatch.chdir(tmp_path)

    def carry_out(name, *options):
        monkeypatch.setattr(sys, "argv", ["run.py", "--quick", "--out", "out", *options])
        spec = importlib.util.spec_from_file_location(name.replace("-", "_"), EXAMPLES / name / "run.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main()
        assert (tmp_path / "out/figure.png").read_bytes().startswith(b"\x89PNG")
        return {path.stem: pd.read_csv(path) for path in (tmp_path / "out").glob("*.csv")}

    return carry_out


def committed(name):
    return {path.stem: pd.read_csv(path) for path in (EXAMPLES / name).glob("*.csv")}


# -- vanishing gradients --------------------------------------------------------------------------------------------------


def error_signal_vanishes_under_sigmoid_alone(layers):
    assert (layers.delta <= layers.bound * (1 + 1e-12)).all(), "δ may not exceed max φ' · ‖W‖ · δ of the next layer"
    hidden = layers.assign(passed=layers.delta / layers.groupby(KEY).delta.shift(-1))[layers.layer < layers.depth]
    passed = hidden.groupby("activation").passed.mean()
    assert passed["sigmoid"] < 0.25
    assert (passed.drop("sigmoid") > 0.6).all() and passed["relu"] > 0.9
    deepest = layers[(layers.depth == layers.depth.max()) & (layers.layer == 1)].groupby("activation").delta.mean()
    assert deepest["sigmoid"] < 0.3 ** layers.depth.max() and (deepest.drop("sigmoid") > 0.01).all()


def both_backends_agree(table, column, keys, within):
    wide = table.pivot(index=keys, columns="backend", values=column)
    assert set(wide) == {"lightning", "keras"}
    np.testing.assert_allclose(wide.lightning, wide.keras, rtol=within)


def test_the_error_signal_vanishes_with_depth_on_both_backends(run):
    found = run("vanishing-gradients")
    error_signal_vanishes_under_sigmoid_alone(found["layers"])
    both_backends_agree(found["layers"], "delta", [*KEY[1:], "layer"], 1e-12)
    both_backends_agree(found["networks"], "loss", KEY[1:], 1e-9)


def test_what_the_readme_says_of_vanishing_gradients_is_in_its_numbers():
    found = committed("vanishing-gradients")
    layers, networks = found["layers"], found["networks"]
    assert layers.depth.unique().tolist() == [2, 4, 6, 8, 10, 12]
    error_signal_vanishes_under_sigmoid_alone(layers)
    both_backends_agree(layers, "delta", [*KEY[1:], "layer"], 1e-15)
    both_backends_agree(networks, "loss", KEY[1:], 2e-14)
    first = layers[(layers.depth == 12) & (layers.layer == 1) & (layers.activation == "sigmoid")]
    assert first.delta.mean() == pytest.approx(4.5e-9, rel=0.02) and first.delta_after.mean() == pytest.approx(4.4e-9, rel=0.02)
    reach = layers[(layers.layer == 1) & (layers.activation == "sigmoid")].groupby("depth").delta.mean()
    assert (reach / reach.shift(-1)).dropna().between(15, 25).all(), "two more layers: a twentieth or so"
    learnt = networks.groupby(["activation", "depth"]).accuracy.mean()
    assert (learnt["sigmoid"][lambda one: one.index >= 4] < 0.12).all()
    assert learnt.drop("sigmoid").between(0.81, 0.93).all()


# -- regularization -------------------------------------------------------------------------------------------------------


def l1_gives_zeros_and_l2_does_not(means):
    strongest = {name: means[means[name] == means[name].max()].iloc[0] for name in ("l1", "l2")}
    assert strongest["l1"].zero > 0.75 and strongest["l2"].zero < 0.1
    assert strongest["l2"].norm < 0.6 * means[(means.l1 == 0) & (means.l2 == 0)].norm.item()


def test_l1_sets_weights_to_zero_and_l2_does_not(run):
    found = run("regularization")
    l1_gives_zeros_and_l2_does_not(found["networks"].groupby(["l1", "l2"], as_index=False).mean())
    assert found["weights"].groupby(["l1", "l2"]).size().eq(12).all()


def test_what_the_readme_says_of_regularisation_is_in_its_numbers():
    means = committed("regularization")["networks"].groupby(["l1", "l2"], as_index=False).mean()
    l1_gives_zeros_and_l2_does_not(means)
    free = means[(means.l1 == 0) & (means.l2 == 0)].iloc[0]
    ways = {name: means[means["l2" if name == "l1" else "l1"] == 0].sort_values(name) for name in ("l1", "l2")}
    for name, best, loss in (("l1", 10**-3.5, 0.067), ("l2", 1e-3, 0.077)):
        way = ways[name]
        assert way.train_loss.is_monotonic_increasing and way.norm.is_monotonic_decreasing
        chosen = way.loc[way.val_loss.idxmin()]
        assert chosen[name] == pytest.approx(best) and chosen.val_loss == pytest.approx(loss, abs=5e-4)
    assert free.val_loss == pytest.approx(0.097, abs=5e-4) and free.train_loss < 0.1 * free.val_loss
    sparse = ways["l1"][np.isclose(ways["l1"].l1, 1e-3)].iloc[0]
    assert sparse.zero == pytest.approx(0.58, abs=5e-3) and sparse.val_accuracy > free.val_accuracy
    assert ways["l2"].norm.iloc[-1] / free.norm == pytest.approx(0.21, abs=5e-3)
    assert ways["l2"].zero.max() < 0.095


# -- dropout --------------------------------------------------------------------------------------------------------------


def test_training_error_rises_with_p_and_test_rows_open_by_the_rules(run, tmp_path):
    errors = run("dropout", "--backend", "reference")["errors"].pivot(index="p", columns="part", values="loss")
    assert errors.train.is_monotonic_increasing
    assert errors.validate[0.4] < errors.validate[0.9]
    opened = (tmp_path / ".deltarule/test-openings.jsonl").read_text().splitlines()
    assert len(opened) == len(errors), "each p is one experiment that opened them"


def test_what_the_readme_says_of_dropout_is_in_its_numbers():
    table = committed("dropout")["errors"]
    assert set(table.seeds) == {12}
    errors = table.pivot(index="p", columns="part", values="loss")
    assert errors.train.is_monotonic_increasing
    assert errors.train.iloc[[0, -1]].tolist() == pytest.approx([0.28, 0.63], abs=5e-3)
    assert errors.validate.idxmin() == 0.3 and errors.test.idxmin() == 0.6
    assert errors.validate[[0, 0.3]].tolist() == pytest.approx([0.585, 0.555], abs=1e-3)
    assert errors.test[[0, 0.6]].tolist() == pytest.approx([0.62, 0.53], abs=5e-3)
    gap = errors.test - errors.train
    assert gap[[0, 0.6]].tolist() == pytest.approx([0.34, 0.10], abs=5e-3)
    assert errors.test[0] - errors.test[0.3] == pytest.approx(0.07, abs=5e-3)
    near = table[(table.part == "validate") & table.p.between(0.2, 0.5)]
    assert near.low.max() < near.high.min(), "their intervals overlap"


# -- all of them ----------------------------------------------------------------------------------------------------------


@by_example
def test_an_example_is_a_spec_numbers_a_small_figure_and_a_page_that_shows_it(name):
    folder = EXAMPLES / name
    load(folder / "params.yaml")
    assert (folder / "figure.png").stat().st_size < 150_000
    assert list(folder.glob("*.csv"))
    page = (folder / "README.md").read_text()
    assert re.search(r"!\[[^\]]{20,}\]\(figure\.png\)", page) and f"python examples/{name}/run.py" in page
    assert len(re.findall(r"^\d\. ", page.partition("What to try next")[2], re.M)) == 3
    assert f"({name}/README.md)" in (EXAMPLES / "README.md").read_text()
