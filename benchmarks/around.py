"""What surrounds training, against what each command cannot do without: importing torch, pandas or MLflow, Snakemake.

A campaign of a minute (`.test/config`) is run first; then each command finds everything done, or does it again. CPU
time of whole processes, started in turn.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.measuring import spread, write

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PLAN = f"snakemake --snakefile {ROOT}/Snakefile --configfile {ROOT}/.test/config/config.yaml --cores 2"
OF_ALL = "--params results/quick/params.yaml --scale quick"
TRAINED = f"train --corpus ptb --method constraint --value 0.2 {OF_ALL}"
BASELINES = ("snakemake --version", *(f"python -c 'import {name}'" for name in ("torch", "pandas", "mlflow")))
# Each with its baseline.
COMMANDS = {
    f"{PLAN} -n": BASELINES[0],
    f"spectralgru {TRAINED}": BASELINES[1],
    **{
        f"spectralgru {name} {OF_ALL}": BASELINES[2]
        for name in ("tables", "figures", "claims", "report", "article")
    },
    f"spectralgru track {OF_ALL}": BASELINES[3],
    "spectralgru --help": BASELINES[2],
}


def spent(command: str, folder: Path) -> tuple[float, float]:
    """CPU seconds and seconds that a command takes."""
    before, begin = os.times(), time.monotonic()
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        command, shell=True, cwd=folder, env=os.environ | {"PATH": path}, check=True, capture_output=True
    )
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.monotonic() - begin


def run(device: str, repeats: int = 5) -> None:
    """Measure, print and write."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        spent(PLAN, folder)
        turns = [
            {command: spent(command, folder) for command in (*BASELINES, *COMMANDS)} for _ in range(repeats)
        ]
    rows = []
    for command, baseline in COMMANDS.items():
        cpu, wall = zip(*(turn[command] for turn in turns), strict=True)
        row = {"command": " ".join(command.replace(OF_ALL, "").replace(PLAN, "snakemake").split())}
        row |= {"CPU s": median(cpu), "wall s": median(wall), "baseline": baseline}
        row["ratio"] = median(turn[command][0] / turn[baseline][0] for turn in turns)
        rows.append(row | {"spread": spread(cpu)})

    def draw(axes) -> None:
        axes.barh([row["command"] for row in rows], [row["ratio"] for row in rows])
        axes.set_xlabel("CPU time over that of the baseline")

    write(
        "around", "What surrounds training, in a finished campaign", rows, draw, device, {"repeats": repeats}
    )
