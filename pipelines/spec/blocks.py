"""The blocks of the spec that no backend sees: data, thresholds, search, tracking. The others stand in backends/spec.py."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Strict, Tag, model_validator

from backends.spec import Count, Seed, Spec
from pipelines.spec.describe import nearest
from pipelines.spec.explain import shown

BUNDLED = ("digits", "breast_cancer", "wine", "iris", "diabetes", "linnerud")
DELIMITED = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
FILES = (*DELIMITED, ".parquet")
OPENML = re.compile(r"openml:[1-9][0-9]*")


Fraction = Annotated[float, Field(gt=0, lt=1)]
Number = int | float
Above0 = Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1)]


class Files(Spec):
    """Data that come split: a file for each part."""

    train: Text = Field(description="path of the rows that fit weights and preprocessing")
    valid: Text | None = Field(None, description="path of the rows that choose; null: a share of train, by data.split.valid")
    test: Text = Field(description="path of the rows for the number that is reported")

    @property
    def named(self) -> dict[str, str]:
        """part -> path, of those that there are."""
        return {part: path for part in ("train", "valid", "test") if (path := getattr(self, part))}


class Format(Spec):
    """How a delimited text file is written; auto: found out from the file."""

    delimiter: Literal["auto", "comma", "semicolon", "tab", "pipe", "space"] = Field(
        "auto", description="what stands between cells"
    )
    quote: Literal["double", "single", "none"] = Field(
        "double", description="what encloses a cell that holds a delimiter or a line end"
    )
    encoding: Text = Field("auto", description="of the text, such as utf-8, utf-16 or latin-1; auto: UTF-8 or UTF-16")
    header: bool | Literal["auto"] = Field("auto", description="does the first line name the columns? else: column_1, ...")
    decimal: Literal["point", "comma"] = Field("point", description="what stands before the decimals of a number")
    dates: Literal["auto", "day_first", "month_first"] = Field(
        "auto", description="how 03/04/2024 is meant; auto: by the cells of the column that leave no doubt"
    )


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
    task: Literal["auto", "regression", "binary", "multiclass"] = Field("auto", description="auto: by the target's values")
    columns: dict[str, Kind] = Field(
        {}, description="column, or a pattern such as id_*, -> what it holds; the others: as they look",
        json_schema_extra={"x-key": "column"},
    )  # fmt: skip
    missing: Missing = Missing()
    categories: Categories = Categories()
    spellings: dict[str, dict[str, str]] = Field(
        {}, description="column -> {what a cell says: what is meant}, before anything else is done with it",
        json_schema_extra={"x-key": "column"},
    )  # fmt: skip
    format: Format = Format()
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="of the file of openml:ID, which must have it"
    )
    split: Split = Split()
    scaling: Literal["none", "standardize", "minmax", "quantile"] = Field(
        "standardize", description="of numeric inputs; quantile maps to a normal distribution"
    )
    scale_target: bool = Field(True, description="regression: train on standardised targets; metrics keep the target's units")

    @property
    def shown_source(self) -> str:
        """The source in one word, for headlines and names."""
        return self.source if isinstance(self.source, str) else self.source.train

    @property
    def paths(self) -> dict[str, str]:
        """part -> path of the files that come split; {"": path} of one file; empty for the bundled sets and OpenML."""
        if isinstance(self.source, Files):
            return self.source.named
        return {} if self.source in BUNDLED or self.source.startswith("openml:") else {"": self.source}

    @model_validator(mode="after")
    def _source_and_target(self) -> DataSpec:
        bundled = self.source in BUNDLED
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
        if isinstance(self.target, tuple) and len(set(self.target)) < len(self.target):
            raise ValueError(f"target must name each column once, got {', '.join(self.target)}")
        if isinstance(self.source, Files):
            self._no_other_split()
        return self

    def _no_other_split(self) -> None:
        split = self.split
        given = [name for name in ("group", "time", "part") if getattr(split, name)]
        if given:
            raise ValueError(f"split.{given[0]} must be null where source names a file a part, got {getattr(split, given[0])!r}")
        if split.folds and isinstance(self.source, Files) and self.source.valid:
            raise ValueError(f"split.folds must be null where source.valid is given, got {split.folds}; that file validates")


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


When = Annotated[
    dict[str, Any] | None,
    Field(description="another path of the space -> its value, or a list of values: drawn only where the other was drawn so"),
]


class Range(Spec):
    """All numbers from low to high; whole numbers where the key takes whole numbers."""

    model_config = ConfigDict(serialize_by_alias=True)

    low: Number = Field(description="the least value")
    high: Number = Field(description="the greatest value")
    log: bool = Field(False, description="draw log(value) evenly")
    step: Above0 | None = Field(None, description="only low, low + step, ..., high; null: all")
    int: bool = Field(False, description="whole numbers alone, also where the key takes any")
    otherwise: Number | Annotated[tuple[Number | None, ...], Strict(False), Field(min_length=1)] | None = Field(
        None, alias="or", description="a value or several beside the range, such as an exact 0; [null] is the value null"
    )
    when: When = None

    @property
    def others(self) -> tuple[Number | None, ...]:
        """The values beside the range."""
        if self.otherwise is None:
            return ()
        return self.otherwise if isinstance(self.otherwise, tuple) else (self.otherwise,)

    @model_validator(mode="after")
    def _drawable(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must lie in (0, ∞) where log is true, got {self.low}")
        if repeated(self.others):
            raise ValueError(f"or must name each value once, got {shown(repeated(self.others)[0])} twice")
        _check_when(self.when)
        return self

    @model_validator(mode="after")
    def _whole_steps(self) -> Range:
        if self.int:
            for key, value in (("low", self.low), ("high", self.high), ("step", self.step)):
                if value is not None and value != round(value):
                    raise ValueError(f"{key} must be a whole number where int is true, got {value}")
        if self.step is None:
            return self
        if self.log:
            raise ValueError(f"step must be null where log is true, got {self.step}; leave one of the two out")
        if self.step > self.high - self.low:
            raise ValueError(f"step must be at most high - low, got {self.step} from {self.low} to {self.high}")
        if not self.holds(self.high):
            low, high, step = (Decimal(str(value)) for value in (self.low, self.high, self.step))
            raise ValueError(f"high must be low and whole steps of {step}, got {high}; {high - (high - low) % step} is")
        return self

    def holds(self, value: float) -> bool:
        """Is it one of the numbers that can be drawn? Steps are counted in decimals, as they are written: 0.3 is 3 · 0.1."""
        low, step = (Decimal(str(number)) for number in (self.low, self.step or 1))
        whole = self.step is None or not (Decimal(str(value)) - low) % step
        return whole and self.low <= value <= self.high


class Choices(Spec):
    """One of these values."""

    choices: Annotated[tuple[Any, ...], Strict(False), Field(min_length=1, description="the values to choose from")]
    when: When = None

    @model_validator(mode="after")
    def _drawable(self) -> Choices:
        if repeated(self.choices):
            raise ValueError(f"choices must name each value once, got {shown(repeated(self.choices)[0])} twice")
        _check_when(self.when)
        return self


def _check_when(when: dict[str, Any] | None) -> None:
    if when is not None and not when:
        raise ValueError("when must name a path of the space, got an empty mapping; leave it out")
    for path, values in (when or {}).items():
        if values == []:
            raise ValueError(f"when must name a value of {path}, or several, got an empty list")


def repeated(values: Sequence[Any]) -> list[Any]:
    """The values that stand earlier in the list already."""
    return [value for place, value in enumerate(values) if any(same(value, other) for other in values[:place])]


def same(one: object, other: object) -> bool:
    """1 is 1.0, and a list its tuple, but true is not 1."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _range_or_choices(value: object) -> str:
    has = "choices" in value if isinstance(value, dict) else isinstance(value, Choices)
    return "choices" if has else "range"


