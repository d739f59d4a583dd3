"""The search block: what a study may be, said before anything runs, with file and line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from backends.spec import Model
from pipelines.spec import Choices, Experiment, Range, SpecError, dump, flat, load, models_schema, space
from pipelines.spec.describe import LAYERED, leaves
from pipelines.spec.documents import schema
from pipelines.spec.file import parse
from pipelines.spec.space import ordered, takes_whole_numbers
from pipelines.spec.study import METRICS, Search, same
from pipelines.stages import metrics

ROOT = Path(__file__).parents[1]
KNOWN = ", ".join(METRICS)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(text: str, *overrides: str) -> Experiment:
    Path("params.yaml").write_text(text)
    return load("params.yaml", overrides)


def refusal(text: str, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(text, *overrides)
    return str(caught.value)


def study(entries: str) -> str:
    """A file whose space has one entry a line, from line 3 on."""
    return "search:\n  space:\n" + "".join(f"    {line}\n" for line in entries.splitlines())


# The block itself --------------------------------------------------------------------------------------------------------

BLOCKS = {
    "metric: [loss, test_accuracy]": (
        "search.metric must be a metric of the validation rows, got 'test_accuracy'; the test rows must not choose"
    ),
    "metric: Test_loss": "search.metric must be a metric of the validation rows, got 'Test_loss'; the test rows must not choose",
    "metric: acuracy": "search.metric must be a metric of the validation rows, got 'acuracy'; did you mean accuracy?",
    "metric: speed": f"search.metric must be a metric of the validation rows, got 'speed'; known are: {KNOWN}",
    "metric: []": "search.metric must be text or a list of such, at least one, got []",
    "metric: [loss, loss]": "search.metric must name each metric once, got loss twice",
    "metric: weights": (
        "search.metric must name a metric of the validation rows beside weights, got weights alone; it needs no training"
    ),
    "metric: [weights]": (
        "search.metric must name a metric of the validation rows beside weights, got weights alone; it needs no training"
    ),
    "direction: [minimize, minimize]": "search.direction must be one for all metrics, or 1, one a metric, got 2",
    "metric: [loss, brier, weights]\ndirection: [minimize, minimize]": (
        "search.direction must be one for all metrics, or 3, one a metric, got 2"
    ),
    "direction: min": "search.direction must be one of: minimize, maximize or a list of such, at least one, got 'min'",
    "metric: accuracy": "search.direction must be maximize for accuracy, got minimize, which looks for the worst",
    "metric: [accuracy, weights]\ndirection: maximize": (
        "search.direction must be minimize for weights, got maximize, which looks for the worst"
    ),
    "metric: [loss, weights]\npruner: median": (
        "search.pruner must be none with several metrics, got median; which trial falls behind is not defined"
    ),
    "sampler: cmaes": "search.sampler must be one of: tpe, random, grid, qmc, gp, got 'cmaes'",
    "pruner: hyperbend": (
        "search.pruner must be one of: none, median, halving, hyperband, got 'hyperbend'; did you mean hyperband?"
    ),
    "rung: 0": "search.rung must be a whole number in [1, ∞) or auto, got 0",
    "generation: 0": "search.generation must be a whole number in [1, 4096], got 0",
    "generation: 4097": "search.generation must be a whole number in [1, 4096], got 4097",
    "width: 0": "search.width must be a whole number in [1, ∞) or auto, got 0",
    "seeds: 0": "search.seeds must be a whole number in [1, 10000], got 0",
    "seeds: 10001": "search.seeds must be a whole number in [1, 10000], got 10001",
    "timeout: 0": "search.timeout must be a number in (0, ∞) or null, got 0",
    "workers: 0": "search.workers must be a whole number in [1, ∞) or auto, got 0",
    "engine: dask": "search.engine must be one of: auto, here, processes, or ray:ADDRESS of a running cluster, got 'dask'",
    "engine: 'ray:'": "search.engine must be one of: auto, here, processes, or ray:ADDRESS of a running cluster, got 'ray:'",
    "storage: postgresql://me:hunter2@host/db": (
        "search.storage must hold no password, since params.yaml is kept and shown; set PGPASSWORD in the environment"
    ),
    "storage: study.db": (
        "search.storage must be the URL of a database, such as postgresql+psycopg://HOST/NAME, or null, got no URL"
    ),
}


@pytest.mark.parametrize("text", BLOCKS)
def test_a_study_that_makes_no_sense_is_refused_with_its_line(text):
    sentence = BLOCKS[text]
    keys = [line.split(":")[0] for line in text.splitlines()]
    about = sentence.removeprefix("search.").split(" ")[0]
    line = 2 + keys.index(about) if about in keys else 1  # that of the block for a key that is left out
    assert refusal("search:\n" + "".join(f"  {line}\n" for line in text.splitlines())) == f"params.yaml:{line}: {sentence}"


def test_all_that_is_wrong_with_a_study_is_said_at_once():
    text = "search:\n  metric: [loss, weights]\n  pruner: median\n  direction: [minimize]\n  engine: x\n  storage: y\n"
    assert [line.split(" must ")[0] for line in refusal(text).splitlines()] == [
        "params.yaml:3: search.pruner",
        "params.yaml:4: search.direction",
        "params.yaml:5: search.engine",
        "params.yaml:6: search.storage",
    ]


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multiclass", 3), ("regression", 1)])
def test_what_a_study_may_be_judged_by_is_what_the_metrics_are(task, outputs):
    """The names stand in the spec because it is read without NumPy's metrics; here they are held to each other."""
    truth = metrics.Truth(task, np.arange(4) % 2 if outputs > 1 or task == "binary" else np.arange(4.0)[:, None], outputs)
    assert list(metrics.evaluate(truth, np.eye(4)[:, :outputs])) == list(metrics.names(truth))
    others = {"networks", "numbers"} if task != "regression" else {"networks", "classes"}
    others |= {"positive"} if task != "binary" else set()
    assert list(metrics.names(truth)) == [name for name, metric in METRICS.items() if metric.of not in others]


