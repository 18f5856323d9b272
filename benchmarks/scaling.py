"""What many runs cost, part by part: planning, records, tracking, checkpoints.

    python -m benchmarks.scaling --out scaling.json

Campaigns of 10 seeds per setting are planned by a real `snakemake -n`; run directories are copies of one real run with
their own settings; a checkpoint is one of the paper's word model, written by the trainer's own store.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from benchmarks.measuring import machine, tell

from spectralgru.pipeline.params import load_params, read_params, with_changes
from spectralgru.records import read_run, run_path, write_record
from spectralgru.training.batches import training_stream
from spectralgru.training.checkpoint import CheckpointStore, of_run, save
from spectralgru.training.data.dataset import load
from spectralgru.training.data.loading import subset
from spectralgru.training.distributed import ALONE
from spectralgru.training.launch import train_in
from spectralgru.training.run_writer import Writer
from spectralgru.training.session import Session
from spectralgru.training.settings import Job

ROOT = Path(__file__).parents[1]
SEEDS = list(range(10))


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return round(time.perf_counter() - begin, 2)


def environment(folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}


def write_campaign(folder: Path, runs: int) -> list[float]:
    """params.yaml of so many runs on one corpus; the deltas."""
    deltas = [round(0.1 + 1.8 * i / (runs // len(SEEDS)), 6) for i in range(runs // len(SEEDS))]
    values = read_params(ROOT / "params.yaml")
    values["quick"] |= {"run": ["ptb"], "seeds": SEEDS}
    values["quick"]["settings"]["ptb"]["methods"] = {"constraint": deltas, "clipping": [], "none": False}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return deltas


def dry_run(folder: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "-n", "--quiet"]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True, stdout=subprocess.DEVNULL)


def small_job(deltas: list[float]) -> Job:
    params = load_params(ROOT / "params.yaml", {"scale": "quick"})
    changes = ["data.train=2000", "data.valid=500", "data.test=500", "training.epochs=6"]
    return with_changes(params, "ptb", changes).job("ptb", [("constraint", d) for d in deltas], [0])


def write_records(folder: Path, data: Path, deltas: list[float]) -> None:
    """Run directories of the campaign, copies of one real run."""
    train_in(small_job(deltas[:1]), data, folder / "one", folder / "checkpoints", threads=1)
    source = run_path(folder / "one", "ptb", "constraint", deltas[0], 0)
    run = read_run(source)
    for delta in deltas:
        for seed in SEEDS:
            target = run_path(folder / "results/quick", "ptb", "constraint", delta, seed)
            shutil.copytree(source, target)
            write_record(target, replace(run, value=delta, seed=seed, key=f"{delta} {seed}"))


def checkpoint(folder: Path, data: Path, replicas: int) -> dict[str, float]:
    """Cost of a checkpoint of the paper's word model, beside the steps of an epoch."""
    job = load_params(ROOT / "params.yaml", {"scale": "paper"}).job(
        "ptb", [("constraint", 0.2)], SEEDS[:replicas]
    )
    corpus = subset(load(data / "prepared/ptb.npz"), job.data)
    device = torch.device("cpu")
    writer = Writer(job, folder / "results", {}, corpus, device)
    session = Session(job, job.replicas, corpus, writer, device, print, ALONE, None)
    stream = training_stream(corpus, SEEDS, 1, job.training.batch_size, job.training.bptt_steps, device)
    step = min(timed(lambda: session.engine.step(stream.chunk(0))) for _ in range(5))
    stores = [CheckpointStore(folder / "checkpoints", f"benchmark-{run}") for run in range(replicas)]

    def write() -> None:
        state = session.state_dict()
        save((store, of_run(state, run)) for run, store in enumerate(stores))

    seconds = min(timed(write) for _ in range(3))
    epoch = step * len(stream)
    return {
        "replicas": replicas,
        "megabytes": round(sum(store.newest.stat().st_size for store in stores) / 1e6),
        "seconds_a_checkpoint": seconds,
        "seconds_an_epoch": round(epoch),
        "percent_of_an_epoch": round(100 * seconds / epoch, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--out", type=Path, help="JSON file for the outcome")
    options = parser.parse_args()
    torch.set_num_threads(2)
    outcome: dict[str, object] = {
        "machine": machine(),
    }
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        folder = Path(name)
        outcome["checkpoint"] = checkpoint(folder / "checkpoint", options.data, replicas=2)
        for runs in (1_000, 10_000):
            place = folder / str(runs)
            deltas = write_campaign(place, runs)
            outcome[f"dry_run_{runs}_seconds"] = timed(lambda place=place: dry_run(place))
            if runs == 1_000:
                outcome["records_1000_seconds"] = timed(
                    lambda place=place, deltas=deltas: write_records(place, options.data, deltas)
                )
                size = sum(p.stat().st_size for p in (place / "results").rglob("*") if p.is_file())
                outcome["records_1000_megabytes"] = round(size / 1e6)
                track = [str(Path(sys.executable).parent / "spectralgru"), "track", "--corpus", "ptb"]
                for number in ("first", "again"):
                    outcome[f"track_1000_{number}_seconds"] = timed(
                        lambda place=place, track=track: subprocess.run(
                            track, cwd=place, env=environment(place), check=True
                        )
                    )
                outcome["mlflow_1000_megabytes"] = round((place / "mlflow.db").stat().st_size / 1e6)
    tell(outcome, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
