"""The commands that a workflow's jobs call, as forks of one process that has imported them (see forks.py).

A folder like an environment's `bin`: what lies in it, or is a module of `python -m` there, asks the server for a fork,
waits for its end, passes signals on and ends as it did. Killed, it takes its fork with it.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from threading import Thread

from forks import FORKS, become, end_with_tests

NAMES = ("dvc", "snakemake", "spectralgru", "spectralgru.training")
COMMAND = """#!{python} -IS
import os, signal, sys
from multiprocessing.connection import Client
server = Client({address!r})
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: server.send(number))
outputs = [f"/proc/{{os.getpid()}}/fd/{{n}}" for n in (1, 2)]
server.send(([{name!r}, *sys.argv[1:]], os.getcwd(), dict(os.environ), outputs))
code = server.recv()
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""
PYTHON = """#!/bin/sh
if [ "$1" = -m ]; then
  case "$2" in {names})
    module=$2; shift 2; exec {folder}/$module "$@"
  esac
fi
exec {python} "$@"
"""
FORK = get_context("fork")


@contextmanager
def commands(folder: Path) -> Iterator[Path]:
    """Fill the folder, and serve what lies in it."""
    ours, theirs = FORKS.Pipe()
    server = FORKS.Process(target=_serve, args=(str(folder / "python"), theirs))
    server.start()
    address = ours.recv()
    texts = {name: COMMAND.format(python=sys.executable, address=address, name=name) for name in NAMES}
    texts["python"] = PYTHON.format(python=sys.executable, folder=folder, names="|".join(NAMES))
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    yield folder
    server.terminate()
    server.join()


def _serve(python: str, tests: Connection) -> None:
    os.setsid()
    Thread(target=end_with_tests, daemon=True).start()
    with Listener(family="AF_UNIX", backlog=50) as listener:
        tests.send(listener.address)
        while True:
            FORK.Process(target=_run, args=(listener.accept(), python)).start()


def _run(command: Connection, python: str) -> None:
    process = FORK.Process(target=become, args=(python, *command.recv()))
    process.start()
    assert process.pid is not None
    while command in wait([command, process.sentinel]):
        try:
            os.kill(process.pid, command.recv())
        except EOFError:  # it was killed
            os.killpg(process.pid, signal.SIGKILL)
            return
    process.join()
    command.send(process.exitcode)
