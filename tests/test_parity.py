"""`deltarule parity`: backends that agree pass, a fault is seen in its own row, and every form of the report says so."""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import BIN, call, environment

from backends import BackendError
from backends.spec import Model, Trial
from pipelines.check import parity as module
from pipelines.check.case import LEAST, Case
from pipelines.check.measure import largest_distance
from pipelines.check.parity import attach_to_run, parity
from pipelines.check.show import progress
from pipelines.check.verdict import Finding, Outcome, Report, judge
from pipelines.data import About
from pipelines.spec import Experiment, load

SMALL = """
data: {source: digits}
model: {hidden: [9, 6], activation: tanh, dropout: 0.2, input_dropout: 0.1}
regularization: {l1: 1e-4, l2: 1e-3}
train: {backend: reference, epochs: 2, batch_size: 100, clip_norm: 2.0}
validation: {baselines: false}
"""
TINY = """
data: {source: flowers.csv, target: kind, scaling: none}
model: {hidden: [5], activation: tanh, dropout: 0.2}
regularization: {l2: 1e-3}
train: {backend: reference, epochs: 6, batch_size: 25, optimizer: {name: adam, learning_rate: 0.02}}
"""


def write_tiny(folder):
    """The tiny spec and its 150 rows. Of a file and unscaled: nothing imports scikit-learn, which takes a second a process."""
    X = np.random.default_rng(0).normal(size=(150, 4)).round(3)
    kinds = np.digitize(X[:, 0] + X[:, 1] * X[:, 2], [-0.5, 0.5])
    lines = [",".join(map(str, [*row, "abc"[kind]])) for row, kind in zip(X.tolist(), kinds, strict=True)]
    (folder / "flowers.csv").write_text("\n".join(["p,q,r,s,kind", *lines, ""]))
    (folder / "params.yaml").write_text(TINY)


# A distribution whose backends are the reference, each with one fault.
FAULTY = '''
import numpy as np
import backends.reference.stack as reference
from backends.reference import Reference
from backends.optimizers import RULES, adam
from backends.reference.stack import ReferenceStack


class Sound(Reference):
    """No fault."""
    name = "sound"
    kind = ReferenceStack
    def stack(self, trials, data=None, machine=None):
        from backends.base import Machine
        return self.kind(trials, data, machine or Machine())


class Epsilon(Sound):
    """Adds Adam's epsilon before bias correction, as Keras' own does."""
    name = "epsilon"
    def __init__(self):
        def wrong(xp, o, theta, g, slots, eta, n):
            shifted = o.epsilon / np.sqrt(n["correction2"])
            return adam(xp, o.model_copy(update={"epsilon": shifted}), theta, g, slots, eta, n)
        reference.RULES = {**RULES, "adam": RULES["adam"]._replace(step=wrong)}


class Penalty(Sound):
    """Leaves the 2 out of 2 * l2 * W."""
    name = "penalty"
    class kind(ReferenceStack):
        def _gradient(self, k, flat, *rest):
            loss, penalty, g, deltas, outputs = super()._gradient(k, flat, *rest)
            return loss, penalty, g - self.l2[k] * flat, deltas, outputs


class Biases(Sound):
    """Penalises biases: unseen before they have left 0."""
    name = "biases"
    class kind(ReferenceStack):
        def _derive(self):
            super()._derive()
            self.l2 = np.full_like(self.l2, self.l2.max())


class Delta(Sound):
    """Trains as it should and tells another local gradient of its first layer."""
    name = "delta"
    class kind(ReferenceStack):
        def loss_and_gradients(self, *arguments):
            found = super().loss_and_gradients(*arguments)
            return found._replace(delta=(found.delta[0] * (1 + 1e-9), *found.delta[1:]))


class Keep(Sound):
    """Keeps with probability p what should be dropped with it."""
    name = "keep"
    def __init__(self):
        from backends import draws
        threshold = draws.threshold
        draws.threshold = lambda p: threshold(1 - p) if p else 0


class Late(Sound):
    """Goes wrong at its 17th step, by one part in 1e9."""
    name = "late"
    class kind(ReferenceStack):
        def _step(self, k, s, chunk):
            losses = super()._step(k, s, chunk)
            if chunk.step + s == 16:
                self.flat[k] *= 1 + 1e-9
            return losses


class Start(Sound):
    """Draws other initial weights."""
    name = "start"
    class kind(ReferenceStack):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.flat[0, 0] = np.nextafter(self.flat[0, 0], 9)


class Outputs(Sound):
    """Sees the validation rows through a noise that should be off."""
    name = "outputs"
    class kind(ReferenceStack):
        def predict(self, X=None):
            return super().predict(X) * (1 + 1e-7)


class Early(Sound):
    """Overflows at its 17th step."""
    name = "early"
    class kind(ReferenceStack):
        def _step(self, k, s, chunk):
            loss, *others = super()._step(k, s, chunk)
            return (np.inf if chunk.step + s == 16 else loss, *others)


class Dies(Sound):
    """Ends in the middle of a step."""
    name = "dies"
    class kind(ReferenceStack):
        def run(self, chunk):
            raise RuntimeError("the sum of all fears")


class Vanishes(Sound):
    """As a crash in C does."""
    name = "vanishes"
    class kind(ReferenceStack):
        def run(self, chunk):
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)


class Refuses(Sound):
    """Cannot do what this spec asks for."""
    name = "refuses"
    def stack(self, trials, data=None, machine=None):
        from backends import BackendError
        raise BackendError("train.devices must be 8 here")
'''
NAMES = (
    "sound",
    "epsilon",
    "penalty",
    "biases",
    "delta",
    "keep",
    "late",
    "early",
    "start",
    "outputs",
    "dies",
    "vanishes",
    "refuses",
)
# fault -> (section, quantity) of what must fail, and sections in which nothing may
SEEN = {
    "epsilon": ([("step", "weights")], ("start", "batch")),
    "penalty": ([("batch", "gradient, layer 1 weight"), ("batch", "gradient, layer 2 weight")], ("start",)),
    "biases": ([("batch", "λΩ"), ("batch", "gradient, layer 1 bias"), ("step", "weights")], ("start",)),
    "delta": ([("batch", "δ, layer 1")], ("start", "step", "free", "history", "fit")),
    "keep": ([("batch", "outputs"), ("batch", "E"), ("step", "weights")], ("start",)),
    "late": ([("step", "weights"), ("free", "weights")], ("start", "batch")),
    "early": ([("free", "step of divergence"), ("free", "weights")], ("start", "batch")),
    "start": ([("start", "initial weights")], ("batch", "step")),
    "outputs": ([("free", "outputs on the validation rows"), ("fit", "validation loss")], ("start", "batch", "step")),
}


