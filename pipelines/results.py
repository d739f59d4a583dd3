"""The old place of `load_model`, which models that version 0.1 exported import."""

from pipelines.api.results import load_model

__all__ = ["load_model"]
