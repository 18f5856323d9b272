"""Real servers in processes of their own: MLflow's, and PostgreSQL under it."""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import psycopg2

SPECTRALGRU = [sys.executable, "-c", "from spectralgru.pipeline.cli import main; main()"]
DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
POSTGRES = shutil.which("postgres") or (str(DEBIAN[-1] / "postgres") if DEBIAN else None)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """`spectralgru ui` on a database, started, killed and started again on one port, each time at a new address."""

    def __init__(self, store: str, folder: Path, *options: str) -> None:
        self.store, self.folder, self.options = store, folder, options
        self.port = free_port()

    def start(self) -> None:
        environment = os.environ | {"MLFLOW_TRACKING_URI": self.store}
        with (self.folder / "server.log").open("w") as log:
            self.process = subprocess.Popen(
                [*SPECTRALGRU, "ui", "--port", str(self.port), *self.options],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not (told := re.search(r"MLflow: (http://\S*?)/(\S*)", self.log())):
            assert self.process.poll() is None, f"the server ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"no address after 120 s:\n{self.log()}"
            time.sleep(0.2)
        self.place, path = told.groups()
        self.page = f"{self.place}/{path}"
        self.url = self.page.partition("/#")[0]
        urllib.request.urlopen(f"{self.url}/version", timeout=60).close()

    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def kill(self) -> None:
        """As a crash would: at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)


class Postgres:
    """PostgreSQL with files of its own on a free port; it refuses to be run by root, so root lends it a user."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="spectralgru-postgres-"))
        self.port, self.user = free_port(), getpass.getuser()
        self.options: dict = {"cwd": self.folder}
        if os.getuid() == 0:
            self.user = "nobody"
            self.options |= {"user": self.user, "group": Path("/etc").stat().st_gid, "extra_groups": []}
            shutil.chown(self.folder, self.user)
        self._run("initdb", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "data")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(Path(POSTGRES).parent / program), *arguments]
        done = subprocess.run(command, **self.options, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder}"
        self._run("pg_ctl", "start", "--wait", "-D", "data", "-l", "log", "-o", options)

    def new_database(self, name: str) -> str:
        """URI of an empty database."""
        address = f"postgresql://{self.user}@127.0.0.1:{self.port}"
        with closing(psycopg2.connect(f"{address}/postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {name}")
        return f"{address}/{name}"

    def stop(self) -> None:
        """At once, as a crash would; it recovers when started again."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate", "-D", "data")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)