@pytest.fixture(scope="session")
def plugins(tmp_path_factory):
    """PYTHONPATH of the faulty distribution, which also registers a backend whose framework is missing."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "faulty.py").write_text(FAULTY)
    (folder / "unfinished.py").write_text("import a_framework_that_nobody_has\n")
    about = folder / "faulty-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    lines = [f"{name} = faulty:{name.title()}" for name in NAMES] + ["missing = unfinished:Backend"]
    (about / "entry_points.txt").write_text("\n".join(["[deltarule.backends]", *lines, ""]))
    return str(folder)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with a tiny spec, which is the working folder too."""
    write_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def faults(tmp_path_factory, plugins):
    """All faulty backends but those that refuse, compared in one command: (exit code, the JSON, the page, standard error)."""
    folder = tmp_path_factory.mktemp("faults")
    write_tiny(folder)
    names = ",".join(name for name in NAMES if name != "refuses")
    command = ("parity", "--backends", names, "--precision", "float64", "--steps", "20", "--json", "--html", "page.html")
    done = call(BIN / "deltarule", *command, cwd=folder, check=False, PYTHONPATH=plugins)
    return done.returncode, json.loads(done.stdout), (folder / "page.html").read_text(), done.stderr


def rows(report, backend):
    """(section, quantity) -> row, of one precision."""
    return {(row["section"], row["quantity"]): row for row in report["backends"][backend]["quantities"]}


