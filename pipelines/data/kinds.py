"""What a column holds: as `data.columns` says, else as all its cells look; and what is wrong with it, in words.

An exact name stands above a pattern, and of several patterns the last that fits. A column is numbers only if every cell is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from pipelines.data.dates import days
from pipelines.data.table import DataError, NDArray
from pipelines.data.words import LARGEST, Sorts, Words, Writing, booleans, numbers, sort, wide
from pipelines.spec.blocks import Kind
from pipelines.spec.describe import nearest

ID_LIKE = 0.9  # text of which so large a share differs says which row it is, not what the row is like
MANY_NUMBERS = 20  # a target with more different numbers, and most cells numbers, is no list of classes
NO_VALUE = ("nan", "null", "n/a", "#n/a", "?")  # in lower case: no name of a class, unless data.columns says categorical
NAMED = 5  # column names, or places, that a message lists
MIXED = 0.5  # from this share of numbers on, a column of numbers and words is more likely untidy numbers than categories


@dataclass(frozen=True)
class Judged:
    """A kind; `note` says why it is ignored; `problem` what must hold, with the place of the text that breaks it."""

    kind: Kind
    note: str = ""
    problem: str = ""
    breaks: int | None = None  # place in the texts of the first that breaks it
    odd: tuple[str, ...] = ()  # words among numbers, the most frequent first
    order: str = ""  # of days and months, as in dates.py


def stated_kinds(columns: Mapping[str, Kind], names: Sequence[str]) -> dict[str, Kind]:
    """column -> the kind that data.columns gives it. Raises DataError for a name or pattern that fits no column."""
    found: dict[str, Kind] = {}
    for pattern, kind in columns.items():
        fitting = [name for name in names if fnmatchcase(name, pattern) or name == pattern]
        if not fitting:
            raise DataError(
                f"data.columns must name columns, got {pattern!r}, which none is called; {nearest(pattern, [*names])}"
            )
        found.update(dict.fromkeys(fitting, kind))
    return {**found, **{name: columns[name] for name in names if name in columns}}


def check_names(shown: str, names: Sequence[str], unnamed: Sequence[str] = ()) -> None:
    """Raises DataError unless column names differ."""
    if len({*names}) == len(names):
        return
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names, 1):
        places.setdefault(name, []).append(place)
    twice = [f"{name!r} in columns {_listed(at)}" for name, at in places.items() if len(at) > 1]
    more = f", and {len(twice) - NAMED} more such names" if len(twice) > NAMED else ""
    raise DataError(f"{shown}: column names must differ, found {', '.join(twice[:NAMED])}{more}; rename them in the file")


def _listed(places: Sequence[int]) -> str:
    shown = [*map(str, places[:NAMED])]
    return f"{', '.join(shown)}, ..." if len(places) > NAMED else f"{', '.join(shown[:-1])} and {shown[-1]}"


def judge(name: str, found: Words, stated: Kind | None, look: bool, written: Writing, most: int) -> Judged:
    """A column of text under the kind that is stated, else under the one it looks like.

    `look`: text may turn out to be numbers. `most`: more categories than these may be an id.
    """
    if not len(found.texts) and stated is None:
        return Judged("ignore", "no cell holds a value")
    if stated in ("categorical", "ignore"):
        return Judged(stated)
    if stated is not None:
        return _stated(name, found, stated, written)
    return _looks(name, found, look, written, most)


def judge_target(name: str, found: Words, stated: Kind | None, look: bool, written: Writing, task: str) -> Judged:
    """A target is numbers if all its cells are, else classes."""
    if stated not in (None, "numeric", "categorical"):
        problem = f"column {name!r} is a target: data.columns must say numeric or categorical, or nothing, got {stated}"
        return Judged("categorical", problem=problem)
    if stated == "categorical" or not (look or stated):
        return Judged("categorical")
    sorts = sort(found.texts, written.decimal)
    if stated == "numeric" or (task == "regression" and (sorts.numbers | sorts.codes).any()):
        return _stated(name, found, "numeric", written)
    if sorts.numbers.all():
        return _wide(name, found, None) or Judged("numeric")
    if (sorts.numbers | sorts.endless).all():
        return _endless(name, sorts, found)
    if not sorts.codes.any() and sorts.numbers.sum() > MANY_NUMBERS and _share(found, sorts.numbers) >= MIXED:
        return _mixed(name, found, sorts.numbers, "numbers")
    return _other_decimal(name, found, sorts, written.decimal) or _no_class(name, found) or Judged("categorical")


def _no_class(name: str, found: Words) -> Judged | None:
    """A class that means no value."""
    odd = np.array([text.lower() in NO_VALUE for text in found.texts.to_pylist()], dtype=bool)
    if not odd.any():
        return None
    told = (
        f"target {name!r} must have a value in every row, found {{cell}}{_more(found, odd)}; take such rows out, or, if it is "
        f"the name of a class, set data.columns: {{{name}: categorical}}"
    )
    return Judged("categorical", problem=told, breaks=_first(found, odd), odd=_frequent(found, odd))


def values_of(kind: Kind, found: Words, written: Writing, stated: bool) -> NDArray:
    """float64 of each row: numeric, boolean or datetime."""
    return found.take(each_value(kind, found, written, stated), np.nan)


def each_value(kind: Kind, found: Words, written: Writing, stated: bool) -> NDArray:
    """float64 of each different text; not finite for what the kind does not allow."""
    if kind == "numeric":
        return numbers(found.texts, written.decimal)
    return days(found.texts, written.order(found.texts)) if kind == "datetime" else booleans(found.texts, stated)


def _stated(name: str, found: Words, stated: Kind, written: Writing) -> Judged:
    rule = {
        "numeric": "finite numbers",
        "datetime": "dates such as 2024-05-31 or 2024-05-31T12:30:00Z",
        "boolean": "true and false, yes and no, or 1 and 0",
    }[stated]
    order = written.order(found.texts) if stated == "datetime" else ""
    wrong = ~np.isfinite(each_value(stated, found, written, stated=True))
    if not wrong.any():
        return _unclear(name, found) if order == "unclear" else Judged(stated, order=order)
    way_out = _other_kind(name, found, stated, written, wrong)
    told = f"column {name!r} must hold {rule}, found {{cell}}{_more(found, wrong)}; {way_out}"
    return Judged(stated, problem=told, breaks=_first(found, wrong), odd=_frequent(found, wrong))


def _other_kind(name: str, found: Words, stated: Kind, written: Writing, wrong: NDArray) -> str:
    """The way out for a column that is not what is stated: what it looks like, if it is that in every cell."""
    looks = _looks(name, found, True, written, len(found.texts))
    if looks.kind not in (stated, "categorical") and not looks.problem:
        return f"it looks {looks.kind}: set data.columns: {{{name}: {looks.kind}}}"
    if _share(found, wrong) > MIXED and not looks.problem:
        return f"set data.columns: {{{name}: categorical}}, or ignore"
    return _ways_out(name)


def _looks(name: str, found: Words, look: bool, written: Writing, most: int) -> Judged:
    order = written.order(found.texts)
    sorts = sort(found.texts, written.decimal, order)
    if look and sorts.numbers.all():
        return _wide(name, found, most) or Judged("numeric")
    if look and sorts.endless.any() and (sorts.numbers | sorts.codes | sorts.endless).all() and not sorts.endless.all():
        return _endless(name, sorts, found)
    if sorts.dates.all():
        return _unclear(name, found) if order == "unclear" else Judged("datetime", order=order)
    if len(found.texts) <= 4 and not np.isnan(booleans(found.texts, stated=False)).any():
        return Judged("boolean")
    if look and (other := _other_decimal(name, found, sorts, written.decimal)):
        return other
    if look and not sorts.codes.any() and _share(found, sorts.numbers) >= MIXED:
        return _mixed(name, found, sorts.numbers, "numbers")
    if _share(found, sorts.dates) >= MIXED:
        return _mixed(name, found, sorts.dates, "dates", order)
    if _id_like(found, most):
        return Judged("ignore", f"{len(found.texts)} different texts in {_rows(found)} rows: it says which row it is")
    return Judged("categorical")


def _rows(found: Words) -> int:
    """Rows that hold a value."""
    return int(found.counts().sum())


def _id_like(found: Words, most: int) -> bool:
    return len(found.texts) > most and len(found.texts) >= ID_LIKE * _rows(found)


def _wide(name: str, found: Words, most: int | None) -> Judged | None:
    """Whole numbers of which float64 would lose digits: an id if nearly all differ, else a question. A target has no `most`."""
    chosen = wide(found.texts)
    if not chosen.any():
        return None
    if most is not None and _id_like(found, most):
        note = f"{len(found.texts)} different whole numbers in {_rows(found)} rows, some from 2^53 on: it says which row it is"
        return Judged("ignore", note)
    ignored = "ignore for an id, " if most is not None else ""
    told = (
        f"column {name!r} must hold whole numbers below 2^53 ({LARGEST + 1}), as larger ones lose digits, found {{cell}}"
        f"{_more(found, chosen)}; set data.columns: {{{name}: categorical}} for a code, {ignored}or numeric to have them rounded"
    )
    return Judged("numeric", problem=told, breaks=_first(found, chosen), odd=_frequent(found, chosen))


def _unclear(name: str, found: Words) -> Judged:
    """Dates that may be read in two ways."""
    chosen = np.isnan(days(found.texts))
    told = (
        f"column {name!r} must hold dates of which one can tell the day from the month, found {{cell}}{_more(found, chosen)}, "
        "and in no cell a number above 12; set data.format.dates: day_first or month_first"
    )
    return Judged("datetime", problem=told, breaks=_first(found, chosen), odd=_frequent(found, chosen))


def _other_decimal(name: str, found: Words, sorts: Sorts, decimal: str) -> Judged | None:
    """Numbers, if a comma were what a point is here, or the reverse."""
    other, spelled = ("," if decimal == "." else "."), {".": "point", ",": "comma"}
    numbers = sort(found.texts, other).numbers & ~sorts.numbers
    if not numbers.any() or _share(found, numbers | sorts.numbers) < MIXED:
        return None
    told = (
        f"column {name!r} must hold numbers with a decimal {spelled[decimal]}, found {{cell}}{_more(found, numbers)}; "
        f"set data.format.decimal: {spelled[other]}, or data.columns: {{{name}: categorical}}"
    )
    return Judged("numeric", problem=told, breaks=_first(found, numbers), odd=_frequent(found, numbers))


def _endless(name: str, sorts: Sorts, found: Words) -> Judged:
    told = (
        f"column {name!r} must hold finite numbers, found {{cell}}{_more(found, sorts.endless)}; add it to data.missing.markers "
        "if it means no value"
    )
    return Judged("numeric", problem=told, breaks=_first(found, sorts.endless), odd=_frequent(found, sorts.endless))


def _mixed(name: str, found: Words, fine: NDArray, what: str, order: str = "") -> Judged:
    counts = found.counts()
    how = {"day_first": " with the day first", "month_first": " with the month first"}.get(order, "")
    told = (
        f"column {name!r} must hold {what} or words, found {{cell}}, as {counts[~fine].sum()} of {counts.sum()} cells "
        f"are no {what}{how}; {_ways_out(name)}"
    )
    kind: Kind = "numeric" if what == "numbers" else "datetime"
    return Judged(kind, problem=told, breaks=_first(found, ~fine), odd=_frequent(found, ~fine))


def _ways_out(name: str) -> str:
    return f"if that means no value, add it to data.missing.markers; else set data.columns: {{{name}: categorical}}"


def _share(found: Words, chosen: NDArray) -> float:
    counts = found.counts()
    return float(counts[chosen].sum() / max(1, counts.sum()))


def _first(found: Words, chosen: NDArray) -> int:
    """Which of the chosen texts stands in the first row."""
    codes = found.codes[found.codes >= 0]
    return int(codes[np.argmax(chosen[codes])])


def _frequent(found: Words, chosen: NDArray, most: int = 5) -> tuple[str, ...]:
    counts = np.where(chosen, found.counts(), 0)
    order = np.argsort(-counts, kind="stable")[:most]
    return tuple(found.texts[int(place)].as_py() for place in order if counts[place])


def _more(found: Words, chosen: NDArray) -> str:
    count = int(found.counts()[chosen].sum()) - 1
    return f" (and {count} more such cells)" if count else ""
