"""Is the difference of two groups real, or negligible, or can the pairs not tell? With a sentence that says so.

By Student's t at every number of pairs, not by the bootstrap, whose intervals are too narrow for few: docs/comparing.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from scipy.special import ndtri, stdtr, stdtrit

from pipelines.compare.choose import SHORT, number
from pipelines.compare.pairs import FOLDS, Pair, Pairing
from pipelines.spec import higher_is_better

LEVEL = 0.05  # how often a claim may be made that does not hold
POWER = 0.8  # how often the number of pairs that is asked for would be enough
FEWEST = 3  # with two differences every mean is compatible with almost every other
Verdict = Literal["real", "negligible", "real but negligible", "cannot tell"]
Unit = Literal["seed", "pair", "split", "fold"]
Folds = Mapping[str, Mapping[int, float]]  # run id -> fold -> value
SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}  # of data.split, where a run does not say
PARTS = ("validate_", "test_", "best_val_", "best_train_", "val_", "train_")


@dataclass(frozen=True)
class Comparison:
    """Two groups by one metric. `mean` is that of `other` minus that of `one`, of the pairs alone."""

    metric: str
    one: str
    other: str
    pairs: int
    units: int  # differences that the interval comes from
    unit: Unit  # what each of them is of
    seeds: int
    splits: int
    settings: int  # of the params that are not compared
    overlap: float  # n_test / n_train between splits, 0 on one split
    left: dict[str, int]
    differ: tuple[str, ...]
    differences: tuple[float, ...]
    means: tuple[float, float] | None = None
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    margin: float | None = None
    p_negligible: float | None = None
    p_negligible_corrected: float | None = None
    comparisons: int = 1
    verdict: Verdict = "cannot tell"
    better: str | None = None
    sentence: str = ""
    values: tuple[tuple[str, float, float], ...] = ()  # (pair, of one, of the other)


# -- statistics of paired differences --


@dataclass(frozen=True)
class Paired:
    """The mean of n paired differences, and its standard error."""

    count: int
    mean: float
    sd: float
    error: float
    overlap: float

    def interval(self) -> tuple[float, float]:
        """mean ± t · error, with n - 1 degrees of freedom (Student 1908)."""
        if self.error == 0:
            return self.mean, self.mean
        half = float(stdtrit(self.count - 1, 1 - LEVEL / 2)) * self.error
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
    return 2 * float(stdtr(found.count - 1, -abs(found.mean) / found.error))


def p_equivalent(found: Paired, margin: float) -> float:
    """The greater p of H0: mean ≤ -margin and H0: mean ≥ margin: two one-sided tests (Schuirmann 1987).

    By t; where all differences are one value, by the sign of what lies between them and the margin, 2^-n.
    """
    if found.error == 0:
        return 2.0**-found.count if abs(found.mean) < margin else 1.0
    return float(stdtr(found.count - 1, (abs(found.mean) - margin) / found.error))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p values corrected for how many they are, None for none: bounds how often any claim is wrong (Holm 1979)."""
    order = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    corrected, reached = list(ps), 0.0
    for rank, (p, place) in enumerate(order):
        corrected[place] = reached = max(reached, min(1.0, (len(order) - rank) * p))
    return corrected


def needed(found: Paired, distance: float, level: float) -> int | None:
    """About how many pairs in all would show a mean that lies `distance` from the border, with power 0.8.

    From the normal approximation with Guenther's correction z²/2 (1981). `level` is one-sided. None if no number would: where
    splits share their rows, more of them bring the error down to a floor only.
    """
    z, power = float(ndtri(1 - level)), float(ndtri(POWER))
    if distance <= 0 or found.sd == 0:
        return None
    share = (distance / (found.sd * (z + power))) ** 2 - found.overlap  # 1/n
    return max(FEWEST, math.ceil(1 / share + z * z / 2)) if share > 0 else None


# -- of groups --


