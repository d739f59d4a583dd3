"""A run as plain events: what was created, with which values and files, and how it ended.

An event is JSON-able: it stands in a journal, one line an event, until it is sent. Nothing here imports MLflow, but names and
values keep to what MLflow takes.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.redact import PLAIN, redacted

Kind = Literal["create", "begin", "params", "metrics", "tags", "artifacts", "text", "inputs", "model", "mark", "end"]
ORIGIN, OUTS, LAUNCH = "deltarule.origin", "deltarule.outs", "deltarule.launch"  # tags
PARENT, TRIAL, STUDY, KIND = "mlflow.parentRunId", "deltarule.trial", "deltarule.study", "deltarule.kind"
# Of a kind of column, MLflow's type.
TYPES = {
    "numeric": "double",
    "categorical": "string",
    "boolean": "boolean",
    "datetime": "datetime",
}
# Limits of MLflow.
NAME_CHARACTERS, PARAM_CHARACTERS, TAG_CHARACTERS = 250, 6000, 5000
LARGEST = 1.7976931348623157e308  # a database cannot hold inf; MLflow keeps this instead
ROW_COUNT = "deltarule.rows."  # tags, one for each part
# How metrics begin.
_STAGES = "train|val|validate|test"
_OF_LAYERS = "delta_rms|saturated|dead"


@dataclass(frozen=True)
class Event:
    """One thing that happened in a stage. What `values` holds depends on the kind:

    create: name, and of a run all that it is found by
    begin: the process that starts or continues the run
    params, tags: name -> text
    metrics: name -> number, at `step`
    artifacts: path in the run -> file below the root
    text: path in the run -> what the file there holds
    inputs: training, validation or testing -> the rows, as MLflow's Dataset takes them
    model: its name -> folder of an MLflow model below the root
    mark: outs, the hash of all that the stage wrote; every event of the stage came before
    end: status

    `time` is in ms since 1970, 0 where nobody knows; `child` the number of a study's trial, "" for the run itself.
    """

    kind: Kind
    stage: str
    values: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    time: int = 0
    child: str = ""


def merged(events: Iterable[Event], kind: str) -> dict[str, Any]:
    """What the events of one kind hold together; the later stands above the earlier."""
    return {key: value for event in events if event.kind == kind for key, value in event.values.items()}


def ended(status: str, how: str, message: str, time: int = 0) -> list[Event]:
    """The last events of a run that the outs tell nothing of; `time` in ms, if not now."""
    tags = {"deltarule.ended": how, "deltarule.message": message}
    return [Event("tags", "end", tags, time=time), Event("end", "end", {"status": status}, time=time)]


def killed(message: str, time: int = 0) -> list[Event]:
    """How a run ends that was cut short."""
    return ended("KILLED", "killed", message, time)


# -- names and values --


def params(values: Mapping[str, object]) -> dict[str, str]:
    """Dotted keys and their values as MLflow takes them, without secrets."""
    hidden = {key: redacted(v, "" if isinstance(v, str) and v in PLAIN else key) for key, v in values.items()}
    cut = " ... (cut, the whole is in params.yaml)"
    return {
        name_of(key): text if len(text) <= PARAM_CHARACTERS else text[: PARAM_CHARACTERS - len(cut)] + cut
        for key, text in texts(hidden).items()
    }


def name_of(key: str) -> str:
    """The name on record of a param or metric, which `key_of` leads back: what MLflow refuses becomes _x28_, by its code point.

    That of a key alone, so that runs and trials agree. Names too long for MLflow end in a hash, and lead nowhere.
    """
    unique = posixpath.normpath(key) == key and not key.startswith("/")
    name = re.sub(rf"[^\w\-. :{'/' * unique}]|_(?=x[0-9A-F]+_)", lambda found: f"_x{ord(found[0]):X}_", key)
    if len(name) > NAME_CHARACTERS:
        name = f"{name[: NAME_CHARACTERS - 9]}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    return name


def key_of(name: str) -> str:
    """The key that has this name on record."""
    return re.sub(r"_x([0-9A-F]+)_", lambda found: chr(int(found[1], 16)), name)


def metric_name(key: str, held: Container[str] = ()) -> str:
    """The name on record of a metric; one that a run holds under its name of 0.1.0 keeps that."""
    old = name_of(key)
    return old if old in held else grouped(old)


def grouped(metric: str) -> str:
    """The name in MLflow, which draws together what is before the last slash: val/loss of val_loss."""
    name = re.sub(rf"^({_OF_LAYERS})_", r"diagnostics/\1/", metric)
    return re.sub(rf"^({_STAGES})_", r"\1/", name)


def ungrouped(name: str) -> str:
    """The metric of a name in MLflow; runs of 0.1.0 have it as their name there."""
    metric = re.sub(rf"^diagnostics/({_OF_LAYERS})/", r"\1_", name)
    return re.sub(rf"^({_STAGES})/", r"\1_", metric)


def texts(values: Mapping[str, object]) -> dict[str, str]:
    """Texts as they are, everything else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
