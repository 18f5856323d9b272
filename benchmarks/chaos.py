"""A campaign of 20 runs that is disturbed at random, against the same campaign left alone.

    python -m benchmarks.chaos --disturbances 30 --out chaos.json

Trainers, the shells around them and Snakemake itself get SIGKILL; files of finished runs are deleted, halved or one bit
of them is flipped; jobs by hand train some of the same runs at the same time, on one process or on two; files are
dated ahead, as by a clock that is set back. Whatever fell is started again, as a person or a cluster would. In the end
the tables must be the same, byte by byte, and no run may be lost.
"""

import argparse
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import yaml
from benchmarks.measuring import tell

from spectralgru.pipeline.params import read_params
from spectralgru.records import RUN_FILES

ROOT = Path(__file__).parents[1]
TABLE = "results/quick/tables/table1.csv"
SEEDS = [0, 1]


def make_campaign(folder: Path, data: Path) -> None:
    """Words at a tenth of quick scale: 10 settings, 2 seeds."""
    values = read_params(ROOT / "params.yaml")
    values["quick"] |= {"run": ["ptb"], "seeds": SEEDS}
    ptb = values["quick"]["settings"]["ptb"]
    ptb["data"] = {"train": 6000, "valid": 2000, "test": 2000, "vocabulary": 200}
    ptb["model"]["hidden_size"] = 64
    ptb["training"] |= {"epochs": 12, "schedule": {"kind": "decay", "patience": 6, "factor": 1.1}}
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    shutil.copytree(data / "prepared", folder / "data/prepared")


def environment() -> dict[str, str]:
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SPECTRALGRU_CHECKPOINT_SECONDS": "1",
    }


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Snakemake, in a session of its own; leftover locks of a killed one are removed first."""
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    with (folder / "snakemake.log").open("ab") as log:
        options = {"cwd": folder, "env": environment(), "stdout": log, "stderr": log}
        subprocess.run([*snakemake, "--unlock", TABLE], check=True, **options)
        return subprocess.Popen([*snakemake, TABLE], start_new_session=True, **options)


def victims(folder: Path) -> dict[str, list[int]]:
    """Processes at work in the campaign's folder, by what they are."""
    found: dict[str, list[int]] = {"trainer": [], "snakemake": [], "shell": []}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if (process / "cwd").resolve() != folder.resolve():
                continue
        except OSError:
            continue
        if b"train" in arguments or b"spectralgru.training" in arguments:
            found["trainer"].append(int(process.name))
        elif b"snakemake" in arguments:
            found["snakemake"].append(int(process.name))
        elif arguments[0].endswith(b"bash"):
            found["shell"].append(int(process.name))
    return {kind: pids for kind, pids in found.items() if pids}


def kill(folder: Path, draw: random.Random) -> str | None:
    """Kill a process at work: what it was."""
    there = victims(folder)
    kinds = [kind for kind in ("trainer", "trainer", "trainer", "snakemake", "shell") if kind in there]
    if not kinds:
        return None
    kind = draw.choice(kinds)
    try:
        os.kill(draw.choice(there[kind]), signal.SIGKILL)
    except ProcessLookupError:
        return None
    return f"{kind} killed"


