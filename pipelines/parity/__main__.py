"""One process of a comparison: python -m pipelines.parity FOLDER NAME, where NAME is a backend's, or "recording".

Standard output carries progress, one line of JSON at a time; whatever a framework prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pipelines.parity.case import Case
from pipelines.parity.record import RECORDING, measure, record


def main(folder: str, name: str) -> None:
    """Measure, and leave NAME.json in the folder."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(share: float, what: str) -> None:
        print(json.dumps([share, what]), file=lines, flush=True)

    case = Case.load(Path(folder))
    if name == RECORDING:
        record(case, tell)
    else:
        measure(case, name, tell)


if __name__ == "__main__":
    main(*sys.argv[1:])