def test_each_target_of_several_has_metrics_of_its_own():
    assert read("search: {metric: rmse.weight}\n").search.metrics == ("rmse.weight",)
    assert read("search: {metric: r2.weight, direction: maximize}\n").search.directions == ("maximize",)


def test_one_metric_or_several_one_direction_or_several():
    assert (Search().metrics, Search().directions) == (("loss",), ("minimize",))
    both = read("search: {metric: [loss, weights]}\n").search
    assert (both.metrics, both.directions) == (("loss", "weights"), ("minimize", "minimize"))
    each = read("search: {metric: [accuracy, weights], direction: [maximize, minimize], sampler: random}\n").search
    assert each.directions == ("maximize", "minimize")
    assert Search(metric=("loss", "brier")).directions == ("minimize", "minimize")


@pytest.mark.parametrize("engine", ["auto", "here", "processes", "ray:auto", "ray:10.0.0.1:6379", "ray://head:10001"])
def test_engines(engine):
    assert read(f"search: {{engine: '{engine}'}}\n").search.engine == engine


def test_a_study_may_use_the_last_seeds_that_there_are():
    assert read("seed: 4294967293\nsearch: {seeds: 3}\n").search.seeds == 3
    said = "params.yaml:2: search.seeds must be at most 3, of seed 4294967293 and those after it, got 4"
    assert refusal("seed: 4294967293\nsearch: {seeds: 4}\n") == said


# The space ---------------------------------------------------------------------------------------------------------------

