"""A study from its spec to its winner: generations of trials, each trained rung by rung in stacks, on any executor.

The driver alone talks to Optuna. What it does follows from the study's spec and what was found, never from which worker was
quick: so a study that was interrupted anywhere and goes on, with other workers, is the study that was not.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import backends
from backends.base import Machine
from backends.supervisor import Checkpoint
from backends.weights import write_atomically
from pipelines.data import DataError
from pipelines.executors import Executor
from pipelines.search.networks import DatasetCache, Job, Network, State, advance, networks_of, split_state, stacks
from pipelines.search.objective import ObjectiveValue, judge
from pipelines.search.records import TrialRecord, load_curve, save_curve
from pipelines.search.sampling import rung_epochs
from pipelines.search.trials import OURS, InMemoryStudy, StudyError, StudyStorage, drawn
from pipelines.spec import Experiment, SpecError
from pipelines.spec.to_trial import check_memory

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
            value = trial.values[0]
            if self.best is None or (value < self.best[0] if self.downwards else value > self.best[0]):
                self.best = (value, trial.number)

    @property
    def saved(self) -> float:
        """Share of all epochs so far that pruning saved."""
        return self.spared / max(1, self.each * self.states.total())


@dataclass
class Candidate:
    """A trial of the generation in hand, its networks, and how they stand."""

    trial: TrialRecord
    networks: list[Network] = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Whether it is not over."""
        return self.trial.state == "RUNNING"


