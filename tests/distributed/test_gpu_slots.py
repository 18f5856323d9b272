"""Concurrent jobs get distinct devices; a dead job's devices are free. Device ids are names: no GPU is needed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tiny
from spectralgru.errors import InputError, RunError
from spectralgru.training.gpus import gpu_slots

USE = """
import json, sys, time
from spectralgru.training.gpus import gpu_slots
with gpu_slots(int(sys.argv[1]), lambda line: print(line, flush=True)) as ids:
    print(json.dumps([ids, time.time()]), flush=True)
    time.sleep(float(sys.argv[2]))
    print(json.dumps([ids, time.time()]), flush=True)
"""


def job(tmp_path: Path, devices: str, count: int, seconds: float) -> subprocess.Popen[str]:
    environment = tiny.environment(CUDA_VISIBLE_DEVICES=devices, TMPDIR=str(tmp_path))
    command = [sys.executable, "-c", USE, str(count), str(seconds)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def use(process: subprocess.Popen[str]) -> tuple[list[str], float, float]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    (ids, begin), (_, end) = (json.loads(line) for line in output.splitlines() if line.startswith("["))
    return ids, begin, end


def test_six_jobs_share_three_devices_without_ever_sharing_one(tmp_path: Path) -> None:
    processes = [job(tmp_path, "0,1,2", count, 0.4) for count in (1, 2, 1, 3, 1, 2)]
    uses = [use(process) for process in processes]
    assert [len(ids) for ids, _, _ in uses] == [1, 2, 1, 3, 1, 2]
    for i, (ids, begin, end) in enumerate(uses):
        assert len(set(ids)) == len(ids)
        for others, their_begin, their_end in uses[:i]:
            if set(ids) & set(others):
                assert begin >= their_end or end <= their_begin


def test_a_killed_jobs_device_is_free_at_once(tmp_path: Path) -> None:
    first = job(tmp_path, "GPU-aa", 1, 60)
    assert first.stdout is not None
    assert json.loads(first.stdout.readline())[0] == ["GPU-aa"]
    second = job(tmp_path, "GPU-aa", 1, 0)
    assert second.stdout is not None
    assert "waiting for 1 of the GPUs GPU-aa" in second.stdout.readline()
    begin = time.monotonic()
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert json.loads(second.stdout.readline())[0] == ["GPU-aa"]
    assert time.monotonic() - begin < 5
    second.communicate(timeout=30)


def test_a_job_gets_only_devices_it_may_see(tmp_path: Path) -> None:
    assert use(job(tmp_path, "3,5", 2, 0))[0] == ["3", "5"]


def test_more_devices_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(InputError, match="2 GPUs requested, 1 visible \\(0\\)"), gpu_slots(2, print):
        pass


def lay(kind: str, at: Path, target: Path) -> None:
    """Somebody's trap at `at`; links of both kinds lead to `target`."""
    at.parent.mkdir(exist_ok=True, mode=0o700)
    make = {
        "link": lambda: at.symlink_to(target),
        "hard link": lambda: at.hardlink_to(target),
        "link to nothing": lambda: at.symlink_to(target.with_name("nothing")),
        "folder": at.mkdir,
        "open folder": lambda: (at.mkdir(), at.chmod(0o777)),
        "FIFO": lambda: os.mkfifo(at),
        "file": lambda: at.write_text("content"),
    }
    make[kind]()


def everything_in(folder: Path) -> list[tuple[str, int, str | None]]:
    return [
        (str(path), path.lstat().st_mode, path.read_text() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    ]


@pytest.mark.parametrize(
    ("kind", "place", "target"),
    [(kind, "", "secret") for kind in ("link", "link to nothing", "open folder", "FIFO", "file")]
    + [
        (kind, "0.lock", "secret/file") for kind in ("link", "hard link", "link to nothing", "folder", "FIFO")
    ],
)
def test_what_others_planted_is_said_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, place: str, target: str
) -> None:
    """In the place of the folder of locks, and of a lock in it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "secret").mkdir(mode=0o700)
    (tmp_path / "secret/file").write_text("precious")
    at = tmp_path / f"spectralgru-gpus-{os.geteuid()}" / place
    lay(kind, at, tmp_path / target)
    before = everything_in(tmp_path)
    with pytest.raises(RunError) as caught, gpu_slots(1, print):
        pass
    assert str(caught.value).startswith(f"{at}: ")
    assert "remove" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert everything_in(tmp_path) == before
