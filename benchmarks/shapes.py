"""How a training step scales in hidden size, batch and replicas, against the plain PyTorch loop at the same shape."""

from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from benchmarks.measuring import interleaved, spread, write
from benchmarks.training_step import STEPS

from spectralgru.pipeline.experiments.plain_loop import loop as plain
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.engine import Engine
from spectralgru.training.settings import ModelSettings, Replica

USUAL = {"hidden": 200, "lanes": 20, "replicas": 1}
VARIED = {"hidden": (50, 100, 200, 400, 800), "lanes": (5, 10, 20, 40, 80), "replicas": (1, 2, 4, 8, 16)}
THRESHOLD, RATE = 30.0, 0.1


def case(corpus, hidden: int, lanes: int, replicas: int, device: str) -> dict[str, object]:
    """One row: frames a second of ours and of the plain loop."""
    model, where = ModelSettings(hidden, 1), torch.device(device)
    engine = Engine(
        corpus, model, [Replica("clipping", THRESHOLD, s, RATE) for s in range(replicas)], lanes, where
    )
    chunk = training_stream(corpus, list(range(replicas)), 1, lanes, STEPS, where).chunk(0)
    network = plain.PlainModel(corpus, model, 0).to(where)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    single = replace(training_stream(corpus, [0], 1, lanes, STEPS, where).chunk(0), starts=None)
    state, rule = network.initial_state(lanes), plain.Rule(THRESHOLD)
    samples = interleaved(
        {
            "ours": lambda: engine.step(chunk),
            "plain": lambda: plain.step(network, optimizer, rule, single, state),
        },
        seconds=0.2,
    )
    seconds = {name: median(values) for name, values in samples.items()}
    frames = STEPS * lanes
    return {
        "frames/s": replicas * frames / seconds["ours"],
        "plain frames/s": frames / seconds["plain"],
        "speed-up": replicas * seconds["plain"] / seconds["ours"],
        "spread": max(spread(values) for values in samples.values()),
    }


def run(device: str, data: Path = Path("data")) -> None:
    """Measure, print and write."""
    corpus = load(data / "prepared/nottingham.npz")
    rows = [
        {"varied": name} | (shape := USUAL | {name: value}) | case(corpus, **shape, device=device)
        for name, values in VARIED.items()
        for value in values
    ]

    def draw(axes) -> None:
        for name in VARIED:
            mine = [row for row in rows if row["varied"] == name]
            axes.plot(
                [row[name] / USUAL[name] for row in mine], [r["speed-up"] for r in mine], "o-", label=name
            )
        axes.set_xscale("log", base=2)
        axes.axhline(1, color="black", linewidth=1)
        axes.set_xlabel(f"size over {USUAL}")
        axes.set_ylabel("speed-up over the plain loop")

    write("shapes", "A training step over hidden size, batch and replicas", rows, draw, device)
