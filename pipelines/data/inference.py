"""What a column holds: as `data.columns` says, else as its cells look; and what is wrong with it, with the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

from pipelines.data.cells import as_stated, booleans, dates, distinct, matches, numbers
from pipelines.data.cells.numbers import LARGEST
from pipelines.data.columns import Column, DataError, InferredType, NDArray
from pipelines.spec.blocks import DataSpec, Dates, Kind, Numbers
from pipelines.spec.describe import nearest
from pipelines.spec.file import flow

ID_LIKE = 0.9  # share of values that differ, of an identifier
MANY_NUMBERS = 20  # a target with more different numbers is no list of classes
NOT_FINITE = r"(?i)^[+-]?(nan|inf|infinity)$"
# Digits in groups of three, by the mark before decimals; 0,405 are no thousands.
GROUPED = {"point": r"^[+-]?[1-9]\d{0,2}([, ']\d{3})+(\.\d*)?$", "comma": r"^[+-]?[1-9]\d{0,2}([. ']\d{3})+(,\d*)?$"}
NO_VALUE = ("na", "nan", "null", "nil", "n/a", "#n/a", "?", "-", "--", ".")  # in lower case: no name of a class
NAMED = 5  # column names, or places, that a message lists
WORDS = r"^[^\d_]*\p{L}{3,}[^\d_]*$|\p{L}{2,}\s+(\S+\s+)*\p{L}{2,}"  # words; ids have digits
MOST = 0.8  # of the cells look like amounts or dates
SOME = 0.05  # of the cells: no slip of the pen
MIXED = 0.5  # from this share on, numbers with words among them are untidy numbers
POINTED, WHOLE = r"^[+-]?[1-9]\d{0,2}\.\d{3}$", r"^[+-]?[1-9]\d{0,2}$"
Readings = list[tuple[Any, NDArray]]  # Numbers or Dates, and the values of the texts under them
RULES = {
    "numeric": "finite numbers",
    "datetime": "dates such as 2024-05-31 or 2024-05-31T12:30:00Z",
    "boolean": "true and false, yes and no, or 1 and 0",
}


class TypeMasks(NamedTuple):
    """Masks over the texts of a column. A code is a number with leading zeros."""

    numbers: NDArray
    codes: NDArray
    not_finite: NDArray  # nan, inf, and numbers beyond float64
    dates: NDArray


class TextColumn:
    """A column of text: stripped, spelled, and without what means no value.

    `codes` (rows,) int32 are places in `texts`, strings that differ; -1 is a missing value. The texts of `encoded` may repeat.
    `order` is a key of dates.PLAIN or auto; `typed`: text stays text; `how` are numbers written, `written` dates, if known.
    """

    def __init__(
        self, name: str, encoded: Any, block: DataSpec, order: str, typed: bool, how: Numbers | None, written: Dates
    ) -> None:
        self.name, self.stated_order, self.typed, self.how, self.written = name, order, typed, how, written
        self.decimal, spellings = block.format.decimal, block.spellings.get(name, {})
        texts = pc.utf8_trim_whitespace(encoded.dictionary)
        if spellings:
            place = pc.index_in(texts, pa.array(list(spellings), texts.type))
            texts = pc.coalesce(pa.array(list(spellings.values()), texts.type).take(place), texts)
        missing = pc.is_in(texts, pa.array(block.missing.markers, texts.type))
        joined = pc.if_else(missing, None, texts).dictionary_encode()
        codes, places = (part.indices.fill_null(-1).to_numpy(zero_copy_only=False) for part in (encoded, joined))
        self.codes: NDArray = np.append(places, np.int32(-1))[codes]
        self.texts = joined.dictionary
        self.markers, self.ways_out = block.missing.markers, ["ignore", "categorical"]

    @cached_property
    def counts(self) -> NDArray:
        """Rows of each text."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.texts))

    def share(self, chosen: NDArray) -> float:
        """Of the rows that hold a value, how many hold one of the chosen texts."""
        return float(self.counts[chosen].sum() / max(1, self.counts.sum()))

    @cached_property
    def order(self) -> str:
        """Of days and months in its dates."""
        return dates.order_of(self.texts) if self.stated_order == "auto" else self.stated_order

    # -- what it holds --

    def values(self, kind: Kind, stated: bool) -> NDArray:
        """float64 of each text; not finite for what the kind does not allow."""
        if kind == "numeric":
            return numbers.read(self.texts, self.how) if self.how else numbers.plain(self.texts, self.decimal)
        if kind == "datetime":
            return dates.read(self.texts, self.written) if self.written.formats else dates.plain(self.texts, self.order)
        return booleans(self.texts, stated)

    def column(self, kind: Kind, stated: bool) -> Column:
        """Its rows under a kind; as categories in order, where that is what they are."""
        if kind not in ("categorical", "ignore"):
            return Column(np.append(self.values(kind, stated), np.nan)[self.codes])
        order = pc.sort_indices(self.texts).to_numpy()
        place = np.empty(len(order) + 1, dtype=np.int32)
        place[order], place[-1] = np.arange(len(order)), -1
        return Column(place[self.codes], tuple(self.texts.take(order).to_pylist()))

    @cached_property
    def masks(self) -> TypeMasks:
        """What each of its texts is, looked at once."""
        values = numbers.plain(self.texts, self.decimal)
        codes = ~np.isnan(values) & matches(self.texts, numbers.CODE)
        not_finite = matches(self.texts, NOT_FINITE) | np.isinf(values)
        moments = ~np.isnan(dates.plain(self.texts, self.order))
        return TypeMasks(np.isfinite(values) & ~codes, codes & ~not_finite, not_finite, moments)

    def input(self, stated: Kind | None, most: int) -> InferredType:
        """Under the kind that is stated, else as it looks. More categories than `most` may be an id."""
        if not len(self.texts) and stated is None:
            return InferredType("ignore", "no cell holds a value")
        return self._looks(most, not self.typed) if stated is None else self.as_stated(stated)

    def target(self, stated: Kind | None, task: str) -> InferredType:
        """A target is numbers if all its cells are, else classes."""
        self.ways_out = ["categorical"]
        if stated not in (None, "numeric", "categorical"):
            must = f"data.columns must say numeric or categorical, or nothing, got {stated}"
            return InferredType("categorical", problem=f"column {self.name!r} is a target: {must}")
        if stated == "categorical":
            return InferredType("categorical")
        if self.typed and not stated:
            return self._classes()
        masks = self.masks
        if stated == "numeric" or (task == "regression" and (masks.numbers | masks.codes).any()):
            return self.as_stated("numeric")
        if masks.numbers.all():
            return self._numbers(None)
        many = len(self.texts) > MANY_NUMBERS  # 5% and 10% may be names of classes
        if (masks.numbers | masks.not_finite).all():
            return self._not_finite()
        if not masks.codes.any() and masks.numbers.sum() > MANY_NUMBERS and self.share(masks.numbers) >= MIXED:
            return self._mixed("numeric", masks.numbers)
        if other := (self._otherwise_written() or self._unread()) if many else self._other_decimal():
            return other
        return self._classes()

    def _classes(self) -> InferredType:
        """Classes, unless some mean no value."""
        odd = np.array([text.lower() in NO_VALUE for text in self.texts.to_pylist()], dtype=bool)
        if not odd.any():
            return InferredType("categorical")
        return self._refused("categorical", "have a value in every row", odd, self._no_value(odd), what="target")

    def _no_value(self, odd: NDArray) -> str:
        """The way out if these texts mean no value; of a target they may be classes."""
        markers = flow([*self.markers, *self.texts.filter(pa.array(odd)).to_pylist()])
        told = f"if it means no value set data.missing.markers: {markers}"
        if "ignore" in self.ways_out:
            return told
        return f"{told} and data.missing.target: drop; if it is the name of a class, {self._set_kind('categorical')}"

    def as_stated(self, stated: Kind) -> InferredType:
        """Under a kind of numbers, dates or truth values."""
        plain = not (self.how if stated == "numeric" else self.written.formats)
        order = self.order if stated == "datetime" and plain else ""
        wrong = ~np.isfinite(self.values(stated, stated=True))
        if not wrong.any():
            how = self.how if stated == "numeric" else None
            return self._unclear() if order == "unclear" else InferredType(stated, order=order, numbers=how)
        others = {"numeric": self._otherwise_written, "datetime": self._other_dates}
        if plain and stated in others and (other := others[stated]()):
            return other
        rule = f"hold {RULES[stated]}"
        if stated == "datetime" and not plain:
            rule = f"hold dates written as {', '.join(self.written.formats)}"
        return self._refused(stated, rule, wrong, self._other_kind(stated, wrong))

    def _looks(self, most: int, look: bool) -> InferredType:
        """`look`: also at what may be numbers."""
        masks = self.masks
        if look and masks.numbers.all():
            return self._numbers(most)
        some_not_finite = masks.not_finite.any() and not masks.not_finite.all()
        if look and some_not_finite and (masks.numbers | masks.codes | masks.not_finite).all():
            return self._not_finite()
        if masks.dates.all():
            return self._unclear() if self.order == "unclear" else InferredType("datetime", order=self.order)
        if len(self.texts) <= 4 and not np.isnan(self.values("boolean", stated=False)).any():
            return InferredType("boolean")
        other = self._other_dates() or self._otherwise_written()
        # Typed text may be dates, or amounts with marks; plain digits are text.
        if other and (look or other.kind == "datetime"):
            return other
        if other and other.numbers and as_stated(other.numbers, self.decimal):
            return other
        if self.share(masks.dates) < MIXED and (unread := self._unread()):
            return unread
        if look and not masks.codes.any() and self.share(masks.numbers) >= MIXED:
            return self._mixed("numeric", masks.numbers)
        if self.share(masks.dates) >= MIXED:
            return self._mixed("datetime", masks.dates)
        if self._like_an_id(most):
            prose = f"free text: {len(self.texts)} different texts in {self.counts.sum()} rows"
            words = self.share(matches(self.texts, WORDS)) >= MIXED
            return InferredType("ignore", prose if words else self._many("texts"))
        return InferredType("categorical")

    # -- what is wrong with it --

    def _refused(
        self, kind: Kind, rule: str, wrong: NDArray, way_out: str, about: str = "", what: str = "column", count: bool = True
    ) -> InferredType:
        """`wrong` are the texts that break the rule; `about` says more of them."""
        counts = np.where(wrong, self.counts, 0)
        more = f" (and {counts.sum() - 1} more such cells)" if count and counts.sum() > 1 else ""
        row = self._first_row(wrong)
        found = self.texts[int(self.codes[row])].as_py()
        often = np.argsort(-counts, kind="stable")[:NAMED]
        return InferredType(
            kind,
            problem=f"{what} {self.name!r} must {rule}, found {found!r}{more}{about}; {way_out}",
            row=row,
            odd=tuple(self.texts[int(place)].as_py() for place in often if counts[place]),
        )

    def _first_row(self, chosen: NDArray) -> int:
        """Of those that hold one of the chosen texts."""
        return int(np.argmax(np.append(chosen, False)[self.codes]))

    def _set_kind(self, kind: str) -> str:
        return f"set data.columns: {flow({self.name: kind})}"

    def _other_kind(self, stated: Kind, wrong: NDArray) -> str:
        """The way out for a column that is not what is stated: what it looks like."""
        looks = self._looks(len(self.texts), look=True)
        if looks.problem:
            return looks.problem.partition("; ")[2]
        if looks.kind not in (stated, "categorical"):
            return f"it looks {looks.kind}: {self._set_kind(looks.kind)}"
        if self.share(wrong) > MIXED:
            return f"{self._set_kind('categorical')}, or ignore"
        return self._marker_or_category()

    def _marker_or_category(self) -> str:
        return f"if that means no value, add it to data.missing.markers; else {self._set_kind('categorical')}"

    def _numbers(self, most: int | None) -> InferredType:
        """Numbers, unless there is a doubt about them. A target has no `most`."""
        wide = numbers.wide(self.texts)
        if most is not None and matches(self.texts, dates.WHOLE).all():
            every = np.ones(len(self.texts), dtype=bool)
            return self._ask_unread("datetime", every, ["ignore", "numeric"])
        return self._wide(wide, most) if wide.any() else self._thousands() or InferredType("numeric")

    def _wide(self, wide: NDArray, most: int | None) -> InferredType:
        """Numbers that lose digits: an id if nearly all differ, else refused."""
        if most is not None and self._like_an_id(most):
            return InferredType("ignore", self._many("whole numbers", ", some from 2^53 on"))
        rule = f"hold whole numbers below 2^53 ({LARGEST + 1}), as larger ones lose digits"
        ignored = "ignore for an id, " if most is not None else ""
        way_out = f"{self._set_kind('categorical')} for a code, {ignored}or numeric to have them rounded"
        return self._refused("numeric", rule, wide, way_out)

    def _like_an_id(self, most: int) -> bool:
        return len(self.texts) > most and len(self.texts) >= ID_LIKE * self.counts.sum()

    def _many(self, what: str, about: str = "") -> str:
        return f"{len(self.texts)} different {what} in {self.counts.sum()} rows{about}: looks like an identifier"

    def _unclear(self) -> InferredType:
        """Dates that may be read in two ways."""
        return self._refused(
            "datetime",
            "hold dates of which one can tell the day from the month",
            np.isnan(dates.plain(self.texts)),
            "set data.format.dates: day_first or month_first",
            ", and in no cell a number above 12",
        )

    def _not_finite(self) -> InferredType:
        odd = self.masks.not_finite
        return self._refused("numeric", "hold finite numbers", odd, self._no_value(odd))

    def _mixed(self, kind: Kind, fine: NDArray) -> InferredType:
        what = "numbers" if kind == "numeric" else "dates"
        orders = {"day_first": " with the day first", "month_first": " with the month first"}
        how = orders.get(self.order, "") if kind == "datetime" else ""
        counts = self.counts
        about = f", as {counts[~fine].sum()} of {counts.sum()} cells are no {what}{how}"
        return self._refused(kind, f"hold {what} or words", ~fine, self._marker_or_category(), about, count=False)

    def _otherwise_written(self) -> InferredType | None:
        """Numbers with marks, signs or units; None if they are none."""
        texts, masks = self.texts, self.masks
        if masks.codes.any():
            return None
        if other := self._other_decimal():
            return other
        some = numbers.shaped(texts)
        amounts = int(some.sum())
        if self.share(some) < MIXED or (amounts < len(texts) and amounts <= MANY_NUMBERS):
            return None
        found = numbers.find(texts.filter(pa.array(some)), self.decimal, self.name)
        if not found or not (amounts == len(texts) or masks.numbers.sum() < amounts):
            return None
        if amounts < len(texts):
            return self._mixed("numeric", some)
        return self._as_found(found)

    def _unread(self) -> InferredType | None:
        """Amounts or dates that are not read; None if they are none, or few."""
        if 2 * len(self.texts) <= min(self.counts.sum(), 2 * MANY_NUMBERS):
            return None
        moments = matches(self.texts, dates.LIKE)
        if self.share(moments) >= MOST:
            return self._ask_unread("datetime", moments, self.ways_out)
        plain = self.masks.numbers
        some = numbers.unread(self.texts, self.counts, plain)
        if self.share(some) < MOST or self.share(some & ~plain) < SOME:
            return None
        return self._ask_unread("numeric", some & ~plain, self.ways_out)

    def _ask_unread(self, kind: Kind, some: NDArray, kinds: Sequence[str]) -> InferredType:
        """What `some` texts look like; a way of writing that reads all is named, else kinds."""
        ways: list[Any] = [Dates(format=one) for one in dates.ASKED]
        ways = [how for how in ways if np.isfinite(dates.read(self.texts, how)).all()]
        key, what = "dates", "dates"
        if kind == "numeric":
            key, what = "numbers", "amounts"
            ways = [how for how, _ in numbers.with_unit(self.texts, self.decimal)]
        said: list[tuple[str, Any]] = [(key, as_stated(how, self.decimal)) for how in ways]
        said += [("columns", one) for one in kinds]
        way_out = ", or ".join(f"set data.{key}: {flow({self.name: how})}" for key, how in said)
        return self._refused(kind, f"hold {key} or words", some, way_out, f", which look like {what} that are not read")

    def _thousands(self) -> InferredType | None:
        """Asked of 1.234 beside 734: decimals, or points between thousands?"""
        pointed, whole = matches(self.texts, POINTED), matches(self.texts, WHOLE)
        both = pointed.any() and whole.any() and (pointed | whole).all()
        if self.decimal == "comma" or not both:
            return None
        ways = (Numbers(decimal="point"), Numbers(thousands="point", decimal="comma"))
        return self._as_found([(how, numbers.read(self.texts, how)) for how in ways])

    def _other_decimal(self) -> InferredType | None:
        """Numbers with a comma where the file should have a point, or the reverse."""
        decimal, texts, fine = self.decimal, self.texts, self.masks.numbers
        other = "comma" if decimal == "point" else "point"
        wrong = np.isfinite(numbers.plain(texts, other)) & ~matches(texts, numbers.CODE) & ~fine
        if self.share(wrong | fine) < MIXED or matches(texts, GROUPED[decimal])[wrong].all():
            return None
        own = flow({self.name: {"decimal": other}})
        ways = f"set data.format.decimal: {other}, or of this column alone set data.numbers: {own}"
        way_out = f"{ways}, or {self._set_kind('categorical')}"
        return self._refused("numeric", f"hold numbers with a decimal {decimal}", wrong, way_out)

    def _other_dates(self) -> InferredType | None:
        """Dates that dates.PLAIN does not know; None if they are none."""
        if self.masks.numbers.any() or self.share(self.masks.dates) == 1:
            return None
        readings = list(dates.readings(self.texts, self.stated_order, self.written))
        fine = max((np.isfinite(values) for _, values in readings), key=np.count_nonzero)
        if self.share(fine) < MIXED:
            return None
        if not fine.all():
            return None if self.share(self.masks.dates) >= MIXED else self._mixed("datetime", fine)
        found = distinct(readings)
        if len(found) == 1:
            return InferredType("datetime", dates=found[0][0])
        rule = "hold dates that can be read in one way"
        return self._asked("datetime", rule, found[0][1] != found[1][1], found)

    def _as_found(self, found: Readings) -> InferredType:
        """Numbers, if they can be read in one way; else the ways are named."""
        how, values = found[0]
        asked = np.ones(len(self.texts), dtype=bool)
        if len(found) > 1:
            asked, rule = values != found[1][1], "hold numbers that can be read in one way"
        elif len({numbers.SIGNS.get(unit, unit) for unit in how.units}) > 1:
            rule = f"hold amounts of one unit, not of {', '.join(how.units)}"
        elif how.accounting and (values <= 0).all():
            rule = "hold numbers that are not all in brackets"
        elif (large := np.abs(values) > LARGEST).any():
            return self._wide(large, None)
        else:
            return InferredType("numeric", numbers=how)
        return self._asked("numeric", rule, asked, found)

    def _asked(self, kind: Kind, rule: str, asked: NDArray, found: Readings) -> InferredType:
        """Which of several readings of the texts `asked` is meant."""
        place = int(self.codes[self._first_row(asked)])
        key, told, ways = "numbers" if kind == "numeric" else "dates", list[str](), list[str]()
        for how, values in found:
            value = float(values[place])
            told.append(f"{value + 0.0:.15g}" if kind == "numeric" else str(np.datetime64(int(value), "D")))
            said = as_stated(how, self.decimal) or {"decimal": how.decimal}
            ways.append(f"for {told[-1]} set data.{key}: {flow({self.name: said})}")
        way_out = f"{'; '.join(ways)}; for words {self._set_kind('categorical')}"
        return self._refused(kind, rule, asked, way_out, f", which may mean {' or '.join(told)}")


Said = TypeVar("Said")


def stated(key: str, said: Mapping[str, Said], names: Sequence[str]) -> dict[str, Said]:
    """column -> what data.`key` says. Raises DataError for what fits no column."""
    found: dict[str, Said] = {}
    for pattern, value in said.items():
        fitting = [name for name in names if fnmatchcase(name, pattern) or name == pattern]
        if not fitting:
            hint = nearest(pattern, [*names])
            raise DataError(f"data.{key} must name columns, got {pattern!r}, which fits none; {hint}")
        found.update(dict.fromkeys(fitting, value))
    return {**found, **{name: said[name] for name in names if name in said}}


def stated_kinds(block: DataSpec, names: Sequence[str]) -> dict[str, Kind]:
    """column -> the kind that data.columns, else data.numbers or data.dates, gives it."""
    numeric: dict[str, Kind] = dict.fromkeys(stated("numbers", block.numbers, names), "numeric")
    moments: dict[str, Kind] = dict.fromkeys(stated("dates", block.dates, names), "datetime")
    return {**numeric, **moments, **stated("columns", block.columns, names)}
