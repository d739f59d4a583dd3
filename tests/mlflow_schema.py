"""A database as MLflow makes it, as SQL: what pipelines/tracking/mlflow_3_17.sql holds.

After an update of MLflow: python tests/mlflow_schema.py > pipelines/tracking/mlflow_3_17.sql
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path


def made_by_mlflow(database: Path) -> str:
    """Have MLflow make it; what it then holds."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{database}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
    return dump(database)


def dump(database: Path) -> str:
    """Tables, indexes and rows; times and places are set to nothing."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE experiments SET artifact_location = '', creation_time = 0, last_update_time = 0")
        statements = [statement for statement in connection.iterdump() if statement not in ("BEGIN TRANSACTION;", "COMMIT;")]
    statements.sort(key=lambda text: (not text.startswith("CREATE TABLE"), text))  # MLflow makes indexes in no fixed order
    lines = (line.rstrip() for statement in statements for line in statement.splitlines())
    return "\n".join(["BEGIN;", *lines, "COMMIT;"]) + "\n"


def parts(sql: str) -> list[str]:
    """What two dumps are compared by: MLflow names the constraints of a table in another order each time."""
    return sorted(line.strip().rstrip(",") for line in sql.splitlines())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(made_by_mlflow(Path(scratch) / "mlflow.db"))
