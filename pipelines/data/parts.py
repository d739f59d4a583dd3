"""The three parts on disk, and what is known about them: what `split` writes, and every later stage reads.

`prepare` finds the target, deals out the rows, fits on training rows and writes. Columns are read one at a time; the inputs of
one part are in memory.

With folds, outputs/data/train, valid and test hold a folder a fold, 1 to k, each with the same three files: what a fold's
training rows say about its columns differs, and so do its inputs, in all three parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from backends.spec import Task
from backends.weights import stream_atomically, write_atomically
from pipelines.data.columns import PARTS, DataError, NDArray, Source, Target, find_target
from pipelines.data.preprocess import LIMIT, CellError, Encoder, Fitted, Preprocessing, TargetScale, fit, fit_target_scale
from pipelines.data.split import Rows, inputs_of, split_rows
from pipelines.spec import DataSpec
from pipelines.spec.blocks import Kind

ARRAYS = ("X", "y", "rows")
BLOCK_BYTES = 2**24  # of the rows that are put together at a time


@dataclass(frozen=True)
class Part:
    """Rows of one part: X (n, I) float32 preprocessed, y as `backends.tasks.targets` takes it, numbers in the source."""

    X: NDArray
    y: NDArray
    rows: NDArray

    @staticmethod
    def load(folder: Path) -> Part:
        """The files of one folder. They are read from the disk where they are used, and may be larger than the memory."""
        return Part(*(np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)) for name in ARRAYS))


def write_part(folder: Path, inputs: Sequence[NDArray], y: NDArray, rows: NDArray) -> str:
    """The files of one part. `inputs` are columns (n,) float32. Returns the SHA-256 of all files together."""
    digest = hashlib.sha256()
    write_npy(folder / "X.npy", (len(rows), len(inputs)), np.float32, _blocks(inputs, len(rows)), digest)
    write_npy(folder / "y.npy", y.shape, y.dtype, iter([y]), digest)
    write_npy(folder / "rows.npy", rows.shape, rows.dtype, iter([rows]), digest)
    return digest.hexdigest()


def _blocks(inputs: Sequence[NDArray], rows: int) -> Iterator[NDArray]:
    """Some rows at a time, (b, I)."""
    size = max(1, BLOCK_BYTES // (4 * len(inputs)))
    for start in range(0, rows, size):
        yield np.stack([values[start : start + size] for values in inputs], axis=1)


def write_npy(path: Path, shape: tuple[int, ...], dtype: Any, blocks: Iterator[NDArray], digest: Any) -> None:
    """The file that `np.save` would write for all the blocks together; `digest` takes in its bytes."""
    with stream_atomically(path) as file:
        hashed = _Hashed(file, digest)
        descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
        np.lib.format.write_array_header_1_0(hashed, {"descr": descr, "fortran_order": False, "shape": shape})
        for block in blocks:
            hashed.write(np.ascontiguousarray(block, dtype=dtype).data.cast("B"))


@dataclass
class _Hashed:
    file: IO[bytes]
    digest: Any

    def write(self, content: Any) -> None:
        self.digest.update(content)
        self.file.write(content)


@dataclass(frozen=True)
class About:
    """What is known about the data without opening a part. Row and class counts, gaps and hashes go by part.

    With folds it speaks of all of them: each row that does not test counts as a training and as a validation row, the hashes
    cover all folds, and what is fitted is empty. `fold(i)` is what is known about one, and is like the whole of any other data.
    """

    source: str
    task: Task
    targets: tuple[str, ...]
    classes: tuple[str, ...]  # sorted; empty for regression
    outputs: int
    kinds: dict[str, Kind]  # of every column of the source
    duplicates: dict[str, int]  # "rows" that equal an earlier one in every column; of them those that are "across" parts
    rows: dict[str, int]
    class_counts: dict[str, dict[str, int]]  # empty for regression
    missing: dict[str, dict[str, int]]  # part -> column -> rows without a value, where there are any
    unseen: dict[str, dict[str, int]]  # part -> column -> rows with a category that no training row has, where there are any
    preprocessing: Preprocessing
    target_scale: TargetScale  # 0 and 1 for classes
    sha256: dict[str, str]
    rare: dict[str, list[int]] = field(default_factory=dict)  # column -> categories that share an input, their training rows
    number: int | None = None  # of the fold, from 1
    data: dict[str, Any] = field(default_factory=dict)  # the data block that the rows were split by; {}: not known
    folds: tuple[About, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of a network's inputs."""
        return self.preprocessing.inputs

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the raw columns that they are made of."""
        return tuple(self.preprocessing.columns)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Columns of the source that are no inputs: targets, ignored ones, and those that only say who is in which part."""
        return tuple(name for name in self.kinds if name not in self.each[0].columns)

    @property
    def each(self) -> tuple[About, ...]:
        """A fold after the other; without folds, the whole alone."""
        return self.folds or (self,)

    def fold(self, number: int) -> About:
        """What is known about fold `number`, from 1: its validation rows are the fold's, its training rows the others'."""
        return self.folds[number - 1]

    def where(self, folder: Path, part: str) -> Path:
        """The folder of a part; `folder` is outputs/data."""
        return folder / part if self.number is None else folder / part / str(self.number)

    def open(self, folder: Path, part: str) -> Part:
        """The rows of a part; `folder` is outputs/data."""
        return Part.load(self.where(folder, part))

    def save(self, path: Path) -> None:
        """As JSON, floats to the last bit. What folds share stands there once."""
        kept = self._as_json()
        if self.folds:
            each = [fold._as_json() for fold in self.folds]
            kept["folds"] = [{name: fold[name] for name in OF_A_FOLD if name in fold} for fold in each]
        write_atomically(path, (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode())

    @staticmethod
    def load(path: Path) -> About:
        """What `save` wrote."""
        kept = json.loads(path.read_text(encoding="utf-8"))
        folds = kept.pop("folds", [])
        shared = {name: value for name, value in kept.items() if name not in OF_A_FOLD}
        return replace(_about(kept), folds=tuple(_about({**shared, **fold}) for fold in folds))

    def _as_json(self) -> dict[str, Any]:
        kept = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "folds"}
        for name, without in (("number", None), ("rare", {}), ("data", {})):
            if kept[name] == without:
                del kept[name]
        scale = {"mean": self.target_scale.mean, "scale": self.target_scale.scale}
        return {**kept, "preprocessing": self.preprocessing.as_json(), "target_scale": scale}


