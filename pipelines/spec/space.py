"""What a study may vary: the checks of `search.space`, all of them before anything runs, and the order to draw it in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any

from backends.spec import Model, Regularization, Spec, Train
from pipelines.spec.describe import LAYERED, Node, leaves, members, nearest, split_path
from pipelines.spec.explain import shown
from pipelines.spec.study import Choices, Range, Search, same

Space = Mapping[str, Range | Choices]
Draw = dict[str, Any]  # dotted path -> value
Pair = tuple[tuple[str, str], tuple[str, str]]  # two paths in drawing order, each with the repr of a value
SEARCHABLE = ("model", "regularization", "train", "data.scaling", "data.scale_target")
FIXED = ("train.backend", "train.devices", "train.threads")  # who computes it, not what is learned
JOINTLY = 300  # draws of a whole space that are tried before a study; of about 1 ms each


def ordered(space: Space) -> list[str]:
    """The paths of a space, each after those that its `when` names, else as in the file. Raises ValueError for a cycle."""
    order: list[str] = []

    def add(path: str, above: tuple[str, ...]) -> None:
        if path in above:
            raise ValueError(" -> ".join([*above[above.index(path) :], path]))
        if path not in order:
            for other in space[path].when or {}:
                if other in space:
                    add(other, (*above, path))
            order.append(path)

    for path in space:
        add(path, ())
    return order


class Varied(Spec):
    """The blocks of which a study may vary any key."""

    model: Model = Model()
    regularization: Regularization = Regularization()
    train: Train = Train()


def takes_whole_numbers(path: str) -> bool:
    """Does the key take whole numbers alone? Those of one layer of model.hidden are."""
    return setting(path) in _whole_number_keys()


@cache
def _whole_number_keys() -> frozenset[str]:
    root: Node = Varied.model_json_schema()
    types = {path: {str(m.get("items", m).get("type")) for m in members(node, root)} for path, node, _ in leaves(root)}
    return frozenset(path for path, found in types.items() if "integer" in found and "number" not in found)


def setting(path: str) -> str:
    """The key that a path belongs to: model.dropout for model.dropout.1."""
    above, _, last = path.rpartition(".")
    return above if above in LAYERED and last.isdigit() else path


def several(wanted: Any) -> list[Any]:
    """The values that a condition names, one or a list."""
    return list(wanted) if isinstance(wanted, list | tuple) else [wanted]


def searchable(root: Node) -> tuple[str, ...]:
    """The keys that a study may vary. Neither the split nor a seed: a study must not choose its rows or its luck."""
    blocks = tuple(f"{block}." for block in SEARCHABLE)
    paths = dict.fromkeys(path for path, _, _ in leaves(root))
    return tuple(path for path in paths if f"{path}.".startswith(blocks) and path not in FIXED)


# What the space alone shows ----------------------------------------------------------------------------------------------


def refusals(search: Search, root: Node) -> list[str]:
    """What is wrong with the paths, steps and conditions of a space, a sentence each that opens with its key."""
    lines = [f"search.space.{path}{line}" for path in search.space for line in _refusals(path, search, root)]
    try:
        ordered(search.space)
    except ValueError as error:
        chain = str(error)
        lines.append(f"search.space.{chain.split(' ')[0]}.when must not lead back to its own path, got {chain}")
    return lines


def _refusals(path: str, search: Search, root: Node) -> Iterator[str]:
    try:
        split_path(path, root)
    except ValueError as error:
        yield f": {error}"
        return
    if path in FIXED:
        yield f": must change what is learned; {path} only says who computes it, so set it for the whole study"
    elif setting(path) not in searchable(root):
        yield f": must be one value of {', '.join(SEARCHABLE)}; a study cannot vary {path}"
    elif setting(path) != path and setting(path) in search.space:
        yield f": must not stand beside {setting(path)}, of which it is a part; leave one of them out"
    elif path == "data.scale_target" and "loss" in search.metrics:
        yield ": must not vary while search.metric is loss, which it measures on another scale; judge by rmse, mae or r2"
    else:
        yield from _of_values(path, search)
        yield from _of_conditions(path, search.space)


def _of_values(path: str, search: Search) -> Iterator[str]:
    values = search.space[path]
    if isinstance(values, Range) and values.step is not None and takes_whole_numbers(path) and values.step != int(values.step):
        yield f".step must be a whole number, which {path} is, got {values.step}"
    if search.sampler == "grid":
        found = {"a condition (when)": values.when is not None}
        if isinstance(values, Range):
            found |= {"a range without a step": values.step is None, "a value beside a range (or)": bool(values.others)}
        for what in (what for what, there in found.items() if there):
            yield f": must be choices, or a range with a step, for the sampler grid, got {what}; or take another sampler"


def _of_conditions(path: str, space: Space) -> Iterator[str]:
    for other, wanted in (space[path].when or {}).items():
        if other not in space:
            yield f".when must name another path of the space, got {other}; {nearest(other, [p for p in space if p != path])}"
        else:
            yield from (f".when must name {_takes(other, space[other])}, got {shown(v)}{_nested(wanted, space[other])}"
                        for v in several(wanted) if not _can_be(other, space[other], v))  # fmt: skip


def _can_be(path: str, values: Range | Choices, value: object) -> bool:
    """Can the path be drawn with exactly this value? A number of a range without steps never comes up."""
    if isinstance(values, Choices) or any(same(value, other) for other in values.others):
        return any(same(value, other) for other in (values.choices if isinstance(values, Choices) else values.others))
    steps = values.step is not None or values.int or takes_whole_numbers(path)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return steps and number and values.holds(value)  # type: ignore[arg-type]  # it is a number


def _takes(path: str, values: Range | Choices) -> str:
    if isinstance(values, Choices):
        return f"values of {path}, which are {', '.join(map(shown, values.choices))}"
    if values.step is not None or values.int or takes_whole_numbers(path):
        return f"values of {path}, from {values.low} to {values.high}" + (f" by {values.step}" if values.step else "")
    beside = (
        f"one of {', '.join(map(shown, values.others))}, beside the range" if values.others else "none: give it a step or `or`"
    )
    return f"a value that {path} is drawn with exactly ({beside})"


def _nested(wanted: Any, values: Range | Choices) -> str:
    one = isinstance(wanted, list) and isinstance(values, Choices) and any(same(wanted, choice) for choice in values.choices)
    return f"; for the one value {shown(wanted)} write [{shown(wanted)}]" if one else ""


# What the spec makes of the values ----------------------------------------------------------------------------------------


def refused_values(space: Space, drawn: Callable[[Draw], object]) -> list[str]:
    """What the spec would refuse of a space that `refusals` has nothing against: values alone, then two at a time.

    `drawn` makes the experiment of one draw, and raises ValueError for one that cannot be.

    A value is tried where its `when` holds; of whole lists of numbers only the ends meet each other, and at most JOINTLY draws
    are tried. A trial that is refused all the same fails with the reason.
    """
    return _Trials(space, drawn).lines() if space else []


class _Trials:
    """The experiment under draws of its space."""

    def __init__(self, space: Space, drawn: Callable[[Draw], object]) -> None:
        self.space, self.drawn = space, drawn
        self.order = ordered(self.space)
        self.needs = {path: _needs(path, self.space) for path in self.order}
        self.ends = {path: _ends(values) for path, values in self.space.items()}
        self.open: dict[Pair, None] = {}  # not tried yet, in order
        self.clashing: set[Pair] = set()

    def lines(self) -> list[str]:
        never = [path for path in self.order if not all(self.needs[path].values())]
        found = [f"search.space.{path}.when must be possible; what it asks for contradicts itself" for path in never]
        if not found:
            found = [f"search.space.{path}: {line}" for path in self.space for line in self._alone(path)]
        return found or list(self._two_at_a_time())

    def _said(self, draw: Draw) -> list[str]:
        """The spec's complaints of a draw."""
        try:
            self.drawn(draw)
        except ValueError as error:
            return str(error).splitlines()
        return []

    def _alone(self, path: str) -> dict[str, None]:
        """What the spec says of each value of a path; one that only the other paths make possible is no fault."""
        lines: dict[str, None] = {}
        for value in _all(self.space[path]):
            for needed in self._needed(path):
                draw = {**needed, path: value}
                said = self._said(draw)
                if said and self._said(self._filled(draw)):
                    lines |= dict.fromkeys(said)
        return lines

    def _needed(self, path: str) -> list[Draw]:
        """Draws under which a path is drawn: each value of each of its conditions once."""
        first = {other: values[0] for other, values in self.needs[path].items()}
        return [first, *({**first, other: value} for other, values in self.needs[path].items() for value in values[1:])]

    def _two_at_a_time(self) -> Iterator[str]:
        """Values that the spec takes alone and refuses together. Whole draws are tried: one that passes clears all its pairs."""
        self.open = {_pair(p, v, q, w): None for p, q in combinations(self.order, 2) for v in self.ends[p] for w in self.ends[q]}
        values = {(path, repr(value)): value for path, ends in self.ends.items() for value in ends}
        told: set[tuple[str, ...]] = set()
        for _ in range(JOINTLY):
            if not self.open:
                return
            pair = next(iter(self.open))
            (p, v), (q, w) = pair
            del self.open[pair]
            draw = self._together({p: values[p, v], q: values[q, w]})
            if draw is None:
                continue
            whole = self._filled(draw)
            said = self._said(whole)
            if not said:
                for done in combinations([path for path in self.order if path in whole], 2):
                    self.open.pop(_pair(done[0], whole[done[0]], done[1], whole[done[1]]), None)
            elif said := self._said(draw):
                self.clashing.add(pair)
                if (p, q, *said) not in told:
                    told.add((p, q, *said))
                    one, other = shown(values[q, w]), f"{p} = {shown(values[p, v])}"
                    yield f"search.space.{q}: {one} must go with {other}, but {'; '.join(said)}"

    def _together(self, two: Draw) -> Draw | None:
        """The two and what they need; None if they are never drawn together."""
        allowed: dict[str, list[Any]] = {path: [value] for path, value in two.items()}
        for path in two:
            for other, values in self.needs[path].items():
                allowed[other] = [v for v in allowed.get(other, values) if any(same(v, w) for w in values)]
        return {path: values[0] for path, values in allowed.items()} if all(allowed.values()) else None

    def _filled(self, draw: Draw) -> Draw:
        """The draw with a value for every other path whose condition holds: the one that meets most of what is untried."""
        draw = dict(draw)
        for path in self.order:
            if path in draw or not holds(self.space[path].when, draw):
                continue
            pairs = {place: self._pairs(path, value, draw) for place, value in enumerate(self.ends[path])}
            fitting = {
                place: sum(pair in self.open for pair in found) for place, found in pairs.items() if not self.clashing & found
            }
            if fitting:
                draw[path] = self.ends[path][max(fitting, key=lambda place: fitting[place])]
        return draw

    def _pairs(self, path: str, value: Any, draw: Draw) -> set[Pair]:
        rank = self.order.index
        return {
            _pair(other, v, path, value) if rank(other) < rank(path) else _pair(path, value, other, v)
            for other, v in draw.items()
        }


