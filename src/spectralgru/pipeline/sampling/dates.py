"""What samples depend on: the candidate runs, and the code that samples."""

from collections.abc import Mapping
from pathlib import Path

from spectralgru.files import sha256_of_all
from spectralgru.resources import PACKAGE

SAMPLED = ("constraint", "clipping")  # the methods whose best runs are sampled

CODE = (
    "pipeline/sampling/*.py",
    "pipeline/corpora/midi.py",
    "pipeline/results/style.py",
)


def made_of(keys: Mapping[str, str]) -> dict[str, str]:
    """What samples depend on; `keys`: of every run, by directory relative to `results/<scale>`."""
    chosen = {path: key for path, key in keys.items() if Path(path).parent.name.startswith(SAMPLED)}
    return chosen | {"code": sha256_of_all(PACKAGE, CODE)}
