"""What a run can be asked for by name: its params, metrics and tags, and what the store itself knows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from pipelines.tracking.query import Recorded

Value = str | float | None
Kind = Literal["run", "params", "metrics", "tags"]
OURS = "deltarule."  # before our tags; may be left out
TIMES = ("started", "ended")
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
        self.known: dict[Kind, dict[str, None]] = {"run": dict.fromkeys(OWN)}
        for kind in kinds:
            self.known[kind] = {name: None for run in runs for name in getattr(run, kind)}

    def find(self, text: str) -> Key:
        """The key that `text` means; raises QueryError with the nearest names if it means none, or several.

        In this order: a whole name, of the run itself, its params, metrics, tags; the last part of a param's dotted path, if
        there is one such path; a tag without its `deltarule.`. `params.`, `metrics.`, `tags.` before it say which kind.
        """
        for kind in ("params", "metrics", "tags"):
            if text.startswith(f"{kind}.") and text.partition(".")[2] in self.known[kind]:
                return Key(kind, text.partition(".")[2], text)
        for kind, names in self.known.items():
            if text in names:
                return Key(kind, text, text)
        paths = [name for name in self.known["params"] if name.endswith(f".{text}") and not name.startswith("search.")]
        if len(paths) == 1:
            return Key("params", paths[0], text)
        if OURS + text in self.known["tags"]:
            return Key("tags", OURS + text, text)
        raise QueryError(self._unknown(text, paths))

    def _unknown(self, text: str, paths: Sequence[str]) -> str:
        if paths:
            return f"the key {text} must mean one value, and may mean {', '.join(paths)}"
        words = {name: name for names in self.known.values() for name in names}
        words |= {name.removeprefix(OURS): name.removeprefix(OURS) for name in self.known["tags"]}
        words |= {name.rpartition(".")[2]: name for name in self.known["params"] if not name.startswith("search.")}
        near = dict.fromkeys(words[word] for word in get_close_matches(text, words, NEAR))
        hint = f"did you mean {' or '.join(near)}?" if near else "`deltarule runs --json` shows the keys of each run"
        return f"unknown key {text}: it must be a param, metric or tag of the runs on record; {hint}"


def number(value: Value) -> float | None:
    """A value as a number, if it says one: params and tags are text in the store."""
    if value is None or isinstance(value, float):
        return value
    try:
        return None if "_" in value else float(value)
    except ValueError:
        return None


def alike(one: Value, other: Value) -> bool:
    """Equal as numbers if both are numbers (1e-3 and 0.001), else as text."""
    first, second = number(one), number(other)
    return one == other if first is None or second is None else first == second