MOMENTUM = "train.optimizer.momentum: {low: 0.0, high: 0.9, when: {train.optimizer.name: sgd}}"
NAME = "train.optimizer.name: {choices: [adam, sgd]}"
TWO = "search.space.model.dropout.1"
SPACES = {
    # of numbers
    "model.slope: {low: 0, high: 1, step: 0}": "3: model.slope.step must be a number in (0, ∞) or null, got 0",
    "model.slope: {low: 0, high: 1, step: -1}": "3: model.slope.step must be a number in (0, ∞) or null, got -1",
    "model.slope: {low: 0, high: 1, step: 1.5}": "3: model.slope.step must be at most high - low, got 1.5 from 0 to 1",
    "model.slope: {low: 0.1, high: 1, step: 0.1, log: true}": (
        "3: model.slope.step must be null where log is true, got 0.1; leave one of the two out"
    ),
    "model.slope: {low: 0.0, high: 1.0, step: 0.3}": "3: model.slope.high must be low and whole steps of 0.3, got 1.0; 0.9 is",
    "train.epochs: {low: 1, high: 3, step: 0.5}": (
        "3: train.epochs.step must be a whole number, since train.epochs takes whole numbers, got 0.5"
    ),
    "model.hidden.0: {low: 1, high: 3, step: 0.5}": (
        "3: model.hidden.0.step must be a whole number, since model.hidden.0 takes whole numbers, got 0.5"
    ),
    "model.slope: {low: 0.5, high: 3, int: true}": "3: model.slope.low must be a whole number where int is true, got 0.5",
    "model.slope: {low: 1, high: 2, or: [0, 0.0]}": "3: model.slope.or must name each value once, got 0.0 twice",
    "model.slope: {low: 1, high: 2, or: -1}": "3: model.slope: model.slope must be a number in [0, ∞), got -1",
    "model.slope: {low: 1, high: 2, or: off}": (
        "3: model.slope.or must be a number or a list of numbers or null, at least one or null, got 'off'"
    ),
    "model.slope: {low: 1, high: 2, otherwise: 0}": (
        "3: unknown key search.space.model.slope.otherwise; known are: low, high, log, step, int, or, when"
    ),
    # of choices
    "model.activation: {choices: [relu, tanh, relu]}": "3: model.activation.choices must name each value once, got 'relu' twice",
    "model.slope: {choices: [1, 1.0]}": "3: model.slope.choices must name each value once, got 1.0 twice",
    "model.hidden: {choices: [[8], [8]]}": "3: model.hidden.choices must name each value once, got [8] twice",
    "train.early_stopping.patience: {choices: [1, null, 0]}": (
        "3: train.early_stopping.patience: train.early_stopping.patience must be a whole number in [1, ∞) or null, got 0"
    ),
    # of paths
    "train.devices: {choices: [1, 2]}": (
        "3: train.devices: a study cannot vary who computes it, which changes no result; set train.devices for the whole study"
    ),
    "train.threads: {choices: [1, 2]}": (
        "3: train.threads: a study cannot vary who computes it, which changes no result; set train.threads for the whole study"
    ),
    "seed: {low: 0, high: 9}": (
        "3: seed: a study cannot vary seed; it varies values of model, regularization, train, data.scaling, data.scale_target"
    ),
    "data.scale_target: {choices: [true, false]}": (
        "3: data.scale_target: must not vary while search.metric is loss, which it measures on another scale; "
        "judge by rmse, mae or r2"
    ),
    "model.dropout.2: {low: 0.0, high: 0.5}": (
        "3: model.dropout.2: model.dropout.2 must name a layer in [0, 2), one of the hidden layers, got 2"
    ),
    "regularization.l1.3: {low: 0.0, high: 0.5}": (
        "3: regularization.l1.3: regularization.l1.3 must name a layer in [0, 3), one of the layers (hidden + 1), got 3"
    ),
    "model.dropout.1: {low: 0.0, high: 1.5}": "3: model.dropout.1: model.dropout[1] must be a number in [0, 1), got 1.5",
    "regularization.l1: {low: 0.0, high: 0.5}\nregularization.l1.0: {low: 0.0, high: 0.5}": (
        "4: regularization.l1.0: must not stand beside regularization.l1, of which it is a part; leave one of them out"
    ),
    "model.slope.0: {low: 0.0, high: 0.5}": "3: model.slope.0: model.slope is one value and has no parts, got model.slope.0",
    # of conditions
    "train.optimizer.momentum: {low: 0.0, high: 0.9, when: {train.optimizer.nam: sgd}}\n" + NAME: (
        "3: train.optimizer.momentum.when must name another path of the space, got train.optimizer.nam; "
        "did you mean train.optimizer.name?"
    ),
    "model.slope: {choices: [0.1, 0.2], when: {model.slope: 0.1}}": (
        "3: model.slope.when must not lead back to its own path, got model.slope -> model.slope"
    ),
    (
        "model.slope: {choices: [0.1, 0.2], when: {model.input_dropout: 0.1}}\n"
        "model.input_dropout: {choices: [0.1, 0.2], when: {model.slope: 0.1}}"
    ): "3: model.slope.when must not lead back to its own path, got model.slope -> model.input_dropout -> model.slope",
    MOMENTUM.replace("sgd", "[sgd, rmsprop]")
    + "\n"
    + NAME: "3: train.optimizer.momentum.when must name values that train.optimizer.name takes ('adam', 'sgd'), got 'rmsprop'",
    "model.slope: {low: 0, high: 1, when: {model.hidden: [8]}}\nmodel.hidden: {choices: [[8], [4]]}": (
        "3: model.slope.when must name values that model.hidden takes ([8], [4]), got 8; for the one value [8] write [[8]]"
    ),
    "model.slope: {low: 0, high: 1, when: {model.dropout: 0.5}}\nmodel.dropout: {low: 0.0, high: 0.5}": (
        "3: model.slope.when must name values that model.dropout takes (no single one: give it a step or `or`), got 0.5"
    ),
    "model.slope: {low: 0, high: 1, when: {model.dropout: 0.1}}\nmodel.dropout: {low: 0.2, high: 0.5, or: 0}": (
        "3: model.slope.when must name values that model.dropout takes (0), got 0.1"
    ),
    "model.slope: {low: 0, high: 1, when: {train.batch_size: [16, 20]}}\ntrain.batch_size: {low: 8, high: 32, step: 8}": (
        "3: model.slope.when must name values that train.batch_size takes (8 to 32 in steps of 8), got 20"
    ),
    "model.slope: {low: 0, high: 1, when: {train.batch_size: true}}\ntrain.batch_size: {choices: [1, 2]}": (
        "3: model.slope.when must name values that train.batch_size takes (1, 2), got true"
    ),
    "model.slope: {low: 0, high: 1, when: {}}": (
        "3: model.slope.when must name a path of the space, got an empty mapping; leave it out"
    ),
    "model.slope: {choices: [0], when: {model.dropout: []}}": (
        "3: model.slope.when must name a value of model.dropout, or several, got an empty list"
    ),
    "model.slope: {low: 0, high: 1, when: model.dropout}": "3: model.slope.when must be a mapping or null, got 'model.dropout'",
    (
        NAME + "\n" + MOMENTUM.replace("low", "or: 0.95, low") + "\n"
        "train.optimizer.nesterov: {choices: [true], when: {train.optimizer.momentum: 0.95, train.optimizer.name: adam}}"
    ): "5: train.optimizer.nesterov.when must be possible; its conditions contradict one another",
    NAME + "\n" + MOMENTUM.replace("0.9,", "1.5,"): (
        "4: train.optimizer.momentum: train.optimizer.momentum must be a number in [0, 1), got 1.5 "
        "(where train.optimizer.name = 'sgd', train.optimizer.momentum = 1.5)"
    ),
    (
        "train.optimizer.name: {choices: [adam, sgd]}\n"
        "train.optimizer.beta1: {choices: [0.8, 0.9], when: {train.optimizer.name: [adam, sgd]}}"
    ): (
        "4: train.optimizer.beta1: train.optimizer.beta1 is not an option of sgd; sgd takes learning_rate, momentum, nesterov "
        "(where train.optimizer.name = 'sgd', train.optimizer.beta1 = 0.8)"
    ),
    # of two values
    "model.hidden: {choices: [[8, 4], [8]]}\nmodel.dropout.1: {low: 0.1, high: 0.5}": (
        "4: model.dropout.1: model.dropout.1 must name a layer in [0, 1), one of the hidden layers, got 1 "
        "(where model.hidden = [8], model.dropout.1 = 0.1)"
    ),
    "model.dropout: {choices: [[0.1, 0.2], 0.3]}\nmodel.hidden: {choices: [[8, 4], [8]]}": (
        "4: model.hidden: model.dropout must be one number or 1, one a hidden layer, got 2 "
        "(where model.dropout = [0.1, 0.2], model.hidden = [8])"
    ),
    "train.optimizer.name: {choices: [sgd, adam]}\ntrain.optimizer.momentum: {low: 0.0, high: 0.9}": (
        "4: train.optimizer.momentum: train.optimizer.momentum is not an option of adam; "
        "adam takes learning_rate, beta1, beta2, epsilon"
    ),
}


