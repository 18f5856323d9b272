"""A constrained training step against a clipped one, for every delta, at both paper shapes, along real trainings.

Two engines, one clipped and one constrained, take the same batches in turn, a block of steps each; a row is the median
of the blocks' ratios. The first blocks are the start of a training, where at large delta every value is at the bound.
"""

from pathlib import Path
from statistics import median

import torch
from benchmarks.measuring import clocked, spread, write

from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine
from spectralgru.training.settings import ModelSettings, Replica

DELTAS = (0.2, 0.5, 0.8, 1.1, 1.4)
LANES, STEPS = 20, 35
TASKS = {  # corpus: model, learning rate, threshold, steps a block, blocks
    "ptb": (ModelSettings(650, 1), 1.0, 10.0, 4, 9),
    "nottingham": (ModelSettings(200, 2), 0.1, 30.0, 40, 9),
}


class Training:
    """An engine and its place in the epoch."""

    def __init__(self, corpus, model: ModelSettings, replica: Replica, device: str) -> None:
        self.engine = Engine(corpus, model, [replica], LANES, torch.device(device))
        self.stream = training_stream(corpus, [0], 1, LANES, STEPS, torch.device(device))
        self.at = 0

    def __call__(self) -> None:
        if self.at % len(self.stream) == 0:
            self.engine.start_epoch()
        self.engine.step(self.stream.chunk(self.at % len(self.stream)))
        self.at += 1


def run(device: str, data: Path = Path("data")) -> None:
    """Measure, print and write."""
    rows = []
    for name, (model, rate, threshold, steps, blocks) in TASKS.items():
        corpus = load(data / f"prepared/{name}.npz")
        for delta in DELTAS:
            clipped = Training(corpus, model, Replica("clipping", threshold, 0, rate), device)
            constrained = Training(corpus, model, Replica("constraint", delta, 0, rate), device)
            clipped(), constrained()
            seconds = [(clocked(clipped, steps), clocked(constrained, steps)) for _ in range(blocks)]
            ratios = [b / a for a, b in seconds]
            rows.append(
                {
                    "task": f"{name} {model.num_layers} x {model.hidden_size}",
                    "delta": delta,
                    "clipped ms": 1e3 * median([a for a, _ in seconds]) / steps,
                    "constrained ms": 1e3 * median([b for _, b in seconds]) / steps,
                    "ratio": median(ratios),
                    "first block": ratios[0],
                    "last block": ratios[-1],
                    "spread": spread(ratios),
                    "at the bound": int(constrained.engine.projector.saturated.sum()),
                }
            )
            print(rows[-1], flush=True)

    def draw(axes) -> None:
        for task in dict.fromkeys(row["task"] for row in rows):
            values = [100 * (row["ratio"] - 1) for row in rows if row["task"] == task]
            axes.plot(DELTAS, values, marker="o", label=task)
        axes.axhline(0, color="black", linewidth=1)
        axes.set_xlabel("delta")
        axes.set_ylabel("constrained step over clipped step, %")

    write("training_step", "What the constraint adds to a training step", rows, draw, device)
