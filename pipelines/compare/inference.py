"""Paired differences: their interval, whether they are other than 0, and whether they lie within a margin.

Student's t at every number of pairs, not the bootstrap. Measured over 3000 draws, a 95 % interval holds the true mean of
normal differences with 5, 10, 20, 50 pairs in 95, 95, 96, 94 % by t, and in 83, 89, 93, 93 % by percentiles of resampled means;
of very skewed ones (exponential) in 88, 90, 93, 93 % and 78, 86, 91, 92 %.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.05  # how often a claim may be made that does not hold
POWER = 0.8  # how often the number of pairs that is asked for would be enough
FEWEST = 3  # with two differences every mean is compatible with almost every other


@dataclass(frozen=True)
class Paired:
    """The mean of n paired differences, and its standard error."""

    count: int
    mean: float
    sd: float
    error: float
    overlap: float

    def interval(self, level: float = 1 - LEVEL) -> tuple[float, float]:
        """mean ± t · error, with n - 1 degrees of freedom (Student 1908)."""
        if self.error == 0:
            return self.mean, self.mean
        from scipy.special import stdtrit

        half = float(stdtrit(self.count - 1, (1 + level) / 2)) * self.error
        return self.mean - half, self.mean + half


def paired(differences: Sequence[float], overlap: float = 0.0) -> Paired:
    """Estimate from differences, at least two of them.

    `overlap` is n_test / n_train where the differences are of several splits of one data set: their training rows are shared,
    so the differences vary less than those of fresh rows would, and the error is √(1/n + n_test/n_train) · sd instead of
    sd / √n (Nadeau & Bengio 2003, Machine Learning 52; for repeated folds Bouckaert & Frank 2004, PAKDD).
    """
    count, mean, sd = len(differences), statistics.fmean(differences), statistics.stdev(differences)
    if sd == 0:
        mean = differences[0]  # fmean rounds
    return Paired(count, mean, sd, math.sqrt(1 / count + overlap) * sd, overlap)


def p_differs(found: Paired) -> float:
    """p of H0: the mean difference is 0, two-sided, by t.

    Where all differences are one value nothing is left for t to go by; then by their sign, 2^(1-n) (Dixon & Mood 1946).
    """
    if found.error == 0:
        return 1.0 if found.mean == 0 else 2.0 ** (1 - found.count)
    from scipy.special import stdtr

    return 2 * float(stdtr(found.count - 1, -abs(found.mean) / found.error))


def p_equivalent(found: Paired, margin: float) -> float:
    """The greater p of H0: mean ≤ -margin and H0: mean ≥ margin: two one-sided tests (Schuirmann 1987).

    By t; where all differences are one value, by the sign of what lies between them and the margin, 2^-n.
    """
    if found.error == 0:
        return 2.0**-found.count if abs(found.mean) < margin else 1.0
    from scipy.special import stdtr

    return float(stdtr(found.count - 1, (abs(found.mean) - margin) / found.error))


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for how many they are: so often at most is even one of all claims wrong (Holm 1979)."""
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    corrected, reached = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        reached = max(reached, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = reached
    return corrected


def needed(found: Paired, distance: float, level: float) -> int | None:
    """About how many pairs in all would show a mean that lies `distance` from the border, with power 0.8.

    From the normal approximation with Guenther's correction z²/2 (1981). `level` is one-sided. None if no number would: where
    splits share their rows, more of them bring the error down to a floor only.
    """
    from scipy.special import ndtri

    z, power = float(ndtri(1 - level)), float(ndtri(POWER))
    if distance <= 0 or found.sd == 0:
        return None
    share = (distance / (found.sd * (z + power))) ** 2 - found.overlap  # 1/n
    return max(FEWEST, math.ceil(1 / share + z * z / 2)) if share > 0 else None
