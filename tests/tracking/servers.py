"""Real servers in processes of their own: MLflow's, and PostgreSQL under it."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import psycopg2

from spectralgru.pipeline.tracking import ui_command

DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
POSTGRES = shutil.which("postgres") or (str(DEBIAN[-1] / "postgres") if DEBIAN else None)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """`mlflow server` on a database, started, killed and started again on one port."""

    def __init__(self, store: str, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / "server.log").open("a") as log:
            command = ui_command(self.port, self.store)
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5)
                return
            except OSError:
                text = (self.folder / "server.log").read_text()
                assert self.process.poll() is None, f"the server ended:\n{text}"
                assert time.monotonic() < deadline, f"no answer after 120 s:\n{text}"
                time.sleep(0.5)

    def kill(self) -> None:
        """As a crash would: server and workers, at once."""
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
