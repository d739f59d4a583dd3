"""How people write numbers, dates and truth values: one set of regular expressions, and one list of date formats.

pyarrow's arrays of texts come in, NumPy's arrays of one value a text go out. A column is read so only if all its cells fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np

from pipelines.data.columns import NDArray

NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"
CODE = r"^0\d"  # 00123: its zeros mean something, so it is no number
NOT_FINITE = r"(?i)^[+-]?(nan|inf|infinity)$"
WIDE = r"^[+-]?\d{16,}$"
LARGEST = 2**53 - 1  # up to here each whole number has a float64 of its own

CURRENCY = r"([$€£¥₹]|USD|EUR|GBP|CHF|JPY)"
# (what stands around a number, what stays of it). Brackets and a minus at the end are how accountants write less than 0.
DECORATIONS = (
    (r"^\((.*)\)$", r"-\1"),
    (rf"^([+-]?)\s*{CURRENCY}\s*", r"\1"),
    (rf"\s*({CURRENCY}|%)$", ""),
    (r"^([^+-].*)([+-])$", r"\2\1"),
)
# mark before decimals -> digits in groups of three, with the marks that may stand between them; 0,405 are no thousands
GROUPED = {".": r"^[+-]?[1-9]\d{0,2}([, ']\d{3})+(\.\d*)?$", ",": r"^[+-]?[1-9]\d{0,2}([. ']\d{3})+(,\d*)?$"}

PAIRS = (("false", "true"), ("no", "yes"))
FALSE, TRUE = ("false", "no", "f", "n", "0"), ("true", "yes", "t", "y", "1")  # where data.columns says boolean

Order = Literal["", "day_first", "month_first", "unclear"]  # "": no cell begins with a day or a month
MICROSECONDS_A_DAY = 86_400_000_000
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
    from pyarrow import compute

    return np.asarray(compute.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False), dtype=bool)


# -- numbers ----------------------------------------------------------------------------------------------------------------


def numbers(texts: Any, decimal: str = ".") -> NDArray:
    """float64 of each text; NaN for what is no number, inf for what is beyond float64."""
    plain = with_point(texts, decimal)
    found, values = matches(plain, NUMBER), np.full(len(texts), np.nan)
    values[found] = _floats(plain, found)
    return values


def with_point(texts: Any, decimal: str) -> Any:
    """Decimals after a point; what has a point where a comma is asked for is no number any more."""
    from pyarrow import compute

    return texts if decimal == "." else compute.replace_substring(compute.replace_substring(texts, ".", "?"), decimal, ".")


def wide(texts: Any) -> NDArray:
    """Which texts are whole numbers from 2^53 on, of which float64 loses digits: ids, more often than amounts."""
    found = matches(texts, WIDE)
    if found.any():
        found[found] = np.abs(_floats(texts, found)) > LARGEST
    return found


def grouped(texts: Any, decimal: str) -> NDArray:
    """Which texts are numbers with separators between thousands, and nothing else around them."""
    return matches(texts, GROUPED[decimal])


def decorated_numbers(texts: Any, decimal: str) -> NDArray:
    """float64 of each text once separators, signs, currency and percent are taken off; NaN for what is no number even so."""
    import pyarrow
    from pyarrow import compute

    for pattern, kept in DECORATIONS:
        texts = compute.replace_substring_regex(texts, pattern, kept)
    without = compute.replace_substring_regex(texts, r"[ ']" + f"|[{',' if decimal == '.' else '.'}]", "")
    return numbers(compute.if_else(pyarrow.array(grouped(texts, decimal)), without, texts), decimal)


def _floats(texts: Any, chosen: NDArray) -> NDArray:
    import pyarrow

    return np.asarray(texts.filter(pyarrow.array(chosen)).cast(pyarrow.float64()).to_numpy(zero_copy_only=False))


# -- truth values -----------------------------------------------------------------------------------------------------------


def booleans(texts: Any, stated: bool) -> NDArray:
    """1 or 0 of each text; NaN for other words. `stated`: short forms and digits too."""
    lower = [text.lower() for text in texts.to_pylist()]
    if stated:
        known = {**dict.fromkeys(FALSE, 0.0), **dict.fromkeys(TRUE, 1.0)}
    else:
        pair = next((pair for pair in PAIRS if {*lower} <= {*pair}), ())
        known = {word: float(place) for place, word in enumerate(pair)}
    return np.array([known.get(word, np.nan) for word in lower])


# -- dates ------------------------------------------------------------------------------------------------------------------


def date_order(texts: Any) -> Order:
    """How the dates among all texts of a column begin, as they show themselves.

    Dates that are there with the day first alone say that it is; where both orders have such dates, some are none, and the more
    frequent order counts. With points between the numbers the day comes first; no one writes them otherwise.
    """
    import pyarrow

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
    import pyarrow
    from pyarrow import compute

    values = np.full(len(texts), np.nan)
    if not matches(texts, DATE_LIKE).any():
        return values
    plain = compute.replace_substring_regex(texts, r"^([-/.\d]{8,10})T", r"\1 ")
    for date_format in date_formats("day_first" if order == "unclear" else order):
        found = matches(plain, f"^{_pattern(date_format)}$") & np.isnan(values)
        if found.any():
            import pandas

            some = plain.filter(pyarrow.array(found)).to_pylist()
            moments = pandas.to_datetime(some, format=date_format, utc=True, errors="coerce")
            microseconds = moments.to_numpy("datetime64[us]")
            missing = np.isnat(microseconds)
            values[found] = np.where(missing, np.nan, microseconds.astype(np.int64).astype(np.float64) / MICROSECONDS_A_DAY)
    return values


def date_formats(order: str) -> Iterator[str]:
    """The strptime formats that are tried, under an order of days and months."""
    for date in (*DATES[""], *(DATES[order] if order else ())):
        yield from (f"{date}{time}" for time in TIMES)
    yield from ZONED


def _pattern(date_format: str) -> str:
    return re.sub(r"%[a-zA-Z]|\.", lambda field: FIELDS.get(field[0], r"\."), date_format)


# -- labels -----------------------------------------------------------------------------------------------------------------


def label_key(label: str) -> str:
    """Labels of one key may be spellings of one another: without case, blanks and marks. Numbers and codes stay apart."""
    if any(letter.isdigit() for letter in label):
        return label.casefold()
    return "".join(letter for letter in label.casefold() if letter.isalnum())


def similar_label(label: str, rows: Mapping[str, int]) -> str:
    """The most frequent label with more rows that this one may be a spelling of, by a letter too; "" if there is none."""
    key = label_key(label)
    more = sorted((other for other in rows if rows[other] > rows.get(label, 0)), key=lambda other: -rows[other])
    same = [other for other in more if key and label_key(other) == key]
    letters = [other for other in more if key.isalpha() and label_key(other).isalpha() and abs(len(other) - len(label)) < 2]
    return next(iter(same or get_close_matches(label, letters, 1, 0.75)), "")
