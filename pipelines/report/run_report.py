"""The report of one run: a page that stands alone, with its figures inside. Same outs, same bytes.

No script and nothing to fetch, so that it opens from a disk, by mail, and in MLflow's frame for artifacts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.redact import redact, redacted
from pipelines.report.figures import OF_REPORTS
from pipelines.report.outs import Outs
from pipelines.report.pages import image, number, render, spelled
from pipelines.spec import Experiment, dump, flat, higher_is_better, whole_spec

Found = Mapping[str, Any]
PARTS = {"validate": "validation", "test": "test"}
CHIEF = ("accuracy", "roc_auc", "rmse", "r2")  # what the headline tells
ENDS = ("_low", "_high", "_sd")


class Table(NamedTuple):
    """What opens at a click. The first column names, the others are numbers."""

    summary: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]


def run_page(folder: Path, drawn: Mapping[str, bytes], experiment: Experiment | None = None) -> str:
    """The page of the run in `folder`, with the figures that are drawn of it. A whole HTML document.

    `experiment` adds what the outs do not hold of the spec (thresholds, search, tracking), if it is of this run. Raises
    FileNotFoundError if nothing was trained there.
    """
    outs = Outs(folder)
    run, about = redacted(outs.run), redacted(outs.about)
    metrics = {stage: outs.json(f"{stage}/metrics.json") for stage in outs.reports}
    held = "validate" in metrics and bool(outs.json("validate/about.json").get("held"))
    spec = Experiment.model_validate(redacted(whole_spec(outs.run["spec"], experiment)))
    names = [name for name in list(metrics.values())[-1] if not name.endswith(ENDS)] if metrics else []
    every = [name for found in metrics.values() for name in found]
    return render(
        "run.html",
        title=redact(outs.title()),
        run=run,
        parts=PARTS,
        verdict="failed" if run["ended"] == "diverged" or held else "agrees",
        said=[_what(run, about), _ended(run), *_results(run, about, metrics, held)],
        metrics=metrics,
        names=names,
        higher_is_better=[name for name in names if higher_is_better(name)],
        of_folds=any(name.endswith("_sd") for name in every),
        of_intervals=any(name.endswith("_low") for name in every),
        tables=[table for stage in metrics for table in (*_folds(outs, stage), *_classes(outs, stage))],
        figures={name: image(png) for name, png in drawn.items()},
        stages_of={kind: [stage for stage in PARTS if f"{stage}_{kind}" in drawn] for kind in OF_REPORTS},
        changed=_changed(spec),
        spec=dump(spec),
        data=_data(about),
        counts=[
            *_counts("Rows of each of the {} classes", "class", about.get("class_counts", {})),
            *_counts("Gaps, in {} columns", "column", about.get("missing", {})),
        ],
    )


# -- in plain words ---------------------------------------------------------------------------------------------------------


def _what(run: Found, about: Found) -> str:
    model, source = run["spec"]["model"], Path(about["source"]).name
    hidden = "-".join(map(str, model["hidden"]))
    net = f"hidden layers {hidden}, {model['activation']}" if hidden else "no hidden layer"
    rows, task = f"{number(about['rows']['train'])} rows of {source}", _task(about)
    if "folds" in run:
        return f"{len(run['folds'])} networks ({net}), one a fold, were trained on {rows} to {task}, by {run['backend']}."
    return f"A network ({net}) was trained on {rows} to {task}, by {run['backend']}."


def _task(about: Found) -> str:
    classes, targets = about.get("classes", []), about.get("targets", [])
    if about["task"] == "regression":
        more = f" and {len(targets) - 5} more" if len(targets) > 5 else ""
        return f"predict {', '.join(targets[:5])}{more}" if targets else "predict numbers"
    if len(classes) == 2:
        return f"tell {classes[0]} from {classes[1]}"
    return f"tell {len(classes)} classes apart" if classes else "tell classes apart"


def _ended(run: Found) -> str:
    told = f"The run {run['message']}"
    if run["ended"] == "diverged":
        return f"{told}. There is no model, and so nothing was validated."
    if run.get("best_epoch"):
        return f"{told}; epoch {run['best_epoch']} was the best on the validation rows, and its weights are the model."
    return f"{told}; of each fold the epoch that was best on its own validation rows is the model."


def _results(run: Found, about: Found, metrics: Mapping[str, Found], held: bool) -> list[str]:
    said = [_result(stage, found, about) for stage, found in metrics.items()]
    if held:
        said.append("A threshold of the spec was missed on the validation rows, so the test rows stay closed.")
    elif "test" not in metrics and run["ended"] != "diverged":
        said.append("The test rows have not been opened.")
    return said


def _result(stage: str, found: Found, about: Found) -> str:
    rows = about["rows"]["valid" if stage == "validate" else "test"]
    told = "; ".join(f"{spelled(name)} {_with_interval(found, name)}" for name in CHIEF if name in found)
    opened = ", opened once all choices were made" if stage == "test" else ""
    return f"On {number(rows)} {PARTS[stage]} rows{opened}: {told or 'loss ' + number(found['loss'])}."


def _with_interval(found: Found, name: str) -> str:
    low, high, spread = (found.get(f"{name}{end}") for end in ENDS)
    if low is not None and high is not None:
        return f"{number(found[name])} (95 % interval {number(low)} to {number(high)})"
    return number(found[name]) + (f" ± {number(spread)} over the folds" if spread is not None else "")


# -- tables -----------------------------------------------------------------------------------------------------------------


def _classes(outs: Outs, stage: str) -> list[Table]:
    columns = outs.texts(f"{stage}/classes.csv")
    rows = [[name, *map(_cell, cells)] for name, *cells in zip(*columns.values(), strict=True)]
    heads = [spelled(name) for name in columns]
    return [Table(f"Each of the {len(rows)} classes on the {PARTS[stage]} rows", heads, rows)] if rows else []


def _folds(outs: Outs, stage: str) -> list[Table]:
    columns = outs.texts(f"{stage}/folds.csv")
    rows = [list(map(_cell, cells)) for cells in zip(*columns.values(), strict=True)]
    heads = [spelled(name) for name in columns]
    return [Table(f"Each of the {len(rows)} folds on the {PARTS[stage]} rows", heads, rows)] if rows else []


def _cell(text: str) -> float | None:
    return float(text) if text else None


def _counts(summary: str, first: str, found: Mapping[str, Mapping[str, int]]) -> list[Table]:
    """A row a name, a column a part of the rows."""
    parts = {part: counts for part, counts in found.items() if counts}
    names = dict.fromkeys(name for counts in parts.values() for name in counts)
    rows = [[name, *(counts.get(name, 0) for counts in parts.values())] for name in names]
    return [Table(summary.format(len(rows)), [first, *parts], rows)] if rows else []


def _changed(spec: Experiment) -> list[tuple[str, Any, Any]]:
    """(path, value, default) of what is not as it is by default."""
    usual = flat(Experiment())
    return [(path, value, usual.get(path, "–")) for path, value in flat(spec).items() if usual.get(path) != value]


def _data(about: Found) -> dict[str, str]:
    """Where the rows come from, how many there are, and which exactly."""
    parts = {"train": "training", "valid": "validation", "test": "test"}
    repeated = about.get("duplicates", {}).get("rows")
    return {
        "source": about["source"],
        "task": about["task"],
        "predicted": ", ".join(about.get("targets", [])),
        "rows": ", ".join(f"{number(about['rows'][part])} {word}" for part, word in parts.items() if part in about["rows"]),
        "folds": str(len(about["folds"])) if about.get("folds") else "",
        "columns": ", ".join(f"{n} {kind}" for kind, n in Counter(about.get("kinds", {}).values()).items()),
        "duplicates": f"{number(repeated)} rows repeat an earlier one" if repeated else "",
        **{f"SHA-256 of the {word} rows": about["sha256"].get(part, "") for part, word in parts.items()},
    }
