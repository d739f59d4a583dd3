"""What stages returned, in words and tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.console import Console, number

Report = Mapping[str, Any]
WORDS = {"train": "training", "valid": "validation", "test": "test"}
PARTS = {"validate": "validation", "test": "test (95 % interval)"}


def show(console: Console, reports: Mapping[str, Report], seconds: Mapping[str, float]) -> None:
    """One line for split and one for train, a table of metrics for validate and test, and the time each stage took."""
    if "split" in reports:
        console.say(_data(reports["split"]))
    if "train" in reports:
        console.say(_training(reports["train"]))
    judged = [stage for stage in PARTS if stage in reports]
    if judged:
        columns = ["metric", *(PARTS[stage] for stage in judged)]
        console.table("", columns, [[name, *(_value(reports[s], name) for s in judged)] for name in _names(reports[judged[-1]])])
    if "openings" in reports.get("test", {}):
        console.say(f"experiments that have opened these test rows so far: {reports['test']['openings']}")
    console.say("seconds: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in seconds.items()))


def _data(report: Report) -> str:
    rows = ", ".join(f"{report[f'rows_{part}']} {word}" for part, word in WORDS.items())
    return f"{report['source']}: {report['task']}, {report['inputs']} inputs, {report['outputs']} outputs; rows: {rows}"


def _training(report: Report) -> str:
    best = ", ".join(f"{name.removeprefix('best_')} {number(report[name])}" for name in report if name.startswith("best_train"))
    chosen = ", ".join(f"{name.removeprefix('best_')} {number(report[name])}" for name in report if name.startswith("best_val"))
    return f"best epoch {report.get('best_epoch', '-')} of {report['epochs']}: {best}; {chosen}"


def _names(report: Report) -> list[str]:
    """Metrics, without the ends of their intervals."""
    return [n for n in report if n != "openings" and not (n.endswith(("_low", "_high")) and n.rpartition("_")[0] in report)]


def _value(report: Report, name: str) -> str:
    if name not in report:
        return ""
    ends = [report.get(f"{name}_{end}") for end in ("low", "high")]
    interval = f" [{number(ends[0])}, {number(ends[1])}]" if None not in ends else ""
    return f"{number(report[name])}{interval}"
