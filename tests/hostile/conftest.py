"""Whatever is thrown at it: no traceback, no hang, nothing outside the given folders, nothing finished changed.

Seeded, so that a failure comes again. The helpers are in `damage.py`.
"""

import random
import zlib

import pytest


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of the test's own, the same every time."""
    return random.Random(zlib.crc32(request.node.nodeid.encode()))
