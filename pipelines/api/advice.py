"""What errors say to do, for callers in Python, who have no command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = "`deltarule (split|train|validate)`"
WORDS = {  # what a command says -> what helps in Python
    "run `deltarule test` or `dvc repro` first": "deltarule.run(experiment, test=True) opens the test rows",
    rf"run ({STAGES}( or `dvc repro`)?|`dvc repro`)( first)?": "call deltarule.run(experiment, folder) with a new folder",
    rf"see {STAGES}": "see Run(folder).metrics",
    r"see deltarule study show (\S+)": r"see deltarule.open_study('\1', experiment).trials",
    "`deltarule (runs|run|search)( --json)?`": r"deltarule.\1()",
    r"(?<!\S)--name": "name",
}


@contextmanager
def in_python() -> Iterator[None]:
    """Errors that come of what is called name what can be called."""
    try:
        yield
    except Exception as error:
        if error.args and isinstance(error.args[0], str):
            text = error.args[0]
            for said, helps in WORDS.items():
                text = re.sub(said, helps, text)
            error.args = (text, *error.args[1:])
        raise
