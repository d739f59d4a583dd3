"""The blocks of the spec that no backend sees: data, thresholds, search, tracking. The others stand in backends/spec.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Strict, Tag, model_validator

from backends.spec import Count, Seed, Spec
from pipelines.spec.describe import nearest

BUNDLED = ("digits", "breast_cancer", "wine", "iris", "diabetes", "linnerud")
FILES = (".csv", ".parquet")


Fraction = Annotated[float, Field(gt=0, lt=1)]
Number = int | float
Text = Annotated[str, Field(min_length=1)]


class Split(Spec):
    """Three disjoint parts: training rows fit, validation rows choose, test rows are opened by the test stage alone."""

    train: Fraction = Field(0.6, description="share of the rows that fit weights and preprocessing")
    valid: Fraction = Field(0.2, description="share of the rows that choose: early stopping, search")
    test: Fraction = Field(0.2, description="share of the rows kept for the number that is reported")
    seed: Seed = Field(0, description="of the split alone, so that runs of many seeds share their rows")
    stratify: bool | Literal["auto"] = Field("auto", description="keep the shares of the classes; auto: in classification")

    @model_validator(mode="after")
    def _whole(self) -> Split:
        total = self.train + self.valid + self.test
        if abs(total - 1) > 1e-9:
            sizes = f"{self.train} + {self.valid} + {self.test} = {total:.10g}"
            raise ValueError(f"train plus valid plus test must be 1, got {sizes}")
        return self


class DataSpec(Spec):
    """Which rows, what is predicted from them, and how numbers are scaled (with statistics of the training rows)."""

    source: Text = Field("digits", description=f"a bundled set ({', '.join(BUNDLED)}), or the path of a .csv or .parquet file")
    target: Text | Annotated[tuple[Text, ...], Strict(False)] | None = Field(
        None, description="column or columns to predict; for files only, the bundled sets have their own"
    )
    task: Literal["auto", "regression", "binary", "multiclass"] = Field("auto", description="auto: by the target's values")
    split: Split = Split()
    scaling: Literal["none", "standardize", "minmax", "quantile"] = Field(
        "standardize", description="of numeric inputs; quantile maps to a normal distribution"
    )
    scale_target: bool = Field(True, description="regression: train on standardised targets; metrics keep the target's units")

    @model_validator(mode="after")
    def _source_and_target(self) -> DataSpec:
        bundled, file = self.source in BUNDLED, self.source.lower().endswith(FILES)
        if not (bundled or file):
            hint = nearest(self.source, list(BUNDLED))
            near = f"; {hint}" if hint.startswith("did") else ""
            known = f"one of: {', '.join(BUNDLED)}, or the path of a .csv or .parquet file"
            raise ValueError(f"source must be {known}, got {self.source!r}{near}")
        if bundled and self.target is not None:
            raise ValueError(f"target must be null for the bundled set {self.source}, which has its own, got {self.target!r}")
        if file and not self.target:
            raise ValueError(f"target must name what to predict, a column of {self.source} or a list of them, got nothing")
        if isinstance(self.target, tuple) and len(set(self.target)) < len(self.target):
            raise ValueError(f"target must name each column once, got {', '.join(self.target)}")
        return self


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


class Range(Spec):
    """All numbers from low to high; whole numbers where the key takes whole numbers."""

    low: Number = Field(description="the least value")
    high: Number = Field(description="the greatest value")
    log: bool = Field(False, description="draw log(value) evenly")

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must lie in (0, ∞) where log is true, got {self.low}")
        return self


class Choices(Spec):
    """One of these values."""

    choices: Annotated[tuple[Any, ...], Strict(False), Field(min_length=1, description="the values to choose from")]


def _range_or_choices(value: object) -> str:
    has = "choices" in value if isinstance(value, dict) else isinstance(value, Choices)
    return "choices" if has else "range"


Space = Annotated[Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_range_or_choices)]


def check_metric(key: str, metric: str) -> None:
    """The test rows must not choose: raises ValueError for a metric of theirs."""
    if metric.lower().startswith("test"):
        raise ValueError(f"{key} must be a metric of the validation rows, got {metric!r}; the test rows must not choose")


class Search(Spec):
    """A study: which keys vary over which values, and what is best. `deltarule search` reads it; nothing else does."""

    metric: Text = Field("loss", description="a metric of the validation rows; loss is E without penalty")
    direction: Literal["minimize", "maximize"] = "minimize"
    trials: Count = Field(50, description="how many experiments in all")
    seed: Seed = Field(0, description="of the sampler")
    space: dict[str, Space] = Field(
        {}, description="dotted path of the spec -> {low, high, log} or {choices}", json_schema_extra={"x-key": "path"}
    )

    @model_validator(mode="after")
    def _not_of_the_test_rows(self) -> Search:
        check_metric("metric", self.metric)
        return self


class Tracking(Spec):
    """Where runs are put on record: MLflow."""

    enabled: bool = Field(True, description="false: no run is recorded")
    uri: Text | None = Field(None, description="tracking server; null: a sqlite database inside the project")
    experiment: Text = Field("deltarule", description="the MLflow experiment that the runs stand under")
