"""What a backend must understand: network, regularization, optimizer, schedule, stopping. docs/theory.md gives the meanings.

A `Trial` is one experiment as a backend sees it: these blocks plus the seed and the shape of the data. Every value is
checked here, so that a backend meets only values that make sense.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

NDArray = np.ndarray[Any, np.dtype[Any]]
Parameters = dict[str, NDArray]  # of one layer, by name
Task = Literal["regression", "binary", "multiclass"]
Storage = Literal["float32", "float64"]
Precision = Literal["float32", "float64", "bf16-mixed", "16-mixed"]
ActivationName = Literal["sigmoid", "tanh", "relu", "leaky_relu", "identity", "elu", "selu", "gelu", "silu", "softplus"]
InitializerName = Literal["auto", "glorot_uniform", "he_uniform", "he_uniform_leaky", "lecun_uniform", "torch_uniform"]

Units = Annotated[int, Field(ge=1, le=1_000_000)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Probability = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Probabilities = Probability | Annotated[tuple[Probability, ...], Strict(False)]
ClassWeights = Annotated[dict[str, Positive], Field(json_schema_extra={"x-key": "label"})]
Beta1 = Annotated[float, Field(ge=0, lt=1, description="decay of the mean of g")]
Beta2 = Annotated[float, Field(ge=0, lt=1, description="decay of the mean of g²")]
Epsilon = Annotated[float, Field(gt=0, description="ε, added after bias correction (rmsprop: outside the root)")]
Warmup = Annotated[int, Field(ge=0, description="steps over which η rises linearly: η(t+1)/warmup")]
Penalties = NonNegative | Annotated[tuple[NonNegative, ...], Strict(False)]


class Spec(BaseModel):
    """Strict and frozen: no unknown keys, no coercion, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)


class Model(Spec):
    """The network: hidden layers of neurons, their activation, and the noise that regularises them."""

    hidden: Annotated[tuple[Units, ...], Strict(False)] = Field((128, 64), description="units of each hidden layer")
    activation: ActivationName = Field("relu", description="activation of every hidden layer")
    slope: NonNegative = Field(0.01, description="a of leaky_relu, the slope left of 0")
    dropout: Probabilities = Field(
        0.0, description="probability that a hidden unit is dropped: one number, or one a hidden layer"
    )
    input_dropout: Probability = Field(0.0, description="probability that an input is dropped")
    initializer: InitializerName = Field(
        "auto",
        description="auto: He for the relu family, Glorot for the others and for the output layer; torch_uniform: ±1/√inputs, "
        "as the weights of torch.nn.Linear start, for all layers",
    )

    @model_validator(mode="after")
    def _one_dropout_a_layer(self) -> Model:
        if isinstance(self.dropout, tuple) and len(self.dropout) != len(self.hidden):
            raise ValueError(f"dropout must be one number or {len(self.hidden)}, one a hidden layer, got {len(self.dropout)}")
        return self


class Regularization(Spec):
    """The objective is E + l1·Σ|W| + l2·ΣW², on weight matrices only. Not weight decay, which AdamW has."""

    l1: Penalties = Field(0.0, description="λ1: one number, or one a layer (hidden + 1 of them)")
    l2: Penalties = Field(0.0, description="λ2: one number, or one a layer (hidden + 1 of them)")


class SGD(Spec):
    """v ← μv + g, θ ← θ - ηv; Nesterov: θ ← θ - η(g + μv)."""

    name: Literal["sgd"] = Field(description="the kind of optimizer; each has options of its own")
    learning_rate: Positive = Field(0.01, description="η")
    momentum: Momentum = Field(0.0, description="μ")
    nesterov: bool = Field(False, description="θ ← θ - η(g + μv), with v already updated")


class Adam(Spec):
    """Kingma & Ba (2015), Algorithm 1; ε is added after bias correction."""

    name: Literal["adam"] = Field(description="the kind of optimizer; each has options of its own")
    learning_rate: Positive = Field(1e-3, description="η")
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    epsilon: Epsilon = 1e-8


