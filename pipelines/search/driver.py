"""A study from its spec to its winner: generations of trials, each trained rung by rung in stacks, on any executor.

The driver alone talks to Optuna. What it does follows from the spec and what was found, never from which worker was quick:
a study that was interrupted anywhere and goes on, with other workers, is the study that was not.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import backends
from backends.base import Machine
from backends.supervisor import Checkpoint
from backends.weights import write_atomically
from pipelines.data import DataError
from pipelines.executors import Executor
from pipelines.project import project_of
from pipelines.search.networks import DatasetCache, Job, Network, advance, networks_of, split_state, stacks
from pipelines.search.records import State, TrialRecord, load_curve, save_curve
from pipelines.search.trials import OURS, InMemoryStudy, StudyError, StudyStorage, draw, drawn, rung_epochs
from pipelines.spec import Experiment, SpecError
from pipelines.spec.to_trial import check_memory

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

JOBS = "jobs"


@dataclass
class Progress:
    """Where a study stands, for those who watch. Holds no trial: a study of any length takes the same memory."""

    total: int  # trials that are wanted in all
    downwards: bool  # whether less is better of the first metric
    each: int  # epochs that a trial may take
    running: int = 0
    states: Counter[str] = field(default_factory=Counter)  # COMPLETE, PRUNED, FAIL -> how many trials ended so
    best: tuple[float, int] | None = None  # the best value of the first metric so far, and its trial
    spared: int = 0  # epochs

    def add(self, trial: TrialRecord) -> None:
        """One more trial is over."""
        self.states[trial.state] += 1
        if trial.state == "PRUNED" and trial.same_as is None:
            self.spared += self.each - trial.epochs
        if trial.state == "COMPLETE":
            found = (trial.values[0], trial.number)
            self.best = (min if self.downwards else max)(self.best or found, found, key=lambda one: one[0])

    @property
    def saved(self) -> float:
        """Share of all epochs so far that pruning saved."""
        return self.spared / max(1, self.each * self.states.total())


class Candidate(NamedTuple):
    """A trial of the generation in hand that is not over, and its networks."""

    trial: TrialRecord
    networks: list[Network]


@dataclass
class Driver:
    """Carries out a study that is open."""

    spec: Experiment
    folder: Path
    storage: StudyStorage
    datasets: DatasetCache
    executor: Executor
    width: int  # networks in a stack
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_trial_end: Callable[[TrialRecord], None] = lambda trial: None  # before the storage: after a kill it is called again

    def __post_init__(self) -> None:
        search, epochs = self.spec.search, self.spec.train.epochs
        self.machine = Machine("auto", self.spec.train.threads if self.executor.name == "here" else 1)
        self.memory = InMemoryStudy(self.spec)
        self.progress = Progress(0, search.directions[0] == "minimize", epochs * networks(self.spec, 1))
        for stored in self.storage.trials():
            if stored.state.is_finished():
                self.progress.add(TrialRecord.of(stored, self.spec))

    def run(self, total: int) -> None:
        """Top the study up to `total` trials. Begins no generation once search.timeout is over."""
        began, timeout, size = time.monotonic(), self.spec.search.timeout, self.spec.search.generation
        self.progress.total = total
        for start in range(0, total, size):
            numbers, stored = range(start, min(start + size, total)), self.storage.trials()
            if sum(one.state.is_finished() for one in stored[start : numbers.stop]) == len(numbers):
                continue
            if timeout is not None and time.monotonic() - began > timeout:
                break
            self.memory.begin_generation(stored[:start])
            self._generation(numbers, stored[start : numbers.stop])

    def _generation(self, numbers: range, known: Sequence[FrozenTrial]) -> None:
        """Ask, train and tell these trials; the `known`, asked before, are taken up as they were."""
        for one in known:
            if one.state.is_finished() or OURS in one.user_attrs:
                self.memory.begin(one)
            else:
                self.storage.write(self.memory.ask(one))
        for _ in numbers[len(known) :]:
            self.storage.begin(self.memory.ask(None))
        fresh = self._plan(numbers, [one.number for one in known if one.state.is_finished()])
        for one in known:
            if one.number not in fresh:
                self.memory.write(one)
        same = self._same_points(fresh)
        self._train([number for number in fresh if number not in same])
        for number, first in same.items():
            self._take_over(number, first)
        shutil.rmtree(self.folder / JOBS, ignore_errors=True)

    def _plan(self, numbers: range, finished: Sequence[int]) -> list[int]:
        """Which trials of a generation this session trains: noted on disk, so that the next one trains the same stacks.

        Trials that were over before the note was written are not in it: the study was topped up since.
        """
        place = self.folder / JOBS / f"{numbers.start}-{numbers.stop}.txt"
        if not place.exists():
            shutil.rmtree(self.folder / JOBS, ignore_errors=True)
            text = " ".join(str(number) for number in numbers if number not in finished)
            write_atomically(place, text.encode())
        return [int(number) for number in place.read_text().split()]

    # -- equal trials --

    def _same_points(self, fresh: Sequence[int]) -> dict[int, int]:
        """Of these trials those that an earlier one equals in point and seed -> the first that does."""
        first: dict[str, int] = {}
        same = {}
        for one in self.memory.trials():
            noted = one.user_attrs.get(OURS, {})
            # What another program ended says nothing.
            if noted.get("changes") and (noted.get("reason") or not one.state.is_finished()):
                earliest = first.setdefault(json.dumps(noted["changes"], sort_keys=True), one.number)
                if earliest < one.number and one.number in fresh:
                    same[one.number] = earliest
        return same

    def _take_over(self, number: int, first: int) -> None:
        """A trial ends as the equal one did, with its values, reports and curve; nothing is trained."""
        earlier = self.memory.trial(first)
        for epoch, value in earlier.intermediate_values.items():
            self.memory.report(number, epoch, value)
        known = TrialRecord.of(earlier, self.spec)
        trial = replace(
            known,
            number=number,
            generation=number // self.spec.search.generation,
            reason=f"as trial {first}: {known.reason}",
            epochs=0,
            steps=0,
            history=load_curve(self.folder, known),
            same_as=first,
        )
        self._tell(trial)

    # -- rungs --

    def _train(self, numbers: Sequence[int]) -> None:
        """Rung by rung until every trial is over. Trials are judged and told in the order of their numbers."""
        running = [one for number in numbers if (one := self._candidate(number))]
        last = max((network.trial.train.epochs for one in running for network in one.networks), default=0)
        for rung, until in enumerate(self._rungs(last)):
            self._show(len(running))
            if not running:
                break
            self._advance(running, rung, until)
            found = [ObjectiveValue.of(self.spec, one.networks) for one in running]
            # All of a rung are reported before one of them is judged. With several metrics, Optuna takes no reports.
            for one, value in zip(running, found, strict=True):
                if until is not None and len(value.values) == 1:
                    self.storage.write(self.memory.report(one.trial.number, until, value.values[0]))
            running = [one for one, value in zip(running, found, strict=True) if not self._ends(one, value, until)]
        self._show(0)

    def _candidate(self, number: int) -> Candidate | None:
        """A trial with its networks; None, and over, if the spec or the data refuse its values."""
        asked = self.memory.trial(number)
        trial = TrialRecord.of(asked, self.spec)
        try:
            networks = networks_of(number, drawn(asked, self.spec)[1], self.spec, self.datasets)
        except (SpecError, DataError, StudyError) as error:
            self._tell(replace(trial, state="FAIL", reason=f"refused: {' '.join(str(error).split())}"))
            return None
        variant, weights = networks[0].dataset.folder.name, max(network.weights for network in networks)
        return Candidate(replace(trial, variant=variant, weights=weights), networks)

    def _show(self, running: int) -> None:
        self.progress.running = running
        self.on_progress(self.progress)

    def _ends(self, one: Candidate, found: ObjectiveValue, until: int | None) -> bool:
        """Whether the trial is over, and told."""
        compared, number = until is not None and self.spec.search.pruner != "none", one.trial.number
        state, reason = judge(one.networks, found, until, lambda: compared and self.memory.pruned(number))
        if state == "RUNNING":
            return False
        progress = [each.state.progress for each in one.networks]
        came = ObjectiveValue() if state == "FAIL" else found
        ended = replace(one.trial, state=state, reason=reason, values=came.values, spread=came.spread)
        trial = replace(
            ended,
            epochs=sum(len(p["history"]) for p in progress),
            steps=sum(p["steps"] for p in progress),
            best_epoch=progress[0]["best_epoch"],
            history=mean_history([p["history"] for p in progress]),
        )
        self._tell(trial)
        return True

    def _rungs(self, last: int) -> list[int] | list[None]:
        """Epochs at which to look, up to the last; None, to the end, where nobody looks."""
        search, each = self.spec.search, rung_epochs(self.spec)
        nobody = search.pruner == "none" and search.rung == "auto"
        return [None] if nobody else [*range(each, last, each), last]

    def _advance(self, running: Sequence[Candidate], rung: int, until: int | None) -> None:
        """Train what goes on, up to the rung. What an earlier session finished is read from its file."""
        live = [network for one in running for network in one.networks if network.state.running]
        left = []
        for stack in stacks(live, self.width):
            check_memory(stack[0].trial, dict(zip(("train", "valid"), stack[0].sizes, strict=True)), len(stack))
            job = Job.of(self.spec, self.machine, stack, until)
            file = self.folder / JOBS / f"rung{rung}-{job.key}.safetensors"
            try:
                split_state(Checkpoint.load(file), stack)
            except (FileNotFoundError, ValueError):  # or of an earlier version
                left.append((stack, job, file))
        for place, found in self.executor.run(advance, [(job,) for _, job, _ in left]):
            stack, _, file = left[place]
            found.save(file)
            split_state(found, stack)

    def _tell(self, trial: TrialRecord) -> None:
        """Write the trial's curve, then that it is over."""
        trial = replace(trial, curve=save_curve(self.folder, trial.number, trial.history))
        self.on_trial_end(trial)
        values = trial.values if trial.state == "COMPLETE" else None
        if self.storage.write(self.memory.tell(trial.number, trial.state, values, trial.details())):
            self.progress.add(trial)


