"""How much memory the runs of a job need together: it is stated, and a job that needs too much is refused."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

import tiny
from spectralgru.errors import InputError
from spectralgru.training import memory
from spectralgru.training.settings import ModelSettings
from spectralgru.training.train import train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    tiny.write_corpora(folder)
    return folder


def large(seeds):
    """Weights and activations of some megabytes a run, one epoch of a few steps."""
    job = tiny.job("ptb", tuple(tiny.replica(seed=seed) for seed in range(seeds)), epochs=1, batch_size=40)
    return replace(job, model=ModelSettings(200, 2, dropout=0.5))


def peak(job, folder, data):
    """Bytes that a process had in memory at most while it trained `job`, and what it said it would need."""
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps(asdict(job)))
    code = (
        "import sys; from spectralgru.training.__main__ import main; code = main(sys.argv[1:]);"
        "status = open('/proc/self/status').read().split();"  # getrusage would say what the parent had, if more
        "print('peak', status[status.index('VmHWM:') + 1]); sys.exit(code)"
    )
    options = [
        "--data",
        data,
        "--out",
        folder / "out",
        "--checkpoints",
        folder / "checkpoints",
        "--threads",
        "1",
    ]
    command = [sys.executable, "-c", code, folder / "job.json", *options]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    stated = float(re.search(r"runs together, about ([\d.]+) of", said)[1]) * 1e9
    return 1024 * int(re.search(r"peak (\d+)", said)[1]), stated


def test_what_is_stated_is_enough_and_not_much_too_much(tmp_path, data):
    few, _ = peak(large(2), tmp_path / "few", data)
    many, stated = peak(large(22), tmp_path / "many", data)
    each = memory.bytes_per_run(large(1), 20)
    assert many <= stated
    assert each / 3 < (many - few) / 20 < each


def test_too_many_runs_are_refused_with_the_number_that_fit(tmp_path, data, monkeypatch):
    job = large(90)
    each = memory.bytes_per_run(job, 20)
    monkeypatch.setattr(memory, "bytes_available", lambda device: memory.PROGRAM + 40.5 * each)
    with pytest.raises(InputError, match=r"90 runs of ptb together need about .* --together 40$"):
        train(job, data / "prepared/ptb.npz", tmp_path / "out", tmp_path / "checkpoints")
    assert not (tmp_path / "out").exists()


def test_groups_give_the_same_runs(tmp_path, data):
    job = tiny.job("chorales", tuple(tiny.replica(seed=seed, rate=0.1) for seed in range(3)), epochs=2)
    prepared = data / "prepared/chorales.npz"
    whole = train(job, prepared, tmp_path / "whole", tmp_path / "checkpoints")
    said = []
    parts = train(job, prepared, tmp_path / "parts", tmp_path / "checkpoints", say=said.append, together=2)
    assert [run.best for run in parts] == [run.best for run in whole]
    assert [line.split(",")[0] for line in said if "together" in line] == [
        "chorales: 2 runs together",
        "chorales: 1 runs together",
    ]
    summary = json.loads((tmp_path / "parts/runs/chorales/constraint-0.2/setting.json").read_text())
    assert len(summary["runs"]) == 3
