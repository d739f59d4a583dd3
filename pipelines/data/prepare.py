"""From a source to three parts on disk: find the target, deal out the rows, fit on training rows, write.

Columns are read one at a time, fitted on the training rows and encoded; the inputs of one division into parts are in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.data.columns import PARTS, Column, DataError, NDArray, Source
from pipelines.data.parts import About, write_part
from pipelines.data.preprocess import LIMIT, CellError, Encoder, Fitted, Preprocessing, fit
from pipelines.data.scaling import TargetScale, fit_target_scale
from pipelines.data.split import Rows, inputs_of, split_rows
from pipelines.data.tasks import Target, find_target
from pipelines.spec import DataSpec


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
        wanted = ("train", *(part for part in parts if part != "train"))
        self.order = np.concatenate([rows[part] for part in wanted])
        ends = np.cumsum([len(rows[part]) for part in wanted]).tolist()
        self.where = {part: slice(end - len(rows[part]), end) for part, end in zip(wanted, ends, strict=True)}
        self.inputs: list[NDArray] = []  # each of all parts' rows, one part after the other, (n,) float32
        self.missing: dict[str, dict[str, int]] = {part: {} for part in wanted}  # part -> column -> rows
        self.unseen: dict[str, dict[str, int]] = {part: {} for part in wanted}

    def write(self, about: About, folder: Path) -> About:
        """Fit, encode, and write the parts; what is known about them."""
        fitted = [self._fit(name) for name in inputs_of(self.source, self.spec.split)]
        encoders = tuple(one.encoder for one in fitted)
        orders = {one.name: self.source.orders[one.name] for one in encoders if one.name in self.source.orders}
        _check_names(self.source.name, encoders)
        scale, y = self._scaled_target()
        about = replace(
            about,
            rows={part: len(rows) for part, rows in self.rows.items()},
            class_counts={part: _class_counts(self.target, rows) for part, rows in self.rows.items()},
            missing=self.missing,
            unseen=self.unseen,
            rare={one.encoder.name: list(one.rare) for one in fitted if one.rare},
            preprocessing=Preprocessing(encoders, orders),
            target_scale=scale,
        )
        hashes = {}
        for part in self.parts:
            rows, inputs = self.rows[part], [values[self.where[part]] for values in self.inputs]
            hashes[part] = write_part(about.where(folder, part), inputs, y[rows], rows)
        self.inputs.clear()
        return replace(about, sha256=hashes)

    def _fit(self, name: str) -> Fitted:
        """Fit one more column on the training rows, and keep its inputs."""
        column = self.source.fetch(name)
        ordered = Column(column.values[self.order], column.categories)
        try:
            fitted = fit(name, self.source.kinds[name], self._part(ordered, "train"), self.spec)
            self.inputs += fitted.encoder.encode(ordered)
        except CellError as error:
            raise DataError(f"{self.source.line(int(self.order[error.place]))}: {error}") from None
        for part in self.where:
            rows = self._part(ordered, part)
            for counts, count in ((self.missing, int(rows.gaps.sum())), (self.unseen, fitted.count_unseen(rows))):
                if count:
                    counts[part][name] = count
        return fitted

    def _part(self, column: Column, part: str) -> Column:
        return Column(column.values[self.where[part]], column.categories)

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
