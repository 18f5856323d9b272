"""The command line: each command a thin call.

Exit codes: 0 ok, 1 failed, 2 bad usage or input, 75 stopped on request (the same command goes on)."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectralgru.errors import InputError, RunError, explained
from spectralgru.files import atomic_path, write_json
from spectralgru.pipeline.redaction import without_secrets
from spectralgru.training.data.dataset import Split

if TYPE_CHECKING:
    from spectralgru.pipeline.results.load import Campaign

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


def _known(device: str | None) -> str | None:
    if device is not None:
        from spectralgru.training.distributed import device_named

        device_named(device)  # now, not in every process that is started
    return device


CorpusOption = Annotated[
    str, typer.Option("--corpus", help="ptb, nottingham, chorales, jsb_chorales, musedata, piano_midi")
]
DataOption = Annotated[Path, typer.Option("--data", help="folder of raw and prepared corpora")]
ParamsOption = Annotated[Path, typer.Option("--params", help="the file of parameters")]
ScaleOption = Annotated[
    str | None, typer.Option("--scale", help="quick or paper; default: what params.yaml says")
]
CorporaOption = Annotated[
    list[str] | None, typer.Option("--corpus", help="default: what params.yaml says; repeatable")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="folder of results; default results/<scale>")]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        envvar="SPECTRALGRU_DEVICE",
        callback=_known,
        help="cpu, cuda or cuda:N; default: cuda with --gpus, else cpu",
    ),
]

DATA, PARAMS = Path("data"), Path("params.yaml")


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False) -> None:
    """Train gated recurrent units whose fixed point stays stable, and reproduce the paper that proposed them."""


def _params(path: Path, scale: str | None, changes: dict[str, Any] | None = None) -> Any:
    from spectralgru.pipeline.params import load_params

    overrides: dict[str, Any] = dict(changes or {})
    return load_params(path, overrides if scale is None else overrides | {"scale": scale})


@app.command()
def fetch(corpus: CorpusOption, data: DataOption = DATA) -> None:
    """Fetch a corpus and verify it."""
    from spectralgru.pipeline.corpora.prepare import fetch as fetch_corpus

    fetch_corpus(corpus, data)


@app.command()
def prepare(corpus: CorpusOption, data: DataOption = DATA) -> None:
    """Fetch what is missing and write data/prepared/<corpus>.npz and .json."""
    from spectralgru.pipeline.corpora.prepare import prepare as prepare_corpus

    path = prepare_corpus(corpus, data)
    counts = json.loads(path.with_suffix(".json").read_text())["counts"]
    typer.echo(f"{path}: {json.dumps(counts)}")


@app.command()
def train(
    corpus: CorpusOption,
    method: Annotated[str, typer.Option(help="constraint, clipping or none")],
    out: OutOption = None,
    value: Annotated[float | None, typer.Option(help="delta (constraint) or threshold (clipping)")] = None,
    seeds: Annotated[
        list[int] | None, typer.Option(help="default: what params.yaml says; repeatable")
    ] = None,
    scale: ScaleOption = None,
    data: DataOption = DATA,
    params: ParamsOption = PARAMS,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="e.g. training.epochs=2; repeatable")
    ] = None,
    gpus: Annotated[
        int,
        typer.Option(min=0, help="GPUs to lock for this training, one a process; waits until they are free"),
    ] = 0,
    processes: Annotated[
        int, typer.Option(min=1, help="processes that share the training; at least one a GPU")
    ] = 1,
    device: DeviceOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of all processes; default: what torch chooses")
    ] = None,
    checkpoints: Annotated[Path, typer.Option(help="folder of checkpoints")] = Path(".checkpoints"),
    checkpoint_seconds: Annotated[
        float,
        typer.Option(min=0, envvar="SPECTRALGRU_CHECKPOINT_SECONDS", help="time between two checkpoints"),
    ] = 60.0,
    together: Annotated[
        int | None, typer.Option(min=1, help="runs trained at a time, for less memory; default: all")
    ] = None,
) -> None:
    """Train one setting with all its seeds; run again, it resumes or, when finished, does nothing."""
    from spectralgru.pipeline.params import parse_setting, with_changes
    from spectralgru.training.launch import train_in

    chosen = with_changes(_params(params, scale), corpus, changes or [])
    job = chosen.job(corpus, [parse_setting(method, value)], seeds)
    root = out or Path("results") / chosen.scale
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


@app.command()
def job(
    corpus: CorpusOption,
    method: Annotated[str, typer.Option(help="constraint, clipping or none")],
    value: Annotated[float | None, typer.Option(help="delta (constraint) or threshold (clipping)")] = None,
    seeds: Annotated[
        list[int] | None, typer.Option(help="default: what params.yaml says; repeatable")
    ] = None,
    scale: ScaleOption = None,
    params: ParamsOption = PARAMS,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="e.g. training.epochs=2; repeatable")
    ] = None,
) -> None:
    """Print a training as JSON, for `python -m spectralgru.training` on a machine with torch and numpy alone."""
    from spectralgru.pipeline.params import parse_setting, with_changes

    chosen = with_changes(_params(params, scale), corpus, changes or [])
    typer.echo(json.dumps(asdict(chosen.job(corpus, [parse_setting(method, value)], seeds)), indent=2))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="a run directory")],
    data: DataOption = DATA,
    split: Annotated[Split, typer.Option(help="valid or test")] = "test",
) -> None:
    """Compute the loss and metric of a run's saved model again."""
    from spectralgru.pipeline.saved import evaluate_run

    typer.echo(json.dumps(evaluate_run(run, data, split)))


