"""The command `deltarule`, with the packages that lie beside this file: `pipelines` is a name that people use too.

Where PYTHONPATH names a folder with a `pipelines/`, `backends/` or `deltarule.py` of one's own, that folder comes after ours.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
OURS = ("pipelines", "backends", "deltarule.py")


def main() -> NoReturn:
    """Run the command, and leave with its exit code."""
    ours_first()
    from pipelines.cli import main as command

    command()


def ours_first() -> None:
    """Let imports find our packages before others of the same names.

    For exported models too, which servers load anywhere.
    """
    sys.path.sort(key=_has_another)  # stable: all else stays in its order
    if str(HERE) not in sys.path:  # an editable install, whose finder is asked last
        sys.path.insert(0, str(HERE))


def _has_another(place: str) -> bool:
    folder = Path(place)
    return any((folder / name).exists() for name in OURS) and folder.resolve() != HERE


if __name__ == "__main__":
    main()
