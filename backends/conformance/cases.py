"""What the suite trains: a small data set, a small trial, and the covering list of cases, grouped into stacks.

In the cases every two settings of any two factors of docs/theory.md meet once at least. Trials that share a structure are one
stack, so that a framework that compiles does so a few dozen times and not a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from typing import Any, NamedTuple, get_args

import numpy as np

from backends import draws
from backends.base import Data
from backends.spec import (
    SGD,
    ActivationName,
    Adam,
    AdamW,
    InitializerName,
    Model,
    NDArray,
    Regularization,
    RMSprop,
    Spec,
    Task,
    Train,
    Trial,
)

Case = dict[str, str]  # factor -> level
Pair = frozenset[tuple[str, str]]  # two (factor, level)

TASKS: tuple[Task, ...] = ("regression", "binary", "multiclass")
OUTPUTS = {"regression": 2, "binary": 1, "multiclass": 3}
ACTIVATIONS = ("leaky_relu", "relu", "sigmoid", "tanh")
EVERY_ACTIVATION: tuple[ActivationName, ...] = tuple(sorted(get_args(ActivationName)))
PENALTIES = ((0.0, 0.0), (2e-3, 0.0), (0.0, 3e-3), (2e-3, 3e-3))
DROPOUTS = (0.0, 0.3)
OPTIMIZERS: dict[str, Any] = {
    "sgd": SGD(name="sgd", learning_rate=0.05, momentum=0.9),
    "nesterov": SGD(name="sgd", learning_rate=0.02, momentum=0.8, nesterov=True),
    "adam": Adam(name="adam", learning_rate=0.01),
    "adamw": AdamW(name="adamw", learning_rate=0.01, weight_decay=0.05),
    "rmsprop": RMSprop(name="rmsprop", learning_rate=0.001),
}
INPUTS, ROWS, VALID, BATCH = 7, 70, 33, 16  # 4 whole batches and one of 6 rows in an epoch


def make_data(task: Task, outputs: int | None = None, rows: int = ROWS) -> Data:
    """70 training and 33 validation rows that a small net can learn."""
    bits = draws.raw_words(7, 99, 0, (rows + VALID) * INPUTS) >> np.uint64(11)
    X = (bits * 2.0**-52 - 1).reshape(-1, INPUTS) * 1.7
    score = np.stack([np.sin(2 * X[:, 0]) + X[:, 1], X[:, 2] * X[:, 3], X[:, 4] - X[:, 5]], axis=1)
    numbers = score[:, : outputs or OUTPUTS["regression"]]
    y = {"regression": numbers, "binary": (score[:, 0] > 0).astype(int), "multiclass": score.argmax(axis=1)}[task]
    return Data(X[:rows], y[:rows], X[rows:], y[rows:])


def make_trial(task: Task, **changes: Any) -> Trial:
    """A small trial; `changes` go to whichever block knows their name."""
    blocks: dict[str, dict[str, Any]] = {"model": {"hidden": (9, 5)}, "regularization": {}, "train": {"batch_size": BATCH}}
    blocks["train"] |= {"precision": "float64", "epochs": 50, "optimizer": OPTIMIZERS["adam"]}
    trial: dict[str, Any] = {"seed": 3, "task": task, "inputs": INPUTS, "outputs": OUTPUTS[task]}
    kinds: dict[str, type[Spec]] = {"model": Model, "regularization": Regularization, "train": Train}
    for name, value in changes.items():
        known = (block for block, kind in kinds.items() if name in kind.model_fields and name not in Trial.model_fields)
        home = next(known, None)
        (blocks[home] if home else trial)[name] = value
    return Trial.model_validate(trial | {block: kinds[block](**values) for block, values in blocks.items()})


def every_activation(task: Task, **changes: Any) -> list[Trial]:
    """A trial of each activation, with penalties, dropout, class weights and two seeds mixed in."""
    mixed = list(product(PENALTIES, DROPOUTS))
    return [
        make_trial(
            task, activation=name, l1=l1, l2=l2, dropout=p, seed=3 + number % 2, slope=0.15,
            class_weights=some_weights(task, number) if number % 3 else None, **changes,
        )
        for number, name in enumerate(EVERY_ACTIVATION)
        for (l1, l2), p in [mixed[number % len(mixed)]]
    ]  # fmt: skip


def describe(trial: Trial) -> str:
    """A case in one line, for the message of a failed check."""
    model, penalty, train = trial.model, trial.regularization, trial.train
    return (
        f"{trial.task} with {trial.outputs} outputs, hidden {model.hidden}, {model.activation}, {model.initializer}, "
        f"l1 {penalty.l1}, l2 {penalty.l2}, dropout {model.dropout}, input dropout {model.input_dropout}, "
        f"{train.optimizer.name}, {train.schedule}, batch {train.batch_size}, clip {train.clip_norm}, {train.precision}, "
        f"class weights {trial.class_weights}, seed {trial.seed}"
    )


# -- the covering list --

FREE_STEPS = 200  # docs/theory.md, "When two backends agree"

# Factors that make a structure, and those that are free within a stack. Each level is a word; `_changes` says what it means.
STRUCTURE: dict[str, Sequence[str]] = {
    "optimizer": ("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"),
    "target": ("one number", "three numbers", "two classes", "three classes"),
    "batch": ("short last batch", "whole batches", "one row", "more than the rows"),
    "depth": ("1 hidden layer", "2 hidden layers", "3 hidden layers"),
    "clipping": ("unclipped", "clipped"),
}
FREE: dict[str, Sequence[str]] = {
    "activation": EVERY_ACTIVATION,
    "penalty": ("none", "L1", "L2", "both", "a layer"),
    "initializer": get_args(InitializerName),
    "dropout": ("none", "hidden", "a layer", "input"),
    "schedule": ("constant", "step", "cosine"),
    "warm-up": ("none", "some"),
    "class weights": ("none", "some"),
}
# Levels that mean nothing together.
NEVER = {frozenset({("class weights", "some"), ("target", target)}) for target in ("one number", "three numbers")}

TARGETS: Mapping[str, tuple[Task, int]] = {
    "one number": ("regression", 1),
    "three numbers": ("regression", 3),
    "two classes": ("binary", 1),
    "three classes": ("multiclass", 3),
}
HIDDEN = {"1 hidden layer": (8,), "2 hidden layers": (9, 5), "3 hidden layers": (7, 6, 4)}
BATCHES = {"short last batch": BATCH, "whole batches": 14, "one row": 1, "more than the rows": 100}

# A trial's number n alters what would else be one value for all trials of a stack: a backend must keep them apart.
# What a stack has in common differs from stack to stack, s; an ε must be large enough to be missed.
EPSILONS = (1e-8, 1e-2, 3e-4)
CASE_OPTIMIZERS: dict[str, Callable[[int, int], Any]] = {
    "sgd": lambda n, s: SGD(name="sgd", learning_rate=0.05 + 0.01 * n),
    "momentum": lambda n, s: SGD(name="sgd", learning_rate=0.02 + 0.003 * n, momentum=0.9 - 0.1 * n),
    "nesterov": lambda n, s: SGD(name="sgd", learning_rate=0.02 + 0.01 * n, momentum=0.8 - 0.1 * n, nesterov=True),
    "adam": lambda n, s: Adam(name="adam", learning_rate=0.01 + 0.002 * n, **_betas(s)),
    "adamw": lambda n, s: AdamW(name="adamw", learning_rate=0.01 + 0.001 * n, weight_decay=0.05 - 0.01 * n, **_betas(s)),
    "rmsprop": lambda n, s: RMSprop(
        name="rmsprop",
        learning_rate=0.001 + 0.0005 * n,
        rho=0.95 - 0.04 * (s % 2),
        epsilon=EPSILONS[s % 3],
    ),
}


def _betas(stack: int) -> dict[str, float]:
    place = stack % 3
    return {
        "beta1": 0.85 - 0.1 * (stack % 2),
        "beta2": 0.99 - 0.02 * place,
        "epsilon": EPSILONS[place],
    }


def all_pairs(factors: Mapping[str, Sequence[str]]) -> list[Pair]:
    """Every pair of levels of two factors, in order."""
    levels = {factor: [(factor, level) for level in levels] for factor, levels in factors.items()}
    return [frozenset(pair) for two in combinations(levels.values(), 2) for pair in product(*two)]


def pairs_of(case: Case) -> Iterator[Pair]:
    """The pairs that meet in a case."""
    return map(frozenset, combinations(case.items(), 2))


def pairwise(factors: Mapping[str, Sequence[str]], within: Sequence[Case] = ({},), never: Collection[Pair] = ()) -> list[Case]:
    """Few cases over `factors` in which every two levels of any two factors meet. Greedy, and the same list on every machine.

    With `within`, each case agrees with one of these partial cases on the factors that they name; they take turns, so they are
    used about equally often. Two levels that mean nothing together are a pair of `never`: no case has both. Raises ValueError
    if the partial cases leave out any other pair.
    """
    missing = {pair: None for pair in all_pairs(factors) if pair not in never}  # a set that keeps its order
    cases: list[Case] = []

    def sensible(case: Case) -> bool:
        return not any(pair <= case.items() for pair in never)

    def gain(case: Case) -> int:
        return sum(pair in missing for pair in pairs_of(case))

    while missing:
        before = len(missing)
        for base in within:
            # From a missing pair, so that no case is in vain; then, a factor at a time, what meets the most missing pairs.
            started = (base | dict(pair) for pair in missing)
            case = next((case for case in started if base.items() <= case.items() and sensible(case)), None)
            if case is not None:
                for factor, levels in factors.items():
                    choices = [case | {factor: level} for level in levels] if factor not in case else [case]
                    case = max(filter(sensible, choices), key=gain)
                cases.append({factor: case[factor] for factor in factors})
                for met in pairs_of(case):
                    missing.pop(met, None)
        if len(missing) == before:
            raise ValueError(f"none of the {len(within)} partial cases may have {dict(next(iter(missing)))}")
    return cases


class Cases(NamedTuple):
    """One stack of the covering list."""

    name: str
    trials: tuple[Trial, ...]
    data: Data


STRUCTURES = pairwise(STRUCTURE)
STRUCTURE_NAMES = [", ".join(structure.values()) for structure in STRUCTURES]
COVERING_LIST = pairwise({**FREE, **STRUCTURE}, STRUCTURES, NEVER)
# The cases of each structure, sorted by activation as a stack wants them.
STACKS = [
    sorted((case for case in COVERING_LIST if structure.items() <= case.items()), key=lambda case: case["activation"])
    for structure in STRUCTURES
]


@cache
def cases(structure: int, precision: str = "float64") -> Cases:
    """The stack of one structure."""
    seeds = ((3, 3, 3, 3, 3), (3, 4, 4, 3, 4), (3, 4, 5, 6, 7))[structure % 3]  # one for all, shared by some, one each
    task, outputs = TARGETS[STRUCTURES[structure]["target"]]
    trials = [
        make_trial(task, outputs=outputs, seed=seed, precision=precision, **_changes(case, number, structure))
        for number, (case, seed) in enumerate(zip(STACKS[structure], seeds, strict=False))
    ]
    data = make_data(task, outputs)
    data = replace(data, weights=some_row_weights()) if structure % 2 else data
    return Cases(STRUCTURE_NAMES[structure], tuple(trials), data)


def _changes(case: Case, number: int, structure: int) -> dict[str, Any]:
    """What a case means, for the `number`th trial of its stack: no two trials of a stack have a number in common."""
    hidden, batch = HIDDEN[case["depth"]], BATCHES[case["batch"]]
    epoch_steps, layers, own = math.ceil(ROWS / batch), len(hidden) + 1, 1 + 0.2 * number
    l1, l2 = (tuple(own * x for x in some[:layers]) for some in ((2e-3, 0.0, 1e-3, 5e-4), (0.0, 3e-3, 1e-3, 0.0)))
    penalties: dict[str, Any] = {
        "none": (0.0, 0.0),
        "L1": (2e-3 * own, 0.0),
        "L2": (0.0, 3e-3 * own),
        "both": (2e-3 * own, 3e-3 / own),
        "a layer": (l1, l2),
    }
    dropouts: dict[str, Any] = {
        "none": (0.0, 0.0),
        "hidden": (0.3 * own, 0.0),
        "a layer": (tuple(p * own for p in (0.4, 0.0, 0.15)[: layers - 1]), 0.0),
        "input": (0.0, 0.25 * own),
    }
    schedule: dict[str, Any] = {"name": case["schedule"], "warmup": 11 + number if case["warm-up"] == "some" else 0}
    if case["schedule"] == "step":
        schedule |= {"every": max(1, (60 + 20 * number) // epoch_steps), "factor": 0.5 + 0.1 * number}
    return {
        "hidden": hidden,
        "batch_size": batch,
        "activation": case["activation"],
        "slope": 0.15 * own,
        "initializer": case["initializer"],
        "optimizer": CASE_OPTIMIZERS[case["optimizer"]](number, structure),
        "clip_norm": 0.2 * (number + 1) if case["clipping"] == "clipped" else None,
        "schedule": schedule,
        "class_weights": some_weights(TARGETS[case["target"]][0], number) if case["class weights"] == "some" else None,
        "epochs": FREE_STEPS // epoch_steps + 3 + number,  # still running after the last step that is looked at
        **dict(zip(("l1", "l2"), penalties[case["penalty"]], strict=True)),
        **dict(zip(("dropout", "input_dropout"), dropouts[case["dropout"]], strict=True)),
    }


def some_row_weights(rows: int = ROWS) -> NDArray:
    """From 0 to 3, another for each row."""
    return np.arange(rows) * 37 % 61 / 20


def some_weights(task: Task, number: int = 0) -> tuple[float, ...] | None:
    """A weight for each class, other ones for each trial of a stack; None in regression."""
    base = {"regression": (), "binary": (0.6, 1.7), "multiclass": (0.4, 1.0, 2.1)}[task]
    return tuple(w * (1 + 0.1 * number) for w in base) or None


def _structures_with_all_levels() -> list[int]:
    """A few structures whose stacks have every level of every factor at least once, by greedy choice."""
    levels = [{level for case in stack for level in case.items()} for stack in STACKS]
    missing, chosen = set.union(*levels), list[int]()
    while missing:
        chosen.append(max(range(len(levels)), key=lambda number: len(levels[number] & missing)))
        missing -= levels[chosen[-1]]
    return sorted(chosen)


ALL_LEVELS = _structures_with_all_levels()
