"""Plain PyTorch as a backend of deltarule: what another distribution writes to join. The contract is backends/base.py.

K networks of one structure as batched products, gradients by autograd, docs/theory.md's formulas as they stand there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from backends import BackendError, base, weights
from backends.activations import ACTIVATIONS
from backends.base import OPTIMIZER_SLOTS, Backend, Chunk, Data, Gradients, Losses, Machine, NDArray, Signals, Stack, State
from backends.draws import MULTIPLY_1, MULTIPLY_2
from backends.losses import row_losses, row_weights, targets
from backends.spec import Trial

PROBE_ROWS = 1024


class Torch(Backend):
    """The processor, in float32 or float64."""

    name = "torch"

    def stack(self, trials: Sequence[Trial], data: Data | None = None, machine: Machine | None = None) -> TorchStack:
        """Raises BackendError for more than one device."""
        machine = machine or Machine()
        if machine.devices not in ("auto", 1):
            raise BackendError(f"train.devices must be 1 or auto for the torch backend, got {machine.devices}")
        torch.set_num_threads(base.threads_for(trials, machine))
        return TorchStack(trials, data, machine)

    def versions(self) -> dict[str, str]:
        """torch's."""
        return {"torch": torch.__version__}

    def devices(self) -> list[str]:
        """The processor."""
        return ["cpu"]


