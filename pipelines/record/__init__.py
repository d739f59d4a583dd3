"""Runs on record: the outs of the stages as events in a journal, figures and models, and all of it sent to MLflow.

Stages write outs and never come here: who calls them tells a `Recording` what happens.
"""

from pipelines.record.events import events
from pipelines.record.recording import Outcome, Recording

__all__ = ["Outcome", "Recording", "events"]
