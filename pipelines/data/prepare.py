"""From a source to three parts on disk: find the target, deal out the rows, fit on training rows, write.

One column at a time is in memory. It is read, put into the order of the parts, fitted on the training rows and encoded; its
inputs wait in a temporary file until all columns are there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pipelines.data.columns import PARTS, Column, DataError, NDArray, Source
from pipelines.data.encoders import LIMIT, CellError, Encoder, fit
from pipelines.data.parts import About
from pipelines.data.preprocess import Preprocessing
from pipelines.data.scaling import TargetScale, fit_target_scale
from pipelines.data.store import Columns, write_part
from pipelines.data.tasks import Target, find_target
from pipelines.data.ways import Rows, deal_rows, inputs_of
from pipelines.spec import DataSpec

Counts = dict[str, dict[str, int]]  # part -> column -> rows


def prepare(source: Source, spec: DataSpec, folder: Path, parts: Sequence[str] = PARTS) -> About:
    """Write these parts and about.json, which comes last. Raises DataError, with file, line and column where there are any."""
    target = find_target(source, spec.task)
    dealt = deal_rows(source, target, spec.split)
    names = inputs_of(source, spec.split)
    with ExitStack() as stack:
        makers = [stack.enter_context(Maker(source, spec, folder, rows, parts)) for rows in dealt.folds]
        for name in names:
            column = source.fetch(name)
            for maker in makers:
                maker.take(name, column)
        about = About(
            source=source.name, task=target.task, targets=target.names, classes=target.classes, outputs=target.outputs,
            kinds=dict(source.kinds), duplicates=dealt.duplicates, rows={}, class_counts={}, missing={}, unseen={},
            preprocessing=Preprocessing(()), target_scale=TargetScale((), ()), sha256={},
            data=spec.model_dump(mode="json"),
        )  # fmt: skip
        if spec.split.folds is None:
            about = makers[0].finish(about, target)
        else:
            folds = tuple(maker.finish(replace(about, number=number), target) for number, maker in enumerate(makers, 1))
            about = _whole(about, folds)
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


@dataclass
class Maker:
    """Takes in the columns of one division into parts, and writes those of `parts`."""

    source: Source
    spec: DataSpec
    folder: Path
    rows: Rows
    parts: Sequence[str]
    encoders: list[Encoder] = field(default_factory=list)
    missing: Counts = field(default_factory=dict)
    unseen: Counts = field(default_factory=dict)
    rare: dict[str, list[int]] = field(default_factory=dict)

    def __enter__(self) -> Maker:
        wanted = ("train", *(part for part in self.parts if part != "train"))
        self.order = np.concatenate([self.rows[part] for part in wanted])
        ends = np.cumsum([len(self.rows[part]) for part in wanted]).tolist()
        self.where = {part: slice(end - len(self.rows[part]), end) for part, end in zip(wanted, ends, strict=True)}
        self.missing, self.unseen = {part: {} for part in wanted}, {part: {} for part in wanted}
        self.inputs = Columns(self.folder, len(self.order))
        return self

    def __exit__(self, *_: object) -> None:
        self.inputs.close()

    def take(self, name: str, column: Column) -> None:
        """Fit one more column on the training rows, and keep its inputs."""
        ordered = Column(column.values[self.order], column.categories)
        try:
            fitted = fit(name, self.source.kinds[name], self._part(ordered, "train"), self.spec)
            for values in fitted.encoder.encode(ordered):
                self.inputs.add(values)
        except CellError as error:
            raise DataError(f"{self.source.line(int(self.order[error.place]))}: {error}") from None
        self.encoders.append(fitted.encoder)
        if fitted.rare:
            self.rare[name] = list(fitted.rare)
        for part in self.where:
            rows = self._part(ordered, part)
            _note(self.missing[part], name, int(rows.gaps.sum()))
            _note(self.unseen[part], name, fitted.count_unseen(rows))

    def _part(self, column: Column, part: str) -> Column:
        return Column(column.values[self.where[part]], column.categories)

    def finish(self, about: About, target: Target) -> About:
        """Write the parts; what is known about them."""
        scale, y = TargetScale((), ()), target.y
        if target.task == "regression":
            scale = fit_target_scale(y[self.rows["train"]], self.spec.scale_target)
            with np.errstate(over="ignore", invalid="ignore"):
                y = scale.apply(y)
            check_size(self.source, target, y)
        orders = {one.name: self.source.orders[one.name] for one in self.encoders if one.name in self.source.orders}
        preprocessing = Preprocessing(tuple(self.encoders), orders)
        _check_names(self.source.name, preprocessing)
        about = replace(
            about,
            rows={part: len(rows) for part, rows in self.rows.items()},
            class_counts={part: _class_counts(target, rows) for part, rows in self.rows.items()},
            missing=self.missing,
            unseen=self.unseen,
            rare=self.rare,
            preprocessing=preprocessing,
            target_scale=scale,
        )
        hashes = {}
        for part in self.parts:
            rows, place = self.rows[part], about.where(self.folder, part)
            hashes[part] = write_part(place, self.inputs, self.where[part].start, y[rows], rows)
        return replace(about, sha256=hashes)


def _check_names(source: str, preprocessing: Preprocessing) -> None:
    """Raises DataError where two columns give inputs of one name: "age missing" of age, and a column that is called so."""
    of: dict[str, str] = {}
    for encoder in preprocessing.encoders:
        for name in encoder.inputs:
            if name in of:
                raise DataError(
                    f"{source}: inputs must have different names, got {name!r} of column {of[name]!r} and of column "
                    f"{encoder.name!r}; rename one of the columns"
                )
            of[name] = encoder.name


def _note(counts: dict[str, int], name: str, count: int) -> None:
    if count:
        counts[name] = count


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
