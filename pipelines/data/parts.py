"""The three parts as arrays, and what is known about them: what `split` makes, and every later stage reads."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from backends.spec import Task
from backends.weights import write_atomically
from pipelines.data.preprocess import Preprocessing, TargetScale, fit_preprocessing, fit_target_scale
from pipelines.data.split import PARTS, check_strata, check_training_classes, split
from pipelines.data.table import DataError, NDArray, Table
from pipelines.data.tasks import Target, find_target
from pipelines.spec import DataSpec, Split

ARRAYS = ("X", "y", "rows")


@dataclass(frozen=True)
class Part:
    """Rows of one part: X (n, I) float64 preprocessed, y as `backends.tasks.targets` takes it, numbers in the source."""

    X: NDArray
    y: NDArray
    rows: NDArray

    def files(self) -> dict[str, bytes]:
        """name -> the bytes of its .npy file."""
        return {f"{name}.npy": _npy(getattr(self, name)) for name in ARRAYS}

    def save(self, folder: Path) -> str:
        """Write the files; returns the SHA-256 of them all."""
        digest = hashlib.sha256()
        for name, content in self.files().items():
            write_atomically(folder / name, content)
            digest.update(content)
        return digest.hexdigest()

    @staticmethod
    def load(folder: Path) -> Part:
        """What `save` wrote."""
        return Part(*(np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS))


@dataclass(frozen=True)
class About:
    """What is known about the data without opening a part. Row and class counts and hashes go by part."""

    source: str
    task: Task
    features: tuple[str, ...]
    targets: tuple[str, ...]
    classes: tuple[str, ...]  # sorted; empty for regression
    outputs: int
    rows: dict[str, int]
    class_counts: dict[str, dict[str, int]]  # empty for regression
    preprocessing: Preprocessing
    target_scale: TargetScale  # 0 and 1 for classes
    sha256: dict[str, str]

    @property
    def inputs(self) -> int:
        """Inputs of a network for these data."""
        return len(self.features)

    def save(self, path: Path) -> None:
        """As JSON, floats to the last bit."""
        write_atomically(path, (json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n").encode())

    @staticmethod
    def load(path: Path) -> About:
        """What `save` wrote."""
        kept = json.loads(path.read_text(encoding="utf-8"))
        for name in ("features", "targets", "classes"):
            kept[name] = tuple(kept[name])
        kept["preprocessing"] = Preprocessing.from_json(kept["preprocessing"])
        kept["target_scale"] = TargetScale(tuple(kept["target_scale"]["mean"]), tuple(kept["target_scale"]["scale"]))
        return About(**kept)


@dataclass(frozen=True)
class Prepared:
    """A table split and preprocessed, in memory."""

    target: Target
    parts: dict[str, Part]
    preprocessing: Preprocessing
    target_scale: TargetScale
    source: str
    features: tuple[str, ...]

    def save(self, folder: Path, parts: Sequence[str] = PARTS) -> About:
        """Write the parts, then what is known about them."""
        hashes = {name: self.parts[name].save(folder / name) for name in parts}
        about = About(
            source=self.source,
            task=self.target.task,
            features=self.features,
            targets=self.target.names,
            classes=self.target.classes,
            outputs=self.target.outputs,
            rows={name: len(part.rows) for name, part in self.parts.items()},
            class_counts={name: self._class_counts(part) for name, part in self.parts.items()},
            preprocessing=self.preprocessing,
            target_scale=self.target_scale,
            sha256=hashes,
        )
        about.save(folder / "about.json")
        return about

    def _class_counts(self, part: Part) -> dict[str, int]:
        if not self.target.classes:
            return {}
        counts = np.bincount(part.y, minlength=len(self.target.classes))
        return {name: int(count) for name, count in zip(self.target.classes, counts, strict=True)}


def prepare(table: Table, spec: DataSpec) -> Prepared:
    """Find the target, split, and preprocess by what the training rows say. Raises DataError."""
    target = find_target(table, spec.task)
    rows = split_rows(table, target, spec.split)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        preprocessing = fit_preprocessing(spec.scaling, table.X[rows["train"]], table.features)
        X = {name: preprocessing.apply(table.X[numbers]) for name, numbers in rows.items()}
    _check_size(table.source, X, table.features)
    y = {name: target.y[numbers] for name, numbers in rows.items()}
    scale = TargetScale((), ())
    if target.task == "regression":
        scale = fit_target_scale(y["train"], spec.scale_target)
        y = {name: scale.apply(values) for name, values in y.items()}
        _check_size(table.source, y, target.names)
    parts = {name: Part(X[name], y[name], rows[name]) for name in PARTS}
    return Prepared(target, parts, preprocessing, scale, table.source, table.features)


def split_rows(table: Table, target: Target, sizes: Split) -> dict[str, NDArray]:
    """Row numbers of each part, with the checks that concern classes."""
    classes = target.task != "regression"
    if sizes.stratify is True and not classes:
        raise DataError(f"{table.source}: data.split.stratify must be auto or false for a regression target, got true")
    stratified = classes and sizes.stratify is not False
    if stratified:
        check_strata(table.source, target.classes, target.y)
    fractions = (sizes.train, sizes.valid, sizes.test)
    try:
        rows = split(len(table.X), fractions, sizes.seed, target.y if stratified else None)
    except DataError as error:
        raise DataError(f"{table.source}: {error}") from None
    if classes:
        check_training_classes(table.source, target.classes, target.y[rows["train"]])
    return rows


def _check_size(source: str, parts: dict[str, NDArray], names: tuple[str, ...]) -> None:
    """Raises DataError for values that float32 cannot hold: the loss would be NaN at the first step."""
    limit = float(np.finfo(np.float32).max)
    for values in parts.values():
        bad = np.argwhere(~(np.abs(values) < limit))
        if len(bad):
            raise DataError(
                f"{source}: values must lie within ±{limit:.1e} after scaling, found {values[tuple(bad[0])]} in "
                f"column {names[bad[0, 1]]!r}"
            )


def _npy(array: NDArray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
