"""A study from its spec to its winner: generations of trials, each trained rung by rung in stacks, on any executor.

The driver alone talks to Optuna. What it does follows from the study's spec and what was found, never from which worker was
quick: so a study that was interrupted anywhere and goes on, with other workers, is the study that was not.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import backends
from backends.base import Machine
from backends.weights import layout, write_atomically
from pipelines.data import DataError
from pipelines.executors import Executor
from pipelines.search.book import Book
from pipelines.search.mirror import OURS, Mirror, drawn
from pipelines.search.pack import Network, State, stacks
from pipelines.search.records import TrialRecord, save_trial, trial_path
from pipelines.search.samplers import rung_epochs
from pipelines.search.tally import Tally, Watch
from pipelines.search.variants import Variants
from pipelines.search.verdict import Ended, Worth, judge, worth
from pipelines.search.work import Job, address, advance, load_states, measured, save_states
from pipelines.spec import Experiment, SpecError, trial
from pipelines.stages.folds import sizes

STUDIES = Path("studies")  # below the project
JOBS = "jobs"


@dataclass
class Candidate:
    """A trial of the generation in hand: its networks, and how they stand."""

    number: int
    params: dict[str, Any]
    changes: dict[str, Any]
    networks: list[Network] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    weights: int = 0
    ended: Ended | None = None


@dataclass
class Driver:
    """Carries out a study that is open."""

    experiment: Experiment
    folder: Path
    book: Book
    variants: Variants
    executor: Executor
    width: int
    machine: Machine
    watch: Watch = lambda look: None
    told: Callable[[TrialRecord], None] = lambda record: None  # called when a trial is over and its file written
    stood: Callable[[], None] = lambda: None  # called when a generation begins, and when it is over
    mirror: Mirror = field(init=False)
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        search = self.experiment.search
        self.tally = Tally(search.directions[0], self.experiment.train.epochs * networks(self.experiment, 1))
        for stored in self.book.trials():
            if stored.state.is_finished():
                epochs = stored.user_attrs.get(OURS, {}).get("epochs", 0)
                self.tally.add(stored.number, stored.state.name, stored.values[0] if stored.values else None, epochs)

    def run(self, total: int) -> None:
        """Top the study up to `total` trials. Begins no generation once search.timeout is over."""
        began, timeout = time.monotonic(), self.experiment.search.timeout
        for numbers in generations(total, self.experiment.search.generation):
            if self._over(numbers):
                continue
            if timeout is not None and time.monotonic() - began > timeout:
                break
            self._generation(numbers, total)

    def _over(self, numbers: range) -> bool:
        stored = self.book.trials()
        return len(stored) >= numbers.stop and all(stored[n].state.is_finished() for n in numbers)

    def _generation(self, numbers: range, total: int) -> None:
        """Ask, train and tell these trials; those of them that were asked before are taken up as they were then."""
        stored = self.book.trials()
        self.mirror = Mirror(self.experiment, stored[: numbers.start])
        known = [trial for trial in stored if trial.number in numbers]
        for one in known:
            self.mirror.take_up(one)
        size = self.experiment.search.generation
        self.book.add([self.mirror.ask(numbers.start // size) for _ in numbers[len(known) :]])
        fresh = self._plan(numbers, [one.number for one in known if one.state.is_finished()])
        for one in known:
            if one.number not in fresh:
                self.mirror.settle(one.number, one)
        self.stood()
        self._train([self._candidate(number) for number in fresh], total)
        self.stood()
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
        values = drawn(self.mirror.frozen(number), self.experiment)
        candidate = Candidate(number, values.params, values.changes)
        try:
            experiment = self.experiment.drawn(values.changes)
            variant = self.variants.of(experiment)
            folds = [trial(experiment, about) for about in variant.about.each]
        except (SpecError, DataError) as error:
            candidate.ended = Ended("FAIL", f"refused: {' '.join(str(error).split())}")
            return candidate
        candidate.weights = max(layout(one)[-1].stop for one in folds)
        seeded = (one.model_copy(update={"seed": one.seed + i}) for i in range(self.experiment.search.seeds) for one in folds)
        for replica, one in enumerate(seeded):
            candidate.networks.append(Network(number, replica, variant.name, one, sizes(variant.about, one)))
        candidate.states = [State() for _ in candidate.networks]
        return candidate

    # -- rungs --------------------------------------------------------------------------------------------------------

    def _train(self, candidates: list[Candidate], total: int) -> None:
        """Rung by rung until every trial is over. Trials are judged and told in the order of their numbers."""
        for one in candidates:
            if one.ended:
                self._tell(one)
        for rung, until in enumerate(self._rungs(candidates)):
            running = [one for one in candidates if not one.ended]
            self.watch(self.tally.look(total, len(running)))
            if not running:
                break
            self._advance(running, rung, until)
            found = [(one, worth(self.experiment, one.states, one.weights)) for one in running]
            if until is not None:
                self._report(found, until)
            for one, value in found:
                one.ended = judge(one.states, value, until, self._pruner(one, until))
                if one.ended:
                    self._tell(one)
        self.watch(self.tally.look(total, 0))

    def _report(self, found: Sequence[tuple[Candidate, Worth]], epoch: int) -> None:
        """All of a rung are reported before one of them is judged. With several metrics, Optuna takes no reports."""
        for one, value in found:
            if len(value.values) == 1:
                self.mirror.report(one.number, epoch, value.values[0])
                self.book.report(one.number, epoch, value.values[0])

    def _pruner(self, one: Candidate, until: int | None) -> Callable[[], bool]:
        if until is None or self.experiment.search.pruner == "none":
            return lambda: False
        return lambda: self.mirror.pruned(one.number)

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
        """Train every network that goes on, up to the rung."""
        places = {(n.number, n.replica): (one, i) for one in running for i, n in enumerate(one.networks) if one.states[i].running}
        networks = [one.networks[i] for one, i in places.values()]
        groups = stacks(networks, self.width)
        jobs = [self._job([places[n.number, n.replica] for n in group], group, until) for group in groups]
        for group, states in self._carry_out(groups, jobs, rung):
            for network, state in zip(group, states, strict=True):
                one, i = places[network.number, network.replica]
                one.states[i] = state

    def _job(self, members: Sequence[tuple[Candidate, int]], group: Sequence[Network], until: int | None) -> Job:
        metrics = measured(self.experiment.search)
        states = tuple(one.states[i] for one, i in members)
        rows = str(self.variants.folder / group[0].variant)
        backend = self.experiment.train.backend
        return Job(backend, self.machine, rows, metrics, tuple(n.trial for n in group), states, until)

    def _carry_out(
        self, groups: Sequence[list[Network]], jobs: Sequence[Job], rung: int
    ) -> Iterator[tuple[list[Network], list[State]]]:
        """Each stack with its states, as they come; what an earlier session finished is read from its file."""
        left = []
        for group, job in zip(groups, jobs, strict=True):
            file = self.folder / JOBS / f"rung{rung}-{sha256(address(job).encode()).hexdigest()[:24]}.safetensors"
            found = load_states(file)
            if found is None:
                left.append((group, job, file))
            else:
                yield group, found
        for place, states in self.executor.run(advance, [(job,) for _, job, _ in left]):
            group, _, file = left[place]
            save_states(file, states)
            yield group, states

    # -- what is over -------------------------------------------------------------------------------------------------

    def _tell(self, one: Candidate) -> None:
        """Write the trial's file, then tell the mirror and the storage."""
        assert one.ended is not None
        record = self._record(one, one.ended)
        save_trial(trial_path(self.folder, one.number), record)
        self.told(record)  # before the storage: after a kill it is told again, and kept once
        known = self.book.finished(one.number)
        told = self.mirror.tell(one.number, record.state, record.values if record.state == "COMPLETE" else None)
        more = {"reason": record.reason, "epochs": record.epochs, "steps": record.steps, "best_epoch": record.best_epoch}
        self.book.tell(
            told,
            {**more, "spread": list(record.spread), "seed": record.seed, "weights": record.weights, "variant": record.variant},
        )
        one.states.clear()
        if not known:
            self.tally.add(one.number, record.state, record.values[0] if record.values else None, record.epochs)

    def _record(self, one: Candidate, ended: Ended) -> TrialRecord:
        progress = [state.progress for state in one.states if state.progress]
        return TrialRecord(
            number=one.number, state=ended.state, params=one.params, changes=one.changes, values=ended.values,
            spread=ended.spread, reason=ended.reason, epochs=sum(len(p["history"]) for p in progress),
            steps=sum(p["steps"] for p in progress), best_epoch=progress[0]["best_epoch"] if progress else None,
            seed=one.changes.get("seed", self.experiment.seed), generation=one.number // self.experiment.search.generation,
            variant=one.networks[0].variant if one.networks else "", weights=one.weights, history=mean_history(progress),
        )  # fmt: skip


def generations(total: int, size: int) -> Iterator[range]:
    """The numbers of each generation; the last one ends with the study."""
    for start in range(0, total, size):
        yield range(start, min(start + size, total))


def mean_history(progress: Sequence[dict[str, Any]]) -> tuple[dict[str, float], ...]:
    """Epoch by epoch, the mean over the seeds that came so far."""
    if not progress:
        return ()
    rows = []
    for epoch in range(max(len(p["history"]) for p in progress)):
        there = [p["history"][epoch] for p in progress if epoch < len(p["history"])]
        rows.append({name: sum(r[name] for r in there) / len(there) for name in there[0]})
    return tuple(rows)


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
        [(_, accelerator)] = executor.run(accelerated, [(experiment.train.backend,)])
        return 256 if accelerator else processor_width(experiment)
    return processor_width(experiment)


def accelerated(backend: str) -> bool:
    """Whether the worker that this runs in has an accelerator."""
    return backends.get(backend).devices()[0] != "cpu"
