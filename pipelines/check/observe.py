"""What is compared, on any backend: the same named arrays, in the same order, whichever computes them.

`nudge` moves the weights that a computation starts from by one ulp. How far that moves the reference itself is the measure of
what rounding can do here (docs/theory.md, "When two backends agree").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from backends import weights
from backends.base import OPTIMIZER_SLOTS, Backend, Chunk, Data, Stack, State
from backends.spec import Storage, Trial
from backends.supervisor import Record, Supervisor
from pipelines.check.case import EPOCHS, Case
from pipelines.check.verdict import DIVERGED
from pipelines.spec import higher_is_better
from pipelines.stages.metrics import NDArray, epoch_metrics, kernel

LOSSES = {"train_loss": "E", "train_penalty": "λΩ", "train_objective": "E + λΩ", "val_loss": "validation E"}
SLOTS = {"momentum": "momentum", "m": "Adam's m", "v": "Adam's v", "s": "RMSprop's s"}
SIGNALS = {"delta_rms": "root mean square of δ", "saturated": "saturated units", "dead": "dead units"}


class StepSnapshot(NamedTuple):
    """One step of the reference: its chunk, and the state before."""

    chunk: Chunk
    before: State


class Key(NamedTuple):
    """Names an array. `where` says at which step or epoch, if there are several."""

    section: str
    name: str
    where: str = ""


Observation = tuple[Key, NDArray]


def snapshots(reference: Backend, case: Case, precision: Storage) -> Iterator[StepSnapshot]:
    """The steps that are compared, while the run goes on; not the one at which it diverges."""
    wanted = set(case.compared_steps())
    run = _supervisor(reference, case, precision)
    for step in range(case.steps):
        if not run.live():
            return
        chunk = next(run.chunks(step + 1))
        before = run.stack.state() if step in wanted else None
        run.report(chunk, run.stack.run(chunk))
        if before is not None and not _diverged(run):
            yield StepSnapshot(chunk, before)


def observe(
    backend: Backend, case: Case, precision: Storage, steps: Sequence[StepSnapshot], *, nudge: bool = False
) -> Iterator[Observation]:
    """Everything, on one backend. `steps` are the reference's."""
    trial, data = case.at(precision), case.data()
    stack = backend.stack([trial], data, case.machine(backend.name))
    if not nudge:
        yield Key("start", "initial weights"), stack.weights()
    for snapshot in (*steps[:1], *steps[1:][-1:]):
        yield from _batch(stack, trial, data, snapshot, nudge)
    for snapshot in steps:
        yield from _step(stack, trial, snapshot, nudge)
    yield from _free_run(_supervisor(backend, case, precision), case, nudge)


def _batch(stack: Stack, trial: Trial, data: Data, snapshot: StepSnapshot, nudge: bool) -> Iterator[Observation]:
    """The delta rule on the rows of one batch, with the noise of its step."""
    rows = snapshot.chunk.rows[0, 0]
    flat = _moved(snapshot.before["weights"], nudge)
    found = stack.loss_and_gradients(flat, data.X[rows], data.y[rows], snapshot.chunk.noise[:, 0])
    where = f"step {snapshot.chunk.step + 1}"
    yield Key("batch", "outputs", where), found.logits
    yield Key("batch", "E", where), found.loss
    yield Key("batch", "λΩ", where), found.penalty
    for slot in weights.layout(trial):
        name = f"gradient, layer {slot.layer + 1} {slot.name}"
        yield Key("batch", name, where), np.asarray(found.gradient)[:, slot.start : slot.stop]
    for number, delta in enumerate(found.delta, 1):
        yield Key("batch", f"δ, layer {number}", where), delta


