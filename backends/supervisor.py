"""What happens between chunks, once, for every backend: stopping, best weights, divergence, history, checkpoints.

It is an iterator of chunks, so either side can drive: `for chunk in supervisor.chunks()`, or a framework's own loop.
A checkpoint is the stack's state plus the supervisor's; there is no generator to save, so a run resumes to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import logging
import operator
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backends import draws, losses, weights
from backends.base import CHUNK_STEPS, Backend, Chunk, Data, Losses, Machine, Report, Signals, Stack
from backends.optimizers import RULES
from backends.spec import NDArray, Trial, learning_rates

Reason = Literal["running", "completed", "early_stopping", "diverged", "pruned"]
Record = dict[str, float]
Metrics = Callable[[NDArray], Record]  # outputs on the validation rows, (n, O) before softmax -> {"accuracy": ...}
Watch = Callable[[int, Record], bool]  # (trial's place in the list, the epoch's record) -> True to prune it

CHECKPOINT_SECONDS = 15.0  # between two at most
LEAST_SECONDS, TIMES_ITS_COST = 1.0, 50  # sooner where one is written so quickly that it costs 2 % of the time
log = logging.getLogger("deltarule")


@dataclass(frozen=True)
class Result:
    """How one trial went. `weights` (P,) are those of `best_epoch`; a trial that diverged at once has none of either."""

    weights: NDArray | None
    best_epoch: int | None  # counted from 1
    history: list[Record]  # one record an epoch that was completed
    reason: Reason
    message: str  # one sentence: why it ended
    steps: int  # optimizer steps that were carried out

    @property
    def best(self) -> Record:
        """The record of the best epoch; empty if there is none."""
        return self.history[self.best_epoch - 1] if self.best_epoch else {}


@dataclass
class Progress:
    """Where one trial stands. All but the weights goes into a checkpoint as JSON."""

    history: list[Record] = field(default_factory=list)
    best_epoch: int | None = None
    best_value: float | None = None
    reason: Reason = "running"
    message: str = ""
    steps: int = 0

    def end(self, reason: Reason, message: str) -> None:
        """Nothing more is counted for this trial."""
        self.reason, self.message = reason, message


@dataclass(frozen=True)
class Checkpoint:
    """A run between two steps: plain numbers and named arrays."""

    numbers: dict[str, Any]
    arrays: dict[str, NDArray]

    def save(self, path: Path) -> None:
        """As safetensors with a hash of all it holds, to a temporary name, then renamed."""
        from safetensors.numpy import save

        arrays = {name: np.ascontiguousarray(value) for name, value in self.arrays.items()}
        numbers = json.dumps(self.numbers)
        weights.write_atomically(path, save(arrays, metadata={"deltarule": numbers, "sha256": _digest(numbers, arrays)}))

    @staticmethod
    def load(path: Path) -> Checkpoint:
        """Raises ValueError if the file is not a checkpoint of ours, or not what was written."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                known = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            numbers = known["deltarule"]
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path} is not a checkpoint of deltarule ({error})") from error
        if known.get("sha256") != _digest(numbers, arrays):
            raise ValueError(f"{path} {'is damaged' if 'sha256' in known else 'has no hash: an older version wrote it'}")
        return Checkpoint(json.loads(numbers), arrays)


def _digest(numbers: str, arrays: Mapping[str, NDArray]) -> str:
    digest = hashlib.sha256(numbers.encode())
    for name, value in sorted(arrays.items()):
        digest.update(f"\0{name} {value.dtype.str} {value.shape}\0".encode() + value.tobytes())
    return digest.hexdigest()


