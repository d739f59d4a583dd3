"""Where the record is kept: a database in the project unless the spec or the environment names another store."""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from pipelines.redact import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from pipelines.spec import Tracking

# No retries: MLflow's client would send a create_run again whose answer was lost.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output belongs to `--json`
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_LIBRARIES = {"mlflow", "sqlalchemy", "requests", "urllib3", "alembic"}  # whose errors are a store's
_SHOWN_AS = {"mlflow.experimentKind": "custom_model_development"}  # not language models
DEFAULT = ".mlflow/mlflow.db"  # in the project
ARTIFACTS = "mlflow-artifacts:/"
SQLITE = "sqlite:///"
_LOCK_SECONDS = 60  # others hold the lock for a second or two each
_TURN_SECONDS = 180  # a run is a few seconds, most of them for its figures
_BUSY_SECONDS = 5
_A_PAGE = 1000
SENT_LATER = "the outs are untouched, the next `deltarule sync` sends it"


class TrackingError(RuntimeError):
    """The store could not be used; `reason`: without what it means for the caller."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class LookupFailed(TrackingError):
    """A text that names no run, or several."""

    exit_code = 2


class Busy(TrackingError):
    """Others have had the store for long."""


class Refused(TrackingError):
    """A journal that is not sent: it is for another store, or names files that are not its run's."""


@dataclass(frozen=True)
class Store:
    """An MLflow store: its absolute URI, the experiment in it, and the project that it belongs to."""

    uri: str
    experiment: str
    project: Path

    @property
    def database(self) -> Path | None:
        """The file of a sqlite store; None for any other."""
        return Path(unquote(self.uri.removeprefix(SQLITE))) if self.uri.startswith(SQLITE) else None

    @property
    def artifacts(self) -> str | None:
        """Where a sqlite store's artifacts stand, see _deltarule.artifacts; a server decides itself."""
        return ARTIFACTS if self.database else None

    @property
    def missing(self) -> bool:
        """Whether it is a database that is not there yet."""
        return self.database is not None and not self.database.exists()

    def __str__(self) -> str:
        return redact(self.uri)

    def lock(self, turn: bool = False) -> FileLock:
        """Held while a store is made or asked: two at once make one.

        The other one, with `turn`, while a run that is over is sent: two processes can have the same one.
        """
        seconds = _TURN_SECONDS if turn else _LOCK_SECONDS
        kind = "turn" if turn else "lock"
        path = self.database or self.project / ".deltarule" / "sync"
        if not self.project.is_dir():  # moved under way
            raise FileNotFoundError(f"{self.project} is no longer there")
        path.parent.mkdir(mode=0o777 if self.database else 0o700, parents=True, exist_ok=True)
        return FileLock(path.with_name(f"{path.name}.{kind}"), timeout=seconds)


def locate(tracking: Tracking, project: Path) -> Store:
    """The store of a project; the variables of MLflow stand above the spec."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or tracking.experiment
    return Store(absolute(uri, project), name, project)


def absolute(uri: str | None, project: Path) -> str:
    """A path becomes a sqlite URI (a folder holds mlflow.db), relative to the project."""
    uri = uri or DEFAULT
    scheme, colon, rest = uri.partition("://")
    if not colon:
        path = Path(uri).expanduser()
        path = path if path.suffix in {".db", ".sqlite", ".sqlite3"} else path / "mlflow.db"
    elif scheme == "sqlite":
        path = Path(unquote(rest.removeprefix("/")))
    elif scheme == "file":
        raise TrackingError(
            f"tracking.uri must be a database or a server, got {redact(uri)}: MLflow 3 refuses stores of plain files; "
            "leave it null, or set sqlite:///path/to/mlflow.db"
        )
    else:
        return uri
    return sqlite_uri((project / path).resolve())


def sqlite_uri(path: Path) -> str:
    """Of a database's file; a ? in it would begin a query."""
    return SQLITE + str(path).replace("%", "%25").replace("?", "%3F")


def remembered(tracking: Tracking) -> dict[str, str]:
    """What a run keeps of its store: where spec and environment have it now, without secrets."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri or ""
    return {"store": redact(uri), "experiment": os.environ.get("MLFLOW_EXPERIMENT_NAME") or tracking.experiment}


def store_of(head: Mapping[str, Any], tracking: Tracking, project: Path, here: bool = False) -> Store:
    """Today's store, in a journal's experiment. Unless `here`, Refused if the journal is for another.

    What a journal says of its store is never connected to.
    """
    kept, today = head["tracking"], locate(tracking, project)
    old = "store" not in kept  # until 0.1.0 journals knew nothing of the environment
    wanted = redact(absolute(kept.get("store", kept.get("uri")), project))
    if wanted != str(today) and not here and not (old and os.environ.get("MLFLOW_TRACKING_URI")):
        raise Refused(
            f"the run {head['name']!r} waits for the store {wanted}, and today's is {today}; set MLFLOW_TRACKING_URI to the "
            "whole address of the former, or send it to the latter: deltarule sync --here"
        )
    given = os.environ.get("MLFLOW_EXPERIMENT_NAME") if old else None
    return replace(today, experiment=given or kept.get("experiment", today.experiment))


def import_mlflow() -> None:
    """All that a sender needs of it; it takes seconds."""
    quiet()
    import mlflow.pyfunc
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def client_of(store: Store) -> MlflowClient:
    """MLflow's client."""
    quiet()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)


