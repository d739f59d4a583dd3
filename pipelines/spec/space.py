"""What a study may vary: the checks of `search.space`, all of them before anything runs, and the order to draw it in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

from backends.spec import Model, Regularization, Spec, Train
from pipelines.spec.describe import LAYERED, Node, inlined, leaves, members, nearest, shown, split_path
from pipelines.spec.study import Choices, Range, Search, same

Space = Mapping[str, Range | Choices]
Draw = dict[str, Any]  # dotted path -> value
SEARCHABLE = ("model", "regularization", "train", "data.scaling", "data.scale_target")
FIXED = ("train.backend", "train.devices", "train.threads")  # who computes it, not what is learned
TRIES = 300  # draws of a whole space that are tried before a study; of about 0.4 ms each


def ordered(space: Space) -> list[str]:
    """The paths of a space, each after those that its `when` names, else as in the file.

    Raises ValueError for a cycle.
    """
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
    types = {
        path: {str(member.get("items", member).get("type")) for member in members(node)}
        for path, node, _ in leaves(inlined(Varied.model_json_schema()))
    }
    return frozenset(path for path, found in types.items() if "integer" in found and "number" not in found)


def setting(path: str) -> str:
    """The key that a path belongs to: model.dropout for model.dropout.1."""
    above, _, last = path.rpartition(".")
    return above if above in LAYERED and last.isdigit() else path


def is_searched(key: str, space: Space) -> bool:
    """Whether a study varies a key, or the kind (train.optimizer.name) whose option it is."""
    kinds = tuple(path.removesuffix("name") for path in space if path.endswith(".name"))
    return key in map(setting, space) or key.startswith(kinds)


def several(wanted: Any) -> list[Any]:
    """The values that a condition names, one or a list."""
    return list(wanted) if isinstance(wanted, list | tuple) else [wanted]


def searchable(root: Node) -> tuple[str, ...]:
    """The keys that a study may vary. Neither the split nor a seed: a study must not choose its rows or its luck."""
    blocks = tuple(f"{block}." for block in SEARCHABLE)
    paths = dict.fromkeys(path for path, _, _ in leaves(root))
    return tuple(path for path in paths if f"{path}.".startswith(blocks) and path not in FIXED)


def holds(when: Mapping[str, Any] | None, draw: Mapping[str, Any]) -> bool:
    """Every path that the condition names was drawn, with one of the values that it names."""
    return all(path in draw and any(same(draw[path], v) for v in several(wanted)) for path, wanted in (when or {}).items())


# -- what the space alone shows --


def refusals(search: Search, root: Node) -> list[str]:
    """What is wrong with the paths, steps and conditions of a space, a sentence each that opens with its key."""
    lines = [f"space.{path}{line}" for path in search.space for line in _refusals(path, search, root)]
    try:
        ordered(search.space)
    except ValueError as error:
        chain = str(error)
        lines.append(f"space.{chain.split(' ')[0]}.when must not lead back to its own path, got {chain}")
    return lines


def _refusals(path: str, search: Search, root: Node) -> Iterator[str]:
    try:
        split_path(path, root)
    except ValueError as error:
        yield f": {error}"
        return
    if path in FIXED:
        yield f": a study cannot vary who computes it, which changes no result; set {path} for the whole study"
    elif setting(path) not in searchable(root):
        yield f": a study cannot vary {path}; it varies values of {', '.join(SEARCHABLE)}"
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
        yield f".step must be a whole number, since {path} takes whole numbers, got {values.step}"
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
            continue
        values = space[other]
        exact = list(values.choices if isinstance(values, Choices) else values.others)
        known = ", ".join(map(shown, exact))
        stepped: Range | None = None
        if isinstance(values, Range):
            stepped = values if values.step is not None or values.int or takes_whole_numbers(other) else None
            ends = f"{values.low} to {values.high} in steps of {values.step or 1}"
            known = ", ".join([ends] * bool(stepped) + [known] * bool(exact)) or "no single one: give it a step or `or`"
        for value in several(wanted):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if any(same(value, one) for one in exact) or (stepped and number and stepped.holds(value)):
                continue
            whole = isinstance(values, Choices) and any(same(wanted, one) for one in exact)
            hint = f"; for the one value {shown(wanted)} write [{shown(wanted)}]" if whole else ""
            yield f".when must name values that {other} takes ({known}), got {shown(value)}{hint}"


# -- what the spec makes of the values --


def refused_values(space: Space, drawn: Callable[[Draw], object]) -> list[str]:
    """What the spec would refuse of a space that `refusals` has nothing against.

    `drawn` makes the experiment of one draw, and raises ValueError for one that cannot be. At most TRIES draws are tried; a trial
    that is refused all the same fails with the reason.
    """

    def said(draw: Draw) -> list[str]:
        try:
            drawn(draw)
        except ValueError as error:
            return str(error).splitlines()
        return []

    needs = {path: _needs(path, space) for path in ordered(space)}
    found = [
        f"space.{path}.when must be possible; its conditions contradict one another"
        for path in needs
        if not all(needs[path].values())
    ]
    if found:
        return [f"search.{line}" for line in found]
    told: dict[str, str] = {}
    for draw in islice(_draws(space, needs), TRIES):
        for line in said(draw):
            if line in told:
                continue
            cause = dict(draw)
            for path in draw:  # what the line does not need is no part of its cause
                without = {other: value for other, value in cause.items() if other != path}
                if line in said(without):
                    cause = without
            values = ", ".join(f"{path} = {shown(value)}" for path, value in cause.items())
            told[line] = f"search.space.{list(cause)[-1]}: {line}" + (f" (where {values})" if len(cause) > 1 else "")
    return list(told.values())


def _draws(space: Space, needs: Mapping[str, Mapping[str, list[Any]]]) -> Iterator[Draw]:
    """Whole draws in which each value meets every value of every other path, where their conditions allow it.

    Round k gives each value of each path in turn, and to the other paths their k-th values.
    """
    values = {p: one.choices if isinstance(one, Choices) else (one.low, one.high, *one.others) for p, one in space.items()}
    for k in range(max(map(len, values.values()), default=0)):
        for path, value in ((p, v) for p in needs for v in values[p]):
            fixed = {other: found[k % len(found)] for other, found in needs[path].items()} | {path: value}
            draw: Draw = {}
            for other in needs:
                if other in fixed or holds(space[other].when, draw):
                    draw[other] = fixed.get(other, values[other][k % len(values[other])])
            yield draw


def _needs(path: str, space: Space) -> dict[str, list[Any]]:
    """What must have been drawn for a path to be drawn, by its own `when` and by theirs; an empty list can never be."""
    found: dict[str, list[Any]] = {}
    for other, wanted in (space[path].when or {}).items():
        for key, values in {**_needs(other, space), other: several(wanted)}.items():
            found[key] = [v for v in found.get(key, values) if any(same(v, w) for w in values)]
    return found