@dataclass
class Driver:
    """Carries out a study that is open."""

    experiment: Experiment
    folder: Path
    storage: StudyStorage
    datasets: DatasetCache
    executor: Executor
    width: int  # networks in a stack
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_trial_end: Callable[[TrialRecord], None] = lambda trial: None  # before the storage: after a kill it is called again

    def __post_init__(self) -> None:
        search, epochs = self.experiment.search, self.experiment.train.epochs
        self.machine = Machine("auto", self.experiment.train.threads if self.executor.name == "here" else 1)
        self.memory = InMemoryStudy(self.experiment)
        self.progress = Progress(0, search.directions[0] == "minimize", epochs * networks(self.experiment, 1))
        for stored in self.storage.trials():
            if stored.state.is_finished():
                self.progress.add(TrialRecord.of(stored, self.experiment))

    def run(self, total: int) -> None:
        """Top the study up to `total` trials. Begins no generation once search.timeout is over."""
        began, timeout, size = time.monotonic(), self.experiment.search.timeout, self.experiment.search.generation
        self.progress.total = total
        for start in range(0, total, size):
            numbers, stored = range(start, min(start + size, total)), self.storage.trials()
            if len(stored) >= numbers.stop and all(stored[n].state.is_finished() for n in numbers):
                continue
            if timeout is not None and time.monotonic() - began > timeout:
                break
            self._generation(numbers)

    def _generation(self, numbers: range) -> None:
        """Ask, train and tell these trials; those asked before are taken up as they were."""
        stored = self.storage.trials()
        known = stored[numbers.start : numbers.stop]
        self.memory.begin_generation(stored[: numbers.start])
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
        self._carry_out(fresh)
        shutil.rmtree(self.folder / JOBS, ignore_errors=True)

    def _plan(self, numbers: range, finished: Sequence[int]) -> list[int]:
        """Which trials of a generation this session trains: noted on disk, so that one that goes on trains the same stacks.

        Trials that were over before the note was written are not in it: the study was topped up since.
        """
        place = self.folder / JOBS / f"{numbers.start}-{numbers.stop}.txt"
        if not place.exists():
            shutil.rmtree(self.folder / JOBS, ignore_errors=True)
            text = " ".join(str(number) for number in numbers if number not in finished)
            write_atomically(place, text.encode())
        return [int(number) for number in place.read_text().split()]

    def _candidate(self, number: int) -> Candidate:
        """A trial with its networks; without, and over, if the spec or the data refuse its values."""
        asked = self.memory.trial(number)
        trial = TrialRecord.of(asked, self.experiment)
        trial = replace(trial, seed=trial.changes.get("seed", self.experiment.seed))
        try:
            networks = networks_of(number, drawn(asked, self.experiment)[1], self.experiment, self.datasets)
        except (SpecError, DataError, StudyError) as error:
            return Candidate(replace(trial, state="FAIL", reason=f"refused: {' '.join(str(error).split())}"))
        trial = replace(trial, variant=networks[0].dataset.name, weights=max(network.weights for network in networks))
        return Candidate(trial, networks, [State() for _ in networks])

    # -- equal trials --

    def _carry_out(self, fresh: Sequence[int]) -> None:
        same = self._same_points(fresh)
        self._train([self._candidate(number) for number in fresh if number not in same])
        for number, first in same.items():
            self._take_over(number, first)

    def _same_points(self, fresh: Sequence[int]) -> dict[int, int]:
        """Of these trials those that an earlier one equals in point and seed -> the first that does."""
        first: dict[str, int] = {}
        for one in self.memory.trials():
            # What another program ended says nothing.
            if one.user_attrs.get(OURS, {}).get("reason") or not one.state.is_finished():
                first.setdefault(_point(one), one.number)
        points = {number: _point(self.memory.trial(number)) for number in fresh}
        return {n: first[point] for n, point in points.items() if point and first.get(point, n) < n}

    def _take_over(self, number: int, first: int) -> None:
        """A trial ends as the equal one did, with its values, reports and curve; nothing is trained."""
        earlier = self.memory.trial(first)
        for epoch, value in earlier.intermediate_values.items():
            self.memory.report(number, epoch, value)
        known = TrialRecord.of(earlier, self.experiment)
        trial = replace(
            known,
            number=number,
            generation=number // self.experiment.search.generation,
            reason=f"as trial {first}: {known.reason}",
            epochs=0,
            steps=0,
            history=load_curve(self.folder, known),
            same_as=first,
        )
        self._tell(Candidate(trial))

    # -- rungs --

    def _train(self, candidates: list[Candidate]) -> None:
        """Rung by rung until every trial is over. Trials are judged and told in the order of their numbers."""
        for one in candidates:
            if not one.running:
                self._tell(one)
        for rung, until in enumerate(self._rungs(candidates)):
            running = [one for one in candidates if one.running]
            self._show(len(running))
            if not running:
                break
            self._advance(running, rung, until)
            found = [ObjectiveValue.of(self.experiment, one.states, one.trial.weights) for one in running]
            # All of a rung are reported before one of them is judged. With several metrics, Optuna takes no reports.
            for one, value in zip(running, found, strict=True):
                if until is not None and len(value.values) == 1:
                    self.storage.write(self.memory.report(one.trial.number, until, value.values[0]))
            for one, value in zip(running, found, strict=True):
                self._judge(one, value, until)
        self._show(0)

    def _show(self, running: int) -> None:
        self.progress.running = running
        self.on_progress(self.progress)

    def _judge(self, one: Candidate, found: ObjectiveValue, until: int | None) -> None:
        compared = until is not None and self.experiment.search.pruner != "none"
        state, reason = judge(one.states, found, until, lambda: compared and self.memory.pruned(one.trial.number))
        if state != "RUNNING":
            progress = [state.progress for state in one.states]
            one.trial = replace(
                one.trial,
                state=state,
                reason=reason,
                epochs=sum(len(p["history"]) for p in progress),
                values=() if state == "FAIL" else found.values,
                spread=() if state == "FAIL" else found.spread,
                steps=sum(p["steps"] for p in progress),
                best_epoch=progress[0]["best_epoch"],
                history=mean_history([p["history"] for p in progress]),
            )
            self._tell(one)

    def _rungs(self, candidates: Sequence[Candidate]) -> Iterator[int | None]:
        """Epochs at which to look; None, to the end, where nobody looks."""
        search = self.experiment.search
        if search.pruner == "none" and search.rung == "auto":
            yield None
            return
        each = rung_epochs(self.experiment)
        last = max((n.trial.train.epochs for one in candidates for n in one.networks), default=0)
        yield from (*range(each, last, each), last)

    def _advance(self, running: Sequence[Candidate], rung: int, until: int | None) -> None:
        """Train every network that goes on, up to the rung. What an earlier session finished is read from its file."""
        by_number = {one.trial.number: one for one in running}
        live = [network for one in running for network in one.networks if one.states[network.replica].running]
        left = []
        for stack in stacks(live, self.width):
            check_memory(stack[0].trial, dict(zip(("train", "valid"), stack[0].sizes, strict=True)), len(stack))
            states = [by_number[n.number].states[n.replica] for n in stack]
            job = Job.of(self.experiment, self.machine, stack, states, until)
            file = self.folder / JOBS / f"rung{rung}-{job.key}.safetensors"
            if found := _kept(file):
                _set_states(by_number, stack, found)
            else:
                left.append((stack, job, file))
        for place, found in self.executor.run(advance, [(job,) for _, job, _ in left]):
            stack, _, file = left[place]
            found.save(file)
            _set_states(by_number, stack, found)

    def _tell(self, one: Candidate) -> None:
        """Write the trial's curve, then that it is over."""
        trial = replace(one.trial, curve=save_curve(self.folder, one.trial.number, one.trial.history))
        self.on_trial_end(trial)
        values = trial.values if trial.state == "COMPLETE" else None
        if self.storage.write(self.memory.tell(trial.number, trial.state, values, trial.details())):
            self.progress.add(trial)
        one.states.clear()


