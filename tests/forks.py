"""Python programs as forks of one process that has imported what they need, which would take each of them seconds."""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "snakemake.cli",
        "spectralgru.pipeline.experiments.base",
        "spectralgru.pipeline.params",
        "spectralgru.pipeline.provenance.record",
        "spectralgru.pipeline.tracking",
        "spectralgru.training.launch",
        "spectralgru.training.train",
        "spectralgru.pipeline.article",
        "spectralgru.pipeline.report",
        "spectralgru.pipeline.results.claims.check",
        "spectralgru.pipeline.results.figures",
        "spectralgru.pipeline.sampling",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.db.utils",
        "alembic",
        "dvc.cli",
        "dvc.repo",
        "torch._dynamo",  # of DistributedDataParallel
    ]
)


class Fork:
    """`PYTHON -m MODULE ARGUMENTS...`, leader of its session, with subprocess.Popen's methods.

    PYTHON is who it takes itself for, beside whom it looks for commands (see commands.py).
    What the environment tells Python or its libraries when they are loaded is not heard: that wants a real process.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        cwd: Path | str = ".",
        env: Mapping[str, str] | None = None,
        merged: bool = False,
    ) -> None:
        python, option, *program = map(str, command)
        assert (Path(python).name[:6], option) == ("python", "-m")
        with (
            tempfile.NamedTemporaryFile(delete=False) as out,
            tempfile.NamedTemporaryFile(delete=False) as err,
        ):
            self._outputs = [Path(out.name), Path(out.name if merged else err.name)]
        self._files = [Path(out.name), Path(err.name)]
        place = (str(Path(cwd).resolve()), dict(os.environ if env is None else env))
        self._process = FORKS.Process(target=become, args=(python, program, *place, self._outputs))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end: what it wrote to standard output and standard error."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("fork", timeout or 0.0)
        out, err = (path.read_text() if path.exists() else "" for path in self._files)
        for path in self._files:
            path.unlink(missing_ok=True)
        return out, err


def run(command: Sequence[str | Path], **options: object) -> subprocess.CompletedProcess[str]:
    """As subprocess.run, with what was written."""
    process = Fork(command, **options)
    out, err = process.communicate(timeout=300)
    assert process.returncode is not None
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def become(
    python: str, program: list[str], folder: str, environment: dict[str, str], outputs: list[Path]
) -> None:
    """Be that program, in a process forked for it."""
    os.setsid()
    Thread(target=end_with_tests, daemon=True).start()
    for descriptor, path in zip((1, 2), outputs, strict=True):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable, sys.argv = python, program
    try:
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()


def end_with_tests() -> None:
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os.killpg(0, signal.SIGKILL)