# -- what a trial is worth --


@dataclass(frozen=True)
class ObjectiveValue:
    """The value of each metric at the best epoch so far: mean and sd over the seeds. Empty if there is none."""

    values: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    undefined: str = ""  # the first metric that the outputs do not define

    @classmethod
    def of(cls, spec: Experiment, networks: Sequence[Network]) -> ObjectiveValue:
        """What the networks of one trial have come to."""
        weights = {"val_weights": float(max(one.weights for one in networks))}
        reached = [one.state.progress for one in networks]
        best = [p["history"][p["best_epoch"] - 1] | weights for p in reached if p["best_epoch"]]
        if len(best) < len(networks):
            return cls(undefined=spec.train.early_stopping.monitor)
        values, spread = [], []
        for metric in spec.search.metrics:
            each = [record.get(f"val_{metric}", math.nan) for record in best]
            if not all(map(math.isfinite, each)):
                return cls(undefined=metric)
            values.append(statistics.fmean(each))
            spread.append(statistics.stdev(each) if len(each) > 1 else 0.0)
        return cls(tuple(values), tuple(spread) if len(best) > 1 else ())


def judge(networks: Sequence[Network], found: ObjectiveValue, epoch: int | None, pruned: Callable[[], bool]) -> tuple[State, str]:
    """How the trial ended, with a sentence; RUNNING if it goes on. One network that diverged fails its trial."""
    reached = [one.state.progress for one in networks]
    diverged = next((progress for progress in reached if progress["reason"] == "diverged"), None)
    if diverged:
        return "FAIL", diverged["message"]
    if any(one.state.running for one in networks):
        return ("PRUNED", f"pruned after epoch {epoch}") if found.values and pruned() else ("RUNNING", "")
    if not found.values:
        return "FAIL", f"the metric {found.undefined} has no finite value on the validation rows"
    return "COMPLETE", "; ".join(dict.fromkeys(progress["message"] for progress in reached))


