"""The spec file: what is refused and in which words, overrides, resolved specs, fingerprints, the documents made from it."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import backends
from backends.spec import SGD, Adam, Model
from pipelines.search.study import check as check_search
from pipelines.spec import (
    Choices,
    Experiment,
    Range,
    SpecError,
    dump,
    fingerprint,
    flat,
    identity,
    load,
    models_schema,
    source_hash,
    trial,
)
from pipelines.spec.describe import leaves
from pipelines.spec.documents import documents, schema
from pipelines.spec.file import YamlError, parse
from pipelines.spec.to_trial import memory
from pipelines.stages import RunPaths, split

ROOT = Path(__file__).parents[1]
ACTIVATIONS = "sigmoid, tanh, relu, leaky_relu, identity, elu, selu, gelu, silu, softplus"
ENDINGS = ".csv, .tsv, .txt, .csv.gz, .tsv.gz, .txt.gz, .parquet"
SOURCES = f"digits, breast_cancer, wine, iris, diabetes, linnerud, openml:ID, or the path of a file that ends in {ENDINGS}"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(text: str | bytes, *overrides: str) -> Experiment:
    Path("params.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return load("params.yaml", overrides)


def refusal(text: str | bytes, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(text, *overrides)
    return str(caught.value)


# What is refused ---------------------------------------------------------------------------------------------------------

FILES = {
    "model:\n  activaton: relu\n": ":2: unknown key model.activaton; did you mean activation?",
    "sede: 2\n": ":1: unknown key sede; did you mean seed?",
    "regularization: {dropout: 1}\n": ":1: unknown key regularization.dropout; known are: l1, l2",
    "seed: 1\nseed: 2\n": (
        ':2:1: not YAML: while constructing a mapping found duplicate key "seed" with value "2" (original value: "1")'
    ),
    "train:\n  epochs: 1\n  batch_size: 2\n  epochs: 3\n": (
        ':4:3: not YAML: while constructing a mapping found duplicate key "epochs" with value "3" (original value: "1")'
    ),
    "data:\n  split: {seed: 1, seed: 1}\n": (
        ':2:20: not YAML: while constructing a mapping found duplicate key "seed" with value "1" (original value: "1")'
    ),
    "seed: 0\nmodel:\n  dropout: 1.5\n": ":3: model.dropout must be a number in [0, 1) or a list of such, got 1.5",
    "regularization: {l1: -1e-3}\n": ":1: regularization.l1 must be a number in [0, ∞) or a list of such, got -0.001",
    "train:\n  optimizer:\n    learning_rate: 0\n": ":3: train.optimizer.learning_rate must be a number in (0, ∞), got 0",
    "seed: 4294967296\n": ":1: seed must be a whole number in [0, 4294967296), got 4294967296",
    "train: {schedule: {name: step, factor: 2}}\n": ":1: train.schedule.factor must be a number in (0, 1], got 2",
    "train: {epochs: 0}\n": ":1: train.epochs must be a whole number in [1, ∞), got 0",
    "train: {clip_norm: -1}\n": ":1: train.clip_norm must be a number in (0, ∞) or null, got -1",
    "train: {devices: 0}\n": ":1: train.devices must be a whole number in [1, ∞) or auto, got 0",
    "train: {epochs: 3.0}\n": ":1: train.epochs must be a whole number in [1, ∞), got 3.0",
    "train: {epochs: true}\n": ":1: train.epochs must be a whole number in [1, ∞), got true",
    "model: {slope: true}\n": ":1: model.slope must be a number in [0, ∞), got true",
    "model: {dropout: true}\n": ":1: model.dropout must be a number in [0, 1) or a list of such, got true",
    "model: {input_dropout: '0.1'}\n": ":1: model.input_dropout must be a number in [0, 1), got '0.1'; write it without quotes",
    "tracking: {enabled: 1}\n": ":1: tracking.enabled must be true or false, got 1",
    "tracking: {enabled: no}\n": ":1: tracking.enabled must be true or false, got 'no'",
    "tracking: {experiment: 3}\n": ":1: tracking.experiment must be text, got 3",
    "tracking: {experiment: ''}\n": ":1: tracking.experiment must not be empty, got ''",
    "model: {dropout: .nan}\n": ":1: model.dropout must be a number in [0, 1) or a list of such, got nan",
    "train: {optimizer: {learning_rate: .inf}}\n": ":1: train.optimizer.learning_rate must be a number in (0, ∞), got inf",
    "regularization: {l2: 1e999}\n": ":1: regularization.l2 must be a number in [0, ∞) or a list of such, got inf",
    "data: {source: 2020-01-01}\n": ":1: data.source must be text or a mapping, got 2020-01-01 (a date)",
    "seed: null\n": ":1: seed must be a whole number in [0, 4294967296), got null",
    "model: {activation: rely}\n": f":1: model.activation must be one of: {ACTIVATIONS}, got 'rely'; did you mean relu?",
    "train: {precision: 16}\n": ":1: train.precision must be one of: float32, float64, bf16-mixed, 16-mixed, got 16",
    "model:\n  hidden: [8, 4]\n  dropout:\n    - 0.1\n    - 1.5\n": ":5: model.dropout[1] must be a number in [0, 1), got 1.5",
    "model: {slope: [0.1]}\n": ":1: model.slope must be a number in [0, ∞), got [0.1]",
    "model: {hidden: '64'}\n": ":1: model.hidden must be a list of whole numbers in [1, 1000000], got '64'",
    "model: {hidden: [64, 0]}\n": ":1: model.hidden[1] must be a whole number in [1, 1000000], got 0",
    "model:\n  hidden: [8, 8]\n  dropout: [0.1]\n": ":3: model.dropout must be one number or 2, one a hidden layer, got 1",
    "model:\n  hidden: [8, 8]\nregularization:\n  l1: [0, 0]\n": (
        ":4: regularization.l1 must be one number or 3, one a layer (hidden + 1), got 2"
    ),
    "model: 3\n": ":1: model must be a mapping, got 3",
    "train: [1]\n": ":1: train must be a mapping, got [1]",
    "seed: 1\nthresholds:\n# accuracy: {min: 0.9}\n": (
        ":2: thresholds must be a mapping, got null; leave thresholds out to keep its defaults"
    ),
    "train:\n  optimizer:\n    name: sgd\n    beta1: 0.9\n": (
        ":4: train.optimizer.beta1 is not an option of sgd; sgd takes learning_rate, momentum, nesterov"
    ),
    "train: {optimizer: {momentum: 0.9}}\n": (
        ":1: train.optimizer.momentum is not an option of adam; adam takes learning_rate, beta1, beta2, epsilon"
    ),
    "train: {schedule: {name: cosine, every: 3}}\n": ":1: train.schedule.every is not an option of cosine; cosine takes warmup",
    "train: {optimizer: {name: sdg, momentum: 0.9}}\n": (
        ":1: train.optimizer.name must be one of: sgd, adam, adamw, rmsprop, got 'sdg'; did you mean sgd?"
    ),
    "train: {optimizer: sgd}\n": ":1: train.optimizer must be a mapping, got 'sgd'",
    "train:\n  backend: kers\n": ":2: train.backend must name a registered backend, got 'kers'; did you mean keras?",
    "data: {source: digit}\n": f":1: data.source must be one of: {SOURCES}, got 'digit'; did you mean digits?",
    "data: {source: a.xlsx}\n": f":1: data.source must be one of: {SOURCES}, got 'a.xlsx'",
    "data:\n  source: a.csv\n": ":1: data.target must name what to predict, a column of a.csv or a list of them, got nothing",
    "data: {source: a.csv, target: [y, y]}\n": ":1: data.target must name each column once, got y, y",
    "data: {source: a.csv, target: [y, 3]}\n": ":1: data.target[1] must be text, got 3",
    "data: {target: y}\n": ":1: data.target must be null for the bundled set digits, which has its own, got 'y'",
    "data:\n  split:\n    train: 0.7\n": ":3: data.split.train plus valid plus test must be 1, got 0.7 + 0.2 + 0.2 = 1.1",
    "data: {split: {test: 0}}\n": ":1: data.split.test must be a number in (0, 1), got 0",
    "data: {split: {stratify: 'yes'}}\n": ":1: data.split.stratify must be true or false or auto, got 'yes'",
    "thresholds:\n  accuracy: {}\n": ":2: thresholds.accuracy.min or max must be given, got neither",
    "thresholds:\n  accuracy: {min: 2, max: 1}\n": ":2: thresholds.accuracy.min must be at most max, got 2.0 and 1.0",
    "thresholds:\n  test_accuracy: {min: 0.9}\n": (
        ":2: thresholds.test_accuracy must be a metric of the validation rows, got 'test_accuracy'; the test rows must not choose"
    ),
    "search:\n  metric: test_loss\n": (
        ":2: search.metric must be a metric of the validation rows, got 'test_loss'; the test rows must not choose"
    ),
    "model: &m {dropout: 0.1}\nregularization: *m\n": ":1: an anchor (&m) is not allowed; write each value out",
    "seed: !!str 3\n": ":1: a tag (tag:yaml.org,2002:str) is not allowed; quote what must be text",
    "%YAML 1.1\n---\ntracking: {enabled: no}\n": ":2: a % directive is not allowed; the file is read as YAML 1.2",
    "1: 2\n": ":1: a key must be text, got 1",
    "? {seed: 0}\n: 1\n": ":1: a key must be text, got a mapping",
    "seed: 1\n---\nseed: 2\n": ":2:1: not YAML: expected a single document in the stream but found another document",
    "seed: " + "9" * 5000: (
        ": a value cannot be read: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; "
        "use sys.set_int_max_str_digits() to increase the limit"
    ),
    "model:\n\tdropout: 0.1\n": ":2:1: not YAML: a tab; indent with spaces",
    "model: {hidden: [8\n": ":2:1: not YAML: while parsing a flow sequence expected ',' or ']', but got '<stream end>'",
    "tracking: {uri: 'https://me:a@b@host/x'}\n": (
        ":1: tracking.uri must hold no password, since params.yaml is kept and shown; set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD in the environment"
    ),
    "tracking:\n  uri: postgresql://me:a@host/x\n": (
        ":2: tracking.uri must hold no password, since params.yaml is kept and shown; set MLFLOW_TRACKING_URI in the environment"
    ),
    "tracking:\n  tags: {team: blue, api_key: abc}\n": (
        ":2: tracking.tags must hold no secret, since params.yaml is kept and shown; leave out api_key"
    ),
    "tracking: {tags: {note: 'password=hunter2hunter'}}\n": (
        ":1: tracking.tags must hold no secret, since params.yaml is kept and shown; leave out note"
    ),
    "tracking: {tags: {mlflow.user: me}}\n": (
        ":1: tracking.tags must have names of letters, digits, blanks and _ . : -, and mlflow. and deltarule. are taken, "
        "got 'mlflow.user'"
    ),
    "train: {early_stopping: {monitor: macro_f2}}\n": (
        ":1: train.early_stopping.monitor must be a metric of the validation rows, got 'macro_f2'; did you mean macro_f1?"
    ),
    'search:\n  space:\n    "model.ac\\ntivation": {choices: [relu]}\n': (
        ":3: a key must be printable text, got 'model.ac\\ntivation'"
    ),
    'seed: 1\n"\\uD83D\\uDE00": []\n': ":2: a key must be printable text, got '\\ud83d\\ude00'",
    'tracking: {experiment: "\\uD83D"}\n': ":1: a text must hold whole characters, got '\\ud83d'",
    "data: {source: a.csv, target: y, format: {encoding: base64}}\n": (
        ":1: data.format.encoding must be an encoding of text that Python knows, or auto, got 'base64'"
    ),
    'data: {source: a.csv, target: ["y\\nz", "y\\nz"]}\n': ":1: data.target must name each column once, got y\\nz, y\\nz",
    "a: [\r\r\r1": ":4:2: not YAML: while parsing a flow sequence expected ',' or ']', but got '<stream end>'",
    "seed: 1: 2\n": ":1:8: not YAML: mapping values are not allowed here",
    "seed: 'a\n": ":2:1: not YAML: while scanning a quoted scalar found unexpected end of stream",
    "seed: 1\ndata: \x07\n": ":2: not YAML: unacceptable character #x0007: special characters are not allowed",
    "- 1\n": ": must be a mapping of the spec's keys (seed, data, model, ...), got [1]",
    "seed\n": ": must be a mapping of the spec's keys (seed, data, model, ...), got 'seed'",
    "": ": must be a mapping of the spec's keys (seed, data, model, ...), got an empty file",
    "# seed: 1\n": ": must be a mapping of the spec's keys (seed, data, model, ...), got an empty file",
    b"\x89PNG\r\n\x1a\n\0\0": ":1: must be a text file in UTF-8, got byte 0x89",
    "seed: 1\n".encode("utf-16"): ":1: must be a text file in UTF-8, got byte 0xff",
    "seed: 1\n# é\n".encode("latin-1"): ":2: must be a text file in UTF-8, got byte 0xe9",
    b"#" * 1_000_001: ": must be a YAML file of at most 1000000 bytes, got 1000001",
    "seed: " + "[" * 100 + "]" * 100: ":1: must nest at most 32 deep",
}


@pytest.mark.parametrize("text", FILES, ids=lambda text: repr(text[:60]))
def test_a_bad_file_is_refused_with_place_and_reason(text):
    assert refusal(text) == f"params.yaml{FILES[text]}"


SPACES = {
    "model.dropot: {low: 0, high: 0.5}": "model.dropot: unknown key model.dropot; did you mean dropout?",
    "model.dropout: {low: 0.1, high: 1.5}": "model.dropout: model.dropout must be a number in [0, 1) or a list of such, got 1.5",
    "model.activation: {choices: [relu, rel]}": (
        f"model.activation: model.activation must be one of: {ACTIVATIONS}, got 'rel'; did you mean relu?"
    ),
    "model.hidden: {choices: [[8], [0]]}": "model.hidden: model.hidden[0] must be a whole number in [1, 1000000], got 0",
    "train.batch_size: {low: 8, high: 64.5}": ("train.batch_size: train.batch_size must be a whole number in [1, ∞), got 64.5"),
    "train.optimizer.momentum: {low: 0, high: 0.9}": (
        "train.optimizer.momentum: train.optimizer.momentum is not an option of adam; "
        "adam takes learning_rate, beta1, beta2, epsilon"
    ),
    "train.backend: {choices: [keras, lightning]}": (
        "train.backend: a study cannot vary who computes it, which changes no result; set train.backend for the whole study"
    ),
    "data.split.seed: {low: 0, high: 9}": (
        "data.split.seed: a study cannot vary data.split.seed; it varies values of model, regularization, train, data.scaling, "
        "data.scale_target"
    ),
    "model: {choices: [{}]}": (
        "model: a study cannot vary model; it varies values of model, regularization, train, data.scaling, data.scale_target"
    ),
    "model.slope: {low: 1, high: 1}": "model.slope.low must be less than high, got 1 and 1",
    "model.slope: {low: 0, high: 1, log: true}": "model.slope.low must lie in (0, ∞) where log is true, got 0",
    "model.slope: {low: 0}": "model.slope.high is missing; it must be given",
    "model.slope: {low: true, high: 2}": "model.slope.low must be a number, got true",
    "model.slope: {choices: []}": "model.slope.choices must be a list of values, at least one, got []",
    "model.slope: {low: 0, high: 1, logg: true}": "unknown key search.space.model.slope.logg; did you mean log?",
    "model.slope: {choices: [1], low: 0}": "unknown key search.space.model.slope.low; known are: choices, when",
    "model.slope: 3": "model.slope must be a mapping, got 3",
}


@pytest.mark.parametrize("entry", SPACES)
def test_a_study_of_values_that_the_spec_would_refuse_is_refused(entry):
    sentence = SPACES[entry] if SPACES[entry].startswith("unknown") else f"search.space.{SPACES[entry]}"
    assert refusal(f"search:\n  space:\n    {entry}\n") == f"params.yaml:3: {sentence}"


def test_all_the_problems_of_a_file_are_reported_at_once_from_top_to_bottom():
    text = """\