# Backends that agree ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_installed_frameworks_agree_with_the_reference_and_the_reference_with_itself_exactly(tmp_path):
    (tmp_path / "params.yaml").write_text(SMALL)
    command = ("parity", "--backends", "reference,lightning,keras", "--steps", "40", "--json", "--html", "page.html")
    done = call(BIN / "deltarule", *command, cwd=tmp_path)
    report = json.loads(done.stdout)
    assert report["passed"] and len(done.stdout.splitlines()) == 1
    assert report["precisions"] == ["float64", "float32"] and report["steps"] == report["steps_looked_at"] == 22
    for backend in ("lightning", "keras"):
        found = report["backends"][backend]
        assert found["status"] == "agrees" and found["versions"]
        judged = {(r["precision"], r["section"]) for r in found["quantities"] if r["passed"]}
        sections = {"start", "batch", "step", "free", "history", "fit"}
        assert judged == {(precision, section) for precision in report["precisions"] for section in sections}
        assert max(r["difference"] for r in found["quantities"]) > 0
    assert {r["difference"] for r in report["backends"]["reference"]["quantities"]} == {0.0}
    assert "lightning agrees with the reference in all" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html", "params.yaml"]


# Faults ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", SEEN)
def test_a_fault_is_seen_in_the_row_that_is_at_fault(faults, fault):
    found, (failing, sound) = rows(faults[1], fault), SEEN[fault]
    assert faults[1]["backends"][fault]["status"] == "differs"
    for key in failing:
        assert found[key]["passed"] is False, f"{key} must fail, got {found[key]}"
    assert [key for key, row in found.items() if key[0] in sound and row["passed"] is False] == []


def test_a_fault_of_one_step_is_told_with_its_step(faults):
    row = rows(faults[1], "late")["step", "weights"]
    assert row["where"] == "step 17" and row["difference"] > row["allowed"] > row["drift"]
    assert "late DIFFERS from the reference in" in faults[3]
    assert "each optimizer step, weights at step 17" in faults[3]


def test_one_that_overflows_where_the_reference_does_not_is_told_with_its_step(faults):
    assert "; it diverged at step 17, the reference did not diverge (float64)" in faults[3]
    assert "it diverged at step 17" in faults[2]


def test_a_backend_without_a_fault_passes_beside_them(faults):
    assert faults[1]["backends"]["sound"]["status"] == "agrees"
    assert {row["difference"] for row in rows(faults[1], "sound").values()} == {0.0}


def test_one_that_differs_makes_the_command_fail(faults):
    assert faults[0] == 1 and faults[1]["passed"] is False


def test_a_backend_that_dies_is_told_with_its_last_words_and_leaves_the_others_alone(faults):
    found = faults[1]["backends"]
    assert found["dies"]["status"] == found["vanishes"]["status"] == "failed"
    assert "the sum of all fears" in found["dies"]["message"] and "the sum of all fears" in faults[3]
    assert "exit code -9" in found["vanishes"]["message"]


# Forms of the report ---------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(faults):
    page = faults[2]
    assert not re.search(r"https?:|//|<script|<link|<img|@import|url\(", page)
    assert page.startswith("<!doctype html>")


def test_the_page_is_well_formed_and_names_every_backend_and_fault(faults):
    class Tags(HTMLParser):
        open, text = [], ""

        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "line", "rect", "circle"):
                self.open.append(tag)

        def handle_startendtag(self, tag, attributes):
            pass

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_data(self, data):
            self.text += data

    tags = Tags()
    tags.feed(faults[2])
    assert not tags.open
    for name in NAMES[:-1]:
        assert name in tags.text
    assert "weights at step 17, by" in tags.text and "the sum of all fears" in tags.text


def test_what_a_backend_says_is_escaped_on_the_page_and_shown_on_the_terminal():
    evil, stream = "\x1b[2J<script>alert(1)</script>", io.StringIO()
    report = Report(
        {**blank(), "precisions": ["float64"], "source": evil, "fingerprint": "0"}, (Outcome(evil, "failed", evil, {evil: evil}),)
    )
    assert "<script" not in module.page(report) and module.page(report).count("&lt;script&gt;") > 2
    with progress(stream) as on_progress:
        on_progress(evil, evil)
    assert "\x1b" not in stream.getvalue() and "\\x1b[2J" in stream.getvalue()


def test_the_same_comparison_gives_the_same_bytes(tiny, plugins):
    for number in (1, 2):
        page = ("--html", f"{number}.html")
        done = call(BIN / "deltarule", "parity", "--backends", "late", "--json", *page, cwd=tiny, check=False, PYTHONPATH=plugins)
        (tiny / f"{number}.json").write_text(done.stdout)
    assert (tiny / "1.json").read_bytes() == (tiny / "2.json").read_bytes()
    assert (tiny / "1.html").read_bytes() == (tiny / "2.html").read_bytes()