class TorchStack(Stack):
    """`flat` (K, P) and the optimizer's slots (K, P)."""

    def __init__(self, trials: Sequence[Trial], data: Data | None, machine: Machine) -> None:
        super().__init__(trials, data, machine)
        if data is not None:
            self.X, self.X_valid = self._put(data.X), self._put(data.X_valid)
            self.d = self._put(self.targets())
        self._rebuild()
        self.load({"weights": weights.initial(trials)})

    def _rebuild(self) -> None:
        self.layers, self.optimizer = self.trials[0].layers, self.trials[0].train.optimizer
        self.lambda1, self.lambda2, self.a = self._put(self.l1), self._put(self.l2), self._put(self.slopes)[:, None, None]
        self.free = {name: self._put(value)[:, None] for name, value in self.hyper.items()}
        self.limit = None if self.clip is None else self._put(self.clip)[:, None]
        self.w = None if self.class_weights is None else self._put(self.class_weights)
        self.numbers = {name: torch.zeros_like(self.lambda1) for name in OPTIMIZER_SLOTS[self.optimizer.name]}

    def _put(self, array: NDArray) -> Tensor:
        return torch.tensor(np.asarray(array, dtype=self.dtype))

    def _parameters(self, flat: Tensor) -> list[dict[str, Tensor]]:
        layers: list[dict[str, Tensor]] = [{} for _ in self.layers]
        for slot in self.slots:
            layers[slot.layer][slot.name] = flat[:, slot.start : slot.stop].view(-1, *slot.shape)
        return layers

    def _fields(self, flat: Tensor, y: Tensor, keys: NDArray | None) -> list[Tensor]:
        """v of each layer, (K, B, units). Keys (U, places, 2) of the noise, or None for dropout off."""
        fields: list[Tensor] = []
        for place, p in enumerate(self._parameters(flat)):
            y = self._each("value", fields[-1]) if place else y
            if keys is not None and self.thresholds[place].any():
                y = y * self._mask(keys[self.seed_index, place], place, y)
            fields.append(y @ p["weight"] + p["bias"][:, None])
        return fields

    def _each(self, what: str, v: Tensor) -> Tensor:
        """φ(v), "value", or φ'(v), "slope": each activation on its own trials."""
        return torch.cat([getattr(ACTIVATIONS[name], what)(torch, v[i:j], self.a[i:j]) for name, i, j in self.groups])

    def _mask(self, keys: NDArray, place: int, y: Tensor) -> Tensor:
        """0 for a dropped unit, 1/(1-p) for a kept one: keys (K, 2) -> (K, B, units)."""
        hashed = noise(torch.tensor(keys.astype(np.int64)), y.shape[-2], y.shape[-1])
        kept = (hashed >> 8) >= torch.tensor(self.thresholds[place])[:, None, None]
        return kept * self._put(self.scales[place])[:, None, None]

    def _losses(self, fields: list[Tensor], d: Tensor) -> Tensor:
        """ℓ of each row, (K, B)."""
        d = d[..., : self.layers[-1].outputs]
        losses: Tensor = row_losses(torch, self.trials[0].task, fields[-1], d)
        return losses

    def run(self, chunk: Chunk) -> Losses:
        """Step by step."""
        seen = []
        for s in range(chunk.rates.shape[1]):
            rows = torch.tensor(chunk.rows[self.seed_index, s])
            x, d = self.X[rows], self.d[rows]
            loss, penalty, g, _ = self._gradient(self.flat, x, d, chunk.noise[:, s])
            eta, t = self._put(chunk.rates[:, s])[:, None], chunk.step + s + 1
            g = self._clipped(g)
            STEPS[self.optimizer.name](self, g, eta, t)
            seen.append((loss.double(), penalty.double(), g.abs().amax(1)))
        return Losses(*(torch.stack(column, 1).numpy() for column in zip(*seen, strict=True)))

    def _gradient(self, flat: Tensor, x: Tensor, d: Tensor, keys: NDArray | None) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """E (K,), λΩ (K,), the gradient of E + λΩ (K, P), and the local fields."""
        flat = flat.detach().requires_grad_()
        fields = self._fields(flat, x, keys)
        losses = self._weighed(self._losses(fields, d), d).mean(1)
        (g,) = torch.autograd.grad(losses.sum(), flat, retain_graph=True)
        W = flat.detach()
        penalty = (self.lambda1 * W.abs() + self.lambda2 * W * W).sum(1)
        g = g + self.lambda1 * torch.sign(W) + 2 * self.lambda2 * W
        return losses.detach(), penalty, g, fields

    def _weighed(self, losses: Tensor, d: Tensor) -> Tensor:
        """w_i·w_c·ℓ of each row, (K, B)."""
        own, d = d[..., self.layers[-1].outputs :].prod(-1), d[..., : self.layers[-1].outputs]
        losses = losses * own
        return losses if self.w is None else losses * row_weights(torch, self.trials[0].task, d, self.w)

    def _clipped(self, g: Tensor) -> Tensor:
        """g · min(1, c/‖g‖)."""
        if self.limit is None:
            return g
        scale = torch.exp2(torch.floor(torch.log2(g.abs().amax(1, keepdim=True))))
        h, limit = g / scale, self.limit / scale
        norm = (h * h).sum(1, keepdim=True).sqrt()
        return torch.where(norm > limit, h * (self.limit / norm), g)

    def predict(self, X: NDArray | None = None) -> NDArray:
        """(K, n, O)."""
        with torch.no_grad():
            return self._fields(self.flat, self._own(self.X_valid) if X is None else self._put(X), None)[-1].numpy()

    def _own(self, rows: Tensor) -> Tensor:
        """The rows of each trial's fold: (F·n, ...) -> (K, n, ...)."""
        return rows.view(len(self.data.folds), -1, rows.shape[-1])[self.region]

    def probe(self) -> Signals:
        """On the first training rows of each trial's fold."""
        x, d = self._own(self.X)[:, :PROBE_ROWS], self._own(self.d)[:, :PROBE_ROWS]
        *_, fields = self._gradient(self.flat, x, d, None)
        deltas = self._deltas(fields, d)
        hidden = [self._each("slope", v.detach()).abs() for v in fields[:-1]]
        steepest = torch.tensor([ACTIVATIONS[name].steepest for name, i, j in self.groups for _ in range(i, j)])[:, None, None]
        return Signals(
            _columns([delta.double().square().mean((1, 2)).sqrt() for delta in deltas], len(self.trials)),
            _columns([(slope < 0.05 * steepest).double().mean((1, 2)) for slope in hidden], len(self.trials)),
            _columns([(slope == 0).all(1).double().mean(1) for slope in hidden], len(self.trials)),
        )

    def _deltas(self, fields: list[Tensor], d: Tensor) -> list[Tensor]:
        """δ = -∂ℓ/∂v of each row."""
        return [-error for error in torch.autograd.grad(self._losses(fields, d).sum(), fields)]

    def loss_and_gradients(self, flat: NDArray, X: NDArray, y: NDArray, noise: NDArray | None) -> Gradients:
        """The gradient of `run`, from weights that are given."""
        first = self.trials[0]
        d = self._put(targets(first.task, y, first.outputs))
        loss, penalty, g, fields = self._gradient(self._put(flat), self._put(X), d, noise)
        logits = fields[-1].detach().numpy()
        deltas = tuple(delta.numpy() for delta in self._deltas(fields, d))
        return Gradients(logits, loss.double().numpy(), penalty.double().numpy(), g.numpy(), deltas)

    def weights(self) -> NDArray:
        """(K, P)."""
        return self.flat.numpy().copy()

    def state(self) -> State:
        """Weights and optimizer slots."""
        return {"weights": self.weights(), **{f"slot.{name}": value.numpy().copy() for name, value in self.numbers.items()}}

    def load(self, state: State) -> None:
        """Take up a state."""
        self.flat = self._put(state["weights"])
        self.numbers |= {name: self._put(state[f"slot.{name}"]) for name in self.numbers if f"slot.{name}" in state}