def measure(found: Pairing, metric: str, margin: float | None, folds: Folds | None = None) -> Comparison:
    """Differences, their interval and p values; no verdict yet: that takes all comparisons.

    Of several splits, or folds, each counts once, with the mean over its seeds: seeds of one split tell nothing of other
    splits. `folds` are the values of each fold of runs that have them: run id -> fold -> value.
    """
    parts: dict[Any, list[float]] = {}
    values = []
    for pair in found.pairs:
        for part, one, other in _values(pair, metric, folds or {}):
            parts.setdefault(part, []).append(other - one)
            values.append((_called(pair, part[1]), one, other))
    settings = len({pair.setting for pair in found.pairs})
    alone: Unit = "seed" if settings < 2 else "pair"
    unit: Unit = alone if len(parts) < 2 else "split" if all(fold is None for _, fold in parts) else "fold"
    differences = [d for each in parts.values() for d in each] if unit == alone else [fmean(each) for each in parts.values()]
    overlap = 0.0 if unit == alone else fmean(shared_rows(pair, metric) for pair in found.pairs)
    bare = Comparison(
        metric,
        found.one.label,
        found.other.label,
        len(found.pairs),
        len(differences),
        unit,
        len({pair.seed for pair in found.pairs}),
        len({split for split, _ in parts}),
        settings,
        overlap,
        dict(found.left),
        found.differ,
        tuple(differences),
        values=tuple(values),
    )
    if not differences:
        return bare
    one, other = (fmean(getattr(pair, side).metrics[metric] for pair in found.pairs) for side in ("one", "other"))
    bare = replace(bare, means=(one, other), mean=fmean(differences))
    if len(differences) < FEWEST:
        return bare
    estimate = paired(differences, overlap)
    low, high = estimate.interval()
    bare = replace(bare, mean=estimate.mean, sd=estimate.sd, low=low, high=high, p=p_differs(estimate))
    return bare if margin is None else replace(bare, margin=margin, p_negligible=p_equivalent(estimate, margin))


def _values(pair: Pair, metric: str, folds: Folds) -> Iterator[tuple[tuple[Any, int | None], float, float]]:
    """((split, fold), value of one, value of the other): of each fold where both runs tell them, else of the whole run."""
    one, other = (folds.get(run.id, {}) for run in (pair.one, pair.other))
    if one and one.keys() == other.keys():
        yield from (((pair.split, fold), one[fold], other[fold]) for fold in sorted(one))
    else:
        yield (pair.split, None), pair.one.metrics[metric], pair.other.metrics[metric]


def _called(pair: Pair, fold: int | None) -> str:
    split = pair.one.params.get("data.split.seed", "")
    of = {
        "seed": pair.seed,
        "split": split,
        "fold": fold or "",
    }
    places = [f"{name} {place}" for name, place in of.items() if place]
    return f"{', '.join(places)}: {pair.one.id[:SHORT]}, {pair.other.id[:SHORT]}"


def shared_rows(pair: Pair, metric: str) -> float:
    """n_test / n_train: the rows that judge a network, and those that train it. Of k folds a network trains on k - 1."""
    rows, params = pair.one.metrics, pair.one.params
    share = {part: float(params.get(f"data.split.{part}", usual)) for part, usual in SHARES.items()}
    counts = {part: rows.get(f"rows_{part}", 0.0) for part in SHARES}
    counts = counts if all(counts.values()) else share  # trials of a study do not tell their rows
    folds = number(params.get(FOLDS))
    judged, trained = counts["test" if metric.startswith("test_") else "valid"], counts["train"]
    if folds is None:
        return judged / trained
    return judged / (trained * (folds - 1) / folds) if metric.startswith("test_") else 1 / (folds - 1)


def judge(measured: Sequence[Comparison]) -> list[Comparison]:
    """Verdicts on all that were compared, each kind of claim corrected for how many there are (Holm 1979)."""
    count = max(1, sum(one.p is not None for one in measured))
    corrected = zip(measured, holm([one.p for one in measured]), holm([one.p_negligible for one in measured]), strict=True)
    return [
        _judged(replace(one, p_corrected=p, p_negligible_corrected=p_negligible, comparisons=count))
        for one, p, p_negligible in corrected
    ]


def _judged(one: Comparison) -> Comparison:
    real, negligible = (p is not None and p < LEVEL for p in (one.p_corrected, one.p_negligible_corrected))
    verdict: Verdict = "cannot tell"
    if real or negligible:
        verdict = "real but negligible" if real and negligible else "real" if real else "negligible"
    better = None
    if real and one.mean and rises(one.metric) is not None:
        better = one.other if (one.mean > 0) is rises(one.metric) else one.one
    judged = replace(one, verdict=verdict, better=better)
    return replace(judged, sentence=sentence(judged))


