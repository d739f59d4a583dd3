"""The rows of a run as MLflow knows data sets: name, digest, where from, columns and counts, without a row of them.

All of it is in about.json, so nothing is read again. Only what is relative or public is said of the place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.redact import redact

CONTEXTS = {"train": "training", "valid": "validation", "test": "testing"}
TYPES = {"numeric": "double", "categorical": "string", "boolean": "boolean", "datetime": "datetime"}
DIGEST_CHARACTERS, SCHEMA_CHARACTERS, NAME_CHARACTERS = 36, 1_000_000, 400


def inputs(about: Mapping[str, Any], data: Mapping[str, Any], parts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Context -> the rows of a part, as MLflow's Dataset takes them. `data` is that block of the spec."""
    return {CONTEXTS[part]: _dataset(about, data, part) for part in parts if part in about["sha256"]}


def _dataset(about: Mapping[str, Any], data: Mapping[str, Any], part: str) -> dict[str, str]:
    kind, place = _source(data["source"], part)
    stem = Path(place).stem if kind == "local" else place
    return {
        "name": f"{stem} {CONTEXTS[part]}"[-NAME_CHARACTERS:],
        "digest": about["sha256"][part][:DIGEST_CHARACTERS],
        "source_type": kind,
        "source": json.dumps({"uri": place}),
        "schema": _schema(about),
        "profile": json.dumps({"num_rows": about["rows"].get(part), "num_columns": len(about.get("kinds", {}))}),
    }


def _source(source: str | Mapping[str, Any], part: str) -> tuple[str, str]:
    """Its kind and place. Of an absolute path the name: the rest says how a machine is arranged."""
    text = redact(source if isinstance(source, str) else source.get(part) or source["train"])
    scheme, colon, _ = text.partition(":")
    if colon and len(scheme) > 1:
        return ("openml" if scheme == "openml" else "http"), text
    if not Path(text).suffix:
        return "bundled", text
    return "local", Path(text).name if Path(text).is_absolute() else Path(text).as_posix()


def _schema(about: Mapping[str, Any]) -> str:
    """Columns as MLflow's pages show them; of very many, none."""
    targets = set(about.get("targets", ()))
    columns = [
        {"type": TYPES[kind], "name": f"{name} (target)" if name in targets else name, "required": False}
        for name, kind in about.get("kinds", {}).items()
        if kind in TYPES
    ]
    text = json.dumps({"mlflow_colspec": columns})
    return text if len(text) < SCHEMA_CHARACTERS else json.dumps({"mlflow_colspec": []})
