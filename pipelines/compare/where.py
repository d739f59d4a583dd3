"""The language of --where: comparisons joined by `and`, such as `activation = relu and best_val_loss < 0.1`.

Two values that are numbers are compared as numbers, whatever the store keeps them as; MLflow's own filters compare params
as text, where 1e-3 is not 0.001 and 9 > 10. `~` means "contains", whatever the case. A run without the key is like no value:
only `!=` is true of it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipelines.compare.keys import TIMES, Key, Keys, QueryError, alike, number
from pipelines.tracking.query import Recorded

WORD, QUOTED = r"[^\s=<>!~(),\"'`]+", r"\"[^\"]*\"|'[^']*'|`[^`]*`"
COMPARISON = re.compile(rf"\s*(?P<key>{WORD}|{QUOTED})\s*(?P<sign><=|>=|!=|==|[=<>~])\s*(?P<value>{WORD}|{QUOTED})\s*")
AND = re.compile(r"and\s", re.IGNORECASE)
ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Where:
    """An expression: comparisons, each a key, a sign and a value."""

    text: str
    comparisons: tuple[tuple[Key, str, str], ...]

    @property
    def keys(self) -> tuple[Key, ...]:
        """What it asks for, each once."""
        return tuple(dict.fromkeys(key for key, _, _ in self.comparisons))

    def chosen(self, runs: Iterable[Recorded]) -> list[Recorded]:
        """Those of which it is true, in their order."""
        return [run for run in runs if all(_is_true(run, *one) for one in self.comparisons)]


def parse(text: str, keys: Keys, option: str = "--where") -> Where:
    """Read an expression. Raises QueryError with the place where it cannot go on."""
    found, place = [], 0
    while True:
        one = COMPARISON.match(text, place)
        if one is None:
            raise _error(option, text, place, "expected KEY = VALUE, or one of != < <= > >= ~ in place of =")
        try:
            key = keys.find(_bare(one["key"]))
            found.append((key, one["sign"], _value(key, one["sign"], _bare(one["value"]))))
        except QueryError as error:
            raise _error(option, text, one.start("key"), str(error)) from None
        place = one.end()
        if place == len(text):
            return Where(text, tuple(found))
        joint = AND.match(text, place)
        if joint is None:
            raise _error(option, text, place, "expected `and` or the end: comparisons are joined by `and` alone")
        place = joint.end()


def _bare(text: str) -> str:
    return text[1:-1] if text[0] in "\"'`" else text


def _error(option: str, text: str, place: int, what: str) -> QueryError:
    return QueryError(f"{option}: {what}, at character {place + 1}:\n  {text}\n  {' ' * place}^")


def _value(key: Key, sign: str, value: str) -> str:
    """As it is compared with what the store keeps: a time is seconds since 1970, a status in capital letters."""
    if key.is_own("status"):
        return value.upper()
    if key.is_own(*TIMES) and sign != "~":
        try:
            return str(datetime.fromisoformat(value).timestamp())
        except ValueError:
            raise QueryError(f'{key.name} must be compared with a date, 2026-11-24 or "2026-11-24 13:30", got {value}') from None
    if sign in ORDERS and number(value) is None:
        raise QueryError(f"{sign} must be followed by a number, got {value}")
    return value


def _is_true(run: Recorded, key: Key, sign: str, value: str) -> bool:
    held = key.of(run)
    if sign == "~":
        return value.lower() in str(held or "").lower()
    if sign in ORDERS:
        own = number(held)
        return own is not None and bool(ORDERS[sign](own, float(value)))
    return alike(held, value) is (sign != "!=")


def chosen(runs: Sequence[Recorded], text: str | None, option: str = "--where") -> list[Recorded]:
    """The runs of which the expression is true; all without one. Raises QueryError."""
    return list(runs) if text is None else parse(text, Keys(runs), option).chosen(runs)
