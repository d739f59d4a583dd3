"""The four stages as functions: each reads, calls, writes. `dvc.yaml`, `deltarule run` and notebooks call the same ones."""

from pipelines.stages.paths import HeldError, RunPaths, StageError
from pipelines.stages.split import split
from pipelines.stages.test import test
from pipelines.stages.train import train
from pipelines.stages.validate import ThresholdError, validate

__all__ = ["HeldError", "RunPaths", "StageError", "ThresholdError", "split", "test", "train", "validate"]