seed: -1
data: {split: {train: 0.9}}
model:
  dropout: 2
  hiden: [3]
train:
  backend: kers
  epochs: 0
  optimizer: {name: sgd, rho: 1}
thresholds: {test_loss: {max: 1}}
search:
  space:
    model.slpe: {low: 0, high: 1}
    model.slope: {low: 0, high: -1}
"""
    assert refusal(text).splitlines() == [
        "params.yaml:1: seed must be a whole number in [0, 4294967296), got -1",
        "params.yaml:2: data.split.train plus valid plus test must be 1, got 0.9 + 0.2 + 0.2 = 1.3",
        "params.yaml:4: model.dropout must be a number in [0, 1) or a list of such, got 2",
        "params.yaml:5: unknown key model.hiden; did you mean hidden?",
        "params.yaml:8: train.epochs must be a whole number in [1, ∞), got 0",
        "params.yaml:9: train.optimizer.rho is not an option of sgd; sgd takes learning_rate, momentum, nesterov",
        "params.yaml:10: thresholds.test_loss must be a metric of the validation rows, got 'test_loss'; "
        "the test rows must not choose",
        "params.yaml:14: search.space.model.slope.low must be less than high, got 0 and -1",
    ]


def test_a_key_that_is_wrong_raises_no_complaint_about_what_depends_on_it():
    """The lengths of lists cannot be judged while the number of layers is unknown."""
    text = "model:\n  hidden: [8, x]\n  dropout: [0.1]\nregularization: {l1: [1, 2]}\n"
    assert refusal(text) == "params.yaml:2: model.hidden[1] must be a whole number in [1, 1000000], got 'x'"


def test_a_missing_file_and_a_folder_are_refused_with_a_way_out():
    with pytest.raises(SpecError, match=r"^params\.yaml: no such file; run this in the folder of a project, or give"):
        load()
    Path("folder.yaml").mkdir()
    with pytest.raises(SpecError, match=r"^folder\.yaml: cannot be read: Is a directory; give the path of a YAML file$"):
        load("folder.yaml")


def test_an_alias_bomb_is_refused_before_it_expands():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    assert refusal(bomb) == "params.yaml:1: an anchor (&a0) is not allowed; write each value out"  # 9^30 leaves


# What is read ------------------------------------------------------------------------------------------------------------

SCALARS = [
    "1e-3", "1e-05", "1.5E+3", ".5", "+.5", "5.", "012", "0x1f", "0o14", "0b11", "1_000", "-0", "no", "yes", "on", "off", "y",
    "true", "True", "null", "~", "", "1:30", "'1'", '"a\\n"', "a b", "2020-01-01", "[1, [2, {a: 1e-3}]]", "{a: 1e3}", "1.2.3",
    "-", "|\n  two\n  lines", ">\n  one\n  line", ".inf", "-.INF", "'it''s'", "ü", "a#b", "a # comment", "1e", "e1", "--1",
]  # fmt: skip


@pytest.mark.parametrize("text", SCALARS)
def test_values_are_those_that_dvc_reads(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of DVC's own imports
        from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
    whole = f"seed: {text}\n"
    try:
        theirs = parse_yaml(whole, "params.yaml")
    except YAMLFileCorruptedError:
        with pytest.raises(YamlError):
            parse(whole)
        return
    ours = parse(whole).value
    assert ours == theirs and type(ours["seed"]) is type(theirs["seed"])


def test_numbers_are_read_as_yaml_1_2():
    e = read("seed: 012\nregularization: {l2: 1e-05}\ntracking: {experiment: no}\ntrain: {optimizer: {learning_rate: 1e-3}}\n")
    assert (e.seed, e.regularization.l2, e.tracking.experiment) == (12, 1e-5, "no")
    assert e.train.optimizer.learning_rate == 0.001


def test_a_byte_order_mark_and_windows_line_ends_are_no_trouble():
    assert read("\ufeffseed: 3\r\nmodel:\r\n  hidden: [4]\r\n") == Experiment(seed=3, model=Model(hidden=(4,)))


def test_keys_and_blocks_may_be_left_out():
    assert read("{}\n") == Experiment()
    assert read("train: {optimizer: {learning_rate: 0.1}}\n").train.optimizer == Adam(name="adam", learning_rate=0.1)
    assert read("train: {schedule: {warmup: 7}}\n").train.schedule.name == "constant"


def test_every_default_is_valid_and_stands_in_the_dump():
    text = dump(Experiment())
    assert read(text) == Experiment()
    written = parse(text).lines
    for path, _, of in leaves(models_schema()):
        if of in ("", "adam", "constant") and "<" not in path:
            assert tuple(path.split(".")) in written, f"{path} is not written out"


EXPERIMENTS = {
    "the defaults": {},
    "a linear network": {"model.hidden": []},
    "one value a layer": {
        "model.hidden": [3, 2, 1],
        "model.dropout": [0.1, 0, 0.3],
        "regularization.l1": [0, 1e-300, 1e-5, 1e10],
    },
    "another optimizer": {"train.optimizer": {"name": "rmsprop", "rho": 0.5}, "train.schedule": {"name": "step", "every": 3}},
    "a file": {"data.source": "data/é a.csv", "data.target": ["y: 1", "#z", "no", "1e3", "null", "~", "a\nb", " x ", "012"]},
    "one target": {"data.source": "a.parquet", "data.target": "*y"},
    "text that looks like something else": {"tracking.experiment": "0x1f", "data.missing.markers": ["true"]},
    "long text": {"tracking.uri": "https://example.org/" + "a long path " * 40},
    "nulls written out": {"train.clip_norm": None, "train.early_stopping.patience": None},
    "a study": {
        "search.space": {
            "model.activation": {"choices": ["relu", "tanh"]},
            "model.hidden": {"choices": [[3], [4, 5], []]},
            "train.batch_size": {"low": 8, "high": 64},
            "regularization.l1": {"low": 1e-6, "high": 1e-2, "log": True},
        },
        "search.trials": 7,
    },
    "thresholds": {"thresholds": {"accuracy": {"min": 0.9}, "rmse.y1": {"max": 3}}},
}


@pytest.fixture(params=EXPERIMENTS)
def experiment(request):
    return Experiment().override(EXPERIMENTS[request.param])


def test_a_dump_loads_again_to_an_equal_experiment(experiment):
    text = dump(experiment)
    assert read(text) == experiment
    assert dump(read(text)) == text
    assert len(text.splitlines()) == len(parse(text).lines) - len([path for path in parse(text).lines if _in_a_list(path)])


def _in_a_list(path: tuple[str | int, ...]) -> bool:
    return any(isinstance(part, int) for part in path)


def test_flat_is_scalars_and_goes_back_by_overrides(experiment):
    values = flat(experiment)
    assert all(value is None or isinstance(value, str | int | float | bool) for value in values.values())
    texts = {path: json.loads(v) if isinstance(v, str) and v[:1] in "[{" else v for path, v in values.items()}
    names_first = sorted(texts, key=lambda path: not path.endswith("name"))
    assert Experiment().override({path: texts[path] for path in names_first}) == experiment


def test_flat_goes_back_through_set_as_well():
    values = flat(load(ROOT / "params.yaml"))
    options = [f"{path}={json.dumps(v) if v is None or isinstance(v, bool) else v}" for path, v in values.items()]
    assert read("{}\n", *options) == load(ROOT / "params.yaml")


# Overrides ---------------------------------------------------------------------------------------------------------------


def test_overrides_are_yaml_and_the_last_one_holds():
    e = read(
        "model: {dropout: 0.1}\n",
        "model.dropout=0.5", "model.dropout=0.3", "model.hidden=[8, 4]", "regularization.l2=1e-05", "train.clip_norm=null",
        "train.optimizer={name: sgd, momentum: 0.9}", "train.optimizer.nesterov=true", "tracking.uri=http://a?b=c",
        "search.space.model.dropout={low: 0, high: 0.5}", "thresholds.accuracy.min=0.9", " seed = 3",
    )  # fmt: skip
    assert e.model == Model(dropout=0.3, hidden=(8, 4))
    assert (e.seed, e.regularization.l2, e.train.clip_norm, e.tracking.uri) == (3, 1e-5, None, "http://a?b=c")
    assert e.train.optimizer == SGD(name="sgd", momentum=0.9, nesterov=True)
    assert e.search.space == {"model.dropout": Range(low=0, high=0.5)}
    assert e.thresholds["accuracy"].min == 0.9


OVERRIDES = {
    "model.dropout=1.5": "model.dropout must be a number in [0, 1) or a list of such, got 1.5",
    "model.activaton=tanh": "unknown key model.activaton; did you mean activation?",
    "modle={}": "unknown key modle; did you mean model?",
    "model.dropout": "must have the form path=value, such as model.dropout=0.3",
    "": "must have the form path=value, such as model.dropout=0.3",
    "=3": "must have the form path=value, such as model.dropout=0.3",
    "seed.x=3": "seed is one value and has no parts, got seed.x",
    "model..dropout=3": "unknown key model.; known are: hidden, activation, slope, dropout, input_dropout, initializer",
    "model.dropout=[": "not YAML: while parsing a flow node expected the node content, but found '<stream end>'",
    "model.hidden={a: 1, a: 2}": (
        'not YAML: while constructing a mapping found duplicate key "a" with value "2" (original value: "1")'
    ),
    "model.hidden=&x [1]": "an anchor (&x) is not allowed; write each value out",
    "model.activation=": f"model.activation must be one of: {ACTIVATIONS}, got null",
    "model={dropout: 2}": "model.dropout must be a number in [0, 1) or a list of such, got 2",
    "model=null": "model must be a mapping, got null; leave model out to keep its defaults",
    "train.optimizer.momentum=0.9": (
        "train.optimizer.momentum is not an option of adam; adam takes learning_rate, beta1, beta2, epsilon"
    ),
    "train.backend=kers": "train.backend must name a registered backend, got 'kers'; did you mean keras?",
    "search.space.model.slope.low=1": "search.space.model.slope.high is missing; it must be given",
    "regularization.l1=[1, 2]": "regularization.l1 must be one number or 3, one a layer (hidden + 1), got 2",
}


@pytest.mark.parametrize("option", OVERRIDES)
def test_a_bad_override_is_named_in_the_error(option):
    assert refusal("seed: 1\n", option) == f"--set {option}: {OVERRIDES[option]}"


def test_errors_of_overrides_come_first_and_those_of_the_file_after():
    lines = refusal("seed: x\nmodel: {dropout: 3}\n", "model.dropout=2", "train.epochs=0").splitlines()
    assert lines == [
        "--set model.dropout=2: model.dropout must be a number in [0, 1) or a list of such, got 2",
        "--set train.epochs=0: train.epochs must be a whole number in [1, ∞), got 0",
        "params.yaml:1: seed must be a whole number in [0, 4294967296), got 'x'",
    ]


def test_an_error_names_the_override_that_set_the_value_and_not_its_neighbour_or_the_file():
    lines = refusal("model:\n  dropout: [0.1, 0.2]\n", "model.dropout=[0.1, 2]")
    assert lines == "--set model.dropout=[0.1, 2]: model.dropout[1] must be a number in [0, 1), got 2"
    lines = refusal("seed: 1\n", "model.dropout=2", "model={dropout: 3}")
    assert lines == "--set model={dropout: 3}: model.dropout must be a number in [0, 1) or a list of such, got 3"
    lines = refusal("seed: 1\n", "model={dropout: 2}", "model.slope=1")
    assert lines == "--set model={dropout: 2}: model.dropout must be a number in [0, 1) or a list of such, got 2"


def test_another_optimizer_takes_over_what_both_know_and_drops_defaults_that_nobody_wrote():
    text = "train:\n  optimizer:\n    name: adam\n    learning_rate: 1e-2\n"
    assert read(text, "train.optimizer.name=sgd").train.optimizer == SGD(name="sgd", learning_rate=0.01)
    assert read(text).override("train.optimizer.name", "sgd").train.optimizer == SGD(name="sgd", learning_rate=0.01)
    assert Experiment().override("train.optimizer.name", "sgd").train.optimizer == SGD(name="sgd")


def test_another_optimizer_refuses_options_that_stand_in_the_file():
    text = "train:\n  optimizer:\n    name: adam\n    beta1: 0.8\n"
    sentence = "train.optimizer.beta1 is not an option of sgd; sgd takes learning_rate, momentum, nesterov"
    assert refusal(text, "train.optimizer.name=sgd") == f"params.yaml:4: {sentence}"
    with pytest.raises(SpecError) as caught:
        read(text).override("train.optimizer.name", "sgd")
    assert str(caught.value) == sentence


def test_override_leaves_the_original_alone_and_takes_models_tuples_and_mappings():
    e = Experiment()
    changed = e.override({"model": Model(hidden=(3,)), "regularization.l1": (0.1, 0.2), "seed": 4})
    assert (changed.model.hidden, changed.regularization.l1, changed.seed) == ((3,), (0.1, 0.2), 4)
    assert e == Experiment()
    assert changed.override("model.dropout", [0.5]).model == Model(hidden=(3,), dropout=(0.5,))


def test_override_from_python_reports_every_problem_without_a_file():
    with pytest.raises(SpecError) as caught:
        Experiment().override({"model.dropout": float("nan"), "seed": True})
    assert str(caught.value).splitlines() == [
        "seed must be a whole number in [0, 4294967296), got true",
        "model.dropout must be a number in [0, 1) or a list of such, got nan",
    ]
    with pytest.raises(SpecError, match="train must be a mapping, got 3"):
        Experiment().override("train", 3)
    with pytest.raises(SpecError, match=r"^train\.optimizer\.name must be one of: sgd, adam, adamw, rmsprop, got \['sgd'\]$"):
        Experiment().override("train.optimizer.name", ["sgd"])
    assert Experiment().override("seed", np.int64(3)) == Experiment().override("seed", 3)
    with pytest.raises(SpecError, match=r"^unknown key model\.dropot; did you mean dropout\?$"):
        Experiment().override("model.dropot", 0.1)
    with pytest.raises(TypeError, match="needs a value"):
        Experiment().override("train.clip_norm")


# The file that is shipped ------------------------------------------------------------------------------------------------


def test_the_shipped_file_is_the_embedded_experiment():
    e = load(ROOT / "params.yaml")
    assert (e.data.source, e.model.hidden, e.model.activation, e.model.dropout) == ("digits", (128, 64), "relu", 0.2)
    assert (e.regularization.l2, e.train.optimizer, e.train.backend) == (1e-4, Adam(name="adam"), "lightning")
    assert (e.train.epochs, e.train.batch_size, e.train.precision) == (30, 32, "float32")
    assert e.thresholds == {}, "a threshold here would break the pipeline for every other task"
    assert e.search.space["model.activation"] == Choices(choices=("relu", "leaky_relu", "tanh", "sigmoid"))


@pytest.mark.parametrize("source", ["digits", "breast_cancer", "wine", "iris", "diabetes", "linnerud"])
@pytest.mark.parametrize("backend", ["reference", "lightning", "keras"])
def test_the_shipped_file_serves_every_bundled_set_on_every_backend(source, backend):
    e = load(ROOT / "params.yaml", [f"data.source={source}", f"train.backend={backend}"])
    assert (e.data.source, e.train.backend) == (source, backend)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_the_shipped_file_changes_its_optimizer_by_one_override(name):
    assert load(ROOT / "params.yaml", [f"train.optimizer.name={name}"]).train.optimizer.name == name


def test_the_shipped_file_can_be_edited_by_dvc_exp_run_and_keeps_its_comments():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of DVC's and Hydra's own imports
        from dvc.utils.hydra import apply_overrides

        Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
        apply_overrides(Path("params.yaml"), ["train.backend=keras", "regularization.l2=0.00001", "train.clip_norm=1.5"])
    expected = load(ROOT / "params.yaml").override({"train.backend": "keras", "regularization.l2": 1e-5, "train.clip_norm": 1.5})
    assert load() == expected
    assert "# units of each hidden layer" in Path("params.yaml").read_text()


def test_the_shipped_file_writes_out_every_key_so_that_dvc_can_override_it():
    """Hydra refuses to set a key that does not stand in the file."""
    written = parse((ROOT / "params.yaml").read_text()).lines
    kinds = {"", "adam", "constant"}
    optional = {"train.optimizer.beta1", "train.optimizer.beta2", "train.optimizer.epsilon"}  # they belong to one kind
    wanted = {path for path, _, of in leaves(models_schema()) if of in kinds and "<" not in path}
    assert {path for path in wanted if tuple(path.split(".")) not in written} == optional


@pytest.mark.parametrize("name", ["spec.md", "params.schema.json"])
def test_the_documents_are_those_of_the_models(name):
    written = (ROOT / "docs" / name).read_text()
    assert written == documents()[name], "stale; make them again with: python -m pipelines.spec.documents"


def test_the_reference_table_has_every_key():
    table = documents()["spec.md"]
    assert all(f"| `{path}` |" in table for path, _, _ in leaves(models_schema()))


def test_the_schema_knows_kinds_and_paths_of_a_study():
    found = schema()
    assert found["properties"]["seed"]["exclusiveMaximum"] == 2**32
    space = found["$defs"]["Search"]["properties"]["space"]
    assert "regularization.l1" in space["properties"] and "data.split.seed" not in space["properties"]
    assert "required" not in found["$defs"]["Adam"] and found["$defs"]["SGD"]["required"] == ["name"]
    assert json.loads(json.dumps(found)) == found


# Identity ----------------------------------------------------------------------------------------------------------------

HASHES = {"train": "aa", "valid": "bb"}
PRINT = fingerprint(Experiment(), HASHES, "s")


def test_a_fingerprint_is_32_hex_digits_and_does_not_care_how_the_spec_was_written():
    assert len(PRINT) == 32 and int(PRINT, 16) >= 0
    assert fingerprint(read(dump(Experiment())), dict(reversed(HASHES.items())), "s") == PRINT
    assert fingerprint(read("regularization: {l1: 0}\n"), HASHES, "s") == PRINT


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"model.slope": 0.1}, {"regularization.l2": 1e-9}, {"train.precision": "float64"}, {"train.backend": "keras"}],
)
def test_a_fingerprint_follows_what_the_training_depends_on(change):
    assert fingerprint(Experiment().override(change), HASHES, "s") != PRINT


@pytest.mark.parametrize(
    "change",
    [
        {"thresholds": {"accuracy": {"min": 1}}},
        {"search.trials": 3},
        {"tracking.enabled": False},
        {"data.source": "wine"},  # which stands in the hashes of the data
    ],
)
def test_a_fingerprint_follows_nothing_else(change):
    assert fingerprint(Experiment().override(change), HASHES, "s") == PRINT


def test_a_fingerprint_follows_data_and_source_and_refuses_the_test_rows():
    assert len({PRINT, fingerprint(Experiment(), {**HASHES, "train": "x"}, "s"), fingerprint(Experiment(), HASHES, "t")}) == 3
    with pytest.raises(ValueError, match="training and validation parts alone"):
        fingerprint(Experiment(), {**HASHES, "test": "cc"}, "s")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A small house whose source is hashed in place of ours."""
    single = [name for name in identity.SOURCES["train"] if name.endswith(".py")]
    for name in (
        *single, "backends/keras/__init__.py", "backends/keras/deep/trainer.py", "backends/reference/__init__.py",
        "backends/keras/__pycache__/x.pyc", "pipelines/data/read.py", "pipelines/cli.py", "pipelines/stages/test.py",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(f"# {name}\nx = 1\n".encode())
    monkeypatch.setattr(identity, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("backends/spec.py", True),
        ("backends/keras/deep/trainer.py", True),
        ("pipelines/stages/metrics.py", True),
        ("pipelines/stages/train.py", True),
        ("pipelines/stages/folds.py", True),
        ("backends/reference/__init__.py", False),
        ("pipelines/cli.py", False),
        ("pipelines/stages/test.py", False),
        ("backends/keras/__pycache__/x.pyc", False),
    ],
)
def test_the_source_hash_follows_what_the_train_stage_runs(source, name, counts):
    before = source_hash("keras")
    (source / name).write_text("changed")
    assert (source_hash("keras") != before) is counts


