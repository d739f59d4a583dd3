"""The report of one run: its figures, and a page that stands alone, with the figures inside. Same outs, same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.redact import redact, redacted
from pipelines.report import predictions, style, training
from pipelines.report.outs import Outs, Texts
from pipelines.report.pages import image, number, render, spelled
from pipelines.spec import Experiment, dump, flat, higher_is_better, whole_spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = Mapping[str, Any]
PARTS = {"validate": "validation", "test": "test"}
CHIEF = ("accuracy", "roc_auc", "rmse", "r2")  # what the headline tells
ENDS = ("_low", "_high", "_sd")
# File of a report, and how it is drawn: from its columns, a title, and the table of the classes.
OF_REPORTS: dict[str, Callable[[Texts, str, Texts], Figure]] = {
    "confusion": lambda table, title, classes: predictions.confusion(table, title),
    "roc": predictions.roc,
    "pr": predictions.precision_recall,
    "calibration": lambda table, title, classes: predictions.calibration(table, title),
    "residuals": lambda table, title, classes: predictions.residuals(table, title),
}


def figures(folder: Path, stages: Sequence[str] = ("train", *PARTS), named: str = "") -> dict[str, bytes]:
    """Name -> PNG, of what the outs of these stages in a run's folder hold. Same outs, same bytes.

    A report on another model than the one in place is not drawn. `named`: the run's name and id.
    """
    outs = Outs(folder, named)
    wanted = [stage for stage in stages if stage in ("train", *outs.reports)]
    return {name: style.png(drawing) for stage in wanted for name, drawing in _of(outs, stage)}


def _of(outs: Outs, stage: str) -> Iterator[tuple[str, Figure]]:
    if stage == "train":
        yield from _training(outs)
        return
    title, classes = f"{outs.title('{} folds together')}, {PARTS[stage]} rows", outs.texts(f"{stage}/classes.csv")
    for name, draw in OF_REPORTS.items():
        if table := outs.texts(f"{stage}/{name}.csv"):
            yield f"{stage}_{name}", draw(table, title, classes)


def _training(outs: Outs) -> Iterator[tuple[str, Figure]]:
    title, best = outs.title("mean of {} folds"), outs.run["best_epoch"]
    if history := outs.table("train/history.csv"):  # else it diverged within the first epoch
        yield "learning_curves", training.learning_curves(history, title, best)
        yield "gradient_flow", training.gradient_flow(history, title)
        yield "gradient_profile", training.gradient_profile(history, title, best, outs.run["spec"]["model"]["activation"])
    if weights := outs.table("train/weights.csv"):
        yield "weights", training.weights(weights, outs.title("{} folds together"))


def learning_curves(folder: Path) -> Figure:
    """The figure itself, of a run with an epoch; `_repr_png_` is what notebooks show of it."""
    _, drawing = next(_training(Outs(folder)))
    drawing._repr_png_ = partial(style.png, drawing)  # type: ignore[attr-defined]
    return drawing


def run_cell(folder: Path) -> str:
    """The run in a few sentences, for a cell of a notebook."""
    outs = Outs(folder)
    return render("cell.html", title=redact(outs.title()), said=summary(outs), folder=folder)


# -- the page --


class Table(NamedTuple):
    """What opens at a click. The first column names, the others are numbers."""

    summary: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]


def run_page(folder: Path, drawn: Mapping[str, bytes], experiment: Experiment | None = None, named: str = "") -> str:
    """The page of the run in `folder`, with the figures that are drawn of it. FileNotFoundError if nothing was trained there.

    `experiment` adds what the outs do not hold of the spec (thresholds, search, tracking), if it is of this run.
    """
    outs = Outs(folder, named)
    run, about = redacted(outs.run), redacted(outs.about)
    metrics = {stage: outs.json(f"{stage}/metrics.json") for stage in outs.reports}
    spec = Experiment.model_validate(redacted(whole_spec(outs.run["spec"], experiment)))
    names = [name for name in list(metrics.values())[-1] if not name.endswith(ENDS)] if metrics else []
    usual = flat(Experiment())
    bad = run["ended"] == "diverged" or _is_held(outs) or _beside_said(outs, "warnings")
    every = [name for found in metrics.values() for name in found]
    return render(
        "run.html",
        title=redact(outs.title()),
        run=run,
        parts=PARTS,
        verdict="failed" if bad else "agrees",
        said=summary(outs),
        metrics=metrics,
        names=names,
        higher_is_better=[name for name in names if higher_is_better(name)],
        of_folds=any(name.endswith("_sd") for name in every),
        of_intervals=any(name.endswith("_low") for name in every),
        beside=[table for stage in metrics for table in _beside(outs, stage, metrics[stage])],
        tables=[table for stage in metrics for table in _tables(outs, stage)],
        figures={name: image(png) for name, png in drawn.items()},
        stages_of={kind: [stage for stage in PARTS if f"{stage}_{kind}" in drawn] for kind in OF_REPORTS},
        # (path, value, default) of what is not as it is by default
        changed=[(path, value, usual.get(path, "–")) for path, value in flat(spec).items() if usual.get(path) != value],
        spec=dump(spec),
        data=_data(about),
        counts=[
            *_counts("Rows of each of the {} classes", "class", about.get("class_counts", {})),
            *_counts("Gaps, in {} columns", "column", about.get("missing", {})),
        ],
    )


# -- in plain words --


def summary(outs: Outs) -> list[str]:
    """The run in a few sentences: what it was, how it ended, how good it is."""
    run, about = redacted(outs.run), redacted(outs.about)
    said = [*_beside_said(outs, "warnings"), _what(run, about), _ended(run)]
    said += [_result(stage, outs.json(f"{stage}/metrics.json"), about) for stage in outs.reports]
    said += dict.fromkeys(_beside_said(outs, "notes"))  # once, of validation and test
    if _is_held(outs):
        said.append("A threshold of the spec was missed on the validation rows, so the test rows stay closed.")
    elif "test" not in outs.reports and run["ended"] != "diverged":
        said.append("The test rows have not been opened.")
    return said


def _is_held(outs: Outs) -> bool:
    return "validate" in outs.reports and bool(outs.json("validate/about.json").get("held"))


def _beside_said(outs: Outs, kind: str) -> list[str]:
    """The warnings, or the notes, of a network beside simple models."""
    return [redact(one) for stage in outs.reports for one in outs.beside(stage).get(kind, [])]


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


# -- tables --


def _beside(outs: Outs, stage: str, found: Found) -> Iterator[Table]:
    """The network and the baselines, a column each."""
    told = outs.beside(stage)
    if models := told.get("baselines"):
        names = [name for name in found if not name.endswith(ENDS)]
        rows = [[spelled(name), found[name], *(one.get(name) for one in models.values())] for name in names]
        learnt = f"learnt from {number(told['rows'])} training rows"
        title = f"Beside simple models ({learnt}), on the {PARTS[stage]} rows"
        yield Table(title, ["metric", "network", *models], rows)


def _tables(outs: Outs, stage: str) -> Iterator[Table]:
    """Of each fold, and of each class."""
    for name in ("folds", "classes"):
        columns = outs.texts(f"{stage}/{name}.csv")
        rows = [
            [first, *(float(cell) if cell else None for cell in cells)] for first, *cells in zip(*columns.values(), strict=True)
        ]
        if rows:
            yield Table(f"Each of the {len(rows)} {name} on the {PARTS[stage]} rows", list(map(spelled, columns)), rows)


def _counts(summary: str, first: str, found: Mapping[str, Mapping[str, int]]) -> list[Table]:
    """A row a name, a column a part of the rows."""
    parts = {part: counts for part, counts in found.items() if counts}
    names = dict.fromkeys(name for counts in parts.values() for name in counts)
    rows = [[name, *(counts.get(name, 0) for counts in parts.values())] for name in names]
    return [Table(summary.format(len(rows)), [first, *parts], rows)] if rows else []


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