def test_without_a_terminal_the_table_is_plain_text(deltarule, tiny):
    done = deltarule("parity", "--backends", "reference", "--steps", "5")
    assert "\x1b" not in done.stdout and not done.stderr
    assert re.search(r"^largest difference +reference +allowed +one-ulp drift$", done.stdout, re.MULTILINE)
    assert re.search(r"^gradient, layer 2 weight +✓ 0 ", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1].startswith("reference agrees with the reference in all")


# What is asked for -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--backends", "kears"), "--backends must name a registered backend, got 'kears'; did you mean keras?"),
        (("--backends", "sound,missing"), "backend 'missing' is not installed"),
        (("--backends", "refuses"), "train.devices must be 8 here"),
        (("--steps", "0"), "--steps"),
        (("--precision", "float16"), "--precision"),
        (("--html", "."), "'--html': file '.' is a directory"),
        (("--set", "model.dropout=1.5"), "model.dropout must be a number in [0, 1) or a list of such"),
        (("--set", "data.source=nowhere.csv"), "nowhere.csv"),
        (("--set", "train.early_stopping.monitor=rmse"), "train.early_stopping.monitor must be a metric of"),
    ],
)
def test_what_cannot_be_compared_is_told_and_is_bad_input(deltarule, tiny, plugins, arguments, told):
    done = deltarule("parity", *arguments, check=False, PYTHONPATH=plugins)
    assert done.returncode == 2
    assert told in done.stderr and "Traceback" not in done.stderr


