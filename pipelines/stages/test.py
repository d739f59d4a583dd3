"""test: open the test rows, once all choices are made, for the number that is reported."""

from __future__ import annotations

from typing import Any

from pipelines import metrics
from pipelines.spec import Experiment
from pipelines.stages.files import read_json
from pipelines.stages.openings import enter
from pipelines.stages.places import Places, StageError
from pipelines.stages.reports import Network, judge, load_network, write_report


def test(experiment: Experiment, places: Places) -> dict[str, Any]:
    """Write outputs/test; returns its metrics, and how many different experiments have opened these test rows so far.

    Raises StageError before anything is opened, unless validate has reported on this very model and did not hold it.
    """
    with places.locked():
        network = load_network(experiment, places)
        check_validated(network, places)
        openings = enter(places.ledger, network.about.sha256["test"], network.run["fingerprint"])
        judged = judge(network, places, "test")
        found = {**metrics.evaluate(judged.truth, judged.outputs), **bounds(judged.truth, judged.outputs)}
        write_report(places.report("test"), network, judged, found)
    return {**found, "openings": openings}


def check_validated(network: Network, places: Places) -> None:
    """The validation report must be there, of this model, and must not hold the pipeline."""
    report = read_json(places.need(places.report("validate") / "about.json", "validate"))
    shown = places.shown(places.report("validate"))
    if report["model_hash"] != network.sha256:
        raise StageError(f"{shown} reports on another model than the one in place; run `deltarule validate` first", exit_code=2)
    if report["held"]:
        raise StageError(f"{shown} misses a threshold of the spec, so the test rows stay closed; see `deltarule validate`")


def bounds(truth: metrics.Truth, outputs: metrics.NDArray) -> dict[str, float]:
    """The ends of the 95 % intervals: NAME_low and NAME_high."""
    found = metrics.intervals(truth, outputs)
    return {f"{name}_{end}": value for name, pair in found.items() for end, value in zip(("low", "high"), pair, strict=True)}
