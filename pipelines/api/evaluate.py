"""One spec under many seeds, trained as one stack: what a choice is worth, apart from the luck of its initial weights.

On the test rows only as the test stage opens them: after the pipeline has validated this very spec and was not held, and with
an entry in the list of those that opened them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from backends.spec import Trial
from backends.supervisor import Record
from pipelines.data import About, Part
from pipelines.spec import METRICS, Experiment, SpecError, fingerprint, source_hash, trial
from pipelines.spec.blocks import HALF, Validation
from pipelines.spec.study import MOST_SEEDS
from pipelines.stages import metrics
from pipelines.stages.files import write_csv, write_json
from pipelines.stages.folds import check_monitor, over_folds, train_all
from pipelines.stages.metrics import NDArray
from pipelines.stages.networks import Network, load_networks, split_rows
from pipelines.stages.paths import RunPaths, StageError
from pipelines.stages.reports import Judged, decided, judged
from pipelines.stages.test import check_validated, enter

WIDTH = 16  # networks in a stack at most
INF = math.inf
Progress = Callable[[Record], None]  # an epoch's record, with its seed


@dataclass(frozen=True)
class Summary:
    """A metric over the seeds: mean, sd (ddof 1), and Student's 95 % interval of the mean, within what the metric can be."""

    mean: float
    sd: float
    low: float
    high: float
    count: int  # seeds for which the metric is defined


@dataclass(frozen=True)
class Report:
    """What came of the seeds: part -> metric -> summary, and part -> metric -> a value a seed."""

    seeds: tuple[int, ...]
    parts: dict[str, dict[str, Summary]]
    each: dict[str, dict[str, list[float | None]]]
    failed: dict[int, str]  # seed -> why there is no network

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {part: {name: asdict(value) for name, value in rows.items()} for part, rows in self.parts.items()}
        return {"seeds": list(self.seeds), **found, "failed": {str(seed): why for seed, why in self.failed.items()}}


