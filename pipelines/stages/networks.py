"""Trained networks, as they lie in a folder: of the spec in place, or by themselves, with no spec beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends import weights
from backends.spec import Trial
from pipelines.data import About, Source
from pipelines.spec import DataSpec, Experiment
from pipelines.spec.blocks import HALF
from pipelines.stages.files import read_json, sha256
from pipelines.stages.metrics import decide, probabilities
from pipelines.stages.paths import RunPaths, StageError

NDArray = np.ndarray[Any, np.dtype[Any]]
THRESHOLD = "threshold.json"
ROWS_AT_ONCE = 65536  # bounds the memory of a forward pass


@dataclass(frozen=True)
class Network:
    """A trained network, with the data and the run that it comes from."""

    trial: Trial
    flat: NDArray
    sha256: str  # of its file
    about: About
    run: dict[str, Any]
    threshold: float = HALF  # chosen by validate

    def outputs(self, X: NDArray) -> NDArray:
        """Before softmax or sigmoid, (n, O), by the reference: whatever trained it, no framework is needed to predict."""
        return predict(self.trial, self.flat, X)


def predict(trial: Trial, flat: NDArray, X: NDArray) -> NDArray:
    """Outputs of one network before softmax or sigmoid, (n, O), by the reference."""
    stack = backends.get("reference").stack([trial])
    stack.load({**stack.state(), "weights": flat[None]})
    blocks = [stack.predict(X[start : start + ROWS_AT_ONCE])[0] for start in range(0, len(X), ROWS_AT_ONCE)]
    return np.concatenate(blocks)


# -- of the spec in place --


def split_rows(experiment: Experiment, places: RunPaths) -> About:
    """What is known about them. Raises StageError if there are none, or if another data block made them."""
    about = About.load(places.need(places.about, "split"))
    now = experiment.data.model_dump(mode="json")
    other = []
    if about.data:  # older outs do not say; a key that they lack had the default's meaning
        was = DataSpec.model_validate(about.data).model_dump(mode="json")
        other = list(differences(was, now, "data"))
    if other:
        raise StageError(
            f"{places.shown(places.data)} holds rows of another data block than the spec's: {', '.join(other[:5])}; "
            "run `deltarule split` or `dvc repro` first",
            exit_code=2,
        )
    return about


def load_networks(experiment: Experiment, places: RunPaths) -> list[Network]:
    """The network that train wrote, or that of each fold.

    StageError if missing, or of other data or another spec than now.
    """
    about = split_rows(experiment, places)
    run_file, model_file = places.need(places.run, "train"), places.need(places.model, "train")
    wanted = experiment.model_dump(mode="json", include={"seed", "model", "regularization", "train"})
    then = read_json(run_file)["spec"]
    other = differences({key: then.get(key) for key in wanted}, wanted)
    what = f"{places.shown(places.trained)} is of another spec or other data than now"
    return _open(about, run_file, model_file, other, what, "`deltarule train` or `dvc repro`")


def _open(about: About, run_file: Path, model_file: Path, other: Iterable[str], what: str, command: str) -> list[Network]:
    """The network of a file, or one a fold.

    Raises StageError if it is of other data, is not run.json's, or `other` differs.
    """
    run, digest = read_json(run_file), sha256(model_file)
    found = [part for part, known in run["data_hashes"].items() if about.sha256[part] != known]
    found += [*other, *([] if digest == run["model_hash"] else ["model.safetensors"])]
    if found:
        raise StageError(f"{what}: {', '.join(found[:5])}; run {command} first", exit_code=2)
    chosen = threshold_file(model_file)
    told = read_json(chosen) if chosen.is_file() else {}
    threshold = told["threshold"] if told.get("model_hash") == digest else HALF  # else an earlier network's
    each = weights.load_all(model_file)
    return [Network(one, flat, digest, about.fold(one.fold), run, threshold) for one, flat in each]


def threshold_file(model: Path) -> Path:
    """What validate has chosen for a network, if anything: beside an exported one, or in the outs of a run."""
    beside = model.with_name(THRESHOLD)
    return beside if beside.is_file() else model.parent.with_name("validate") / THRESHOLD


def differences(was: Any, now: Any, path: str = "") -> Iterator[str]:
    """ "model.activation (relu, now tanh)" of each value that differs.

    Devices and threads do not make another experiment.
    """
    if isinstance(now, dict) and isinstance(was, dict):
        for key in {**was, **now}:
            yield from differences(was.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    elif was != now and path not in ("train.devices", "train.threads"):
        yield f"{path} ({_shown(was)}, now {_shown(now)})"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


# -- by themselves --


def files_of(folder: Path) -> tuple[Path, Path, Path]:
    """about.json, run.json and model.safetensors of a run's folder, or of an exported model. Raises StageError."""
    places = RunPaths(folder)
    if not folder.is_dir():
        raise StageError(
            f"the model must be the folder of a run, such as runs/..., or . for the pipeline's; found none at {folder}", 2
        )
    for place in (folder, folder / "artifacts/run"):
        files = (place / "about.json", place / "run.json", place / "model.safetensors")
        if files[2].is_file():
            return files
    if alone := [path.name for path in folder.iterdir() if path.suffix in (".onnx", ".pt2", ".keras")]:
        way = "give the folder of its run, or an export with --format mlflow"
        raise StageError(f"{folder} holds a network for another program ({alone[0]}), without the preprocessing; {way}", 2)
    return places.need(places.about, "split"), places.need(places.run, "train"), places.need(places.model, "train")


def stored_networks(folder: Path) -> list[Network]:
    """The network of a folder, or one a fold.

    Raises StageError if it is missing, or its files do not belong together.
    """
    about_file, run_file, model_file = files_of(folder)
    what = f"{run_file} is of other data or another model than lie beside it"
    return _open(About.load(about_file), run_file, model_file, (), what, "`dvc repro`")


def names_of(about: About) -> tuple[str, ...]:
    """Of the columns that `answer` gives."""
    if about.classes:
        return ("predicted", *(f"p_{name}" for name in about.classes))
    return tuple(f"predicted_{name}" for name in about.targets)


def answer(networks: Sequence[Network], rows: Source) -> dict[str, NDArray]:
    """Column -> (n,): what is predicted for each row, as the data spell it, and P(class) as p_CLASS.

    Of folds the mean: of probabilities, or of targets in their own units.
    """
    about = networks[0].about
    outputs = [network.outputs(network.about.preprocessing.apply(rows)) for network in networks]
    if not about.classes:
        scales = [network.about.target_scale for network in networks]
        own = np.mean([scale.undo(z) for scale, z in zip(scales, outputs, strict=True)], axis=0)
        return dict(zip(names_of(about), own.T, strict=True))
    P = np.mean([probabilities(about.task, z) for z in outputs], axis=0)
    threshold = networks[0].threshold
    if len(networks) == 1:
        chosen = decide(about.task, outputs[0], threshold)
    else:  # of two classes the second where it reaches the threshold, as one network decides
        chosen = (P[:, 1] >= threshold).astype(np.int64) if P.shape[1] == 2 else P.argmax(axis=1)
    return dict(zip(names_of(about), [np.array(about.classes)[chosen], *P.T], strict=True))
