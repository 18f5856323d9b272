"""Small files that say what results are made of, trusted only if they are intact and have the expected structure.

Each begins with a seal, the SHA-256 of the file with zeros in place of the seal. Planning reads many of these files: a
damaged one neither stops planning nor passes for an intact one.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from spectralgru.files import write_text

OPEN = "0" * 64  # placeholder before the seal is set
_SEAL = re.compile(rb'"seal"(?:: | content=)"([0-9a-f]{64})"')  # in JSON, and in an HTML page's <meta>
BEGINNING = 4096  # bytes in which the seal is looked for
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
    """Content of the JSON file; None if it cannot be read, has another structure, or its seal is wrong."""
    content = read_bytes(path)
    try:
        return None if sealed and not is_whole(content) else shape.model_validate_json(content, strict=True)
    except ValidationError:
        return None
