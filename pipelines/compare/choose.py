"""Which runs are meant: by name, as the trials of a study, or by an expression: `activation = relu and best_val_loss < 0.1`.

Two values that are numbers are compared as numbers, whatever the store keeps them as; MLflow's own filters compare params
as text, where 1e-3 is not 0.001 and 9 > 10. `~` means "contains", whatever the case. A run without the key is like no value:
only `!=` is true of it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.compare.keys import TIMES, Key, Keys, QueryError, alike, number
from pipelines.spec.describe import nearest
from pipelines.tracking.events import KIND, STUDY
from pipelines.tracking.query import Recorded, begins, meant, recorded
from pipelines.tracking.store import LookupFailed

if TYPE_CHECKING:
    from pipelines.spec import Tracking

WORD, QUOTED = r"[^\s=<>!~(),\"'`]+", r"\"[^\"]*\"|'[^']*'|`[^`]*`"
TERM = re.compile(rf"\s*({WORD}|{QUOTED})\s*(<=|>=|!=|==|[=<>~])\s*({WORD}|{QUOTED})\s*")
AND = re.compile(r"and\s", re.IGNORECASE)
ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def choose(
    tracking: Tracking, project: Path, *, study: str | None = None, where: str | None = None, children: bool = False
) -> list[Recorded]:
    """Runs of the project's experiment, newest first: without the trials of studies, with `children` these too, or of `study`.

    `study` is its name (the newest of that name), or its run's id. Raises QueryError for a study that there is not and an
    expression that cannot be meant, TrackingError if the store fails.
    """
    if study is None:
        runs = recorded(tracking, project, children=children)
    else:
        runs = recorded(tracking, project, parent=study_of(recorded(tracking, project), study).id)
    return runs if where is None else matching(runs, parse(where, Keys(runs)))


def study_of(runs: Sequence[Recorded], text: str) -> Recorded:
    """The run of a study, by its name or its id."""
    studies = [run for run in runs if run.tags.get(KIND) == "study"]
    for means in (lambda run: run.tags.get(STUDY) == text or run.id == text, lambda run: begins(run.id, text)):
        if found := [run for run in studies if means(run)]:
            return found[0]
    names = list(dict.fromkeys(run.tags.get(STUDY, run.name) for run in studies))
    hint = nearest(text, names) if names else "there are none; `deltarule search` makes one"
    raise QueryError(f"no study {text!r} is on record; {hint}")


def pick(runs: Sequence[Recorded], texts: Sequence[str], project: Path) -> list[Recorded]:
    """The runs that are named, in that order, each as query.meant has it. Raises QueryError."""
    try:
        return list({run.id: run for run in (meant(runs, text, project) for text in texts)}.values())
    except LookupFailed as error:
        raise QueryError(str(error)) from None


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