def test_of_all_backends_those_that_are_not_installed_are_told_and_count_for_nothing(tiny, plugins, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", plugins)
    known = ["reference", "sound", "missing", "refuses"]
    monkeypatch.setattr(module, "registered", lambda: dict.fromkeys(known, ("", "")))
    monkeypatch.setattr(module, "check_name", lambda name: None)
    report = parity(load(), steps=5)
    assert {o.backend: o.status for o in report.outcomes} == {"sound": "agrees", "missing": "absent", "refuses": "refused"}
    assert report.passed and "is not installed" in report.outcomes[1].message
    known.remove("sound")
    with pytest.raises(BackendError, match="is not installed"):
        parity(load(), steps=5)


def test_a_spec_in_mixed_precision_is_compared_in_what_it_stores(tiny):
    report = parity(load(overrides=["train.precision=bf16-mixed"]), ["reference"], steps=3)
    assert report.case["precisions"] == ["float64", "float32"] and report.passed


@pytest.mark.slow
def test_frameworks_that_overflow_at_the_step_of_the_reference_agree_and_no_warning_is_seen(deltarule, tiny):
    head, *table = (tiny / "flowers.csv").read_text().splitlines()
    (tiny / "flowers.csv").write_text("\n".join([head, *(line.replace(",", "e24,") for line in table), ""]))
    wild = ("--set", "train.optimizer={name: sgd, learning_rate: 0.02}", "--set", "model.activation=relu")
    done = deltarule("parity", "--backends", "lightning,keras", "--steps", "9", *wild)
    for backend in ("lightning", "keras"):
        assert re.search(
            rf"{backend} agrees .*; both diverged at step \d \(float64\); both diverged at step 2 \(float32\)\n", done.stdout
        )
    search = ("search", "--trials", "2", "--name", "wild", "--set", "search.space={model.dropout: {low: 0, high: 0.5}}")
    others = [deltarule(*command, *wild, check=False) for command in (("run",), search)]
    assert [one.returncode for one in others] == [1, 1]
    assert "diverged at step" in others[0].stderr and not any("Warning" in one.stdout + one.stderr for one in (done, *others))


def test_a_run_that_diverges_is_the_same_where_it_diverges_alike(tiny):
    wild = ["train.optimizer={name: sgd, learning_rate: 1e200}", "model.activation=relu"]
    report = parity(load(overrides=wild), ["reference"], steps=10)
    assert report.passed
    assert math.isfinite(report.outcomes[0].findings[0].difference)


def test_the_test_rows_are_not_even_left_lying_in_the_folder_that_backends_read(tiny, tmp_path):
    Case.make(tmp_path / "case", load(), tiny, 5, ("float64",))
    left = {p.name for p in (tmp_path / "case/outputs/data").iterdir()}
    assert left == {"train", "valid", "about.json"}


def test_outs_of_the_pipeline_that_are_of_another_spec_are_neither_used_nor_changed(deltarule, tiny):
    deltarule("split", "--set", "data.split.seed=1")
    kept = json.loads((tiny / "outputs/data/about.json").read_text())["sha256"]
    before = {p: p.read_bytes() for p in sorted((tiny / "outputs").rglob("*")) if p.is_file()}
    report = json.loads(deltarule("parity", "--backends", "reference", "--json").stdout)
    assert report["data_hashes"] != {part: kept[part] for part in ("train", "valid")}
    assert {p: p.read_bytes() for p in sorted((tiny / "outputs").rglob("*")) if p.is_file()} == before


# How much is done ------------------------------------------------------------------------------------------------------


def case_of(hidden, *, rows=1000, epochs=10, steps=200):
    """A case of that size, without data."""
    train = {"epochs": epochs, "backend": "reference", "optimizer": {"name": "adam"}}
    trial = Trial(seed=0, task="regression", inputs=8, outputs=1, model=Model(hidden=hidden), train=train)
    about = About.__new__(About)
    about.__dict__["rows"] = {"train": rows}
    return Case(Path(), trial, about, ("float64",), steps)


def test_of_a_small_network_every_step_is_looked_at_and_the_whole_fit_is_carried_out():
    case = case_of((16,))
    assert case.compared_steps() == list(range(200)) and case.whole and case.last_step is None


def test_of_a_large_network_a_few_steps_are_looked_at_among_them_the_first_the_last_and_a_short_batch():
    case = case_of((2000, 2000))
    steps = case.compared_steps()
    assert LEAST <= len(steps) < 20 and steps == sorted(set(steps))
    assert {0, case.epoch_steps - 1, 199} <= set(steps)
    assert not case.whole and case.last_step == 200
    assert case_of((2000, 2000, 2000), steps=2).compared_steps() == [0, 1]


def test_a_fit_that_is_too_long_is_followed_over_two_epochs_where_that_can_be_afforded():
    assert case_of((16,), rows=100_000, epochs=500).last_step == 2 * 3125


@pytest.mark.slow
def test_without_the_whole_fit_the_end_of_the_steps_is_compared(tiny, monkeypatch):
    monkeypatch.setattr("pipelines.check.case.PRODUCTS", 0)
    case = Case.make(tiny / "case", load(), tiny, 7, ("float64",))
    assert not case.whole and case.last_step == 7 and case.describe()["whole_fit"] is False


# Verdicts --------------------------------------------------------------------------------------------------------------


def judged(section, name, difference, *, largest=1.0, drift=0.0, precision="float64", others=()):
    """The finding of one quantity; `others`: (section, name, largest, drift) of further ones that agree."""
    rows = [(section, name, difference, largest, drift), *((s, n, 0.0, size, d) for s, n, size, d in others)]
    findings = [Finding(n, "", gap, None, precision, s, size, d) for s, n, gap, size, d in rows]
    return judge(findings)[0]


@pytest.mark.parametrize(
    ("section", "name", "largest", "drift", "allowed"),
    [
        ("start", "initial weights", 1.0, 0.0, 0.0),
        ("step", "weights", 3.0, 1e-3, 3e-12),  # whatever the drift
        ("free", "weights", 1e6, 0.0, 1e-12),  # whatever the size
        ("free", "weights", 1.0, 1e-6, 1e-5),
        ("batch", "δ, layer 1", 1e-1, 0.0, 1e-13),
        ("batch", "δ, layer 1", 1e-9, 0.0, 1e-14),
        ("batch", "δ, layer 1", 1.0, 1e-9, 1e-8),
        ("fit", "validation loss", 0.1, 0.0, 1e-12),
    ],
)
def test_in_float64_what_theory_allows_is_allowed_and_no_more(section, name, largest, drift, allowed):
    found = judged(section, name, allowed, largest=largest, drift=drift)
    assert found.allowed == pytest.approx(allowed, rel=1e-12)
    assert judged(section, name, allowed * 0.99, largest=largest, drift=drift).passed
    assert judged(section, name, allowed * 1.01 + 1e-300, largest=largest, drift=drift).passed is False


@pytest.mark.parametrize(("name", "share"), [("outputs", 1e-5), ("E", 1e-5), ("λΩ", 1e-5), ("δ, layer 1", None)])
def test_in_float32_outputs_and_objective_are_judged_and_nothing_else(name, share):
    assert judged("batch", name, 0.9e-5, precision="float32").passed is (share and True)
    assert judged("batch", name, 1.1e-5, precision="float32").passed is (None if share is None else False)
    assert judged("batch", name, 1.1e-5, precision="float32", drift=1e-5).passed is (share and True)


def test_what_moves_in_jumps_is_not_judged_where_the_reference_itself_is_unsure():
    outputs = ("fit", "outputs on the validation rows", 1.0)
    assert judged("fit", "validation accuracy", 0.01, others=[(*outputs, 1e-13)]).passed is False
    assert judged("fit", "validation accuracy", 0.01, others=[(*outputs, 1e-3)]).passed is None


def test_in_float32_models_of_two_equally_good_epochs_are_not_held_against_each_other():
    assert judged("fit", "validation loss", 1.0, precision="float32", others=[("fit", "best epoch", 9.0, 1.0)]).passed is None
    assert judged("fit", "validation loss", 1.0, precision="float32", others=[("fit", "best epoch", 9.0, 0.0)]).passed is False


def test_what_a_backend_does_not_give_fails():
    finding = judged("history", "E", math.inf)
    assert finding.passed is False and finding.as_dict()["difference"] is None


def test_of_a_quantity_the_step_that_exceeds_most_is_told():
    steps = [
        Finding("weights", f"step {i}", gap, None, "float64", "step", 1.0, 0.0) for i, gap in enumerate((1e-13, 1e-12, 1e-14))
    ]
    [finding] = judge(steps)
    assert finding.where == "step 1" and finding.passed


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([np.nan, np.inf], [np.nan, np.inf], 0.0),
        ([np.nan, 1.0], [0.0, 1.0], math.inf),
        ([np.inf, 1.0], [-np.inf, 1.0], math.inf),
        ([1.0], [1.0, 1.0], math.inf),
        ([], [], 0.0),
    ],
)
def test_a_difference_is_the_largest_and_nan_equals_only_nan(found, expected, difference):
    assert largest_distance(np.array(found), np.array(expected)) == difference


