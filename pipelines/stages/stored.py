"""A trained network by itself: the three files that carry it, wherever they lie, with no spec beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backends import weights
from backends.losses import predictions
from backends.spec import Task
from pipelines.data import About, Source
from pipelines.metrics import decide
from pipelines.stages.files import read_json, sha256
from pipelines.stages.folds import about_of
from pipelines.stages.places import Places, StageError
from pipelines.stages.reports import NDArray, Network


def files_of(folder: Path) -> tuple[Path, Path, Path]:
    """about.json, run.json and model.safetensors of a run's folder, or of an exported model. Raises StageError."""
    places = Places(folder)
    if not folder.is_dir():
        raise StageError(
            f"the model must be the folder of a run, such as runs/..., or . for the pipeline's; found none at {folder}", 2
        )
    for place in (folder, folder / "artifacts/run"):
        files = (place / "about.json", place / "run.json", place / "model.safetensors")
        if files[2].is_file():
            return files
    return places.need(places.about, "split"), places.need(places.run, "train"), places.need(places.model, "train")


def stored_networks(folder: Path) -> list[Network]:
    """The network of a folder, or one a fold. Raises StageError if it is missing, or its files do not belong together."""
    about_file, run_file, model_file = files_of(folder)
    about, run, digest = About.load(about_file), read_json(run_file), sha256(model_file)
    other = [part for part, known in run["data_hashes"].items() if about.sha256[part] != known]
    other += ["model.safetensors"] if digest != run["model_hash"] else []
    if other:
        raise StageError(
            f"{run_file} is of other data or another model than lie beside it: {', '.join(other)}; run `dvc repro` first",
            exit_code=2,
        )
    return [Network(trial, flat, digest, about_of(about, trial.fold), run) for trial, flat in weights.load_all(model_file)]


def names_of(about: About) -> tuple[str, ...]:
    """Of the columns that `answer` gives."""
    if about.classes:
        return ("predicted", *(f"p_{name}" for name in about.classes))
    return tuple(f"predicted_{name}" for name in about.targets)


def answer(networks: Sequence[Network], rows: Source) -> dict[str, NDArray]:
    """Column -> (n,): what is predicted for each row, as the data spell it, and P(class) as p_CLASS.

    Of several folds' networks the mean: of probabilities, or of targets in their own units.
    """
    about = networks[0].about
    outputs = [network.outputs(network.about.preprocessing.apply(rows)) for network in networks]
    if not about.classes:
        scales = [network.about.target_scale for network in networks]
        own = np.mean([scale.undo(z) for scale, z in zip(scales, outputs, strict=True)], axis=0)
        return dict(zip(names_of(about), own.T, strict=True))
    P = np.mean([_probabilities(about.task, z) for z in outputs], axis=0)
    chosen = decide(about.task, outputs[0]) if len(networks) == 1 else _likeliest(P)
    return dict(zip(names_of(about), [np.array(about.classes)[chosen], *P.T], strict=True))


def _probabilities(task: Task, outputs: NDArray) -> NDArray:
    p = predictions(task, outputs)
    return np.stack([1 - p, p], axis=1) if p.ndim == 1 else p


def _likeliest(P: NDArray) -> NDArray:
    """Of two classes the second where it has a half at least, as one network decides."""
    return (P[:, 1] >= 0.5).astype(np.int64) if P.shape[1] == 2 else P.argmax(axis=1)