@pytest.mark.parametrize("text", SPACES)
def test_a_space_that_makes_no_sense_is_refused_with_its_line(text):
    said = refusal(study(text)).removeprefix("params.yaml:")
    assert said.replace("search.space.", "") == SPACES[text].replace("search.space.", "")


def test_values_are_not_judged_beside_a_model_that_is_wrong():
    """The default has two layers; how many this one is to have cannot be known."""
    text = "model: {hidden: [8, 4, 2, x]}\nsearch:\n  space:\n    model.dropout.3: {low: 0.0, high: 0.5}\n"
    assert refusal(text) == "params.yaml:1: model.hidden[3] must be a whole number in [1, 1000000], got 'x'"


GRIDS = {
    "model.slope: {low: 0, high: 1}": "a range without a step",
    "train.epochs: {low: 1, high: 3}": "a range without a step",
    "model.slope: {low: 0, high: 1, step: 0.5, or: 2}": "a value beside a range (or)",
    "model.slope: {choices: [0, 1], when: {model.dropout: 0.1}}\nmodel.dropout: {choices: [0.1]}": "a condition (when)",
}


@pytest.mark.parametrize("entries", GRIDS)
def test_a_grid_takes_choices_or_ranges_with_a_step_alone(entries):
    path = entries.split(":")[0]
    what = f"search.space.{path}: must be choices, or a range with a step, for the sampler grid, got {GRIDS[entries]}"
    assert read(study(entries)).search.sampler == "tpe"
    assert refusal(study(entries), "search.sampler=grid") == f"params.yaml:3: {what}; or take another sampler"


