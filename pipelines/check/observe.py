"""What is compared, on any backend: the same named arrays, in the same order, whichever computes them.

`nudge` moves the weights that a computation starts from by one ulp. How far that moves the reference itself is the measure of
what rounding can do here (docs/theory.md, "When two backends agree").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backends import get, weights
from backends.base import OPTIMIZER_SLOTS, Backend, Chunk, Data, Stack, State
from backends.spec import Storage, Trial
from backends.supervisor import Record, Supervisor
from pipelines.check.case import EPOCHS, REFERENCE, Case
from pipelines.stages.metrics import NDArray, epoch_metrics, kernel

OnProgress = Callable[[float, str], None]  # share of the work that is done, and what comes now
LOSSES = {"train_loss": "E", "train_penalty": "λΩ", "train_objective": "E + λΩ", "val_loss": "validation E"}
SLOTS = {"momentum": "momentum", "m": "Adam's m", "v": "Adam's v", "s": "RMSprop's s"}
SIGNALS = {"delta_rms": "root mean square of δ", "saturated": "saturated units", "dead": "dead units"}


class StepSnapshot(NamedTuple):
    """One step of the reference: its chunk, and the state before."""

    chunk: Chunk
    before: State

    def save(self, path: Path) -> None:
        """As .npz."""
        before = {f"before.{name}": value for name, value in self.before.items()}
        np.savez(path, **self.chunk._asdict(), **before)  # type: ignore[arg-type]

    @staticmethod
    def load(path: Path) -> StepSnapshot:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as kept:
            arrays = dict(kept)
        epoch, step, *rest = (arrays.pop(name) for name in Chunk._fields)
        return StepSnapshot(Chunk(int(epoch), int(step), *rest), {k.removeprefix("before."): v for k, v in arrays.items()})


class Observation(NamedTuple):
    """One array. `where` says at which step or epoch, if there are several."""

    section: str
    name: str
    where: str
    array: NDArray

    @property
    def key(self) -> str:
        """Names it among the others."""
        return "|".join(self[:3])


def snapshots(case: Case, precision: Storage, on_progress: OnProgress) -> Iterator[StepSnapshot]:
    """The reference's steps that are compared. They may end before `case.steps`: a run may diverge, or stop early."""
    wanted = set(case.compared_steps())
    run = _supervisor(get(REFERENCE), case, precision)
    for step in range(case.steps):
        if not run.live():
            return
        chunk = next(run.chunks(step + 1))
        if step in wanted:
            yield StepSnapshot(chunk, run.stack.state())
            on_progress(step / case.steps, "steps of the reference")
        run.report(chunk, run.stack.run(chunk))


def observe(
    backend: Backend, case: Case, precision: Storage, steps: Sequence[Path], on_progress: OnProgress, *, nudge: bool = False
) -> Iterator[Observation]:
    """Everything, on one backend. `steps` are files of StepSnapshots."""
    trial, data = case.at(precision), case.data()
    stack = backend.stack([trial], data, case.machine(backend.name))
    if not nudge:
        yield Observation("start", "initial weights", "", stack.weights())
    on_progress(0.0, "one batch")
    for path in dict.fromkeys((steps[0], steps[-1])):
        yield from _batch(stack, trial, data, StepSnapshot.load(path), nudge)
    for number, path in enumerate(steps):
        on_progress(0.05 + 0.4 * number / len(steps), "each step")
        yield from _step(stack, trial, StepSnapshot.load(path), nudge)
    on_progress(0.45, "running freely")
    yield from _free_run(backend, case, precision, nudge, on_progress)


def _batch(stack: Stack, trial: Trial, data: Data, snapshot: StepSnapshot, nudge: bool) -> Iterator[Observation]:
    """The delta rule on the rows of one batch, with the noise of its step."""
    rows = snapshot.chunk.rows[0, 0]
    flat = _moved(snapshot.before["weights"], nudge)
    found = stack.loss_and_gradients(flat, data.X[rows], data.y[rows], snapshot.chunk.noise[:, 0])
    where = f"step {snapshot.chunk.step + 1}"
    yield Observation("batch", "outputs", where, found.logits)
    yield Observation("batch", "E", where, found.loss)
    yield Observation("batch", "λΩ", where, found.penalty)
    for slot in weights.layout(trial):
        name = f"gradient, layer {slot.layer + 1} {slot.name}"
        yield Observation("batch", name, where, np.asarray(found.gradient)[:, slot.start : slot.stop])
    for number, delta in enumerate(found.delta, 1):
        yield Observation("batch", f"δ, layer {number}", where, delta)


