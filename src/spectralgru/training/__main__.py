"""The trainer alone, for machines that have only torch and numpy.

python -m spectralgru.training JOB.json --data data --out results/paper
python -m spectralgru.training JOB.json --data data --out results/paper --processes 2

JOB.json is what `spectralgru job` prints. Repeated, the command resumes from the checkpoint or, if finished, does
nothing.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from spectralgru.errors import InputError, explained, say
from spectralgru.training.distributed import joined
from spectralgru.training.environment import set_threads
from spectralgru.training.job_file import read_job
from spectralgru.training.launch import launch
from spectralgru.training.train import CHECKPOINT_SECONDS, train


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and train; the exit code."""
    parser = argparse.ArgumentParser(
        prog="spectralgru.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", type=Path, metavar="JOB.json")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of prepared corpora")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--checkpoints", type=Path, default=Path(".checkpoints"))
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=CHECKPOINT_SECONDS, help="time between two checkpoints"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="CPU threads of each process")
    parser.add_argument("--together", type=int, help="runs trained at a time; default: all")
    parser.add_argument(
        "--processes", type=int, default=1, help="processes that split every batch; default: 1"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args(arguments)
    try:
        for name, least in (("processes", 1), ("together", 1), ("checkpoint-seconds", 0)):
            value = vars(options)[name.replace("-", "_")]
            if value is not None and not least <= value < 2**31:
                raise InputError(f"--{name} {value}: give a number, {least} or more")
        set_threads(options.threads)
        job = read_job(options.job)
        if options.processes > 1:
            others = {name: v for name, v in vars(options).items() if name not in ("job", "processes")}
            launch(job, others, options.processes, "batch")
            return 0
        with joined(options.device) as (ranks, device):
            prepared = options.data / "prepared" / f"{job.corpus}.npz"
            places = (prepared, options.out, options.checkpoints)
            runs = train(job, *places, device, say, options.checkpoint_seconds, ranks, options.together)
        if ranks.first:
            for run in runs:
                outcome = json.dumps(run.diverged or run.best)
                say(f"{run.corpus} {run.setting} seed {run.seed}: {run.status} {outcome}")
    except (Exception, KeyboardInterrupt) as error:
        if options.debug:
            raise
        code, line = explained(error)
        print(f"spectralgru: {line}", file=sys.stderr)
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