def rises(metric: str) -> bool | None:
    """Is more of it better? None where that is not known."""
    bare = next((metric.removeprefix(part) for part in PARTS if metric.startswith(part)), None)
    return None if bare is None else higher_is_better(bare)


# -- in words --


def sentence(found: Comparison) -> str:
    """One or two sentences that claim no more than the pairs show."""
    head = f"{found.other} - {found.one}, {found.metric}: "
    if not found.pairs:
        return f"{head}inconclusive: no pairs, {left_out(found) or 'one of the groups has no runs'}."
    amount = f"{found.mean:+.3g}"
    if found.p is None:
        only = f"only {found.units} paired {found.unit}{'s' if found.units != 1 else ''}"
        return f"{head}{amount}, {_counted(found)}. Inconclusive: {only}, at least {FEWEST} are needed."
    if found.sd == 0:
        return f"{head}{amount} in every one of {_counted(found)}. {_claim(found)}"
    widened = f", made wider for the rows that {found.unit}s share" if found.overlap else ""
    interval = f"95 % interval [{found.low:+.3g}, {found.high:+.3g}] by Student's t{widened}"
    return f"{head}{amount}, {interval}, {_counted(found)}. {_claim(found)}"


def _counted(found: Comparison) -> str:
    pairs = f"{found.pairs} pair{'s' if found.pairs != 1 else ''}"
    if found.unit == "split" and found.pairs == found.splits:
        return f"{pairs}, one a split"
    splits = f" of {found.splits} splits" if found.splits > 1 else ""
    folds = f", {found.units} folds" if found.unit == "fold" else ""
    several = found.unit in ("split", "fold") and found.pairs > found.splits
    by = "seed" if found.settings < 2 else f"seed and setting ({found.settings} settings of the other params)"
    return f"{pairs} by {by}{splits}{folds}{f', the mean of each {found.unit}' if several else ''}"


def _claim(found: Comparison) -> str:
    if found.verdict == "cannot tell":
        return _inconclusive(found)
    within = f"within ±{found.margin:g}" if found.margin is not None else ""
    negligible = f"shown to be negligible: it lies {within} {_corrected(found, found.p_negligible_corrected)}"
    if found.verdict == "negligible":
        return f"The difference is {negligible}."
    better = f": {found.better} is better" if found.better else ""
    real = f"The difference is real {_corrected(found, found.p_corrected)}{better}"
    if found.verdict == "real but negligible":
        return f"{real}, and {negligible}."
    return f"{real}." + (f" It is not shown to lie {within}." if within else "")


def _corrected(found: Comparison, p: float | None) -> str:
    shown = "" if p is None else "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"
    return f"({shown}{f', corrected for {found.comparisons} comparisons' if found.comparisons > 1 else ''})"


def _inconclusive(found: Comparison) -> str:
    hint = " This does not show that the groups are the same: for that, name the largest difference that would not matter, with"
    hint = f"{hint} --margin." if found.margin is None else ""
    if found.sd == 0 and found.mean == 0:
        return f"No difference was seen.{hint}"
    alone = found.p is not None and found.p < LEVEL
    why = f", real if it were the only one of {found.comparisons} comparisons" if alone else ""
    return f"Inconclusive {_corrected(found, found.p_corrected)}{why}{_needed(found)}.{hint}"


def _needed(found: Comparison) -> str:
    """How many more would tell, if the difference is as large as it seems."""
    estimate, level = paired(found.differences, found.overlap), LEVEL / found.comparisons
    mean = abs(estimate.mean)
    counts = {"real": needed(estimate, mean, level / 2)}
    if found.margin is not None:
        counts["negligible"] = needed(estimate, found.margin - mean, level)
    known = {verdict: count - found.units for verdict, count in counts.items() if count is not None}
    if not known:
        share = found.overlap and found.sd
        return f"; no number of {found.unit}s of these rows would show more: they share too many rows" if share else ""
    verdict, more = min(known.items(), key=lambda pair: pair[1])
    shown = "more than 1000" if more > 1000 else f"about {max(1, more)}"
    return f"; if it is as large as it seems, {shown} more {found.unit}s would show it to be {verdict}"


def left_out(found: Comparison) -> str:
    """How many runs are in no pair, and why."""
    told = ", ".join(f"{count} {reason}" for reason, count in found.left.items())
    return f"{told} (from the nearest of the other group by {', '.join(found.differ)})" if found.differ else told