def evaluate(
    experiment: Experiment,
    places: RunPaths,
    *,
    seeds: int = 15,
    test: bool = False,
    train: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Train under seeds seed, seed + 1, ...; write outputs/evaluate; validation metrics, and with `test` those of the test rows.

    With `train` also those of the training rows, dropout off: how well the networks fit what they learnt from. The rows are
    those that the pipeline's split wrote. `progress` is called with each epoch's record and its seed. Raises StageError if the
    split has not been carried out, or with other data, if no seed gives a network, and, before anything is trained, for test
    rows that may not be opened.
    """
    if not 2 <= seeds <= MOST_SEEDS:
        raise SpecError(f"seeds must be from 2 to {MOST_SEEDS}, got {seeds}")
    with places.locked():
        about = split_rows(experiment, places)
        if test:
            check_validated(load_networks(experiment, places)[0], places)
        networks = [trial(experiment, one) for one in about.each]
        numbers = [experiment.seed + i for i in range(seeds)]
        trials = [network.model_copy(update={"seed": seed}) for seed in numbers for network in networks]
        flat, failed = _train(experiment, places, about, trials, progress)
        if not flat:
            raise StageError(f"no seed gave a network: {next(iter(failed.values()))}")
        if test:  # one entry: their mean is one look
            hashes = {part: about.sha256[part] for part in ("train", "valid")}
            mark = fingerprint(experiment, hashes, source_hash(experiment.train.backend))
            enter(places.ledger, about.sha256["test"], f"{mark} {seeds} seeds")
        trained = {
            seed: [Network(one, w, "", known, {}) for one, w, known in zip(networks, weights, about.each, strict=True)]
            for seed, weights in flat.items()
        }
        if experiment.validation.threshold != HALF:
            trained = _deciding(experiment.validation, _opened(places, about, "valid"), trained)
        each = {}
        for stage, part, asked in (("train", "train", train), ("validate", "valid", True), ("test", "test", test)):
            if asked:
                each[stage] = _measure(_opened(places, about, part), numbers, trained)
        found: dict[str, dict[str, Summary]] = {}
        for stage, rows in each.items():
            found[stage] = {}
            for name, values in rows.items():  # Brier's score of two classes ends at 1
                metric = METRICS[name.partition(".")[0]]
                most = 1.0 if (name, about.task) == ("brier", "binary") else metric.most
                found[stage][name] = summarise([v for v in values if v is not None], metric.least, most)
        report = Report(tuple(numbers), found, each, failed)
        _write(places, report)
    return report


def _train(
    experiment: Experiment, places: RunPaths, about: About, trials: Sequence[Trial], progress: Progress | None
) -> tuple[dict[int, list[NDArray]], dict[int, str]]:
    """Weights by seed, one a fold, and why there are none for the others."""

    def watch(place: int, record: Record) -> bool:
        if progress is not None:
            progress({"seed": trials[place].seed, **record})
        return False

    check_monitor(experiment, about, places.data)
    results = train_all(experiment, about, places.data, trials, watch=watch, width=WIDTH)
    flat: dict[int, list[NDArray]] = {}
    failed: dict[int, str] = {}
    for one, result in zip(trials, results, strict=True):
        if result.weights is None or result.reason == "diverged":
            failed.setdefault(one.seed, result.message)
        else:
            flat.setdefault(one.seed, []).append(result.weights)
    return {seed: each for seed, each in flat.items() if seed not in failed}, failed


def _opened(places: RunPaths, about: About, part: str) -> list[Part]:
    return [one.open(places.data, part) for one in about.each]


def _judge(each: Sequence[Network], opened: Sequence[Part]) -> list[Judged]:
    return [judged(one, rows) for one, rows in zip(each, opened, strict=True)]


def _deciding(validation: Validation, opened: Sequence[Part], networks: Mapping[int, list[Network]]) -> dict[int, list[Network]]:
    """Seed -> its networks, with the threshold that their own validation rows choose."""
    found = {}
    for seed, each in networks.items():
        [one, *_] = decided(validation, _judge(each, opened))
        found[seed] = [replace(network, threshold=one.truth.threshold) for network in each]
    return found


def _measure(
    opened: Sequence[Part], seeds: Sequence[int], networks: Mapping[int, list[Network]]
) -> dict[str, list[float | None]]:
    """metric -> a value a seed, the mean over the folds; None where it is undefined, or the seed gave no network."""

    def measured(each: list[Network]) -> dict[str, float]:
        own = _judge(each, opened)
        names.extend(metrics.names(own[0].truth))
        return over_folds([metrics.evaluate(one.truth, one.outputs) for one in own])

    names: list[str] = []
    rows = [measured(networks[seed]) if seed in networks else {} for seed in seeds]
    each = {name: [row.get(name) for row in rows] for name in dict.fromkeys(names)}
    return {name: some for name, some in each.items() if any(one is not None for one in some)}


def summarise(values: Sequence[float], least: float = -INF, most: float = INF) -> Summary:
    """Student's interval: mean ± t · sd / √n (Student 1908), without what no mean of values from `least` to `most` can be.

    It covers the mean as often as the whole.
    """
    from scipy.stats import t

    mean = statistics.fmean(values)
    if len(values) < 2:
        return Summary(mean, math.nan, math.nan, math.nan, len(values))
    sd = statistics.stdev(values)
    half = float(t.ppf(0.975, len(values) - 1)) * sd / math.sqrt(len(values))
    return Summary(mean, sd, float(max(mean - half, least)), float(min(mean + half, most)), len(values))


def _write(places: RunPaths, report: Report) -> None:
    """outputs/evaluate: metrics.json with the summaries, seeds.csv with a row a seed and part."""
    folder = places.report("evaluate")
    write_json(folder / "metrics.json", report.as_dict())
    names = list(dict.fromkeys(name for rows in report.each.values() for name in rows))
    lines = [
        (part, seed, *("" if (v := rows.get(name, [None] * (i + 1))[i]) is None else v for name in names))
        for part, rows in report.each.items()
        for i, seed in enumerate(report.seeds)
    ]
    write_csv(folder / "seeds.csv", ("part", "seed", *names), lines)
