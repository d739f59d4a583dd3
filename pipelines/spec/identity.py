"""What makes two training runs the same: a fingerprint of the spec, the data and the source they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from backends import check_name, registered
from backends.weights import write_atomically

if TYPE_CHECKING:
    from pipelines.spec.experiment import Experiment

ROOT = Path(__file__).resolve().parents[2]  # of the source: backends/ and pipelines/ lie in it
CONTRACTS = [
    f"backends/{name}.py" for name in ("activations", "base", "draws", "losses", "optimizers", "spec", "supervisor", "weights")
]
SHARED = ["pipelines/spec/to_trial.py", *(f"pipelines/stages/{name}.py" for name in ("files", "folds", "metrics", "networks"))]
REPORTS = ["pipelines/stages/baselines", *(f"pipelines/stages/{name}.py" for name in ("curves", "reports"))]
JUDGING = ["backends/reference", *CONTRACTS, "pipelines/data", *SHARED, *REPORTS]
WRITING = ["backends/spec.py", "backends/weights.py", "pipelines/stages/files.py"]  # how a file gets its name once it is whole
# What each stage runs, of our own: files and folders. dvc.yaml lists the same ones; for projects elsewhere `source_hash` hashes
# them, since DVC cannot see the files of an installed package. {backend} is the folder of train.backend.
SOURCES = {
    "split": ["backends/draws.py", *WRITING, "pipelines/data", "pipelines/stages/split.py"],
    "train": ["{backend}", *CONTRACTS, "pipelines/data", *SHARED, "pipelines/stages/train.py"],
    "validate": [*JUDGING, "pipelines/stages/validate.py"],
    "test": [*JUDGING, "pipelines/stages/test.py"],
    "search": ["{backend}", *CONTRACTS, "pipelines/data", *SHARED, "pipelines/search"],
}

CODE = Path("code.yaml")  # of a project elsewhere: on its hashes the stages of its dvc.yaml depend
HEAD = "# Hashes of deltarule's own code, which its commands bring up to date; keep it in git.\n"


def fingerprint(experiment: Experiment, data_hashes: Mapping[str, str], source_hash: str) -> str:
    """What the train stage depends on, as 32 hex digits: of one fingerprint, one trained network.

    Covers seed, model, regularization and train of the resolved spec, the training and validation parts, into which the data
    block has gone, and the source that the stage runs. Not: validation, thresholds, search, tracking, the test part, versions,
    the machine.
    """
    if any(part.startswith("test") for part in data_hashes):
        raise ValueError(f"data_hashes must be of the training and validation parts alone, got {sorted(data_hashes)}")
    blocks = experiment.model_dump(mode="json", include={"seed", "model", "regularization", "train"})
    whole = json.dumps({"spec": blocks, "data": dict(data_hashes), "source": source_hash}, sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def source_hash(backend: str, stage: str = "train") -> str:
    """sha256 over the source that a stage runs: it changes where a new version may change the outs.

    Line ends count as LF, so that a checkout on Windows has the same hash. A backend of another distribution counts with the
    whole of its package. Nothing is imported. Raises BackendError for a name that is not registered.
    """
    check_name(backend)
    found: list[tuple[str, Path]] = []  # (name, file)
    for source in SOURCES[stage]:
        place, base = ROOT / source, ROOT
        if source == "{backend}":
            module = registered()[backend][0].partition(":")[0]
            if module.startswith("backends."):
                place = ROOT / Path(*module.split("."))
            else:
                place = _package(module.partition(".")[0])
                base = place.parent
        files = [place] if place.suffix == ".py" else place.rglob("*.py")
        found += [(file.relative_to(base).as_posix(), file) for file in files]
    digest = hashlib.sha256()
    for name, file in sorted(found):
        digest.update(f"{name}\0".encode())
        digest.update(file.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def source_hashes(backend: str) -> dict[str, str]:
    """Stage -> the hash of its source."""
    return {stage: source_hash(backend, stage) for stage in SOURCES}


def code_text(backend: str) -> str:
    """What code.yaml says of this version."""
    return HEAD + "".join(f"{stage}: {digest}\n" for stage, digest in source_hashes(backend).items())


def renew_code(backend: str) -> bool:
    """Bring the code.yaml of this folder up to date, if it is there; whether it was not."""
    if not CODE.is_file() or CODE.read_text(encoding="utf-8") == (text := code_text(backend)):
        return False
    write_atomically(CODE, text.encode())
    return True


def _package(name: str) -> Path:
    """The folder of an outermost package, or the file of a module: finding it imports nothing."""
    found = find_spec(name)
    if found is None or found.origin is None:
        raise ValueError(f"the source of the backend's package {name} must be importable, found none")
    origin = Path(found.origin)
    return origin.parent if origin.name == "__init__.py" else origin