class Supervisor:
    """Deals the chunks of one stack, and decides for each of its trials.

    `metrics` gives further numbers of an epoch from the validation outputs, or has such a function a fold; the spec may monitor
    one of them, the larger the better if it is in `higher_is_better`. `watch` sees each trial's record at each epoch and may
    prune it. Without `probing`, records say nothing of the error signal, which costs as much as an epoch of a small net.
    """

    def __init__(
        self,
        backend: Backend,
        trials: Sequence[Trial],
        data: Data,
        *,
        machine: Machine | None = None,
        metrics: Metrics | Mapping[int | None, Metrics] | None = None,
        higher_is_better: Collection[str] = (),
        watch: Watch | None = None,
        resume: Checkpoint | None = None,
        probing: bool = True,
    ) -> None:
        self.probing = probing
        self.trials, self.data, self.watch = tuple(trials), data, watch
        self.metrics: Mapping[Any, Metrics | None] = (
            metrics if isinstance(metrics, Mapping) else dict.fromkeys(data.folds, metrics)
        )
        self.higher_is_better = frozenset(higher_is_better)
        self.backend, self.machine = backend, machine or Machine()
        self.rows, self.batch = data.rows, trials[0].train.batch_size
        self.epoch_steps = -(-self.rows // self.batch)
        self.progress = [Progress() for _ in trials]
        self.best: list[NDArray | None] = [None] * len(trials)
        self.step = 0
        # Sorted by activation, as a stack wants them: position in the stack -> place in `trials`.
        self.members = sorted(range(len(trials)), key=lambda t: (trials[t].model.activation, t))
        if resume is not None:
            self._take_up(resume)
        self._order: NDArray | None = None
        self.stack: Stack = backend.stack([trials[m] for m in self.members], data, self.machine)
        self._new_epoch()
        if resume is not None:
            self._load_arrays(resume)

    # -- driving --

    def run(self, *, until_step: int | None = None, until_epoch: int | None = None, report: Report | None = None) -> None:
        """Train until every trial ended, or up to a step or the end of an epoch (both counted from the start).

        `report`, which must call this supervisor's, takes in each chunk's losses in its place.
        """
        limit = until_step if until_epoch is None else until_epoch * self.epoch_steps
        while self.live() and (limit is None or self.step < limit):
            self.stack.drive(self.chunks(limit), report or self.report)
            self._repack()

    def chunks(self, limit: int | None = None) -> Iterator[Chunk]:
        """Chunk after chunk, each asked for after the one before was reported; ends where the stack is to be rebuilt."""
        while self.live() and not self._half_empty() and (limit is None or self.step < limit):
            yield self._next_chunk(limit)

    def live(self) -> list[int]:
        """Positions in the stack of the trials that still run."""
        return [p for p, m in enumerate(self.members) if self.progress[m].reason == "running"]

    @property
    def epoch(self) -> int:
        """The epoch that the next step belongs to, from 0."""
        return self.step // self.epoch_steps

    def _next_chunk(self, limit: int | None) -> Chunk:
        """Whole batches of one size; an epoch's short last batch is a chunk of its own."""
        at, whole = self.step % self.epoch_steps, self.rows // self.batch
        count = min(whole - at, CHUNK_STEPS, (limit or self.step + CHUNK_STEPS) - self.step) if at < whole else 1
        size = self.batch if at < whole else self.rows - whole * self.batch
        start = at * self.batch
        rows = self._orders()[:, start : start + count * size].reshape(-1, count, size)
        steps = np.arange(self.step, self.step + count)
        noise = draws.noise_keys(self.stack.seeds, steps.tolist(), len(self.trials[0].dropout))
        return Chunk(self.epoch, self.step, rows, noise, self._rates(steps))

    def _orders(self) -> NDArray:
        """The order of rows in this epoch for each stream, (U, n), counted over all folds; kept for the epoch."""
        if self._order is None:
            starts = ((seed, self.data.folds.index(fold) * self.rows) for seed, fold in self.stack.streams)
            self._order = np.stack([start + draws.row_order(seed, self.epoch, self.rows) for seed, start in starts])
        return self._order

    def _rates(self, steps: NDArray) -> NDArray:
        """η of each trial at each step, (K, S); 0 for those that ended."""
        rates = np.zeros((len(self.members), len(steps)))
        for position in self.live():
            rates[position] = learning_rates(self.trials[self.members[position]], steps, self.rows)
        return rates

    # -- what a chunk brought --

    def report(self, chunk: Chunk, losses: Losses) -> None:
        """Take in the losses of a chunk; at the end of an epoch, judge it."""
        at, count = chunk.step % self.epoch_steps, losses.loss.shape[1]
        self.losses[:, at : at + count], self.penalties[:, at : at + count] = losses[:2]
        ends = {"the objective E + λΩ": losses.loss + losses.penalty}
        g = losses.largest
        if g is not None:
            with np.errstate(over="ignore"):
                squared = RULES[self.trials[0].train.optimizer.name].squares
                name = "the square of its gradient" if squared else "its gradient"
                ends[name] = g * g if squared else g
        for position in self.live():
            self._count_steps(position, chunk.step, {what: values[position] for what, values in ends.items()})
        self.step += count
        if self.step % self.epoch_steps == 0:
            if self.live():
                self._end_epoch()
            self._new_epoch()

    def _count_steps(self, position: int, step: int, numbers: Mapping[str, NDArray]) -> None:
        """One that is NaN or infinite ends the trial at its step. Where g² overflows, Adam's v stays infinite and W as it is."""
        progress = self.progress[self.members[position]]
        sound = np.isfinite([*numbers.values()])
        progress.steps += sound.shape[1]
        if not sound.all():
            first = int(np.argmin(sound.all(0)))
            progress.steps = step + first + 1
            what = [*numbers][int(np.argmin(sound[:, first]))]
            progress.end("diverged", f"diverged at step {step + first + 1}: {what} became {numbers[what][first]}")

    def _end_epoch(self) -> None:
        """Validate, probe, record, and decide for each trial that still runs."""
        outputs, signals = self.stack.predict(), self.stack.probe() if self.probing else None
        sizes = np.full(self.epoch_steps, self.batch, dtype=np.float64)
        sizes[-1] = self.rows - self.batch * (self.epoch_steps - 1)
        flat: NDArray | None = None
        for position in self.live():
            number = self.members[position]
            trial = self.trials[number]
            loss = losses.validation_loss(trial.task, outputs[position], self._own_y_valid(position))
            record = self._record(position, sizes / self.rows, loss, outputs[position], signals)
            if self._judge(number, record):
                flat = self.stack.weights() if flat is None else flat
                self.best[number] = flat[position].copy()

    def _own_y_valid(self, position: int) -> NDArray:
        """Of the validation rows of the trial's fold."""
        start = self.stack.region[position] * self.data.rows_valid
        return self.data.y_valid[start : start + self.data.rows_valid]

    def _record(self, position: int, share: NDArray, loss: float, outputs: NDArray, signals: Signals | None) -> Record:
        """The numbers of one epoch of one trial. Training losses are row-weighted means, as trained."""
        trial = self.trials[self.members[position]]
        error, penalty = (float((kept[position] * share).sum()) for kept in (self.losses, self.penalties))
        last = np.array([self.step - 1])
        record: Record = {
            "epoch": self.step // self.epoch_steps,
            "train_loss": error,
            "train_penalty": penalty,
            "train_objective": error + penalty,
            "learning_rate": float(learning_rates(trial, last, self.rows)[0]),
            "val_loss": loss,
        }
        measure = self.metrics[trial.fold]
        if measure is not None and np.isfinite(loss):
            record.update({f"val_{name}": value for name, value in measure(outputs).items()})
        for name, values in zip(("delta_rms", "saturated", "dead"), signals or (), strict=signals is not None):
            record.update({f"{name}_{i + 1}": float(value) for i, value in enumerate(values[position])})
        return record

    def _judge(self, number: int, record: Record) -> bool:
        """Enter the epoch's record; end the trial if it is time. True if this is its best epoch so far."""
        trial, progress = self.trials[number], self.progress[number]
        if not np.isfinite(record["val_loss"]):
            progress.end("diverged", f"diverged in epoch {record['epoch']:.0f}: validation loss became {record['val_loss']}")
            return False
        progress.history.append(record)
        monitor, best = trial.train.early_stopping.monitor, progress.best_value
        if f"val_{monitor}" not in record:
            known = ", ".join(sorted(key[4:] for key in record if key.startswith("val_")))
            raise ValueError(f"train.early_stopping.monitor must name a validation metric, got {monitor!r}; known are: {known}")
        value = record[f"val_{monitor}"]
        better = value is not None and bool(np.isfinite(value))
        if better and best is not None:  # strictly: ties keep the earlier epoch
            better = value > best if monitor in self.higher_is_better else value < best
        if better:
            progress.best_epoch, progress.best_value = int(record["epoch"]), value
        waited = len(progress.history) - (progress.best_epoch or 0)
        patience = trial.train.early_stopping.patience
        if len(progress.history) >= trial.train.epochs:
            progress.end("completed", f"completed {trial.train.epochs} epochs")
        elif patience is not None and waited >= patience:
            progress.end("early_stopping", f"stopped after epoch {len(progress.history)}: none better for {waited}")
        if self.watch is not None and self.watch(number, record) and progress.reason == "running":
            progress.end("pruned", f"pruned after epoch {len(progress.history)}")
        return better

    def _new_epoch(self) -> None:
        self.losses = np.zeros((len(self.members), self.epoch_steps))
        self.penalties = np.zeros_like(self.losses)
        self._order = None

    # -- rebuilding, checkpoints, results --

    def _half_empty(self) -> bool:
        """At an epoch's end, half of the places or more hold trials that ended."""
        return self.step % self.epoch_steps == 0 and 2 * len(self.live()) <= len(self.members)

    def _repack(self) -> None:
        live = self.live()
        if live and self._half_empty():
            self.stack.keep(live)
            self.members = [self.members[p] for p in live]
            self._new_epoch()

    def checkpoint(self) -> Checkpoint:
        """The run as it stands between two chunks."""
        arrays = {f"stack.{name}": value for name, value in self.stack.state().items()}
        arrays |= {"losses": self.losses.copy(), "penalties": self.penalties.copy()}
        arrays |= {f"best.{number}": flat for number, flat in enumerate(self.best) if flat is not None}
        numbers = {
            "trials": _plain(self.trials),
            "step": self.step,
            "members": self.members,
            "progress": [asdict(progress) for progress in self.progress],
        }
        return Checkpoint(numbers, arrays)

    def _take_up(self, saved: Checkpoint) -> None:
        if saved.numbers["trials"] != _plain(self.trials):
            raise ValueError("the checkpoint belongs to other trials")
        self.step, self.members = operator.index(saved.numbers["step"]), list(saved.numbers["members"])
        steps = range(max(trial.train.epochs for trial in self.trials) * self.epoch_steps + 1)
        if self.step not in steps or not set(self.members) <= {*range(len(self.trials))}:
            raise ValueError("the checkpoint must be of a step of these trials")
        self.progress = [Progress(**progress) for progress in saved.numbers["progress"]]
        self.best = [saved.arrays.get(f"best.{number}") for number in range(len(self.trials))]

    def _load_arrays(self, saved: Checkpoint) -> None:
        flat = self.stack.weights()[0]
        for name, value in self.checkpoint().arrays.items():
            shape = flat.shape if name.startswith("best.") else value.shape
            if saved.arrays[name].shape != shape:
                raise ValueError(f"{name} of the checkpoint must have the shape {shape}, got {saved.arrays[name].shape}")
        self.stack.load({name[6:]: value for name, value in saved.arrays.items() if name.startswith("stack.")})
        self.losses, self.penalties = saved.arrays["losses"].copy(), saved.arrays["penalties"].copy()

    def results(self) -> list[Result]:
        """How each trial went, in the order in which they were given."""
        return [
            Result(flat, p.best_epoch, p.history, p.reason, p.message, p.steps)
            for flat, p in zip(self.best, self.progress, strict=True)
        ]


def fit(
    backend: Backend,
    trials: Sequence[Trial],
    data: Data,
    *,
    machine: Machine | None = None,
    metrics: Metrics | Mapping[int | None, Metrics] | None = None,
    higher_is_better: Collection[str] = (),
    watch: Watch | None = None,
    checkpoint: Path | None = None,
    keep: bool = False,
    halt: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Train trials of one structure as one stack, and say how each went, in the order given.

    With `checkpoint`, the run is saved there every few seconds, taken up from there if it was killed, and the file removed at
    the end, or with `keep` left as it then is: the results come from it at once. One that cannot be used or written is a
    warning. `halt` is called after each chunk; what it raises ends the run, whose checkpoint is then of that very step. Raises
    ValueError for trials that do not stack and for what the backend cannot do here.
    """

    begin = partial(
        Supervisor, backend, trials, data, machine=machine, metrics=metrics, higher_is_better=higher_is_better, watch=watch
    )

    if checkpoint is None:
        supervisor = begin()
        supervisor.run()
    else:
        supervisor = _taken_up(begin, checkpoint)
        saving = _Saving(supervisor, checkpoint, halt)
        supervisor.run(report=saving.report)
        saving.save() if keep else checkpoint.unlink(missing_ok=True)
    return supervisor.results()


def _taken_up(begin: Callable[..., Supervisor], path: Path) -> Supervisor:
    """From where the checkpoint stands; where there is none that serves, from the first step, which is exact too."""
    try:
        return begin(resume=Checkpoint.load(path) if path.exists() else None)
    except Exception as error:
        supervisor = begin()  # what fails without it too is not told of it
        log.warning("the checkpoint %s is not used (%s): training begins anew", path, str(error).removeprefix(f"{path} "))
        return supervisor


def _plain(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Trials as they stand in a checkpoint."""
    return [trial.model_dump(mode="json") for trial in trials]


class _Saving:
    """Writes checkpoints of a run between its chunks; one that cannot be written ends no run."""

    def __init__(self, supervisor: Supervisor, path: Path, halt: Callable[[], None]) -> None:
        self.supervisor, self.path, self.halt = supervisor, path, halt
        self.pause = min(CHECKPOINT_SECONDS, LEAST_SECONDS)
        self.last, self.warned = time.monotonic(), False

    def report(self, chunk: Chunk, losses: Losses) -> None:
        """`supervisor.report`, followed by a checkpoint every few seconds, and where `halt` ends the run."""
        self.supervisor.report(chunk, losses)
        try:
            self.halt()
        except BaseException:
            self.save()
            raise
        if time.monotonic() - self.last > self.pause:
            self.save()

    def save(self) -> None:
        """Write one now."""
        began = time.monotonic()
        try:
            self.path.parent.stat()  # it may be gone with the run's folder, which must not come back
            self.supervisor.checkpoint().save(self.path)
        except OSError as error:
            if not self.warned:
                told = "the checkpoint %s cannot be written (%s): training goes on, and writing is tried again later"
                log.warning(told, self.path, error.strerror or error)
            self.warned = True
        self.last = time.monotonic()
        self.pause = min(CHECKPOINT_SECONDS, max(LEAST_SECONDS, TIMES_ITS_COST * (self.last - began)))
