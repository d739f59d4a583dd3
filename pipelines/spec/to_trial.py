"""From the spec to what a backend sees, once the data say what there is: inputs, outputs, and the rows of each class."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from backends.losses import class_weights
from backends.optimizers import RULES
from backends.spec import ClassWeights, Task, Trial, storage
from pipelines.spec.blocks import HALF, Validation
from pipelines.spec.describe import SpecError, nearest, shown
from pipelines.spec.space import refused_values

if TYPE_CHECKING:
    from pipelines.spec.experiment import Experiment


class Described(Protocol):
    """What must be known about the data; `pipelines.data.About` knows it."""

    @property
    def task(self) -> Task: ...

    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def outputs(self) -> int: ...

    @property
    def class_counts(self) -> dict[str, dict[str, int]]:
        """part -> label -> rows, the labels in the order of the classes; empty for regression."""
        ...

    @property
    def rows(self) -> Mapping[str, int]:
        """part -> rows."""
        ...

    @property
    def number(self) -> int | None:
        """Of the fold that this is all about; None without folds."""
        ...


def trial(experiment: Experiment, about: Described) -> Trial:
    """The experiment as a backend sees it.

    Raises SpecError for class weights that these data do not take, and a network that the memory does not hold.
    """
    e, asked = experiment, experiment.train.class_weights
    numbers = None
    check_threshold(e.validation, about.task)
    if asked != "none" and about.task == "regression":
        given = asked if isinstance(asked, str) else f"weights of {', '.join(asked)}"
        raise SpecError(f"train.class_weights must be none for a regression task, which has no classes, got {given}")
    if asked != "none":
        counts = about.class_counts["train"]
        own = None if isinstance(asked, str) else _of_labels(asked, list(counts))
        numbers = class_weights(list(counts.values()), own)  # one a class, of mean 1 over the training rows
    network = Trial(
        seed=e.seed,
        fold=about.number,
        task=about.task,
        inputs=len(about.inputs),
        outputs=about.outputs,
        model=e.model,
        regularization=e.regularization,
        train=e.train,
        class_weights=numbers,
    )
    check_memory(network, about.rows)
    return network


def check_threshold(validation: Validation, task: Task) -> None:
    """Raises SpecError for one where there is nothing that it decides."""
    asked = validation.threshold
    if asked != HALF and task != "binary":
        raise SpecError(f"validation.threshold must be 0.5 for a {task} task, since it parts two classes, got {asked}")


def _of_labels(asked: ClassWeights, labels: list[str]) -> list[float]:
    unknown = [label for label in asked if label not in labels]
    if unknown:
        raise SpecError(f"train.class_weights must name classes of the target, got {unknown[0]!r}; {nearest(unknown[0], labels)}")
    missing = [label for label in labels if label not in asked]
    if missing:
        missed = f"{', '.join(asked)}; missing: {', '.join(missing)}"
        raise SpecError(f"train.class_weights must give every class a weight, got {missed}")
    return [asked[label] for label in labels]


# -- sizes --

# Where Linux says what a container may use, by control groups of version 2 and 1; "max" where it may use all.
CONTAINERS = [Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory/memory.limit_in_bytes")]


def memory() -> int:
    """Bytes that the machine has, or that its container may use."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [path.read_text().strip() for path in CONTAINERS if path.is_file()]
    return min([whole, *(int(limit) for limit in limits if limit.isdigit())])


def check_spec(experiment: Experiment) -> None:
    """Before a row is read.

    Raises SpecError for a network, or one of the search's space, that is too large with one input.
    """

    def check(e: Experiment) -> None:
        check_memory(Trial.model_construct(seed=0, task="regression", inputs=1, outputs=1, model=e.model, train=e.train))

    check(experiment)
    if problems := refused_values(experiment.search.space, lambda draw: check(experiment.drawn(draw))):
        raise SpecError("\n".join(problems))


def check_memory(network: Trial, rows: Mapping[str, int] = {}, networks: int = 1, key: str = "search.width") -> None:
    """`rows` by part; `key` sets how many `networks` there are.

    Raises SpecError if the least that a stack of such networks takes is more than the machine has.
    """
    train, classes, there = network.train, network.classes, memory()
    number = np.dtype(storage(train.precision)).itemsize
    weights = sum(math.prod(shape) for layer in network.layers for shape in layer.parameters().values())
    copies = 5 + len(RULES[train.optimizer.name].slots)  # itself, its gradient, its best value, λ1 and λ2
    batch = min(train.batch_size, rows.get("train", 0))
    units = network.inputs + sum(network.model.hidden) + network.outputs
    hidden = f"{shown(network.model.hidden)}: {weights:,} weights, {copies} numbers for each with {train.optimizer.name}"
    needs = {
        f"model.hidden must be @, got {hidden}": copies * weights * number,
        f"train.batch_size must be @, got {train.batch_size}: {batch:,} rows of {units:,} units": 2 * batch * units * number,
        f"data.target must have at most @, got {classes:,} classes": 8 * classes * (classes + 2 * rows.get("valid", 0)),
    }
    all_of_one = sum(needs.values())
    if networks > 1 and all_of_one <= there < all_of_one * networks:
        needs = {f"{key} must be at most {there // all_of_one}, @, got {networks} networks": all_of_one * networks}
    if sum(needs.values()) > there:
        told = max(needs, key=lambda one: needs[one])
        most = f"what {there / 1e9:.3g} GB of memory hold"
        raise SpecError(f"{told.replace('@', most)}, which takes {needs[told] / 1e9:,.0f} GB")
