"""A real MLflow server in a process of its own."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

from spectralgru.tracking import ui_command


class Server:
    """`mlflow server` on a database, started, killed and started again on one port."""

    def __init__(self, store: str, folder: Path) -> None:
        self.store, self.folder = store, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
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
