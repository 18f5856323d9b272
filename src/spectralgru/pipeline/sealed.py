"""Small files that say what results are made of, believed only if they are whole and of the shape expected.

A seal, the SHA-256 of the file with zeros in the seal's place, stands at the beginning. Planning reads many of these
files: a damaged one neither stops it nor passes for a good one.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from spectralgru.files import write_text

OPEN = "0" * 64  # what stands in the seal's place before it is set
_SEAL = re.compile(rb'"seal"(?:: | content=)"([0-9a-f]{64})"')  # of JSON, and of an HTML page's <meta>
BEGINNING = 4096  # bytes that the seal is looked for in
Shape = TypeVar("Shape", bound=BaseModel)


def write_sealed(path: Path, text: str) -> None:
    """Write `text`, which holds the seal `OPEN` at its beginning, with the seal set."""
    write_text(path, text.replace(OPEN, hashlib.sha256(text.encode()).hexdigest(), 1))


def write_sealed_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with a seal as its first key."""
    write_sealed(path, json.dumps({"seal": OPEN, **content}, indent=2, allow_nan=False) + "\n")


def is_whole(content: bytes) -> bool:
    """Whether the content of a sealed file is as it was written."""
    seal = _SEAL.search(content, 0, BEGINNING)
    if seal is None:
        return False
    unset = content[: seal.start(1)] + OPEN.encode() + content[seal.end(1) :]
    return hashlib.sha256(unset).hexdigest() == seal[1].decode()


def read_bytes(path: Path) -> bytes:
    """Content of the file, empty if it cannot be read."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def read_as(shape: type[Shape], path: Path, sealed: bool = False) -> Shape | None:
    """What the JSON file holds, None if it cannot be read, is not of this shape, or has a seal that is not its own."""
    content = read_bytes(path)
    try:
        return None if sealed and not is_whole(content) else shape.model_validate_json(content, strict=True)
    except ValidationError:
        return None
