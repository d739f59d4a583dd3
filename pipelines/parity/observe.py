"""What is looked at, on any backend: the same named arrays, in the same order, whichever computes them.

`nudge` moves the weights that a computation starts from by one ulp: how far the reference itself is moved by that is the
measure of what rounding can do here (THEORY.md, "When two backends agree").
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
from pipelines.parity.case import EPOCHS, REFERENCE, Case
from pipelines.stages.metrics import NDArray, epoch_metrics, kernel

Tell = Callable[[float, str], None]  # share of the work that is done, and what comes now
LOSSES = {"train_loss": "E", "train_penalty": "λΩ", "train_objective": "E + λΩ", "val_loss": "validation E"}
SLOTS = {"momentum": "momentum", "m": "Adam's m", "v": "Adam's v", "s": "RMSprop's s"}


def part(tell: Tell, low: float, high: float, prefix: str = "") -> Tell:
    """Tells of a part of the work, which is done from `low` to `high` of the whole."""
    return lambda share, what: tell(low + (high - low) * share, prefix + what)


class Moment(NamedTuple):
    """One step of the reference: its chunk, and the state before."""

    chunk: Chunk
    before: State


class Seen(NamedTuple):
    """One array that was looked at. `where` says at which step or epoch, if there are several."""

    section: str
    name: str
    where: str
    array: NDArray

    @property
    def key(self) -> str:
        """What tells it from the others."""
        return "|".join(self[:3])


def walk(case: Case, precision: Storage, tell: Tell) -> Iterator[Moment]:
    """The steps of the reference that are looked at. It may end sooner than `case.steps`: it may diverge, or stop early."""
    wanted = set(case.looked_at())
    walker = _supervisor(get(REFERENCE), case, precision)
    for step in range(case.steps):
        if not walker.live():
            return
        chunk = next(walker.chunks(step + 1))
        if step in wanted:
            yield Moment(chunk, walker.stack.state())
            tell(step / case.steps, "steps of the reference")
        walker.report(chunk, walker.stack.run(chunk))


def keep(path: Path, moment: Moment) -> None:
    """Write a moment."""
    chunk = moment.chunk
    before = {f"before.{name}": value for name, value in moment.before.items()}
    np.savez(path, epoch=chunk.epoch, step=chunk.step, rows=chunk.rows, noise=chunk.noise, rates=chunk.rates, **before)  # type: ignore[arg-type]


def take(path: Path) -> Moment:
    """What `keep` wrote."""
    with np.load(path, allow_pickle=False) as kept:
        arrays = {name: kept[name] for name in kept.files}
    before = {name.removeprefix("before."): value for name, value in arrays.items() if name.startswith("before.")}
    chunk = Chunk(int(arrays["epoch"]), int(arrays["step"]), arrays["rows"], arrays["noise"], arrays["rates"])
    return Moment(chunk, before)


def observe(
    backend: Backend, case: Case, precision: Storage, moments: Sequence[Path], tell: Tell, *, nudge: bool = False
) -> Iterator[Seen]:
    """Everything, on one backend. `moments` are files that `keep` wrote."""
    trial, data = case.at(precision), case.data()
    stack = backend.stack([trial], data, case.machine(backend.name))
    if not nudge:
        yield Seen("start", "initial weights", "", stack.weights())
    tell(0.0, "one batch")
    for path in dict.fromkeys((moments[0], moments[-1])):
        yield from _batch(stack, trial, data, take(path), nudge)
    for number, path in enumerate(moments):
        tell(0.05 + 0.4 * number / len(moments), "each step")
        yield from _step(stack, trial, take(path), nudge)
    tell(0.45, "running freely")
    yield from _course(backend, case, precision, nudge, tell)


def _batch(stack: Stack, trial: Trial, data: Data, moment: Moment, nudge: bool) -> Iterator[Seen]:
    """The delta rule on the rows of one batch, with the noise of its step."""
    rows = moment.chunk.rows[0, 0]
    flat = _moved(moment.before["weights"], nudge)
    found = stack.loss_and_gradients(flat, data.X[rows], data.y[rows], moment.chunk.noise[:, 0])
    where = f"step {moment.chunk.step + 1}"
    yield Seen("batch", "outputs", where, found.logits)
    yield Seen("batch", "E", where, found.loss)
    yield Seen("batch", "λΩ", where, found.penalty)
    for slot in weights.layout(trial):
        name = f"gradient, layer {slot.layer + 1} {slot.name}"
        yield Seen("batch", name, where, np.asarray(found.gradient)[:, slot.start : slot.stop])
    for number, delta in enumerate(found.delta, 1):
        yield Seen("batch", f"δ, layer {number}", where, delta)


def _step(stack: Stack, trial: Trial, moment: Moment, nudge: bool) -> Iterator[Seen]:
    """One optimizer step from the reference's own state."""
    stack.load({**moment.before, "weights": _moved(moment.before["weights"], nudge)})
    losses, where = stack.run(moment.chunk), f"step {moment.chunk.step + 1}"
    after = stack.state()
    yield Seen("step", "weights", where, after["weights"])
    for slot in OPTIMIZER_SLOTS[trial.train.optimizer.name]:
        yield Seen("step", SLOTS[slot], where, after[f"slot.{slot}"])
    yield Seen("step", "E", where, losses.loss)
    yield Seen("step", "λΩ", where, losses.penalty)


