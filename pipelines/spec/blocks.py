"""The blocks of the spec that no backend sees: data, validation, thresholds, tracking.

search stands in study.py, the others in backends/.
"""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Annotated, Literal, TypeGuard
from urllib.parse import urlsplit

import numpy as np
from pydantic import BeforeValidator, Field, Strict, field_validator, model_validator
from pydantic.config import JsonDict

from backends.spec import Count, Seed, Spec
from pipelines.redact import redacted
from pipelines.spec.describe import nearest

# name -> names of its target columns, which scikit-learn leaves out for all but one
BUNDLED = {
    "digits": ("digit",),
    "breast_cancer": ("diagnosis",),
    "wine": ("cultivar",),
    "iris": ("species",),
    "diabetes": ("progression",),
    "linnerud": ("Weight", "Waist", "Pulse"),
}
DELIMITED = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
FILES = (*DELIMITED, ".parquet")
KEPT, GIVEN = ".deltarule/rows", "the rows"  # given in Python
NO_ENCODINGS = ("undefined", "idna", "punycode", "unicode-escape", "raw-unicode-escape")  # codecs of Python, of no file
TAG = re.compile(r"(?!mlflow\.|deltarule\.)\w[\w .:-]{0,249}")
OPENML = re.compile(r"openml:[1-9][0-9]*")


