"""A run's network in the form that other programs take: an MLflow model, ONNX, or the file of a framework.

`export` writes one of them where a person wants it, `carry` writes those of tracking.files where the record finds them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends import BackendError
from pipelines import tracking
from pipelines.data.preprocess import Categorical, Encoder, Flag, Moments, Numeric, Preprocessing
from pipelines.spec.blocks import HALF, DataSpec, Dates, Numbers
from pipelines.stages.files import read_json, sha256, write_json
from pipelines.stages.networks import Network, files_of, names_of, stored_networks, threshold_file
from pipelines.stages.paths import RunPaths, StageError
from pipelines.tracking.events import TYPES

ROWS = 64  # on which ONNX is compared with the reference


def export(model: Path, folder: Path, form: str = "mlflow") -> None:
    """Write the run in the folder `model` into `folder`, which must not be there yet, as one of FORMS.

    Raises StageError for what is no run or is in the way, BackendError where a library is missing.
    """
    networks = tuple(stored_networks(model))
    if os.path.lexists(folder):
        raise StageError(f"{folder} must not be there yet, and nothing is overwritten; choose another folder", exit_code=2)
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f".{folder.name}.") as scratch:
        made = Path(scratch) / "made"
        FORMS[form](model, networks, made)
        made.rename(folder)


def carry(places: RunPaths, forms: Sequence[str]) -> None:
    """Write what tracking.files names, of the network of the run whose outs stand in `places`, into places.carried; once.

    What cannot be made costs no record: the reason stands on the run, as the tag deltarule.files.
    """
    digest = read_json(places.run)["model_hash"] if places.run.exists() else None
    if digest is None:
        return
    folder = places.carried(digest)
    chosen = threshold_file(places.model)
    mark = " ".join([digest, *forms, *([sha256(chosen)] if chosen.is_file() else [])])
    if (folder / "files.json").exists() and read_json(folder / "files.json")["mark"] == mark:
        return
    shutil.rmtree(folder.parent, ignore_errors=True)  # of another network, or half made
    try:
        networks = tuple(stored_networks(places.root))
    except Exception as error:  # what lies there does not belong together, or cannot be read: the record says what it can
        told = [f"none: {_short(error)}"]
    else:
        told = []
        folder.mkdir(parents=True, exist_ok=True)
        for form in forms:
            name = RECORDED[form]
            try:
                FORMS[form](places.root, networks, folder / name)
                told.append(form)
            except Exception as error:  # whatever the reason is: libraries that others keep do the work
                shutil.rmtree(folder / name, ignore_errors=True)
                told.append(f"no {form}: {_short(error)}")
    write_json(folder / "files.json", {"mark": mark, "told": "; ".join(told) or "none"})


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


# -- the forms --


def _mlflow(model: Path, networks: tuple[Network, ...], folder: Path) -> None:
    about = networks[0].about
    how = about.preprocessing
    written = DataSpec.model_validate(networks[0].run["spec"]["data"]).format
    types = {encoder.name: type_of(encoder, how, written.decimal) for encoder in how.encoders}
    example = {encoder.name: example_of(encoder, how.dates.get(encoder.name)) for encoder in how.encoders}
    answers = {name: "string" if name == "predicted" else "double" for name in names_of(about)}
    files = [*files_of(model), threshold_file(files_of(model)[2])]
    metadata = {"columns": dict(how.columns), "format": written.model_dump()}
    tracking.export(folder, filter(Path.is_file, files), metadata, types, answers, example)


def _onnx(model: Path, networks: tuple[Network, ...], folder: Path) -> None:
    from pipelines.export.onnx import save_onnx

    for network in networks:
        inputs = network.trial.inputs
        # Over the range that preprocessed inputs have; no row of the data.
        X = np.linspace(-3, 3, ROWS * inputs, dtype=np.float32).reshape(inputs, ROWS).T.copy()
        about = network.about
        told = {name: getattr(about, name) for name in ("task", "inputs", "classes", "targets")}
        if network.threshold != HALF:
            told["threshold"] = network.threshold
        if not about.classes:
            told["target_scale"] = asdict(about.target_scale)
        save_onnx(folder / f"{stem(network)}.onnx", network.trial, network.flat, X, network.outputs(X), told)


def _native(form: str, model: Path, networks: tuple[Network, ...], folder: Path) -> None:
    """The file of a framework; native is that of the one that trained the network, and the reference has none."""
    if form == "keras":
        from backends.keras import present

        backend = present()
    else:
        backend = "lightning" if form == "torch" else networks[0].run["backend"]
    for network in networks:
        if backends.get(backend).save(network.trial, network.flat, folder / stem(network)) is None:
            raise BackendError(f"the backend {backend} has no file format of its own; the weights are in model.safetensors")


FORMS: dict[str, Callable[[Path, tuple[Network, ...], Path], None]] = {
    "mlflow": _mlflow,
    "onnx": _onnx,
    "torch": partial(_native, "torch"),
    "keras": partial(_native, "keras"),
    "native": partial(_native, "native"),
}
RECORDED = {"mlflow": "model", "onnx": "onnx", "native": "native"}  # form -> its folder on record


def stem(network: Network) -> str:
    """The name of a network's file."""
    return "network" if network.about.number is None else f"fold_{network.about.number}"


def type_of(encoder: Encoder, how: Preprocessing, decimal: str) -> tuple[str, bool]:
    """MLflow's type of a column, and whether there must be a value.

    A string where its cells are written in a way of their own ($5, 31/12/2024). `decimal` is the file's.
    """
    name, fitted = encoder.name, encoder.each[0] if isinstance(encoder, Moments) else encoder
    own = encoder.kind == "numeric" and decimal != "point"
    if name in how.numbers:
        own = how.numbers[name].model_copy(update={"missing": ()}) != Numbers(decimal="point")
    if encoder.kind == "datetime":
        own = bool(how.orders.get(name) or how.dates.get(name, Dates()).formats)
    needed = (fitted.fill if isinstance(fitted, Numeric) else fitted.missing) is None
    return "string" if own else TYPES[encoder.kind], needed


def example_of(encoder: Encoder, dates: Dates | None = None) -> list[Any]:
    """Values of two rows: what stands for a missing value, and the first category. No row of the data is given away."""
    if isinstance(encoder, Categorical):
        first, last = (encoder.categories[place] if encoder.categories else "" for place in (0, -1))
        return [first, last]
    if isinstance(encoder, Flag):
        return [False, True]
    if isinstance(encoder, Moments) or encoder.kind == "datetime":
        days = 0.0 if isinstance(encoder, Moments) else encoder.fill or 0.0
        moment = datetime(1970, 1, 1) + timedelta(days=days)
        return [moment.strftime(dates.formats[0]) if dates and dates.formats else moment] * 2
    value = encoder.fill or 0.0
    return [value, value]
