"""Commands that fetch and prepare corpora."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectralgru.errors import InputError, on_one_line
from spectralgru.pipeline.cli import options
from spectralgru.pipeline.corpora import CORPORA
from spectralgru.training.data.dataset import SPLITS

if TYPE_CHECKING:
    from spectralgru.pipeline.corpora.own import Own

SKIPPED = 20  # skipped files to name; the record names all


def fetch(
    corpus: options.Corpus, data: options.Data = options.DATA, params: options.Params = options.PARAMS
) -> None:
    """Fetch a corpus and verify it; name its files, their SHA-256 and sources."""
    from spectralgru.pipeline.corpora.prepare import fetch as fetch_corpus

    for name, about in fetch_corpus(corpus, data, _own(corpus, params)).items():
        typer.echo(f"{about['sha256']}  {name} ({about['source']})")


def prepare(
    corpus: options.Corpus,
    data: options.Data = options.DATA,
    params: options.Params = options.PARAMS,
    midi: Annotated[str | None, typer.Option(help="a folder of MIDI files: a corpus of your own")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="a text of your own; three times: train, valid and test")
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option("--set", help="a setting of your own corpus, e.g. vocabulary=10000; repeatable"),
    ] = None,
) -> None:
    """Fetch what is missing and write data/prepared/<corpus>.npz and .json."""
    from spectralgru.pipeline.corpora.prepare import prepare as prepare_corpus

    path = prepare_corpus(corpus, data, _own(corpus, params, midi, text, keys))
    record = json.loads(path.with_suffix(".json").read_text())
    typer.echo(f"{path}: {json.dumps(record['counts'])}")
    for line in _described(record):
        typer.echo(line)


def _own(
    corpus: str,
    params: Path,
    midi: str | None = None,
    text: list[str] | None = None,
    keys: list[str] | None = None,
) -> "Own | None":
    """A corpus of the user's own, defined by options or else by params.yaml; None if by neither."""
    from spectralgru.pipeline.params.keys import parse_own, with_keys

    if midi is not None and text:
        raise InputError(
            f"--midi {midi} and --text {text[0]}: give one of the two; a corpus has either notes or words"
        )
    if text and len(text) not in (1, 3):
        raise InputError(
            f"--text is given {len(text)} times; give it once, or three times: train, valid and test"
        )
    definition: dict[str, Any] = {}
    if midi is not None:
        definition = {"midi": midi}
    elif text:
        definition = {"text": text[0] if len(text) == 1 else dict(zip(SPLITS, text, strict=True))}
    elif corpus not in CORPORA and params.exists():
        known = options.load(params, None).own.get(corpus)
        definition = known.model_dump(mode="json", exclude_unset=True) if known else {}
    if definition:
        return parse_own(corpus, with_keys(definition, keys or []))
    if keys:
        raise InputError(f"--set {keys[0]}: {corpus} is not a corpus of your own; leave it out")
    return None


def _described(record: dict[str, Any]) -> list[str]:
    """Lines that sum up a folder of MIDI files; none for other corpora."""
    if not (found := record.get("summary")):
        return []
    low, high = found["pitches"]
    skipped = list(record["skipped"].values())
    return [
        f"{found['pieces']:,} pieces, {found['steps']:,} steps of {record['step']} quarter note, {found['notes']:,} "
        f"notes from {low} to {high}, {found['polyphony']:.2f} in a sounding step, at most {found['most_notes']}; "
        f"tempo {found['tempo']:g}",
        f"{found['duplicates']} duplicates, each in the split of its original; {len(skipped)} files skipped",
        *(f"  skipped: {on_one_line(reason)}" for reason in skipped[:SKIPPED]),
        *([f"  and {len(skipped) - SKIPPED} more"] if len(skipped) > SKIPPED else []),
    ]