def _step(stack: Stack, trial: Trial, snapshot: StepSnapshot, nudge: bool) -> Iterator[Observation]:
    """One optimizer step from the reference's own state."""
    stack.load({**snapshot.before, "weights": _moved(snapshot.before["weights"], nudge)})
    losses, where = stack.run(snapshot.chunk), f"step {snapshot.chunk.step + 1}"
    after = stack.state()
    yield Key("step", "weights", where), after["weights"]
    for slot in OPTIMIZER_SLOTS[trial.train.optimizer.name]:
        yield Key("step", SLOTS[slot], where), after[f"slot.{slot}"]
    yield Key("step", "E", where), losses.loss
    yield Key("step", "λΩ", where), losses.penalty


def _free_run(run: Supervisor, case: Case, nudge: bool) -> Iterator[Observation]:
    """`case.steps` steps, then on to the end of the fit, or as far as can be afforded.

    A fit rounds at every step: on digits another summation moves outputs by 1.7e-4, one nudge by 8e-6, one an epoch by 1.1e-4.
    """
    if nudge:
        _nudge(run)
    run.run(until_step=case.steps)
    if not _diverged(run):
        yield Key("free", "weights"), run.stack.weights()
        yield Key("free", "outputs on the validation rows"), run.stack.predict()
    last = case.last_step
    while nudge and run.live() and (last is None or run.step < last):
        _nudge(run)
        end = (run.epoch + 1) * run.epoch_steps
        run.run(until_step=end if last is None else min(end, last))
    run.run(until_step=last)
    yield Key("free", DIVERGED), np.array(float(run.progress[0].steps) if _diverged(run) else np.inf)
    for record in run.progress[0].history[:EPOCHS]:
        yield from _history(record)
    yield from _end(run, case)


def _diverged(run: Supervisor) -> bool:
    return run.progress[0].reason == "diverged"


def _nudge(run: Supervisor) -> None:
    state = run.stack.state()
    run.stack.load({**state, "weights": _moved(state["weights"], True)})


def _moved(flat: NDArray, nudge: bool) -> NDArray:
    """By one ulp, upwards."""
    return np.nextafter(flat, flat.dtype.type(np.inf)) if nudge else flat


def _history(record: Record) -> Iterator[Observation]:
    """The numbers of an epoch: the losses, then how the error signal fares, then the metrics."""
    found = {word: [record[name]] for name, word in LOSSES.items()}
    found |= {word: [v for name, v in record.items() if name.startswith(f"{kind}_")] for kind, word in SIGNALS.items()}
    metrics = {name.removeprefix("val_"): v for name, v in record.items() if name.startswith("val_") and name not in LOSSES}
    found |= {f"validation {name}": [value] for name, value in metrics.items()}
    for name, values in found.items():
        if values:
            yield Key("history", name, f"epoch {record['epoch']:.0f}"), np.array(values)


def _end(run: Supervisor, case: Case) -> Iterator[Observation]:
    """How the fit ended, and what its model says about the validation rows; after `last_step`, the model as it is then."""
    [result] = run.results()
    section = "fit" if case.whole else "after"
    if case.whole:
        yield Key(section, "optimizer steps"), np.array([float(result.steps)])
        yield Key(section, "best epoch"), np.array([float(result.best_epoch or 0)])
        if result.weights is None:
            return
        run.stack.load({**run.stack.state(), "weights": result.weights[None]})
    outputs = run.stack.predict()
    yield Key(section, "outputs on the validation rows"), outputs
    if np.isfinite(outputs).all():
        metrics = kernel(case.truth(), np.asarray(outputs[0]))(np.ones((1, outputs.shape[1])))
        yield from ((Key(section, f"validation {name}"), value) for name, value in metrics.items() if np.isfinite(value).all())


def _supervisor(backend: Backend, case: Case, precision: Storage) -> Supervisor:
    """As the train stage makes it."""
    trial = case.at(precision)
    monitor = trial.train.early_stopping.monitor
    return Supervisor(
        backend,
        [trial],
        case.data(),
        machine=case.machine(backend.name),
        metrics=epoch_metrics(case.truth(), monitor),
        higher_is_better=[monitor] if higher_is_better(monitor) else (),
    )
