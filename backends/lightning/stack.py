"""K trials as one stacked network: forward and backward by torch, all else on the flat (K, P) buffer.

With several devices, `drive` shares every batch out among ranks; all the rest is done here, on the first device alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from backends import tasks, weights
from backends.activations import ACTIVATIONS
from backends.base import Chunk, Data, Gradients, Losses, Machine, NDArray, Signals, Stack, State, threads_for
from backends.lightning import loop, ranks
from backends.lightning.batches import Batch, Batches
from backends.lightning.network import PRODUCTS, Network
from backends.lightning.optimizer import StackedOptimizer
from backends.lightning.scaling import LossScale
from backends.lightning.share import ALONE, Share
from backends.spec import Trial

PREDICT_ROWS = 2048  # fixed, so that a row's outputs do not depend on the memory at hand
PROBE_ROWS, PROBE_PART = 1024, 128


class LightningStack(Stack):
    """What is on the device: the data, `network.flat`, the optimizer's slots and the trials' numbers."""

    def __init__(self, trials: Sequence[Trial], data: Data | None, machine: Machine, device: torch.device) -> None:
        super().__init__(trials, data, machine)
        self.device = device
        self.world = 1 if machine.devices == "auto" else machine.devices
        self.share: Share = ALONE  # of each batch; `ranks.drive` sets it while it drives
        self._upload_data()
        self._rebuild()
        self.network.flat.data.copy_(self._tensor(weights.initial(trials)))

    def _upload_data(self) -> None:
        self._X = self._X_valid = self._d = None
        if self.data is not None:
            self._X, self._X_valid = self._tensor(self.data.X), self._tensor(self.data.X_valid)
            self._d = self._tensor(self.target_arrays()[0])

    def _rebuild(self) -> None:
        """New buffers for the trials as they are now; `load` fills them."""
        threads = threads_for(self.trials, self.machine)
        # The ranks of one processor divide its cores between them.
        self.threads = max(1, threads // self.world) if self.machine.threads == "auto" else threads
        precision = self.trials[0].train.precision
        self.product = PRODUCTS.get(precision)
        self.scaling = LossScale(len(self.trials), self.device) if precision == "16-mixed" else None
        self.network = Network(self, self.device)
        hyper = {name: self._tensor(value)[:, None] for name, value in self.hyper.items()}
        self.optimizer = StackedOptimizer(self.network.flat, self.trials[0].train.optimizer, hyper)
        self.batches = Batches(self, self._X, self._d, self.device)
        self._l1, self._l2 = (self._tensor(values) if values.any() else None for values in (self.l1, self.l2))
        steepest = [ACTIVATIONS[name].steepest for name, start, stop in self.groups for _ in range(start, stop)]
        self._small = self._tensor(0.05 * np.array(steepest))[:, None, None]  # |φ'| of a saturated unit is smaller
        self._clip = None if self.clip is None else self._tensor(self.clip)[:, None]

    def _tensor(self, values: NDArray) -> Tensor:
        """On the device, in the trials' precision; shares memory with the array where both are the processor's."""
        return torch.from_numpy(np.require(values, self.dtype, ["C", "W"])).to(self.device)

    # -- training -----------------------------------------------------------------------------------------------------

    def drive(self, chunks: Iterable[Chunk], report: Callable[[Chunk, Losses], None]) -> None:
        """Lightning's Trainer asks for the chunks; with several devices, one Trainer on each."""
        driver = loop if self.world == 1 else ranks
        driver.drive(self, chunks, report)

    def run(self, chunk: Chunk) -> Losses:
        """Nothing leaves the device before the chunk's end. Outside `drive`, whole batches are computed here."""
        rows, penalties = [], []
        with self._computing(), torch.enable_grad():
            for t, batch in enumerate(self.batches.of(chunk, self.share), chunk.step + 1):
                loss, penalty = self._step(batch, t)
                rows.append(loss)
                penalties.append(penalty)
            return Losses(self._means(rows, chunk.rows.shape[-1]), _gathered(penalties).T)

    def _means(self, steps: list[Tensor], size: int) -> NDArray:
        """E of each step, (K, S), from the losses of the rows that are here, S of (K, b)."""
        rows = _gathered(steps)
        if self.share.world == 1:
            return rows.mean(-1).T
        sums = torch.from_numpy(rows.sum(-1)).to(self.device)
        return (self.share.add_up(sums).cpu().numpy() / size).T

    def _step(self, batch: Batch, t: int) -> tuple[Tensor, Tensor]:
        """One optimizer step, t counted from 1; the losses of the rows that are here (K, b) and λΩ (K,) before it.

        A rank's gradient is Σ ∂ℓ over its rows / B, so that the sum over ranks is the whole batch's. The penalty comes after
        that sum, on every rank the same bits. That is world·Σ/B and a mean over ranks (DESIGN.md) with one rounding less.
        """
        flat = self.network.flat
        rows = self._row_losses(self.network(batch.x, batch.masks, self.product), batch.d)
        g = self.share.add_up(self._gradient(rows, flat, batch.size))
        penalty = self._penalise(flat.detach(), g)
        if self._clip is not None:
            norm = torch.linalg.vector_norm(g, dim=1, keepdim=True)
            g.mul_((self._clip / norm).clamp_(max=1.0))
        if self.scaling is None:
            self.optimizer.update(g, batch.eta, t)
        else:
            self.scaling.guard(g, self._buffers(), lambda: self.optimizer.update(g, batch.eta, t))
        return rows.detach(), penalty

    def _gradient(self, rows: Tensor, flat: Tensor, size: int) -> Tensor:
        """Of Σ ℓ/B over the rows that are here, summed over trials: a mean over trials would divide each gradient by K."""
        weight = torch.full_like(rows, 1 / size)
        if self.scaling is None:
            return torch.autograd.grad(rows, flat, weight)[0]
        scale = self.scaling.scale
        return torch.autograd.grad(rows, flat, weight.mul_(scale))[0].div_(scale)

    def _row_losses(self, logits: Tensor, d: Tensor) -> Tensor:
        """ℓ of each row of each trial: (K, B)."""
        losses: Tensor = tasks.row_losses(torch, self.trials[0].task, logits, d)
        return losses

    def _penalise(self, W: Tensor, g: Tensor) -> Tensor:
        """Adds λ1·sign(W) + 2·λ2·W to g, all (K, P), and returns λΩ = Σ λ1|W| + λ2 W², (K,). λ is 0 on biases.

        With h = λ1·sign(W) + λ2·W, λΩ is Σ h·W and g takes h + λ2·W. A λ that no trial has is left out, which changes
        no bit: it would add zeros.
        """
        h = self.optimizer.spare[0]
        if self._l1 is not None:
            torch.sign(W, out=h).mul_(self._l1)
            if self._l2 is not None:
                h.addcmul_(self._l2, W)
        elif self._l2 is not None:
            torch.mul(W, self._l2, out=h)
        else:
            return W.new_zeros(len(W))
        g.add_(h)
        if self._l2 is not None:
            g.addcmul_(self._l2, W)
        return h.mul_(W).sum(1)

    # -- looking ------------------------------------------------------------------------------------------------------

    def predict(self, X: NDArray | None = None) -> NDArray:
        """(K, n, O)."""
        rows = self._X_valid if X is None else self._tensor(X)
        assert rows is not None, "a stack without data has no validation rows; give X"
        masks = [None] * len(self.network.layers)
        with self._computing(), torch.no_grad():
            parts = [self.network(part[None], masks) for part in torch.split(rows, PREDICT_ROWS)]
            return torch.cat(parts, dim=1).cpu().numpy()

    def probe(self) -> Signals:
        """On the first min(n, 1024) training rows, some at a time: the sums then stay in the processor's cache."""
        assert self._X is not None and self._d is not None, "a stack without data has nothing to probe"
        X, d = (torch.split(values[:PROBE_ROWS], PROBE_PART) for values in (self._X, self._d))
        with self._computing(), torch.enable_grad():
            parts = [self._signals(x, targets) for x, targets in zip(X, d, strict=True)]
            squares, small, peaks = zip(*parts, strict=True)
            peak = [torch.stack(layer).amax(0) for layer in zip(*peaks, strict=True)]
        rows, units = min(len(self._X), PROBE_ROWS), np.array([layer.outputs for layer in self.network.layers])
        dead = [(units_ == 0).double().mean(1) for units_ in peak]
        return Signals(
            np.sqrt(sum(_columns(s, len(self.trials)) for s in squares) / (rows * units)),
            sum(_columns(s, len(self.trials)) for s in small) / (rows * units[:-1]),
            _columns(dead, len(self.trials)),
        )

    def _signals(self, x: Tensor, d: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of some rows: a layer, Σ δ² (K,) float64; a hidden layer, the number of saturated (row, unit) (K,) float64, and
        the largest |φ'| of each unit (K, units)."""
        fields = self.network.fields(self.network.flat, x[None], [None] * len(self.network.layers))
        rows = self._row_losses(fields[-1], d)
        errors = torch.autograd.grad(rows, fields, torch.ones_like(rows))
        squares = [error.double().square_().sum((1, 2)) for error in errors]
        slopes = [self.network.slope(v.detach()).abs_() for v in fields[:-1]]
        small = [torch.lt(phi, self._small, out=torch.empty_like(phi)).sum(2).double().sum(1) for phi in slopes]
        return squares, small, [phi.amax(1) for phi in slopes]

    def loss_and_gradients(self, flat: NDArray, X: NDArray, y: NDArray, noise: NDArray | None) -> Gradients:
        """Forward and backward as `run` does them, from weights that are given."""
        first = self.trials[0]
        W = self._tensor(flat).clone().requires_grad_()
        x, d = self._tensor(X)[None], self._tensor(tasks.targets(first.task, y, first.outputs))
        masks = [None] * len(first.layers) if noise is None else self.batches.masks(noise, len(X))
        with self._computing(), torch.enable_grad():
            fields = self.network.fields(W, x, masks, self.product)
            rows = self._row_losses(fields[-1], d)
            errors = torch.autograd.grad(rows, fields, torch.ones_like(rows), retain_graph=True)
            g = self._gradient(rows, W, len(X))
            penalty = self._penalise(W.detach(), g)
        loss = rows.detach().double().mean(1)
        return Gradients(
            _array(fields[-1]), _array(loss), _array(penalty.double()), _array(g), tuple(_array(-error) for error in errors)
        )

    # -- state --------------------------------------------------------------------------------------------------------

    def weights(self) -> NDArray:
        """(K, P)."""
        return _array(self.network.flat)

    def state(self) -> State:
        """Weights, optimizer slots, and the scale of the loss where 16 bits need one."""
        return {name: _array(value) for name, value in self._buffers().items()}

    def _buffers(self) -> dict[str, Tensor]:
        """All that a step changes, by its name in a state."""
        slots = {f"slot.{name}": value for name, value in self.optimizer.slots.items()}
        scaling = {} if self.scaling is None else self.scaling.buffers()
        return {"weights": self.network.flat.data, **slots, **scaling}

    def load(self, state: State) -> None:
        """Take up a state. Weights alone do for predicting; the slots then stay as they are."""
        places = self._buffers()
        for name, value in state.items():
            if value.shape != places[name].shape:
                raise ValueError(f"state[{name!r}] must be {tuple(places[name].shape)}, (trials, numbers), got {value.shape}")
            places[name].copy_(self._tensor(value))

    def settle(self) -> None:
        """Back to the device: Lightning moves a module and its optimizer to the processor when a Trainer is done."""
        self.network.to(self.device)
        for name, value in self.optimizer.slots.items():
            self.optimizer.slots[name] = value.to(self.device)

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


def _gathered(steps: list[Tensor]) -> NDArray:
    """(S, ...) float64, in one transfer."""
    return torch.stack(steps).cpu().numpy().astype(np.float64)


def _columns(layers: list[Tensor], trials: int) -> NDArray:
    """A column a layer: (K, layers) float64."""
    return torch.stack(layers, dim=1).cpu().numpy() if layers else np.zeros((trials, 0))


def _array(values: Tensor) -> NDArray:
    """A copy, on the processor."""
    return values.detach().cpu().numpy().copy()
