"""The three parts on disk, and what is known about them: what `split` writes, and later stages read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from backends.spec import Task
from backends.weights import stream_atomically, write_atomically
from pipelines.data.columns import PARTS, DataError, NDArray, Source, Target, find_target
from pipelines.data.preprocess import LIMIT, Encoder, Fitted, Preprocessing, TargetScale, fit, fit_target_scale, named_rows
from pipelines.data.split import Rows, inputs_of, row_weights, split_rows
from pipelines.spec import DataSpec
from pipelines.spec.blocks import Kind

ARRAYS = ("X", "y", "rows", "weights")  # the last of training rows, with data.weight
# Sealed; "outs" of the first two say what the files beside them hold: name -> SHA-256.
LISTINGS = ("run.json", "about.json", "study.json")


@dataclass(frozen=True)
class Part:
    """Rows of one part: X (n, I) float32 preprocessed, y as `backends.losses.targets` takes it, numbers in the source.

    `weights` (n,) float64 of training rows say how much each counts, as the column data.weight has them; None: all alike.
    """

    X: NDArray
    y: NDArray
    rows: NDArray
    weights: NDArray | None = None


# -- files that say when they are damaged --


def write_json(path: Path, content: dict[str, Any]) -> None:
    """JSON with its keys in the order given; those of LISTINGS end in a seal, the SHA-256 of what stands before."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    raw = f"{text}\n".encode()
    if path.name in LISTINGS:
        raw = _sealed(raw.removesuffix(b"\n}\n"))
    write_atomically(path, raw)


def _sealed(text: bytes) -> bytes:
    digest = hashlib.sha256(text).hexdigest()
    return text + f',\n  "digest": "{digest}"\n}}\n'.encode()


def read_json(path: Path) -> dict[str, Any]:
    """A file of JSON that we wrote, without its seal. Raises DataError where it is damaged."""
    listing = path.name in LISTINGS
    raw = path.read_bytes() if listing else check(path).read_bytes()
    sealed = _sealed(raw.rpartition(b",\n")[0])
    try:
        content: dict[str, Any] = json.loads(raw)
        seal = content.pop("digest", None)
    # Or JSON that is no mapping.
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise damaged(path) from None
    # Without a seal it is of an earlier version; a seal whose key is damaged is known by its value.
    if listing and (seal or raw.endswith(sealed[-68:])) and raw != sealed:
        raise damaged(path)
    return content


def check(path: Path) -> Path:
    """An out.

    Raises DataError unless it is what run.json or about.json beside it lists; earlier versions listed nothing.
    """
    for listing in (path.with_name(name) for name in LISTINGS):
        if not listing.is_file():
            continue
        told = read_json(listing)
        outs = {"model.safetensors": told.get("model_hash"), **told.get("outs", {})}
        known = outs.get(path.name)
        if known and sha256(path) != known:
            raise damaged(path)
    return path


