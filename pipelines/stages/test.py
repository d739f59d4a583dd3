"""test: open the test rows, once all choices are made, for the number that is reported."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pipelines.data import About
from pipelines.spec import Experiment
from pipelines.stages.baselines import beside
from pipelines.stages.files import read_json
from pipelines.stages.networks import Network, load_networks
from pipelines.stages.paths import RunPaths, StageError
from pipelines.stages.reports import judge, measured, write_report


def test(experiment: Experiment, places: RunPaths) -> dict[str, Any]:
    """Write outputs/test; returns its metrics, and how many different experiments have opened these test rows so far."""
    with places.locked():
        networks = load_networks(experiment, places)
        check_validated(networks[0], places)
        about = About.load(places.about)
        openings = enter(places.ledger, about.sha256["test"], networks[0].run["fingerprint"])
        each = [judge(network, places, "test") for network in networks]
        found = measured(each)
        told = beside(experiment, networks, each, found, places, "test")
        write_report(places.report("test"), networks, each, found, told)
    return {**found, "openings": openings}


def check_validated(network: Network, places: RunPaths) -> None:
    """The validation report must be there, of this model, and must not hold the pipeline."""
    report = read_json(places.need(places.report("validate") / "about.json", "validate"))
    shown = places.shown(places.report("validate"))
    if report["model_hash"] != network.sha256:
        raise StageError(f"{shown} reports on another model than the one in place; run `deltarule validate` first", exit_code=2)
    if report["held"]:
        raise StageError(f"{shown} misses a threshold of the spec, so the test rows stay closed; see `deltarule validate`")


# -- who opened the test rows --
# A test set that many experiments have looked at no longer says what it seems to say: measured by simulation, the best of 100
# models on 114 test rows looks 4 points of accuracy better than it is.


def enter(ledger: Path, rows: str, fingerprint: str) -> int:
    """Put an experiment on the list of those that opened these rows (by their hash); how many different ones there are."""
    from filelock import FileLock

    ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(ledger.with_suffix(".lock")):
        known = openers(ledger, rows)
        if fingerprint not in known:
            # On a line of its own, whatever a crash left behind, and synced before the rows are opened.
            torn = ledger.exists() and not ledger.read_bytes().endswith(b"\n")
            line = json.dumps({"test": rows, "fingerprint": fingerprint})
            with ledger.open("a", encoding="utf-8") as file:
                file.write(f"{chr(10) if torn else ''}{line}\n")
                file.flush()
                os.fsync(file.fileno())
    return len(known | {fingerprint})


def openers(ledger: Path, rows: str) -> set[str]:
    """Fingerprints of the experiments that opened these rows. A line that was cut short by a crash is passed over."""
    found = set()
    for line in ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["test"] == rows:
            found.add(entry["fingerprint"])
    return found