@app.command()
def sample(
    run: Annotated[Path, typer.Option(help="a run directory")],
    data: DataOption = DATA,
    split: Annotated[Split, typer.Option(help="where the tune is: train, valid or test")] = "test",
    tune: Annotated[
        int | None, typer.Option(help="music: continue this tune, counted from 0; default 0")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="words: continue this; default: begin a sentence")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="time steps (default 64) or words (60) to sample")] = None,
    temperature: Annotated[
        float, typer.Option(help="below 1: more predictable than the model; above: less")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="of the random numbers")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="file to write; default for music sample.mid, for words none")
    ] = None,
) -> None:
    """Continue a tune (MIDI) or a sentence (text) from a trained run."""
    from spectralgru.pipeline.sampling.sample import Text
    from spectralgru.pipeline.sampling.sample import sample as sample_from
    from spectralgru.pipeline.sampling.trained import open_run

    made = sample_from(open_run(run, data), split, tune, prompt, steps, temperature, seed)
    if isinstance(made, Text):
        typer.echo(str(made))
        if out is not None:
            _write_out(out, f"{made}\n".encode())
    else:
        _write_out(path := out or Path("sample.mid"), made.midi())
        begins, end = made.begins, len(made.roll)
        typer.echo(f"{path}: {made.name}: {begins} steps of the tune, {end - begins} sampled")


def _write_out(path: Path, content: bytes) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); name another file with --out"
        ) from None


@app.command()
def samples(
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    corpora: CorporaOption = None,
    data: DataOption = DATA,
    out: OutOption = None,
) -> None:
    """Continue a tune or sentences with the best constrained and the best clipped run: MIDI, piano rolls, text."""
    from spectralgru.pipeline.sampling.campaign import write_samples

    _write(lambda campaign: write_samples(campaign, data), params, scale, corpora, out)