def sha256(*files: Path) -> str:
    """Of a file, or of several behind one another."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def damaged(path: Path, how: str = "damaged: it does not hold what was written there", again: str = "") -> DataError:
    """The error of a file that holds what no stage writes. `again`: how it is made anew."""
    below = path.as_posix().rpartition("outputs/")[2]
    stage = below.partition("/")[0].replace("data", "split")
    if stage in ("split", "train", "validate", "test"):
        again = f"run `deltarule {stage}`"
    elif path.name == "study.json":
        again = "remove it, and `deltarule search` writes it anew"
    return DataError(f"{path} is {how}; restore it, or {again or 'run again what makes it'}")


# -- parts --


def _array(path: Path) -> NDArray:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise damaged(path, "missing") from None
    except (ValueError, EOFError):
        raise damaged(path) from None


def write_part(
    folder: Path, inputs: Callable[[NDArray], NDArray], width: int, at_once: int, rows: NDArray, *arrays: NDArray
) -> str:
    """The files of one part; their SHA-256. `inputs` gives X (n, `width`) float32 of some of `rows`, `at_once` at most.

    `arrays` (n, ...): y, the numbers of the rows in the source, and the weights where there are any.
    """
    with stream_atomically(folder / "X.npy") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(rows), width)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(rows), at_once):
            file.write(inputs(rows[start : start + at_once]).data)
    written = [folder / "X.npy"]
    for name, array in zip(ARRAYS[1:], arrays, strict=False):
        written.append(folder / f"{name}.npy")
        with stream_atomically(written[-1]) as file:
            np.save(file, array)
    return sha256(*written)


@dataclass(frozen=True)
class About:
    """What is known about the data without opening a part. Row and class counts, gaps and hashes go by part.

    With folds it speaks of all of them: each row that does not test counts as a training and as a validation row, the hashes
    cover all folds, and what is fitted is empty. `fold(i)` is what is known about one, and is like the whole of any other data.
    """

    source: str
    task: Task
    targets: tuple[str, ...]
    classes: tuple[str, ...]  # data.positive last; empty for regression
    outputs: int
    kinds: dict[str, Kind]  # of every column of the source
    duplicates: dict[str, int]  # "rows" that equal an earlier one in every column; of them those that are "across" parts
    rows: dict[str, int]
    class_counts: dict[str, dict[str, int]]  # empty for regression
    missing: dict[str, dict[str, int]]  # part -> column -> rows without a value
    unseen: dict[str, dict[str, int]]  # part -> column -> rows with a category that no training row has
    preprocessing: Preprocessing
    target_scale: TargetScale  # 0 and 1 for classes
    sha256: dict[str, str]
    rare: dict[str, list[int]] = field(default_factory=dict)  # column -> categories that share an input, their training rows
    number: int | None = None  # of the fold, from 1
    data: dict[str, Any] = field(default_factory=dict)  # the data block; {}: not known
    folds: tuple[About, ...] = ()
    rows_left_out: dict[str, int] = field(default_factory=dict)  # why rows are in no part -> how many

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
        """Columns of the source that are no inputs: targets, ignored ones, and those of the split."""
        return tuple(name for name in self.kinds if name not in self.each[0].columns)

    @property
    def each(self) -> tuple[About, ...]:
        """A fold after the other; without folds, the whole alone."""
        return self.folds or (self,)

    def fold(self, number: int | None) -> About:
        """Fold `number`, from 1, which validates while the others train. Without one, the whole."""
        return self if number is None else self.folds[number - 1]

    def where(self, folder: Path, part: str) -> Path:
        """The folder of a part; `folder` is outputs/data."""
        return folder / part if self.number is None else folder / part / str(self.number)

    def open(self, folder: Path, part: str) -> Part:
        """The rows of a part; `folder` is outputs/data. They may be larger than the memory.

        Raises DataError for files that are damaged or missing.
        """
        place = self.where(folder, part)
        weighted = part == "train" and bool(self.data.get("weight"))
        files = [place / f"{name}.npy" for name in (ARRAYS if weighted else ARRAYS[:-1])]
        arrays = [_array(file) for file in files]
        if sha256(*files) != self.sha256.get(part):
            raise damaged(place / "X.npy, y.npy, rows.npy or weights.npy")
        return Part(*arrays)

    def save(self, path: Path) -> None:
        """As JSON, floats to the last bit. What folds share stands there once."""
        kept = TypeAdapter(About).dump_python(self, by_alias=True, exclude_defaults=True)
        if self.folds:
            kept["folds"] = [{name: fold[name] for name in OF_A_FOLD if name in fold} for fold in kept["folds"]]
        write_json(path, kept)

    @staticmethod
    def load(path: Path) -> About:
        """What `save` wrote."""
        kept = read_json(path)
        shared = {name: value for name, value in kept.items() if name not in (*OF_A_FOLD, "folds")}
        folds = [{**shared, **fold} for fold in kept.get("folds", [])]
        try:
            return TypeAdapter(About).validate_python({**kept, "folds": folds})
        except ValidationError:
            raise damaged(path) from None


# What a fold has of its own, in the order of its JSON.
OF_A_FOLD = ("number", "rows", "class_counts", "missing", "unseen", "rare", "preprocessing", "target_scale", "sha256")


# -- making them --


def prepare(source: Source, spec: DataSpec, folder: Path, parts: Sequence[str] = PARTS) -> About:
    """Write these parts and about.json, which comes last.

    Raises DataError, with file, line and column where there are any.
    """
    target = find_target(source, spec.task, spec.positive)
    result = split_rows(source, target, spec.split, spec.weight)
    about = About(
        source=source.name, task=target.task, targets=target.names, classes=target.classes, outputs=target.outputs,
        kinds=dict(source.kinds), duplicates=result.duplicates, rows={}, class_counts={}, missing={}, unseen={},
        preprocessing=Preprocessing(()), target_scale=TargetScale((), ()), sha256={},
        data=spec.model_dump(mode="json"), rows_left_out=dict(source.left_out),
    )  # fmt: skip
    if spec.split.folds is None:
        about = _write(about, source, spec, target, result.folds[0], parts, folder)
    else:
        numbered = [replace(about, number=number) for number in range(1, len(result.folds) + 1)]
        each = [_write(one, source, spec, target, rows, parts, folder) for one, rows in zip(numbered, result.folds, strict=True)]
        about = _whole(about, tuple(each))
    about.save(folder / "about.json")
    return about


def _whole(about: About, folds: tuple[About, ...]) -> About:
    """What is known about all folds together: every row that does not test validates once."""
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


def _write(about: About, source: Source, spec: DataSpec, target: Target, rows: Rows, parts: Sequence[str], folder: Path) -> About:
    """One division into parts; those of `parts` are written."""
    missing: dict[str, dict[str, int]] = {part: {} for part in ("train", *parts)}  # part -> column -> rows
    unseen: dict[str, dict[str, int]] = {part: {} for part in missing}
    fitted: list[Fitted] = []
    for name in inputs_of(source, spec):
        column = source.fetch(name)
        with named_rows(source, rows["train"]):
            parts_of_dates = source.dates[name].parts if name in source.dates else ("day",)
            fitted.append(fit(name, source.kinds[name], column.of(rows["train"]), spec, parts_of_dates))
        for part in missing:
            of_part = column.of(rows[part])
            for counts, count in ((missing, int(of_part.gaps.sum())), (unseen, fitted[-1].count_unseen(of_part))):
                if count:
                    counts[part][name] = count
    encoders = tuple(one.encoder for one in fitted)

    def known(said: Mapping[str, Any]) -> dict[str, Any]:
        return {one.name: said[one.name] for one in encoders if one.name in said}

    preprocessing = Preprocessing(encoders, known(source.orders), known(source.numbers), known(source.dates))
    _check_names(source.name, encoders)
    scale, y = _scaled_target(source, target, rows["train"], spec)

    hashes = {}
    for part in parts:
        own, width, inputs = rows[part], len(preprocessing.inputs), partial(preprocessing.apply, source)
        weights = [row_weights(source, spec, own)] if spec.weight and part == "train" else []
        arrays = (y[own], source.numbers_of(own), *weights)
        hashes[part] = write_part(about.where(folder, part), inputs, width, source.rows // 4 + 1, own, *arrays)
    return replace(
        about,
        rows={part: len(own) for part, own in rows.items()},
        class_counts={part: target.counts(own) for part, own in rows.items()},
        missing=missing,
        unseen=unseen,
        rare={one.encoder.name: list(one.rare) for one in fitted if one.rare},
        preprocessing=preprocessing,
        target_scale=scale,
        sha256=hashes,
    )


def _scaled_target(source: Source, target: Target, train: NDArray, spec: DataSpec) -> tuple[TargetScale, NDArray]:
    """How targets are scaled, and all rows' targets so scaled; classes are not."""
    if target.task != "regression":
        return TargetScale((), ()), target.y
    scale = fit_target_scale(target.y[train], spec.scale_target)
    with np.errstate(over="ignore", invalid="ignore"):
        y = scale.apply(target.y)
    check_size(source, target, y)
    return scale, y


def _check_names(source: str, encoders: Sequence[Encoder]) -> None:
    """Raises DataError where two columns give inputs of one name, such as "age missing"."""
    of: dict[str, str] = {}
    for encoder in encoders:
        for name in encoder.inputs:
            if name in of:
                raise DataError(
                    f"{source}: inputs must have different names, got {name!r} of column {of[name]!r} and of column "
                    f"{encoder.name!r}; rename one of the columns"
                )
            of[name] = encoder.name


def check_size(source: Source, target: Target, y: NDArray) -> None:
    """Raises DataError for targets that float32 cannot hold."""
    for values, when in ((target.y, ""), (y, " after scaling")):
        sound = np.abs(values) < LIMIT
        if not sound.all():
            row, place = np.argwhere(~sound)[0]
            raise DataError(
                f"{source.line(int(row))}: target {target.names[place]!r} must lie within ±{LIMIT:.1e}{when}, "
                f"found {target.y[row, place]:g}"
            )