# On record -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_report_joins_the_run_of_its_experiment(deltarule, tiny):
    assert json.loads(deltarule("parity", "--backends", "reference", "--json").stdout)["run_id"] is None
    assert not (tiny / ".mlflow").exists()
    deltarule("run")
    [run_id] = [run["id"] for run in json.loads(deltarule("runs", "--json").stdout)["runs"]]
    done = deltarule("parity", "--backends", "reference", "--json")
    assert json.loads(done.stdout)["run_id"] == run_id and f"attached to run {run_id}" in done.stderr
    [kept] = tiny.glob(f".mlflow/mlartifacts/0/{run_id}/artifacts/parity/parity.json")
    assert json.loads(kept.read_text())["passed"] and kept.with_name("parity.html").exists()
    other = deltarule("parity", "--backends", "reference", "--json", "--set", "seed=1")
    assert json.loads(other.stdout)["run_id"] is None


@pytest.mark.slow
def test_a_store_that_is_down_is_a_warning(deltarule, tiny):
    done = deltarule("parity", "--backends", "reference", "--steps", "3", MLFLOW_TRACKING_URI="http://127.0.0.1:9", check=False)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: the report was not attached") and "agrees" in done.stdout


def test_where_tracking_is_off_nothing_is_attached(tiny):
    experiment = Experiment.model_validate({"tracking": {"enabled": False, "uri": "http://127.0.0.1:9"}})
    assert attach_to_run(experiment, Report({"fingerprint": "0", "precisions": [], **blank()}, ())) is None


def blank():
    """What a page says about a comparison of nothing."""
    trial = Trial(seed=0, task="binary", inputs=1, outputs=1).model_dump(mode="json")
    numbers = {"steps": 1, "steps_looked_at": 1, "whole_fit": True, "rows": {"train": 1, "valid": 1}, "data_hashes": {}}
    return {"source": "none", "trial": trial, **numbers}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_comparison_that_is_stopped_leaves_no_process_and_no_folder(tiny):
    command = [BIN / "deltarule", "parity", "--backends", "reference", "--set", "train.epochs=3000"]
    process = subprocess.Popen(command, cwd=tiny, env=environment(TMPDIR=str(tiny)), stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "reference: float64\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert list(tiny.glob("deltarule-parity-*")) == []
    time.sleep(0.1)
    assert [pid for pid in os.listdir("/proc") if pid.isdigit() and str(tiny) in command_of(pid)] == []


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