Space = Annotated[Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_range_or_choices)]


Direction = Literal["minimize", "maximize"]
Auto = Annotated[int, Field(ge=1)] | Literal["auto"]
# What a study may be judged by, and which way is better; stages/metrics.py computes them, several targets have "rmse.NAME" each.
METRICS: dict[str, Direction] = {
    **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "pr_auc", "r2"), "maximize"),
    **dict.fromkeys(("loss", "log_loss", "brier", "calibration_error", "rmse", "mae", "weights"), "minimize"),
}
HIGHER_IS_BETTER = frozenset(name for name, direction in METRICS.items() if direction == "maximize")


def higher_is_better(metric: str) -> bool:
    """Whether more of it is better, also for one target of several."""
    return metric.partition(".")[0] in HIGHER_IS_BETTER


def check_metric(key: str, metric: str) -> None:
    """The test rows must not choose: raises ValueError for a metric of theirs."""
    if metric.lower().startswith("test"):
        raise ValueError(f"{key} must be a metric of the validation rows, got {metric!r}; the test rows must not choose")


class Search(Spec):
    """A study: which keys vary over which values, and what is best. `deltarule search` reads it; nothing else does."""

    metric: Text | Annotated[tuple[Text, ...], Strict(False), Field(min_length=1)] = Field(
        "loss", description="a metric of the validation rows at the best epoch (loss is E without penalty), or several; then "
        "`weights`, how many numbers the network has, may be one"
    )  # fmt: skip
    direction: Direction | Annotated[tuple[Direction, ...], Strict(False), Field(min_length=1)] = Field(
        "minimize", description="which value is best: one for all metrics, or one a metric"
    )
    trials: Count = Field(50, description="how many experiments in all")
    sampler: Literal["tpe", "random", "grid", "qmc", "gp"] = Field(
        "tpe", description="how values are drawn: by what did well (tpe, gp), evenly (random, qmc), or all of them (grid)"
    )
    pruner: Literal["none", "median", "halving", "hyperband"] = Field("none", description="ends trials that fall behind")
    rung: Auto = Field("auto", description="epochs between two looks of the pruner; auto: a tenth of train.epochs")
    generation: Annotated[int, Field(ge=1, le=4096)] = Field(
        16, description="trials drawn together; the next are drawn once all of these have ended"
    )
    width: Auto = Field("auto", description="networks trained as one stack, at most; changes no trial")
    seeds: Count = Field(1, description="networks a trial, of seeds seed, seed + 1, ...; its value is their mean")
    trial_seeds: Literal["same", "own"] = Field(
        "same", description="same: every trial starts from the spec's seed, so that only what is searched tells them apart; own: "
        "each from one of its own, so that the best is also the luckiest"
    )  # fmt: skip
    timeout: Annotated[float, Field(gt=0)] | None = Field(None, description="seconds after which no generation is begun")
    seed: Seed = Field(0, description="of the sampler")
    engine: Text = Field("auto", description="where trials are computed: auto, here, processes, or ray:ADDRESS of a cluster")
    workers: Auto = Field("auto", description="processes that compute; auto: one a core")
    storage: Text | None = Field(
        None, description="database for Optuna's record, such as postgresql+psycopg://HOST/NAME; null: a file of the study"
    )
    space: dict[str, Space] = Field(
        {}, description="dotted path of the spec -> {low, high, log} or {choices}", json_schema_extra={"x-key": "path"}
    )

    @property
    def metrics(self) -> tuple[str, ...]:
        """What a trial is judged by, one or several."""
        return self.metric if isinstance(self.metric, tuple) else (self.metric,)

    @property
    def directions(self) -> tuple[str, ...]:
        """ "minimize" or "maximize", one a metric."""
        return self.direction if isinstance(self.direction, tuple) else (self.direction,) * len(self.metrics)

    @model_validator(mode="after")
    def _agrees(self) -> Search:
        problems = [line for metric in self.metrics for line in _refused_metric(metric)]
        problems = problems or [*self._several(), *self._directions()]
        problems += [*self._places()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _several(self) -> Iterator[str]:
        if repeated(self.metrics):
            yield f"metric must name each metric once, got {repeated(self.metrics)[0]} twice"
        if set(self.metrics) == {"weights"}:
            yield "metric must name a metric of the validation rows beside weights, got weights alone; it needs no training"
        if len(self.metrics) > 1 and self.pruner != "none":
            yield f"pruner must be none with several metrics, got {self.pruner}; which trial falls behind is not defined"

    def _directions(self) -> Iterator[str]:
        given, wanted = len(self.directions), len(self.metrics)
        if given != wanted:
            yield f"direction must be one for all metrics, or {wanted}, one a metric, got {given}"
            return
        for metric, direction in zip(self.metrics, self.directions, strict=True):
            better = METRICS[metric.partition(".")[0]]
            if direction != better:
                yield f"direction must be {better} for {metric}, got {direction}, which looks for the worst"

    def _places(self) -> Iterator[str]:
        engine = self.engine
        if engine not in ("auto", "here", "processes") and not re.fullmatch(r"ray:\S+", engine):
            yield f"engine must be one of: auto, here, processes, or ray:ADDRESS of a running cluster, got {shown(engine)}"
        if self.storage is not None and not re.match(r"[a-z][a-z0-9+]*://", self.storage):
            yield "storage must be the URL of a database, such as postgresql+psycopg://HOST/NAME, or null, got no URL"

    def check_seeds(self, first: int) -> None:
        """The networks of a trial have seeds first, first + 1, ...: raises ValueError where they run out."""
        if first + self.seeds > 2**32:
            raise ValueError(f"seeds must be at most {2**32 - first}, of seed {first} and those after it, got {self.seeds}")


def _refused_metric(metric: str) -> list[str]:
    try:
        check_metric("metric", metric)
    except ValueError as error:
        return [str(error)]
    if metric.partition(".")[0] in METRICS:
        return []
    hint = nearest(metric, list(METRICS))
    return [f"metric must be a metric of the validation rows, got {metric!r}; {hint}"]


class Tracking(Spec):
    """Where runs are put on record: MLflow."""

    enabled: bool = Field(True, description="false: no run is recorded")
    uri: Text | None = Field(None, description="tracking server; null: a sqlite database inside the project")
    experiment: Text = Field("deltarule", description="the MLflow experiment that the runs stand under")
    files: Annotated[tuple[Literal["mlflow", "onnx", "native"], ...], Strict(False)] = Field(
        ("mlflow", "onnx"),
        description="of the network, put on each run: mlflow, a model of raw rows; onnx; native, a file of the framework it was "
        "trained with, which takes 1 to 5 s",
    )

    @model_validator(mode="after")
    def _each_once(self) -> Tracking:
        if len(set(self.files)) < len(self.files):
            raise ValueError(f"files must name each kind once, got {', '.join(self.files)}")
        return self
