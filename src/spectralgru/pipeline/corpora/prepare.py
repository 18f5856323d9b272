"""From sources to prepared corpora: `data/raw/<corpus>/` and `data/prepared/<corpus>.{npz,json}`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from spectralgru.files import atomic_path, sha256, write_json
from spectralgru.pipeline.corpora import chorales, matlab, nottingham, pianoroll, ptb
from spectralgru.pipeline.corpora.catalog import Entry, entry
from spectralgru.pipeline.corpora.recipe import RECIPE
from spectralgru.pipeline.corpora.sources import fetch_file
from spectralgru.training.data.dataset import SPLITS


def fetch(corpus: str, data: Path | str) -> None:
    """Put the raw files of `corpus` into `data/raw/<corpus>/`, verified; existing files are only verified.

    Raises InputError for an unknown corpus or a raw file with the wrong content, RunError if no source has a file.
    """
    _fetch(corpus, entry(corpus), Path(data))


def _fetch(corpus: str, terms: Entry, data: Path) -> dict[str, str]:
    """Fetch; return where each file came from."""
    folder = data / "raw" / corpus
    record = folder / "sources.json"
    sources = _read(record)
    if not all((folder / file.name).exists() for file in terms.files):
        console = Console(stderr=True, highlight=False, markup=False)
        console.print(f"{corpus}: terms of use: {terms.licence}", soft_wrap=True)
    for file in terms.files:
        if source := fetch_file(corpus, file, folder):
            sources[file.name] = source
            write_json(record, sources)
    return {file.name: sources.get(file.name, "placed by hand") for file in terms.files}


def prepare(corpus: str, data: Path | str) -> Path:
    """Make `data/prepared/<corpus>.npz` and the `.json` beside it, fetching what is missing; return the `.npz`.

    Same sources, same bytes. Does nothing if both exist, belong together and come from today's sources.
    Raises InputError and RunError as `fetch` does, and InputError for raw files that cannot be read.
    """
    data = Path(data)
    terms = entry(corpus)
    path = data / "prepared" / f"{corpus}.npz"
    if _is_current(path, terms):
        return path
    sources = _fetch(corpus, terms, data)
    raw = data / "raw" / corpus
    if corpus == "ptb":
        arrays, about = _words(raw)
    else:
        arrays, about = _notes(corpus, raw)
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)
    record = {
        "corpus": corpus,
        "sha256": sha256(path),
        "recipe": RECIPE,
        "raw": {name: {"sha256": sha256(raw / name), "source": source} for name, source in sources.items()},
        "licence": terms.licence,
    }
    write_json(path.with_suffix(".json"), record | about)
    return path


def _is_current(path: Path, terms: Entry) -> bool:
    record = _read(path.with_suffix(".json"))
    try:
        return bool(
            record["recipe"] == RECIPE
            and isinstance(record["counts"], dict)
            and record["sha256"] == sha256(path)
            and all(record["raw"][file.name]["sha256"] in file.sha256 for file in terms.files)
        )
    except (OSError, LookupError, TypeError):
        return False


def _read(path: Path) -> dict[str, Any]:
    """A record written by `prepare`; a damaged one counts as missing."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _words(raw: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    ids, vocabulary = ptb.read(raw)
    counts = {split: {"tokens": len(ids[split])} for split in SPLITS}
    return ids, {"kind": "words", "counts": counts, "types": len(vocabulary), "vocabulary": vocabulary}


def _notes(corpus: str, raw: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    lowest = pianoroll.LOWEST
    if corpus == "nottingham":
        tunes = nottingham.read(raw / "Nottingham.zip")
    elif corpus == "chorales":
        archive = raw / "midi.zip"
        chorales.write_midi(raw / "scores.zip", archive)
        tunes = chorales.read(archive)
    else:
        tunes = matlab.read(raw / entry(corpus).files[0].name)
        lowest = matlab.LOWEST
    arrays: dict[str, Any] = {split: np.concatenate(tunes[split]) for split in SPLITS}
    lengths = {
        f"{split}_lengths": np.array([len(t) for t in tunes[split]], dtype=np.int32) for split in SPLITS
    }
    counts = {split: {"tunes": len(tunes[split]), "steps": len(arrays[split])} for split in SPLITS}
    notes = arrays["train"].shape[1]
    return arrays | lengths, {"kind": "notes", "counts": counts, "notes": notes, "lowest": lowest}