def test_a_grid_of_steps_and_choices():
    entries = "model.slope: {low: 0.1, high: 0.3, step: 0.1}\nmodel.activation: {choices: [relu, tanh]}"
    assert read(study(entries), "search.sampler=grid").search.space["model.slope"].step == 0.1


def test_a_target_scale_may_vary_where_the_metric_is_in_the_targets_units():
    entries = "data.scale_target: {choices: [true, false]}"
    assert "data.scale_target" in read(study(entries), "search.metric=rmse").search.space
    assert "must not vary" in refusal(study(entries), "search.metric=[rmse, loss]")


ACCEPTED = {
    "an option of one optimizer alone": NAME + "\n" + MOMENTUM,
    "a condition on what comes later": MOMENTUM + "\n" + NAME,
    "options under options": NAME + "\n" + MOMENTUM.replace("low", "or: 0.0, low") + "\n"
    "train.optimizer.nesterov: {choices: [true, false], when: {train.optimizer.momentum: 0}}",
    "a value beside the range that lies in it": "regularization.l1: {low: 0.0, high: 1.0, or: 0.5}",
    "null beside a range": "train.clip_norm: {low: 0.1, high: 10, log: true, or: [null]}",
    "each layer for itself": "\n".join(f"{key}.{i}: {{low: 0.0, high: 0.5}}" for key in list(LAYERED)[1:] for i in (0, 1)),
    "units of a layer": "model.hidden.1: {low: 8, high: 256, log: true}",
    "a layer where there is one": "model.hidden: {choices: [[8, 4], [8]]}\n"
    "model.dropout.1: {low: 0.1, high: 0.5, when: {model.hidden: [[8, 4]]}}",
    "steps that floats miss": "model.slope: {low: 0.1, high: 0.7, step: 0.1}",
    "whole numbers of a key that takes any": "model.slope: {low: 1, high: 8, int: true, log: true}",
    "a condition on a step": "model.slope: {low: 0, high: 1, when: {train.batch_size: [8, 16]}}\n"
    "train.batch_size: {low: 8, high: 32, step: 8}",
    "true beside false": "train.optimizer.nesterov: {choices: [true, false], when: {train.optimizer.name: sgd}}\n" + NAME,
    "lists of one number a layer beside the number of layers": "model.hidden: {choices: [[8, 4], [8]]}\n"
    "model.dropout: {choices: [0.1, 0.3]}",
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_space_that_makes_sense_is_taken_and_goes_through_dump_override_and_flat(case):
    e = read(study(ACCEPTED[case]))
    assert read(dump(e)) == e
    assert e.override("search.trials", 3).search.space == e.search.space
    values = flat(e)
    assert all(value is None or isinstance(value, str | int | float | bool) for value in values.values())
    options = [f"{path}={json.dumps(v) if v is None or isinstance(v, bool) else v}" for path, v in values.items()]
    assert read("{}\n", *options) == e


def test_a_value_that_another_path_of_the_space_makes_possible_is_taken():
    """One net fits the base's list of dropouts, but every trial draws a dropout of its own."""
    text = "model: {hidden: [8, 4], dropout: [0.1, 0.2]}\n" + study("model.hidden: {choices: [[8, 4], [8]]}")
    assert "must be one number or 1" in refusal(text)
    assert read(text + "    model.dropout: {low: 0.1, high: 0.5}\n").model.dropout == (0.1, 0.2)


def test_a_resolved_spec_may_vary_its_optimizer_too():
    """Every option of adam stands in it; those at their default go with adam, others are in the way."""
    resolved = read(dump(Experiment().override("train.optimizer.name", "adam")))
    sgd = resolved.override({"train.optimizer.name": "sgd", "train.optimizer.momentum": 0.9}).train.optimizer
    assert (sgd.name, sgd.momentum, sgd.learning_rate) == ("sgd", 0.9, 1e-3), "what both kinds have stays as it was written"
    with pytest.raises(SpecError, match=r"beta1 is not an option of sgd"):
        resolved.override("train.optimizer.beta1", 0.8).override("train.optimizer.name", "sgd")
    with pytest.raises(SpecError, match=r"beta1 is not an option of sgd"):
        resolved.override({"train.optimizer.beta1": 0.9, "train.optimizer.name": "sgd"})
    step = resolved.override({"train.schedule.name": "step", "train.schedule.every": 3})
    assert read(dump(step)).override("train.schedule.name", "step").train.schedule.every == 3
    assert "every is not an option" in refused(read(dump(step)), "train.schedule.name", "cosine")


def refused(e: Experiment, path: str, value: object) -> str:
    with pytest.raises(SpecError) as caught:
        e.override(path, value)
    return str(caught.value)


def test_a_trial_is_the_experiment_alone():
    e = load(ROOT / "params.yaml", ["thresholds.accuracy.min=0.5"])
    alone = e.alone()
    assert (alone.search, alone.thresholds) == (Search(), {})
    assert (alone.model, alone.train, alone.seed, alone.data, alone.tracking) == (e.model, e.train, e.seed, e.data, e.tracking)


def test_or_has_no_other_name():
    given = Range.model_validate({"low": 1, "high": 2, "or": [0, None]})
    assert (given.otherwise, given.others, given.model_dump(exclude_unset=True)["or"]) == ((0, None), (0, None), (0, None))
    assert (Range(low=1, high=2).others, Range.model_validate({"low": 1, "high": 2, "or": 0}).others) == ((), (0,))
    e = read(study("model.slope: {low: 1, high: 2}"), "search.space.model.slope.or=0")
    assert e.search.space["model.slope"].others == (0,) and flat(e)["search.space.model.slope.or"] == 0
    assert "or: 0\n" in dump(e) and "otherwise" not in dump(e)


def test_the_tries_before_a_study_cover_every_pair_of_values_and_are_few():
    tried = []
    many = {f"p{i}": Choices(choices=tuple(range(3))) for i in range(9)}
    assert space.refused_values(many, tried.append) == []
    assert {(p, d[p], q, d[q]) for d in tried for p in many for q in many if p < q} >= {
        (p, v, q, w) for p in many for q in many if p < q for v in range(3) for w in range(3)
    }
    larger, tried = {f"p{i}": Choices(choices=tuple(range(60))) for i in range(9)}, []
    space.refused_values(larger, tried.append)
    assert len(tried) == space.TRIES


# The order of drawing ----------------------------------------------------------------------------------------------------


def _space(**when: str | None) -> dict[str, Choices]:
    return {path: Choices(choices=(1, 2), when={other: 1} if other else None) for path, other in when.items()}


@pytest.mark.parametrize(
    ("when", "order"),
    [
        ({"c": None, "a": None, "b": None}, "cab"),
        ({"a": "c", "b": None, "c": None}, "cab"),
        ({"a": "b", "b": "c", "c": None, "d": "a"}, "cbad"),
        ({"a": "gone", "b": None}, "ab"),
    ],
)
def test_a_path_is_drawn_after_those_that_its_condition_names_else_as_in_the_file(when, order):
    assert "".join(ordered(_space(**when))) == order


def test_a_circle_has_no_order():
    with pytest.raises(ValueError, match=r"^b -> c -> b$"):
        ordered(_space(a="b", b="c", c="b"))


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("train.epochs", True), ("train.early_stopping.patience", True), ("train.schedule.warmup", True),
        ("model.hidden.1", True), ("data.scaling", False),
        ("model.dropout", False), ("model.dropout.1", False), ("regularization.l1", False), ("train.clip_norm", False),
        ("train.optimizer.learning_rate", False), ("model.activation", False), ("train.optimizer.nesterov", False),
    ],
)  # fmt: skip
def test_keys_of_whole_numbers(path, whole):
    assert takes_whole_numbers(path) is whole


