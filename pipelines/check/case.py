"""What is compared: one trial, its training and validation rows, and how many steps.

A folder that every process reads.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.base import Data, Machine
from backends.spec import Storage, Trial
from backends.weights import layout
from pipelines import stages
from pipelines.data import About
from pipelines.spec import Experiment, SpecError, trial
from pipelines.stages import RunPaths
from pipelines.stages.metrics import Truth, check_metric

REFERENCE = "reference"
# A whole fit is run if it costs no more than this: products of a weight and a row, summed over steps (1e9 a second), and steps.
PRODUCTS, STEPS = 1e10, 20_000
STATES = 128 * 2**20  # bytes of the reference's states that are kept, of each precision
LEAST = 4  # steps that are compared, however large a state is
EPOCHS = 2  # whose history is compared


@dataclass(frozen=True)
class Case:
    """One comparison. `trial` is the user's own; `at(precision)` is what is trained."""

    folder: Path
    trial: Trial
    about: About
    precisions: tuple[Storage, ...]
    steps: int  # after which weights are compared

    @staticmethod
    def make(folder: Path, experiment: Experiment, base: Path, steps: int, precisions: tuple[Storage, ...]) -> Case:
        """Split the user's data anew, into `folder`. Raises DataError and SpecError.

        The outs of the split stage are not used: only DVC knows whether they are of this spec and these data.
        """
        folds = experiment.data.split.folds
        if folds:
            raise SpecError(
                f"data.split.folds must be null for deltarule parity, which compares one network, got {folds}; "
                "add --set data.split.folds=null"
            )
        places = RunPaths(folder, base=base, project=folder)
        stages.split(experiment, places)
        shutil.rmtree(places.data / "test")
        about = About.load(places.about)
        network = trial(experiment, about)
        case = Case(folder, network, about, precisions, min(steps, _total(network, about)))
        try:
            check_metric(case.truth(), network.train.early_stopping.monitor)
        except ValueError as error:
            raise SpecError(str(error)) from None
        return case

    def at(self, precision: Storage) -> Trial:
        """The user's trial, in this precision."""
        return self.trial.model_copy(update={"train": self.trial.train.model_copy(update={"precision": precision})})

    def data(self) -> Data:
        """Training and validation rows."""
        train, valid = (self.about.open(RunPaths(self.folder).data, part) for part in ("train", "valid"))
        return Data(train.X, train.y, valid.X, valid.y, weights=train.weights)

    def truth(self) -> Truth:
        """What outputs on the validation rows are judged by."""
        return Truth.of(self.about, self.about.open(RunPaths(self.folder).data, "valid").y)

    def machine(self, backend: str) -> Machine:
        """The spec's, on the spec's backend; the others may not be able to share the work among devices."""
        train = self.trial.train
        return Machine(train.devices if backend == train.backend else "auto", train.threads)

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-self.about.rows["train"] // self.trial.train.batch_size)

    @property
    def whole(self) -> bool:
        """Whether the whole fit is run."""
        return _affordable(self.trial, _total(self.trial, self.about))

    @property
    def last_step(self) -> int | None:
        """How far a free run goes: to the end of the fit (None), over two epochs, or `steps`, as can be afforded."""
        if self.whole:
            return None
        epochs = EPOCHS * self.epoch_steps
        return max(self.steps, epochs) if _affordable(self.trial, epochs) else self.steps

    def compared_steps(self) -> list[int]:
        """The steps, from 0, that a backend takes from the reference's own state: all of them, while states are small."""
        train, count = self.trial.train, layout(self.trial)[-1].stop
        bytes_of_a_state = count * 8 * (1 if train.optimizer.name == "sgd" else 3)
        most = max(LEAST, STATES // bytes_of_a_state)
        if self.steps <= most:
            return list(range(self.steps))
        chosen = [0, 1, self.epoch_steps - 1, self.steps - 1]  # the first ones, an epoch's short last batch, the last
        chosen = [step for step in dict.fromkeys(chosen) if step < self.steps]
        spread = (round(i * (self.steps - 1) / (most - 1)) for i in range(most))
        return sorted([*chosen, *[step for step in spread if step not in chosen][: max(0, most - len(chosen))]])

    def describe(self) -> dict[str, Any]:
        """What was compared, for reports."""
        return {
            "source": self.about.source,
            "rows": {part: self.about.rows[part] for part in ("train", "valid")},
            "data_hashes": {part: self.about.sha256[part] for part in ("train", "valid")},
            "trial": self.trial.model_dump(mode="json"),
            "precisions": list(self.precisions),
            "steps": self.steps,
            "steps_looked_at": len(self.compared_steps()),
            "whole_fit": self.whole,
        }


def _total(network: Trial, about: About) -> int:
    return network.train.epochs * -(-about.rows["train"] // network.train.batch_size)


def _affordable(network: Trial, steps: int) -> bool:
    return steps <= STEPS and steps * network.train.batch_size * layout(network)[-1].stop <= PRODUCTS
