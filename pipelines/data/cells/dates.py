"""Dates and times as people write them: 6/16/14 2:30 PM, 3. May 2021, September-2015.

One list of formats, tried on all different cells of a column. Those of PLAIN need no stating.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from pipelines.data.cells import matches
from pipelines.data.columns import MICROSECONDS_A_DAY, NDArray
from pipelines.spec.blocks import Dates

# How a cell begins -> formats; "": in no cell with a day or a month.
PLAIN = {
    "": ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d"),
    "day_first": ("%d/%m/%Y", "%d-%m-%Y", "%d.%m.%Y"),
    "month_first": ("%m/%d/%Y", "%m-%d-%Y", "%m.%d.%Y"),
}
TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f")
ZONED = tuple(f"%Y-%m-%d{time}%z" for time in TIMES[1:])
DATE_LIKE = r"^\d{1,4}[-/.]\d\d?[-/.]\d"
YEAR_LAST = r"^\d\d?[-/.]\d\d?[-/.]\d{4}"
NUMBERED = {
    "day_first": (*PLAIN["day_first"], "%d/%m/%y", "%d-%m-%y", "%d.%m.%y"),
    "month_first": (*PLAIN["month_first"][:2], "%m/%d/%y", "%m-%d-%y"),
    "year_first": ("%y-%m-%d", "%y/%m/%d"),
}
# These can be read in one way.
NAMED = (
    *PLAIN[""],
    "%d %b %Y", "%d %B %Y", "%d. %b %Y", "%d. %B %Y",
    "%d-%b-%Y", "%d-%B-%Y", "%d/%b/%Y", "%d%b%Y",
    "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y",
    "%Y-%b-%d", "%Y %b %d", "%Y%m%dT%H%M%S",
    "%d-%b-%y", "%d %b %y", "%d/%b/%y", "%b %d, %y",
)  # fmt: skip
MONTHS = (
    "%b-%Y", "%B-%Y", "%b %Y", "%B %Y", "%b, %Y", "%B, %Y",
    "%Y-%b", "%Y-%m", "%Y/%m", "%m/%Y", "%m-%Y", "%b-%y",
)  # fmt: skip
CLOCK = (
    "%H:%M", "%H:%M:%S", "%H:%M:%S.%f",
    "%I:%M %p", "%I:%M:%S %p", "%I:%M%p",
    "%I %p", "%I%p", "%H:%M:%S %z",
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
    "%M": r"\d\d",
    "%S": r"[0-5]\d",
    "%z": r"(Z|[+-]\d\d:?\d\d)",
    **dict.fromkeys(("%m", "%d", "%H", "%I"), r"\d\d?"),
}
WEEKDAYS = ("%a, ", "%a ", "%A, ", "%A ")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_0 = np.datetime64("1900-01-01", "D").astype(int)  # of times without a date
# What strptime does not know -> what it knows.
ENGLISH = (
    (r"(\d)(st|nd|rd|th)( of)?\b", r"\1"),
    (r"(?i)\b(sep|jan|feb|jun|jul)(t|r?uar|i)\b", r"\1"),
    (r"(?i)\bmärz\b", "Mar"), (r"(?i)\bmai\b", "May"),
    (r"(?i)\bokt", "Oct"), (r"(?i)\bdez", "Dec"),
    (r" Uhr$", ""), (r" (GMT|UTC)$", " +0000"),
)  # fmt: skip
MONTH = (
    r"(jan|feb|mar|mär|apr|ma[iy]|ju[nl]|aug|sept?|o[ck]t|nov|de[cz])"
    r"(r?uary?|ch|z|il|[ei]|ust|(em|o)ber)?"
)
# What looks like a date, whether it is read or not.
LIKE = (
    rf"(?i)\d[-./, ]*{MONTH}([^\p{{L}}]|$)|\b{MONTH}\W{{0,2}}\d|"
    r"^\d\d?\.? (de )?\p{L}{3,10}\.? (de )?\d{4}\b|"
    r"^\d{4}([-/.]\d\d?[-/.]\d\d?\b|-?[WQ]\d)|^\d{8}T\d|"
    r"^\d\d?([-/.]\d\d?[-/.]\d{4}|(:\d\d)? ?[ap]\.?m)\b"
)
WHOLE = r"^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([0-2]\d{5})?$"
ASKED = ("%d-%b", "%y-%b", "%d %b", "%b %d", "%Y%m%d", "%Y%m%d%H%M%S")  # one must be stated
SAMPLE = 50  # texts that are no dates: after so many no more are tried


# -- plain ones --


def order_of(texts: Any) -> str:
    """How the dates among all texts of a column begin: a key of PLAIN, or unclear.

    Dates that are there with the day first alone say that it is; where both orders have such dates, the more frequent
    one counts. With points between the numbers the day comes first.
    """
    last = texts.filter(pa.array(matches(texts, YEAR_LAST)))
    if not len(last):
        return ""
    day, month = (np.isfinite(plain(last, order)) for order in ("day_first", "month_first"))
    first, second = int((day & ~month).sum()), int((month & ~day).sum())
    if first or second:
        return "day_first" if first >= second else "month_first"
    return "day_first" if matches(last, r"^\d+\.\d+\.").all() else "unclear"


def plain(texts: Any, order: str = "") -> NDArray:
    """Days since 1970-01-01 UTC of each text; NaN for what is no date. Without a zone it is UTC.

    Under "unclear" days come first: what is asked is whether they are dates at all.
    """
    values = np.full(len(texts), np.nan)
    if not matches(texts, DATE_LIKE).any():
        return values
    texts = pc.replace_substring_regex(texts, r"^([-/.\d]{8,10})T", r"\1 ")
    begun = (*PLAIN[""], *(PLAIN["day_first" if order == "unclear" else order] if order else ()))
    for one in (*(date + time for date in begun for time in TIMES), *ZONED):
        found = matches(texts, f"^{_pattern(one).pattern}$") & np.isnan(values)
        if found.any():
            values[found] = _days(_cells(texts.filter(pa.array(found))), one, 68)
    return values


# -- as people write them --


def read(texts: Any, how: Dates) -> NDArray:
    """Days since 1970-01-01 UTC of each text, NaN for what has none of the formats.

    Times without a date are their share of a day.
    """
    values = np.full(len(texts), np.nan)
    for words in (None, _english):
        if not np.isnan(values).any():
            break
        cells = _cells(words(texts) if words else texts)
        for one in how.formats:
            rest = np.flatnonzero(np.isnan(values))
            if len(rest):
                values[rest] = _days(cells[rest], one, how.pivot)
    return values


def _english(texts: Any) -> Any:
    """The names of months as strptime knows them, and no more."""
    for pattern, plain in ENGLISH:
        if matches(texts, pattern).any():
            texts = pc.replace_substring_regex(texts, pattern, plain)
    return texts


def _cells(texts: Any) -> NDArray:
    """None without a digit: pandas takes `now` for the moment of the run."""
    digits = pc.match_substring_regex(texts, r"\d")
    return np.asarray(pc.if_else(digits, texts, None).to_pylist(), dtype=object)


def _days(cells: NDArray, one: str, pivot: int) -> NDArray:
    """Days of each cell under one format."""
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


def readings(texts: Any, order: str, stated: Dates) -> Iterator[tuple[Dates, NDArray]]:
    """The formats that were needed, and the days of each text, of each order that is possible.

    `order` is data.format.dates; pivot and parts are `stated`.
    """
    cells = _cells(_english(texts))
    for one in [order] if order in NUMBERED else NUMBERED:
        values, used = np.full(len(cells), np.nan), list[str]()
        rest, none = np.arange(len(cells)), 0
        while rest.size and none < SAMPLE:
            found = _met(str(cells[rest[0]]), one)
            if found is None:
                none, rest = none + 1, rest[1:]
                continue
            used.append(found)
            values[rest] = _days(cells[rest], found, stated.pivot)
            rest = rest[1:][np.isnan(values[rest[1:]])]
        yield stated.model_copy(update={"format": tuple(dict.fromkeys(used))}), values


def _met(cell: str, order: str) -> str | None:
    """The first format that a cell has."""
    prefixes = WEEKDAYS if cell[:3].lower() in DAYS else ("",)
    times = [""]
    if ":" in cell:
        times = [join + clock for clock in CLOCK for join in (" ", ", ", "T")]
    dates = [prefix + date for date in (*NAMED, *NUMBERED[order], *MONTHS) for prefix in prefixes]
    for one in (*CLOCK, *(date + time for date in dates for time in times)):
        if _pattern(one).fullmatch(cell) and np.isfinite(_days(np.array([cell], dtype=object), one, 68)).all():
            return one
    return None


@cache
def _pattern(one: str) -> re.Pattern[str]:
    """What a cell of a format looks like; strptime would compile its own for each cell."""
    parts = re.split(r"(%[a-zA-Z])", one)
    return re.compile("".join(FIELDS.get(part) or re.escape(part) for part in parts), re.IGNORECASE)
