"""How the weights of each layer lie: before training, which follows from the seed, and in the end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from backends import weights
from backends.spec import Trial

NDArray = np.ndarray[Any, np.dtype[Any]]
HEADER = ("layer", "low", "high", "middle", "initial", "final")
MOST, FEWEST = 41, 11  # bins, as many as 2√n of n weights in between


def histograms(networks: Sequence[tuple[Trial, NDArray]]) -> Iterator[tuple[int, float, float, float, int, int]]:
    """A row a layer (from 1) and bin: its ends and middle, and how many weights lie in it, initial and final; without biases.

    Both share their bins, which are even, and reach as far as the largest weight to either side; one has 0 as its middle, where
    L1 sends weights. Of several networks (P,) of one structure, the folds', all weights together.
    """
    trial = networks[0][0]
    initial = np.concatenate([weights.initial([one]) for one, _ in networks])
    final = np.stack([flat for _, flat in networks])
    for layer in range(len(trial.layers)):
        first, last = (_of(trial, flat, layer) for flat in (initial, final))
        reach = max(float(np.abs(first).max()), float(np.abs(last).max())) or 1.0
        bins = int(np.clip(2 * math.isqrt(len(last) // len(final)) + 1, FEWEST, MOST))
        edges = np.linspace(-reach, reach, bins + 1)
        counts = [np.histogram(values, edges)[0].tolist() for values in (first, last)]
        middles = (edges[:-1] + edges[1:]) / 2
        for row in zip(edges[:-1].tolist(), edges[1:].tolist(), middles.tolist(), *counts, strict=True):
            yield (layer + 1, *row)


def _of(trial: Trial, flat: NDArray, layer: int) -> NDArray:
    """The weights of a layer, of flat (K, P)."""
    parts = [flat[:, s.start : s.stop] for s in weights.layout(trial) if s.layer == layer and s.penalised]
    return np.concatenate([part.ravel() for part in parts])
