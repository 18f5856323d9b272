"""Commands about the campaign, the settings and this machine."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from spectralgru.errors import InputError, RunError
from spectralgru.pipeline.cli import options


def status(
    params: options.Params = options.PARAMS,
    scale: options.Scale = None,
    out: options.Out = None,
    live: Annotated[bool, typer.Option("--watch", help="refresh until every run has ended")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between refreshes with --watch")] = 2.0,
) -> None:
    """Sum a campaign up: runs finished, diverged, running, interrupted, queued, and the time left."""
    from spectralgru.pipeline.status import describe
    from spectralgru.pipeline.watch import watch

    chosen = options.load(params, scale)
    root = options.results(out, chosen.scale)
    if live:
        watch(chosen, root, every)
    else:
        typer.echo(describe(chosen, root))


def schema() -> None:
    """Print the JSON schema of params.yaml."""
    from spectralgru.pipeline.params import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="default: all")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Measure the engine against named baselines: benchmarks/results/*.{json,md,svg}."""
    if not Path("benchmarks/__main__.py").exists():
        raise InputError("benchmarks/: not here; run `spectralgru bench` in a checkout of the repository")
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *(names or []), "--device", device])


def doctor(data: options.Data = options.DATA, params: options.Params = options.PARAMS) -> None:
    """Say what this machine has, what is missing, and which trainings fit."""
    from spectralgru.pipeline.doctor import diagnose

    if not diagnose(data, params):
        raise RunError("something is missing; see the lines above that do not say ok")
