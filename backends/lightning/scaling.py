"""Loss scaling for products in float16, whose smallest number is 6e-8: most gradients of a small net lie below it.

The loss is multiplied by a scale before the backward pass and the gradient divided by it after (Micikevicius et al. 2018).
A trial whose gradient overflowed skips its step and halves its scale; 2000 good steps double it. One scale a trial, so
that no trial feels another. A skipped step counts in t: η, row order and Adam's bias correction go on by the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

START, HIGHEST = 2.0**16, 2.0**24
GOOD_STEPS = 2000.0


class LossScale:
    """`scale` (K, 1), powers of two: multiplying and dividing by them loses nothing."""

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