@app.command()
def track(
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    corpora: CorporaOption = None,
    out: OutOption = None,
    data: DataOption = DATA,
    summary: Annotated[Path | None, typer.Option(help="write what was done to this JSON file")] = None,
    keep_on: Annotated[
        bool, typer.Option("--follow", help="import again and again until every run has ended")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two imports of --follow")] = 5.0,
) -> None:
    """Import run directories into MLflow (MLFLOW_TRACKING_URI, else mlflow.db); again: only what changed."""
    from spectralgru.pipeline.tracking import follow
    from spectralgru.pipeline.tracking import track as track_runs
    from spectralgru.records import read_run

    chosen = _params(params, scale)
    root = out or Path("results") / chosen.scale
    names = corpora or chosen.chosen_corpora()
    runs = [root / path for corpus in names for path in chosen.run_directories(corpus)]
    shown = [path for corpus in names for path in sorted((root / "figures").glob(f"{corpus}-*.svg"))]

    def step() -> Any:
        tracked = track_runs(root, runs, figures=shown, data=data, scale=chosen.scale)
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


@app.command()
def tables(
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    corpora: CorporaOption = None,
    out: OutOption = None,
) -> None:
    """Write the tables, ours beside the paper's, the list of runs and the learning curves."""
    from spectralgru.pipeline.results.curves import write_curves
    from spectralgru.pipeline.results.runs import write_runs
    from spectralgru.pipeline.results.tables import write_tables

    def write(campaign: "Campaign") -> list[Path]:
        return [*write_tables(campaign), *write_runs(campaign), *write_curves(campaign)]

    _write(write, params, scale, corpora, out)


@app.command()
def figures(
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    corpora: CorporaOption = None,
    out: OutOption = None,
) -> None:
    """Write the figures."""
    from spectralgru.pipeline.results.figures import write_figures

    _write(write_figures, params, scale, corpora, out)


@app.command()
def claims(
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    corpora: CorporaOption = None,
    out: OutOption = None,
) -> None:
    """Check the paper's claims on the runs: holds, fails or undecided, with the evidence."""
    from spectralgru.pipeline.results.claims import write_claims

    _write(write_claims, params, scale, corpora, out)


@app.command()
def provenance(
    artifact: Annotated[
        str | None,
        typer.Argument(help="a table or figure: table1, ptb-trajectory or a path; none: record all"),
    ] = None,
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    corpora: CorporaOption = None,
    data: DataOption = DATA,
    out: OutOption = None,
) -> None:
    """Say which runs, commit, parameters, data and machine a table or figure comes from, or record it for all."""
    from spectralgru.pipeline.provenance.explain import explain, find, read_record
    from spectralgru.pipeline.provenance.record import write_provenance

    chosen = _params(params, scale)
    root, seeds = out or Path("results") / chosen.scale, chosen.section.seeds
    settings = {corpus: chosen.settings(corpus) for corpus in corpora or chosen.chosen_corpora()}
    if artifact is None:
        for path in write_provenance(root, settings, seeds, data, params):
            typer.echo(path)
    else:
        record = read_record(root)
        for line in explain(root, record, find(record, artifact), settings, seeds):
            typer.echo(line)


@app.command()
def report(params: ParamsOption = PARAMS, scale: ScaleOption = None, out: OutOption = None) -> None:
    """Write report.html: one page of answer, tables, figures, claims and provenance, as they are there."""
    from spectralgru.pipeline.report import write_report

    typer.echo(write_report(out or Path("results") / _params(params, scale).scale))


def _write(
    write: "Callable[[Campaign], list[Path]]",
    params: Path,
    scale: str | None,
    corpora: list[str] | None,
    out: Path | None,
) -> None:
    """Load the campaign's runs and say which files were made of them."""
    from spectralgru.pipeline.results.load import Campaign

    chosen = _params(params, scale)
    settings = {corpus: chosen.settings(corpus) for corpus in corpora or chosen.chosen_corpora()}
    root = out or Path("results") / chosen.scale
    for path in write(Campaign.load(root, settings, chosen.section.seeds, chosen.scale)):
        typer.echo(path)


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="learning_rate, cost or beyond")],
    part: Annotated[
        str | None, typer.Option(help="make this part alone, CORPUS/NAME; default: all, and the conclusion")
    ] = None,
    conclude: Annotated[bool, typer.Option("--conclude", help="the conclusion alone")] = False,
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    corpora: CorporaOption = None,
    out: OutOption = None,
    data: DataOption = DATA,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs to lock for a training")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="processes that share a training")] = 1,
    device: DeviceOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: what torch chooses")
    ] = None,
    checkpoints: Annotated[Path, typer.Option(help="folder of checkpoints")] = Path(".checkpoints"),
) -> None:
    """Answer a question beyond the paper's tables (docs/experiments.md); run again, it goes on or does nothing."""
    from spectralgru.pipeline.experiments import base
    from spectralgru.pipeline.experiments.settings import NAMES

    known = {known: known for known in NAMES}
    if name not in known:
        raise InputError(f"experiment {name!r}: unknown; it must be one of {', '.join(known)}")
    chosen = _params(params, scale, {"corpora": corpora} if corpora else None)
    parts = {f"{p.corpus}/{p.name}": p for p in base.chosen_parts(chosen, known[name])}
    if part is not None and part not in parts:
        raise InputError(f"--part {part}: no such part of {name}; it must be one of {', '.join(parts)}")
    folder = (out or Path("results") / chosen.scale) / "experiments" / name
    means = base.Means(data, folder, checkpoints, processes, gpus, device, threads)
    for wanted in [] if conclude else parts.values() if part is None else [parts[part]]:
        base.make_part(chosen, known[name], wanted, means)
        typer.echo(wanted.record(folder))
    if part is None:
        for sentence in base.conclude(chosen, known[name], folder)["answer"]:
            typer.echo(sentence)


@app.command()
def status(
    params: ParamsOption = PARAMS,
    scale: ScaleOption = None,
    out: OutOption = None,
) -> None:
    """Sum a campaign up: runs finished, running, diverged, queued, and the time left."""
    from spectralgru.pipeline.status import describe

    chosen = _params(params, scale)
    typer.echo(describe(chosen, out or Path("results") / chosen.scale))


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="0: any that is free")] = 5000,
    host: Annotated[str, typer.Option(help="name or address of this machine to listen at")] = "127.0.0.1",
) -> None:
    """Open MLflow on the tracked runs, below an address that only this command tells."""
    from spectralgru.pipeline.tracking import serve

    serve(port, host, lambda address: typer.echo(f"MLflow: {address} (Ctrl-C ends it)", err=True))


@app.command()
def schema() -> None:
    """Print the JSON schema of params.yaml."""
    from spectralgru.pipeline.params import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="default: all")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Measure the engine against named baselines: benchmarks/results/*.{json,md,svg}."""
    if not Path("benchmarks/__main__.py").exists():
        raise InputError("benchmarks/: not here; run `spectralgru bench` in a checkout of the repository")
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *(names or []), "--device", device])


@app.command()
def doctor(data: DataOption = DATA, params: ParamsOption = PARAMS) -> None:
    """Say what this machine has and what is missing."""
    from spectralgru.pipeline.doctor import diagnose

    if not diagnose(data, params):
        raise RunError("something is missing; see the lines above that do not say ok")


def main() -> None:
    """Entry point of `spectralgru`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what the locale cannot write is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (Exception, KeyboardInterrupt) as error:
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        if "--debug" in sys.argv:
            typer.echo(without_secrets(traceback.format_exc(), uri), err=True)
        code, line = explained(error)
        typer.echo(f"spectralgru: {without_secrets(line, uri)}", err=True)
        sys.exit(code)
