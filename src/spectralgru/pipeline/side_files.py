"""Reads small files that say what results are made of. They count only if they are intact and have the expected
structure.

Planning reads many of them, and a damaged one must neither stop it nor pass for an intact one.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from spectralgru.seal import is_whole

Shape = TypeVar("Shape", bound=BaseModel)


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
