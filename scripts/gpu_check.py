"""The first minute on a GPU: is the arithmetic right, how long is a step, how many runs fit into the time?

    python scripts/gpu_check.py JOB.json ... --seconds 700 --out bench.json

Checks the first job's captured step against the plain one, a layer against float64 and the projection against the SVD:
exit code 1 says which failed. Then times steps of every job, chooses how many of its runs, in their order, can be
trained to their end in the time that those before leave, and writes both down.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from spectralgru.errors import InputError
from spectralgru.files import write_json
from spectralgru.recurrent.gru import gru_layer
from spectralgru.spectral import SpectralProjection
from spectralgru.training.batches import training_stream
from spectralgru.training.data.dataset import Corpus, load
from spectralgru.training.data.loading import subset, width
from spectralgru.training.engine import MULTIPLE, Engine
from spectralgru.training.environment import device_name
from spectralgru.training.graph import WARM_UP
from spectralgru.training.job_file import read_job
from spectralgru.training.memory import PROGRAM, bytes_available, bytes_per_run
from spectralgru.training.settings import Job, Replica

Result = TypeVar("Result")
STEPS = 30
# Relative differences: of losses and norms between a captured and a plain step, of a layer from float64, of projected
# matrices from the SVD's.
STEP, LAYER, PROJECTION, BOUND = 1e-3, 1e-4, 1e-5, 1e-6
BOUNDS = (0.6, 1.2, 1.8, float("inf"))
# Start of a training; validation, records and tests beside the steps.
START_SECONDS, OVERHEAD = 20.0, 1.3
# After so many epochs the longest plateau schedule seen had ended.
PLATEAU_EPOCHS = 762


class Trial:
    """Training steps of a job's first runs."""

    def __init__(self, job: Job, corpus: Corpus, replicas: Sequence[Replica], device: torch.device) -> None:
        lanes, steps = job.training.batch_size, job.training.bptt_steps
        self.device, self.at = device, 0
        self.engine = Engine(corpus, job.model, replicas, lanes, device, precision=job.training.precision)
        self.stream = training_stream(corpus, [r.seed for r in replicas], 1, lanes, steps, device)

    def step(self) -> dict[str, torch.Tensor]:
        """The next step: loss, gradient norm, largest singular value."""
        loss, norm = self.engine.step(self.stream.chunk(self.at % len(self.stream)))
        self.at += 1
        return {"loss": loss, "gradient norm": norm, "sigma_max": self.engine.projector.sigma_max}

    def milliseconds(self) -> float:
        """Of a step, over STEPS of them."""
        while self.at <= WARM_UP:
            self.step()
        self._wait()
        begin = time.perf_counter()
        for _ in range(STEPS):
            self.step()
        self._wait()
        return 1000 * (time.perf_counter() - begin) / STEPS

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def check_step(job: Job, corpus: Corpus, device: torch.device) -> Trial:
    """A captured step gives what the same operations give one by one; returns what took them."""
    trial, plain = (Trial(job, corpus, first_seed(job), device) for _ in range(2))
    plain.engine.captured = None
    for step in range(1, WARM_UP + 4):
        for (name, found), expected in zip(trial.step().items(), plain.step().values(), strict=True):
            if not torch.allclose(found, expected, rtol=STEP, atol=0, equal_nan=True):
                raise ArithmeticError(
                    f"{name} of step {step}: {found.tolist()} where plain steps give {expected.tolist()}"
                )
    if device.type == "cuda" and (trial.engine.captured is None or trial.engine.captured.graph is None):
        raise ArithmeticError("no step was captured; is triton installed?")
    return trial


