"""One training on 1 and 2 processes: seconds per epoch, speed-up, efficiency.

    python -m benchmarks.ddp --out ddp.json

Repeats are interleaved; the fastest counts, since other work on the machine only ever adds to a time. `batch`:
ranks split every batch (DistributedDataParallel, gloo). `replicas`: every process trains some of the runs.
Each process has one thread. An epoch's time is read from `history.csv`, the first epoch left out, so that starting
processes does not count.
"""

import argparse
import csv
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from benchmarks.measuring import machine, tell

from spectralgru.pipeline.params import Params, load_params, with_changes
from spectralgru.training.launch import Split, train_in
from spectralgru.training.settings import Job

ROOT = Path(__file__).parents[1]
# Paper shapes, as recalled, on a part of the data: 1 x 650 units on words, 2 x 200 on notes.
CASES = {
    "ptb": ["data.train=8000", "data.valid=1000", "data.test=1000", "training.epochs=3"],
    "nottingham": [
        "data.train=60",
        "data.valid=10",
        "data.test=10",
        "training.epochs=3",
        "model.num_layers=2",
    ],
}
CONFIGURATIONS: dict[str, tuple[int, Split]] = {
    "1 process": (1, "replicas"),
    "2 processes, batch": (2, "batch"),
    "2 processes, replicas": (2, "replicas"),
}


def job(corpus: str) -> Job:
    params: Params = load_params(ROOT / "params.yaml", {"scale": "paper"})
    return with_changes(params, corpus, CASES[corpus]).job(corpus, [("constraint", 0.2)], [0, 1])


def seconds_an_epoch(work: Job, data: Path, processes: int, split: Split) -> float:
    """The slowest process counts: all have to end."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        train_in(work, data, root / "results", root / "checkpoints", processes, split, threads=processes)
        slowest = 0.0
        for path in root.rglob("history.csv"):
            with path.open() as file:
                seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
            slowest = max(slowest, sum(seconds[1:]) / (len(seconds) - 1))
        return slowest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--out", type=Path, help="JSON file for the outcome")
    options = parser.parse_args()
    outcome: dict[str, object] = {
        "machine": machine(),
        "torch": torch.__version__,
        "runs_in_a_job": 2,
        "cases": {},
    }
    for corpus in CASES:
        times: dict[str, list[float]] = {name: [] for name in CONFIGURATIONS}
        for _ in range(options.repeats):
            for name, (processes, split) in CONFIGURATIONS.items():
                times[name].append(seconds_an_epoch(job(corpus), options.data, processes, split))
        alone = min(times["1 process"])
        outcome["cases"][corpus] = {  # type: ignore[index]
            name: {
                "seconds_an_epoch": round(min(measured), 3),
                "median": round(statistics.median(measured), 3),
                "all": [round(s, 3) for s in measured],
                "speed_up": round(alone / min(measured), 2),
                "efficiency": round(alone / min(measured) / CONFIGURATIONS[name][0], 2),
            }
            for name, measured in times.items()
        }
    tell(outcome, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
