"""Commands for MLflow."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from spectralgru.files import write_json
from spectralgru.pipeline.cli import options


def track(
    params: options.Params = options.PARAMS,
    scale: options.Scale = None,
    corpora: options.Corpora = None,
    out: options.Out = None,
    data: options.Data = options.DATA,
    summary: Annotated[Path | None, typer.Option(help="write what was done to this JSON file")] = None,
    keep_on: Annotated[
        bool, typer.Option("--follow", help="keep importing until every run has ended")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between imports with --follow")] = 5.0,
) -> None:
    """Import run directories into MLflow (MLFLOW_TRACKING_URI, else mlflow.db); again: only what changed."""
    from spectralgru.pipeline.summary import files_of
    from spectralgru.pipeline.tracking import follow
    from spectralgru.pipeline.tracking import track as track_runs
    from spectralgru.records import read_run

    chosen = options.load(params, scale)
    root = options.results(out, chosen.scale)
    names = corpora or chosen.chosen_corpora()
    runs = [root / path for corpus in names for path in chosen.run_directories(corpus)]
    samples = [path for path in files_of(root / "samples") if path.suffix in (".svg", ".mid", ".mp3")]
    shown = [*sorted((root / "figures").glob("*.svg")), *samples]
    figures = [path for path in shown if path.name.startswith(tuple(f"{corpus}-" for corpus in names))]

    def step() -> Any:
        tracked = track_runs(root, runs, figures=figures, data=data, scale=chosen.scale)
        typer.echo(
            f"{tracked.uri}: {tracked.written} MLflow runs written, {tracked.unchanged} unchanged, "
            f"{tracked.running} under way"
        )
        for name in tracked.models:
            typer.echo(f"registered: {name}")
        for reason in tracked.not_registered:
            typer.echo(f"not registered: {reason}", err=True)
        return tracked

    tracked = follow(step, runs, every) if keep_on else step()
    if summary is not None:
        keys = {
            path.as_posix(): read_run(root / path).key
            for corpus in names
            for path in chosen.run_directories(corpus)
        }
        write_json(summary, asdict(tracked) | {"runs": keys})


def ui(
    port: Annotated[int, typer.Option(help="0: any free port")] = 5000,
    host: Annotated[str, typer.Option(help="host name or address to listen on")] = "127.0.0.1",
) -> None:
    """Open MLflow on the tracked runs, at an address that only this command tells."""
    from spectralgru.pipeline.tracking import serve

    serve(port, host, lambda address: typer.echo(f"MLflow: {address} (Ctrl-C ends it)", err=True))
