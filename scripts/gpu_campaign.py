"""The paper's tables on one GPU, in one command that also returns its results.

    python scripts/gpu_campaign.py --bring-home OUT --seconds 560 --seed 0 1

For a machine lent for a quarter of an hour, of which only small files return. Needs torch (with CUDA, and triton, which
comes with it), numpy and pytest; the folders `src`, `tests` and `scripts`; data/prepared/{ptb,nottingham}.{npz,json}
(30 MB); and scripts/jobs/*.json, which `gpu_jobs.py` writes where the package is installed.

Within `--seconds`: checks the arithmetic (`gpu_check.py`; a failure ends it here and says which) and chooses, from the
time of a step, how many runs can be trained to their end: PTB before Nottingham, whole seeds before single settings.
Then starts the trainer, which outlives the command, runs tests/gpu beside it, and writes to OUT every minute
(`gpu_home.py`): runs.tar.gz, bench.json, logs. The same command again finds the trainer, waits, and writes to OUT; a
trainer that has ended before its work goes on. Training ends at a deadline of its own. Run directories are those of the
workflow: unpacked in results/paper, `spectralgru tables` takes them.

Exit codes: 0 all done, 1 something failed, 2 bad usage or no GPU, 75 not all done yet.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from gpu_home import BENCH, LOG, TESTS, TESTS_LOG, TRAINER_LOG, Home
from gpu_trainer import CODES, LOCK, Process, ended, start

from spectralgru.errors import InputError, RunError
from spectralgru.files import write_json
from spectralgru.records import run_path
from spectralgru.training.distributed import device_seen
from spectralgru.training.environment import COMMIT
from spectralgru.training.job_file import read_job
from spectralgru.training.locks import try_lock
from spectralgru.training.settings import Job, code_sha256

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ORDER = ("ptb", "nottingham")
STOPPED = 75
# What the check may take, and what remains for the last files of a command.
CHECK_SECONDS, LAST_SECONDS = 240.0, 8.0
TRAIN_SECONDS = 660.0


class Campaign:
    """What a command line asks for. Plan and logs lie in `work`, a folder of this request alone."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises InputError if there is no such device, job or seed."""
        self.options, self.begin = options, time.monotonic()
        device_seen(options.device)
        self.jobs, commit = chosen_jobs(options.jobs, options.corpora, options.seed)
        os.environ[COMMIT] = commit
        request = json.dumps([[asdict(job) for job in self.jobs], code_sha256(), options.device])
        self.lock = options.checkpoints / "gpu-campaign" / LOCK
        self.work: Path = self.lock.parent / hashlib.sha256(request.encode()).hexdigest()[:16]
        self.work.mkdir(parents=True, exist_ok=True)
        runs = (
            run_path("", job.corpus, r.method, r.value, r.seed) for job in self.jobs for r in job.replicas
        )
        self.home = Home(options.bring_home, options.out, runs, self.work)

    @property
    def left(self) -> float:
        """Seconds left of this command."""
        return self.begin + self.options.seconds - LAST_SECONDS - time.monotonic()

    @property
    def train_left(self) -> float:
        """Seconds left of training, of a trainer that this command starts."""
        return self.begin + max(self.options.seconds, self.options.train_seconds) - time.monotonic()

    def run(self) -> int:
        """All of it; the exit code."""
        lock, trainer, tests = try_lock(self.lock), None, None
        trained = self.lock.with_name("request")
        if lock is None and trained.read_text() != self.work.name:
            raise InputError(f"{self.lock.parent}: another training is under way; wait for its deadline")
        if lock is None:
            self.say("a trainer is at work: waiting for it")
        else:
            new = not (self.work / BENCH).exists()
            if new and (code := self.check()) and not (self.work / BENCH).exists():
                self.say("nothing is trained")
                self.home.bring()
                return code
            trained.write_text(self.work.name)
            lock.release()
            trainer = self.train()
            tests = self.test() if new else None
        return self.watch(trainer, tests)

    def check(self) -> int:
        """Smoke test and plan; the exit code."""
        files = [self.write_job(job, len(job.replicas)) for job in self.jobs]
        o, seconds = self.options, min(CHECK_SECONDS, self.left)
        places = [f"--data={o.data}", f"--device={o.device}", f"--out={self.work / BENCH}"]
        command = [f"{HERE}/gpu_check.py", *files, *places, f"--seconds={self.train_left}"]
        checking = start(command, self.work / LOG)
        code = ended(checking, seconds)
        print((self.work / LOG).read_text(errors="replace"), end="", flush=True)
        if code is None:
            self.say(f"smoke: no end within {seconds:.0f} s")
        return 1 if code is None else code

    def train(self) -> Process:
        """Start the trainer, which outlives this command."""
        (self.work / CODES).unlink(missing_ok=True)
        planned = {row["corpus"]: row["runs"] for row in json.loads((self.work / BENCH).read_text())["plan"]}
        jobs = [self.write_job(job, planned[job.corpus]) for job in self.jobs if job.corpus in planned]
        o, until = self.options, time.monotonic() + self.train_left
        places = [
            f"--data={o.data}",
            f"--out={o.out}",
            f"--checkpoints={o.checkpoints}",
            f"--device={o.device}",
            "--checkpoint-seconds=600",  # large, and lost with a machine that is lent
        ]
        command = [f"{HERE}/gpu_trainer.py", str(self.work), f"--until={until}", *jobs, "--", *places]
        return start(command, self.work / TRAINER_LOG, start_new_session=True)

    def test(self) -> Process:
        """Start tests/gpu; its conftest needs more packages than a bare machine has."""
        options = ["-q", "--noconftest", "-p", "no:cacheprovider", f"--junitxml={self.work / TESTS}"]
        return start(["-m", "pytest", *options, f"{ROOT}/tests/gpu"], self.work / TESTS_LOG)

    def watch(self, trainer: Process | None, tests: Process | None) -> int:
        """Bring home every minute until the trainer and the tests have ended or the time is over; the exit code."""
        lock, brought, failed = None, float("-inf"), self.work / "tests.failed"
        while (lock is None or tests) and self.left > 0:
            if lock is None and (trainer is None or trainer.poll() is not None):
                lock = try_lock(self.lock)
            if tests and (code := tests.poll()) is not None:
                self.say(f"tests/gpu: exit code {code}")
                tests = None
                if code:
                    failed.touch()
            if time.monotonic() - brought > self.options.every:
                self.home.bring()
                brought = time.monotonic()
            time.sleep(min(0.5, max(self.left, 0)))
        if tests:
            tests.send_signal(signal.SIGINT)  # it then writes its report
            ended(tests, 3)
            self.say("tests/gpu: no time is left for them")
        code = self.outcome() if lock is not None else STOPPED
        said = {0: "all planned runs are trained", STOPPED: "not all planned runs are trained"}
        self.say(said.get(code, "training failed"))
        for run in self.home.bring():
            self.say(f"{run}: no room for its record")
        return code or int(failed.exists())

    def outcome(self) -> int:
        """What the trainer's exit codes, or their absence, come to."""
        path = self.work / CODES
        codes = json.loads(path.read_text()) if path.exists() else {"the trainer, which was killed": 1}
        for name, code in codes.items():
            how = "stopped at the deadline" if code in (None, STOPPED) else f"exit code {code}"
            self.say(f"{name}: {how}")
        if any(code not in (0, None, STOPPED) for code in codes.values()):
            return 1
        return STOPPED if any(codes.values()) or None in codes.values() else 0

    def write_job(self, job: Job, runs: int) -> str:
        """The first runs of a job, as the trainer reads it; the path."""
        path = self.work / f"{job.corpus}.json"
        write_json(path, asdict(replace(job, replicas=job.replicas[:runs])))
        return str(path)

    def say(self, line: str) -> None:
        """Print a line and keep it."""
        print(line, flush=True)
        with (self.work / LOG).open("a") as log:
            log.write(line + "\n")


