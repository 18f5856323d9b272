"""What the benchmarks rest on: samples taken in turn, and one JSON, one table and one plot each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tiny

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks import gpu, measuring, shapes, training_step

from spectralgru.training.data.dataset import load
from spectralgru.training.settings import ModelSettings, Replica


def test_samples_are_taken_in_turn():
    calls = []
    samples = measuring.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 7, 1e-6)
    assert {name: len(values) for name, values in samples.items()} == {"a": 7, "b": 7}
    measured = "".join(calls)[4:]  # after a warm-up and a first look
    assert measured.count("ab") >= 7


def test_a_benchmark_leaves_a_record_a_table_and_a_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measuring, "RESULTS", tmp_path)
    measuring.write(
        "one", "A title", [{"n": 1, "ratio": 1.23456}], lambda axes: axes.plot([1], [1.2], label="x")
    )
    record = json.loads((tmp_path / "one.json").read_text())
    assert record["rows"] == [{"n": 1, "ratio": 1.23456}]
    assert record["machine"]["torch"] == torch.__version__
    assert "| 1 | 1.23 |" in (tmp_path / "one.md").read_text() == capsys.readouterr().out[:-1]
    assert "<svg" in (tmp_path / "one.svg").read_text()


def test_a_step_is_compared_with_the_plain_loop_and_trains(tmp_path):
    tiny.write_corpora(tmp_path)
    corpus = load(tmp_path / "prepared/chorales.npz")
    row = shapes.case(corpus, hidden=8, lanes=2, replicas=2, device="cpu")
    assert row["speed-up"] == pytest.approx(row["frames/s"] / row["plain frames/s"])
    training = training_step.Training(corpus, ModelSettings(8), Replica("constraint", 0.2, 0, 0.1), "cpu")
    before = training.engine.model.output["bias"].detach().clone()
    training()
    assert not torch.equal(before, training.engine.model.output["bias"])


@pytest.mark.parametrize("precision", gpu.PRECISIONS)
def test_a_layer_on_a_gpu_is_compared_in_equal_precision(precision):
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    try:
        gpu.set_precision(precision)
        assert [backend.allow_tf32 for backend in backends] == [precision == "tf32"] * 2
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def test_an_unknown_benchmark_is_refused():
    command = [sys.executable, "-m", "benchmarks", "gru"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 2
    assert "gru: no such benchmark; use gru_layer" in done.stderr
