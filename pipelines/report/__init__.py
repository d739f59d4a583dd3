"""Drawings and the report of a run. The numbers are in the outs of the stages; a figure only shows them."""

from pipelines.report.figures import figures
from pipelines.report.run_report import run_page

__all__ = ["figures", "run_page"]
