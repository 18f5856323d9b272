"""Reads the pieces of the report from their files."""

import base64
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from spectralgru.errors import InputError
from spectralgru.pipeline.results.names import CLAIMS
from spectralgru.pipeline.results.render import FORMS, Fragment
from spectralgru.pipeline.summary import SUMMARY


@dataclass(frozen=True)
class Figure:
    """A figure, embedded in the page."""

    source: str  # data: URL
    caption: str


@dataclass(frozen=True)
class Attachment:
    """A file embedded in the page behind a link that saves it, so that the page can travel alone."""

    text: str
    name: str
    source: str  # data: URL


@dataclass(frozen=True)
class Text:
    """A prompt, and its continuation by a model."""

    title: str
    prompt: str
    continuation: str


@dataclass(frozen=True)
class Sound:
    """A recording, embedded in the page."""

    title: str
    source: str  # data: URL


@dataclass(frozen=True)
class Section:
    """A kept campaign, an experiment, or the samples."""

    id: str
    title: str
    answer: list[str]
    tables: list[tuple[Fragment, list[Attachment]]]  # with its files
    figures: list[Figure]
    attachments: list[Attachment] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    sounds: list[Sound] = field(default_factory=list)
    folder: str = ""  # of the rest, relative to the page


def read_claims(root: Path) -> list[dict[str, Any]]:
    """Read `root/claims.json`."""
    claims: list[dict[str, Any]] = _read(root / CLAIMS[0], json.loads)
    return claims


def figure(root: Path, name: str, caption: str) -> Figure:
    """The figure `root/name` (SVG), embedded in the page."""
    return Figure(embedded("image/svg+xml", _read(root / name, str.encode)), caption)


def embedded(kind: str, content: bytes) -> str:
    """A file as a data: URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def sections(root: Path) -> list[Section]:
    """The finished experiments and samples below `root`, which have a summary."""
    summaries = [*sorted(root.glob(f"experiments/*/{SUMMARY}")), root / "samples" / SUMMARY]
    return [_section(root, path) for path in summaries if path.exists()]


def forms(folder: Path, table: Fragment) -> list[Attachment]:
    """The files of a table in `folder`, without its HTML page, which shows the same."""
    names = [(suffix.upper(), f"{table.name}.{suffix}") for suffix in FORMS if suffix != "html"]
    return attached(folder, names)


def attached(folder: Path, named: Iterable[tuple[str, str]]) -> list[Attachment]:
    """The given files (text of the link, name) that exist in `folder`."""
    return [
        Attachment(text, name, embedded(guess_type(name)[0] or "text/plain", (folder / name).read_bytes()))
        for text, name in named
        if (folder / name).exists()
    ]


def _section(root: Path, path: Path) -> Section:
    folder = path.parent.relative_to(root).as_posix()
    try:
        summary = json.loads(_read(path, str))
        title = summary["title"]
        tables = [(table, forms(path.parent, table)) for table in (Fragment(**t) for t in summary["tables"])]
        figures = [
            figure(root, f"{folder}/{name}", f"{_words(name)}: {title}") for name in summary["figures"]
        ]
        links = attached(path.parent, [(link["text"], link["href"]) for link in summary.get("links", [])])
        texts = [Text(**text) for text in summary.get("texts", [])]
        sounds = [
            Sound(sound["text"], embedded("audio/mpeg", (path.parent / sound["href"]).read_bytes()))
            for sound in summary.get("sounds", [])
        ]
        answer = list(summary["answer"])
        return Section(path.parent.name, title, answer, tables, figures, links, texts, sounds, f"{folder}/")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a summary ({error!r}); delete it and make it again") from None


def _words(name: str) -> str:
    return Path(name).stem.replace("_", " ").replace("-", ", ").capitalize()


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); make it with `snakemake`") from None
