"""`summary.json`, the last file of a folder: what it says, its files with their SHA-256, what they were made of."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spectralgru.files import sha256, write_json

SUMMARY = "summary.json"


def write_summary(
    folder: Path, said: Mapping[str, Any], files: Iterable[str], made_of: Mapping[str, str]
) -> dict[str, Any]:
    """Write it when everything else in `folder` is written; returns what it holds."""
    summary = {**said, "files": {name: sha256(folder / name) for name in files}, "made_of": made_of}
    write_json(folder / SUMMARY, summary)
    return summary


def is_current(folder: Path, made_of: Mapping[str, str]) -> bool:
    """Whether the summary is of exactly this, and its files are as they were written."""
    try:
        found = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        whole = all(sha256(folder / name) == digest for name, digest in found["files"].items())
        return whole and bool(found["made_of"] == made_of)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
