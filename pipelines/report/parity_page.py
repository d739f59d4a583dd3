"""The page of a comparison with the reference, from plain values as `deltarule parity --json` prints them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from pipelines.report.pages import render

Row = Mapping[str, Any]  # one quantity of one backend
LOW, HIGH = -20, 2  # decades on the scale
WIDTH, PAD = 300, 6  # of the scale, in pixels
COMPARED = ("agrees", "differs")


def parity_page(report: Mapping[str, Any], sections: Mapping[str, str], told: Mapping[str, str]) -> str:
    """A whole HTML document. `sections`: key -> heading; `told`: a sentence on each backend. Same numbers, same bytes."""
    compared = {name: found for name, found in report["backends"].items() if found["status"] in COMPARED}
    return render(
        "parity.html",
        title=f"Parity: {report['source']}",
        report=report,
        names=list(compared),
        told=told,
        tables={precision: list(table(compared, precision)) for precision in report["precisions"]} if compared else {},
        sections=sections,
        ticks=[("0", place(0)), *((f"1e{decade}", place(10.0**decade)) for decade in (-16, -12, -8, -4)), ("1", place(1))],
        place=place,
        chief=chief,
        width=WIDTH,
        pad=PAD,
    )


def table(compared: Mapping[str, Mapping[str, Any]], precision: str) -> Iterator[tuple[str, list[list[Row | None]]]]:
    """(section, its rows): for each quantity what every backend has of it."""
    each = [
        {(row["section"], row["quantity"]): row for row in found["quantities"] if row["precision"] == precision}
        for found in compared.values()
    ]
    keys = dict.fromkeys(key for rows in each for key in rows)
    for section, group in groupby(keys, key=lambda key: key[0]):
        yield section, [[rows.get(key) for rows in each] for key in group]


def chief(found: Sequence[Row | None]) -> Row:
    """Of one quantity the row that comes nearest to what is allowed, or goes furthest beyond it."""
    return max((row for row in found if row is not None), key=lambda row: excess(row["difference"], row["allowed"]))


def excess(difference: float | None, allowed: float | None) -> tuple[bool, float]:
    """Of one quantity what counts has the highest: judged, and furthest beyond what is allowed. None is infinite."""
    difference = math.inf if difference is None else difference
    if difference == 0 or allowed is None:
        return allowed is not None, difference
    return True, difference / allowed if allowed else math.inf


def place(value: float | None) -> float:
    """Where a number stands on the scale, in pixels: 0 at the left end, none (NaN or infinity) at the right end."""
    decades: float = HIGH if value is None else LOW if value == 0 else min(HIGH, max(LOW + 1, math.log10(value)))
    return round(PAD + (decades - LOW) / (HIGH - LOW) * (WIDTH - 2 * PAD), 1)
