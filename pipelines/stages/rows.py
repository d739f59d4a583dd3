"""The rows that split wrote, as the later stages take them up: those of the spec's data block, or none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipelines.data import About
from pipelines.spec import Experiment
from pipelines.stages.places import Places, StageError


def split_rows(experiment: Experiment, places: Places) -> About:
    """What is known about them. Raises StageError if there are none, or if another data block made them."""
    about = About.load(places.need(places.about, "split"))
    now = experiment.data.model_dump(mode="json")
    other = list(differences(about.data, now, "data")) if about.data else []  # older outs do not say
    if other:
        raise StageError(
            f"{places.shown(places.data)} holds rows of another data block than the spec's: {', '.join(other[:5])}; "
            "run `deltarule split` or `dvc repro` first",
            exit_code=2,
        )
    return about


def differences(was: Any, now: Any, path: str = "") -> Iterator[str]:
    """ "model.activation (relu, now tanh)" of each value that differs. Devices and threads do not make another experiment."""
    if isinstance(now, dict) and isinstance(was, dict):
        for key in {**was, **now}:
            yield from differences(was.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    elif was != now and path not in ("train.devices", "train.threads"):
        yield f"{path} ({_shown(was)}, now {_shown(now)})"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
