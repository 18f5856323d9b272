"""The MLflow store: chooses, opens, creates and upgrades it."""

import hashlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlparse

from filelock import FileLock

from spectralgru.errors import RunError
from spectralgru.files import private_folder
from spectralgru.pipeline.redaction import without_secrets

DEFAULT_URI = "sqlite:///mlflow.db"
OPENED: set[str] = set()  # SQLite files that this process has opened
PREFIX = "spectralgru/"  # of the names of experiments
# No telemetry, and an unreachable server is an error within seconds, not minutes.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "PGCONNECT_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
KIND = {"mlflow.experimentKind": "custom_model_development"}  # otherwise MLflow opens its pages for chat bots
# Where MLflow keeps absolute paths of artifacts.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def tracking_uri(uri: str | None = None) -> str:
    """The store to use: `uri`, else MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def open_store(uri: str | None = None) -> Any:
    """An `MlflowClient` of the store, whose database is created or upgraded here and nowhere else.

    A lock keeps several processes from creating the tables of a new database at once, which would break it. An old
    SQLite file is copied to `<file>.backup` before it is upgraded. Raises RunError if the store cannot be opened.
    """
    uri = tracking_uri(uri)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import sqlalchemy
    from mlflow.tracking import MlflowClient

    if path := sqlite_path(uri):
        OPENED.add(str(path.resolve()))
        if not sqlalchemy.event.contains(sqlalchemy.Engine, "connect", _do_not_wait):
            sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _do_not_wait)
    try:
        with exclusive(uri):
            if path:
                _prepare(path, uri)
            elif artifact_root(uri):
                sqlalchemy.create_engine(uri).connect().close()  # MLflow would retry for minutes
            client = MlflowClient(uri, registry_uri=uri)
            client.search_experiments(max_results=1)  # creating the client changes nothing
            if path:
                _relocate(path)
            return client
    except Exception as error:  # any error of the store's driver
        raise RunError(
            f"{without_secrets(uri)}: MLflow store cannot be opened ({first_line(error, uri)}); start the server, "
            "name another store in MLFLOW_TRACKING_URI, or move the broken file away; then track again, "
            "the runs are in their directories"
        ) from error


@contextmanager
def exclusive(uri: str, root: Path | None = None) -> Iterator[None]:
    """Allow one process at a time on a SQLite store; on any other, on the results `root` or, without one, on its
    tables.

    Servers accept many writers, but two that import the same directories at once would create every run twice.
    """
    path = sqlite_path(uri)
    if path:
        lock = path.with_name(path.name + ".lock")
    elif root or artifact_root(uri):
        name = hashlib.sha256(f"{uri} {root and root.resolve()}".encode()).hexdigest()[:16]
        folder = private_folder(Path(tempfile.gettempdir()) / f"spectralgru-tracking-{os.geteuid()}")
        lock = folder / f"{name}.lock"
    else:
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite store."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def artifact_root(uri: str) -> Path | None:
    """Folder of the artifacts: beside a SQLite file, or in the working directory; None: a server decides."""
    if "://" not in uri or uri.startswith(("http:", "https:", "databricks:", "file:")):
        return None
    path = sqlite_path(uri)
    return ((path.parent if path else Path()) / "mlartifacts").resolve()


def find_experiment(client: Any, uri: str, scale: str, corpus: str) -> str:
    """Id of a corpus' experiment, created if missing. Raises RunError if its artifacts cannot be reached."""
    from mlflow.entities import LifecycleStage
    from mlflow.exceptions import MlflowException

    name = f"{PREFIX}{scale}/{corpus}"
    about = f"Every setting trained on {corpus} at scale {scale}, and below each its seeds; `results` has the figures."
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        folder = artifact_root(uri)
        location = folder / name if folder else None
        try:
            tags = {"mlflow.note.content": about, "scale": scale, "corpus": corpus, **KIND}
            return str(client.create_experiment(name, location and location.as_uri(), tags))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another process was faster
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        client.restore_experiment(experiment.experiment_id)
    for key, value in KIND.items():
        if key not in experiment.tags:
            client.set_experiment_tag(experiment.experiment_id, key, value)
    place = local_folder(experiment.artifact_location.removesuffix(f"/{name}"))
    if place and place.name == "mlartifacts" and not place.parent.is_dir():
        raise RunError(
            f"experiment {name}: its artifacts are kept in {place}, which is not on this machine or was moved; bring "
            "the folder back, or let a server keep them (docs/tracking.md)"
        )
    return str(experiment.experiment_id)


def local_folder(uri: str) -> Path | None:
    """The local folder that an address of artifacts names; None for any other address."""
    place = urlparse(uri)
    return Path(unquote(place.path)) if place.scheme in ("", "file") else None


def first_line(error: BaseException, uri: str) -> str:
    """The message of an exception about a store, without its trace and without secrets."""
    return without_secrets((str(error).strip() or repr(error)).splitlines()[0], uri)


def _prepare(path: Path, uri: str) -> None:
    """Check the file (MLflow would retry a broken one for minutes) and bring an old one to this version's tables."""
    import mlflow
    from alembic.script import ScriptDirectory

    fresh = not path.exists()
    with closing(sqlite3.connect(path, timeout=20)) as database:
        if fresh:  # with it imports take half the time, and readers do not wait
            database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        database.rollback()
        known = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        version = database.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
        newest = ScriptDirectory(str(Path(mlflow.__path__[0]) / "store" / "db_migrations")).get_current_head()
        if version in (None, (newest,)):
            return
        with closing(sqlite3.connect(path.with_name(path.name + ".backup"))) as backup:
            database.backup(backup)
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", uri]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"mlflow db upgrade: {(done.stderr.strip() or 'failed').splitlines()[-1]}")


def _relocate(path: Path) -> None:
    """Correct the paths of artifacts after a database was moved or copied with its folder.

    MLflow keeps absolute paths and cannot change them. Importing 1,000 runs again would take a minute, change their ids
    and lose the notes that people made in the browser; this takes milliseconds.
    """
    new = (path.parent / "mlartifacts").resolve().as_uri()
    query = f"SELECT DISTINCT name, artifact_location FROM experiments WHERE name LIKE '{PREFIX}%'"
    with closing(sqlite3.connect(path, timeout=20)) as database, database:
        for name, location in database.execute(query).fetchall():
            old = location.removesuffix(f"/{quote(name)}")
            if not location.startswith("file:") or old in (location, new):
                continue
            for table, column in LOCATIONS:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, len(old) + 1, f"{old}/"),
                )


def _do_not_wait(database: Any, _record: Any) -> None:
    """Keep commits from waiting for the disk (1 to 4 ms each): the next import restores what a power cut destroys."""
    if isinstance(database, sqlite3.Connection):
        (_, _, file), (mode,) = (
            database.execute(f"PRAGMA {name}").fetchone() for name in ("database_list", "journal_mode")
        )
        if file in OPENED and mode == "wal":  # in other modes the file might be damaged
            database.execute("PRAGMA synchronous = NORMAL")
