"""test: open the test rows, once all choices are made, for the number that is reported."""

from __future__ import annotations

from typing import Any

from pipelines.data import About
from pipelines.spec import Experiment
from pipelines.stages.files import read_json
from pipelines.stages.openings import enter
from pipelines.stages.places import Places, StageError
from pipelines.stages.reports import Network, judge, load_networks, measured, write_report


def test(experiment: Experiment, places: Places) -> dict[str, Any]:
    """Write outputs/test; returns its metrics, and how many different experiments have opened these test rows so far.

    Of folds, each network judges all test rows: means and sds, and no intervals, since the networks share training rows.

    Raises StageError before anything is opened, unless validate has reported on this very model and did not hold it.
    """
    with places.locked():
        networks = load_networks(experiment, places)
        check_validated(networks[0], places)
        about = About.load(places.about)
        openings = enter(places.ledger, about.sha256["test"], networks[0].run["fingerprint"])
        each = [judge(network, places, "test") for network in networks]
        found = measured(each)
        write_report(places.report("test"), networks, each, found)
    return {**found, "openings": openings}


def check_validated(network: Network, places: Places) -> None:
    """The validation report must be there, of this model, and must not hold the pipeline."""
    report = read_json(places.need(places.report("validate") / "about.json", "validate"))
    shown = places.shown(places.report("validate"))
    if report["model_hash"] != network.sha256:
        raise StageError(f"{shown} reports on another model than the one in place; run `deltarule validate` first", exit_code=2)
    if report["held"]:
        raise StageError(f"{shown} misses a threshold of the spec, so the test rows stay closed; see `deltarule validate`")
