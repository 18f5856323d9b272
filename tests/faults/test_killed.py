"""Stopped or killed however often, a training ends with the same bits."""

import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from processes import wait_for

import tiny
from forks import Fork
from spectralgru.training.settings import Job
from spectralgru.training.stopping import EXIT_STOPPED

WORDS = (
    tiny.replica("constraint", 0.2, 0, 0.3),
    tiny.replica("constraint", 1.4, 0, 0.3),
    tiny.replica("clipping", 0.5, 1, 0.3),
    tiny.replica("none", None, 2, 1e30),
)
MUSIC = (tiny.replica("constraint", 1.4, 0, 0.05), tiny.replica("clipping", 1.0, 1, 0.05))
JOBS = {
    "ptb": tiny.job("ptb", WORDS, epochs=12),
    "chorales": tiny.job("chorales", MUSIC, epochs=12),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for corpus, job in JOBS.items():
        folders[corpus] = tmp_path_factory.mktemp(corpus)
        tiny.write_corpora(folders[corpus] / "data")
        finished = tiny.train(job, folders[corpus])
        assert finished.returncode == 0, finished.stderr
    return folders


def start(job: Job, folder: Path) -> Fork:
    """A training that writes a checkpoint after every step."""
    return Fork(tiny.command(job, folder, "--checkpoint-seconds", "0"))


def newest(folder: Path) -> float:
    dates = [0.0]
    for path in (folder / "checkpoints").glob("[0-9a-f]*.pt"):
        with suppress(FileNotFoundError):  # the next one takes its place
            dates.append(path.stat().st_mtime)
    return max(dates)


@pytest.mark.parametrize("corpus", ["ptb", "chorales"])
def test_stopped_and_killed_it_goes_on_to_the_same_bits(
    tmp_path: Path, undisturbed: dict[str, Path], corpus: str
) -> None:
    tiny.write_corpora(tmp_path / "data")
    process = start(JOBS[corpus], tmp_path)
    wait_for(lambda: newest(tmp_path), process)
    process.send_signal(signal.SIGTERM if corpus == "ptb" else signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == EXIT_STOPPED
    assert "checkpoint written" in stderr

    draw = random.Random(corpus)
    for _ in range(3 if corpus == "ptb" else 1):
        before = newest(tmp_path)
        process = start(JOBS[corpus], tmp_path)
        wait_for(lambda before=before: newest(tmp_path) > before, process)
        time.sleep(draw.random() * 0.1)
        os.kill(process.pid, signal.SIGKILL)
        stdout, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert "resumed at epoch" in stdout

    finished = tiny.train(JOBS[corpus], tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "resumed at epoch" in finished.stdout
    found, expected = (tiny.outcome(folder / "results") for folder in (tmp_path, undisturbed[corpus]))
    assert found == expected
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_used(
    tmp_path: Path, undisturbed: dict[str, Path]
) -> None:
    tiny.write_corpora(tmp_path / "data")
    checkpoints = tmp_path / "checkpoints"
    process = start(JOBS["ptb"], tmp_path)
    wait_for(lambda: list(checkpoints.glob("*.previous.pt")), process)
    process.kill()
    process.communicate()
    # A kill between a save's two renames leaves the previous ones alone; where the newest would be is known.
    for previous in checkpoints.glob("*.previous.pt"):
        newest_file = previous.with_name(previous.name.replace(".previous", ""))
        if not newest_file.exists():
            shutil.copy(previous, newest_file)
        newest_file.write_bytes(newest_file.read_bytes()[:-1000])
    finished = tiny.train(JOBS["ptb"], tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert f"{newest_file}: damaged checkpoint" in finished.stdout
    assert "resumed at epoch" in finished.stdout
    assert tiny.outcome(tmp_path / "results") == tiny.outcome(undisturbed["ptb"] / "results")


def test_two_processes_told_to_train_the_same_do_it_once(
    tmp_path: Path, undisturbed: dict[str, Path]
) -> None:
    tiny.write_corpora(tmp_path / "data")
    processes = [start(JOBS["ptb"], tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    trained = [output for output in outputs if "epoch 12/12" in output]
    waited = [output for output in outputs if "is training this already: waiting" in output]
    assert len(trained) == len(waited) == 1
    assert tiny.outcome(tmp_path / "results") == tiny.outcome(undisturbed["ptb"] / "results")


def test_a_jumping_clock_changes_nothing(tmp_path: Path, undisturbed: dict[str, Path]) -> None:
    """The wall clock leaps by days, back and forth, at every reading."""
    tiny.write_corpora(tmp_path / "data")
    patch = tmp_path / "patch"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(
        "import time\n"
        "real, calls = time.time, [0]\n"
        "def leaping():\n"
        "    calls[0] += 1\n"
        "    return real() + 86400 * 10 * (-1) ** calls[0]\n"
        "time.time = leaping\n"
    )
    command = tiny.command(JOBS["ptb"], tmp_path, "--checkpoint-seconds", "0.05")
    finished = tiny.run(
        command, env=tiny.environment(PYTHONPATH=f"{patch}:{os.environ.get('PYTHONPATH', '')}")
    )
    assert finished.returncode == 0, finished.stderr
    assert tiny.outcome(tmp_path / "results") == tiny.outcome(undisturbed["ptb"] / "results")
    left = [float(line.split()[-3]) for line in finished.stdout.splitlines() if line.endswith("s left")]
    assert left
    assert all(0 <= seconds < 300 for seconds in left)
