"""Numbers as people write them: 1 234,50 EUR, ($52,000), 12.5 %.

One set of regular expressions, tried on all different cells of a column.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from pipelines.data.cells import distinct, matches
from pipelines.data.columns import NDArray
from pipelines.spec.blocks import Numbers

NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"
CODE = r"^0\d"  # 00123: its zeros mean something, so it is no number
WIDE = r"^[+-]?\d{16,}(\.0*)?$"
LARGEST = 2**53 - 1  # up to here each whole number has a float64 of its own
MARKS = {"none": "", "point": ".", "comma": ",", "blank": " ", "apostrophe": "'"}
# What stands around the digits of a cell. A plus behind
# them is no sign: 10+ is "10 or more".
SHAPE = (
    r"^(?P<open>\(?)\s*(?P<sign>[+-]?)\s*"
    r"(?P<before>[^\d\s.,+()'-]*|\p{L}{2,4}\.|\p{L}{2} \p{Sc})\s*"
    r"(?P<inner>[+-]?)\s*"
    r"(?P<digits>(?:\d[\d.,' ]*|[.,]\d+)(?:[eE][+-]?\d+)?)\s*"
    r"(?P<after>[^\d\s.,+()'-]*)\s*(?P<behind>-?)\s*(?P<close>\)?)$"
)
# Non-breaking, figure, thin and narrow blanks; the apostrophe
# of the Swiss; the minus of typographers.
PLAIN = (("[\u00a0\u2007\u2009\u202f]", " "), ("’", "'"), ("−", "-"))
EXPONENT = r"([eE][+-]?\d+)?"
SIGNS = {
    "$": "USD", "US$": "USD", "US $": "USD",
    "A$": "AUD", "AU$": "AUD", "C$": "CAD", "CA$": "CAD",
    "NZ$": "NZD", "HK$": "HKD", "S$": "SGD", "R$": "BRL",
    "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR",
    "₩": "KRW", "₽": "RUB", "₺": "TRY", "zł": "PLN",
    "Kč": "CZK", "kr": "SEK", "Fr": "CHF", "Fr.": "CHF",
    "Rs": "INR", "Rs.": "INR",
}  # fmt: skip
CODES = (
    "USD", "EUR", "GBP", "JPY", "CHF", "CNY", "INR", "AUD", "CAD", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF", "BRL", "MXN",
    "ZAR", "KRW", "RUB", "TRY", "NZD", "SGD", "HKD",
)  # fmt: skip
ABOUT = ("~", "≈")
HEADER_UNIT = re.compile(r"[(\[]\s*([^()\[\]]+?)\s*[)\]]\s*$")
# Thousands and decimals, in the order in which they are tried.
PAIRS = (
    ("none", "point"), ("none", "comma"),
    ("comma", "point"), ("point", "comma"),
    ("blank", "point"), ("blank", "comma"),
    ("apostrophe", "point"), ("apostrophe", "comma"),
)  # fmt: skip

# With letters before it, it is money or has decimals.
AMOUNT = (
    r"^[^\p{L}\d#@/_*]*(\p{L}{0,3}\p{Sc} ?)?\d|"
    r"^\p{L}[\p{L}. ]{0,7} ?\d[\d,']*[.,]\d+ ?\p{L}*$"
)
# Phones, networks, lists, ranges, ids.
CODED = r"^0\d\d|^[\d\s.,_+()-]*$|\d[_-]\p{L}|/0\d\d"
SHAPES = 4  # in which the amounts of a column are written


# -- plain ones --


def plain_block(cells: Any, markers: Sequence[str], decimal: str) -> Any:
    """A block of cells as float64, null where a marker stands; None unless all others are finite numbers that lose no digits.

    Almost all of a large file is read here; the rest by its different texts, below.
    """
    stripped = pc.utf8_trim_whitespace(cells)
    missing = pc.is_in(stripped, pa.array(markers, stripped.type))
    present = _with_point(pc.if_else(missing, None, stripped), decimal)
    with_zero = pc.filter(present, pc.starts_with(present, "0"))
    if pc.any(pc.match_substring_regex(with_zero, CODE)).as_py():
        return None
    try:
        values = present.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
    if pc.any(pc.invert(pc.is_finite(values))).as_py():
        return None
    large = pc.any(pc.greater(pc.abs(values), LARGEST)).as_py()
    if large and wide(present.drop_null()).any():
        return None
    # In NumPy's memory: among the strings of its own pyarrow would keep a quarter more.
    return pa.array(values.to_numpy(zero_copy_only=False).copy(), from_pandas=True)


def plain(texts: Any, decimal: str = "point") -> NDArray:
    """float64 of each text; NaN for what is no number, inf for what is beyond float64."""
    texts = _with_point(texts, decimal)
    return _floats(pc.match_substring_regex(texts, NUMBER), texts)


def _floats(chosen: Any, texts: Any) -> NDArray:
    """float64 of the chosen texts, NaN for the others."""
    return np.asarray(pc.if_else(chosen, texts, None).cast(pa.float64()).to_numpy(zero_copy_only=False))


def _with_point(texts: Any, decimal: str) -> Any:
    """Decimals after a point; what has one where a comma is asked for is no number."""
    if decimal == "point":
        return texts
    return pc.replace_substring(pc.replace_substring(texts, ".", "?"), ",", ".")


def wide(texts: Any) -> NDArray:
    """Which texts are whole numbers from 2^53 on, of which float64 loses digits."""
    return matches(texts, WIDE) & (np.abs(plain(texts)) > LARGEST)


# -- as people write them --


def pieces(texts: Any) -> Any:
    """The groups of SHAPE for each text; null for what is no number."""
    for pattern, plain in PLAIN:
        texts = pc.replace_substring_regex(texts, pattern, plain)
    return pc.extract_regex(texts, SHAPE)


def shaped(texts: Any) -> NDArray:
    """Which texts may be numbers."""
    return np.asarray(pieces(texts).is_valid())


def read(texts: Any, how: Numbers) -> NDArray:
    """float64 of each text; NaN for what is no number under `how`, whose decimal must be given."""
    found = pieces(texts)
    values = _digits(found.field("digits"), how)
    wrong = ~np.asarray(found.is_valid())
    units = pa.array(["", *how.units], pa.large_string())
    for place in ("before", "after"):
        wrong |= ~_bool(pc.is_in(found.field(place), units))
    minus = np.sum([_is(found, sign, "-") for sign in ("sign", "inner", "behind")], axis=0)
    opened, closed = _is(found, "open", "("), _is(found, "close", ")")
    signs = minus + opened + _is(found, "sign", "+") + _is(found, "inner", "+")
    wrong |= (opened != closed) | (signs > 1)
    if not how.accounting:
        wrong |= opened | _is(found, "behind", "-")
    return np.where(wrong, np.nan, np.where(minus + opened > 0, -values, values))


def _bool(mask: Any) -> NDArray:
    return np.asarray(mask.fill_null(False))


def _is(found: Any, place: str, text: str) -> NDArray:
    return _bool(pc.equal(found.field(place), text))


def _digits(digits: Any, how: Numbers) -> NDArray:
    """float64 of digits with marks, NaN where these do not stand as `how` says."""
    digits = pc.utf8_trim_whitespace(digits)
    thousands, decimal = MARKS[how.thousands], MARKS[how.decimal or "point"]
    point = re.escape(decimal)
    known = pc.match_substring_regex(digits, rf"^(\d+({point}\d*)?|{point}\d+){EXPONENT}$")
    if thousands:
        grouped = pc.match_substring_regex(digits, _grouped(thousands, point))
        digits = pc.if_else(grouped, pc.replace_substring(digits, thousands, ""), digits)
        known = pc.or_(known, grouped)
    return _floats(known, pc.replace_substring(digits, decimal, "."))


def _grouped(thousands: str, point: str) -> str:
    """Groups of three digits (or two before the last, as in India); 0,405 are no thousands."""
    mark = re.escape(thousands)
    return rf"^[1-9]\d{{0,2}}({mark}\d{{2,3}})*{mark}\d{{3}}({point}\d*)?$"


# -- found out --


def find(texts: Any, decimal: str, name: str) -> list[tuple[Numbers, NDArray]]:
    """Ways of writing under which all texts are numbers, and not the same ones; with the numbers, (texts,) float64.

    Of several a person must say which. `decimal` is the file's; the header `name` may hold a unit.
    """
    found = pieces(texts)
    if found.null_count or not len(texts):
        return []
    opened, behind = _is(found, "open", "("), _is(found, "behind", "-")
    digits = pc.utf8_trim_whitespace(found.field("digits"))
    units = _units(found, name)
    if units is None or matches(digits, CODE).any() or _phones(digits):
        return []
    ways = _candidates(digits, decimal, units, bool(opened.any() or behind.any()))
    readings = distinct((how, read(texts, how)) for how in ways)
    # Without those that no one means: 1.234 kg is no ton, and $5,000 are not five.
    money = bool(units) and {*units} <= {*SIGNS, *CODES}
    pairs = [(how.thousands, how.decimal) for how, _ in readings]
    if pairs[:1] == [("none", decimal)] and not money:
        return readings[:1]
    if money and decimal == "point" and any(thousands == "comma" for thousands, _ in pairs):
        return [one for one, pair in zip(readings, pairs, strict=True) if pair != ("none", "comma")]
    return readings


def unread(texts: Any, counts: NDArray, known: NDArray) -> NDArray:
    """Which texts are `known` numbers, or look so in the shapes that most rows have, as 120/80 and 95/7."""
    some = matches(texts, AMOUNT) & ~matches(texts, CODED) | known
    shape = pc.utf8_lower(texts)
    number = r"\d+(,\d{2,3})*([.,]\d+)?"
    for pattern, plain in ((number, "#"), (r"[\s+-]", "")):
        shape = pc.replace_substring_regex(shape, pattern, plain)
    place = shape.dictionary_encode().indices.to_numpy()
    rows = np.bincount(place, np.where(some, counts, 0))
    return some & np.isin(place, np.argsort(-rows)[:SHAPES])


def with_unit(texts: Any, decimal: str) -> list[tuple[Numbers, NDArray]]:
    """Ways to read them if the unit of some is that of all."""
    found = pieces(texts)
    around = (found.field(place).to_pylist() for place in ("before", "after"))
    units = {*chain(*around)} - {"", None}
    return find(texts, decimal, f"({units.pop()})") if len(units) == 1 else []


def _phones(digits: Any) -> bool:
    """Whether all have blanks, and as many digits, nine or more: 612 345 678."""
    blanks = pc.all(pc.match_substring(digits, " ")).as_py()
    length = pc.utf8_length(pc.replace_substring(digits, " ", ""))
    least, most = pc.min_max(length).as_py().values()
    return bool(blanks and 9 <= least == most)


def _candidates(digits: Any, decimal: str, units: Sequence[str], accounting: bool) -> Iterator[Numbers]:
    """The file's decimals first, and alone where they are commas."""
    pairs = sorted(PAIRS, key=lambda pair: pair[1] != decimal)
    for thousands, mark in pairs:
        if decimal == "comma" and mark != decimal:
            continue
        pattern = _grouped(MARKS[thousands], re.escape(MARKS[mark]))
        if thousands == "none" or _bool(pc.match_substring_regex(digits, pattern)).any():
            yield Numbers.model_validate({"thousands": thousands, "decimal": mark, "unit": units, "accounting": accounting})


def _units(found: Any, name: str) -> tuple[str, ...] | None:
    """What stands around the numbers, the most frequent first; None where they are no amounts.

    Currencies, and the header's unit, may be left out of some cells; others must stand in all, but beside 0.
    """
    free = {*SIGNS, *CODES, *ABOUT, *HEADER_UNIT.findall(name)}
    before, after = (list(filter(None, found.field(place).to_pylist())) for place in ("before", "after"))
    counts = Counter([*before, *after])
    if not free.issuperset(before):
        return None
    zero = _bool(pc.match_substring_regex(found.field("digits"), r"^[0.,]*$"))
    without = _is(found, "before", "") & _is(found, "after", "") & ~zero
    if any(unit not in free for unit in counts) and (without.any() or len(counts) > 1):
        return None
    return tuple(unit for unit, _ in counts.most_common())
