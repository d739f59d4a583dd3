"""Two groups of runs, paired: a run of one with the run of the other that differs in nothing but what is compared.

That is: same seed, same rows (by their hashes), same params. What seed and split bring then falls out of the difference.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from pipelines.compare.choose import SHORT, Key, Keys, QueryError, alike, matching, number, order, parse
from pipelines.tracking.query import Recorded

# Of the params, what makes no other network.
BESIDE = ("search.", "tracking.", "thresholds", "validation.", "train.devices", "train.threads")
MOST = 12  # groups: 66 comparisons
SOME = 50  # runs without a partner of which it is looked up why
ROWS = ("deltarule.data.train", "deltarule.data.valid")
SOURCE = "deltarule.data"
FOLDS = "data.split.folds"
Id = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Grouping:
    """What is set against what: the values of a key, or two expressions; by which metrics; a margin given beforehand."""

    by: str | None = None
    one: str | None = None
    other: str | None = None
    metrics: tuple[str, ...] = ()
    margin: str | None = None  # a number, or METRIC=number for each of several
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Runs that are alike in what is compared. `label` is how sentences call them, `meaning` the expression that chose them."""

    label: str
    runs: tuple[Recorded, ...]
    meaning: str = ""

    def __str__(self) -> str:
        return f"{self.label}: {self.meaning}" if self.meaning else self.label


@dataclass(frozen=True)
class Pair:
    """Two runs, and what they share: the split, the seed, and all other params."""

    one: Recorded
    other: Recorded
    split: Id
    seed: str
    setting: Id


@dataclass(frozen=True)
class Pairing:
    """The pairs of two groups, and how many runs are in none, for what reason."""

    one: Group
    other: Group
    pairs: tuple[Pair, ...]
    left: Mapping[str, int]  # reason -> runs
    differ: tuple[str, ...]  # params that keep the runs without a partner from one, the most frequent first


def groups_of(runs: Sequence[Recorded], asked: Grouping, keys: Keys) -> tuple[list[Group], list[Key]]:
    """The groups, and the keys that tell them apart. Raises QueryError."""
    if asked.by is not None:
        key = keys.find(asked.by)
        return _groups_by(runs, key), [key]
    groups, known = [], dict[Key, None]()
    for option, text in (("--a", asked.one or ""), ("--b", asked.other or "")):
        terms = parse(text, keys, option)
        group = Group(option.strip("-"), tuple(matching(runs, terms)), text)
        if not group.runs:
            raise QueryError(f"{option}: {group.meaning} must be true of some run, and is true of none")
        groups.append(group)
        known.update(dict.fromkeys(term.key for term in terms))
    both = {run.id for run in groups[0].runs} & {run.id for run in groups[1].runs}
    if both:
        raise QueryError(f"--a and --b must have no run in common, and have {len(both)}, such as {min(both)[:SHORT]}")
    # Of the keys of the expressions, those whose values are not the same on both sides; the others only choose.
    return groups, [key for key in known if len({frozenset(key.of(run) for run in group.runs) for group in groups}) > 1]


def _groups_by(runs: Sequence[Recorded], key: Key) -> list[Group]:
    """A group for each value of a key, in the order of the values; 2 to 12."""
    values: dict[str, list[Recorded]] = {}
    for run in runs:
        value = key.of(run)
        if value is not None:
            label = next((known for known in values if alike(known, value)), str(value))
            values.setdefault(label, []).append(run)
    if not 2 <= len(values) <= MOST:
        got = ", ".join(list(values)[:5]) + (", ..." if len(values) > 5 else "")
        raise QueryError(
            f"--by {key.text} must split the {len(runs)} runs into 2 to {MOST} groups, got {len(values)}"
            f"{f' ({got})' if values else ''}; choose runs with --where"
        )
    return [Group(label, tuple(values[label])) for label in sorted(values, key=order)]


def pairing(one: Group, other: Group, compared: Sequence[Key], ignored: Sequence[Key], metric: str) -> Pairing:
    """Pair two groups by all but the compared and the ignored keys.

    Of runs that are the same in all, the newest counts.
    """
    left: Counter[str] = Counter()
    usable = [_usable(group, metric, left) for group in (one, other)]
    free = {key.name for key in (*compared, *ignored) if key.kind == "params"}
    # The hashes of the rows stand for all of the data's params, unless these are compared.
    rows = ROWS if not any(name.startswith("data.") for name in free) else ()
    # Params that one group alone has, beside a kind that is compared: sgd has a momentum, adam has beta1.
    blocks = tuple(key.name.removesuffix("name") for key in compared if key.name.endswith(".name"))
    first_names, second_names = ({name for run in runs for name in run.params} for runs in usable)
    free |= {name for name in first_names ^ second_names if name.startswith(blocks)}
    sides: list[dict[Id, Recorded]] = [{}, {}]
    for side, runs in zip(sides, usable, strict=True):
        for run in runs:  # newest first, as they come
            if side.setdefault(_identity(run, free, rows), run) is not run:
                left["repeated, the newest counts"] += 1
    first, second = sides
    pairs = [Pair(run, second[key], *_parts(key)) for key, run in first.items() if key in second]
    alone = [key for key in first if key not in second], [key for key in second if key not in first]
    if any(alone):
        left["without a partner"] = sum(map(len, alone))
    why = _why(alone[0], list(second)) + _why(alone[1], list(first))
    pairs.sort(key=lambda pair: (str(pair.split), number(pair.seed) or 0.0))
    return Pairing(one, other, tuple(pairs), dict(left), tuple(name for name, _ in why.most_common(3)))


def _usable(group: Group, metric: str, left: Counter[str]) -> list[Recorded]:
    found = []
    for run in group.runs:
        if run.status != "FINISHED":
            left[f"of {group.label} not finished"] += 1
        elif not math.isfinite(run.metrics.get(metric, math.nan)):
            left[f"of {group.label} without {metric}"] += 1
        else:
            found.append(run)
    return found


def _identity(run: Recorded, free: Set[str], rows: Sequence[str]) -> Id:
    """What must be equal in a pair."""
    found = {name: run.tags[name] for name in rows if name in run.tags}
    left_out = (*BESIDE, "data.") if found else BESIDE
    found |= {name: value for name, value in run.params.items() if name not in free and not name.startswith(left_out)}
    return tuple(sorted(found.items()))


def _parts(key: Id) -> tuple[Id, str, Id]:
    """Split, seed, setting."""
    split = tuple((name, value) for name, value in key if name.startswith(("data.", SOURCE)))
    seed = dict(key).get("seed", "")
    return split, seed, tuple(item for item in key if item not in split and item[0] != "seed")


def _why(alone: Sequence[Id], others: Sequence[Id]) -> Counter[str]:
    """In what each run without a partner differs from the nearest of the other side."""
    found: Counter[str] = Counter()
    for key in alone[:SOME]:
        differences = [{name for name, _ in {*key} ^ {*theirs}} for theirs in others[:SOME]]
        found.update(sorted(min(differences, key=len, default=())))
    return found
