"""Figures, and pages that show them. The numbers are in the outs of the stages; a figure only draws them."""

from pipelines.report.run_report import figures, run_page

__all__ = ["figures", "run_page"]