def test_the_source_hash_follows_names_but_not_line_ends(source):
    before = source_hash("keras")
    spec = source / "backends/spec.py"
    spec.write_bytes(spec.read_bytes().replace(b"\n", b"\r\n"))
    assert source_hash("keras") == before
    trainer = source / "backends/keras/deep/trainer.py"
    trainer.rename(trainer.with_name("other.py"))
    assert source_hash("keras") != before


def test_the_source_of_a_backend_from_elsewhere_counts_whole_and_is_not_imported(source, monkeypatch):
    package = source / "elsewhere"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "inner.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(source))
    monkeypatch.setattr(identity, "registered", lambda: {"mine": ("elsewhere.inner:Mine", "elsewhere")})
    monkeypatch.setattr(identity, "check_name", lambda name: None)
    before = source_hash("mine")
    (package / "inner.py").write_text("x = 2")
    assert source_hash("mine") != before


def test_the_source_of_our_backends_can_be_hashed():
    folders = {module.partition(":")[0] for module, _ in backends.REGISTRY.values()}
    assert len({source_hash(name) for name in backends.REGISTRY}) == len(folders)
    with pytest.raises(backends.BackendError, match="did you mean keras"):
        source_hash("kers")


def of_data(task="multiclass", outputs=10, **rows):
    """What is known of data with 64 inputs."""
    return SimpleNamespace(task=task, inputs=("x",) * 64, number=None, outputs=outputs, class_counts={}, rows=rows)


