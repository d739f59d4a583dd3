"""The block `search` of the spec: a study, what it varies, and the metrics that it may be judged by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from math import inf
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Discriminator, Field, Strict, Tag, model_validator

from backends.spec import Count, Seed, Spec
from pipelines.spec.blocks import Text, has_password
from pipelines.spec.describe import nearest, shown

Number = int | float
MOST_SEEDS = 10_000
Seeds = Annotated[int, Field(ge=1, le=MOST_SEEDS)]
Above0 = Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0)]


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
    return "Choices" if has else "Range"


Space = Annotated[Annotated[Range, Tag("Range")] | Annotated[Choices, Tag("Choices")], Discriminator(_range_or_choices)]


Direction = Literal["minimize", "maximize"]
Auto = Annotated[int, Field(ge=1)] | Literal["auto"]


class Metric(NamedTuple):
    """A metric of the validation rows: which way is better, what it can be, and which tasks or things it is of."""

    better: Direction
    least: float
    most: float
    # positive: of the second of two classes
    of: Literal["any", "classes", "positive", "numbers", "networks"]


# What a study may be judged by. stages/metrics.py computes them; several targets have "rmse.NAME" each.
METRICS = {
    "loss": Metric("minimize", 0, inf, "any"),
    "accuracy": Metric("maximize", 0, 1, "classes"),
    "balanced_accuracy": Metric("maximize", 0, 1, "classes"),
    "macro_f1": Metric("maximize", 0, 1, "classes"),
    "roc_auc": Metric("maximize", 0, 1, "classes"),
    "pr_auc": Metric("maximize", 0, 1, "classes"),
    "log_loss": Metric("minimize", 0, inf, "classes"),
    "brier": Metric("minimize", 0, 2, "classes"),
    "calibration_error": Metric("minimize", 0, 1, "classes"),
    "f1": Metric("maximize", 0, 1, "positive"),
    "precision": Metric("maximize", 0, 1, "positive"),
    "recall": Metric("maximize", 0, 1, "positive"),
    "rmse": Metric("minimize", 0, inf, "numbers"),
    "mae": Metric("minimize", 0, inf, "numbers"),
    "r2": Metric("maximize", -inf, 1, "numbers"),
    "weights": Metric("minimize", 1, inf, "networks"),
}
HIGHER_IS_BETTER = frozenset(name for name, metric in METRICS.items() if metric.better == "maximize")


def higher_is_better(metric: str) -> bool:
    """Whether more of it is better, also for one target of several."""
    return metric.partition(".")[0] in HIGHER_IS_BETTER


def check_metric(key: str, metric: str) -> None:
    """The test rows must not choose: raises ValueError for a metric of theirs."""
    if metric.lower().startswith("test"):
        raise ValueError(f"{key} must be a metric of the validation rows, got {metric!r}; the test rows must not choose")


def refused_metric(key: str, metric: str) -> str:
    """Why the value of `key` is no metric of the validation rows; empty if it may be one."""
    try:
        check_metric(key, metric)
    except ValueError as error:
        return str(error)
    known = [name for name in METRICS if name != "weights" or key == "metric"]
    if metric.partition(".")[0] in known:
        return ""
    return f"{key} must be a metric of the validation rows, got {metric!r}; {nearest(metric, known)}"


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
    seeds: Seeds = Field(1, description="networks a trial, of seeds seed, seed + 1, ...; its value is their mean")
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
        problems = [problem for metric in self.metrics if (problem := refused_metric("metric", metric))]
        problems = problems or list(self._of_metrics())
        if self.engine not in ("auto", "here", "processes") and not re.fullmatch(r"ray:\S+", self.engine):
            known = "one of: auto, here, processes, or ray:ADDRESS of a running cluster"
            problems.append(f"engine must be {known}, got {shown(self.engine)}")
        if self.storage is not None and not re.match(r"[a-z][a-z0-9+]*://", self.storage):
            known = "the URL of a database, such as postgresql+psycopg://HOST/NAME, or null"
            problems.append(f"storage must be {known}, got no URL")
        if has_password(self.storage):
            problems.append(
                "storage must hold no password, since params.yaml is kept and shown; set PGPASSWORD in the environment"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _of_metrics(self) -> Iterator[str]:
        """What is wrong with metrics that are known: together, and with their directions."""
        if repeated(self.metrics):
            yield f"metric must name each metric once, got {repeated(self.metrics)[0]} twice"
        if set(self.metrics) == {"weights"}:
            yield "metric must name a metric of the validation rows beside weights, got weights alone; it needs no training"
        if len(self.metrics) > 1 and self.pruner != "none":
            yield f"pruner must be none with several metrics, got {self.pruner}; which trial falls behind is not defined"
        if len(self.directions) != len(self.metrics):
            wanted = f"one for all metrics, or {len(self.metrics)}, one a metric"
            yield f"direction must be {wanted}, got {len(self.directions)}"
            return
        for metric, direction in zip(self.metrics, self.directions, strict=True):
            better = METRICS[metric.partition(".")[0]].better
            if direction != better:
                yield f"direction must be {better} for {metric}, got {direction}, which looks for the worst"
