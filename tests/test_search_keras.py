"""Studies on Keras: its stacks take other kernels for other widths, so a trial equals its run within a tolerance, stated here."""

from __future__ import annotations

import pytest

pytest.importorskip("tensorflow")

from test_search import project, spec

from pipelines import stages
from pipelines.search import search

__all__ = ["project"]  # a fixture
# Relative, of the best validation loss. Measured over 8 trials of 6 epochs: 3.4e-6 in float32, 8e-15 in float64.
TOLERANCES = {"float32": 2e-5, "float64": 1e-9}


@pytest.mark.slow
@pytest.mark.parametrize("precision", TOLERANCES)
def test_a_trial_equals_the_run_of_its_spec_within_the_tolerance(project, precision):
    activations = {"model.activation": {"choices": ["relu", "tanh", "gelu"]}, "model.dropout": {"low": 0.0, "high": 0.5}}
    experiment = spec(space=activations, train__backend="keras", train__precision=precision, search__trials=6, search__width=6,
                      search__generation=6)  # fmt: skip
    for one in search(experiment).trials:
        alone, places = experiment.drawn(one.changes), stages.RunPaths(project / str(one.number), base=project, project=project)
        stages.split(alone, places)
        assert stages.train(alone, places)["best_val_loss"] == pytest.approx(one.values[0], rel=TOLERANCES[precision])