def test_a_containers_limit_counts_as_its_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.spec.to_trial.CONTAINERS", [tmp_path / "memory.max", tmp_path / "none"])
    for said, expected in (("max", memory()), ("4096", 4096), ("9223372036854771712", memory())):
        (tmp_path / "memory.max").write_text(f"{said}\n")
        assert memory() == expected


WIDE = {"model.hidden": [200_000, 200_000], "data.source": "nowhere.csv", "data.target": "y"}


def test_a_network_beyond_the_memory_is_refused_with_its_size_before_rows_are_read_and_in_a_space_too(tmp_path):
    must = (
        r"model.hidden must be what [\d.]+ GB of memory hold, got \[200000, 200000\]: 40,000,800,001 weights, 7 numbers for each "
    )
    must += "with adam, which takes 1,120 GB"
    with pytest.raises(SpecError, match=must):
        split(Experiment().override(WIDE), RunPaths(tmp_path))
    space = {"choices": [[8], [200_000, 200_000]]}
    searched = Experiment().override({"search.space": {"model.hidden": space, "model.dropout": {"low": 0, "high": 0.5}}})
    with pytest.raises(SpecError, match=rf"^search.space.model.hidden: {must}$"):
        check_search(searched)


@pytest.mark.parametrize(
    "changes, data, must",
    [
        ({}, of_data(outputs=10**6, valid=10**6), "data.target must have .*, got 1,000,000 classes, which takes 24,000 GB"),
        ({"train.batch_size": 10**9}, of_data(train=10**9), "train.batch_size must be .*: 1,000,000,000 rows of 266 units"),
    ],
    ids=["classes", "batch"],
)
def test_what_the_data_make_too_large_is_refused_by_its_key_before_it_is_trained(changes, data, must):
    assert trial(Experiment().override("train.batch_size", 10**9), of_data(train=1000, valid=300))  # all rows at once
    with pytest.raises(SpecError, match=must):
        trial(Experiment().override(changes), data)


def test_a_trial_is_the_experiment_as_a_backend_sees_it():
    e = Experiment().override({"seed": 5, "model.hidden": [7], "regularization.l1": 0.1})
    found = trial(e, of_data())
    assert (found.seed, found.task, found.inputs, found.outputs) == (5, "multiclass", 64, 10)
    assert (found.model, found.regularization, found.train) == (e.model, e.regularization, e.train)


def test_reading_a_spec_imports_no_heavy_library():
    heavy = {"torch", "lightning", "pytorch_lightning", "keras", "tensorflow", "jax", "mlflow", "optuna", "sklearn", "pandas"}
    heavy |= {"matplotlib", "dvc"}
    code = f"import sys, pipelines.spec as s; s.load({str(ROOT / 'params.yaml')!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & heavy