class AdamW(Adam):
    """Adam that also subtracts η·weight_decay·θ (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = Field(description="the kind of optimizer; each has options of its own")  # type: ignore[assignment]
    weight_decay: NonNegative = Field(0.01, description="decoupled: η·weight_decay·θ is subtracted. It is not regularization.l2")


class RMSprop(Spec):
    """s ← ρs + (1-ρ)g², θ ← θ - ηg/(√s + ε)."""

    name: Literal["rmsprop"] = Field(description="the kind of optimizer; each has options of its own")
    learning_rate: Positive = Field(1e-3, description="η")
    rho: Momentum = Field(0.99, description="ρ, decay of the mean of g²")
    epsilon: Epsilon = 1e-8


Optimizer = Annotated[SGD | Adam | AdamW | RMSprop, Field(discriminator="name")]


class Constant(Spec):
    """η after the warm-up is the optimizer's learning rate."""

    name: Literal["constant"] = Field(description="how η goes on after the warm-up")
    warmup: Warmup = 0


class Step(Spec):
    """η is multiplied by `factor` every `every` epochs, counted from the end of the warm-up."""

    name: Literal["step"] = Field(description="how η goes on after the warm-up")
    warmup: Warmup = 0
    every: Count = Field(10, description="epochs between two falls")
    factor: Annotated[float, Field(gt=0, le=1, description="what η is multiplied by at each fall")] = 0.5


class Cosine(Spec):
    """η falls to 0 along half a cosine over epochs·⌈n/B⌉ - warmup steps."""

    name: Literal["cosine"] = Field(description="how η goes on after the warm-up")
    warmup: Warmup = 0


Schedule = Annotated[Constant | Step | Cosine, Field(discriminator="name")]


class EarlyStopping(Spec):
    """Which epoch is the best one, and after how many epochs without a better one a run stops."""

    monitor: str = Field("loss", description="validation E without penalty (loss), or a metric")
    patience: Count | None = Field(None, description="epochs without a strictly better one; null never stops")


class Train(Spec):
    """How the network is trained, and on what."""

    backend: str = Field("lightning", description="a name that `deltarule backends` lists")
    optimizer: Optimizer = Adam(name="adam")
    schedule: Schedule = Constant(name="constant")
    epochs: Count = Field(30, description="passes over the training rows, at most")
    batch_size: Count = Field(32, description="rows of an optimizer step; the last batch of an epoch may be smaller")
    class_weights: Literal["none", "balanced"] | ClassWeights = Field(
        "none", description="of the classes in the training loss: balanced makes each class weigh the same; or label -> weight"
    )
    clip_norm: Positive | None = Field(None, description="c: g·min(1, c/‖g‖) over all weights and biases of a trial")
    early_stopping: EarlyStopping = EarlyStopping()
    precision: Precision = Field(
        "float32",
        description="of weights and arithmetic; reported sums are float64 always. -mixed: products in 16 bits, else float32",
    )
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="how many devices to train on; auto: one, a GPU if there is one"
    )
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = Field("auto", description="auto: by the size of the work")


