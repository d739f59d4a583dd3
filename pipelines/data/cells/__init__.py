"""What the cells of a text say: truth values, and numbers and dates as people write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
from pyarrow import compute as pc

from pipelines.data.columns import NDArray
from pipelines.spec.blocks import Dates, Numbers

How = TypeVar("How")
PAIRS = (("false", "true"), ("no", "yes"))
FALSE, TRUE = ("false", "no", "f", "n", "0"), ("true", "yes", "t", "y", "1")  # where data.columns says boolean


def matches(texts: Any, pattern: str) -> NDArray:
    """Which texts match a regular expression."""
    return np.asarray(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False), dtype=bool)


def distinct(readings: Iterable[tuple[How, NDArray]]) -> list[tuple[How, NDArray]]:
    """Of ways to read texts, with the values: those that suit all, each with values of its own."""
    kept: list[tuple[How, NDArray]] = []
    for how, values in readings:
        if np.isfinite(values).all() and not any(np.array_equal(values, other) for _, other in kept):
            kept.append((how, values))
    return kept


def as_stated(how: Numbers | Dates, decimal: str) -> dict[str, Any]:
    """A way of writing as data.numbers or data.dates says it. `decimal` is the file's."""
    told = how.model_dump(mode="json", exclude_defaults=True)
    for key in ("unit", "format"):
        if len(told.get(key, "")) == 1:
            told[key] = told[key][0]
    if told.get("decimal") == decimal:
        del told["decimal"]
    if isinstance(how, Dates) and any("%y" in one for one in how.formats):
        told["pivot"] = how.pivot
    return told


def booleans(texts: Any, stated: bool) -> NDArray:
    """1 or 0 of each text; NaN for other words. `stated`: short forms and digits too."""
    lower = [text.lower() for text in texts.to_pylist()]
    if stated:
        known = {**dict.fromkeys(FALSE, 0.0), **dict.fromkeys(TRUE, 1.0)}
    else:
        pair = next((pair for pair in PAIRS if {*lower} <= {*pair}), ())
        known = {word: float(place) for place, word in enumerate(pair)}
    return np.array([known.get(word, np.nan) for word in lower])
