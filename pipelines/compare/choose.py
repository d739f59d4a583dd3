"""Which runs are meant, and which of their values: by name, as the trials of a study, by an expression such as
`activation = relu and best_val_loss < 0.1`. A key is a param, metric or tag, or what the store itself knows of a run.

Two values that are numbers are compared as numbers, whatever the store keeps them as; MLflow's own filters compare params
as text, where 1e-3 is not 0.001 and 9 > 10. `~` means "contains", whatever the case. A run without the key is like no value:
only `!=` is true of it.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pipelines.spec.describe import nearest
from pipelines.tracking.events import KIND, STUDY, ungrouped
from pipelines.tracking.query import Recorded, begins, recorded, with_intervals

if TYPE_CHECKING:
    from pipelines.spec import Tracking

Value = str | float | None
Kind = Literal["run", "params", "metrics", "tags"]
OURS = "deltarule."  # before our tags; may be left out
TIMES = ("started", "ended")
SHORT = 8  # characters of an id that people see, and can give
NEAR = 3  # names that are offered for one that is unknown

# What the store knows of every run.
OWN: dict[str, Callable[[Recorded], Value]] = {
    "id": lambda run: run.id,
    "name": lambda run: run.name,
    "status": lambda run: run.status,
    "started": lambda run: run.started,
    "ended": lambda run: run.ended,
    "duration": lambda run: None if run.started is None or run.ended is None else run.ended - run.started,
}
# The words of an expression.
WORD, QUOTED = r"[^\s=<>!~(),\"'`]+", r"\"[^\"]*\"|'[^']*'|`[^`]*`"
TERM = re.compile(rf"\s*({WORD}|{QUOTED})\s*(<=|>=|!=|==|[=<>~])\s*({WORD}|{QUOTED})\s*")
AND = re.compile(r"and\s", re.IGNORECASE)
INTERVAL = re.compile(r"_(low|high)\b")  # what a metric is called that the reports alone hold
ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class QueryError(ValueError):
    """A key, an expression or a choice of runs that cannot be meant."""


@dataclass(frozen=True)
class Key:
    """Where a value stands in a run. `text` is what was asked for."""

    kind: Kind
    name: str
    text: str = ""

    def is_own(self, *names: str) -> bool:
        """Whether it is one of these, of what the store itself knows of a run."""
        return self.kind == "run" and self.name in names

    def of(self, run: Recorded) -> Value:
        """The value in a run: text, a number (of metrics and times), or None where the run has none."""
        if self.kind == "run":
            return OWN[self.name](run)
        held: Mapping[str, Value] = getattr(run, self.kind)
        return held.get(self.name)


class Keys:
    """The keys that some runs have between them."""

    def __init__(self, runs: Sequence[Recorded]) -> None:
        kinds: tuple[Kind, ...] = ("params", "metrics", "tags")
        stored = dict.fromkeys(Key(kind, name) for kind in kinds for run in runs for name in getattr(run, kind))
        self.whole = {f"{key.kind}.{key.name}": key for key in stored}
        for key in (*(Key("run", name) for name in OWN), *stored):
            self.whole.setdefault(key.name, key)
        self.params = [key.name for key in stored if key.kind == "params" and not key.name.startswith("search.")]

    def find(self, text: str) -> Key:
        """The key that `text` means; raises QueryError with the nearest names if it means none, or several.

        In this order: a whole name, of the run itself, its params, metrics, tags; a metric as MLflow shows it; the end of a
        param's path, if one ends so; a tag without its `deltarule.`. `params.`, `metrics.`, `tags.` before it say which kind.
        """
        paths = [name for name in self.params if name.endswith(f".{text}")]
        end = f"params.{paths[0]}" if len(paths) == 1 else ""
        for name in (text, f"metrics.{ungrouped(text.removeprefix('metrics.'))}", end, f"tags.{OURS}{text}"):
            if name in self.whole:
                return replace(self.whole[name], text=text)
        if paths:
            raise QueryError(f"the key {text} must mean one value, and may mean {', '.join(paths)}")
        words = {name: name for key in self.whole.values() for name in (key.name, key.name.removeprefix(OURS))}
        words |= {name.rpartition(".")[2]: name for name in self.params}
        near = dict.fromkeys(words[word] for word in get_close_matches(text, words, NEAR))
        hint = f"did you mean {' or '.join(near)}?" if near else "`deltarule runs --json` shows the keys of each run"
        raise QueryError(f"unknown key {text}: it must be a param, metric or tag of the runs on record; {hint}")


def number(value: Value) -> float | None:
    """A value as a number, if it says one: params and tags are text in the store."""
    if value is None or isinstance(value, float):
        return value
    try:
        return None if "_" in value else float(value)
    except ValueError:
        return None


def order(value: Value) -> tuple[int, float, str]:
    """Numbers first, then text."""
    known = number(value)
    return (1, 0.0, str(value)) if known is None or math.isnan(known) else (0, known, "")


def alike(one: Value, other: Value) -> bool:
    """Equal as numbers if both are numbers (1e-3 and 0.001), else as text."""
    first, second = number(one), number(other)
    return one == other if first is None or second is None else first == second


def choose(
    tracking: Tracking,
    project: Path,
    *,
    study: str | None = None,
    where: str | None = None,
    children: bool = False,
    keys: str = "",
) -> list[Recorded]:
    """Runs of the project's experiment, newest first: without trials of studies, with `children` these too, or of `study`.

    `study` is its name (the newest of that name), or its run's id. Raises QueryError for a study that there is not and an
    expression that cannot be meant, TrackingError if the store fails.
    """
    if study is None:
        runs = recorded(tracking, project, children=children)
    else:
        runs = recorded(tracking, project, parent=study_of(recorded(tracking, project), study).id)
    if where and INTERVAL.search(where):
        runs = with_intervals(tracking, project, runs)
    runs = runs if where is None else matching(runs, parse(where, Keys(runs)))
    return with_intervals(tracking, project, runs) if INTERVAL.search(keys) else runs


def study_of(runs: Sequence[Recorded], text: str) -> Recorded:
    """The run of a study, by its name or its id."""
    studies = [run for run in runs if run.tags.get(KIND) == "study"]
    for means in (lambda run: run.tags.get(STUDY) == text or run.id == text, lambda run: begins(run.id, text)):
        if found := [run for run in studies if means(run)]:
            return found[0]
    names = list(dict.fromkeys(run.tags.get(STUDY, run.name) for run in studies))
    hint = nearest(text, names) if names else "there are none; `deltarule search` makes one"
    raise QueryError(f"no study {text!r} is on record; {hint}")


class Term(NamedTuple):
    """One comparison of an expression."""

    key: Key
    sign: str
    value: str

    def is_true(self, run: Recorded) -> bool:
        """Of a run."""
        held = self.key.of(run)
        if self.sign == "~":
            return self.value.lower() in str(held or "").lower()
        if self.sign in ORDERS:
            own = number(held)
            return own is not None and bool(ORDERS[self.sign](own, float(self.value)))
        return alike(held, self.value) is (self.sign != "!=")


def matching(runs: Sequence[Recorded], terms: Sequence[Term]) -> list[Recorded]:
    """Those of which all terms are true, in their order."""
    return [run for run in runs if all(term.is_true(run) for term in terms)]


def parse(text: str, keys: Keys, option: str = "--where") -> list[Term]:
    """Read an expression: comparisons joined by `and`. Raises QueryError with the place where it cannot go on."""
    terms: list[Term] = []
    place = 0
    try:
        while True:
            found = TERM.match(text, place)
            if found is None:
                raise QueryError("expected KEY = VALUE, or one of != < <= > >= ~ in place of =")
            place = found.start(1)
            terms.append(_term(keys, *found.groups()))
            place = found.end()
            if place == len(text):
                return terms
            joint = AND.match(text, place)
            if joint is None:
                raise QueryError("expected `and` or the end: comparisons are joined by `and` alone")
            place = joint.end()
    except QueryError as error:
        raise QueryError(f"{option}: {error}, at character {place + 1}:\n  {text}\n  {' ' * place}^") from None


def _term(keys: Keys, name: str, sign: str, value: str) -> Term:
    """With the value as the store keeps it: a time is seconds since 1970, a status in capital letters."""
    name, value = (part[1:-1] if part[0] in "\"'`" else part for part in (name, value))
    key = keys.find(name)
    if key.is_own("status"):
        value = value.upper()
    if key.is_own(*TIMES) and sign != "~":
        try:
            value = str(datetime.fromisoformat(value).timestamp())
        except ValueError:
            raise QueryError(f'{key.name} must be compared with a date, 2026-11-24 or "2026-11-24 13:30", got {value}') from None
    if sign in ORDERS and number(value) is None:
        raise QueryError(f"{sign} must be followed by a number, got {value}")
    return Term(key, sign, value)
