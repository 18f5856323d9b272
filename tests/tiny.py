"""Corpora and jobs small enough to train in a second, written and read like the real ones."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

import forks
from spectralgru.files import sha256, write_json
from spectralgru.training.engine import Engine
from spectralgru.training.projector import BatchedProjector
from spectralgru.training.settings import (
    DataSettings,
    Job,
    ModelSettings,
    Replica,
    Schedule,
    TrainingSettings,
)

PYTHON = sys.executable
torch.set_num_threads(1)  # as the processes that `command` starts: other numbers of threads give other bits


def write_corpora(data: Path) -> None:
    """`data/prepared/{ptb,chorales}.{npz,json}`: patterned words and tunes of uneven length."""
    prepared = data / "prepared"
    prepared.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)

    vocabulary = ["<eos>", "<unk>", *(f"w{i}" for i in range(18))]
    follows = rng.integers(0, 20, (20, 3))

    def tokens(count: int) -> np.ndarray:
        ids = [0]
        while len(ids) < count - 1:
            ids.append(int(follows[ids[-1], rng.integers(3)]))
        return np.array([*ids, 0], np.int32)

    arrays = {"train": tokens(1200), "valid": tokens(300), "test": tokens(310)}
    record = {"kind": "words", "vocabulary": vocabulary}
    _write(prepared / "ptb.npz", arrays, record)

    def tunes(count: int) -> tuple[np.ndarray, np.ndarray]:
        lengths = rng.integers(5, 60, count).astype(np.int32)
        rolls = [(rng.random((n, 1)) < 0.8) & (rng.random((n, 9)) < rng.random(9)) for n in lengths]
        return np.concatenate(rolls).astype(np.uint8), lengths

    arrays = {}
    for split, count in (("train", 23), ("valid", 7), ("test", 6)):
        arrays[split], arrays[f"{split}_lengths"] = tunes(count)
    _write(prepared / "chorales.npz", arrays, {"kind": "notes", "lowest": 31, "notes": 9})


def _write(path: Path, arrays: dict[str, np.ndarray], record: dict) -> None:
    np.savez(path, **arrays)
    write_json(path.with_suffix(".json"), {"corpus": path.stem, "sha256": sha256(path), **record})


def replica(
    method: str = "constraint", value: float | None = 0.2, seed: int = 0, rate: float = 1.0
) -> Replica:
    return Replica(method, value, seed, rate)


EVERY_METHOD = (
    replica("constraint", 0.2, 0, 0.3),
    replica("clipping", 0.5, 1, 0.3),
    replica("none", None, 2, 0.1),
    replica("constraint", 1.4, 3, 0.3),
)


def batched(engine: Engine) -> Engine:
    """Turn an engine on a CPU to the projection that it chooses on a GPU."""
    engine.projector = BatchedProjector(engine.projector.max_sv, engine.projector.layers)
    if engine.gates is not None:
        engine.gates = BatchedProjector(engine.gates.max_sv, engine.gates.layers)
    with torch.no_grad():
        engine._start_projection()
        engine._finish_projection()
    return engine


def job(corpus: str = "ptb", replicas: tuple[Replica, ...] | None = None, **training: object) -> Job:
    """A job of a few seconds; `training` replaces fields of its TrainingSettings."""
    words = corpus == "ptb"
    settings = TrainingSettings(
        epochs=3,
        learning_rate=1.0 if words else 0.1,
        schedule=Schedule("decay", 2, 1.5) if words else Schedule("plateau", 2, 1.25, 1e-4),
        batch_size=6,
        bptt_steps=10,
        trace_every=2,
    )
    return Job(
        corpus=corpus,
        scale="quick",
        data=DataSettings(),
        model=ModelSettings(hidden_size=12, num_layers=1 if words else 2, input_scale=1.0, dropout=0.3),
        training=replace(settings, **training),
        replicas=replicas or (replica(rate=settings.learning_rate),),
    )


def command(job: Job, folder: Path, *options: str) -> list[str]:
    """The trainer's own entry point on `job`, with everything below `folder` (corpora in folder/data)."""
    file = folder / "job.json"
    file.write_text(json.dumps(asdict(job)))
    places = [
        "--data",
        f"{folder}/data",
        "--out",
        f"{folder}/results",
        "--checkpoints",
        f"{folder}/checkpoints",
    ]
    return [PYTHON, "-m", "spectralgru.training", str(file), *places, "--threads", "1", *options]


def train(job: Job, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end."""
    return forks.run(command(job, folder, *options))


def run(arguments: list[str], **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, **more)


def outcome(results: Path) -> dict[str, object]:
    """What a training came to, without what may differ between two times: clocks and shared company."""
    found: dict[str, object] = {}
    for path in sorted(results.glob("runs/*/*/seed-*/*")):
        name = str(path.relative_to(results))
        if path.name == "run.json":
            record = json.loads(path.read_text())
            record["files"].pop("history.csv")  # which tells how long epochs took
            found[name] = {
                k: v
                for k, v in record.items()
                if k not in ("started", "wall_seconds", "git_commit", "sha256")
            }
        elif path.name == "history.csv":
            found[name] = [line.rsplit(",", 1)[0] for line in path.read_text().splitlines()]
        elif not path.name.startswith("."):
            found[name] = path.read_bytes()
    return found


def environment(**changes: str) -> dict[str, str]:
    return os.environ | changes
