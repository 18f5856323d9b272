"""What this machine has and what is missing."""

import shutil
from importlib import metadata
from pathlib import Path

import typer

from spectralgru.errors import InputError
from spectralgru.pipeline.corpora import CORPORA
from spectralgru.pipeline.params import load_params
from spectralgru.training.data.dataset import load

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
    typer.echo(f"ok       {torch.get_num_threads()} CPU threads, {gpus} GPU{'' if gpus == 1 else 's'}")
    compiler, remark = sweeps.compiler_version(), sweeps.remark()
    compiled = "absent   compiled sweeps (GRUs on CPUs half as fast)"
    compiled = compiled if compiler == "none" else f"ok       c++ {compiler}"
    typer.echo(f"{compiled}: {remark}" if remark else compiled)
    for program, purpose in (("git", "commits in run records"), ("chromium", "browser tests")):
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
            typer.echo(f"ok       {path} {load(path).sha256[:12]}")
        except InputError as error:
            good = False
            typer.echo(f"BAD      {error}")
    return good