def quiet() -> None:
    """Import MLflow so that it writes nothing of its own."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow  # noqa: F401 - which sets the levels of its loggers

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)  # errors reach us as such; it writes their tracebacks too


def check(store: Store) -> None:
    """Raises sqlite3.Error soon if a database is locked or none: MLflow would wait 20 s."""
    if store.database is None or store.missing:
        return
    with closing(sqlite3.connect(store.database, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")


def connect(store: Store) -> tuple[MlflowClient, str]:
    """A client and the id of the experiment, made if it is missing. Call it with the store's lock held."""
    check(store)
    new = store.missing
    if store.database and new:
        _make(store.database)
    client = client_of(store)
    if new:  # mlflow.search_runs() looks into the first experiment
        client.rename_experiment("0", store.experiment)
        for name, value in _SHOWN_AS.items():
            client.set_experiment_tag("0", name, value)
    found = client.get_experiment_by_name(store.experiment)
    if found is None:
        return client, str(client.create_experiment(store.experiment, artifact_location=store.artifacts, tags=_SHOWN_AS))
    place = urlsplit(found.artifact_location)
    home = store.database.parent if store.database else Path()
    # Until 0.1.0 the files had an absolute place.
    old = Path(unquote(place.path)) if place.scheme in ("file", "") else home
    if old.parts[-2:] == (home.name, "artifacts") and old.parent != home:
        raise TrackingError(
            f"the files of experiment {store.experiment!r} are in {old}, from where the project was moved or copied; rename it "
            f"(MLFLOW_TRACKING_URI={store} mlflow experiments rename -x {found.experiment_id} --new-name NAME), and record "
            "its runs anew: deltarule sync --here"
        )
    if found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"experiment {store.experiment!r} was deleted in {store}; restore it with `mlflow experiments restore "
            f"-x {found.experiment_id}`, or set tracking.experiment to another name"
        )
    return client, str(found.experiment_id)


def get_run(client: MlflowClient, run_id: str) -> Run | None:
    """The run, deleted or not; None where the store holds none of this id, as after `mlflow gc`."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def search(client: MlflowClient, experiment_id: str, wanted: str, view: int = 1) -> Iterator[Run]:
    """All runs of an experiment that a filter means, page by page; view 3: deleted ones too."""
    token = None
    while True:
        page = client.search_runs([experiment_id], wanted, view, max_results=_A_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _make(database: Path) -> None:
    """It takes its name once it is whole: half made it could never be opened again."""
    quiet()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(dir=database.parent, prefix=f".{database.name}.") as scratch:
        made = Path(scratch) / database.name
        SqlAlchemyStore(sqlite_uri(made), ARTIFACTS)  # type: ignore[no-untyped-call]
        made.rename(database)
    if database.parts[-2:] == Path(DEFAULT).parts:
        # Where MLflow looks by itself.
        for name in (database.name, "mlartifacts"):
            with suppress(OSError):
                (database.parents[1] / name).symlink_to(f".mlflow/{name}")


@contextmanager
def answering(store: Store, doing: str, then: str = SENT_LATER) -> Iterator[None]:
    """Turn every way in which a store fails into one TrackingError, soon, without secrets."""
    try:
        with settings():
            yield
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if not isinstance(error, OSError | sqlite3.Error) and library not in _LIBRARIES:
            raise
        kind = Busy if isinstance(error, Timeout) else TrackingError
        first: BaseException = error
        while inner := first.__cause__ or first.__context__:  # it says most
            first = inner
        said = redact(" ".join(str(first).split()))[:300] or type(first).__name__
        if kind is Busy:
            said = f"another process has held its lock for {_LOCK_SECONDS} s"
        reason = f"the store {store} failed ({said})"
        # Not chained: the original message may hold the password of the URI.
        raise kind(f"{doing}: {reason}; {then}", reason) from None


@contextmanager
def settings() -> Iterator[None]:
    """How MLflow's client is to behave, where the user has not said otherwise."""
    missing = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
