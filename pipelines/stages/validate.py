"""validate: report on the validation rows, and hold the pipeline where a threshold of the spec is missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.spec import Experiment, SpecError, Threshold
from pipelines.stages import metrics
from pipelines.stages.baselines import beside
from pipelines.stages.networks import load_networks
from pipelines.stages.paths import HeldError, RunPaths
from pipelines.stages.reports import decided, judge, measured, write_report


class ThresholdError(HeldError):
    """A metric of the validation rows is not what the spec asks for."""


def validate(experiment: Experiment, places: RunPaths) -> dict[str, Any]:
    """Write outputs/validate; returns its metrics with the ends of their 95 % intervals (NAME_low, NAME_high).

    Of folds: each network's on the rows of its fold, means and sds (NAME_sd).

    Raises ThresholdError, after the report is written, where a threshold is missed; StageError if earlier outs are missing.
    """
    with places.locked():
        networks = load_networks(experiment, places)
        each = decided(experiment.validation, [judge(network, places, "valid") for network in networks])
        known = metrics.names(each[0].truth)
        if unknown := [name for name in experiment.thresholds if name not in known]:
            raise SpecError(
                f"thresholds must name metrics of a {each[0].truth.task} task, got {', '.join(unknown)}; "
                f"they are: {', '.join(known)}"
            )
        found = measured(each)
        missed = list(misses(experiment.thresholds, found))
        told = beside(experiment, networks, each, found, places, "validation")
        write_report(places.report("validate"), networks, each, found, told, held=bool(missed))
    if missed:
        raise ThresholdError(
            f"validation holds the pipeline: {'; '.join(missed)}; the report is in {places.shown(places.report('validate'))}"
        )
    return found


def misses(thresholds: Mapping[str, Threshold], found: Mapping[str, float]) -> Iterator[str]:
    """One sentence for each bound that is not kept; a metric that the rows do not define keeps none."""
    for name, bound in thresholds.items():
        value = found.get(name)
        if value is None:
            yield f"{name} cannot be computed on these rows"
        elif bound.min is not None and value < bound.min:
            yield f"{name} must be at least {bound.min:g}, got {value:.6g}"
        elif bound.max is not None and value > bound.max:
            yield f"{name} must be at most {bound.max:g}, got {value:.6g}"
