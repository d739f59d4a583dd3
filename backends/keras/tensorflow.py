"""Keras on TensorFlow: a chunk of optimizer steps is one graph, with the data on the device and no Python between steps.

Measured, 64-128-64-10 in float32, batch 32, dropout, L1, L2 and Adam, microseconds a step on one thread: Keras' own `fit`
2000, this graph 230, and 70 to 85 a trial-step at K = 16. Tracing it costs 0.5 s, so a program is kept and lent
to the next stack of the same structure. Tried: hand-written gradients gain nothing; XLA for the optimizer step alone gained
nothing at K = 1 and 20 % at K = 16 in a prototype, and is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from backends import losses
from backends.base import Backend, Chunk, Data, Losses, Machine, Stack, refuse_mixed, threads_for
from backends.errors import BackendError
from backends.keras.network import clipped, penalty
from backends.keras.noise import noise
from backends.keras.optimizer import corrections
from backends.keras.stack import KerasStack, Program
from backends.spec import Trial

NDArray = np.ndarray[Any, np.dtype[Any]]
Tensor = Any
log = logging.getLogger(__name__)

# Each program traces each of its graphs once; TensorFlow takes programs of several structures for one that is traced again.
tf.get_logger().addFilter(lambda record: "bound method TensorFlowProgram._" not in record.getMessage())


class TensorFlowProgram(Program):
    """Traced graphs."""

    def __init__(self, stack: KerasStack) -> None:
        super().__init__(stack)
        self._trace()

    def _trace(self) -> None:
        """Unknown sizes are None, so that short batches and other chunks are not traced again."""
        real, word, index = tf.as_dtype(self.dtype), tf.uint32, tf.int32
        X, d = tf.TensorSpec((None, self.units[0]), real), tf.TensorSpec((None, None), real)
        own_X, own_d = tf.TensorSpec((None, None, self.units[0]), real), tf.TensorSpec((None, None, None), real)
        count, places = self.network.flat.shape[0], len(self.units)

        def graph(function: Callable[..., Any], *signature: tf.TensorSpec) -> Callable[..., Any]:
            return tf.function(function, input_signature=signature, autograph=False)

        self.run = graph(
            self._run, X, d,
            tf.TensorSpec((None, None, None), index), tf.TensorSpec((None, None, places, 2), word),
            tf.TensorSpec((count, None), real), tf.TensorSpec((None, 2), real), tf.TensorSpec((), index),
        )  # fmt: skip
        self.predict = graph(self._predict, own_X)
        self.probe = graph(self._probe, own_X, own_d)
        self.gradients = self._gradients

    # -- in the graph -------------------------------------------------------------------------------------------------

    def _run(
        self, X: Tensor, d: Tensor, rows: Tensor, keys: Tensor, rates: Tensor, corrected: Tensor, block: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The steps of a chunk, with noise for `block` steps at a time: E (S, K) float64 and λΩ (S, K)."""
        steps, batch = tf.shape(rows)[1], tf.shape(rows)[2]

        def step(i: Tensor, start: Tensor, made: list[Tensor], seen: tuple[Any, Any]) -> tuple[Any, ...]:
            x, y = (self._to_trials(tf.gather(part, rows[:, i])) for part in (X, d))
            masks = iter(made)
            here = [self._to_trials(next(masks)[:, i - start]) if on else None for on in self.noisy]
            loss, omega, gradient, _ = self._backward(self.network.flat.value, x, y, here)
            self._update(gradient, rates[:, i], corrected[i])
            return i + 1, start, made, (seen[0].write(i, loss), seen[1].write(i, omega))

        def several(start: Tensor, seen: tuple[Any, Any]) -> tuple[Any, ...]:
            stop = tf.minimum(start + block, steps)
            made = [noise(keys[:, start:stop, i], batch, self.units[i]) for i, on in enumerate(self.noisy) if on]
            *_, seen = tf.while_loop(lambda i, *_: i < stop, step, (start, start, made, seen), parallel_iterations=1)
            return stop, seen

        seen = (tf.TensorArray(tf.float64, steps), tf.TensorArray(self.dtype, steps))
        _, seen = tf.while_loop(lambda start, _: start < steps, several, (0, seen), parallel_iterations=1)
        return seen[0].stack(), seen[1].stack()

    def _to_trials(self, shared: Tensor) -> Tensor:
        """What is the same for all trials of a seed, (U, ...) -> (K, ...); left (1, ...) where one seed serves all."""
        return tf.gather(shared, self.seed_index.value) if self.sharing == "some" else shared

    def _backward(self, flat: Tensor, x: Tensor, d: Tensor, masks: Sequence[Tensor] | None) -> tuple[Any, ...]:
        """E (K,) float64, λΩ (K,), the gradient of E + λΩ (K, P), and the local fields."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            flat = tf.convert_to_tensor(flat)
            tape.watch(flat)
            fields = self.network.fields(self.network.pieces(flat), x, masks)
            each = losses.row_losses(keras.ops, self.task, fields[-1], d)
            if self.weighed:
                each = each * losses.row_weights(keras.ops, self.task, d, self.class_weights.value)
            # Sum over trials: a mean would divide every trial's gradient by K.
            total = tf.reduce_sum(tf.reduce_mean(each, -1))
        gradient = tape.gradient(total, flat)
        omega = tf.zeros(flat.shape[:1], flat.dtype)
        if self.penalised:
            omega, more = penalty(flat, self.l1.value, self.l2.value)
            gradient = gradient + more
        return tf.reduce_mean(tf.cast(each, tf.float64), -1), omega, gradient, fields

    def _update(self, gradient: Tensor, rates: Tensor, corrected: Tensor) -> None:
        """One optimizer step."""
        optimizer = self.optimizer
        optimizer.rate.assign(rates[:, None])
        for name, value in zip(("correction1", "correction2"), tf.unstack(corrected), strict=True):
            optimizer.numbers[name].assign(value)
        if self.clipping:
            (gradient,) = clipped([gradient], self.limit.value)
        optimizer.apply([gradient], [self.network.flat])

    def _deltas(self, flat: Tensor, x: Tensor, d: Tensor, masks: Sequence[Tensor] | None) -> tuple[Any, Any]:
        """δ = -∂ℓ/∂v of each row, and v, of each layer: (K, B, units)."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            flat = tf.convert_to_tensor(flat)
            tape.watch(flat)
            fields = self.network.fields(self.network.pieces(flat), x, masks)
            total = tf.reduce_sum(losses.row_losses(keras.ops, self.task, fields[-1], d))
        return [-slope for slope in tape.gradient(total, fields)], fields

    def _predict(self, X: Tensor) -> Tensor:
        return self.network(X)

    def _probe(self, X: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        deltas, fields = self._deltas(self.network.flat.value, X, d, None)
        trials = self.network.flat.shape[0]
        steepness = [self.network.activation.steepness(v) for v in fields[:-1]]
        squares = [tf.square(tf.cast(delta, tf.float64)) for delta in deltas]  # a vanished δ² underflows in float32
        return (
            tf.stack([tf.sqrt(tf.reduce_mean(square, (1, 2))) for square in squares], 1),
            _share([s < 0.05 for s in steepness], trials),
            _share([tf.reduce_all(s == 0, 1, keepdims=True) for s in steepness], trials),
        )

    def _gradients(self, flat: Tensor, X: Tensor, d: Tensor, keys: NDArray | None) -> tuple[Any, ...]:
        """Not traced: it is for checking."""
        masks = None
        if keys is not None:
            made = [noise(tf.convert_to_tensor(keys[:, i]), len(X), units) for i, units in enumerate(self.units)]
            masks = [self._to_trials(hashed) for hashed in made]
        loss, omega, gradient, fields = self._backward(flat, X[None], d[None], masks)
        return fields[-1], loss, omega, gradient, self._deltas(flat, X[None], d[None], masks)[0]


def _share(flags: list[Tensor], trials: int) -> Tensor:
    """Share of True, by layer: [(K, n, units)] -> (K, layers) float64; a network without hidden layers has none."""
    # A unit's count over its rows, 1024 at most, is exact in float32; all in float64 takes longer.
    counts = [tf.cast(tf.reduce_sum(tf.cast(flag, tf.float32), 1), tf.float64) for flag in flags]
    sizes = [tf.cast(tf.shape(flag)[1], tf.float64) for flag in flags]
    shares = [tf.reduce_mean(count, 1, keepdims=True) / size for count, size in zip(counts, sizes, strict=True)]
    return tf.concat([tf.zeros((trials, 0), tf.float64), *shares], 1)


class TensorFlowStack(KerasStack):
    """K trials of one structure, their data beside them."""

    program_kind = TensorFlowProgram

    def _put(self, array: NDArray) -> Tensor:
        return tf.convert_to_tensor(np.ascontiguousarray(array, dtype=self.dtype))

    def run(self, chunk: Chunk) -> Losses:
        """One call of the graph."""
        program, optimizer = self.program, self.program.optimizer
        optimizer.iterations.assign(chunk.step)
        loss, omega = program.run(
            self.X, self.d, tf.convert_to_tensor(chunk.rows.astype(np.int32)), tf.convert_to_tensor(chunk.noise),
            self._put(chunk.rates), self._put(corrections(optimizer.spec, chunk.step, chunk.rates.shape[1])),
            tf.constant(self._noise_block(chunk.rows.shape[2]), tf.int32),
        )  # fmt: skip
        return Losses(loss.numpy().T, omega.numpy().T.astype(np.float64))


class KerasTensorFlow(Backend):
    """Keras 3 on TensorFlow."""

    name = "keras"

    def stack(self, trials: Sequence[Trial], data: Data | None = None, machine: Machine | None = None) -> Stack:
        """K networks on one device. TensorFlow fixes its threads at its first operation: later stacks take what there is."""
        machine = machine or Machine()
        if machine.devices not in ("auto", 1):
            raise BackendError(
                f"train.devices must be 1 with train.backend: keras, got {machine.devices}; "
                "set train.devices: 1, or train.backend: lightning"
            )
        refuse_mixed(self.name, trials, data)
        _prepare(threads_for(trials, machine))
        return TensorFlowStack(trials, data, machine)

    def versions(self) -> dict[str, str]:
        """Of TensorFlow, Keras and NumPy."""
        return {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}

    def devices(self) -> list[str]:
        """GPUs, if TensorFlow sees any, then the processor."""
        return [f"cuda:{i}" for i, _ in enumerate(tf.config.list_physical_devices("GPU"))] + ["cpu"]

    def save(self, trial: Trial, flat: NDArray, stem: Path) -> Path:
        """As STEM.keras."""
        from backends.keras.plain import save

        return save(trial, flat, stem)


def _prepare(threads: int) -> None:
    """Threads within an operation; one operation after the other, since the graph of a step is a chain."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # TensorFlow has computed already, and its threads are what they are
        log.debug("TensorFlow goes on with %d threads", tf.config.threading.get_intra_op_parallelism_threads())
    if tf.config.list_physical_devices("GPU"):  # on a processor the same run gives the same bits without it
        tf.config.experimental.enable_op_determinism()
