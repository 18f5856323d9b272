"""The MLflow store: which one, how it is opened, created, upgraded and served."""

import fcntl
import hashlib
import importlib
import os
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from spectralgru.errors import InputError, RunError

DEFAULT_URI = "sqlite:///mlflow.db"
# No telemetry, and an unreachable server is an error within seconds, not minutes.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "PGCONNECT_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


def tracking_uri(uri: str | None = None) -> str:
    """The store to use: `uri`, else MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def without_password(uri: str) -> str:
    """The address as it may be printed."""
    return re.sub(r"(://[^/@:]*:).*@", r"\1***@", uri)


def ui_command(port: int = 5000, uri: str | None = None) -> list[str]:
    """Command line of the MLflow server on a database, bound to this machine alone."""
    uri = tracking_uri(uri)
    if "://" not in uri or uri.startswith(("http:", "https:", "databricks:")):
        raise InputError(
            f"MLflow store {without_password(uri)}: not a database to serve; open a server's address in a browser"
        )
    settings = {**ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    server += ["--artifacts-destination", str(artifact_root(uri))]
    server += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return ["env", *(f"{name}={value}" for name, value in settings.items()), *server]


def ui_address(port: int = 5000) -> str:
    """Where that server shows the experiments, as trainings (MLflow's own default is its pages for chat bots)."""
    return f"http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning"


def open_store(uri: str | None = None) -> Any:
    """An `MlflowClient` of the store, whose database is created or upgraded here and nowhere else.

    A fresh database whose tables several processes make at once fails them or is broken for good, hence the lock; an
    old SQLite file is copied to `<file>.backup` before it is upgraded. Raises RunError when the store cannot be opened.
    """
    uri = tracking_uri(uri)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with exclusive(uri):
            if path := sqlite_path(uri):
                _prepare(path, uri)
            elif artifact_root(uri):
                _database_utils().create_sqlalchemy_engine(
                    uri
                ).connect().close()  # MLflow would retry for minutes
            client = MlflowClient(uri, registry_uri=uri)
            if path:
                _quicken(client._tracking_client.store.engine)
            client.search_experiments(max_results=1)  # the client alone touches nothing
            return client
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, CommandError, ImportError) as error:
        raise RunError(
            f"{without_password(uri)}: MLflow store cannot be opened ({first_line(error)}); start the server, "
            "name another store in MLFLOW_TRACKING_URI, or move the broken file away; then track again, "
            "the runs are in their directories"
        ) from error


@contextmanager
def exclusive(uri: str, root: Path | None = None) -> Iterator[None]:
    """One process at a time on a SQLite store; on any other, on the results `root` or, without one, on its tables.

    Servers take many writers, but two that import the same directories at once would make every run twice.
    """
    path = sqlite_path(uri)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock")
    elif root or artifact_root(uri):
        name = hashlib.sha256(f"{uri} {root and root.resolve()}".encode()).hexdigest()[:16]
        lock = Path(tempfile.gettempdir()) / f"spectralgru-{os.getuid()}-{name}.lock"
    else:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite store."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


def artifact_root(uri: str) -> Path | None:
    """Folder of the artifacts: beside a SQLite file, else in the working directory; None leaves it to the server."""
    if "://" not in uri or uri.startswith(("http:", "https:", "databricks:", "file:")):
        return None
    path = sqlite_path(uri)
    return ((path.parent if path else Path()) / "mlartifacts").resolve()


def first_line(error: BaseException) -> str:
    """What an exception says, without its trace."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def _prepare(path: Path, uri: str) -> None:
    """Check the file (MLflow would retry a broken one for minutes) and bring an old one to this version's schema."""
    utils = _database_utils()
    fresh = not path.exists()
    with closing(sqlite3.connect(path, timeout=20)) as database:
        if fresh:  # imports take half the time, and readers do not wait
            database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        database.rollback()
        known = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        version = database.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
        if version in (None, (utils._get_latest_schema_revision(),)):
            return
        with closing(sqlite3.connect(path.with_name(path.name + ".backup"))) as backup:
            database.backup(backup)
    utils._upgrade_db(utils.create_sqlalchemy_engine(uri))  # what `mlflow db upgrade` does


def _database_utils() -> Any:
    return importlib.import_module("mlflow.store.db.utils")


def _quicken(engine: Any) -> None:
    """Let no commit wait for the disk (1 to 4 ms each): what a power cut takes away the next import makes again."""
    from sqlalchemy import event

    if not event.contains(engine, "connect", _do_not_wait):
        event.listen(engine, "connect", _do_not_wait)
        engine.dispose()  # connections made before


def _do_not_wait(database: Any, _record: Any) -> None:
    # With a write-ahead log it stays whole, in other modes it might not.
    if database.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        database.execute("PRAGMA synchronous = NORMAL")
