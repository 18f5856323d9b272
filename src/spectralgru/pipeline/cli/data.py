"""Commands that fetch and prepare corpora."""

import json

import typer

from spectralgru.pipeline.cli.options import DATA, CorpusOption, DataOption


def fetch(corpus: CorpusOption, data: DataOption = DATA) -> None:
    """Fetch a corpus and verify it."""
    from spectralgru.pipeline.corpora.prepare import fetch as fetch_corpus

    fetch_corpus(corpus, data)


def prepare(corpus: CorpusOption, data: DataOption = DATA) -> None:
    """Fetch what is missing and write data/prepared/<corpus>.npz and .json."""
    from spectralgru.pipeline.corpora.prepare import prepare as prepare_corpus

    path = prepare_corpus(corpus, data)
    counts = json.loads(path.with_suffix(".json").read_text())["counts"]
    typer.echo(f"{path}: {json.dumps(counts)}")
