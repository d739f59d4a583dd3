"""Dates written as text: ISO 8601, year first, and day or month first where all cells of a column leave no doubt which.

pyarrow's arrays come in and NumPy's go out.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from pipelines.data.table import NDArray

Order = Literal["", "day_first", "month_first", "unclear"]  # "": no cell begins with a day or a month
CLOCK = r"\d\d?:\d\d(?::\d\d(?:\.\d{1,6})?)?"
ZONED = r"(Z|[+-]\d\d:?\d\d)$"
ISO = rf"^\d{{4}}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{{1,6}})?)?)?{ZONED[:-1]}?$"
YEAR_FIRST = rf"^(?P<y>\d{{4}})[-/.](?P<m>\d\d?)[-/.](?P<d>\d\d?)(?:[T ](?P<t>{CLOCK}))?$"
YEAR_LAST = rf"^(?P<a>\d\d?)[-/.](?P<b>\d\d?)[-/.](?P<y>\d{{4}})(?:[T ](?P<t>{CLOCK}))?$"
MICROSECONDS_A_DAY = 86_400_000_000


def matches(texts: Any, pattern: str) -> NDArray:
    """Which texts match a regular expression."""
    from pyarrow import compute

    return np.asarray(compute.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False), dtype=bool)


def order_of(texts: Any) -> Order:
    """How the dates among all texts of a column begin, as they show themselves.

    A number above 12 is a day. Of numbers with points between them the day comes first; no one writes them otherwise. Where both
    places have such numbers, some are no dates, and the more frequent order counts.
    """
    last = texts.filter(_mask(matches(texts, YEAR_LAST)))
    if not len(last):
        return ""
    first, second = (int((_field(last, YEAR_LAST, name) > 12).sum()) for name in "ab")
    if first or second:
        return "day_first" if first >= second else "month_first"
    return "day_first" if matches(last, r"^\d+\.\d+\.").all() else "unclear"


def days(texts: Any, order: str = "") -> NDArray:
    """Days since 1970-01-01 UTC of each text; NaN for what is no date. Without a zone it is UTC.

    Under "unclear" days come first: what is asked is whether they are dates at all.
    """
    values = np.full(len(texts), np.nan)
    plain = _iso(texts, order)
    dated = matches(plain, ISO)
    zoned = dated & matches(plain, ZONED) & matches(plain, r"\d:\d")
    for chosen, zone in ((dated & ~zoned, None), (zoned, "UTC")):
        values[chosen] = _microseconds(plain, chosen, zone) / MICROSECONDS_A_DAY
    return values


def _iso(texts: Any, order: str) -> Any:
    """The texts, with other ways of writing a date turned into ISO 8601."""
    ways = [(YEAR_FIRST, ("y", "m", "d"))]
    if order:
        ways.append((YEAR_LAST, ("y", "a", "b") if order == "month_first" else ("y", "b", "a")))
    for pattern, fields in ways:
        found = matches(texts, pattern) & ~matches(texts, ISO)
        if found.any():
            texts = _replaced(texts, found, pattern, fields)
    return texts


def _replaced(texts: Any, found: NDArray, pattern: str, fields: tuple[str, ...]) -> Any:
    from pyarrow import compute

    parts = compute.extract_regex(texts.filter(_mask(found)), pattern)
    padded = [compute.utf8_lpad(compute.struct_field(parts, name), 4 if name == "y" else 2, "0") for name in fields]
    day, time = compute.binary_join_element_wise(*padded, _text("-", texts)), compute.struct_field(parts, "t")
    whole = compute.binary_join_element_wise(day, compute.replace_substring_regex(time, r"^(\d:)", r"0\1"), _text("T", texts))
    return compute.replace_with_mask(texts, _mask(found), compute.if_else(compute.equal(time, ""), day, whole))


def _text(value: str, like: Any) -> Any:
    import pyarrow

    return pyarrow.scalar(value, like.type)


def _field(texts: Any, pattern: str, name: str) -> NDArray:
    """A number of each text, all of which match."""
    import pyarrow
    from pyarrow import compute

    return np.asarray(compute.struct_field(compute.extract_regex(texts, pattern), name).cast(pyarrow.int64()))


def _mask(chosen: NDArray) -> Any:
    import pyarrow

    return pyarrow.array(chosen)


def _microseconds(texts: Any, chosen: NDArray, zone: str | None) -> NDArray:
    """As pyarrow reads them all at once; one by one where there is no such day among them."""
    import pyarrow

    kind, some = pyarrow.timestamp("us", zone), texts.filter(_mask(chosen))
    try:
        return np.asarray(some.cast(kind).cast(pyarrow.int64()).to_numpy(zero_copy_only=False).astype(np.float64))
    except pyarrow.ArrowInvalid:
        return np.array([_microsecond(text, kind) for text in some.to_pylist()])


def _microsecond(text: str, kind: Any) -> float:
    import pyarrow

    try:
        return float(pyarrow.scalar(text).cast(kind).cast(pyarrow.int64()).as_py())
    except pyarrow.ArrowInvalid:
        return np.nan