def _columns(layers: list[Tensor], trials: int) -> NDArray:
    """A column a layer: (K, layers) float64."""
    return torch.stack(layers, 1).numpy() if layers else np.zeros((trials, 0))


def noise(keys: Tensor, rows: int, units: int) -> Tensor:
    """draws.noise in 64-bit integers that are cut to 32 bits: keys (K, 2) -> (K, rows, units)."""
    at = torch.arange(rows * units).view(rows, units)
    return mix((mix(at ^ keys[:, 0, None, None]) + keys[:, 1, None, None]) & 0xFFFFFFFF)


def mix(x: Tensor) -> Tensor:
    """draws.mix."""
    x = ((x ^ (x >> 16)) * MULTIPLY_1) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * MULTIPLY_2) & 0xFFFFFFFF
    return x ^ (x >> 16)


def sgd(s: TorchStack, g: Tensor, eta: Tensor, t: int) -> None:
    """v ← μv + g, θ ← θ - ηv; Nesterov: θ ← θ - η(g + μv) with v already updated."""
    v = s.numbers["momentum"] = s.free["momentum"] * s.numbers["momentum"] + g
    s.flat = s.flat - eta * (g + s.free["momentum"] * v if s.optimizer.nesterov else v)


def adam(s: TorchStack, g: Tensor, eta: Tensor, t: int) -> None:
    """Kingma & Ba (2015), Algorithm 1."""
    o = s.optimizer
    m = s.numbers["m"] = o.beta1 * s.numbers["m"] + (1 - o.beta1) * g
    v = s.numbers["v"] = o.beta2 * s.numbers["v"] + (1 - o.beta2) * g * g
    s.flat = s.flat - eta * (m / (1 - o.beta1**t)) / ((v / (1 - o.beta2**t)).sqrt() + o.epsilon)


def adamw(s: TorchStack, g: Tensor, eta: Tensor, t: int) -> None:
    """Adam, and η·weight_decay·θ subtracted besides."""
    decay = eta * s.free["weight_decay"] * s.flat
    adam(s, g, eta, t)
    s.flat = s.flat - decay


def rmsprop(s: TorchStack, g: Tensor, eta: Tensor, t: int) -> None:
    """s ← ρs + (1-ρ)g², θ ← θ - ηg/(√s + ε)."""
    o = s.optimizer
    square = s.numbers["s"] = o.rho * s.numbers["s"] + (1 - o.rho) * g * g
    s.flat = s.flat - eta * g / (square.sqrt() + o.epsilon)


Rule = Callable[[TorchStack, Tensor, Tensor, int], None]  # (stack, gradient, η (K, 1), t counted from 1)
STEPS: dict[str, Rule] = {"sgd": sgd, "adam": adam, "adamw": adamw, "rmsprop": rmsprop}
