"""The report of a run stands alone, says what the outs say, and has something to say of every run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_run import make

from pipelines import stages
from pipelines.cli.options import launched
from pipelines.report import figures, run_page
from pipelines.spec import Experiment
from pipelines.stages.paths import RunPaths

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x02\x00\x00\x00\x01\x00"
NAMES = ("learning_curves", "gradient_profile", "validate_confusion", "test_confusion", "test_residuals")
DRAWN = dict.fromkeys(NAMES, PNG)
ADDRESSED = ("src", "href", "srcset", "action", "data", "poster", "background")


class Reader(HTMLParser):
    """What a page would fetch, its tags, and its text; raises where tags do not close in order."""

    def __init__(self, page):
        super().__init__()
        self.fetched, self.tags, self.open, self.text = [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ADDRESSED]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def told(page):
    """The words of a page, white space made one."""
    return " ".join(" ".join(Reader(page).text).split())


@pytest.mark.parametrize("task", ["multiclass", "binary", "regression"])
def test_a_page_fetches_nothing_and_runs_nothing(tmp_path, task):
    page = run_page(make(tmp_path, task).root, DRAWN)
    read = Reader(page)
    assert len(read.fetched) == len(NAMES) and all(value.startswith("data:image/png;base64,") for value in read.fetched)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(read.tags)
    assert not re.search(r"url\(|@import|https?://", page)


def test_the_headline_says_what_was_trained_how_it_ended_and_what_came_of_it(tmp_path):
    said = told(run_page(make(tmp_path).root, {}))
    assert "A network (hidden layers 128-64, relu) was trained on 60 rows of digits to tell classes apart, by lightning." in said
    assert "epoch 5 was the best on the validation rows" in said
    assert "On 20 validation rows: accuracy 0.9." in said
    assert "accuracy 0.9 (95 % interval 0.85 to 0.94)" in said


def test_every_figure_stands_with_how_to_read_it_validation_beside_test(tmp_path):
    page = run_page(make(tmp_path).root, DRAWN)
    assert page.count("<figure>") == 4 and page.count("<img") == 5
    assert re.search(r'class="drawn two"><img[^>]*validation rows[^>]*><img[^>]*test rows', page)
    assert "by heart" in page and "validate/confusion.csv and test/confusion.csv" in page


def test_a_run_that_diverged_says_so_and_shows_no_metrics(tmp_path):
    said = told(run_page(make(tmp_path, stages=("data", "train"), ended="diverged", diverged_at=3).root, {}))
    assert "the loss became NaN in epoch 3" in said and "There is no model" in said and "How good it is" not in said
    assert "have not been opened" not in said


def test_a_run_whose_test_rows_are_closed_says_so(tmp_path):
    said = told(run_page(make(tmp_path, stages=("data", "train", "validate")).root, {}))
    assert "The test rows have not been opened." in said


def test_a_run_that_missed_a_threshold_says_so(tmp_path):
    places = make(tmp_path, stages=("data", "train", "validate"))
    about = places.report("validate") / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "held": True}))
    page = run_page(places.root, {})
    assert "A threshold of the spec was missed" in page and 'class="verdict failed"' in page


def test_a_report_of_another_model_is_left_out(tmp_path):
    make(tmp_path, fingerprint="aaaa" + "0" * 28)
    assert "How good it is" not in run_page(make(tmp_path, stages=("data", "train")).root, {})


def test_the_spec_is_there_in_whole_and_what_differs_from_the_defaults_apart(tmp_path):
    spec = Experiment.model_validate({"model": {"hidden": [7]}, "thresholds": {"accuracy": {"min": 0.5}}})
    page = run_page(make(tmp_path, spec=spec).root, {}, spec)
    assert re.search(r"<td>model.hidden</td><td class=.number.>\[7\]</td>", page)
    assert "data.scaling</td>" not in page and "scaling: standardize" in page
    assert re.search(r"thresholds:\s+accuracy:\s+min: 0.5", page)


def test_names_are_escaped_and_secrets_stay_at_home(tmp_path):
    places = make(tmp_path)
    about = json.loads(places.about.read_text())
    about |= {"targets": ["<b>target</b>"], "classes": ["a & b", "<script>alert(1)</script>"]}
    places.about.write_text(json.dumps(about | {"source": "data/password=hunter2.csv"}))
    spec = Experiment.model_validate({"tracking": {"uri": "http://hunter2@localhost:5000"}})
    page = run_page(places.root, {}, spec)
    assert "<script>" not in page and "<b>target</b>" not in page and "a &amp; b" in page
    assert "hunter2" not in page


def test_a_text_in_the_place_of_a_number_is_shown_and_does_not_run(tmp_path):
    places = make(tmp_path)
    evil = "<script>alert(1)</script>"
    (places.report("test") / "metrics.json").write_text(
        json.dumps({"loss": evil, "accuracy": evil, "accuracy_low": evil, evil: 1})
    )
    about = json.loads(places.about.read_text())
    places.about.write_text(json.dumps(about | {"rows": dict.fromkeys(about["rows"], evil), "missing": {"train": {evil: evil}}}))
    page = run_page(places.root, DRAWN)
    assert "<script" not in page and page.count("&lt;script&gt;") > 8


def test_a_page_forbids_what_it_does_not_need(tmp_path):
    page = run_page(make(tmp_path).root, DRAWN)
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)[1]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


# -- of real runs -----------------------------------------------------------------------------------------------------------


def carried_out(root, **changes):
    places = RunPaths(root, project=root)
    blocks = {"data.source": "iris", "train.backend": "reference", "train.epochs": 2, "model.hidden": [4]}
    spec = Experiment().override({**blocks, **changes})
    try:
        for name in ("split", "train", "validate", "test"):
            getattr(stages, name)(spec, places)
    except stages.HeldError:
        pass
    return places, spec


def test_a_page_of_folds_tells_of_each_fold_and_that_drawings_are_of_all(tmp_path):
    places, spec = carried_out(tmp_path, **{"data.split.folds": 3})
    page = run_page(places.root, DRAWN, spec)
    said = told(page)
    assert "3 networks (hidden layers 4, relu), one a fold, were trained on" in said and "over the folds" in said
    assert "Each of the 3 folds on the validation rows" in said and "the mean of the folds" in said


def test_a_page_of_a_real_run_has_its_classes_data_and_surroundings(tmp_path):
    places, spec = carried_out(tmp_path)
    run, about = (json.loads(path.read_text()) for path in (places.run, places.about))
    said = told(run_page(places.root, {}, spec))
    assert "Each of the 3 classes on the test rows" in said and "4 numeric" in said
    for fact in (
        run["fingerprint"],
        run["model_hash"],
        about["sha256"]["test"],
        run["environment"]["cpu"],
        "deltarule reproduce",
    ):
        assert fact in said


def test_a_page_of_a_real_run_that_diverged_needs_nothing_that_it_lacks(tmp_path):
    optimizer = {"name": "sgd", "learning_rate": 1e9}
    places, spec = carried_out(tmp_path, **{"data.source": "diabetes", "data.scale_target": False, "train.optimizer": optimizer})
    assert not places.model.exists() and not (places.trained / "weights.csv").exists()
    assert "There is no model" in run_page(tmp_path, figures(tmp_path), spec)


# -- the command ------------------------------------------------------------------------------------------------------------


def test_the_command_writes_the_page_beside_the_outs_or_where_it_is_told(tmp_path, deltarule):
    make(tmp_path / "run", stages=("data", "train"), ended="diverged", diverged_at=1).history.write_text("epoch\n")
    done = deltarule("report", "run")
    page = tmp_path / "run/outputs/report.html"
    assert page.read_text().startswith("<!doctype html>") and "run/outputs/report.html" in done.stdout + done.stderr
    found = json.loads(deltarule("report", "--json", "--out", "../elsewhere/mine.html", cwd=tmp_path / "run").stdout)
    assert found == {"report": "../elsewhere/mine.html"}
    assert (tmp_path / "elsewhere/mine.html").read_bytes() == page.read_bytes()
    (tmp_path / "runs").mkdir()
    launched = (tmp_path / "run").rename(tmp_path / "runs/20260101-100000-mine")
    deltarule("report", "mine")
    assert "\nrun 20260101-100000-mine" in (launched / "outputs/report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "RUN_FOLDER must be the folder of a run"),
        ([], "outputs/data/about.json is missing"),
        (["--out", "."], "--out"),
    ],
)
def test_without_a_run_the_command_says_what_is_missing_and_writes_nothing(tmp_path, deltarule, arguments, expected):
    done = deltarule("report", *arguments, check=False)
    assert done.returncode == 2 and expected in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.html"))


def test_a_run_is_meant_by_the_name_of_its_launch_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("20260101-120000-one", "20260102-120000-one", "20260103-120000-one-more"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert launched(Path("one")) == Path("runs/20260102-120000-one")
    for as_it_is in ("runs/20260101-120000-one", "nothing", "."):
        assert launched(Path(as_it_is)) == Path(as_it_is)
    (tmp_path / "one").mkdir()
    assert launched(Path("one")) == Path("one")
