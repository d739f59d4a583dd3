"""Which rows train, validate and test: every way that data.split knows, and what is refused with its line.

Every row is in exactly one part, by its number and the split's seed alone. Rows that must stay together are dealt
as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from backends.draws import SPLIT, raw_words
from pipelines.data.columns import PARTS, DataError, NDArray, Source, Target
from pipelines.spec import DataSpec, Split
from pipelines.spec.describe import nearest
from pipelines.spec.file import flow

Rows = dict[str, NDArray]  # part -> row numbers in drawn order, int64
TRAIN, VALID, TEST = range(3)
NAMED = 5  # classes that a message names
DRAWS = 64  # orders of the groups that are tried at most
SIGNS = "+#*%$€£&@<>=^~!?"  # another sign is another name
NEAR = 0.001  # of the rows: near enough to try no further
SPELLINGS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("valid", "validation", "val", "dev"), VALID),
    "test": TEST,
}


@dataclass(frozen=True)
class SplitResult:
    """Row numbers by part: of each fold, or the one division that there is without folds. And how many rows are equal."""

    folds: tuple[Rows, ...]
    duplicates: dict[str, int]


def split_columns(spec: Split) -> dict[str, str]:
    """Columns that only say who is in which part, and how."""
    ways = {
        spec.group: "its groups stay in one part (data.split.group)",
        spec.part: "it says the part (data.split.part)",
        spec.time: "it orders the rows (data.split.time)",
    }
    return {name: how for name, how in ways.items() if name}


def no_inputs(spec: DataSpec) -> dict[str, str]:
    """Columns that the spec keeps from being inputs, and what they do."""
    return {**split_columns(spec.split), **({spec.weight: "it says how much a row counts (data.weight)"} if spec.weight else {})}


def inputs_of(source: Source, spec: DataSpec) -> list[str]:
    """The columns that become inputs. Raises DataError if there are none."""
    names = [name for name in source.inputs if name not in no_inputs(spec)]
    if not names:
        raise DataError(f"{source.name}: there must be a column to predict from, found none beside {', '.join(source.kinds)}")
    return names


def split_rows(source: Source, target: Target, spec: Split, weight: str | None = None) -> SplitResult:
    """Rows that differ in `weight` alone are equal. Raises DataError for empty parts, and classes that cannot be learned."""
    check_columns(source, spec)
    by = split_columns(spec)
    used = [name for name, kind in source.kinds.items() if name in by or (kind != "ignore" and name != weight)]
    first = equal_rows(source, used)
    splitter = Splitter(source, target, spec, first)
    part = splitter.parts()
    _refuse_empty(source.name, np.bincount(part, minlength=3), PARTS)
    numbers = [part] if spec.folds is None else splitter.folds(part)
    order = splitter.order
    folds = tuple({name: order[number[order] == place] for place, name in enumerate(PARTS)} for number in numbers)
    for rows in folds:
        if target.classes:
            check_training_classes(source, target, rows["train"], splitter.by_chance)
    return SplitResult(folds, count_duplicates(first, part))


class Splitter:
    """Deals out the rows of a source. `first` (n,): the first row that equals each row."""

    def __init__(self, source: Source, target: Target, spec: Split, first: NDArray) -> None:
        self.source, self.spec, each = source, spec, np.arange(source.rows)
        self.order = drawn_order(source.rows, spec.seed)
        self.together = first if spec.duplicates == "together" else each
        self.fractions = (spec.train, spec.valid, spec.test)
        self.by_chance = source.part is None and not split_columns(spec)
        if spec.stratify is True and not target.classes:
            raise DataError(f"{source.name}: data.split.stratify must be auto or false for a regression target, got true")
        stratified = not split_columns(spec) and target.classes and spec.stratify is not False
        self.strata = target.y if stratified else np.zeros_like(each)  # classes to be shared out evenly
        if stratified and source.part is None:
            numbers = source.kinds[target.names[0]] == "numeric"
            check_strata(source.name, target.classes, self.strata[self.together == each], (spec.folds or 2) + 1, numbers)

    def parts(self) -> NDArray:
        """The part of each row, (n,)."""
        source, spec = self.source, self.spec
        if spec.part:
            return parts_of_column(source, spec.part)
        if spec.time:
            return deal_in_order(_times(source, spec.time), self.fractions)
        if source.part is None:
            return self._dealt(np.full(source.rows, -1), self.fractions)
        return self._dealt(source.part.astype(np.int64), self.fractions[:2])  # to training and validation

    def _dealt(self, part: NDArray, fractions: Sequence[float]) -> NDArray:
        """`part` (n,), where rows that it leaves open, -1, are dealt out."""
        rows = self.order[part[self.order] < 0]
        if not len(rows):
            return part
        if self.spec.group:
            groups = np.unique(_complete(self.source, self.spec.group, "group")[rows], return_inverse=True)[1]
            part[rows] = deal_groups(groups, fractions, self.spec.seed)
            return part
        first = self.together
        if len(rows) < len(part):  # the first of equal ones may not be among them
            some, first = np.sort(rows), first.copy()
            _, place, inverse = np.unique(first[some], return_index=True, return_inverse=True)
            first[some] = some[place[inverse]]
        part[rows] = deal(rows, fractions, self.strata, first)
        return part

    def folds(self, part: NDArray) -> list[NDArray]:
        """The part of each row in each fold, of which its own rows validate and the others train."""
        folds = self.spec.folds or 0
        fold = self._dealt(np.where(part == TEST, folds, -1), [1.0] * folds)
        _refuse_empty(self.source.name, np.bincount(fold, minlength=folds)[:folds], [f"fold {i + 1}" for i in range(folds)])
        return [np.where(fold == folds, TEST, np.where(fold == number, VALID, TRAIN)) for number in range(folds)]


# -- columns that say who is in which part --


def check_columns(source: Source, spec: Split) -> None:
    """Raises DataError for a column of data.split that there is not, or that is the target."""
    for key in ("group", "time", "part"):
        name = getattr(spec, key)
        if name and name not in source.kinds:
            hint = nearest(name, list(source.kinds))
            raise DataError(f"{source.name}: data.split.{key} must name a column, found none of the name {name!r}; {hint}")
        if name and name in source.targets:
            raise DataError(f"{source.name}: data.split.{key} must name another column than the target, got {name!r}")


def parts_of_column(source: Source, name: str) -> NDArray:
    """The part that a column says, (n,)."""
    column, must = source.fetch(name), f"column {name!r} must say train, valid or test (data.split.part)"
    if not column.categories and source.kinds[name] != "ignore":
        raise DataError(f"{source.name}: {must}, found {source.kinds[name]}")
    known = np.array([*(SPELLINGS.get(text.strip().lower(), -1) for text in column.categories), -1])
    part = known[column.values]
    if (part < 0).any():
        row = int(np.argmax(part < 0))
        place = column.values[row]
        found = "no value" if place < 0 else repr(column.categories[place])
        raise DataError(f"{source.line(row)}: {must}, found {found}")
    return part


def _times(source: Source, name: str) -> NDArray:
    kind = source.kinds[name]
    if kind not in ("numeric", "datetime"):
        others = [other for other, kind in source.kinds.items() if kind == "datetime" and other not in source.targets]
        way_out = f"columns of dates are: {', '.join(others)}" if others else "give the dates as 2024-05-31, or split otherwise"
        raise DataError(
            f"{source.name}: data.split.time must name a column of dates or numbers, found {name!r} to be "
            f"{'ignored' if kind == 'ignore' else kind}; {way_out}"
        )
    return _complete(source, name, "time")


def _complete(source: Source, name: str, key: str) -> NDArray:
    column = source.fetch(name)
    if column.gaps.any():
        line = source.line(int(np.argmax(column.gaps)))
        raise DataError(f"{line}: column {name!r} must have a value in every row (data.split.{key}), found none here")
    return column.values


def row_weights(source: Source, spec: DataSpec, rows: NDArray) -> NDArray:
    """What data.weight says of these training rows, (n,) float64. Raises DataError for less than 0, and 0 alone."""
    name = spec.weight or ""
    must = f"column {name!r} must hold a number of at least 0 in every training row, and not 0 in all of them (data.weight)"
    column, kind = source.fetch(name).of(rows), source.kinds[name]
    others = f"set data.weight: null and data.columns: {flow({name: 'ignore'})}"
    if kind != "numeric":
        raise DataError(f"{source.name}: {must}, found it to be {kind}; {others}")
    wrong = column.gaps | ~(column.values >= 0) | (not column.values.any())
    if wrong.any():
        place = int(np.argmax(wrong))
        found = "no value" if column.gaps[place] else f"{column.values[place]:g}"
        texts = np.unique(source.texts(name).of(rows[wrong]).labels) if source.texts and not wrong.all() else ()
        if 0 < len(texts) <= NAMED and spec.missing.markers == ("",):
            out = flow({name: dict.fromkeys(map(str, texts), "0")})
            others = f"to have them count nothing set data.spellings: {out}; else {others}"
        raise DataError(f"{source.line(int(rows[place]))}: {must}, found {found}; {others}")
    return column.values.astype(np.float64)


# -- checks --


def _refuse_empty(source: str, counts: NDArray, names: Sequence[str]) -> None:
    if not counts.all():
        found = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
        raise DataError(f"{source}: each of the {len(names)} parts needs a row, got {counts.sum()} in all: {found}")


def check_strata(source: str, classes: Sequence[str], y: NDArray, parts: int, numbers: bool = False) -> None:
    """Raises DataError if a class has too few rows. y: the classes of different rows.

    `numbers`: the classes are numbers, which may be amounts.
    """
    counts = dict(zip(classes, np.bincount(y, minlength=len(classes)).tolist(), strict=True))
    short = [name for name, count in counts.items() if count < parts]
    if short:
        each = "one a part" if parts == len(PARTS) else "one a fold and one to test"
        told = []
        for name in short[:NAMED]:
            other = similar_label(name, counts)
            told.append(f"{name!r} has {counts[name]}" + (f" (another spelling of {other!r}?)" if other else ""))
        more = f", and {len(short) - NAMED} more classes have too few" if len(short) > NAMED else ""
        must = f"each class must have at least {parts} different rows for a stratified split, {each}"
        ways = "add rows, join rare classes with data.spellings, or set data.split.stratify: false"
        amounts = "if they are amounts set data.task: regression; else " if numbers else ""
        raise DataError(f"{source}: {must}, but class {', class '.join(told)}{more}; {amounts}{ways}")


def label_key(label: str) -> str:
    """Labels of one key may be spellings of one another: without case, blanks and marks.

    Numbers and codes stay apart, and so do names that differ by a sign: C, C# and C++; A+ and A-.
    """
    if any(letter.isdigit() for letter in label):
        return label.casefold()
    key = "".join(letter for letter in label.casefold() if letter.isalnum() or letter in SIGNS)
    return f"{key}-" if key and label.rstrip().endswith("-") else key


def similar_label(label: str, rows: Mapping[str, int]) -> str:
    """The most frequent label that this one may be a spelling of, by a letter too; "" if there is none."""
    key = label_key(label)
    more = sorted((other for other in rows if rows[other] > rows.get(label, 0)), key=lambda other: -rows[other])
    same = [other for other in more if key and label_key(other) == key]
    letters = [other for other in more if key.isalpha() and label_key(other).isalpha() and abs(len(other) - len(label)) < 2]
    return next(iter(same or get_close_matches(label, letters, 1, 0.75)), "")


def check_training_classes(source: Source, target: Target, train: NDArray, by_chance: bool) -> None:
    """Raises DataError if a class has no training row; it may be another spelling."""
    counts, where = target.counts(train), source.name
    absent = [name for name in counts if not counts[name]]
    if absent:
        way_out = "split the rows otherwise (data.split), or take the class out"
        if by_chance:
            way_out = "set data.split.stratify: true, or choose another data.split.seed"
        known = {_bare(name): name for name in counts if counts[name]}
        like = {name: known[_bare(name)] for name in absent if _bare(name) in known}
        if like:
            first = target.classes.index(next(iter(like)))
            where = source.line(int(np.argmax(target.y == first)))
            joined = ", ".join(f'"{name}": "{other}"' for name, other in like.items())
            way_out = f"if it is another spelling set data.spellings: {{{target.names[0]}: {{{joined}}}}}"
        told = ", class ".join(map(repr, absent[:NAMED]))
        raise DataError(f"{where}: every class must have training rows, but class {told} has none; {way_out}")


def _bare(label: str) -> str:
    return "".join(label.casefold().split()).strip(".")


# -- equal rows --


def equal_rows(source: Source, columns: Iterable[str]) -> NDArray:
    """The first row that equals each row in these columns, (n,) int64."""
    rows, group = np.arange(source.rows), np.zeros(source.rows, dtype=np.int64)
    for name in columns:
        values, value = np.unique(source.fetch(name).values[rows], return_inverse=True)
        group = np.unique(group * len(values) + value, return_inverse=True)[1]
        repeated = (np.bincount(group) > 1)[group]
        rows, group = rows[repeated], group[repeated]  # only rows that are equal so far can be
    first = np.arange(source.rows)
    _, place, group = np.unique(group, return_index=True, return_inverse=True)
    first[rows] = rows[place[group]]
    return first


def count_duplicates(first: NDArray, part: NDArray) -> dict[str, int]:
    """ "rows" that equal an earlier one; "across": rows that equal a row of another part."""
    torn = np.zeros(len(first), dtype=bool)
    torn[first[part != part[first]]] = True
    return {"rows": int((first != np.arange(len(first))).sum()), "across": int(torn[first].sum())}


# -- dealing --


def drawn_order(rows: int, seed: int) -> NDArray:
    """All row numbers in the order that the seed draws, (rows,) int64."""
    return np.argsort(raw_words(seed, SPLIT, 0, rows), kind="stable")


def deal(order: NDArray, fractions: Sequence[float], strata: NDArray, first: NDArray) -> NDArray:
    """The part, from 0, of each row of `order`, (len(order),): as near to the fractions as can be.

    `strata` (n,) are classes to be shared out evenly, `first` (n,) the first of the rows that each row is to stay with.
    """
    shares = share_out(np.bincount(strata[order]), fractions)
    sizes = np.bincount(first[order])  # an equal row may be none of them
    heads = order[first[order] == order]
    heads = heads[np.argsort(strata[heads], kind="stable")]  # class after class
    ends = np.cumsum(np.bincount(strata[heads], minlength=len(shares)))
    part = np.empty(len(first), dtype=np.int64)
    for share, units in zip(shares, np.split(heads, ends[:-1]), strict=True):
        part[units] = cut(sizes[units], share)
    return part[first[order]]


def cut(sizes: NDArray, share: Sequence[float] | NDArray) -> NDArray:
    """The part of each unit, (U,), where parts follow each other and are to have `share` rows: the nearest whole units.

    Each part has a unit, if there are enough.
    """
    parts = len(share)
    middles = np.cumsum(sizes) - np.asarray(sizes) / 2
    ends = np.searchsorted(middles, np.cumsum(share)[:-1])
    if len(sizes) >= parts:
        for place in range(parts - 1):
            ends[place] = max(ends[place], ends[place - 1] + 1 if place else 1)
        for place in reversed(range(parts - 1)):
            ends[place] = min(ends[place], (ends[place + 1] if place + 2 < parts else len(sizes)) - 1)
    return np.searchsorted(ends, np.arange(len(sizes)), side="right")


def deal_groups(groups: NDArray, fractions: Sequence[float], seed: int) -> NDArray:
    """The part of each row, (n,), where rows of a group stay together: the best of some drawn orders."""
    sizes = np.bincount(groups)
    wanted = np.asarray(fractions) / np.sum(fractions) * len(groups)
    best, least = np.zeros(len(sizes), dtype=np.int64), np.inf
    for draw in range(DRAWS):
        order = np.argsort(raw_words(seed, SPLIT, draw, len(sizes)), kind="stable")
        part = np.empty(len(sizes), dtype=np.int64)
        part[order] = cut(sizes[order], wanted)
        off = np.abs(np.bincount(part, sizes, minlength=len(wanted)) - wanted).max()
        if off < least:
            best, least = part, off
        if least <= max(1, NEAR * len(groups)):
            break
    return best[groups]


def deal_in_order(values: NDArray, fractions: Sequence[float]) -> NDArray:
    """The part of each row, (n,); later parts have larger values (n,), rows of one value one part."""
    _, moment, sizes = np.unique(values, return_inverse=True, return_counts=True)
    wanted = np.asarray(fractions) / np.sum(fractions) * len(values)
    return cut(sizes, wanted)[moment]


def share_out(counts: NDArray, fractions: Sequence[float]) -> NDArray:
    """Rows of each class for each part, (classes, parts), as near to the fractions as whole rows allow.

    A class with as many rows as there are parts has one in each.
    """
    parts = np.asarray(fractions, dtype=np.float64) / np.sum(fractions)
    shares, behind = [], np.zeros(len(parts))
    for count in counts:
        share = np.floor(count * parts + 1e-9).astype(np.int64)  # 0.7 · 30 is 20.999...
        behind += count * parts - share
        for _ in range(count - share.sum()):
            first = int(np.argmax(behind))  # the part that lags most behind
            share[first] += 1
            behind[first] -= 1
        while count >= len(parts) and not share.all():
            share[np.argmax(share)] -= 1
            share[np.argmin(share)] += 1
        shares.append(share)
    return np.array(shares)
