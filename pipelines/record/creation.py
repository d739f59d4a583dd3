"""The first line of a journal: what its run is called, by what it is found again, and which store it is for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.redact import redact, redacted
from pipelines.spec import Experiment, Tracking
from pipelines.tracking import provenance
from pipelines.tracking.events import LAUNCH, ORIGIN, OUTS, Event


def creation(
    first: Event,
    root: Path,
    project: Path,
    experiment: Experiment,
    *,
    new_run: bool,
    tags: Mapping[str, str] | None = None,
    name: str | None = None,
) -> Event:
    """The first event of a journal: what the run is found by, its first tags, and which store it is for."""
    begun = provenance.kept(root)[0] or provenance.take(root, source_name(new_run))  # taken now, where that was not kept
    identity = _identity(first, root, project, new_run)
    more = {**begun, **redacted(dict(tags or {}))}
    return replace(first, values=head(name or first.values["name"], identity, more, experiment.tracking))


def head(name: str, identity: Mapping[str, str], tags: Mapping[str, str], tracking: Tracking) -> dict[str, Any]:
    """The values of a journal's creation. `identity`: tags by which the run is found again. The store is kept by name alone."""
    return {
        "name": redact(name),
        "identity": dict(identity),
        "tags": dict(tags),
        "tracking": {"uri": redact(tracking.uri or "") or None, "experiment": tracking.experiment},
        "files": list(tracking.files),
        "given": os.environ.get("MLFLOW_RUN_ID"),
    }


def source_name(new_run: bool) -> str:
    """What MLflow shows as the source of a run."""
    return "deltarule run" if new_run else "dvc.yaml"


def _identity(create: Event, root: Path, project: Path, new_run: bool) -> dict[str, str]:
    """The tags by which a run is found again; without outs, as long as it trains."""
    found = {"deltarule.fingerprint": create.values["fingerprint"]}
    if "outs" in create.values:
        found[OUTS] = create.values["outs"]
    if not new_run:
        return {**found, ORIGIN: "pipeline"}
    where = root.relative_to(project).as_posix() if root.is_relative_to(project) else root.name
    return {**found, ORIGIN: "launch", LAUNCH: where}
