"""`summary.json`, written last in a folder: its answer, its files with SHA-256, and what they were made from."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from spectralgru.files import sha256, write_text
from spectralgru.pipeline.side_files import read_as
from spectralgru.seal import sealed_json

SUMMARY = "summary.json"


class _Summary(BaseModel):
    files: dict[str, str]
    made_of: dict[str, str]


def write_summary(
    folder: Path, said: Mapping[str, Any], files: Iterable[str], made_of: Mapping[str, str]
) -> dict[str, Any]:
    """Write the summary once everything else in `folder` is written; returns its content."""
    summary = {**said, "files": {name: sha256(folder / name) for name in files}, "made_of": made_of}
    write_text(folder / SUMMARY, sealed_json(summary))
    return summary


def is_current(folder: Path, made_of: Mapping[str, str]) -> bool:
    """Whether the summary was made from exactly this, and it and its files are as they were written."""
    summary = read_as(_Summary, folder / SUMMARY, sealed=True)
    return summary is not None and summary.made_of == made_of and are_whole(folder, summary.files)


def files_of(folder: Path) -> list[Path]:
    """The files named by the summary in `folder`; none without an intact summary."""
    summary = read_as(_Summary, folder / SUMMARY, sealed=True)
    return [folder / name for name in summary.files] if summary else []


def are_whole(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether all files in `folder` can be read and have the SHA-256 given."""
    try:
        named = {folder / name: digest for name, digest in files.items()}
        return all(path.is_file() and sha256(path) == digest for path, digest in named.items())
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return False
