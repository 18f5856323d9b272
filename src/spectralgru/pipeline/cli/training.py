"""Commands that train and evaluate."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from spectralgru.pipeline.cli import options
from spectralgru.training.data.dataset import Split


def train(
    corpus: options.Corpus,
    method: options.Method,
    out: options.Out = None,
    value: options.Value = None,
    seeds: options.Seeds = None,
    scale: options.Scale = None,
    data: options.Data = options.DATA,
    params: options.Params = options.PARAMS,
    changes: options.Changes = None,
    gpus: options.Gpus = 0,
    processes: options.Processes = 1,
    device: options.Device = None,
    threads: options.Threads = None,
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
    checkpoint_seconds: Annotated[
        float,
        typer.Option(min=0, envvar="SPECTRALGRU_CHECKPOINT_SECONDS", help="time between two checkpoints"),
    ] = 60.0,
    together: Annotated[
        int | None, typer.Option(min=1, help="runs trained at a time (fewer need less memory); default: all")
    ] = None,
) -> None:
    """Train one setting with all its seeds; run again, it resumes or, when finished, does nothing."""
    from spectralgru.pipeline.params import parse_setting, with_changes
    from spectralgru.training.launch import train_in

    chosen = with_changes(options.load_for(corpus, data, params, scale), corpus, changes or [])
    job = chosen.job(corpus, [parse_setting(method, value)], seeds)
    root = options.results(out, chosen.scale)
    runs = train_in(
        *(job, data, root, checkpoints),
        processes=processes,
        split=chosen.parallel,
        gpus=gpus,
        device=device,
        threads=threads,
        checkpoint_seconds=checkpoint_seconds,
        together=together,
    )
    for run in runs:
        typer.echo(
            f"{run.corpus} {run.setting} seed {run.seed}: {run.status} {json.dumps(run.diverged or run.best)}"
        )


def job(
    corpus: options.Corpus,
    method: options.Method,
    value: options.Value = None,
    seeds: options.Seeds = None,
    scale: options.Scale = None,
    data: options.Data = options.DATA,
    params: options.Params = options.PARAMS,
    changes: options.Changes = None,
) -> None:
    """Print a training as JSON, for `python -m spectralgru.training` on a machine with torch and numpy alone."""
    from spectralgru.pipeline.params import parse_setting, with_changes

    chosen = with_changes(options.load_for(corpus, data, params, scale), corpus, changes or [])
    typer.echo(json.dumps(asdict(chosen.job(corpus, [parse_setting(method, value)], seeds)), indent=2))


def evaluate(
    run: Annotated[Path, typer.Argument(help="a run directory")],
    data: options.Data = options.DATA,
    split: Annotated[Split, typer.Option(help="train, valid or test")] = "test",
) -> None:
    """Compute the loss and metric of a run's saved model again."""
    from spectralgru.pipeline.saved import evaluate_run

    typer.echo(json.dumps(evaluate_run(run, data, split)))
