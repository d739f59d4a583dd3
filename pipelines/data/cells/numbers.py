"""Numbers as people write them: 1 234,50 EUR, ($52,000), 12.5 %.

One set of regular expressions, tried on all different cells of a column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow
from pyarrow import compute

from pipelines.data.columns import NDArray
from pipelines.spec.blocks import Numbers

MARKS = {
    "none": "",
    "point": ".",
    "comma": ",",
    "blank": " ",
    "apostrophe": "'",
}
# What stands around the digits of a cell. A plus behind
# them is no sign: 10+ is "10 or more".
SHAPE = (
    r"^(?P<open>\(?)\s*(?P<sign>[+-]?)\s*"
    r"(?P<before>[^\d\s.,+()'-]*)\s*(?P<inner>[+-]?)\s*"
    r"(?P<digits>(?:\d[\d.,' ]*|[.,]\d+)(?:[eE][+-]?\d+)?)\s*"
    r"(?P<after>[^\d\s.,+()'-]*)\s*(?P<behind>-?)\s*(?P<close>\)?)$"
)
# Non-breaking, figure, thin and narrow blanks; the apostrophe
# of the Swiss; the minus of typographers.
PLAIN = (
    ("[\u00a0\u2007\u2009\u202f]", " "),
    ("’", "'"),
    ("−", "-"),
)
EXPONENT = r"([eE][+-]?\d+)?"
SIGNS = {
    "$": "USD",
    "US$": "USD",
    "€": "EUR",
    "£": "GBP",
    "¥": "JPY",
    "₹": "INR",
    "₩": "KRW",
    "₽": "RUB",
    "₺": "TRY",
    "R$": "BRL",
    "zł": "PLN",
    "Kč": "CZK",
    "kr": "SEK",
    "Fr": "CHF",
    "Rs": "INR",
}
CODES = (
    "USD", "EUR", "GBP", "JPY", "CHF", "CNY", "INR", "AUD", "CAD", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF", "BRL", "MXN",
    "ZAR", "KRW", "RUB", "TRY", "NZD", "SGD", "HKD",
)  # fmt: skip
HEADER_UNIT = re.compile(r"[(\[]\s*([^()\[\]]+?)\s*[)\]]\s*$")
# Thousands and decimals, in the order in which they are tried.
PAIRS = (
    ("none", "point"), ("none", "comma"),
    ("comma", "point"), ("point", "comma"),
    ("blank", "point"), ("blank", "comma"),
    ("apostrophe", "point"), ("apostrophe", "comma"),
)  # fmt: skip


def pieces(texts: Any) -> Any:
    """A struct of the groups of SHAPE for each text; null for what is no number however it is written."""
    for pattern, plain in PLAIN:
        texts = compute.replace_substring_regex(texts, pattern, plain)
    return compute.extract_regex(texts, SHAPE)


def shaped(texts: Any) -> NDArray:
    """Which texts may be numbers."""
    return np.asarray(pieces(texts).is_valid())


def read(texts: Any, how: Numbers) -> NDArray:
    """float64 of each text; NaN for what is no number under `how`, whose decimal must be given."""
    found = pieces(texts)
    values = _digits(found.field("digits"), how)
    wrong = ~np.asarray(found.is_valid())
    for place in ("before", "after"):
        there = compute.not_equal(found.field(place), "")
        known = compute.is_in(found.field(place), pyarrow.array(how.units, pyarrow.large_string()))
        wrong |= _bool(there) & ~_bool(known)
    minus = np.zeros(len(values), dtype=np.int64)
    for sign in ("sign", "inner", "behind"):
        minus += _is(found, sign, "-")
    opened, closed = _is(found, "open", "("), _is(found, "close", ")")
    signs = minus + opened + _is(found, "sign", "+") + _is(found, "inner", "+")
    wrong |= (opened != closed) | (signs > 1)
    if not how.accounting:
        wrong |= opened | _is(found, "behind", "-")
    return np.where(wrong, np.nan, np.where(minus + opened > 0, -values, values))


def _bool(mask: Any) -> NDArray:
    return np.asarray(mask.fill_null(False))


def _is(found: Any, place: str, text: str) -> NDArray:
    return _bool(compute.equal(found.field(place), text))


def _digits(digits: Any, how: Numbers) -> NDArray:
    """float64 of digits with marks between them, NaN where the marks do not stand as `how` says."""
    digits = compute.utf8_trim_whitespace(digits)
    thousands, decimal = MARKS[how.thousands], MARKS[how.decimal or "point"]
    point = re.escape(decimal)
    plain = compute.match_substring_regex(digits, rf"^(\d+({point}\d*)?|{point}\d+){EXPONENT}$")
    if thousands:
        grouped = compute.match_substring_regex(digits, _grouped(thousands, point))
        digits = compute.if_else(grouped, compute.replace_substring(digits, thousands, ""), digits)
        plain = compute.or_(plain, grouped)
    digits = compute.if_else(plain, compute.replace_substring(digits, decimal, "."), None)
    return np.asarray(digits.cast(pyarrow.float64()).to_numpy(zero_copy_only=False))


def _grouped(thousands: str, point: str) -> str:
    """Groups of three digits (or two before the last, as in India); 0,405 are no thousands."""
    mark = re.escape(thousands)
    return rf"^[1-9]\d{{0,2}}({mark}\d{{2,3}})*{mark}\d{{3}}({point}\d*)?$"


# -- found out --


def find(texts: Any, decimal: str, name: str) -> list[Numbers]:
    """Ways of writing under which all texts are numbers, and not the same ones.

    None: they are no numbers. Several: a person must say which. `decimal` is the file's; the header `name` may hold a unit.
    """
    found = pieces(texts)
    if found.null_count or not len(texts):
        return []
    opened, behind = _is(found, "open", "("), _is(found, "behind", "-")
    digits = compute.utf8_trim_whitespace(found.field("digits"))
    codes = compute.any(compute.match_substring_regex(digits, r"^0\d")).as_py()
    units = _units(found, name)
    if units is None or codes or _phones(digits):
        return []
    accounting = bool(opened.any() or behind.any())
    kept: list[Numbers] = []
    known: list[NDArray] = []
    for how in _candidates(digits, decimal):
        how = how.model_copy(update={"unit": units, "accounting": accounting})
        values = read(texts, how)
        if np.isfinite(values).all() and not any(np.array_equal(values, other) for other in known):
            kept.append(how)
            known.append(values)
    return _likely(kept, decimal, bool(units) and {*units} <= {*SIGNS, *CODES})


def _phones(digits: Any) -> bool:
    """Whether all have blanks, and as many digits, nine or more: 612 345 678."""
    blanks = compute.all(compute.match_substring(digits, " ")).as_py()
    length = compute.utf8_length(compute.replace_substring(digits, " ", ""))
    least, most = compute.min_max(length).as_py().values()
    return bool(blanks and 9 <= least == most)


def _likely(found: list[Numbers], decimal: str, money: bool) -> list[Numbers]:
    """Without those that no one means: 1.234 kg is no ton, and $5,000 are no five dollars with three decimals."""
    thousands = [how.thousands for how in found]
    if thousands[:1] == ["none"] and found[0].decimal == decimal and not money:
        return found[:1]
    if money and decimal == "point" and "comma" in thousands:
        return [how for how in found if (how.thousands, how.decimal) != ("none", "comma")]
    return found


def _candidates(digits: Any, decimal: str) -> Iterator[Numbers]:
    """The file's decimals first, and alone where they are commas: point is what no one has thought about."""
    pairs = sorted(PAIRS, key=lambda pair: pair[1] != decimal)
    for thousands, mark in pairs:
        if decimal == "comma" and mark != decimal:
            continue
        pattern = _grouped(MARKS[thousands], re.escape(MARKS[mark]))
        if thousands == "none" or _bool(compute.match_substring_regex(digits, pattern)).any():
            yield Numbers.model_validate({"thousands": thousands, "decimal": mark})


