"""Figures, and pages that show them. The numbers are in the outs of the stages; a figure only draws them."""

from pipelines.report.run_report import figures, learning_curves, run_cell, run_page

__all__ = ["figures", "learning_curves", "run_cell", "run_page"]