def _course(backend: Backend, case: Case, precision: Storage, nudge: bool, tell: Tell) -> Iterator[Seen]:
    """A run of its own: `case.steps` steps, then on to the end of the fit, or as far as can be afforded."""

    def watch(_: int, record: Record) -> bool:
        epochs = case.trial.train.epochs if case.whole else max(1, (case.last_step or 0) // case.epoch_steps)
        tell(0.45 + 0.55 * min(1.0, record["epoch"] / epochs), "the whole fit" if case.whole else "running freely")
        return False

    run = _supervisor(backend, case, precision, watch)
    if nudge:
        _push(run)
    run.run(until_step=case.steps)
    yield Seen("free", "weights", "", run.stack.weights())
    yield Seen("free", "outputs on the validation rows", "", run.stack.predict())
    if nudge:
        _push_each_epoch(run, case.last_step)
    run.run(until_step=case.last_step)
    yield from _history(run.progress[0].history[:EPOCHS])
    yield from _end(run, case)


def _push_each_epoch(run: Supervisor, last_step: int | None) -> None:
    """On to `last_step`, moved by an ulp at the start of every epoch.

    A whole fit rounds at every step, and a push at its very start is forgotten: on digits in float32, another summation
    moves the outputs by 1.7e-4 after 24 epochs, one push by 8e-6, a push each epoch by 1.1e-4.
    """
    while run.live() and (last_step is None or run.step < last_step):
        _push(run)
        end = (run.epoch + 1) * run.epoch_steps
        run.run(until_step=end if last_step is None else min(end, last_step))


def _push(run: Supervisor) -> None:
    """Move the weights of a run by one ulp."""
    state = run.stack.state()
    run.stack.load({**state, "weights": _moved(state["weights"], True)})


def _history(history: Sequence[Record]) -> Iterator[Seen]:
    """The numbers of the first epochs: what was trained on, then how the error signal fares, then the metrics."""
    for record in history:
        where = f"epoch {record['epoch']:.0f}"
        for name, word in LOSSES.items():
            yield Seen("history", word, where, np.array([record[name]]))
        for kind, word in (("delta_rms", "root mean square of δ"), ("saturated", "saturated units"), ("dead", "dead units")):
            values = [value for name, value in record.items() if name.startswith(f"{kind}_")]
            if values:
                yield Seen("history", word, where, np.array(values))
        metrics = {n.removeprefix("val_"): v for n, v in record.items() if n.startswith("val_") and n not in LOSSES}
        for name, value in metrics.items():
            yield Seen("history", f"validation {name}", where, np.array([value]))


def _end(run: Supervisor, case: Case) -> Iterator[Seen]:
    """How the fit ended, and what its model says about the validation rows; after `last_step`, the model as it is then."""
    [result] = run.results()
    section = "fit" if case.whole else "after"
    if case.whole:
        yield Seen(section, "optimizer steps", "", np.array([float(result.steps)]))
        yield Seen(section, "best epoch", "", np.array([float(result.best_epoch or 0)]))
        if result.weights is None:
            return
        run.stack.load({**run.stack.state(), "weights": result.weights[None]})
    outputs = run.stack.predict()
    yield Seen(section, "outputs on the validation rows", "", outputs)
    yield from _metrics(section, case, np.asarray(outputs[0]))


def _metrics(section: str, case: Case, outputs: NDArray) -> Iterator[Seen]:
    """Every metric that the validation rows define. By our own kernels: importing scikit-learn takes longer than most fits."""
    if np.isfinite(outputs).all():
        found = kernel(case.truth(), outputs)(np.ones((1, len(outputs))))
        yield from (Seen(section, f"validation {name}", "", value) for name, value in found.items() if np.isfinite(value).all())


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