def _units(found: Any, name: str) -> tuple[str, ...] | None:
    """What stands before and behind the numbers, the most frequent first; None where that says that they are no amounts.

    Currencies, and the unit of the header, may be left out of some cells; others must stand in all, but beside 0.
    """
    header = HEADER_UNIT.search(name)
    free = {*SIGNS, *CODES, *([header[1]] if header else [])}
    before, after = found.field("before"), found.field("after")
    counts = {unit: rows for unit, rows in (*_counted(before), *_counted(after)) if unit}
    if any(unit and unit not in free for unit, _ in _counted(before)):
        return None
    zero = _bool(compute.match_substring_regex(found.field("digits"), r"^[0.,]*$"))
    without = _is(found, "before", "") & _is(found, "after", "") & ~zero
    if any(unit not in free for unit in counts) and (without.any() or len(counts) > 1):
        return None
    return tuple(sorted(counts, key=lambda unit: -counts[unit]))


def _counted(texts: Any) -> Iterator[tuple[str, int]]:
    for one in compute.value_counts(texts).to_pylist():
        yield one["values"], one["counts"]


def one_currency(units: tuple[str, ...]) -> bool:
    """Whether all of them mean the same."""
    return len({SIGNS.get(unit, unit) for unit in units}) <= 1


def as_stated(how: Numbers, decimal: str) -> dict[str, Any]:
    """A way of writing as data.numbers says it where the file's `decimal` is this: without what goes without saying."""
    told = how.model_dump(mode="json", exclude_defaults=True)
    if how.decimal == decimal:
        told.pop("decimal")
    if len(how.units) == 1:
        told["unit"] = how.units[0]
    return told
