"""A new MLflow database without MLflow, which takes 2.7 s of a core to be imported and to carry out its migrations; this 10 ms.

The tables, indexes and first rows stand in mlflow_3_17.sql as MLflow made them; a test holds the two equal. Where the installed
MLflow is at another revision of its tables, it makes the database itself.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pipelines.tracking.direct import now

SCHEMA = Path(__file__).with_name("mlflow_3_17.sql")
_REVISION = re.compile(r'^(down_)?revision = "(\w+)"', re.MULTILINE)
_MADE = re.compile(r"INSERT INTO \"alembic_version\" VALUES\('(\w+)'\)")


@cache
def known() -> bool:
    """Whether the installed MLflow wants its tables as they stand in SCHEMA."""
    found = find_spec("mlflow")
    folder = Path(next(iter(found.submodule_search_locations or ()), "")) if found else Path()
    return latest(folder / "store/db_migrations/versions") == _MADE.findall(SCHEMA.read_text(encoding="utf-8"))


def latest(migrations: Path) -> list[str]:
    """The revisions of a folder of Alembic's that no other one follows: the last, where all is well."""
    followed: set[str] = set()
    there: set[str] = set()
    for path in migrations.glob("*.py"):
        for before, revision in _REVISION.findall(path.read_text(encoding="utf-8")):
            (followed if before else there).add(revision)
    return sorted(there - followed)


def make(database: Path, folder: Path) -> None:
    """Write a database that is not there yet. `folder` is for artifacts of the experiment "Default", which nobody here uses."""
    made = now()
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(SCHEMA.read_text(encoding="utf-8"))
        default = (str(folder / "mlruns/0"), made, made)
        connection.execute("UPDATE experiments SET artifact_location = ?, creation_time = ?, last_update_time = ?", default)
        connection.commit()
