"""Everything to be done on one GPU, in one command: checks, benchmarks, and the tables at paper scale.

    python scripts/gpu_campaign.py --minutes 60

Needs torch (with CUDA, and triton, which comes with it), numpy and pytest, and nothing else; the folders `src`, `tests`
and `benchmarks` of this repository; data/prepared/{nottingham,ptb}.{npz,json} (30 MB); and scripts/jobs/*.json, which
`make gpu-campaign` writes where the package is installed. Trains the jobs in the order Nottingham (Table 2), Penn
Treebank (Table 1), stops with a checkpoint when the minutes are over, and goes on from there when called again. Run
directories are those of the workflow, which takes them as its own: `make reproduce` then makes the tables.

Exit codes: 0 all done, 1 something failed, 2 no GPU or no jobs, 75 time is over, call again.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STOPPED = 75
ORDER = ("nottingham", "ptb")
# What a training told to stop may take to write its checkpoint (gigabytes at paper scale).
GRACE_SECONDS = 180.0


def run(name: str, command: Sequence[str], seconds: float) -> int:
    """Run a step, told to stop (SIGTERM) when `seconds` are over; its exit code, 75 if that was the reason."""
    if seconds <= 0:
        return STOPPED
    print(f"== {name}", flush=True)
    begin = time.monotonic()
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    process = subprocess.Popen([sys.executable, *command], env=os.environ | {"PYTHONPATH": path})
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
            code = STOPPED
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print(f"{name}: killed; goes on from its last checkpoint", flush=True)
            code = STOPPED
    print(f"== {name}: exit code {code} after {time.monotonic() - begin:.0f} s", flush=True)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do the steps; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="time for all; a checkpoint ends it")
    parser.add_argument(
        "--steps", nargs="+", choices=("check", "bench", "train"), default=["check", "bench", "train"]
    )
    parser.add_argument("--together", type=int, help="runs in memory at a time; default: all of a job")
    parser.add_argument("--jobs", type=Path, default=ROOT / "scripts" / "jobs")
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "paper")
    parser.add_argument("--checkpoints", type=Path, default=ROOT / ".checkpoints")
    parser.add_argument("--bench-out", type=Path, default=ROOT / "benchmarks" / "local" / "gpu.json")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(arguments)
    end = time.monotonic() + 60 * options.minutes
    sys.path.insert(0, str(ROOT / "src"))
    from spectralgru.errors import InputError
    from spectralgru.training.distributed import device_seen

    try:
        device_seen(options.device)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2

    def left() -> float:
        return end - time.monotonic()

    failed = []
    if "check" in options.steps:
        # Its conftest needs more packages than a bare machine has.
        tests = ["-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", str(ROOT / "tests" / "gpu")]
        if run("check", tests, left()):
            failed.append("check")
    if "bench" in options.steps:
        options.bench_out.parent.mkdir(parents=True, exist_ok=True)
        benchmark = [
            str(ROOT / "benchmarks" / "gpu.py"),
            "--data",
            str(options.data),
            "--out",
            str(options.bench_out),
        ]
        if run("bench", benchmark, left()):
            failed.append("bench")
    over = False
    if "train" in options.steps:
        known = {path.stem: path for path in sorted(options.jobs.glob("*.json"))}
        if not known:
            print(f"{options.jobs}: no jobs; make them with scripts/gpu_jobs.py", file=sys.stderr)
            return 2
        for corpus in [name for name in ORDER if name in known] + [n for n in known if n not in ORDER]:
            places = ["--data", str(options.data), "--out", str(options.out)]
            places += ["--checkpoints", str(options.checkpoints), "--device", options.device]
            places += ["--together", str(options.together)] if options.together else []
            code = run(corpus, ["-m", "spectralgru.training", str(known[corpus]), *places], left())
            over |= code == STOPPED
            if code not in (0, STOPPED):
                failed.append(corpus)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    return STOPPED if over else 0


if __name__ == "__main__":
    sys.exit(main())