# From which probability on a row is of the second of two classes, if nothing else is said.
HALF = 0.5
Fraction = Annotated[float, Field(gt=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
BY_COLUMN: JsonDict = {"x-key": "column"}


def has_password(url: str | None) -> TypeGuard[str]:
    """Whether a URL holds one, before its host."""
    try:
        return url is not None and urlsplit(url).password is not None
    except ValueError:
        return False


class Files(Spec):
    """Data that come split: a file for each part."""

    train: Text = Field(description="path of the rows that fit weights and preprocessing")
    valid: Text | None = Field(None, description="path of the rows that choose; null: a share of train, by data.split.valid")
    test: Text = Field(description="path of the rows for the number that is reported")


class Format(Spec):
    """How a delimited text file is written; auto: found out from the file."""

    delimiter: Literal["auto", "comma", "semicolon", "tab", "pipe", "space"] = Field(
        "auto", description="what stands between cells"
    )
    quote: Literal["double", "single", "none", "rows"] = Field(
        "double", description="what encloses a cell that holds a delimiter or a line end; rows: double, and a row as a whole"
    )
    encoding: Text = Field("auto", description="of the text, such as utf-8, utf-16 or latin-1; auto: UTF-8 or UTF-16")
    header: bool | Literal["auto"] = Field("auto", description="does the first line name the columns? else: column_1, ...")
    decimal: Literal["point", "comma"] = Field("point", description="what stands before the decimals of a number")
    dates: Literal["auto", "day_first", "month_first"] = Field(
        "auto", description="how 03/04/2024 is meant; auto: by the cells of the column that leave no doubt"
    )

    @field_validator("encoding")
    @classmethod
    def _of_text(cls, value: str) -> str:
        if value == "auto":
            return value
        with suppress(LookupError, ValueError):
            "".encode(value)  # base64 is a codec, but none of text
            if codecs.lookup(value).name.replace("_", "-") not in NO_ENCODINGS:
                return value
        raise ValueError(f"data.format.encoding must be an encoding of text that Python knows, or auto, got {value!r}")


class Missing(Spec):
    """Which cells hold no value, and what a network is given in their place (found on the training rows)."""

    markers: Annotated[tuple[str, ...], Strict(False)] = Field(
        ("",), description="texts of a cell that mean no value, such as NA or ?; cells are stripped before"
    )
    numeric: Literal["median", "refuse"] | float = Field(
        "median", description="in numeric and date columns: the median of the training rows, this number, or an error"
    )
    indicator: bool = Field(True, description="one more input a numeric column with gaps, 1 where the value was missing")
    categorical: Literal["category", "refuse"] = Field(
        "category", description="in categorical and boolean columns: a category of its own, or an error"
    )
    target: Literal["refuse", "drop"] = Field("refuse", description="rows without a target: an error, or they are left out")


class Categories(Spec):
    """How categories become inputs: one each, 0 or 1. The rare ones, and those that no training row has, share one."""

    most: Annotated[int, Field(ge=2, le=10_000)] = Field(
        50, description="categories of a column that have an input of their own, the most frequent first"
    )
    least_rows: Count = Field(1, description="training rows that a category needs for an input of its own")


class Split(Spec):
    """Three disjoint parts: training rows fit, validation rows choose, test rows are opened by the test stage alone."""

    train: Fraction = Field(0.6, description="share of the rows that fit weights and preprocessing")
    valid: Fraction = Field(0.2, description="share of the rows that choose: early stopping, search")
    test: Fraction = Field(0.2, description="share of the rows kept for the number that is reported")
    seed: Seed = Field(0, description="of the split alone, so that runs of many seeds share their rows")
    stratify: bool | Literal["auto"] = Field("auto", description="keep the shares of the classes; auto: in classification")
    group: Text | None = Field(None, description="column whose equal values stay in one part; no input then")
    time: Text | None = Field(None, description="column that orders the rows: the earliest train, the latest test; no input then")
    part: Text | None = Field(None, description="column that says train, valid or test; no input then")
    folds: Annotated[int, Field(ge=2, le=100)] | None = Field(
        None, description="k: the rows that do not test are dealt into k folds, each validating one of k networks"
    )
    duplicates: Literal["together", "apart"] = Field(
        "together", description="rows that are equal in every column: in one part, or drawn like any other"
    )

    @model_validator(mode="after")
    def _whole(self) -> Split:
        total = self.train + self.valid + self.test
        if abs(total - 1) > 1e-9:
            sizes = f"{self.train} + {self.valid} + {self.test} = {total:.10g}"
            raise ValueError(f"train plus valid plus test must be 1, got {sizes}")
        ways = [name for name in ("group", "time", "part") if getattr(self, name)]
        if len(ways) > 1:
            raise ValueError(f"{ways[1]} must be null where {ways[0]} is given, got {getattr(self, ways[1])!r}; choose one")
        if self.folds and (self.time or self.part):
            way = "time" if self.time else "part"
            raise ValueError(f"folds must be null where {way} is given, got {self.folds}; it says which rows validate")
        if ways and self.stratify is True:
            raise ValueError(f"stratify must be auto or false where {ways[0]} is given, got true")
        return self


Kind = Literal["numeric", "categorical", "boolean", "datetime", "ignore"]
Mark = Literal["none", "comma", "point", "blank", "apostrophe"]


class Numbers(Spec):
    """How the numbers of a column are written."""

    thousands: Mark = Field("none", description="what stands between groups of three digits")
    decimal: Literal["point", "comma"] | None = Field(None, description="before the decimals; null: data.format.decimal")
    unit: Text | Annotated[tuple[Text, ...], Strict(False)] = Field(
        (), description="what may stand before or behind a number, such as $, EUR or %; a list, if several do"
    )
    accounting: bool = Field(False, description="are (5) and 5- less than 0?")
    missing: float | Annotated[tuple[float, ...], Strict(False)] = Field(
        (), description="numbers that mean no value, such as -200 or 999; a list, if several do"
    )

    @property
    def units(self) -> tuple[str, ...]:
        """unit as a list."""
        return (self.unit,) if isinstance(self.unit, str) else self.unit

    @property
    def gaps(self) -> tuple[float, ...]:
        """missing as a list."""
        return self.missing if isinstance(self.missing, tuple) else (self.missing,)

    @model_validator(mode="after")
    def _differ(self) -> Numbers:
        if self.thousands == self.decimal:
            raise ValueError(f"decimal must not be thousands, got {self.decimal} for both")
        return self


Day = Annotated[Text, BeforeValidator(lambda day: day.isoformat() if isinstance(day, date) else day)]
Part = Literal["day", "year", "month", "weekday", "hour"]


class Dates(Spec):
    """How the dates of a column are written, and what of them counts."""

    format: Text | Annotated[tuple[Text, ...], Strict(False)] = Field(
        (), description="as of strptime, such as %m/%d/%y; a list, if cells differ; none: as the cells show"
    )
    pivot: Annotated[int, Field(ge=0, le=99)] = Field(
        68, description="the last year of two digits that is 20..; those after it are 19.."
    )
    parts: Annotated[tuple[Part, ...], Strict(False), Field(min_length=1)] = Field(
        ("day",), description="what becomes an input each: day (since 1970-01-01), year, month, weekday (Monday is 0), hour"
    )
    missing: Day | Annotated[tuple[Day, ...], Strict(False)] = Field(
        (), description="dates that mean no value, such as 1900-01-01; a list, if several do"
    )

    @property
    def formats(self) -> tuple[str, ...]:
        """format as a list."""
        return (self.format,) if isinstance(self.format, str) else self.format

    @property
    def gaps(self) -> tuple[float, ...]:
        """missing as days since 1970-01-01 UTC."""
        texts = (self.missing,) if isinstance(self.missing, str) else self.missing
        return tuple(np.array(texts, "datetime64[ms]").astype(np.int64) / 86_400_000)

    @model_validator(mode="after")
    def _known(self) -> Dates:
        moment = datetime(2024, 5, 31, 12, 30, tzinfo=UTC)
        for one in self.formats:
            try:
                datetime.strptime(moment.strftime(one), one)
            except ValueError:
                raise ValueError(f"format must be one of strptime, such as %m/%d/%y, got {one!r}") from None
        try:
            _ = self.gaps
        except ValueError:
            raise ValueError(f"missing must be dates such as 1900-01-01, got {self.missing!r}") from None
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts must name each once, got {', '.join(self.parts)}")
        return self


class DataSpec(Spec):
    """Which rows, what is predicted from them, and how columns become numbers (with statistics of the training rows)."""

    source: Text | Files = Field(
        "digits",
        description=f"a bundled set ({', '.join(BUNDLED)}), the path of a file ({', '.join(FILES)}), openml:ID, or a file a "
        "part: {train: PATH, valid: PATH, test: PATH}",
    )
    target: Text | Annotated[tuple[Text, ...], Strict(False)] | None = Field(
        None, description="column or columns to predict; for files only, the bundled sets have their own"
    )
    weight: Text | None = Field(
        None, description="column that says how much a training row counts in the loss, at least 0, on any scale; no input then"
    )
    positive: Text | None = Field(
        None, description="of two classes: what f1, precision, recall and threshold are of; null: the second in order"
    )
    task: Literal["auto", "regression", "binary", "multiclass"] = Field("auto", description="auto: by the target's values")
    columns: dict[str, Kind] = Field(
        {},
        description="column, or a pattern such as id_*, -> what it holds; the others: as they look",
        json_schema_extra=BY_COLUMN,
    )
    numbers: dict[str, Numbers] = Field(
        {},
        description="column or pattern -> how its numbers are written, where not as 1234.5",
        json_schema_extra=BY_COLUMN,
    )
    dates: dict[str, Dates] = Field(
        {},
        description="column or pattern -> how its dates are written, and which parts of them are inputs",
        json_schema_extra=BY_COLUMN,
    )
    missing: Missing = Missing()
    categories: Categories = Categories()
    spellings: dict[str, dict[str, str]] = Field(
        {},
        description="column -> {what a cell says: what is meant}, before anything else is done with it",
        json_schema_extra=BY_COLUMN,
    )
    format: Format = Format()
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="of the file of openml:ID, which must have it"
    )
    split: Split = Split()
    scaling: Literal["none", "standardize", "minmax", "quantile"] = Field(
        "standardize", description="of numeric inputs; quantile maps to a normal distribution"
    )
    scale_target: bool = Field(True, description="regression: train on standardised targets; metrics keep the target's units")

    @field_validator("positive", mode="before", json_schema_input_type=Text | bool | int | None)
    @classmethod
    def _of_label(cls, value: object) -> object:
        """1 and true as classes have them."""
        return str(value).lower() if isinstance(value, bool | int) else value

    @property
    def shown_source(self) -> str:
        """The source in one word, for headlines and names."""
        return self.source if isinstance(self.source, str) else self.source.train

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of target."""
        return () if self.target is None else (self.target,) if isinstance(self.target, str) else self.target

    @property
    def paths(self) -> dict[str, str]:
        """part -> path of the files that come split; {"": path} of one file; empty for the bundled sets and OpenML."""
        if isinstance(self.source, Files):
            return {part: path for part in ("train", "valid", "test") if (path := getattr(self.source, part))}
        return {} if self.source in BUNDLED or self.source.startswith("openml:") else {"": self.source}

    @model_validator(mode="after")
    def _source_and_target(self) -> DataSpec:
        bundled = self.source in BUNDLED
        for name, how in self.numbers.items():
            if how.thousands == self.format.decimal and how.decimal is None:
                must = "must be given where thousands is data.format.decimal"
                raise ValueError(f"numbers.{name}.decimal {must}, got {how.thousands} for both")
        for part, path in self.paths.items():
            if not path.lower().endswith(FILES):
                hint = nearest(path, list(BUNDLED))
                near = f"; {hint}" if hint.startswith("did") else ""
                known = f"one of: {', '.join(BUNDLED)}, openml:ID, or the path of a file that ends in {', '.join(FILES)}"
                raise ValueError(f"source{f'.{part}' if part else ''} must be {known}, got {path!r}{near}")
        if isinstance(self.source, str) and self.source.startswith("openml:"):
            if not OPENML.fullmatch(self.source):
                raise ValueError(f"source must be openml:ID with the number of a data set, got {self.source!r}")
            if self.sha256 is None:
                raise ValueError(f"sha256 must be given for {self.source}, so that the rows stay the same, got nothing")
        elif self.sha256 is not None:
            raise ValueError(f"sha256 must be null, but for openml:ID; DVC hashes files. Got {self.sha256!r}")
        if bundled and self.target is not None:
            raise ValueError(f"target must be null for the bundled set {self.source}, which has its own, got {self.target!r}")
        if not bundled and not self.target:
            where = self.shown_source
            raise ValueError(f"target must name what to predict, a column of {where} or a list of them, got nothing")
        if self.weight and (bundled or self.weight in self.targets):
            raise ValueError(f"weight must be null for bundled sets, or name another column than the target, got {self.weight!r}")
        if isinstance(self.target, tuple) and len(set(self.target)) < len(self.target):
            raise ValueError(f"target must name each column once, got {', '.join(self.target)}")
        if isinstance(self.source, Files):
            split = self.split
            given = [(name, value) for name in ("group", "time", "part") if (value := getattr(split, name))]
            for name, value in given[:1]:
                raise ValueError(f"split.{name} must be null where source names a file a part, got {value!r}")
            if split.folds and self.source.valid:
                raise ValueError(f"split.folds must be null where source.valid is given, got {split.folds}; that file validates")
        return self


Aim = Annotated[dict[str, Fraction], Field(json_schema_extra={"x-key": "metric"})]


class Validation(Spec):
    """How a trained network decides, and what it is judged beside."""

    threshold: Literal["f1", "balanced_accuracy"] | Aim | Fraction = Field(
        HALF,
        description="of two classes: from which probability on a row is of the second; or by which aim that is chosen on the "
        "validation rows: the best f1 or balanced_accuracy, or {recall: 0.9}, {precision: 0.8}",
    )

    baselines: bool = Field(
        True, description="beside the majority class or the mean, a linear model and HistGradientBoosting, on the same rows"
    )

    @field_validator("threshold")
    @classmethod
    def _one_aim(cls, aim: str | float | dict[str, float]) -> str | float | dict[str, float]:
        if isinstance(aim, dict) and list(aim) not in (["recall"], ["precision"]):
            found = " and ".join(aim) or "none"
            raise ValueError(f"validation.threshold must name recall or precision, one of them, got {found}")
        return aim


class Threshold(Spec):
    """What a metric of the validation report must reach; the pipeline stops where it does not."""

    min: float | None = Field(None, description="the least that passes")
    max: float | None = Field(None, description="the most that passes")

    @model_validator(mode="after")
    def _passable(self) -> Threshold:
        if self.min is None and self.max is None:
            raise ValueError("min or max must be given, got neither")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min must be at most max, got {self.min} and {self.max}")
        return self


class Tracking(Spec):
    """Where runs are put on record: MLflow."""

    enabled: bool = Field(True, description="false: no run is recorded")
    uri: Text | None = Field(None, description="tracking server; null: a sqlite database inside the project")
    experiment: Text = Field("deltarule", description="the MLflow experiment that the runs stand under")
    tags: dict[str, str] = Field({}, description="name -> text, put on each run and study; no secrets")
    files: Annotated[tuple[Literal["mlflow", "onnx", "native"], ...], Strict(False)] = Field(
        ("mlflow", "onnx"),
        description="of the network, put on each run: mlflow, a model of raw rows; onnx; native, a file of the framework it was "
        "trained with, which takes 1 to 5 s",
    )

    @model_validator(mode="after")
    def _agrees(self) -> Tracking:
        if len(set(self.files)) < len(self.files):
            raise ValueError(f"files must name each kind once, got {', '.join(self.files)}")
        for name, text in self.tags.items():
            if not TAG.fullmatch(name):
                known = "letters, digits, blanks and _ . : -"
                taken = "mlflow. and deltarule. are taken"
                raise ValueError(f"tags must have names of {known}, and {taken}, got {name!r}")
            if redacted({name: text}) != {name: text}:
                raise ValueError(f"tags must hold no secret, since params.yaml is kept and shown; leave out {name}")
        if has_password(self.uri):
            of_http = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            known = of_http if self.uri[:4].lower() == "http" else "MLFLOW_TRACKING_URI"
            raise ValueError(f"uri must hold no password, since params.yaml is kept and shown; set {known} in the environment")
        return self
