"""Adds files and tags to the run of an experiment that is on record already."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.redact import redact
from pipelines.tracking.store import answering, connect, locate

if TYPE_CHECKING:
    from pipelines.spec import Tracking


def attach(tracking: Tracking, project: Path, fingerprint: str, files: Mapping[str, str], tags: Mapping[str, str]) -> str | None:
    """Put texts (path in the run -> content) and tags on the newest run of this fingerprint; its id, or None if there is none.

    Makes no store, no experiment and no run. Raises TrackingError if the store fails.
    """
    store = locate(tracking, project)
    if not tracking.enabled or store.missing:
        return None
    with answering(store, "the report was not attached"), store.lock():
        client, experiment_id = connect(store)
        wanted = f"tags.`deltarule.fingerprint` = '{fingerprint}'"
        found = client.search_runs([experiment_id], wanted, max_results=1, order_by=["attributes.start_time DESC"])
        for run in found:
            with tempfile.TemporaryDirectory() as scratch:
                for place, text in files.items():
                    path = Path(scratch) / place
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(redact(text), encoding="utf-8")
                client.log_artifacts(run.info.run_id, scratch)
            for name, value in tags.items():
                client.set_tag(run.info.run_id, name, redact(value))
    return str(found[0].info.run_id) if found else None
