"""The report of one run: a page that stands alone, with its figures inside. Same outs, same bytes.

No script and nothing to fetch, so that it opens from a disk, by mail, and in MLflow's frame for artifacts.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.report import captions, outs, run_tables
from pipelines.report.figures import STAGES, figures
from pipelines.report.page import facts, folded, page, text
from pipelines.report.run_tables import number, spelled
from pipelines.spec import Experiment, dump, flat
from pipelines.tracking.events import flatten, whole_spec
from pipelines.tracking.redact import redact, redacted

if TYPE_CHECKING:
    from pipelines.stages.places import Places

Found = Mapping[str, Any]
PARTS = {"validate": ("validation", "valid"), "test": ("test", "test")}
CHIEF = ("accuracy", "roc_auc", "rmse", "r2")  # what the headline tells
STYLE = """
figure { margin: 1.6rem 0; } figure h3 { font-size: 1rem; margin: 0 0 .2rem; }
figcaption { max-width: 90ch; margin-bottom: .5rem; }
.drawn { overflow-x: auto; } .drawn.two { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; align-items: start; }
.drawn img { display: block; box-sizing: border-box; max-width: 100%; height: auto; background: #fff; border-radius: 6px;
  border: 1px solid var(--line); }
@media (max-width: 760px) { .drawn.two { grid-template-columns: 1fr; } .drawn img.broad { max-width: none; width: 720px; } }
.numbers { width: auto; min-width: 50%; } td.number { padding-left: 1rem; } .verdict p { max-width: 100ch; }
@media (max-width: 500px) { body { margin: 1rem auto; padding: 0 .8rem; } dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .4rem; } }
"""


def run_page(places: Places, experiment: Experiment | None = None, drawn: Mapping[str, bytes] | None = None) -> str:
    """The page of the run that the outs of `places` tell of. A whole HTML document.

    `experiment` adds what the outs do not hold of the spec (thresholds, search, tracking), if it is of this run. `drawn` are
    figures that are there already, all of a stage or none; the others are drawn. Raises FileNotFoundError if nothing was
    trained there.
    """
    run, about = redacted(outs.read_json(places.run)), redacted(outs.read_json(places.about))
    spec = whole_spec(outs.read_json(places.run)["spec"], experiment)
    stages = outs.reports(places)
    found = {stage: outs.read_json(places.report(stage) / "metrics.json") for stage in stages}
    held = "validate" in stages and bool(outs.read_json(places.report("validate") / "about.json").get("held"))
    pictures = {**(drawn or {}), **figures(places, _undrawn(drawn or {}))}
    body = (
        f"{_headline(run, about, found, held)}{run_tables.metrics(found)}"
        f"{''.join(_closer(places.report(stage), stage) for stage in stages)}"
        f"{''.join(_figures(pictures, 'folds' in run))}{_spec(spec)}{run_tables.data(about)}{_circumstances(run)}{_again(run)}"
    )
    return page(redact(outs.title(places)), body, STYLE)


def _undrawn(drawn: Mapping[str, bytes]) -> list[str]:
    """The stages of which no figure is given."""
    there = {prefix if (prefix := name.partition("_")[0]) in PARTS else "train" for name in drawn}
    return [stage for stage in STAGES if stage not in there]


# -- in plain words ---------------------------------------------------------------------------------------------------------


def _headline(run: Found, about: Found, found: Mapping[str, Found], held: bool) -> str:
    kind = "failed" if run["ended"] == "diverged" or held else "agrees"
    said = [_what(run, about), _ended(run), *(_result(stage, report, about) for stage, report in found.items())]
    if held:
        said.append("A threshold of the spec was missed on the validation rows, so the test rows stay closed.")
    elif "test" not in found and run["ended"] != "diverged":
        said.append("The test rows have not been opened.")
    first, *rest = said
    return f'<div class="verdict {kind}"><b>{escape(first)}</b>{"".join(f"<p>{escape(one)}</p>" for one in rest)}</div>\n'


def _what(run: Found, about: Found) -> str:
    model, source = run["spec"]["model"], Path(about["source"]).name
    hidden = "-".join(map(str, model["hidden"]))
    net = f"hidden layers {hidden}, {model['activation']}" if hidden else "no hidden layer"
    rows, task = f"{about['rows']['train']:,} rows of {source}", _task(about)
    if "folds" in run:
        return f"{len(run['folds'])} networks ({net}), one a fold, were trained on {rows} to {task}, by {run['backend']}."
    return f"A network ({net}) was trained on {rows} to {task}, by {run['backend']}."


def _task(about: Found) -> str:
    classes, targets = about.get("classes", []), about.get("targets", [])
    if about["task"] == "regression":
        return f"predict {_listed(targets)}" if targets else "predict numbers"
    if len(classes) == 2:
        return f"tell {classes[0]} from {classes[1]}"
    return f"tell {len(classes)} classes apart" if classes else "tell classes apart"


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _ended(run: Found) -> str:
    told = f"The run {run['message']}"
    if run["ended"] == "diverged":
        return f"{told}. There is no model, and so nothing was validated."
    if run.get("best_epoch"):
        return f"{told}; epoch {run['best_epoch']} was the best on the validation rows, and its weights are the model."
    return f"{told}; of each fold the epoch that was best on its own validation rows is the model."


def _result(stage: str, report: Found, about: Found) -> str:
    word, part = PARTS[stage]
    told = "; ".join(f"{spelled(name)} {_with_interval(report, name)}" for name in CHIEF if name in report)
    opened = ", opened once all choices were made" if stage == "test" else ""
    return f"On {about['rows'][part]:,} {word} rows{opened}: {told or spelled('loss') + ' ' + number(report['loss'])}."


def _with_interval(report: Found, name: str) -> str:
    low, high, spread = (report.get(f"{name}_{end}") for end in ("low", "high", "sd"))
    if low is not None and high is not None:
        return f"{number(report[name])} (95 % interval {number(low)} to {number(high)})"
    return number(report[name]) + (f" ± {number(spread)} over the folds" if spread is not None else "")


# -- figures ----------------------------------------------------------------------------------------------------------------


def _closer(folder: Path, stage: str) -> str:
    word = PARTS[stage][0]
    return run_tables.folds(folder, word) + run_tables.classes(folder, word)


def _figures(drawn: Mapping[str, bytes], folds: bool) -> Iterator[str]:
    if drawn:
        yield "<h2>Figures</h2>\n"
    if drawn and folds:
        yield (
            '<p class="faint">Over epochs: the mean of the folds. Weights and predictions: all folds together, so that a test '
            "row counts once for each network.</p>\n"
        )
    for name, caption in captions.OF_TRAINING.items():
        if name in drawn:
            yield _figure(caption, {"": drawn[name]}, caption.numbers)
    for kind, caption in captions.OF_REPORTS.items():
        there = {stage: drawn[f"{stage}_{kind}"] for stage in PARTS if f"{stage}_{kind}" in drawn}
        if there:
            yield _figure(caption, there, " and ".join(caption.numbers.format(stage=stage) for stage in there))


def _figure(caption: captions.Caption, drawn: Mapping[str, bytes], numbers: str) -> str:
    """One drawing, or that of the validation rows beside that of the test rows."""
    sizes = {stage: struct.unpack(">II", png[16:24]) for stage, png in drawn.items()}
    beside = " two" if len(drawn) > 1 and all(width < 1100 for width, _ in sizes.values()) else ""
    images = "".join(_image(caption.heading, stage, png, *sizes[stage]) for stage, png in drawn.items())
    return (
        f"<figure><h3>{escape(caption.heading)}</h3><figcaption>{escape(caption.told)} "
        f"{run_tables.faint(f'Numbers: {escape(numbers)}')}</figcaption>"
        f'<div class="drawn{beside}">{images}</div></figure>\n'
    )


def _image(heading: str, stage: str, png: bytes, width: int, height: int) -> str:
    told = f"{heading}, {PARTS[stage][0]} rows" if stage else heading
    broad = ' class="broad"' if width > 1000 else ""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<img{broad} width="{width}" height="{height}" alt="{escape(told)}" src="{source}">'


# -- what lies behind it ----------------------------------------------------------------------------------------------------


def _spec(spec: Found) -> str:
    experiment = Experiment.model_validate(spec)
    usual = flat(Experiment())
    changed = [
        [escape(path), escape(_text(value)), run_tables.faint(escape(_text(usual.get(path, "–"))))]
        for path, value in flat(experiment).items()
        if usual.get(path) != value and path.partition(".")[0] in spec
    ]
    told = (
        run_tables.table(["what the spec says", "value", "default"], changed)
        if changed
        else "<p>All values are the defaults.</p>\n"
    )
    return f"<h2>Spec</h2>\n{told}{folded('The whole spec, as params.yaml', text(dump(experiment)))}"


def _circumstances(run: Found) -> str:
    known = {
        **{name.replace("_", " "): _text(value) for name, value in flatten(run["environment"]).items()},
        **{f"version of {name}": version for name, version in run["versions"].items()},
    }
    return f"<h2>Where it was computed</h2>\n{facts(known.items())}"


def _text(value: Any) -> str:
    """As YAML spells it."""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def _again(run: Found) -> str:
    known = {"fingerprint of the experiment": run["fingerprint"], "SHA-256 of the model": run["model_hash"] or "–"}
    return (
        "<h2>To carry it out again</h2>\n"
        "<p>From MLflow, where RUN is the run's id or name: commit, spec and data of that time, in a folder of its own, and a "
        "word on whether the same came out of it.</p>\n<pre>deltarule reproduce RUN</pre>\n"
        "<p>By hand: put the whole spec from above into params.yaml of a project that has these data, and run</p>\n"
        "<pre>dvc repro</pre>\n<p>The same fingerprint is the same experiment; the same SHA-256 of the model is the same to the "
        f"bit, as it is on a machine of this kind with these versions.</p>\n{facts(known.items())}"
    )
