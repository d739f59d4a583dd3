"""Optimizers with one learning rate a trial (torch's refuse vectors), over one flat (K, P) tensor.

docs/theory.md, "Optimizers, schedule, clipping". Elementwise operations on the whole buffer, but for Adam on the processor: there
torch's fused step goes once through the memory instead of seven times. It treats the last numbers of an array otherwise
than the rest, so that each trial is an array of its own, in a stack as alone; torch's threads change none of its bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from backends.optimizers import RULES
from backends.spec import SGD, Adam, AdamW, Optimizer, RMSprop

Slots = dict[str, Tensor]
Hyper = Mapping[str, Tensor]  # the optimizer's free numbers, one a trial, (K, 1)
FUSED_FROM = 4096  # numbers of a trial from which a call a trial pays: 6 µs and 1 ns a number, where elementwise takes 2 ns
Spare = tuple[Tensor, Tensor]  # (K, P) to write on: fresh memory for large stacks costs more than what is computed in it
START, HIGHEST = 2.0**16, 2.0**24
GOOD_STEPS = 2000.0


class StackedOptimizer:
    """θ (K, P) with learning rates (K, 1), and its slots under their names in optimizers.RULES."""

    def __init__(self, flat: Tensor, spec: Optimizer, hyper: Hyper) -> None:
        self.flat, self.spec, self.hyper = flat, spec, hyper
        self.slots = {name: torch.zeros_like(flat) for name in RULES[spec.name].slots}
        self.spare = torch.empty_like(flat), torch.empty_like(flat)

    def update(self, g: Tensor, eta: Tensor, t: int) -> None:
        """Carry out optimizer step t, counted from 1. g (K, P), η (K, 1)."""
        name, theta = self.spec.name, self.flat
        if name in FUSED and theta.device.type == "cpu" and theta.shape[1] >= FUSED_FROM:
            fused_adam(self.spec, theta, g, self.slots, eta, self.hyper, t)
        else:
            STEPS[name](self.spec, theta, g, self.slots, eta, self.hyper, t, self.spare)


def sgd(o: SGD, theta: Tensor, g: Tensor, slots: Slots, eta: Tensor, hyper: Hyper, t: int, spare: Spare) -> None:
    """v ← μv + g, θ ← θ - ηv; Nesterov: θ ← θ - η(g + μv) with v already updated."""
    v, mu = slots["momentum"], hyper["momentum"]
    v.mul_(mu).add_(g)
    theta.addcmul_(torch.addcmul(g, v, mu, out=spare[0]) if o.nesterov else v, eta, value=-1)


def adam(o: Adam, theta: Tensor, g: Tensor, slots: Slots, eta: Tensor, hyper: Hyper, t: int, spare: Spare) -> None:
    """Kingma & Ba (2015), Algorithm 1, with ε after bias correction.

    With c1 = 1-β1^t, c2 = 1-β2^t, η (m/c1) / (√(v/c2) + ε) is (η √c2/c1) m / (√v + ε√c2): two passes fewer.
    """
    m, v = slots["m"], slots["v"]
    m.lerp_(g, 1 - o.beta1)
    v.mul_(o.beta2).addcmul_(g, g, value=1 - o.beta2)
    c1, root = 1 - o.beta1**t, math.sqrt(1 - o.beta2**t)
    torch.mul(m, eta * (root / c1), out=spare[0])
    theta.addcdiv_(spare[0], torch.sqrt(v, out=spare[1]).add_(o.epsilon * root), value=-1)


def adamw(o: AdamW, theta: Tensor, g: Tensor, slots: Slots, eta: Tensor, hyper: Hyper, t: int, spare: Spare) -> None:
    """Adam, and η·weight_decay·θ subtracted besides, θ before the step (Loshchilov & Hutter 2019)."""
    theta.mul_(1 - eta * hyper["weight_decay"])
    adam(o, theta, g, slots, eta, hyper, t, spare)


def fused_adam(o: Any, theta: Tensor, g: Tensor, slots: Slots, eta: Tensor, hyper: Hyper, t: int) -> None:
    """`adam` or `adamw`, trial by trial."""
    decay = hyper["weight_decay"].flatten().tolist() if "weight_decay" in hyper else [0.0] * len(theta)
    rows, count = zip(*(part.unbind() for part in (theta, g, slots["m"], slots["v"])), strict=True), [torch.tensor(float(t))]
    for row, rate, shrink in zip(rows, eta.flatten().tolist(), decay, strict=True):
        FUSED[o.name](
            *([part] for part in row), [], count, lr=rate, beta1=o.beta1, beta2=o.beta2, weight_decay=shrink, eps=o.epsilon,
            amsgrad=False, maximize=False,
        )  # fmt: skip


def rmsprop(o: RMSprop, theta: Tensor, g: Tensor, slots: Slots, eta: Tensor, hyper: Hyper, t: int, spare: Spare) -> None:
    """s ← ρs + (1-ρ)g², θ ← θ - ηg/(√s + ε)."""
    s = slots["s"]
    s.mul_(o.rho).addcmul_(g, g, value=1 - o.rho)
    theta.addcdiv_(torch.mul(g, eta, out=spare[0]), torch.sqrt(s, out=spare[1]).add_(o.epsilon), value=-1)


def largest_of(g: Tensor) -> Tensor:
    """max|g| of each trial, (K, 1).

    torch's own norm of that name takes ten times as long.
    """
    return torch.maximum(g.amax(1, keepdim=True), -g.amin(1, keepdim=True))


def clip(g: Tensor, limit: Tensor, spare: Tensor) -> None:
    """g · min(1, c/‖g‖) in place, c (K, 1).

    As theory.md has it: no square over- or underflows.
    """
    largest = largest_of(g)
    # Of two, the largest that is no larger than max|g|.
    power = largest / (2 * torch.frexp(largest).mantissa)
    power = torch.where(largest > 0, power, 1.0)
    s = torch.linalg.vector_norm(torch.div(g, power, out=spare), dim=1, keepdim=True)
    beyond = s > limit / power
    g.div_(torch.where(beyond, power, 1.0)).mul_(torch.where(beyond, limit / s, 1.0))


STEPS: dict[str, Callable[..., Any]] = {"sgd": sgd, "adam": adam, "adamw": adamw, "rmsprop": rmsprop}
FUSED: dict[str, Callable[..., None]] = {"adam": torch._fused_adam_, "adamw": torch._fused_adamw_}


class LossScale:
    """For products in float16, whose smallest number is 6e-8: most gradients of a small net lie below it.

    The loss is multiplied by a scale before the backward pass and the gradient divided by it after (Micikevicius et al. 2018).
    A trial whose gradient overflowed skips its step and halves its scale; 2000 good steps double it. One scale a trial, so
    that no trial feels another. A skipped step counts in t: η, row order and Adam's bias correction go on by the clock.
    `scale` (K, 1), powers of two: multiplying and dividing by them loses nothing.
    """

    def __init__(self, trials: int, device: torch.device) -> None:
        self.scale = torch.full((trials, 1), START, device=device)
        self.good = torch.zeros_like(self.scale)  # steps since the scale changed

    def buffers(self) -> dict[str, Tensor]:
        """For a state."""
        return {"scaling.scale": self.scale, "scaling.good": self.good}

    def guard(self, g: Tensor, buffers: Mapping[str, Tensor], update: Callable[[], None]) -> None:
        """Carry out `update`, then put back the rows of `buffers` whose gradient g (K, P) is not finite.

        Copies instead of a question to the device at every step, which would wait for it.
        """
        sound = torch.isfinite(g).all(1, keepdim=True)
        changed = [value for name, value in buffers.items() if not name.startswith("scaling.")]
        before = [value.clone() for value in changed]
        update()
        for now, was in zip(changed, before, strict=True):
            now.copy_(torch.where(sound, now, was))
        self._adapt(sound)

    def _adapt(self, sound: Tensor) -> None:
        self.good.add_(1).mul_(sound)
        grown = self.good >= GOOD_STEPS
        self.scale.mul_(torch.where(sound, 1.0, 0.5)).mul_(torch.where(grown, 2.0, 1.0)).clamp_(1.0, HIGHEST)
        self.good.mul_(~grown)
