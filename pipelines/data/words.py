"""Columns of text: each different text once, and its place for every row. What they hold is found out from the few, not the many.

pyarrow's arrays come in and NumPy's go out; pyarrow is imported when a file is read, never for the bundled sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.data.dates import days, matches, order_of
from pipelines.data.table import NDArray
from pipelines.spec.blocks import Format

NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"
LARGEST = 2**53 - 1  # up to here each whole number has a float64 of its own
WIDE = r"^[+-]?\d{16,}$"
CODE = r"^0\d"  # 00123: its zeros mean something, so it is no number
ENDLESS = r"(?i)^[+-]?(nan|inf|infinity)$"
PAIRS = (("false", "true"), ("no", "yes"))
FALSE, TRUE = ("false", "no", "f", "n", "0"), ("true", "yes", "t", "y", "1")  # where data.columns says boolean


@dataclass(frozen=True)
class Writing:
    """How numbers and dates are written. `dates` is auto, or the order of days and months as in dates.py."""

    decimal: str = "."
    dates: str = "auto"

    @staticmethod
    def of(how: Format, dates: str | None = None) -> Writing:
        """As the spec says; `dates` stands above it."""
        return Writing("," if how.decimal == "comma" else ".", how.dates if dates is None else dates)

    def order(self, texts: Any) -> str:
        """Of the dates among all texts of a column."""
        return order_of(texts) if self.dates == "auto" else self.dates


@dataclass(frozen=True)
class Words:
    """`codes` (rows,) int32 are places in `texts`, which differ, are stripped and no markers; -1 is a missing value.

    `texts` is a pyarrow array of strings.
    """

    codes: NDArray
    texts: Any

    def counts(self) -> NDArray:
        """Rows of each text."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.texts))

    def take(self, values: NDArray, missing: float) -> NDArray:
        """Each row's value, where `values` has one for each text."""
        return np.append(values, missing)[self.codes]


def words(codes: NDArray, found: Any, markers: Sequence[str], spellings: Mapping[str, str]) -> tuple[Words, set[str]]:
    """Strip, spell and join the texts `found` (repeats allowed), and take out what means no value.

    Returns which of the spellings were met, too.
    """
    import pyarrow
    from pyarrow import compute

    texts = compute.utf8_trim_whitespace(found)
    met: set[str] = set()
    if spellings:
        said = pyarrow.array(list(spellings), texts.type)
        place = compute.index_in(texts, said)
        met = {list(spellings)[number] for number in compute.unique(place.drop_null()).to_pylist()}
        texts = compute.coalesce(pyarrow.array(list(spellings.values()), texts.type).take(place), texts)
    missing = compute.is_in(texts, pyarrow.array(list(markers), texts.type))
    encoded = compute.if_else(missing, pyarrow.scalar(None, texts.type), texts).dictionary_encode()
    place = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Words(np.append(place, np.int32(-1))[codes], encoded.dictionary), met


@dataclass(frozen=True)
class Sorts:
    """What each text of a column is, as masks over its texts; each is in one of them."""

    numbers: NDArray
    codes: NDArray
    endless: NDArray  # nan, inf, and numbers beyond float64
    dates: NDArray
    words: NDArray


def sort(texts: Any, decimal: str = ".", order: str = "") -> Sorts:
    """Look at each text once. `order`: of days and months, as `dates.order_of` gives it."""
    plain = _pointed(texts, decimal)
    numbers = matches(plain, NUMBER)
    codes = numbers & matches(texts, CODE)
    endless = matches(texts, ENDLESS)
    beyond = numbers.copy()
    beyond[numbers] = ~np.isfinite(_floats(plain, numbers))
    dates = ~np.isnan(days(texts, order))
    endless, numbers = endless | beyond, numbers & ~codes & ~beyond
    return Sorts(numbers, codes & ~endless, endless, dates, ~(numbers | codes | endless | dates))


def numbers(texts: Any, decimal: str = ".") -> NDArray:
    """float64 of each text; NaN for what is no number, inf for what is beyond float64."""
    plain = _pointed(texts, decimal)
    found, values = matches(plain, NUMBER), np.full(len(texts), np.nan)
    values[found] = _floats(plain, found)
    return values


def wide(texts: Any) -> NDArray:
    """Which texts are whole numbers from 2^53 on, of which float64 loses digits: ids, more often than amounts."""
    found = matches(texts, WIDE)
    if found.any():
        found[found] = np.abs(_floats(texts, found)) > LARGEST
    return found


def _pointed(texts: Any, decimal: str) -> Any:
    """Decimals after a point; what has a point where a comma is asked for is no number any more."""
    from pyarrow import compute

    return texts if decimal == "." else compute.replace_substring(compute.replace_substring(texts, ".", "?"), decimal, ".")


def _floats(texts: Any, chosen: NDArray) -> NDArray:
    import pyarrow

    return np.asarray(texts.filter(pyarrow.array(chosen)).cast(pyarrow.float64()).to_numpy(zero_copy_only=False))


def booleans(texts: Any, stated: bool) -> NDArray:
    """1 or 0 of each text; NaN for other words. `stated`: short forms and digits too."""
    lower = [text.lower() for text in texts.to_pylist()]
    if stated:
        known = {**dict.fromkeys(FALSE, 0.0), **dict.fromkeys(TRUE, 1.0)}
    else:
        pair = next((pair for pair in PAIRS if {*lower} <= {*pair}), ())
        known = {word: float(place) for place, word in enumerate(pair)}
    return np.array([known.get(word, np.nan) for word in lower])


def categories(found: Words) -> tuple[NDArray, tuple[str, ...]]:
    """(codes int32, the texts in order)."""
    from pyarrow import compute

    order = compute.sort_indices(found.texts).to_numpy()
    place = np.empty(len(order) + 1, dtype=np.int32)
    place[order], place[-1] = np.arange(len(order)), -1
    return place[found.codes], tuple(found.texts.take(order).to_pylist())