def _pair(p: str, v: Any, q: str, w: Any) -> Pair:
    return (p, repr(v)), (q, repr(w))


def holds(when: Mapping[str, Any] | None, draw: Mapping[str, Any]) -> bool:
    """Every path that the condition names was drawn, with one of the values that it names."""
    return all(path in draw and any(same(draw[path], v) for v in several(wanted)) for path, wanted in (when or {}).items())


def _needs(path: str, space: Space) -> dict[str, list[Any]]:
    """What must have been drawn for a path to be drawn, by its own `when` and by theirs; an empty list can never be."""
    found: dict[str, list[Any]] = {}
    for other, wanted in (space[path].when or {}).items():
        for key, values in {**_needs(other, space), other: several(wanted)}.items():
            found[key] = [v for v in found.get(key, values) if any(same(v, w) for w in values)]
    return found


def _all(values: Range | Choices) -> Sequence[Any]:
    return values.choices if isinstance(values, Choices) else (values.low, values.high, *values.others)


def _ends(values: Range | Choices) -> list[Any]:
    """The values that may disagree with other keys, each in its own way: of numbers the least and the greatest."""
    numbers = [v for v in _all(values) if isinstance(v, int | float) and not isinstance(v, bool)]
    ends = [min(numbers), max(numbers)] if len(set(numbers)) > 1 else numbers
    return [*ends, *(v for v in _all(values) if not any(v is number for number in numbers))]
