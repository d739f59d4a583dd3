"""The page of a look at data, from plain values as `deltarule data --json` prints them. Same rows, same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.report.pages import render

MOST = 20  # classes that have a bar of their own


def data_page(look: Mapping[str, Any], shown: Callable[[Any, float], str]) -> str:
    """`look` as the command's JSON holds it; `shown(kind, value)` spells a number or a date. A whole HTML document."""
    targets = look["targets"]
    classes = sorted(look["classes"].items(), key=lambda pair: -pair[1])
    others = [("others", sum(rows for _, rows in classes[MOST:]))] if len(classes) > MOST else []
    kinds = Counter(column["kind"] for column in look["columns"] if column["name"] not in targets)
    return render(
        "data.html",
        title=f"Data: {look['source']}",
        look=look,
        kinds=", ".join(f"{count} {'ignored' if kind == 'ignore' else kind}" for kind, count in kinds.items()),
        gaps=sum(column["missing"] > 0 for column in look["columns"]),
        classes=[*classes[:MOST], *others],
        # The targets, then the inputs in the order of the file, then what is ignored.
        columns=sorted(look["columns"], key=lambda column: (column["name"] not in targets, column["kind"] == "ignore")),
        shown=shown,
    )
