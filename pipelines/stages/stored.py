"""A trained network by itself: the three files that carry it, wherever they lie, with no spec beside them."""

from __future__ import annotations

from pathlib import Path

from backends import weights
from pipelines.data import About
from pipelines.stages.files import read_json, sha256
from pipelines.stages.places import Places, StageError
from pipelines.stages.reports import Network


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


def stored_network(folder: Path) -> Network:
    """The network of a folder, as it was trained. Raises StageError if it is missing, or its files do not belong together."""
    about_file, run_file, model_file = files_of(folder)
    about, run = About.load(about_file), read_json(run_file)
    other = [part for part, digest in run["data_hashes"].items() if about.sha256[part] != digest]
    other += ["model.safetensors"] if sha256(model_file) != run["model_hash"] else []
    if other:
        raise StageError(
            f"{run_file} is of other data or another model than lie beside it: {', '.join(other)}; run `dvc repro` first",
            exit_code=2,
        )
    if about.folds:
        raise StageError(
            f"{folder} holds a network a fold ({len(about.folds)}); train one with data.split.folds: null", exit_code=2
        )
    trial, flat = weights.load(model_file)
    return Network(trial, flat, sha256(model_file), about, run)
