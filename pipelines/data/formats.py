"""How people write numbers, dates and truth values: one set of regular expressions, and one list of date formats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow
from pyarrow import compute

from pipelines.data.columns import MICROSECONDS_A_DAY, NDArray

NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"
CODE = r"^0\d"  # 00123: its zeros mean something, so it is no number
NOT_FINITE = r"(?i)^[+-]?(nan|inf|infinity)$"
WIDE = r"^[+-]?\d{16,}$"
LARGEST = 2**53 - 1  # up to here each whole number has a float64 of its own

# mark before decimals -> digits in groups of three, with the marks that may stand between them; 0,405 are no thousands
GROUPED = {".": r"^[+-]?[1-9]\d{0,2}([, ']\d{3})+(\.\d*)?$", ",": r"^[+-]?[1-9]\d{0,2}([. ']\d{3})+(,\d*)?$"}

PAIRS = (("false", "true"), ("no", "yes"))
FALSE, TRUE = ("false", "no", "f", "n", "0"), ("true", "yes", "t", "y", "1")  # where data.columns says boolean

Order = Literal["", "day_first", "month_first", "unclear"]  # "": no cell begins with a day or a month
DATES = {
    "": ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d"),
    "day_first": ("%d-%m-%Y", "%d/%m/%Y", "%d.%m.%Y"),
    "month_first": ("%m-%d-%Y", "%m/%d/%Y", "%m.%d.%Y"),
}
TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f")
ZONED = tuple(f"%Y-%m-%d{time}%z" for time in TIMES[1:])
FIELDS = {
    "%Y": r"\d{4}", "%m": r"\d\d?", "%d": r"\d\d?", "%H": r"\d\d?", "%M": r"\d\d", "%S": r"[0-5]\d", "%f": r"\d{1,6}",
    "%z": r"(Z|[+-]\d\d:?\d\d)",
}  # fmt: skip
DATE_LIKE = r"^\d{1,4}[-/.]\d\d?[-/.]\d"
YEAR_LAST = r"^\d\d?[-/.]\d\d?[-/.]\d{4}"


def matches(texts: Any, pattern: str) -> NDArray:
    """Which texts match a regular expression."""
    return np.asarray(compute.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False), dtype=bool)


# -- numbers --


def plain_numbers(cells: Any, markers: Sequence[str], decimal: str) -> Any:
    """A block of cells as float64, null where a marker stands; None unless all others are finite numbers that lose no digits.

    Almost all of a large file is read here: what is to be looked at closely goes by its different texts, below.
    """
    stripped = compute.utf8_trim_whitespace(cells)
    missing = compute.is_in(stripped, pyarrow.array(markers, stripped.type))
    present = with_point(compute.if_else(missing, None, stripped), decimal)
    with_zero = compute.filter(present, compute.starts_with(present, "0"))
    if compute.any(compute.match_substring_regex(with_zero, CODE)).as_py():
        return None
    try:
        values = present.cast(pyarrow.float64())
    except pyarrow.ArrowInvalid:
        return None
    if compute.any(compute.invert(compute.is_finite(values))).as_py():
        return None
    large = compute.any(compute.greater(compute.abs(values), LARGEST)).as_py()
    if large and wide(present.drop_null()).any():
        return None
    # In NumPy's memory: among the strings of its own pyarrow would keep a quarter more.
    return pyarrow.array(values.to_numpy(zero_copy_only=False).copy(), from_pandas=True)


def numbers(texts: Any, decimal: str = ".") -> NDArray:
    """float64 of each text; NaN for what is no number, inf for what is beyond float64."""
    plain = with_point(texts, decimal)
    found = compute.if_else(compute.match_substring_regex(plain, NUMBER), plain, None)
    return np.asarray(found.cast(pyarrow.float64()).to_numpy(zero_copy_only=False))


def with_point(texts: Any, decimal: str) -> Any:
    """Decimals after a point; what has a point where a comma is asked for is no number any more."""
    return texts if decimal == "." else compute.replace_substring(compute.replace_substring(texts, ".", "?"), decimal, ".")


def wide(texts: Any) -> NDArray:
    """Which texts are whole numbers from 2^53 on, of which float64 loses digits: ids, more often than amounts."""
    return matches(texts, WIDE) & (np.abs(numbers(texts)) > LARGEST)


def grouped(texts: Any, decimal: str) -> NDArray:
    """Which texts are numbers with separators between thousands, and nothing else around them."""
    return matches(texts, GROUPED[decimal])


# -- truth values --


def booleans(texts: Any, stated: bool) -> NDArray:
    """1 or 0 of each text; NaN for other words. `stated`: short forms and digits too."""
    lower = [text.lower() for text in texts.to_pylist()]
    if stated:
        known = {**dict.fromkeys(FALSE, 0.0), **dict.fromkeys(TRUE, 1.0)}
    else:
        pair = next((pair for pair in PAIRS if {*lower} <= {*pair}), ())
        known = {word: float(place) for place, word in enumerate(pair)}
    return np.array([known.get(word, np.nan) for word in lower])


# -- dates --


def date_order(texts: Any) -> Order:
    """How the dates among all texts of a column begin, as they show themselves.

    Dates that are there with the day first alone say that it is; where both orders have such dates, some are none, and the more
    frequent order counts. With points between the numbers the day comes first; no one writes them otherwise.
    """
    last = texts.filter(pyarrow.array(matches(texts, YEAR_LAST)))
    if not len(last):
        return ""
    day, month = (np.isfinite(days(last, order)) for order in ("day_first", "month_first"))
    first, second = int((day & ~month).sum()), int((month & ~day).sum())
    if first or second:
        return "day_first" if first >= second else "month_first"
    return "day_first" if matches(last, r"^\d+\.\d+\.").all() else "unclear"


def days(texts: Any, order: str = "") -> NDArray:
    """Days since 1970-01-01 UTC of each text; NaN for what is no date. Without a zone it is UTC.

    Under "unclear" days come first: what is asked is whether they are dates at all.
    """
    values = np.full(len(texts), np.nan)
    if not matches(texts, DATE_LIKE).any():
        return values
    plain = compute.replace_substring_regex(texts, r"^([-/.\d]{8,10})T", r"\1 ")
    dates = (*DATES[""], *(DATES["day_first" if order == "unclear" else order] if order else ()))
    for date_format in (*(date + time for date in dates for time in TIMES), *ZONED):
        pattern = re.sub(r"%[a-zA-Z]|\.", lambda field: FIELDS.get(field[0], r"\."), date_format)
        found = matches(plain, f"^{pattern}$") & np.isnan(values)
        if found.any():
            import pandas

            some = plain.filter(pyarrow.array(found)).to_pylist()
            moments = pandas.to_datetime(some, format=date_format, utc=True, errors="coerce")
            microseconds = moments.to_numpy("datetime64[us]")
            missing = np.isnat(microseconds)
            values[found] = np.where(missing, np.nan, microseconds.astype(np.int64).astype(np.float64) / MICROSECONDS_A_DAY)
    return values
