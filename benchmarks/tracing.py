"""What the growth column costs: its measurement against the training step it follows, on quick scale's networks."""

from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from benchmarks.measuring import interleaved, spread, write

from spectralgru.pipeline.params import load_params
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import load
from spectralgru.training.data.loading import subset
from spectralgru.training.engine import Engine

NETWORKS = (("ptb", 1), ("chorales", 1), ("chorales", 2))


def run(device: str) -> None:
    """Measure, print and write; one thread, the seeds of one setting together, as the workflow trains them."""
    torch.set_num_threads(1)
    params = load_params(Path("params.yaml"), {"scale": "quick"})
    rows = []
    for corpus, layers in NETWORKS:
        job = params.job(corpus, params.settings(corpus)[:1])
        data = subset(load(Path(f"data/prepared/{corpus}.npz")), job.data)
        model, training, place = replace(job.model, num_layers=layers), job.training, torch.device(device)
        engine = Engine(data, model, job.replicas, training.batch_size, place)
        seeds = [replica.seed for replica in job.replicas]
        chunk = training_stream(data, seeds, 1, training.batch_size, training.bptt_steps, place).chunk(3)
        functions = {
            "step": lambda engine=engine, chunk=chunk: engine.step(chunk),
            "growth": lambda engine=engine, chunk=chunk: engine.growth(chunk),
        }
        samples = interleaved(functions)
        step, growth = (median(samples[name]) for name in ("step", "growth"))
        rows.append(
            {
                "corpus": corpus,
                "layers": layers,
                "runs": len(seeds),
                "step_ms": 1e3 * step,
                "growth_ms": 1e3 * growth,
                "of_a_step": growth / step,
                "of_training": growth / step / training.trace_every,
                "spread": max(spread(values) for values in samples.values()),
            }
        )

    def draw(axes) -> None:
        names = [f"{row['corpus']}, {row['layers']} GRU" for row in rows]
        axes.bar(names, [100 * row["of_training"] for row in rows], width=0.5)
        axes.set_ylabel("% of the training time")

    write("tracing", "What tracing the growth adds to a training step", rows, draw, device)
