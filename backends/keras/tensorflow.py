"""Keras on TensorFlow: a chunk of optimizer steps is one graph, with the data on the device and no Python between steps.

On 64-128-64-10, batch 32, one thread, Keras' own `fit` takes 2000 µs a step, this graph 230, and 70 to 85 a trial-step at
K = 16. Tracing it costs 0.5 s, so a program is kept and lent to the next stack of the same structure.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from backends.base import Chunk, Losses, NDArray, Stack
from backends.keras.noise import noise
from backends.keras.program import Program
from backends.keras.stack import KerasBackend, KerasStack
from backends.optimizers import corrections

Tensor = Any
log = logging.getLogger(__name__)

# Each program traces each of its graphs once; TensorFlow takes programs of several structures for one that is traced again.
tf.get_logger().addFilter(lambda record: "bound method TensorFlowProgram._" not in record.getMessage())


class TensorFlowProgram(Program):
    """Traced graphs. Unknown sizes are None, so that short batches and other chunks are not traced again."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        real, word, index = tf.as_dtype(self.dtype), tf.uint32, tf.int32
        X, d = tf.TensorSpec((None, self.units[0]), real), tf.TensorSpec((None, self.columns), real)
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
        self.gradients = self._gradients  # not traced: it is for checking

    # -- in the graph --

    def _run(
        self, X: Tensor, d: Tensor, rows: Tensor, keys: Tensor, rates: Tensor, corrected: Tensor, block: Tensor
    ) -> tuple[Tensor, ...]:
        """The steps of a chunk, with noise for `block` at a time.

        E (S, K) float64, λΩ and max|g| (S, K).
        """
        steps, batch = tf.shape(rows)[1], tf.shape(rows)[2]
        moving = [self.network.flat, *self.slots.values()]

        def step(i: Tensor, start: Tensor, made: list[Tensor], seen: tuple[Any, ...]) -> tuple[Any, ...]:
            x, y = (self._to_trials(tf.gather(part, rows[:, i])) for part in (X, d))
            masks = iter(made)
            here = [self._to_trials(next(masks)[:, i - start]) if on else None for on in self.noisy]
            loss, omega, gradients, _ = self._backward([self.network.flat.value], x, y, here)
            state = [[variable.value] for variable in moving]
            state, largest = self._moved(state, gradients, rates[:, i, None], corrected[i])
            for variable, (value,) in zip(moving, state, strict=True):
                variable.assign(value)
            now = zip(seen, (loss, omega, largest), strict=True)
            return i + 1, start, made, tuple(column.write(i, value) for column, value in now)

        def several(start: Tensor, seen: tuple[Any, ...]) -> tuple[Any, ...]:
            stop = tf.minimum(start + block, steps)
            made = [noise(keys[:, start:stop, i], batch, self.units[i]) for i, on in enumerate(self.noisy) if on]
            *_, seen = tf.while_loop(lambda i, *_: i < stop, step, (start, start, made, seen), parallel_iterations=1)
            return stop, seen

        seen = tuple(tf.TensorArray(kind, steps) for kind in (tf.float64, self.dtype, self.dtype))
        _, seen = tf.while_loop(lambda start, _: start < steps, several, (0, seen), parallel_iterations=1)
        return tuple(column.stack() for column in seen)

    def _differentiate(self, function: Callable[[list[Tensor]], Any], at: list[Tensor]) -> tuple[list[Tensor], Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            at = [tf.convert_to_tensor(values) for values in at]
            tape.watch(at)
            value, found = function(at)
        return tape.gradient(value, at), found

    def _pick(self, values: Tensor, index: Tensor) -> Tensor:
        return tf.gather(values, index)

    def _predict(self, X: Tensor) -> Tensor:
        return self.network(X)

    def _probe(self, X: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        deltas, fields = self._deltas([self.network.flat.value], X, d, None)
        trials = self.network.flat.shape[0]
        steepness = [self.network.activation.steepness(v) for v in fields[:-1]]
        squares = [tf.square(tf.cast(delta, tf.float64)) for delta in deltas]  # a vanished δ² underflows in float32
        return (
            tf.stack([tf.sqrt(tf.reduce_mean(square, (1, 2))) for square in squares], 1),
            _share([s < 0.05 for s in steepness], trials),
            _share([tf.reduce_all(s == 0, 1, keepdims=True) for s in steepness], trials),
        )


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
        program = self.program
        loss, omega, largest = program.run(
            self.X, self.d, tf.convert_to_tensor(chunk.rows.astype(np.int32)), tf.convert_to_tensor(chunk.noise),
            self._put(chunk.rates), self._put(corrections(program.spec, chunk.step, chunk.rates.shape[1])),
            tf.constant(self._noise_block(chunk.rows.shape[2]), tf.int32),
        )  # fmt: skip
        return Losses(loss.numpy().T, omega.numpy().T.astype(np.float64), largest.numpy().T)


class KerasTensorFlow(KerasBackend):
    """Keras 3 on TensorFlow."""

    name = "keras"
    stack_kind = TensorFlowStack

    def start(self, threads: int) -> None:
        """Threads within an operation; one operation after the other, since the graph of a step is a chain."""
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError:  # TensorFlow has computed already, and its threads are what they are
            log.debug("TensorFlow goes on with %d threads", tf.config.threading.get_intra_op_parallelism_threads())
        if tf.config.list_physical_devices("GPU"):  # on a processor the same run gives the same bits without it
            tf.config.experimental.enable_op_determinism()

    def versions(self) -> dict[str, str]:
        return {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}

    def devices(self) -> list[str]:
        """GPUs, if TensorFlow sees any, then the processor."""
        return [f"cuda:{i}" for i, _ in enumerate(tf.config.list_physical_devices("GPU"))] + ["cpu"]
