"""Training end to end against a plain PyTorch loop, and runs trained together against one after another.

The plain loop: torch.nn.GRU, clip_grad_norm_, SGD, one run at a time. It is spared what our batches of tunes need, a
zero state wherever a tune begins. Ours: real jobs of the trainer. Its records give the seconds per epoch; the first
epoch, and with it the start of the processes, is left out.
"""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from benchmarks.measuring import clocked, spread, write

from spectralgru.pipeline.experiments.plain_loop import loop as plain
from spectralgru.pipeline.results.load import RunFiles
from spectralgru.records import read_run, run_path
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.data.loading import subset
from spectralgru.training.launch import train_in
from spectralgru.training.settings import (
    DataSettings,
    Job,
    ModelSettings,
    Replica,
    Schedule,
    TrainingSettings,
)

LANES, STEPS, ROUNDS = 20, 35, 3
TASKS = {  # corpus: data, model, learning rate, threshold, epochs a job
    "ptb": (DataSettings(28_000, 1_000, 1_000), ModelSettings(650, 1), 1.0, 10.0, 4),
    "nottingham": (DataSettings(100, 8, 8), ModelSettings(200, 2), 0.1, 30.0, 4),
}
VARIANTS = {  # corpus: name, runs in a job, processes
    "ptb": [("ours, 1 run", 1, 1)],
    "nottingham": [("ours, 1 run", 1, 1), ("ours, 10 runs", 10, 1), ("ours, 10 runs, 2 processes", 10, 2)],
}


def plain_rate(corpus, model: ModelSettings, rate: float, threshold: float) -> float:
    """Steps of single sequences (tokens or frames) a second of the plain loop, over one epoch."""
    network = plain.PlainModel(corpus, model, 0)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    stream = training_stream(corpus, [0], 1, LANES, STEPS, torch.device("cpu"))
    chunks = [replace(stream.chunk(i), starts=None) for i in range(len(stream))]
    state = network.initial_state(LANES)
    rule = plain.Rule(threshold)
    plain.step(network, optimizer, rule, chunks[0], state)

    def epoch() -> None:
        now = state
        for chunk in chunks:
            *_, now = plain.step(network, optimizer, rule, chunk, now)

    return sum(chunk.count for chunk in chunks) / clocked(epoch)


def our_rate(name: str, job: Job, count: float, data: Path, processes: int, threads: int) -> list[float]:
    """The same of one job of the trainer, all its runs counted: one number an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        train_in(job, data, root, root / "checkpoints", processes=processes, threads=threads)
        epochs = []
        for replica in job.replicas:
            directory = run_path(root, name, replica.method, replica.value, replica.seed)
            epochs.append(RunFiles(directory, read_run(directory)).history["seconds"][1:])
    # Runs of one process share its seconds; the slowest process decides.
    return [len(job.replicas) * count / max(seconds) for seconds in zip(*epochs, strict=True)]


def run(device: str, data: Path = Path("data")) -> None:
    """Measure, print and write."""
    cores = os.cpu_count() or 1
    rows = []
    for name, (size, model, rate, threshold, epochs) in TASKS.items():
        corpus = subset(load(data / f"prepared/{name}.npz"), size)
        count = float(training_stream(corpus, [0], 1, LANES, STEPS, torch.device("cpu")).counts.sum())
        training = TrainingSettings(epochs, rate, Schedule("decay", epochs, 1.1), trace_every=50)
        samples: dict[str, list[float]] = {"plain": []} | {variant: [] for variant, *_ in VARIANTS[name]}
        for _ in range(ROUNDS):
            torch.set_num_threads(cores)
            samples["plain"] += [plain_rate(corpus, model, rate, threshold) for _ in range(3)]
            for variant, runs, processes in VARIANTS[name]:
                replicas = tuple(Replica("clipping", threshold, seed, rate) for seed in range(runs))
                job = Job(name, "benchmark", size, model, training, replicas)
                samples[variant] += our_rate(name, job, count, data, processes, cores)
        single = median(samples["ours, 1 run"])
        for variant, rates in samples.items():
            rows.append(
                {
                    "task": f"{name} {model.num_layers} x {model.hidden_size}",
                    "variant": variant,
                    "per second": median(rates),
                    "spread": spread(rates),
                    "samples": len(rates),
                    "over the plain loop": median(rates) / median(samples["plain"]),
                    "time over that of single runs": single / median(rates),
                }
            )

    def draw(axes) -> None:
        axes.barh(
            [f"{row['task']}\n{row['variant']}" for row in rows], [r["over the plain loop"] for r in rows]
        )
        axes.axvline(1, color="black", linewidth=1)
        axes.tick_params(axis="y", labelsize=7)
        axes.set_xlabel("tokens or frames a second over the plain loop's")

    torch.set_num_threads(cores)
    write("end_to_end", "Training end to end against a plain PyTorch loop", rows, draw, device)