def check_layer(hidden: int, device: torch.device) -> bool:
    """A layer's states and gradients are those of float64 on the host: at its start a training hardly needs them."""
    torch.manual_seed(0)
    multiple = MULTIPLE["cuda"]
    width = -(-hidden // multiple) * multiple
    weights = [width**-0.5 * torch.randn(2, 3 * width, width) for _ in range(2)]
    given = [torch.randn(2, 35, 20, width), torch.randn(2, 20, width), *weights]
    slope = torch.randn(2, 35, 20, width)

    def outcome(where: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [t.to(where, dtype).requires_grad_() for t in given]
        states = gru_layer(*leaves)[0]
        return [states.detach(), *torch.autograd.grad(states, leaves, slope.to(states))]

    expected = outcome(torch.device("cpu"), torch.float64)
    for found, wanted in zip(outcome(device, torch.float32), expected, strict=True):
        error = float((found.cpu().double() - wanted).norm() / wanted.norm())
        if not error <= LAYER:
            raise ArithmeticError(f"states or a gradient are {error:.1e} (relative) away from float64's")
    return True


def check_projection(hidden: int, device: torch.device) -> bool:
    """Projected matrices are the float64 SVD's, from the first call on and after small changes."""
    torch.manual_seed(0)
    bounds = torch.tensor(BOUNDS, device=device)
    projection = SpectralProjection(bounds)
    weight = (
        torch.linalg.qr(torch.randn(hidden, hidden)).Q.expand(len(BOUNDS), -1, -1).contiguous().to(device)
    )
    for call in range(3):
        weight += 0.3 * torch.randn(weight.shape).to(device) / hidden**0.5
        u, s, vh = torch.linalg.svd(weight.cpu().double())
        projection.project_(weight)
        after, limit = weight.cpu().double(), torch.tensor(BOUNDS).double()[:, None]
        expected = (u * s.minimum(limit).unsqueeze(-2)) @ vh
        error = float(((after - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max())
        excess = float((torch.linalg.svdvals(after) / limit).max()) - 1
        if not (error <= PROJECTION and excess <= BOUND):
            raise ArithmeticError(
                f"call {call + 1} is {error:.1e} (relative) away from the SVD's, {excess:.1e} above the bound"
            )
    return True


def passed(name: str, check: Callable[..., Result], *given: Any) -> Result | None:
    """What a check returns; None, and what is wrong said, if it fails."""
    begin = time.perf_counter()
    try:
        result = check(*given)
    except Exception as error:
        traceback.print_exc()
        print(f"smoke: the {name} FAILED: {error}", flush=True)
        return None
    print(f"smoke: the {name} is right ({time.perf_counter() - begin:.1f} s)", flush=True)
    return result


class Timing:
    """How long steps of a job take, by the number of its runs trained together."""

    def __init__(self, job: Job, corpus: Corpus, device: torch.device, seed_trial: Trial | None) -> None:
        self.job, self.corpus, self.device = job, corpus, device
        self.per_seed = len(first_seed(job))
        trial = seed_trial or Trial(job, corpus, first_seed(job), device)
        self.steps_per_epoch = len(trial.stream)
        self.measured = {self.per_seed: trial.milliseconds()}

    def measure(self, runs: int) -> None:
        """Time another number of runs."""
        if runs not in self.measured:
            trial = Trial(self.job, self.corpus, self.job.replicas[:runs], self.device)
            self.measured[runs] = trial.milliseconds()

    def seconds(self, runs: int) -> float:
        """Forecast of a whole training of so many runs together; a straight line through what was measured."""
        (low, a), (high, b) = min(self.measured.items()), max(self.measured.items())
        ms = a if low == high else a + (b - a) * (runs - low) / (high - low)
        training = self.job.training
        epochs = (
            min(training.epochs, PLATEAU_EPOCHS) if training.schedule.kind == "plateau" else training.epochs
        )
        return START_SECONDS + OVERHEAD * epochs * self.steps_per_epoch * ms / 1000

    def fitting(self, seconds: float) -> int:
        """How many of the job's runs end in `seconds`: whole seeds, or else settings of the first; 0 if none."""
        memory = int((bytes_available(self.device) - PROGRAM) / bytes_per_run(self.job, width(self.corpus)))
        most = min(len(self.job.replicas), memory)
        most = max(most - most % self.per_seed, min(most, self.per_seed))
        self.measure(most if self.seconds(self.per_seed) <= seconds else 1)
        sizes = [*range(most, self.per_seed, -self.per_seed), *range(min(most, self.per_seed), 0, -1)]
        return next((size for size in sizes if self.seconds(size) <= seconds), 0)


def first_seed(job: Job) -> list[Replica]:
    """The first seed's runs: a job has its seeds one after the other."""
    return [replica for replica in job.replicas if replica.seed == job.replicas[0].seed]


def plan(jobs: Sequence[Job], data: Path, device: torch.device, seconds: float, out: Path) -> int:
    """Check, time and choose; write all of it to `out`. The exit code."""
    begin = time.monotonic()
    report: dict[str, Any] = {"machine": machine(device), "steps": [], "plan": []}
    for job in jobs:
        corpus, trial = subset(load(data / "prepared" / f"{job.corpus}.npz"), job.data), None
        if job is jobs[0]:
            right = passed("projection", check_projection, job.model.hidden_size, device)
            layer = passed("layer", check_layer, job.model.hidden_size, device)
            trial = passed("captured step", check_step, job, corpus, device)
            if not (right and layer and trial):
                return 1
        timing = Timing(job, corpus, device, trial)
        left = seconds - (time.monotonic() - begin) - sum(row["seconds"] for row in report["plan"])
        runs = timing.fitting(left)
        for size, ms in sorted(timing.measured.items()):
            report["steps"].append({"corpus": job.corpus, "runs": size, "ms": round(ms, 3)})
            print(f"{job.corpus}: {ms:.2f} ms a step with {size} runs", flush=True)
        if runs or not report["plan"]:
            ends = "" if runs else ", which will NOT end in time: their histories come home"
            runs = runs or timing.per_seed
            forecast = timing.seconds(runs)
            report["plan"].append({"corpus": job.corpus, "runs": runs, "seconds": round(forecast, 1)})
            print(
                f"{job.corpus}: {runs} of {len(job.replicas)} runs, about {forecast:.0f} s{ends}", flush=True
            )
        else:
            print(f"{job.corpus}: no time is left for it", flush=True)
        write_json(out, report)
    return 0


def machine(device: torch.device) -> dict[str, str | None]:
    """What the times were measured on."""
    return {"device": device_name(device), "torch": torch.__version__, "cuda": torch.version.cuda}


def main() -> int:
    """Parse the command line and do it; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", nargs="+", type=Path, metavar="JOB.json")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, required=True, help="time for this and for training")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    try:
        jobs = [read_job(path) for path in options.jobs]
        return plan(jobs, options.data, torch.device(options.device), options.seconds, options.out)
    except InputError as error:
        print(f"gpu_check: {error}", flush=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