# What a fold has of its own, in the order of its JSON.
OF_A_FOLD = ("number", "rows", "class_counts", "missing", "unseen", "rare", "preprocessing", "target_scale", "sha256")


def _about(kept: dict[str, Any]) -> About:
    scale = TargetScale(tuple(kept["target_scale"]["mean"]), tuple(kept["target_scale"]["scale"]))
    plain = {"targets": tuple(kept["targets"]), "classes": tuple(kept["classes"])}
    return About(**{**kept, **plain, "preprocessing": Preprocessing.from_json(kept["preprocessing"]), "target_scale": scale})


# -- making them ------------------------------------------------------------------------------------------------------------


def prepare(source: Source, spec: DataSpec, folder: Path, parts: Sequence[str] = PARTS) -> About:
    """Write these parts and about.json, which comes last. Raises DataError, with file, line and column where there are any."""
    target = find_target(source, spec.task)
    result = split_rows(source, target, spec.split)
    about = About(
        source=source.name, task=target.task, targets=target.names, classes=target.classes, outputs=target.outputs,
        kinds=dict(source.kinds), duplicates=result.duplicates, rows={}, class_counts={}, missing={}, unseen={},
        preprocessing=Preprocessing(()), target_scale=TargetScale((), ()), sha256={},
        data=spec.model_dump(mode="json"),
    )  # fmt: skip
    if spec.split.folds is None:
        about = Preparation(source, spec, target, result.folds[0], parts).write(about, folder)
    else:
        each = [Preparation(source, spec, target, rows, parts) for rows in result.folds]
        about = _whole(about, tuple(one.write(replace(about, number=i), folder) for i, one in enumerate(each, 1)))
    about.save(folder / "about.json")
    return about


def _whole(about: About, folds: tuple[About, ...]) -> About:
    """What is known about all folds together: every row that does not test validates once, and trains."""
    rest = sum(fold.rows["valid"] for fold in folds)
    counts = {name: sum(fold.class_counts["valid"][name] for fold in folds) for name in about.classes}
    hashes = {part: [fold.sha256[part] for fold in folds] for part in folds[0].sha256}
    return replace(
        about,
        rows={"train": rest, "valid": rest, "test": folds[0].rows["test"]},
        class_counts={"train": counts, "valid": counts, "test": folds[0].class_counts["test"]},
        sha256={part: hashlib.sha256(" ".join(each).encode()).hexdigest() for part, each in hashes.items()},
        folds=folds,
    )


