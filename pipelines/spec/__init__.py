"""The experiment spec: what params.yaml holds. Read strictly, overridden, written out resolved, and fingerprinted.

Whatever changes a result stands here, and is checked before any framework is imported.
"""

from pipelines.spec.blocks import DataSpec, Split, Threshold, Tracking
from pipelines.spec.describe import SpecError
from pipelines.spec.experiment import Experiment, dump, dump_written, flat, load, models_schema, whole_spec
from pipelines.spec.identity import fingerprint, source_hash
from pipelines.spec.study import HIGHER_IS_BETTER, METRICS, Choices, Range, Search, higher_is_better
from pipelines.spec.to_trial import trial

__all__ = [
    "HIGHER_IS_BETTER",
    "METRICS",
    "Choices",
    "DataSpec",
    "Experiment",
    "Range",
    "Search",
    "SpecError",
    "Split",
    "Threshold",
    "Tracking",
    "dump",
    "dump_written",
    "fingerprint",
    "flat",
    "higher_is_better",
    "load",
    "models_schema",
    "source_hash",
    "trial",
    "whole_spec",
]
