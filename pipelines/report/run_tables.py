"""The tables of a run's page: metrics, classes, folds, data. Each takes what the stages wrote, and gives HTML or ""."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipelines.metrics import higher_is_better
from pipelines.report.outs import read_text
from pipelines.report.page import facts, folded

Report = Mapping[str, Any]
OPEN = 30  # rows of a table that need not be folded away
COLUMNS = {"validate": "validation", "test": "test"}
SPELLED = {
    "roc_auc": "ROC AUC", "pr_auc": "PR AUC", "macro_f1": "macro F1", "rmse": "RMSE", "mae": "MAE", "r2": "R²", "f1": "F1",
    "brier": "Brier score",
}  # fmt: skip
ENDS = ("_low", "_high", "_sd")


def spelled(metric: str) -> str:
    """A metric as people write it; of one target of several, with its name."""
    kind, dot, target = metric.partition(".")
    return f"{SPELLED.get(kind, kind.replace('_', ' '))}{f' of {target}' if dot else ''}"


def number(value: Any) -> str:
    """Four digits that matter; whole numbers whole, texts as they are."""
    if isinstance(value, str) or value is None:
        return value or "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column names, the others are numbers. Cells are HTML already."""
    lines = "".join(f"<tr>{_cells('th' if place == 0 else 'td', row)}</tr>\n" for place, row in enumerate([heads, *rows]))
    return f'<div class="wide"><table class="numbers">\n{lines}</table></div>\n'


def _cells(tag: str, row: Sequence[str]) -> str:
    return f"<{tag}>{row[0]}</{tag}>" + "".join(f'<{tag} class="number">{cell}</{tag}>' for cell in row[1:])


def faint(content: str) -> str:
    """What is said beside a number; HTML already."""
    return f'<span class="faint">{content}</span>' if content else ""


def metrics(reports: Mapping[str, Report]) -> str:
    """A row a metric, a column a part; below a number its interval, or of folds beside it its sd."""
    if not reports:
        return ""
    names = [n for n in list(reports.values())[-1] if not n.endswith(ENDS)]
    rows = [[f"{escape(spelled(n))} {_arrow(n)}", *(_value(report, n) for report in reports.values())] for n in names]
    folds = any(name.endswith("_sd") for report in reports.values() for name in report)
    heads = ["metric", *(f"{COLUMNS[s]}{' (mean ± sd of folds)' if folds else ''}" for s in reports)]
    note = "↑ more is better, ↓ less is better."
    if any(name.endswith("_low") for report in reports.values() for name in report):
        others = ", Wilson's for accuracy, for the others" if "accuracy" in names else ""
        note += f" In brackets: 95 % intervals{others} by bootstrap of the rows."
    if "validate" in reports:
        note += (
            " The validation rows have chosen the epoch, so their numbers flatter a little; the test rows have chosen nothing."
        )
    return f'<h2>How good it is</h2>\n{table(heads, rows)}<p class="faint">{note}</p>\n'


def _arrow(metric: str) -> str:
    up = higher_is_better(metric)
    return f'<span class="faint" title="{"more" if up else "less"} is better">{"↑" if up else "↓"}</span>'


def _value(report: Report, name: str) -> str:
    if name not in report:
        return "–"
    low, high, spread = (report.get(f"{name}{end}") for end in ENDS)
    more = f" [{number(low)}, {number(high)}]" if low is not None and high is not None else ""
    more += f" ± {number(spread)}" if spread is not None else ""
    return number(report[name]) + faint(more)


def classes(folder: Path, part: str) -> str:
    """What each class comes to on one part."""
    path = folder / "classes.csv"
    if not path.is_file():
        return ""
    columns = read_text(path)
    heads = [SPELLED.get(name, name.replace("_", " ")) for name in columns]
    rows = [[escape(row[0]), *(_cell(cell) for cell in row[1:])] for row in zip(*columns.values(), strict=True)]
    return folded(f"Each of the {len(rows)} classes on the {part} rows", table(heads, rows))


def folds(folder: Path, part: str) -> str:
    """The metrics of each fold's network on one part."""
    path = folder / "folds.csv"
    if not path.is_file():
        return ""
    columns = read_text(path)
    rows = [[_cell(cell) for cell in row] for row in zip(*columns.values(), strict=True)]
    return folded(f"Each of the {len(rows)} folds on the {part} rows", table([escape(spelled(n)) for n in columns], rows))


def _cell(text: str) -> str:
    return number(float(text)) if text else "–"


def data(about: Report) -> str:
    """Where the rows come from, how many there are, and which exactly."""
    rows, duplicates = about["rows"], about.get("duplicates", {})
    kinds = list(about.get("kinds", {}).values())
    parts = {"train": "training", "valid": "validation", "test": "test"}
    known = {
        "source": about["source"],
        "task": about["task"],
        "predicted": ", ".join(about.get("targets", [])),
        "rows": ", ".join(f"{rows[part]:,} {word}" for part, word in parts.items() if part in rows),
        "folds": str(len(about["folds"])) if about.get("folds") else "",
        "columns": ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)),
        "duplicates": f"{duplicates['rows']:,} rows repeat an earlier one" if duplicates.get("rows") else "",
        **{f"SHA-256 of the {word} rows": about["sha256"].get(part, "") for part, word in parts.items()},
    }
    return f"<h2>Data</h2>\n{facts((name, value) for name, value in known.items() if value)}{_counts(about)}{_missing(about)}"


def _counts(about: Report) -> str:
    counts = {part: found for part, found in about.get("class_counts", {}).items() if found}
    if not counts:
        return ""
    names = list(dict.fromkeys(name for found in counts.values() for name in found))
    rows = [[escape(name), *(f"{found.get(name, 0):,}" for found in counts.values())] for name in names]
    return folded(f"Rows of each of the {len(names)} classes", table(["class", *counts], rows))


def _missing(about: Report) -> str:
    gaps = {part: found for part, found in about.get("missing", {}).items() if found}
    names = list(dict.fromkeys(name for found in gaps.values() for name in found))
    rows = [[escape(name), *(f"{found.get(name, 0):,}" for found in gaps.values())] for name in names]
    return folded(f"Gaps, in {len(names)} columns", table(["column", *gaps], rows)) if rows else ""