def test_true_is_not_1_but_a_list_is_its_tuple():
    assert same(1, 1.0) and same([8, [4]], (8, (4,))) and same(None, None) and same("a", "a")
    assert not same(True, 1) and not same([True], [1]) and not same([8], [8, 4]) and not same("1", 1)


# One layer ---------------------------------------------------------------------------------------------------------------


def test_one_layer_has_a_path_of_its_own_and_the_others_keep_theirs():
    e = Experiment().override({"model.hidden": [8, 4], "model.dropout": 0.1, "model.dropout.1": 0.3, "regularization.l1.2": 1e-3})
    assert (e.model.dropout, e.regularization.l1) == ((0.1, 0.3), (0.0, 0.0, 1e-3))
    assert e.override("model.dropout.0", 0.5).model.dropout == (0.5, 0.3)
    assert e.override("model.hidden.1", 5).model == Model(hidden=(8, 5), dropout=(0.1, 0.3))
    assert read(dump(e)) == e


def test_layers_are_counted_once_all_is_laid_over():
    options = ["model.dropout.2=0.3", "model.hidden=[8, 4, 2]"]
    for each in (options, options[::-1]):
        assert read("model: {dropout: 0.1}\n", *each).model.dropout == (0.1, 0.1, 0.3)


def test_of_a_layer_and_all_layers_the_last_one_holds():
    assert read("{}\n", "model.dropout.1=0.3", "model.dropout=0.5").model.dropout == 0.5
    assert read("{}\n", "model.dropout=0.5", "model.dropout.1=0.3", "model.dropout.1=0.4").model.dropout == (0.5, 0.4)


