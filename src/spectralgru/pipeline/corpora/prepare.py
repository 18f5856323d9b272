"""From sources to prepared corpora: `data/raw/<corpus>/` and `data/prepared/<corpus>.{npz,json}`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from spectralgru.files import atomic_path, sha256, write_json
from spectralgru.pipeline.corpora.catalog import Entry, entry
from spectralgru.pipeline.corpora.own import Own, Raw
from spectralgru.pipeline.corpora.recipe import RECIPE
from spectralgru.pipeline.corpora.sources import fetch_file


def fetch(corpus: str, data: Path | str, own: Own | None = None) -> Raw:
    """Put the raw files of `corpus` into `data/raw/<corpus>/`, verified; existing files are only verified.

    The files of an `own` corpus stay where they are. Returns SHA-256 and source of each file. Raises InputError for an
    unknown corpus, a raw file with the wrong content or a missing file of an own corpus, RunError if no source has a
    file.
    """
    if own is not None:
        return own.raw()
    terms, folder = entry(corpus), Path(data) / "raw" / corpus
    sources = _fetch(corpus, terms, folder)
    return {name: {"sha256": sha256(folder / name), "source": source} for name, source in sources.items()}


def _fetch(corpus: str, terms: Entry, folder: Path) -> dict[str, str]:
    """Fetch the files; return where each of them came from."""
    record = folder / "sources.json"
    sources = read_record(record)
    if not all((folder / file.name).exists() for file in terms.files):
        console = Console(stderr=True, highlight=False, markup=False)
        console.print(f"{corpus}: terms of use: {terms.licence}", soft_wrap=True)
    for file in terms.files:
        if source := fetch_file(corpus, file, folder):
            sources[file.name] = source
            write_json(record, sources)
    return {file.name: sources.get(file.name, "placed by hand") for file in terms.files}


def prepare(corpus: str, data: Path | str, own: Own | None = None) -> Path:
    """Make `data/prepared/<corpus>.npz` and the `.json` beside it, fetching what is missing; return the `.npz`.

    The same sources give the same bytes. Does nothing if both files exist, belong together and come from the present
    sources, in the catalogue or of an `own` corpus. Raises InputError and RunError as `fetch` does, and InputError for
    sources that cannot be read.
    """
    data = Path(data)
    path = data / "prepared" / f"{corpus}.npz"
    terms = own or entry(corpus)
    if is_current(path, terms):
        return path
    raw = fetch(corpus, data, own)
    arrays, about = terms.read() if isinstance(terms, Own) else terms.read(data / "raw" / corpus)
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)
    record = {
        "corpus": corpus,
        "sha256": sha256(path),
        "recipe": RECIPE,
        "raw": raw,
        "licence": terms.licence,
    }
    if own is not None:
        record["own"] = own.model_dump(mode="json")
    write_json(path.with_suffix(".json"), record | about)
    return path


def is_current(path: Path, terms: Entry | Own) -> bool:
    """Whether a prepared corpus is intact and would be prepared the same way now.

    Raises InputError for an own corpus whose sources cannot be read.
    """
    record = read_record(path.with_suffix(".json"))
    try:
        return bool(
            record["recipe"] == RECIPE
            and isinstance(record["counts"], dict)
            and record["sha256"] == sha256(path)
            and terms.is_of(record)
        )
    except (OSError, LookupError, TypeError):
        return False


def read_record(path: Path) -> dict[str, Any]:
    """A record written by `prepare`; a damaged one counts as missing."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
