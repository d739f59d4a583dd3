"""The one layout of weights: every parameter of a network in one flat vector, layer by layer, row-major.

A stack of K trials is a matrix (K, P), so that optimizer, clipping, penalty and checkpoint are single lines. Files are
safetensors with the network's spec as JSON beside the numbers: any backend loads them, and nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from backends.draws import initial_weights
from backends.spec import NDArray, Trial, storage


class Slot(NamedTuple):
    """Where one parameter lies in the flat vector."""

    layer: int
    name: str
    shape: tuple[int, ...]
    start: int
    stop: int
    penalised: bool


def layout(trial: Trial) -> tuple[Slot, ...]:
    """The slots of a network, in order, without gaps."""
    slots: list[Slot] = []
    for number, layer in enumerate(trial.layers):
        for name, shape in layer.parameters().items():
            start = slots[-1].stop if slots else 0
            slots.append(Slot(number, name, shape, start, start + math.prod(shape), name in layer.penalised))
    return tuple(slots)


def initial(trials: Sequence[Trial]) -> NDArray:
    """Initial weights of each trial, from its seed: (K, P), in the type that the trials' precision stores."""
    rows = []
    for trial in trials:
        drawn = [initial_weights(trial, layer) for layer in range(len(trial.layers))]
        rows.append(np.concatenate([drawn[s.layer][s.name].ravel() for s in layout(trial)]))
    return np.stack(rows).astype(storage(trials[0].train.precision))


def penalties(trials: Sequence[Trial]) -> tuple[NDArray, NDArray]:
    """λ1 and λ2 of every single weight, 0 on biases: two (K, P) matrices, so that λΩ = Σ λ1|W| + λ2 W²."""
    slots = layout(trials[0])
    both = np.zeros((2, len(trials), slots[-1].stop), dtype=storage(trials[0].train.precision))
    for k, trial in enumerate(trials):
        for slot in slots:
            if slot.penalised:
                both[0, k, slot.start : slot.stop] = trial.l1[slot.layer]
                both[1, k, slot.start : slot.stop] = trial.l2[slot.layer]
    return both[0], both[1]


def unpack(trial: Trial, flat: NDArray) -> dict[str, NDArray]:
    """(..., P) -> {"layers.0.weight": (..., I, O), ...}, as views."""
    return {f"layers.{s.layer}.{s.name}": flat[..., s.start : s.stop].reshape(*flat.shape[:-1], *s.shape) for s in layout(trial)}


def save(path: Path, trial: Trial, flat: NDArray) -> None:
    """Write one network, (P,), as safetensors; the same weights give the same bytes."""
    save_all(path, [(trial, flat)])


def save_all(path: Path, networks: Sequence[tuple[Trial, NDArray]]) -> None:
    """Write one network, or that of each fold into one file: tensors fold_NUMBER.layers..., the specs as a list."""
    from safetensors.numpy import save as to_bytes

    trials = [trial for trial, _ in networks]
    tensors = {
        f"{_prefix(trial)}{name}": np.ascontiguousarray(value)
        for trial, flat in networks
        for name, value in unpack(trial, flat).items()
    }
    folds = trials[0].fold is not None
    specs = json.dumps([trial.model_dump(mode="json") for trial in trials]) if folds else trials[0].model_dump_json()
    # One metadata key: safetensors does not promise the order of several.
    write_atomically(path, to_bytes(tensors, metadata={"deltarule": specs}))


def load(path: Path) -> tuple[Trial, NDArray]:
    """Read what `save` wrote: the trial and its (P,) weights. ValueError if the file is not one of ours, or holds folds."""
    networks = load_all(path)
    if len(networks) > 1:
        raise ValueError(f"{path} holds the networks of {len(networks)} folds; load_all reads them")
    return networks[0]


def load_all(path: Path) -> list[tuple[Trial, NDArray]]:
    """Read what `save_all` wrote. ValueError if the file is not one of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            known = json.loads((file.metadata() or {})["deltarule"])
            trials = [Trial.model_validate_json(json.dumps(one)) for one in (known if isinstance(known, list) else [known])]
            return [
                (one, np.concatenate([file.get_tensor(f"{_prefix(one)}layers.{s.layer}.{s.name}").ravel() for s in layout(one)]))
                for one in trials
            ]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} does not hold weights that deltarule wrote ({error}); train it again") from error


def _prefix(trial: Trial) -> str:
    return "" if trial.fold is None else f"fold_{trial.fold}."


def digest(flat: NDArray) -> str:
    """SHA-256 of weights, for telling whether two runs are the same to the bit."""
    return hashlib.sha256(np.ascontiguousarray(flat).tobytes()).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """To a temporary name, synced, then renamed: a reader sees the whole file or none."""
    with stream_atomically(path) as file:
        file.write(content)


@contextmanager
def stream_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes its name when all is written; if that fails, no file of that name is touched."""
    # A device or a pipe would be replaced.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise FileExistsError(errno.EEXIST, "must be a file, and is a device or a pipe", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError):
            error.filename = str(path)  # a failed write names none
        temporary.unlink(missing_ok=True)
        raise
