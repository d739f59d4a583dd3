"""Dates and times as people write them: 6/16/14 2:30 PM, 3. May 2021, September-2015.

One list of formats, tried on all different cells of a column; formats.py has those that need no stating.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from pipelines.data.columns import MICROSECONDS_A_DAY, NDArray
from pipelines.spec.blocks import Dates

NUMBERED = {
    "day_first": ("%d/%m/%Y", "%d-%m-%Y", "%d.%m.%Y", "%d/%m/%y", "%d-%m-%y", "%d.%m.%y"),
    "month_first": ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y", "%m-%d-%y"),
    "year_first": ("%y-%m-%d", "%y/%m/%d"),
}
# These can be read in one way.
NAMED = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d",
    "%d %b %Y", "%d %B %Y", "%d. %b %Y", "%d. %B %Y",
    "%d-%b-%Y", "%d-%B-%Y", "%d/%b/%Y", "%d%b%Y",
    "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y",
    "%d-%b-%y", "%d %b %y", "%d/%b/%y", "%b %d, %y",
)  # fmt: skip
MONTHS = (
    "%b-%Y", "%B-%Y", "%b %Y", "%B %Y", "%b, %Y", "%B, %Y",
    "%Y-%b", "%Y-%m", "%Y/%m", "%m/%Y", "%m-%Y", "%b-%y",
)  # fmt: skip
CLOCK = (
    "%H:%M", "%H:%M:%S", "%H:%M:%S.%f",
    "%I:%M %p", "%I:%M:%S %p", "%I:%M%p",
)  # fmt: skip
FIELDS = {
    "%Y": r"\d{4}",
    "%y": r"\d\d",
    "%b": "[a-z]{3}",
    "%B": "[a-z]{3,9}",
    "%a": "[a-z]{3}",
    "%A": "[a-z]{6,9}",
    "%f": r"\d{1,6}",
    "%p": "[ap]m",
    **dict.fromkeys(("%m", "%d", "%H", "%I"), r"\d\d?"),
    **dict.fromkeys(("%M", "%S"), r"\d\d"),
}
WEEKDAYS = ("%a, ", "%a ", "%A, ", "%A ")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_0 = np.datetime64("1900-01-01", "D").astype(int)  # of times without a date
SAMPLE = 50  # texts that are no dates: after so many no more are tried


def read(texts: Any, how: Dates) -> NDArray:
    """Days since 1970-01-01 UTC of each text, NaN for what has none of the formats.

    Times without a date are their share of a day.
    """
    values = np.full(len(texts), np.nan)
    cells = np.asarray(texts.to_pylist(), dtype=object)
    for one in how.formats:
        rest = np.flatnonzero(np.isnan(values))
        if len(rest):
            values[rest] = _days(cells[rest], one, how.pivot)
    return values


def _days(cells: NDArray, one: str, pivot: int) -> NDArray:
    import pandas

    moments = pandas.to_datetime(cells, format=one, utc=True, errors="coerce")
    if "%y" in one:  # pandas takes 69 to 99 for 19..
        short = moments.year.to_numpy() % 100
        century = np.where(short <= pivot, 2000, 1900)
        moved = np.nan_to_num(century + short - moments.year.to_numpy())
        for years in np.unique(moved[moved != 0]):
            shifted = moments + pandas.DateOffset(years=int(years))
            moments = moments.where(moved != years, shifted)
    stamps = moments.to_numpy("datetime64[us]")
    days = stamps.astype(np.int64).astype(np.float64) / MICROSECONDS_A_DAY
    days = np.where(np.isnat(stamps), np.nan, days)
    return days if any(part in one for part in ("%Y", "%y")) else days - DAY_0


# -- found out --


def find(texts: Any, order: str, stated: Dates) -> list[Dates]:
    """Lists of formats under which all texts are dates, and not the same ones.

    None: they are no dates. Several: a person must say which. `order` is data.format.dates; pivot and parts are `stated`.
    """
    kept: list[Dates] = []
    known: list[NDArray] = []
    for how, values in _by_order(texts, order, stated):
        if np.isfinite(values).all() and not any(np.array_equal(values, other) for other in known):
            kept.append(how)
            known.append(values)
    return kept


def likely(texts: Any, order: str, stated: Dates) -> NDArray:
    """Which texts are dates, under the order of days and months that has the most of them."""
    masks = [np.isfinite(values) for _, values in _by_order(texts, order, stated)]
    best: NDArray = max(masks, key=np.count_nonzero)
    return best


def _by_order(texts: Any, order: str, stated: Dates) -> Iterator[tuple[Dates, NDArray]]:
    """The formats that were needed, and the days of each text, of each order that is possible."""
    cells = np.asarray(texts.to_pylist(), dtype=object)
    for one in [order] if order in NUMBERED else NUMBERED:
        values, used = np.full(len(cells), np.nan), list[str]()
        rest, none = np.arange(len(cells)), 0
        while rest.size and none < SAMPLE:
            found = next(_met(str(cells[rest[0]]), one), None)
            if found is None:
                none, rest = none + 1, rest[1:]
                continue
            used.append(found)
            values[rest] = _days(cells[rest], found, stated.pivot)
            rest = rest[1:][np.isnan(values[rest[1:]])]
        yield stated.model_copy(update={"format": tuple(dict.fromkeys(used))}), values


def _met(cell: str, order: str) -> Iterator[str]:
    """Formats that a cell has."""
    prefixes = WEEKDAYS if cell[:3].lower() in DAYS else ("",)
    times = [""]
    if ":" in cell:
        times = [join + clock for clock in CLOCK for join in (" ", ", ", "T")]
    dates = [prefix + date for date in (*NAMED, *NUMBERED[order], *MONTHS) for prefix in prefixes]
    for one in (*CLOCK, *(date + time for date in dates for time in times)):
        if _pattern(one).fullmatch(cell) and np.isfinite(_days(np.array([cell], dtype=object), one, 68)).all():
            yield one


@cache
def _pattern(one: str) -> re.Pattern[str]:
    """What a cell of a format looks like: thousands of cells are tried, and strptime compiles its own each time."""
    parts = re.split(r"(%[a-zA-Z])", one)
    return re.compile("".join(FIELDS.get(part) or re.escape(part) for part in parts), re.IGNORECASE)


def as_stated(how: Dates) -> dict[str, Any]:
    """A way of writing as data.dates says it; the pivot where it counts."""
    told = how.model_dump(mode="json", exclude_defaults=True)
    if len(how.formats) == 1:
        told["format"] = how.formats[0]
    if any("%y" in one for one in how.formats):
        told["pivot"] = how.pivot
    return told


# -- parts --


def part_of(days: NDArray, part: str) -> NDArray:
    """A part of each date (n,) float64, NaN where there is none. Week days count from 0, Monday."""
    if part == "day":
        return days
    gaps = np.isnan(days)
    whole = np.floor(np.where(gaps, 0, days))
    if part == "hour":
        hours = np.floor((np.where(gaps, 0, days) - whole) * 24 + 1e-6)
        return np.where(gaps, np.nan, hours)
    dates = whole.astype("datetime64[D]")
    months = dates.astype("datetime64[M]").astype(np.int64)
    parts = {"year": months // 12 + 1970, "month": months % 12 + 1, "weekday": (whole + 3) % 7}
    return np.where(gaps, np.nan, parts[part].astype(np.float64))