LAYERS = {
    "model.dropout.2=0.3": "model.dropout.2 must name a layer in [0, 2), one of the hidden layers, got 2",
    "regularization.l2.3=0.3": "regularization.l2.3 must name a layer in [0, 3), one of the layers (hidden + 1), got 3",
    "model.hidden.2=3": "model.hidden.2 must name a layer in [0, 2), one of the hidden layers, got 2",
    "model.dropout.1=1.5": "model.dropout[1] must be a number in [0, 1), got 1.5",
    "model.dropout.01=0.5": "model.dropout is one value and has no parts, got model.dropout.01",
    "model.dropout.-1=0.5": "model.dropout is one value and has no parts, got model.dropout.-1",
    "model.dropout.1.1=0.5": "model.dropout is one value and has no parts, got model.dropout.1.1",
    "model.slope.0=0.5": "model.slope is one value and has no parts, got model.slope.0",
}


@pytest.mark.parametrize("option", LAYERS)
def test_a_layer_that_there_is_not_is_refused(option):
    assert refusal("{}\n", option) == f"--set {option}: {LAYERS[option]}"
    with pytest.raises(SpecError) as caught:
        Experiment().override(*option.split("=", 1)[:1], float(option.split("=")[1]))
    assert str(caught.value) == LAYERS[option] or "model.hidden" in option


