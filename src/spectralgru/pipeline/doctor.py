"""Says what this machine has and what is missing."""

import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import get_args

import typer

from spectralgru.errors import InputError
from spectralgru.pipeline.corpora import CORPORA
from spectralgru.pipeline.params import Scale, load_params
from spectralgru.pipeline.results.names import counted
from spectralgru.training.data.dataset import Corpus, load
from spectralgru.training.data.loading import width
from spectralgru.training.memory import PROGRAM, bytes_available, bytes_per_run

PROGRAMS = (
    ("git", "commits in run records"),
    ("sbatch", "workflow/profiles/slurm"),
    ("apptainer", "containers on clusters"),
    ("podman", "make image"),
    ("chromium", "browser tests"),
)
NEEDED = ("torch", "numpy", "pandas", "matplotlib", "mido", "snakemake", "mlflow", "dvc")


def diagnose(data: Path, params: Path) -> bool:
    """Print one line for each check; False if something needed is missing. Corpora not yet prepared are not a fault."""
    import torch

    from spectralgru.recurrent import compiled as sweeps

    good = True
    for package in NEEDED:
        try:
            typer.echo(f"ok       {package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            good = False
            typer.echo(f"MISSING  {package}: install the pipeline extra (make setup)")
    gpus = torch.cuda.device_count()
    typer.echo(f"ok       {torch.get_num_threads()} CPU threads, {counted(gpus, 'GPU')}")
    compiler, remark = sweeps.compiler_version(), sweeps.remark()
    compiled = "absent   compiled sweeps (GRUs on CPUs run at half speed)"
    compiled = compiled if compiler == "none" else f"ok       c++ {compiler}"
    typer.echo(f"{compiled}: {remark}" if remark else compiled)
    for program, purpose in PROGRAMS:
        location = shutil.which(program)
        typer.echo(f"{'ok      ' if location else 'absent  '} {program} ({purpose})")
    corpora = list(CORPORA)
    try:
        chosen = load_params(params)
        corpora += chosen.own
        typer.echo(f"ok       {params}: scale {chosen.scale}")
    except InputError as error:
        good = False
        typer.echo(f"BAD      {error}")
    for corpus in corpora:
        path = data / "prepared" / f"{corpus}.npz"
        if not path.exists():
            typer.echo(f"absent   {path}: spectralgru prepare --corpus {corpus}")
            continue
        try:
            loaded = load(path)
            typer.echo(f"ok       {path} {loaded.sha256[:12]}")
            _say_what_fits(params, loaded)
        except InputError as error:
            good = False
            typer.echo(f"BAD      {error}")
    return good


def _say_what_fits(params: Path, corpus: Corpus) -> None:
    """Say how many jobs (a setting with its seeds) of each scale can be trained on a corpus at once."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    free, cores = bytes_available(device), len(os.sched_getaffinity(0))
    for scale in get_args(Scale):
        try:
            chosen = load_params(params, {"scale": scale})
            job = chosen.job(corpus.name, chosen.settings(corpus.name)[:1])
        except InputError:  # no such file, or no settings of this corpus at this scale
            continue
        need = PROGRAM + len(job.replicas) * bytes_per_run(job, width(corpus))
        fitting = min(int(free // need), cores if device.type == "cpu" else 1)
        sign = "can run " if fitting else "too big "
        typer.echo(
            f"{sign} {corpus.name}, {scale} scale: {fitting} jobs of {len(job.replicas)} runs at once; each needs "
            f"about {need / 1e9:.1f} of {free / 1e9:.1f} GB"
        )
