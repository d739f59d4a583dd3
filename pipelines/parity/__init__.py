"""Proof for a user's own spec and data that the installed backends train the same experiment as the reference.

Each backend is measured in a process of its own, and is told nothing but what crosses the border of a backend: the trial,
the training and validation rows, states of the reference. What "the same" means is the last section of THEORY.md:
verdict.py holds its numbers. The test rows are not opened.

    case.py      what is compared: the trial, the rows, how many steps; a folder that every process reads
    observe.py   what is looked at, on any backend
    record.py    the reference's own numbers, written once, and how far another's are from them
    verdict.py   which difference is allowed
    conduct.py   the processes
    show.py      progress and tables for people
"""

from pipelines.parity.conduct import parity
from pipelines.parity.verdict import Finding, Outcome, Report

__all__ = ["Finding", "Outcome", "Report", "parity"]
