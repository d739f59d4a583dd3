"""Where a project is: what relative places are resolved against, also when DVC runs a stage in a temporary copy."""

from __future__ import annotations

import os
from pathlib import Path


def project_of(root: Path) -> Path:
    """The project that a folder of runs belongs to: the nearest folder with a pipeline or DVC's repository, or itself.

    In DVC's temporary copies it is the folder that was copied, in the repository that DVC_ROOT names.
    """
    root = Path(root).resolve()
    above = (root, *root.parents)
    repository = next((folder for folder in above if (folder / ".dvc").is_dir()), None)
    # A run's folder has a spec and no pipeline, the folder of studies a pipeline and no spec.
    both = [folder for folder in above if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file()]
    project = next((folder for folder in above if folder == repository or folder in both), repository or root)
    if os.environ.get("DVC_ROOT"):
        place = project.relative_to(repository) if repository and project.is_relative_to(repository) else Path()
        return Path(os.environ["DVC_ROOT"]).resolve() / place
    return project