def mean_history(histories: Sequence[Sequence[dict[str, Any]]]) -> tuple[dict[str, float], ...]:
    """Epoch by epoch, the mean over the seeds that came so far."""
    epochs = ([row for row in there if row] for there in zip_longest(*histories))
    return tuple({name: sum(row[name] for row in there) / len(there) for name in there[0]} for there in epochs)


# -- how many networks --


def networks(spec: Experiment, trials: int) -> int:
    """Of so many trials: one for each seed and fold."""
    return trials * spec.search.seeds * (spec.data.split.folds or 1)


def processor_width(spec: Experiment) -> int:
    """Networks in a stack on a processor: two stacks a generation, for two workers; nothing is gained beyond 16."""
    search = spec.search
    return search.width if search.width != "auto" else min(16, -(-networks(spec, search.generation) // 2))


def choose_width(executor: Executor, spec: Experiment) -> int:
    """Networks in a stack; an accelerator wants many."""
    jobs = [(spec.train.backend,)] * executor.workers  # so all are started at once
    accelerated = spec.search.width == "auto" and any(found for _, found in executor.run(has_accelerator, jobs))
    return 256 if accelerated else processor_width(spec)


def has_accelerator(backend: str) -> bool:
    """Whether the worker that this runs in has one."""
    return backends.get(backend).devices()[0] != "cpu"


# -- the plain Optuna way --


def objective(spec: Experiment) -> Callable[[Any], float | tuple[float, ...]]:
    """A function for optuna's `study.optimize`: draws from search.space, trains here, and returns the validation value.

    It reports at each rung and raises optuna.TrialPruned where the study's pruner says so; a network that diverges gives NaN,
    which Optuna takes for a failure. The rows are prepared once, below .deltarule/objective. Test rows are not written.
    """
    root = project_of(Path())
    datasets = DatasetCache(root / ".deltarule" / "objective", root)
    return lambda one: _objective(one, spec, datasets)


def _objective(one: Any, base: Experiment, datasets: DatasetCache) -> float | tuple[float, ...]:
    import optuna

    networks = networks_of(one.number, draw(one, base), base, datasets)
    single, machine = len(base.search.metrics) == 1, Machine("auto", base.train.threads)
    epoch, state = 0, "RUNNING"
    while state == "RUNNING":
        epoch += rung_epochs(base)
        live = [network for network in networks if network.state.running]
        for stack in stacks(live, len(live)):
            split_state(advance(Job.of(base, machine, stack, epoch)), stack)
        found = ObjectiveValue.of(base, networks)
        if single and found.values:
            one.report(found.values[0], epoch)
        state, reason = judge(networks, found, epoch, one.should_prune if single else lambda: False)
    if state == "PRUNED":
        raise optuna.TrialPruned(reason)
    if state == "FAIL":
        one.set_user_attr("reason", reason)
        return float("nan")
    return found.values[0] if single else found.values
