"""Drawings of a run. The numbers are in the outs of the stages; a figure only shows them."""

from pipelines.report.figures import figures

__all__ = ["figures"]