class Preparation:
    """One division into parts, of which those of `parts` are written; the training rows are always fitted on."""

    def __init__(self, source: Source, spec: DataSpec, target: Target, rows: Rows, parts: Sequence[str]) -> None:
        self.source, self.spec, self.target, self.rows, self.parts = source, spec, target, rows, parts
        self.missing: dict[str, dict[str, int]] = {part: {} for part in ("train", *parts)}  # part -> column -> rows
        self.unseen: dict[str, dict[str, int]] = {part: {} for part in ("train", *parts)}

    def write(self, about: About, folder: Path) -> About:
        """Fit, encode, and write the parts; what is known about them."""
        fitted = [self._fit(name) for name in inputs_of(self.source, self.spec.split)]
        encoders = tuple(one.encoder for one in fitted)
        orders = {one.name: self.source.orders[one.name] for one in encoders if one.name in self.source.orders}
        _check_names(self.source.name, encoders)
        scale, y = self._scaled_target()
        hashes = {}
        for part in self.parts:
            inputs, rows = self._inputs(encoders, part), self.rows[part]
            hashes[part] = write_part(about.where(folder, part), inputs, y[rows], rows)
        return replace(
            about,
            rows={part: len(rows) for part, rows in self.rows.items()},
            class_counts={part: _class_counts(self.target, rows) for part, rows in self.rows.items()},
            missing=self.missing,
            unseen=self.unseen,
            rare={one.encoder.name: list(one.rare) for one in fitted if one.rare},
            preprocessing=Preprocessing(encoders, orders),
            target_scale=scale,
            sha256=hashes,
        )

    def _fit(self, name: str) -> Fitted:
        """Fit a column on the training rows, and count in all parts what is missing, and what no training row has."""
        column = self.source.fetch(name)
        with self._named_rows("train"):
            fitted = fit(name, self.source.kinds[name], column.of(self.rows["train"]), self.spec)
        for part in self.missing:
            rows = column.of(self.rows[part])
            for counts, count in ((self.missing, int(rows.gaps.sum())), (self.unseen, fitted.count_unseen(rows))):
                if count:
                    counts[part][name] = count
        return fitted

    def _inputs(self, encoders: Sequence[Encoder], part: str) -> list[NDArray]:
        """All inputs of a part's rows, each (n,) float32."""
        rows = self.rows[part]
        with self._named_rows(part):
            return [values for one in encoders for values in one.encode(self.source.fetch(one.name).of(rows))]

    @contextmanager
    def _named_rows(self, part: str) -> Iterator[None]:
        """Cells that cannot be used are refused with their line."""
        try:
            yield
        except CellError as error:
            raise DataError(f"{self.source.line(int(self.rows[part][error.place]))}: {error}") from None

    def _scaled_target(self) -> tuple[TargetScale, NDArray]:
        """How targets are scaled, and all rows' targets so scaled; classes are not."""
        target = self.target
        if target.task != "regression":
            return TargetScale((), ()), target.y
        scale = fit_target_scale(target.y[self.rows["train"]], self.spec.scale_target)
        with np.errstate(over="ignore", invalid="ignore"):
            y = scale.apply(target.y)
        check_size(self.source, target, y)
        return scale, y


def _check_names(source: str, encoders: Sequence[Encoder]) -> None:
    """Raises DataError where two columns give inputs of one name: "age missing" of age, and a column that is called so."""
    of: dict[str, str] = {}
    for encoder in encoders:
        for name in encoder.inputs:
            if name in of:
                raise DataError(
                    f"{source}: inputs must have different names, got {name!r} of column {of[name]!r} and of column "
                    f"{encoder.name!r}; rename one of the columns"
                )
            of[name] = encoder.name


def _class_counts(target: Target, rows: NDArray) -> dict[str, int]:
    counts = np.bincount(target.y[rows], minlength=len(target.classes)) if target.classes else ()
    return {name: int(count) for name, count in zip(target.classes, counts, strict=True)}


def check_size(source: Source, target: Target, y: NDArray) -> None:
    """Raises DataError for targets that float32 cannot hold: the loss would be NaN at the first step."""
    for values, when in ((target.y, ""), (y, " after scaling")):
        sound = np.abs(values) < LIMIT
        if not sound.all():
            row, place = np.argwhere(~sound)[0]
            raise DataError(
                f"{source.line(int(row))}: target {target.names[place]!r} must lie within ±{LIMIT:.1e}{when}, "
                f"found {target.y[row, place]:g}"
            )