def chosen_jobs(folder: Path, corpora: Sequence[str] | None, seeds: Sequence[int]) -> tuple[list[Job], str]:
    """The jobs in order, with the runs of these seeds alone, and the commit of their code, "" if unknown."""
    known = sorted(
        (path.stem for path in folder.glob("*.json")), key=lambda name: ([*ORDER, name].index(name), name)
    )
    jobs, source = [], folder / "source"
    commit, _, code = (source.read_text() if source.exists() else "").partition(" ")
    for corpus in dict.fromkeys(known if corpora is None else corpora):
        job = read_job(folder / f"{corpus}.json")
        for seed in seeds:
            if seed not in {replica.seed for replica in job.replicas}:
                raise InputError(
                    f"--seed {seed}: {folder / corpus}.json has no such seed; make it with gpu_jobs.py"
                )
        jobs.append(
            replace(
                job,
                replicas=tuple(r for seed in dict.fromkeys(seeds) for r in job.replicas if r.seed == seed),
            )
        )
    if not jobs:
        raise InputError(f"{folder}: no jobs; make them with scripts/gpu_jobs.py")
    return jobs, commit if code.strip() == code_sha256() else ""


def main() -> int:
    """Parse the command line and do it; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bring-home", type=Path, required=True, metavar="OUT", help="folder of what comes home"
    )
    parser.add_argument("--seconds", type=float, default=560.0, help="time for this command")
    parser.add_argument(
        "--train-seconds", type=float, default=TRAIN_SECONDS,
        help="from now to the end of training; at least --seconds",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[0], help="in order; as many as fit are trained"
    )
    parser.add_argument("--corpora", nargs="+", help="in order; default: all jobs, PTB first")
    parser.add_argument("--jobs", type=Path, default=ROOT / "scripts" / "jobs")
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "paper")
    parser.add_argument("--checkpoints", type=Path, default=ROOT / ".checkpoints")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--every", type=float, default=60.0, help="seconds between two times that OUT is written"
    )
    options = parser.parse_args()
    for name in ("bring_home", "jobs", "data", "out", "checkpoints"):
        setattr(options, name, getattr(options, name).resolve())
    try:
        return Campaign(options).run()
    except (InputError, RunError) as error:
        print(f"gpu_campaign: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1


if __name__ == "__main__":
    sys.exit(main())
