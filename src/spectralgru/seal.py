"""Seals: a file that holds its own SHA-256 shows whether it is still as it was written.

The seal is at the beginning of the file: the SHA-256 of the file with zeros in place of the seal.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from spectralgru.files import json_text

OPEN = "0" * 64  # placeholder until the seal is set
BEGINNING = 4096  # bytes in which the seal is looked for
# In JSON, and in an HTML page's <meta>.
_SEAL = re.compile(rb'"(?:seal|sha256)"(?:: | content=)"([0-9a-f]{64})"')


def sealed(text: str) -> str:
    """`text`, which holds `OPEN` near its beginning, with the seal in its place."""
    return text.replace(OPEN, hashlib.sha256(text.encode()).hexdigest(), 1)


def sealed_json(content: Mapping[str, Any], key: str = "seal") -> str:
    """JSON with a seal as its first key."""
    return sealed(json_text({key: OPEN, **content}))


def is_whole(content: bytes) -> bool:
    """Whether the content of a sealed file is as it was written."""
    seal = _SEAL.search(content, 0, BEGINNING)
    if seal is None:
        return False
    unset = content[: seal.start(1)] + OPEN.encode() + content[seal.end(1) :]
    return hashlib.sha256(unset).hexdigest() == seal[1].decode()