def test_a_network_without_hidden_layers_has_none_to_set():
    said = "model.dropout.0 must name a layer of the hidden layers, of which there are none"
    assert refusal("model: {hidden: []}\n", "model.dropout.0=0.1") == f"--set model.dropout.0=0.1: {said}"


def test_a_layer_of_a_list_of_another_length_leaves_the_complaint_about_the_list():
    text = "model:\n  hidden: [8, 4]\n  dropout: [0.1]\n"
    assert refusal(text, "model.dropout.1=0.2").endswith("must be one number or 2, one a hidden layer, got 1")


def test_a_layer_of_a_value_that_is_wrong_does_not_mend_it():
    assert "model.dropout[0] must be a number in [0, 1), got null" in refusal("model: {dropout: null}\n", "model.dropout.1=0.2")


def test_keys_with_a_value_a_layer_are_those_of_the_models():
    """One that joins them in backends/spec.py must be told here too."""
    root = models_schema()
    lists = {path for path, node, _ in leaves(root) if path.split(".")[0] in ("model", "regularization", "train")
             and any(option.get("type") == "array" for option in node.get("anyOf", [node]))}  # fmt: skip
    assert lists == set(LAYERED)


# Documents ---------------------------------------------------------------------------------------------------------------


def test_the_schema_for_editors_knows_single_layers_and_or():
    found = schema()["$defs"]
    (pattern,) = found["Search"]["properties"]["space"]["patternProperties"]
    assert re.search(pattern, "model.dropout.1") and re.search(pattern, "regularization.l2.10")
    assert not re.search(pattern, "model.dropout") and not re.search(pattern, "modelxdropout.1")
    assert "or" in found["Range"]["properties"] and "otherwise" not in found["Range"]["properties"]
    assert "train.backend" not in found["Search"]["properties"]["space"]["properties"]


def test_the_shipped_file_searches_the_four_and_lets_penalties_be_off():
    found = load(ROOT / "params.yaml").search
    assert list(found.space) == ["model.activation", "model.dropout", "regularization.l1", "regularization.l2"]
    assert all(found.space[f"regularization.{name}"].others == (0.0,) for name in ("l1", "l2"))
    written = parse((ROOT / "params.yaml").read_text()).value["search"]
    defaults = Search().model_dump()
    assert {k: v for k, v in written.items() if k != "space"} == {k: v for k, v in defaults.items() if k != "space"}


def test_the_example_of_a_condition_in_the_shipped_file_is_true():
    text = (ROOT / "params.yaml").read_text()
    example = next(line for line in text.splitlines() if "train.optimizer.momentum:" in line)
    entry = example.lstrip(" #")
    names = "    train.optimizer.name: {choices: [adam, sgd]}\n"
    assert "train.optimizer.momentum" in read(text.replace("  space:\n", f"  space:\n{names}    {entry}\n")).search.space
