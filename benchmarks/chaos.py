"""A campaign of 20 runs whose processes are killed at random, against the same campaign left alone.

    python -m benchmarks.chaos --kills 30 --out chaos.json

Trainers, the shells around them and Snakemake itself get SIGKILL; whatever was killed is started again, as a person or
a cluster would. In the end the tables must be the same, byte by byte, and no run may be lost.
"""

import argparse
import json
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
from pathlib import Path

import yaml

from spectralgru.pipeline.params import read_params

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
    ptb["training"] |= {"epochs": 30, "schedule": {"kind": "decay", "patience": 15, "factor": 1.1}}
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    shutil.copytree(data / "prepared", folder / "data/prepared")


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Snakemake, in a session of its own; leftover locks of a killed one are removed first."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SPECTRALGRU_CHECKPOINT_SECONDS": "1",
    }
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    with (folder / "snakemake.log").open("ab") as log:
        options = {"cwd": folder, "env": environment, "stdout": log, "stderr": log}
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
        if b"train" in arguments:
            found["trainer"].append(int(process.name))
        elif b"snakemake" in arguments:
            found["snakemake"].append(int(process.name))
        elif arguments[0].endswith(b"bash"):
            found["shell"].append(int(process.name))
    return {kind: pids for kind, pids in found.items() if pids}


def disturb(folder: Path, kills: int, draw: random.Random) -> tuple[Counter[str], int, float]:
    """Kill at least `kills` processes while the campaign runs to its end: who was killed, starts needed, seconds."""
    killed: Counter[str] = Counter()
    begin, starts = time.monotonic(), 1
    process = start(folder)
    while True:
        if process.poll() is not None:
            if process.returncode == 0:
                break
            process, starts = start(folder), starts + 1
        time.sleep(draw.uniform(1, 5))
        there = victims(folder)
        if killed.total() < kills and there:
            kinds = [
                kind for kind in ("trainer", "trainer", "trainer", "snakemake", "shell") if kind in there
            ]
            kind = draw.choice(kinds)
            try:
                os.kill(draw.choice(there[kind]), signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed[kind] += 1
    return killed, starts, time.monotonic() - begin


def results(folder: Path) -> dict[str, bytes]:
    """Tables, models and traces, byte by byte."""
    root = folder / "results/quick"
    paths = [*root.glob("tables/table*"), *root.rglob("model.safetensors"), *root.rglob("steps.csv")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the random kills")
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--out", type=Path, help="JSON file for the outcome")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        calm, wild = Path(name) / "calm", Path(name) / "wild"
        for folder in (calm, wild):
            make_campaign(folder, options.data)
        _, _, undisturbed_seconds = disturb(calm, 0, random.Random(0))
        killed, starts, seconds = disturb(wild, options.kills, random.Random(options.seed))
        expected, found = results(calm), results(wild)
        runs = [path for path in expected if path.endswith("model.safetensors")]
        outcome = {
            "runs": len(runs),
            "kills": killed.total(),
            "killed": dict(killed),
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
    text = json.dumps(outcome, indent=2)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    good = outcome["tables_identical"] and not outcome["runs_lost"] and not outcome["files_differing"]
    return 0 if good and len(runs) == 20 and killed.total() >= options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
