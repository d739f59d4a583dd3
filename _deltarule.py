"""The command `deltarule`, with the packages that lie beside this file: `pipelines` is a name that people use too.

MLflow comes here too, for the files of a local store (an entry point in pyproject.toml).
Where PYTHONPATH names a folder with a `pipelines/`, `backends/` or `deltarule.py` of one's own, that folder comes after ours.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote

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


def artifacts(uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """`mlflow-artifacts:/PATH` of a database: below mlartifacts beside it, wherever it is moved."""
    import mlflow
    from mlflow.store.artifact import local_artifact_repo, mlflow_artifacts_repo

    store, place = tracking_uri or mlflow.get_tracking_uri(), uri.removeprefix("mlflow-artifacts:/")
    if not store.startswith("sqlite:///") or place.startswith("/"):  # the latter names a server
        return mlflow_artifacts_repo.MlflowArtifactsRepository(uri, tracking_uri, registry_uri)
    database = Path(unquote(store.removeprefix("sqlite:///"))).resolve(strict=True)  # else its folder would be made anew
    root = database.parent / "mlartifacts"
    if not (root / place).resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{uri} leads out of {root}")
    return local_artifact_repo.LocalArtifactRepository((root / place).as_uri())


def _has_another(place: str) -> bool:
    folder = Path(place)
    return any((folder / name).exists() for name in OURS) and folder.resolve() != HERE


if __name__ == "__main__":
    main()
