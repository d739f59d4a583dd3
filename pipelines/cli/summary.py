"""What stages returned, in words and tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.console import Console, number
from pipelines.report.outs import Outs

Report = Mapping[str, Any]
WORDS = {"train": "training", "valid": "validation", "test": "test"}
# Beside those of simple models.
CHIEF = ("loss", "accuracy", "balanced_accuracy", "f1", "rmse", "r2")
PARTS = {"validate": "validation", "test": "test (95 % interval)"}


def show(console: Console, reports: Mapping[str, Report], seconds: Mapping[str, float], folder: Path = Path()) -> None:
    """A few lines for split and one for train, tables for validate and test, of a run in `folder`, and the seconds."""
    if "split" in reports:
        for line in _data(reports["split"]):
            console.say(line)
    if "train" in reports:
        console.say(_training(reports["train"]))
    judged = [stage for stage in PARTS if stage in reports]
    if judged:
        folds = any(name.endswith("_sd") for name in reports[judged[0]])
        heads = {"validate": "validation (mean ± sd of folds)", "test": "test (mean ± sd of folds)"} if folds else PARTS
        columns = ["metric", *(heads[stage] for stage in judged)]
        console.table("", columns, [[name, *(_value(reports[s], name) for s in judged)] for name in _names(reports[judged[-1]])])
    for stage in judged[-1:]:
        _beside(console, Outs(folder).beside(stage), reports[stage], stage)
    if "openings" in reports.get("test", {}):
        console.say(f"experiments that have opened these test rows so far: {reports['test']['openings']}")
    console.say("seconds: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in seconds.items()))


def _beside(console: Console, told: Report, report: Report, stage: str) -> None:
    """The network and the baselines, a line each; and what is wrong with the network."""
    names = [name for name in CHIEF if name in report]
    models = {"the network": report, **told["baselines"]} if told.get("baselines") else {}
    if models:
        lines = [[name, *(number(one.get(metric, "")) for metric in names)] for name, one in models.items()]
        part = PARTS[stage].partition(" ")[0]
        console.table("", [f"on the {part} rows", *names], lines)
    for sentence in told.get("notes", ()):
        console.say(sentence)
    for sentence in told.get("warnings", ()):
        console.warn(sentence)


def _data(report: Report) -> Iterator[str]:
    """What the rows are, and, where there is any, what is not as one would wish."""
    rows = ", ".join(f"{report[f'rows_{part}']} {word}" for part, word in WORDS.items())
    if report["folds"]:
        rows = f"{report['rows_train']} in {report['folds']} folds, {report['rows_test']} test"
    yield f"{report['source']}: {report['task']}, {report['inputs']} inputs, {report['outputs']} outputs; rows: {rows}"
    if report["rows_left_out"]:
        yield f"rows left out: {told_of(report['rows_left_out'])}"
    if set(report["kinds"]) != {"numeric"}:
        yield f"columns: {', '.join(f'{count} {kind}' for kind, count in report['kinds'].items())}"
    if report["left_out"]:
        yield f"no inputs: {_first([f'{name} ({why})' if why else name for name, why in report['left_out'].items()])}"
    if report["missing"]:
        yield f"missing values: {_first([f'{name} {count}' for name, count in report['missing'].items()])}"
    if report["rare"]:
        told = [f"{name} {count} in {rows} training rows" for name, (count, rows) in report["rare"].items()]
        yield f"rare categories, which share an input (data.categories): {_first(told)}"
    for part, columns in report["unseen"].items():
        if columns:
            yield f"{WORDS[part]} rows with a value that no training row has: " + _first([f"{n} {c}" for n, c in columns.items()])
    if report["duplicates"]["rows"]:
        across = report["duplicates"]["across"]
        where = f"{across} of such rows have an equal in another part" if across else "equal ones are in one part"
        yield f"duplicates: {report['duplicates']['rows']} rows equal an earlier one in every column; {where}"


def told_of(left_out: Mapping[str, int]) -> str:
    """Why rows are left out, and how many."""
    return ", ".join(f"{rows:,} {why}" for why, rows in left_out.items())


def _first(words: Sequence[str]) -> str:
    """The first ten of many."""
    return ", ".join(words[:10]) + (f" and {len(words) - 10} more" if len(words) > 10 else "")


def _training(report: Report) -> str:
    best, chosen = (
        ", ".join(f"{n.removeprefix('best_')} {_value(report, n)}" for n in _names(report) if n.startswith(start))
        for start in ("best_train", "best_val")
    )
    epoch = _value(report, "best_epoch") if "best_epoch_sd" in report else report.get("best_epoch", "-")
    return f"best epoch {epoch} of {report['epochs']}: {best}; {chosen}"


def _names(report: Report) -> list[str]:
    """Metrics, without the ends of their intervals and their sds over folds."""
    ends = ("_low", "_high", "_sd")
    return [n for n in report if n != "openings" and not (n.endswith(ends) and n.rpartition("_")[0] in report)]


def _value(report: Report, name: str) -> str:
    if name not in report:
        return ""
    ends = [report.get(f"{name}_{end}") for end in ("low", "high")]
    interval = f" [{number(ends[0])}, {number(ends[1])}]" if None not in ends else ""
    spread = f" ± {number(report[f'{name}_sd'])}" if f"{name}_sd" in report else ""
    return f"{number(report[name])}{interval}{spread}"