@dataclass(frozen=True)
class Dense:
    """A layer kind names its parameters and their shapes, and computes one network's in NumPy; frameworks have tables of kinds.

    Shapes: y (B, inputs), v and δ (B, outputs), the weight (inputs, outputs), the bias (outputs,).
    """

    inputs: int  # fan_in, which the initializers need
    outputs: int  # fan_out
    kind: Literal["dense"] = "dense"
    penalised = frozenset({"weight"})  # on which L1 and L2 act, and which are drawn at random; the others start at 0

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, in the order in which they are stored."""
        return {"weight": (self.inputs, self.outputs), "bias": (self.outputs,)}

    def forward(self, y: NDArray, parameters: Parameters) -> NDArray:
        """v_j = Σ_i w_ji y_i + b_j."""
        return y @ parameters["weight"] + parameters["bias"]

    def backward(self, delta: NDArray, y: NDArray, parameters: Parameters, w: NDArray | None) -> tuple[NDArray, Parameters]:
        """Σ_k δ_k w_kj, and Δw_ji / η = δ_j y_i as a mean over the B rows, each times the weight of its class, w (B,)."""
        weighed = delta if w is None else w[:, None] * delta
        return delta @ parameters["weight"].T, {"weight": y.T @ weighed / len(y), "bias": weighed.mean(axis=0)}


Layer = Dense


def _absent(value: object) -> bool:
    """What a trial may have besides is written where it has it, so that the files of all others stay as they are."""
    return value is None


class Trial(Spec):
    """One experiment as a backend sees it."""

    seed: Seed
    fold: Count | None = Field(
        None, exclude_if=_absent, description="number of the fold whose rows it trains on; null: there are none"
    )
    task: Task
    inputs: Units
    outputs: Units
    model: Model = Model()
    regularization: Regularization = Regularization()
    train: Train = Train()
    class_weights: Annotated[tuple[Positive, ...], Strict(False)] | None = Field(
        None, exclude_if=_absent, description="w_c of each class, mean 1 over the training rows; null: all 1"
    )

    @model_validator(mode="after")
    def _shapes_agree(self) -> Trial:
        for name in ("l1", "l2"):
            check_penalties(name, getattr(self.regularization, name), self.model)
        if self.task == "binary" and self.outputs != 1:
            raise ValueError(f"outputs must be 1 for a binary task (one logit), got {self.outputs}")
        if self.task == "multiclass" and self.outputs < 2:
            raise ValueError(f"outputs must be the number of classes, at least 2, got {self.outputs}")
        if self.class_weights is not None and len(self.class_weights) != self.classes:
            raise ValueError(f"class_weights must be {self.classes}, one a class, got {len(self.class_weights)}")
        if self.class_weights is None and self.train.class_weights != "none":
            raise ValueError(f"class_weights must be given as numbers where train.class_weights is {self.train.class_weights!r}")
        return self

    @property
    def classes(self) -> int:
        """How many there are; 0 in regression."""
        return {"regression": 0, "binary": 2, "multiclass": self.outputs}[self.task]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Hidden layers and the output layer."""
        sizes = (self.inputs, *self.model.hidden, self.outputs)
        return tuple(Dense(i, o) for i, o in pairwise(sizes))

    @cached_property
    def l1(self) -> tuple[float, ...]:
        """λ1 of each layer."""
        return _one_a_layer(self.regularization.l1, len(self.layers))

    @cached_property
    def l2(self) -> tuple[float, ...]:
        """λ2 of each layer."""
        return _one_a_layer(self.regularization.l2, len(self.layers))

    @cached_property
    def dropout(self) -> tuple[float, ...]:
        """p at each place where noise enters: the inputs, then the outputs of each hidden layer."""
        return (self.model.input_dropout, *_one_a_layer(self.model.dropout, len(self.model.hidden)))

    def structure(self) -> tuple[object, ...]:
        """What trials must share to train as one stack; all else is free, one value a trial."""
        train, optimizer = self.train, self.train.optimizer
        free = {"learning_rate", "momentum", "weight_decay"}
        return (
            self.task,
            self.layers,
            tuple(sorted((k, v) for k, v in optimizer.model_dump().items() if k not in free)),
            train.batch_size,
            train.precision,
            train.clip_norm is None,
        )


def storage(precision: Precision) -> Storage:
    """The type of weights, and of all but the products: mixed precision multiplies in 16 bits and keeps float32."""
    return "float64" if precision == "float64" else "float32"


def check_penalties(name: str, value: float | tuple[float, ...], model: Model) -> None:
    """λ is one number or hidden + 1; raises ValueError otherwise."""
    layers = len(model.hidden) + 1
    if isinstance(value, tuple) and len(value) != layers:
        raise ValueError(f"{name} must be one number or {layers}, one a layer (hidden + 1), got {len(value)}")


def learning_rates(trial: Trial, steps: NDArray, rows: int) -> NDArray:
    """η at the optimizer steps t (from 0) of a run over `rows` training rows, float64. docs/theory.md, "Schedule"."""
    schedule, peak = trial.train.schedule, trial.train.optimizer.learning_rate
    since, epoch_steps = steps - schedule.warmup, math.ceil(rows / trial.train.batch_size)
    if isinstance(schedule, Step):
        after = peak * schedule.factor ** (since // (schedule.every * epoch_steps))
    elif isinstance(schedule, Cosine):
        span = max(1, trial.train.epochs * epoch_steps - schedule.warmup)
        after = peak * 0.5 * (1 + np.cos(np.pi * np.minimum(since, span) / span))
    else:
        after = np.full(steps.shape, peak)
    return np.where(since < 0, peak * (steps + 1) / max(1, schedule.warmup), after)


def _one_a_layer(value: float | tuple[float, ...], layers: int) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,) * layers
