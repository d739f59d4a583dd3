"""Where a project is: what relative places are resolved against, also when DVC runs a stage in a temporary copy."""

from __future__ import annotations

import os
from pathlib import Path


def project_of(root: Path) -> Path:
    """The project that a folder of runs belongs to: DVC's repository (the parent, in its temporary copies), or itself."""
    if os.environ.get("DVC_ROOT"):
        return Path(os.environ["DVC_ROOT"]).resolve()
    root = Path(root).resolve()
    return next((folder for folder in (root, *root.parents) if (folder / ".dvc").is_dir()), root)
