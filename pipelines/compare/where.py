"""The language of --where: `activation = relu and (best_val_loss < 0.1 or seed in (1, 2))`.

    expression = term {"or" term}        term = factor {"and" factor}        factor = ["not"] ("(" expression ")" | comparison)
    comparison = key ("=" | "!=" | "<" | "<=" | ">" | ">=" | "~") value | key ["not"] "in" "(" value {"," value} ")"

Two values that are numbers are compared as numbers, whatever the store keeps them as; MLflow's own filters compare params
as text, where 1e-3 is not 0.001 and 9 > 10. `~` is: holds this text, whatever its case. A run without the key is like no
value: of all comparisons only `!=` and `not in` are true of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from pipelines.compare.keys import Key, Keys, QueryError, alike, number
from pipelines.tracking.query import Recorded

Test = Callable[[Recorded], bool]
TOKEN = re.compile(r"""\s*(?:(?P<sign><=|>=|!=|==|[=<>~(),])|(?P<quoted>"[^"]*"|'[^']*'|`[^`]*`)|(?P<word>[^\s=<>!~(),"'`]+))""")
SIGNS = ("=", "==", "!=", "<", "<=", ">", ">=", "~")
TIMES = ("started", "ended")
WORDS = ("and", "or", "not", "in")
DEEPEST = 50  # brackets within brackets


@dataclass(frozen=True)
class Token:
    """A sign, a word or a quoted text, and where it begins."""

    kind: str
    text: str
    place: int


@dataclass(frozen=True)
class Where:
    """An expression: the runs of which it is true, and the keys that it asks for."""

    text: str
    test: Test
    keys: tuple[Key, ...]

    def chosen(self, runs: Iterable[Recorded]) -> list[Recorded]:
        """Those of which it is true, in their order."""
        return [run for run in runs if self.test(run)]


def parse(text: str, keys: Keys, option: str = "--where") -> Where:
    """Read an expression. Raises QueryError with the place where it cannot go on."""
    parser = _Parser(text, keys, option)
    return Where(text, parser.whole(), tuple(dict.fromkeys(parser.asked)))


class _Parser:
    def __init__(self, text: str, keys: Keys, option: str) -> None:
        self.text, self.keys, self.option, self.asked = text, keys, option, list[Key]()
        self.depth = 0
        self.tokens = list(self._split())

    def _split(self) -> Iterable[Token]:
        place = 0
        while self.text[place:].strip():
            found = TOKEN.match(self.text, place)
            start = place + len(self.text[place:]) - len(self.text[place:].lstrip())
            if found is None or found.lastgroup is None:
                self._fail("must be a key, a comparison or a value", start)
            yield Token(found.lastgroup, found["quoted"][1:-1] if found["quoted"] else found[0].strip(), start)
            place = found.end()
        yield Token("end", "", len(self.text))

    def _fail(self, what: str, place: int) -> NoReturn:
        raise QueryError(f"{self.option}: {what}, at character {place + 1}:\n  {self.text}\n  {' ' * place}^")

    def _take(self) -> Token:
        return self.tokens.pop(0)

    def _is(self, *texts: str) -> bool:
        """Is the next one such a sign, or such a word (which is none in quotes)?"""
        return self.tokens[0].kind in ("sign", "word") and self.tokens[0].text.lower() in texts

    def _expect(self, sign: str, after: str) -> None:
        if not self._is(sign):
            self._fail(f"there must be {sign!r} {after}", self.tokens[0].place)
        self._take()

    def whole(self) -> Test:
        test = self._either()
        if self.tokens[0].kind != "end":
            self._fail("there must be `and`, `or` or the end after a comparison", self.tokens[0].place)
        return test

    def _either(self) -> Test:
        tests = [self._all()]
        while self._is("or"):
            self._take()
            tests.append(self._all())
        return tests[0] if len(tests) == 1 else lambda run: any(test(run) for test in tests)

    def _all(self) -> Test:
        tests = [self._one()]
        while self._is("and"):
            self._take()
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda run: all(test(run) for test in tests)

    def _one(self) -> Test:
        if self._is("not", "("):
            self.depth += 1
            if self.depth > DEEPEST:
                self._fail(f"there must be at most {DEEPEST} brackets within one another", self.tokens[0].place)
            negated = self._take().text != "("
            inner = self._one() if negated else self._either()
            if not negated:
                self._expect(")", "that closes the bracket")
            self.depth -= 1
            return (lambda run: not inner(run)) if negated else inner
        return self._comparison()

    def _comparison(self) -> Test:
        token = self._take()
        if token.kind not in ("word", "quoted") or (token.kind == "word" and token.text.lower() in WORDS):
            self._fail("there must be a key, such as model.activation", token.place)
        try:
            key = self.keys.find(token.text)
        except QueryError as error:
            self._fail(str(error), token.place)
        self.asked.append(key)
        if self._is("in", "not"):
            return self._among(key)
        if not self._is(*SIGNS):
            self._fail(f"there must be one of {' '.join(SIGNS)} in after {token.text}", self.tokens[0].place)
        sign, place = self._take().text, self.tokens[0].place
        value = self._value()
        if key.kind == "run" and key.name == "status":
            value = value.upper()
        if key.kind == "run" and key.name in TIMES and sign != "~":
            value = self._time(value, place)
        if sign in ("<", "<=", ">", ">=") and number(value) is None:
            self._fail(f"there must be a number after {sign}", place)
        return _test(key, sign, value)

    def _time(self, value: str, place: int) -> str:
        """A date, with or without a time of day, in the zone of this machine, as the seconds that the store keeps."""
        try:
            return str(datetime.fromisoformat(value).timestamp())
        except ValueError:
            self._fail('there must be a date: 2026-11-24, or "2026-11-24 13:30"', place)

    def _among(self, key: Key) -> Test:
        negated = self._is("not")
        if negated:
            self._take()
        self._expect("in", "after not")
        self._expect("(", "after in")
        values = [self._value()]
        while self._is(","):
            self._take()
            values.append(self._value())
        self._expect(")", "after the values")
        return lambda run: any(alike(key.of(run), value) for value in values) is not negated

    def _value(self) -> str:
        token = self._take()
        if token.kind not in ("word", "quoted"):
            self._fail("there must be a value: a number, a word, or text in quotes", token.place)
        return token.text


def _test(key: Key, sign: str, value: str) -> Test:
    if sign in ("=", "==", "!="):
        return lambda run: alike(key.of(run), value) is (sign != "!=")
    if sign == "~":
        return lambda run: value.lower() in str(key.of(run) or "").lower()
    limit = float(value)
    orders: dict[str, Callable[[float], bool]] = {
        "<": lambda x: x < limit, "<=": lambda x: x <= limit, ">": lambda x: x > limit, ">=": lambda x: x >= limit,
    }  # fmt: skip
    order = orders[sign]
    return lambda run: (found := number(key.of(run))) is not None and order(found)


def chosen(runs: Sequence[Recorded], text: str | None, option: str = "--where") -> list[Recorded]:
    """The runs of which the expression is true; all without one. Raises QueryError."""
    return list(runs) if text is None else parse(text, Keys(runs), option).chosen(runs)
