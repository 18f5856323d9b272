"""The command for questions beyond the tables."""

from typing import Annotated

import typer

from spectralgru.errors import InputError
from spectralgru.pipeline.cli import options


def experiment(
    name: Annotated[str, typer.Argument(help="learning_rate, cost, beyond or readings")],
    part: Annotated[
        str | None, typer.Option(help="make only this part, CORPUS/NAME; default: all, and the conclusion")
    ] = None,
    conclude: Annotated[bool, typer.Option("--conclude", help="the conclusion alone")] = False,
    params: options.Params = options.PARAMS,
    scale: options.Scale = None,
    corpora: options.Corpora = None,
    out: options.Out = None,
    data: options.Data = options.DATA,
    gpus: options.Gpus = 0,
    processes: options.Processes = 1,
    device: options.Device = None,
    threads: options.Threads = None,
    checkpoints: options.Checkpoints = options.CHECKPOINTS,
) -> None:
    """Answer a question beyond the paper's tables (docs/experiments.md); run again, it continues or does nothing."""
    from spectralgru.pipeline.experiments import base

    known = {known: known for known in base.EVERY}
    if name not in known:
        raise InputError(f"experiment {name!r}: unknown; it must be one of {', '.join(known)}")
    chosen = options.load(params, scale, {"corpora": corpora} if corpora else None)
    parts = {f"{p.corpus}/{p.name}": p for p in base.chosen_parts(chosen, known[name])}
    if part is not None and part not in parts:
        raise InputError(f"--part {part}: no such part of {name}; it must be one of {', '.join(parts)}")
    folder = options.results(out, chosen.scale) / "experiments" / name
    means = base.Means(data, folder, checkpoints, processes, gpus, device, threads)
    for each in [] if conclude else parts.values() if part is None else [parts[part]]:
        base.make_part(chosen, known[name], each, means)
        typer.echo(each.record(folder))
    if part is None:
        for sentence in base.conclude(chosen, known[name], folder)["answer"]:
            typer.echo(sentence)
