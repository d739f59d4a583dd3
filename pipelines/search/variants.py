"""The rows of a study. A study may vary how they are scaled; each variant has a folder, with training and validation rows alone.

No test part is ever written here: what does not exist cannot be read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from pipelines.data import About, prepare, read
from pipelines.spec import Experiment

PARTS = ("train", "valid")


class Variant(NamedTuple):
    """A name that follows from the data block, where the rows are, and what is known about them."""

    name: str
    folder: Path
    about: About


class Variants:
    """Makes the rows of each data block once."""

    def __init__(self, folder: Path, base: Path) -> None:
        """`folder` of the study; a relative data.source starts at `base`."""
        self.folder, self.base = (folder / "data").resolve(), base  # workers may stand in other folders
        self._made: dict[str, Variant] = {}

    def of(self, experiment: Experiment) -> Variant:
        """The rows as this experiment wants them. Raises DataError for a source that cannot be used."""
        block = experiment.data.model_dump(mode="json")
        name = hashlib.sha256(json.dumps(block, sort_keys=True).encode()).hexdigest()[:12]
        if name not in self._made:
            place = self.folder / name
            about = prepare(read(experiment.data, self.base), experiment.data, place, PARTS)
            self._made[name] = Variant(name, place, about)
        return self._made[name]
