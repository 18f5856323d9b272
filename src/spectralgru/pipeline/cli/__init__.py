"""Train recurrent networks that stay stable, judge a paper by them, and take explosions apart.

Exit codes: 0 ok, 1 failed, 2 bad usage or input, 75 stopped on request (the same command continues)."""

import os
import sys
import traceback
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated

import typer

from spectralgru.errors import INTERRUPTED, explained
from spectralgru.pipeline.cli import (
    data,
    diagnosis,
    experiments,
    project,
    results,
    sampling,
    tracking,
    training,
)
from spectralgru.pipeline.redaction import without_secrets

# In the order of `spectralgru --help`.
COMMANDS = (
    data.fetch,
    data.prepare,
    training.train,
    training.job,
    training.evaluate,
    sampling.sample,
    results.samples,
    tracking.track,
    results.tables,
    results.figures,
    results.claims,
    results.provenance,
    results.report,
    results.article,
    experiments.experiment,
    diagnosis.autopsy,
    project.status,
    tracking.ui,
    project.schema,
    project.bench,
    project.doctor,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for command in COMMANDS:
    app.command()(command)


def _print_version(chosen: bool) -> None:
    if chosen:
        typer.echo(f"spectralgru {version('spectralgru')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="show the version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry point of `spectralgru`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # characters outside the locale must not end it
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer says nothing
            typer.echo("spectralgru: interrupted", err=True)
        raise
    except Exception as error:
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        if "--debug" in sys.argv:
            typer.echo(without_secrets(traceback.format_exc(), uri), err=True)
        code, line = explained(error)
        typer.echo(f"spectralgru: {without_secrets(line, uri)}", err=True)
        sys.exit(code)