def damage(folder: Path, draw: random.Random) -> str | None:
    """Damage a file of a finished run: what was done to which."""
    finished = sorted((folder / "results/quick/runs").glob("*/*/seed-*/run.json"))
    if not finished:
        return None
    path = draw.choice(finished).with_name(draw.choice([*RUN_FILES, "run.json"]))
    how = draw.choice(["deleted", "halved", "flipped"])
    try:
        content = bytearray(path.read_bytes())
        if how == "deleted":
            path.unlink()
        elif how == "halved":
            path.write_bytes(content[: len(content) // 2])
        else:
            content[draw.randrange(len(content))] ^= 1
            path.write_bytes(content)
    except FileNotFoundError:  # of a run damaged before
        return None
    return f"{path.name} {how}"


def overlap(folder: Path, draw: random.Random) -> str:
    """Start a job by hand that trains a setting, or one seed of it, on one process or on two."""
    values = yaml.safe_load((folder / "params.yaml").read_text())
    methods = values["quick"]["settings"]["ptb"]["methods"]
    method = draw.choice(["constraint", "clipping"])
    seeds = draw.choice([[0], [1], SEEDS])
    processes = draw.choice([1, len(seeds)])  # more would split batches, to the same numbers up to rounding
    options = ["--corpus", "ptb", "--method", method, "--value", str(draw.choice(methods[method]))]
    options += [option for seed in seeds for option in ("--seeds", str(seed))]
    options += ["--processes", str(processes), "--threads", str(processes)]
    command = [str(Path(sys.executable).parent / "spectralgru"), "train", *options]
    with (folder / "by-hand.log").open("ab") as log:
        subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
    return f"job of {len(seeds)} seeds, {processes} processes"


def set_clock_back(folder: Path, draw: random.Random) -> str:
    """Date every file up to two hours ahead of now, as a clock that is set back leaves them."""
    ahead = time.time() + draw.uniform(60, 7200)
    for part in ("data", "results", "logs", ".snakemake", ".checkpoints"):
        for path in (folder / part).rglob("*"):
            with suppress(FileNotFoundError):  # of a process at work
                os.utime(path, (ahead, ahead), follow_symlinks=False)
    return "clock set back"


DISTURBANCES = (kill, damage, overlap, set_clock_back)


def disturb(folder: Path, count: int, draw: random.Random) -> tuple[Counter[str], int, float]:
    """Disturb the campaign `count` times while it runs to its end: what was done, starts needed, seconds."""
    done: Counter[str] = Counter()
    begin, starts, disturbed = time.monotonic(), 1, False
    process = start(folder)
    while True:
        if process.poll() is not None:
            at_work = bool(victims(folder))
            if process.returncode == 0 and done.total() >= count and not disturbed and not at_work:
                break
            # As a person would: what was done behind its back is seen by the next start.
            process, starts, disturbed = start(folder), starts + 1, at_work
        time.sleep(draw.uniform(1, 5) if count else 1)
        if done.total() < count and (what := draw.choice(DISTURBANCES)(folder, draw)):
            done[what] += 1
            disturbed = True
    return done, starts, time.monotonic() - begin


def results(folder: Path) -> dict[str, bytes]:
    """Tables, models and traces, byte by byte."""
    root = folder / "results/quick"
    paths = [*root.glob("tables/table*"), *root.rglob("model.safetensors"), *root.rglob("steps.csv")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--disturbances", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the random disturbances")
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--out", type=Path, help="JSON file for the outcome")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        calm, wild = Path(name) / "calm", Path(name) / "wild"
        for folder in (calm, wild):
            make_campaign(folder, options.data)
        _, _, undisturbed_seconds = disturb(calm, 0, random.Random(0))
        done, starts, seconds = disturb(wild, options.disturbances, random.Random(options.seed))
        expected, found = results(calm), results(wild)
        runs = [path for path in expected if path.endswith("model.safetensors")]
        outcome = {
            "runs": len(runs),
            "disturbances": done.total(),
            "done": dict(sorted(done.items())),
            "workflow_starts": starts,
            "runs_lost": sum(found.get(path) != expected[path] for path in runs),
            "tables_identical": all(
                found.get(path) == content for path, content in expected.items() if "table" in path
            ),
            "files_compared": len(expected),
            "files_differing": sum(found.get(path) != content for path, content in expected.items()),
            "seconds": round(seconds),
            "seconds_undisturbed": round(undisturbed_seconds),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }
    tell(outcome, options.out)
    good = outcome["tables_identical"] and not outcome["runs_lost"] and not outcome["files_differing"]
    return 0 if good and len(runs) == 20 and done.total() >= options.disturbances else 1


if __name__ == "__main__":
    sys.exit(main())
