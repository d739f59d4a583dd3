"""Keras on JAX: a chunk of optimizer steps is one compiled call, with the data on the device and no Python between steps.

Keras' layers and optimizer run inside it by `keras.StatelessScope`: what they read and assign are the values of the step.
The loop's length is no constant of the compiled code, and a chunk is padded to a power of two, so that a run compiles
once for whole batches and once for the short last one, and gives the same bits however it is divided.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import jax

jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]  # else float64 is silently float32; Keras must find it so when it is imported

import keras  # noqa: E402
import numpy as np  # noqa: E402
from jax import lax  # noqa: E402
from jax import numpy as jnp  # noqa: E402

from backends.activations import ACTIVATIONS, Activation  # noqa: E402
from backends.base import Chunk, Losses, NDArray, Stack  # noqa: E402
from backends.keras.network import StackedActivation  # noqa: E402
from backends.keras.noise import noise  # noqa: E402
from backends.keras.program import Program  # noqa: E402
from backends.keras.stack import KerasBackend, KerasStack  # noqa: E402
from backends.optimizers import corrections  # noqa: E402

Array = Any
log = logging.getLogger(__name__)
PROBE_PART = 128  # rows of the probe that are computed together, where their number can be divided so
LEAST_STEPS = 16  # to which a shorter chunk is padded

# Keras 3.15 computes tanh and mean of float64 in float32 on JAX (its type lattice knows no float64 there).
_NAMES = ("abs", "concatenate", "exp", "expm1", "log", "log1p", "max", "mean", "sqrt", "sum", "tanh", "where", "zeros")
XP = SimpleNamespace(
    **{name: getattr(jnp, name) for name in _NAMES},
    erf=jax.scipy.special.erf,
    logsumexp=jax.scipy.special.logsumexp,
    cast=lambda values, dtype: values.astype(dtype),
)


class SelectedActivation(StackedActivation):
    """Every φ of all trials, of which each takes its own: XLA vectorises that, and not pieces that are put together."""

    xp: ClassVar[Any] = XP

    def each(self, v: Array, function: Callable[[Activation, Array, Array], Array]) -> Array:
        """What is not taken is φ(0), so that no trial's numbers overflow in a φ that is another's."""
        slopes, chosen = self.slopes[:, None, None], [ACTIVATIONS[name] for name in self.names]
        if len(chosen) == 1:
            return function(chosen[0], v, slopes)
        group = jnp.searchsorted(self.cuts.value, jnp.arange(len(v)), side="right")[:, None, None]
        found = jnp.zeros_like(v)
        for number, phi in enumerate(chosen):
            own = group == number
            found = jnp.where(own, function(phi, jnp.where(own, v, 0.0), slopes), found)
        return found


class JaxProgram(Program):
    """Compiled functions of the variables' values; donated where new ones come out."""

    activation: ClassVar[type[StackedActivation]] = SelectedActivation
    xp: ClassVar[Any] = XP
    divided = True

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.moving = [self.network.flat, *self.slots.values()]
        self.traces = 0
        moving = {id(variable) for variable in self.moving}
        own = [self.l1, self.l2, self.limit, self.class_weights, self.seed_index]
        every = [*self.network.variables, *self.numbers.values(), *own]
        self.fixed = [variable for variable in every if id(variable) not in moving]
        self._run = self._compiled(self._steps, donate_argnums=0, static_argnames="block")
        self._predict, self._probe = self._compiled(self.network), self._compiled(self._signals)
        self._check = self._compiled(lambda *rows: self._gradients(self.network.flat.value, *rows))

    def _compiled(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """jax.jit of a function that sees the values handed in in place of the variables' own.

        float32 products are in float32 on a GPU too (JAX's default there is TF32).
        """

        def exact(moving: list[Array], fixed: list[Array], *arguments: Any, **named: Any) -> Any:
            values = zip([*self.moving, *self.fixed], [*moving, *fixed], strict=True)
            with jax.default_matmul_precision("highest"), keras.StatelessScope(list(values)):
                return function(*arguments, **named)

        return jax.jit(exact, **options)

    def _values(self) -> tuple[list[Array], list[Array]]:
        return [v.value for v in self.moving], [v.value for v in self.fixed]

    def run(self, *arguments: Any, block: int) -> tuple[Array, ...]:
        """The steps of a chunk: E (S, K) float64, λΩ and max|g| (S, K), padded at their ends."""
        moved, seen = self._run(*self._values(), *arguments, block=block)
        for variable, value in zip(self.moving, moved, strict=True):
            variable.assign(value)
        return seen

    def predict(self, X: Array) -> Array:
        return self._predict(*self._values(), X)

    def probe(self, X: Array, d: Array) -> tuple[Array, Array, Array]:
        return self._probe(*self._values(), X, d)

    def gradients(self, flat: Array, X: Array, d: Array, keys: NDArray | None) -> tuple[Any, ...]:
        moving, fixed = self._values()
        return self._check([flat, *moving[1:]], fixed, X, d, keys)

    # -- compiled --

    def _steps(
        self, X: Array, d: Array, rows: Array, keys: Array, rates: Array, corrected: Array, steps: Array, *, block: int
    ) -> tuple[list[Array], tuple[Array, ...]]:
        """The first `steps` of the chunk, with noise for `block` steps at a time."""
        self.traces += 1
        batch, trials = rows.shape[2], len(rates)
        seen = tuple(jnp.zeros((rows.shape[1], trials), kind) for kind in (jnp.float64, self.dtype, self.dtype))

        def step(i: Array, carry: Any, start: Array, made: list[Array]) -> Any:
            state, seen = carry
            x, y = (self._to_trials(part[_at(rows, i, 1)]) for part in (X, d))
            masks = iter(made)
            here = [self._to_trials(_at(next(masks), i - start, 1)) if on else None for on in self.noisy]
            loss, omega, gradients, _ = self._backward(state[0], x, y, here)
            state, largest = self._moved(state, gradients, _at(rates, i, 1)[:, None], _at(corrected, i, 0))
            now = zip(seen, (loss, omega, largest), strict=True)
            return state, tuple(column.at[i].set(value) for column, value in now)

        def several(carry: Any) -> Any:
            start, carry = carry
            stop = jnp.minimum(start + block, steps)
            now = lax.dynamic_slice_in_dim(keys, start, block, axis=1)
            made = [noise(now[:, :, i], batch, self.units[i]) for i, on in enumerate(self.noisy) if on]
            # Else XLA makes the noise again at every use.
            made = list(lax.optimization_barrier(made))  # type: ignore[no-untyped-call]
            return stop, lax.fori_loop(start, stop, lambda i, carry: step(i, carry, start, made), carry)

        state = [self.network.pieces(variable.value) for variable in self.moving]
        carry = (jnp.zeros_like(steps), (state, seen))
        _, (state, seen) = lax.while_loop(lambda carry: carry[0] < steps, several, carry)
        return [jnp.concatenate(pieces, axis=1) for pieces in state], seen

    def _differentiate(self, function: Callable[[list[Array]], Any], at: list[Array]) -> tuple[list[Array], Any]:
        return jax.grad(function, has_aux=True)(at)

    def _pick(self, values: Array, index: Array) -> Array:
        return values[index]

    def _backward(self, theta: list[Array], x: Array, d: Array, masks: Sequence[Array] | None) -> tuple[Any, ...]:
        # One product of all trials' weights with shared inputs would turn weights and fields round in memory.
        return super()._backward(theta, jnp.broadcast_to(x, (len(theta[0]), *x.shape[1:])), d, masks)

    def _signals(self, X: Array, d: Array) -> tuple[Array, Array, Array]:
        """Part after part where there are many rows: what a part computes then stays in the processor's cache."""
        theta, rows = self.network.pieces(self.network.flat.value), X.shape[1]
        size = PROBE_PART if rows % PROBE_PART == 0 else rows
        parts = [jnp.moveaxis(values.reshape(len(values), -1, size, values.shape[2]), 1, 0) for values in (X, d)]
        squares, small, peaks = lax.map(lambda part: self._sums(theta, *part), parts)
        hidden = [layer.sum(0) / (rows * units) for layer, units in zip(small, self.outputs, strict=False)]
        return (
            jnp.stack([jnp.sqrt(layer.sum(0) / (rows * units)) for layer, units in zip(squares, self.outputs, strict=True)], 1),
            _columns(hidden, len(theta[0])),
            _columns([jnp.mean(peak.max(0) == 0, 1, dtype=jnp.float64) for peak in peaks], len(theta[0])),
        )

    def _sums(self, theta: list[Array], X: Array, d: Array) -> tuple[list[Array], list[Array], list[Array]]:
        """Of some rows: a layer, Σ δ² (K,) float64; a hidden layer, the number of saturated (row, unit) (K,) float64, and the
        largest |φ'| of each unit, (K, units), in shares of what φ' is at most."""
        deltas, fields = self._deltas(theta, X, d, None)
        steepness = [self.network.activation.steepness(v) for v in fields[:-1]]
        return (
            [jnp.sum(jnp.square(delta.astype(jnp.float64)), (1, 2)) for delta in deltas],  # a vanished δ² underflows in float32
            [jnp.sum(s < 0.05, (1, 2), dtype=jnp.float64) for s in steepness],
            [jnp.max(s, 1) for s in steepness],
        )


def _at(array: Array, i: Array, axis: int) -> Array:
    return lax.dynamic_index_in_dim(array, i, axis, keepdims=False)


def _columns(layers: list[Array], trials: int) -> Array:
    """A column a layer, (K, layers) float64; a network without hidden layers has none."""
    return jnp.stack(layers, 1) if layers else jnp.zeros((trials, 0))


class JaxStack(KerasStack):
    """K trials of one structure, their data beside them."""

    program_kind = JaxProgram

    def _put(self, array: NDArray) -> Array:
        return jnp.array(array, self.dtype)

    def run(self, chunk: Chunk) -> Losses:
        _, steps, batch = chunk.rows.shape
        padded = max(LEAST_STEPS, _power_of_two(steps))
        corrected = corrections(self.program.spec, chunk.step, steps)
        loss, omega, largest = self.program.run(
            self.X, self.d, _pad(chunk.rows.astype(np.int32), padded, 1), _pad(chunk.noise, padded, 1),
            _pad(chunk.rates.astype(self.dtype), padded, 1), _pad(corrected.astype(self.dtype), padded, 0),
            np.int32(steps), block=min(padded, _power_of_two(self._noise_block(batch) + 1) // 2),
        )  # fmt: skip
        seen = (np.array(column[:steps]).T for column in (loss, omega, largest))
        loss, omega, largest = seen
        return Losses(loss, omega.astype(np.float64), largest)


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _pad(array: NDArray, length: int, axis: int) -> NDArray:
    missing = [(0, length - size if place == axis else 0) for place, size in enumerate(array.shape)]
    return np.pad(array, missing)


class KerasJax(KerasBackend):
    """Keras 3 on JAX."""

    name = "keras-jax"
    stack_kind = JaxStack

    def start(self, threads: int) -> None:
        """XLA reads the size of its pool from the environment, once; children of this process are not to find it there."""
        if not _threads:
            before = os.environ.get("PJRT_NPROC")
            os.environ["PJRT_NPROC"] = str(threads)
            jax.local_devices()
            os.environ.pop("PJRT_NPROC")
            if before is not None:
                os.environ["PJRT_NPROC"] = before
            _threads.append(threads)
        elif _threads != [threads]:
            log.debug("JAX goes on with %d threads", *_threads)

    def versions(self) -> dict[str, str]:
        return {"jax": jax.__version__, "keras": keras.__version__, "numpy": np.__version__}

    def devices(self) -> list[str]:
        """GPUs, if JAX sees any, then the processor. To look starts JAX, on one thread."""
        self.start(1)
        return [f"cuda:{device.id}" for device in jax.local_devices() if device.platform == "gpu"] + ["cpu"]


_threads: list[int] = []  # that JAX was started with here