def _step(stack: Stack, trial: Trial, snapshot: StepSnapshot, nudge: bool) -> Iterator[Observation]:
    """One optimizer step from the reference's own state."""
    stack.load({**snapshot.before, "weights": _moved(snapshot.before["weights"], nudge)})
    losses, where = stack.run(snapshot.chunk), f"step {snapshot.chunk.step + 1}"
    after = stack.state()
    yield Observation("step", "weights", where, after["weights"])
    for slot in OPTIMIZER_SLOTS[trial.train.optimizer.name]:
        yield Observation("step", SLOTS[slot], where, after[f"slot.{slot}"])
    yield Observation("step", "E", where, losses.loss)
    yield Observation("step", "λΩ", where, losses.penalty)


def _free_run(backend: Backend, case: Case, precision: Storage, nudge: bool, on_progress: OnProgress) -> Iterator[Observation]:
    """`case.steps` steps, then on to the end of the fit, or as far as can be afforded."""

    def watch(_: int, record: Record) -> bool:
        epochs = case.trial.train.epochs if case.whole else max(1, (case.last_step or 0) // case.epoch_steps)
        on_progress(0.45 + 0.55 * min(1.0, record["epoch"] / epochs), "the whole fit" if case.whole else "running freely")
        return False

    run = _supervisor(backend, case, precision, watch)
    if nudge:
        _nudge(run)
    run.run(until_step=case.steps)
    yield Observation("free", "weights", "", run.stack.weights())
    yield Observation("free", "outputs on the validation rows", "", run.stack.predict())
    if nudge:
        _nudge_each_epoch(run, case.last_step)
    run.run(until_step=case.last_step)
    yield from _history(run.progress[0].history[:EPOCHS])
    yield from _end(run, case)


def _nudge_each_epoch(run: Supervisor, last_step: int | None) -> None:
    """On to `last_step`, moved by an ulp at the start of every epoch.

    A whole fit rounds at every step, and a nudge at its very start is forgotten: on digits in float32, another summation moves
    the outputs by 1.7e-4 after 24 epochs, one nudge by 8e-6, a nudge each epoch by 1.1e-4.
    """
    while run.live() and (last_step is None or run.step < last_step):
        _nudge(run)
        end = (run.epoch + 1) * run.epoch_steps
        run.run(until_step=end if last_step is None else min(end, last_step))


def _nudge(run: Supervisor) -> None:
    """Move the weights of a run by one ulp."""
    state = run.stack.state()
    run.stack.load({**state, "weights": _moved(state["weights"], True)})


def _history(history: Sequence[Record]) -> Iterator[Observation]:
    """The numbers of the first epochs: the losses, then how the error signal fares, then the metrics."""
    for record in history:
        where = f"epoch {record['epoch']:.0f}"
        found = {word: [record[name]] for name, word in LOSSES.items()}
        found |= {word: [v for name, v in record.items() if name.startswith(f"{kind}_")] for kind, word in SIGNALS.items()}
        metrics = {name.removeprefix("val_"): v for name, v in record.items() if name.startswith("val_") and name not in LOSSES}
        found |= {f"validation {name}": [value] for name, value in metrics.items()}
        yield from (Observation("history", name, where, np.array(values)) for name, values in found.items() if values)


def _end(run: Supervisor, case: Case) -> Iterator[Observation]:
    """How the fit ended, and what its model says about the validation rows; after `last_step`, the model as it is then."""
    [result] = run.results()
    section = "fit" if case.whole else "after"
    if case.whole:
        yield Observation(section, "optimizer steps", "", np.array([float(result.steps)]))
        yield Observation(section, "best epoch", "", np.array([float(result.best_epoch or 0)]))
        if result.weights is None:
            return
        run.stack.load({**run.stack.state(), "weights": result.weights[None]})
    outputs = run.stack.predict()
    yield Observation(section, "outputs on the validation rows", "", outputs)
    if np.isfinite(outputs).all():
        # By our own kernels: importing scikit-learn takes longer than most fits.
        found = kernel(case.truth(), np.asarray(outputs[0]))(np.ones((1, outputs.shape[1])))
        metrics = {name: value for name, value in found.items() if np.isfinite(value).all()}
        yield from (Observation(section, f"validation {name}", "", value) for name, value in metrics.items())


def _supervisor(backend: Backend, case: Case, precision: Storage, watch: Any = None) -> Supervisor:
    """As the train stage makes it."""
    trial = case.at(precision)
    return Supervisor(
        backend,
        [trial],
        case.data(),
        machine=case.machine(backend.name),
        metrics=epoch_metrics(case.truth(), trial.train.early_stopping.monitor),
        higher_is_better=case.higher_is_better,
        watch=watch,
    )


def _moved(flat: NDArray, nudge: bool) -> NDArray:
    """By one ulp, upwards."""
    return np.nextafter(flat, flat.dtype.type(np.inf)) if nudge else flat