def _point(trial: Any) -> str:
    """What was drawn, as text; "" where that is not known."""
    changes = trial.user_attrs.get(OURS, {}).get("changes")
    return json.dumps(changes, sort_keys=True) if changes else ""


def _kept(file: Path) -> Checkpoint | None:
    """What an earlier session saved of a job; None where none can be read."""
    try:
        found = Checkpoint.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return found if "members" in found.numbers else None  # of an earlier version


def _set_states(candidates: dict[int, Candidate], stack: Sequence[Network], reached: Checkpoint) -> None:
    for network, state in zip(stack, split_state(reached), strict=True):
        candidates[network.number].states[network.replica] = state


def mean_history(histories: Sequence[Sequence[dict[str, Any]]]) -> tuple[dict[str, float], ...]:
    """Epoch by epoch, the mean over the seeds that came so far."""
    epochs = ([row for row in there if row] for there in zip_longest(*histories))
    return tuple({name: sum(row[name] for row in there) / len(there) for name in there[0]} for there in epochs)


def networks(experiment: Experiment, trials: int) -> int:
    """Of so many trials: one for each seed and fold."""
    return trials * experiment.search.seeds * (experiment.data.split.folds or 1)


def networks_at_once(experiment: Experiment, trials: int) -> int:
    """Of so many trials, no more than a generation of which train at a time."""
    return networks(experiment, min(trials, experiment.search.generation))


def processor_width(experiment: Experiment) -> int:
    """Networks in a stack on a processor, where nothing is gained beyond 16: two stacks a generation, for two workers."""
    search = experiment.search
    return search.width if search.width != "auto" else min(16, -(-networks_at_once(experiment, search.generation) // 2))


def choose_width(executor: Executor, experiment: Experiment) -> int:
    """Networks in a stack; an accelerator wants many."""
    if experiment.search.width == "auto":
        asked = executor.run(has_accelerator, [(experiment.train.backend,)] * executor.workers)  # so all are started at once
        return 256 if any(found for _, found in asked) else processor_width(experiment)
    return processor_width(experiment)


def has_accelerator(backend: str) -> bool:
    """Whether the worker that this runs in has one."""
    return backends.get(backend).devices()[0] != "cpu"
