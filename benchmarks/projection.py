"""What the projection costs: python benchmarks/projection.py --corpus nottingham --hidden 200 --layers 2 --help

Along a real training run (the trainer's own engine, one replica per delta, one after the other), on one thread and in
CPU time: milliseconds of a training step without the projection, the projection's share of it, how often each form
was taken, and what clipping by SVD or by the Gram matrix's eigenvectors would have cost for the same matrices.
"""

import argparse
import json
import statistics
import time
from collections import Counter
from pathlib import Path

import torch

from spectralgru import projection
from spectralgru.corpora.dataset import load
from spectralgru.kernels.clip import clip
from spectralgru.projection import SpectralProjection
from spectralgru.training.batches import training_stream
from spectralgru.training.data import part
from spectralgru.training.replicas import Engine
from spectralgru.training.settings import DataSettings, ModelSettings, Replica


def whole(weight: torch.Tensor, bound: float, method: str) -> float:
    """Seconds of CPU time to clip by one decomposition."""
    begin = time.process_time()
    clip(weight, torch.full((len(weight),), bound), method)
    return time.process_time() - begin


class Meter:
    """Times every `project_` of an engine and counts the forms it takes."""

    def __init__(self) -> None:
        self.seconds, self.forms, self.baselines = 0.0, Counter(), {"svd": [], "eigh": []}
        original, few, decompose = SpectralProjection.project_, projection.clip_few, SpectralProjection._whole

        def project(this, weight, update_norm=None):
            if self.forms["calls"] % 50 == 0:
                for method, times in self.baselines.items():
                    times.append(whole(weight, this.max_sv[0], method))
            begin = time.process_time()
            report = original(this, weight, update_norm)
            self.seconds += time.process_time() - begin
            self.forms["calls"] += 1
            return report

        def count_few(*args):
            result = few(*args)
            self.forms["subspace" if result is not None else "subspace gave up"] += 1
            return result

        def count_whole(*args):
            self.forms["whole"] += 1
            return decompose(*args)

        self.patches = [
            (SpectralProjection, "project_", original, project),
            (projection, "clip_few", few, count_few),
        ]
        self.patches += [(SpectralProjection, "_whole", decompose, count_whole)]

    def __enter__(self) -> "Meter":
        for owner, name, _, new in self.patches:
            setattr(owner, name, new)
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, old, _ in self.patches:
            setattr(owner, name, old)


def train(options: argparse.Namespace, delta: float) -> list[dict]:
    """One row for each of `options.laps` equal parts of the run."""
    corpus = part(load(options.data / f"{options.corpus}.npz"), DataSettings(vocabulary=options.vocabulary))
    model = ModelSettings(options.hidden, options.layers, 0.01, options.dropout, options.init_scale)
    engine = Engine(corpus, model, [Replica("constraint", delta, 0, options.rate)], 20, torch.device("cpu"))
    rows, step, epoch, length = [], 0, 0, options.steps // options.laps
    while True:
        epoch += 1
        stream = training_stream(corpus, [0], epoch, 20, 35, torch.device("cpu"))
        engine.start_epoch()
        for index in range(len(stream)):
            if step % length == 0:
                meter = Meter()
                begin = time.process_time()
            with meter:
                engine.step(stream.chunk(index))
            step += 1
            if step % length == 0:
                baselines = {m: statistics.median(times) for m, times in meter.baselines.items()}
                spent = sum(map(sum, meter.baselines.values()))
                rest = time.process_time() - begin - meter.seconds - spent
                calls = meter.forms.pop("calls")
                row = {
                    "delta": delta,
                    "steps": step,
                    "step_ms": 1e3 * rest / length,
                    "projection": meter.seconds / rest,
                    "svd": options.layers * baselines["svd"] * length / rest,
                    "eigh": options.layers * baselines["eigh"] * length / rest,
                    "saturated": int(engine.saturated.sum()),
                    "forms": {"calls": calls, **meter.forms},
                }
                rows.append(row)
                print(
                    f"{delta:>5} {step:>6} {row['step_ms']:>8.1f} {100 * row['projection']:>10.1f}"
                    f" {100 * row['eigh']:>6.1f} {100 * row['svd']:>6.1f} {row['saturated']:>9}  {row['forms']}",
                    flush=True,
                )
            if step == options.steps:
                return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/prepared"))
    parser.add_argument("--corpus", default="nottingham")
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--init-scale", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--laps", type=int, default=4)
    parser.add_argument("--deltas", type=float, nargs="+", default=[0.2, 0.5, 0.8, 1.1, 1.4])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'delta':>5} {'steps':>6} {'step ms':>8} {'projection%':>10} {'eigh%':>6} {'svd%':>6} {'saturated':>9}"
    )
    rows = [row for delta in options.deltas for row in train(options, delta)]
    if options.out:
        settings = {k: v for k, v in vars(options).items() if k not in ("out", "data")}
        options.out.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
