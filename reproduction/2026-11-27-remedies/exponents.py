"""CPU time of the exponents that flossing differentiates, forward and backward, in turn with clipped training steps.

python reproduction/2026-11-27-remedies/exponents.py > reproduction/2026-11-27-remedies/exponents.csv
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from spectralgru.pipeline.experiments.plain_loop import flossing, loop
from spectralgru.pipeline.params import load_params
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.data.loading import subset

CPU, STEPS, FIRST = torch.device("cpu"), 30, 3


def seconds(work: Callable[[], object]) -> float:
    """CPU time of a call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def main() -> None:
    """Print a line for each measurement."""
    torch.set_num_threads(1)
    params = load_params(Path("params.yaml"))
    on, batches = params.section.experiments.beyond.corpora["ptb"], params.of_corpus("ptb").training
    corpus = subset(load(Path("data/prepared/ptb.npz")), on.data)
    model = loop.PlainModel(corpus, on.model, seed=0)
    optimizer, rule = torch.optim.SGD(model.parameters(), lr=0.25), loop.Rule(on.threshold)
    stream = training_stream(corpus, [0], 1, batches.batch_size, batches.bptt_steps, CPU)
    state = model.initial_state(batches.batch_size)

    def step() -> None:
        nonlocal state
        *_, state = loop.step(model, optimizer, rule, chunk, state)

    def exponents() -> None:
        model.zero_grad()
        flossing.exponents(model, chunk, state).square().mean().backward()

    print("work,index,seconds")
    for index in range(STEPS):
        chunk = stream.chunk(index)
        times = {"step": seconds(step)}
        for flossing.EXPONENTS in (1, 4, 16):
            times[f"{flossing.EXPONENTS} exponents"] = seconds(exponents)
        if index >= FIRST:
            for name, value in times.items():
                print(f"{name},{index},{value:.6f}")


main()
