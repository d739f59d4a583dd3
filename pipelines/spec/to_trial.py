"""From the spec to what a backend sees, once the data say what there is: inputs, outputs, and the rows of each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from backends.losses import class_weights
from backends.spec import ClassWeights, Task, Trial
from pipelines.spec.describe import nearest
from pipelines.spec.file import SpecError

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
    def number(self) -> int | None:
        """Of the fold that this is all about; None without folds."""
        ...


def trial(experiment: Experiment, about: Described) -> Trial:
    """The experiment as a backend sees it. Raises SpecError for class weights that these data do not take."""
    e, asked = experiment, experiment.train.class_weights
    numbers = None
    if asked != "none" and about.task == "regression":
        given = asked if isinstance(asked, str) else f"weights of {', '.join(asked)}"
        raise SpecError(f"train.class_weights must be none for a regression task, which has no classes, got {given}")
    if asked != "none":
        counts = about.class_counts["train"]
        own = None if isinstance(asked, str) else _of_labels(asked, list(counts))
        numbers = class_weights(list(counts.values()), own)  # one a class, of mean 1 over the training rows
    return Trial(
        seed=e.seed, fold=about.number, task=about.task, inputs=len(about.inputs), outputs=about.outputs, model=e.model,
        regularization=e.regularization, train=e.train, class_weights=numbers,
    )  # fmt: skip


def _of_labels(asked: ClassWeights, labels: list[str]) -> list[float]:
    unknown = [label for label in asked if label not in labels]
    if unknown:
        raise SpecError(f"train.class_weights must name classes of the target, got {unknown[0]!r}; {nearest(unknown[0], labels)}")
    missing = [label for label in labels if label not in asked]
    if missing:
        missed = f"{', '.join(asked)}; missing: {', '.join(missing)}"
        raise SpecError(f"train.class_weights must give every class a weight, got {missed}")
    return [asked[label] for label in labels]
