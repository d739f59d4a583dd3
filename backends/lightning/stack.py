"""K trials as one stacked network: layers forward and back, all else on the flat (K, P) buffer.

With several devices, `drive` shares every batch out among ranks; all the rest is done here, on the first device alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from backends import losses, weights
from backends.activations import ACTIVATIONS
from backends.base import Chunk, Data, Gradients, Losses, Machine, NDArray, Report, Signals, Stack, State, threads_for
from backends.lightning import loop, ranks
from backends.lightning.batches import Batch, Batches, own_share
from backends.lightning.network import LOSSES, PRODUCTS, Network, Parameters, Pass
from backends.lightning.optimizer import LossScale, StackedOptimizer, clip, largest_of
from backends.spec import Trial

PREDICT_ROWS = 2048  # fixed, so that a row's outputs do not depend on the memory at hand
PROBE_ROWS, PROBE_PART = 1024, 128
CACHED_NUMBERS = 2**16  # of each of five arrays that are gone through several times: they stay in the cache meanwhile


class LightningStack(Stack):
    """What is on the device: the data, `network.flat`, the optimizer's slots and the trials' numbers."""

    def __init__(self, trials: Sequence[Trial], data: Data | None, machine: Machine, device: torch.device) -> None:
        super().__init__(trials, data, machine)
        self.device = device
        self.world = 1 if machine.devices == "auto" else machine.devices
        self.share = own_share(self.world)
        self._X = self._X_valid = self._d = None
        if data is not None:
            self._X, self._X_valid, self._d = (self._tensor(rows) for rows in (data.X, data.X_valid, self.targets()))
        self._rebuild()
        self.network.flat.copy_(self._tensor(weights.initial(trials)))

    def _rebuild(self) -> None:
        """New buffers for the trials as they are now; `load` fills them."""
        threads = threads_for(self.trials, self.machine)
        # The ranks of one processor divide its cores between them.
        self.threads = max(1, threads // self.world) if self.machine.threads == "auto" else threads
        precision = self.trials[0].train.precision
        self._losses = LOSSES[self.trials[0].task]
        self.bits = PRODUCTS.get(precision)
        self.scaling = LossScale(len(self.trials), self.device) if precision == "16-mixed" else None
        self.network = Network(self, self.device)
        self._g = torch.empty_like(self.network.flat)
        hyper = {name: self._tensor(value)[:, None] for name, value in self.hyper.items()}
        self.optimizer = StackedOptimizer(self.network.flat, self.trials[0].train.optimizer, hyper)
        self.batches = Batches(self, self._X, self._d, self.device)
        self._l1, self._l2 = (self._tensor(values) if values.any() else None for values in (self.l1, self.l2))
        self._small = [0.05 * ACTIVATIONS[name].steepest for name, _, _ in self.groups]  # |φ'| of a saturated unit is smaller
        self._clip = None if self.clip is None else self._tensor(self.clip)[:, None]

    def _tensor(self, values: NDArray) -> Tensor:
        """On the device, in the trials' precision; shares memory with the array where both are the processor's."""
        values = np.require(values, self.dtype, ["C"])
        if values.flags.writeable:
            return torch.from_numpy(values).to(self.device)
        with warnings.catch_warnings():  # that torch could write to it; nothing here does
            warnings.simplefilter("ignore")
            return torch.from_numpy(values).to(self.device)

    # -- training --

    def drive(self, chunks: Iterable[Chunk], report: Report) -> None:
        """Lightning's Trainer asks for the chunks, in this process or, with several devices, in a process a device."""
        if self.world > self.share.world:
            ranks.drive(self, self.threads, chunks, report)
        else:
            loop.drive(self.run, chunks, report, self.device, ranks=self.world > 1)

    def run(self, chunk: Chunk) -> Losses:
        """Nothing leaves the device before the chunk's end. Outside `drive`, whole batches are computed here."""
        with self._computing():
            parameters, gradients = self.network.views(self.network.flat), self.network.views(self._g)
            batches = enumerate(self.batches.of(chunk, self.share), chunk.step + 1)
            seen = [self._step(batch, t, parameters, gradients) for t, batch in batches]
            rows, penalties, largest = (torch.stack(column).cpu().numpy() for column in zip(*seen, strict=True))
            means = self._means(rows.astype(np.float64), chunk.rows.shape[2])
            return Losses(means, penalties.T.astype(np.float64), largest.T)

    def _means(self, rows: NDArray, size: int) -> NDArray:
        """E of each step, (K, S), from the losses of the rows that are here, (S, K, b)."""
        if self.share.world == 1:
            return rows.mean(-1).T
        sums = torch.from_numpy(rows.sum(-1)).to(self.device)
        return (self.share.add_up(sums).cpu().numpy() / size).T

    def _step(self, batch: Batch, t: int, parameters: list[Parameters], gradients: list[Parameters]) -> tuple[Tensor, ...]:
        """One optimizer step, t counted from 1; the losses of the rows that are here (K, b), λΩ (K,) before it, max|g| (K,).

        `parameters` are views of the weights, `gradients` of where their gradient is to stand.

        A rank's gradient is Σ ∂ℓ over its rows / B, so that the sum over ranks is the whole batch's. The penalty comes after
        that sum, on every rank the same bits.
        """
        run = self.network.forward(parameters, batch.x, batch.masks, self.bits)
        rows = self._differentiate(run, batch, parameters, gradients)
        g = self._unscaled(self.share.add_up(self._g))
        penalty = self._penalise(self.network.flat, g)
        if self._clip is not None:
            clip(g, self._clip, self.optimizer.spare[0])
        largest = largest_of(g)
        if self.scaling is None:
            self.optimizer.update(g, batch.eta, t)
        else:
            self.scaling.guard(g, self._buffers(), lambda: self.optimizer.update(g, batch.eta, t))
            largest = largest.nan_to_num(0.0, 0.0)  # such a step was skipped
        return rows, penalty, largest[:, 0]

    def _differentiate(self, run: Pass, batch: Batch, parameters: list[Parameters], gradients: list[Parameters]) -> Tensor:
        """The gradient of Σ w·ℓ/B over the rows that are here, times the scale of the loss where 16 bits need it; w·ℓ (K, b).

        Losses are summed over trials, so that no trial feels another.
        """
        rows, e = self._losses(run.fields[-1], batch.d)
        if batch.weights is not None:
            rows.mul_(batch.weights)
            e.mul_(batch.weights.unsqueeze(-1))
        e.mul_(1 / batch.size if self.scaling is None else self.scaling.scale[..., None] / batch.size)
        errors = self.network.backward(parameters, self.network.slopes_of(run), e, batch.masks, self.bits)
        self.network.gradient(run, errors, gradients, self.bits)
        return rows

    def _unscaled(self, g: Tensor) -> Tensor:
        """In place."""
        return g if self.scaling is None else g.div_(self.scaling.scale)

    def _penalise(self, W: Tensor, g: Tensor) -> Tensor:
        """Adds λ1·sign(W) + 2·λ2·W to g, all (K, P), and returns λΩ = Σ λ1|W| + λ2 W², (K,). λ is 0 on biases.

        With h = λ1·sign(W) + λ2·W, λΩ is Σ h·W and g takes h + λ2·W. A λ that no trial has is left out.
        """
        if self._l1 is None and self._l2 is None:
            return W.new_zeros(len(W))
        trials = max(1, CACHED_NUMBERS // W.shape[1])
        buffers = (W, g, self.optimizer.spare[0], self._l1, self._l2)
        blocks = (repeat(None) if values is None else torch.split(values, trials) for values in buffers)
        return torch.cat([_penalty(*part) for part in zip(*blocks, strict=False)])

    # -- looking --

    def predict(self, X: NDArray | None = None) -> NDArray:
        rows = self._folds(self._X_valid) if X is None else self._tensor(X)[None]
        with self._computing():
            parameters = self.network.views(self.network.flat)
            parts = (part if X is not None else self._own(part) for part in torch.split(rows, PREDICT_ROWS, dim=1))
            outputs = [self.network.forward(parameters, part, self.network.quiet).fields[-1] for part in parts]
            return torch.cat(outputs, dim=1).cpu().numpy()

    def _folds(self, values: Tensor | None) -> Tensor:
        """Rows of all folds -> (F, rows, numbers)."""
        assert self.data is not None and values is not None, "a stack without data has no rows; give X"
        return values.view(len(self.data.folds), -1, values.shape[1])

    def _own(self, values: Tensor) -> Tensor:
        """What is of each fold, (F, ...), for each trial, (K, ...); (1, ...) where all trials have one fold."""
        chosen = self.region[: 1 if (self.region == self.region[0]).all() else None]
        return values if len(values) == 1 else values.index_select(0, torch.from_numpy(chosen).to(self.device))

    def probe(self) -> Signals:
        """On the first min(n, 1024) training rows, some at a time: the sums then stay in the processor's cache."""
        X, d = (torch.split(self._folds(values)[:, :PROBE_ROWS], PROBE_PART, dim=1) for values in (self._X, self._d))
        d = tuple(part[..., : self.batches.outputs] for part in d)
        with self._computing():
            parts = [self._signals(self._own(x), self._own(targets)) for x, targets in zip(X, d, strict=True)]
            squares, small, peaks = zip(*parts, strict=True)
            peak = [torch.stack(layer).amax(0) for layer in zip(*peaks, strict=True)]
        rows, units = sum(part.shape[1] for part in X), np.array([layer.outputs for layer in self.network.layers])
        dead = [(units_ == 0).double().mean(1) for units_ in peak]
        return Signals(
            np.sqrt(sum(_columns(s, len(self.trials)) for s in squares) / (rows * units)),
            sum(_columns(s, len(self.trials)) for s in small) / (rows * units[:-1]),
            _columns(dead, len(self.trials)),
        )

    def _signals(self, x: Tensor, d: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of some rows, x (Kx, b, I) and d (Kx, b, O): a layer, Σ δ² (K,) float64; a hidden layer, the number of saturated
        (row, unit) (K,) float64, and the largest |φ'| of each unit (K, units)."""
        network, parameters = self.network, self.network.views(self.network.flat)
        run = network.forward(parameters, x, network.quiet)
        slopes = network.slopes_of(run)
        errors = network.backward(parameters, slopes, self._losses(run.fields[-1], d)[1], network.quiet)
        # In place, each array stays in the cache; a row's squares are summed in its own type, the rows in float64.
        squares = [error.square_().sum(2).double().sum(1) for error in errors]
        peaks = [torch.cat([phi.abs_().amax(1) for phi in parts]) for parts in slopes]
        small = [torch.cat([_below(phi, bound) for phi, bound in zip(parts, self._small, strict=True)]) for parts in slopes]
        return squares, small, peaks

    def loss_and_gradients(self, flat: NDArray, X: NDArray, y: NDArray, noise: NDArray | None) -> Gradients:
        """Forward and backward as `run` does them, from weights that are given."""
        first, network = self.trials[0], self.network
        W, x, d = self._tensor(flat), self._tensor(X)[None], self._tensor(losses.targets(first.task, y, first.outputs))
        masks = network.quiet if noise is None else self.batches.masks(noise, len(X))
        batch = Batch(x, d, masks, W[:, :0], len(X), self.batches.weighed(d)[1])
        g, parameters = torch.empty_like(W), network.views(W)
        with self._computing():
            run = network.forward(parameters, x, masks, self.bits)
            errors = network.backward(parameters, network.slopes_of(run), self._losses(run.fields[-1], d)[1], masks, self.bits)
            loss = self._differentiate(run, batch, parameters, network.views(g)).double().mean(1)
            penalty = self._penalise(W, self._unscaled(g))
        return Gradients(
            _array(run.fields[-1]), _array(loss), _array(penalty.double()), _array(g), tuple(_array(-error) for error in errors)
        )

    # -- state --

    def weights(self) -> NDArray:
        return _array(self.network.flat)

    def state(self) -> State:
        """Weights, optimizer slots, and the scale of the loss where 16 bits need one."""
        return {name: _array(value) for name, value in self._buffers().items()}

    def _buffers(self) -> dict[str, Tensor]:
        """All that a step changes, by its name in a state."""
        slots = {f"slot.{name}": value for name, value in self.optimizer.slots.items()}
        scaling = {} if self.scaling is None else self.scaling.buffers()
        return {"weights": self.network.flat, **slots, **scaling}

    def load(self, state: State) -> None:
        """Take up a state. Weights alone do for predicting; the slots then stay as they are."""
        places = self._buffers()
        for name, value in state.items():
            if value.shape != places[name].shape:
                raise ValueError(f"state[{name!r}] must be {tuple(places[name].shape)}, (trials, numbers), got {value.shape}")
            places[name].copy_(self._tensor(value))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """torch's number of threads is the process's; it is put back."""
        before = torch.get_num_threads()
        if before == self.threads:
            yield
            return
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _below(phi: Tensor, bound: float) -> Tensor:
    """The number of (row, unit) of each trial where φ' is smaller, (k,) float64.

    Overwrites φ'; as booleans it takes longer.
    """
    return phi.lt_(bound).sum(2).double().sum(1)


def _penalty(W: Tensor, g: Tensor, h: Tensor, l1: Tensor | None, l2: Tensor | None) -> Tensor:
    """`_penalise` for some trials, with h to write on."""
    if l1 is not None:
        torch.sign(W, out=h).mul_(l1)
        if l2 is not None:
            h.addcmul_(l2, W)
    elif l2 is not None:
        torch.mul(W, l2, out=h)
    g.add_(h)
    if l2 is not None:
        g.addcmul_(l2, W)
    return h.mul_(W).sum(1)


def _columns(layers: list[Tensor], trials: int) -> NDArray:
    """A column a layer: (K, layers) float64."""
    return torch.stack(layers, dim=1).cpu().numpy() if layers else np.zeros((trials, 0))


def _array(values: Tensor) -> NDArray:
    """A copy, on the processor."""
    return values.detach().cpu().numpy().copy()
