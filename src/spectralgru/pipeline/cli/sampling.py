"""The command that samples from a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from spectralgru.errors import InputError
from spectralgru.files import write_together
from spectralgru.pipeline.cli import options
from spectralgru.training.data.dataset import Split, Words


def sample(
    run: Annotated[Path, typer.Option(help="a run directory")],
    data: options.Data = options.DATA,
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
    audio: Annotated[
        bool, typer.Option("--audio", help="music: also write sound, an .mp3 beside the MIDI file")
    ] = False,
) -> None:
    """Continue a tune (MIDI, sound) or a sentence (text) from a trained run."""
    from spectralgru.pipeline.sampling.sample import Text
    from spectralgru.pipeline.sampling.sample import sample as sample_from
    from spectralgru.pipeline.sampling.trained import open_run

    path = out or Path("sample.mid")
    trained = open_run(run, data)
    if audio and isinstance(trained.corpus, Words):
        raise InputError(f"--audio: {trained.corpus.name} has words, which nothing can play; leave it out")
    if audio and path.suffix.lower() not in (".mid", ".midi"):
        raise InputError(f"--out {path}: must end in .mid; the sound is written beside it as .mp3")
    continued = sample_from(trained, split, tune, prompt, steps, temperature, seed)
    if isinstance(continued, Text):
        typer.echo(str(continued))
        if out is not None:
            _write_out({out: f"{continued}\n".encode()})
    else:
        begins, end = continued.begins, len(continued.roll)
        said = f"{continued.name}: {begins} steps of the tune, {end - begins} sampled"
        files = {path: continued.midi()}
        if audio:
            files[path.with_suffix(".mp3")] = continued.mp3()
        _write_out(files)
        for name in files:
            typer.echo(f"{name}: {said}")


def _write_out(files: Mapping[Path, bytes]) -> None:
    try:
        write_together(files)
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be written ({error.strerror}); name another file with --out"
        ) from None
